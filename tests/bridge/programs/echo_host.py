"""A host that answers every frame with its inverse.  Arguments: endpoint, then JSON options.

``delay_ms`` is spent on each frame; ``hold`` names a state in which the program says so and stands still;
``memory`` forces a kind of shared memory; ``key_directory`` holds the keys of a remote address.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import mirage_bridge as mb


def say(**event: object) -> None:
    print(json.dumps(event | {"at_ns": time.monotonic_ns()}), flush=True)


def main() -> None:
    options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    hold = options.get("hold")
    answered = 0

    continued: list[bool] = []

    def stand_still(state: str) -> None:
        nonlocal hold
        if hold == state and (answered >= 5 or state == "handshake"):
            hold = None
            say(event="hold", state=state)
            while not continued:
                time.sleep(0.002)

    def admit(offer: mb.Offer, _: mb.HostSession | None) -> mb.Admission:
        stand_still("handshake" if not host.sessions else "resizing")
        return mb.Admission({"tier": "echo"})

    def check_style(style: object) -> None:
        if style == "unknown":
            raise mb.StyleError("style 'unknown' is not known; use snow")

    directory = options.get("key_directory")
    host = mb.Host(
        sys.argv[1],
        capabilities=mb.Capabilities(pixel_formats=("RGBA8", "BGRA8", "RGB8", "RGB10A2", "RGBA16F")),
        admit=admit,
        check_style=check_style,
        key_directory=Path(directory) if directory else None,
    )
    if "memory" in options:
        host._memory_kind = options["memory"]
    host.handle("stats", lambda fields: {"sessions": len(host.sessions), "pid_echo": dict(fields)})
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        host.wake()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGCONT, lambda *_: continued.append(True))
    say(event="ready", endpoint=host.endpoint)
    while not stopping:
        for event in host.poll(0.001 if hold == "idle" else 1.0):
            session = event.session
            say(event=type(event).__name__, session=session.id, key=session.key_name, size=session.size,
                reason=getattr(event, "reason", ""))  # fmt: skip
        if host.sessions and not any(session._waiting() for session in host.sessions.values()):
            stand_still("idle")
        for session in tuple(host.sessions.values()):
            job = session.take_newest()
            if job is None:
                continue
            with job:
                stand_still("pinned")
                if options.get("delay_ms"):
                    time.sleep(options["delay_ms"] / 1000)
                draft = session.begin_answer(job)
                stand_still("writing")
                if job.pixels.dtype == "float16":
                    draft.pixels[...] = 1 - job.pixels
                else:
                    draft.pixels[...] = ~job.pixels
                session.publish(draft, reason=str(job.style)[:40])
            answered += 1
            stand_still("ready")
    host.close()
    say(event="closed")


if __name__ == "__main__":
    main()

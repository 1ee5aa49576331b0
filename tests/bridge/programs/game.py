"""A game that checks every pixel it is given.  Arguments: endpoint, then JSON options.

Each frame is filled with one byte that depends on its id and on this process; an answer must hold the inverse
of exactly one such frame.  ``hold`` names a state in which the program says so and stands still; ``frames``
ends it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np

import mirage_bridge as mb


def say(**event: object) -> None:
    print(json.dumps(event | {"at_ns": time.monotonic_ns()}), flush=True)


def main() -> None:
    options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    hold = options.get("hold")
    frames = options.get("frames", 1 << 60)
    pace_s = options.get("pace_ms", 4) / 1000
    budget_ms = options.get("budget_ms", 30.0)
    size = tuple(options.get("size", (160, 90)))
    own = os.getpid() * 37
    answered = 0
    signal.signal(signal.SIGCONT, lambda *_: continued.append(True))

    continued: list[bool] = []

    def stand_still(state: str) -> None:
        nonlocal hold
        if hold == state and (answered >= 5 or state == "handshake"):
            hold = None
            say(event="hold", state=state)
            while not continued:
                time.sleep(0.002)

    session = mb.Session(sys.argv[1], size=size, planes=("mask",), budget_ms=budget_ms)
    if hold == "handshake":
        while session.state == "offline":
            session._pump()
        stand_still("handshake")
    session.wait_ready(0.05)
    say(event="started", state=session.state)
    for number in range(1, frames + 1):
        stand_still("idle")
        if hold == "resizing" and answered >= 5:
            session.resize((176, 96))
            stand_still("resizing")
        frame = session.begin_frame()
        stand_still("writing")
        frame.pixels[...] = (own + number * 11) & 255
        assert frame.mask is not None
        frame.mask[...] = 1
        frame_id = session.end_frame(frame)
        stand_still("ready")
        before_ns = time.monotonic_ns()
        with session.wait_answer(frame_id) as answer:
            waited_ms = (time.monotonic_ns() - before_ns) / 1e6
            expected = (own + answer.frame_id * 11) & 255
            if answer.answered:
                expected ^= 255
                answered += 1
            intact = bool(np.all(np.asarray(answer.pixels) == expected))
            if answer.answered:
                stand_still("pinned")
                intact &= bool(np.all(np.asarray(answer.pixels) == expected))
            say(event="frame", answered=answer.answered, waited_ms=waited_ms, intact=intact,
                state=session.state, reason=answer.reason)  # fmt: skip
        time.sleep(pace_s)
    stats = session.stats()
    say(event="done", **{name: getattr(stats, name) for name in stats.__dataclass_fields__})
    session.close()


if __name__ == "__main__":
    main()

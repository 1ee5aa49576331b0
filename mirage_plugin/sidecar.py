"""The sidecar's life: start, warm up, serve, drain, stop."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any

from rich.console import Console

import mirage_bridge
from mirage_bridge import Admission, Capabilities, Host, HostSession, Offer, StyleError
from mirage_plugin import __version__, pacing
from mirage_plugin.config import EXIT_WITH_PARENT, ServeConfig
from mirage_plugin.engine import load_engine
from mirage_plugin.errors import MirageError
from mirage_plugin.files import check_writable, write_json
from mirage_plugin.frame_path import Stream, rungs_for
from mirage_plugin.profiler import Recorder, activate
from mirage_plugin.style_input import read_style, resolve_styles
from mirage_plugin.styles.parameters import preset_names

__all__ = ["Sidecar", "serve"]

_MAX_SESSIONS = 8
_DESCRIPTORS = 65536
"""As many as it takes at most: a connection is one, and libzmq takes whoever connects."""
_MAX_NOTES = 100
"""So many reasons why a frame was lost are told, for a run of hours may meet new ones at every frame."""


def serve(config: ServeConfig) -> None:
    """Serve games until SIGINT or SIGTERM; the last line before the first frame says "ready"."""
    console = Console(stderr=True, markup=False, emoji=False, soft_wrap=True)
    _raise_limit()
    with Sidecar(config, console) as sidecar:
        sidecar.run()


def _raise_limit() -> None:
    """Let this process have as many descriptors as it may: libzmq ends it where it runs out of them."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class Sidecar:
    """One engine, one address, several games."""

    def __init__(self, config: ServeConfig, console: Console) -> None:
        """Take the address, then load and warm up; raises whatever makes serving impossible."""
        check_writable(config.json)
        self._config = config
        self._console = console
        self._stopping = False
        self._streams: dict[int, Stream] = {}
        self._noted: set[str] = set()
        self._answered = {"styled": 0, "reprojected": 0, "source": 0}
        self._service_ns: list[int] = []
        default = read_style(config.style or "snow")
        # A style file or a picture of this machine's user has a name by which games may ask for it as well.
        self._own = {default.name: default}
        self._resolve = functools.partial(resolve_styles, own=self._own)
        self._default_style = default.name
        # The address first: who starts a second sidecar by mistake hears of it at once, not after the warm-up.
        self._host = Host(
            bind=config.bind,
            capabilities=Capabilities(pixel_formats=("RGBA8", "BGRA8", "RGB8", "RGB10A2", "RGBA16F"),
                                      min_size=(1, 1), max_sessions=_MAX_SESSIONS),
            admit=self._admit, check_style=self._check_style,
        )  # fmt: skip
        try:
            console.print(
                f"mirage {__version__}: loading and warming up"
            )
            began = time.monotonic()
            self._engine = load_engine(config, lambda sentence: console.print(f"note: {sentence}"))
            engine = self._engine
            self._recorder = Recorder(
                info={
                    "tier": engine.tier,
                    "device": engine.device.type,
                    "version": __version__,
                    "steps": config.steps,
                }
            )
        except BaseException:
            self._host.close()
            raise
        activate(self._recorder)
        self._host.handle("profile", self._recorder.page)
        self._host.handle("status", self._status)
        self._host.handle("shutdown", self._shutdown)
        precision = str(engine.dtype).removeprefix("torch.")
        width, height = engine.warm_size
        console.print(
            f"ready at {self._host.endpoint}: {engine.tier} on {engine.device.type} in {precision}, "
            f"{width}x{height} in {engine.cost_ns(0) / 1e6:.1f} ms, warm after {time.monotonic() - began:.0f} s"
        )

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(self, *_: object) -> None:
        self._host.close()
        self._recorder.close()

    def run(self) -> None:
        """Serve until told to stop."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        parent = os.environ.get(EXIT_WITH_PARENT)
        while not self._stopping:
            if parent is not None and str(os.getppid()) != parent:
                break
            events = self._host.poll(0.5)
            for event in events:
                self._heed(event)
            self._serve_waiting()
            self._succeed()
            # Behind the frames that waited, and once for each game, however often it asked.
            asked = (mirage_bridge.SessionOpened, mirage_bridge.StyleChanged)
            for identity in {event.session.id for event in events if isinstance(event, asked)}:
                if identity in self._streams:
                    self._streams[identity].learn_style()
        self._report()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        self._host.wake()

    def _serve_waiting(self) -> None:
        """One frame of each game that has one, the nearest deadline first."""
        jobs = []
        for session in tuple(self._host.sessions.values()):
            stream = self._streams.get(session.id)
            job = session.take_newest() if stream else None
            if stream and job:
                jobs.append((job.deadline_ns, session.id, stream, job))
        jobs.sort(key=lambda each: each[:2])
        if len(jobs) > 1:
            for _, _, stream, job in jobs:
                stream.prefetch(job)
        for _, identity, stream, job in jobs:
            others = [other.pace for key, other in self._streams.items() if key != identity]
            try:
                served = stream.serve(job, others)
            except Exception as error:
                # This frame is lost; the game shows its own. The next one begins with an empty memory. What one game
                # sent is no reason for the others to stop.
                self._note_lost(identity, error)
                stream.reset()
                job.release()
                continue
            self._answered[served.kind] += 1
            if len(self._service_ns) < 1_000_000:
                self._service_ns.append(served.service_ns)

    def _note_lost(self, identity: int, error: Exception) -> None:
        """Say why a frame was not answered: each reason once, and of a bug where it is."""
        reason = f"{type(error).__name__}: {error}"
        if reason in self._noted or len(self._noted) >= _MAX_NOTES:
            return
        self._noted.add(reason)
        self._console.print(f"note: a frame of game {identity} was not answered: {error or reason}")
        if not isinstance(error, (MirageError, mirage_bridge.BridgeError)):
            self._console.print("".join(traceback.format_exception(error)) + "please report this")

    def _succeed(self) -> None:
        """Where the engine lost its device and another took over, let every game go on with that."""
        successor = self._engine.successor
        if successor is not None:
            self._engine = successor
            for stream in self._streams.values():
                stream.succeed(successor)

    def _heed(self, event: mirage_bridge.Event) -> None:
        session: HostSession = event.session
        match event:
            case mirage_bridge.SessionOpened():
                self._streams[session.id] = Stream(
                    self._engine, session, self._recorder, self._resolve, self._default_style,
                    lambda sentence: self._console.print(f"note: game {session.id}: {sentence}"),
                )  # fmt: skip
                self._console.print(f"game {session.id}: {session.offer.size[0]}x{session.offer.size[1]}")
            case mirage_bridge.SessionClosed():
                self._streams.pop(session.id, None)
                self._console.print(f"game {session.id}: {event.reason}")
            case mirage_bridge.Resized():
                if session.id in self._streams:
                    self._streams[session.id].begin(session.offer)
            case mirage_bridge.Resumed():
                # What was on the screen before a pause says little about what comes after it.
                if session.id in self._streams:
                    self._streams[session.id].reset()

    def _check_style(self, style: str | Mapping[str, Any]) -> None:
        if style == "":
            return
        try:
            self._resolve(style)
        except MirageError as error:
            raise StyleError(str(error)) from error

    def _admit(self, offer: Offer, asking: HostSession | None) -> Admission | str:
        rungs = rungs_for(self._engine, offer.size, depth="depth" in offer.planes)
        others = [stream for stream in self._streams.values() if stream.session is not asking]
        paces = [stream.pace for stream in others if not stream.session.paused]
        verdict = pacing.admit(paces, rungs, offer.budget_ns, offer.delivery, time.monotonic_ns())
        info = {
            "tier": self._engine.tier, "device": self._engine.device.type, "version": __version__,
            "styles": [*dict.fromkeys((*self._own, *preset_names()))], "working_size": list(verdict.size),
            "note": verdict.sentence,
        }  # fmt: skip
        if not verdict.ok and paces:
            return verdict.sentence
        # A lone game is never turned away: what the net cannot do in its budget, reuse and source do.
        return Admission(info=info)

    def _status(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "version": __version__, "tier": self._engine.tier, "device": self._engine.device.type,
            "cost_ms": [self._engine.cost_ns(grid) / 1e6 for grid in range(len(self._engine.grids))],
            "pid": os.getpid(), "games": len(self._streams), "answered": dict(self._answered),
        }  # fmt: skip

    def _shutdown(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        self._stopping = True
        return {"stopping": True}

    def _report(self) -> None:
        service = sorted(self._service_ns) or [0]

        def at(share: float) -> float:
            return service[min(len(service) - 1, int(share * len(service)))] / 1e6

        report = {
            "answered": self._answered, "tier": self._engine.tier, "device": self._engine.device.type,
            "service_ms": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": service[-1] / 1e6},
        }  # fmt: skip
        styled = ", ".join(f"{count} {kind}" for kind, count in self._answered.items())
        self._console.print(f"stopped: {styled}; service p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms")
        if self._config.json:
            write_json(self._config.json, report)


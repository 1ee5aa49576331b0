"""A game and the sidecar's side of it in one process, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mirage_bridge
from mirage_plugin import frame_path
from mirage_plugin.frames import FrameEngine
from mirage_plugin.profiler import Recorder
from mirage_plugin.style_input import resolve_styles

__all__ = ["Game"]


class Game:
    """A game and the sidecar's side of it, over a real host in this process."""

    def __init__(
        self, engine: FrameEngine, where: str, style: Any = "", planes: tuple[str, ...] = (), budget_ms: float = 400.0,
        note: Callable[[str], None] = lambda sentence: None, **offer: Any,
    ) -> None:  # fmt: skip
        formats = ("RGBA8", "BGRA8", "RGB8", "RGB10A2", "RGBA16F")
        capabilities = mirage_bridge.Capabilities(pixel_formats=formats, min_size=(1, 1))
        self.host = mirage_bridge.Host(bind=where, capabilities=capabilities)
        self.session = mirage_bridge.Session(
            where, size=(96, 64), planes=planes, budget_ms=budget_ms, delivery="wait", style=style, seed=7,
            **offer,
        )  # fmt: skip
        self.stream: frame_path.Stream | None = None
        self.engine, self.recorder, self.frame_id, self.note = engine, Recorder(), 0, note
        until = time.monotonic() + 30
        while self.stream is None or self.session.state != "ready":
            assert time.monotonic() < until, self.session.refusal
            self.poll()
            self.session.wait_ready(0.01)

    def poll(self) -> None:
        for event in self.host.poll(0.01):
            if isinstance(event, mirage_bridge.SessionOpened):
                self.stream = frame_path.Stream(
                    self.engine, event.session, self.recorder, resolve_styles, "snow", self.note
                )

    def play(self, pixels: Any, mask: Any = None, *, depth: Any = None, camera_cut: bool = False) -> frame_path.Served:
        frame = self.session.begin_frame()
        frame.pixels[:] = pixels
        if mask is not None:
            frame.mask[:] = mask
        if depth is not None:
            frame.depth[:] = depth
        self.frame_id = self.session.end_frame(frame, camera_cut=camera_cut)
        assert self.stream is not None
        until = time.monotonic() + 30
        while (job := self.stream.session.take_newest()) is None:
            assert time.monotonic() < until
            self.poll()
        return self.stream.serve(job, [])

    def close(self) -> None:
        self.session.close()
        self.host.close()
        self.recorder.close()

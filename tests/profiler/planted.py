"""A sidecar and a game on a fake clock, recorded by the real `Recorder`, with stalls planted in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mirage_plugin import pacing
from mirage_plugin.profiler.record import STAGES, Recorder
from mirage_plugin.profiler.recording import GAME_FIELDS, GAME_KINDS, Recording

MS = 1_000_000
BUDGET_NS = 16_670_000
#: What each stage takes, milliseconds: 12.6 in all, so that 5 more is too much.
USUAL_MS = {
    "queue": 0.2, "upload": 0.3, "preprocess": 0.8, "condition": 0.7, "denoise": 7.0, "compose": 2.6,
    "download": 0.3, "publish": 0.4, "deliver": 0.3,
}  # fmt: skip

Stall = Callable[[int], Mapping[str, float]]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, ms: float) -> None:
        self.now_ns += round(ms * MS)


@dataclass
class Planted:
    """Frames of one game, served one after the other.

    ``stall(frame)`` gives milliseconds to add, by stage or by ``gc`` and ``preempted`` (inside denoise),
    ``game`` (before the publish) and ``asks_late``. ``drop(frame)`` says how a frame is dropped.
    """

    stall: Stall = lambda _frame: {}
    frames: int = 400
    drop: Callable[[int], str] = lambda _frame: ""
    told: bool = True
    seed: int = 0
    session: int = 11
    clock: Clock = field(default_factory=Clock)
    scale: float = 1.0

    def record(self) -> Recording:
        rng = random.Random(self.seed)
        cpu = Clock()
        clock = self.clock
        game: dict[str, list[int]] = {name: [] for name, _ in GAME_FIELDS}
        pace = pacing.start([pacing.Rung((640, 360), 1, 12 * MS)], BUDGET_NS)
        skipped = 0
        with Recorder(
            4 * self.frames, {"tier": "nano", "device": "cpu"}, clock=clock, cpu_clock=cpu
        ) as recorder:
            recorder.describe(self.session, size=[640, 360], budget_ns=BUDGET_NS, delivery="wait")
            due_ns = clock.now_ns
            for number in range(1, self.frames + 1):
                due_ns = max(due_ns + 16_666_667, clock.now_ns)
                clock.now_ns = due_ns
                more = self.stall(number)
                input_ns = clock.now_ns
                clock.pass_ms(2.0 + more.get("game", 0.0))
                published_ns = clock.now_ns
                if self.drop(number) == "skipped":
                    skipped += 1
                    continue

                def take(
                    stage: str, extra: Mapping[str, float] = more, jitter: float = rng.gauss(0, 0.02)
                ) -> float:
                    return (USUAL_MS[stage] * (1 + jitter) + extra.get(stage, 0.0)) * self.scale

                clock.pass_ms(take("queue"))
                times = (published_ns, published_ns + BUDGET_NS)
                row = recorder.begin(self.session, number, *times, input_ns, input_ns, skipped)
                decision = pacing.decide(pace, clock.now_ns, pacing.FrameTimes(*times, skipped))
                skipped = 0
                recorder.decided(decision)
                if self.drop(number) == "given up":
                    recorder.finish(row, "dropped", reason="the game left")
                    continue
                for stage in STAGES[1:-1]:
                    with recorder.stage(stage):
                        clock.pass_ms(take(stage))
                        cpu.pass_ms(take(stage))
                        if stage == "denoise":
                            if more.get("gc"):
                                recorder._on_gc("start", {})
                                clock.pass_ms(more["gc"])
                                cpu.pass_ms(more["gc"])
                                recorder._on_gc("stop", {})
                            clock.pass_ms(more.get("preempted", 0.0))
                recorder.finish(row, "styled", reason="")
                answered_ns = clock.now_ns
                pace = pacing.start(pace.ladder, BUDGET_NS)
                asked_ns = answered_ns + round(more.get("asks_late", 0.0) * MS)
                clock.now_ns = asked_ns
                clock.pass_ms(take("deliver"))
                late = clock.now_ns > times[1]
                waits_from_ns = asked_ns if more.get("asks_late") else published_ns
                told = {
                    "game": 0, "frame_id": number, "started_ns": input_ns, "input_ns": input_ns,
                    "published_ns": published_ns, "asked_ns": waits_from_ns,
                    "waited_ns": clock.now_ns, "shown_ns": clock.now_ns + MS // 2, "answer_frame_id": number,
                    "answer_published_ns": answered_ns, "service_ns": answered_ns - published_ns,
                    "kind": GAME_KINDS.index("unanswered" if late else "styled"), "reason": 0,
                    "edit_age_frames": 0, "width": 640, "height": 360, "sent": 1,
                }  # fmt: skip
                for name, value in told.items():
                    game[name].append(value)
            recording = Recording.of_rows(
                recorder.rows(0, recorder.frames),
                reasons=tuple(recorder.page()["reasons"]),
                info=dict(recorder.info),
                sessions={key: dict(what) for key, what in recorder.sessions.items()},
            )
        if not self.told:
            return recording
        columns: dict[str, Any] = {name: np.array(values, np.int64) for name, values in game.items()}
        return recording.with_games([columns], ("",))


def every(number: int, **stalls: float) -> Stall:
    """The same stalls in every ``number``-th frame."""
    return lambda frame: stalls if frame % number == 0 else {}

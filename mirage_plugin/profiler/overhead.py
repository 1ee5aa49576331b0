"""What recording costs, measured on the recorder itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from mirage_plugin.profiler.record import STAGES, Recorder, activate, active, staged
from mirage_plugin.profiler.statistics import percentile

__all__ = ["Overhead", "measure"]

_FRAMES: Final = 3000
_LIMIT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Overhead:
    """Microseconds: a whole frame with every stage (p50 and p99), one stage, a page for a watcher.

    ``share`` is the frame's p50 in the budget; ``within`` is whether that is at most a hundredth.
    """

    frame_p50_us: float
    frame_p99_us: float
    stage_us: float
    page_us: float
    budget_ms: float
    share: float
    within: bool
    frames: int

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)


def measure(budget_ms: float = 16.67, frames: int = _FRAMES) -> Overhead:
    """Record ``frames`` frames whose stages do nothing: all the time they take is the recorder's."""
    plain, timed = _nothing, [staged(name)(_nothing) for name in STAGES[1:-1]]
    before = active()
    took = np.empty(frames)
    with Recorder(4096) as recorder:
        activate(recorder)
        for number in range(frames):
            began_ns = time.perf_counter_ns()
            row = recorder.begin(1, number, began_ns, began_ns)
            for stage in timed:
                stage()
            recorder.finish(row, "styled")
            took[number] = time.perf_counter_ns() - began_ns
        row = recorder.begin(1, 0, 0, 0)
        stage_ns = _each_ns(timed[0], 20000) - _each_ns(plain, 20000)
        recorder.finish(row, "styled")
        page_ns = _each_ns(lambda: recorder.page({"since": 0}), 50)
    activate(before)
    share = percentile(took, 50) / (budget_ms * 1e6)
    return Overhead(
        frame_p50_us=round(percentile(took, 50) / 1e3, 2),
        frame_p99_us=round(percentile(took, 99) / 1e3, 2),
        stage_us=round(max(0.0, stage_ns) / 1e3, 3),
        page_us=round(page_ns / 1e3, 2),
        budget_ms=budget_ms,
        share=round(share, 6),
        within=share <= _LIMIT,
        frames=frames,
    )


def _nothing() -> None:
    return None


def _each_ns(function: Callable[[], object], times: int) -> float:
    began_ns = time.perf_counter_ns()
    for _ in range(times):
        function()
    return (time.perf_counter_ns() - began_ns) / times

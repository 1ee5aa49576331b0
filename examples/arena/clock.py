"""How long things took: the numbers behind the F1 overlay and the JSON report."""

from collections import deque
from collections.abc import Iterable

import numpy as np

__all__ = ["FrameTimes", "percentiles"]


def percentiles(values_ms: Iterable[float]) -> dict[str, float]:
    """p50, p95, p99 and max of times in milliseconds, rounded to 1 µs; all 0 where there is nothing."""
    values = np.fromiter(values_ms, float)
    if values.size == 0:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {
        "p50": round(float(p50), 3),
        "p95": round(float(p95), 3),
        "p99": round(float(p99), 3),
        "max": round(float(values.max()), 3),
    }


class FrameTimes:
    """Times by name, all of them and the recent ones. `stages` are what a frame is made of, in order."""

    def __init__(self, stages: tuple[str, ...], budget_ms: float, window: int = 120) -> None:
        self.stages = stages
        self.budget_ms = budget_ms
        self._all: dict[str, list[float]] = {}
        self._recent: dict[str, deque[float]] = {}
        self._window = window

    def add(self, name: str, ms: float) -> None:
        """Record one time."""
        self._all.setdefault(name, []).append(ms)
        self._recent.setdefault(name, deque(maxlen=self._window)).append(ms)

    def recent(self, name: str, percent: float) -> float:
        """A percentile of the last frames, milliseconds; 0 before the first."""
        values = self._recent.get(name)
        return float(np.percentile(values, percent)) if values else 0.0

    def summary(self, name: str) -> dict[str, float]:
        """`percentiles` of every time recorded under this name."""
        return percentiles(self._all.get(name, ()))

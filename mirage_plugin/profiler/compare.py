"""What changed between two recordings, and whether that is more than chance.

Frames that follow each other are alike, so single frames are not resampled but blocks of them (the moving
block bootstrap); a difference counts where its 99 % interval leaves zero out and where it is large enough to
matter: 2 % and 0.05 ms, or a tenth of a percentage point of frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mirage_plugin.errors import DataError
from mirage_plugin.profiler.record import KINDS, STAGES
from mirage_plugin.profiler.recording import GAME_KINDS, Recording
from mirage_plugin.profiler.statistics import (
    budget_ms,
    end_to_end_ms,
    misses,
    percentile,
    service_ms,
)

__all__ = ["Change", "Comparison", "compare"]

_RESAMPLES: Final = 1000
_CONFIDENCE: Final = 0.99
_LEAST_FRAMES: Final = 60
_LONGEST_BLOCK: Final = 120
_VALUES_AT_ONCE: Final = 1_000_000
_RELATIVE: Final = 0.02
_LEAST_MS: Final = 0.05
_LEAST_SHARE: Final = 0.1

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of both: ``difference`` is B minus A, within ``low`` to ``high`` by 99 %.

    ``verdict`` is ``worse``, ``better`` or ``same``; ``unit`` is ms or %.
    """

    name: str
    unit: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every change, and remarks on what makes the two hard to compare."""

    changes: tuple[Change, ...]
    remarks: tuple[str, ...] = ()

    @property
    def worse(self) -> bool:
        """Whether anything that was measured got worse."""
        return any(change.verdict == "worse" for change in self.changes)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self) | {"worse": self.worse}


def compare(a: Recording, b: Recording, seed: int = 0) -> Comparison:
    """Compare two recordings. Raises `DataError` where one has fewer than 60 frames."""
    for name, one in (("A", a), ("B", b)):
        if len(one) < _LEAST_FRAMES:
            raise DataError(f"{name} has {len(one)} frames and at least {_LEAST_FRAMES} are needed: record longer")
    rng = np.random.default_rng(seed)
    changes = []
    for name, column, least in _SERIES:
        of_a, of_b = column(a), column(b)
        if not of_a.size or not of_b.size or not (of_a.any() or of_b.any()):
            continue
        figures = [(f"{name} {each}", percent) for each, percent in least if _enough(percent, of_a, of_b)]
        changes += _percentile_changes(rng, figures, of_a, of_b)
    for name, share, good in (("missed", _missed, False), ("answered by the net", _styled, True)):
        changes.append(_share_change(rng, name, share(a), share(b), good))
    return Comparison(tuple(changes), tuple(_remarks(a, b)))


_Percents = tuple[tuple[str, float], ...]
_USUAL: Final[_Percents] = (("p50", 50.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9))
_MIDDLE: Final[_Percents] = (("p50", 50.0),)


def _stage(stage: str) -> Callable[[Recording], Values]:
    def column(recording: Recording) -> Values:
        took = recording.frames[f"{stage}_ns"]
        milliseconds: Values = took[took > 0] / 1e6
        return milliseconds

    return column


_SERIES: Final[tuple[tuple[str, Callable[[Recording], Values], _Percents], ...]] = (
    ("end to end", end_to_end_ms, _USUAL),
    ("service", service_ms, _USUAL),
    *((stage, _stage(stage), _MIDDLE) for stage in STAGES),
)


def _enough(percent: float, *series: Values) -> bool:
    """A percentile needs some frames beyond it to mean anything."""
    return all((1 - percent / 100) * one.size >= 3 for one in series)


def _percentile_changes(
    rng: np.random.Generator, figures: list[tuple[str, float]], a: Values, b: Values
) -> list[Change]:
    percents = [percent for _, percent in figures]
    resampled = _resampled(rng, b, percents) - _resampled(rng, a, percents)
    changes = []
    for index, (name, percent) in enumerate(figures):
        of_a, of_b = percentile(a, percent), percentile(b, percent)
        low, high = _interval(resampled[:, index])
        large = abs(of_b - of_a) > max(_LEAST_MS, _RELATIVE * of_a)
        verdict = "worse" if large and low > 0 else "better" if large and high < 0 else "same"
        changes.append(_change(name, "ms", of_a, of_b, low, high, verdict))
    return changes


def _share_change(rng: np.random.Generator, name: str, a: Values, b: Values, good: bool) -> Change:
    """Of 0 and 1 by frame, in percent."""
    differences = _resampled(rng, b, None)[:, 0] - _resampled(rng, a, None)[:, 0]
    low, high = _interval(100 * differences)
    of_a, of_b = 100 * float(a.mean()), 100 * float(b.mean())
    large = abs(of_b - of_a) > _LEAST_SHARE
    up, down = ("better", "worse") if good else ("worse", "better")
    verdict = up if large and low > 0 else down if large and high < 0 else "same"
    return _change(name, "%", of_a, of_b, low, high, verdict)


def _change(name: str, unit: str, a: float, b: float, low: float, high: float, verdict: str) -> Change:
    a, b, low, high = (round(value, 4) for value in (a, b, low, high))
    return Change(name, unit, a, b, round(b - a, 4), low, high, verdict)


def _resampled(rng: np.random.Generator, values: Values, percents: list[float] | None) -> Values:
    """[resamples, percents] nearest-rank percentiles of resampled blocks of frames; the mean for None."""
    count = values.size
    length = min(_LONGEST_BLOCK, max(1, math.isqrt(count)))
    ranks = [min(count, max(1, math.ceil(percent / 100 * count - 1e-9))) - 1 for percent in percents or ()]
    found = []
    # As many at once as fit some megabytes.
    at_once = max(1, _VALUES_AT_ONCE // count)
    for first in range(0, _RESAMPLES, at_once):
        turns = min(at_once, _RESAMPLES - first)
        starts = rng.integers(0, count, (turns, -(-count // length), 1))
        # Blocks wrap around, so that every frame is drawn as often as any other.
        indices = (starts + np.arange(length)).reshape(turns, -1)[:, :count] % count
        drawn = values[indices]
        if percents is None:
            found.append(drawn.mean(1, keepdims=True))
        else:
            found.append(np.partition(drawn, ranks, axis=1)[:, ranks])
    return np.concatenate(found)


def _interval(values: Values) -> tuple[float, float]:
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)


def _missed(recording: Recording) -> Values:
    if recording.game_frames:
        return np.asarray(recording.games["kind"] == GAME_KINDS.index("unanswered"), np.float64)
    return misses(recording).astype(np.float64)


def _styled(recording: Recording) -> Values:
    kinds = recording.games["kind"] if recording.game_frames else recording.frames["kind"]
    return np.asarray(kinds == KINDS.index("styled"), np.float64)


def _remarks(a: Recording, b: Recording) -> list[str]:
    remarks = []
    for what in ("tier", "device"):
        if a.info.get(what) != b.info.get(what):
            remarks.append(f"{what}: A has {a.info.get(what)}, B has {b.info.get(what)}")
    if budget_ms(a) != budget_ms(b):
        remarks.append(f"budget: A has {budget_ms(a):g} ms, B has {budget_ms(b):g} ms")
    if bool(a.game_frames) != bool(b.game_frames):
        told = "A" if a.game_frames else "B"
        remarks.append(f"only {told} has the games' own times: the other's end to end stops at the sidecar")
    return remarks

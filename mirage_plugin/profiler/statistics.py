"""Figures of a `Recording`: percentiles, lows, counts, and PresentMon's columns.

Definitions, which are printed beside the numbers:

- *End to end* is from the game's publish to its having the answer; without a game that tells, to the
  sidecar's publish. *Service* is from the sidecar's pick-up to its publish.
- Percentiles are the nearest-rank kind: p99 of N frames is a time that was measured.
- The *1 % low* is 1000 divided by the mean frame time, in milliseconds, of the slowest 1 % of frames (at
  least one), and the 0.1 % low likewise. Frame time is from one frame's start to the next of the same game.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mirage_plugin.profiler.record import GPU_STAGES, KINDS, STAGES
from mirage_plugin.profiler.recording import GAME_KINDS, Recording

__all__ = [
    "LOW_DEFINITION",
    "PERCENTILES",
    "budget_ms",
    "end_to_end_ms",
    "frame_times_ms",
    "histogram",
    "low_fps",
    "misses",
    "percentile",
    "percentiles",
    "service_ms",
    "summary",
]

Values = npt.NDArray[np.float64]

PERCENTILES: Final[Mapping[str, float]] = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}
LOW_DEFINITION: Final = "1000 / mean frame time in ms of the slowest 1 % (0.1 %) of frames, at least one"

# HDR histograms: microseconds, up to a minute, three digits.
_HDR_MAX_US: Final = 60_000_000
_HDR_DIGITS: Final = 3


def percentile(values: npt.NDArray[Any], percent: float) -> float:
    """Nearest rank: the smallest value that at least ``percent`` of the values do not exceed; 0 for none."""
    if values.size == 0:
        return 0.0
    rank = min(values.size, max(1, math.ceil(percent / 100 * values.size - 1e-9)))
    return float(np.partition(values, rank - 1)[rank - 1])


def percentiles(values: npt.NDArray[Any]) -> dict[str, float]:
    """`PERCENTILES` of milliseconds, to the microsecond; 0 where there are none."""
    return {name: round(percentile(values, percent), 3) for name, percent in PERCENTILES.items()}


def low_fps(frame_times: npt.NDArray[Any], percent: float) -> float:
    """`LOW_DEFINITION`, in frames a second; 0 where there are no frame times."""
    if frame_times.size == 0:
        return 0.0
    count = max(1, math.floor(frame_times.size * percent / 100))
    slowest = np.partition(frame_times, frame_times.size - count)[-count:]
    return round(1000.0 / max(1e-9, float(slowest.mean())), 2)


def histogram(values_ms: npt.NDArray[Any]) -> Any:
    """An `hdrh.histogram.HdrHistogram` of milliseconds, in microseconds with three digits."""
    from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

    made = HdrHistogram(1, _HDR_MAX_US, _HDR_DIGITS)
    micros, counts = np.unique(np.clip(values_ms * 1000, 1, _HDR_MAX_US).astype(np.int64), return_counts=True)
    for value, count in zip(micros.tolist(), counts.tolist(), strict=True):
        made.record_value(value, count)
    return made


# -- columns -----------------------------------------------------------------------------------------------


def _served(recording: Recording) -> npt.NDArray[np.bool_]:
    """Frames that were answered at all."""
    frames = recording.frames
    answered: npt.NDArray[np.bool_] = (frames["kind"] != KINDS.index("dropped")) & (frames["answered_ns"] > 0)
    return answered


def end_to_end_ms(recording: Recording) -> Values:
    """By answered frame: publish to delivery, or to the sidecar's publish where no game told."""
    frames = recording.frames
    until = np.where(frames["delivered_ns"] > 0, frames["delivered_ns"], frames["answered_ns"])
    return _ms((until - frames["published_ns"])[_served(recording)])


def service_ms(recording: Recording) -> Values:
    """By answered frame: pick-up to publish."""
    frames = recording.frames
    return _ms((frames["answered_ns"] - frames["received_ns"])[_served(recording)])


def frame_times_ms(recording: Recording) -> Values:
    """From each frame's start to the next of the same game; the game's own word where it told."""
    games = recording.games
    if recording.game_frames:
        return _differences_ms(games["game"], games["started_ns"], games["started_ns"])
    frames = recording.frames
    start = np.where(frames["captured_ns"] > 0, frames["captured_ns"], frames["published_ns"])
    return _differences_ms(frames["session"], start, frames["frame_id"])


def _differences_ms(owner: npt.NDArray[Any], times: npt.NDArray[Any], order: npt.NDArray[Any]) -> Values:
    parts = []
    for one in np.unique(owner):
        mine = owner == one
        ordered = times[mine][np.argsort(order[mine], kind="stable")]
        parts.append(np.diff(ordered))
    return _ms(np.concatenate(parts)) if parts else np.empty(0)


def budget_ms(recording: Recording) -> float:
    """The budget that most frames had; 0 where there are none."""
    budgets = recording.frames["deadline_ns"] - recording.frames["published_ns"]
    if budgets.size == 0:
        return 0.0
    values, counts = np.unique(budgets, return_counts=True)
    return round(float(values[counts.argmax()]) / 1e6, 3)


def misses(recording: Recording) -> npt.NDArray[np.bool_]:
    """By frame of the sidecar: answered too late, or taken and never answered."""
    frames = recording.frames
    late = (frames["delivered_ns"] > 0) & (frames["delivered_ns"] > frames["deadline_ns"])
    return recording.flag("missed") | late | ~_served(recording)


# -- the whole ---------------------------------------------------------------------------------------------


def summary(recording: Recording) -> dict[str, Any]:
    """The figures of ``mirage profile --json``; see docs/PROFILER.md for each key."""
    from mirage_plugin.profiler.culprits import culprits

    frames = recording.frames
    end_to_end, service, times = end_to_end_ms(recording), service_ms(recording), frame_times_ms(recording)
    told = recording.game_frames > 0
    if told:
        sent = recording.games["sent"] > 0
        waits = _ms((recording.games["waited_ns"] - recording.games["published_ns"])[sent])
        in_time = recording.games["kind"][sent] != GAME_KINDS.index("unanswered")
        if (budget := budget_ms(recording)) > 0:
            # A game that was not let run had its answer late, whoever is to blame.
            in_time &= waits <= budget
        kinds = recording.games["kind"][sent][in_time]
        count = int(sent.sum())
        missed = count - int(in_time.sum())
        photon = _ms((recording.games["shown_ns"] - recording.games["input_ns"])[recording.games["input_ns"] > 0])
    else:
        kinds, count, missed = frames["kind"], len(recording), int(misses(recording).sum())
        waits = photon = np.empty(0)
    stages = {
        stage: {"p50": each["p50"], "p99": each["p99"], "max": each["max"], "mean": mean}
        for stage in STAGES
        for each, mean in [_of_stage(recording, f"{stage}_ns")]
    }
    gpu = {
        stage: {"p50": each["p50"], "p99": each["p99"]}
        for stage in GPU_STAGES
        for each, _ in [_of_stage(recording, f"gpu_{stage}_ns")]
        if each["max"] > 0
    }
    found: dict[str, Any] = {
        "frames": count,
        "budget_ms": budget_ms(recording),
        "answered": {kind: int((kinds == index).sum()) for index, kind in enumerate(KINDS) if kind != "dropped"},
        "missed": missed,
        "end_to_end_ms": percentiles(end_to_end),
        "end_to_end_is": "publish to delivery" if told else "publish to the sidecar's publish",
        "service_ms": percentiles(service),
        "stages_ms": stages,
        "low_1pct_fps": low_fps(times, 1.0),
        "low_0_1pct_fps": low_fps(times, 0.1),
        "low_is": LOW_DEFINITION,
        "frame_time_ms": percentiles(times),
        "size": _sizes(recording),
        "tier": str(recording.info.get("tier", "")),
        "device": str(recording.info.get("device", "")),
        "sessions": len(np.unique(frames["session"])),
        "window_s": round(_window_s(recording), 3),
        "fps": _fps(recording),
        "gpu_stages_ms": gpu,
        "wait_ms": percentiles(waits),
        "motion_to_photon_ms": percentiles(photon),
        "working_sizes": _shares(recording),
        "decisions": _decisions(recording),
        "skipped": int(frames["skipped"].sum()),
        "dropped": int((frames["kind"] == KINDS.index("dropped")).sum()),
        "rescued": int(recording.flag("rescued").sum()),
        "reseeded": int(recording.flag("reseeded").sum()),
        "corrected": int(recording.flag("corrected").sum()),
        "lost_by_the_recorder": recording.lost,
        "gc_ms": round(float(frames["gc_ns"].sum()) / 1e6, 3),
        "memory_mb": round(float(frames["rss_bytes"].max(initial=0)) / 1e6, 1),
        "drift": {
            name: {"p50": round(percentile(np.abs(frames[name]), 50), 4), "max": round(_max(frames[name]), 4)}
            for name in ("drift_state", "drift_output")
        },
        "culprits": [each.to_json() for each in culprits(recording)],
    }
    if end_to_end.size:
        found["end_to_end_hdr"] = histogram(end_to_end).encode().decode("ascii")
    return found


def _of_stage(recording: Recording, name: str) -> tuple[dict[str, float], float]:
    """Percentiles and mean of a stage over the frames that went through it."""
    values = _ms(recording.frames[name][recording.frames[name] > 0])
    return percentiles(values), round(float(values.mean()), 3) if values.size else 0.0


def _sizes(recording: Recording) -> list[int]:
    """(width, height) of the first game's frames; zeros where nobody said."""
    for what in recording.sessions.values():
        size = what.get("size")
        sides = size.split("x") if isinstance(size, str) else size
        if sides is not None and len(sides) == 2:
            return [int(side) for side in sides]
    return [0, 0]


def _window_s(recording: Recording) -> float:
    times = recording.frames["published_ns"]
    return float(times.max() - times.min()) / 1e9 if times.size else 0.0


def _fps(recording: Recording) -> float:
    window_s = _window_s(recording)
    return round(int(_served(recording).sum()) / window_s, 2) if window_s > 0 else 0.0


def _shares(recording: Recording) -> dict[str, int]:
    frames = recording.frames
    net = frames["width"] > 0
    sizes = [
        f"{w}x{h}" + (f" x{steps}" if steps > 1 else "")
        for w, h, steps in zip(frames["width"][net], frames["height"][net], frames["steps"][net], strict=True)
    ]
    return _counted(sizes)


def _decisions(recording: Recording) -> dict[str, int]:
    reasons = recording.reasons
    return _counted([reasons[code] if code < len(reasons) else "?" for code in recording.frames["reason"]])


def _counted(values: Sequence[str]) -> dict[str, int]:
    names, counts = np.unique(np.array(values, dtype=object), return_counts=True) if values else ((), ())
    ordered = sorted(zip(names, counts, strict=True), key=lambda each: -int(each[1]))
    return {str(name): int(count) for name, count in ordered}


def _ms(values_ns: npt.NDArray[Any]) -> Values:
    return values_ns.astype(np.float64) / 1e6


def _max(values: npt.NDArray[Any]) -> float:
    return float(np.abs(values).max(initial=0.0))

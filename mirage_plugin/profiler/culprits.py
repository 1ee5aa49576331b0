"""Who is to blame: for every frame that was late, what took longer than it usually does.

A frame's *usual* times are the medians of its session and of the way it was answered. What it took more is
charged to a collection of Python's garbage collector, to another process on the core (time in which this one
did not run), to a game that asked late for an answer that was there, and to the stages. The largest share is
the frame's culprit. Frames that were passed over or never answered, and games that are slow by themselves,
are told of apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mirage_plugin.profiler.record import GPU_STAGES, KINDS, STAGES
from mirage_plugin.profiler.recording import Recording

__all__ = ["CAUSES", "Culprit", "culprits", "verdict", "worst_frames"]

CAUSES: Final = (
    *STAGES,
    "garbage collection",
    "another process",
    "slow client",
    "dropped frame",
    "everything",
)
"""What can be to blame. ``everything``: no stage took more than usual, they are too slow all together."""

# Less than this is the clock's grain and the scheduler's, not a cause.
_GRAIN_NS: Final = 300_000
# A stage's time is taken to be lost to another process where the thread ran for less than half of it.
_RAN: Final = 0.5
# A frame counts as slow, although it was in time, from this part of its budget on.
_SLOW: Final = 0.9


@dataclass(frozen=True, slots=True)
class Culprit:
    """A cause and what it did: in how many frames, how much over the usual in all and at worst."""

    cause: str
    frames: int
    missed: int
    over_ms: float
    worst_ms: float
    worst_frame: int
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)


def culprits(recording: Recording) -> tuple[Culprit, ...]:
    """The causes of slow and missed frames, those with the most misses and the most time first."""
    if not len(recording) and not recording.game_frames:
        return ()
    found = [*_slow_frames(recording), *_dropped_frames(recording), *_slow_clients(recording)]
    return tuple(sorted(found, key=lambda each: (-each.missed, -each.over_ms)))


def verdict(recording: Recording) -> str:
    """One sentence on what to look at first."""
    found = culprits(recording)
    if not found:
        return "every frame was answered well within its budget"
    return found[0].sentence


def _slow_frames(recording: Recording) -> list[Culprit]:
    from mirage_plugin.profiler.statistics import misses

    frames = recording.frames
    budget_ns = frames["deadline_ns"] - frames["published_ns"]
    until = np.where(frames["delivered_ns"] > 0, frames["delivered_ns"], frames["answered_ns"])
    took_ns = until - frames["published_ns"]
    served = frames["kind"] != KINDS.index("dropped")
    missed = misses(recording) & served
    slow = missed | recording.flag("rescued") | recording.flag("short") | (took_ns > _SLOW * budget_ns)
    slow &= served
    if not slow.any():
        return []
    over = _over_usual(recording)
    gone_ns, gc_ns = _lost_to_others(recording), frames["gc_ns"]
    shares = np.zeros((len(CAUSES), len(recording)), np.int64)
    for index, stage in enumerate(STAGES):
        shares[index] = over[stage]
    # A pause is inside some stage: take it out of the one that grew the most, so that it is counted once.
    for cause, lost_ns in (("garbage collection", gc_ns), ("another process", gone_ns)):
        row = CAUSES.index(cause)
        shares[row] = np.where(lost_ns > _GRAIN_NS, lost_ns, 0)
        inside = shares[: len(STAGES)].argmax(0)
        largest = shares[inside, np.arange(len(recording))]
        shares[row] = np.minimum(shares[row], largest)
        shares[inside, np.arange(len(recording))] -= shares[row]
    asked_late = np.where(frames["delivered_ns"] > 0, until - frames["answered_ns"] - frames["deliver_ns"], 0)
    shares[CAUSES.index("slow client")] = np.maximum(0, asked_late - int(np.median(asked_late)))
    # Nothing grew: the frame is too slow as it always is.
    usual = shares.max(0) <= np.maximum(_GRAIN_NS, took_ns // 20)
    shares[CAUSES.index("everything")] = np.where(usual, np.maximum(1, took_ns - budget_ns), 0)
    blamed = shares.argmax(0)
    return [
        _culprit(recording, cause, np.flatnonzero(slow & (blamed == index)), shares[index], missed)
        for index, cause in enumerate(CAUSES)
        if (slow & (blamed == index)).any()
    ]


def _over_usual(recording: Recording) -> dict[str, npt.NDArray[np.int64]]:
    """By stage and frame, the time beyond the median of the same session and action; at least 0."""
    frames = recording.frames
    over = {}
    for stage in STAGES:
        took = frames[f"{stage}_ns"]
        if stage in GPU_STAGES:
            # Where a GPU does the work, the CPU only enqueues it.
            took = np.maximum(took, frames[f"gpu_{stage}_ns"])
        # What a frame waits does not depend on how it is answered; rather the other way round.
        group = frames["session"] * 4 + (0 if stage in ("queue", "deliver") else frames["action"])
        usual = np.zeros(len(recording), np.int64)
        for one in np.unique(group):
            usual[group == one] = int(np.median(took[group == one]))
        over[stage] = np.maximum(0, took - usual)
    return over


def _lost_to_others(recording: Recording) -> npt.NDArray[np.int64]:
    """Time of the compute stages in which the sidecar's thread did not run; 0 on a GPU, where it waits."""
    frames = recording.frames
    wall = frames["answered_ns"] - frames["received_ns"]
    on_gpu = sum(frames[f"gpu_{stage}_ns"] for stage in GPU_STAGES) > 0
    gone = np.where((frames["cpu_ns"] > 0) & ~on_gpu, wall - frames["cpu_ns"], 0)
    usual = int(np.median(gone)) if gone.size else 0
    lost: npt.NDArray[np.int64] = np.where(gone - usual > _RAN * _GRAIN_NS, gone - usual, 0)
    return lost


def _culprit(
    recording: Recording,
    cause: str,
    rows: npt.NDArray[np.intp],
    share: npt.NDArray[np.int64],
    missed: npt.NDArray[np.bool_],
) -> Culprit:
    frames = recording.frames
    over_ms = share[rows] / 1e6
    worst = rows[int(over_ms.argmax())]
    misses, count = int(missed[rows].sum()), len(rows)
    late = f"{misses} missed" if misses else "none missed"
    typical = float(np.median(over_ms))
    if cause == "everything":
        sentence = f"{_frames(count)} too slow with every stage as usual ({late}): {_longest(recording)}"
    elif cause == "garbage collection":
        sentence = f"a garbage collection took {typical:.1f} ms in {_frames(count)} ({late})"
    elif cause == "slow client":
        sentence = f"the game asked {typical:.1f} ms late for an answer that was there in {_frames(count)} ({late})"
    elif cause == "another process":
        sentence = f"another process had the core for {typical:.1f} ms in {_frames(count)} ({late})"
    else:
        sentence = f"{cause} took {typical:.1f} ms longer than usual in {_frames(count)} ({late})"
    return Culprit(
        cause,
        count,
        misses,
        round(float(over_ms.sum()), 3),
        round(float(over_ms.max()), 3),
        int(frames["frame_id"][worst]),
        sentence,
    )


def _dropped_frames(recording: Recording) -> list[Culprit]:
    """Frames that nobody answered: passed over for newer ones, or taken and given up."""
    frames = recording.frames
    given_up = frames["kind"] == KINDS.index("dropped")
    skipped = frames["skipped"] > 0
    count = int(frames["skipped"].sum() + given_up.sum())
    if not count:
        return []
    rows = np.flatnonzero(given_up | skipped)
    worst = rows[int(frames["skipped"][rows].argmax())]
    # Each one is a frame that was shown unrestyled, or not at all: its whole period is lost.
    lost_ms = float((frames["deadline_ns"] - frames["published_ns"])[rows].mean()) / 1e6
    why = []
    if skipped.any():
        why.append(f"{int(frames['skipped'].sum())} passed over for newer ones")
    if given_up.any():
        why.append(f"{int(given_up.sum())} taken and never answered")
    return [
        Culprit(
            "dropped frame",
            count,
            count,
            round(count * lost_ms, 3),
            round(lost_ms * max(1, int(frames["skipped"][worst])), 3),
            int(frames["frame_id"][worst]),
            f"{_frames(count)} dropped: {', '.join(why)}",
        )
    ]


def _slow_clients(recording: Recording) -> list[Culprit]:
    """Games whose own work, before they publish and after they have the answer, made a frame long."""
    if recording.game_frames:
        games = recording.games
        # Between publish and answer the game waits, or has already been charged with asking late.
        own_ns = games["published_ns"] - games["started_ns"] + games["shown_ns"] - games["waited_ns"]
        owner, frame_ids = games["game"], games["frame_id"]
    else:
        frames = recording.frames
        told = (frames["input_ns"] > 0) & (frames["published_ns"] >= frames["input_ns"])
        own_ns = (frames["published_ns"] - frames["input_ns"])[told]
        owner, frame_ids = frames["session"][told], frames["frame_id"][told]
    found = []
    owners = np.unique(owner)
    for game in owners:
        mine = owner == game
        usual_ns = int(np.median(own_ns[mine]))
        over_ns = np.maximum(0, own_ns[mine] - usual_ns)
        slow = over_ns > np.maximum(2_000_000, usual_ns // 4)
        if not slow.any():
            continue
        over_ms = over_ns[slow] / 1e6
        worst = np.flatnonzero(slow)[int(over_ms.argmax())]
        which = f" {int(game)}" if len(owners) > 1 else ""
        count = int(slow.sum())
        found.append(
            Culprit(
                "slow client",
                count,
                0,
                round(float(over_ms.sum()), 3),
                round(float(over_ms.max()), 3),
                int(frame_ids[mine][worst]),
                f"the game{which} itself took {float(np.median(over_ms)):.1f} ms longer than usual "
                f"in {_frames(count)}, whatever the sidecar did",
            )
        )
    return found


def _longest(recording: Recording) -> str:
    """The stage that takes the most time of all."""
    medians = [
        (float(np.median(took[took > 0])) / 1e6, stage)
        for stage in STAGES
        if (took := recording.frames[f"{stage}_ns"]).any()
    ]
    if not medians:
        return "no stage was timed"
    took_ms, stage = max(medians)
    return f"{stage} takes {took_ms:.1f} ms of them"


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def worst_frames(recording: Recording, count: int) -> Sequence[int]:
    """Rows of the frames with the longest end-to-end times, the worst first."""
    frames = recording.frames
    until = np.where(frames["delivered_ns"] > 0, frames["delivered_ns"], frames["answered_ns"])
    took = until - frames["published_ns"]
    return [int(row) for row in np.argsort(-took, kind="stable")[:count]]

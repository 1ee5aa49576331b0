"""What to do with a frame, given what was measured: pure decisions, with the time as an argument.

A game's `Pace` is a value. `decide` looks at it and at the clock and says how a frame is answered: by the net
at some `Rung` of the engine's ladder, by the last edit on the new source, or by the source. The frame path
obeys, and `observe` turns the old `Pace` and what was measured into the next one. `admit` says at connect
whether a game's budget can be kept beside the others'.

::

    pace = start(ladder, budget_ns=16_670_000)
    decision = decide(pace, time.monotonic_ns(), frame)
    ...                                          # do it; publish
    pace = observe(pace, decision, frame, started_ns, finished_ns)

How it decides:

- The cost of each rung is an *upper estimate*: fast up, slow down, over the median of three frames, so that
  one hiccup is no trend. A change seen on one rung scales the others, for the machine is slower for all.
- A rung whose estimate outgrew its room is left at once; so is one that missed twice in a row, or that missed
  more than one frame in a thousand. Upwards it goes one rung at a time, after a calm time that doubles
  whenever the higher rung did not hold: no oscillation.
- A frame that comes too late for its rung alone is answered by reuse; the second in a row steps down, and so
  do more than one in ten.
- Where the net does not fit at all, a frame is answered by the last edit, and then, *behind* the answer, the net makes
  an edit of it for the next one, if that leaves the next one time enough: the picture is a frame behind in what it is
  painted with, and in nothing else. Where not even that fits, the edit is reused, then faded to the source. The lowest
  rung is tried again now and then.
- What the game saw as the source counts as a step of the fade: one such frame is followed by a whole picture, for a
  fade after it would be seen longer than the frame itself.

All times are nanoseconds of one monotonic clock. A clock that jumps costs at most one frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

__all__ = [
    "FADE_FRAMES",
    "MAX_EDIT_AGE_FRAMES",
    "Action",
    "Decision",
    "FrameTimes",
    "Pace",
    "Rung",
    "Verdict",
    "admit",
    "decide",
    "estimate_ns",
    "ladder",
    "margin_ns",
    "observe",
    "start",
]

Action = Literal["net", "reuse", "source"]

FADE_FRAMES: Final = 4
"""Frames over which the picture fades to the source and back: 67 ms at 60 Hz, too slow for a pop."""
MAX_EDIT_AGE_FRAMES: Final = 8
"""An edit is reused for so many frames; older ones are faded out."""

# Of the way between estimate and measurement, taken at once upwards and slowly downwards: the estimate then
# stands near the 94th percentile, and falls to half in 23 frames.
_RISE: Final = 0.5
_FALL: Final = 0.03
# So many measurements of a rung are taken as they come, before it tells anything about the others.
_LEARN: Final = 4
# The calm time before a step up, and how long it grows where the higher rung does not hold.
_HOLD_NS: Final = 1_500_000_000
_HOLD_MAX_NS: Final = 8 * _HOLD_NS
# Without the net a sixteenth of the hold is waited before it is tried again, at first six frames: the last edit
# is still shown then, and most of what makes the net late (another process, a hypervisor) is over by then. Each
# try may miss, so that at last, after 24 s, there is one in 1440 frames of 60 Hz: fewer than may be missed. A try
# that ends as the source in time costs the game nothing, and is made every 3 s.
_WAITED_WITHOUT_NET: Final = 16
_HOLD_MAX_WITHOUT_NET_NS: Final = 256 * _HOLD_NS
_HOLD_MAX_OF_CHEAP_TRIES_NS: Final = 32 * _HOLD_NS
# So many frames in a row such a try may take: after a pause caches are cold, and the first is slower by a fifth.
_FRAMES_OF_A_TRY: Final = 4
_HOLD_AFTER_NET_CAME_BACK_NS: Final = 4 * _HOLD_NS
_CALM_FRAMES: Final = 30
# A rung that does not run yet must fit with this to spare: its estimate is a guess, and a hiccup of the machine takes
# three or four milliseconds. With a quarter to spare 1.7 of 1000 frames were late (20,000 at 60 Hz on two cores; seen
# while building).
_SPARE: Final = 1.5
_SPARE_LOCKED: Final = 1.1  # a locked game sees a frame a period later, and nothing of a hiccup
# Misses that are allowed, and how many more than that make a rung too expensive.
_MISS_RATE: Final = 1 / 1000
_MISS_DEBT: Final = 3.0
# What a frame usually takes, of the estimate.
_USUAL: Final = 0.75
# The same for frames that come too late for their rung: one in ten may be answered by reuse.
_SHORT_RATE: Final = 1 / 10
# A frame older than this, or a frame that took longer, says something about a clock or a debugger, not about
# the net.
_STALE_NS: Final = 1_000_000_000
# A session that sent nothing for so long takes no time from the others.
_ACTIVE_NS: Final = 250_000_000
_NEVER_NS: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Rung:
    """One way through the net.

    ``size`` is the working (width, height) in pixels, ``steps`` the denoising steps. ``measured_ns`` is the
    whole service time at warm-up (receive to publish); 0 where it was not measured.
    """

    size: tuple[int, int]
    steps: int = 1
    measured_ns: int = 0

    @property
    def work(self) -> int:
        """Pixels times steps: what the cost is about proportional to."""
        return self.size[0] * self.size[1] * self.steps


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """What pacing needs to know of a frame; the names are those of the bridge's ``FrameJob``.

    ``published_ns`` and ``deadline_ns`` are on the clock of ``now_ns``; ``skipped`` counts the frames passed
    over for this one. After a ``camera_cut``, or in a ``new_style``, no earlier edit may be shown.
    """

    published_ns: int
    deadline_ns: int
    skipped: int = 0
    camera_cut: bool = False
    new_style: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """How one frame is answered.

    ``rung`` indexes the ladder; it is -1, with ``size`` (0, 0) and ``steps`` 0, where the net does not run.
    ``mix`` is the weight of the restyled picture against the source, 0 to 1: multiply the strength by it.
    ``edit_age_frames`` is the age of the edit that is shown, 0 for the net's own. ``reason`` fits an answer's
    48 bytes. ``compose_by_ns`` is the last moment at which composing can begin and still be in time: past
    it, publish the source without pixels and tell `observe` with ``rescued=True``.

    ``behind``: when the answer is published, let the net make an edit of this frame for the next one, at the size of
    the last edit (where there is none, at the smallest). ``hold``: where there is no time for what was decided, or only
    for the source, the last answer may be shown once more.

    ``level``, ``left_ns`` and ``short`` are for `observe`: the rung in force from now on, the time that was
    left, and whether the frame was too late for it.
    """

    action: Action
    rung: int
    size: tuple[int, int]
    steps: int
    mix: float
    edit_age_frames: int
    reason: str
    compose_by_ns: int
    level: int
    left_ns: int
    short: bool = False
    behind: bool = False
    hold: bool = True


@dataclass(frozen=True, slots=True)
class Pace:
    """Everything pacing remembers of one session; make one with `start`.

    ``level`` is the rung in force, ``len(ladder)`` where the net does not fit. ``costs_ns`` are upper
    estimates by rung, 0 where nothing is known. ``misses`` and ``shorts`` count those in a row,
    ``debt`` and ``late`` those beyond what is allowed. ``mix`` is the weight of the restyled picture that
    was shown last, ``edit_rung`` the rung that the last edit was made at, ``behind`` whether the engine can make one
    behind an answer. ``hold_ns`` is the calm time before the next step up, ``backoff_ns`` what it begins with after a
    step down, ``fell_ns`` when that was, and ``rose`` whether it went up since.
    """

    ladder: tuple[Rung, ...]
    budget_ns: int
    delivery: str
    costs_ns: tuple[int, ...]
    counts: tuple[int, ...]
    reuse_ns: int
    compose_ns: int
    level: int = 0
    recent_rung: int = -1
    recent_ns: tuple[int, ...] = ()
    misses: int = 0
    shorts: int = 0
    debt: float = 0.0
    late: float = 0.0
    calm: int = 0
    changed_ns: int = 0
    hold_ns: int = _HOLD_NS
    backoff_ns: int = _HOLD_NS
    rose: bool = False
    fell_ns: int = 0
    mix: float = 0.0
    edit_age_frames: int | None = None
    edit_rung: int = -1
    behind: bool = False
    period_ns: int = 0
    published_ns: int = 0
    seen_ns: int = 0

    @property
    def uses_net(self) -> bool:
        """Whether the net runs, as far as the last frames go."""
        return self.level < len(self.ladder)

    @property
    def rung(self) -> Rung | None:
        """The rung in force; None where the net does not fit."""
        return self.ladder[self.level] if self.uses_net else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a game can be served beside the others.

    ``sentence`` is empty where it gets everything; else it says what it gets, or why not and what it could
    have. ``size`` and ``steps`` are what it would begin with, (0, 0) and 0 for a no. ``least_budget_ns`` is
    the smallest budget that could be kept now; 0 where none could.
    """

    ok: bool
    sentence: str
    size: tuple[int, int] = (0, 0)
    steps: int = 0
    least_budget_ns: int = 0


def ladder(sizes: Sequence[tuple[int, int]], steps: int = 1) -> tuple[Rung, ...]:
    """Every pair of a working size and 1, 2, 4 … up to ``steps``, the most expensive first.

    Of two that cost about the same, the one with more cells is kept: fewer steps are seen less than fewer
    cells. Raises `ValueError` without sizes or with ``steps`` below 1.
    """
    if not sizes or steps < 1:
        raise ValueError("a ladder needs at least one size and one step")
    choices = [1 << power for power in range(steps.bit_length()) if 1 << power <= steps]
    if steps not in choices:
        choices.append(steps)
    every = sorted((Rung(size, count) for size in sizes for count in choices), key=lambda r: (-r.work, r.steps))
    kept = every[:1]
    for rung in every[1:]:
        # A rung that spares less than 15 % is not worth the change of the picture.
        if rung.work < 0.85 * kept[-1].work:
            kept.append(rung)
    return tuple(kept)


def margin_ns(budget_ns: int) -> int:
    """What is kept free at the end of a budget: the answer's way to the game, and the clock's grain."""
    return 300_000 + budget_ns // 25


def start(
    rungs: Iterable[Rung],
    budget_ns: int,
    delivery: str = "wait",
    reuse_ns: int = 0,
    compose_ns: int = 0,
    now_ns: int = 0,
    behind: bool = False,
) -> Pace:
    """The pace of a new session.

    ``rungs`` are those of the engine for this frame size, the best first; ``reuse_ns`` is the whole service
    time of a reused frame and ``compose_ns`` that of compose to publish, 0 where unknown; ``behind``: the engine can
    make an edit of a frame that was answered already. It begins at the best rung that fits with time to spare, or
    at the first where none is known to. Raises `ValueError`
    for no rungs, rungs that do not get cheaper, or a budget that is not positive.
    """
    rungs = tuple(rungs)
    if not rungs:
        raise ValueError("pacing needs at least one rung")
    if any(after.work >= before.work for before, after in itertools.pairwise(rungs)):
        raise ValueError("the rungs of a ladder must get cheaper from one to the next")
    if budget_ns <= 0:
        raise ValueError(f"a budget must be more than 0 ns, not {budget_ns}")
    room_ns = budget_ns - margin_ns(budget_ns)
    fitting = (i for i, rung in enumerate(rungs) if 0 < rung.measured_ns * _SPARE <= room_ns)
    level = 0 if delivery == "locked" else next(fitting, 0)
    return Pace(
        level=level,
        ladder=rungs,
        budget_ns=budget_ns,
        delivery=delivery,
        costs_ns=tuple(max(0, rung.measured_ns) for rung in rungs),
        counts=tuple(_LEARN if rung.measured_ns > 0 else 0 for rung in rungs),
        reuse_ns=reuse_ns,
        compose_ns=compose_ns,
        behind=behind,
        changed_ns=now_ns,
        seen_ns=now_ns,
    )


def estimate_ns(pace: Pace, rung: int) -> int:
    """Upper estimate of a rung's whole service time; 0 where nothing at all is known."""
    known = pace.costs_ns[rung]
    if known:
        return known
    nearest = min(
        (other for other, cost in enumerate(pace.costs_ns) if cost),
        key=lambda other: abs(other - rung),
        default=None,
    )
    if nearest is None:
        return 0
    cost, ratio = pace.costs_ns[nearest], pace.ladder[rung].work / pace.ladder[nearest].work
    # Downwards a third of the cost is taken to stay: full-resolution passes do not shrink with the net.
    return int(cost * ratio) if ratio > 1 else int(cost * (0.33 + 0.67 * ratio))


def _level_ns(pace: Pace, level: int) -> int:
    """The estimate at a level, which may be the one without the net."""
    return estimate_ns(pace, level) if level < len(pace.ladder) else pace.reuse_ns


def _deadline_ns(pace: Pace, frame: FrameTimes) -> int:
    """When the answer must be there. A locked game asks for it one frame later."""
    if pace.delivery == "locked":
        return frame.deadline_ns + min(pace.period_ns, pace.budget_ns)
    return frame.deadline_ns


def _room_ns(pace: Pace, others: Sequence[Pace], level: int) -> int:
    """The service time that this session may take at ``level``, frame after frame, beside the others.

    Frames are served one after the other, so each session can find every other's frame before its own. The
    others are counted at ``level`` or lower: all go down together, and nobody starves.
    """
    own_ns = pace.budget_ns - margin_ns(pace.budget_ns)
    if pace.delivery == "locked" and pace.period_ns:
        # Twice the time for a frame, but still one frame each period.
        own_ns = min(own_ns + min(pace.period_ns, pace.budget_ns), pace.period_ns * 19 // 20)
    if not others:
        return own_ns
    taken_ns = sum(_level_ns(other, max(other.level, min(level, len(other.ladder) - 1))) for other in others)
    least_ns = min(other.budget_ns - margin_ns(other.budget_ns) for other in others)
    return min(own_ns, least_ns) - taken_ns


def decide(pace: Pace, now_ns: int, frame: FrameTimes, others: Sequence[Pace] = ()) -> Decision:
    """How ``frame`` is answered if work on it begins at ``now_ns``.

    ``others`` are the paces of the other sessions of the same device. Changes nothing: `observe` does.
    """
    now_ns = max(now_ns, frame.published_ns)
    floor = len(pace.ladder)
    deadline_ns = _deadline_ns(pace, frame)
    left_ns = deadline_ns - now_ns - margin_ns(pace.budget_ns)
    if now_ns - frame.published_ns > _STALE_NS:
        return _source(pace, "the frame is too old", pace.level, left_ns)
    active = [other for other in others if abs(now_ns - other.seen_ns) < _ACTIVE_NS]

    level, why = _next_level(pace, now_ns, active)
    probing = level < floor <= pace.level
    # Below the last rung there is only the source, which is still in time where the net turns out too late to compose:
    # there what frames usually take decides, not what the slowest do. An estimate a little over what is left would
    # otherwise stand for ever: what never runs is never measured again.
    share = _USUAL if level == floor - 1 else 1.0
    short = level < floor and not probing and estimate_ns(pace, level) * share > left_ns
    fitting = (rung for rung in range(level + 1, floor) if estimate_ns(pace, rung) <= left_ns)
    if short and pace.shorts >= 1:
        # The second frame in a row that comes late: no hiccup, and not the wake of one.
        level, short = next(((rung, False) for rung in fitting), (floor - 1, True))
        why = "frames come late"
    elif short and _edit_age(pace, frame) is None:
        # There is no edit to reuse: fewer cells rather than a flash of the source.
        level, short = next(((rung, False) for rung in fitting), (level, True))
        why = "the frame came late"
    if level < floor and not short:
        rung = pace.ladder[level]
        mix = 1.0 if frame.camera_cut else min(1.0, pace.mix + 1 / FADE_FRAMES)
        if mix < 1.0:
            why = why or "fading in"
        elif not why and level:
            why = "smaller to stay in time" if rung.size != pace.ladder[0].size else "fewer steps to stay in time"
        # A late picture is still the newest one where nobody waits for it.
        compose_by_ns = (
            _NEVER_NS if pace.delivery == "newest" else deadline_ns - margin_ns(pace.budget_ns) - pace.compose_ns
        )
        return Decision("net", level, rung.size, rung.steps, mix, 0, why, compose_by_ns, level, left_ns)
    decision = _without_net(pace, frame, level, left_ns, deadline_ns, short)
    if level < floor or active:
        return decision
    # A frame that the source answers is read before it is given back, which takes a part of a reuse.
    by = pace.edit_rung if decision.action == "reuse" else floor - 1
    if left_ns < pace.reuse_ns or not _fits_behind(pace, by, now_ns, deadline_ns):
        return decision
    if decision.action == "source":
        return replace(decision, behind=True)
    # However old the edit is: the next frame has a new one, and fading now would be a dip.
    mix = min(1.0, pace.mix + 1 / FADE_FRAMES)
    return replace(decision, behind=True, mix=mix, reason="fading in" if mix < 1.0 else "the net runs behind")


def _fits_behind(pace: Pace, rung: int, now_ns: int, deadline_ns: int) -> bool:
    """Whether the net can make an edit behind the answer to a frame that is due at `deadline_ns`, and the next one
    still be answered in time."""
    cost_ns = estimate_ns(pace, rung)
    if not pace.behind or not cost_ns or not pace.period_ns:
        return False
    next_ns = deadline_ns + pace.period_ns - margin_ns(pace.budget_ns) - pace.reuse_ns
    return now_ns + pace.reuse_ns + cost_ns - pace.compose_ns <= next_ns


def _next_level(pace: Pace, now_ns: int, others: Sequence[Pace]) -> tuple[int, str]:
    """The rung in force from now on, and why where it changes."""
    floor = len(pace.ladder)
    level = pace.level
    waited_ns = now_ns - pace.changed_ns
    if level >= floor:
        # Back from nothing sooner than from one rung to the next: any net is better than none.
        if waited_ns >= pace.hold_ns // _WAITED_WITHOUT_NET:
            # Where it runs behind it is measured, and need not be tried to be known to be late.
            measured = pace.edit_age_frames is not None and pace.edit_age_frames <= 2
            if measured and estimate_ns(pace, floor - 1) > _room_ns(pace, others, floor - 1):
                return level, "the net does not fit"
            return floor - 1, "trying the net again"
        return level, "the net does not fit"
    while level < floor and estimate_ns(pace, level) > _room_ns(pace, others, level):
        level += 1
    if level > pace.level:
        return level, "the net got slower" if not others else "shared with other games"
    calm = pace.calm >= _CALM_FRAMES and waited_ns >= pace.hold_ns
    spare = _SPARE_LOCKED if pace.delivery == "locked" else _SPARE
    if level and calm and estimate_ns(pace, level - 1) * spare <= _room_ns(pace, others, level - 1):
        return level - 1, "time for more"
    return level, ""


def _without_net(pace: Pace, frame: FrameTimes, level: int, left_ns: int, deadline_ns: int, short: bool) -> Decision:
    why = "the frame came late" if short else "the net does not fit"
    age = _edit_age(pace, frame)
    if age is None or pace.reuse_ns > left_ns:
        # An edit that nobody has time for: the picture that was made with it is still good.
        return _source(pace, why if age is None else "no time for more", level, left_ns, short, hold=age is not None)
    mix = min(1.0, pace.mix + 1 / FADE_FRAMES)
    if age > MAX_EDIT_AGE_FRAMES + FADE_FRAMES:
        mix = 0.0
    elif age > MAX_EDIT_AGE_FRAMES:
        mix, why = pace.mix - 1 / FADE_FRAMES, "fading to the source"
    if mix <= 0.0:
        return _source(pace, "the last edit is too old", level, left_ns, short)
    by_ns = _NEVER_NS if pace.delivery == "newest" else deadline_ns - margin_ns(pace.budget_ns)
    return Decision("reuse", -1, (0, 0), 0, mix, age, why, by_ns, level, left_ns, short)


def _source(
    pace: Pace, why: str, level: int, left_ns: int, short: bool = False, hold: bool = False
) -> Decision:
    return Decision("source", -1, (0, 0), 0, 0.0, 0, why, _NEVER_NS, level, left_ns, short, hold=hold)


def _edit_age(pace: Pace, frame: FrameTimes) -> int | None:
    """How old the last edit would be on this frame; None where there is none that fits it."""
    if pace.edit_age_frames is None or frame.camera_cut or frame.new_style:
        return None
    return pace.edit_age_frames + 1 + max(0, frame.skipped)


def observe(
    pace: Pace,
    decision: Decision,
    frame: FrameTimes,
    started_ns: int,
    finished_ns: int,
    rescued: bool = False,
    compose_ns: int = 0,
    missed: bool | None = None,
    held: bool = False,
    behind_ns: int = 0,
) -> Pace:
    """The pace after a frame.

    ``started_ns`` is the time given to `decide`, ``finished_ns`` when the answer was published. ``rescued``:
    composing would have been too late and the source was published instead, or where ``held`` the last answer again.
    ``behind_ns`` is what the net took behind the answer, 0 where it did not run there. ``compose_ns`` is what compose
    to publish took, 0 where it did not run. ``missed`` overrides the comparison with the deadline, for whoever
    knows when the game saw the answer.
    """
    took_ns = finished_ns - started_ns
    sane = 0 <= took_ns <= _STALE_NS and 0 <= started_ns - frame.published_ns <= _STALE_NS
    if missed is None:
        missed = finished_ns > _deadline_ns(pace, frame) or took_ns > _STALE_NS
    if not sane:
        # The clock jumped or the process slept: the frame is lost, and nothing is learned from it.
        return replace(
            pace, mix=0.0, edit_age_frames=None, published_ns=frame.published_ns, seen_ns=finished_ns,
            changed_ns=min(pace.changed_ns, finished_ns), calm=0, recent_ns=(),
        )  # fmt: skip

    learned = _learn(pace, decision, took_ns + (pace.compose_ns if rescued else 0), missed, compose_ns)
    if rescued:
        # What never runs is never measured: were composing thought to be slow for ever, every try would end here.
        learned["compose_ns"] = pace.compose_ns * 7 // 8
    if behind_ns and decision.behind:
        rung = pace.edit_rung if decision.action == "reuse" else len(pace.ladder) - 1
        costs = list(learned.get("costs_ns", pace.costs_ns))
        # Reading and composing are what a reused frame takes. The mean, not what the slowest take: where it was more,
        # one frame is the last answer again, and where it is not done edits age. Far more is believed at once.
        spent_ns, before = behind_ns + pace.reuse_ns, costs[rung]
        costs[rung] = spent_ns if 2 * spent_ns > 3 * costs[rung] else (3 * costs[rung] + spent_ns) // 4
        if before:
            # The others with it: a busy moment raises all of them, and this rung alone would come down again.
            costs = [c if i == rung else max(min(c, 1), c * costs[rung] // before) for i, c in enumerate(costs)]
        learned["costs_ns"] = tuple(costs)
    elif decision.action != "net" and decision.level >= len(pace.ladder):
        # What never runs is never measured: its estimate comes down by itself, but not below what warm-up saw.
        costs = [max(min(c, r.measured_ns), c * 99 // 100) for c, r in zip(pace.costs_ns, pace.ladder, strict=True)]
        learned["costs_ns"] = tuple(costs)
    slow = missed or rescued
    misses = pace.misses + 1 if slow else 0
    shorts = pace.shorts + 1 if decision.short else 0
    debt = max(0.0, pace.debt - _MISS_RATE) + missed
    late = max(0.0, pace.late - _SHORT_RATE) + decision.short
    level, floor = decision.level, len(pace.ladder)
    if max(debt, late) >= _MISS_DEBT and level < floor - 1:
        level += 1
    elif decision.action == "net" and slow and (misses >= 2 or pace.level >= floor):
        # Straight to what fits: every rung tried on the way would be a miss more.
        after = replace(pace, **learned)
        fits = (r for r in range(level + 1, floor) if estimate_ns(after, r) <= decision.left_ns)
        level = next(fits, level + 1)
    hold_ns, backoff_ns, rose, fell_ns = pace.hold_ns, pace.backoff_ns, pace.rose, pace.fell_ns
    # The try goes on with the next frame: the source was there in time, and nothing is lost by it.
    trying = pace.level == level == floor and decision.level < floor and not missed and misses < _FRAMES_OF_A_TRY
    tried = pace.level == level == floor and decision.level < floor and not trying
    if level > pace.level or tried:
        # Down again after it had gone up: that rung does not hold, so wait longer before the next try.
        if rose or tried:
            again = finished_ns - fell_ns < (8 if level < floor else 2) * backoff_ns
            most_ns = _HOLD_MAX_WITHOUT_NET_NS if level == floor else _HOLD_MAX_NS
            if level == floor and not missed:
                # The source was there in time: such a try costs the game nothing, and a lone one after a pause, with
                # cold caches, says little about the next.
                most_ns = _HOLD_MAX_OF_CHEAP_TRIES_NS
                # What held so long did fit: something came between, and is no reason to wait long.
                again = again and (tried or finished_ns - pace.changed_ns < 2 * _HOLD_NS)
            backoff_ns = min(2 * backoff_ns, most_ns) if again else _HOLD_NS
        hold_ns, rose, fell_ns = backoff_ns, False, finished_ns
    elif level < pace.level:
        if pace.level == floor:
            hold_ns = min(hold_ns, _HOLD_AFTER_NET_CAME_BACK_NS)
            backoff_ns = min(backoff_ns, _HOLD_MAX_OF_CHEAP_TRIES_NS // 2)
        # What holds is followed up sooner.
        hold_ns, rose = max(_HOLD_NS, hold_ns // 2), True
    moved = (level != pace.level or decision.level != pace.level) and not trying
    if moved:
        # A miss on the rung that was just taken is the first of it.
        misses, shorts, debt, late = int(slow and level == decision.level), 0, 0.0, 0.0
    seen_as_source = not held and (decision.action == "source" or (slow and pace.delivery != "newest") or rescued)
    mix = pace.mix if held else max(0.0, pace.mix - 1 / FADE_FRAMES) if seen_as_source else decision.mix
    fresh = decision.action == "net" or bool(behind_ns)
    edit_age = 0 if fresh else _edit_age(pace, frame)
    if decision.action == "net" and pace.level == level == floor:
        after = replace(pace, **learned)
        if not _fits_behind(after, floor - 1, frame.published_ns, _deadline_ns(pace, frame)):
            # The edit of a failed try is not shown where none would follow it: it would fade in and out, each time.
            edit_age = None
    edit_rung = pace.edit_rung
    if fresh and decision.action != "reuse":
        edit_rung = decision.rung if decision.action == "net" else floor - 1
    step_ns = frame.published_ns - pace.published_ns
    period_ns = pace.period_ns
    if pace.published_ns and 0 < step_ns <= _ACTIVE_NS:
        period_ns = step_ns if not period_ns else period_ns + (step_ns - period_ns) // 8
    return replace(
        pace,
        **learned,
        level=level,
        misses=misses,
        shorts=shorts,
        debt=debt,
        late=late,
        calm=0 if moved or slow or decision.short else pace.calm + 1,
        changed_ns=finished_ns if moved else min(pace.changed_ns, finished_ns),
        hold_ns=hold_ns,
        backoff_ns=backoff_ns,
        rose=rose,
        fell_ns=min(fell_ns, finished_ns),
        mix=mix,
        edit_age_frames=edit_age,
        edit_rung=edit_rung,
        period_ns=period_ns,
        published_ns=frame.published_ns,
        seen_ns=finished_ns,
    )


def _learn(pace: Pace, decision: Decision, took_ns: int, missed: bool, compose_ns: int) -> dict[str, Any]:
    """The estimates that one more measurement changes."""
    learned: dict[str, Any] = {}
    if compose_ns > 0:
        # Of a hiccup not more than twice what is known is believed.
        learned["compose_ns"] = _toward(pace.compose_ns, min(compose_ns, 2 * (pace.compose_ns or compose_ns)))
    if decision.action == "reuse":
        # A reuse that missed must not be tried at the same estimate again; where it is the first in long, and came
        # behind a whole picture, it is tried soon.
        after_ns = max(took_ns, pace.reuse_ns) if missed else _toward(pace.reuse_ns, took_ns)
        if missed and pace.mix == 1.0 and pace.debt < 1:
            after_ns = min(after_ns, max(pace.reuse_ns, decision.left_ns * 17 // 16))
        return learned | {"reuse_ns": after_ns}
    if decision.action == "source":
        # What is never tried is never measured: let the estimate come down by itself.
        return learned | {"reuse_ns": pace.reuse_ns * 97 // 100}
    rung = decision.rung
    before = estimate_ns(pace, rung)
    probing = pace.level >= len(pace.ladder)
    recent = (*pace.recent_ns, took_ns)[-3:] if pace.recent_rung == rung else (took_ns,)
    costs = list(pace.costs_ns)
    if probing and before and not missed:
        # What was known is from before the net was given up; this is now.
        costs[rung] = max(1, took_ns)
        factor = costs[rung] / before
    elif pace.counts[rung] < _LEARN:
        # A guess, if there is one, bounds the first measurement: it can be a hiccup too.
        bounded = took_ns if not before else min(took_ns, 2 * before)
        costs[rung] = bounded if not pace.costs_ns[rung] else max(1, (before + bounded) // 2)
        factor = 1.0
    else:
        # The median of three; of two the smaller, and of one what is known if that is less: a lone hiccup, as a game's
        # first frame is, is never believed.
        steady = min(before, took_ns) if len(recent) == 1 else sorted(recent)[1 if len(recent) == 3 else 0]
        costs[rung] = _toward(before, steady)
        factor = costs[rung] / before
    for other, cost in enumerate(costs):
        if other != rung and cost:
            costs[other] = max(1, int(cost * factor))
    return learned | {
        "costs_ns": tuple(costs),
        "counts": tuple(min(_LEARN, count + (index == rung)) for index, count in enumerate(pace.counts)),
        # Never more than the net on the fewest cells, which reads and composes as well.
        "reuse_ns": min(int(pace.reuse_ns * factor), max(pace.reuse_ns, costs[-1])),
        "recent_rung": rung,
        "recent_ns": recent[-2:],
    }


def _toward(estimate: int, measured: int) -> int:
    """Up fast, down slowly; the first measurement as it is."""
    if not estimate:
        return max(1, measured)
    share = _RISE if measured > estimate else _FALL
    return max(1, round(estimate + share * (measured - estimate)))


def admit(
    paces: Iterable[Pace], rungs: Iterable[Rung], budget_ns: int, delivery: str = "wait", now_ns: int = 0
) -> Verdict:
    """Whether a game of ``budget_ns`` can be served beside ``paces``, and with what.

    Every game may be moved down its ladder, but no budget may be broken: in the worst case each frame waits
    for one of every other game. ``rungs`` must have been measured; unmeasured ones are let in and paced.
    ``now_ns`` 0 counts every pace as active.
    """
    rungs = tuple(rungs)
    others = [pace for pace in paces if not now_ns or abs(now_ns - pace.seen_ns) < _ACTIVE_NS]
    if budget_ns <= 0:
        return Verdict(False, "a budget must be more than 0 ms; 16.67 ms is that of 60 frames a second")
    own = start(rungs, budget_ns, delivery)
    for level, rung in enumerate(rungs):
        if level < own.level or estimate_ns(own, level) > _room_ns(own, others, level):
            continue
        sentence = ""
        if level:
            size = f"{rung.size[0]}x{rung.size[1]}"
            sentence = f"the net will work at {size}, {rung.steps} step(s), to keep {_ms(budget_ns)}"
            sentence += f" beside {_games(others)}" if others else ""
        return Verdict(True, sentence, rung.size, rung.steps, _least_budget_ns(own, others))
    least_ns = _least_budget_ns(own, others)
    cheapest_ns = estimate_ns(own, len(rungs) - 1)
    if not others:
        why = f"a budget of {_ms(budget_ns)} cannot be kept here: the smallest net takes {_ms(cheapest_ns)}"
    else:
        left_ns = _room_ns(own, others, len(rungs) - 1)
        why = (
            f"a budget of {_ms(budget_ns)} cannot be kept beside {_games(others)}: "
            f"the smallest net takes {_ms(cheapest_ns)} and {_ms(left_ns)} are left"
        )
    if least_ns:
        return Verdict(False, f"{why}; {_ms(least_ns, up=True)} could be had", least_budget_ns=least_ns)
    return Verdict(False, f"{why}; no budget fits until a game leaves or its frames are smaller")


def _least_budget_ns(own: Pace, others: Sequence[Pace]) -> int:
    """The smallest budget that the cheapest rung keeps; 0 where the others' budgets would break."""
    last = len(own.ladder) - 1
    cost_ns = estimate_ns(own, last)
    for other in others:
        cost_ns += _level_ns(other, max(other.level, len(other.ladder) - 1))
    if any(cost_ns > other.budget_ns - margin_ns(other.budget_ns) for other in others):
        return 0
    # Undo `margin_ns`: budget - budget/25 - 0.3 ms = cost.
    return -(-(cost_ns + 300_000) * 25 // 24)


def _ms(time_ns: int, up: bool = False) -> str:
    tenths = -(-time_ns // 100_000) if up else round(max(0, time_ns) / 100_000)
    return f"{tenths / 10:g} ms"


def _games(others: Sequence[Pace]) -> str:
    return "the game that plays" if len(others) == 1 else f"the {len(others)} games that play"

"""Error correction: four numbers that say whether a frame is healthy, and what is done about one that is not.

Of every frame four mean squares are known in one pass, without anybody looking at a pixel: of the edit's colour
transforms, of its detail, of the memory it leaves, and of what it changed about the memory it found. The last is the
telling one: a network that plays well confirms most of what it remembers, and one that was handed another scene's
memory, noise or nothing writes it all anew. `Bounds` say what the four were while the network played training clips
in closed loop (`mirage_plugin.train.calibration` learns them, the weights file carries them); a `Watch` compares one
game's frames with them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.network import Edit

__all__ = ["NAMES", "Bounds", "Statistics", "Watch", "mean_squares", "statistics_of"]

NAMES = ("matrices", "detail", "state", "change")
Statistics = tuple[float, ...]
"""Natural logarithms of the mean squares of `NAMES`, in that order; NaN where one is not finite."""
LEAST = 1e-6
"""Added before the logarithm: an edit of nothing has a mean square of zero."""
MOST_REST_FRAMES = 64
SAVED = 6 + 2 * len(NAMES)
"""How many numbers `Watch.save` gives."""


def mean_squares(edit: Edit, state: Tensor, memory: MemoryState) -> Tensor:
    """What `NAMES` says of every frame of a batch: float32 [N, 4].

    `state` [N, h2, w2, S] is what was written where `memory` was read; its change counts where that was valid, and is
    zero where nothing was.
    """
    parts = [part.float().square().mean((1, 2, 3)) for part in (edit.matrices, edit.detail, state)]
    valid = memory.valid.float()
    changed = ((state.float() - memory.state.float()) * valid).square().sum((1, 2, 3))
    weight = (valid.square().sum((1, 2, 3)) * state.shape[-1]).clamp_min(1.0)
    return torch.stack([*parts, changed / weight], 1)


def statistics_of(squares: Sequence[float]) -> Statistics:
    """Logarithms of the first numbers, one for each of `NAMES`."""
    return tuple(math.log(x + LEAST) if 0 <= x < math.inf else math.nan for x in squares[: len(NAMES)])


@dataclass(frozen=True)
class Bounds:
    """What healthy frames have: logarithms, one for each of `NAMES`.

    `centre` and `spread` are the median and the standard deviation; beyond `low` and `high` no healthy frame is.
    """

    centre: Statistics
    spread: Statistics
    low: Statistics
    high: Statistics

    def __post_init__(self) -> None:
        """Refuse what cannot be bounds: `ValueError`."""
        for name, values in asdict(self).items():
            if len(values) != len(NAMES) or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} is not {len(NAMES)} finite numbers: {values!r}")
        ordered = zip(self.low, self.centre, self.high, strict=True)
        if min(self.spread) <= 0 or not all(low <= centre <= high for low, centre, high in ordered):
            raise ValueError(f"these are no bounds: {self}")

    def hold(self, now: Statistics) -> bool:
        """Whether a frame is within what healthy frames have; one with a NaN is not."""
        return all(low <= x <= high for low, x, high in zip(self.low, now, self.high, strict=True))

    def including(self, now: Statistics) -> Bounds:
        """Bounds that this frame is within, and frames up to a standard deviation from it."""
        near = tuple(zip(now, self.spread, strict=True))
        low = tuple(min(low, x - s) for low, (x, s) in zip(self.low, near, strict=True))
        high = tuple(max(high, x + s) for high, (x, s) in zip(self.high, near, strict=True))
        return replace(self, low=low, high=high)

    def distances(self, now: Statistics) -> tuple[float, float]:
        """How far memory and picture are from the middle of what healthy frames have, in standard deviations.

        Of two numbers each, the farther one.
        """
        far = [(x - c) / s for x, c, s in zip(now, self.centre, self.spread, strict=True)]
        return max(far[2:], key=abs), max(far[:2], key=abs)

    def to_json(self) -> str:
        """As a weights file carries them."""
        return json.dumps({name: [round(v, 4) for v in values] for name, values in asdict(self).items()})

    @staticmethod
    def from_json(text: str) -> Bounds:
        """Undo `to_json`. Raises `ValueError` for whatever else it is given."""
        try:
            found = json.loads(text)
            return Bounds(**{name: tuple(float(v) for v in values) for name, values in found.items()})
        except (TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"these are no bounds: {text[:80]!r}") from error


class Watch:
    """What is known of one game's frames. For each that the network predicts::

        remembers = watch.begin(remembers)           # whether memory may be read
        ...                                          # predict
        if remembers and not watch.healthy(now):
            ...                                      # predict again without memory
            watch.correct()
        watch.accept(now, remembers)

    A frame that is corrected is predicted twice. Where that does not last (the very next frame is out of bounds
    again), frames are predicted without memory from the outset, for twice as many frames each time: a picture unlike
    any of training must not cost double for as long as it lasts.
    """

    def __init__(self, bounds: Bounds | None) -> None:
        """Begin to watch; without bounds every frame is healthy that is finite."""
        self._learned = self._bounds = bounds
        self.corrections = 0
        """Frames whose memory was dropped because they were out of bounds."""
        self.drift_state = self.drift_output = 0.0
        """`Bounds.distances` of the last frame that was predicted with memory; 0 where there are no bounds."""
        self._resting = self._rest = 0
        self._since = MOST_REST_FRAMES + 1

    def forget(self) -> None:
        """What comes next has nothing to do with what was: another scene, style or size."""
        self._bounds, self._resting, self._rest = self._learned, 0, 0

    def save(self) -> list[float]:
        """All that is known, as `SAVED` numbers for `restore`; bounds are zeros where there are none."""
        low, high = (self._bounds.low, self._bounds.high) if self._bounds else ((0.0,) * len(NAMES),) * 2
        counts = (self.corrections, self._resting, self._rest, self._since)
        return [*counts, self.drift_state, self.drift_output, *low, *high]

    def restore(self, saved: Sequence[float]) -> None:
        """Know what was saved, if it is sane: else `ValueError`, and nothing has changed."""
        if len(saved) != SAVED or not all(map(math.isfinite, saved)):
            raise ValueError(f"a watch is {SAVED} finite numbers")
        corrections, resting, rest, since = counts = [int(value) for value in saved[:4]]
        if list(saved[:4]) != counts or min(counts) < 0 or max(resting, rest) > MOST_REST_FRAMES:
            raise ValueError(f"these are no counts of a watch: {list(saved[:4])}")
        bounds, low, high = None, tuple(saved[6 : 6 + len(NAMES)]), tuple(saved[6 + len(NAMES) :])
        if self._learned is not None:
            bounds = replace(self._learned, low=low, high=high)
            wider = [a <= b for a, b in zip((*low, *self._learned.high), (*self._learned.low, *high), strict=True)]
            if not all(wider):
                raise ValueError("it was saved with other weights, which had other bounds")
        elif any(low + high):
            raise ValueError("it was saved with weights that had bounds, and these have none")
        self._bounds, self.corrections = bounds, corrections
        self._resting, self._rest, self._since = resting, rest, since
        self.drift_state, self.drift_output = saved[4], saved[5]

    def begin(self, remembers: bool) -> bool:
        """A frame is about to be predicted: whether with memory, if there is one."""
        if self._resting:
            self._resting -= 1
            return False
        self._since += 1
        return remembers

    def healthy(self, now: Statistics) -> bool:
        """Whether a frame that memory took part in may be seen; one that is not finite may not."""
        if not all(map(math.isfinite, now)):
            return False
        if self._bounds is None:
            return True
        self.drift_state, self.drift_output = self._bounds.distances(now)
        return self._bounds.hold(now)

    def correct(self) -> None:
        """The frame was out of bounds, and was predicted again without memory."""
        self.corrections += 1
        self._rest = min(max(1, 2 * self._rest), MOST_REST_FRAMES) if self._since <= 1 else 0
        self._resting, self._since = self._rest, 0

    def accept(self, now: Statistics, remembers: bool) -> None:
        """This frame is what is seen. Predicted without memory it is right by definition, and so are frames like it."""
        if self._bounds is not None and not remembers and all(map(math.isfinite, now)) and not self._bounds.hold(now):
            self._bounds = self._bounds.including(now)

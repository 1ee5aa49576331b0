"""Self-made histories: rollouts that go on for longer than a clip, the worst of them oftenest.

A clip has a few frames, a game hours. What a batch of clips has left behind is kept with it, and later played on from:
backwards and forwards again. Each time the history that the network learns from is longer, and all of it is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_plugin.train.batch import Batch
from mirage_plugin.train.objective import Rollout

__all__ = ["Histories", "History"]


@dataclass(eq=False)
class History:
    """A batch of clips, the state that they have left [N, h2, w2, S] after `frames`, and how far answers have come
    from the truth: `first` when they began from nothing, `last` when last played (`Rollout.distance`)."""

    batch: Batch
    state: Tensor
    frames: int
    first: float
    last: float


class Histories:
    """At most `capacity` histories, each gone on from until it is too long: then there is room for another."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kept: list[History] = []

    def begin(self, batch: Batch, rollout: Rollout) -> None:
        """Keep what clips have left that began from nothing, where there is room."""
        if len(self.kept) < self.capacity:
            distance = rollout.distance
            self.kept.append(History(batch, rollout.state, batch.source.shape[0], distance, distance))

    def draw(self, rng: torch.Generator) -> History | None:
        """The history to go on from: every other time the worst, else any; None where there is none."""
        if not self.kept:
            return None
        worst, number = (int(torch.randint(n, (), generator=rng)) for n in (2, len(self.kept)))
        return max(self.kept, key=lambda history: history.last - history.first) if worst else self.kept[number]

    def played(self, history: History, rollout: Rollout, longest: float) -> None:
        """Keep what playing `history` on, backwards and forwards, has left, unless that makes it too long."""
        history.state, history.last = rollout.state, rollout.distance
        history.frames += 2 * history.batch.source.shape[0]
        if history.frames + 2 * history.batch.source.shape[0] > longest:
            self.kept.remove(history)

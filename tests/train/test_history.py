"""Histories that training goes on from: how long they get, which are drawn, which make room."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from mirage_plugin.model.network import MirageNet
from mirage_plugin.train import objective
from mirage_plugin.train.batch import Batch, draw_batch
from mirage_plugin.train.history import Histories
from mirage_plugin.train.objective import Rollout, clip_loss
from mirage_plugin.train.pool import draw_clip


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = torch.Generator().manual_seed(2)
    return draw_batch(lambda _: draw_clip(5, 3, 64, 96), rng, size=2, frames=3, height=64, width=64)


def rollout(distance: float) -> Rollout:
    return Rollout(torch.tensor(0.0), torch.full((2, 4, 4, 48), distance), distance)


def test_histories_grow_until_they_are_too_long(batch: Batch) -> None:
    histories = Histories(4)
    assert histories.draw(torch.Generator()) is None
    histories.begin(batch, rollout(0.5))
    lengths = []
    while histories.kept:
        history = histories.draw(torch.Generator().manual_seed(1))
        assert history is not None
        histories.played(history, rollout(0.25), 64)
        lengths.append(history.frames)
        assert torch.equal(history.state, torch.full((2, 4, 4, 48), 0.25)), "it goes on from where it was"
    assert lengths == list(range(9, 64, 6)), "backwards and forwards again each time"


def test_the_worst_history_is_drawn_oftenest_and_none_is_cut_short(batch: Batch) -> None:
    histories = Histories(4)
    for distance in (0.1, 0.2, 0.3, 0.4):
        histories.begin(batch, rollout(distance))
    best, _, worst, _ = list(histories.kept)
    histories.played(best, rollout(-0.5), 99)
    histories.played(worst, rollout(0.9), 99)
    rng = torch.Generator().manual_seed(0)
    drawn = [histories.draw(rng) for _ in range(200)]
    assert all(any(history is kept for history in drawn) for kept in histories.kept)
    assert 100 < sum(history is worst for history in drawn) < 150
    before = list(histories.kept)
    histories.begin(batch, rollout(0.7))
    assert histories.kept == before, "there is no room"
    histories.played(best, rollout(0.2), 20)
    assert best not in histories.kept, "it has become too long"
    histories.begin(batch, rollout(0.7))
    assert len(histories.kept) == 4


def test_histories_become_as_long_as_they_may(batch: Batch) -> None:
    """With one of them gone on from for every batch of clips that comes, as in training."""
    histories, longest = Histories(12), 0
    for turn in range(200):
        histories.begin(batch, rollout(turn % 7 / 10))
        history = histories.draw(torch.Generator().manual_seed(turn))
        assert history is not None
        histories.played(history, rollout(turn % 5 / 10), 96)
        longest = max(longest, history.frames)
    assert longest == 93
    assert sum(history.frames > 40 for history in histories.kept) >= 3


def test_a_history_goes_on_with_the_network_s_own_state(
    net: MirageNet, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, known, graded = objective.predict, [], []

    def recorded(*arguments: object) -> object:
        known.append(arguments[4])
        graded.append(torch.is_grad_enabled())
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(objective, "predict", recorded)
    net, rng = deepcopy(net).train(), torch.Generator().manual_seed(4)
    left = clip_loss(net, batch, rng, second_pass=0.0).state
    assert not bool(known[0].state.any()), "clips begin from nothing"  # type: ignore[attr-defined]
    known.clear()
    graded.clear()
    on = clip_loss(net, batch, rng, second_pass=0.0, history=left)
    assert graded == [False] * 3 + [True] * 3, "back without learning, then forwards"
    assert torch.equal(known[0].state, left), "from where the clips were left"  # type: ignore[attr-defined]
    assert bool((known[0].valid == 1).all())  # type: ignore[attr-defined]
    assert not torch.equal(on.state, left)

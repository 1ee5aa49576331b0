"""Bounds learned from play, and a weights file that is given them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mirage_plugin.model.checkpoint import load_bounds, load_network, save_network
from mirage_plugin.model.drift import Bounds, statistics_of
from mirage_plugin.model.network import MirageNet
from mirage_plugin.train import calibration
from mirage_plugin.train.calibration import Effort, calibrate, closed_loop, drawn_batches, learn_bounds
from mirage_plugin.train.endurance import Play
from mirage_plugin.train.evaluation import draw_frame, sounded

SMALL = Effort(2, 2, 3)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "HEIGHT", 32)
    monkeypatch.setattr(calibration, "WIDTH", 64)


def test_bounds_hold_what_they_were_learned_from(small: None, net: MirageNet) -> None:
    heard: list[int] = []
    bounds = learn_bounds(net, effort=SMALL, tell=heard.append)
    assert heard == [1, 2]
    assert learn_bounds(net, effort=SMALL) == bounds
    assert learn_bounds(net, effort=SMALL, seed=1) != bounds
    for batch in drawn_batches(0, SMALL):
        squares = closed_loop(net, batch)
        assert squares.shape == (8, 8, 4)
        assert squares[0].isnan().all(), "a first frame says nothing of memory"
        rows = squares[squares.isfinite().all(-1)].tolist()
        assert rows
        assert all(bounds.hold(statistics_of(row)) for row in rows)


def test_a_weights_file_gets_bounds(
    small: None, net: MirageNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nano.safetensors"
    save_network(net, path, {"steps": "7"})
    monkeypatch.setattr(calibration, "EFFORT", SMALL)
    bounds = calibrate("nano", path)
    found = load_bounds("nano", path)
    assert found is not None
    assert found.high == pytest.approx(bounds.high, abs=1e-4)
    assert b'"steps":"7"' in path.read_bytes()[:2000]
    load_network("nano", path)


def spoiled(play: Play) -> Play:
    """The memory of its first clip turned into its opposite."""
    play.stored = play.stored.clone()
    play.stored[0] = -play.stored[0]
    return play


def test_play_corrects_what_is_out_of_bounds(small: None, net: MirageNet) -> None:
    batch = next(drawn_batches(0, SMALL))
    # Of one scene that stands still: some clips have a cut, and their memory is not asked.
    still = {"cut": torch.zeros_like(batch.cut), "motion": torch.zeros_like(batch.motion)}
    batch = replace(batch, visible=torch.ones_like(batch.visible), has_depth=torch.ones_like(batch.has_depth), **still)

    def played(bounds: Bounds | None = None) -> Play:
        play = Play(net, batch, bounds)
        play.step(batch, 0)
        return play

    free, ill = played(), spoiled(played())
    expected = free.step(batch, 1)
    ill.step(batch, 1)
    before, after = float(free.squares[0, 3]), float(ill.squares[0, 3])
    assert after > 2 * before, "a memory turned into its opposite is written anew"
    wide = learn_bounds(net, effort=SMALL)
    middle = math.log((before + after) / 2)
    bounds = replace(wide, centre=(*wide.centre[:3], middle), high=(*(x + 2 for x in wide.high[:3]), middle))
    watched = spoiled(played(bounds))
    seen = watched.step(batch, 1)
    assert watched.watches[0].corrections == 1
    assert torch.allclose(seen[1:], expected[1:], atol=1e-5), "no other clip is touched"
    answer = draw_frame(net, batch, 1, free.stored, None, watched.noise, torch.zeros(8, dtype=torch.bool))[0]
    assert torch.allclose(seen[0], answer[0], atol=1e-5), "it is what the network says without memory"


def test_the_memory_of_colours_alone_is_not_read(small: None, net: MirageNet) -> None:
    """Nor is it watched; and where depth came lately it is."""
    batch = next(drawn_batches(0, SMALL))
    batch = replace(batch, cut=torch.zeros_like(batch.cut), visible=torch.ones_like(batch.visible))
    depth = torch.zeros_like(batch.has_depth)
    depth[0, 1] = 1.0
    batch = replace(batch, has_depth=depth)
    assert sounded(batch, 1).tolist() == [False, True] + [False] * 6
    never = Bounds((-30.0,) * 4, (1.0,) * 4, (-40.0,) * 4, (-20.0,) * 4)
    one, other = Play(net, batch, never), Play(net, batch, never)
    for play in (one, other):
        play.step(batch, 0)
    other.stored = -other.stored
    found, spoilt = one.step(batch, 1), other.step(batch, 1)
    assert torch.equal(found[0], spoilt[0])
    assert [watch.corrections for watch in one.watches] == [0, 1] + [0] * 6

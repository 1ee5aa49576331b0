"""What the network is trained for: it learns, and it never sees the truth."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mirage_kernels.shade import BINS, KINDS, SURFACE
from mirage_plugin.model.network import MirageNet
from mirage_plugin.train import objective
from mirage_plugin.train.batch import Batch, draw_batch
from mirage_plugin.train.objective import (
    ABLATED,
    FULL,
    Ablation,
    clip_loss,
    reconstruction_loss,
    surface_loss,
    unsteadiness,
)
from mirage_plugin.train.pool import draw_clip


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = torch.Generator().manual_seed(2)
    return draw_batch(lambda _: draw_clip(5, 3, 64, 96), rng, size=2, frames=3, height=64, width=64)


def loss_of(net: MirageNet, batch: Batch) -> Tensor:
    return clip_loss(net, batch, torch.Generator().manual_seed(4))[0]


def test_a_few_steps_lower_the_loss(net: MirageNet, batch: Batch) -> None:
    net = deepcopy(net).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4)
    before = float(loss_of(net, batch).detach())
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(net, batch).backward()
        optimizer.step()
    assert float(loss_of(net, batch).detach()) < before


def test_every_part_of_the_network_is_trained(net: MirageNet, batch: Batch) -> None:
    net = deepcopy(net).train()
    loss_of(net, batch).backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or float(p.grad.abs().max()) == 0]
    assert not still


def test_the_truth_changes_no_answer(net: MirageNet, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    original = objective.predict
    answers: list[Tensor] = []

    def recorded(*arguments: object) -> tuple[Tensor, object, Tensor]:
        out = original(*arguments)  # type: ignore[arg-type]
        answers.append(out[0].detach())
        return out

    monkeypatch.setattr(objective, "predict", recorded)
    first = clip_loss(net, batch, torch.Generator().manual_seed(4), second_pass=1.0)
    seen = list(answers)
    answers.clear()
    other = replace(batch, truth=torch.randn_like(batch.truth))
    second = clip_loss(net, other, torch.Generator().manual_seed(4), second_pass=1.0)
    assert len(seen) == len(answers) == 2 * batch.source.shape[0]
    assert all(torch.equal(a, b) for a, b in zip(seen, answers, strict=True))
    assert torch.equal(first.state, second.state), "the memory holds nothing of the truth"
    assert float(first.loss.detach()) != float(second.loss.detach())


def final_state(net: MirageNet, batch: Batch, name: str, *, carried: bool = False) -> Tensor:
    foreign = torch.full((2, 4, 4, net.tier.state), 0.5) if carried else None
    with torch.no_grad():
        rng = torch.Generator().manual_seed(4)
        return clip_loss(net, batch, rng, carried=foreign, ablation=ABLATED[name])[1]


@pytest.mark.parametrize("name", ABLATED)
def test_every_ablation_learns(name: str, net: MirageNet, batch: Batch) -> None:
    net = deepcopy(net).train()
    if not ABLATED[name].half_grid:
        known, net = net.state_dict(), MirageNet(ABLATED[name].tier(net.tier)).train()
        net.load_state_dict({k: v for k, v in known.items() if not k.startswith("memory.")}, strict=False)
    rollout = clip_loss(net, batch, torch.Generator().manual_seed(4), ablation=ABLATED[name])
    rollout.loss.backward()
    assert bool(rollout.state.isfinite().all())
    assert rollout.state.shape[1] == batch.source.shape[-2] // net.tier.entry
    remembering = [p.grad for p in (net.memory.keep.weight, net.memory.into.weight) if p.grad is not None]
    assert any(float(g.abs().max()) > 0 for g in remembering) == (name != "no-memory")
    assert net.stem_noisy.weight.grad is not None
    assert float(net.stem_noisy.weight.grad.abs().max()) > 0


def test_without_corruption_no_history_is_spoilt(
    net: MirageNet, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt: list[Tensor] = []

    def corrupt(state: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        spoilt.append(state)
        return state, torch.ones(2)

    monkeypatch.setattr(objective, "_corrupt", corrupt)
    plain = final_state(net, batch, "no-corruption")
    assert torch.equal(plain, final_state(net, batch, "no-corruption", carried=True))
    assert not spoilt
    final_state(net, batch, "full")
    assert len(spoilt) == batch.source.shape[0] - 1


def test_a_fed_history_is_the_truth_s(net: MirageNet, batch: Batch) -> None:
    other = replace(batch, truth=-batch.truth)
    assert torch.equal(final_state(net, batch, "full"), final_state(net, other, "full"))
    assert not torch.equal(final_state(net, batch, "truth-fed"), final_state(net, other, "truth-fed"))


def test_without_memory_no_frame_knows_another(net: MirageNet, batch: Batch) -> None:
    other = replace(batch, source=torch.cat([-batch.source[:1], batch.source[1:]]))
    assert torch.equal(final_state(net, batch, "no-memory"), final_state(net, other, "no-memory"))
    assert not torch.equal(final_state(net, batch, "no-corruption"), final_state(net, other, "no-corruption"))


def test_without_warp_the_memory_stays_where_it_is(net: MirageNet, batch: Batch) -> None:
    # The network is not told of motion here, so only the memory can follow it.
    still = replace(batch, has_motion=torch.zeros_like(batch.has_motion))
    moving = replace(still, motion=still.motion + 16, visible=torch.ones_like(still.visible))
    assert torch.equal(final_state(net, still, "no-warp"), final_state(net, moving, "no-warp"))
    assert not torch.equal(final_state(net, still, "full"), final_state(net, moving, "full"))


def test_a_white_start_holds_nothing_of_the_source() -> None:
    v, noise = torch.rand(2, 3, 8, 8), torch.randn(2, 1, 4, 4)
    white = Ablation(source_start=False)
    assert white.start(v, noise).shape == v.shape
    assert torch.equal(white.start(v, noise), white.start(-v, noise))
    assert torch.equal(FULL.start(v, noise * 0), v)


def test_the_loss_prefers_sharp_to_blurred() -> None:
    truth = torch.zeros(1, 3, 32, 32)
    truth[..., ::4] = 1.0
    blurred = torch.nn.functional.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    dimmed = truth * 0.7
    assert float(reconstruction_loss(truth, truth)) < float(reconstruction_loss(dimmed, truth))
    assert float(reconstruction_loss(dimmed, truth)) < float(reconstruction_loss(blurred, truth))


def test_steady_errors_are_no_flicker() -> None:
    rng = torch.Generator().manual_seed(0)
    before, seen = torch.randn(1, 3, 32, 32, generator=rng), torch.ones(1, 1, 32, 32)
    moved = torch.zeros_like(before)
    moved[..., 4:] = before[..., :-4]
    motion = torch.zeros(1, 2, 32, 32)
    motion[:, 0] = -4
    least = unsteadiness(moved * 0, moved * 0, motion, seen)
    known = seen.clone()
    known[..., :8] = 0
    assert torch.allclose(unsteadiness(moved, before, motion, known), least, atol=1e-3), "carried along the motion"
    assert unsteadiness(before, before, motion, known) > least + 1
    assert unsteadiness(moved + 0.1, before, motion, known) > least + 1, "a flash"
    assert torch.equal(unsteadiness(moved + 0.1, before, motion, seen * 0), least), "where it was seen before, that is"


def test_without_steadiness_flicker_costs_nothing(
    net: MirageNet, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tensor] = []

    def recorded(error: Tensor, before: Tensor, motion: Tensor, seen: Tensor) -> Tensor:
        asked.append(seen)
        return unsteadiness(error, before, motion, seen)

    monkeypatch.setattr(objective, "unsteadiness", recorded)
    given = replace(batch, has_motion=torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    final_state(net, given, "no-steadiness")
    assert not asked
    final_state(net, given, "full")
    assert len(asked) == 2
    assert float(asked[0][1].max()) == 0, "where motion is withheld nobody knows what moved"


def spoken(batch: Batch, t: int) -> tuple[Tensor, Tensor]:
    """The words that say what is there, alike in every reading, and anchors that are all of one colour."""
    surface, colour = batch.surface, (batch.source[t][..., ::2, ::2] + 1) / 2
    assert surface is not None
    known = surface[t]
    kinds = torch.nn.functional.one_hot(known[:, 0].long(), KINDS).permute(0, 3, 1, 2).float()

    def cells(plane: Tensor, size: int) -> Tensor:
        return torch.nn.functional.avg_pool2d(plane, size).permute(0, 2, 3, 1)

    def among(plane: Tensor, where: Tensor) -> Tensor:
        return cells(plane * where, 4) / cells(where, 4).clamp_min(1e-3)

    sky = kinds[:, :1]
    numbers = [
        cells(colour, 4), among(known[:, 1:3], 1 - sky), among(known[:, 3:6], 1 - sky) / 1.5,
        (among(known[:, 6:7], 1 - sky) + 1) / 2, among(known[:, 7:8], 1 - sky), cells(known[:, 8:9], 4),
        among(known[:, 9:11], sky), cells(known[:, 11:15], 4),
    ]  # fmt: skip
    squashed = torch.cat(numbers, -1).clamp(1e-4, 1 - 1e-4).logit()
    plane = cells((colour * known[:, 15:]).clamp(0, 1), 4).clamp(1e-4, 1 - 1e-4).logit() - squashed[..., :3]
    reading = torch.cat([squashed[..., :3], cells(kinds, 4).clamp_min(1e-4).log(), squashed[..., 3:], plane], -1)
    words = torch.cat([reading.repeat(1, 1, 1, BINS), torch.zeros(*reading.shape[:3], BINS)], -1)
    return words, torch.tensor([0.0, 0.0, 0.0, 1 / BINS]).repeat(BINS).expand(*reading.shape[:3], -1)


def test_words_that_say_what_is_there_cost_least(batch: Batch) -> None:
    assert batch.surface is not None
    words, anchors = spoken(batch, 1)
    known = (anchors, batch.source[1], batch.surface[1])
    least = surface_loss(words, *known)
    for first in range(SURFACE):
        if first in range(3, 3 + KINDS):
            continue
        for step in (-0.7, 0.7):
            other = words.clone()
            other[..., : BINS * SURFACE].unflatten(-1, (BINS, SURFACE))[..., first] += step
            assert surface_loss(other, *known) >= least - 1e-3, first  # squashing ends short of 0 and 1
    other = words.clone()
    other[..., : BINS * SURFACE].unflatten(-1, (BINS, SURFACE))[..., 3 : 3 + KINDS] = 0
    assert surface_loss(other, *known) > least + 0.05


def test_pairs_without_worlds_are_learned_from_by_the_picture_alone(net: MirageNet, batch: Batch) -> None:
    assert bool(clip_loss(net, replace(batch, surface=None), torch.Generator().manual_seed(4))[0].isfinite())

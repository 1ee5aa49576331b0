"""What the network is trained for: it learns, and it never sees the truth."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mirage_plugin.model.network import MirageNet
from mirage_plugin.train import objective
from mirage_plugin.train.batch import Batch, draw_batch
from mirage_plugin.train.objective import clip_loss, reconstruction_loss
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
    assert torch.equal(first[1], second[1]), "the memory holds nothing of the truth"
    assert float(first[0].detach()) != float(second[0].detach())


def test_the_loss_prefers_sharp_to_blurred() -> None:
    truth = torch.zeros(1, 3, 32, 32)
    truth[..., ::4] = 1.0
    blurred = torch.nn.functional.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    dimmed = truth * 0.7
    assert float(reconstruction_loss(truth, truth)) < float(reconstruction_loss(dimmed, truth))
    assert float(reconstruction_loss(dimmed, truth)) < float(reconstruction_loss(blurred, truth))

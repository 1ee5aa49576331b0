"""The network: what it returns untrained, what it depends on, and what nonsense does to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.network import (
    CODE_SIZE,
    PLANE_CHANNELS,
    STYLE_SIZE,
    TIERS,
    Edit,
    MirageNet,
    Planes,
    cells_to_pixels,
    compose,
    depth_slopes,
    frame_lines,
    pixels_to_cells,
    planes_to_cells,
    slice_readings,
)
from mirage_plugin.model.sampling import levels, sample
from mirage_plugin.model.slicing import SliceReadings
from mirage_plugin.styles.parameters import VECTOR_SIZE, load_style, parameter_range


def ask(net: MirageNet, v: Tensor, style: str = "ink", *, seed: int = 1, steps: int = 1, state: float = 0.0,
        valid: float = 0.0, planes: Planes | None = None) -> Tensor:  # fmt: skip
    n, _, height, width = v.shape
    noise = torch.randn(n, 1, height // 2, width // 2, generator=torch.Generator().manual_seed(seed))
    shape = (n, height // 16, width // 16)
    memory = MemoryState(torch.full((*shape, net.tier.state), state), torch.full((*shape, 1), valid))
    code = net.style(torch.from_numpy(load_style(style).vector())[None].expand(n, -1))
    cells = planes_to_cells(planes or Planes(), n, height // 8, width // 8, v)
    lines = frame_lines(v, (planes or Planes()).depth, None, code)
    with torch.inference_mode():
        return sample(net, v, noise, cells, memory, code, torch.ones(n), lines, steps)[0]


@pytest.fixture
def v() -> Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize(("tier", "millions"), [("nano", 1.2), ("small", 8.0), ("base", 25.0)])
def test_a_tier_keeps_its_size(tier: str, millions: float) -> None:
    with torch.device("meta"):
        count = MirageNet(TIERS[tier]).parameter_count()
    assert 0.3 * millions * 1e6 < count <= millions * 1e6


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_an_untrained_network_returns_its_source(v: Tensor, steps: int) -> None:
    torch.manual_seed(1)
    untrained = MirageNet(TIERS["nano"]).eval()
    assert torch.equal(ask(untrained, v, steps=steps), v)


def test_a_network_that_begins_to_train_paints(v: Tensor) -> None:
    torch.manual_seed(1)
    begun = MirageNet(TIERS["nano"]).eval()
    begun.begin_training()
    assert not torch.equal(ask(begun, v), v)


def test_an_edit_of_zero_returns_the_source_at_any_resolution(v: Tensor) -> None:
    nothing = torch.zeros(1, 4, 6, 192)
    zero = Edit(nothing[..., :48], nothing, torch.full((1, 4, 6, 16), 0.25), nothing[..., :8])
    assert torch.equal(compose(v, zero), v)
    assert torch.equal(compose(v, zero, torch.rand(1, 2, *v.shape[-2:])), v)


def test_the_same_question_has_the_same_answer(net: MirageNet, v: Tensor) -> None:
    assert torch.equal(ask(net, v), ask(net, v))


def test_every_input_matters(net: MirageNet, v: Tensor) -> None:
    plain = ask(net, v)
    assert not torch.equal(plain, ask(net, v, "snow"))
    assert not torch.equal(plain, ask(net, v, seed=2))
    assert not torch.equal(plain, ask(net, v, state=0.7, valid=1.0))
    assert torch.equal(plain, ask(net, v, state=0.7, valid=0.0)), "what is not valid must not be read"
    depth = Planes(depth=torch.full((1, 1, 64, 96), 3.0))
    assert not torch.equal(plain, ask(net, v, planes=depth))


@pytest.mark.parametrize("fill", [-1.0, 1.0, 0.0])
def test_flat_frames_give_finite_answers(net: MirageNet, fill: float) -> None:
    answer = ask(net, torch.full((1, 3, 32, 32), fill), steps=2)
    assert bool(answer.isfinite().all())
    assert float(answer.abs().max()) <= 1


def test_planes_of_nonsense_stay_finite() -> None:
    bad = torch.tensor([float("nan"), float("inf"), -float("inf"), -5.0, 1e30]).repeat(410)[: 32 * 64]
    planes = Planes(
        bad.view(1, 1, 32, 64), bad.view(1, 1, 32, 64).expand(-1, 2, -1, -1), torch.rand(1, 3, 32, 64)
    )
    cells = planes_to_cells(planes, 1, 4, 8, torch.zeros(()))
    assert cells.shape == (1, 4, 8, PLANE_CHANNELS)
    assert bool(cells.isfinite().all())
    assert float(cells.abs().max()) <= 1


def test_a_flat_surface_has_the_same_slope_near_and_far() -> None:
    # The inverse of its depth is affine on the screen.
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    for away in (1.0, 30.0):
        slopes = depth_slopes(away / (1 + 0.002 * x + 0.004 * y)[None, None, ::2, ::2])
        assert slopes.shape == (1, 4, 8, 8)
        across, down = slopes[..., ::2], slopes[..., 1::2]
        assert torch.allclose(across, down / 2, atol=4e-3)
        assert bool((across < -0.025).all())
        assert bool((across > -0.034).all())
    # Where a near thing ends before a far one, each of the two pairs is bounded for itself.
    edge = torch.where(torch.arange(32) < 14, 2.0, 90.0).expand(16, -1)[None, None]
    assert depth_slopes(edge).abs().max() <= 1


def test_absent_planes_are_zero() -> None:
    assert float(planes_to_cells(Planes(), 2, 4, 4, torch.zeros(())).abs().max()) == 0


def test_cells_and_pixels_are_one_another() -> None:
    image = torch.rand(2, 3, 32, 48)
    cells = pixels_to_cells(image)
    assert cells.shape == (2, 4, 6, 192)
    # Row 1, column 2 of the cell at (3, 4), green.
    assert cells[0, 3, 4, (1 * 8 + 2) * 3 + 1] == image[0, 1, 3 * 8 + 1, 4 * 8 + 2]
    assert torch.equal(cells_to_pixels(cells), image)


@pytest.mark.parametrize(("height", "width"), [(32, 64), (33, 61), (1, 1), (128, 7)])
def test_the_fast_slicing_is_the_plain_one(height: int, width: int) -> None:
    rng = torch.Generator().manual_seed(5)
    v = torch.randn(2, 3, height, width, generator=rng)
    matrices = torch.randn(2, 4, 8, 48, generator=rng, requires_grad=True)
    colours, shares = torch.randn(2, 4, 8, 4, 3, generator=rng), torch.rand(2, 4, 8, 4, 1, generator=rng) + 0.05
    anchors = torch.cat([colours * 0.3, shares], -1).flatten(-2).requires_grad_()
    slope = torch.randn(2, 3, height, width, generator=rng)
    fast: Tensor = SliceReadings.apply(v, matrices, anchors)
    found = (fast, *torch.autograd.grad(fast, (matrices, anchors), slope))
    plain = slice_readings(v, matrices, anchors)
    expected = (plain, *torch.autograd.grad(plain, (matrices, anchors), slope))
    for name, a, b in zip(("value", "matrices", "anchors"), found, expected, strict=True):
        error = float((a - b).detach().abs().max())
        # Sums of hundreds of float32 products in another order.
        assert error < 5e-5 * max(1.0, float(b.detach().abs().max())), f"{name}: {error}"


def test_steps_go_down_and_never_to_zero() -> None:
    assert levels(1) == (1.0,)
    assert levels(4) == (1.0, 0.75, 0.5, 0.25)


def test_the_style_vector_has_unit_size(net: MirageNet) -> None:
    style = net.style(torch.randn(5, VECTOR_SIZE) * 3)
    assert style.shape == (5, STYLE_SIZE)
    assert torch.allclose(style[:, :CODE_SIZE].square().mean(-1), torch.ones(5), atol=1e-3)


def test_behind_its_code_a_style_has_its_parameters_in_natural_units(net: MirageNet) -> None:
    low, high = map(torch.from_numpy, parameter_range())
    ends = net.style(torch.stack([-torch.ones(VECTOR_SIZE), torch.ones(VECTOR_SIZE)]))[:, CODE_SIZE:]
    assert torch.allclose(ends, torch.stack([low, high]).float(), atol=1e-5)

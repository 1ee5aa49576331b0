"""What surfaces are, from a look at the whole frame: who is told what, and which frames are looked over."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mirage_kernels.overview import (
    BELIEVED,
    LARGE,
    LARGE_WITH_DEPTH,
    OVERVIEW,
    REMEMBERED,
    TOLD,
    agreed,
    overview_size,
    remembered,
    told_by_overview,
)
from mirage_kernels.shade import BINS, SURFACE, WORDS
from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.network import TIERS, MirageNet, Overview, Planes, frame_lines, planes_to_cells
from mirage_plugin.model.sampling import look_over, remembering, sample
from mirage_plugin.styles.parameters import Style

SKY, SUN = 3, 12
RED, BLUE = torch.tensor([4.0, -4.0, -4.0]), torch.tensor([-4.0, -4.0, 4.0])


def words(rows: int, columns: int, *readings: tuple[Tensor, float]) -> Tensor:
    """Cells whose first readings, of equal shares, have these colours and say so much of the sun."""
    said = torch.zeros(1, rows, columns, WORDS)
    said[..., BINS * SURFACE :] = -20.0
    of_reading = said[..., : BINS * SURFACE].view(1, rows, columns, BINS, SURFACE)
    for b, (colour, sun) in enumerate(readings):
        of_reading[..., b, :3], of_reading[..., b, SUN] = colour, sun
        said[..., BINS * SURFACE + b] = 0.0
    return said


def suns(said: Tensor) -> Tensor:
    return said[..., : BINS * SURFACE].unflatten(-1, (BINS, SURFACE))[..., SUN]


def test_in_an_overview_readings_of_one_colour_agree() -> None:
    """A cell that sees something else in the same plain colour is outvoted, and nobody of another colour hears it."""
    seen = words(12, 16, (BLUE, -2.0), (RED, 2.0))
    seen[0, 6, 8, SUN] = 6.0
    told = suns(agreed(seen))
    assert float(told[0, 6, 8, 0]) < 0
    assert float(told[0, 6, 7, 0]) == pytest.approx(float(told[0, 6, 9, 0]))
    assert -2 < float(told[0, 6, 10, 0]) < -1.5
    assert torch.allclose(told[0, :, 15, 0], torch.tensor(-2.0), atol=0.01), "that is too far away to be heard"
    assert torch.allclose(told[..., 1], torch.tensor(2.0), atol=0.01)
    everyone = agreed(torch.randn(2, 5, 4, WORDS)[:1].expand(2, -1, -1, -1))
    assert torch.equal(everyone[0], everyone[1])


def test_a_reading_is_told_by_those_of_its_colour() -> None:
    fine = words(4, 4, (BLUE, 0.0), (RED, 0.0))
    told = suns(told_by_overview(fine, words(2, 2, (RED, 3.0), (BLUE, -3.0)), (0.5, 0.5)))
    assert torch.allclose(told[..., 0], torch.tensor(-3.0 * BELIEVED), atol=0.01)
    assert torch.allclose(told[..., 1], torch.tensor(3.0 * BELIEVED), atol=0.01)


def test_and_by_those_of_its_place() -> None:
    overview = words(1, 2, (RED, 0.0))
    overview[0, 0, 1, SUN] = 4.0
    told = suns(told_by_overview(words(1, 8, (RED, 0.0)), overview, (1.0, 0.25)))[0, 0, :, 0] / BELIEVED
    # The middles of the overview's cells are at 1.5 and 5.5: between them what it says goes over, beside them it stays.
    assert torch.allclose(told, torch.tensor([0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4]), atol=1e-4)


def test_the_rest_stays_the_readings_own_and_so_does_part_of_what_is_told() -> None:
    torch.manual_seed(0)
    fine, overview = torch.randn(2, 5, 7, WORDS), torch.randn(2, 3, 4, WORDS)
    told = told_by_overview(fine, overview, (0.6, 0.55))
    assert torch.equal(told_by_overview(fine, overview, (0.6, 0.55), believed=0.0), fine)
    mine, theirs = (x[..., : BINS * SURFACE].unflatten(-1, (BINS, SURFACE)) for x in (fine, told))
    same = (mine == theirs).flatten(0, -2).all(0)
    assert same.tolist() == [not TOLD[0] <= k < TOLD[1] for k in range(SURFACE)]
    assert torch.equal(fine[..., BINS * SURFACE :], told[..., BINS * SURFACE :])
    # Every frame is told by its own overview.
    alone = told_by_overview(fine[1:], overview[1:], (0.6, 0.55))
    assert torch.allclose(alone, told[1:], atol=1e-5)


def test_what_a_surface_was_is_heeded_where_its_cell_comes_from() -> None:
    """By readings of its colour, three times as much as what it says itself."""
    now, before = words(3, 6, (BLUE, 0.0), (RED, 0.0)), words(3, 6, (RED, -1.0), (BLUE, 1.0))
    before[0, :, 4, SURFACE + SUN] = 5.0  # of what is blue in one column
    motion = torch.zeros(1, 2, 3, 6)
    motion[0, 0, 0] = 1.0
    motion[0, 0, 1, 1], motion[0, 1, 1, 2], motion[0, 1, 2] = torch.nan, torch.inf, 1.0
    part = REMEMBERED / (1 + REMEMBERED)
    blue, red = suns(remembered(now, before, motion))[0, ..., :2].unbind(-1)
    expected = torch.tensor([[1, 1, 1, 5, 1, 0.0], [1, 0, 0, 1, 5, 1], [0, 0, 0, 0, 0, 0]]) * part
    assert torch.allclose(blue, expected, atol=0.01), "from beyond the frame, and from nowhere, comes nothing"
    assert torch.allclose(red, -expected.clamp_max(part), atol=0.01)
    # Half-way between two cells half of each; and every frame has its own before it.
    aside = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(2, 2, 3, 6)
    halves = remembered(now.expand(2, -1, -1, -1), torch.cat([before, now]), aside)
    assert torch.allclose(suns(halves)[0, 1, :, 0], torch.tensor([1, 1, 1, 3, 3, 1]) * part, atol=0.01)
    assert torch.allclose(suns(halves)[1], suns(now)[0], atol=1e-5)


def test_what_nothing_was_before_is_what_it_is() -> None:
    torch.manual_seed(1)
    now, before = torch.randn(2, 2, 4, 5, WORDS) * 3
    now[0, 0, 0, BINS * SURFACE :] = torch.tensor([0.0, 400.0, 0.0, 0.0])
    assert torch.allclose(remembered(now, before, torch.full((2, 2, 4, 5), torch.nan)), now, atol=1e-5)


@pytest.mark.parametrize("size", [(180, 320), (216, 384), (8 * LARGE[0], 8 * LARGE[1]), (1, 1)])
def test_small_frames_need_none(size: tuple[int, int]) -> None:
    assert overview_size(*size) is None


def test_with_depth_larger_ones_need_none() -> None:
    rows, columns = (8 * side for side in LARGE_WITH_DEPTH)
    assert overview_size(rows, columns, depth=True) is None
    assert overview_size(rows, columns) is not None
    assert overview_size(rows + 1, columns, depth=True) == overview_size(rows + 1, columns)


@pytest.mark.parametrize("size", [(360, 640), (1080, 1920), (1088, 1088), (240, 3840), (2160, 60), (8, 50_000)])
def test_an_overview_shows_the_whole_frame_on_few_cells(size: tuple[int, int]) -> None:
    few = overview_size(*size)
    assert few is not None
    assert 1 <= few[0] <= 8 * OVERVIEW[0]
    assert 1 <= few[1] <= 8 * OVERVIEW[1]
    assert few[0] == 8 * OVERVIEW[0] or few[1] == 8 * OVERVIEW[1]
    assert min(few) == 1 or few[0] / few[1] == pytest.approx(size[0] / size[1], rel=0.1)


@pytest.fixture(scope="module")
def net() -> MirageNet:
    torch.manual_seed(0)
    made = MirageNet(TIERS["nano"]).eval()
    made.begin_training()
    with torch.no_grad():
        for layer in (made.head_matrices, made.head_words, made.head_detail):
            layer.weight.normal_(0, 0.05)
    return made


@torch.inference_mode()
def test_a_large_frame_is_painted_by_what_its_overview_says(net: MirageNet) -> None:
    rng = torch.Generator().manual_seed(1)
    v = torch.rand(1, 3, 256, 512, generator=rng) * 2 - 1
    red = Style.make("red", {"sky": 1.0, "sky_top": (1, 0, 0), "sky_horizon": (1, 0, 0)})
    style = net.style(torch.from_numpy(red.vector())[None])
    depth, mask = torch.rand(1, 1, 256, 512, generator=rng) * 50, torch.rand(1, 3, 256, 512, generator=rng)
    found = look_over(net, v, Planes(mask=mask), style)
    assert found is not None
    assert found.words is not None
    assert found.words.shape == (1, 20, 40, WORDS)
    assert found.scale == (160 / 256, 320 / 512)
    blind = look_over(net, v, Planes(), style)
    assert blind is not None
    assert blind.words is not None
    assert not torch.equal(found.words, blind.words), "it sees the mask"
    assert look_over(net, v, Planes(depth=depth, mask=mask), style) is None, "of such a frame depth tells enough"
    v2, depth2 = v.repeat(1, 1, 2, 1), depth.repeat(1, 1, 2, 1)
    deep, flat = (look_over(net, v2, Planes(depth=d), style) for d in (depth2, depth2 * 0 + 1))
    assert deep is not None
    assert flat is not None
    assert not torch.equal(deep.words, flat.words), "it sees depth"
    assert torch.equal(deep.words, deep.kept), "and need not agree with itself"
    small = v[..., :216, :384]
    its_own = look_over(net, small, Planes(), style)
    assert its_own is not None
    assert its_own.words is its_own.kept is None, "its own readings agree"
    said = torch.zeros(1, 27, 48, WORDS)
    assert remembering(its_own, said).kept is said
    assert remembering(found, said) is found
    motion = torch.zeros(1, 2, 216, 384)
    motion[:, 0] = 12.0
    heeding = look_over(net, small, Planes(motion=motion), style, remembering(its_own, said))
    assert heeding.kept is said
    assert torch.equal(heeding.came, torch.tensor([1.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 27, 48))

    memory = MemoryState(torch.zeros(1, 16, 32, 48), torch.zeros(1, 16, 32, 1))
    given = (
        v, torch.randn(1, 1, 128, 256, generator=rng), planes_to_cells(Planes(), 1, 32, 64, v), memory, style,
        torch.ones(1), frame_lines(v, None, None, style),
    )  # fmt: skip
    own, _, state, _ = sample(net, *given)
    told, _, same, _ = sample(net, *given, overview=found)
    skies = found.words.clone()
    skies[..., : BINS * SURFACE].unflatten(-1, (BINS, SURFACE))[..., SKY] = 30.0
    sky, *_ = sample(net, *given, overview=Overview(skies, found.scale))
    assert not torch.equal(own, told)
    assert float(sky[:, 0].mean()) > 0.3 > float(told[:, 0].mean()), "all is painted as the style's red sky is"
    assert torch.equal(state, same), "what is remembered is what the frame itself said"

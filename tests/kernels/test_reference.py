"""The references define only as long as they are the model: each against `mirage_plugin.model`."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

import mirage_kernels as kernels
from mirage_kernels.lines import spread_lines
from mirage_kernels.overview import BELIEVED, LIKE, TOLD
from mirage_kernels.shade import BINS, SURFACE
from mirage_plugin.model import noise as model_noise
from mirage_plugin.model.memory import Memory, MemoryState, dequantise, quantise, warp_state
from mirage_plugin.model.network import (
    CODE_SIZE,
    SIGMA,
    TIERS,
    Edit,
    MirageNet,
    Planes,
    compose,
    doubted_lines,
    frame_lines,
    noise_to_cells,
    pixelate,
    pixels_to_cells,
    planes_to_cells,
)
from mirage_plugin.styles.parameters import PARAMETERS, VECTOR_SIZE
from tests.kernels.measure import assert_close, layout_of, random_edit, random_frame

EXACT = 2e-6


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(torch.initial_seed() % 2**31)


@pytest.fixture(scope="module")
def net() -> MirageNet:
    net = MirageNet(TIERS["nano"]).eval().requires_grad_(False)
    for layer in (net.head_matrices, net.head_words, net.head_detail):
        layer.weight.normal_(0, 0.1)
        layer.bias.normal_(0, 0.1)
    return net


def lift(noise: Tensor) -> Tensor:
    return noise.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_sizes_are_the_tiers() -> None:
    assert set(kernels.SIZES) == set(TIERS)
    for name, tier in TIERS.items():
        ours = kernels.SIZES[name]
        assert (ours.widths, ours.depths, ours.state, ours.condition, ours.expand) == (
            tier.widths, tier.depths, tier.state, tier.condition, tier.expand
        )  # fmt: skip


def test_random_parameters_have_the_model_s_names_and_shapes() -> None:
    theirs = {k: v.shape for k, v in MirageNet(TIERS["nano"]).state_dict().items()}
    ours = {k: v.shape for k, v in kernels.random_parameters(kernels.SIZES["nano"]).items()}
    # Style and noise level make the condition, which is the model's own business.
    assert ours == {k: v for k, v in theirs.items() if not k.startswith(("style_encoder", "level"))}


@pytest.mark.parametrize("name", kernels.FORMATS)
@pytest.mark.parametrize("flipped", [False, True])
def test_pixels_is_the_stem(name: kernels.PixelFormat, flipped: bool, net: MirageNet, draw: torch.Generator) -> None:
    layout = layout_of(name, 64, 32, flipped=flipped)
    frames = random_frame(layout, 2, draw)
    noise = torch.randn(2, 1, 32, 16, generator=draw)
    depth = torch.rand(2, 1, 64, 32, generator=draw) * 90
    motion = torch.randn(2, 2, 64, 32, generator=draw) * 200
    mask = torch.rand(2, 3, 64, 32, generator=draw)
    depth[0, 0, :3] = torch.nan
    motion[1, :, 5] = torch.inf
    motion[1, 0, 9] = torch.nan
    weights = kernels.prepare(net.state_dict(), torch.float32).stem(layout, SIGMA)

    v = kernels.unit_rgb(kernels.unpack_frame(frames, layout), layout).permute(0, 3, 1, 2) * 2 - 1
    source = pixels_to_cells(v)
    for planes in (Planes(), Planes(depth), Planes(depth, motion, mask)):
        cells = planes_to_cells(planes, 2, 8, 4, source)
        noisy = pixels_to_cells(v + SIGMA * lift(noise))
        expected = net.stem_source(source) + net.stem_noisy(noisy) + net.stem_planes(cells)
        found = kernels.pixels(
            frames, layout, weights, noise=noise, depth=planes.depth, motion=planes.motion, mask=planes.mask
        )
        assert_close(found, expected, EXACT, name)
    # A later step: y_k from a previous answer, each frame at its own level.
    answer = torch.rand(2, 8, 4, 192, generator=draw) * 2 - 1
    k = torch.tensor([0.75, 0.25])
    noisy = kernels.solver_step(answer, source, noise, k, SIGMA)
    expected = net.stem_source(source) + net.stem_noisy(noisy)
    found = kernels.pixels(frames, layout, weights, noise=noise, answer=answer, k=k)
    assert_close(found, expected, EXACT, f"{name} step")


@pytest.mark.parametrize("name", kernels.FORMATS)
@pytest.mark.parametrize("flipped", [False, True])
def test_some_pixels_of_a_frame_are_those_of_all(
    name: kernels.PixelFormat, flipped: bool, draw: torch.Generator
) -> None:
    layout = layout_of(name, 20, 37, flipped=flipped)
    frames = random_frame(layout, 2, draw)
    rows, columns = torch.tensor([0, 3, 3, 19]), torch.tensor([36, 0, 5])
    every = kernels.unpack_frame(frames, layout)
    found = kernels.unpack_frame(frames, layout, rows, columns)
    assert torch.equal(found.nan_to_num(), every[:, rows][:, :, columns].nan_to_num())


def test_noise_cells_are_the_model_s(draw: torch.Generator) -> None:
    from mirage_kernels.pixels import _cells

    noise = torch.randn(2, 1, 12, 20, generator=draw)
    assert torch.equal(_cells(noise, 4), noise_to_cells(noise))


def test_cells_beyond_the_frame_repeat_its_edge(net: MirageNet, draw: torch.Generator) -> None:
    layout = layout_of("rgba8", 20, 37)
    frames = random_frame(layout, 1, draw)
    weights = kernels.prepare(net.state_dict(), torch.float32).stem(layout, SIGMA)
    raw = kernels.unpack_frame(frames, layout)
    y, x = torch.arange(32).clamp_max(19), torch.arange(64).clamp_max(36)
    full = kernels.FrameLayout("rgba8", 32, 64, 256)
    padded = kernels.pack_frame(raw[:, y][:, :, x], full, torch.zeros(1, full.size_bytes, dtype=torch.uint8))
    assert_close(kernels.pixels(frames, layout, weights), kernels.pixels(padded, full, weights), EXACT)


@pytest.mark.parametrize(("factor", "size"), [(2, (64, 128)), (3, (96, 96))])
def test_a_whole_factor_is_the_mean(factor: int, size: tuple[int, int], net: MirageNet, draw: torch.Generator) -> None:
    layout = layout_of("bgra8", *size)
    frames = random_frame(layout, 1, draw)
    weights = kernels.prepare(net.state_dict(), torch.float32).stem(layout, SIGMA)
    v = kernels.unit_rgb(kernels.unpack_frame(frames, layout), layout).permute(0, 3, 1, 2) * 2 - 1
    small = pixels_to_cells(torch.nn.functional.avg_pool2d(v, factor))
    expected = net.stem_source(small) + net.stem_noisy(small)
    found = kernels.pixels(frames, layout, weights, rows=size[0] // factor, columns=size[1] // factor)
    assert_close(found, expected, 1e-5)


def test_forward_is_the_network(net: MirageNet, draw: torch.Generator) -> None:
    weights = kernels.prepare(net.state_dict(), torch.float32)
    stem = torch.randn(2, 8, 4, 64, generator=draw)
    state = torch.rand(2, 4, 2, 48, generator=draw) * 2 - 1
    valid = torch.rand(2, 4, 2, 1, generator=draw)
    condition = torch.randn(2, net.tier.condition, generator=draw)
    film = kernels.film_of(weights, condition)
    style, noise = (
        net.style(torch.rand(2, VECTOR_SIZE, generator=draw) * 2 - 1),
        torch.randn(2, 1, 32, 16, generator=draw),
    )
    natural = style[:, CODE_SIZE:].contiguous()
    there = torch.rand(2, 8, 4, 2, generator=draw)
    there[1] = -1.0
    conditioned = net.conditioned(condition, style)
    expected, words, expected_state = net.from_stem(stem, MemoryState(state, valid), conditioned, noise, there)
    assert words.std() > 0.1
    edit, written = kernels.forward(weights, stem, state, valid, film, natural, noise, there, packed_state=False)
    for name, part in zip(expected._fields, kernels.split_edit(edit), strict=True):
        assert_close(part, getattr(expected, name), EXACT, name)
    assert_close(written, expected_state, EXACT, "state")
    _, stored = kernels.forward(weights, stem, state, valid, film, natural, noise, there)
    # A value on the border of two steps may fall to either side.
    assert (stored.int() - quantise(expected_state).int()).abs().max() <= 1


@pytest.mark.parametrize("size", [(32, 64), (48, 96), (16, 32), (33, 65)])
def test_compose_is_the_model_s(size: tuple[int, int], draw: torch.Generator) -> None:
    n, (height, width) = 2, size
    edit = Edit(*kernels.split_edit(random_edit(draw, n, 4, 8)))
    layout = kernels.FrameLayout("rgba16f", height, width, width * 8)
    frames = torch.rand(n, height * width * 4, generator=draw).half().view(torch.uint8)
    v = kernels.unpack_frame(frames, layout)[..., :3].permute(0, 3, 1, 2) * 2 - 1
    # Colours of ink and light are a frame's, not a cell's.
    edit.pens[..., 2:] = edit.pens[:, :1, :1, 2:]
    lines = torch.rand(n, 2, 16, 32, generator=draw)
    for drawn, spread in ((None, None), (lines, spread_lines(lines, height, width))):
        expected = ((compose(v, edit, spread).clamp(-1, 1) + 1) / 2).half()
        args = (frames, layout, kernels.pack_edit(*edit), torch.ones(n))
        found = kernels.compose(*args, rows=32, columns=64, lines=drawn)
        found = kernels.unpack_frame(found, layout)[..., :3].permute(0, 3, 1, 2).half()
        # A half float's own step.
        assert (found - expected).abs().max() <= 2**-10


def test_what_is_painted_on_a_colour_stays_on_it() -> None:
    # Black beside white, the border inside of cells: of two readings, one is of either, and one of them is painted.
    layout = kernels.FrameLayout("rgba8", 32, 32, 128)
    image = torch.zeros(1, 32, 32, 4, dtype=torch.uint8)
    image[:, :, 13:] = 255
    matrices, anchors = torch.zeros(1, 4, 4, 4, 12), torch.zeros(1, 4, 4, 4, 4)
    matrices[..., 0, 3::4] = 0.5  # what is black becomes lighter
    anchors[..., 0, :3], anchors[..., 1, :3] = -1.0, 1.0
    anchors[..., :2, 3] = 0.5
    nothing = torch.zeros(1, 4, 4, 192)
    edit = kernels.pack_edit(matrices.flatten(-2), nothing, anchors.flatten(-2), nothing[..., :8])
    found = kernels.compose(image.view(1, -1), layout, edit, torch.ones(1)).view(32, 32, 4)[..., :3]
    # |v - a|^2 = 12 counts 1 / (1 + 12 / SIMILAR)^2 of what 0 counts.
    leak = 1 / (1 + 12 / kernels.SIMILAR) ** 2
    assert found[:, :13].unique().tolist() == [round(0.25 * 255 / (1 + leak))]
    assert found[:, 13:].unique().tolist() == [255]
    # A colour between the two has some of both.
    image[:] = 128
    between = kernels.compose(image.view(1, -1), layout, edit, torch.ones(1)).view(32, 32, 4)[..., :3]
    assert abs(int(between.unique().item()) - (128 + 32)) <= 1


@pytest.mark.parametrize("size", [(32, 64), (33, 67), (3, 2)])
def test_square_pixels_are_the_model_s(size: tuple[int, int], draw: torch.Generator) -> None:
    layout = kernels.FrameLayout("rgba16f", *size, size[1] * 8)
    frames = torch.rand(2, size[0] * size[1] * 4, generator=draw).half().view(torch.uint8)
    v = kernels.unpack_frame(frames, layout)[..., :3].permute(0, 3, 1, 2) * 2 - 1
    amount = torch.tensor([0.3, 1.0])
    expected = (pixelate(v, amount) + 1) / 2
    found = kernels.unpack_frame(kernels.pixelate(frames, layout, amount), layout)[..., :3].permute(0, 3, 1, 2)
    assert (found - expected).abs().max() <= 2**-10
    if size == (32, 64):
        blocks = found[1].view(3, 8, 4, 16, 4)
        assert torch.equal(blocks, blocks[:, :, :1, :, :1].expand_as(blocks))


@pytest.mark.parametrize(("height", "side"), [(1, 4), (360, 4), (720, 4), (1080, 8), (1440, 8), (2160, 12)])
def test_square_pixels_are_four_of_those_of_lines(height: int, side: int) -> None:
    assert kernels.block_side(height) == side == 4 * round(height / kernels.line_points(height, 9)[0] or 1)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_broken_anchor_spoils_no_more_than_its_cell(value: float, draw: torch.Generator) -> None:
    layout = kernels.FrameLayout("rgba8", 32, 64, 256)
    frames, edit = random_frame(layout, 1, draw), random_edit(draw, 1, 4, 8)
    sound = kernels.compose(frames, layout, edit, torch.ones(1)).view(32, 64, 4)
    edit[0, 0, 0, 241] = value
    found = kernels.compose(frames, layout, edit, torch.ones(1)).view(32, 64, 4)
    assert torch.equal(found[12:], sound[12:])
    assert torch.equal(found[:, 12:], sound[:, 12:])
    if value != value:
        assert torch.equal(found[:11, :11], frames.view(32, 64, 4)[:11, :11])


def test_an_edit_and_its_parts(draw: torch.Generator) -> None:
    parts = [torch.randn(1, 3, 5, size, generator=draw) for size in (48, 192, 16, 8)]
    for ours, theirs in zip(kernels.split_edit(kernels.pack_edit(*parts)), parts, strict=True):
        assert torch.equal(ours, theirs)


def test_what_the_head_says_and_its_parts(draw: torch.Generator) -> None:
    parts = [torch.randn(2, 3, 5, size, generator=draw) for size in (48, 192, kernels.WORDS)]
    head = kernels.pack_head(*parts)
    assert head.shape == (2, 3, 5, kernels.HEAD_CHANNELS)
    for ours, theirs in zip(kernels.split_head(head), parts, strict=True):
        assert torch.equal(ours, theirs)


def test_shade_is_its_reference(draw: torch.Generator) -> None:
    parts = [torch.randn(2, 4, 8, size, generator=draw) for size in (48, 192, kernels.WORDS)]
    noise = torch.randn(2, 1, 16, 32, generator=draw)
    there = torch.rand(2, 4, 8, 2, generator=draw)
    there[0] = -1.0
    style = torch.rand(2, kernels.STYLE_NUMBERS, generator=draw) + 0.5
    edit = kernels.shade(kernels.pack_head(*parts), noise, there, style)
    matrices, detail, words = parts
    expected = kernels.shade_reference(words, detail, matrices, noise, there, style)
    for ours, theirs in zip(kernels.split_edit(edit), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("working", "size"),
    [
        ((224, 384), None), ((1, 1), None), ((384, 640), (192, 320)), ((1080, 1920), (180, 320)),
        ((1088, 1920), (181, 320)), ((225, 384), (188, 320)), ((100, 3000), (11, 320)), ((9000, 9), (192, 1)),
    ],
)  # fmt: skip
def test_large_frames_have_an_overview_on_few_cells(working: tuple[int, int], size: tuple[int, int] | None) -> None:
    assert kernels.overview_size(*working) == size


def readings(words: Tensor) -> Tensor:
    """The readings in words [N, h, w, WORDS], to be written to: [N, h, w, BINS, SURFACE]."""
    return words[..., : BINS * SURFACE].unflatten(-1, (BINS, SURFACE))


def test_an_overview_tells_what_surfaces_are_and_not_how_they_look(draw: torch.Generator) -> None:
    words = torch.randn(2, 3, 5, kernels.WORDS, generator=draw)
    seen = torch.randn(2, 2, 2, kernels.WORDS, generator=draw)
    said = torch.randn(2, 1, 1, 1, TOLD[1] - TOLD[0], generator=draw)
    readings(seen)[..., TOLD[0] : TOLD[1]] = said  # all the same, whatever their colours and shares
    expected = words.clone()
    readings(expected)[..., TOLD[0] : TOLD[1]] *= 1 - BELIEVED
    readings(expected)[..., TOLD[0] : TOLD[1]] += BELIEVED * said
    assert_close(kernels.told_by_overview(words, seen, (0.6, 0.4)), expected, EXACT)


def told(words: Tensor, seen: Tensor, scale: tuple[float, float]) -> Tensor:
    """What the overview says to the readings of cells that say 0 themselves: [h, w, BINS]."""
    found = readings(kernels.told_by_overview(words, seen, scale))[0, ..., TOLD[0] : TOLD[1]] / BELIEVED
    assert torch.equal(found, found[..., :1].expand_as(found))
    return found[..., 0]


def test_an_overview_tells_readings_of_its_place() -> None:
    words, seen = torch.zeros(1, 2, 4, kernels.WORDS), torch.zeros(1, 1, 2, kernels.WORDS)
    readings(seen)[0, 0, 1, :, TOLD[0] : TOLD[1]] = 1.0
    # Half as many cells: the middle of the second lies a quarter of the way from one of the overview's to the next.
    assert torch.allclose(told(words, seen, (0.5, 0.5)), torch.tensor([0, 0.25, 0.75, 1]).view(4, 1).expand(2, 4, 4))


def test_an_overview_tells_readings_of_its_colour_by_their_shares() -> None:
    words, seen = torch.zeros(1, 1, 1, kernels.WORDS), torch.zeros(1, 1, 1, kernels.WORDS)
    readings(words)[..., 1, :3], readings(words)[..., 2:, :3] = 20.0, -20.0  # grey, white and twice black
    readings(seen)[..., 0, :3], readings(seen)[..., 1, :3] = 20.0, -20.0  # white and black
    seen[..., BINS * SURFACE :] = torch.tensor([3.0, 1.0, 0.0, 0.0]).log()  # three parts and one, and no more
    readings(seen)[..., 0, TOLD[0] : TOLD[1]] = 1.0
    leak = 1 / (1 + 12 / LIKE) ** 2
    white, black = 3 / (3 + leak), 3 * leak / (1 + 3 * leak)
    assert torch.allclose(told(words, seen, (1.0, 1.0)), torch.tensor([0.75, white, black, black]))


def test_overview_is_its_reference_and_comes_before_shade(draw: torch.Generator) -> None:
    weights = kernels.prepare(kernels.random_parameters(kernels.SIZES["nano"]), torch.float32)
    stem, film = torch.randn(2, 8, 4, 64, generator=draw), kernels.film_of(weights, torch.randn(2, 128, generator=draw))
    state, valid = torch.zeros(2, 4, 2, 48), torch.zeros(2, 4, 2, 1)
    coarse, scale = torch.randn(2, 3, 2, kernels.HEAD_CHANNELS, generator=draw), (3 / 8, 0.45)
    head, written = kernels.look(weights, stem, state, valid, film)
    matrices, detail, words = kernels.split_head(head)
    expected = kernels.told_by_overview(words, kernels.split_head(coarse)[2], scale)
    found = head.clone()
    assert kernels.overview(found, coarse, scale) is found
    for ours, theirs in zip(kernels.split_head(found), (matrices, detail, expected), strict=True):
        assert torch.equal(ours, theirs)
    rest = torch.rand(2, kernels.STYLE_NUMBERS, generator=draw), torch.zeros(2, 1, 32, 16), torch.rand(2, 8, 4, 2)
    hear = functools.partial(kernels.overview, coarse=coarse, scale=scale)
    edit, stored = kernels.forward(weights, stem, state, valid, film, *rest, hear=hear)
    assert torch.equal(edit, kernels.shade(found, rest[1], rest[2], rest[0]))
    assert torch.equal(stored, written)


def test_lines_are_the_model_s(draw: torch.Generator) -> None:
    depth = 8 + torch.randn(2, 1, 64, 32, generator=draw).cumsum(-1).clamp_min(-7)
    depth[0, 0, :3] = torch.nan
    v = torch.rand(2, 3, 64, 32, generator=draw) * 2 - 1
    style = torch.rand(2, kernels.STYLE_NUMBERS, generator=draw)
    width = style[:, kernels.style_offset("ink_width")].contiguous()
    cells = planes_to_cells(Planes(depth), 2, 8, 4, depth)
    cells[1] = 0.0  # a frame without depth beside one that has it
    lines = frame_lines(v, depth, cells[:, 0, 0, 16], style)
    ours = kernels.trace_lines(kernels.depth_lines(depth), width)
    assert_close(lines[0], ours[0].float(), 1e-3)
    parted = kernels.colour_lines_of((v + 1) / 2)
    assert_close(lines[1:], kernels.trace_lines(parted, width)[1:].float(), 1e-3)
    assert lines.std() > 0.1
    there = doubted_lines(pixels_to_cells(v), cells, style)
    assert (there[0] == -1).all()
    assert_close(there[1:], kernels.line_shares(kernels.trace_lines(parted, width)[1:].float()), 1e-3)


@pytest.mark.parametrize(
    ("size", "points"),
    [((360, 640), (360, 640)), ((720, 1280), (720, 1280)), ((1080, 1920), (540, 960)), ((2160, 3840), (720, 1280)),
     ((1, 1), (1, 1)), ((721, 3), (721, 3))],
)  # fmt: skip
def test_lines_are_a_pixel_wide_or_a_few(size: tuple[int, int], points: tuple[int, int]) -> None:
    assert kernels.line_points(*size) == points
    middle = kernels.middles(points[0], size[0])
    assert middle[0] == size[0] // points[0] // 2
    assert middle[-1] < size[0]
    assert (middle.diff() > 0).all()


@pytest.mark.parametrize("working", [(32, 64), (16, 32), (30, 45)])
def test_colours_part_where_the_working_frame_s_do(working: tuple[int, int], draw: torch.Generator) -> None:
    layout = layout_of("rgb10a2", 32, 64, flipped=True)
    frames = random_frame(layout, 2, draw)
    (rows, columns), (h, w) = working, kernels.grid_size(*working)
    unit = kernels.unit_rgb(kernels.unpack_frame(frames, layout), layout).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(unit, working, mode="nearest-exact")
    small = torch.nn.functional.pad(small, (0, 8 * w - columns, 0, 8 * h - rows), mode="replicate")
    found = kernels.colour_lines(frames, layout, rows=rows, columns=columns)
    assert torch.equal(found, kernels.colour_lines_of(small))
    assert found.max() <= 1
    assert found.min() >= 0


def test_colours_part_at_edges_and_not_in_fine_noise(draw: torch.Generator) -> None:
    picture = 0.4 + 0.02 * torch.randn(1, 3, 64, 64, generator=draw)
    assert (kernels.colour_lines_of(picture) == 0).float().mean() > 0.95
    picture[..., 32:] += 0.3
    found = kernels.colour_lines_of(picture)[0, 0]
    assert (found[:, 31:33].amax(1) > 0.7).all()
    assert torch.cat([found[:, :31], found[:, 34:]], 1).mean() < 0.02


@pytest.mark.parametrize("turned", [False, True])
def test_where_colours_part_the_line_is_a_pixel_wide(turned: bool) -> None:
    picture = torch.full((1, 3, 40, 40), 51 / 255)
    picture[..., 20:] = 230 / 255  # sharp
    picture[:, :, :, 10:13] += torch.tensor([40, 80, 120]) / 255  # and soft
    picture[..., 13:20] = 171 / 255
    found = kernels.colour_lines_of(picture.transpose(2, 3) if turned else picture)[0, 0]
    found = found.T if turned else found
    # On the far side of a sharp edge, in the middle of a soft one; not at the picture's own.
    assert (found > 0).nonzero()[:, 1].unique().tolist() == [11, 20]
    assert (found[1:-1, [11, 20]] == found[1:2, [11, 20]]).all()


def test_a_style_has_the_numbers_that_shade_reads() -> None:
    assert kernels.STYLE_NUMBERS == sum(size for _, size in kernels.STYLE_LAYOUT) == VECTOR_SIZE
    assert [name for name, _ in kernels.STYLE_LAYOUT] == [parameter.name for parameter in PARAMETERS]


def test_memory_is_the_model_s(draw: torch.Generator) -> None:
    memory = Memory(64, 48).requires_grad_(False)
    layers = (memory.trust, memory.into, memory.keep, memory.candidate)
    weights = kernels.pack_memory(*(p for layer in layers for p in (layer.weight, layer.bias)), dtype=torch.float32)
    stored = torch.randint(-127, 128, (2, 5, 7, 48), generator=draw).to(torch.int8)
    motion = torch.randn(2, 2, 5, 7, generator=draw) * 40
    motion[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    visible = torch.rand(2, 1, 5, 7, generator=draw)
    expected = warp_state(dequantise(stored), motion, visible)
    state, valid = kernels.warp_state(stored, motion, visible)
    assert_close(state, expected.state, 2e-5, "warp")
    assert torch.equal(valid, expected.valid)
    features = torch.randn(2, 5, 7, 64, generator=draw)
    assert_close(
        kernels.memory_read(features, state, valid, weights),
        memory.read(features, MemoryState(state, valid)),
        EXACT,
    )
    written = kernels.memory_write(features, state, valid, weights, packed=False)
    assert_close(written, memory.write(features, MemoryState(state, valid)), EXACT, "write")
    assert torch.equal(kernels.pack_state(written), quantise(written))
    assert torch.equal(kernels.unpack_state(stored), dequantise(stored))


def test_noise_is_the_model_s(draw: torch.Generator) -> None:
    seed, frame = torch.tensor([0, 2**62 + 11, 5]), torch.tensor([0, 7, 2**40])
    ours = kernels.fresh_noise(seed, frame, 9, 13)
    assert torch.equal(ours, model_noise.fresh_noise(seed, frame, 9, 13))
    old = torch.randn(3, 1, 9, 13, generator=draw)
    motion = torch.randn(3, 2, 9, 13, generator=draw) * 4
    motion[1] = motion[1].round()  # ties
    motion[0, 0, 0, :4] = torch.tensor([torch.nan, torch.inf, 1e30, -1e30])
    visible = torch.rand(3, 1, 9, 13, generator=draw) > 0.3
    expected = model_noise.advect_noise(old, motion, visible, ours)
    assert torch.equal(kernels.advect_noise(old, motion, visible, seed, frame), expected)


def test_statistics_of_nothing_finite() -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, torch.nan]).view(1, 2, 2)
    expected = torch.tensor([0, 0, torch.inf, -torch.inf, 2, 2])
    assert torch.equal(kernels.drift_statistics(x)[0, 0], expected)


def test_statistics_against_torch(draw: torch.Generator) -> None:
    x = torch.randn(2, 5, 7, 12, generator=draw)
    found = kernels.drift_statistics(x, 3)
    groups = x.view(2, 35, 3, 4)
    assert_close(found[..., 0], groups.mean((1, 3)), 1e-5)
    assert_close(found[..., 1], groups.square().mean((1, 3)), 1e-5)
    assert torch.equal(found[..., 2], groups.amin((1, 3)))
    assert torch.equal(found[..., 3], groups.amax((1, 3)))
    assert not found[..., 4:].any()


@pytest.mark.parametrize("name", kernels.FORMATS)
@pytest.mark.parametrize("linear", [False, True])
def test_an_edit_of_zero_or_nan_gives_back_the_bytes(
    name: kernels.PixelFormat, linear: bool, draw: torch.Generator
) -> None:
    layout = layout_of(name, 9, 17, linear=linear, flipped=True)
    frames = random_frame(layout, 1, draw)
    for value in (0.0, torch.nan):
        edit = random_edit(draw, 1, 4, 4)
        edit[..., :240] = value
        out = kernels.compose(frames, layout, edit, torch.ones(1), dither=torch.tensor([5]))
        raw = kernels.unpack_frame(frames, layout)
        raw[..., :3] = torch.nan_to_num(raw[..., :3], nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        assert torch.equal(
            torch.nan_to_num(kernels.unpack_frame(out, layout), nan=-9.0), torch.nan_to_num(raw, nan=-9.0)
        )


def test_dither_keeps_the_mean(draw: torch.Generator) -> None:
    layout = kernels.FrameLayout("rgba8", 64, 64, 256)
    frames = torch.full((1, layout.size_bytes), 100, dtype=torch.uint8)
    edit = random_edit(draw, 1, 8, 8)
    edit[..., :48], edit[..., 48:240] = 0.0, 0.3 / 127.5
    args = (frames, layout, edit, torch.ones(1))
    plain = kernels.compose(*args)
    assert torch.equal(plain, frames)
    dithered = kernels.compose(*args, dither=torch.tensor([1]))
    colours = kernels.unpack_frame(dithered, layout)[..., :3]
    assert set(colours.unique().tolist()) == {100.0, 101.0}
    assert abs(float(colours.mean()) - 100.3) < 0.02


def test_the_late_answer_takes_the_edit_from_where_it_was(draw: torch.Generator) -> None:
    layout = kernels.FrameLayout("rgba16f", 64, 64, 512)
    frames = torch.full((1, layout.size_bytes // 2), 0.5).half().view(torch.uint8)
    edit = random_edit(draw, 1, 8, 8)
    edit[..., :48], edit[..., 48:240] = 0.0, torch.rand(1, 8, 8, 192, generator=draw) * 0.5
    args = (frames, layout, edit, torch.ones(1))
    now = kernels.unpack_frame(kernels.compose(*args), layout)
    motion, visible = torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)
    motion[:, 0] = 3.0
    late = kernels.unpack_frame(kernels.compose(*args, motion=motion, visible=visible), layout)
    assert torch.equal(late[:, :, :61], now[:, :, 3:])
    # What comes from beyond the frame, was hidden, or is unknown keeps the colour transforms alone: here
    # none.
    assert (late[:, :, 61:, :3] == 0.5).all()
    visible[:, :, 4:] = 0
    motion[:, :, 0] = torch.nan
    late = kernels.unpack_frame(kernels.compose(*args, motion=motion, visible=visible), layout)
    assert (late[:, 32:, :, :3] == 0.5).all()
    assert (late[:, :8, :, :3] == 0.5).all()
    assert torch.equal(late[:, 8:32, :61], now[:, 8:32, 3:])

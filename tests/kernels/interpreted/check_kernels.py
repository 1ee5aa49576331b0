"""Each kernel against its reference under Triton's interpreter; run by `test_under_interpreter.py`.

bf16 is silently wrong in the interpreter, so kernels are held to their references in fp16 and fp32 here, and
in bf16 on a GPU by `benchmarks/kernels.py`.
"""

from __future__ import annotations

import importlib
import os
import zlib
from typing import Any

import pytest
import torch
from torch import Tensor

import mirage_kernels as kernels
from mirage_kernels.linear import Mode
from tests.kernels.measure import TOLERANCE, assert_close, error, layout_of, poisoned, random_edit, random_frame, side

# A sigmoid far out on its tail overflows in exp and is 0, which is right; numpy says so, a GPU does not.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")

HALVES = (torch.float16, torch.float32)


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> torch.Generator:
    """What a test draws from: the same in every run, unless MIRAGE_TEST_SEED, a number, asks for another."""
    seed = zlib.crc32(f"{os.environ.get('MIRAGE_TEST_SEED', 0)} {request.node.name}".encode())
    print("seed", seed)
    return torch.Generator().manual_seed(seed)


def both(run: Any) -> tuple[Tensor, Tensor]:
    """(what the kernel says with poisoned outputs, what the reference says)."""
    with side("reference"):
        expected = run()
    with side("triton"), poisoned():
        actual = run()
    return actual, expected


def parameters(c: int, draw: torch.Generator, dtype: torch.dtype, hidden: int = 128) -> kernels.BlockWeights:
    shapes = ((c, 1, 5, 5), (c,), (hidden, c), (hidden,), (c, hidden), (c,))
    return kernels.pack_block(*(torch.randn(shape, generator=draw) * 0.2 for shape in shapes), dtype=dtype)


# --- pixels
# ---------------------------------------------------------------------------------------------------


def stem(layout: kernels.FrameLayout, draw: torch.Generator, dtype: torch.dtype) -> kernels.StemWeights:
    shapes = ((64, 192), (64, 192), (64, 32), (64,))
    source, noisy, planes, bias = (torch.randn(shape, generator=draw) * 0.1 for shape in shapes)
    return kernels.fold_stem(source, noisy, planes, bias, layout=layout, sigma=0.25, dtype=dtype)


@pytest.mark.parametrize("name", kernels.FORMATS)
@pytest.mark.parametrize("linear", [False, True])
def test_pixels_of_every_format(name: kernels.PixelFormat, linear: bool, draw: torch.Generator) -> None:
    dtype = torch.float16 if linear else torch.float32
    layout = layout_of(name, 13, 37, linear=linear, flipped=linear)
    frames, weights = random_frame(layout, 1, draw), stem(layout, draw, dtype)
    actual, expected = both(lambda: kernels.pixels(frames, layout, weights))
    assert_close(actual, expected, TOLERANCE[dtype], f"pixels {name}")


@pytest.mark.parametrize(("name", "size", "working"), [("rgba16f", (9, 40), (6, 40)), ("rgb10a2", (16, 24), (8, 8))])
def test_pixels_on_fewer_cells(
    name: kernels.PixelFormat, size: tuple[int, int], working: tuple[int, int], draw: torch.Generator
) -> None:
    layout = layout_of(name, *size, linear=name == "rgba16f")
    frames, weights = random_frame(layout, 1, draw), stem(layout, draw, torch.float32)
    rows, columns = working
    actual, expected = both(lambda: kernels.pixels(frames, layout, weights, rows=rows, columns=columns))
    assert_close(actual, expected, TOLERANCE[torch.float32], f"pixels {name} to {rows}x{columns}")


@pytest.mark.parametrize("dtype", HALVES)
def test_pixels_with_everything(dtype: torch.dtype, draw: torch.Generator) -> None:
    layout = layout_of("bgra8", 33, 9)
    frames, weights = random_frame(layout, 2, draw), stem(layout, draw, dtype)
    depth = torch.rand(2, 1, 33, 9, generator=draw) * 50
    motion = torch.randn(2, 2, 33, 9, generator=draw) * 300
    depth[0, 0, 1] = torch.nan
    depth[0, 0, 2] = -torch.inf
    motion[0, 0, 3] = torch.nan
    motion[0, 1, 4] = -torch.inf
    noise = torch.randn(2, 1, 32, 16, generator=draw)
    planes = {"depth": depth, "motion": motion, "mask": torch.rand(2, 3, 33, 9, generator=draw).half()}
    answer = {
        "answer": torch.randn(2, 8, 4, 192, generator=draw).to(dtype),
        "k": torch.rand(2, generator=draw),
    }
    for optional in ({"depth": depth}, planes, planes | answer):
        actual, expected = both(lambda o=optional: kernels.pixels(frames, layout, weights, noise=noise, **o))
        assert_close(actual, expected, TOLERANCE[dtype], f"pixels {sorted(optional)}")
        assert actual.isfinite().all()


def test_pixels_of_a_wide_row(draw: torch.Generator) -> None:
    layout = layout_of("rgb8", 5, 1023)
    frames, weights = random_frame(layout, 1, draw), stem(layout, draw, torch.float32)
    actual, expected = both(lambda: kernels.pixels(frames, layout, weights))
    assert_close(actual, expected, TOLERANCE[torch.float32], "pixels 1023 wide")


def stem_of(layout: kernels.FrameLayout) -> kernels.StemWeights:
    return stem(layout, torch.Generator().manual_seed(3), torch.float32)


# --- block
# ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c", "n", "h", "w", "dtype"),
    [
        (64, 1, 1, 1, torch.float32),
        (64, 2, 3, 23, torch.float16),
        (96, 1, 7, 5, torch.float16),
        (256, 1, 1, 7, torch.float32),
    ],
)
@pytest.mark.parametrize("tiles", ["many", "few", "split"])
def test_block(
    c: int, n: int, h: int, w: int, dtype: torch.dtype, tiles: str, draw: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Under the interpreter no frame is large: the borders between the classes of shapes are moved instead.
    few, fewer = {"many": (0, 0), "few": (2**30, 0), "split": (2**30, 2**30)}[tiles]
    # (`mirage_kernels.block` is the op; its module goes by its full name.)
    block_module = importlib.import_module("mirage_kernels.block")
    monkeypatch.setattr(block_module, "_FEW", few)
    monkeypatch.setattr(block_module, "_FEWER", fewer)
    weights = parameters(c, draw, dtype)
    x = torch.randn(n, h, w, c, generator=draw).to(dtype)
    # FiLM is a slice of all blocks' FiLM: its rows lie apart.
    film = torch.randn(n, 3 * c + 64, generator=draw)[:, 32 : 32 + 3 * c]
    actual, expected = both(lambda: kernels.block(x, film, weights))
    assert_close(actual, expected, TOLERANCE[dtype], f"block {c} {tiles}")


@pytest.mark.parametrize("c", [160, 192, 384, 640])
def test_wide_block(c: int, draw: torch.Generator) -> None:
    weights = parameters(c, draw, torch.float16)
    x, film = torch.randn(1, 1, 2, c, generator=draw).half(), torch.randn(1, 3 * c, generator=draw) * 0.5
    actual, expected = both(lambda: kernels.block(x, film, weights))
    assert_close(actual, expected, TOLERANCE[torch.float16], f"block {c}")


def test_block_keeps_nan_where_it_reaches(draw: torch.Generator) -> None:
    weights = parameters(64, draw, torch.float32)
    x, film = torch.randn(1, 7, 9, 64, generator=draw), torch.randn(1, 192, generator=draw)
    x[0, 1, 1, 5] = torch.nan
    actual, expected = both(lambda: kernels.block(x, film, weights))
    assert_close(actual, expected, TOLERANCE[torch.float32], "block with NaN")
    assert actual[0, :4, :4].isnan().all()
    assert actual[0, 4:].isfinite().all()


def test_empty_batches(draw: torch.Generator) -> None:
    weights = parameters(64, draw, torch.float32)
    actual, _ = both(lambda: kernels.block(torch.empty(0, 4, 4, 64), torch.empty(0, 192), weights))
    assert actual.shape == (0, 4, 4, 64)
    layout = layout_of("rgba8", 8, 8)
    frames = torch.empty(0, layout.size_bytes, dtype=torch.uint8)
    actual, _ = both(lambda: kernels.pixels(frames, layout, stem_of(layout)))
    assert actual.shape == (0, 4, 4, 64)
    none = torch.empty(0, dtype=torch.int64)
    actual, _ = both(lambda: kernels.fresh_noise(none, none, 4, 4))
    assert actual.shape == (0, 1, 4, 4)
    field, there = torch.empty(0, 1, 16, 16), torch.empty(0, 4, 4, 2)
    nothing = torch.empty(0, 4, 4, kernels.HEAD_CHANNELS), field, there, torch.empty(0, kernels.STYLE_NUMBERS)
    actual, _ = both(lambda: kernels.depth_lines(field))
    assert actual.shape == (0, 1, 16, 16)
    actual, _ = both(lambda: kernels.trace_lines(field, torch.empty(0)))
    assert actual.shape == (0, 2, 16, 16)
    actual, _ = both(lambda: kernels.shade(*nothing))
    assert actual.shape == (0, 4, 4, kernels.EDIT_CHANNELS)
    actual, _ = both(lambda: kernels.overview(nothing[0].clone(), nothing[0], (0.5, 0.5)))
    assert actual.shape == (0, 4, 4, kernels.HEAD_CHANNELS)
    actual, _ = both(lambda: kernels.drift_statistics(torch.empty(0, 4, 8), 2))
    assert actual.shape == (0, 2, 6)


# --- linear
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["plain", "down", "up", "head"])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float8_e4m3fn])
def test_linear(mode: Mode, dtype: torch.dtype, draw: torch.Generator) -> None:
    fp8 = dtype == torch.float8_e4m3fn
    compute = torch.float16 if fp8 else dtype
    k, out = {"plain": (96, 160), "down": (64, 96), "up": (96, 256), "head": (64, 360)}[mode]
    inputs = 4 * k if mode == "down" else k
    layer = torch.randn(out, inputs, generator=draw) * 0.2, torch.randn(out, generator=draw)
    weights = kernels.pack_linear(*layer, compute, fp8=fp8)
    for n, h, w in ((1, 2, 2), (2, 2, 14)):
        x = torch.randn(n, h, w, k, generator=draw).to(compute)
        film = torch.randn(n, 2 * k + 16, generator=draw)[:, 4 : 4 + 2 * k] if mode == "head" else None
        skip = torch.randn(n, 2 * h, 2 * w, out // 4, generator=draw).to(compute) if mode == "up" else None
        actual, expected = both(lambda x=x, f=film, s=skip: kernels.linear(x, weights, mode, film=f, skip=s))
        assert_close(actual, expected, TOLERANCE[dtype], f"linear {mode} {dtype}")


# --- overview
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("n", "grid", "coarse", "scale"),
    [
        (2, (12, 20), (7, 12), (7 / 12, 0.6)), (1, (4, 8), (1, 1), (0.2, 0.1)), (1, (7, 5), (1, 9), (0.13, 1.7)),
        # The frame ends before its cells do, in both.
        (1, (8, 12), (4, 4), (0.41, 0.29)), (2, (3, 1), (5, 2), (5 / 3, 2.0)),
    ],
)  # fmt: skip
def test_overview(
    n: int, grid: tuple[int, int], coarse: tuple[int, int], scale: tuple[float, float], dtype: torch.dtype,
    draw: torch.Generator,
) -> None:  # fmt: skip
    head, seen = (
        (torch.randn(n, *size, kernels.HEAD_CHANNELS, generator=draw) * 2).to(dtype) for size in (grid, coarse)
    )
    actual, expected = both(lambda: kernels.overview(head.clone(), seen, scale))
    told = torch.zeros(kernels.HEAD_CHANNELS, dtype=torch.bool)
    told[252:328] = True  # of each reading the numbers from 3 on, 19 of them
    assert torch.equal(actual[..., ~told], head[..., ~told])
    assert_close(actual[..., told], expected[..., told], TOLERANCE[dtype], f"overview {grid} of {coarse} {dtype}")
    assert (actual[..., told] != head[..., told]).float().mean() > 0.9


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("n", "grid"), [(2, (7, 12)), (1, (1, 1)), (1, (3, 40)), (1, (9, 2))])
def test_agree(n: int, grid: tuple[int, int], dtype: torch.dtype, draw: torch.Generator) -> None:
    head = (torch.randn(n, *grid, kernels.HEAD_CHANNELS, generator=draw) * 2).to(dtype)
    given = head.clone()
    actual, expected = both(lambda: kernels.agree(head))
    assert torch.equal(head, given)
    told = torch.zeros(kernels.HEAD_CHANNELS, dtype=torch.bool)
    told[252:328] = True
    assert torch.equal(actual[..., ~told], head[..., ~told])
    assert_close(actual[..., told], expected[..., told], 2 * TOLERANCE[dtype], f"agree {grid} {dtype}")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("n", "grid"), [(2, (7, 12)), (1, (1, 1)), (1, (3, 40)), (2, (9, 2))])
def test_remember(n: int, grid: tuple[int, int], dtype: torch.dtype, draw: torch.Generator) -> None:
    head, before = (
        (torch.randn(n, *grid, kernels.HEAD_CHANNELS, generator=draw) * 2).to(dtype) for _ in range(2)
    )
    head[0, 0, 0, 356:] = torch.tensor([0.0, 300.0, -300.0, 0.0])  # readings that are as good as nowhere
    motion = torch.randn(n, 2, *grid, generator=draw) * 2
    motion[0, 0, -1, -1], motion[-1, 1, 0, 0] = torch.nan, torch.inf
    actual, expected = both(lambda: kernels.remember(head.clone(), before, motion))
    told = torch.zeros(kernels.HEAD_CHANNELS, dtype=torch.bool)
    told[252:328] = True
    assert torch.equal(actual[..., ~told], head[..., ~told])
    assert_close(actual[..., told], expected[..., told], TOLERANCE[dtype], f"remember {grid} {dtype}")
    assert_close(actual[0, -1, -1], head[0, -1, -1], TOLERANCE[dtype], "from nowhere comes nothing")


# Numpy says of the greatest of four NaN that there is none, and gives NaN, which is right.
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_overview_of_extremes(draw: torch.Generator) -> None:
    """Words of any size give numbers; what is NaN stays NaN, where its cell of the overview counts."""
    head, seen = (torch.randn(1, *size, kernels.HEAD_CHANNELS, generator=draw) for size in ((8, 12), (4, 6)))
    head[0, 0] *= 1e4
    seen[0, 3] *= 1e4
    seen[0, 1, 1:3] = 0.0
    actual, expected = both(lambda: kernels.overview(head.clone(), seen, (0.5, 0.5)))
    assert_close(actual, expected, TOLERANCE[torch.float32], "overview of extremes")
    assert actual.isfinite().all()
    head[0, 7, 11, :] = torch.nan
    seen[0, 0, 0], seen[0, 0, 5, 241] = torch.nan, torch.nan
    actual, expected = both(lambda: kernels.overview(head.clone(), seen, (0.5, 0.5)))
    assert_close(actual, expected, TOLERANCE[torch.float32], "overview with NaN")
    odd = actual[0, ..., 252:328].isnan().any(-1)
    assert odd[:3, :3].all()
    assert odd[:3, 9:].all()
    assert odd[7, 11]
    assert odd.sum() == 19


# --- shade
# ----------------------------------------------------------------------------------------------------


def styles(n: int, draw: torch.Generator, **fixed: float) -> Tensor:
    """Styles of any numbers, no two alike: [n, STYLE_NUMBERS] in [0, 1] but for what is counted or may be negative."""
    out = torch.rand(n, kernels.STYLE_NUMBERS, generator=draw)
    names = [name for name, size in kernels.STYLE_LAYOUT for _ in range(size)]
    out[:, names.index("band_count")] = torch.randint(2, 7, (n,), generator=draw).float()
    for name in ("exposure", "temperature"):
        out[:, names.index(name)] -= 0.5
    for name in ("contrast", "saturation"):
        out[:, names.index(name)] += 0.5
    for name, value in fixed.items():
        out[:, names.index(name)] = value
    return out


def some_shares(n: int, h: int, w: int, draw: torch.Generator) -> Tensor:
    """How much of cells lines cover, a little and all: [n, h, w, 2]."""
    return torch.rand(n, h, w, 2, generator=draw).square()


def assert_shaded(actual: Tensor, expected: Tensor, dtype: torch.dtype, what: str) -> None:
    """All but one reading in a thousand, or one cell: where a band or a step of colour ends, a rounding decides."""
    assert actual.dtype == expected.dtype == dtype
    assert torch.equal(actual.isnan(), expected.isnan())
    actual, expected = actual.float().nan_to_num(), expected.float().nan_to_num()
    apart = (actual - expected).abs() / (1 + expected.abs())
    bound = 10 * TOLERANCE[dtype] if dtype == torch.float32 else TOLERANCE[dtype]
    print(
        f"{what:40} median {apart.median():.1e} greatest {apart.max():.1e} beyond {(apart > bound).float().mean():.1e}"
    )
    assert (apart > bound).sum() <= max(apart.numel() / 1000, kernels.EDIT_CHANNELS)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("n", "h", "w"), [(1, 4, 4), (2, 4, 12), (2, 8, 4), (1, 12, 20)])
def test_shade(n: int, h: int, w: int, dtype: torch.dtype, draw: torch.Generator) -> None:
    head = (torch.randn(n, h, w, kernels.HEAD_CHANNELS, generator=draw) * 2).to(dtype)
    noise = torch.randn(n, 1, 4 * h, 4 * w, generator=draw)
    doubted = some_shares(n, h, w, draw)
    mixed, certain = doubted.clone(), torch.full_like(doubted, -1.0)
    mixed[0] = -1.0
    # Everything that a style can be at once; what hides nothing, so that each stage shows; and no marks but grain.
    clear = {"posterize": 0.0, "pixels": 0.0, "bands": 0.0, "fog": 0.0, "tone": 0.0}
    for fixed, there in (
        ({}, certain), ({}, doubted), (clear, mixed), ({"hatch": 0.0, "wash": 0.0}, certain),
        ({"hatch": 0.0, "wash": 0.0, "ink": 0.0, "glow": 0.0}, doubted),
        (clear | {"ink": 0.0, "band_count": 0.0}, certain),
    ):  # fmt: skip
        style = styles(n, draw, **fixed)
        actual, expected = both(lambda s=style, t=there: kernels.shade(head, noise, t, s))
        assert_shaded(actual, expected, dtype, f"shade {n}x{h}x{w} {dtype}")


# Numpy says of the greatest of four NaN that there is none, and gives NaN, which is right.
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_shade_of_extremes(draw: torch.Generator) -> None:
    """Words of any size give numbers; what is NaN stays NaN, in its own cell."""
    head = torch.randn(1, 4, 8, kernels.HEAD_CHANNELS, generator=draw)
    head[0, 0, :, 240:] *= 1e4
    head[0, 1, :4, 240:] = 0.0
    head[0, 2, 3] = torch.nan
    noise, style = torch.randn(1, 1, 16, 32, generator=draw), styles(1, draw)
    for there in (some_shares(1, 4, 8, draw), torch.full((1, 4, 8, 2), -1.0)):
        actual, expected = both(lambda t=there: kernels.shade(head, noise, t, style))
        assert_shaded(actual, expected, torch.float32, "shade of extremes")
        odd = actual.isnan()
        # Ink and light have the style's colours, whatever a cell says.
        assert odd[0, 2, 3, :258].all()
        assert odd.sum() == 258


@pytest.mark.parametrize(
    ("name", "linear", "size", "working"),
    [
        ("bgra8", False, (35, 37), (35, 37)), ("rgb8", False, (16, 24), (8, 8)), ("rgb10a2", True, (9, 40), (6, 31)),
        ("rgba16f", True, (3, 31), (3, 31)),
    ],
)  # fmt: skip
def test_colour_lines(
    name: kernels.PixelFormat, linear: bool, size: tuple[int, int], working: tuple[int, int], draw: torch.Generator
) -> None:
    layout = layout_of(name, *size, linear=linear, flipped=linear)
    frames, (rows, columns) = random_frame(layout, 2, draw), working
    actual, expected = both(lambda: kernels.colour_lines(frames, layout, rows=rows, columns=columns))
    # Differences count eightfold.
    assert_close(actual, expected, 10 * TOLERANCE[torch.float32], f"colours of {name}")


@pytest.mark.parametrize(("n", "height", "width"), [(1, 16, 16), (3, 7, 45), (2, 1, 9), (1, 33, 1), (1, 2, 2)])
def test_lines(n: int, height: int, width: int, draw: torch.Generator) -> None:
    """Surfaces that tilt, turn and part, and depths without any order; what is no depth is as far as the sky."""
    order = torch.rand(n, 1, height, width, generator=draw) * 60
    steps = torch.randn(n, 1, height, width, generator=draw)
    calm = 8 + 0.05 * steps.cumsum(-1) + 12 * (steps > 1.5).cumsum(-2).remainder(2)
    for metres in (order, calm.clamp_min(0)):
        odd = metres.view(-1)
        odd[::37], odd[5::41], odd[3::29], odd[7::53] = 0.0, torch.inf, torch.nan, -2.0
        actual, expected = both(lambda x=metres: kernels.depth_lines(x))
        assert (actual - expected).abs().max() < 1e-4
    wide = torch.rand(n, generator=draw)
    for lines in (expected, torch.rand(n, 1, height, width, generator=draw)):
        traced, right = both(lambda x=lines: kernels.trace_lines(x, wide))
        assert traced.dtype == right.dtype == torch.float16
        assert (traced.float() - right.float()).abs().max() < 1e-3


# --- memory
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("c", "s"), [(64, 48), (96, 16), (32, 128)])
def test_memory(c: int, s: int, dtype: torch.dtype, draw: torch.Generator) -> None:
    shapes = ((s, c + s + 1), (s,), (c, s), (c,), (s, c + s + 1), (s,), (s, c), (s,))
    weights = kernels.pack_memory(*(torch.randn(shape, generator=draw) * 0.2 for shape in shapes), dtype=dtype)
    stored = torch.randint(-127, 128, (2, 5, 7, s), generator=draw).to(torch.int8)
    motion = torch.randn(2, 2, 5, 7, generator=draw) * 40
    motion[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    visible = torch.rand(2, 1, 5, 7, generator=draw)
    for part in (0, 1):
        actual, expected = both(lambda p=part: kernels.warp_state(stored, motion, visible, dtype)[p])
        assert_close(actual, expected, TOLERANCE[dtype], f"warp {part}")
    state, valid = kernels.warp_state(stored, motion, visible, dtype)
    features = torch.randn(2, 5, 7, c, generator=draw).to(dtype)
    actual, expected = both(lambda: kernels.memory_read(features, state, valid, weights))
    assert_close(actual, expected, TOLERANCE[dtype], "read")
    actual, expected = both(lambda: kernels.memory_write(features, state, valid, weights, packed=False))
    assert_close(actual, expected, TOLERANCE[dtype], "write")
    features[0, 0, 0] = torch.nan
    actual, expected = both(lambda: kernels.memory_write(features, state, valid, weights))
    assert (actual.int() - expected.int()).abs().max() <= 1
    assert not actual[0, 0, 0].any(), "NaN is stored as 0"


# --- noise
# ----------------------------------------------------------------------------------------------------


def test_noise(draw: torch.Generator) -> None:
    seed, frame = torch.tensor([0, 2**62 + 11]), torch.tensor([2**40, 7])
    # The hash is the same whole numbers; logarithm and cosine may differ in their last bits.
    actual, expected = both(lambda: kernels.fresh_noise(seed, frame, 23, 31))
    assert (actual - expected).abs().max() < 2e-5
    old = torch.randn(2, 1, 23, 31, generator=draw)
    motion = torch.randn(2, 2, 23, 31, generator=draw) * 5
    motion[1] = motion[1].round()
    motion[0, 0, 0, :4] = torch.tensor([torch.nan, torch.inf, 1e30, -1e30])
    visible = torch.rand(2, 1, 23, 31, generator=draw) > 0.3
    actual, expected = both(lambda: kernels.advect_noise(old, motion, visible, seed, frame))
    assert (actual - expected).abs().max() < 2e-5
    # What moved is the very value.
    moved = (expected.unsqueeze(-1) == old.flatten()).any(-1)
    assert moved.float().mean() > 0.2
    assert torch.equal(actual[moved], expected[moved])


def test_noise_does_not_depend_on_the_launch() -> None:
    with side("triton"):
        batch = kernels.fresh_noise(torch.tensor([3, 4]), torch.tensor([1, 2]), 16, 40)
        alone = kernels.fresh_noise(torch.tensor([4]), torch.tensor([2]), 8, 64)
    assert torch.equal(batch[1, :, :8, :40], alone[0, :, :, :40])


@pytest.mark.parametrize("dtype", HALVES)
def test_solver_step(dtype: torch.dtype, draw: torch.Generator) -> None:
    answer, source = (torch.randn(2, 3, 5, 192, generator=draw).to(dtype) for _ in range(2))
    noise, k = torch.randn(2, 1, 12, 20, generator=draw), torch.rand(2, generator=draw)
    actual, expected = both(lambda: kernels.solver_step(answer, source, noise, k, 0.25))
    assert_close(actual, expected, TOLERANCE[dtype], "solver step")


# --- statistics
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (2, 7, 11, 24), (1, 3, 240), (1, 130, 9, 48)])
def test_statistics(shape: tuple[int, ...], draw: torch.Generator) -> None:
    x = torch.randn(shape, generator=draw) * 3
    x.view(-1)[0] = torch.nan
    x.view(-1)[-1] = -torch.inf
    actual, expected = both(lambda: kernels.drift_statistics(x, 4))
    assert_close(actual, expected, TOLERANCE[torch.float32], f"statistics {shape}")
    stored = torch.randint(-127, 128, shape, generator=draw).to(torch.int8)
    actual, expected = both(lambda: kernels.drift_statistics(stored, 2, scale=1 / 127))
    assert_close(actual, expected, TOLERANCE[torch.float32], "statistics of int8")


# --- compose
# --------------------------------------------------------------------------------------------------


def assert_frames(actual: Tensor, expected: Tensor, layout: kernels.FrameLayout, side: int = 1) -> None:
    """A value at the threshold of its dither may fall to either side, and with it all of a square `side` pixels
    wide; a half float has 11 bits."""
    ours, theirs = kernels.unpack_frame(actual, layout), kernels.unpack_frame(expected, layout)
    if layout.format == "rgba16f":
        assert error(ours, theirs) < TOLERANCE[torch.float16]
    else:
        assert (ours - theirs).abs().max() <= 1
        one_of_each = (ours != theirs)[:, side // 2 :: side, side // 2 :: side]
        assert one_of_each.sum() <= max(5e-3 * one_of_each.numel(), 2)


@pytest.mark.parametrize(
    ("name", "linear", "what"),
    [
        *((name, linear, "all") for name in kernels.FORMATS for linear in (False, True)),
        ("bgra8", False, "plain"),
        ("rgb8", False, "late"),
        ("rgba16f", True, "late"),
    ],
)
def test_compose(name: kernels.PixelFormat, linear: bool, what: str, draw: torch.Generator) -> None:
    layout = layout_of(name, 3, 31, linear=linear, flipped=linear)
    n = 2 if what == "all" and name == "bgra8" else 1
    frames = random_frame(layout, n, draw)
    rows, columns = (3, 31) if what == "plain" else (2, 19)
    h, w = kernels.grid_size(rows, columns)
    edit = random_edit(draw, n, h, w)
    edit[0, 0, 0, :48] = torch.nan
    optional: dict[str, Any] = {}
    if what == "plain":
        optional["lines"] = torch.rand(n, 2, 3, 31, generator=draw)
    if what == "late":
        optional["lines"] = torch.rand(n, 2, 4, 20, generator=draw).half()
        optional["lines_shown"] = (2.5, 18.0)
    if what == "all":
        optional["mask"] = torch.rand(n, 1, 3, 31, generator=draw)
        optional["dither"] = torch.tensor([1, 2**40 + 3])[:n]
    if what == "late":
        optional["motion"] = torch.randn(n, 2, 3, 7, generator=draw) * 9
        optional["motion"][0, 0, 0, 0] = torch.nan
        optional["visible"] = torch.rand(n, 1, 3, 7, generator=draw)
    strength = torch.rand(n, generator=draw)

    def run() -> Tensor:
        out = torch.full((n, layout.size_bytes), 201, dtype=torch.uint8)
        return kernels.compose(frames, layout, edit, strength, rows=rows, columns=columns, out=out, **optional)

    actual, expected = both(run)
    assert_frames(actual, expected, layout)
    # Bytes between the rows are not ours.
    span = layout.width * layout.bytes_per_pixel
    rows_of = actual.as_strided((n, 2, layout.pitch_bytes), (actual.stride(0), layout.pitch_bytes, 1))
    assert (rows_of[:, :, span:] == 201).all()


@pytest.mark.parametrize(
    ("name", "linear", "side"), [("bgra8", False, 4), ("rgb8", False, 8), ("rgb10a2", True, 4), ("rgba16f", True, 3)]
)
def test_pixelate(name: kernels.PixelFormat, linear: bool, side: int, draw: torch.Generator) -> None:
    layout = layout_of(name, 9, 37, linear=linear, flipped=linear)
    frames, amount = random_frame(layout, 3, draw), torch.tensor([0.7, 0.0, 1.0])
    mask = torch.rand(3, 1, 9, 37, generator=draw) if name == "bgra8" else None
    actual, expected = both(lambda: kernels.pixelate(frames.clone(), layout, amount, side=side, mask=mask))
    assert_frames(actual, expected, layout, side)
    assert torch.equal(actual[1], frames[1])
    assert not torch.equal(actual[0], frames[0])


@pytest.mark.parametrize("name", ["bgra8", "rgb8", "rgb10a2", "rgba16f"])
@pytest.mark.parametrize("dtype", HALVES)
def test_steady(name: kernels.PixelFormat, dtype: torch.dtype, draw: torch.Generator) -> None:
    """A frame that follows another, one that is half another picture, and one that knows nothing of what was before."""
    h, w = 8, 12
    layout = layout_of(name, 50, 90, linear=name == "rgba16f", flipped=name == "rgb8")
    frames, edit = random_frame(layout, 3, draw), random_edit(draw, 3, h, w).to(dtype)
    rows = (torch.arange(4 * h) * 2).clamp_max(49)
    columns = (torch.arange(4 * w) * 2).clamp_max(89)
    unit = kernels.unit_rgb(kernels.unpack_frame(frames, layout, rows, columns), layout)
    colour = unit.view(3, h, 4, w, 4, 3).mean((2, 4)) * 2 - 1
    before = torch.cat([torch.randn(3, h, w, 3, generator=draw) * 0.3, colour, torch.ones(3, h, w, 1)], -1)
    before[..., 3:6] += torch.randn(3, h, w, 3, generator=draw) * 0.03
    before[1, :, :5, 3:6] += 1.0
    before[2, ..., 6] = 0.0
    before[0, 0, 0, 3], before[0, 0, 1, 0], before[0, 0, 2, 1] = torch.nan, torch.inf, torch.nan
    for part in (0, 1):

        def run(part: int = part) -> Tensor:
            settled = torch.full((3, h, w, kernels.SETTLED), 99.0)
            drawn = kernels.steady(frames, layout, rows, columns, edit.clone(), before, settled)
            return settled if part else drawn.float()

        actual, expected = both(run)
        assert_close(actual, expected, TOLERANCE[dtype], f"steady {name}, {part}")
    assert torch.equal(actual[2, ..., 6], torch.ones(h, w))
    moved = [run(0)[i] - edit[i].float() for i in range(3)]
    assert [bool(part.any()) for part in moved] == [True, True, False]


def test_compose_in_halves(draw: torch.Generator) -> None:
    layout = layout_of("rgba8", 4, 32)
    frames = random_frame(layout, 1, draw)
    args = (frames, layout, random_edit(draw, 1, 4, 4).half(), torch.ones(1))
    actual, expected = both(lambda: kernels.compose(*args))
    span = (actual.int() - expected.int()).abs().as_strided((1, 4, 128), (0, layout.pitch_bytes, 1))
    assert span.max() <= 1


# --- the network
# ----------------------------------------------------------------------------------------------


def test_forward_gives_the_same_on_both_sides(draw: torch.Generator) -> None:
    dtype = torch.float16
    sizes = kernels.NetworkSizes((64, 64, 64), (1, 1, 1, 1, 1), 16, 32)
    weights = kernels.prepare(kernels.random_parameters(sizes), dtype)
    stem = torch.randn(2, 4, 8, 64, generator=draw).to(dtype)
    state = (torch.rand(2, 2, 4, 16, generator=draw) * 2 - 1).to(dtype)
    valid = torch.rand(2, 2, 4, 1, generator=draw).to(dtype)
    film = kernels.film_of(weights, torch.randn(2, 32, generator=draw))
    # Without steps of colour, whose edges half floats would put elsewhere.
    style, noise = styles(2, draw, bands=0.0, posterize=0.0), torch.randn(2, 1, 16, 32, generator=draw)
    given = (weights, stem, state, valid, film, style, noise, some_shares(2, 4, 8, draw))
    coarse = torch.randn(2, 4, 4, kernels.HEAD_CHANNELS, generator=draw).to(dtype)
    for overview in (None, (coarse, (0.9, 0.4))):

        def run(overview: Any = overview) -> Tensor:
            hear = None if overview is None else lambda head: kernels.overview(head, *overview)
            parts = kernels.forward(*given, packed_state=False, hear=hear)
            return torch.cat([part.flatten() for part in parts])

        actual, expected = both(run)
        # Nine layers one after the other: their roundings add up.
        assert_close(actual, expected, 3 * TOLERANCE[dtype], "forward" if overview is None else "forward, overview")

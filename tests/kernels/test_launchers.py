"""What launchers refuse, which side of the switch is taken, and that ops are good citizens of torch."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mirage_kernels as kernels
from mirage_kernels import KernelError
from mirage_kernels.launch import check

PACKAGE = Path(kernels.__file__).parent


@pytest.fixture(autouse=True)
def switch() -> Iterator[None]:
    before = kernels.backend()
    yield
    kernels.use(before)


def parameters(c: int = 64, dtype: torch.dtype = torch.float32) -> kernels.BlockWeights:
    shapes = ((c, 1, 5, 5), (c,), (2 * c, c), (2 * c,), (c, 2 * c), (c,))
    return kernels.pack_block(*(torch.randn(shape) for shape in shapes), dtype=dtype)


def network(dtype: torch.dtype = torch.float32) -> kernels.NetworkWeights:
    return kernels.prepare(kernels.random_parameters(kernels.SIZES["nano"]), dtype)


BGRA = kernels.FrameLayout("bgra8", 16, 24, 96)
FRAMES = torch.zeros(1, BGRA.size_bytes, dtype=torch.uint8)


def test_kernels_know_nothing_of_mirage() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong = {name for name in names if name.split(".")[0] in ("mirage_plugin", "mirage_bridge")}
            assert not wrong, f"{path.name} imports {wrong}"


def test_a_cpu_tensor_goes_to_the_reference_and_is_refused_by_triton() -> None:
    x, film, weights = torch.randn(1, 4, 4, 64), torch.randn(1, 192), parameters()
    expected = kernels.block_reference(x, film, weights)
    assert kernels.backend() == "auto"
    assert torch.equal(kernels.block(x, film, weights), expected)
    if not kernels.HAS_TRITON:
        with pytest.raises(KernelError, match="not installed"):
            kernels.use("triton")
        return
    assert kernels.use("triton") == "auto"
    with pytest.raises(KernelError, match='on cpu: move it to CUDA, or use\\("auto"\\)'):
        kernels.block(x, film, weights)
    with pytest.raises(KernelError, match="the backend is"):
        kernels.use("cuda")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, f, w: (x[0], f, w), r"x has shape \[5, 4, 64\]; it must be \[\*, \*, \*, \*\]"),
        (lambda x, f, w: (x.int(), f, w), "x is torch.int32; it must be torch.float32 or"),
        (lambda x, f, w: (x.transpose(1, 2), f, w), "make it contiguous"),
        (lambda x, f, w: (torch.randn(1025)[1:].view(1, 4, 4, 64), f, w), "16-byte boundary"),
        (lambda x, f, w: (x, f[:, :-1], w), r"film has shape \[1, 191\]; it must be \[1, 192\]"),
        (lambda x, f, w: (x, f.half(), w), "film is torch.float16"),
        (lambda x, f, w: (x.half(), f, w), "weights.expand is torch.float32; it must be torch.float16"),
        (lambda x, f, w: (x, f, w._replace(depthwise=w.depthwise[:24])), "weights.depthwise has shape"),
    ],
)
def test_what_a_block_refuses(spoil: Callable[..., Any], message: str) -> None:
    with pytest.raises(KernelError, match=message):
        kernels.block(*spoil(torch.randn(1, 5, 4, 64), torch.randn(1, 192), parameters()))


def test_a_tensor_on_another_device_is_refused() -> None:
    with pytest.raises(KernelError, match="film is on meta and the frame's tensors on cpu: move one of them"):
        check("film", torch.zeros(1, device="meta"), (1,), torch.float32, like=torch.zeros(1))


def test_channels_without_a_layout_are_named() -> None:
    with (
        kernels.record(90),
        pytest.raises(KernelError, match=r"laid out for \[64, 96, .*\] channels, not 80"),
    ):
        kernels.block(torch.empty(1, 4, 4, 80, device="meta"), torch.empty(1, 240, device="meta"), parameters(80))


def test_a_size_beyond_32_bits_is_refused() -> None:
    with pytest.raises(KernelError, match="2147483648 elements; a kernel indexes"):
        check("x", torch.empty(2**31, device="meta"), (None,), torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bgr8", 4, 4, 16), "there are rgba8, bgra8, rgb8"),
        (("rgba8", 0, 4, 16), "4x0 pixels"),
        (("rgba8", 4, 4, 12), "need at least 16, in multiples of 4"),
        (("rgba8", 4, 4, 18), "need at least 16, in multiples of 4"),
        (("rgba16f", 4, 4, 36), "in multiples of 8"),
        (("rgba8", 20000, 20000, 2**17), "2 GiB or more"),
    ],
)
def test_what_a_layout_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(KernelError, match=message):
        kernels.FrameLayout(*arguments)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 100, dtype=torch.uint8), "has 100 bytes; its layout needs 1536"),
        (torch.zeros(1, 1536), "uint8"),
        (torch.zeros(1536, dtype=torch.uint8), r"must be uint8 \[N, size_bytes\]"),
        (torch.zeros(1, 3072, dtype=torch.uint8)[:, ::2], "must be contiguous"),
        (torch.zeros(1540, dtype=torch.uint8)[1:1537].view(1, 1536), "multiple of 4 bytes"),
    ],
)
def test_what_pixels_and_compose_refuse_of_a_frame(frames: Tensor, message: str) -> None:
    weights = network()
    with pytest.raises(KernelError, match=message):
        kernels.pixels(frames, BGRA, weights.stem(BGRA, 0.25))
    with pytest.raises(KernelError, match=message):
        kernels.colour_lines(frames, BGRA)
    with pytest.raises(KernelError, match=message):
        kernels.compose(frames, BGRA, torch.zeros(1, 4, 4, kernels.EDIT_CHANNELS), torch.ones(1))


def test_what_else_is_refused() -> None:
    weights = network()
    stem = weights.stem(BGRA, 0.25)
    edit, one = torch.zeros(1, 4, 4, kernels.EDIT_CHANNELS), torch.ones(1)
    with pytest.raises(KernelError, match="answer and k come together"):
        kernels.pixels(FRAMES, BGRA, stem, k=one)
    with pytest.raises(KernelError, match=r"noise has shape \[1, 1, 8, 12\]; it must be \[1, 1, 16, 16\]"):
        kernels.pixels(FRAMES, BGRA, stem, noise=torch.zeros(1, 1, 8, 12))
    with pytest.raises(KernelError, match="motion and visible come together"):
        kernels.compose(FRAMES, BGRA, edit, one, motion=torch.zeros(1, 2, 4, 4))
    with pytest.raises(KernelError, match="edit has shape"):
        kernels.compose(FRAMES, BGRA, edit[..., :192].contiguous(), one)
    with pytest.raises(KernelError, match=r"strength has shape \[2\]; it must be \[1\]"):
        kernels.compose(FRAMES, BGRA, edit, torch.ones(2))
    x = torch.zeros(1, 3, 4, 64)
    with pytest.raises(KernelError, match="cannot be halved"):
        kernels.linear(x, kernels.pack_linear(torch.zeros(96, 256), torch.zeros(96), torch.float32), "down")
    plain = kernels.pack_linear(torch.zeros(96, 64), torch.zeros(96), torch.float32)
    with pytest.raises(KernelError, match="film goes with the head"):
        kernels.linear(x, plain, "head")
    with pytest.raises(KernelError, match="skip goes with"):
        kernels.linear(x, plain, "up")
    with pytest.raises(KernelError, match="mode 'left'"):
        kernels.linear(x, plain, "left")  # type: ignore[arg-type]
    fp8 = kernels.pack_linear(torch.ones(96, 64), torch.zeros(96), torch.float16, fp8=True)
    if kernels.HAS_TRITON:
        with kernels.record(80), pytest.raises(KernelError, match=r"8\.9; this one has 8\.0"):
            kernels.linear(x.half(), fp8)
    with pytest.raises(KernelError, match="15 bits of y"):
        kernels.fresh_noise(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 40000, 4)
    with pytest.raises(KernelError, match="3 groups do not divide 64 channels"):
        kernels.drift_statistics(x, 3)
    with pytest.raises(KernelError, match="at most 128"):
        kernels.warp_state(torch.zeros(1, 2, 2, 130), torch.zeros(1, 2, 2, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(KernelError, match="h and w multiples of 4"):
        kernels.forward(weights, *[x] * 7)
    broken = kernels.random_parameters(kernels.SIZES["nano"])
    del broken["down1.weight"]
    with pytest.raises(KernelError, match=r"no 'down1\.weight'"):
        kernels.prepare(broken, torch.float32)
    head, noise, style = torch.zeros(1, 4, 4, 360), torch.zeros(1, 1, 16, 16), torch.zeros(1, kernels.STYLE_NUMBERS)
    there = torch.zeros(1, 4, 4, 2)
    with pytest.raises(KernelError, match=r"head has shape \[1, 4, 4, 264\]; it must be \[\*, \*, \*, 360\]"):
        kernels.shade(edit, noise, there, style)
    with pytest.raises(KernelError, match=r"noise has shape \[1, 1, 4, 4\]; it must be \[1, 1, 16, 16\]"):
        kernels.shade(head, noise[..., :4, :4].contiguous(), there, style)
    with pytest.raises(KernelError, match=r"there has shape \[4, 4, 2\]; it must be \[1, 4, 4, 2\]"):
        kernels.shade(head, noise, there[0], style)
    with pytest.raises(KernelError, match=r"style has shape \[1, 77\]; it must be \[1, 78\]"):
        kernels.shade(head, noise, there, style[:, 1:].contiguous())
    with pytest.raises(KernelError, match=r"style is torch\.float16; it must be torch\.float32"):
        kernels.shade(head, noise, there, style.half())
    with pytest.raises(KernelError, match=r"depth is torch\.float16; it must be torch\.float32"):
        kernels.depth_lines(noise.half())
    with pytest.raises(KernelError, match=r"width has shape \[2\]; it must be \[1\]"):
        kernels.trace_lines(noise, torch.ones(2))
    with pytest.raises(KernelError, match=r"lines has shape \[1, 1, 16, 16\]; it must be \[1, 2, \*, \*\]"):
        kernels.compose(FRAMES, BGRA, edit, one, lines=noise)
    settled, at = torch.zeros(1, 4, 4, kernels.SETTLED), torch.arange(16)
    with pytest.raises(KernelError, match=r"columns has shape \[15\]; it must be \[16\]"):
        kernels.steady(FRAMES, BGRA, at, at[:15], edit.clone(), settled, settled.clone())
    with pytest.raises(KernelError, match="before and settled are one tensor"):
        kernels.steady(FRAMES, BGRA, at, at, edit.clone(), settled, settled)
    with pytest.raises(KernelError, match=r"head has shape \[1, 4, 4, 264\]; it must be \[\*, \*, \*, 360\]"):
        kernels.overview(edit, head, (0.5, 0.5))
    with pytest.raises(KernelError, match=r"coarse has shape \[2, 4, 4, 360\]; it must be \[1, \*, \*, 360\]"):
        kernels.overview(head, torch.zeros(2, 4, 4, 360), (0.5, 0.5))
    with pytest.raises(KernelError, match=r"coarse is torch\.float16; it must be torch\.float32"):
        kernels.overview(head, head.half(), (0.5, 0.5))
    with pytest.raises(KernelError, match="coarse has 0x4 cells; it must have some"):
        kernels.overview(head, torch.zeros(1, 0, 4, 360), (0.5, 0.5))
    with pytest.raises(KernelError, match=r"0\.5 x 0\.0 cells of the overview to one"):
        kernels.overview(head, head.clone(), (0.5, 0.0))
    with pytest.raises(KernelError, match=r"head has shape \[1, 4, 4, 264\]; it must be \[\*, \*, \*, 360\]"):
        kernels.agree(edit)
    with pytest.raises(KernelError, match=r"before has shape \[1, 4, 3, 360\]; it must be \[1, 4, 4, 360\]"):
        kernels.remember(head, head[:, :, :3].contiguous(), torch.zeros(1, 2, 4, 4))
    with pytest.raises(KernelError, match=r"before is torch\.float16; it must be torch\.float32"):
        kernels.remember(head, head.half(), torch.zeros(1, 2, 4, 4))
    with pytest.raises(KernelError, match=r"motion has shape \[1, 4, 4, 2\]; it must be \[1, 2, 4, 4\]"):
        kernels.remember(head, head.clone(), torch.zeros(1, 4, 4, 2))
    with pytest.raises(KernelError, match="pixels of -4 x -4"):
        kernels.pixelate(FRAMES.clone(), BGRA, one, side=-4)
    with pytest.raises(KernelError, match=r"0\.0 x 3\.0 of \[4, 4\] points of lines"):
        kernels.compose(FRAMES, BGRA, edit, one, lines=torch.zeros(1, 2, 4, 4), lines_shown=(0.0, 3.0))


def calls() -> dict[str, Callable[[], Any]]:
    """Each op's underlying call, for torch's own check of it."""
    ops = torch.ops.mirage
    weights = network()
    x, film = torch.randn(1, 4, 4, 64), torch.randn(1, 192)
    stem = list(weights.stem(BGRA, 0.25))
    shape = (BGRA.format, BGRA.height, BGRA.width, BGRA.pitch_bytes, False, False, 16, 24)
    seed = torch.zeros(1, dtype=torch.int64)
    noise, moved, seen = torch.randn(1, 1, 16, 16), torch.zeros(1, 2, 16, 16), torch.ones(1, 1, 16, 16).bool()
    cells, state = torch.randn(1, 4, 4, 192), torch.zeros(1, 4, 4, 48)
    features, valid = torch.randn(1, 4, 4, 96), torch.ones(1, 4, 4, 1)
    # What tracing adds, `test_forward_can_be_exported` shows once and not for each.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    opcheck = functools.partial(torch.library.opcheck, test_utils=tests)
    none = (None,) * 5
    return {
        "pixels": lambda: opcheck(ops.pixels.default, (FRAMES, *shape, stem, noise, *none)),
        "block": lambda: opcheck(ops.block.default, (x, film, list(parameters()))),
        "linear": lambda: opcheck(ops.linear.default, (x, *weights.down1, "down", None, None)),
        "warp_state": lambda: opcheck(
            ops.warp_state.default, (state, torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4), torch.float32)
        ),
        "memory_read": lambda: opcheck(ops.memory_read.default, (features, state, valid, list(weights.memory))),
        "memory_write": lambda: opcheck(ops.memory_write.default, (features, state, valid, list(weights.memory), True)),
        "fresh_noise": lambda: opcheck(ops.fresh_noise.default, (seed, seed, 4, 4)),
        "advect_noise": lambda: opcheck(ops.advect_noise.default, (noise, moved, seen, seed, seed)),
        "solver_step": lambda: opcheck(ops.solver_step.default, (cells, cells, noise, torch.ones(1), 0.25)),
        "agree": lambda: opcheck(ops.agree.default, (torch.randn(1, 4, 4, 360),)),
        "overview": lambda: opcheck(
            ops.overview.default, (torch.randn(1, 4, 4, 360), torch.randn(1, 2, 3, 360), 0.5, 0.7)
        ),
        "remember": lambda: opcheck(
            ops.remember.default, (torch.randn(1, 4, 4, 360), torch.randn(1, 4, 4, 360), torch.zeros(1, 2, 4, 4))
        ),
        "shade": lambda: opcheck(
            ops.shade.default,
            (torch.randn(1, 4, 4, 360), noise, x[..., :2].contiguous(), torch.ones(1, kernels.STYLE_NUMBERS)),
        ),
        "colour_lines": lambda: opcheck(ops.colour_lines.default, (FRAMES, *shape)),
        "depth_lines": lambda: opcheck(ops.depth_lines.default, (noise.exp(),)),
        "trace_lines": lambda: opcheck(ops.trace_lines.default, (noise.sigmoid(), torch.ones(1))),
        "pixelate": lambda: opcheck(ops.pixelate.default, (FRAMES.clone(), *shape[:-2], torch.ones(1), 4, None)),
        "steady": lambda: opcheck(
            ops.steady.default,
            (
                FRAMES, *shape[:-2], torch.arange(16), torch.arange(16),
                torch.randn(1, 4, 4, kernels.EDIT_CHANNELS), *torch.zeros(2, 1, 4, 4, kernels.SETTLED),
            ),
        ),
        "drift_statistics": lambda: opcheck(ops.drift_statistics.default, (x, 4, 1.0)),
        "compose": lambda: opcheck(
            ops.compose.default,
            (
                FRAMES.clone(),
                FRAMES,
                *shape,
                torch.zeros(1, 4, 4, kernels.EDIT_CHANNELS),
                torch.ones(1),
                *none[1:],
                torch.rand(1, 2, 8, 12),
                8.0,
                12.0,
            ),
        ),
    }


@pytest.mark.parametrize("name", sorted(calls()))
@pytest.mark.filterwarnings("default")  # torch's own check warns of its own ways
def test_ops_keep_torch_s_rules(name: str) -> None:
    """Schema, fake and (absent) gradients: what compile and export rest on."""
    results = calls()[name]()
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.filterwarnings("default")
def test_forward_can_be_exported() -> None:
    weights = network()

    class Served(torch.nn.Module):
        def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
            return kernels.forward(weights, *given)

    film = kernels.film_of(weights, torch.randn(1, kernels.SIZES["nano"].condition))
    style, noise = torch.rand(1, kernels.STYLE_NUMBERS) + 0.5, torch.randn(1, 1, 16, 16)
    there = torch.rand(1, 4, 4, 2)
    inputs = (torch.randn(1, 4, 4, 64), torch.zeros(1, 2, 2, 48), torch.ones(1, 2, 2, 1), film, style, noise, there)
    exported = torch.export.export(Served(), inputs)
    called = {str(node.target) for node in exported.graph.nodes if "mirage" in str(node.target)}
    assert {
        "mirage.block.default",
        "mirage.linear.default",
        "mirage.memory_read.default",
        "mirage.shade.default",
    } <= called
    for ours, theirs in zip(exported.module()(*inputs), Served()(*inputs), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.needs("cuda")
def test_the_gpu_says_what_the_reference_says() -> None:
    weights = kernels.random_parameters(kernels.SIZES["nano"], "cuda")
    for dtype, tolerance in ((torch.float16, 2e-2), (torch.bfloat16, 6e-2)):
        packed = kernels.prepare(weights, dtype)
        torch.manual_seed(1)
        film = kernels.film_of(packed, torch.randn(1, kernels.SIZES["nano"].condition).cuda())
        stem, state = torch.randn(1, 8, 8, 64), torch.rand(1, 4, 4, 48) * 2 - 1
        args = (
            *(x.to("cuda", dtype) for x in (stem, state, torch.rand(1, 4, 4, 1))),
            film, torch.rand(1, kernels.STYLE_NUMBERS).cuda() + 0.5, torch.randn(1, 1, 32, 32).cuda(),
            torch.rand(1, 8, 8, 2).cuda(),
        )  # fmt: skip
        coarse = torch.randn(1, 4, 4, kernels.HEAD_CHANNELS).to("cuda", dtype)
        hear = functools.partial(kernels.overview, coarse=coarse, scale=(0.5, 0.45))
        kernels.use("reference")
        expected, _ = kernels.forward(packed, *args, hear=hear)
        kernels.use("triton")
        actual, _ = kernels.forward(packed, *args, hear=hear)
        assert (actual.float() - expected.float()).norm() <= tolerance * expected.float().norm()

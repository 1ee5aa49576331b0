"""Hold every kernel against fp64, then time it against its floor, eager PyTorch and `torch.compile`.

    python benchmarks/kernels.py --json out/kernels.json                        on a GPU, under four minutes
    python benchmarks/kernels.py --json out/kernels.json --device cpu --quick   the same script without one

Needs torch, Triton and numpy alone. Part one, accuracy: each op in each of its dtypes on fresh random inputs,
against the same op's reference in fp64 (fp32 where the answer is bytes), with outputs poisoned first; where
compute-sanitizer is installed, once more under it on small shapes. Part two, time: median of CUDA-graph
replays that rotate over input sets larger than the L2 cache, at 720p, 1080p and 4K with base's widths; the
floor is the larger of bytes over the measured copy bandwidth, operations over the measured matrix rate, and
operations off the tensor cores over the fp32 rate of the data sheet. On a CPU both sides of the switch are
the reference, so what is measured there is that the script runs, and the times are the reference's.

JSON: {"machine": {...}, "ceilings": {...}, "accuracy": [...], "speed": [...], "sanitizer": ...}. The exit
code is 1 where an answer is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

try:
    import mirage_kernels as kernels
except ModuleNotFoundError:  # a bare machine runs this from a checkout, without an installation
    sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
    import mirage_kernels as kernels

__all__ = ["Case", "Speed", "accuracy", "cases", "main"]

TOLERANCE = {
    "fp32": (1e-4, "sums in another order, exp and log of the chip"),
    "fp16": (2e-3, "11 bits of mantissa"),
    "bf16": (1e-2, "8 bits of mantissa"),
    "fp8": (6e-2, "4 bits of mantissa in both operands"),
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
FP32_FLOPS = 60e12
"""Off the tensor cores, an H200's data sheet less what clocks take."""


@dataclass(frozen=True)
class Case:
    """One op on inputs of one size: `run(inputs)` calls the op, `inputs(dtype, seed)` draws them.

    `copied_bytes`, `matrix_flops` and `vector_flops` are its floor's terms. `whole_numbers`: the answer is
    bytes, of which a few may differ by one. `thresholds`: a point is there or not, and a few may fall to either side.
    """

    name: str
    run: Callable[[Any], Tensor]
    inputs: Callable[[str, int], Any]
    dtypes: tuple[str, ...]
    copied_bytes: float = 0.0
    matrix_flops: float = 0.0
    vector_flops: float = 0.0
    whole_numbers: bool = False
    thresholds: bool = False


@dataclass(frozen=True)
class Speed:
    """Microseconds of one case: ours, the reference eager and compiled; None where not measured."""

    case: str
    size: str
    dtype: str
    ours_us: dict[str, float]
    eager_us: float | None
    compiled_us: float | None
    floor_us: float | None
    share_of_floor: float | None = field(default=None)


def _widened(x: Any) -> Any:
    """The same inputs in fp64, for a reference that rounds nothing."""
    if isinstance(x, Tensor):
        return x.double() if x.dtype in (torch.float32, torch.float16, torch.bfloat16) else x
    if isinstance(x, dict):
        return {k: _widened(v) for k, v in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(_widened, x))
    if isinstance(x, (list, tuple)):
        return type(x)(map(_widened, x))
    return x


def cases(size: tuple[int, int], device: torch.device) -> Iterator[Case]:
    """Every op as base calls it on a working frame of this size."""
    height, width = size
    h, w = kernels.grid_size(height, width)
    cells, pixels = h * w, height * width
    sizes = kernels.SIZES["base"]
    c0, c1, c2 = sizes.widths
    s = sizes.state

    def draw(seed: int) -> Callable[..., Tensor]:
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
            return (torch.randn(shape, generator=generator, device=device) * scale).to(dtype)

        return normal

    layout = kernels.FrameLayout("bgra8", height, width, 4 * width)

    def frame(seed: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randint(0, 256, (1, layout.size_bytes), generator=generator, device=device).to(torch.uint8)

    def stem_inputs(dtype: str, seed: int) -> Any:
        normal = draw(seed)
        weights = kernels.fold_stem(
            normal(c0, 192, scale=0.07), normal(c0, 192, scale=0.07), normal(c0, 32, scale=0.2), normal(c0),
            layout=layout, sigma=0.25, dtype=DTYPES[dtype],
        )  # fmt: skip
        return frame(seed), weights, normal(1, 1, 4 * h, 4 * w)

    yield Case(
        "pixels", lambda i: kernels.pixels(i[0], layout, i[1], noise=i[2]),
        stem_inputs, ("bf16", "fp16", "fp32"),
        copied_bytes=4 * pixels + 64 * cells + 2 * c0 * cells, matrix_flops=2.0 * cells * c0 * 272,
        vector_flops=3.0 * 256 * cells,
    )  # fmt: skip
    scaled = kernels.FrameLayout("bgra8", 2 * height, 2 * width, 8 * width)

    def scaled_inputs(dtype: str, seed: int) -> Any:
        _, weights, noise = stem_inputs(dtype, seed)
        generator = torch.Generator(device).manual_seed(seed)
        big = torch.randint(0, 256, (1, scaled.size_bytes), generator=generator, device=device).to(torch.uint8)
        return big, weights, noise

    yield Case(
        "pixels, display twice as large",
        lambda i: kernels.pixels(i[0], scaled, i[1], rows=height, columns=width, noise=i[2]),
        scaled_inputs, ("bf16",), copied_bytes=16 * pixels + 64 * cells + 2 * c0 * cells,
        matrix_flops=2.0 * cells * c0 * 272, vector_flops=24.0 * 256 * cells,
    )  # fmt: skip

    for c, count in ((c0, cells), (c1, cells // 4), (c2, cells // 16)):
        grid = {cells: (h, w), cells // 4: (h // 2, w // 2), cells // 16: (h // 4, w // 4)}[count]

        def block_inputs(dtype: str, seed: int, c: int = c, grid: tuple[int, int] = grid) -> Any:
            normal = draw(seed)
            shapes = ((c, 1, 5, 5), (c,), (2 * c, c), (2 * c,), (c, 2 * c), (c,))
            scales = (0.2, 0.1, c**-0.5, 0.1, (2 * c) ** -0.5, 0.1)
            parts = [normal(*shape, scale=scale) for shape, scale in zip(shapes, scales, strict=True)]
            weights = kernels.pack_block(*parts, dtype=DTYPES[dtype])
            return normal(1, *grid, c, dtype=DTYPES[dtype]), normal(1, 3 * c, scale=0.3), weights

        yield Case(
            f"block {c}", lambda i: kernels.block(*i), block_inputs, ("bf16", "fp16", "fp32"),
            copied_bytes=4.0 * count * c + 8 * c * c, matrix_flops=8.0 * count * c * c,
            vector_flops=(50.0 + 12) * count * c,
        )  # fmt: skip

    for mode, k, out, count in (
        ("down", c0, c1, cells // 4),
        ("up", c1, 4 * c0, cells // 4),
        ("head", c0, kernels.HEAD_CHANNELS, cells),
    ):
        inputs_of = 4 * k if mode == "down" else k
        grid = {"down": (h, w), "up": (h // 2, w // 2), "head": (h, w)}[mode]

        def linear_inputs(
            dtype: str, seed: int, mode: Any = mode, k: int = k, out: int = out, grid: tuple[int, int] = grid,
            inputs_of: int = inputs_of,
        ) -> Any:  # fmt: skip
            normal = draw(seed)
            compute = torch.bfloat16 if dtype == "fp8" else DTYPES[dtype]
            layer = normal(out, inputs_of, scale=inputs_of**-0.5), normal(out)
            weights = kernels.pack_linear(*layer, compute, fp8=dtype == "fp8")
            film = normal(1, 2 * k, scale=0.3) if mode == "head" else None
            skip = normal(1, 2 * grid[0], 2 * grid[1], out // 4, dtype=compute) if mode == "up" else None
            return normal(1, *grid, k, dtype=compute), weights, film, skip

        yield Case(
            f"linear {mode}", lambda i, m=mode: kernels.linear(i[0], i[1], m, film=i[2], skip=i[3]),
            linear_inputs,
            ("bf16", "fp16", "fp32", "fp8"),
            copied_bytes=2.0 * count * (inputs_of + out * (2 if mode == "up" else 1)) + 2 * inputs_of * out,
            matrix_flops=2.0 * count * inputs_of * out,
        )  # fmt: skip

    def shade_inputs(dtype: str, seed: int) -> Any:
        normal = draw(seed)
        # Without steps of colour: at their edges the last bit decides, and the reference in fp64 has others.
        style = normal(1, kernels.STYLE_NUMBERS).sigmoid() + 0.5
        names = [name for name, size in kernels.STYLE_LAYOUT for _ in range(size)]
        style[:, [names.index("bands"), names.index("posterize")]] = 0.0
        head = normal(1, h, w, kernels.HEAD_CHANNELS, dtype=DTYPES[dtype])
        return head, normal(1, 1, 4 * h, 4 * w), normal(1, h, w, 2).clamp(-1, 1), style

    yield Case(
        "shade", lambda i: kernels.shade(*i), shade_inputs, ("bf16", "fp16", "fp32"),
        copied_bytes=cells * (2.0 * (kernels.HEAD_CHANNELS + kernels.EDIT_CHANNELS) + 72),
        vector_flops=cells * (4 * 700.0 + 192 * 15 + 16 * 30),
    )  # fmt: skip

    few = kernels.overview_size(height, width) or (max(1, height // 3), max(1, width // 3))
    scale = few[0] / height, few[1] / width

    def overview_inputs(dtype: str, seed: int) -> Any:
        normal = draw(seed)
        grids = (h, w), kernels.grid_size(*few)
        return tuple(normal(1, *grid, kernels.HEAD_CHANNELS, dtype=DTYPES[dtype]) for grid in grids)

    cells_of_it = float(kernels.grid_size(*few)[0] * kernels.grid_size(*few)[1])
    yield Case(
        "agree", lambda i: kernels.agree(i[1]), overview_inputs, ("bf16", "fp16", "fp32"),
        copied_bytes=4 * 2 * kernels.HEAD_CHANNELS * cells_of_it, vector_flops=2 * 19 * 25 * 16 * 12.0 * cells_of_it,
    )  # fmt: skip
    def remember_inputs(dtype: str, seed: int) -> Any:
        normal, grid = draw(seed), kernels.grid_size(*few)
        head, before = (normal(1, *grid, kernels.HEAD_CHANNELS, dtype=DTYPES[dtype]) for _ in range(2))
        return head, before, normal(1, 2, *grid)

    yield Case(
        "remember", lambda i: kernels.remember(i[0].clone(), *i[1:]), remember_inputs, ("bf16", "fp16", "fp32"),
        copied_bytes=(2 * 2 * kernels.HEAD_CHANNELS + 2 * 2 * 4 * 19 + 2 * 120 + 8.0) * cells_of_it,
        vector_flops=4800.0 * cells_of_it,
    )  # fmt: skip
    yield Case(
        "overview", lambda i: kernels.overview(i[0].clone(), i[1], scale), overview_inputs, ("bf16", "fp16", "fp32"),
        copied_bytes=(2 * 2 * kernels.HEAD_CHANNELS + 328.0) * cells, vector_flops=4800.0 * cells,
    )  # fmt: skip

    def depth_inputs(_: str, seed: int) -> Any:
        # Surfaces that tilt, turn and part: of depths without order every value would be a line.
        steps = draw(seed)(1, 1, layout.height, layout.width)
        metres = 20.0 + 0.02 * steps.cumsum(-1) + 15.0 * (steps > 2.5).cumsum(-1).remainder(2)
        return (metres.clamp_min(0.1),)

    yield Case(
        "depth_lines", lambda i: kernels.depth_lines(*i), depth_inputs, ("fp32",),
        copied_bytes=8.0 * pixels, vector_flops=25.0 * pixels, thresholds=True,
    )  # fmt: skip

    def line_inputs(_: str, seed: int) -> Any:
        lines = (draw(seed)(1, 1, layout.height, layout.width) - 1.5).clamp(0, 1)
        return lines, torch.full((1,), 0.5, device=device)

    yield Case(
        "trace_lines", lambda i: kernels.trace_lines(*i), line_inputs, ("fp32",),
        copied_bytes=8.0 * pixels, vector_flops=60.0 * pixels,
    )  # fmt: skip

    yield Case(
        "colour_lines", lambda i: kernels.colour_lines(i[0], layout), lambda dtype, seed: (frame(seed),), ("fp32",),
        copied_bytes=4.0 * pixels + 20 * 64 * cells, vector_flops=110.0 * 64 * cells,
    )  # fmt: skip

    def memory_inputs(dtype: str, seed: int) -> Any:
        normal = draw(seed)
        shapes = ((s, c1 + s + 1), (s,), (c1, s), (c1,), (s, c1 + s + 1), (s,), (s, c1), (s,))
        weights = kernels.pack_memory(*(normal(*shape, scale=0.05) for shape in shapes), dtype=DTYPES[dtype])
        state = normal(1, h // 2, w // 2, s).tanh().to(DTYPES[dtype])
        valid = normal(1, h // 2, w // 2, 1).sigmoid().to(DTYPES[dtype])
        return normal(1, h // 2, w // 2, c1, dtype=DTYPES[dtype]), state, valid, weights

    def warp_inputs(dtype: str, seed: int) -> Any:
        normal = draw(seed)
        stored = kernels.pack_state(normal(1, h // 2, w // 2, s, scale=0.5))
        moved = normal(1, 2, h // 2, w // 2, scale=20.0), normal(1, 1, h // 2, w // 2).sigmoid()
        return stored, *moved, DTYPES[dtype]

    half = cells // 4
    floats = ("bf16", "fp16", "fp32")
    yield Case(
        "warp_state", lambda i: kernels.warp_state(*i)[0], warp_inputs, floats,
        copied_bytes=half * (s + 12.0 + 2 * s + 2), vector_flops=10.0 * half * s,
    )  # fmt: skip
    yield Case(
        "memory_read", lambda i: kernels.memory_read(*i), memory_inputs, floats,
        copied_bytes=2.0 * half * (2 * c1 + s), matrix_flops=2.0 * half * s * (2 * c1 + s),
    )  # fmt: skip
    yield Case(
        "memory_write", lambda i: kernels.memory_write(*i, packed=False), memory_inputs, floats,
        copied_bytes=half * (2.0 * c1 + 4 * s), matrix_flops=2.0 * half * s * (2 * c1 + s),
    )  # fmt: skip

    def noise_inputs(_: str, seed: int) -> Any:
        normal = draw(seed)
        field_shape = (1, 1, 4 * h, 4 * w)
        number = torch.tensor([seed], device=device)
        visible = normal(*field_shape) > -1
        return normal(*field_shape), normal(1, 2, 4 * h, 4 * w, scale=6.0), visible, number, number

    yield Case(
        "advect_noise", lambda i: kernels.advect_noise(*i), noise_inputs, ("fp32",),
        copied_bytes=17.0 * 16 * cells,
        vector_flops=120.0 * 16 * cells,
    )  # fmt: skip

    def solver_inputs(dtype: str, seed: int) -> Any:
        normal = draw(seed)
        y0, x = (normal(1, h, w, 192, dtype=DTYPES[dtype]) for _ in range(2))
        return y0, x, normal(1, 1, 4 * h, 4 * w), normal(1).sigmoid(), 0.25

    yield Case(
        "solver_step", lambda i: kernels.solver_step(*i), solver_inputs, floats,
        copied_bytes=cells * (6.0 * 192 + 64), vector_flops=5.0 * 192 * cells,
    )  # fmt: skip
    yield Case(
        "drift_statistics", lambda i: kernels.drift_statistics(i[0], 33),
        lambda dtype, seed: (draw(seed)(1, h, w, kernels.EDIT_CHANNELS, dtype=DTYPES[dtype]),), floats,
        copied_bytes=2.0 * kernels.EDIT_CHANNELS * cells, vector_flops=12.0 * kernels.EDIT_CHANNELS * cells,
    )  # fmt: skip

    points = kernels.line_points(layout.height, layout.width)

    def compose_inputs(dtype: str, seed: int) -> Any:
        normal = draw(seed)
        anchors = torch.cat([normal(1, h, w, 12).tanh(), normal(1, h, w, 4).softmax(-1)], -1)
        pens = normal(1, h, w, 8).sigmoid()
        edit = torch.cat([normal(1, h, w, 240, scale=0.1), anchors, pens], -1).to(DTYPES[dtype])
        seed_tensor = torch.tensor([seed], device=device)
        moved = normal(1, 2, h, w, scale=5.0), normal(1, 1, h, w).sigmoid()
        lines = normal(1, 2, *points).clamp(0, 1).half()
        return frame(seed), edit, torch.ones(1, device=device), seed_tensor, *moved, lines

    def run_compose(i: Any) -> Tensor:
        return kernels.compose(i[0], layout, i[1], i[2], dither=i[3], lines=i[6])

    def run_late(i: Any) -> Tensor:
        return kernels.compose(i[0], layout, i[1], i[2], dither=i[3], motion=i[4], visible=i[5], lines=i[6])

    def pixelate_inputs(dtype: str, seed: int) -> Any:
        return frame(seed), torch.full((1,), 0.8, device=device)

    yield Case(
        "pixelate", lambda i: kernels.pixelate(i[0].clone(), layout, i[1]), pixelate_inputs, ("fp32",),
        copied_bytes=16.0 * pixels, vector_flops=40.0 * pixels, whole_numbers=True,
    )  # fmt: skip

    def steady_inputs(dtype: str, seed: int) -> Any:
        kept = torch.cat([draw(seed)(1, h, w, 6, scale=0.3), torch.ones(1, h, w, 1, device=device)], -1)
        rows = (torch.arange(4 * h, device=device) * 2).clamp_max(layout.height - 1)
        columns = (torch.arange(4 * w, device=device) * 2).clamp_max(layout.width - 1)
        return frame(seed), rows, columns, compose_inputs(dtype, seed)[1], kept, torch.empty_like(kept)

    yield Case(
        "steady", lambda i: kernels.steady(i[0], layout, i[1], i[2], i[3].clone(), i[4], i[5]), steady_inputs, floats,
        copied_bytes=(2 * 528 + 528 + 64 + 4 * 28 + 48) * float(cells), vector_flops=700.0 * cells,
    )  # fmt: skip

    for name, run, more in (("compose", run_compose, 0), ("compose, late answer", run_late, 60)):
        yield Case(
            name, run, compose_inputs, floats, copied_bytes=8.0 * pixels + 4.0 * points[0] * points[1] + 528 * cells,
            vector_flops=(2 * (192 + 12) + 16 * 14 + 100.0 + more) * pixels, whole_numbers=True,
        )  # fmt: skip


@contextmanager
def _side(name: kernels.Backend) -> Iterator[None]:
    before = kernels.use(name)
    try:
        yield
    finally:
        kernels.use(before)


@contextmanager
def _poisoned() -> Iterator[None]:
    """Fill what launchers allocate: an entry that no program writes is then NaN, or 77."""
    empty, empty_like = torch.empty, torch.empty_like

    def fill(x: Tensor) -> Tensor:
        return x.fill_(torch.nan if x.dtype.is_floating_point else 77)

    with (
        mock.patch("torch.empty", lambda *a, **k: fill(empty(*a, **k))),
        mock.patch("torch.empty_like", lambda *a, **k: fill(empty_like(*a, **k))),
    ):
        yield


def accuracy(device: torch.device, size: tuple[int, int], seed: int) -> Iterator[dict[str, Any]]:
    """Each case in each dtype against fp64; rows with the error, the bound and its reason."""
    ours: kernels.Backend = "triton" if device.type == "cuda" else "auto"
    for case in cases(size, device):
        for dtype in case.dtypes:
            if dtype == "fp8" and device.type == "cuda" and torch.cuda.get_device_capability() < (8, 9):
                continue
            inputs = case.inputs(dtype, seed)
            with _side(ours), _poisoned():
                actual = case.run(inputs)
            row: dict[str, Any] = {"case": case.name, "dtype": dtype}
            if case.whole_numbers:
                with _side("reference"):
                    expected = case.run(inputs)
                off = (actual.int() - expected.int()).abs()
                row |= {"error": float((off > 0).float().mean()), "largest": int(off.max()), "bound": 1e-2}
                row |= {"reason": "bytes that differ, by one: a value at its dither's threshold"}
                row["right"] = row["error"] <= row["bound"] and row["largest"] <= 1
            else:
                # These fix their own precision; everything else is asked for in fp64.
                fixed = case.name in ("advect_noise", "drift_statistics", "steady")
                with _side("reference"):
                    expected = case.run(inputs if fixed else _reference_inputs(inputs))
                off = actual.double() - expected.double()
                error, (bound, reason) = float(off.norm() / expected.double().norm()), TOLERANCE[dtype]
                if case.thresholds:
                    error = float((off.abs() > 1e-3).double().mean())
                    bound, reason = 1e-3, "points that differ: the chip's 1 / z is one bit off, and a line there or not"
                row |= {"error": error, "bound": bound, "reason": reason, "right": error <= bound}
            yield row


def _reference_inputs(inputs: Any) -> Any:
    wide = _widened(inputs)
    # A dtype among the inputs is the one to answer in.
    return tuple(torch.float64 if isinstance(x, torch.dtype) else x for x in wide)


def _ceilings(device: torch.device) -> dict[str, float]:
    """Measured copy bandwidth (bytes read plus written) and bf16 matrix rate."""
    big = torch.randn(2**28 if device.type == "cuda" else 2**22, device=device)
    other = torch.empty_like(big)
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    copy = _time(lambda _: other.copy_(big), [None], device, 10)["p50"]
    product = _time(lambda _: a @ b, [None], device, 10)["p50"]
    return {"copy_bytes_per_s": 8e6 * big.numel() / copy, "bf16_flops_per_s": 2e6 * side**3 / product}


def _time(run: Callable[[Any], Any], sets: list[Any], device: torch.device, repeats: int) -> dict[str, float]:
    """Microseconds per call, p20/p50/p80. On CUDA a graph of one call per input set is replayed."""
    if device.type != "cuda":
        times = []
        run(sets[0])
        for i in range(repeats):
            start = time.perf_counter()
            run(sets[i % len(sets)])
            times.append((time.perf_counter() - start) * 1e6)
    else:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for inputs in sets:
                run(inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for inputs in sets:
                run(inputs)
        marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
        for _ in range(3):
            graph.replay()
        for start_mark, end_mark in marks:
            start_mark.record()
            graph.replay()
            end_mark.record()
        torch.cuda.synchronize()
        times = [a.elapsed_time(b) * 1e3 / len(sets) for a, b in marks]
    times.sort()
    return {f"p{q}": times[min(len(times) - 1, len(times) * q // 100)] for q in (20, 50, 80)}


def _speed(
    case: Case, size: str, device: torch.device, ceilings: dict[str, float], quick: bool, compiled: bool
) -> Speed:
    dtype = "bf16" if "bf16" in case.dtypes else case.dtypes[0]
    # Inputs together beyond the 60 MB of an L2 cache, so that each call reads device memory.
    count = 1 if quick else max(2, min(16, int(150e6 / max(case.copied_bytes, 1)) + 1))
    sets = [case.inputs(dtype, seed) for seed in range(count)]
    repeats = 2 if quick else 25
    with _side("triton" if device.type == "cuda" else "auto"):
        ours = _time(case.run, sets, device, repeats)
    floor = None
    if device.type == "cuda":
        floor = 1e6 * max(
            case.copied_bytes / ceilings["copy_bytes_per_s"],
            case.matrix_flops / ceilings["bf16_flops_per_s"],
            case.vector_flops / FP32_FLOPS,
        )
    eager = squeezed = None
    with _side("reference"):
        if device.type == "cuda":
            eager = _time(case.run, sets[:2], device, 10)["p50"]
        if compiled:
            squeezed = _compiled(case, sets[:2], device)
    share = None if floor is None else floor / ours["p50"]
    return Speed(case.name, size, dtype, ours, eager, squeezed, floor, share)


def _overview_parts(head: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, tuple[float, float]]:
    scale = coarse.shape[1] / head.shape[1], coarse.shape[2] / head.shape[2]
    return kernels.split_head(head)[2], kernels.split_head(coarse)[2], scale


def _shade_parts(head: Tensor, noise: Tensor, there: Tensor, style: Tensor) -> tuple[Tensor, ...]:
    matrices, detail, words = kernels.split_head(head)
    return words, detail, matrices, noise, there, style


_REFERENCES = {
    "block": lambda i: kernels.block_reference(*i),
    "linear down": lambda i: kernels.linear_reference(i[0], *i[1], "down", i[2], i[3]),
    "linear up": lambda i: kernels.linear_reference(i[0], *i[1], "up", i[2], i[3]),
    "linear head": lambda i: kernels.linear_reference(i[0], *i[1], "head", i[2], i[3]),
    "warp_state": lambda i: kernels.warp_state_reference(*i)[0],
    "agree": lambda i: kernels.agreed(kernels.split_head(i[1])[2]),
    "remember": lambda i: kernels.remembered(*(kernels.split_head(head)[2] for head in i[:2]), i[2]),
    "overview": lambda i: kernels.told_by_overview(*_overview_parts(*i)),
    "shade": lambda i: kernels.shade_reference(*_shade_parts(*i)),
    "depth_lines": lambda i: kernels.depth_lines_reference(*i),
    "trace_lines": lambda i: kernels.trace_lines_reference(*i),
    "memory_read": lambda i: kernels.memory_read_reference(*i),
    "memory_write": lambda i: kernels.memory_write_reference(*i, False),
    "solver_step": lambda i: kernels.solver_step_reference(*i),
    "drift_statistics": lambda i: kernels.drift_statistics_reference(i[0], 33, 1.0),
}
"""What `torch.compile` is given: the reference itself, since an op of ours is opaque to it."""


def _compiled(case: Case, sets: list[Any], device: torch.device) -> float | None:
    reference = _REFERENCES.get("block" if case.name.startswith("block") else case.name)
    if reference is None:
        return None  # views of bytes as words: the compiler leaves those to eager, which is timed beside it
    try:
        return _time(torch.compile(reference, dynamic=False), sets, device, 10)["p50"]
    except Exception as error:  # a compiler's failure is a row without a figure, not the end of the table
        print(f"  torch.compile gave up on {case.name}: {type(error).__name__}", file=sys.stderr)
        return None


def _sanitizer(quick: bool) -> str:
    """Run the accuracy part under compute-sanitizer on small shapes: "clean", "absent" or its last words."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or quick or not torch.cuda.is_available():
        return "absent"
    command = [
        tool,
        "--tool",
        "memcheck",
        "--error-exitcode",
        "9",
        sys.executable,
        __file__,
        "--accuracy-only",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ.copy())
    except subprocess.TimeoutExpired:
        return "did not finish in 60 s"
    return "clean" if done.returncode == 0 else (done.stdout + done.stderr)[-400:]


def main(arguments: list[str] | None = None) -> int:
    """Run both parts, print the tables, write the JSON; 1 where an answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small frames, few repeats, no torch.compile")
    parser.add_argument("--accuracy-only", action="store_true", help="part one alone, on small frames")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device: run with --device cpu --quick", file=sys.stderr)
        return 2
    began = time.perf_counter()
    seed = int(time.time())
    machine = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "triton": kernels.launch.triton.__version__ if kernels.HAS_TRITON else None,  # type: ignore[attr-defined]
        "python": platform.python_version(),
        "seed": seed,
    }
    print(json.dumps(machine))

    rows = []
    # 72 x 104 pixels: no multiple of a tile, a cell row and a cell column beyond the frame.
    shapes = [(72, 104)] if options.quick or options.accuracy_only else [(72, 104), (360, 640)]
    for shape in shapes:
        for row in accuracy(device, shape, seed):
            row["size"] = f"{shape[1]}x{shape[0]}"
            rows.append(row)
            print(
                f"{row['case']:32} {row['size']:8} {row['dtype']:5} error {row['error']:.2e} "
                f"of {row['bound']:.0e} "
                f"{'' if row['right'] else 'WRONG'}",
                flush=True,
            )
    wrong = sum(not row["right"] for row in rows)
    result: dict[str, Any] = {"machine": machine, "accuracy": rows}
    if not options.accuracy_only:
        ceilings = _ceilings(device)
        result["ceilings"] = ceilings
        print(" ".join(f"{k} {v:.3g}" for k, v in ceilings.items()))
        speeds = []
        named = {"360p/4": (96, 160)} if options.quick else SIZES
        for name, shape in named.items():
            for case in cases(shape, device):
                # The compiler takes seconds a case: one size of three, and only while time is left.
                compiled = name == "1080p" and time.perf_counter() - began < 150
                speed = _speed(case, name, device, ceilings, options.quick, compiled)
                speeds.append(vars(speed) if hasattr(speed, "__dict__") else speed)
                print(
                    f"{case.name:32} {name:6} {speed.dtype:5} {speed.ours_us['p50']:9.1f} us"
                    + (f"  floor {speed.floor_us:7.1f} ({speed.share_of_floor:.0%})" if speed.floor_us else "")
                    + (f"  eager {speed.eager_us:9.1f}" if speed.eager_us else "")
                    + (f"  compiled {speed.compiled_us:9.1f}" if speed.compiled_us else ""),
                    flush=True,
                )
        result["speed"] = speeds
        result["sanitizer"] = _sanitizer(options.quick)
        known = [s["share_of_floor"] for s in speeds if s["share_of_floor"] and s["ours_us"]["p50"] > 20]
        if known:
            print(f"of the floor, kernels above 20 us: median {statistics.median(known):.0%}, least {min(known):.0%}")
    result["seconds"] = round(time.perf_counter() - began, 1)
    print(f"{len(rows)} answers, {wrong} wrong; {result['seconds']} s")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

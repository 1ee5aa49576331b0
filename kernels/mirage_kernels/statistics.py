# mypy: disable-error-code="no-untyped-def"
"""statistics: what an error corrector must know of a tensor, in one pass and without a synchronisation.

Per frame and group of neighbouring channels: mean, mean square, least, greatest, the count of NaN and the
count of infinities. Only finite values enter the first four; of none at all, mean and mean square are 0 and
the bounds +inf and -inf. The answer stays on the device: a controller compares it there, or copies it when it
is done.

Two launches, because an order must be fixed: programs reduce runs of cells, then one program a frame adds the
runs up. (Atomic sums would depend on timing.)

Floor: every byte once; about 12 operations a value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mirage_kernels.launch import FLOATS, Config, check, jit, launch, on_triton, recording, require, tl

__all__ = ["STATISTICS", "drift_statistics", "drift_statistics_reference", "drift_statistics_triton"]

STATISTICS = ("mean", "mean_square", "least", "greatest", "nans", "infinities")
"""The last dimension of the answer."""


def drift_statistics_reference(x: Tensor, groups: int, scale: float) -> Tensor:
    """The definition of `drift_statistics`."""
    n, c = x.shape[0], x.shape[-1]
    v = x.reshape(n, math.prod(x.shape[1:-1]), groups, c // groups).transpose(1, 2).flatten(2).double() * scale
    finite, nan = v.isfinite(), v.isnan()
    count = finite.sum(-1).clamp_min(1)
    zero = torch.where(finite, v, 0.0)
    return torch.stack(
        [
            zero.sum(-1) / count,
            zero.square().sum(-1) / count,
            torch.where(finite, v, torch.inf).amin(-1),
            torch.where(finite, v, -torch.inf).amax(-1),
            nan.sum(-1).double(),
            v.isinf().sum(-1).double(),
        ],
        -1,
    ).float()


@jit
def _statistics_runs_kernel(
    x_ptr,  # [N, cells, C]
    partial_ptr,  # [N, RUNS, 6, CP] fp32: sum, sum of squares, least, greatest, NaN, infinities
    cells,
    scale,
    C: tl.constexpr,
    CP: tl.constexpr,
    RUNS: tl.constexpr,
    STEPS: tl.constexpr,
    BM: tl.constexpr,
):
    run = tl.program_id(0)
    frame = tl.program_id(1)
    c = tl.arange(0, CP)
    base = x_ptr + frame.to(tl.int64) * cells * C
    total = tl.zeros([BM, CP], tl.float32)
    square = tl.zeros([BM, CP], tl.float32)
    least = tl.full([BM, CP], float("inf"), tl.float32)
    greatest = tl.full([BM, CP], float("-inf"), tl.float32)
    nans = tl.zeros([BM, CP], tl.float32)
    infinities = tl.zeros([BM, CP], tl.float32)
    for step in tl.range(0, STEPS):
        row = (step * RUNS + run) * BM + tl.arange(0, BM)
        keep = (row < cells)[:, None] & (c < C)[None, :]
        v = tl.load(base + row[:, None] * C + c[None, :], mask=keep, other=0).to(tl.float32) * scale
        nan = keep & (v != v)
        # Of these three, `abs(v) < inf` holds for finite values alone.
        finite = keep & (tl.abs(v) < float("inf"))
        zero = tl.where(finite, v, 0.0)
        total += zero
        square += zero * zero
        least = tl.minimum(least, tl.where(finite, v, float("inf")))
        greatest = tl.maximum(greatest, tl.where(finite, v, float("-inf")))
        nans += tl.where(nan, 1.0, 0.0)
        infinities += tl.where(keep & (nan == 0) & (finite == 0), 1.0, 0.0)
    out = partial_ptr + (frame * RUNS + run) * 6 * CP + c
    tl.store(out, tl.sum(total, 0))
    tl.store(out + CP, tl.sum(square, 0))
    tl.store(out + 2 * CP, tl.min(least, 0))
    tl.store(out + 3 * CP, tl.max(greatest, 0))
    tl.store(out + 4 * CP, tl.sum(nans, 0))
    tl.store(out + 5 * CP, tl.sum(infinities, 0))


@jit
def _statistics_sum_kernel(
    partial_ptr,  # [N, RUNS, 6, CP] fp32
    out_ptr,  # [N, G, 6] fp32
    cells,
    C: tl.constexpr,
    CP: tl.constexpr,
    GROUPS: tl.constexpr,
    RUNS: tl.constexpr,
    BR: tl.constexpr,
):
    frame = tl.program_id(1)
    group = tl.program_id(0)
    WIDTH: tl.constexpr = C // GROUPS
    c = tl.arange(0, CP)
    inside = ((c >= group * WIDTH) & (c < (group + 1) * WIDTH))[None, :]
    total = tl.zeros([CP], tl.float32)
    square = tl.zeros([CP], tl.float32)
    least = tl.full([CP], float("inf"), tl.float32)
    greatest = tl.full([CP], float("-inf"), tl.float32)
    nans = tl.zeros([CP], tl.float32)
    infinities = tl.zeros([CP], tl.float32)
    for first in tl.range(0, RUNS, BR):
        r = first + tl.arange(0, BR)
        keep = (r < RUNS)[:, None] & inside
        at = partial_ptr + (frame * RUNS + r)[:, None] * (6 * CP) + c[None, :]
        total += tl.sum(tl.load(at, mask=keep, other=0.0), 0)
        square += tl.sum(tl.load(at + CP, mask=keep, other=0.0), 0)
        least = tl.minimum(least, tl.min(tl.load(at + 2 * CP, mask=keep, other=float("inf")), 0))
        greatest = tl.maximum(greatest, tl.max(tl.load(at + 3 * CP, mask=keep, other=float("-inf")), 0))
        nans += tl.sum(tl.load(at + 4 * CP, mask=keep, other=0.0), 0)
        infinities += tl.sum(tl.load(at + 5 * CP, mask=keep, other=0.0), 0)
    total = tl.sum(total, 0)
    square = tl.sum(square, 0)
    least = tl.min(least, 0)
    greatest = tl.max(greatest, 0)
    nans = tl.sum(nans, 0)
    infinities = tl.sum(infinities, 0)
    count = tl.maximum(cells * (WIDTH * 1.0) - nans - infinities, 1.0)
    out = out_ptr + (frame * GROUPS + group) * 6
    tl.store(out, total / count)
    tl.store(out + 1, square / count)
    tl.store(out + 2, least)
    tl.store(out + 3, greatest)
    tl.store(out + 4, nans)
    tl.store(out + 5, infinities)


# Six running values of 2048 entries are 48 registers of 256 threads; wider tensors take fewer rows.
_ENTRIES, _WARPS = 2048, 8
# Two runs for each multiprocessor of an H200, at most.
_RUNS = 256
_SUM = Config({"BR": 8}, 4, 1)


def drift_statistics_triton(x: Tensor, groups: int, scale: float) -> Tensor:
    """Launch the kernels of `drift_statistics` on checked arguments."""
    n, c = x.shape[0], x.shape[-1]
    cells = math.prod(x.shape[1:-1])
    out = torch.empty(n, groups, len(STATISTICS), device=x.device)
    padded = max(4, 1 << (c - 1).bit_length())
    rows = _ENTRIES // padded
    blocks = -(-cells // rows)
    runs = min(_RUNS, blocks)
    # A power of two of steps: few distinct programs, whatever the frame's size.
    steps = 1 << (-(-blocks // max(runs, 1)) - 1).bit_length()
    partial = torch.empty(n, runs, 6, padded, device=x.device)
    shared = {"C": c, "CP": padded, "RUNS": runs}
    args = {"x_ptr": x, "partial_ptr": partial, "cells": cells, "scale": float(scale)}
    launch(_statistics_runs_kernel, (runs, n), args, {**shared, "STEPS": steps}, Config({"BM": rows}, _WARPS, 2))
    last = {"partial_ptr": partial, "out_ptr": out, "cells": cells}
    launch(_statistics_sum_kernel, (groups, n), last, {**shared, "GROUPS": groups}, _SUM)
    return out


@torch.library.custom_op(
    "mirage::drift_statistics", mutates_args=(), schema="(Tensor x, int groups, float scale) -> Tensor"
)
def _op(x: Tensor, groups: int, scale: float) -> Tensor:
    require(x.dim() >= 3, f"x has shape {list(x.shape)}; it must be [N, ..., C]")
    check("x", x, tuple(x.shape), (torch.int8, torch.uint8, *FLOATS))
    c = x.shape[-1]
    require(0 < c <= 1024, f"{c} channels: the kernel holds at most 1024")
    require(groups > 0 and c % groups == 0, f"{groups} groups do not divide {c} channels")
    require(x.shape[0] == 0 or x[0].numel() > 0, "a frame of no values has no statistics")
    return (drift_statistics_triton if on_triton(x) else drift_statistics_reference)(x, groups, scale)


@_op.register_fake
def _fake(x: Tensor, groups: int, scale: float) -> Tensor:
    return x.new_empty(x.shape[0], groups, len(STATISTICS), dtype=torch.float32)


def drift_statistics(x: Tensor, groups: int = 1, *, scale: float = 1.0) -> Tensor:
    """Return fp32 [N, groups, 6] (`STATISTICS`) of `x` [N, ..., C], C ≤ 1024, contiguous.

    `x` may be a state (int8 with `scale` 1/127, or float), an edit, or a frame of bytes. Groups are runs of
    C / groups neighbouring channels. Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return drift_statistics_triton(x, groups, scale)
    out: Tensor = torch.ops.mirage.drift_statistics(x, groups, scale)
    return out

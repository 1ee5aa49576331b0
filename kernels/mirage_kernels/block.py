# mypy: disable-error-code="no-untyped-def,assignment"
# ruff: noqa: RUF005 - Triton's tuples know `+` and not `*`
"""block: the network's residual block, the hidden activation never in device memory.

    out = x + gate * (W2 silu(W1 a + b1) + b2),    a = rmsnorm(depthwise5x5(x)) * (1 + scale) + shift

x [N, h, w, C] NHWC; scale, shift, gate [N, C] are the frame's FiLM; the norm is over channels, per cell.

A program takes a tile of cells with all their channels: it makes `a` for the tile (which the compiler keeps
in shared memory as the left operand), then walks over the hidden channels in chunks; a chunk of hidden
activation is born in registers, goes through SiLU and straight into the second product. Up to 192 channels
that is the whole block in one launch. Wider tiles leave no registers for the depthwise part beside their
sums: it is then a launch of its own, which leaves its result and 1 / RMS in the L2 cache. Where the tiles of
a frame are fewer than the chip's multiprocessors, the hidden channels are split over programs as well; their
fp32 partial sums are added in one more small launch in a fixed order, so that the answer does not depend on
timing.

Floor: reads and writes `2 * N*h*w * C * 2` bytes (bf16) and the weights once, `4 * C * C * 2` at expand 2;
`N*h*w * 8 * C * C` operations on the tensor cores and `N*h*w * 50 * C` beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.launch import (
    FLOATS,
    Config,
    KernelError,
    check,
    divisor,
    jit,
    launch,
    on_triton,
    recording,
    require,
    roomy,
    tl,
    wide,
)

__all__ = ["BlockWeights", "block", "block_reference", "block_triton", "pack_block", "rms_film"]


class BlockWeights(NamedTuple):
    """A block's weights as the kernel reads them.

    `depthwise` fp32 [25, C] with `depthwise_bias` fp32 [C]; `expand` [H, C] and `project` [C, H] in the
    compute dtype, as `nn.Linear` holds them; `expand_bias` fp32 [H], `project_bias` fp32 [C].
    """

    depthwise: Tensor
    depthwise_bias: Tensor
    expand: Tensor
    expand_bias: Tensor
    project: Tensor
    project_bias: Tensor


def pack_block(
    depthwise: Tensor,
    depthwise_bias: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    project: Tensor,
    project_bias: Tensor,
    *,
    dtype: torch.dtype,
) -> BlockWeights:
    """Pack the parameters of a trained block: `depthwise` [C, 1, 5, 5], the rest as in `nn.Linear`."""
    c = depthwise.shape[0]
    return BlockWeights(
        wide(depthwise).view(c, 25).t().contiguous(),
        wide(depthwise_bias).contiguous(),
        expand.to(dtype).contiguous(),
        wide(expand_bias).contiguous(),
        project.to(dtype).contiguous(),
        wide(project_bias).contiguous(),
    )


def rms_film(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """RMSNorm over the channels of x [N, h, w, C] with FiLM; scale, shift [N, C]. In x's dtype."""
    inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    return x * inverse * (1 + scale[:, None, None]) + shift[:, None, None]


def block_reference(x: Tensor, film: Tensor, weights: BlockWeights) -> Tensor:
    """The definition of `block`, in fp32."""
    c = x.shape[-1]
    v = wide(x)
    compute = v.dtype
    dw, dw_bias, expand, expand_bias, project, project_bias = (part.to(compute) for part in weights)
    scale, shift, gate = film.to(compute).chunk(3, dim=-1)
    kernel = dw.t().reshape(c, 1, 5, 5)
    y = functional.conv2d(v.permute(0, 3, 1, 2), kernel, dw_bias, padding=2, groups=c).permute(0, 2, 3, 1)
    hidden = functional.silu(functional.linear(rms_film(y, scale, shift), expand, expand_bias))
    return (v + functional.linear(hidden, project, project_bias) * gate[:, None, None]).to(x.dtype)


@jit
def _cells_of(start, h, w, TH: tl.constexpr, TW: tl.constexpr):
    """(y, x, whether it is there) of a tile's cells: TH x TW, or a run in memory order where TH is 1."""
    p = tl.arange(0, TH * TW)
    if TH == 1:
        # No run is cut by the frame's edge but the last.
        index = start * TW + p
        y, x = index // w, index % w
        keep = index < h * w
    else:
        across = tl.cdiv(w, TW)
        y = start // across * TH + p // TW
        x = start % across * TW + p % TW
        keep = (y < h) & (x < w)
    return y, x, keep


@jit
def _depthwise(base, weight_ptr, bias_ptr, py, px, keep, c, h, w, C: tl.constexpr, P: tl.constexpr, BK: tl.constexpr):
    """Depthwise 5x5 of the channels c at the cells (py, px), fp32 [P, BK]."""
    y = tl.zeros([P, BK], tl.float32) + tl.load(bias_ptr + c)[None, :]
    # Rows in a real loop: unrolled as well, the code of one channel chunk would be 25 tile loads long.
    for ty in tl.range(0, 5):
        iy = py + (ty - 2)
        row_in = keep & (iy >= 0) & (iy < h)
        for tx in tl.static_range(5):
            ix = px + (tx - 2)
            inside = row_in & (ix >= 0) & (ix < w)
            at = base + (iy * w + ix)[:, None] * C + c[None, :]
            tap = tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
            y += tap * tl.load(weight_ptr + (ty * 5 + tx) * C + c)[None, :]
    return y


@jit
def _depthwise_kernel(
    x_ptr,  # [N, h, w, C]
    depthwise_ptr,  # [25, C] fp32
    depthwise_bias_ptr,  # [C] fp32
    out_ptr,  # [N, h, w, C]
    inverse_ptr,  # [N, h, w] fp32: 1 / RMS over the channels
    h,
    w,
    C: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    BK: tl.constexpr,
):
    frame = tl.program_id(1)
    py, px, keep = _cells_of(tl.program_id(0), h, w, TH, TW)
    start = frame.to(tl.int64) * h * w
    cell = py * w + px
    square = tl.zeros([TH * TW], tl.float32)
    for i in tl.range(0, C // BK):
        c = i * BK + tl.arange(0, BK)
        base = x_ptr + start * C
        y = _depthwise(base, depthwise_ptr, depthwise_bias_ptr, py, px, keep, c, h, w, C, TH * TW, BK)
        square += tl.sum(y * y, axis=1)
        at = out_ptr + start * C + cell[:, None] * C + c[None, :]
        tl.store(at, y.to(x_ptr.dtype.element_ty), mask=keep[:, None])
    tl.store(inverse_ptr + start + cell, tl.rsqrt(square / C + 1e-6), mask=keep)


@jit
def _block_kernel(
    x_ptr,  # [N, h, w, C]
    film_ptr,  # [N, 3C] fp32, rows film_stride apart
    depthwise_ptr,  # [25, C] fp32; where not FUSED, what _depthwise_kernel made: [N, h, w, C]
    depthwise_bias_ptr,  # [C] fp32; where not FUSED, 1 / RMS: fp32 [N, h, w]
    expand_ptr,  # [H, C]
    expand_bias_ptr,  # [H] fp32
    project_ptr,  # [C, H]
    project_bias_ptr,  # [C] fp32
    out_ptr,  # [N, h, w, C], or fp32 partial sums [SPLIT, N, h, w, C]
    film_stride,
    h,
    w,
    C: tl.constexpr,
    HIDDEN: tl.constexpr,
    EXACT: tl.constexpr,
    FUSED: tl.constexpr,
    TH: tl.constexpr,
    TW: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    BH: tl.constexpr,
    SPLIT: tl.constexpr,
):
    P: tl.constexpr = TH * TW
    frame = tl.program_id(1)
    part = tl.program_id(2)
    py, px, keep = _cells_of(tl.program_id(0), h, w, TH, TW)
    cell = py * w + px
    start = frame.to(tl.int64) * h * w
    base = x_ptr + start * C
    film_ptr += frame * film_stride
    dtype = x_ptr.dtype.element_ty
    precision: tl.constexpr = "ieee" if EXACT else "tf32"
    kk = tl.arange(0, BK)

    a = ()
    if FUSED:
        square = tl.zeros([P], tl.float32)
        for i in tl.static_range(C // BK):
            c = i * BK + kk
            y = _depthwise(base, depthwise_ptr, depthwise_bias_ptr, py, px, keep, c, h, w, C, P, BK)
            square += tl.sum(y * y, axis=1)
            a = a + (y.to(dtype),)
        inverse = tl.rsqrt(square / C + 1e-6)
    else:
        inverse = tl.load(depthwise_bias_ptr + start + cell, mask=keep, other=0.0)
        for i in tl.static_range(C // BK):
            at = depthwise_ptr + start * C + cell[:, None] * C + (i * BK + kk)[None, :]
            a = a + (tl.load(at, mask=keep[:, None], other=0.0),)
    normed = ()
    for i in tl.static_range(C // BK):
        c = i * BK + kk
        scale = 1.0 + tl.load(film_ptr + c)
        shift = tl.load(film_ptr + C + c)
        value = a[i].to(tl.float32) * inverse[:, None] * scale[None, :] + shift[None, :]
        normed = normed + (value.to(dtype),)

    nn = tl.arange(0, BN)
    hh = tl.arange(0, BH)
    acc = ()
    for _ in tl.static_range(C // BN):
        acc = acc + (tl.zeros([P, BN], tl.float32),)
    for j in tl.range(0, HIDDEN // SPLIT, BH):
        unit = part * (HIDDEN // SPLIT) + j + hh
        hidden = tl.zeros([P, BH], tl.float32) + tl.load(expand_bias_ptr + unit)[None, :]
        for i in tl.static_range(C // BK):
            weight = tl.load(expand_ptr + unit[None, :] * C + (i * BK + kk)[:, None])
            hidden = tl.dot(normed[i], weight, hidden, input_precision=precision)
        active = (hidden * tl.sigmoid(hidden)).to(dtype)
        new = ()
        for i in tl.static_range(C // BN):
            weight = tl.load(project_ptr + (i * BN + nn)[None, :] * HIDDEN + unit[:, None])
            new = new + (tl.dot(active, weight, acc[i], input_precision=precision),)
        acc = new

    for i in tl.static_range(C // BN):
        c = i * BN + nn
        at = cell[:, None] * C + c[None, :]
        if SPLIT == 1:
            gate = tl.load(film_ptr + 2 * C + c)
            y = (acc[i] + tl.load(project_bias_ptr + c)[None, :]) * gate[None, :]
            y += tl.load(base + at, mask=keep[:, None], other=0.0).to(tl.float32)
            tl.store(out_ptr + start * C + at, y.to(dtype), mask=keep[:, None])
        else:
            row = (part * tl.num_programs(1) + frame).to(tl.int64) * h * w * C
            tl.store(out_ptr + row + at, acc[i], mask=keep[:, None])


@jit
def _block_sum_kernel(
    x_ptr,  # [N, h, w, C]
    partial_ptr,  # [SPLIT, N, h, w, C] fp32
    film_ptr,  # [N, 3C] fp32, rows film_stride apart
    bias_ptr,  # [C] fp32
    out_ptr,  # [N, h, w, C]
    film_stride,
    cells,  # h * w
    C: tl.constexpr,
    SPLIT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    frame = tl.program_id(1)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    keep = (row < cells)[:, None]
    start = frame.to(tl.int64) * cells * C
    step = tl.num_programs(1).to(tl.int64) * cells * C
    for i in tl.range(0, C // BN):
        c = i * BN + tl.arange(0, BN)
        at = row[:, None] * C + c[None, :]
        y = tl.zeros([BM, BN], tl.float32) + tl.load(bias_ptr + c)[None, :]
        for s in tl.static_range(SPLIT):
            y += tl.load(partial_ptr + s * step + start + at, mask=keep, other=0.0)
        y *= tl.load(film_ptr + frame * film_stride + 2 * C + c)[None, :]
        y += tl.load(x_ptr + start + at, mask=keep, other=0.0).to(tl.float32)
        tl.store(out_ptr + start + at, y.to(x_ptr.dtype.element_ty), mask=keep)


_ROOMY = {
    # channels: (tiles of many cells, tiles of few). 8x16 cells cover 240x136 exactly, and 128 cells read the
    # weights half as often as 64. Wider channels take smaller tiles: the sums of a tile (cells x channels
    # fp32) live in registers, its left operand (cells x channels) and two stages of weights (2 x BH x
    # channels) in shared memory, 227 KB on Hopper, 163 KB on sm_80.
    64: (Config({"FUSED": 1, "TH": 8, "TW": 16, "BK": 64, "BN": 64, "BH": 64}, 8, 2),
         Config({"FUSED": 1, "TH": 1, "TW": 64, "BK": 64, "BN": 64, "BH": 64}, 4, 2)),
    96: (Config({"FUSED": 1, "TH": 8, "TW": 16, "BK": 32, "BN": 32, "BH": 64}, 8, 2),
         Config({"FUSED": 1, "TH": 1, "TW": 64, "BK": 32, "BN": 32, "BH": 64}, 4, 2)),
    128: (Config({"FUSED": 1, "TH": 8, "TW": 16, "BK": 64, "BN": 128, "BH": 64}, 8, 2),
          Config({"FUSED": 1, "TH": 1, "TW": 64, "BK": 64, "BN": 128, "BH": 64}, 4, 2)),
    160: (Config({"FUSED": 1, "TH": 8, "TW": 8, "BK": 32, "BN": 32, "BH": 64}, 4, 2),
          Config({"FUSED": 1, "TH": 1, "TW": 64, "BK": 32, "BN": 32, "BH": 64}, 4, 2)),
    192: (Config({"FUSED": 1, "TH": 8, "TW": 16, "BK": 64, "BN": 64, "BH": 64}, 8, 2),
          Config({"FUSED": 1, "TH": 1, "TW": 64, "BK": 64, "BN": 64, "BH": 64}, 8, 2)),
    256: (Config({"FUSED": 0, "TH": 8, "TW": 8, "BK": 64, "BN": 128, "BH": 64}, 8, 2),
          Config({"FUSED": 0, "TH": 1, "TW": 64, "BK": 64, "BN": 128, "BH": 64}, 8, 2)),
    384: (Config({"FUSED": 0, "TH": 8, "TW": 8, "BK": 64, "BN": 128, "BH": 32}, 8, 2),
          Config({"FUSED": 0, "TH": 1, "TW": 64, "BK": 64, "BN": 128, "BH": 32}, 8, 2)),
    640: (Config({"FUSED": 0, "TH": 8, "TW": 8, "BK": 64, "BN": 128, "BH": 16}, 8, 2),
          Config({"FUSED": 0, "TH": 1, "TW": 64, "BK": 64, "BN": 128, "BH": 16}, 8, 2)),
}  # fmt: skip
_TIGHT = {
    # 99 KB of shared memory, and fp32 operands on any chip: smaller tiles, narrow chunks.
    64: Config({"FUSED": 1, "TH": 1, "TW": 64, "BK": 32, "BN": 64, "BH": 32}, 4, 2),
    96: Config({"FUSED": 1, "TH": 1, "TW": 32, "BK": 32, "BN": 32, "BH": 32}, 4, 2),
    128: Config({"FUSED": 1, "TH": 1, "TW": 64, "BK": 32, "BN": 64, "BH": 32}, 8, 2),
    160: Config({"FUSED": 1, "TH": 1, "TW": 32, "BK": 32, "BN": 32, "BH": 32}, 4, 2),
    192: Config({"FUSED": 1, "TH": 1, "TW": 32, "BK": 32, "BN": 64, "BH": 32}, 4, 2),
    256: Config({"FUSED": 0, "TH": 1, "TW": 32, "BK": 32, "BN": 64, "BH": 16}, 8, 2),
    384: Config({"FUSED": 0, "TH": 1, "TW": 32, "BK": 32, "BN": 64, "BH": 16}, 8, 2),
    640: Config({"FUSED": 0, "TH": 1, "TW": 16, "BK": 32, "BN": 64, "BH": 16}, 8, 1),
}
_DEPTHWISE = Config({"TH": 4, "TW": 8, "BK": 64}, 4, 2)
_SUM = Config({"BM": 16}, 4, 1)
# Cells in a batch under which runs of 64 are taken (at 128 a tile, fewer than one for each of 132
# multiprocessors), and under which even those are too few, so that hidden channels are split as well.
_FEW, _FEWER, _SPLIT = 16384, 4096, 4


def _tiles(h: int, w: int, config: Config) -> int:
    th, tw = config.sizes["TH"], config.sizes["TW"]
    return -(-h * w // tw) if th == 1 else -(-h // th) * -(-w // tw)


def block_triton(x: Tensor, film: Tensor, weights: BlockWeights) -> Tensor:
    """Launch the kernel of `block` on checked arguments."""
    n, h, w, c = x.shape
    hidden = weights.expand.shape[0]
    if c not in _ROOMY:
        raise KernelError(f"the block kernel is laid out for {sorted(_ROOMY)} channels, not {c}")
    few = n * h * w < _FEW
    config = _ROOMY[c][few] if roomy(x) and x.dtype != torch.float32 else _TIGHT[c]
    sizes = config.sizes
    split = _SPLIT if n * h * w < _FEWER else 1
    if hidden % (sizes["BH"] * split):
        split = 1
    require(
        hidden % sizes["BH"] == 0,
        f"{hidden} hidden channels: the block kernel takes multiples of {sizes['BH']}",
    )
    out = torch.empty_like(x)
    target = torch.empty(split, n, h, w, c, device=x.device) if split > 1 else out
    depthwise, inverse = weights.depthwise, weights.depthwise_bias
    if not sizes["FUSED"]:
        depthwise, inverse = torch.empty_like(x), torch.empty(n, h, w, device=x.device)
        first = {
            "x_ptr": x,
            "depthwise_ptr": weights.depthwise,
            "depthwise_bias_ptr": weights.depthwise_bias,
            "out_ptr": depthwise,
            "inverse_ptr": inverse,
            "h": h,
            "w": w,
        }
        launch(_depthwise_kernel, (_tiles(h, w, _DEPTHWISE), n), first, {"C": c}, _DEPTHWISE)
    args = {
        "x_ptr": x,
        "film_ptr": film,
        "depthwise_ptr": depthwise,
        "depthwise_bias_ptr": inverse,
        "expand_ptr": weights.expand,
        "expand_bias_ptr": weights.expand_bias,
        "project_ptr": weights.project,
        "project_bias_ptr": weights.project_bias,
        "out_ptr": target,
        "film_stride": film.stride(0),
        "h": h,
        "w": w,
    }
    constants = {"C": c, "HIDDEN": hidden, "EXACT": x.dtype == torch.float32, "SPLIT": split}
    launch(_block_kernel, (_tiles(h, w, config), n, split), args, constants, config)
    if split > 1:
        sums = {
            "x_ptr": x,
            "partial_ptr": target,
            "film_ptr": film,
            "bias_ptr": weights.project_bias,
            "out_ptr": out,
            "film_stride": film.stride(0),
            "cells": h * w,
        }
        grid = (-(-h * w // _SUM.sizes["BM"]), n)
        launch(_block_sum_kernel, grid, sums, {"C": c, "SPLIT": split, "BN": divisor(c, 128, 64, 32)}, _SUM)
    return out


def _checked(x: Tensor, film: Tensor, weights: BlockWeights) -> None:
    check("x", x, (None, None, None, None), (*FLOATS, torch.float64))
    n, _, _, c = x.shape
    full = torch.float64 if x.dtype == torch.float64 else torch.float32
    hidden = weights.expand.shape[0]
    require(film.shape == (n, 3 * c), f"film has shape {list(film.shape)}; it must be [{n}, {3 * c}]")
    require(film.dtype == full, f"film is {film.dtype}; it must be {full}")
    require(film.device == x.device, f"film is on {film.device} and x on {x.device}: move one of them")
    require(film.stride(1) == 1, "the columns of film must be contiguous")
    check("weights.depthwise", weights.depthwise, (25, c), full, like=x)
    check("weights.depthwise_bias", weights.depthwise_bias, (c,), full, like=x)
    check("weights.expand", weights.expand, (None, c), x.dtype, like=x)
    check("weights.expand_bias", weights.expand_bias, (hidden,), full, like=x)
    check("weights.project", weights.project, (c, hidden), x.dtype, like=x)
    check("weights.project_bias", weights.project_bias, (c,), full, like=x)


@torch.library.custom_op("mirage::block", mutates_args=(), schema="(Tensor x, Tensor film, Tensor[] weights) -> Tensor")
def _op(x: Tensor, film: Tensor, weights: Sequence[Tensor]) -> Tensor:
    packed = BlockWeights(*weights)
    _checked(x, film, packed)
    return block_triton(x, film, packed) if on_triton(x) else block_reference(x, film, packed)


@_op.register_fake
def _fake(x: Tensor, film: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(x)


def block(x: Tensor, film: Tensor, weights: BlockWeights) -> Tensor:
    """Return the block's output, [N, h, w, C] like `x` (fp32, fp16 or bf16, contiguous).

    `film` fp32 [N, 3C]: scale, shift, gate; its rows may lie apart, so that it can be a slice of all blocks'.
    Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return block_triton(x, film, weights)
    out: Tensor = torch.ops.mirage.block(x, film, list(weights))
    return out

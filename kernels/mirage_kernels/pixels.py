# mypy: disable-error-code="no-untyped-def,assignment"
# ruff: noqa: RUF005 - Triton's tuples know `+` and not `*`
"""pixels: an engine's bytes, the noise field and the engine's planes -> the features of the patch projection.

The network's stem is linear in the source x, the noisy answer y and the planes p (all cut into 8x8 cells):

    stem = Wx x + Wy y + Wp p + b,      y = (1 - k) y0 + k (x + sigma * lift(eps))

so with y0 the previous answer and k the noise level of the frame

    stem = (Wx + k Wy) x  +  k sigma (Wy lift) eps  +  (1 - k) Wy y0  +  Wp p  +  b.

`lift` repeats a noise value over its 2x2 pixels and three colours. At k = 1 (every first step) the two
products with x are one, with the weights Wx + Wy. Channel order, alpha and `v = 2 * unit - 1` live in the
weights, so the frame is read once, as it lies in memory, and no converted picture of it ever exists. A
working frame smaller than the display's is the area average of the display's, taken while reading. Cells
beyond the frame's edge (the grid is a multiple of 4 cells) repeat its last row and column.

Floor at k = 1, per frame: reads `H*W*bytes_per_pixel` + 4 * 16 per cell of noise (+ planes), writes
`h*w*C0*2`;
`h*w * 2 * C0 * (256 + 16)` operations (four elements a pixel are multiplied; one is alpha, with a weight of
0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mirage_kernels.frames import FrameLayout, frame_of, raw_to_unit, typed_view, unit_rgb, unpack_frame
from mirage_kernels.launch import (
    FLOATS,
    Config,
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

__all__ = [
    "CELL",
    "StemWeights",
    "area_matrix",
    "fold_stem",
    "grid_size",
    "pixels",
    "pixels_reference",
    "pixels_triton",
    "tap_count",
]

CELL = 8
"""Pixels per cell side."""
_PATCH = CELL * CELL * 4


class StemWeights(NamedTuple):
    """The patch projection with everything linear folded into it; see `fold_stem`.

    In the compute dtype: `both` (Wx + Wy), `source` (Wx), `noisy` (Wy) [C0, 256] over (row, column, element);
    `answer` (Wy) [C0, 192]; `noise` [C0, 16]; `depth` [C0, 32] (nearness, then what `_growth` tells). fp32: `rest`
    [8, C0] (depth flag, motion x, y, flag, masks, flag) and `bias` [2, C0]: what stands always, and what k multiplies.
    """

    both: Tensor
    source: Tensor
    noisy: Tensor
    answer: Tensor
    noise: Tensor
    depth: Tensor
    rest: Tensor
    bias: Tensor


def grid_size(rows: int, columns: int) -> tuple[int, int]:
    """Cells (h, w) of a working frame of `rows` x `columns` pixels: rounded up to multiples of 4."""
    return (rows + 31) // 32 * 4, (columns + 31) // 32 * 4


def _folds(layout: FrameLayout) -> bool:
    """Whether raw values go into the product as they are: 8-bit values are exact in every dtype."""
    return layout.kind < 2 and not layout.linear


def fold_stem(
    source: Tensor,
    noisy: Tensor,
    planes: Tensor,
    bias: Tensor,
    *,
    layout: FrameLayout,
    sigma: float,
    dtype: torch.dtype = torch.float32,
) -> StemWeights:
    """Fold a format into the network's stem.

    `source`, `noisy` [C0, 192] over (row, column, rgb) and `planes` [C0, 32] are the weights of the stem's
    three linear layers, `bias` [C0] that of the first; `sigma` is the noise at k = 1. 8-bit values enter as
    `(raw - 128) / 128`, which bf16 holds exactly; the bias makes up for the difference to v with the
    *rounded* weights, so that rounding them never shifts a flat colour.
    """
    c0 = source.shape[0]
    check("source", source, (None, 192), (torch.float32, torch.float64))
    check("noisy", noisy, (c0, 192), source.dtype)
    check("planes", planes, (c0, 32), source.dtype)
    check("bias", bias, (c0,), source.dtype)
    factor, shift = (128 / 127.5, 0.5 / 128) if _folds(layout) else (1.0, 0.0)

    def spread(weight: Tensor) -> Tensor:
        out = weight.new_zeros(c0, CELL * CELL, 4)
        for channel, place in enumerate(layout.order):
            out[:, :, place] = weight.view(c0, CELL * CELL, 3)[:, :, channel] * factor
        return out.view(c0, _PATCH).to(dtype).contiguous()

    # Noise: (row, column) of a 4x4 field in the cell, each value under 2x2 pixels of three colours.
    noise = noisy.view(c0, 4, 2, 4, 2, 3).sum((2, 4, 5)).view(c0, 16) * sigma
    both, alone, answer = spread(source + noisy), spread(source), spread(noisy)
    wide_bias = torch.stack([bias + shift * wide(alone).sum(1), shift * (wide(both).sum(1) - wide(alone).sum(1))])
    return StemWeights(
        both,
        alone,
        answer,
        noisy.to(dtype).contiguous(),
        noise.to(dtype).contiguous(),
        torch.cat([planes[:, :16], _by_pair(planes[:, 24:])], 1).to(dtype).contiguous(),
        planes[:, 16:24].t().to(wide_bias.dtype).contiguous(),
        wide_bias.contiguous(),
    )


# Depth grows within pairs of a cell's 4x4 points: in each row from the first to the second and from the third to the
# fourth, then in each column. Two pairs make what the network knows as the slope of a quarter of the cell.
_PAIRS = [((r, c), (r, c + 1)) for r in range(4) for c in (0, 2)] + [
    ((r, c), (r + 1, c)) for r in (0, 2) for c in range(4)
]


def _by_pair(slopes: Tensor) -> Tensor:
    """Weights of a cell's 8 slopes (quarter, across or down) [C0, 8] as those of its pairs: [C0, 16]."""
    return torch.stack([slopes[:, 4 * (r // 2) + 2 * (c // 2) + i // 8] / 2 for i, ((r, c), _) in enumerate(_PAIRS)], 1)


def _growth(metres: Tensor) -> Tensor:
    """By which part of itself depth [N, 1, 4h, 4w] grows within pairs of points: [N, h, w, 16] in [-1, 1]."""
    cells = _cells(torch.nan_to_num(metres, nan=1e4, posinf=1e4).clamp(0, 1e4), 4)
    first, second = (cells[..., [4 * pair[i][0] + pair[i][1] for pair in _PAIRS]] for i in range(2))
    return (16 * (second - first) / (second + first + 0.01)).clamp(-1, 1)


def area_matrix(out_size: int, in_size: int, device: torch.device | None = None) -> Tensor:
    """The area average as a matrix, fp32 [out_size, in_size]: an output pixel is the mean of what it covers.

    Pixel i covers [i, i + 1) * in_size / out_size; what it covers in part counts in part. The overlaps are
    whole numbers of 1 / out_size, so the weights are exact up to one rounding.
    """
    low = torch.arange(out_size, device=device).view(-1, 1) * in_size
    pixel = torch.arange(in_size, device=device).view(1, -1) * out_size
    overlap = torch.minimum(low + in_size, pixel + out_size) - torch.maximum(low, pixel)
    return overlap.clamp_min(0).float() / in_size


def _pad(image: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last row and column of [N, C, H, W] up to height x width."""
    y = torch.arange(height, device=image.device).clamp_max(image.shape[2] - 1)
    x = torch.arange(width, device=image.device).clamp_max(image.shape[3] - 1)
    return image[:, :, y][:, :, :, x]


def _cells(image: Tensor, side: int) -> Tensor:
    """[N, C, side * h, side * w] -> [N, h, w, side * side * C]."""
    n, c, height, width = image.shape
    cells = image.view(n, c, height // side, side, width // side, side).permute(0, 2, 4, 3, 5, 1)
    return cells.reshape(n, height // side, width // side, side * side * c)


def _mean(image: Tensor, side: int) -> Tensor:
    n, c, height, width = image.shape
    return image.view(n, c, height // side, side, width // side, side).mean((3, 5))


def pixels_reference(
    frames: Tensor,
    layout: FrameLayout,
    rows: int,
    columns: int,
    weights: StemWeights,
    noise: Tensor | None,
    depth: Tensor | None,
    motion: Tensor | None,
    mask: Tensor | None,
    answer: Tensor | None,
    k: Tensor | None,
) -> Tensor:
    """The definition of `pixels`."""
    h, w = grid_size(rows, columns)
    compute = torch.float64 if weights.both.dtype == torch.float64 else torch.float32

    def product(x: Tensor, weight: Tensor) -> Tensor:
        return x.to(compute) @ weight.to(compute).t()

    raw = unpack_frame(frames, layout)
    if _folds(layout):
        elements = (raw.to(compute) - 128) / 128
    else:
        elements = torch.nn.functional.pad(unit_rgb(raw, layout).to(compute) * 2 - 1, (0, 1))
    elements = elements[..., [*(layout.order.index(place) for place in range(3)), 3]]
    vertical = area_matrix(rows, layout.height, frames.device).to(compute)
    across = area_matrix(columns, layout.width, frames.device).to(compute)
    working = torch.einsum("rh,nhwc,kw->ncrk", vertical, elements, across)
    cells = _cells(_pad(working, h * CELL, w * CELL), CELL)

    level = torch.ones(frames.shape[0], device=frames.device) if k is None else k
    level = level.to(compute).view(-1, 1, 1, 1)
    out = weights.bias[0].to(compute) + level * weights.bias[1].to(compute)
    if answer is None:
        out = out + product(cells, weights.both)
    else:
        out = out + product(cells, weights.source) + level * product(cells, weights.noisy)
        out = out + (1 - level) * product(answer, weights.answer)
    if noise is not None:
        out = out + level * product(_cells(noise, 4), weights.noise)
    rest = weights.rest.to(compute)
    if depth is not None:
        # Subsampled, as in training: a mean of two depths is a surface that is not there.
        metres = _pad(depth.to(compute), h * CELL, w * CELL)[..., ::2, ::2]
        near = torch.nan_to_num(1.0 / (1.0 + metres.clamp_min(0) * 0.25), nan=0.0)
        told = torch.cat([_cells(near, 4), _growth(metres)], -1)
        out = out + product(told, weights.depth) + rest[0]
    if motion is not None:
        middle = CELL // 2
        moved = _pad(motion.to(compute), h * CELL, w * CELL)[..., middle::CELL, middle::CELL]
        moved = torch.nan_to_num(moved, nan=0.0, posinf=0.0, neginf=0.0)
        out = out + (moved / 16).tanh().permute(0, 2, 3, 1) @ rest[1:3] + rest[3]
    if mask is not None:
        share = _mean(_pad(mask.to(compute), h * CELL, w * CELL), CELL).permute(0, 2, 3, 1)
        out = out + share @ rest[4:7] + rest[7]
    return out.to(weights.both.dtype)


@jit
def _element(frame_ptr, row, x, c, KIND: tl.constexpr, FOLDS: tl.constexpr, LINEAR: tl.constexpr, EXACT: tl.constexpr):
    """What enters the product for element c of the pixels x in rows that start at `row`, fp32."""
    if KIND == 0:
        raw = tl.load(frame_ptr + row + x * 4 + c).to(tl.float32)
    elif KIND == 1:
        raw = tl.load(frame_ptr + row + x * 3 + c, mask=c < 3, other=128).to(tl.float32)
    elif KIND == 2:
        raw = ((tl.load(frame_ptr + row + x) >> (c * 10)) & 1023).to(tl.float32)
    else:
        raw = tl.load(frame_ptr + row + x * 4 + c).to(tl.float32)
    if FOLDS:
        value = (raw - 128.0) * (1.0 / 128.0)
    else:
        value = raw_to_unit(raw, KIND, LINEAR) * 2.0 - 1.0
        value = tl.where(c < 3, value, 0.0)
    return value


@jit
def _metres(depth):
    """Depth within bounds; what is no number is as far as can be."""
    return tl.where(depth == depth, tl.minimum(tl.maximum(depth, 0.0), 1e4), 1e4)


@jit
def _pixels_kernel(
    frame_ptr,  # elements of [N, size_bytes]
    weight_ptr,  # [C0, 256] both, or source where STEP
    noisy_ptr,  # [C0, 256]
    answer_weight_ptr,  # [C0, 192]
    noise_weight_ptr,  # [C0, 16]
    depth_weight_ptr,  # [C0, 32]
    rest_ptr,  # [8, C0] fp32
    bias_ptr,  # [2, C0] fp32
    noise_ptr,  # [N, 1, 4h, 4w] fp32
    depth_ptr,  # [N, 1, rows, columns]
    motion_ptr,  # [N, 2, rows, columns]
    mask_ptr,  # [N, 3, rows, columns]
    answer_ptr,  # [N, h, w, 192]
    k_ptr,  # [N] fp32
    out_ptr,  # [N, h, w, C0]
    frame_stride,
    first,
    pitch,
    height,
    width,
    rows,
    columns,
    h,
    w,
    C0: tl.constexpr,
    KIND: tl.constexpr,
    LINEAR: tl.constexpr,
    FOLDS: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    HAS_NOISE: tl.constexpr,
    HAS_DEPTH: tl.constexpr,
    HAS_MOTION: tl.constexpr,
    HAS_MASK: tl.constexpr,
    STEP: tl.constexpr,
    EXACT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    # A program makes BM cells of one frame in all C0 channels: the frame's bytes are converted once.
    frame = tl.program_id(1)
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    keep = cell < h * w
    safe = tl.minimum(cell, h * w - 1)
    cy, cx = safe // w, safe % w
    frame_ptr += frame.to(tl.int64) * frame_stride
    dtype = weight_ptr.dtype.element_ty
    precision: tl.constexpr = "ieee" if EXACT else "tf32"
    k = 1.0
    if STEP:
        k = tl.load(k_ptr + frame)
    n_idx = tl.arange(0, BN)
    acc = ()
    for i in tl.static_range(C0 // BN):
        n = i * BN + n_idx
        row0 = tl.load(bias_ptr + n) + k * tl.load(bias_ptr + C0 + n)
        if HAS_DEPTH:
            row0 += tl.load(rest_ptr + n)
        if HAS_MOTION:
            row0 += tl.load(rest_ptr + 3 * C0 + n)
        if HAS_MASK:
            row0 += tl.load(rest_ptr + 7 * C0 + n)
        acc = acc + (tl.zeros([BM, BN], tl.float32) + row0[None, :],)

    # One row of every patch at a time: 8 pixels of 4 elements are 32 neighbours in memory, and so are the
    # patches of neighbouring cells.
    kk = tl.arange(0, 32)
    column = kk // 4
    element = kk % 4
    for r in tl.range(0, 8):
        y = tl.minimum(cy * 8 + r, rows - 1)
        x = tl.minimum(cx[:, None] * 8 + column[None, :], columns - 1)
        c = tl.broadcast_to(element[None, :], [BM, 32])
        if TAPS_Y == 1 and TAPS_X == 1:
            at = (first + y * pitch)[:, None]
            value = _element(frame_ptr, at, x, c, KIND, FOLDS, LINEAR, EXACT)
        else:
            # Positions in units of 1 / rows and 1 / columns of a pixel: overlaps are whole numbers.
            value = tl.zeros([BM, 32], tl.float32)
            low_y = y * height
            low_x = x * width
            for ty in tl.range(0, TAPS_Y):
                py = low_y // rows + ty
                over_y = tl.minimum(low_y + height, (py + 1) * rows) - tl.maximum(low_y, py * rows)
                share_y = tl.maximum(over_y, 0).to(tl.float32) / height
                at = (first + tl.minimum(py, height - 1) * pitch)[:, None]
                for tx in tl.static_range(TAPS_X):
                    px = low_x // columns + tx
                    over_x = tl.minimum(low_x + width, (px + 1) * columns) - tl.maximum(low_x, px * columns)
                    share_x = tl.maximum(over_x, 0).to(tl.float32) / width
                    tap = _element(frame_ptr, at, tl.minimum(px, width - 1), c, KIND, FOLDS, LINEAR, EXACT)
                    value += tap * share_y[:, None] * share_x
        a = value.to(dtype)
        new = ()
        for i in tl.static_range(C0 // BN):
            at_w = (i * BN + n_idx)[None, :] * 256 + r * 32 + kk[:, None]
            part = tl.dot(a, tl.load(weight_ptr + at_w), acc[i], input_precision=precision)
            if STEP:
                part = tl.dot((value * k).to(dtype), tl.load(noisy_ptr + at_w), part, input_precision=precision)
            new = new + (part,)
        acc = new

    if STEP:
        cell64 = (frame.to(tl.int64) * h * w + safe) * 192
        for j in tl.range(0, 6):
            y0 = tl.load(answer_ptr + cell64[:, None] + (j * 32 + kk)[None, :]).to(tl.float32)
            a = (y0 * (1.0 - k)).to(dtype)
            new = ()
            for i in tl.static_range(C0 // BN):
                at_w = (i * BN + n_idx)[None, :] * 192 + j * 32 + kk[:, None]
                new = new + (tl.dot(a, tl.load(answer_weight_ptr + at_w), acc[i], input_precision=precision),)
            acc = new

    q = tl.arange(0, 16)
    if HAS_NOISE:
        ny = cy[:, None] * 4 + (q // 4)[None, :]
        nx = cx[:, None] * 4 + (q % 4)[None, :]
        field = noise_ptr + frame.to(tl.int64) * 16 * h * w
        a = (tl.load(field + ny * (4 * w) + nx) * k).to(dtype)
        new = ()
        for i in tl.static_range(C0 // BN):
            at_w = (i * BN + n_idx)[None, :] * 16 + q[:, None]
            new = new + (tl.dot(a, tl.load(noise_weight_ptr + at_w), acc[i], input_precision=precision),)
        acc = new
    if HAS_DEPTH:
        plane = depth_ptr + frame.to(tl.int64) * rows * columns
        y = tl.minimum(cy[:, None] * 8 + (q // 4)[None, :] * 2, rows - 1)
        x = tl.minimum(cx[:, None] * 8 + (q % 4)[None, :] * 2, columns - 1)
        metres = tl.load(plane + y * columns + x).to(tl.float32)
        near = tl.where(metres == metres, 1.0 / (1.0 + tl.maximum(metres, 0.0) * 0.25), 0.0)
        # Pairs of points, across and then down, as `_PAIRS`.
        down = q // 8
        first_y = tl.where(down == 0, q % 8 // 2, q % 8 // 4 * 2)
        first_x = tl.where(down == 0, q % 2 * 2, q % 4)
        y = cy[:, None] * 8 + first_y[None, :] * 2
        x = cx[:, None] * 8 + first_x[None, :] * 2
        at = plane + tl.minimum(y, rows - 1) * columns + tl.minimum(x, columns - 1)
        one = _metres(tl.load(at).to(tl.float32))
        y = tl.minimum(y + 2 * down[None, :], rows - 1)
        x = tl.minimum(x + 2 - 2 * down[None, :], columns - 1)
        other = _metres(tl.load(plane + y * columns + x).to(tl.float32))
        grows = 16.0 * (other - one) / (other + one + 0.01)
        grows = tl.minimum(tl.maximum(grows, -1.0), 1.0).to(dtype)
        a = near.to(dtype)
        new = ()
        for i in tl.static_range(C0 // BN):
            at_w = depth_weight_ptr + (i * BN + n_idx)[None, :] * 32 + q[:, None]
            part = tl.dot(a, tl.load(at_w), acc[i], input_precision=precision)
            new = new + (tl.dot(grows, tl.load(at_w + 16), part, input_precision=precision),)
        acc = new
    if HAS_MOTION:
        middle = tl.minimum(cy * 8 + 4, rows - 1) * columns + tl.minimum(cx * 8 + 4, columns - 1)
        for j in tl.static_range(2):
            plane = motion_ptr + (frame.to(tl.int64) * 2 + j) * rows * columns
            moved = tl.load(plane + middle).to(tl.float32)
            # NaN and both infinities are nothing; `abs(m) < inf` is false for all three.
            moved = tl.where(tl.abs(moved) < float("inf"), moved, 0.0)
            # tanh(m / 16), of which the compiler and the interpreter both know the parts.
            feature = 2.0 * tl.sigmoid(moved * (2.0 / 16.0)) - 1.0
            new = ()
            for i in tl.static_range(C0 // BN):
                row = tl.load(rest_ptr + (1 + j) * C0 + i * BN + n_idx)
                new = new + (acc[i] + feature[:, None] * row[None, :],)
            acc = new
    if HAS_MASK:
        p = tl.arange(0, 64)
        y = tl.minimum(cy[:, None] * 8 + (p // 8)[None, :], rows - 1)
        x = tl.minimum(cx[:, None] * 8 + (p % 8)[None, :], columns - 1)
        for j in tl.static_range(3):
            plane = mask_ptr + (frame.to(tl.int64) * 3 + j) * rows * columns
            feature = tl.sum(tl.load(plane + y * columns + x).to(tl.float32), axis=1) * (1.0 / 64.0)
            new = ()
            for i in tl.static_range(C0 // BN):
                row = tl.load(rest_ptr + (4 + j) * C0 + i * BN + n_idx)
                new = new + (acc[i] + feature[:, None] * row[None, :],)
            acc = new

    out_row = out_ptr + (frame.to(tl.int64) * h * w + cell) * C0
    for i in tl.static_range(C0 // BN):
        tl.store(out_row[:, None] + (i * BN + n_idx)[None, :], acc[i].to(dtype), mask=keep[:, None])


_CONFIGS = {
    # channels: 128 cells fill the 64-row matrix instruction of two warp groups; the sums of 192 channels take
    # 96 registers a thread, and the copies of a patch row are only 8 KB a stage.
    True: {64: Config({"BM": 128}, 8, 3), 128: Config({"BM": 128}, 8, 3), 192: Config({"BM": 128}, 8, 3)},
    # 99 KB of shared memory, or fp32 operands.
    False: {64: Config({"BM": 64}, 4, 2), 128: Config({"BM": 64}, 4, 2), 192: Config({"BM": 64}, 8, 2)},
}


def tap_count(out_size: int, in_size: int) -> int:
    """How many input pixels an output pixel may touch."""
    if in_size % out_size == 0:
        return in_size // out_size
    return -(-in_size // out_size) + 1


def pixels_triton(
    frames: Tensor,
    layout: FrameLayout,
    rows: int,
    columns: int,
    weights: StemWeights,
    noise: Tensor | None,
    depth: Tensor | None,
    motion: Tensor | None,
    mask: Tensor | None,
    answer: Tensor | None,
    k: Tensor | None,
) -> Tensor:
    """Launch the kernel of `pixels` on checked arguments."""
    n, c0 = frames.shape[0], weights.both.shape[0]
    h, w = grid_size(rows, columns)
    dtype = weights.both.dtype
    out = torch.empty(n, h, w, c0, dtype=dtype, device=frames.device)
    elements, stride, first, pitch = typed_view(frames, layout)
    require(c0 in _CONFIGS[True], f"the pixels kernel is laid out for 64, 128 or 192 channels, not {c0}")
    config = _CONFIGS[roomy(frames) and dtype != torch.float32][c0]
    taps = max(tap_count(rows, layout.height), tap_count(columns, layout.width))
    if c0 > 64 and (depth is not None or taps > 1) and config.sizes["BM"] == 128:
        # The planes' own products, or the mean of several pixels, on top of the sums of 128 cells: up to 584 bytes a
        # thread spilled.
        config = Config({"BM": 64}, 8, 3)
    step = answer is not None
    args: dict[str, Any] = {
        "frame_ptr": elements,
        "weight_ptr": weights.source if step else weights.both,
        "noisy_ptr": weights.noisy,
        "answer_weight_ptr": weights.answer,
        "noise_weight_ptr": weights.noise,
        "depth_weight_ptr": weights.depth,
        "rest_ptr": weights.rest,
        "bias_ptr": weights.bias,
        # An absent plane is never read; any tensor stands for it.
        "noise_ptr": weights.bias if noise is None else noise,
        "depth_ptr": weights.bias if depth is None else depth,
        "motion_ptr": weights.bias if motion is None else motion,
        "mask_ptr": weights.bias if mask is None else mask,
        "answer_ptr": weights.bias if answer is None else answer,
        "k_ptr": weights.bias if k is None else k,
        "out_ptr": out,
        "frame_stride": stride,
        "first": first,
        "pitch": pitch,
        "height": layout.height,
        "width": layout.width,
        "rows": rows,
        "columns": columns,
        "h": h,
        "w": w,
    }
    constants = {
        "C0": c0,
        "KIND": layout.kind,
        "LINEAR": layout.linear,
        "FOLDS": _folds(layout),
        "TAPS_Y": tap_count(rows, layout.height),
        "TAPS_X": tap_count(columns, layout.width),
        "HAS_NOISE": noise is not None,
        "HAS_DEPTH": depth is not None,
        "HAS_MOTION": motion is not None,
        "HAS_MASK": mask is not None,
        "STEP": step,
        "EXACT": dtype == torch.float32,
        "BN": divisor(c0, 128, 64),
    }
    launch(_pixels_kernel, (-(-h * w // config.sizes["BM"]), n), args, constants, config)
    return out


def _checked(
    frames: Tensor,
    layout: FrameLayout,
    rows: int,
    columns: int,
    weights: StemWeights,
    noise: Tensor | None,
    depth: Tensor | None,
    motion: Tensor | None,
    mask: Tensor | None,
    answer: Tensor | None,
    k: Tensor | None,
) -> None:
    frame_of(frames, layout)
    require(rows > 0 and columns > 0, f"a working frame of {columns}x{rows} pixels")
    n, c0 = frames.shape[0], weights.both.shape[0]
    h, w = grid_size(rows, columns)
    exact = weights.both.dtype == torch.float64
    dtype, full = weights.both.dtype, (torch.float64 if exact else torch.float32)
    planes = (torch.float64,) if exact else (torch.float32, torch.float16)
    check("weights.both", weights.both, (c0, 256), (*FLOATS, torch.float64), like=frames)
    for name, size in (("source", 256), ("noisy", 256), ("answer", 192), ("noise", 16), ("depth", 32)):
        check(f"weights.{name}", getattr(weights, name), (c0, size), dtype, like=frames)
    check("weights.rest", weights.rest, (8, c0), full, like=frames)
    check("weights.bias", weights.bias, (2, c0), full, like=frames)
    if noise is not None:
        check("noise", noise, (n, 1, 4 * h, 4 * w), full, like=frames)
    for name, plane, channels in (("depth", depth, 1), ("motion", motion, 2), ("mask", mask, 3)):
        if plane is not None:
            check(name, plane, (n, channels, rows, columns), planes, like=frames)
    require((answer is None) == (k is None), "answer and k come together: y = (1 - k) answer + k (...)")
    if answer is not None and k is not None:
        check("answer", answer, (n, h, w, 192), dtype, like=frames)
        check("k", k, (n,), full, like=frames)


_SCHEMA = (
    "(Tensor frames, str format, int height, int width, int pitch_bytes, bool flipped, bool linear, "
    "int rows, int columns, Tensor[] weights, Tensor? noise, Tensor? depth, Tensor? motion, Tensor? mask, "
    "Tensor? answer, Tensor? k) -> Tensor"
)


@torch.library.custom_op("mirage::pixels", mutates_args=(), schema=_SCHEMA)
def _op(
    frames: Tensor,
    format: Any,
    height: int,
    width: int,
    pitch_bytes: int,
    flipped: bool,
    linear: bool,
    rows: int,
    columns: int,
    weights: Sequence[Tensor],
    *optional: Tensor | None,
) -> Tensor:
    layout = FrameLayout(format, height, width, pitch_bytes, flipped, linear)
    args: Any = (frames, layout, rows, columns, StemWeights(*weights), *optional)
    _checked(*args)
    return pixels_triton(*args) if on_triton(frames) else pixels_reference(*args)


@_op.register_fake
def _fake(
    frames: Tensor,
    format: str,
    height: int,
    width: int,
    pitch_bytes: int,
    flipped: bool,
    linear: bool,
    rows: int,
    columns: int,
    weights: Sequence[Tensor],
    *optional: Tensor | None,
) -> Tensor:
    h, w = grid_size(rows, columns)
    return weights[0].new_empty(frames.shape[0], h, w, weights[0].shape[0])


def pixels(
    frames: Tensor,
    layout: FrameLayout,
    weights: StemWeights,
    *,
    rows: int | None = None,
    columns: int | None = None,
    noise: Tensor | None = None,
    depth: Tensor | None = None,
    motion: Tensor | None = None,
    mask: Tensor | None = None,
    answer: Tensor | None = None,
    k: Tensor | None = None,
) -> Tensor:
    """Make the stem's features from frames as they lie in memory: [N, h, w, C0] in the weights' dtype.

    `frames` uint8 [N, size_bytes] in `layout`; `weights` folded for the same layout. `rows` x `columns` is
    the working frame (the display's size where left out) and h, w = `grid_size(rows, columns)`. `noise` fp32
    [N, 1, 4h, 4w]. Planes lie on the working frame, fp32 or fp16: `depth` [N, 1, rows, columns] in metres,
    `motion` [N, 2, rows, columns] in pixels to where it was, `mask` [N, 3, rows, columns] in [0, 1]; what is
    absent is zero with a zero flag, as in training. For a step after the first, `answer` [N, h, w, 192]
    (cells of v in the weights' dtype) and its noise level `k` fp32 [N].

    Raises `KernelError` for what a kernel could not take.
    """
    rows, columns = layout.height if rows is None else rows, layout.width if columns is None else columns
    if recording():
        return pixels_triton(frames, layout, rows, columns, weights, noise, depth, motion, mask, answer, k)
    shape = (layout.format, layout.height, layout.width, layout.pitch_bytes, layout.flipped, layout.linear)
    optional = (noise, depth, motion, mask, answer, k)
    out: Tensor = torch.ops.mirage.pixels(frames, *shape, rows, columns, list(weights), *optional)
    return out

# mypy: disable-error-code="no-untyped-def"
"""memory: the learned state on half the cell grid: moved, read through a trust gate, written by another.

    warp    state'  = bilinear(dequantise(state), cell + motion / 16),  valid = inside * visible
    read    out     = f + |f| (Wi (s * sigmoid(Wt [f / |f|, s, valid] + bt) * valid) + bi)
    write   keep    = sigmoid(Wk [f / |f|, s, valid] + bk) * valid
            state   = s * keep + tanh(Wc f / |f| + bc) * (1 - keep),  as int8 of 1/127 for the next frame

f [N, h, w, C] are features, |f| the root of a cell's mean square, s [N, h, w, S] the moved state. Each is one launch:
unpacking happens while the warp reads, packing while the write stores, the gates' concatenation is three products that
meet in registers, and the products with f are divided by |f| where they are whole. The read depends on the warp, and
the write on blocks between: three passes are as few as there can be.

Floors per cell in bf16: warp S + 12 + 2 S bytes; read 2 (2 C + S) bytes and 2 (C S + S S + S C) operations;
write 2 (C + S) + S bytes and 2 (2 C S + S S) operations; the weights once.
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
    check,
    divisor,
    interpreting,
    jit,
    launch,
    on_triton,
    recording,
    require,
    tl,
    wide,
)
from mirage_kernels.noise import rint

__all__ = [
    "MemoryWeights",
    "memory_read",
    "memory_read_reference",
    "memory_read_triton",
    "memory_write",
    "memory_write_reference",
    "memory_write_triton",
    "pack_memory",
    "pack_state",
    "unpack_state",
    "warp_state",
    "warp_state_reference",
    "warp_state_triton",
]


class MemoryWeights(NamedTuple):
    """The memory's weights, its S channels padded with zeros to a power of two P of at least 16.

    In the compute dtype: `trust_f`, `keep_f`, `candidate` [P, C], `trust_s`, `keep_s` [P, P], `into` [C, P].
    fp32: `trust_v`, `trust_bias`, `keep_v`, `keep_bias`, `candidate_bias` [P], `into_bias` [C].
    """

    trust_f: Tensor
    trust_s: Tensor
    trust_v: Tensor
    trust_bias: Tensor
    into: Tensor
    into_bias: Tensor
    keep_f: Tensor
    keep_s: Tensor
    keep_v: Tensor
    keep_bias: Tensor
    candidate: Tensor
    candidate_bias: Tensor


def pack_memory(
    trust: Tensor,
    trust_bias: Tensor,
    into: Tensor,
    into_bias: Tensor,
    keep: Tensor,
    keep_bias: Tensor,
    candidate: Tensor,
    candidate_bias: Tensor,
    *,
    dtype: torch.dtype,
) -> MemoryWeights:
    """Pack the memory's layers: `trust`, `keep` [S, C + S + 1], `into` [C, S], `candidate` [S, C]."""
    s, c = candidate.shape
    pad = max(16, 1 << (s - 1).bit_length()) - s

    def rows(x: Tensor) -> Tensor:
        return functional.pad(x, (0, 0, 0, pad)).to(dtype).contiguous()

    def square(x: Tensor) -> Tensor:
        return functional.pad(x, (0, pad, 0, pad)).to(dtype).contiguous()

    def vector(x: Tensor) -> Tensor:
        return functional.pad(wide(x), (0, pad)).contiguous()

    return MemoryWeights(
        rows(trust[:, :c]), square(trust[:, c : c + s]), vector(trust[:, -1]), vector(trust_bias),
        functional.pad(into, (0, pad)).to(dtype).contiguous(), wide(into_bias).contiguous(),
        rows(keep[:, :c]), square(keep[:, c : c + s]), vector(keep[:, -1]), vector(keep_bias),
        rows(candidate), vector(candidate_bias),
    )  # fmt: skip


def pack_state(state: Tensor) -> Tensor:
    """Compress a state: [-1, 1] -> int8 in steps of 1/127, NaN becomes 0."""
    return torch.nan_to_num(state.float(), nan=0.0).mul(127).round().clamp(-127, 127).to(torch.int8)


def unpack_state(state: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Undo `pack_state` up to half a step."""
    return state.to(dtype) * (1.0 / 127.0)


def warp_state_reference(state: Tensor, motion: Tensor, visible: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The definition of `warp_state`."""
    n, h, w, _ = state.shape
    source = unpack_state(state, motion.dtype) if state.dtype == torch.int8 else wide(state)
    motion = torch.nan_to_num(motion, nan=1e6, posinf=1e6, neginf=-1e6).clamp(-1e5, 1e5) / 16.0
    y = torch.arange(h, device=state.device).view(1, -1, 1) + motion[:, 1]
    x = torch.arange(w, device=state.device).view(1, 1, -1) + motion[:, 0]
    inside = (y > -0.75) & (y < h - 0.25) & (x > -0.75) & (x < w - 0.25)
    y, x = y.clamp(0, h - 1), x.clamp(0, w - 1)
    y0, x0 = y.floor(), x.floor()
    fy, fx = (y - y0).unsqueeze(-1), (x - x0).unsqueeze(-1)
    iy, ix = y0.long(), x0.long()
    ny, nx = (iy + 1).clamp_max(h - 1), (ix + 1).clamp_max(w - 1)
    frame = torch.arange(n, device=state.device).view(-1, 1, 1)
    top = source[frame, iy, ix] * (1 - fx) + source[frame, iy, nx] * fx
    bottom = source[frame, ny, ix] * (1 - fx) + source[frame, ny, nx] * fx
    moved = top * (1 - fy) + bottom * fy
    valid = (inside[:, None].to(visible.dtype) * visible).permute(0, 2, 3, 1)
    return moved.to(dtype), valid.to(dtype).contiguous()


def _size(f: Tensor) -> Tensor:
    return (f.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def memory_read_reference(features: Tensor, state: Tensor, valid: Tensor, weights: MemoryWeights) -> Tensor:
    """The definition of `memory_read`, in fp32."""
    f, s, v = wide(features), wide(state), wide(valid)
    t = MemoryWeights(*(part.to(f.dtype) for part in weights))
    size, scale = s.shape[-1], _size(f)
    gate = (f / scale) @ t.trust_f[:size].t() + s @ t.trust_s[:size, :size].t()
    gate = gate + v * t.trust_v[:size] + t.trust_bias[:size]
    out = f + scale * ((s * (gate.sigmoid() * v)) @ t.into[:, :size].t() + t.into_bias)
    return out.to(features.dtype)


def memory_write_reference(
    features: Tensor, state: Tensor, valid: Tensor, weights: MemoryWeights, packed: bool
) -> Tensor:
    """The definition of `memory_write`, in fp32."""
    f, s, v = wide(features), wide(state), wide(valid)
    f = f / _size(f)
    t = MemoryWeights(*(part.to(f.dtype) for part in weights))
    size = s.shape[-1]
    keep = f @ t.keep_f[:size].t() + s @ t.keep_s[:size, :size].t() + v * t.keep_v[:size] + t.keep_bias[:size]
    keep = keep.sigmoid() * v
    candidate = (f @ t.candidate[:size].t() + t.candidate_bias[:size]).tanh()
    out = s * keep + candidate * (1 - keep)
    return pack_state(out) if packed else out.to(features.dtype)


@jit
def _warp_state_kernel(
    state_ptr,  # [N, h, w, S] int8 or float
    motion_ptr,  # [N, 2, h, w] fp32
    visible_ptr,  # [N, 1, h, w] fp32
    out_ptr,  # [N, h, w, S]
    valid_ptr,  # [N, h, w, 1]
    h,
    w,
    S: tl.constexpr,
    SP: tl.constexpr,
    PACKED: tl.constexpr,
    BM: tl.constexpr,
):
    frame = tl.program_id(1)
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    keep = cell < h * w
    start = frame.to(tl.int64) * h * w
    c = tl.arange(0, SP)
    mask = keep[:, None] & (c < S)[None, :]
    mx = tl.load(motion_ptr + start * 2 + cell, mask=keep, other=0.0)
    my = tl.load(motion_ptr + start * 2 + h * w + cell, mask=keep, other=0.0)
    # NaN compares with nothing: it goes far outside, as what is unknown should.
    mx = tl.where(mx == mx, tl.minimum(tl.maximum(mx, -1e5), 1e5), 1e5) * (1.0 / 16.0)
    my = tl.where(my == my, tl.minimum(tl.maximum(my, -1e5), 1e5), 1e5) * (1.0 / 16.0)
    y = (cell // w).to(tl.float32) + my
    x = (cell % w).to(tl.float32) + mx
    inside = (y > -0.75) & (y < h - 0.25) & (x > -0.75) & (x < w - 0.25)
    y = tl.minimum(tl.maximum(y, 0.0), h - 1.0)
    x = tl.minimum(tl.maximum(x, 0.0), w - 1.0)
    y0 = tl.floor(y)
    x0 = tl.floor(x)
    fy = y - y0
    fx = x - x0
    iy = y0.to(tl.int32)
    ix = x0.to(tl.int32)
    next_y = tl.minimum(iy + 1, h - 1)
    next_x = tl.minimum(ix + 1, w - 1)
    value = tl.zeros([BM, SP], tl.float32)
    for corner in tl.static_range(4):
        cy = next_y if corner // 2 == 1 else iy
        cx = next_x if corner % 2 == 1 else ix
        by = fy if corner // 2 == 1 else 1.0 - fy
        bx = fx if corner % 2 == 1 else 1.0 - fx
        at = state_ptr + start * S + ((cy * w + cx) * S)[:, None] + c[None, :]
        value += (by * bx)[:, None] * tl.load(at, mask=mask, other=0).to(tl.float32)
    if PACKED:
        value *= 1.0 / 127.0
    tl.store(out_ptr + start * S + cell[:, None] * S + c[None, :], value.to(out_ptr.dtype.element_ty), mask=mask)
    seen = tl.load(visible_ptr + start + cell, mask=keep, other=0.0)
    # A product, as in the definition: a NaN in `visible` is not hidden by being outside.
    valid = tl.where(inside, 1.0, 0.0) * seen
    tl.store(valid_ptr + start + cell, valid.to(valid_ptr.dtype.element_ty), mask=keep)


@jit
def _memory_read_kernel(
    f_ptr,  # [M, C]
    s_ptr,  # [M, S]
    valid_ptr,  # [M]
    trust_f_ptr,  # [SP, C]
    trust_s_ptr,  # [SP, SP]
    trust_v_ptr,  # [SP] fp32
    trust_bias_ptr,  # [SP] fp32
    into_ptr,  # [C, SP]
    into_bias_ptr,  # [C] fp32
    out_ptr,  # [M, C]
    cells,
    C: tl.constexpr,
    S: tl.constexpr,
    SP: tl.constexpr,
    EXACT: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
):
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    keep = cell < cells
    row = tl.minimum(cell, cells - 1)
    c = tl.arange(0, SP)
    kk = tl.arange(0, BK)
    dtype = f_ptr.dtype.element_ty
    precision: tl.constexpr = "ieee" if EXACT else "tf32"
    state = tl.load(s_ptr + row[:, None] * S + c[None, :], mask=(c < S)[None, :], other=0.0)
    valid = tl.load(valid_ptr + row).to(tl.float32)
    gate = tl.zeros([BM, SP], tl.float32)
    squares = tl.zeros([BM], tl.float32)
    for k in tl.range(0, C, BK):
        f = tl.load(f_ptr + row[:, None] * C + (k + kk)[None, :])
        squares += tl.sum(f.to(tl.float32) * f.to(tl.float32), axis=1)
        weight = tl.load(trust_f_ptr + c[None, :] * C + (k + kk)[:, None])
        gate = tl.dot(f, weight, gate, input_precision=precision)
    # Dividing the product is dividing the features.
    size = tl.sqrt(squares * (1.0 / C) + 1e-6)
    gate = gate / size[:, None] + tl.load(trust_bias_ptr + c)[None, :]
    gate += valid[:, None] * tl.load(trust_v_ptr + c)[None, :]
    gate = tl.dot(state, tl.load(trust_s_ptr + c[None, :] * SP + c[:, None]), gate, input_precision=precision)
    known = (state.to(tl.float32) * (tl.sigmoid(gate) * valid[:, None])).to(dtype)
    for k in tl.range(0, C, BK):
        weight = tl.load(into_ptr + (k + kk)[None, :] * SP + c[:, None])
        y = tl.dot(known, weight, input_precision=precision)
        at = row[:, None] * C + (k + kk)[None, :]
        y = (y + tl.load(into_bias_ptr + k + kk)[None, :]) * size[:, None] + tl.load(f_ptr + at).to(tl.float32)
        tl.store(out_ptr + at, y.to(dtype), mask=keep[:, None])


@jit
def _memory_write_kernel(
    f_ptr,  # [M, C]
    s_ptr,  # [M, S]
    valid_ptr,  # [M]
    keep_f_ptr,  # [SP, C]
    keep_s_ptr,  # [SP, SP]
    keep_v_ptr,  # [SP] fp32
    keep_bias_ptr,  # [SP] fp32
    candidate_ptr,  # [SP, C]
    candidate_bias_ptr,  # [SP] fp32
    out_ptr,  # [M, S]
    cells,
    C: tl.constexpr,
    S: tl.constexpr,
    SP: tl.constexpr,
    EXACT: tl.constexpr,
    PACKED: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
):
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    row = tl.minimum(cell, cells - 1)
    c = tl.arange(0, SP)
    kk = tl.arange(0, BK)
    precision: tl.constexpr = "ieee" if EXACT else "tf32"
    state = tl.load(s_ptr + row[:, None] * S + c[None, :], mask=(c < S)[None, :], other=0.0)
    valid = tl.load(valid_ptr + row).to(tl.float32)
    gate = tl.zeros([BM, SP], tl.float32)
    new = tl.zeros([BM, SP], tl.float32)
    squares = tl.zeros([BM], tl.float32)
    for k in tl.range(0, C, BK):
        f = tl.load(f_ptr + row[:, None] * C + (k + kk)[None, :])
        squares += tl.sum(f.to(tl.float32) * f.to(tl.float32), axis=1)
        at = c[None, :] * C + (k + kk)[:, None]
        gate = tl.dot(f, tl.load(keep_f_ptr + at), gate, input_precision=precision)
        new = tl.dot(f, tl.load(candidate_ptr + at), new, input_precision=precision)
    # Dividing the products is dividing the features.
    inverse = tl.rsqrt(squares * (1.0 / C) + 1e-6)[:, None]
    new = new * inverse + tl.load(candidate_bias_ptr + c)[None, :]
    gate = gate * inverse + tl.load(keep_bias_ptr + c)[None, :] + valid[:, None] * tl.load(keep_v_ptr + c)[None, :]
    gate = tl.dot(state, tl.load(keep_s_ptr + c[None, :] * SP + c[:, None]), gate, input_precision=precision)
    keep = tl.sigmoid(gate) * valid[:, None]
    value = state.to(tl.float32) * keep + (2.0 * tl.sigmoid(2.0 * new) - 1.0) * (1.0 - keep)
    mask = (cell < cells)[:, None] & (c < S)[None, :]
    at = row[:, None] * S + c[None, :]
    if PACKED:
        value = tl.where(value == value, value, 0.0)
        value = rint(tl.minimum(tl.maximum(value * 127.0, -127.0), 127.0))
        tl.store(out_ptr + at, value.to(tl.int8), mask=mask)
    else:
        tl.store(out_ptr + at, value.to(out_ptr.dtype.element_ty), mask=mask)


# 32 cells x 128 bytes: four neighbours of each in flight.
_WARP = Config({"BM": 32}, 4, 1)
# 64 cells: 128 programs of 8160 cells at 1080p, one for each multiprocessor.
_GATE = Config({"BM": 64, "BK": 32}, 8, 2)
_GATE_EXACT = Config({"BM": 16, "BK": 16}, 8, 1)


def _has_kernel(features: Tensor, state: Tensor) -> bool:
    """Whether the gates run as kernels.

    In fp32, products run off the tensor cores, and more than 64 channels of state do not fit into the registers
    (1.7 KB a thread spilled on sm_90): there the reference, exact by definition, serves.
    """
    wide_exact = features.dtype == torch.float32 and state.shape[-1] > 64
    return (recording() or on_triton(features)) and (interpreting() or not wide_exact)


def warp_state_triton(state: Tensor, motion: Tensor, visible: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Launch the kernel of `warp_state` on checked arguments."""
    n, h, w, s = state.shape
    out = torch.empty(n, h, w, s, dtype=dtype, device=state.device)
    valid = torch.empty(n, h, w, 1, dtype=dtype, device=state.device)
    args = {
        "state_ptr": state,
        "motion_ptr": motion,
        "visible_ptr": visible,
        "out_ptr": out,
        "valid_ptr": valid,
        "h": h,
        "w": w,
    }
    constants = {"S": s, "SP": max(16, 1 << (s - 1).bit_length()), "PACKED": state.dtype == torch.int8}
    launch(_warp_state_kernel, (-(-h * w // _WARP.sizes["BM"]), n), args, constants, _WARP)
    return out, valid


def _gate_config(features: Tensor) -> Config:
    return _GATE_EXACT if features.dtype == torch.float32 else _GATE


def memory_read_triton(features: Tensor, state: Tensor, valid: Tensor, weights: MemoryWeights) -> Tensor:
    """Launch the kernel of `memory_read` on checked arguments."""
    c, s = features.shape[-1], state.shape[-1]
    cells = valid.numel()
    out = torch.empty_like(features)
    args = {
        "f_ptr": features,
        "s_ptr": state,
        "valid_ptr": valid,
        "trust_f_ptr": weights.trust_f,
        "trust_s_ptr": weights.trust_s,
        "trust_v_ptr": weights.trust_v,
        "trust_bias_ptr": weights.trust_bias,
        "into_ptr": weights.into,
        "into_bias_ptr": weights.into_bias,
        "out_ptr": out,
        "cells": cells,
    }
    config = _gate_config(features)
    constants = {"C": c, "S": s, "SP": weights.trust_s.shape[0], "EXACT": features.dtype == torch.float32}
    launch(_memory_read_kernel, (-(-cells // config.sizes["BM"]),), args, constants, config)
    return out


def memory_write_triton(features: Tensor, state: Tensor, valid: Tensor, weights: MemoryWeights, packed: bool) -> Tensor:
    """Launch the kernel of `memory_write` on checked arguments."""
    c, s = features.shape[-1], state.shape[-1]
    cells = valid.numel()
    out = torch.empty_like(state, dtype=torch.int8 if packed else features.dtype)
    args = {
        "f_ptr": features,
        "s_ptr": state,
        "valid_ptr": valid,
        "keep_f_ptr": weights.keep_f,
        "keep_s_ptr": weights.keep_s,
        "keep_v_ptr": weights.keep_v,
        "keep_bias_ptr": weights.keep_bias,
        "candidate_ptr": weights.candidate,
        "candidate_bias_ptr": weights.candidate_bias,
        "out_ptr": out,
        "cells": cells,
    }
    config = _gate_config(features)
    constants = {
        "C": c,
        "S": s,
        "SP": weights.keep_s.shape[0],
        "EXACT": features.dtype == torch.float32,
        "PACKED": packed,
    }
    launch(_memory_write_kernel, (-(-cells // config.sizes["BM"]),), args, constants, config)
    return out


def _checked(features: Tensor, state: Tensor, valid: Tensor, weights: MemoryWeights) -> None:
    check("features", features, (None, None, None, None), (*FLOATS, torch.float64))
    n, h, w, c = features.shape
    check("state", state, (n, h, w, None), features.dtype, like=features)
    s = state.shape[-1]
    check("valid", valid, (n, h, w, 1), features.dtype, like=features)
    require(0 < s <= 128, f"{s} state channels: the memory kernels hold at most 128")
    divisor(c, 32)
    full = torch.float64 if features.dtype == torch.float64 else torch.float32
    p = max(16, 1 << (s - 1).bit_length())
    for name, shape in (("trust_f", (p, c)), ("trust_s", (p, p)), ("into", (c, p)), ("keep_f", (p, c)),
                        ("keep_s", (p, p)), ("candidate", (p, c))):  # fmt: skip
        check(f"weights.{name}", getattr(weights, name), shape, features.dtype, like=features)
    for name in ("trust_v", "trust_bias", "keep_v", "keep_bias", "candidate_bias"):
        check(f"weights.{name}", getattr(weights, name), (p,), full, like=features)
    check("weights.into_bias", weights.into_bias, (c,), full, like=features)


@torch.library.custom_op(
    "mirage::warp_state",
    mutates_args=(),
    schema="(Tensor state, Tensor motion, Tensor visible, ScalarType dtype) -> (Tensor, Tensor)",
)
def _warp(state: Tensor, motion: Tensor, visible: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    check("state", state, (None, None, None, None), (torch.int8, *FLOATS, torch.float64))
    n, h, w, s = state.shape
    require(0 < s <= 128, f"{s} state channels: the memory kernels hold at most 128")
    require(dtype in (*FLOATS, torch.float64), f"a state is moved into a float dtype, not {dtype}")
    full = torch.float64 if dtype == torch.float64 else torch.float32
    check("motion", motion, (n, 2, h, w), full, like=state)
    check("visible", visible, (n, 1, h, w), full, like=state)
    run = warp_state_triton if on_triton(state) else warp_state_reference
    return run(state, motion, visible, dtype)


@_warp.register_fake
def _warp_fake(state: Tensor, motion: Tensor, visible: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    n, h, w, s = state.shape
    return state.new_empty(n, h, w, s, dtype=dtype), state.new_empty(n, h, w, 1, dtype=dtype)


@torch.library.custom_op(
    "mirage::memory_read",
    mutates_args=(),
    schema="(Tensor features, Tensor state, Tensor valid, Tensor[] weights) -> Tensor",
)
def _read(features: Tensor, state: Tensor, valid: Tensor, weights: Sequence[Tensor]) -> Tensor:
    packed = MemoryWeights(*weights)
    _checked(features, state, valid, packed)
    run = memory_read_triton if _has_kernel(features, state) else memory_read_reference
    return run(features, state, valid, packed)


@_read.register_fake
def _read_fake(features: Tensor, state: Tensor, valid: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(features)


@torch.library.custom_op(
    "mirage::memory_write",
    mutates_args=(),
    schema="(Tensor features, Tensor state, Tensor valid, Tensor[] weights, bool packed) -> Tensor",
)
def _write(features: Tensor, state: Tensor, valid: Tensor, weights: Sequence[Tensor], packed: bool) -> Tensor:
    parts = MemoryWeights(*weights)
    _checked(features, state, valid, parts)
    run = memory_write_triton if _has_kernel(features, state) else memory_write_reference
    return run(features, state, valid, parts, packed)


@_write.register_fake
def _write_fake(features: Tensor, state: Tensor, valid: Tensor, weights: Sequence[Tensor], packed: bool) -> Tensor:
    return torch.empty_like(state, dtype=torch.int8 if packed else features.dtype)


def warp_state(
    state: Tensor, motion: Tensor, visible: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Carry the stored state to where its surfaces are now: (state [N, h, w, S], valid [N, h, w, 1]) in
    `dtype`.

    `state` [N, h, w, S], int8 as `memory_write` left it, or float; `motion` fp32 [N, 2, h, w] to where it
    was, in pixels of the working frame (16 per entry), NaN for unknown; `visible` fp32 [N, 1, h, w].
    Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return warp_state_triton(state, motion, visible, dtype)
    moved, valid = torch.ops.mirage.warp_state(state, motion, visible, dtype)
    return moved, valid


def memory_read(features: Tensor, state: Tensor, valid: Tensor, weights: MemoryWeights) -> Tensor:
    """Add what the state knows and the gate believes to the features [N, h, w, C].

    `state` [N, h, w, S], S ≤ 128, and `valid` [N, h, w, 1] as `warp_state` made them, in the features' dtype.
    Raises `KernelError` for what a kernel could not take.
    """
    if recording() and _has_kernel(features, state):
        return memory_read_triton(features, state, valid, weights)
    out: Tensor = torch.ops.mirage.memory_read(features, state, valid, list(weights))
    return out


def memory_write(
    features: Tensor, state: Tensor, valid: Tensor, weights: MemoryWeights, *, packed: bool = True
) -> Tensor:
    """Return the next state [N, h, w, S]: int8 for storage, or in the features' dtype where not `packed`.

    Arguments as in `memory_read`. Raises `KernelError` for what a kernel could not take.
    """
    if recording() and _has_kernel(features, state):
        return memory_write_triton(features, state, valid, weights, packed)
    out: Tensor = torch.ops.mirage.memory_write(features, state, valid, list(weights), packed)
    return out

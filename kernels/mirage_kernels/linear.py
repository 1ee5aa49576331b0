# mypy: disable-error-code="no-untyped-def"
"""linear: the network's products outside its blocks, each with what stands around it in the same launch.

- ``"down"``: space-to-depth while reading, [N, 2h, 2w, C] -> [N, h, w, O];
- ``"up"``: depth-to-space and the skip connection while writing, [N, h, w, K] -> skip + [N, 2h, 2w, O / 4];
- ``"head"``: RMSNorm over channels and FiLM while reading, [N, h, w, C] -> [N, h, w, O];
- ``"plain"``: [N, h, w, K] -> [N, h, w, O].

Operands are fp32 (exact, off the tensor cores), fp16 or bf16. Weights may be fp8 (e4m3, one scale per output
channel): then the left operand is brought to fp8 while it is read, each row in runs of at most 128 channels
by its own largest value, and every run's product is added to fp32 sums outside the tensor cores, because
Hopper's fp8 products keep about 14 bits. Weights are read through ordinary pointers with asynchronous copies,
not through TMA descriptors: tiles are re-read from the L2 cache, and a descriptor would have to be built for
every call.

Floor: `N*h*w * (K + O) * 2` bytes (+ the skip), weights once `K * O * 2` (half in fp8); `2 * N*h*w * K * O`
operations, at twice the rate in fp8.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.block import rms_film
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
    target,
    tl,
    wide,
)

__all__ = ["LinearWeights", "Mode", "linear", "linear_reference", "linear_triton", "pack_linear"]

Mode = Literal["plain", "down", "up", "head"]
_FP8_MAX = 448.0


class LinearWeights(NamedTuple):
    """`weight` [O, K], compute dtype or float8_e4m3fn; fp32 `bias` [O] and `scale` [O] (ones but in fp8)."""

    weight: Tensor
    bias: Tensor
    scale: Tensor


def pack_linear(weight: Tensor, bias: Tensor, dtype: torch.dtype, *, fp8: bool = False) -> LinearWeights:
    """Pack a layer as `nn.Linear` holds it; with `fp8` each output channel is scaled to e4m3's range."""
    full = wide(weight)
    if not fp8:
        ones = torch.ones_like(full[:, 0])
        return LinearWeights(weight.to(dtype).contiguous(), wide(bias).contiguous(), ones)
    scale = full.abs().amax(1).clamp_min(1e-12) / _FP8_MAX
    return LinearWeights((full / scale[:, None]).to(torch.float8_e4m3fn), wide(bias).contiguous(), scale)


def _space_to_depth(x: Tensor) -> Tensor:
    n, h, w, c = x.shape
    return x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def _depth_to_space(x: Tensor) -> Tensor:
    n, h, w, c = x.shape
    return x.view(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def linear_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    mode: str,
    film: Tensor | None,
    skip: Tensor | None,
) -> Tensor:
    """The definition of `linear`, in fp32; fp8 weights count as what they stand for, x is not rounded."""
    v = wide(x)
    full = weight.to(v.dtype) * scale.to(v.dtype)[:, None]
    if mode == "down":
        v = _space_to_depth(v)
    elif film is not None:
        v = rms_film(v, *film.to(v.dtype).chunk(2, dim=-1))
    y = functional.linear(v, full, bias.to(v.dtype))
    if skip is not None:
        y = skip.to(v.dtype) + _depth_to_space(y)
    return y.to(x.dtype)


@jit
def _linear_kernel(
    x_ptr,  # [N, h, w, K], or [N, 2h, 2w, K / 4] where DOWN
    weight_ptr,  # [O, K]
    bias_ptr,  # [O] fp32
    scale_ptr,  # [O] fp32
    film_ptr,  # [N, 2K] fp32, rows film_stride apart
    skip_ptr,  # [N, 2h, 2w, O / 4]
    out_ptr,  # [N, h, w, O], or as skip_ptr
    film_stride,
    h,
    w,
    K: tl.constexpr,
    OUT: tl.constexpr,
    DOWN: tl.constexpr,
    UP: tl.constexpr,
    HEAD: tl.constexpr,
    FP8: tl.constexpr,
    EXACT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    # Output channels vary fastest: programs that run together share their rows of x.
    tiles: tl.constexpr = (OUT + BN - 1) // BN
    frame = tl.program_id(1)
    cell = tl.program_id(0) // tiles * BM + tl.arange(0, BM)
    n = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    keep = cell < h * w
    safe = tl.minimum(cell, h * w - 1)
    cy, cx = safe // w, safe % w
    kk = tl.arange(0, BK)
    dtype = out_ptr.dtype.element_ty
    precision: tl.constexpr = "ieee" if EXACT else "tf32"
    x_ptr += frame.to(tl.int64) * h * w * K
    film_ptr += frame * film_stride
    inverse = tl.zeros([BM], tl.float32)
    if HEAD:
        for k in tl.range(0, K, BK):
            a = tl.load(x_ptr + (safe * K)[:, None] + (k + kk)[None, :]).to(tl.float32)
            inverse += tl.sum(a * a, axis=1)
        inverse = tl.rsqrt(inverse / K + 1e-6)

    acc = tl.zeros([BM, BN], tl.float32)
    for k in tl.range(0, K, BK):
        if DOWN:
            # A run of BK channels lies in one of the four cells: (row, column, channel), channel fastest.
            C: tl.constexpr = K // 4
            corner = k // C
            source = (cy * 2 + corner // 2) * (2 * w) + cx * 2 + corner % 2
            a = tl.load(x_ptr + (source * C + k % C)[:, None] + kk[None, :])
        else:
            a = tl.load(x_ptr + (safe * K)[:, None] + (k + kk)[None, :])
        if HEAD:
            film = 1.0 + tl.load(film_ptr + k + kk)
            shift = tl.load(film_ptr + K + k + kk)
            a = a.to(tl.float32) * inverse[:, None] * film[None, :] + shift[None, :]
        weight = tl.load(weight_ptr + n[None, :] * K + (k + kk)[:, None], mask=(n < OUT)[None, :], other=0.0)
        if FP8:
            wide = a.to(tl.float32)
            unit = tl.maximum(tl.max(tl.abs(wide), axis=1), 1e-12) * (1.0 / 448.0)
            part = tl.dot((wide / unit[:, None]).to(tl.float8e4nv), weight)
            acc += part * unit[:, None]
        else:
            acc = tl.dot(a.to(dtype), weight, acc, input_precision=precision)
    if FP8:
        acc *= tl.load(scale_ptr + n, mask=n < OUT, other=0.0)[None, :]
    acc += tl.load(bias_ptr + n, mask=n < OUT, other=0.0)[None, :]

    keep2 = keep[:, None] & (n < OUT)[None, :]
    start = frame.to(tl.int64) * h * w * OUT
    if UP:
        D: tl.constexpr = OUT // 4
        corner = n // D
        pixel = (cy[:, None] * 2 + (corner // 2)[None, :]) * (2 * w) + cx[:, None] * 2 + (corner % 2)[None, :]
        at = pixel * D + (n % D)[None, :]
        acc += tl.load(skip_ptr + start + at, mask=keep2, other=0.0).to(tl.float32)
    else:
        at = safe[:, None] * OUT + n[None, :]
    tl.store(out_ptr + start + at, acc.to(dtype), mask=keep2)


# 128 x 128: a warp group's full-width product, 64 sums a thread, 32 KB a stage, so that two programs share a
# multiprocessor. Fewer than two tiles for each of 132 multiprocessors: 64 x 64, four times as many.
_WIDE = Config({"BM": 128, "BN": 128, "BK": 64}, 8, 3)
_NARROW = Config({"BM": 64, "BN": 64, "BK": 64}, 4, 3)
# fp32 operands are twice as large, and run on the ordinary units.
_EXACT = Config({"BM": 32, "BN": 32, "BK": 32}, 4, 2)
_ENOUGH = 264


def _config(x: Tensor, cells: int, frames: int, k: int, out: int, run: int, fp8: bool) -> Config:
    """Choose from the table; block sizes shrink to what divides the layer. `run`: channels side by side."""
    if x.dtype == torch.float32:
        chosen = _EXACT
    elif roomy(x) and out % 128 == 0 and frames * -(-cells // 128) * (out // 128) >= _ENOUGH:
        chosen = _WIDE
    else:
        chosen = _NARROW
    bn = chosen.sizes["BN"] if out % 32 else min(chosen.sizes["BN"], divisor(out, 128, 64, 32))
    bk = min(128 if fp8 and chosen is _WIDE else chosen.sizes["BK"], divisor(run, 128, 64, 32))
    return Config({"BM": chosen.sizes["BM"], "BN": bn, "BK": bk}, chosen.warps, chosen.stages)


def linear_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    mode: str,
    film: Tensor | None,
    skip: Tensor | None,
) -> Tensor:
    """Launch the kernel of `linear` on checked arguments."""
    n = x.shape[0]
    out_channels, k = weight.shape
    h, w = (x.shape[1] // 2, x.shape[2] // 2) if mode == "down" else (x.shape[1], x.shape[2])
    fp8 = weight.dtype == torch.float8_e4m3fn
    if fp8:
        require(target(x) >= 89, f"fp8 needs a chip of compute capability 8.9; this one has {target(x) / 10}")
        require(x.dtype != torch.float32, "fp8 weights go with fp16 or bf16 activations")
    config = _config(x, h * w, n, k, out_channels, k // 4 if mode == "down" else k, fp8)
    shape = (n, h, w, out_channels) if skip is None else tuple(skip.shape)
    out = torch.empty(shape, dtype=x.dtype, device=x.device)
    args: dict[str, Any] = {
        "x_ptr": x,
        "weight_ptr": weight,
        "bias_ptr": bias,
        "scale_ptr": scale,
        # What is absent is never read; any tensor stands for it.
        "film_ptr": bias if film is None else film,
        "skip_ptr": out if skip is None else skip,
        "out_ptr": out,
        "film_stride": 0 if film is None else film.stride(0),
        "h": h,
        "w": w,
    }
    constants = {
        "K": k,
        "OUT": out_channels,
        "DOWN": mode == "down",
        "UP": mode == "up",
        "HEAD": mode == "head",
        "FP8": fp8,
        "EXACT": x.dtype == torch.float32,
    }
    tiles = -(-h * w // config.sizes["BM"]) * -(-out_channels // config.sizes["BN"])
    launch(_linear_kernel, (tiles, n), args, constants, config)
    return out


def _checked(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    mode: str,
    film: Tensor | None,
    skip: Tensor | None,
) -> None:
    require(mode in ("plain", "down", "up", "head"), f'mode {mode!r}: there are "plain", "down", "up", "head"')
    check("x", x, (None, None, None, None), (*FLOATS, torch.float64))
    n, h, w, c = x.shape
    full = torch.float64 if x.dtype == torch.float64 else torch.float32
    k = 4 * c if mode == "down" else c
    check("weights.weight", weight, (None, k), (x.dtype, torch.float8_e4m3fn), like=x)
    out = weight.shape[0]
    check("weights.bias", bias, (out,), full, like=x)
    check("weights.scale", scale, (out,), full, like=x)
    require(c % 32 == 0, f"{c} input channels: a kernel needs a multiple of 32")
    if mode == "down":
        require(h % 2 == 0 and w % 2 == 0, f"a grid of {h}x{w} cells cannot be halved: pad it to even sizes")
    require((film is not None) == (mode == "head"), "film goes with the head, and the head with film")
    require((skip is not None) == (mode == "up"), 'skip goes with "up", and "up" with skip')
    if film is not None:
        require(film.shape == (n, 2 * c), f"film has shape {list(film.shape)}; it must be [{n}, {2 * c}]")
        require(film.dtype == full and film.stride(1) == 1, f"film must be {full} with contiguous columns")
        require(film.device == x.device, f"film is on {film.device} and x on {x.device}: move one of them")
    if skip is not None:
        require(out % 4 == 0, f"{out} output channels cannot be spread over 2x2 cells")
        check("skip", skip, (n, 2 * h, 2 * w, out // 4), x.dtype, like=x)


@torch.library.custom_op(
    "mirage::linear",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, Tensor scale, str mode, Tensor? film, Tensor? skip) -> Tensor",
)
def _op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    mode: str,
    film: Tensor | None,
    skip: Tensor | None,
) -> Tensor:
    _checked(x, weight, bias, scale, mode, film, skip)
    run = linear_triton if on_triton(x) else linear_reference
    return run(x, weight, bias, scale, mode, film, skip)


@_op.register_fake
def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    mode: str,
    film: Tensor | None,
    skip: Tensor | None,
) -> Tensor:
    if skip is not None:
        return torch.empty_like(skip)
    n, h, w, _ = x.shape
    return x.new_empty(n, h // 2, w // 2, weight.shape[0]) if mode == "down" else x.new_empty(n, h, w, weight.shape[0])


def linear(
    x: Tensor,
    weights: LinearWeights,
    mode: Mode = "plain",
    *,
    film: Tensor | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """Return one of the four products above, in x's dtype; x [N, h, w, C] contiguous, C a multiple of 32.

    `film` fp32 [N, 2C] (scale, shift; its rows may lie apart) for the head; `skip` [N, 2h, 2w, O / 4] for up.
    Raises `KernelError` for what a kernel could not take, and for fp8 weights on a chip without fp8.
    """
    if mode not in ("plain", "down", "up", "head"):
        raise KernelError(f'mode {mode!r}: there are "plain", "down", "up" and "head"')
    if recording():
        return linear_triton(x, *weights, mode, film, skip)
    out: Tensor = torch.ops.mirage.linear(x, *weights, mode, film, skip)
    return out

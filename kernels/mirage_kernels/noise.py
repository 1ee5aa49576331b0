# mypy: disable-error-code="no-untyped-def"
"""noise: counter-based noise that sticks to the world, and the noisy end of a solver step.

A value of the field depends on (seed, frame, y, x) alone, so it is the same whatever the batch, the launch
shape or the device: the hash and the movement of values are the same whole numbers everywhere, and only
logarithm and cosine differ in their last bits. The field has one value per 2x2 pixels of the working frame;
moving it and drawing what comes into view is one pass.

`solver_step` makes `y_k = (1 - k) y0 + k (x + sigma lift(eps))` with a noise level per frame, on cells.

Floors: `advect_noise` 4 + 8 + 1 + 4 bytes a value (fresh alone 4) and about 120 operations; `solver_step`
3 * 192 * 2 bytes a cell in bf16, and 4 * 16 of noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mirage_kernels.frames import mix32
from mirage_kernels.launch import FLOATS, Config, check, jit, launch, on_triton, recording, require, tl, wide

__all__ = [
    "advect_noise",
    "advect_noise_reference",
    "fresh_noise",
    "fresh_noise_reference",
    "noise_triton",
    "rint",
    "solver_step",
    "solver_step_reference",
    "solver_step_triton",
]

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """`lowbias32` on int64 in [0, 2**32)."""
    x = x & _MASK
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def fresh_noise_reference(seed: Tensor, frame: Tensor, height: int, width: int) -> Tensor:
    """The definition of `fresh_noise`: Box-Muller on two hashes of a counter."""
    y = torch.arange(height, device=seed.device).view(1, 1, -1, 1)
    x = torch.arange(width, device=seed.device).view(1, 1, 1, -1)
    key = _mix(seed * 0x9E3779B1 + frame * 0x85EBCA77 + 0x165667B1).view(-1, 1, 1, 1)
    counter = (y << 16 | x) * 2
    a = _mix(counter ^ key)
    b = _mix((counter + 1) ^ _mix(key + 0x27D4EB2F))
    u = (a.float() + 1.0) * (1.0 / 4294967808.0)
    return (-2.0 * u.log()).sqrt() * (b.float() * (2 * math.pi / 4294967296.0)).cos()


def advect_noise_reference(noise: Tensor, motion: Tensor, visible: Tensor, seed: Tensor, frame: Tensor) -> Tensor:
    """The definition of `advect_noise`: nearest neighbour, so that the variance stays what it is.

    Where the picture is stretched, two neighbours come from one value: the right or lower of them is fresh.
    """
    n, _, h, w = noise.shape
    y = torch.arange(h, device=noise.device).view(1, -1, 1) + motion[:, 1] * 0.5
    x = torch.arange(w, device=noise.device).view(1, 1, -1) + motion[:, 0] * 0.5
    finite = torch.isfinite(x) & torch.isfinite(y)
    iy = torch.where(finite, y, -1.0).round().clamp(-1, h).long()
    ix = torch.where(finite, x, -1.0).round().clamp(-1, w).long()
    inside = (iy >= 0) & (iy < h) & (ix >= 0) & (ix < w) & visible[:, 0]
    place = torch.where(inside, iy * w + ix, -1)
    inside = inside.clone()
    inside[:, :, 1:] &= place[:, :, 1:] != place[:, :, :-1]
    inside[:, 1:, :] &= place[:, 1:, :] != place[:, :-1, :]
    moved = noise.view(n, -1).gather(1, place.clamp_min(0).view(n, -1)).view(n, 1, h, w)
    return torch.where(inside[:, None], moved, fresh_noise_reference(seed, frame, h, w))


def solver_step_reference(answer: Tensor, source: Tensor, noise: Tensor, k: Tensor, sigma: float) -> Tensor:
    """The definition of `solver_step`."""
    n, h, w, _ = source.shape
    lifted = noise.view(n, h, 4, 1, w, 4, 1, 1).expand(n, h, 4, 2, w, 4, 2, 3)
    lifted = lifted.permute(0, 1, 4, 2, 3, 5, 6, 7).reshape(n, h, w, 192)
    level = k.view(-1, 1, 1, 1)
    y = (1 - level) * wide(answer) + level * (wide(source) + sigma * lifted)
    return y.to(source.dtype)


@jit
def rint(x):
    """Round to the nearest whole number, ties to even, exactly; |x| below 2**31."""
    low = tl.floor(x)
    rest = x - low
    odd = (low.to(tl.int32) & 1) == 1
    return low + tl.where((rest > 0.5) | ((rest == 0.5) & odd), 1.0, 0.0)


@jit
def _normal(key, y, x):
    """Unit normal noise at (y, x) for a frame's key, uint32 of one shape."""
    counter = ((y << 16) | x).to(tl.uint32) * 2
    a = mix32(counter ^ key)
    b = mix32((counter + 1) ^ mix32(key + 0x27D4EB2F))
    u = (a.to(tl.float32) + 1.0) * (1.0 / 4294967808.0)
    return tl.sqrt(-2.0 * tl.log(u)) * tl.cos(b.to(tl.float32) * 1.4629180792671596e-09)


@jit
def _place(motion_ptr, visible_ptr, i, y, x, h, w, mask):
    """Which entry the value at (y, x), entry i of the field, was; -1 where it was outside or hidden."""
    from_y = y.to(tl.float32) + tl.load(motion_ptr + h * w + i, mask=mask, other=0.0) * 0.5
    from_x = x.to(tl.float32) + tl.load(motion_ptr + i, mask=mask, other=0.0) * 0.5
    finite = (tl.abs(from_y) < float("inf")) & (tl.abs(from_x) < float("inf"))
    # Bounded first: a position beyond 2**31 has no whole number.
    iy = rint(tl.minimum(tl.maximum(tl.where(finite, from_y, -1.0), -1.0), h * 1.0)).to(tl.int32)
    ix = rint(tl.minimum(tl.maximum(tl.where(finite, from_x, -1.0), -1.0), w * 1.0)).to(tl.int32)
    inside = (iy >= 0) & (iy < h) & (ix >= 0) & (ix < w)
    inside = inside & (tl.load(visible_ptr + i, mask=mask, other=0) != 0)
    return tl.where(inside, iy * w + ix, -1)


@jit
def _noise_kernel(
    noise_ptr,  # [N, 1, h, w] fp32
    motion_ptr,  # [N, 2, h, w] fp32
    visible_ptr,  # [N, 1, h, w] uint8
    seed_ptr,  # [N] int64
    frame_ptr,  # [N] int64
    out_ptr,  # [N, 1, h, w] fp32
    h,
    w,
    MOVE: tl.constexpr,
    B: tl.constexpr,
):
    n = tl.program_id(1)
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = i < h * w
    y, x = i // w, i % w
    start = n.to(tl.int64) * h * w
    zero = tl.zeros([B], tl.int32)
    # Only the low 32 bits of the key's sum matter, and they are the sum of the low 32 bits.
    seed = tl.load(seed_ptr + n + zero).to(tl.uint32)
    number = tl.load(frame_ptr + n + zero).to(tl.uint32)
    key = mix32(seed * 0x9E3779B1 + number * 0x85EBCA77 + 0x165667B1)
    value = _normal(key, y, x)
    if MOVE:
        motion_ptr += start * 2
        visible_ptr += start
        place = _place(motion_ptr, visible_ptr, i, y, x, h, w, keep)
        left = _place(motion_ptr, visible_ptr, i - 1, y, x - 1, h, w, keep & (x > 0))
        above = _place(motion_ptr, visible_ptr, i - w, y - 1, x, h, w, keep & (y > 0))
        # Masked loads read as hidden: what has no neighbour has none that shares its value.
        inside = (place >= 0) & (place != left) & (place != above)
        moved = tl.load(noise_ptr + start + place, mask=inside, other=0.0)
        value = tl.where(inside, moved, value)
    tl.store(out_ptr + start + i, value, mask=keep)


@jit
def _solver_kernel(
    answer_ptr,  # [N, h, w, 192]
    source_ptr,  # [N, h, w, 192]
    noise_ptr,  # [N, 1, 4h, 4w] fp32
    k_ptr,  # [N] fp32
    out_ptr,  # [N, h, w, 192]
    sigma,
    h,
    w,
    B: tl.constexpr,
):
    n = tl.program_id(1)
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = i < h * w * 192
    cell, part = i // 192, i % 192
    start = n.to(tl.int64) * h * w * 192
    k = tl.load(k_ptr + n)
    # (row, column, colour) inside a cell; noise has a value for two rows and two columns.
    y = cell // w * 4 + part // 48
    x = cell % w * 4 + part % 24 // 6
    noise = tl.load(noise_ptr + n.to(tl.int64) * 16 * h * w + y * (4 * w) + x, mask=keep, other=0.0)
    y0 = tl.load(answer_ptr + start + i, mask=keep, other=0.0).to(tl.float32)
    source = tl.load(source_ptr + start + i, mask=keep, other=0.0).to(tl.float32)
    value = (1.0 - k) * y0 + k * (source + sigma * noise)
    tl.store(out_ptr + start + i, value.to(out_ptr.dtype.element_ty), mask=keep)


# Four values a thread: 16-byte accesses in fp32, and enough programs (510 at 1080p) for every multiprocessor.
_NOISE = Config({"B": 512}, 4, 1)
# Eight values a thread: 16-byte accesses in bf16.
_SOLVER = Config({"B": 1024}, 4, 1)


def noise_triton(
    seed: Tensor,
    frame: Tensor,
    height: int,
    width: int,
    noise: Tensor | None = None,
    motion: Tensor | None = None,
    visible: Tensor | None = None,
) -> Tensor:
    """Launch the kernel of `fresh_noise` or, with a field to move, of `advect_noise`; checked arguments."""
    n = seed.shape[0]
    out = torch.empty(n, 1, height, width, device=seed.device)
    args = {
        # What is absent is never read; the output stands for it.
        "noise_ptr": out if noise is None else noise,
        "motion_ptr": out if motion is None else motion,
        "visible_ptr": out if visible is None else visible.view(torch.uint8),
        "seed_ptr": seed,
        "frame_ptr": frame,
        "out_ptr": out,
        "h": height,
        "w": width,
    }
    launch(_noise_kernel, (-(-height * width // _NOISE.sizes["B"]), n), args, {"MOVE": noise is not None}, _NOISE)
    return out


def solver_step_triton(answer: Tensor, source: Tensor, noise: Tensor, k: Tensor, sigma: float) -> Tensor:
    """Launch the kernel of `solver_step` on checked arguments."""
    n, h, w, c = source.shape
    out = torch.empty_like(source)
    args = {
        "answer_ptr": answer,
        "source_ptr": source,
        "noise_ptr": noise,
        "k_ptr": k,
        "out_ptr": out,
        "sigma": float(sigma),
        "h": h,
        "w": w,
    }
    launch(_solver_kernel, (-(-h * w * c // _SOLVER.sizes["B"]), n), args, {}, _SOLVER)
    return out


def _check_seed(seed: Tensor, frame: Tensor, height: int, width: int) -> None:
    check("seed", seed, (None,), torch.int64)
    check("frame", frame, tuple(seed.shape), torch.int64, like=seed)
    fits = 0 < height < 32768 and 0 < width < 65536
    require(fits, f"a field of {height}x{width}: the counter holds 15 bits of y and 16 of x")


@torch.library.custom_op(
    "mirage::fresh_noise",
    mutates_args=(),
    schema="(Tensor seed, Tensor frame, int height, int width) -> Tensor",
)
def _fresh(seed: Tensor, frame: Tensor, height: int, width: int) -> Tensor:
    _check_seed(seed, frame, height, width)
    return (noise_triton if on_triton(seed) else fresh_noise_reference)(seed, frame, height, width)


@_fresh.register_fake
def _fresh_fake(seed: Tensor, frame: Tensor, height: int, width: int) -> Tensor:
    return seed.new_empty(seed.shape[0], 1, height, width, dtype=torch.float32)


@torch.library.custom_op(
    "mirage::advect_noise",
    mutates_args=(),
    schema="(Tensor noise, Tensor motion, Tensor visible, Tensor seed, Tensor frame) -> Tensor",
)
def _advect(noise: Tensor, motion: Tensor, visible: Tensor, seed: Tensor, frame: Tensor) -> Tensor:
    check("noise", noise, (None, 1, None, None), torch.float32)
    n, _, h, w = noise.shape
    check("motion", motion, (n, 2, h, w), torch.float32, like=noise)
    check("visible", visible, (n, 1, h, w), torch.bool, like=noise)
    check("seed", seed, (n,), torch.int64, like=noise)
    _check_seed(seed, frame, h, w)
    if on_triton(noise):
        return noise_triton(seed, frame, h, w, noise, motion, visible)
    return advect_noise_reference(noise, motion, visible, seed, frame)


@_advect.register_fake
def _advect_fake(noise: Tensor, motion: Tensor, visible: Tensor, seed: Tensor, frame: Tensor) -> Tensor:
    return torch.empty_like(noise)


@torch.library.custom_op(
    "mirage::solver_step",
    mutates_args=(),
    schema="(Tensor answer, Tensor source, Tensor noise, Tensor k, float sigma) -> Tensor",
)
def _solver(answer: Tensor, source: Tensor, noise: Tensor, k: Tensor, sigma: float) -> Tensor:
    check("source", source, (None, None, None, 192), (*FLOATS, torch.float64))
    n, h, w, _ = source.shape
    full = torch.float64 if source.dtype == torch.float64 else torch.float32
    check("answer", answer, tuple(source.shape), source.dtype, like=source)
    check("noise", noise, (n, 1, 4 * h, 4 * w), full, like=source)
    check("k", k, (n,), full, like=source)
    run = solver_step_triton if on_triton(source) else solver_step_reference
    return run(answer, source, noise, k, sigma)


@_solver.register_fake
def _solver_fake(answer: Tensor, source: Tensor, noise: Tensor, k: Tensor, sigma: float) -> Tensor:
    return torch.empty_like(source)


def fresh_noise(seed: Tensor, frame: Tensor, height: int, width: int) -> Tensor:
    """Draw unit normal noise, fp32 [N, 1, height, width], from int64 seeds and frame numbers [N].

    Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return noise_triton(seed, frame, height, width)
    out: Tensor = torch.ops.mirage.fresh_noise(seed, frame, height, width)
    return out


def advect_noise(noise: Tensor, motion: Tensor, visible: Tensor, seed: Tensor, frame: Tensor) -> Tensor:
    """Carry a field along the motion and draw afresh what comes into view: fp32 [N, 1, h, w].

    `noise` is the previous frame's field; `motion` fp32 [N, 2, h, w] in pixels of the working frame (two per
    value) to where each value was, not finite where unknown; `visible` bool [N, 1, h, w]; `seed`, `frame`
    int64 [N]. Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return noise_triton(seed, frame, noise.shape[2], noise.shape[3], noise, motion, visible)
    out: Tensor = torch.ops.mirage.advect_noise(noise, motion, visible, seed, frame)
    return out


def solver_step(answer: Tensor, source: Tensor, noise: Tensor, k: Tensor, sigma: float) -> Tensor:
    """Return `(1 - k) answer + k (source + sigma lift(noise))`, cells [N, h, w, 192] of v.

    `noise` fp32 [N, 1, 4h, 4w]; `k` fp32 [N], the noise level of each frame. Where the stem follows, `pixels`
    does this step itself and writes no `y`. Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return solver_step_triton(answer, source, noise, k, sigma)
    out: Tensor = torch.ops.mirage.solver_step(answer, source, noise, k, sigma)
    return out

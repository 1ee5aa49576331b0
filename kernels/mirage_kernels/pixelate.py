# mypy: disable-error-code="no-untyped-def"
"""pixelate: an answer in square pixels, as far as its style says; in place.

The mean of each block of `side` x `side` pixels, from the upper left corner on; at the lower and right edge blocks are
cut off, and have what is there repeated.

Floor: nothing where a style draws none; else the frame in and out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.compose import finish, store_rgb
from mirage_kernels.frames import (
    FrameLayout,
    frame_of,
    load_rgb,
    pack_frame,
    raw_to_unit,
    srgb_decode,
    typed_view,
    unit_rgb,
    unpack_frame,
)
from mirage_kernels.launch import Config, check, jit, launch, on_triton, recording, require, tl
from mirage_kernels.lines import point_side

__all__ = ["block_side", "means_of_blocks", "pixelate", "pixelate_reference", "pixelate_triton"]


def block_side(height: int) -> int:
    """The side of a style's pixels on a display of so many rows: four of those that lines are drawn in."""
    return 4 * point_side(height)


def means_of_blocks(image: Tensor, side: int) -> Tensor:
    """An image [N, C, H, W] with the mean of its block everywhere."""
    height, width = image.shape[-2:]
    padded = functional.pad(image, (0, -width % side, 0, -height % side), mode="replicate")
    coarse = functional.interpolate(functional.avg_pool2d(padded, side), scale_factor=side, mode="nearest")
    return coarse[..., :height, :width]


def pixelate_reference(frames: Tensor, layout: FrameLayout, amount: Tensor, side: int, mask: Tensor | None) -> None:
    """The definition of `pixelate`; writes into `frames`."""
    raw = unpack_frame(frames, layout)
    unit = unit_rgb(raw, layout).permute(0, 3, 1, 2)
    share = amount.view(-1, 1, 1, 1) if mask is None else amount.view(-1, 1, 1, 1) * mask.float()
    delta = torch.nan_to_num(share * (means_of_blocks(unit, side) - unit), nan=0.0).permute(0, 2, 3, 1)
    unit = unit.permute(0, 2, 3, 1)
    edited = (unit + delta).clamp(0, 1)
    step = srgb_decode(edited) - srgb_decode(unit) if layout.linear else edited - unit
    answer = torch.nan_to_num(raw[..., :3], nan=0.0, posinf=torch.inf, neginf=-torch.inf) + step * layout.scale
    if layout.format != "rgba16f":
        answer = (answer + 0.5).floor().clamp(0, layout.scale)
    drawn = pack_frame(torch.cat([answer, raw[..., 3:]], -1), layout, frames.clone())
    frames.copy_(torch.where((amount != 0).view(-1, 1), drawn, frames))


@jit
def _pixelate_kernel(
    frame_ptr,  # elements of [N, size_bytes]
    amount_ptr,  # [N] fp32
    mask_ptr,  # [N, 1, H, W]
    frame_stride,
    first,
    pitch,
    height,
    width,
    across,
    blocks,
    KIND: tl.constexpr,
    BGR: tl.constexpr,
    LINEAR: tl.constexpr,
    SCALE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    SIDE: tl.constexpr,
    B: tl.constexpr,
):
    frame = tl.program_id(1)
    amount = tl.load(amount_ptr + frame)
    if amount != 0.0:
        i = tl.program_id(0) * B + tl.arange(0, B)
        inside = i < blocks
        top = i // across * SIDE
        left = i % across * SIDE
        frame_ptr += frame.to(tl.int64) * frame_stride
        mean_r = tl.zeros([B], tl.float32)
        mean_g = mean_r
        mean_b = mean_r
        for tap in range(SIDE * SIDE):
            y = tl.minimum(top + tap // SIDE, height - 1)
            x = tl.minimum(left + tap % SIDE, width - 1)
            r, g, b, _alpha = load_rgb(frame_ptr, first + y * pitch, x, inside, KIND, BGR)
            mean_r += raw_to_unit(r, KIND, LINEAR)
            mean_g += raw_to_unit(g, KIND, LINEAR)
            mean_b += raw_to_unit(b, KIND, LINEAR)
        mean_r *= 1.0 / (SIDE * SIDE)
        mean_g *= 1.0 / (SIDE * SIDE)
        mean_b *= 1.0 / (SIDE * SIDE)
        half = tl.full([B], 0.5, tl.float32)
        for tap in range(SIDE * SIDE):
            y = top + tap // SIDE
            x = left + tap % SIDE
            keep = inside & (y < height) & (x < width)
            share = amount + tl.zeros([B], tl.float32)
            if HAS_MASK:
                at = mask_ptr + frame.to(tl.int64) * height * width + y * width + x
                share *= tl.load(at, mask=keep, other=0.0).to(tl.float32)
            raw_r, raw_g, raw_b, alpha = load_rgb(frame_ptr, first + y * pitch, x, keep, KIND, BGR)
            r = raw_to_unit(raw_r, KIND, LINEAR)
            g = raw_to_unit(raw_g, KIND, LINEAR)
            b = raw_to_unit(raw_b, KIND, LINEAR)
            r = finish(raw_r, r, share * (mean_r - r) * 2.0, half, KIND, LINEAR, SCALE)
            g = finish(raw_g, g, share * (mean_g - g) * 2.0, half, KIND, LINEAR, SCALE)
            b = finish(raw_b, b, share * (mean_b - b) * 2.0, half, KIND, LINEAR, SCALE)
            store_rgb(frame_ptr + first + y * pitch, x, r, g, b, alpha, keep, KIND, BGR)


# A block a thread.
_CONFIG = Config({"B": 128}, 4, 1)


def pixelate_triton(frames: Tensor, layout: FrameLayout, amount: Tensor, side: int, mask: Tensor | None) -> None:
    """Launch the kernel of `pixelate` on checked arguments."""
    elements, stride, first, pitch = typed_view(frames, layout, words=True)
    across = -(-layout.width // side)
    blocks = across * -(-layout.height // side)
    args: dict[str, Any] = {
        "frame_ptr": elements, "amount_ptr": amount, "mask_ptr": amount if mask is None else mask,
        "frame_stride": stride, "first": first, "pitch": pitch, "height": layout.height, "width": layout.width,
        "across": across, "blocks": blocks,
    }  # fmt: skip
    constants = {
        "KIND": layout.kind, "BGR": layout.format == "bgra8", "LINEAR": layout.linear, "SCALE": float(layout.scale),
        "HAS_MASK": mask is not None, "SIDE": side,
    }  # fmt: skip
    launch(_pixelate_kernel, (-(-blocks // _CONFIG.sizes["B"]), frames.shape[0]), args, constants, _CONFIG)


@torch.library.custom_op(
    "mirage::pixelate", mutates_args=("frames",),
    schema="(Tensor(a!) frames, str format, int height, int width, int pitch_bytes, bool flipped, bool linear, "
    "Tensor amount, int side, Tensor? mask) -> ()",
)  # fmt: skip
def _op(
    frames: Tensor, format: Any, height: int, width: int, pitch_bytes: int, flipped: bool, linear: bool, amount: Tensor,
    side: int, mask: Tensor | None,
) -> None:  # fmt: skip
    layout = FrameLayout(format, height, width, pitch_bytes, flipped, linear)
    frame_of(frames, layout)
    check("amount", amount, (frames.shape[0],), torch.float32, like=frames)
    require(side > 0, f"pixels of {side} x {side}")
    if mask is not None:
        check("mask", mask, (frames.shape[0], 1, height, width), (torch.float32, torch.float16), like=frames)
    (pixelate_triton if on_triton(frames) else pixelate_reference)(frames, layout, amount, side, mask)


@_op.register_fake
def _fake(*_: Any) -> None:
    return None


def pixelate(
    frames: Tensor, layout: FrameLayout, amount: Tensor, *, side: int = 0, mask: Tensor | None = None
) -> Tensor:
    """Draw `frames` uint8 [N, size_bytes] in square pixels of `side` (`block_side` where left out), in place.

    As far as `amount` fp32 [N] says, and `mask` [N, 1, H, W] (fp32 or fp16) of each pixel. Returns `frames`. Raises
    `KernelError` for what a kernel could not take.
    """
    side = side or block_side(layout.height)
    if recording():
        pixelate_triton(frames, layout, amount, side, mask)
        return frames
    shape = (layout.format, layout.height, layout.width, layout.pitch_bytes, layout.flipped, layout.linear)
    torch.ops.mirage.pixelate(frames, *shape, amount, side, mask)
    return frames

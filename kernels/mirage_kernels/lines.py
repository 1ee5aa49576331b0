# mypy: disable-error-code="no-untyped-def"
"""depth_lines, colour_lines: where shapes end and turn, for `shade` to draw ink and shining edges along.

Both are fields with one value for 2x2 working pixels. From depth lines are certain: fp32 in [0, 1]. A frame without
depth shows colours alone, and where they part there may be a line, or a texture, a shadow, a stain: `-1 - e`, with e in
[0, 1] how much they part. How much of that is drawn, `shade` takes from the network's words.

Floors: `depth_lines` 4 + 4 bytes a value and about 40 operations; `colour_lines` the frame once and 4 bytes a value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.frames import FrameLayout, frame_of, load_rgb, raw_to_unit, typed_view, unit_rgb, unpack_frame
from mirage_kernels.launch import Config, check, jit, launch, on_triton, recording, require, tl, wide
from mirage_kernels.pixels import grid_size

__all__ = [
    "colour_lines",
    "colour_lines_of",
    "colour_lines_reference",
    "colour_lines_triton",
    "depth_lines",
    "depth_lines_reference",
    "depth_lines_triton",
]


def depth_lines_reference(near: Tensor, given: Tensor) -> Tensor:
    """The definition of `depth_lines`: fp32 [N, 1, H, W] in [0, 1], and -1 in frames that have no depth.

    `near` [N, 1, H, W] is `1 / (1 + metres / 4)`, every second pixel; `given` [N] says which frames have depth. As the
    program that draws the truths does, depth is compared through 1/z, which is affine on the screen for a plane: its
    second difference is zero on every flat surface and jumps where surfaces part. The line is the nearer one's.
    """
    near = wide(near).clamp(1e-4, 1 - 1e-4)
    inverse = near / (1 - near)
    # At the field's edge nobody knows what is beside: no line.
    pad = functional.pad(inverse, (1, 1, 1, 1), mode="replicate")
    across = (2 * inverse - pad[..., 1:-1, 2:] - pad[..., 1:-1, :-2]) / inverse
    down = (2 * inverse - pad[..., 2:, 1:-1] - pad[..., :-2, 1:-1]) / inverse
    across[..., 0], across[..., -1], down[..., 0, :], down[..., -1, :] = 0.0, 0.0, 0.0, 0.0
    ridge, valley = torch.maximum(across, down), torch.maximum(-across, -down)
    # Behind what stands in front, depth falls into a valley as well, a deep one: no line of its own.
    crease = torch.where(valley < 0.15, torch.maximum(ridge, valley), ridge)
    line = ((crease - 0.02) * 40).clamp(0, 1)
    return torch.where(given.view(-1, 1, 1, 1) > 0, line, -1.0)


def colour_lines_of(unit: Tensor) -> Tensor:
    """The definition of `colour_lines` on working pixels [N, 3, 8h, 8w], colours in [0, 1]: [N, 1, 4h, 4w].

    Means of 4x4 pixels are compared with those to the left and above: single pixels part everywhere in a picture that
    is noisy, and where it is drawn in large ones.
    """
    smooth = functional.avg_pool2d(functional.pad(wide(unit), (1, 1, 1, 1), mode="replicate"), 4, 2)
    parts = torch.zeros_like(smooth[:, :1])
    parts[..., 1:] = (smooth[..., 1:] - smooth[..., :-1]).abs().amax(1, keepdim=True)
    above = (smooth[..., 1:, :] - smooth[..., :-1, :]).abs().amax(1, keepdim=True)
    parts[..., 1:, :] = torch.maximum(parts[..., 1:, :], above)
    return -1 - ((parts - 0.05) * 8).clamp(0, 1)


def colour_lines_reference(frames: Tensor, layout: FrameLayout, rows: int, columns: int) -> Tensor:
    """`colour_lines_of` the working frame: of each working pixel the display's in its middle."""
    h, w = grid_size(rows, columns)
    unit = unit_rgb(unpack_frame(frames, layout), layout).permute(0, 3, 1, 2)
    y = torch.arange(8 * h, device=frames.device).clamp_max(rows - 1)
    x = torch.arange(8 * w, device=frames.device).clamp_max(columns - 1)
    y, x = (2 * y + 1) * layout.height // (2 * rows), (2 * x + 1) * layout.width // (2 * columns)
    return colour_lines_of(unit[:, :, y][:, :, :, x])


@jit
def _most(a, b):
    """The greater one, or NaN where either is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@jit
def _inverse(near_ptr, i, mask):
    """1/z, up to a constant, of an entry of the field."""
    near = _most(tl.load(near_ptr + i, mask=mask, other=0.5), 1e-4)
    near = tl.minimum(near, 1 - 1e-4, propagate_nan=tl.PropagateNan.ALL)
    return near / (1.0 - near)


@jit
def _depth_lines_kernel(
    near_ptr,  # [N, 1, height, width] fp32
    given_ptr,  # [N] fp32
    out_ptr,  # [N, 1, height, width] fp32
    height,
    width,
    B: tl.constexpr,
):
    frame = tl.program_id(1)
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = i < height * width
    out_ptr += frame.to(tl.int64) * height * width
    if tl.load(given_ptr + frame) > 0.0:
        near_ptr += frame.to(tl.int64) * height * width
        y, x = i // width, i % width
        # At the field's edge nobody knows what is beside: no line.
        own = _inverse(near_ptr, i, keep)
        inside_x, inside_y = (x > 0) & (x + 1 < width), (y > 0) & (y + 1 < height)
        right = _inverse(near_ptr, tl.where(x + 1 < width, i + 1, i), keep)
        left = _inverse(near_ptr, tl.where(x > 0, i - 1, i), keep)
        below = _inverse(near_ptr, tl.where(y + 1 < height, i + width, i), keep)
        above = _inverse(near_ptr, tl.where(y > 0, i - width, i), keep)
        across = tl.where(inside_x, (2.0 * own - right - left) / own, 0.0)
        down = tl.where(inside_y, (2.0 * own - below - above) / own, 0.0)
        ridge, valley = _most(across, down), _most(-across, -down)
        crease = tl.where(valley < 0.15, _most(ridge, valley), ridge)
        line = tl.minimum(_most((crease - 0.02) * 40.0, 0.0), 1.0, propagate_nan=tl.PropagateNan.ALL)
        tl.store(out_ptr + i, line, mask=keep)
    else:
        tl.store(out_ptr + i, tl.full([B], -1.0, tl.float32), mask=keep)


@jit
def _mean(frame_ptr, y, x, keep, first, pitch, height, width, rows, columns, KIND, BGR, LINEAR):
    """The mean colour of the 4x4 working pixels around entries (y, x) of the field: (r, g, b), each [B]."""
    r = tl.zeros_like(y).to(tl.float32)
    g = r
    b = r
    for tap in tl.static_range(16):
        row = tl.minimum(tl.maximum(2 * y + (tap // 4 - 1), 0), rows - 1)
        column = tl.minimum(tl.maximum(2 * x + (tap % 4 - 1), 0), columns - 1)
        row = ((2 * row + 1).to(tl.int64) * height // (2 * rows)).to(tl.int32)
        column = ((2 * column + 1).to(tl.int64) * width // (2 * columns)).to(tl.int32)
        red, green, blue, _a = load_rgb(frame_ptr, first + row * pitch, column, keep, KIND, BGR)
        r += raw_to_unit(red, KIND, LINEAR)
        g += raw_to_unit(green, KIND, LINEAR)
        b += raw_to_unit(blue, KIND, LINEAR)
    return r * 0.0625, g * 0.0625, b * 0.0625


@jit
def _apart(r, g, b, r2, g2, b2):
    return tl.maximum(tl.maximum(tl.abs(r - r2), tl.abs(g - g2)), tl.abs(b - b2))


@jit
def _colour_lines_kernel(
    frame_ptr,  # elements of [N, size_bytes]
    out_ptr,  # [N, 1, 4h, 4w] fp32
    frame_stride,
    first,
    pitch,
    height,
    width,
    rows,
    columns,
    out_height,
    out_width,
    KIND: tl.constexpr,
    BGR: tl.constexpr,
    LINEAR: tl.constexpr,
    B: tl.constexpr,
):
    frame = tl.program_id(1)
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = i < out_height * out_width
    y, x = i // out_width, i % out_width
    frame_ptr += frame.to(tl.int64) * frame_stride
    r, g, b = _mean(frame_ptr, y, x, keep, first, pitch, height, width, rows, columns, KIND, BGR, LINEAR)
    left = tl.maximum(x - 1, 0)
    r2, g2, b2 = _mean(frame_ptr, y, left, keep, first, pitch, height, width, rows, columns, KIND, BGR, LINEAR)
    parts = tl.where(x > 0, _apart(r, g, b, r2, g2, b2), 0.0)
    above = tl.maximum(y - 1, 0)
    r2, g2, b2 = _mean(frame_ptr, above, x, keep, first, pitch, height, width, rows, columns, KIND, BGR, LINEAR)
    parts = tl.maximum(parts, tl.where(y > 0, _apart(r, g, b, r2, g2, b2), 0.0))
    line = tl.minimum(tl.maximum((parts - 0.05) * 8.0, 0.0), 1.0)
    tl.store(out_ptr + frame.to(tl.int64) * out_height * out_width + i, -1.0 - line, mask=keep)


# Two values a thread.
_LINES = Config({"B": 256}, 4, 1)
# One: each reads 48 pixels, its neighbours mostly the same ones.
_COLOURS = Config({"B": 128}, 4, 1)


def depth_lines_triton(near: Tensor, given: Tensor) -> Tensor:
    """Launch the kernel of `depth_lines` on checked arguments."""
    n, _, height, width = near.shape
    out = torch.empty_like(near)
    args = {"near_ptr": near, "given_ptr": given, "out_ptr": out, "height": height, "width": width}
    launch(_depth_lines_kernel, (-(-height * width // _LINES.sizes["B"]), n), args, {}, _LINES)
    return out


def colour_lines_triton(frames: Tensor, layout: FrameLayout, rows: int, columns: int) -> Tensor:
    """Launch the kernel of `colour_lines` on checked arguments."""
    n, (h, w) = frames.shape[0], grid_size(rows, columns)
    out = torch.empty(n, 1, 4 * h, 4 * w, device=frames.device)
    elements, stride, first, pitch = typed_view(frames, layout, words=True)
    args: dict[str, Any] = {
        "frame_ptr": elements, "out_ptr": out, "frame_stride": stride, "first": first, "pitch": pitch,
        "height": layout.height, "width": layout.width, "rows": rows, "columns": columns, "out_height": 4 * h,
        "out_width": 4 * w,
    }  # fmt: skip
    constants = {"KIND": layout.kind, "BGR": layout.format == "bgra8", "LINEAR": layout.linear}
    launch(_colour_lines_kernel, (-(-16 * h * w // _COLOURS.sizes["B"]), n), args, constants, _COLOURS)
    return out


@torch.library.custom_op("mirage::depth_lines", mutates_args=(), schema="(Tensor near, Tensor given) -> Tensor")
def _lines(near: Tensor, given: Tensor) -> Tensor:
    check("near", near, (None, 1, None, None), (torch.float32, torch.float64))
    check("given", given, (near.shape[0],), near.dtype, like=near)
    return (depth_lines_triton if on_triton(near) else depth_lines_reference)(near, given)


@_lines.register_fake
def _lines_fake(near: Tensor, given: Tensor) -> Tensor:
    return torch.empty_like(near)


@torch.library.custom_op(
    "mirage::colour_lines", mutates_args=(),
    schema="(Tensor frames, str format, int height, int width, int pitch_bytes, bool flipped, bool linear, int rows, "
    "int columns) -> Tensor",
)  # fmt: skip
def _colours(
    frames: Tensor, format: Any, height: int, width: int, pitch_bytes: int, flipped: bool, linear: bool, rows: int,
    columns: int,
) -> Tensor:  # fmt: skip
    layout = FrameLayout(format, height, width, pitch_bytes, flipped, linear)
    frame_of(frames, layout)
    require(rows > 0 and columns > 0, f"a working frame of {columns}x{rows} pixels")
    return (colour_lines_triton if on_triton(frames) else colour_lines_reference)(frames, layout, rows, columns)


@_colours.register_fake
def _colours_fake(frames: Tensor, *shape: Any) -> Tensor:
    h, w = grid_size(*shape[-2:])
    return frames.new_empty(frames.shape[0], 1, 4 * h, 4 * w, dtype=torch.float32)


def depth_lines(near: Tensor, given: Tensor) -> Tensor:
    """Return where shapes end and turn, from depth: fp32 [N, 1, H, W] in [0, 1], and -1 in frames without depth.

    `near` fp32 [N, 1, H, W] is `1 / (1 + metres / 4)`, every second pixel, as `pixels` reads it; `given` fp32 [N] is
    above 0 in frames that have depth. Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return depth_lines_triton(near, given)
    out: Tensor = torch.ops.mirage.depth_lines(near, given)
    return out


def colour_lines(frames: Tensor, layout: FrameLayout, *, rows: int | None = None, columns: int | None = None) -> Tensor:
    """Return where colours part in `frames` uint8 [N, size_bytes] in `layout`: fp32 [N, 1, 4h, 4w] in [-2, -1].

    For frames without depth. `rows` x `columns` is the working frame (the display's size where left out), h, w =
    `grid_size(rows, columns)`. Raises `KernelError` for what a kernel could not take.
    """
    rows, columns = layout.height if rows is None else rows, layout.width if columns is None else columns
    if recording():
        return colour_lines_triton(frames, layout, rows, columns)
    shape = (layout.format, layout.height, layout.width, layout.pitch_bytes, layout.flipped, layout.linear)
    out: Tensor = torch.ops.mirage.colour_lines(frames, *shape, rows, columns)
    return out

# mypy: disable-error-code="no-untyped-def"
"""depth_lines, colour_lines, trace_lines: where shapes end and turn, for `compose` to draw ink and shining edges along.

`depth_lines` are at the resolution that they are drawn at, and certain. A frame without depth shows colours alone, and
where they part (`colour_lines`, at the working frame's resolution) there may be a line, or a texture, a shadow, a
stain: how much of that is drawn, `shade` takes from the network's words and from how much of a cell it is
(`line_shares`). `trace_lines` makes either as wide as a style draws it, and as far as it shines.

Floors: `depth_lines` 4 + 4 bytes a point and about 80 operations; `colour_lines` the frame once and 4 bytes a point,
and 16 of what parts across and down;
`trace_lines` 4 + 4 bytes a point and about 60 operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.frames import FrameLayout, frame_of, load_rgb, raw_to_unit, typed_view, unit_rgb, unpack_frame
from mirage_kernels.launch import Config, check, jit, launch, on_triton, recording, require, tl, wide
from mirage_kernels.pixels import grid_size

NEAREST, SKY = 1e-3, 900.0
"""Metres. Nearer is as near; what is as far as the sky, or is not a number, has no lines."""

PARTED, CORNER = 18.0, 1.0
"""How much of a line the second difference of 1/z is, in parts of 1/z, less 0.36; and how much the two of them with
parts of a corner, in parts of 1/z and of a frame one pixel high, less 0.45. Depth is not exact."""
APART = 9.0
"""In the latter parts: where 1/z turns more than this, surfaces part, and it is no corner."""
BENT = 4.0
"""What 1/z turns by at a corner, in parts of its slopes before and behind, counts so much of it, less 2.4: all of a
wall and its floor, nothing of hills that are seen at a grazing angle, which bend everywhere."""
ALIKE = 1.01
"""Turns that differ by less are alike: of two alike the line is on the first."""

EVEN = 2e-4
"""Colours part alike where they differ by less: half of what one byte of nine makes. A line is then on its far side."""
FINEST_ROWS = 720
"""A line is a pixel wide where the display has up to so many rows, else two or more: it is to be seen."""

__all__ = [
    "colour_lines",
    "colour_lines_of",
    "colour_lines_reference",
    "colour_lines_triton",
    "depth_lines",
    "depth_lines_reference",
    "depth_lines_triton",
    "line_points",
    "line_shares",
    "middles",
    "point_side",
    "spread_lines",
    "trace_lines",
    "trace_lines_reference",
    "trace_lines_triton",
]


def depth_lines_reference(depth: Tensor) -> Tensor:
    """The definition of `depth_lines`: fp32 [N, 1, H, W] in [0, 1] of `depth` [N, 1, H, W] in metres.

    As the program that draws the truths does, depth is compared through 1/z, which is affine on the screen for a plane:
    its second difference is zero on every flat surface and jumps where surfaces part, on both sides. Where a surface
    turns, between two pixels, its slope changes once, and the second differences of both have a part of that: their sum
    is the corner, a line a pixel wide where it is the most, and as far as it is most of what slope there is. Nothing is
    drawn on what is as far as the sky.
    """
    depth = wide(depth)
    depth = torch.where((depth > NEAREST) & (depth < SKY), depth, torch.where(depth <= NEAREST, NEAREST, SKY))
    inverse = 1 / depth
    # The same corner turns less from pixel to pixel where there are more of them.
    scale = depth * depth.shape[-2]
    line = torch.zeros_like(depth)
    for side in (-1, -2):
        row = inverse.transpose(side, -1)
        # At the field's edge nobody knows what is beside: no line.
        wider = functional.pad(row, (1, 1, 0, 0), mode="replicate")
        turn = wider[..., 2:] + wider[..., :-2] - 2 * row
        turn[..., 0], turn[..., -1] = 0.0, 0.0
        turn = functional.pad(turn, (2, 1))
        pair = (turn[..., 1:] + turn[..., :-1]).abs()
        before, here, after = pair[..., :-2], pair[..., 1:-1], pair[..., 2:]
        most = (here > before * ALIKE) & (here * ALIKE >= after)
        parts, scaled = turn[..., 2:-1].abs(), scale.transpose(side, -1)
        corner = most & (torch.maximum(parts, turn[..., 1:-2].abs()) * scaled < APART)
        slope = (row[..., 1:] - row[..., :-1]).abs()
        slopes = functional.pad(slope, (0, 1)) + functional.pad(slope, (2, 0))[..., : row.shape[-1]]
        bent = (here / slopes.clamp_min(1e-12) * BENT - 2.4).clamp(0, 1)
        cornered = torch.where(corner, (here * scaled * CORNER - 0.45) * bent, 0.0)
        drawn = torch.maximum(parts * depth.transpose(side, -1) * PARTED - 0.36, cornered)
        line = torch.maximum(line, drawn.transpose(side, -1))
    return torch.where(depth < SKY, line.clamp_max(1), 0.0)


def trace_lines_reference(lines: Tensor, width: Tensor) -> Tensor:
    """The definition of `trace_lines`: [N, 2, H, W] of `lines` [N, 1, H, W] and `width` [N], in their dtype."""
    around = functional.max_pool2d(lines, 3, 1, 1)
    drawn = lines + width.view(-1, 1, 1, 1) * (around - lines)
    return torch.cat([drawn, torch.maximum(lines, functional.avg_pool2d(around, 3, 1, 1) * 0.7)], 1)


def line_shares(traced: Tensor) -> Tensor:
    """How much of each cell the lines of `colour_lines` cover: [N, 2, 8h, 8w] of `trace_lines` -> [N, h, w, 2]."""
    return functional.avg_pool2d(traced, 8).permute(0, 2, 3, 1).contiguous()


def point_side(height: int) -> int:
    """How many pixels wide a line is on a display of so many rows."""
    return max(1, round(height / FINEST_ROWS))


def line_points(height: int, width: int) -> tuple[int, int]:
    """How many points (rows, columns) the lines of depth have on a display of `height` x `width` pixels."""
    side = point_side(height)
    return max(1, height // side), max(1, width // side)


def middles(points: int, pixels: int) -> Tensor:
    """Which of `pixels` lies in the middle of each of `points`: int64 [points]."""
    return (2 * torch.arange(points) + 1) * pixels // (2 * points)


def spread_lines(traced: Tensor, height: int, width: int) -> Tensor:
    """Bring [N, 2, H, W] of `trace_lines` to another size: between its entries, and steeper than that spreads them, so
    that a line stays dark in its middle, and white beside."""
    if traced.shape[-2:] == (height, width):
        return traced
    spread = functional.interpolate(traced, (height, width), mode="bilinear", align_corners=False)
    return (spread * (4 / 3) - 1 / 6).clamp(0, 1)


def colour_lines_of(unit: Tensor) -> Tensor:
    """The definition of `colour_lines` on working pixels [N, 3, H, W], colours in [0, 1]: [N, 1, H, W].

    Means of 3x3 pixels are compared with those beside, for single pixels part everywhere in a picture that is noisy;
    where they part most, across or down, there is a line a pixel wide (Canny 1986, without his hysteresis).
    """
    smooth = functional.avg_pool2d(functional.pad(wide(unit), (1, 1, 1, 1), mode="replicate"), 3, 1)
    across, down = torch.zeros_like(smooth[:, :1]), torch.zeros_like(smooth[:, :1])
    across[..., 1:-1] = (smooth[..., 2:] - smooth[..., :-2]).abs().amax(1, keepdim=True)
    down[..., 1:-1, :] = (smooth[..., 2:, :] - smooth[..., :-2, :]).abs().amax(1, keepdim=True)
    beside, above = functional.pad(across, (1, 1)), functional.pad(down, (0, 0, 1, 1))
    across = across * ((across > beside[..., :-2] - EVEN) & (across > beside[..., 2:] + EVEN))
    down = down * ((down > above[..., :-2, :] - EVEN) & (down > above[..., 2:, :] + EVEN))
    return ((torch.maximum(across, down) - 0.05) * 8).clamp(0, 1)


def colour_lines_reference(frames: Tensor, layout: FrameLayout, rows: int, columns: int) -> Tensor:
    """`colour_lines_of` the working frame: of each working pixel the display's in its middle."""
    h, w = grid_size(rows, columns)
    unit = unit_rgb(unpack_frame(frames, layout), layout).permute(0, 3, 1, 2)
    y = torch.arange(8 * h, device=frames.device).clamp_max(rows - 1)
    x = torch.arange(8 * w, device=frames.device).clamp_max(columns - 1)
    y, x = (2 * y + 1) * layout.height // (2 * rows), (2 * x + 1) * layout.width // (2 * columns)
    return colour_lines_of(unit[:, :, y][:, :, :, x])


@jit
def _inverse(depth_ptr, i, mask):
    """1/z of an entry of the field, not less than the sky's."""
    depth = tl.load(depth_ptr + i, mask=mask, other=1.0)
    # What is not a number is as far as the sky.
    return 1.0 / tl.where(depth < 900.0, tl.maximum(depth, 1e-3), 900.0)  # NEAREST, SKY


@jit
def _turn(depth_ptr, i, at, away, step, count, keep):
    """The second difference of 1/z `away` entries from i, which is entry `at` of `count`; at the field's edge nobody
    knows what is beside, and it is 0."""
    inside = keep & (at > 0) & (at + 1 < count)
    middle = i + away * step
    before = _inverse(depth_ptr, middle - step, inside)
    after = _inverse(depth_ptr, middle + step, inside)
    return tl.where(inside, before + after - 2.0 * _inverse(depth_ptr, middle, inside), 0.0)


@jit
def _slope(depth_ptr, i, at, away, step, count, keep):
    """How much 1/z changes to the entry `away` entries from i, entry `at` of `count`, from the one before it."""
    inside = keep & (at > 0) & (at < count)
    there = i + away * step
    return tl.where(inside, tl.abs(_inverse(depth_ptr, there, inside) - _inverse(depth_ptr, there - step, inside)), 0.0)


@jit
def _depth_lines_kernel(
    depth_ptr,  # [N, 1, height, width] fp32
    out_ptr,  # [N, 1, height, width] fp32
    height,
    width,
    B: tl.constexpr,
):
    frame = tl.program_id(1)
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = i < height * width
    depth_ptr += frame.to(tl.int64) * height * width
    out_ptr += frame.to(tl.int64) * height * width
    y, x = i // width, i % width
    own = _inverse(depth_ptr, i, keep)
    scale = height / own
    line = tl.zeros([B], tl.float32)
    for side in tl.static_range(2):
        at, count, step = (x, width, 1) if side == 0 else (y, height, width)
        t0 = _turn(depth_ptr, i, at - 2, -2, step, count, keep)
        t1 = _turn(depth_ptr, i, at - 1, -1, step, count, keep)
        t2 = _turn(depth_ptr, i, at, 0, step, count, keep)
        t3 = _turn(depth_ptr, i, at + 1, 1, step, count, keep)
        before, here, after = tl.abs(t0 + t1), tl.abs(t1 + t2), tl.abs(t2 + t3)
        part = tl.abs(t2)
        most = (here > before * 1.01) & (here * 1.01 >= after)  # ALIKE
        corner = most & (tl.maximum(part, tl.abs(t1)) * scale < 9.0)  # APART
        behind = _slope(depth_ptr, i, at + 1, 1, step, count, keep)
        slopes = behind + _slope(depth_ptr, i, at - 1, -1, step, count, keep)
        bent = tl.minimum(tl.maximum(here / tl.maximum(slopes, 1e-12) * 4.0 - 2.4, 0.0), 1.0)  # BENT
        drawn = tl.where(corner, (here * scale - 0.45) * bent, 0.0)  # CORNER
        line = tl.maximum(line, tl.maximum(part / own * 18.0 - 0.36, drawn))  # PARTED
    line = tl.where(own > 1.0 / 900.0, tl.minimum(line, 1.0), 0.0)
    tl.store(out_ptr + i, line, mask=keep)


@jit
def _trace_lines_kernel(
    lines_ptr,  # [N, 1, height, width] fp32
    width_ptr,  # [N] fp32
    out_ptr,  # [N, 2, height, width] fp16
    height,
    width,
    B: tl.constexpr,
):
    frame = tl.program_id(1)
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = i < height * width
    lines_ptr += frame.to(tl.int64) * height * width
    out_ptr += frame.to(tl.int64) * 2 * height * width
    y, x = i // width, i % width
    # Columns of five, then the greatest of three columns at a time: there are no lines outside the field.
    zero = tl.zeros([B], tl.float32)
    own = zero
    around = zero
    sum_up = zero
    sum_here = zero
    sum_down = zero
    up_a = zero
    up_b = zero
    here_a = zero
    here_b = zero
    down_a = zero
    down_b = zero
    for step in tl.static_range(5):
        column = x + (step - 2)
        inside = keep & (column >= 0) & (column < width)
        at = lines_ptr + i + (step - 2)
        c0 = tl.load(at - 2 * width, mask=inside & (y > 1), other=0.0)
        c1 = tl.load(at - width, mask=inside & (y > 0), other=0.0)
        c2 = tl.load(at, mask=inside, other=0.0)
        c3 = tl.load(at + width, mask=inside & (y + 1 < height), other=0.0)
        c4 = tl.load(at + 2 * width, mask=inside & (y + 2 < height), other=0.0)
        up = tl.maximum(tl.maximum(c0, c1), c2)
        here = tl.maximum(tl.maximum(c1, c2), c3)
        down = tl.maximum(tl.maximum(c2, c3), c4)
        if step == 2:
            own = c2
        if step >= 2:
            # Three columns make one entry of the greatest; means take none from outside the field.
            middle = (x + (step - 3) >= 0) & (x + (step - 3) < width)
            top = tl.maximum(tl.maximum(up_a, up_b), up)
            centre = tl.maximum(tl.maximum(here_a, here_b), here)
            bottom = tl.maximum(tl.maximum(down_a, down_b), down)
            sum_up += tl.where(middle & (y > 0), top, 0.0)
            sum_here += tl.where(middle, centre, 0.0)
            sum_down += tl.where(middle & (y + 1 < height), bottom, 0.0)
            if step == 3:
                around = centre
        up_a = up_b
        up_b = up
        here_a = here_b
        here_b = here
        down_a = down_b
        down_b = down
    drawn = own + tl.load(width_ptr + frame) * (around - own)
    shining = tl.maximum(own, (sum_up + sum_here + sum_down) * (0.7 / 9.0))
    tl.store(out_ptr + i, drawn.to(tl.float16), mask=keep)
    tl.store(out_ptr + height * width + i, shining.to(tl.float16), mask=keep)


@jit
def _three(frame_ptr, y, x, down, keep, first, pitch, height, width, rows, columns, KIND, BGR, LINEAR):
    """The sum of three working pixels, (y, x) in their middle, one beside another or `down`: (r, g, b), each [B]."""
    r = tl.zeros_like(y).to(tl.float32)
    g = r
    b = r
    for tap in tl.static_range(3):
        row = y + (tap - 1) if down else y
        column = x if down else x + (tap - 1)
        row = tl.minimum(tl.maximum(row, 0), rows - 1)
        column = tl.minimum(tl.maximum(column, 0), columns - 1)
        row = ((2 * row + 1).to(tl.int64) * height // (2 * rows)).to(tl.int32)
        column = ((2 * column + 1).to(tl.int64) * width // (2 * columns)).to(tl.int32)
        red, green, blue, _a = load_rgb(frame_ptr, first + row * pitch, column, keep, KIND, BGR)
        r += raw_to_unit(red, KIND, LINEAR)
        g += raw_to_unit(green, KIND, LINEAR)
        b += raw_to_unit(blue, KIND, LINEAR)
    return r, g, b


@jit
def _colour_parts_kernel(
    frame_ptr,  # elements of [N, size_bytes]
    parts_ptr,  # [N, 2, 8h, 8w] fp32: how much colours part across, and down
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
    parts_ptr += frame.to(tl.int64) * 2 * out_height * out_width
    for which in tl.static_range(2):
        r = tl.zeros([B], tl.float32)
        g = r
        b = r
        # Two means of 3x3 pixels, two apart, have a column of three in common.
        for step in tl.static_range(4):
            away = step - 2 if step < 2 else step - 1
            sign = -1.0 if step < 2 else 1.0
            at_y = y + away if which == 1 else y
            at_x = x if which == 1 else x + away
            r3, g3, b3 = _three(
                frame_ptr, at_y, at_x, which == 0, keep, first, pitch, height, width, rows, columns, KIND, BGR, LINEAR
            )
            r += sign * r3
            g += sign * g3
            b += sign * b3
        parts = tl.maximum(tl.maximum(tl.abs(r), tl.abs(g)), tl.abs(b)) * (1.0 / 9.0)
        # At the edge nobody knows what is beside.
        inside = (y > 0) & (y + 1 < out_height) if which == 1 else (x > 0) & (x + 1 < out_width)
        tl.store(parts_ptr + which * out_height * out_width + i, tl.where(inside, parts, 0.0), mask=keep)


@jit
def _colour_lines_kernel(
    parts_ptr,  # [N, 2, height, width] fp32
    out_ptr,  # [N, 1, height, width] fp32
    height,
    width,
    B: tl.constexpr,
):
    frame = tl.program_id(1)
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = i < height * width
    y, x = i // width, i % width
    parts_ptr += frame.to(tl.int64) * 2 * height * width
    across = tl.load(parts_ptr + i, mask=keep, other=0.0)
    left = tl.load(parts_ptr + i - 1, mask=keep & (x > 0), other=0.0)
    right = tl.load(parts_ptr + i + 1, mask=keep & (x + 1 < width), other=0.0)
    parts_ptr += height * width
    down = tl.load(parts_ptr + i, mask=keep, other=0.0)
    above = tl.load(parts_ptr + i - width, mask=keep & (y > 0), other=0.0)
    below = tl.load(parts_ptr + i + width, mask=keep & (y + 1 < height), other=0.0)
    # Where they part most; EVEN.
    across = tl.where(across > tl.maximum(left - 2e-4, right + 2e-4), across, 0.0)
    down = tl.where(down > tl.maximum(above - 2e-4, below + 2e-4), down, 0.0)
    line = tl.minimum(tl.maximum((tl.maximum(across, down) - 0.05) * 8.0, 0.0), 1.0)
    tl.store(out_ptr + frame.to(tl.int64) * height * width + i, line, mask=keep)


# Two values a thread.
_LINES = Config({"B": 256}, 4, 1)
# One: each reads 24 pixels, its neighbours mostly the same ones.
_COLOURS = Config({"B": 128}, 4, 1)


def depth_lines_triton(depth: Tensor) -> Tensor:
    """Launch the kernel of `depth_lines` on checked arguments."""
    n, _, height, width = depth.shape
    out = torch.empty_like(depth)
    args = {"depth_ptr": depth, "out_ptr": out, "height": height, "width": width}
    launch(_depth_lines_kernel, (-(-height * width // _LINES.sizes["B"]), n), args, {}, _LINES)
    return out


def trace_lines_triton(lines: Tensor, width: Tensor) -> Tensor:
    """Launch the kernel of `trace_lines` on checked arguments."""
    n, _, height, across = lines.shape
    out = torch.empty(n, 2, height, across, dtype=torch.float16, device=lines.device)
    args = {"lines_ptr": lines, "width_ptr": width, "out_ptr": out, "height": height, "width": across}
    launch(_trace_lines_kernel, (-(-height * across // _LINES.sizes["B"]), n), args, {}, _LINES)
    return out


def colour_lines_triton(frames: Tensor, layout: FrameLayout, rows: int, columns: int) -> Tensor:
    """Launch the kernel of `colour_lines` on checked arguments."""
    n, (h, w) = frames.shape[0], grid_size(rows, columns)
    parts = torch.empty(n, 2, 8 * h, 8 * w, device=frames.device)
    out = torch.empty(n, 1, 8 * h, 8 * w, device=frames.device)
    elements, stride, first, pitch = typed_view(frames, layout, words=True)
    args: dict[str, Any] = {
        "frame_ptr": elements, "parts_ptr": parts, "frame_stride": stride, "first": first, "pitch": pitch,
        "height": layout.height, "width": layout.width, "rows": rows, "columns": columns, "out_height": 8 * h,
        "out_width": 8 * w,
    }  # fmt: skip
    constants = {"KIND": layout.kind, "BGR": layout.format == "bgra8", "LINEAR": layout.linear}
    launch(_colour_parts_kernel, (-(-64 * h * w // _COLOURS.sizes["B"]), n), args, constants, _COLOURS)
    args = {"parts_ptr": parts, "out_ptr": out, "height": 8 * h, "width": 8 * w}
    launch(_colour_lines_kernel, (-(-64 * h * w // _LINES.sizes["B"]), n), args, {}, _LINES)
    return out


@torch.library.custom_op("mirage::depth_lines", mutates_args=(), schema="(Tensor depth) -> Tensor")
def _lines(depth: Tensor) -> Tensor:
    check("depth", depth, (None, 1, None, None), (torch.float32, torch.float64))
    return (depth_lines_triton if on_triton(depth) else depth_lines_reference)(depth)


@_lines.register_fake
def _lines_fake(depth: Tensor) -> Tensor:
    return torch.empty_like(depth)


@torch.library.custom_op("mirage::trace_lines", mutates_args=(), schema="(Tensor lines, Tensor width) -> Tensor")
def _trace(lines: Tensor, width: Tensor) -> Tensor:
    check("lines", lines, (None, 1, None, None), (torch.float32, torch.float64))
    check("width", width, (lines.shape[0],), lines.dtype, like=lines)
    return trace_lines_triton(lines, width) if on_triton(lines) else trace_lines_reference(lines, width).half()


@_trace.register_fake
def _trace_fake(lines: Tensor, width: Tensor) -> Tensor:
    n, _, *size = lines.shape
    return lines.new_empty(n, 2, *size, dtype=torch.float16)


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
    return frames.new_empty(frames.shape[0], 1, 8 * h, 8 * w, dtype=torch.float32)


def depth_lines(depth: Tensor) -> Tensor:
    """Return where shapes end and turn, from `depth` fp32 [N, 1, H, W] in metres: fp32 [N, 1, H, W] in [0, 1].

    At any resolution: that is the one they are drawn at. Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return depth_lines_triton(depth)
    out: Tensor = torch.ops.mirage.depth_lines(depth)
    return out


def trace_lines(lines: Tensor, width: Tensor) -> Tensor:
    """Return how dark and how bright `lines` fp32 [N, 1, H, W] get: fp16 [N, 2, H, W] in [0, 1].

    `width` fp32 [N] in [0, 1] is how much wider than a point a style draws them; light reaches two points far. Raises
    `KernelError` for what a kernel could not take.
    """
    if recording():
        return trace_lines_triton(lines, width)
    out: Tensor = torch.ops.mirage.trace_lines(lines, width)
    return out


def colour_lines(frames: Tensor, layout: FrameLayout, *, rows: int | None = None, columns: int | None = None) -> Tensor:
    """Return where colours part in `frames` uint8 [N, size_bytes] in `layout`: fp32 [N, 1, 8h, 8w] in [0, 1].

    For frames without depth. `rows` x `columns` is the working frame (the display's size where left out), h, w =
    `grid_size(rows, columns)`. Raises `KernelError` for what a kernel could not take.
    """
    rows, columns = layout.height if rows is None else rows, layout.width if columns is None else columns
    if recording():
        return colour_lines_triton(frames, layout, rows, columns)
    shape = (layout.format, layout.height, layout.width, layout.pitch_bytes, layout.flipped, layout.linear)
    out: Tensor = torch.ops.mirage.colour_lines(frames, *shape, rows, columns)
    return out

# mypy: disable-error-code="no-untyped-def"
"""cell_colours: the mean source colour of every cell, by which `compose` tells what is like a pixel.

v = 2 * unit - 1 of the working frame's 8x8 pixels a cell, averaged. A working frame smaller than the display's is the
area average of the display's, and cells beyond the edge repeat its last row and column, both as in `pixels`.

Floor, per frame: reads `H*W*bytes_per_pixel`, writes `h*w*12`; about 12 operations a pixel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mirage_kernels.frames import FrameLayout, frame_of, load_rgb, raw_to_unit, typed_view, unit_rgb, unpack_frame
from mirage_kernels.launch import Config, jit, launch, on_triton, recording, require, tl
from mirage_kernels.pixels import CELL, area_matrix, grid_size, tap_count

__all__ = ["cell_colours", "cell_colours_reference", "cell_colours_triton"]


def cell_colours_reference(frames: Tensor, layout: FrameLayout, rows: int, columns: int) -> Tensor:
    """The definition of `cell_colours`."""

    def shares(cells: int, working: int, display: int) -> Tensor:
        at = torch.arange(cells * CELL, device=frames.device).clamp_max(working - 1)
        return area_matrix(working, display, frames.device)[at].view(cells, CELL, display).mean(1)

    h, w = grid_size(rows, columns)
    v = unit_rgb(unpack_frame(frames, layout), layout) * 2 - 1
    down, across = shares(h, rows, layout.height), shares(w, columns, layout.width)
    return torch.einsum("ry,nyxc,kx->nrkc", down, v, across).contiguous()


@jit
def _cell_colours_kernel(
    frame_ptr,  # elements of [N, size_bytes]
    out_ptr,  # [N, h, w, 3] fp32
    frame_stride,
    first,
    pitch,
    height,
    width,
    rows,
    columns,
    h,
    w,
    KIND: tl.constexpr,
    BGR: tl.constexpr,
    LINEAR: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    BM: tl.constexpr,
):
    # BM cells of one frame, a column of a cell each thread.
    frame = tl.program_id(1)
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    keep = cell < h * w
    column = tl.arange(0, 8)
    cy = (cell // w)[:, None]
    x = tl.minimum((cell % w)[:, None] * 8 + column[None, :], columns - 1)
    mask = keep[:, None] & (column[None, :] < 8)
    frame_ptr += frame.to(tl.int64) * frame_stride
    sum_r = tl.zeros([BM, 8], tl.float32)
    sum_g = tl.zeros([BM, 8], tl.float32)
    sum_b = tl.zeros([BM, 8], tl.float32)
    if TAPS_Y == 1 and TAPS_X == 1:
        for r in tl.static_range(8):
            row = first + tl.minimum(cy * 8 + r, rows - 1) * pitch
            red, green, blue, _a = load_rgb(frame_ptr, row, x, mask, KIND, BGR)
            sum_r += raw_to_unit(red, KIND, LINEAR)
            sum_g += raw_to_unit(green, KIND, LINEAR)
            sum_b += raw_to_unit(blue, KIND, LINEAR)
    else:
        # Positions in units of 1 / rows and 1 / columns of a pixel: overlaps are whole numbers.
        low_x = x * width
        for r in tl.range(0, 8):
            low_y = tl.minimum(cy * 8 + r, rows - 1) * height
            for ty in tl.range(0, TAPS_Y):
                py = low_y // rows + ty
                over_y = tl.minimum(low_y + height, (py + 1) * rows) - tl.maximum(low_y, py * rows)
                share_y = tl.maximum(over_y, 0).to(tl.float32) / height
                row = first + tl.minimum(py, height - 1) * pitch
                for tx in tl.static_range(TAPS_X):
                    px = low_x // columns + tx
                    over_x = tl.minimum(low_x + width, (px + 1) * columns) - tl.maximum(low_x, px * columns)
                    share = share_y * (tl.maximum(over_x, 0).to(tl.float32) / width)
                    red, green, blue, _a = load_rgb(frame_ptr, row, tl.minimum(px, width - 1), mask, KIND, BGR)
                    sum_r += share * raw_to_unit(red, KIND, LINEAR)
                    sum_g += share * raw_to_unit(green, KIND, LINEAR)
                    sum_b += share * raw_to_unit(blue, KIND, LINEAR)
    at = out_ptr + (frame.to(tl.int64) * h * w + cell) * 3
    tl.store(at, tl.sum(sum_r, 1) * (2.0 / 64.0) - 1.0, mask=keep)
    tl.store(at + 1, tl.sum(sum_g, 1) * (2.0 / 64.0) - 1.0, mask=keep)
    tl.store(at + 2, tl.sum(sum_b, 1) * (2.0 / 64.0) - 1.0, mask=keep)


_CONFIG = Config({"BM": 16}, 4, 1)


def cell_colours_triton(frames: Tensor, layout: FrameLayout, rows: int, columns: int) -> Tensor:
    """Launch the kernel of `cell_colours` on checked arguments."""
    n, (h, w) = frames.shape[0], grid_size(rows, columns)
    out = torch.empty(n, h, w, 3, device=frames.device)
    elements, stride, first, pitch = typed_view(frames, layout, words=True)
    args: dict[str, Any] = {
        "frame_ptr": elements,
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
        "KIND": layout.kind,
        "BGR": layout.format == "bgra8",
        "LINEAR": layout.linear,
        "TAPS_Y": tap_count(rows, layout.height),
        "TAPS_X": tap_count(columns, layout.width),
    }
    launch(_cell_colours_kernel, (-(-h * w // _CONFIG.sizes["BM"]), n), args, constants, _CONFIG)
    return out


_SCHEMA = (
    "(Tensor frames, str format, int height, int width, int pitch_bytes, bool flipped, bool linear, "
    "int rows, int columns) -> Tensor"
)


@torch.library.custom_op("mirage::cell_colours", mutates_args=(), schema=_SCHEMA)
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
) -> Tensor:
    layout = FrameLayout(format, height, width, pitch_bytes, flipped, linear)
    frame_of(frames, layout)
    require(rows > 0 and columns > 0, f"a working frame of {columns}x{rows} pixels")
    run = cell_colours_triton if on_triton(frames) else cell_colours_reference
    return run(frames, layout, rows, columns)


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
) -> Tensor:
    return frames.new_empty(frames.shape[0], *grid_size(rows, columns), 3, dtype=torch.float32)


def cell_colours(frames: Tensor, layout: FrameLayout, *, rows: int | None = None, columns: int | None = None) -> Tensor:
    """The mean v of each cell of `frames` uint8 [N, size_bytes] in `layout`: fp32 [N, h, w, 3] for `compose`.

    `rows` x `columns` is the working frame (the display's size where left out), h, w = `grid_size(rows, columns)`.

    Raises `KernelError` for what a kernel could not take.
    """
    rows, columns = layout.height if rows is None else rows, layout.width if columns is None else columns
    if recording():
        return cell_colours_triton(frames, layout, rows, columns)
    shape = (layout.format, layout.height, layout.width, layout.pitch_bytes, layout.flipped, layout.linear)
    out: Tensor = torch.ops.mirage.cell_colours(frames, *shape, rows, columns)
    return out

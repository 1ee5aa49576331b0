# mypy: disable-error-code="no-untyped-def"
"""compose: apply the network's edit to the full-resolution frame and write it in the engine's own format.

For a pixel with display-encoded colour v = (r, g, b) in [-1, 1]:

    change = sum over i, b of n_ib * (M_ib (r, g, b, 1)),    over the sum of n_ib
    n_ib   = bilinear_i * share_ib / (1 + |v - a_ib|^2 / SIMILAR)^2
    answer = v + strength * mask * (change + detail)

where i are the four nearest cells and b the four readings of each: a_ib is the colour that a reading is of, its anchor,
and share_ib how much of the cell it is. So what is painted on a surface ends where its colour ends, inside of a cell as
well (a joint bilateral upsampling, Kopf et al. 2007, of a mixture in each cell; the tails are those of Student's t, so
that a colour nobody reckoned with still has its nearest reading). The detail is bilinear. A cell that is NaN or
infinite spoils no more than the edit of the pixels beside it.

Over that come `lines`, how dark and how bright the lines of `trace_lines` get, at a resolution of their own:

    answer += ink (pen - answer) + shine,    ink = min(1, line * dark),  shine = line' * bright * light

where a cell's pens are how dark and how bright it draws, and the colours of ink and light are the frame's.

`detail` is resampled where the display is larger or smaller than the working frame. The answer is clamped,
dithered by a hash of (seed, y, x) and packed; alpha passes by, and so does what a half float holds outside
[0, 1]. Only the *difference* is added to the raw value, so that an edit of zero gives back the very bytes,
and an edit that is NaN is an edit of zero: a failing network shows the source.

With `motion`, the edit is the *last* frame's: every pixel takes it from where it was, and where that was hidden,
outside or is unknown only the colour transforms stay. That is the answer when the network is late.

An edit is [N, h, w, 264] per cell: 48 numbers as (colour out, bin, r g b 1), so that one product needs 16 neighbours in
memory, then 192 of detail as (row, column, colour), then 16 of anchors as (r g b share, bin), then 8 of pens as (dark,
bright, ink's r g b in v, what light adds to r g b of v). `pack_edit` and `split_edit` translate.

Floor: the frame in and out, `2 * H*W*bytes_per_pixel`, and the edit, `h*w*528` in bf16. Per pixel 192 multiply-adds for
the transforms, 12 for the product and about 14 operations for what each of 16 readings counts, outside the tensor
cores: at fp32's rate (67 TFLOP/s on an H200) those 0.65 kFLOP weigh more than the bytes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mirage_kernels.frames import (
    FrameLayout,
    decode,
    frame_of,
    load_rgb,
    mix32,
    pack_frame,
    raw_to_unit,
    srgb_decode,
    typed_view,
    unit_rgb,
    unpack_frame,
)
from mirage_kernels.launch import FLOATS, Config, check, jit, launch, on_triton, recording, require, tl, wide
from mirage_kernels.pixels import grid_size

__all__ = [
    "EDIT_CHANNELS",
    "SIMILAR",
    "compose",
    "compose_reference",
    "compose_triton",
    "hash_bytes",
    "pack_edit",
    "split_edit",
]

EDIT_CHANNELS = 48 + 192 + 16 + 8
"""Numbers in a cell's edit."""
SIMILAR = 0.04
"""The squared distance of colours, in v, at which a reading counts a quarter of what it counts for its own colour."""


def pack_edit(matrices: Tensor, detail: Tensor, anchors: Tensor, pens: Tensor) -> Tensor:
    """Join matrices [N, h, w, 48] as (bin, colour out, r g b 1), detail [N, h, w, 192], anchors [N, h, w, 16] as
    (bin, r g b share) and pens [N, h, w, 8] into an edit."""
    n, h, w, _ = matrices.shape
    turned = matrices.view(n, h, w, 4, 3, 4).transpose(3, 4).reshape(n, h, w, 48)
    return torch.cat([turned, detail, anchors.view(n, h, w, 4, 4).transpose(3, 4).reshape(n, h, w, 16), pens], -1)


def split_edit(edit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Undo `pack_edit`."""
    n, h, w, _ = edit.shape
    matrices = edit[..., :48].reshape(n, h, w, 3, 4, 4).transpose(3, 4).reshape(n, h, w, 48)
    anchors = edit[..., 240:256].reshape(n, h, w, 4, 4).transpose(3, 4).reshape(n, h, w, 16)
    return matrices, edit[..., 48:240], anchors, edit[..., 256:]


def hash_bytes(seed: Tensor, height: int, width: int) -> Tensor:
    """The dither's thresholds in (0, 1), fp32 [N, H, W, 3]: three bytes of a hash of (seed, y, x)."""
    mask = 0xFFFFFFFF

    def mix(x: Tensor) -> Tensor:
        x = x ^ (x >> 16)
        x = (x * 0x7FEB352D) & mask
        x = x ^ (x >> 15)
        x = (x * 0x846CA68B) & mask
        return x ^ (x >> 16)

    y = torch.arange(height, device=seed.device).view(1, -1, 1)
    x = torch.arange(width, device=seed.device).view(1, 1, -1)
    bits = mix(((y << 16) | x) ^ mix(seed & mask).view(-1, 1, 1))
    return torch.stack([((bits >> shift & 255).float() + 0.5) / 256 for shift in (0, 8, 16)], -1)


def _corners(y: Tensor, x: Tensor, last_y: int, last_x: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The four entries around positions y, x [N, H, W], within [0, last]: rows, columns, and shares [N, H, W, 1]."""
    y, x = y.clamp(0, last_y), x.clamp(0, last_x)
    y0, x0 = y.floor(), x.floor()
    fy, fx = (y - y0).unsqueeze(-1), (x - x0).unsqueeze(-1)
    rows = ((y0.long(), 1 - fy), ((y0.long() + 1).clamp_max(last_y), fy))
    columns = ((x0.long(), 1 - fx), ((x0.long() + 1).clamp_max(last_x), fx))
    return [(row, column, down * across) for row, down in rows for column, across in columns]


def _bilinear(grid: Tensor, y: Tensor, x: Tensor, last_y: int, last_x: int) -> Tensor:
    """Sample grid [N, h, w, C] at positions y, x [N, H, W], bounded to [0, last]: [N, H, W, C]."""
    frame = torch.arange(grid.shape[0], device=grid.device).view(-1, 1, 1)
    parts = [share * grid[frame, row, column] for row, column, share in _corners(y, x, last_y, last_x)]
    return parts[0] + parts[1] + parts[2] + parts[3]


def _slice(edit: Tensor, v: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """What the readings around positions y, x [N, H, W] on the grid of edit [N, h, w, 264] make of v [N, H, W, 3]."""
    frame = torch.arange(edit.shape[0], device=edit.device).view(-1, 1, 1)
    matrices, _, anchors, _ = split_edit(edit)
    change, total = torch.zeros_like(v), torch.zeros_like(v[..., :1])
    for row, column, near in _corners(y, x, edit.shape[1] - 1, edit.shape[2] - 1):
        every, seen = matrices[frame, row, column], anchors[frame, row, column]
        for b in range(4):
            matrix = every[..., 12 * b : 12 * b + 12].reshape(*v.shape, 4)
            anchor, share = seen[..., 4 * b : 4 * b + 3], seen[..., 4 * b + 3 : 4 * b + 4]
            count = near * share / (1 + (v - anchor).square().sum(-1, keepdim=True) / SIMILAR).square()
            change = change + count * ((matrix[..., :3] * v[..., None, :]).sum(-1) + matrix[..., 3])
            total = total + count
    return change / total


def _lines_at(lines: Tensor, layout: FrameLayout, rows: float, columns: float) -> Tensor:
    """Lines [N, 2, h, w], of which the first `rows` x `columns` points cover the display, at its pixels: [N, H, W, 2].

    Between points they are steeper than that spreads them: a line stays dark in its middle, and white beside.
    """
    n, _, h, w = lines.shape
    height, width = layout.height, layout.width
    if (rows, columns) == (height, width):
        return wide(lines[:, :, :height, :width]).permute(0, 2, 3, 1)
    y = ((torch.arange(height, device=lines.device) + 0.5) * (rows / height) - 0.5).view(1, -1, 1)
    x = ((torch.arange(width, device=lines.device) + 0.5) * (columns / width) - 0.5).view(1, 1, -1)
    size = (n, height, width)
    spread = _bilinear(wide(lines).permute(0, 2, 3, 1), y.expand(size), x.expand(size), h - 1, w - 1)
    return (spread * (4 / 3) - 1 / 6).clamp(0, 1)


def compose_reference(
    out: Tensor,
    frames: Tensor,
    layout: FrameLayout,
    rows: int,
    columns: int,
    edit: Tensor,
    strength: Tensor,
    mask: Tensor | None,
    dither: Tensor | None,
    motion: Tensor | None,
    visible: Tensor | None,
    lines: Tensor | None,
    lines_rows: float,
    lines_columns: float,
) -> None:
    """The definition of `compose`; writes into `out`."""
    n, height, width = frames.shape[0], layout.height, layout.width
    h, w = edit.shape[1:3]
    device = frames.device
    raw = unpack_frame(frames, layout)
    unit = unit_rgb(raw, layout)
    v = unit * 2 - 1

    # Where each pixel lies on the working frame, in its pixels; the edit is taken from there.
    y = ((torch.arange(height, device=device) + 0.5) * (rows / height)).view(1, -1, 1).expand(n, height, width)
    x = ((torch.arange(width, device=device) + 0.5) * (columns / width)).view(1, 1, -1).expand(n, height, width)
    share = torch.ones(n, height, width, device=device)
    if motion is not None and visible is not None:
        my = torch.arange(height, device=device) * motion.shape[2] // height
        mx = torch.arange(width, device=device) * motion.shape[3] // width
        moved, seen = motion.float()[:, :, my][:, :, :, mx], visible.float()[:, 0, my][:, :, mx]
        known = moved.isfinite().all(1)
        moved = torch.where(known[:, None], moved, 0.0).clamp(-1e5, 1e5)
        y, x = y + moved[:, 1], x + moved[:, 0]
        inside = (y >= 0) & (y <= rows) & (x >= 0) & (x <= columns)
        share = torch.where(known & inside, seen, 0.0)
    change = _slice(wide(edit), v, y / 8 - 0.5, x / 8 - 0.5)
    detail = wide(edit[..., 48:240]).reshape(n, h, w, 8, 8, 3).permute(0, 1, 3, 2, 4, 5).reshape(n, 8 * h, 8 * w, 3)
    detail = _bilinear(detail, y - 0.5, x - 0.5, rows - 1, columns - 1)

    amount = strength.view(-1, 1, 1, 1)
    if mask is not None:
        amount = amount * mask.float()[:, 0, :, :, None]
    change = change + detail * share[..., None]
    if lines is not None:
        answer = v + change
        pens = wide(edit[..., 256:])
        amounts = _bilinear(pens[..., :2], y / 8 - 0.5, x / 8 - 0.5, h - 1, w - 1)
        amounts = amounts * _lines_at(lines, layout, lines_rows, lines_columns)
        frame = torch.arange(n, device=device).view(-1, 1, 1)
        row, column, _ = _corners(y / 8 - 0.5, x / 8 - 0.5, h - 1, w - 1)[0]
        ink, shine = pens[frame, row, column, 2:5], pens[frame, row, column, 5:]
        change = change + amounts[..., :1].clamp(0, 1) * (ink - answer) + amounts[..., 1:] * shine
    delta = torch.nan_to_num(amount * change, nan=0.0)
    edited = (unit + delta * 0.5).clamp(0, 1)
    step = srgb_decode(edited) - srgb_decode(unit) if layout.linear else edited - unit
    answer = torch.nan_to_num(raw[..., :3], nan=0.0, posinf=torch.inf, neginf=-torch.inf) + step * layout.scale
    if layout.format != "rgba16f":
        threshold = 0.5 if dither is None else hash_bytes(dither, height, width)
        answer = (answer + threshold).floor().clamp(0, layout.scale)
    pack_frame(torch.cat([answer, raw[..., 3:]], -1), layout, out)


@jit
def _threshold(bits, SHIFT: tl.constexpr):
    return (((bits >> SHIFT) & 255).to(tl.float32) + 0.5) * (1.0 / 256.0)


@jit
def finish(raw, unit, delta, threshold, KIND: tl.constexpr, LINEAR: tl.constexpr, SCALE: tl.constexpr):
    """The raw value of the answer from the source's and the change of v."""
    delta = tl.where(delta == delta, delta, 0.0)
    edited = tl.minimum(tl.maximum(unit + delta * 0.5, 0.0), 1.0)
    step = decode(edited) - decode(unit) if LINEAR else edited - unit
    value = tl.where(raw == raw, raw, 0.0) + step * SCALE
    if KIND != 3:
        value = tl.minimum(tl.maximum(tl.floor(value + threshold), 0.0), SCALE)
    return value


@jit
def _detail(pixel_ptr, y, x, w, keep, C: tl.constexpr):
    """Detail (r, g, b) of the working pixels (y, x), fp32 [P]."""
    at = pixel_ptr + ((y // 8) * w + x // 8) * C + (y % 8 * 8 + x % 8) * 3
    r = tl.load(at, mask=keep, other=0.0).to(tl.float32)
    g = tl.load(at + 1, mask=keep, other=0.0).to(tl.float32)
    b = tl.load(at + 2, mask=keep, other=0.0).to(tl.float32)
    return r, g, b


@jit
def store_rgb(out_row, x, new_r, new_g, new_b, alpha, keep, KIND: tl.constexpr, BGR: tl.constexpr):
    """Write raw values of pixels x of their rows, packed as the engine has them."""
    if KIND == 0:
        low = new_b if BGR else new_r
        high = new_r if BGR else new_b
        word = low.to(tl.int32) | (new_g.to(tl.int32) << 8) | (high.to(tl.int32) << 16) | (alpha.to(tl.int32) << 24)
        tl.store(out_row + x, word, mask=keep)
    elif KIND == 1:
        tl.store(out_row + x * 3, new_r.to(tl.uint8), mask=keep)
        tl.store(out_row + x * 3 + 1, new_g.to(tl.uint8), mask=keep)
        tl.store(out_row + x * 3 + 2, new_b.to(tl.uint8), mask=keep)
    elif KIND == 2:
        word = new_r.to(tl.int32) | (new_g.to(tl.int32) << 10) | (new_b.to(tl.int32) << 20)
        tl.store(out_row + x, word | (alpha.to(tl.int32) << 30), mask=keep)
    else:
        tl.store(out_row + x * 4, new_r.to(tl.float16), mask=keep)
        tl.store(out_row + x * 4 + 1, new_g.to(tl.float16), mask=keep)
        tl.store(out_row + x * 4 + 2, new_b.to(tl.float16), mask=keep)
        tl.store(out_row + x * 4 + 3, alpha.to(tl.float16), mask=keep)


@jit
def _between(field_ptr, y0, x0, fy, fx, height, width, keep):
    """A field of lines between four of its points, steeper than that spreads it."""
    iy = y0.to(tl.int32)
    ix = x0.to(tl.int32)
    below = tl.minimum(iy + 1, height - 1)
    right = tl.minimum(ix + 1, width - 1)
    a = tl.load(field_ptr + iy * width + ix, mask=keep, other=0.0).to(tl.float32)
    b = tl.load(field_ptr + iy * width + right, mask=keep, other=0.0).to(tl.float32)
    c = tl.load(field_ptr + below * width + ix, mask=keep, other=0.0).to(tl.float32)
    d = tl.load(field_ptr + below * width + right, mask=keep, other=0.0).to(tl.float32)
    spread = (1.0 - fy) * ((1.0 - fx) * a + fx * b) + fy * ((1.0 - fx) * c + fx * d)
    return tl.minimum(tl.maximum(spread * (4.0 / 3.0) - 1.0 / 6.0, 0.0), 1.0)


@jit
def _compose_kernel(
    frame_ptr,  # elements of [N, size_bytes]
    out_ptr,  # as frame_ptr
    edit_ptr,  # [N, h, w, 264]
    strength_ptr,  # [N] fp32
    mask_ptr,  # [N, 1, H, W]
    dither_ptr,  # [N] int64
    motion_ptr,  # [N, 2, mh, mw] fp32
    visible_ptr,  # [N, 1, mh, mw] fp32
    lines_ptr,  # [N, 2, lh, lw]
    frame_stride,
    out_stride,
    first,
    pitch,
    height,
    width,
    rows,
    columns,
    h,
    w,
    motion_height,
    motion_width,
    lines_height,
    lines_width,
    lines_rows,
    lines_columns,
    KIND: tl.constexpr,
    BGR: tl.constexpr,
    LINEAR: tl.constexpr,
    SCALE: tl.constexpr,
    DIRECT: tl.constexpr,
    HAS_MASK: tl.constexpr,
    DITHER: tl.constexpr,
    WARP: tl.constexpr,
    LINES: tl.constexpr,
    LINES_DIRECT: tl.constexpr,
    UNLIKE: tl.constexpr,
    TY: tl.constexpr,
    TX: tl.constexpr,
):
    P: tl.constexpr = TY * TX
    C: tl.constexpr = 264
    frame = tl.program_id(1)
    across = tl.cdiv(width, TX)
    p = tl.arange(0, P)
    y = tl.program_id(0) // across * TY + p // TX
    x = tl.program_id(0) % across * TX + p % TX
    keep = (y < height) & (x < width)
    frame_ptr += frame.to(tl.int64) * frame_stride
    edit_ptr += frame.to(tl.int64) * h * w * C

    raw_r, raw_g, raw_b, alpha = load_rgb(frame_ptr, first + y * pitch, x, keep, KIND, BGR)
    unit_r = raw_to_unit(raw_r, KIND, LINEAR)
    unit_g = raw_to_unit(raw_g, KIND, LINEAR)
    unit_b = raw_to_unit(raw_b, KIND, LINEAR)

    # Where the pixel lies on the working frame, in its pixels.
    at_y = (y.to(tl.float32) + 0.5) * (rows / height)
    at_x = (x.to(tl.float32) + 0.5) * (columns / width)
    share = tl.full([P], 1.0, tl.float32)
    if WARP:
        plane = motion_height * motion_width
        # In 64 bits: 16384 rows times 16384 would not fit twice over.
        my = (y.to(tl.int64) * motion_height // height).to(tl.int32)
        mx = (x.to(tl.int64) * motion_width // width).to(tl.int32)
        at_m = my * motion_width + mx
        moved_x = tl.load(motion_ptr + frame.to(tl.int64) * 2 * plane + at_m, mask=keep, other=0.0)
        moved_y = tl.load(motion_ptr + (frame.to(tl.int64) * 2 + 1) * plane + at_m, mask=keep, other=0.0)
        known = (tl.abs(moved_x) < float("inf")) & (tl.abs(moved_y) < float("inf"))
        at_x += tl.minimum(tl.maximum(tl.where(known, moved_x, 0.0), -1e5), 1e5)
        at_y += tl.minimum(tl.maximum(tl.where(known, moved_y, 0.0), -1e5), 1e5)
        known = known & (at_y >= 0.0) & (at_y <= rows) & (at_x >= 0.0) & (at_x <= columns)
        share = tl.load(visible_ptr + frame.to(tl.int64) * plane + at_m, mask=keep, other=0.0)
        share = tl.where(known, share, 0.0)

    # Colour transforms: four cells of four readings, which count by their place, their share and their likeness.
    v_r = unit_r * 2.0 - 1.0
    v_g = unit_g * 2.0 - 1.0
    v_b = unit_b * 2.0 - 1.0
    cell_y = tl.minimum(tl.maximum(at_y * 0.125 - 0.5, 0.0), h - 1.0)
    cell_x = tl.minimum(tl.maximum(at_x * 0.125 - 0.5, 0.0), w - 1.0)
    y0 = tl.floor(cell_y)
    x0 = tl.floor(cell_x)
    fy = cell_y - y0
    fx = cell_x - x0
    iy = y0.to(tl.int32)
    ix = x0.to(tl.int32)
    next_y = tl.minimum(iy + 1, h - 1)
    next_x = tl.minimum(ix + 1, w - 1)
    # Colours of ink and light are the frame's: a cell near by has them.
    pen = edit_ptr + (iy * w + ix) * C + 256
    q = tl.arange(0, 16)
    bins = tl.arange(0, 4)
    sum_r = tl.zeros([P, 16], tl.float32)
    sum_g = tl.zeros([P, 16], tl.float32)
    sum_b = tl.zeros([P, 16], tl.float32)
    counted = tl.zeros([P], tl.float32)
    dark = tl.zeros([P], tl.float32)
    bright = tl.zeros([P], tl.float32)
    for corner in tl.static_range(4):
        cy = next_y if corner // 2 == 1 else iy
        cx = next_x if corner % 2 == 1 else ix
        by = fy if corner // 2 == 1 else 1.0 - fy
        bx = fx if corner % 2 == 1 else 1.0 - fx
        at = edit_ptr + ((cy * w + cx) * C)[:, None]
        anchor = at + 240 + bins[None, :]
        off_r = v_r[:, None] - tl.load(anchor, mask=keep[:, None], other=0.0).to(tl.float32)
        off_g = v_g[:, None] - tl.load(anchor + 4, mask=keep[:, None], other=0.0).to(tl.float32)
        off_b = v_b[:, None] - tl.load(anchor + 8, mask=keep[:, None], other=0.0).to(tl.float32)
        like = 1.0 / (1.0 + (off_r * off_r + off_g * off_g + off_b * off_b) * UNLIKE)
        holds = tl.load(anchor + 12, mask=keep[:, None], other=1.0).to(tl.float32)
        count = (by * bx)[:, None] * holds * like * like
        counted += tl.sum(count, 1)
        if LINES:
            amounts = edit_ptr + (cy * w + cx) * C + 256
            dark += by * bx * tl.load(amounts, mask=keep, other=0.0).to(tl.float32)
            bright += by * bx * tl.load(amounts + 1, mask=keep, other=0.0).to(tl.float32)
        part = tl.reshape(tl.broadcast_to(count[:, :, None], [P, 4, 4]), [P, 16])
        at += q[None, :]
        sum_r += part * tl.load(at, mask=keep[:, None], other=0.0).to(tl.float32)
        sum_g += part * tl.load(at + 16, mask=keep[:, None], other=0.0).to(tl.float32)
        sum_b += part * tl.load(at + 32, mask=keep[:, None], other=0.0).to(tl.float32)
    colour = tl.reshape(tl.join(tl.join(v_r, v_b), tl.join(v_g, tl.full([P], 1.0, tl.float32))), [P, 4])
    # What all readings come to is divided out at once.
    colour /= counted[:, None]
    outer = tl.reshape(tl.broadcast_to(colour[:, None, :], [P, 4, 4]), [P, 16])
    change_r = tl.sum(sum_r * outer, 1)
    change_g = tl.sum(sum_g * outer, 1)
    change_b = tl.sum(sum_b * outer, 1)

    pixel_ptr = edit_ptr + 48
    if DIRECT:
        detail_r, detail_g, detail_b = _detail(pixel_ptr, y, x, w, keep, C)
    else:
        py = tl.minimum(tl.maximum(at_y - 0.5, 0.0), rows - 1.0)
        px = tl.minimum(tl.maximum(at_x - 0.5, 0.0), columns - 1.0)
        y0 = tl.floor(py)
        x0 = tl.floor(px)
        fy = py - y0
        fx = px - x0
        iy = y0.to(tl.int32)
        ix = x0.to(tl.int32)
        next_y = tl.minimum(iy + 1, rows - 1)
        next_x = tl.minimum(ix + 1, columns - 1)
        detail_r = tl.zeros([P], tl.float32)
        detail_g = tl.zeros([P], tl.float32)
        detail_b = tl.zeros([P], tl.float32)
        for corner in tl.static_range(4):
            cy = next_y if corner // 2 == 1 else iy
            cx = next_x if corner % 2 == 1 else ix
            by = fy if corner // 2 == 1 else 1.0 - fy
            bx = fx if corner % 2 == 1 else 1.0 - fx
            r, g, b = _detail(pixel_ptr, cy, cx, w, keep, C)
            detail_r += by * bx * r
            detail_g += by * bx * g
            detail_b += by * bx * b

    change_r += detail_r * share
    change_g += detail_g * share
    change_b += detail_b * share
    if LINES:
        plane = lines_height * lines_width
        lines_ptr += frame.to(tl.int64) * 2 * plane
        if LINES_DIRECT:
            at = y * lines_width + x
            line = tl.load(lines_ptr + at, mask=keep, other=0.0).to(tl.float32)
            shine = tl.load(lines_ptr + plane + at, mask=keep, other=0.0).to(tl.float32)
        else:
            ly = (y.to(tl.float32) + 0.5) * (lines_rows / height) - 0.5
            lx = (x.to(tl.float32) + 0.5) * (lines_columns / width) - 0.5
            ly = tl.minimum(tl.maximum(ly, 0.0), lines_height - 1.0)
            lx = tl.minimum(tl.maximum(lx, 0.0), lines_width - 1.0)
            y0 = tl.floor(ly)
            x0 = tl.floor(lx)
            line = _between(lines_ptr, y0, x0, ly - y0, lx - x0, lines_height, lines_width, keep)
            shine = _between(lines_ptr + plane, y0, x0, ly - y0, lx - x0, lines_height, lines_width, keep)
        line = tl.minimum(tl.maximum(line * dark, 0.0), 1.0)
        shine *= bright
        change_r += line * (tl.load(pen + 2, mask=keep, other=0.0).to(tl.float32) - (v_r + change_r))
        change_g += line * (tl.load(pen + 3, mask=keep, other=0.0).to(tl.float32) - (v_g + change_g))
        change_b += line * (tl.load(pen + 4, mask=keep, other=0.0).to(tl.float32) - (v_b + change_b))
        change_r += shine * tl.load(pen + 5, mask=keep, other=0.0).to(tl.float32)
        change_g += shine * tl.load(pen + 6, mask=keep, other=0.0).to(tl.float32)
        change_b += shine * tl.load(pen + 7, mask=keep, other=0.0).to(tl.float32)

    amount = tl.load(strength_ptr + frame) + tl.zeros([P], tl.float32)
    if HAS_MASK:
        at_mask = mask_ptr + frame.to(tl.int64) * height * width + y * width + x
        amount *= tl.load(at_mask, mask=keep, other=0.0).to(tl.float32)
    t_r = tl.full([P], 0.5, tl.float32)
    t_g = t_r
    t_b = t_r
    if DITHER:
        key = mix32(tl.load(dither_ptr + frame + tl.zeros([P], tl.int32)).to(tl.uint32))
        bits = mix32(((y << 16) | x).to(tl.uint32) ^ key)
        t_r = _threshold(bits, 0)
        t_g = _threshold(bits, 8)
        t_b = _threshold(bits, 16)
    new_r = finish(raw_r, unit_r, amount * change_r, t_r, KIND, LINEAR, SCALE)
    new_g = finish(raw_g, unit_g, amount * change_g, t_g, KIND, LINEAR, SCALE)
    new_b = finish(raw_b, unit_b, amount * change_b, t_b, KIND, LINEAR, SCALE)

    out_row = out_ptr + frame.to(tl.int64) * out_stride + first + y * pitch
    store_rgb(out_row, x, new_r, new_g, new_b, alpha, keep, KIND, BGR)


# 4 x 32 pixels, one a thread: runs of 128 bytes in the frame, the sums of three colours x 16 in registers,
# and a tile touches at most 2 x 6 cells, which stay in the L1 cache.
_CONFIG = Config({"TY": 4, "TX": 32}, 4, 1)


def compose_triton(
    out: Tensor,
    frames: Tensor,
    layout: FrameLayout,
    rows: int,
    columns: int,
    edit: Tensor,
    strength: Tensor,
    mask: Tensor | None,
    dither: Tensor | None,
    motion: Tensor | None,
    visible: Tensor | None,
    lines: Tensor | None,
    lines_rows: float,
    lines_columns: float,
) -> None:
    """Launch the kernel of `compose` on checked arguments."""
    n, (h, w) = frames.shape[0], edit.shape[1:3]
    elements, stride, first, pitch = typed_view(frames, layout, words=True)
    target, out_stride, _, _ = typed_view(out, layout, words=True)
    args: dict[str, Any] = {
        "frame_ptr": elements,
        "out_ptr": target,
        "edit_ptr": edit,
        "strength_ptr": strength,
        # What is absent is never read; any tensor stands for it.
        "mask_ptr": strength if mask is None else mask,
        "dither_ptr": strength if dither is None else dither,
        "motion_ptr": strength if motion is None else motion,
        "visible_ptr": strength if visible is None else visible,
        "lines_ptr": strength if lines is None else lines,
        "frame_stride": stride,
        "out_stride": out_stride,
        "first": first,
        "pitch": pitch,
        "height": layout.height,
        "width": layout.width,
        "rows": rows,
        "columns": columns,
        "h": h,
        "w": w,
        "motion_height": 1 if motion is None else motion.shape[2],
        "motion_width": 1 if motion is None else motion.shape[3],
        "lines_height": 1 if lines is None else lines.shape[2],
        "lines_width": 1 if lines is None else lines.shape[3],
        "lines_rows": float(lines_rows),
        "lines_columns": float(lines_columns),
    }
    constants = {
        "KIND": layout.kind,
        "BGR": layout.format == "bgra8",
        "LINEAR": layout.linear,
        "SCALE": float(layout.scale),
        "DIRECT": motion is None and (rows, columns) == (layout.height, layout.width),
        "HAS_MASK": mask is not None,
        "DITHER": dither is not None and layout.kind != 3,
        "WARP": motion is not None,
        "LINES": lines is not None,
        "LINES_DIRECT": (lines_rows, lines_columns) == (layout.height, layout.width),
        "UNLIKE": 1 / SIMILAR,
    }
    sizes = _CONFIG.sizes
    tiles = -(-layout.height // sizes["TY"]) * -(-layout.width // sizes["TX"])
    launch(_compose_kernel, (tiles, n), args, constants, _CONFIG)


def _checked(
    out: Tensor,
    frames: Tensor,
    layout: FrameLayout,
    rows: int,
    columns: int,
    edit: Tensor,
    strength: Tensor,
    mask: Tensor | None,
    dither: Tensor | None,
    motion: Tensor | None,
    visible: Tensor | None,
    lines: Tensor | None,
    lines_rows: float,
    lines_columns: float,
) -> None:
    frame_of(frames, layout)
    frame_of(out, layout)
    n = frames.shape[0]
    require(out.shape[0] == n, f"out has {out.shape[0]} frames and the source {n}")
    require(out.device == frames.device, f"out is on {out.device} and the frames on {frames.device}: move one")
    require(rows > 0 and columns > 0, f"a working frame of {columns}x{rows} pixels")
    h, w = grid_size(rows, columns)
    check("edit", edit, (n, h, w, EDIT_CHANNELS), FLOATS, like=frames)
    check("strength", strength, (n,), torch.float32, like=frames)
    if mask is not None:
        check("mask", mask, (n, 1, layout.height, layout.width), (torch.float32, torch.float16), like=frames)
    if dither is not None:
        check("dither", dither, (n,), torch.int64, like=frames)
    require((motion is None) == (visible is None), "motion and visible come together")
    if motion is not None and visible is not None:
        check("motion", motion, (n, 2, None, None), torch.float32, like=frames)
        check("visible", visible, (n, 1, *motion.shape[2:]), torch.float32, like=frames)
    if lines is not None:
        check("lines", lines, (n, 2, None, None), (torch.float32, torch.float16), like=frames)
        covered = 0 < lines_rows <= lines.shape[2] and 0 < lines_columns <= lines.shape[3]
        require(covered, f"{lines_rows} x {lines_columns} of {list(lines.shape[2:])} points of lines for a frame")


_SCHEMA = (
    "(Tensor(a!) out, Tensor frames, str format, int height, int width, int pitch_bytes, bool flipped, "
    "bool linear, int rows, int columns, Tensor edit, Tensor strength, "
    "Tensor? mask, Tensor? dither, Tensor? motion, Tensor? visible, Tensor? lines, float lines_rows, "
    "float lines_columns) -> ()"
)


@torch.library.custom_op("mirage::compose", mutates_args=("out",), schema=_SCHEMA)
def _op(
    out: Tensor,
    frames: Tensor,
    format: Any,
    height: int,
    width: int,
    pitch_bytes: int,
    flipped: bool,
    linear: bool,
    rows: int,
    columns: int,
    *rest: Any,
) -> None:
    layout = FrameLayout(format, height, width, pitch_bytes, flipped, linear)
    _checked(out, frames, layout, rows, columns, *rest)
    run = compose_triton if on_triton(frames) else compose_reference
    run(out, frames, layout, rows, columns, *rest)


@_op.register_fake
def _fake(*_: Any) -> None:
    return None


def compose(
    frames: Tensor,
    layout: FrameLayout,
    edit: Tensor,
    strength: Tensor,
    *,
    rows: int | None = None,
    columns: int | None = None,
    mask: Tensor | None = None,
    dither: Tensor | None = None,
    motion: Tensor | None = None,
    visible: Tensor | None = None,
    lines: Tensor | None = None,
    lines_shown: tuple[float, float] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Apply `edit` [N, h, w, 264] to `frames` uint8 [N, size_bytes] and return frames in the same layout.

    `strength` fp32 [N] scales the edit, `mask` [N, 1, H, W] (fp32 or fp16, 1: edit, 0: keep the source) does so per
    pixel. `dither` int64 [N] seeds the
    dither; without it values are rounded. `rows` x `columns` is the working frame that the edit was made on
    (the display's size where left out). `out` is written in place where given; bytes between rows are not.

    The fallback: `motion` fp32 [N, 2, mh, mw] in pixels of the working frame to where each place was when the
    edit was made (NaN: unknown), and `visible` fp32 [N, 1, mh, mw] in [0, 1]; any resolution.

    `lines` fp16 or fp32 [N, 2, lh, lw] of `trace_lines`, of which the first `lines_shown` (rows, columns) points cover
    the frame (all of them where left out), are drawn over it.

    Raises `KernelError` for what a kernel could not take.
    """
    rows, columns = layout.height if rows is None else rows, layout.width if columns is None else columns
    if lines_shown is None:
        lines_shown = (1.0, 1.0) if lines is None else (float(lines.shape[2]), float(lines.shape[3]))
    if out is None:
        out = torch.empty(frames.shape[0], layout.size_bytes, dtype=torch.uint8, device=frames.device)
    if recording():
        optional = (mask, dither, motion, visible, lines, *lines_shown)
        compose_triton(out, frames, layout, rows, columns, edit, strength, *optional)
        return out
    shape = (layout.format, layout.height, layout.width, layout.pitch_bytes, layout.flipped, layout.linear)
    torch.ops.mirage.compose(
        out, frames, *shape, rows, columns, edit, strength, mask, dither, motion, visible, lines, *lines_shown
    )
    return out

"""The pixel ends of the CPU path, compiled by numba: the slot's bytes in, the slot's bytes out, one pass each.

The same operations as `pixels_to_cells`, `planes_to_cells`, `advect_noise` and `compose`, which define
them; a test compares. They exist because whole-frame tensor conversions cost more than the network does.
Pixels are uint8 [H, W, C] views with any row pitch; `order` gives the positions of red, green and blue.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from mirage_kernels.compose import SIMILAR

__all__ = ["carry_motion", "cells_from_pixels", "compose_pixels", "move_noise", "plane_cells", "warp_edit"]

# Not `fastmath=True`: it lets the compiler assume that no NaN comes, and engines do send NaN.
_OPTIONS: dict[str, Any] = {"fastmath": {"contract", "reassoc", "arcp", "nsz"}, "nogil": True}


def _jit(function: Any) -> Any:
    """Compiled at its first call, and kept; anew in every process where numba finds no place to keep it, as in an
    installation and a home that are read-only."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        return njit(**_OPTIONS)(function)


@_jit
def cells_from_pixels(pixels: Any, order: Any, cells: Any) -> None:
    """Cut uint8 pixels [H, W, C] into uint8 cells [h, w, 192]; beyond the frame its edge is repeated."""
    height, width, _ = pixels.shape
    h, w, _ = cells.shape
    red, green, blue = order[0], order[1], order[2]
    for cy in range(h):
        for row in range(8):
            y = min(cy * 8 + row, height - 1)
            for cx in range(w):
                base = row * 24
                if cx * 8 + 8 <= width:
                    for column in range(8):
                        x = cx * 8 + column
                        cells[cy, cx, base + column * 3] = pixels[y, x, red]
                        cells[cy, cx, base + column * 3 + 1] = pixels[y, x, green]
                        cells[cy, cx, base + column * 3 + 2] = pixels[y, x, blue]
                else:
                    for column in range(8):
                        x = min(cx * 8 + column, width - 1)
                        cells[cy, cx, base + column * 3] = pixels[y, x, red]
                        cells[cy, cx, base + column * 3 + 1] = pixels[y, x, green]
                        cells[cy, cx, base + column * 3 + 2] = pixels[y, x, blue]


@_jit
def _grows(near: Any, far: Any) -> Any:
    """By which part of itself depth grows from one point to another, as `depth_slopes`."""
    one = np.float32(1.0)
    return min(max(np.float32(16.0) * (far - near) / (far + near + np.float32(0.01)), -one), one)


@_jit
def plane_cells(
    depth: Any, motion: Any, mask: Any, has_depth: bool, has_motion: bool, has_mask: bool, cells: Any
) -> None:
    """Reduce an engine's planes to float32 [h, w, 32], as `planes_to_cells`.

    Planes have one entry per 2x2 pixels of the working frame's content, [H2, W2], or a single one where there is none
    of their kind: `depth` float32 metres; `motion` float32 [H2, W2, 2], working pixels to where it was; `mask` uint8
    (0 overlay, 2 object, 3 sky).
    Beyond the content its edge is repeated.
    """
    h, w, _ = cells.shape
    height = max(depth.shape[0], motion.shape[0], mask.shape[0])
    width = max(depth.shape[1], motion.shape[1], mask.shape[1])
    sixteenth, quarter = np.float32(1.0 / 16.0), np.float32(0.25)
    zero, one = np.float32(0.0), np.float32(1.0)
    inside = min(width, 4 * w)
    near = np.empty(4 * w, np.float32)
    metres = np.empty((4, 4 * w), np.float32)
    farthest, half = np.float32(1e4), np.float32(0.5)
    kinds = np.empty((3, 4 * w), np.uint8)
    for cy in range(h):
        if has_depth:
            for j in range(4):
                y = min(cy * 4 + j, height - 1)
                # A plain loop over a row, which LLVM turns into vectors; NaN is as far as infinity.
                for x in range(inside):
                    d = depth[y, x]
                    close = one / (one + (d if d > zero else zero) * quarter)
                    near[x] = close if d < np.float32(1e30) else zero
                    metres[j, x] = (d if d > zero else zero) if d < farthest else farthest
                for x in range(inside, 4 * w):
                    near[x] = near[inside - 1]
                    metres[j, x] = metres[j, inside - 1]
                for cx in range(w):
                    for i in range(4):
                        cells[cy, cx, j * 4 + i] = near[cx * 4 + i]
            for cx in range(w):
                for q in range(4):
                    y, x = q // 2 * 2, cx * 4 + q % 2 * 2
                    a, b, c, d = metres[y, x], metres[y, x + 1], metres[y + 1, x], metres[y + 1, x + 1]
                    cells[cy, cx, 24 + 2 * q] = half * (_grows(a, b) + _grows(c, d))
                    cells[cy, cx, 25 + 2 * q] = half * (_grows(a, c) + _grows(b, d))
        else:
            for cx in range(w):
                for c in range(16):
                    cells[cy, cx, c] = zero
                for c in range(24, 32):
                    cells[cy, cx, c] = zero
        kinds[...] = 0
        if has_mask:
            for j in range(4):
                y = min(cy * 4 + j, height - 1)
                for x in range(inside):
                    value = mask[y, x]
                    kinds[0, x] += np.uint8(value == 0)
                    kinds[1, x] += np.uint8(value == 2)
                    kinds[2, x] += np.uint8(value == 3)
            for k in range(3):
                kinds[k, inside:] = kinds[k, inside - 1]
        for cx in range(w):
            cells[cy, cx, 16] = one if has_depth else zero
            for c in range(17, 20):
                cells[cy, cx, c] = zero
            if has_motion:
                y, x = min(cy * 4 + 2, height - 1), min(cx * 4 + 2, width - 1)
                for c in range(2):
                    m = motion[y, x, c]
                    if not (m > -1e30 and m < 1e30):
                        m = zero
                    cells[cy, cx, 17 + c] = np.float32(math.tanh(m * sixteenth))
                cells[cy, cx, 19] = one
            for c in range(3):
                count = np.int32(0)
                for i in range(4):
                    count += kinds[c, cx * 4 + i]
                cells[cy, cx, 20 + c] = count * sixteenth
            cells[cy, cx, 23] = one if has_mask else zero


@_jit
def _mix(x: Any) -> Any:
    x = np.uint64(x) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x7FEB352D)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(0x846CA68B)) & np.uint64(0xFFFFFFFF)
    return x ^ (x >> np.uint64(16))


@_jit
def move_noise(
    before: Any, after: Any, motion: Any, has_motion: bool, fresh_all: bool, seed: int, frame: int, cells: Any
) -> None:
    """Carry the noise field along the motion and write it as cells, as `fresh_noise` and `advect_noise`.

    `before`, `after` float32 [H/2, W/2] of the working frame; `motion` as in `plane_cells`; `cells` float32
    [h, w, 16].
    """
    h2, w2 = after.shape
    key = _mix(
        np.uint64(seed) * np.uint64(0x9E3779B1)
        + np.uint64(frame) * np.uint64(0x85EBCA77)
        + np.uint64(0x165667B1)
    )
    other = _mix(key + np.uint64(0x27D4EB2F))
    height, width = motion.shape[0], motion.shape[1]
    half = np.float32(0.5)
    above = np.full(w2, -1, np.int64)
    for y in range(h2):
        left = np.int64(-1)
        row = min(y, height - 1)
        for x in range(w2):
            place, iy, ix = np.int64(-2), 0, 0
            if not fresh_all:
                mx, my = np.float32(0.0), np.float32(0.0)
                if has_motion:
                    column = min(x, width - 1)
                    mx, my = motion[row, column, 0], motion[row, column, 1]
                if mx > -1e6 and mx < 1e6 and my > -1e6 and my < 1e6:
                    iy, ix = int(np.rint(np.float32(y) + my * half)), int(np.rint(np.float32(x) + mx * half))
                    if 0 <= iy < h2 and 0 <= ix < w2:
                        place = np.int64(iy * w2 + ix)
            if place >= 0 and place != left and place != above[x]:
                value = before[iy, ix]
            else:
                counter = (np.uint64(y) << np.uint64(16) | np.uint64(x)) * np.uint64(2)
                a = np.float32(_mix(counter ^ key))
                b = np.float32(_mix((counter + np.uint64(1)) ^ other))
                u = (a + np.float32(1.0)) * np.float32(1.0 / 4294967808.0)
                angle = b * np.float32(2 * math.pi / 4294967296.0)
                value = np.float32(math.sqrt(np.float32(-2.0) * math.log(u)) * math.cos(angle))
            left = place
            above[x] = place
            after[y, x] = value
            cells[y // 4, x // 4, (y % 4) * 4 + x % 4] = value


# The helpers below are one plain loop over one row each: that is what LLVM turns into full-width vectors.


@_jit
def _load_row(pixels: Any, y: int, order: Any, out: Any) -> None:
    """A row as v [3, W]."""
    scale, one = np.float32(2.0 / 255.0), np.float32(1.0)
    red, green, blue = order[0], order[1], order[2]
    for x in range(pixels.shape[1]):
        out[0, x] = np.float32(pixels[y, x, red]) * scale - one
        out[1, x] = np.float32(pixels[y, x, green]) * scale - one
        out[2, x] = np.float32(pixels[y, x, blue]) * scale - one


@_jit
def _by_number(matrices: Any, anchors: Any) -> Any:
    """[h, w, 48] and [h, w, 16] -> [h, 4, 16, w + 1]: a row of one number of a reading lies together; the last cell is
    repeated. A reading's twelve coefficients, its colour, its share."""
    h, w, _ = matrices.shape
    out = np.empty((h, 4, 16, w + 1), np.float32)
    for y in range(h):
        for b in range(4):
            for c in range(16):
                for x in range(w):
                    out[y, b, c, x] = matrices[y, x, b * 12 + c] if c < 12 else anchors[y, x, b * 4 + c - 12]
                out[y, b, c, w] = out[y, b, c, w - 1]
    return out


@_jit
def _count_row(r: Any, g: Any, b: Any, reading: Any, left: Any, near: Any, count: Any, total: Any) -> None:
    """What a reading of a row of cells [16, w + 1] counts at each pixel, by its place, its share and its colour."""
    one, scale = np.float32(1.0), np.float32(1.0 / SIMILAR)
    for x in range(r.shape[0]):
        at = left[x]
        dr, dg, db = r[x] - reading[12, at], g[x] - reading[13, at], b[x] - reading[14, at]
        like = one / (one + (dr * dr + dg * dg + db * db) * scale)
        count[x] = near[x] * reading[15, at] * like * like
        total[x] += count[x]


@_jit
def _turn_row(r: Any, g: Any, b: Any, m0: Any, m1: Any, m2: Any, m3: Any, left: Any, count: Any, out: Any) -> None:
    """Add one colour of what a reading makes of the pixels of a row."""
    for x in range(r.shape[0]):
        at = left[x]
        out[x] += count[x] * (m0[at] * r[x] + m1[at] * g[x] + m2[at] * b[x] + m3[at])


@_jit
def _divide_row(out: Any, total: Any) -> None:
    for x in range(out.shape[0]):
        out[x] /= total[x]


@_jit
def _store_row(v: Any, change: Any, strength: Any, out: Any, y: int, channel: int) -> None:
    """`v + strength * change` as bytes."""
    one, scale, half = np.float32(1.0), np.float32(127.5), np.float32(0.5)
    low, high = np.float32(0.0), np.float32(255.0)
    for x in range(change.shape[0]):
        value = (v[x] + strength * change[x] + one) * scale + half
        out[y, x, channel] = np.uint8(min(max(value, low), high))


@_jit
def compose_pixels(
    pixels: Any,
    out: Any,
    order: Any,
    matrices: Any,
    detail: Any,
    anchors: Any,
    pens: Any,
    mask: Any,
    has_mask: bool,
    strength: float,
    content_h: int,
    content_w: int,
    lines: Any,
    has_lines: bool,
    shown_h: float,
    shown_w: float,
) -> None:
    """Apply an edit to a frame's bytes: slice, detail, lines, strength and mask in one pass over the rows.

    `pixels`, `out` uint8 [H, W, C]; `matrices` float32 [h, w, 48]; `detail` float32 [h, w, 192];
    `anchors` float32 [h, w, 16]; `pens` float32 [h, w, 8]; `mask` uint8 [H, W], 0 keeps the source; `lines` uint8
    [2, rows, columns] of which the first `shown_h` x `shown_w` points cover the frame. Alpha and unused channels are
    copied.
    """
    height, width, channels = pixels.shape
    h, w, _ = matrices.shape
    scale_y, scale_x = content_h / height, content_w / width
    same = content_h == height and content_w == width
    amount, one = np.float32(strength), np.float32(1.0)
    now, change, added = np.empty((3, 3, width), np.float32)
    near, count, total = np.empty((3, width), np.float32)
    line = np.empty((2, width), np.float32)
    grid = _by_number(matrices, anchors)
    before, part = np.empty(width, np.int64), np.empty(width, np.float32)
    for x in range(width):
        at = max((x + 0.5) * scale_x / 8.0 - 0.5, 0.0)
        before[x] = min(int(at), w - 1)
        part[x] = min(at - before[x], 1.0)
    after = before + 1
    for y in range(height):
        _load_row(pixels, y, order, now)
        at = max((y + 0.5) * scale_y / 8.0 - 0.5, 0.0)
        top = min(int(at), h - 1)
        part_y = np.float32(min(at - top, 1.0))
        change[...] = 0
        total[:] = 0
        for k in range(4):
            row, down = (top, one - part_y) if k < 2 else (min(top + 1, h - 1), part_y)
            place = after if k & 1 else before
            for x in range(width):
                near[x] = down * (part[x] if k & 1 else one - part[x])
            for b in range(4):
                reading = grid[row, b]
                _count_row(now[0], now[1], now[2], reading, place, near, count, total)
                for c in range(3):
                    m = reading[4 * c : 4 * c + 4]
                    _turn_row(now[0], now[1], now[2], m[0], m[1], m[2], m[3], place, count, change[c])
        if same:
            _detail_row(detail[y // 8], (y % 8) * 24, added)
        else:
            _resample_detail(detail, y, scale_y, scale_x, added)
        for c in range(3):
            _divide_row(change[c], total)
            for x in range(width):
                change[c, x] += added[c, x]
        if has_lines:
            for k in range(2):
                _line_row(lines[k], pens[..., k], y, height, shown_h, shown_w, top, part_y, before, part, line[k])
            for c in range(3):
                _draw_lines(line, pens[0, 0, 2 + c], pens[0, 0, 5 + c], now[c], change[c])
        for c in range(3):
            _store_row(now[c], change[c], amount, out, y, order[c])
        if channels == 4:
            for x in range(width):
                out[y, x, 3] = pixels[y, x, 3]
        if has_mask:
            for x in range(width):
                if mask[y, x] == 0:
                    for c in range(3):
                        out[y, x, c] = pixels[y, x, c]


@_jit
def _line_row(
    field: Any, pens: Any, y: int, height: int, shown_h: float, shown_w: float, top: int, part_y: Any, before: Any,
    part: Any, out: Any,
) -> None:  # fmt: skip
    """How much of a field of lines [rows, columns] is drawn at a row's pixels, by the pens [h, w] around them."""
    rows, columns = field.shape
    h, w = pens.shape
    width = out.shape[0]
    same = shown_h == height and shown_w == width
    v = min(max((y + 0.5) * (shown_h / height) - 0.5, 0.0), rows - 1.0)
    y0 = int(v)
    y1, down = min(y0 + 1, rows - 1), v - y0
    below = min(top + 1, h - 1)
    for x in range(width):
        if same:
            value = field[y, x] / 255.0
        else:
            u = min(max((x + 0.5) * (shown_w / width) - 0.5, 0.0), columns - 1.0)
            x0 = int(u)
            x1, across = min(x0 + 1, columns - 1), u - x0
            upper = field[y0, x0] + across * (float(field[y0, x1]) - field[y0, x0])
            lower = field[y1, x0] + across * (float(field[y1, x1]) - field[y1, x0])
            value = min(max((upper + down * (lower - upper)) * (4.0 / 3.0 / 255.0) - 1.0 / 6.0, 0.0), 1.0)
        left, right = before[x], min(before[x] + 1, w - 1)
        upper = pens[top, left] + part[x] * (pens[top, right] - pens[top, left])
        lower = pens[below, left] + part[x] * (pens[below, right] - pens[below, left])
        out[x] = value * (upper + part_y * (lower - upper))


@_jit
def _draw_lines(line: Any, ink: Any, glow: Any, v: Any, change: Any) -> None:
    """Draw lines over what a row's colour `v` has become, `v + change`."""
    for x in range(v.shape[0]):
        dark = min(max(line[0, x], np.float32(0.0)), np.float32(1.0))
        change[x] += dark * (ink - v[x] - change[x]) + line[1, x] * glow


@_jit
def _detail_row(cells: Any, base: int, out: Any) -> None:
    """One row of the detail where working and display pixels are the same: out [3, W]."""
    width = out.shape[1]
    for cx in range(cells.shape[0]):
        for t in range(min(8, width - cx * 8)):
            out[0, cx * 8 + t] = cells[cx, base + t * 3]
            out[1, cx * 8 + t] = cells[cx, base + t * 3 + 1]
            out[2, cx * 8 + t] = cells[cx, base + t * 3 + 2]


@_jit
def _resample_detail(detail: Any, y: int, scale_y: float, scale_x: float, out: Any) -> None:
    """One display row of the detail, bilinear: out float32 [3, W]."""
    h, w, _ = detail.shape
    v = min(max((y + 0.5) * scale_y - 0.5, 0.0), h * 8 - 1.0)
    y0 = int(v)
    y1 = min(y0 + 1, h * 8 - 1)
    gy = np.float32(v - y0)
    for x in range(out.shape[1]):
        u = min(max((x + 0.5) * scale_x - 0.5, 0.0), w * 8 - 1.0)
        x0 = int(u)
        x1 = min(x0 + 1, w * 8 - 1)
        gx = np.float32(u - x0)
        a, b = ((y0 % 8) * 8 + x0 % 8) * 3, ((y0 % 8) * 8 + x1 % 8) * 3
        d, e = ((y1 % 8) * 8 + x0 % 8) * 3, ((y1 % 8) * 8 + x1 % 8) * 3
        for c in range(3):
            p, q = detail[y0 // 8, x0 // 8, a + c], detail[y0 // 8, x1 // 8, b + c]
            r, s = detail[y1 // 8, x0 // 8, d + c], detail[y1 // 8, x1 // 8, e + c]
            upper, lower = p + (q - p) * gx, r + (s - r) * gx
            out[c, x] = upper + (lower - upper) * gy


@_jit
def carry_motion(before: Any, motion: Any, has_motion: bool, after: Any) -> None:
    """How far everything has moved since an edit was made, one frame later: `after`, from what `before` says.

    Both float32 [4h, 4w, 2], in working pixels to where it was then, NaN where that is unknown; `motion` as in
    `plane_cells`, from this frame to the one before.
    """
    rows, columns, _ = after.shape
    height, width = motion.shape[0], motion.shape[1]
    half = np.float32(0.5)
    for y in range(rows):
        for x in range(columns):
            mx, my = np.float32(0.0), np.float32(0.0)
            if has_motion:
                row, column = min(y, height - 1), min(x, width - 1)
                mx, my = motion[row, column, 0], motion[row, column, 1]
            after[y, x, 0], after[y, x, 1] = np.nan, np.nan
            if mx > -1e6 and mx < 1e6 and my > -1e6 and my < 1e6:
                iy, ix = int(np.rint(np.float32(y) + my * half)), int(np.rint(np.float32(x) + mx * half))
                if 0 <= iy < rows and 0 <= ix < columns:
                    after[y, x, 0], after[y, x, 1] = mx + before[iy, ix, 0], my + before[iy, ix, 1]


@_jit
def warp_edit(
    matrices: Any, detail: Any, anchors: Any, pens: Any, since: Any, new_matrices: Any, new_detail: Any,
    new_anchors: Any, new_pens: Any,
) -> None:  # fmt: skip
    """Carry an edit to where things are now: its readings by cell, the detail by pixel.

    `matrices` float32 [h, w, 48], `detail` float32 [h, w, 192], `anchors` float32 [h, w, 16], `pens` float32
    [h, w, 8]; `since` float32 [4h, 4w, 2] of `carry_motion`. Readings are taken from the nearest cell, never mixed: a
    mean of two colours is a colour that is not there. Where a pixel was not in the edit's frame its detail is zero:
    the source's own detail, graded by the nearest readings, stands there.
    """
    h, w, _ = matrices.shape
    eighth = np.float32(0.125)
    for cy in range(h):
        for cx in range(w):
            mx, my = since[cy * 4 + 2, cx * 4 + 2, 0], since[cy * 4 + 2, cx * 4 + 2, 1]
            y0, x0 = cy, cx
            if mx > -1e6 and mx < 1e6 and my > -1e6 and my < 1e6:
                y0 = min(max(int(np.rint(np.float32(cy) + my * eighth)), 0), h - 1)
                x0 = min(max(int(np.rint(np.float32(cx) + mx * eighth)), 0), w - 1)
            for c in range(48):
                new_matrices[cy, cx, c] = matrices[y0, x0, c]
            for c in range(16):
                new_anchors[cy, cx, c] = anchors[y0, x0, c]
            for c in range(8):
                new_pens[cy, cx, c] = pens[y0, x0, c]
            for ry in range(8):
                y = cy * 8 + ry
                for rx in range(8):
                    x = cx * 8 + rx
                    ux, uy = since[y // 2, x // 2, 0], since[y // 2, x // 2, 1]
                    known, iy, ix = False, 0, 0
                    if ux > -1e6 and ux < 1e6 and uy > -1e6 and uy < 1e6:
                        iy, ix = int(np.rint(np.float32(y) + uy)), int(np.rint(np.float32(x) + ux))
                        known = 0 <= iy < h * 8 and 0 <= ix < w * 8
                    for c in range(3):
                        value = np.float32(0.0)
                        if known:
                            value = detail[iy // 8, ix // 8, ((iy % 8) * 8 + ix % 8) * 3 + c]
                        new_detail[cy, cx, (ry * 8 + rx) * 3 + c] = value

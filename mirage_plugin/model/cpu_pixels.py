"""The pixel ends of the CPU path, compiled by numba: the slot's bytes in, the slot's bytes out, one pass each.

The same operations as `pixels_to_cells`, `planes_to_cells`, `advect_noise`, `Guide` and `compose`, which define
them; a test compares. They exist because whole-frame tensor conversions cost more than the network does.
Pixels are uint8 [H, W, C] views with any row pitch; `order` gives the positions of red, green and blue.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from mirage_kernels.compose import SIMILAR

__all__ = ["cell_colours", "cells_from_pixels", "compose_pixels", "move_noise", "plane_cells", "warp_edit"]

# Not `fastmath=True`: it lets the compiler assume that no NaN comes, and engines do send NaN.
_jit = njit(cache=True, fastmath={"contract", "reassoc", "arcp", "nsz"}, nogil=True)


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
def cell_colours(cells: Any, colours: Any) -> None:
    """The mean v of each cell, float32 [h, w, 3], of uint8 cells [h, w, 192]."""
    h, w, _ = cells.shape
    for y in range(h):
        for x in range(w):
            for c in range(3):
                total = np.int32(0)
                for i in range(64):
                    total += np.int32(cells[y, x, 3 * i + c])
                colours[y, x, c] = np.float32(total) * np.float32(2.0 / (64 * 255.0)) - np.float32(1.0)


@_jit
def plane_cells(
    depth: Any, motion: Any, mask: Any, has_depth: bool, has_motion: bool, has_mask: bool, cells: Any
) -> None:
    """Reduce an engine's planes to float32 [h, w, 24], as `planes_to_cells`.

    All planes have one entry per 2x2 pixels of the working frame's content, [H2, W2]: `depth` float32 metres;
    `motion` float32 [H2, W2, 2], working pixels to where it was; `mask` uint8 (0 overlay, 2 object, 3 sky).
    Beyond the content its edge is repeated.
    """
    h, w, _ = cells.shape
    height, width = depth.shape
    sixteenth, quarter = np.float32(1.0 / 16.0), np.float32(0.25)
    zero, one = np.float32(0.0), np.float32(1.0)
    inside = min(width, 4 * w)
    near = np.empty(4 * w, np.float32)
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
                for x in range(inside, 4 * w):
                    near[x] = near[inside - 1]
                for cx in range(w):
                    for i in range(4):
                        cells[cy, cx, j * 4 + i] = near[cx * 4 + i]
        else:
            for cx in range(w):
                for c in range(16):
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
    """A row as v [3, W + 2], with one pixel of repeated edge on both sides."""
    width = pixels.shape[1]
    scale, one = np.float32(2.0 / 255.0), np.float32(1.0)
    red, green, blue = order[0], order[1], order[2]
    for x in range(width):
        out[0, x + 1] = np.float32(pixels[y, x, red]) * scale - one
        out[1, x + 1] = np.float32(pixels[y, x, green]) * scale - one
        out[2, x + 1] = np.float32(pixels[y, x, blue]) * scale - one
    for c in range(3):
        out[c, 0] = out[c, 1]
        out[c, width + 1] = out[c, width]


@_jit
def _look_row(
    r0: Any,
    g0: Any,
    b0: Any,
    r1: Any,
    g1: Any,
    b1: Any,
    r2: Any,
    g2: Any,
    b2: Any,
    k: Any,
    bias: Any,
    out: Any,
) -> None:
    """One output channel of the guide's 3x3 layer for a row, with its ReLU.

    Written out, and one channel at a time, because LLVM turns exactly this into vectors: 0.9 us a row of 640,
    against 19 for three channels in one loop.
    """
    zero = np.float32(0.0)
    for x in range(out.shape[0]):
        t = bias
        t += k[0] * r0[x] + k[1] * g0[x] + k[2] * b0[x]
        t += k[3] * r0[x + 1] + k[4] * g0[x + 1] + k[5] * b0[x + 1]
        t += k[6] * r0[x + 2] + k[7] * g0[x + 2] + k[8] * b0[x + 2]
        t += k[9] * r1[x] + k[10] * g1[x] + k[11] * b1[x]
        t += k[12] * r1[x + 1] + k[13] * g1[x + 1] + k[14] * b1[x + 1]
        t += k[15] * r1[x + 2] + k[16] * g1[x + 2] + k[17] * b1[x + 2]
        t += k[18] * r2[x] + k[19] * g2[x] + k[20] * b2[x]
        t += k[21] * r2[x + 1] + k[22] * g2[x + 1] + k[23] * b2[x + 1]
        t += k[24] * r2[x + 2] + k[25] * g2[x + 2] + k[26] * b2[x + 2]
        out[x] = max(t, zero)


@_jit
def _weigh_row(s0: Any, s1: Any, s2: Any, s3: Any, s4: Any, s5: Any, k: Any, bias: Any, out: Any) -> None:
    """One bin of the guide's 1x1 layer for a row, not yet normalised."""
    half, quarter, floor = np.float32(0.5), np.float32(0.25), np.float32(0.01)
    for x in range(out.shape[0]):
        t = bias + k[0] * s0[x] + k[1] * s1[x] + k[2] * s2[x] + k[3] * s3[x] + k[4] * s4[x] + k[5] * s5[x]
        out[x] = half * (t + np.sqrt(t * t + quarter)) + floor


@_jit
def _normalise_rows(w0: Any, w1: Any, w2: Any, w3: Any) -> None:
    one = np.float32(1.0)
    for x in range(w0.shape[0]):
        total = one / (w0[x] + w1[x] + w2[x] + w3[x])
        w0[x] *= total
        w1[x] *= total
        w2[x] *= total
        w3[x] *= total


@_jit
def _by_coefficient(matrices: Any) -> Any:
    """[h, w, 48] -> [h, 48, w + 1]: a row of one coefficient lies together; the last cell is repeated."""
    h, w, _ = matrices.shape
    out = np.empty((h, 48, w + 1), np.float32)
    for y in range(h):
        for c in range(48):
            for x in range(w):
                out[y, c, x] = matrices[y, x, c]
            out[y, c, w] = matrices[y, w - 1, c]
    return out


@_jit
def _share_row(v: Any, upper: Any, lower: Any, left: Any, part: Any, down: Any, shares: Any) -> None:
    """How much of each of the four cells around its pixels a row takes, `network.slice_matrices`: `shares` [4, W].

    `v` [3, W]; `upper`, `lower` [w, 3], the colours of the rows of cells above and below.
    """
    one, scale = np.float32(1.0), np.float32(1.0 / SIMILAR)
    last = upper.shape[0] - 1
    for x in range(part.shape[0]):
        total = np.float32(0.0)
        for k in range(4):
            column = min(left[x] + (k & 1), last)
            away = np.float32(0.0)
            for c in range(3):
                difference = v[c, x] - (upper[column, c] if k < 2 else lower[column, c])
                away += difference * difference
            share = (part[x] if k & 1 else one - part[x]) * (one - down if k < 2 else down) / (one + away * scale)
            shares[k, x] = share
            total += share
        for k in range(4):
            shares[k, x] /= total


@_jit
def _gather_row(upper: Any, lower: Any, left: Any, shares: Any, out: Any) -> None:
    """One coefficient of two rows of cells [w + 1] at the pixels between them."""
    for x in range(out.shape[0]):
        at = left[x]
        out[x] = (
            shares[0, x] * upper[at] + shares[1, x] * upper[at + 1]
            + shares[2, x] * lower[at] + shares[3, x] * lower[at + 1]
        )  # fmt: skip


@_jit
def _blend_row(
    w0: Any, w1: Any, w2: Any, w3: Any, c0: Any, c1: Any, c2: Any, c3: Any, v: Any, out: Any
) -> None:
    """`out += v * sum_b w_b c_b` along a row: one entry of the blended colour transform, applied."""
    for x in range(w0.shape[0]):
        out[x] += v[x] * (w0[x] * c0[x] + w1[x] * c1[x] + w2[x] * c2[x] + w3[x] * c3[x])


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
    colours: Any,
    look: Any,
    look_bias: Any,
    weigh: Any,
    weigh_bias: Any,
    mask: Any,
    has_mask: bool,
    strength: float,
    content_h: int,
    content_w: int,
) -> None:
    """Apply an edit to a frame's bytes: guide, slice, detail, strength and mask in one pass over the rows.

    `pixels`, `out` uint8 [H, W, C]; `matrices` float32 [h, w, 48]; `detail` float32 [h, w, 192];
    `colours` float32 [h, w, 3], the mean v of each cell; the guide's weights `look` [6, 27] (row, column, channel),
    `look_bias` [6] (with the style's), `weigh` [4, 6], `weigh_bias` [4]; `mask` uint8 [H, W], 0 keeps the
    source. Alpha and unused channels are copied.
    """  # fmt: skip
    height, width, channels = pixels.shape
    h, w, _ = matrices.shape
    scale_y, scale_x = content_h / height, content_w / width
    same = content_h == height and content_w == width
    amount = np.float32(strength)
    rows = np.empty((3, 3, width + 2), np.float32)
    seen = np.empty((6, width), np.float32)
    weights = np.empty((4, width), np.float32)
    grid = _by_coefficient(matrices)
    shares = np.empty((4, width), np.float32)
    spread = np.empty((4, width), np.float32)
    change = np.empty((3, width), np.float32)
    ones = np.ones(width, np.float32)
    left = np.empty(width, np.int64)
    part = np.empty(width, np.float32)
    for x in range(width):
        at = max((x + 0.5) * scale_x / 8.0 - 0.5, 0.0)
        left[x] = min(int(at), w - 1)
        part[x] = min(at - left[x], 1.0)
    _load_row(pixels, 0, order, rows[0])
    rows[2] = rows[0]
    for y in range(height):
        following = (y + 1) % 3
        _load_row(pixels, min(y + 1, height - 1), order, rows[following])
        before, now = rows[(y + 2) % 3], rows[y % 3]
        after = rows[following]
        for j in range(6):
            _look_row(
                before[0],
                before[1],
                before[2],
                now[0],
                now[1],
                now[2],
                after[0],
                after[1],
                after[2],
                look[j],
                look_bias[j],
                seen[j],
            )
        for b in range(4):
            _weigh_row(
                seen[0], seen[1], seen[2], seen[3], seen[4], seen[5], weigh[b], weigh_bias[b], weights[b]
            )
        _normalise_rows(weights[0], weights[1], weights[2], weights[3])
        at = max((y + 0.5) * scale_y / 8.0 - 0.5, 0.0)
        top = min(int(at), h - 1)
        part_y = np.float32(min(at - top, 1.0))
        bottom = min(top + 1, h - 1)
        _share_row(now[:, 1 : width + 1], colours[top], colours[bottom], left, part, part_y, shares)
        if same:
            _detail_row(detail[y // 8], (y % 8) * 24, change)
        else:
            _resample_detail(detail, y, scale_y, scale_x, change)
        for c in range(3):
            for j in range(4):
                for b in range(4):
                    number = b * 12 + c * 4 + j
                    _gather_row(grid[top, number], grid[bottom, number], left, shares, spread[b])
                v = ones if j == 3 else now[j, 1 : width + 1]
                _blend_row(
                    weights[0],
                    weights[1],
                    weights[2],
                    weights[3],
                    spread[0],
                    spread[1],
                    spread[2],
                    spread[3],
                    v,
                    change[c],
                )
            _store_row(now[c, 1 : width + 1], change[c], amount, out, y, order[c])
        if channels == 4:
            for x in range(width):
                out[y, x, 3] = pixels[y, x, 3]
        if has_mask:
            for x in range(width):
                if mask[y, x] == 0:
                    for c in range(3):
                        out[y, x, c] = pixels[y, x, c]


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
def warp_edit(
    matrices: Any, detail: Any, colours: Any, motion: Any, has_motion: bool, new_matrices: Any, new_detail: Any,
    new_colours: Any,
) -> None:  # fmt: skip
    """Carry an edit to the next frame along its motion: the colour transforms by cell, the detail by pixel.

    `matrices` float32 [h, w, 48], `detail` float32 [h, w, 192], `colours` float32 [h, w, 3]; `motion` as in
    `plane_cells`. Where a pixel was not in the last frame its detail is zero: the source's own detail, graded by the
    nearest transform, stands there.
    """
    h, w, _ = matrices.shape
    height, width = motion.shape[0], motion.shape[1]
    one, eighth = np.float32(1.0), np.float32(0.125)
    for cy in range(h):
        for cx in range(w):
            mx, my = np.float32(0.0), np.float32(0.0)
            if has_motion:
                py, px = min(cy * 4 + 2, height - 1), min(cx * 4 + 2, width - 1)
                mx, my = motion[py, px, 0], motion[py, px, 1]
            if not (mx > -1e6 and mx < 1e6 and my > -1e6 and my < 1e6):
                mx, my = np.float32(0.0), np.float32(0.0)
            fy = min(max(np.float32(cy) + my * eighth, np.float32(0.0)), np.float32(h - 1))
            fx = min(max(np.float32(cx) + mx * eighth, np.float32(0.0)), np.float32(w - 1))
            y0, x0 = int(fy), int(fx)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            ay, ax = fy - np.float32(y0), fx - np.float32(x0)
            a, b, d, e = (one - ay) * (one - ax), (one - ay) * ax, ay * (one - ax), ay * ax
            for c in range(48):
                new_matrices[cy, cx, c] = (
                    matrices[y0, x0, c] * a + matrices[y0, x1, c] * b
                    + matrices[y1, x0, c] * d + matrices[y1, x1, c] * e
                )  # fmt: skip
            for c in range(3):
                new_colours[cy, cx, c] = (
                    colours[y0, x0, c] * a + colours[y0, x1, c] * b + colours[y1, x0, c] * d + colours[y1, x1, c] * e
                )
            for ry in range(8):
                y = cy * 8 + ry
                py = min(y // 2, height - 1)
                for rx in range(8):
                    x = cx * 8 + rx
                    iy, ix, known = y, x, True
                    if has_motion:
                        px = min(x // 2, width - 1)
                        ux, uy = motion[py, px, 0], motion[py, px, 1]
                        known = ux > -1e6 and ux < 1e6 and uy > -1e6 and uy < 1e6
                        if known:
                            iy, ix = int(np.rint(np.float32(y) + uy)), int(np.rint(np.float32(x) + ux))
                            known = 0 <= iy < h * 8 and 0 <= ix < w * 8
                    for c in range(3):
                        value = np.float32(0.0)
                        if known:
                            value = detail[iy // 8, ix // 8, ((iy % 8) * 8 + ix % 8) * 3 + c]
                        new_detail[cy, cx, (ry * 8 + rx) * 3 + c] = value

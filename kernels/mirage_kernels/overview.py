# mypy: disable-error-code="no-untyped-def"
"""agree, overview, remember: what surfaces are, from a look at the whole frame, for the readings of a finer grid.

A network that works on a large frame sees little of it at a time: a patch of sky and a patch of wall look alike there.
So it looks at the frame twice. The overview is the whole frame on few cells, as many as whole frames had in training;
what each of its readings says that a surface is (material, light, sky, how it faces and how far away it is) is averaged
with what the readings of the fine grid say that have its place and its colour, as in joint bilateral upsampling (Kopf
et al. 2007). Where surfaces part, their colours, textures and lines are the fine grid's own.

    count = bilinear(place) share / (1 + |colour - its colour|^2 / LIKE)^2      over 4 cells x BINS readings
    said += BELIEVED (sum count its said / sum count - said)

Before that the overview's own readings agree with those around that have their colour (an edge-avoiding a-trous filter,
Dammertz et al. 2010), and so do those of a frame that needs no overview: where the network is not sure, it is unsure
from cell to cell, and a plain sky would be a plaid. With depth it is sure enough, and they are left as they are.

And an overview heeds the one before, where the motion says that its cells come from: what surfaces are does not change
from frame to frame, and a network that is unsure flickers.

    share = the reading's own;  count = the same as above, of the frame before, where the cell was
    said += (REMEMBERED sum count / (share + REMEMBERED sum count)) (sum count its said / sum count - said)

Floor per fine cell in bf16: 3 x BINS numbers read, 19 x BINS read and written, 328 bytes in all (of the overview's
cells, 23 x BINS numbers each, there are few: they come from the nearest cache); about 4,800 operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.launch import FLOATS, Config, check, jit, launch, on_triton, recording, require, tl, wide
from mirage_kernels.shade import BINS, HEAD_CHANNELS, KINDS, MADE, SURFACE, pack_head, split_head

__all__ = [
    "AGREED",
    "BELIEVED",
    "OVERVIEW",
    "REMEMBERED",
    "TOLD",
    "agree",
    "agree_triton",
    "agreed",
    "overview",
    "overview_entries",
    "overview_reference",
    "overview_size",
    "overview_triton",
    "remember",
    "remember_triton",
    "remembered",
    "told_by_overview",
]

TOLD = (3, 3 + KINDS + 10)
"""What an overview tells, first and behind the last of a reading's numbers: kinds, sun, openness, lamp, which way up,
facing, nearness, elevation, cloud."""
OVERVIEW = (24, 40)
"""Cells of an overview at most (rows, columns); whole frames have 24x44 where the network is judged."""
LARGE = (28, 48)
"""A grid of no more cells (rows, columns) needs none."""
LARGE_WITH_DEPTH = (36, 64)
"""The same where depth is known, which tells most of it: there an overview gains nothing on a grid of this size."""
BELIEVED = 0.9
"""How far a reading goes from what it says itself to what the overview says."""
AGREED = (1, 2)
"""How far apart the 5x5 cells are whose readings agree, one time after the other."""
REMEMBERED = 3.0
"""How much an overview heeds the one before, of what it heeds itself."""
LEAST_SHARE = 1e-6
"""What a reading heeds itself at least: with nothing before it, it says what it says."""
LIKE = 0.01
"""The squared distance of colours, in v, at which a reading of the overview counts a quarter of what it counts for its
own colour."""


def overview_size(rows: int, columns: int, *, depth: bool = False) -> tuple[int, int] | None:
    """Of a frame that is worked on at `rows` x `columns` pixels, with `depth` or without: the (rows, columns) of its
    overview, or None."""
    large = LARGE_WITH_DEPTH if depth else LARGE
    if rows <= 8 * large[0] and columns <= 8 * large[1]:
        return None
    scale = min(8 * OVERVIEW[0] / rows, 8 * OVERVIEW[1] / columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def overview_entries(cells: int, size: int, working: int) -> Tensor:
    """Of a plane with an entry per two pixels of a frame's side of `working` pixels: those in the middle of each of
    `cells` cells of its overview of `size` pixels, int64 [cells]."""
    entries = -(-working // 2)
    at = (torch.arange(cells, dtype=torch.float64) + 0.5) * 8 / size * entries
    return at.long().clamp_max(entries - 1)


def agreed(words: Tensor) -> Tensor:
    """The definition of `agree`: words [N, h, w, WORDS], float32."""
    words = wide(words)
    n, h, w, _ = words.shape
    mine = words[..., : BINS * SURFACE].view(n, h, w, BINS, SURFACE)
    colour, share = mine[..., :3].sigmoid() * 2 - 1, words[..., BINS * SURFACE :].softmax(-1)
    said = mine[..., TOLD[0] : TOLD[1]]

    taps = torch.arange(5, device=words.device)
    tent = 1 - (taps - 2).abs() / 3
    tent = (tent[:, None] * tent).view(25, 1).expand(-1, BINS).reshape(-1).to(words.dtype)

    def around(field: Tensor, step: int) -> Tensor:
        """Of readings [N, h, w, BINS, C] those of the 5x5 cells around: [N, h, w, 25 * BINS, C], 0 beyond the frame."""
        filled = functional.pad(field.flatten(3), (0, 0, *[2 * step] * 4))
        y, x = (torch.arange(side, device=words.device)[:, None] + taps * step for side in (h, w))
        near = filled[:, y][:, :, :, x].transpose(2, 3)
        return near.reshape(n, h, w, 25 * BINS, field.shape[-1])

    for step in AGREED:
        colours, shares, there = (around(field, step) for field in (colour, share[..., None], said))
        away = torch.zeros(n, h, w, BINS, 25 * BINS, dtype=words.dtype, device=words.device)
        for c in range(3):
            away = away + (colour[..., :, None, c] - colours[..., None, :, c]).square()
        count = tent * shares[..., None, :, 0] / (1 + away / LIKE).square()
        summed, total = count @ there, count.sum(-1, keepdim=True)
        said = summed / total
    told = torch.cat([mine[..., : TOLD[0]], said, mine[..., TOLD[1] :]], -1)
    return torch.cat([told.flatten(-2), words[..., BINS * SURFACE :]], -1)


def told_by_overview(
    words: Tensor, overview: Tensor, scale: tuple[float | Tensor, float | Tensor], believed: float | Tensor = BELIEVED
) -> Tensor:
    """The definition of `overview`: words [N, h, w, WORDS] with what `overview` [N, H, W, WORDS] tells them, float32.

    `scale` is how many cells of the overview there are to one, down and across.
    """
    n, h, w, _ = words.shape
    _, rows, columns, _ = overview.shape
    words, overview = wide(words), wide(overview)
    mine = words[..., : BINS * SURFACE].view(n, h, w, BINS, SURFACE)
    theirs = overview[..., : BINS * SURFACE].reshape(n, rows, columns, BINS, SURFACE)
    shares = overview[..., BINS * SURFACE :].softmax(-1)
    colour, colours = mine[..., :3].sigmoid() * 2 - 1, theirs[..., :3].sigmoid() * 2 - 1

    def sides(length: int, cells: int, step: float | Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The overview's cells before and after the middle of each cell, and how much of each it takes."""
        at = ((torch.arange(length, device=words.device) + 0.5) * step - 0.5).clamp(0, cells - 1)
        low = at.floor()
        before = low.long()
        return (before, 1 - (at - low)), ((before + 1).clamp_max(cells - 1), at - low)

    said = torch.zeros(n, h, w, BINS, TOLD[1] - TOLD[0], dtype=words.dtype, device=words.device)
    total = torch.zeros(n, h, w, BINS, 1, dtype=words.dtype, device=words.device)
    for row, down in sides(h, rows, scale[0]):
        for column, across in sides(w, columns, scale[1]):
            there = theirs[:, row][:, :, column]
            away = (colour[..., :, None, :] - colours[:, row][:, :, column][..., None, :, :]).square().sum(-1)
            place = (down[:, None] * across)[None, ..., None, None] * shares[:, row][:, :, column][..., None, :]
            count = place / (1 + away / LIKE).square()
            said = said + count @ there[..., TOLD[0] : TOLD[1]]
            total = total + count.sum(-1, keepdim=True)
    own = mine[..., TOLD[0] : TOLD[1]]
    told = torch.cat([mine[..., : TOLD[0]], own + believed * (said / total - own), mine[..., TOLD[1] :]], -1)
    return torch.cat([told.flatten(-2), words[..., BINS * SURFACE :]], -1)


def remembered(words: Tensor, before: Tensor, motion: Tensor) -> Tensor:
    """The definition of `remember`: words [N, h, w, WORDS] of overviews with what those of the frame `before`
    [N, h, w, WORDS] tell them, float32. `motion` [N, 2, h, w]: (x, y) cells to where each cell's middle was."""
    n, h, w, _ = words.shape
    words, before, motion = wide(words), wide(before), wide(motion)
    mine = words[..., : BINS * SURFACE].view(n, h, w, BINS, SURFACE)
    theirs = before[..., : BINS * SURFACE].reshape(n, h, w, BINS, SURFACE)
    share, shares = (seen[..., BINS * SURFACE :].softmax(-1) for seen in (words, before))
    share = share.clamp_min(LEAST_SHARE)
    colour, colours = mine[..., :3].sigmoid() * 2 - 1, theirs[..., :3].sigmoid() * 2 - 1
    x = torch.arange(w, device=words.device) + motion[:, 0]
    y = torch.arange(h, device=words.device)[:, None] + motion[:, 1]
    known = (x >= -0.5) & (x <= w - 0.5) & (y >= -0.5) & (y <= h - 0.5)  # NaN is not
    x, y = (torch.where(known, at, 0).clamp(0, side - 1) for at, side in ((x, w), (y, h)))
    left, top = x.floor(), y.floor()
    frame = torch.arange(n, device=words.device)[:, None, None]

    own = mine[..., TOLD[0] : TOLD[1]]
    said, total = torch.zeros_like(own), torch.zeros_like(share)[..., None]
    for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
            at = (frame, row.long().clamp_max(h - 1), column.long().clamp_max(w - 1))
            away = (colour[..., :, None, :] - colours[at][..., None, :, :]).square().sum(-1)
            place = (known * down * across)[..., None, None] * shares[at][..., None, :]
            count = place / (1 + away / LIKE).square()
            said = said + count @ theirs[at][..., TOLD[0] : TOLD[1]]
            total = total + count.sum(-1, keepdim=True)
    told = (share[..., None] * own + REMEMBERED * said) / (share[..., None] + REMEMBERED * total)
    told = torch.cat([mine[..., : TOLD[0]], told, mine[..., TOLD[1] :]], -1)
    return torch.cat([told.flatten(-2), words[..., BINS * SURFACE :]], -1)


def _remember_reference(head: Tensor, before: Tensor, motion: Tensor) -> None:
    """`remembered` on what the head says in its packed order; writes into `head`."""
    matrices, detail, words = split_head(wide(head))
    told = remembered(words, split_head(wide(before))[2], motion)
    head.copy_(pack_head(matrices, detail, told))


def overview_reference(head: Tensor, coarse: Tensor, down: float, across: float) -> None:
    """`told_by_overview` on what the head says in its packed order, [N, h, w, HEAD_CHANNELS]; writes into `head`."""
    matrices, detail, words = split_head(wide(head))
    told = told_by_overview(words, split_head(wide(coarse))[2], (down, across))
    head.copy_(pack_head(matrices, detail, told))


def _agree_reference(head: Tensor) -> Tensor:
    """`agreed` on what the head says in its packed order, in its dtype."""
    matrices, detail, words = split_head(wide(head))
    return pack_head(matrices, detail, agreed(words)).to(head.dtype)


@jit
def _counts(theirs, red, green, blue, place):
    """What the readings of a cell of the overview count for others, [4, E], by their colours: each a sigmoid [E]."""
    red = tl.sigmoid(tl.load(theirs).to(tl.float32)) - red[None, :]
    green = tl.sigmoid(tl.load(theirs + 4).to(tl.float32)) - green[None, :]
    blue = tl.sigmoid(tl.load(theirs + 8).to(tl.float32)) - blue[None, :]
    share = tl.load(theirs + 116).to(tl.float32)
    share = tl.exp(share - tl.max(share, 0)[None, :])
    near = 1.0 + 400.0 * (red * red + green * green + blue * blue)  # 4 / LIKE: v is twice as wide as a colour
    return share * (place / tl.sum(share, 0))[None, :] / (near * near)


@jit
def _corners(y, x, h, w, HEAD: tl.constexpr):
    """Of the four of h x w cells around each place: where they lie [1, E], and how much of them it takes [E]."""
    top = tl.floor(y)
    left = tl.floor(x)
    below = y - top
    right = x - left
    above = top.to(tl.int32) * w
    under = tl.minimum(top.to(tl.int32) + 1, h - 1) * w
    before = left.to(tl.int32)
    behind = tl.minimum(before + 1, w - 1)
    places = (
        ((above + before) * HEAD)[None, :],
        ((above + behind) * HEAD)[None, :],
        ((under + before) * HEAD)[None, :],
        ((under + behind) * HEAD)[None, :],
    )
    parts = ((1.0 - below) * (1.0 - right), (1.0 - below) * right, below * (1.0 - right), below * right)
    return places, parts


@jit
def _agree_kernel(
    head_ptr,  # [N, h, w, HEAD]: colours and shares
    said_ptr,  # [N, h, w, HEAD]: what is said so far
    out_ptr,  # [N, h, w, HEAD]: what they agree on
    cells,
    h,
    w,
    STEP: tl.constexpr,
    HEAD: tl.constexpr,
    MADE: tl.constexpr,
    BM: tl.constexpr,
):
    frame = tl.program_id(1)
    number = tl.program_id(2)
    # Readings [E], as in the kernel below.
    e = tl.arange(0, BM * 4)
    keep = tl.program_id(0) * BM + e // 4 < cells
    cell = tl.minimum(tl.program_id(0) * BM + e // 4, cells - 1)
    begin = frame.to(tl.int64) * cells * HEAD + MADE
    mine = head_ptr + begin + cell * HEAD + e % 4
    red = tl.sigmoid(tl.load(mine).to(tl.float32))
    green = tl.sigmoid(tl.load(mine + 4).to(tl.float32))
    blue = tl.sigmoid(tl.load(mine + 8).to(tl.float32))
    row = cell // w
    column = cell % w
    number = 12 + number * 4  # TOLD
    readings = tl.arange(0, 4)[:, None]
    said = tl.zeros([BM * 4], tl.float32)
    total = tl.zeros([BM * 4], tl.float32)
    for tap in range(25):
        dy = tap // 5 - 2
        dx = tap % 5 - 2
        y = row + dy * STEP
        x = column + dx * STEP
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        tent = (3.0 - tl.abs(dy)) * (3.0 - tl.abs(dx)) * (1.0 / 9.0)
        at = (tl.where(inside, y * w + x, cell) * HEAD)[None, :] + readings
        count = _counts(head_ptr + begin + at, red, green, blue, tl.where(inside, tent, 0.0))
        said += tl.sum(count * tl.load(said_ptr + begin + at + number).to(tl.float32), 0)
        total += tl.sum(count, 0)
    out = out_ptr + begin + cell * HEAD + e % 4 + number
    tl.store(out, (said / total).to(out_ptr.dtype.element_ty), mask=keep)


@jit
def _overview_kernel(
    head_ptr,  # [N, h, w, HEAD]
    coarse_ptr,  # [N, rows, columns, HEAD]
    cells,
    w,
    rows,
    columns,
    down,
    across,
    HEAD: tl.constexpr,
    MADE: tl.constexpr,
    BM: tl.constexpr,
):
    frame = tl.program_id(1)
    first = tl.program_id(0) * BM
    # Readings [E]: four neighbours are those of a cell. Cells beyond the last are computed as the last, and not stored.
    e = tl.arange(0, BM * 4)
    keep = first + e // 4 < cells
    cell = tl.minimum(first + e // 4, cells - 1)
    mine = head_ptr + (frame.to(tl.int64) * cells + cell) * HEAD + MADE + e % 4
    red = tl.sigmoid(tl.load(mine).to(tl.float32))
    green = tl.sigmoid(tl.load(mine + 4).to(tl.float32))
    blue = tl.sigmoid(tl.load(mine + 8).to(tl.float32))

    # The four cells of the overview around each, and how much of them it takes.
    y = tl.minimum(tl.maximum(((cell // w).to(tl.float32) + 0.5) * down - 0.5, 0.0), rows - 1)
    x = tl.minimum(tl.maximum(((cell % w).to(tl.float32) + 0.5) * across - 0.5, 0.0), columns - 1)
    places, parts = _corners(y, x, rows, columns, HEAD)
    # Readings of the overview [4, E]: a thread holds all of a cell's for its own.
    theirs = coarse_ptr + frame.to(tl.int64) * rows * columns * HEAD + MADE + tl.arange(0, 4)[:, None]
    p0, p1, p2, p3 = theirs + places[0], theirs + places[1], theirs + places[2], theirs + places[3]
    c0 = _counts(p0, red, green, blue, parts[0])
    c1 = _counts(p1, red, green, blue, parts[1])
    c2 = _counts(p2, red, green, blue, parts[2])
    c3 = _counts(p3, red, green, blue, parts[3])
    part = (0.9 / tl.sum(c0 + c1 + c2 + c3, 0))[None, :]  # BELIEVED
    c0 *= part
    c1 *= part
    c2 *= part
    c3 *= part

    # What they count is known before what they say is read: number by number, of which none waits in a register.
    for number in tl.static_range(19):  # TOLD
        at = 12 + number * 4
        said = c0 * tl.load(p0 + at).to(tl.float32)
        said += c1 * tl.load(p1 + at).to(tl.float32)
        said += c2 * tl.load(p2 + at).to(tl.float32)
        said += c3 * tl.load(p3 + at).to(tl.float32)
        own = tl.load(mine + at).to(tl.float32)
        own += tl.sum(said, 0) - 0.9 * own
        tl.store(mine + at, own.to(head_ptr.dtype.element_ty), mask=keep)


@jit
def _remember_kernel(
    head_ptr,  # [N, h, w, HEAD]
    before_ptr,  # [N, h, w, HEAD]
    motion_ptr,  # [N, 2, h, w] cells
    cells,
    h,
    w,
    HEAD: tl.constexpr,
    MADE: tl.constexpr,
    BM: tl.constexpr,
):
    frame = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * BM
    # Readings [E], as in the kernel above.
    e = tl.arange(0, BM * 4)
    keep = first + e // 4 < cells
    cell = tl.minimum(first + e // 4, cells - 1)
    others = head_ptr + (frame * cells + cell) * HEAD + MADE
    mine = others + e % 4
    red = tl.sigmoid(tl.load(mine).to(tl.float32))
    green = tl.sigmoid(tl.load(mine + 4).to(tl.float32))
    blue = tl.sigmoid(tl.load(mine + 8).to(tl.float32))
    shares = tl.load(others[None, :] + 116 + tl.arange(0, 4)[:, None]).to(tl.float32)
    most = tl.max(shares, 0)
    share = tl.exp(tl.load(mine + 116).to(tl.float32) - most) / tl.sum(tl.exp(shares - most[None, :]), 0)
    share = tl.maximum(share, 1e-6)  # LEAST_SHARE

    moved = motion_ptr + frame * 2 * cells + cell
    x = (cell % w).to(tl.float32) + tl.load(moved)
    y = (cell // w).to(tl.float32) + tl.load(moved + cells)
    known = (x >= -0.5) & (x <= w - 0.5) & (y >= -0.5) & (y <= h - 0.5)  # NaN is not
    x = tl.minimum(tl.maximum(tl.where(known, x, 0.0), 0.0), w - 1)
    y = tl.minimum(tl.maximum(tl.where(known, y, 0.0), 0.0), h - 1)
    places, parts = _corners(y, x, h, w, HEAD)
    theirs = before_ptr + frame * cells * HEAD + MADE + tl.arange(0, 4)[:, None]
    p0, p1, p2, p3 = theirs + places[0], theirs + places[1], theirs + places[2], theirs + places[3]
    heeded = tl.where(known, 3.0, 0.0)  # REMEMBERED
    c0 = _counts(p0, red, green, blue, heeded * parts[0])
    c1 = _counts(p1, red, green, blue, heeded * parts[1])
    c2 = _counts(p2, red, green, blue, heeded * parts[2])
    c3 = _counts(p3, red, green, blue, heeded * parts[3])
    total = share + tl.sum(c0 + c1 + c2 + c3, 0)
    for number in tl.static_range(19):  # TOLD
        at = 12 + number * 4
        said = c0 * tl.load(p0 + at).to(tl.float32)
        said += c1 * tl.load(p1 + at).to(tl.float32)
        said += c2 * tl.load(p2 + at).to(tl.float32)
        said += c3 * tl.load(p3 + at).to(tl.float32)
        own = share * tl.load(mine + at).to(tl.float32) + tl.sum(said, 0)
        tl.store(mine + at, (own / total).to(head_ptr.dtype.element_ty), mask=keep)


# A reading a thread, as in `shade`.
_CONFIG = Config({"BM": 32}, 4, 1)


def agree_triton(head: Tensor) -> Tensor:
    """Launch the kernel of `agree` on a checked argument, once for each of `AGREED`."""
    n, h, w, channels = head.shape
    said = head
    # An overview has few cells: each of the 19 numbers has programs of its own.
    grid = (-(-h * w // _CONFIG.sizes["BM"]), n, TOLD[1] - TOLD[0])
    for step in AGREED:
        out = head.clone()
        args = {"head_ptr": head, "said_ptr": said, "out_ptr": out, "cells": h * w, "h": h, "w": w}
        launch(_agree_kernel, grid, args, {"STEP": step, "HEAD": channels, "MADE": MADE}, _CONFIG)
        said = out
    return said


@torch.library.custom_op("mirage::agree", mutates_args=(), schema="(Tensor head) -> Tensor")
def _agree_op(head: Tensor) -> Tensor:
    check("head", head, (None, None, None, HEAD_CHANNELS), (*FLOATS, torch.float64))
    return (agree_triton if on_triton(head) else _agree_reference)(head)


@_agree_op.register_fake
def _agree_fake(head: Tensor) -> Tensor:
    return torch.empty_like(head)


def agree(head: Tensor) -> Tensor:
    """Let what the head says of surfaces on few cells, [N, h, w, HEAD_CHANNELS], agree where colours are one.

    A new tensor of its dtype. Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return agree_triton(head)
    out: Tensor = torch.ops.mirage.agree(head)
    return out


def overview_triton(head: Tensor, coarse: Tensor, down: float, across: float) -> None:
    """Launch the kernel of `overview` on checked arguments."""
    n, h, w, channels = head.shape
    args = {
        "head_ptr": head, "coarse_ptr": coarse, "cells": h * w, "w": w, "rows": coarse.shape[1],
        "columns": coarse.shape[2], "down": float(down), "across": float(across),
    }  # fmt: skip
    grid = (-(-h * w // _CONFIG.sizes["BM"]), n)
    launch(_overview_kernel, grid, args, {"HEAD": channels, "MADE": MADE}, _CONFIG)


@torch.library.custom_op(
    "mirage::overview", mutates_args=("head",),
    schema="(Tensor(a!) head, Tensor coarse, float down, float across) -> ()",
)  # fmt: skip
def _op(head: Tensor, coarse: Tensor, down: float, across: float) -> None:
    check("head", head, (None, None, None, HEAD_CHANNELS), (*FLOATS, torch.float64))
    check("coarse", coarse, (head.shape[0], None, None, HEAD_CHANNELS), head.dtype, like=head)
    _, rows, columns, _ = coarse.shape
    require(rows > 0 and columns > 0, f"coarse has {rows}x{columns} cells; it must have some")
    require(down > 0 and across > 0, f"{down} x {across} cells of the overview to one of head: more than 0")
    (overview_triton if on_triton(head) else overview_reference)(head, coarse, down, across)


@_op.register_fake
def _fake(*_: Any) -> None:
    return None


def overview(head: Tensor, coarse: Tensor, scale: tuple[float, float]) -> Tensor:
    """Let what the head says of surfaces in `head` [N, h, w, HEAD_CHANNELS] heed the overview, in place; returns it.

    `coarse` [N, H, W, HEAD_CHANNELS] is what it says of the same frames as a whole, on few cells, in the same dtype;
    `scale` how many of those cells there are to one of `head`, down and across. Raises `KernelError` for what a kernel
    could not take.
    """
    if recording():
        overview_triton(head, coarse, *scale)
    else:
        torch.ops.mirage.overview(head, coarse, *scale)
    return head


def remember_triton(head: Tensor, before: Tensor, motion: Tensor) -> None:
    """Launch the kernel of `remember` on checked arguments."""
    n, h, w, channels = head.shape
    args = {"head_ptr": head, "before_ptr": before, "motion_ptr": motion, "cells": h * w, "h": h, "w": w}
    grid = (-(-h * w // _CONFIG.sizes["BM"]), n)
    launch(_remember_kernel, grid, args, {"HEAD": channels, "MADE": MADE}, _CONFIG)


@torch.library.custom_op(
    "mirage::remember", mutates_args=("head",), schema="(Tensor(a!) head, Tensor before, Tensor motion) -> ()"
)
def _remember_op(head: Tensor, before: Tensor, motion: Tensor) -> None:
    check("head", head, (None, None, None, HEAD_CHANNELS), (*FLOATS, torch.float64))
    check("before", before, tuple(head.shape), head.dtype, like=head)
    n, h, w, _ = head.shape
    check("motion", motion, (n, 2, h, w), torch.float32, like=head)
    (remember_triton if on_triton(head) else _remember_reference)(head, before, motion)


@_remember_op.register_fake
def _remember_fake(*_: Any) -> None:
    return None


def remember(head: Tensor, before: Tensor, motion: Tensor) -> Tensor:
    """Let what the head says of surfaces in an overview heed the overview before, in place; returns it.

    `head` and `before` [N, h, w, HEAD_CHANNELS] of one dtype, `before` finite; `motion` float32 [N, 2, h, w]: (x, y)
    cells to where the middle of each was in the frame before, NaN where that is unknown. Raises `KernelError` for what
    a kernel could not take.
    """
    if recording():
        remember_triton(head, before, motion)
    else:
        torch.ops.mirage.remember(head, before, motion)
    return head

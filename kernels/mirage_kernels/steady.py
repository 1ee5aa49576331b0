# mypy: disable-error-code="no-untyped-def"
"""steady: what the cells of an edit were changed by goes on, where their source is what it was; in place.

    change  = sum over readings of share (M anchor + t) + mean detail,   the cell's colour as a whole, in v
    alike   = known exp(-mean (colour - before's)^2 / (2 ALIKE^2)),      is its source what it was?
    sure    = ramp of (sum of alike / sum of known) over the frame,      nothing goes on after a cut
    t      += SHARE sure alike (before's change - change)

before [N, h, w, 7] is what the frame before left of each cell, carried along the motion: how its colour was changed,
its source's colour, and 1 where both are known. Two launches, for every cell asks the whole frame whether it goes on:
one of sums, in a fixed order, and one that moves twelve numbers of each edit.

Floor per cell in bf16: 512 bytes of its edit and 16 pixels, 48 bytes written; about 700 operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mirage_kernels.compose import EDIT_CHANNELS, pack_edit, split_edit
from mirage_kernels.frames import FrameLayout, frame_of, load_rgb, raw_to_unit, typed_view, unit_rgb, unpack_frame
from mirage_kernels.launch import FLOATS, Config, check, jit, launch, on_triton, recording, require, tl

__all__ = ["SETTLED", "change_of", "steadied", "steady", "steady_reference", "steady_triton"]

SETTLED = 7
"""Numbers kept of a cell: how its colour was changed (3) and its source's (3), in v, and 1 where that is known."""
SHARE = 0.75
"""How far a cell is drawn towards what it was."""
ALIKE = 0.08
"""A source that differs by so much, as the root of a mean square of v, counts 0.6 of one that is the same."""
STRANGE, KNOWN = 0.35, 0.5
"""Of a frame of which no more than the first is as it was nothing goes on, and all from the second on: cuts that nobody
told of have 0.00 to 0.31, frames that follow one another 0.58 and more, without motion 0.38 (looped scenes)."""
ABSURD = 4.0
"""Twice as far as colours lie apart: no frame leaves that."""


def change_of(matrices: Tensor, detail: Tensor, anchors: Tensor) -> Tensor:
    """By how much an edit changes the mean colour of each cell, as far as its readings tell: [N, h, w, 3] in v."""
    n, h, w, _ = matrices.shape
    maps, seen = matrices.view(n, h, w, 4, 3, 4), anchors.view(n, h, w, 4, 4)
    each = (maps[..., :3] * seen[..., None, :3]).sum(-1) + maps[..., 3]
    return (each * seen[..., 3:]).sum(3) + detail.reshape(n, h, w, 64, 3).mean(3)


def steadied(
    matrices: Tensor, detail: Tensor, anchors: Tensor, colour: Tensor, before: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw an edit's cells towards what they were changed to before: the definition of `steady`.

    All float32: `matrices`, `detail`, `anchors` of the edit, `colour` [N, h, w, 3] the mean v of each cell's source, of
    every second pixel of every second row, `before` [N, h, w, SETTLED]. Returns the matrices, and what is kept for the
    next frame, [N, h, w, SETTLED].
    """
    n, h, w, _ = matrices.shape
    change = change_of(matrices, detail, anchors)
    apart = (colour - before[..., 3:6]).square().mean(-1, keepdim=True)
    alike = torch.where(apart >= 0, before[..., 6:] * torch.exp(apart / (-2 * ALIKE**2)), 0.0)
    agree = alike.sum((1, 2, 3), keepdim=True) / before[..., 6:].sum((1, 2, 3), keepdim=True).clamp_min(1)
    believed = ((agree - STRANGE) * (1 / (KNOWN - STRANGE))).clamp(0, 1)
    moved = (SHARE * believed * alike) * (before[..., :3] - change)
    moved = torch.where(moved.abs() < ABSURD, moved, 0.0)  # nor is what is no number handed on
    maps = matrices.view(n, h, w, 4, 3, 4)
    maps = torch.cat([maps[..., :3], maps[..., 3:] + moved[..., None, :, None]], -1)
    return maps.reshape(matrices.shape), torch.cat([change + moved, colour, torch.ones_like(apart)], -1)


def steady_reference(
    frames: Tensor, layout: FrameLayout, rows: Tensor, columns: Tensor, edit: Tensor, before: Tensor, settled: Tensor
) -> None:
    """The definition of `steady` on a frame's bytes; writes into `edit` and `settled`."""
    n, h, w, _ = edit.shape
    unit = unit_rgb(unpack_frame(frames, layout, rows, columns), layout)
    colour = unit.view(n, h, 4, w, 4, 3).mean((2, 4)) * 2 - 1
    matrices, detail, anchors, pens = split_edit(edit)
    moved, kept = steadied(matrices.float(), detail.float(), anchors.float(), colour, before)
    settled.copy_(kept)
    edit.copy_(pack_edit(moved.to(edit.dtype), detail, anchors, pens))


@jit
def _steady_change_kernel(
    frame_ptr,  # elements of [N, size_bytes]
    rows_ptr,  # [4 h] int64
    columns_ptr,  # [4 w] int64
    edit_ptr,  # [N, h, w, EDIT]
    before_ptr,  # [N, h, w, 7] fp32
    settled_ptr,  # [N, h, w, 7] fp32: the change, the source's colour, and how alike it is
    sums_ptr,  # [N, 2, BLOCKS] fp32: of what is alike, and of what is known
    frame_stride,
    first,
    pitch,
    w,
    cells,
    blocks,
    KIND: tl.constexpr,
    BGR: tl.constexpr,
    LINEAR: tl.constexpr,
    EDIT: tl.constexpr,
    BM: tl.constexpr,
):
    frame = tl.program_id(1)
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    keep = cell < cells
    frame_ptr += frame.to(tl.int64) * frame_stride
    here = edit_ptr + (frame.to(tl.int64) * cells + cell) * EDIT
    kept = (frame.to(tl.int64) * cells + cell) * 7
    top = cell // w * 4
    left = cell % w * 4
    mean_r = tl.zeros([BM], tl.float32)
    mean_g = mean_r
    mean_b = mean_r
    for tap in range(16):
        y = tl.load(rows_ptr + top + tap // 4, mask=keep, other=0).to(tl.int32)
        x = tl.load(columns_ptr + left + tap % 4, mask=keep, other=0).to(tl.int32)
        r, g, b, _alpha = load_rgb(frame_ptr, first + y * pitch, x, keep, KIND, BGR)
        mean_r += raw_to_unit(r, KIND, LINEAR)
        mean_g += raw_to_unit(g, KIND, LINEAR)
        mean_b += raw_to_unit(b, KIND, LINEAR)
    mean_r = mean_r * 0.125 - 1.0
    mean_g = mean_g * 0.125 - 1.0
    mean_b = mean_b * 0.125 - 1.0

    pixel = tl.arange(0, 64)[None, :]
    fine = here[:, None] + 48 + pixel * 3
    change_r = tl.sum(tl.load(fine, mask=keep[:, None], other=0.0).to(tl.float32), 1) * (1.0 / 64.0)
    change_g = tl.sum(tl.load(fine + 1, mask=keep[:, None], other=0.0).to(tl.float32), 1) * (1.0 / 64.0)
    change_b = tl.sum(tl.load(fine + 2, mask=keep[:, None], other=0.0).to(tl.float32), 1) * (1.0 / 64.0)
    for bin in tl.static_range(4):
        seen = here + 240 + bin
        a_r = tl.load(seen, mask=keep, other=0.0).to(tl.float32)
        a_g = tl.load(seen + 4, mask=keep, other=0.0).to(tl.float32)
        a_b = tl.load(seen + 8, mask=keep, other=0.0).to(tl.float32)
        share = tl.load(seen + 12, mask=keep, other=0.0).to(tl.float32)
        at = here + bin * 4
        change_r += share * _made(at, a_r, a_g, a_b, keep)
        change_g += share * _made(at + 16, a_r, a_g, a_b, keep)
        change_b += share * _made(at + 32, a_r, a_g, a_b, keep)

    away_r = mean_r - tl.load(before_ptr + kept + 3, mask=keep, other=0.0)
    away_g = mean_g - tl.load(before_ptr + kept + 4, mask=keep, other=0.0)
    away_b = mean_b - tl.load(before_ptr + kept + 5, mask=keep, other=0.0)
    known = tl.load(before_ptr + kept + 6, mask=keep, other=0.0)
    apart = away_r * away_r + away_g * away_g + away_b * away_b
    # ALIKE; of a NaN neither is true.
    alike = tl.where(apart >= 0.0, known * tl.exp(apart * (-1.0 / (6.0 * 0.08 * 0.08))), 0.0)
    alike = tl.where(keep, alike, 0.0)
    out = settled_ptr + kept
    tl.store(out, change_r, mask=keep)
    tl.store(out + 1, change_g, mask=keep)
    tl.store(out + 2, change_b, mask=keep)
    tl.store(out + 3, mean_r, mask=keep)
    tl.store(out + 4, mean_g, mask=keep)
    tl.store(out + 5, mean_b, mask=keep)
    tl.store(out + 6, alike, mask=keep)
    sums = sums_ptr + frame * 2 * blocks + tl.program_id(0)
    tl.store(sums, tl.sum(alike, 0))
    tl.store(sums + blocks, tl.sum(known, 0))


@jit
def _made(at, r, g, b, keep):
    """What one row of a reading's transform makes of a colour."""
    made = tl.load(at, mask=keep, other=0.0).to(tl.float32) * r
    made += tl.load(at + 1, mask=keep, other=0.0).to(tl.float32) * g
    made += tl.load(at + 2, mask=keep, other=0.0).to(tl.float32) * b
    return made + tl.load(at + 3, mask=keep, other=0.0).to(tl.float32)


@jit
def _steady_move_kernel(
    edit_ptr,  # [N, h, w, EDIT]
    before_ptr,  # [N, h, w, 7] fp32
    settled_ptr,  # [N, h, w, 7] fp32, as the kernel before left it
    sums_ptr,  # [N, 2, BLOCKS] fp32
    cells,
    blocks,
    EDIT: tl.constexpr,
    BM: tl.constexpr,
    BR: tl.constexpr,
):
    frame = tl.program_id(1)
    alike_sum = tl.zeros([BR], tl.float32)
    known_sum = tl.zeros([BR], tl.float32)
    for start in tl.range(0, blocks, BR):
        run = start + tl.arange(0, BR)
        sums = sums_ptr + frame * 2 * blocks + run
        alike_sum += tl.load(sums, mask=run < blocks, other=0.0)
        known_sum += tl.load(sums + blocks, mask=run < blocks, other=0.0)
    agree = tl.sum(alike_sum, 0) / tl.maximum(tl.sum(known_sum, 0), 1.0)
    # STRANGE and KNOWN, and SHARE
    believed = 0.75 * tl.minimum(tl.maximum((agree - 0.35) * (1.0 / 0.15), 0.0), 1.0)
    cell = tl.program_id(0) * BM + tl.arange(0, BM)
    keep = cell < cells
    kept = (frame.to(tl.int64) * cells + cell) * 7
    alike = tl.load(settled_ptr + kept + 6, mask=keep, other=0.0)
    tl.store(settled_ptr + kept + 6, tl.full([BM], 1.0, tl.float32), mask=keep)
    for c in tl.static_range(3):
        change = tl.load(settled_ptr + kept + c, mask=keep, other=0.0)
        moved = believed * alike * (tl.load(before_ptr + kept + c, mask=keep, other=0.0) - change)
        moved = tl.where(tl.abs(moved) < 4.0, moved, 0.0)  # ABSURD; of a NaN that is not true
        tl.store(settled_ptr + kept + c, change + moved, mask=keep)
        at = edit_ptr + (frame.to(tl.int64) * cells + cell) * EDIT + c * 16 + 3
        for bin in tl.static_range(4):
            offset = tl.load(at + bin * 4, mask=keep, other=0.0).to(tl.float32) + moved
            tl.store(at + bin * 4, offset.to(edit_ptr.dtype.element_ty), mask=keep)


_CHANGE = Config({"BM": 32}, 4, 1)
_MOVE = Config({"BM": 128, "BR": 256}, 4, 1)


def steady_triton(
    frames: Tensor, layout: FrameLayout, rows: Tensor, columns: Tensor, edit: Tensor, before: Tensor, settled: Tensor
) -> None:
    """Launch the kernels of `steady` on checked arguments."""
    n, h, w, channels = edit.shape
    elements, stride, first, pitch = typed_view(frames, layout, words=True)
    cells = h * w
    blocks = -(-cells // _CHANGE.sizes["BM"])
    sums = torch.empty(n, 2, blocks, device=edit.device)
    shared: dict[str, Any] = {
        "edit_ptr": edit, "before_ptr": before, "settled_ptr": settled, "sums_ptr": sums, "cells": cells,
        "blocks": blocks,
    }  # fmt: skip
    args = {
        "frame_ptr": elements, "rows_ptr": rows, "columns_ptr": columns, "frame_stride": stride, "first": first,
        "pitch": pitch, "w": w, **shared,
    }  # fmt: skip
    constants = {"KIND": layout.kind, "BGR": layout.format == "bgra8", "LINEAR": layout.linear, "EDIT": channels}
    launch(_steady_change_kernel, (blocks, n), args, constants, _CHANGE)
    launch(_steady_move_kernel, (-(-cells // _MOVE.sizes["BM"]), n), shared, {"EDIT": channels}, _MOVE)


@torch.library.custom_op(
    "mirage::steady", mutates_args=("edit", "settled"),
    schema="(Tensor frames, str format, int height, int width, int pitch_bytes, bool flipped, bool linear, "
    "Tensor rows, Tensor columns, Tensor(a!) edit, Tensor before, Tensor(b!) settled) -> ()",
)  # fmt: skip
def _op(
    frames: Tensor, format: Any, height: int, width: int, pitch_bytes: int, flipped: bool, linear: bool, rows: Tensor,
    columns: Tensor, edit: Tensor, before: Tensor, settled: Tensor,
) -> None:  # fmt: skip
    layout = FrameLayout(format, height, width, pitch_bytes, flipped, linear)
    frame_of(frames, layout)
    n = frames.shape[0]
    check("edit", edit, (n, None, None, EDIT_CHANNELS), FLOATS, like=frames)
    _, h, w, _ = edit.shape
    check("rows", rows, (4 * h,), torch.int64, like=frames)
    check("columns", columns, (4 * w,), torch.int64, like=frames)
    check("before", before, (n, h, w, SETTLED), torch.float32, like=frames)
    check("settled", settled, (n, h, w, SETTLED), torch.float32, like=frames)
    require(before.data_ptr() != settled.data_ptr(), "before and settled are one tensor: carry what was kept first")
    (steady_triton if on_triton(frames) else steady_reference)(frames, layout, rows, columns, edit, before, settled)


@_op.register_fake
def _fake(*_: Any) -> None:
    return None


def steady(
    frames: Tensor, layout: FrameLayout, rows: Tensor, columns: Tensor, edit: Tensor, before: Tensor, settled: Tensor
) -> Tensor:
    """Let what the cells of `edit` [N, h, w, EDIT_CHANNELS] were changed by go on, in place, and return it.

    `frames` uint8 [N, size_bytes] is the source, of which each cell is known by 4x4 pixels: those at `rows` [4 h] and
    `columns` [4 w] (int64, from the upper left, inside the frame). `before` fp32 [N, h, w, SETTLED] is what the frame
    before left, carried to where things are now, its last number 0 where that is not known; what this frame leaves is
    written into `settled`, of the same shape. Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        steady_triton(frames, layout, rows, columns, edit, before, settled)
        return edit
    shape = (layout.format, layout.height, layout.width, layout.pitch_bytes, layout.flipped, layout.linear)
    torch.ops.mirage.steady(frames, *shape, rows, columns, edit, before, settled)
    return edit

"""Error correction from frame to frame: what a cell is changed by goes on along the motion, where its source does.

What the network believes of a wall's light changes a little with every step of the camera, and the wall flickers. Where
a cell's source is what it was where the motion says that it comes from, its colour as a whole is drawn towards what it
was changed to there (blind temporal consistency, Bonneel et al. 2015, with the game's own motion in place of flow). The
rest of the edit, edges and texture, is this frame's own; where the source has changed, all of it is. Nothing is learned
and nothing is kept but seven numbers a cell, so an error is gone after some frames, whatever it was.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirage_kernels.steady import SETTLED, change_of
from mirage_kernels.steady import steadied as steadied_cells
from mirage_plugin.model.crew import crew_of
from mirage_plugin.model.memory import warp_state
from mirage_plugin.model.network import CELL

__all__ = ["SETTLED", "Steady", "carried", "change_of", "steadied", "steady_cells"]

Steady = tuple[Tensor, Tensor]
"""Matrices [N, h, w, 48], and what is kept for the next frame [N, h, w, SETTLED]."""


def carried(settled: Tensor, motion: Tensor) -> Tensor:
    """Move what is kept of cells along: `settled` [N, h, w, SETTLED], `motion` [N, 2, h, w] in working pixels to where
    each cell's middle was, NaN for unknown."""
    moved = warp_state(settled, motion, torch.ones_like(motion[:, :1]), CELL)
    return torch.cat([moved.state[..., :6], moved.state[..., 6:] * moved.valid], -1)


def steadied(
    matrices: Tensor, detail: Tensor, anchors: Tensor, colour: Tensor, settled: Tensor, motion: Tensor
) -> Steady:
    """Draw an edit's cells towards what they were changed to before, as `mirage_kernels.steady` defines it; `settled`
    and `motion` as in `carried`."""
    return steadied_cells(matrices, detail, anchors, colour, carried(settled, motion))


@functools.cache
def _load() -> Any:
    """`mirage_steady` of `steady.c`, or None."""
    try:
        from mirage_plugin.model.native import library

        steady = library("steady").mirage_steady
    except (ModuleNotFoundError, OSError, subprocess.SubprocessError):
        return None
    number, pointer = ctypes.c_int, ctypes.c_void_p
    steady.argtypes, steady.restype = [pointer, number, number, number, number, *[pointer] * 8], None
    return steady


Floats = NDArray[np.float32]


def steady_cells(
    edit: tuple[Floats, ...], cells: NDArray[np.uint8], settled: Floats, motion: Floats, threads: int = 1
) -> tuple[tuple[Floats, ...], Floats]:
    """`steadied` for one frame on the processor: its edit as it stands in the engine, [h, w, ...] each, `cells`
    [h, w, 192], `settled` [h, w, SETTLED] and `motion` [2, h, w]; returns the edit and what is kept."""
    matrices, detail, anchors = edit[:3]
    steady = _load()
    if steady is None:
        pixels = cells.reshape(*cells.shape[:2], CELL, CELL, 3)[:, :, ::2, ::2]
        colour = pixels.mean((2, 3), dtype=np.float32) * np.float32(2 / 255) - 1
        given = (matrices, detail, anchors, colour, settled, motion)
        out = steadied(*(torch.from_numpy(part)[None] for part in given))
        return (out[0][0].numpy(), *edit[1:]), out[1][0].numpy()
    moved, kept = matrices.copy(), np.empty_like(settled)
    parts = [np.ascontiguousarray(part) for part in (motion, cells, detail, anchors, settled)]
    h, w = cells.shape[:2]
    told = np.empty((h, 2), np.float32)
    crew_of(threads)(steady, 2, h, w, *(part.ctypes.data for part in (*parts, moved, kept, told)), keep=told)
    return (moved, *edit[1:]), kept

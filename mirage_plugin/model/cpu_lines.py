"""The lines of a frame on the processor: `lines.c`, or the definitions of `mirage_kernels.lines` without a compiler.

The same as `frame_lines` in network.py, in bytes: what `compose_pixels` draws with an edit's pens.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirage_kernels.lines import (
    colour_lines_of,
    depth_lines_reference,
    line_points,
    line_shares,
    middles,
    trace_lines_reference,
)
from mirage_plugin.model.crew import crew_of
from mirage_plugin.model.native import library

__all__ = ["colour_lines", "depth_lines"]

Bytes = NDArray[np.uint8]


@functools.cache
def _load() -> Any:
    """The compiled functions, or None."""
    try:
        lines = library("lines")
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, number, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    lines.mirage_depth_lines.argtypes = [
        pointer, number, number, pointer, ctypes.c_ssize_t, pointer, pointer, number, number, real, pointer, pointer,
    ]  # fmt: skip
    lines.mirage_colour_lines.argtypes = [
        pointer, number, number, pointer, number, number, real, pointer, pointer, pointer,
    ]  # fmt: skip
    return lines


@functools.lru_cache(maxsize=8)
def _places(points: int, pixels: int) -> NDArray[np.int32] | None:
    """The pixel in the middle of each point; None where they are the same."""
    if points == pixels:
        return None
    return middles(points, pixels).numpy().astype(np.int32)


def depth_lines(depth: NDArray[np.float32], width: float, threads: int = 1) -> Bytes:
    """The lines of depth [H, W] in metres as wide as a style draws them: [2, *line_points(H, W)], dark and shining."""
    points = line_points(*depth.shape)
    rows, columns = (_places(few, many) for few, many in zip(points, depth.shape, strict=True))
    out: Bytes = np.empty((2, *points), np.uint8)
    lines = _load()
    if lines is None:
        chosen = depth if rows is None or columns is None else depth[rows][:, columns]
        found = depth_lines_reference(torch.from_numpy(np.ascontiguousarray(chosen))[None, None])
        return _bytes(trace_lines_reference(found, torch.tensor([width]))[0])
    if depth.strides[1] != 4 or depth.strides[0] % 4:
        depth = np.ascontiguousarray(depth)
    at = [None if place is None else place.ctypes.data for place in (rows, columns)]
    if crew_of(threads)(
        lines.mirage_depth_lines, 1,
        depth.ctypes.data, depth.strides[0] // 4, *at, *points, width, out[0].ctypes.data, out[1].ctypes.data,
    ):  # fmt: skip
        raise MemoryError("no memory to find a frame's lines")
    return out


def colour_lines(cells: Bytes, width: float, threads: int = 1) -> tuple[Bytes, NDArray[np.float32]]:
    """Where colours part in a working frame, [h, w, 192]: lines [2, 8h, 8w] as `depth_lines`, and the shares of each
    cell that they cover [h, w, 2]."""
    h, w, _ = cells.shape
    lines = _load()
    if lines is None:
        pixels = torch.from_numpy(cells).view(h, w, 8, 8, 3).permute(4, 0, 2, 1, 3).reshape(1, 3, 8 * h, 8 * w)
        traced = trace_lines_reference(colour_lines_of(pixels.float() / 255), torch.tensor([width]))
        return _bytes(traced[0]), line_shares(traced)[0].numpy()
    out: Bytes = np.empty((2, 8 * h, 8 * w), np.uint8)
    shares = np.empty((h, w, 2), np.float32)
    if crew_of(threads)(
        lines.mirage_colour_lines, 2,
        cells.ctypes.data, h, w, width, out[0].ctypes.data, out[1].ctypes.data, shares.ctypes.data,
    ):  # fmt: skip
        raise MemoryError("no memory to find a frame's lines")
    return out, shares


def _bytes(traced: torch.Tensor) -> Bytes:
    out: Bytes = (traced * 255 + 0.5).to(torch.uint8).numpy()
    return out

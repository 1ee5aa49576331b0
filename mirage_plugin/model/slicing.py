"""The CPU's way to slice a grid of colour transforms: one pass, forwards and backwards, compiled by numba.

`torch` would write the 48 interpolated coefficients of every pixel to memory and read them back several times;
that is two thirds of a training step on a CPU. Same mathematics as `network.slice_matrices`, its definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mirage_kernels.compose import SIMILAR

__all__ = ["SliceMatrices"]


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _axis(length: int, cells: int) -> Any:
    """Where each pixel falls between cell centres (half-pixel convention): lower, upper index and weight."""
    low, high = np.empty(length, np.int64), np.empty(length, np.int64)
    part = np.empty(length, np.float32)
    for i in range(length):
        at = (i + 0.5) * cells / length - 0.5
        at = max(at, 0.0)
        first = min(int(at), cells - 1)
        low[i], high[i] = first, min(first + 1, cells - 1)
        part[i] = min(at - first, 1.0)
    return low, high, part


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _shares(v: Any, colours: Any, place: Any, shares: Any) -> None:
    """What each of the four cells around a pixel counts: `place` (image, y, x, two rows, two columns, two parts)."""
    i, y, x, y0, y1, x0, x1, fy, fx = place
    one = np.float32(1.0)
    total = np.float32(0.0)
    for k in range(4):
        row, column = (y0 if k < 2 else y1), (x1 if k & 1 else x0)
        away = np.float32(0.0)
        for c in range(3):
            difference = v[i, c, y, x] - colours[i, c, row, column]
            away += difference * difference
        share = (one - fy if k < 2 else fy) * (fx if k & 1 else one - fx) / (one + away * np.float32(1 / SIMILAR))
        shares[k] = share
        total += share
    for k in range(4):
        shares[k] /= total


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _forward(v: Any, grid: Any, weights: Any, colours: Any, out: Any) -> None:
    n, _, height, width = v.shape
    _, h, w, size = grid.shape
    bins = size // 12
    top, bottom, fy = _axis(height, h)
    left, right, fx = _axis(width, w)
    matrix, shares = np.empty(12, np.float32), np.empty(4, np.float32)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                _shares(v, colours, (i, y, x, top[y], bottom[y], left[x], right[x], fy[y], fx[x]), shares)
                for c in range(12):
                    matrix[c] = 0.0
                for k in range(4):
                    row, column = (top[y] if k < 2 else bottom[y]), (right[x] if k & 1 else left[x])
                    for b in range(bins):
                        part = shares[k] * weights[i, b, y, x]
                        for c in range(12):
                            matrix[c] += part * grid[i, row, column, b * 12 + c]
                r, g, u = v[i, 0, y, x], v[i, 1, y, x], v[i, 2, y, x]
                for c in range(3):
                    out[i, c, y, x] = (
                        matrix[c * 4] * r + matrix[c * 4 + 1] * g + matrix[c * 4 + 2] * u + matrix[c * 4 + 3]
                    )


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _backward(
    v: Any, grid: Any, weights: Any, colours: Any, slope: Any, grid_slope: Any, weight_slope: Any
) -> None:
    n, _, height, width = v.shape
    _, h, w, size = grid.shape
    bins = size // 12
    top, bottom, fy = _axis(height, h)
    left, right, fx = _axis(width, w)
    outer, shares = np.empty(12, np.float32), np.empty(4, np.float32)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                _shares(v, colours, (i, y, x, top[y], bottom[y], left[x], right[x], fy[y], fx[x]), shares)
                for c in range(3):
                    s = slope[i, c, y, x]
                    outer[c * 4] = s * v[i, 0, y, x]
                    outer[c * 4 + 1] = s * v[i, 1, y, x]
                    outer[c * 4 + 2] = s * v[i, 2, y, x]
                    outer[c * 4 + 3] = s
                for b in range(bins):
                    weight_slope[i, b, y, x] = 0.0
                for k in range(4):
                    row, column = (top[y] if k < 2 else bottom[y]), (right[x] if k & 1 else left[x])
                    for b in range(bins):
                        total = np.float32(0.0)
                        part = shares[k] * weights[i, b, y, x]
                        for c in range(12):
                            total += outer[c] * grid[i, row, column, b * 12 + c]
                            grid_slope[i, row, column, b * 12 + c] += outer[c] * part
                        weight_slope[i, b, y, x] += shares[k] * total


class SliceMatrices(torch.autograd.Function):
    """`(v [N,3,H,W], grid [N,h,w,12*bins], weights [N,bins,H,W], colours [N,3,h,w]) -> change [N,3,H,W]`, float32 on
    the CPU.

    There is no gradient for `v` and `colours`: they are the source.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, grid: Tensor, weights: Tensor, colours: Tensor) -> Tensor:
        """See the class."""
        v, grid, weights, colours = (each.detach().float().contiguous() for each in (v, grid, weights, colours))
        out = torch.empty_like(v)
        _forward(v.numpy(), grid.numpy(), weights.numpy(), colours.numpy(), out.numpy())
        ctx.save_for_backward(v, grid, weights, colours)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor, Tensor, None]:
        """See the class."""
        v, grid, weights, colours = ctx.saved_tensors
        grid_slope, weight_slope = torch.zeros_like(grid), torch.empty_like(weights)
        _backward(v.numpy(), grid.numpy(), weights.numpy(), colours.numpy(), slope.float().contiguous().numpy(),
                  grid_slope.numpy(), weight_slope.numpy())  # fmt: skip
        return None, grid_slope, weight_slope, None

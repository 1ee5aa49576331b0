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

__all__ = ["SliceMatrices"]


@njit(cache=True, fastmath=True, nogil=True)
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


@njit(cache=True, fastmath=True, nogil=True)
def _forward(v: Any, grid: Any, weights: Any, out: Any) -> None:
    n, _, height, width = v.shape
    _, h, w, size = grid.shape
    bins = size // 12
    top, bottom, fy = _axis(height, h)
    left, right, fx = _axis(width, w)
    row = np.empty((w, size), np.float32)
    matrix = np.empty(12, np.float32)
    for i in range(n):
        for y in range(height):
            for x in range(w):
                for c in range(size):
                    row[x, c] = (
                        grid[i, top[y], x, c] + (grid[i, bottom[y], x, c] - grid[i, top[y], x, c]) * fy[y]
                    )
            for x in range(width):
                x0, x1, f = left[x], right[x], fx[x]
                for c in range(12):
                    matrix[c] = 0.0
                for b in range(bins):
                    k = weights[i, b, y, x]
                    for c in range(12):
                        a = row[x0, b * 12 + c]
                        matrix[c] += k * (a + (row[x1, b * 12 + c] - a) * f)
                r, g, u = v[i, 0, y, x], v[i, 1, y, x], v[i, 2, y, x]
                for c in range(3):
                    out[i, c, y, x] = (
                        matrix[c * 4] * r + matrix[c * 4 + 1] * g + matrix[c * 4 + 2] * u + matrix[c * 4 + 3]
                    )


@njit(cache=True, fastmath=True, nogil=True)
def _backward(v: Any, grid: Any, weights: Any, slope: Any, grid_slope: Any, weight_slope: Any) -> None:
    n, _, height, width = v.shape
    _, h, w, size = grid.shape
    bins = size // 12
    top, bottom, fy = _axis(height, h)
    left, right, fx = _axis(width, w)
    row, row_slope = np.empty((w, size), np.float32), np.empty((w, size), np.float32)
    outer = np.empty(12, np.float32)
    for i in range(n):
        for y in range(height):
            for x in range(w):
                for c in range(size):
                    row[x, c] = (
                        grid[i, top[y], x, c] + (grid[i, bottom[y], x, c] - grid[i, top[y], x, c]) * fy[y]
                    )
                    row_slope[x, c] = 0.0
            for x in range(width):
                x0, x1, f = left[x], right[x], fx[x]
                for c in range(3):
                    s = slope[i, c, y, x]
                    outer[c * 4] = s * v[i, 0, y, x]
                    outer[c * 4 + 1] = s * v[i, 1, y, x]
                    outer[c * 4 + 2] = s * v[i, 2, y, x]
                    outer[c * 4 + 3] = s
                for b in range(bins):
                    k = weights[i, b, y, x]
                    total = np.float32(0.0)
                    for c in range(12):
                        a = row[x0, b * 12 + c]
                        total += outer[c] * (a + (row[x1, b * 12 + c] - a) * f)
                        part = outer[c] * k
                        row_slope[x1, b * 12 + c] += part * f
                        row_slope[x0, b * 12 + c] += part * (1 - f)
                    weight_slope[i, b, y, x] = total
            for x in range(w):
                for c in range(size):
                    grid_slope[i, bottom[y], x, c] += row_slope[x, c] * fy[y]
                    grid_slope[i, top[y], x, c] += row_slope[x, c] * (1 - fy[y])


class SliceMatrices(torch.autograd.Function):
    """`(v [N,3,H,W], grid [N,h,w,12*bins], weights [N,bins,H,W]) -> change [N,3,H,W]`, float32 on the CPU.

    There is no gradient for `v`: it is the source.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
        """See the class."""
        v, grid, weights = v.float().contiguous(), grid.float().contiguous(), weights.float().contiguous()
        out = torch.empty_like(v)
        _forward(v.numpy(), grid.detach().numpy(), weights.detach().numpy(), out.numpy())
        ctx.save_for_backward(v, grid, weights)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor, Tensor]:
        """See the class."""
        v, grid, weights = ctx.saved_tensors
        grid_slope, weight_slope = torch.zeros_like(grid), torch.empty_like(weights)
        _backward(v.numpy(), grid.numpy(), weights.numpy(), slope.float().contiguous().numpy(),
                  grid_slope.numpy(), weight_slope.numpy())  # fmt: skip
        return None, grid_slope, weight_slope

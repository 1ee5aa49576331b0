"""The CPU's way to slice a grid of readings, forwards and backwards, in C (`slicing.c`): `network.slice_readings`."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mirage_plugin.model.native import library

__all__ = ["SliceReadings"]


def _call(name: str, tensors: tuple[Tensor, ...]) -> None:
    """Call a function of `slicing.c`; the first tensor is v [N, 3, H, W], the second the matrices [N, h, w, 48]."""
    n, _, height, width = tensors[0].shape
    function = getattr(library("slicing"), name)
    function.argtypes = [*[ctypes.c_void_p] * len(tensors), *[ctypes.c_int] * 5]
    function(*(tensor.data_ptr() for tensor in tensors), n, height, width, *tensors[1].shape[1:3])


class SliceReadings(torch.autograd.Function):
    """`(v [N, 3, H, W], matrices [N, h, w, 48], anchors [N, h, w, 16]) -> change [N, 3, H, W]`, float32 on the CPU.

    There is no gradient for `v`: it is the source. Raises `OSError` or `subprocess.SubprocessError` where the C file
    cannot be compiled.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, matrices: Tensor, anchors: Tensor) -> Tensor:
        """See the class."""
        v, matrices, anchors = (each.detach().float().contiguous() for each in (v, matrices, anchors))
        out = torch.empty_like(v)
        _call("mirage_slice", (v, matrices, anchors, out))
        ctx.save_for_backward(v, matrices, anchors, out)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor, Tensor]:
        """See the class."""
        v, matrices, anchors, out = ctx.saved_tensors
        slopes = torch.zeros_like(matrices), torch.zeros_like(anchors)
        _call("mirage_slice_back", (v, matrices, anchors, out, slope.float().contiguous(), *slopes))
        return None, *slopes

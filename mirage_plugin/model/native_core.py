"""`core.c`, the network on a processor's matrix unit: `NativeCore` computes what `Core.forward` does.

It is there in seconds where PyTorch's compiler takes minutes. The weights are packed once, when it is made.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_plugin.model.core import Core, CoreInput, CoreOutput
from mirage_plugin.model.native import library
from mirage_plugin.model.network import BINS, Block, Edit

__all__ = ["NativeCore"]


class _Linear(ctypes.Structure):
    _fields_ = [
        ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("inputs", ctypes.c_int), ("outputs", ctypes.c_int),
    ]  # fmt: skip


class _Block(ctypes.Structure):
    _fields_ = [("taps", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("expand", _Linear), ("project", _Linear)]


_LAYERS = ("stem", "down1", "down2", "up2", "up1", "trust", "into", "keep", "candidate", "detail")


class _Network(ctypes.Structure):
    _fields_ = [
        ("widths", ctypes.c_int32 * 3), ("depths", ctypes.c_int32 * 5), ("hidden", ctypes.c_int32 * 3),
        ("state", ctypes.c_int32), ("maps", ctypes.c_int32),
        *((name, _Linear) for name in _LAYERS),
        ("head", ctypes.c_void_p), ("head_bias", ctypes.c_void_p), ("mix", ctypes.c_void_p),
        ("mix_bias", ctypes.c_void_p), ("blocks", ctypes.POINTER(_Block)),
    ]  # fmt: skip


def _load() -> Any:
    lib = library("core")
    pointer, number = ctypes.c_void_p, ctypes.c_int
    lib.mirage_core_bytes.argtypes, lib.mirage_core_bytes.restype = [pointer, number, number], ctypes.c_size_t
    lib.mirage_core_unit.argtypes, lib.mirage_core_unit.restype = [], number
    lib.mirage_core.argtypes, lib.mirage_core.restype = [pointer, number, number, *[pointer] * 12], None
    if not lib.mirage_core_unit():
        raise OSError("the operating system does not give the processor's matrix unit away")
    return lib


class NativeCore:
    """A tier's core in C, for one thread; called as the functions of `load_compiled` are."""

    def __init__(self, core: Core) -> None:
        """Pack the weights of a `Core` in float32.

        Raises `OSError` or `subprocess.SubprocessError` where `core.c` cannot be built or there is no such unit.
        """
        self._library = _load()
        self._kept: list[Any] = []
        net, tier = core.net, core.net.tier
        if core.dtype != torch.float32:
            raise ValueError("the weights are packed from float32")
        blocks = [block for stage in net.stages for block in stage]  # type: ignore[attr-defined]
        table = (_Block * len(blocks))(*(self._block(block) for block in blocks))
        self._kept.append(table)
        memory = net.memory
        stem = torch.cat([core.byte_both, core.lift, core.planes_weight], 1)
        layers = {
            "stem": (stem, core.bias_both), "detail": (net.head_detail.weight, net.head_detail.bias),
            **{name: (layer.weight, layer.bias) for name, layer in (
                ("down1", net.down1), ("down2", net.down2), ("up2", net.up2), ("up1", net.up1), ("trust", memory.trust),
                ("into", memory.into), ("keep", memory.keep), ("candidate", memory.candidate),
            )},
        }  # fmt: skip
        self._network = _Network(
            tier.widths, tier.depths, tuple(width * tier.expand for width in tier.widths), tier.state,
            net.head_mix.out_features // BINS, *(self._linear(*layers[name]) for name in _LAYERS),
            self._floats(net.head_matrices.weight), self._floats(net.head_matrices.bias),
            self._floats(net.head_mix.weight), self._floats(net.head_mix.bias), table,
        )  # fmt: skip
        self._scratch: dict[tuple[int, int], np.ndarray[Any, np.dtype[np.uint8]]] = {}

    def _floats(self, tensor: Tensor) -> int:
        """The address of a tensor's numbers as float32, which stay as long as this does."""
        array = tensor.detach().float().contiguous().numpy().copy()
        self._kept.append(array)
        return int(array.ctypes.data)

    def _linear(self, weight: Tensor, bias: Tensor) -> _Linear:
        """Pack a layer [outputs, inputs]: 16 outputs by 32 inputs at a time, as 16 rows of 16 pairs of inputs."""
        outputs, inputs = weight.shape
        tiles, steps = -(-outputs // 16), -(-inputs // 32)
        wide = torch.zeros(tiles * 16, steps * 32)
        wide[:outputs, :inputs] = weight.detach().float()
        packed = wide.view(tiles, 16, steps, 16, 2).permute(0, 2, 3, 1, 4).contiguous().to(torch.bfloat16)
        array = packed.view(torch.int16).numpy().copy()
        self._kept.append(array)
        filled = torch.zeros(tiles * 16)
        filled[:outputs] = bias.detach().float()
        return _Linear(array.ctypes.data, self._floats(filled), inputs, outputs)

    def _block(self, block: Block) -> _Block:
        taps = block.depthwise.weight.detach().view(block.channels, 25).T
        assert block.depthwise.bias is not None
        return _Block(
            self._floats(taps), self._floats(block.depthwise.bias),
            self._linear(block.expand.weight, block.expand.bias),
            self._linear(block.project.weight, block.project.bias),
        )  # fmt: skip

    def _memory(self, rows: int, columns: int) -> int:
        if (rows, columns) not in self._scratch:
            size = self._library.mirage_core_bytes(ctypes.byref(self._network), rows, columns)
            self._scratch[rows, columns] = np.zeros(size + 64, np.uint8)
        return -(-int(self._scratch[rows, columns].ctypes.data) // 64) * 64

    def __call__(self, given: CoreInput) -> CoreOutput:
        """Predict y0 at noise level 1; `given` on the processor, its `film` of any float dtype."""
        rows, columns = given.cells.shape[1:3]
        dtypes = (torch.uint8, torch.float32, torch.float32, torch.int8, torch.float32, torch.float32, torch.float32)
        tensors = [tensor.to(dtype).contiguous() for tensor, dtype in zip(given, dtypes, strict=True)]
        matrices, detail = torch.empty(1, rows, columns, BINS * 12), torch.empty(1, rows, columns, 192)
        stored, health = torch.empty_like(tensors[3]), torch.empty(5)
        self._library.mirage_core(
            ctypes.byref(self._network), rows, columns, *(tensor.data_ptr() for tensor in tensors),
            self._memory(rows, columns), matrices.data_ptr(), detail.data_ptr(), stored.data_ptr(), health.data_ptr(),
        )  # fmt: skip
        return CoreOutput(Edit(matrices, detail), stored, health)

"""`core.c`, the network in C for this processor: `NativeCore` computes what `Core.forward` does.

It is there in seconds where PyTorch's compiler takes minutes. The weights are packed once, when it is made: for the
processor's matrix unit as bf16 where it has one, else for its vectors, as 16-bit integers where it multiplies those
faster than float32.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_kernels.shade import BINS, STYLE_NUMBERS, WORDS
from mirage_plugin.model.core import Core, CoreInput, CoreOutput
from mirage_plugin.model.crew import MAX_THREADS, crew_of
from mirage_plugin.model.native import library
from mirage_plugin.model.network import Block, Edit

__all__ = ["NUMBERS", "NativeCore", "whole_weights"]


class _Linear(ctypes.Structure):
    _fields_ = [
        ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("inputs", ctypes.c_int),
        ("outputs", ctypes.c_int),
    ]  # fmt: skip


class _Block(ctypes.Structure):
    _fields_ = [("taps", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("expand", _Linear), ("project", _Linear)]


_LAYERS = ("stem", "down1", "down2", "up2", "up1", "trust", "into", "keep", "candidate", "head")


class _Network(ctypes.Structure):
    _fields_ = [
        ("widths", ctypes.c_int32 * 3), ("depths", ctypes.c_int32 * 5), ("hidden", ctypes.c_int32 * 3),
        ("state", ctypes.c_int32), *((name, _Linear) for name in _LAYERS), ("blocks", ctypes.POINTER(_Block)),
    ]  # fmt: skip


NUMBERS = ("fp32", "bf16", "int16")
"""What products take, by the number that `mirage_core_layout` gives."""
_ONLY = {
    None: (), "bf16": (), "int16": ("-DMIRAGE_VECTORS_ONLY",),
    "fp32": ("-DMIRAGE_VECTORS_ONLY", "-DMIRAGE_FLOATS_ONLY"),
}  # fmt: skip


def _load(numbers: str | None) -> Any:
    lib = library("core", *_ONLY[numbers])
    pointer, number = ctypes.c_void_p, ctypes.c_int
    lib.mirage_core_bytes.argtypes, lib.mirage_core_bytes.restype = [pointer, *[number] * 5], ctypes.c_size_t
    lib.mirage_core_phases.argtypes, lib.mirage_core_phases.restype = [pointer], number
    for name in ("layout", "levels", "unit", "style_numbers", "threads"):
        ask = getattr(lib, f"mirage_core_{name}")
        ask.argtypes, ask.restype = [], number
    shared: list[Any] = [pointer, number, number]
    lib.mirage_core.argtypes = [*shared, pointer, number, number, *[pointer] * 11, number, number, *[pointer] * 8]
    lib.mirage_core.restype = None
    lib.mirage_remember.argtypes = [*shared, number, number, pointer, pointer, pointer]
    lib.mirage_remember.restype = None
    if lib.mirage_core_threads() != MAX_THREADS:
        raise OSError("crew.h knows another number of threads")
    if lib.mirage_core_style_numbers() != STYLE_NUMBERS:
        raise OSError("shade.h knows another style space")
    if NUMBERS[lib.mirage_core_layout()] == "bf16" and not lib.mirage_core_unit():
        return _load("int16")  # the operating system does not give the unit away
    return lib


def whole_weights(weight: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Weights [outputs, inputs] as whole numbers (int16), and the unit of each output's (float32).

    Sums of their products with whole numbers from -`levels` to `levels` stay within 32 bits, as products.h asks: the
    sizes of an output's weights come to `most` at the highest, half a unit for each one's rounding included.
    """
    exact, most = weight.detach().double(), (2**31 - 1) // levels
    sizes = exact.abs()
    unit = torch.maximum(sizes.sum(1) / (most - 0.5 * exact.shape[1]), sizes.amax(1) / 32767)
    above = torch.nextafter(unit.float(), torch.tensor(torch.inf))  # never less than it was in float64
    above[unit == 0] = 1
    return (exact / above.double()[:, None]).round().to(torch.int16), above


class NativeCore:
    """A tier's core in C, called as a `Core` is; what it answers does not depend on how many threads share the work."""

    def __init__(self, core: Core, numbers: str | None = None, threads: int = 1) -> None:
        """Pack the weights of a `Core` in float32; `numbers`: one of `NUMBERS`, or the best of them here.

        Where the processor has no use for what is asked, `numbers` says what was taken instead. Raises `OSError` or
        `subprocess.SubprocessError` where `core.c` cannot be built.
        """
        self._library, self._crew = _load(numbers), crew_of(threads)
        self.numbers = NUMBERS[self._library.mirage_core_layout()]
        """What products take: float32, bf16 as the matrix unit does, or 16-bit integers."""
        self._kept: list[Any] = []
        net, tier = core.net, core.net.tier
        if core.dtype != torch.float32:
            raise ValueError("the weights are packed from float32")
        blocks = [block for stage in net.stages for block in stage]  # type: ignore[attr-defined]
        table = (_Block * len(blocks))(*(self._block(block) for block in blocks))
        self._kept.append(table)
        memory = net.memory
        # One product: what the cell says, padded to full vectors, then its transforms and its detail.
        heads = (net.head_words, net.head_matrices, net.head_detail)
        gap = -WORDS % 16
        padded = [(0, 0, 0, gap), (0, 0, 0, 0), (0, 0, 0, 0)]
        pad = torch.nn.functional.pad
        layers = {
            # core.c takes bytes in units of 128.
            "stem": (torch.cat([core.byte_both * 128, core.lift, core.planes_weight], 1), core.bias_both),
            "head": (
                torch.cat([pad(head.weight, rows) for head, rows in zip(heads, padded, strict=True)]),
                torch.cat([pad(head.bias, rows[2:]) for head, rows in zip(heads, padded, strict=True)]),
            ),
            **{name: (layer.weight, layer.bias) for name, layer in (
                ("down1", net.down1), ("down2", net.down2), ("up2", net.up2), ("up1", net.up1), ("trust", memory.trust),
                ("into", memory.into), ("keep", memory.keep), ("candidate", memory.candidate),
            )},
        }  # fmt: skip
        self._network = _Network(
            tier.widths, tier.depths, tuple(width * tier.expand for width in tier.widths), tier.state,
            *(self._linear(*layers[name]) for name in _LAYERS), table,
        )  # fmt: skip
        self._phases = self._library.mirage_core_phases(ctypes.byref(self._network))
        self._scratch: dict[tuple[int, ...], np.ndarray[Any, np.dtype[np.uint8]]] = {}

    def _floats(self, tensor: Tensor) -> int:
        """The address of a tensor's numbers as float32, which stay as long as this does."""
        array = tensor.detach().float().contiguous().numpy().copy()
        self._kept.append(array)
        return int(array.ctypes.data)

    def _linear(self, weight: Tensor, bias: Tensor) -> _Linear:
        """Pack a layer [outputs, inputs], as `struct linear` in products.h says."""
        outputs, inputs = weight.shape
        panels, step = -(-outputs // 16), {"fp32": 4, "bf16": 32, "int16": 16}[self.numbers]
        wide = torch.zeros(panels * 16, -(-inputs // step) * step)
        wide[:outputs, :inputs] = weight.detach().float()
        filled = torch.zeros(panels * 16)
        filled[:outputs] = bias.detach().float()
        if self.numbers == "fp32":
            packed = self._floats(wide.view(panels, 16, -1).transpose(1, 2))
            return _Linear(packed, self._floats(filled), None, inputs, outputs)
        if self.numbers == "bf16":
            scale = None
            pairs = wide.view(panels, 16, -1, 16, 2).permute(0, 2, 3, 1, 4).contiguous().to(torch.bfloat16)
        else:
            whole, units = whole_weights(wide, self._library.mirage_core_levels())
            scale = self._floats(units)
            pairs = whole.view(panels, 16, -1, 2).transpose(1, 2).contiguous()
        array = pairs.view(torch.int16).numpy().copy()
        self._kept.append(array)
        return _Linear(array.ctypes.data, self._floats(filled), scale, inputs, outputs)

    def _block(self, block: Block) -> _Block:
        taps = block.depthwise.weight.detach().view(block.channels, 25).T
        assert block.depthwise.bias is not None
        return _Block(
            self._floats(taps), self._floats(block.depthwise.bias),
            self._linear(block.expand.weight, block.expand.bias),
            self._linear(block.project.weight, block.project.bias),
        )  # fmt: skip

    def _memory(self, *sizes: int) -> int:
        """The address of what a frame of (rows, columns) with an overview of so many is worked on in."""
        if sizes not in self._scratch:
            size = self._library.mirage_core_bytes(ctypes.byref(self._network), *sizes, self._crew.threads)
            self._scratch[sizes] = np.zeros(size + 64, np.uint8)
        return -(-int(self._scratch[sizes].ctypes.data) // 64) * 64

    def __call__(self, given: CoreInput) -> CoreOutput:
        """Predict y0 at noise level 1; `given` on the processor, its `film` of any float dtype."""
        rows, columns = given.cells.shape[1:3]
        overview = given.overview.shape[1:3]
        dtypes = (torch.uint8, torch.float32, torch.float32, torch.int8, *[torch.float32] * 7)
        tensors = [tensor.to(dtype).contiguous() for tensor, dtype in zip(given, dtypes, strict=True)]
        edit = Edit(*(torch.empty(1, rows, columns, many) for many in (BINS * 12, 192, BINS * 4, 8)))
        stored, health, words = torch.empty_like(tensors[3]), torch.empty(5), torch.empty(1, rows, columns, WORDS)
        self._crew(
            self._library.mirage_core, self._phases,
            ctypes.byref(self._network), rows, columns, *(tensor.data_ptr() for tensor in tensors), *overview,
            self._memory(rows, columns, *overview), *(part.data_ptr() for part in edit), stored.data_ptr(),
            health.data_ptr(), words.data_ptr(), keep=(self, tensors),
        )  # fmt: skip
        return CoreOutput(edit, stored, health, words)

    def remember(self, words: Tensor, before: Tensor, motion: Tensor) -> Tensor:
        """As `mirage_kernels.remembered` for one frame: float32 [1, h, w, WORDS] twice, and [1, 2, h, w]."""
        told = words.clone()
        before, motion = before.contiguous(), motion.contiguous()
        pointers = (part.data_ptr() for part in (told, before, motion))
        self._crew(self._library.mirage_remember, 1, words.shape[1], words.shape[2], *pointers)
        return told

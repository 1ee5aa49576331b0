"""The network as it is served: one step from a frame's bytes to its edit, with everything foldable folded.

`Core` computes what `MirageNet` does at noise level 1 (and, through `refine`, at lower ones), reading 8-bit
cells as they stand in the frame: normalisation, the sum of the two patch projections and the noise's lift are
folded into three matrices. A test holds it against `MirageNet`.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mirage_kernels.overview import OVERVIEW, agreed, overview_size, remembered, told_by_overview
from mirage_kernels.shade import WORDS
from mirage_plugin.model.drift import mean_squares
from mirage_plugin.model.memory import MemoryState, dequantise, quantise, warp_state
from mirage_plugin.model.network import (
    CELL,
    PLANE_CHANNELS,
    SIGMA,
    STYLE_SIZE,
    Edit,
    MirageNet,
    cells_to_noise,
)

__all__ = ["Core", "CoreInput", "CoreOutput", "best_dtype", "core_input"]


def best_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies in it; elsewhere it would be emulated, slower than fp32."""
    if device.type == "cuda":
        return torch.bfloat16
    if platform.machine() in ("x86_64", "AMD64") and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


class CoreInput(NamedTuple):
    """One working frame of h x w cells (multiples of 4).

    `cells` uint8 [1, h, w, 192]; `noise` float32 [1, h, w, 16]; `planes` float32 [1, h, w, 32]; `stored` int8
    [1, h/2, w/2, S]; `motion` float32 [1, 2, h/2, w/2] working pixels; `seen` float32 [1, 1, h/2, w/2]; `there`
    float32 [1, h, w, 2] of `doubted_lines`; `film` [1, F] from `Core.film`; `overview` float32 [1, H, W, WORDS] the
    words of one, and `place` float32 [4] its cells for each of the frame's, down and across, how far it is believed
    (0 where there is none), and 1 where its readings are yet to be `agreed`, or the frame's own where that is small;
    2 where those are then to heed `overview`, the words of the frame before, [1, h, w, WORDS], `came` float32
    [1, 2, h, w] cells from there.
    """

    cells: Tensor
    noise: Tensor
    planes: Tensor
    stored: Tensor
    motion: Tensor
    seen: Tensor
    there: Tensor
    film: Tensor
    overview: Tensor
    place: Tensor
    came: Tensor


class CoreOutput(NamedTuple):
    """`edit` float32; `stored` int8, the next state; `health` float32 [5]: `drift.mean_squares`, and one that is NaN
    if any of them is not finite; `words` float32 [1, h, w, WORDS] of the surfaces."""

    edit: Edit
    stored: Tensor
    health: Tensor
    words: Tensor


class Core(nn.Module):
    """`MirageNet` folded for serving, in `dtype`."""

    byte_source: Tensor
    byte_noisy: Tensor
    byte_both: Tensor
    bias_source: Tensor
    bias_noisy: Tensor
    bias_both: Tensor
    lift: Tensor
    planes_weight: Tensor

    def __init__(self, net: MirageNet, dtype: torch.dtype) -> None:
        """Fold a trained network; it is not changed."""
        super().__init__()
        self.dtype = dtype
        source, noisy = net.stem_source.weight.detach().float(), net.stem_noisy.weight.detach().float()
        bias = net.stem_source.bias.detach().float()
        # v = cell * 2 / 255 - 1, so W v + b = (W * 2 / 255) cell + (b - W 1).
        self.register_buffer("byte_source", (source * (2 / 255)).to(dtype))
        self.register_buffer("byte_noisy", (noisy * (2 / 255)).to(dtype))
        self.register_buffer("bias_source", bias - source.sum(1))
        self.register_buffer("bias_noisy", -noisy.sum(1))
        # One noise value falls on 2x2 pixels and three channels.
        lift = noisy.view(-1, 4, 2, 4, 2, 3).sum((2, 4, 5)).reshape(-1, 16) * SIGMA
        self.register_buffer("lift", lift.to(dtype))
        self.register_buffer("byte_both", ((source + noisy) * (2 / 255)).to(dtype))
        self.register_buffer("bias_both", (bias - source.sum(1) - noisy.sum(1)).to(dtype))
        self.register_buffer("planes_weight", net.stem_planes.weight.detach().to(dtype))
        self.net = net.to(dtype).eval().requires_grad_(False)

    def forward(self, x: CoreInput) -> CoreOutput:
        """Predict y0 at noise level 1."""
        stem = nn.functional.linear(x.cells.to(self.dtype), self.byte_both, self.bias_both)
        stem = stem + nn.functional.linear(x.noise.to(self.dtype), self.lift)
        return self._rest(stem, x)

    def refine(self, x: CoreInput, answer: Tensor, k: Tensor) -> CoreOutput:
        """Predict y0 again from an 8-bit `answer` uint8 [1, h, w, 192], re-noised to level `k` (a scalar)."""
        k = k.to(self.dtype)
        weight = self.byte_source + k * self.byte_noisy
        bias = (self.bias_source + self.bias_noisy).to(self.dtype)
        stem = nn.functional.linear(x.cells.to(self.dtype), weight, bias)
        stem = stem + nn.functional.linear(answer.to(self.dtype), self.byte_noisy * (1 - k))
        stem = stem + nn.functional.linear(x.noise.to(self.dtype), self.lift * k)
        return self._rest(stem, x)

    def _rest(self, stem: Tensor, x: CoreInput) -> CoreOutput:
        stem = stem + nn.functional.linear(x.planes.to(self.dtype), self.planes_weight)
        moved = warp_state(dequantise(x.stored), x.motion, x.seen)
        memory = MemoryState(moved.state.to(self.dtype), moved.valid.to(self.dtype))
        down, across, believed, agree = x.place

        def of_one_mind(words: Tensor) -> Tensor:
            words = words.float()
            if not torch.compiler.is_compiling() and float(agree) == 0:
                return words
            return torch.lerp(words, agreed(words), agree.clamp_max(1))

        def heeding(words: Tensor) -> Tensor:
            words = of_one_mind(words)
            if not torch.compiler.is_compiling() and float(agree) <= 1:
                return words
            return torch.lerp(words, remembered(words, x.overview, x.came), (agree - 1).clamp_min(0))

        told: Callable[[Tensor], Tensor] = of_one_mind
        large = overview_size(*(CELL * side for side in x.cells.shape[1:3])) is not None
        if large and (torch.compiler.is_compiling() or float(believed) > 0):
            overview = of_one_mind(x.overview)
            told = functools.partial(told_by_overview, overview=overview, scale=(down, across), believed=believed)
        elif not large:
            told = heeding
        edit, words, state = self.net.from_stem(stem, memory, x.film, cells_to_noise(x.noise), x.there, told)
        edit = Edit(*(part.float() for part in edit))
        health = mean_squares(edit, state, memory)[0]
        every = torch.cat([health, edit.anchors.square().mean()[None], edit.pens.square().mean()[None]])
        return CoreOutput(edit, quantise(state), torch.cat([health, every.sum()[None] * 0]), words.float())

    @torch.inference_mode()
    def film(self, style: Tensor, k: float, trust: float) -> Tensor:
        """Everything that depends on style [1, STYLE_SIZE], noise level and trust, once per change: [1, F]."""
        level, believed = torch.full((1,), k), torch.full((1,), trust)
        return self.net.conditioned(self.net.condition(style.to(self.dtype), level, believed), style)


def core_input(made: Core, rows: int, columns: int) -> CoreInput:
    """An input of the right shapes and dtypes, empty."""
    film = made.film(torch.zeros(1, STYLE_SIZE), 1.0, 1.0)
    half = (rows // 2, columns // 2)
    seen = OVERVIEW if overview_size(CELL * rows, CELL * columns) else (rows, columns)
    return CoreInput(
        torch.zeros(1, rows, columns, CELL * CELL * 3, dtype=torch.uint8), torch.zeros(1, rows, columns, 16),
        torch.zeros(1, rows, columns, PLANE_CHANNELS),
        torch.zeros(1, *half, made.net.tier.state, dtype=torch.int8), torch.zeros(1, 2, *half),
        torch.zeros(1, 1, *half), torch.zeros(1, rows, columns, 2), film, torch.zeros(1, *seen, WORDS),
        torch.zeros(4), torch.zeros(1, 2, rows, columns),
    )  # fmt: skip

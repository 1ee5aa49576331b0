"""The network's forward pass on these ops: what a fast path captures, and what holds the ops to the model.

`prepare` packs the parameters of a trained network once; `forward` is everything behind the patch projection,
the same calls on both sides of the switch. For a whole frame see `docs/KERNELS.md`; in short:

    stem  = pixels(frames, layout, weights.stem(layout, sigma), noise=..., depth=..., motion=..., mask=...)
    state, valid = warp_state(last_state, motion16, visible16, stem.dtype)
    edit, last_state = forward(weights, stem, state, valid, film, style, noise, lines)
    compose(frames, layout, edit, strength, out=...)

with `film = film_of(weights, condition)` made once per condition, not per frame: its weights are 21 MB in base; and
`style` the parameters of each frame's style in natural units, which `shade` paints by; and `lines` what `depth_lines`
makes of the depth that `pixels` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.block import BlockWeights, block, pack_block
from mirage_kernels.frames import FrameLayout
from mirage_kernels.launch import KernelError, require, wide
from mirage_kernels.linear import LinearWeights, linear, pack_linear
from mirage_kernels.memory import MemoryWeights, memory_read, memory_write, pack_memory
from mirage_kernels.pixels import StemWeights, fold_stem
from mirage_kernels.shade import WORDS, pack_head, shade

__all__ = [
    "SIZES",
    "NetworkSizes",
    "NetworkWeights",
    "film_of",
    "forward",
    "look",
    "prepare",
    "random_parameters",
]


@dataclass(frozen=True, slots=True)
class NetworkSizes:
    """The sizes of a network: channels at 1, 1/2, 1/4 of the grid, blocks per stage, state and condition."""

    widths: tuple[int, int, int]
    depths: tuple[int, int, int, int, int]
    state: int
    condition: int
    expand: int = 2

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """(channels, blocks) of the five stages: full, half, quarter, half, full grid."""
        c0, c1, c2 = self.widths
        return tuple(zip((c0, c1, c2, c1, c0), self.depths, strict=True))


SIZES = {
    "nano": NetworkSizes((64, 96, 160), (1, 1, 2, 2, 2), 48, 128),
    "small": NetworkSizes((128, 256, 384), (2, 2, 4, 2, 3), 96, 192),
    "base": NetworkSizes((192, 384, 640), (2, 3, 5, 3, 4), 128, 256),
}
"""The tiers that kernels are laid out for, and launch tables checked with."""


@dataclass(frozen=True, slots=True)
class NetworkWeights:
    """A network, packed. `film_*` and `stem_*` stay as trained; the rest as ops read it."""

    dtype: torch.dtype
    stem_source: Tensor
    stem_bias: Tensor
    stem_noisy: Tensor
    stem_planes: Tensor
    film_weight: Tensor
    film_bias: Tensor
    stages: tuple[tuple[BlockWeights, ...], ...]
    down1: LinearWeights
    down2: LinearWeights
    up2: LinearWeights
    up1: LinearWeights
    head: LinearWeights
    memory: MemoryWeights

    def stem(self, layout: FrameLayout, sigma: float) -> StemWeights:
        """Fold the stem for frames of this format. It costs some launches: keep it while the format stays."""
        return fold_stem(
            self.stem_source, self.stem_noisy, self.stem_planes, self.stem_bias,
            layout=layout, sigma=sigma, dtype=self.dtype,
        )  # fmt: skip


def prepare(parameters: Mapping[str, Tensor], dtype: torch.dtype, *, fp8: bool = False) -> NetworkWeights:
    """Pack a network's parameters, named as in the model's state dict, where they lie.

    `dtype` is the compute dtype: fp32, fp16 or bf16. With `fp8` the layers between the stages and the head
    hold e4m3 weights (compute capability 8.9 and up; their products then carry e4m3's three bits of
    mantissa). Raises `KernelError` where a parameter is missing.
    """

    def get(name: str) -> Tensor:
        if name not in parameters:
            raise KernelError(f"the parameters have no {name!r}: they belong to another network")
        return parameters[name].detach()

    def layer(name: str) -> tuple[Tensor, Tensor]:
        return get(f"{name}.weight"), get(f"{name}.bias")

    def packed(name: str) -> LinearWeights:
        return pack_linear(*layer(name), dtype, fp8=fp8)

    def head() -> LinearWeights:
        """All that the head says as one layer, in the order that `shade` reads."""
        weights, biases = zip(*(layer(f"head_{part}") for part in ("matrices", "detail", "words")), strict=True)
        weight = pack_head(*(part.T for part in weights)).T.contiguous()
        return pack_linear(weight, pack_head(*biases), dtype, fp8=fp8)

    def stage(index: int) -> tuple[BlockWeights, ...]:
        count = len({name.split(".")[2] for name in parameters if name.startswith(f"stages.{index}.")})
        require(count > 0, f"the parameters have no blocks for stage {index}")
        parts = ("depthwise", "expand", "project")
        return tuple(
            pack_block(*(tensor for part in parts for tensor in layer(f"stages.{index}.{i}.{part}")), dtype=dtype)
            for i in range(count)
        )

    memory = [tensor for part in ("trust", "into", "keep", "candidate") for tensor in layer(f"memory.{part}")]
    source, source_bias = layer("stem_source")
    film, film_bias = layer("film")
    return NetworkWeights(
        dtype=dtype,
        stem_source=wide(source),
        stem_bias=wide(source_bias),
        stem_noisy=wide(get("stem_noisy.weight")),
        stem_planes=wide(get("stem_planes.weight")),
        film_weight=wide(film),
        film_bias=wide(film_bias),
        stages=tuple(stage(i) for i in range(5)),
        down1=packed("down1"),
        down2=packed("down2"),
        up2=packed("up2"),
        up1=packed("up1"),
        head=head(),
        memory=pack_memory(*memory, dtype=dtype),
    )


def film_of(weights: NetworkWeights, condition: Tensor) -> Tensor:
    """All blocks' and the head's FiLM for each frame's condition [N, D]: fp32 [N, F]."""
    return functional.linear(wide(condition), weights.film_weight, weights.film_bias)


def look(
    weights: NetworkWeights,
    stem: Tensor,
    state: Tensor,
    valid: Tensor,
    film: Tensor,
    *,
    packed_state: bool = True,
) -> tuple[Tensor, Tensor]:
    """What the head says behind the patch projection: (head [N, h, w, HEAD_CHANNELS], next state [N, h/2, w/2, S]).

    `stem` [N, h, w, C0] in the compute dtype, h and w multiples of 4; `state` and `valid` as `warp_state`
    made them, in the same dtype; `film` fp32 [N, F] from `film_of`.
    The next state is int8 for storage, or in the compute dtype where not `packed_state`.
    """
    require(
        stem.dim() == 4 and stem.shape[1] % 4 == 0 and stem.shape[2] % 4 == 0,
        f"the stem has shape {list(stem.shape)}; it must be [N, h, w, C0] with h and w multiples of 4",
    )
    offset = 0

    def run(x: Tensor, stage: int) -> Tensor:
        nonlocal offset
        for part in weights.stages[stage]:
            size = 3 * x.shape[-1]
            x = block(x, film[:, offset : offset + size], part)
            offset += size
        return x

    full = run(stem, 0)
    half = memory_read(run(linear(full, weights.down1, "down"), 1), state, valid, weights.memory)
    deep = run(linear(half, weights.down2, "down"), 2)
    half = run(linear(deep, weights.up2, "up", skip=half), 3)
    written = memory_write(half, state, valid, weights.memory, packed=packed_state)
    full = run(linear(half, weights.up1, "up", skip=full), 4)
    return linear(full, weights.head, "head", film=film[:, offset:]), written


def forward(
    weights: NetworkWeights,
    stem: Tensor,
    state: Tensor,
    valid: Tensor,
    film: Tensor,
    style: Tensor,
    noise: Tensor,
    there: Tensor,
    *,
    packed_state: bool = True,
    hear: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Everything behind the patch projection: (edit [N, h, w, 264], next state [N, h/2, w/2, S]).

    `stem`, `state`, `valid`, `film` and `packed_state` as in `look`; `style` fp32 [N, STYLE_NUMBERS], each frame's in
    natural units; `noise` fp32 [N, 1, 4h, 4w], the noise field; `there` fp32 [N, h, w, 2] as `shade` takes it.
    `hear` is what else is heard before what `look` says is painted: an `overview`, or what was said before
    (`remember`); it is given what is said, and returns it.
    """
    head, written = look(weights, stem, state, valid, film, packed_state=packed_state)
    if hear is not None:
        head = hear(head)
    return shade(head, noise, there, style), written


def random_parameters(sizes: NetworkSizes, device: torch.device | str = "cpu", seed: int = 0) -> dict[str, Tensor]:
    """Parameters of a network of these sizes as if it had just been drawn: fp32, each 1 / sqrt(inputs) large.

    For benchmarks and checks, which need the shapes and honest values but no training. On the meta device
    they are shapes alone.
    """
    c0, c1, c2 = sizes.widths
    s, d = sizes.state, sizes.condition
    shapes: dict[str, tuple[int, ...]] = {"stem_noisy.weight": (c0, 192), "stem_planes.weight": (c0, 32)}
    layers: dict[str, tuple[int, ...]] = {
        "stem_source": (c0, 192), "down1": (c1, 4 * c0), "down2": (c2, 4 * c1), "up2": (4 * c1, c2),
        "up1": (4 * c0, c1), "film": (sum(3 * c * n for c, n in sizes.stages) + 2 * c0, d),
        "memory.trust": (s, c1 + s + 1), "memory.into": (c1, s), "memory.keep": (s, c1 + s + 1),
        "memory.candidate": (s, c1), "head_matrices": (48, c0), "head_words": (WORDS, c0),
        "head_detail": (192, c0),
    }  # fmt: skip
    for index, (c, count) in enumerate(sizes.stages):
        for i in range(count):
            layers[f"stages.{index}.{i}.depthwise"] = (c, 1, 5, 5)
            layers[f"stages.{index}.{i}.expand"] = (c * sizes.expand, c)
            layers[f"stages.{index}.{i}.project"] = (c, c * sizes.expand)
    for name, shape in layers.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]
    if torch.device(device).type == "meta":
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, shape in shapes.items():
        inputs = torch.Size(shape[1:]).numel() if len(shape) > 1 else 16
        drawn[name] = (torch.randn(shape, generator=generator) / inputs**0.5).to(device)
    return drawn

"""The network: a causal, source-anchored denoiser on 8x8-pixel cells that predicts an *edit* of its source.

Symbols: N frames, H x W pixels of the working frame, h x w = H/8 x W/8 cells, C channels. Everything on the
cell grid is NHWC. Pixels inside the model are `v = 2 * rgb - 1`, in [-1, 1].

The path of diffusion is a bridge that starts at the source: `y_k = (1 - k) * y0 + k * (x + sigma * eps)`,
and the network predicts y0 (DESIGN: one step is then a good answer, and an untrained network returns the
source). Time enters through a state on half the cell grid (`memory.py`), never through past pixels.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mirage_kernels.compose import SIMILAR
from mirage_kernels.lines import (
    colour_lines_of,
    depth_lines_reference,
    line_shares,
    point_side,
    trace_lines_reference,
)
from mirage_kernels.overview import agreed, remembered, told_by_overview
from mirage_kernels.pixelate import means_of_blocks
from mirage_kernels.shade import BINS, KEEP, STYLE_NUMBERS, SURFACE, WORDS, shade_reference, style_offset
from mirage_plugin.model.chart import CHART_SIZE, chart
from mirage_plugin.model.memory import Memory, MemoryState
from mirage_plugin.styles.parameters import PARAMETERS, VECTOR_SIZE, parameter_range

__all__ = [
    "CELL",
    "SIGMA",
    "TIERS",
    "Edit",
    "MirageNet",
    "Overview",
    "Planes",
    "Tier",
    "compose",
    "pixels_to_cells",
]

CELL = 8
"""Pixels per cell side."""
SIGMA = 0.25
"""Standard deviation of the noise at k = 1, in units of v."""
CODE_SIZE = 128
STYLE_SIZE = CODE_SIZE + STYLE_NUMBERS
"""A style vector: a learned code, and the style's parameters in natural units."""
PLANE_CHANNELS = 16 + 1 + 2 + 1 + 3 + 1 + 8
"""Of a cell: nearness of 4x4 points and whether depth is given, motion and whether it is, mask and whether it is, then
of its quarters how depth slopes across and down."""
FARTHEST = 1e4
"""Metres; what is farther, or is no number, counts as so far."""


@dataclass(frozen=True)
class Tier:
    """The sizes of one tier.

    `widths` are the channels at 1, 1/2 and 1/4 of the cell grid; `depths` the blocks at: full grid down, half
    down, quarter, half up, full up; `expand` the hidden factor of a block; `state` the channels of memory;
    `condition` the width of the conditioning vector; `full_grid`, an ablation, gives memory the whole grid of cells.
    """

    name: str
    widths: tuple[int, int, int]
    depths: tuple[int, int, int, int, int]
    expand: int
    state: int
    condition: int
    full_grid: bool = False

    @property
    def entry(self) -> int:
        """Pixels to a side of what one entry of the memory stands for."""
        return CELL if self.full_grid else 2 * CELL


TIERS: dict[str, Tier] = {
    "nano": Tier("nano", (64, 96, 160), (1, 1, 2, 2, 2), 2, 48, 128),
    "small": Tier("small", (128, 256, 384), (2, 2, 4, 2, 3), 2, 96, 192),
    "base": Tier("base", (192, 384, 640), (2, 3, 5, 3, 4), 2, 128, 256),
}


class Edit(NamedTuple):
    """What the network says about a frame, on the cell grid.

    `matrices` [N, h, w, BINS * 12]: per bin a 3x4 change of colour, row-major, applied to (r, g, b, 1) of v.
    `detail` [N, h, w, 192]: what is added to v, as (row, column, channel) inside the cell.
    `anchors` [N, h, w, BINS * 4]: per bin the source colour it is for, in v, and its share of the cell.
    `pens` [N, h, w, 8]: how dark lines are drawn and how bright they shine, the ink's colour in v, what shining adds.
    """

    matrices: Tensor
    detail: Tensor
    anchors: Tensor
    pens: Tensor


class Overview(NamedTuple):
    """What the network says of a whole frame on few cells, for one that it works on with many.

    `words` [N, H, W, WORDS]; `scale` the cells of the overview for each cell of the frame, down and across. Words that
    are None are the frame's own: it is small, and without depth its readings agree with those around, and then heed
    those `kept` of the frame before, where there was one: `came` [N, 2, H, W] is where they were, in cells. Of an
    overview `kept` [N, H, W, WORDS] is what that of the next frame remembers.
    """

    words: Tensor | None
    scale: tuple[float, float] = (1.0, 1.0)
    kept: Tensor | None = None
    came: Tensor | None = None


class Planes(NamedTuple):
    """Optional planes of the engine on the working frame; None where the engine gives none.

    `depth` [N, 1, H, W] metres; `motion` [N, 2, H, W] pixels to where it was, NaN where not written;
    `mask` [N, 3, H, W] in [0, 1]: overlay, object, sky.
    """

    depth: Tensor | None = None
    motion: Tensor | None = None
    mask: Tensor | None = None


def pixels_to_cells(image: Tensor) -> Tensor:
    """Cut an image into cells: [N, C, H, W] -> [N, h, w, 64 * C], (row, column, channel) inside a cell."""
    n, c, height, width = image.shape
    cells = image.view(n, c, height // CELL, CELL, width // CELL, CELL)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(n, height // CELL, width // CELL, CELL * CELL * c)


def cells_to_pixels(cells: Tensor, channels: int = 3) -> Tensor:
    """Undo `pixels_to_cells`: [N, h, w, 64 * C] -> [N, C, H, W]."""
    n, h, w, _ = cells.shape
    image = cells.view(n, h, w, CELL, CELL, channels).permute(0, 5, 1, 3, 2, 4)
    return image.reshape(n, channels, h * CELL, w * CELL)


def noise_to_cells(noise: Tensor) -> Tensor:
    """Noise [N, 1, H/2, W/2] -> [N, h, w, 16]."""
    n, _, height, width = noise.shape
    cells = noise.view(n, height // 4, 4, width // 4, 4)
    return cells.permute(0, 1, 3, 2, 4).reshape(n, height // 4, width // 4, 16)


def cells_to_noise(cells: Tensor) -> Tensor:
    """Undo `noise_to_cells`: [N, h, w, 16] -> [N, 1, H/2, W/2]."""
    n, h, w, _ = cells.shape
    return cells.reshape(n, h, w, 4, 4).transpose(2, 3).reshape(n, 1, 4 * h, 4 * w)


def planes_to_cells(planes: Planes, n: int, h: int, w: int, like: Tensor) -> Tensor:
    """Reduce planes to the cell grid: [N, h, w, PLANE_CHANNELS]; absent planes are zero with a zero flag.

    Nothing an engine writes can make the result other than finite: NaN, infinities and nonsense are bounded.
    """
    out = like.new_zeros(n, h, w, PLANE_CHANNELS)
    if planes.depth is not None:
        # Subsampled, not averaged: a mean of two depths is a surface that is not there, and reads all pixels.
        near = 1.0 / (1.0 + planes.depth[..., ::2, ::2].float().clamp_min(0) * 0.25)
        near = torch.nan_to_num(near, nan=0.0)
        out[..., 0:16] = noise_to_cells(near).to(out.dtype)
        out[..., 16] = 1.0
        out[..., 24:] = depth_slopes(planes.depth[..., ::2, ::2]).to(out.dtype)
    if planes.motion is not None:
        motion = planes.motion[..., CELL // 2 :: CELL, CELL // 2 :: CELL].float()
        motion = torch.nan_to_num(motion, nan=0.0, posinf=0.0, neginf=0.0)
        out[..., 17:19] = (motion / 16).tanh().permute(0, 2, 3, 1).to(out.dtype)
        out[..., 19] = 1.0
    if planes.mask is not None:
        out[..., 20:23] = functional.avg_pool2d(planes.mask, CELL).permute(0, 2, 3, 1).to(out.dtype)
        out[..., 23] = 1.0
    return out


def depth_slopes(depth: Tensor) -> Tensor:
    """Which way surfaces face, as depth tells it: [N, 1, 4h, 4w] in metres -> [N, h, w, 8] in [-1, 1].

    Of each quarter of a cell, row by row, by which part of itself depth grows from point to point, across and down:
    whatever the distance, that tells how a surface is turned. Edges, where it jumps, are bounded pair by pair.
    """
    n, _, rows, columns = depth.shape
    metres = torch.nan_to_num(depth.float(), nan=FARTHEST, posinf=FARTHEST).clamp(0, FARTHEST)
    corners = metres.view(n, rows // 4, 2, 2, columns // 4, 2, 2).permute(0, 1, 4, 2, 5, 3, 6)

    def grows(near: Tensor, far: Tensor) -> Tensor:
        return (16 * (far - near) / (far + near + 0.01)).clamp(-1, 1).mean(-1)

    across = grows(corners[..., 0], corners[..., 1])
    down = grows(corners[..., 0, :], corners[..., 1, :])
    return torch.stack([across, down], -1).flatten(-3)


def frame_lines(v: Tensor, depth: Tensor | None, given: Tensor | None, style: Tensor) -> Tensor:
    """The lines of a frame as `compose` draws them: [N, 2, H, W] in [0, 1], as dark and as bright as they get.

    Of `depth` [N, 1, H, W] in metres where `given` [N] is above 0 (everywhere where it is None), else where colours of
    v [N, 3, H, W] part. `style` [N, STYLE_SIZE] says how wide the style draws them.
    """
    width = style_number(style, "ink_width")
    if depth is not None and (given is None or bool((given > 0).all())):
        return _lines_of_depth(depth, width)
    if any(side % CELL for side in v.shape[-2:]):
        of_colour = trace_lines_reference(colour_lines_of((v + 1) / 2), width)
    else:
        of_colour = _lines_of_colour(pixels_to_cells(v), width)
    if depth is None or given is None:
        return of_colour
    return torch.where(given.view(-1, 1, 1, 1) > 0, _lines_of_depth(depth, width), of_colour)


def _lines_of_depth(depth: Tensor, width: Tensor) -> Tensor:
    fast = _lines_on_cpu() if depth.device.type == "cpu" and point_side(depth.shape[-2]) == 1 else None
    if fast is None:
        return trace_lines_reference(depth_lines_reference(depth), width)
    rows = zip(depth.detach()[:, 0].float().numpy(), width.tolist(), strict=True)
    return torch.from_numpy(np.stack([fast.depth_lines(*row) for row in rows])).float() / 255


def _lines_of_colour(cells: Tensor, width: Tensor) -> Tensor:
    """[N, 2, 8h, 8w] of cells of v [N, h, w, 192]; in C where v is what a frame of bytes has."""
    fast = _lines_on_cpu() if cells.device.type == "cpu" and not torch.compiler.is_compiling() else None
    if fast is not None:
        exact = cells.detach().float().add(1).mul_(127.5)
        whole = exact.round()
        if bool((exact.sub_(whole).abs_() < 1e-3).all()):
            rows = zip(whole.byte().numpy(), width.tolist(), strict=True)
            return torch.from_numpy(np.stack([fast.colour_lines(*row)[0] for row in rows])).float() / 255
    return trace_lines_reference(colour_lines_of((cells_to_pixels(cells.float()) + 1) / 2), width)


@functools.cache
def _lines_on_cpu() -> ModuleType | None:
    """Lines in C, many times faster; None where there is no compiler, or nothing but torch."""
    try:
        from mirage_plugin.model import cpu_lines, native

        native.library("lines")
    except (ModuleNotFoundError, OSError, subprocess.SubprocessError):
        return None
    return cpu_lines


def style_number(style: Tensor, name: str) -> Tensor:
    """A number of the styles that stand in natural units at the end of `style` [N, ...]: [N]."""
    return style[:, style_offset(name) - STYLE_NUMBERS]


def doubted_lines(source: Tensor, planes: Tensor, style: Tensor) -> Tensor:
    """How much of each cell the lines cover that only colours show, [N, h, w, 2]; -1 in frames with depth.

    `source` [N, h, w, 192] cells of v, `planes` [N, h, w, PLANE_CHANNELS], `style` as in `frame_lines`.
    """
    given = planes[:, :1, :1, 16:17]
    if not torch.compiler.is_compiling() and bool((given > 0).all()):
        return torch.full_like(planes[..., :2], -1.0)
    traced = _lines_of_colour(source, style_number(style, "ink_width"))
    return torch.where(given > 0, -1.0, line_shares(traced))


def rms_film(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """RMSNorm over channels with FiLM: x [N, h, w, C]; scale, shift [N, C]."""
    inverse = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6).to(x.dtype)
    return x * inverse * (1 + scale[:, None, None]) + shift[:, None, None]


class Block(nn.Module):
    """`x + gate * W2 silu(W1 film(rmsnorm(depthwise5x5(x))))`, x [N, h, w, C]; FiLM and gate from outside."""

    def __init__(self, channels: int, expand: int) -> None:
        super().__init__()
        self.channels = channels
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.expand = nn.Linear(channels, channels * expand)
        self.project = nn.Linear(channels * expand, channels)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """`film` [N, 3C]: scale, shift, gate."""
        scale, shift, gate = film.chunk(3, dim=-1)
        image = x.permute(0, 3, 1, 2)
        if x.device.type == "cpu" and torch.is_grad_enabled():
            # The bf16 gradient of a depthwise convolution takes three times the fp32 one on a CPU.
            with torch.autocast("cpu", enabled=False):
                y = self.depthwise(image.float()).to(x.dtype)
        else:
            y = self.depthwise(image)
        y = y.permute(0, 2, 3, 1)
        y = self.project(functional.silu(self.expand(rms_film(y, scale, shift))))
        out: Tensor = x + y * gate[:, None, None]
        return out


def space_to_depth(x: Tensor) -> Tensor:
    """[N, h, w, C] -> [N, h/2, w/2, 4C]."""
    n, h, w, c = x.shape
    return x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def depth_to_space(x: Tensor) -> Tensor:
    """[N, h, w, 4C] -> [N, 2h, 2w, C]."""
    n, h, w, c = x.shape
    return x.view(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


class StyleEncoder(nn.Module):
    """Parameters of a style in [-1, 1], [N, VECTOR_SIZE] -> the style vector [N, STYLE_SIZE].

    Its code, of unit RMS, reads the parameters, each colour multiplied by the amount it comes with (a colour
    without its amount means nothing), and the style's chart. All are standardised by what random styles have: most
    amounts are zero most of the time, and a vector that hardly changes from style to style teaches nothing. Behind
    the code stand the parameters themselves, in natural units, which the head paints by.
    """

    mean: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        names = [p.name for p in PARAMETERS]
        offsets = [sum(p.size for p in PARAMETERS[:i]) for i in range(len(names))]
        self._pairs: list[tuple[int, int]] = []
        for i, p in enumerate(PARAMETERS):
            if p.size == 3:
                # The amount a colour belongs to is the nearest number before it that is not one itself.
                amount = next(j for j in range(i - 1, -1, -1) if PARAMETERS[j].size == 1)
                amount = names.index(_AMOUNT_OF.get(p.name, names[amount]))
                self._pairs.append((offsets[amount], offsets[i]))
        size = VECTOR_SIZE + 3 * len(self._pairs) + CHART_SIZE
        low, high = parameter_range()
        self.register_buffer("low", torch.from_numpy(low), persistent=False)
        self.register_buffer("high", torch.from_numpy(high), persistent=False)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        self.layers = nn.Sequential(
            nn.Linear(size, 256), nn.SiLU(), nn.Linear(256, 192), nn.SiLU(), nn.Linear(192, CODE_SIZE)
        )

    def natural(self, parameters: Tensor) -> Tensor:
        """Parameters in [-1, 1] in natural units, float32."""
        return self.low + (self.high - self.low) * ((parameters.float() + 1) / 2)

    def features(self, parameters: Tensor) -> Tensor:
        """Parameters, their products and the chart, not yet standardised."""
        unit = (parameters + 1) / 2
        products = [unit[:, a : a + 1] * unit[:, c : c + 3] for a, c in self._pairs]
        swatches = chart(self.natural(parameters))
        return torch.cat([parameters, *products, swatches.to(parameters.dtype)], -1)

    def standardise(self, parameters: Tensor) -> None:
        """Take mean and spread from a sample of styles [many, VECTOR_SIZE]."""
        features = self.features(parameters)
        self.mean.copy_(features.mean(0))
        self.spread.copy_(features.std(0).clamp_min(0.05))

    def forward(self, parameters: Tensor) -> Tensor:
        """See the class."""
        features = self.features(parameters)
        raw = self.layers((features - self.mean) / self.spread)
        code = raw * torch.rsqrt(raw.square().mean(-1, keepdim=True) + 1e-6)
        return torch.cat([code.float(), self.natural(parameters)], 1)


# Colours whose amount is not the number just before them.
_AMOUNT_OF = {"ink_colour": "ink", "sky_horizon": "sky", "tone_light": "tone"}


def slice_readings(v: Tensor, matrices: Tensor, anchors: Tensor) -> Tensor:
    """Apply to every pixel what the readings of the four cells around it make of its colour: the change of v.

    v [N, 3, H', W'], `matrices` [N, h, w, BINS * 12], `anchors` [N, h, w, BINS * 4] -> float32 [N, 3, H', W'].

    A reading counts by its place (bilinear), by its share of its cell, and by how like the pixel its colour is, with
    the tails of Student's t: what is painted on a surface ends where its colour ends (joint bilateral upsampling, Kopf
    et al. 2007, with a mixture of colours in the place of a cell's one).
    """
    n, _, height, width = v.shape
    h, w = matrices.shape[1:3]
    grid, seen = matrices.float().view(n, h, w, BINS, 3, 4), anchors.float().view(n, h, w, BINS, 4)

    def sides(length: int, cells: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The cells whose centres are before and after each pixel, and how much of each a pixel takes."""
        at = ((torch.arange(length, device=v.device) + 0.5) * (cells / length) - 0.5).clamp(0, cells - 1)
        low = at.floor()
        before = low.long()
        return (before, 1 - (at - low)), ((before + 1).clamp_max(cells - 1), at - low)

    v = v.float()
    change, total = torch.zeros_like(v), torch.zeros_like(v[:, :1])
    for row, down in sides(height, h):
        for column, across in sides(width, w):
            for b in range(BINS):
                anchor = seen[:, row][:, :, column][..., b, :].permute(0, 3, 1, 2)
                away = (v - anchor[:, :3]).square().sum(1, keepdim=True)
                count = down[:, None] * across * anchor[:, 3:] / (1 + away / SIMILAR).square()
                matrix = grid[:, row][:, :, column][..., b, :, :].permute(0, 3, 4, 1, 2)
                change = change + count * ((matrix[:, :, :3] * v[:, None]).sum(2) + matrix[:, :, 3])
                total = total + count
    return change / total


@functools.cache
def _slice_on_cpu() -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """`slice_readings` in C, many times faster; None where there is no compiler, or nothing but torch."""
    try:
        from mirage_plugin.model.native import library
        from mirage_plugin.model.slicing import SliceReadings

        library("slicing")
    except (ModuleNotFoundError, OSError, subprocess.SubprocessError):
        return None
    return SliceReadings.apply


def compose(v: Tensor, edit: Edit, lines: Tensor | None = None) -> Tensor:
    """Apply an edit to a frame at any resolution.

    v [N, 3, H', W'] in [-1, 1]. Colour transforms are chosen between as in `slice_readings`; the detail is resampled
    where the frame is larger or smaller than the working frame. `lines` [N, 2, H', W'] of `frame_lines` are drawn over
    that; None draws none. Returns v of the answer, not clamped.
    """
    slice_fast = _slice_on_cpu() if v.device.type == "cpu" else None
    change = (slice_fast or slice_readings)(v, edit.matrices, edit.anchors)
    detail = cells_to_pixels(edit.detail.float())
    size = v.shape[-2:]
    if detail.shape[-2:] != size:
        detail = functional.interpolate(detail, size=size, mode="bilinear", align_corners=False)
    answer = v + change + detail
    if lines is None:
        return answer
    pens = edit.pens.float().permute(0, 3, 1, 2)
    amounts = functional.interpolate(pens[:, :2], size=size, mode="bilinear", align_corners=False) * lines
    ink, shine = pens[:, 2:5, :1, :1], pens[:, 5:, :1, :1]
    return answer + amounts[:, :1].clamp(0, 1) * (ink - answer) + amounts[:, 1:] * shine


def pixelate(answer: Tensor, amount: Tensor, side: int = 4) -> Tensor:
    """Draw answers [N, C, H, W] in square pixels of `side`, as far as `amount` [N] says."""
    if not bool((amount > 0).any()):
        return answer
    return answer + amount.view(-1, 1, 1, 1) * (means_of_blocks(answer, side) - answer)


class MirageNet(nn.Module):
    """The denoiser of one tier: (source, noisy answer, planes, memory, condition) -> (edit, new memory)."""

    def __init__(self, tier: Tier) -> None:
        """Build the network of a tier with an edit of zero: it returns its source until it is trained."""
        super().__init__()
        self.tier = tier
        self.shade: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = shade_reference
        """Turns words into an edit; a trainer may put a compiled one here."""
        c0, c1, c2 = tier.widths
        d = tier.condition
        self.style_encoder = StyleEncoder()
        self.level = nn.Sequential(nn.Linear(CODE_SIZE + 4, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU())
        self.stem_source = nn.Linear(CELL * CELL * 3, c0)
        self.stem_noisy = nn.Linear(CELL * CELL * 3, c0, bias=False)
        self.stem_planes = nn.Linear(PLANE_CHANNELS, c0, bias=False)
        self.down1, self.down2 = nn.Linear(4 * c0, c1), nn.Linear(4 * c1, c2)
        self.up2, self.up1 = nn.Linear(c2, 4 * c1), nn.Linear(c1, 4 * c0)
        widths = (c0, c1, c2, c1, c0)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(width, tier.expand) for _ in range(depth))
            for width, depth in zip(widths, tier.depths, strict=True)
        )
        total = sum(3 * width * depth for width, depth in zip(widths, tier.depths, strict=True))
        self.film = nn.Linear(d, total + 2 * c0)
        self.memory = Memory(c0 if tier.full_grid else c1, tier.state)
        self.head_matrices = nn.Linear(c0, BINS * 12)
        self.head_words = nn.Linear(c0, WORDS)
        self.head_detail = nn.Linear(c0, CELL * CELL * 3)
        with torch.no_grad():
            for layer in (self.head_matrices, self.head_words, self.head_detail):
                layer.weight.zero_()
                layer.bias.zero_()
            self._keep_all(20.0)
            self.film.weight.mul_(0.3)
            self.film.bias.zero_()
            start = 0
            for width, depth in zip(widths, tier.depths, strict=True):
                for _ in range(depth):
                    # A gate of one half: every block takes part from the first step.
                    self.film.bias[start + 2 * width : start + 3 * width] = 0.5
                    start += 3 * width

    def _keep_all(self, logit: float) -> None:
        self.head_words.bias[: BINS * SURFACE].view(BINS, SURFACE)[:, KEEP] = logit

    @torch.no_grad()
    def begin_training(self) -> None:
        """Let the head paint: until then a new network keeps every surface as it is, and returns its source."""
        self._keep_all(-3.0)

    def style(self, parameters: Tensor) -> Tensor:
        """Parameters in [-1, 1], [N, VECTOR_SIZE] -> the style vector, [N, STYLE_SIZE]."""
        out: Tensor = self.style_encoder(parameters)
        return out

    def condition(self, style: Tensor, k: Tensor, trust: Tensor) -> Tensor:
        """Style vector [N, STYLE_SIZE], noise level [N] in [0, 1], trust in history [N] in [0, 1] -> [N, D]."""
        extra = torch.stack([k, k.square(), k.sqrt(), trust], -1).to(style.dtype)
        out: Tensor = self.level(torch.cat([style[:, :CODE_SIZE], extra], -1))
        return out

    def conditioned(self, condition: Tensor, style: Tensor) -> Tensor:
        """What the layers need to know of style, noise level and trust: float32 [N, F], the FiLM, then the style."""
        return torch.cat([self.film(condition).float(), style[:, CODE_SIZE:].float()], -1)

    def read(
        self, source: Tensor, noisy: Tensor, planes: Tensor, memory: MemoryState, film: Tensor, noise: Tensor,
        overview: Overview | None = None,
    ) -> tuple[Edit, Tensor, Tensor]:  # fmt: skip
        """Denoise once.

        `source`, `noisy` [N, h, w, 192] cells of v; `planes` [N, h, w, PLANE_CHANNELS]; `memory` warped to this
        frame; `film` [N, F] from `conditioned`; `noise` [N, 1, 4h, 4w]; `overview` of `look_over`. h and w
        must be multiples of 4. Returns the edit, what the network said of the surfaces [N, h, w, WORDS], and the next
        state [N, h/2, w/2, S] in [-1, 1], not yet quantised.
        """
        stem = self.stem_source(source) + self.stem_noisy(noisy) + self.stem_planes(planes)
        told: Callable[[Tensor], Tensor] | None = None
        if overview is not None:
            seen, scale, kept, came = overview
            if seen is not None:
                told = functools.partial(told_by_overview, overview=seen, scale=scale)
            elif kept is None or came is None:
                told = agreed
            else:
                before, motion = kept, came
                told = lambda words: remembered(agreed(words), before, motion)  # noqa: E731
        return self.from_stem(stem, memory, film, noise, doubted_lines(source, planes, film), told)

    def forward(
        self, source: Tensor, noisy: Tensor, planes: Tensor, memory: MemoryState, film: Tensor, noise: Tensor
    ) -> tuple[Edit, Tensor]:
        """As `read`: (edit, next state)."""
        edit, _, state = self.read(source, noisy, planes, memory, film, noise)
        return edit, state

    def from_stem(
        self, stem: Tensor, memory: MemoryState, film: Tensor, noise: Tensor, there: Tensor,
        told: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Edit, Tensor, Tensor]:  # fmt: skip
        """Everything behind the patch projection; `stem` [N, h, w, C0], `there` of `doubted_lines`, `told` what words
        become with an overview; rest as `read`."""
        style, film = film[:, -STYLE_NUMBERS:], film[:, :-STYLE_NUMBERS].to(stem.dtype)
        offset = 0

        def run(x: Tensor, stage: int) -> Tensor:
            nonlocal offset
            for block in self.stages[stage]:  # type: ignore[attr-defined]
                size = 3 * block.channels
                x = block(x, film[:, offset : offset + size])
                offset += size
            return x

        full = run(stem, 0)
        if self.tier.full_grid:
            full = self.memory.read(full, memory)
        half = run(self.down1(space_to_depth(full)), 1)
        if not self.tier.full_grid:
            half = self.memory.read(half, memory)
        deep = run(self.down2(space_to_depth(half)), 2)
        half = run(half + depth_to_space(self.up2(deep)), 3)
        full = run(full + depth_to_space(self.up1(half)), 4)
        state = self.memory.write(full if self.tier.full_grid else half, memory)
        c0 = self.tier.widths[0]
        out = rms_film(full, film[:, offset : offset + c0], film[:, offset + c0 : offset + 2 * c0])
        words = self.head_words(out)
        if told is not None:
            words = told(words)
        edit = Edit(*self.shade(words, self.head_detail(out), self.head_matrices(out), noise, there, style))
        return edit, words, state

    def parameter_count(self) -> int:
        """Return how many parameters the network has."""
        return sum(p.numel() for p in self.parameters())

"""Procedural, tileable textures and sprite cards for the paired worlds.

A texture is RGB plus a *window* flag: at night a style may light the windows of a wall, so the atlas has to
say which texels are glass. Everything is drawn from one `torch.Generator`, so a seed gives the same atlas
on every machine.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["MIP_LEVELS", "TEXTURE_SIZE", "Atlas", "draw_cards", "draw_texture", "tileable_noise"]

TEXTURE_SIZE = 128
MIP_LEVELS = 5
CARD_SIZE = 64


def uniform(rng: torch.Generator, low: float, high: float) -> float:
    """One float in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def choice(rng: torch.Generator, count: int) -> int:
    """One integer in [0, count)."""
    return int(torch.randint(count, (), generator=rng))


def tileable_noise(rng: torch.Generator, size: int, exponent: float) -> Tensor:
    """Noise with a 1/f**exponent spectrum, tileable, zero mean, unit variance: float32 [size, size]."""
    white = torch.randn(size, size, generator=rng)
    freq = torch.fft.fftfreq(size)
    radius = torch.sqrt(freq[:, None] ** 2 + freq[None, :] ** 2).clamp_min(1.0 / size)
    shaped = torch.fft.ifft2(torch.fft.fft2(white) * radius**-exponent).real
    out: Tensor = (shaped - shaped.mean()) / shaped.std().clamp_min(1e-6)
    return out


def _grid(size: int) -> tuple[Tensor, Tensor]:
    axis = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return u, v


def _cell_random(rng: torch.Generator, ix: Tensor, iy: Tensor, nx: int, ny: int) -> Tensor:
    table = torch.rand(ny, nx, generator=rng)
    return table[iy.long() % ny, ix.long() % nx]


KINDS = (
    "grass", "dirt", "sand", "stone", "pebbles", "bricks", "planks", "tiles", "checker", "stripes",
    "panels", "windows", "plaster", "bark", "leaves", "crown", "plain", "glow",
)  # fmt: skip

_BASE_COLOURS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "grass": ((0.25, 0.45, 0.15), (0.35, 0.5, 0.2), (0.45, 0.62, 0.25), (0.2, 0.38, 0.2)),
    "dirt": ((0.42, 0.31, 0.2), (0.5, 0.4, 0.3), (0.32, 0.25, 0.2)),
    "sand": ((0.8, 0.7, 0.5), (0.72, 0.6, 0.42)),
    "stone": ((0.5, 0.5, 0.5), (0.42, 0.42, 0.46), (0.6, 0.56, 0.5), (0.35, 0.36, 0.38)),
    "pebbles": ((0.5, 0.48, 0.45), (0.4, 0.42, 0.45)),
    "bricks": ((0.6, 0.3, 0.22), (0.52, 0.36, 0.28), (0.7, 0.66, 0.6), (0.45, 0.45, 0.48)),
    "planks": ((0.5, 0.34, 0.2), (0.62, 0.45, 0.28), (0.35, 0.24, 0.16)),
    "tiles": ((0.7, 0.7, 0.68), (0.45, 0.5, 0.55), (0.62, 0.5, 0.42)),
    "checker": ((0.7, 0.7, 0.7), (0.6, 0.4, 0.35), (0.4, 0.5, 0.6)),
    "stripes": ((0.6, 0.55, 0.5), (0.5, 0.3, 0.3), (0.35, 0.45, 0.6)),
    "panels": ((0.5, 0.52, 0.55), (0.38, 0.42, 0.48), (0.6, 0.58, 0.5)),
    "windows": ((0.62, 0.58, 0.52), (0.5, 0.42, 0.38), (0.55, 0.58, 0.62), (0.72, 0.66, 0.56)),
    "plaster": ((0.75, 0.72, 0.66), (0.65, 0.68, 0.7), (0.7, 0.6, 0.5)),
    "bark": ((0.35, 0.26, 0.18), (0.45, 0.38, 0.3)),
    "crown": ((0.4, 0.6, 0.4), (0.2, 0.42, 0.15), (0.5, 0.6, 0.2), (0.65, 0.4, 0.15)),
    "leaves": ((0.2, 0.42, 0.15), (0.3, 0.5, 0.18), (0.5, 0.45, 0.15), (0.15, 0.35, 0.2)),
    "plain": ((0.6, 0.6, 0.6), (0.7, 0.35, 0.3), (0.3, 0.5, 0.7), (0.75, 0.65, 0.3), (0.4, 0.6, 0.4)),
    # What glows is bright, as games draw it: nothing else tells it from what a lamp or the sun is on.
    "glow": ((1.0, 0.95, 0.8), (1.0, 0.8, 0.35), (1.0, 0.45, 0.3), (0.4, 1.0, 0.6), (0.45, 0.85, 1.0), (0.9, 0.5, 1.0)),
}


def draw_texture(kind: str, rng: torch.Generator) -> Tensor:
    """Draw one tileable texture of a kind in `KINDS`: float32 [4, 128, 128], RGB in [0, 1] and window flag."""
    size = TEXTURE_SIZE
    u, v = _grid(size)
    palette = _BASE_COLOURS[kind]
    base = torch.tensor(palette[choice(rng, len(palette))])
    # Games are not natural photographs: shift hue and brightness of the base freely.
    dimmest = 0.9 if kind == "glow" else 0.65
    base = (base * uniform(rng, dimmest, 1.35) + 0.07 * torch.randn(3, generator=rng)).clamp(0.03, 0.97)
    fine = tileable_noise(rng, size, uniform(rng, 0.3, 0.8))
    coarse = tileable_noise(rng, size, uniform(rng, 1.1, 1.8))
    rough = uniform(rng, 0.02, 0.12)
    tone = 1.0 + rough * fine + uniform(rng, 0.02, 0.12) * coarse
    window = torch.zeros(size, size)
    second = (base + 0.25 * torch.randn(3, generator=rng)).clamp(0.02, 0.98)
    blend = torch.zeros(size, size)

    if kind in ("grass", "leaves"):
        blades = tileable_noise(rng, size, 0.5)
        tone = 1.0 + uniform(rng, 0.12, 0.3) * blades + 0.1 * coarse
        blend = torch.sigmoid(3 * coarse) * 0.5
    elif kind in ("dirt", "sand", "stone", "plaster"):
        blend = torch.sigmoid(2 * coarse - 1) * uniform(rng, 0.0, 0.6)
        if kind == "stone" and uniform(rng, 0, 1) < 0.5:
            cracks = (coarse.abs() < 0.08).float()
            tone = tone * (1 - 0.5 * cracks)
    elif kind == "pebbles":
        count = 28
        points = torch.rand(count, 2, generator=rng)
        delta = torch.stack([u, v], -1)[:, :, None, :] - points
        delta = delta - delta.round()
        near, index = delta.square().sum(-1).sqrt().topk(2, dim=-1, largest=False)
        gap = ((near[..., 1] - near[..., 0]) * 22).clamp(0, 1)
        shade = torch.rand(count, generator=rng)[index[..., 0]]
        tone = tone * (0.35 + 0.65 * gap) * (0.75 + 0.5 * shade)
    elif kind in ("bricks", "tiles", "panels"):
        ny = (8, 4, 2)[("bricks", "tiles", "panels").index(kind)] * (1 + choice(rng, 2))
        nx = ny // 2 if kind == "bricks" else ny
        row = (v * ny).floor()
        offset = 0.5 * (row % 2) if kind == "bricks" else torch.zeros_like(v)
        x = u * nx + offset
        fx, fy = x - x.floor(), v * ny - row
        mortar = uniform(rng, 0.03, 0.1)
        edge = torch.minimum(
            torch.minimum(fx, 1 - fx) * (2.0 if kind == "bricks" else 1.0), torch.minimum(fy, 1 - fy)
        )
        line = (edge < mortar).float()
        tone = tone * (0.8 + 0.4 * _cell_random(rng, x.floor(), row, nx, ny))
        joint = uniform(rng, 0.35, 1.4)
        tone = tone * (1 - line) + line * joint
        blend = line * 0.6
        if kind == "panels":
            corner = torch.maximum((fx - 0.5).abs(), (fy - 0.5).abs())
            rivet = ((fx - 0.5).abs() - 0.4).square() + ((fy - 0.5).abs() - 0.4).square()
            tone = tone * (1 - 0.4 * (rivet < 0.0015).float()) * (1 + 0.1 * (corner < 0.3).float())
    elif kind in ("planks", "bark"):
        n = 4 + choice(rng, 5)
        x = u * n
        fx = x - x.floor()
        grain = tileable_noise(rng, size, 1.0)
        streak = torch.fft.ifft(
            torch.fft.fft(grain, dim=0) * torch.exp(-40 * torch.fft.fftfreq(size)[:, None].abs()), dim=0
        ).real
        tone = 1 + uniform(rng, 0.15, 0.35) * streak + 0.05 * fine
        tone = tone * (0.8 + 0.4 * _cell_random(rng, x.floor(), torch.zeros_like(x), n, 1))
        if kind == "planks":
            tone = tone * (1 - 0.6 * (torch.minimum(fx, 1 - fx) < 0.05).float())
    elif kind == "checker":
        n = 2 * (1 + choice(rng, 3))
        blend = (((u * n).floor() + (v * n).floor()) % 2) * uniform(rng, 0.4, 1.0)
    elif kind == "stripes":
        n = 2 + choice(rng, 6)
        blend = ((((u if choice(rng, 2) else v) * n) % 1.0) < 0.5).float()
    elif kind == "windows":
        nx, ny = 2 + choice(rng, 3), 2 + choice(rng, 3)
        x, y = u * nx, v * ny
        fx, fy = x - x.floor(), y - y.floor()
        wx, wy = uniform(rng, 0.18, 0.3), uniform(rng, 0.2, 0.34)
        inside = ((fx - 0.5).abs() < wx) & ((fy - 0.5).abs() < wy)
        frame = ((fx - 0.5).abs() < wx + 0.05) & ((fy - 0.5).abs() < wy + 0.05) & ~inside
        bars = inside & (((fx - 0.5).abs() < 0.02) | ((fy - 0.5).abs() < 0.02))
        window = (inside & ~bars).float()
        glass = torch.tensor([0.2, 0.26, 0.34]) * uniform(rng, 0.5, 1.6)
        lit = 0.7 + 0.6 * _cell_random(rng, x.floor(), y.floor(), nx, ny)
        rgb = base[:, None, None] * tone
        rgb = torch.where(frame | bars, second[:, None, None].expand_as(rgb), rgb)
        rgb = torch.where(window > 0, glass[:, None, None] * lit, rgb)
        return torch.cat([rgb.clamp(0, 1), window[None]])
    rgb = base[:, None, None] * (1 - blend) + second[:, None, None] * blend
    return torch.cat([(rgb * tone).clamp(0, 1), window[None]])


def draw_cards(rng: torch.Generator, count: int) -> Tensor:
    """Draw sprite cards, symmetric creatures and bushes: float32 [count, 4, 64, 64], RGB and alpha (0 or 1)."""
    u, v = _grid(CARD_SIZE)
    cards = []
    for _ in range(count):
        alpha = torch.zeros(CARD_SIZE, CARD_SIZE, dtype=torch.bool)
        rgb = torch.zeros(3, CARD_SIZE, CARD_SIZE)
        body = torch.rand(3, generator=rng)
        for part in range(4 + choice(rng, 5)):
            cx, cy = uniform(rng, 0.0, 0.28), uniform(rng, 0.2, 0.82)
            rx, ry = uniform(rng, 0.05, 0.24), uniform(rng, 0.06, 0.24)
            if part == 0:
                cx, cy, rx, ry = 0.0, 0.62, uniform(rng, 0.15, 0.3), 0.36
            colour = body if part == 0 else (body + 0.3 * torch.randn(3, generator=rng)).clamp(0, 1)
            du = (u - 0.5).abs() - cx
            inside = (du / rx).square() + ((v - cy) / ry).square() < 1
            lit = 0.65 + 0.5 * ((cy + ry - v) / (2 * ry)).clamp(0, 1)
            rgb = torch.where(inside, (colour[:, None, None] * lit).clamp(0, 1), rgb)
            alpha |= inside
        eye = ((u - 0.5).abs() - 0.08).square() + (v - 0.35).square() < 0.0012
        rgb = torch.where(eye & alpha, torch.tensor(1.0 if choice(rng, 2) else 0.05), rgb)
        cards.append(torch.cat([rgb, alpha[None].float()]))
    return torch.stack(cards)


class Atlas:
    """Textures with mip levels, sampled by texture id, metre coordinates and footprint.

    `levels[i]` is float32 [count, S, S, 4] with S = 128 >> i.
    """

    def __init__(self, textures: Tensor) -> None:
        """Build the mip chain of `textures`: float32 [count, 4, 128, 128]."""
        self.levels: list[Tensor] = []
        level = textures
        for _ in range(MIP_LEVELS):
            self.levels.append(level.permute(0, 2, 3, 1).contiguous())
            level = torch.nn.functional.avg_pool2d(level, 2)

    def sample(self, index: Tensor, u: Tensor, v: Tensor, footprint: Tensor, smooth: bool) -> Tensor:
        """Sample by texture id.

        `index` int64 [P]; `u`, `v` float32 [P] in repeats of the texture; `footprint` float32 [P], repeats
        covered by one pixel; `smooth` mixes neighbouring texels (filtered look) or takes the nearest one.
        Returns float32 [P, 4].
        """
        level = (footprint * TEXTURE_SIZE).clamp_min(1e-6).log2().clamp(0, MIP_LEVELS - 1)
        level = level.round().long()
        out = torch.empty(index.numel(), 4, device=u.device)
        for lod, table in enumerate(self.levels):
            chosen = (level == lod).nonzero()[:, 0]
            if chosen.numel():
                out[chosen] = _texels(table, index[chosen], u[chosen], v[chosen], smooth)
        return out


def _texels(table: Tensor, index: Tensor, u: Tensor, v: Tensor, smooth: bool) -> Tensor:
    size = table.shape[1]
    flat = table.reshape(-1, 4)

    def at(x: Tensor, y: Tensor) -> Tensor:
        return flat[(index * size + y % size) * size + x % size]

    x, y = u * size, v * size
    if not smooth:
        return at(x.floor().long(), y.floor().long())
    x, y = x - 0.5, y - 0.5
    x0, y0 = x.floor(), y.floor()
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    ix, iy = x0.long(), y0.long()
    top = at(ix, iy) * (1 - fx) + at(ix + 1, iy) * fx
    bottom = at(ix, iy + 1) * (1 - fx) + at(ix + 1, iy + 1) * fx
    return top * (1 - fy) + bottom * fy


def rotation_y(angle: float) -> Tensor:
    """Rotation about the vertical axis: float32 [3, 3]."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])

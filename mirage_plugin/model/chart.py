"""The style chart: what a style makes of a few plain surfaces.

A painter who is shown a new palette looks at swatches, not at the recipe. The chart is a fixed set of swatches
(materials, greys and colours, sun and shade, up and side, near and far, sky) drawn in a style by the same program that
draws the truth. The style encoder reads it beside the parameters, so the network need not learn the arithmetic
of light and grading by itself: the colours it has to reach stand before it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from mirage_plugin.styles.parameters import VECTOR_SIZE
from mirage_plugin.train.worlds.gbuffer import SKY_DEPTH, GBuffer, Material
from mirage_plugin.train.worlds.program import plain_light, restyle

__all__ = ["CHART_SIZE", "chart"]

# (material, albedo, sunlit, ambient, normal's y, facing, metres)
_Swatch = tuple[Material, tuple[float, float, float], float, float, float, float, float]


def _swatches() -> list[_Swatch]:
    grey, dark, light = (0.45, 0.45, 0.45), (0.15, 0.15, 0.15), (0.8, 0.8, 0.8)
    red, green, blue = (0.7, 0.25, 0.2), (0.25, 0.5, 0.2), (0.2, 0.35, 0.7)
    out: list[_Swatch] = []
    for sun in (0.0, 0.8):
        for albedo in (dark, grey, light, red, green, blue):
            out.append((Material.WALL, albedo, sun, 0.7, 0.0, 0.8, 8.0))
        for albedo in (dark, grey, light, green):
            out.append((Material.GROUND, albedo, sun, 1.0, 1.0, 0.3, 8.0))
        for albedo in (grey, red, blue):
            out.append((Material.OBJECT, albedo, sun, 0.7, 0.0, 0.8, 8.0))
        out.append((Material.OBJECT, grey, sun, 1.0, 1.0, 0.5, 8.0))
        out.append((Material.CREATURE, grey, sun, 0.7, 0.0, 1.0, 8.0))
        out.append((Material.FOLIAGE, green, sun, 0.7, 0.2, 0.6, 8.0))
        out.append((Material.FOLIAGE, green, sun, 0.9, 0.8, 0.6, 8.0))
        out.append((Material.WATER, (0.18, 0.32, 0.42), sun, 1.0, 1.0, 0.2, 20.0))
        out.append((Material.WALL, grey, sun, 0.7, 0.0, 0.8, 40.0))
        out.append((Material.GROUND, grey, sun, 1.0, 1.0, 0.1, 40.0))
        out.append((Material.WALL, grey, sun, 0.7, 0.0, 0.8, 150.0))
    out.append((Material.WALL, grey, 0.3, 0.5, 0.0, 0.3, 3.0))
    out.append((Material.EMISSIVE, (0.9, 0.8, 0.5), 0.0, 0.7, 0.0, 0.8, 8.0))
    out.append((Material.WINDOW, (0.2, 0.26, 0.34), 0.2, 0.7, 0.0, 0.8, 8.0))
    for _ in range(5):
        out.append((Material.SKY, (0.5, 0.6, 0.8), 0.0, 1.0, 0.0, 1.0, SKY_DEPTH))
    return out


# Elevation (as `GBuffer.height`) and cloud of the sky swatches, which come last.
_SKY = ((2.0, 0.0), (20.0, 0.0), (60.0, 0.0), (20.0, 0.8), (60.0, 0.8))
CHART_SIZE = 3 * len(_swatches())
"""Numbers of a chart: the colours of its swatches."""


@functools.cache
def _surfaces() -> tuple[GBuffer, Tensor]:
    """The swatches as frames of 2x2 pixels, and what a plain game would draw there."""
    swatches = _swatches()
    count = len(swatches)

    def plane(values: Sequence[float] | Sequence[tuple[float, ...]], channels: int = 1) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).view(count, channels, 1, 1).expand(-1, -1, 2, 2).clone()

    albedo = plane([s[1] for s in swatches], 3)
    height, cloud = [1.0] * count, [0.0] * count
    for i, (elevation, cover) in enumerate(_SKY):
        height[count - len(_SKY) + i], cloud[count - len(_SKY) + i] = elevation, cover
    none = torch.zeros(count, 1, 2, 2)
    buffer = GBuffer(
        albedo=albedo, flat=albedo, direct=plane([s[2] for s in swatches]), ambient=plane([s[3] for s in swatches]),
        lamp=torch.zeros(count, 3, 2, 2), normal=plane([(0.0, s[4], (1 - s[4] ** 2) ** 0.5) for s in swatches], 3),
        facing=plane([s[5] for s in swatches]), depth=plane([s[6] for s in swatches]), height=plane(height),
        cloud=plane(cloud), material=plane([float(s[0]) for s in swatches]).to(torch.uint8),
        ident=none.to(torch.int16), motion=torch.zeros(count, 2, 2, 2), visible=none.bool(),
        hud=torch.zeros(count, 4, 2, 2), cut=torch.zeros(count, 1, 1, 1, dtype=torch.bool),
    )  # fmt: skip
    # What the plain style makes of them: a style is what it changes about a game's own picture.
    lit = (albedo * plain_light(buffer)).clamp(0, 1)
    return buffer, torch.where(buffer.material == Material.SKY, albedo, lit)


def chart(natural: Tensor) -> Tensor:
    """Draw the charts of styles, natural units [N, VECTOR_SIZE] -> colours [N, CHART_SIZE] in [0, 1]."""
    n = natural.shape[0]
    buffer, source = _surfaces()
    count = source.shape[0]
    buffer = GBuffer.cat([buffer] * n).to(natural.device)
    style = natural.float().repeat_interleave(count, 0)
    assert style.shape[1] == VECTOR_SIZE
    noise = torch.zeros(n * count, 1, 1, 1, device=natural.device)
    drawn = restyle(buffer, style, noise, source.to(natural.device).repeat(n, 1, 1, 1))
    return drawn[:, :, 0, 0].reshape(n, CHART_SIZE)

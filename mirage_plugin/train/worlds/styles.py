"""Random points of the style space, for training and for tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mirage_plugin.styles.parameters import PARAMETERS, Style, load_style, preset_names
from mirage_plugin.train.worlds.textures import choice, uniform

__all__ = ["held_out", "random_style", "style_tensor"]

# Effects that change the picture most: each is off in most random styles, so that each is also seen alone.
_EFFECTS = (
    "headlight", "windows", "flatten", "cover", "wet", "ground", "foliage", "walls", "objects", "sky", "fog",
    "bands", "ink", "ink_detail", "hatch", "wash", "grain", "glow", "posterize", "pixels", "tone", "overhead",
)  # fmt: skip


def held_out(style: Style) -> bool:
    """Whether a style lies in the region that training never visits: covered ground *and* inked outlines."""
    cover, ink = style.value("cover"), style.value("ink")
    assert isinstance(cover, float)
    assert isinstance(ink, float)
    return cover > 0.45 and ink > 0.45


# High-frequency effects hide everything else: half as often.
_RARE = ("hatch", "wash", "grain", "posterize", "pixels", "ink_detail")


def _random(rng: torch.Generator) -> Style:
    density = (0.2, 0.3, 0.45)[choice(rng, 3)]
    settings: dict[str, float | list[float]] = {}
    for p in PARAMETERS:
        if p.size == 3:
            grey = torch.rand(1, generator=rng)
            colour = torch.lerp(grey.expand(3), torch.rand(3, generator=rng), uniform(rng, 0.2, 1.0))
            if p.name in ("sun_colour", "ambient_colour"):
                colour = torch.lerp(torch.ones(3), colour, uniform(rng, 0, 0.6))
            if p.name in ("ink_colour", "tone_dark"):
                colour = colour * uniform(rng, 0, 0.5) if choice(rng, 5) else colour
            if p.name == "tone_light":
                colour = 1 - (1 - colour) * uniform(rng, 0, 0.5)
            settings[p.name] = colour.tolist()
        elif p.name in _EFFECTS:
            likely = density * (0.5 if p.name in _RARE else 1.0)
            settings[p.name] = uniform(rng, 0.25, p.high) if uniform(rng, 0, 1) < likely else 0.0
        else:
            spread = (p.high - p.low) * 0.15 * float(torch.randn((), generator=rng))
            settings[p.name] = float(np.clip(p.default[0] + spread, p.low, p.high))
    return Style.make("random", settings)


def random_style(rng: torch.Generator, *, only_held_out: bool = False) -> Style:
    """Draw a style: random effects, a shaken preset, or a mix; never a held-out one unless asked."""
    names = preset_names()
    while True:
        kind = choice(rng, 5)
        if kind <= 1:
            style = _random(rng)
        elif kind <= 3:
            preset, shaken = load_style(names[choice(rng, len(names))]), _random(rng)
            style = preset.mixed(shaken, uniform(rng, 0.0, 0.3))
        else:
            first, second = (load_style(names[choice(rng, len(names))]) for _ in range(2))
            style = first.mixed(second, uniform(rng, 0.0, 1.0))
        if only_held_out:
            values = {"cover": uniform(rng, 0.5, 1.0), "ink": uniform(rng, 0.5, 1.0)}
            base = {p.name: style.value(p.name) for p in PARAMETERS}
            return Style.make("held-out", base | values)
        if not held_out(style):
            return style


def style_tensor(styles: list[Style]) -> tuple[Tensor, Tensor]:
    """Stack styles: natural units and [-1, 1], both float32 [len(styles), VECTOR_SIZE]."""
    natural = torch.from_numpy(np.stack([s.values for s in styles]))
    return natural, torch.from_numpy(np.stack([s.vector() for s in styles]).astype(np.float32))

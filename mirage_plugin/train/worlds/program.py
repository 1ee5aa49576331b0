"""What a style does to a G-buffer: the truth of every training pair.

`restyle` draws a clip in a style; `draw_source` draws the same clip as a plain game would. Both are batched
over frames, each with its own parameters, and use nothing that a frame does not show or that is not given to
the network: geometry, materials, the source's own shadows, and the noise field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.pixelate import means_of_blocks
from mirage_kernels.shade import DARK_SKY, SCATTER, SCATTERED_SUN, SHOWN_SKY, SOFT_RAMP, steps_of
from mirage_plugin.styles.parameters import PARAMETERS
from mirage_plugin.train.worlds.gbuffer import GBuffer, Material
from mirage_plugin.train.worlds.textures import choice, uniform

__all__ = [
    "Look",
    "as_shown",
    "coarse_as",
    "draw_source",
    "edges",
    "of_looks",
    "plain_light",
    "random_look",
    "restyle",
]

_LUMA = (0.2126, 0.7152, 0.0722)
_PLAIN = {p.name: p.default[0] for p in PARAMETERS if p.size == 1}


def luma(rgb: Tensor) -> Tensor:
    """Brightness of display-referred RGB: [N, 3, H, W] -> [N, 1, H, W]."""
    weights = torch.tensor(_LUMA, device=rgb.device, dtype=rgb.dtype).view(1, 3, 1, 1)
    return (rgb * weights).sum(1, keepdim=True)


def edges(g: GBuffer, texture: Tensor) -> tuple[Tensor, Tensor]:
    """Outlines of shapes, and of their textures: two float32 [N, 1, H, W] in [0, 1].

    Depth is compared through 1/z, which is affine on the screen for a plane: its Laplacian is zero on every
    flat surface at any angle and jumps where surfaces part.
    """
    inverse = 1.0 / g.depth
    pad = functional.pad(inverse, (1, 1, 1, 1), mode="replicate")
    lap_x = (pad[..., 1:-1, 2:] + pad[..., 1:-1, :-2] - 2 * inverse).abs()
    lap_y = (pad[..., 2:, 1:-1] + pad[..., :-2, 1:-1] - 2 * inverse).abs()
    crease = torch.maximum(lap_x, lap_y) / inverse
    edge = ((crease - 0.03) * 18).clamp(0, 1)
    material = torch.where(g.material == Material.WINDOW, Material.WALL, g.material).float()
    number = g.ident.float() + 1000 * material
    jump = torch.zeros_like(edge)
    turn = torch.zeros_like(edge)
    normal = g.normal.float()
    jump[..., :, 1:] = (number[..., :, 1:] != number[..., :, :-1]).float()
    jump[..., 1:, :] = torch.maximum(jump[..., 1:, :], (number[..., 1:, :] != number[..., :-1, :]).float())
    turn[..., :, 1:] = 1 - (normal[..., :, 1:] * normal[..., :, :-1]).sum(1, keepdim=True)
    turn[..., 1:, :] = torch.maximum(
        turn[..., 1:, :], 1 - (normal[..., 1:, :] * normal[..., :-1, :]).sum(1, keepdim=True)
    )
    solid = (g.material != Material.SKY).float()
    edge = torch.maximum(edge * solid, jump)
    edge = torch.maximum(edge, ((turn - 0.15) * 4).clamp(0, 1) * solid)
    tone = luma(texture)
    slope = torch.zeros_like(edge)
    slope[..., :, 1:] = (tone[..., :, 1:] - tone[..., :, :-1]).abs()
    slope[..., 1:, :] = torch.maximum(slope[..., 1:, :], (tone[..., 1:, :] - tone[..., :-1, :]).abs())
    return edge, ((slope - 0.05) * 8).clamp(0, 1) * solid


def _fog(depth: Tensor, amount: Tensor) -> Tensor:
    """How much fog hides at a depth: [N, 1, H, W]. At amount 1 half is gone after 6 m, at 0.5 after 40 m."""
    density = 0.0025 * torch.exp(amount * 3.9) * (amount > 0.01)
    return 1 - torch.exp(-(depth.clamp_max(400) * density))


def _sky(g: GBuffer, top: Tensor, horizon: Tensor, clouds: Tensor) -> Tensor:
    up = (g.height.float() / 100).clamp(0, 1)
    base = horizon + (top - horizon) * up.clamp_min(1e-4).pow(0.6)
    return base + (torch.lerp(horizon, torch.ones_like(horizon), 0.35) - base) * (g.cloud.float() * clouds)


def _post(rgb: Tensor, exposure: Tensor, contrast: Tensor, saturation: Tensor, temperature: Tensor) -> Tensor:
    shift = torch.tensor([0.12, 0.0, -0.14], device=rgb.device).view(1, 3, 1, 1)
    rgb = rgb * torch.exp2(exposure) * (1 + shift * temperature)
    # A soft shoulder: highlights roll off instead of clipping to a flat patch.
    rgb = torch.where(rgb > 0.8, 0.8 + 0.2 * torch.tanh((rgb - 0.8) / 0.2), rgb)
    rgb = (rgb - 0.45) * contrast + 0.45
    grey = luma(rgb)
    return (grey + (rgb - grey) * saturation).clamp(0, 1)


def restyle(
    g: GBuffer, style: Tensor, noise: Tensor, source: Tensor, screen: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Draw frames in their styles.

    `g` holds N frames; `style` float32 [N, VECTOR_SIZE] in natural units; `noise` float32 [N, 1, H/2, W/2]
    unit normal; `source` float32 [N, 3, H, W] in [0, 1], the drawn source (its sky shows where the style
    does not replace it). `screen` is what becomes of a picture [N, 3, H, W] on the game's screen (`coarse_as`); marks
    are drawn over that. Returns float32 [N, 3, H, W] in [0, 1].
    """
    p: dict[str, Tensor] = {}
    start = 0
    for parameter in PARAMETERS:
        p[parameter.name] = style[:, start : start + parameter.size, None, None].float()
        start += parameter.size

    material = g.material
    sky = (material == Material.SKY).float()
    normal_y = g.normal[:, 1:2].float()
    albedo, flat = g.albedo.float(), g.flat.float()
    detail = luma(albedo) - luma(flat)
    rgb = torch.lerp(albedo, flat, p["flatten"])

    def paint(rgb: Tensor, kinds: tuple[Material, ...], amount: Tensor, colour: Tensor) -> Tensor:
        where = torch.zeros_like(material, dtype=torch.bool)
        for kind in kinds:
            where |= material == kind
        tone = (luma(rgb) / 0.5).clamp(0, 2)
        return torch.lerp(rgb, colour * (0.35 + 0.65 * tone), where.float() * amount)

    rgb = paint(rgb, (Material.GROUND, Material.WATER), p["ground"], p["ground_colour"])
    rgb = paint(rgb, (Material.FOLIAGE,), p["foliage"], p["foliage_colour"])
    rgb = paint(rgb, (Material.WALL,), p["walls"], p["wall_colour"])
    rgb = paint(rgb, (Material.OBJECT, Material.CREATURE), p["objects"], p["object_colour"])

    # What lies on the ground clings to bright texels first: a patchiness that the source lets one infer.
    lies = ((normal_y - 0.35) * 2.2 + detail * 0.8).clamp(0, 1) * (material != Material.CREATURE) * (1 - sky)
    lies = (lies * p["cover"] * 1.25).clamp(0, 1)
    rgb = torch.lerp(rgb, p["cover_colour"] * (0.94 + 0.12 * (detail * 4).clamp(-1, 1)), lies)
    level = ((normal_y - 0.7) * 4).clamp(0, 1) * (1 - sky) * p["wet"]
    rgb = rgb * (1 - 0.45 * level)

    facing, ambient = g.facing.float(), g.ambient.float()
    hemisphere = torch.lerp(ambient, ambient * (0.55 + 0.6 * normal_y.clamp_min(-0.5)), p["overhead"])
    direct = g.direct.float() * p["sun"]
    around = hemisphere * p["ambient"] + facing * p["headlight"] * 0.5
    lamp = g.lamp.float() * p["lamps"]
    # What lies on things scatters light: a shadow on it is half as deep.
    scattered = torch.lerp(direct, SCATTERED_SUN * p["sun"], SCATTER * lies)
    light = scattered * p["sun_colour"] + around * p["ambient_colour"] + lamp
    # What part of a surface's light is sun, what sky and what lamp, a picture only hints at: half of what a style
    # changes about their shares is drawn, all of what it changes about the whole.
    own = direct + around + luma(lamp)
    was = g.direct.float() * _PLAIN["sun"] + ambient * _PLAIN["ambient"] + luma(g.lamp.float()) * _PLAIN["lamps"]
    whole = (0.5 * p["sun"] + 0.8 * p["ambient"] + 0.35 * p["headlight"] + 0.15 * p["lamps"]) / (
        0.5 * _PLAIN["sun"] + 0.8 * _PLAIN["ambient"] + 0.15 * _PLAIN["lamps"]
    )
    rgb = rgb * light * (whole * was.clamp_min(0.02) / own.clamp_min(0.02)).clamp(0.05, 20).sqrt()
    # Bands of the brightness that is seen (Winnemoeller et al. 2006), not of a light nobody sees.
    steps, seen = p["band_count"].clamp_min(1), luma(rgb)
    stepped = steps_of(seen * steps, SOFT_RAMP) / steps
    rgb = rgb * torch.lerp(torch.ones_like(seen), stepped / seen.clamp_min(0.02), p["bands"])

    glows = (material == Material.EMISSIVE).float() * p["emissive"] * 0.9
    rgb = rgb + albedo * glows
    glass = (material == Material.WINDOW).float()
    rgb = torch.lerp(rgb, p["window_colour"] * (0.5 + 2.2 * luma(albedo)), (glass * p["windows"]).clamp(0, 1))
    mirror = level * (1 - facing).clamp(0, 1).square()
    rgb = torch.lerp(rgb, p["sky_horizon"], (mirror * 0.85).clamp(0, 1))

    replaced = _sky(g, p["sky_top"], p["sky_horizon"], p["clouds"])
    # As dark as the sky is about here: neither a star nor a game's grain has a sky of its own.
    about = functional.avg_pool2d(luma(source) * sky, 15, 1, 7) / functional.avg_pool2d(sky, 15, 1, 7).clamp_min(1e-3)
    shown = ((about - DARK_SKY) / (SHOWN_SKY - DARK_SKY)).clamp(0, 1)
    rgb = torch.where(sky > 0, torch.lerp(source, replaced, p["sky"] * shown), rgb)
    haze = _fog(g.depth, p["fog"])
    rgb = torch.lerp(rgb, p["fog_colour"], torch.where(sky > 0, haze * 0.75 * shown, haze))

    height, width = rgb.shape[2:]
    size = (height, width)
    fine = functional.interpolate(noise, size=size, mode="nearest")
    pooled = functional.avg_pool2d(functional.pad(noise, (2, 2, 2, 2), mode="replicate"), 5, 1) * 5.0
    pooled = functional.interpolate(pooled, size=size, mode="bilinear", align_corners=False)
    edge, texture_edge = edges(g, torch.lerp(albedo, flat, p["flatten"].detach() * 0.3))
    rgb = rgb * (1 + 0.13 * p["wash"] * pooled)
    rgb = rgb * (1 - 0.35 * p["wash"] * edge * (1 - p["ink"]))

    rgb = _post(rgb, p["exposure"], p["contrast"], p["saturation"], p["temperature"])
    duo = torch.lerp(p["tone_dark"], p["tone_light"], luma(rgb))
    rgb = torch.lerp(rgb, duo, p["tone"])
    levels = 5.0
    rgb = torch.lerp(rgb, ((rgb * levels).floor() + 0.5) / levels, p["posterize"] * 0.9)
    if screen is not None:
        rgb = screen(rgb)

    dark = (0.75 - luma(rgb)).clamp(0, 1)
    stroke = sum(torch.roll(noise, (k, -k), (2, 3)) for k in range(-2, 3))
    assert isinstance(stroke, Tensor)
    stroke = functional.interpolate(stroke / 5**0.5, size=size, mode="bilinear", align_corners=False)
    covered = torch.sigmoid((stroke + 3.2 * dark - 1.7) * 5) * (dark > 0.02)
    rgb = torch.lerp(rgb, p["ink_colour"], p["hatch"] * 0.75 * covered)

    line = torch.maximum(edge, texture_edge * p["ink_detail"])
    wide = functional.max_pool2d(line, 3, 1, 1)
    line = torch.lerp(line, wide, p["ink_width"])
    rgb = torch.lerp(rgb, p["ink_colour"], (line * p["ink"] * 1.1).clamp(0, 1))
    shine = torch.maximum(edge, functional.avg_pool2d(wide, 3, 1, 1) * 0.7)
    rgb = rgb + p["glow_colour"] * shine * p["glow"]
    rgb = rgb * (1 + 0.11 * p["grain"] * fine) + 0.03 * p["grain"] * fine
    coarse = means_of_blocks(rgb, 4)
    rgb = torch.lerp(rgb, coarse, p["pixels"])
    rgb = rgb.clamp(0, 1)
    hud = g.hud.float()
    return torch.lerp(rgb, hud[:, :3], hud[:, 3:])


@dataclass(frozen=True)
class Look:
    """How a game draws its own picture; plain numbers, one set per clip."""

    sun: float
    sun_colour: tuple[float, float, float]
    ambient: float
    ambient_colour: tuple[float, float, float]
    texture: float
    lamps: float
    sky_top: tuple[float, float, float]
    sky_horizon: tuple[float, float, float]
    clouds: float
    fog: float
    exposure: float
    contrast: float
    saturation: float
    temperature: float
    pixels: int
    noise: float
    levels: int
    outline: float
    blur: bool


def random_look(rng: torch.Generator) -> Look:
    """Draw the look of a game nobody has seen."""

    def near(r: float, g: float, b: float, spread: float) -> tuple[float, float, float]:
        jitter = (torch.randn(3, generator=rng) * spread).tolist()
        return (min(max(r + jitter[0], 0), 1), min(max(g + jitter[1], 0), 1), min(max(b + jitter[2], 0), 1))

    def u(low: float, high: float) -> float:
        return uniform(rng, low, high)

    skies = (
        ((0.25, 0.5, 0.85), (0.75, 0.87, 0.97)), ((0.4, 0.6, 0.9), (0.85, 0.9, 0.95)),
        ((0.55, 0.6, 0.66), (0.75, 0.78, 0.8)), ((0.3, 0.25, 0.5), (0.95, 0.6, 0.4)),
        ((0.02, 0.03, 0.08), (0.1, 0.12, 0.2)), ((0.5, 0.3, 0.2), (0.9, 0.7, 0.5)),
        # And of any two colours, as skies are painted.
        ((u(0.1, 0.7), u(0.1, 0.7), u(0.1, 0.7)), (u(0.3, 1.0), u(0.3, 1.0), u(0.3, 1.0))),
    )  # fmt: skip
    top, horizon = skies[choice(rng, len(skies))]
    dark = choice(rng, 7) == 0
    return Look(
        sun=u(0.35, 0.95) * (0.5 if dark else 1), sun_colour=near(1, 0.95, 0.85, 0.07),
        ambient=u(0.4, 0.9) * (0.55 if dark else 1), ambient_colour=near(0.9, 0.93, 1.0, 0.06),
        texture=u(0.2, 1.0) if choice(rng, 3) == 0 else 1.0, lamps=u(0.0, 1.0),
        sky_top=near(*top, 0.08), sky_horizon=near(*horizon, 0.08), clouds=u(0, 1),
        fog=u(0.05, 0.45) if choice(rng, 4) == 0 else 0.0,
        exposure=u(-0.25, 0.35), contrast=u(0.8, 1.25), saturation=u(0.6, 1.4), temperature=u(-0.4, 0.4),
        pixels=(1, 1, 1, 1, 2, 3)[choice(rng, 6)], noise=u(0.005, 0.04) if choice(rng, 5) == 0 else 0.0,
        levels=(0, 0, 0, 31, 15)[choice(rng, 5)], outline=u(0.4, 1) if choice(rng, 10) == 0 else 0.0,
        blur=choice(rng, 4) == 0,
    )  # fmt: skip


def _columns(looks: list[Look], device: torch.device) -> Callable[[str], Tensor]:
    """A look's numbers, one row per frame: name -> [N, 1 or 3, 1, 1]."""

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(look, name) for look in looks], device=device, dtype=torch.float32).view(
            len(looks), -1, 1, 1
        )

    return column


def plain_light(g: GBuffer) -> Tensor:
    """The light of the plain style: [N, 3, H, W], what a game's albedo times it looks like when nothing is restyled."""
    plain = {p.name: torch.tensor(p.default, device=g.depth.device).view(1, -1, 1, 1) for p in PARAMETERS}
    light = g.direct.float() * plain["sun"] * plain["sun_colour"] + g.lamp.float() * plain["lamps"]
    light = light + g.ambient.float() * plain["ambient"] * plain["ambient_colour"]
    return light + (g.material == Material.EMISSIVE) * 0.9 * plain["emissive"]


def as_shown(g: GBuffer, source: Tensor) -> GBuffer:
    """Frames whose materials are such that the plain style draws just what the game showed.

    `source` float32 [N, 3, H, W] in [0, 1] is the game's picture without the defects of its screen. How much of a
    dark picture is dark paint, and how much is a weak lamp or low exposure, nobody can tell from the picture; so the
    truth must not depend on it. A game that is dark, pale or warm stays so in every style.
    """
    albedo = g.albedo.float()
    # Dark paint has no ratio: a little is added on both sides.
    ratio = ((source + 0.02) / (albedo * plain_light(g) + 0.02)).clamp(0, 5)
    shown = {"albedo": albedo * ratio, "flat": g.flat.float() * ratio}
    return replace(g, **{name: value.clamp(0, 1.5).to(g.albedo.dtype) for name, value in shown.items()})


def of_looks(looks: list[Look], g: GBuffer) -> GBuffer:
    """Frames that have as much of their texture, and of their lamps, as games of these looks show, one look per frame.

    To be done before anything is drawn of them: the truth is as flat, and as textured, as the game, and a lamp that
    the game's own light all but hides is none that a night could be lit by.
    """
    column = _columns(looks, g.depth.device)
    shown = column("lamps") / column("ambient") * (_PLAIN["ambient"] / _PLAIN["lamps"])
    return replace(
        g,
        albedo=torch.lerp(g.flat.float(), g.albedo.float(), column("texture")).to(g.albedo.dtype),
        lamp=(g.lamp.float() * shown).clamp(0, 2).to(g.lamp.dtype),
    )


def coarse_as(looks: list[Look], rgb: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] in pixels as large, and as soft, as games of these looks have them, one look per frame.

    Truths as well: what a game's pixels are too coarse to show, nobody can draw from them, and a game of large pixels
    keeps them in every style.
    """
    out = rgb.clone()
    for size in {look.pixels for look in looks if look.pixels > 1}:
        chosen = [i for i, look in enumerate(looks) if look.pixels == size]
        out[chosen] = means_of_blocks(rgb[chosen], size)
    soft = [i for i, look in enumerate(looks) if look.blur]
    if soft:
        kernel = torch.tensor([0.12, 0.76, 0.12], device=rgb.device)
        weight = (kernel[:, None] * kernel[None]).view(1, 1, 3, 3).expand(3, 1, 3, 3)
        out[soft] = functional.conv2d(
            functional.pad(out[soft], (1, 1, 1, 1), mode="replicate"), weight, groups=3
        )
    return out


def draw_source(g: GBuffer, looks: list[Look], grain: Tensor) -> tuple[Tensor, Tensor]:
    """Draw frames as their games would: the picture, and the same without the defects of its screen.

    `g` as `of_looks` has it; `looks` has one entry per frame; `grain` float32 [N, 1, H, W], unit normal, is the
    game's own noise. Returns two of float32 [N, 3, H, W] in [0, 1]: the picture on the 8-bit grid, and what it was
    before pixels, blur, noise, few levels and the HUD.
    """
    device = g.depth.device
    column = _columns(looks, device)
    albedo = g.albedo.float()
    lamp = g.lamp.float() * (_PLAIN["lamps"] / _PLAIN["ambient"])
    around = (g.ambient.float() * column("ambient_colour") + lamp) * column("ambient")
    light = g.direct.float() * column("sun") * column("sun_colour") + around
    rgb = albedo * torch.where(g.material == Material.EMISSIVE, torch.ones_like(light), light)
    sky = g.material == Material.SKY
    rgb = torch.where(sky, _sky(g, column("sky_top"), column("sky_horizon"), column("clouds")), rgb)
    haze = _fog(g.depth, column("fog"))
    rgb = torch.lerp(rgb, column("sky_horizon"), torch.where(sky, torch.zeros_like(haze), haze))
    outline = column("outline")
    if bool((outline > 0).any()):
        rgb = rgb * (1 - edges(g, albedo)[0] * outline)
    rgb = _post(rgb, column("exposure"), column("contrast"), column("saturation"), column("temperature"))
    out = coarse_as(looks, rgb) + grain * column("noise")
    levels = column("levels")
    out = torch.where(levels > 0, (out * levels).round() / levels.clamp_min(1), out)
    hud = g.hud.float()
    out = torch.lerp(out, hud[:, :3], hud[:, 3:])
    return (out.clamp(0, 1) * 255).round() / 255, rgb

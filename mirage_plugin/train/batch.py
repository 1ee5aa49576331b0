"""Training batches: clips drawn twice, with the planes an engine would give."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mirage_plugin.model.network import Planes
from mirage_plugin.model.noise import advect_noise, fresh_noise
from mirage_plugin.styles.parameters import Style, parameter_slice
from mirage_plugin.train.worlds.gbuffer import GBuffer, Material
from mirage_plugin.train.worlds.program import (
    Look,
    as_shown,
    coarse_as,
    draw_source,
    edges,
    of_looks,
    random_look,
    restyle,
)
from mirage_plugin.train.worlds.raycast import draw_hud
from mirage_plugin.train.worlds.styles import random_style, style_tensor
from mirage_plugin.train.worlds.textures import choice

__all__ = ["Batch", "clip_noise", "draw_batch", "engine_planes", "kept", "offered", "render_pair", "sent_anew"]


@dataclass(frozen=True)
class Batch:
    """N clips of T frames; images float32 [T, N, C, H, W], v in [-1, 1].

    `motion` and `visible` are what the memory is moved by (zero motion and all visible where the engine's
    motion is withheld); `has_depth`, `has_motion` and `has_mask` float32 [T, N], 1 in frames that come with that plane;
    `parameters` [T, N, VECTOR_SIZE] in [-1, 1]; `cut` bool [T, N].
    """

    source: Tensor
    truth: Tensor
    noise: Tensor
    depth: Tensor
    motion: Tensor
    visible: Tensor
    mask: Tensor
    has_depth: Tensor
    has_motion: Tensor
    has_mask: Tensor
    parameters: Tensor
    cut: Tensor
    surface: Tensor | None = None
    """float32 [T, N, SURFACE_PLANES, H/2, W/2] of `surface_planes`; None where nobody knows what the pictures show."""

    def planes(self, t: int) -> Planes:
        """The planes of frame t, all present; withheld ones are blanked on the cell grid by the caller."""
        return Planes(self.depth[t], self.motion[t], self.mask[t])


def kept(batch: Batch, t: int, answer: Tensor) -> Tensor:
    """Frame t's answers v [N, 3, H, W] as a game is shown them: where its mask says overlay, its own pixels stand."""
    overlay = batch.mask[t][:, :1] * batch.has_mask[t][:, None, None, None]
    return torch.where(overlay > 0.5, batch.source[t], answer)


def offered(rng: torch.Generator, frames: int) -> Tensor:
    """In which frames of a clip an engine sends a plane, 1 or 0 [frames]: in all, in none, or now and then.

    Reading a plane back costs an engine time, so some send it with every other frame or so: what it told then is worth
    remembering.
    """
    if frames == 1 or choice(rng, 3) > 0:
        return torch.full((frames,), float(choice(rng, 2)))
    every = (2, 3, frames)[choice(rng, 3)]
    return ((torch.arange(frames) + choice(rng, every)) % every == 0).float()


def sent_anew(batch: Batch, rng: torch.Generator) -> Batch:
    """The same clips, with depth and mask in other frames; motion is moved by, and stays as it was."""
    frames, n = batch.has_depth.shape
    depth, mask = (torch.stack([offered(rng, frames) for _ in range(n)], 1) for _ in range(2))
    return replace(batch, has_depth=depth, has_mask=mask)


def engine_planes(g: GBuffer) -> tuple[Tensor, Tensor, Tensor]:
    """What an engine would send for these frames: depth [N, 1, H, W], motion [N, 2, H, W], mask [N, 3, H, W]."""
    overlay = (g.hud[:, 3:] > 0.5).float()
    thing = ((g.material == Material.CREATURE) | (g.ident >= 200)).float() * (1 - overlay)
    sky = (g.material == Material.SKY).float() * (1 - overlay)
    return g.depth, g.motion.float(), torch.cat([overlay, thing, sky], 1)


SURFACE_PLANES = 18
INK_WIDTH = parameter_slice("ink_width").start


def surface_planes(g: GBuffer, style: Tensor) -> Tensor:
    """What words about surfaces ought to say, of every second pixel: float32 [N, SURFACE_PLANES, H/2, W/2].

    Material's number, sun, openness, lamp (3), which way up, facing, nearness `1 / (1 + metres / 4)`, elevation and
    clouds of the sky, line (as wide as the style [N, VECTOR_SIZE] draws it), texture's line, shine, overlay, and how
    many times as bright (3) the surface would be without its texture.
    """
    albedo = g.albedo.float()
    edge, texture = edges(g, albedo)
    wide = functional.max_pool2d(edge, 3, 1, 1)
    shine = torch.maximum(edge, functional.avg_pool2d(wide, 3, 1, 1) * 0.7)
    width = style[:, INK_WIDTH, None, None, None].float()
    up = (g.height.float() / 100).clamp(0, 1).pow(0.6)
    planes = (
        g.material.float(), g.direct.float(), g.ambient.float(), g.lamp.float(), g.normal[:, 1:2].float(),
        g.facing.float(), 1 / (1 + g.depth * 0.25), up, g.cloud.float(), torch.lerp(edge, wide, width), texture, shine,
        g.hud[:, 3:].float(), torch.where(g.material == Material.SKY, 1.0, ((g.flat.float() + 0.02) / (albedo + 0.02))),
    )  # fmt: skip
    return torch.cat([plane[..., ::2, ::2] for plane in planes], 1)


def clip_noise(g: GBuffer, seed: int) -> Tensor:
    """The noise field of every frame of one clip, carried along its exact motion: [T, 1, H/2, W/2]."""
    frames, _, height, width = g.depth.shape
    key = torch.full((1,), seed, dtype=torch.int64)
    field = fresh_noise(key, torch.zeros(1, dtype=torch.int64), height // 2, width // 2)
    out = [field]
    for t in range(1, frames):
        fresh = fresh_noise(key, torch.full((1,), t, dtype=torch.int64), height // 2, width // 2)
        # One value per 2x2 pixels: the motion of the upper left one stands for all four.
        motion = g.motion[t : t + 1, :, ::2, ::2].float()
        field = advect_noise(field, motion, g.visible[t : t + 1, :, ::2, ::2], fresh)
        out.append(field)
    return torch.cat(out)


def _smooth_edges(rgb: Tensor, g: GBuffer) -> Tensor:
    """Anti-alias shape edges as a post-process filter does: [N, 3, H, W]."""
    number = g.ident.float()
    edge = torch.zeros_like(number)
    edge[..., :, 1:] = (number[..., :, 1:] != number[..., :, :-1]).float()
    edge[..., 1:, :] = torch.maximum(edge[..., 1:, :], (number[..., 1:, :] != number[..., :-1, :]).float())
    edge = functional.max_pool2d(functional.pad(edge, (0, 1, 0, 1)), 2, 1)
    kernel = torch.tensor([0.25, 0.5, 0.25], device=rgb.device)
    weight = (kernel[:, None] * kernel[None]).view(1, 1, 3, 3).expand(3, 1, 3, 3)
    soft = functional.conv2d(functional.pad(rgb, (1, 1, 1, 1), mode="replicate"), weight, groups=3)
    hud = g.hud[:, 3:].float()
    return torch.lerp(rgb, soft, edge * 0.9 * (1 - hud))


def _draw_pairs(
    g: GBuffer, styles: list[Style], noise: Tensor, looks: list[Look], smooth: Tensor, grain: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw frames as a game and in their styles: source and truth v [N, 3, H, W], parameters [N, VECTOR_SIZE].

    `g` as `of_looks` has it. All lists have one entry per frame of `g`; `smooth` bool [N]: whether the game
    anti-aliases; `grain` as in `draw_source`.
    """
    source, clean = draw_source(g, looks, grain)
    natural, scaled = style_tensor(styles)
    truth = restyle(as_shown(g, clean), natural, noise, source, functools.partial(coarse_as, looks))
    chosen = smooth[:, None, None, None]
    source = torch.where(chosen, (_smooth_edges(source, g) * 255).round() / 255, source)
    truth = torch.where(chosen, _smooth_edges(truth, g), truth)
    return source * 2 - 1, truth * 2 - 1, scaled


def render_pair(
    g: GBuffer, styles: list[Style], noise: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one clip as a game of a random look and in its styles (one per frame); returns as `_draw_pairs`."""
    frames, _, height, width = g.depth.shape
    look = random_look(rng)
    g = of_looks([look] * frames, g)
    smooth = torch.full((frames,), choice(rng, 5) < 3)
    grain = torch.randn(frames, 1, height, width, generator=rng)
    return _draw_pairs(g, styles, noise, [look] * frames, smooth, grain)


def draw_batch(
    draw: Callable[[torch.Generator], GBuffer],
    rng: torch.Generator,
    *,
    size: int,
    frames: int,
    height: int,
    width: int,
) -> Batch:
    """Draw `size` clips of `frames` frames, cropped to `height` x `width`, in random styles and looks."""  # fmt: skip
    clips: list[GBuffer] = []
    styles: list[Style] = []
    looks: list[Look] = []
    noise, smooth, told = [], [], []
    for _ in range(size):
        g = draw(rng)
        start = choice(rng, g.depth.shape[0] - frames + 1)
        top = choice(rng, g.depth.shape[2] - height + 1)
        left = choice(rng, g.depth.shape[3] - width + 1)
        g = g.frames(start, start + frames).crop(top, left, height, width)
        if choice(rng, 2):
            g = g.mirrored()
        # Another overlay every time: there are more of them than clips, and none is read from right to left.
        hud = draw_hud(rng, height, width, often=bool(choice(rng, 2)))
        clips.append(replace(g, hud=hud.half().expand(frames, -1, -1, -1)))
        first = random_style(rng)
        other, at = first, frames
        if frames > 1 and choice(rng, 8) == 0:
            other, at = random_style(rng), 1 + choice(rng, frames - 1)
        styles += [first if t < at else other for t in range(frames)]
        looks += [random_look(rng)] * frames
        smooth += [choice(rng, 5) < 3] * frames
        # Many a game's mask marks its overlay alone: then no sky in it does not say that there is none.
        told += [choice(rng, 4) > 0] * frames
        noise.append(clip_noise(g, int(torch.randint(1 << 31, (), generator=rng))))
    every = of_looks(looks, GBuffer.cat(clips))
    grain = torch.randn(size * frames, 1, height, width, generator=rng)
    source, truth, parameters = _draw_pairs(
        every, styles, torch.cat(noise), looks, torch.tensor(smooth), grain
    )
    depth, motion, mask = engine_planes(every)
    mask[:, 1:] *= torch.tensor(told).float()[:, None, None, None]
    surface = surface_planes(every, style_tensor(styles)[0])
    visible = every.visible.float()
    has_depth, has_motion, has_mask = (
        torch.stack([offered(rng, frames) for _ in range(size)], 1) for _ in range(3)
    )
    withheld = (has_motion == 0).T.reshape(-1)[:, None, None, None]
    motion = torch.where(withheld, torch.zeros_like(motion), motion)
    visible = torch.where(withheld, torch.ones_like(visible), visible)

    def by_time(rows: Tensor) -> Tensor:
        """[size * frames, ...] -> [frames, size, ...]."""
        return rows.reshape(size, frames, *rows.shape[1:]).transpose(0, 1)

    return Batch(
        source=by_time(source), truth=by_time(truth), noise=by_time(torch.cat(noise)), depth=by_time(depth),
        motion=by_time(motion), visible=by_time(visible), mask=by_time(mask), has_depth=has_depth,
        has_motion=has_motion, has_mask=has_mask, parameters=by_time(parameters),
        cut=by_time(every.cut[:, 0, 0, 0]), surface=by_time(surface),
    )  # fmt: skip

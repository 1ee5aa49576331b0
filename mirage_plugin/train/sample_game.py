"""The sample game as a paired world: its frames, and what is known of every pixel of them, for evaluation
alone.

It is a world of its own, that no training scene resembles by design. It lies in the checkout's `examples`
folder and is not part of the package, so it may not be there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mirage_plugin.errors import DataError
from mirage_plugin.train.worlds.gbuffer import SKY_DEPTH, GBuffer, Material
from mirage_plugin.train.worlds.program import luma
from mirage_plugin.train.worlds.raycast import LEVEL_SUN

__all__ = ["examples_directory", "game_clips"]

WARM_UP = 40
"""Ticks that the autopilot plays before the first clip and between two."""


def examples_directory() -> Path:
    """Where the sample game lies beside this package's checkout."""
    return Path(__file__).parents[2] / "examples"


def game_clips(
    count: int, frames: int, width: int, height: int, seed: int = 7, apart: int = WARM_UP
) -> Iterator[tuple[Tensor, GBuffer]]:
    """Let the autopilot play and take `count` clips of `frames` frames, `apart` ticks before each.

    Yields (source float32 [T, 3, H, W] in [0, 1] as the game drew it, its G-buffer) for each. Raises
    `DataError` where the game is not there or cannot be loaded.
    """
    folder = examples_directory()
    if not (folder / "arena" / "gbuffer.py").is_file():
        raise DataError(f"the sample game is not at {folder}: it comes with a checkout, not with the package")
    sys.path.insert(0, str(folder))
    try:
        play: Any = importlib.import_module("arena.play")
        take: Any = importlib.import_module("arena.gbuffer")
    except ImportError as error:
        raise DataError(f"the sample game at {folder} cannot be loaded: {error}") from error
    finally:
        sys.path.remove(str(folder))
    kinds = importlib.import_module("arena.textures").Material
    game = play.Game(seed, everything=True)
    renderer = game.renderer(width, height)
    for _ in range(count):
        for _ in range(apart):
            game.step(game.autopilot())
        taken = []
        for _ in range(frames):
            game.step(game.autopilot())
            view = game.view()
            taken.append((take.gbuffer(renderer, view), view.camera))
        yield _clip(taken, kinds)


def _clip(taken: list[tuple[Any, Any]], kinds: Any) -> tuple[Tensor, GBuffer]:
    frames = [_frame(g, camera, kinds) for g, camera in taken]
    stack = {name: torch.stack([f[name] for f in frames]) for name in frames[0]}
    source = stack.pop("source")
    depth, motion = stack["depth"], stack["motion"].float()
    visible = torch.zeros_like(depth, dtype=torch.bool)
    for t in range(1, depth.shape[0]):
        visible[t] = _seen_before(depth[t], depth[t - 1], stack["ident"][t], stack["ident"][t - 1], motion[t])
    count, _, height, width = depth.shape
    cut = torch.zeros(count, 1, 1, 1, dtype=torch.bool)
    cut[0] = True
    hud = torch.zeros(count, 4, height, width, dtype=torch.float16)
    return source, GBuffer(**stack, visible=visible, hud=hud, cut=cut)


def _frame(g: Any, camera: Any, kinds: Any) -> dict[str, Tensor]:
    """One frame of the game in the terms of `GBuffer`, each [C, H, W]."""

    def plane(array: Any) -> Tensor:
        found = torch.from_numpy(np.ascontiguousarray(array)).float()
        return found.permute(2, 0, 1) if found.dim() == 3 else found[None]

    sky, thing = plane(g.sky) > 0, plane(g.mask) == 2
    normal, position = plane(g.normal), plane(g.position)
    eye = torch.tensor([camera.x, camera.y, camera.z]).view(3, 1, 1)
    ray = functional.normalize(position - eye, dim=0)
    facing = (normal * ray).sum(0, keepdim=True)
    # Towards the eye, as the worlds have it.
    normal = torch.where(sky, -ray, torch.where(facing > 0, -normal, normal))
    albedo, sun, lamps = plane(g.albedo), plane(g.sun), plane(g.lamps)
    material = _material(torch.from_numpy(g.material.astype(np.int64))[None], normal, sky, thing, kinds)
    # In the plain style's shares. A floor in the open has 0.58 of sky and 0.53 of sun in this game.
    around, direct = luma((plane(g.light) - sun - lamps)[None])[0], luma(sun[None])[0]
    cloud = (
        (albedo.amin(0, keepdim=True) / albedo.amax(0, keepdim=True).clamp_min(0.01) - 0.72) / 0.28
    ).clamp(0, 1)
    ident = torch.from_numpy(g.ident.astype(np.int64))[None]
    half = {
        "albedo": albedo, "flat": plane(g.flat), "direct": (direct * (LEVEL_SUN / 0.53)).clamp(0, 1),
        "ambient": (around / 0.58).clamp(0, 1), "lamp": (lamps * (0.4 / 0.58 / 0.5)).clamp(0, 2), "normal": normal,
        "facing": facing.abs().clamp(0, 1), "height": torch.where(sky, ray[1:2] * 100, position[1:2]),
        "cloud": torch.where(sky, cloud, torch.zeros_like(cloud)), "motion": plane(g.motion),
    }  # fmt: skip
    return {name: value.half() for name, value in half.items()} | {
        "source": plane(g.source[..., :3]) / 255, "depth": plane(g.depth).clamp(1e-3, SKY_DEPTH),
        "material": material.to(torch.uint8),
        "ident": torch.where(sky, 0, torch.where(thing, 200 + ident, 1)).to(torch.int16),
    }  # fmt: skip


def _material(found: Tensor, normal: Tensor, sky: Tensor, thing: Tensor, kinds: Any) -> Tensor:
    """The game's materials as the style program knows them: what lies flat is ground, what stands is wall."""
    out = torch.full_like(found, int(Material.WALL))
    out[normal[1:2] > 0.7] = int(Material.GROUND)
    out[thing] = int(Material.OBJECT)
    for kind, ours in (
        (kinds.GROUND, Material.GROUND), (kinds.FOLIAGE, Material.FOLIAGE), (kinds.WATER, Material.WATER),
        (kinds.EMISSIVE, Material.EMISSIVE), (kinds.CRYSTAL, Material.EMISSIVE),
        (kinds.CREATURE, Material.CREATURE),
    ):  # fmt: skip
        out[found == int(kind)] = int(ours)
    out[sky] = int(Material.SKY)
    return out


def _seen_before(
    depth: Tensor, before: Tensor, ident: Tensor, ident_before: Tensor, motion: Tensor
) -> Tensor:
    """Whether the previous frame shows each surface: it stood inside the frame, at about this depth."""
    _, height, width = depth.shape
    y = (torch.arange(height).view(-1, 1) + motion[1]).round()
    x = (torch.arange(width) + motion[0]).round()
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
    there = before.reshape(-1)[index]
    same = (there - depth[0]).abs() < 0.05 * depth[0] + 0.2
    return (inside & same & (ident_before.reshape(-1)[index] == ident[0]))[None]

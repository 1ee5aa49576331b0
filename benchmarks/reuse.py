"""Is a reused edit a picture? The last edit on the new frame against the net's own answer, frame by frame.

    python benchmarks/reuse.py --json out/reuse.json --sheet out/reuse.png

Four clips, two of the sample game (640x360) and two of scenes that were never trained on, each in every style. The
net answers every frame; from several of them on, a copy of it answers the next eight frames by reuse alone, as it
would for want of time: the last edit carried along the motion and applied to the new source. Beside it stand reuse
with estimated motion and with none, the old answer shown again, and the source. For each age of the edit:

- PSNR in dB against the net's own answer to that frame;
- warping error, in 8-bit steps, between successive shown frames along the exact motion; the net's own and the
  source's stand beside it, because a picture that moves has some of its own;
- sharpness as a share of the net's own, because a blur wins a warping error.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from mirage_plugin.config import ServeConfig
from mirage_plugin.engine import Canvas, Engine, FramePlanes
from mirage_plugin.errors import MirageError
from mirage_plugin.files import write_json
from mirage_plugin.frames import FrameKind
from mirage_plugin.styles.parameters import load_style
from mirage_plugin.train.batch import engine_planes
from mirage_plugin.train.metrics import gradient_energy, psnr, warping_error
from mirage_plugin.train.pool import EVALUATION_SEED, draw_clip
from mirage_plugin.train.report import contact_sheet
from mirage_plugin.train.sample_game import game_clips
from mirage_plugin.train.worlds import GBuffer, draw_source, of_looks, random_look

AGES = 8
WARM_UP = 6
"""Frames that the net answers before the first reuse, so that its memory is that of a game."""
WAYS = ("reuse", "estimated motion", "no motion", "held", "source")
WORLD_SIZE = (384, 224)
FAMILIES = ("landscape", "town")
GAME_APART = 150
ORDER = np.array([0, 1, 2])
SHEET_SIZE = (180, 320)


@dataclass(frozen=True)
class Clip:
    """Frames as a game sends them, uint8 [H, W, 4] and planes, and what the measures need of them."""

    name: str
    pixels: list[NDArray[np.uint8]]
    planes: list[FramePlanes]
    motion: Tensor
    visible: Tensor


def as_sent(name: str, source: Tensor, g: GBuffer) -> Clip:
    """Frames as the game drew them, [T, 3, H, W] in [0, 1], and their planes, as an engine sends them."""
    depth, motion, (hud, thing, sky) = *engine_planes(g)[:2], engine_planes(g)[2].unbind(1)
    mask = (1 + thing + 2 * sky) * (1 - hud)
    rgb = (source * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    pixels = [np.dstack([frame.numpy(), np.full(frame.shape[:2], 255, np.uint8)]) for frame in rgb]
    planes = [
        FramePlanes(
            np.ascontiguousarray(d[0].numpy()),
            np.ascontiguousarray(m.permute(1, 2, 0).half().numpy()),
            np.ascontiguousarray(k.byte().numpy()),
        )
        for d, m, k in zip(depth, motion, mask, strict=True)
    ]
    return Clip(name, pixels, planes, motion.float(), g.visible)


def clips(frames: int) -> Iterator[Clip]:
    """The clips of the benchmark, the same every time."""
    for number, (source, g) in enumerate(game_clips(2, frames, 640, 360, apart=GAME_APART)):
        yield as_sent(f"game {number + 1}", source, g)
    for number, family in enumerate(FAMILIES):
        seed = EVALUATION_SEED + 700_000 + number
        g = draw_clip(seed, frames, WORLD_SIZE[1], WORLD_SIZE[0], family)
        while bool(g.cut[1:].any()):
            seed += len(FAMILIES)
            g = draw_clip(seed, frames, WORLD_SIZE[1], WORLD_SIZE[0], family)
        rng = torch.Generator().manual_seed(seed)
        looks = [random_look(rng)] * frames
        grain = torch.randn(frames, 1, WORLD_SIZE[1], WORLD_SIZE[0], generator=rng)
        yield as_sent(family, draw_source(of_looks(looks, g), looks, grain)[0], g)


def _shown(engine: Engine, canvas: Canvas, clip: Clip, t: int) -> NDArray[np.uint8]:
    out = np.empty_like(clip.pixels[t])
    engine.compose(canvas, clip.pixels[t], out, ORDER, clip.planes[t].mask, 1.0)
    return out


def by_net(engine: Engine, canvas: Canvas, clip: Clip, t: int, *, first: bool) -> NDArray[np.uint8]:
    """The net's answer to frame `t`, uint8 [H, W, 4]; `first`: it follows no other."""
    engine.read(canvas, clip.pixels[t], ORDER, clip.planes[t], first)
    if not engine.denoise(canvas):
        raise MirageError(f"the net's answer to frame {t} of {clip.name} is not finite")
    return _shown(engine, canvas, clip, t)


def as_v(pixels: NDArray[np.uint8]) -> Tensor:
    """A frame uint8 [H, W, 4] as v [1, 3, H, W]."""
    return torch.from_numpy(pixels[..., :3].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def play(
    engine: Engine, clip: Clip, style: str, starts: Sequence[int], seed: int
) -> tuple[dict[str, dict[str, list[list[float]]]], list[tuple[str, list[Tensor]]]]:
    """One clip in one style: measures[measure][way][age - 1] over all starts, and rows of pictures of the last."""
    height, width = clip.pixels[0].shape[:2]
    # On the smallest grid that holds the frame.
    holds = [rows * 8 >= height and columns * 8 >= width for rows, columns in engine.grids]
    grid = max((number for number, fits in enumerate(holds) if fits), default=0)
    canvas = engine.open(FrameKind("RGBA8", height, width, depth=True, motion=True, mask=True), seed, grid)
    engine.set_style(canvas, load_style(style))
    copies: dict[int, Canvas] = {}
    own: list[NDArray[np.uint8]] = []
    for t in range(len(clip.pixels)):
        own.append(by_net(engine, canvas, clip, t, first=t == 0))
        if t in starts:
            copies[t] = copy.deepcopy(canvas)
    still = np.zeros((height, width, 2), np.float32)
    measures: dict[str, dict[str, list[list[float]]]] = {
        name: {way: [[] for _ in range(AGES)] for way in ("net", *WAYS)} for name in ("psnr", "warping", "sharpness")
    }
    pictures: list[tuple[str, list[Tensor]]] = []
    for start in starts:
        canvases = {way: copy.deepcopy(copies[start]) for way in WAYS[:3]}
        before = dict.fromkeys(("net", *WAYS[:4]), own[start]) | {"source": clip.pixels[start]}
        for age in range(1, AGES + 1):
            t = start + age
            now = {"net": own[t], "held": own[start], "source": clip.pixels[t]}
            # Without a plane the engine estimates; all zeros is what standing still would be.
            for way, motion in zip(WAYS[:3], (clip.planes[t].motion, None, still), strict=True):
                engine.read(canvases[way], clip.pixels[t], ORDER, replace(clip.planes[t], motion=motion), False)
                if not engine.reuse(canvases[way]):
                    raise MirageError(f"there is no edit to reuse in frame {t} of {clip.name}")
                now[way] = _shown(engine, canvases[way], clip, t)
            own_sharp = float(gradient_energy(as_v(own[t])))
            for way, picture in now.items():
                answer = as_v(picture)
                measures["psnr"][way][age - 1].append(float(psnr(answer, as_v(own[t]))))
                moved = warping_error(answer, as_v(before[way]), clip.motion[t : t + 1], clip.visible[t : t + 1])
                measures["warping"][way][age - 1].append(float(moved))
                measures["sharpness"][way][age - 1].append(float(gradient_energy(answer)) / max(own_sharp, 1e-9))
            before = now
            if start == starts[-1] and age in (1, 4, AGES):
                row = [functional.interpolate(as_v(now[way]), SHEET_SIZE, mode="area")[0] for way in ("net", *WAYS)]
                pictures.append((f"{clip.name}, {style}, reused {age}", row))
    return measures, pictures


def _means(all_measures: list[dict[str, dict[str, list[list[float]]]]]) -> dict[str, dict[str, list[float]]]:
    """Means over everything, by measure, way and age."""
    return {
        name: {
            way: [
                round(float(np.mean([value for one in all_measures for value in one[name][way][age]])), 4)
                for age in range(AGES)
            ]
            for way in all_measures[0][name]
        }
        for name in all_measures[0]
    }


def tables(found: dict[str, dict[str, list[float]]]) -> Iterator[Table]:
    """The means over all clips and styles, a table for each measure."""
    titles = {
        "psnr": "PSNR against the net's own answer, dB",
        "warping": "warping error between successive frames, 8-bit steps",
        "sharpness": "sharpness over the net's own",
    }
    for name, title in titles.items():
        shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        shown.add_column("frames reused")
        for age in range(1, AGES + 1):
            shown.add_column(str(age), justify="right")
        for way, row in found[name].items():
            if name != "warping" and way == "net":
                continue
            digits = 2 if name != "psnr" else 1
            shown.add_row("the net, every frame" if way == "net" else way, *(f"{value:.{digits}f}" for value in row))
        yield shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet as PNG")
    parser.add_argument("--tier", default="nano", help="tier of the model (nano)")
    parser.add_argument("--styles", default="snow,ink,neon", metavar="A,B,C", help="styles (snow,ink,neon)")
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="times that reuse begins in a clip (3)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the noise (1)")
    given = parser.parse_args(arguments)
    console = Console()
    torch.set_num_threads(1)
    starts = [WARM_UP + AGES * n for n in range(max(1, given.starts))]
    measured: dict[str, list[dict[str, dict[str, list[list[float]]]]]] = {}
    pictures: list[tuple[str, list[Tensor]]] = []
    begun = time.monotonic()
    try:
        engine = Engine(ServeConfig(tier=given.tier, device="cpu", compile=False), console.print)
        styles = [name for name in given.styles.split(",") if name]
        for clip in clips(starts[-1] + AGES + 1):
            for style in styles:
                measures, rows = play(engine, clip, style, starts, given.seed)
                measured.setdefault(clip.name, []).append(measures)
                if style == styles[len(measured) % len(styles)]:
                    pictures += rows
        whole = _means([one for each in measured.values() for one in each])
        for shown in tables(whole):
            console.print(shown)
            console.print()
        if given.sheet is not None:
            contact_sheet(given.sheet, ("the net's own", *WAYS), pictures)
        if given.json is not None:
            result = {
                "ages": list(range(1, AGES + 1)),
                "styles": styles,
                "starts_per_clip": len(starts),
                "tier": given.tier,
                "mean": whole,
                "clips": {name: _means(each) for name, each in measured.items()},
                "seconds": round(time.monotonic() - begun, 1),
                "machine": {
                    "date": time.strftime("%Y-%m-%d"),
                    "system": f"{platform.machine()}, {os.cpu_count()} cores",
                    "python": platform.python_version(),
                    "torch": importlib.metadata.version("torch"),
                    "numpy": importlib.metadata.version("numpy"),
                },
            }
            write_json(given.json, result)
    except MirageError as error:
        print(f"reuse: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

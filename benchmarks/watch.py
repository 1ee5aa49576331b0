"""A minute of the sample game, watched frame by frame: what flickers, boils, ghosts or goes dark?

    python -m benchmarks.watch --out out/watch

The autopilot plays 3,600 frames of 640x360, ten seconds in each of six styles; the net answers every one of them, all
planes given, in one session. Of each pair of successive frames, along the exact motion and where the earlier one shows
the same surface, in 8-bit steps:

- *change*: mean absolute difference of the answers, and of the game's own frames beside it;
- *patch*: the 24x24 patch that changes most beyond the game's own change there;
- *brightness*: difference of the means of the whole pictures.

Written: `watch.json`, `watch.mp4` (the game's frames above the answers; watch it), `watch.png` (change by frame) and
`worst.png`: of each style the patch that changed most with its surroundings, the frame before, that frame, the one
after, and the game's own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from benchmarks.reuse import Clip, as_sent, as_v, by_net
from mirage_plugin.config import ServeConfig
from mirage_plugin.engine import Engine
from mirage_plugin.errors import ConfigError, MirageError, OutputError
from mirage_plugin.frames import FrameKind
from mirage_plugin.restyle import Frame, frame_writer
from mirage_plugin.styles.parameters import load_style
from mirage_plugin.train.metrics import warp_back
from mirage_plugin.train.report import contact_sheet, plotted
from mirage_plugin.train.sample_game import game_clips

SIZE = (640, 360)
STYLES = "snow,cel,ink,watercolour,night,lava"
FRAMES = 600
"""Frames in each style."""
CHUNK = 60
"""Frames that are drawn at once."""
PATCH, STRIDE = 24, 8
AROUND = 48
"""Pixels around the worst patch that its picture shows."""


@dataclass
class Watched:
    """What was seen of one style: a row a frame, and the worst patch with its pictures."""

    style: str
    rows: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    """Change of the answer and of the game, the worst patch, brightness of the answer and of the game."""
    worst: float = -1.0
    at: tuple[int, int, int] = (0, 0, 0)
    """The frame, the row and the column of the worst patch."""
    pictures: list[Tensor] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Means and extremes, in 8-bit steps."""
        found: dict[str, Any] = {"style": self.style, "frames": len(self.rows), "worst_at": self.at}
        names = ("change", "change_of_game", "patch", "brightness", "brightness_of_game")
        for name, column in zip(names, np.abs(np.array(self.rows)).T, strict=True):
            found[f"mean_{name}"], found[f"worst_{name}"] = (round(float(x), 3) for x in (column.mean(), column.max()))
        return found


def played(frames: int, seed: int) -> Iterator[tuple[Clip, int]]:
    """The game's frames one after another, as (clip, number in it).

    Clips follow each other without a gap; but what was seen before is not known of the first frame of each.
    """
    for source, g in game_clips(-(-frames // CHUNK), CHUNK, *SIZE, seed, apart=0):
        clip = as_sent("game", source, g)
        yield from ((clip, t) for t in range(CHUNK))


def _changes(now: Tensor, before: Tensor, motion: Tensor, seen: Tensor) -> Tensor:
    """How much each pixel has changed along the motion, in 8-bit steps: [1, 1, H, W], 0 where it was not seen."""
    return (now - warp_back(before, motion)).abs().mean(1, keepdim=True) * seen * 127.5


def compare(found: Watched, number: int, clip: Clip, t: int, frames: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Add the row of frame `t` of `clip`; `frames` are (answer, source) of the one before and of this one, v."""
    (before, before_source), (now, source) = frames
    motion = clip.motion[t : t + 1]
    seen = 1 - functional.max_pool2d(1 - clip.visible[t : t + 1].float(), 5, 1, 2)
    share = seen.mean().clamp_min(0.05)
    ours, its = _changes(now, before, motion, seen), _changes(source, before_source, motion, seen)
    covered = functional.avg_pool2d(seen, PATCH, STRIDE).clamp_min(0.3)
    beyond = functional.avg_pool2d(ours - its, PATCH, STRIDE) / covered
    worst = float(beyond.max())
    bright = [float((b - a).mean()) * 127.5 for a, b in ((before, now), (before_source, source))]
    found.rows.append((float(ours.mean() / share), float(its.mean() / share), worst, *bright))
    if worst > found.worst:
        row, column = divmod(int(beyond.argmax()), beyond.shape[-1])
        found.worst, found.at = worst, (number, row * STRIDE, column * STRIDE)
        found.pictures = [_around(found, picture) for picture in (before, now)] + [_around(found, source)]
    elif found.at[0] == number - 1 and len(found.pictures) == 3:
        found.pictures.insert(2, _around(found, now))


def _around(found: Watched, picture: Tensor) -> Tensor:
    """The worst patch of a picture v [1, 3, H, W] with what is around it: [3, h, w]."""
    size = PATCH + 2 * AROUND
    top, left = (
        min(max(0, at - AROUND), length - size) for at, length in zip(found.at[1:], picture.shape[-2:], strict=True)
    )
    return picture[0, :, top : top + size, left : left + size]


def _plot(path: Path, watched: Sequence[Watched]) -> None:
    with plotted(path, nrows=2, figsize=(10, 5), sharex=True) as axes:
        at = 0
        for found in watched:
            rows = np.array(found.rows)
            seconds = (np.arange(len(rows)) + at) / 60
            at += len(rows)
            line = axes[0].plot(seconds, rows[:, 0], linewidth=0.8, label=found.style)[0]
            label = "the game" if found is watched[-1] else None
            axes[0].plot(seconds, rows[:, 1], linewidth=0.8, color="grey", label=label)
            axes[1].plot(seconds, rows[:, 2], linewidth=0.8, color=line.get_color())
        axes[0].set(ylabel="change, 8-bit steps", title="frame to frame, along the exact motion")
        axes[1].set(xlabel="seconds", ylabel="worst patch,\nbeyond the game's own")
        axes[0].legend(frameon=False, ncols=len(watched) + 1, fontsize=8)


def watch(tier: str, styles: Sequence[str], frames: int, seed: int, out: Path) -> dict[str, Any]:
    """Play, look, and write everything into `out`; returns what `watch.json` says."""
    width, height = SIZE
    wanted = [load_style(name) for name in styles]
    engine = Engine(ServeConfig(tier=tier, device="cpu"), print)
    canvas = engine.open(FrameKind("RGBA8", height, width, depth=True, motion=True, mask=True), seed, 0)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.at(out, error) from error
    watched: list[Watched] = []
    before: tuple[Tensor, Tensor] | None = None
    total = frames * len(styles)
    frames_of_game = track(islice(played(total, seed), total), "watching", total=total, transient=True)
    with frame_writer(out / "watch.mp4", Fraction(60)) as film:
        for number, (clip, t) in enumerate(frames_of_game):
            if number % frames == 0:
                watched.append(Watched(styles[number // frames]))
                engine.set_style(canvas, wanted[number // frames])
                before = None  # what a style changes at its switch is not flicker
            answer = by_net(engine, canvas, clip, t, first=number == 0)
            now = as_v(answer), as_v(clip.pixels[t])
            if before is not None and t > 0:
                compare(watched[-1], number, clip, t, (before, now))
            before = now
            film(Frame("", np.concatenate([clip.pixels[t][..., :3], answer[..., :3]], 0)))
    _plot(out / "watch.png", watched)
    columns = ("frame before", "worst frame", "frame after", "the game's")
    sheet = [(f"{w.style}, frame {w.at[0]}", w.pictures) for w in watched if len(w.pictures) == len(columns)]
    contact_sheet(out / "worst.png", columns, sheet)
    return {
        "tier": tier, "seed": seed, "frames": total, "styles": [found.figures() for found in watched],
        "corrections": canvas.corrections, "resets": canvas.resets,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch, print a line for each style, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/watch"), metavar="DIR", help="where it is written")
    parser.add_argument("--tier", default="nano", help="tier of the model (nano)")
    parser.add_argument("--styles", default=STYLES, metavar="A,B,C", help=f"styles ({STYLES})")
    parser.add_argument("--frames", type=int, default=FRAMES, metavar="N", help=f"frames in each ({FRAMES})")
    parser.add_argument("--seed", type=int, default=7, help="of the game and of the noise (7)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(os.cpu_count() or 1)
    begun = time.monotonic()
    try:
        if given.frames < 3:
            raise ConfigError(f"--frames must be at least 3, not {given.frames}")
        result = watch(given.tier, [s for s in given.styles.split(",") if s], given.frames, given.seed, given.out)
        result["seconds"] = round(time.monotonic() - begun, 1)
        result["machine"] = {
            "date": time.strftime("%Y-%m-%d"), "system": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(), "torch": importlib.metadata.version("torch"),
        }  # fmt: skip
        (given.out / "watch.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except MirageError as error:
        print(f"watch: {error}", file=sys.stderr)
        return 2
    for row in result["styles"]:
        print(
            f"{row['style']:12} change {row['mean_change']:.2f} (the game {row['mean_change_of_game']:.2f}), "
            f"worst frame {row['worst_change']:.2f}, worst patch {row['worst_patch']:.0f}; brightness by at most "
            f"{row['worst_brightness']:.1f} (the game {row['worst_brightness_of_game']:.1f})"
        )
    print(f"{result['corrections']} corrections, {result['resets']} resets; pictures and film in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

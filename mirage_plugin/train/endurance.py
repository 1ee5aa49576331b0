"""`mirage eval --time`: what the picture does over time, on sources that can be played for ever.

A closed camera path through a scene, with objects that swing once a lap, gives a source without end whose
motion is exact everywhere, the seam included, and whose truth is known at frame 100,000 as at frame 1. The
styles of these loops have no grain and no strokes, so that the truth of a frame is the same in every lap.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from mirage_plugin.config import STEPS
from mirage_plugin.errors import DataError
from mirage_plugin.model.drift import NAMES, Bounds, Watch, mean_squares, statistics_of
from mirage_plugin.model.memory import dequantise, quantise, warp_state
from mirage_plugin.model.network import MirageNet
from mirage_plugin.model.noise import advect_noise, fresh_noise
from mirage_plugin.model.sampling import ParallelSampler, predict, steady_answer
from mirage_plugin.styles.parameters import PARAMETERS, Style, load_style
from mirage_plugin.train.batch import Batch, clip_noise, kept, render_pair
from mirage_plugin.train.evaluation import (
    GAME_SIZE,
    Company,
    Drawn,
    answer_clip,
    company,
    draw_frame,
    empty_settled,
    empty_state,
    game_batch,
    graded_clip,
    pair_batch,
    rgb_alone,
    sounded,
)
from mirage_plugin.train.metrics import gradient_energy, psnr, warp_back, warping_error
from mirage_plugin.train.objective import Ablation, entries, given_lines, given_planes
from mirage_plugin.train.pool import EVALUATION_SEED
from mirage_plugin.train.report import Bar, Row, plotted
from mirage_plugin.train.sample_game import game_clips
from mirage_plugin.train.worlds.gbuffer import GBuffer
from mirage_plugin.train.worlds.raycast import Window, cast_clip
from mirage_plugin.train.worlds.scenes import Camera, draw_scene
from mirage_plugin.train.worlds.styles import random_style
from mirage_plugin.train.worlds.textures import rotation_y

__all__ = ["Ablated", "answer_in_parallel", "loop_clip", "play_ablated", "time_rows"]

HEIGHT, WIDTH = 96, 128
FAMILIES = ("town", "corridor", "landscape", "abstract")
STICK_FRAMES = 60
STICK_SCENES = 4
SELDOM = 4
"""Depth comes with one frame of so many where an engine sends it seldom."""
NO_BOUNDS = "these weights know no bounds: see mirage_plugin/train/calibration.py"


@dataclass(frozen=True)
class Length:
    """How long is played: frames a lap, frames in all, frames of the still camera."""

    lap: int
    frames: int
    still: int


QUICK = Length(36, 540, 300)
FULL = Length(90, 100_000, 10_000)


def loop_clip(seed: int, family: str, frames: int, height: int, width: int) -> GBuffer:
    """Draw one lap of a closed path: the frame before the first is the last, and motion says so everywhere.

    No frame is a cut; who begins to play has to say that nothing was there before.
    """
    scene = draw_scene(seed, 1, family)
    first = scene.cameras[0]
    rng = torch.Generator().manual_seed(seed)
    radius, sway = (
        0.4 + float(torch.rand((), generator=rng)),
        0.1 + 0.2 * float(torch.rand((), generator=rng)),
    )
    cameras, times = [], []
    for i in range(frames + 1):
        angle = 2 * math.pi * (i % frames) / frames
        step = torch.tensor(
            [radius * math.sin(angle), 0.1 * math.sin(2 * angle), radius * (1 - math.cos(angle))]
        )
        rotation = rotation_y(sway * math.sin(angle)) @ first.rotation
        cameras.append(Camera(first.position + step, rotation, first.focal))
        times.append(angle)
    path = replace(scene, cameras=tuple(cameras), times=tuple(times), cut=(True,) + (False,) * frames)
    g = cast_clip(path, Window(height * 2, width * 2, height // 2, width // 2, height, width), seed)
    # The first frame knows nothing of one before it; its double at the end of the lap does.
    return g.frames(1, frames + 1)


def _calm(style: Style) -> Style:
    """The style without what is made of noise: its truth depends on the scene alone."""
    settings = {p.name: style.value(p.name) for p in PARAMETERS} | {"wash": 0.0, "hatch": 0.0, "grain": 0.0}
    return Style.make(style.name, settings)


def _loop_styles(seed: int) -> list[tuple[int, Style, torch.Generator]]:
    """Of the loop of every family its number, its unseen style, and what else about it is random."""
    found = []
    for i in range(len(FAMILIES)):
        number = EVALUATION_SEED + seed * 1_000_003 + 500_000 + i
        rng = torch.Generator().manual_seed(number)
        found.append((number, _calm(random_style(rng)), rng))
    return found


def _loops(seed: int, lap: int, device: torch.device) -> Batch:
    """One lap of every family, each in an unseen style."""
    pairs = []
    for family, (number, style, rng) in zip(FAMILIES, _loop_styles(seed), strict=True):
        g = loop_clip(number, family, lap, HEIGHT, WIDTH)
        noise = clip_noise(g, number & 0x7FFFFFFF)
        source, truth, parameters = render_pair(g, [style] * lap, noise, rng)
        pairs.append((g, source, truth, noise, parameters))
    return pair_batch(pairs, device)


class Play:
    """A batch of clips being played in closed loop, as a sidecar would, frame by frame for as long as
    asked.
    """

    def __init__(self, net: MirageNet, batch: Batch, bounds: Bounds | None = None) -> None:
        """Begin: nothing is known yet. With `bounds`, errors are corrected."""
        _, self.n, _, height, width = batch.source.shape
        self.net = net
        self.frame = 0
        self.watches = [Watch(bounds) for _ in range(self.n)]
        self.squares = torch.zeros(self.n, len(NAMES))
        """`drift.mean_squares` of the last frame, before anything was corrected."""
        device = batch.source.device
        self.stored = empty_state(net, self.n, height, width, device)
        self.settled = empty_settled(batch)
        self._style: Tensor | None = None
        self.noise = torch.zeros(self.n, 1, height // 2, width // 2, device=device)
        self._key = torch.arange(self.n, device=device) + 1
        self._company: dict[tuple[int, int], tuple[Batch, Company]] = {}

    def step(self, batch: Batch, t: int) -> Tensor:
        """Answer frame `t` of `batch`: v [N, 3, H, W]."""
        when = torch.full_like(self._key, self.frame)
        fresh = fresh_noise(self._key, when, *self.noise.shape[-2:])
        if self.frame:
            seen = batch.visible[t][..., ::2, ::2] > 0.5
            self.noise = advect_noise(self.noise, batch.motion[t][..., ::2, ::2], seen, fresh)
        else:
            self.noise = fresh
        cut = batch.cut[t].tolist()
        remembers = [w.begin(self.frame > 0 and not c) for w, c in zip(self.watches, cut, strict=True)]
        style = batch.parameters[t]
        if self._style is not None:
            self.settled = self.settled * (style == self._style).all(-1)[:, None, None, None]
        self._style = style
        drawn = self._draw(batch, t, remembers)
        self.squares = drawn.squares
        found = [statistics_of(row) for row in drawn.squares.tolist()]
        each = list(zip(self.watches, found, remembers, strict=True))
        reads = sounded(batch, t).tolist()
        bad = [knows and read and not watch.healthy(now) for (watch, now, knows), read in zip(each, reads, strict=True)]
        if any(bad):
            trusted = [knows and not ill for knows, ill in zip(remembers, bad, strict=True)]
            again = self._draw(batch, t, trusted)
            ill = torch.tensor(bad, device=self.stored.device)[:, None, None, None]
            shown = [torch.where(ill, new, old) for new, old in zip(again[:3], drawn[:3], strict=True)]
            drawn = Drawn(shown[0], shown[1], shown[2], drawn.squares)
            for watch in (watch for watch, is_bad in zip(self.watches, bad, strict=True) if is_bad):
                watch.correct()
            found, remembers = [statistics_of(row) for row in again.squares.tolist()], trusted
        for watch, now, knows, read in zip(self.watches, found, remembers, reads, strict=True):
            watch.accept(now, knows and read)
        self.stored, self.settled = drawn.stored, drawn.settled
        self.frame += 1
        return drawn.answer

    def _draw(self, batch: Batch, t: int, remembers: list[bool]) -> Drawn:
        known = torch.tensor(remembers, device=self.stored.device)
        return draw_frame(
            self.net, batch, t, self.stored, self.settled, self.noise, known, given=self.company(batch, t)
        )

    def company(self, batch: Batch, t: int) -> Company:
        """What frame `t` of `batch` comes with; loops are played many times, and are asked once."""
        key = id(batch), t
        if key not in self._company:
            # The batch as well: an id is its own only while it lives.
            self._company[key] = batch, company(self.net, batch, t)
        return self._company[key][1]


def _lap(net: MirageNet, batch: Batch, *, memory: bool = True) -> Tensor:
    """The answers of a second lap (the first has warmed the memory up): v [T, N, 3, H, W]."""
    lap = batch.source.shape[0]
    play = Play(net, batch)
    answers = []
    for i in range(lap * (2 if memory else 1)):
        if not memory:
            play.frame = 0
        answers.append(play.step(batch, i % lap))
    return torch.stack(answers[-lap:])


def _per_frame(values: Callable[[Tensor, Tensor], Tensor], answers: Tensor, truth: Tensor) -> Tensor:
    return torch.stack([values(a, t) for a, t in zip(answers, truth, strict=True)])


def _without_motion(batch: Batch) -> Batch:
    return replace(
        batch,
        motion=torch.zeros_like(batch.motion),
        visible=torch.ones_like(batch.visible),
        has_motion=torch.zeros_like(batch.has_motion),
    )


def _with_depth_seldom(batch: Batch) -> Batch:
    """The same clips from an engine that sends depth with one frame of `SELDOM`."""
    sent = torch.arange(batch.source.shape[0], device=batch.source.device) % SELDOM == 0
    return replace(batch, has_depth=batch.has_depth * sent[:, None])


def _warping(answers: Tensor, batch: Batch) -> float:
    """Mean warping error over a lap; frame 0 follows the lap's last."""
    lap = answers.shape[0]
    return fmean(
        float(warping_error(answers[t], answers[t - 1], batch.motion[t], batch.visible[t]).mean())
        for t in range(lap)
    )


def _memory_rows(net: MirageNet, batch: Batch, tier: str, of_game: list[Row]) -> list[Row]:
    closed, alone = _lap(net, batch), _lap(net, batch, memory=False)
    unwarped = _lap(net, _without_motion(batch))
    everyone = {"identity": batch.source, "oracle_lut": graded_clip(batch), "per_frame": alone}
    score = {name: float(_per_frame(psnr, a, batch.truth).mean()) for name, a in everyone.items()}
    ours, base = float(_per_frame(psnr, closed, batch.truth).mean()), score["per_frame"]
    big = tier == "base"
    own = max(_warping(batch.truth, batch), 1e-6)
    ratio = {name: _warping(a, batch) / own for name, a in everyone.items()}
    sharp = {
        name: float(_per_frame(lambda a, _: gradient_energy(a), a, a).mean())
        for name, a in ({"closed": closed, "truth": batch.truth, "per frame": alone}).items()
    }
    flicker = _warping(closed, batch) / own

    def pays(name: str, batch: Batch) -> Row:
        with_it, without = (float(_per_frame(psnr, a, batch.truth).mean()) for a in (
            _lap(net, batch), _lap(net, batch, memory=False)
        ))  # fmt: skip
        return Row(f"- {name}", tier, with_it - without, "dB", Bar(), {}, f"closed loop {with_it:.2f} dB")

    return [
        Row(
            "memory pays: closed loop over per frame",
            tier,
            ours - base,
            "dB",
            Bar(0.5 if big else 0.3),
            {name: value - base for name, value in score.items()},
            f"closed loop {ours:.2f} dB",
        ),
        pays(f"depth with every {SELDOM}th frame", _with_depth_seldom(batch)),
        pays("RGB alone", rgb_alone(batch)),
        *of_game,
        Row(
            "motion warp pays: with it over without",
            tier,
            ours - float(_per_frame(psnr, unwarped, batch.truth).mean()),
            "dB",
            Bar(0.0),
        ),
        Row(
            "warping error over the truth's",
            tier,
            flicker,
            "x",
            Bar(None, 1.1 if big else 1.3),
            dict(ratio),
            f"truth {own:.2f} 8-bit steps; gradient energy against the truth: closed loop "
            f"{sharp['closed'] / sharp['truth']:.2f}, per frame {sharp['per frame'] / sharp['truth']:.2f}",
        ),
        Row(
            "warping error over the per-frame model's",
            tier,
            flicker / max(ratio["per_frame"], 1e-6),
            "x",
            Bar(None, 1.0),
        ),
    ]


def _game_rows(net: MirageNet, seed: int, frames: int, tier: str, device: torch.device) -> list[Row]:
    """The sample game in closed loop, in styles that its light matters for: is what a frame says built on its like?"""
    rng = torch.Generator().manual_seed(EVALUATION_SEED + seed)
    try:
        source, g = next(iter(game_clips(1, frames, *GAME_SIZE, apart=150)))
    except DataError as error:
        kinds = ("all planes", "RGB alone")
        return [Row(f"- the sample game, {kind}", tier, None, "dB", Bar(), {}, str(error)) for kind in kinds]
    batch = game_batch(source, g, [load_style(name) for name in ("snow", "night", "watercolour")], rng, device)

    def flickers(answers: Tensor) -> float:
        pairs = zip(answers[1:], answers, batch.motion[1:], batch.visible[1:], strict=False)
        return fmean(float(warping_error(*pair).mean()) for pair in pairs)

    rows, own = [], flickers(batch.truth)
    for name, given in (("all planes", batch), ("RGB alone", rgb_alone(batch))):
        closed, alone = answer_clip(net, given), answer_clip(net, given, memory=False)
        found, without = (float(_per_frame(psnr, answers, batch.truth).mean()) for answers in (closed, alone))
        rows.append(Row(
            f"- the sample game, {name}", tier, found - without, "dB", Bar(), {},
            f"closed loop {found:.2f} dB; warping error {flickers(closed) / own:.2f} of the truth's, "
            f"per frame {flickers(alone) / own:.2f}",
        ))  # fmt: skip
    return rows


def _long_rows(
    net: MirageNet, batch: Batch, length: Length, names: list[str], out: Path, advance: Callable[[int], None],
    bounds: Bounds | None = None,
) -> list[Row]:  # fmt: skip
    tier = net.tier.name
    lap, frames, n = length.lap, length.frames, batch.source.shape[1]
    play = Play(net, batch, bounds)
    curve = np.zeros((frames, n), np.float32)
    early_bytes = 0
    for i in range(frames):
        answer = play.step(batch, i % lap)
        curve[i] = psnr(answer, batch.truth[i % lap]).cpu().numpy()
        if i == frames // 4:
            early_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if i % lap == lap - 1:
            advance(lap)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early_bytes
    grown_mb = grown / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    # Whole laps, so that every mean is over the same frames.
    laps = curve[: frames // lap * lap].reshape(-1, lap, n).mean(1)
    first = min(max(1, 100 // lap), max(0, len(laps) - 2))
    early = laps[first : max(first + 1, min(1000, frames // 3) // lap)].mean(0)
    late = laps[-max(1, 200 // lap) :].mean(0)
    slope, beyond = _worst_slope(laps[1:], lap)
    alarms = sum(watch.corrections for watch in play.watches)
    bare, lonely = rgb_alone(batch), Play(net, batch, bounds)
    for i in range(2 * lap):
        lonely.step(bare, i % lap)
    alone = sum(watch.corrections for watch in lonely.watches)
    played = (frames + 2 * lap) * n
    _plot_curve(out / "long.png", laps, lap, tier, names)
    old, young = _costs((play, Play(net, batch, bounds)), batch)
    big = tier == "base"
    return [
        Row(
            f"closed loop at frame {frames:,} against early frames",
            tier,
            float((late - early).min()),
            "dB",
            Bar(-0.2 if big else -0.3),
            {},
            f"worst of {n} scenes and styles; mean {float((late - early).mean()):+.3f}",
        ),
        Row(
            "slope beyond its confidence interval",
            tier,
            beyond,
            "dB/1000",
            Bar(None, 0.001),
            {},
            f"the worst slope is {slope:+.4f} dB per 1,000 frames over {frames:,} frames",
        ),
        Row(
            "cost of the last frames over early ones",
            tier,
            old / young,
            "x",
            Bar(0.98, 1.02),
            {},
            f"a frame each in turn, this play's and a new one's; memory grew by {grown_mb:.1f} MiB from frame "
            f"{frames // 4:,} on",
        ),
        Row(
            "error correction: false alarms", tier, None if bounds is None else (alarms + alone) / played, "",
            Bar(None, 0.001), {},
            f"{alarms + alone} of {played:,} healthy frames, {alone} of them without planes"
            if bounds else NO_BOUNDS,
        ),
    ]  # fmt: skip


def _costs(plays: Sequence[Play], batch: Batch) -> list[float]:
    """The median time of a frame of each, in seconds of this process.

    They take turns, for a machine is fast in one minute and slow in the next.
    """
    times: list[list[float]] = [[] for _ in plays]
    for _ in range(120):
        for play, taken in zip(plays, times, strict=True):
            begun = time.process_time()
            play.step(batch, play.frame % batch.source.shape[0])
            if batch.source.is_cuda:
                torch.cuda.synchronize()
            taken.append(time.process_time() - begun)
    # The first of a new play are to warm up.
    return [median(taken[20:]) for taken in times]


def _worst_slope(laps: NDArray[np.float32], lap: int) -> tuple[float, float]:
    """The steepest fall of PSNR, dB per 1,000 frames, and how far its 95 % interval stays away from zero."""
    x = np.arange(laps.shape[0]) * lap / 1000
    x = x - x.mean()
    worst = (0.0, 0.0)
    for y in laps.T:
        slope = float((x * (y - y.mean())).sum() / (x * x).sum())
        rest = y - y.mean() - slope * x
        error = math.sqrt(float((rest * rest).sum()) / max(1, len(x) - 2) / float((x * x).sum()))
        found = (slope, max(0.0, -slope - 1.96 * error))
        worst = max(worst, found, key=lambda pair: (pair[1], -pair[0]))
    return worst


def _plot_curve(path: Path, laps: NDArray[np.float32], lap: int, tier: str, names: list[str]) -> None:
    with plotted(path, figsize=(8, 4)) as axes:
        for i, name in enumerate(names):
            axes.plot((np.arange(laps.shape[0]) + 0.5) * lap, laps[:, i], label=name)
        axes.set(
            xscale="log", xlabel="frame", ylabel="PSNR, dB", title=f"{tier}: closed loop, means over whole laps"
        )
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.15), fontsize=8)


def _still_rows(net: MirageNet, batch: Batch, length: Length, tier: str) -> list[Row]:
    """One frame, for ever: nothing moves, so nothing may change."""
    still = replace(batch, motion=torch.zeros_like(batch.motion), visible=torch.ones_like(batch.visible))
    play = Play(net, still)
    change, curve = 0.0, []
    previous: Tensor | None = None
    for i in range(length.still):
        answer = play.step(still, 0)
        curve.append(psnr(answer, still.truth[0]))
        # Thirty frames to settle: a memory that learns a scene may change it meanwhile.
        if previous is not None and i > 30:
            change = max(change, float((answer - previous).abs().max()) * 127.5)
        previous = answer
    late, early = torch.stack(curve[-20:]).mean(0), torch.stack(curve[30:50]).mean(0)
    return [
        Row(
            f"still camera, PSNR at frame {length.still:,} over frame 30",
            tier,
            float((late - early).min()),
            "dB",
            Bar(-0.1),
        ),
        Row("still camera, largest change of any pixel", tier, change, "/255", Bar(None, 1.0)),
    ]


def _stick_row(net: MirageNet, seed: int, tier: str, device: torch.device) -> Row:
    """Texture made of noise, followed along the motion: how alike is it after 60 frames, against the truth's.

    In several scenes, for how much of it there is beside a game's own texture is another matter in each.
    """
    first = EVALUATION_SEED + seed * 1_000_003 + 600_000
    found = [_stuck(net, number, device) for number in range(first, first + STICK_SCENES)]
    seen = [(ours, own) for ours, own, share in found if share >= 0.05 and not math.isnan(ours)]
    ours, own = (fmean(values) for values in zip(*seen, strict=True)) if seen else (0.0, 0.0)
    known = fmean(share for _, _, share in found)
    note = f"correlation {ours:.2f}, truth {own:.2f}, in {len(seen)} scenes over {known:.0%} of the frame"
    bar = Bar(0.9 if tier == "base" else 0.8)
    return Row(
        f"texture sticks over {STICK_FRAMES} frames, against the truth's", tier, ours / own if own > 0 else None, "x",
        bar, {}, note,
    )  # fmt: skip


def _stuck(net: MirageNet, number: int, device: torch.device) -> tuple[float, float, float]:
    """How alike what is seen is after `STICK_FRAMES` in one scene, the truth's, and in what share of the frame."""
    lap = max(2 * STICK_FRAMES, STICK_FRAMES + 12)
    g = loop_clip(number, "town", lap, HEIGHT, WIDTH)
    g = g.frames(0, STICK_FRAMES + 12)
    style = Style.make("strokes", {"hatch": 0.7, "wash": 0.5, "grain": 0.4, "flatten": 0.6, "ambient": 0.6})
    styles = [style] * g.depth.shape[0]

    def drawn(noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return render_pair(g, styles, noise, torch.Generator().manual_seed(number))

    field = clip_noise(g, 1)
    plain, _, parameters = drawn(field)
    batch = pair_batch([(g, plain, plain, field, parameters)], device)
    play = Play(net, batch)
    answers, fields = [], []
    for t in range(g.depth.shape[0]):
        answers.append(play.step(batch, t))
        fields.append(play.noise.cpu())
    # The same game, in the marks of the noise that was played.
    truths = [*drawn(torch.cat(fields))[1][:, None]]
    start, stop = 10, 10 + STICK_FRAMES
    place = torch.stack(
        torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")[::-1]
    ).float()[None]
    known = torch.ones(1, 1, HEIGHT, WIDTH)
    # From now back to the start: where each pixel's surface was, step by step.
    offset = torch.zeros(1, 2, HEIGHT, WIDTH)
    for t in range(stop, start, -1):
        step = warp_back(g.motion[t : t + 1].float(), offset)
        known = known * (warp_back(g.visible[t : t + 1].float(), offset) > 0.99)
        offset = offset + step
    inside = (
        ((place + offset) >= 0).all(1, keepdim=True)
        & ((place + offset)[:, :1] < WIDTH)
        & ((place + offset)[:, 1:] < HEIGHT)
    )
    known = (known > 0) & inside & (g.material[stop : stop + 1] != 0)

    def alike(frames: list[Tensor]) -> float:
        now, then = frames[stop].cpu().mean(1, keepdim=True), frames[start].cpu().mean(1, keepdim=True)
        smooth = [x - functional.avg_pool2d(x, 9, 1, 4, count_include_pad=False) for x in (now, then)]
        a, b = smooth[0][known], warp_back(smooth[1], offset)[known]
        if a.numel() < 200:
            return float("nan")
        a, b = a - a.mean(), b - b.mean()
        return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))

    return alike(answers), alike(truths), float(known.float().mean())


def _recovery_rows(net: MirageNet, batch: Batch, tier: str, bounds: Bounds | None = None) -> list[Row]:
    """Spoil the memory in the middle of a lap and count the frames that are more than 0.5 dB worse for it."""
    lap, limit = batch.source.shape[0], 60
    rng = torch.Generator().manual_seed(5)

    def noise(stored: Tensor) -> Tensor:
        drawn = torch.randint(-127, 128, stored.shape, generator=rng)
        return drawn.to(stored)

    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "noise": noise,
        "black": torch.zeros_like,
        "full": lambda s: torch.full_like(s, 127),
        "another clip's": lambda s: s.roll(1, 0),
    }
    healthy = _curve(net, batch, lap, limit, None)

    def taken_by(bounds: Bounds | None) -> dict[str, int]:
        return {
            name: _bad_frames(healthy, _curve(net, batch, lap, limit, spoil, bounds)) for name, spoil in kinds.items()
        }

    taken = taken_by(bounds)
    spread = ", ".join(f"{name} {count}" for name, count in taken.items())
    if bounds is not None:
        spread += f"; {max(taken_by(None).values())} at the most without error correction"
    bar = Bar(None, 8 if tier == "base" else 15)
    worst = float(max(taken.values()))
    rows = [Row("poisoned memory: frames until within 0.5 dB", tier, worst, "frames", bar, {}, spread)]
    # A frame of NaN reaches the memory through the network; what is stored has no NaN to keep.
    play = Play(net, batch)
    for i in range(lap):
        play.step(batch, i)
    broken = replace(batch, source=torch.full_like(batch.source[:1], float("nan")).expand_as(batch.source))
    play.step(broken, 0)
    after = [psnr(play.step(batch, i % lap), batch.truth[i % lap]) for i in range(1, limit)]
    bad = _bad_frames(healthy[1:], torch.stack(after))
    rows.append(Row("a frame of NaN: frames it spoils", tier, 1.0 + bad, "frames", Bar(None, 1.0)))
    rows.append(_caught_row(net, batch, kinds, tier, bounds))
    return rows


def _caught_row(
    net: MirageNet, batch: Batch, kinds: dict[str, Callable[[Tensor], Tensor]], tier: str, bounds: Bounds | None
) -> Row:
    """Of memories that were spoiled at every fourth frame of a lap, the share that was noticed in that very frame."""
    name = "error correction: spoiled memories noticed in the first frame"
    if bounds is None:
        return Row(name, tier, None, "", Bar(), {}, NO_BOUNDS)
    lap, n = batch.source.shape[0], batch.source.shape[1]
    play = Play(net, batch)
    caught = dict.fromkeys(kinds, 0)
    tries = 0
    for i in range(2 * lap):
        if i >= lap and i % 4 == 0:
            tries += n
            healthy, everyone = play.stored, [True] * n
            for kind, spoil in kinds.items():
                play.stored = spoil(healthy)
                squares = play._draw(batch, i % lap, everyone).squares
                caught[kind] += sum(not bounds.hold(statistics_of(row)) for row in squares.tolist())
            play.stored = healthy
        play.step(batch, i % lap)
    shares = {kind: count / max(1, tries) for kind, count in caught.items()}
    # No bar: what goes unnoticed is what the network itself recovers from, which the row of poisoned memory holds.
    note = ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
    return Row(name, tier, fmean(shares.values()), "", Bar(), {}, note)


def _curve(
    net: MirageNet, batch: Batch, lap: int, frames: int, spoil: Callable[[Tensor], Tensor] | None,
    bounds: Bounds | None = None,
) -> Tensor:  # fmt: skip
    """PSNR of the `frames` frames after one lap and what is done to the memory then: [frames, N]."""
    play = Play(net, batch, bounds)
    for i in range(lap):
        play.step(batch, i)
    if spoil is not None:
        play.stored = spoil(play.stored)
        # What is kept of cells as well: colours at random, or no numbers.
        amiss = torch.rand(play.settled[..., :3].shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
        play.settled[..., :3] = amiss.to(play.settled)
    return torch.stack([psnr(play.step(batch, i % lap), batch.truth[i % lap]) for i in range(frames)])


def _bad_frames(healthy: Tensor, curve: Tensor) -> int:
    """How many frames go by until no clip is more than 0.5 dB below the healthy run; NaN counts as below."""
    bad = ~(curve >= healthy[: curve.shape[0]] - 0.5)
    when = bad.any(1).nonzero()
    return int(when[-1]) + 1 if when.numel() else 0


def _switch_row(net: MirageNet, batch: Batch, tier: str) -> Row:
    """Another style in the middle of a lap: frames until 95 % of the PSNR of one who had it all along."""
    lap, device = batch.source.shape[0], batch.source.device
    old = replace(
        batch,
        parameters=torch.from_numpy(Style.make("plain", {}).vector()).to(device).expand_as(batch.parameters),
    )
    play = Play(net, batch)
    for i in range(lap):
        play.step(old, i)
    switched = torch.stack([psnr(play.step(batch, i % lap), batch.truth[i % lap]) for i in range(40)])
    final = _curve(net, batch, lap, 40, None)
    late = (~(switched >= 0.95 * final)).any(1).nonzero()
    frames = int(late[-1]) + 1 if late.numel() else 0
    return Row(
        "style switch: frames until 95 % of the final PSNR",
        tier,
        float(frames),
        "frames",
        Bar(None, 2 if tier == "base" else 3),
    )


def _cut_row(net: MirageNet, batch: Batch, tier: str, bounds: Bounds | None = None) -> Row:
    """A cut that nobody tells of: how long the last scene shows through the new one."""
    lap = batch.source.shape[0]
    other = replace(
        batch,
        **{
            name: getattr(batch, name).roll(1, 1)
            for name in (
                "source",
                "truth",
                "depth",
                "motion",
                "visible",
                "mask",
            )
        },
    )
    # The engine says that everything is where it was.
    unaware = replace(other, motion=torch.zeros_like(other.motion), visible=torch.ones_like(other.visible))
    play = Play(net, batch, bounds)
    last = torch.zeros_like(batch.source[0])
    for i in range(lap):
        last = play.step(batch, i)
    new = Play(net, batch)
    new.noise = play.noise
    shares = []
    for i in range(min(20, lap)):
        ghosted = play.step(unaware if i == 0 else other, i)
        clean = new.step(other, i)
        difference, old = (ghosted - clean).flatten(1), (last - clean).flatten(1)
        shares.append(float(((difference * old).sum(1) / old.square().sum(1).clamp_min(1e-6)).abs().max()))
        new.noise = play.noise
    above = [i for i, share in enumerate(shares) if share > 0.01]
    frames = above[-1] + 1 if above else 0
    return Row(
        "untold cut: frames with a ghost above 1 %",
        tier,
        float(frames),
        "frames",
        Bar(None, 1.0),
        {},
        f"share of the last picture in the first frame: {shares[0]:.1%}"
        + ("" if bounds is None else f"; {sum(w.corrections for w in play.watches)} of {play.n} cuts were noticed"),
    )


class _AblatedPlay(Play):
    """A batch played as its network was trained: what was left out in training is left out."""

    def __init__(
        self, net: MirageNet, batch: Batch, ablation: Ablation, bounds: Bounds | None = None, *, told: bool = False
    ) -> None:
        """`told`: a fed history is fed with the truth, which at play is not there, instead of the net's own answers."""
        super().__init__(net, batch, bounds)
        self.ablation, self.told = ablation, told

    @torch.inference_mode()
    def _draw(self, batch: Batch, t: int, remembers: list[bool]) -> Drawn:
        v, known = batch.source[t], torch.tensor(remembers, device=self.stored.device)
        seen, motion = entries(batch, t, self.net.tier.entry)
        memory = self.ablation.recall(dequantise(self.stored), motion, seen, known)
        noised, (style, planes, lines) = self.ablation.start(v, self.noise), self.company(batch, t)
        trust = torch.ones(self.n, device=v.device)
        rest = (trust, self.noise, lines)
        answer, edit, state, *_ = predict(self.net, v, noised, planes, memory, style, torch.ones_like(trust), *rest)
        settled = self.settled
        if self.ablation.memory:
            moved = batch.motion[t] if self.ablation.warp else torch.zeros_like(batch.motion[t])
            knows = (known & ~batch.cut[t])[:, None, None, None]
            answer, _, settled = steady_answer(v, edit, style, lines, settled * knows, moved)
        answer = kept(batch, t, answer.clamp(-1, 1))
        shown = batch.truth[t] if self.told else answer
        state = self.ablation.write(self.net, (v, noised, planes, memory, style, *rest), shown, state)
        return Drawn(answer, self.ablation.stored(state), settled, mean_squares(edit, state, memory))


@dataclass(frozen=True)
class Ablated:
    """How a network that was trained without a part plays the loops; means in dB over scenes and styles.

    `closed` is closed loop, `seldom` the same where depth comes with one frame of `SELDOM`, `told` with the truth fed
    to a memory that is written from pictures (None for all others), all behind the first lap; `per_frame` is without
    memory. `flicker` is closed loop's warping error over the truth's. `slope` is the steepest fall of any scene, in dB
    per 1,000 frames, `beyond` how far its 95 % interval stays away from zero. `laps` [laps, N] are closed loop's
    means, `corrections` counts the frames whose memory was dropped.
    """

    closed: float
    seldom: float
    per_frame: float
    told: float | None
    flicker: float
    slope: float
    beyond: float
    laps: NDArray[np.float32]
    corrections: int


@torch.inference_mode()
def play_ablated(
    nets: Iterable[tuple[MirageNet, Ablation, Bounds | None]], seed: int, lap: int, laps: int, device: torch.device
) -> Iterator[Ablated]:
    """Play each network as it was trained, `laps` >= 3 laps of `lap` frames, all of them the same loops.

    With bounds, errors are corrected.
    """
    batch = _loops(seed, lap, device)
    own = max(_warping(batch.truth, batch), 1e-6)
    for net, ablation, bounds in nets:
        play = _AblatedPlay(net, batch, ablation, bounds)
        curve = np.stack([_lap_psnr(play, batch) for _ in range(laps)])
        slope, beyond = _worst_slope(curve[1:], lap)
        flicker = _warping(torch.stack([play.step(batch, t) for t in range(lap)]), batch) / own
        alone = [psnr(_AblatedPlay(net, batch, ablation).step(batch, t), batch.truth[t]).mean() for t in range(lap)]
        seldom = _second_lap(_AblatedPlay(net, batch, ablation), _with_depth_seldom(batch))
        told = None
        if not ablation.own_history:
            told = _second_lap(_AblatedPlay(net, batch, ablation, told=True), batch)
        yield Ablated(
            float(curve[1:].mean()), seldom, float(torch.stack(alone).mean()), told, flicker, slope, beyond, curve,
            sum(watch.corrections for watch in play.watches),
        )  # fmt: skip


def _second_lap(play: Play, batch: Batch) -> float:
    """Play two laps from the beginning: the second one's mean PSNR."""
    _lap_psnr(play, batch)
    return float(_lap_psnr(play, batch).mean())


def _lap_psnr(play: Play, batch: Batch) -> NDArray[np.float32]:
    """Play one lap on: its mean PSNR, [N]."""
    lap = batch.source.shape[0]
    return torch.stack([psnr(play.step(batch, t), batch.truth[t]) for t in range(lap)]).mean(0).cpu().numpy()


@torch.inference_mode()
def answer_in_parallel(net: MirageNet, batch: Batch, steps: int) -> Tensor:
    """As `answer_clip`, with the steps of `steps` frames as one batch: v [T, N, 3, H, W], in the order of frames."""
    frames, n, _, height, width = batch.source.shape
    device = batch.source.device
    sampler, stored = ParallelSampler(net, steps), empty_state(net, n, height, width, device)
    answers = []
    for t in range(frames):
        seen = functional.avg_pool2d(batch.visible[t], 16) * (~batch.cut[t])[:, None, None, None] * float(t > 0)
        memory = warp_state(dequantise(stored), batch.motion[t][..., 8::16, 8::16], seen)
        style, trust = net.style(batch.parameters[t]), torch.ones(n, device=device)
        rest = (memory, style, trust, given_lines(batch, t, style))
        done, state = sampler.step(batch.source[t], batch.noise[t], given_planes(batch, t), *rest)
        stored = quantise(state)
        if done is not None:
            answers.append(done[0])
    answers += [answer for answer, _ in sampler.flush()]
    return torch.stack([kept(batch, t, answer) for t, answer in enumerate(answers)])


def _steps_rows(net: MirageNet, batch: Batch, tier: str) -> list[Row]:
    """One lap with one, two and four steps, in sequence and in parallel: what they give, cost and make wait for."""
    on_gpu, frames = batch.source.is_cuda, batch.source.shape[0] * batch.source.shape[1]
    rows = []
    for steps in STEPS:
        runs = {
            "sequence": partial(answer_clip, net, batch, steps=steps, steady=False),
            "parallel": partial(answer_in_parallel, net, batch, steps),
        }
        answers: dict[str, Tensor] = {}
        seconds = dict.fromkeys(runs, math.inf)
        # Forwards and backwards, the better of both: what only one of them met is no part of the comparison.
        for name in (*runs, *reversed(runs)):
            begun = time.perf_counter() if on_gpu else time.process_time()
            answers[name] = runs[name]()
            if on_gpu:
                torch.cuda.synchronize()
            took = (time.perf_counter() if on_gpu else time.process_time()) - begun
            seconds[name] = min(seconds[name], took)
        score = {name: float(_per_frame(psnr, answer, batch.truth).mean()) for name, answer in answers.items()}
        rate = {name: frames / max(took, 1e-9) for name, took in seconds.items()}
        rows += [
            Row(f"steps {steps}: PSNR in sequence", tier, score["sequence"], "dB", Bar()),
            Row(
                f"steps {steps}: PSNR in parallel", tier, score["parallel"], "dB",
                # The same answers, but for sums in another order.
                Bar(score["sequence"] - 0.02, score["sequence"] + 0.02),
            ),
            Row(f"steps {steps}: latency in parallel", tier, float(steps - 1), "frames", Bar(), {}, "in sequence 0"),
            Row(
                f"steps {steps}: throughput, parallel over sequence", tier, rate["parallel"] / rate["sequence"], "x",
                Bar(), {},
                f"{rate['parallel']:.1f} against {rate['sequence']:.1f} frames/s, {batch.source.shape[1]} clips of "
                f"{batch.source.shape[-1]}x{batch.source.shape[-2]} at once",
            ),
        ]  # fmt: skip
    return rows


@torch.inference_mode()
def time_rows(
    net: MirageNet, seed: int, quick: bool, out: Path, device: torch.device, bounds: Bounds | None = None
) -> list[Row]:
    """Measure everything that needs time to show; plots go to `out`. `bounds` of a healthy frame, from the weights."""
    length, tier = (QUICK if quick else FULL), net.tier.name
    with Progress(transient=True) as progress:
        task = progress.add_task("drawing the loops", total=length.frames + 7 * length.lap)
        batch = _loops(seed, length.lap, device)

        def part(name: str) -> None:
            progress.update(task, description=name, advance=length.lap)

        part("memory")
        rows = _memory_rows(net, batch, tier, _game_rows(net, seed, 12 if quick else 48, tier, device))
        part("the long run")
        each = zip(FAMILIES, _loop_styles(seed), strict=True)
        names = [f"{family}: {style.caption()}" for family, (_, style, _) in each]
        rows += _long_rows(net, batch, length, names, out, lambda n: progress.advance(task, n), bounds)
        part("a still camera")
        rows += _still_rows(net, batch, length, tier)
        part("texture")
        rows.append(_stick_row(net, seed, tier, device))
        part("poison")
        rows += _recovery_rows(net, batch, tier, bounds)
        part("switches and cuts")
        rows += [_switch_row(net, batch, tier), _cut_row(net, batch, tier, bounds)]
        part("one, two and four steps")
        rows += _steps_rows(net, batch, tier)
    return rows

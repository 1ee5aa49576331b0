"""`mirage eval`: how good the picture is, on scenes and styles that were never trained on.

Scenes come from seeds that training never reaches; styles are random points of the style space, and points of
the region that training never visits. Every figure stands beside doing nothing (*identity*), the best colour
matrix for that very frame fitted with the answer in hand (*oracle LUT*), and the same network without memory
(*per frame*).
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors import safe_open
from torch import Tensor

from mirage_plugin.config import TIERS, choose_tier
from mirage_plugin.errors import ConfigError, DataError, OutputError, WeightsError
from mirage_plugin.files import check_writable
from mirage_plugin.model.checkpoint import load_bounds, load_network, tier_of, weights_path
from mirage_plugin.model.drift import mean_squares
from mirage_plugin.model.memory import SOUNDED, MemoryState, dequantise, quantise, warp_state
from mirage_plugin.model.network import CELL, MirageNet, Overview, Planes
from mirage_plugin.model.reference import ReferenceEncoder, load_reference, style_of
from mirage_plugin.model.sampling import look_over, remembering, sample, steady_answer
from mirage_plugin.model.steady import SETTLED
from mirage_plugin.motion import MotionEstimator
from mirage_plugin.styles.parameters import Style, load_style
from mirage_plugin.train.batch import Batch, clip_noise, engine_planes, kept, render_pair
from mirage_plugin.train.metrics import gradient_energy, grid_energy, oracle_lut, psnr, ssim
from mirage_plugin.train.objective import entries, given_lines, given_planes
from mirage_plugin.train.pool import EVALUATION_SEED, draw_clip
from mirage_plugin.train.report import Bar, Row, contact_sheet, plotted, print_rows, write_rows
from mirage_plugin.train.sample_game import game_clips
from mirage_plugin.train.worlds.gbuffer import GBuffer
from mirage_plugin.train.worlds.program import as_shown, restyle
from mirage_plugin.train.worlds.scenes import SCENES
from mirage_plugin.train.worlds.styles import random_style, style_tensor

__all__ = [
    "Company",
    "Drawn",
    "answer_clip",
    "company",
    "draw_frame",
    "empty_settled",
    "empty_state",
    "evaluate",
    "game_batch",
    "graded_clip",
    "load_judged",
    "pair_batch",
    "rgb_alone",
    "sounded",
]

HEIGHT, WIDTH = 192, 352
"""Whole frames, as the oracle LUT is defined on them: a window of one shows a surface or two, and a matrix of twelve
numbers, fitted with the answer in hand, is as good as right there."""
LARGE_SIZE = (352, 640)
"""A frame as games have them, of which the network sees less at a time."""
GAME_SIZE = (384, 224)
GAME_STYLES = ("snow", "ink", "cel", "noir", "watercolour", "neon", "desert", "lava", "night")


@dataclass(frozen=True)
class Scale:
    """How much is measured: scenes a family, frames a clip, styles a scene, clips of the game."""

    scenes: int
    frames: int
    random_styles: int
    held_out_styles: int
    game_clips: int


FLAT = 2
"""Flat pictures for each scene of a family; they have a row of their own, for three or four colours are what a matrix
gets exactly right with the answer in hand."""
QUICK = Scale(1, 4, 2, 2, 2)
FULL = Scale(6, 6, 4, 4, 6)


Company = tuple[Tensor, Tensor, Tensor]
"""What a frame comes with besides its pixels, as the network takes it: style vectors, planes on cells, lines."""


@torch.inference_mode()
def company(net: MirageNet, batch: Batch, t: int) -> Company:
    """What frame `t` comes with besides its pixels: the same however often it is played."""
    style = net.style(batch.parameters[t])
    return style, given_planes(batch, t), given_lines(batch, t, style)


class Drawn(NamedTuple):
    """A frame of every clip of a batch: `answer` v [N, 3, H, W], what it leaves behind, and `drift.mean_squares`."""

    answer: Tensor
    stored: Tensor
    settled: Tensor
    squares: Tensor
    overview: Overview | None = None


def sounded(batch: Batch, t: int) -> Tensor:
    """Of which clips the memory is read in frame `t`, bool [N]: see `SOUNDED`. What came before the first frame of a
    clip is taken to be like its last ones, as it is where a clip is played over and over."""
    frames = (torch.arange(t + 1 - SOUNDED, t + 1) % batch.has_depth.shape[0]).to(batch.has_depth.device)
    return (batch.has_depth[frames] > 0).any(0)


@torch.inference_mode()
def draw_frame(
    net: MirageNet, batch: Batch, t: int, stored: Tensor, settled: Tensor | None, noise: Tensor, known: Tensor, *,
    steps: int = 1, given: Company | None = None, before: Overview | None = None,
) -> Drawn:  # fmt: skip
    """Redraw frame `t` of every clip of a batch.

    `stored` int8 [N, h/2, w/2, S], `settled` [N, h, w, SETTLED] and the overview `before` are what the frame before
    left; `known` bool [N] says where there was one. Without `settled` every frame's colours are its own. `noise`
    float32 [N, 1, H/2, W/2]. `given` is what `company` says of the frame, for who has asked already.
    """
    v = batch.source[t]
    seen, motion = entries(batch, t, net.tier.entry)
    knows = (known & ~batch.cut[t])[:, None, None, None]
    reads = knows & sounded(batch, t)[:, None, None, None]
    moved: MemoryState = warp_state(dequantise(stored), motion, seen * reads, net.tier.entry)
    style, planes, lines = given or company(net, batch, t)
    trust = torch.ones(v.shape[0], device=v.device)
    depth = batch.depth[t] if bool(batch.has_depth[t].all()) else None
    mask = batch.mask[t] if bool(batch.has_mask[t].all()) else None
    came = batch.motion[t].masked_fill(~knows, torch.nan)
    overview = look_over(net, v, Planes(depth, came, mask), style, before)
    answer, edit, state, words = sample(net, v, noise, planes, moved, style, trust, lines, steps, overview)
    if settled is None:
        settled = empty_settled(batch)
    else:
        answer, _, settled = steady_answer(v, edit, style, lines, settled * knows, batch.motion[t])
    squares = mean_squares(edit, state, moved)
    return Drawn(kept(batch, t, answer), quantise(state), settled, squares, remembering(overview, words))


@torch.inference_mode()
def answer_clip(
    net: MirageNet, batch: Batch, *, steps: int = 1, memory: bool = True, steady: bool = True
) -> Tensor:
    """Play a batch of clips as a sidecar would: closed loop, state in eight bits; v [T, N, 3, H, W].

    `memory=False` is the per-frame model: every frame is its first. Without `steady` a frame's colours are its own.
    """
    frames, n, _, height, width = batch.source.shape
    stored, settled = empty_state(net, n, height, width, batch.source.device), empty_settled(batch)
    answers: list[Tensor] = []
    overview: Overview | None = None
    for t in range(frames):
        known = torch.full((n,), memory and t > 0, device=batch.source.device)
        same = (batch.parameters[t] == batch.parameters[max(0, t - 1)]).all(-1)[:, None, None, None]
        given = settled * same if memory and steady else None
        drawn = draw_frame(net, batch, t, stored, given, batch.noise[t], known, steps=steps, before=overview)
        stored, settled, overview = drawn.stored, drawn.settled, drawn.overview
        answers.append(drawn.answer)
    return torch.stack(answers)


def empty_settled(batch: Batch) -> Tensor:
    """What is kept of the cells of clips that nobody has played yet: [N, H/8, W/8, SETTLED]."""
    n, _, height, width = batch.source.shape[1:]
    return torch.zeros(n, height // CELL, width // CELL, SETTLED, device=batch.source.device)


def empty_state(net: MirageNet, n: int, height: int, width: int, device: torch.device) -> Tensor:
    """The stored state of `n` clips that nobody has played yet: int8 [n, height/16, width/16, S]."""
    entry = net.tier.entry
    return torch.zeros(n, height // entry, width // entry, net.tier.state, dtype=torch.int8, device=device)


def pair_batch(pairs: list[tuple[GBuffer, Tensor, Tensor, Tensor, Tensor]], device: torch.device) -> Batch:
    """Put clips side by side, with all planes given.

    Each is (G-buffer, source, truth as v [T, 3, H, W], noise [T, 1, H/2, W/2], parameters [T, VECTOR_SIZE]).
    """
    rows: list[dict[str, Tensor]] = []
    for g, source, truth, noise, parameters in pairs:
        depth, motion, mask = engine_planes(g)
        rows.append(
            {
                "source": source,
                "truth": truth,
                "noise": noise,
                "depth": depth,
                "motion": motion,
                "visible": g.visible.float(),
                "mask": mask,
                "parameters": parameters,
                "cut": g.cut[:, 0, 0, 0],
            }
        )
    given = torch.ones(rows[0]["source"].shape[0], len(rows), device=device)
    stacked = {name: torch.stack([row[name] for row in rows], 1).to(device) for name in rows[0]}
    return Batch(**stacked, has_depth=given, has_motion=given, has_mask=given)


def rgb_alone(batch: Batch) -> Batch:
    """The same clips from an engine that gives no planes: as there, the motion is estimated, and the net not told."""
    none = torch.zeros_like(batch.has_depth)
    motion, visible = torch.zeros_like(batch.motion), torch.ones_like(batch.visible)
    order, estimate = np.arange(3), MotionEstimator()
    for clip in range(batch.source.shape[1]):
        for t, pixels in enumerate(((batch.source[:, clip] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()):
            found = estimate(pixels.numpy(), order, again=t == 0 or bool(batch.cut[t, clip]))
            if found is not None:
                whole = torch.from_numpy(found).permute(2, 0, 1).repeat_interleave(2, 1).repeat_interleave(2, 2)
                motion[t, clip] = whole.nan_to_num(0.0)
                visible[t, clip, 0] = ~whole[0].isnan()
    return replace(
        batch,
        has_depth=none,
        has_motion=none,
        has_mask=none,
        motion=motion,
        visible=visible,
    )


def load_judged(tier: str, weights: Path | None) -> MirageNet:
    """Load the network to judge: `tier` may be `auto`, `weights` a file instead of the tier's own.

    Raises `WeightsError` or `ConfigError` saying what is missing.
    """
    if tier == "auto":
        if weights is not None:
            tier = tier_of(weights)
        else:
            cuda = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
            tier = choose_tier(
                [name for name in TIERS if weights_path(name).is_file()],
                multiprocessors=cuda.multi_processor_count if cuda else None,
                memory_bytes=cuda.total_memory if cuda else None,
            )
    elif tier not in TIERS:
        raise ConfigError(f"tier must be one of auto, {', '.join(TIERS)}, not {tier!r}")
    return load_network(tier, weights)


def _ablation_of(weights: Path) -> str | None:
    """Which ablation a weights file that can be read says it is, if any."""
    with safe_open(weights, framework="pt") as file:
        return (file.metadata() or {}).get("ablation")


@dataclass(frozen=True)
class Case:
    """One scene in one style, measured: dB, SSIM and energies as means over its frames."""

    name: str
    held_out: bool
    psnr: dict[str, float]
    ssim: dict[str, float]
    energy: dict[str, float]

    def gain(self, who: str) -> float:
        """PSNR over the oracle LUT, dB."""
        return self.psnr[who] - self.psnr["oracle_lut"]


def graded_clip(batch: Batch) -> Tensor:
    """What the oracle LUT makes of a batch of clips, their overlays kept as the network's answers keep them."""
    pairs = enumerate(zip(batch.source, batch.truth, strict=True))
    return torch.stack([kept(batch, t, oracle_lut(source, truth)) for t, (source, truth) in pairs])


def _answers(net: MirageNet, batch: Batch) -> dict[str, Tensor]:
    """Everything that is compared, v [T, N, 3, H, W] each."""
    return {
        "identity": batch.source,
        "oracle_lut": graded_clip(batch),
        "model": answer_clip(net, batch),
        "per_frame": answer_clip(net, batch, memory=False),
        "rgb": answer_clip(net, rgb_alone(batch)),
        "steps2": answer_clip(net, batch, steps=2),
        "steps4": answer_clip(net, batch, steps=4),
    }


def _referred(
    batch: Batch, g: GBuffer, styles: list[Style], encoder: ReferenceEncoder, number: int
) -> Batch:
    """The same clips, each style taken from one picture of another scene (the first frame of `g`) in it."""
    rng = torch.Generator().manual_seed(number)
    found = []
    for style in styles:
        _, truth, _ = render_pair(g, [style], clip_noise(g, number & 0x7FFFFFFF), rng)
        picture = ((truth[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        found.append(torch.from_numpy(style_of([picture], "reference", encoder).vector()))
    parameters = torch.stack(found).to(batch.parameters.device).expand_as(batch.parameters)
    return replace(batch, parameters=parameters)


def _measure(batch: Batch, answers: dict[str, Tensor], names: list[tuple[str, bool]]) -> list[Case]:
    cases = []
    for i, (name, is_held_out) in enumerate(names):
        truth = batch.truth[:, i]
        everyone = {who: answer[:, i] for who, answer in answers.items()}
        cases.append(
            Case(
                name,
                is_held_out,
                {who: float(psnr(answer, truth).mean()) for who, answer in everyone.items()},
                {who: float(ssim(answer, truth).mean()) for who, answer in everyone.items()},
                {who: float(gradient_energy(a).mean()) for who, a in (everyone | {"truth": truth}).items()},
            )
        )
    return cases


def _unseen_styles(rng: torch.Generator, scale: Scale) -> list[tuple[Style, bool]]:
    drawn = [(random_style(rng), False) for _ in range(scale.random_styles)]
    return drawn + [(random_style(rng, only_held_out=True), True) for _ in range(scale.held_out_styles)]


def _scenes(
    seed: int, scale: Scale
) -> Iterator[tuple[str, GBuffer, list[tuple[Style, bool]], torch.Generator]]:
    """Unseen scenes of every family, then flat pictures, each with its unseen styles and what else is random."""
    families = [SCENES[i % len(SCENES)] for i in range(scale.scenes * len(SCENES))] + ["flat"] * FLAT * scale.scenes
    for i, family in enumerate(families):
        number = EVALUATION_SEED + seed * 1_000_003 + i
        rng = torch.Generator().manual_seed(number)
        g = draw_clip(number, scale.frames, HEIGHT, WIDTH, family, whole=True)
        yield family, g, _unseen_styles(rng, scale), rng


def _case_batch(
    g: GBuffer, styles: list[tuple[Style, bool]], rng: torch.Generator, device: torch.device
) -> Batch:
    pairs = []
    for style, _ in styles:
        noise = clip_noise(g, int(torch.randint(1 << 31, (), generator=rng)))
        source, truth, parameters = render_pair(g, [style] * g.depth.shape[0], noise, rng)
        pairs.append((g, source, truth, noise, parameters))
    return pair_batch(pairs, device)


def game_batch(
    source: Tensor, g: GBuffer, styles: list[Style], rng: torch.Generator, device: torch.device
) -> Batch:
    """A clip of the sample game, as `game_clips` takes it, and what each of `styles` makes of it."""
    pairs = []
    for style in styles:
        noise = clip_noise(g, int(torch.randint(1 << 31, (), generator=rng)))
        natural, scaled = style_tensor([style] * g.depth.shape[0])
        truth = restyle(as_shown(g, source), natural, noise, source)
        pairs.append((g, source * 2 - 1, truth * 2 - 1, noise, scaled))
    return pair_batch(pairs, device)


@torch.inference_mode()
def _picture_rows(net: MirageNet, seed: int, scale: Scale, out: Path, device: torch.device) -> list[Row]:
    cases: list[Case] = []
    flat: list[Case] = []
    grids: list[tuple[float, ...]] = []
    shown: list[tuple[str, list[Tensor]]] = []
    try:
        encoder: ReferenceEncoder | None = load_reference()
    except WeightsError:
        encoder = None
    before = draw_clip(EVALUATION_SEED + seed * 1_000_003 + 500_000, 1, HEIGHT, WIDTH, whole=True)
    with Progress(transient=True) as progress:
        total = scale.scenes * (len(SCENES) + FLAT) + scale.game_clips + len(SCENES)
        task = progress.add_task("unseen scenes and styles", total=total)
        for family, g, styles, rng in _scenes(seed, scale):
            batch = _case_batch(g, styles, rng, device)
            answers = _answers(net, batch)
            if encoder is not None:
                number = seed * 1_000_003 + len(cases) + len(flat)
                referred = _referred(batch, before, [s for s, _ in styles], encoder, number)
                answers["reference"] = answer_clip(net, referred)
                before = g.frames(0, 1)
            found = _measure(batch, answers, [(f"{family}: {s.caption()}", held) for s, held in styles])
            if family == "flat":
                flat += found
            else:
                cases += found
            everyone = ("model", "identity", "oracle_lut", "per_frame")
            every_grid = [float(grid_energy(answers[who].flatten(0, 1))) for who in everyone]
            own = float(grid_energy(batch.truth.flatten(0, 1)))
            if family != "flat":
                grids.append(tuple(value / own for value in every_grid))
            if len(shown) < 2 * 2 * len(SCENES) or family == "flat":
                for i in (0, len(styles) - 1):
                    pictures = [
                        batch.source[-1, i],
                        answers["oracle_lut"][-1, i],
                        answers["per_frame"][-1, i],
                        answers["model"][-1, i],
                        answers["steps4"][-1, i],
                        batch.truth[-1, i],
                    ]
                    shown.append((f"{found[i].gain('model'):+.1f} dB  {found[i].name}"[:150], pictures))
            progress.advance(task)
        contact_sheet(
            out / "unseen.png",
            ["source", "oracle LUT", "per frame", "Mirage, 1 step", "4 steps", "truth"],
            shown,
        )
        game, note = _game_cases(net, seed, scale, out, device, lambda: progress.advance(task))
        large = _large_cases(net, seed, device, lambda: progress.advance(task))
    _plot_gains(out / "gains.png", cases, net.tier.name)
    return _rows(net.tier.name, cases, flat, grids, game, note, large)


def _game_cases(
    net: MirageNet, seed: int, scale: Scale, out: Path, device: torch.device, advance: Callable[[], None]
) -> tuple[list[Case], str]:
    """The sample game in unseen styles, and a sheet of it in the presets; cases, or why there are none."""
    try:
        clips = list(game_clips(scale.game_clips, scale.frames, *GAME_SIZE, apart=120))
    except DataError as error:
        return [], str(error)
    rng = torch.Generator().manual_seed(EVALUATION_SEED + seed)
    cases: list[Case] = []
    presets = [load_style(name) for name in GAME_STYLES]
    shown: list[tuple[str, list[Tensor]]] = []
    for number, (source, g) in enumerate(clips):
        styles = _unseen_styles(rng, scale)
        batch = game_batch(source, g, [s for s, _ in styles], rng, device)
        answers = {
            "identity": batch.source,
            "oracle_lut": graded_clip(batch),
            "model": answer_clip(net, batch),
            "per_frame": answer_clip(net, batch, memory=False),
        }
        cases += _measure(batch, answers, [(s.caption(), held) for s, held in styles])
        if number < 3:
            batch = game_batch(source, g, presets, rng, device)
            answer = answer_clip(net, batch)
            shown += [
                ("the game, as Mirage draws it", [source[-1] * 2 - 1, *answer[-1]]),
                ("the truth", [source[-1] * 2 - 1, *batch.truth[-1]]),
            ]
        advance()
    contact_sheet(out / "game.png", ["source", *GAME_STYLES], shown)
    return cases, ""


def _large_cases(net: MirageNet, seed: int, device: torch.device, advance: Callable[[], None]) -> list[Case]:
    """Large frames, one of a scene of each family in two unseen styles."""
    cases: list[Case] = []
    for i, family in enumerate(SCENES):
        number = EVALUATION_SEED + seed * 1_000_003 + 700_000 + i
        rng = torch.Generator().manual_seed(number)
        styles = _unseen_styles(rng, replace(QUICK, random_styles=1, held_out_styles=1))
        batch = _case_batch(draw_clip(number, 1, *LARGE_SIZE, family, whole=True), styles, rng, device)
        drawn = answer_clip(net, batch)
        answers = {
            "identity": batch.source, "oracle_lut": graded_clip(batch), "model": drawn, "per_frame": drawn,
            "rgb": answer_clip(net, rgb_alone(batch)),
        }  # fmt: skip
        cases += _measure(batch, answers, [(s.caption(), held) for s, held in styles])
        advance()
    return cases


def _rows(
    tier: str, cases: list[Case], flat: list[Case], grids: list[tuple[float, ...]], game: list[Case], game_note: str,
    large: list[Case],
) -> list[Row]:  # fmt: skip
    big = tier == "base"
    three = ("identity", "oracle_lut", "per_frame")

    def over_lut(name: str, chosen: list[Case], bar: float | None, note: str = "") -> Row:
        value = fmean(c.gain("model") for c in chosen) if chosen else None
        baselines = {who: fmean(c.gain(who) for c in chosen) if chosen else None for who in three}
        return Row(name, tier, value, "dB", Bar(bar), baselines, note)

    def sharpness(who: str) -> float:
        return median(c.energy[who] / max(c.energy["truth"], 1e-9) for c in cases)

    worst = sorted(cases, key=lambda c: c.gain("model"))[: max(1, len(cases) // 10)]
    steps_bar = Bar(0.5) if big else Bar(0.0)
    one = fmean(c.psnr["model"] for c in cases)
    rows = [
        over_lut(
            "PSNR over the oracle LUT",
            cases,
            7 if big else 4,
            f"{len(cases)} pairs of unseen scene and unseen style, 1 step, planes given; PSNR {one:.2f} dB, "
            f"oracle LUT {fmean(c.psnr['oracle_lut'] for c in cases):.2f}, identity "
            f"{fmean(c.psnr['identity'] for c in cases):.2f}",
        ),
        over_lut("- random styles alone", [c for c in cases if not c.held_out], None),
        over_lut("- held-out region of styles alone", [c for c in cases if c.held_out], None),
        over_lut("worst tenth of styles over their LUT", worst, 3 if big else 1, "worst: " + worst[0].name),
        Row(
            "SSIM over the oracle LUT's",
            tier,
            fmean(c.ssim["model"] - c.ssim["oracle_lut"] for c in cases),
            "",
            Bar(0.0),
            {who: fmean(c.ssim[who] - c.ssim["oracle_lut"] for c in cases) for who in three},
            f"SSIM {fmean(c.ssim['model'] for c in cases):.3f}",
        ),
    ]
    for steps in (2, 4):
        who = f"steps{steps}"
        rows.append(
            Row(f"{steps} steps over 1, PSNR", tier, fmean(c.psnr[who] for c in cases) - one, "dB", steps_bar)
        )
        rows.append(
            Row(
                f"{steps} steps over 1, sharpness",
                tier,
                sharpness(who) / sharpness("model"),
                "x",
                Bar(1.0),
                {},
                f"gradient energy against the truth: {sharpness(who):.3f}",
            )
        )
    rows += [
        Row(
            "sharpness against the truth's",
            tier,
            sharpness("model"),
            "x",
            Bar(0.9, 1.1) if big else Bar(0.8, 1.2),
            {who: sharpness(who) for who in three},
            "gradient energy, median over the pairs",
        ),
        Row(
            "grid energy at 8 px against the truth's",
            tier,
            fmean(g[0] for g in grids),
            "x",
            Bar(None, 1.05 if big else 1.1),
            {who: fmean(g[i + 1] for g in grids) for i, who in enumerate(three)},
        ),
        Row(
            "planes given over RGB alone",
            tier,
            one - fmean(c.psnr["rgb"] for c in cases),
            "dB",
            Bar(0.0),
            {},
            f"RGB alone over the oracle LUT: {fmean(c.gain('rgb') for c in cases):+.2f} dB",
        ),
        Row(
            "style from one reference picture over its own code", tier,
            fmean(c.psnr["reference"] for c in cases) - one if "reference" in cases[0].psnr else None,
            "dB", Bar(-1.5 if big else -3.0), {},
            "the picture shows another scene" if "reference" in cases[0].psnr else "no reference weights here",
        ),
        over_lut("sample game over the oracle LUT", game, 5 if big else 2, game_note),
        over_lut(
            "flat pictures over the oracle LUT", flat, None,
            f"boards, maps, silhouettes; PSNR {fmean(c.psnr['model'] for c in flat):.2f} dB, RGB alone "
            f"{fmean(c.psnr['rgb'] for c in flat):.2f}, oracle LUT {fmean(c.psnr['oracle_lut'] for c in flat):.2f}",
        ),
        over_lut(
            f"frames of {LARGE_SIZE[1]}x{LARGE_SIZE[0]} over the oracle LUT", large, None,
            f"RGB alone, with an overview, over the oracle LUT: {fmean(c.gain('rgb') for c in large):+.2f} dB",
        ),
    ]  # fmt: skip
    return rows


def _plot_gains(path: Path, cases: list[Case], tier: str) -> None:
    """Every pair's PSNR over its oracle LUT, sorted; where it is below zero, colour grading would have
    done.
    """
    ordered = sorted(cases, key=lambda c: c.gain("model"))
    with plotted(path, figsize=(8, 4)) as axes:
        colours = ["#d9772b" if c.held_out else "#2b6cb0" for c in ordered]
        axes.bar(range(len(ordered)), [c.gain("model") for c in ordered], color=colours)
        axes.plot([c.gain("per_frame") for c in ordered], "k.", markersize=4, label="per frame")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(
            xlabel="unseen scene and style, sorted",
            ylabel="PSNR over the oracle LUT, dB",
            title=f"{tier}: blue random styles, orange the held-out region",
        )
        axes.legend(frameon=False)


def evaluate(
    *,
    tier: str = "auto",
    seed: int = 0,
    quick: bool = False,
    out: Path = Path("out/eval"),
    json: Path | None = None,
    weights: Path | None = None,
    time: bool = False,
) -> None:
    """Measure a model and print each figure beside its bar and its baselines.

    `quick` takes fewer scenes and styles; `time` measures what happens over time instead of the picture.
    Plots and contact sheets go to the folder `out`; `json` gets `{"rows": [{"row", "tier", "value", "unit",
    "baselines": {"identity", "oracle_lut", "per_frame"}, "bar", "met"}]}`. The same arguments give the same
    figures. Raises `WeightsError`, `ConfigError` or `OutputError`."""
    begun = clock.monotonic()
    check_writable(json)
    console = Console(markup=False, emoji=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    net = load_judged(tier, weights).to(device)
    ablation = _ablation_of(weights or weights_path(net.tier.name))
    if ablation is not None:
        console.print(
            f"these weights are the ablation {ablation!r}, judged here as any others; benchmarks/ablations.py plays "
            "them as they were trained"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.at(out, error) from error
    if time:
        from mirage_plugin.train.endurance import time_rows  # it is built on this module

        rows = time_rows(net, seed, quick, out, device, load_bounds(net.tier.name, weights))
        title = f"{net.tier.name} over time"
    else:
        rows = _picture_rows(net, seed, QUICK if quick else FULL, out, device)
        title = f"{net.tier.name}: the picture"
        value = rows[0].value
        assert value is not None
        console.print(f"PSNR over the oracle LUT: {value:+.2f} dB (bar {rows[0].bar})")
    print_rows(console, title, rows)
    console.print(f"plots and contact sheets in {out}")
    about = {
        "tier": net.tier.name,
        "seed": seed,
        "quick": quick,
        "time": time,
        "weights": str(weights or weights_path(net.tier.name).name),
        "ablation": ablation,
        "seconds": round(clock.monotonic() - begun, 1),
    }
    if json is not None:
        write_rows(json, rows, about)

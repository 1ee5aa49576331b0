"""`mirage train`: one command that trains a tier, can be stopped at any moment and goes on where it was."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mirage_kernels.shade import shade_reference
from mirage_plugin.config import TrainConfig
from mirage_plugin.errors import DataError, DeviceError, OutputError
from mirage_plugin.model.checkpoint import load_network, note_weights, save_network, save_tensors
from mirage_plugin.model.core import best_dtype
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.model.reference import ReferenceEncoder, load_reference, reference_loss
from mirage_plugin.train.batch import Batch, draw_batch, sent_anew
from mirage_plugin.train.calibration import EFFORT, learn_bounds
from mirage_plugin.train.objective import ABLATED, FULL, clip_loss
from mirage_plugin.train.pairs import PairFolder
from mirage_plugin.train.pool import ClipPool
from mirage_plugin.train.worlds.styles import random_style, style_tensor

__all__ = ["train"]

WEIGHT_DECAY = 0.02
_ENDS = ("stem", "head")
"""Layers whose matrices AdamW trains, as Muon's authors advise for what is nearest to the input and the output."""
ECHO_AFTER = 17
"""How many batches later one is used again; odd, for every other one is new."""
CHECKPOINT_EVERY_S = 180.0
SHEET_EVERY_S = 900.0
LINE_EVERY_S = 30.0
COMPILED_FROM_MIN = 20
"""Shorter runs go without the compiler, which takes two minutes and then a sixth off every step (two x86 cores)."""


@dataclass(frozen=True)
class Stage:
    """A part of a run, up to the share `until` of its time.

    Single frames first, as many styles a step as fit: most of what there is to learn is what a style does to a
    picture. Then clips, for the memory, in turn with batches of `singles` single frames, for a batch of clips has few
    scenes and few styles.
    """

    until: float
    batch: int
    frames: int
    height: int
    width: int
    second_pass: float
    singles: int = 0


@dataclass(frozen=True)
class Recipe:
    """What a device can afford; the objective is the same."""

    stages: tuple[Stage, ...]
    learning_rate: float
    """Of what AdamW trains; the matrices, which Muon trains, learn at twice the rate."""
    clip_frames: int
    capacity: int
    steps_per_clip: int
    workers: int
    drawers: int


def _recipe(tier: str, device: torch.device) -> Recipe:
    if device.type == "cpu":
        stages = (Stage(0.5, 22, 1, 128, 160, 0.1), Stage(1.0, 4, 6, 128, 160, 0.2, singles=22))
        return Recipe(stages, 1.5e-3, 6, 700, 6, 1, 1)
    batch = {"nano": 256, "small": 128, "base": 96}[tier]
    rate = {"nano": 2e-3, "small": 1.5e-3, "base": 1e-3}[tier]
    stages = (Stage(0.6, batch, 1, 128, 128, 0.15), Stage(1.0, batch // 4, 6, 128, 192, 0.25, singles=batch))
    processes = max(2, (os.cpu_count() or 4) - 2)
    return Recipe(stages, rate, 6, 3000, 1, processes // 2, processes // 2)


class Run:
    """The state of a training run: everything that a checkpoint holds."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        """Start from nothing."""
        torch.manual_seed(config.seed)
        self.recipe = _recipe(config.tier, device)
        net = MirageNet(TIERS[config.tier])
        rng = torch.Generator().manual_seed(config.seed)
        net.style_encoder.standardise(style_tensor([random_style(rng) for _ in range(2048)])[1])
        net.begin_training()
        self.net = net.to(device)
        self.average = deepcopy(self.net).eval().requires_grad_(False)
        self.reference = ReferenceEncoder().to(device)
        self.reference_average = deepcopy(self.reference).eval().requires_grad_(False)
        matrices = [p for name, p in self.net.named_parameters() if p.dim() == 2 and not name.startswith(_ENDS)]
        others = {id(p) for p in matrices}
        rest = [p for p in [*self.net.parameters(), *self.reference.parameters()] if id(p) not in others]
        decayed, plain = [p for p in rest if p.dim() > 1], [p for p in rest if p.dim() <= 1]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
                betas=(0.9, 0.98),
            ),
            "muon": torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        }
        self.step = 0
        self.seconds = 0.0
        self.losses: list[tuple[int, float]] = []

    def save(self, path: Path) -> None:
        """Write a checkpoint; the previous one is replaced only by a whole new one."""
        part = path.with_suffix(".part")
        try:
            torch.save(
                {
                    "tier": self.net.tier.name, "net": self.net.state_dict(), "average": self.average.state_dict(),
                    "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()}, "step": self.step,
                    "seconds": self.seconds, "losses": self.losses, "reference": self.reference.state_dict(),
                    "reference_average": self.reference_average.state_dict(),
                },
                part,
            )  # fmt: skip
            part.replace(path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"the checkpoint {path} cannot be written ({error}); the last one is kept") from error

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        try:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise DataError(f"{path} is not a whole checkpoint ({error}): use --fresh to start anew") from error
        if saved.get("tier") != self.net.tier.name:
            raise DataError(
                f"{path} holds tier {saved.get('tier')!r}, not {self.net.tier.name!r}: choose another --out"
            )
        if "optimizers" not in saved:
            raise DataError(f"{path} is of an earlier version: --fresh --from the weights beside it goes on from them")
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        self.reference.load_state_dict(saved["reference"])
        self.reference_average.load_state_dict(saved["reference_average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        self.step, self.seconds, self.losses = saved["step"], saved["seconds"], saved["losses"]

    def begin(self, path: Path) -> None:
        """Take the weights in a file instead of random ones, and the encoder of references that lies beside it.

        Raises `WeightsError` where the file is of another tier or cannot be used.
        """
        weights = load_network(self.net.tier.name, path).state_dict()
        for net in (self.net, self.average):
            net.load_state_dict(weights)
        beside = path.with_name("reference.safetensors")
        if beside.is_file():
            weights = load_reference(beside).state_dict()
            for encoder in (self.reference, self.reference_average):
                encoder.load_state_dict(weights)

    def descend(self, loss: Tensor, rate: float) -> None:
        """Take a step at `rate` down the gradients of `loss`; one that is not finite changes nothing."""
        for name, optimizer in self.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * (2 if name == "muon" else 1)
        loss.backward()  # type: ignore[no-untyped-call]
        norms = [torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0) for m in (self.net, self.reference)]
        if all(bool(torch.isfinite(norm)) for norm in norms):
            for optimizer in self.optimizers.values():
                optimizer.step()
            self.update_average()

    def update_average(self) -> None:
        """Move the exponential average that ships a little towards the weights."""
        decay = min(0.998, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            for means, nows in ((self.average, self.net), (self.reference_average, self.reference)):
                for mean, now in zip(means.parameters(), nows.parameters(), strict=True):
                    mean.lerp_(now, 1 - decay)


def _learning_rate(recipe: Recipe, step: int, part: float) -> float:
    """Warm up over 200 steps, hold, and fall to a hundredth over the last 85 % of the time given."""
    warm = min(1.0, (step + 1) / 200)
    fall = 1.0 if part < 0.15 else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (part - 0.15) / 0.85))
    return recipe.learning_rate * warm * fall


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError.no_cuda()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class _Batches(IterableDataset[dict[str, Tensor]]):
    """Batches in the order of steps, drawn in processes of their own: restyling is half of the work of a step.

    So a batch is used twice (data echoing, Choi et al. 2019); which frames come with depth and mask is drawn anew.
    """

    def __init__(self, pictures: ClipPool | PairFolder, seed: int, first: int, stage: Stage) -> None:
        self.pictures, self.seed, self.first, self.stage = pictures, seed, first, stage

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        stage = self.stage
        earlier: dict[int, Batch] = {}
        for i, step in enumerate(itertools.count(self.first + offset, stride)):
            rng = torch.Generator().manual_seed((self.seed * 1_000_003 + step) & (2**63 - 1))
            batch = earlier.pop(i - ECHO_AFTER, None)
            if batch is not None:
                # A folder's own clips may lack a plane.
                batch = sent_anew(batch, rng) if isinstance(self.pictures, ClipPool) else batch
            else:
                single = stage.singles > 0 and i // 2 % 2 == 0
                sizes = {"size": stage.singles if single else stage.batch, "frames": 1 if single else stage.frames}
                sizes |= {"height": stage.height, "width": stage.width}
                if isinstance(self.pictures, ClipPool):
                    batch = draw_batch(functools.partial(self.pictures.sample, step), rng, **sizes)
                else:
                    batch = self.pictures.draw_batch(rng, **sizes)
                if i % 2 == 0:
                    earlier[i] = batch
            drawn = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
            yield {name: value for name, value in drawn.items() if value is not None}


def train(config: TrainConfig) -> None:
    """Train `config.tier` for `config.minutes`; checkpoints, sheets and the loss plot go to its run folder.

    Ctrl-C writes a checkpoint first and loses nothing. An ablation trains on clips alone, as the end of a whole run
    does, on clips that it shares with the other ablations of its folder.
    """
    device = _device(config.device)
    if device.type == "cpu":
        torch.set_num_threads(config.threads)
    folder = config.run_directory
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the run folder {folder} cannot be made: {error}") from error
    console = Console()
    run = Run(config, device)
    checkpoint = folder / "state.pt"
    if config.resume and checkpoint.is_file():
        if config.start is not None:
            raise DataError(f"{folder} holds a run: --fresh replaces it by one that begins from {config.start}")
        run.load(checkpoint)
        console.print(f"going on at step {run.step} after {run.seconds / 60:.0f} minutes")
    elif config.start is not None:
        run.begin(config.start)
        console.print(f"beginning from {config.start}")
    recipe = run.recipe
    pool = (folder if config.ablation is None else folder.parent) / "pool"
    pictures = PairFolder(config.data) if config.data else ClipPool(
        pool, seed=config.seed, frames=recipe.clip_frames, capacity=recipe.capacity, first=24,
        steps_per_clip=recipe.steps_per_clip, workers=recipe.workers, start_step=run.step,
    )  # fmt: skip
    if device.type == "cpu" and config.minutes >= COMPILED_FROM_MIN and shutil.which("g++"):
        run.net.shade = torch.compile(shade_reference, dynamic=False)
    console.print(
        f"training {config.tier} ({run.net.parameter_count() / 1e6:.2f} M parameters) on {device.type} for "
        f"{config.minutes:g} minutes; Ctrl-C stops and keeps everything"
        + (f"; ablation: {config.ablation}" if config.ablation else "")
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also where a shell started this in the background, which makes it deaf to Ctrl-C.
        signal.signal(number, signal.default_int_handler)
    try:
        _loop(config, run, pictures, device, folder, console)
    except KeyboardInterrupt:
        console.print("stopped")
    finally:
        if isinstance(pictures, ClipPool):
            pictures.close()
    _finish(config, run, folder, console)
    console.print(f"step {run.step}: weights in {folder / (config.tier + '.safetensors')}")


def _loop(
    config: TrainConfig, run: Run, pictures: ClipPool | PairFolder, device: torch.device, folder: Path, console: Console
) -> None:
    stages = run.recipe.stages
    # An ablation's weights know single frames already: only what follows is trained, at the rate that it has there.
    clock = _Clock(config.minutes * 60, stages[-2].until if config.ablation else 0.0)
    for stage in stages:
        if config.ablation:
            stage = replace(stage, singles=0)
        if clock.part < stage.until:
            console.print(f"{stage.batch} clips of {stage.frames} frame(s) a step")
            _train_stage(config, run, pictures, device, folder, console, stage, clock)
            if stage.frames == 1:
                # What ablations begin from.
                save_network(run.average, folder / "single.safetensors", _notes(config, run))


@dataclass
class _Clock:
    """Where a run is between its first and its last second; it leaves out the share `skipped` of a whole run."""

    length: float
    skipped: float = 0.0
    begun: float | None = None
    line: float = 0.0
    saved: float = 0.0
    sheet: float = 0.0

    def start(self) -> None:
        """Begin to count, if that has not happened yet: drawing the first clips is no part of training."""
        if self.begun is None:
            self.begun = time.monotonic()

    @property
    def now(self) -> float:
        return 0.0 if self.begun is None else time.monotonic() - self.begun

    @property
    def part(self) -> float:
        return self.skipped + (1 - self.skipped) * self.now / self.length


def _train_stage(
    config: TrainConfig, run: Run, pictures: ClipPool | PairFolder, device: torch.device, folder: Path,
    console: Console, stage: Stage, clock: _Clock,
) -> None:  # fmt: skip
    recent: list[float] = []
    recent_reference: list[float] = []
    carried: Tensor | None = None
    first_step, first_time = run.step, clock.now
    loader = DataLoader(
        _Batches(pictures, config.seed, run.step, stage), batch_size=None, num_workers=run.recipe.drawers,
        prefetch_factor=2, multiprocessing_context="spawn", pin_memory=device.type == "cuda",
    )  # fmt: skip
    ablation = ABLATED[config.ablation] if config.ablation else FULL
    half = best_dtype(device) == torch.bfloat16
    for drawn in loader:
        clock.start()
        if clock.part >= stage.until:
            break
        batch = Batch(**{name: value.to(device, non_blocking=True) for name, value in drawn.items()})
        rng = torch.Generator().manual_seed(config.seed * 7_919 + run.step)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss, state = clip_loss(
                run.net, batch, rng, second_pass=stage.second_pass, carried=carried, ablation=ablation
            )
            # The first frame of every clip: the rest show the same in the same style.
            reference = reference_loss(run.reference, batch.truth[0], batch.parameters[0])
        carried = state if batch.source.shape[0] > 1 else carried
        run.descend(loss + reference, _learning_rate(run.recipe, run.step, clock.part))
        run.step += 1
        recent.append(float(loss.detach()))
        recent_reference.append(float(reference.detach()))
        now = clock.now
        if now - clock.line > LINE_EVERY_S:
            mean = float(np.mean(recent))
            rate = (run.step - first_step) / (now - first_time)
            run.losses.append((run.step, mean))
            left = (clock.length - now) / 60
            styles = float(np.mean(recent_reference))
            console.print(
                f"step {run.step:6d}  loss {mean:.4f}  style from picture {styles:.4f}  {rate:.2f} steps/s  "
                f"{left:.0f} min left"
            )
            recent, recent_reference, clock.line = [], [], now
        if now - clock.saved > CHECKPOINT_EVERY_S:
            run.seconds += now - clock.saved
            run.save(folder / "state.pt")
            clock.saved = now
        if now - clock.sheet > SHEET_EVERY_S:
            _sheet(run.average, batch, folder / f"sheet_{run.step:06d}.png")
            clock.sheet = now
    run.seconds += clock.now - clock.saved
    clock.saved = clock.now


def _sheet(net: MirageNet, batch: Batch, path: Path) -> None:
    """Source, answer and truth of a batch's first frames, as a picture."""
    every = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
    first = Batch(**{name: value[:1] for name, value in every.items() if value is not None})
    from mirage_plugin.train.evaluation import answer_clip

    answer = answer_clip(net, first)
    rows = torch.cat([first.source[0], answer[0], first.truth[0]], 3).clamp(-1, 1)
    picture = ((torch.cat(list(rows), 1).permute(1, 2, 0) + 1) * 127.5).byte().cpu().numpy()
    Image.fromarray(picture).save(path)


def _notes(config: TrainConfig, run: Run) -> dict[str, str]:
    """What a weights file says of how it was trained."""
    notes = {"steps": str(run.step), "seconds": f"{run.seconds:.0f}", "seed": str(config.seed)}
    return notes | ({"ablation": config.ablation} if config.ablation else {})


def _finish(config: TrainConfig, run: Run, folder: Path, console: Console) -> None:
    run.save(folder / "state.pt")
    notes = _notes(config, run)
    weights = folder / f"{config.tier}.safetensors"
    save_network(run.average, weights, notes)
    save_tensors("reference", run.reference_average.state_dict(), folder / "reference.safetensors", notes)
    if run.losses:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        steps, values = zip(*run.losses, strict=True)
        figure, axes = plt.subplots(figsize=(7, 4))
        axes.plot(steps, values)
        axes.set(xlabel="step", ylabel="loss", title=f"{config.tier}: training loss")
        figure.savefig(folder / "loss.png", dpi=110, bbox_inches="tight")
        plt.close(figure)
    if config.json:
        report = {"tier": config.tier, "step": run.step, "seconds": run.seconds, "losses": run.losses}
        config.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if config.ablation not in (None, "full"):
        return  # bounds are learned by playing as the full network is played, which says nothing of these
    # Last: what comes before is kept if this is interrupted, and without bounds the weights serve as well.
    draw, effort = None, EFFORT
    if config.data:
        draw, effort = PairFolder(config.data).draw_batch, replace(EFFORT, frames=run.recipe.stages[-1].frames)
    with Progress(transient=True) as progress:
        task = progress.add_task("learning what a healthy frame has, about a minute", total=effort.batches)
        try:
            bounds = learn_bounds(
                run.average, seed=config.seed, effort=effort, draw=draw,
                tell=lambda done: progress.update(task, completed=done),
            )  # fmt: skip
        except (DataError, ValueError) as error:
            console.print(f"no bounds for error correction: {error}")
            return
    note_weights(config.tier, weights, {"bounds": bounds.to_json()})

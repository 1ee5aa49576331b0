"""`mirage train`: one command that trains a tier, can be stopped at any moment and goes on where it was."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import signal
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mirage_kernels.shade import shade_reference
from mirage_plugin.config import TrainConfig
from mirage_plugin.errors import DataError, DeviceError, OutputError
from mirage_plugin.files import check_writable
from mirage_plugin.model.checkpoint import load_network, note_weights, save_network, save_tensors
from mirage_plugin.model.core import best_dtype
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.model.reference import ReferenceEncoder, load_reference, reference_loss
from mirage_plugin.train.batch import Batch, draw_batch, sent_anew
from mirage_plugin.train.calibration import EFFORT, learn_bounds
from mirage_plugin.train.history import Histories, History
from mirage_plugin.train.objective import ABLATED, FULL, LOSSES, Losses, clip_loss
from mirage_plugin.train.pairs import PairFolder
from mirage_plugin.train.pool import ClipPool, deaf_to_ctrl_c
from mirage_plugin.train.run import Clock, Log, Run, learning_rate
from mirage_plugin.train.worlds.styles import random_style, style_tensor

__all__ = ["train"]

ECHO_AFTER = 9
"""How many batches of single frames later one is used again; odd, for every other one is new."""
HISTORIES = 12
"""How many rollouts are under way at a time."""
LONGEST = 96
"""Frames of the longest rollout at the end of a run; it begins at three times a clip's."""
SHEET_EVERY_S = 900.0
PICTURES = 6000
"""Of how many pictures the encoder of references learns at a time; they are kept as bytes, 0.4 GB."""
USES = 8
"""How often it sees each of them, on average: drawing one takes a core as long as six of its steps take for one."""
COMPILED_FROM_MIN = 20
"""Shorter runs go without the compiler, which takes two minutes and then a sixth off every step (two x86 cores)."""


@dataclass(frozen=True)
class Stage:
    """A part of a run, up to the share `until` of its time.

    Single frames first, as many styles a step as fit: most of what there is to learn is what a style does to a
    picture. Then clips, for the memory, each followed by a history that goes on; in turn with batches of `singles`
    single frames, for a batch of clips has few scenes and few styles.
    """

    until: float
    batch: int
    frames: int
    height: int
    width: int
    second_pass: float
    singles: int = 0
    twice: bool = True
    """Batches of single frames come a second time."""


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


def _recipe(kind: str, device: torch.device) -> Recipe:
    if device.type == "cpu":
        if kind == "reference":
            return Recipe((Stage(1.0, 22, 1, 128, 160, 0.0, twice=False),), 1.5e-3, 6, 700, 6, 1, 1)
        stages = (Stage(0.5, 22, 1, 128, 160, 0.1), Stage(1.0, 4, 6, 128, 160, 0.2, singles=22))
        return Recipe(stages, 1.5e-3, 6, 700, 6, 1, 1)
    batch = {"nano": 256, "small": 128, "base": 96, "reference": 128}[kind]
    rate = {"nano": 2e-3, "small": 1.5e-3, "base": 1e-3, "reference": 2e-3}[kind]
    processes = max(2, (os.cpu_count() or 4) - 2)
    pace = (6, 3000, 1, processes // 2, processes // 2)
    if kind == "reference":
        return Recipe((Stage(1.0, batch, 1, 128, 160, 0.0, twice=False),), rate, *pace)
    stages = (Stage(0.6, batch, 1, 128, 128, 0.15), Stage(1.0, batch // 4, 6, 128, 192, 0.25, singles=batch))
    return Recipe(stages, rate, *pace)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError.no_cuda()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class _Batches(IterableDataset[dict[str, Tensor]]):
    """Batches in the order of steps, drawn in processes of their own: restyling is half of the work of a step.

    So a batch of single frames is used twice (data echoing, Choi et al. 2019), with depth and mask drawn anew; a batch
    of clips is what histories are made of.
    """

    def __init__(self, pictures: ClipPool | PairFolder, seed: int, first: int, stage: Stage) -> None:
        self.pictures, self.seed, self.first, self.stage = pictures, seed, first, stage

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        stage = self.stage
        singles = stage.batch if stage.frames == 1 else stage.singles
        # In turn a new batch of single frames, one of before, and clips.
        turns = ("new",) * (singles > 0) + ("again",) * (singles > 0 and stage.twice) + ("clips",) * (stage.frames > 1)
        earlier: deque[Batch] = deque()
        for step, turn in zip(itertools.count(self.first + offset, stride), itertools.cycle(turns), strict=False):
            rng = torch.Generator().manual_seed((self.seed * 1_000_003 + step) & (2**63 - 1))
            if turn == "again" and len(earlier) > ECHO_AFTER // 2:
                batch = earlier.popleft()
                # A folder's own clips may lack a plane.
                batch = sent_anew(batch, rng) if isinstance(self.pictures, ClipPool) else batch
            else:
                sizes = (stage.batch, stage.frames) if turn == "clips" else (singles, 1)
                of = dict(zip(("size", "frames", "height", "width"), (*sizes, stage.height, stage.width), strict=True))
                if isinstance(self.pictures, ClipPool):
                    batch = draw_batch(functools.partial(self.pictures.sample, step), rng, **of)
                else:
                    batch = self.pictures.draw_batch(rng, **of)
                if turn == "new" and stage.twice:
                    earlier.append(batch)
            drawn = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
            yield {name: value for name, value in drawn.items() if value is not None}


def train(config: TrainConfig) -> None:
    """Train `config.tier`, or the encoder of references, for `config.minutes`.

    Checkpoints, sheets and the loss plot go to its run folder. Ctrl-C writes a checkpoint first and loses nothing. An
    ablation trains on clips alone, as the end of a whole run does, on clips that it shares with the other ablations of
    its folder.
    """
    device = _device(config.device)
    if device.type == "cpu":
        torch.set_num_threads(config.threads)
    folder = config.run_directory
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the run folder {folder} cannot be made: {error}") from error
    check_writable(config.json)
    console = Console(markup=False, emoji=False, soft_wrap=True)
    run = _begun(config, device)
    checkpoint = folder / "state.pt"
    if config.resume and checkpoint.is_file():
        if config.start is not None:
            raise DataError(f"{folder} holds a run: --fresh replaces it by one that begins from {config.start}")
        run.load(checkpoint)
        console.print(f"going on at step {run.step} after {run.seconds / 60:.0f} minutes")
    elif config.start is not None:
        console.print(f"beginning from {config.start}")
    recipe = _recipe(run.kind, device)
    pool = (folder if config.ablation is None else folder.parent) / "pool"
    pictures = PairFolder(config.data) if config.data else ClipPool(
        pool, seed=config.seed, frames=recipe.clip_frames, capacity=recipe.capacity, first=24,
        steps_per_clip=recipe.steps_per_clip, workers=recipe.workers, start_step=run.drawn,
    )  # fmt: skip
    if isinstance(pictures, PairFolder):
        for stage in recipe.stages:
            # Now, not when half of the time is over.
            pictures.fitting(stage.frames, stage.height, stage.width)
    net = run.net
    compiled = device.type == "cpu" and config.minutes >= COMPILED_FROM_MIN and shutil.which("g++") is not None
    judged = LOSSES
    if isinstance(net, MirageNet) and compiled:
        net.shade = torch.compile(shade_reference, dynamic=False)
        judged = Losses(*(torch.compile(loss, dynamic=False) for loss in LOSSES))
    parameters = sum(p.numel() for p in net.parameters())
    console.print(
        f"training {run.kind} ({parameters / 1e6:.2f} M parameters) on {device.type} for "
        f"{config.minutes:g} minutes; Ctrl-C stops and keeps everything"
        + (f"; ablation: {config.ablation}" if config.ablation else "")
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also where a shell started this in the background, which makes it deaf to Ctrl-C.
        signal.signal(number, signal.default_int_handler)
    # An ablation's weights know single frames already: only what follows is trained, at the rate that it has there.
    clock = Clock(config.minutes * 60, recipe.stages[-2].until if config.ablation else 0.0)
    log = Log(run, folder, clock, console)
    try:
        _loop(config, recipe, log, pictures, device, judged)
    except KeyboardInterrupt:
        console.print("stopped")
    finally:
        if isinstance(pictures, ClipPool):
            pictures.close()
    log.keep_time()
    _finish(config, recipe, log)
    console.print(f"step {run.step}: weights in {folder / (run.kind + '.safetensors')}")


def _begun(config: TrainConfig, device: torch.device) -> Run:
    """A run at its beginning: from random weights, or from those in `config.start`.

    An ablation learns the memory anew, whatever that of `config.start` has learned; at first it reads nothing. Raises
    `WeightsError` where the file is of another tier or cannot be used.
    """
    torch.manual_seed(config.seed)
    if config.reference:
        run = Run("reference", ReferenceEncoder().to(device))
        if config.start is not None:
            run.begin(load_reference(config.start).state_dict())
        return run
    net = MirageNet((ABLATED[config.ablation] if config.ablation else FULL).tier(TIERS[config.tier]))
    rng = torch.Generator().manual_seed(config.seed)
    net.style_encoder.standardise(style_tensor([random_style(rng) for _ in range(2048)])[1])
    net.begin_training()
    run = Run(config.tier, net.to(device))
    if config.start is not None:
        weights = load_network(config.tier, config.start).state_dict()
        if config.ablation is not None:
            nothing = {f"memory.into.{name}": torch.zeros_like(p) for name, p in net.memory.into.named_parameters()}
            weights = {name: value for name, value in weights.items() if not name.startswith("memory.")} | nothing
        run.begin(weights)
    return run


def _loop(
    config: TrainConfig, recipe: Recipe, log: Log, pictures: ClipPool | PairFolder, device: torch.device,
    judged: Losses,
) -> None:  # fmt: skip
    for stage in recipe.stages:
        if config.ablation:
            stage = replace(stage, singles=0)
        if log.clock.part >= stage.until:
            continue
        log.console.print(f"{stage.batch} clips of {stage.frames} frame(s) a step")
        loader = DataLoader(
            _Batches(pictures, config.seed, log.run.drawn, stage), batch_size=None, num_workers=recipe.drawers,
            prefetch_factor=2, multiprocessing_context="spawn", pin_memory=device.type == "cuda",
            worker_init_fn=_end_at_once,
        )  # fmt: skip
        if config.reference:
            _train_reference(config, recipe, log, device, loader)
        else:
            _train_stage(config, recipe, log, device, loader, stage, judged)
        if stage.frames == 1 and isinstance(log.run.average, MirageNet):
            # What ablations begin from.
            save_network(log.run.average, log.folder / "single.safetensors", _notes(config, log.run))


def _train_stage(
    config: TrainConfig, recipe: Recipe, log: Log, device: torch.device, loader: DataLoader[dict[str, Tensor]],
    stage: Stage, judged: Losses,
) -> None:  # fmt: skip
    run, clock, net = log.run, log.clock, log.run.net
    assert isinstance(net, MirageNet)
    carried: Tensor | None = None
    sheet, begun_at = clock.now, clock.part
    histories = Histories(HISTORIES)
    ablation = ABLATED[config.ablation] if config.ablation else FULL
    half = best_dtype(device) == torch.bfloat16
    for batch, history in _turns(loader, histories, run, device, config.seed):
        clock.start()
        if clock.part >= stage.until:
            break
        rng = torch.Generator().manual_seed(config.seed * 7_919 + run.step)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            rollout = clip_loss(
                net, batch, rng, second_pass=stage.second_pass, carried=carried,
                history=history.state if history else None, ablation=ablation, judged=judged,
            )  # fmt: skip
        if history is not None:
            grown = (clock.part - begun_at) / (stage.until - begun_at)
            histories.played(history, rollout, 3 * stage.frames * (LONGEST / (3 * stage.frames)) ** grown)
        elif batch.source.shape[0] > 1:
            histories.begin(batch, rollout)
            carried = rollout.state
        run.descend(rollout.loss, learning_rate(recipe.learning_rate, run.step, clock.part))
        longest = f"  histories of {max(h.frames for h in histories.kept)} frames" if histories.kept else ""
        log.add(rollout.loss, longest)
        if clock.now - sheet > SHEET_EVERY_S:
            assert isinstance(run.average, MirageNet)
            _sheet(run.average, batch, log.folder / f"sheet_{run.step:06d}.png")
            sheet = clock.now


def _end_at_once(_worker: int) -> None:
    """Let a process that draws end without the interpreter's farewell, which kills a thread that still sends a batch in
    the middle of C++: that aborts the process, and the trainer is told that it died."""
    atexit.register(os._exit, 0)


def _drawn(loader: DataLoader[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Batches as they come; what is wrong with the data is said in one sentence, not with a worker's traceback."""
    try:
        with deaf_to_ctrl_c():
            batches = iter(loader)
        yield from batches
    except DataError as error:
        raise DataError(str(error).strip().rpartition("\n")[2].partition("DataError: ")[2] or str(error)) from error


def _turns(
    loader: DataLoader[dict[str, Tensor]], histories: Histories, run: Run, device: torch.device, seed: int
) -> Iterator[tuple[Batch, History | None]]:
    """What to train on, in turn: batches as they are drawn, and after each of clips a history that goes on."""
    for drawn in _drawn(loader):
        batch = Batch(**{name: value.to(device, non_blocking=True) for name, value in drawn.items()})
        run.drawn += 1
        yield batch, None
        if batch.source.shape[0] > 1:
            history = histories.draw(torch.Generator().manual_seed(seed * 6_007 + run.step))
            if history is not None:
                yield history.batch, history


def _train_reference(
    config: TrainConfig, recipe: Recipe, log: Log, device: torch.device, loader: DataLoader[dict[str, Tensor]]
) -> None:
    """Train the encoder of references on the truths of single frames, each used many times: a step costs less than
    drawing its pictures."""
    run, clock, encoder = log.run, log.clock, log.run.net
    assert isinstance(encoder, ReferenceEncoder)
    shown: deque[Tensor] = deque(maxlen=PICTURES)
    styles: deque[Tensor] = deque(maxlen=PICTURES)
    half = best_dtype(device) == torch.bfloat16
    for turn, drawn in enumerate(_drawn(loader)):
        clock.start()
        if clock.part >= 1:
            break
        size = drawn["truth"].shape[1]
        run.drawn += 1
        shown.extend(((drawn["truth"][0].clamp(-1, 1) + 1) * 127.5).round().byte())
        styles.extend(drawn["parameters"][0])
        rng = torch.Generator().manual_seed(config.seed * 7_919 + turn)
        for chosen in torch.randint(len(shown), (USES, size), generator=rng).tolist():
            pictures = torch.stack([shown[i] for i in chosen]).to(device).float() / 127.5 - 1
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = reference_loss(encoder, pictures, torch.stack([styles[i] for i in chosen]).to(device))
            run.descend(loss, learning_rate(recipe.learning_rate, run.step, clock.part))
            log.add(loss)


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
    return run.notes(seed=str(config.seed)) | ({"ablation": config.ablation} if config.ablation else {})


def _finish(config: TrainConfig, recipe: Recipe, log: Log) -> None:
    run, folder, console = log.run, log.folder, log.console
    run.save(folder / "state.pt")
    notes = _notes(config, run)
    weights = folder / f"{run.kind}.safetensors"
    if not isinstance(run.average, MirageNet):
        save_tensors("reference", run.average.state_dict(), weights, notes)
        run.report(folder, config.json)
        return
    save_network(run.average, weights, notes)
    run.report(folder, config.json)
    if config.ablation not in (None, "full"):
        return  # bounds are learned by playing as the full network is played, which says nothing of these
    # Last: what comes before is kept if this is interrupted, and without bounds the weights serve as well.
    draw, effort = None, EFFORT
    if config.data:
        draw, effort = PairFolder(config.data).draw_batch, replace(EFFORT, frames=recipe.stages[-1].frames)
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

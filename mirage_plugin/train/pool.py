"""A pool of ray-cast clips on disk, filled by processes of its own while the trainer trains.

Ray casting costs more than restyling, so each clip is restyled many times in many styles before it makes room
for a new one. Which clips a step may use depends on the step alone: a run is the same however fast they come.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from multiprocessing import resource_tracker
from pathlib import Path

import torch

from mirage_plugin.errors import DataError
from mirage_plugin.train.worlds.flat import draw_flat_clip
from mirage_plugin.train.worlds.gbuffer import GBuffer
from mirage_plugin.train.worlds.raycast import Window, cast_clip, random_window, telling_window
from mirage_plugin.train.worlds.scenes import SCENES, draw_scene
from mirage_plugin.train.worlds.textures import choice

__all__ = ["ClipPool", "deaf_to_ctrl_c", "draw_clip"]

HEIGHT, WIDTH = 160, 224
# Held-out scenes for evaluation start here; training never reaches that number.
EVALUATION_SEED = 1 << 40
FLAT_EVERY = 4
"""One clip of so many is a flat picture, of which there are as many kinds as there are families of scenes."""
CLIP_TIMEOUT_S = 180.0
GROWING_STEPS = 2000


def draw_clip(
    seed: int, frames: int, height: int = HEIGHT, width: int = WIDTH, family: str | None = None, *, whole: bool = False
) -> GBuffer:
    """Draw one random clip, in a random window or `whole`: family, scene, camera and window all follow from `seed`."""
    rng = torch.Generator().manual_seed(seed ^ 0x5DEECE66D)
    family = family or ("flat" if choice(rng, FLAT_EVERY) == 0 else SCENES[choice(rng, len(SCENES))])
    window = Window(height, width, 0, 0, height, width)
    if family == "flat":
        return draw_flat_clip(seed, frames, window if whole else random_window(rng, height, width))
    scene = draw_scene(seed, frames, family)
    return cast_clip(scene, window if whole else telling_window(scene, rng, height, width), seed)


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started here leave Ctrl-C, which a terminal sends to them as well, to the trainer: it writes a
    checkpoint and ends them. One that comes meanwhile is heard in the end. For the
    main thread, as all signal handlers."""
    # It lets Ctrl-C through again where it starts later.
    resource_tracker.ensure_running()
    heard: list[int] = []
    # Signals that are blocked here are blocked in what is started, and come to other threads all the same.
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _fill(folder: Path, seed: int, frames: int, start: int, stride: int, ahead: int, wanted: object) -> None:
    torch.set_num_threads(1)
    os.nice(5)
    index = start
    parent = os.getppid()
    while True:
        # Never further ahead than the trainer will soon ask for: the disk stays bounded.
        while index > wanted.value + ahead:  # type: ignore[attr-defined]
            if os.getppid() != parent:
                return
            time.sleep(0.2)
        path = folder / f"{index:07d}.pt"
        if not path.exists():
            clip = draw_clip(seed * 1_000_003 + index, frames)
            part = path.with_suffix(f".{os.getpid()}.part")
            torch.save({f.name: getattr(clip, f.name) for f in fields(clip)}, part)
            part.replace(path)
        if os.getppid() != parent:
            return
        index += stride


class ClipPool:
    """The clips `[newest - capacity, newest)`, where `newest` grows with the step."""

    def __init__(
        self, folder: Path, *, seed: int, frames: int, capacity: int, first: int, steps_per_clip: int,
        workers: int, start_step: int = 0,
    ) -> None:  # fmt: skip
        """Start filling `folder`.

        `frames` a clip; at most `capacity` clips are kept; `first` must be there before the first step, then
        one more each `steps_per_clip` steps, and a third as many after `GROWING_STEPS`.
        """
        self.folder, self.capacity = folder, capacity
        self.first, self.steps_per_clip = first, steps_per_clip
        self._open: dict[int, GBuffer] = {}
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        self._wanted = context.Value("q", self.newest(start_step))
        begin = max(0, self.newest(start_step) - capacity)
        self._workers: list[multiprocessing.process.BaseProcess] = [
            context.Process(
                target=_fill, args=(folder, seed, frames, begin + i, workers, 64, self._wanted), daemon=True
            )
            for i in range(workers)
        ]
        with deaf_to_ctrl_c():
            for worker in self._workers:
                worker.start()

    def newest(self, step: int) -> int:
        """How many clips exist for a step: fast at first, for variety, then no faster than old ones wear out."""
        return self.first + (min(step, GROWING_STEPS) + max(0, step - GROWING_STEPS) // 3) // self.steps_per_clip

    def sample(self, step: int, rng: torch.Generator) -> GBuffer:
        """Draw one clip that this step may use; waits until it has been drawn."""
        newest = self.newest(step)
        with self._wanted.get_lock():
            self._wanted.value = newest
        oldest = max(0, newest - self.capacity)
        index = oldest + int(torch.randint(newest - oldest, (), generator=rng))
        path = self.folder / f"{index:07d}.pt"
        asked = time.time()
        while not path.exists():
            # Others come first where a killed run has left many missing: each of them changes the folder.
            if time.time() - max(asked, self.folder.stat().st_mtime) > CLIP_TIMEOUT_S:
                raise DataError(
                    f"no clip has come into {self.folder} for {CLIP_TIMEOUT_S:g} s: the process that draws them has "
                    "died; the same command goes on from the last checkpoint"
                )
            time.sleep(0.05)
        (self.folder / f"{oldest - 1:07d}.pt").unlink(missing_ok=True)
        self._open.pop(oldest - 1, None)
        if index not in self._open:
            # Mapped, not read: a crop touches only its own pages, and the file need not be parsed twice.
            self._open[index] = GBuffer(**torch.load(path, mmap=True, weights_only=True))
        return self._open[index]

    def __getstate__(self) -> dict[str, object]:
        """What a process that only samples needs."""
        return self.__dict__ | {"_workers": [], "_open": {}}

    def close(self) -> None:
        """Stop the processes; what they drew stays for the next run."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()
        for part in self.folder.glob("*.part"):
            part.unlink()

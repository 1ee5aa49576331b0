"""A workload of its own: a sidecar as one process, games as others, and what all of them saw."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from mirage_plugin.config import EXIT_WITH_PARENT
from mirage_plugin.errors import DeviceError, MirageError, NoSidecarError
from mirage_plugin.profiler import attach, client
from mirage_plugin.profiler.recording import Columns, Pages, Recording

__all__ = ["Workload", "play", "run", "sidecar"]

# Kernels compiled for the first time take a minute or two on a slow machine.
_READY_S: Final = 600.0
_LOAD_PROGRAM: Final = "while True: pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is run. ``load`` adds a process that burns a core; ``draw_ms`` is each game's own work."""

    size: tuple[int, int] = (640, 360)
    fps: float = 60.0
    sessions: int = 1
    frames: int = 600
    budget_ms: float = 16.67
    delivery: str = "wait"
    tier: str = "auto"
    device: str = "auto"
    style: str = ""
    draw_ms: float = 4.0
    load: bool = False


@contextlib.contextmanager
def sidecar(tier: str, device: str, note: Callable[[str], None]) -> Iterator[str]:
    """`mirage serve` as a process, ready; gives its address and stops it at the end.

    Raises `MirageError` with its last words where it ends instead, `NoSidecarError` where it never is ready.
    """
    with tempfile.TemporaryDirectory(prefix="mirage-profile-") as scratch:
        endpoint = f"ipc://{scratch}/sidecar" if os.name == "posix" else "tcp://127.0.0.1:47788"
        words = Path(scratch) / "sidecar.log"
        command = [sys.executable, "-m", "mirage_plugin", "serve", "--tier", tier, "--device", device]
        with words.open("wb") as log:
            alone = os.environ | {EXIT_WITH_PARENT: str(os.getpid())}
            process = subprocess.Popen([*command, "--bind", endpoint], stdout=log, stderr=log, env=alone)
        try:
            note("starting a sidecar; the first time it compiles, for some seconds")
            _wait_ready(process, endpoint, words)
            yield endpoint
        finally:
            _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], endpoint: str, words: Path) -> None:
    end_s = time.monotonic() + _READY_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            said = [line for line in words.read_text(errors="replace").splitlines() if line.strip()]
            why = said[-1].removeprefix("mirage: ") if said else f"exit code {process.returncode}"
            raise DeviceError(f"the sidecar did not start: {why}")
        try:
            attach.ask(endpoint, timeout_s=1.0)
        except NoSidecarError:
            continue
        return
    raise NoSidecarError(endpoint)


def run(
    workload: Workload,
    watch: Callable[[Pages], None] | None = None,
    note: Callable[[str], None] = lambda _sentence: None,
) -> Recording:
    """Run it and return what sidecar and games saw. Raises `MirageError` for whatever keeps it from running.

    ``watch`` sees the sidecar's frames as they come, ``note`` gets a sentence on what happens.
    """
    with sidecar(workload.tier, workload.device, note) as endpoint:
        return play(workload, endpoint, watch, note)


def play(
    workload: Workload,
    endpoint: str,
    watch: Callable[[Pages], None] | None = None,
    note: Callable[[str], None] = lambda _sentence: None,
) -> Recording:
    """Run the games of a workload against a sidecar that is there already; see `run`."""
    games: list[subprocess.Popen[bytes]] = []
    load: subprocess.Popen[bytes] | None = None
    with tempfile.TemporaryDirectory(prefix="mirage-games-") as scratch:
        try:
            if workload.load:
                load = subprocess.Popen([sys.executable, "-c", _LOAD_PROGRAM])
            # Before the games: a page asked for without a row gives only what comes from then on.
            pages = Pages()
            attach.drain(endpoint, pages)
            note(f"{workload.sessions} game(s), {workload.frames} frames each")
            for number in range(workload.sessions):
                games.append(_game(workload, endpoint, number, Path(scratch)))
            seconds = 60.0 + 3 * workload.frames / workload.fps
            end_s = time.monotonic() + seconds
            while any(game.poll() is None for game in games) and time.monotonic() < end_s:
                attach.drain(endpoint, pages)
                if watch is not None:
                    watch(pages)
                time.sleep(0.25)
            attach.drain(endpoint, pages)
            told, reasons = _told(games, Path(scratch))
        finally:
            for process in (*games, *((load,) if load else ())):
                _stop(process)
    recording = pages.recording().with_games(told, reasons)
    # The warm-up's frames are not part of the measurement.
    first_ns = min(int(one["started_ns"].min()) for one in told)
    return recording.only(recording.frames["published_ns"] >= first_ns)


def _game(workload: Workload, endpoint: str, number: int, scratch: Path) -> subprocess.Popen[bytes]:
    width, height = workload.size
    options = {
        "--endpoint": endpoint,
        "--size": f"{width}x{height}",
        "--fps": workload.fps,
        "--frames": workload.frames,
        "--budget-ms": workload.budget_ms,
        "--delivery": workload.delivery,
        "--style": workload.style,
        "--draw-ms": workload.draw_ms,
        "--game": number,
        "--out": scratch / f"{number}.npz",
    }
    command = [sys.executable, "-m", "mirage_plugin.profiler.client"]
    for name, value in options.items():
        command += [name, str(value)]
    with (scratch / f"{number}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def _told(games: list[subprocess.Popen[bytes]], scratch: Path) -> tuple[list[Columns], tuple[str, ...]]:
    """What every game wrote, with one table of reasons."""
    told: list[Columns] = []
    reasons: dict[str, int] = {"": 0}
    refusals = []
    for number, game in enumerate(games):
        if game.poll() is None:
            raise MirageError("a game did not come to its end: the sidecar does not answer")
        if game.returncode != 0:
            said = (scratch / f"{number}.log").read_text(errors="replace").strip().splitlines()
            refusals.append(said[-1] if said else f"exit code {game.returncode}")
            continue
        columns, texts = client.load(scratch / f"{number}.npz")
        codes = np.array([reasons.setdefault(text, len(reasons)) for text in texts], np.int64)
        told.append({**columns, "reason": codes[columns["reason"]]})
    if refusals:
        raise MirageError(f"{len(refusals)} of {len(games)} games could not play: {refusals[0]}")
    return told, tuple(reasons)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then make it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""A game to measure with: a process of its own that draws, publishes, waits and shows at a steady pace.

    python -m mirage_plugin.profiler.client --endpoint ipc:///run/user/1000/mirage --out game.npz

It needs the bridge alone. Its picture is a textured wall that scrolls, with exact motion vectors and depth;
``--draw-ms`` keeps its core as busy as a game would. What it saw of each frame is written to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import mirage_bridge
from mirage_plugin.errors import DataError, OutputError
from mirage_plugin.profiler.recording import GAME_FIELDS, GAME_KINDS, Columns

__all__ = ["GamePlan", "load", "main", "play"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GamePlan:
    """What the game does. ``size`` is (width, height); ``frames`` after ``warm_frames`` that are not kept."""

    endpoint: str | None = None
    size: tuple[int, int] = (640, 360)
    fps: float = 60.0
    frames: int = 600
    warm_frames: int = 30
    budget_ms: float = 16.67
    delivery: str = "wait"
    style: str = ""
    draw_ms: float = 4.0
    game: int = 0
    wait_s: float = 10.0


def play(plan: GamePlan) -> tuple[Columns, tuple[str, ...]]:
    """Play and return what was seen: columns `GAME_FIELDS`, and the texts of their reasons.

    Raises `DataError` where no sidecar came within ``wait_s`` or it refused the game.
    """
    width, height = plan.size
    wall = _wall(height, 2 * width, seed=plan.game)
    screen = np.empty((height, width, 4), np.uint8)
    told = np.zeros((plan.frames, len(GAME_FIELDS)), np.int64)
    reasons = {"": 0}
    now = time.monotonic_ns
    with mirage_bridge.Session(
        endpoint=plan.endpoint,
        size=plan.size,
        style=plan.style,
        delivery=plan.delivery,
        budget_ms=plan.budget_ms,
    ) as session:
        if not session.wait_ready(plan.wait_s):
            why = session.refusal or f"no sidecar came within {plan.wait_s:g} s"
            raise DataError(f"the game could not begin: {why}")
        period_ns = int(1e9 / plan.fps)
        due_ns = now()
        for number in range(-plan.warm_frames, plan.frames):
            due_ns = _pace(due_ns + period_ns)
            started_ns = now()
            frame = session.begin_frame()
            shift = (number * 3) % width
            np.copyto(np.asarray(frame.pixels), wall[:, shift : shift + width])
            if frame.in_shared_memory:
                _write_planes(frame)
            _busy_until(started_ns + int(plan.draw_ms * 1e6))
            sent = frame.in_shared_memory
            published_ns = now()
            frame_id = session.end_frame(frame, input_ns=started_ns, captured_ns=started_ns)
            asked_ns = now()
            with session.wait_answer(frame_id) as answer:
                waited_ns = now()
                # What a flip does: every pixel is read once.
                np.copyto(screen, np.asarray(answer.pixels))
                shown_ns = now()
                if number < 0:
                    continue
                # "newest" shows an answer again where there is no newer: it was answered, only earlier.
                kind = GAME_KINDS.index(answer.kind if answer.answered else "unanswered")
                told[number] = (
                    plan.game, frame_id, started_ns, started_ns, published_ns, asked_ns, waited_ns, shown_ns,
                    answer.frame_id if answer.answered else 0, answer.published_ns, answer.service_ns, kind,
                    reasons.setdefault(answer.reason, len(reasons)), answer.edit_age_frames,
                    *answer.working_size, sent,
                )  # fmt: skip
    return {name: told[:, index] for index, (name, _) in enumerate(GAME_FIELDS)}, tuple(reasons)


def load(path: Path) -> tuple[Columns, tuple[str, ...]]:
    """Read what `main` wrote. Raises `DataError`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name, _ in GAME_FIELDS}
            return columns, tuple(json.loads(str(file["reasons"])))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} holds no game's frames: {error}") from error


def _wall(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """A wall of bricks and blotches with edges to see, RGBA [height, width, 4], that joins at its ends."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 220, (-(-height // 24), -(-width // 2 // 32), 3))
    bricks = np.repeat(np.repeat(coarse, 24, 0), 32, 1)[:height, : width // 2]
    bricks = bricks + rng.integers(-12, 12, bricks.shape)
    bricks[::24] = 40
    bricks[:, ::32] = 40
    half = np.empty((height, width // 2, 4), np.uint8)
    half[..., :3] = np.clip(bricks, 0, 255)
    half[..., 3] = 255
    return np.concatenate([half, half], 1)


def _write_planes(frame: mirage_bridge.Frame) -> None:
    """A wall eight metres away that moves three pixels to the left."""
    if frame.depth is not None:
        np.asarray(frame.depth)[...] = 8.0
    if frame.motion is not None:
        np.asarray(frame.motion)[...] = (3.0, 0.0)
    if frame.mask is not None:
        np.asarray(frame.mask)[...] = 0


def _pace(due_ns: int) -> int:
    """Sleep until ``due_ns``; a frame that is late already begins a new count."""
    left_ns = due_ns - time.monotonic_ns()
    if left_ns <= 0:
        return time.monotonic_ns()
    time.sleep(left_ns / 1e9)
    return due_ns


def _busy_until(until_ns: int) -> None:
    while time.monotonic_ns() < until_ns:
        pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Play as the command line says; 1 with a sentence where it cannot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--endpoint", help="the sidecar's address (this user's default)")
    parser.add_argument("--size", default="640x360", help="WIDTHxHEIGHT (640x360)")
    parser.add_argument("--fps", type=float, default=60.0)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--warm-frames", type=int, default=30, help="played first and not kept (30)")
    parser.add_argument("--budget-ms", type=float, default=16.67)
    parser.add_argument("--delivery", choices=("wait", "newest", "locked"), default="wait")
    parser.add_argument("--style", default="", help="the sidecar's own")
    parser.add_argument("--draw-ms", type=float, default=4.0, help="how long drawing keeps the core (4)")
    parser.add_argument("--game", type=int, default=0, help="its number among several")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    width, height = (int(side) for side in given.size.split("x"))
    plan = GamePlan(
        endpoint=given.endpoint, size=(width, height), fps=given.fps, frames=given.frames,
        warm_frames=given.warm_frames, budget_ms=given.budget_ms, delivery=given.delivery, style=given.style,
        draw_ms=given.draw_ms, game=given.game,
    )  # fmt: skip
    try:
        columns, reasons = play(plan)
        try:
            np.savez(given.out, allow_pickle=False, reasons=np.array(json.dumps(reasons)), **columns)
        except OSError as error:
            raise OutputError.at(given.out, error) from error
    except (DataError, OutputError, mirage_bridge.BridgeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How long the sample game takes for a frame of its own, stage by stage.

    python benchmarks/game.py --json out/game_bench.json

Plays on autopilot without a sidecar. `game` is what a frame costs before it is sent (rules, autopilot,
drawing); the planes (depth, motion, mask) are only made for a sidecar that wants them and stand by
themselves. Figures are milliseconds by the wall clock; `game_cpu` is what `game` took of the core's time, the
figure to go by on a machine that others use too. The goal is 8 ms at 640x360.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from arena.clock import percentiles
from arena.play import Game

GOAL_MS = 8.0
STAGES = ("play", "trace", "spans", "pixels", "sprites", "game", "game_cpu", "depth", "motion", "mask")


def measure(seed: int, size: tuple[int, int], frames: int, warm_up: int = 60) -> dict[str, Any]:
    """Play and draw `frames` frames; times by stage, as percentiles in milliseconds."""
    started = time.perf_counter()
    game = Game(seed)
    renderer = game.renderer(*size)
    load_ms = (time.perf_counter() - started) * 1e3
    width, height = size
    pixels = np.empty((height, width, 4), np.uint8)
    depth = np.empty((height, width), np.float32)
    motion = np.empty((height, width, 2), np.float16)
    mask = np.empty((height, width), np.uint8)
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}

    def timed(stage: str, work: Callable[[], object]) -> None:
        begun = time.perf_counter()
        work()
        times[stage].append((time.perf_counter() - begun) * 1e3)

    for _ in range(frames + warm_up):
        begun, begun_cpu = time.perf_counter(), time.thread_time()
        game.step(game.autopilot())
        view = game.view()
        played = time.perf_counter()
        renderer.draw(view, pixels)
        drawn, drawn_cpu = time.perf_counter(), time.thread_time()
        times["play"].append((played - begun) * 1e3)
        times["game"].append((drawn - begun) * 1e3)
        times["game_cpu"].append((drawn_cpu - begun_cpu) * 1e3)
        for stage, ms in renderer.stage_ms.items():
            times[stage].append(ms)
        timed("depth", lambda: renderer.write_depth(depth))
        timed("motion", lambda view=view: renderer.write_motion(view, motion))  # type: ignore[misc]
        timed("mask", lambda: renderer.write_mask(mask))
    return {
        "stages_ms": {stage: percentiles(values[warm_up:]) for stage, values in times.items()},
        "load_ms": round(load_ms, 1),
        "frames": frames,
        "size": list(size),
        "seed": seed,
    }


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--size", default="640x360", metavar="WxH")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    width, height = (int(part) for part in given.size.split("x"))
    result = measure(given.seed, (width, height), given.frames)
    result |= {
        "goal_ms": GOAL_MS,
        "met": result["stages_ms"]["game"]["p50"] < GOAL_MS,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    print(f"{width}x{height}, {given.frames} frames, numpy {np.__version__}; milliseconds")
    print(f"{'stage':10}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    for stage, row in result["stages_ms"].items():
        print(f"{stage:10}{row['p50']:9.2f}{row['p95']:9.2f}{row['p99']:9.2f}{row['max']:9.2f}")
    print(f"goal: game p50 < {GOAL_MS} ms at 640x360: {'met' if result['met'] else 'missed'}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How long the sample game takes for a frame of its own, stage by stage.

    python benchmarks/game.py --json out/game_bench.json

Plays on autopilot without a sidecar. `game` is what a frame costs before it is sent: rules, autopilot, and
drawing it with its planes (depth, motion, mask), which come out of the same pass. Figures are milliseconds by
the wall clock; those that end in `_cpu` are what was taken of the core's time, the figure to go by on a machine
that others use too. `numpy` and `numpy_cpu` are the same drawing without compiled code, every tenth frame, in
the same run. The goal is 8 ms of one core at 640x360.
"""

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from arena.clock import percentiles
from arena.play import Game
from arena.renderer import Planes

GOAL_MS = 8.0
NUMPY_EVERY = 10


def measure(seed: int, size: tuple[int, int], frames: int, warm_up: int = 60) -> dict[str, Any]:
    """Play and draw `frames` frames; times by stage, as percentiles in milliseconds."""
    started = time.perf_counter()
    game = Game(seed)
    renderer = game.renderer(*size)
    load_ms = (time.perf_counter() - started) * 1e3
    plain = game.renderer(*size, native=False)
    width, height = size
    pixels = np.empty((height, width, 4), np.uint8)
    planes = Planes(
        np.empty((height, width), np.float32),
        np.empty((height, width, 2), np.float16),
        np.empty((height, width), np.uint8),
    )
    times: dict[str, list[float]] = {}

    def keep(stage: str, ms: float) -> None:
        times.setdefault(stage, []).append(ms)

    for index in range(frames + warm_up):
        begun, begun_cpu = time.perf_counter(), time.thread_time()
        game.step(game.autopilot())
        view = game.view()
        played = time.perf_counter()
        renderer.draw(view, pixels, planes)
        drawn, drawn_cpu = time.perf_counter(), time.thread_time()
        if index < warm_up:
            continue
        keep("play", (played - begun) * 1e3)
        for stage, ms in renderer.stage_ms.items():
            keep(stage, ms)
        keep("game", (drawn - begun) * 1e3)
        keep("game_cpu", (drawn_cpu - begun_cpu) * 1e3)
        if index % NUMPY_EVERY == 0:
            begun, begun_cpu = time.perf_counter(), time.thread_time()
            plain.draw(view, pixels, planes)
            keep("numpy", (time.perf_counter() - begun) * 1e3)
            keep("numpy_cpu", (time.thread_time() - begun_cpu) * 1e3)
    return {
        "stages_ms": {stage: percentiles(values) for stage, values in times.items()},
        "load_ms": round(load_ms, 1),
        "compiled": renderer.compiled,
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
        "met": result["stages_ms"]["game_cpu"]["p50"] < GOAL_MS,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    drawn_by = "compiled code" if result["compiled"] else "numpy, for want of a C compiler"
    print(f"{width}x{height}, {given.frames} frames, drawn by {drawn_by}; milliseconds")
    print(f"{'stage':10}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    for stage, row in result["stages_ms"].items():
        print(f"{stage:10}{row['p50']:9.2f}{row['p95']:9.2f}{row['p99']:9.2f}{row['max']:9.2f}")
    print(f"goal: game_cpu p50 < {GOAL_MS} ms at 640x360: {'met' if result['met'] else 'missed'}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

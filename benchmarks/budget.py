"""Is every frame answered within the budget? Game and sidecar side by side, with or without a neighbour.

    python benchmarks/budget.py --json out/budget.json
    python benchmarks/budget.py --load --frames 1500

`mirage serve` runs as one process, a game as another: 640x360 at 60 Hz by default, nano. The game draws,
publishes, waits for the answer within its budget and reads every pixel of it. With ``--load`` a third process
burns a core. All times are the game's own: from its publish to its having something to show.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mirage_plugin.config import parse_size
from mirage_plugin.errors import MirageError, OutputError
from mirage_plugin.profiler.culprits import verdict
from mirage_plugin.profiler.recording import GAME_KINDS, Recording
from mirage_plugin.profiler.statistics import percentiles, summary
from mirage_plugin.profiler.workload import Workload, run

GOAL_ANSWERED = 0.999
GOAL_STYLED = 0.90
# A wait ends by a clock that is looked at every 50 µs, on a machine that may be busy.
GRAIN_MS = 1.0


def figures(recording: Recording, workload: Workload) -> dict[str, Any]:
    """What the game saw, and the goals it is held to."""
    games = recording.games
    kinds = games["kind"]
    wait_ms = (games["waited_ns"] - games["published_ns"]) / 1e6
    frames = len(kinds)
    in_time = (kinds != GAME_KINDS.index("unanswered")) & (wait_ms <= workload.budget_ms)
    styled = in_time & (kinds == GAME_KINDS.index("styled"))
    answered_share = float(in_time.mean())
    styled_share = float(styled.sum() / max(1, in_time.sum()))
    over_ms = float(wait_ms.max() - workload.budget_ms)
    reasons = {
        recording.game_reasons[code] or "full path": int(count)
        for code, count in zip(*np.unique(games["reason"], return_counts=True), strict=True)
    }
    profile = summary(recording)
    profile.pop("end_to_end_hdr", None)
    return {
        "frames": frames,
        "load": workload.load,
        "size": list(workload.size),
        "fps": workload.fps,
        "budget_ms": workload.budget_ms,
        "answered_share": round(answered_share, 6),
        "styled_share": round(styled_share, 6),
        "answered": {
            kind: int((in_time & (kinds == index)).sum())
            for index, kind in enumerate(GAME_KINDS)
            if kind != "unanswered"
        },
        "unanswered": int((~in_time).sum()),
        "longest_wait_ms": round(float(wait_ms.max()), 3),
        "longest_wait_beyond_deadline_ms": round(max(0.0, over_ms), 3),
        "wait_ms": percentiles(wait_ms),
        "reasons": reasons,
        "verdict": verdict(recording),
        "goals": {
            "answered_share": {"goal": GOAL_ANSWERED, "met": answered_share >= GOAL_ANSWERED},
            # The neighbour may cost cells and edits, not answers.
            **(
                {}
                if workload.load
                else {"styled_share": {"goal": GOAL_STYLED, "met": styled_share >= GOAL_STYLED}}
            ),
            "longest_wait_ms": {"goal": workload.budget_ms + GRAIN_MS, "met": over_ms <= GRAIN_MS},
        },
        "profile": profile,
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that was before."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "numpy": importlib.metadata.version("numpy"),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def table(found: dict[str, Any]) -> Table:
    """The result beside its goals."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "measured", "goal", ""):
        shown.add_column(name, justify="left" if not name else "right")
    goals = found["goals"]

    def row(name: str, value: str, goal: str, key: str) -> None:
        mark = "" if key not in goals else "[green]met[/]" if goals[key]["met"] else "[red]not met[/]"
        shown.add_row(name, value, goal if key in goals else "", mark)

    budget = f"{found['budget_ms']:g} ms"
    row(f"answered within {budget}", f"{100 * found['answered_share']:.3f} %", "≥ 99.9 %", "answered_share")
    row("of these by the net", f"{100 * found['styled_share']:.2f} %", "≥ 90 %", "styled_share")
    longest = f"{found['longest_wait_ms']:.2f} ms"
    row("longest wait of the game", longest, f"≤ {budget} + {GRAIN_MS:g}", "longest_wait_ms")
    waits = found["wait_ms"]
    row(
        "its wait, p50 / p99 / p99.9",
        f"{waits['p50']:.2f} / {waits['p99']:.2f} / {waits['p99_9']:.2f} ms",
        "",
        "",
    )
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 where it ran, met or not: the table says which."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the profiler's report")
    parser.add_argument("--frames", type=int, default=20000, metavar="N", help="frames to count (20000)")
    parser.add_argument("--load", action="store_true", help="with a third process that burns a core")
    parser.add_argument("--size", default="640x360", metavar="WxH", help="size of the frames (640x360)")
    parser.add_argument("--fps", type=float, default=60.0, metavar="N", help="frames a second (60)")
    parser.add_argument("--budget-ms", type=float, default=16.67, metavar="MS", help="budget (16.67)")
    parser.add_argument("--draw-ms", type=float, default=4.0, metavar="MS", help="the game's own work (4)")
    parser.add_argument("--tier", default="nano", help="tier of the model (nano)")
    parser.add_argument("--device", default="auto", help="where it computes (auto)")
    parser.add_argument("--style", default="snow", help="style (snow)")
    given = parser.parse_args(arguments)
    console = Console()
    before = machine()
    try:
        workload = Workload(
            size=parse_size(given.size), fps=given.fps, frames=given.frames, budget_ms=given.budget_ms,
            tier=given.tier, device=given.device, style=given.style, draw_ms=given.draw_ms, load=given.load,
        )  # fmt: skip
        recording = run(workload, note=lambda sentence: console.print(sentence, style="dim"))
        found = figures(recording, workload) | {"machine": before}
        where = "with a process burning a core" if given.load else "alone on the machine"
        info = recording.info
        console.print(
            f"{found['frames']} frames of {given.size} at {given.fps:g} Hz, {info.get('tier')} on "
            f"{info.get('device')}, {where}; load average before: {before['load_before']}"
        )
        console.print(table(found))
        console.print(f"what to look at: {found['verdict']}")
        if given.html is not None:
            from mirage_plugin.profiler.views.html import to_html

            _write(given.html, to_html(recording))
        if given.json is not None:
            _write(given.json, json.dumps(found, indent=1) + "\n")
    except MirageError as error:
        print(f"budget: {error}", file=sys.stderr)
        return 2
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError.at(path, error) from error


if __name__ == "__main__":
    sys.exit(main())

"""What each part of the design is worth over time: networks trained alike, each without one part, beside the full one.

    for name in full no-corruption truth-fed no-memory no-warp white-start full-grid no-steadiness; do
        mirage train --ablation $name --from runs/nano/single.safetensors --minutes 30; done
    python benchmarks/ablations.py runs/ablations --json out/ablations.json

All begin from the same weights, which know single frames, with a memory that has learned nothing, and see the same
clips in the same order; what differs is how many steps half an hour is enough for, which the table says. Every weights
file below the folder is played as it was trained, in closed loop, on the endless loops of `mirage eval --time`: unseen
scenes in unseen styles. *No correction* is the full network's weights again: error correction takes part in play alone,
and only where the full weights know their bounds; all others are played without it, and are to be held against that row
where it differs from *full*.
*Float memory* is the full network's weights as well, which at play keep their memory in float32 in place of eight
bits; *full-grid* was trained with a memory that has an entry for every cell in place of every four.

*Closed loop*, *depth seldom* (depth with one frame of four), *per frame* (without memory) and *truth-fed* (a memory
that was trained on the truth, fed with it again: what it would be worth if the truth were there) are mean PSNR behind
the first lap. *Full is better by* is closed loop against closed loop. *Flicker* is the warping error over the truth's.
*Drift* is the steepest fall of any scene, *surely* what of it is beyond its 95 % interval.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from mirage_plugin.config import ABLATIONS
from mirage_plugin.errors import DataError, MirageError, OutputError
from mirage_plugin.model.checkpoint import load_bounds, load_network
from mirage_plugin.model.drift import Bounds
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.train import endurance
from mirage_plugin.train.objective import ABLATED, FULL, Ablation
from mirage_plugin.train.report import plotted

__all__ = ["Trained", "find", "main", "measure"]

NO_CORRECTION = "no-correction"
FLOAT_MEMORY = "float memory"


@dataclass(frozen=True)
class Trained:
    """A weights file that says which ablation it is."""

    name: str
    tier: str
    steps: int
    path: Path


def find(folder: Path) -> list[Trained]:
    """Every ablation below a folder, in the order of `ABLATIONS`; other weights files are passed over.

    Raises `DataError` where there is no full network to compare with, one name twice, or more than one tier.
    """
    found: dict[str, Trained] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is not a whole weights file ({error}): train it again or take it away") from error
        name = header.get("ablation")
        # The encoder of references is written beside each network and is no network.
        if name not in ABLATIONS or header.get("tier") == "reference":
            continue
        one = Trained(name, header.get("tier", ""), int(header.get("steps", "0")), path)
        if name in found:
            raise DataError(f"{path} and {found[name].path} are both {name!r}: keep one of them in {folder}")
        found[name] = one
    if "full" not in found:
        raise DataError(f"{folder} holds no full network to compare with: `mirage train --ablation full` makes it")
    if len({one.tier for one in found.values()}) > 1:
        raise DataError(f"{folder} holds ablations of several tiers: give each tier a folder of its own")
    return [found[name] for name in ABLATIONS if name in found]


def measure(trained: list[Trained], seed: int, lap: int, laps: int, device: torch.device) -> list[dict[str, Any]]:
    """Play each as it was trained; a row each, the full network first, its `laps` as means over scenes."""
    full = trained[0]
    bounds = load_bounds(full.tier, full.path)
    cases: list[tuple[str, Trained, Ablation, Bounds | None]]
    cases = [(one.name, one, ABLATED[one.name], None) for one in trained]
    cases[0] = ("full", full, FULL, bounds)
    cases.append((FLOAT_MEMORY, full, replace(FULL, eight_bits=False), bounds))
    if bounds is not None:
        cases.append((NO_CORRECTION, full, FULL, None))

    def loaded(one: Trained, ablation: Ablation) -> MirageNet:
        return load_network(one.tier, one.path, ablation.tier(TIERS[one.tier])).to(device)

    nets = ((loaded(one, ablation), ablation, known) for _, one, ablation, known in cases)
    rows: list[dict[str, Any]] = []
    played = endurance.play_ablated(nets, seed, lap, laps, device)
    for (name, one, *_), figures in zip(cases, played, strict=True):
        first = rows[0]["closed_loop_db"] if rows else figures.closed
        rows.append({
            "name": name, "steps": one.steps, "closed_loop_db": figures.closed,
            "depth_seldom_db": figures.seldom,
            "full_is_better_by_db": first - figures.closed if rows else None, "per_frame_db": figures.per_frame,
            "truth_fed_db": figures.told, "flicker_over_truth": figures.flicker, "drift_db_per_1000": figures.slope,
            "drift_surely_db_per_1000": figures.beyond, "corrections": figures.corrections,
            "laps_db": [round(float(value), 4) for value in figures.laps.mean(1)],
        })  # fmt: skip
    if bounds is None:
        # Nothing corrects the full network either, so there is nothing to be without.
        rows.append({"name": NO_CORRECTION} | {key: None for key in rows[0] if key != "name"})
    return rows


def _page(title: str, rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    columns = {
        "steps": ("steps", ""), "closed loop": ("closed_loop_db", ".2f"),
        "depth seldom": ("depth_seldom_db", ".2f"),
        "full is better by": ("full_is_better_by_db", "+.2f"), "per frame": ("per_frame_db", ".2f"),
        "truth-fed": ("truth_fed_db", ".2f"), "flicker": ("flicker_over_truth", ".3f"),
        "drift": ("drift_db_per_1000", "+.3f"), "surely": ("drift_surely_db_per_1000", ".3f"),
        "corrected": ("corrections", ""),
    }  # fmt: skip
    lines = [f"### {title}", "", f"| without | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for row in rows:
        cells = ("–" if row[key] is None else format(row[key], form) for key, form in columns.values())
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    units = "PSNR in dB, drift in dB per 1,000 frames; a dash was not measured or means nothing."
    return "\n".join([*lines, "", units, ""])


def _plot(path: Path, rows: list[dict[str, Any]], lap: int, tier: str) -> None:
    with plotted(path, figsize=(8, 4.5)) as axes:
        for row in rows:
            if row["laps_db"]:
                frames = (np.arange(len(row["laps_db"])) + 0.5) * lap
                axes.plot(frames, row["laps_db"], label=row["name"], linewidth=2.5 if row["name"] == "full" else 1.2)
        title = f"{tier}: closed loop without one part, by laps"
        axes.set(xscale="log", xlabel="frame", ylabel="PSNR, dB", title=title)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _run(options: argparse.Namespace) -> None:
    began = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    trained = find(options.folder)
    lap = (endurance.QUICK if options.quick else endurance.FULL).lap
    laps = max(3, (options.frames or (540 if options.quick else 3600)) // lap)
    rows = measure(trained, options.seed, lap, laps, device)
    tier = trained[0].tier
    page = _page(f"{tier}: what each part is worth, over {laps * lap:,} frames", rows)
    print(page)
    machine = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "device": device.type,
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "torch": torch.__version__, "python": platform.python_version(), "quick": options.quick,
    }  # fmt: skip
    about = {"tier": tier, "seed": options.seed, "frames": laps * lap, "frames_a_lap": lap}
    result = {"machine": machine, **about, "rows": rows, "seconds": round(time.perf_counter() - began, 1)}
    try:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        options.json.with_suffix(".md").write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError.at(options.json, error) from error
    _plot(options.json.with_suffix(".png"), rows, lap, tier)
    print(f"in {options.json}, with its table (.md) and plot (.png) beside it")


def main(arguments: list[str] | None = None) -> int:
    """Measure the ablations in a folder; 2 where that cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the weights of the ablations lie")
    parser.add_argument("--json", type=Path, default=Path("out/ablations.json"), help="table and plot go beside it")
    parser.add_argument("--frames", type=int, help="frames of each scene, whole laps (3,600; 540 with --quick)")
    parser.add_argument("--seed", type=int, default=0, help="which unseen scenes and styles")
    parser.add_argument("--quick", action="store_true", help="shorter laps, fewer of them")
    try:
        _run(parser.parse_args(arguments))
    except MirageError as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

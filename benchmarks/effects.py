"""What a network draws of each parameter of a style: which effects it has learned, and which it passes over.

    python -m benchmarks.effects --tier nano --json out/effects.json

An effect is a style that differs from the plain one in that parameter alone. Both are drawn in the same unseen scene as
the same game shows it, by the truth's program and by the network. *Drawn* is what part of the difference between the
two truths the difference between the two answers has: 1 is all of it, 0 as good as none, less than 0 worse than none.
*Size* is the mean square of the difference, of colours in [-1, 1]: what is small is easily missed. An average over
styles, as `mirage eval` has it, hides an effect that few styles have.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.budget import machine
from mirage_plugin.errors import MirageError
from mirage_plugin.files import check_writable, write_json
from mirage_plugin.model.network import MirageNet
from mirage_plugin.styles.parameters import Style
from mirage_plugin.train.batch import clip_noise, render_pair
from mirage_plugin.train.evaluation import HEIGHT, WIDTH, answer_clip, load_judged, pair_batch, rgb_alone
from mirage_plugin.train.pool import EVALUATION_SEED, draw_clip
from mirage_plugin.train.worlds.scenes import SCENES

__all__ = ["EFFECTS", "main", "measure"]

NIGHT = {"sun": 0.1, "ambient": 0.25, "ambient_colour": (0.5, 0.6, 1.0)}
EFFECTS: dict[str, dict[str, Any]] = {
    "windows": {"windows": 1.2}, "lamps by night": NIGHT | {"lamps": 2.0}, "emissive": {"emissive": 2.0},
    "cover": {"cover": 0.9}, "wet": {"wet": 0.9}, "ground": {"ground": 0.9, "ground_colour": (0.8, 0.3, 0.1)},
    "foliage": {"foliage": 0.9, "foliage_colour": (0.8, 0.3, 0.6)},
    "walls": {"walls": 0.9, "wall_colour": (0.3, 0.6, 0.8)},
    "objects": {"objects": 0.9, "object_colour": (0.9, 0.2, 0.2)},
    "sky": {"sky": 1.0, "sky_top": (0.5, 0.1, 0.4), "sky_horizon": (0.9, 0.5, 0.2)}, "fog": {"fog": 0.6},
    "no sun": {"sun": 0.1}, "sun": {"sun": 1.5}, "no ambient": {"ambient": 0.1}, "overhead": {"overhead": 1.0},
    "headlight": {"headlight": 1.0}, "flatten": {"flatten": 1.0}, "bands": {"bands": 0.9}, "ink": {"ink": 0.9},
    "ink_detail": {"ink": 0.9, "ink_detail": 0.9}, "hatch": {"hatch": 0.8}, "wash": {"wash": 0.8},
    "grain": {"grain": 0.8}, "glow": {"glow": 0.9}, "posterize": {"posterize": 0.8}, "exposure": {"exposure": 0.8},
    "saturation": {"saturation": 0.1}, "tone": {"tone": 0.9},
}  # fmt: skip


@torch.inference_mode()
def measure(
    net: MirageNet, scenes: int, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> list[dict[str, Any]]:
    """One row an effect, `{"effect", "size", "planes", "colours"}`: what is drawn with all planes, and of colours alone
    (None where the scenes have nothing that the effect changes).

    `scenes` of each family, never those of training; the same seed gives the same ones. `size` is (height, width).
    """
    styles = [Style.make("plain", {})] + [Style.make(name, settings) for name, settings in EFFECTS.items()]
    sums = torch.zeros(3, len(EFFECTS), dtype=torch.float64)
    device = next(net.parameters()).device
    for number in range(scenes):
        for family in SCENES:
            which = seed * 1000 + number
            g = draw_clip(EVALUATION_SEED + which, 1, *size, family, whole=True)
            pairs = []
            for style in styles:
                # The same game, whatever the style.
                rng, noise = torch.Generator().manual_seed(which), clip_noise(g, which)
                source, truth, parameters = render_pair(g, [style], noise, rng)
                pairs.append((g, source, truth, noise, parameters))
            batch = pair_batch(pairs, device)
            wanted = batch.truth[0, 1:] - batch.truth[0, :1]
            sums[0] += wanted.square().mean((1, 2, 3)).double().cpu()
            for row, given in enumerate((batch, rgb_alone(batch)), 1):
                answer = answer_clip(net, given)[0]
                missed = answer[1:] - answer[:1] - wanted
                sums[row] += missed.square().mean((1, 2, 3)).double().cpu()
    size_of, with_planes, alone = sums.tolist()
    return [
        {
            "effect": name, "size": round(whole / (scenes * len(SCENES)), 6),
            "planes": round(1 - planes / whole, 4) if whole else None,
            "colours": round(1 - colours / whole, 4) if whole else None,
        }
        for name, whole, planes, colours in zip(EFFECTS, size_of, with_planes, alone, strict=True)
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Print the table, and write it where asked; 2 for what is wrong with the wishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="nano")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--scenes", type=int, default=2, help="of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    if given.scenes < 1:
        parser.error("--scenes must be 1 or more")
    try:
        check_writable(given.json)
        rows = measure(load_judged(given.tier, given.weights), given.scenes, given.seed)
        table = Table(title=f"what {given.tier} draws of each effect")
        for column in ("effect", "size", "with planes", "colours alone"):
            table.add_column(column, justify="left" if column == "effect" else "right")
        for row in rows:
            shares = ("–" if row[way] is None else f"{row[way]:.2f}" for way in ("planes", "colours"))
            table.add_row(row["effect"], f"{row['size']:.4f}", *shares)
        Console().print(table)
        if given.json:
            asked = {"tier": given.tier, "scenes": given.scenes, "seed": given.seed}
            write_json(given.json, asked | {"effects": rows, "machine": machine()})
    except MirageError as error:
        print(f"effects: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Bounds for error correction, learned by watching a network play what it was trained on.

`learn_bounds` draws clips of every family in random styles, some planes withheld, some with a cut or a change of
style, and plays each in closed loop: onwards, holding its last frame, and backwards. The trainer does so at the end
of a run. For weights that have no bounds yet::

    python -c "from mirage_plugin.train.calibration import calibrate; print(calibrate('nano'))"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mirage_plugin.model.checkpoint import load_network, note_weights, weights_path
from mirage_plugin.model.drift import LEAST, Bounds, statistics_of
from mirage_plugin.model.network import MirageNet
from mirage_plugin.train.batch import Batch, draw_batch
from mirage_plugin.train.evaluation import draw_frame, empty_state, sounded
from mirage_plugin.train.pool import draw_clip
from mirage_plugin.train.worlds.scenes import FAMILIES

__all__ = ["EFFORT", "Effort", "bounds_of", "calibrate", "closed_loop", "drawn_batches", "learn_bounds"]

HEIGHT, WIDTH = 128, 160
QUANTILE = 0.002
"""So much of what was seen lies beyond the quantiles that bounds begin from, on either side."""
MARGINS = (1.0, 1.0, 0.5, 0.5)
"""Bounds lie this much beyond those quantiles, by `drift.NAMES`, in logarithms. A style that nobody has seen may edit
more than any of training; how much a healthy memory changes hardly depends on the style, and a little more is telling.
"""


@dataclass(frozen=True)
class Effort:
    """How much is played: clips drawn, batches of clips in styles of their own, frames a clip."""

    clips: int
    batches: int
    frames: int


EFFORT = Effort(32, 12, 4)
"""About a minute of one core for the smallest tier: 96 styles, 1,056 frames. Short clips, for many scenes and cameras:
how much a healthy memory changes depends on the camera most of all."""


def drawn_batches(first: int, effort: Effort, draw: Callable[..., Batch] | None = None) -> Iterator[Batch]:
    """Batches of clips as training draws them, from scenes numbered from `first` on; `draw` as `PairFolder.draw_batch`
    where they come from elsewhere."""
    rng = torch.Generator().manual_seed(first)
    sizes = {"size": 8, "frames": effort.frames, "height": HEIGHT, "width": WIDTH}
    if draw is not None:
        yield from (draw(rng, **sizes) for _ in range(effort.batches))
        return
    families = [FAMILIES[i % len(FAMILIES)] for i in range(effort.clips)]
    clips = [draw_clip(first + i, effort.frames, HEIGHT, WIDTH, family) for i, family in enumerate(families)]
    for _ in range(effort.batches):
        yield draw_batch(lambda r: clips[int(torch.randint(len(clips), (), generator=r))], rng, **sizes)


def closed_loop(net: MirageNet, batch: Batch) -> Tensor:
    """Play a batch onwards, hold its last frame, and go backwards without motion: mean squares [frames, N, 4].

    NaN for frames that memory took no part in.
    """
    frames, n, _, height, width = batch.source.shape
    still = replace(
        batch, motion=torch.zeros_like(batch.motion), visible=torch.ones_like(batch.visible),
        cut=torch.zeros_like(batch.cut),
    )  # fmt: skip
    back = replace(still, has_motion=torch.zeros_like(batch.has_motion), cut=batch.cut.roll(-1, 0))
    order = [(batch, t) for t in range(frames)] + [(still, frames - 1)] * frames
    order += [(back, t) for t in range(frames - 2, -1, -1)]
    stored = empty_state(net, n, height, width, batch.source.device)
    found = []
    for i, (part, t) in enumerate(order):
        known = torch.full((n,), i > 0, device=batch.source.device)
        drawn = draw_frame(net, part, t, stored, None, part.noise[t], known)
        stored, remembered = drawn.stored, known & ~part.cut[t] & sounded(part, t)
        found.append(torch.where(remembered[:, None], drawn.squares, torch.nan))
    return torch.stack(found)


def bounds_of(squares: Tensor) -> Bounds:
    """Bounds from the mean squares of healthy frames [..., 4]; rows with a NaN are left out.

    Of each logarithm: the median, the standard deviation that the quartiles tell, and quantiles with `MARGINS`.
    Raises `ValueError` where nothing is left.
    """
    rows = squares.reshape(-1, squares.shape[-1]).double().cpu()
    values = np.array([statistics_of(row) for row in rows[rows.isfinite().all(1)].tolist()])
    if not values.size:
        raise ValueError("the network gave no finite frame: it cannot be served, so there is nothing to bound")
    low, quarter, centre, third, high = np.quantile(values, [QUANTILE, 0.25, 0.5, 0.75, 1 - QUANTILE], axis=0)
    low, high = low - MARGINS, high + MARGINS
    # A memory that need not change is as healthy as can be.
    low[3] = np.log(LEAST) - MARGINS[3]
    spread = np.maximum((third - quarter) / 1.349, 0.05)
    return Bounds(*(tuple(row.tolist()) for row in (centre, spread, low, high)))


@torch.inference_mode()
def learn_bounds(
    net: MirageNet, *, seed: int = 0, effort: Effort | None = None, draw: Callable[..., Batch] | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Bounds:  # fmt: skip
    """What a network's frames have while it plays as it was trained; `tell` hears how many batches are done.

    `seed` and `draw` as the training run's. The same arguments give the same bounds.
    """
    device = next(net.parameters()).device
    found = []
    for batch in drawn_batches(seed * 1_000_003, effort or EFFORT, draw):
        there = Batch(**{name: getattr(batch, name).to(device) for name in Batch.__dataclass_fields__})
        found.append(closed_loop(net, there).cpu().reshape(-1, 4))
        tell(len(found))
    return bounds_of(torch.cat(found))


def calibrate(tier: str, path: Path | None = None, *, seed: int = 0) -> Bounds:
    """Learn bounds for a weights file (the tier's own where none is named) and write them into it.

    Nothing else about the file changes. Raises as `load_network`, and `ValueError` as `bounds_of`.
    """
    path = path or weights_path(tier)
    bounds = learn_bounds(load_network(tier, path), seed=seed)
    note_weights(tier, path, {"bounds": bounds.to_json()})
    return bounds

"""A training run: the network or encoder that is trained, how it descends, its time, and what it keeps on disk."""

from __future__ import annotations

import math
import time
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from mirage_plugin.errors import DataError, OutputError
from mirage_plugin.files import write_json
from mirage_plugin.train.report import plotted

__all__ = ["Clock", "Log", "Run", "learning_rate"]

WEIGHT_DECAY = 0.02
_ENDS = ("stem", "head")
"""Layers whose matrices AdamW trains, as Muon's authors advise for what is nearest to the input and the output."""
CHECKPOINT_EVERY_S = 180.0
LINE_EVERY_S = 30.0


class Run:
    """The state of a training run: everything that a checkpoint holds.

    `kind` is the tier of the network, or "reference".
    """

    def __init__(self, kind: str, net: nn.Module) -> None:
        """Begin with `net` as it is."""
        self.kind, self.net = kind, net
        self.average = deepcopy(net).eval().requires_grad_(False)
        """What ships: the exponential average of the weights."""
        matrices = [p for name, p in net.named_parameters() if p.dim() == 2 and not name.startswith(_ENDS)]
        others = {id(p) for p in matrices}
        rest = [p for p in net.parameters() if id(p) not in others]
        decayed, plain = [p for p in rest if p.dim() > 1], [p for p in rest if p.dim() <= 1]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
                betas=(0.9, 0.98),
            ),
            "muon": torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        }
        self.step = 0
        self.drawn = 0
        """Batches that have been drawn for it; steps that go on from a history, or see a picture again, need none."""
        self.seconds = 0.0
        self.losses: list[tuple[int, float]] = []

    def save(self, path: Path) -> None:
        """Write a checkpoint; the previous one is replaced only by a whole new one."""
        part = path.with_suffix(".part")
        try:
            torch.save(
                {
                    "tier": self.kind, "net": self.net.state_dict(), "average": self.average.state_dict(),
                    "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()}, "step": self.step,
                    "drawn": self.drawn, "seconds": self.seconds, "losses": self.losses,
                },
                part,
            )  # fmt: skip
            part.replace(path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"the checkpoint {path} cannot be written ({error}); the last one is kept") from error

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        try:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            # PyTorch's own text is a page of advice about its options.
            raise DataError(f"{path} is not a whole checkpoint: use --fresh to start anew") from error
        if not isinstance(saved, dict) or saved.get("tier") != self.kind:
            found = repr(saved.get("tier")) if isinstance(saved, dict) else "something else"
            raise DataError(f"{path} holds {found}, not {self.kind!r}: choose another --out")
        if "drawn" not in saved:
            raise DataError(f"{path} is of an earlier version: --fresh --from the weights beside it goes on from them")
        try:
            self.net.load_state_dict(saved["net"])
            self.average.load_state_dict(saved["average"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(saved["optimizers"][name])
            self.step, self.drawn = int(saved["step"]), int(saved["drawn"])
            self.seconds, self.losses = float(saved["seconds"]), list(saved["losses"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"{path} is of another network or version: use --fresh to start anew") from error

    def begin(self, weights: dict[str, Tensor]) -> None:
        """Take weights in place of those that it has; those that `weights` leaves out are kept."""
        for net in (self.net, self.average):
            net.load_state_dict(net.state_dict() | weights)

    def descend(self, loss: Tensor, rate: float) -> None:
        """Take a step at `rate` down the gradients of `loss`; one that is not finite changes nothing."""
        for name, optimizer in self.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * (2 if name == "muon" else 1)
        loss.backward()  # type: ignore[no-untyped-call]
        if bool(torch.isfinite(nn.utils.clip_grad_norm_(self.net.parameters(), 1.0))):
            for optimizer in self.optimizers.values():
                optimizer.step()
            self.update_average()
        self.step += 1

    def update_average(self) -> None:
        """Move the exponential average that ships a little towards the weights."""
        decay = min(0.998, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)

    def notes(self, **more: str) -> dict[str, str]:
        """What a weights file says of how it was trained."""
        return {"steps": str(self.step), "seconds": f"{self.seconds:.0f}", **more}

    def report(self, folder: Path, to: Path | None) -> None:
        """Draw the loss into the run's folder, and write it as JSON where that is wanted."""
        if self.losses:
            with plotted(folder / "loss.png", figsize=(7, 4)) as axes:
                axes.plot(*zip(*self.losses, strict=True))
                axes.set(xlabel="step", ylabel="loss", title=f"{self.kind}: training loss")
        if to:
            report = {"tier": self.kind, "step": self.step, "seconds": self.seconds, "losses": self.losses}
            write_json(to, report)


@dataclass
class Clock:
    """Where a run is between its first and its last second; it leaves out the share `skipped` of a whole run."""

    length: float
    skipped: float = 0.0
    begun: float | None = None

    def start(self) -> None:
        """Begin to count, if that has not happened yet: drawing the first clips is no part of training."""
        if self.begun is None:
            self.begun = time.monotonic()

    @property
    def now(self) -> float:
        return 0.0 if self.begun is None else time.monotonic() - self.begun

    @property
    def part(self) -> float:
        return self.skipped + (1 - self.skipped) * self.now / self.length


@dataclass
class Log:
    """The lines and the checkpoints that a run leaves on its way, each at its time."""

    run: Run
    folder: Path
    clock: Clock
    console: Console
    recent: list[float] = field(default_factory=list)
    line: float = 0.0
    saved: float = 0.0
    steps: int = -1
    """How many steps the run had at the last line."""

    def add(self, loss: Tensor, more: str = "") -> None:
        """Note a step's loss; `more` ends the line that is due now and then."""
        self.recent.append(float(loss.detach()))
        now = self.clock.now
        if self.steps < 0:
            self.steps = self.run.step - 1
        if now - self.line > LINE_EVERY_S:
            mean = float(np.mean(self.recent))
            rate = (self.run.step - self.steps) / (now - self.line)
            self.run.losses.append((self.run.step, mean))
            left = (self.clock.length - now) / 60
            self.console.print(
                f"step {self.run.step:6d}  loss {mean:.4f}  {rate:.2f} steps/s  {left:.0f} min left{more}"
            )
            self.recent, self.line, self.steps = [], now, self.run.step
        if now - self.saved > CHECKPOINT_EVERY_S:
            self.keep_time()
            self.run.save(self.folder / "state.pt")

    def keep_time(self) -> None:
        """Count the time since this was last done as time of training."""
        now = self.clock.now
        self.run.seconds += now - self.saved
        self.saved = now


def learning_rate(peak: float, step: int, part: float) -> float:
    """Warm up over 200 steps, hold, and fall to a hundredth over the last 85 % of the time given."""
    warm = min(1.0, (step + 1) / 200)
    fall = 1.0 if part < 0.15 else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (part - 0.15) / 0.85))
    return peak * warm * fall

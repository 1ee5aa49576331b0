"""What can be set, frozen and validated once, so that nothing behind it checks again."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from mirage_plugin.errors import ConfigError, closest

__all__ = [
    "ABLATIONS",
    "DEVICES",
    "EXIT_WITH_PARENT",
    "MAX_SIDE_PX",
    "STEPS",
    "TIERS",
    "Device",
    "ServeConfig",
    "Tier",
    "TierChoice",
    "TrainConfig",
    "cache_directory",
    "choose_tier",
    "parse_size",
    "weights_directory",
]

Tier = Literal["nano", "small", "base"]
TierChoice = Literal["auto", "nano", "small", "base"]
Device = Literal["auto", "cpu", "cuda"]

TIERS: Final[tuple[Tier, ...]] = ("nano", "small", "base")
"""The model's sizes, smallest first."""
DEVICES: Final[tuple[Device, ...]] = ("auto", "cpu", "cuda")
STEPS: Final = (1, 2, 4)
"""Denoising steps the weights are trained for."""
ABLATIONS: Final = (
    "full", "no-corruption", "truth-fed", "no-memory", "no-warp", "white-start", "full-grid", "no-steadiness",
)  # fmt: skip
"""What can be left out of a network's training on clips, each to be measured beside "full", trained alike."""
MAX_SIDE_PX: Final = 16384
"""Longest side of a frame: what GPUs take as a texture; a frame's byte count stays inside 32 bits."""

_MAX_THREADS: Final = 256
_MAX_SEED: Final = 2**63 - 1


def parse_size(text: str) -> tuple[int, int]:
    """Read `WIDTHxHEIGHT` in pixels; any size from 1×1 to 16384×16384, odd ones included.

    >>> parse_size("640x360")
    (640, 360)

    Raises `ConfigError` for anything else.
    """
    match = re.fullmatch(r"\s*([+-]?\d+)\s*[xX×]\s*([+-]?\d+)\s*", text, re.ASCII)
    # More than 9 digits are refused before int() sees them: its cost grows with the square of their number.
    if match is None or max(map(len, match.groups())) > 9:
        raise ConfigError(f"a size is WIDTHxHEIGHT in pixels, such as 640x360, not {text[:40]!r}")
    width, height = int(match[1]), int(match[2])
    for name, side in (("width", width), ("height", height)):
        if not 1 <= side <= MAX_SIDE_PX:
            raise ConfigError(f"the {name} in {text!r} must be from 1 to {MAX_SIDE_PX} pixels")
    return width, height


def choose_tier(
    available: Collection[str], *, multiprocessors: int | None = None, memory_bytes: int | None = None
) -> Tier:
    """Pick what `--tier auto` means on this machine.

    `available`: tiers that have weights. `multiprocessors` and `memory_bytes` describe the CUDA device, None
    where there is none. A processor gets nano; a GPU of Hopper's size (≥100 multiprocessors, ≥16 GB) base;
    any other GPU small. Without weights for that tier the next smaller one with weights is taken, then the
    next larger.

    Raises `ConfigError` where no tier has weights.
    """
    if multiprocessors is None:
        best = 0
    elif multiprocessors >= 100 and (memory_bytes or 0) >= 16e9:
        best = 2
    else:
        best = 1
    by_preference = (*reversed(TIERS[: best + 1]), *TIERS[best + 1 :])
    for tier in by_preference:
        if tier in available:
            return tier
    raise ConfigError("no tier has weights here: train some with `mirage train --tier nano`")


def cache_directory() -> Path:
    """Where what was compiled for this machine is kept from start to start."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mirage"


EXIT_WITH_PARENT = "MIRAGE_EXIT_WITH_PARENT"
"""Environment variable: the process id of who started this sidecar, which stops when that process is gone."""


def weights_directory() -> Path:
    """Where the weights that ship with the package lie: `<tier>.safetensors` and their cards."""
    return Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """What `mirage serve` does.

    ========================================== ===========================================================
    `ServeConfig()`                            the best tier with weights, on the GPU if there is one
    `ServeConfig(tier="nano", device="cpu")`   the CPU path, whatever the machine has
    `ServeConfig(style="ink")`                 games that ask for no style get ink
    `ServeConfig(bind="tcp://127.0.0.1:7788")` frames as messages over TCP, not in shared memory
    `ServeConfig(steps=2)`                     two denoising steps a frame: better, at twice the time
    ========================================== ===========================================================

    Raises `ConfigError` for what is out of range. That a style is known, weights exist and the endpoint is
    well-formed and free is found out by those who own these, when the sidecar starts.
    """

    tier: TierChoice = "auto"
    device: Device = "auto"
    style: str | None = None
    """Style of a game that names none (`""`), and one that games may ask for by its name; None: snow."""
    weights: Path | None = None
    """Weights of your own, as `mirage train` leaves them; None: those that ship with the package."""
    bind: str | None = None
    """Endpoint to listen at, `ipc://…` or `tcp://host:port`; None: the bridge's default for this user."""
    steps: int = 1
    """Denoising steps a frame: 1, 2 or 4."""
    threads: int | None = None
    """Threads that share a frame's work on a CPU, 8 at most; None: half of the cores, but two where there are two and
    no more than four. A thread that has no core is not waited for."""
    compile: bool = True
    """Compile the network before "ready": seconds the first time, and several times as fast after it."""
    json: Path | None = None
    """Where the final statistics are written when the sidecar stops."""

    def __post_init__(self) -> None:
        """Validate every field."""
        _one_of("tier", self.tier, ("auto", *TIERS))
        _one_of("device", self.device, DEVICES)
        if self.style is not None and not self.style.strip():
            raise ConfigError("the style's name is empty: leave it out or name one of `mirage styles`")
        if self.steps not in STEPS:
            raise ConfigError(f"steps must be one of {', '.join(map(str, STEPS))}, not {self.steps}")
        if self.threads is not None:
            _within("threads", self.threads, 1, _MAX_THREADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What `mirage train` does.

    ======================================= ==============================================================
    `TrainConfig()`                         an hour of nano, continued where `runs/nano` stopped
    `TrainConfig(tier="base", minutes=20)`  as far as base comes in twenty minutes
    `TrainConfig(resume=False)`             from nothing, even where `runs/nano` holds a run
    `TrainConfig(data=Path("pairs"))`       a studio's own pairs instead of the paired worlds
    ======================================= ==============================================================

    Raises `ConfigError` for what is out of range.
    """

    tier: Tier = "nano"
    minutes: float = 60.0
    """Wall-clock time to train for; the run can be continued afterwards."""
    out: Path | None = None
    """Directory of the run: checkpoints, plots, sample sheets. None: `runs/<tier>` or `runs/reference`."""
    resume: bool = True
    """Continue the run in `out` if there is one."""
    device: Device = "auto"
    seed: int = 0
    """Fixes scenes, styles, initial weights and noise, 0 to 2⁶³−1."""
    data: Path | None = None
    """Folder of recorded frames and their restyled twins; None: worlds are drawn as it trains."""
    threads: int = 1
    """Compute threads on a CPU."""
    json: Path | None = None
    """Where the final figures are written."""
    start: Path | None = None
    """Weights of this tier to begin from; None: what `seed` draws."""
    reference: bool = False
    """Train the encoder of reference pictures, which serves every tier, in place of a network."""
    ablation: str | None = None
    """One of `ABLATIONS`: train on clips alone, from `start`, with that left out, in a folder of its own."""

    def __post_init__(self) -> None:
        """Validate every field."""
        _one_of("tier", self.tier, TIERS)
        _one_of("device", self.device, DEVICES)
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ConfigError(f"minutes must be more than 0, not {self.minutes}")
        _within("seed", self.seed, 0, _MAX_SEED)
        _within("threads", self.threads, 1, _MAX_THREADS)
        if self.data is not None and not self.data.is_dir():
            raise ConfigError(
                f"{self.data} is not a folder of training pairs (`mirage worlds` writes an example of one)"
            )
        if self.start is not None and not self.start.is_file():
            raise ConfigError(f"{self.start} is not a file of weights to begin from")
        if self.ablation is not None:
            if self.reference:
                raise ConfigError("an ablation leaves out a part of a network: the encoder of references has none")
            if self.ablation == "no-correction":
                raise ConfigError("no-correction is nothing to train: benchmarks/ablations.py plays full without it")
            _one_of("ablation", self.ablation, ABLATIONS)
            if self.start is None and not (self.resume and (self.run_directory / "state.pt").is_file()):
                raise ConfigError("an ablation begins from weights: name them with --from runs/nano/single.safetensors")

    @property
    def run_directory(self) -> Path:
        """`out`, or `runs/<tier>` or `runs/reference` where it was left open.

        An ablation's is a folder in `out` or `runs/ablations`.
        """
        if self.ablation is not None:
            return (self.out if self.out is not None else Path("runs") / "ablations") / self.ablation
        return self.out if self.out is not None else Path("runs") / ("reference" if self.reference else self.tier)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = closest(value, known, count=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"{name} must be one of {', '.join(known)}, not {value!r}{hint}")


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must be from {low} to {high}, not {value}")

"""The core compiled ahead of time for a working grid, and kept: a sidecar that starts again need not compile.

Each grid is compiled in a process of its own, so that they compile side by side and the sidecar stays small.
"""

from __future__ import annotations

import hashlib
import inspect
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mirage_kernels.overview import OVERVIEW, overview_size, told_by_overview
from mirage_kernels.shade import WORDS, shade_reference
from mirage_plugin.config import cache_directory, weights_directory
from mirage_plugin.model.checkpoint import load_network
from mirage_plugin.model.core import Core, CoreInput, CoreOutput
from mirage_plugin.model.drift import mean_squares
from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.native import processor
from mirage_plugin.model.network import CELL, PLANE_CHANNELS, STYLE_SIZE, Edit

__all__ = ["Build", "Forward", "core_input", "load_compiled"]

Forward = Callable[[CoreInput], CoreOutput]


@dataclass(frozen=True)
class Build:
    """One compilation: a tier's core in a dtype (its name in torch) on rows x columns cells, for some threads."""

    tier: str
    dtype: str
    rows: int
    columns: int
    threads: int

    @property
    def path(self) -> Path:
        """Where it is kept: another processor, PyTorch, network or set of weights has another name."""
        key = hashlib.sha256(repr((astuple(self), torch.__version__, processor())).encode())
        key.update((weights_directory() / f"{self.tier}.safetensors").read_bytes())
        definitions = (Core, mean_squares, MemoryState, Edit, told_by_overview, shade_reference)
        for file in sorted({str(inspect.getsourcefile(each)) for each in definitions}):
            key.update(Path(file).read_bytes())
        return cache_directory() / "ahead" / f"{self.tier}-{self.columns}x{self.rows}-{key.hexdigest()[:20]}.pt2"


def core_input(made: Core, rows: int, columns: int) -> CoreInput:
    """An input of the right shapes and dtypes, empty."""
    film = made.film(torch.zeros(1, STYLE_SIZE), 1.0, 1.0)
    half = (rows // 2, columns // 2)
    seen = OVERVIEW if overview_size(CELL * rows, CELL * columns) else (rows, columns)
    return CoreInput(
        torch.zeros(1, rows, columns, CELL * CELL * 3, dtype=torch.uint8), torch.zeros(1, rows, columns, 16),
        torch.zeros(1, rows, columns, PLANE_CHANNELS),
        torch.zeros(1, *half, made.net.tier.state, dtype=torch.int8), torch.zeros(1, 2, *half),
        torch.zeros(1, 1, *half), torch.zeros(1, rows, columns, 2), film, torch.zeros(1, *seen, WORDS),
        torch.zeros(4), torch.zeros(1, 2, rows, columns),
    )  # fmt: skip


class _Flat(nn.Module):
    """The core with plain tensors in and out, as a package takes them."""

    def __init__(self, made: Core) -> None:
        super().__init__()
        self.core = made

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        out = self.core(CoreInput._make(given))
        return (*out.edit, out.stored, out.health, out.words)


def _compile(build: Build) -> None:
    torch.set_num_threads(build.threads)
    warnings.simplefilter("ignore")
    made = Core(load_network(build.tier), getattr(torch, build.dtype)).eval()
    given = core_input(made, build.rows, build.columns)
    build.path.parent.mkdir(parents=True, exist_ok=True)
    part = build.path.with_suffix(".part.pt2")
    with torch.no_grad():
        exported = torch.export.export(_Flat(made), tuple(given))
        # Frozen weights: laid out once for the processor's matrix units.
        torch._inductor.aoti_compile_and_package(
            exported, package_path=str(part), inductor_configs={"freezing": True}
        )
    part.replace(build.path)


def _load(build: Build) -> Forward:
    run: Any = torch._inductor.aoti_load_package(str(build.path))

    def forward(given: CoreInput) -> CoreOutput:
        *edit, stored, health, words = run(*given)
        return CoreOutput(Edit(*edit), stored, health, words)

    return forward


def load_compiled(builds: Sequence[Build], tell: Callable[[str], None]) -> list[Forward]:
    """Load these builds, compiling what is not kept yet. Raises whatever the compiler trips over."""
    missing = [build for build in builds if not build.path.is_file()]
    if missing:
        tell(f"compiling for this processor, {len(missing)} sizes; a minute or two, and kept for the next start")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(2, len(missing)), mp_context=context) as pool:
            list(pool.map(_compile, missing))
    return [_load(build) for build in builds]

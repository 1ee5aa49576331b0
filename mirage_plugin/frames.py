"""What frames are to an engine: how they stand in memory, their planes, and what an engine does with them.

`engine.Engine` on a processor and `cuda_engine.CudaEngine` on a GPU are the two that there are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from mirage_kernels import FrameLayout
    from mirage_plugin.styles.parameters import Style

__all__ = ["STYLES_KEPT", "FrameEngine", "FrameKind", "FramePlanes"]

STYLES_KEPT = 32
"""Of so many styles an engine keeps what the network is told of them."""

_PIXEL_BYTES = {"RGBA8": 4, "BGRA8": 4, "RGB8": 3, "RGB10A2": 4, "RGBA16F": 8}


@dataclass(frozen=True)
class FramePlanes:
    """An engine's planes at the display's size; None where it gives none.

    For `FrameEngine.raw` as they stand in the slot, else in the model's conventions: `depth` float32 [H, W], metres;
    `motion` [H, W, 2] any float, display pixels to where it was, NaN for unknown; `mask` uint8 [H, W].
    """

    depth: NDArray[Any] | None = None
    motion: NDArray[Any] | None = None
    mask: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class FrameKind:
    """How a game's frames and planes stand in memory; what a captured path is made for.

    `pixel_format` by its name in the protocol; `pitch_bytes` 0 where rows follow each other; `flipped` (pixels and
    planes alike) where the lowest row of the screen comes first; `linear` for linear light. `depth` float32 [H, W],
    `motion` float16 [H, W, 2] and `mask` uint8 [H, W] say which planes there are. `depth_range` (near, far) in metres
    where depth is reversed z, None where it is metres. `motion_scale` brings motion to display pixels towards the
    previous position, x to the right and y down; `unwritten` is the motion that means none was written (NaN always
    does).
    """

    pixel_format: str
    height: int
    width: int
    pitch_bytes: int = 0
    flipped: bool = False
    linear: bool = False
    depth: bool = False
    motion: bool = False
    mask: bool = False
    depth_range: tuple[float, float] | None = None
    motion_scale: tuple[float, float] = (1.0, 1.0)
    unwritten: float | None = None

    @functools.cached_property
    def layout(self) -> FrameLayout:
        """The pixels' layout as the kernels take it."""
        from mirage_kernels import FrameLayout  # with it comes Triton, which the processor's path does without

        name: Any = self.pixel_format.lower()
        pitch_bytes = self.pitch_bytes or self.width * _PIXEL_BYTES[self.pixel_format]
        return FrameLayout(name, self.height, self.width, pitch_bytes, self.flipped, self.linear)


class FrameEngine(Protocol):
    """One line of calls a frame: upload, read, (set_style), denoise and refine, or reuse; compose, wait.

    A call may return before its work is done; `wait` returns when the answer stands in `out`. Any of them may raise
    `DeviceError`: that frame's answer is the source.
    """

    raw: bool
    """Whether frames, planes and answers are taken as they stand in the slot."""
    grids: tuple[tuple[int, int], ...]
    """Working sizes in cells (rows, columns), largest first."""
    warm_size: tuple[int, int]
    """(width, height) of the frame that `cost_ns` was measured with."""
    device: torch.device
    dtype: torch.dtype
    tier: str
    steps: int
    reuse_ns: int
    compose_ns: int

    lost: str
    """Why the device is gone; empty while it is there."""

    @property
    def successor(self) -> FrameEngine | None:
        """What is to serve from now on instead; None as long as this engine can."""

    def cost_ns(self, grid: int, *, depth: bool = True) -> int:
        """What a whole frame took at warm-up, of a game that sends depth or one that does not; 0 where unknown."""

    def open(self, kind: FrameKind, seed: int, grid: int = 0) -> Any:
        """Make a canvas for a game's frames."""

    def learn_style(self, style: Style) -> None:
        """Work out what the network is told of a style before a frame waits for it; some are kept."""

    def set_style(self, canvas: Any, style: Style) -> None:
        """Paint in a style from the next frame on."""

    def upload(self, canvas: Any, pixels: NDArray[Any], planes: FramePlanes) -> None:
        """Start a frame on its way to the device."""

    def read(
        self, canvas: Any, pixels: NDArray[Any], order: NDArray[np.int64], planes: FramePlanes, cut: bool
    ) -> None:
        """Preprocess the frame that was uploaded; `cut` forgets what came before."""

    def denoise(self, canvas: Any) -> bool:
        """Predict the frame's edit. False where it is known not to be finite."""

    def denoise_behind(self, canvas: Any, *, reused: bool) -> bool:
        """Predict the edit of a frame that was read and answered already; `reused` says by `reuse`. False where this
        engine does not, or the edit is not finite."""

    def refine(self, canvas: Any) -> None:
        """The further steps."""

    def reuse(self, canvas: Any) -> bool:
        """Carry the last edit along to this frame. False where there is none."""

    def compose(
        self, canvas: Any, pixels: NDArray[Any], out: NDArray[Any], order: NDArray[np.int64],
        mask: NDArray[np.uint8] | None, strength: float,
    ) -> None:  # fmt: skip
        """Apply the edit to the full-resolution frame."""

    def wait(self, canvas: Any, until_ns: int) -> int:
        """Wait for the answer until then (CLOCK_MONOTONIC); returns what composing took."""

    def settled(self, canvas: Any) -> bool:
        """Whether nothing writes for this game any more."""



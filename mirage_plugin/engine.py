"""The model on a device: from a frame's bytes to an answer's bytes.

An `Engine` is loaded once. Each game has a `Canvas`: its memory, its noise, its last edit, and nothing of any
other game's. The working frame is the display's, scaled down (never up) and padded into one of a few fixed
grids of cells, so that a game of any size is served at once by what was compiled before "ready".
"""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirage_kernels.lines import line_points
from mirage_kernels.overview import BELIEVED, OVERVIEW, overview_entries, overview_size, remembered
from mirage_kernels.shade import WORDS
from mirage_plugin.config import ServeConfig, choose_tier, weights_directory
from mirage_plugin.errors import DataError, DeviceError
from mirage_plugin.frames import STYLES_KEPT, FrameEngine, FrameKind, FramePlanes
from mirage_plugin.model.checkpoint import load_bounds, load_network, tier_of
from mirage_plugin.model.core import Core, CoreInput, CoreOutput, best_dtype
from mirage_plugin.model.cpu_lines import colour_lines, depth_lines
from mirage_plugin.model.cpu_pixels import carry_motion, cells_from_pixels, move_noise, plane_cells, warp_edit
from mirage_plugin.model.crew import MAX_THREADS, usual_threads
from mirage_plugin.model.drift import SAVED as WATCH_NUMBERS
from mirage_plugin.model.drift import Bounds, Watch, statistics_of
from mirage_plugin.model.memory import SOUNDED, dequantise, quantise, warp_state
from mirage_plugin.model.native import compilers, compose_pixels, pixelate, why_not_native
from mirage_plugin.model.native_core import NativeCore
from mirage_plugin.model.network import CELL, PLANE_CHANNELS, Edit, style_number
from mirage_plugin.model.sampling import levels
from mirage_plugin.model.steady import SETTLED, carried, steady_cells
from mirage_plugin.motion import MotionEstimator
from mirage_plugin.styles.parameters import Style

__all__ = ["GRIDS", "Canvas", "Engine", "FramePlanes", "load_engine"]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

GRIDS: tuple[tuple[int, int], ...] = ((48, 80), (36, 64), (28, 48), (24, 40))
"""Grids of cells (rows, columns) that the network works on, largest first: 640x384, 512x288, 384x224, 320x192."""
SAVE_VERSION = 6
"""Changes whenever the meaning of what `Canvas.save` gives changes; other versions are refused."""
EDIT_PARTS = {"matrices": 48, "detail": 192, "anchors": 16, "pens": 8}
"""Of an edit, and how many numbers of a cell each has."""
_RGB = np.array([0, 1, 2])
_NO_PLACE, _AGREEING, _HEEDING = (torch.tensor([0.0, 0.0, 0.0, agree]) for agree in (0.0, 1.0, 2.0))
"""`CoreInput.place` of frames without an overview: their readings stay, agree, or agree and then heed those before."""


def _said_grid(rows: int, columns: int) -> tuple[int, int]:
    """On which cells what a frame of so many cells remembers was said: those of an overview, or its own."""
    return OVERVIEW if overview_size(CELL * rows, CELL * columns) else (rows, columns)


@functools.cache
def _unsaid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """`CoreInput.overview` and `came` of a grid where nothing is heeded."""
    return torch.zeros(1, *_said_grid(rows, columns), WORDS), torch.zeros(1, 2, rows, columns)


def _without(rows: int, columns: int, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`CoreInput.overview`, `place` and `came` of a frame that heeds neither an overview nor the frame before."""
    words, came = _unsaid(rows, columns)
    return words, place, came


@dataclass(frozen=True)
class Fit:
    """How a display frame lies in a working grid."""

    grid: int
    rows: int
    columns: int
    content: tuple[int, int]
    """(height, width) of the working pixels that show the frame; the rest of the grid repeats its edge."""

    @staticmethod
    def of(height: int, width: int, grid: int) -> Fit:
        """Fit a display of `height` x `width` into `GRIDS[grid]`, keeping its aspect, never enlarging it."""
        rows, columns = GRIDS[grid]
        scale = min(1.0, rows * 8 / height, columns * 8 / width)
        return Fit(grid, rows, columns, (max(1, round(height * scale)), max(1, round(width * scale))))


class Canvas:
    """What the engine keeps of one game between frames."""

    def __init__(
        self, height: int, width: int, state_channels: int, seed: int, grid: int = 0, bounds: Bounds | None = None
    ) -> None:
        """Begin with an empty memory, for a display of `height` x `width` pixels; `bounds` of a healthy frame."""
        self.height, self.width, self.seed = height, width, seed
        self.state_channels = state_channels
        self.frame = 0
        self.films: list[Tensor] = []
        self.ink_width: float | None = None
        """How wide the style draws lines; None where it draws none."""
        self.pixels = 0.0
        """How far the style draws in square pixels."""
        self.resets = 0
        """How often the memory began anew: cuts, other working sizes, edits that were not finite, errors."""
        self.watch = Watch(bounds)
        self._work_on(grid)

    def fit_to(self, grid: int) -> None:
        """Work on `GRIDS[grid]` from the next frame on; the memory begins anew, and that is counted."""
        self._work_on(grid)
        self.resets += 1

    def _work_on(self, grid: int) -> None:
        self.fit = Fit.of(self.height, self.width, grid)
        h, w = self.fit.rows, self.fit.columns
        self.cells: Bytes = np.zeros((h, w, 192), np.uint8)
        self.cells_before: Bytes = np.zeros_like(self.cells)
        """The working frame that was read before; motion is estimated from it where a game sends none."""
        self.planes: Floats = np.zeros((h, w, PLANE_CHANNELS), np.float32)
        self.noise: list[Floats] = [np.zeros((h * 4, w * 4), np.float32) for _ in range(2)]
        self.noise_cells: Floats = np.zeros((h, w, 16), np.float32)
        self.stored: NDArray[np.int8] = np.zeros((1, h // 2, w // 2, self.state_channels), np.int8)
        self.settled: Floats = np.zeros((h, w, SETTLED), np.float32)
        """What cells were changed by, for `steady_cells`."""
        self.motion: Floats = np.zeros((1, 2, h // 2, w // 2), np.float32)
        self.seen: Floats = np.zeros((1, 1, h // 2, w // 2), np.float32)
        self.half_motion: Floats = np.zeros((1, 1, 2), np.float32)
        self.has_motion = False
        self.without_depth = SOUNDED
        """Frames since one came with depth, at most `SOUNDED`."""
        content_h, content_w = self.fit.content
        self._rows = np.minimum(
            ((np.arange(0, content_h, 2) + 0.5) * self.height / content_h).astype(int), self.height - 1
        )
        self._columns = np.minimum(
            ((np.arange(0, content_w, 2) + 0.5) * self.width / content_w).astype(int), self.width - 1
        )
        self.overview = _without(h, w, _NO_PLACE)
        """What the frame that was read has as `CoreInput.overview`, `place` and `came`."""
        self.half_depth: NDArray[Any] | None = None
        """Depth of the frame that was read, as `half`; None where the game sends none."""
        self.told: Tensor | None = None
        """What the overview of the frame before said, [1, H, W, WORDS], or without depth its own cells, where it was
        small; None where nothing is remembered."""
        self.there: Floats = np.full((h, w, 2), -1.0, np.float32)
        self.lines: Bytes | None = None
        """The present frame's lines, if the style draws any."""
        self.shown_lines = (0.0, 0.0)
        """How many (rows, columns) of their points cover the frame."""
        self.edit: tuple[Floats, ...] | None = None
        """Colour transforms, detail, anchors and pens, as the network made them."""
        self.shown: tuple[Floats, ...] | None = None
        """The same where things are in the present frame."""
        self.since: Floats = np.zeros((h * 4, w * 4, 2), np.float32)
        """Working pixels to where everything was when a reused edit was made; NaN where that is unknown."""
        self.edit_age = 0
        self.given: CoreInput | None = None
        """What the first step of the present frame was given; the further ones go on from there."""
        self.fresh = True
        self.watch.forget()

    @property
    def corrections(self) -> int:
        """Frames that were out of bounds, and were predicted again without memory."""
        return self.watch.corrections

    @property
    def film(self) -> Tensor | None:
        """What the first step of the sampler knows of the style; None until one is set."""
        return self.films[0] if self.films else None

    def reset(self) -> None:
        """Forget: the next frame is a first one."""
        self.fresh = True
        self.settled.fill(0.0)
        self.edit = self.shown = self.told = None
        self.without_depth = SOUNDED
        self.watch.forget()
        self.resets += 1

    def save(self) -> dict[str, NDArray[Any]]:
        """All that the next frame depends on, but the style, as copies: plain arrays, for `np.savez` if need be."""
        edit = self.edit or tuple(np.zeros((0, 0, many), np.float32) for many in EDIT_PARTS.values())
        numbers = (
            SAVE_VERSION, self.height, self.width, self.fit.grid, self.seed, self.frame, self.resets, self.fresh,
            self.edit_age, self.without_depth,
        )  # fmt: skip
        return {
            "numbers": np.array(numbers, np.int64), "watch": np.array(self.watch.save(), np.float64),
            "cells": self.cells.copy(), "noise": self.noise[0].copy(), "stored": self.stored.copy(),
            **{name: part.copy() for name, part in zip(EDIT_PARTS, edit, strict=True)}, "since": self.since.copy(),
            "settled": self.settled.copy(),
            "told": np.zeros((1, 0, 0, WORDS), np.float32) if self.told is None else self.told.numpy().copy(),
        }  # fmt: skip

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on where `save` was: frames come out bit for bit as they would have there, on the same machine.

        The style is not part of it: set it first. The display's size and the network's must be those of this canvas.
        Nothing that `saved` says is trusted: `DataError` where anything is not as `save` gives it, and then the canvas
        is as it was.
        """
        shapes = {"numbers": (np.int64, (10,)), "watch": (np.float64, (WATCH_NUMBERS,))}
        numbers = _checked(saved, shapes)["numbers"].tolist()
        version, height, width, grid, seed, frame, resets, fresh, age, without_depth = numbers
        if version != SAVE_VERSION:
            raise DataError(f"the session was saved in format {version}, this version reads {SAVE_VERSION}: begin anew")
        if (height, width) != (self.height, self.width):
            raise DataError(f"the session was saved at {width}x{height}, this game is {self.width}x{self.height}")
        counts_fit = min(seed, frame, resets, age) >= 0 and 0 <= without_depth <= SOUNDED
        if not 0 <= grid < len(GRIDS) or not counts_fit or fresh not in (0, 1):
            raise DataError("the saved session is damaged: its numbers are out of range")
        h, w = GRIDS[grid]
        edited = bool(np.size(saved.get("matrices", ())))
        size = (h, w) if edited else (0, 0)
        told = _said_grid(h, w) if np.size(saved.get("told", ())) else (0, 0)
        arrays = _checked(saved, shapes | {
            "cells": (np.uint8, (h, w, 192)), "noise": (np.float32, (h * 4, w * 4)),
            "stored": (np.int8, (1, h // 2, w // 2, self.state_channels)),
            **{name: (np.float32, (*size, many)) for name, many in EDIT_PARTS.items()},
            "since": (np.float32, (h * 4, w * 4, 2)), "settled": (np.float32, (h, w, SETTLED)),
            "told": (np.float32, (1, *told, WORDS)),
        })  # fmt: skip
        if more := sorted(map(str, set(saved) - set(arrays))):
            raise DataError(f"the saved session is damaged: it holds {more} as well")
        if int(arrays["stored"].min()) < -127:
            raise DataError("the saved session is damaged: its memory is not one that a frame leaves")
        try:
            self.watch.restore(arrays["watch"].tolist())
        except ValueError as error:
            raise DataError(f"the saved session cannot be gone on with: {error}") from error
        watch = self.watch.save()
        self._work_on(grid)
        self.watch.restore(watch)
        self.seed, self.frame, self.resets, self.fresh = seed, frame, resets, bool(fresh)
        self.edit_age, self.without_depth = age, without_depth
        self.cells, self.noise[0], self.stored = (arrays[name].copy() for name in ("cells", "noise", "stored"))
        self.since, self.settled = arrays["since"].copy(), arrays["settled"].copy()
        self.told = torch.from_numpy(arrays["told"].copy()) if arrays["told"].size else None
        self.edit = self.shown = tuple(arrays[name].copy() for name in EDIT_PARTS) if edited else None

    def half(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A display plane at one entry per 2x2 working pixels."""
        if self.fit.content == (self.height, self.width):
            return plane[::2, ::2]
        chosen: NDArray[Any] = plane[self._rows][:, self._columns]
        return chosen


def _checked(saved: Mapping[str, NDArray[Any]], wanted: Mapping[str, tuple[Any, Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of `wanted`, each of its dtype and shape and finite but for motion; else `DataError`."""
    found = {}
    for name, (dtype, shape) in wanted.items():
        array = saved.get(name)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
            what = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "missing"
            raise DataError(f"the saved session is damaged: {name} is {what}, not {np.dtype(dtype)} {shape}")
        if array.dtype.kind == "f" and name != "since" and not np.isfinite(array).all():
            raise DataError(f"the saved session is damaged: {name} is not finite")
        found[name] = np.ascontiguousarray(array)
    return found


class Engine:
    """A tier's network on a device, warmed up: the `FrameEngine` of a processor."""

    raw = False
    grids = GRIDS
    warm_size = (640, 360)
    lost = ""
    successor: FrameEngine | None = None

    def __init__(self, config: ServeConfig, tell: Callable[[str], None] = lambda _: None) -> None:
        """Load, compile and warm up; `tell` gets a sentence for whatever degrades.

        Raises `WeightsError`, `DeviceError` or `ConfigError`.
        """
        self.device = _device(config.device)
        self.tier = config.tier if config.tier != "auto" else _auto_tier(config.weights, self.device)
        self.steps = config.steps
        self.threads = min(config.threads or usual_threads(), MAX_THREADS)
        if self.device.type == "cpu":
            # PyTorch's threads wait for one another, also for one that has no core: more only where they are asked for.
            torch.set_num_threads(config.threads or 1)
        net = load_network(self.tier, config.weights)
        self.dtype = best_dtype(self.device)
        self.state_channels = net.tier.state
        self._style_encoder = load_network(self.tier, config.weights).style_encoder
        self._of_style = functools.lru_cache(STYLES_KEPT)(self._read_style)
        self._bounds = load_bounds(self.tier, config.weights)
        if self._bounds is None:
            tell(f"the weights of {self.tier} know no bounds of a healthy frame: only what is not finite is corrected")
        self._core = Core(net, self.dtype).to(self.device)
        self._forward: Callable[[CoreInput], CoreOutput] = self._core
        self._remember = remembered
        self._estimator = MotionEstimator()  # keeps nothing of a game from call to call
        self._tell = tell
        self._costs_ns = {depth: [0] * len(GRIDS) for depth in (False, True)}
        self.reuse_ns = self.compose_ns = 0
        if config.compile and self.device.type == "cpu":
            self._compile(config.weights)
        self._measure()

    def _compile(self, weights: Path | None) -> None:
        """The core in C, or said once why not."""
        try:
            core = NativeCore(Core(load_network(self.tier, weights), torch.float32), threads=self.threads)
        except (OSError, subprocess.SubprocessError) as error:
            # First what mends it, then which compiler says what.
            zig = any("ziglang" in command for command in compilers())
            mends = "" if zig else "; pip install ziglang mends it"
            self._tell(f"serving several times slower{mends} ({error})"[:240])
            return
        if reason := why_not_native():
            self._tell(f"composing with numba, slower: {reason[:160]}")
        self._forward, self._remember = core, core.remember
        torch.set_num_threads(1)  # what is left to PyTorch is small

    def _measure(self) -> None:
        """Run every path, so that nothing is compiled in the first frame, and keep what each costs."""
        generator = np.random.default_rng(0)
        # A picture that moves, for there is motion to be found in it.
        blotches = generator.integers(0, 256, (40, 70, 4), np.uint8)
        big = cv2.resize(blotches, (700, 360), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
        frames = [np.ascontiguousarray(big[:, 6 * i : 6 * i + 640]) for i in range(8)]
        out = np.empty_like(frames[0])
        planes = FramePlanes(
            np.ones((360, 640), np.float32),
            np.zeros((360, 640, 2), np.float16),
            np.ones((360, 640), np.uint8),
        )
        order = _RGB
        canvas = self.open(FrameKind("RGBA8", 360, 640), 0)
        canvas.watch = Watch(None)  # frames of noise are out of bounds, and a frame's cost is that of a healthy one
        # With lines, so that what finds them is compiled as well, and a style's cost is that of the dearer ones.
        self.set_style(canvas, Style.make("lines", {"ink": 0.5}))
        for given in (FramePlanes(), planes):
            for grid in range(len(GRIDS)):
                canvas.fit_to(grid)
                whole, reuse, compose = [], [], []
                for frame in frames[:7]:
                    start = time.monotonic_ns()
                    self.read(canvas, frame, order, given, False)
                    read = time.monotonic_ns()
                    self.denoise(canvas)
                    if self.steps > 1:
                        self.refine(canvas)
                    before = time.monotonic_ns()
                    self.compose(canvas, frame, out, order, given.mask, 1.0)
                    end = time.monotonic_ns()
                    self.reuse(canvas)
                    whole.append(end - start)
                    compose.append(end - before)
                    reuse.append(time.monotonic_ns() - end + end - before + read - start)
                self._costs_ns[given.depth is not None][grid] = sorted(whole)[3]
                self.reuse_ns = max(self.reuse_ns, sorted(reuse)[3])
                self.compose_ns = max(self.compose_ns, sorted(compose)[3])

    def cost_ns(self, grid: int, *, depth: bool = True) -> int:
        """What a whole 640x360 frame took on `GRIDS[grid]` at warm-up, with all planes or with none."""
        return self._costs_ns[depth][grid]

    def open(self, kind: FrameKind, seed: int, grid: int = 0) -> Canvas:
        """Make a canvas for a game's frames."""
        return Canvas(kind.height, kind.width, self.state_channels, seed, grid, self._bounds)

    def upload(self, canvas: Canvas, pixels: Bytes, planes: FramePlanes) -> None:
        """Nothing: frames are read where they stand."""

    def wait(self, canvas: Canvas, until_ns: int) -> int:
        """Nothing to wait for, and nothing to tell: every call here returns when it is done."""
        return 0

    def settled(self, canvas: Canvas) -> bool:
        """Always."""
        return True

    @torch.inference_mode()
    def _read_style(self, values: bytes) -> tuple[Tensor, list[Tensor]]:
        vector = self._style_encoder(torch.from_numpy(np.frombuffer(values, np.float32).copy())[None])
        # One for each step of the sampler: the network is told the noise level.
        return vector, [self._core.film(vector.to(self.device), k, 1.0) for k in levels(self.steps)]

    def learn_style(self, style: Style) -> None:
        """Work out what the network is told of a style, two milliseconds, before a frame waits for it."""
        self._of_style(style.vector().astype(np.float32).tobytes())

    def set_style(self, canvas: Canvas, style: Style) -> None:
        """Paint in a style from the next frame on."""
        vector, canvas.films = self._of_style(style.vector().astype(np.float32).tobytes())
        ink, glow, width = (float(style_number(vector, name)[0]) for name in ("ink", "glow", "ink_width"))
        canvas.pixels = float(style_number(vector, "pixels")[0])
        canvas.ink_width = width if ink > 0 or glow > 0 else None
        canvas.lines = None
        # An edit in the old style is never shown as one in the new.
        canvas.edit = canvas.shown = canvas.told = None
        canvas.settled.fill(0.0)
        canvas.watch.forget()

    def read(
        self, canvas: Canvas, pixels: Bytes, order: NDArray[np.int64], planes: FramePlanes, cut: bool
    ) -> None:
        """Preprocess: bring a frame and its planes onto the cell grid.

        `pixels` uint8 [H, W, C] with red, green and blue at `order`.
        """
        if cut:
            canvas.reset()
        content_h, content_w = canvas.fit.content
        canvas.cells, canvas.cells_before = canvas.cells_before, canvas.cells
        cells_from_pixels(_frozen(_resized(pixels, canvas.fit.content)), order, canvas.cells)
        nothing = np.zeros((1, 1), np.float32)
        depth = mask = motion = None
        if planes.depth is not None:
            depth = np.ascontiguousarray(canvas.half(planes.depth), np.float32)
        canvas.half_depth = depth
        if planes.mask is not None:
            mask = np.ascontiguousarray(canvas.half(planes.mask))
        if planes.motion is not None:
            motion = _half_motion(canvas, planes.motion)
            if content_w != canvas.width or content_h != canvas.height:
                motion *= np.array([content_w / canvas.width, content_h / canvas.height], np.float32)
        canvas.has_motion = sent = motion is not None
        canvas.half_motion = motion if motion is not None else np.zeros((1, 1, 2), np.float32)
        if not sent and not canvas.fresh:
            self._estimate_motion(canvas)
        canvas.without_depth = 0 if depth is not None else min(canvas.without_depth + 1, SOUNDED)
        # What was estimated the net is not told: it moves what is remembered.
        plane_cells(
            depth if depth is not None else nothing, canvas.half_motion,
            mask if mask is not None else nothing.astype(np.uint8),
            depth is not None, sent, mask is not None, canvas.planes,
        )  # fmt: skip
        before, after = canvas.noise
        move_noise(
            before,
            after,
            canvas.half_motion,
            canvas.has_motion,
            canvas.fresh,
            canvas.seed,
            canvas.frame,
            canvas.noise_cells,
        )
        canvas.noise = [after, before]
        self._place_memory(canvas)
        self._find_lines(canvas, pixels, order, planes.depth)
        canvas.frame += 1

    def _find_lines(
        self, canvas: Canvas, pixels: Bytes, order: NDArray[np.int64], depth: NDArray[Any] | None
    ) -> None:
        """What lines the frame that was read has, if the style draws any, at the display's resolution.

        How much of those that colours show are lines, the words say of the working frame's.
        """
        canvas.lines = None
        canvas.there.fill(-1.0)
        if canvas.ink_width is None:
            return
        if depth is not None:
            canvas.lines = depth_lines(depth.astype(np.float32, copy=False), canvas.ink_width, self.threads)
            rows, columns = canvas.lines.shape[1:]
            canvas.shown_lines = float(rows), float(columns)
        else:
            canvas.lines, canvas.there = colour_lines(canvas.cells, canvas.ink_width, self.threads)
            canvas.shown_lines = float(canvas.fit.content[0]), float(canvas.fit.content[1])
            points = line_points(*pixels.shape[:2])
            if points != canvas.fit.content:
                rows, columns = (-(-side // CELL) for side in points)
                cells: Bytes = np.empty((rows, columns, CELL * CELL * 3), np.uint8)
                cells_from_pixels(_frozen(_resized(pixels, points)), order, cells)
                canvas.lines, _ = colour_lines(cells, canvas.ink_width, self.threads)
                canvas.shown_lines = float(points[0]), float(points[1])

    def _place_memory(self, canvas: Canvas) -> None:
        """Where each entry of the memory was, and whether it was to be seen."""
        h2, w2 = canvas.seen.shape[2:]
        if canvas.fresh:
            canvas.seen.fill(0.0)
            canvas.motion.fill(0.0)
            return
        canvas.seen.fill(1.0)
        if not canvas.has_motion:
            canvas.motion.fill(0.0)
            return
        canvas.motion[0] = _motion_of_middles(canvas.half_motion, h2, w2, 8)

    def _input(self, canvas: Canvas) -> CoreInput:
        assert canvas.film is not None, "set_style comes before the first frame"
        # Wrapped anew each time, so that the compiler always sees tensors of one kind and compiles once a grid.
        arrays = (
            canvas.cells[None],
            canvas.noise_cells[None],
            canvas.planes[None],
            canvas.stored,
            canvas.motion,
        )
        tensors = [torch.from_numpy(array).to(self.device) for array in (*arrays, canvas.seen, canvas.there[None])]
        overview = (part.to(self.device) for part in canvas.overview)
        return CoreInput._make((*tensors, canvas.film, *overview))

    def _look_over(self, canvas: Canvas, remembers: bool) -> None:
        """Take the overview of the frame that was read, where that is worked on large; else its own readings agree,
        where it has no depth. What the overview of the frame before said is heeded where the canvas `remembers`."""
        content, depth = canvas.fit.content, canvas.half_depth
        has_depth = depth is not None
        size = overview_size(*content, depth=has_depth)
        if size is None:
            grid = canvas.fit.rows, canvas.fit.columns
            if has_depth or overview_size(CELL * grid[0], CELL * grid[1]) is not None:
                canvas.told, canvas.overview = None, _without(*grid, _NO_PLACE)
            elif remembers and canvas.told is not None:
                canvas.overview = canvas.told, _HEEDING, self._words_motion(canvas, grid, content)
            else:
                canvas.overview = _without(*grid, _AGREEING)
            return
        rows, columns = OVERVIEW
        cells: Bytes = np.empty((rows, columns, CELL * CELL * 3), np.uint8)
        cells_from_pixels(_frozen(_resized(_image_of(canvas.cells)[: content[0], : content[1]], size)), _RGB, cells)
        planes = np.zeros((rows, columns, PLANE_CHANNELS), np.float32)
        if depth is not None:
            y, x = ((np.arange(0, few, 2) + 0.5) * side / few for few, side in zip(size, depth.shape, strict=True))
            few_depths = np.ascontiguousarray(depth[y.astype(int)][:, x.astype(int)])
            still, unmasked = np.zeros((1, 1, 2), np.float32), np.zeros((1, 1), np.uint8)
            plane_cells(few_depths, still, unmasked, True, False, False, planes)
        if canvas.planes[0, 0, 23] > 0:
            shown = canvas.planes[: -(-content[0] // CELL), : -(-content[1] // CELL), 20:24]
            part = cv2.resize(shown, (-(-size[1] // CELL), -(-size[0] // CELL)), interpolation=cv2.INTER_AREA)
            fill = ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0))
            planes[..., 20:24] = np.pad(part, fill, mode="edge")
        half = (rows // 2, columns // 2)
        assert canvas.film is not None
        silent = (
            torch.zeros(1, *half, self.state_channels, dtype=torch.int8), torch.zeros(1, 2, *half),
            torch.zeros(1, 1, *half), torch.full((1, rows, columns, 2), -1.0),
        )  # fmt: skip
        look = (torch.from_numpy(cells)[None], torch.zeros(1, rows, columns, 16), torch.from_numpy(planes)[None])
        given = (part.to(self.device) for part in (*look, *silent, canvas.film, *_without(rows, columns, _NO_PLACE)))
        words = self._forward(CoreInput._make(given)).words
        if remembers and canvas.told is not None:
            words = self._remember(words, canvas.told, self._words_motion(canvas, OVERVIEW, size))
        canvas.told = words
        place = torch.tensor([size[0] / content[0], size[1] / content[1], BELIEVED, float(not has_depth)])
        canvas.overview = words, place, _unsaid(canvas.fit.rows, canvas.fit.columns)[1]

    def _words_motion(self, canvas: Canvas, cells: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Cells, of which the content fills `size` pixels, to where the middle of each was at the net's last frame."""
        motion, content = canvas.half_motion, canvas.fit.content
        if canvas.edit_age:  # frames went by that reused an edit
            since = np.empty_like(canvas.since)
            carry_motion(canvas.since, motion, canvas.has_motion, since)
            motion = since[: -(-content[0] // 2), : -(-content[1] // 2)]
        elif not canvas.has_motion:
            return torch.zeros(1, 2, *cells)
        y, x = (overview_entries(*side).numpy() for side in zip(cells, size, content, strict=True))
        moved = motion[y][:, x] * np.array([size[1] / content[1], size[0] / content[0]], np.float32) / CELL
        return torch.from_numpy(np.ascontiguousarray(moved.transpose(2, 0, 1), np.float32))[None]

    @torch.inference_mode()
    def denoise(self, canvas: Canvas) -> bool:
        """Predict the edit of the frame that was read. False where the result was not finite: nothing is kept.

        A frame that is out of bounds is predicted again without memory: what is seen was never built on it.
        """
        forward, watch = self._forward, canvas.watch
        remembers = watch.begin(not canvas.fresh)
        reads = remembers and canvas.without_depth < SOUNDED
        if not reads:
            canvas.seen.fill(0.0)
        self._look_over(canvas, remembers)
        canvas.given = self._input(canvas)
        out = forward(canvas.given)
        now = statistics_of(out.health.tolist())
        if reads and not watch.healthy(now):
            canvas.seen.fill(0.0)
            self._look_over(canvas, remembers=False)
            canvas.given = self._input(canvas)
            out, reads, remembers = forward(canvas.given), False, False
            now = statistics_of(out.health.tolist())
            watch.correct()
        if not bool(torch.isfinite(out.health).all()):
            canvas.reset()
            return False
        watch.accept(now, reads)
        canvas.stored = out.stored.cpu().numpy()
        if canvas.overview[1] is _AGREEING or canvas.overview[1] is _HEEDING:
            canvas.told = out.words
        canvas.edit = canvas.shown = _arrays(out.edit)
        if not remembers:
            canvas.settled.fill(0.0)
        if self.steps == 1:
            self._steady(canvas)
        canvas.edit_age = 0
        canvas.fresh = False
        return True

    def _steady(self, canvas: Canvas) -> None:
        """Let what cells were changed by go on, in the edit that is shown."""
        assert canvas.edit is not None
        canvas.edit, canvas.settled = steady_cells(
            canvas.edit, canvas.cells, canvas.settled, self._cell_motion(canvas), self.threads
        )
        canvas.shown = canvas.edit

    def _cell_motion(self, canvas: Canvas) -> Floats:
        """Working pixels to where the middle of each cell was: [2, h, w]."""
        h, w = canvas.fit.rows, canvas.fit.columns
        if not canvas.has_motion:
            return np.zeros((2, h, w), np.float32)
        return np.ascontiguousarray(_motion_of_middles(canvas.half_motion, h, w, 4))

    def denoise_behind(self, canvas: Canvas, *, reused: bool) -> bool:
        """As `denoise`, when the frame was answered already: for the next one to reuse."""
        if reused and not canvas.fresh:
            # Reuse has moved the memory to where things are.
            canvas.motion.fill(0.0)
            canvas.seen.fill(1.0)
            canvas.has_motion = False
        done = self.denoise(canvas)
        if done and self.steps > 1:
            self._steady(canvas)
        return done

    @torch.inference_mode()
    def refine(self, canvas: Canvas) -> None:
        """The further steps of a several-step sampler, each from the 8-bit answer of those before: their mean edit."""
        given = canvas.given
        assert given is not None, "denoise comes before refine"
        h, w = canvas.fit.rows, canvas.fit.columns
        source = _image_of(canvas.cells)
        order = _RGB
        for step, k in enumerate(levels(self.steps)[1:], 1):
            answer = np.empty_like(source)
            self._compose(canvas, source, answer, order, None, 1.0, (h * 8, w * 8))
            cells: Bytes = np.empty_like(canvas.cells)
            cells_from_pixels(answer, order, cells)
            given = given._replace(film=canvas.films[step])
            out = self._core.refine(given, torch.from_numpy(cells)[None].to(self.device), torch.tensor(k))
            if bool(torch.isfinite(out.health).all()):
                assert canvas.edit is not None
                parts = zip(canvas.edit, _arrays(out.edit), strict=True)
                canvas.edit = canvas.shown = tuple(a + (b - a) / np.float32(step + 1) for a, b in parts)
        if self.steps > 1:
            self._steady(canvas)

    def reuse(self, canvas: Canvas) -> bool:
        """Carry the last edit along the motion onto the frame that was read. False where there is none."""
        if canvas.edit is None or canvas.fresh:
            return False
        if not canvas.edit_age:
            canvas.since.fill(0.0)
        since = np.empty_like(canvas.since)
        carry_motion(canvas.since, canvas.half_motion, canvas.has_motion, since)
        canvas.since = since
        canvas.shown = tuple(np.empty_like(part) for part in canvas.edit)
        parts: Any = (*canvas.edit, since, *canvas.shown)
        warp_edit(*parts)
        canvas.edit_age += 1
        if canvas.has_motion:
            # The memory has to follow as well, or it would lie where the picture was.
            motion, seen = torch.from_numpy(canvas.motion), torch.from_numpy(canvas.seen)
            moved = warp_state(dequantise(torch.from_numpy(canvas.stored)), motion, seen)
            canvas.stored = quantise(moved.state * moved.valid).numpy()
            settled = torch.from_numpy(canvas.settled)[None]
            canvas.settled = carried(settled, torch.from_numpy(self._cell_motion(canvas))[None])[0].numpy()
        return True

    def _estimate_motion(self, canvas: Canvas) -> None:
        """Find the motion from the working frame that was read before to this one, where the game sends none.

        A cut that nobody told of is found with it, and the memory begins anew.
        """
        height, width = canvas.fit.content
        self._estimator.forget()
        self._estimator(_image_of(canvas.cells_before)[:height, :width], _RGB)
        motion = self._estimator(_image_of(canvas.cells)[:height, :width], _RGB)
        if self._estimator.cut:
            canvas.reset()
        elif motion is not None:
            canvas.half_motion, canvas.has_motion = motion, True

    def compose(
        self,
        canvas: Canvas,
        pixels: Bytes,
        out: Bytes,
        order: NDArray[np.int64],
        mask: Bytes | None,
        strength: float,
    ) -> None:
        """Apply the canvas' edit to the full-resolution frame that was read; `mask` 0 keeps the source."""
        self._compose(canvas, pixels, out, order, mask, strength, canvas.fit.content)

    def _compose(
        self, canvas: Canvas, pixels: Bytes, out: Bytes, order: NDArray[np.int64], mask: Bytes | None,
        strength: float, content: tuple[int, int],
    ) -> None:  # fmt: skip
        assert canvas.shown is not None
        # Of the whole working frame more than the display is drawn: as much further do its lines' points reach.
        lines = (canvas.shown_lines[0] * content[0] / canvas.fit.content[0],
                 canvas.shown_lines[1] * content[1] / canvas.fit.content[1])  # fmt: skip
        compose_pixels(
            pixels, out, order, canvas.shown, mask, strength, content, canvas.lines, lines, threads=self.threads
        )
        if canvas.pixels > 0:
            pixelate(out, canvas.pixels * strength, mask)


def _arrays(edit: Edit) -> tuple[Floats, ...]:
    """An edit of one frame as arrays on the processor, in the order of `EDIT_PARTS`."""
    return tuple(part[0].cpu().numpy() for part in edit)


def load_engine(config: ServeConfig, tell: Callable[[str], None] = lambda _: None) -> FrameEngine:
    """The engine for this machine: on its GPU where one works, else on its processor.

    Raises as `Engine`; a GPU that was asked for by name and does not work is a `DeviceError`.
    """
    if _device(config.device).type == "cpu":
        return Engine(config, tell)
    from mirage_plugin.cuda_engine import CudaEngine  # with it comes Triton

    try:
        return CudaEngine(config, tell)
    except (DeviceError, RuntimeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        if config.device == "cuda":
            raise DeviceError(f"the GPU does not work ({why}): see `mirage doctor`, or use --device cpu") from error
        tell(f"serving on the processor, for the GPU does not work: {why}")
        return Engine(dataclasses.replace(config, device="cpu"), tell)


def _half_motion(canvas: Canvas, motion: NDArray[Any]) -> Floats:
    """`Canvas.half` of a motion plane, as float32 of its own memory."""
    if motion.dtype != np.float16 or motion.strides[2] != 2:
        # In the order that the warm-up compiled for, whatever the order of what is taken from the plane.
        return canvas.half(motion).astype(np.float32, order="C")
    # A pair of half floats moves as one word, and torch converts them in vectors: 45 us for 340.
    pairs = np.ascontiguousarray(canvas.half(motion.view(np.uint32)[..., 0]))
    halves = torch.from_numpy(pairs.view(np.float16)).float()
    wide: Floats = halves.numpy().reshape(*pairs.shape, 2)
    return wide


def _motion_of_middles(half_motion: Floats, rows: int, columns: int, side: int) -> Floats:
    """The motion in the middle of each of `rows` x `columns` squares of `side` entries: [2, rows, columns]."""
    y = np.minimum(np.arange(rows) * side + side // 2, half_motion.shape[0] - 1)
    x = np.minimum(np.arange(columns) * side + side // 2, half_motion.shape[1] - 1)
    middles: Floats = half_motion[y][:, x].transpose(2, 0, 1)
    return middles


def _resized(pixels: Bytes, size: tuple[int, int]) -> Bytes:
    """Pixels [H, W, C] on fewer of (rows, columns), or as they are."""
    if pixels.shape[:2] == size:
        return pixels
    # Means of areas cost six times as much, and differ little before pixels are left out.
    how = cv2.INTER_LINEAR if 2 * size[1] > pixels.shape[1] else cv2.INTER_AREA
    small = cv2.resize(pixels, size[::-1], interpolation=how)
    return small.astype(np.uint8, copy=False).reshape(*size, -1)


def _frozen(array: Bytes) -> Bytes:
    """The array as numba has met it at warm-up, contiguous and read-only: any other kind would be compiled for
    in the middle of a game, which takes half a minute."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _image_of(cells: Bytes) -> Bytes:
    h, w, _ = cells.shape
    return np.ascontiguousarray(
        cells.reshape(h, w, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(h * 8, w * 8, 3)
    )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError.no_cuda()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _auto_tier(weights: Path | None, device: torch.device) -> str:
    if weights is not None:
        return tier_of(weights)
    available = {p.stem for p in weights_directory().glob("*.safetensors")}
    if device.type != "cuda":
        return choose_tier(available)
    properties = torch.cuda.get_device_properties(device)
    return choose_tier(
        available, multiprocessors=properties.multi_processor_count, memory_bytes=properties.total_memory
    )

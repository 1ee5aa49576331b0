"""The model on a GPU: from a frame's bytes in shared memory to an answer's bytes in shared memory.

The same interface as `engine.Engine`, on the ops of `mirage_kernels`. What a kind of frame needs on the device is
made once, when a game of that kind connects (for common kinds before "ready"): buffers, and CUDA graphs of all that
happens between the two copies. A frame then is: two small writes and the copies, asynchronously, on the game's own
stream; two graph launches; one wait on an event before the answer is published. Nothing on the way allocates,
synchronises or looks at a pixel.

What is missing is done without, and said once: no graphs (the same work launched one by one), no Triton (the ops'
references), too little device memory (smaller working sizes). A device that answers late costs its frames; one that
is lost is left for the processor, while the source answers.

On a `torch.device("cpu")` the same class runs the ops' references: that is how it is held to `engine.Engine`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import mmap
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mirage_kernels as kernels
from mirage_plugin.config import ServeConfig, choose_tier, weights_directory
from mirage_plugin.cuda_path import (
    GRIDS,
    Path,
    Pinned,
    SharedWeights,
    Work,
    WorkingSize,
    mapping_of,
    rows_of,
)
from mirage_plugin.errors import DeviceError
from mirage_plugin.frames import STYLES_KEPT, FrameKind, FramePlanes
from mirage_plugin.model.drift import Bounds, Watch, statistics_of
from mirage_plugin.model.network import CODE_SIZE, SIGMA, MirageNet
from mirage_plugin.styles.parameters import Style

if TYPE_CHECKING:
    from mirage_plugin.engine import Engine

__all__ = ["COMMON", "CudaCanvas", "CudaEngine"]

_KEPT_PATHS = 4
"""So many paths without a game are kept for the next game of their kind."""
# A frame that is still under way after this, when the next one comes, costs the next one; after this it is lost.
_BUSY_NS = 5_000_000
_HUNG_NS = 1_000_000_000
# A game that there was no path for is tried again after this, for a try holds up every other game.
_RETRY_NS = 2_000_000_000
# Slept between two looks at an event: no latency to speak of, and not a core of its own.
_NAP_S = 20e-6


COMMON = (
    FrameKind("RGBA8", 1080, 1920), FrameKind("RGBA8", 1080, 1920, depth=True, motion=True, mask=True),
    FrameKind("BGRA8", 1080, 1920), FrameKind("RGBA8", 720, 1280),
)  # fmt: skip
"""What is captured before "ready"."""


class CudaCanvas:
    """What the engine keeps of one game between frames; the path on the device returns to the engine with it."""

    def __init__(
        self, kind: FrameKind, seed: int, path: Path | None, generation: int, bounds: Bounds | None = None
    ) -> None:
        """Begin with an empty memory; without a path until the device is back. `bounds` of a healthy frame."""
        self.kind, self.seed, self._path, self.generation = kind, seed, path, generation
        self.frame = self.resets = self.edit_age = self.composing_ns = 0
        self.returning: weakref.finalize[..., CudaCanvas] | None = None
        self.retry_ns = 0
        """When a path is to be looked for again, where there was none."""
        self.film: Style | None = None
        """The style whose FiLM and parameters are on the device; None before the first."""
        self.fresh, self.has_edit, self.late = True, False, False
        self.watch = Watch(bounds)
        self.remembers, self.judged, self.anew = False, True, False
        """Whether memory took part in the last frame, whether its health was looked at, and whether it was so bad that
        the next frame does without memory."""
        self.mapping: mmap.mmap | None = None
        self.pinned: Pinned | None = None
        """`mapping`, which frames and answers stand in; None where it cannot be pinned."""
        self.bounce: tuple[Tensor, NDArray[Any]] | None = None
        self.fit = WorkingSize(-1, WorkingSize.of(kind.height, kind.width, 0).content)

    def fit_to(self, grid: int) -> None:
        """Work on `GRIDS[grid]` from the next frame on, or on the next one there is; the memory begins anew."""
        works = self._path.works if self._path else {}
        there = [g for g in sorted(works) if g >= grid] or sorted(works)[-1:]
        if there and there[0] != self.fit.grid:
            # The first size of a canvas ends nothing.
            self.resets += self.fit.grid >= 0
            self.fit = works[there[0]].size
            self._forget()

    def reset(self) -> None:
        """Forget: the next frame is a first one."""
        self._forget()
        self.resets += 1

    def _forget(self) -> None:
        self.fresh, self.has_edit, self.judged, self.anew = True, False, True, False
        self.watch.forget()

    def judge(self, health: Sequence[float]) -> None:
        """Look at what the last frame's `Path.health` was: where it was out of bounds the next one begins anew."""
        if self.judged:
            return
        self.judged = True
        if health[4] > 0:
            self.reset()
            return
        now, reads = statistics_of(health), self.remembers and self.kind.depth
        if reads and not self.watch.healthy(now):
            self.watch.correct()
            self.anew = True
        else:
            self.watch.accept(now, reads)

    @property
    def corrections(self) -> int:
        """Frames that were out of bounds, each known when the next one came, which began without memory."""
        return self.watch.corrections

    @property
    def path(self) -> Path:
        """What is on the device. Raises `DeviceError` where that is lost."""
        if self._path is None:
            raise DeviceError("the GPU was lost before this game came")
        return self._path

    def moved_to(self, path: Path, generation: int) -> None:
        """Go on with a new path, which knows neither style nor past."""
        self._path, self.generation, self.film = path, generation, None
        self.fit_to(max(self.fit.grid, 0))
        self.reset()

    @property
    def work(self) -> Work:
        """The work of the present size. Raises `DeviceError` where the device has no memory for any."""
        if self.fit.grid not in self.path.works:
            raise DeviceError("no working size fits into the device's memory: close other programs on the GPU")
        return self.path.works[self.fit.grid]


def _on_device(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run on the canvas' stream, without gradients; what CUDA raises becomes `DeviceError`, and the engine mends."""

    @functools.wraps(method)
    def guarded(self: CudaEngine, canvas: CudaCanvas, *given: Any, **named: Any) -> Any:
        if self.lost:
            raise DeviceError(f"the GPU was lost: {self.lost}")
        if canvas.generation != self.generation:
            raise DeviceError("the GPU is back: this game's path is built with its next frame")
        try:
            with torch.inference_mode(), torch.cuda.stream(canvas.path.stream):
                return method(self, canvas, *given, **named)
        except torch.OutOfMemoryError as error:
            self._shrink(canvas)
            raise DeviceError("out of device memory: going on at a smaller working size") from error
        except RuntimeError as error:
            raise DeviceError(f"the GPU was lost: {self._lose(str(error))}") from error

    return guarded


class CudaEngine:
    """A tier's network on a GPU, captured and warm."""

    raw = True
    """Frames and planes are taken as they stand in the slot, and answers written so."""
    grids = GRIDS
    warm_size = (1920, 1080)

    def __init__(
        self, config: ServeConfig, tell: Callable[[str], None] = lambda _: None, *, net: MirageNet | None = None,
        dtype: torch.dtype | None = None, fp8: bool = False, warm: Sequence[FrameKind] = COMMON,
        sizes: int = len(GRIDS),
    ) -> None:  # fmt: skip
        """Load the tier's network (or take `net`), capture the `warm` kinds, and measure; `tell` as `Engine`.

        A path has the `sizes` largest working sizes. `fp8` where weights between the stages may be e4m3.
        `config.device` "cpu" runs the ops' references in fp32. Raises `WeightsError`, `DeviceError` or `ConfigError`.
        """
        self._config, self._tell_all, self._told = config, tell, set[str]()
        self.device = torch.device("cpu" if config.device == "cpu" else "cuda")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceError.no_cuda()
        self.steps, self.lost, self.generation, self._serving = config.steps, "", 0, False
        self.successor: Engine | None = None
        self.dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self._bounds = None
        if net is None:
            net = self._load(config)
            self._bounds = self._load_bounds(net.tier.name, config)
        self.tier = net.tier.name
        # Styles are few and small; their encoder stays on the processor, between frames.
        self._net = net.float().cpu().eval().requires_grad_(False)
        self._of_style = functools.lru_cache(STYLES_KEPT)(self._read_style)
        self._fp8, self._sizes = fp8, sizes
        self._graphs = self.device.type == "cuda"
        self._kept: dict[FrameKind, list[Path]] = {}
        # One for a mapping, which several canvases look into: the driver takes it once.
        self._pinned = weakref.WeakValueDictionary[int, Pinned]()
        self._stuck: Path | None = None
        self._costs_ns = [0] * len(GRIDS)
        self.reuse_ns = self.compose_ns = 0
        if self.device.type == "cuda" and not kernels.HAS_TRITON:
            self._tell("Triton is not installed: slower, on the reference operations (pip install triton)")
        self._prepare()
        self._warm_up(warm)
        self._serving = True

    @staticmethod
    def _load(config: ServeConfig) -> MirageNet:
        from mirage_plugin.model.checkpoint import load_network, tier_of  # safetensors, which a benchmark does without

        if config.weights is not None:
            return load_network(tier_of(config.weights) if config.tier == "auto" else config.tier, config.weights)
        available = {p.stem for p in weights_directory().glob("*.safetensors")}
        if config.tier != "auto":
            return load_network(config.tier)
        if config.device == "cpu":
            return load_network(choose_tier(available))
        gpu = torch.cuda.get_device_properties(torch.device("cuda"))
        return load_network(
            choose_tier(available, multiprocessors=gpu.multi_processor_count, memory_bytes=gpu.total_memory)
        )

    def _load_bounds(self, tier: str, config: ServeConfig) -> Bounds | None:
        from mirage_plugin.model.checkpoint import load_bounds

        bounds = load_bounds(tier, config.weights)
        if bounds is None:
            self._tell(f"the weights of {tier} know no bounds of a healthy frame: only what is not finite is corrected")
        return bounds

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._tell_all(sentence)

    @torch.inference_mode()
    def _prepare(self) -> None:
        """Pack the network on the device."""
        parameters = {name: value.to(self.device) for name, value in self._net.state_dict().items()}
        network = kernels.prepare(parameters, self.dtype, fp8=self._fp8)
        levels = tuple(1.0 - i / self.steps for i in range(self.steps))
        stem = functools.cache(lambda layout: network.stem(layout, SIGMA))
        film = network.film_weight.shape[0]
        self._weights = SharedWeights(network, levels, self.device, self._net.tier.state, film, stem)
        if self.device.type == "cuda":
            # Not the device: a stream that hangs would be waited for.
            torch.cuda.current_stream().synchronize()

    def _warm_up(self, kinds: Sequence[FrameKind]) -> None:
        """Capture what is common, so that nothing is compiled in a frame, and measure every working size."""
        for index, kind in enumerate(kinds):
            canvas = self.open(kind, 0)
            canvas.watch = Watch(None)
            self.set_style(canvas, Style.make("plain", {}))
            if index == 0:
                self._measure(canvas)

    def _measure(self, canvas: CudaCanvas) -> None:
        # In shared memory, as a game's frames and answers are: what else would be measured is copying on the processor.
        size, layout = canvas.path.frame.numel(), canvas.kind.layout
        both = np.frombuffer(mmap.mmap(-1, 2 * size), np.uint8).reshape(2, layout.height, size // layout.height)
        frame, out = both
        frame[...] = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
        none, far_ns = FramePlanes(), time.monotonic_ns() + 60_000_000_000
        for grid in canvas.path.works:
            canvas.fit_to(grid)
            whole, reuse, compose = list[int](), list[int](), list[int]()
            for _ in range(5):
                for action, took in ((self.denoise, whole), (self.reuse, reuse)):
                    start = time.monotonic_ns()
                    self.upload(canvas, frame, none)
                    self.read(canvas, frame, None, none, False)
                    action(canvas)
                    self.compose(canvas, frame, out, None, None, 1.0)
                    compose.append(self.wait(canvas, far_ns))
                    took.append(time.monotonic_ns() - start)
            self._costs_ns[grid] = sorted(whole)[2]
            self.reuse_ns = max(self.reuse_ns, sorted(reuse)[2])
            self.compose_ns = max(self.compose_ns, sorted(compose)[5])
        canvas.path.staging.clear()

    def cost_ns(self, grid: int, *, depth: bool = True) -> int:
        """What a whole frame of `warm_size` took on `GRIDS[grid]` at warm-up; 0 where it did not run."""
        return self._costs_ns[grid]

    def open(self, kind: FrameKind, seed: int, grid: int = 0) -> CudaCanvas:
        """Make a canvas for a game's frames, on a kept path or one captured now; without one where that fails."""
        try:
            if self.lost:
                raise DeviceError(f"the GPU was lost: {self.lost}")
            path = self._path_for(kind)
        except DeviceError as error:
            if not self._serving:
                raise
            if not self.lost:
                self._tell(str(error))
            canvas = CudaCanvas(kind, seed, None, -1)
            canvas.retry_ns = time.monotonic_ns() + _RETRY_NS * (not self.lost)
            return canvas
        canvas = CudaCanvas(kind, seed, path, self.generation, self._bounds)
        self._returns(canvas, path)
        canvas.fit_to(grid)
        return canvas

    def _path_for(self, kind: FrameKind) -> Path:
        """A path that nobody has, or a new one. Raises `DeviceError`, having lost the device or found no room there."""
        kept = self._kept.get(kind)
        if kept:
            return kept.pop()
        try:
            try:
                return self._new_path(kind)
            except torch.OutOfMemoryError:
                self._full()
                return self._new_path(kind)
        except torch.OutOfMemoryError as error:
            raise DeviceError("no device memory for this game: close other programs on the GPU") from error
        except RuntimeError as error:
            raise DeviceError(f"the GPU was lost: {self._lose(str(error))}") from error

    def _returns(self, canvas: CudaCanvas, path: Path) -> None:
        """With the canvas the path comes back; one that it had before, which died with its device, goes now."""
        if canvas.returning is not None:
            canvas.returning.detach()
        canvas.returning = weakref.finalize(canvas, self._keep, path, self.generation)
        canvas.returning.atexit = False

    def _keep(self, path: Path, generation: int) -> None:
        with contextlib.suppress(RuntimeError):
            if path.settled():
                path.holding = None
        if generation == self.generation and not self.lost:
            self._kept.setdefault(path.kind, []).append(path)
            every = [kind for kind, paths in self._kept.items() for _ in paths]
            if len(every) > max(_KEPT_PATHS, len(COMMON)):
                self._kept[every[0]].pop(0).works.clear()

    @torch.inference_mode()
    def _new_path(self, kind: FrameKind) -> Path:
        """Make and capture a path with every working size that is smaller than the one before and fits."""
        path = Path(self._weights, kind)
        path.synchronize()
        sizes = [WorkingSize.of(kind.height, kind.width, grid) for grid in range(self._sizes)]
        with torch.cuda.stream(path.stream):
            for size, smaller in zip(sizes, (*sizes[1:], None), strict=True):
                if smaller is not None and size.content == smaller.content:
                    continue
                try:
                    path.works[size.grid] = self._captured(path, size)
                except torch.OutOfMemoryError:
                    self._full()
        path.synchronize()
        return path

    def _full(self) -> None:
        """Give back what no game needs just now."""
        self._tell("the device's memory is full: working on fewer cells")
        self._drop_kept()
        if self.device.type == "cuda":
            # It refuses for good after a capture that failed.
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()

    def _drop_kept(self) -> None:
        """Let go of paths without a game, and of the graphs and buffers of those that are gone, now."""
        for path in [path for paths in self._kept.values() for path in paths]:
            path.works.clear()
        self._kept.clear()
        gc.collect()

    def _captured(self, path: Path, size: WorkingSize) -> Work:
        """A work, captured; else eager; else on the references. Each is said once.

        What warm-up could do stays for all other games: a kind of frame for which it fails later is served without, or
        not at all (`DeviceError`).
        """
        graphs = self._graphs
        while True:
            work = Work(path, size)
            try:
                work.capture(graphs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a driver or a compiler trips over, the next best still serves
                why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
                kind = path.kind.layout
                if self._serving and graphs:
                    graphs = False
                    self._tell(f"some kinds of frames go without CUDA graphs, slower: {why}")
                elif self._serving:
                    raise DeviceError(f"{kind.format} of {kind.width}x{kind.height} fails on the GPU: {why}") from error
                elif self._graphs:
                    graphs = False
                    self._graphs = False
                    self._tell(f"no CUDA graphs, slower: {why}")
                elif self.device.type == "cuda" and kernels.backend() != "reference" and kernels.HAS_TRITON:
                    kernels.use("reference")
                    self._tell(f"the kernels do not run here, slower, on the reference operations: {why}")
                else:
                    raise
                continue
            return work

    def _shrink(self, canvas: CudaCanvas) -> None:
        """Out of memory in the middle of a game: give up what is kept, and this working size."""
        if len(canvas.path.works) > 1:
            canvas.path.works.pop(canvas.fit.grid, None)
        canvas.fit_to(canvas.fit.grid)
        self._full()

    @torch.inference_mode()
    def _read_style(self, values: bytes) -> tuple[Tensor, Tensor]:
        """A style's vector and its conditions, one for each step of the sampler: on the processor."""
        vector = self._net.style(torch.from_numpy(np.frombuffer(values, np.float32).copy())[None])
        steps = [self._net.condition(vector, torch.full((1,), k), torch.ones(1)) for k in self._weights.levels]
        return vector, torch.cat(steps)

    def learn_style(self, style: Style) -> None:
        """Work out what the network is told of a style, two milliseconds, before a frame waits for it."""
        self._of_style(style.vector().astype(np.float32).tobytes())

    # -- one frame ---------------------------------------------------------------------------------------

    def set_style(self, canvas: CudaCanvas, style: Style) -> None:
        """Paint in a style from the next frame on."""
        self._revive(canvas)
        self._set_style(canvas, style)

    @_on_device
    def _set_style(self, canvas: CudaCanvas, style: Style) -> None:
        path = canvas.path
        vector, conditions = self._of_style(style.vector().astype(np.float32).tobytes())
        path.film.copy_(kernels.film_of(self._weights.network, conditions.to(self.device)))
        path.style.copy_(vector[:, CODE_SIZE:])
        for work in path.works.values():
            work.settled.zero_()
            if work.said is not None:
                work.said.known.zero_()
        canvas.film = style
        canvas.has_edit = False  # one in the old style is never shown as one in the new
        canvas.watch.forget()

    def upload(self, canvas: CudaCanvas, pixels: NDArray[Any], planes: FramePlanes) -> None:
        """Start a frame and its planes, as they stand in the slot, on their way to the device."""
        self._revive(canvas)
        self._upload(canvas, pixels, planes)

    def _revive(self, canvas: CudaCanvas) -> None:
        """Find a path for a canvas whose own died with the device it was made on, or that never had one."""
        if canvas.generation == self.generation or self.lost:
            return
        if time.monotonic_ns() < canvas.retry_ns:
            raise DeviceError("there is no path for this game yet")
        canvas.retry_ns = time.monotonic_ns() + _RETRY_NS
        path = self._path_for(canvas.kind)
        self._returns(canvas, path)
        canvas.moved_to(path, self.generation)
        canvas.retry_ns = 0

    @_on_device
    def _upload(self, canvas: CudaCanvas, pixels: NDArray[Any], planes: FramePlanes) -> None:
        path = canvas.path
        self._settle(path, time.monotonic_ns() + _BUSY_NS)
        canvas.judge(path.host_health.tolist())
        self._copy_in(canvas, "frame", pixels, path.frame[0])
        for name in ("depth", "motion", "mask"):
            plane, into = getattr(planes, name), getattr(path, name)
            if into is not None and plane is not None:
                self._copy_in(canvas, name, plane, into.view(-1).view(torch.uint8))
        path.mark(path.done)

    def _copy_in(self, canvas: CudaCanvas, name: str, array: NDArray[Any], into: Tensor) -> None:
        layout = canvas.kind.layout
        pitch_bytes = layout.pitch_bytes if name == "frame" else into.numel() // layout.height
        host = self._in_mapping(canvas, array, into.numel(), pitch_bytes)
        if host is None:
            host = canvas.path.staged(name, into.numel())
            rows_of(host, pitch_bytes, array)[...] = array
        into.copy_(host, non_blocking=True)

    def _in_mapping(
        self, canvas: CudaCanvas, array: NDArray[Any], size_bytes: int, pitch_bytes: int
    ) -> Tensor | None:
        """An array's bytes in pinned shared memory; None where they are elsewhere, or lie in another way."""
        mapping = mapping_of(array)
        if mapping is None or array.strides[0] != pitch_bytes:
            return None
        if canvas.mapping is not mapping:
            canvas.mapping, canvas.pinned = mapping, self._pinned.get(id(mapping))
            try:
                if canvas.pinned is None:
                    canvas.pinned = self._pinned[id(mapping)] = Pinned(mapping, self.device.type == "cuda")
            except OSError as error:
                self._tell(f"shared memory cannot be pinned, so frames are copied once more: {error}")
        if canvas.pinned is None:
            return None
        canvas.path.holding = canvas.pinned
        return canvas.pinned.part(array, size_bytes)

    @_on_device
    def read(self, canvas: CudaCanvas, pixels: Any, order: Any, planes: FramePlanes, cut: bool) -> None:
        """Say which frame it is that was uploaded; `cut` forgets what came before."""
        if cut:
            canvas.reset()
        path = canvas.path
        words = path.host_words.numpy()
        words[:8].view(np.int64)[0], words[16:24].view(np.int64)[0] = canvas.seed, canvas.frame
        canvas.remembers = canvas.watch.begin(not (canvas.fresh or canvas.anew))
        words[48:52].view(np.float32)[0] = float(canvas.remembers)
        path.words.copy_(path.host_words, non_blocking=True)
        path.mark(path.done)
        canvas.frame += 1

    def denoise_behind(self, canvas: CudaCanvas, *, reused: bool) -> bool:
        """Never: a device that is late has frames under way, and one behind them would make the next one later."""
        return False

    @_on_device
    def denoise(self, canvas: CudaCanvas) -> bool:
        """Launch the net, all its steps. Always True: whether the edit is finite is known when it is composed."""
        canvas.work.net()
        canvas.path.host_health.copy_(canvas.path.health, non_blocking=True)
        canvas.path.mark(canvas.path.done)
        canvas.late, canvas.has_edit, canvas.fresh, canvas.edit_age = False, True, False, 0
        canvas.judged = canvas.anew = False
        return True

    def refine(self, canvas: CudaCanvas) -> None:
        """Nothing: `denoise` takes all steps."""

    @_on_device
    def reuse(self, canvas: CudaCanvas) -> bool:
        """Carry the last edit along the motion onto the frame that was read. False where there is none."""
        if not canvas.has_edit or canvas.fresh:
            return False
        canvas.work.carry()
        canvas.path.mark(canvas.path.done)
        canvas.late = True
        canvas.edit_age += 1
        return True

    @_on_device
    def compose(
        self, canvas: CudaCanvas, pixels: Any, out: NDArray[Any], order: Any, mask: Any, strength: float
    ) -> None:
        """Launch the edit's way onto the frame and into `out`, which is written when `wait` returns."""
        path, canvas.composing_ns = canvas.path, time.monotonic_ns()
        path.host_words.numpy()[32:36].view(np.float32)[0] = strength
        path.words[32:48].copy_(path.host_words[32:48], non_blocking=True)
        path.mark(path.composing)
        (canvas.work.late if canvas.late else canvas.work.compose)()
        pitch_bytes = canvas.kind.layout.pitch_bytes
        target, canvas.bounce = self._in_mapping(canvas, out, path.answer.numel(), pitch_bytes), None
        if target is None:
            target = path.staged("answer", path.answer.numel())
            canvas.bounce = target, out
        target.copy_(path.answer[0], non_blocking=True)
        path.mark(path.done)

    @_on_device
    def wait(self, canvas: CudaCanvas, until_ns: int) -> int:
        """Wait for the answer; returns the nanoseconds from composing to its last byte.

        Raises `DeviceError` where it is not there at `until_ns` (CLOCK_MONOTONIC): the memory that it was to be written
        into may be given away when `settled` says so.
        """
        path = canvas.path
        self._settle(path, until_ns)
        if canvas.bounce is not None:
            staged, out = canvas.bounce
            out[...] = rows_of(staged, canvas.kind.layout.pitch_bytes, out)
        if path.done is None:
            return time.monotonic_ns() - canvas.composing_ns
        return int(path.composing.elapsed_time(path.done) * 1e6)

    def settled(self, canvas: CudaCanvas) -> bool:
        """Whether nothing is under way for this game any more. A device that was lost writes nothing more."""
        try:
            return bool(self.lost) or canvas.generation != self.generation or canvas.path.settled()
        except RuntimeError as error:
            self._lose(str(error))
            return True

    def _settle(self, path: Path, until_ns: int) -> None:
        while not path.settled():
            now_ns = time.monotonic_ns()
            if now_ns - path.busy_since_ns > _HUNG_NS:
                self._stuck = path
                raise RuntimeError("it has not finished a frame for a second")
            if now_ns > until_ns:
                raise DeviceError("the GPU is late")
            time.sleep(_NAP_S)

    # -- a device that was lost ------------------------------------------------------------------------------

    def _lose(self, why: str) -> str:
        """Answer no more frames, and find out in a thread of its own what is left; returns the reason, short."""
        if not self._serving:
            raise DeviceError(f"the GPU does not work: {why}")
        short = (why.strip().splitlines() or ["no reason was given"])[0][:160]
        if not self.lost:
            self.lost = short
            threading.Thread(target=self._mend, name="mend", daemon=True).start()
        return short

    def _mend(self) -> None:
        """Build the path anew where the device still works; where it does not, an engine on the processor.

        A CUDA error that damaged the context stays for as long as the process lives.
        """
        self._tell(f"the GPU was lost ({self.lost}): games see their own frames meanwhile")
        try:
            self._probe()
            self._drop_kept()
            self._prepare()
        except RuntimeError:
            self.successor = self._on_processor()
            return
        self.generation += 1
        self.lost, self._stuck = "", None
        self._told.clear()

    def _on_processor(self) -> Engine | None:
        from mirage_plugin.engine import Engine

        try:
            engine = Engine(dataclasses.replace(self._config, device="cpu", tier="auto"), self._tell)
        except Exception as error:  # a thread has nobody to raise to
            self._tell(f"nor can the processor serve ({error}): games see their own frames; start again")
            return None
        self._tell("serving on the processor from now on; start again to come back to the GPU")
        return engine

    def _probe(self) -> None:
        """Raise `RuntimeError` unless the device computes within two seconds, and is done with what it hung in: whoever
        waits for the whole device, as every capture does, would wait for that."""
        if self.device.type != "cuda":
            return
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            torch.ones(1, device=self.device).add_(1)
            event.record(stream)
        until_ns = time.monotonic_ns() + 2 * _HUNG_NS
        stuck = self._stuck
        while not (event.query() and (stuck is None or stuck.settled())):
            if time.monotonic_ns() > until_ns:
                raise RuntimeError("the device does not answer")
            time.sleep(0.01)

"""What one game's frames need on the device: buffers, a stream, and the work between the two copies.

A `Path` belongs to a kind of frame and has a `Work` for each working size. Its works are plain functions over fixed
buffers, on the ops of `mirage_kernels`; captured, each is one CUDA graph. On a CPU device they run as they stand.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import mirage_kernels as kernels
from mirage_kernels import FrameLayout
from mirage_plugin.frames import FrameKind

__all__ = ["GRIDS", "Overview", "Path", "Pinned", "SharedWeights", "Work", "WorkingSize", "mapping_of", "rows_of"]

GRIDS: tuple[tuple[int, int], ...] = ((136, 240), (92, 160), (68, 120), (48, 80))
"""Working sizes in cells (rows, columns), largest first: 1920x1088, 1280x736, 960x544, 640x384. A frame that is
smaller than one costs no more than its own cells."""


INK_WIDTH, PIXELS = kernels.style_offset("ink_width"), kernels.style_offset("pixels")


class WorkingSize(NamedTuple):
    """Which of `GRIDS` a frame is worked on in, and the (height, width) in pixels that it has there."""

    grid: int
    content: tuple[int, int]

    @staticmethod
    def of(height: int, width: int, grid: int) -> WorkingSize:
        """Fit a display of `height` x `width` into `GRIDS[grid]`, keeping its aspect, never enlarging it."""
        rows, columns = GRIDS[grid]
        scale = min(1.0, rows * 8 / height, columns * 8 / width)
        return WorkingSize(grid, (max(1, round(height * scale)), max(1, round(width * scale))))


class SharedWeights(NamedTuple):
    """What all paths share: the packed network, the noise levels of its steps, and how to run."""

    network: kernels.NetworkWeights
    levels: tuple[float, ...]
    device: torch.device
    state: int
    film: int
    stem: Callable[[FrameLayout], kernels.StemWeights]


class Overview(NamedTuple):
    """What a coarse look at the whole frame needs: its size in pixels, how many of its cells there are to one of the
    working frame's (down, across), the display's row and column that stand for each of its own (None where they are the
    same), no noise, no state and nothing valid of it.
    """

    rows: int
    columns: int
    scale: tuple[float, float]
    y: Tensor | None
    x: Tensor | None
    noise: Tensor
    state: Tensor
    valid: Tensor


class Said(NamedTuple):
    """What the words of the frame before were (`told`: of its overview, or its own), 1 where there was one, which
    entries of a plane at half the working frame's size stand in the middle of their cells, and how many of these there
    are to one of the working frame's (down, across).
    """

    told: Tensor
    known: Tensor
    middles: tuple[Tensor, Tensor]
    scale: tuple[float, float]


class Work:
    """One working size of a path: its memory of the game, and the work between the copies as four callables.

    `net` predicts the edit of the frame, `compose` applies it; `carry` moves the last edit along to the frame instead,
    `late` applies that. Each is a graph's replay where there are graphs.
    """

    def __init__(self, path: Path, size: WorkingSize) -> None:
        self.path, self.size = path, size
        weights, device = path.weights, path.weights.device
        self.rows, self.columns = size.content
        h, w = self.h, self.w = kernels.grid_size(*size.content)
        self.noise = torch.zeros(1, 1, 4 * h, 4 * w, device=device)
        self.stored = torch.zeros(1, h // 2, w // 2, weights.state, dtype=torch.int8, device=device)
        self.motion2 = torch.zeros(1, 2, 4 * h, 4 * w, device=device)
        self.motion16 = torch.zeros(1, 2, h // 2, w // 2, device=device)
        self.seen2 = torch.zeros(1, 1, 4 * h, 4 * w, dtype=torch.bool, device=device)
        self.seen16 = torch.zeros(1, 1, h // 2, w // 2, device=device)
        self.since = torch.zeros(1, 2, 4 * h, 4 * w, device=device)
        self.edit = torch.zeros(1, h, w, kernels.EDIT_CHANNELS, dtype=weights.network.dtype, device=device)
        self.settled = torch.zeros(1, h, w, kernels.SETTLED, device=device)
        self.known = torch.ones(1, 1, -(-self.rows // 2), -(-self.columns // 2), device=device)
        self.k = [torch.full((1,), level, device=device) for level in weights.levels]
        self.y = self._places(self.rows, path.kind.layout.height)
        self.x = self._places(self.columns, path.kind.layout.width)
        # Half the working frame's entries, its edge repeated up to the grid's.
        self.half_y = (torch.arange(4 * h, device=device) * 2).clamp_max((self.rows - 1) // 2 * 2)
        self.half_x = (torch.arange(4 * w, device=device) * 2).clamp_max((self.columns - 1) // 2 * 2)
        # Of each cell 4x4 display pixels, for its colour as a whole.
        self.cell_y = self.half_y if self.y is None else self.y[self.half_y]
        self.cell_x = self.half_x if self.x is None else self.x[self.half_x]
        # Lines at the display's resolution, or a whole part of it; those of colours fill whole cells.
        layout = path.kind.layout
        points = self.points = kernels.line_points(layout.height, layout.width)
        drawn = points if path.kind.depth else tuple(8 * cells for cells in kernels.grid_size(*points))
        self.lines = torch.zeros(1, 2, *drawn, dtype=torch.float16, device=device)
        self.lines_shown = (float(points[0]), float(points[1]))
        self.lines_y = kernels.middles(points[0], layout.height).to(device)[:, None]
        self.lines_x = kernels.middles(points[1], layout.width).to(device)
        self.there = torch.full((1, h, w, 2), -1.0, device=device)
        self.overview = self._overview()
        self.said = self._said()
        self.net, self.compose, self.carry, self.late = self._net, self._compose, self._carry, self._late
        self._planes: dict[str, Tensor | None] = {"depth": None, "motion": None, "mask": None}

    def _overview(self) -> Overview | None:
        """What the overview of a large frame needs; None for any other."""
        weights, layout = self.path.weights, self.path.kind.layout
        size = kernels.overview_size(self.rows, self.columns, depth=self.path.kind.depth)
        if size is None:
            return None
        (rows, columns), (h, w) = size, kernels.grid_size(*size)
        dtype, device = weights.network.dtype, weights.device
        return Overview(
            rows, columns, (rows / self.rows, columns / self.columns),
            self._places(rows, layout.height), self._places(columns, layout.width),
            torch.zeros(1, 1, 4 * h, 4 * w, device=device),
            torch.zeros(1, h // 2, w // 2, weights.state, dtype=dtype, device=device),
            torch.zeros(1, h // 2, w // 2, 1, dtype=dtype, device=device),
        )  # fmt: skip

    def _said(self) -> Said | None:
        """Room for the words that the next frame is to heed; None where a small frame has depth."""
        over, device, dtype = self.overview, self.path.weights.device, self.path.weights.network.dtype
        if over is None and self.path.kind.depth:
            return None
        rows, columns, scale = (self.rows, self.columns, (1.0, 1.0)) if over is None else over[:3]
        h, w = kernels.grid_size(rows, columns)
        middles = kernels.overview_entries(h, rows, self.rows), kernels.overview_entries(w, columns, self.columns)
        told = torch.zeros(1, h, w, kernels.HEAD_CHANNELS, dtype=dtype, device=device)
        return Said(told, torch.zeros(1, device=device), (middles[0].to(device), middles[1].to(device)), scale)

    def _places(self, working: int, display: int) -> Tensor | None:
        """Which display row (or column) stands for each working one; None where they are the same."""
        if working == display:
            return None
        at = (torch.arange(working, dtype=torch.float64) + 0.5) * display / working
        return at.long().clamp_max(display - 1).to(self.path.weights.device)

    def _at(self, plane: Tensor, y: Tensor | None, x: Tensor | None) -> Tensor:
        """A raw plane [H, W, ...] upright and at these of the display's rows and columns: nearest, for a mean of depths
        is no depth."""
        if self.path.kind.layout.flipped:
            plane = plane.flip(0)
        if y is not None:
            plane = plane[y]
        return plane if x is None else plane[:, x]

    def _still(self, y: Tensor | None, x: Tensor | None) -> dict[str, Tensor]:
        """The planes that are of one frame alone, depth and mask, as `kernels.pixels` takes them."""
        path, planes = self.path, dict[str, Tensor]()
        if path.depth is not None:
            planes["depth"] = self._metres(self._at(path.depth, y, x)).contiguous()[None, None]
        if path.mask is not None:
            ids = self._at(path.mask, y, x)
            planes["mask"] = torch.stack([ids == 0, ids == 2, ids == 3]).half()[None]
        return planes

    def _place(self) -> None:
        """Bring the engine's planes into the network's conventions, and the noise field to where things are."""
        path, kind = self.path, self.path.kind
        remembered = path.remembered > 0.5
        self.seen2.copy_(remembered.expand_as(self.seen2))
        if kind.depth:  # else the memory is not read: see `SOUNDED`
            self.seen16.copy_(path.remembered.expand_as(self.seen16))
        self._planes |= self._still(self.y, self.x)
        if path.mask is not None:
            upright = path.mask.flip(0) if kind.layout.flipped else path.mask
            assert path.keep is not None
            path.keep.copy_((upright != 0)[None, None])
        if path.motion is not None:
            raw = self._at(path.motion, self.y, self.x).float()
            if kind.unwritten is not None:
                raw = torch.where((raw == kind.unwritten).all(-1, keepdim=True), torch.nan, raw)
            layout = kind.layout
            moved = torch.stack([
                raw[..., 0] * (kind.motion_scale[0] * self.columns / layout.width),
                raw[..., 1] * (kind.motion_scale[1] * self.rows / layout.height),
            ])[None]  # fmt: skip
            self._planes["motion"] = moved
            self.motion2.copy_(moved[:, :, self.half_y][:, :, :, self.half_x])
            self.motion16.copy_(self.motion2[:, :, 4::8, 4::8])
        self.noise.copy_(kernels.advect_noise(self.noise, self.motion2, self.seen2, path.seed, path.number))

    def _lines(self) -> None:
        """Where depth has shapes end and turn, or where colours part without it, as the style draws that."""
        path, layout = self.path, self.path.kind.layout
        width = path.style[:, INK_WIDTH].clone()
        if path.depth is not None:
            upright = path.depth.flip(0) if layout.flipped else path.depth
            depth = self._metres(upright[self.lines_y, self.lines_x])
            found = kernels.depth_lines(depth[None, None].contiguous())
            self.lines.copy_(kernels.trace_lines(found, width))
            return
        found = kernels.colour_lines(path.frame, layout, rows=self.points[0], columns=self.points[1])
        self.lines.copy_(kernels.trace_lines(found, width))
        covering = self.lines
        if self.points != self.size.content:
            # How much of a cell they cover is counted on the working frame.
            found = kernels.colour_lines(path.frame, layout, rows=self.rows, columns=self.columns)
            covering = kernels.trace_lines(found, width)
        self.there.copy_(kernels.line_shares(covering.float()))

    def _metres(self, depth: Tensor) -> Tensor:
        """Depth as the game sends it, in metres."""
        if self.path.kind.depth_range is None:
            return depth
        near, far = self.path.kind.depth_range
        least = 0.0 if math.isinf(far) else near / far
        return near / (depth.clamp(0, 1) * (1 - least) + max(least, 1e-7))

    def _net(self) -> None:
        path, weights = self.path, self.path.weights
        self._place()
        self._lines()
        layout, stem_weights = path.kind.layout, weights.stem(path.kind.layout)
        given: dict[str, Any] = {"rows": self.rows, "columns": self.columns, "noise": self.noise, **self._planes}
        stem = kernels.pixels(path.frame, layout, stem_weights, **given)
        state, valid = kernels.warp_state(self.stored, self.motion16, self.seen16, stem.dtype)
        over = self._look_over()
        before = None if over is not None or self.said is None else self._before(self.said)

        heard: list[Tensor] = []

        def hear(head: Tensor) -> Tensor:
            if over is not None:
                return kernels.overview(head, *over)
            if before is not None:
                head = kernels.remember(kernels.agree(head), *before)
                heard.append(head)
            return head

        marks = path.style, self.noise, self.there
        edit, stored = kernels.forward(weights.network, stem, state, valid, path.film[:1], *marks, hear=hear)
        if heard and self.said is not None:
            self._keep(self.said, heard[0])
        first = last = edit
        for step in range(1, len(weights.levels)):
            answer = self._answer(last)
            stem = kernels.pixels(path.frame, layout, stem_weights, answer=answer, k=self.k[step], **given)
            film = path.film[step : step + 1]
            further, _ = kernels.forward(weights.network, stem, state, valid, film, *marks, hear=hear)
            last = torch.lerp(last.float(), further.float(), 1 / (step + 1)).to(edit.dtype)
        # Bounds were learned of first steps. Of 33 groups of channels 6 are matrices, 24 detail, 3 anchors and pens.
        found, of_state = kernels.drift_statistics(first, 33)[0], kernels.drift_statistics(stored, 8, scale=1 / 127)[0]
        broken = (found if last is first else kernels.drift_statistics(last, 33)[0])[:, 4:].sum()
        change = ((stored.float() * (1 / 127) - state.float()) * valid.float()).square().sum()
        change = change / (valid.float().square().sum() * stored.shape[-1]).clamp_min(1.0)
        squares = [found[:6, 1].mean(), found[6:30, 1].mean(), of_state[:, 1].mean(), change, broken]
        path.health.copy_(torch.stack(squares))
        # Kept by name, so that no later capture is given its memory; only the memory's copy has to stay in place.
        self.edit = kernels.steady(
            path.frame, layout, self.cell_y, self.cell_x, last, self._carried_cells(), self.settled
        )  # fmt: skip
        self.stored.copy_(stored)
        self.since.zero_()

    def _look_over(self) -> tuple[Tensor, tuple[float, float]] | None:
        """What the network says of the whole frame on few cells, heeding what it said before, and their scale; None
        where the frame is small."""
        path, weights, over = self.path, self.path.weights, self.overview
        if over is None:
            return None
        given: dict[str, Any] = {"rows": over.rows, "columns": over.columns, "noise": over.noise}
        given |= self._still(over.y, over.x)
        stem = kernels.pixels(path.frame, path.kind.layout, weights.stem(path.kind.layout), **given)
        head, _ = kernels.look(weights.network, stem, over.state, over.valid, path.film[:1])
        assert self.said is not None
        self._keep(self.said, kernels.remember(head, *self._before(self.said)))
        return head if path.kind.depth else kernels.agree(head), over.scale

    def _before(self, said: Said) -> tuple[Tensor, Tensor]:
        """What was said before, and where it was: what `kernels.remember` takes."""
        remembered = (self.path.remembered > 0.5) & (said.known > 0.5)
        # What a frame that was not finite has left must not count, not even nothing.
        return torch.where(remembered, said.told, 0), torch.where(remembered, self._words_motion(said), torch.nan)

    def _keep(self, said: Said, head: Tensor) -> None:
        """Keep what was said for the next frame."""
        said.told.copy_(head)
        said.known.fill_(1.0)

    def _words_motion(self, said: Said) -> Tensor:
        """Cells to where the middle of each was when the words before were said: [1, 2, h, w]."""
        y, x = said.middles[0][:, None], said.middles[1]
        motion = self.motion2[0, :, y, x]
        # Edits that were reused have come in between: from where this frame's motion leads it goes on.
        at_y, at_x = ((side + moved * 0.5).round() for side, moved in ((y, motion[1]), (x, motion[0])))
        inside = (at_y >= 0) & (at_y < 4 * self.h) & (at_x >= 0) & (at_x < 4 * self.w)  # NaN is not
        at_y, at_x = (torch.where(inside, at, 0.0).long() for at in (at_y, at_x))
        moved = torch.where(inside, motion + self.since[0][:, at_y, at_x], torch.nan)
        return torch.stack([moved[0] * (said.scale[1] / 8), moved[1] * (said.scale[0] / 8)])[None]

    def _carried_cells(self) -> Tensor:
        """What is kept of cells, where they are now."""
        twice = self.motion2[:, :, 2::4, 2::4] * 2  # cells are half as wide as what `warp_state` is for
        seen = self.path.remembered.expand(1, 1, self.h, self.w).contiguous()
        moved, valid = kernels.warp_state(self.settled, twice, seen)
        moved[..., 6:] *= valid
        return moved

    def _answer(self, edit: Tensor) -> Tensor:
        """The 8-bit answer on the working frame, as cells of v: where a further step starts from."""
        path, h, w = self.path, self.h, self.w
        layout = path.kind.layout
        unit = kernels.unit_rgb(kernels.unpack_frame(path.frame, layout), layout).permute(0, 3, 1, 2)
        if unit.shape[2:] != (self.rows, self.columns):
            unit = functional.interpolate(unit, (self.rows, self.columns), mode="area")
        unit = functional.pad(unit, (0, 8 * w - self.columns, 0, 8 * h - self.rows), mode="replicate")
        image = (functional.pad(unit.permute(0, 2, 3, 1), (0, 1)) * 255 + 0.5).to(torch.uint8).reshape(1, -1)
        square = FrameLayout("rgba8", 8 * h, 8 * w, 32 * w)
        # Lines go on beyond the frame as its colours do.
        down, across = self.lines_shown[0] * 8 * h / self.rows, self.lines_shown[1] * 8 * w / self.columns
        rows, columns = self.lines.shape[2:]
        beyond = (0, max(0, math.ceil(across) - columns), 0, max(0, math.ceil(down) - rows))
        lines = functional.pad(self.lines, beyond, mode="replicate")
        answer = kernels.compose(
            image, square, edit, torch.ones_like(path.strength), lines=lines, lines_shown=(down, across)
        )
        kernels.pixelate(answer, square, path.style[:, PIXELS].clone(), side=4)
        cells = answer.view(h, 8, w, 8, 4)[..., :3].transpose(1, 2).reshape(1, h, w, 192)
        return (cells.float() * (2 / 255) - 1).to(edit.dtype)

    def _carry(self) -> None:
        """How far everything has moved since the edit was made; the memory moves along, lines are the new frame's."""
        self._place()
        self._lines()
        half = self.motion2 * 0.5
        y = (torch.arange(4 * self.h, device=half.device).view(1, -1, 1) + half[:, 1]).round()
        x = (torch.arange(4 * self.w, device=half.device).view(1, 1, -1) + half[:, 0]).round()
        inside = (y >= 0) & (y < 4 * self.h) & (x >= 0) & (x < 4 * self.w)  # NaN is not
        place = torch.where(inside, y * (4 * self.w) + x, 0.0).long().view(-1)
        before = self.since.view(2, -1)[:, place].view_as(self.since)
        self.since.copy_(torch.where(inside[:, None], self.motion2 + before, torch.nan))
        moved, valid = kernels.warp_state(self.stored, self.motion16, self.seen16, self.edit.dtype)
        self.stored.copy_(kernels.pack_state(moved * valid))
        self.settled.copy_(self._carried_cells())

    def _compose(self, late: bool = False) -> None:
        path = self.path
        more: dict[str, Any] = {"mask": path.keep, "lines": self.lines, "lines_shown": self.lines_shown}
        if late:
            height, width = self.known.shape[2:]
            more |= {"motion": self.since[:, :, :height, :width].contiguous(), "visible": self.known}
        kernels.compose(
            path.frame, path.kind.layout, self.edit, path.strength, rows=self.rows, columns=self.columns,
            out=path.answer, **more,
        )  # fmt: skip
        kernels.pixelate(path.answer, path.kind.layout, path.style[:, PIXELS] * path.strength, mask=path.keep)

    def _late(self) -> None:
        self._compose(late=True)

    def capture(self, graphs: bool) -> None:
        """Run everything once, so that it is compiled, and capture it where `graphs`."""
        for name in ("net", "compose", "carry", "late"):
            work = getattr(self, f"_{name}")
            work()
            if graphs:
                self.path.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    graph, pool=self.path.pool, stream=self.path.stream, capture_error_mode="thread_local"
                ):
                    work()
                setattr(self, name, graph.replay)


class Path:
    """All that one game's frames need on the device: buffers, a stream, and the working sizes."""

    def __init__(self, weights: SharedWeights, kind: FrameKind) -> None:
        self.weights, self.kind = weights, kind
        layout, device = kind.layout, weights.device
        self.stream = _stream() if device.type == "cuda" else None
        # The works of a path never run at the same time, so their graphs share what they need in between.
        self.pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        shape = (layout.height, layout.width)
        self.frame = torch.zeros(1, layout.size_bytes, dtype=torch.uint8, device=device)
        self.answer = torch.zeros_like(self.frame)
        self.depth = torch.zeros(shape, device=device) if kind.depth else None
        self.motion = torch.zeros(*shape, 2, dtype=torch.float16, device=device) if kind.motion else None
        self.mask = torch.zeros(shape, dtype=torch.uint8, device=device) if kind.mask else None
        self.keep = torch.ones(1, 1, *shape, dtype=torch.float16, device=device) if kind.mask else None
        # What changes from frame to frame beside pixels, each on 16 bytes of its own, in one piece of pinned memory.
        self.host_words = self.host(64)
        self.words = torch.zeros(64, dtype=torch.uint8, device=device)
        self.seed, self.number = self.words[:8].view(torch.int64), self.words[16:24].view(torch.int64)
        self.strength, self.remembered = (self.words[at : at + 4].view(torch.float32) for at in (32, 48))
        self.film = torch.zeros(len(weights.levels), weights.film, device=device)
        # Until a style is set, numbers that nothing is divided by zero with.
        self.style = torch.ones(1, kernels.STYLE_NUMBERS, device=device)
        # `drift.NAMES` of the last frame, and how many of its edit's numbers are not finite.
        self.health = torch.zeros(5, device=device)
        self.host_health = self.host(20).view(torch.float32)
        self.staging: dict[str, Tensor] = {}
        self.holding: Pinned | None = None
        """Memory that what is under way reads and writes: it stays pinned until that is over."""
        self.works: dict[int, Work] = {}
        self.busy_since_ns = 0
        """When the first of what is under way was enqueued; 0 where nothing is."""
        self.composing, self.done = _event(device), _event(device)

    def host(self, size_bytes: int) -> Tensor:
        """Zeros in memory that the device copies from and to by itself."""
        return torch.zeros(size_bytes, dtype=torch.uint8, pin_memory=self.weights.device.type == "cuda")

    def staged(self, name: str, size_bytes: int) -> Tensor:
        """Where bytes that do not stand in pinned memory are copied by way of."""
        if name not in self.staging:
            self.staging[name] = self.host(size_bytes)
        return self.staging[name]

    def synchronize(self) -> None:
        """Wait until the device is idle; while warming up alone."""
        if self.stream is not None:
            torch.cuda.synchronize()

    def mark(self, event: Any) -> None:
        """Record an event behind all that was enqueued."""
        if event is not None:
            # What is done is not busy, however long the processor took for what comes next.
            self.settled()
            event.record(self.stream)
            self.busy_since_ns = self.busy_since_ns or time.monotonic_ns()

    def settled(self) -> bool:
        """Whether all that was enqueued has happened. Raises `RuntimeError` where the device is lost."""
        if self.busy_since_ns and (self.done is None or self.done.query()):
            self.busy_since_ns = 0
        return not self.busy_since_ns


def _stream() -> Any:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _event(device: torch.device) -> Any:
    """An event that tells the time; None where there are none."""
    return torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


class Pinned:
    """A shared mapping that the driver knows, as one tensor; let go of with the last reference."""

    def __init__(self, mapping: mmap.mmap, register: bool) -> None:
        self.bytes = torch.from_numpy(np.frombuffer(mapping, np.uint8))
        self.mapping = mapping
        self.address, self.size = self.bytes.data_ptr(), self.bytes.numel()
        if register:
            status = int(_cudart().cudaHostRegister(self.address, self.size, 0))
            if status:
                # The failure stays behind as the thread's last error, and the next launch would report it as its own.
                with contextlib.suppress(RuntimeError):
                    torch.zeros(1, device="cuda").add_(1)
                raise OSError(f"cudaHostRegister says {status}")
            # The tensor among the arguments keeps the memory mapped until then.
            weakref.finalize(self, _unregister, self.address, self.bytes).atexit = False

    def part(self, array: NDArray[Any], size_bytes: int) -> Tensor | None:
        """`size_bytes` from where `array` begins, or None where that is not in this mapping."""
        start = array.__array_interface__["data"][0] - self.address
        return self.bytes[start : start + size_bytes] if 0 <= start <= self.size - size_bytes else None


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _unregister(address: int, _: Tensor) -> None:
    _cudart().cudaHostUnregister(address)


def mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    """The mapping that an array looks into, if it does."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None


def rows_of(host: Tensor, pitch_bytes: int, like: NDArray[Any]) -> NDArray[Any]:
    """Staged bytes as an array of the shape and type of `like`, its rows `pitch_bytes` apart."""
    if like.ndim == 1:
        return host.numpy()[: like.nbytes].view(like.dtype)
    packed = np.empty((1, *like.shape[1:]), like.dtype).strides
    return np.ndarray(like.shape, like.dtype, host.numpy(), 0, (pitch_bytes, *packed[1:]))

"""The straight line of one frame: receive, preprocess, condition, denoise, compose, publish.

A `Stream` is one game's side of it: its canvas, its pace, its style. Timing stands beside the line
(`profiler.staged`), decisions above it (`pacing`); prompts, pauses and resizes act between frames.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mirage_bridge import DepthConvention, FrameJob, HostSession, Offer
from mirage_plugin import pacing
from mirage_plugin.engine import GRIDS, Canvas, Engine, FramePlanes
from mirage_plugin.profiler import Recorder, staged
from mirage_plugin.style_input import resolve_style

__all__ = ["Served", "Stream", "rungs_for"]

_ORDERS = {"RGBA8": (0, 1, 2), "BGRA8": (2, 1, 0), "RGB8": (0, 1, 2)}
_TO_SRGB = np.array(
    [
        round(255 * (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055))
        for c in np.arange(256) / 255
    ],
    np.uint8,
)
_TO_LINEAR = np.array(
    [
        round(255 * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4))
        for c in np.arange(256) / 255
    ],
    np.uint8,
)


@dataclass(frozen=True)
class Served:
    """What was published for a frame."""

    kind: str
    service_ns: int


def rungs_for(engine: Engine, size: tuple[int, int]) -> tuple[pacing.Rung, ...]:
    """The engine's ladder for a game of (width, height): each grid that really is smaller than the one before."""
    width, height = size
    rungs: list[pacing.Rung] = []
    for grid, (rows, columns) in enumerate(GRIDS):
        # A frame smaller than a grid still costs the whole grid; one that fits the next is not worth this one.
        following = GRIDS[grid + 1] if grid + 1 < len(GRIDS) else None
        if following and following[0] * 8 >= height and following[1] * 8 >= width:
            continue
        rungs.append(pacing.Rung((columns * 8, rows * 8), engine.steps, engine.cost_ns(grid)))
    return tuple(rungs)


class Stream:
    """One game being redrawn."""

    def __init__(self, engine: Engine, session: HostSession, recorder: Recorder, default_style: str) -> None:
        """Begin with the style the game asked for, or the sidecar's default."""
        self.engine, self.session, self.recorder = engine, session, recorder
        self._default_style = default_style
        self.begin(session.offer)

    def begin(self, offer: Offer) -> None:
        """Begin anew for frames of another size or format."""
        width, height = offer.size
        self.offer = offer
        self.rungs = rungs_for(self.engine, offer.size)
        self.pace = pacing.start(
            self.rungs,
            offer.budget_ns,
            offer.delivery,
            self.engine.reuse_ns,
            self.engine.compose_ns,
            time.monotonic_ns(),
        )
        self.canvas: Canvas = self.engine.open(height, width, self.session.seed & 0x7FFFFFFF, self._grid(0))
        self._epoch = -1
        self._order = np.array(_ORDERS.get(offer.pixel_format, (0, 1, 2)))
        self.recorder.describe(
            self.session.id, size=f"{width}x{height}", budget_ns=offer.budget_ns, delivery=offer.delivery
        )

    def _grid(self, level: int) -> int:
        columns, rows = self.rungs[level].size
        return GRIDS.index((rows // 8, columns // 8))

    def serve(self, job: FrameJob, others: list[pacing.Pace]) -> Served:
        """Answer one frame, in time."""
        began_ns = time.monotonic_ns()
        frame = pacing.FrameTimes(job.published_ns, job.deadline_ns, job.skipped, job.camera_cut)
        local = self.session.local  # only then is the game's clock this one
        row = self.recorder.begin(
            self.session.id, job.frame_id, job.published_ns, job.deadline_ns,
            input_ns=job.input_ns if local else 0, captured_ns=job.captured_ns if local else 0,
            skipped=job.skipped, camera_cut=job.camera_cut,
        )  # fmt: skip
        try:
            return self._serve(job, frame, others, row, began_ns)
        except BaseException:
            self.recorder.finish(row, "dropped", reason="an error in the frame path")
            raise

    def _serve(
        self, job: FrameJob, frame: pacing.FrameTimes, others: list[pacing.Pace], row: int, began_ns: int
    ) -> Served:
        decision = pacing.decide(self.pace, began_ns, frame, others)
        self.recorder.decided(decision)
        kind, reason, rescued, composed_ns = "source", decision.reason, False, 0
        if decision.action != "source":
            pixels, planes = self._upload(job)
            edited, why = self._edit(job, pixels, planes, decision)
            reason = why or reason
            rescued = edited and time.monotonic_ns() > decision.compose_by_ns
            if edited and not rescued:
                compose_ns = time.monotonic_ns()
                self._compose(job, pixels, planes, decision)
                composed_ns = time.monotonic_ns() - compose_ns
                kind = "styled" if decision.action == "net" else "reprojected"
        if kind == "source":
            self._publish_source(job, "no time to compose" if rescued else reason)
        finished_ns = time.monotonic_ns()
        self.recorder.finish(row, kind, finished_ns, rescued=rescued, reason=reason or None)
        self.pace = pacing.observe(
            self.pace, decision, frame, began_ns, finished_ns, rescued=rescued, compose_ns=composed_ns
        )
        return Served(kind, finished_ns - began_ns)

    def _edit(
        self, job: FrameJob, pixels: NDArray[np.uint8], planes: FramePlanes, decision: pacing.Decision
    ) -> tuple[bool, str]:
        """Bring the edit up to this frame: by the net, or by carrying the last one along."""
        canvas = self.canvas
        if decision.action == "net":
            grid = self._grid(decision.rung)
            if canvas.fit.grid != grid:
                canvas.fit_to(grid)
        self._preprocess(pixels, planes, job.camera_cut)
        self._condition(job)
        if decision.action == "reuse":
            return self.engine.reuse(canvas), ""
        if self._denoise(decision.steps):
            return True, ""
        return False, "the net's answer was not finite"

    @staged("upload")
    def _upload(self, job: FrameJob) -> tuple[NDArray[np.uint8], FramePlanes]:
        """The job's planes as plain arrays in the model's conventions; no copy where they already are."""
        return _pixels(job, self.offer), _planes(job, self.offer)

    @staged("preprocess")
    def _preprocess(self, pixels: NDArray[np.uint8], planes: FramePlanes, cut: bool) -> None:
        self.engine.read(self.canvas, pixels, self._order, planes, cut)

    @staged("condition")
    def _condition(self, job: FrameJob) -> None:
        if self._epoch != job.style_epoch or self.canvas.film is None:
            self.engine.set_style(self.canvas, resolve_style(job.style or self._default_style))
            self._epoch = job.style_epoch

    @staged("denoise")
    def _denoise(self, steps: int) -> bool:
        if not self.engine.denoise(self.canvas):
            return False
        if steps > 1:
            self.engine.refine(self.canvas)
        return True

    @staged("compose")
    def _compose(
        self, job: FrameJob, pixels: NDArray[np.uint8], planes: FramePlanes, decision: pacing.Decision
    ) -> None:
        draft = self.session.begin_answer(job)
        out = np.asarray(draft.pixels)
        strength = float(np.clip(job.strength, 0.0, 1.0)) * decision.mix
        if self.offer.pixel_format in _ORDERS and self.offer.color_space == "srgb":
            target = out[::-1] if self.offer.orientation == "bottom_up" else out
            self.engine.compose(self.canvas, pixels, target, self._order, planes.mask, strength)
        else:
            drawn = np.empty_like(pixels)
            self.engine.compose(self.canvas, pixels, drawn, self._order, planes.mask, strength)
            _write_back(drawn, out, self.offer)
        self._publish(job, draft, decision)

    @staged("publish")
    def _publish(self, job: FrameJob, draft: Any, decision: pacing.Decision) -> None:
        kind = "styled" if decision.action == "net" else "reprojected"
        self.session.publish(
            draft, kind, decision.reason[:48], edit_age_frames=decision.edit_age_frames,
            working_size=(self.canvas.fit.content[1], self.canvas.fit.content[0]),
        )  # fmt: skip

    @staged("publish")
    def _publish_source(self, job: FrameJob, reason: str) -> None:
        self.session.publish_source(job, reason[:48])


def _pixels(job: FrameJob, offer: Offer) -> NDArray[np.uint8]:
    """The frame as uint8 [H, W, C], top row first, sRGB."""
    pixels: NDArray[Any] = np.asarray(job.pixels)
    if offer.pixel_format == "RGB10A2":
        packed = pixels.reshape(pixels.shape[:2])
        pixels = np.stack([(packed >> shift & 0x3FF) >> 2 for shift in (0, 10, 20)], -1).astype(np.uint8)
    elif offer.pixel_format == "RGBA16F":
        # NaN and infinities become black and white: nothing an engine writes may be undefined here.
        bounded = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
        pixels = (bounded * 255 + 0.5).astype(np.uint8)
    if offer.color_space == "linear":
        pixels = cv2.LUT(np.ascontiguousarray(pixels), _TO_SRGB).reshape(pixels.shape).astype(np.uint8)
    return pixels[::-1] if offer.orientation == "bottom_up" else pixels


def _write_back(drawn: NDArray[np.uint8], out: NDArray[Any], offer: Offer) -> None:
    """Bring an answer from uint8 sRGB, top row first, to the game's format."""
    if offer.orientation == "bottom_up":
        drawn = drawn[::-1]
    if offer.color_space == "linear":
        drawn = cv2.LUT(np.ascontiguousarray(drawn), _TO_LINEAR).reshape(drawn.shape).astype(np.uint8)
    if offer.pixel_format == "RGB10A2":
        wide = (drawn.astype(np.uint32) * 1023 + 127) // 255
        packed = wide[..., 0] | wide[..., 1] << 10 | wide[..., 2] << 20 | np.uint32(3 << 30)
        out.reshape(out.shape[:2])[...] = packed
    elif offer.pixel_format == "RGBA16F":
        out[..., : drawn.shape[2]] = drawn * np.float32(1 / 255)
    else:
        out[...] = drawn


def _planes(job: FrameJob, offer: Offer) -> FramePlanes:
    """The engine's planes in the model's conventions: metres, pixels to the previous position, top row first."""
    flip = offer.orientation == "bottom_up"
    depth, motion, mask = job.depth, job.motion, job.mask
    depth_array = motion_array = mask_array = None
    if depth is not None:
        raw = np.asarray(depth)
        depth_array = _metres(raw[::-1] if flip else raw, offer.depth)
    if motion is not None:
        raw = np.asarray(motion)
        motion_array = _to_previous(raw[::-1] if flip else raw, offer)
    if mask is not None:
        raw = np.asarray(mask)
        mask_array = raw[::-1] if flip else raw
    return FramePlanes(depth_array, motion_array, mask_array)


def _metres(depth: NDArray[Any], convention: DepthConvention) -> NDArray[Any]:
    if convention.kind == "linear_metres":
        return depth
    # Reversed z: 1 at the near plane, 0 at the far one, which may be infinitely far.
    near, far = convention.near_m, convention.far_m
    least = 0.0 if math.isinf(far) else near / far
    metres: NDArray[Any] = np.float32(near) / (
        np.clip(depth, 0.0, 1.0) * np.float32(1 - least) + np.float32(max(least, 1e-7))
    )
    return metres


def _to_previous(motion: NDArray[Any], offer: Offer) -> NDArray[Any]:
    """Pixels to the previous position, x right and y down, NaN where not written."""
    convention = offer.motion
    plain = convention.unit == "pixels" and convention.direction == "to_previous"
    if plain and math.isnan(convention.not_written) and offer.orientation == "top_down":
        return motion
    wide = motion.astype(np.float32)
    if not math.isnan(convention.not_written):
        wide[(wide == np.float32(convention.not_written)).all(-1)] = np.nan
    sign = 1.0 if convention.direction == "to_previous" else -1.0
    scale = np.array(offer.size if convention.unit == "uv" else (1, 1), np.float32) * np.float32(sign)
    if offer.orientation == "bottom_up":
        scale = scale * np.array([1, -1], np.float32)
    moved: NDArray[Any] = wide * scale
    return moved

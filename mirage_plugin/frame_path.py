"""The straight line of one frame: receive, preprocess, condition, denoise, compose, publish.

A `Stream` is one game's side of it: its canvas, its pace, its style. Timing stands beside the line
(`profiler.staged`), decisions above it (`pacing`); prompts, pauses and resizes act between frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mirage_bridge import AnswerDraft, DepthConvention, FrameJob, HostSession, Offer
from mirage_plugin import pacing
from mirage_plugin.errors import DeviceError
from mirage_plugin.frames import FrameEngine, FrameKind, FramePlanes
from mirage_plugin.plane_watch import PlaneWatch
from mirage_plugin.profiler import Recorder, staged
from mirage_plugin.styles.parameters import Style

if TYPE_CHECKING:
    from mirage_plugin.cuda_engine import CudaCanvas
    from mirage_plugin.engine import Canvas

__all__ = ["Served", "Stream", "rungs_for"]

_ORDERS = {"RGBA8": (0, 1, 2), "BGRA8": (2, 1, 0), "RGB8": (0, 1, 2)}
HELD_FRAMES = 2
"""So many frames in a row the last answer is shown again."""


def _srgb_of(levels: int) -> NDArray[np.uint8]:
    """The sRGB byte of each of so many evenly spaced values of linear light."""
    c = np.linspace(0, 1, levels)
    return np.asarray((np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055) * 255).round(), np.uint8)


# Linear light has few of its levels where it is dark: what comes with more than eight bits is not cut to eight before.
_SRGB_OF_8, _SRGB_OF_10, _SRGB_OF_12 = _srgb_of(1 << 8), _srgb_of(1 << 10), _srgb_of(1 << 12)
_LINEAR = np.array(
    [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.arange(256) / 255], np.float32
)
_LINEAR_8, _LINEAR_10 = (_LINEAR * 255).round().astype(np.uint8), (_LINEAR * 1023).round().astype(np.uint32)


@dataclass(frozen=True)
class Served:
    """What was published for a frame."""

    kind: str
    service_ns: int


@dataclass(frozen=True)
class LastAnswer:
    """The answer that a game saw last: where it lies, of which frame, and in how many frames it was shown."""

    pixels: NDArray[Any]
    published_ns: int
    epoch: int
    edit_age_frames: int
    shown: int = 1


def rungs_for(engine: FrameEngine, size: tuple[int, int], *, depth: bool) -> tuple[pacing.Rung, ...]:
    """The engine's ladder for a game of (width, height), with depth or not: each grid that really is smaller
    than the one before."""
    width, height = size
    rungs: list[pacing.Rung] = []
    for grid, (rows, columns) in enumerate(engine.grids):
        # A frame smaller than a grid still costs the whole grid; one that fits the next is not worth this one.
        following = engine.grids[grid + 1] if grid + 1 < len(engine.grids) else None
        if following and following[0] * 8 >= height and following[1] * 8 >= width:
            continue
        rungs.append(pacing.Rung((columns * 8, rows * 8), engine.steps, engine.cost_ns(grid, depth=depth)))
    return tuple(rungs)


class Stream:
    """One game being redrawn."""

    def __init__(
        self, engine: FrameEngine, session: HostSession, recorder: Recorder,
        resolve: Callable[[str | Mapping[str, Any]], dict[int, Style]], default_style: str,
        note: Callable[[str], None] = lambda sentence: None,
    ) -> None:  # fmt: skip
        """Begin with the style the game asked for, or `default_style`; `resolve` is `resolve_styles`, or as it. `note`
        is told what the game's author should know."""
        self.engine, self.session, self.recorder = engine, session, recorder
        self._resolve, self._default_style, self._note = resolve, default_style, note
        self._planes = PlaneWatch(session.offer)
        self._ahead: tuple[FrameJob, NDArray[Any], FramePlanes] | None = None
        self._unfinished: tuple[AnswerDraft, Canvas | CudaCanvas] | None = None
        self.begin(session.offer)

    def begin(self, offer: Offer) -> None:
        """Begin anew for frames of another size or format."""
        self.offer = offer
        self.rungs = rungs_for(self.engine, offer.size, depth="depth" in offer.planes)
        self.pace = pacing.start(
            self.rungs,
            offer.budget_ns,
            offer.delivery,
            self.engine.reuse_ns,
            self.engine.compose_ns,
            time.monotonic_ns(),
            behind=not self.engine.raw,
        )
        self.canvas: Canvas | CudaCanvas = self.engine.open(
            _kind(offer), self.session.seed & 0x7FFFFFFF, self._grid(0)
        )
        self._last: LastAnswer | None = None
        self._read: list[tuple[Canvas | CudaCanvas, bool]] = []
        """What was read of the present frame, and whether its edit and memory were moved along already."""
        self._regions: dict[int, Canvas | CudaCanvas] = {}
        self._shown: list[tuple[Canvas | CudaCanvas, NDArray[np.bool_]]] = []
        self._scratch: NDArray[Any] = np.empty(0)
        self._epoch = -1
        self._order = np.array(_ORDERS.get(offer.pixel_format, (0, 1, 2)))
        self.recorder.describe(
            self.session.id, size=f"{offer.size[0]}x{offer.size[1]}", budget_ns=offer.budget_ns, delivery=offer.delivery
        )

    def _grid(self, level: int) -> int:
        columns, rows = self.rungs[level].size
        return self.engine.grids.index((rows // 8, columns // 8))

    def succeed(self, engine: FrameEngine) -> None:
        """Go on with another engine; the memory begins anew."""
        self.engine = engine
        self.begin(self.offer)

    def reset(self) -> None:
        """Forget what was on the screen: the next frame is a first one."""
        self._last = None
        for canvas in (self.canvas, *self._regions.values()):
            canvas.reset()

    def learn_style(self) -> None:
        """Work out what the network is told of the style that the game asked for last, before a frame waits for it."""
        for style in self._resolve(self.session.style or self._default_style).values():
            self.engine.learn_style(style)

    def prefetch(self, job: FrameJob) -> None:
        """Start a frame on its way to the device while other games' frames are worked on."""
        if self.engine.raw:
            with contextlib.suppress(DeviceError):  # whatever it is, `serve` meets it again
                self._ahead = (job, *self._upload(job))

    def serve(self, job: FrameJob, others: list[pacing.Pace]) -> Served:
        """Answer one frame, in time."""
        began_ns = time.monotonic_ns()
        new_style = self._epoch not in (-1, job.style_epoch)
        frame = pacing.FrameTimes(job.published_ns, job.deadline_ns, job.skipped, job.camera_cut, new_style)
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
        self._read = []
        resets, corrections = self.canvas.resets, self.canvas.corrections
        if self._unfinished is not None:
            draft, writer = self._unfinished
            if self.engine.settled(writer):
                draft.cancel()
                self._unfinished = None
        try:
            if decision.action != "source":
                kind, why, rescued, composed_ns = self._restyle(job, decision)
                reason = why or reason
        except DeviceError:
            self.reset()
            reason = "the device is lost" if self.engine.lost else "the device is late"
            # Of a device that is gone nothing can be learned; one that is late was too slow.
            rescued = not self.engine.lost
            decision = decision if rescued else dataclasses.replace(decision, action="source")
        held = False
        if kind == "source":
            if decision.behind and not self._read:
                self._read_for_later(job)
            held = (rescued or decision.action == "source") and decision.hold and self._publish_again(job, reason)
            if held:
                kind = "reprojected"
            else:
                self._publish_source(job, reason)
        finished_ns = time.monotonic_ns()
        canvas = self.canvas
        drift = (canvas.watch.drift_state, canvas.watch.drift_output) if kind == "styled" else (0.0, 0.0)
        self.recorder.finish(
            row, kind, finished_ns, rescued=rescued, reseeded=canvas.resets != resets, reason=reason or None,
            drift_state=drift[0], drift_output=drift[1], corrected=canvas.corrections != corrections,
        )  # fmt: skip
        behind_ns = self._follow() if decision.behind and not self.engine.lost else 0
        self.pace = pacing.observe(
            self.pace, decision, frame, began_ns, finished_ns, rescued=rescued, compose_ns=composed_ns, held=held,
            behind_ns=behind_ns,
        )  # fmt: skip
        return Served(kind, finished_ns - began_ns)

    def _read_for_later(self, job: FrameJob) -> None:
        """Read a frame that the source answers, for an edit behind it."""
        pixels, planes = self._upload(job)
        self._condition(job)
        grid = self._grid(len(self.rungs) - 1)
        for canvas in (self.canvas, *self._regions.values()):
            if canvas.fit.grid != grid:
                canvas.fit_to(grid)
            self._preprocess(canvas, pixels, planes, job.camera_cut)

    def _follow(self) -> int:
        """Let the net make edits of what was read of the frame that was answered; returns how long that took, 0 where
        the main one came to nothing."""
        began_ns = time.monotonic_ns()
        made = [self.engine.denoise_behind(canvas, reused=moved) for canvas, moved in self._read]
        return time.monotonic_ns() - began_ns if made and made[0] else 0

    def _restyle(self, job: FrameJob, decision: pacing.Decision) -> tuple[str, str, bool, int]:
        """Answer by the net or the last edit: (kind, reason, whether there was no time left, composing's time)."""
        ahead, self._ahead = self._ahead, None
        pixels, planes = ahead[1:] if ahead is not None and ahead[0] is job else self._upload(job)
        edited, why = self._edit(job, pixels, planes, decision)
        if not edited:
            return "source", why, False, 0
        compose_ns = time.monotonic_ns()
        if compose_ns > decision.compose_by_ns:
            return "source", "no time to compose", True, 0
        took_ns = self._compose(job, pixels, planes, decision)
        kind = "styled" if decision.action == "net" else "reprojected"
        return kind, why, False, took_ns or time.monotonic_ns() - compose_ns

    def _edit(
        self, job: FrameJob, pixels: NDArray[np.uint8], planes: FramePlanes, decision: pacing.Decision
    ) -> tuple[bool, str]:
        """Bring the edit up to this frame: by the net, or by carrying the last one along."""
        self._condition(job)
        self._shown = []
        if not self._edit_on(self.canvas, job, pixels, planes, decision):
            return False, "the net's answer was not finite" if decision.action == "net" else ""
        for number, canvas in self._regions.items():
            where = planes.mask == number if planes.mask is not None else None
            if where is None or not where.any():
                # What comes back into the picture begins anew: its memory lies where it was.
                canvas.reset()
                canvas.frame = self.canvas.frame
                continue
            if self.engine.raw:
                self.engine.upload(canvas, pixels, planes)
            if self._edit_on(canvas, job, pixels, planes, decision):
                self._shown.append((canvas, where))
        return True, ""

    def _edit_on(
        self, canvas: Canvas | CudaCanvas, job: FrameJob, pixels: NDArray[np.uint8], planes: FramePlanes,
        decision: pacing.Decision,
    ) -> bool:  # fmt: skip
        """Bring one canvas' edit up to this frame. False where there is none."""
        if decision.action == "net":
            grid = self._grid(decision.rung)
            if canvas.fit.grid != grid:
                canvas.fit_to(grid)
        self._preprocess(canvas, pixels, planes, job.camera_cut)
        if decision.action == "reuse":
            moved = self.engine.reuse(canvas)
            self._read[-1] = (canvas, moved)
            return moved
        return self._denoise(canvas, decision.steps)

    @staged("upload")
    def _upload(self, job: FrameJob) -> tuple[NDArray[np.uint8], FramePlanes]:
        """The job's planes as plain arrays in the engine's conventions; no copy where they already are."""
        if not self.engine.raw:
            pixels, planes = _pixels(job, self.offer), _planes(job, self.offer)
            self._look(planes, pixels, job)
            # A plane that nobody wrote would have everything at one distance, and without lines.
            return pixels, planes if self._planes.shaped else dataclasses.replace(planes, depth=None)
        pixels, planes = np.asarray(job.pixels), FramePlanes(*(_plain(p) for p in (job.depth, job.motion, job.mask)))
        self.engine.upload(self.canvas, pixels, planes)
        self._look(planes, None, job)
        return pixels, planes

    def _look(self, planes: FramePlanes, pixels: NDArray[np.uint8] | None, job: FrameJob) -> None:
        for sentence in self._planes.look(planes, pixels, job.frame_id, job.camera_cut):
            self._note(sentence)

    @staged("preprocess")
    def _preprocess(
        self, canvas: Canvas | CudaCanvas, pixels: NDArray[np.uint8], planes: FramePlanes, cut: bool
    ) -> None:
        self.engine.read(canvas, pixels, self._order, planes, cut)
        self._read.append((canvas, False))

    @staged("condition")
    def _condition(self, job: FrameJob) -> None:
        if self._epoch == job.style_epoch and self.canvas.film is not None:
            return
        styles = self._resolve(job.style or self._default_style)
        seed = job.seed & 0x7FFFFFFF
        for canvas in (self.canvas, *self._regions.values()):
            if canvas.seed != seed:
                canvas.seed = seed
                canvas.reset()
        self.engine.set_style(self.canvas, styles.pop(0))
        regions: dict[int, Canvas | CudaCanvas] = {}
        for number, style in styles.items():
            canvas = self._regions.get(number) or self.engine.open(
                _kind(self.offer), self.canvas.seed, self.canvas.fit.grid
            )
            try:
                self.engine.set_style(canvas, style)
            except DeviceError:
                if self.engine.lost:
                    raise
                continue  # the device has no room for another: the region is painted as all else is
            regions[number] = canvas
        self._regions, self._epoch = regions, job.style_epoch

    @staged("denoise")
    def _denoise(self, canvas: Canvas | CudaCanvas, steps: int) -> bool:
        if not self.engine.denoise(canvas):
            return False
        if steps > 1:
            self.engine.refine(canvas)
        return True

    @staged("compose")
    def _compose(
        self, job: FrameJob, pixels: NDArray[np.uint8], planes: FramePlanes, decision: pacing.Decision
    ) -> int:
        """Draw the answer into its slot and publish it; returns what the engine says that composing took."""
        draft = self.session.begin_answer(job)
        out = np.asarray(draft.pixels)
        strength = float(np.clip(job.strength, 0.0, 1.0)) * decision.mix
        until_ns = decision.compose_by_ns + self.pace.compose_ns
        try:
            took_ns = self._draw(job, pixels, planes, out, strength, until_ns)
        except DeviceError:
            # The device may still write into the slot: it is given back when that is over.
            self._unfinished = draft, self.canvas
            raise
        except BaseException:
            draft.cancel()  # else its slot would be gone for good
            raise
        self._publish(job, draft, decision)
        if self.session.local:
            # The ring's writer leaves its newest answer alone until there is a newer one.
            self._last = LastAnswer(out, job.published_ns, job.style_epoch, decision.edit_age_frames)
        return took_ns

    def _draw(
        self, job: FrameJob, pixels: NDArray[Any], planes: FramePlanes, out: NDArray[Any], strength: float,
        until_ns: int,
    ) -> int:  # fmt: skip
        if self.engine.raw:
            return self._paint(pixels, planes, out, strength, until_ns)
        if self.offer.pixel_format in _ORDERS and self.offer.color_space == "srgb":
            target = out[::-1] if self.offer.orientation == "bottom_up" else out
            return self._paint(pixels, planes, target, strength, until_ns)
        drawn = np.empty_like(pixels)
        took_ns = self._paint(pixels, planes, drawn, strength, until_ns)
        _write_back(drawn, out, self.offer)
        _keep(np.asarray(job.pixels), out, self.offer, planes.mask if strength else np.zeros((1, 1), np.uint8))
        return took_ns

    def _paint(
        self, pixels: NDArray[Any], planes: FramePlanes, out: NDArray[Any], strength: float, until_ns: int
    ) -> int:
        """Apply the edit of the frame, and over it those of the regions that are in it."""
        self.engine.compose(self.canvas, pixels, out, self._order, planes.mask, strength)
        took_ns = self.engine.wait(self.canvas, until_ns)
        for canvas, where in self._shown:
            if self._scratch.shape != out.shape or self._scratch.dtype != out.dtype:
                self._scratch = np.empty(out.shape, out.dtype)
            self.engine.compose(canvas, pixels, self._scratch, self._order, planes.mask, strength)
            took_ns += self.engine.wait(canvas, until_ns)
            np.copyto(out, self._scratch, where=where.reshape(where.shape + (1,) * (out.ndim - 2)))
        # An engine that returns when it is done tells no time of its own: the caller's clock is then the measure.
        return took_ns

    @staged("publish")
    def _publish(self, job: FrameJob, draft: Any, decision: pacing.Decision) -> None:
        kind = "styled" if decision.action == "net" else "reprojected"
        self.session.publish(
            draft, kind, decision.reason[:48], edit_age_frames=decision.edit_age_frames,
            working_size=(self.canvas.fit.content[1], self.canvas.fit.content[0]),
        )  # fmt: skip

    @staged("publish")
    def _publish_again(self, job: FrameJob, reason: str) -> bool:
        """Publish the last answer again, where there was no time for another: a frame of the game's own between styled
        ones is a flash, and one that is shown twice is hardly seen. False where that would be no such frame."""
        last = self._last
        if last is None or job.camera_cut or last.epoch != job.style_epoch or last.shown > HELD_FRAMES:
            return False
        if job.published_ns - last.published_ns > 2 * last.shown * max(self.pace.period_ns, self.offer.budget_ns):
            return False
        draft = self.session.begin_answer(job)
        try:
            np.copyto(np.asarray(draft.pixels), last.pixels)
        except BaseException:
            draft.cancel()
            raise
        self.session.publish(
            draft, "reprojected", f"{reason}: shown again"[:48], edit_age_frames=last.edit_age_frames + last.shown,
            working_size=(self.canvas.fit.content[1], self.canvas.fit.content[0]),
        )  # fmt: skip
        self._last = dataclasses.replace(last, shown=last.shown + 1)
        return True

    @staged("publish")
    def _publish_source(self, job: FrameJob, reason: str) -> None:
        self.session.publish_source(job, reason[:48])


def _plain(plane: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if plane is None else np.asarray(plane)


def _kind(offer: Offer) -> FrameKind:
    """What a game's frames are, from its offer."""
    width, height = offer.size
    depth, motion = offer.depth, offer.motion
    sign = 1.0 if motion.direction == "to_previous" else -1.0
    scale = [sign * size for size in (offer.size if motion.unit == "uv" else (1, 1))]
    flipped = offer.orientation == "bottom_up"
    # Rows that do not begin on a pixel's boundary are packed on their way.
    boundary = {"RGB8": 1, "RGBA16F": 8}.get(offer.pixel_format, 4)
    pitch_bytes = 0 if offer.row_pitch_bytes % boundary else offer.row_pitch_bytes
    return FrameKind(
        offer.pixel_format, height, width, pitch_bytes, flipped, offer.color_space == "linear",
        depth="depth" in offer.planes, motion="motion" in offer.planes, mask="mask" in offer.planes,
        depth_range=None if depth.kind == "linear_metres" else (depth.near_m, depth.far_m),
        motion_scale=(scale[0], -scale[1] if flipped else scale[1]),
        unwritten=None if math.isnan(motion.not_written) else motion.not_written,
    )  # fmt: skip


def _pixels(job: FrameJob, offer: Offer) -> NDArray[np.uint8]:
    """The frame as uint8 [H, W, C], top row first, sRGB."""
    pixels: NDArray[Any] = np.asarray(job.pixels)
    linear = offer.color_space == "linear"
    if offer.pixel_format == "RGB10A2":
        packed = pixels.reshape(pixels.shape[:2])
        pixels = np.stack([packed >> shift & 0x3FF for shift in (0, 10, 20)], -1)
        pixels = _SRGB_OF_10[pixels] if linear else (pixels >> 2).astype(np.uint8)
    elif offer.pixel_format == "RGBA16F":
        # NaN and infinities become black and white: nothing an engine writes may be undefined here.
        bounded = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
        steps = (bounded * (4095 if linear else 255) + 0.5).astype(np.uint16)
        pixels = _SRGB_OF_12[steps] if linear else steps.astype(np.uint8)
    elif linear:
        pixels = cv2.LUT(np.ascontiguousarray(pixels), _SRGB_OF_8).reshape(pixels.shape).astype(np.uint8)
    return pixels[::-1] if offer.orientation == "bottom_up" else pixels


def _write_back(drawn: NDArray[np.uint8], out: NDArray[Any], offer: Offer) -> None:
    """Bring an answer from uint8 sRGB, top row first, to the game's format."""
    if offer.orientation == "bottom_up":
        drawn = drawn[::-1]
    linear = offer.color_space == "linear"
    if offer.pixel_format == "RGB10A2":
        wide = _LINEAR_10[drawn] if linear else (drawn.astype(np.uint32) * 1023 + 127) // 255
        packed = wide[..., 0] | wide[..., 1] << 10 | wide[..., 2] << 20 | np.uint32(3 << 30)
        out.reshape(out.shape[:2])[...] = packed
    elif offer.pixel_format == "RGBA16F":
        out[..., : drawn.shape[2]] = _LINEAR[drawn] if linear else drawn * np.float32(1 / 255)
    elif linear:
        out[...] = cv2.LUT(np.ascontiguousarray(drawn), _LINEAR_8).reshape(drawn.shape)
    else:
        out[...] = drawn


def _keep(source: NDArray[Any], out: NDArray[Any], offer: Offer, mask: NDArray[np.uint8] | None) -> None:
    """What is the game's own as the game wrote it, to the bit: alpha, and what `mask`, top row first, has as 0."""
    if offer.pixel_format == "RGB10A2":
        out[...] = out & np.uint32(0x3FFFFFFF) | source & np.uint32(3 << 30)
    elif out.shape[2] == 4:
        out[..., 3] = source[..., 3]
    if mask is not None:
        kept = mask[::-1] == 0 if offer.orientation == "bottom_up" else mask == 0
        np.copyto(out, source, where=kept.reshape(kept.shape + (1,) * (out.ndim - 2)))


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

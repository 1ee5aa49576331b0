"""`mirage restyle`: redraw recorded frames or a video, as if it were being played.

The same closed loop as in a game: one step a frame, and what is remembered is carried along the motion. A recording
has no motion vectors, so they are estimated; where that fails, nothing is remembered.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from mirage_kernels.lines import line_points, spread_lines
from mirage_kernels.pixelate import block_side
from mirage_plugin.config import MAX_SIDE_PX
from mirage_plugin.errors import ConfigError, DataError, DeviceError, MissingDependencyError, OutputError
from mirage_plugin.files import check_writable, whole_file, write_json
from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.network import (
    CELL,
    MirageNet,
    Overview,
    Planes,
    compose,
    frame_lines,
    pixelate,
    planes_to_cells,
    style_number,
)
from mirage_plugin.model.noise import advect_noise, fresh_noise
from mirage_plugin.model.reference import rgb_of
from mirage_plugin.model.sampling import look_over, remembering, sample, steady_answer
from mirage_plugin.model.steady import SETTLED
from mirage_plugin.motion import believed
from mirage_plugin.style_input import PICTURES, read_style
from mirage_plugin.styles.parameters import Style
from mirage_plugin.train.evaluation import load_judged

__all__ = ["Redrawer", "estimate_motion", "restyle"]

VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
NOT_WRITTEN = (".gif", ".wmv", ".flv", ".mpg", ".mpeg", ".ogv", ".ts", ".tif", ".tiff", ".apng", ".heic", ".avif")
"""What people know as a picture or a video, and a folder of that name is not what they want."""
_JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
SAVED_WITH: dict[str, dict[str, Any]] = {".jpg": _JPEG, ".jpeg": _JPEG, ".webp": {"quality": 95}}
"""At PIL's own settings ink lines are smeared."""
WITH_ALPHA = (".png", ".webp")
TICK = Fraction(1, 90_000)
"""In which a video's times are written."""
BT709 = 1
MAX_PIXELS = 1 << 26
"""Largest frame that is redrawn: 8192x8192, about 5 GB of memory."""
WORKING_PIXELS = 1280 * 736
"""The network works on at most so many pixels; the edit of a larger frame is applied at its full size."""
FLOW_SIDE = 320
MULTIPLE = 32

Pixels = NDArray[np.uint8]


def estimate_motion(now: Pixels, before: Pixels) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Estimate where each pixel was, and whether that can be believed.

    `now`, `before` uint8 [H, W, 3] of one size. Returns motion float32 [H, W, 2], pixels from here to where
    it was, and bool [H, W]: the way there and back agree, and it was inside the frame. Dense inverse search
    (Kroeger et al. 2016) at no more than 320 pixels a side; frames below 16 pixels a side are taken as
    still. As `MotionEstimator`, it believes no motion that leads to what looks otherwise.
    """
    height, width = now.shape[:2]
    if min(height, width) < 16:
        return np.zeros((height, width, 2), np.float32), np.ones((height, width), np.bool_)
    scale = min(1.0, FLOW_SIDE / max(height, width))
    small = (max(16, round(width * scale)), max(16, round(height * scale)))
    grey = [
        cv2.cvtColor(cv2.resize(x, small, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        for x in (now, before)
    ]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    back = search.calc(grey[0], grey[1], np.zeros((*grey[0].shape, 2), np.float32))
    forth = search.calc(grey[1], grey[0], np.zeros((*grey[0].shape, 2), np.float32))
    rows, columns = np.indices(grey[0].shape, dtype=np.float32)
    x, y = columns + back[..., 0], rows + back[..., 1]
    returned = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    off = np.linalg.norm(back + returned, axis=2)
    inside = (x > -0.5) & (y > -0.5) & (x < small[0] - 0.5) & (y < small[1] - 0.5)
    returns = inside & (off < 0.75 + 0.05 * np.linalg.norm(back, axis=2))
    grey_now, grey_before = (x.astype(np.uint8, copy=False) for x in grey)
    holds = returns & believed(grey_now, grey_before, back.astype(np.float32, copy=False))
    motion = cv2.resize(back, (width, height), interpolation=cv2.INTER_LINEAR)
    motion *= np.array([width / small[0], height / small[1]], np.float32)
    seen = cv2.resize(holds.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return motion.astype(np.float32), seen > 0


@dataclass
class Redrawer:
    """Redraws frame after frame of one recording in one style; the memory is kept between calls.

    `strength` 0 to 1; `seed` fixes the noise. A frame of another size, or a cut, begins anew.
    """

    net: MirageNet
    style: Style
    strength: float = 1.0
    seed: int = 0
    cuts: int = 0
    """How often the memory was emptied because the picture had changed as a whole."""
    _frame: int = field(default=0, init=False)
    _before: Pixels | None = field(default=None, init=False)
    _settled: Tensor | None = field(default=None, init=False)
    _noise: Tensor | None = field(default=None, init=False)
    _overview: Overview | None = field(default=None, init=False)

    def forget(self) -> None:
        """The next picture is a first one, whatever came before it."""
        self._frame, self._before = 0, None

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> Pixels:
        """Redraw one frame, uint8 [H, W, 3] RGB of any size."""
        height, width = pixels.shape[:2]
        device = next(self.net.parameters()).device
        divisor = max(1, math.ceil(math.sqrt(height * width / WORKING_PIXELS)))
        step = MULTIPLE * divisor
        v = torch.from_numpy(np.array(pixels)).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
        full = functional.pad(v, (0, -width % step, 0, -height % step), mode="replicate")
        working = full if divisor == 1 else functional.avg_pool2d(full, divisor)
        h, w = working.shape[-2:]
        motion, visible = self._motion(pixels, (h, w), divisor, device)

        key, when = (torch.tensor([n], device=device) for n in (self.seed, self._frame))
        fresh = fresh_noise(key, when, h // 2, w // 2)
        if visible is None or motion is None or self._noise is None:
            came = motion = torch.zeros(1, 2, h, w, device=device)
            self._noise, self._overview = fresh, None
            self._settled = torch.zeros(1, h // CELL, w // CELL, SETTLED, device=device)
        else:
            self._noise = advect_noise(self._noise, motion[..., ::2, ::2], visible[..., ::2, ::2] > 0, fresh)
            came = motion.masked_fill(visible < 0.5, torch.nan)
        # No frame comes with depth, so the memory is not read (`SOUNDED`).
        state = self.net.tier.state
        nothing = (torch.zeros(1, h // 16, w // 16, channels, device=device) for channels in (state, 1))
        memory = MemoryState(*nothing)
        trust = torch.ones(1, device=device)
        code = self.net.style(torch.from_numpy(self.style.vector()).to(device)[None])
        cells = planes_to_cells(Planes(), 1, h // 8, w // 8, working)
        lines = frame_lines(working, None, None, code)
        overview = look_over(self.net, working, Planes(motion=came), code, self._overview)
        given = (working, self._noise, cells, memory, code, trust, lines)
        _, edit, _, words = sample(self.net, *given, overview=overview)
        self._overview = remembering(overview, words)
        assert self._settled is not None
        answer, edit, self._settled = steady_answer(working, edit, code, lines, self._settled, motion)
        if divisor > 1:
            points = functional.interpolate(full, line_points(*full.shape[-2:]), mode="area")
            lines = spread_lines(frame_lines(points, None, None, code), *full.shape[-2:])
            answer = compose(full, edit, lines)
            answer = pixelate(answer, style_number(code, "pixels"), block_side(height)).clamp(-1, 1)
        self._before, self._frame = pixels, self._frame + 1
        mixed = torch.lerp(full, answer, self.strength)[0, :, :height, :width]
        out: Pixels = ((mixed + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        return out

    def _motion(
        self, pixels: Pixels, size: tuple[int, int], divisor: int, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        """Motion [1, 2, h, w] in working pixels and where it holds [1, 1, h, w]; None where this frame
        begins anew.
        """
        if self._before is None:
            return None, None
        if self._before.shape != pixels.shape:
            return None, None
        found, seen = estimate_motion(pixels, self._before)
        if seen.mean() < 0.35:
            self.cuts += 1
            return None, None
        height, width = (side * divisor for side in size)
        pad = (0, width - pixels.shape[1], 0, height - pixels.shape[0])
        motion = functional.pad(torch.from_numpy(found).permute(2, 0, 1)[None], pad, mode="replicate")
        visible = functional.pad(torch.from_numpy(seen)[None, None].float(), pad, mode="replicate")
        if divisor > 1:
            motion, visible = (
                functional.avg_pool2d(motion, divisor) / divisor,
                functional.avg_pool2d(visible, divisor),
            )
        return motion.to(device), visible.to(device)


class Frame(NamedTuple):
    """A frame of a recording: a name for its file, uint8 [H, W, 3] RGB, how opaque it is, uint8 [H, W], where it is not
    everywhere, and the second at which it is shown, where it says so.
    """

    name: str
    pixels: Pixels
    alpha: Pixels | None = None
    second: Fraction | None = None


def read_picture(path: Path) -> tuple[Pixels, Pixels | None]:
    """Read a picture as uint8 [H, W, 3] RGB, upright, and its alpha, uint8 [H, W]; None where all of it is opaque.

    Raises `DataError` for what is not a picture, is cut short, or is larger than `MAX_PIXELS`.
    """
    try:
        with Image.open(path) as picture:
            _check_size(path, *picture.size)
            upright = ImageOps.exif_transpose(picture)
            if not upright.has_transparency_data:
                return rgb_of(upright), None
            whole = upright.convert("RGBA")
            alpha = np.array(whole.getchannel("A"))
            return rgb_of(whole.convert("RGB")), alpha if alpha.min(initial=255) < 255 else None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large to be read: {error}") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{path} cannot be read as a picture ({error}): restore it, or take it out"
        ) from error


def _check_size(path: Path, width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise DataError(
            f"{path} has {width}x{height} pixels; at most {MAX_SIDE_PX} a side and "
            f"{MAX_PIXELS / 1e6:.0f} million in all can be redrawn: scale it down first"
        )


@dataclass(frozen=True)
class Recording:
    """What is to be redrawn: its frames, how many (None: unknown), their rate, the file that has its sound, and the
    width of a pixel in parts of its height.
    """

    frames: Iterator[Frame]
    count: int | None
    rate: Fraction
    sound_of: Path | None = None
    pixel_shape: Fraction = Fraction(1)


def open_recording(path: Path, rate: Fraction = Fraction(30)) -> Recording:
    """Open a folder of pictures, which were taken at `rate`, a picture, or a video. Raises `DataError` for what is none
    of these."""
    if path.is_dir():
        # Not what a Mac leaves beside them on other disks (._frame.png).
        pictures = (p for p in path.iterdir() if p.suffix.lower() in PICTURES and p.name[0] != "." and p.is_file())
        files = sorted(pictures, key=_by_number)
        if not files:
            raise DataError(f"{path} holds no pictures ({', '.join(sorted(PICTURES))})")
        twice = [name for name, count in Counter(p.stem for p in files).items() if count > 1]
        if twice:
            raise DataError(f"{path} has {twice[0]!r} with more than one suffix: one answer would replace another")
        return Recording((Frame(p.stem, *read_picture(p)) for p in files), len(files), rate)
    if path.suffix.lower() in PICTURES:
        return Recording(iter([Frame(path.stem, *read_picture(path))]), 1, rate)
    av = _av()
    try:
        container: Any = av.open(str(path.absolute()))  # a colon in a relative name would be a protocol
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be opened as a video ({error})") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{path} has no picture in it, only {len(container.streams)} other streams")
    stream = container.streams.video[0]
    _check_size(path, stream.width, stream.height)

    def decoded() -> Iterator[Frame]:
        with container:
            try:
                for i, frame in enumerate(container.decode(stream)):
                    turns = round(getattr(frame, "rotation", 0) / 90)
                    # What does not say is taken as players take it.
                    silent = frame.colorspace not in (1, 4, 5, 6, 7, 9) and frame.height >= 720
                    rgb = frame.to_ndarray(format="rgb24", **({"src_colorspace": "itu709"} if silent else {}))
                    second = None if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
                    yield Frame(f"{i:05d}", np.rot90(rgb, turns), None, second)
            except (av.FFmpegError, ValueError) as error:
                raise DataError(f"{path} cannot be decoded to its end ({error})") from error

    shape = Fraction(stream.sample_aspect_ratio or 1)
    return Recording(decoded(), stream.frames or None, Fraction(stream.average_rate or 30), path, shape)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """As people count: frame2 comes before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _av() -> Any:
    try:
        import av  # a folder of pictures needs no codec
    except ImportError as error:
        raise MissingDependencyError("av") from error
    return av


class _Sound:
    """The sound of a video, brought to another as it is, or encoded anew where that kind of file might not hold it."""

    def __init__(self, source: Path, target: Any) -> None:
        """Open the first sound of `source`, where it has one, and give `target`, a container, a stream for it."""
        self.lost = ""
        """Why it is missing or ends early; empty where it does not."""
        self._target = target
        self._source: Any = None
        self._stream: Any = None
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        av = _av()
        try:
            self._source = av.open(str(source.absolute()))
            if not self._source.streams.audio:
                return
            sound = self._source.streams.audio[0]
            # What a kind of file can hold is refused as late as its header, and then the picture goes too.
            kind, codec = target.format.name, sound.codec_context.name
            if kind == "matroska" or codec in ({"opus", "libopus"} if kind == "webm" else {"aac"}):
                self._stream = target.add_stream_from_template(sound)
                self._packets = self._source.demux(sound)
            else:
                new, rate = ("libopus", 48000) if kind == "webm" else ("aac", sound.rate)
                self._stream = target.add_stream(new, rate=rate)
                self._packets = self._encoded(self._source.decode(sound))
        except (av.FFmpegError, OSError, ValueError) as error:
            self.lost = str(error)

    def _encoded(self, frames: Iterator[Any]) -> Iterator[Any]:
        samples = 0
        for frame in frames:
            # Counted anew: some files tell times that go back.
            frame.pts, frame.time_base = samples, Fraction(1, frame.sample_rate)
            samples += frame.samples
            yield from self._stream.encode(frame)
        yield from self._stream.encode()

    def up_to(self, second: float) -> None:
        """Write what sounds before a second."""
        if self._stream is None or self.lost:
            return
        try:
            while True:
                packet = self._next or next(self._packets, None)
                self._next = None
                if packet is None:
                    return
                if packet.dts is None:
                    continue  # the end of what is read, not a piece of it
                if packet.dts * packet.time_base > second:
                    self._next = packet
                    return
                packet.stream = self._stream
                self._target.mux(packet)
        except (_av().FFmpegError, ValueError) as error:
            self.lost = str(error)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()


@contextmanager
def frame_writer(
    out: Path, rate: Fraction, sound_of: Path | None = None, note: Callable[[str], None] = print,
    pixel_shape: Fraction = Fraction(1),
) -> Iterator[Callable[[Frame], None]]:  # fmt: skip
    """What takes a frame and writes it: one picture, PNGs into a folder, or a video; each file whole or not.

    In a video frames stand at their own seconds, those that have none at `rate`. It gets the sound of the video
    `sound_of`; `note` is told where that could not be had to its end, and where alpha is lost.
    """
    clear: list[str] = []

    def opaque(frame: Frame) -> None:
        if frame.alpha is not None and not clear:
            clear.append(frame.name)
            note(f"{frame.name} is transparent in places, which {out.suffix} does not keep")

    if out.suffix.lower() not in VIDEOS:
        single = out.suffix.lower() in PICTURES
        if not single:
            out.mkdir(parents=True, exist_ok=True)

        def write_picture(frame: Frame) -> None:
            path, pixels = out if single else out / f"{frame.name}.png", frame.pixels
            if frame.alpha is not None and path.suffix.lower() in WITH_ALPHA:
                pixels = np.dstack([pixels, frame.alpha])
            else:
                opaque(frame)
            with whole_file(path) as part:
                Image.fromarray(np.ascontiguousarray(pixels)).save(part, **SAVED_WITH.get(path.suffix.lower(), {}))

        yield write_picture
        return
    av = _av()
    container: Any = None
    codec = "libvpx-vp9" if out.suffix.lower() == ".webm" else "libx264"
    stream: Any = None
    sound: _Sound | None = None
    # An AVI has no times, only a rate.
    size, ticks, tick = (0, 0), -1, 1 / rate if out.suffix.lower() == ".avi" else TICK

    def write_frame(frame: Frame) -> None:
        nonlocal stream, sound, size, ticks
        pixels = frame.pixels
        opaque(frame)
        if stream is None:
            # Chroma is stored at half the size: a video's sides are even.
            size = (pixels.shape[1] + pixels.shape[1] % 2, pixels.shape[0] + pixels.shape[0] % 2)
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.options = {"crf": "16"}
            context = stream.codec_context
            context.time_base, context.sample_aspect_ratio = tick, pixel_shape
            # What does not say which colours it has is guessed by players, by its size.
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = 1
            sound = _Sound(sound_of, container) if sound_of else None
        if pixels.shape[1::-1] != size:
            pad = (size[1] - pixels.shape[0], size[0] - pixels.shape[1])
            if not all(0 <= side <= 1 for side in pad):
                differs = f"{pixels.shape[1]}x{pixels.shape[0]} pixels, the first of the video {size[0]}x{size[1]}"
                raise DataError(f"frame {frame.name} has {differs}: write a folder")
            pixels = np.pad(pixels, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
        whole = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        encoded = whole.reformat(format="yuv420p", dst_colorspace="itu709")
        step = 1 / (rate * tick)
        due = ticks + step if ticks >= 0 else 0
        if frame.second is not None and tick == TICK:
            due = frame.second / tick
        # Times go on, whatever a file says.
        ticks = max(ticks + 1, round(due))
        encoded.pts, encoded.time_base = ticks, tick
        for packet in stream.encode(encoded):
            container.mux(packet)
        if sound:
            sound.up_to(float((ticks + step) * tick))

    with whole_file(out) as part:
        container = av.open(str(part), "w")
        try:
            yield write_frame
            if stream is None:
                raise DataError("there is no frame to make a video of")
            for packet in stream.encode():
                container.mux(packet)
            if sound and sound.lost:
                note(f"the sound of {sound_of} is missing or ends early ({sound.lost})")
        finally:
            if sound:
                sound.close()
            container.close()


def _choose_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError.no_cuda()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def restyle(
    *,
    frames: Path,
    style: str,
    out: Path,
    strength: float = 1.0,
    tier: str = "auto",
    device: str = "auto",
    seed: int = 0,
    json: Path | None = None,
    weights: Path | None = None,
    stills: bool = False,
    fps: float | None = None,
) -> None:
    """Redraw a folder of pictures or a video into a folder or a video, with a progress bar.

    With `stills` each frame is a picture of its own, and nothing of one is seen in another. `fps` is what a folder's
    pictures were taken at, 30 where it is left out, for a video of them.
    `style` is as `read_style` reads it; `out` with a video's suffix becomes a video, with the source's sound where it
    has one, else a folder of PNGs with the names of the source's. `json` gets `{"frames", "size", "seconds", "fps",
    "cuts", "tier", "device", "style"}`. Raises `ConfigError`, `DataError`, `DeviceError`, `OutputError` or
    `WeightsError`.
    """
    if not (math.isfinite(strength) and 0 <= strength <= 1):
        raise ConfigError(f"strength must be from 0, untouched, to 1, not {strength}")
    check_writable(json)
    if out.suffix.lower() in NOT_WRITTEN and not out.is_dir():
        kinds = f"a folder, a picture ({', '.join(sorted(PICTURES))}) or a video ({', '.join(VIDEOS)})"
        raise ConfigError(f"--out {out}: {out.suffix.upper()[1:]} is not written; give {kinds}")
    if fps is not None and not (frames.is_dir() and out.suffix.lower() in VIDEOS):
        raise ConfigError("--fps is for a folder of pictures that becomes a video: leave it out")
    if fps is not None and not (math.isfinite(fps) and 0 < fps <= 1000):
        raise ConfigError(f"--fps must be above 0, and at most 1000, not {fps}")
    chosen = read_style(style)
    to_folder = out.suffix.lower() not in {*VIDEOS, *PICTURES}
    beside = out / f"{frames.stem}.png" if frames.is_file() and to_folder else out
    if frames.resolve() in (out.resolve(), beside.resolve()):
        raise ConfigError(f"--out would replace the source itself ({frames}): choose another place")
    recording = open_recording(frames, Fraction(fps or 30).limit_denominator(1001))
    if out.suffix.lower() in PICTURES and (recording.count != 1 or frames.is_dir()):
        raise ConfigError(f"--out {out} is one picture: several frames need a folder or a video ({', '.join(VIDEOS)})")
    where = _choose_device(device)
    if where.type == "cpu":
        torch.set_num_threads(1)
    redraw = Redrawer(load_judged(tier, weights).to(where), chosen, strength, seed)
    console = Console(markup=False, emoji=False, soft_wrap=True)
    begun, count, size = time.monotonic(), 0, (0, 0)

    def note(words: str) -> None:
        console.print(f"note: {words}")

    try:
        writing = frame_writer(out, recording.rate, recording.sound_of, note, recording.pixel_shape)
        with Progress() as progress, writing as write:
            task = progress.add_task(f"redrawing in {escape(chosen.name)}", total=recording.count)
            for frame in recording.frames:
                if stills:
                    redraw.forget()
                write(frame._replace(pixels=redraw(frame.pixels)))
                count, size = count + 1, (frame.pixels.shape[1], frame.pixels.shape[0])
                progress.advance(task)
    except OSError as error:
        raise OutputError.at(out, error) from error
    if recording.count is not None and count < recording.count:
        note(f"{frames} says that it has {recording.count} frames, and {count} could be read")
    seconds = time.monotonic() - begun
    if count == 0:
        raise DataError(f"{frames} has no frames")
    console.print(
        f"{count} frames of {size[0]}x{size[1]} in {chosen.name}, {seconds:.1f} s "
        f"({count / seconds:.1f} a second): {out}"
    )
    if json is not None:
        report = {
            "frames": count,
            "size": list(size),
            "seconds": round(seconds, 3),
            "fps": round(count / seconds, 3),
            "cuts": redraw.cuts,
            "tier": redraw.net.tier.name,
            "device": where.type,
            "style": chosen.name,
        }
        write_json(json, report)

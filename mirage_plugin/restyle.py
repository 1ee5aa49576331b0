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
from typing import Any

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
from mirage_plugin.files import whole_file, write_json
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
from mirage_plugin.style_input import PICTURES, read_style
from mirage_plugin.styles.parameters import Style
from mirage_plugin.train.evaluation import load_judged

__all__ = ["Redrawer", "estimate_motion", "restyle"]

VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
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
    still.
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
    believed = inside & (off < 0.75 + 0.05 * np.linalg.norm(back, axis=2))
    motion = cv2.resize(back, (width, height), interpolation=cv2.INTER_LINEAR)
    motion *= np.array([width / small[0], height / small[1]], np.float32)
    seen = cv2.resize(believed.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
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


def read_picture(path: Path) -> Pixels:
    """Read a picture as uint8 [H, W, 3] RGB, upright.

    Raises `DataError` for what is not a picture, is cut short, or is larger than `MAX_PIXELS`.
    """
    try:
        with Image.open(path) as picture:
            _check_size(path, *picture.size)
            return rgb_of(ImageOps.exif_transpose(picture))
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
    """What is to be redrawn: its frames, each with a name for its file, how many (None: unknown), their rate, and the
    file that has its sound.
    """

    frames: Iterator[tuple[str, Pixels]]
    count: int | None
    rate: Fraction
    sound_of: Path | None = None


def open_recording(path: Path) -> Recording:
    """Open a folder of pictures, a picture, or a video. Raises `DataError` for what is none of these."""
    if path.is_dir():
        files = sorted((p for p in path.iterdir() if p.suffix.lower() in PICTURES), key=_by_number)
        if not files:
            raise DataError(f"{path} holds no pictures ({', '.join(sorted(PICTURES))})")
        twice = [name for name, count in Counter(p.stem for p in files).items() if count > 1]
        if twice:
            raise DataError(f"{path} has {twice[0]!r} with more than one suffix: one answer would replace another")
        return Recording(((p.stem, read_picture(p)) for p in files), len(files), Fraction(30))
    if path.suffix.lower() in PICTURES:
        return Recording(iter([(path.stem, read_picture(path))]), 1, Fraction(30))
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

    def decoded() -> Iterator[tuple[str, Pixels]]:
        with container:
            try:
                for i, frame in enumerate(container.decode(stream)):
                    turns = round(getattr(frame, "rotation", 0) / 90)
                    yield f"{i:05d}", np.rot90(frame.to_ndarray(format="rgb24"), turns)
            except (av.FFmpegError, ValueError) as error:
                raise DataError(f"{path} cannot be decoded to its end ({error})") from error

    return Recording(decoded(), stream.frames or None, Fraction(stream.average_rate or 30), path)


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
    out: Path, rate: Fraction, sound_of: Path | None = None, note: Callable[[str], None] = print
) -> Iterator[Callable[[str, Pixels], None]]:
    """What takes (name, frame) and writes it: one picture, PNGs into a folder, or a video; each file whole or not.

    A video gets the sound of the video `sound_of`; `note` is told where it could not be had to its end.
    """
    if out.suffix.lower() not in VIDEOS:
        single = out.suffix.lower() in PICTURES
        if not single:
            out.mkdir(parents=True, exist_ok=True)

        def write_picture(name: str, pixels: Pixels) -> None:
            with whole_file(out if single else out / f"{name}.png") as part:
                Image.fromarray(np.ascontiguousarray(pixels)).save(part)

        yield write_picture
        return
    av = _av()
    container: Any = None
    codec = "libvpx-vp9" if out.suffix.lower() == ".webm" else "libx264"
    stream: Any = None
    sound: _Sound | None = None
    size, count = (0, 0), 0

    def write_frame(name: str, pixels: Pixels) -> None:
        nonlocal stream, sound, size, count
        if stream is None:
            # Chroma is stored at half the size: a video's sides are even.
            size = (pixels.shape[1] + pixels.shape[1] % 2, pixels.shape[0] + pixels.shape[0] % 2)
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.options = {"crf": "16"}
            sound = _Sound(sound_of, container) if sound_of else None
        if pixels.shape[1::-1] != size:
            pad = (size[1] - pixels.shape[0], size[0] - pixels.shape[1])
            if not all(0 <= side <= 1 for side in pad):
                differs = f"{pixels.shape[1]}x{pixels.shape[0]} pixels, the first of the video {size[0]}x{size[1]}"
                raise DataError(f"frame {name} has {differs}: write a folder")
            pixels = np.pad(pixels, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        for packet in stream.encode(frame):
            container.mux(packet)
        count += 1
        if sound:
            sound.up_to(float(count / rate))

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
) -> None:
    """Redraw a folder of pictures or a video into a folder or a video, with a progress bar.

    `style` is as `read_style` reads it; `out` with a video's suffix becomes a video, with the source's sound where it
    has one, else a folder of PNGs with the names of the source's. `json` gets `{"frames", "size", "seconds", "fps",
    "cuts", "tier", "device", "style"}`. Raises `ConfigError`, `DataError`, `DeviceError`, `OutputError` or
    `WeightsError`.
    """
    if not (math.isfinite(strength) and 0 <= strength <= 1):
        raise ConfigError(f"strength must be from 0, untouched, to 1, not {strength}")
    chosen = read_style(style)
    to_folder = out.suffix.lower() not in {*VIDEOS, *PICTURES}
    beside = out / f"{frames.stem}.png" if frames.is_file() and to_folder else out
    if frames.resolve() in (out.resolve(), beside.resolve()):
        raise ConfigError(f"--out would replace the source itself ({frames}): choose another place")
    recording = open_recording(frames)
    if out.suffix.lower() in PICTURES and (recording.count != 1 or frames.is_dir()):
        raise ConfigError(f"--out {out} is one picture: several frames need a folder or a video ({', '.join(VIDEOS)})")
    if out.suffix.lower() == ".gif":
        raise ConfigError(f"--out {out}: GIF is not written; give a folder or a video ({', '.join(VIDEOS)})")
    where = _choose_device(device)
    if where.type == "cpu":
        torch.set_num_threads(1)
    redraw = Redrawer(load_judged(tier, weights).to(where), chosen, strength, seed)
    console = Console(markup=False, emoji=False, soft_wrap=True)
    begun, count, size = time.monotonic(), 0, (0, 0)

    def note(words: str) -> None:
        console.print(f"note: {words}")

    try:
        with Progress() as progress, frame_writer(out, recording.rate, recording.sound_of, note) as write:
            task = progress.add_task(f"redrawing in {escape(chosen.name)}", total=recording.count)
            for name, pixels in recording.frames:
                write(name, redraw(pixels))
                count, size = count + 1, (pixels.shape[1], pixels.shape[0])
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

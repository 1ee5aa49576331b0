"""Pictures and films of what was shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pygame
from numpy.typing import NDArray

__all__ = ["Dump", "Recorder", "as_surface", "open_recorder"]


class Recorder:
    """Writes every shown frame: an mp4 where PyAV is importable, else PNGs; `where` says where."""

    def __init__(self, path: Path, size: tuple[int, int], rate: int) -> None:
        self.frames = 0
        self._container: Any = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self.where = path
        try:
            import av
        except ImportError:
            self.where = path.with_suffix("")
            self.where.mkdir(parents=True, exist_ok=True)
            return
        # The encoder wants even sizes: an odd last row or column is left out.
        self._even = (size[0] // 2 * 2, size[1] // 2 * 2)
        self._frame_of = av.VideoFrame.from_ndarray
        self._container = av.open(str(path), "w")
        stream: Any = self._container.add_stream("libx264", rate=rate)
        stream.width, stream.height = self._even
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        # BT.709: what does not say which colours it has is guessed by players, by its size.
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        # Two milliseconds of a core a frame of 640x360, for twice the bytes; "veryfast" takes eight, of the game's time
        # or of that of what redraws it.
        stream.options = {"preset": "ultrafast", "crf": "18"}
        self._stream = stream

    def add(self, surface: pygame.Surface) -> None:
        """Write one frame."""
        if self._container is None:
            pygame.image.save(surface, self.where / f"frame_{self.frames:05d}.png")
        else:
            rgb = pygame.surfarray.pixels3d(surface).transpose(1, 0, 2)[: self._even[1], : self._even[0]]
            whole = self._frame_of(np.ascontiguousarray(rgb), format="rgb24")
            frame = whole.reformat(format="yuv420p", dst_colorspace="itu709")
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        if self._container is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
            self._container = None


def open_recorder(path: Path, size: tuple[int, int], rate: int) -> tuple[Recorder, str]:
    """A recorder, and a sentence for the player that says where the film goes."""
    recorder = Recorder(path, size, rate)
    if recorder.where == path:
        return recorder, f"Recording {path}"
    return recorder, f"Recording PNGs in {recorder.where} (for mp4: pip install av)"


class Dump:
    """Pairs of what was drawn and what was shown, as PNG, with `index.json` beside them.

    `source_00042.png` and `answer_00042.png` belong to frame 42; an entry of the index has `frame`, `style`,
    `kind`, `reason`, `source` and `answer`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.entries: list[dict[str, Any]] = []

    def add(
        self, frame: int, style: str, kind: str, reason: str, source: pygame.Surface, answer: pygame.Surface
    ) -> None:
        """Write one pair."""
        names = {"source": f"source_{frame:05d}.png", "answer": f"answer_{frame:05d}.png"}
        pygame.image.save(source, self.folder / names["source"])
        pygame.image.save(answer, self.folder / names["answer"])
        self.entries.append({"frame": frame, "style": style, "kind": kind, "reason": reason, **names})

    def close(self) -> None:
        """Write the index."""
        (self.folder / "index.json").write_text(json.dumps(self.entries, indent=1))


def as_surface(pixels: NDArray[np.uint8]) -> pygame.Surface:
    """A surface that looks at uint8 [H, W, 4] where it lies, its alpha left aside; rows without gaps."""
    height, width = pixels.shape[:2]
    return pygame.image.frombuffer(np.asarray(pixels).data.cast("B"), (width, height), "RGBX")

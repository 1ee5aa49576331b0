"""Whether the planes that a game names are what it says, by its first frames.

A plane that was forgotten, or written in another unit or direction than declared, is no error that anybody sees, only a
picture that is wrong or unchanged. Whoever ties a game to Mirage is told.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from mirage_bridge import Offer
from mirage_plugin.frames import FramePlanes

__all__ = ["WATCHED_FRAMES", "PlaneWatch"]

WATCHED_FRAMES = 300
"""So many frames of a game are looked at."""
LEAST_CHANGE = 4.0
"""In frames where pixels change by less, of 255, nothing tells one motion from another."""
LEAST_FRAMES = 10
"""So many frames must change by more before anything is said of motion."""
_LINES, _POINTS = 180, 45
"""Pictures are kept with about so many rows, and motion is looked at in a fourth of them."""


class PlaneWatch:
    """Looks at the first frames of one game."""

    def __init__(self, offer: Offer) -> None:
        self._offer, self._left = offer, WATCHED_FRAMES
        self._masked, self._far = False, False
        self.shaped = False
        """Whether any frame's depth was not the same everywhere: until then it says nothing that a game means."""
        self._before: NDArray[np.int16] | None = None
        self._last_id = -1
        # Where a pixel came from, were its motion declared otherwise: (scale of x, of y) of what was declared.
        width, height = offer.size
        other = (width, height) if offer.motion.unit == "pixels" else (1 / width, 1 / height)
        # The likeliest mistakes first: where nothing tells two apart, it is the first of them.
        signs = ((1, 1), (-1, -1), (1, -1), (-1, 1))
        self._ways = [(x * sx, y * sy) for (sx, sy), (x, y) in itertools.product(((1, 1), other), signs)]
        self._off, self._changed, self._moving = np.zeros(len(self._ways)), 0.0, 0
        self._alive, self._unwritten, self._zero = 0, 0, 0
        """Frames that changed, and in how many of them motion was not written, or said that nothing moved."""

    def look(
        self, planes: FramePlanes, pixels: NDArray[np.uint8] | None, frame_id: int, cut: bool = False
    ) -> list[str]:
        """Look at a frame's planes, here and there; after the last of the first, what their author should know.

        `pixels` uint8 [H, W, C], where planes and they are in the model's conventions, else None. `frame_id` counts the
        frames that the game sent; `cut` where this one does not follow the one before.
        """
        if planes.depth is not None and not (self.shaped and (self._far or not self._left)):
            some = planes.depth[::4, ::4]
            some = some[np.isfinite(some)]
            self.shaped = self.shaped or (some.size > 0 and bool((some != some[0]).any()))
            self._far = self._far or bool((some > 1).any())
        if not self._left:
            return []
        self._left -= 1
        if planes.mask is not None:
            self._masked = self._masked or bool(planes.mask[::4, ::4].any())
        # Two frames of five: it costs part of a millisecond.
        if planes.motion is not None and pixels is not None and self._left % 5 < 2:
            self._follow(planes.motion, pixels, frame_id == self._last_id + 1 and not cut)
            self._last_id = frame_id
        if self._left:
            return []
        self._before = None
        return [f"in its first {WATCHED_FRAMES} frames {sentence}" for sentence in self._found(planes)]

    def _follow(self, motion: NDArray[np.floating], pixels: NDArray[np.uint8], follows: bool) -> None:
        """How far each way of reading the motion leads to what looks like the pixel it begins at."""
        step = max(1, round(pixels.shape[0] / _LINES))
        now, before = pixels[::step, ::step, 1].astype(np.int16), self._before
        self._before = now
        if not follows or before is None or before.shape != now.shape:
            return
        few = max(1, round(now.shape[0] / _POINTS))
        sent = motion[:: step * few, :: step * few].astype(np.float32)
        written = np.isfinite(sent).all(-1)
        rows, columns = np.nonzero(written)
        if float(np.abs(now[::few, ::few] - before[::few, ::few]).mean()) >= LEAST_CHANGE:
            self._alive += 1
            self._unwritten += rows.size < written.size / 20
            self._zero += rows.size > 0 and not sent[written].any()
        if rows.size < written.size / 2:
            return
        sent, rows, columns = sent[written].clip(-1e4, 1e4) / step, rows * few, columns * few
        here = now[rows, columns]
        changed = float(np.abs(here - before[rows, columns]).mean())
        if changed < LEAST_CHANGE:
            return
        self._moving += 1
        self._changed += changed
        for way, (x, y) in enumerate(self._ways):
            row = np.rint(rows + sent[:, 1] * y).clip(0, now.shape[0] - 1).astype(np.intp)
            column = np.rint(columns + sent[:, 0] * x).clip(0, now.shape[1] - 1).astype(np.intp)
            self._off[way] += float(np.abs(here - before[row, column]).mean())

    def _found(self, planes: FramePlanes) -> list[str]:
        found, or_leave = [], "or leave it out of the session's planes"
        if planes.mask is not None and not (self._masked or planes.mask.any()):
            found.append(f"its mask was 0, so all stayed as the game drew it: write 1 where the world is, {or_leave}")
        if planes.depth is not None and not self.shaped:
            found.append(f"its depth was the same everywhere, which tells of no shapes: write it, {or_leave}")
        elif planes.depth is not None and not self._far and self._offer.depth.kind == "linear_metres":
            found.append(
                "its depth was nowhere more than 1 m: name the convention of a depth buffer, write metres, " + or_leave
            )
        if self._alive >= LEAST_FRAMES and self._unwritten == self._alive:
            found.append(f"its motion was not written, and the picture moved: write it everywhere, {or_leave}")
        if self._alive >= LEAST_FRAMES and self._zero == self._alive:
            found.append(f"its motion was 0 everywhere, and the picture moved: write it, {or_leave}")
        best = int((self._off <= 1.03 * self._off.min()).argmax())
        # As sent it is no better than no motion at all, and read in another way it is much better.
        if (
            self._moving >= LEAST_FRAMES and self._off[0] > 0.9 * self._changed
            and self._off[best] < 0.7 * min(self._changed, self._off[0])
        ):  # fmt: skip
            found.append(f"its motion led nowhere, read {self._name(best)} it leads to the frame before: declare it so")
        return found

    def _name(self, way: int) -> str:
        """A way of reading motion in words."""
        x, y = self._ways[way]
        convention = self._offer.motion
        said = []
        if way >= len(self._ways) // 2:
            said.append("as uv" if convention.unit == "pixels" else "as pixels")
        if x < 0:
            said.append("as to_current" if convention.direction == "to_previous" else "as to_previous")
        if x * y < 0:
            said.append("with its y turned round")
        return " and ".join(said)

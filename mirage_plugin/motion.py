"""Motion of a game that sends none, estimated from its pictures at about the scale of cells.

Good enough to carry an edit or a memory along, and cheap enough for every frame: dense inverse search (Kroeger et
al. 2016) on brightness at a quarter of the frame's size. Where the estimate does not explain the picture, it says so.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MotionEstimator", "believed"]

QUARTER = 4
LEAST_SIDE = 64
"""Frames with a shorter side are not estimated: a quarter of them has nothing to search in."""
# Measured on the sample game at 640x360, one thread: 0.6 pixels off at the median at 7.7 pixels of motion. Without the
# refinement 0.7 in half the time, one scale finer 0.35 in five times the time.
FINEST_SCALE, REFINEMENTS = 1, 5
BELIEVED_STEPS = 6
"""Brightness may differ by so many of 255 steps, more where the picture has much detail, from where it came from."""
LEAST_BELIEVED = 0.5
"""With less of the picture explained, nothing is. In play at least 0.85 is, where a camera whips round half."""
MOST_AFTER_A_CUT = 0.25
"""With less of it explained there was a cut: after one 0.1 is."""


class MotionEstimator:
    """Estimates each frame's motion from the frame before, which it keeps; one for each game.

    ::

        estimate = MotionEstimator()
        motion = estimate(pixels, order)     # None for the first frame
    """

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._search.setFinestScale(FINEST_SCALE)
        self._search.setVariationalRefinementIterations(REFINEMENTS)
        self._before: NDArray[np.uint8] | None = None
        self.cut = False
        """Whether the last frame showed too little of the one before it to come from it."""

    def forget(self) -> None:
        """The next frame is a first one: after a cut, a pause or a reset."""
        self._before, self.cut = None, False

    def __call__(
        self, pixels: NDArray[np.uint8], order: NDArray[np.int64], again: bool = False
    ) -> NDArray[np.float32] | None:
        """Where each 2x2 pixels of a frame came from; None where that is unknown for the frame as a whole.

        `pixels` uint8 [H, W, 3 or 4] with red, green and blue at `order`; `again=True` begins anew with it, as
        does a frame of another size. Returns float32 [ceil(H / 2), ceil(W / 2), 2], (x, y) pixels to the place in
        the frame before; NaN where the frame before does not show it.
        """
        height, width = pixels.shape[:2]
        self.cut = False
        if min(height, width) < LEAST_SIDE:
            self._before = None
            return None
        now, before = _brightness(pixels, order), self._before
        self._before = now
        if before is None or again or before.shape != now.shape:
            return None
        flow = np.asarray(self._search.calc(now, before, np.zeros((*now.shape, 2), np.float32)), np.float32)
        holds = believed(now, before, flow)
        share = float(holds.mean())
        self.cut = share < MOST_AFTER_A_CUT
        if share < LEAST_BELIEVED:
            return None
        size = ((width + 1) // 2, (height + 1) // 2)
        motion = cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR)
        motion *= np.array([width / now.shape[1], height / now.shape[0]], np.float32)
        if not holds.all():
            doubted = cv2.resize((~holds).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            motion[doubted > 0] = np.nan
        return motion.astype(np.float32, copy=False)


def _brightness(pixels: NDArray[np.uint8], order: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Brightness uint8 at a quarter of the size."""
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (width // QUARTER, height // QUARTER), interpolation=cv2.INTER_AREA)
    three, four = cv2.COLOR_RGB2GRAY, cv2.COLOR_RGBA2GRAY
    if order[0] > order[2]:
        three, four = cv2.COLOR_BGR2GRAY, cv2.COLOR_BGRA2GRAY
    grey: NDArray[np.uint8] = cv2.cvtColor(small, four if pixels.shape[2] == 4 else three).astype(np.uint8, copy=False)
    return grey


def believed(
    now: NDArray[np.uint8], before: NDArray[np.uint8], flow: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Where the flow [h, w, 2] leads into the frame before, and to what looks the same there: bool [h, w] of brightness
    uint8 [h, w]."""
    height, width = now.shape
    rows, columns = np.indices(now.shape, dtype=np.float32)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    came = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    window = (3, 3)
    off = cv2.blur(cv2.absdiff(now, came), window)
    # A little aside, a picture differs the more the more detail it has.
    detail = cv2.subtract(cv2.dilate(now, np.ones(window, np.uint8)), cv2.erode(now, np.ones(window, np.uint8)))
    alike = off <= BELIEVED_STEPS + detail // 8
    inside = (x > -1) & (y > -1) & (x < width) & (y < height)
    return np.asarray(alike & inside, np.bool_)

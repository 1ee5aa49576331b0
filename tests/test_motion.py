"""Estimated motion: right where the picture tells it, and silent where it does not."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mirage_plugin.motion import MotionEstimator

RGB = np.array([0, 1, 2])
BGR = np.array([2, 1, 0])
SIZE = (640, 360)


def scenery(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Soft blotches of many sizes, uint8 [H, W, 4]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (64, 24, 9):
        grid = rng.random((height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(cell**0.5)
    total = (total - total.min()) / (total.max() - total.min()) * 255
    return np.dstack([total.astype(np.uint8), np.full((height, width), 255, np.uint8)])


def moved(big: NDArray[np.uint8], x: int, y: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A window of the scenery, its corner at x, y."""
    return np.ascontiguousarray(big[y : y + size[1], x : x + size[0]])


@pytest.mark.parametrize("shift", [(0, 0), (5, 0), (-7, 4), (12, -9)])
@pytest.mark.parametrize("order", [RGB, BGR])
def test_a_moving_window_moves_by_what_it_moves(shift: tuple[int, int], order: NDArray[np.int64]) -> None:
    big = scenery(760, 480)
    estimate = MotionEstimator()
    assert estimate(moved(big, 60, 60), order) is None
    found = estimate(moved(big, 60 + shift[0], 60 + shift[1]), order)
    assert found is not None
    assert found.shape == (180, 320, 2)
    assert found.dtype == np.float32
    # The window went right: what it shows came from the right.
    inner = found[20:-20, 20:-20]
    assert np.isnan(inner[..., 0]).mean() < 0.02
    assert np.abs(np.nanmedian(inner, axis=(0, 1)) - shift).max() < 0.4
    assert np.nanpercentile(np.abs(inner - shift), 90) < 1.5


def test_channels_in_any_order_are_the_same_motion() -> None:
    big = scenery(760, 480)
    one, two = MotionEstimator(), MotionEstimator()
    for x in (50, 58):
        rgb = moved(big, x, 40)
        a, b = one(rgb, RGB), two(np.ascontiguousarray(rgb[..., [2, 1, 0]]), BGR)
    assert a is not None
    assert b is not None
    np.testing.assert_array_equal(a, b)


def test_a_cut_is_no_motion_and_the_frame_after_it_is_compared_with_it() -> None:
    first, second = scenery(760, 480, 1), 255 - scenery(760, 480, 2)
    estimate = MotionEstimator()
    estimate(moved(first, 0, 0), RGB)
    assert not estimate.cut
    assert estimate(moved(second, 0, 0), RGB) is None
    assert estimate.cut
    found = estimate(moved(second, 6, 0), RGB)
    assert found is not None
    assert not estimate.cut
    assert np.nanmedian(found[..., 0]) == pytest.approx(6, abs=0.4)


def test_what_was_not_there_before_is_not_known() -> None:
    big = scenery(640, 360)
    estimate = MotionEstimator()
    estimate(big, RGB)
    after = big.copy()
    after[120:240, 240:400, :3] = 255 - after[120:240, 240:400, :3]
    after[120:240, 240:400, :3][::8] = 0
    found = estimate(after, RGB)
    assert found is not None
    unknown = np.isnan(found[..., 0])
    assert unknown[65:115, 125:195].mean() > 0.5
    assert unknown[:50].mean() < 0.02


def test_a_wall_of_one_colour_stands_still() -> None:
    estimate = MotionEstimator()
    wall = np.full((360, 640, 4), 90, np.uint8)
    estimate(wall, RGB)
    found = estimate(wall, RGB)
    assert found is not None
    assert np.abs(found).max() < 0.01


def test_forgetting_resizing_and_beginning_again_start_anew() -> None:
    big = scenery(760, 480)
    estimate = MotionEstimator()
    assert estimate(moved(big, 0, 0), RGB) is None
    assert estimate(moved(big, 0, 0), RGB, again=True) is None
    assert estimate(moved(big, 0, 0), RGB) is not None
    estimate.forget()
    assert estimate(moved(big, 0, 0), RGB) is None
    assert estimate(moved(big, 0, 0, (321, 201)), RGB) is None
    found = estimate(moved(big, 0, 0, (321, 201)), RGB)
    assert found is not None
    assert found.shape == (101, 161, 2)
    assert estimate(moved(big, 0, 0, (40, 30)), RGB) is None

"""What a game's author is told of planes that were forgotten, or are not what was declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mirage_bridge import DepthConvention, MotionConvention, Offer
from mirage_plugin.frames import FramePlanes
from mirage_plugin.plane_watch import WATCHED_FRAMES, PlaneWatch

WIDTH, HEIGHT = 640, 360
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
PAPER = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8).repeat(16, 0).repeat(16, 1)


def offer(depth: str = "linear_metres", unit: str = "pixels") -> Offer:
    conventions = {"linear_metres": DepthConvention(), "reversed_z": DepthConvention("reversed_z", 0.1, 100.0)}
    return Offer((WIDTH, HEIGHT), depth=conventions[depth], motion=MotionConvention(unit=unit))


def told(watch: PlaneWatch, planes: FramePlanes, pixels: Any = None) -> list[str]:
    said = [watch.look(planes, None if pixels is None else pixels(i), i) for i in range(WATCHED_FRAMES + 3)]
    assert not any(said[: WATCHED_FRAMES - 1] + said[WATCHED_FRAMES:]), "once, when all was seen"
    return said[WATCHED_FRAMES - 1]


def shape(depth: Any = None, mask: int | None = None) -> FramePlanes:
    flat = None if mask is None else np.full((HEIGHT, WIDTH), mask, np.uint8)
    return FramePlanes(None if depth is None else np.asarray(depth, np.float32), None, flat)


@pytest.mark.parametrize(
    ("planes", "kind", "said"),
    [
        (shape(), "linear_metres", []),
        (shape(2 + Y, 1), "linear_metres", []),
        (shape(mask=0), "linear_metres", ["its mask was 0"]),
        (shape(0 * Y), "linear_metres", ["its depth was the same everywhere"]),
        (shape(np.nan * Y), "linear_metres", ["its depth was the same everywhere"]),
        (shape(Y / HEIGHT, 0), "linear_metres", ["its mask was 0", "nowhere more than 1 m"]),
        (shape(Y / HEIGHT), "reversed_z", []),
    ],
)
def test_planes_that_nobody_wrote(planes: FramePlanes, kind: str, said: list[str]) -> None:
    sentences = told(PlaneWatch(offer(kind)), planes)
    assert len(sentences) == len(said)
    assert all(part in sentence for part, sentence in zip(said, sentences, strict=True))


def scrolling(step: int) -> Any:
    """A picture of which each pixel was 5 columns to the right and 3 rows up in the frame before."""
    return PAPER[200 - 3 * (step % 50) :, 5 * (step % 50) :][:HEIGHT, :WIDTH]


@pytest.mark.parametrize(
    ("motion", "unit", "said"),
    [
        ((5, -3), "pixels", None),
        ((-5, 3), "pixels", "read as to_current it leads"),
        ((5, 3), "pixels", "read with its y turned round it leads"),
        ((-5, -3), "pixels", "read as to_current and with its y turned round it leads"),
        ((5 / WIDTH, -3 / HEIGHT), "pixels", "read as uv it leads"),
        # Pixels that were declared as uv, in the model's conventions.
        ((-5 * WIDTH, 3 * HEIGHT), "uv", "read as pixels and as to_current it leads"),
        ((5, -3), "uv", None),
    ],
)
def test_motion_that_is_not_as_declared(motion: tuple[float, float], unit: str, said: str | None) -> None:
    sent = np.broadcast_to(np.array(motion, np.float32), (HEIGHT, WIDTH, 2))
    sentences = told(PlaneWatch(offer(unit=unit)), FramePlanes(motion=sent), scrolling)
    assert len(sentences) == (said is not None)
    assert said is None or said in sentences[0]


def test_of_motion_that_nothing_explains_nothing_is_said() -> None:
    """A still picture, one of noise, and cuts."""
    rng = np.random.default_rng(1)
    wrong = np.full((HEIGHT, WIDTH, 2), -7.0, np.float32)
    assert not told(PlaneWatch(offer()), FramePlanes(motion=wrong), lambda _: scrolling(0))
    assert not told(
        PlaneWatch(offer()), FramePlanes(motion=wrong), lambda _: rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    )
    backwards = FramePlanes(motion=np.broadcast_to(np.array((-5, 3), np.float32), (HEIGHT, WIDTH, 2)))
    watch = PlaneWatch(offer())
    assert not any(watch.look(backwards, scrolling(i), i, cut=True) for i in range(WATCHED_FRAMES))
    watch = PlaneWatch(offer())
    assert not any(watch.look(backwards, scrolling(i), 2 * i) for i in range(WATCHED_FRAMES)), "not frame by frame"


@pytest.mark.parametrize(("value", "said"), [(np.nan, "its motion was not written"), (0.0, "its motion was 0")])
def test_motion_that_nobody_wrote(value: float, said: str) -> None:
    sent = FramePlanes(motion=np.full((HEIGHT, WIDTH, 2), value, np.float32))
    (sentence,) = told(PlaneWatch(offer()), sent, scrolling)
    assert said in sentence
    assert not told(PlaneWatch(offer()), sent, lambda _: scrolling(0)), "nothing moved"


def test_a_camera_that_only_turns_is_not_told_to_turn_its_y() -> None:
    """Nothing tells (-x, -0) from (-x, 0): the likelier mistake is named."""
    sent = np.broadcast_to(np.array((-5, 0), np.float32), (HEIGHT, WIDTH, 2))
    panning = lambda i: PAPER[20 : 20 + HEIGHT, 5 * (i % 50) :][:, :WIDTH]  # noqa: E731
    (sentence,) = told(PlaneWatch(offer()), FramePlanes(motion=sent), panning)
    assert "read as to_current it leads" in sentence

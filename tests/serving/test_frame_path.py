"""What the frame path does of what pacing decides: edits made behind an answer, and answers that are shown again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mirage_plugin import frame_path, pacing
from mirage_plugin.config import ServeConfig
from mirage_plugin.engine import Canvas, Engine
from mirage_plugin.pacing import Decision
from mirage_plugin.plane_watch import PlaneWatch
from tests.serving.playing import Game

Decide = Callable[..., None]
NEVER_NS = 2**62


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(ServeConfig(device="cpu", tier="nano", compile=False))


@pytest.fixture
def game(engine: Engine, tmp_path: Path) -> Iterator[Game]:
    playing = Game(engine, f"ipc://{tmp_path}/m", style="ink", budget_ms=2000.0)
    yield playing
    playing.close()


@pytest.fixture
def decide(monkeypatch: pytest.MonkeyPatch) -> Decide:
    """Say what is decided next."""

    def say(action: pacing.Action, **more: Any) -> None:
        rung = 0 if action == "net" else -1
        said = Decision(action, rung, (320, 192), 1, 1.0, 0, "as the test says", NEVER_NS, 0, NEVER_NS)
        monkeypatch.setattr(pacing, "decide", lambda *_: frame_path.dataclasses.replace(said, **more))

    return say


def frame(step: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    y, x = np.mgrid[0:64, 0:96]
    rgb = [(x * 3 + 20 * step) % 256, (y * 5) % 256, ((x + y) * 2) % 256, np.full_like(x, 255)]
    return np.stack(rgb, -1).astype(np.uint8)


def canvas_of(game: Game) -> Canvas:
    assert game.stream is not None
    assert isinstance(game.stream.canvas, Canvas)
    return game.stream.canvas


def seen(game: Game) -> tuple[str, str, np.ndarray[Any, Any]]:
    answer = game.session.poll_answer()
    return answer.kind, answer.reason, np.array(answer.pixels)


def test_an_edit_is_made_behind_a_reused_one(game: Game, decide: Decide) -> None:
    decide("net")
    game.play(frame(0))
    before = canvas_of(game).edit
    decide("reuse", behind=True)
    assert game.play(frame(1)).kind == "reprojected"
    assert game.stream is not None
    assert game.stream.pace.edit_age_frames == 0
    assert canvas_of(game).edit is not before
    assert canvas_of(game).edit_age == 0
    decide("reuse")
    assert game.play(frame(1)).kind == "reprojected"
    behind = seen(game)[2]
    # Of a frame like the one before it, the edit from behind is the one that the net makes of it at once.
    decide("net")
    game.play(frame(1))
    assert np.abs(seen(game)[2].astype(int) - behind).mean() < 6


@pytest.mark.parametrize("action", ["source", "reuse"])
def test_a_frame_is_read_once_whatever_becomes_of_it(game: Game, decide: Decide, action: pacing.Action) -> None:
    decide("net")
    game.play(frame(0))
    canvas = canvas_of(game)
    before, number = canvas.edit, canvas.frame
    decide(action, behind=True, compose_by_ns=0, hold=False)
    assert game.play(frame(1)).kind == "source"
    assert canvas.frame == number + 1
    assert canvas.edit is not before


def test_behind_a_source_as_well(game: Game, decide: Decide) -> None:
    decide("source", behind=True)
    assert game.play(frame(0)).kind == "source"
    assert canvas_of(game).edit is not None
    decide("reuse")
    assert game.play(frame(1)).kind == "reprojected"
    assert not np.array_equal(seen(game)[2], frame(1))


def test_a_frame_that_nobody_has_time_for_is_the_last_answer_again(game: Game, decide: Decide) -> None:
    decide("net")
    game.play(frame(0))
    styled = seen(game)[2]
    decide("net", compose_by_ns=0)
    for number in (1, 2):
        assert game.play(frame(number)).kind == "reprojected"
        kind, reason, shown = seen(game)
        assert (kind, reason) == ("reprojected", "no time to compose: shown again")
        assert np.array_equal(shown, styled)
    assert game.play(frame(3)).kind == "source", "a picture that stands still is worse than one that is not painted"


@pytest.mark.parametrize("why", ["cut", "style", "not held"])
def test_what_may_not_be_shown_again(game: Game, decide: Decide, why: str) -> None:
    decide("net")
    game.play(frame(0))
    if why == "style":
        game.session.set_style("snow")
        for _ in range(5):
            game.poll()
    decide("net", compose_by_ns=0, hold=why != "not held")
    assert game.play(frame(1), camera_cut=why == "cut").kind == "source"


def test_an_edit_in_the_old_style_is_never_reused_in_the_new(game: Game, decide: Decide) -> None:
    decide("net")
    game.play(frame(0))
    game.session.set_style("snow")
    for _ in range(5):
        game.poll()
    decide("reuse")
    assert game.play(frame(1)).kind == "source"


def test_a_style_that_was_asked_for_is_worked_out_before_its_frame(
    game: Game, decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide("net")
    game.play(frame(0))
    game.session.set_style({"name": "mine", "parameters": {"cover": 0.37}})
    for _ in range(5):
        game.poll()
    assert game.stream is not None
    game.stream.learn_style()
    engine, asked = game.stream.engine, []
    monkeypatch.setattr(engine, "_style_encoder", asked.append)
    assert game.play(frame(1)).kind == "styled"
    assert not asked


@pytest.mark.parametrize("pixel_format", ["RGBA16F", "RGB10A2"])
def test_dark_linear_light_keeps_more_steps_than_eight_bits_have(pixel_format: str) -> None:
    """A ramp in the darkest fiftieth: of eight bits of linear light it would have six."""
    ramp = np.linspace(0, 0.02, 256)[None].repeat(2, 0)
    if pixel_format == "RGBA16F":
        sent = np.stack([ramp, ramp, ramp, np.ones_like(ramp)], -1).astype(np.float16)
    else:
        ten = (ramp * 1023).round().astype(np.uint32)
        sent = (ten | ten << 10 | ten << 20 | np.uint32(3 << 30))[..., None]
    offer = SimpleNamespace(pixel_format=pixel_format, color_space="linear", orientation="top_down")
    seen = frame_path._pixels(cast("Any", SimpleNamespace(pixels=sent)), cast("Any", offer))
    assert len(np.unique(seen[..., 0])) >= 20
    back = np.zeros_like(sent)
    frame_path._write_back(seen, back, cast("Any", offer))
    red = back[..., 0].astype(np.float64) if pixel_format == "RGBA16F" else (back[..., 0] & 0x3FF) / 1023
    # To within what a byte of sRGB is apart there.
    assert np.abs(red - ramp).max() < 0.0012


@pytest.mark.parametrize(
    ("pixel_format", "color_space"),
    [("RGB10A2", "srgb"), ("RGBA16F", "linear"), ("RGBA8", "linear"), ("RGB8", "linear")],
)
@pytest.mark.parametrize("orientation", ["top_down", "bottom_up"])
def test_overlay_and_alpha_stay_to_the_bit_in_every_format(
    engine: Engine, tmp_path: Path, pixel_format: str, color_space: str, orientation: str
) -> None:
    game = Game(
        engine, f"ipc://{tmp_path}/m", style="ink", budget_ms=2000.0, pixel_format=pixel_format,
        color_space=color_space, orientation=orientation, planes=("mask",),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    mask = np.ones((64, 96), np.uint8)
    mask[:20, 30:] = 0
    try:
        raw = game.session.begin_frame().pixels
        if pixel_format == "RGB10A2":
            raw = rng.integers(0, 2**32, raw.shape, np.uint32)
        elif pixel_format == "RGBA16F":
            raw = (rng.random(raw.shape) * 4).astype(np.float16)
        else:
            raw = rng.integers(0, 256, raw.shape, np.uint8)
        game.play(raw, mask)
        kind, _, shown = seen(game)
    finally:
        game.close()
    assert kind == "styled"
    assert (shown[:20, 30:] == raw[:20, 30:]).all()
    assert (shown[20:] != raw[20:]).any()
    if pixel_format == "RGB10A2":
        assert (shown >> 30 == raw >> 30).all()
    elif pixel_format != "RGB8":
        assert (shown[..., 3] == raw[..., 3]).all()


def test_a_plane_that_was_written_once_is_no_matter(engine: Engine, tmp_path: Path) -> None:
    told: list[str] = []
    playing = Game(engine, f"ipc://{tmp_path}/m", style="ink", planes=("mask",), budget_ms=2000.0, note=told.append)
    try:
        for step in range(4):
            playing.play(frame(step), 0 if step else 1)
        assert playing.stream is not None
        playing.stream._planes._left = 1
        playing.play(frame(5), 0)
        assert not told
        playing.stream._planes = PlaneWatch(playing.stream.offer)
        playing.stream._planes._left = 1
        playing.play(frame(6), 0)
        assert ["mask was 0" in sentence for sentence in told] == [True]
    finally:
        playing.close()


def test_depth_counts_from_the_first_frame_that_has_shapes(engine: Engine, tmp_path: Path) -> None:
    """Until then a game that names it and does not write it looks as one that sends colours alone."""

    def answers(planes: tuple[str, ...], depths: list[Any]) -> list[np.ndarray[Any, Any]]:
        playing = Game(engine, f"ipc://{tmp_path}/{len(planes)}", style="ink", planes=planes, budget_ms=2000.0)
        try:
            said = []
            for step, depth in enumerate(depths):
                playing.play(frame(step), depth=depth if planes else None)
                said.append(seen(playing)[2])
            return said
        finally:
            playing.close()

    y, x = np.mgrid[0:64, 0:96]
    box = np.where((abs(y - 32) < 12) & (abs(x - 48) < 20), 3.0, 9.0).astype(np.float32)
    flat = [0.0, 0.0, box, 0.0]
    sent, none = answers(("depth",), flat), answers((), flat)
    alike = [np.array_equal(a, b) for a, b in zip(sent, none, strict=True)]
    assert alike == [True, True, False, False]


def test_depth_without_shapes_is_none_behind_an_answer_as_well(engine: Engine, tmp_path: Path, decide: Decide) -> None:
    playing = Game(engine, f"ipc://{tmp_path}/m", style="ink", planes=("depth",), budget_ms=2000.0)
    try:
        decide("source", behind=True)
        playing.play(frame(0), depth=0.0)
        assert canvas_of(playing).half_depth is None
        playing.play(frame(1), depth=np.arange(1, 65, dtype=np.float32)[:, None])
        assert canvas_of(playing).half_depth is not None
    finally:
        playing.close()

"""The sidecar as a process, with games as games are."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import mirage_bridge
from mirage_plugin.config import ServeConfig
from mirage_plugin.frame_path import Stream
from mirage_plugin.sidecar import Sidecar

SERVE = [sys.executable, "-m", "mirage_plugin", "serve", "--tier", "nano", "--device", "cpu", "--no-compile"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@contextmanager
def sidecar(endpoint: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*SERVE, "--bind", endpoint], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        until = time.monotonic() + 240
        while True:
            assert process.poll() is None, process.communicate()[1]
            try:
                mirage_bridge.request(endpoint, "status", {}, timeout_s=2.0)
                break
            except mirage_bridge.BridgeError:
                assert time.monotonic() < until
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    where = f"ipc://{tmp_path_factory.mktemp('s')}/m"
    with sidecar(where):
        yield where


def picture(size: tuple[int, int], step: int = 0) -> np.ndarray:
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    channels = [(x * 3 + step) % 256, (y * 5) % 256, ((x + y) * 2) % 256, np.full_like(x, 255)]
    return np.stack(channels, -1).astype(np.uint8)


def play(session: mirage_bridge.Session, kind: str = "styled") -> np.ndarray:
    """Play at some 50 frames a second until an answer of that kind came; its pixels."""
    until, step = time.monotonic() + 90, 0
    while True:
        frame = session.begin_frame()
        frame.pixels[:] = picture(session.size, step % 40)[..., : frame.pixels.shape[2]]
        with session.wait_answer(session.end_frame(frame)) as answer:
            if answer.answered and answer.kind == kind:
                return np.array(answer.pixels)
        assert time.monotonic() < until, f"no {kind} answer; the last was {answer.kind}: {answer.reason}"
        step += 1
        time.sleep(0.02)


def open_session(endpoint: str, **options: object) -> mirage_bridge.Session:
    session = mirage_bridge.Session(endpoint, **{"budget_ms": 2000.0, "planes": (), "style": "ink"} | options)  # type: ignore[arg-type]
    assert session.wait_ready(30), session.refusal
    return session


@pytest.mark.parametrize("size", [(640, 360), (641, 359), (64, 48), (9, 9), (1, 1), (320, 90), (1280, 720)])
def test_a_frame_of_any_size_is_answered(endpoint: str, size: tuple[int, int]) -> None:
    with open_session(endpoint, size=size) as session:
        answer = play(session)
        assert answer.shape == (size[1], size[0], 4)
        assert (answer[..., 3] == 255).all()


@pytest.mark.parametrize("pixel_format", ["RGBA8", "BGRA8", "RGB8"])
def test_pixel_formats_give_the_same_picture(endpoint: str, pixel_format: str) -> None:
    with open_session(endpoint, pixel_format=pixel_format, size=(64, 48), seed=3) as session:
        answer = play(session)
    assert answer.std() > 1


def test_strength_zero_is_the_source(endpoint: str) -> None:
    with open_session(endpoint, size=(96, 64), strength=0.0) as session:
        answer = play(session)
    assert any(np.array_equal(answer, picture((96, 64), step)) for step in range(40))


def test_an_unknown_style_is_refused_with_the_nearest(endpoint: str) -> None:
    session = mirage_bridge.Session(endpoint, size=(64, 48), planes=(), style="snwo", budget_ms=2000.0)
    with session:
        session.wait_ready(30)
        said = f"{session.refusal} {session.style_refusal}"
        assert "snow" in said


def test_a_style_may_be_mixed_or_parameters(endpoint: str) -> None:
    with open_session(endpoint, size=(64, 48), style={"mix": {"snow": 0.5, "ink": 0.5}}) as session:
        play(session)
        session.set_style({"name": "mine", "parameters": {"cover": 0.8, "cover_colour": "#ffeedd"}})
        play(session)


def test_two_games_at_once(endpoint: str) -> None:
    with open_session(endpoint, size=(64, 48)) as one, open_session(endpoint, size=(96, 64), style="snow") as two:
        for _ in range(3):
            assert play(one).shape == (48, 64, 4)
            assert play(two).shape == (64, 96, 4)


GAME = """
import sys, mirage_bridge
session = mirage_bridge.Session(sys.argv[1], size=(64, 48), planes=(), style="ink", budget_ms=2000.0)
assert session.wait_ready(30)
while True:
    frame = session.begin_frame()
    frame.pixels[:] = 9
    session.wait_answer(session.end_frame(frame)).release()
    frame = session.begin_frame()
    print("drawing", flush=True)
"""


def test_a_game_whose_times_cannot_be_ends_nobody_elses_sidecar(endpoint: str) -> None:
    """An engine that takes away more than there is from an unsigned time, or says -1 for "unknown"."""
    with open_session(endpoint) as good, open_session(endpoint) as odd:
        play(good)
        frame = odd.begin_frame()
        frame.pixels[:] = picture(odd.size)
        odd.end_frame(frame, input_ns=2**64 - 1, captured_ns=2**63)
        play(odd)
        play(good)


def test_a_bug_loses_a_frame_and_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second frame meets it: the others are answered, and the console has one traceback."""
    frames, real, said = itertools.count(), Stream.serve, io.StringIO()

    def serve(stream: Stream, *given: Any) -> Any:
        if next(frames) % 2:
            raise ValueError("a bug")
        return real(stream, *given)

    monkeypatch.setattr(Stream, "serve", serve)
    config = ServeConfig(tier="nano", device="cpu", compile=False, bind=f"ipc://{tmp_path}/m")
    with Sidecar(config, Console(file=said)) as sidecar:
        playing = threading.Thread(target=sidecar.run)
        monkeypatch.setattr(signal, "signal", lambda *_: None)  # which only the main thread may
        playing.start()
        with open_session(str(config.bind), size=(96, 64)) as session:
            for _ in range(3):
                play(session)
        sidecar._on_signal(signal.SIGTERM, None)
        playing.join(30)
    assert next(frames) > 4
    assert said.getvalue().count("ValueError: a bug") == 1


def test_a_lone_game_may_resize_whatever_its_budget(endpoint: str) -> None:
    """It is not counted against itself: a tenth of what the smallest net takes is a budget as well."""
    with open_session(endpoint, budget_ms=1.0, size=(640, 360)) as session:
        for size in ((640, 360), (648, 360)):
            session.resize(size)
            until = time.monotonic() + 30
            while session.state != "ready":
                assert time.monotonic() < until
                assert session.refusal is None
                frame = session.begin_frame()
                frame.pixels[:] = 90
                session.wait_answer(session.end_frame(frame)).release()


def test_a_seed_may_change(endpoint: str) -> None:
    """Its marks are others then; with the seed of before they stay where they are."""
    with open_session(endpoint, style="hatching", seed=1) as session:

        def still(epoch: int) -> np.ndarray:
            until, seen = time.monotonic() + 60, 0
            while True:
                frame = session.begin_frame()
                frame.pixels[:] = picture(session.size)
                with session.wait_answer(session.end_frame(frame)) as answer:
                    seen += answer.answered and (answer.kind, answer.style_epoch) == ("styled", epoch)
                    if seen > 6:  # what begins is faded in
                        return np.array(answer.pixels).astype(int)
                assert time.monotonic() < until

        first = still(1)
        same = still(session.set_style("hatching", seed=1))
        other = still(session.set_style("hatching", seed=2))
    assert np.abs(same - other).mean() > 0.5
    assert np.abs(first - same).mean() < 0.3 * np.abs(same - other).mean()


def test_a_game_killed_while_drawing_leaves_nothing(endpoint: str) -> None:
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    game = subprocess.Popen([sys.executable, "-c", GAME, endpoint], stdout=subprocess.PIPE, text=True)
    assert game.stdout is not None
    assert game.stdout.readline() == "drawing\n"
    game.kill()
    game.communicate()
    with open_session(endpoint, size=(64, 48)) as session:
        play(session)
    if os.path.isdir("/dev/shm"):
        assert set(os.listdir("/dev/shm")) <= before


def test_a_second_sidecar_is_told_so(endpoint: str) -> None:
    second = subprocess.run([*SERVE, "--bind", endpoint], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert second.returncode == 2
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    where = f"ipc://{tmp_path}/m"
    with sidecar(where) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert "stopped" in said
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("option", "value"), [("--tier", "huge"), ("--style", "snwo"), ("--tier", "base")])
def test_what_cannot_be_served_is_one_sentence(tmp_path: Path, option: str, value: str) -> None:
    command = [sys.executable, "-m", "mirage_plugin", "serve", "--bind", f"ipc://{tmp_path}/m", option, value]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=240)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr

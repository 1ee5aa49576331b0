"""The game as its own process: alone, with a sidecar, and with one that dies and comes back."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest
import zmq

GAME = Path(__file__).parents[2] / "examples" / "game.py"
ECHO = Path(__file__).parent / "programs" / "echo_host.py"


class Stage:
    """Starts processes and ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/echo"
        self.running: list[subprocess.Popen[str]] = []

    def host(self, last: int = 0) -> subprocess.Popen[str]:
        command = [sys.executable, str(ECHO), self.endpoint, str(last)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def game(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(GAME), "--headless", "--endpoint", self.endpoint, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("run"))
    yield made
    made.end()


def finished(game: subprocess.Popen[str], report: Path) -> dict[str, Any]:
    out, err = game.communicate(timeout=60)
    assert game.returncode == 0, err
    assert "frames at" in out
    loaded: dict[str, Any] = json.loads(report.read_text())
    return loaded


def picture(path: Path) -> np.ndarray:
    return pygame.surfarray.array3d(pygame.image.load(str(path))).astype(int)


def test_without_a_sidecar_it_plays_its_own_frames(stage: Stage, tmp_path: Path) -> None:
    report_at, dump = tmp_path / "out" / "game.json", tmp_path / "pairs"
    game = stage.game(
        "--frames",
        "20",
        "--fps",
        "0",
        "--size",
        "160x90",
        "--json",
        str(report_at),
        "--dump",
        str(dump),
        "--dump-every",
        "10",
        "--style-cycle",
        "5",
        "--styles",
        "snow,ink",
        "--record",
        str(tmp_path / "film.mp4"),
    )
    report = finished(game, report_at)
    assert report["frames"] == 20
    assert report["answered"] == {"styled": 0, "reprojected": 0, "source": 0}
    assert report["unanswered"] == 20
    assert report["size"] == [160, 90]
    for key in ("game_ms", "wait_ms", "service_ms", "motion_to_photon_ms"):
        assert set(report[key]) == {"p50", "p95", "p99", "max"}
    assert report["wait_ms"]["p50"] < 5
    index = json.loads((dump / "index.json").read_text())
    assert [(entry["frame"], entry["style"], entry["kind"]) for entry in index] == [
        (0, "snow", "source"),
        (10, "snow", "source"),
    ]
    assert (picture(dump / "source_00010.png") == picture(dump / "answer_00010.png")).all()
    assert (tmp_path / "film.mp4").stat().st_size > 1000 or len(list((tmp_path / "film").iterdir())) == 20


def test_with_a_sidecar_it_shows_the_answers(stage: Stage, tmp_path: Path) -> None:
    stage.host()
    report_at, dump = tmp_path / "game.json", tmp_path / "pairs"
    game = stage.game(
        "--frames",
        "40",
        "--fps",
        "60",
        "--size",
        "160x90",
        "--wait-s",
        "20",
        "--json",
        str(report_at),
        "--dump",
        str(dump),
        "--dump-every",
        "13",
        "--no-hud",
        "--budget-ms",
        "2000",
    )
    report = finished(game, report_at)
    assert report["answered"] == {"styled": 40, "reprojected": 0, "source": 0}
    assert report["unanswered"] == report["late"] == 0
    assert report["service_ms"]["p50"] > 0
    assert report["motion_to_photon_ms"]["p50"] >= report["wait_ms"]["p50"]
    entries = json.loads((dump / "index.json").read_text())
    assert [entry["frame"] for entry in entries] == [0, 13, 26, 39]
    for entry in entries:
        assert entry["kind"] == "styled"
        assert (picture(dump / entry["answer"]) == 255 - picture(dump / entry["source"])).all()


def test_a_sidecar_that_dies_and_comes_back_costs_no_frame(stage: Stage, tmp_path: Path) -> None:
    first = stage.host(last=20)
    report_at = tmp_path / "game.json"
    game = stage.game(
        "--frames", "1000000", "--size", "96x54", "--json", str(report_at), "--budget-ms", "200"
    )
    # Both hosts end themselves, so nothing here depends on how fast anybody is.
    assert first.wait(timeout=50) == -signal.SIGKILL
    assert game.poll() is None
    second = stage.host(last=20)
    assert second.wait(timeout=50) == -signal.SIGKILL
    assert game.poll() is None
    game.send_signal(signal.SIGINT)
    report = finished(game, report_at)
    assert report["reconnects"] >= 1
    assert report["answered"]["styled"] >= 36
    assert report["unanswered"] > 0
    assert sum(report["answered"].values()) + report["unanswered"] == report["frames"]


def test_ctrl_c_before_the_first_frame_is_no_traceback(stage: Stage) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as nobody:
        nobody.bind(stage.endpoint)
        game = stage.game("--wait-s", "60", "--size", "96x54")
        assert nobody.poll(50_000), "it has not asked for a session"
        # And is not answered.
        game.send_signal(signal.SIGINT)
        said = "".join(game.communicate(timeout=50))
    assert game.returncode == 130
    assert "Traceback" not in said


def test_every_delivery_tells_how_long_input_takes_to_be_seen(stage: Stage, tmp_path: Path) -> None:
    stage.host()
    report_at = tmp_path / "game.json"
    modes = "wait,newest,locked"
    options = ("--delivery", modes, "--late-warp", "--size", "160x90", "--wait-s", "20", "--budget-ms", "2000")
    report = finished(stage.game("--frames", "20", "--json", str(report_at), *options), report_at)
    assert list(report["deliveries"]) == modes.split(",")
    for delivery, one in report["deliveries"].items():
        assert one["delivery"] == delivery
        assert one["motion_to_photon_ms"]["p50"] > 0
        if one["late_warp"]:
            # The picture has newer input in it than the frame that it was made from.
            assert one["warped_motion_to_photon_ms"]["p50"] < one["motion_to_photon_ms"]["p50"]
    assert report["deliveries"]["locked"]["styled_motion_to_photon_ms"]["p50"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--size", "0x360"), "outside 16x16"),
        (("--size", "wide"), "write it as 640x360"),
        (("--planes", "normals"), "known are depth, motion, mask"),
        (("--strength", "2"), "strength"),
        (("--budget-ms", "0"), "budget"),
        (("--delivery", "wait,soon"), "known are wait, newest, locked"),
        (("--dump-every", "0"), "1 or more"),
    ],
)
def test_bad_arguments_get_a_sentence(stage: Stage, arguments: tuple[str, ...], sentence: str) -> None:
    game = stage.game("--frames", "1", *arguments)
    _, err = game.communicate(timeout=60)
    assert game.returncode == 2
    assert sentence in err
    assert "Traceback" not in err

"""Across processes: a sidecar that runs, games that play, and whoever watches them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mirage_plugin.errors import ConfigError, DataError, DeviceError, MirageError, NoSidecarError, OutputError
from mirage_plugin.profiler import attach, client, profile, workload
from mirage_plugin.profiler.recording import Pages, Recording
from mirage_plugin.profiler.statistics import summary
from mirage_plugin.profiler.workload import Workload

STUB = Path(__file__).with_name("stub_sidecar.py")

Starter = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts stub sidecars and ends them."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(mode: str = "", name: str = "sidecar") -> str:
        endpoint = f"ipc://{tmp_path}/{name}"
        process = subprocess.Popen(
            [sys.executable, str(STUB), endpoint, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return endpoint

    yield begin
    for process in running:
        process.communicate(timeout=60)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_two_games_play_and_both_sides_are_joined(start: Starter) -> None:
    plan = Workload(size=(64, 48), fps=200, sessions=2, frames=80, draw_ms=0.5, budget_ms=50)
    recording = workload.play(plan, start())
    assert recording.game_frames == 160
    assert sorted(np.unique(recording.games["game"])) == [0, 1]
    assert len(np.unique(recording.frames["session"])) == 2
    delivered = recording.frames["delivered_ns"] > 0
    answered = recording.games["kind"] != client.GAME_KINDS.index("unanswered")
    assert delivered.sum() == answered.sum()
    frames = {name: column[delivered] for name, column in recording.frames.items()}
    assert (frames["deliver_start_ns"] <= frames["delivered_ns"]).all()
    assert (frames["denoise_ns"] > 0).mean() > 0.5
    assert (frames["input_ns"] > 0).all()
    figures = summary(recording)
    assert figures["frames"] == 160
    assert sum(figures["answered"].values()) + figures["missed"] == 160
    assert (figures["size"], figures["tier"], figures["sessions"]) == ([64, 48], "stub", 2)
    assert figures["end_to_end_is"] == "publish to delivery"
    assert figures["motion_to_photon_ms"]["p50"] > 0.5


def test_a_running_sidecar_is_watched(start: Starter, tmp_path: Path) -> None:
    endpoint = start()
    seen: list[int] = []
    pages = Pages()
    attach.drain(endpoint, pages)
    assert pages.recording().frames["frame_id"].size == 0
    told, _ = client.play(
        client.GamePlan(
            endpoint=endpoint, size=(32, 32), fps=500, frames=150, warm_frames=5, draw_ms=0, budget_ms=100
        )
    )
    attach.drain(endpoint, pages)
    recording = pages.recording()
    assert len(recording) + int(recording.frames["skipped"].sum()) == 155
    assert len(pages.recording(10)) == 10
    assert (told["kind"] != client.GAME_KINDS.index("unanswered")).all()
    assert int(recording.frames["session"][0]) in recording.sessions

    console = quiet()
    assert profile(attach=endpoint, seconds=0.1, console=console) == 1
    assert "no frames came" in said(console)
    everything = attach.collect(endpoint, 0.0, lambda got: seen.append(got.frames))
    assert seen == [0]
    assert everything.since == 155 - int(recording.frames["skipped"].sum())


def test_attach_says_what_is_wrong(start: Starter, tmp_path: Path) -> None:
    with pytest.raises(NoSidecarError, match="mirage serve"):
        attach.ask(f"ipc://{tmp_path}/nobody", timeout_s=0.2)
    with pytest.raises(DataError, match="update the older"):
        attach.ask(start("silent", "a"))
    with pytest.raises(DataError, match="format 0 and this Mirage reads 1"):
        attach.collect(start("old", "b"), 0.1)


def test_a_sidecar_that_ends_leaves_what_came_before(start: Starter, tmp_path: Path) -> None:
    pages = Pages()
    page = attach.ask(start())
    rows = np.zeros((3, len(page["fields"])), np.int64)
    pages.add(page | {"first": 5, "next": 8, "end": 8, "rows": rows.tobytes()})
    assert pages.add(page | {"first": 0, "next": 0, "rows": b""}) == 0
    assert pages.frames == 0, "another sidecar counts anew"
    with pytest.raises(DataError, match="other fields"):
        pages.add(page | {"fields": ["one"]})


def test_a_game_without_a_sidecar_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = client.GamePlan(endpoint=f"ipc://{tmp_path}/nobody", wait_s=0.05, frames=1)
    with pytest.raises(DataError, match="no sidecar came"):
        client.play(plan)
    with pytest.raises(DataError, match="no game's frames"):
        client.load(tmp_path / "none.npz")


def test_a_refused_game_stops_the_workload_with_its_reason(start: Starter) -> None:
    plan = Workload(size=(4, 4), frames=5, fps=100)
    with pytest.raises(MirageError, match=r"1 of 1 games could not play: .*4x4"):
        workload.play(plan, start())


def test_a_sidecar_that_cannot_start_is_told_with_its_last_words() -> None:
    with (
        pytest.raises(DeviceError, match="the sidecar did not start: "),
        workload.sidecar("nano", "no-such-device", lambda _sentence: None),
    ):
        pass


def test_a_recording_is_read_compared_and_written_in_every_form(start: Starter, tmp_path: Path) -> None:
    plan = Workload(size=(64, 48), fps=250, frames=120, draw_ms=0.2, budget_ms=50)
    recording = workload.play(plan, start())
    kept = tmp_path / "a.json"
    recording.write(kept, summary(recording))
    console = quiet()
    names = {name: tmp_path / f"out.{name}" for name in ("html", "trace", "csv", "json")}
    assert profile(read=kept, console=console, **names) == 0
    assert "120 frames" in said(console) or "frames 120" in said(console)
    assert names["html"].read_text().startswith("<!doctype html>")
    from mirage_plugin.profiler.views.perfetto import check

    assert check(names["trace"].read_bytes())["slices"] > 300
    assert len(names["csv"].read_text().splitlines()) == 121
    assert json.loads(names["json"].read_text())["frames"] == 120
    again = Recording.read(names["json"])
    assert all((again.frames[name] == recording.frames[name]).all() for name in recording.frames)
    console = quiet()
    assert profile(compare=(kept, names["json"]), console=console) == 0
    assert "B is not worse" in said(console)


def test_the_command_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    for wrong in ({"size": "0x0"}, {"sessions": 65}, {"fps": 5000.0}, {"seconds": 0.0}):
        with pytest.raises(ConfigError):
            profile(console=quiet(), **wrong)
    with pytest.raises(OutputError):
        profile(console=quiet(), html=tmp_path / "file" / "x.html", read=_a_file(tmp_path / "file"))


def _a_file(path: Path) -> Path:
    path.write_text("")
    return path


def test_metrics_are_served_while_it_watches(start: Starter) -> None:
    from mirage_plugin.profiler.views.prometheus import Metrics

    plan = Workload(size=(64, 48), fps=250, frames=60, draw_ms=0.2, budget_ms=50)
    recording = workload.play(plan, start())
    with Metrics() as metrics:
        metrics.add(recording)
        metrics.add(recording.only(np.zeros(len(recording), bool)))
        text = metrics.text()
    styled = int((recording.frames["kind"] == 0).sum())
    assert f'mirage_frames_total{{answer="styled"}} {float(styled)}' in text
    assert f"mirage_end_to_end_seconds_count {float(len(recording))}" in text
    with Metrics(0) as serving:
        port = serving._server.server_port
        with pytest.raises(OutputError, match="choose another"):
            Metrics(port)


def test_overhead_is_printed_and_small(tmp_path: Path) -> None:
    console = quiet()
    code = profile(overhead=True, json=tmp_path / "o.json", console=console)
    found = json.loads((tmp_path / "o.json").read_text())["overhead"]
    assert code == int(not found["within"])
    assert found["share"] < 0.03
    assert "nothing waits for the GPU" in said(console)

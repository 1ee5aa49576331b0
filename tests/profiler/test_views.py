"""Views of one recording: each must open where it is meant to, and say what was planted."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from mirage_plugin.errors import DataError
from mirage_plugin.profiler.record import STAGES
from mirage_plugin.profiler.recording import Recording
from mirage_plugin.profiler.statistics import summary
from mirage_plugin.profiler.views import terminal
from mirage_plugin.profiler.views.html import to_html
from mirage_plugin.profiler.views.perfetto import check, to_trace
from mirage_plugin.profiler.views.presentmon import COLUMNS, to_csv
from tests.profiler.planted import Planted, every


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Planted(every(40, denoise=5.0), frames=200).record()


@pytest.fixture(scope="module")
def on_a_gpu() -> Recording:
    made = Planted(frames=120, told=False).record()
    frames = {name: column.copy() for name, column in made.frames.items()}
    frames["gpu_denoise_start_ns"] = frames["denoise_start_ns"] + 50_000
    frames["gpu_denoise_ns"] = np.full(120, 3_000_000)
    frames["gpu_compose_start_ns"] = frames["gpu_denoise_start_ns"] + 3_200_000
    frames["gpu_compose_ns"] = np.full(120, 400_000)
    frames["drift_state"] = np.linspace(0, 2, 120)
    return Recording(frames, made.games, made.reasons, info=made.info, sessions=made.sessions)


class Page(HTMLParser):
    """What a report refers to and whether it closes what it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset") and not (value or "").startswith(
                ("#", "data:")
            ):
                self.outside.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    return page


def test_the_report_stands_alone_and_names_the_culprit(recording: Recording) -> None:
    text = to_html(recording)
    page = parsed(text)
    assert page.outside == []
    assert page.tags.count("svg") == 6
    assert "script" not in page.tags
    assert "@import" not in text
    assert re.search(r"denoise took \d\.\d ms longer than usual in 5 frames \(5 missed\)", page.text)
    for words in ("Frame by frame", "How the times are spread", "The 12 worst frames", "Decisions over time"):
        assert words in page.text
    assert len(text) < 3_000_000


def test_a_report_of_a_gpu_with_reasons_that_could_break_it(on_a_gpu: Recording) -> None:
    nasty = ("<script>alert(1)</script>",) * 3
    text = to_html(Recording(on_a_gpu.frames, on_a_gpu.games, nasty, info={"tier": "<b>"}))
    page = parsed(text)
    assert "script" not in page.tags
    assert "<b>" in page.text
    assert "hatch" in text.lower()


def test_a_report_of_one_frame_and_of_none(on_a_gpu: Recording) -> None:
    one = on_a_gpu.only(np.arange(120) == 5)
    assert "1 frames" in parsed(to_html(one)).text
    assert "0 frames" in parsed(to_html(on_a_gpu.only(np.zeros(120, bool)))).text


def test_a_trace_keeps_to_the_schema_and_nests(recording: Recording, on_a_gpu: Recording) -> None:
    found = check(to_trace(recording))
    assert found["slices"] == 200 * (1 + len(STAGES) + 3)
    assert found["instants"] == 5
    assert found["counters"] == 200
    assert check(to_trace(on_a_gpu))["slices"] == 120 * (1 + len(STAGES) - 1 + 2)


def test_late_frames_overlap_on_tracks_of_their_own() -> None:
    assert check(to_trace(Planted(every(7, denoise=40.0), frames=60).record()))["slices"] > 700


def test_what_is_no_trace_is_found() -> None:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    with pytest.raises(DataError, match="not a Perfetto trace"):
        check(b"no trace at all")
    bad = Trace()
    packet = bad.packet.add()
    packet.track_event.type = TrackEvent.TYPE_SLICE_BEGIN
    packet.track_event.track_uuid = 5
    packet.track_event.name = "lost"
    with pytest.raises(DataError, match="not described"):
        check(bad.SerializeToString())
    described = bad.packet.add()
    described.track_descriptor.uuid = 5
    swapped = Trace()
    swapped.packet.extend([described, packet])
    with pytest.raises(DataError, match="do not end"):
        check(swapped.SerializeToString())


def test_csv_has_presentmon_s_columns(recording: Recording, on_a_gpu: Recording) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(recording))))
    assert len(lines) == 200
    assert tuple(lines[0]) == COLUMNS
    assert {
        "FrameTime",
        "CPUBusy",
        "CPUWait",
        "GPUBusy",
        "DisplayLatency",
        "AnimationError",
        "Dropped",
    } < set(COLUMNS)
    tenth = lines[10]
    assert float(tenth["CPUBusy"]) + float(tenth["CPUWait"]) <= float(tenth["FrameTime"]) + 0.001
    assert float(tenth["CPUBusy"]) == pytest.approx(2.5, abs=0.01)
    assert tenth["GPUBusy"] == tenth["PresentMode"] == "NA"
    late = [line for line in lines if line["Dropped"] == "1"]
    assert [int(line["MirageFrame"]) for line in late] == [40, 80, 120, 160, 200]
    assert lines[-1]["FrameTime"] == "NA"
    gpu = list(csv.DictReader(io.StringIO(to_csv(on_a_gpu))))
    assert float(gpu[3]["GPUBusy"]) == 3.4
    assert float(gpu[3]["GPUTime"]) == 3.6
    assert float(gpu[3]["GPUWait"]) == pytest.approx(0.2)


def printed(what: object, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_the_budget_and_the_culprit(recording: Recording) -> None:
    text = printed(terminal.report(summary(recording)))
    assert "end to end (publish to delivery)" in text
    assert "of 16.67 ms" in text
    assert "denoise took" in text
    live = printed(terminal.screen(recording, "live", 100), 100)
    assert "styled 200" in live
    assert all(len(line) <= 100 for line in live.splitlines())
    nothing = recording.only(np.zeros(200, bool))
    assert "does a game play?" in printed(terminal.screen(nothing, "live"))


def test_the_bar_s_line_stands_at_the_budget() -> None:
    half = terminal.bar({"denoise": 8.0}, 16.0, 40).plain
    assert half.index("│") == 30
    assert "8.00 of 16 ms" in half
    over = terminal.bar({"denoise": 30.0, "compose": 30.0}, 16.0, 40).plain
    assert len(over.partition(" of ")[0]) < 50
    assert over.index("│") == 30

"""The recorder: what stands in a row, what a page shows, and what it costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from mirage_plugin import pacing
from mirage_plugin.profiler import record
from mirage_plugin.profiler.record import FIELDS, FLAGS, KINDS, STAGES, Recorder, activate, staged

MS = 1_000_000
BUDGET_NS = 16_670_000


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, ms: float) -> None:
        self.now_ns += int(ms * MS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(clock: Clock) -> Iterator[Recorder]:
    with Recorder(64, {"tier": "nano", "device": "cpu"}, clock=clock, cpu_clock=clock) as made:
        activate(made)
        yield made
    activate(None)


def frames_of(page: dict[str, Any]) -> list[dict[str, Any]]:
    """A page's rows as plain dicts."""
    dtype = np.dtype(list(FIELDS))
    rows = np.frombuffer(page["rows"], dtype)
    return [{name: row[name].item() for name in dtype.names or ()} for row in rows]


def test_a_frame_stands_in_its_row_as_it_happened(clock: Clock, recorder: Recorder) -> None:
    @staged("denoise")
    def denoise(ms: float) -> str:
        """The net."""
        clock.pass_ms(ms)
        return "edit"

    published_ns = clock.now_ns
    clock.pass_ms(1.5)
    row = recorder.begin(
        7, 42, published_ns, published_ns + BUDGET_NS, published_ns - 5, published_ns - 3, 2, True
    )
    rungs = (pacing.Rung((320, 180), 2),)
    pace = pacing.start(rungs, BUDGET_NS)
    times = pacing.FrameTimes(published_ns, published_ns + BUDGET_NS)
    recorder.decided(pacing.decide(pace, clock.now_ns, times))
    with recorder.stage("upload"):
        clock.pass_ms(0.25)
    assert denoise(4) == "edit"
    assert denoise(2) == "edit"
    clock.pass_ms(0.1)
    recorder.finish(row, "styled", drift_state=0.5, drift_output=-1.25)

    (frame,) = frames_of(recorder.page({"since": 0}))
    assert (frame["session"], frame["frame_id"], frame["skipped"]) == (7, 42, 2)
    assert frame["published_ns"] == published_ns == frame["queue_start_ns"]
    assert frame["queue_ns"] == 1.5 * MS
    assert frame["upload_ns"] == 0.25 * MS
    assert frame["denoise_ns"] == 6 * MS, "two steps add up"
    assert frame["denoise_start_ns"] == published_ns + 1.75 * MS
    assert frame["compose_ns"] == 0
    assert frame["answered_ns"] == published_ns + int(7.85 * MS)
    assert (frame["width"], frame["height"], frame["steps"], frame["rung"]) == (320, 180, 2, 0)
    assert (frame["mix"], frame["drift_state"], frame["drift_output"]) == (0.25, 0.5, -1.25)
    assert frame["flags"] == 1 << FLAGS.index("camera_cut")
    assert frame["cpu_ns"] == frame["answered_ns"] - frame["received_ns"]
    assert frame["rss_bytes"] > 1_000_000
    assert recorder.page({"since": 0})["reasons"][frame["reason"]] == "fading in"
    assert denoise.__doc__ == "The net."


def test_a_late_answer_is_a_miss_and_a_dropped_frame_is_kept(clock: Clock, recorder: Recorder) -> None:
    late = recorder.begin(1, 1, clock.now_ns, clock.now_ns + BUDGET_NS)
    clock.pass_ms(20)
    recorder.finish(late, "styled")
    dropped = recorder.begin(1, 2, clock.now_ns, clock.now_ns + BUDGET_NS)
    recorder.finish(dropped, "dropped", reason="the game left", rescued=True, reseeded=True)
    first, second = frames_of(recorder.page({"since": 0}))
    assert first["flags"] == 1
    assert KINDS[second["kind"]] == "dropped"
    assert second["flags"] == 0b10010


def test_outside_a_frame_a_stage_is_just_a_function(clock: Clock, recorder: Recorder) -> None:
    @staged("compose")
    def compose() -> int:
        clock.pass_ms(1)
        return 3

    assert compose() == 3
    activate(None)
    assert compose() == 3
    assert recorder.page({"since": 0})["next"] == 0
    with pytest.raises(KeyError):
        staged("cook")


def test_a_stage_that_raises_is_timed_and_raises(clock: Clock, recorder: Recorder) -> None:
    @staged("publish")
    def publish() -> None:
        clock.pass_ms(2)
        raise OSError("gone")

    row = recorder.begin(1, 1, clock.now_ns, clock.now_ns + BUDGET_NS)
    with pytest.raises(OSError, match="gone"):
        publish()
    recorder.finish(row, "dropped")
    assert frames_of(recorder.page({"since": 0}))[0]["publish_ns"] == 2 * MS


def test_a_stage_inside_a_stage_is_counted_once(clock: Clock, recorder: Recorder) -> None:
    @staged("publish")
    def publish() -> None:
        clock.pass_ms(0.5)

    @staged("compose")
    def compose() -> None:
        clock.pass_ms(2)
        publish()
        with recorder.stage("download"):
            clock.pass_ms(0.25)

    row = recorder.begin(1, 1, clock.now_ns, clock.now_ns + BUDGET_NS)
    compose()
    publish()
    recorder.finish(row, "styled")
    (frame,) = frames_of(recorder.page({"since": 0}))
    assert (frame["compose_ns"], frame["publish_ns"], frame["download_ns"]) == (2 * MS, MS, MS // 4)


def test_frames_of_a_batch_share_their_stages(clock: Clock, recorder: Recorder) -> None:
    rows = [recorder.begin(game, 1, clock.now_ns, clock.now_ns + BUDGET_NS) for game in (1, 2)]
    recorder.focus(*rows)
    assert recorder.rows_in_focus() == tuple(rows)
    with recorder.stage("denoise"):
        clock.pass_ms(3)
    for row in rows:
        recorder.focus(row)
        recorder.finish(row, "styled")
    assert [frame["denoise_ns"] for frame in frames_of(recorder.page({"since": 0}))] == [3 * MS, 3 * MS]


def test_an_unfinished_frame_is_not_shown_but_hides_the_rest_only_for_a_while(
    clock: Clock, recorder: Recorder
) -> None:
    recorder.begin(1, 1, clock.now_ns, clock.now_ns + BUDGET_NS)
    recorder.finish(recorder.begin(1, 2, clock.now_ns, clock.now_ns + BUDGET_NS), "styled")
    assert recorder.page({"since": 0})["next"] == 0
    for number in range(64):
        recorder.finish(recorder.begin(1, 3 + number, clock.now_ns, clock.now_ns), "styled")
    page = recorder.page({"since": 0})
    assert page["lost"] == 2, "the ring went round"
    assert page["next"] == 66


def test_pages_walk_the_ring_and_count_what_was_lost(clock: Clock, recorder: Recorder) -> None:
    for number in range(200):
        recorder.finish(recorder.begin(1, number, clock.now_ns, clock.now_ns + BUDGET_NS), "styled")
    page = recorder.page({"since": 0})
    assert (page["first"], page["lost"], page["end"]) == (136, 136, 200)
    seen = [frame["frame_id"] for frame in frames_of(page)]
    while page["next"] < page["end"]:
        page = recorder.page({"since": page["next"]})
        seen += [frame["frame_id"] for frame in frames_of(page)]
    assert seen == list(range(136, 200))
    assert recorder.page({"since": 200})["rows"] == b""
    assert recorder.page()["next"] == 200, "from now on"
    with pytest.raises(ValueError, match="since"):
        recorder.page({"since": -1})
    with pytest.raises(ValueError, match="since"):
        recorder.page({"since": "all"})


def test_a_full_page_fits_a_message(clock: Clock) -> None:
    with Recorder(4096, clock=clock, cpu_clock=clock) as recorder:
        for session in range(100):
            recorder.describe(
                session, size=[3840, 2160], delivery="newest", budget_ns=BUDGET_NS, style="x" * 40
            )
        for number in range(1000):
            row = recorder.begin(number, number, 1, 2)
            recorder.finish(row, "styled", reason=f"{number:048d}")
        page = recorder.page({"since": 0})
        packed = msgpack.packb({"type": "ok", "number": 1, "fields": page}, use_bin_type=True)
        assert len(packed) <= 64 * 1024
        assert page["next"] >= 80
        assert len(page["reasons"]) <= 250
        assert len(page["sessions"]) == 64


def test_a_collection_is_charged_to_its_frame(recorder: Recorder) -> None:
    with Recorder(8) as real:
        row = real.begin(1, 1, time.monotonic_ns(), time.monotonic_ns() + BUDGET_NS)
        gc.collect()
        real.finish(row, "styled")
        gc.collect()
        real.finish(real.begin(1, 2, 0, 0), "styled")
        real.finish(real.begin(1, 3, 0, 0), "styled")
        first, second, third = frames_of(real.page({"since": 0}))
    assert first["gc_ns"] > 10_000
    assert second["gc_ns"] > 10_000, "it delayed this one"
    assert third["gc_ns"] == 0
    assert real._on_gc not in gc.callbacks


def test_recording_costs_less_than_a_hundredth_of_the_budget() -> None:
    @staged("denoise")
    def nothing() -> None:
        return None

    best_ns = BUDGET_NS
    with Recorder(4096) as recorder:
        activate(recorder)
        for _ in range(20):
            start_ns = time.perf_counter_ns()
            for number in range(50):
                row = recorder.begin(1, number, start_ns, start_ns + BUDGET_NS)
                for _ in STAGES:
                    nothing()
                recorder.finish(row, "styled")
            best_ns = min(best_ns, (time.perf_counter_ns() - start_ns) // 50)
    assert best_ns < BUDGET_NS // 100


def test_a_recorder_needs_room() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Recorder(0)
    assert all(dtype in ("<i8", "<f8") for _, dtype in FIELDS)
    assert record.active() is None


# -- the GPU's clock -----------------------------------------------------------------------------------------


class Gpu:
    """A GPU with a clock of its own that starts elsewhere and runs a little fast."""

    def __init__(self, clock: Clock, offset_ns: int = 987_654_321, drift: float = 0.0) -> None:
        self.clock, self.offset_ns, self.drift = clock, offset_ns, drift
        self.busy_until_ns = 0
        self.made = 0

    def time(self, cpu_ns: int) -> float:
        return (cpu_ns + self.offset_ns) * (1 + self.drift)

    def work(self, ms: float) -> None:
        self.busy_until_ns = max(self.busy_until_ns, self.clock.now_ns) + int(ms * MS)

    def event(self) -> Event:
        self.made += 1
        return Event(self)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.at_ns = 0

    def record(self) -> None:
        self.at_ns = max(self.gpu.busy_until_ns, self.gpu.clock.now_ns)

    def query(self) -> bool:
        return self.gpu.clock.now_ns >= self.at_ns

    def elapsed_time(self, end_event: Event) -> float:
        return float(np.float32((self.gpu.time(end_event.at_ns) - self.gpu.time(self.at_ns)) / 1e6))


@pytest.mark.parametrize("drift", [0.0, 1e-4, -1e-4])
def test_gpu_times_come_later_and_on_the_cpu_s_clock(clock: Clock, drift: float) -> None:
    gpu = Gpu(clock, drift=drift)
    timer = record_clock(gpu, clock)
    truth = []
    with Recorder(4096, gpu=timer, clock=clock, cpu_clock=clock) as recorder:
        for number in range(600):
            row = recorder.begin(1, number, clock.now_ns, clock.now_ns + BUDGET_NS)
            with recorder.stage("upload"):
                clock.pass_ms(0.01)
                gpu.work(0.2)
            with recorder.stage("denoise"):
                truth.append(gpu.busy_until_ns)
                gpu.work(3.0)
                clock.pass_ms(0.02)
            with recorder.stage("publish"):
                clock.pass_ms(0.1)
            assert recorder.page({"since": row})["rows"] == b"", (
                "nothing is shown before the GPU's times are in"
            )
            clock.pass_ms(4)
            recorder.finish(row, "styled")
            clock.pass_ms(12)
        timer.resolve()
        page, frames = recorder.page({"since": 0}), []
        while page["rows"]:
            frames += frames_of(page)
            page = recorder.page({"since": page["next"]})
    assert len(frames) == 600
    for frame, began_ns in zip(frames[5:], truth[5:], strict=True):
        assert abs(frame["gpu_denoise_ns"] - 3 * MS) < 2_000
        assert abs(frame["gpu_denoise_start_ns"] - began_ns) < 1.5 * MS
        assert frame["denoise_ns"] == 0.02 * MS, "the CPU only enqueues"
        assert frame["received_ns"] <= frame["gpu_upload_start_ns"]
        assert frame["gpu_denoise_start_ns"] + frame["gpu_denoise_ns"] <= frame["answered_ns"]
    assert gpu.made < 20, "events are used again"


def test_a_gpu_that_hangs_costs_no_memory(clock: Clock) -> None:
    gpu = Gpu(clock)
    timer = record_clock(gpu, clock)
    with Recorder(4096, gpu=timer, clock=clock, cpu_clock=clock) as recorder:
        gpu.work(1e9)
        for number in range(1000):
            row = recorder.begin(1, number, clock.now_ns, clock.now_ns + BUDGET_NS)
            with recorder.stage("denoise"):
                clock.pass_ms(1)
            recorder.finish(row, "source")
        assert gpu.made <= 520
        assert timer.skipped > 700
        assert recorder.page({"since": 0})["end"] >= 700


def record_clock(gpu: Gpu, clock: Clock) -> Any:
    from mirage_plugin.profiler.gpu import GpuClock

    return GpuClock(gpu.event, clock)

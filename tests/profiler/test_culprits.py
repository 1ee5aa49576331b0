"""The report names the right culprit: a fault is planted, and found by name."""

from __future__ import annotations

import pytest

from mirage_plugin.profiler.culprits import CAUSES, culprits, verdict, worst_frames
from mirage_plugin.profiler.record import STAGES
from mirage_plugin.profiler.statistics import summary
from tests.profiler.planted import Planted, every


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("told", [True, False])
def test_a_stall_of_5_ms_is_found_in_its_stage(stage: str, told: bool) -> None:
    if stage == "deliver" and not told:
        pytest.skip("only the game can tell when it had the answer")
    recording = Planted(every(50, **{stage: 5.0}), told=told).record()
    first = culprits(recording)[0]
    assert first.cause == stage
    assert first.frames == first.missed == 8
    assert 4.5 < first.worst_ms < 5.5
    assert first.worst_frame % 50 == 0
    assert verdict(recording).startswith(f"{stage} took ")
    assert verdict(recording).endswith(" ms longer than usual in 8 frames (8 missed)")
    assert summary(recording)["culprits"][0]["cause"] == stage


def test_a_garbage_collection_is_not_blamed_on_its_stage() -> None:
    first = culprits(Planted(every(100, gc=6.0)).record())[0]
    assert (first.cause, first.frames) == ("garbage collection", 4)
    assert 5.8 < first.worst_ms < 6.2


def test_another_process_on_the_core_is_not_blamed_on_the_net() -> None:
    first = culprits(Planted(every(40, preempted=8.0)).record())[0]
    assert (first.cause, first.frames) == ("another process", 10)
    assert first.sentence.startswith("another process had the core for ")
    assert 7.5 < first.worst_ms < 8.5


@pytest.mark.parametrize("told", [True, False])
def test_a_slow_game_is_told_from_a_slow_sidecar(told: bool) -> None:
    recording = Planted(every(20, game=9.0), told=told).record()
    (only,) = culprits(recording)
    assert (only.cause, only.frames, only.missed) == ("slow client", 20, 0)
    assert "the game itself took 9.0 ms longer" in only.sentence


def test_a_game_that_asks_late_misses_by_its_own_fault() -> None:
    first = culprits(Planted(every(25, asks_late=7.0)).record())[0]
    assert (first.cause, first.frames, first.missed) == ("slow client", 16, 16)
    assert "asked 7.0 ms late" in first.sentence


@pytest.mark.parametrize(
    ("how", "words"), [("skipped", "passed over for newer ones"), ("given up", "taken and never answered")]
)
def test_dropped_frames_are_counted_and_told(how: str, words: str) -> None:
    recording = Planted(drop=lambda frame: how if frame % 80 == 7 else "").record()
    first = culprits(recording)[0]
    assert (first.cause, first.frames) == ("dropped frame", 5)
    assert words in first.sentence


def test_two_faults_are_two_culprits_and_the_worse_comes_first() -> None:
    def stall(frame: int) -> dict[str, float]:
        if frame % 20 == 0:
            return {"compose": 5.0}
        return {"upload": 6.0} if frame % 90 == 1 else {}

    causes = [each.cause for each in culprits(Planted(stall).record())]
    assert causes[:2] == ["compose", "upload"]


def test_a_quiet_run_has_no_culprit() -> None:
    recording = Planted().record()
    assert culprits(recording) == ()
    assert verdict(recording) == "every frame was answered well within its budget"


def test_a_sidecar_that_is_always_too_slow_is_told_where_its_time_goes() -> None:
    recording = Planted(scale=1.6).record()
    first = culprits(recording)[0]
    assert (first.cause, first.frames) == ("everything", 400)
    assert "denoise takes 11.2 ms" in first.sentence


def test_two_games_are_measured_each_by_its_own_usual() -> None:
    fast, slow = Planted(scale=0.5, session=1, told=False).record(), Planted(session=2, told=False).record()
    assert culprits(fast) == culprits(slow) == ()


def test_worst_frames_and_names() -> None:
    recording = Planted(every(150, denoise=5.0)).record()
    worst = worst_frames(recording, 2)
    assert sorted(int(recording.frames["frame_id"][row]) for row in worst) == [150, 300]
    assert set(STAGES) < set(CAUSES)
    assert culprits(recording.only(recording.frames["frame_id"] < 0)) == ()

"""Figures by their definitions, and comparisons that tell chance from change."""

from __future__ import annotations

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from mirage_plugin.errors import DataError
from mirage_plugin.profiler import statistics
from mirage_plugin.profiler.compare import compare
from mirage_plugin.profiler.record import STAGES
from tests.profiler.planted import USUAL_MS, Planted, every


def test_percentiles_are_times_that_were_measured() -> None:
    values = np.arange(1.0, 1001.0)
    assert statistics.percentiles(values) == {
        "p50": 500.0,
        "p95": 950.0,
        "p99": 990.0,
        "p99_9": 999.0,
        "max": 1000.0,
    }
    assert statistics.percentile(np.array([7.0]), 99.9) == 7.0
    assert statistics.percentiles(np.empty(0))["max"] == 0.0


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300), st.floats(0.1, 100))
def test_percentile_is_the_smallest_that_enough_do_not_exceed(values: list[float], percent: float) -> None:
    array = np.array(values)
    found = statistics.percentile(array, percent)
    assert found in values
    assert (array <= found).mean() * 100 >= percent - 1e-6
    below = array[array < found]
    assert below.size * 100 < percent * array.size + 1e-6


def test_lows_are_the_mean_of_the_slowest() -> None:
    times = np.full(1000, 10.0)
    times[:10] = 40.0
    times[0] = 80.0
    assert statistics.low_fps(times, 1.0) == pytest.approx(1000 / 44.0, abs=0.01)
    assert statistics.low_fps(times, 0.1) == 12.5
    assert statistics.low_fps(times[:20], 1.0) == 12.5, "one frame at least"
    assert statistics.low_fps(np.empty(0), 1.0) == 0.0


def test_the_summary_has_what_it_promises() -> None:
    recording = Planted(every(50, denoise=5.0)).record()
    figures = statistics.summary(recording)
    assert figures["frames"] == 400
    assert figures["budget_ms"] == 16.67
    assert figures["answered"] == {"styled": 392, "reprojected": 0, "source": 0}
    assert figures["missed"] == 8
    assert figures["end_to_end_ms"]["p50"] == pytest.approx(12.6, abs=0.1)
    assert figures["end_to_end_ms"]["max"] == pytest.approx(17.6, abs=0.9)
    assert figures["service_ms"]["p50"] == pytest.approx(12.1, abs=0.1)
    assert set(figures["stages_ms"]) == set(STAGES)
    for stage, usual in USUAL_MS.items():
        assert figures["stages_ms"][stage]["p50"] == pytest.approx(usual, rel=0.05)
    assert (figures["size"], figures["tier"], figures["device"], figures["sessions"]) == (
        [640, 360],
        "nano",
        "cpu",
        1,
    )
    assert figures["low_1pct_fps"] == pytest.approx(1000 / 20.1, abs=1)
    assert figures["fps"] == pytest.approx(60, abs=1)
    assert figures["motion_to_photon_ms"]["p50"] == pytest.approx(15.1, abs=0.2)
    assert figures["working_sizes"] == {"640x360": 400}
    decoded = HdrHistogram.decode(figures["end_to_end_hdr"])
    assert decoded.get_total_count() == 400
    assert decoded.get_value_at_percentile(50) / 1000 == pytest.approx(
        figures["end_to_end_ms"]["p50"], rel=0.01
    )


def test_without_a_game_that_tells_it_ends_at_the_sidecar_and_says_so() -> None:
    figures = statistics.summary(Planted(every(50, denoise=5.0), told=False).record())
    assert figures["end_to_end_is"] == "publish to the sidecar's publish"
    assert figures["stages_ms"]["deliver"]["max"] == 0.0
    assert figures["answered"]["styled"] == 400, "late answers were answers"
    assert figures["missed"] == 8


def test_nothing_recorded_is_nothing() -> None:
    recording = Planted(frames=1).record()
    figures = statistics.summary(recording.only(np.zeros(1, bool)))
    assert figures["end_to_end_ms"]["max"] == 0.0
    empty = Planted(frames=1, told=False).record().only(np.zeros(1, bool))
    assert statistics.summary(empty)["frames"] == 0


# -- comparing -----------------------------------------------------------------------------------------------


def test_the_same_twice_is_the_same() -> None:
    for seed in range(4):
        found = compare(Planted(seed=2 * seed).record(), Planted(seed=2 * seed + 1).record())
        assert not found.worse
        assert {change.verdict for change in found.changes} == {"same"}
        assert found.remarks == ()


def test_a_slower_stage_is_found_and_named() -> None:
    found = compare(Planted(seed=1).record(), Planted(lambda _: {"compose": 0.4}, seed=2).record())
    assert found.worse
    verdicts = {change.name: change.verdict for change in found.changes}
    assert verdicts["compose p50"] == verdicts["end to end p50"] == "worse"
    assert verdicts["denoise p50"] == verdicts["missed"] == "same"
    change = next(each for each in found.changes if each.name == "compose p50")
    assert change.low <= 0.4 <= change.high
    back = compare(Planted(lambda _: {"compose": 0.4}, seed=2).record(), Planted(seed=1).record())
    assert not back.worse
    assert "better" in {each.verdict for each in back.changes}


def test_misses_are_worse_even_where_the_median_is_not() -> None:
    found = compare(
        Planted(seed=1, frames=800).record(), Planted(every(20, denoise=6.0), 800, seed=2).record()
    )
    verdicts = {change.name: change.verdict for change in found.changes}
    assert found.worse
    assert verdicts["missed"] == "worse"
    assert verdicts["answered by the net"] == "worse"
    assert verdicts["end to end p50"] == "same"


def test_a_tiny_difference_does_not_matter_however_sure() -> None:
    found = compare(Planted(seed=1).record(), Planted(lambda _: {"compose": 0.02}, seed=2).record())
    assert not found.worse


def test_what_cannot_be_compared_is_said() -> None:
    told, not_told = Planted().record(), Planted(told=False).record()
    assert any("only A has the games' own times" in each for each in compare(told, not_told).remarks)
    with pytest.raises(DataError, match="A has 20 frames"):
        compare(Planted(frames=20).record(), told)

"""Sizes, tiers and settings: what is taken, and what a refusal says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_plugin.config import MAX_SIDE_PX, ServeConfig, TrainConfig, choose_tier, parse_size
from mirage_plugin.errors import ConfigError, MirageError, UnknownStyleError, closest


@given(st.integers(1, MAX_SIDE_PX), st.integers(1, MAX_SIDE_PX), st.sampled_from("xX×"))
def test_every_size_in_range_is_read(width: int, height: int, sign: str) -> None:
    assert parse_size(f"{width}{sign}{height}") == (width, height)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0x360", "width in '0x360' must be from 1"),
        ("640x0", "height in '640x0'"),
        ("-640x360", "width"),
        ("640x-1", "height"),
        ("16385x1", "to 16384"),
        ("640", "WIDTHxHEIGHT"),
        ("640x360x3", "WIDTHxHEIGHT"),
        ("6.4x3", "WIDTHxHEIGHT"),
        ("\u0666\u0664x\u0663\u0666", "WIDTHxHEIGHT"),
        ("", "WIDTHxHEIGHT"),
        ("9" * 100_000 + "x1", "WIDTHxHEIGHT"),
    ],
)
def test_a_size_out_of_range_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_size(text)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_no_text_does_worse_than_a_config_error(text: str) -> None:
    try:
        width, height = parse_size(text)
    except ConfigError:
        return
    assert 1 <= width <= MAX_SIDE_PX
    assert 1 <= height <= MAX_SIDE_PX


@pytest.mark.parametrize(
    ("available", "gpu", "tier"),
    [
        ({"nano", "small", "base"}, {}, "nano"),
        ({"nano", "small", "base"}, {"multiprocessors": 24, "memory_bytes": 8_000_000_000}, "small"),
        ({"nano", "small", "base"}, {"multiprocessors": 132, "memory_bytes": 150_000_000_000}, "base"),
        ({"nano", "small", "base"}, {"multiprocessors": 132, "memory_bytes": 8_000_000_000}, "small"),
        ({"nano"}, {"multiprocessors": 132, "memory_bytes": 150_000_000_000}, "nano"),
        ({"nano", "base"}, {"multiprocessors": 24, "memory_bytes": 8_000_000_000}, "nano"),
        ({"base"}, {}, "base"),
    ],
)
def test_auto_takes_the_best_tier_that_has_weights(
    available: set[str], gpu: dict[str, int], tier: str
) -> None:
    assert choose_tier(available, **gpu) == tier


def test_auto_without_any_weights_says_how_to_get_some() -> None:
    with pytest.raises(ConfigError, match="mirage train"):
        choose_tier(set())


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (ServeConfig, {"tier": "huge"}, "auto, nano, small, base"),
        (ServeConfig, {"tier": "smal"}, "did you mean small"),
        (ServeConfig, {"device": "tpu"}, "device must be one of"),
        (ServeConfig, {"steps": 3}, "1, 2, 4"),
        (ServeConfig, {"threads": 0}, "threads must be from 1"),
        (ServeConfig, {"style": "  "}, "mirage styles"),
        (TrainConfig, {"tier": "auto"}, "nano, small, base"),
        (TrainConfig, {"minutes": 0.0}, "more than 0"),
        (TrainConfig, {"minutes": float("nan")}, "more than 0"),
        (TrainConfig, {"minutes": float("inf")}, "more than 0"),
        (TrainConfig, {"seed": -1}, "seed must be from 0"),
        (TrainConfig, {"data": Path("/no/such/folder")}, "not a folder of training pairs"),
        (TrainConfig, {"start": Path("/no/such/file")}, "not a file of weights"),
        (TrainConfig, {"ablation": "no-memry"}, "did you mean no-memory"),
        (TrainConfig, {"ablation": "no-memory"}, "--from"),
        (TrainConfig, {"ablation": "no-correction"}, "nothing to train"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(kind: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kind(**fields)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServeConfig().steps = 2  # type: ignore[misc]


def test_a_run_lies_under_its_tier_unless_told() -> None:
    assert TrainConfig(tier="small").run_directory == Path("runs/small")
    assert TrainConfig(out=Path("elsewhere")).run_directory == Path("elsewhere")
    ablation = {"ablation": "no-warp", "start": Path(__file__)}
    assert TrainConfig(**ablation).run_directory == Path("runs/ablations/no-warp")  # type: ignore[arg-type]
    assert TrainConfig(**ablation, out=Path("x")).run_directory == Path("x/no-warp")  # type: ignore[arg-type]


def test_an_unknown_style_names_the_closest() -> None:
    error = UnknownStyleError("Watercolor", ["ink", "watercolour", "noir"])
    assert "did you mean watercolour?" in str(error)
    assert error.known == ("ink", "noir", "watercolour")
    assert "mirage styles" in str(UnknownStyleError("zzz", ["ink"]))
    assert isinstance(error, MirageError)
    assert isinstance(error, ValueError)


def test_closest_ignores_case_and_keeps_the_spelling() -> None:
    assert closest("NOIR", ["Noir", "ink"]) == ["Noir"]
    assert closest("", ["Noir"]) == []

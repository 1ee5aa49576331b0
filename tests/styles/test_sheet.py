"""`mirage styles`: the list, the sheet and the data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mirage_plugin.errors import OutputError
from mirage_plugin.styles import preset_names, show
from mirage_plugin.styles.sheet import draw_styles, presets, showcase


def test_the_list_and_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(json=tmp_path / "deep" / "styles.json")
    printed = capsys.readouterr().out
    assert all(name in printed for name in preset_names())
    rows = json.loads((tmp_path / "deep" / "styles.json").read_text())["styles"]
    assert {row["name"] for row in rows} == set(preset_names())
    snow = next(row for row in rows if row["name"] == "snow")
    assert snow["family"] == "weather"
    assert snow["parameters"]["cover"] > 0.8
    assert snow["caption"]


def test_the_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirage_plugin.styles.sheet.TILE", (64, 36))
    show(sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 6 * 64
        assert sheet.height > len(preset_names()) // 6 * 36


def test_styles_are_told_apart_and_can_be_seen() -> None:
    g = showcase(96, 54)
    source, drawn = draw_styles(g, [p.style for p in presets()])
    assert source.shape == (3, 54, 96)
    for preset, picture in zip(presets(), drawn, strict=True):
        assert bool(picture.isfinite().all())
        contrast = float(picture.mean(0).std())
        assert contrast > 0.04, f"{preset.style.name} shows nothing: {contrast:.3f}"
        assert 0.08 < float(picture.mean()) < 0.95, preset.style.name
    flat = drawn.flatten(1)
    distance = torch.cdist(flat, flat) / flat.shape[1] ** 0.5 + torch.eye(len(flat))
    assert float(distance.min()) > 0.03, "two styles look the same"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        show(json=tmp_path / "file" / "styles.json")

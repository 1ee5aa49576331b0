"""A minute watched: what counts as flicker, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.reuse import Clip
from benchmarks.watch import Watched, compare, main


def test_a_patch_that_flashes_is_found_and_shown() -> None:
    still = Clip("x", [], [], torch.zeros(4, 2, 144, 160), torch.ones(4, 1, 144, 160, dtype=torch.bool))
    source = torch.rand(1, 3, 144, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    calm, flash = source * 0.5, source * 0.5
    flash[..., 64:88, 80:104] += 0.4
    found = Watched("snow")
    frames = [(answer, source) for answer in (calm, calm, flash, calm)]
    for t in (1, 2, 3):
        compare(found, t, still, t, frames[t - 1 : t + 1])
    assert found.rows[0][0] == pytest.approx(0, abs=1e-3)
    assert found.rows[1][0] == pytest.approx(0.4 * 127.5 * 24 * 24 / (144 * 160), abs=0.01)
    assert found.rows[1][2] == pytest.approx(51, abs=2)
    number, row, column = found.at
    assert number == 2
    assert (row, column) == (64, 80)
    before, worst, after = found.pictures[:3]
    assert torch.equal(before, after)
    assert (worst - before).max() == pytest.approx(0.4, abs=1e-5)
    figures = found.figures()
    assert figures["frames"] == 3
    assert figures["worst_patch"] == pytest.approx(51, abs=2)


def test_what_the_game_does_itself_is_no_flicker() -> None:
    moved = Clip("x", [], [], torch.full((2, 2, 144, 160), 3.0), torch.ones(2, 1, 144, 160, dtype=torch.bool))
    source = torch.rand(1, 3, 144, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    dimmed = source * 0.6
    found = Watched("snow")
    compare(found, 1, moved, 1, [(source, source), (dimmed, dimmed)])
    assert found.rows[0][2] == pytest.approx(0, abs=1e-3)
    assert found.rows[0][0] == pytest.approx(found.rows[0][1])


def test_it_is_watched_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--frames", "4", "--styles", "ink,lava", "--out", str(tmp_path / "w")]) == 0
    result = json.loads((tmp_path / "w" / "watch.json").read_text())
    assert [row["style"] for row in result["styles"]] == ["ink", "lava"]
    assert result["frames"] == 8
    assert result["corrections"] == 0
    for row in result["styles"]:
        assert row["frames"] == 3
        assert 0 < row["mean_change"] <= row["worst_change"]
    for name in ("watch.png", "worst.png"):
        assert np.asarray(Image.open(tmp_path / "w" / name)).std() > 1
    assert (tmp_path / "w" / "watch.mp4").stat().st_size > 10_000
    assert "lava" in capsys.readouterr().out


def test_bad_wishes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--frames", "1", "--out", str(tmp_path)]) == 2
    assert "--frames must be at least 3" in capsys.readouterr().err
    assert main(["--frames", "4", "--styles", "snwo", "--out", str(tmp_path)]) == 2
    assert "snow" in capsys.readouterr().err

"""What is drawn of each effect: none by a net that is untrained, all by one that knows the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import effects
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.train.batch import Batch


@pytest.fixture
def net() -> MirageNet:
    torch.manual_seed(0)
    return MirageNet(TIERS["nano"]).eval()


def test_who_knows_the_truth_draws_all_of_it(net: MirageNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: MirageNet, batch: Batch) -> Tensor:
        return batch.truth if bool(batch.has_depth.all()) else batch.source

    monkeypatch.setattr(effects, "answer_clip", answer)
    monkeypatch.setattr(effects, "SCENES", ("town",))
    rows = effects.measure(net, 1, size=(64, 96))
    assert [row["effect"] for row in rows] == list(effects.EFFECTS)
    seen = [row for row in rows if row["size"]]
    assert len(seen) > 20
    assert all((row["planes"], row["colours"]) == (1.0, 0.0) for row in seen)
    assert all(row["planes"] is None for row in rows if not row["size"])


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {"effect": "fog", "size": 0.07, "planes": 0.99, "colours": 0.8}
    monkeypatch.setattr(effects, "measure", lambda *_: [row])
    assert effects.main(["--json", str(tmp_path / "e.json")]) == 0
    assert "0.99" in capsys.readouterr().out
    assert json.loads((tmp_path / "e.json").read_text())["effects"] == [row]


def test_weights_that_are_missing_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert effects.main(["--weights", str(tmp_path / "none.safetensors")]) == 2
    assert capsys.readouterr().err.startswith("effects: ")

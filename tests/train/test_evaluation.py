"""`mirage eval`: its rows, its files, and what it says where something is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mirage_plugin.errors import ConfigError, DataError, OutputError, WeightsError
from mirage_plugin.model.checkpoint import save_network
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.styles import load_style
from mirage_plugin.train import endurance, evaluation
from mirage_plugin.train.batch import Batch, clip_noise, render_pair
from mirage_plugin.train.endurance import loop_clip
from mirage_plugin.train.evaluation import answer_clip, evaluate, load_judged, pair_batch, rgb_alone
from mirage_plugin.train.metrics import psnr
from mirage_plugin.train.report import Bar, Row, contact_sheet, write_rows
from mirage_plugin.train.sample_game import examples_directory, game_clips
from mirage_plugin.train.worlds import held_out

NO_GAME = DataError("the sample game is not here")


@pytest.fixture
def weights(net: MirageNet, tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "nano.safetensors"
    save_network(net, path)
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As little of everything as shows that it works."""
    monkeypatch.setattr(evaluation, "QUICK", evaluation.Scale(1, 2, 1, 1, 1))
    monkeypatch.setattr(evaluation, "SCENES", ("town", "top"))
    monkeypatch.setattr(evaluation, "HEIGHT", 32)
    monkeypatch.setattr(evaluation, "WIDTH", 96)
    monkeypatch.setattr(endurance, "QUICK", endurance.Length(6, 30, 36))
    monkeypatch.setattr(endurance, "FAMILIES", ("town", "abstract"))
    monkeypatch.setattr(endurance, "STICK_FRAMES", 4)
    monkeypatch.setattr(endurance, "GAME_SIZE", (96, 64))
    monkeypatch.setattr(endurance, "HEIGHT", 32)
    monkeypatch.setattr(endurance, "WIDTH", 96)


def no_game(*_: object, **__: object) -> Any:
    raise NO_GAME


def check(row: dict[str, Any]) -> None:
    assert {"row", "tier", "value", "unit", "baselines", "bar", "met"} <= row.keys()
    assert set(row["baselines"]) == {"identity", "oracle_lut", "per_frame"}
    assert row["tier"] == "nano"
    assert row["value"] is None or isinstance(row["value"], float)
    assert row["met"] in (True, False, None)


def test_the_picture(
    small: None,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluation, "game_clips", no_game)
    out = tmp_path / "out"
    found = []
    for name in ("a", "b"):
        evaluate(quick=True, out=out, json=tmp_path / f"{name}.json", weights=weights)
        found.append(json.loads((tmp_path / f"{name}.json").read_text())["rows"])
    assert found[0] == found[1], "the same arguments give the same figures"
    rows = {row["row"]: row for row in found[0]}
    for row in rows.values():
        check(row)
    head = rows["PSNR over the oracle LUT"]
    assert head["baselines"]["oracle_lut"] == 0
    assert head["met"] is False, "nonsense does not beat colour grading"
    assert rows["sample game over the oracle LUT"]["value"] is None
    assert rows["sample game over the oracle LUT"]["note"] == str(NO_GAME)
    assert rows["2 steps over 1, PSNR"]["value"] is not None
    assert rows["planes given over RGB alone"]["value"] is not None
    first = next(line for line in capsys.readouterr().out.splitlines() if line.strip())
    assert first.startswith("PSNR over the oracle LUT: ")
    for name in ("unseen.png", "gains.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 300


def test_over_time(small: None, weights: Path, tmp_path: Path) -> None:
    evaluate(quick=True, time=True, out=tmp_path, json=tmp_path / "t.json", weights=weights, tier="nano")
    data = json.loads((tmp_path / "t.json").read_text())
    assert data["time"] is True
    rows = {row["row"]: row for row in data["rows"]}
    for row in rows.values():
        check(row)
    assert rows["memory pays: closed loop over per frame"]["baselines"]["per_frame"] == 0
    assert rows["memory pays: closed loop over per frame"]["value"] != 0
    for given in ("all planes", "RGB alone"):
        assert rows[f"- the sample game, {given}"]["value"] != 0
        assert "warping error" in rows[f"- the sample game, {given}"]["note"]
    assert rows["poisoned memory: frames until within 0.5 dB"]["value"] >= 0
    assert rows["a frame of NaN: frames it spoils"]["value"] >= 1
    assert rows["still camera, largest change of any pixel"]["value"] is not None
    for steps in (1, 2, 4):
        # On these pictures, made by a network of nonsense, as on any: the same answers.
        assert rows[f"steps {steps}: PSNR in parallel"]["met"] is True
        assert rows[f"steps {steps}: latency in parallel"]["value"] == steps - 1
        assert rows[f"steps {steps}: throughput, parallel over sequence"]["value"] > 0
    assert (tmp_path / "long.png").is_file()


def a_batch(frames: int = 3) -> Batch:
    g = loop_clip(5, "town", 12, 32, 96).frames(0, frames)
    rng, noise = torch.Generator().manual_seed(0), clip_noise(g, 1)
    source, truth, parameters = render_pair(g, [load_style("ink")] * frames, noise, rng)
    return pair_batch([(g, source, truth, noise, parameters)] * 2, torch.device("cpu"))


def test_a_clip_is_answered_in_closed_loop(net: MirageNet) -> None:
    batch = a_batch()
    closed, alone = answer_clip(net, batch), answer_clip(net, batch, memory=False)
    assert closed.shape == batch.source.shape
    assert torch.equal(closed[0], alone[0]), "the first frame remembers nothing"
    assert not torch.equal(closed[1], alone[1])
    # Not bit for bit: torch takes the last few numbers of a tensor by another exponential than the vectors before.
    assert torch.allclose(closed[:, 0], closed[:, 1], atol=1e-4), "clips of a batch do not see one another"
    # Without motion and visibility, planes on or off is all that differs.
    assert not torch.equal(answer_clip(net, rgb_alone(batch))[0], closed[0])


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_answers_in_parallel_are_those_in_sequence(net: MirageNet, steps: int) -> None:
    batch = a_batch(4)
    cut = batch.cut.clone()
    cut[2] = True
    batch = replace(batch, cut=cut)
    wanted, found = answer_clip(net, batch, steps=steps, steady=False), endurance.answer_in_parallel(net, batch, steps)
    assert found.shape == wanted.shape
    # Sums in another order; a step of 255 that one of them rounds away is seen by the next step.
    assert float((found - wanted).abs().mean()) < 1e-4
    assert float((wanted - batch.source).abs().mean()) > 1e-2


def test_a_cut_empties_the_memory(net: MirageNet) -> None:
    batch = a_batch()
    cut = batch.cut.clone()
    cut[2] = True
    told = answer_clip(net, replace(batch, cut=cut))
    assert torch.equal(told[2], answer_clip(net, batch, memory=False)[2])


def test_no_answer_depends_on_the_truth(net: MirageNet) -> None:
    batch = a_batch()
    other = replace(batch, truth=torch.zeros_like(batch.truth))
    assert torch.equal(answer_clip(net, batch, steps=2), answer_clip(net, other, steps=2))


def test_styles_of_the_evaluation_cover_the_held_out_region() -> None:
    styles = evaluation._unseen_styles(torch.Generator().manual_seed(1), evaluation.QUICK)
    assert [held_out(style) for style, _ in styles] == [is_held_out for _, is_held_out in styles]
    assert {is_held_out for _, is_held_out in styles} == {True, False}


def test_weights_are_found_or_asked_for(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_judged("auto", weights).tier.name == "nano"
    with pytest.raises(WeightsError, match="tier 'nano', not 'base'"):
        load_judged("base", weights)
    with pytest.raises(ConfigError, match="tier must be one of"):
        load_judged("huge", weights)
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="safetensors"):
        load_judged("auto", tmp_path / "x.safetensors")
    monkeypatch.setattr(evaluation, "weights_path", lambda tier: tmp_path / f"{tier}.safetensors")
    with pytest.raises(ConfigError, match="mirage train"):
        load_judged("auto", None)


def test_an_ablation_is_named(
    net: MirageNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row("PSNR over the oracle LUT", "nano", 1.0, "dB", Bar())]
    monkeypatch.setattr(evaluation, "_picture_rows", lambda *_: rows)
    for name in ("no-warp", None):
        save_network(net, tmp_path / "w.safetensors", {"ablation": name} if name else {})
        evaluate(out=tmp_path, json=tmp_path / "a.json", weights=tmp_path / "w.safetensors")
        assert json.loads((tmp_path / "a.json").read_text())["ablation"] == name
        assert ("ablation 'no-warp'" in capsys.readouterr().out) == (name is not None)


def test_an_output_that_cannot_be_written(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        evaluate(quick=True, out=tmp_path / "file" / "out", weights=weights)
    with pytest.raises(OutputError, match="cannot be written"):
        write_rows(tmp_path / "file" / "x.json", [], {})
    with pytest.raises(OutputError, match="cannot be written"):
        contact_sheet(tmp_path / "file" / "x.png", ["a"], [("b", [torch.zeros(3, 8, 8)])])


@pytest.mark.parametrize(
    ("bar", "value", "met", "text"),
    [
        (Bar(4), 4.0, True, ">= 4"), (Bar(4), 3.99, False, ">= 4"), (Bar(None, 1.1), 1.2, False, "<= 1.1"),
        (Bar(0.8, 1.2), 1.0, True, "0.8 to 1.2"), (Bar(0.8, 1.2), 1.3, False, "0.8 to 1.2"),
        (Bar(), 9.0, None, "-"), (Bar(4), None, None, ">= 4"), (Bar(4), float("nan"), None, ">= 4"),
    ],
)  # fmt: skip
def test_bars(bar: Bar, value: float | None, met: bool | None, text: str) -> None:
    row = Row("r", "nano", value, "dB", bar).plain()
    assert row["met"] is met
    assert row["bar"] == text
    json.dumps(row, allow_nan=False)


def test_the_worst_slope_is_the_one_that_falls() -> None:
    rng = torch.Generator().manual_seed(0)
    laps = 25 + 0.05 * torch.randn(40, 3, generator=rng)
    flat = endurance._worst_slope(laps.numpy(), 10)
    assert flat[1] < 0.3
    laps[:, 1] -= torch.arange(40) * 0.05
    slope, beyond = endurance._worst_slope(laps.numpy(), 10)
    assert slope == pytest.approx(-5.0, abs=0.5)
    assert beyond > 4


def test_an_untrained_network_is_identity_in_the_table(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MirageNet(TIERS["nano"]).eval()
    batch = a_batch(2)
    answer = answer_clip(net, batch)
    assert float((psnr(answer[1], batch.truth[1]) - psnr(batch.source[1], batch.truth[1])).abs().max()) < 1e-4


@pytest.mark.skipif(not examples_directory().is_dir(), reason="the sample game comes with a checkout")
def test_the_sample_game_is_a_world() -> None:
    ((source, g),) = game_clips(1, 2, 96, 64, apart=3)
    assert source.shape == (2, 3, 64, 96)
    assert 0 <= float(source.min()) <= float(source.max()) <= 1
    for name, plane in vars(g).items():
        assert bool(plane.float().isfinite().all()), name
    assert torch.allclose(g.normal.float().norm(dim=1), torch.ones(2, 64, 96), atol=0.02)
    assert float(g.visible[1].float().mean()) > 0.5
    source2, truth = render_pair(
        g, [load_style("ink")] * 2, clip_noise(g, 1), torch.Generator().manual_seed(0)
    )[:2]
    assert bool(truth.isfinite().all())
    assert source2.shape == truth.shape

"""The table of ablations: which weights it takes, how it plays them, and what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.ablations import find, main, measure
from mirage_plugin.config import ABLATIONS
from mirage_plugin.errors import DataError
from mirage_plugin.model.checkpoint import save_network, save_tensors
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.train import endurance
from mirage_plugin.train.objective import ABLATED, FULL

TRAINED = ("full", "truth-fed", "no-memory", "white-start")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def net() -> MirageNet:
    """Nano that draws nonsense, which depends on everything it sees."""
    torch.manual_seed(0)
    made = MirageNet(TIERS["nano"])
    made.begin_training()
    with torch.no_grad():
        for layer in (made.head_matrices, made.head_words, made.head_detail):
            layer.weight.normal_(0, 0.02)
    return made.eval()


@pytest.fixture
def folder(net: MirageNet, tmp_path: Path) -> Path:
    """The same weights under several names: what differs is how they are played."""
    for name in TRAINED:
        save_network(net, tmp_path / name / "nano.safetensors", {"ablation": name, "steps": "7"})
    # What lies in a run's folder besides.
    save_tensors("reference", {"x": torch.zeros(1)}, tmp_path / "full" / "reference.safetensors", {"ablation": "full"})
    save_network(net, tmp_path / "nano.safetensors")
    return tmp_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endurance, "FAMILIES", ("town", "abstract"))
    monkeypatch.setattr(endurance, "QUICK", endurance.Length(4, 12, 12))
    monkeypatch.setattr(endurance, "HEIGHT", 32)
    monkeypatch.setattr(endurance, "WIDTH", 64)


def test_ablations_are_found_by_what_their_headers_say(net: MirageNet, folder: Path) -> None:
    assert [one.name for one in find(folder)] == [name for name in ABLATIONS if name in TRAINED]
    assert {(one.tier, one.steps) for one in find(folder)} == {("nano", 7)}
    with pytest.raises(DataError, match="--ablation full"):
        find(folder / "no-memory")
    save_network(net, folder / "again.safetensors", {"ablation": "full"})
    with pytest.raises(DataError, match="are both 'full'"):
        find(folder)
    (folder / "again.safetensors").write_bytes(b"cut off")
    with pytest.raises(DataError, match="not a whole weights file"):
        find(folder)


def test_the_table(small: None, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out" / "a.json"
    assert main([str(folder), "--quick", "--frames", "12", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [*TRAINED, "float memory", "no-correction"]
    full = rows["full"]
    rounded = rows["float memory"]["closed_loop_db"] - full["closed_loop_db"]
    assert 0 < abs(rounded) < 0.5, "eight bits are a little off"
    assert full["full_is_better_by_db"] is None
    assert full["per_frame_db"] != full["closed_loop_db"]
    assert len(full["laps_db"]) == result["frames"] / result["frames_a_lap"] == 3
    for name in TRAINED[1:]:
        better = full["closed_loop_db"] - rows[name]["closed_loop_db"]
        assert rows[name]["full_is_better_by_db"] == pytest.approx(better)
        assert better != 0, f"{name} is played as the full network is"
    # What has no memory is the full network's frames by themselves, and has nothing to lose.
    assert rows["no-memory"]["closed_loop_db"] == pytest.approx(full["per_frame_db"], abs=0.2)
    assert [name for name in TRAINED if rows[name]["truth_fed_db"] is not None] == ["truth-fed"]
    assert rows["no-correction"]["closed_loop_db"] is None, "these weights know no bounds"
    said = capsys.readouterr().out
    assert all(f"| {name} | 7 |" in said for name in TRAINED)
    assert out.with_suffix(".md").read_text() in said
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.width > 300


def test_a_folder_without_ablations_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no full network" in capsys.readouterr().err


def test_the_full_network_is_played_as_everywhere(small: None, net: MirageNet) -> None:
    batch = endurance._loops(0, 4, torch.device("cpu"))
    plain, ablated = endurance.Play(net, batch), endurance._AblatedPlay(net, batch, FULL)
    for t in range(6):
        assert torch.equal(plain.step(batch, t % 4), ablated.step(batch, t % 4))
    assert torch.equal(plain.stored, ablated.stored)


def test_what_is_left_out_is_left_out_of_play(small: None, net: MirageNet) -> None:
    batch = endurance._loops(0, 4, torch.device("cpu"))

    def stored(name: str, other: object = batch, *, told: bool = False) -> torch.Tensor:
        play = endurance._AblatedPlay(net, batch, ABLATED[name], told=told)
        for t in range(3):
            play.step(other, t)  # type: ignore[arg-type]
        return play.stored

    untold = replace(batch, truth=-batch.truth)
    assert torch.equal(stored("truth-fed"), stored("truth-fed", untold)), "at play there is no truth"
    assert not torch.equal(stored("truth-fed", told=True), stored("truth-fed", untold, told=True))
    # The network is not told of motion here.
    still = replace(batch, has_motion=torch.zeros_like(batch.has_motion), visible=torch.ones_like(batch.visible))
    # Less than half a value of the noise field, which so stays where it is: only the memory can follow.
    left, right = (replace(still, motion=torch.full_like(batch.motion, pixels)) for pixels in (-0.4, 0.4))
    assert torch.equal(stored("no-warp", left), stored("no-warp", right))
    assert not torch.equal(stored("full", left), stored("full", right))


def test_correction_is_a_row_where_there_are_bounds(
    small: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import ablations
    from mirage_plugin.model.drift import NAMES, Bounds

    nothing = tuple(-20.0 for _ in NAMES)
    never = Bounds(nothing, tuple(1.0 for _ in NAMES), nothing, nothing)
    monkeypatch.setattr(ablations, "load_bounds", lambda *_: never)
    rows = {row["name"]: row for row in measure(find(folder)[:1], 0, 4, 3, torch.device("cpu"))}
    assert list(rows) == ["full", "float memory", "no-correction"]
    assert rows["full"]["corrections"] > 0, "no frame is within such bounds"
    assert rows["no-correction"]["corrections"] == 0

"""Runs that begin from weights, and ablations: where they begin, what they train, and that they are alike."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from mirage_plugin.config import ABLATIONS, TrainConfig
from mirage_plugin.errors import DataError, WeightsError
from mirage_plugin.model.checkpoint import load_network, load_tensors, save_network, save_tensors
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.model.reference import ReferenceEncoder
from mirage_plugin.train import pool, trainer
from mirage_plugin.train import run as run_module
from mirage_plugin.train.objective import ABLATED, Ablation
from mirage_plugin.train.pairs import PairFolder, write_pairs
from mirage_plugin.train.run import Clock
from mirage_plugin.train.trainer import ECHO_AFTER, Recipe, Stage, train
from mirage_plugin.train.worlds.styles import random_style


class Ticks:
    """A second goes by with each look at it, so that a run has the same steps on any machine."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs"
    write_pairs(out=path, clips=2, frames=3, size="64x48", seed=4, style=None)
    return path


@pytest.fixture
def weights(net: MirageNet, tmp_path: Path) -> Path:
    save_network(net, tmp_path / "single.safetensors")
    return tmp_path / "single.safetensors"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Ablation]]:
    """A tiny recipe, drawn in this process and timed by a clock of its own; (frames, ablation) of every step."""
    steps: list[tuple[int, Ablation]] = []
    original = trainer.clip_loss

    def recorded(net: MirageNet, batch: Any, rng: torch.Generator, **more: Any) -> tuple[Tensor, Tensor]:
        steps.append((batch.source.shape[0], more["ablation"]))
        return original(net, batch, rng, **more)

    def recipe(*_: object) -> Recipe:
        return Recipe((Stage(0.5, 2, 1, 32, 32, 0.1), Stage(1.0, 2, 2, 32, 32, 0.3)), 1e-3, 3, 4, 1, 1, 1)

    # What takes seconds and is not tested here: statistics of 2,048 styles, bounds of healthy frames.
    rng = torch.Generator().manual_seed(0)
    styles = itertools.cycle([random_style(rng) for _ in range(8)])

    def no_bounds(*_: object, **__: object) -> Any:
        raise ValueError("none are wanted")

    monkeypatch.setattr(trainer, "random_style", lambda _: next(styles))
    monkeypatch.setattr(trainer, "learn_bounds", no_bounds, raising=False)

    def in_this_process(batches: Iterator[Any], **_: object) -> Iterator[Any]:
        return batches

    monkeypatch.setattr(trainer, "clip_loss", recorded)
    monkeypatch.setattr(trainer, "_recipe", recipe)
    monkeypatch.setattr(trainer, "DataLoader", in_this_process)
    monkeypatch.setattr(run_module, "time", Ticks())
    return steps


def notes(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def config(pairs: Path, out: Path, **more: Any) -> TrainConfig:
    return TrainConfig(minutes=0.4, device="cpu", data=pairs, out=out, **more)


def test_ablations_have_names() -> None:
    assert tuple(ABLATED) == ABLATIONS
    assert len(set(ABLATED.values())) == len(ABLATED), "no two are the same"


@pytest.mark.parametrize("name", ["full", "no-memory"])
def test_an_ablation_trains_clips_alone_and_says_what_it_is(
    name: str, pairs: Path, weights: Path, tmp_path: Path, seen: list[tuple[int, Ablation]]
) -> None:
    train(config(pairs, tmp_path, start=weights, ablation=name))
    assert len(seen) > 1
    assert set(seen) == {(2, ABLATED[name])}
    made = tmp_path / name / "nano.safetensors"
    assert notes(made)["ablation"] == name
    assert notes(made)["steps"] == str(len(seen))
    before, after = load_network("nano", weights).state_dict(), load_network("nano", made).state_dict()
    apart = {key: float((after[key] - before[key]).abs().max()) for key in before if not key.startswith("memory.")}
    assert max(apart.values()) > 0, "it learned"
    assert not torch.equal(after["memory.into.weight"], before["memory.into.weight"]), "the memory is learned anew"
    assert max(apart.values()) < 0.05, "it began from the weights"


def test_an_ablation_of_another_size_begins_from_the_same_weights(
    pairs: Path, weights: Path, tmp_path: Path, seen: list[tuple[int, Ablation]]
) -> None:
    train(config(pairs, tmp_path, start=weights, ablation="full-grid"))
    assert seen
    sizes = ABLATED["full-grid"].tier(TIERS["nano"])
    assert sizes.entry == 8
    made = tmp_path / "full-grid" / "nano.safetensors"
    after, before = load_network("nano", made, sizes).state_dict(), load_network("nano", weights).state_dict()
    assert float((after["stem_source.weight"] - before["stem_source.weight"]).abs().max()) < 0.05
    with pytest.raises(WeightsError, match="do not fit"):
        load_network("nano", made)


def test_ablations_are_trained_alike(
    pairs: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, Ablation]]
) -> None:
    found = []
    for folder, name in (("a", "full"), ("b", "full"), ("c", "white-start")):
        monkeypatch.setattr(run_module, "time", Ticks())
        seen.clear()
        train(config(pairs, tmp_path / folder, start=weights, ablation=name, seed=5))
        found.append((len(seen), notes(tmp_path / folder / name / "nano.safetensors")["sha256"]))
    assert found[0] == found[1], "the same seed and the same steps give the same weights"
    assert found[2][0] == found[0][0]
    assert found[2][1] != found[0][1]


def test_a_whole_run_leaves_what_ablations_begin_from(
    pairs: Path, tmp_path: Path, seen: list[tuple[int, Ablation]]
) -> None:
    train(config(pairs, tmp_path / "run"))
    frames = [count for count, _ in seen]
    assert frames == sorted(frames)
    assert set(frames) == {1, 2}
    single = tmp_path / "run" / "single.safetensors"
    assert notes(single)["steps"] == str(frames.count(1))
    assert "ablation" not in notes(single)
    load_network("nano", single)


def test_a_run_that_begins_from_weights(
    net: MirageNet, pairs: Path, weights: Path, tmp_path: Path, seen: list[tuple[int, Ablation]]
) -> None:
    run = trainer._begun(TrainConfig(device="cpu", start=weights), torch.device("cpu"))
    for name, value in net.state_dict().items():
        for taken in (run.net, run.average):
            assert torch.equal(taken.state_dict()[name], value.half().float()), name
    assert not any(o.state_dict()["state"] for o in run.optimizers.values()), "fresh optimisers"
    train(config(pairs, tmp_path / "run", start=weights))
    assert {count for count, _ in seen} == {1, 2}, "a whole run, single frames included"
    with pytest.raises(DataError, match="--fresh"):
        train(config(pairs, tmp_path / "run", start=weights))


def test_the_encoder_of_references_is_trained_by_itself(
    pairs: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, Ablation]]
) -> None:
    monkeypatch.setattr(
        trainer, "_recipe", lambda *_: Recipe((Stage(1.0, 2, 1, 32, 32, 0.0, twice=False),), 1e-3, 3, 4, 1, 1, 1)
    )
    torch.manual_seed(1)
    begun = tmp_path / "before.safetensors"
    save_tensors("reference", ReferenceEncoder().state_dict(), begun, {})
    train(config(pairs, tmp_path / "run", reference=True, start=begun))
    assert not seen, "no network is trained"
    made = tmp_path / "run" / "reference.safetensors"
    steps = int(notes(made)["steps"])
    assert steps > 2
    before, after = (load_tensors("reference", path) for path in (begun, made))
    apart = max(float((after[key].float() - before[key].float()).abs().max()) for key in before)
    assert 0 < apart < 0.05
    monkeypatch.setattr(run_module, "time", Ticks())
    train(config(pairs, tmp_path / "run", reference=True))
    assert int(notes(made)["steps"]) > steps, "it goes on"
    with pytest.raises(WeightsError, match="tier 'nano', not 'reference'"):
        train(config(pairs, tmp_path / "other", reference=True, start=weights))
    assert TrainConfig(reference=True).run_directory == Path("runs/reference")


def test_clips_and_single_frames_take_turns_and_come_twice(pairs: Path) -> None:
    stage = Stage(1.0, 2, 2, 32, 32, 0.3, singles=3)
    drawn = list(itertools.islice(trainer._Batches(PairFolder(pairs), 3, 5, stage), 45))
    sizes = [tuple(batch["source"].shape[:2]) for batch in drawn]
    assert sizes == 15 * [(1, 3), (1, 3), (2, 2)]
    singles = [batch for batch in drawn if batch["source"].shape[0] == 1]
    pairs_of = [(i, i - ECHO_AFTER) for i in range(ECHO_AFTER, len(singles))]
    again = [i for i, j in pairs_of if torch.equal(singles[i]["truth"], singles[j]["truth"])]
    assert again == list(range(ECHO_AFTER, len(singles), 2)), "every other batch of single frames is one of before"
    new = [batch for i, batch in enumerate(singles) if i not in again]
    new += [batch for batch in drawn if batch["source"].shape[0] > 1]
    assert not any(
        torch.equal(a["truth"], b["truth"])
        for a, b in itertools.combinations(new, 2)
        if a["truth"].shape == b["truth"].shape
    )


def test_a_checkpoint_brings_back_everything(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, Ablation]]
) -> None:
    train(config(pairs, tmp_path))
    run = trainer._begun(TrainConfig(device="cpu", seed=9), torch.device("cpu"))
    run.load(tmp_path / "state.pt")
    assert run.step == len(seen)
    clips = sum(frames > 1 for frames, _ in seen)
    # Half of the steps with clips go on from a history, which nobody draws; and in each stage the last comes too late.
    assert run.drawn == run.step - clips // 2 + 2
    for name in ("adamw", "muon"):
        kept = torch.load(tmp_path / "state.pt", weights_only=True)["optimizers"][name]["state"]
        state = run.optimizers[name].state_dict()["state"]
        assert state.keys() == kept.keys()
        assert state
        assert all(
            torch.equal(v, kept[i][k]) for i, of in state.items() for k, v in of.items() if isinstance(v, Tensor)
        )
    steps = len(seen)
    monkeypatch.setattr(run_module, "time", Ticks())
    train(config(pairs, tmp_path))
    assert int(notes(tmp_path / "nano.safetensors")["steps"]) == len(seen) > steps


def test_a_checkpoint_of_an_earlier_version_is_refused(
    pairs: Path, tmp_path: Path, seen: list[tuple[int, Ablation]]
) -> None:
    run = trainer._begun(TrainConfig(device="cpu"), torch.device("cpu"))
    torch.save({"tier": "nano", "net": run.net.state_dict(), "optimizer": {}}, tmp_path / "state.pt")
    with pytest.raises(DataError, match="earlier version: --fresh --from"):
        train(config(pairs, tmp_path))
    assert not seen


def test_pairs_that_are_too_short_are_refused_at_once(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, Ablation]]
) -> None:
    stages = (Stage(0.5, 2, 1, 32, 32, 0.1), Stage(1.0, 2, 6, 32, 32, 0.3))
    monkeypatch.setattr(trainer, "_recipe", lambda *_: Recipe(stages, 1e-3, 3, 4, 1, 1, 1))
    with pytest.raises(DataError, match="6 frames of at least 32x32; the longest has 3"):
        train(config(pairs, tmp_path))
    assert not seen


def test_ctrl_c_in_a_terminal_ends_every_process_quietly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mirage_plugin", "train", "--minutes", "1", "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "a step" in line:
                # As a terminal does: to the trainer, and to those that draw for it and have hardly begun.
                os.killpg(process.pid, signal.SIGINT)
                break
        said += process.stdout.read()
    assert process.returncode == 0, said
    assert "stopped" in said
    assert "Traceback" not in said
    assert (tmp_path / "run" / "nano.safetensors").is_file()


def test_a_pool_waits_as_long_as_clips_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = pool.ClipPool(
        tmp_path / "pool", seed=0, frames=2, capacity=4, first=4, steps_per_clip=1, workers=0
    )
    looks = itertools.count(0, 100)

    class Time:
        time = staticmethod(lambda: float(next(looks)))
        sleep = staticmethod(lambda _: None)

    monkeypatch.setattr(pool, "time", Time)
    os.utime(pictures.folder, (1000, 1000))
    with pytest.raises(DataError, match=r"no clip has come into .* for 180 s: .* goes on from"):
        pictures.sample(0, torch.Generator().manual_seed(0))
    assert next(looks) == 1300, "180 s after the last change"


def test_bad_data_is_one_sentence_wherever_it_is_found() -> None:
    class Broken:
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            yield {"x": torch.zeros(1)}
            raise DataError(
                "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                '  File "x", line 1\nmirage_plugin.errors.DataError: pairs/a/00001.png is not a readable PNG (cut)\n'
            )

    drawn = trainer._drawn(Broken())  # type: ignore[arg-type]
    next(drawn)
    with pytest.raises(DataError, match=r"^pairs/a/00001.png is not a readable PNG \(cut\)$"):
        next(drawn)


def test_weights_of_another_tier_are_refused(pairs: Path, tmp_path: Path, seen: list[tuple[int, Ablation]]) -> None:
    torch.manual_seed(0)
    save_network(MirageNet(TIERS["small"]), tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match="tier 'small', not 'nano'"):
        train(config(pairs, tmp_path / "run", start=tmp_path / "small.safetensors"))
    assert not seen
    assert not (tmp_path / "run" / "state.pt").exists()


def test_time_begins_with_the_first_batch() -> None:
    clock = Clock(100.0, 0.7)
    assert (clock.now, clock.part) == (0.0, 0.7)
    clock.begun = run_module.time.monotonic() - 50
    assert clock.part == pytest.approx(0.85, abs=0.01)
    clock.start()
    assert clock.now >= 50, "it begins once"

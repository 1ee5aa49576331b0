"""Weights files: what is written is read, and everything else is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mirage_plugin.config import ServeConfig
from mirage_plugin.engine import Engine
from mirage_plugin.errors import WeightsError
from mirage_plugin.model.checkpoint import load_network, save_network, weights_path
from mirage_plugin.model.network import TIERS, MirageNet


@pytest.fixture
def weights(net: MirageNet, tmp_path: Path) -> Path:
    path = tmp_path / "nano.safetensors"
    save_network(net, path, {"steps": "12"})
    return path


def test_what_is_written_is_read(net: MirageNet, weights: Path) -> None:
    loaded = load_network("nano", weights)
    assert not loaded.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name
    assert not list(weights.parent.glob("*.part"))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="mirage train --tier nano"):
        load_network("nano", tmp_path / "none.safetensors")


def test_another_tier(weights: Path) -> None:
    with pytest.raises(WeightsError, match="tier 'nano', not 'small'"):
        load_network("small", weights)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.999])
def test_a_flipped_byte(weights: Path, place: float) -> None:
    data = bytearray(weights.read_bytes())
    data[int(len(data) * place)] ^= 0x10
    weights.write_bytes(data)
    with pytest.raises(WeightsError, match=r"checksum|safetensors"):
        load_network("nano", weights)


@pytest.mark.parametrize("length", [0, 5, 1000, -1])
def test_truncated(weights: Path, length: int) -> None:
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(WeightsError, match="safetensors"):
        load_network("nano", weights)


@pytest.mark.parametrize("header", [None, {"format": "mirage-0", "tier": "nano"}, {"format": "other"}])
def test_another_format(tmp_path: Path, header: dict[str, str] | None) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata=header)
    with pytest.raises(WeightsError, match="format"):
        load_network("nano", path)


def test_weights_of_ones_own_are_played(tmp_path: Path) -> None:
    net, path = MirageNet(TIERS["nano"]), tmp_path / "mine.safetensors"
    save_network(net, path)
    said: list[str] = []
    mine = Engine(ServeConfig(device="cpu", weights=path, compile=False), said.append)
    assert mine.tier == "nano"
    stem = next(iter(load_network("nano", path).parameters()))
    assert torch.equal(next(iter(mine._core.net.parameters())).float(), stem.to(mine.dtype).float())
    assert any("know no bounds" in sentence for sentence in said)
    with pytest.raises(WeightsError, match="no such file"):
        Engine(ServeConfig(device="cpu", weights=tmp_path / "none.safetensors"))
    with pytest.raises(WeightsError, match="names the tier 'reference'"):
        Engine(ServeConfig(device="cpu", weights=weights_path("reference")))

"""A style from pictures: what is read, what is refused, and that the encoder can learn it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirage_plugin.errors import DataError, UnknownStyleError, WeightsError
from mirage_plugin.model.checkpoint import save_tensors
from mirage_plugin.model.reference import (
    ReferenceEncoder,
    load_reference,
    read_picture,
    reference_loss,
    style_of,
)
from mirage_plugin.style_input import read_style, resolve_style
from mirage_plugin.styles.parameters import VECTOR_SIZE, Style, load_style, parameter_range, preset_names


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (90 + 37 * i, 160 + 11 * i, 3), np.uint8) for i in range(count)]


@pytest.fixture
def encoder() -> ReferenceEncoder:
    torch.manual_seed(3)
    return ReferenceEncoder().eval()


def test_a_style_is_read_off_pictures_of_any_size(encoder: ReferenceEncoder) -> None:
    low, high = parameter_range()
    for shape in ((1, 1), (7, 3000), (1080, 1920)):
        style = style_of([np.zeros((*shape, 3), np.uint8)], "mine", encoder)
        assert style.name == "mine"
        assert (style.values >= low).all()
        assert (style.values <= high).all()


def test_several_pictures_say_the_mean_of_what_each_says(encoder: ReferenceEncoder) -> None:
    three = pictures(3)
    each = np.stack([style_of([p], "x", encoder).values for p in three])
    np.testing.assert_allclose(style_of(three, "x", encoder).values, each.mean(0), atol=1e-5)
    for count in (0, 9):
        with pytest.raises(DataError, match="one to 8 pictures"):
            style_of(pictures(1) * count, "x", encoder)


def test_the_encoder_learns_styles(encoder: ReferenceEncoder) -> None:
    """Four flat pictures, four styles: squared distances on the chart must fall to less than a quarter."""
    torch.manual_seed(5)
    shown = torch.rand(4, 3, 1, 1).expand(-1, -1, 64, 64) * 2 - 1
    wanted = torch.from_numpy(np.stack([load_style(n).vector() for n in ("snow", "ink", "lava", "night")]))
    optimizer = torch.optim.Adam(encoder.parameters(), 2e-3)
    losses = []
    for _ in range(60):
        loss = reference_loss(encoder, shown, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1 * math.log(4)


def test_the_encoder_that_ships_tells_pictures_apart() -> None:
    """One had fallen silent in training: whatever it was shown, it read the same style."""
    encoder = load_reference()
    read = [
        style_of([np.full((120, 160, 3), colour, np.uint8)], "x", encoder).vector()
        for colour in ((235, 240, 250), (200, 40, 10), (10, 15, 40))
    ]
    for i in range(3):
        assert np.abs(read[i] - read[i - 1]).mean() > 0.02


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "painting.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_picture(path)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_style(str(path))


def test_an_enormous_picture_is_refused(tmp_path: Path) -> None:
    Image.new("1", (20_000, 6_000)).save(tmp_path / "big.png")
    with pytest.raises(DataError, match="too many pixels"):
        read_picture(tmp_path / "big.png")


def test_weights_of_another_kind_are_refused(tmp_path: Path, encoder: ReferenceEncoder) -> None:
    path = tmp_path / "reference.safetensors"
    with pytest.raises(WeightsError):
        load_reference(path)
    save_tensors("nano", encoder.state_dict(), path, {})
    with pytest.raises(WeightsError, match="weights of tier 'nano'"):
        load_reference(path)
    save_tensors("reference", encoder.state_dict(), path, {})
    loaded = load_reference(path)
    v = torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.allclose(loaded(v), encoder(v), atol=2e-2)
    assert loaded(v).shape == (1, VECTOR_SIZE)


@pytest.mark.parametrize("name", preset_names())
def test_a_style_written_as_text_reads_back(name: str, tmp_path: Path) -> None:
    style = load_style(name)
    path = tmp_path / "mine.toml"
    path.write_text(style.text())
    again = read_style(str(path))
    assert again.name == name
    low, high = parameter_range()
    # Three digits of a number, 8 bits of a colour.
    assert np.abs((again.values - style.values) / (high - low)).max() < 0.004


def test_a_sidecar_s_own_styles_go_by_their_names() -> None:
    mine = Style.make("mine", {"cover": 0.5})
    assert resolve_style("mine", {"mine": mine}) is mine
    assert resolve_style({"mix": {"mine": 1.0, "snow": 1.0}}, {"mine": mine}).name == "mine+snow"
    with pytest.raises(UnknownStyleError, match="mine"):
        resolve_style("mien", {"mine": mine})
    with pytest.raises(UnknownStyleError):
        resolve_style("/etc/passwd")

"""The style space: what a style file may say, and what is answered to one that says something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mirage_plugin.errors import DataError, UnknownStyleError
from mirage_plugin.styles import PARAMETERS, VECTOR_SIZE, Style, load_style, parameter_names, preset_names
from mirage_plugin.styles.sheet import FAMILIES, presets
from mirage_plugin.train.worlds.styles import held_out

# Names that games and their users rely on.
PROMISED = {"snow", "ink", "cel", "noir", "watercolour", "neon", "desert", "lava", "night"}


def test_the_space_and_the_presets_are_large_enough() -> None:
    assert len(PARAMETERS) >= 24
    assert len(preset_names()) >= 24
    assert set(preset_names()) >= PROMISED
    assert sum(p.size for p in PARAMETERS) == VECTOR_SIZE
    assert len(set(parameter_names())) == len(PARAMETERS)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_whole(name: str) -> None:
    style = load_style(name)
    assert style.name == name
    assert style.family in FAMILIES
    assert style.values.shape == (VECTOR_SIZE,)
    assert style.values.dtype == np.float32
    assert np.abs(style.vector()).max() <= 1 + 1e-6
    assert style.caption() != "plain"
    assert not held_out(style), "training would see the region that is held out"


def test_every_preset_says_what_it_is_and_differs_from_the_others() -> None:
    found = presets()
    assert [p.style.name for p in found] != sorted(preset_names()), "ordered by family first"
    assert sorted(p.style.name for p in found) == sorted(preset_names())
    assert all(p.about.endswith(".") for p in found)
    vectors = np.stack([p.style.vector() for p in found])
    distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1) + 9 * np.eye(len(found))
    assert distance.min() > 0.8


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[surface]\ncover = 0.8\ncover_colour = "#f0f4ff"\n[grade]\nsaturation = 0\n'
    )
    style = load_style(path)
    assert (style.name, style.value("cover"), style.value("saturation")) == ("mine", 0.8, 0.0)
    assert style.value("cover_colour") == pytest.approx((240 / 255, 244 / 255, 1.0), abs=1e-5)
    assert style.value("fog") == 0, "what is not given keeps its default"
    assert "cover on the ground" in style.caption()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[surface]\ncovr = 0.5", "unknown parameter 'covr'; did you mean cover.*known are .*cover"),
        ("[light]\nsun = 9.0", r"bad.toml: style 'bad': sun is 9"),
        ("name = ['a']", "bad.toml: name must be a text"),
        ("name = ''", "bad.toml: name must be a text"),
        ("[weather]\nfog = 0.5", "unknown section 'weather'; known are air, drawing"),
        ("fog = 0.5", r"fog belongs in \[air\], which begins above it"),
        ("frog = 0.5", "unknown section 'frog'"),
        ("[light]\nfog = 0.5", r"fog belongs in \[air\], not in \[light\]"),
        ("[air]\nfog = nan", "fog is nan; it must lie between 0.0 and 1.0"),
        ("[air]\nfog = inf", "must lie between"),
        ("[air]\nfog = -0.1", "must lie between"),
        ("[air]\nfog = true", "must be a number"),
        ('[air]\nfog = "thick"', "must be a number"),
        ("[air]\nfog = [0.1, 0.2]", "must be a number"),
        ('[air]\nfog_colour = "grey"', "not a colour"),
        ('[air]\nfog_colour = "#12345"', "not a colour"),
        ('[air]\nfog_colour = "#gg0000"', "not a colour"),
        ("[air]\nfog_colour = [0.1, 0.2]", "'#rrggbb' or"),
        ("[air]\nfog_colour = [0.1, 0.2, 1.5]", "must lie between"),
        ("[air\nfog = 1", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        load_style(path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not valid TOML"):
        load_style(path)


@pytest.mark.parametrize("name", ["inc", "no/such"])
def test_an_unknown_style_names_its_neighbours(name: str) -> None:
    with pytest.raises(UnknownStyleError) as error:
        load_style(name)
    assert "ink" in str(error.value) or "mirage styles" in str(error.value)


@pytest.mark.parametrize("name", ["no/such.toml", "ink.json", "n" * 300 + ".toml"])
def test_a_file_that_is_not_there_is_called_one(name: str) -> None:
    with pytest.raises(DataError, match="there is no file"):
        load_style(name)


def test_a_file_of_another_kind_is_told_which_are_read(tmp_path: Path) -> None:
    (tmp_path / "look.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"\.toml.*\.png"):
        load_style(tmp_path / "look.gif")


@pytest.mark.parametrize("name", ["caf\u00e9", "\U0001f600", 'a "quoted" name', "[b]"])
def test_any_name_is_written_and_read(tmp_path: Path, name: str) -> None:
    style = Style.make(name, {"fog": 0.3})
    path = tmp_path / "mine.toml"
    path.write_text("\ufeff" + style.text(), encoding="utf-8")  # with the mark that some editors begin a file with
    assert load_style(path).name == name


def test_numbers_beyond_all_measure_are_refused(tmp_path: Path) -> None:
    for digits in (400, 5000):
        (tmp_path / "big.toml").write_text(f"[light]\nsun = 1{'0' * digits}\n")
        with pytest.raises(DataError):
            load_style(tmp_path / "big.toml")


def test_captions_say_what_is_there() -> None:
    assert Style.make("x", {}).caption() == "plain"
    assert "at night" in Style.make("x", {"sun": 0.1, "ambient": 0.1}).caption()
    said = Style.make("x", {"ink": 1.0, "ink_width": 0.9, "fog": 0.9, "fog_colour": "#ffffff"}).caption()
    assert "bold black outlines" in said
    assert "heavy white fog" in said


def test_a_mix_lies_between() -> None:
    snow, lava = load_style("snow"), load_style("lava")
    mixed = snow.mixed(lava, 0.25)
    assert np.allclose(mixed.values, 0.75 * snow.values + 0.25 * lava.values)
    assert np.allclose(mixed.vector(), 0.75 * snow.vector() + 0.25 * lava.vector(), atol=1e-5)

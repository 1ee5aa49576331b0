"""What a game may send as a style."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mirage_plugin.errors import ConfigError, MirageError
from mirage_plugin.style_input import read_style, resolve_style, resolve_styles
from mirage_plugin.styles import write_style
from mirage_plugin.styles.parameters import Style, load_style


def test_a_style_alone_is_the_whole_frames() -> None:
    assert {n: s.name for n, s in resolve_styles("snow").items()} == {0: "snow"}
    mixed = {"mix": {"snow": 1.0, "ink": 1.0}}
    assert (resolve_styles(mixed)[0].values == resolve_style(mixed).values).all()


def test_regions_have_styles_of_their_own() -> None:
    made = resolve_styles({"style": "snow", "regions": {"2": "ink", 7: {"parameters": {"fog": 0.5}}, 255: "noir"}})
    assert {n: s.name for n, s in made.items()} == {0: "snow", 2: "ink", 7: "custom", 255: "noir"}
    assert made[7].value("fog") == 0.5


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"regions": {"2": "ink"}}, "beside the style of the whole frame"),
        ({"style": "snow", "regions": {"2": "ink"}, "more": 1}, "beside the style of the whole frame"),
        ({"style": "snow", "regions": ["ink"]}, "a map of at most"),
        ({"style": "snow", "regions": dict.fromkeys("1234", "ink")}, "a map of at most"),
        ({"style": "snow", "regions": {"0": "ink"}}, "from 1 to 255"),
        ({"style": "snow", "regions": {"256": "ink"}}, "from 1 to 255"),
        ({"style": "snow", "regions": {"²": "ink"}}, "from 1 to 255"),
        ({"style": "snow", "regions": {True: "ink"}}, "from 1 to 255"),
        ({"style": "snow", "regions": {2: None}}, "has no style"),
        ({"style": "snow", "regions": {2: "inc"}}, "ink"),
        ({"style": {"style": "snow", "regions": {}}, "regions": {}}, "a style is"),
    ],
)
def test_what_is_wrong_with_regions_is_said(spec: Any, says: str) -> None:
    with pytest.raises(MirageError, match=says):
        resolve_styles(spec)


def test_a_preset_written_as_a_file_is_a_style_of_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "my look.toml"
    write_style("ink", path)
    mine = read_style(str(path))
    assert mine.name == "my look"
    # A colour is written in bytes, a number with three digits.
    assert abs(mine.values - load_style("ink").values).max() < 0.005
    assert resolve_style("my look", {mine.name: mine}) is mine


def test_a_file_that_kept_a_presets_name_is_what_its_owner_changed_it_to() -> None:
    mine = replace(Style.make("mine", {"exposure": 0.5}), name="ink")
    assert resolve_style("ink", {"ink": mine}) is mine
    assert resolve_style("ink").value("exposure") != 0.5


def test_a_style_never_replaces_what_it_was_read_off(tmp_path: Path) -> None:
    painting, mine = tmp_path / "painting.jpg", tmp_path / "mine.toml"
    Image.new("RGB", (64, 48), "#c08040").save(painting)
    before = painting.read_bytes()
    for out in (painting, tmp_path / "mine.txt"):
        with pytest.raises(ConfigError, match=r"\.toml"):
            write_style(str(painting), out)
    assert painting.read_bytes() == before
    write_style("ink", mine)
    text = mine.read_text() + "# and what its owner thinks of it\n"
    mine.write_text(text)
    with pytest.raises(ConfigError, match="replace the source"):
        write_style(str(mine), mine)
    assert mine.read_text() == text


def test_a_picture_may_have_a_comma_in_its_name(tmp_path: Path) -> None:
    for name in ("red, green.png", "other.png"):
        Image.new("RGB", (64, 48), "#c08040").save(tmp_path / name)
    assert read_style(str(tmp_path / "red, green.png")).name == "red, green"
    both = f"{tmp_path / 'other.png'}, {tmp_path / 'other.png'}"
    assert read_style(both).name == "other"

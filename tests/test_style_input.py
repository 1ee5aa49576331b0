"""What a game may send as a style."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirage_plugin.errors import MirageError
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

"""The style space: what a style is made of, and how to say it in words.

A style is a point in a space of continuous parameters. Colours are display-referred RGB in [0, 1]. The
*plain* style (all defaults) draws the world as an unassuming game would.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mirage_plugin.errors import DataError, UnknownStyleError, closest

__all__ = [
    "PARAMETERS",
    "VECTOR_SIZE",
    "Parameter",
    "Style",
    "load_style",
    "parameter_names",
    "parameter_range",
    "parameter_slice",
    "preset_names",
]


@dataclass(frozen=True)
class Parameter:
    """One continuous parameter (`size` 1) or colour (`size` 3) of a style."""

    name: str
    section: str
    default: tuple[float, ...]
    low: float
    high: float
    meaning: str

    @property
    def size(self) -> int:
        """How many numbers it takes in the vector."""
        return len(self.default)


def _number(name: str, section: str, default: float, low: float, high: float, meaning: str) -> Parameter:
    return Parameter(name, section, (default,), low, high, meaning)


def _colour(name: str, section: str, default: tuple[float, float, float], meaning: str) -> Parameter:
    return Parameter(name, section, default, 0.0, 1.0, meaning)


PARAMETERS: tuple[Parameter, ...] = (
    _number("sun", "light", 0.75, 0.0, 1.8, "strength of the direct light"),
    _colour("sun_colour", "light", (1.0, 0.97, 0.9), "its colour"),
    _number("ambient", "light", 0.4, 0.0, 1.2, "strength of the light from everywhere"),
    _colour("ambient_colour", "light", (0.9, 0.95, 1.0), "its colour"),
    _number("overhead", "light", 0.0, 0.0, 1.0, "how much the ambient light comes from above"),
    _number("headlight", "light", 0.0, 0.0, 1.2, "light from the eye"),
    _number("lamps", "light", 0.5, 0.0, 2.0, "strength of lamps"),
    _number("windows", "light", 0.0, 0.0, 1.5, "light in the windows"),
    _colour("window_colour", "light", (1.0, 0.8, 0.4), "its colour"),
    _number("emissive", "light", 1.0, 0.0, 2.0, "strength of things that glow"),
    _number("flatten", "surface", 0.0, 0.0, 1.0, "how much texture is taken away"),
    _number("cover", "surface", 0.0, 0.0, 1.0, "what lies on all that faces up: snow, sand, ash, moss"),
    _colour("cover_colour", "surface", (0.93, 0.95, 1.0), "its colour"),
    _number("wet", "surface", 0.0, 0.0, 1.0, "wet ground: darker, mirrors the horizon"),
    _number("ground", "surface", 0.0, 0.0, 1.0, "how much the ground is repainted"),
    _colour("ground_colour", "surface", (0.5, 0.45, 0.4), "its colour"),
    _number("foliage", "surface", 0.0, 0.0, 1.0, "how much plants are repainted"),
    _colour("foliage_colour", "surface", (0.3, 0.5, 0.2), "their colour"),
    _number("walls", "surface", 0.0, 0.0, 1.0, "how much buildings and walls are repainted"),
    _colour("wall_colour", "surface", (0.6, 0.6, 0.6), "their colour"),
    _number("objects", "surface", 0.0, 0.0, 1.0, "how much objects and creatures are repainted"),
    _colour("object_colour", "surface", (0.6, 0.5, 0.4), "their colour"),
    _number("sky", "air", 0.0, 0.0, 1.0, "how much the sky is replaced"),
    _colour("sky_top", "air", (0.3, 0.5, 0.85), "colour of the zenith"),
    _colour("sky_horizon", "air", (0.75, 0.85, 0.95), "colour of the horizon"),
    _number("clouds", "air", 0.5, 0.0, 1.0, "how much the clouds show in a replaced sky"),
    _number("fog", "air", 0.0, 0.0, 1.0, "fog: 1 hides half of what is 6 m away, 0.5 half of what is 40 m away"),
    _colour("fog_colour", "air", (0.7, 0.75, 0.8), "its colour"),
    _number("bands", "drawing", 0.0, 0.0, 1.0, "how much light falls into steps, as in a cartoon"),
    _number("band_count", "drawing", 3.0, 2.0, 6.0, "how many steps"),
    _number("ink", "drawing", 0.0, 0.0, 1.0, "lines where shapes end"),
    _number("ink_width", "drawing", 0.0, 0.0, 1.0, "0 is a fine line, 1 a bold one"),
    _number("ink_detail", "drawing", 0.0, 0.0, 1.0, "lines on textures as well"),
    _colour("ink_colour", "drawing", (0.05, 0.05, 0.08), "colour of lines and hatching"),
    _number("hatch", "drawing", 0.0, 0.0, 1.0, "strokes where it is dark"),
    _number("wash", "drawing", 0.0, 0.0, 1.0, "pigment that pools, as in watercolour"),
    _number("grain", "drawing", 0.0, 0.0, 1.0, "grain of film, canvas or paper"),
    _number("glow", "drawing", 0.0, 0.0, 1.0, "edges that shine"),
    _colour("glow_colour", "drawing", (0.2, 0.9, 1.0), "their colour"),
    _number("posterize", "drawing", 0.0, 0.0, 1.0, "few colours"),
    _number("pixels", "drawing", 0.0, 0.0, 1.0, "coarse pixels"),
    _number("exposure", "grade", 0.0, -1.0, 1.0, "stops"),
    _number("contrast", "grade", 1.0, 0.5, 1.7, "around middle grey"),
    _number("saturation", "grade", 1.0, 0.0, 2.0, "0 is monochrome"),
    _number("temperature", "grade", 0.0, -1.0, 1.0, "negative is cold"),
    _number("tone", "grade", 0.0, 0.0, 1.0, "how much the picture is mapped to two colours"),
    _colour("tone_dark", "grade", (0.05, 0.05, 0.1), "colour of the darks"),
    _colour("tone_light", "grade", (1.0, 0.97, 0.9), "colour of the lights"),
)

_BY_NAME = {p.name: p for p in PARAMETERS}
_OFFSETS = dict(
    zip((p.name for p in PARAMETERS), np.cumsum([0, *(p.size for p in PARAMETERS)])[:-1].tolist(), strict=True)
)
VECTOR_SIZE = sum(p.size for p in PARAMETERS)
_LOW = np.concatenate([np.full(p.size, p.low, np.float32) for p in PARAMETERS])
_HIGH = np.concatenate([np.full(p.size, p.high, np.float32) for p in PARAMETERS])
_DEFAULT = np.concatenate([np.array(p.default, np.float32) for p in PARAMETERS])


def parameter_names() -> tuple[str, ...]:
    """Return the names of all parameters, in vector order."""
    return tuple(_BY_NAME)


def parameter_slice(name: str) -> slice:
    """Return where a parameter stands in the vector."""
    return slice(_OFFSETS[name], _OFFSETS[name] + _BY_NAME[name].size)


def parameter_range() -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the least and the greatest value of every number of the vector: float32 [VECTOR_SIZE] each."""
    return _LOW.copy(), _HIGH.copy()


@dataclass(frozen=True)
class Style:
    """A named point of the style space; `values` float32 [VECTOR_SIZE] in natural units.

    >>> Style.make("mine", {"cover": 0.8, "cover_colour": "#f0f4ff"}).value("cover")
    0.8
    """

    name: str
    family: str
    values: np.ndarray[Any, np.dtype[np.float32]]

    @staticmethod
    def make(name: str, settings: Mapping[str, Any], family: str = "custom") -> Style:
        """Build a style from parameter values; what is not given keeps its default.

        Raises `DataError` for unknown names (naming the known ones), wrong types, NaN and values out of range.
        """
        values = _DEFAULT.copy()
        for key, raw in settings.items():
            if key not in _BY_NAME:
                near = closest(str(key), _BY_NAME)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
                raise DataError(f"style {name!r}: unknown parameter {key!r}; {hint}known are {', '.join(_BY_NAME)}")
            p = _BY_NAME[key]
            start = _OFFSETS[key]
            values[start : start + p.size] = _parse(name, p, raw)
        return Style(name, family, values)

    def value(self, name: str) -> float | tuple[float, ...]:
        """Return one parameter: a float, or (r, g, b)."""
        p, start = _BY_NAME[name], _OFFSETS[name]
        found = tuple(round(float(v), 6) for v in self.values[start : start + p.size])
        return found[0] if p.size == 1 else found

    def vector(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return all parameters scaled to [-1, 1]: float32 [VECTOR_SIZE]; what the style encoder reads."""
        scaled: np.ndarray[Any, np.dtype[np.float32]] = (self.values - _LOW) / (_HIGH - _LOW) * 2 - 1
        return scaled

    def caption(self) -> str:
        """Say in words what the style does."""
        return caption(self)

    def text(self) -> str:
        """Write the style as a style file, for `load_style` and for people: what is not the default, by section."""
        # TOML has JSON's strings, but no halves of a character.
        name, about = (json.dumps(text, ensure_ascii=False) for text in (self.name, self.caption()))
        lines = [f"name = {name}", f"about = {about}"]
        for section in dict.fromkeys(p.section for p in PARAMETERS):
            changed = []
            for p in (p for p in PARAMETERS if p.section == section):
                value = self.value(p.name)
                if isinstance(value, tuple):
                    shown = "#" + "".join(f"{round(255 * v):02x}" for v in value)
                    plain = "#" + "".join(f"{round(255 * v):02x}" for v in p.default)
                else:
                    shown, plain = f"{value:.3g}", f"{p.default[0]:.3g}"
                if shown != plain:
                    changed.append(f'{p.name} = "{shown}"' if p.size == 3 else f"{p.name} = {shown}")
            if changed:
                lines += ["", f"[{section}]", *changed]
        return "\n".join(lines) + "\n"

    def mixed(self, other: Style, weight: float) -> Style:
        """Return the straight mix of two styles, `weight` of `other`."""
        return Style(f"{self.name}+{other.name}", "custom", self.values * (1 - weight) + other.values * weight)


def _parse(style: str, p: Parameter, raw: Any) -> list[float]:
    where = f"style {style!r}: {p.name}"
    if p.size == 3 and isinstance(raw, str):
        text = raw.lstrip("#")
        try:
            raw = [int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)] if len(text) == 6 else None
        except ValueError:
            raw = None
        if raw is None:
            raise DataError(f"{where} is not a colour; write it as '#rrggbb' or [r, g, b] in 0..1")
    numbers = list(raw) if isinstance(raw, Iterable) and not isinstance(raw, str) else [raw]
    if len(numbers) != p.size or not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
        expected = "a number" if p.size == 1 else "'#rrggbb' or [r, g, b]"
        raise DataError(f"{where} must be {expected}, not {raw!r}")
    for n in numbers:
        if not p.low <= n <= p.high:  # NaN is not
            raise DataError(f"{where} is {n}; it must lie between {p.low} and {p.high}")
    return [float(n) for n in numbers]


@cache
def _preset_files() -> dict[str, Path]:
    folder = Path(str(resources.files("mirage_plugin.styles"))) / "presets"
    return {f.stem: f for f in sorted(folder.glob("*.toml"))}


@cache
def preset_names() -> tuple[str, ...]:
    """Return the names of the presets that ship."""
    return tuple(_preset_files())


def load_style(source: str | Path) -> Style:
    """Load a preset by name, or a style file (`.toml`) by path.

    Raises `UnknownStyleError` with the nearest names, or `DataError` saying what to mend in the file.
    """
    presets = _preset_files()
    if str(source) in presets:
        return _load_preset(str(source))
    return _load_file(Path(source))


@cache
def _load_preset(name: str) -> Style:
    style = _load_file(_preset_files()[name])
    style.values.setflags(write=False)
    return style


def _load_file(path: Path) -> Style:
    if not os.path.isfile(path):  # of a name that is too long as well
        if path.suffix:
            kinds = "a name of `mirage styles`, a style file (.toml) or a picture"
            raise DataError(f"there is no file {path}: a style is {kinds}")
        raise UnknownStyleError(str(path), tuple(_preset_files()))
    if path.suffix.lower() != ".toml":
        raise DataError(f"{path} is no style file (.toml), nor a picture that is read (.png, .jpg, .webp, .bmp)")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Notepad begins a file with a mark
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    settings: dict[str, Any] = {}
    sections = {p.section for p in PARAMETERS}
    for key, value in data.items():
        if key in ("name", "family", "about"):
            continue
        if key in _BY_NAME and not isinstance(value, dict):
            raise DataError(f"{path}: {key} belongs in [{_BY_NAME[key].section}], which begins above it")
        if key not in sections or not isinstance(value, dict):
            raise DataError(f"{path}: unknown section {key!r}; known are {', '.join(sorted(sections))}")
        for name in value:
            if name in _BY_NAME and _BY_NAME[name].section != key:
                raise DataError(f"{path}: {name} belongs in [{_BY_NAME[name].section}], not in [{key}]")
        settings |= value
    name = data.get("name", path.stem)
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{path}: name must be a text, not {name!r}")
    try:
        return Style.make(name, settings, str(data.get("family", "custom")))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def caption(style: Style) -> str:
    """Say in words what a style does; "plain" for the default."""

    def v(name: str) -> float:
        value = style.value(name)
        assert isinstance(value, float)
        return value

    def colour(name: str) -> str:
        value = style.value(name)
        assert isinstance(value, tuple)
        return colour_name(value)

    def much(x: float) -> str:
        return "slight " if x < 0.35 else "heavy " if x > 0.75 else ""

    words: list[str] = []
    if v("bands") > 0.3:
        words.append(f"cartoon shading in {round(v('band_count'))} steps")
    if v("ink") > 0.2:
        words.append(f"{'bold' if v('ink_width') > 0.5 else 'fine'} {colour('ink_colour')} outlines")
    if v("hatch") > 0.2:
        words.append(f"{much(v('hatch'))}hatching")
    if v("wash") > 0.2:
        words.append(f"{much(v('wash'))}watercolour wash")
    if v("flatten") > 0.5:
        words.append("flat colours")
    if v("pixels") > 0.3:
        words.append("coarse pixels")
    if v("posterize") > 0.3:
        words.append("few colours")
    if v("glow") > 0.2:
        words.append(f"glowing {colour('glow_colour')} edges")
    if v("cover") > 0.2:
        words.append(f"{much(v('cover'))}{colour('cover_colour')} cover on the ground")
    if v("wet") > 0.3:
        words.append("wet ground")
    for name, noun in (("ground", "ground"), ("foliage", "plants"), ("wall", "walls"), ("object", "objects")):
        amount = {"wall": "walls", "object": "objects"}.get(name, name)
        if v(amount) > 0.3:
            words.append(f"{colour(name + '_colour')} {noun}")
    if v("sky") > 0.4:
        words.append(f"a {colour('sky_top')} sky, {colour('sky_horizon')} at the horizon")
    if v("fog") > 0.2:
        words.append(f"{much(v('fog'))}{colour('fog_colour')} fog")
    if v("windows") > 0.3:
        words.append(f"{colour('window_colour')} light in the windows")
    if v("sun") < 0.2 and v("ambient") < 0.3:
        words.append("at night")
    if v("tone") > 0.4:
        words.append(f"in {colour('tone_dark')} and {colour('tone_light')}")
    elif v("saturation") < 0.3:
        words.append("nearly monochrome")
    elif v("saturation") > 1.4:
        words.append("vivid")
    if abs(v("temperature")) > 0.3:
        words.append("warm" if v("temperature") > 0 else "cold")
    if v("contrast") > 1.3:
        words.append("hard contrast")
    if v("grain") > 0.25:
        words.append("grainy")
    return ", ".join(words) or "plain"


_COLOUR_NAMES = {
    "black": (0.05, 0.05, 0.06), "dark grey": (0.3, 0.3, 0.3), "grey": (0.55, 0.55, 0.55), "white": (0.96, 0.96, 0.97),
    "red": (0.8, 0.1, 0.1), "orange": (0.95, 0.5, 0.1), "yellow": (0.95, 0.85, 0.2), "green": (0.2, 0.6, 0.2),
    "cyan": (0.2, 0.85, 0.9), "blue": (0.15, 0.3, 0.8), "violet": (0.5, 0.2, 0.75), "magenta": (0.9, 0.2, 0.7),
    "brown": (0.42, 0.27, 0.15), "cream": (0.97, 0.92, 0.8), "pink": (0.97, 0.7, 0.75), "sand": (0.85, 0.72, 0.5),
    "navy": (0.05, 0.07, 0.22), "ice blue": (0.75, 0.88, 1.0), "olive": (0.42, 0.44, 0.2), "teal": (0.1, 0.45, 0.45),
}  # fmt: skip


def colour_name(rgb: tuple[float, ...]) -> str:
    """Return the nearest everyday name of a colour in [0, 1]."""
    return min(_COLOUR_NAMES, key=lambda n: sum((a - b) ** 2 for a, b in zip(_COLOUR_NAMES[n], rgb, strict=True)))

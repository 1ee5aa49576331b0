"""What a person or a game may say as a style, and what the model makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mirage_plugin.errors import ConfigError, UnknownStyleError
from mirage_plugin.styles.parameters import Style, load_style, preset_names

__all__ = ["MAX_REGIONS", "PICTURES", "read_style", "resolve_style", "resolve_styles"]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
"""Suffixes of files that a style is read off."""
MAX_REGIONS = 3
"""Regions of the mask that may have a style of their own: each costs another pass of the network."""


def read_style(source: str) -> Style:
    """Read a style as the person at the machine names it.

    A preset's name, a style file (`.toml`), or a picture to take the style from; up to eight pictures with commas
    between them. Raises `UnknownStyleError`, `DataError` or `WeightsError`.
    """
    # A name may have a comma in it.
    names = [source] if Path(source).is_file() else source.split(",")
    parts = [Path(part.strip() if len(names) > 1 else part) for part in names]
    if all(part.suffix.lower() in PICTURES for part in parts):
        # torch is loaded here alone: whoever names a preset need not wait for it.
        from mirage_plugin.model.reference import read_picture, style_of

        return style_of([read_picture(part) for part in parts], parts[0].stem)
    return load_style(source)


def resolve_style(spec: str | Mapping[str, Any], own: Mapping[str, Style] = MappingProxyType({})) -> Style:
    """Read a style as a game sends it; `own` are the styles by name that this sidecar has beside the presets.

    ==================================================  =====================================================
    `"snow"`                                            a preset
    `{"name": "mine", "parameters": {"cover": 0.8}}`    parameters of the style space
    `{"mix": {"snow": 0.7, "ink": 0.3}}`                a weighted mix of presets; weights are normalised
    ==================================================  =====================================================

    A name never opens a file: what a peer says is not trusted. Raises `UnknownStyleError`, `DataError` or
    `ConfigError` with a sentence for the game's developer.
    """
    if isinstance(spec, str):
        return _named(spec, own)
    if "mix" in spec:
        mix = spec["mix"]
        if not isinstance(mix, Mapping) or not 1 <= len(mix) <= 8:
            raise ConfigError(
                "a mix names one to eight presets with their weights, as {'mix': {'snow': 1.0}}"
            )
        parts = [(_named(str(name), own), _weight(weight)) for name, weight in mix.items()]
        total = sum(weight for _, weight in parts)
        if total <= 0:
            raise ConfigError("the weights of a mix are all zero")
        values = sum(style.values * (weight / total) for style, weight in parts)
        return Style("+".join(style.name for style, _ in parts), "custom", values)  # type: ignore[arg-type]
    if "parameters" in spec and isinstance(spec["parameters"], Mapping):
        return Style.make(str(spec.get("name", "custom"))[:64], spec["parameters"])
    raise ConfigError("a style is a preset's name, {'parameters': {…}} or {'mix': {…}}")


def resolve_styles(
    spec: str | Mapping[str, Any], own: Mapping[str, Style] = MappingProxyType({})
) -> dict[int, Style]:
    """Read what a game wants its frames painted in: the style of the whole frame at 0, then those of mask regions.

    `{"style": "snow", "regions": {"2": "ink"}}` paints what the mask plane marks 2 as ink and all else as snow; a
    region's number is a whole number from 1 to 255, as an int or in digits. Anything that `resolve_style` takes may
    stand for a style, and alone means the whole frame. Raises as `resolve_style`.
    """
    if isinstance(spec, str) or "regions" not in spec:
        return {0: resolve_style(spec, own)}
    regions, whole = spec["regions"], spec.get("style")
    if not isinstance(whole, (str, Mapping)) or set(spec) != {"style", "regions"}:
        raise ConfigError("regions stand beside the style of the whole frame: {'style': …, 'regions': {'2': …}}")
    if not isinstance(regions, Mapping) or len(regions) > MAX_REGIONS:
        raise ConfigError(f"regions are a map of at most {MAX_REGIONS} numbers of the mask to styles")
    chosen = {0: resolve_style(whole, own)}
    for number, style in regions.items():
        digits = str(number) if isinstance(number, (int, str)) and not isinstance(number, bool) else ""
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= 255):
            raise ConfigError(f"a region is a number of the mask from 1 to 255, not {number!r}")
        if not isinstance(style, (str, Mapping)):
            raise ConfigError(f"region {digits} has no style: give a preset's name, parameters or a mix")
        chosen[int(digits)] = resolve_style(style, own)
    return chosen


def _named(name: str, own: Mapping[str, Style]) -> Style:
    if name in own:
        return own[name]
    if name not in preset_names():
        raise UnknownStyleError(name, (*own, *preset_names()))
    return load_style(name)


def _weight(weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1e6:
        raise ConfigError(f"a weight must be a number from 0 up, not {weight!r}")
    return float(weight)

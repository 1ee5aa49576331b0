"""What a game may say as its style, and what the model makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirage_plugin.errors import ConfigError, UnknownStyleError
from mirage_plugin.styles.parameters import Style, load_style, preset_names

__all__ = ["resolve_style"]


def resolve_style(spec: str | Mapping[str, Any]) -> Style:
    """Read a style as a game sends it.

    ==================================================  =====================================================
    `"snow"`                                            a preset
    `{"name": "mine", "parameters": {"cover": 0.8}}`    parameters of the style space
    `{"mix": {"snow": 0.7, "ink": 0.3}}`                a weighted mix of presets; weights are normalised
    ==================================================  =====================================================

    A name never opens a file: what a peer says is not trusted. Raises `UnknownStyleError`, `DataError` or
    `ConfigError` with a sentence for the game's developer.
    """
    if isinstance(spec, str):
        return _preset(spec)
    if "mix" in spec:
        mix = spec["mix"]
        if not isinstance(mix, Mapping) or not 1 <= len(mix) <= 8:
            raise ConfigError(
                "a mix names one to eight presets with their weights, as {'mix': {'snow': 1.0}}"
            )
        parts = [(_preset(str(name)), _weight(weight)) for name, weight in mix.items()]
        total = sum(weight for _, weight in parts)
        if total <= 0:
            raise ConfigError("the weights of a mix are all zero")
        values = sum(style.values * (weight / total) for style, weight in parts)
        return Style("+".join(style.name for style, _ in parts), "custom", values)  # type: ignore[arg-type]
    if "parameters" in spec and isinstance(spec["parameters"], Mapping):
        return Style.make(str(spec.get("name", "custom"))[:64], spec["parameters"])
    raise ConfigError("a style is a preset's name, {'parameters': {…}} or {'mix': {…}}")


def _preset(name: str) -> Style:
    if name not in preset_names():
        raise UnknownStyleError(name, preset_names())
    return load_style(name)


def _weight(weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1e6:
        raise ConfigError(f"a weight must be a number from 0 up, not {weight!r}")
    return float(weight)

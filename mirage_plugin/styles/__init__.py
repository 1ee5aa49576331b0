"""The style space: parameters, presets, and a sheet that shows them."""

from mirage_plugin.styles.parameters import (
    PARAMETERS,
    VECTOR_SIZE,
    Parameter,
    Style,
    load_style,
    parameter_names,
    preset_names,
)
from mirage_plugin.styles.sheet import show, write_style

__all__ = [
    "PARAMETERS",
    "VECTOR_SIZE",
    "Parameter",
    "Style",
    "load_style",
    "parameter_names",
    "preset_names",
    "show",
    "write_style",
]

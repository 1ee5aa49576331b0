"""Mirage: real-time AI restyling for games.

A game sends every rendered frame to a sidecar process; a causal diffusion model redraws it in a chosen
style; the game shows the answer within its 16 ms frame. This package is the sidecar's side: the model, its
training, the frame path and the `mirage` command. A game process needs `mirage_bridge` alone.
"""

from mirage_plugin.config import (
    DEVICES,
    TIERS,
    Device,
    ServeConfig,
    Tier,
    TierChoice,
    TrainConfig,
    choose_tier,
    parse_size,
)
from mirage_plugin.errors import (
    ConfigError,
    DataError,
    DeviceError,
    MirageError,
    MissingDependencyError,
    NoSidecarError,
    OutputError,
    UnknownStyleError,
    WeightsError,
)

__version__ = "0.1.0"

__all__ = [
    "DEVICES",
    "TIERS",
    "ConfigError",
    "DataError",
    "Device",
    "DeviceError",
    "MirageError",
    "MissingDependencyError",
    "NoSidecarError",
    "OutputError",
    "ServeConfig",
    "Tier",
    "TierChoice",
    "TrainConfig",
    "UnknownStyleError",
    "WeightsError",
    "__version__",
    "choose_tier",
    "parse_size",
]

"""The model: a causal, source-anchored diffusion network that redraws a frame in one step, and its weights."""

from mirage_plugin.model.checkpoint import FORMAT, load_network, save_network, weights_path
from mirage_plugin.model.memory import MemoryState, dequantise, quantise, warp_state
from mirage_plugin.model.network import (
    CELL,
    SIGMA,
    TIERS,
    Edit,
    MirageNet,
    Planes,
    Tier,
    compose,
    pixels_to_cells,
    planes_to_cells,
)
from mirage_plugin.model.noise import advect_noise, fresh_noise
from mirage_plugin.model.sampling import ParallelSampler, predict, sample

__all__ = [
    "CELL",
    "FORMAT",
    "SIGMA",
    "TIERS",
    "Edit",
    "MemoryState",
    "MirageNet",
    "ParallelSampler",
    "Planes",
    "Tier",
    "advect_noise",
    "compose",
    "dequantise",
    "fresh_noise",
    "load_network",
    "pixels_to_cells",
    "planes_to_cells",
    "predict",
    "quantise",
    "sample",
    "save_network",
    "warp_state",
    "weights_path",
]

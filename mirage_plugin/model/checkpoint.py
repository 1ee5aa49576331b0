"""Weights files: safetensors with a header that says what they are, checked before anything is built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from mirage_plugin.config import weights_directory
from mirage_plugin.errors import WeightsError
from mirage_plugin.model.drift import Bounds
from mirage_plugin.model.network import TIERS, MirageNet, Tier

__all__ = [
    "FORMAT",
    "load_bounds",
    "load_network",
    "load_tensors",
    "note_weights",
    "save_network",
    "save_tensors",
    "weights_path",
]

FORMAT = "mirage-3"
"""Changes whenever the meaning of a tensor changes; other formats are refused."""


def weights_path(tier: str) -> Path:
    """Where the weights of a tier that ship with the package lie."""
    return weights_directory() / f"{tier}.safetensors"


def tier_of(path: Path) -> str:
    """The tier that a weights file is of; raises `WeightsError` where it is no such file or names none of `TIERS`."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError.unreadable(path, "there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            tier = str((file.metadata() or {}).get("tier", ""))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError.unreadable(path, f"not a whole safetensors file: {error}") from error
    if tier not in TIERS:
        raise WeightsError.unreadable(path, f"it names the tier {tier!r}")
    return tier


def _digest(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def save_network(net: MirageNet, path: Path, notes: dict[str, str] | None = None) -> None:
    """Write a network's weights; see `save_tensors`."""
    shape = {"shape": json.dumps(asdict(net.tier))}
    save_tensors(net.tier.name, net.state_dict(), path, shape | (notes or {}))


def save_tensors(kind: str, tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str]) -> None:
    """Write weights as float16, with a checksum and what they are; replaces `path` at once or not at all."""
    halves = {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in tensors.items()}
    _write(path, halves, {"format": FORMAT, "tier": kind, "sha256": _digest(halves), **notes})


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    from safetensors.torch import save_file  # the model itself runs where nothing but torch is installed

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=header)
    part.chmod(0o644)  # safetensors makes files that their owner alone may read
    part.replace(path)


def note_weights(kind: str, path: Path, notes: Mapping[str, str]) -> None:
    """Write more into the header of a weights file; its tensors stay as they are. Raises as `load_tensors`."""
    tensors, header = _read(kind, path)
    _write(path, tensors, header | dict(notes))


def load_tensors(kind: str, path: Path) -> dict[str, Tensor]:
    """Read weights of a kind (a tier, or "reference") as float16.

    Raises `WeightsError` when the file is missing, truncated, altered, or of another kind or format.
    """
    return _read(kind, path)[0]


def load_bounds(tier: str, path: Path | None = None) -> Bounds | None:
    """What healthy frames of a tier's weights have; None where the file says nothing of it, or is not there.

    Raises `WeightsError` where what it says are no bounds.
    """
    from safetensors import SafetensorError, safe_open

    path = path or weights_path(tier)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("bounds")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError.unreadable(path, f"not a whole safetensors file: {error}") from error
    try:
        return None if text is None else Bounds.from_json(text)
    except ValueError as error:
        raise WeightsError.unreadable(path, str(error)) from error


def _read(kind: str, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError.missing(kind, path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError.unreadable(path, f"not a whole safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise WeightsError.unreadable(path, f"format {header.get('format')!r}, this version reads {FORMAT!r}")
    if header.get("tier") != kind:
        raise WeightsError.unreadable(path, f"weights of tier {header.get('tier')!r}, not {kind!r}")
    if header.get("sha256") != _digest(tensors):
        raise WeightsError.unreadable(path, "its checksum does not match its contents")
    return tensors, header


def load_network(tier: str, path: Path | None = None, sizes: Tier | None = None) -> MirageNet:
    """Load a tier's weights into a new float32 network in evaluation mode; raises as `load_tensors`.

    `sizes` are those of an ablation, where they are not the tier's own.
    """
    path = path or weights_path(tier)
    tensors = load_tensors(tier, path)
    net = MirageNet(sizes or TIERS[tier])
    try:
        net.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise WeightsError.unreadable(path, "its tensors do not fit this version's network") from error
    return net.eval()

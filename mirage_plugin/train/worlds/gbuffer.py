"""The G-buffer: what is known of every pixel of a clip before anyone decides how it looks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

__all__ = ["GBuffer", "Material"]

SKY_DEPTH = 1000.0


class Material(IntEnum):
    """What a surface is made of, as coarsely as a picture alone lets one tell."""

    SKY = 0
    GROUND = 1
    FOLIAGE = 2
    WALL = 3
    OBJECT = 4
    CREATURE = 5
    WATER = 6
    EMISSIVE = 7
    WINDOW = 8


@dataclass(frozen=True)
class GBuffer:
    """A clip of T frames of H x W pixels; every field is `[T, C, H, W]`.

    Everything here can be inferred from a drawn frame, or is given to the network as a plane, or is used
    only to measure: a style that depended on more than that could not be learned.
    """

    albedo: Tensor
    """float16, 3 channels in [0, 1]: surface colour with its texture, display-referred."""
    flat: Tensor
    """float16, 3: the same without texture detail."""
    direct: Tensor
    """float16, 1 in [0, 1]: sun on the surface (cosine times shadow)."""
    ambient: Tensor
    """float16, 1 in [0, 1]: openness to the sky or the room (ambient occlusion)."""
    lamp: Tensor
    """float16, 3: light of nearby lamps."""
    normal: Tensor
    """float16, 3: world-space unit normal, y up; for the sky minus the view direction."""
    facing: Tensor
    """float16, 1 in [0, 1]: cosine between normal and the direction to the eye."""
    depth: Tensor
    """float32, 1: metres along the view axis; the sky has `SKY_DEPTH`."""
    height: Tensor
    """float16, 1: metres above the ground; for the sky the view direction's y times 100."""
    cloud: Tensor
    """float16, 1 in [0, 1]: cloud cover, zero off the sky."""
    material: Tensor
    """uint8, 1: `Material`."""
    ident: Tensor
    """int16, 1: object number; neighbours that differ have an outline between them."""
    motion: Tensor
    """float16, 2: where this surface was in the previous frame minus where it is now, in pixels (x, y)."""
    visible: Tensor
    """bool, 1: the previous frame shows this surface; all False in the first frame and after a cut."""
    hud: Tensor
    """float16, 4 in [0, 1]: overlay colour and alpha, drawn by the game on top of its frame."""
    cut: Tensor
    """bool [T, 1, 1, 1]: this frame begins a new shot."""

    def to(self, device: torch.device | str) -> GBuffer:
        """Return the same clip on another device."""
        return GBuffer(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def crop(self, top: int, left: int, height: int, width: int) -> GBuffer:
        """Return a window of every frame."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return GBuffer(**{k: v if k == "cut" else v[..., rows, columns] for k, v in parts.items()})

    def frames(self, start: int, stop: int) -> GBuffer:
        """Return frames `start` to `stop - 1`."""
        return GBuffer(**{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})

    def mirrored(self) -> GBuffer:
        """Return the clip as seen in a mirror (left and right exchanged)."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        flipped = {k: v if k == "cut" else v.flip(-1) for k, v in parts.items()}
        flipped["motion"] = flipped["motion"] * torch.tensor([-1.0, 1.0]).view(2, 1, 1).to(flipped["motion"])
        flipped["normal"] = flipped["normal"] * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1).to(
            flipped["normal"]
        )
        return GBuffer(**flipped)

    @staticmethod
    def cat(clips: list[GBuffer]) -> GBuffer:
        """Stack clips of equal size along the frame axis."""
        return GBuffer(**{f.name: torch.cat([getattr(c, f.name) for c in clips]) for f in fields(GBuffer)})

"""Counter-based noise that sticks to the world.

The noisy end of the diffusion path is the source frame plus a little noise. Drawn afresh in every frame, that
noise would make texture boil; so it is a field that is carried along the motion from frame to frame, and only
what comes into view is drawn anew. Training and play use the same code, so the truth's grain and strokes
(which are made from this field) are a function of what the network sees.

The field has one value per 2x2 pixels of the working frame: `[N, 1, H/2, W/2]`, unit normal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["advect_noise", "fresh_noise"]


def _mix(x: Tensor) -> Tensor:
    """The 32-bit finaliser `lowbias32` (C. Wellons): int64 in, int64 in [0, 2**32) out."""
    x = x & 0xFFFFFFFF
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def fresh_noise(seed: Tensor, frame: Tensor, height: int, width: int) -> Tensor:
    """Draw unit normal noise: float32 [N, 1, height, width].

    `seed` and `frame` are int64 [N]. Each value depends on (seed, frame, y, x) alone: the same whatever the
    batch, the launch shape or the device. Box-Muller on two hashes of a 32-bit counter.
    """
    device = seed.device
    y = torch.arange(height, device=device).view(1, 1, -1, 1)
    x = torch.arange(width, device=device).view(1, 1, 1, -1)
    key = _mix(seed * 0x9E3779B1 + frame * 0x85EBCA77 + 0x165667B1).view(-1, 1, 1, 1)
    counter = (y << 16 | x) * 2
    a = _mix(counter ^ key)
    b = _mix((counter + 1) ^ _mix(key + 0x27D4EB2F))
    u = (a.float() + 1.0) * (1.0 / 4294967808.0)
    return (-2.0 * u.log()).sqrt() * (b.float() * (2 * math.pi / 4294967296.0)).cos()


def advect_noise(noise: Tensor, motion: Tensor, visible: Tensor, fresh: Tensor) -> Tensor:
    """Carry a noise field along the motion.

    `noise` float32 [N, 1, h, w]: the previous frame's field; `motion` float [N, 2, h, w]: where each value was,
    relative to where it is now, in pixels of the *working frame* (two per value); `visible` bool [N, 1, h, w]:
    whether it was to be seen; `fresh` as `noise`: what stands where nothing was.

    Values are moved, never mixed (nearest neighbour): interpolation would lower their variance frame by frame.
    Where the picture is stretched, two neighbours come from one value; the right or lower of them is drawn
    anew, or an hour of walking forward would blow the grain up to blobs.
    """
    n, _, h, w = noise.shape
    y = torch.arange(h, device=noise.device).view(1, -1, 1) + motion[:, 1] * 0.5
    x = torch.arange(w, device=noise.device).view(1, 1, -1) + motion[:, 0] * 0.5
    finite = torch.isfinite(x) & torch.isfinite(y)
    iy = torch.where(finite, y, -1.0).round().clamp(-1, h).long()
    ix = torch.where(finite, x, -1.0).round().clamp(-1, w).long()
    inside = (iy >= 0) & (iy < h) & (ix >= 0) & (ix < w) & visible[:, 0]
    place = torch.where(inside, iy * w + ix, -1)
    inside = inside.clone()
    inside[:, :, 1:] &= place[:, :, 1:] != place[:, :, :-1]
    inside[:, 1:, :] &= place[:, 1:, :] != place[:, :-1, :]
    index = place.clamp_min(0).view(n, -1)
    moved = noise.view(n, -1).gather(1, index).view(n, 1, h, w)
    return torch.where(inside[:, None], moved, fresh)

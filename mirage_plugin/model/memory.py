"""Temporal conditioning and memory compression.

The memory is a learned state on half the cell grid (one vector per 16x16 pixels), eight bits a number between
frames, constant in size for ever. It is moved along the motion, read through a trust gate, and written by a
gated update. It never holds pixels, so there is no picture in it that could ghost.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SOUNDED", "Memory", "MemoryState", "dequantise", "quantise", "warp_state"]

SOUNDED = 16
"""Memory is read where one of so many frames, this one included, came with depth. A network that reads colours alone
hears its own guesses from it, and what was taken for lamplight in one corner has filled the screen ten frames later."""


class MemoryState(NamedTuple):
    """`state` [N, h2, w2, S] in [-1, 1], moved to the present frame; `valid` [N, h2, w2, 1] in [0, 1]."""

    state: Tensor
    valid: Tensor


def quantise(state: Tensor) -> Tensor:
    """Compress a state for storage: [-1, 1] -> int8, NaN becomes 0."""
    return torch.nan_to_num(state.float(), nan=0.0).mul(127).round().clamp(-127, 127).to(torch.int8)


def dequantise(state: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Undo `quantise` up to half a step of 1/127."""
    return state.to(dtype) * (1.0 / 127.0)


def warp_state(state: Tensor, motion: Tensor, visible: Tensor, entry: int = 16) -> MemoryState:
    """Carry the previous frame's state to where its surfaces are now.

    `state` [N, h2, w2, S]; `motion` float32 [N, 2, h2, w2], to where it was, in pixels of the working frame
    (`entry` to a side of one), NaN for unknown; `visible` float32 [N, 1, h2, w2], the share of the entry that was to be
    seen. Bilinear; what was outside the frame or hidden is not valid.
    """
    _, h, w, _ = state.shape
    motion = torch.nan_to_num(motion.float(), nan=1e6, posinf=1e6, neginf=-1e6).clamp(-1e5, 1e5) / entry
    y = torch.arange(h, device=state.device).view(1, -1, 1) + motion[:, 1]
    x = torch.arange(w, device=state.device).view(1, 1, -1) + motion[:, 0]
    inside = (y > -0.75) & (y < h - 0.25) & (x > -0.75) & (x < w - 0.25)
    grid = torch.stack([(x * 2 + 1) / w - 1, (y * 2 + 1) / h - 1], -1).clamp(-2, 2)
    # In float32 whatever the state's type: bf16 places a sample no better than a sixth of an entry, and the CPU's
    # bf16 sampler was seen to return values it had not written.
    moved = functional.grid_sample(
        state.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    ).to(state.dtype)
    valid = (inside[:, None].to(state.dtype) * visible.to(state.dtype)).permute(0, 2, 3, 1)
    return MemoryState(moved.permute(0, 2, 3, 1), valid)


def rms(features: Tensor) -> Tensor:
    """How large features [..., C] are, as the root of their mean square: [..., 1]."""
    return (features.float().square().mean(-1, keepdim=True) + 1e-6).sqrt().to(features.dtype)


class Memory(nn.Module):
    """Reads the state into the features through a trust gate, and writes the next state.

    The features are those of a residual stream, which grows as it is trained: the gates look at them at unit size, and
    what is read is added at theirs. Else the gates end up open or shut for good, and what they let through is drowned.
    """

    def __init__(self, channels: int, state: int) -> None:
        super().__init__()
        self.trust = nn.Linear(channels + state + 1, state)
        self.into = nn.Linear(state, channels)
        self.keep = nn.Linear(channels + state + 1, state)
        self.candidate = nn.Linear(channels, state)
        with torch.no_grad():
            self.keep.bias.fill_(0.5)

    def read(self, features: Tensor, memory: MemoryState) -> Tensor:
        """Add what the state knows and the gate believes: [N, h2, w2, C]."""
        size = rms(features)
        gate = self.trust(torch.cat([features / size, memory.state, memory.valid], -1)).sigmoid()
        out: Tensor = features + size * self.into(memory.state * (gate * memory.valid))
        return out

    def write(self, features: Tensor, memory: MemoryState) -> Tensor:
        """Return the next state [N, h2, w2, S] in [-1, 1]: what is not valid is written anew."""
        features = features / rms(features)
        keep = self.keep(torch.cat([features, memory.state, memory.valid], -1)).sigmoid() * memory.valid
        out: Tensor = memory.state * keep + self.candidate(features).tanh() * (1 - keep)
        return out

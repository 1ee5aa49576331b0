"""`mirage eval`: how good the picture is, on scenes and styles that were never trained on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mirage_plugin.model.memory import MemoryState, dequantise, quantise, warp_state
from mirage_plugin.model.network import MirageNet, planes_to_cells
from mirage_plugin.model.sampling import sample
from mirage_plugin.train.batch import Batch

__all__ = ["answer_clip"]


@torch.inference_mode()
def answer_clip(net: MirageNet, batch: Batch, *, steps: int = 1, memory: bool = True) -> Tensor:
    """Play a batch of clips as a sidecar would: closed loop, state in eight bits; v [T, N, 3, H, W].

    `memory=False` is the per-frame model: every frame is its first.
    """
    frames, n, _, height, width = batch.source.shape
    h, w = height // 8, width // 8
    device = batch.source.device
    stored = torch.zeros(n, h // 2, w // 2, net.tier.state, dtype=torch.int8, device=device)
    flags = torch.cat([
        batch.has_depth[:, None].expand(-1, 17), batch.has_motion[:, None].expand(-1, 3),
        batch.has_mask[:, None].expand(-1, 4),
    ], 1)[:, None, None]  # fmt: skip
    trust = torch.ones(n, device=device)
    answers = []
    for t in range(frames):
        v = batch.source[t]
        planes = planes_to_cells(batch.planes(t), n, h, w, v) * flags
        seen = functional.avg_pool2d(batch.visible[t], 16)
        if t == 0 or not memory:
            seen = torch.zeros_like(seen)
        seen = seen * (~batch.cut[t])[:, None, None, None]
        moved: MemoryState = warp_state(dequantise(stored), batch.motion[t][..., 8::16, 8::16], seen)
        answer, _, state = sample(net, v, batch.noise[t], planes, moved, net.style(batch.parameters[t]), trust, steps)
        stored = quantise(state)
        answers.append(answer)
    return torch.stack(answers)

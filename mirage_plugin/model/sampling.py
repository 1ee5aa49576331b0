"""One frame through the denoiser, with one or several steps.

The bridge of diffusion runs from the source to the answer: `y_k = (1 - k) y0 + k (x + sigma eps)`. Sampling
starts at k = 1 and predicts y0 outright; a further step re-noises that prediction to a smaller k and predicts
again (the consistency sampler of Song et al. 2023, on a source-anchored path). Symbols as there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.network import (
    SIGMA,
    Edit,
    MirageNet,
    compose,
    pixels_to_cells,
)

__all__ = ["levels", "lift_noise", "predict", "sample", "to_8_bits"]


def levels(steps: int) -> tuple[float, ...]:
    """Noise levels of a `steps`-step sampler, first to last: 1, then evenly down; never 0."""
    return tuple(1.0 - i / steps for i in range(steps))


def lift_noise(noise: Tensor) -> Tensor:
    """Spread a noise field over its pixels: [N, 1, H/2, W/2] -> [N, 1, H, W]."""
    return functional.interpolate(noise, scale_factor=2, mode="nearest")


def to_8_bits(v: Tensor) -> Tensor:
    """Round v to what an 8-bit frame can hold, in [-1, 1]."""
    return ((v.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def predict(
    net: MirageNet,
    v: Tensor,
    noisy: Tensor,
    planes: Tensor,
    memory: MemoryState,
    style: Tensor,
    k: Tensor,
    trust: Tensor,
) -> tuple[Tensor, Edit, Tensor]:
    """Predict y0 once.

    `v`, `noisy` [N, 3, H, W], sides multiples of 32; `planes` [N, h, w, PLANE_CHANNELS]; `style` [N, STYLE_SIZE];
    `k`, `trust` [N]. Returns (y0 not clamped, its edit, the next state).
    """  # fmt: skip
    condition = net.condition(style, k, trust)
    film = net.conditioned(condition, style)
    edit, state = net(pixels_to_cells(v), pixels_to_cells(noisy), planes, memory, film)
    return compose(v, edit, net.guide(v, condition)), edit, state


def sample(
    net: MirageNet,
    v: Tensor,
    noise: Tensor,
    planes: Tensor,
    memory: MemoryState,
    style: Tensor,
    trust: Tensor,
    steps: int = 1,
) -> tuple[Tensor, Edit, Tensor]:
    """Redraw one frame in `steps` steps; arguments as `predict`, `noise` [N, 1, H/2, W/2].

    Returns (y0 in [-1, 1], the last step's edit, the next state); the state is the first step's, so that it
    does not depend on how many follow.
    """  # fmt: skip
    noised = v + SIGMA * lift_noise(noise)
    answer, edit, state = predict(net, v, noised, planes, memory, style, torch.ones_like(trust), trust)
    for k in levels(steps)[1:]:
        noisy = (1 - k) * to_8_bits(answer) + k * noised
        answer, edit, _ = predict(net, v, noisy, planes, memory, style, torch.full_like(trust, k), trust)
    return answer.clamp(-1, 1), edit, state

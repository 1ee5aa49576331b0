"""One frame through the denoiser, with one or several steps, one after another or those of several frames at once.

The bridge of diffusion runs from the source to the answer: `y_k = (1 - k) y0 + k (x + sigma eps)`. Sampling
starts at k = 1 and predicts y0 outright; a further step re-noises that prediction to a smaller k and predicts
again (the consistency sampler of Song et al. 2023, on a source-anchored path). Symbols as there. The answer is the mean
of the predictions so far, as Heun's step takes the mean of both ends' directions (Karras et al. 2022): one that saw the
answer before is not better, but wrong in other places.

`sample` takes the steps of a frame one after another. `ParallelSampler` takes the K steps of K successive frames as one
batch, each frame at its own noise level, which is what Diffusion Forcing (Chen et al. 2024) trains the network for:
the same answers, K - 1 frames later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.overview import agreed, overview_entries, overview_size, remembered
from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.network import (
    CELL,
    SIGMA,
    Edit,
    MirageNet,
    Overview,
    Planes,
    compose,
    pixelate,
    pixels_to_cells,
    planes_to_cells,
    style_number,
)
from mirage_plugin.model.steady import steadied

__all__ = [
    "ParallelSampler",
    "Prediction",
    "levels",
    "lift_noise",
    "look_over",
    "predict",
    "remembering",
    "sample",
    "steady_answer",
    "to_8_bits",
]


def levels(steps: int) -> tuple[float, ...]:
    """Noise levels of a `steps`-step sampler, first to last: 1, then evenly down; never 0."""
    return tuple(1.0 - i / steps for i in range(steps))


def lift_noise(noise: Tensor) -> Tensor:
    """Spread a noise field over its pixels: [N, 1, H/2, W/2] -> [N, 1, H, W]."""
    return functional.interpolate(noise, scale_factor=2, mode="nearest")


def to_8_bits(v: Tensor) -> Tensor:
    """Round v to what an 8-bit frame can hold, in [-1, 1]."""
    return ((v.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _renoise(answer: Tensor, noised: Tensor, k: float) -> Tensor:
    """A point of the bridge at level `k`, between the network's own answer in 8 bits and the noised source."""
    return (1 - k) * to_8_bits(answer) + k * noised


class Prediction(NamedTuple):
    """One step: `answer` y0 [N, 3, H, W] not clamped, its `edit`, the next `state`; and the `words`
    [N, h, w, WORDS] of the surfaces that led to it."""

    answer: Tensor
    edit: Edit
    state: Tensor
    words: Tensor


def predict(
    net: MirageNet,
    v: Tensor,
    noisy: Tensor,
    planes: Tensor,
    memory: MemoryState,
    style: Tensor,
    k: Tensor,
    trust: Tensor,
    noise: Tensor,
    lines: Tensor,
) -> Prediction:
    """Predict y0 once.

    `v`, `noisy` [N, 3, H, W], sides multiples of 32; `planes` [N, h, w, PLANE_CHANNELS]; `style` [N, STYLE_SIZE];
    `k`, `trust` [N]; `noise` [N, 1, H/2, W/2]; `lines` [N, 2, H, W] of `frame_lines`.
    """  # fmt: skip
    edit, words, state = _read(net, v, noisy, planes, memory, style, k, trust, noise)
    return Prediction(_answer(v, edit, style, lines), edit, state, words)


def look_over(
    net: MirageNet, v: Tensor, planes: Planes, style: Tensor, before: Overview | None = None
) -> Overview | None:
    """An overview of frames v [N, 3, H, W], without what fills their grid; None where small frames have depth, and one
    without words where they have none.

    `planes` of the same size, of which depth and mask are seen; noise and the frames' memory are left out. It heeds the
    one `before`, of the frames before (`remembering`), where the planes' motion says that its cells come from there;
    without motion nothing has moved.
    """
    rows, columns = v.shape[-2:]
    has_depth = planes.depth is not None
    size = overview_size(rows, columns, depth=has_depth)

    def moved(h: int, w: int, size: tuple[int, int]) -> Tensor:
        if planes.motion is None:
            return v.new_zeros(v.shape[0], 2, h, w)
        y, x = (overview_entries(*side).to(v.device) for side in ((h, size[0], rows), (w, size[1], columns)))
        there = planes.motion[..., ::2, ::2][:, :, y][..., x]
        return there * there.new_tensor([size[1] / columns, size[0] / rows]).view(2, 1, 1) / CELL

    if size is None:
        if has_depth:
            return None
        kept = None if before is None else before.kept
        return Overview(None, kept=kept, came=moved(rows // CELL, columns // CELL, (rows, columns)))

    def brought(plane: Tensor, mode: str) -> Tensor:
        fill = (0, -size[1] % 32, 0, -size[0] % 32)
        return functional.pad(functional.interpolate(plane, size, mode=mode), fill, mode="replicate")

    small = brought(v, "area")
    still = (None if plane is None else brought(plane, "nearest-exact") for plane in (planes.depth, planes.mask))
    depth, mask = still
    n, _, height, width = small.shape
    h, w = height // CELL, width // CELL
    cells = planes_to_cells(Planes(depth, None, mask), n, h, w, small)
    nothing = small.new_zeros(n, h // 2, w // 2, net.tier.state), small.new_zeros(n, h // 2, w // 2, 1)
    one = torch.ones(n, device=v.device)
    silent = small.new_zeros(n, 1, height // 2, width // 2)
    _, words, _ = _read(net, small, small, cells, MemoryState(*nothing), style, one, one, silent)
    scale = size[0] / rows, size[1] / columns
    if before is not None and before.kept is not None:
        words = remembered(words, before.kept, moved(h, w, size))
    return Overview(words if has_depth else agreed(words), scale, words)


def remembering(overview: Overview | None, words: Tensor) -> Overview | None:
    """What `look_over` is to heed at the next frames, of which `sample` had this overview and returned these words."""
    return overview if overview is None or overview.words is not None else overview._replace(kept=words)


def _read(
    net: MirageNet, v: Tensor, noisy: Tensor, planes: Tensor, memory: MemoryState, style: Tensor, k: Tensor,
    trust: Tensor, noise: Tensor, overview: Overview | None = None,
) -> tuple[Edit, Tensor, Tensor]:  # fmt: skip
    film = net.conditioned(net.condition(style, k, trust), style)
    return net.read(pixels_to_cells(v), pixels_to_cells(noisy), planes, memory, film, noise, overview)


def _answer(v: Tensor, edit: Edit, style: Tensor, lines: Tensor) -> Tensor:
    return pixelate(compose(v, edit, lines), style_number(style, "pixels"))


def _mean_with(before: Edit | None, edit: Edit, step: int) -> Edit:
    """The mean of a frame's edits up to that of `step`, from the mean of those before."""
    return edit if before is None else Edit(*(a + (b - a) / (step + 1) for a, b in zip(before, edit, strict=True)))


def sample(
    net: MirageNet,
    v: Tensor,
    noise: Tensor,
    planes: Tensor,
    memory: MemoryState,
    style: Tensor,
    trust: Tensor,
    lines: Tensor,
    steps: int = 1,
    overview: Overview | None = None,
) -> tuple[Tensor, Edit, Tensor, Tensor]:
    """Redraw one frame in `steps` steps; arguments as `predict`, `overview` of `look_over`.

    Returns (y0 in [-1, 1], the edit that makes it, the next state, the words); state and words are the first step's, so
    that they do not depend on how many follow.
    """  # fmt: skip
    noised = v + SIGMA * lift_noise(noise)
    edit, words, state = _read(net, v, noised, planes, memory, style, torch.ones_like(trust), trust, noise, overview)
    answer = _answer(v, edit, style, lines)
    for step, k in enumerate(levels(steps)[1:], 1):
        noisy = _renoise(answer, noised, k)
        further, *_ = _read(net, v, noisy, planes, memory, style, torch.full_like(trust, k), trust, noise, overview)
        edit = _mean_with(edit, further, step)
        answer = _answer(v, edit, style, lines)
    return answer.clamp(-1, 1), edit, state, words


def steady_answer(
    v: Tensor, edit: Edit, style: Tensor, lines: Tensor, settled: Tensor, motion: Tensor
) -> tuple[Tensor, Edit, Tensor]:
    """The answer that is shown after another: what cells were changed by goes on (`steadied`).

    `v`, `style`, `lines` as `predict`; `edit` the frame's own; `settled` [N, h, w, SETTLED] what the frame before has
    left, zeros where nothing was before; `motion` [N, 2, H, W]. Returns (y0 in [-1, 1], the edit that
    makes it, what this frame leaves).
    """
    colour = functional.avg_pool2d(v[..., ::2, ::2], CELL // 2).permute(0, 2, 3, 1)
    matrices, detail, anchors = (part.float() for part in (edit.matrices, edit.detail, edit.anchors))
    middles = motion[..., CELL // 2 :: CELL, CELL // 2 :: CELL]
    matrices, kept = steadied(matrices, detail, anchors, colour, settled, middles)
    edit = edit._replace(matrices=matrices)
    return _answer(v, edit, style, lines).clamp(-1, 1), edit, kept


@dataclass(frozen=True)
class _Underway:
    """A frame of every game between two of its steps; the arguments of `predict` as they were when it entered."""

    step: int
    edit: Edit | None
    """The mean of its edits so far."""
    v: Tensor
    noise: Tensor
    noised: Tensor
    noisy: Tensor
    planes: Tensor
    memory: MemoryState
    style: Tensor
    trust: Tensor
    lines: Tensor


class ParallelSampler:
    """Parallel denoising: one step of each of the last K frames as one batch of the network.

    Frame t enters at level 1; with every frame that follows it is refined at the next level, beside those followers at
    theirs, and it is answered when frame t + K - 1 enters. What a frame remembers is what it saw when it entered, and
    the state it leaves is its first step's, as in `sample`; so the next frame need not wait for the answer, and every
    answer is the one that `sample` gives. K - 1 frames are held, whatever they are followed by: a cut or another style
    concerns the frames that enter with it.

    Several games that send frames of one size in step are one batch, [N, ...]; none of them sees another.
    """

    def __init__(self, net: MirageNet, steps: int = 1) -> None:
        """Begin with no frame under way. Raises `ValueError` for less than one step."""
        if steps < 1:
            raise ValueError(f"a frame takes at least one step, not {steps}")
        self.net = net
        self._levels = levels(steps)
        self._underway: list[_Underway] = []

    @property
    def latency_frames(self) -> int:
        """How many frames enter after a frame before its answer comes out."""
        return len(self._levels) - 1

    def step(
        self, v: Tensor, noise: Tensor, planes: Tensor, memory: MemoryState, style: Tensor, trust: Tensor, lines: Tensor
    ) -> tuple[tuple[Tensor, Edit] | None, Tensor]:
        """Let a frame enter and take one step of every frame under way, in one call of the network.

        Arguments as `sample`. Returns the answer of the frame that entered `latency_frames` calls ago, (y0 in [-1, 1],
        the edit that makes it), None while there was none yet; and the state that the entering frame leaves.
        """
        noised = v + SIGMA * lift_noise(noise)
        self._underway.append(_Underway(0, None, v, noise, noised, noised, planes, memory, style, trust, lines))
        return self._advance()

    def flush(self) -> list[tuple[Tensor, Edit]]:
        """Finish the frames under way without a new one, at the end of a clip or in a pause: answers, oldest first."""
        answers = []
        while self._underway:
            answer, _ = self._advance()
            if answer is not None:
                answers.append(answer)
        return answers

    def _advance(self) -> tuple[tuple[Tensor, Edit] | None, Tensor]:
        """One step of everything under way; what was the last step of the oldest, and the state of the newest."""
        frames = self._underway
        level = torch.cat([torch.full_like(frame.trust, self._levels[frame.step]) for frame in frames])
        memory = MemoryState(
            torch.cat([frame.memory.state for frame in frames]), torch.cat([frame.memory.valid for frame in frames])
        )
        v, noisy, planes, style, trust, noise, lines = (
            torch.cat([getattr(frame, name) for frame in frames])
            for name in ("v", "noisy", "planes", "style", "trust", "noise", "lines")
        )
        every, _, states = _read(self.net, v, noisy, planes, memory, style, level, trust, noise)
        ends = accumulate(frame.v.shape[0] for frame in frames)
        rows = [slice(a, b) for a, b in pairwise([0, *ends])]
        edits = [
            _mean_with(frame.edit, Edit(*(part[games] for part in every)), frame.step)
            for frame, games in zip(frames, rows, strict=True)
        ]
        answers = _answer(v, Edit(*(torch.cat(parts) for parts in zip(*edits, strict=True))), style, lines)
        done = None
        if frames[0].step == len(self._levels) - 1:
            done = answers[rows[0]].clamp(-1, 1), edits[0]
        # Frames enter one by one and leave in that order, so that the oldest is always the farthest.
        self._underway = [
            replace(frame, step=i, edit=edit, noisy=_renoise(answers[games], frame.noised, self._levels[i]))
            for frame, edit, games in zip(frames, edits, rows, strict=True)
            if (i := frame.step + 1) < len(self._levels)
        ]
        return done, states[rows[-1]]

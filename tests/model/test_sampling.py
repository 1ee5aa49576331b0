"""Parallel denoising gives the answers of `sample`, later: cuts, several games, the end of a clip, one step."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mirage_plugin.model.memory import MemoryState, dequantise, quantise, warp_state
from mirage_plugin.model.network import PLANE_CHANNELS, MirageNet, frame_lines
from mirage_plugin.model.sampling import ParallelSampler, sample
from mirage_plugin.styles.parameters import load_style

FRAMES, HEIGHT, WIDTH = 6, 32, 64
STYLES = ("ink", "ink", "snow", "snow", "noir", "noir")
CUT = 3
# Sums in another order move a value over the edge of an 8-bit step here and there, and a later step sees that step.
CLOSE = {"max": 0.02, "mean": 6e-5}


class Clip(NamedTuple):
    """Frames of N games: v, noise, planes and motion, each [T, N, ...]."""

    v: Tensor
    noise: Tensor
    planes: Tensor
    motion: Tensor

    def game(self, i: int) -> Clip:
        return Clip(*(part[:, i : i + 1] for part in self))


@pytest.fixture(scope="module")
def clip() -> Clip:
    rng = torch.Generator().manual_seed(8)
    return Clip(
        torch.rand(FRAMES, 2, 3, HEIGHT, WIDTH, generator=rng) * 2 - 1,
        torch.randn(FRAMES, 2, 1, HEIGHT // 2, WIDTH // 2, generator=rng),
        torch.rand(FRAMES, 2, HEIGHT // 8, WIDTH // 8, PLANE_CHANNELS, generator=rng),
        torch.randn(FRAMES, 2, 2, HEIGHT // 16, WIDTH // 16, generator=rng) * 6,
    )


class Frame(NamedTuple):
    """What a sampler is given."""

    v: Tensor
    noise: Tensor
    planes: Tensor
    memory: MemoryState
    style: Tensor
    trust: Tensor
    lines: Tensor


def frame(net: MirageNet, clip: Clip, t: int, stored: Tensor) -> Frame:
    n = clip.v.shape[1]
    seen = torch.full((n, 1, HEIGHT // 16, WIDTH // 16), float(t not in (0, CUT)))
    style = net.style(torch.from_numpy(load_style(STYLES[t]).vector())[None].expand(n, -1))
    memory = warp_state(dequantise(stored), clip.motion[t], seen)
    lines = frame_lines(clip.v[t], None, None, style)
    return Frame(clip.v[t], clip.noise[t], clip.planes[t], memory, style, torch.full((n,), 1 - t / 10), lines)


def empty(net: MirageNet, clip: Clip) -> Tensor:
    return torch.zeros(clip.v.shape[1], HEIGHT // 16, WIDTH // 16, net.tier.state, dtype=torch.int8)


@torch.inference_mode()
def in_sequence(net: MirageNet, clip: Clip, steps: int) -> tuple[list[Tensor], Tensor]:
    stored, answers = empty(net, clip), []
    for t in range(FRAMES):
        answer, _, state, _ = sample(net, *frame(net, clip, t, stored), steps)
        stored = quantise(state)
        answers.append(answer)
    return answers, stored


@torch.inference_mode()
def in_parallel(net: MirageNet, clip: Clip, steps: int) -> tuple[list[Tensor], Tensor]:
    sampler = ParallelSampler(net, steps)
    stored, answers = empty(net, clip), []
    for t in range(FRAMES):
        done, state = sampler.step(*frame(net, clip, t, stored))
        stored = quantise(state)
        assert (done is None) == (t < steps - 1), "frame t comes out when frame t + K - 1 enters"
        if done is not None:
            answers.append(done[0])
    last = sampler.flush()
    assert len(last) == sampler.latency_frames == steps - 1
    assert sampler.flush() == []
    return [*answers, *(answer for answer, _ in last)], stored


def assert_close(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted) == FRAMES
    for t, (a, b) in enumerate(zip(found, wanted, strict=True)):
        apart = (a - b).abs()
        assert float(apart.max()) < CLOSE["max"], f"frame {t}: {float(apart.max())}"
        assert float(apart.mean()) < CLOSE["mean"], f"frame {t}: {float(apart.mean())}"


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_the_answers_are_those_of_one_step_after_another(net: MirageNet, clip: Clip, steps: int) -> None:
    wanted, left = in_sequence(net, clip, steps)
    found, stored = in_parallel(net, clip, steps)
    assert_close(found, wanted)
    assert int((stored.int() - left.int()).abs().max()) <= 1
    # The comparison can fail: another number of steps, or another frame's, is far from it.
    once, _ = in_sequence(net, clip, steps - 1)
    assert float((once[2] - wanted[2]).abs().mean()) > 10 * CLOSE["mean"]
    assert float((found[2] - wanted[1]).abs().mean()) > 10 * CLOSE["mean"]


def test_one_step_is_sample_itself(net: MirageNet, clip: Clip) -> None:
    wanted, left = in_sequence(net, clip, 1)
    found, stored = in_parallel(net, clip, 1)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert torch.equal(stored, left)


def test_a_clip_that_is_no_longer_than_the_steps(net: MirageNet, clip: Clip) -> None:
    found, _ = in_parallel(net, Clip(*(part[:, :1] for part in clip)), FRAMES)
    wanted, _ = in_sequence(net, clip.game(0), FRAMES)
    assert_close(found, wanted)


def test_games_of_one_batch_see_nothing_of_one_another(net: MirageNet, clip: Clip) -> None:
    together, left = in_parallel(net, clip, 3)
    for i in range(2):
        alone, stored = in_parallel(net, clip.game(i), 3)
        assert_close([answer[i : i + 1] for answer in together], alone)
        assert int((left[i : i + 1].int() - stored.int()).abs().max()) <= 1
    other = Clip(*(torch.cat([part[:, :1], part[:, 1:].flip(0)], 1) for part in clip))
    beside, _ = in_parallel(net, other, 3)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(together, beside, strict=True))


def test_what_was_before_a_cut_is_not_seen_behind_it(net: MirageNet, clip: Clip) -> None:
    # All but frame 2 the same: it is under way when the cut enters, and no answer behind the cut may know it.
    changed = clip._replace(v=torch.cat([clip.v[:2], -clip.v[2:3], clip.v[3:]]))
    before, _ = in_parallel(net, clip, 4)
    after, _ = in_parallel(net, changed, 4)
    assert not torch.equal(before[2], after[2])
    assert all(torch.equal(a, b) for a, b in zip(before[CUT:], after[CUT:], strict=True))


def test_a_frame_of_nan_spoils_no_frame_beside_it(net: MirageNet, clip: Clip) -> None:
    broken = clip._replace(v=torch.cat([clip.v[:2], torch.full_like(clip.v[2:3], math.nan), clip.v[3:]]))
    wanted, _ = in_parallel(net, clip, 3)
    found, _ = in_parallel(net, broken, 3)
    assert torch.equal(found[1], wanted[1])
    assert bool(found[2].isnan().any())
    assert all(torch.equal(a, b) for a, b in zip(found[CUT:], wanted[CUT:], strict=True))


def test_less_than_one_step_is_refused(net: MirageNet) -> None:
    with pytest.raises(ValueError, match="at least one step, not 0"):
        ParallelSampler(net, 0)

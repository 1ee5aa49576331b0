"""The noise field and the memory: what moves, what stays, and what cannot hold a NaN."""

from __future__ import annotations

import pytest
import torch

from mirage_plugin.model.memory import dequantise, quantise, warp_state
from mirage_plugin.model.noise import advect_noise, fresh_noise


def number(value: int) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.int64)


def test_noise_is_a_function_of_seed_frame_and_place() -> None:
    whole = fresh_noise(number(7), number(3), 40, 60)
    assert torch.equal(whole, fresh_noise(number(7), number(3), 40, 60))
    assert torch.equal(whole[..., :10, :20], fresh_noise(number(7), number(3), 10, 20))
    pair = fresh_noise(torch.tensor([9, 7]), torch.tensor([1, 3]), 40, 60)
    assert torch.equal(pair[1:], whole)
    for other in (fresh_noise(number(8), number(3), 40, 60), fresh_noise(number(7), number(4), 40, 60)):
        assert abs(float((whole * other).mean())) < 0.08


def test_noise_is_unit_normal_and_white() -> None:
    noise = fresh_noise(number(1), number(0), 256, 256)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert abs(float((noise[..., 1:] * noise[..., :-1]).mean())) < 0.02
    assert float(noise.abs().max()) < 7


def test_carried_noise_keeps_its_variance() -> None:
    field = fresh_noise(number(1), number(0), 64, 64)
    motion = torch.full((1, 2, 64, 64), 0.7)
    seen = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    for frame in range(1, 60):
        field = advect_noise(field, motion, seen, fresh_noise(number(1), number(frame), 64, 64))
    assert abs(float(field.std()) - 1) < 0.05


def test_noise_sticks_to_what_moves() -> None:
    before, new = fresh_noise(number(1), number(0), 32, 32), fresh_noise(number(1), number(1), 32, 32)
    # Two values to the left, four pixels of the frame.
    motion = torch.tensor([-4.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 32, 32)
    seen = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    seen[..., 10:, :] = False
    moved = advect_noise(before, motion, seen, new)
    assert torch.equal(moved[..., :10, 2:], before[..., :10, :-2])
    assert torch.equal(moved[..., :10, :2], new[..., :10, :2]), "what comes into the frame is drawn anew"
    assert torch.equal(moved[..., 10:, :], new[..., 10:, :]), "what was hidden is drawn anew"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e9])
def test_motion_of_nonsense_draws_anew(bad: float) -> None:
    before, new = fresh_noise(number(1), number(0), 16, 16), fresh_noise(number(1), number(1), 16, 16)
    seen = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    assert torch.equal(advect_noise(before, torch.full((1, 2, 16, 16), bad), seen, new), new)
    state = warp_state(torch.ones(1, 4, 4, 8), torch.full((1, 2, 4, 4), bad), torch.ones(1, 1, 4, 4))
    assert bool(state.state.isfinite().all())
    assert float(state.valid.max()) == 0


def test_eight_bits_come_back_to_within_half_a_step() -> None:
    state = torch.linspace(-1, 1, 999)
    stored = quantise(state)
    assert stored.dtype == torch.int8
    assert float((dequantise(stored) - state).abs().max()) <= 0.5 / 127 + 1e-6
    assert torch.equal(quantise(dequantise(stored)), stored)


def test_what_is_stored_holds_no_nan() -> None:
    stored = quantise(torch.tensor([float("nan"), float("inf"), -float("inf"), 9.0]))
    assert stored.tolist() == [0, 127, -127, 127]


def test_a_state_moves_with_the_picture() -> None:
    state = torch.randn(1, 6, 6, 3).tanh()
    still = warp_state(state, torch.zeros(1, 2, 6, 6), torch.ones(1, 1, 6, 6))
    assert torch.allclose(still.state, state, atol=1e-6)
    assert float(still.valid.min()) == 1
    # One entry is 16 pixels; it was one entry to the left.
    motion = torch.tensor([-16.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 6, 6)
    moved = warp_state(state, motion, torch.ones(1, 1, 6, 6))
    assert torch.allclose(moved.state[:, :, 1:], state[:, :, :-1], atol=1e-5)
    assert float(moved.valid[:, :, 0].max()) == 0, "what came into the frame is not valid"
    assert float(moved.valid[:, :, 1:].min()) == 1

"""Each metric against its definition, a known value, or a picture made to have a known one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mirage_plugin.train.metrics import (
    gradient_energy,
    grid_energy,
    oracle_lut,
    psnr,
    ssim,
    warp_back,
    warping_error,
)


def waves() -> tuple[Tensor, Tensor, Tensor]:
    """Three pictures v [1, 3, 32, 40] made of sines: they are the same in every library."""
    y, x = np.mgrid[0:32, 0:40].astype(np.float64)
    a = np.stack([np.sin(x * 0.3 + y * 0.1), np.cos(y * 0.2), np.sin(x * y * 0.01)]).astype(np.float32) * 0.8
    b = a * 0.7 + 0.1 * np.stack([np.cos(x * 1.3), np.sin(y * 0.9), np.cos(x + y)])
    c = np.clip(a + 0.3 * np.stack([np.sin(7 * x + 3 * y), np.sin(5 * x - 2 * y), np.sin(x * 11)]), -1, 1)
    return (
        torch.from_numpy(a)[None],
        torch.from_numpy(b.astype(np.float32))[None],
        torch.from_numpy(c.astype(np.float32))[None],
    )


def test_psnr_of_a_known_error() -> None:
    truth = torch.zeros(2, 3, 8, 8)
    answer = torch.stack([torch.full((3, 8, 8), 0.02), torch.full((3, 8, 8), 0.2)])
    # The peak is 2: 20 log10(2 / 0.02) and 20 log10(2 / 0.2).
    assert psnr(answer, truth).tolist() == pytest.approx([40.0, 20.0], abs=1e-3)
    assert psnr(truth, truth).tolist() == pytest.approx([100.0, 100.0])


def test_psnr_sees_what_a_screen_shows() -> None:
    truth = torch.ones(1, 3, 8, 8)
    assert float(psnr(torch.full((1, 3, 8, 8), 7.0), truth)) == pytest.approx(100.0)


def test_ssim_is_scikit_image_s() -> None:
    a, b, c = waves()
    # structural_similarity(data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    # channel_axis=0) of scikit-image 0.26.0 on the same pictures in [0, 1].
    assert float(ssim(b, a)) == pytest.approx(0.79266, abs=2e-5)
    assert float(ssim(c, a)) == pytest.approx(0.60448, abs=2e-5)
    assert float(ssim(a, a)) == pytest.approx(1.0, abs=1e-6)


def test_gradient_energy_grows_with_the_square_of_contrast_and_falls_with_blur() -> None:
    a, _, c = waves()
    assert float(gradient_energy(a / 2)) == pytest.approx(float(gradient_energy(a)) / 4, rel=1e-4)
    blurred = torch.nn.functional.avg_pool2d(c, 3, 1, 1)
    assert float(gradient_energy(blurred)) < 0.6 * float(gradient_energy(c))
    assert float(gradient_energy(torch.full((1, 3, 8, 8), 0.3))) == 0


def test_grid_energy_sees_a_grid_and_nothing_else() -> None:
    noise = torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.2
    assert float(grid_energy(noise)) == pytest.approx(1.0, abs=0.03)
    assert float(grid_energy(torch.zeros(1, 3, 32, 32))) == pytest.approx(1.0)
    # Cells of a brightness of their own, as a network on a cell grid leaves them.
    cells = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(1)) * 0.1
    gridded = noise + torch.nn.functional.interpolate(cells, scale_factor=8)
    assert float(grid_energy(gridded)) > 1.15
    # The same at a period of 7 leaves no trace at 8.
    sevens = torch.nn.functional.interpolate(cells, scale_factor=7)[..., :84, :84]
    assert float(grid_energy(noise[..., :84, :84] + sevens)) < 1.06


def test_the_oracle_lut_undoes_any_colour_matrix() -> None:
    source = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) - 0.5
    matrix = torch.tensor([[0.5, 0.2, 0.0], [0.0, 0.7, -0.1], [0.3, 0.0, 0.4]])
    truth = torch.einsum("ij,njhw->nihw", matrix, source) + 0.1
    assert float(psnr(oracle_lut(source, truth), truth).min()) > 80


def test_the_oracle_lut_is_never_worse_than_doing_nothing() -> None:
    a, b, c = waves()
    for source, truth in ((a, b), (a, c), (c, a)):
        assert float(psnr(oracle_lut(source, truth), truth)) >= float(psnr(source, truth)) - 1e-3
    flat = torch.full((1, 3, 8, 8), 0.25)
    assert bool(oracle_lut(flat, flat * 2).isfinite().all())
    assert float(psnr(oracle_lut(flat, flat * 2), flat * 2)) > 40


def test_warping_follows_the_motion() -> None:
    picture = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    now = picture.roll(3, 3)
    motion = torch.tensor([-3.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 24, 32)
    visible = torch.ones(1, 1, 24, 32, dtype=torch.bool)
    visible[..., :3] = False
    assert torch.allclose(warp_back(picture, motion)[..., 3:], now[..., 3:], atol=1e-5)
    assert float(warping_error(now, picture, motion, visible)) < 0.01
    assert float(warping_error(now, picture, torch.zeros_like(motion), visible)) > 20


def test_warping_error_is_in_8_bit_steps_and_over_the_visible_alone() -> None:
    before = torch.zeros(1, 3, 16, 16)
    now = torch.full((1, 3, 16, 16), 2 / 255)
    now[..., 8:] = 1.0
    still, visible = torch.zeros(1, 2, 16, 16), torch.ones(1, 1, 16, 16)
    visible[..., 8:] = 0
    assert float(warping_error(now, before, still, visible)) == pytest.approx(1.0, abs=1e-3)
    assert float(warping_error(now, before, still, torch.zeros_like(visible))) == 0
    lost = warping_error(now, before, torch.full_like(still, math.nan), visible)
    assert bool(lost.isfinite().all())

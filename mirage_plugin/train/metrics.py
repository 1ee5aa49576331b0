"""What pictures are measured by: one function a metric, with its definition.

Pictures are float32 `[N, 3, H, W]` in [-1, 1] as the network speaks them (`v`); every function takes a
batch and returns one float32 number a picture, `[N]`, unless it says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "gradient_energy",
    "grid_energy",
    "oracle_lut",
    "psnr",
    "ssim",
    "warp_back",
    "warping_error",
]

_LUMA = (0.2126, 0.7152, 0.0722)


def _luma(v: Tensor) -> Tensor:
    """Brightness in [0, 1] of v: [N, 3, H, W] -> [N, 1, H, W]."""
    weights = torch.tensor(_LUMA, device=v.device, dtype=v.dtype).view(1, 3, 1, 1)
    return (((v + 1) / 2) * weights).sum(1, keepdim=True)


def psnr(answer: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB: `10 log10(2^2 / mean((answer - truth)^2))`, over all pixels and
    channels.

    The answer is clamped to [-1, 1] first, as a screen does. Equal pictures give 100 dB, not infinity.
    """
    mse = (answer.clamp(-1, 1) - truth).square().mean((1, 2, 3)).clamp_min(4e-10)
    return 10 * (4 / mse).log10()


def ssim(answer: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean of the three channels; 1 is equal.

    Gaussian window of 11x11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, biased covariances, borders left out:
    the original's setting. Sides must be at least 11 pixels.
    """
    x, y = (answer.clamp(-1, 1) + 1) / 2, (truth + 1) / 2
    axis = torch.arange(-5, 6, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-axis.square() / (2 * 1.5**2))
    kernel = kernel / kernel.sum()
    along, down = kernel.view(1, 1, 1, 11).expand(3, 1, 1, 11), kernel.view(1, 1, 11, 1).expand(3, 1, 11, 1)

    def local_mean(image: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(image, along, groups=3), down, groups=3)

    mx, my = local_mean(x), local_mean(y)
    vx, vy = local_mean(x * x) - mx * mx, local_mean(y * y) - my * my
    covariance = local_mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return score.mean((1, 2, 3))


def gradient_energy(v: Tensor) -> Tensor:
    """Sharpness: mean squared step between neighbours, across and down, of brightness in [0, 1].

    Halving every contrast quarters it; a blur lowers it, noise and a false grid raise it, so it stands beside
    PSNR and never alone.
    """
    y = _luma(v.clamp(-1, 1))
    across = (y[..., 1:] - y[..., :-1]).square().mean((1, 2, 3))
    down = (y[..., 1:, :] - y[..., :-1, :]).square().mean((1, 2, 3))
    return across + down


def grid_energy(v: Tensor, period: int = 8) -> Tensor:
    """How much of the gradient energy is locked to a grid of `period` pixels: a ratio, >= 1, for the whole
    batch.

    The squared steps of brightness are averaged by their place within the period, over all rows, columns
    and pictures of the batch; the loudest place is divided by the mean of all places, and the two
    directions are averaged. 1 is a picture that knows no grid; cell borders that stand out by a tenth of
    the energy give about 1.09. Returns a scalar. Compare with the truth's: a pixelated look has a grid of
    its own.
    """
    y = _luma(v.clamp(-1, 1))
    total = torch.zeros((), device=v.device)
    for image in (y, y.transpose(2, 3)):
        steps = (image[..., 1:] - image[..., :-1]).square().double().mean((0, 1, 2))
        whole = steps[: steps.numel() // period * period].view(-1, period).mean(0)
        # A flat picture has no steps at all: no grid either.
        total = total + ((whole.max() + 1e-12) / (whole.mean() + 1e-12)).float()
    return total / 2


def warp_back(previous: Tensor, motion: Tensor) -> Tensor:
    """Fetch the previous frame's pixels to where their surfaces are now, bilinearly: [N, C, H, W].

    `motion` [N, 2, H, W]: where each pixel was minus where it is now, in pixels (x, y); not finite counts
    as far outside, which is black.
    """
    _, _, height, width = previous.shape
    motion = torch.nan_to_num(motion.float(), nan=1e6, posinf=1e6, neginf=-1e6)
    x = torch.arange(width, device=motion.device) + motion[:, 0]
    y = torch.arange(height, device=motion.device).view(-1, 1) + motion[:, 1]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1).clamp(-4, 4)
    out: Tensor = functional.grid_sample(
        previous, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return out


def warping_error(now: Tensor, previous: Tensor, motion: Tensor, visible: Tensor) -> Tensor:
    """Flicker: root mean square, in 8-bit steps, of `now` minus the previous frame carried along the exact
    motion.

    `visible` bool or float [N, 1, H, W]: where the previous frame shows the same surface; nothing else
    counts. Zero where nothing is visible. Moving truth has an error too (light, resampling): print it
    beside.
    """
    seen = visible.float()
    difference = (now - warp_back(previous, motion)).square().mean(1, keepdim=True) * seen
    mean = difference.sum((1, 2, 3)) / seen.sum((1, 2, 3)).clamp_min(1)
    return mean.sqrt() * 127.5


def oracle_lut(source: Tensor, truth: Tensor) -> Tensor:
    """The best that colour grading alone can do: [N, 3, H, W], clamped to [-1, 1].

    For each frame the 3x4 colour matrix with the least squared error, fitted with the answer in hand. A model
    that does not beat it has learned colour grading, not style.
    """
    n, _, height, width = source.shape
    flat = source.reshape(n, 3, -1).double()
    x = torch.cat([flat, torch.ones_like(flat[:, :1])], 1)
    y = truth.reshape(n, 3, -1).double()
    # A frame of one colour leaves directions open; a little weight keeps the matrix finite there.
    gram = x @ x.transpose(1, 2) + 1e-6 * torch.eye(4, dtype=x.dtype, device=x.device)
    matrix = torch.linalg.solve(gram, x @ y.transpose(1, 2))
    fitted: Tensor = (matrix.transpose(1, 2) @ x).view(n, 3, height, width).float()
    return fitted.clamp(-1, 1)

"""How tests of kernels measure: a tolerance per dtype with its reason, errors printed, outputs poisoned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import mirage_kernels as kernels

TOLERANCE = {
    # The sums of a product are taken in another order.
    torch.float32: 1e-5,
    # 11 bits of mantissa: what is rounded on the way is rounded at 5e-4, a few times over.
    torch.float16: 2e-3,
    # 8 bits of mantissa, 4e-3, likewise.
    torch.bfloat16: 1e-2,
    # fp8 has 4. A chip rounds the left operand to nearest (2.7e-2 in all); the interpreter cuts it (5e-2).
    torch.float8_e4m3fn: 1e-1,
}


def error(actual: Tensor, expected: Tensor) -> float:
    """Relative error in the 2-norm; NaN and infinities must stand in the same places."""
    actual, expected = actual.double(), expected.double()
    assert actual.shape == expected.shape
    # Infinities and NaN compare as themselves, the rest as numbers.
    odd = ~expected.isfinite()
    assert torch.equal(odd, ~actual.isfinite()), "NaN or infinities stand elsewhere"
    assert torch.equal(expected.isnan(), actual.isnan())
    actual, expected = actual[~odd], expected[~odd]
    if actual.numel() == 0:
        return 0.0
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-12))


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """Compare and print the error, so that a log says how far from its bound each kernel is."""
    assert actual.dtype == expected.dtype
    found = error(actual, expected)
    print(f"{what:40} error {found:.2e} of {tolerance:.0e}")
    assert found <= tolerance


@contextmanager
def side(name: kernels.Backend) -> Iterator[None]:
    """Take one side of the switch for a while."""
    before = kernels.use(name)
    try:
        yield
    finally:
        kernels.use(before)


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill what launchers allocate, so that an entry that no program writes shows."""

    def fill(made: Tensor) -> Tensor:
        return made.fill_(torch.nan if made.dtype.is_floating_point else 77)

    empty, empty_like = torch.empty, torch.empty_like

    def poison(*args: Any, **named: Any) -> Tensor:
        return fill(empty(*args, **named))

    def poison_like(*args: Any, **named: Any) -> Tensor:
        return fill(empty_like(*args, **named))

    with mock.patch("torch.empty", poison), mock.patch("torch.empty_like", poison_like):
        yield


def random_edit(generator: torch.Generator, n: int, h: int, w: int) -> Tensor:
    """An edit with readings of any colour, whose shares of each cell sum to one: [n, h, w, EDIT_CHANNELS]."""
    made = torch.randn(n, h, w, 240, generator=generator) * 0.3
    colours = torch.rand(n, h, w, 12, generator=generator) * 2 - 1
    shares = torch.randn(n, h, w, 4, generator=generator).softmax(-1)
    return torch.cat([made, colours, shares, torch.rand(n, h, w, 8, generator=generator)], -1)


def random_frame(layout: kernels.FrameLayout, n: int, generator: torch.Generator) -> Tensor:
    """Frames of any bytes; half floats are colours, some out of range, NaN or infinite."""
    if layout.format != "rgba16f":
        return torch.randint(0, 256, (n, layout.size_bytes), generator=generator).to(torch.uint8)
    values = torch.rand(n, layout.size_bytes // 2, generator=generator) * 1.4 - 0.2
    odd = torch.rand(values.shape, generator=generator)
    values[odd < 0.02] = torch.nan
    values[(odd > 0.02) & (odd < 0.04)] = torch.inf
    return values.half().view(torch.uint8)


def layout_of(name: kernels.PixelFormat, height: int, width: int, **options: Any) -> kernels.FrameLayout:
    """A layout whose rows are longer than their pixels."""
    bytes_per_pixel = {"rgb8": 3, "rgba16f": 8}.get(name, 4)
    pad = 5 if name == "rgb8" else 8
    return kernels.FrameLayout(name, height, width, width * bytes_per_pixel + pad, **options)

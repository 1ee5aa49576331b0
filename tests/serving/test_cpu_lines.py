"""Lines on the processor are those of their definition: compiled or not, whatever lies where a depth should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mirage_kernels.lines import (
    colour_lines_of,
    depth_lines_reference,
    line_points,
    line_shares,
    middles,
    trace_lines_reference,
)
from mirage_plugin.model import cpu_lines, native
from mirage_plugin.model.network import cells_to_pixels


@pytest.fixture(params=[True, False], ids=["compiled", "without a compiler"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(cpu_lines, "_load", lambda: None)
    elif reason := native.why_not_native():
        pytest.skip(reason)
    return bool(request.param)


def shapes(height: int, width: int) -> NDArray[np.float32]:
    """Depth of things before one another, and here and there of what is no depth."""
    r = np.random.default_rng(height * width)
    depth = np.full((height, width), 20.0, np.float32) + np.linspace(0, 5, width, dtype=np.float32)
    for _ in range(12):
        y, x = int(r.integers(0, height)), int(r.integers(0, width))
        depth[y : y + height // 3, x : x + width // 3] = r.uniform(1, 30)
    depth[: height // 5] = 1e6
    odd = depth.reshape(-1)
    odd[::97], odd[11::193], odd[13::211], odd[17::223] = np.nan, np.inf, -1.0, 0.0
    return depth


def expected_of(depth: NDArray[np.float32], width: float) -> torch.Tensor:
    rows, columns = (middles(few, many) for few, many in zip(line_points(*depth.shape), depth.shape, strict=True))
    field = torch.from_numpy(depth.copy())[rows][:, columns]
    return trace_lines_reference(depth_lines_reference(field[None, None]), torch.tensor([width]))[0] * 255


@pytest.mark.parametrize("size", [(36, 64), (1, 1), (2, 3), (45, 7), (1080, 40)])
@pytest.mark.parametrize("width", [0.0, 0.35, 1.0])
def test_of_depth(compiled: bool, size: tuple[int, int], width: float) -> None:
    depth = shapes(*size)
    found = cpu_lines.depth_lines(depth, width)
    expected = expected_of(depth, width)
    assert found.shape == expected.shape
    assert np.abs(found - expected.numpy()).max() <= 0.51
    if size == (36, 64):
        assert 0.05 < found.mean() / 255 < 0.7


def test_of_a_plane_as_it_stands_in_a_slot(compiled: bool) -> None:
    """Rows any distance apart, the lowest first, of columns that do not lie together."""
    slot = np.full((40, 80), 7.0, np.float32)
    depth = shapes(36, 64)
    for view in (slot[2:38, 5:69], slot[2:38, 5:69][::-1], np.repeat(slot, 2, 1)[2:38, 10:138:2]):
        view[...] = depth
        assert np.array_equal(cpu_lines.depth_lines(view, 0.5), cpu_lines.depth_lines(depth, 0.5))


@pytest.mark.parametrize("threads", [2, 5])
def test_how_many_threads_share_the_rows_changes_no_bit(threads: int) -> None:
    """A band begins before its first row: as far as what that comes to reaches."""
    r = np.random.default_rng(threads)
    for rows in (1, 2, 63, 64, 65, 71, 200, 389):
        depth = shapes(rows, 96) + r.random((rows, 96), np.float32)
        alone = cpu_lines.depth_lines(depth, 0.7)
        for _ in range(4):
            np.testing.assert_array_equal(cpu_lines.depth_lines(depth, 0.7, threads), alone)
    for rows in (1, 8, 9, 25, 48):
        cells = r.integers(0, 256, (rows, 16, 192)).astype(np.uint8)
        lines, shares = cpu_lines.colour_lines(cells, 0.4)
        for _ in range(4):
            again = cpu_lines.colour_lines(cells, 0.4, threads)
            np.testing.assert_array_equal(again[0], lines)
            np.testing.assert_array_equal(again[1], shares)


@pytest.mark.parametrize("grid", [(4, 4), (8, 12), (4, 20), (20, 4)])
def test_of_colours(compiled: bool, grid: tuple[int, int]) -> None:
    h, w = grid
    r = np.random.default_rng(h * w)
    cells = r.integers(0, 256, (h, w, 192)).astype(np.uint8)
    cells[:, w // 2 :] //= 16
    found, shares = cpu_lines.colour_lines(cells, 0.4)
    unit = cells_to_pixels(torch.from_numpy(cells).float()[None]) / 255
    traced = trace_lines_reference(colour_lines_of(unit), torch.tensor([0.4]))
    assert np.abs(found - traced[0].numpy() * 255).max() <= 0.51
    assert np.abs(shares - line_shares(traced)[0].numpy()).max() <= 0.003
    assert shares.min() < 0.5 < shares.max()

"""What a cell is changed by goes on where its source does, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mirage_kernels.steady import SHARE
from mirage_plugin.model import native, steady
from mirage_plugin.model.steady import SETTLED, carried, change_of, steadied, steady_cells

H, W = 6, 9


def an_edit(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    matrices, detail = (torch.randn(1, H, W, many, generator=made) * 0.1 for many in (48, 192))
    seen = torch.rand(1, H, W, 4, 4, generator=made) * 2 - 1
    seen[..., 3] = seen[..., 3].softmax(-1)
    return matrices, detail, seen.flatten(-2)


def cells_of(seed: int) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, H, W, 192), generator=made, dtype=torch.uint8)


def colour_of(cells: Tensor) -> Tensor:
    return cells.view(1, H, W, 8, 8, 3)[:, :, :, ::2, ::2].float().mean((3, 4)) * (2 / 255) - 1


STILL = torch.zeros(1, 2, H, W)
NOTHING = torch.zeros(1, H, W, SETTLED)


def test_a_first_frame_is_its_own() -> None:
    edit, colour = an_edit(1), colour_of(cells_of(1))
    matrices, kept = steadied(*edit, colour, NOTHING, STILL)
    assert torch.equal(matrices, edit[0])
    torch.testing.assert_close(kept, torch.cat([change_of(*edit), colour, torch.ones(1, H, W, 1)], -1))


def test_the_same_source_is_changed_as_before() -> None:
    before, now, colour = an_edit(1), an_edit(2), colour_of(cells_of(1))
    kept = steadied(*before, colour, NOTHING, STILL)[1]
    matrices, left = steadied(*now, colour, kept, STILL)
    was, own = change_of(*before), change_of(*now)
    torch.testing.assert_close(change_of(matrices, *now[1:]), torch.lerp(own, was, SHARE), atol=1e-5, rtol=0)
    torch.testing.assert_close(left[..., :3], change_of(matrices, *now[1:]), atol=1e-5, rtol=0)
    # What is drawn inside of a cell stays this frame's own: only offsets move, and all of a cell alike.
    moved = (matrices - now[0]).view(H, W, 4, 3, 4)
    assert float(moved[..., :3].abs().max()) == 0
    assert float((moved[:, :, :, :, 3] - moved[:, :, :1, :, 3]).abs().max()) < 1e-6


def test_another_source_is_changed_anew() -> None:
    kept = steadied(*an_edit(1), colour_of(cells_of(1)), NOTHING, STILL)[1]
    now = an_edit(2)
    matrices, _ = steadied(*now, colour_of(255 - cells_of(1)) + 1.0, kept, STILL)
    assert float((matrices - now[0]).abs().max()) < 1e-6


def test_after_a_cut_nothing_goes_on_even_where_colours_agree() -> None:
    cells = cells_of(1)
    kept = steadied(*an_edit(1), colour_of(cells), NOTHING, STILL)[1]
    now, colour = an_edit(2), colour_of(cells)
    colour[:, :, 2:] += 1.5  # two columns of nine are as they were
    assert torch.equal(steadied(*now, colour, kept, STILL)[0], now[0])
    colour = colour_of(cells)
    colour[:, :, 6:] += 1.5  # six of nine
    assert not torch.equal(steadied(*now, colour, kept, STILL)[0], now[0])


def test_it_goes_along_with_the_motion() -> None:
    kept = steadied(*an_edit(1), colour_of(cells_of(1)), NOTHING, STILL)[1]
    left = torch.zeros(1, 2, H, W)
    left[:, 0] = 8.0
    moved = carried(kept, left)
    torch.testing.assert_close(moved[:, :, :-1], kept[:, :, 1:])
    assert (moved[:, :, -1, 6] == 0).all(), "what comes in at the edge was nowhere before"
    assert (carried(kept, torch.full_like(left, torch.nan))[..., 6] == 0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_what_is_no_number_is_not_handed_on(bad: float) -> None:
    kept = steadied(*an_edit(1), colour_of(cells_of(1)), NOTHING, STILL)[1]
    for first, last in ((0, 3), (3, 6)):
        spoilt = kept.clone()
        spoilt[..., first:last] = bad
        now = an_edit(2)
        matrices, left = steadied(*now, colour_of(cells_of(1)), spoilt, STILL)
        assert torch.equal(matrices, now[0])
        assert bool(left.isfinite().all())


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "without a compiler"])
def test_in_the_engine_it_is_the_definition(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(steady, "_load", lambda: None)
    elif reason := native.why_not_native():
        pytest.skip(reason)
    edit, cells = an_edit(2), cells_of(1)
    kept = steadied(*an_edit(1), colour_of(cells) + 0.05, NOTHING, STILL)[1]
    motion = torch.randn(1, 2, H, W, generator=torch.Generator().manual_seed(3)) * 2
    motion[0, 0, 2, 3], motion[0, 1, 4, 4], motion[0, 0, 1, 1] = torch.nan, torch.inf, 1e9
    kept[0, 0, 0, 0] = torch.nan
    expected = steadied(*edit, colour_of(cells), kept, motion)
    parts = tuple(part[0].numpy() for part in (*edit, torch.zeros(1, H, W, 8)))
    untouched = parts[0].copy()
    found, left = steady_cells(parts, cells[0].numpy(), kept[0].numpy(), motion[0].numpy())
    np.testing.assert_allclose(found[0], expected[0][0].numpy(), atol=2e-6)
    np.testing.assert_allclose(left, expected[1][0].numpy(), atol=2e-6)
    assert float(np.abs(found[0] - untouched).max()) > 1e-3
    np.testing.assert_array_equal(parts[0], untouched)
    again, _ = steady_cells(parts, cells[0].numpy(), kept[0].numpy(), motion[0].numpy(), 3)
    np.testing.assert_array_equal(again[0], found[0])
    assert all(mine is theirs for mine, theirs in zip(found[1:], parts[1:], strict=True))

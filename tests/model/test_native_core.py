"""The core in C against its definition."""

from __future__ import annotations

import functools

import pytest
import torch

from mirage_plugin.model.ahead import core_input
from mirage_plugin.model.core import Core, CoreInput
from mirage_plugin.model.native_core import NativeCore
from mirage_plugin.model.network import TIERS, MirageNet

pytestmark = pytest.mark.needs("cc", "amx")


@functools.cache
def both(tier: str) -> tuple[Core, NativeCore]:
    """A network of random weights, heads and gates included, by definition and in C."""
    torch.manual_seed(3)
    net = MirageNet(TIERS[tier])
    with torch.no_grad():
        for head in (net.head_matrices, net.head_mix, net.head_detail):
            head.weight.normal_(0, 0.05)
            head.bias.normal_(0, 0.1)
    core = Core(net, torch.float32)
    return core, NativeCore(core)


def frame(core: Core, rows: int, columns: int, seed: int) -> CoreInput:
    made = torch.Generator().manual_seed(seed)
    like = core_input(core, rows, columns)
    motion = torch.randn(like.motion.shape, generator=made) * 20
    motion[..., ::3] = float("nan")
    return like._replace(
        cells=torch.randint(0, 256, like.cells.shape, generator=made).to(torch.uint8),
        noise=torch.randn(like.noise.shape, generator=made),
        planes=torch.rand(like.planes.shape, generator=made),
        stored=torch.randint(-127, 128, like.stored.shape, generator=made).to(torch.int8),
        motion=motion, seen=torch.rand(like.seen.shape, generator=made).round(),
        film=like.film + 0.2 * torch.randn(like.film.shape, generator=made),
    )  # fmt: skip


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (12, 20), (28, 48)])
def test_it_computes_what_the_core_does(tier: str, rows: int, columns: int) -> None:
    core, native = both(tier)
    given = frame(core, rows, columns, rows)
    with torch.no_grad():
        expected = core(given)
    for _ in range(2):  # the second frame works in the memory that the first left behind
        found = native(given)
        for ours, theirs in zip(found.edit, expected.edit, strict=True):
            # Products take bf16: eight bits of mantissa in every layer.
            assert (ours - theirs).square().mean().sqrt() < 0.01 * theirs.square().mean().sqrt()
        off = (found.stored.int() - expected.stored.int()).abs()
        assert off.float().mean() < 1.0
        assert torch.allclose(found.health[:4], expected.health[:4], rtol=0.02, atol=1e-6)
        assert found.health[4] == 0


def test_grids_do_not_disturb_each_other() -> None:
    core, native = both("nano")
    small, large = frame(core, 12, 20, 1), frame(core, 28, 48, 2)
    first = native(large)
    native(small)
    again = native(large)
    assert torch.equal(first.edit.matrices, again.edit.matrices)
    assert torch.equal(first.edit.detail, again.edit.detail)
    assert torch.equal(first.stored, again.stored)


def test_without_memory_what_is_stored_says_nothing() -> None:
    core, native = both("nano")
    given = frame(core, 12, 20, 1)
    blind = given._replace(seen=torch.zeros_like(given.seen))
    one, two = native(blind), native(blind._replace(stored=torch.zeros_like(given.stored)))
    assert torch.equal(one.edit.matrices, two.edit.matrices)
    assert torch.equal(one.stored, two.stored)
    assert one.health[3] == 0


def test_what_is_not_finite_is_told() -> None:
    core, native = both("nano")
    given = frame(core, 12, 20, 1)
    broken = given._replace(film=torch.full_like(given.film, float("nan")))
    assert not torch.isfinite(native(broken).health).all()
    assert torch.isfinite(native(given).health).all(), "the next frame knows nothing of it"


def test_it_is_packed_from_full_precision() -> None:
    with pytest.raises(ValueError, match="float32"):
        NativeCore(Core(MirageNet(TIERS["nano"]), torch.bfloat16))

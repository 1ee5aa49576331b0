"""The core in C against its definition."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from mirage_kernels.shade import STYLE_NUMBERS
from mirage_plugin.model import native as native_files
from mirage_plugin.model.ahead import core_input
from mirage_plugin.model.core import Core, CoreInput, CoreOutput
from mirage_plugin.model.native_core import NativeCore
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.styles.parameters import Style, load_style, parameter_slice

pytestmark = pytest.mark.needs("cc")

MARKED = {
    "hatch": 0.8, "wash": 0.7, "grain": 0.5, "fog": 0.6, "bands": 0.8, "posterize": 0.7, "pixels": 0.3, "ink": 0.6,
    "tone": 0.4, "windows": 0.8, "glow": 0.5, "wet": 0.7, "cover": 0.5, "contrast": 1.3, "exposure": 0.7,
}
STYLES = {"snow": load_style("snow"), "marked": Style.make("marked", MARKED)}


@functools.cache
def network(tier: str) -> tuple[Core, dict[str, Tensor]]:
    """A network of random weights, heads and gates included, that paints; and what it knows of each style."""
    torch.manual_seed(3)
    net = MirageNet(TIERS[tier])
    net.begin_training()
    with torch.no_grad():
        for head in (net.head_matrices, net.head_words, net.head_detail):
            head.weight.normal_(0, 0.05)
        for head in (net.head_matrices, net.head_detail):
            head.bias.normal_(0, 0.1)
    core = Core(net, torch.float32)
    vectors = {name: torch.from_numpy(style.vector().astype("float32"))[None] for name, style in STYLES.items()}
    return core, {name: core.film(net.style(vector), 1.0, 1.0)[0] for name, vector in vectors.items()}


@functools.cache
def both(tier: str) -> tuple[Core, NativeCore]:
    """By definition, and in C as this processor is served."""
    core, _ = network(tier)
    return core, NativeCore(core)


def frame(tier: str, rows: int, columns: int, seed: int, style: str = "snow") -> CoreInput:
    core, films = network(tier)
    made = torch.Generator().manual_seed(seed)
    like = core_input(core, rows, columns)
    motion = torch.randn(like.motion.shape, generator=made) * 20
    motion[..., ::3] = float("nan")
    film = films[style].clone()
    scales = film[:, :-STYLE_NUMBERS]
    scales += 0.2 * torch.randn(scales.shape, generator=made)
    return like._replace(
        cells=torch.randint(0, 256, like.cells.shape, generator=made).to(torch.uint8),
        noise=torch.randn(like.noise.shape, generator=made),
        planes=torch.rand(like.planes.shape, generator=made),
        stored=torch.randint(-127, 128, like.stored.shape, generator=made).to(torch.int8),
        motion=motion, seen=torch.rand(like.seen.shape, generator=made).round(), film=film,
    )  # fmt: skip


def agree(found: CoreOutput, expected: CoreOutput, bf16: bool) -> None:
    off = (found.stored.int() - expected.stored.int()).abs().float()
    if bf16:
        # Products take bf16: eight bits of mantissa in every layer, and what steps may step elsewhere.
        for ours, theirs in zip(found.edit, expected.edit, strict=True):
            assert (ours - theirs).square().mean().sqrt() < 0.03 * theirs.square().mean().sqrt()
        assert off.mean() < 1.0
        assert torch.allclose(found.health[:4], expected.health[:4], rtol=0.03, atol=1e-6)
    else:
        for ours, theirs in zip(found.edit, expected.edit, strict=True):
            # Bands and few colours are steps: a brightness that lies on one within rounding may fall to either side.
            apart = ((ours - theirs).abs() > 1e-4 * (1 + theirs.abs())).flatten(1, 2).any(-1)
            assert int(apart.sum()) <= 1 + apart.numel() // 500
        assert off.max() <= 1, "what lies between two numbers is rounded to either"
        assert torch.allclose(found.health[:4], expected.health[:4], rtol=1e-4, atol=1e-6)
    assert found.health[4] == 0


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (12, 20), (20, 8), (28, 48)])
def test_it_computes_what_the_core_does(tier: str, rows: int, columns: int, style: str) -> None:
    core, native = both(tier)
    given = frame(tier, rows, columns, rows, style)
    with torch.no_grad():
        expected = core(given)
    assert expected.edit.matrices.square().mean() > 0.01
    for _ in range(2):  # the second frame works in the memory that the first left behind
        agree(native(given), expected, native.bf16)


@pytest.mark.parametrize("style", STYLES)
def test_it_needs_no_matrix_unit(style: str) -> None:
    core, _ = network("nano")
    native = NativeCore(core, matrix_unit=False)
    assert not native.bf16
    given = frame("nano", 28, 48, 5, style)
    with torch.no_grad():
        agree(native(given), core(given), False)


def test_what_a_style_leaves_out_is_not_drawn() -> None:
    """Marks of strokes, of pigment and of grain, each alone: what is not drawn is not summed up either."""
    core, films = network("nano")
    _, native = both("nano")
    given = frame("nano", 12, 20, 1)
    for name in (None, "hatch", "wash", "grain"):
        film = films["snow"].clone()
        for other in ("hatch", "wash", "grain"):
            at = parameter_slice(other).start - STYLE_NUMBERS
            film[0, at] = 0.8 if name == other else 0.0
        with torch.no_grad():
            agree(native(given._replace(film=film)), core(given._replace(film=film)), native.bf16)


def test_grids_do_not_disturb_each_other() -> None:
    _, native = both("nano")
    small, large = frame("nano", 12, 20, 1), frame("nano", 28, 48, 2)
    first = native(large)
    native(small)
    again = native(large)
    assert torch.equal(first.edit.matrices, again.edit.matrices)
    assert torch.equal(first.edit.detail, again.edit.detail)
    assert torch.equal(first.stored, again.stored)


def test_without_memory_what_is_stored_says_nothing() -> None:
    _, native = both("nano")
    given = frame("nano", 12, 20, 1)
    blind = given._replace(seen=torch.zeros_like(given.seen))
    one, two = native(blind), native(blind._replace(stored=torch.zeros_like(given.stored)))
    assert torch.equal(one.edit.matrices, two.edit.matrices)
    assert torch.equal(one.stored, two.stored)
    assert one.health[3] == 0


@pytest.mark.parametrize("what", ["film", "noise", "planes"])
@pytest.mark.parametrize("style", STYLES)
def test_what_is_not_finite_is_told(what: str, style: str) -> None:
    _, native = both("nano")
    given = frame("nano", 12, 20, 1, style)
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = given._replace(**{what: torch.full_like(getattr(given, what), value)})
        assert not torch.isfinite(native(broken).health).all()
        assert torch.isfinite(native(given).health).all(), "the next frame knows nothing of it"


def test_motion_that_is_nonsense_reads_nothing_outside() -> None:
    _, native = both("nano")
    given = frame("nano", 12, 20, 1)
    for value in (float("nan"), float("inf"), -float("inf"), 1e30, -1e30):
        assert torch.isfinite(native(given._replace(motion=torch.full_like(given.motion, value))).health).all()


def test_what_is_kept_goes_with_every_file_it_was_made_of() -> None:
    assert set(native_files._sources("core.c")) == {"core.c", "products.h", "shade.h", "vectors.h"}
    assert set(native_files._sources("compose.c")) == {"compose.c", "vectors.h"}


def test_it_is_packed_from_full_precision() -> None:
    with pytest.raises(ValueError, match="float32"):
        NativeCore(Core(MirageNet(TIERS["nano"]), torch.bfloat16))

"""The core in C against its definition."""

from __future__ import annotations

import ctypes
import functools
import math
import platform
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mirage_kernels.overview import OVERVIEW, remembered
from mirage_kernels.shade import BINS, STYLE_NUMBERS, SURFACE, WORDS
from mirage_plugin.model import crew
from mirage_plugin.model import native as native_files
from mirage_plugin.model.core import Core, CoreInput, CoreOutput, core_input
from mirage_plugin.model.crew import MAX_THREADS, Crew
from mirage_plugin.model.native import library
from mirage_plugin.model.native_core import NativeCore, whole_weights
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.styles.parameters import Style, load_style, parameter_slice

pytestmark = pytest.mark.needs("cc")

MARKED = {
    "hatch": 0.8, "wash": 0.7, "grain": 0.5, "fog": 0.6, "bands": 0.8, "posterize": 0.7, "pixels": 0.3, "ink": 0.6,
    "tone": 0.4, "windows": 0.8, "glow": 0.5, "wet": 0.7, "cover": 0.5, "contrast": 1.3, "exposure": 0.7,
}  # fmt: skip
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
    return core, {name: core.film(net.style(vector), 1.0, 1.0) for name, vector in vectors.items()}


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


CLOSE = {
    # Eight bits of mantissa in every layer.
    "bf16": (0.03, 1.0, 0.03),
    # Thirteen bits for the largest of a row of activations, ten to fourteen for an output's largest weight.
    "int16": (0.005, 0.08, 0.003),
}
"""Where numbers are rounded and what steps may step elsewhere: how far off in the mean an edit, an entry of the state
and the statistics may be."""


def agree(found: CoreOutput, expected: CoreOutput, numbers: str) -> None:
    off = (found.stored.int() - expected.stored.int()).abs().float()
    if numbers == "fp32":
        for ours, theirs in zip(found.edit, expected.edit, strict=True):
            # Bands and few colours are steps: a brightness that lies on one within rounding may fall to either side.
            apart = ((ours - theirs).abs() > 1e-4 * (1 + theirs.abs())).flatten(1, 2).any(-1)
            assert int(apart.sum()) <= 1 + apart.numel() // 500
        assert off.max() <= 1, "what lies between two numbers is rounded to either"
        assert torch.allclose(found.health[:4], expected.health[:4], rtol=1e-4, atol=1e-6)
    else:
        edits, states, statistics = CLOSE[numbers]
        for ours, theirs in zip(found.edit, expected.edit, strict=True):
            # Here as well a cell in a hundred may be on another step.
            apart = (ours - theirs).square().flatten(0, 2).mean(-1).sort().values
            apart = apart[: apart.numel() - 1 - apart.numel() // 100]
            assert apart.mean().sqrt() < edits * theirs.square().mean().sqrt()
        assert off.mean() < states
        assert torch.allclose(found.health[:4], expected.health[:4], rtol=statistics, atol=1e-6)
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
        agree(native(given), expected, native.numbers)


@pytest.mark.parametrize("agreeing", [0.0, 1.0])
@pytest.mark.parametrize("numbers", [None, "int16", "fp32"])
def test_a_large_frame_is_told_by_its_overview(numbers: str | None, agreeing: float) -> None:
    core, _ = network("nano")
    native = NativeCore(core, numbers)
    given, look = frame("nano", 48, 80, 5), frame("nano", *OVERVIEW, 6)
    with torch.no_grad():
        words, own = core(look).words, core(given)
        assert torch.allclose(native(look).words, words, atol=1e-4 if native.numbers == "fp32" else 0.02)
        told = given._replace(overview=words, place=torch.tensor([23 / 45, 0.5, 0.75, agreeing]))
        expected = core(told)
    assert (expected.words - own.words).abs().mean() > 0.05
    found = native(told)
    agree(found, expected, native.numbers)
    assert torch.allclose(found.words, expected.words, atol=1e-4 if native.numbers == "fp32" else 0.02)
    agree(native(given), own, native.numbers)  # the next frame has none
    told.overview[0, 3, 4] = float("nan")
    assert not torch.isfinite(native(told).health[4])


def test_an_overview_heeds_the_one_before() -> None:
    native = NativeCore(network("nano")[0])
    made = torch.Generator().manual_seed(8)
    words, before = torch.randn(2, 1, 9, 12, WORDS, generator=made) * 0.3
    motion = torch.randn(1, 2, 9, 12, generator=made) * 3
    motion[0, 0, 2, 3], motion[0, 1, 4, 4], motion[0, 0, 5, 5] = torch.nan, torch.inf, 1e30
    words[0, 1, 1, BINS * SURFACE :] = torch.tensor([0.0, 300.0, 0.0, 0.0])  # readings that are as good as nowhere
    given, expected = words.clone(), remembered(words, before, motion)
    found = native.remember(words, before, motion)
    assert torch.equal(words, given)
    assert (found - words).abs().mean() > 0.01
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(found[0, 2, 3], words[0, 2, 3], atol=1e-5)


@pytest.mark.parametrize("numbers", [None, "int16", "fp32"])
def test_the_readings_of_a_small_frame_agree(numbers: str | None) -> None:
    core, _ = network("nano")
    native = NativeCore(core, numbers)
    given = frame("nano", 28, 48, 7, "marked")
    agreeing = given._replace(place=torch.tensor([0.0, 0.0, 0.0, 1.0]))
    with torch.no_grad():
        own, expected = core(given), core(agreeing)
    assert (expected.words - own.words).abs().mean() > 0.05
    for _ in range(2):
        agree(native(agreeing), expected, native.numbers)
        agree(native(given), own, native.numbers)

    before = frame("nano", 28, 48, 9, "marked")
    with torch.no_grad():
        said = core(before).words
        came = torch.randn(1, 2, 28, 48, generator=torch.Generator().manual_seed(2))
        came[0, 0, 3, 4] = torch.nan
        heeding = given._replace(overview=said, came=came, place=torch.tensor([0.0, 0.0, 0.0, 2.0]))
        heard = core(heeding)
    assert (heard.words - expected.words).abs().mean() > 0.02
    found = native(heeding)
    agree(found, heard, native.numbers)
    assert torch.allclose(found.words, heard.words, atol=1e-3 if native.numbers == "fp32" else 0.05)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("numbers", ["int16", "fp32"])
def test_it_needs_no_matrix_unit(numbers: str, style: str) -> None:
    core, _ = network("nano")
    native = NativeCore(core, numbers)
    assert native.numbers in (numbers, "fp32"), "fp32 where integers gain nothing"
    given = frame("nano", 28, 48, 5, style)
    with torch.no_grad():
        agree(native(given), core(given), native.numbers)


@pytest.mark.parametrize("inputs", [4, 64, 384, 1536])
def test_no_sum_of_whole_weights_leaves_32_bits(inputs: int) -> None:
    levels = 8191
    weight = torch.randn(6, inputs, generator=torch.Generator().manual_seed(1))
    weight[1] = -0.7  # all at the end of what is allowed
    weight[2] = 0
    weight[3, 1:] = 0  # one alone
    weight[4] *= 1e-20
    weight[5, 0] = 1e4
    whole, unit = whole_weights(weight, levels)
    assert int(whole.long().abs().sum(1).max()) * levels < 2**31
    off = (whole.double() * unit.double()[:, None] - weight.double()).abs()
    assert (off <= 0.5001 * unit.double()[:, None]).all()
    assert not whole[2].any()
    assert unit[1] * 2**15 > 0.7, "nothing is given away"
    largest = weight.abs().amax(1)
    assert (unit[[0, 4]] < largest[[0, 4]] * max(2**-14, inputs * 2**-19)).all()


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
            agree(native(given._replace(film=film)), core(given._replace(film=film)), native.numbers)


@pytest.mark.parametrize("threads", [2, 3, MAX_THREADS])
def test_how_many_threads_share_the_work_changes_no_bit(threads: int) -> None:
    """More than there are cores as well: what one leaves another does, and who comes late does nothing."""
    core, _ = network("nano")
    _, alone = both("nano")
    crew = NativeCore(core, threads=threads)
    pens = np.random.default_rng(0).random((28, 48, 8), np.float32)
    frames = []
    for number, (rows, columns, style) in enumerate(((12, 20, "marked"), (28, 48, "snow"), (48, 80, "marked"))):
        given = frame("nano", rows, columns, number, style)
        made = torch.Generator().manual_seed(number)
        words = torch.randn(given.overview.shape, generator=made)
        large = words.shape[1] != rows
        place = torch.tensor([words.shape[1] / rows, words.shape[2] / columns, 0.9, 1.0] if large else [0.0, 0, 0, 2.0])
        came = torch.randn(given.came.shape, generator=made) * 3
        frames += [given, given._replace(overview=words, place=place, came=came)]
    expected = [alone(given) for given in frames]
    for _ in range(8):
        for given, wanted in zip(frames, expected, strict=True):
            found = crew(given)
            for ours, theirs in zip((*found.edit, *found[1:]), (*wanted.edit, *wanted[1:]), strict=True):
                assert torch.equal(ours, theirs)
    words, before = (torch.randn(1, 24, 40, WORDS) for _ in range(2))
    came = torch.randn(1, 2, 24, 40) * 4
    assert torch.equal(crew.remember(words, before, came), alone.remember(words, before, came))
    edit = (*(part[0].numpy() for part in expected[2].edit[:3]), pens)
    for height, width, content in ((224, 384, (224, 384)), (720, 1280, (216, 384)), (37, 53, (37, 53)), (1, 1, (1, 1))):
        pixels = np.random.default_rng(1).integers(0, 256, (height, width, 4), np.uint8)
        pictures = []
        for crewed in (1, threads):
            out = np.zeros_like(pixels)
            native_files.compose_pixels(pixels, out, np.arange(3), edit, None, 0.9, content, threads=crewed)
            pictures.append(out)
        np.testing.assert_array_equal(*pictures)


def test_a_thread_that_has_no_core_is_not_waited_for() -> None:
    """Nor is it called again before it is done, and it finds what it may read where it was."""
    crew, calls = Crew(2), []
    held, entered = threading.Event(), threading.Event()

    def work(_phases: int, me: int, threads: int, number: int) -> int:
        calls.append((number, me, threads))
        if me == 1:
            entered.set()
            held.wait()
        return 10 * number

    assert crew(work, 1, 1, keep="kept") == 10
    assert entered.wait(10)
    assert [crew(work, 1, number) for number in (2, 3, 4)] == [20, 30, 40]
    held.set()
    while len(calls) < 6:
        threading.Event().wait(0.001)
    # The second frame waited for it; of the third and the fourth it was told nothing.
    assert sorted(calls) == [(1, 0, 2), (1, 1, 2), (2, 0, 2), (2, 1, 2), (3, 0, 2), (4, 0, 2)]


@pytest.mark.needs("ziglang")
def test_where_the_systems_compiler_is_missing_or_fails_zig_compiles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    core, _ = network("nano")
    given = frame("nano", 12, 20, 1)
    zig = native_files.compilers()[-1]
    assert "ziglang" in zig
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for commands in ([zig], [(shutil.which("false") or "false",), zig]):
        monkeypatch.setattr(native_files, "compilers", lambda commands=commands: commands)
        library.cache_clear()
        try:
            native = NativeCore(core)
        finally:
            library.cache_clear()
        agree(native(given), core(given), native.numbers)
    assert len(list((tmp_path / "mirage" / "native").glob("core-*.so"))) == 1
    monkeypatch.setattr(native_files, "compilers", list)
    with pytest.raises(OSError, match="no C compiler"):
        NativeCore(core)
    library.cache_clear()


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


@pytest.mark.parametrize("what", ["noise", "planes"])
@pytest.mark.parametrize("numbers", ["int16", "fp32", None])
def test_one_number_that_is_not_finite_is_told(numbers: str | None, what: str) -> None:
    native = NativeCore(network("nano")[0], numbers)
    given = frame("nano", 12, 20, 1)
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = getattr(given, what).clone()
        broken[0, 5, 7, 3] = value
        assert not torch.isfinite(native(given._replace(**{what: broken})).health[4])
        assert torch.isfinite(native(given).health).all(), "the next frame knows nothing of it"


def test_motion_that_is_nonsense_reads_nothing_outside() -> None:
    _, native = both("nano")
    given = frame("nano", 12, 20, 1)
    for value in (float("nan"), float("inf"), -float("inf"), 1e30, -1e30):
        assert torch.isfinite(native(given._replace(motion=torch.full_like(given.motion, value))).health).all()


def test_what_is_kept_goes_with_every_file_it_was_made_of() -> None:
    assert set(native_files._sources("core.c")) == {
        "core.c", "crew.h", "overview.h", "products.h", "shade.h", "vectors.h",
    }  # fmt: skip
    assert set(native_files._sources("compose.c")) == {"compose.c", "crew.h", "readings.h", "vectors.h"}


def test_it_is_packed_from_full_precision() -> None:
    with pytest.raises(ValueError, match="float32"):
        NativeCore(Core(MirageNet(TIERS["nano"]), torch.bfloat16))


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be written cost seven times the frame, and a compiler that was there was asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    native_files._scratch.cache_clear()
    compiled = library("compose")
    assert "mirage-native-" in compiled._name
    assert compiled.mirage_compose is not None
    native_files._scratch.cache_clear()


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "no seal"])
def test_a_file_that_was_damaged_is_made_anew(damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A power cut or a full disk left it, and every start crashed, or was slow for good."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = native_files.compilers()[:1]
    monkeypatch.setattr(native_files, "compilers", lambda: first)
    kept = tmp_path / "mirage" / "native"
    library.cache_clear()
    try:
        library("steady")
        (made,) = kept.glob("steady-*.so")
        whole = made.read_bytes()
        made.unlink()  # what is mapped must not be written to
        damaged = {"empty": b"", "cut": whole[:3000], "zeros": whole[:3000] + bytes(len(whole) - 3000)}
        made.write_bytes(damaged.get(damage, whole))
        if damage == "no seal":
            native_files._seal(made).unlink()
        library.cache_clear()
        assert library("steady")._name == str(made)
        assert native_files._whole(made)
    finally:
        library.cache_clear()


def test_where_nothing_may_be_run_it_is_run_from_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache on a disk that is mounted noexec, a full one, another user's, or no home at all."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load = ctypes.CDLL

    def refused(path: str) -> ctypes.CDLL:
        if path.startswith(str(tmp_path)):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for break_it in (lambda: monkeypatch.setattr(ctypes, "CDLL", refused),
                     lambda: monkeypatch.setattr(native_files, "cache_directory", homeless)):  # fmt: skip
        break_it()
        library.cache_clear()
        native_files._scratch.cache_clear()
        try:
            assert "mirage-native-" in library("steady")._name
        finally:
            library.cache_clear()
            native_files._scratch.cache_clear()


def test_a_compiler_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    script = tmp_path / "cc"
    said = "echo 'core.c: In function' >&2; echo 'core.c:7: error: no such builtin' >&2; exit 1"
    script.write_text(f"#!/bin/sh\n{said}\n")
    script.chmod(0o755)
    monkeypatch.setattr(native_files, "compilers", lambda: [(str(script),)])
    library.cache_clear()
    with pytest.raises(subprocess.SubprocessError, match=r"cc: core\.c:7: error: no such builtin$"):
        library("steady")
    library.cache_clear()


@pytest.mark.parametrize("flags", ["x86-64", "haswell", "skylake-avx512", "icelake-server"])
def test_other_processors_draw_the_same(flags: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Most players have an older one than this: what is compiled for theirs runs here as well."""
    needs = {"haswell": "avx2", "skylake-avx512": "avx512vl", "icelake-server": "avx512_vnni"}
    if platform.machine() != "x86_64" or needs.get(flags, "") not in native_files._processor():
        pytest.skip(f"needs an x86 processor that has what a {flags} has")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native_files, "_FLAGS", tuple(
        f"-march={flags}" if flag.startswith("-march") else flag for flag in native_files._FLAGS
    ))  # fmt: skip
    core, _ = network("nano")
    given = frame("nano", 12, 20, 1)
    library.cache_clear()
    try:
        native = NativeCore(core)
        agree(native(given), core(given), native.numbers)
    finally:
        library.cache_clear()


def test_a_container_s_share_of_the_processor_is_heeded(tmp_path: Path) -> None:
    assert crew._quota(tmp_path) == math.inf
    for text, cores in (("max 100000", math.inf), ("150000 100000", 1.5), ("nonsense", math.inf)):
        (tmp_path / "cpu.max").write_text(text)
        assert crew._quota(tmp_path) == cores
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    for quota, cores in (("-1", math.inf), ("400000", 4.0)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
        assert crew._quota(tmp_path) == cores


def test_ctrl_c_while_others_are_called_leaves_nobody_writing_to_what_is_gone() -> None:
    """Whoever was called is waited for: the frame is done, and then Ctrl-C is heard."""
    two, done = Crew(2), threading.Barrier(2)

    class Interrupted:
        def __init__(self, jobs: Any) -> None:
            self.jobs = jobs

        def empty(self) -> bool:
            return True

        def put(self, job: Any) -> None:
            self.jobs.put(job)
            raise KeyboardInterrupt

    two._waiting = [Interrupted(jobs) for jobs in two._waiting]  # type: ignore[misc]
    calls: list[int] = []

    def work(_at: int, me: int, _threads: int) -> None:
        calls.append(me)
        done.wait(10)

    with pytest.raises(KeyboardInterrupt):
        two(work, 1)
    assert sorted(calls) == [0, 1]

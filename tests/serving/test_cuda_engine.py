"""The GPU's frame path, held on the CPU: its answers against the processor's engine, and everything that can fail.

The ops run as their references here. What only a GPU can show (that graphs replay what was captured, that pinned
copies arrive) waits for one in the tests marked `needs("cuda")`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import mmap
import threading
import time
import types
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import mirage_bridge
import mirage_kernels as kernels
from mirage_plugin import cuda_engine as gpu_engine
from mirage_plugin import cuda_path, frame_path
from mirage_plugin import engine as processor
from mirage_plugin.config import ServeConfig
from mirage_plugin.cuda_engine import CudaCanvas, CudaEngine
from mirage_plugin.cuda_path import GRIDS, Path, Work, WorkingSize
from mirage_plugin.errors import DeviceError
from mirage_plugin.frames import FrameEngine, FrameKind, FramePlanes
from mirage_plugin.model.drift import Bounds, Watch, statistics_of
from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.network import (
    TIERS,
    MirageNet,
    Overview,
    Planes,
    doubted_lines,
    frame_lines,
    pixels_to_cells,
    planes_to_cells,
)
from mirage_plugin.model.noise import fresh_noise
from mirage_plugin.model.sampling import look_over, remembering, sample
from mirage_plugin.styles.parameters import Style, load_style
from tests.serving.playing import Game

ORDER = np.array([0, 1, 2])
SMALL = FrameKind("RGBA8", 64, 96)
LARGE = FrameKind("RGBA8", 384, 640)
FAR_NS = 60_000_000_000
CONFIG = ServeConfig(device="cpu", tier="nano", compile=False)


def network(seed: int = 0) -> MirageNet:
    """A network that changes its source."""
    torch.manual_seed(seed)
    net = MirageNet(TIERS["nano"]).eval()
    net.begin_training()
    with torch.no_grad():
        for layer in (net.head_matrices, net.head_words, net.head_detail):
            layer.weight.normal_(0, 0.02)
    return net


def make(kind: FrameKind = SMALL, config: ServeConfig = CONFIG, **options: Any) -> CudaEngine:
    return CudaEngine(config, net=network(), warm=(kind,), **options)


@pytest.fixture(scope="module")
def engine() -> CudaEngine:
    return make()


def answer(
    engine: CudaEngine, canvas: CudaCanvas, frame: Any, planes: FramePlanes | None = None, *, late: bool = False,
    cut: bool = False, strength: float = 1.0, out: Any = None,
) -> Any:  # fmt: skip
    planes = planes or FramePlanes()
    out = np.zeros_like(frame) if out is None else out
    engine.upload(canvas, frame, planes)
    engine.read(canvas, frame, ORDER, planes, cut)
    if canvas.film is None:
        engine.set_style(canvas, load_style("snow"))
    assert engine.reuse(canvas) if late else engine.denoise(canvas)
    engine.compose(canvas, frame, out, ORDER, planes.mask, strength)
    assert engine.wait(canvas, time.monotonic_ns() + FAR_NS) >= 0
    return out


def noise_frame(kind: FrameKind, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (kind.height, kind.width, 4), np.uint8)


def steps_apart(a: Any, b: Any) -> tuple[int, float]:
    """The largest difference of two pictures, and the share of bytes that differ."""
    apart = np.abs(a.astype(int) - b.astype(int))
    return int(apart.max()), float((apart > 0).mean())


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[processor.Engine, CudaEngine, FrameKind]]:
    """Both engines with the same weights, in fp32, for frames that just fill a grid of the processor's."""
    rows, columns = processor.GRIDS[-1]
    kind = FrameKind("RGBA8", rows * 8, columns * 8, depth=True, motion=True, mask=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "load_network", lambda *_: network())
        patch.setattr(processor, "load_bounds", lambda *_: None)
        patch.setattr(processor, "best_dtype", lambda device: torch.float32)
        patch.setattr(processor.Engine, "_measure", lambda self: None)
        yield processor.Engine(CONFIG), make(kind), kind


def planes_of(kind: FrameKind, seed: int, motion: Any = None) -> FramePlanes:
    r = np.random.default_rng(seed)
    if motion is None:
        motion = (r.random((kind.height, kind.width, 2)) * 12 - 6).astype(np.float16)
        motion[5:30, 10:50] = np.nan
    # Alike in 2x2 pixels: the processor reads one pixel of four of the mask, the GPU all.
    ids = r.integers(0, 4, (kind.height // 2, kind.width // 2)).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    return FramePlanes((r.random((kind.height, kind.width)) * 60).astype(np.float32), motion, ids)


@pytest.mark.parametrize("style", ["snow", "ink", "pixel-art"])
def test_both_engines_give_the_same_answers(
    pair: tuple[processor.Engine, CudaEngine, FrameKind], style: str
) -> None:
    """Over frames with moving planes, a cut, and an edit that is carried along.

    One step in fewer than one byte of a thousand: sums in another order put few values over a rounding's edge, and
    the memory's 8 bits hand at most one such step on to the next frame.
    """
    cpu, gpu, kind = pair
    mine, theirs = cpu.open(kind, 5, len(processor.GRIDS) - 1), gpu.open(kind, 5)
    cpu.set_style(mine, load_style(style))
    gpu.set_style(theirs, load_style(style))
    for number in range(3):
        frame, planes = noise_frame(kind, number), planes_of(kind, number)
        expected = np.zeros_like(frame)
        cpu.read(mine, frame, ORDER, planes, number == 2)
        assert cpu.denoise(mine)
        cpu.compose(mine, frame, expected, ORDER, planes.mask, 0.8)
        drawn = answer(gpu, theirs, frame, planes, cut=number == 2, strength=0.8)
        largest, share = steps_apart(drawn, expected)
        assert largest <= 1, number
        # A block's mean hands a step of one byte on to sixteen.
        assert share < (1e-2 if style == "pixel-art" else 1e-3), number
        assert np.abs(expected.astype(int) - frame).mean() > 5, "an answer that is the source proves nothing"

    # A whole cell to the right: the processor moves cells, the GPU samples between them, and here both are exact.
    moved = np.zeros((kind.height, kind.width, 2), np.float16)
    moved[..., 0] = 8
    for number in (3, 4):
        frame, planes = noise_frame(kind, number), planes_of(kind, number, moved)
        expected = np.zeros_like(frame)
        cpu.read(mine, frame, ORDER, planes, False)
        assert cpu.reuse(mine)
        cpu.compose(mine, frame, expected, ORDER, planes.mask, 1.0)
        drawn = answer(gpu, theirs, frame, planes, late=True)
        # At the edges, where something came in from outside, each has its own idea of what stands there.
        inside = np.s_[:, 8 * (number - 2) : kind.width - 8 * number]
        largest, share = steps_apart(drawn[inside], expected[inside])
        assert largest <= 1, number
        assert share < 1e-2, number


@pytest.mark.parametrize("kind", [SMALL, LARGE])
def test_several_steps_are_those_of_the_definition(kind: FrameKind) -> None:
    """All of them with the overview, where the frame needs one."""
    engine = CudaEngine(ServeConfig(device="cpu", tier="nano", steps=2), net=network(), warm=())
    canvas = engine.open(kind, 9)
    frame, net, style = noise_frame(kind, 1), network(), load_style("snow")
    drawn = answer(engine, canvas, frame)
    v = torch.from_numpy(frame[..., :3].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    h, w = kind.height // 8, kind.width // 8
    none = MemoryState(torch.zeros(1, h // 2, w // 2, 48), torch.zeros(1, h // 2, w // 2, 1))
    field = fresh_noise(torch.tensor([9]), torch.tensor([0]), 4 * h, 4 * w)
    with torch.inference_mode():
        vector = net.style(torch.from_numpy(style.vector().astype(np.float32))[None])
        lines = frame_lines(v, None, None, vector)
        given = (v, field, torch.zeros(1, h, w, 32), none, vector, torch.ones(1), lines)
        overview = look_over(net, v, Planes(), vector)
        assert overview is not None
        assert (overview.words is None) == (kind == SMALL)
        expected, *_ = sample(net, *given, steps=2, overview=overview)
    bytes_ = ((expected[0].permute(1, 2, 0) + 1) * 127.5 + 0.5).floor().clamp(0, 255).numpy().astype(np.uint8)
    largest, share = steps_apart(drawn[..., :3], bytes_)
    assert largest <= 1
    assert share < 1e-2  # the first step's 8-bit answer is rounded in both, at times to either side


@pytest.mark.parametrize("depth", [False, True])
def test_a_large_frame_is_looked_over(monkeypatch: pytest.MonkeyPatch, depth: bool) -> None:
    """Once a frame, with its depth and its mask; and it is heeded."""
    kind = FrameKind("RGBA8", 96, 640, depth=depth, motion=True, mask=True)
    engine = CudaEngine(CONFIG, net=network(), warm=())
    canvas = engine.open(kind, 1)
    assert canvas.work.overview is not None
    assert canvas.work.overview[:3] == (48, 320, (0.5, 0.5))
    frame, style = noise_frame(kind, 1), load_style("snow")
    planes = planes_of(kind, 1)
    metres = torch.from_numpy(planes.depth)[None, None] if depth else None
    planes = planes if depth else dataclasses.replace(planes, depth=None)
    seen: list[torch.Tensor] = []
    look = kernels.look

    def watched(*given: Any) -> Any:
        head, state = look(*given)
        seen.extend([head.clone()] if head.shape[1:3] == (8, 40) else [])
        return head, state

    monkeypatch.setattr(kernels, "look", watched)
    first = answer(engine, canvas, frame, planes)
    v = torch.from_numpy(frame[..., :3].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    ids = torch.from_numpy(planes.mask)[None, None]
    mask = torch.cat([ids == 0, ids == 2, ids == 3], 1).float()
    net = network()
    with torch.inference_mode():
        vector = net.style(torch.from_numpy(style.vector().astype(np.float32))[None])
        expected = look_over(net, v, Planes(metres, None, mask), vector)
    assert expected is not None
    assert expected.words is not None
    assert expected.scale == canvas.work.overview.scale
    assert len(seen) == 1
    words = kernels.split_head(seen[0] if depth else kernels.agree(seen[0]))[2]
    assert torch.allclose(words, expected.words, atol=1e-4)
    canvas.frame = 0
    assert np.array_equal(answer(engine, canvas, frame, planes, cut=True), first), "over a cut none is remembered"
    overview = kernels.overview
    monkeypatch.setattr(kernels, "overview", lambda head, few, scale: overview(head, torch.full_like(few, 5.0), scale))
    canvas.frame = 0
    assert steps_apart(answer(engine, canvas, frame, planes, cut=True), first)[0] > 5


@pytest.mark.parametrize("depth", [False, True])
def test_an_overview_heeds_the_one_before(depth: bool) -> None:
    """Along the motion, over frames that reused an edit as well; not in another style, nor what is no number."""
    kind = FrameKind("RGBA8", 96, 640, depth=depth, motion=True, mask=True)
    engine, net = CudaEngine(CONFIG, net=network(), warm=()), network()
    canvas, other = engine.open(kind, 1), engine.open(kind, 1)
    over = canvas.work.said
    assert over is not None
    assert canvas.work.overview is not None
    moved = np.zeros((kind.height, kind.width, 2), np.float16)
    moved[..., 0] = 16  # a cell of the overview
    moved[32:64, 64:128] = np.nan
    planes = planes_of(kind, 1, moved)
    planes = planes if depth else dataclasses.replace(planes, depth=None)
    metres = torch.from_numpy(planes.depth)[None, None] if depth else None
    ids, motion = torch.from_numpy(planes.mask)[None, None], torch.from_numpy(moved).float().permute(2, 0, 1)[None]
    mask = torch.cat([ids == 0, ids == 2, ids == 3], 1).float()
    style = net.style(torch.from_numpy(load_style("snow").vector().astype(np.float32))[None]).detach()
    before = None
    for number, reused in ((0, 0), (1, 0), (2, 2)):
        for between in range(reused):
            answer(engine, canvas, noise_frame(kind, 50 + between), planes, late=True)
        frame = noise_frame(kind, number)
        answer(engine, canvas, frame, planes)
        v = torch.from_numpy(frame[..., :3].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            alone = look_over(net, v, Planes(metres, None, mask), style)
            came = motion * (1 + reused)
            came[..., 32:64, 64 - 16 * reused : 128] = torch.nan  # whose way leads through where it is unknown
            before = look_over(net, v, Planes(metres, came, mask), style, before)
        told = kernels.split_head(over.told)[2]
        assert torch.allclose(told, before.kept, atol=1e-3), number
        assert number == 0 or (told - alone.kept).abs().mean() > 0.01

    with torch.inference_mode():
        over.told.fill_(torch.nan)
    engine.set_style(canvas, load_style("snow"))
    frame = noise_frame(kind, 7)
    expected = answer(engine, other, frame, planes)
    canvas.frame = 0
    assert steps_apart(answer(engine, canvas, frame, planes, cut=True), expected)[0] == 0
    assert torch.equal(over.told, other.work.said.told)
    with torch.inference_mode():
        over.told.fill_(5.0)
    engine.set_style(canvas, load_style("snow"))
    answer(engine, canvas, frame, planes)
    assert torch.equal(over.told, other.work.said.told), "in another style it begins anew"


def test_a_small_frame_of_colours_alone_heeds_what_it_said_before() -> None:
    kind = FrameKind("RGBA8", 64, 96, motion=True)
    engine, net = CudaEngine(CONFIG, net=network(), warm=()), network()
    canvas = engine.open(kind, 1)
    moved = np.zeros((kind.height, kind.width, 2), np.float16)
    moved[..., 0] = 8
    planes, motion = FramePlanes(motion=moved), torch.from_numpy(moved).float().permute(2, 0, 1)[None]
    style = net.style(torch.from_numpy(load_style("snow").vector().astype(np.float32))[None]).detach()
    before, nothing = None, MemoryState(torch.zeros(1, 4, 6, 48), torch.zeros(1, 4, 6, 1))
    for number in range(3):
        frame = noise_frame(kind, number)
        answer(engine, canvas, frame, planes)
        v = torch.from_numpy(frame[..., :3].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            cells = planes_to_cells(Planes(motion=motion), 1, 8, 12, v)
            given = (v, canvas.work.noise, cells, nothing, style, torch.ones(1), frame_lines(v, None, None, style))
            overview = look_over(net, v, Planes(motion=motion), style, before)
            *_, said = sample(net, *given, overview=overview)
            before = remembering(overview, said)
            *_, alone = sample(net, *given, overview=Overview(None))
        assert torch.allclose(kernels.split_head(canvas.work.said.told)[2], said, atol=1e-3), number
        assert (said - alone).abs().mean() > 0.005 or number == 0


@pytest.mark.parametrize("kind", [SMALL, FrameKind("RGBA8", 288, 512, depth=True, mask=True)])
def test_a_small_frame_is_not(
    kind: FrameKind, engine: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvas = engine.open(kind, 1)
    assert canvas.work.overview is None
    assert (canvas.work.said is None) == kind.depth
    monkeypatch.delattr(kernels, "overview")
    answer(engine, canvas, noise_frame(kind, 1), planes_of(kind, 1) if kind.depth else FramePlanes())


def test_one_step_is_not_two(engine: CudaEngine) -> None:
    one = answer(engine, engine.open(SMALL, 9), noise_frame(SMALL, 1))
    two = make(config=ServeConfig(device="cpu", tier="nano", steps=2))
    assert steps_apart(one, answer(two, two.open(SMALL, 9), noise_frame(SMALL, 1)))[0] > 1


def offered(pixel_format: str, orientation: str, color_space: str, pitch: int = 0) -> mirage_bridge.Offer:
    return mirage_bridge.Offer(
        (96, 64), pixel_format, ("depth", "motion", "mask"), orientation, color_space,
        mirage_bridge.DepthConvention("reversed_z", 0.1, 100.0),
        mirage_bridge.MotionConvention("uv", "to_current", 0.0), pitch,
    )  # fmt: skip


def test_lines_are_of_the_depth_at_the_display_s_resolution_or_of_colours() -> None:
    kind = FrameKind("RGBA8", 61, 95, depth=True)
    metres = np.full((61, 95), 9.0, np.float32)
    for k in range(6):
        metres[5 + 9 * k : 11 + 9 * k, 8 * k : 40 + 8 * k] = 2 + k
    engine, planes, style = make(kind), FramePlanes(metres), load_style("ink")
    vector = torch.from_numpy(style.vector())[None]
    natural = network().style(vector).detach()
    canvas = engine.open(kind, 1)
    engine.set_style(canvas, style)
    answer(engine, canvas, noise_frame(kind, 1), planes)
    depth = torch.from_numpy(metres)[None, None]
    expected = frame_lines(torch.zeros(1, 3, 61, 95), depth, None, natural)
    # In C a line is one of 256 grades.
    assert torch.allclose(canvas.work.lines.float(), expected, atol=3e-3)
    assert 0.1 < float(expected.mean()) < 0.9
    assert (canvas.work.there == -1).all()
    bare, picture = engine.open(SMALL, 1), noise_frame(SMALL, 1)
    engine.set_style(bare, style)
    answer(engine, bare, picture)
    v = torch.from_numpy(picture[..., :3].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    assert torch.allclose(bare.work.lines.float(), frame_lines(v, None, None, natural), atol=3e-3)
    there = doubted_lines(pixels_to_cells(v), torch.zeros(1, SMALL.height // 8, SMALL.width // 8, 32), natural)
    assert torch.allclose(bare.work.there, there, atol=3e-3)
    assert there.max() > 0.1


def on_fewer_cells(engine: CudaEngine, content: tuple[int, int]) -> CudaCanvas:
    """A canvas of small frames that are worked on in `content` pixels (rows, columns)."""
    canvas, grid = engine.open(SMALL, 1), len(GRIDS) - 1
    with torch.inference_mode():
        canvas.path.works[grid] = Work(canvas.path, WorkingSize(grid, content))
    canvas.fit_to(grid)
    return canvas


def test_lines_of_colours_are_of_the_display_and_their_shares_of_the_working_frame() -> None:
    engine, style, picture = make(), load_style("ink"), noise_frame(SMALL, 1)
    canvas = on_fewer_cells(engine, (32, 48))
    engine.set_style(canvas, style)
    answer(engine, canvas, picture)
    natural = network().style(torch.from_numpy(style.vector())[None]).detach()
    v = torch.from_numpy(picture[..., :3].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    assert canvas.work.lines_shown == (64.0, 96.0)
    assert torch.allclose(canvas.work.lines.float(), frame_lines(v, None, None, natural), atol=3e-3)
    small = torch.nn.functional.pad(v[:, :, 1::2, 1::2], (0, 16, 0, 0), mode="replicate")
    there = doubted_lines(pixels_to_cells(small), torch.zeros(1, 4, 8, 32), natural)
    assert torch.allclose(canvas.work.there, there, atol=3e-3)
    assert there.max() > 0.1


def test_between_steps_lines_are_where_they_are_in_the_end() -> None:
    """The frame has the first 30 of 32 rows, and 45 of 64 columns, of the answer that a further step starts from."""
    work = on_fewer_cells(make(), (30, 45)).work
    with torch.inference_mode():
        work.path.frame.fill_(255)
        work.lines[:, 0, -1], work.lines[:, 0, :, -1] = 1.0, 1.0
        edit = torch.zeros(1, 4, 8, kernels.EDIT_CHANNELS)
        edit[..., 252:256] = 0.25  # four readings alike, and ink
        edit[..., 256], edit[..., 258:261] = 1.0, -1.0
        drawn = work._answer(edit).view(1, 4, 8, 8, 8, 3).transpose(2, 3).reshape(32, 64, 3)
    assert drawn[:28, :43].min() == 1
    assert drawn[29].max() < 0.5
    assert drawn[:, 44].max() < 0.5


@pytest.mark.parametrize("orientation", ["top_down", "bottom_up"])
def test_conventions_mean_what_they_mean_to_the_processor(orientation: str) -> None:
    """Raw planes through the captured path, against the processor's conversion of them and a plain path."""
    offer = offered("BGRA8", orientation, "srgb")
    kind = frame_path._kind(offer)
    r = np.random.default_rng(2)
    frame = noise_frame(SMALL, 4)
    # Whole 512ths of 64 and 96 pixels: exact in half floats as UV and as pixels, and never quite a half.
    motion = ((r.integers(-12, 12, (64, 96, 2)) * 2 + 1) / 512).astype(np.float16)
    motion[10:20, 10:20] = 0.0
    raw = FramePlanes(r.random((64, 96)).astype(np.float32), motion, r.integers(0, 4, (64, 96)).astype(np.uint8))

    class Job:
        depth, motion, mask = raw.depth, raw.motion, raw.mask

    metres = frame_path._planes(Job, offer)  # type: ignore[arg-type]
    assert metres.depth is not None
    assert metres.motion is not None
    converted = FramePlanes(metres.depth.astype(np.float32), metres.motion.astype(np.float16), metres.mask)
    engine = make(kind)
    canvas, plain = engine.open(kind, 1), engine.open(FrameKind("RGBA8", 64, 96, depth=True, motion=True, mask=True), 1)
    for number in range(2):  # the second frame has a memory that moves
        upright = frame[::-1] if orientation == "bottom_up" else frame
        expected = answer(engine, plain, np.ascontiguousarray(upright[..., [2, 1, 0, 3]]), converted)
        drawn = answer(engine, canvas, frame, raw)
        drawn = (drawn[::-1] if orientation == "bottom_up" else drawn)[..., [2, 1, 0, 3]]
        largest, share = steps_apart(drawn, expected)
        assert largest <= 1, number
        assert share < 1e-3, number  # metres are computed in fp32 by both, but not in the same order


@pytest.mark.parametrize(
    ("pixel_format", "dtype", "color_space"),
    [("RGB10A2", np.uint32, "srgb"), ("RGBA16F", np.float16, "linear"), ("RGB8", np.uint8, "linear")],
)
def test_every_pixel_format_is_taken_as_it_stands(pixel_format: str, dtype: Any, color_space: str) -> None:
    kind = frame_path._kind(offered(pixel_format, "top_down", color_space))
    engine = make(kind)
    shape = (64, 96) if pixel_format == "RGB10A2" else (64, 96, 3 if pixel_format == "RGB8" else 4)
    r = np.random.default_rng(0)
    frame = r.random(shape).astype(dtype) if dtype == np.float16 else r.integers(0, 256, shape, dtype)
    none = planes_of(kind, 1)
    same = answer(engine, engine.open(kind, 0), frame, none, strength=0.0)
    assert np.array_equal(same, frame)
    assert not np.array_equal(answer(engine, engine.open(kind, 0), frame, none), frame)


def test_in_shared_memory_nothing_is_copied_on_the_way(engine: CudaEngine) -> None:
    kind = FrameKind("RGBA8", 64, 96, pitch_bytes=400)
    mapping = mmap.mmap(-1, 1 << 16)
    whole = np.frombuffer(memoryview(mapping), np.uint8)
    frame = np.ndarray((64, 96, 4), np.uint8, whole, 64, (400, 4, 1))
    out = np.ndarray((64, 96, 4), np.uint8, whole, 64 + 400 * 70, (400, 4, 1))
    frame[...] = noise_frame(SMALL, 3)
    shared, own = engine.open(kind, 1), engine.open(SMALL, 1)
    answer(engine, shared, frame, out=out)
    assert not shared.path.staging
    assert np.array_equal(out, answer(engine, own, np.ascontiguousarray(frame)))
    assert set(own.path.staging) == {"frame", "answer"}


def test_memory_that_cannot_be_pinned_is_tried_once_and_copied(
    engine: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []

    def refuse(mapping: mmap.mmap, register: bool) -> None:
        tried.append(mapping)
        raise OSError("cudaHostRegister says 1")

    monkeypatch.setattr(gpu_engine, "Pinned", refuse)
    mapping = mmap.mmap(-1, 1 << 16)
    frame = np.ndarray((64, 96, 4), np.uint8, memoryview(mapping), 0)
    frame[...] = noise_frame(SMALL, 3)
    canvas = engine.open(SMALL, 1)
    drawn = [answer(engine, canvas, frame, cut=True) for _ in range(2)]
    assert len(tried) == 1
    assert drawn[0].std() > 1
    assert set(canvas.path.staging) == {"frame", "answer"}


def test_canvases_of_one_mapping_share_what_is_pinned(engine: CudaEngine) -> None:
    """The driver refuses memory that it has already: a game with regions has a canvas for each."""
    mapping = mmap.mmap(-1, 1 << 16)
    frame = np.ndarray((64, 96, 4), np.uint8, memoryview(mapping), 0)
    one, two = engine.open(SMALL, 1), engine.open(SMALL, 2)
    for canvas in (one, two):
        answer(engine, canvas, frame)
    assert one.pinned is not None
    assert one.pinned is two.pinned


def test_what_is_staged_is_allocated_once(engine: CudaEngine) -> None:
    canvas = engine.open(SMALL, 1)
    answer(engine, canvas, noise_frame(SMALL, 1))
    staged = {name: host.data_ptr() for name, host in canvas.path.staging.items()}
    asked: list[int] = []
    canvas.path.host = asked.append  # type: ignore[assignment,method-assign]
    answer(engine, canvas, noise_frame(SMALL, 2))
    assert not asked
    assert {name: host.data_ptr() for name, host in canvas.path.staging.items()} == staged


def test_a_path_goes_back_and_to_the_next_game_of_its_kind(engine: CudaEngine) -> None:
    first = engine.open(SMALL, 1)
    path = first.path
    drawn = answer(engine, first, noise_frame(SMALL, 3))
    other = engine.open(SMALL, 1)
    assert other.path is not path, "a path is one game's"
    del first
    again = engine.open(SMALL, 1)
    assert again.path is path
    assert np.array_equal(answer(engine, again, noise_frame(SMALL, 3)), drawn), "nothing of the last game is left"


def test_a_frame_depends_on_the_memory_until_it_is_reset(engine: CudaEngine) -> None:
    frame = noise_frame(SMALL, 3)
    canvas, other = engine.open(SMALL, 1), engine.open(SMALL, 1)
    answer(engine, canvas, noise_frame(SMALL, 8))
    answer(engine, other, noise_frame(SMALL, 8))
    remembered, cut = answer(engine, canvas, frame), answer(engine, other, frame, cut=True)
    assert not np.array_equal(remembered, cut)


def test_an_edit_that_is_not_finite_is_the_source_and_reseeds(engine: CudaEngine) -> None:
    canvas, frame = engine.open(SMALL, 1), noise_frame(SMALL, 3)
    answer(engine, canvas, frame)
    with torch.inference_mode():
        kept = canvas.path.film.clone()
        canvas.path.film.fill_(torch.nan)
    assert np.array_equal(answer(engine, canvas, frame), frame)
    with torch.inference_mode():
        canvas.path.film.copy_(kept)
    before = canvas.resets
    healed = answer(engine, canvas, frame)
    assert canvas.resets == before + 1
    assert not np.array_equal(healed, frame)
    answer(engine, canvas, frame)
    assert canvas.resets == before + 1, "one bad frame is one reset"


def test_a_frame_out_of_bounds_begins_the_next_one_anew(engine: CudaEngine) -> None:
    """In a game that sends depth: of colours alone the memory is not read."""
    kind, frame = dataclasses.replace(SMALL, depth=True), noise_frame(SMALL, 3)
    planes = FramePlanes(planes_of(SMALL, 3).depth)

    def played(high: float) -> tuple[CudaCanvas, list[Any]]:
        canvas = engine.open(kind, 1)
        canvas.watch = Watch(Bounds((0.0, 0.0, 0.0, high), (1.0,) * 4, (-20.0,) * 4, (9.0, 9.0, 9.0, high)))
        return canvas, [answer(engine, canvas, noise_frame(SMALL, 8), planes), answer(engine, canvas, frame, planes)]

    calm, first = played(9.0)
    found = calm.path.host_health.tolist()
    assert all(square > 0 for square in found[:4])
    kept = calm.work.stored.float() / 127
    assert found[2] == pytest.approx(float(kept.square().mean()), rel=1e-4)
    matrices, detail, *_ = kernels.split_edit(calm.work.edit.float())
    # They are of the edit as the network said it, before what cells were changed by went on.
    assert found[0] == pytest.approx(float(matrices.square().mean()), rel=2e-2)
    assert found[1] == pytest.approx(float(detail.square().mean()), rel=1e-4)
    assert found[4] == 0
    strict, second = played(statistics_of(found)[3] - 0.1)
    assert np.array_equal(first[1], second[1]), "what is out of bounds is known a frame later"
    assert not np.array_equal(answer(engine, calm, frame, planes), answer(engine, strict, frame, planes))
    assert strict.path.host_health[3] == 0, "memory took no part"
    answer(engine, calm, frame, planes)
    answer(engine, strict, frame, planes)
    assert (calm.corrections, strict.corrections) == (0, 1)
    assert (calm.resets, strict.resets) == (0, 0)
    assert calm.watch.drift_state != 0
    blind = engine.open(SMALL, 1)
    blind.watch = Watch(Bounds((-10.0,) * 4, (1.0,) * 4, (-20.0,) * 4, (-9.0,) * 4))
    for _ in range(3):
        answer(engine, blind, frame)
        assert blind.path.host_health[3] == 0
    assert blind.corrections == 0


def test_a_late_answer_raises_in_time_and_settles_later(engine: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    canvas, frame = engine.open(SMALL, 1), noise_frame(SMALL, 3)
    answer(engine, canvas, frame)
    done = canvas.path.settled
    canvas.path.busy_since_ns = time.monotonic_ns()
    monkeypatch.setattr(canvas.path, "settled", lambda: False)
    began_ns = time.monotonic_ns()
    with pytest.raises(DeviceError, match="late"):
        engine.wait(canvas, began_ns + 3_000_000)
    assert not engine.settled(canvas)
    with pytest.raises(DeviceError, match="late"):
        engine.upload(canvas, frame, FramePlanes())
    monkeypatch.setattr(canvas.path, "settled", done)
    assert engine.settled(canvas)
    answer(engine, canvas, frame)


def mended(engine: CudaEngine) -> None:
    for thread in threading.enumerate():
        if thread.name == "mend":
            thread.join(60)
    assert not engine.lost


def test_a_device_that_is_back_serves_again() -> None:
    told: list[str] = []
    engine = CudaEngine(CONFIG, told.append, net=network(), warm=(SMALL,))
    canvas, frame = engine.open(SMALL, 1), noise_frame(SMALL, 3)
    drawn, path, lost = answer(engine, canvas, frame), canvas.path, weakref.ref(canvas.path)

    def broken() -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    canvas.work.net = broken
    with pytest.raises(DeviceError, match="unspecified launch failure"):
        engine.denoise(canvas)
    mended(engine)
    assert sum("unspecified launch failure" in sentence for sentence in told) == 1
    with pytest.raises(DeviceError):
        engine.compose(canvas, frame, np.zeros_like(frame), ORDER, None, 1.0)  # of a frame that was lost with it
    again = answer(engine, canvas, frame, cut=True)
    assert canvas.path is not path
    del path
    gc.collect()
    assert lost() is None, "what died with the device holds no memory of it"
    canvas.frame = 0
    assert np.array_equal(answer(engine, canvas, frame, cut=True), drawn)
    assert again.shape == drawn.shape


def test_a_device_that_hangs_is_lost_and_the_processor_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    canvas, frame = engine.open(SMALL, 1), noise_frame(SMALL, 3)
    answer(engine, canvas, frame)

    class Substitute:
        def __init__(self, config: ServeConfig, tell: Any) -> None:
            assert config.device == "cpu"

    def dead() -> None:
        raise RuntimeError("the device does not answer")

    monkeypatch.setattr(processor, "Engine", Substitute)
    monkeypatch.setattr(engine, "_probe", dead)
    monkeypatch.setattr(canvas.path, "settled", lambda: False)
    canvas.path.busy_since_ns = time.monotonic_ns() - 2_000_000_000
    with pytest.raises(DeviceError, match="for a second"):
        engine.upload(canvas, frame, FramePlanes())
    for thread in threading.enumerate():
        if thread.name == "mend":
            thread.join(60)
    assert isinstance(engine.successor, Substitute)
    assert engine.settled(canvas), "what is dead writes nothing"
    newcomer = engine.open(SMALL, 2)
    with pytest.raises(DeviceError, match="lost"):
        engine.upload(newcomer, frame, FramePlanes())


def test_out_of_memory_goes_on_with_fewer_cells() -> None:
    kind = FrameKind("RGBA8", 400, 648)
    told: list[str] = []
    engine = CudaEngine(CONFIG, told.append, net=network(), warm=())
    canvas = engine.open(kind, 1)
    sizes = {work.size.content for work in canvas.path.works.values()}
    assert canvas.fit.content == (400, 648)
    assert len(sizes) == 2

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine.set_style(canvas, Style.make("plain", {}))
    canvas.work.net = full
    with pytest.raises(DeviceError, match="memory"):
        engine.denoise(canvas)
    assert canvas.fit.content == min(sizes)
    assert canvas.fresh
    assert not engine.lost
    answer(engine, canvas, np.zeros((400, 648, 4), np.uint8))
    assert len(told) == 1


def test_what_a_machine_lacks_is_done_without_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    engine = CudaEngine(CONFIG, told.append, net=network(), warm=(SMALL,))
    assert not told
    engine._graphs, engine._serving = True, False  # which a processor has not, and is found out before "ready"
    expected = answer(engine, engine.open(SMALL, 1), noise_frame(SMALL, 3))
    bgra = FrameKind("BGRA8", 64, 96)
    drawn = answer(engine, engine.open(bgra, 1), np.ascontiguousarray(noise_frame(SMALL, 3)[..., [2, 1, 0, 3]]))
    assert np.array_equal(drawn[..., [2, 1, 0, 3]], expected)
    engine.open(FrameKind("RGB8", 64, 96), 1)
    assert [sentence.split(",")[0] for sentence in told] == ["no CUDA graphs"]
    assert not engine._graphs


def test_a_kind_of_frame_that_fails_costs_no_other_game_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    engine = CudaEngine(CONFIG, told.append, net=network(), warm=(SMALL,))
    engine._graphs = True  # as if warm-up had captured some
    drawn = answer(engine, engine.open(FrameKind("BGRA8", 64, 96), 1), noise_frame(SMALL, 3))
    assert [sentence.split(",")[0] for sentence in told] == ["some kinds of frames go without CUDA graphs"]
    assert engine._graphs
    assert drawn.any()

    def capture(self: Work, graphs: bool) -> None:
        raise ValueError("this kernel does not compile for one row")

    monkeypatch.setattr(Work, "capture", capture)
    strange = FrameKind("RGBA8", 1, 96)
    canvas = engine.open(strange, 1)
    assert "does not compile" in told[-1]
    with pytest.raises(DeviceError, match="path"):
        engine.upload(canvas, np.zeros((1, 96, 4), np.uint8), FramePlanes())
    monkeypatch.undo()
    assert not engine.lost
    answer(engine, engine.open(SMALL, 1), noise_frame(SMALL, 3))
    canvas.retry_ns = 0  # it is tried again, seldom
    assert answer(engine, canvas, np.zeros((1, 96, 4), np.uint8)).shape == (1, 96, 4)


def test_no_room_for_a_game_loses_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    playing, frame = engine.open(SMALL, 1), noise_frame(SMALL, 3)
    answer(engine, playing, frame)
    make_path, rooms = engine._new_path, [0, 0]

    def crowded(kind: FrameKind) -> Path:
        if rooms:
            rooms.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make_path(kind)

    monkeypatch.setattr(engine, "_new_path", crowded)
    newcomer = engine.open(LARGE, 2)
    with pytest.raises(DeviceError):
        engine.upload(newcomer, noise_frame(LARGE, 1), FramePlanes())
    assert not engine.lost
    answer(engine, playing, frame)
    newcomer.retry_ns = 0
    answer(engine, newcomer, noise_frame(LARGE, 1))


def test_what_no_game_needs_is_let_go_of_at_once() -> None:
    engine = make()
    canvas = engine.open(SMALL, 1)
    answer(engine, canvas, noise_frame(SMALL, 3))
    path, works = weakref.ref(canvas.path), [weakref.ref(work) for work in canvas.path.works.values()]
    del canvas
    gc.collect()
    assert path() is not None, "it is kept for the next game of its kind"
    gc.disable()
    try:
        engine._full()
    finally:
        gc.enable()
    assert path() is None
    assert not any(work() for work in works)


class Event:
    """A CUDA event of a device that takes `takes_ns`, by a clock of the test's own."""

    clock_ns = 0

    def __init__(self, takes_ns: int) -> None:
        self.takes_ns, self.until_ns = takes_ns, 0

    def record(self, _stream: Any) -> None:
        self.until_ns = Event.clock_ns + self.takes_ns

    def query(self) -> bool:
        return Event.clock_ns >= self.until_ns

    def elapsed_time(self, _other: Any) -> float:
        return self.takes_ns / 1e6


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> CudaEngine:
    """An engine whose device is busy for as long as its events say; who sleeps lets its clock go on."""
    engine = make()
    monkeypatch.setattr(Event, "clock_ns", time.monotonic_ns())

    def slept(seconds: float) -> None:
        Event.clock_ns += int(seconds * 1e9)

    clock: Any = types.SimpleNamespace(monotonic_ns=lambda: Event.clock_ns, sleep=slept)
    monkeypatch.setattr(gpu_engine, "time", clock)
    monkeypatch.setattr(cuda_path, "time", clock)
    return engine


def test_a_processor_that_stood_still_is_no_device_that_hangs(timed: CudaEngine) -> None:
    canvas, frame = timed.open(SMALL, 1), noise_frame(SMALL, 3)
    canvas.path.done = canvas.path.composing = Event(2_000_000)
    timed.upload(canvas, frame, FramePlanes())
    Event.clock_ns += 3_000_000_000  # another game's path was captured, or the machine was suspended
    timed.set_style(canvas, load_style("snow"))
    timed.read(canvas, frame, ORDER, FramePlanes(), False)
    timed.denoise(canvas)
    timed.compose(canvas, frame, np.zeros_like(frame), ORDER, None, 1.0)
    assert timed.wait(canvas, Event.clock_ns + FAR_NS) == 2_000_000
    assert not timed.lost


def test_a_stream_that_is_stuck_leaves_the_device(timed: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new stream would answer, and whoever waits for the whole device would wait for ever."""
    canvas, frame = timed.open(SMALL, 1), noise_frame(SMALL, 3)
    canvas.path.done = canvas.path.composing = Event(10**15)
    timed.upload(canvas, frame, FramePlanes())

    class Substitute:
        def __init__(self, config: ServeConfig, tell: Any) -> None:
            assert config.device == "cpu"

    monkeypatch.setattr(processor, "Engine", Substitute)
    monkeypatch.setattr(timed, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda: Event(0))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    with pytest.raises(DeviceError, match="for a second"):
        timed.wait(canvas, Event.clock_ns + FAR_NS)
    for thread in threading.enumerate():
        if thread.name == "mend":
            thread.join(60)
    assert isinstance(timed.successor, Substitute)


def test_the_engine_of_a_machine_without_a_gpu_is_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ServeConfig] = []

    class Substitute:
        def __init__(self, config: ServeConfig, tell: Any) -> None:
            made.append(config)

    monkeypatch.setattr(processor, "Engine", Substitute)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(processor.load_engine(ServeConfig()), Substitute)
    with pytest.raises(DeviceError):
        processor.load_engine(ServeConfig(device="cuda"))

    # A driver that is there and does not work.
    def broken(config: ServeConfig, tell: Any) -> None:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_engine, "CudaEngine", broken)
    told: list[str] = []
    assert isinstance(processor.load_engine(ServeConfig(), told.append), Substitute)
    assert made[-1].device == "cpu"
    assert "insufficient" in told[0]
    with pytest.raises(DeviceError, match="insufficient"):
        processor.load_engine(ServeConfig(device="cuda"))


@pytest.fixture
def game(tmp_path: Any) -> Iterator[Game]:
    playing = Game(make(), f"ipc://{tmp_path}/m")
    yield playing
    playing.close()


def test_a_game_is_answered_from_slot_to_slot(game: Game) -> None:
    frame = noise_frame(SMALL, 3)
    assert game.play(frame).kind == "styled"
    answer_ = game.session.poll_answer()
    assert answer_.kind == "styled"
    assert not np.array_equal(np.array(answer_.pixels), frame)
    assert game.stream is not None
    canvas = game.stream.canvas
    assert isinstance(canvas, CudaCanvas)
    assert not canvas.path.staging, "frames and answers stay in shared memory"


@pytest.mark.parametrize("which", [0, 1])
def test_a_region_of_the_mask_has_a_style_of_its_own(
    pair: tuple[FrameEngine, FrameEngine, FrameKind], which: int, tmp_path: Any
) -> None:
    mask = np.ones((64, 96), np.uint8)
    mask[:, 40:], mask[:10] = 2, 0
    both: dict[str, Any] = {"style": "snow", "regions": {"2": "ink"}}
    answers: dict[str, list[Any]] = {}
    # The first game is there to compile: an answer that took so long is not shown.
    for name, style in (("first", both), ("both", both), ("snow", "snow"), ("ink", "ink")):
        game = Game(pair[which], f"ipc://{tmp_path}/{name}", style, ("mask",), 60_000.0)
        answers[name] = []
        for number in range(4):
            # The region leaves the picture for a frame, and comes back as if it were new.
            shown = np.minimum(mask, 1) if number == 2 else mask
            if name == "ink" and number == 3:
                game.stream.reset()  # type: ignore[union-attr]
            assert game.play(noise_frame(SMALL, number), shown).kind == "styled"
            # By its frame: the newest answer is not shown when it took a loaded machine a quarter of a second.
            with game.session.wait_answer(game.frame_id) as drawn:
                assert drawn.kind == "styled"
                answers[name].append((np.array(drawn.pixels), shown))
        game.close()
    for number, (drawn, shown) in enumerate(answers["both"]):
        snow, ink = answers["snow"][number][0], answers["ink"][number][0]
        assert not np.array_equal(snow[shown == 1], ink[shown == 1])
        assert np.array_equal(drawn[shown == 1], snow[shown == 1])
        assert np.array_equal(drawn[shown == 0], noise_frame(SMALL, number)[shown == 0])
        assert np.array_equal(drawn[shown == 2], ink[shown == 2])


def test_regions_are_painted_again_when_the_device_is_back(tmp_path: Any) -> None:
    engine = make()
    both: dict[str, Any] = {"style": "snow", "regions": {"2": "ink"}}
    game = Game(engine, f"ipc://{tmp_path}/m", both, ("mask",), 60_000.0)
    mask = np.ones((64, 96), np.uint8)
    mask[:, 40:] = 2
    stream = game.stream
    assert stream is not None
    for number in range(2):
        assert game.play(noise_frame(SMALL, number), mask).kind == "styled"
    engine._lose("CUDA error: unspecified launch failure")
    mended(engine)
    for number in range(2, 5):
        served = game.play(noise_frame(SMALL, number), mask)
        assert served.kind == "styled"
    assert [canvas.generation for canvas in stream._regions.values()] == [engine.generation]  # type: ignore[union-attr]
    assert len(stream._shown) == 1
    game.close()


def test_frames_of_a_lost_device_are_answered_by_the_source(game: Game) -> None:
    frame = noise_frame(SMALL, 3)
    assert game.play(frame).kind == "styled"
    stream, engine = game.stream, game.engine
    assert stream is not None
    assert isinstance(engine, CudaEngine)
    canvas = stream.canvas
    assert isinstance(canvas, CudaCanvas)

    def broken() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    canvas.work.net = broken
    began_ns = time.monotonic_ns()
    assert game.play(frame).kind == "source"
    assert time.monotonic_ns() - began_ns < 400_000_000
    mended(engine)
    kinds = [game.play(frame).kind for _ in range(3)]
    assert kinds[-1] == "styled"


def test_a_slot_that_the_device_may_still_write_is_not_given_away(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = noise_frame(SMALL, 3)
    assert game.play(frame).kind == "styled"
    stream = game.stream
    assert stream is not None
    canvas = stream.canvas
    assert isinstance(canvas, CudaCanvas)
    path, done = canvas.path, canvas.path.settled
    answers = iter([True])  # the upload's look finds it idle; from composing on it hangs
    path.busy_since_ns = time.monotonic_ns()
    monkeypatch.setattr(path, "settled", lambda: next(answers, False))
    began_ns = time.monotonic_ns()
    served = game.play(frame)
    assert served.kind == "source"
    assert time.monotonic_ns() - began_ns < 400_000_000, "the source is the answer within the budget"
    assert stream._unfinished is not None
    monkeypatch.setattr(path, "settled", done)
    path.busy_since_ns = 0
    game.play(frame)
    assert stream._unfinished is None


def test_a_successor_takes_over_its_games(game: Game) -> None:
    assert game.stream is not None
    game.stream.succeed(make())
    assert game.play(noise_frame(SMALL, 3)).kind == "styled"


def test_waiting_frames_are_uploaded_ahead_once(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = game.stream
    assert stream is not None
    uploads: list[Any] = []
    upload = game.engine.upload
    monkeypatch.setattr(game.engine, "upload", lambda *given: (uploads.append(given), upload(*given))[1])
    take = stream.session.take_newest

    def take_and_prefetch() -> Any:
        job = take()
        if job is not None:
            stream.prefetch(job)
        return job

    monkeypatch.setattr(stream.session, "take_newest", take_and_prefetch)
    assert game.play(noise_frame(SMALL, 3)).kind == "styled"
    assert len(uploads) == 1


@pytest.mark.parametrize(
    ("width", "depth", "overviews"), [(128, True, 0), (400, True, 0), (128, False, 0), (400, False, 1), (560, True, 1)]
)
def test_the_kernels_take_what_the_path_gives_them(width: int, depth: bool, overviews: int) -> None:
    """Every launch of a captured frame passes its launcher's checks for Hopper, in bf16."""
    kind = FrameKind("BGRA8", 96, width, flipped=True, depth=depth, motion=True, mask=True, depth_range=(0.1, 100.0))
    engine = CudaEngine(
        ServeConfig(device="cpu", tier="nano", steps=2), net=network(), dtype=torch.bfloat16, warm=()
    )
    work = engine.open(kind, 1).work
    few = 77 if width == 400 else 55
    assert work.overview is None or work.overview[:3] == (few, 320, (few / 96, 320 / width))
    with torch.inference_mode(), kernels.record(90) as net:
        work._net()
    with torch.inference_mode(), kernels.record(90) as rest:
        for call in (work._compose, work._carry, work._late):
            call()
    names = [launch.name for launch in net]
    assert names.count("pixels_kernel") == names.count("memory_write_kernel") == 2 + overviews  # of two steps
    assert names.count("overview_kernel") == 2 * overviews
    assert names.count("remember_kernel") == (overviews if depth or overviews else 2)
    # An overview agrees once a frame, a small frame's own words in each of two steps; two launches each.
    assert names.count("agree_kernel") == (0 if depth else 2 if overviews else 4)
    assert names.count("shade_kernel") == 2
    assert names.count("noise_kernel") == names.count("steady_move_kernel") == 1
    assert names.count("depth_lines_kernel") == int(depth)
    assert names.count("warp_state_kernel") == 2  # of the memory, and of what is kept of cells
    assert [launch.name for launch in rest].count("compose_kernel") == 2


@pytest.mark.needs("cuda")
def test_on_a_gpu_graphs_and_plain_launches_and_the_references_agree() -> None:
    kind = FrameKind("RGBA8", 360, 640, depth=True, motion=True, mask=True)
    told: list[str] = []
    captured = CudaEngine(ServeConfig(device="cuda", tier="nano"), told.append, net=network(), warm=(kind,))
    assert not told
    eager = CudaEngine(ServeConfig(device="cuda", tier="nano"), net=network(), warm=())
    eager._graphs = False
    reference = make(kind)
    engines = (captured, eager, reference)
    canvases = [engine.open(kind, 3) for engine in engines]
    for number in range(4):
        frame, planes = noise_frame(kind, number), planes_of(kind, number)
        drawn = [answer(engine, canvas, frame, planes) for engine, canvas in zip(engines, canvases, strict=True)]
        assert np.array_equal(drawn[0], drawn[1]), "a graph is the launches that were captured"
        apart = np.abs(drawn[0].astype(int) - drawn[2]).mean()
        assert apart < 1.0, f"bf16 against fp32: {apart} steps of 255 on average"
    assert kernels.HAS_TRITON


def test_what_a_game_keeps_can_be_copied_by_nobody(engine: CudaEngine) -> None:
    """Two games of one kind have their own memories, noise and styles."""
    frame = noise_frame(SMALL, 3)
    one, two = engine.open(SMALL, 1), engine.open(SMALL, 1)
    engine.set_style(one, load_style("snow"))
    engine.set_style(two, load_style("ink"))
    assert not np.array_equal(answer(engine, one, frame), answer(engine, two, frame))
    three = engine.open(SMALL, 1)
    engine.set_style(three, copy.deepcopy(load_style("snow")))
    engine.upload(one, frame, FramePlanes())
    assert np.array_equal(answer(engine, three, frame), answer(engine, engine.open(SMALL, 1), frame))

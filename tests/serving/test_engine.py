"""The processor's engine between frames: what a canvas remembers, when it forgets, and that nobody else sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mirage_plugin import engine as processor
from mirage_plugin.config import ServeConfig
from mirage_plugin.engine import GRIDS, Canvas, Engine
from mirage_plugin.frames import FrameKind, FramePlanes
from mirage_plugin.model.drift import Bounds, Watch, statistics_of
from mirage_plugin.model.memory import dequantise, warp_state
from mirage_plugin.model.network import TIERS, MirageNet, Planes, planes_to_cells
from mirage_plugin.model.sampling import sample
from mirage_plugin.styles.parameters import load_style

ORDER = np.array([0, 1, 2])
SMALLEST = len(GRIDS) - 1
KIND = FrameKind("RGBA8", GRIDS[-1][0] * 8, GRIDS[-1][1] * 8)
STILL = FramePlanes(motion=np.zeros((KIND.height, KIND.width, 2), np.float16))


def network() -> MirageNet:
    """A network that changes its source, and remembers."""
    torch.manual_seed(0)
    net = MirageNet(TIERS["nano"]).eval()
    with torch.no_grad():
        for layer in (net.head_matrices, net.head_mix, net.head_detail):
            layer.weight.normal_(0, 0.02)
    return net


@pytest.fixture(scope="module", params=[1, 2], ids=["one step", "two steps"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "load_network", lambda tier: network())
        patch.setattr(processor, "load_bounds", lambda tier: None)
        patch.setattr(processor, "_best_dtype", lambda device: torch.float32)
        patch.setattr(Engine, "_measure", lambda self: None)
        yield Engine(ServeConfig(device="cpu", tier="nano", compile=False, steps=request.param))


def frame_of(seed: int, kind: FrameKind = KIND) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (kind.height, kind.width, 4), np.uint8)


def opened(engine: Engine, seed: int = 3, style: str = "snow", bounds: Bounds | None = None) -> Canvas:
    canvas = engine.open(KIND, seed, SMALLEST)
    canvas.watch = Watch(bounds)
    engine.set_style(canvas, load_style(style))
    return canvas


def answer(
    engine: Engine, canvas: Canvas, frame: NDArray[np.uint8], planes: FramePlanes = STILL, *, cut: bool = False
) -> NDArray[np.uint8]:
    out = np.zeros_like(frame)
    engine.read(canvas, frame, ORDER, planes, cut)
    assert engine.denoise(canvas)
    if engine.steps > 1:
        engine.refine(canvas)
    engine.compose(canvas, frame, out, ORDER, planes.mask, 1.0)
    return out


def bounds_up_to(change: float) -> Bounds:
    return Bounds((0.0, 0.0, 0.0, change), (1.0,) * 4, (-20.0,) * 4, (9.0, 9.0, 9.0, change))


def test_frames_are_those_of_the_definition(engine: Engine) -> None:
    canvas, net, stored = opened(engine), network(), torch.zeros(1, GRIDS[-1][0] // 2, GRIDS[-1][1] // 2, 48)
    with torch.inference_mode():
        style = net.style(torch.from_numpy(load_style("snow").vector().astype(np.float32))[None])
    for number in range(3):
        frame, before = frame_of(number), canvas.stored
        drawn = answer(engine, canvas, frame)
        h, w = GRIDS[-1]
        field = torch.from_numpy(canvas.noise_cells).view(h, w, 4, 4).transpose(1, 2).reshape(1, 1, h * 4, w * 4)
        still = torch.zeros(1, 2, h // 2, w // 2)
        stored = dequantise(torch.from_numpy(before))
        memory = warp_state(stored, still, torch.full((1, 1, h // 2, w // 2), float(number > 0)))
        v = torch.from_numpy(frame[..., :3].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        planes = planes_to_cells(Planes(motion=torch.zeros(1, 2, h * 8, w * 8)), 1, h, w, v)
        with torch.inference_mode():
            expected, _, _ = sample(net, v, field, planes, memory, style, torch.ones(1), engine.steps)
        bytes_ = ((expected[0].permute(1, 2, 0) + 1) * 127.5 + 0.5).floor().clamp(0, 255).numpy().astype(int)
        apart = np.abs(drawn[..., :3].astype(int) - bytes_)
        assert apart.max() <= 1, number
        assert (apart > 0).mean() < 1e-2, number


def test_a_frame_out_of_bounds_is_what_it_is_without_memory(engine: Engine) -> None:
    free = opened(engine)
    answer(engine, free, frame_of(0))
    remembered = answer(engine, free, frame_of(1))
    assert free.given is not None
    healthy = statistics_of(engine._core(free.given).health.tolist())
    watched, alone = opened(engine, bounds=bounds_up_to(healthy[3] - 0.1)), opened(engine)
    for canvas in (watched, alone):
        answer(engine, canvas, frame_of(0))
    alone.stored = np.zeros_like(alone.stored)
    engine.read(alone, frame_of(1), ORDER, STILL, False)
    alone.seen.fill(0.0)
    assert engine.denoise(alone)
    if engine.steps > 1:
        engine.refine(alone)
    expected = np.zeros_like(remembered)
    engine.compose(alone, frame_of(1), expected, ORDER, None, 1.0)
    drawn = answer(engine, watched, frame_of(1))
    np.testing.assert_array_equal(drawn, expected)
    assert not np.array_equal(drawn, remembered)
    assert (watched.corrections, watched.resets) == (1, 0)
    assert watched.watch.drift_state != 0
    within = opened(engine, bounds=bounds_up_to(healthy[3] + 0.1))
    answer(engine, within, frame_of(0))
    np.testing.assert_array_equal(answer(engine, within, frame_of(1)), remembered)
    assert within.corrections == 0


def test_what_memory_makes_infinite_is_drawn_without_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    canvas = opened(engine)
    answer(engine, canvas, frame_of(0))
    whole, passes = engine._forward[SMALLEST], []

    def poisoned(given: Any) -> Any:
        out = whole(given)
        passes.append(float(given.seen.sum()))
        return out._replace(health=out.health * torch.nan) if given.seen.any() else out

    monkeypatch.setattr(engine, "_forward", [poisoned] * len(GRIDS))
    answer(engine, canvas, frame_of(1))
    assert len(passes) == 2
    assert passes[1] == 0
    assert (canvas.corrections, canvas.resets) == (1, 0)
    monkeypatch.setattr(engine, "_forward", [lambda given: whole(given)._replace(health=torch.full((5,), torch.nan))])
    monkeypatch.setattr(engine, "_forward", engine._forward * len(GRIDS))
    engine.read(canvas, frame_of(2), ORDER, STILL, False)
    assert not engine.denoise(canvas)
    assert canvas.resets == 1
    assert canvas.edit is None


def test_every_new_beginning_is_counted(engine: Engine) -> None:
    canvas = opened(engine)
    assert canvas.resets == 0
    answer(engine, canvas, frame_of(0))
    canvas.fit_to(0)
    assert canvas.resets == 1
    assert canvas.fresh
    canvas.fit_to(SMALLEST)
    answer(engine, canvas, frame_of(1), cut=True)
    assert canvas.resets == 3

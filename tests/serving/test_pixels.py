"""The CPU's pixel code against the tensors that define it."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch

from mirage_kernels.lines import spread_lines
from mirage_kernels.pixelate import block_side
from mirage_kernels.shade import WORDS
from mirage_plugin.model import native
from mirage_plugin.model.core import Core, CoreInput
from mirage_plugin.model.cpu_pixels import carry_motion, cells_from_pixels, move_noise, plane_cells, warp_edit
from mirage_plugin.model.memory import dequantise, quantise, warp_state
from mirage_plugin.model.network import (
    CODE_SIZE,
    SIGMA,
    TIERS,
    Edit,
    MirageNet,
    Planes,
    compose,
    doubted_lines,
    noise_to_cells,
    pixelate,
    pixels_to_cells,
    planes_to_cells,
)
from mirage_plugin.model.noise import advect_noise, fresh_noise
from mirage_plugin.model.sampling import lift_noise
from mirage_plugin.styles.parameters import VECTOR_SIZE, parameter_slice


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def random_net(seed: int = 0) -> MirageNet:
    torch.manual_seed(seed)
    net = MirageNet(TIERS["nano"]).eval()
    net.begin_training()
    with torch.no_grad():
        for layer in (net.head_matrices, net.head_words, net.head_detail):
            layer.weight.normal_(0, 0.05)
    return net


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 90), (1, 1), (8, 7)])
def test_cells_are_those_of_the_definition(height: int, width: int, order: tuple[int, int, int]) -> None:
    pixels = rng().integers(0, 256, (height, width, 4), np.uint8)
    h, w = (height + 31) // 32 * 4, (width + 31) // 32 * 4
    cells = np.zeros((h, w, 192), np.uint8)
    cells_from_pixels(pixels, np.array(order), cells)
    padded = np.pad(pixels[..., list(order)], ((0, h * 8 - height), (0, w * 8 - width), (0, 0)), mode="edge")
    image = torch.from_numpy(padded.copy()).permute(2, 0, 1)[None]
    assert torch.equal(torch.from_numpy(cells)[None], pixels_to_cells(image))


@pytest.mark.parametrize("given", list(itertools.product([True, False], repeat=3)))
def test_planes_are_those_of_the_definition(given: tuple[bool, bool, bool]) -> None:
    height, width = 64, 96
    depth = rng(1).random((height, width)).astype(np.float32) * 50
    depth[3, 3], depth[5, 7] = np.inf, -2.0
    motion = rng(2).normal(0, 9, (height, width, 2)).astype(np.float32)
    motion[4, 4] = np.nan
    mask = rng(3).integers(0, 4, (height // 2, width // 2)).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    cells = np.empty((8, 12, 32), np.float32)
    sent = zip((depth, motion, mask), given, strict=True)
    every = (np.ascontiguousarray(plane[::2, ::2] if there else plane[:1, :1]) for plane, there in sent)
    plane_cells(*every, *given, cells)
    kinds = np.stack([mask == 0, mask == 2, mask == 3]).astype(np.float32)
    all_of_them = (
        torch.from_numpy(depth)[None, None], torch.from_numpy(motion).permute(2, 0, 1)[None],
        torch.from_numpy(kinds)[None],
    )  # fmt: skip
    planes = Planes(*(plane if there else None for plane, there in zip(all_of_them, given, strict=True)))
    expected = planes_to_cells(planes, 1, 8, 12, torch.zeros(1))[0].numpy()
    np.testing.assert_allclose(cells, expected, atol=2e-6)


def test_noise_is_carried_as_defined() -> None:
    h2, w2, seed = 32, 48, 1234
    key, zero = torch.tensor([seed]), torch.tensor([0])
    first = fresh_noise(key, zero, h2, w2)
    before, after = np.zeros((h2, w2), np.float32), np.zeros((h2, w2), np.float32)
    cells = np.empty((h2 // 4, w2 // 4, 16), np.float32)
    motion = (rng(4).normal(0, 6, (1, 1, 2)) + np.zeros((h2, w2, 2))).astype(np.float32)
    motion[5:9, 5:9] = np.nan
    motion[20:, 30:] *= 0.6
    move_noise(before, after, motion, True, True, seed, 0, cells)
    np.testing.assert_allclose(after, first[0, 0].numpy(), atol=2e-5)
    np.testing.assert_allclose(cells, noise_to_cells(first)[0].numpy(), atol=2e-5)
    moved = np.empty_like(after)
    move_noise(after, moved, motion, True, False, seed, 1, cells)
    fresh = fresh_noise(key, torch.tensor([1]), h2, w2)
    visible = torch.ones(1, 1, h2, w2, dtype=torch.bool)
    expected = advect_noise(first, torch.from_numpy(motion).permute(2, 0, 1)[None], visible, fresh)
    np.testing.assert_allclose(moved, expected[0, 0].numpy(), atol=2e-5)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("drawn", ["none", "pixels", "between"])
def test_composed_bytes_are_those_of_the_definition(
    drawn: str, compiled: bool, scale: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "_load", lambda: (None, "not asked for"))
    elif native.why_not_native():
        pytest.skip(native.why_not_native())
    h, w = 8, 12
    height, width = h * 8 * scale, w * 8 * scale
    pixels = rng(5).integers(0, 256, (height, width, channels), np.uint8)
    matrices = rng(6).normal(0, 0.2, (h, w, 48)).astype(np.float32)
    detail = rng(7).normal(0, 0.1, (h, w, 192)).astype(np.float32)
    anchors = rng(8).uniform(-1, 1, (h, w, 16)).astype(np.float32)
    anchors[..., 3::4] = rng(9).dirichlet(np.ones(4), (h, w))
    pens = rng(10).uniform(0, 1.1, (h, w, 8)).astype(np.float32)
    pens[..., 2:] = pens[:1, :1, 2:]
    edit = (matrices, detail, anchors, pens)
    mask = np.ones((height, width), np.uint8)
    mask[:10, :10] = 0
    # No lines; lines at the display's resolution; and some that lie further apart and go on beyond it.
    points = {"none": None, "pixels": (height, width), "between": (4 * h + 3, 4 * w + 1)}[drawn]
    lines = None if points is None else rng(11).integers(0, 256, (2, *points), np.uint8)
    shown = (0.0, 0.0) if points is None else tuple(map(float, points)) if drawn == "pixels" else (4.0 * h, 4.0 * w)
    # Rows further apart than their pixels, as slots of shared memory have them.
    out = np.zeros((height, width + 3, channels), np.uint8)[:, :width]
    native.compose_pixels(
        pixels,
        out,
        np.array([0, 1, 2]),
        edit,
        mask,
        0.7,
        (h * 8, w * 8),
        lines,
        (shown[0], shown[1]),
    )
    v = torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1)[None].float() * (2 / 255) - 1
    with torch.inference_mode():
        traced = None if lines is None else torch.from_numpy(lines)[None].float() / 255
        if traced is not None and drawn == "between":
            # The display covers a part of the field: as much of it, and then what is asked for.
            whole = spread_lines(traced, scale * 2 * points[0], scale * 2 * points[1])
            traced = whole[..., :height, :width]
        full = compose(v, Edit(*(torch.from_numpy(part)[None] for part in edit)), traced)
    answer = (v + 0.7 * (full - v)).clamp(-1, 1)[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    expected = np.where(mask[..., None] == 0, pixels[..., :3], answer)
    # Half a step of rounding, and what the processor's estimate of a reciprocal is off by: Intel's more than AMD's.
    assert np.abs(out[..., :3] - expected).max() <= 0.53
    assert np.array_equal(out[..., 3:], pixels[..., 3:])


def test_an_edit_carried_by_no_motion_stays() -> None:
    matrices = rng(8).normal(size=(4, 8, 48)).astype(np.float32)
    detail = rng(9).normal(size=(4, 8, 192)).astype(np.float32)
    still = np.zeros((16, 32, 2), np.float32)
    anchors = rng(10).normal(size=(4, 8, 16)).astype(np.float32)
    pens = rng(11).normal(size=(4, 8, 8)).astype(np.float32)
    moved, drawn, told, inked = map(np.empty_like, (matrices, detail, anchors, pens))
    warp_edit(matrices, detail, anchors, pens, still, moved, drawn, told, inked)
    np.testing.assert_array_equal(inked, pens)
    np.testing.assert_array_equal(moved, matrices)
    np.testing.assert_array_equal(drawn, detail)
    np.testing.assert_array_equal(told, anchors)
    still[...] = np.nan
    warp_edit(matrices, detail, anchors, pens, still, moved, drawn, told, inked)
    np.testing.assert_array_equal(moved, matrices)
    assert not drawn.any()


def test_an_edit_follows_what_moves_slowly() -> None:
    # 0.6 pixels to the right a frame: each is less than a pixel, and eight of them are five.
    matrices, anchors = np.zeros((4, 8, 48), np.float32), np.zeros((4, 8, 16), np.float32)
    detail = rng(9).normal(size=(4, 8, 192)).astype(np.float32)
    since, motion = np.zeros((16, 32, 2), np.float32), np.zeros((16, 32, 2), np.float32)
    motion[..., 0] = -0.6
    for _ in range(8):
        after = np.empty_like(since)
        carry_motion(since, motion, True, after)
        since = after
    drawn = np.empty_like(detail)
    pens = np.zeros((4, 8, 8), np.float32)
    rest = np.empty_like(anchors), np.empty_like(pens)
    warp_edit(matrices, detail, anchors, pens, since, np.empty_like(matrices), drawn, *rest)

    def image(cells: np.ndarray) -> np.ndarray:
        return cells.reshape(4, 8, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(32, 64, 3)

    np.testing.assert_array_equal(image(drawn)[:, 5:], image(detail)[:, :-5])
    assert not image(drawn)[:, :4].any()


def test_motion_that_leads_nowhere_is_unknown() -> None:
    since, after = np.zeros((16, 32, 2), np.float32), np.empty((16, 32, 2), np.float32)
    motion = np.zeros((16, 32, 2), np.float32)
    motion[0, 0], motion[1, 1, 0], motion[2, 2, 1], motion[3, 3, 0] = np.nan, np.inf, 1e30, 200
    carry_motion(since, motion, True, after)
    unknown = np.isnan(after[..., 0])
    assert sorted(zip(*map(np.ndarray.tolist, np.nonzero(unknown)), strict=True)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    since[...] = np.nan
    carry_motion(since, motion, False, after)
    assert np.isnan(after).all()


def test_the_folded_core_is_the_network() -> None:
    net, folded = random_net(3), random_net(3)
    core = Core(folded, torch.float32)
    h, w = 8, 12
    cells = rng(10).integers(0, 256, (1, h, w, 192), np.uint8)
    v_cells = torch.from_numpy(cells).float() * (2 / 255) - 1
    noise = torch.randn(1, 1, h * 4, w * 4)
    planes = torch.rand(1, h, w, 32)
    stored = quantise(torch.rand(1, h // 2, w // 2, 48) * 2 - 1)
    motion, seen = torch.randn(1, 2, h // 2, w // 2) * 9, torch.rand(1, 1, h // 2, w // 2)
    with torch.inference_mode():
        style = net.style(torch.rand(1, VECTOR_SIZE) * 2 - 1)
        for steps in ("bands", "posterize"):  # at the edges of whose steps the last bit decides
            style[:, CODE_SIZE:][:, parameter_slice(steps)] = 0
        film = core.film(style, 1.0, 1.0)
        there = doubted_lines(v_cells, planes, style)
        no_overview = torch.zeros(1, 4, 4, WORDS), torch.zeros(4), torch.zeros(1, 2, 4, 4)
        marks = noise_to_cells(noise), planes, stored, motion, seen, there, film
        given = CoreInput(torch.from_numpy(cells), *marks, *no_overview)
        out = core(given)
        condition = net.condition(style, torch.ones(1), torch.ones(1))
        film_of = functools.partial(net.conditioned, style=style)
        noisy = v_cells + SIGMA * pixels_to_cells(lift_noise(noise).expand(1, 3, h * 8, w * 8))
        memory = warp_state(dequantise(stored), motion, seen)
        edit, state = net(v_cells, noisy, planes, memory, film_of(condition), noise)
        torch.testing.assert_close(out.edit.matrices, edit.matrices, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(out.edit.detail, edit.detail, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(out.edit.anchors, edit.anchors, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(out.edit.pens, edit.pens, atol=2e-4, rtol=1e-4)
        assert (out.stored.int() - quantise(state).int()).abs().max() <= 1
        answer = torch.from_numpy(rng(11).integers(0, 256, (1, h, w, 192), np.uint8))
        refined = core.refine(given, answer, torch.tensor(0.5))
        half = net.condition(style, torch.ones(1), torch.ones(1))
        mixed = 0.5 * (answer.float() * (2 / 255) - 1) + 0.5 * noisy
        expected, _ = net(v_cells, mixed, planes, memory, film_of(half), noise)
        torch.testing.assert_close(refined.edit.detail, expected.detail, atol=2e-4, rtol=1e-4)
    assert torch.isfinite(out.health).all()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(36, 64), (37, 61), (1080, 20), (1, 1)])
@pytest.mark.parametrize("compiled", [True, False])
def test_square_pixels_are_those_of_the_definition(
    compiled: bool, size: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "_load", lambda: (None, "not asked for"))
    elif native.why_not_native():
        pytest.skip(native.why_not_native())
    height, width = size
    before = rng(12).integers(0, 256, (height, width, channels), np.uint8)
    mask = (rng(13).random((height, width)) < 0.8).astype(np.uint8)
    out = np.zeros((height, width + 3, channels), np.uint8)[:, :width]
    out[...] = before
    native.pixelate(out, 0.8, mask)
    v = torch.from_numpy(before[..., :3].copy()).permute(2, 0, 1)[None].float()
    expected = pixelate(v, torch.tensor([0.8]), block_side(height))[0].permute(1, 2, 0).numpy()
    expected = np.where(mask[..., None] == 0, before[..., :3], expected)
    assert np.abs(out[..., :3] - expected).max() <= 0.51
    assert np.array_equal(out[..., 3:], before[..., 3:])

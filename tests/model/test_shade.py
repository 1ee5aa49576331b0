"""The program in the head is the one that draws the truths: told what is there, it paints what they show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mirage_kernels.lines import depth_lines_reference, spread_lines, trace_lines_reference
from mirage_kernels.shade import (
    BINS,
    KEEP,
    KINDS,
    PLAIN_AMBIENT,
    PLAIN_GLOW,
    PLAIN_LAMP,
    PLAIN_SUN,
    RAMP,
    SOFT_RAMP,
    STYLE_LAYOUT,
    SURFACE,
    shade_reference,
    steps_of,
)
from mirage_plugin.styles.parameters import PARAMETERS, parameter_slice
from mirage_plugin.train.worlds.gbuffer import GBuffer, Material
from mirage_plugin.train.worlds.program import plain_light, restyle
from mirage_plugin.train.worlds.styles import random_style, style_tensor

COUNT = 400


def _logit(x: Tensor) -> Tensor:
    return x.clamp(1e-6, 1 - 1e-6).logit()


def _surfaces(rng: torch.Generator) -> tuple[GBuffer, Tensor]:
    """Patches of one surface each, 8x8 pixels, and what the plain game shows of them."""

    def plane(channels: int, low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(COUNT, channels, 1, 1, generator=rng)).expand(-1, -1, 8, 8)

    material = torch.randint(len(Material), (COUNT, 1, 1, 1), generator=rng).expand(-1, -1, 8, 8)
    up = plane(1, -1, 1)
    sky = material == Material.SKY
    albedo = torch.where(sky, plane(3, 0.01, 0.6), plane(3, 0.1, 0.6))
    # A texel is brighter or darker than the surface's flat colour.
    g = GBuffer(
        albedo=albedo, flat=albedo * plane(1, 0.8, 1.2), direct=plane(1, 0, 0.6), ambient=plane(1, 0.5, 1),
        lamp=plane(3, 0, 0.3),
        normal=torch.cat([(1 - up**2).sqrt(), up, torch.zeros_like(up)], 1), facing=plane(1, 0, 1),
        depth=torch.where(sky, 1000.0, plane(1, 1, 80)), height=torch.where(sky, plane(1, 0, 100), 0.0),
        cloud=torch.where(sky, plane(1, 0, 1), 0.0), material=material.to(torch.uint8),
        ident=torch.zeros(COUNT, 1, 8, 8, dtype=torch.int16), motion=torch.zeros(COUNT, 2, 8, 8),
        visible=torch.zeros(COUNT, 1, 8, 8, dtype=torch.bool), hud=torch.zeros(COUNT, 4, 8, 8),
        cut=torch.zeros(COUNT, 1, 1, 1, dtype=torch.bool),
    )  # fmt: skip
    return g, torch.where(sky, albedo, (albedo * plain_light(g)).clamp(0, 1))


def _words(g: GBuffer, source: Tensor) -> Tensor:
    """What a network that knows these surfaces says of them: [COUNT, 1, 1, WORDS]."""
    kinds = torch.nn.functional.one_hot(g.material[:, 0, 0, 0].long(), KINDS) * 40.0
    none = torch.full((COUNT, 1), -20.0)
    at = [
        _logit(source[:, :, 0, 0]), kinds, _logit(g.direct[:, :, 0, 0]), _logit(g.ambient[:, :, 0, 0]),
        _logit(g.lamp[:, :, 0, 0] / 1.5), _logit((g.normal[:, 1:2, 0, 0] + 1) / 2), _logit(g.facing[:, :, 0, 0]),
        _logit(1 / (1 + g.depth[:, :, 0, 0] / 4)), _logit((g.height[:, :, 0, 0] / 100).clamp_min(1e-4) ** 0.6),
        _logit(g.cloud[:, :, 0, 0]), none, none, none, none,
        _logit(source[:, :, 0, 0] * g.flat[:, :, 0, 0] / g.albedo[:, :, 0, 0]) - _logit(source[:, :, 0, 0]),
    ]  # fmt: skip
    reading = torch.cat(at, 1)
    assert reading.shape[1] == SURFACE
    return torch.cat([reading.repeat(1, BINS), torch.zeros(COUNT, BINS)], 1)[:, None, None]


def _painted(words: Tensor, source: Tensor, natural: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The colour of the first reading's transform at the source's own colour, [COUNT, 3] in [0, 1], and the detail."""
    blank = torch.zeros(COUNT, 1, 1, 192)
    matrices, detail, *_ = shade_reference(words, blank, blank[..., :48], noise, torch.zeros(COUNT, 1, 1, 2), natural)
    first = matrices[:, 0, 0, :12].view(COUNT, 3, 4)
    v = source[:, :, 0, 0] * 2 - 1
    return ((first @ torch.cat([v, torch.ones(COUNT, 1)], 1)[..., None])[..., 0] + v + 1) / 2, detail


def test_its_style_layout_is_the_style_space() -> None:
    assert tuple((p.name, p.size) for p in PARAMETERS) == STYLE_LAYOUT
    plain = {p.name: torch.tensor(p.default) for p in PARAMETERS}
    assert plain["sun"] * plain["sun_colour"] == pytest.approx(PLAIN_SUN)
    assert plain["ambient"] * plain["ambient_colour"] == pytest.approx(PLAIN_AMBIENT)
    assert float(plain["lamps"]) == PLAIN_LAMP
    assert float(plain["emissive"]) * 0.9 == pytest.approx(PLAIN_GLOW)


def test_it_paints_a_known_surface_as_the_truth_does() -> None:
    rng = torch.Generator().manual_seed(0)
    g, source = _surfaces(rng)
    natural = style_tensor([random_style(rng) for _ in range(COUNT)])[0]
    for name in ("hatch", "wash", "grain", "pixels"):  # not of a surface but of its drawing
        natural[:, parameter_slice(name)] = 0
    natural[:, parameter_slice("posterize")] = 0  # steps from colour to colour on hairs that rounding decides
    truth = restyle(g, natural, torch.zeros(COUNT, 1, 4, 4), source)[:, :, 0, 0]
    painted, detail = _painted(_words(g, source), source, natural, torch.zeros(COUNT, 1, 4, 4))
    error = (painted - truth).abs().amax(1)
    assert not detail.any()
    # A band's edge that lies between two roundings is another band.
    assert float(error.quantile(0.95)) < 0.02, error.sort().values[-40:]
    assert float(error.mean()) < 0.01


@pytest.mark.parametrize("ramp", [RAMP, SOFT_RAMP])
def test_steps_hold_their_middles_and_are_steep_between_and_no_steeper(ramp: float) -> None:
    x = torch.linspace(0, 5, 5001)
    y = steps_of(x, ramp)
    rise = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
    assert float(rise.min()) >= 0
    assert float(rise.max()) == pytest.approx(0.5 / ramp, rel=0.02)
    assert float((y - x).abs().max()) <= 0.5
    flat = ((x - x.round()).abs() > ramp + 0.01) & (x < 4.5)
    assert torch.equal(y[flat], x[flat].floor() + 0.5)


def test_a_wall_near_a_step_of_bands_is_not_blotched() -> None:
    """A hundredth more of light on a surface is at most some hundredths more in bands, wherever it stands."""
    rng = torch.Generator().manual_seed(3)
    g, source = _surfaces(rng)
    style = style_tensor([random_style(rng)])[0].repeat(COUNT, 1)
    neutral = {"bands": 1.0, "contrast": 1.0} | dict.fromkeys(("exposure", "posterize", "hatch", "grain", "wash"), 0.0)
    for name, value in neutral.items():
        style[:, parameter_slice(name)] = value
    noise = torch.zeros(COUNT, 1, 4, 4)
    more = replace(g, albedo=(g.albedo.float() * 1.01).half(), flat=(g.flat.float() * 1.01).half())
    before, after = (restyle(x, style, noise, source) for x in (g, more))
    assert float((after - before).abs().max()) < 0.12


def test_what_is_kept_is_the_source() -> None:
    rng = torch.Generator().manual_seed(1)
    g, source = _surfaces(rng)
    natural = style_tensor([random_style(rng) for _ in range(COUNT)])[0]
    words = _words(g, source)
    words[..., : BINS * SURFACE].view(COUNT, BINS, SURFACE)[..., KEEP] = 20.0
    painted, detail = _painted(words, source, natural, torch.randn(COUNT, 1, 4, 4, generator=rng))
    assert torch.allclose(painted, source[:, :, 0, 0], atol=1e-4)
    assert detail.abs().max() < 1e-4


def test_marks_are_drawn_where_the_truth_has_them() -> None:
    """Grain, strokes and pigment come out of the same noise: what the detail adds goes with what the truth adds."""
    rng = torch.Generator().manual_seed(2)
    g, source = _surfaces(rng)
    noise = torch.randn(COUNT, 1, 4, 4, generator=rng)
    natural = style_tensor([random_style(rng) for _ in range(COUNT)])[0]
    marks = ("hatch", "wash", "grain")
    for name in (*marks, "posterize", "pixels", "tone", "ink", "glow", "fog"):
        natural[:, parameter_slice(name)] = 0
    without = restyle(g, natural, noise, source)
    for name in marks:
        styled = natural.clone()
        styled[:, parameter_slice(name)] = 0.8
        wanted = restyle(g, styled, noise, source) - without
        _, detail = _painted(_words(g, source), source, styled, noise)
        drawn = detail.view(COUNT, 8, 8, 3).permute(0, 3, 1, 2) / 2
        seen = (wanted.abs() > 1e-3).any(dim=1).any(dim=1).any(dim=1)
        cosine = torch.nn.functional.cosine_similarity(drawn.flatten(1), wanted.flatten(1))[seen]
        assert float(cosine.median()) > 0.8, (name, float(cosine.median()))


def test_lines_are_where_shapes_end_and_turn() -> None:
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="ij")

    def lines(inverse: Tensor) -> Tensor:
        """Of depth given by its inverse per metre, which is affine on the screen where a surface is flat."""
        return depth_lines_reference((1 / inverse)[None, None])[0, 0]

    assert lines(0.1 + 0.002 * x + 0.003 * y).max() < 1e-2, "nothing on a plane, however it lies, nor at the edge"
    # Something near from column 10 on, before a wall far away: a line on either side of where they part.
    step = lines(torch.where(x < 10, 0.02, 0.2))
    assert (step[:, 9:11] == 1).all()
    assert not torch.cat([step[:, :9], step[:, 11:]], 1).any()
    # Two walls that meet in column 12, towards the viewer and away from it, and a floor's end in row 8.
    for crease in (0.8 - 0.03 * (x - 12).abs().clamp_max(20), 0.2 + 0.01 * (x - 12).abs()):
        drawn = lines(crease)
        assert (drawn[:, 12] > 0.85).all()
        assert torch.cat([drawn[:, 1:12], drawn[:, 13:31]], 1).max() < 1e-2
    drawn = lines(0.1 + 0.01 * (y - 8).clamp_min(0))
    assert (drawn[8] == 1).all()
    assert drawn[1:8].max() < 1e-2


@pytest.mark.parametrize("where", [12.0, 12.3, 12.5, 12.8])
def test_a_corner_is_one_line_wherever_between_two_pixels_it_lies(where: float) -> None:
    x = torch.arange(64.0)
    for side in (-1, -2):
        inverse = (0.25 + 0.002 * (x - where).abs()).expand(64, 64).transpose(side, -1)
        drawn = depth_lines_reference((1 / inverse)[None, None])[0, 0].transpose(side, -1)[5]
        assert float(drawn[12:14].max()) == pytest.approx(0.004 / 0.25 * 64 - 0.45, abs=0.02)
        assert int((drawn > 0.2).sum()) == 1
        assert drawn[:11].max() < 1e-3 > drawn[15:-1].max()


def test_a_grazed_slope_that_bends_is_no_corner() -> None:
    """A hill towards the horizon bends as sharply as a corner, but goes on in its direction."""
    y = torch.arange(64.0)
    for flatter, drawn in ((0.008, 0.0), (0.0, 1.0)):
        inverse = torch.where(y < 32, 0.2 + 0.012 * (32 - y), 0.2 - flatter * (y - 32).clamp_max(20))
        field = depth_lines_reference((1 / inverse).expand(48, 64).T[None, None])[0, 0]
        assert field[30:34].amax(0).min() == drawn, "less steep, and level"


def test_there_are_no_lines_in_the_sky_and_none_of_what_is_no_depth() -> None:
    depth = torch.full((1, 1, 32, 32), 5000.0)
    depth[..., 16:, :] = 4.0
    found = depth_lines_reference(depth)[0, 0]
    assert (found[16] == 1).all()
    assert not torch.cat([found[:16], found[17:]]).any()
    for value in (torch.nan, torch.inf):
        spoilt = depth.clone()
        spoilt[..., :16, :] = value
        assert torch.equal(depth_lines_reference(spoilt)[0, 0], found)
    for value in (0.0, -3.0):
        spoilt[..., :] = value
        assert not depth_lines_reference(spoilt).any(), "all of it is as near as can be"


def test_the_same_corner_is_the_same_line_at_every_resolution() -> None:
    drawn = []
    for rows in (90, 180, 360):
        x = (torch.arange(rows * 2.0) - rows) / rows
        inverse = (0.3 - 0.13 * x.abs().clamp_max(0.2)).expand(1, 1, rows, -1)
        drawn.append(float(depth_lines_reference(1 / inverse).max()))
    assert 0.3 < drawn[1] < 0.9
    assert drawn == pytest.approx([drawn[1]] * 3, abs=0.02)


def test_lines_are_as_wide_as_the_style_has_them_and_shine_two_points_far() -> None:
    lines = torch.zeros(3, 1, 7, 9)
    lines[..., 4] = 1.0
    dark, bright = trace_lines_reference(lines, torch.tensor([0.0, 0.5, 1.0])).unbind(1)
    for wide, row in zip((0.0, 0.5, 1.0), dark[:, 3], strict=True):
        assert row.tolist() == [0, 0, 0, wide, 1, wide, 0, 0, 0]
    expected = [0, 0, 0.7 / 3, 1.4 / 3, 1, 1.4 / 3, 0.7 / 3, 0, 0]
    assert bright[0, 3].tolist() == pytest.approx(expected)
    assert torch.equal(bright[0], bright[2])


def test_lines_between_their_points_stay_dark_in_the_middle_and_white_beside() -> None:
    traced = torch.zeros(1, 2, 8, 8)
    traced[..., 3] = 1.0
    row = spread_lines(traced, 16, 16)[0, 0, 8]
    assert row.tolist() == pytest.approx([0, 0, 0, 0, 0, 1 / 6, 5 / 6, 5 / 6, 1 / 6, 0, 0, 0, 0, 0, 0, 0], abs=1e-6)


def test_pens_draw_as_the_style_says_and_as_far_as_the_words_do_where_nobody_knows() -> None:
    rng = torch.Generator().manual_seed(3)
    g, source = _surfaces(rng)
    natural = style_tensor([random_style(rng) for _ in range(COUNT)])[0]
    words, noise, blank = _words(g, source), torch.zeros(COUNT, 1, 4, 4), torch.zeros(COUNT, 1, 1, 192)
    ink, glow = natural[:, parameter_slice("ink")][:, 0], natural[:, parameter_slice("glow")][:, 0]

    def pens(words: Tensor, there: float) -> Tensor:
        covered = torch.full((COUNT, 1, 1, 2), there)
        return shade_reference(words, blank, blank[..., :48], noise, covered, natural)[3][:, 0, 0]

    certain = pens(words, -1.0)
    assert torch.allclose(certain[:, 0], 1.1 * ink)
    assert torch.allclose(certain[:, 1], glow)
    assert torch.allclose(certain[:, 2:5], natural[:, parameter_slice("ink_colour")] * 2 - 1)
    assert torch.allclose(certain[:, 5:], natural[:, parameter_slice("glow_colour")] * 2)
    for said, drawn in ((0.0, 0.0), (0.05, 0.2), (0.2, 0.8), (0.25, 1.0), (0.9, 1.0)):
        told = words.clone()
        lines = told[..., : BINS * SURFACE].view(COUNT, BINS, SURFACE)
        lines[..., [KEEP - 3, KEEP - 1]] = torch.tensor(said).logit().clamp(-30, 30)
        found = pens(told, 0.25)
        assert torch.allclose(found[:, :2], drawn * certain[:, :2], atol=2e-3), said
    kept = words.clone()
    kept[..., : BINS * SURFACE].view(COUNT, BINS, SURFACE)[..., KEEP] = 20.0
    assert pens(kept, -1.0)[:, :2].abs().max() < 1e-5

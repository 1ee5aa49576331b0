"""The program in the head is the one that draws the truths: told what is there, it paints what they show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mirage_kernels.lines import depth_lines_reference
from mirage_kernels.shade import (
    BINS,
    KINDS,
    PLAIN_AMBIENT,
    PLAIN_GLOW,
    PLAIN_LAMP,
    PLAIN_SUN,
    STYLE_LAYOUT,
    SURFACE,
    shade_reference,
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
    albedo = plane(3, 0.1, 0.6)
    g = GBuffer(
        albedo=albedo, flat=albedo, direct=plane(1, 0, 0.6), ambient=plane(1, 0.5, 1), lamp=plane(3, 0, 0.3),
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
    ]  # fmt: skip
    reading = torch.cat(at, 1)
    assert reading.shape[1] == SURFACE
    return torch.cat([reading.repeat(1, BINS), torch.zeros(COUNT, BINS)], 1)[:, None, None]


def _painted(
    words: Tensor, source: Tensor, natural: Tensor, noise: Tensor, lines: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The colour of the first reading's transform at the source's own colour, [COUNT, 3] in [0, 1], and the detail.

    Without `lines` there is no depth.
    """
    blank = torch.zeros(COUNT, 1, 1, 192)
    lines = torch.full_like(noise, -1.0) if lines is None else lines
    matrices, detail, _ = shade_reference(words, blank, blank[..., :48], noise, lines, natural)
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


def test_what_is_kept_is_the_source() -> None:
    rng = torch.Generator().manual_seed(1)
    g, source = _surfaces(rng)
    natural = style_tensor([random_style(rng) for _ in range(COUNT)])[0]
    words = _words(g, source)
    words[..., : BINS * SURFACE].view(COUNT, BINS, SURFACE)[..., -1] = 20.0
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
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    given = torch.ones(1)

    def lines(inverse: Tensor) -> Tensor:
        """Of depth given by its inverse per metre, which is affine on the screen where a surface is flat."""
        return depth_lines_reference((1 / (1 + 1 / inverse / 4))[None, None], given)[0, 0]

    tilted = 0.1 + 0.002 * x + 0.003 * y
    assert lines(tilted)[1:-1, 1:-1].max() < 1e-2, "nothing on a plane, however it lies"
    assert lines(0.2 + 0.001 * x + 0.002 * y).max() < 1e-2, "nor at the frame's edge, where it is not steep"
    # Something near from column 10 on, before a wall far away: its own edge is a line, what it hides has none.
    step = lines(torch.where(x < 10, 0.02, 0.2))
    assert (step[:, 10] == 1).all()
    assert not torch.cat([step[:, :10], step[:, 11:]], 1).any()
    # Two walls that meet in column 12, towards the viewer and away from it, and a floor's end in row 8.
    for crease in (0.2 - 0.01 * (x - 12).abs(), 0.2 + 0.01 * (x - 12).abs()):
        drawn = lines(crease)
        assert (drawn[:, 12] == 1).all()
        assert torch.cat([drawn[:, 1:12], drawn[:, 13:-1]], 1).max() < 1e-2
    drawn = lines(0.1 + 0.01 * (y - 8).clamp_min(0))
    assert (drawn[8] == 1).all()
    assert drawn[1:8].max() < 1e-2
    none = depth_lines_reference(tilted.expand(2, 1, 16, 24), torch.tensor([0.0, 1.0]))
    assert (none[0] == -1).all()
    assert (none[1] >= 0).all()


def test_with_depth_ink_and_shine_are_marks_along_its_lines() -> None:
    rng = torch.Generator().manual_seed(3)
    g, source = _surfaces(rng)
    natural = style_tensor([random_style(rng) for _ in range(COUNT)])[0]
    for name in ("hatch", "wash", "grain", "ink_detail"):
        natural[:, parameter_slice(name)] = 0
    natural[:, parameter_slice("ink")] = 1
    natural[:, parameter_slice("ink_width")] = 0.5
    natural[:, parameter_slice("glow")] = 0
    words, noise = _words(g, source), torch.zeros(COUNT, 1, 4, 4)
    plain, _ = _painted(words, source, natural, noise)
    loud = words.clone()
    loud[..., : BINS * SURFACE].view(COUNT, BINS, SURFACE)[..., [-4, -2]] = 20.0  # line and shine
    lines = torch.zeros(COUNT, 1, 4, 4)
    lines[:, :, :, 1] = 1.0
    ink = natural[:, parameter_slice("ink_colour")]
    painted, detail = _painted(loud, source, natural, noise, lines)
    assert torch.allclose(painted, plain, atol=1e-4), "the readings themselves have none"
    marks = detail.view(COUNT, 8, 8, 3)[:, 4] / 2
    assert torch.allclose(marks[:, 2:4], (ink - plain)[:, None].expand(-1, 2, -1), atol=1e-4)
    beside = torch.tensor([0.5, 2 / 3, 2 / 3, 1 / 3])[:, None] * 1.1
    assert torch.allclose(marks[:, [0, 1, 4, 5]], beside * marks[:, 2:3], atol=1e-4), "as wide as the style has it"
    assert not marks[:, 6:].any()
    natural[:, parameter_slice("ink")] = 0
    natural[:, parameter_slice("glow")] = 0.4
    _, detail = _painted(loud, source, natural, noise, lines)
    marks = detail.view(COUNT, 8, 8, 3)[:, 4] / 2
    glow = 0.4 * natural[:, parameter_slice("glow_colour")]
    assert torch.allclose(marks[:, 2], 0.875 * glow, atol=1e-4)
    assert torch.allclose(marks[:, 1], 0.625 * glow, atol=1e-4)


def test_without_depth_as_much_of_what_colours_show_is_drawn_as_the_words_say() -> None:
    rng = torch.Generator().manual_seed(3)
    g, source = _surfaces(rng)
    natural = style_tensor([random_style(rng) for _ in range(COUNT)])[0]
    for name in ("hatch", "wash", "grain", "ink_detail", "ink_width", "glow"):
        natural[:, parameter_slice(name)] = 0
    natural[:, parameter_slice("ink")] = 1
    words, noise = _words(g, source), torch.zeros(COUNT, 1, 4, 4)
    lines = torch.full((COUNT, 1, 4, 4), -1.0)
    lines[:, :, :, 1] = -2.0  # a quarter of the cell
    _, certain = _painted(words, source, natural, noise, -1 - lines)
    assert certain.abs().amax() > 0.1
    for said, drawn in ((0.0, 0.0), (0.05, 0.2), (0.2, 0.8), (0.25, 1.0), (0.9, 1.0)):
        told = words.clone()
        told[..., : BINS * SURFACE].view(COUNT, BINS, SURFACE)[..., -4] = torch.tensor(said).logit().clamp(-30, 30)
        _, detail = _painted(told, source, natural, noise, lines)
        middle = (detail.view(COUNT, 8, 8, 3)[:, 4, 2], certain.view(COUNT, 8, 8, 3)[:, 4, 2])
        assert torch.allclose(middle[0], drawn * middle[1], atol=2e-3), said
    _, detail = _painted(words, source, natural, noise)
    assert not detail.any(), "where no colours part there is no line"

"""The paired worlds: the same from a seed, finite, exact in motion, never in the held-out region."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial

import pytest
import torch

from mirage_plugin.styles import load_style, preset_names
from mirage_plugin.styles.parameters import Style, parameter_slice
from mirage_plugin.train.batch import clip_noise, draw_batch, offered, render_pair
from mirage_plugin.train.endurance import loop_clip
from mirage_plugin.train.metrics import warp_back
from mirage_plugin.train.pool import draw_clip
from mirage_plugin.train.worlds import (
    FAMILIES,
    SKY_DEPTH,
    GBuffer,
    Material,
    draw_source,
    held_out,
    of_looks,
    random_look,
    random_style,
    restyle,
)
from mirage_plugin.train.worlds.program import as_shown, coarse_as
from mirage_plugin.train.worlds.raycast import FLAT_UP, LEVEL_SUN, draw_hud
from mirage_plugin.train.worlds.styles import style_tensor


def same(a: GBuffer, b: GBuffer) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(GBuffer))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_finite_and_within_its_ranges(family: str) -> None:
    g = draw_clip(11, 2, 64, 96, family)
    for f in fields(GBuffer):
        plane = getattr(g, f.name)
        assert bool(plane.float().isfinite().all()), f.name
        assert plane.shape[0] == 2, f.name
    for name in ("albedo", "flat", "direct", "ambient", "facing", "cloud", "hud"):
        plane = getattr(g, name).float()
        assert -1e-3 <= float(plane.min()) <= float(plane.max()) <= 1 + 1e-3, name
    assert 0 < float(g.depth.min()) <= float(g.depth.max()) <= SKY_DEPTH
    assert torch.allclose(g.normal.float().norm(dim=1), torch.ones(2, 64, 96), atol=0.01)
    assert bool(g.cut[0])
    assert not bool(g.visible[0].any())


def test_a_seed_gives_the_same_clip_and_another_another() -> None:
    first = draw_clip(3, 2, 48, 96)
    assert same(first, draw_clip(3, 2, 48, 96))
    assert not same(first, draw_clip(4, 2, 48, 96))


def test_a_batch_is_the_same_from_the_same_generator() -> None:
    def draw(seed: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(seed)
        batch = draw_batch(lambda _: draw_clip(5, 2, 64, 96), rng, size=1, frames=2, height=32, width=64)
        assert batch.source.shape == batch.truth.shape == (2, 1, 3, 32, 64)
        assert bool(batch.truth.isfinite().all())
        return batch.truth

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("family", ["town", "landscape", "abstract", "corridor"])
def test_motion_says_where_every_surface_was(family: str) -> None:
    g = loop_clip(21, family, 24, 40, 96)
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(96.0), indexing="ij")
    for t in (1, 4, 8):
        motion, seen = g.motion[t : t + 1].float(), g.visible[t, 0]
        # The object that stood there is the one that stands here.
        y = (rows + motion[0, 1]).round().clamp(0, 39).long()
        x = (columns + motion[0, 0]).round().clamp(0, 95).long()
        assert float((g.ident[t - 1, 0][y, x] == g.ident[t, 0])[seen].float().mean()) > 0.97
        # Its texture is where the motion says, and not half or twice as far away.
        off = {}
        for scale in (0.0, 0.5, 1.0, 1.5, 2.0):
            then = warp_back(g.albedo[t - 1 : t].float(), motion * scale)
            off[scale] = float((g.albedo[t : t + 1].float() - then).abs().mean(1)[0][seen].mean())
        assert min(off, key=lambda scale: off[scale]) == 1.0, off


def test_a_loop_closes() -> None:
    g = loop_clip(31, "town", 8, 48, 96)
    # The first frame's predecessor is the last one, and no other.
    off = []
    for before in (-1, 1, 4):
        then = warp_back(g.albedo[before].float()[None], g.motion[:1].float())
        off.append(float((g.albedo[:1].float() - then).abs().mean(1, keepdim=True)[g.visible[:1]].mean()))
    assert off[0] < 0.8 * min(off[1:]), off
    assert not bool(g.cut.any())


def test_training_never_sees_the_held_out_region() -> None:
    rng = torch.Generator().manual_seed(0)
    assert not any(held_out(random_style(rng)) for _ in range(150))
    assert all(held_out(random_style(rng, only_held_out=True)) for _ in range(20))


def test_every_preset_is_finite_on_every_family() -> None:
    styles = [load_style(name) for name in preset_names()]
    natural, _ = style_tensor(styles)
    for seed, family in enumerate(FAMILIES):
        g = draw_clip(seed, 1, 32, 96, family)
        many = GBuffer.cat([g] * len(styles))
        source = torch.rand(len(styles), 3, 32, 96)
        truth = restyle(many, natural, clip_noise(g, 1).expand(len(styles), -1, -1, -1), source)
        assert bool(truth.isfinite().all()), family
        assert 0 <= float(truth.min()) <= float(truth.max()) <= 1, family


def test_snow_lies_on_the_ground_and_lit_windows_are_lit() -> None:
    def open_ground(g: GBuffer) -> torch.Tensor:
        return (g.normal[:, 1:2] > 0.9) & (g.material == 1) & (g.hud[:, 3:] == 0) & (g.depth < 30)

    clips = (draw_clip(seed, 1, 96, 160, "town") for seed in range(11, 60))
    g = next(clip for clip in clips if int(open_ground(clip).sum()) > 500)
    noise, rng = clip_noise(g, 1), torch.Generator().manual_seed(1)
    source, snow, _ = render_pair(g, [load_style("snow")], noise, rng)
    ground = open_ground(g)
    assert (
        float(snow.mean(1, keepdim=True)[ground].mean())
        > float(source.mean(1, keepdim=True)[ground].mean()) + 0.2
    )


def test_a_sky_that_is_all_but_black_stays_so_and_its_stars_too() -> None:
    """What is black is space or a page as often as a sky by night; a bright sky is the style's."""
    clips = (draw_clip(seed, 1, 64, 96, "landscape") for seed in range(11, 60))
    g = next(clip for clip in clips if int((clip.material == Material.SKY).sum()) > 3000)
    g = replace(g, hud=torch.zeros_like(g.hud), cloud=torch.zeros_like(g.cloud))
    snow = style_tensor([load_style("snow")])[0]
    sky = (g.material == Material.SKY).expand(-1, 3, -1, -1)
    quiet = torch.zeros(1, 1, 32, 48)
    black = torch.full((1, 3, 64, 96), 0.02)
    black[..., ::7, ::7] = 0.9
    mean = {
        name: float(restyle(g, snow, quiet, shown)[sky].mean())
        for name, shown in (("black", black), ("bright", torch.full_like(black, 0.5)))
    }
    assert mean["black"] < 0.25 < 0.6 < mean["bright"], mean


def test_what_lies_on_things_has_softer_shadows_than_they_have() -> None:
    g = draw_clip(31, 1, 64, 96, "top", whole=True)
    lies = (g.normal[:, 1:2] == FLAT_UP) & (g.hud[:, 3:] == 0)
    lit, shade = lies & (g.direct > 0.5), lies & (g.direct == 0)
    one = replace(g, albedo=torch.full_like(g.albedo, 0.4), flat=torch.full_like(g.flat, 0.4))
    natural = style_tensor([load_style("snow")])[0].repeat(2, 1)
    natural[:, parameter_slice("cover")] = torch.tensor([0.0, 1.0])[:, None]
    truth = restyle(GBuffer.cat([one] * 2), natural, torch.zeros(2, 1, 32, 48), torch.zeros(2, 3, 64, 96)).mean(1)
    bare, snow = (float(picture[lit[0, 0]].mean() / picture[shade[0, 0]].mean()) for picture in truth)
    assert snow < bare


@pytest.mark.parametrize("seed", range(16))
def test_flat_pictures_move_in_whole_pixels_and_are_of_one_light(seed: int) -> None:
    g = draw_clip(40 + seed, 4, 64, 112, "flat", whole=True)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(112), indexing="ij")
    for t in range(1, 4):
        motion, seen = g.motion[t].float(), g.visible[t, 0]
        assert torch.equal(motion, motion.round())
        if bool(g.cut[t]):
            assert not bool(seen.any())
            continue
        assert seen.float().mean() > 0.8
        y, x = (rows + motion[1].long()).clamp(0, 63), (columns + motion[0].long()).clamp(0, 111)
        same_colour = (g.albedo[t - 1][:, y, x] == g.albedo[t]).all(0)
        assert float(same_colour[seen].float().mean()) > 0.99  # an edge may lie on a pixel's middle
    solid = g.material != Material.SKY
    textured = (g.flat != g.albedo).any(1, keepdim=True)
    for number in g.ident[0][textured[0]].unique():
        assert len(g.flat[0].permute(1, 2, 0)[(textured[0] & (g.ident[0] == number))[0]].unique(dim=0)) == 1
    assert bool((g.direct[solid] == g.direct[solid][0]).all())


@pytest.mark.parametrize("seed", range(4))
def test_what_lies_level_in_the_sun_has_as_much_of_it_whatever_the_hour(seed: int) -> None:
    g = draw_clip(30 + seed, 1, 96, 160, "top", whole=True)
    level = (g.normal[:, 1:2] == FLAT_UP) & (g.direct > 0)
    assert level.float().mean() > 0.1
    assert torch.allclose(g.direct[level].float(), torch.tensor(LEVEL_SUN), atol=2e-3)
    assert float(g.direct.max()) <= 1


def test_a_coarse_game_keeps_its_pixels_in_every_style() -> None:
    rng = torch.Generator().manual_seed(4)
    looks = [replace(random_look(rng), pixels=size, blur=False, noise=0.0, texture=1.0) for size in (1, 2, 3)]
    g = draw_clip(7, 1, 96, 144, "town")
    every = replace(GBuffer.cat([g] * 3), hud=torch.zeros(3, 4, 96, 144, dtype=g.hud.dtype))
    natural, _ = style_tensor([load_style("desert")] * 3)
    source, clean = draw_source(every, looks, torch.zeros(3, 1, 96, 144))
    noise = clip_noise(g, 1).expand(3, -1, -1, -1)
    truth = restyle(as_shown(every, clean), natural, noise, source, partial(coarse_as, looks))
    for picture in (source, truth):
        for i, size in enumerate((1, 2, 3)):
            blocks = picture[i].unfold(1, size, size).unfold(2, size, size)
            assert bool((blocks == blocks[..., :1, :1]).all()), size
        # Finer than a block of two, the first game shows what the others do not.
        fine = picture[:, :, ::2] - picture[:, :, 1::2]
        assert float(fine[0].abs().mean()) > 0.001


def test_a_game_of_faint_textures_has_flat_colours_that_are_flat() -> None:
    rng = torch.Generator().manual_seed(2)
    look = replace(random_look(rng), texture=0.3, outline=0.0, contrast=1.0, exposure=0.0, saturation=1.0)
    g = of_looks([look], draw_clip(11, 1, 96, 160, "interior"))
    _, clean = draw_source(g, [look], torch.zeros(1, 1, 96, 160))
    shown = as_shown(g, clean)
    inside = (g.ident[..., 1:] == g.ident[..., :-1]) & (g.material[..., 1:] == 3)

    def roughness(x: torch.Tensor) -> float:
        """How much a colour differs from its neighbour's, by its part, on one surface."""
        steps = (x[..., 1:] - x[..., :-1]).abs() / (x[..., 1:] + x[..., :-1] + 0.05)
        return float(steps.mean(1, keepdim=True)[inside].mean())

    assert int(inside.sum()) > 500
    assert roughness(shown.flat.float()) < 0.35 * roughness(shown.albedo.float())


def test_a_night_is_lit_by_no_lamp_that_the_game_does_not_show() -> None:
    """Two games of one room: where one is lit by its lamps and the other is not, so are their nights."""
    rng = torch.Generator().manual_seed(2)
    plain = replace(random_look(rng), texture=1.0, outline=0.0, contrast=1.0, exposure=0.0, saturation=1.0)
    room = draw_clip(22, 1, 96, 160, "interior")
    natural, _ = style_tensor([Style.make("night", {"sun": 0.0, "ambient": 0.2, "lamps": 1.8})])
    near = (room.lamp.float().mean(1) + 0.05).log()[(room.material == 3)[:, 0]]
    gains = []
    for lamps in (0.0, 0.3, 1.0):
        look = replace(plain, ambient=0.6, lamps=lamps)
        g = of_looks([look], room)
        source, clean = draw_source(g, [look], torch.zeros(1, 1, 96, 160))
        truth = restyle(as_shown(g, clean), natural, torch.zeros(1, 1, 48, 80), source)
        change = ((truth.mean(1) + 0.02) / (clean.mean(1) + 0.02)).log()[(g.material == 3)[:, 0]]
        # How much more the walls near a lamp have of it than those far away.
        gains.append(float(torch.cov(torch.stack([near, change]))[0, 1] / near.var()))
    assert abs(gains[0]) < 0.15 * gains[2]
    assert 0.3 * gains[2] < gains[1] < 0.7 * gains[2]


def test_an_engine_offers_a_plane_always_never_or_now_and_then() -> None:
    rng = torch.Generator().manual_seed(0)
    many = torch.stack([offered(rng, 6) for _ in range(300)])
    shares = many.mean(1)
    for kind in (shares == 0, shares == 1, (shares > 0) & (shares < 1)):
        assert 0.2 < float(kind.float().mean()) < 0.5
    assert {float(offered(rng, 1)) for _ in range(20)} == {0.0, 1.0}


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (160, 224)])
def test_overlays_are_colours_and_how_much_they_cover(size: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(2)
    drawn = [draw_hud(rng, *size, often=True) for _ in range(60)]
    assert all(hud.shape == (4, *size) and hud.isfinite().all() for hud in drawn)
    assert all(float(hud.min()) >= 0 and float(hud.max()) <= 1 for hud in drawn)
    some = [hud for hud in drawn if hud.any()]
    assert 20 <= len(some) < 60
    if size == (160, 224):
        assert sum(float((hud[3] > 0.5).float().mean()) < 0.15 for hud in some) > len(some) / 2, "text, not curtains"
        bright = [float(hud[:3].max()) for hud in some if (hud[3] > 0.9).any()]
        assert sum(value > 0.85 for value in bright) > len(bright) / 2


def test_each_use_of_a_clip_has_another_overlay() -> None:
    clip, rng = draw_clip(5, 2, 64, 96), torch.Generator().manual_seed(1)
    masks = [draw_batch(lambda _: clip, rng, size=2, frames=2, height=64, width=96).mask[:, :, 0] for _ in range(4)]
    assert len({mask.sum().item() for mask in masks}) > 2
    assert all(torch.equal(mask[0], mask[1]) for mask in masks), "it stands while the game moves"


def test_a_picture_tells_what_things_are_of() -> None:
    """What no picture tells nobody can learn: a hedge of tiles, a crate of planks that glows, a pane that is none."""
    panes = 0
    for seed in range(12):
        scene = draw_clip(seed, 1, 96, 160, "abstract", whole=True)
        albedo, glows = scene.albedo.float(), scene.material == Material.EMISSIVE
        if glows.any():
            assert float(albedo.amax(1, keepdim=True)[glows].mean()) > 0.75
        panes += int((scene.material == Material.WINDOW).sum())
        above = draw_clip(seed, 1, 96, 160, "top", whole=True)
        hedge = (above.material == Material.FOLIAGE)[:, 0]
        if hedge.any():
            red, green, blue = above.albedo.float().permute(1, 0, 2, 3)[:, hedge].mean(1).tolist()
            assert blue < min(0.45, max(red, green))
    assert panes > 100

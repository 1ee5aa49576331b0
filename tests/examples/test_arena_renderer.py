"""Depth is where the ray meets the world, and motion points at where a surface was."""

import sys
from pathlib import Path

import numpy as np
import pytest
from arena.bake import SUN
from arena.gbuffer import HAZE_COLOUR, GBuffer
from arena.native import load_raycaster
from arena.play import Game
from arena.renderer import FAR_M, Camera, Planes, Renderer, View
from arena.textures import Material
from arena.world import OPEN, ROOF, World
from walks import SIZE, Walk


def project(renderer: Renderer, camera: Camera, points: np.ndarray) -> np.ndarray:
    """World points [..., 3] on the screen of a camera, by the book: (x, y) in pixels."""
    d = points.astype(np.float64) - (camera.x, camera.y, camera.z)
    ahead = d[..., 0] * np.sin(camera.yaw) + d[..., 2] * np.cos(camera.yaw)
    right = d[..., 0] * np.cos(camera.yaw) - d[..., 2] * np.sin(camera.yaw)
    f = renderer.focal
    x = renderer.width / 2 + f * right / ahead
    y = renderer.height / 2 + f * np.tan(camera.pitch) - f * d[..., 1] / ahead
    return np.stack([x, y], -1)


def pixel_centres(size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    return np.stack([x + 0.5, y + 0.5], -1)


def march(world: World, camera: Camera, renderer: Renderer, x: float, y: float) -> float:
    """View depth at which the ray through a screen point enters something solid, by small steps."""
    slope = (x - renderer.width / 2) / renderer.focal
    rise = (renderer.height / 2 + np.tan(camera.pitch) * renderer.focal - y) / renderer.focal
    z = np.arange(0.12, 70, 0.004)
    px = camera.x + z * (np.sin(camera.yaw) + slope * np.cos(camera.yaw))
    pz = camera.z + z * (np.cos(camera.yaw) - slope * np.sin(camera.yaw))
    py = camera.y + z * rise
    inside = (px > 0) & (px < world.width) & (pz > 0) & (pz < world.depth)
    cell = np.where(inside, pz.astype(int) * world.width + px.astype(int), 0)
    solid = inside & (
        (py < world.low[cell]) | ((py > world.high[cell]) & (py < ROOF) & (world.high[cell] < OPEN))
    )
    hit = np.flatnonzero(solid)
    return float(z[hit[0]]) if hit.size else FAR_M


def test_depth_is_where_the_ray_meets_the_world(walk: Walk) -> None:
    rng = np.random.default_rng(0)
    wrong = []
    for _, _, view, frame in walk.pairs:
        for _ in range(40):
            y, x = int(rng.integers(SIZE[1])), int(rng.integers(SIZE[0]))
            if frame.ident[y, x]:
                continue
            # A step may jump over a corner: at an edge a ray half a pixel aside must agree.
            drawn = float(frame.depth[y, x])
            for dx, dy in ((0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)):
                found = march(walk.renderer.world, view.camera, walk.renderer, x + 0.5 + dx, y + 0.5 + dy)
                if abs(found - drawn) < 0.02 + 0.002 * found:
                    break
            else:
                wrong.append((x, y, found, drawn))
    assert not wrong


def test_motion_of_the_world_is_the_projection_of_its_points(walk: Walk) -> None:
    here = pixel_centres(SIZE)
    for _, _, view, frame in walk.pairs:
        world = (frame.ident == 0) & ~frame.sky
        assert np.abs(project(walk.renderer, view.camera, frame.position) - here)[world].max() < 0.01
        expected = project(walk.renderer, view.before, frame.position) - here
        near = world & (np.abs(expected) < 64).all(-1)
        assert np.abs(frame.motion - expected)[near].max() < 0.02


def test_motion_of_the_sky_is_rotation_alone(walk: Walk) -> None:
    seen = 0
    for _, _, view, frame in walk.pairs:
        if not frame.sky.any():
            continue
        seen += 1
        camera, before = view.camera, view.before
        turned = Camera(camera.x, camera.y, camera.z, before.yaw, before.pitch)
        expected = project(walk.renderer, turned, frame.position) - pixel_centres(SIZE)
        assert np.abs(frame.motion - expected)[frame.sky].max() < 0.02
    assert seen


def test_the_frame_before_is_found_along_the_motion(walk: Walk) -> None:
    """What is seen in both frames is the same point of the world, to within the pixel it was rounded to."""
    shares = []
    for _, before, view, now in walk.pairs:
        there = pixel_centres(SIZE) + now.motion
        x, y = np.floor(there[..., 0]).astype(int), np.floor(there[..., 1]).astype(int)
        inside = (x >= 0) & (x < SIZE[0]) & (y >= 0) & (y < SIZE[1]) & (now.ident == 0) & ~now.sky
        x, y = x.clip(0, SIZE[0] - 1), y.clip(0, SIZE[1] - 1)
        # The point lies within half a pixel of the centre that was sampled.
        same = np.linalg.norm(before.position[y, x] - now.position, axis=-1)
        slant = np.abs((now.normal * _to_eye(now, view)).sum(-1)).clip(0.02)
        pixel = now.depth / walk.renderer.focal / slant
        shares.append(float((same < 0.02 + 2.0 * pixel)[inside].mean()))
        # Colours agree as well as nearest-texel sampling lets them.
        close = np.abs(before.source[y, x, :3].astype(int) - now.source[..., :3]).max(-1) < 40
        assert close[inside].mean() > 0.75
    assert min(shares) > 0.96, shares


def _to_eye(frame: GBuffer, view: View) -> np.ndarray:
    toward = (view.camera.x, view.camera.y, view.camera.z) - frame.position
    return toward / np.linalg.norm(toward, axis=-1, keepdims=True)


def test_sprites_are_found_along_their_own_motion(walk: Walk) -> None:
    checked = 0
    for old, before, view, now in walk.pairs:
        picture = {sprite.ident: sprite.art for sprite in old.sprites}
        changed = {sprite.ident for sprite in view.sprites if picture.get(sprite.ident) != sprite.art}
        there = pixel_centres(SIZE) + now.motion
        x, y = np.floor(there[..., 0]).astype(int), np.floor(there[..., 1]).astype(int)
        inside = (x >= 2) & (x < SIZE[0] - 2) & (y >= 2) & (y < SIZE[1] - 2)
        for ident in np.unique(now.ident[now.ident > 0]):
            mine = (now.ident == ident) & inside
            if mine.sum() < 60 or (before.ident == ident).sum() < 60 or int(ident) in changed:
                continue
            checked += 1
            # Thin things are lost by half a pixel: a neighbour counts as well.
            was = np.pad(before.ident == ident, 1)
            around = [was[a : a + SIZE[1], b : b + SIZE[0]] for a in range(3) for b in range(3)]
            wide = np.logical_or.reduce(around)
            assert wide[y[mine], x[mine]].mean() > 0.9, ident
    assert checked >= 4


def test_moving_sprites_move_by_their_own_way(walk: Walk) -> None:
    """The foot of every visible sprite projects to where the motion says it was."""
    here = pixel_centres(SIZE)
    moved = 0
    for _, _, view, now in walk.pairs:
        for sprite in view.sprites:
            mine = now.ident == sprite.ident
            if mine.sum() < 30:
                continue
            at = np.array((sprite.x, sprite.y, sprite.z))
            shift = np.array(sprite.before) - at
            moved += bool(np.abs(shift).max() > 0)
            points = now.position[mine]
            # A billboard faces both cameras: its points turn with the camera and travel with the foot.
            offset = points - at
            c, b = view.camera, view.before
            right = offset[:, 0] * np.cos(c.yaw) - offset[:, 2] * np.sin(c.yaw)
            old = np.stack([right * np.cos(b.yaw), offset[:, 1], -right * np.sin(b.yaw)], -1) + at + shift
            expected = project(walk.renderer, b, old) - here[mine]
            assert np.abs(now.motion[mine] - expected).max() < 0.05
    assert moved


def test_half_precision_motion_is_rounded_not_cut(walk: Walk) -> None:
    _, _, view, frame = walk.pairs[2]
    pixels = np.empty((SIZE[1], SIZE[0], 4), np.uint8)
    half = np.empty((SIZE[1], SIZE[0], 2), np.float16)
    walk.renderer.draw(view, pixels, Planes(motion=half))
    exact = frame.motion.astype(np.float64)
    allowed = np.maximum(np.abs(exact) * 2.0**-11, 2.0**-14)
    assert (np.abs(half.astype(np.float64) - exact) <= allowed * 1.01).all()
    assert (pixels == frame.source).all()


def test_albedo_light_and_haze_make_the_picture(walk: Walk) -> None:
    for _, _, _, frame in walk.pairs:
        lit = frame.albedo * frame.light
        made = lit * (1 - frame.haze[..., None]) + HAZE_COLOUR * frame.haze[..., None]
        made = np.where(frame.sky[..., None], frame.albedo, made).clip(0, 1) * 255
        assert np.abs(made - frame.source[..., :3]).mean() < 2
        assert (frame.source[..., 3] == 255).all()


def test_the_light_is_told_apart_into_sun_lamps_and_what_is_around(walk: Walk) -> None:
    lit = shaded = lamplit = 0
    for _, _, _, frame in walk.pairs:
        world = ~frame.sky & (frame.ident == 0) & (frame.material != Material.EMISSIVE)
        whole = world & (frame.light.max(-1) < 1.9)
        around = frame.light - frame.sun - frame.lamps
        assert around[whole].min() > -0.04
        assert (frame.sun >= 0).all()
        assert (frame.lamps >= 0).all()
        # The sun stands in the south: what faces away from it has none of it, whatever stands around.
        away = world & (frame.normal @ SUN < -0.1)
        assert frame.sun[away].max(initial=0) == 0
        lit += int((frame.sun[world].max(-1) > 0.3).sum())
        shaded += int((frame.sun[world].max(-1) == 0).sum())
        lamplit += int((frame.lamps[world].max(-1) > 0.3).sum())
    assert min(lit, shaded, lamplit) > 1000


def test_a_tile_has_one_colour_without_its_texture(walk: Walk) -> None:
    ground = [frame.material == Material.GROUND for _, _, _, frame in walk.pairs]
    flat, albedo = (
        np.concatenate([getattr(pair[3], name)[seen] for pair, seen in zip(walk.pairs, ground, strict=True)])
        for name in ("flat", "albedo")
    )
    assert len(flat) > 10_000
    colours, count = np.unique((flat * 255).round(), axis=0, return_counts=True)
    # Where two tiles meet, distant texels are of both.
    assert np.sort(count)[-12:].sum() > 0.95 * len(flat)
    assert len(np.unique((albedo * 255).round(), axis=0)) > 20 * len(colours)
    assert abs(flat.mean() - albedo.mean()) < 0.03


def test_mask_material_and_normals_agree(walk: Walk) -> None:
    for _, _, _, frame in walk.pairs:
        assert ((frame.mask == 3) == frame.sky).all()
        assert ((frame.mask == 2) == (frame.ident > 0)).all()
        assert (np.isclose(np.linalg.norm(frame.normal, axis=-1), 1) == ~frame.sky).all()
        assert (frame.depth[frame.sky] == FAR_M).all()
        water = frame.material == Material.WATER
        assert np.allclose(frame.position[water][:, 1], -0.25, atol=0.01)


@pytest.mark.parametrize("size", [(17, 16), (641, 359), (96, 400), (1400, 40)])
def test_odd_sizes_are_drawn_whole(size: tuple[int, int]) -> None:
    """Every pixel is written, and a frame of another size shows the same world."""
    game = Game(7, everything=True)
    game.step(game.autopilot())
    renderer = game.renderer(*size)
    pixels = np.zeros((size[1], size[0], 4), np.uint8)
    renderer.draw(game.view(), pixels)
    assert (pixels[..., 3] == 255).all()
    depth = np.empty((size[1], size[0]), np.float32)
    renderer.draw(game.view(), pixels, Planes(depth=depth))
    assert (depth > 0).all()
    assert (depth <= FAR_M).all()


def test_a_padded_frame_gets_the_same_picture(walk: Walk) -> None:
    view = walk.pairs[0][2]
    plain = np.zeros((SIZE[1], SIZE[0], 4), np.uint8)
    padded = np.zeros((SIZE[1], SIZE[0] + 24, 4), np.uint8)
    walk.renderer.draw(view, plain)
    walk.renderer.draw(view, padded[:, : SIZE[0]])
    assert (padded[:, : SIZE[0]] == plain).all()
    assert not padded[:, SIZE[0] :].any()


def test_too_small_a_frame_is_refused_with_a_sentence() -> None:
    game = Game(7, everything=True)
    with pytest.raises(ValueError, match="cannot be drawn"):
        game.renderer(8, 360)


def test_looking_up_and_down_shows_no_hole(walk: Walk) -> None:
    base = walk.pairs[0][2].camera
    pixels = np.zeros((SIZE[1], SIZE[0], 4), np.uint8)
    for pitch in (-0.45, 0.45):
        for yaw in np.linspace(0, 6, 9):
            camera = Camera(base.x, base.y, base.z, float(yaw), pitch)
            walk.renderer.draw(View(camera, camera, ()), pixels)
            assert pixels[..., :3].any(-1).mean() > 0.999


@pytest.fixture(scope="module")
def both() -> tuple[Game, Renderer, Renderer]:
    """A game, and two renderers of it: by numpy, and compiled."""
    game = Game(7, everything=True)
    size = (213, 121)
    numpy, compiled = game.renderer(*size, native=False), game.renderer(*size)
    assert not numpy.compiled
    if not compiled.compiled:
        pytest.skip("no C compiler here: apt install gcc")
    return game, numpy, compiled


def drawn(renderer: Renderer, view: View) -> tuple[np.ndarray, Planes]:
    """A frame with all its planes, from buffers that hold something else before."""
    size = renderer.height, renderer.width
    pixels = np.full((*size, 4), 77, np.uint8)
    planes = Planes(np.full(size, 7, np.float32), np.full((*size, 2), 7, np.float16), np.full(size, 7, np.uint8))
    renderer.draw(view, pixels, planes)
    return pixels, planes


def test_compiled_and_numpy_draw_the_same(both: tuple[Game, Renderer, Renderer]) -> None:
    """To the pixel, but for a texel or an edge that a compiler's rounding may move."""
    game, numpy, compiled = both
    views = []
    for tick in range(400):
        game.step(game.autopilot())
        if tick % 25 == 0:
            views.append(game.view())
    here = views[-1].camera
    for pitch in (-0.45, 0.45):
        for yaw in np.linspace(0, 6, 7):
            camera = Camera(here.x, here.y, here.z, float(yaw), pitch)
            views.append(View(camera, here, views[-1].sprites))
    for view in views:
        (one, a), (two, b) = drawn(numpy, view), drawn(compiled, view)
        assert (one != two).any(-1).mean() < 2e-3
        assert a.depth is not None
        assert b.depth is not None
        assert (np.abs(a.depth - b.depth) > 1e-3 * a.depth).mean() < 2e-3
        assert a.mask is not None
        assert (a.mask != b.mask).mean() < 2e-3
        assert a.motion is not None
        assert b.motion is not None
        moved = np.abs(a.motion.astype(np.float32) - b.motion.astype(np.float32))
        assert (moved > 0.02 + 2e-3 * np.abs(a.motion)).any(-1).mean() < 2e-3


def test_planes_that_nobody_wants_are_left_alone(both: tuple[Game, Renderer, Renderer]) -> None:
    game, _, compiled = both
    size = compiled.height, compiled.width
    whole, all_planes = drawn(compiled, game.view())
    pixels, mask = np.zeros((*size, 4), np.uint8), np.zeros(size, np.uint8)
    compiled.draw(game.view(), pixels, Planes(mask=mask))
    assert (pixels == whole).all()
    assert (mask == all_planes.mask).all()


def test_a_picture_warped_to_the_next_camera_is_nearer_to_what_is_seen_there(
    both: tuple[Game, Renderer, Renderer],
) -> None:
    game, _, compiled = both
    size = compiled.height, compiled.width
    held = warped = 0.0
    for _ in range(8):
        for _ in range(20):
            game.step(game.autopilot())
        old = game.view()
        pixels, _ = drawn(compiled, View(old.camera, old.camera, ()))
        iz = compiled.iz.copy()
        for _ in range(3):
            game.step(game.autopilot())
        now = game.view()
        out = np.zeros((*size, 4), np.uint8)
        compiled.warp(pixels, iz, old.camera, old.camera, out)
        assert (out == pixels).all(), "the same camera shows the same picture"
        compiled.warp(pixels, iz, old.camera, now.camera, out)
        truth, _ = drawn(compiled, View(now.camera, now.camera, ()))
        held += float(np.abs(truth.astype(int) - pixels).mean())
        warped += float(np.abs(truth.astype(int) - out).mean())
    assert warped < 0.6 * held


def test_without_a_compiler_the_game_draws_in_numpy(
    both: tuple[Game, Renderer, Renderer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    game, _, compiled = both
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "ziglang", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_raycaster.cache_clear()
    try:
        plain = game.renderer(compiled.width, compiled.height)
    finally:
        load_raycaster.cache_clear()
    assert not plain.compiled
    assert (drawn(plain, game.view())[0] == drawn(compiled, game.view())[0]).all(-1).mean() > 0.998
    pixels = np.zeros((plain.height, plain.width, 4), np.uint8)
    with pytest.raises(RuntimeError, match="install a C compiler"):
        plain.warp(pixels, plain.iz, game.camera, game.camera, pixels.copy())

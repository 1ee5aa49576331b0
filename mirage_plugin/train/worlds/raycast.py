"""Closed-form ray casting of a `Scene` into a `GBuffer`.

Every primitive is intersected analytically (the height field by marching), so depth, normals, numbers and
motion are exact. Only the rays of the asked-for window are cast: training sees windows of frames of many
virtual sizes, at the pixel scale those sizes have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mirage_plugin.train.worlds.gbuffer import SKY_DEPTH, GBuffer, Material
from mirage_plugin.train.worlds.scenes import Camera, Scene
from mirage_plugin.train.worlds.textures import choice, uniform

__all__ = ["FLAT_UP", "LEVEL_SUN", "Window", "cast_clip", "draw_hud", "random_window", "seen_before", "telling_window"]

_FAR = 1e9
_LETTERS = " 0123456789ABCDEFGHIKLMNOPRSTUVXabcdefghiklmnoprstuvx:/%"
LEVEL_SUN = 0.7
"""How much sun falls on what lies level in it; what faces it has at most 1."""
FLAT_UP = 0.5
"""How far up everything faces where nothing tells whether it lies or stands: a map, a board, what is seen from above.
What lies on it lets its colours through, which are all that such a game shows."""


@dataclass(frozen=True)
class Window:
    """A window of `height` x `width` pixels at (`top`, `left`) of a virtual frame."""

    frame_height: int
    frame_width: int
    top: float
    left: float
    height: int
    width: int

    def rays(self, camera: Camera) -> Tensor:
        """World directions through the pixel centres, forward component one: float32 [height * width, 3]."""
        y = torch.arange(self.height) + 0.5 + self.top
        x = torch.arange(self.width) + 0.5 + self.left
        v, u = torch.meshgrid(y, x, indexing="ij")
        scale = 1.0 / (camera.focal * self.frame_height)
        right, up = (u - self.frame_width / 2) * scale, (self.frame_height / 2 - v) * scale
        local = torch.stack([right, up, torch.ones_like(u)], -1).reshape(-1, 3)
        return local @ camera.rotation.T

    def project(self, camera: Camera, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Window coordinates (x, y) in pixels and view depth of world `points` [P, 3]."""
        local = (points - camera.position) @ camera.rotation
        z = local[:, 2].clamp_min(1e-3)
        scale = camera.focal * self.frame_height
        x = local[:, 0] / z * scale + self.frame_width / 2 - self.left
        y = self.frame_height / 2 - local[:, 1] / z * scale - self.top
        return x, y, local[:, 2]


@dataclass
class _Hit:
    """What the rays met, per pixel."""

    t: Tensor
    normal: Tensor
    ident: Tensor
    u: Tensor
    v: Tensor
    texture: Tensor
    scale: Tensor
    material: Tensor
    velocity: Tensor


def _swing(velocity: Tensor, time: float) -> Tensor:
    return velocity * math.sin(time)


def _box_distance(scene: Scene, origin: Tensor, rays: Tensor, time: float) -> tuple[Tensor, Tensor, Tensor]:
    """Entry distance to every box: [N, P]; origin and rays in box coordinates."""
    c, s = scene.box_yaw.cos(), scene.box_yaw.sin()
    offset = origin - (scene.box_centre + _swing(scene.box_velocity, time))[:, None, :]
    o = torch.stack([offset[..., 0] * c[:, None] - offset[..., 2] * s[:, None], offset[..., 1],
                     offset[..., 0] * s[:, None] + offset[..., 2] * c[:, None]], -1)  # fmt: skip
    d = torch.stack([rays[:, 0] * c[:, None] - rays[:, 2] * s[:, None], rays[:, 1].expand(len(c), -1),
                     rays[:, 0] * s[:, None] + rays[:, 2] * c[:, None]], -1)  # fmt: skip
    inverse = 1.0 / torch.where(d.abs() < 1e-7, torch.full_like(d, 1e-7), d)
    half = scene.box_half[:, None, :]
    near = (-o * inverse - (half * inverse).abs()).amax(-1)
    far = (-o * inverse + (half * inverse).abs()).amin(-1)
    inverted = scene.box_inverted[:, None]
    outside = torch.where((near < far) & (near > 1e-3), near, torch.full_like(near, _FAR))
    inside = torch.where((near < far) & (far > 1e-3), far, torch.full_like(near, _FAR))
    return torch.where(inverted, inside, outside), o, d


def _sphere_distance(scene: Scene, origin: Tensor, rays: Tensor, time: float) -> Tensor:
    offset = origin - (scene.sphere_centre + _swing(scene.sphere_velocity, time))[:, None, :]
    a = rays.square().sum(-1)
    b = (offset * rays).sum(-1)
    c = offset.square().sum(-1) - scene.sphere_radius[:, None].square()
    root = b * b - a * c
    t = (-b - root.clamp_min(0).sqrt()) / a
    return torch.where((root > 0) & (t > 1e-3), t, torch.full_like(t, _FAR))


def _height(scene: Scene, x: Tensor, z: Tensor) -> Tensor:
    assert scene.height_map is not None
    size = scene.height_map.shape[0]
    fx, fz = x / scene.height_extent * size, z / scene.height_extent * size
    x0, z0 = fx.floor(), fz.floor()
    ax, az = fx - x0, fz - z0
    ix, iz = x0.long(), z0.long()
    flat = scene.height_map.reshape(-1)

    def at(i: Tensor, j: Tensor) -> Tensor:
        return flat[(j % size) * size + i % size]

    top = at(ix, iz) * (1 - ax) + at(ix + 1, iz) * ax
    return top * (1 - az) + (at(ix, iz + 1) * (1 - ax) + at(ix + 1, iz + 1) * ax) * az


def _height_distance(scene: Scene, origin: Tensor, rays: Tensor) -> Tensor:
    """March the height field geometrically, then bisect: [P]."""
    start = origin.expand(rays.shape[0], 3)
    t0 = torch.full((rays.shape[0],), 0.2)
    done = torch.full_like(t0, _FAR)
    low = t0.clone()
    t = t0
    for _ in range(44):
        t = t * 1.13 + 0.12
        p = start + rays * t[:, None]
        under = (p[:, 1] < _height(scene, p[:, 0], p[:, 2])) & (done >= _FAR)
        done = torch.where(under, t, done)
        low = torch.where(done >= _FAR, t, low)
    hit = done < _FAR
    high = done.clone()
    for _ in range(6):
        middle = (low + high) / 2
        p = start + rays * middle[:, None]
        under = p[:, 1] < _height(scene, p[:, 0], p[:, 2])
        high, low = torch.where(under, middle, high), torch.where(under, low, middle)
    return torch.where(hit, high, torch.full_like(high, _FAR))


def _ground_distance(scene: Scene, origin: Tensor, rays: Tensor, level: float) -> Tensor:
    t = (level - origin[..., 1]) / torch.where(
        rays[:, 1].abs() < 1e-6, torch.full_like(rays[:, 1], 1e-6), rays[:, 1]
    )
    return torch.where((t > 1e-3) & (t < 400), t, torch.full_like(t, _FAR))


def _occluded(scene: Scene, points: Tensor, time: float) -> Tensor:
    """Whether the sun is hidden from each point: bool [P]."""
    rays = scene.sun.expand(points.shape[0], 3)
    box, _, _ = _box_distance(scene, points, rays, time)
    box = box.masked_fill(scene.box_inverted[:, None], _FAR)
    return (box.amin(0) < 200) | (_sphere_distance(scene, points, rays, time).amin(0) < 200)


def _trace(scene: Scene, camera: Camera, rays: Tensor, time: float) -> tuple[_Hit, Tensor]:
    count = rays.shape[0]
    origin = camera.position.expand(count, 3)
    far = torch.full((count,), _FAR)
    hit = _Hit(
        t=far, normal=-functional.normalize(rays, dim=-1), ident=torch.zeros(count, dtype=torch.long),
        u=torch.zeros(count), v=torch.zeros(count), texture=torch.zeros(count, dtype=torch.long),
        scale=torch.ones(count), material=torch.zeros(count, dtype=torch.long), velocity=torch.zeros(count, 3),
    )  # fmt: skip
    card_rgb = torch.full((count, 3), -1.0)

    if scene.height_map is not None:
        t = _height_distance(scene, origin, rays)
        p = origin + rays * t.clamp_max(500)[:, None]
        eps = 0.3
        slope_x = (_height(scene, p[:, 0] + eps, p[:, 2]) - _height(scene, p[:, 0] - eps, p[:, 2])) / (
            2 * eps
        )
        slope_z = (_height(scene, p[:, 0], p[:, 2] + eps) - _height(scene, p[:, 0], p[:, 2] - eps)) / (
            2 * eps
        )
        normal = functional.normalize(torch.stack([-slope_x, torch.ones_like(slope_x), -slope_z], -1), dim=-1)
        _accept(
            hit,
            t < hit.t,
            t,
            normal,
            1,
            p[:, 0],
            p[:, 2],
            scene.ground_texture,
            scene.ground_scale,
            scene.ground_material,
        )
        water = _ground_distance(scene, origin, rays, scene.water_level)
        _plane(hit, scene, origin, rays, water, 2, int(Material.WATER))
    elif scene.family != "abstract":
        _plane(hit, scene, origin, rays, _ground_distance(scene, origin, rays, 0.0 if scene.family != "side" else -3.0),
               1, scene.ground_material)  # fmt: skip

    t_box, o, d = _box_distance(scene, origin, rays, time)
    t, index = t_box.min(0)
    pick = torch.arange(count)
    local = o[index, pick] + d[index, pick] * t.clamp_max(1e4)[:, None]
    half = scene.box_half[index]
    relative = local / half
    axis = relative.abs().argmax(-1)
    sign = relative.gather(1, axis[:, None])[:, 0].sign()
    sign = torch.where(scene.box_inverted[index], -sign, sign)
    normal = functional.one_hot(axis, 3).float() * sign[:, None]
    c, s = scene.box_yaw[index].cos(), scene.box_yaw[index].sin()
    world = torch.stack(
        [normal[:, 0] * c + normal[:, 2] * s, normal[:, 1], -normal[:, 0] * s + normal[:, 2] * c], -1
    )
    u = torch.where(axis == 0, local[:, 2], local[:, 0])
    v = torch.where(axis == 1, local[:, 2], -local[:, 1])
    better = t < hit.t
    _accept(hit, better, t, world, 0, u, v, 0, 1.0, 0)
    _fill(hit, better, 10 + index, scene.box_texture[index], scene.box_scale[index], scene.box_material[index],
          scene.box_velocity[index])  # fmt: skip

    t_sphere = _sphere_distance(scene, origin, rays, time)
    t, index = t_sphere.min(0)
    centre = scene.sphere_centre[index] + _swing(scene.sphere_velocity[index], time)
    p = origin + rays * t.clamp_max(1e4)[:, None]
    normal = (p - centre) / scene.sphere_radius[index][:, None]
    better = t < hit.t
    angle = torch.atan2(normal[:, 0], normal[:, 2]) * scene.sphere_radius[index]
    _accept(hit, better, t, normal, 0, angle, -normal[:, 1] * scene.sphere_radius[index] * 1.5, 0, 1.0, 0)
    _fill(hit, better, 200 + index, scene.sphere_texture[index], torch.full((count,), 0.5),
          scene.sphere_material[index], scene.sphere_velocity[index])  # fmt: skip

    facing = functional.normalize(camera.rotation[:, 2] * torch.tensor([1.0, 0.0, 1.0]), dim=0)
    right = torch.stack([facing[2], torch.zeros(()), -facing[0]])
    for i in range(scene.card_centre.shape[0]):
        centre = scene.card_centre[i] + _swing(scene.card_velocity[i], time)
        denominator = (rays * facing).sum(-1)
        t = ((centre - camera.position) * facing).sum() / torch.where(
            denominator.abs() < 1e-5, torch.full_like(denominator, 1e-5), denominator
        )
        p = origin + rays * t[:, None] - centre
        u, v = (p * right).sum(-1) / scene.card_size[i, 0], -p[:, 1] / scene.card_size[i, 1]
        inside = (u.abs() < 0.5) & (v.abs() < 0.5) & (t > 1e-3) & (t < hit.t)
        size = scene.cards.shape[-1]
        ix, iy = ((u + 0.5) * size).long().clamp(0, size - 1), ((v + 0.5) * size).long().clamp(0, size - 1)
        texel = scene.cards[i].permute(1, 2, 0).reshape(-1, 4)[iy * size + ix]
        inside &= texel[:, 3] > 0.5
        _accept(hit, inside, t, (-facing).expand(count, 3), 400 + i, u, v, 0, 1.0, int(Material.CREATURE))
        hit.velocity = torch.where(inside[:, None], scene.card_velocity[i], hit.velocity)
        card_rgb = torch.where(inside[:, None], texel[:, :3], card_rgb)
    covered = hit.ident < 400
    card_rgb[covered] = -1.0
    return hit, card_rgb


def _accept(
    hit: _Hit, better: Tensor, t: Tensor, normal: Tensor, ident: int, u: Tensor, v: Tensor,
    texture: int, scale: float, material: int,
) -> None:  # fmt: skip
    hit.t = torch.where(better, t, hit.t)
    hit.normal = torch.where(better[:, None], normal, hit.normal)
    hit.u, hit.v = torch.where(better, u, hit.u), torch.where(better, v, hit.v)
    zero = torch.zeros(3)
    kind, size = torch.tensor(texture), torch.tensor(scale)
    _fill(hit, better, torch.tensor(ident), kind, size, torch.tensor(material), zero)


def _fill(
    hit: _Hit,
    better: Tensor,
    ident: Tensor,
    texture: Tensor,
    scale: Tensor,
    material: Tensor,
    velocity: Tensor,
) -> None:
    hit.ident = torch.where(better, ident, hit.ident)
    hit.texture = torch.where(better, texture, hit.texture)
    hit.scale = torch.where(better, scale, hit.scale)
    hit.material = torch.where(better, material, hit.material)
    hit.velocity = torch.where(better[:, None], velocity, hit.velocity)


def _plane(
    hit: _Hit, scene: Scene, origin: Tensor, rays: Tensor, t: Tensor, ident: int, material: int
) -> None:
    p = origin + rays * t.clamp_max(500)[:, None]
    up = torch.tensor([0.0, 1.0, 0.0]).expand(t.shape[0], 3)
    _accept(
        hit, t < hit.t, t, up, ident, p[:, 0], p[:, 2], scene.ground_texture, scene.ground_scale, material
    )


def _frame(scene: Scene, i: int, window: Window) -> dict[str, Tensor]:
    camera, time = scene.cameras[i], scene.times[i]
    rays = window.rays(camera)
    hit, card_rgb = _trace(scene, camera, rays, time)
    sky = hit.t >= _FAR / 2
    t = torch.where(sky, torch.full_like(hit.t, SKY_DEPTH), hit.t)
    points = camera.position + rays * t[:, None]
    direction = functional.normalize(rays, dim=-1)
    facing = -(hit.normal * direction).sum(-1)
    flip = facing < 0
    normal = torch.where(flip[:, None], -hit.normal, hit.normal)
    facing = facing.abs().clamp(0, 1)

    pixel = t / (camera.focal * window.frame_height)
    footprint = pixel * hit.scale / facing.clamp_min(0.15)
    texel = scene.atlas.sample(hit.texture, hit.u * hit.scale, hit.v * hit.scale, footprint, scene.smooth)
    card = card_rgb[:, 0] >= 0
    albedo = torch.where(card[:, None], card_rgb, texel[:, :3])
    mean = scene.atlas.levels[-1].mean((1, 2))[hit.texture, :3]
    flat = torch.where(card[:, None], card_rgb, mean)
    is_window = (texel[:, 3] > 0.5) & ~card
    # Glass keeps its own colour when the texture is flattened, or it would vanish.
    flat = torch.where(is_window[:, None], albedo, flat)
    material = torch.where(is_window, torch.full_like(hit.material, int(Material.WINDOW)), hit.material)
    material = torch.where(sky, torch.zeros_like(material), material)
    water = hit.material == Material.WATER
    albedo[water] = torch.tensor([0.18, 0.32, 0.42])
    flat[water] = torch.tensor([0.18, 0.32, 0.42])

    # Exposed for the hour, as a game is: what lies level in the sun has as much of it whether the sun is high or low.
    lit = ((normal * scene.sun).sum(-1) * (LEVEL_SUN / scene.sun[1])).clamp(0, 1)
    lit = torch.where(card, torch.full_like(lit, LEVEL_SUN), lit)
    if scene.indoor:
        lit = torch.zeros_like(lit)
    else:
        shadowed = _occluded(scene, points + normal * 2e-2, time)
        lit = torch.where(shadowed, torch.zeros_like(lit), lit)
    if scene.family == "top":
        # From above, bricks on a roof are bricks of a wall.
        lies = (normal[:, 1] > 0.9) & (hit.material != Material.CREATURE)
        aslant = torch.tensor([0.0, FLAT_UP, math.sqrt(1 - FLAT_UP**2)])
        normal = torch.where(lies[:, None], aslant, normal)
    ambient = 0.72 + 0.28 * normal[:, 1]
    if scene.height_map is None:
        # Creases where walls meet the ground are darker, as baked lighting draws them.
        above = points[:, 1].clamp_min(0)
        ambient = ambient * (1 - 0.35 * torch.exp(-above * 2.5) * (1 - normal[:, 1].abs()))
    to_lamp = scene.lamp_centre[:, None, :] - points
    distance = to_lamp.square().sum(-1).clamp_min(0.05)
    cosine = ((to_lamp * normal).sum(-1) / distance.sqrt()).clamp_min(0) * 0.8 + 0.2
    lamp = (scene.lamp_colour[:, None, :] * (cosine * 3.0 / (distance + 1.5))[..., None]).sum(0).clamp(0, 2)

    cloud = torch.zeros_like(t)
    up = direction[:, 1].clamp_min(0.03)
    size = scene.cloud_map.shape[0]
    cu = (direction[:, 0] / up * 12 + scene.sun[0] * 90).long() % size
    cv = (direction[:, 2] / up * 12 + scene.sun[2] * 90).long() % size
    cover = torch.sigmoid(3 * (scene.cloud_map[cv, cu] + scene.cloud_cover - 0.6)) * (
        direction[:, 1] * 6
    ).clamp(0, 1)
    cloud = torch.where(sky, cover, cloud)

    planes = {
        "albedo": albedo, "flat": flat, "direct": lit, "ambient": ambient, "lamp": lamp, "normal": normal,
        "facing": facing, "depth": torch.where(sky, torch.full_like(t, SKY_DEPTH), t),
        "height": torch.where(sky, direction[:, 1] * 100, points[:, 1].clamp(-50, 500)), "cloud": cloud,
        "material": material, "ident": torch.where(sky, torch.zeros_like(hit.ident), hit.ident + 1),
    }  # fmt: skip
    if scene.cut[i]:
        motion, visible = torch.zeros(t.shape[0], 2), torch.zeros(t.shape[0], dtype=torch.bool)
    else:
        previous = scene.cameras[i - 1]
        moved = points + hit.velocity * (math.sin(scene.times[i - 1]) - math.sin(time))
        # The sky is at infinity: only rotation moves it.
        moved = torch.where(sky[:, None], previous.position + (points - camera.position), moved)
        x, y, z = window.project(previous, moved)
        here_y, here_x = torch.meshgrid(
            torch.arange(window.height) + 0.5, torch.arange(window.width) + 0.5, indexing="ij"
        )
        motion = torch.stack([x - here_x.reshape(-1), y - here_y.reshape(-1)], -1).clamp(-4096, 4096)
        visible = z > 1e-2
        planes["expected"] = z
    planes["motion"], planes["visible"] = motion, visible
    return {
        name: (p if p.dim() == 2 else p[:, None]).T.reshape(-1, window.height, window.width)
        for name, p in planes.items()
    }


def seen_before(frames: list[dict[str, Tensor]], i: int) -> Tensor:
    """Compare the depth a surface had with what the previous frame shows there: bool [1, H, W]."""
    now, before = frames[i], frames[i - 1]
    _, height, width = now["motion"].shape
    rows = torch.arange(height)[:, None] + now["motion"][1]
    columns = torch.arange(width)[None, :] + now["motion"][0]
    y, x = rows.round().long(), columns.round().long()
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    there = before["depth"].reshape(-1)[index]
    ident = before["ident"].reshape(-1)[index]
    expected = now["expected"][0]
    sky = now["material"][0] == 0
    same = torch.where(sky, ident == 0, (there - expected).abs() < 0.04 * expected + 0.05)
    return (inside & same & now["visible"][0])[None]


def draw_hud(rng: torch.Generator, height: int, width: int, *, often: bool = False) -> Tensor:
    """A game's overlay as it falls into a window of this size: float32 [4, H, W]; two in three are empty, or one
    `often`. Mostly text, white or coloured, plain, outlined or on a panel; bars and icons."""
    hud = torch.zeros(4, height, width)
    if (choice(rng, 3) > 0) != often:
        return hud
    for _ in range(1 + choice(rng, 4)):
        element = _element(rng, height, width)
        h, w = element.shape[1:]
        top, left = (choice(rng, max(1, free + 1)) for free in (height - h, width - w))
        area = hud[:, top : top + h, left : left + w]
        alpha = element[3] + area[3] * (1 - element[3])
        over = element[:3] * element[3] + area[:3] * area[3] * (1 - element[3])
        area[:3] = torch.where(alpha > 0, over / alpha.clamp_min(1e-6), area[:3])
        area[3] = alpha
    return hud


def _element(rng: torch.Generator, height: int, width: int) -> Tensor:
    """A line of text, a panel with some, a bar or an icon, no larger than that: float32 [4, h, w]."""
    kind, alpha = choice(rng, 6), 1.0 if choice(rng, 3) else uniform(rng, 0.6, 0.9)
    colour = _hud_colour(rng)
    if kind >= 4:
        h, w = min(3 + choice(rng, 18), height), min(8 + choice(rng, 80), width)
        mask = torch.ones(h, w)
        if kind == 5:
            # An icon, or letters too small to be read: strokes on a 2-pixel raster.
            mask = (torch.rand((h + 1) // 2, (w + 1) // 2, generator=rng) < 0.5).float()
            mask[:, ::4] = 0.0
            mask = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)[:h, :w]
        return torch.cat([colour[:, None, None].expand(3, h, w), mask[None] * alpha])
    size = round(math.exp(uniform(rng, math.log(6.0), math.log(36.0))))
    heaviness, outlined = choice(rng, 2) * (size > 12), choice(rng, 4) == 0
    fill, line = _text(rng, size, 2 + choice(rng, 18), heaviness, heaviness + outlined)
    fill, line = fill[:height, :width], line[:height, :width]
    dark = torch.full((3,), 0.06 if float(colour.mean()) > 0.3 else 0.9)
    rgb = dark[:, None, None] + (colour - dark)[:, None, None] * fill
    text = torch.cat([rgb, line[None] * alpha])
    if kind == 3:
        panel, behind = torch.rand(3, generator=rng) * 0.4, uniform(rng, 0.4, 1.0)
        shown = text[3] + behind * (1 - text[3])
        text[:3] = (text[:3] * text[3] + panel[:, None, None] * behind * (1 - text[3])) / shown
        text[3] = shown
    return text


def _hud_colour(rng: torch.Generator) -> Tensor:
    """White half of the time, black seldom, else anything; bright more often than not."""
    kind = choice(rng, 8)
    if kind < 4:
        return torch.full((3,), uniform(rng, 0.85, 1.0))
    if kind == 4:
        return torch.full((3,), uniform(rng, 0.0, 0.15))
    colour = torch.rand(3, generator=rng)
    return colour / colour.max().clamp_min(1e-3) if kind < 7 else colour


def _text(rng: torch.Generator, size: int, letters: int, heaviness: int, reach: int) -> tuple[Tensor, Tensor]:
    """A line of letters and figures, so high and so heavy, and what they and their outline cover, `reach` pixels
    around: float32 [h, w] in [0, 1] each."""
    from PIL import Image, ImageDraw, ImageFont  # only who draws worlds needs it

    words = "".join(_LETTERS[choice(rng, len(_LETTERS))] for _ in range(letters)).strip() or "0"
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(words, stroke_width=reach)
    drawn = []
    for stroke in (heaviness, reach):
        canvas = Image.new("L", (max(1, math.ceil(right - left)) + 2, max(1, math.ceil(bottom - top)) + 2))
        ImageDraw.Draw(canvas).text((1 - left, 1 - top), words, fill=255, font=font, stroke_width=stroke)
        drawn.append(torch.from_numpy(np.array(canvas)).float() / 255)
    return drawn[0], drawn[1]


def random_window(rng: torch.Generator, height: int, width: int) -> Window:
    """A window of `height` x `width` somewhere in a virtual frame of one to four times as many lines."""
    lines = int(height * math.exp(uniform(rng, 0.0, math.log(4.0))))
    aspect = (16 / 9, 16 / 9, 4 / 3, 21 / 9, 1.0)[choice(rng, 5)]
    columns = max(width, int(lines * aspect))
    return Window(
        lines, columns, uniform(rng, 0, lines - height), uniform(rng, 0, columns - width), height, width
    )


PLAIN_SHARE = 0.7
"""A view of which one surface fills more than this share shows too little to learn from, or to judge by."""


def telling_window(scene: Scene, rng: torch.Generator, height: int, width: int) -> Window:
    """A random window through which the scene's first frame shows more than one surface, where one is soon found."""
    for _ in range(4):
        window = random_window(rng, height, width)
        first = _frame(scene, 0, window)
        surface = first["ident"].long() * len(Material) + first["material"].long()
        if int(torch.unique(surface, return_counts=True)[1].max()) <= PLAIN_SHARE * surface.numel():
            break
    return window


def cast_clip(scene: Scene, window: Window, seed: int) -> GBuffer:
    """Draw the whole camera path of a scene as seen through a window; the HUD is drawn from `seed`."""
    rng = torch.Generator().manual_seed(seed)
    frames = [_frame(scene, i, window) for i in range(len(scene.cameras))]
    for i in range(1, len(frames)):
        if not scene.cut[i]:
            frames[i]["visible"] = seen_before(frames, i)
    stack = {name: torch.stack([f[name] for f in frames]) for name in frames[0] if name != "expected"}
    hud = draw_hud(rng, window.height, window.width)[None].expand(len(frames), -1, -1, -1)
    half = ("albedo", "flat", "direct", "ambient", "lamp", "normal", "facing", "height", "cloud", "motion")
    for name in half:
        stack[name] = stack[name].half()
    return GBuffer(
        **{k: stack[k] for k in half}, depth=stack["depth"].float(), material=stack["material"].to(torch.uint8),
        ident=stack["ident"].to(torch.int16), visible=stack["visible"].bool(), hud=hud.half(),
        cut=torch.tensor(scene.cut).view(-1, 1, 1, 1),
    )  # fmt: skip

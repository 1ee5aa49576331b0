"""Random scenes: towns, interiors, landscapes, side-scrollers, top-down maps and abstract arenas.

A scene is plain data (tensors of primitives); `raycast` draws it. Lengths are metres, y is up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mirage_plugin.train.worlds.gbuffer import Material
from mirage_plugin.train.worlds.textures import (
    Atlas,
    choice,
    draw_cards,
    draw_texture,
    tileable_noise,
    uniform,
)

__all__ = ["FAMILIES", "SCENES", "Camera", "Scene", "draw_scene"]

SCENES = ("town", "interior", "landscape", "side", "top", "abstract", "corridor")
"""Families of scenes in space."""
FAMILIES = (*SCENES, "flat")
"""Of all clips: `flat.py` draws what is no scene in space."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: `position` float32 [3]; `rotation` float32 [3, 3], columns right, up, forward.

    `focal` is the focal length over the height of the virtual frame.
    """

    position: Tensor
    rotation: Tensor
    focal: float


@dataclass(frozen=True)
class Scene:
    """A scene as tensors of primitives.

    Box and sphere rows are `Nb` and `Ns` long: `centre` [N, 3], `half` [N, 3] or `radius` [N], `yaw` [N],
    `texture` int64 [N], `scale` [N] texture repeats per metre, `material` int64 [N], `velocity` [N, 3] in
    metres per second (objects swing: `offset(t) = velocity * sin(t)`).
    """

    family: str
    atlas: Atlas
    smooth: bool
    box_centre: Tensor
    box_half: Tensor
    box_yaw: Tensor
    box_texture: Tensor
    box_scale: Tensor
    box_material: Tensor
    box_velocity: Tensor
    box_inverted: Tensor
    sphere_centre: Tensor
    sphere_radius: Tensor
    sphere_texture: Tensor
    sphere_material: Tensor
    sphere_velocity: Tensor
    cards: Tensor
    card_centre: Tensor
    card_size: Tensor
    card_velocity: Tensor
    ground_texture: int
    ground_scale: float
    ground_material: int
    height_map: Tensor | None
    height_extent: float
    water_level: float
    sun: Tensor
    indoor: bool
    lamp_centre: Tensor
    lamp_colour: Tensor
    cloud_map: Tensor
    cloud_cover: float
    cameras: tuple[Camera, ...]
    cut: tuple[bool, ...]
    times: tuple[float, ...]


class _Builder:
    """Collects primitives while a family lays out its scene."""

    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng
        self.textures: list[Tensor] = []
        self.boxes: list[tuple[list[float], list[float], float, int, float, int, list[float], bool]] = []
        self.spheres: list[tuple[list[float], float, int, int, list[float]]] = []
        self.cards: list[tuple[list[float], list[float], list[float]]] = []
        self.lamps: list[tuple[list[float], list[float]]] = []

    def texture(self, *kinds: str) -> int:
        self.textures.append(draw_texture(kinds[choice(self.rng, len(kinds))], self.rng))
        return len(self.textures) - 1

    def box(
        self, centre: list[float], half: list[float], texture: int, material: int, *, scale: float = 0.5,
        yaw: float = 0.0, velocity: list[float] | None = None, inverted: bool = False,
    ) -> None:  # fmt: skip
        self.boxes.append((centre, half, yaw, texture, scale, material, velocity or [0.0, 0.0, 0.0], inverted))

    def sphere(
        self,
        centre: list[float],
        radius: float,
        texture: int,
        material: int,
        velocity: list[float] | None = None,
    ) -> None:
        self.spheres.append((centre, radius, texture, material, velocity or [0.0, 0.0, 0.0]))

    def u(self, low: float, high: float) -> float:
        return uniform(self.rng, low, high)


def _town(b: _Builder, ground: float = 0.0) -> None:
    walls = [b.texture("windows", "windows", "bricks", "plaster", "planks") for _ in range(4)]
    trunk, leaves = b.texture("bark"), b.texture("leaves", "grass", "crown")
    crate = [b.texture("planks", "panels", "plain", "checker", "stripes") for _ in range(3)]
    for _ in range(4 + choice(b.rng, 8)):
        angle, radius = b.u(0, 2 * math.pi), b.u(8, 40)
        w, h, d = b.u(2, 7), b.u(1.5, 9), b.u(2, 7)
        wall = walls[choice(b.rng, 4)]
        x, z, yaw = (
            radius * math.sin(angle),
            radius * math.cos(angle),
            b.u(0, 6.28) if choice(b.rng, 2) else 0.0,
        )
        b.box([x, ground + h, z], [w, h, d], wall, Material.WALL, scale=b.u(0.1, 0.35), yaw=yaw)
        if choice(b.rng, 2):
            b.box([x, ground + 2 * h + 0.3, z], [w * 1.1, 0.3, d * 1.1], crate[0], Material.WALL, yaw=yaw)
    for _ in range(choice(b.rng, 7)):
        x, z, h = b.u(-20, 20), b.u(-20, 20), b.u(1.2, 3)
        b.box([x, ground + h / 2, z], [0.18, h / 2, 0.18], trunk, Material.OBJECT, scale=1.0)
        for _ in range(1 + choice(b.rng, 3)):
            centre = [x + b.u(-0.6, 0.6), ground + h + b.u(0.2, 1.2), z + b.u(-0.6, 0.6)]
            b.sphere(centre, b.u(0.6, 1.5), leaves, Material.FOLIAGE)
    _props(b, crate, ground, 12.0)


def _props(b: _Builder, textures: list[int], ground: float, spread: float) -> None:
    glow = b.texture("glow")
    for _ in range(2 + choice(b.rng, 8)):
        size = b.u(0.25, 1.1)
        centre = [b.u(-spread, spread), ground + size, b.u(-spread, spread)]
        texture = textures[choice(b.rng, len(textures))]
        moving = [b.u(-2, 2), 0.0, b.u(-2, 2)] if choice(b.rng, 3) == 0 else None
        glowing = choice(b.rng, 8) == 0
        material = Material.EMISSIVE if glowing else Material.OBJECT
        texture = glow if glowing else texture
        if choice(b.rng, 3):
            half = [size * b.u(0.4, 1), size, size * b.u(0.4, 1)]
            b.box(centre, half, texture, material, scale=b.u(0.3, 0.8), yaw=b.u(0, 6.28), velocity=moving)
        else:
            b.sphere(centre, size, texture, material, moving)
        if glowing:
            b.lamps.append((centre, [b.u(0.3, 1.0), b.u(0.3, 0.9), b.u(0.2, 0.9)]))
    for _ in range(choice(b.rng, 6)):
        h = b.u(0.8, 2.2)
        where = [b.u(-spread, spread) * 0.6, ground + h / 2, b.u(-spread, spread) * 0.6]
        b.cards.append((where, [h * b.u(0.5, 0.9), h], [b.u(-1.5, 1.5), 0.0, b.u(-1.5, 1.5)]))


def _interior(b: _Builder) -> None:
    half = [b.u(3, 10), b.u(1.3, 3.2), b.u(4, 14)]
    wall = b.texture("bricks", "plaster", "planks", "panels", "stone", "tiles", "stripes")
    # A little below the ground plane, which is the floor: two surfaces in one place would flicker.
    b.box([0, half[1] - 0.02, 0], half, wall, Material.WALL, scale=b.u(0.2, 0.6), inverted=True)
    ceiling = b.texture("plaster", "panels", "planks", "tiles", "plain")
    b.box([0, 2 * half[1] - 0.05, 0], [half[0], 0.06, half[2]], ceiling, Material.WALL, scale=b.u(0.2, 0.5))
    column = b.texture("stone", "bricks", "plain", "panels")
    for _ in range(choice(b.rng, 7)):
        w = b.u(0.2, 1.2)
        x, z = b.u(-half[0], half[0]), b.u(-half[2], half[2])
        b.box([x, half[1], z], [w, half[1], b.u(0.2, 2.5)], column, Material.WALL, scale=0.5)
    glow = b.texture("glow")
    for _ in range(1 + choice(b.rng, 4)):
        x, z = b.u(-half[0], half[0]) * 0.8, b.u(-half[2], half[2]) * 0.8
        b.box([x, 2 * half[1] - 0.15, z], [b.u(0.1, 0.5), 0.05, b.u(0.1, 0.5)], glow, Material.EMISSIVE)
        b.lamps.append(([x, 2 * half[1] - 0.6, z], [b.u(0.5, 1.2), b.u(0.5, 1.0), b.u(0.3, 1.0)]))
    _props(b, [b.texture("planks", "panels", "plain", "checker") for _ in range(3)], 0.0, min(half[0], half[2]))


def _corridor(b: _Builder) -> None:
    """Grid-aligned walls on a map of cells, as first-person shooters have them."""
    cell, height = b.u(1.6, 3.5), b.u(1.2, 2.6)
    walls = [b.texture("bricks", "stone", "panels", "planks", "tiles", "plaster", "windows") for _ in range(3)]
    above = ("sky", "ceiling", "roofs")[choice(b.rng, 3)]
    ceiling = b.texture("plaster", "panels", "planks", "stone")
    if above == "ceiling":
        b.box([0, 2 * height + 0.1, 0], [40, 0.1, 40], ceiling, Material.WALL, scale=b.u(0.2, 0.5))
    elif above == "roofs":
        # Yards, arcades and rooms without a roof: walls all around, and yet the sun.
        for _ in range(3 + choice(b.rng, 5)):
            where, half = [b.u(-7, 7), 2 * height + 0.1, b.u(-3, 20)], [b.u(1.5, 5), 0.1, b.u(1.5, 6)]
            b.box(where, half, ceiling, Material.WALL, scale=b.u(0.2, 0.5))
    for i in range(-4, 5):
        for j in range(-1, 7):
            if abs(i) <= (j % 3 == 0) * 2 or choice(b.rng, 3) == 0 or len(b.boxes) > 30:
                continue
            tall = height * (b.u(0.7, 1.6) if above == "sky" else 1)
            centre = [i * 2 * cell * 0.5 + (cell if i > 0 else -cell) * 0.3, tall, j * cell]
            b.box(
                centre,
                [cell / 2, tall, cell / 2],
                walls[choice(b.rng, 3)],
                Material.WALL,
                scale=b.u(0.25, 0.5),
            )
    _props(b, [b.texture("planks", "panels", "plain") for _ in range(2)], 0.0, 5.0)
    for _ in range(2 + choice(b.rng, 3)):
        b.lamps.append(([b.u(-3, 3), height, b.u(0, 12)], [b.u(0.4, 1.0), b.u(0.3, 0.9), b.u(0.2, 0.8)]))


def _landscape(b: _Builder) -> None:
    rock, trunk = b.texture("stone", "pebbles"), b.texture("bark")
    leaves = b.texture("leaves", "grass")
    for _ in range(6 + choice(b.rng, 14)):
        x, z = b.u(-35, 35), b.u(-10, 60)
        if choice(b.rng, 3):
            h = b.u(1.5, 4)
            b.box([x, h / 2, z], [0.2, h / 2 + 1.5, 0.2], trunk, Material.OBJECT)
            b.sphere([x, h + 0.8, z], b.u(0.9, 2.2), leaves, Material.FOLIAGE)
        else:
            b.sphere([x, 0.2, z], b.u(0.5, 2), rock, Material.OBJECT)
    for _ in range(choice(b.rng, 3)):
        wall = b.texture("windows", "planks", "stone")
        b.box([b.u(-25, 25), 2.5, b.u(10, 45)], [b.u(1.5, 4), 3.5, b.u(1.5, 4)], wall, Material.WALL, scale=0.25)


def _side(b: _Builder) -> None:
    """A side-scroller: tiles in one plane, layers of hills behind, seen through a long lens."""
    tile = [b.texture("bricks", "grass", "stone", "panels", "planks") for _ in range(3)]
    x = -14.0
    while x < 14:
        w, h = b.u(0.8, 3), 0.5 * (1 + choice(b.rng, 6))
        if choice(b.rng, 5):
            b.box(
                [x + w / 2, h / 2 - 2, 0],
                [w / 2, h / 2 + 1, 0.6],
                tile[0],
                Material.GROUND,
                scale=b.u(0.3, 0.8),
            )
        if choice(b.rng, 2):
            b.box([x, h + b.u(0.8, 3.5), 0], [b.u(0.4, 1.6), 0.25, 0.5], tile[1], Material.WALL, scale=0.7)
        x += w
    hill = [b.texture("leaves", "grass", "stone", "plain") for _ in range(2)]
    for _ in range(5 + choice(b.rng, 8)):
        z, r = b.u(6, 40), b.u(2, 9)
        b.sphere([b.u(-25, 25), -r * 0.4, z], r, hill[choice(b.rng, 2)], Material.FOLIAGE)
    for _ in range(2 + choice(b.rng, 6)):
        velocity = [b.u(-4, 4), b.u(-1, 1) * choice(b.rng, 2), 0.0]
        b.cards.append(([b.u(-6, 6), b.u(-0.5, 4), -0.7], [b.u(0.6, 1.6), b.u(0.6, 1.8)], velocity))
    for _ in range(choice(b.rng, 5)):
        coin = b.texture("glow")
        b.sphere([b.u(-6, 6), b.u(0.5, 4), -0.4], b.u(0.15, 0.4), coin, Material.EMISSIVE, [0.0, b.u(0, 1), 0.0])


def _top(b: _Builder) -> None:
    # From above nothing but their leaves tells a hedge from a roof.
    tile = [b.texture("bricks", "stone", "planks", "panels", "tiles") for _ in range(3)]
    tile.append(b.texture("leaves", "grass"))
    for _ in range(10 + choice(b.rng, 18)):
        h = b.u(0.3, 1.8)
        kind = choice(b.rng, 4)
        material = Material.FOLIAGE if kind == 3 else Material.WALL
        grid = 1.0 if choice(b.rng, 2) else 0.37
        x, z = round(b.u(-12, 12) / grid) * grid, round(b.u(-10, 10) / grid) * grid
        b.box([x, h, z], [b.u(0.5, 3), h, b.u(0.5, 2)], tile[kind], material, scale=b.u(0.3, 0.6))
    for _ in range(2 + choice(b.rng, 6)):
        body = b.texture("plain", "stripes")
        r = b.u(0.25, 0.6)
        b.sphere([b.u(-7, 7), r, b.u(-5, 5)], r, body, Material.CREATURE, [b.u(-3, 3), 0.0, b.u(-3, 3)])


def _abstract(b: _Builder) -> None:
    textures = [b.texture("plain", "plain", "panels", "checker", "stripes", "tiles", "windows") for _ in range(4)]
    glow = b.texture("glow")
    for _ in range(6 + choice(b.rng, 14)):
        centre = [b.u(-10, 10), b.u(0, 8), b.u(-4, 25)]
        glows = choice(b.rng, 7) == 0
        texture, material = (glow, Material.EMISSIVE) if glows else (textures[choice(b.rng, 4)], Material.OBJECT)
        velocity = [b.u(-2, 2), b.u(-1, 1), b.u(-2, 2)] if choice(b.rng, 2) else None
        if choice(b.rng, 3):
            half = [b.u(0.3, 3), b.u(0.3, 3), b.u(0.3, 3)]
            b.box(centre, half, texture, material, scale=b.u(0.2, 0.8), yaw=b.u(0, 6.28), velocity=velocity)
        else:
            b.sphere(centre, b.u(0.3, 2), texture, material, velocity)


def _look_rotation(yaw: float, pitch: float, roll: float = 0.0) -> Tensor:
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    forward = torch.tensor([sy * cp, sp, cy * cp])
    right = torch.tensor([cy, 0.0, -sy])
    up = torch.linalg.cross(forward, right)
    if roll:
        c, s = math.cos(roll), math.sin(roll)
        right, up = right * c + up * s, up * c - right * s
    return torch.stack([right, up, forward], dim=1)


def _clear(b: _Builder, x: float, y: float, z: float) -> bool:
    """Whether a camera fits at a place: outside of every box, inside of every room."""
    for centre, half, yaw, _, _, _, _, inverted in b.boxes:
        dx, dy, dz = abs(x - centre[0]), abs(y - centre[1]), abs(z - centre[2])
        if inverted:
            if dx > half[0] - 0.5 or dy > half[1] - 0.1 or dz > half[2] - 0.5:
                return False
            continue
        reach = (half[0], half[2]) if yaw == 0.0 else (math.hypot(half[0], half[2]),) * 2
        if dx < reach[0] + 0.5 and dy < half[1] + 0.3 and dz < reach[1] + 0.5:
            return False
    return True


def _cameras(
    b: _Builder, family: str, frames: int, floor: Callable[[float, float], float]
) -> tuple[tuple[Camera, ...], tuple[bool, ...], tuple[float, ...]]:
    kind = ("walk", "walk", "walk", "orbit", "still", "whip", "cut", "fly")[choice(b.rng, 8)]
    fps = (15.0, 30.0, 60.0, 60.0, 120.0)[choice(b.rng, 5)]
    focal = {"side": b.u(1.6, 3.0), "top": b.u(1.2, 2.2)}.get(family, b.u(0.6, 1.4))
    speed, turn = b.u(1, 7), b.u(-1.2, 1.2)
    if kind == "whip":
        turn = b.u(3, 8) * (1 if choice(b.rng, 2) else -1)
    if kind == "still":
        speed = turn = 0.0
    yaw, pitch = b.u(-math.pi, math.pi), b.u(-0.25, 0.15)
    if family in ("corridor", "landscape"):
        yaw = b.u(-0.7, 0.7)
    spread = 3.0 if family in ("interior", "corridor") else 8.0
    if kind == "orbit" and family in ("interior", "corridor", "landscape"):
        kind = "walk"
    eye = b.u(0.9, 2.4)
    pos = [0.0, eye, 0.0]
    for _ in range(30):
        pos = [b.u(-spread, spread), eye, b.u(-spread, spread)]
        pos[1] += floor(pos[0], pos[2])
        if _clear(b, *pos):
            break
    if family == "abstract":
        pos = [b.u(-4, 4), b.u(1, 6), -8.0]
        yaw = b.u(-0.4, 0.4)
    strafe = b.u(-0.8, 0.8)
    cameras, cuts, times = [], [], []
    start = b.u(0, 100)
    for i in range(frames):
        cut = i == 0 or (kind == "cut" and i == frames // 2)
        if kind == "cut" and i == frames // 2:
            yaw += b.u(1, 5)
            there = [pos[0] + b.u(-3, 3), pos[1], pos[2] + b.u(-3, 3)]
            there[1] = pos[1] if family == "abstract" else floor(there[0], there[2]) + eye
            if _clear(b, *there):
                pos = there
        dt = 1 / fps
        if family == "side":
            x = pos[0] + speed * dt * i
            position, rotation = torch.tensor([x, 1.5 + 0.2 * pitch, -12.0]), _look_rotation(0.0, -0.02)
        elif family == "top":
            tilt = -1.15 - 0.3 * abs(strafe)
            x, z = pos[0] + speed * dt * i, pos[2] + strafe * speed * dt * i
            position, rotation = torch.tensor([x, 14.0, z - 5.0]), _look_rotation(0.0, max(tilt, -1.5))
        elif kind == "orbit":
            angle = yaw + turn * dt * i
            radius = 5.0 + abs(strafe) * 6
            position = torch.tensor([radius * math.sin(angle), pos[1] + 1.0, radius * math.cos(angle)])
            rotation = _look_rotation(angle + math.pi, pitch - 0.15)
        else:
            heading = yaw + turn * dt * i
            lift = math.sin(i * 0.7) * 0.02 if kind == "walk" else 0.0
            position = torch.tensor([pos[0], pos[1] + lift, pos[2]])
            climb = b.u(-0.5, 0.5) * 0.02 if kind == "fly" else 0.0
            rotation = _look_rotation(heading, pitch + climb, 0.05 * turn if kind == "whip" else 0.0)
            x = pos[0] + (math.sin(heading) + strafe * math.cos(heading)) * speed * dt
            z = pos[2] + (math.cos(heading) - strafe * math.sin(heading)) * speed * dt
            y = pos[1] if family == "abstract" else floor(x, z) + eye
            # Walls stop whoever walks, as in a game.
            if _clear(b, x, y, z):
                pos = [x, y, z]
        cameras.append(Camera(position, rotation, focal))
        cuts.append(cut)
        times.append(start + i * dt)
    return tuple(cameras), tuple(cuts), tuple(times)


def draw_scene(seed: int, frames: int, family: str) -> Scene:
    """Draw a random scene with a camera path of `frames` frames; the same seed gives the same scene."""
    rng = torch.Generator().manual_seed(seed)
    b = _Builder(rng)
    ground = b.texture("grass", "dirt", "stone", "tiles", "sand", "pebbles", "planks", "checker", "bricks")
    height_map = None
    extent, water = 1.0, -1e9
    indoor = family == "interior"
    if family == "landscape":
        height_map = tileable_noise(rng, 256, b.u(1.6, 2.3)) * b.u(1.5, 7.0)
        height_map = torch.where(height_map > 0, height_map, height_map * 0.5)
        extent, water = b.u(90, 220), b.u(-2.5, -0.2) if choice(rng, 2) else -1e9
        ground = b.texture("grass", "dirt", "sand", "stone")
        _landscape(b)
    else:
        layout = {"town": _town, "interior": _interior, "side": _side, "top": _top, "abstract": _abstract}
        layout.get(family, _corridor)(b)

    def floor(x: float, z: float) -> float:
        if height_map is None:
            return 0.0
        size = height_map.shape[0]
        ground_level = float(height_map[int(z / extent * size) % size, int(x / extent * size) % size])
        return max(ground_level, water) + 0.3

    cameras, cut, times = _cameras(b, family, frames, floor)
    if not b.spheres:
        b.sphere([0.0, -50.0, 0.0], 0.1, ground, Material.OBJECT)
    if not b.boxes:
        b.box([0.0, -50.0, 0.0], [0.1, 0.1, 0.1], ground, Material.OBJECT)
    azimuth, elevation = b.u(0, 2 * math.pi), b.u(0.45, 1.3)
    sun = torch.tensor(
        [
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
            math.cos(elevation) * math.cos(azimuth),
        ]
    )
    if family == "side":
        sun = torch.nn.functional.normalize(torch.tensor([b.u(-0.6, 0.6), b.u(0.5, 1.0), -b.u(0.4, 1.0)]), dim=0)
    lamps = b.lamps[:6] or [([0.0, -60.0, 0.0], [0.0, 0.0, 0.0])]
    boxes, spheres = list(zip(*b.boxes, strict=True)), list(zip(*b.spheres, strict=True))
    ground_kind = Material.GROUND
    scene = Scene(
        family=family,
        atlas=Atlas(torch.stack(b.textures)),
        smooth=bool(choice(rng, 4)),
        box_centre=torch.tensor(boxes[0]), box_half=torch.tensor(boxes[1]), box_yaw=torch.tensor(boxes[2]),
        box_texture=torch.tensor(boxes[3]), box_scale=torch.tensor(boxes[4]),
        box_material=torch.tensor([int(m) for m in boxes[5]]), box_velocity=torch.tensor(boxes[6]),
        box_inverted=torch.tensor(boxes[7]),
        sphere_centre=torch.tensor(spheres[0]), sphere_radius=torch.tensor(spheres[1]),
        sphere_texture=torch.tensor(spheres[2]), sphere_material=torch.tensor([int(m) for m in spheres[3]]),
        sphere_velocity=torch.tensor(spheres[4]),
        cards=draw_cards(rng, max(1, len(b.cards))),
        card_centre=torch.tensor([c[0] for c in b.cards]).reshape(-1, 3),
        card_size=torch.tensor([c[1] for c in b.cards]).reshape(-1, 2),
        card_velocity=torch.tensor([c[2] for c in b.cards]).reshape(-1, 3),
        ground_texture=ground, ground_scale=b.u(0.12, 0.5), ground_material=int(ground_kind),
        height_map=height_map, height_extent=extent, water_level=water,
        sun=sun, indoor=indoor,
        lamp_centre=torch.tensor([lamp[0] for lamp in lamps]), lamp_colour=torch.tensor([lamp[1] for lamp in lamps]),
        cloud_map=tileable_noise(rng, 256, 1.6), cloud_cover=b.u(-1.5, 1.0),
        cameras=cameras, cut=cut, times=times,
    )  # fmt: skip
    # Neon and coloured torches: a third of the games have them.
    return replace(scene, lamp_colour=_tinted(rng, scene.lamp_colour)) if choice(rng, 3) == 0 else scene


def _tinted(rng: torch.Generator, colours: Tensor) -> Tensor:
    """Lamps [n, 3] in any colours, as bright as they were."""
    hue = torch.rand(colours.shape, generator=rng)
    return hue / hue.amax(1, keepdim=True).clamp_min(0.05) * colours.amax(1, keepdim=True)

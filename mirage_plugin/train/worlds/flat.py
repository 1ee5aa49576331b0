"""Flat pictures: games of plain shapes or of tiles, without light or perspective.

Many a small game is one colour behind, shapes before it, and text: boards and menus, maps seen from above or aslant,
landscapes of silhouettes, roads to a horizon, space, plain corridors. A network that has seen textures alone makes
something of every plain area, and something else of each. Many others are tiles and sprites of a few texels, from the
side or from above, and their earth is no ground that lies. Nothing tells where the sun is in such a picture: all of it
has as much as what lies level.

Lengths are in heights of the frame, x to the right and y down.
"""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mirage_plugin.train.worlds.gbuffer import SKY_DEPTH, GBuffer, Material
from mirage_plugin.train.worlds.raycast import FLAT_UP, LEVEL_SUN, Window, draw_hud, seen_before
from mirage_plugin.train.worlds.textures import choice, draw_cards, draw_texture, uniform

__all__ = ["draw_flat_clip"]

Area = Callable[[Tensor, Tensor], Tensor]
"""Where something is: bool [h, w] of x and y [h, w]."""
Colour = tuple[float, float, float]

_TONES = (((0.7, 1.0), (0.6, 1.0)), ((0.15, 0.5), (0.75, 1.0)), ((0.1, 0.5), (0.35, 0.75)), ((0.3, 0.8), (0.15, 0.5)))
"""Saturation and value of a picture's colours: vivid, pale, muted, dark."""
_ACTORS = 200
"""From here on things have numbers that an engine's mask calls objects."""


@dataclass(frozen=True)
class _Shape:
    """What is painted over what was painted before. `up` says how far it faces up, `near` how near it is; of the
    camera's way it moves the part `parallax`, and itself by `velocity` a frame."""

    area: Area
    colour: Colour | Tensor
    """A colour, or a table [rows, columns, 3] of them by place, with `pitch` to a side."""
    material: Material
    up: float = 0.0
    near: int = 1
    parallax: float = 1.0
    velocity: tuple[float, float] = (0.0, 0.0)
    pitch: float = 1.0
    origin: tuple[float, float] = (0.0, 0.0)
    """Where the table's first colour is, (x, y)."""
    textured: bool = False
    """Whether the table is a texture, which a style may take away."""
    actor: bool = False
    glow: Callable[[Tensor, Tensor], Tensor] | None = None
    """How far its colour is from `colour` towards `other`, [h, w] in [0, 1]: light that is painted on."""
    other: Colour = (1.0, 1.0, 1.0)


def _dimmed(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by


def _lying(colour: Colour) -> float:
    """How far up the ground behind everything faces: black is where nothing is, and nothing lies there."""
    return FLAT_UP * min(1.0, max(colour) / 0.25)


def _box(x0: float, y0: float, x1: float, y1: float) -> Area:
    return lambda x, y: (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def _disc(cx: float, cy: float, rx: float, ry: float) -> Area:
    return lambda x, y: ((x - cx) / rx).square() + ((y - cy) / ry).square() < 1


def _polygon(cx: float, cy: float, radius: float, sides: int, turn: float) -> Area:
    """A regular polygon."""

    def area(x: Tensor, y: Tensor) -> Tensor:
        away = [
            (x - cx) * math.cos(turn + k * math.tau / sides) + (y - cy) * math.sin(turn + k * math.tau / sides)
            for k in range(sides)
        ]
        return torch.stack(away).amax(0) < radius

    return area


def _any(*areas: Area) -> Area:
    return lambda x, y: torch.stack([area(x, y) for area in areas]).any(0)


def _ring(shape: Callable[[float], Area], width: float) -> Area:
    """The outline of a shape of a size, from 1 inwards."""
    outer, inner = shape(1.0), shape(1.0 - width)
    return lambda x, y: outer(x, y) & ~inner(x, y)


class _Picture:
    """The shapes of a picture, those behind first."""

    def __init__(self, rng: torch.Generator, aspect: float) -> None:
        self.rng, self.aspect = rng, aspect
        self.shapes: list[_Shape] = []
        self.clouds: list[Area] = []
        self.horizon = 0.6
        self.tone = _TONES[choice(rng, len(_TONES))]

    def u(self, low: float, high: float) -> float:
        return uniform(self.rng, low, high)

    def odds(self, of: int) -> bool:
        """True once in so many times."""
        return choice(self.rng, of) == 0

    def colour(self, low: float = 0.0, high: float = 1.0) -> Colour:
        """A colour of the picture's tone, of a hue between the two."""
        saturation, value = self.tone
        return colorsys.hsv_to_rgb(self.u(low, high) % 1.0, self.u(*saturation), self.u(*value))

    def grey(self, low: float, high: float) -> Colour:
        """Nearly a grey, of a brightness between the two."""
        return colorsys.hsv_to_rgb(self.u(0, 1), self.u(0, 0.3), self.u(low, high))

    def add(self, shape: _Shape) -> None:
        self.shapes.append(shape)

    def cover(
        self, area: Area, tile: Tensor, side: float, material: Material, up: float, near: int, parallax: float = 1.0
    ) -> None:
        """Lay tiles [texels, texels, 3] of a side over an area."""
        self.add(_Shape(area, tile, material, up, near, parallax, pitch=side / len(tile), textured=True))

    def figure(self, cx: float, cy: float, size: float) -> Area:
        """Something of about that size."""
        sides, turn, wide = 3 + choice(self.rng, 5), self.u(0, 6.28), size * self.u(0.6, 1.6)
        shapes: list[Callable[[float], Area]] = [
            lambda s: _box(cx - s * wide, cy - s * size, cx + s * wide, cy + s * size),
            lambda s: _disc(cx, cy, s * size, s * size),
            lambda s: _polygon(cx, cy, s * size, sides, turn),
        ]
        chosen = shapes[choice(self.rng, 3)]
        return _ring(chosen, self.u(0.08, 0.3)) if self.odds(4) else chosen(1.0)

    def actors(self, count: int, up: float, material: Material) -> None:
        """Things that move, of one to three parts each."""
        for _ in range(count):
            cx, cy, size = self.u(0, self.aspect), self.u(0.1, 0.95), self.u(0.015, 0.07)
            move = (self.u(-0.01, 0.01), self.u(-0.004, 0.004)) if self.odds(2) else (0.0, 0.0)
            for _ in range(1 + choice(self.rng, 3)):
                part = self.figure(cx + self.u(-0.5, 0.5) * size, cy + self.u(-0.8, 0.8) * size, size * self.u(0.3, 1))
                self.add(_Shape(part, self.colour(), material, up, 4, velocity=move, actor=True))

    def table(self, rows: int, columns: int, colours: list[Colour]) -> Tensor:
        """Colours by place: float32 [rows, columns, 3]."""
        return torch.tensor(colours)[torch.randint(len(colours), (rows, columns), generator=self.rng)]

    def tiles(self, x0: float, y0: float, pitch: float, rows: int, columns: int, some: float) -> Callable[..., Area]:
        """Which tiles of a board there are: a function of the gap around each."""
        there = torch.rand(rows, columns, generator=self.rng) < some

        def with_gap(gap: float) -> Area:
            def area(x: Tensor, y: Tensor) -> Tensor:
                i, j = (y - y0) / pitch, (x - x0) / pitch
                row, column = i.floor().long(), j.floor().long()
                inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
                off = torch.maximum((i - row - 0.5).abs(), (j - column - 0.5).abs())
                return inside & there[row.clamp(0, rows - 1), column.clamp(0, columns - 1)] & (off < 0.5 - gap)

            return area

        return with_gap


def _everywhere(x: Tensor, y: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def _blobs(p: _Picture) -> Callable[[Tensor, Tensor], Tensor]:
    """A few soft lights: between their middles and nothing, [h, w] in [0, 1]."""
    blobs = [(p.u(0, p.aspect), p.u(0, 1), p.u(0.15, 0.8), p.u(0.3, 1.0)) for _ in range(1 + choice(p.rng, 3))]

    def glow(x: Tensor, y: Tensor) -> Tensor:
        each = [much * torch.exp(-((x - cx).square() + (y - cy).square()) / (2 * r * r)) for cx, cy, r, much in blobs]
        return torch.stack(each).sum(0).clamp(0, 1)

    return glow


def _brushed(p: _Picture) -> Callable[[Tensor, Tensor], Tensor]:
    """Soft noise of some scale, grained like wood at times, as backgrounds are painted: [h, w] in [0, 1]."""
    table = torch.rand(64, 64, generator=p.rng)
    wide = p.u(0.03, 0.5)
    scales = (wide, wide * (p.u(4, 12) if p.odds(3) else 1.0))
    fine = p.u(0.2, 0.8)

    def glow(x: Tensor, y: Tensor) -> Tensor:
        made = torch.zeros_like(x)
        for octave in range(4):
            i, j = (v * 2**octave / s + 7.3 * octave for v, s in zip((y, x), scales, strict=True))
            row, column = i.floor().long(), j.floor().long()
            down, across = i - row, j - column
            corners = [table[(row + a) % 64, (column + b) % 64] for a in (0, 1) for b in (0, 1)]
            upper, lower = (torch.lerp(corners[k], corners[k + 1], across) for k in (0, 2))
            made = made + fine**octave * torch.lerp(upper, lower, down)
        return made * ((1 - fine) / (1 - fine**4))

    return glow


def _darker_below(p: _Picture) -> Callable[[Tensor, Tensor], Tensor]:
    """From the top down, as no sky is."""
    return lambda x, y: y.clamp(0, 1)


def _board(p: _Picture) -> None:
    """A page: a plain or a painted ground, a board of tiles, cards, shapes and outlines."""
    ground = (p.grey(0.0, 0.2), p.grey(0.7, 1.0), p.colour(), p.colour(0.25, 0.45))[choice(p.rng, 4)]
    way = (None, None, None, _blobs, _blobs, _brushed, _brushed, _darker_below)[choice(p.rng, 8)]
    dim, other = p.u(0.2, 0.7), p.colour()
    if way is _darker_below or p.odds(2):
        other = _dimmed(ground, dim)
    glow = way and way(p)
    p.add(_Shape(_everywhere, ground, Material.GROUND, _lying(ground), 0, 0.0, glow=glow, other=other))
    if p.odds(3):
        wide, high, gap = p.u(0.06, 0.2), p.u(0.08, 0.35), p.u(0.01, 0.06)
        paper, rows = p.grey(0.8, 1.0) if choice(p.rng, 3) else p.colour(), 1 + choice(p.rng, 3)
        for row in range(rows):
            for column in range(2 + choice(p.rng, 7)):
                x, y = gap + column * (wide + gap), 0.1 + row * (high + gap)
                p.add(_Shape(_box(x, y, x + wide, y + high), paper, Material.OBJECT, FLAT_UP, 2))
                for _ in range(1 + choice(p.rng, 3)):
                    at = x + p.u(0.2, 0.8) * wide, y + p.u(0.2, 0.8) * high
                    p.add(_Shape(p.figure(*at, p.u(0.08, 0.2) * wide), p.colour(), Material.OBJECT, FLAT_UP, 3))
    elif choice(p.rng, 3):
        pitch, rows, columns = p.u(0.03, 0.12), 4 + choice(p.rng, 16), 4 + choice(p.rng, 14)
        x0, y0 = p.u(0, max(0.01, p.aspect - columns * pitch)), p.u(0, max(0.01, 1 - rows * pitch))
        frame = _box(x0 - 0.01, y0 - 0.01, x0 + columns * pitch + 0.01, y0 + rows * pitch + 0.01)
        p.add(_Shape(frame, p.grey(0.0, 1.0), Material.GROUND, FLAT_UP, 1))
        tiles = p.tiles(x0, y0, pitch, rows, columns, p.u(0.2, 1.0))
        colours = [p.colour() for _ in range(2 + choice(p.rng, 6))]
        looks = p.table(64, 64, colours)
        gap = p.u(0.0, 0.08)
        p.add(_Shape(tiles(gap), looks * p.u(0.5, 0.9), Material.OBJECT, FLAT_UP, 2, pitch=pitch))
        p.add(_Shape(tiles(gap + p.u(0.02, 0.12)), looks, Material.OBJECT, FLAT_UP, 2, pitch=pitch))
    for _ in range(choice(p.rng, 10)):
        figure = p.figure(p.u(0, p.aspect), p.u(0, 1), p.u(0.02, 0.2))
        p.add(_Shape(figure, p.grey(0.6, 1) if p.odds(2) else p.colour(), Material.OBJECT, FLAT_UP, 3))
    p.actors(choice(p.rng, 6), FLAT_UP, Material.OBJECT)


def _map(p: _Picture) -> None:
    """Ground seen from above: squares or hexagons of a few kinds, walls with a front, things on it."""
    kinds = [p.colour(0.2, 0.4), p.colour(0.08, 0.15), p.grey(0.15, 0.6), p.colour(0.25, 0.42), p.colour(0.52, 0.65)]
    painted, ground = _brushed(p) if p.odds(2) else None, kinds[choice(p.rng, 3)]
    p.add(_Shape(_everywhere, ground, Material.GROUND, FLAT_UP, 0, glow=painted, other=p.colour(0.1, 0.4)))
    if painted:
        way, part, half = _brushed(p), p.u(0.5, 0.9), p.u(0.02, 0.08)
        bend, middle = p.u(0.2, 1.0), p.u(0.2, 0.8)
        p.add(_Shape(lambda x, y: way(x, y) > part, p.colour(0.52, 0.65), Material.GROUND, FLAT_UP, 1))
        p.add(_Shape(
            lambda x, y: (y - middle - 0.15 * (x / bend).sin()).abs() < half, p.colour(0.08, 0.15), Material.GROUND,
            FLAT_UP, 1, glow=painted, other=p.grey(0.3, 0.8),
        ))  # fmt: skip
    pitch = p.u(0.05, 0.16)
    rows, columns = int(1 / pitch) + 4, int(p.aspect / pitch) + 4
    if p.odds(3):
        line = p.u(0.01, 0.06)
        for kind in range(len(kinds)):
            for _ in range(8 if kind else 20):
                row, column = choice(p.rng, rows), choice(p.rng, columns)
                x, y = (column + 0.5 * (row % 2)) * pitch, row * pitch * 0.866
                hexagon = _polygon(x, y, pitch * (0.5 - line), 6, 0.0)
                p.add(_Shape(hexagon, kinds[kind], Material.OBJECT, FLAT_UP, 1))
    else:
        for colour in kinds:
            some = p.tiles(-pitch, -pitch, pitch, rows, columns, p.u(0.0, 0.3))(p.u(0.0, 0.06))
            p.add(_Shape(some, colour, Material.OBJECT, FLAT_UP, 1))
    if p.odds(2):
        top, front = p.grey(0.2, 0.8), p.grey(0.1, 0.5)
        there = p.tiles(-pitch, -pitch, pitch, rows, columns, p.u(0.05, 0.25))(0.0)
        high = pitch * p.u(0.15, 0.4)
        p.add(_Shape(lambda x, y: there(x, y - high), front, Material.WALL, FLAT_UP, 2))
        p.add(_Shape(there, top, Material.WALL, FLAT_UP, 3))
    p.actors(2 + choice(p.rng, 8), FLAT_UP, Material.OBJECT)


def _sky(p: _Picture) -> None:
    """A sky that pales towards the horizon, with clouds of its own or white ones before it; or one plain colour, which
    nothing tells from a board, and which is painted as one."""
    p.horizon = p.u(0.4, 0.8)
    if p.odds(2):
        blue = p.colour(0.5, 0.7) if choice(p.rng, 3) else p.colour()
        p.add(_Shape(_everywhere, blue, Material.GROUND, FLAT_UP, 0, 0.0))
    painted, white = p.odds(2), p.grey(0.75, 1.0)
    for _ in range(choice(p.rng, 6)):
        x, y, r, flat = p.u(0, p.aspect), p.u(0.03, 0.4), p.u(0.04, 0.16), p.u(0.25, 0.6)
        cloud = _disc(x, y, r, r * flat)
        if p.odds(2):
            cloud = _any(cloud, *(_disc(x + off * r, y, 0.6 * r, 0.7 * r * flat) for off in (-0.7, 0.7)))
        if painted or p.shapes:
            p.add(_Shape(cloud, white, Material.OBJECT, 0.3, 1, p.u(0.05, 0.3)))
        else:
            p.clouds.append(cloud)


def _ridges(p: _Picture) -> None:
    """Layers of silhouettes that follow the camera the less the farther they are."""
    for layer in range(choice(p.rng, 4)):
        base, high, length = p.horizon + 0.08 * layer, p.u(0.05, 0.35), p.u(0.2, 0.9)
        shift, sharp = p.u(0, 10), p.odds(2)

        def hill(x: Tensor, y: Tensor, base: float = base, high: float = high, length: float = length,
                 shift: float = shift, sharp: bool = sharp) -> Tensor:  # fmt: skip
            wave = x / length + shift
            form = 1 - 2 * (wave - wave.floor() - 0.5).abs() if sharp else (wave * math.tau).sin() * 0.5 + 0.5
            return y > base - high * form

        # Nothing but its colour tells a wood from a dune.
        kind, colour = (
            (Material.FOLIAGE, p.colour(0.2, 0.42)) if choice(p.rng, 2) else (Material.GROUND, p.colour(0.45, 1.18))
        )
        p.add(_Shape(hill, colour, kind, 0.4, 1, 0.25 + 0.2 * layer))


def _hills(p: _Picture) -> None:
    """Layers of silhouettes, ground with a cap that faces up, platforms, things in the air."""
    _sky(p)
    _ridges(p)
    level, step = p.u(0.72, 0.92), p.u(0.08, 0.4)
    steps = (torch.randint(4, (64,), generator=p.rng) * 0.04 * choice(p.rng, 2)).float()

    def ground(x: Tensor, y: Tensor, down: float = 0.0) -> Tensor:
        return y > level + down + steps[(x / step).floor().long() % 64]

    cap = p.u(0.015, 0.05)
    p.add(_Shape(ground, p.colour(0.2, 0.45), Material.GROUND, 1.0, 2))
    p.add(_Shape(lambda x, y: ground(x, y, cap), p.colour(0.02, 0.12), Material.GROUND, 0.0, 2))
    for _ in range(choice(p.rng, 8)):
        x, y, w, h = p.u(0, p.aspect), p.u(0.3, 0.8), p.u(0.06, 0.3), p.u(0.03, 0.08)
        colour, rim = p.colour(), p.u(0.008, 0.02)
        p.add(_Shape(_box(x, y, x + w, y + h), p.colour(), Material.WALL, 1.0, 3))
        p.add(_Shape(_box(x, y + rim, x + w, y + h), colour, Material.WALL, 0.0, 3))
    p.actors(2 + choice(p.rng, 6), 0.0, Material.CREATURE)


def _city(p: _Picture) -> None:
    """Rows of houses one before the other, dark or coloured, with windows, before a sky."""
    _sky(p)
    p.horizon = 1.0
    colour, fading = p.colour(), p.u(0.4, 0.9)
    lit = [p.colour(0.08, 0.16), p.grey(0.7, 1.0), p.grey(0.0, 0.3)][choice(p.rng, 3)]
    for layer in range(1 + choice(p.rng, 4)):
        pitch, base, high = p.u(0.06, 0.25), p.u(0.7, 0.95), p.u(0.1, 0.6)
        heights = base - high * torch.rand(64, generator=p.rng)
        shift = 0.2 + 0.25 * layer

        def house(x: Tensor, y: Tensor, pitch: float = pitch, heights: Tensor = heights) -> Tensor:
            return y > heights[(x / pitch).floor().long() % 64]

        p.add(_Shape(house, colour, Material.WALL, 0.0, 1, shift))
        if choice(p.rng, 3):
            rows = p.u(0.02, 0.05)
            some = p.tiles(-1.0, 0.0, rows, int(1 / rows) + 1, int((p.aspect + 3) / rows), p.u(0.1, 0.6))(p.u(0.1, 0.3))

            def window(x: Tensor, y: Tensor, house: Area = house, some: Area = some, pitch: float = pitch) -> Tensor:
                return house(x, y - 0.02) & some(x, y) & ((x / pitch) % 1 > 0.15)

            p.add(_Shape(window, lit, Material.WINDOW, 0.0, 1, shift))
        colour = _dimmed(colour, fading)
    level = p.u(0.8, 0.97)
    p.add(_Shape(lambda x, y: y > level, p.colour() if p.odds(2) else p.grey(0, 0.4), Material.GROUND, FLAT_UP, 2))
    p.actors(2 + choice(p.rng, 4), 0.0, Material.CREATURE)


def _road(p: _Picture) -> None:
    """A road that goes to the horizon, striped beside, and what drives on it."""
    _sky(p)
    h, half, lane = p.horizon, p.u(0.3, 1.0), p.u(0.05, 0.15)
    middle = p.aspect * p.u(0.35, 0.65)
    ground = p.colour(0.2, 0.45) if choice(p.rng, 3) else p.colour()
    p.add(_Shape(lambda x, y: y > h, ground, Material.GROUND, FLAT_UP, 1))

    def strip(inner: float, outer: float, striped: bool) -> Area:
        def area(x: Tensor, y: Tensor) -> Tensor:
            near = ((y - h) / (1 - h)).clamp_min(1e-3)
            off = (x - middle).abs() / (half * near)
            odd = (near.log() * 6).floor() % 2 > 0 if striped else torch.ones_like(off, dtype=torch.bool)
            return (y > h) & (off > inner) & (off < outer) & odd

        return area

    p.add(_Shape(strip(-1.0, 1.0, False), p.grey(0.2, 0.6), Material.GROUND, FLAT_UP, 1, 0.0))
    p.add(_Shape(strip(1.0, 1.0 + lane, False), p.colour(), Material.GROUND, FLAT_UP, 1, 0.0))
    p.add(_Shape(strip(1.0, 1.0 + lane, True), p.grey(0.7, 1.0), Material.GROUND, FLAT_UP, 1, 0.0))
    p.add(_Shape(strip(-1.0, 0.03, True), p.grey(0.7, 1.0), Material.GROUND, FLAT_UP, 1, 0.0))
    for _ in range(choice(p.rng, 8)):
        side, near, size = p.u(1.4, 3.0) * (1 if p.odds(2) else -1), p.u(0.05, 0.9), p.u(0.1, 0.5)
        x, y, s = middle + side * half * near, h + (1 - h) * near, size * near
        p.add(_Shape(_box(x - 0.15 * s, y - s, x + 0.15 * s, y), p.colour(0.02, 0.12), Material.OBJECT, near=2))
        crown = _disc(x, y - s, 0.5 * s, 0.6 * s)
        p.add(_Shape(crown, p.colour(0.2, 0.45), Material.FOLIAGE, 0.3, 2))
    p.actors(1 + choice(p.rng, 4), 0.0, Material.OBJECT)


def _space(p: _Picture) -> None:
    """Stars on black or before coloured clouds, planets, what flies and what shines: none of it is a sky to paint."""
    dark = colorsys.hsv_to_rgb(p.u(0.5, 0.9), p.u(0.3, 1), p.u(0.03, 0.25))
    ground = (p.grey(0.0, 0.06), p.grey(0.0, 0.12), dark)[choice(p.rng, 3)]
    cloud = colorsys.hsv_to_rgb(p.u(0, 1), p.u(0.4, 1), p.u(0.1, 0.6))
    glow = _blobs(p) if choice(p.rng, 3) else None
    p.add(_Shape(_everywhere, ground, Material.GROUND, _lying(ground), 0, 0.05, glow=glow, other=cloud))
    for _ in range(1 + choice(p.rng, 3)):
        some = p.tiles(0.0, 0.0, 0.04, 26, int(p.aspect / 0.04) + 1, p.u(0.02, 0.4))(p.u(0.38, 0.47))
        p.add(_Shape(some, p.grey(0.3, 1.0), Material.OBJECT, FLAT_UP, 1, p.u(0.1, 1.0)))
    for _ in range(choice(p.rng, 3)):
        x, y, r = p.u(0, p.aspect), p.u(0, 1), p.u(0.05, 0.4)
        shade = None if p.odds(2) else _blobs(p)
        p.add(_Shape(_disc(x, y, r, r), p.colour(), Material.OBJECT, FLAT_UP, 1, 0.2, glow=shade, other=p.grey(0, 1)))
    for _ in range(choice(p.rng, 14)):
        x, y, r = p.u(0, p.aspect), p.u(0, 1), p.u(0.006, 0.03)
        move, around = (0.0, p.u(-0.02, 0.02)), p.colour()
        p.add(_Shape(_disc(x, y, 2 * r, 2 * r), around, Material.OBJECT, FLAT_UP, 3, velocity=move, actor=True))
        p.add(_Shape(_disc(x, y, r, r), p.grey(0.8, 1), Material.OBJECT, FLAT_UP, 3, velocity=move, actor=True))
    p.actors(1 + choice(p.rng, 8), FLAT_UP, Material.OBJECT)


def _aslant(p: _Picture) -> None:
    """Blocks on a board that is seen aslant from above: what is on top of them lies, their sides stand."""
    around = (p.grey(0.0, 0.3), p.grey(0.7, 1.0), p.colour())[choice(p.rng, 3)]
    p.add(_Shape(_everywhere, around, Material.GROUND, _lying(around), 0, 0.0))
    rows, half = 3 + choice(p.rng, 8), p.u(0.04, 0.1)
    cx, cy, flat = p.aspect * p.u(0.35, 0.65), p.u(0.1, 0.35), p.u(0.45, 0.65)
    kinds = [p.colour() for _ in range(2 + choice(p.rng, 4))]
    left, right, tall = p.u(0.4, 0.9), p.u(0.4, 0.9), p.u(0.0, 0.5)

    def lozenge(x0: float, y0: float) -> Area:
        return lambda x, y: (x - x0).abs() / half + (y - y0).abs() / (half * flat) < 1

    def side(x0: float, y0: float, high: float, way: int) -> Area:
        def area(x: Tensor, y: Tensor) -> Tensor:
            across = (x - x0) * way
            below = y - (y0 + flat * (half - across))
            return (across >= 0) & (across < half) & (below >= 0) & (below < high)

        return area

    for row in range(rows):
        for column in range(rows):
            x0, y0 = cx + (column - row) * half, cy + (column + row) * half * flat
            top = kinds[choice(p.rng, len(kinds))]
            high = p.u(0.0, 0.25) if p.u(0, 1) < tall else 0.0
            thing = Material.WALL if high else Material.GROUND
            for dim, way in ((left, -1), (right, 1)):
                front = side(x0, y0 - high, high + 0.02, way)
                p.add(_Shape(front, _dimmed(top, dim), Material.WALL, 0.0, 3))
            p.add(_Shape(lozenge(x0, y0 - high), top, thing, 1.0, 3))
    p.actors(choice(p.rng, 5), 0.0, Material.OBJECT)


def _between(x0: float, y0: float, x1: float, y1: float, x: Tensor, _: Tensor) -> Tensor:
    """The line through two points."""
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _halls(p: _Picture) -> None:
    """A maze of plain walls as the first games in three dimensions drew it: every wall of one colour, darker from the
    other side or far away, a floor and a ceiling of one colour or of two that run into each other."""
    p.horizon = h = p.u(0.4, 0.6)
    fading, dim = p.odds(2), p.u(0.5, 0.9)
    ramp = (lambda x, y: (1 - 2 * (y - h).abs()).clamp(0, 1)) if fading else None
    for kind, up in ((Material.WALL, -1.0), (Material.GROUND, 1.0)):
        plain, away = (p.grey(0.0, 0.5), p.grey(0.0, 0.2)) if choice(p.rng, 3) else (p.colour(), p.colour())
        half = _box(-9.0, h, 9.0, 9.0) if up > 0 else _box(-9.0, -9.0, 9.0, h)
        p.add(_Shape(half, plain, kind, up, 0, glow=ramp, other=away))
    colours = [p.colour() for _ in range(1 + choice(p.rng, 3))]
    x, tall = p.u(-0.3, 0.0), p.u(0.05, 0.6)
    while x < p.aspect:
        end, rise = x + p.u(0.05, 0.8), p.u(0.05, 0.7) if p.odds(3) else tall
        colour = colours[choice(p.rng, len(colours))]
        if p.odds(2):
            colour, rise = _dimmed(colour, dim), tall
        tops = functools.partial(_between, x, tall, end, rise)

        def wall(x: Tensor, y: Tensor, tops: Area = tops, x0: float = x, x1: float = end) -> Tensor:
            return (x >= x0) & (x < x1) & ((y - h).abs() < tops(x, y))

        def away_from(x: Tensor, y: Tensor, tops: Area = tops) -> Tensor:
            return (1 - 2.5 * tops(x, y)).clamp(0, 0.9)

        p.add(_Shape(wall, colour, Material.WALL, 0.0, 1, glow=away_from if fading else None, other=(0.0, 0.0, 0.0)))
        x, tall = end, rise
    p.actors(choice(p.rng, 5), 0.0, Material.CREATURE)


def _tile(p: _Picture, *kinds: str) -> Tensor:
    """A tile of a kind of texture, waves or a block with lit edges, 8 to 32 texels to a side: [side, side, 3]."""
    side = 8 << choice(p.rng, 3)
    kind = kinds[choice(p.rng, len(kinds))]
    if kind in ("waves", "block"):
        v, u = torch.meshgrid(*[(torch.arange(side) + 0.5) / side] * 2, indexing="ij")
        if kind == "waves":
            wave = v * (1 + choice(p.rng, 3)) + p.u(0.03, 0.2) * (math.tau * u * (1 + choice(p.rng, 2))).sin()
            tone = torch.where(wave % 1.0 < p.u(0.3, 0.7), 1.0, p.u(0.5, 0.9))
        else:
            rim = p.u(0.06, 0.2)
            low, high = torch.minimum(u, v) < rim, torch.maximum(u, v) > 1 - rim
            tone = 1.0 - 0.4 * high.float() + 0.3 * (low & ~high).float()
        made = tone * torch.tensor(p.colour()).view(3, 1, 1)
    else:
        coarse = 1 << choice(p.rng, 3)
        whole = draw_texture(kind, p.rng)[:3, : side * coarse, : side * coarse]
        made = functional.avg_pool2d(whole, coarse)
        if p.odds(2):
            grey = made.mean(0, keepdim=True)
            made = grey / grey.mean() * torch.tensor(p.colour()).view(3, 1, 1)
    if p.odds(2):
        few = p.u(5, 14)
        made = (made * few).round() / few
    return made.clamp(0, 1).permute(1, 2, 0)


def _marked(there: Tensor, pitch: float) -> Area:
    """The tiles that a map bool [rows, columns] marks; it begins anew to the side, and ends above and below."""
    rows, columns = there.shape

    def area(x: Tensor, y: Tensor) -> Tensor:
        row, column = (y / pitch).floor().long(), (x / pitch).floor().long()
        return (row >= 0) & (row < rows) & there[row.clamp(0, rows - 1), column % columns]

    return area


def _rim(area: Area, wide: float) -> Area:
    """What of an area is no further than `wide` from its border."""
    ways = ((wide, 0), (-wide, 0), (0, wide), (0, -wide))
    return lambda x, y: area(x, y) & ~torch.stack([area(x + i, y + j) for i, j in ways]).all(0)


def _sprite(p: _Picture, cx: float, foot: float, high: float, material: Material, up: float, *, actor: bool) -> None:
    """A creature or a plant of 8 to 64 texels that stands on `foot`."""
    fine = 1 << choice(p.rng, 4)
    card = draw_cards(p.rng, 1)[0, :, fine // 2 :: fine, fine // 2 :: fine]
    pitch, there = high / card.shape[1], card[3] > 0.5
    looks = card[:3]
    if material == Material.FOLIAGE:
        # Nothing but its colour tells a bush from a beast.
        green = torch.tensor(p.colour(0.2, 0.42)).view(3, 1, 1)
        looks = (looks.mean(0) / looks.mean().clamp_min(0.05) * green).clamp(0, 1)
    x0, y0 = cx - high / 2, foot - high

    def area(x: Tensor, y: Tensor) -> Tensor:
        row, column = ((y - y0) / pitch).floor().long(), ((x - x0) / pitch).floor().long()
        last = len(there) - 1
        inside = (row >= 0) & (row <= last) & (column >= 0) & (column <= last)
        return inside & there[row.clamp(0, last), column.clamp(0, last)]

    move = (p.u(-0.012, 0.012), p.u(-0.004, 0.004) * choice(p.rng, 2)) if actor and p.odds(2) else (0.0, 0.0)
    p.add(_Shape(
        area, looks.permute(1, 2, 0), material, up, 4, velocity=move, pitch=pitch, origin=(x0, y0), actor=actor
    ))  # fmt: skip


_EARTH = ("waves", "block", "dirt", "stone", "bricks", "planks", "tiles", "panels", "pebbles", "plaster", "checker")


def _platforms(p: _Picture) -> None:
    """Tiles seen from the side: earth with a cap of grass or none, islands, caves, blocks, trees, who walks there."""
    t, wide = p.u(0.04, 0.14), 64
    rows = int(1 / t) + 2
    cave = p.odds(3)
    if cave:
        back = _tile(p, *_EARTH)
        share = (0.0, 0.5, 1.0)[choice(p.rng, 3)]
        p.cover(_everywhere, back * p.u(0.2, 0.7), t, Material.WALL, 0.0, 0, share)
    else:
        _sky(p)
        _ridges(p)
    solid = torch.zeros(rows, wide, dtype=torch.bool)
    column, level = 0, rows * p.u(0.5, 0.85)
    roof = p.u(0.0, 0.3) * rows if cave or p.odds(4) else 0.0
    while column < wide:
        run = 1 + choice(p.rng, 7)
        # Now and then a pit.
        first = rows if p.odds(9) else round(level)
        solid[first:, column : column + run] = True
        if roof > 0:
            solid[: max(0, round(roof + p.u(-2, 2))), column : column + run] = True
        column, level = column + run, min(max(level + p.u(-3.5, 3.5), 0.35 * rows), rows - 1.0)
    for _ in range(choice(p.rng, 14)):
        row, column = choice(p.rng, rows), choice(p.rng, wide)
        solid[row : row + 1 + choice(p.rng, 3), column : column + 1 + choice(p.rng, 6)] = True
    open_above = torch.cat([torch.zeros(1, wide, dtype=torch.bool), ~solid[:-1]]) & solid
    earth, body = _marked(solid, t), _tile(p, *_EARTH)
    p.cover(earth, body, t, Material.GROUND, 0.0, 2)
    if choice(p.rng, 3):
        line = t * p.u(0.04, 0.25)
        p.cover(_rim(earth, line), body * p.u(0.3, 0.9), t, Material.GROUND, 0.0, 2)
    top, cap, texel = _marked(open_above, t), p.u(0.08, 0.5), t / (8 << choice(p.rng, 2))
    fringe = torch.rand(64, generator=p.rng) * p.u(0.0, 0.3)

    def capped(x: Tensor, y: Tensor) -> Tensor:
        return top(x, y) & (y / t % 1.0 < cap + fringe[(x / texel).floor().long() % 64])

    def tufts(x: Tensor, y: Tensor) -> Tensor:
        return top(x, y + t) & (1 - y / t % 1.0 < 2 * fringe[(x / texel).floor().long() % 64])

    grass = _tile(p, "grass", "grass", "leaves", "sand", "stone", "block") if choice(p.rng, 4) else body
    p.cover(capped, grass, t, Material.GROUND, 1.0, 2)
    if p.odds(3):
        p.cover(tufts, grass, t, Material.FOLIAGE, 0.4, 3)
    floors = open_above.nonzero()
    for _ in range(choice(p.rng, 9) if len(floors) else 0):
        row, column = (int(n) for n in floors[choice(p.rng, len(floors))])
        # Of the map that begins anew to the side, what the camera sees first.
        x, foot = (column % max(1, round(p.aspect / t)) + 0.5) * t, row * t
        if p.odds(2):
            _sprite(p, x, foot, t * p.u(0.5, 2.5), Material.FOLIAGE, 0.4, actor=False)
            continue
        high, thin, r = t * p.u(1.5, 7), t * p.u(0.08, 0.3), t * p.u(0.6, 2)
        bark, leaves = _tile(p, "bark", "planks"), _tile(p, "leaves", "grass", "crown")
        crown = _any(*(
            _disc(x + p.u(-0.8, 0.8) * r, foot - high + p.u(-0.5, 0.5) * r, p.u(0.5, 1) * r, p.u(0.4, 0.8) * r)
            for _ in range(1 + choice(p.rng, 4))
        ))  # fmt: skip
        trunk = _box(x - thin, foot - high, x + thin, foot)
        p.cover(trunk, bark, t, Material.WALL, 0.0, 2)
        p.cover(crown, leaves, t, Material.FOLIAGE, 0.4, 2)
    blocks = (torch.rand(rows, wide, generator=p.rng) < p.u(0.0, 0.08)) & ~solid
    block = _tile(p, "block", "bricks", "panels", "planks")
    p.cover(_marked(blocks, t), block, t, Material.OBJECT, 0.0, 3)
    coin, r = p.colour(0.1, 0.17), t * p.u(0.15, 0.35)
    for _ in range(choice(p.rng, 8)):
        x, y = p.u(0, p.aspect), p.u(0.1, 0.9)
        p.add(_Shape(_disc(x, y, r * p.u(0.3, 1), r), coin, Material.OBJECT, 0.0, 3, actor=True))
    for _ in range(1 + choice(p.rng, 6)):
        _sprite(p, p.u(0, p.aspect), p.u(0.2, 0.9), t * p.u(0.8, 2.5), Material.CREATURE, 0.0, actor=True)


def _rooms(p: _Picture) -> None:
    """Tiles seen from above: a floor, ways and waters over it, walls with a front, trees, things, who walks there."""
    t, wide = p.u(0.035, 0.13), 64
    rows = int(1 / t) + 2
    inside = p.odds(2)
    floors = ("tiles", "planks", "stone", "checker", "block") if inside else ("grass", "grass", "dirt", "sand")
    p.cover(_everywhere, _tile(p, *floors), t, Material.GROUND, FLAT_UP, 0)
    middles = torch.meshgrid((torch.arange(rows) + 0.5) * t, (torch.arange(wide) + 0.5) * t, indexing="ij")
    for _ in range(choice(p.rng, 4)):
        way, part = _brushed(p), p.u(0.5, 0.75)
        # As fine as the picture, or in whole tiles.
        area = _marked(way(*middles[::-1]) > part, t) if choice(p.rng, 3) else (lambda x, y, w=way, s=part: w(x, y) > s)
        over = _tile(p, "dirt", "sand", "stone", "pebbles", "grass", "plain", "waves", "tiles")
        p.cover(area, over, t, Material.GROUND, FLAT_UP, 1)
        if p.odds(2):
            p.cover(_rim(area, t * p.u(0.05, 0.2)), over * p.u(0.4, 1.2), t, Material.GROUND, FLAT_UP, 1)
    walls = torch.zeros(rows, wide, dtype=torch.bool)
    way_of_walls = choice(p.rng, 4)
    if way_of_walls == 1:
        walls[1::2, 1::2] = True
        walls |= torch.rand(rows, wide, generator=p.rng) < p.u(0.0, 0.5)
    elif way_of_walls == 2:
        for _ in range(2 + choice(p.rng, 5)):
            row, column, h, w = choice(p.rng, rows), choice(p.rng, wide), 3 + choice(p.rng, 8), 4 + choice(p.rng, 10)
            room = walls[row : row + h, column : column + w]
            room[[0, -1]] = True
            room[:, [0, -1]] = True
            room[torch.rand(room.shape, generator=p.rng) < 0.1] = False
    elif way_of_walls == 3:
        walls |= _brushed(p)(*middles[::-1]) > p.u(0.5, 0.7)
    if walls.any():
        side, top = _tile(p, *_EARTH), _tile(p, *_EARTH)
        there, high = _marked(walls, t), t * p.u(0.1, 0.9) * choice(p.rng, 2)
        p.cover(lambda x, y: there(x, y - high), side * p.u(0.4, 1), t, Material.WALL, FLAT_UP, 2)
        p.cover(there, top, t, Material.WALL, FLAT_UP, 3)
    leaves = _tile(p, "leaves", "grass", "crown")
    for _ in range(choice(p.rng, 10) * (not inside)):
        x, y, r = p.u(0, p.aspect), p.u(0, 1), t * p.u(0.4, 1.6)
        crown = _any(*(_disc(x + p.u(-0.5, 0.5) * r, y + p.u(-0.5, 0.5) * r, r, r * p.u(0.7, 1)) for _ in range(2)))
        p.cover(crown, leaves, t, Material.FOLIAGE, FLAT_UP, 4)
    for _ in range(choice(p.rng, 12)):
        _sprite(p, p.u(0, p.aspect), p.u(0.05, 1), t * p.u(0.5, 1.6), Material.OBJECT, FLAT_UP, actor=p.odds(2))
    if p.odds(3):
        x0, y0 = p.u(-0.1, 0.4) * p.aspect, p.u(-0.1, 0.4)
        lit = _box(x0, y0, x0 + p.u(0.4, 0.9) * p.aspect, y0 + p.u(0.4, 0.9))
        around = p.grey(0.0, 0.2)
        p.add(_Shape(lambda x, y: ~lit(x, y), around, Material.GROUND, _lying(around), 4))


def _paint(p: _Picture, window: Window, way: tuple[float, float], step: int) -> dict[str, Tensor]:
    """One frame, the camera `step` steps on its `way`, with what `seen_before` asks for; each [C, h, w]."""
    lines, h, w = window.frame_height, window.height, window.width
    rows = (torch.arange(h) + 0.5 + round(window.top))[:, None].expand(h, w) / lines
    columns = (torch.arange(w) + 0.5 + round(window.left))[None].expand(h, w) / lines
    one = torch.ones(1, h, w)
    rising = (p.horizon - rows)[None]
    out = {
        "albedo": torch.zeros(3, h, w), "flat": torch.zeros(3, h, w), "material": one * 0, "ident": one * 0,
        "depth": one * SKY_DEPTH, "up": one * 0, "motion": torch.zeros(2, h, w),
        "height": (rising * 150).clamp(-50, 100), "cloud": one * 0,
    }  # fmt: skip
    for area in p.clouds:
        out["cloud"] = torch.maximum(out["cloud"], area(columns, rows)[None].float())
    for number, shape in enumerate(p.shapes):
        # Whole pixels, as such games move.
        at, was = (
            [round(lines * (v * i - shape.parallax * c * i)) for v, c in zip(shape.velocity, way, strict=True)]
            for i in (step, step - 1)
        )
        x, y = columns - at[0] / lines, rows - at[1] / lines
        where = shape.area(x, y)[None]
        colour = shape.colour
        if isinstance(colour, Tensor):
            row = ((y - shape.origin[1]) / shape.pitch).floor().long() % colour.shape[0]
            column = ((x - shape.origin[0]) / shape.pitch).floor().long() % colour.shape[1]
            painted = colour[row, column].permute(2, 0, 1)
            plain = colour.mean((0, 1)).view(3, 1, 1).expand(3, h, w) if shape.textured else painted
        else:
            plain = painted = torch.tensor(colour).view(3, 1, 1).expand(3, h, w)
        if shape.glow is not None:
            lit = torch.tensor(shape.other).view(3, 1, 1)
            plain = painted = painted + shape.glow(x, y)[None] * (lit - painted)
        values = {
            "albedo": painted, "flat": plain, "material": one * int(shape.material), "up": one * shape.up,
            "ident": one * (number % (_ACTORS - 1) + 1 + (_ACTORS if shape.actor else 0)),
            "depth": one * (12.0 - shape.near), "height": one * 0, "cloud": one * 0,
            "motion": torch.tensor([float(b - a) for a, b in zip(at, was, strict=True)]).view(2, 1, 1) * one,
        }  # fmt: skip
        for name, value in values.items():
            out[name] = torch.where(where, value, out[name])
    return out | {"expected": out["depth"], "visible": one > 0}


def draw_flat_clip(seed: int, frames: int, window: Window) -> GBuffer:
    """Draw a clip of a flat picture as seen through a window; the same seed gives the same clip."""
    rng = torch.Generator().manual_seed(seed)
    tiled = (_platforms, _rooms) * 2
    kinds = (_board, _board, _map, _hills, _road, _city, _space, _aslant, _halls, *tiled)
    cut = frames // 2 if frames > 1 and choice(rng, 10) == 0 else frames
    painted: list[dict[str, Tensor]] = []
    for first, last in ((0, cut), (cut, frames)):
        picture = _Picture(rng, window.frame_width / window.frame_height)
        kinds[choice(rng, len(kinds))](picture)
        moving = choice(rng, 2)
        way = (moving * uniform(rng, -0.02, 0.02), moving * uniform(rng, -0.006, 0.006) * choice(rng, 2))
        for i in range(first, last):
            painted.append(_paint(picture, window, way, i - first))
            if i > first:
                painted[i]["visible"] = seen_before(painted, i)
            else:
                painted[i]["visible"] = torch.zeros_like(painted[i]["visible"])
                painted[i]["motion"] = torch.zeros_like(painted[i]["motion"])
    stack = {name: torch.stack([f[name] for f in painted]) for name in painted[0]}
    solid = (stack["material"] > 0).float()
    up = stack["up"]
    front = torch.cat([torch.zeros_like(up), up, -(1 - up.square()).sqrt()], 1)
    hud = draw_hud(rng, window.height, window.width, often=True)[None].expand(frames, -1, -1, -1)
    half = {
        "albedo": stack["albedo"], "flat": stack["flat"], "direct": LEVEL_SUN * solid,
        "ambient": (0.72 + 0.28 * up) * solid, "lamp": torch.zeros_like(stack["albedo"]), "normal": front,
        # What faces up is seen from above, or at a slant.
        "facing": torch.where(up > 0.9, 0.8, 1.0), "height": stack["height"], "cloud": stack["cloud"],
        "motion": stack["motion"], "hud": hud,
    }  # fmt: skip
    return GBuffer(
        **{name: value.half() for name, value in half.items()}, depth=stack["depth"].float(),
        material=stack["material"].to(torch.uint8), ident=stack["ident"].to(torch.int16),
        visible=stack["visible"].bool(), cut=torch.tensor([i in (0, cut) for i in range(frames)]).view(-1, 1, 1, 1),
    )  # fmt: skip

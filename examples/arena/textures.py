"""The arena's pictures, drawn by program when the game starts: wall and floor tiles, and sprites.

A tile is float32 `[128, 128, 3]` in 0..1 and spans two metres; every tile repeats in both directions. Rows
run downwards on walls. A sprite is a `SpriteArt`: float32 `[h, w, 4]`, its last channel 0 or 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILE", "Material", "SpriteArt", "draw_sprites", "draw_tiles", "material_of_tile"]

Image = NDArray[np.floating[Any]]

TILE = 128
"""Pixels along the side of a tile; a tile spans two metres."""


class Material(IntEnum):
    """What a pixel is made of, as written into `GBuffer.material`."""

    SKY = 0
    GROUND = 1
    STONE = 2
    BRICK = 3
    PLASTER = 4
    WOOD = 5
    METAL = 6
    TILES = 7
    FOLIAGE = 8
    WATER = 9
    EMISSIVE = 10
    CREATURE = 11
    CRYSTAL = 12
    CLOTH = 13


@dataclass(frozen=True)
class SpriteArt:
    """One billboard picture and what it is made of."""

    name: str
    rgba: Image
    material: Material
    emissive: float
    """How much of its own light it gives, 0 (lit by the world) to 1 (not at all)."""


def _noise(rng: np.random.Generator, cells: int, octaves: int = 4, size: int = TILE) -> Image:
    """Tileable value noise in 0..1, float32 [size, size]; `cells` lattice cells along a side at first."""
    total = np.zeros((size, size), np.float32)
    weight, weights = 1.0, 0.0
    for _ in range(octaves):
        lattice = rng.random((cells, cells), dtype=np.float32)
        at = np.arange(size, dtype=np.float32) * (cells / size)
        low = at.astype(np.int64)
        part = at - low
        part = part * part * (3 - 2 * part)
        high = (low + 1) % cells
        rows = lattice[low] * (1 - part)[:, None] + lattice[high] * part[:, None]
        total += weight * (rows[:, low] * (1 - part) + rows[:, high] * part)
        weights += weight
        weight *= 0.55
        cells = min(cells * 2, size)
    return np.asarray(total / weights, np.float32)


def _paint(value: Image, *stops: tuple[float, float, float]) -> Image:
    """Map 0..1 onto a ramp of colours."""
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(value, at, [s[c] for s in stops]) for c in range(3)], -1).astype(np.float32)


def _grid() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.mgrid[0:TILE, 0:TILE][0], np.mgrid[0:TILE, 0:TILE][1]


def _bond(
    rng: np.random.Generator, height: int, width: int, gap: int, shift: bool = True
) -> tuple[Image, Image]:
    """Courses of blocks: (a value per block, relief: 0 in the joint, >1 on lit edges, <1 on dark ones)."""
    row, column = _grid()
    course = row // height
    moved = (column + (course % 2) * (width // 2 if shift else 0)) % TILE
    value = rng.random((TILE // height, TILE // width), dtype=np.float32)[course, moved // width]
    y, x = row % height, moved % width
    relief = np.ones((TILE, TILE), np.float32)
    relief[(y == gap) | (x == gap)] = 1.16
    relief[(y == height - 1) | (x == width - 1)] = 0.74
    relief[(y < gap) | (x < gap)] = 0.0
    return value, relief


def _blocks(
    rng: np.random.Generator,
    size: tuple[int, int],
    ramp: tuple[tuple[float, float, float], ...],
    joint: tuple[float, float, float],
    gap: int = 2,
    rough: float = 0.35,
) -> Image:
    value, relief = _bond(rng, *size, gap)
    grain = _noise(rng, 16)
    colour = _paint(value * 0.75 + _noise(rng, 4) * 0.25, *ramp) * (1 - rough / 2 + rough * grain)[..., None]
    mortar = np.array(joint, np.float32) * (0.8 + 0.4 * grain)[..., None]
    return np.where(relief[..., None] > 0, colour * relief[..., None], mortar).astype(np.float32)


def _brick(rng: np.random.Generator) -> Image:
    return _blocks(
        rng, (16, 32), ((0.44, 0.20, 0.15), (0.62, 0.30, 0.20), (0.74, 0.42, 0.28)), (0.60, 0.54, 0.47)
    )


def _sandstone(rng: np.random.Generator) -> Image:
    return _blocks(
        rng, (32, 64), ((0.62, 0.49, 0.33), (0.76, 0.64, 0.45), (0.86, 0.75, 0.56)), (0.45, 0.36, 0.26)
    )


def _crypt(rng: np.random.Generator) -> Image:
    wall = _blocks(
        rng, (32, 32), ((0.26, 0.29, 0.34), (0.38, 0.41, 0.46), (0.48, 0.50, 0.52)), (0.15, 0.16, 0.19), 2
    )
    moss = np.clip(_noise(rng, 4) * 3.2 - 1.9, 0, 1)[..., None] * 0.7
    return np.asarray(wall * (1 - moss) + moss * np.array((0.28, 0.38, 0.20), np.float32), np.float32)


def _boards(rng: np.random.Generator, width: int, ramp: tuple[tuple[float, float, float], ...]) -> Image:
    """Upright boards with grain and nail heads."""
    row, column = _grid()
    board = column // width
    tone = rng.random(TILE // width, dtype=np.float32)[board]
    fibre = _noise(rng, 32)[:, :]
    fibre = np.repeat(fibre[::8], 8, axis=0) * 0.5 + _noise(rng, 8) * 0.5
    colour = _paint(tone * 0.6 + fibre * 0.4, *ramp)
    edge = column % width
    shade = np.where(edge == 0, 0.45, np.where(edge == 1, 1.15, np.where(edge == width - 1, 0.78, 1.0)))
    nail = ((row % 64) // 3 == 2) & (abs(edge - width // 2) < 2)
    return np.asarray(colour * np.where(nail, 0.5, shade)[..., None], np.float32)


def _planks(rng: np.random.Generator) -> Image:
    return _boards(rng, 16, ((0.33, 0.19, 0.10), (0.50, 0.32, 0.18), (0.62, 0.43, 0.25)))


def _parquet(rng: np.random.Generator) -> Image:
    """Herringbone squares: boards across in one square, along in the next."""
    across = _boards(rng, 16, ((0.42, 0.24, 0.12), (0.60, 0.38, 0.20), (0.70, 0.48, 0.27)))
    row, column = _grid()
    flip = ((row // 64) + (column // 64)) % 2 == 0
    return np.where(flip[..., None], across, across.transpose(1, 0, 2)).astype(np.float32)


def _timber(rng: np.random.Generator) -> Image:
    """Half-timbered plaster: dark beams on cream."""
    row, column = _grid()
    plaster = _paint(_noise(rng, 8), (0.78, 0.70, 0.56), (0.90, 0.84, 0.72), (0.95, 0.90, 0.80))
    beam = (row % 128 < 12) | (column % 128 < 12) | (abs((row - 64) + (column - 64)) < 9)
    edge = (row % 128 == 12) | (column % 128 == 12)
    wood = _paint(_noise(rng, 16), (0.20, 0.12, 0.08), (0.36, 0.23, 0.14))
    return np.where(beam[..., None], wood, plaster * np.where(edge, 0.7, 1.0)[..., None]).astype(np.float32)


def _metal(rng: np.random.Generator) -> Image:
    row, column = _grid()
    y, x = row % 64, column % 64
    base = _paint(_noise(rng, 8), (0.33, 0.40, 0.46), (0.46, 0.53, 0.58), (0.55, 0.61, 0.64))
    base *= 0.94 + 0.12 * rng.random((1, TILE, 1), dtype=np.float32)
    shade = np.where(
        (y < 2) | (x < 2), 0.45, np.where((y == 2) | (x == 2), 1.25, np.where((y > 61) | (x > 61), 0.7, 1.0))
    )
    rivet = (abs(y % 52 - 7) ** 2 + abs(x % 52 - 7) ** 2) < 7
    shade = np.where(rivet, 1.35, shade)
    out = base * shade[..., None]
    stripe = (row >= 92) & (row < 100)
    hazard = ((row + column) // 8) % 2 == 0
    band = np.where(hazard[..., None], np.array((0.86, 0.66, 0.16)), np.array((0.14, 0.14, 0.16)))
    return np.where(stripe[..., None], band, out).astype(np.float32)


def _glow(rng: np.random.Generator) -> Image:
    """A metal panel with a lit cyan slot."""
    row, column = _grid()
    panel = _metal(rng)
    slot = (abs(row - 46) < 5) & (abs(column % 64 - 32) < 24)
    halo = np.clip(1 - (abs(row - 46) - 5) / 18, 0, 1) * np.clip(1 - (abs(column % 64 - 32) - 24) / 10, 0, 1)
    lit = np.minimum(
        panel * (1 + 0.3 * halo[..., None]) + halo[..., None] * np.array((0.02, 0.22, 0.26)) * 0.7, 0.94
    )
    return np.where(slot[..., None], np.array((0.60, 1.0, 1.0)), lit).astype(np.float32)


def _tiles(rng: np.random.Generator) -> Image:
    value, relief = _bond(rng, 32, 32, 1, shift=False)
    row, column = _grid()
    check = ((row // 32) + (column // 32)) % 2 == 0
    colour = np.where(check[..., None], np.array((0.16, 0.46, 0.50)), np.array((0.84, 0.82, 0.74)))
    gloss = 0.86 + 0.14 * value + 0.14 * (((row % 32) + (column % 32)) < 22)
    return (colour * gloss[..., None] * np.where(relief > 0, relief, 0.55)[..., None]).astype(np.float32)


def _mosaic(rng: np.random.Generator) -> Image:
    """Small glazed tiles in blues with a gold frieze."""
    value, relief = _bond(rng, 8, 8, 1, shift=False)
    row, _ = _grid()
    colour = _paint(value, (0.10, 0.28, 0.46), (0.16, 0.44, 0.62), (0.36, 0.64, 0.74), (0.80, 0.88, 0.86))
    gold = _paint(value, (0.60, 0.42, 0.14), (0.90, 0.72, 0.30))
    colour = np.where(((row // 16) == 2)[..., None], gold, colour)
    return (colour * np.where(relief > 0, 0.6 + 0.4 * relief, 0.45)[..., None]).astype(np.float32)


def _grass(rng: np.random.Generator) -> Image:
    blades: NDArray[np.floating[Any]] = rng.random((TILE, TILE), dtype=np.float32)
    blades = (blades + np.roll(blades, 1, 0) + np.roll(blades, 2, 0)) / 3
    tone = 0.5 * _noise(rng, 4) + 0.5 * blades
    grass = _paint(
        np.clip(tone * 1.5 - 0.25, 0, 1), (0.16, 0.28, 0.09), (0.29, 0.45, 0.14), (0.46, 0.60, 0.22)
    )
    flower = rng.random((TILE, TILE)) > 0.9985
    flower |= np.roll(flower, 1, 0) | np.roll(flower, 1, 1)
    return np.where(flower[..., None], np.array((0.93, 0.86, 0.55)), grass).astype(np.float32)


def _voronoi(rng: np.random.Generator, count: int) -> tuple[Image, Image]:
    """(a random value per cell, distance to the nearest border in pixels), tileable."""
    side = round(count**0.5)
    step = TILE / side
    y, x = np.divmod(np.arange(side * side), side)
    points = np.stack([y, x], -1) * step + rng.uniform(0.12, 0.88, (side * side, 2)) * step
    row, column = _grid()
    best = np.full((TILE, TILE), 1e9)
    second = best.copy()
    owner = np.zeros((TILE, TILE), np.int64)
    # The two nearest points stand within two lattice places of a pixel's own.
    home_y, home_x = (row / step).astype(np.int64), (column / step).astype(np.int64)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            index = (home_y + dy) % side * side + (home_x + dx) % side
            ay, ax = abs(row - points[index, 0]), abs(column - points[index, 1])
            d = np.hypot(np.minimum(ay, TILE - ay), np.minimum(ax, TILE - ax))
            closer = d < best
            second = np.where(closer, best, np.minimum(second, d))
            owner = np.where(closer, index, owner)
            best = np.where(closer, d, best)
    value = rng.random(side * side, dtype=np.float32)[owner]
    return value, (second - best).astype(np.float32)


def _cobbles(rng: np.random.Generator) -> Image:
    value, border = _voronoi(rng, 100)
    dome = np.clip(border / 7, 0, 1) ** 0.6
    stone = (
        _paint(value, (0.44, 0.41, 0.38), (0.58, 0.54, 0.48), (0.70, 0.65, 0.57))
        * (0.55 + 0.5 * dome)[..., None]
    )
    stone *= (0.85 + 0.3 * _noise(rng, 16))[..., None]
    return np.where((border < 1.6)[..., None], np.array((0.24, 0.23, 0.18)), stone).astype(np.float32)


def _flags(rng: np.random.Generator) -> Image:
    value, border = _voronoi(rng, 16)
    edge = np.where(border < 1.8, 0.45, np.where(border < 4, 1.12, 1.0))
    stone = _paint(
        value * 0.7 + 0.3 * _noise(rng, 8), (0.40, 0.40, 0.42), (0.54, 0.53, 0.52), (0.66, 0.63, 0.58)
    )
    return np.asarray(stone * (0.82 + 0.3 * _noise(rng, 16))[..., None] * edge[..., None], np.float32)


def _gravel(rng: np.random.Generator) -> Image:
    value, border = _voronoi(rng, 576)
    stone = _paint(value, (0.62, 0.53, 0.40), (0.76, 0.68, 0.53), (0.86, 0.80, 0.66))
    return np.asarray(stone * (0.7 + 0.3 * np.clip(border / 3, 0, 1))[..., None], np.float32)


def _hedge(rng: np.random.Generator) -> Image:
    value, border = _voronoi(rng, 400)
    row, _ = _grid()
    leaf = _paint(value, (0.07, 0.18, 0.07), (0.15, 0.33, 0.11), (0.30, 0.48, 0.17))
    lit = 0.55 + 0.6 * np.clip(border / 5, 0, 1) + 0.12 * np.cos(row / 20.37)
    return np.asarray(leaf * lit[..., None], np.float32)


def _water(rng: np.random.Generator) -> Image:
    wave = abs(_noise(rng, 4, 3) - 0.5) * 2
    crest = np.clip(1 - wave * 5, 0, 1)[..., None]
    deep = _paint(_noise(rng, 4), (0.08, 0.30, 0.40), (0.14, 0.44, 0.52), (0.20, 0.54, 0.58))
    return np.asarray(deep * (1 - 0.6 * crest) + crest * 0.6 * np.array((0.72, 0.92, 0.92)), np.float32)


def _crate(rng: np.random.Generator) -> Image:
    """Four crate faces of one metre each."""
    row, column = _grid()
    y, x = row % 64, column % 64
    wood = _boards(rng, 16, ((0.42, 0.28, 0.13), (0.58, 0.41, 0.21), (0.70, 0.53, 0.30)))
    frame = (y < 8) | (y > 55) | (x < 8) | (x > 55) | (abs(y - x) < 5)
    inner = (y == 8) | (x == 8) | (abs(y - x) == 5)
    shade = np.where(frame, 1.16, 0.72) * np.where(inner, 0.6, 1.0) * np.where((y == 0) | (x == 0), 0.5, 1.0)
    return np.asarray(wood * shade[..., None], np.float32)


def _books(rng: np.random.Generator) -> Image:
    """Shelves of books, four to a tile."""
    row, column = _grid()
    out = np.zeros((TILE, TILE, 3), np.float32)
    palette = np.array(
        [
            (0.55, 0.16, 0.13),
            (0.16, 0.28, 0.45),
            (0.20, 0.38, 0.22),
            (0.66, 0.50, 0.20),
            (0.40, 0.20, 0.38),
            (0.75, 0.68, 0.55),
            (0.22, 0.20, 0.22),
        ],
        np.float32,
    )
    for shelf in range(4):
        top = shelf * 32
        x = 0
        while x < TILE:
            width = min(int(rng.integers(3, 8)), TILE - x)
            height = int(rng.integers(18, 27))
            book = palette[rng.integers(len(palette))] * rng.uniform(0.8, 1.15)
            out[top + 28 - height : top + 28, x : x + width] = book
            out[top + 28 - height : top + 28, x] = book * 1.3
            out[top + 28 - height : top + 28, x + width - 1] = book * 0.5
            if rng.random() < 0.5:
                out[top + 34 - height : top + 36 - height, x + 1 : x + width - 1] = (0.85, 0.72, 0.35)
            x += width
    board = (row % 32 >= 28) | (column % 64 < 4)
    wood = _paint(_noise(rng, 16), (0.26, 0.15, 0.08), (0.42, 0.27, 0.15))
    return np.where(
        board[..., None], wood * np.where(row % 32 == 28, 1.3, 0.9)[..., None], out + 0.02
    ).astype(np.float32)


def _carpet(rng: np.random.Generator) -> Image:
    row, column = _grid()
    y, x = abs(row % 64 - 32), abs(column % 64 - 32)
    diamond = (y + x) // 8
    ramp = np.array(
        [
            (0.86, 0.66, 0.28),
            (0.50, 0.09, 0.11),
            (0.58, 0.12, 0.13),
            (0.42, 0.07, 0.10),
            (0.52, 0.10, 0.12),
            (0.70, 0.46, 0.22),
            (0.36, 0.06, 0.10),
            (0.46, 0.09, 0.11),
            (0.5, 0.1, 0.1),
        ]
    )
    return np.asarray(ramp[diamond] * (0.85 + 0.3 * rng.random((TILE, TILE, 1))), np.float32)


def _rafters(rng: np.random.Generator) -> Image:
    """A plaster ceiling with dark beams."""
    row, column = _grid()
    plaster = _paint(_noise(rng, 8), (0.60, 0.55, 0.47), (0.72, 0.67, 0.58))
    beam = (row % 64 < 14) | (column % 128 < 18)
    wood = _paint(_noise(rng, 16), (0.22, 0.13, 0.08), (0.38, 0.25, 0.15))
    edge = np.where((row % 64 == 14) | (column % 128 == 18), 0.55, 1.0)
    return (np.where(beam[..., None], wood, plaster) * edge[..., None]).astype(np.float32)


def _vault(rng: np.random.Generator) -> Image:
    return _blocks(rng, (64, 64), ((0.34, 0.34, 0.37), (0.46, 0.46, 0.47)), (0.20, 0.20, 0.22), 3)


def _hatch(rng: np.random.Generator) -> Image:
    """A dark metal floor plate with raised dashes."""
    row, column = _grid()
    plate = _paint(_noise(rng, 8), (0.25, 0.28, 0.32), (0.36, 0.40, 0.43))
    y, x = row % 16, column % 16
    dash = np.where(
        (row // 16 + column // 16) % 2 == 0,
        (abs(y - 8) < 2) & (abs(x - 8) < 6),
        (abs(x - 8) < 2) & (abs(y - 8) < 6),
    )
    seam = (row % 128 < 2) | (column % 128 < 2)
    return (plate * np.where(seam, 0.4, np.where(dash, 1.45, 1.0))[..., None]).astype(np.float32)


_PAINTERS: tuple[tuple[str, Callable[[np.random.Generator], Image], Material], ...] = (
    ("brick", _brick, Material.BRICK),
    ("sandstone", _sandstone, Material.STONE),
    ("crypt", _crypt, Material.STONE),
    ("planks", _planks, Material.WOOD),
    ("parquet", _parquet, Material.WOOD),
    ("timber", _timber, Material.PLASTER),
    ("metal", _metal, Material.METAL),
    ("glow", _glow, Material.METAL),
    ("tiles", _tiles, Material.TILES),
    ("mosaic", _mosaic, Material.TILES),
    ("grass", _grass, Material.FOLIAGE),
    ("cobbles", _cobbles, Material.GROUND),
    ("flags", _flags, Material.STONE),
    ("gravel", _gravel, Material.GROUND),
    ("hedge", _hedge, Material.FOLIAGE),
    ("water", _water, Material.WATER),
    ("crate", _crate, Material.WOOD),
    ("books", _books, Material.WOOD),
    ("carpet", _carpet, Material.CLOTH),
    ("rafters", _rafters, Material.WOOD),
    ("vault", _vault, Material.STONE),
    ("hatch", _hatch, Material.METAL),
)


def draw_tiles(seed: int) -> dict[str, Image]:
    """All tiles by name, float32 `[128, 128, 3]` in 0..1."""
    return {
        name: np.clip(paint(np.random.default_rng((seed, index))), 0, 1).astype(np.float32)
        for index, (name, paint, _) in enumerate(_PAINTERS)
    }


def material_of_tile(name: str) -> Material:
    """What the tile of this name is made of."""
    return next(material for tile, _, material in _PAINTERS if tile == name)


class _Canvas:
    """A sprite in the making: shapes are painted back to front; x in -1..1, y from 0 (feet) to 1 (top)."""

    def __init__(self, width: int, height: int) -> None:
        self.rgba = np.zeros((height, width, 4), np.float32)
        row, column = np.mgrid[0:height, 0:width]
        self.x = (column + 0.5) / width * 2 - 1
        self.y = 1 - (row + 0.5) / height

    def fill(
        self, where: NDArray[np.bool_], colour: tuple[float, float, float], shade: Image | float = 1.0
    ) -> None:
        lit = np.broadcast_to(
            np.asarray(shade, np.float32)[..., None] * np.array(colour, np.float32), (*self.x.shape, 3)
        )
        self.rgba[where, :3] = np.clip(lit[where], 0, 1)
        self.rgba[where, 3] = 1

    def ball(self, x: float, y: float, rx: float, ry: float, colour: tuple[float, float, float]) -> None:
        """An ellipse lit from the upper left."""
        u, v = (self.x - x) / rx, (self.y - y) / ry
        r = u * u + v * v
        height = np.sqrt(np.clip(1 - r, 0, 1))
        self.fill(
            r < 1,
            colour,
            (0.42 + 0.62 * np.clip(-0.45 * u + 0.55 * v + 0.6 * height, 0, 1.2)).astype(np.float32),
        )

    def robe(self, y0: float, y1: float, w0: float, w1: float, colour: tuple[float, float, float]) -> None:
        """An upright trapezium with folds, from half-width w0 at y0 to w1 at y1."""
        part = np.clip((self.y - y0) / (y1 - y0), 0, 1)
        half = w0 + (w1 - w0) * part
        u = self.x / np.maximum(half, 1e-3)
        inside = (abs(u) < 1) & (self.y >= y0) & (self.y <= y1)
        self.fill(inside, colour, (0.85 - 0.35 * u + 0.10 * np.cos(u * 14)).astype(np.float32))


def _guard(coat: tuple[float, float, float], stride: float) -> Image:
    c = _Canvas(72, 128)
    for side in (-1.0, 1.0):
        c.ball(
            side * 0.22 + stride * side * 0.10,
            0.045 + 0.02 * max(0.0, stride * side),
            0.20,
            0.045,
            (0.16, 0.12, 0.10),
        )
    c.robe(0.06, 0.62, 0.56, 0.34, coat)
    c.fill((abs(c.x) < 0.10) & (c.y > 0.06) & (c.y < 0.60), (0.86, 0.70, 0.32), 0.9)
    c.ball(-0.46, 0.50 + 0.02 * stride, 0.16, 0.17, coat)
    c.ball(0.46, 0.50 - 0.02 * stride, 0.16, 0.17, coat)
    c.ball(0.0, 0.62, 0.46, 0.10, (0.42, 0.44, 0.48))
    c.fill((abs(c.x - 0.66) < 0.045) & (c.y > 0.04) & (c.y < 0.96), (0.40, 0.27, 0.16))
    c.fill(
        (abs(c.x - 0.66) / 0.14 + abs(c.y - 0.93) / 0.07) < 1,
        (0.82, 0.85, 0.90),
        (1.1 - (c.x - 0.6) * 2).astype(np.float32),
    )
    c.ball(0.62, 0.42 - 0.02 * stride, 0.10, 0.04, (0.85, 0.62, 0.48))
    c.ball(0.0, 0.78, 0.30, 0.125, (0.50, 0.53, 0.58))
    c.fill((abs(c.x) < 0.22) & (abs(c.y - 0.765) < 0.022), (0.06, 0.05, 0.06))
    for eye in (-0.10, 0.10):
        c.fill(((c.x - eye) ** 2 / 0.004 + (c.y - 0.765) ** 2 / 0.00022) < 1, (1.0, 0.62, 0.18))
    c.fill((abs(c.x) < 0.06 + 0.10 * (0.97 - c.y)) & (c.y > 0.86) & (c.y < 0.97), (0.78, 0.16, 0.14))
    return c.rgba


def _orb(phase: float) -> Image:
    c = _Canvas(80, 80)
    angle = np.arctan2(c.y - 0.5, c.x / 2)
    reach = 0.40 + 0.07 * np.cos(angle * 8 + phase)
    r = np.hypot(c.x / 2, c.y - 0.5)
    c.fill(r < reach, (0.40, 0.12, 0.55), (0.6 + 0.8 * (r / 0.47)).astype(np.float32))
    c.ball(0.0, 0.5, 0.60, 0.30, (0.70, 0.32, 0.86))
    c.ball(0.0, 0.5, 0.34, 0.17, (0.98, 0.94, 0.86))
    c.fill((c.x**2 / 0.018 + (c.y - 0.5) ** 2 / 0.018) < 1, (0.12, 0.02, 0.16))
    c.fill(((c.x + 0.07) ** 2 / 0.003 + (c.y - 0.55) ** 2 / 0.0008) < 1, (1.0, 1.0, 1.0))
    return c.rgba


def _crystal(turn: float) -> Image:
    c = _Canvas(56, 88)
    half = np.minimum((c.y - 0.02) / 0.34, (0.98 - c.y) / 0.50)
    inside = (abs(c.x) < 0.78 * np.clip(half, 0, 1)) & (half > 0)
    u = c.x / np.maximum(0.78 * np.clip(half, 1e-3, 1), 1e-3)
    facet = np.floor((u + turn) * 2.2) % 3
    shade = 0.62 + 0.26 * facet + 0.25 * (c.y - 0.4) - 0.16 * (c.y < 0.36)
    c.fill(inside, (0.34, 0.92, 1.0), shade.astype(np.float32))
    c.fill(inside & (abs(u + 0.2 - turn * 0.3) < 0.06) & (c.y > 0.3), (0.95, 1.0, 1.0))
    return c.rgba


def _lamp() -> Image:
    c = _Canvas(40, 160)
    c.fill((abs(c.x) < 0.34) & (c.y < 0.045), (0.20, 0.22, 0.25), (1.2 - c.x).astype(np.float32))
    c.fill((abs(c.x) < 0.11) & (c.y < 0.82), (0.24, 0.26, 0.30), (1.1 - c.x * 5).astype(np.float32))
    c.fill((abs(c.x) < 0.50) & (c.y > 0.79) & (c.y < 0.81), (0.22, 0.24, 0.28))
    glass = (abs(c.x) < 0.30 + (c.y - 0.81) * 1.4) & (c.y >= 0.81) & (c.y < 0.93)
    c.fill(glass, (1.0, 0.90, 0.58), (1.1 - abs(c.x) * 0.4).astype(np.float32))
    c.fill(glass & (abs(abs(c.x) - 0.24) < 0.05), (0.30, 0.26, 0.20))
    c.fill(
        (abs(c.x) < (0.985 - c.y) * 9) & (c.y >= 0.93) & (c.y < 0.985),
        (0.22, 0.24, 0.28),
        (1.2 - c.x).astype(np.float32),
    )
    return c.rgba


def _tree(rng: np.random.Generator, leaf: tuple[float, float, float]) -> Image:
    c = _Canvas(160, 208)
    c.fill(
        (abs(c.x - 0.03 * np.sin(c.y * 9)) < 0.085 - 0.05 * c.y + 0.05 * np.exp(-c.y * 30)) & (c.y < 0.55),
        (0.36, 0.25, 0.16),
        (1.0 - c.x * 4).astype(np.float32),
    )
    centres = [(rng.uniform(-0.52, 0.52), rng.uniform(0.42, 0.86)) for _ in range(34)]
    centres = [(x, y) for x, y in centres if (x / 0.62) ** 2 + ((y - 0.64) / 0.27) ** 2 < 1]
    for x, y in sorted(centres, key=lambda at: at[1] - 0.25 * at[0], reverse=False):
        tone = 0.62 + 0.7 * (y - 0.40) - 0.18 * x + rng.uniform(-0.06, 0.06)
        size = rng.uniform(0.20, 0.30)
        u, v = (c.x - x) / size, (c.y - y) / (size * 0.46)
        speck = rng.random(c.x.shape)
        where = (u * u + v * v) < 0.74 + 0.5 * speck
        lit = tone * (0.74 + 0.30 * np.clip(v - 0.5 * u, -1, 1) + 0.30 * speck)
        c.fill(where, leaf, lit.astype(np.float32))
    return c.rgba


def _heart() -> Image:
    c = _Canvas(48, 56)
    c.ball(0.0, 0.30, 0.62, 0.28, (0.88, 0.16, 0.24))
    c.fill(
        (abs(c.x) < 0.24) & (c.y > 0.54) & (c.y < 0.82), (0.70, 0.86, 0.90), (1.0 - c.x).astype(np.float32)
    )
    c.fill((abs(c.x) < 0.32) & (c.y >= 0.80) & (c.y < 0.90), (0.52, 0.34, 0.18))
    c.fill(
        (abs(c.x) < 0.10) & (abs(c.y - 0.32) < 0.16) | (abs(c.x) < 0.32) & (abs(c.y - 0.32) < 0.05),
        (1.0, 0.94, 0.92),
    )
    return c.rgba


def _gate(is_open: bool) -> Image:
    c = _Canvas(96, 136)
    arch = np.where(c.y < 0.62, abs(c.x), np.hypot(c.x, (c.y - 0.62) / 0.36))
    c.fill(
        arch < 0.98,
        (0.64, 0.60, 0.55),
        (0.72 + 0.30 * ((np.floor(c.y * 11) + (c.x > 0)) % 2) - 0.16 * c.x).astype(np.float32),
    )
    inner = arch < 0.72
    if is_open:
        swirl = 0.5 + 0.5 * np.sin(9 * np.hypot(c.x, (c.y - 0.5) * 1.6) - 3 * np.arctan2(c.y - 0.5, c.x))
        c.fill(inner, (0.42, 1.0, 0.66), (0.45 + 0.75 * swirl).astype(np.float32))
    else:
        c.fill(inner, (0.30, 0.19, 0.11), (0.85 + 0.25 * (np.floor(c.x * 7) % 2)).astype(np.float32))
        c.fill(inner & ((abs(c.y - 0.22) < 0.025) | (abs(c.y - 0.58) < 0.025)), (0.24, 0.25, 0.28))
    return c.rgba


def _barrel() -> Image:
    c = _Canvas(64, 84)
    half = 0.76 + 0.20 * np.sin(np.clip(c.y, 0, 1) * np.pi)
    body = (abs(c.x) < half) & (c.y < 0.94) & (c.y > 0.02)
    c.fill(
        body,
        (0.54, 0.34, 0.18),
        (0.92 - 0.45 * c.x + 0.10 * (np.floor(c.x / half * 5) % 2)).astype(np.float32),
    )
    for band in (0.14, 0.34, 0.64, 0.84):
        c.fill(body & (abs(c.y - band) < 0.03), (0.34, 0.35, 0.38), (1.1 - 0.6 * c.x).astype(np.float32))
    c.ball(0.0, 0.93, 0.76, 0.05, (0.62, 0.42, 0.24))
    return c.rgba


def draw_sprites(seed: int) -> dict[str, SpriteArt]:
    """All sprites by name; those that move have frames `name0`, `name1`, …"""
    rng = np.random.default_rng((seed, 1000))
    art: list[SpriteArt] = []
    for coat, name in (((0.62, 0.16, 0.15), "red"), ((0.18, 0.30, 0.56), "blue")):
        art += [
            SpriteArt(f"guard_{name}{i}", _guard(coat, s), Material.CREATURE, 0.0)
            for i, s in enumerate((-1.0, 1.0))
        ]
    art += [SpriteArt(f"orb{i}", _orb(p), Material.CREATURE, 0.6) for i, p in enumerate((0.0, 3.1))]
    art += [SpriteArt(f"crystal{i}", _crystal(i / 4), Material.CRYSTAL, 0.85) for i in range(4)]
    art += [
        SpriteArt("lamp", _lamp(), Material.EMISSIVE, 0.7),
        SpriteArt("tree0", _tree(rng, (0.26, 0.44, 0.15)), Material.FOLIAGE, 0.0),
        SpriteArt("tree1", _tree(rng, (0.62, 0.42, 0.13)), Material.FOLIAGE, 0.0),
        SpriteArt("potion", _heart(), Material.CRYSTAL, 0.3),
        SpriteArt("gate_shut", _gate(False), Material.WOOD, 0.0),
        SpriteArt("gate_open", _gate(True), Material.EMISSIVE, 0.8),
        SpriteArt("barrel", _barrel(), Material.WOOD, 0.0),
    ]
    return {one.name: one for one in art}

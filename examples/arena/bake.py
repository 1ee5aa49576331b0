"""Light and texture memory: every surface of the world, lit once at the start and packed for the renderer.

All texels of the world lie in one flat uint32 array (R in the lowest byte, then G, B, A = 255), so a frame is
one `np.take`. Its parts are the ground (floors and the tops of what stands on them, one texel per point of
the map), the ceilings, one upright strip per visible cell face, and the sky. Every part has smaller copies
(mips) behind it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arena.textures import TILE, Material, draw_tiles, material_of_tile
from arena.world import OPEN, ROOF, TILE_NAMES, World

__all__ = ["FACE_MIPS", "FLAT_MIPS", "SKY_SIZE", "Atlas", "Baked", "bake"]

FLAT_TEXELS = 32
"""Texels per metre of ground and ceiling."""
FACE_TEXELS = 64
"""Texels per metre of upright faces."""
FLAT_MIPS = 5
FACE_MIPS = 5
SKY_SIZE = (1024, 384)
"""Sky texels around the horizon and upwards (tangent of elevation 0..1.5)."""
SKY_TOP = 1.5
LIGHT_TEXELS = 8
SUN = np.array((0.46, 0.66, -0.59), np.float32)
SUN /= np.linalg.norm(SUN)
SUN_COLOUR = np.array((1.02, 0.90, 0.66), np.float32)
SKY_COLOUR = np.array((0.40, 0.48, 0.60), np.float32)
ROOM_COLOUR = np.array((0.44, 0.41, 0.43), np.float32)
LIGHT_SCALE = 128.0
"""Light is stored in bytes: 128 stands for a multiplier of 1."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Atlas:
    """Where the parts lie in the flat texel array."""

    flat_base: NDArray[np.int64]
    """[2, FLAT_MIPS]: first texel of the ground (0) and ceiling (1) maps."""
    flat_pitch: NDArray[np.int64]
    """[FLAT_MIPS]: texels in a row of those maps."""
    face_base: NDArray[np.int32]
    """[2, FACE_MIPS, cells * 4]: first texel of the strip of a directed cell edge; lower, then upper faces.

    An edge `cell * 4 + d` is the border crossed into `cell` while moving along +x, -x, +z, -z (d = 0..3). Its
    strip is column after column of `face_height` texels, the first and last of which only pad.
    """
    face_height: NDArray[np.int32]
    """[2, FACE_MIPS, cells * 4]."""
    face_top: NDArray[np.float32]
    """[2, cells * 4]: height in metres at the top of the strip."""
    sky_base: int


@dataclass(frozen=True)
class Baked:
    """The texture memory: `lit` as drawn, `albedo` without light, `light` (128 = 1.0), all uint32 [texels].

    `sun` and `lamps` are what the light has of them, `flat` is the mean colour of the tile that a texel is of,
    all uint32 [texels] too; `material` is uint8 [texels] (`Material`). `lamp` is float32
    [depth * 2, width * 2, 3]: light that falls on a sprite standing there. All but `lit` and `lamp` are empty
    unless asked for: a game does not need them.
    """

    atlas: Atlas
    lit: NDArray[np.uint32]
    albedo: NDArray[np.uint32]
    light: NDArray[np.uint32]
    sun: NDArray[np.uint32]
    lamps: NDArray[np.uint32]
    flat: NDArray[np.uint32]
    material: NDArray[np.uint8]
    lamp: Floats


def _solid_at(world: World, x: Floats, y: Floats, z: Floats) -> NDArray[np.bool_]:
    i = np.clip(x.astype(np.int32), 0, world.width - 1)
    k = np.clip(z.astype(np.int32), 0, world.depth - 1)
    cell = k * world.width + i
    return np.asarray((y < world.low[cell]) | ((y > world.high[cell]) & (y < ROOF)), bool)


def _sunlit(world: World, x: Floats, y: Floats, z: Floats) -> Floats:
    """1 where the sun reaches a point, 0 in shadow; any shape."""
    step = 0.22
    lit = np.ones(x.shape, bool)
    for index in range(1, int(6.5 / SUN[1] / step) + 1):
        s = index * step
        lit &= ~_solid_at(world, x + SUN[0] * s, y + SUN[1] * s, z + SUN[2] * s)
    return lit.astype(np.float32)


def _blur(image: Floats, passes: int = 1) -> Floats:
    """A 3×3 box blur over the first two axes."""
    for _ in range(passes):
        padded = np.pad(image, ((1, 1), (1, 1), *((0, 0) for _ in image.shape[2:])), mode="edge")
        rows = padded[:-2] + padded[1:-1] + padded[2:]
        image = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    return image


def _sky_reach(world: World) -> Floats:
    """How much sky is seen from a place, 0..1, [depth * 2, width * 2]; it seeps in through doors."""
    low = world.low.reshape(world.depth, world.width)
    high = world.high.reshape(world.depth, world.width)
    passable = np.repeat(np.repeat((low < 1.5).astype(np.float32), 2, 0), 2, 1)
    source: Floats = np.repeat(np.repeat(((high >= OPEN) & (low < 1.5)).astype(np.float32), 2, 0), 2, 1)
    reach: Floats = source.copy()
    for _ in range(10):
        weight = _blur(passable)
        reach = _blur(reach * passable) / np.maximum(weight, 1e-3)
        reach = np.maximum(reach * 0.93, source)
    # Close to a tall wall half of the sky is hidden.
    open_share = _blur(passable, 3)
    return np.asarray(reach * (0.45 + 0.55 * open_share), np.float32)


def _bilinear(grid: Floats, x: Floats, z: Floats, scale: float) -> Floats:
    """Sample `grid` [rows, columns, ...] whose entries lie `1/scale` metres apart."""
    u = np.clip(x * scale - 0.5, 0, grid.shape[1] - 1.001)
    v = np.clip(z * scale - 0.5, 0, grid.shape[0] - 1.001)
    i, k = u.astype(np.int32), v.astype(np.int32)
    a, b = u - i, v - k
    if grid.ndim == 3:
        a, b = a[..., None], b[..., None]
    return np.asarray(
        (grid[k, i] * (1 - a) + grid[k, i + 1] * a) * (1 - b)
        + (grid[k + 1, i] * (1 - a) + grid[k + 1, i + 1] * a) * b,
        np.float32,
    )


class _Lighting:
    """Answers how much light, float32 [..., 3], falls on points that face along `normal`."""

    def __init__(self, world: World, everything: bool) -> None:
        self.world = world
        self.everything = everything
        self.sky = _sky_reach(world)

    def on(self, x: Floats, y: Floats, z: Floats, normal: tuple[float, float, float]) -> Floats:
        """All light on surfaces; where everything is kept [..., 9]: all, the sun's and the lamps'."""
        around, sun, lamps = self.around(x, y, z, normal), self.sun(x, y, z, normal), self.lamps(x, y, z, normal)
        light = around + sun + lamps
        return np.concatenate([light, sun, lamps], -1) if self.everything else light

    def around(self, x: Floats, y: Floats, z: Floats, normal: tuple[float, float, float]) -> Floats:
        """Sky and room light at points of any shape, just off their surface."""
        nx, ny, nz = normal
        sky = _bilinear(self.sky, x + nx * 0.46, z + nz * 0.46, 2.0)[..., None]
        light = SKY_COLOUR * sky * (0.82 + 0.18 * ny) + ROOM_COLOUR * (1 - 0.75 * sky)
        return np.asarray(light, np.float32)

    def sun(self, x: Floats, y: Floats, z: Floats, normal: tuple[float, float, float]) -> Floats:
        """The sun's light there."""
        nx, ny, nz = normal
        facing = max(0.0, float(nx * SUN[0] + ny * SUN[1] + nz * SUN[2]))
        if facing == 0:
            return np.zeros((*x.shape, 3), np.float32)
        lit = facing * _sunlit(self.world, x + nx * 0.06, y + ny * 0.06, z + nz * 0.06)
        return np.asarray(SUN_COLOUR * lit[..., None], np.float32)

    def lamps(self, x: Floats, y: Floats, z: Floats, normal: tuple[float, float, float]) -> Floats:
        """The lamps' light at points [n] (wrapped, so that nothing is quite black), shadowed by walls."""
        total = np.zeros((*x.shape, 3), np.float32)
        nx, ny, nz = normal
        x, y, z = x + nx * 0.06, y + ny * 0.06, z + nz * 0.06
        for lamp in self.world.lights:
            near = np.nonzero((abs(x - lamp.x) < lamp.reach) & (abs(z - lamp.z) < lamp.reach))
            if near[0].size == 0:
                continue
            px, py, pz = x[near], y[near], z[near]
            dx, dy, dz = lamp.x - px, lamp.y - py, lamp.z - pz
            distance = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-3
            facing = np.clip((dx * nx + dy * ny + dz * nz) / distance * 0.75 + 0.25, 0, 1)
            power = (
                np.clip(1 - distance / lamp.reach, 0, 1) ** 2
                * 2.1
                / (1 + 0.22 * distance * distance)
                * facing
            )
            clear = np.ones(px.shape, bool)
            for part in np.linspace(0.05, 0.92, 14, dtype=np.float32):
                clear &= ~_solid_at(self.world, px + dx * part, py + dy * part, pz + dz * part)
            total[near] += (power * clear)[:, None] * np.array(lamp.colour, np.float32) * 1.25
        return total


def _pack(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    out = np.empty((*rgb.shape[:-1], 4), np.uint8)
    out[..., :3] = rgb
    out[..., 3] = 255
    return out.view(np.uint32)[..., 0]


def _halve(image: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The next mip of packed texels [..., h, w], both sides even: the mean of four, channel by channel."""
    four = (image[..., ::2, ::2], image[..., 1::2, ::2], image[..., ::2, 1::2], image[..., 1::2, 1::2])
    whole = np.zeros(four[0].shape, np.uint32)
    rest = np.full(four[0].shape, 0x02020202, np.uint32)
    for one in four:
        whole += (one >> np.uint32(2)) & np.uint32(0x3F3F3F3F)
        rest += one & np.uint32(0x03030303)
    return whole + ((rest >> np.uint32(2)) & np.uint32(0x03030303))


def _upsample(light: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Enlarge uint8 [..., h, w, 3] bilinearly to [..., h * factor, w * factor, 3]."""
    for axis in (-3, -2):
        size = light.shape[axis]
        at = (np.arange(size * factor) + 0.5) / factor - 0.5
        lower = np.clip(np.floor(at).astype(np.int64), 0, size - 1)
        upper = np.clip(lower + 1, 0, size - 1)
        part = np.clip((at - lower) * 256, 0, 256).astype(np.uint16)
        shape = [1] * light.ndim
        shape[axis] = size * factor
        part = part.reshape(shape)
        mixed = np.take(light, lower, axis).astype(np.uint16) * (256 - part)
        mixed += np.take(light, upper, axis).astype(np.uint16) * part
        light = (mixed >> 8).astype(np.uint8)
    return light


def _to_bytes(light: Floats) -> NDArray[np.uint8]:
    return np.asarray(np.clip(light * LIGHT_SCALE, 0, 255), np.uint8)


def _apply(albedo: NDArray[np.uint8], light: NDArray[np.uint8]) -> NDArray[np.uint8]:
    product = albedo.astype(np.uint16) * light
    return np.asarray(np.minimum(product >> 7, 255), np.uint8)


class _Store:
    """Collects the parts of the flat arrays one after the other."""

    def __init__(self, everything: bool) -> None:
        self.everything = everything
        self.size = 0
        self.lit: list[NDArray[np.uint32]] = []
        self.albedo: list[NDArray[np.uint32]] = []
        self.light: list[NDArray[np.uint32]] = []
        self.sun: list[NDArray[np.uint32]] = []
        self.lamps: list[NDArray[np.uint32]] = []
        self.flat: list[NDArray[np.uint32]] = []
        self.material: list[NDArray[np.uint8]] = []

    def add(
        self,
        albedo: NDArray[np.uint8],
        light: NDArray[np.uint8],
        flat: NDArray[np.uint8],
        material: NDArray[np.uint8],
        mips: int = 1,
        pad: int = 0,
    ) -> list[int]:
        """Append texels of one shape [..., 3] (material [...]) with their mips; return where each mip starts.

        `light` is as `_Lighting.on` has it, in bytes.

        `pad` repeats the first and last texel of the last axis so often: room for a texel's rounding.
        """
        layers = [_pack(_apply(albedo, light[..., :3]))]
        if self.everything:
            layers += [_pack(part) for part in (albedo, *np.split(light, 3, -1), flat)]
        starts = []
        for level in range(mips):
            starts.append(self.size)
            width = [(0, 0)] * (layers[0].ndim - 1) + [(pad, pad)]
            kept = (self.lit, self.albedo, self.light, self.sun, self.lamps, self.flat)
            for layer, parts in zip(layers, kept, strict=False):
                parts.append(np.pad(layer, width, mode="edge").ravel())
            self.size += self.lit[-1].size
            if self.everything:
                self.material.append(np.pad(material, width, mode="edge").ravel())
            if level + 1 < mips:
                layers = [_halve(layer) for layer in layers]
                material = material[..., ::2, ::2]
        return starts


def _means(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean colour of each tile: uint8 [tiles, 3]."""
    return np.asarray(tiles.mean((1, 2)).round(), np.uint8)


def _flat_maps(
    world: World, lighting: _Lighting, tiles: NDArray[np.uint8], materials: NDArray[np.uint8], store: _Store
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n = LIGHT_TEXELS
    wide, deep = world.width * n, world.depth * n
    centre = (np.arange(wide, dtype=np.float32) + 0.5) / n
    x, z = np.meshgrid(centre, (np.arange(deep, dtype=np.float32) + 0.5) / n)
    cell = z.astype(np.int32) * world.width + x.astype(np.int32)
    base = np.zeros((2, FLAT_MIPS), np.int64)
    pitch = np.array([world.width * FLAT_TEXELS >> level for level in range(FLAT_MIPS)], np.int64)
    rng = np.random.default_rng(5)
    patch = _blur(rng.random((world.depth, world.width)).astype(np.float32), 1)
    large = 0.90 + 0.20 * _bilinear(patch, x, z, 1.0)
    for part in range(2):
        y = world.low[cell] if part == 0 else np.minimum(world.high[cell], ROOF).astype(np.float32)
        normal = (0.0, 1.0, 0.0) if part == 0 else (0.0, -1.0, 0.0)
        light = lighting.on(x, y, z, normal)
        # Corners are darker: how much of what lies around is higher (floor) or lower (ceiling) than here.
        if part == 0:
            rise = np.clip(world.low[cell], -1, 3)
            dark = np.clip(_blur(rise, 3) - rise, 0, 1.2) + 0.5 * np.clip(_blur(rise, 1) - rise, 0, 1.2)
        else:
            fall = (world.low[cell] >= ROOF).astype(np.float32)
            dark = 1.2 * _blur(fall, 3)
        light *= (np.clip(1 - 0.42 * dark, 0.35, 1) * large)[..., None]
        small = _to_bytes(light)
        name = world.floor_tile if part == 0 else world.ceiling_tile
        f = FLAT_TEXELS
        tile = tiles[name.reshape(world.depth, world.width)]
        # Each cell shows its quarter of the two-metre tile, so patterns run on across cells.
        half = tile.reshape(world.depth, world.width, 2, f, 2, f, 3)
        k, i = np.mgrid[0 : world.depth, 0 : world.width]
        albedo = (
            half[k, i, k % 2, :, i % 2].transpose(0, 2, 1, 3, 4).reshape(world.depth * f, world.width * f, 3)
        )
        bright = _upsample(small, f // n)
        cells = name.reshape(world.depth, world.width)
        kind = np.repeat(np.repeat(materials[cells], f, 0), f, 1)
        flat = np.repeat(np.repeat(_means(tiles)[cells], f, 0), f, 1) if store.everything else albedo
        base[part] = store.add(albedo, bright, flat, kind, FLAT_MIPS)
    return base, pitch


_MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))


def _faces(
    world: World, lighting: _Lighting, tiles: NDArray[np.uint8], materials: NDArray[np.uint8], store: _Store
) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
    cells = world.width * world.depth
    base = np.zeros((2, FACE_MIPS, cells * 4), np.int32)
    height = np.full((2, FACE_MIPS, cells * 4), 2, np.int32)
    top = np.zeros((2, cells * 4), np.float32)
    index = np.arange(cells)
    i, k = index % world.width, index // world.width
    # Faces of one direction and height are made together.
    groups: dict[tuple[int, int, float, int], list[int]] = {}
    for d, (di, dk) in enumerate(_MOVES):
        # The face is entered from the cell behind the move.
        fi, fk = i - di, k - dk
        valid = (fi >= 0) & (fi < world.width) & (fk >= 0) & (fk < world.depth)
        source = np.where(valid, fk * world.width + fi, 0)
        for part in range(2):
            if part == 0:
                tall, foot = world.low, world.low[source]
                seen = valid & (tall > foot)
            else:
                tall, foot = np.minimum(world.high[source], ROOF).astype(np.float32), world.high
                seen = valid & (foot < tall) & (world.low[source] < ROOF)
            for one in np.nonzero(seen)[0].tolist():
                metres = int(np.ceil(tall[one] - foot[one] - 1e-3))
                groups.setdefault((part, d, round(float(tall[one]), 3), metres), []).append(one)
    keys = list(groups)
    bright_of = _face_light(
        world,
        lighting,
        [(d, tall, metres, np.array(groups[part, d, tall, metres])) for part, d, tall, metres in keys],
    )
    f = FACE_TEXELS
    means = _means(tiles)
    upright = np.ascontiguousarray(tiles.transpose(0, 2, 1, 3))
    for key, small in zip(keys, bright_of, strict=True):
        # A few faces at a time: what is worked on stays in the cache.
        for first in range(0, len(groups[key]), 16):
            part, d, tall_m, metres = key
            cell = np.array(groups[key][first : first + 16])
            di, dk = _MOVES[d]
            source = cell - di - dk * world.width
            tile = np.where(world.side_tile[cell] >= 0, world.side_tile[cell], world.wall_tile[source])
            if part == 1:
                tile = np.where(
                    world.inside[source] & (world.high[source] < OPEN), world.wall_tile[source], tile
                )
            along = (k if di else i)[cell]
            # Columns of a strip run along +z or +x, its rows downwards. Bricks are laid from the floor up:
            # the tile's last row stands at height zero.
            rows = (np.arange(metres * f) - round(tall_m * f)) % TILE
            columns = (along % 2)[:, None] * f + np.arange(f)
            albedo = upright[tile[:, None, None], columns[:, :, None], rows[None, None]]
            bright = _upsample(small[first : first + 16], f // LIGHT_TEXELS)
            kind = np.broadcast_to(materials[tile][:, None, None], albedo.shape[:3])
            flat = np.broadcast_to(means[tile][:, None, None], albedo.shape)
            # The slot of the glow tile is its own light.
            own = (tile == TILE_NAMES.index("glow"))[:, None, None] & (albedo[..., 1] > 250)
            if own.any():
                bright = np.where(own[..., None], np.uint8(150) * (np.arange(bright.shape[-1]) < 3), bright)
                kind = np.where(own, np.uint8(Material.EMISSIVE), kind)
                flat = np.where(own[..., None], albedo, flat)
            edge = cell * 4 + d
            top[part, edge] = tall_m
            for level, start in enumerate(store.add(albedo, bright, flat, kind, FACE_MIPS, pad=1)):
                rows_in_strip = (metres * f >> level) + 2
                base[part, level, edge] = start + np.arange(len(cell)) * (f >> level) * rows_in_strip
                height[part, level, edge] = rows_in_strip
    return base, height, top


def _face_light(
    world: World, lighting: _Lighting, groups: list[tuple[int, float, int, NDArray[np.int64]]]
) -> list[NDArray[np.uint8]]:
    """Light on groups of faces (direction, top, metres high, cells), uint8 [cells, columns, rows, 3 or 9] each.

    All points that face one way are lit in one go.
    """
    n = LIGHT_TEXELS
    result: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)] * len(groups)
    for d, (di, dk) in enumerate(_MOVES):
        mine = [index for index, group in enumerate(groups) if group[0] == d]
        places, shades = [], []
        for index in mine:
            _, tall, metres, cell = groups[index]
            u = (np.arange(n, dtype=np.float32) + 0.5) / n
            down = (np.arange(metres * n, dtype=np.float32) + 0.5) / n
            shape = (len(cell), n, metres * n)
            ci, ck = (cell % world.width)[:, None, None], (cell // world.width)[:, None, None]
            x = np.broadcast_to(ci + ((0 if di > 0 else 1) if di else u[None, :, None]), shape)
            z = np.broadcast_to(ck + ((0 if dk > 0 else 1) if dk else u[None, :, None]), shape)
            y = np.broadcast_to(np.float32(tall) - down, shape)
            places.append(np.stack([x, y, z]).astype(np.float32).reshape(3, -1))
            shades.append(
                _corner_shade(world, cell, cell - di - dk * world.width, d, y.astype(np.float32), u).ravel()
            )
        if not mine:
            continue
        x, y, z = np.concatenate(places, 1)
        normal = (float(-di), 0.0, float(-dk))
        light = lighting.on(x, y, z, normal)
        light *= np.concatenate(shades)[:, None]
        split = np.split(_to_bytes(light), np.cumsum([part.shape[1] for part in places])[:-1])
        for index, part in zip(mine, split, strict=True):
            _, _, metres, cell = groups[index]
            result[index] = part.reshape(len(cell), n, metres * n, -1)
    return result


def _corner_shade(
    world: World, cell: NDArray[np.int64], source: NDArray[np.int64], d: int, y: Floats, u: Floats
) -> Floats:
    """Ambient occlusion of faces [n, columns, rows]: darker at the foot, under a ceiling and in corners."""
    above = y - world.low[source][:, None, None]
    shade = 1 - 0.38 * np.exp(-np.maximum(above, 0) * 3.2)
    under = world.high[source][:, None, None] - y
    shade *= 1 - 0.30 * np.exp(-np.maximum(under, 0) * 3.0)
    side = world.width if d < 2 else 1
    for direction, distance in ((-side, u), (side, 1 - u)):
        tall = world.low[np.clip(source + direction, 0, world.low.size - 1)][:, None, None] > y
        shade = shade * np.where(tall, 1 - 0.36 * np.exp(-distance * 3.4)[None, :, None], 1.0)
    return np.asarray(shade, np.float32)


def _sky(seed: int) -> NDArray[np.uint8]:
    """The sky around, uint8 [SKY_SIZE[0], SKY_SIZE[1], 3]: columns of rising elevation."""
    rng = np.random.default_rng((seed, 3))
    around, up = SKY_SIZE
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False, dtype=np.float32)[:, None]
    rise = np.linspace(0, SKY_TOP, up, dtype=np.float32)[None, :]
    height = np.clip(rise / 1.1, 0, 1)
    stops = np.array(
        ((0.86, 0.84, 0.78), (0.66, 0.78, 0.88), (0.38, 0.58, 0.83), (0.22, 0.42, 0.74)), np.float32
    )
    at = np.array((0.0, 0.16, 0.5, 1.0))
    colour = np.stack([np.interp(height, at, stops[:, c]) for c in range(3)], -1).astype(np.float32)
    colour = np.broadcast_to(colour, (around, up, 3)).copy()
    sun_angle = float(np.arctan2(SUN[0], SUN[2]))
    sun_rise = float(SUN[1] / np.hypot(SUN[0], SUN[2]))
    turn = np.angle(np.exp(1j * (angle - sun_angle))).astype(np.float32)
    near = np.hypot(turn / 1.0, (np.arctan(rise) - np.arctan(sun_rise)) * 1.0)
    # Clouds: noise on a plane overhead, wrapped around by a circle in the noise's own space.
    cloud = np.zeros((around, up), np.float32)
    distance = 1 / (rise + 0.16)
    cx, cy = np.cos(angle) * distance * 9 + 300, np.sin(angle) * distance * 9 + 300
    weight = 1.0
    for octave in range(5):
        lattice = rng.random((256, 256), dtype=np.float32)
        scale = 0.16 * 2**octave
        gx, gy = cx * scale, cy * scale
        ix, iy = np.floor(gx).astype(np.int32), np.floor(gy).astype(np.int32)
        fx, fy = gx - ix, gy - iy
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        ix, iy = ix % 255, iy % 255
        cloud += weight * (
            (lattice[iy, ix] * (1 - fx) + lattice[iy, ix + 1] * fx) * (1 - fy)
            + (lattice[iy + 1, ix] * (1 - fx) + lattice[iy + 1, ix + 1] * fx) * fy
        )
        weight *= 0.55
    cloud /= 2.1
    cover = np.clip((cloud - 0.47) * 5.5, 0, 1) * np.clip(rise * 7, 0, 1)
    body = np.clip((cloud - 0.50) * 4.0, 0, 1)
    white = np.stack([1.0 - 0.22 * body, 0.985 - 0.19 * body, 0.97 - 0.12 * body], -1)
    colour = colour * (1 - cover[..., None]) + white * cover[..., None]
    colour += (np.exp(-near * 3.2) * 0.35)[..., None] * np.array((1.0, 0.86, 0.55), np.float32)
    colour = np.where((near < 0.055)[..., None], np.array((1.0, 0.97, 0.86), np.float32), colour)
    # Far hills along the horizon.
    hills = 0.035 + 0.030 * np.sin(angle * 3 + 1) + 0.020 * np.sin(angle * 7 + 2) + 0.010 * np.sin(angle * 19)
    colour = np.where((rise < hills)[..., None], np.array((0.50, 0.58, 0.62), np.float32), colour)
    return (np.clip(colour, 0, 1) * 255).astype(np.uint8)


def bake(world: World, seed: int, *, everything: bool = False) -> Baked:
    """Light the world and pack its textures; `everything` keeps all that G-buffers need."""
    drawn = draw_tiles(seed)
    full = np.stack([(drawn[name] * 255).astype(np.uint8) for name in TILE_NAMES])
    half = _halve(_pack(full)).view(np.uint8).reshape(len(full), TILE // 2, TILE // 2, 4)[..., :3]
    materials = np.array([int(material_of_tile(name)) for name in TILE_NAMES], np.uint8)
    lighting = _Lighting(world, everything)
    store = _Store(everything)
    # Texel 0 is what an untouched index shows.
    nothing = np.zeros((1, 9), np.uint8)
    store.add(nothing[:, :3], nothing, nothing[:, :3], np.zeros(1, np.uint8))
    flat_base, flat_pitch = _flat_maps(world, lighting, half, materials, store)
    face_base, face_height, face_top = _faces(world, lighting, full, materials, store)
    sky = _sky(seed)
    plain = np.full_like(sky, 128)
    bright = np.concatenate([plain, plain * 0, plain * 0], -1)
    sky_base = store.add(sky, bright, sky, np.full(sky.shape[:2], int(Material.SKY), np.uint8))[0]
    centre = (np.arange(world.width * 2, dtype=np.float32) + 0.5) / 2
    x, z = np.meshgrid(centre, (np.arange(world.depth * 2, dtype=np.float32) + 0.5) / 2)
    y = np.full_like(x, 1.0)
    up = (0.0, 0.6, 0.0)
    lamp = lighting.around(x, y, z, up) + lighting.sun(x, y, z, up) + lighting.lamps(x, y, z, (0.0, 0.5, 0.0)) + 0.12
    empty = np.zeros(0, np.uint32)
    return Baked(
        atlas=Atlas(flat_base, flat_pitch, face_base, face_height, face_top, sky_base),
        lit=np.concatenate(store.lit),
        albedo=np.concatenate(store.albedo) if everything else empty,
        light=np.concatenate(store.light) if everything else empty,
        sun=np.concatenate(store.sun) if everything else empty,
        lamps=np.concatenate(store.lamps) if everything else empty,
        flat=np.concatenate(store.flat) if everything else empty,
        material=np.concatenate(store.material) if everything else np.zeros(0, np.uint8),
        lamp=_blur(lamp.astype(np.float32)),
    )

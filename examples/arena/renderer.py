"""The software renderer: one frame of the arena, in numpy, on one core.

A ray per screen column is walked through the map's cells, all columns together. What each column meets
becomes a few spans (a face, or a piece of ground or ceiling); every pixel then takes its span's numbers by
one gather each, and one last gather fetches the texels. Looking up and down shears the image, so upright
lines stay upright and a face keeps one depth in a column. From the same spans come exact depth (view-space z
in metres) and motion (pixels).

Two passes find the spans. The first sees what stands on the ground, the second what hangs above (ceilings,
lintels, roof fronts); as all roofs have one height, a ray that passes above one can never meet another, and
the nearer of the two is what a pixel shows.

`raycast.c` does the same column by column, several times faster, and draws where it can be compiled; what is
written here is what it means, what draws elsewhere, and what a G-buffer is taken from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arena.bake import FACE_MIPS, FACE_TEXELS, FLAT_MIPS, FLAT_TEXELS, SKY_SIZE, SKY_TOP, Baked
from arena.native import BILLBOARD, PlanesAt, SceneAt, Shot, address, load_raycaster
from arena.textures import Material, SpriteArt
from arena.world import OPEN, ROOF, World

__all__ = [
    "FAR_M",
    "HAZE",
    "MASK_OBJECT",
    "MASK_SKY",
    "MASK_WORLD",
    "Camera",
    "DrawnSprite",
    "Planes",
    "Renderer",
    "Sprite",
    "View",
    "haze_share",
]

FAR_M = 1000.0
"""Depth written for the sky, metres."""
MASK_WORLD, MASK_OBJECT, MASK_SKY = 1, 2, 3
FOCAL = 1.16
"""Focal length as a share of the frame's height: 47 degrees from bottom to top."""
NEAR_M = 0.12
CEILING_M = 3.0
BAND_PIXELS = 32_000
SKY_INVERSE = 1e-6
"""Inverse depth kept for the sky while drawing: as good as endless, and still safe to divide by."""
HAZE = (176, 194, 208)
HAZE_FROM_M, HAZE_M = 9.0, 130.0
"""The haze takes the share (z - HAZE_FROM_M) / (z + HAZE_M) of a colour z metres away."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """Where the eye is, in metres; yaw (0 looks along +z, growing turns right) and pitch in radians."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float


@dataclass(frozen=True)
class Sprite:
    """A billboard: the middle of its foot now and one frame ago, and its size, all in metres."""

    art: str
    x: float
    y: float
    z: float
    width: float
    height: float
    before: tuple[float, float, float]
    ident: int


@dataclass(frozen=True)
class View:
    """What a frame shows: the camera now, the camera one frame ago, and the sprites."""

    camera: Camera
    before: Camera
    sprites: Sequence[Sprite]


@dataclass(frozen=True)
class Planes:
    """What a frame is drawn with besides its colours; None where nobody wants it.

    `depth` float32 [H, W], view-space z in metres, `FAR_M` for the sky. `motion` float16 (or float32) [H, W, 2],
    (x, y) in pixels to where that piece of surface was in the frame before: previous = current + motion.
    `mask` uint8 [H, W], 1 world, 2 sprites, 3 sky (0, a HUD, comes later).
    """

    depth: NDArray[np.float32] | None = None
    motion: NDArray[Any] | None = None
    mask: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class DrawnSprite:
    """A sprite of the last frame: where it is seen, and what of it.

    `area` are the rows and columns of its rectangle, `seen` bool [h, w] which of them it covers, `texels`
    uint32 [h, w] its colours there without light, `light` float32 [3] the light it was drawn in, `depth` its
    view- space z.
    """

    sprite: Sprite
    area: tuple[slice, slice]
    seen: NDArray[np.bool_]
    texels: NDArray[np.uint32]
    light: Floats
    material: Material
    depth: float


@dataclass
class _Art:
    """A sprite ready to draw: packed texels in sizes from large to small, and their cut-outs."""

    texels: list[NDArray[np.uint32]]
    solid: list[NDArray[np.bool_]]
    emissive: float
    material: Material


class _ArtTable:
    """All sprites' pictures by number and mip, for `raycast.c`; `index` has the numbers by name."""

    def __init__(self, art: dict[str, _Art]) -> None:
        self.index = {name: number for number, name in enumerate(art)}
        shape = len(art), max(len(one.texels) for one in art.values())
        self.texels, self.solid, self.rows, self.columns = (np.zeros(shape, np.int64) for _ in range(4))
        # Heights that send on to the next mip, where there is one.
        self.too_tall = np.zeros(shape, np.int64)
        self.emissive = np.array([[one.emissive] for one in art.values()], np.float32)
        for number, one in enumerate(art.values()):
            for level, (texels, solid) in enumerate(zip(one.texels, one.solid, strict=True)):
                self.texels[number, level], self.solid[number, level] = texels.ctypes.data, solid.ctypes.data
                self.rows[number, level], self.columns[number, level] = texels.shape
                if level + 1 < len(one.texels):
                    self.too_tall[number, level] = texels.shape[0]


class Renderer:
    """Draws frames of one world at one size. All buffers are made here; `draw` allocates only small arrays.

    `iz` float32 [H, W] is the inverse depth of the last frame; another array may be put in its place between
    frames. `stage_ms` holds what each stage of the last frame took, in milliseconds. `compiled` says whether
    `draw` runs compiled code; `native=False` asks for numpy's.
    """

    def __init__(
        self, world: World, baked: Baked, art: dict[str, SpriteArt], width: int, height: int, native: bool = True
    ) -> None:
        if not (16 <= width <= 16384 and 16 <= height <= 16384):
            raise ValueError(f"a frame of {width}x{height} cannot be drawn; give 16 to 16384 a side")
        self.world, self.baked = world, baked
        self.width, self.height = width, height
        self.focal = FOCAL * height
        self.stage_ms: dict[str, float] = {}
        self.art = {name: _prepare(one) for name, one in art.items()}
        self.slope = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / np.float32(self.focal)
        self.rows = np.arange(height, dtype=np.float32) + 0.5
        self.iz = np.empty((height, width), np.float32)
        self.span = np.empty((height, width), np.int64)
        self.texel = np.empty((height, width), np.int64)
        # Twice the number of spans must fit: a column has ten or so.
        number = np.uint16 if width <= 1024 else np.uint32
        self._marks: NDArray[Any] = np.zeros((height, width), number)
        self._upper_marks: NDArray[Any] = np.zeros((height + 1, width), number)
        self._upper_shown: NDArray[Any] = np.zeros((height, width), number)
        # Rows are worked on in bands, so that what one step writes is still in the cache when the next reads
        # it.
        self._band = max(1, min(height, BAND_PIXELS // width))
        shape = (self._band, width)
        self._f = [np.empty(shape, np.float32) for _ in range(4)]
        self._i = [np.empty(shape, np.int32) for _ in range(3)]
        self._words = np.empty(shape, np.uint32)
        self._lit_sprites: dict[tuple[str, int, bytes], NDArray[np.uint32]] = {}
        self._drawn: list[
            tuple[Sprite, tuple[slice, slice], NDArray[np.bool_], int, NDArray[np.int64], float]
        ] = []
        self._low = world.low
        self._high = world.high
        self._tallest = float(world.low.max())
        rim = np.ones((world.depth, world.width), bool)
        rim[1:-1, 1:-1] = False
        self._rim = rim.ravel()
        # A ray crosses each line of the grid once at most.
        steps = world.width + world.depth
        self._time = np.empty((steps + 2, width), np.float32)
        self._cell = np.empty((steps + 1, width), np.int64)
        self._by_x = np.empty((steps + 1, width), bool)
        self._low_met = np.empty((steps + 1, width), np.float32)
        self._high_met = np.empty((steps + 1, width), np.float32)
        self._per_metre = np.empty((steps + 2, width), np.float32)
        self._edges = np.empty((3 * (steps + 1), width), np.float32)
        self._edge_rows = np.empty((3 * (steps + 1), width), np.int16)
        self._raycaster = load_raycaster() if native else None
        if self._raycaster is not None:
            self._scene, self._kept = self._describe_scene()
            self._art_table = _ArtTable(self.art)

    @property
    def compiled(self) -> bool:
        """Whether `draw` runs compiled code."""
        return self._raycaster is not None

    def _describe_scene(self) -> tuple[SceneAt, list[NDArray[Any]]]:
        """The world as `raycast.c` takes it, and the arrays that it looks at."""
        atlas, world, slope = self.baked.atlas, self.world, self.slope
        arrays = {
            "low": (world.low, np.float32),
            "high": (world.high, np.float32),
            "rim": (self._rim, np.uint8),
            "lit": (self.baked.lit, np.uint32),
            "face_base": (atlas.face_base, np.int32),
            "face_height": (atlas.face_height, np.int32),
            "face_top": (atlas.face_top, np.float32),
            "flat_base": (atlas.flat_base, np.int64),
            "flat_pitch": (atlas.flat_pitch, np.int64),
            "slope": (slope, np.float32),
            "angle": (np.arctan(slope.astype(np.float64)), np.float64),
            "sky_scale": (self._sky_scale(), np.float32),
        }
        kept = {name: np.ascontiguousarray(array, dtype) for name, (array, dtype) in arrays.items()}
        scene = SceneAt(
            **{name: address(array) for name, array in kept.items()},
            world_width=world.width, texels=self.baked.lit.size, edges=atlas.face_top.shape[1],
            face_mips=FACE_MIPS, face_texels=FACE_TEXELS, flat_mips=FLAT_MIPS, flat_texels=FLAT_TEXELS,
            sky_around=SKY_SIZE[0], sky_up=SKY_SIZE[1], sky_base=int(atlas.sky_base),
            width=self.width, height=self.height, haze_red=HAZE[0], haze_green=HAZE[1], haze_blue=HAZE[2],
            open=OPEN, roof=ROOF, ceiling=CEILING_M, tallest=self._tallest, focal=self.focal, nearest=NEAR_M,
            far=FAR_M, haze_from=HAZE_FROM_M, haze=HAZE_M, sky_inverse=SKY_INVERSE,
        )  # fmt: skip
        return scene, list(kept.values())

    def _sky_scale(self) -> Floats:
        """Texels of the sky a row, by column."""
        return np.asarray((-SKY_SIZE[1] / SKY_TOP / self.focal) / np.sqrt(1 + self.slope**2), np.float32)

    # -- the frame
    # -----------------------------------------------------------------------------------------------

    def draw(self, view: View, pixels: NDArray[np.uint8], planes: Planes | None = None) -> None:
        """Draw a frame into uint8 [H, W, 4] (RGBA, A = 255; rows may be padded), and what `planes` asks for."""
        planes = planes or Planes()
        if self._raycaster is None or (planes.motion is not None and planes.motion.dtype != np.float16):
            self.draw_in_numpy(view, pixels, planes)
            return
        raycaster, begun = self._raycaster, perf_counter()
        shot = self._shot(view.camera, view.before)
        at = _planes_at(pixels, planes, self.iz)
        raycaster.draw(self._scene, shot, at)
        between = perf_counter()
        raycaster.sprites(self._scene, shot, at, self._billboards(view.sprites, shot))
        self.stage_ms = {"world": (between - begun) * 1e3, "sprites": (perf_counter() - between) * 1e3}

    def warp(
        self, pixels: NDArray[np.uint8], iz: Floats, drawn: Camera, now: Camera, out: NDArray[np.uint8]
    ) -> None:
        """Show a picture from another camera than it was drawn from, by its own inverse depths.

        `pixels`, `out` uint8 [H, W, 4]; `iz` float32 [H, W] as `draw` left it with the camera `drawn`. For cameras
        that are a frame or a few apart: what comes into sight is stretched from beside it. Raises `RuntimeError`
        where the renderer is not `compiled`: numpy would take longer than the warp saves.
        """
        if self._raycaster is None:
            raise RuntimeError("a picture can only be warped in time by compiled code: install a C compiler")
        self._raycaster.warp(self._scene, self._shot(now, drawn), iz, pixels, out)

    def _shot(self, now: Camera, old: Camera) -> Shot:
        horizons = (np.float32(self.height / 2 + math.tan(c.pitch) * self.focal) for c in (now, old))
        return Shot(
            now.x, now.y, now.z, now.yaw, math.sin(now.yaw), math.cos(now.yaw), next(horizons),
            old.x, old.y, old.z, math.sin(old.yaw), math.cos(old.yaw), next(horizons),
        )  # fmt: skip

    def _billboards(self, sprites: Sequence[Sprite], shot: Shot) -> NDArray[np.void]:
        """The sprites within the frame, far ones first, as `raycast.c` takes them; `_draw_sprites` one by one."""
        art = self._art_table
        rows = [(art.index[s.art], s.x, s.y, s.z, s.width, s.height, *s.before) for s in sprites]
        given = np.array(rows, np.float64).reshape(-1, 9)
        ox, oz = given[:, 1] - shot.x, given[:, 3] - shot.z
        depth = ox * shot.sin + oz * shot.cos
        order = np.argsort(-depth, kind="stable")
        order = order[depth[order] > 0.25]
        depth, across = depth[order], (ox * shot.cos - oz * shot.sin)[order]
        kind = given[order, 0].astype(np.int64)
        x, y, z, width_m, height_m, bx, by, bz = given[order, 1:].T
        size = self.focal / depth
        left = self.width / 2 + (across - width_m / 2) * size
        top = shot.horizon - (y + height_m - shot.y) * size
        wide, tall = width_m * size, height_m * size
        x0, x1 = np.maximum(0, np.ceil(left - 0.5)), np.minimum(self.width, np.ceil(left + wide - 0.5))
        y0, y1 = np.maximum(0, np.ceil(top - 0.5)), np.minimum(self.height, np.ceil(top + tall - 0.5))
        level = (art.too_tall[kind] > tall[:, None] * 1.3).sum(1)
        lamp, emissive = self.baked.lamp, art.emissive[kind]
        k = np.clip((z * 2).astype(np.int64), 0, lamp.shape[0] - 1)
        i = np.clip((x * 2).astype(np.int64), 0, lamp.shape[1] - 1)
        light = (lamp[k, i] * (1 - emissive) + np.float32(1.06) * emissive).astype(np.float32)
        keep = (64 - np.rint(np.maximum(0, depth - HAZE_FROM_M) / (depth + HAZE_M) * 64))[:, None] / 64
        ox, oz = bx - shot.x0, bz - shot.z0
        out = np.empty(len(order), BILLBOARD)
        for name, values in (
            ("texels", art.texels[kind, level]), ("solid", art.solid[kind, level]),
            ("rows", art.rows[kind, level]), ("columns", art.columns[kind, level]),
            ("x0", x0), ("x1", x1), ("y0", y0), ("y1", y1), ("left", left), ("top", top), ("wide", wide),
            ("tall", tall), ("inverse", 1 / depth),
            ("light", np.rint(light * 24) / np.float32(24) * keep.astype(np.float32)), ("haze", HAZE * (1 - keep)),
            ("across", across), ("size", size), ("across0", ox * shot.cos0 - oz * shot.sin0),
            ("size0", self.focal / np.maximum(ox * shot.sin0 + oz * shot.cos0, 0.05)),
            ("foot", shot.y - y), ("foot0", by - shot.y0),
        ):  # fmt: skip
            out[name] = values
        return np.ascontiguousarray(out[(x0 < x1) & (y0 < y1)])

    def draw_in_numpy(self, view: View, pixels: NDArray[np.uint8], planes: Planes | None = None) -> None:
        """As `draw`, array by array. After it, and only then, `drawn`, `positions` and `normals` tell more."""
        at = [perf_counter()]
        self._camera = view.camera
        self._spans = spans = self._trace(view.camera)
        at.append(perf_counter())
        self._mark(view.camera, spans)
        at.append(perf_counter())
        target = _words(pixels)
        for first in range(0, self.height, self._band):
            rows = slice(first, min(first + self._band, self.height))
            self._depths(rows)
            self._address(rows, view.camera)
            self._colour(rows, target)
        at.append(perf_counter())
        self._draw_sprites(view, target)
        at.append(perf_counter())
        if planes is not None:
            if planes.depth is not None:
                self._write_depth(planes.depth)
            if planes.motion is not None:
                self._write_motion(view, planes.motion)
            if planes.mask is not None:
                self._write_mask(planes.mask)
        at.append(perf_counter())
        names = ("trace", "spans", "pixels", "sprites", "planes")
        self.stage_ms = {n: (end - start) * 1e3 for n, start, end in zip(names, at[:-1], at[1:], strict=True)}

    def _trace(self, camera: Camera) -> "_Spans":
        """Walk the rays and cut every column into spans."""
        self.horizon = np.float32(self.height / 2 + math.tan(camera.pitch) * self.focal)
        count = self._walk(camera)
        time, cell = self._time[: count + 2], self._cell[: count + 1]
        np.clip(cell, 0, self.world.low.size - 1, out=cell)
        low, high = self._low_met[: count + 1], self._high_met[: count + 1]
        np.take(self._low, cell, out=low, mode="clip")
        np.take(self._high, cell, out=high, mode="clip")
        # Behind the outer wall nothing counts.
        rim = self._rim.take(cell)
        if rim[:-1].any():
            np.logical_or.accumulate(rim, axis=0, out=rim)
            low[1:][rim[:-1]] = -50.0
            high[1:][rim[:-1]] = OPEN
        per_metre = self._per_metre[: count + 2]
        np.divide(np.float32(self.focal), time, out=per_metre)
        standing = self._cut_standing(count, np.float32(camera.y), low, per_metre)
        hanging = self._cut_hanging(count, np.float32(camera.y), high, per_metre)
        return _Spans(
            lower=len(standing[0]),
            upper=len(hanging[0]),
            top=self._top,
            **{
                name: np.concatenate(pair)
                for name, pair in zip(_SPAN_FIELDS, zip(standing, hanging, strict=True), strict=True)
            },
        )

    def _walk(self, camera: Camera) -> int:
        """Step all rays from cell to cell; returns how many steps were taken.

        Fills `_time` (view depth at which step i is entered; one more for leaving the last), `_cell` and
        `_by_x`.
        """
        world, width = self.world, self.width
        sin, cos = math.sin(camera.yaw), math.cos(camera.yaw)
        dx = (sin + self.slope * cos).astype(np.float32)
        dz = (cos - self.slope * sin).astype(np.float32)
        dx[abs(dx) < 1e-6] = 1e-6
        dz[abs(dz) < 1e-6] = 1e-6
        self._dx, self._dz = dx, dz
        step_x, step_z = 1 / abs(dx), 1 / abs(dz)
        i, k = int(camera.x), int(camera.z)
        next_x = np.where(dx > 0, i + 1 - camera.x, camera.x - i).astype(np.float32) * step_x
        next_z = np.where(dz > 0, k + 1 - camera.z, camera.z - k).astype(np.float32) * step_z
        east = np.where(dx > 0, 1, -1)
        turn = np.where(dz > 0, world.width, -world.width) - east
        self._edge_x, self._edge_z = np.where(dx > 0, 0, 1), np.where(dz > 0, 2, 3)
        time, cell, by_x = self._time, self._cell, self._by_x
        time[0] = NEAR_M
        cell[0] = k * world.width + i
        by_x[0] = False
        eye = np.float32(camera.y)
        # A column is closed once what it has met hides all that could still come: the steepest top so far,
        # and the lowest ceiling met before any open sky.
        steepest = np.full(width, -1e9, np.float32)
        lid = np.full(width, 1e9, np.float32)
        covered = np.full(width, bool(self._high[cell[0, 0]] < OPEN))
        tallest = np.float32(self._tallest - camera.y)
        by_z = np.empty(width, bool)
        stride = np.empty(width, np.int64)
        advance = np.empty(width, np.float32)
        count = time.shape[0] - 2
        for index in range(1, count + 1):
            side = by_x[index]
            np.less(next_x, next_z, out=side)
            np.logical_not(side, out=by_z)
            np.minimum(next_x, next_z, out=time[index])
            np.multiply(turn, by_z, out=stride)
            np.add(stride, east, out=stride)
            np.add(cell[index - 1], stride, out=cell[index])
            np.multiply(step_x, side, out=advance)
            np.add(next_x, advance, out=next_x)
            np.multiply(step_z, by_z, out=advance)
            np.add(next_z, advance, out=next_z)
            if index % 8 == 0:
                met, enter = cell[index - 7 : index + 1], time[index - 7 : index + 1]
                np.maximum(steepest, ((self._low.take(met, mode="clip") - eye) / enter).max(0), out=steepest)
                leave = np.minimum(next_x, next_z)
                if covered.any():
                    high = self._high.take(met, mode="clip")
                    under = np.logical_and.accumulate(high < OPEN, axis=0) & covered
                    covered = under[-1]
                    until = np.concatenate([enter[1:], leave[None]])
                    np.minimum(lid, np.where(under, (high - eye) / until, np.float32(1e9)).min(0), out=lid)
                if (steepest >= np.minimum(lid, tallest / leave)).all():
                    count = index
                    break
        np.minimum(next_x, next_z, out=time[count + 1])
        return count

    def _cut_standing(
        self, count: int, eye: np.float32, low: Floats, per_metre: Floats
    ) -> tuple[NDArray[Any], ...]:
        """Spans of what stands on the ground, near to far in `_SPAN_FIELDS` order.

        Up a column every step adds two edges, where its face begins (entering it) and where its top ends
        (leaving it); what rises above all nearer edges is seen.
        """
        size = 2 * (count + 1)
        lift = low - eye
        edge, rows = self._edges[:size], self._edge_rows[:size]
        np.multiply(lift, per_metre[:-1], out=edge[0::2])
        np.multiply(lift, per_metre[1:], out=edge[1::2])
        np.subtract(self.horizon - np.float32(0.5), edge, out=edge)
        edge[0] = self.height
        np.clip(edge, 0, self.height, out=edge)
        np.ceil(edge, out=edge)
        np.copyto(rows, edge, casting="unsafe")
        for index in range(1, size):
            np.minimum(rows[index - 1], rows[index], out=rows[index])
        part, column = np.nonzero(rows[1:] < rows[:-1])
        part += 1
        entry, face = part >> 1, (part & 1) == 0
        lift = lift[entry, column]
        per_row = np.where(face, 0, -1 / (np.float32(self.focal) * lift)).astype(np.float32)
        return (
            part,
            rows[part, column],
            *self._describe(entry, column, face, face.astype(np.float32), per_row),
        )

    def _cut_hanging(
        self, count: int, eye: np.float32, high: Floats, per_metre: Floats
    ) -> tuple[NDArray[Any], ...]:
        """Spans of what hangs above, near to far in `_SPAN_FIELDS` order; rows above the horizon only.

        Down a column every step adds three edges: the roof's (rays above it are done with all that hangs;
        inverse depth -1 marks that), the front below it, and the ceiling's far end.
        """
        self._top = top = int(min(max(math.ceil(float(self.horizon)), 0), self.height))
        size = 3 * (count + 1)
        edge, rows = self._edges[:size], self._edge_rows[:size]
        if top == 0:
            rows[:] = 0
        hang = high - eye
        np.multiply(hang, per_metre[:-1], out=edge[1::3])
        np.multiply(hang, per_metre[1:], out=edge[2::3])
        np.multiply(np.float32(ROOF) - eye, per_metre[:-1], out=edge[0::3])
        covered = high < OPEN
        edge[3::3][covered[:-1] | ~covered[1:]] = OPEN
        np.subtract(self.horizon - np.float32(0.5), edge, out=edge)
        edge[0:2] = 0
        np.clip(edge, 0, top, out=edge)
        np.ceil(edge, out=edge)
        np.copyto(rows, edge, casting="unsafe")
        for index in range(1, size):
            np.maximum(rows[index - 1], rows[index], out=rows[index])
        self._upper_last = rows[size - 1].copy()
        part, column = np.nonzero(rows[1:] > rows[:-1])
        start = rows[part, column]
        part += 1
        entry, kind = part // 3, part % 3
        face = kind == 1
        per_row = np.where(kind == 2, -1 / (np.float32(self.focal) * hang[entry, column]), 0).astype(
            np.float32
        )
        met = 2 * entry + (kind == 2)
        return (
            met,
            start,
            *self._describe(entry, column, face, face - (kind == 0).astype(np.float32), per_row),
        )

    def _describe(
        self,
        entry: NDArray[np.int64],
        column: NDArray[np.int64],
        face: NDArray[np.bool_],
        sign: Floats,
        per_row: Floats,
    ) -> tuple[NDArray[Any], ...]:
        """The rest of the spans' fields, from the step at which each was entered."""
        where = entry * self.width + column
        time = self._time.ravel().take(where)
        by_x = self._by_x.ravel().take(where)
        cell = self._cell.ravel().take(where)
        edge = cell * 4 + np.where(by_x, self._edge_x.take(column), self._edge_z.take(column))
        inverse = np.where(sign < 0, np.float32(-1), sign / time)
        return column, face, inverse.astype(np.float32), per_row, cell, edge, time, by_x

    def _mark(self, camera: Camera, spans: "_Spans") -> None:
        """Number the spans, fill the tables that pixels look up, and mark each pixel with its span.

        Span numbers: 0 is unused, 1 to W are the columns' skies, then all spans from the last met to the
        first: of two spans in one pixel, the higher number is the nearer. Down a column standing spans come
        nearer and hanging ones go farther, so a running maximum and a running minimum fill the gaps between
        the rows where spans begin.
        """
        lower, upper, top, width = spans.lower, spans.upper, spans.top, self.width
        total = lower + upper
        spans.number = number = np.empty(total, np.int64)
        number[np.argsort(spans.met, kind="stable")] = np.arange(width + total, width, -1)
        size = width + total + 1

        def table(
            values: NDArray[Any], dtype: type[np.generic], sky: NDArray[Any] | float = 0
        ) -> NDArray[Any]:
            out = np.zeros(size, dtype)
            out[1 : width + 1] = sky
            out[number] = values
            return out

        self._inverse, self._per_row = (
            table(spans.inverse, np.float32, SKY_INVERSE),
            table(spans.per_row, np.float32),
        )
        # Faces: one mip per span, one texel column per span; the texel's row runs linearly down the screen.
        atlas, f = self.baked.atlas, FACE_TEXELS
        level = np.log2(np.maximum(spans.time * np.float32(f / self.focal * 0.8), 1)).astype(np.int64)
        np.minimum(level, FACE_MIPS - 1, out=level)
        column = spans.column
        along = np.where(
            spans.by_x,
            camera.z + spans.time * self._dz.take(column),
            camera.x + spans.time * self._dx.take(column),
        )
        across = ((along - np.floor(along)) * f).astype(np.int64) >> level
        texels = (f >> level).astype(np.float32)
        edges = atlas.face_top.shape[1]
        entry = level * edges + spans.edge
        entry[lower:] += FACE_MIPS * edges
        base = atlas.face_base.ravel().take(entry) + across * atlas.face_height.ravel().take(entry) + 1
        entry = spans.edge.copy()
        entry[lower:] += edges
        face_top = atlas.face_top.ravel().take(entry)
        # The sky is a face as well: its texels lie in columns of rising elevation.
        around, up = SKY_SIZE
        turn = (camera.yaw + np.arctan(self.slope.astype(np.float64))) / (2 * math.pi)
        sky_base = (((turn - np.floor(turn)) * around).astype(np.int32) % around) * up + atlas.sky_base
        sky_scale = self._sky_scale()
        face = spans.face
        self._first = table(np.where(face, base, 0), np.int32, sky_base)
        self._offset = table(np.where(face, (face_top - camera.y) * texels, 0), np.float32)
        self._scale = table(np.where(face, texels * spans.time / self.focal, 0), np.float32, sky_scale)

        marks = self._marks
        marks[1:] = 0
        marks[0] = np.arange(1, width + 1)
        marks[spans.row[:lower], column[:lower]] = number[:lower]
        _run_down(np.maximum, marks)
        if upper:
            # Twice the number, plus one if it is a surface; a span that only says "nothing hangs here" stays
            # even.
            hanging = self._upper_marks[: top + 1]
            hanging.fill(np.iinfo(hanging.dtype).max)
            hanging[self._upper_last, np.arange(width)] = 0
            hanging[spans.row[lower:], column[lower:]] = 2 * number[lower:] + (spans.inverse[lower:] >= 0)
            hanging = hanging[:top]
            _run_down(np.minimum, hanging)
            shown = self._upper_shown[:top]
            np.bitwise_and(hanging, 1, out=shown)
            np.multiply(shown, np.iinfo(shown.dtype).max, out=shown)
            np.right_shift(hanging, 1, out=hanging)
            np.bitwise_and(hanging, shown, out=hanging)
            np.maximum(marks[:top], hanging, out=marks[:top])
        # The sky ends where no column shows it any more.
        sky = np.nonzero((marks[:top] <= width).any(1))[0]
        self._sky_rows = int(sky[-1]) + 1 if sky.size else 0

        # Per row: which mip of the ground or ceiling, and where it lies.
        self._below = (self.rows - self.horizon).astype(np.float32)[:, None]
        drop = np.where(self._below > 0, camera.y, CEILING_M - camera.y)
        far = drop * self.focal / np.maximum(abs(self._below), 0.5)
        footprint = far / self.focal * np.sqrt(np.maximum(far / drop, 1)) * FLAT_TEXELS
        level = np.clip(np.log2(np.maximum(footprint * 0.62, 1)), 0, FLAT_MIPS - 1).astype(np.int64)
        self._row_texels = (FLAT_TEXELS / (1 << level)).astype(np.float32)
        self._row_pitch = atlas.flat_pitch[level].astype(np.int32)
        self._row_base = atlas.flat_base[(self._below < 0).astype(np.int64), level].astype(np.int32)

    def _depths(self, rows: slice) -> None:
        """Span number and inverse depth of a band of rows."""
        span, iz, a = self.span[rows], self.iz[rows], self._f[0][: rows.stop - rows.start]
        np.copyto(span, self._marks[rows])
        np.take(self._per_row, span, out=a, mode="clip")
        np.multiply(a, self._below[rows], out=a)
        np.take(self._inverse, span, out=iz, mode="clip")
        np.add(iz, a, out=iz)

    def _address(self, rows: slice, camera: Camera) -> None:
        """The texel of every pixel of a band, as an index into the texture memory."""
        n = rows.stop - rows.start
        x, z, v, depth = (buffer[:n] for buffer in self._f)
        xi, zi, first = (buffer[:n] for buffer in self._i)
        span, per_texel = self.span[rows], self._row_texels[rows]
        # Ground and ceiling: the point of the map under the pixel, in texels of the row's mip.
        np.divide(per_texel, self.iz[rows], out=depth)
        np.multiply(depth, self._dx, out=x)
        np.add(x, per_texel * np.float32(camera.x), out=x)
        np.multiply(depth, self._dz, out=z)
        np.add(z, per_texel * np.float32(camera.z), out=z)
        np.copyto(xi, x, casting="unsafe")
        np.copyto(zi, z, casting="unsafe")
        np.multiply(zi, self._row_pitch[rows], out=zi)
        np.add(zi, self._row_base[rows], out=zi)
        np.add(xi, zi, out=xi)
        # Faces: a column's first texel (0 for what is none, and then `first - 1` is all ones) and a row down
        # it.
        np.take(self._first, span, out=first, mode="clip")
        np.subtract(first, 1, out=zi)
        np.right_shift(zi, 31, out=zi)
        np.bitwise_and(xi, zi, out=xi)
        np.add(xi, first, out=xi)
        np.take(self._scale, span, out=v, mode="clip")
        np.multiply(v, self._below[rows], out=v)
        np.take(self._offset, span, out=z, mode="clip")
        np.add(z, v, out=z)
        np.copyto(zi, z, casting="unsafe")
        np.add(xi, zi, out=self.texel[rows])

    def _colour(self, rows: slice, target: NDArray[np.uint32]) -> None:
        """Fetch the texels of a band; the haze takes its share of what is far: few pixels, mostly."""
        words, iz = self._words[: rows.stop - rows.start], self.iz[rows]
        np.take(self.baked.lit, self.texel[rows], out=words, mode="clip")
        far = iz < np.float32(1 / HAZE_FROM_M)
        if rows.start < self._sky_rows:
            np.logical_and(far, iz > np.float32(2 * SKY_INVERSE), out=far)
        count = int(np.count_nonzero(far))
        if 4 * count > far.size:
            lost = haze_share(np.divide(np.float32(1), iz, out=self._f[0][: len(words)]))
            words[...] = _hazy(words, lost * far)
        elif count:
            picked = np.flatnonzero(far)
            flat = words.reshape(-1)
            flat[picked] = _hazy(flat.take(picked), haze_share(1 / iz.reshape(-1).take(picked)))
        np.copyto(target[rows], words)

    # -- sprites
    # -------------------------------------------------------------------------------------------------

    def _in_sight(self, view: View) -> list[tuple[float, float, Sprite]]:
        """(depth, metres to the right, sprite) of the sprites before the camera, far ones first."""
        camera = view.camera
        sin, cos = math.sin(camera.yaw), math.cos(camera.yaw)
        queue = []
        for sprite in view.sprites:
            ox, oz = sprite.x - camera.x, sprite.z - camera.z
            depth = ox * sin + oz * cos
            if depth > 0.25:
                queue.append((depth, ox * cos - oz * sin, sprite))
        queue.sort(key=lambda one: -one[0])
        return queue

    def _place(
        self, depth: float, across: float, sprite: Sprite, eye_m: float, horizon: float
    ) -> tuple[float, float, float, float, tuple[int, int, int, int], int] | None:
        """Where a sprite is seen: left, top, width and height in pixels, (x0, x1, y0, y1), and which of its mips.

        None where no pixel's middle lies in it.
        """
        size = self.focal / depth
        left = self.width / 2 + (across - sprite.width / 2) * size
        top = horizon - (sprite.y + sprite.height - eye_m) * size
        wide, tall = sprite.width * size, sprite.height * size
        x0, x1 = max(0, math.ceil(left - 0.5)), min(self.width, math.ceil(left + wide - 0.5))
        y0, y1 = max(0, math.ceil(top - 0.5)), min(self.height, math.ceil(top + tall - 0.5))
        if x0 >= x1 or y0 >= y1:
            return None
        texels = self.art[sprite.art].texels
        level = 0
        while level + 1 < len(texels) and texels[level].shape[0] > tall * 1.3:
            level += 1
        return left, top, wide, tall, (x0, x1, y0, y1), level

    def _draw_sprites(self, view: View, target: NDArray[np.uint32]) -> None:
        """Billboards, far ones first, each hidden by what is nearer."""
        self._drawn = []
        for depth, across, sprite in self._in_sight(view):
            place = self._place(depth, across, sprite, view.camera.y, float(self.horizon))
            if place is None:
                continue
            left, top, wide, tall, (x0, x1, y0, y1), level = place
            area = (slice(y0, y1), slice(x0, x1))
            near = self.iz[area] < np.float32(1 / depth)
            if not near.any():
                continue
            art = self.art[sprite.art]
            texels = art.texels[level]
            rows = ((np.arange(y0, y1) + 0.5 - top) / tall * texels.shape[0]).astype(np.int64)
            columns = ((np.arange(x0, x1) + 0.5 - left) / wide * texels.shape[1]).astype(np.int64)
            np.clip(rows, 0, texels.shape[0] - 1, out=rows)
            np.clip(columns, 0, texels.shape[1] - 1, out=columns)
            index = rows[:, None] * texels.shape[1] + columns[None]
            near &= art.solid[level].ravel().take(index)
            lit = self._lit(sprite, level, depth)
            np.copyto(target[area], lit.take(index), where=near)
            np.copyto(self.iz[area], np.float32(1 / depth), where=near)
            self._drawn.append((sprite, area, near, level, index, depth))

    def _light_steps(self, sprite: Sprite, emissive: float, depth: float) -> tuple[NDArray[np.int16], float]:
        """The light on a sprite in steps of 1/24, and the share that the haze leaves of it."""
        keep = 64 - round(max(0.0, depth - HAZE_FROM_M) / (depth + HAZE_M) * 64)
        return np.round(self.sprite_light(sprite, emissive) * 24).astype(np.int16), keep / 64

    def _lit(self, sprite: Sprite, level: int, depth: float) -> NDArray[np.uint32]:
        """A sprite's texels in its light and at this distance, kept for the next frames; flat uint32."""
        art = self.art[sprite.art]
        steps, keep = self._light_steps(sprite, art.emissive, depth)
        key = (sprite.art, level, steps.tobytes() + bytes((round(keep * 64),)))
        made = self._lit_sprites.get(key)
        if made is None:
            if len(self._lit_sprites) > 400:
                self._lit_sprites.clear()
            made = _scale_texels(art.texels[level].ravel(), steps.astype(np.float32) / 24, keep)
            self._lit_sprites[key] = made
        return made

    def sprite_light(self, sprite: Sprite, emissive: float) -> Floats:
        """The light a sprite is drawn in, float32 [3]."""
        lamp = self.baked.lamp
        k = min(max(int(sprite.z * 2), 0), lamp.shape[0] - 1)
        i = min(max(int(sprite.x * 2), 0), lamp.shape[1] - 1)
        return np.asarray(lamp[k, i] * (1 - emissive) + 1.06 * emissive, np.float32)

    def drawn(self) -> list[DrawnSprite]:
        """The sprites of the last frame that numpy drew, far ones first."""
        result = []
        for sprite, area, near, level, index, depth in self._drawn:
            art = self.art[sprite.art]
            texels = art.texels[level].ravel().take(index)
            light = self.sprite_light(sprite, art.emissive)
            result.append(DrawnSprite(sprite, area, near, texels, light, art.material, depth))
        return result

    # -- what an engine has besides colour
    # -----------------------------------------------------------------------

    def _write_depth(self, depth: Floats) -> None:
        """Depth of the frame just drawn: float32 [H, W], view-space z in metres, `FAR_M` for the sky."""
        np.divide(np.float32(1), self.iz, out=depth)
        np.minimum(depth, np.float32(FAR_M), out=depth)

    def positions(self, depth: Floats) -> Floats:
        """World points, float32 [H, W, 3] in metres, of the last frame's pixels at view depths [H, W]."""
        camera = self._camera
        out = np.empty((*depth.shape, 3), np.float32)
        out[..., 0] = camera.x + depth * self._dx
        out[..., 1] = camera.y - depth * self._below / np.float32(self.focal)
        out[..., 2] = camera.z + depth * self._dz
        return out

    def normals(self) -> Floats:
        """World normals of the last frame, float32 [H, W, 3]; sprites face the eye, the sky has 0."""
        spans = self._spans
        table = np.zeros((self.width + spans.face.size + 1, 3), np.float32)
        sides = np.array(((-1, 0, 0), (1, 0, 0), (0, 0, -1), (0, 0, 1)), np.float32)
        upright = sides[spans.edge % 4]
        lying = np.zeros_like(upright)
        lying[: spans.lower, 1] = 1
        lying[spans.lower :, 1] = -1
        table[spans.number] = np.where(spans.face[:, None], upright, lying)
        out = table[self.span]
        sin, cos = math.sin(self._camera.yaw), math.cos(self._camera.yaw)
        for _, area, near, _, _, _ in self._drawn:
            out[area][near] = (-sin, 0.0, -cos)
        return out

    def _write_mask(self, mask: NDArray[np.uint8]) -> None:
        """Mask of the frame just drawn: uint8 [H, W]; 1 world, 2 sprites, 3 sky (0, a HUD, comes later)."""
        mask.fill(MASK_WORLD)
        n = self._sky_rows
        np.copyto(mask[:n], MASK_SKY, where=self.span[:n] <= self.width)
        for _, area, near, _, _, _ in self._drawn:
            np.copyto(mask[area], MASK_OBJECT, where=near)

    def _write_motion(self, view: View, motion: NDArray[np.float16] | Floats) -> None:
        """Motion of the frame just drawn: [H, W, 2] (x, y) in pixels, float16 or float32.

        It points from a pixel to where that piece of surface was in the frame before: previous = current +
        motion.
        """
        now, old = view.camera, view.before
        sin, cos = math.sin(now.yaw), math.cos(now.yaw)
        sin0, cos0 = math.sin(old.yaw), math.cos(old.yaw)
        f = np.float32(self.focal)
        horizon0 = np.float32(self.height / 2 + math.tan(old.pitch) * self.focal)
        # A point at view depth z and column slope s was, in units of z, at (ahead + tz / z, aside + tx / z)
        # before.
        turn_c, turn_s = cos * cos0 + sin * sin0, sin * cos0 - cos * sin0
        ahead = (turn_c - turn_s * self.slope).astype(np.float32)
        aside = (turn_s + turn_c * self.slope).astype(np.float32)
        mx, mz = now.x - old.x, now.z - old.z
        tz, tx = np.float32(mx * sin0 + mz * cos0), np.float32(mx * cos0 - mz * sin0)
        centre = (np.arange(self.width, dtype=np.float32) + np.float32(0.5 - self.width / 2)).astype(
            np.float32
        )
        height_row = ((self.horizon - self.rows) / f).astype(np.float32)[:, None]
        place_row = (horizon0 - self.rows).astype(np.float32)[:, None]
        rise = np.float32(now.y - old.y)
        store = _store_half if motion.dtype == np.float16 else _store_float
        for first in range(0, self.height, self._band):
            rows = slice(first, min(first + self._band, self.height))
            n = rows.stop - rows.start
            iz, (a, b, _, _) = self.iz[rows], (buffer[:n] for buffer in self._f)
            np.multiply(iz, tz, out=a)
            np.add(a, ahead, out=a)
            np.maximum(a, np.float32(1e-2), out=a)
            np.divide(f, a, out=a)
            np.multiply(iz, tx, out=b)
            np.add(b, aside, out=b)
            np.multiply(b, a, out=b)
            np.subtract(b, centre, out=b)
            store(b, motion[rows, :, 0], self._i[0][:n], self._i[1][:n])
            # y: horizon0 - ((horizon - y) / f + (eye - eye0) / z) * f / (ahead + tz / z) - y
            np.multiply(iz, rise, out=b)
            np.add(b, height_row[rows], out=b)
            np.multiply(b, a, out=b)
            np.subtract(place_row[rows], b, out=b)
            store(b, motion[rows, :, 1], self._i[0][:n], self._i[1][:n])
        for sprite, area, near, _, _, depth in self._drawn:
            bx, by, bz = sprite.before
            ox, oz = bx - old.x, bz - old.z
            depth0 = max(ox * sin0 + oz * cos0, 0.05)
            across0 = ox * cos0 - oz * sin0
            across = (sprite.x - now.x) * cos - (sprite.z - now.z) * sin
            size, size0 = self.focal / depth, self.focal / depth0
            x = np.arange(area[1].start, area[1].stop) + 0.5
            y = np.arange(area[0].start, area[0].stop) + 0.5
            # A point of the billboard keeps its place in metres from the foot's middle.
            u = (x - self.width / 2) / size - across
            v = (float(self.horizon) - y) / size + now.y - sprite.y
            x0 = self.width / 2 + (across0 + u) * size0
            y0 = float(horizon0) - (by + v - old.y) * size0
            np.copyto(motion[area][..., 0], (x0 - x)[None].astype(motion.dtype), where=near)
            np.copyto(motion[area][..., 1], (y0 - y)[:, None].astype(motion.dtype), where=near)


def _store_float(values: Floats, out: NDArray[Any], bits: NDArray[np.int32], sign: NDArray[np.int32]) -> None:
    """Copy float32 as it is."""
    np.copyto(out, values)


def _store_half(values: Floats, out: NDArray[Any], bits: NDArray[np.int32], sign: NDArray[np.int32]) -> None:
    """Write float32 as float16: numpy's own conversion takes twice as long.

    Rounds to nearest, halves away from zero; what is too small for a normal half becomes 0. No NaN, no
    overflow: motion is finite and below 65504 pixels.
    """
    raw = values.view(np.int32)
    np.right_shift(raw, 16, out=sign)
    np.bitwise_and(sign, 0x8000, out=sign)
    np.bitwise_and(raw, 0x7FFFFFFF, out=bits)
    np.add(bits, 0x1000 - (112 << 23), out=bits)
    np.right_shift(bits, 13, out=bits)
    np.maximum(bits, 0, out=bits)
    np.bitwise_or(bits, sign, out=bits)
    np.copyto(out.view(np.uint16), bits, casting="unsafe")


@dataclass
class _Spans:
    """The spans of one frame, one entry each: `lower` standing ones, near to far, then `upper` hanging ones.

    `met` counts the crossings of its ray before it, `row` is the topmost row of the span, `inverse` and
    `per_row` give its inverse depth (`inverse + per_row * rows below the horizon`; -1 for what only says that
    nothing hangs here), `face` whether it is upright, `edge` the directed cell border it was entered by,
    `time` the view depth there, `by_x` whether that border runs north. `number` is what stands for it in
    `Renderer.span`.
    """

    lower: int
    upper: int
    top: int
    met: NDArray[np.int64]
    row: NDArray[np.int16]
    column: NDArray[np.int64]
    face: NDArray[np.bool_]
    inverse: Floats
    per_row: Floats
    cell: NDArray[np.int64]
    edge: NDArray[np.int64]
    time: Floats
    by_x: NDArray[np.bool_]
    number: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


_SPAN_FIELDS = ("met", "row", "column", "face", "inverse", "per_row", "cell", "edge", "time", "by_x")


def _planes_at(pixels: NDArray[np.uint8], planes: Planes, iz: Floats) -> PlanesAt:
    given = (pixels, planes.depth, planes.motion, planes.mask)
    return PlanesAt(*map(address, (*given, iz)), *(0 if plane is None else plane.strides[0] for plane in given))


def _words(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """uint8 [H, W, 4] seen as uint32 [H, W]; rows may be padded."""
    return pixels.view(np.uint32)[..., 0]


def _prepare(art: SpriteArt) -> _Art:
    rgba = (np.clip(art.rgba, 0, 1) * 255).astype(np.uint8)
    texels, solid = [], []
    for _ in range(4):
        texels.append(np.ascontiguousarray(rgba).view(np.uint32)[..., 0] | np.uint32(0xFF000000))
        solid.append(np.ascontiguousarray(rgba[..., 3] > 127))
        if min(rgba.shape[:2]) < 16:
            break
        h, w = rgba.shape[0] // 2 * 2, rgba.shape[1] // 2 * 2
        four = rgba[:h, :w].reshape(h // 2, 2, w // 2, 2, 4).astype(np.float32)
        weight = four[..., 3:] + 1e-3
        colour = (four[..., :3] * weight).sum((1, 3)) / weight.sum((1, 3))
        rgba = np.concatenate([colour, four[..., 3:].mean((1, 3))], -1).astype(np.uint8)
    return _Art(texels, solid, art.emissive, art.material)


def _run_down(choose: np.ufunc, marks: NDArray[Any]) -> None:
    """A running maximum or minimum down the rows, in place; several times faster than `choose.accumulate`.

    First within blocks of eight rows, all blocks at once, then from block to block.
    """
    height, width = marks.shape
    whole = height // 8 * 8
    blocks = marks[:whole].reshape(-1, 8, width)
    for index in range(1, 8):
        choose(blocks[:, index - 1], blocks[:, index], out=blocks[:, index])
    last = blocks[:, 7].copy()
    for index in range(1, len(last)):
        choose(last[index - 1], last[index], out=last[index])
    choose(blocks[1:], last[:-1, None], out=blocks[1:])
    for y in range(max(whole, 1), height):
        choose(marks[y - 1], marks[y], out=marks[y])


def _hazy(colour: NDArray[np.uint32], lost: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """(colour * (256 - lost) + haze * lost) / 256 on packed colours: red and blue together, then green."""
    keep = np.uint32(256) - lost
    pair = (colour & np.uint32(0x00FF00FF)) * keep + lost * np.uint32(HAZE[0] | HAZE[2] << 16)
    pair = (pair >> np.uint32(8)) & np.uint32(0x00FF00FF)
    green = ((colour >> np.uint32(8)) & np.uint32(0xFF)) * keep + lost * np.uint32(HAZE[1])
    return np.asarray(pair | (green & np.uint32(0xFF00)) | np.uint32(0xFF000000), np.uint32)


def haze_share(depth: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """How much of a colour the haze takes at these distances, 0..256."""
    share = 256 - np.float32(256 * (HAZE_FROM_M + HAZE_M)) / (depth + np.float32(HAZE_M))
    return np.asarray(np.maximum(share, 0), np.int32).view(np.uint32)


def _scale_texels(
    texels: NDArray[np.uint32], light: NDArray[np.floating[Any]], keep: float
) -> NDArray[np.uint32]:
    """Light a sprite's texels; `keep` is the share that the haze leaves of them."""
    rgba = texels[:, None].view(np.uint8).astype(np.float32)
    rgba[:, :3] = rgba[:, :3] * (light * keep) + np.array(HAZE, np.float32) * (1 - keep)
    out = np.minimum(rgba, 255).astype(np.uint8)
    return out.view(np.uint32)[:, 0]

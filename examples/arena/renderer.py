"""The software renderer: one frame of the arena, in numpy, on one core.

A ray per screen column is walked through the map's cells, all columns together. What each column meets becomes a few
spans (a face, or a piece of ground or ceiling); every pixel then takes its span's numbers by one gather each, and one
last gather fetches the texels. Looking up and down shears the image, so upright lines stay upright and a face keeps
one depth in a column. From the same spans come exact depth (view-space z in metres) and motion (pixels).

Two passes find the spans. The first sees what stands on the ground, the second what hangs above (ceilings, lintels,
roof fronts); as all roofs have one height, a ray that passes above one can never meet another, and the nearer of
the two is what a pixel shows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from arena.bake import FACE_MIPS, FACE_TEXELS, FLAT_MIPS, FLAT_TEXELS, SKY_SIZE, SKY_TOP, Baked
from arena.textures import SpriteArt
from arena.world import OPEN, ROOF, World

__all__ = ["FAR_M", "MASK_OBJECT", "MASK_SKY", "MASK_WORLD", "Camera", "Renderer", "Sprite", "View"]

FAR_M = 1000.0
"""Depth written for the sky, metres."""
MASK_WORLD, MASK_OBJECT, MASK_SKY = 1, 2, 3
FOCAL = 1.16
"""Focal length as a share of the frame's height: 47 degrees from bottom to top."""
NEAR_M = 0.12
HAZE = (176, 194, 208)
HAZE_M = 190.0
"""Distance at which half of a colour has gone into the haze, metres."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """Where the eye is: metres; yaw in radians (0 looks along +z, growing turns right), pitch in radians (up > 0)."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float


@dataclass(frozen=True)
class Sprite:
    """A billboard: the point under its foot's middle, in metres, now and one frame ago, and its size in metres."""

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


@dataclass
class _Art:
    """A sprite ready to draw: its sizes from large to small, as columns of packed texels, and their cut-outs."""

    texels: list[NDArray[np.uint32]]
    solid: list[NDArray[np.bool_]]
    emissive: float


class Renderer:
    """Draws frames of one world at one size. All buffers are made here; `draw` allocates only small arrays.

    `stage_ms` holds what each stage of the last frame took, in milliseconds.
    """

    def __init__(self, world: World, baked: Baked, art: dict[str, SpriteArt], width: int, height: int) -> None:
        if width < 16 or height < 16:
            raise ValueError(f"a frame of {width}x{height} is too small; give at least 16x16")
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
        self._marks = np.zeros((height + 1, width), np.uint16)
        self._upper_marks = np.zeros((height + 1, width), np.uint16)
        self._floats = [np.empty((height, width), np.float32) for _ in range(4)]
        self._ints = [np.empty((height, width), np.int32) for _ in range(3)]
        self._span2 = np.empty((height, width), np.int64)
        self._words = [np.empty((height, width), np.uint32) for _ in range(2)]
        self._drawn: list[tuple[Sprite, tuple[slice, slice], NDArray[np.bool_], NDArray[np.int64], float]] = []
        # Haze is blended in 256 steps: colour * keep / 256 + what the haze adds at that step.
        left = (256 - np.arange(257)).astype(np.uint32)
        self._haze = (left * HAZE[0] >> 8) | ((left * HAZE[1] >> 8) << 8) | ((left * HAZE[2] >> 8) << 16) | np.uint32(255 << 24)
        self._low = world.low
        self._high = world.high
        self._moves = np.array((1, -1, world.width, -world.width))

    # -- the frame -----------------------------------------------------------------------------------------------

    def draw(self, view: View, pixels: NDArray[np.uint8]) -> None:
        """Draw a frame into uint8 [H, W, 4] (RGBA, A = 255)."""
        at = [perf_counter()]
        spans = self._trace(view.camera)
        at.append(perf_counter())
        self._spread(view.camera, spans)
        at.append(perf_counter())
        self._address(view.camera, spans)
        at.append(perf_counter())
        self._colour(view.camera, spans, pixels)
        at.append(perf_counter())
        self._draw_sprites(view, pixels)
        at.append(perf_counter())
        for name, start, end in zip(("trace", "spans", "address", "colour", "sprites"), at[:-1], at[1:], strict=True):
            self.stage_ms[name] = (end - start) * 1e3

    def _trace(self, camera: Camera) -> "_Spans":
        """Walk the rays and cut every column into spans."""
        world, width, height = self.world, self.width, self.height
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
        north = np.where(dz > 0, world.width, -world.width)
        # Steps until the last ray has left the map; what lies behind the outer wall is hidden by it.
        reach = np.minimum(
            np.where(dx > 0, world.width - camera.x, camera.x) * step_x, np.where(dz > 0, world.depth - camera.z, camera.z) * step_z
        )
        count = int(np.max(np.ceil(reach * abs(dx)) + np.ceil(reach * abs(dz)))) + 2
        time = np.empty((count + 2, width), np.float32)
        cell = np.empty((count + 1, width), np.int64)
        by_x = np.empty((count + 1, width), bool)
        time[0] = NEAR_M
        cell[0] = k * world.width + i
        by_x[0] = False
        now = cell[0].copy()
        blocked = np.zeros(width, bool)
        size = world.low.size
        for index in range(1, count + 1):
            side = by_x[index]
            np.less(next_x, next_z, out=side)
            np.minimum(next_x, next_z, out=time[index])
            now += np.where(side, east, north)
            cell[index] = now
            next_x += step_x * side
            next_z += step_z * ~side
            if index % 6 == 0:
                blocked |= (self._low.take(cell[index - 5 : index + 1], mode="clip") >= 4.79).any(0)
                if blocked.all():
                    count = index
                    break
        time[count + 1] = np.minimum(next_x, next_z)
        time, cell, by_x = time[: count + 2], cell[: count + 1], by_x[: count + 1]
        np.clip(cell, 0, size - 1, out=cell)
        iz = 1 / np.maximum(time, 1e-4)
        low = self._low.take(cell)
        high = self._high.take(cell)
        # Behind the outer wall nothing counts.
        gone = np.logical_or.accumulate(low >= 4.79, axis=0)
        beyond = np.zeros_like(gone)
        beyond[1:] = gone[:-1]
        low[beyond] = -50.0
        high[beyond] = OPEN

        focal = np.float32(self.focal)
        self.horizon = np.float32(height / 2 + math.tan(camera.pitch) * self.focal)
        horizon, eye = self.horizon, np.float32(camera.y)
        # Things on the ground: rows where each face begins (entering) and each top ends (leaving).
        lift = (low - eye) * focal
        edge = np.empty((2 * (count + 1), width), np.float32)
        np.subtract(horizon, lift * iz[:-1], out=edge[0::2])
        np.subtract(horizon, lift * iz[1:], out=edge[1::2])
        edge[0] = height
        rows = np.ceil(np.clip(edge, 0, height) - 0.5).astype(np.int32)
        np.minimum.accumulate(rows, axis=0, out=rows)
        found = np.nonzero(rows[1:] < rows[:-1])
        part, column = found[0] + 1, found[1]
        entry = part >> 1
        is_face = (part & 1) == 0
        spans = _Spans()
        spans.row, spans.column = rows[part, column], column
        here = cell[entry, column]
        t = time[entry, column]
        spans.inverse = np.where(is_face, 1 / t, 0).astype(np.float32)
        spans.per_row = np.where(is_face, 0, 1 / (focal * (eye - low[entry, column]))).astype(np.float32)
        spans.face = is_face
        spans.cell = here
        spans.edge = here * 4 + np.where(by_x[entry, column], np.where(dx > 0, 0, 1)[column], np.where(dz > 0, 2, 3)[column])
        spans.time = t
        spans.by_x = by_x[entry, column]
        spans.lower = column.size

        # What hangs above, from the top of the screen down: over the roof, the roof's front, the ceiling.
        top = int(min(max(math.ceil(float(horizon)), 0), height))
        spans.top = top
        spans.upper = 0
        spans.over = np.zeros(0, bool)
        if top > 0:
            hang = (high - eye) * focal
            edge = np.empty((3 * (count + 1), width), np.float32)
            entered = np.zeros(high.shape, bool)
            entered[1:] = (high[1:] < OPEN) & (high[:-1] >= OPEN)
            edge[0::3] = np.where(entered, horizon - (ROOF - eye) * focal * iz[:-1], -1e9)
            np.subtract(horizon, hang * iz[:-1], out=edge[1::3])
            np.subtract(horizon, hang * iz[1:], out=edge[2::3])
            edge[0:2] = -1e9
            rows = np.ceil(np.clip(edge, 0, top) - 0.5).astype(np.int32)
            np.maximum.accumulate(rows, axis=0, out=rows)
            starts = np.zeros_like(rows)
            starts[1:] = rows[:-1]
            found = np.nonzero(rows > starts)
            part, column = found
            entry, kind = part // 3, part % 3
            here = cell[entry, column]
            t = time[entry, column]
            face = kind == 1
            spans.upper = column.size
            inverse = np.where(face, 1 / t, np.where(kind == 0, -1, 0)).astype(np.float32)
            per_row = np.where(kind == 2, 1 / (focal * (eye - high[entry, column])), 0).astype(np.float32)
            edge_id = here * 4 + np.where(by_x[entry, column], np.where(dx > 0, 0, 1)[column], np.where(dz > 0, 2, 3)[column])
            spans.upper_row, spans.upper_last = starts[found], rows[-1]
            spans.upper_column = column
            spans.inverse = np.concatenate([spans.inverse, inverse])
            spans.per_row = np.concatenate([spans.per_row, per_row])
            spans.face = np.concatenate([spans.face, face])
            spans.cell = np.concatenate([spans.cell, here])
            spans.edge = np.concatenate([spans.edge, edge_id])
            spans.time = np.concatenate([spans.time, t])
            spans.by_x = np.concatenate([spans.by_x, by_x[entry, column]])
            spans.column = np.concatenate([spans.column, column])
        return spans

    def _spread(self, camera: Camera, spans: "_Spans") -> None:
        """Give every pixel the number of its span and its inverse depth.

        Span numbers: 0 is the sky; ground spans count from the farthest (1) to the nearest; hanging ones follow.
        """
        lower, upper, top = spans.lower, spans.upper, spans.top
        total = lower + upper
        order = np.empty(total + 2, np.int64)
        order[0] = order[-1] = 0
        order[1 : lower + 1] = np.arange(lower - 1, -1, -1)
        order[lower + 1 : total + 1] = np.arange(lower, total)
        spans.order = order
        inverse = np.zeros(total + 2, np.float32)
        per_row = np.zeros(total + 2, np.float32)
        inverse[1:-1] = spans.inverse[order[1:-1]]
        per_row[1:-1] = spans.per_row[order[1:-1]]
        inverse[-1] = -1
        from_horizon = self.rows - self.horizon

        marks = self._marks
        marks.fill(0)
        marks[spans.row, spans.column[:lower]] = np.arange(lower, 0, -1)
        for y in range(1, self.height):
            np.maximum(marks[y - 1], marks[y], out=marks[y])
        np.copyto(self.span, marks[:-1])
        a = self._floats[0]
        np.take(per_row, self.span, out=a, mode="clip")
        np.multiply(a, from_horizon[:, None], out=a)
        np.take(inverse, self.span, out=self.iz, mode="clip")
        np.add(self.iz, a, out=self.iz)
        if not upper:
            return
        marks = self._upper_marks[: top + 1]
        marks.fill(0)
        ends = np.nonzero(spans.upper_last < top)[0]
        marks[spans.upper_last[ends], ends] = upper + 1
        marks[spans.upper_row, spans.upper_column] = np.arange(1, upper + 1)
        for y in range(1, top):
            np.maximum(marks[y - 1], marks[y], out=marks[y])
        span, iz = self._span2[:top], self._floats[1][:top]
        np.add(marks[:-1], lower, out=span, dtype=np.int64)
        np.take(per_row, span, out=a[:top], mode="clip")
        np.multiply(a[:top], from_horizon[:top, None], out=a[:top])
        np.take(inverse, span, out=iz, mode="clip")
        np.add(iz, a[:top], out=iz)
        nearer = iz > self.iz[:top]
        np.maximum(iz, self.iz[:top], out=self.iz[:top])
        # span = nearer ? hanging : standing, without a branch per pixel
        np.subtract(span, self.span[:top], out=span)
        np.multiply(span, nearer, out=span)
        np.add(self.span[:top], span, out=self.span[:top])

    def _address(self, camera: Camera, spans: "_Spans") -> None:
        """The texel of every pixel, as an index into the texture memory."""
        atlas = self.baked.atlas
        lower, total = spans.lower, spans.lower + spans.upper
        f = FACE_TEXELS
        # Faces: one mip per span, one texel column per span; the row runs linearly down the screen.
        level = np.clip(np.log2(np.maximum(spans.time * (f / self.focal) * 0.8, 1)), 0, FACE_MIPS - 1).astype(np.int64)
        part = np.zeros(total, np.int64)
        part[lower:] = 1
        strip = atlas.face_height[part, level, spans.edge]
        along = np.where(
            spans.by_x, camera.z + spans.time * self._dz[spans.column], camera.x + spans.time * self._dx[spans.column]
        )
        across = ((along - np.floor(along)) * f).astype(np.int64) >> level
        texels = (f >> level).astype(np.float32)
        first = np.zeros(total + 2, np.int32)
        offset = np.zeros(total + 2, np.float32)
        scale = np.zeros(total + 2, np.float32)
        flat = np.zeros(total + 2, np.int32)
        order = spans.order[1:-1]
        face = spans.face
        base = atlas.face_base[part, level, spans.edge] + across * strip + 1
        first[1:-1] = np.where(face, base, 0)[order]
        offset[1:-1] = np.where(face, (atlas.face_top[part, spans.edge] - camera.y) * texels, 0)[order]
        scale[1:-1] = np.where(face, texels * spans.time / self.focal, 0)[order]
        flat[1:-1] = np.where(face, 0, -1)[order]
        spans.flat = flat

        x, z, down, _ = self._floats
        xi, zi, mask = self._ints
        iz = self.iz
        # Ground and ceiling: the point of the map under the pixel, one mip per row.
        depth = x
        np.maximum(iz, 1e-3, out=down)
        np.divide(np.float32(1), down, out=depth)
        np.multiply(depth, self._dz, out=z)
        np.multiply(depth, self._dx, out=x)
        from_horizon = self.rows - self.horizon
        drop = np.where(from_horizon > 0, camera.y, 3.0 - camera.y)
        far = drop * self.focal / np.maximum(abs(from_horizon), 0.5)
        footprint = far / self.focal * np.sqrt(np.maximum(far / drop, 1)) * FLAT_TEXELS
        level_of_row = np.clip(np.log2(np.maximum(footprint * 0.62, 1)), 0, FLAT_MIPS - 1).astype(np.int64)
        texels_of_row = (FLAT_TEXELS / (1 << level_of_row)).astype(np.float32)[:, None]
        above = (from_horizon < 0).astype(np.int64)
        np.add(x, np.float32(camera.x), out=x)
        np.add(z, np.float32(camera.z), out=z)
        np.multiply(x, texels_of_row, out=x)
        np.multiply(z, texels_of_row, out=z)
        np.copyto(xi, x, casting="unsafe")
        np.copyto(zi, z, casting="unsafe")
        np.multiply(zi, atlas.flat_pitch[level_of_row].astype(np.int32)[:, None], out=zi)
        np.add(zi, atlas.flat_base[above, level_of_row].astype(np.int32)[:, None], out=zi)
        np.add(xi, zi, out=xi)
        np.take(flat, self.span, out=mask, mode="clip")
        np.bitwise_and(xi, mask, out=xi)
        # Faces.
        np.take(scale, self.span, out=down, mode="clip")
        np.multiply(down, from_horizon[:, None], out=down)
        np.take(offset, self.span, out=z, mode="clip")
        np.add(z, down, out=z)
        np.copyto(zi, z, casting="unsafe")
        np.add(xi, zi, out=xi)
        np.take(first, self.span, out=zi, mode="clip")
        np.add(xi, zi, out=self.texel)
        self._address_sky(camera)

    def _address_sky(self, camera: Camera) -> None:
        """Sky texels, only in the rows that have any."""
        sky_rows = np.nonzero((self.span[: int(max(0, min(self.height, math.ceil(float(self.horizon)))))] == 0).any(1))[0]
        self._sky_rows = 0 if sky_rows.size == 0 else int(sky_rows[-1]) + 1
        if not self._sky_rows:
            return
        n = self._sky_rows
        around, up = SKY_SIZE
        turn = (camera.yaw + np.arctan(self.slope.astype(np.float64))) / (2 * math.pi)
        column = ((turn - np.floor(turn)) * around).astype(np.int64) % around * up + self.baked.atlas.sky_base
        rise = (self.horizon - self.rows[:n]) / np.float32(self.focal)
        share = (up / SKY_TOP) / np.sqrt(1 + self.slope.astype(np.float32) ** 2)
        high = self._ints[0][:n]
        np.copyto(high, np.minimum(rise[:, None] * share.astype(np.float32), np.float32(up - 1)), casting="unsafe")
        np.copyto(self.texel[:n], high + column, where=self.span[:n] == 0)

    def _colour(self, camera: Camera, spans: "_Spans", pixels: NDArray[np.uint8]) -> None:
        """Fetch the texels and let the haze take its share of them."""
        out, high = self._words
        keep, haze = self._ints[0], self._ints[1]
        np.take(self.baked.lit, self.texel, out=out, mode="clip")
        part = self._floats[0]
        # keep = 256 * iz / (iz + 1/HAZE_M): half is gone at HAZE_M, nothing near by.
        np.add(self.iz, np.float32(1 / HAZE_M), out=part)
        np.divide(self.iz, part, out=part)
        np.multiply(part, np.float32(256), out=part)
        np.copyto(keep, part, casting="unsafe")
        if self._sky_rows:
            n = self._sky_rows
            np.copyto(keep[:n], 256, where=self.span[:n] == 0)
        keep_word = keep.view(np.uint32)
        haze_word = haze.view(np.uint32)
        # Two channels at a time: (R, B) and (G), each times keep / 256.
        np.bitwise_and(out, np.uint32(0x0000FF00), out=high)
        np.bitwise_and(out, np.uint32(0x00FF00FF), out=out)
        np.multiply(out, keep_word, out=out)
        np.right_shift(out, 8, out=out)
        np.bitwise_and(out, np.uint32(0x00FF00FF), out=out)
        np.right_shift(high, 8, out=high)
        np.multiply(high, keep_word, out=high)
        np.bitwise_and(high, np.uint32(0x0000FF00), out=high)
        np.add(out, high, out=out)
        np.subtract(np.uint32(256), keep_word, out=haze_word)
        # The haze's own share is small and linear: one more multiply-add per channel pair.
        np.multiply(haze_word, np.uint32(HAZE[0] | HAZE[2] << 16), out=high)
        np.right_shift(high, 8, out=high)
        np.bitwise_and(high, np.uint32(0x00FF00FF), out=high)
        np.add(out, high, out=out)
        np.multiply(haze_word, np.uint32(HAZE[1]), out=haze_word)
        np.bitwise_and(haze_word, np.uint32(0x0000FF00), out=haze_word)
        np.add(out, haze_word, out=out)
        np.bitwise_or(out, np.uint32(0xFF000000), out=_words(pixels))

    # -- sprites -------------------------------------------------------------------------------------------------

    def _draw_sprites(self, view: View, pixels: NDArray[np.uint8]) -> None:
        """Billboards, far ones first, each hidden by what is nearer."""
        camera = view.camera
        sin, cos = math.sin(camera.yaw), math.cos(camera.yaw)
        self._drawn = []
        target = _words(pixels)
        queue = []
        for sprite in view.sprites:
            ox, oz = sprite.x - camera.x, sprite.z - camera.z
            depth = ox * sin + oz * cos
            if depth > 0.25:
                queue.append((depth, ox * cos - oz * sin, sprite))
        queue.sort(key=lambda one: -one[0])
        for depth, across, sprite in queue:
            art = self.art[sprite.art]
            size = self.focal / depth
            left = self.width / 2 + (across - sprite.width / 2) * size
            top = float(self.horizon) - (sprite.y + sprite.height - camera.y) * size
            wide, tall = sprite.width * size, sprite.height * size
            x0, x1 = max(0, math.ceil(left - 0.5)), min(self.width, math.ceil(left + wide - 0.5))
            y0, y1 = max(0, math.ceil(top - 0.5)), min(self.height, math.ceil(top + tall - 0.5))
            if x0 >= x1 or y0 >= y1:
                continue
            area = (slice(y0, y1), slice(x0, x1))
            near = self.iz[area] < np.float32(1 / depth)
            if not near.any():
                continue
            level = 0
            while level + 1 < len(art.texels) and art.texels[level].shape[0] > tall * 1.3:
                level += 1
            texels = art.texels[level]
            rows = ((np.arange(y0, y1) + 0.5 - top) / tall * texels.shape[0]).astype(np.int64)
            columns = ((np.arange(x0, x1) + 0.5 - left) / wide * texels.shape[1]).astype(np.int64)
            np.clip(rows, 0, texels.shape[0] - 1, out=rows)
            np.clip(columns, 0, texels.shape[1] - 1, out=columns)
            index = rows[:, None] * texels.shape[1] + columns[None]
            near &= art.solid[level].ravel().take(index)
            light = self.sprite_light(sprite, art.emissive)
            lit = _scale_texels(texels.ravel(), light, depth).take(index)
            np.copyto(target[area], lit, where=near)
            np.copyto(self.iz[area], np.float32(1 / depth), where=near)
            self._drawn.append((sprite, area, near, index, depth))

    def sprite_light(self, sprite: Sprite, emissive: float) -> Floats:
        """The light a sprite is drawn in, float32 [3]."""
        lamp = self.baked.lamp
        k = min(max(int(sprite.z * 2), 0), lamp.shape[0] - 1)
        i = min(max(int(sprite.x * 2), 0), lamp.shape[1] - 1)
        return np.asarray(lamp[k, i] * (1 - emissive) + 1.06 * emissive, np.float32)

    # -- what an engine has besides colour -----------------------------------------------------------------------

    def write_depth(self, depth: Floats) -> None:
        """Depth of the frame just drawn: float32 [H, W], view-space z in metres, `FAR_M` for the sky."""
        np.maximum(self.iz, np.float32(1 / FAR_M), out=self._floats[0])
        np.divide(np.float32(1), self._floats[0], out=depth)

    def write_mask(self, mask: NDArray[np.uint8]) -> None:
        """Mask of the frame just drawn: uint8 [H, W]; 1 world, 2 sprites, 3 sky (0 is left to a HUD: there is none yet)."""
        mask.fill(MASK_WORLD)
        n = self._sky_rows
        np.copyto(mask[:n], MASK_SKY, where=self.span[:n] == 0)
        for _, area, near, _, _ in self._drawn:
            np.copyto(mask[area], MASK_OBJECT, where=near)

    def write_motion(self, view: View, motion: NDArray[np.float16] | Floats) -> None:
        """Motion of the frame just drawn: [H, W, 2] (x, y) in pixels, float16 or float32.

        It points from a pixel to where that piece of surface was in the frame before: previous = current + motion.
        """
        now, old = view.camera, view.before
        sin, cos = math.sin(now.yaw), math.cos(now.yaw)
        sin0, cos0 = math.sin(old.yaw), math.cos(old.yaw)
        f = np.float32(self.focal)
        horizon0 = np.float32(self.height / 2 + math.tan(old.pitch) * self.focal)
        # A point at view depth z and column slope s was, in units of z, at (ahead + tz / z, aside + tx / z) before.
        turn_c, turn_s = cos * cos0 + sin * sin0, sin * cos0 - cos * sin0
        ahead = (turn_c - turn_s * self.slope).astype(np.float32)
        aside = (turn_s + turn_c * self.slope).astype(np.float32)
        mx, mz = now.x - old.x, now.z - old.z
        tz, tx = np.float32(mx * sin0 + mz * cos0), np.float32(mx * cos0 - mz * sin0)
        a, b, c, _ = self._floats
        np.maximum(self.iz, 0, out=c)
        np.multiply(c, tz, out=a)
        np.add(a, ahead, out=a)
        np.maximum(a, np.float32(1e-2), out=a)
        np.divide(f, a, out=a)
        np.multiply(c, tx, out=b)
        np.add(b, aside, out=b)
        np.multiply(b, a, out=b)
        columns = (np.arange(self.width, dtype=np.float32) + 0.5) - self.width / 2
        np.subtract(b, columns.astype(np.float32), out=motion[..., 0], casting="unsafe")
        # y: horizon0 - ((horizon - y) / f + (eye - eye0) / z) * f / (ahead + tz / z) - y
        np.multiply(c, np.float32(now.y - old.y), out=b)
        np.add(b, ((self.horizon - self.rows) / f).astype(np.float32)[:, None], out=b)
        np.multiply(b, a, out=b)
        np.subtract((horizon0 - self.rows).astype(np.float32)[:, None], b, out=motion[..., 1], casting="unsafe")
        for sprite, area, near, _, depth in self._drawn:
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


class _Spans:
    """The spans of one frame, as arrays with one entry a span: `lower` standing ones, then `upper` hanging ones."""

    row: NDArray[np.int32]
    column: NDArray[np.int64]
    inverse: Floats
    per_row: Floats
    face: NDArray[np.bool_]
    cell: NDArray[np.int64]
    edge: NDArray[np.int64]
    time: Floats
    by_x: NDArray[np.bool_]
    order: NDArray[np.int64]
    flat: NDArray[np.int32]
    over: NDArray[np.bool_]
    lower: int
    upper: int
    top: int
    upper_row: NDArray[np.int32]
    upper_last: NDArray[np.int32]
    upper_column: NDArray[np.int64]


def _words(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """uint8 [H, W, 4] seen as uint32 [H, W]; rows may be padded."""
    return pixels.view(np.uint32)[..., 0]


def _prepare(art: SpriteArt) -> _Art:
    rgba = (np.clip(art.rgba, 0, 1) * 255).astype(np.uint8)
    texels, solid = [], []
    for _ in range(4):
        texels.append(np.ascontiguousarray(rgba).view(np.uint32)[..., 0] | np.uint32(0xFF000000))
        solid.append(rgba[..., 3] > 127)
        if min(rgba.shape[:2]) < 16:
            break
        h, w = rgba.shape[0] // 2 * 2, rgba.shape[1] // 2 * 2
        four = rgba[:h, :w].reshape(h // 2, 2, w // 2, 2, 4).astype(np.float32)
        weight = four[..., 3:] + 1e-3
        colour = (four[..., :3] * weight).sum((1, 3)) / weight.sum((1, 3))
        rgba = np.concatenate([colour, four[..., 3:].mean((1, 3))], -1).astype(np.uint8)
    return _Art(texels, solid, art.emissive)


def _scale_texels(texels: NDArray[np.uint32], light: Floats, depth: float) -> NDArray[np.uint32]:
    """Light a sprite's texels and add the haze of its distance."""
    keep = (1 / depth) / (1 / depth + 1 / HAZE_M)
    rgba = texels[:, None].view(np.uint8).astype(np.float32)
    rgba[:, :3] = rgba[:, :3] * (light * keep) + np.array(HAZE, np.float32) * (1 - keep)
    out = np.minimum(rgba, 255).astype(np.uint8)
    return out.view(np.uint32)[:, 0]

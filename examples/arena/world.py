"""The arena's map: sixteen plots of hand-drawn rooms and courtyards, joined by doors, laid out from a seed.

The world is a grid of one-metre cells. A cell is solid from below up to `low` and solid again from `high` up
to `ROOF` (`high` is `OPEN` under the sky), so one cell can be floor, hedge, pool, wall, doorway with a
lintel, or window. Axes: x right (east), y up, z forward (north); cell (i, k) covers x in i..i+1 and z in
k..k+1, flat index `k * width + i`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_WAY", "OPEN", "ROOF", "STEP_UP", "Prop", "World", "build_world"]

ROOF = 4.0
"""Height of every roof in metres: one for all, so that a ray above one roof is above all of them."""
OPEN = 1e6
"""`high` of a cell that has the sky above it."""
NO_WAY = 1 << 20
"""Distance of a cell from which there is no way."""
STEP_UP = 0.36
"""The tallest step that can be walked, metres."""

PLOT = 12
PLOTS = 4
PITCH = PLOT + 1

TILE_NAMES = (
    "brick",
    "sandstone",
    "crypt",
    "planks",
    "parquet",
    "timber",
    "metal",
    "glow",
    "tiles",
    "mosaic",
    "grass",
    "cobbles",
    "flags",
    "gravel",
    "hedge",
    "water",
    "crate",
    "books",
    "carpet",
    "rafters",
    "vault",
    "hatch",
)
_TILE = {name: index for index, name in enumerate(TILE_NAMES)}


@dataclass(frozen=True)
class Theme:
    """The tiles of one kind of plot, and its ceiling height in metres (`OPEN` for a courtyard)."""

    name: str
    wall: str
    floor: str
    path: str
    ceiling: str
    height: float
    pillar: str
    lamp: tuple[float, float, float]
    rows: tuple[str, ...]


# . floor   , path   # wall   o pillar   h hedge   c crate   C stacked crates   w water   r rim   b bookshelf
# d dais     T tree   L lamp   k crystal  s open to the sky   t tower   B barrel   p potion
_THEMES = (
    Theme(
        "garden",
        "timber",
        "grass",
        "gravel",
        "rafters",
        OPEN,
        "sandstone",
        (1.0, 0.72, 0.36),
        (
            ".....,,.....",
            ".hhh.,,.hhh.",
            ".hT..,,..Th.",
            ".h.k.,,...h.",
            "....rrrr....",
            ",,,,rwwr,,,,",
            ",,,,rwwr,,,,",
            "....rrrr....",
            ".h...,,.k.h.",
            ".hT..,,..Th.",
            ".hhh.,,.hhh.",
            "..L..,,..L..",
        ),
    ),
    Theme(
        "plaza",
        "sandstone",
        "cobbles",
        "flags",
        "vault",
        OPEN,
        "sandstone",
        (1.0, 0.72, 0.36),
        (
            "............",
            ".L........L.",
            "...,,,,,,...",
            "..,,dddd,,..",
            "..,dddddd,..",
            "..,ddttdd,..",
            "..,ddttdd,..",
            "..,dddddd,..",
            "..,,dddd,,..",
            "...,,,,,,..k",
            ".L..k.....L.",
            "B...........",
        ),
    ),
    Theme(
        "orchard",
        "brick",
        "grass",
        "gravel",
        "rafters",
        OPEN,
        "brick",
        (1.0, 0.72, 0.36),
        (
            "..T..,,..T..",
            ".....,,.....",
            "T..T.,,.T..T",
            ".....,,.....",
            ".k...,,.....",
            ",,,,,,,,,,,,",
            ",,,,,,,,,,,,",
            "rrr..,,.hhhh",
            "..r..,,.h..h",
            "T.r..,,...kh",
            "..r..,,.h..h",
            "BBr..,,.hhhh",
        ),
    ),
    Theme(
        "hall",
        "brick",
        "parquet",
        "carpet",
        "rafters",
        3.4,
        "sandstone",
        (1.0, 0.62, 0.28),
        (
            ".....,,.....",
            ".L...,,...L.",
            "..o..,,..o..",
            ".....,,.....",
            ".....,,..k..",
            ",,o,,,,,,o,,",
            ",,,,,,,,,,,,",
            ".....,,.....",
            "..o..,,..o..",
            ".p...,,.....",
            ".L.........L",
            "BB....k...BB",
        ),
    ),
    Theme(
        "library",
        "planks",
        "parquet",
        "carpet",
        "rafters",
        3.0,
        "planks",
        (1.0, 0.66, 0.32),
        (
            "............",
            ".bbbb..bbbb.",
            ".L........L.",
            ".bbbb..bbbb.",
            ".....,,.....",
            ".,,,,,,,,,,.",
            ".,,,,,,,,,,.",
            "..k..,,.....",
            ".bbbb..bbbb.",
            ".........k..",
            ".bbbb..bbbb.",
            ".L........L.",
        ),
    ),
    Theme(
        "crypt",
        "crypt",
        "flags",
        "flags",
        "vault",
        2.8,
        "crypt",
        (0.45, 1.0, 0.55),
        (
            "..##....##..",
            ".L#......#L.",
            "..#..##..#..",
            "..#..##..#k.",
            "............",
            ".##......##.",
            ".##......##.",
            "............",
            "..#..##..#..",
            ".k#..##..#..",
            ".L#......#L.",
            "..##....##.p",
        ),
    ),
    Theme(
        "works",
        "metal",
        "hatch",
        "hatch",
        "metal",
        3.2,
        "glow",
        (0.35, 0.85, 1.0),
        (
            "C..........c",
            "CC....L....c",
            "C..o....o...",
            "............",
            "..k..cc.....",
            ".....Cc.....",
            "............",
            ".........k..",
            "...o....o...",
            "c..........C",
            "cc....L...CC",
            "Bc.........C",
        ),
    ),
    Theme(
        "bath",
        "mosaic",
        "tiles",
        "sandstone",
        "vault",
        3.6,
        "sandstone",
        (0.9, 0.85, 0.7),
        (
            "............",
            ".L........L.",
            "..,,,,,,,,..",
            "..,osssso,..",
            "..,swwwws,..",
            "..,swwwws,..",
            "..,swwwws,..",
            "..,swwwws,..",
            "..,osssso,..",
            "..,,,,,,,,..",
            ".L..k.....L.",
            "..........k.",
        ),
    ),
    Theme(
        "store",
        "planks",
        "planks",
        "flags",
        "rafters",
        3.0,
        "planks",
        (1.0, 0.62, 0.28),
        (
            "cc........cc",
            "c.L........c",
            "....C..C....",
            "...CC..CC...",
            "............",
            "k...........",
            "..........k.",
            "............",
            "...cC..Cc...",
            "....c..c....",
            "B........L.B",
            "BB..p.....BB",
        ),
    ),
)


@dataclass(frozen=True)
class Prop:
    """Something that stands in the world: `name` of its sprite, its foot and its size in metres."""

    name: str
    x: float
    y: float
    z: float
    width: float
    height: float


@dataclass(frozen=True)
class Light:
    """A point light: place in metres, colour (1 is full), reach in metres."""

    x: float
    y: float
    z: float
    colour: tuple[float, float, float]
    reach: float


@dataclass(frozen=True)
class World:
    """The map. Arrays are flat, one entry a cell, index `k * width + i`."""

    width: int
    depth: int
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    floor_tile: NDArray[np.int16]
    """Tile on top of `low`."""
    side_tile: NDArray[np.int16]
    """Tile on the sides of what stands in the cell; -1 takes `wall_tile` of the cell it is seen from."""
    wall_tile: NDArray[np.int16]
    ceiling_tile: NDArray[np.int16]
    inside: NDArray[np.bool_]
    props: tuple[Prop, ...]
    lights: tuple[Light, ...]
    crystal_spots: tuple[tuple[float, float], ...]
    potion_spots: tuple[tuple[float, float], ...]
    start: tuple[float, float, float]
    """x, z in metres and yaw in radians."""
    exit: tuple[float, float]
    walkable: NDArray[np.bool_]

    def cell(self, x: float, z: float) -> int:
        """Flat index of the cell under a point; points outside count as the nearest edge cell."""
        i = min(max(int(x), 0), self.width - 1)
        k = min(max(int(z), 0), self.depth - 1)
        return k * self.width + i

    def ground(self, x: float, z: float) -> float:
        """Height of the ground at a point, metres."""
        return float(self.low[self.cell(x, z)])

    def fits(self, x: float, z: float, radius: float, feet: float) -> bool:
        """Whether a body of this radius with feet at this height can stand at a point."""
        for dx in (-radius, radius):
            for dz in (-radius, radius):
                cell = self.cell(x + dx, z + dz)
                if self.low[cell] > feet + STEP_UP or self.high[cell] < feet + 1.8 or not self.walkable[cell]:
                    return False
        return True

    def sees(self, x0: float, z0: float, x1: float, z1: float, height: float = 1.2) -> bool:
        """Whether nothing taller than `height` stands between two points."""
        steps = max(2, int(np.hypot(x1 - x0, z1 - z0) * 4))
        part = np.linspace(0, 1, steps)
        cells = (z0 + (z1 - z0) * part).astype(int) * self.width + (x0 + (x1 - x0) * part).astype(int)
        return bool((self.low[cells] <= height).all())

    def distances(self, x: float, z: float, avoid: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
        """Steps from every cell to a point along walkable cells, int32; `NO_WAY` where there is none."""
        far = np.full(self.width * self.depth, NO_WAY, np.int32)
        left = self.walkable.copy() if avoid is None else self.walkable & ~avoid
        # The map's edge is wall, so a step never wraps from one row into the next.
        front = np.array([self.cell(x, z)])
        left[front] = False
        steps = 0
        while front.size:
            far[front] = steps
            steps += 1
            around = np.concatenate([front + 1, front - 1, front + self.width, front - self.width])
            front = around[left[around]]
            left[front] = False
            front = np.unique(front)
        return far


def _layout(rng: np.random.Generator) -> tuple[list[Theme], set[tuple[int, int]]]:
    """Which theme stands on which plot, and which neighbouring plots have a door between them."""
    yards, rooms = list(_THEMES[:3]), list(_THEMES[3:])
    themes: list[Theme] = []
    for plot in range(PLOTS * PLOTS):
        row, column = divmod(plot, PLOTS)
        pool = yards if (row + column) % 2 == 0 else rooms
        near = {
            themes[p].name for p in (plot - 2, plot - PLOTS - 1, plot - PLOTS + 1) if 0 <= p < len(themes)
        }
        choice = [t for t in pool if t.name not in near] or pool
        themes.append(choice[int(rng.integers(len(choice)))])
    pairs = [(p, p + 1) for p in range(PLOTS * PLOTS) if p % PLOTS < PLOTS - 1]
    pairs += [(p, p + PLOTS) for p in range(PLOTS * (PLOTS - 1))]
    root = list(range(PLOTS * PLOTS))

    def find(plot: int) -> int:
        while root[plot] != plot:
            plot = root[plot]
        return plot

    doors: set[tuple[int, int]] = set()
    for index in rng.permutation(len(pairs)):
        a, b = pairs[int(index)]
        if find(a) != find(b):
            root[find(a)] = find(b)
            doors.add((a, b))
        elif rng.random() < 0.55:
            doors.add((a, b))
    return themes, doors


def build_world(seed: int) -> World:
    """Lay out the arena of this seed."""
    rng = np.random.default_rng((seed, 1))
    side = PLOTS * PITCH + 1
    low = np.full((side, side), ROOF, np.float32)
    high = np.full((side, side), OPEN, np.float32)
    floor = np.full((side, side), _TILE["flags"], np.int16)
    solid = np.full((side, side), -1, np.int16)
    wall = np.full((side, side), _TILE["sandstone"], np.int16)
    ceiling = np.full((side, side), _TILE["vault"], np.int16)
    inside = np.zeros((side, side), bool)
    walkable = np.zeros((side, side), bool)
    props: list[Prop] = []
    lights: list[Light] = []
    crystals: list[tuple[float, float]] = []
    potions: list[tuple[float, float]] = []
    themes, doors = _layout(rng)

    for plot, theme in enumerate(themes):
        k0, i0 = (plot // PLOTS) * PITCH + 1, (plot % PLOTS) * PITCH + 1
        rows = np.array([list(row) for row in theme.rows])
        rows = np.rot90(rows, int(rng.integers(4)))
        if rng.random() < 0.5:
            rows = rows[:, ::-1]
        for k in range(PLOT):
            for i in range(PLOT):
                at = (k0 + k, i0 + i)
                kind = rows[k, i]
                x, z = i0 + i + 0.5, k0 + k + 0.5
                low[at], high[at] = 0.0, theme.height
                wall[at], ceiling[at] = _TILE[theme.wall], _TILE[theme.ceiling]
                floor[at] = _TILE[theme.path if kind in ",sdk" and kind != "k" else theme.floor]
                inside[at] = theme.height < OPEN
                walkable[at] = True
                if kind in "#otcChbwrTLB":
                    walkable[at] = False
                if kind == "#":
                    low[at] = ROOF
                elif kind == "o":
                    low[at], solid[at] = ROOF, _TILE[theme.pillar]
                elif kind == "t":
                    low[at], solid[at], high[at] = 6.5, _TILE["sandstone"], OPEN
                elif kind == "h":
                    low[at], solid[at], floor[at] = 1.15, _TILE["hedge"], _TILE["hedge"]
                elif kind in "cC":
                    low[at], solid[at], floor[at] = (
                        (1.0 if kind == "c" else 2.0),
                        _TILE["crate"],
                        _TILE["crate"],
                    )
                elif kind == "b":
                    low[at], solid[at], floor[at] = 2.25, _TILE["books"], _TILE["planks"]
                elif kind == "w":
                    low[at], solid[at], floor[at] = -0.25, _TILE["tiles"], _TILE["water"]
                    if inside[at]:
                        high[at], inside[at] = OPEN, False
                elif kind == "r":
                    low[at], solid[at], floor[at] = 0.5, _TILE["sandstone"], _TILE["sandstone"]
                elif kind == "d":
                    low[at], solid[at] = 0.3, _TILE["sandstone"]
                elif kind == "s":
                    high[at], inside[at] = OPEN, False
                elif kind == "T":
                    props.append(Prop(f"tree{int(rng.random() < 0.3)}", x, 0.0, z, 3.2, 4.4))
                elif kind == "L":
                    tall = 2.4
                    props.append(Prop("lamp", x, 0.0, z, 0.55, tall))
                    lights.append(Light(x, tall * 0.87, z, theme.lamp, 7.5))
                elif kind == "B":
                    props.append(Prop("barrel", x, 0.0, z, 0.72, 0.95))
                elif kind == "k":
                    crystals.append((x, z))
                elif kind == "p":
                    potions.append((x, z))

    for a in range(PLOTS * PLOTS):
        for b in (a + 1, a + PLOTS):
            across = b == a + 1
            if b >= PLOTS * PLOTS or (across and a % PLOTS == PLOTS - 1):
                continue
            pair = (themes[a], themes[b])
            yards = sum(t.height >= OPEN for t in pair)
            k0, i0 = (a // PLOTS) * PITCH + 1, (a % PLOTS) * PITCH + 1
            for step in range(PLOT):
                at = (k0 + step, i0 + PLOT) if across else (k0 + PLOT, i0 + step)
                if (a, b) in doors and step in (5, 6):
                    low[at], high[at], walkable[at] = 0.0, (2.6 if yards else 2.3), True
                    wall[at] = _TILE["sandstone" if yards else "planks"]
                    ceiling[at], inside[at] = _TILE["planks"], True
                    for dk, di in ((0, -1), (0, 1)) if across else ((-1, 0), (1, 0)):
                        # Nothing may stand right behind a door.
                        near = (at[0] + dk, at[1] + di)
                        if not walkable[near]:
                            low[near], solid[near], walkable[near] = 0.0, -1, True
                elif yards == 1 and step in (1, 2, 9, 10):
                    low[at], high[at], solid[at] = 1.0, 2.3, -1
                    floor[at] = ceiling[at] = wall[at] = _TILE["planks"]
                    inside[at] = True
                elif yards == 2:
                    low[at], high[at] = 2.2 if step % 4 else 2.8, OPEN

    ring = np.ones((side, side), bool)
    ring[1:-1, 1:-1] = False
    kk, ii = np.nonzero(ring)
    low[kk, ii] = np.where((kk + ii) % 4 < 2, 5.4, 4.8)
    high[kk, ii] = OPEN
    # Where four plots meet stands a corner tower.
    for k in range(0, side, PITCH):
        for i in range(0, side, PITCH):
            low[k, i], high[k, i], solid[k, i] = 6.0, OPEN, _TILE["sandstone"]

    blocked = {(int(p.x), int(p.z)) for p in props}
    centre = PITCH // 2
    start = _free_spot(walkable, blocked, centre, centre)
    exit_spot = _free_spot(walkable, blocked, side - 1 - centre, side - 1 - centre)
    return World(
        width=side,
        depth=side,
        low=low.ravel(),
        high=high.ravel(),
        floor_tile=floor.ravel(),
        side_tile=solid.ravel(),
        wall_tile=wall.ravel(),
        ceiling_tile=ceiling.ravel(),
        inside=inside.ravel(),
        props=tuple(props),
        lights=tuple(lights),
        crystal_spots=tuple(crystals),
        potion_spots=tuple(potions),
        start=(start[0], start[1], 0.6),
        exit=exit_spot,
        walkable=walkable.ravel(),
    )


def _free_spot(
    walkable: NDArray[np.bool_], blocked: set[tuple[int, int]], i: int, k: int
) -> tuple[float, float]:
    """The walkable cell nearest to (i, k) whose neighbours are walkable too, as a point in metres."""
    best = (1e9, 0.0, 0.0)
    for kk in range(max(1, k - 6), min(walkable.shape[0] - 1, k + 7)):
        for ii in range(max(1, i - 6), min(walkable.shape[1] - 1, i + 7)):
            if walkable[kk - 1 : kk + 2, ii - 1 : ii + 2].all() and (ii, kk) not in blocked:
                best = min(best, (float((kk - k) ** 2 + (ii - i) ** 2), ii + 0.5, kk + 0.5))
    return best[1], best[2]

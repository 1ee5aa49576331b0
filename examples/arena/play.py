"""The rules of the arena: a player, guards, crystals and a gate, moved in fixed steps of 1/60 s from a seed.

Nothing here draws or waits; `Game.step` takes a `Controls` and moves the world by one frame, the same way
every time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from arena.bake import Baked, bake
from arena.renderer import Camera, Renderer, Sprite, View
from arena.textures import SpriteArt, draw_sprites
from arena.world import NO_WAY, World, build_world

__all__ = ["STEP_S", "Controls", "Game", "Rendered"]

STEP_S = 1 / 60
"""The length of a step in seconds."""
EYE_M = 1.62
RADIUS_M = 0.27
WALK_M_S = 3.4
LOOK_UP = 0.45
"""Radians that the player can look up or down."""
FULL_HEALTH = 100.0
BLOW = 16.0
CALM_TICKS = 270


@dataclass(frozen=True)
class Controls:
    """What the player asks for in one step: `ahead` and `aside` in -1..1, turns in radians, `run`."""

    ahead: float = 0.0
    aside: float = 0.0
    turn: float = 0.0
    look_up: float = 0.0
    run: bool = False


@dataclass
class Guard:
    """A guard or an orb on patrol. Places in metres."""

    kind: str
    x: float
    z: float
    goal: tuple[float, float]
    speed_m_s: float
    seed: int
    chasing: bool = False
    calm_until: int = 0
    """After a blow a guard lets the player go until this tick."""
    legs: int = 0
    route: NDArray[np.int32] | None = None
    before: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Rendered:
    """One frame of a headless run. `pixels` is the renderer's own array: copy it to keep it."""

    frame: int
    view: View
    camera_cut: bool
    pixels: NDArray[np.uint8]
    renderer: Renderer


_loaded: dict[int, tuple[World, Baked, dict[str, SpriteArt]]] = {}


def _load(seed: int, everything: bool) -> tuple[World, Baked, dict[str, SpriteArt]]:
    """The world of a seed. The one loaded last is kept: games of one seed share it, for it never changes."""
    known = _loaded.get(seed)
    if known is None or (everything and not known[1].material.size):
        world = build_world(seed)
        known = world, bake(world, seed, everything=everything), draw_sprites(seed)
        _loaded.clear()
        _loaded[seed] = known
    return known


class Game:
    """One play of the arena, from a seed.

    Collect every crystal and walk into the gate; guards and orbs hurt. `everything=True` keeps what `gbuffer`
    needs. Public state: `tick`, `health`, `found`, `crystals` (those left), `level`, `message`, `camera`,
    `camera_cut`.
    """

    def __init__(self, seed: int = 7, *, everything: bool = False) -> None:
        self.seed = seed
        self.world, self.baked, self.art = _load(seed, everything)
        self.tick = 0
        self.level = 1
        self.health = FULL_HEALTH
        self.found = 0
        self.message = "Find the crystals, mind the guards, leave by the gate"
        self.message_until = 240
        self.camera_cut = True
        self.hurt_tick = -1000
        self._pilot = _Pilot()
        self._rng = np.random.default_rng((seed, 2))
        self.x, self.z, self.yaw = self.world.start
        self.pitch = 0.0
        self._feet = self.world.ground(self.x, self.z)
        self._stride = 0.0
        self.camera = self._eye()
        self.before = self.camera
        props = self.world.props
        self._prop_x = np.array([p.x for p in props])
        self._prop_z = np.array([p.z for p in props])
        self._prop_radius = np.array([0.4 if p.name == "barrel" else 0.3 for p in props])
        self._standing = tuple(
            Sprite(p.name, p.x, p.y, p.z, p.width, p.height, (p.x, p.y, p.z), 100 + i)
            for i, p in enumerate(props)
        )
        # Guards walk between fixed posts, so their ways are known before the first frame.
        cells = np.nonzero(self.world.walkable)[0]
        posts = np.random.default_rng((seed, 4)).choice(cells, 40, replace=False)
        width = self.world.width
        self._posts = [(int(c) % width + 0.5, int(c) // width + 0.5) for c in posts]
        self._ways = [self.world.distances(*post) for post in self._posts]
        self.crystals: list[tuple[float, float]] = []
        self.potions: list[tuple[float, float]] = []
        self.guards: list[Guard] = []
        self._populate()

    def renderer(self, width: int = 640, height: int = 360, *, native: bool = True) -> Renderer:
        """A renderer of this game's world at this size; `native=False`: by numpy alone."""
        return Renderer(self.world, self.baked, self.art, width, height, native)

    def frames(self, count: int, size: tuple[int, int] = (640, 360)) -> Iterator[Rendered]:
        """Play `count` frames on autopilot and draw each: the same frames for the same seed, every time."""
        renderer = self.renderer(*size)
        pixels = np.zeros((size[1], size[0], 4), np.uint8)
        for _ in range(count):
            self.step(self.autopilot())
            view = self.view()
            renderer.draw(view, pixels)
            yield Rendered(self.tick, view, self.camera_cut, pixels, renderer)

    # -- the rules
    # -----------------------------------------------------------------------------------------------

    def _populate(self) -> None:
        world, rng = self.world, self._rng
        spots = list(world.crystal_spots)
        take = min(len(spots), 9 + self.level)
        self.crystals = [spots[int(i)] for i in sorted(rng.choice(len(spots), take, replace=False))]
        self.potions = list(world.potion_spots)
        self.total = take
        self.found = 0
        self.guards = []
        far = world.distances(self.x, self.z)
        choice = np.nonzero(world.walkable & (far > 14) & (far < NO_WAY))[0]
        for index in range(11 + self.level):
            cell = int(choice[rng.integers(len(choice))])
            x, z = cell % world.width + 0.5, cell // world.width + 0.5
            kind = ("guard_red", "guard_blue", "orb")[index % 3]
            speed = (1.5 if kind != "orb" else 1.9) * (1 + 0.08 * (self.level - 1))
            self.guards.append(Guard(kind, x, z, (x, z), speed, index, before=(x, 0.0, z)))

    def step(self, controls: Controls) -> None:
        """Move the world by one step of 1/60 s."""
        self.tick += 1
        self.camera_cut = self.tick == 1
        self.before = self.camera
        self._move_player(controls)
        self._move_guards()
        self._touch()
        self.camera = self._eye()
        if self.camera_cut:
            self.before = self.camera

    def _move_player(self, controls: Controls) -> None:
        self.yaw = (self.yaw + controls.turn) % (2 * math.pi)
        self.pitch = min(max(self.pitch + controls.look_up, -LOOK_UP), LOOK_UP)
        ahead, aside = controls.ahead, controls.aside
        length = math.hypot(ahead, aside)
        if length > 1:
            ahead, aside = ahead / length, aside / length
        speed = WALK_M_S * (1.5 if controls.run else 1.0) * STEP_S
        dx = (math.sin(self.yaw) * ahead + math.cos(self.yaw) * aside) * speed
        dz = (math.cos(self.yaw) * ahead - math.sin(self.yaw) * aside) * speed
        moved = 0.0
        if self._free(self.x + dx, self.z):
            self.x += dx
            moved += abs(dx)
        if self._free(self.x, self.z + dz):
            self.z += dz
            moved += abs(dz)
        self._stride += moved
        ground = self.world.ground(self.x, self.z)
        self._feet += (ground - self._feet) * 0.18

    def _free(self, x: float, z: float) -> bool:
        if not self.world.fits(x, z, RADIUS_M, self._feet):
            return False
        near = np.hypot(self._prop_x - x, self._prop_z - z) < self._prop_radius + 0.15
        return not bool(near.any())

    def _eye(self) -> Camera:
        bob = 0.028 * math.sin(self._stride * 3.6)
        return Camera(self.x, self._feet + EYE_M + bob, self.z, self.yaw, self.pitch)

    def _move_guards(self) -> None:
        world = self.world
        for guard in self.guards:
            lift = self._lift(guard)
            guard.before = (guard.x, lift, guard.z)
            away = math.hypot(guard.x - self.x, guard.z - self.z)
            if (self.tick + guard.seed * 7) % 12 == 0:
                sees = away < 8 and world.sees(guard.x, guard.z, self.x, self.z)
                if guard.chasing and not (sees and self.tick >= guard.calm_until):
                    guard.route = None
                guard.chasing = sees and self.tick >= guard.calm_until
                if guard.chasing and away > 1.2:
                    guard.goal, guard.route = (self.x, self.z), None
            if math.hypot(guard.x - guard.goal[0], guard.z - guard.goal[1]) < 0.6 or (
                guard.route is None and not guard.chasing
            ):
                near = [
                    i for i, p in enumerate(self._posts) if abs(p[0] - guard.x) + abs(p[1] - guard.z) < 22
                ]
                post = near[int(self._rng.integers(len(near)))] if near else 0
                guard.goal, guard.route = self._posts[post], self._ways[post]
            target = guard.goal
            if not guard.chasing and guard.route is not None:
                here = world.cell(guard.x, guard.z)
                around = [here, here + 1, here - 1, here + world.width, here - world.width]
                best = around[int(np.argmin(guard.route[around]))]
                target = (best % world.width + 0.5, best // world.width + 0.5)
                if guard.route[here] >= NO_WAY:
                    guard.goal = (guard.x, guard.z)
            dx, dz = target[0] - guard.x, target[1] - guard.z
            distance = math.hypot(dx, dz)
            if distance < 1e-6 or (guard.chasing and away < 0.9):
                continue
            reach = min(guard.speed_m_s * (1.25 if guard.chasing else 1.0) * STEP_S, distance)
            nx, nz = guard.x + dx / distance * reach, guard.z + dz / distance * reach
            if world.walkable[world.cell(nx, guard.z)]:
                guard.x = nx
            if world.walkable[world.cell(guard.x, nz)]:
                guard.z = nz
            guard.legs += 1

    def _lift(self, guard: Guard) -> float:
        """Height of a guard's foot: orbs float."""
        ground = self.world.ground(guard.x, guard.z)
        return (
            ground if guard.kind != "orb" else ground + 0.85 + 0.16 * math.sin(self.tick * 0.06 + guard.seed)
        )

    def _touch(self) -> None:
        near = [c for c in self.crystals if math.hypot(c[0] - self.x, c[1] - self.z) < 0.75]
        for crystal in near:
            self.crystals.remove(crystal)
            self.found += 1
            left = len(self.crystals)
            self._say(f"A crystal: {left} to go" if left else "The gate is open", 120)
        for potion in [p for p in self.potions if math.hypot(p[0] - self.x, p[1] - self.z) < 0.75]:
            if self.health < FULL_HEALTH:
                self.potions.remove(potion)
                self.health = min(FULL_HEALTH, self.health + 40)
                self._say("Better", 90)
        blows = [
            g
            for g in self.guards
            if self.tick >= g.calm_until and math.hypot(g.x - self.x, g.z - self.z) < 1.05
        ]
        for guard in blows:
            guard.calm_until = self.tick + CALM_TICKS
            guard.chasing, guard.route = False, None
            self.health -= BLOW
            self.hurt_tick = self.tick
        if self.tick - self.hurt_tick > 180:
            self.health = min(FULL_HEALTH, self.health + 4 * STEP_S)
        if self.health <= 0:
            self._send_back("Caught. Back to the start")
            self.health = FULL_HEALTH
        gate = self.world.exit
        if not self.crystals and math.hypot(gate[0] - self.x, gate[1] - self.z) < 0.9:
            self.level += 1
            self._send_back(f"Level {self.level}")
            self._populate()

    def _send_back(self, message: str) -> None:
        self.x, self.z, self.yaw = self.world.start
        self.pitch = 0.0
        self._feet = self.world.ground(self.x, self.z)
        self.camera_cut = True
        self._pilot = _Pilot()
        self._say(message, 180)

    def _say(self, message: str, ticks: int) -> None:
        self.message, self.message_until = message, self.tick + ticks

    # -- what is seen
    # --------------------------------------------------------------------------------------------

    def view(self) -> View:
        """What the camera sees after the last step."""
        sprites = list(self._standing)
        tick = self.tick
        for index, (x, z) in enumerate(self.crystals):
            ground = self.world.ground(x, z)
            y, old = (ground + 0.55 + 0.09 * math.sin((t + index * 20) * 0.05) for t in (tick, tick - 1))
            frame = f"crystal{(tick // 8 + index) % 4}"
            sprites.append(Sprite(frame, x, y, z, 0.42, 0.66, (x, old, z), 1000 + index))
        for index, (x, z) in enumerate(self.potions):
            y = self.world.ground(x, z)
            sprites.append(Sprite("potion", x, y, z, 0.36, 0.44, (x, y, z), 1100 + index))
        for guard in self.guards:
            y = self._lift(guard)
            if guard.kind == "orb":
                art, w, h = f"orb{tick // 10 % 2}", 0.85, 0.85
            else:
                art, w, h = f"{guard.kind}{guard.legs // 14 % 2}", 1.05, 1.86
            sprites.append(Sprite(art, guard.x, y, guard.z, w, h, guard.before, 2000 + guard.seed))
        x, z = self.world.exit
        y = self.world.ground(x, z)
        sprites.append(
            Sprite("gate_shut" if self.crystals else "gate_open", x, y, z, 1.7, 2.4, (x, y, z), 3000)
        )
        if self.camera_cut:
            sprites = [replace(s, before=(s.x, s.y, s.z)) for s in sprites]
        return View(self.camera, self.before, sprites)

    def camera_ahead(self, steps: float, turn: float = 0.0, look_up: float = 0.0) -> Camera:
        """The camera `steps` steps from now, if the player walks on as in the last step and turns by so much."""
        now, old = self.camera, self.camera if self.camera_cut else self.before
        return Camera(
            now.x + (now.x - old.x) * steps,
            now.y + (now.y - old.y) * steps,
            now.z + (now.z - old.z) * steps,
            now.yaw + turn,
            min(max(now.pitch + look_up, -LOOK_UP), LOOK_UP),
        )

    def autopilot(self) -> Controls:
        """What a player would press now."""
        return self._pilot.controls(self)


class _Pilot:
    """Plays: walks to the nearest crystal by the shortest way, slips past guards, looks around."""

    def __init__(self) -> None:
        self.goal: tuple[float, float] | None = None
        self.route: NDArray[np.int32] | None = None
        self.planned = -1000
        self.turning = 0.0
        self.lifting = 0.0
        self.pace = 0.0
        self.still = 0
        self.last = (0.0, 0.0)

    def controls(self, game: Game) -> Controls:
        world = game.world
        if (
            game.tick - self.planned > 90
            or self.goal is None
            or self.route is None
            or (self.goal not in game.crystals and self.goal != world.exit)
        ):
            self._plan(game)
        assert self.goal is not None
        assert self.route is not None
        aim = self._aim(game)
        dx, dz = aim[0] - game.x, aim[1] - game.z
        want = math.atan2(dx, dz)
        # People look about while they walk.
        t = game.tick * STEP_S
        glance = 0.24 * math.sin(t * 0.9) * max(0.0, math.sin(t * 0.37)) if math.hypot(dx, dz) > 2 else 0.0
        error = (want + glance - game.yaw + math.pi) % (2 * math.pi) - math.pi
        self.turning += (min(max(error * 0.11, -0.052), 0.052) - self.turning) * 0.22
        heading = (want - game.yaw + math.pi) % (2 * math.pi) - math.pi
        level = 0.06 * math.sin(t * 0.53) + 0.04 * math.sin(t * 0.21 + 1)
        self.lifting += ((level - game.pitch) * 0.03 - self.lifting) * 0.2
        ahead, aside = math.cos(heading), math.sin(heading)
        pace = 1.0 if abs(heading) < 0.9 else 0.25
        for guard in game.guards:
            gx, gz = guard.x - game.x, guard.z - game.z
            away = math.hypot(gx, gz)
            if away < 2.4:
                # Slip past on the side that is free.
                right = gx * math.cos(game.yaw) - gz * math.sin(game.yaw)
                aside += (-1 if right > 0 else 1) * (2.4 - away) * 0.7
        moved = math.hypot(game.x - self.last[0], game.z - self.last[1])
        self.last = (game.x, game.z)
        self.still = self.still + 1 if moved < 0.006 else max(0, self.still - 2)
        if self.still > 40:
            aside += 1.0 if (game.tick // 50) % 2 else -1.0
            ahead -= 0.4
        self.pace += (pace - self.pace) * 0.08
        return Controls(ahead * self.pace, aside * self.pace, self.turning, self.lifting)

    def _plan(self, game: Game) -> None:
        world = game.world
        self.planned = game.tick
        avoid = np.zeros(world.low.size, bool)
        for prop in world.props:
            avoid[world.cell(prop.x, prop.z)] = True
        from_here = world.distances(game.x, game.z, avoid)
        options = game.crystals or [world.exit]
        if self.goal not in options:
            self.goal = min(options, key=lambda c: (int(from_here[world.cell(*c)]), c))
        for guard in game.guards:
            cell = world.cell(guard.x, guard.z)
            if math.hypot(guard.x - game.x, guard.z - game.z) > 1.5:
                avoid[[cell, cell + 1, cell - 1, cell + world.width, cell - world.width]] = True
        for end in (self.goal, (game.x, game.z)):
            avoid[world.cell(*end)] = False
        self.route = world.distances(*self.goal, avoid)
        if self.route[world.cell(game.x, game.z)] >= NO_WAY:
            self.route = world.distances(*self.goal)

    def _aim(self, game: Game) -> tuple[float, float]:
        """The farthest point of the way ahead that can be walked to in a straight line."""
        assert self.goal is not None
        assert self.route is not None
        world = game.world
        cell = world.cell(game.x, game.z)
        aim = (cell % world.width + 0.5, cell // world.width + 0.5)
        for _ in range(9):
            around = [cell + 1, cell - 1, cell + world.width, cell - world.width]
            best = around[int(np.argmin(self.route[around]))]
            if self.route[best] >= self.route[cell]:
                break
            cell = best
            point = (cell % world.width + 0.5, cell // world.width + 0.5)
            if not self._straight(game, point):
                break
            aim = point
        return self.goal if self.route[cell] == 0 and self._straight(game, self.goal) else aim

    def _straight(self, game: Game, point: tuple[float, float]) -> bool:
        dx, dz = point[0] - game.x, point[1] - game.z
        length = math.hypot(dx, dz)
        if length < 0.3:
            return True
        steps = max(2, int(length * 3))
        part = np.linspace(0, 1, steps)
        for side in (-0.32, 0.32):
            x = game.x + dx * part - dz / length * side
            z = game.z + dz * part + dx / length * side
            if not game.world.walkable[z.astype(int) * game.world.width + x.astype(int)].all():
                return False
        return all(
            abs((p.x - game.x) * dz - (p.z - game.z) * dx) / length > 0.62
            or not 0 < ((p.x - game.x) * dx + (p.z - game.z) * dz) < length * length
            for p in game.world.props
        )

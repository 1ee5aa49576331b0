"""The rules: the same play from the same seed, and an autopilot that gets somewhere."""

import math

import numpy as np
from arena.clock import FrameTimes, percentiles
from arena.play import Controls, Game


def played(seed: int, count: int) -> tuple[list[int], Game]:
    game = Game(seed, everything=True)
    return [hash(frame.pixels.tobytes()) for frame in game.frames(count, (64, 36))], game


def test_the_same_seed_plays_the_same_frames() -> None:
    first, one = played(7, 120)
    second, two = played(7, 120)
    assert first == second
    assert one.camera == two.camera
    assert len(set(first)) > 100


def test_the_autopilot_finds_crystals_and_walks_like_a_player() -> None:
    game = Game(7, everything=True)
    turns, places, cuts = [], [], 0
    for tick in range(3000):
        controls = game.autopilot()
        turns.append(abs(controls.turn))
        game.step(controls)
        cuts += game.camera_cut
        if tick % 60 == 0:
            places.append((game.x, game.z))
    assert game.found >= 3
    assert cuts == 1, "the autopilot was caught"
    assert max(turns) < 0.06
    walked = np.hypot(*np.diff(places, axis=0).T)
    assert walked.mean() > 2.0
    assert (walked < 0.3).mean() < 0.1


def test_walls_stop_the_player() -> None:
    game = Game(7, everything=True)
    for tick in range(900):
        game.step(Controls(ahead=1.0, aside=0.3, turn=0.02 * math.sin(tick * 0.1), run=True))
        cell = game.world.cell(game.x, game.z)
        assert game.world.walkable[cell]


def test_a_crystal_is_collected_and_the_last_opens_the_gate() -> None:
    game = Game(7, everything=True)
    game.guards.clear()
    total = len(game.crystals)
    while game.crystals:
        game.x, game.z = game.crystals[0]
        game.step(Controls())
    assert game.found == total
    assert any(sprite.art == "gate_open" for sprite in game.view().sprites)
    game.x, game.z = game.world.exit
    game.step(Controls())
    assert game.level == 2
    assert game.camera_cut
    assert game.crystals


def test_guards_hurt_and_the_caught_start_again() -> None:
    game = Game(7, everything=True)
    guard = game.guards[0]
    game.x, game.z = guard.x, guard.z
    before = game.health
    game.step(Controls())
    assert game.health < before
    after = game.health
    game.x, game.z = guard.x, guard.z
    game.step(Controls())
    assert game.health == after, "a guard rests after a blow"
    game.health = 0.1
    guard.calm_until = 0
    game.x, game.z = guard.x, guard.z
    game.step(Controls())
    assert (game.x, game.z) == game.world.start[:2]
    assert game.camera_cut
    # A cut frame has no motion of its own.
    view = game.view()
    assert view.before == view.camera
    assert all(sprite.before == (sprite.x, sprite.y, sprite.z) for sprite in view.sprites)


def test_times_are_summed_up_as_percentiles() -> None:
    times = FrameTimes(("draw",), budget_ms=16.67, window=3)
    for ms in (100.0, 1.0, 2.0, 3.0):
        times.add("draw", ms)
    assert times.recent("draw", 50) == 2.0
    assert times.summary("draw")["max"] == 100.0
    assert percentiles(()) == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}

"""Every arena can be played: what there is to find can be reached."""

import numpy as np
import pytest
from arena.world import NO_WAY, OPEN, ROOF, build_world


@pytest.mark.parametrize("seed", range(12))
def test_crystals_and_gate_can_be_reached(seed: int) -> None:
    world = build_world(seed)
    far = world.distances(*world.start[:2])
    assert far[world.cell(*world.exit)] < NO_WAY
    assert len(world.crystal_spots) >= 10
    unreachable = [spot for spot in world.crystal_spots if far[world.cell(*spot)] >= NO_WAY]
    assert not unreachable


@pytest.mark.parametrize("seed", range(12))
def test_the_map_is_closed(seed: int) -> None:
    """The renderer rests on this: a ray never leaves the map, and all roofs are of one height."""
    world = build_world(seed)
    low = world.low.reshape(world.depth, world.width)
    rim = np.concatenate([low[0], low[-1], low[:, 0], low[:, -1]])
    assert (rim > ROOF).all()
    under_roof = world.high < OPEN
    assert (world.high[under_roof] < ROOF).all()
    assert (world.low[world.walkable] <= 0.3).all()


def test_a_seed_is_one_world() -> None:
    one, two, other = build_world(3), build_world(3), build_world(4)
    assert (one.low == two.low).all()
    assert one.props == two.props
    assert not (one.floor_tile == other.floor_tile).all()


def test_distances_count_steps_around_walls() -> None:
    world = build_world(7)
    x, z, _ = world.start
    far = world.distances(x, z)
    start = world.cell(x, z)
    assert far[start] == 0
    for cell in np.flatnonzero((far > 0) & (far < NO_WAY)):
        around = [far[cell + move] for move in (1, -1, world.width, -world.width)]
        assert min(around) == far[cell] - 1

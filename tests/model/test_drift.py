"""Error correction: what is healthy, what is not, and that being wrong about it costs little."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mirage_plugin.errors import WeightsError
from mirage_plugin.model.checkpoint import load_bounds, load_network, note_weights, save_network
from mirage_plugin.model.core import Core
from mirage_plugin.model.drift import LEAST, Bounds, Watch, mean_squares, statistics_of
from mirage_plugin.model.memory import MemoryState
from mirage_plugin.model.network import Edit, MirageNet
from mirage_plugin.train.calibration import bounds_of

BOUNDS = Bounds((-2.0, -6.0, -1.0, -4.0), (0.5, 1.0, 0.1, 1.0), (-4.0, -9.0, -2.0, -14.1), (-1.0, -3.0, 0.0, -1.0))
HEALTHY = (-2.0, -6.0, -1.0, -4.0)
ILL = (-2.0, -6.0, -1.0, 0.2)


def test_mean_squares_are_what_they_say() -> None:
    nothing = torch.zeros(2, 4, 4, 16)
    edit = Edit(torch.full((2, 4, 4, 48), 2.0), torch.full((2, 4, 4, 192), 3.0), nothing, nothing[..., :8])
    state = torch.ones(2, 2, 2, 8)
    before, valid = torch.full((2, 2, 2, 8), 0.5), torch.zeros(2, 2, 2, 1)
    valid[1, 0] = 1.0
    found = mean_squares(edit, state, MemoryState(before, valid))
    assert found.tolist() == [[4.0, 9.0, 1.0, 0.0], [4.0, 9.0, 1.0, 0.25]]


def test_what_is_not_finite_is_nan_and_not_healthy() -> None:
    for bad in (math.nan, math.inf, -1.0):
        now = statistics_of([bad, 1.0, 1.0, 1.0, 0.0])
        assert math.isnan(now[0])
        assert len(now) == 4
        assert not BOUNDS.hold(now)
        assert not Watch(None).healthy(now)
    assert statistics_of([0.0] * 4) == (math.log(LEAST),) * 4


def test_bounds_come_from_what_was_seen_and_lie_beyond_it() -> None:
    torch.manual_seed(0)
    squares = torch.rand(50, 8, 4) + 0.1
    squares[0] = torch.nan
    bounds = bounds_of(squares)
    rows = [statistics_of(row) for row in squares[1:].reshape(-1, 4).tolist()]
    assert all(bounds.hold(row) for row in rows)
    assert bounds.hold((*rows[0][:3], math.log(LEAST))), "a memory that need not change is healthy"
    assert not bounds.hold((*rows[0][:3], math.log(2.0)))
    with pytest.raises(ValueError, match="no finite frame"):
        bounds_of(squares[:1])


def test_distances_are_in_standard_deviations() -> None:
    assert BOUNDS.distances((-2.0, -8.0, -0.7, -4.0)) == (pytest.approx(3.0), pytest.approx(-2.0))


def test_bounds_are_written_and_read(net: MirageNet, tmp_path: Path) -> None:
    path = tmp_path / "nano.safetensors"
    save_network(net, path, {"steps": "3"})
    assert load_bounds("nano", path) is None
    assert load_bounds("nano", tmp_path / "none") is None
    before = load_network("nano", path).state_dict()
    note_weights("nano", path, {"bounds": BOUNDS.to_json()})
    assert load_bounds("nano", path) == BOUNDS
    assert all(torch.equal(value, before[name]) for name, value in load_network("nano", path).state_dict().items())


GOOD = json.loads(BOUNDS.to_json())


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "3", "null", '{"low": 3}', json.dumps(GOOD | {"more": [0, 0, 0, 0]}),
        json.dumps(GOOD | {"low": [0, 0, 0]}), json.dumps(GOOD | {"low": [math.nan] * 4}),
        json.dumps(GOOD | {"low": ["a"] * 4}), json.dumps(GOOD | {"high": [-99.0] * 4}),
        json.dumps(GOOD | {"spread": [0.0] * 4}), json.dumps(GOOD | {"high": [10**400] * 4}), "[" * 100_000,
    ],
)  # fmt: skip
def test_what_are_no_bounds_is_refused(net: MirageNet, tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Bounds.from_json(text)
    path = tmp_path / "nano.safetensors"
    save_network(net, path, {"bounds": text})
    with pytest.raises(WeightsError, match=r"nano\.safetensors"):
        load_bounds("nano", path)


def play(watch: Watch, *frames: tuple[float, ...]) -> list[int]:
    """How often each frame is predicted where memory's answer is as given and the other is healthy."""
    passes = []
    for now in frames:
        remembers = watch.begin(True)
        ill = remembers and not watch.healthy(now)
        if ill:
            watch.correct()
        watch.accept(HEALTHY if ill or not remembers else now, remembers and not ill)
        passes.append(2 if ill else 1)
    return passes


def test_a_frame_out_of_bounds_is_predicted_again_once() -> None:
    watch = Watch(BOUNDS)
    assert play(watch, HEALTHY, HEALTHY, ILL, HEALTHY, HEALTHY, ILL, HEALTHY) == [1, 1, 2, 1, 1, 2, 1]
    assert watch.corrections == 2


def test_what_is_always_out_of_bounds_does_not_cost_double() -> None:
    watch = Watch(BOUNDS)
    passes = play(watch, *[ILL] * 400)
    assert sum(passes) < 1.05 * len(passes)
    assert watch.corrections < 15
    play(watch, *[HEALTHY] * 70)
    assert play(watch, HEALTHY, ILL, HEALTHY) == [1, 2, 1], "and is watched again when it is over"


def test_a_picture_unlike_any_of_training_is_right_without_memory() -> None:
    watch, odd = Watch(BOUNDS), (0.5, -6.0, -1.0, -5.0)
    assert not watch.healthy(odd)
    watch.accept((*odd[:3], math.log(LEAST)), remembers=False)
    assert watch.healthy(odd)
    assert watch.healthy((0.7, *odd[1:]))
    assert not watch.healthy((1.5, *odd[1:])), "but no farther out than a standard deviation"
    assert not watch.healthy((*odd[:3], 0.2)), "and a memory that is rewritten stays suspicious"
    watch.forget()
    assert not watch.healthy(odd)


def test_the_core_tells_the_mean_squares(net: MirageNet) -> None:
    from mirage_plugin.model.core import core_input

    core = Core(net, torch.float32)
    torch.manual_seed(1)
    given = core_input(core, 8, 8)
    stored = torch.randint(-127, 128, given.stored.shape, dtype=torch.int8)
    with torch.inference_mode():
        out = core(given._replace(cells=torch.randint(0, 256, given.cells.shape, dtype=torch.uint8), stored=stored,
                                  seen=torch.ones_like(given.seen)))  # fmt: skip
        unseen = core(given._replace(stored=stored))
    assert out.health.shape == (5,)
    matrices, detail, _, change, broken = out.health.tolist()
    assert matrices == pytest.approx(float(out.edit.matrices.square().mean()))
    assert detail == pytest.approx(float(out.edit.detail.square().mean()))
    assert change == pytest.approx(float(((out.stored.float() - stored.float()) / 127).square().mean()), rel=0.02)
    assert broken == 0
    assert unseen.health[3] == 0, "what was not read was not changed"

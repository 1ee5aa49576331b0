"""{game, sidecar, both} x {SIGKILL, SIGSTOP then CONT, SIGSEGV} x {every state}: the survivor carries on.

The short form runs a sample that meets every victim, signal and state; MIRAGE_LONG=1 runs the whole matrix.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bridge.conftest import LONG, Spawn, shm_names
from tests.bridge.events import Events

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc: run it on Linux")

VICTIMS = ("game", "sidecar", "both")
SIGNALS = ("SIGKILL", "SIGSTOP", "SIGSEGV")
STATES = ("idle", "writing", "ready", "pinned", "resizing", "handshake")
MATRIX = tuple(itertools.product(VICTIMS, SIGNALS, STATES))
# Each state and signal meets each victim at least once.
SHORT = tuple(
    (victim, SIGNALS[(v + s) % 3], state)
    for v, victim in enumerate(VICTIMS)
    for s, state in enumerate(STATES)
)

BUDGET_MS = 30.0
#: The bound the project promises, where the machine is the test's own; elsewhere others' work is in it too.
CARRY_ON_MS = 100.0 if LONG else 600.0
SCHEDULER_MS = 20.0 if LONG else 300.0


def descriptors(process: subprocess.Popen[str]) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def segments(process: subprocess.Popen[str]) -> int:
    """Mappings of shared segments, memfd or file."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    return sum("mirage" in line and ("memfd:" in line or "/dev/shm" in line) for line in maps.splitlines())


def answered(events: Events, count: int = 5) -> None:
    for _ in range(count):
        events.named("frame", answered=True, intact=True)


def hit(process: subprocess.Popen[str], name: str) -> None:
    process.send_signal(getattr(signal, name))
    if name != "SIGSTOP":
        process.wait()


@pytest.mark.parametrize(("victim", "name", "state"), MATRIX if LONG else SHORT)
def test_survivor_carries_on(victim: str, name: str, state: str, endpoint: str, spawn: Spawn) -> None:
    names_before = shm_names()

    def start_host(hold: str | None = None) -> Events:
        host = Events(spawn("echo_host.py", endpoint, json.dumps({"hold": hold})))
        host.named("ready")
        return host

    def start_game(hold: str | None = None) -> Events:
        return Events(spawn("game.py", endpoint, json.dumps({"hold": hold, "budget_ms": BUDGET_MS})))

    host_hold = state if victim in ("sidecar", "both") else None
    game_hold = state if victim in ("game", "both") else None
    host = start_host(host_hold)
    bystander = None
    if victim == "game":
        bystander = start_game()
        answered(bystander)
        descriptors_before, segments_before = descriptors(host.process), segments(host.process)
    # A sidecar that is to stand still while resizing needs a game that resizes.
    game = start_game("resizing" if host_hold == "resizing" else game_hold)
    if victim == "both" and state != "handshake":
        # The game gets there first; the sidecar is left in whatever it was doing just then.
        if host_hold == "resizing":
            game.named("hold")
            game.process.send_signal(signal.SIGCONT)
            host.named("hold")
        else:
            game.named("hold")
    elif victim == "sidecar" and state == "resizing":
        game.named("hold")
        game.process.send_signal(signal.SIGCONT)
        host.named("hold")
    elif victim == "sidecar":
        host.named("hold")
    elif victim == "game" or state == "handshake":
        game.named("hold")

    victims = {"game": [game], "sidecar": [host], "both": [game, host]}[victim]
    for each in victims:
        hit(each.process, name)

    if victim == "sidecar":
        # The game goes on showing frames at once, and no wait is longer than its budget.
        seen = len(game.drain())
        for _ in range(30):
            game.named("frame", intact=True)
        frames = [event for event in game.seen[seen:] if event["event"] == "frame"]
        gaps_ms = [(b["at_ns"] - a["at_ns"]) / 1e6 for a, b in itertools.pairwise(frames)]
        assert max(event["waited_ms"] for event in frames) < BUDGET_MS + SCHEDULER_MS
        assert max(gaps_ms) < CARRY_ON_MS
        if name != "SIGSTOP":
            assert frames[-1]["state"] != "ready"
            assert segments(game.process) == 0
    if victim == "game":
        assert bystander is not None
        seen = len(bystander.drain())
        answered(bystander, 20)
        frames = [event for event in bystander.seen[seen:] if event["event"] == "frame"]
        gaps_ms = [(b["at_ns"] - a["at_ns"]) / 1e6 for a, b in itertools.pairwise(frames) if b["answered"]]
        assert max(gaps_ms) < CARRY_ON_MS
        if name != "SIGSTOP":
            closed = [event for event in host.drain() if event["event"] == "SessionClosed"]
            if state != "handshake":
                closed = closed or [host.named("SessionClosed")]
                assert "process ended" in closed[-1]["reason"]

    if name == "SIGSTOP":
        for each in reversed(victims):
            each.process.send_signal(signal.SIGCONT)
    else:
        if victim in ("sidecar", "both"):
            host = start_host()
        if victim in ("game", "both"):
            game = start_game()
    # One more for a program whose stand-still the CONT above interrupted before it was reached.
    answered(game, 10)
    assert all(event["intact"] for event in game.drain() if event["event"] == "frame")
    if bystander is not None:
        assert all(event["intact"] for event in bystander.drain() if event["event"] == "frame")
        if name != "SIGSTOP":
            # The dead game's descriptors and memory were given back; the new game's are there.
            game.process.kill()
            game.process.wait()
            host.named("SessionClosed")
            # ZeroMQ closes a dead peer's connection on a thread of its own, some frames later on a busy machine.
            for _ in range(100):
                answered(bystander, 2)
                if descriptors(host.process) <= descriptors_before:
                    break
            assert descriptors(host.process) <= descriptors_before
            assert segments(host.process) <= segments_before
    if victim == "sidecar":
        assert segments(game.process) == 1
    assert shm_names() <= names_before

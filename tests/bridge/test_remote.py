"""Frames between machines: the same client over tcp, keys, a bad network."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

import mirage_bridge as mb
from mirage_bridge import keys
from mirage_bridge.stream import compressions
from tests.bridge.conftest import PROGRAMS, Spawn
from tests.bridge.events import Events
from tests.bridge.test_session import meet, play, play_until_answered, start_host


def tcp_host(spawn: Spawn, address: str = "tcp://127.0.0.1:*", **options: object) -> tuple[Events, str]:
    host = Events(spawn("echo_host.py", address, json.dumps(options)))
    return host, str(host.named("ready")["endpoint"])


@pytest.mark.parametrize("codec", compressions())
def test_the_same_client_plays_over_tcp(spawn: Spawn, codec: str) -> None:
    host, address = tcp_host(spawn)
    rng = np.random.default_rng(3)
    with mb.Session(address, size=(321, 181), compression=codec, budget_ms=5000) as session:
        assert session.wait_ready(10), session.refusal
        for _ in range(30):
            picture = rng.integers(0, 255, (181, 321, 4), np.uint8)
            frame = session.begin_frame()
            assert frame.in_shared_memory or codec != "none"
            frame.pixels[...] = picture
            with session.wait_answer(session.end_frame(frame)) as answer:
                assert answer.answered, answer.reason
                np.testing.assert_array_equal(np.asarray(answer.pixels), ~picture)
                shown = answer.pixels
            with pytest.raises(mb.LeaseError):
                shown.sum()
        session.set_style("rain")
        with play(session, 1) as answer:
            assert (answer.reason, answer.style_epoch) == ("rain", 2)
        session.resize((64, 36))
        with play_until_answered(session, 7) as answer:
            assert answer.pixels.shape == (36, 64, 4)
            assert (np.asarray(answer.pixels) == 248).all()
    host.named("SessionClosed", reason="the game said goodbye")


def test_newest_wins_and_two_at_most_are_under_way(spawn: Spawn) -> None:
    _, address = tcp_host(spawn, delay_ms=40)
    with mb.Session(address, size=(640, 360), planes=(), budget_ms=2, delivery="newest") as session:
        assert session.wait_ready(10)
        ages = []
        end_s = time.monotonic() + 1.5
        while time.monotonic() < end_s:
            with play(session, 1) as answer:
                if answer.answered:
                    ages.append(session._frame_id - answer.frame_id)
        # Hundreds were drawn; an answer is never older than what two frames under way and one job explain.
        assert session._frame_id > 100
        assert session.stats().frames < session._frame_id * 2
        assert len(ages) > 10


def test_a_remote_host_that_restarts_is_found_again(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host, address = tcp_host(spawn, f"tcp://127.0.0.1:{port}")
    with mb.Session(address, size=(64, 36), budget_ms=300) as session:
        play_until_answered(session).release()
        monkeypatch.setattr("mirage_bridge.session.STALL_NS", 100_000_000)
        host.process.kill()
        host.process.wait()
        for _ in range(5):
            with play(session, 4) as answer:
                assert not answer.answered
                assert (np.asarray(answer.pixels) == 4).all()
        tcp_host(spawn, address)
        play_until_answered(session, timeout_s=15).release()
        assert session.stats().reconnects == 1


def test_sizes_that_lie_are_dropped(spawn: Spawn) -> None:
    with mb.Host("tcp://127.0.0.1:*") as host:
        with mb.Session(host.endpoint, size=(64, 36), planes=()) as session:
            meet(host, session)
            (served,) = host.sessions.values()
            frame = session.begin_frame()
            session.end_frame(frame)
            assert session._socket is not None
            from mirage_bridge.protocol import FrameRecord

            record = FrameRecord(0, 1, 99, 9, 0, 0, 0, 1, 0, 1, 1.0).pack()
            session._socket.send_multipart([b"F", record, b"short"])
            session._socket.send_multipart([b"F", record])
            session._socket.send_multipart([b"F", b"nonsense", b"x" * 9216])
            end_s = time.monotonic() + 5
            while not (served._ring.faults and served.faults == 2) and time.monotonic() < end_s:  # type: ignore[union-attr]
                host.poll(0.05)
                assert served.take_newest() is None or True
            assert served._ring is not None
            assert served._ring.faults == 1
            assert served.faults == 2
        host.poll(0.05)


@pytest.fixture
def rings(tmp_path: Path) -> tuple[Path, Path]:
    """A key directory of the sidecar's machine and one of the game's."""
    return tmp_path / "host", tmp_path / "game"


def test_keys_are_made_listed_allowed_and_revoked(rings: tuple[Path, Path]) -> None:
    directory, _ = rings
    key = keys.make("host", directory)
    assert len(key.public) == len(key.secret) == 40
    assert key.secret not in repr(key)
    assert stat.S_IMODE(os.stat(directory / "host.key").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    with pytest.raises(FileExistsError):
        keys.make("host", directory)
    assert keys.load("host", directory) == key
    assert [each.name for each in keys.list_keys(directory)] == ["host"]
    keys.allow("ann", key.public, directory)
    assert keys.allowed(directory) == {"ann": key.public}
    assert keys.revoke("ann", directory)
    assert not keys.revoke("ann", directory)
    assert keys.allowed(directory) == {}
    for bad in ("../up", "", ".hidden", "a b"):
        with pytest.raises(ValueError, match="name"):
            keys.make(bad, directory)
    with pytest.raises(ValueError, match="40"):
        keys.allow("bob", "short", directory)
    with pytest.raises(mb.EndpointError, match="mirage keys make absent"):
        keys.load("absent", directory)
    (directory / "host.key").chmod(0o644)
    with pytest.raises(mb.EndpointError, match="chmod 600"):
        keys.load("host", directory)
    (directory / "allowed.json").write_text("{broken")
    with pytest.raises(mb.EndpointError, match="damaged"):
        keys.allowed(directory)


def test_only_loopback_goes_without_keys(rings: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAGE_KEYS", str(rings[0]))
    with pytest.raises(mb.EndpointError, match="no key 'host'"):
        mb.Host("tcp://0.0.0.0:*")
    with pytest.raises(mb.EndpointError, match="mirage keys trust"):
        mb.Session("tcp://192.0.2.1:4000")


def test_a_key_lets_in_and_its_lack_keeps_out(rings: tuple[Path, Path], spawn: Spawn) -> None:
    host_ring, game_ring = rings
    host_key, game_key = keys.make("host", host_ring), keys.make("game", game_ring)
    host, bound = tcp_host(spawn, "tcp://0.0.0.0:*", key_directory=str(host_ring))
    address = bound.replace("0.0.0.0", "127.0.0.1")
    keys.trust(address, host_key.public, game_ring)
    known = keys.credentials(address, directory=game_ring)

    with mb.Session(address, size=(64, 36), credentials=known, budget_ms=5000) as session:
        assert not session.wait_ready(0.7)  # not on the list
        assert session.state == "offline"
    with pytest.raises(mb.RequestTimeoutError):
        mb.request(address, "stats", timeout_s=0.5, credentials=known)
    with mb.Session(address, size=(64, 36)) as session:
        assert not session.wait_ready(0.5)  # no key at all
    assert not [event for event in host.drain() if event["event"] != "ready"]

    keys.allow("ann", game_key.public, host_ring)
    with mb.Session(address, size=(64, 36), credentials=known, budget_ms=5000) as session:
        play_until_answered(session).release()
        assert host.named("SessionOpened")["key"] == "ann"
        assert mb.request(address, "stats", credentials=known)["sessions"] == 1
        keys.revoke("ann", host_ring)
        assert "revoked" in host.named("SessionClosed")["reason"]
        with play(session, 2) as answer:
            assert (np.asarray(answer.pixels)).shape == (36, 64, 4)
    wrong = keys.Credentials(game_key, game_key.public)
    with mb.Session(address, size=(64, 36), credentials=wrong) as session:
        assert not session.wait_ready(0.5)  # another host's key: the handshake fails


def test_a_message_over_the_limit_ends_the_connection(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    with zmq.Context.instance().socket(zmq.DEALER) as sock:
        sock.linger = 0
        sock.setsockopt(zmq.ROUTING_ID, b"\x01" * 16)
        sock.connect(endpoint)
        sock.send_multipart([b"C", b"x" * (1 << 22)])
        assert not sock.poll(200)
    assert mb.request(endpoint, "stats")["sessions"] == 0


@pytest.mark.needs("root", "netns", "ip", "tc")
@pytest.mark.parametrize("line", [(0, 0.0), (30, 0.01)], ids=["clean", "30ms-1%"])
def test_between_network_namespaces_and_a_cut(
    rings: tuple[Path, Path], spawn: Spawn, line: tuple[int, float]
) -> None:
    """A clean line and one of 30 ms and 1 % loss; then the cable is cut and healed."""
    host_ring, game_ring = rings
    host_key, game_key = keys.make("host", host_ring), keys.make("game", game_ring)
    keys.allow("ann", game_key.public, host_ring)
    name = f"mirage{os.getpid()}"
    address = "tcp://10.123.45.1:47399"
    keys.trust(address, host_key.public, game_ring)

    def ip(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, text=True)

    def inside(*words: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", name, *words)

    def connect(delay_ms: int, lost: float) -> None:
        """A veth pair, spoilt by netem; in a kernel without it two interfaces that a program of ours lies between."""
        ip("ip", "link", "add", "mg0", "type", "veth", "peer", "name", "mg1", "netns", name)
        if not delay_ms:
            return
        try:
            ip("tc", "qdisc", "add", "dev", "mg0", "root", "netem", "delay", f"{delay_ms}ms", "loss", f"{lost:.1%}")
        except subprocess.CalledProcessError as error:
            ip("ip", "link", "del", "mg0")
            if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
                pytest.skip(f"needs tc netem (sch_netem), or /dev/net/tun: {error.stderr.strip()}")
            cable = spawn("cable.py", "mg0", "mg1", delay_ms, lost)
            assert cable.stdout is not None
            assert cable.stdout.readline() == "ready\n"
            ip("ip", "link", "set", "mg1", "netns", name)

    ip("ip", "netns", "add", name)
    try:
        connect(*line)
        ip("ip", "addr", "add", "10.123.45.1/24", "dev", "mg0")
        ip("ip", "link", "set", "mg0", "up")
        ip(*inside("ip", "addr", "add", "10.123.45.2/24", "dev", "mg1"))
        ip(*inside("ip", "link", "set", "mg1", "up"))
        host, _ = tcp_host(spawn, address, key_directory=str(host_ring))
        game = Events(
            spawn("in_namespace.py", name, PROGRAMS / "game.py", address,
                  json.dumps({"budget_ms": 400, "pace_ms": 15}), MIRAGE_KEYS=str(game_ring))
        )  # fmt: skip
        answered = [game.named("frame", answered=True, intact=True, timeout_s=30) for _ in range(20)]
        assert min(event["waited_ms"] for event in answered) >= line[0], "a line that is not as slow as was asked"
        ip("ip", "link", "set", "mg0", "down")
        game.until(lambda event: event["event"] == "frame" and event["reason"] == "the sidecar does not move")
        cut = [game.named("frame", timeout_s=5) for _ in range(50)]
        assert max(event["waited_ms"] for event in cut) < 700
        ip("ip", "link", "set", "mg0", "up")
        for _ in range(20):
            game.named("frame", answered=True, intact=True, timeout_s=40)
        assert all(event["intact"] for event in game.drain() if event["event"] == "frame")
        assert host.process.poll() is None
    finally:
        subprocess.run(("ip", "link", "del", "mg0"), capture_output=True)
        subprocess.run(("ip", "netns", "del", name), capture_output=True)

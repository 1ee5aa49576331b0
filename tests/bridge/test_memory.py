"""The shared segment: what it is, who gets in, what is left behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mirage_bridge.errors import ProtocolError, SegmentError
from mirage_bridge.memory import Segment, sweep
from mirage_bridge.protocol import Layout, Offer
from tests.bridge.conftest import Spawn, shm_names
from tests.bridge.events import Events

LAYOUT = Layout.of(Offer(size=(64, 36), planes=("depth", "mask")))
linux = pytest.mark.skipif(sys.platform != "linux", reason="sealed memfds are Linux's: run it there")


@pytest.mark.parametrize("kind", ["memfd", "file"])
def test_both_sides_see_the_same_bytes_and_nothing_stays(kind: str) -> None:
    names, descriptors = shm_names(), len(os.listdir("/proc/self/fd"))
    host = Segment.create(LAYOUT, 1, kind)
    game = Segment.attach(LAYOUT, host.address())
    host.unname()
    host.memory[10_000] = 77
    assert game.memory[10_000] == 77
    assert shm_names() == names
    del host, game
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors


@linux
def test_a_peer_cannot_truncate_the_memory() -> None:
    segment = Segment.create(LAYOUT, 1, "memfd")
    fd = os.open(f"/proc/self/fd/{segment.address()['fd']}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, LAYOUT.total_bytes * 2)
    os.close(fd)


@linux
@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ({"token": b"x" * 16}, "token"),
        ({"total_bytes": 4096}, "announced"),
        ({"fd": 0}, "memory|opened|size"),
        ({"fd": 1 << 30}, "opened"),
        ({"pid": 1 << 30}, "opened"),
        ({"generation": 2}, "header"),
    ],
)
def test_anything_but_the_announced_segment_is_refused(lie: dict[str, object], says: str) -> None:
    segment = Segment.create(LAYOUT, 1, "memfd")
    with pytest.raises(SegmentError, match=says):
        Segment.attach(LAYOUT, segment.address() | lie)


@linux
def test_an_unsealed_memfd_is_refused() -> None:
    segment = Segment.create(LAYOUT, 1, "memfd")
    fd = os.memfd_create("mirage", os.MFD_ALLOW_SEALING)
    os.write(fd, segment.memory)
    with pytest.raises(SegmentError, match="sealed"):
        Segment.attach(LAYOUT, segment.address() | {"fd": fd})
    os.close(fd)


@pytest.mark.parametrize(
    "lie", [{"token": b"short"}, {"pid": -1}, {"fd": "3"}, {"memory": "magic"}, {"generation": 0}]
)
def test_malformed_addresses_are_protocol_errors(lie: dict[str, object]) -> None:
    segment = Segment.create(LAYOUT, 1, "memfd")
    with pytest.raises(ProtocolError):
        Segment.attach(LAYOUT, segment.address() | lie)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/dev/shm/../../etc/passwd", "/dev/shm/mirage-zz", "mirage-" + "0" * 32]
)
def test_only_a_segments_name_is_opened(path: str) -> None:
    segment = Segment.create(LAYOUT, 1, "file")
    with pytest.raises(SegmentError, match="not a segment's name"):
        Segment.attach(LAYOUT, segment.address() | {"path": path})


@linux
def test_the_orphan_of_a_host_and_a_game_that_died_at_once_is_swept() -> None:
    names = shm_names()
    code = (
        "import os, signal; from mirage_bridge.memory import Segment;"
        "from mirage_bridge.protocol import Layout, Offer;"
        "s = Segment.create(Layout.of(Offer(size=(64, 36))), 1, 'file'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    living = Segment.create(LAYOUT, 1, "file")
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(shm_names() - names) == 2
    assert sweep() == 1
    Segment.attach(LAYOUT, living.address())
    living.unname()
    assert shm_names() == names


@linux
@pytest.mark.needs("root")
def test_another_user_can_neither_read_nor_join(endpoint: str, spawn: Spawn) -> None:
    host = Events(spawn("echo_host.py", endpoint))
    host.named("ready")
    game = Events(spawn("game.py", endpoint, json.dumps({"pace_ms": 20})))
    game.named("frame", answered=True)
    # The directory is opened to everybody on purpose: the socket and the kernel's check still hold.
    directory = Path(endpoint.removeprefix("ipc://")).parent
    directory.chmod(0o755)
    code = (
        "import os, sys, socket; os.setgid(65534); os.setuid(65534);"
        "pid, path = sys.argv[1:];"
        "found = [];"
        "\ntry: found.append(os.listdir(f'/proc/{pid}/fd'))\nexcept PermissionError: pass"
        "\ntry: found.append(open(f'/proc/{pid}/mem', 'rb'))\nexcept PermissionError: pass"
        "\nsock = socket.socket(socket.AF_UNIX)"
        "\ntry: sock.connect(path); found.append('connected')\nexcept PermissionError: pass"
        "\nsys.exit(len(found))"
    )
    path = endpoint.removeprefix("ipc://")
    stranger = subprocess.run([sys.executable, "-c", code, str(host.process.pid), path])
    assert stranger.returncode == 0
    # Even a socket that anybody may open lets nobody else in.
    os.chmod(path, 0o777)
    join = (
        # The interpreter's own files may be closed to the stranger, so everything is loaded before.
        "import os, sys, zmq; s = zmq.Context().socket(zmq.DEALER); s.immediate = 1; s.linger = 0;"
        "s.poll(0, zmq.POLLOUT); os.setgid(65534); os.setuid(65534);"
        "s.connect(sys.argv[1]); sys.exit(1 if s.poll(1000, zmq.POLLOUT) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", join, endpoint], timeout=20).returncode == 0
    assert len([event for event in host.drain() if event["event"] == "SessionOpened"]) == 1
    directory.chmod(0o700)
    game.named("frame", answered=True)

"""The C library: its layout against Python's, its build, its example, and its API against a real host."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import shlex
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import mirage_bridge as mb
from mirage_bridge import protocol
from mirage_bridge.protocol import Layout, Offer
from tests.bridge.conftest import LONG, PROGRAMS, Spawn
from tests.bridge.events import Events
from tests.bridge.test_session import start_host

ROOT = Path(__file__).parents[2] / "bridge" / "c"
HEADER = (ROOT / "include" / "mirage_bridge.h").read_text()

needs_compiler = pytest.mark.needs("cc")
needs_libraries = pytest.mark.needs("cc", "cmake", "pkg-config", "libzmq", "libmsgpack")


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(directory: Path, *options: str) -> Path:
    run("cmake", "-S", ROOT, "-B", directory, "-DBUILD_SHARED_LIBS=ON", *options)
    run("cmake", "--build", directory, "--parallel", "2")
    return directory


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flags = "-Wall -Wextra -Werror -Wshadow -Wconversion -pedantic"
    return build(tmp_path_factory.mktemp("c"), f"-DCMAKE_C_FLAGS={flags}")


# -- layout ------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mirage_segment_header", protocol.SEGMENT_FIELDS),
        ("mirage_frame_record", protocol.FRAME_FIELDS),
        ("mirage_answer_record", protocol.ANSWER_FIELDS),
    ],
)
def test_structs_lie_as_python_lays_them(name: str, fields: Any, tmp_path: Path) -> None:
    lines = "".join(
        f'printf("%zu %zu {field}\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));'
        for field, _ in fields
    )
    source = tmp_path / "layout.c"
    source.write_text(f'#include <stdio.h>\n#include "protocol.h"\nint main(void) {{ {lines} return 0; }}\n')
    run("cc", "-std=c11", "-Wall", "-Werror", f"-I{ROOT / 'src'}", source, "-o", tmp_path / "layout")
    offset, expected = 0, []
    for field, code in fields:
        size = struct.calcsize("<" + code)
        expected.append(f"{offset} {size} {field}")
        offset += size
    assert run(tmp_path / "layout").splitlines() == expected


def test_numbers_are_pythons() -> None:
    text = (ROOT / "src" / "protocol.h").read_text()
    numbers = {name: int(value) for name, value in re.findall(r"MIRAGE_(\w+) = (\d+)", text)}
    assert numbers == {
        "MAJOR": protocol.PROTOCOL_VERSION[0],
        "MINOR": protocol.PROTOCOL_VERSION[1],
        "MAX_CONTROL_BYTES": protocol.MAX_CONTROL_BYTES,
        "MAX_STYLE_BYTES": protocol.MAX_STYLE_BYTES,
        "MAX_SIDE_PIXELS": protocol.MAX_SIDE_PIXELS,
        "IDENTITY_BYTES": protocol.IDENTITY_BYTES,
        "PAGE": protocol.PAGE,
        "GAME_LINE": protocol.CONTROL_OFFSET + protocol.GAME_LINE,
        "HOST_LINE": protocol.CONTROL_OFFSET + protocol.HOST_LINE,
        "SLOTS_OFFSET": protocol.SLOTS_OFFSET,
        "SLOT_HEADER_BYTES": protocol.SLOT_HEADER_BYTES,
        "FRAME_SLOTS": protocol.FRAME_SLOTS,
        "ANSWER_SLOTS": protocol.ANSWER_SLOTS,
        "PINS": protocol.PINS,
        "STATE_FREE": protocol.STATE_FREE,
        "STATE_WRITING": protocol.STATE_WRITING,
        "STATE_READY": protocol.STATE_READY,
    }
    public = {name: int(value) for name, value in re.findall(r"MIRAGE_(\w+) = (-?\d+)", HEADER)}
    for number, name in enumerate(protocol.PIXEL_FORMATS):
        assert public[name] == number
    for bit, name in enumerate(protocol.PLANES):
        assert public[f"PLANE_{name.upper()}"] == 1 << bit
    for number, name in enumerate(protocol.DELIVERIES):
        assert public[f"DELIVERY_{name.upper()}"] == number
    for number, name in enumerate(protocol.KINDS):
        assert public[name.upper()] == number


@needs_libraries
def test_layouts_agree_for_any_offer(tmp_path: Path) -> None:
    rng = random.Random(4)
    offers = [Offer()] + [
        Offer(
            size=(rng.randint(1, 5000), rng.randint(1, 3000)),
            pixel_format=rng.choice(tuple(protocol.PIXEL_FORMATS)),
            planes=tuple(name for name in protocol.PLANES if rng.random() < 0.5),
        )
        for _ in range(100)
    ]
    rows = []
    for offer in offers:
        planes = sum(1 << bit for bit, name in enumerate(protocol.PLANES) if name in offer.planes)
        number = list(protocol.PIXEL_FORMATS).index(offer.pixel_format)
        rows.append(
            f"{{{offer.size[0]}, {offer.size[1]}, {number}, {planes}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},"
        )
    source = tmp_path / "layouts.c"
    source.write_text(
        '#include <stdio.h>\n#include "segment.h"\nstatic const mirage_offer offers[] = {\n'
        + "\n".join(rows)
        + """};
int main(void) {
    for (size_t i = 0; i < sizeof offers / sizeof *offers; i++) {
        mirage_layout at;
        if (!mirage_layout_of(&offers[i], &at)) return 1;
        printf("%u %lu %lu %lu %lu %lu %lu %lu\\n", at.row_pitch_bytes, at.depth_offset, at.motion_offset,
               at.mask_offset, at.frame_slot_bytes, at.frames_offset, at.answers_offset, at.total_bytes);
    }
    return 0;
}
"""
    )
    run("cc", "-std=c11", f"-I{ROOT / 'src'}", source, ROOT / "src" / "segment.c", "-o", tmp_path / "layouts")
    expected = []
    for offer in offers:
        layout = Layout.of(offer)
        planes_at = [
            layout.frame_planes[name].offset if name in layout.frame_planes else 0 for name in protocol.PLANES
        ]
        expected.append(
            " ".join(
                map(
                    str,
                    [layout.row_pitch_bytes, *planes_at, layout.frame_slot_bytes, layout.frames_offset,
                     layout.answers_offset, layout.total_bytes],
                )
            )
        )  # fmt: skip
    assert run(tmp_path / "layouts").splitlines() == expected


# -- the example -------------------------------------------------------------------------------------


@needs_libraries
def test_the_example_plays_with_and_without_a_sidecar(
    built: Path, endpoint: str, spawn: Spawn, tmp_path: Path
) -> None:
    alone = run(built / "hello_frame", 3, endpoint, tmp_path / "alone.ppm")
    assert alone == "frames 0 offline 3 styled 0 late 0 dropped 0 faults 0\n"
    start_host(spawn, endpoint)
    told = run(built / "hello_frame", 3, endpoint, tmp_path / "styled.ppm").split()
    assert told[:6] == ["frames", "3", "offline", "0", "styled", told[5]]
    assert told[-1] == "0"
    head = b"P6 640 360 255\n"
    pictures = [(tmp_path / name).read_bytes() for name in ("alone.ppm", "styled.ppm")]
    assert all(picture.startswith(head) and len(picture) == len(head) + 640 * 360 * 3 for picture in pictures)
    source, answer = (np.frombuffer(picture[len(head) :], np.uint8) for picture in pictures)
    if told[5] == "3":
        np.testing.assert_array_equal(answer, 255 - source)


@needs_libraries
def test_the_example_has_no_finding_under_the_sanitizers(endpoint: str, spawn: Spawn, tmp_path: Path) -> None:
    sanitized = build(tmp_path, "-DMIRAGE_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug")
    start_host(spawn, endpoint)
    assert "faults 0" in run(sanitized / "hello_frame", 60, endpoint, tmp_path / "out.ppm")
    assert "offline 5" in run(sanitized / "hello_frame", 5, endpoint + "x")


@needs_libraries
@pytest.mark.needs("valgrind")
def test_the_example_has_no_finding_under_valgrind(built: Path, endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    checked = ("valgrind", "-q", "--leak-check=full", "--show-leak-kinds=all", "--error-exitcode=9")
    assert "faults 0" in run(*checked, built / "hello_frame", 10, endpoint)


@needs_libraries
def test_an_installed_library_is_found_by_pkg_config(built: Path, tmp_path: Path) -> None:
    run("cmake", "--install", built, "--prefix", tmp_path)
    (config,) = tmp_path.glob("lib*/**/pkgconfig")
    flags = shlex.split(run("pkg-config", "--cflags", "--libs", "mirage_bridge", PKG_CONFIG_PATH=str(config)))
    run("cc", "-std=c11", ROOT / "example" / "hello_frame.c", "-o", tmp_path / "hello", *flags, "-lm")
    told = run(tmp_path / "hello", 1, "ipc:///nowhere/s", LD_LIBRARY_PATH=str(config.parent))
    assert "offline 1" in told


@needs_libraries
def test_what_a_host_says_is_checked_before_it_is_unpacked(tmp_path: Path) -> None:
    """The scan agrees with Python's msgpack about what is well-formed, and no byte past the end is read."""
    flags = shlex.split(run("pkg-config", "--cflags", "--libs", "msgpack"))
    sanitize = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    run("cc", "-std=c11", *sanitize, f"-I{ROOT / 'src'}",
        PROGRAMS / "fuzz_wire.c", ROOT / "src" / "wire.c", "-o", tmp_path / "fuzz", *flags)  # fmt: skip
    rng = random.Random(6)
    good = [
        msgpack.packb(
            {"type": "ok", "number": 7, "segment": {"token": b"x" * 16, "fd": 3, "path": "y" * 300}}
        ),
        msgpack.packb({"type": "welcome", "info": {"a": [1, -2, 3.5, None, True, 1 << 40, "é"] * 20}}),
    ]
    inputs = list(good)
    for _ in range(200_000 if LONG else 4000):
        data = bytearray(rng.choice(good) if rng.random() < 0.7 else rng.randbytes(rng.randint(0, 64)))
        for _ in range(rng.randint(0, 4)):
            if data:
                data[rng.randrange(len(data))] = rng.choice(
                    (rng.randrange(256), 0xDD, 0xDF, 0xC7, 0xDB, 0x91)
                )
        inputs.append(bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.3 else data))
    inputs += [b"\x91" * 60000, b"\xdd\xff\xff\xff\xff" + b"\xc0" * 60000, b"\xc0" * 70000]
    done = subprocess.run(
        [tmp_path / "fuzz"],
        input=b"".join(struct.pack("<I", len(data)) + data for data in inputs),
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode()
    verdicts = done.stdout.decode().split()
    assert len(verdicts) == len(inputs)
    assert verdicts[:2] == ["13", "12"]
    assert [verdict[0] for verdict in verdicts[-3:]] == ["0", "0", "0"]
    for data, verdict in zip(inputs, verdicts, strict=True):
        if verdict[0] == "1":
            # And it is what the other side's Python takes: keys are text, text is UTF-8.
            msgpack.unpackb(data, strict_map_key=True)


# -- the API, called as an engine's plugin calls it --------------------------------------------------


class CFrame(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("in_shared_memory", ctypes.c_uint32), ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32), ("row_pitch_bytes", ctypes.c_uint32), ("camera_cut", ctypes.c_uint32),
        ("pixels", ctypes.c_void_p), ("depth", ctypes.c_void_p), ("motion", ctypes.c_void_p),
        ("mask", ctypes.c_void_p), ("input_ns", ctypes.c_uint64), ("captured_ns", ctypes.c_uint64),
        ("serial", ctypes.c_uint64),
    ]  # fmt: skip


class CAnswer(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("answered", ctypes.c_uint32), ("kind", ctypes.c_uint32),
        ("width", ctypes.c_uint32), ("height", ctypes.c_uint32), ("row_pitch_bytes", ctypes.c_uint32),
        ("style_epoch", ctypes.c_uint32), ("edit_age_frames", ctypes.c_uint32),
        ("working_width", ctypes.c_uint32), ("working_height", ctypes.c_uint32), ("pixels", ctypes.c_void_p),
        ("frame_id", ctypes.c_uint64), ("service_ns", ctypes.c_uint64), ("published_ns", ctypes.c_uint64),
        ("reason", ctypes.c_char * 64), ("held", ctypes.c_void_p), ("serial", ctypes.c_uint64),
    ]  # fmt: skip


class COptions(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in (
            "size", "width", "height", "pixel_format", "planes", "orientation", "color_space", "delivery",
            "row_pitch_bytes", "depth_kind")),
        ("depth_near_m", ctypes.c_double), ("depth_far_m", ctypes.c_double),
        ("motion_unit", ctypes.c_uint32), ("motion_direction", ctypes.c_uint32),
        ("motion_not_written", ctypes.c_float), ("strength", ctypes.c_float), ("seed", ctypes.c_uint64),
        ("budget_ns", ctypes.c_uint64), ("endpoint", ctypes.c_char_p), ("style", ctypes.c_char_p),
        ("hold_frames", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
    ]  # fmt: skip


class CStats(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32)] + [
        (name, ctypes.c_uint64)
        for name in ("frames", "frames_offline", "styled", "reprojected", "source", "late", "dropped",
                     "reconnects", "faults")
    ]  # fmt: skip


class Game:
    """A session of the C library."""

    def __init__(self, library: Any, endpoint: Any, **fields: object) -> None:
        self.library = library
        self.options = COptions()
        library.mirage_options_init(ctypes.byref(self.options))
        assert self.options.size == ctypes.sizeof(COptions)
        self.options.endpoint = endpoint.encode() if isinstance(endpoint, str) else endpoint
        self.options.width, self.options.height = 64, 36
        self.options.budget_ns = 5_000_000_000
        for name, value in fields.items():
            setattr(self.options, name, value)
        self.session = ctypes.c_void_p()
        self.last: CAnswer | None = None
        self.result = library.mirage_connect(ctypes.byref(self.options), ctypes.byref(self.session))

    def call(self, name: str, *arguments: Any) -> int:
        return int(getattr(self.library, f"mirage_{name}")(self.session, *arguments))

    def play(self, value: int, camera_cut: bool = False) -> tuple[CFrame, CAnswer]:
        """One frame filled with ``value`` and its answer, which the next call releases."""
        if self.last is not None:
            self.call("release", ctypes.byref(self.last))
        frame, answer, frame_id = CFrame(), CAnswer(), ctypes.c_uint64()
        self.library.mirage_frame_init(ctypes.byref(frame))
        self.library.mirage_answer_init(ctypes.byref(answer))
        assert self.call("begin_frame", ctypes.byref(frame)) == 0
        shape = (frame.height, frame.width, 4)
        ctypes.memset(frame.pixels, value, shape[0] * shape[1] * 4)
        frame.camera_cut = camera_cut
        assert self.call("end_frame", ctypes.byref(frame), ctypes.byref(frame_id)) == 0
        forever = ctypes.c_uint64(2**64 - 1)
        result = self.call("wait_answer", frame_id, forever, ctypes.byref(answer))
        assert result == 0, result
        self.last = answer
        return frame, answer

    def keep(self) -> None:
        """Hold on to the last answer."""
        self.last = None

    def shown(self, answer: CAnswer) -> set[int]:
        return set(ctypes.string_at(answer.pixels, answer.width * answer.height * 4))

    def until_answered(self, value: int, timeout_s: float = 10) -> CAnswer:
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            _, answer = self.play(value)
            if answer.answered:
                return answer
            self.call("wait_ready", ctypes.c_uint64(10_000_000))
        raise AssertionError(answer.reason)

    def stats(self) -> CStats:
        stats = CStats()
        self.library.mirage_stats_init(ctypes.byref(stats))
        assert self.call("get_stats", ctypes.byref(stats)) == 0
        return stats

    def close(self) -> None:
        self.library.mirage_disconnect(ctypes.byref(self.session))
        assert self.session.value is None


@pytest.fixture(scope="module")
def library(built: Path) -> Any:
    loaded = ctypes.CDLL(str(built / "libmirage_bridge.so"))
    for name in ("mirage_error_string", "mirage_refusal"):
        getattr(loaded, name).restype = ctypes.c_char_p
    return loaded


@pytest.fixture
def game(library: Any, endpoint: str) -> Any:
    games: list[Game] = []

    def make(**fields: object) -> Game:
        games.append(Game(library, endpoint, **fields))
        assert games[-1].result == 0
        return games[-1]

    yield make
    for each in games:
        each.close()


@needs_libraries
def test_c_restyles_resizes_and_changes_style(game: Callable[..., Game], endpoint: str, spawn: Spawn) -> None:
    host = start_host(spawn, endpoint)
    session = game(planes=7, style=b"snow")
    answer = session.until_answered(3)
    assert session.shown(answer) == {252}
    assert (answer.reason, answer.style_epoch, answer.kind) == (b"snow", 1, 0)
    epoch = ctypes.c_uint32()
    assert session.call("set_style", b"rain", ctypes.byref(epoch)) == 0
    answer = session.until_answered(4)
    assert (answer.reason, answer.style_epoch, epoch.value) == (b"rain", 2, 2)
    packed = msgpack.packb({"name": "ink", "mix": [0.5, 0.5]})
    assert session.call("set_style_msgpack", packed, ctypes.c_size_t(len(packed)), None) == 0
    answer = session.until_answered(4)
    assert b"ink" in answer.reason
    assert session.call("set_style", b"unknown", None) == 0
    answer = session.until_answered(4)
    assert answer.style_epoch == 3
    assert b"unknown" in session.library.mirage_refusal(session.session)
    assert session.call("resize", 641, 359) == 0
    answer = session.until_answered(9)
    assert (answer.width, answer.height, session.shown(answer)) == (641, 359, {246})
    assert host.named("Resized")["size"] == [641, 359]
    assert session.call("pause") == 0
    _, answer = session.play(1)
    assert (answer.answered, answer.reason) == (0, b"paused")
    host.named("Paused")
    assert session.call("resume") == 0
    session.until_answered(2)
    assert session.stats().faults == 0


@needs_libraries
@pytest.mark.parametrize("why", ["late", "cut", "style", "size"])
def test_c_shows_the_last_answer_again_as_long_as_it_was_told_to(
    why: str, game: Callable[..., Game], endpoint: str, spawn: Spawn
) -> None:
    host = start_host(spawn, endpoint)
    # Far from the 100 ms after which a sidecar that does not move is waited for no longer.
    session = game(hold_frames=2, budget_ns=10_000_000)
    answered = session.until_answered(1)
    shown, frame_id = session.shown(answered), answered.frame_id
    host.process.send_signal(signal.SIGSTOP)
    if why == "style":
        session.call("set_style", b"ink", None)
    if why == "size":
        session.call("resize", 32, 18)
    for _ in range(2 if why == "late" else 0):
        _, again = session.play(7)
        assert (again.answered, again.kind, again.reason) == (0, 0, b"no answer within the budget")
        assert (session.shown(again), again.frame_id) == (shown, frame_id)
    _, own = session.play(7, camera_cut=why == "cut")
    assert (own.kind, session.shown(own)) == (2, {7})
    host.process.send_signal(signal.SIGCONT)
    session.until_answered(3)


@needs_libraries
def test_c_plays_on_when_the_host_dies_and_finds_the_next(
    game: Callable[..., Game], endpoint: str, spawn: Spawn
) -> None:
    host = start_host(spawn, endpoint, memory="file")
    session = game()
    held = session.until_answered(1)
    session.keep()
    host.process.kill()
    host.process.wait()
    for value in range(5):
        _, answer = session.play(value)
        assert not answer.answered
        assert session.shown(answer) == {value}
    assert session.shown(held) == {254}  # memory a game still holds stays mapped
    assert session.call("release", ctypes.byref(held)) == 0
    assert session.call("release", ctypes.byref(held)) == 0
    start_host(spawn, endpoint)
    assert session.shown(session.until_answered(7, 15)) == {248}
    assert session.stats().reconnects == 1


@needs_libraries
def test_c_holds_two_answers_at_most(game: Callable[..., Game], endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    session = game()
    first = session.until_answered(1)
    session.keep()
    second = session.until_answered(2)
    assert (session.shown(first), session.shown(second)) == ({254}, {253})
    frame, answer, frame_id = CFrame(), CAnswer(), ctypes.c_uint64()
    session.library.mirage_frame_init(ctypes.byref(frame))
    session.library.mirage_answer_init(ctypes.byref(answer))
    assert session.call("begin_frame", ctypes.byref(frame)) == 0
    assert session.call("end_frame", ctypes.byref(frame), ctypes.byref(frame_id)) == 0
    assert session.call("wait_answer", frame_id, ctypes.c_uint64(10**9), ctypes.byref(answer)) == -5
    assert session.shown(first) == {254}
    session.call("release", ctypes.byref(first))
    assert session.call("wait_answer", frame_id, ctypes.c_uint64(10**9), ctypes.byref(answer)) == 0
    assert answer.frame_id == frame_id.value  # the answer, or where the machine is busy the frame itself


@needs_libraries
def test_c_errors_are_codes_with_sentences(library: Any, game: Callable[..., Game], endpoint: str) -> None:
    for fields, code in (
        ({"width": 0}, -1), ({"size": 4}, -1), ({"pixel_format": 9}, -1), ({"strength": float("nan")}, -1),
        ({"style": None}, -1), ({"depth_kind": 1}, -1), ({"row_pitch_bytes": 3}, -1),
        ({"endpoint": b"tcp://127.0.0.1:1"}, -2), ({"endpoint": b"ipc:///" + b"x" * 200}, -2),
        ({"style": b"x" * 70_000}, -6),
    ):  # fmt: skip
        refused = Game(library, **({"endpoint": endpoint} | fields))
        assert refused.result == code, fields
        assert refused.session.value is None
    os.chmod(Path(endpoint.removeprefix("ipc://")).parent, 0o755)
    assert Game(library, endpoint).result == -2
    os.chmod(Path(endpoint.removeprefix("ipc://")).parent, 0o700)
    codes = [int(value) for value in re.findall(r"MIRAGE_E_\w+ = (-\d+)", HEADER)] + [0, 1]
    sentences = {library.mirage_error_string(code) for code in codes}
    assert len(sentences) == len(codes)
    assert library.mirage_error_string(99) == b"not a result of this library"
    session = game()
    frame = CFrame()
    assert session.call("begin_frame", ctypes.byref(frame)) == -1  # not initialised
    library.mirage_frame_init(ctypes.byref(frame))
    assert session.call("end_frame", ctypes.byref(frame), None) == -4  # not begun
    # Cut short, a number as a key, and text that is none: the host would drop it without a word.
    for packed in (b"\x91", msgpack.packb({"regions": {2: "ink"}}), b"\xa2\xc3\x28"):
        assert session.call("set_style_msgpack", packed, ctypes.c_size_t(len(packed)), None) == -1
    assert session.call("set_style", b"caf\xe9", None) == -1
    assert session.call("set_strength", ctypes.c_float(2.0)) == -1
    assert session.call("resize", 0, 5) == -1


@needs_libraries
@pytest.mark.parametrize("change", ["style", "size"])
def test_c_what_changes_before_the_welcome_is_what_is_served(
    game: Callable[..., Game], endpoint: str, change: str
) -> None:
    with mb.Host(endpoint, mb.Capabilities(min_size=(1, 1))) as host:
        session = game(planes=0, style=b"snow")
        # The host warms up: its socket has the hello, and nobody reads.
        assert session.call("wait_ready", ctypes.c_uint64(300_000_000)) == 1
        if change == "style":
            assert session.call("set_style", b"ink", None) == 0
        else:
            assert session.call("resize", 96, 64) == 0
        wanted = ("ink", (64, 36)) if change == "style" else ("snow", (96, 64))
        end, found = time.monotonic() + 30, None
        while found != wanted:
            assert time.monotonic() < end, found
            host.poll(0.01)
            session.call("wait_ready", ctypes.c_uint64(10_000_000))
            found = next(((served.style, served.offer.size) for served in host.sessions.values()), None)


@needs_libraries
def test_c_and_python_games_play_together(game: Callable[..., Game], endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    other = Events(spawn("game.py", endpoint, json.dumps({"frames": 60, "budget_ms": 2000})))
    session = game()
    for value in range(60):
        assert session.shown(session.until_answered(value)) == {255 - value}
        session.call("wait_ready", ctypes.c_uint64(1))
    other.named("done", timeout_s=30)
    assert all(event["intact"] for event in other.seen if event["event"] == "frame")


@needs_libraries
def test_c_a_resize_is_for_the_next_frame(game: Callable[..., Game]) -> None:
    """The frame that is being drawn, and the black that is shown before any, keep their memory."""
    session = game()
    black, frame, answer = CAnswer(), CFrame(), CAnswer()
    for made, init in ((black, "answer"), (frame, "frame"), (answer, "answer")):
        getattr(session.library, f"mirage_{init}_init")(ctypes.byref(made))
    forever = ctypes.c_uint64(2**64 - 1)
    assert session.call("wait_answer", ctypes.c_uint64(0), forever, ctypes.byref(black)) == 0
    assert session.call("begin_frame", ctypes.byref(frame)) == 0
    for size in ((640, 480), (64, 48)):
        assert session.call("resize", *size) == 0
    assert session.shown(black) == {0}
    ctypes.memset(frame.pixels, 7, 64 * 36 * 4)
    frame_id = ctypes.c_uint64()
    assert session.call("end_frame", ctypes.byref(frame), ctypes.byref(frame_id)) == 0
    assert session.call("wait_answer", frame_id, forever, ctypes.byref(answer)) == 0
    assert (answer.width, answer.height, session.shown(answer)) == (64, 36, {7})
    frame, _ = session.play(5)
    assert (frame.width, frame.height) == (64, 48)


@needs_libraries
def test_c_an_answer_is_given_back_after_the_session(library: Any, endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    session = Game(library, endpoint)
    answer = session.until_answered(3)
    session.close()
    assert session.shown(answer) == {252}
    assert library.mirage_release(None, ctypes.byref(answer)) == 0
    assert answer.pixels is None

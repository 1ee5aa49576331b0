"""Every byte a peer controls, and the document against the code."""

from __future__ import annotations

import contextlib
import re
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

import mirage_bridge as mb
from mirage_bridge import protocol
from mirage_bridge.errors import MessageTooLargeError, ProtocolError
from mirage_bridge.protocol import AnswerRecord, FrameRecord, Layout, Offer, pack_control, unpack_control
from mirage_bridge.stream import unpack_plane
from tests.bridge.conftest import LONG

DOCUMENT = (Path(__file__).parents[2] / "bridge" / "PROTOCOL.md").read_text()
MANY = settings(max_examples=50_000 if LONG else 300)

FRAME = FrameRecord(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0.5, True)
ANSWER = AnswerRecord(1, 2, 3, 4, 5, 6, 7, 8, "reprojected", 9, (10, 11), 12, "why")

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@MANY
@given(st.binary(max_size=2048))
def test_any_bytes_as_a_control_message(data: bytes) -> None:
    try:
        fields = unpack_control(data)
    except ProtocolError:
        return
    assert isinstance(fields["type"], str)


@MANY
@given(
    st.binary(min_size=124, max_size=132)
    | st.binary(min_size=122, max_size=122).map(lambda b: b"MFR1\1\0" + b)
)
def test_any_bytes_as_a_frame_record(data: bytes) -> None:
    try:
        record = FrameRecord.unpack(data)
    except ProtocolError:
        return
    assert 0.0 <= record.strength <= 1.0
    assert FrameRecord.unpack(record.pack()) == record


@MANY
@given(
    st.binary(min_size=124, max_size=132)
    | st.binary(min_size=122, max_size=122).map(lambda b: b"MAN1\1\0" + b)
)
def test_any_bytes_as_an_answer_record(data: bytes) -> None:
    try:
        record = AnswerRecord.unpack(data)
    except ProtocolError:
        return
    assert record.kind in protocol.KINDS
    assert len(AnswerRecord.unpack(record.pack()).reason.encode()) <= 48


@settings(max_examples=50_000 if LONG else 100)
@given(st.dictionaries(st.sampled_from(sorted(Offer().to_wire())), values))
def test_any_fields_as_an_offer(lies: dict[str, Any]) -> None:
    try:
        offer = Offer.from_wire(Offer().to_wire() | lies)
    except ProtocolError:
        return
    sentence = mb.Capabilities().problem(offer)
    if sentence is None:
        assert Layout.of(offer).total_bytes < 2**40
    else:
        assert isinstance(sentence, str)


@MANY
@given(st.sampled_from(["none", "zlib", "lz4"]), st.binary(max_size=256), st.integers(0, 64))
def test_any_bytes_as_a_packed_plane(codec: str, data: bytes, size_bytes: int) -> None:
    with contextlib.suppress(ProtocolError):
        assert len(unpack_plane(codec, data, size_bytes)) == size_bytes


@pytest.mark.needs("atheris")
def test_a_guided_fuzzer_finds_nothing() -> None:
    program = Path(__file__).parent / "programs" / "fuzz_parsers.py"
    runs = 5_000_000 if LONG else 30_000
    done = subprocess.run(
        [sys.executable, str(program), f"-runs={runs}", "-max_len=4096", "-seed=7"],
        capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {runs} runs" in done.stderr


def test_records_cross_unchanged() -> None:
    assert FrameRecord.unpack(FRAME.pack()).pack() == FRAME.pack()
    assert AnswerRecord.unpack(ANSWER.pack()) == ANSWER


def test_offers_cross_unchanged() -> None:
    offer = Offer(
        size=(641, 359),
        pixel_format="RGBA16F",
        planes=("mask", "depth"),
        depth=mb.DepthConvention("reversed_z", 0.1, float("inf")),
        motion=mb.MotionConvention("uv", "to_current", 0.0),
        row_pitch_bytes=8192,
    )
    wire = unpack_control(pack_control({"type": "hello", "offer": offer.to_wire()}))["offer"]
    assert Offer.from_wire(wire) == offer
    assert offer.problem() is None


BOMBS = {
    "over the limit": b"\xdd" + struct.pack(">I", 1 << 24) + b"\x90" * (1 << 20),
    "an array that lies": b"\xdd" + struct.pack(">I", 1 << 31) + b"\x90" * 1000,
    "a map that lies": b"\xdf" + struct.pack(">I", 1 << 31) + b"\xa1a\x90" * 1000,
    "empty arrays": b"\xdd" + struct.pack(">I", 65000) + b"\x90" * 65000,
    "nesting": b"\x91" * 65000,
    "nested maps": b"\x81\xa1a" * 20000,
    "text that lies": b"\xdb" + struct.pack(">I", 1 << 31) + b"x",
    "an extension": b"\xc7\x05\x01hello",
    "a timestamp": b"\xd6\xff\x00\x00\x00\x00",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_little(name: str) -> None:
    with pytest.raises(ProtocolError):
        unpack_control(BOMBS[name])
    before_s = time.perf_counter()
    for _ in range(5):
        with pytest.raises(ProtocolError):
            unpack_control(BOMBS[name])
    assert (time.perf_counter() - before_s) / 5 < 0.010
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        unpack_control(BOMBS[name])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_messages_over_the_limit_are_not_packed() -> None:
    with pytest.raises(MessageTooLargeError):
        pack_control({"type": "x", "text": "x" * 65536})


kinds = st.sampled_from(
    ["hello", "attach", "attach_failed", "style", "change", "pause", "resume", "alive", "bye", "request", "x"]
)
messages = st.lists(
    st.one_of(
        st.lists(st.binary(max_size=200), min_size=1, max_size=12),
        st.tuples(kinds, st.dictionaries(st.text(max_size=8), values, max_size=4)).map(
            lambda pair: [b"C", msgpack.packb(pair[1] | {"type": pair[0]}, unicode_errors="surrogatepass")]
        ),
        st.sampled_from([FRAME.pack(), ANSWER.pack()]).map(lambda record: [b"D", record]),
        st.tuples(kinds, st.dictionaries(
            st.sampled_from(["number", "offer", "style", "strength", "seed", "style_epoch", "pid", "protocol",
                             "transport", "name", "fields", "sentence"]), values)).map(
            lambda pair: [b"C", pack_control(HELLO | {"number": 1} | pair[1] | {"type": pair[0]})]
        ),
    ),
    max_size=6,
)  # fmt: skip
HELLO: dict[str, Any] = {
    "type": "hello", "protocol": [1, 0], "pid": 1, "transport": "shm",
    "offer": Offer(size=(16, 16)).to_wire(), "style": "snow", "strength": 1.0, "seed": 0, "style_epoch": 1,
}  # fmt: skip


@settings(max_examples=20_000 if LONG else 60)
@given(sent=messages)
def test_a_host_outlives_any_conversation(fuzzed_host: tuple[mb.Host, Any], sent: list[list[bytes]]) -> None:
    host, sock = fuzzed_host
    for parts in sent:
        try:
            sock.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            break
    host.poll(0.001)
    while sock.poll(0):
        sock.recv_multipart()


@pytest.fixture(scope="module")
def fuzzed_host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("f", numbered=True)
    directory.chmod(0o700)
    endpoint = f"ipc://{directory}/s"
    sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    sock.linger = 0
    sock.setsockopt(zmq.ROUTING_ID, b"\x01" * 16)
    with mb.Host(endpoint) as host:
        sock.connect(endpoint)
        yield host, sock
        # It still serves who behaves.
        with mb.Session(endpoint) as session:
            end_s = time.monotonic() + 10
            while session.state != "ready" and time.monotonic() < end_s:
                host.poll(0.01)
                session.wait_ready(0.01)
            assert session.state == "ready"
        sock.close()


# -- the document ------------------------------------------------------------------------------------


def table(section: str) -> list[tuple[int, int, str]]:
    """(offset, bytes, name) of the rows of a section's table."""
    text = DOCUMENT.split(f"### {section} ")[1].split("\n#")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \|", text, re.MULTILINE)
    return [(int(offset), int(size), name) for offset, size, name in rows]


def fields(description: tuple[tuple[str, str], ...]) -> list[tuple[int, int, str]]:
    rows, offset = [], 0
    for name, code in description:
        size = struct.calcsize("<" + code)
        rows.append((offset, size, name))
        offset += size
    return rows


@pytest.mark.parametrize(
    ("section", "description"),
    [
        ("4.1", protocol.SEGMENT_FIELDS),
        ("6.1", protocol.FRAME_FIELDS),
        ("6.2", protocol.ANSWER_FIELDS),
    ],
)
def test_the_document_lays_out_what_the_code_does(section: str, description: Any) -> None:
    assert table(section) == fields(description)


def test_the_document_names_what_the_code_does() -> None:
    assert f"version {'.'.join(map(str, protocol.PROTOCOL_VERSION))}" in DOCUMENT.splitlines()[0]
    words = {name: offset // 8 for offset, _, name in table("4.2")}
    assert words == {
        "progress": protocol.WORD_PROGRESS,
        "newest": protocol.WORD_NEWEST,
        "pin0": protocol.WORD_PIN,
        "pin1": protocol.WORD_PIN + 1,
        "asleep": protocol.WORD_ASLEEP,
    }
    assert table("4.3") == [(0, 8, "state"), (protocol.SLOT_RECORD_OFFSET, protocol.RECORD_BYTES, "record")]
    assert f"control page: the game's line at {protocol.CONTROL_OFFSET + protocol.GAME_LINE}" in DOCUMENT
    assert f"the host's line at {protocol.CONTROL_OFFSET + protocol.HOST_LINE}" in DOCUMENT
    names = DOCUMENT.split("## 3. Names")[1].split("## 4.")[0]
    known = re.findall(r"`([A-Za-z0-9_]+)`", names)
    for each in (
        *protocol.PIXEL_FORMATS, *protocol.PLANES, *protocol.ORIENTATIONS, *protocol.COLOR_SPACES,
        *protocol.DELIVERIES, *protocol.COMPRESSIONS, *protocol.KINDS,
    ):  # fmt: skip
        assert each in known, each
    for limit in (protocol.MAX_CONTROL_BYTES, protocol.MAX_STYLE_BYTES, protocol.MAX_SIDE_PIXELS):
        assert str(limit) in DOCUMENT


def test_planes_stand_apart_and_within() -> None:
    layout = Layout.of(Offer(size=(641, 359), planes=("mask", "depth", "motion"), row_pitch_bytes=2816))
    end = 0
    for plane in layout.frame_planes.values():
        assert plane.offset % 4096 == 0
        assert plane.offset >= end
        end = plane.offset + plane.size_bytes
    assert list(layout.frame_planes) == ["pixels", "depth", "motion", "mask"]
    assert end <= layout.frame_slot_bytes
    assert layout.frames_offset + 4 * layout.frame_slot_bytes == layout.answers_offset
    assert layout.answers_offset + 5 * layout.answer_slot_bytes == layout.total_bytes

"""Coverage-guided fuzzing of all that a peer's bytes reach first (atheris, libFuzzer's options):

    python tests/bridge/programs/fuzz_parsers.py -runs=1000000 -max_len=4096

An input's first byte chooses the parser. A parser may raise `ProtocolError` and nothing else; what it lets through
must hold what its docstring says.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mirage_bridge", "msgpack"]):
    import mirage_bridge as mb
    from mirage_bridge import protocol
    from mirage_bridge.errors import ProtocolError
    from mirage_bridge.memory import Segment
    from mirage_bridge.protocol import AnswerRecord, FrameRecord, Layout, Offer, unpack_control
    from mirage_bridge.ring import LaneReader, LaneWriter, Words
    from mirage_bridge.stream import GameStream, HostStream, unpack_plane

LAYOUT = Layout.of(Offer(size=(8, 8)))
SEGMENT = Segment.create(LAYOUT, 1, "memfd")
SLOTS = slice(8192, 8192 + 9 * 256)
PEER_LINE = slice(4096 + 512, 4096 + 576)


def control(data: bytes) -> None:
    fields = unpack_control(data)
    assert isinstance(fields["type"], str)
    offer = Offer.from_wire(fields)
    if mb.Capabilities().problem(offer) is None:
        assert Layout.of(offer).total_bytes < 2**40


def offer(data: bytes) -> None:
    """A valid offer with one field replaced by whatever msgpack makes of the bytes."""
    names = sorted(Offer().to_wire())
    if not data:
        return
    value = unpack_control(b"\x82\xa4type\xa1o\xa1v" + data[1:]).get("v")
    changed = Offer.from_wire(Offer().to_wire() | {names[data[0] % len(names)]: value})
    if mb.Capabilities().problem(changed) is None:
        assert Layout.of(changed).total_bytes < 2**40


def frame_record(data: bytes) -> None:
    record = FrameRecord.unpack(data)
    assert 0.0 <= record.strength <= 1.0
    assert FrameRecord.unpack(record.pack()) == record


def answer_record(data: bytes) -> None:
    record = AnswerRecord.unpack(data)
    assert record.kind in protocol.KINDS


def plane(data: bytes) -> None:
    codec = ("none", "zlib", "lz4")[data[0] % 3] if data else "none"
    assert len(unpack_plane(codec, data[1:], 256)) == 256


def slots(data: bytes) -> None:
    """The ring of a peer that writes what it likes: doorbell words, pins, slot headers."""
    padded = data.ljust(64 + 9 * 256, b"\0")
    SEGMENT.memory[PEER_LINE] = padded[:64]
    SEGMENT.memory[SLOTS] = padded[64 : 64 + 9 * 256]
    words = Words(SEGMENT.memory, game=True)
    writer, reader = LaneWriter(words, SEGMENT.memory, 0, 4), LaneReader(words, SEGMENT.memory, 4, 5)
    slot = writer.begin()
    assert slot is not None
    assert 0 <= slot < 4
    got = reader.take()
    if got is not None:
        assert 0 <= got[1] < 5
        with contextlib.suppress(ProtocolError):
            AnswerRecord.unpack(got[2])
        reader.release(got[0], got[1], 0)


def messages(data: bytes) -> None:
    """Messages of a remote peer: a tag, then parts cut at a length that the input names."""
    if len(data) < 3:
        return
    cut = 3 + data[2]
    parts = [data[3:cut], data[cut:]][: 1 + data[1] % 2]
    tag = (protocol.TAG_CREDIT, protocol.TAG_ANSWER, protocol.TAG_FRAME, data[:1])[data[0] % 4]
    for stream in (GameStream(LAYOUT, 1, "none"), HostStream(LAYOUT, 1, "none")):
        with contextlib.suppress(ProtocolError):
            stream.receive(tag, parts)


TARGETS: tuple[Callable[[bytes], None], ...] = (
    control, offer, frame_record, answer_record, plane, slots, messages
)  # fmt: skip


def one_input(data: bytes) -> None:
    """Run one input through its parser."""
    if data:
        with contextlib.suppress(ProtocolError):
            TARGETS[data[0] % len(TARGETS)](data[1:])


def write_seeds(folder: Path) -> None:
    """One honest input for each parser: what lies behind a magic number is found in seconds, not in hours."""
    frame = FrameRecord(1, 2, 1, 4, 5, 6, 7, 8, 9, 10, 0.5, True).pack()
    answer = AnswerRecord(1, 2, 1, 4, 5, 6, 7, 8, "reprojected", 9, (10, 11), 12, "why").pack()
    hello = protocol.pack_control({"type": "hello", **Offer().to_wire()})
    message = b"\1\1\x80" + answer + bytes(256)
    honest = (hello, b"\3\x02", frame, answer, b"\0" + bytes(256), bytes(64 + 9 * 256), message)
    for i, data in enumerate(honest):
        (folder / f"seed{i}").write_bytes(bytes([i]) + data)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as corpus:
        write_seeds(Path(corpus))
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()

"""How one session's frames and answers move between machines: as message parts over tcp (PROTOCOL §9).

The classes stand where `GameRing` and `HostRing` stand and keep their promises: newest wins, a picture being
looked at does not change, nothing waits.  What a shared segment gets from pins, this gets from credit: a
sender has at most one picture under way beyond the newest.
"""

from __future__ import annotations

import importlib
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import zmq

from .channel import Array, TakenAnswer, TakenFrame
from .errors import ProtocolError
from .protocol import (
    TAG_ANSWER,
    TAG_CREDIT,
    TAG_FRAME,
    AnswerRecord,
    FrameRecord,
    Layout,
    PlaneLayout,
)

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["GameStream", "HostStream", "compressions"]

try:
    # Optional, and without type information.
    _lz4: Any = importlib.import_module("lz4.block")
except ImportError:
    _lz4 = None

Part = bytes | zmq.Frame

_CREDIT: Final = struct.Struct("<Q")
#: Pictures under way to a peer that did not say it has them.
_WINDOW: Final = 2
#: After a broken connection the pictures under way are gone, and so is the word that they came.
_CREDIT_LOST_NS: Final = 1_000_000_000
_BUFFERS: Final = 5
_SEQUENCE_END: Final = 1 << 56


def compressions() -> tuple[str, ...]:
    """What this installation can pack and unpack: ``none``, ``zlib``, and ``lz4`` where that package is
    there.
    """
    return ("none", "zlib") if _lz4 is None else ("none", "zlib", "lz4")


def pack_plane(codec: str, data: memoryview) -> Part:
    """One plane as a message part; uncompressed it is sent from where it stands."""
    if codec == "zlib":
        return zlib.compress(data, 1)
    if codec == "lz4":
        packed: bytes = _lz4.compress(data, mode="fast", store_size=False)
        return packed
    return zmq.Frame(data, track=True, copy=False)


def unpack_plane(codec: str, part: bytes | memoryview, size_bytes: int) -> memoryview:
    """The ``size_bytes`` of a plane; raises `ProtocolError` unless the part is exactly that.

    A bomb is cut off at ``size_bytes``.
    """
    data: bytes | memoryview = part
    try:
        if codec == "zlib":
            inflate = zlib.decompressobj()
            data = inflate.decompress(part, size_bytes)
            if not inflate.eof and (inflate.decompress(inflate.unconsumed_tail, 1) or not inflate.eof):
                raise ProtocolError("a compressed plane is longer or shorter than its plane")
        elif codec == "lz4":
            data = _lz4.decompress(part, uncompressed_size=size_bytes)
    except ProtocolError:
        raise
    except Exception as error:  # zlib.error, LZ4BlockError, ValueError, ...
        raise ProtocolError(f"a plane cannot be decompressed: {error}") from None
    if len(data) != size_bytes:
        raise ProtocolError(f"a plane has {len(data)} bytes where {size_bytes} were negotiated")
    return memoryview(data)


class _Progress:
    """Stands where a ring's words stand: hearing from the peer is its progress."""

    def __init__(self) -> None:
        self.heard = 0

    def advance(self) -> None:
        """Nothing to do: messages show this side's progress."""

    def set_asleep(self, asleep: bool) -> None:
        """Nothing to do: a message wakes by itself."""

    def peer_progress(self) -> int:
        return self.heard


class _Window:
    """Counts pictures under way."""

    def __init__(self) -> None:
        self._sent: list[int] = []
        self._sent_ns = 0

    def open(self) -> bool:
        if self._sent and time.monotonic_ns() - self._sent_ns > _CREDIT_LOST_NS:
            self._sent.clear()
        return len(self._sent) < _WINDOW

    def sent(self, sequence: int) -> None:
        self._sent.append(sequence)
        self._sent_ns = time.monotonic_ns()

    def credited(self, body: bytes | memoryview) -> None:
        if len(body) != _CREDIT.size:
            raise ProtocolError("a credit has 8 bytes")
        (sequence,) = _CREDIT.unpack(body)
        self._sent = [each for each in self._sent if each > sequence]


@dataclass
class _Buffer:
    """Memory for one picture that ZeroMQ may still be sending."""

    memory: np.ndarray[Any, np.dtype[np.uint8]]
    #: Of the parts alone: a part that is held counts as under way.
    under_way: list[zmq.MessageTracker] = field(default_factory=list)
    writing: bool = False

    def free(self) -> bool:
        return not self.writing and all(tracker.done for tracker in self.under_way)


def _trackers(parts: Sequence[Part]) -> list[zmq.MessageTracker]:
    return [part.tracker for part in parts if isinstance(part, zmq.Frame) and part.tracker is not None]


def _array(memory: Any, offset: int, plane: PlaneLayout) -> Array:
    return np.ndarray(plane.shape, plane.dtype, memory, offset, plane.strides)


class _Pool:
    def __init__(self, size_bytes: int) -> None:
        self._buffers = [_Buffer(np.zeros(0, np.uint8)) for _ in range(_BUFFERS)]
        self._size_bytes = size_bytes

    def __getitem__(self, slot: int) -> _Buffer:
        return self._buffers[slot]

    def begin(self, keep: int) -> int | None:
        for slot, buffer in enumerate(self._buffers):
            if slot != keep and buffer.free():
                if not buffer.memory.size:
                    buffer.memory = np.zeros(self._size_bytes, np.uint8)
                buffer.writing = True
                buffer.under_way.clear()
                return slot
        return None


class GameStream:
    """The game's side of a connection without shared memory."""

    def __init__(self, layout: Layout, generation: int, codec: str) -> None:
        self.layout = layout
        self.generation = generation
        self.words = _Progress()
        self.faults = 0
        self.dropped = 0
        self._codec = codec
        self._pool = _Pool(layout.frame_slot_bytes)
        self._newest = -1
        self._sequence = 0
        self._window = _Window()
        self._pending: tuple[int, bytes] | None = None
        self._packing: tuple[int, bytes, Future[list[Part]]] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._answer: TakenAnswer | None = None
        self._answer_sequence = 0

    def begin(self) -> tuple[int, dict[str, Array]] | None:
        """A buffer to draw into: (slot, planes by name); None while ZeroMQ still sends from all of them."""
        slot = self._pool.begin(keep=self._newest)
        if slot is None:
            return None
        memory = self._pool[slot].memory
        return slot, {name: _array(memory, at.offset, at) for name, at in self.layout.frame_planes.items()}

    def cancel(self, slot: int) -> None:
        self._pool[slot].writing = False

    def next_sequence(self) -> int:
        return self._sequence + 1

    def publish(self, slot: int, record: bytes) -> None:
        """Make ``slot`` the next to be sent; one that was waiting is passed over."""
        self._sequence += 1
        if self._pending is not None:
            self._pool[self._pending[0]].writing = False
            self.dropped += 1
        self._pending = (slot, record)
        self._newest = slot

    def flush(self, sock: zmq.Socket[bytes]) -> None:
        """Send what the credit allows; never blocks."""
        if self._packing is not None and self._packing[2].done():
            slot, record, future = self._packing
            self._packing = None
            self._pool[slot].writing = False
            self._put(sock, record, future.result())
        if self._pending is None or self._packing is not None or not self._window.open():
            return
        slot, record = self._pending
        self._pending = None
        memory = self._pool[slot].memory.data
        planes = [memory[at.offset : at.offset + at.size_bytes] for at in self.layout.frame_planes.values()]
        if self._codec == "none":
            parts = [pack_plane("none", plane) for plane in planes]
            self._pool[slot].under_way = _trackers(parts)
            self._pool[slot].writing = False
            self._put(sock, record, parts)
            return
        # Packing takes longer than a game has: it is done beside it, and sent by a later call.
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor  # games on this machine need none

            self._executor = ThreadPoolExecutor(1, "mirage-pack")
        codec = self._codec
        future = self._executor.submit(lambda: [pack_plane(codec, plane) for plane in planes])
        self._packing = (slot, record, future)

    def _put(self, sock: zmq.Socket[bytes], record: bytes, parts: Sequence[Part]) -> None:
        try:
            sock.send_multipart([TAG_FRAME, record, *parts], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            self.dropped += 1
            return
        self._window.sent(FrameRecord.unpack(record).sequence)

    def packing(self) -> bool:
        """Whether a frame is on its way to being sent that no message will announce."""
        return self._packing is not None

    def receive(self, tag: bytes, parts: Sequence[bytes | memoryview]) -> list[bytes] | None:
        """An answer or credit from the host; returns the message to send back.  Raises `ProtocolError`."""
        self.words.heard += 1
        if tag == TAG_CREDIT:
            self._window.credited(parts[0])
            return None
        if tag != TAG_ANSWER or len(parts) not in (1, 2):
            raise ProtocolError("not an answer")
        record = AnswerRecord.unpack(parts[0])
        reply = [TAG_CREDIT, _CREDIT.pack(record.sequence)]
        if record.generation != self.generation:
            return reply  # to a frame of the size before
        if not self._answer_sequence < record.sequence < _SEQUENCE_END:
            raise ProtocolError("an answer out of order")
        if record.has_pixels != (len(parts) == 2):
            raise ProtocolError("an answer whose record and parts disagree")
        pixels = None
        if record.has_pixels:
            plane = self.layout.frame_planes["pixels"]
            pixels = _array(unpack_plane(self._codec, parts[1], plane.size_bytes), 0, plane)
        self._answer_sequence = record.sequence
        # Times of another machine mean nothing here: the answer stood ready when it came.
        record = replace(record, published_ns=time.monotonic_ns())
        self._answer = TakenAnswer(0, 0, record, pixels)
        return reply

    def waiting(self) -> bool:
        return self._answer is not None

    def full(self) -> bool:
        """Never: an answer's memory is its own."""
        return False

    def take(self) -> TakenAnswer | None:
        """The newest answer if it is new."""
        answer, self._answer = self._answer, None
        return answer

    def release(self, taken: TakenAnswer) -> bool:
        """Nothing to do: the answer's memory is its own."""
        return True

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


class HostStream:
    """The host's side of a connection without shared memory."""

    def __init__(self, layout: Layout, generation: int, codec: str) -> None:
        self.layout = layout
        self.generation = generation
        self.words = _Progress()
        self.faults = 0
        self._codec = codec
        self._frame: tuple[FrameRecord, list[bytes | memoryview]] | None = None
        self._raw: tuple[FrameRecord, list[bytes | memoryview]] | None = None
        self._frame_sequence = 0
        self._taken = 0
        self._pool = _Pool(layout.answer_slot_bytes)
        self._window = _Window()
        self._sequence = 0

    def address(self) -> dict[str, Any]:
        """What the game is told in place of a segment."""
        return {"memory": "parts", "generation": self.generation, "total_bytes": 0, "token": b""}

    def unname(self) -> None:
        """Nothing to do: there is no memory to find."""

    def receive(self, tag: bytes, parts: Sequence[bytes | memoryview]) -> list[bytes] | None:
        """A frame or credit from the game; returns the message to send back.  Raises `ProtocolError`."""
        self.words.heard += 1
        if tag == TAG_CREDIT:
            self._window.credited(parts[0])
            return None
        if tag != TAG_FRAME or len(parts) != 1 + len(self.layout.frame_planes):
            raise ProtocolError("not a frame of the negotiated planes")
        record = FrameRecord.unpack(parts[0])
        reply = [TAG_CREDIT, _CREDIT.pack(record.sequence)]
        if record.generation != self.generation:
            return reply
        if not self._frame_sequence < record.sequence < _SEQUENCE_END:
            raise ProtocolError("a frame out of order")
        self._frame_sequence = record.sequence
        self._frame = (record, list(parts[1:]))
        return reply

    def waiting(self) -> int:
        return 0 if self._frame is None else self._frame[0].sequence

    def take(self) -> TakenFrame | None:
        """The newest frame if it is new and sound; at most two are held at once."""
        if self._frame is None or self._taken >= _WINDOW:
            return None
        (record, parts), self._frame = self._frame, None
        planes = {}
        try:
            for part, (name, at) in zip(parts, self.layout.frame_planes.items(), strict=True):
                planes[name] = _array(unpack_plane(self._codec, part, at.size_bytes), 0, at)
        except ProtocolError:
            self.faults += 1
            return None
        self._taken += 1
        self._raw = (record, parts)
        return TakenFrame(0, 0, record, planes)

    def put_back(self, taken: TakenFrame) -> None:
        """Give a frame back as if it had not been taken."""
        self._taken -= 1
        if self._frame is None:
            self._frame = self._raw

    def release(self, taken: TakenFrame) -> bool:
        self._taken -= 1
        return True

    def begin(self) -> tuple[int, Array] | None:
        """A buffer to write an answer into: (slot, pixels)."""
        slot = self._pool.begin(keep=-1)
        if slot is None:
            return None
        return slot, _array(self._pool[slot].memory, 0, self.layout.frame_planes["pixels"])

    def cancel(self, slot: int) -> None:
        self._pool[slot].writing = False

    def publish(self, slot: int, record: AnswerRecord) -> list[Part]:
        """The message that carries an answer; empty where the game did not fetch the two before it."""
        self._sequence += 1
        buffer = self._pool[slot]
        buffer.writing = False
        if not self._window.open():
            return []
        message: list[Part] = [TAG_ANSWER, record.at(slot, self._sequence, self.generation).pack()]
        if record.has_pixels:
            size_bytes = self.layout.frame_planes["pixels"].size_bytes
            part = pack_plane(self._codec, buffer.memory.data[:size_bytes])
            buffer.under_way = _trackers([part])
            message.append(part)
        self._window.sent(self._sequence)
        return message

"""How one session's frames and answers move: through a shared segment, seen from either side.

A channel knows slots and records and nothing of sockets, states or styles; those are the session's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from .errors import ProtocolError
from .memory import Segment
from .protocol import TAG_DOORBELL, AnswerRecord, FrameRecord, Layout
from .ring import LaneReader, LaneWriter, Words, answer_base, frame_base, plane_array

__all__ = ["Array", "GameRing", "HostRing", "TakenAnswer", "TakenFrame"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class TakenFrame:
    """A pinned frame: its record and its planes by name."""

    pin: int
    slot: int
    record: FrameRecord
    planes: dict[str, Array]


@dataclass(frozen=True, slots=True)
class TakenAnswer:
    """A pinned answer; ``pixels`` is None where the host says: show your own frame."""

    pin: int
    slot: int
    record: AnswerRecord
    pixels: Array | None


class GameRing:
    """The game's side of a segment."""

    def __init__(self, segment: Segment) -> None:
        self.layout: Layout = segment.layout
        self.generation = segment.generation
        self._memory = segment.memory
        self._doorbell = b""
        self.words = Words(segment.memory, game=True)
        self._frames = LaneWriter(self.words, segment.memory, 0, self.layout.frame_slots)
        self._answers = LaneReader(
            self.words, segment.memory, self.layout.frame_slots, self.layout.answer_slots
        )

    @property
    def faults(self) -> int:
        return self._answers.faults

    def begin(self) -> tuple[int, dict[str, Array]] | None:
        """A slot to draw into: (slot, planes by name)."""
        slot = self._frames.begin()
        if slot is None:
            return None
        base = frame_base(self.layout, slot)
        return slot, {
            name: plane_array(self._memory, base, at) for name, at in self.layout.frame_planes.items()
        }

    def cancel(self, slot: int) -> None:
        self._frames.cancel(slot)

    def next_sequence(self) -> int:
        return self._frames.next_sequence()

    def publish(self, slot: int, record: bytes) -> None:
        self._frames.publish(slot, record)
        self.words.advance()
        self._doorbell = record

    def flush(self, sock: zmq.Socket[bytes]) -> None:
        """Ring the doorbell of what was published; never blocks."""
        record, self._doorbell = self._doorbell, b""
        if record and self.words.peer_asleep():
            # The slot is the truth: a doorbell that finds no room leaves others before it to wake the host.
            with contextlib.suppress(zmq.ZMQError):
                sock.send_multipart([TAG_DOORBELL, record], zmq.NOBLOCK)

    def packing(self) -> bool:
        """Whether a frame is on its way that no message will announce: never, here."""
        return False

    def receive(self, tag: bytes, parts: Sequence[bytes | memoryview]) -> None:
        """A doorbell woke us; what it announces stands in shared memory."""
        if tag != TAG_DOORBELL:
            raise ProtocolError("a message of an unknown tag")

    def close(self) -> None:
        """Nothing to do: the mapping goes with its last view."""

    def waiting(self) -> bool:
        return self._answers.waiting() > 0

    def full(self) -> bool:
        """Whether nothing can be taken before something is given back."""
        return self._answers.pins_left() == 0

    def take(self) -> TakenAnswer | None:
        """Pin the newest answer if it is new and sound."""
        taken = self._answers.take()
        if taken is None:
            return None
        pin, slot, data = taken
        try:
            record = AnswerRecord.unpack(data)
            if record.generation != self.generation or record.slot != slot:
                raise ProtocolError("an answer's record names another slot")
        except ProtocolError:
            self._answers.faults += 1
            self._answers.release(pin, slot, 0)
            return None
        pixels = None
        if record.has_pixels:
            pixels = plane_array(
                self._memory, answer_base(self.layout, slot), self.layout.frame_planes["pixels"]
            )
        return TakenAnswer(pin, slot, record, pixels)

    def release(self, taken: TakenAnswer) -> bool:
        return self._answers.release(taken.pin, taken.slot, taken.record.sequence)


class HostRing:
    """The host's side of a segment."""

    def __init__(self, segment: Segment) -> None:
        self.layout: Layout = segment.layout
        self.generation = segment.generation
        self.segment = segment
        self._memory = segment.memory
        self.words = Words(segment.memory, game=False)
        self._frames = LaneReader(self.words, segment.memory, 0, self.layout.frame_slots)
        self._answers = LaneWriter(
            self.words, segment.memory, self.layout.frame_slots, self.layout.answer_slots
        )

    @property
    def faults(self) -> int:
        return self._frames.faults

    def waiting(self) -> int:
        """The sequence number of an untaken frame, 0 if there is none."""
        return self._frames.waiting()

    def take(self) -> TakenFrame | None:
        """Pin the newest frame if it is new and sound."""
        taken = self._frames.take()
        if taken is None:
            return None
        pin, slot, data = taken
        try:
            record = FrameRecord.unpack(data)
            if record.generation != self.generation or record.slot != slot:
                raise ProtocolError("a frame's record names another slot")
        except ProtocolError:
            self._frames.faults += 1
            self._frames.release(pin, slot, 0)
            return None
        base = frame_base(self.layout, slot)
        planes = {name: plane_array(self._memory, base, at) for name, at in self.layout.frame_planes.items()}
        return TakenFrame(pin, slot, record, planes)

    def put_back(self, taken: TakenFrame) -> None:
        """Unpin a frame as if it had not been taken."""
        self._frames.release(taken.pin, taken.slot, taken.record.sequence)
        self._frames.forget(taken.record.sequence)

    def release(self, taken: TakenFrame) -> bool:
        return self._frames.release(taken.pin, taken.slot, taken.record.sequence)

    def begin(self) -> tuple[int, Array] | None:
        """A slot to write an answer into: (slot, pixels)."""
        slot = self._answers.begin()
        if slot is None:
            return None
        base = answer_base(self.layout, slot)
        return slot, plane_array(self._memory, base, self.layout.frame_planes["pixels"])

    def cancel(self, slot: int) -> None:
        self._answers.cancel(slot)

    def address(self) -> dict[str, Any]:
        """Where the game finds the memory."""
        return self.segment.address()

    def unname(self) -> None:
        """Take away the way in, once the game is in."""
        self.segment.unname()

    def receive(self, tag: bytes, parts: Sequence[bytes | memoryview]) -> None:
        """A doorbell woke us; what it announces stands in shared memory."""
        if tag != TAG_DOORBELL:
            raise ProtocolError("a message of an unknown tag")

    def publish(self, slot: int, record: AnswerRecord) -> list[Any]:
        """Publish an answer and return its doorbell as a message; empty where nobody sleeps."""
        data = record.at(slot, self._answers.next_sequence(), self.generation).pack()
        self._answers.publish(slot, data)
        self.words.advance()
        return [TAG_DOORBELL, data] if self.words.peer_asleep() else []

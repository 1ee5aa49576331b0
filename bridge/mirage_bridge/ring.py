"""One direction of the ring: a writer that never waits and a reader that pins (PROTOCOL §7).

Frames go through a lane from game to host, answers through a lane from host to game; both lanes are this
code. Every shared word has one writer.  The only race is the reader's "pin, then look whether it is still the
newest" against the writer's "publish a newer one, then look what is pinned"; `fence` between the two halves
on both sides decides it (PROTOCOL §7.4 says why).
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np

from .protocol import (
    CONTROL_BYTES,
    CONTROL_OFFSET,
    GAME_LINE,
    HOST_LINE,
    PINS,
    RECORD_BYTES,
    SLOT_HEADER_BYTES,
    SLOT_RECORD_OFFSET,
    SLOTS_OFFSET,
    STATE_PINNED,
    STATE_READY,
    STATE_WRITING,
    WORD_ASLEEP,
    WORD_NEWEST,
    WORD_PIN,
    WORD_PROGRESS,
    Layout,
    PlaneLayout,
)

__all__ = ["LaneReader", "LaneWriter", "Words", "answer_base", "fence", "frame_base", "plane_array"]

_fence_lock = threading.Lock()
_acquire, _release, _lock = _fence_lock.acquire, _fence_lock.release, threading.Lock

#: How often a reader chases a writer that publishes under it before it says "nothing yet".
_CHASES: Final = 8


def fence() -> None:
    """A full memory barrier: no load or store moves across it, on x86 or on ARM.

    Python offers none by name.  Taking a lock is an acquire, giving it back a release, and either is an
    atomic operation on one word; two rounds make a release followed by an acquire, across which nothing moves
    in either direction (PROTOCOL §7.4).  70 ns.

    Nobody waits: a signal's handler may raise between two of these calls, a thread or a forked child may find the lock
    taken, and then a lock of its own does as well.
    """
    if _acquire(False):
        _release()
        if _acquire(False):
            _release()
            return
    own = _lock()
    for _ in range(2):
        own.acquire()
        own.release()


class Words:
    """The control page as aligned 8-byte words: each access is one machine load or store."""

    def __init__(self, memory: memoryview, game: bool) -> None:
        page = memory[CONTROL_OFFSET : CONTROL_OFFSET + CONTROL_BYTES].cast("Q")
        game_line, host_line = GAME_LINE // 8, HOST_LINE // 8
        self._page = page
        self._own, self._peer = (game_line, host_line) if game else (host_line, game_line)
        self._progress = page[self._own + WORD_PROGRESS]

    def advance(self) -> None:
        """Show the peer that this side is alive and at work."""
        self._progress = (self._progress + 1) & 0xFFFFFFFFFFFFFFFF
        self._page[self._own + WORD_PROGRESS] = self._progress

    def peer_progress(self) -> int:
        return self._page[self._peer + WORD_PROGRESS]

    def set_asleep(self, asleep: bool) -> None:
        """Ask for doorbells, or for none.  Look once more at what the peer published after a `fence`."""
        self._page[self._own + WORD_ASLEEP] = asleep

    def peer_asleep(self) -> bool:
        """Whether the peer needs a doorbell to see what was published before the last `fence`."""
        return self._page[self._peer + WORD_ASLEEP] != 0

    def set_newest(self, word: int) -> None:
        self._page[self._own + WORD_NEWEST] = word

    def peer_newest(self) -> int:
        return self._page[self._peer + WORD_NEWEST]

    def set_pin(self, index: int, word: int) -> None:
        self._page[self._own + WORD_PIN + index] = word

    def peer_pinned(self) -> set[int]:
        """The slots the peer has pinned; whatever a lying peer writes there, at most `PINS` of them."""
        base = self._peer + WORD_PIN
        return {(self._page[base + index] & 0xFF) - 1 for index in range(PINS)}


class LaneWriter:
    """Writes slots and publishes them; never takes the newest one nor a pinned one."""

    def __init__(self, words: Words, memory: memoryview, first_slot: int, slots: int) -> None:
        self._words = words
        self._headers = _headers(memory, first_slot, slots)
        self._states = [header[:8].cast("Q") for header in self._headers]
        self._slots = slots
        self._newest = -1
        self._writing: set[int] = set()
        self.sequence = 0

    def begin(self) -> int | None:
        """Take a slot to write into (W1-W3); None if the peer's pins and one's own writes leave none."""
        fence()  # W1: our newest is out before we look at the pins
        pinned = self._words.peer_pinned()
        for step in range(1, self._slots + 1):
            slot = (self._newest + step) % self._slots
            if slot != self._newest and slot not in pinned and slot not in self._writing:
                self._states[slot][0] = self.sequence << 8 | STATE_WRITING
                fence()  # W3: marked before the first pixel
                self._writing.add(slot)
                return slot
        return None

    def cancel(self, slot: int) -> None:
        """Give a slot back unpublished; its pixels belong to nobody."""
        self._writing.discard(slot)
        self._states[slot][0] = 0

    def next_sequence(self) -> int:
        return self.sequence + 1

    def publish(self, slot: int, record: bytes) -> None:
        """Make ``slot`` the newest (W4-W6); ``record`` must carry `next_sequence`."""
        self.sequence += 1
        self._headers[slot][SLOT_RECORD_OFFSET : SLOT_RECORD_OFFSET + RECORD_BYTES] = record
        self._states[slot][0] = self.sequence << 8 | STATE_READY
        fence()  # W5: pixels, record and state are out before the word that announces them
        self._writing.discard(slot)
        self._newest = slot
        self._words.set_newest(self.sequence << 8 | slot)
        fence()  # W6: announced before we look whether the reader sleeps

    def state(self, slot: int) -> int:
        """`STATE_FREE`, `STATE_WRITING`, `STATE_READY` or `STATE_PINNED`, as this side sees it."""
        if slot in self._words.peer_pinned():
            return STATE_PINNED
        return self._states[slot][0] & 0xFF


class LaneReader:
    """Pins the newest slot for as long as it is looked at; takes nothing twice and nothing out of order."""

    def __init__(self, words: Words, memory: memoryview, first_slot: int, slots: int) -> None:
        self._words = words
        self._headers = _headers(memory, first_slot, slots)
        self._states = [header[:8].cast("Q") for header in self._headers]
        self._slots = slots
        self._free_pins = list(range(PINS))
        self._last = 0
        self.faults = 0

    def waiting(self) -> int:
        """The sequence number of an untaken newest slot, 0 if there is none."""
        word = self._words.peer_newest()
        sequence = word >> 8
        return sequence if sequence > self._last and (word & 0xFF) < self._slots else 0

    def pins_left(self) -> int:
        return len(self._free_pins)

    def take(self) -> tuple[int, int, bytes] | None:
        """Pin the newest slot (R1-R5): (pin, slot, record bytes), or None if nothing new can be taken.

        The record is a private copy; it is the caller's to unpack and check.
        """
        if not self._free_pins:
            return None
        pin = self._free_pins[-1]
        for _ in range(_CHASES):
            word = self._words.peer_newest()
            sequence, slot = word >> 8, word & 0xFF
            if sequence <= self._last:
                break
            if slot >= self._slots:
                self.faults += 1
                break
            self._words.set_pin(pin, sequence << 8 & 0xFFFFFFFFFFFFFFFF | slot + 1)
            fence()  # R3: the pin is out before we look again
            if self._words.peer_newest() != word:
                continue
            if self._states[slot][0] != sequence << 8 | STATE_READY:
                self.faults += 1  # only a peer that breaks the protocol gets here, and is not looked at again for this
                self._last = sequence
                break
            self._free_pins.pop()
            record = bytes(self._headers[slot][SLOT_RECORD_OFFSET : SLOT_RECORD_OFFSET + RECORD_BYTES])
            self._last = sequence
            return pin, slot, record
        self._words.set_pin(pin, 0)
        return None

    def forget(self, sequence: int) -> None:
        """Let the slot of ``sequence`` be taken once more."""
        self._last = min(self._last, sequence - 1)

    def release(self, pin: int, slot: int, sequence: int) -> bool:
        """Unpin (R6-R7).  False if the peer wrote to the slot meanwhile, which only a broken one does."""
        intact = self._states[slot][0] == sequence << 8 | STATE_READY
        fence()  # R7: every look at the pixels is over before the pin goes
        self._words.set_pin(pin, 0)
        self._free_pins.append(pin)
        self.faults += not intact
        return intact


def plane_array(memory: memoryview, base: int, plane: PlaneLayout) -> np.ndarray[Any, np.dtype[Any]]:
    """The array of a plane whose slot starts at byte ``base`` of ``memory``."""
    start = base + plane.offset
    # A slice of the memory, so that numpy itself refuses strides that lead outside the plane.
    buffer = memory[start : start + plane.size_bytes]
    return np.ndarray(plane.shape, plane.dtype, buffer, 0, plane.strides)


def frame_base(layout: Layout, slot: int) -> int:
    """Byte offset of a frame slot's pixels in the segment; ``slot`` is checked."""
    if not 0 <= slot < layout.frame_slots:
        raise IndexError(slot)
    return layout.frames_offset + slot * layout.frame_slot_bytes


def answer_base(layout: Layout, slot: int) -> int:
    """Byte offset of an answer slot's pixels in the segment; ``slot`` is checked."""
    if not 0 <= slot < layout.answer_slots:
        raise IndexError(slot)
    return layout.answers_offset + slot * layout.answer_slot_bytes


def _headers(memory: memoryview, first_slot: int, slots: int) -> list[memoryview]:
    start = SLOTS_OFFSET + first_slot * SLOT_HEADER_BYTES
    return [
        memory[start + index * SLOT_HEADER_BYTES : start + (index + 1) * SLOT_HEADER_BYTES]
        for index in range(slots)
    ]

"""The lanes: what is written is read whole, in order, newest first, at any speed of either side."""

from __future__ import annotations

import base64
import json
import random
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mirage_bridge.memory import Segment
from mirage_bridge.protocol import (
    GAME_LINE,
    PINS,
    STATE_FREE,
    STATE_PINNED,
    STATE_READY,
    STATE_WRITING,
    FrameRecord,
    Layout,
    Offer,
)
from mirage_bridge.ring import LaneReader, LaneWriter, Words, answer_base, frame_base, plane_array
from tests.bridge.conftest import LONG, Spawn
from tests.bridge.events import Events


def record(slot: int, sequence: int) -> bytes:
    return FrameRecord(slot, 1, sequence, sequence, 0, 0, 0, 1, 0, 1, 1.0).pack()


class Lanes(RuleBasedStateMachine):
    """Any order of begin, publish, cancel, take and release, against a model of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.segment = Segment.create(Layout.of(Offer(size=(8, 8))), 1, "memfd")
        memory = self.segment.memory
        self.writer = LaneWriter(Words(memory, game=True), memory, 0, 4)
        self.reader = LaneReader(Words(memory, game=False), memory, 0, 4)
        self.writing: int | None = None
        self.newest: tuple[int, int] | None = None
        self.taken = 0
        self.pinned: dict[int, tuple[int, int]] = {}

    @precondition(lambda self: self.writing is None)
    @rule()
    def begin(self) -> None:
        slot = self.writer.begin()
        assert slot is not None  # 4 slots: there always is one
        assert slot not in {held for held, _ in self.pinned.values()}
        assert self.newest is None or slot != self.newest[0]
        self.writing = slot

    @precondition(lambda self: self.writing is not None)
    @rule()
    def publish(self) -> None:
        assert self.writing is not None
        sequence = self.writer.next_sequence()
        self.writer.publish(self.writing, record(self.writing, sequence))
        self.newest, self.writing = (self.writing, sequence), None

    @precondition(lambda self: self.writing is not None)
    @rule()
    def cancel(self) -> None:
        assert self.writing is not None
        self.writer.cancel(self.writing)
        assert self.writer.state(self.writing) == STATE_FREE
        self.writing = None

    @rule()
    def take(self) -> None:
        got = self.reader.take()
        expected = self.newest is not None and self.newest[1] > self.taken and len(self.pinned) < PINS
        assert (got is not None) == expected
        if got is not None and self.newest is not None:
            pin, slot, data = got
            assert (slot, FrameRecord.unpack(data).sequence) == self.newest
            self.taken = self.newest[1]
            self.pinned[pin] = self.newest

    @precondition(lambda self: self.pinned)
    @rule(which=st.booleans())
    def release(self, which: bool) -> None:
        pin = (min if which else max)(self.pinned)
        assert self.reader.release(pin, *self.pinned.pop(pin))

    @invariant()
    def states_are_what_they_should(self) -> None:
        for slot, _ in self.pinned.values():
            assert self.writer.state(slot) == STATE_PINNED
        if self.writing is not None:
            assert self.writer.state(self.writing) == STATE_WRITING
        if self.newest is not None and self.newest not in self.pinned.values():
            assert self.writer.state(self.newest[0]) == STATE_READY
        assert self.reader.faults == 0


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=2000 if LONG else 40, stateful_step_count=60)


def test_the_race_between_two_processes_tears_nothing(spawn: Spawn) -> None:
    """The writer fills slots as fast as it can while the reader pins two of them most of the time."""
    size, seconds = (256, 64), 120.0 if LONG else 2.0
    layout = Layout.of(Offer(size=size))
    segment = Segment.create(layout, 1, "memfd")
    address = segment.address() | {"token": base64.b64encode(segment.token).decode(), "size": size}
    reader = Events(spawn("lane_reader.py", json.dumps(address), seconds))
    reader.named("attached")
    lane = LaneWriter(Words(segment.memory, game=True), segment.memory, 0, layout.frame_slots)
    planes = [
        plane_array(segment.memory, frame_base(layout, slot), layout.frame_planes["pixels"])
        for slot in range(4)
    ]
    end_s = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end_s:
        slot = lane.begin()
        assert slot is not None
        number += 1
        planes[slot][...] = number & 255
        lane.publish(slot, record(slot, number))
    done = reader.named("done", timeout_s=seconds + 20)
    print(f"{number} written, {done['taken']} read")
    assert done["taken"] > 100
    assert (done["torn"], done["disorder"], done["faults"]) == (0, 0, 0)


def test_whatever_stands_in_the_peers_words_one_can_write_and_read_on() -> None:
    """A lying peer cannot lead the other out of its slots, nor starve it."""
    segment = Segment.create(Layout.of(Offer(size=(8, 8))), 1, "memfd")
    rng = random.Random(5)
    writer = LaneWriter(Words(segment.memory, game=True), segment.memory, 0, 4)
    reader = LaneReader(Words(segment.memory, game=True), segment.memory, 4, 5)
    for _ in range(20_000 if LONG else 2000):
        segment.memory[4096 + 512 : 4096 + 576] = rng.randbytes(64)
        segment.memory[8192 : 8192 + 9 * 256] = rng.randbytes(9 * 256)
        slot = writer.begin()
        assert slot is not None
        assert 0 <= slot < 4
        writer.publish(slot, record(slot, writer.next_sequence()))
        got = reader.take()
        if got is not None:
            assert 0 <= got[1] < 5
            reader.release(got[0], got[1], 0)
    assert GAME_LINE == 0


def test_slots_out_of_range_raise() -> None:
    layout = Layout.of(Offer(size=(8, 8)))
    for slot in (-1, layout.frame_slots):
        with pytest.raises(IndexError):
            frame_base(layout, slot)
    for slot in (-1, layout.answer_slots):
        with pytest.raises(IndexError):
            answer_base(layout, slot)

"""Host and game in one process: what one does while the other has not answered yet."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mirage_bridge as mb
from mirage_bridge import memory
from mirage_bridge.protocol import FrameRecord, ProtocolError

Step = Callable[[], bool]


class Ends:
    """A host that answers every frame with 200, and a game, played by turns."""

    def __init__(self, endpoint: str, **offer: Any) -> None:
        self.asked: list[tuple[tuple[int, int], mb.HostSession | None]] = []
        self.refused = ""
        self.host = mb.Host(endpoint, capabilities=mb.Capabilities(min_size=(1, 1)), admit=self.admit)
        self.session = mb.Session(endpoint, **{"size": (64, 48), "planes": (), "budget_ms": 5000.0} | offer)

    def admit(self, offer: mb.Offer, asking: mb.HostSession | None) -> mb.Admission | str:
        self.asked.append((offer.size, asking))
        return self.refused or mb.Admission()

    def serve(self) -> None:
        self.host.poll(0.0)
        for session in tuple(self.host.sessions.values()):
            if (job := session.take_newest()) is not None:
                draft = session.begin_answer(job)
                draft.pixels[...] = 200
                session.publish(draft)

    def until(self, done: Step, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, (self.session.state, self.session.refusal)
            self.serve()
            self.session.wait_ready(0.002)

    def frame(self) -> mb.Answer:
        drawn = self.session.begin_frame()
        drawn.pixels[...] = 7
        frame_id = self.session.end_frame(drawn)
        self.serve()
        return self.session.wait_answer(frame_id, 0.01)

    def answered(self) -> bool:
        with self.frame() as answer:
            return answer.answered and bool((np.asarray(answer.pixels)[..., 0] == 200).all())

    def close(self) -> None:
        self.session.close()
        self.host.close()


@pytest.fixture
def ends(endpoint: str) -> Iterator[Ends]:
    both = Ends(endpoint)
    yield both
    both.close()


@pytest.mark.parametrize("change", ["style", "size", "format", "colour space"])
def test_what_changes_before_the_welcome_is_what_is_served(ends: Ends, change: str) -> None:
    """A sidecar that warms up for seconds answers the hello of before."""
    session = ends.session
    session.wait_ready(0.3)
    assert session.state == "connecting"
    {
        "style": lambda: session.set_style("ink"),
        "size": lambda: session.resize((96, 64)),
        "format": lambda: session.renegotiate(pixel_format="BGRA8"),
        "colour space": lambda: session.renegotiate(color_space="linear"),
    }[change]()
    session.wait_ready(0.1)
    ends.until(ends.answered)
    (served,) = ends.host.sessions.values()
    assert (served.style, served.style_epoch) == (("ink", 2) if change == "style" else ("snow", 1))
    assert served.offer.to_wire()["size"] == list(session._offer.size)
    assert served.offer.pixel_format == session._offer.pixel_format
    assert served.offer.color_space == session._offer.color_space


def test_a_game_that_resizes_is_not_counted_against_itself(ends: Ends) -> None:
    ends.until(ends.answered)
    ends.session.resize((96, 64))
    ends.until(ends.answered)
    (served,) = ends.host.sessions.values()
    assert ends.asked == [((64, 48), None), ((96, 64), served)]


def test_a_resize_that_was_refused_is_asked_again(ends: Ends) -> None:
    ends.until(ends.answered)
    ends.refused = "no room beside another game"
    ends.session.resize((96, 64))
    ends.until(lambda: ends.session.refusal == "no room beside another game")
    assert ends.session.state == "refused"
    ends.refused = ""
    ends.until(ends.answered)
    assert (ends.session.state, ends.session.refusal) == ("ready", None)


@pytest.mark.parametrize("delivery", ["newest", "locked"])
def test_no_answer_has_another_size_than_the_frame(endpoint: str, delivery: str) -> None:
    ends = Ends(endpoint, delivery=delivery)
    ends.until(ends.answered)
    ends.session.resize((32, 96))
    drawn = ends.session.begin_frame()
    drawn.pixels[...] = 7
    # The host has not heard of it yet.
    with ends.session.wait_answer(ends.session.end_frame(drawn), 0.01) as answer:
        assert answer.pixels.shape == (96, 32, 4)
        assert (np.asarray(answer.pixels) == 7).all()
    ends.close()


def test_two_resizes_while_the_host_stands_still_keep_the_memory_they_had(ends: Ends) -> None:
    ends.until(ends.answered)
    (served,) = ends.host.sessions.values()
    kind = served._memory_kind
    for size, seconds in (((96, 64), 0.1), ((128, 64), 1.3)):
        ends.session.resize(size)
        end = time.monotonic() + seconds
        while time.monotonic() < end:  # until what was not acknowledged is sent again
            ends.session.poll_answer().release()
    ends.until(ends.answered)
    assert (served.offer.size, served._memory_kind) == ((128, 64), kind)


@pytest.mark.parametrize(
    "style", [{"style": "snow", "regions": {2: "ink"}}, {"palette": list(range(9000))}], ids=["a number", "a long list"]
)
def test_a_style_that_the_host_would_drop_is_refused_at_once(ends: Ends, style: Any) -> None:
    ends.until(ends.answered)
    with pytest.raises(ValueError, match="style"):
        ends.session.set_style(style)
    assert ends.answered()
    with pytest.raises(ValueError, match="style"):
        mb.Session(ends.session.endpoint, style=style)


def test_lists_will_do_for_a_size_and_planes(ends: Ends) -> None:
    ends.until(ends.answered)
    ends.session.renegotiate(size=[32, 16], planes=["depth"])
    drawn = ends.session.begin_frame()
    assert drawn.depth is not None
    assert drawn.pixels.shape == (16, 32, 4)


def test_a_word_that_names_no_frame_is_looked_at_once(ends: Ends) -> None:
    ends.until(ends.answered)
    (served,) = ends.host.sessions.values()
    assert ends.session._ring is not None
    ends.session._ring.words.set_newest(10_000 << 8)  # type: ignore[union-attr]
    assert served.take_newest() is None
    before = served._ring.faults  # type: ignore[union-attr]
    assert served.take_newest() is None
    assert served._ring.faults == before  # type: ignore[union-attr]


def test_a_paused_game_keeps_its_place_for_as_long_as_it_is_there() -> None:
    host = mb.Host("tcp://127.0.0.1:*", capabilities=mb.Capabilities(min_size=(1, 1)))
    session = mb.Session(host.endpoint, size=(32, 32), planes=())
    end = time.monotonic() + 30
    while not host.sessions:
        assert time.monotonic() < end
        host.poll(0.01)
        session.wait_ready(0.01)
    session.pause()
    while not next(iter(host.sessions.values())).paused:
        assert time.monotonic() < end
        host.poll(0.01)
        session.wait_ready(0.01)
    later = time.monotonic_ns() + 3600_000_000_000
    host._upkeep(later)
    assert len(host.sessions) == 1
    session._socket.close(0)  # type: ignore[union-attr]  # it dies without a word
    session._socket = None
    while host.sessions:
        assert time.monotonic() < end
        host.poll(0.01)
        host._upkeep(later)
    session.close()
    host.close()


def test_times_that_cannot_be_are_unknown_and_lose_no_frame() -> None:
    record = FrameRecord(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0.5)
    odd = FrameRecord.unpack(replace(record, input_ns=2**64 - 1, captured_ns=2**63).pack())
    assert (odd.input_ns, odd.captured_ns) == (0, 0)
    for field in ("frame_id", "published_ns"):
        with pytest.raises(ProtocolError):
            FrameRecord.unpack(replace(record, **{field: 2**63}).pack())


def test_memory_that_is_not_there_is_said_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on a full tmpfs can be made as long as one likes: who draws into it dies."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = set(memory.file_directory().glob("mirage-*"))
    with pytest.raises(mb.SegmentError, match="No space"):
        memory.Segment.create(memory.Layout.of(mb.Offer(size=(64, 64))), 1, "file")
    assert set(memory.file_directory().glob("mirage-*")) <= before

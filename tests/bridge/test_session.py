"""A game and a sidecar, each in its own process, as they meet, part and quarrel."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mirage_bridge as mb
from mirage_bridge import ring as ring_module
from mirage_bridge.channel import HostRing
from mirage_bridge.errors import SegmentError
from mirage_bridge.memory import Segment
from mirage_bridge.protocol import WORD_PIN, pack_control
from tests.bridge.conftest import Spawn, shm_names
from tests.bridge.events import Events


def start_host(spawn: Spawn, endpoint: str, **options: Any) -> Events:
    host = Events(spawn("echo_host.py", endpoint, json.dumps(options)))
    host.named("ready")
    return host


def play(session: mb.Session, value: int, **how: Any) -> mb.Answer:
    """One frame filled with ``value``, and what came back (not released)."""
    frame = session.begin_frame()
    frame.pixels[...] = value
    return session.wait_answer(session.end_frame(frame, **how))


def play_until_answered(session: mb.Session, value: int = 3, timeout_s: float = 10.0) -> mb.Answer:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        answer = play(session, value)
        if answer.answered:
            return answer
        answer.release()
        session.wait_ready(0.01)
    raise AssertionError(f"no answer: {session.state} {session.refusal} {session.stats()}")


def test_without_a_sidecar_the_game_plays(endpoint: str) -> None:
    with mb.Session(endpoint, size=(64, 36)) as session:
        assert session.state == "offline"
        for number in range(1, 4):
            frame = session.begin_frame()
            assert not frame.in_shared_memory
            assert frame.pixels.shape == (36, 64, 4)
            assert frame.depth is not None
            assert frame.motion is not None
            assert (frame.depth.shape, frame.motion.shape) == ((36, 64), (36, 64, 2))
            frame.pixels[...] = number
            before_s = time.monotonic()
            with session.wait_answer(session.end_frame(frame)) as answer:
                assert time.monotonic() - before_s < 0.5
                assert not answer.answered
                assert (answer.kind, answer.frame_id, answer.reason) == ("source", number, "no sidecar")
                assert (np.asarray(answer.pixels) == number).all()
        assert session.stats() == mb.SessionStats(frames_offline=3)


def test_a_hang_ends_a_long_wait(endpoint: str, spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirage_bridge.session.STALL_NS", 100_000_000)
    host = start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), budget_ms=30_000) as session:
        play_until_answered(session).release()
        host.process.send_signal(signal.SIGSTOP)
        before_s = time.monotonic()
        for late_move in (0, 1):
            frame = session.begin_frame()
            number = session.end_frame(frame)
            # As if the last thing that it did for the frame before had come after this one.
            session._seen_progress -= late_move
            with session.wait_answer(number) as answer:
                assert answer.reason == "the sidecar does not move"
        assert time.monotonic() - before_s < 5
        host.process.send_signal(signal.SIGCONT)
        play_until_answered(session).release()


@pytest.mark.parametrize("memory", ["memfd", "file"])
def test_frames_come_back_restyled(endpoint: str, spawn: Spawn, memory: str) -> None:
    start_host(spawn, endpoint, memory=memory)
    with mb.Session(endpoint, size=(161, 89), budget_ms=5000) as session:
        assert session.wait_ready(10)
        assert session.host_info == {"tier": "echo"}
        for value in range(50):
            with play(session, value, input_ns=5, camera_cut=value == 7) as answer:
                assert answer.answered
                assert answer.kind == "styled"
                assert (answer.edit_age_frames, answer.working_size, answer.style_epoch) == (0, (161, 89), 1)
                assert 0 < answer.service_ns < 5e9
                assert (np.asarray(answer.pixels) == 255 - value).all()
                with pytest.raises(ValueError, match="read-only"):
                    answer.pixels[0, 0] = 0
        assert session.stats().styled == 50


FORMATS = [("RGBA8", "uint8", (36, 64, 4)), ("BGRA8", "uint8", (36, 64, 4)), ("RGB8", "uint8", (36, 64, 3)),
           ("RGB10A2", "uint32", (36, 64)), ("RGBA16F", "float16", (36, 64, 4))]  # fmt: skip


@pytest.mark.parametrize(("name", "dtype", "shape"), FORMATS)
def test_every_format_and_pitch_crosses(
    endpoint: str, spawn: Spawn, name: str, dtype: str, shape: tuple[int, ...]
) -> None:
    start_host(spawn, endpoint)
    rng = np.random.default_rng(1)
    picture = (
        rng.random(shape).astype(dtype) if dtype == "float16" else rng.integers(0, 255, shape).astype(dtype)
    )
    expected = 1 - picture if dtype == "float16" else ~picture
    for pitch in (0, 64 * 8 + 64):
        with mb.Session(
            endpoint, (64, 36), name, planes=(), row_pitch_bytes=pitch, budget_ms=5000
        ) as session:
            assert session.wait_ready(10), session.refusal
            frame = session.begin_frame()
            assert frame.pixels.dtype == dtype
            frame.pixels[...] = picture
            with session.wait_answer(session.end_frame(frame)) as answer:
                assert answer.answered
                np.testing.assert_array_equal(np.asarray(answer.pixels), expected)


def test_views_end_with_their_frame_and_answer(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), budget_ms=5000) as session:
        assert session.wait_ready(10)
        frame = session.begin_frame()
        pixels, row = frame.pixels, frame.pixels[3]
        pixels[...] = 1
        answer = session.wait_answer(session.end_frame(frame))
        for use in (lambda: pixels[0], lambda: row.sum(), lambda: frame.pixels):
            with pytest.raises(mb.LeaseError):
                use()
        shown = answer.pixels
        assert shown.sum() > 0
        answer.release()
        answer.release()
        for use in (lambda: shown[0], lambda: answer.pixels):
            with pytest.raises(mb.LeaseError):
                use()
        with pytest.raises(mb.LeaseError, match="already ended"):
            session.end_frame(frame)
        # Answers that are never released do not starve the game: the oldest is taken back.
        kept = [play_until_answered(session) for _ in range(6)]
        with pytest.raises(mb.LeaseError):
            kept[0].pixels.sum()
        assert (np.asarray(kept[-1].pixels) == 252).all()
    with pytest.raises(mb.LeaseError):
        kept[-1].pixels.sum()


def test_resize_in_mid_stream_keeps_the_session(endpoint: str, spawn: Spawn) -> None:
    host = start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), budget_ms=5000) as session:
        play_until_answered(session).release()
        for size in ((641, 359), (8, 8), (320, 200)):
            session.resize(size)
            with play_until_answered(session, 9) as answer:
                assert answer.pixels.shape == (size[1], size[0], 4)
                assert (np.asarray(answer.pixels) == 246).all()
            assert host.named("Resized")["size"] == list(size)
        session.renegotiate(pixel_format="RGB8", planes=())
        with play_until_answered(session, 9) as answer:
            assert answer.pixels.shape == (200, 320, 3)
        assert session.stats().reconnects == 0


def test_a_size_the_host_refuses_is_said_and_can_be_mended(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), budget_ms=5000) as session:
        play_until_answered(session).release()
        session.resize((8000, 8000))
        end_s = time.monotonic() + 10
        while session.state != "refused" and time.monotonic() < end_s:
            play(session, 1).release()
        assert session.refusal is not None
        assert "8000x8000" in session.refusal
        assert "7680x4320" in session.refusal
        session.resize((128, 64))
        play_until_answered(session).release()
        assert session.state == "ready"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc: run it on Linux")
@pytest.mark.parametrize("memory", ["memfd", "file"])
def test_nothing_leaks_over_resizes_and_sessions(endpoint: str, spawn: Spawn, memory: str) -> None:
    """Descriptors, mappings and names of both sides are what they were."""
    host = start_host(spawn, endpoint, memory=memory)
    names = shm_names()

    def state() -> tuple[int, ...]:
        gc.collect()
        pids = (os.getpid(), host.process.pid)
        maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pids]
        shared = [text.count("memfd:mirage") + text.count("/dev/shm/mirage-") for text in maps]
        return (*shared, *(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids))

    def round_trip() -> None:
        with mb.Session(endpoint, size=(64, 36), budget_ms=5000) as session:
            for size in ((64, 36), (128, 72), (32, 18)):
                session.resize(size)
                play_until_answered(session).release()
        host.named("SessionClosed")

    round_trip()
    before = state()
    for _ in range(8):
        round_trip()
    after = state()
    # A socket's last descriptor may take ZeroMQ's reaper a moment: a leak would be eight of them.
    assert all(now <= then + 2 for now, then in zip(after, before, strict=True)), (before, after)
    # This process may hold segments of earlier tests; the host's is its own.
    assert after[0] <= before[0]
    assert after[1] == 0
    assert shm_names() == names


def test_pause_and_resume(endpoint: str, spawn: Spawn) -> None:
    host = start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), budget_ms=5000) as session:
        play_until_answered(session).release()
        session.pause()
        with play(session, 5) as answer:
            assert (answer.answered, answer.reason) == (False, "paused")
            assert (np.asarray(answer.pixels) == 5).all()
        host.named("Paused")
        session.resume()
        play_until_answered(session).release()
        host.named("Resumed")


def test_no_answer_in_an_old_style_passes_for_the_new(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), style="s1", budget_ms=5000) as session:
        play_until_answered(session).release()
        for number in range(2, 40):
            epoch = session.set_style(f"s{number}" if number % 2 else {"name": f"s{number}", "mix": [0.5]})
            assert epoch == number
            with play(session, number) as answer:
                assert answer.answered
                assert answer.style_epoch == epoch
                assert f"s{number}" in answer.reason


def test_a_refused_style_leaves_the_one_before(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), style="snow", budget_ms=5000) as session:
        play_until_answered(session).release()
        assert session.set_style("unknown") == 2
        with play(session, 1) as answer:
            assert answer.answered
            assert (answer.style_epoch, answer.reason) == (1, "snow")
        # What the host says comes on another way than its answers do, and may come behind them.
        end_s = time.monotonic() + 10
        while session.style_refusal is None and time.monotonic() < end_s:
            play(session, 1).release()
        assert session.style_refusal == "style 'unknown' is not known; use snow"
        assert session.state == "ready"
        session.set_style("rain")
        with play(session, 1) as answer:
            assert (answer.style_epoch, answer.reason) == (3, "rain")
        assert session.style_refusal is None


def test_an_unknown_first_style_is_refused_and_mended(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), style="unknown", budget_ms=5000) as session:
        assert not session.wait_ready(10)
        assert (session.state, session.refusal) == ("refused", "style 'unknown' is not known; use snow")
        with play(session, 1) as answer:
            assert answer.reason == "refused by the sidecar"
        session.set_style("snow")
        play_until_answered(session).release()


def test_newest_and_locked_delivery(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), delivery="newest", budget_ms=5000) as session:
        play_until_answered(session, 1).release()
        frame_id = session.end_frame(session.begin_frame())
        before_s = time.monotonic()
        with session.wait_answer(frame_id) as answer:
            assert time.monotonic() - before_s < 0.5
            assert answer.answered
            assert answer.frame_id <= frame_id
    with mb.Session(endpoint, size=(64, 36), delivery="locked", budget_ms=5000) as session:
        play_until_answered(session, 1).release()
        for _ in range(20):
            frame_id = session.end_frame(session.begin_frame())
            with session.wait_answer(frame_id) as answer:
                assert answer.frame_id >= frame_id - 1


def test_a_slow_sidecar_costs_the_budget_and_drops_are_counted(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint, delay_ms=60)
    with mb.Session(endpoint, size=(64, 36), budget_ms=10) as session:
        assert session.wait_ready(10)
        waits_ms = []
        for value in range(40):
            frame = session.begin_frame()
            frame.pixels[...] = value
            frame_id = session.end_frame(frame)
            before_ns = time.monotonic_ns()
            with session.wait_answer(frame_id) as answer:
                waits_ms.append((time.monotonic_ns() - before_ns) / 1e6)
                if not answer.answered:
                    assert (np.asarray(answer.pixels) == value).all()
        stats = session.stats()
        assert float(np.median(waits_ms)) < 15
        assert stats.late > 0
        assert stats.dropped > 0


def test_a_hung_sidecar_is_not_waited_for(
    endpoint: str, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirage_bridge.session.STALL_NS", 100_000_000)
    host = start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), budget_ms=50) as session:
        play_until_answered(session).release()
        host.process.send_signal(signal.SIGSTOP)
        reasons = [play(session, 1).reason for _ in range(10)]
        assert "the sidecar does not move" in reasons
        before_s = time.monotonic()
        play(session, 1).release()
        assert time.monotonic() - before_s < 0.045
        host.process.send_signal(signal.SIGCONT)
        play_until_answered(session).release()


def test_a_late_frame_may_be_the_last_answer_again(
    endpoint: str, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirage_bridge.session.STALL_NS", 60_000_000_000)
    host = start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), budget_ms=50, hold_frames=2) as session:
        with play_until_answered(session) as answer:
            shown, answered_id = np.array(answer.pixels), answer.frame_id
        host.process.send_signal(signal.SIGSTOP)
        for _ in range(2):
            with play(session, 7) as again:
                assert not again.answered
                assert (again.kind, again.reason) == ("styled", "no answer within the budget")
                assert again.frame_id == answered_id
                assert np.array_equal(np.asarray(again.pixels), shown)
        with play(session, 7) as own:
            assert own.kind == "source"
            assert (np.asarray(own.pixels) == 7).all()
        assert session.stats().late == 3
        host.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("why", ["cut", "style"])
def test_what_is_no_longer_on_the_screen_is_not_held(endpoint: str, spawn: Spawn, why: str) -> None:
    host = start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), budget_ms=50, hold_frames=2) as session:
        play_until_answered(session).release()
        host.process.send_signal(signal.SIGSTOP)
        if why == "style":
            session.set_style("ink")
        frame = session.begin_frame()
        frame.pixels[...] = 7
        with session.wait_answer(session.end_frame(frame, camera_cut=why == "cut")) as own:
            assert (np.asarray(own.pixels) == 7).all()
        host.process.send_signal(signal.SIGCONT)


def test_two_games_at_once_see_their_own_frames(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    games = [
        Events(spawn("game.py", endpoint, json.dumps({"frames": 100, "budget_ms": 2000}))) for _ in range(3)
    ]
    for game in games:
        done = game.named("done", timeout_s=60)
        frames = [event for event in game.seen if event["event"] == "frame"]
        assert len(frames) == 100
        assert all(event["intact"] for event in frames)
        assert done["styled"] > 50


def test_as_many_games_as_the_host_serves_and_no_more(endpoint: str) -> None:
    with (
        mb.Host(endpoint, capabilities=mb.Capabilities(max_sessions=1)) as host,
        mb.Session(endpoint) as first,
    ):
        meet(host, first)
        with mb.Session(endpoint) as second:
            meet(host, second)
            assert second.refusal == "this sidecar already serves 1 games, which is as many as it can"


def meet(host: mb.Host, session: mb.Session) -> None:
    """Let both sides talk in one thread until the session is in or refused."""
    end_s = time.monotonic() + 10
    while session.state in ("offline", "connecting") and time.monotonic() < end_s:
        host.poll(0.005)
        session.wait_ready(0.005)
    host.poll(0.05)


@pytest.mark.parametrize(
    ("offer", "says"),
    [
        ({"pixel_format": "RGB8"}, "pixel format RGB8 is not served here; use one of RGBA8, BGRA8"),
        ({"color_space": "linear"}, "color space linear is not served here; use one of srgb"),
        ({"size": (4, 4)}, "size 4x4 is not served here; use 8x8 to 7680x4320"),
        ({"planes": ("motion",)}, "plane motion is not served here; use one of depth, mask"),
        ({"delivery": "locked"}, "delivery locked is not served here; use one of wait, newest"),
        ({"orientation": "bottom_up"}, "the floor is no ceiling"),
    ],
)
def test_what_is_not_served_is_refused_by_name(endpoint: str, offer: dict[str, Any], says: str) -> None:
    capabilities = mb.Capabilities(
        color_spaces=("srgb",), planes=("depth", "mask"), deliveries=("wait", "newest")
    )

    def admit(asked: mb.Offer, _: mb.HostSession | None) -> mb.Admission | str:
        return "the floor is no ceiling" if asked.orientation == "bottom_up" else mb.Admission()

    arguments = {"planes": ()} | offer
    with mb.Host(endpoint, capabilities, admit) as host, mb.Session(endpoint, **arguments) as session:
        meet(host, session)
        assert (session.state, session.refusal) == ("refused", says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"size": (0, 4)}, "0x4"),
        ({"size": (20000, 4)}, "20000x4"),
        ({"pixel_format": "P8"}, "use one of RGBA8, BGRA8, RGB8, RGB10A2, RGBA16F"),
        ({"planes": ("normals",)}, "use any of depth, motion, mask"),
        ({"planes": ("depth", "depth")}, "twice"),
        ({"depth": mb.DepthConvention("reversed_z")}, "near_m"),
        ({"motion": mb.MotionConvention(unit="furlongs")}, "pixels or uv"),
        ({"budget_ms": 0}, "budget"),
        ({"strength": 1.5}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"style": 7}, "name or a mapping"),
        ({"style": {"reference": b"x" * 70_000}}, "at most"),
        ({"style": {"parameters": object()}}, "maps, lists"),
        ({"row_pitch_bytes": 7}, "row pitch"),
        ({"compression": "rar"}, "none, zlib, lz4"),
    ],
)
def test_what_no_host_could_accept_raises_at_once(
    endpoint: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        mb.Session(endpoint, **arguments)


def test_another_major_version_is_refused_with_a_sentence(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mb.Host(endpoint) as host:
        monkeypatch.setattr("mirage_bridge.session.PROTOCOL_VERSION", (2, 3))
        with mb.Session(endpoint) as session:
            meet(host, session)
            assert (
                session.refusal
                == "this sidecar speaks bridge protocol 1.0, the game speaks 2.3; update the older one"
            )


def test_an_endpoint_in_use_is_said_and_a_stale_one_taken_over(endpoint: str, spawn: Spawn) -> None:
    first = start_host(spawn, endpoint)
    with pytest.raises(mb.EndpointInUseError, match="in use by another Mirage host"):
        mb.Host(endpoint)
    first.process.kill()
    first.process.wait()
    assert Path(endpoint.removeprefix("ipc://")).is_socket()
    with mb.Host(endpoint) as host, mb.Session(endpoint) as session:
        meet(host, session)
        assert session.state == "ready"
    with mb.Host("tcp://127.0.0.1:*") as host, pytest.raises(mb.EndpointInUseError, match="another port"):
        mb.Host(host.endpoint)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ipc://relative/path", "absolute"),
        ("ipc:///" + "x" * 120, "longer"),
        ("tcp://nohost", "not an address"),
        ("tcp://127.0.0.1:70000", "not an address"),
        ("udp://127.0.0.1:7000", "not an address"),
    ],
)
def test_bad_addresses_are_said(address: str, says: str) -> None:
    for make in (mb.Host, mb.Session):
        with pytest.raises(mb.EndpointError, match=says):
            make(address)


def test_a_directory_others_can_enter_is_refused(endpoint: str) -> None:
    directory = Path(endpoint.removeprefix("ipc://")).parent
    directory.chmod(0o755)
    for make in (mb.Host, mb.Session):
        with pytest.raises(mb.EndpointError, match="chmod 700"):
            make(endpoint)


def test_the_default_endpoint_is_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MIRAGE_ENDPOINT", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert mb.default_endpoint() == f"ipc://{tmp_path}/mirage/bridge"
    with mb.Host() as host:
        assert host.endpoint == mb.default_endpoint()
        assert os.stat(tmp_path / "mirage").st_mode & 0o777 == 0o700
    monkeypatch.setenv("MIRAGE_ENDPOINT", "tcp://127.0.0.1:4")
    assert mb.default_endpoint() == "tcp://127.0.0.1:4"


def test_requests(endpoint: str, spawn: Spawn) -> None:
    start_host(spawn, endpoint)
    assert mb.request(endpoint, "stats", {"a": [1, b"x"]}) == {"sessions": 0, "pid_echo": {"a": [1, b"x"]}}
    with pytest.raises(mb.RequestError, match="no request named 'nonsense'"):
        mb.request(endpoint, "nonsense")
    with pytest.raises(mb.MessageTooLargeError):
        mb.request(endpoint, "stats", {"a": b"x" * 70_000})


def test_a_request_to_nobody_times_out(endpoint: str) -> None:
    with pytest.raises(mb.RequestTimeoutError, match="mirage serve"):
        mb.request(endpoint, "stats", timeout_s=0.1)


def test_wake_ends_a_poll(endpoint: str) -> None:
    with mb.Host(endpoint) as host:
        host.wake()
        before_s = time.monotonic()
        assert host.poll(30) == []
        assert time.monotonic() - before_s < 10


def test_two_jobs_and_late_answers(endpoint: str) -> None:
    """A host may work on two frames at once; answers to a size that is gone go nowhere."""
    with mb.Host(endpoint) as host, mb.Session(endpoint, size=(64, 36), planes=()) as session:
        meet(host, session)
        (served,) = host.sessions.values()
        jobs = []
        for value in (1, 2, 3):
            frame = session.begin_frame()
            assert frame.in_shared_memory
            frame.pixels[...] = value
            session.end_frame(frame)
            jobs.append(served.take_newest())
        first, second, third = jobs
        assert third is None  # two at once
        assert first is not None
        assert second is not None
        assert (int(first.pixels[0, 0, 0]), int(second.pixels[0, 0, 0])) == (1, 2)
        drafts = [served.begin_answer(first), served.begin_answer(second)]
        assert served.publish(drafts[0], kind="reprojected", reason="é" * 40, edit_age_frames=2)
        with pytest.raises(mb.LeaseError):
            served.publish(drafts[0])
        with session.poll_answer() as answer:
            assert (answer.frame_id, answer.kind, answer.edit_age_frames) == (1, "reprojected", 2)
            assert answer.reason == "é" * 24
        session.resize((32, 32))
        while not any(isinstance(event, mb.Resized) for event in host.poll(0.05)):
            session.wait_ready(0)  # what was said before is answered first
        assert not served.publish(drafts[1])
        fourth = served.take_newest()
        assert fourth is None
        assert session.stats().reprojected == 1


def test_an_answer_without_pixels_shows_the_games_own_frame(endpoint: str) -> None:
    with mb.Host(endpoint) as host, mb.Session(endpoint, size=(64, 36), planes=()) as session:
        meet(host, session)
        (served,) = host.sessions.values()
        frame = session.begin_frame()
        frame.pixels[...] = 9
        session.end_frame(frame)
        job = served.take_newest()
        assert job is not None
        assert served.publish_source(job, "camera cut")
        with session.poll_answer() as answer:
            assert (answer.answered, answer.kind, answer.reason) == (True, "source", "camera cut")
            assert (np.asarray(answer.pixels) == 9).all()
            with pytest.raises(mb.LeaseError):
                job.pixels.sum()


def test_a_callback_that_fails_costs_its_game_alone(endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    def check_style(style: object) -> None:
        assert isinstance(style, dict)
        style["name"]

    with mb.Host(endpoint, check_style=check_style) as host:
        with mb.Session(endpoint, style={"no": "name"}) as session:
            meet(host, session)
            assert session.refusal == "the sidecar failed to judge this style; its log says why"
            assert "KeyError" in caplog.text
        with mb.Session(endpoint, style={"name": "snow"}) as session:
            meet(host, session)
            assert session.state == "ready"


def test_a_host_deletes_no_file_that_stands_at_its_address(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "s").write_text("precious")
    with pytest.raises(mb.EndpointError, match="not a socket"):
        mb.Host(f"ipc://{tmp_path}/s")
    assert (tmp_path / "s").read_text() == "precious"
    with pytest.raises(mb.EndpointError, match="cannot be made"):
        mb.Host("ipc:///proc/nowhere/s")


def test_a_busy_host_notices_a_game_that_was_killed(endpoint: str, spawn: Spawn) -> None:
    """Where a frame always waits the host never sleeps, and deaths were looked at only there."""
    with mb.Host(endpoint) as host:
        doomed = Events(spawn("game.py", endpoint, json.dumps({"pace_ms": 20})))
        end_s = time.monotonic() + 20
        while not host.sessions and time.monotonic() < end_s:
            host.poll(0.02)
        (gone,) = host.sessions.values()
        with mb.Session(endpoint, size=(64, 36), planes=()) as session:
            meet(host, session)
            os.kill(gone._pid, signal.SIGKILL)
            doomed.process.wait()
            host._sleep = lambda _ms: pytest.fail("it slept")  # type: ignore[method-assign]
            closed = []
            while not closed and time.monotonic() < end_s:
                frame = session.begin_frame()
                frame.pixels[...] = 1
                session.end_frame(frame)
                for event in host.poll(0.02):
                    closed += [event] if isinstance(event, mb.SessionClosed) else []
                (busy,) = [each for each in host.sessions.values() if each is not gone]
                job = busy.take_newest()
                if job is not None:
                    busy.publish_source(job, "busy")
        assert [event.session for event in closed] == [gone]


def test_a_sidecar_that_dies_takes_no_answer_away(endpoint: str, spawn: Spawn) -> None:
    """The game is drawing with it: its memory stays for as long as its views."""
    host = start_host(spawn, endpoint)
    with mb.Session(endpoint, size=(64, 36), planes=(), budget_ms=5000) as session:
        assert session.wait_ready(10)
        with play_until_answered(session, 5) as answer:
            host.process.kill()
            host.process.wait()
            end_s = time.monotonic() + 10
            while session.state == "ready" and time.monotonic() < end_s:
                session.wait_ready(0.01)
                session.begin_frame()
            assert session.state != "ready"
            assert (np.asarray(answer.pixels) == 250).all()


def test_a_game_that_finds_no_memory_begins_anew(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it says that it lives: what kept it out may be over, and its place is another's."""
    with mb.Host(endpoint) as host, mb.Session(endpoint, size=(64, 36), planes=()) as session:
        refuse = True

        def attach(layout: Any, address: Any, whole: Any = Segment.attach) -> Any:
            if refuse:
                raise SegmentError("no room")
            return whole(layout, address)

        monkeypatch.setattr("mirage_bridge.session.Segment.attach", attach)
        monkeypatch.setattr("mirage_bridge.host._HANDSHAKE_NS", 0)
        end_s = time.monotonic() + 20
        while session.state != "refused" and time.monotonic() < end_s:
            host.poll(0.005)
            session.wait_ready(0.005)
        assert session.state == "refused"
        refuse = False
        while session.state != "ready" and time.monotonic() < end_s:
            monkeypatch.setattr("mirage_bridge.host._HANDSHAKE_NS", 5_000_000_000 if not host._by_identity else 0)
            host.poll(0.005)
            session.wait_ready(0.005)
        assert session.state == "ready", session.refusal


def test_no_hello_ends_the_host(endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    with mb.Host(endpoint) as host, mb.Session(endpoint, size=(64, 36), planes=()) as session:
        host._hello(b"x" * 16, {"type": "hello", "protocol": deep}, "")
        meet(host, session)
        assert session.state == "ready"
        host._request = lambda *_: 1 / 0  # type: ignore[assignment,method-assign]
        assert session._send([b"C", pack_control({"type": "request", "number": 1, "name": "a", "fields": {}})])
        end_s = time.monotonic() + 10
        while "could not be handled" not in caplog.text and time.monotonic() < end_s:
            host.poll(0.02)
        assert "could not be handled" in caplog.text
        session.begin_frame()
        assert session.state == "ready"


def answered(session: mb.Session, served: mb.HostSession, value: int) -> None:
    """Let a frame be answered with a picture of one value, both sides in this thread."""
    session.end_frame(session.begin_frame())
    job = served.take_newest()
    assert job is not None
    draft = served.begin_answer(job)
    draft.pixels[...] = value
    served.publish(draft)


def test_a_forked_child_leaves_everything_to_its_parent(endpoint: str) -> None:
    with mb.Host(endpoint) as host, mb.Session(endpoint, size=(64, 36), planes=()) as session:
        meet(host, session)
        (served,) = host.sessions.values()
        answered(session, served, 7)
        with session.poll_answer() as answer:
            assert session._ring is not None
            pinned = session._ring.words._page[session._ring.words._own + WORD_PIN :][:2].tolist()
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    for use in (session.begin_frame, lambda: host.poll(0)):
                        with pytest.raises(mb.BridgeError, match="forked"):
                            use()
                    answer.release()
                    session.close()
                    host.close()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert session._ring.words._page[session._ring.words._own + WORD_PIN :][:2].tolist() == pinned != [0, 0]
            assert (np.asarray(answer.pixels) == 7).all()
        assert Path(endpoint.removeprefix("ipc://")).is_socket()


def test_a_record_that_lies_takes_no_answer_away(endpoint: str) -> None:
    with mb.Host(endpoint) as host, mb.Session(endpoint, size=(64, 36), planes=()) as session:
        meet(host, session)
        (served,) = host.sessions.values()

        answered(session, served, 7)
        with session.poll_answer() as answer:
            ring = served._ring
            assert isinstance(ring, HostRing)
            slot = ring._answers.begin()
            assert slot is not None
            ring._answers.publish(slot, b"nonsense" * 16)
            with session.poll_answer() as again:
                assert (np.asarray(again.pixels) == 7).all()
            assert (np.asarray(answer.pixels) == 7).all()
        assert session.stats().faults >= 1


def test_a_message_without_an_end_ends_the_connection(endpoint: str) -> None:
    with mb.Host(endpoint) as host, mb.Session(endpoint, size=(64, 36), planes=()) as session:
        meet(host, session)
        (served,) = host.sessions.values()
        host._router.send_multipart([served._identity, b"D", *[b""] * 1000])
        end_s = time.monotonic() + 10
        while session.state == "ready" and time.monotonic() < end_s:
            session.begin_frame()
        assert session.state != "ready"
        meet(host, session)
        assert session.state == "ready"


def test_who_has_no_descriptors_left_is_told(endpoint: str) -> None:
    """libzmq would end the process."""
    code = (
        "import os, resource, mirage_bridge as mb\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "held = []\n"
        "try:\n"
        "    while True: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: held = [os.close(fd) for fd in held[:3]]\n"
        f"try: mb.Session({endpoint!r}, size=(64, 36))\n"
        "except mb.EndpointError as error: print('said:', error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "said: no socket can be made" in said.stdout


@pytest.mark.parametrize("held", [False, True])
def test_a_fence_waits_for_nobody(held: bool) -> None:
    """Ctrl-C between its calls, another thread or a forked child may leave its lock taken."""
    if held:
        ring_module._acquire()
    try:
        for _ in range(3):
            ring_module.fence()
    finally:
        assert ring_module._fence_lock.locked() == held
        if held:
            ring_module._release()


def test_an_address_that_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(mb.EndpointError, match="cannot be looked at"):
        mb.Session(f"ipc://{tmp_path}/file/of/socket", size=(64, 36))


def test_wake_after_close_writes_nowhere(endpoint: str) -> None:
    host = mb.Host(endpoint)
    host.close()
    read, write = os.pipe()
    os.set_blocking(read, False)
    host._wake_write = write
    host.wake()
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    os.close(read)
    os.close(write)

"""The game's side: draw a frame, publish it, show an answer; never wait past a deadline, never fail."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import zmq

from . import endpoint as endpoints
from . import protocol
from .channel import Array, GameRing, TakenAnswer
from .errors import BridgeError, EndpointError, LeaseError, ProtocolError, SegmentError
from .keys import Credentials
from .memory import Segment
from .protocol import (
    IDENTITY_BYTES,
    PROTOCOL_VERSION,
    TAG_CONTROL,
    DepthConvention,
    FrameRecord,
    Layout,
    MotionConvention,
    Offer,
    pack_control,
    take,
    unpack_control,
)
from .ring import fence
from .stream import GameStream, compressions
from .views import Lease, View, guarded

__all__ = ["Answer", "Frame", "Session", "SessionStats"]

Style = str | Mapping[str, Any]

#: How long shared memory is watched before the thread sleeps on the socket: about one wake-up's worth.
SPIN_NS: Final = 100_000
#: The last stretch before a deadline is slept in small steps, for a poll counts whole milliseconds.
_NAP_S: Final = 50e-6
_HELLO_AGAIN_NS: Final = 1_000_000_000
_REFUSED_AGAIN_NS: Final = 2_000_000_000
_RESEND_NS: Final = 1_000_000_000
_ALIVE_NS: Final = 1_000_000_000
#: Without a pidfd (another machine, another PID namespace): a host that leaves a ping unanswered is lost.
_SILENCE_NS: Final = 3_000_000_000
#: A host that has not moved for so long since a frame was put before it is not waited for.
STALL_NS: Final = 100_000_000
#: How long a wait sleeps before it looks whether the sidecar still moves.
_LOOK_UP_MS: Final = 25
#: A picture older than this is not shown as the newest: a frozen sidecar must not freeze the game.
STALE_NS: Final = 250_000_000
_DRAIN: Final = 64


@dataclass(frozen=True)
class SessionStats:
    """Counts since the session began.  ``frames_offline`` were drawn into private memory and never sent.

    ``styled``, ``reprojected`` and ``source`` count answers received by kind; ``late`` counts waits that
    ended without one, ``dropped`` the frames the host passed over for newer ones, ``faults`` what broke the
    protocol.
    """

    frames: int = 0
    frames_offline: int = 0
    styled: int = 0
    reprojected: int = 0
    source: int = 0
    late: int = 0
    dropped: int = 0
    reconnects: int = 0
    faults: int = 0


class Frame:
    """A frame being drawn, from `Session.begin_frame` until `Session.end_frame`.

    ``pixels`` is writable: uint8 [H, W, 4] for RGBA8 and BGRA8, uint8 [H, W, 3] for RGB8, uint32 [H, W] for
    RGB10A2, float16 [H, W, 4] for RGBA16F.  ``depth`` is float32 [H, W], ``motion`` float16 [H, W, 2],
    ``mask`` uint8 [H, W]; each is None unless the session names that plane.  What stood in the memory before
    is undefined: write every pixel of every plane.
    """

    def __init__(
        self, planes: Mapping[str, Array], slot: int | None, ring: GameRing | GameStream | None
    ) -> None:
        self._lease = Lease("a frame")
        self._planes = {name: guarded(plane, self._lease, writable=True) for name, plane in planes.items()}
        self._source: Array | None = planes["pixels"]
        self._slot = slot
        self._ring = ring
        self._shared = ring is not None

    @property
    def in_shared_memory(self) -> bool:
        """False while there is no sidecar: the frame is private and will not be sent."""
        return self._shared

    @property
    def pixels(self) -> View:
        return self._plane("pixels")

    @property
    def depth(self) -> View | None:
        return self._plane("depth") if "depth" in self._planes else None

    @property
    def motion(self) -> View | None:
        return self._plane("motion") if "motion" in self._planes else None

    @property
    def mask(self) -> View | None:
        return self._plane("mask") if "mask" in self._planes else None

    def _plane(self, name: str) -> View:
        self._lease.check()
        return self._planes[name]

    def _end(self) -> None:
        """Let go of the memory, so that a frame somebody keeps keeps no mapping alive."""
        self._lease.end()
        self._planes = {}
        self._source = self._ring = None


class Answer:
    """Something to show, always; use it as a context manager or call `release`.

    ``pixels`` is read-only, of the frame's shape and dtype.  ``answered`` is False where no host's answer
    came in time: ``pixels`` is then the game's own last frame and ``kind`` is ``source``, or with ``hold_frames`` the
    last answer, with its kind and frame; ``reason`` says why. ``edit_age_frames`` is the age of the edit that was
    applied (0: made for this very frame); ``working_size`` is the (width, height) the net worked at;
    ``style_epoch`` is the epoch of the style in the picture, see `Session.set_style`; ``service_ns`` is the host's
    time for the frame; ``published_ns`` is when the answer stood ready (CLOCK_MONOTONIC).
    """

    def __init__(
        self,
        lease: Lease,
        pixels: Array,
        *,
        frame_id: int,
        kind: str,
        reason: str,
        answered: bool,
        style_epoch: int,
        edit_age_frames: int = 0,
        working_size: tuple[int, int] = (0, 0),
        service_ns: int = 0,
        published_ns: int = 0,
        held: _Held | None = None,
    ) -> None:
        self._lease = lease
        self._pixels: View | None = guarded(pixels, lease, writable=False)
        self._held = held
        self.frame_id = frame_id
        self.kind = kind
        self.reason = reason
        self.answered = answered
        self.style_epoch = style_epoch
        self.edit_age_frames = edit_age_frames
        self.working_size = working_size
        self.service_ns = service_ns
        self.published_ns = published_ns

    @property
    def pixels(self) -> View:
        """Read-only pixels; raises `LeaseError` after release."""
        self._lease.check()
        assert self._pixels is not None
        return self._pixels

    def release(self) -> None:
        """Give the memory back; using ``pixels`` or a slice of it raises from now on.  Safe to repeat."""
        self._lease.end()
        self._pixels = None
        held, self._held = self._held, None
        if held is not None:
            held.let_go(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _Held:
    """An answer slot pinned for whoever still looks at it: the session (to show it again) and `Answer`
    objects.
    """

    def __init__(self, ring: GameRing | GameStream, taken: TakenAnswer) -> None:
        self.ring = ring
        self.taken = taken
        self.latest = True
        self.answers: list[Answer] = []
        self.pinned = True
        self._process = os.getpid()

    def let_go(self, answer: Answer) -> None:
        if answer in self.answers:
            self.answers.remove(answer)
        self.settle()

    def settle(self) -> None:
        if self.pinned and not self.latest and not self.answers:
            self.pinned = False
            if os.getpid() == self._process:  # a forked child's copy: the pins are its parent's
                self.ring.release(self.taken)

    def retire(self) -> None:
        """Show it no more; whoever looks at it may do so to the end, for its memory stays as long as its views."""
        self.latest = False
        self.settle()

    def evict(self) -> None:
        """Take the views back from a game that forgot to release them."""
        self.latest = False
        for answer in tuple(self.answers):
            answer.release()
        self.settle()


class Session:
    """A game's connection to a sidecar, present or not.

    ``endpoint`` is ``ipc://`` or ``tcp://``; None takes ``$MIRAGE_ENDPOINT`` or this user's default.
    ``size`` is (width, height) in pixels.  ``planes`` are the optional planes the game will write.  ``style``
    is a name or a msgpack-able mapping of at most 60 KB that the bridge does not look into; ``strength`` is 0
    to 1. ``budget_ms`` is how long after `end_frame` an answer is still wanted: no wait is longer.
    ``delivery``:

    - ``wait``    `wait_answer` waits for the answer to that very frame, within its budget;
    - ``newest``  it returns at once with the newest answer there is;
    - ``locked``  it waits for the answer to the frame before: a steady frame of delay, and twice the time.

    ``hold_frames``: where no answer comes in time, the last one is given again for up to so many frames, and then the
    game's own frame: one of these between two answers is a flash. Not across a camera cut or a change of style.

    ``compression`` (``none``, ``zlib``, ``lz4``) packs the pixels of frames and answers that go over tcp.  An
    address on another machine needs `keys.Credentials`; None looks them up in the key directory.

    The constructor never blocks, and an absent sidecar is no error: frames are drawn into private memory and
    shown as they are, and every call looks, without waiting, whether a sidecar has come.  Raises `ValueError`
    for arguments that no host could accept and `EndpointError` for an address that cannot be used.  One
    thread at a time may use a session.
    """

    _latest: _Held | None
    _held: list[_Held]
    _ring: GameRing | GameStream | None
    _seen_progress: int
    _moved: bool
    _unmoved_since_ns: int

    def __init__(
        self,
        endpoint: str | None = None,
        size: tuple[int, int] = (640, 360),
        pixel_format: str = "RGBA8",
        planes: Iterable[str] = ("depth", "motion", "mask"),
        orientation: str = "top_down",
        color_space: str = "srgb",
        depth: DepthConvention | None = None,
        motion: MotionConvention | None = None,
        style: Style = "snow",
        strength: float = 1.0,
        seed: int = 0,
        delivery: str = "wait",
        budget_ms: float = 16.67,
        row_pitch_bytes: int = 0,
        compression: str = "none",
        credentials: Credentials | None = None,
        hold_frames: int = 0,
    ) -> None:
        self._offer = Offer(
            size=(int(size[0]), int(size[1])),
            pixel_format=pixel_format,
            planes=tuple(planes),
            orientation=orientation,
            color_space=color_space,
            depth=depth or DepthConvention(),
            motion=motion or MotionConvention(),
            row_pitch_bytes=row_pitch_bytes,
            delivery=delivery,
            budget_ns=int(budget_ms * 1e6),
            compression=compression,
        )
        _checked(self._offer)
        if hold_frames < 0:
            raise ValueError(f"hold_frames must be 0 or more, not {hold_frames}")
        self._hold_frames, self._cut_id = int(hold_frames), 0
        self.endpoint = endpoint if endpoint is not None else endpoints.default_endpoint()
        endpoints.check(self.endpoint)
        self._local = endpoints.is_local(self.endpoint)
        self._credentials = endpoints.needed_credentials(self.endpoint, credentials)
        self._closed = False
        self._process = os.getpid()
        self._refusal: str | None = None
        self._style, self._strength, self._seed = _style(style, strength, seed)
        self._style_epoch = 1
        self._style_refusal: str | None = None
        self._paused = False
        self._info: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._was_ready = False
        self._known_session: int | None = None
        self._frame_id = 0
        self._drawing: Frame | None = None
        self._private: dict[tuple[Any, ...], deque[dict[str, Array]]] = {}
        self._source: Array | None = None
        self._source_id = 0
        self._source_sent = False
        self._source_lease = Lease("the frame before")
        self._socket: zmq.Socket[bytes] | None = None
        self._forget_link()
        self._open_socket()
        self._pump()

    # -- what the game asks ------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``offline``, ``connecting``, ``ready``, ``refused`` or ``closed``."""
        if self._closed:
            return "closed"
        if self._refusal is not None:
            return "refused"
        if self._session_id is not None:
            return "ready" if self._ring is not None else "connecting"
        return "connecting" if self._hello_sent else "offline"

    @property
    def refusal(self) -> str | None:
        """Why the host refused this session, in its own words; None unless it did."""
        return self._refusal

    @property
    def style_refusal(self) -> str | None:
        """Why the host refused the style set last, in its own words; the style before it stays in force."""
        return self._style_refusal

    @property
    def host_info(self) -> Mapping[str, Any]:
        """What the host told at admission (tier, device, ...); empty before."""
        return dict(self._info)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames `begin_frame` gives."""
        return self._offer.size

    @property
    def style_epoch(self) -> int:
        """The epoch of the style set last."""
        return self._style_epoch

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until frames would reach a sidecar; False if the time ran out or it refused."""
        end_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            self._pump()
            if self.state != "connecting" and self.state != "offline":
                return self.state == "ready"
            left_ns = end_ns - time.monotonic_ns()
            if left_ns <= 0:
                return False
            if self._socket is None:
                time.sleep(min(0.01, left_ns / 1e9))
            else:
                self._socket.poll(min(10, left_ns // 1_000_000 + 1))

    def begin_frame(self) -> Frame:
        """Something to draw into: a slot of shared memory, or private memory while there is no sidecar.

        A frame that was begun and never ended is given up.
        """
        self._check_open()
        self._pump()
        self._give_up_drawing()
        ring = self._ring
        if ring is not None and not self._paused and self._ring_offer == self._offer:
            begun = ring.begin()
            if begun is not None:
                slot, planes = begun
                self._drawing = Frame(planes, slot, ring)
                return self._drawing
        self._drawing = Frame(self._private_planes(), None, None)
        return self._drawing

    def end_frame(
        self, frame: Frame, camera_cut: bool = False, input_ns: int = 0, captured_ns: int | None = None
    ) -> int:
        """Publish ``frame`` and return its id (1, 2, ...); never blocks.

        ``input_ns`` is when the input that shaped the frame was read and ``captured_ns`` when it was drawn,
        both CLOCK_MONOTONIC (`time.monotonic_ns`); ``captured_ns`` None means now.  ``camera_cut`` says that
        this frame has nothing to do with the one before.  The frame's views raise from now on.
        """
        self._check_open()
        if frame is not self._drawing:
            raise LeaseError("this frame was already ended, or another was begun after it")
        self._drawing = None
        ring = frame._ring
        self._source_lease.end()
        self._frame_id += 1
        if camera_cut:
            self._cut_id = self._frame_id
        self._source, self._source_id = frame._source, self._frame_id
        frame._end()
        self._source_lease = Lease("a frame that a newer one has replaced")
        now_ns = time.monotonic_ns()
        self._deadline_ns = now_ns + self._offer.budget_ns
        self._source_sent = ring is not None and ring is self._ring
        if ring is None or ring is not self._ring or frame._slot is None:
            self._count("frames_offline")
            self._pump()
            return self._frame_id
        record = FrameRecord(
            slot=frame._slot,
            generation=ring.generation,
            sequence=ring.next_sequence(),
            frame_id=self._frame_id,
            input_ns=max(0, int(input_ns)),
            captured_ns=now_ns if captured_ns is None else max(0, int(captured_ns)),
            published_ns=now_ns,
            budget_ns=self._offer.budget_ns,
            seed=self._seed,
            style_epoch=self._style_epoch,
            strength=self._strength,
            camera_cut=camera_cut,
        ).pack()
        ring.publish(frame._slot, record)
        if self._moved:
            self._moved, self._unmoved_since_ns = False, now_ns
        self._count("frames")
        if self._socket is not None:
            ring.flush(self._socket)
        self._pump()
        return self._frame_id

    def wait_answer(self, frame_id: int, timeout_s: float | None = None) -> Answer:
        """The answer to ``frame_id`` or a newer frame; the game's own last frame if none comes in time (see
        ``hold_frames``).

        Waits at most until the budget of the last frame is used up, and at most ``timeout_s``; see
        ``delivery``. Does not wait at all without a sidecar, while paused, or for a sidecar that hangs.
        """
        self._check_open()
        wanted = frame_id - 1 if self._offer.delivery == "locked" else frame_id
        now_ns = time.monotonic_ns()
        end_ns = self._deadline_ns
        if self._offer.delivery == "newest":
            return self.poll_answer()
        if timeout_s is not None:
            end_ns = min(end_ns, now_ns + int(timeout_s * 1e9))
        spin_end_ns = now_ns + SPIN_NS
        reason = self._why_no_wait(now_ns)
        while True:
            self._take_newest()
            held = self._fitting()
            if held is not None and held.taken.record.frame_id >= wanted:
                return self._answer(held)
            if reason is not None:
                return self._own_frame(reason)
            now_ns = time.monotonic_ns()
            left_ns = end_ns - now_ns
            if left_ns <= 0:
                self._count("late")
                return self._last_again(wanted) or self._own_frame("no answer within the budget")
            if now_ns < spin_end_ns:
                continue
            if left_ns < 2_000_000:
                time.sleep(min(_NAP_S, left_ns / 1e9))
            else:
                self._doze(min(_LOOK_UP_MS, left_ns // 1_000_000 - 1))
            self._pump()
            reason = self._why_no_wait(now_ns)

    def poll_answer(self) -> Answer:
        """The newest answer, shown again if nothing newer came; never waits.

        Answers to frames more than 250 ms old are not shown: the game's own last frame is.
        """
        self._check_open()
        self._pump()
        self._take_newest()
        now_ns = time.monotonic_ns()
        held = self._fitting()
        if held is None:
            return self._own_frame(self._why_no_wait(now_ns) or "no answer yet")
        if now_ns - held.taken.record.frame_published_ns > STALE_NS:
            return self._own_frame(self._why_no_wait(now_ns) or "the newest answer is stale")
        return self._answer(held)

    def set_style(self, style: Style, strength: float | None = None, seed: int | None = None) -> int:
        """Change the style from the next frame on; returns its epoch.

        No answer carries this epoch that was not made in this style.  A host that does not know the style
        says so in `style_refusal` and goes on with the one before.  Raises `ValueError` for what could not be
        sent.
        """
        self._check_open()
        self._style, self._strength, self._seed = _style(
            style, self._strength if strength is None else strength, self._seed if seed is None else seed
        )
        self._style_epoch += 1
        self._style_refusal = None
        if self._session_id is not None:
            self._queue("style")
        else:
            self._say_hello_soon()
        return self._style_epoch

    def set_strength(self, strength: float) -> None:
        """Change the strength (0 to 1) from the next frame on; the style's epoch stays."""
        _, self._strength, _ = _style(self._style, strength, self._seed)

    def resize(self, size: tuple[int, int]) -> None:
        """Change the size (width, height) from the next `begin_frame` on, without reconnecting."""
        self.renegotiate(size=(int(size[0]), int(size[1])), row_pitch_bytes=0)

    def renegotiate(self, **changes: Any) -> None:
        """Change any field of `Offer` in mid-stream; frames are private until the host agrees.

        Raises `ValueError` for what no host could accept.
        """
        self._check_open()
        for name in changes.keys() & {"size", "planes"}:
            changes[name] = tuple(changes[name])
        offer = replace(self._offer, **changes)
        _checked(offer)
        if offer == self._offer:
            return
        self._offer = offer
        self._private.clear()
        if self._session_id is not None:
            self._refusal = None
            self._queue("change")
        else:
            self._say_hello_soon()

    def pause(self) -> None:
        """Say that no frames will come (menu, alt-tab); frames drawn meanwhile stay private."""
        self._pausing(True)

    def resume(self) -> None:
        """Send frames again."""
        self._pausing(False)

    def stats(self) -> SessionStats:
        """Counts so far."""
        counts = dict(self._counts)
        if self._ring is not None:
            counts["faults"] = counts.get("faults", 0) + self._ring.faults
        return SessionStats(**counts)

    def close(self) -> None:
        """Say goodbye and let go of everything; views raise from now on.  Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() != self._process:
            return  # a forked child: slots and connection are its parent's
        self._give_up_drawing()
        self._source_lease.end()
        if self._session_id is not None:
            self._send([TAG_CONTROL, pack_control({"type": "bye"})])
        for held in self._held:
            held.evict()
        self._drop_link(linger_ms=200)
        self._source = None
        self._private.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            with contextlib.suppress(Exception):
                self.close()

    # -- frames and answers ------------------------------------------------------------------------------

    def _give_up_drawing(self) -> None:
        frame, self._drawing = self._drawing, None
        if frame is not None:
            if frame._ring is not None and frame._slot is not None:
                frame._ring.cancel(frame._slot)
            frame._end()

    def _private_planes(self) -> dict[str, Array]:
        """Two sets in turn: one being drawn while the last is still shown."""
        key = (self._offer.size, self._offer.pixel_format, self._offer.planes, self._offer.row_pitch_bytes)
        sets = self._private.get(key)
        if sets is None:
            layout = Layout.of(self._offer)
            sets = deque()
            for _ in range(2):
                planes = layout.frame_planes
                sets.append(
                    {
                        name: np.ndarray(at.shape, at.dtype, np.zeros(at.size_bytes, np.uint8), 0, at.strides)
                        for name, at in planes.items()
                    }
                )
            self._private[key] = sets
        if sets[0]["pixels"] is self._source:
            sets.rotate()
        return sets[0]

    def _doze(self, timeout_ms: int) -> None:
        """Sleep until a doorbell, the host's death or the time."""
        ring = self._ring
        if ring is None or self._poller is None:
            return
        ring.words.set_asleep(True)
        fence()  # asleep is out before we look a last time
        if not ring.waiting():
            self._poller.poll(1 if ring.packing() else timeout_ms)
        ring.words.set_asleep(False)

    def _take_newest(self) -> None:
        ring = self._ring
        if ring is None:
            return
        if ring.words.peer_progress() != self._seen_progress:
            self._seen_progress = ring.words.peer_progress()
            # From here anew: what it still did for the frame before must not hide that it hangs on this one.
            self._moved, self._unmoved_since_ns = True, time.monotonic_ns()
        if not ring.waiting():
            return
        taken = ring.take()
        if taken is None and self._held and ring.full():
            # Both pins are used.  Nothing is lost by letting the older go: a newer answer stands ready.
            oldest = self._held.pop(0)
            oldest.evict()
            self._latest = None if oldest is self._latest else self._latest
            taken = ring.take()
        if taken is None:
            return
        self._count(taken.record.kind)
        self._count("dropped", taken.record.skipped)
        if self._latest is not None:
            self._latest.latest = False
            self._latest.settle()
        self._latest = _Held(ring, taken)
        self._held = [held for held in self._held if held.pinned]
        self._held.append(self._latest)

    def _answer(self, held: _Held) -> Answer:
        record = held.taken.record
        pixels = held.taken.pixels
        if pixels is None:
            return self._own_frame(record.reason, answered=True, held=held)
        answer = Answer(
            Lease("an answer"),
            pixels,
            frame_id=record.frame_id,
            kind=record.kind,
            reason=record.reason,
            answered=True,
            style_epoch=record.style_epoch,
            edit_age_frames=record.edit_age_frames,
            working_size=record.working_size,
            service_ns=record.service_ns,
            published_ns=record.published_ns,
            held=held,
        )
        held.answers.append(answer)
        return answer

    def _fitting(self) -> _Held | None:
        """The newest answer, if its picture is such as the game draws now."""
        old, new = self._ring_offer, self._offer
        if old is new or old is None:
            return self._latest
        names = ("size", "pixel_format", "row_pitch_bytes", "orientation", "color_space")
        return self._latest if all(getattr(old, name) == getattr(new, name) for name in names) else None

    def _last_again(self, wanted: int) -> Answer | None:
        """The last answer, not as one to this frame; None where it may not be shown again."""
        held = self._fitting()
        if held is None or held.taken.pixels is None or self._source is None:
            return None
        record = held.taken.record
        recent = wanted - record.frame_id <= self._hold_frames and record.frame_id >= self._cut_id
        if not recent or record.style_epoch != self._style_epoch:
            return None
        answer = self._answer(held)
        answer.answered, answer.reason = False, "no answer within the budget"
        return answer

    def _own_frame(self, reason: str, answered: bool = False, held: _Held | None = None) -> Answer:
        source = self._source
        if source is None:
            source = self._private_planes()["pixels"]
        record = held.taken.record if held is not None else None
        return Answer(
            # Ends with the next frame; releasing one answer must not end another one's view.
            _Shared("the last frame", self._source_lease),
            source,
            frame_id=self._source_id,
            kind="source",
            reason=reason,
            answered=answered,
            style_epoch=self._style_epoch if record is None else record.style_epoch,
            working_size=self._offer.size,
            service_ns=0 if record is None else record.service_ns,
            published_ns=time.monotonic_ns() if record is None else record.published_ns,
        )

    def _why_no_wait(self, now_ns: int) -> str | None:
        if self._ring is None:
            return {
                "refused": "refused by the sidecar",
                "connecting": "connecting to the sidecar",
            }.get(self.state, "no sidecar")
        if self._paused:
            return "paused"
        if not self._source_sent:
            return "the frame was not sent"
        if now_ns - self._unmoved_since_ns > STALL_NS:
            return "the sidecar does not move"
        return None

    # -- the connection ----------------------------------------------------------------------------------

    def _forget_link(self) -> None:
        self._ring = None
        self._ring_offer: Offer | None = None
        self._latest = None
        self._held = []
        self._session_id: int | None = None
        self._hello_sent, self._hello = False, b""
        self._hello_offer = self._offer
        self._hello_epoch = 0
        self._next_hello_ns = 0
        self._outbox: deque[tuple[str, int]] = deque()
        self._outbox_sent: tuple[int, bytes] = (0, b"")
        self._outbox_sent_ns = self._change_again_ns = 0
        self._outbox_offer = self._offer
        self._outbox_epoch = 0
        self._number = 0
        self._pending_segment: dict[str, Any] | None = None
        self._attach_problem = ""
        self._next_alive_ns = 0
        self._pinged_ns = 0
        self._seen_progress = 0
        self._moved, self._unmoved_since_ns = True, 0
        self._deadline_ns = 0
        self._pidfd = -1
        self._death: select.poll | None = None
        self._poller: zmq.Poller | None = None

    def _open_socket(self) -> None:
        endpoints.check_descriptors()
        try:
            sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        except zmq.ZMQError as error:
            raise EndpointError(f"no socket can be made: {error}") from error
        try:
            # First byte 1: ZeroMQ keeps names that begin with 0 for itself.
            sock.setsockopt(zmq.ROUTING_ID, b"\x01" + secrets.token_bytes(IDENTITY_BYTES - 1))
            endpoints.connect(sock, self.endpoint, self._credentials)
        except BaseException:
            sock.close(0)
            raise
        self._socket = sock
        self._poller = zmq.Poller()
        self._poller.register(sock, zmq.POLLIN)

    def _drop_link(self, linger_ms: int = 0) -> None:
        """Let go of socket, memory and process; what the game still looks at, it may look at to the end."""
        for held in self._held:
            held.retire()
        self._end_ring()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        if self._socket is not None:
            self._socket.close(linger_ms)
            self._socket = None
        self._forget_link()

    def _lost(self) -> None:
        self._drop_link()
        with contextlib.suppress(BridgeError):
            self._open_socket()

    def _end_ring(self) -> None:
        if self._ring is not None:
            self._count("faults", self._ring.faults)
            self._ring.close()

    def _send(self, parts: list[bytes]) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError:
            return False
        return True

    def _say_hello_soon(self) -> None:
        self._next_hello_ns = 0

    def _queue(self, what: str) -> None:
        """Line up a control message; one is under way at a time, and what it says is decided when it goes."""
        waiting = [each for each in list(self._outbox)[1:] if each[0] == what]
        if waiting and what in ("style", "change"):
            return  # the one waiting will carry the newest values
        self._number += 1
        self._outbox.append((what, self._number))
        if len(self._outbox) == 1:
            self._send_head(time.monotonic_ns())

    def _send_head(self, now_ns: int) -> None:
        if not self._outbox:
            return
        what, number = self._outbox[0]
        if self._outbox_sent[0] == number:
            # Asked again, the same words: the host does a number once, and answers it as it was.
            if self._send([TAG_CONTROL, self._outbox_sent[1]]):
                self._outbox_sent_ns = now_ns
            return
        fields: dict[str, Any] = {"type": what, "number": number}
        if what == "style":
            self._outbox_epoch = self._style_epoch
            fields |= self._style_fields()
        elif what == "change":
            self._outbox_offer = self._offer
            fields["offer"] = self._offer.to_wire()
        elif what == "attach_failed":
            fields["sentence"] = self._attach_problem
        message = pack_control(fields)
        if self._send([TAG_CONTROL, message]):
            self._outbox_sent, self._outbox_sent_ns = (number, message), now_ns

    def _style_fields(self) -> dict[str, Any]:
        return {
            "style": self._style,
            "strength": self._strength,
            "seed": self._seed,
            "style_epoch": self._style_epoch,
        }

    def _pausing(self, paused: bool) -> None:
        self._check_open()
        if paused != self._paused:
            self._paused = paused
            if self._session_id is not None:
                self._queue("pause" if paused else "resume")

    def _pump(self) -> None:
        """Everything that is due, without waiting for any of it."""
        if self._closed:
            return
        now_ns = time.monotonic_ns()
        if self._death is not None and self._death.poll(0):
            self._lost()
        if self._socket is None:
            with contextlib.suppress(BridgeError):
                self._open_socket()
            if self._socket is None:
                return
        for _ in range(_DRAIN):
            sock = self._socket
            if sock is None:
                return
            try:
                parts, _ = endpoints.receive(sock, copy=self._local, endless=False)
            except ProtocolError:
                self._count("faults")
                self._lost()
                return
            if not parts:
                break
            self._pinged_ns = 0
            try:
                self._receive(parts, now_ns)
            except ProtocolError:
                self._count("faults")
        if self._session_id is None:
            if now_ns >= self._next_hello_ns:
                self._say_hello(now_ns)
            return
        if self._outbox and now_ns - self._outbox_sent_ns > _RESEND_NS:
            self._send_head(now_ns)
        if 0 < self._change_again_ns <= now_ns:
            self._change_again_ns = 0
            if self._offer != self._ring_offer:
                self._queue("change")
        if self._ring is not None and self._socket is not None:
            self._ring.flush(self._socket)
        if self._pinged_ns and self._pidfd < 0 and now_ns - self._pinged_ns > _SILENCE_NS:
            self._lost()
        elif now_ns >= self._next_alive_ns:
            self._next_alive_ns = now_ns + _ALIVE_NS
            self._pinged_ns = self._pinged_ns or now_ns
            self._send([TAG_CONTROL, pack_control({"type": "alive"})])

    def _say_hello(self, now_ns: int) -> None:
        # The host may have the first one, and its welcome answers that: said again, the words are the same, and what
        # the game has changed since is asked for behind the welcome.
        hello = self._hello or pack_control(
            {
                "type": "hello",
                "protocol": list(PROTOCOL_VERSION),
                "pid": os.getpid(),
                "transport": "shm" if endpoints.is_local(self.endpoint) else "parts",
                "offer": self._offer.to_wire(),
            }
            | self._style_fields()
        )
        self._hello_sent = self._send([TAG_CONTROL, hello])
        if self._hello_sent:
            if not self._hello:
                self._hello, self._hello_offer, self._hello_epoch = hello, self._offer, self._style_epoch
            self._next_hello_ns = now_ns + _HELLO_AGAIN_NS

    def _receive(self, parts: list[bytes | memoryview], now_ns: int) -> None:
        if len(parts) < 2:
            raise ProtocolError(f"a message of {len(parts)} parts")
        tag, body = bytes(parts[0]), parts[1]
        if tag != TAG_CONTROL:
            if self._ring is not None:
                reply = self._ring.receive(tag, parts[1:])
                if reply is not None:
                    self._send(reply)
            return
        fields = unpack_control(body)
        kind = fields["type"]
        if kind == "welcome":
            self._welcomed(fields)
        elif kind == "refused":
            self._refusal = take(fields, "sentence", str)[:2000]
            self._session_id, self._hello = None, b""
            self._next_hello_ns = now_ns + _REFUSED_AGAIN_NS
        elif kind in ("ok", "error"):
            self._acknowledged(kind == "ok", fields, now_ns)
        elif kind == "alive":
            return
        elif kind in ("gone", "bye"):
            if self._session_id is not None:
                self._lost()
        else:
            raise ProtocolError(f"message type {kind!r} is not known")

    def _welcomed(self, fields: dict[str, Any]) -> None:
        if self._session_id is not None:
            return
        version = take(fields, "protocol", list)
        if not version or version[0] != PROTOCOL_VERSION[0]:
            raise ProtocolError(f"the host speaks protocol {version}")
        session_id = take(fields, "session", int)
        info = take(fields, "info", dict)
        segment = take(fields, "segment", dict)
        self._session_id = session_id
        self._info = info
        self._refusal = None
        self._outbox_offer = self._hello_offer
        self._attach(segment, self._hello_offer)
        if self._paused:
            self._queue("pause")
        if self._offer != self._hello_offer:
            self._queue("change")
        if self._style_epoch != self._hello_epoch:
            self._queue("style")

    def _attach(self, address: dict[str, Any], offer: Offer) -> None:
        layout = Layout.of(offer)
        try:
            if self._local:
                ring: GameRing | GameStream = GameRing(Segment.attach(layout, address))
            else:
                generation = take(address, "generation", int)
                if not 0 < generation < 1 << 32:
                    raise ProtocolError("the generation is out of range")
                ring = GameStream(layout, generation, offer.compression)
        except SegmentError as error:
            self._attach_problem = str(error)[:1000]
            self._queue("attach_failed")
            return
        for held in self._held:
            held.retire()
        self._held, self._latest = [], None
        self._end_ring()
        self._ring, self._ring_offer = ring, offer
        self._seen_progress = self._ring.words.peer_progress()
        self._moved = True
        if self._death is None and address.get("memory") == "memfd" and hasattr(os, "pidfd_open"):
            # The descriptor led to the right memory, so the number is the right process.
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(address["pid"])
                self._death = select.poll()
                self._death.register(self._pidfd, select.POLLIN)
                if self._poller is not None:
                    self._poller.register(self._pidfd, zmq.POLLIN)
        if self._was_ready and self._session_id != self._known_session:
            self._count("reconnects")
        self._was_ready, self._known_session = True, self._session_id
        self._queue("attach")

    def _acknowledged(self, agreed: bool, fields: dict[str, Any], now_ns: int) -> None:
        number = take(fields, "number", int)
        if not self._outbox or self._outbox[0][1] != number:
            return
        what, _ = self._outbox.popleft()
        sentence = None if agreed else take(fields, "sentence", str)[:2000]
        if what == "style" and sentence is not None and self._outbox_epoch == self._style_epoch:
            self._style_refusal = sentence
        elif what == "change":
            if sentence is not None:
                if self._outbox_offer == self._offer:
                    # As a new game would: other games may have left by then.
                    self._refusal, self._change_again_ns = sentence, now_ns + _REFUSED_AGAIN_NS
            else:
                self._refusal = None
                self._attach(take(fields, "segment", dict), self._outbox_offer)
        elif what == "attach_failed":
            if sentence is not None:
                self._refusal = sentence
            else:
                self._attach(take(fields, "segment", dict), self._outbox_offer)
        if self._outbox:
            self._send_head(now_ns)

    def _count(self, what: str, by: int = 1) -> None:
        self._counts[what] = self._counts.get(what, 0) + by

    def _check_open(self) -> None:
        if self._closed:
            raise BridgeError("the session is closed; make a new one")
        if os.getpid() != self._process:
            raise BridgeError("the session belongs to the process that this one was forked from; make a new one")


class _Shared(Lease):
    """A lease that ends with itself or with another."""

    __slots__ = ("_other",)

    def __init__(self, what: str, other: Lease) -> None:
        super().__init__(what)
        self._other = other

    def check(self) -> None:
        super().check()
        self._other.check()


def _checked(offer: Offer) -> None:
    sentence = offer.problem()
    if sentence is None and offer.compression not in compressions():
        sentence = f"compression {offer.compression} is not installed here; pip install {offer.compression}"
    if sentence is not None:
        raise ValueError(sentence)


def _style(style: Style, strength: float, seed: int) -> tuple[Style, float, int]:
    try:
        protocol.check_style(style)
    except ProtocolError as error:
        raise ValueError(str(error)) from None
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength {strength} is not within 0 to 1")
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed {seed} is not within 0 to 2**63 - 1")
    return (style if isinstance(style, str) else dict(style)), float(strength), int(seed)

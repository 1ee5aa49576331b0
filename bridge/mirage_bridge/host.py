"""The sidecar's side: admit games, take their newest frames, publish answers."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import zmq
import zmq.utils.z85

from . import endpoint as endpoints
from . import keys
from .channel import Array, HostRing, TakenFrame
from .errors import BridgeError, EndpointError, ProtocolError, SegmentError, StyleError
from .memory import Segment, sweep
from .protocol import (
    IDENTITY_BYTES,
    KINDS,
    MAX_PARTS,
    MEMORY_KINDS,
    PROTOCOL_VERSION,
    TAG_CONTROL,
    Admission,
    AnswerRecord,
    Capabilities,
    Layout,
    Offer,
    check_style,
    pack_control,
    take,
    unpack_control,
)
from .ring import fence
from .stream import HostStream, compressions
from .views import Lease, View, guarded

__all__ = [
    "AnswerDraft",
    "Event",
    "FrameJob",
    "Host",
    "HostSession",
    "Paused",
    "Resized",
    "Resumed",
    "SessionClosed",
    "SessionOpened",
    "StyleChanged",
]

_log: Final = logging.getLogger("mirage_bridge")

Style = str | Mapping[str, Any]

SPIN_NS: Final = 100_000
#: A game that was welcomed and never mapped its memory is forgotten after this.
_HANDSHAKE_NS: Final = 5_000_000_000
#: Without a pidfd (other PID namespaces, other machines) a silent game is given up after this.
_SILENCE_NS: Final = 10_000_000_000
_UPKEEP_NS: Final = 500_000_000
_DRAIN: Final = 256


@dataclass(frozen=True)
class SessionOpened:
    """A game is in; its frames can be taken."""

    session: HostSession


@dataclass(frozen=True)
class SessionClosed:
    """A game left, died or fell silent; ``reason`` is a sentence.  Its memory goes with its last job."""

    session: HostSession
    reason: str


@dataclass(frozen=True)
class StyleChanged:
    """A game set a style that ``check_style`` let through; frames of ``epoch`` and later are in it."""

    session: HostSession
    style: Style
    strength: float
    seed: int
    epoch: int


@dataclass(frozen=True)
class Resized:
    """A game's frames have a new `HostSession.offer`: size, format or planes.  Jobs of the old one may be
    published still, and go nowhere.
    """

    session: HostSession


@dataclass(frozen=True)
class Paused:
    """A game will send no frames for a while."""

    session: HostSession


@dataclass(frozen=True)
class Resumed:
    """A paused game sends frames again."""

    session: HostSession


Event = SessionOpened | SessionClosed | StyleChanged | Resized | Paused | Resumed


class FrameJob:
    """A frame to be answered, pinned until it is published or released.

    ``pixels``, ``depth`` (float32 [H, W]), ``motion`` (float16 [H, W, 2]) and ``mask`` (uint8 [H, W]) are
    read-only; the last three are None where the game does not write them; `HostSession.offer` has format and
    conventions. ``published_ns`` and ``deadline_ns`` are CLOCK_MONOTONIC of this process; ``input_ns`` and
    ``captured_ns`` are the game's own clock.  ``skipped`` counts the frames passed over for this one.
    ``style`` is the one to use.
    """

    def __init__(
        self, session: HostSession, ring: HostRing | HostStream, taken: TakenFrame, skipped: int
    ) -> None:
        record = taken.record
        now_ns = time.monotonic_ns()
        self.session = session
        self._ring: HostRing | HostStream | None = ring
        self._taken: TakenFrame | None = taken
        self._lease = Lease("a frame job")
        self._planes = {
            name: guarded(plane, self._lease, writable=False) for name, plane in taken.planes.items()
        }
        self.frame_id = record.frame_id
        self.input_ns = record.input_ns
        self.captured_ns = record.captured_ns
        self.frame_published_ns = record.published_ns
        self.published_ns = min(record.published_ns, now_ns) if session.local else now_ns
        self.deadline_ns = self.published_ns + record.budget_ns
        self.style = session.style
        self.style_epoch = session.style_epoch
        self.strength = record.strength
        self.seed = record.seed
        self.camera_cut = record.camera_cut
        self.skipped = skipped
        self._size = ring.layout.size

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

    def release(self) -> None:
        """Unpin without an answer.  Safe to repeat."""
        self._lease.end()
        taken, self._taken = self._taken, None
        ring, self._ring = self._ring, None
        # A job somebody keeps keeps no mapping alive.
        self._planes = {}
        if taken is not None and ring is not None:
            ring.release(taken)
            self.session._job_done(self)

    def _held_ring(self) -> HostRing | HostStream:
        self._lease.check()
        assert self._ring is not None
        return self._ring

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class AnswerDraft:
    """An answer being written: ``pixels`` is writable, of the frame's shape and dtype, undefined before."""

    def __init__(self, job: FrameJob, ring: HostRing | HostStream, slot: int, pixels: Array) -> None:
        self.job = job
        self._ring: HostRing | HostStream | None = ring
        self._slot = slot
        self._lease = Lease("an answer that was published or given up")
        self._pixels: View | None = guarded(pixels, self._lease, writable=True)

    @property
    def pixels(self) -> View:
        self._lease.check()
        assert self._pixels is not None
        return self._pixels

    def cancel(self) -> None:
        """Give the answer up; the job stays.  Safe to repeat."""
        ring = self._end()
        if ring is not None:
            ring.cancel(self._slot)

    def _end(self) -> HostRing | HostStream | None:
        self._lease.end()
        self._pixels = None
        ring, self._ring = self._ring, None
        return ring


class HostSession:
    """One game, as the host sees it."""

    def __init__(self, host: Host, identity: bytes, session_id: int, offer: Offer, local: bool) -> None:
        self._host = host
        self._identity = identity
        self.id = session_id
        #: The name under which the allow-list knows this game; empty where no key is asked for.
        self.key_name = ""
        #: What was negotiated: size, format, planes, conventions, delivery.
        self.offer = offer
        self.local = local
        self.style: Style = ""
        self.strength = 1.0
        self.seed = 0
        #: The epoch of ``style``; what every answer to a job carries.
        self.style_epoch = 0
        self.paused = False
        #: Frames passed over for newer ones; answers published; what broke the protocol.
        self.skipped = 0
        self.published = 0
        self.faults = 0
        self._settled_epoch = 0
        self._held_sequence = 0
        self._last_frame_sequence = 0
        self._jobs: list[FrameJob] = []
        self._ring: HostRing | HostStream | None = None
        self._attached = False
        self._closed = False
        self._memory_kind = MEMORY_KINDS[0]
        self._generation = 0
        self._number = 0
        self._last_reply = b""
        self._welcome = b""
        self._info: dict[str, Any] = {}
        self._pid = 0
        self._pidfd = -1
        self._heard_ns = self._welcomed_ns = time.monotonic_ns()
        self._seen_progress = 0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames."""
        return self.offer.size

    def take_newest(self) -> FrameJob | None:
        """Pin and return the newest frame that was not taken yet; None if there is none.

        At most two jobs of a session can be held at once.  A frame whose style is still on its way is not
        taken.
        """
        ring = self._ring
        if self._closed or not self._attached or ring is None:
            return None
        ring.words.advance()
        taken = ring.take()
        if taken is None:
            return None
        if taken.record.style_epoch > self._settled_epoch:
            ring.put_back(taken)
            self._held_sequence = taken.record.sequence
            return None
        sequence = taken.record.sequence
        skipped = max(0, sequence - self._last_frame_sequence - 1)
        self._last_frame_sequence = sequence
        self.skipped += skipped
        job = FrameJob(self, ring, taken, skipped)
        self._jobs.append(job)
        return job

    def begin_answer(self, job: FrameJob) -> AnswerDraft:
        """A slot to write the answer to ``job`` into.  Raises `LeaseError` if the job was given back."""
        ring = job._held_ring()
        ring.words.advance()
        begun = ring.begin()
        if begun is None:
            raise BridgeError(
                "every answer slot is being written: publish or cancel one before beginning another"
            )
        return AnswerDraft(job, ring, *begun)

    def publish(
        self,
        draft: AnswerDraft,
        kind: str = "styled",
        reason: str = "",
        edit_age_frames: int = 0,
        working_size: tuple[int, int] | None = None,
        service_ns: int | None = None,
    ) -> bool:
        """Publish an answer and release its job.  False if the game is gone or changed its size meanwhile.

        ``kind`` is ``styled``, ``reprojected`` or ``source``; ``reason`` up to 48 bytes; ``service_ns`` None
        means since the frame was published.
        """
        draft._lease.check()
        record = self._record(draft.job, kind, reason, edit_age_frames, working_size, service_ns, True)
        ring = draft._end()
        assert ring is not None
        return self._publish(draft.job, ring, draft._slot, record)

    def publish_source(self, job: FrameJob, reason: str, service_ns: int | None = None) -> bool:
        """Answer ``job`` without pixels: the game shows its own frame.  Releases the job."""
        ring = job._held_ring()
        begun = ring.begin()
        if begun is None:
            raise BridgeError(
                "every answer slot is being written: publish or cancel one before beginning another"
            )
        record = self._record(job, "source", reason, 0, None, service_ns, False)
        return self._publish(job, ring, begun[0], record)

    def _record(
        self,
        job: FrameJob,
        kind: str,
        reason: str,
        edit_age_frames: int,
        working_size: tuple[int, int] | None,
        service_ns: int | None,
        has_pixels: bool,
    ) -> AnswerRecord:
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is not known; use one of {', '.join(KINDS)}")
        now_ns = time.monotonic_ns()
        return AnswerRecord(
            slot=0,
            generation=0,
            sequence=0,
            frame_id=job.frame_id,
            frame_published_ns=job.frame_published_ns,
            published_ns=now_ns,
            service_ns=max(0, now_ns - job.published_ns if service_ns is None else service_ns),
            style_epoch=job.style_epoch,
            kind=kind,
            edit_age_frames=edit_age_frames,
            working_size=working_size or job._size,
            skipped=min(job.skipped, 0xFFFFFFFF),
            reason=reason,
            has_pixels=has_pixels,
        )

    def _publish(self, job: FrameJob, ring: HostRing | HostStream, slot: int, record: AnswerRecord) -> bool:
        current = ring is self._ring and not self._closed
        if current:
            message = ring.publish(slot, record)
            self.published += 1
            if message:
                self._host._send(self._identity, *message)
        else:
            ring.cancel(slot)
        job.release()
        return current

    def _job_done(self, job: FrameJob) -> None:
        if job in self._jobs:
            self._jobs.remove(job)

    def _waiting(self) -> bool:
        """Whether a frame could be taken that was not put off."""
        ring = self._ring
        if ring is None or not self._attached or self._jobs:
            return False
        sequence = ring.waiting()
        return sequence > 0 and sequence != self._held_sequence

    def _settle_style(self, epoch: int, style: Style, strength: float, seed: int) -> None:
        self.style, self.strength, self.seed = style, strength, seed
        self.style_epoch = self._settled_epoch = epoch
        self._held_sequence = 0


class Host:
    """A sidecar's end of the bridge: one address, many games, one thread.

    ``bind`` is the address (None: ``$MIRAGE_ENDPOINT`` or this user's default).  ``capabilities`` refuses by
    itself what cannot be served; ``admit`` may refuse more, by returning a sentence, and tells the game about
    the host in `Admission.info`; it gets the session that wants to change its offer, None for a new one.
    ``check_style`` raises `StyleError` for a style it does not know.  Both are
    called from `poll` and should be quick.  Raises `EndpointInUseError` and `EndpointError`.

    Whatever else they raise is logged and refused.  Every method but `wake` belongs to one thread.
    """

    def __init__(
        self,
        bind: str | None = None,
        capabilities: Capabilities | None = None,
        admit: Callable[[Offer, HostSession | None], Admission | str] | None = None,
        check_style: Callable[[Style], None] | None = None,
        key_name: str = "host",
        key_directory: Path | None = None,
    ) -> None:
        self.capabilities = capabilities or Capabilities()
        self._admit = admit or (lambda _offer, _session: Admission())
        self._check_style = check_style or (lambda _style: None)
        self._handlers: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {}
        self._by_identity: dict[bytes, HostSession] = {}
        self._events: list[Event] = []
        self._next_upkeep_ns = 0
        self._woken = False
        self._closed = False
        self._process = os.getpid()
        self._memory_kind = "memfd" if hasattr(os, "memfd_create") else "file"
        #: Games that are in, by session id.
        self.sessions: dict[int, HostSession] = {}
        address = bind if bind is not None else endpoints.default_endpoint()
        endpoints.check(address)
        self._local = endpoints.is_local(address)
        remote = not self._local and not endpoints.is_loopback(address)
        # A remote host has a context of its own, for ZeroMQ asks one gate a context.
        self._own_context: zmq.Context[zmq.Socket[bytes]] | None = zmq.Context() if remote else None
        context = self._own_context or zmq.Context.instance()
        self._gate: Gate | None = None
        self._router: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        try:
            self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
            # A game whose connection broke comes back under its own secret name.
            self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
            if remote:
                self._gate = Gate(context, key_name, key_directory)
                self._gate.guard(self._router)
            #: The address as bound.
            self.endpoint = endpoints.bind(self._router, address)
            self._socket_inode = endpoints.identity(self.endpoint)
        except BaseException:
            self._closed = True
            self._close_sockets()
            raise
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._wake_read, zmq.POLLIN)
        if self._gate is not None:
            self._poller.register(self._gate.socket, zmq.POLLIN)
        self._pidfds: dict[int, HostSession] = {}
        sweep()

    def poll(self, timeout_s: float | None = None) -> list[Event]:
        """Wait until something happened and return what; the list is empty where frames are all that came.

        Returns at once while a frame waits in a session that holds no job, after `wake`, and after
        ``timeout_s`` (None: no limit).
        """
        if self._closed:
            raise BridgeError("the host is closed; make a new one")
        if os.getpid() != self._process:
            raise BridgeError("the host belongs to the process that this one was forked from; make a new one")
        start_ns = time.monotonic_ns()
        end_ns = None if timeout_s is None else start_ns + int(timeout_s * 1e9)
        spin_end_ns = start_ns + SPIN_NS
        for session in self.sessions.values():
            if session._ring is not None:
                session._ring.words.advance()
        while True:
            self._drain()
            now_ns = time.monotonic_ns()
            if now_ns >= self._next_upkeep_ns:
                self._next_upkeep_ns = now_ns + _UPKEEP_NS
                self._upkeep(now_ns)
            if self._events or self._woken or any(each._waiting() for each in self.sessions.values()):
                break
            if end_ns is not None and now_ns >= end_ns:
                break
            if self.sessions and now_ns < spin_end_ns:
                if self._spin(spin_end_ns):
                    break
                continue
            until_ns = self._next_upkeep_ns if end_ns is None else min(end_ns, self._next_upkeep_ns)
            self._sleep(max(0, -(-(until_ns - now_ns) // 1_000_000)))
        self._woken = False
        events, self._events = self._events, []
        return events

    def handle(self, name: str, reply: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Answer `request` calls for ``name`` with ``reply(fields)``; called from `poll`.

        What ``reply`` raises is told to the asker as an error sentence.
        """
        self._handlers[name] = reply

    def wake(self) -> None:
        """Make `poll` return; from any thread or signal handler."""
        if not self._closed:  # its descriptor may be another file's by then
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(self._wake_write, b"w")

    def close(self) -> None:
        """Tell every game goodbye and let go of address and memory.  Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() != self._process:
            return  # a forked child: games and address are its parent's
        for session in tuple(self._by_identity.values()):
            self._control(session._identity, {"type": "bye", "reason": "the sidecar stops"})
            self._forget(session, "the sidecar stops")
        self._events.clear()
        endpoints.release(self.endpoint, self._socket_inode)
        self._close_sockets(linger_ms=200)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            with contextlib.suppress(Exception):
                self.close()

    def _close_sockets(self, linger_ms: int = 0) -> None:
        self._router.close(linger_ms)
        if self._gate is not None:
            self._gate.close()
        if self._own_context is not None:
            self._own_context.term()

    # -- waiting -----------------------------------------------------------------------------------------

    def _spin(self, until_ns: int) -> bool:
        """Watch shared memory for a moment: a frame seen here costs no wake-up."""
        sessions = tuple(self.sessions.values())
        while time.monotonic_ns() < until_ns:
            for session in sessions:
                if session._waiting():
                    return True
        return False

    def _sleep(self, timeout_ms: int) -> None:
        rings = [session._ring for session in self.sessions.values() if session._ring is not None]
        for ring in rings:
            ring.words.set_asleep(True)
        fence()  # asleep is out before we look a last time
        if any(session._waiting() for session in self.sessions.values()):
            timeout_ms = 0
        ready = self._poller.poll(timeout_ms)
        for ring in rings:
            ring.words.set_asleep(False)
        self._look_at(ready)

    def _look_at(self, ready: list[tuple[Any, int]]) -> None:
        """Processes that ended, and `wake`; messages are read by `_drain`."""
        for fd, _ in ready:
            if fd == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._woken = True
            elif isinstance(fd, int):
                session = self._pidfds.get(fd)
                if session is not None:
                    self._forget(session, "the game's process ended")

    def _drain(self) -> None:
        if self._gate is not None:
            self._gate.answer()
        for _ in range(_DRAIN):
            parts, user = endpoints.receive(self._router, copy=self._local)
            if not parts:
                return
            try:
                self._receive(parts, user)
            except Exception as error:
                session = self._by_identity.get(bytes(parts[0]))
                if session is not None:
                    session.faults += 1
                if isinstance(error, ProtocolError):
                    _log.debug("a peer broke the protocol: %s", error)
                else:
                    # A fault of this host's own, and yet what one peer says must not end the others' sidecar.
                    _log.exception("a message could not be handled")

    def _upkeep(self, now_ns: int) -> None:
        # Where a frame always waits nobody sleeps, and a game that was killed would keep its place.
        self._look_at(self._poller.poll(0))
        if self._gate is not None:
            for session in self._gate.revoked(tuple(self._by_identity.values())):
                self._control(session._identity, {"type": "bye", "reason": "the key was revoked"})
                self._forget(session, "the game's key was revoked")
        for session in tuple(self._by_identity.values()):
            ring = session._ring
            if ring is not None and session._attached:
                progress = ring.words.peer_progress()
                if progress != session._seen_progress:
                    session._seen_progress = progress
                    session._heard_ns = now_ns
            silent_ns = now_ns - session._heard_ns
            if not session._attached:
                # However often it says that it lives: it begins anew, and finds what has changed since.
                if now_ns - session._welcomed_ns > _HANDSHAKE_NS:
                    self._forget(session, "the game did not finish its handshake")
            elif silent_ns > _SILENCE_NS:
                # The number of a process is what the game says; a connection is there or is not.
                excused = session.paused or session._pidfd >= 0
                if not (excused and self._reaches(session)):
                    self._forget(session, "the game fell silent")

    def _reaches(self, session: HostSession) -> bool:
        """Whether there is still a connection to a game that has no reason to speak."""
        try:
            self._router.send_multipart(
                [session._identity, TAG_CONTROL, pack_control({"type": "alive"})], zmq.NOBLOCK
            )
        except zmq.ZMQError as error:
            return error.errno == zmq.EAGAIN  # its queue is full: it does not read, and it is there
        return True

    # -- messages ----------------------------------------------------------------------------------------

    def _send(self, identity: bytes, *parts: Any) -> bool:
        try:
            self._router.send_multipart([identity, *parts], zmq.NOBLOCK, copy=self._local)
        except zmq.ZMQError:
            return False  # gone, or not reading: what matters stands in shared memory or is asked again
        return True

    def _control(self, identity: bytes, fields: Mapping[str, Any]) -> bool:
        return self._send(identity, TAG_CONTROL, pack_control(fields))

    def _receive(self, parts: list[bytes | memoryview], user: str) -> None:
        if not 3 <= len(parts) <= MAX_PARTS or len(parts[0]) != IDENTITY_BYTES:
            raise ProtocolError(f"a message of {len(parts)} parts")
        identity, tag, body = bytes(parts[0]), bytes(parts[1]), parts[2]
        if self._gate is not None and user not in self._gate.names:
            raise ProtocolError("a message under a key that was revoked")  # its connection may still stand
        session = self._by_identity.get(identity)
        if session is not None:
            session._heard_ns = time.monotonic_ns()
        if tag != TAG_CONTROL:
            if session is None:
                self._control(identity, {"type": "gone"})
            elif session._ring is not None:
                reply = session._ring.receive(tag, parts[2:])
                if reply is not None:
                    self._send(identity, *reply)
            return
        fields = unpack_control(body)
        kind = fields["type"]
        if kind == "hello":
            self._hello(identity, fields, user)
        elif kind == "request":
            self._request(identity, fields)
        elif session is None:
            if kind != "bye":
                self._control(identity, {"type": "gone"})
        elif kind == "bye":
            self._forget(session, "the game said goodbye")
        elif kind == "alive":
            self._control(identity, {"type": "alive"})
        else:
            self._numbered(session, kind, fields)

    def _hello(self, identity: bytes, fields: dict[str, Any], user: str) -> None:
        known = self._by_identity.get(identity)
        if known is not None and not known._attached:
            self._send(identity, TAG_CONTROL, known._welcome)
            return
        if known is not None:
            self._forget(known, "the game began anew")
        try:
            version = take(fields, "protocol", list)
            if not version or not all(type(part) is int for part in version[:3]):
                raise ProtocolError("a version is whole numbers")
            if version[0] != PROTOCOL_VERSION[0]:
                said = ".".join(str(part) for part in version[:3])
                own = ".".join(str(part) for part in PROTOCOL_VERSION)
                raise _RefusedError(
                    f"this sidecar speaks bridge protocol {own}, the game speaks {said}; update the older one"
                )
            session = self._admitted(identity, fields)
            session.key_name = user
        except (_RefusedError, ProtocolError, SegmentError) as error:
            sentence = str(error)
        else:
            self._by_identity[identity] = session
            session._welcome = pack_control(
                {
                    "type": "welcome",
                    "protocol": list(PROTOCOL_VERSION),
                    "session": session.id,
                    "info": session._info,
                    "segment": session._ring.address() if session._ring is not None else {},
                }
            )
            if not self._send(identity, TAG_CONTROL, session._welcome):
                self._forget(session, "the game left during its handshake")
            return
        self._control(
            identity, {"type": "refused", "protocol": list(PROTOCOL_VERSION), "sentence": sentence[:2000]}
        )

    def _admitted(self, identity: bytes, fields: dict[str, Any]) -> HostSession:
        offer = Offer.from_wire(take(fields, "offer", dict))
        if len(self._by_identity) >= self.capabilities.max_sessions:
            raise _RefusedError(
                f"this sidecar already serves {len(self._by_identity)} games, which is as many as it can"
            )
        info = self._judge(offer)
        style, strength, seed, epoch = self._style_of(fields)
        transport = "shm" if self._local else "parts"
        if take(fields, "transport", str) != transport:
            raise _RefusedError(f"this sidecar carries pixels as {transport!r} at {self.endpoint}")
        session = HostSession(self, identity, secrets.randbits(62) + 1, offer, local=self._local)
        session._info = info
        session._memory_kind = self._memory_kind if self._local else "parts"
        session._pid = take(fields, "pid", int)
        session._settle_style(epoch, style, strength, seed)
        self._new_ring(session)
        self._watch(session)
        return session

    def _judge(self, offer: Offer, session: HostSession | None = None) -> dict[str, Any]:
        sentence = self.capabilities.problem(offer)
        if sentence is None and offer.compression not in compressions():
            sentence = f"compression {offer.compression} is not installed here"
        if sentence is None:
            try:
                verdict = self._admit(offer, session)
            except Exception:
                # What one game asked for must not end the others' sidecar.
                _log.exception("admit failed on %r", offer)
                raise _RefusedError("the sidecar failed to judge this offer; its log says why") from None
            if isinstance(verdict, Admission):
                return dict(verdict.info)
            sentence = verdict
        raise _RefusedError(sentence)

    def _style_of(self, fields: Mapping[str, Any]) -> tuple[Style, float, int, int]:
        style = fields.get("style")
        check_style(style)
        assert isinstance(style, (str, dict))
        strength = take(fields, "strength", float)
        seed = take(fields, "seed", int)
        epoch = take(fields, "style_epoch", int)
        if not 0.0 <= strength <= 1.0 or not 0 < epoch < 1 << 32 or seed < 0:
            raise ProtocolError("strength, seed or style epoch is out of range")
        try:
            self._check_style(style)
        except StyleError as error:
            raise _RefusedError(str(error)) from None
        except Exception:
            _log.exception("check_style failed")
            raise _RefusedError("the sidecar failed to judge this style; its log says why") from None
        return style, strength, seed, epoch

    def _new_ring(self, session: HostSession) -> None:
        session._generation += 1
        layout = Layout.of(session.offer)
        if not session.local:
            session._ring = HostStream(layout, session._generation, session.offer.compression)
            session._last_frame_sequence = session._held_sequence = 0
            return
        segment = Segment.create(layout, session._generation, session._memory_kind)
        session._ring = HostRing(segment)
        session._last_frame_sequence = session._held_sequence = 0

    def _numbered(self, session: HostSession, kind: str, fields: dict[str, Any]) -> None:
        """Messages 1, 2, ... of a session: each is done once and acknowledged, again if asked again."""
        number = take(fields, "number", int)
        if number == session._number:
            self._send(session._identity, TAG_CONTROL, session._last_reply)
            return
        if number < session._number:
            return
        try:
            reply = {"type": "ok", "number": number} | self._perform(session, kind, fields)
        except (_RefusedError, ProtocolError, SegmentError) as error:
            reply = {"type": "error", "number": number, "sentence": str(error)[:2000]}
        session._number = number
        session._last_reply = pack_control(reply)
        self._send(session._identity, TAG_CONTROL, session._last_reply)

    def _perform(self, session: HostSession, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        if kind == "attach":
            self._attached(session)
        elif kind == "attach_failed":
            sentence = take(fields, "sentence", str)
            if session._memory_kind != "memfd":
                raise _RefusedError(f"no shared memory reaches the game: {sentence}")
            session._memory_kind = "file"
            # It cannot follow our process numbers, so we cannot follow its own.
            self._unwatch(session)
            self._new_ring(session)
            return self._segment_of(session)
        elif kind == "style":
            self._restyle(session, fields)
        elif kind == "change":
            offer = Offer.from_wire(take(fields, "offer", dict))
            self._judge(offer, session)
            before, ring = session.offer, session._ring
            session.offer = offer
            try:
                self._new_ring(session)
            except SegmentError:
                session.offer, session._ring = before, ring
                raise
            if session._attached:
                self._events.append(Resized(session))
            return self._segment_of(session)
        elif kind in ("pause", "resume"):
            session.paused = kind == "pause"
            self._events.append(Paused(session) if session.paused else Resumed(session))
        else:
            raise ProtocolError(f"message type {kind!r} is not known")
        return {}

    def _segment_of(self, session: HostSession) -> dict[str, Any]:
        assert session._ring is not None
        return {"segment": session._ring.address()}

    def _attached(self, session: HostSession) -> None:
        if session._ring is not None:
            session._ring.unname()
        if session._attached:
            return
        session._attached = True
        self.sessions[session.id] = session
        self._events.append(SessionOpened(session))

    def _restyle(self, session: HostSession, fields: dict[str, Any]) -> None:
        epoch = take(fields, "style_epoch", int)
        try:
            style, strength, seed, epoch = self._style_of(fields)
        except (_RefusedError, ProtocolError):
            # Frames of the refused epoch are served in the style before, and their answers say so.
            if 0 < epoch < 1 << 32:
                session._settled_epoch = max(session._settled_epoch, epoch)
            session._held_sequence = 0
            raise
        if epoch <= session.style_epoch:
            raise ProtocolError("a style's epoch must grow")
        session._settle_style(epoch, style, strength, seed)
        self._events.append(StyleChanged(session, style, strength, seed, epoch))

    def _request(self, identity: bytes, fields: dict[str, Any]) -> None:
        number = take(fields, "number", int)
        name = take(fields, "name", str)
        given = take(fields, "fields", dict)
        reply = self._handlers.get(name)
        try:
            if reply is None:
                raise ProtocolError(f"this sidecar answers no request named {name[:64]!r}")
            message = pack_control({"type": "ok", "number": number, "fields": dict(reply(given))})
        except Exception as error:
            if not isinstance(error, BridgeError):
                _log.exception("request %r failed", name[:64])
            sentence = str(error)[:2000] or type(error).__name__
            message = pack_control({"type": "error", "number": number, "sentence": sentence})
        self._send(identity, TAG_CONTROL, message)

    def _watch(self, session: HostSession) -> None:
        """Learn at once when the game's process ends."""
        if session._memory_kind == "memfd" and hasattr(os, "pidfd_open") and 0 < session._pid < 1 << 31:
            with contextlib.suppress(OSError):
                session._pidfd = os.pidfd_open(session._pid)
                self._pidfds[session._pidfd] = session
                self._poller.register(session._pidfd, zmq.POLLIN)

    def _unwatch(self, session: HostSession) -> None:
        if session._pidfd >= 0:
            self._poller.unregister(session._pidfd)
            del self._pidfds[session._pidfd]
            os.close(session._pidfd)
            session._pidfd = -1

    def _forget(self, session: HostSession, reason: str) -> None:
        if self._by_identity.get(session._identity) is session:
            del self._by_identity[session._identity]
        session._closed = True
        self._unwatch(session)
        if session._ring is not None:
            session._ring.unname()
            session._ring = None
        if self.sessions.pop(session.id, None) is not None:
            self._events.append(SessionClosed(session, reason))


class Gate:
    """Answers ZeroMQ's question who may connect (ZAP, RFC 27): the keys on the allow-list, nobody else."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], key_name: str, directory: Path | None
    ) -> None:
        self._key = keys.load(key_name, directory)
        self._directory = directory
        #: Who may speak, as of the last look at the list.
        self.names: frozenset[str] = frozenset()
        self._listed: dict[str, str] = {}
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind("inproc://zeromq.zap.01")

    def guard(self, sock: zmq.Socket[bytes]) -> None:
        """Make ``sock`` ask for keys; must come before its bind."""
        sock.curve_server = True
        sock.curve_secretkey = self._key.secret.encode("ascii")
        sock.curve_publickey = self._key.public.encode("ascii")
        sock.setsockopt(zmq.ZAP_DOMAIN, b"mirage")

    def answer(self) -> None:
        """Answer the questions that wait."""
        while True:
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            name = ""
            if len(parts) == 7 and parts[0] == b"1.0" and parts[5] == b"CURVE" and len(parts[6]) == 32:
                name = self._names().get(zmq.utils.z85.encode(parts[6]).decode("ascii"), "")
            asked = parts[1] if len(parts) > 1 else b""
            verdict = [b"200", b"OK", name.encode()] if name else [b"400", b"this key is not allowed", b""]
            self.socket.send_multipart([b"1.0", asked, *verdict, b""])

    def revoked(self, sessions: tuple[HostSession, ...]) -> list[HostSession]:
        """The sessions whose key is on the list no more."""
        self._names()
        return [session for session in sessions if session.key_name not in self.names]

    def _names(self) -> dict[str, str]:
        try:
            self._listed = {public: name for name, public in keys.allowed(self._directory).items()}
        except EndpointError as error:
            _log.error("nobody is let in: %s", error)
            self._listed = {}
        except OSError as error:
            _log.error("the list of keys cannot be read, so it stays as it was: %s", error)
        self.names = frozenset(self._listed.values())
        return self._listed

    def close(self) -> None:
        self.socket.close(0)


class _RefusedError(BridgeError):
    """A sentence on its way to the game."""

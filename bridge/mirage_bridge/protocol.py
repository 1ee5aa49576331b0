"""Names, numbers and byte layouts of the protocol; ``bridge/PROTOCOL.md`` is its text.

Everything here is pure: no sockets, no memory.  Section numbers are those of the document.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import msgpack
import numpy as np

from .errors import MessageTooLargeError, ProtocolError

__all__ = [
    "COLOR_SPACES",
    "COMPRESSIONS",
    "DELIVERIES",
    "KINDS",
    "MAX_CONTROL_BYTES",
    "MAX_STYLE_BYTES",
    "ORIENTATIONS",
    "PIXEL_FORMATS",
    "PLANES",
    "PROTOCOL_VERSION",
    "Admission",
    "AnswerRecord",
    "Capabilities",
    "DepthConvention",
    "FrameRecord",
    "Layout",
    "MotionConvention",
    "Offer",
    "PlaneLayout",
    "pack_control",
    "unpack_control",
]

# §1 Version -----------------------------------------------------------------------------------------
PROTOCOL_VERSION: Final = (1, 0)

# §2 Limits ------------------------------------------------------------------------------------------
MAX_CONTROL_BYTES: Final = 64 * 1024
# A style travels inside a control message, so it must leave room for the rest of one.
MAX_STYLE_BYTES: Final = 60 * 1024
_NO_TIME: Final = 1 << 63
MAX_SIDE_PIXELS: Final = 16384
MAX_PARTS: Final = 8
IDENTITY_BYTES: Final = 16

# §3 Names -------------------------------------------------------------------------------------------
#: name -> (dtype, channels of the array; RGB10A2 is one packed word a pixel)
PIXEL_FORMATS: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {
        "RGBA8": ("<u1", 4),
        "BGRA8": ("<u1", 4),
        "RGB8": ("<u1", 3),
        "RGB10A2": ("<u4", 1),
        "RGBA16F": ("<f2", 4),
    }
)
#: name -> (dtype, channels), in the order in which they stand in a slot
PLANES: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {"depth": ("<f4", 1), "motion": ("<f2", 2), "mask": ("<u1", 1)}
)
ORIENTATIONS: Final = ("top_down", "bottom_up")
COLOR_SPACES: Final = ("srgb", "linear")
DELIVERIES: Final = ("wait", "newest", "locked")
COMPRESSIONS: Final = ("none", "zlib", "lz4")
KINDS: Final = ("styled", "reprojected", "source")
MEMORY_KINDS: Final = ("memfd", "file", "parts")

# §4 Segment -----------------------------------------------------------------------------------------
PAGE: Final = 4096
SEGMENT_MAGIC: Final = b"MIRAGESM"
#: (name, struct code) in the order in which they stand, little-endian and without gaps
SEGMENT_FIELDS: Final = (
    ("magic", "8s"),
    ("major", "H"),
    ("minor", "H"),
    ("header_bytes", "I"),
    ("generation", "I"),
    ("frame_slots", "H"),
    ("answer_slots", "H"),
    ("total_bytes", "Q"),
    ("token", "16s"),
    ("width", "I"),
    ("height", "I"),
    ("pixel_format", "H"),
    ("planes", "H"),
    ("row_pitch_bytes", "I"),
)
SEGMENT_HEADER: Final = struct.Struct("<" + "".join(code for _, code in SEGMENT_FIELDS))
CONTROL_OFFSET: Final = PAGE
GAME_LINE: Final = 0
HOST_LINE: Final = 512
CONTROL_BYTES: Final = PAGE
SLOTS_OFFSET: Final = 2 * PAGE
SLOT_HEADER_BYTES: Final = 256
SLOT_RECORD_OFFSET: Final = 64
RECORD_BYTES: Final = 128
#: words of a line, as 8-byte indices into it
WORD_PROGRESS: Final = 0
WORD_NEWEST: Final = 1
WORD_PIN: Final = 2
WORD_ASLEEP: Final = 4
PINS: Final = 2
FRAME_SLOTS: Final = 4
ANSWER_SLOTS: Final = 5
MAX_SLOTS: Final = 16

STATE_FREE: Final = 0
STATE_WRITING: Final = 1
STATE_READY: Final = 2
#: Never stands in the state word: a slot is pinned when a pin word of the other side names it.
STATE_PINNED: Final = 3


@dataclass(frozen=True)
class DepthConvention:
    """What the numbers of the depth plane mean.

    ``DepthConvention()`` is linear metres from the camera plane.
    ``DepthConvention("reversed_z", near_m=0.1, far_m=1000.0)`` is a reversed depth buffer: 1 near, 0 far;
    ``far_m=math.inf`` is allowed.
    """

    kind: str = "linear_metres"
    near_m: float = 0.0
    far_m: float = 0.0

    def problem(self) -> str | None:
        """A sentence saying what is wrong, or None."""
        if self.kind not in ("linear_metres", "reversed_z"):
            return f"depth convention {self.kind!r} is not known; use linear_metres or reversed_z"
        if self.kind == "reversed_z" and not 0.0 < self.near_m < self.far_m:
            return "reversed_z depth needs 0 < near_m < far_m"
        return None


@dataclass(frozen=True)
class MotionConvention:
    """What the numbers of the motion plane mean: two halves a pixel, x to the right and y down.

    ``unit`` is ``pixels`` or ``uv`` (1.0 is the whole width or height).  ``direction`` is ``to_previous``
    (previous position minus current position) or ``to_current`` (the negative of it).  ``not_written`` is the
    value of both components where the engine wrote nothing: NaN by default, 0.0 for Unreal.
    """

    unit: str = "pixels"
    direction: str = "to_previous"
    not_written: float = math.nan

    def problem(self) -> str | None:
        """A sentence saying what is wrong, or None."""
        if self.unit not in ("pixels", "uv"):
            return f"motion unit {self.unit!r} is not known; use pixels or uv"
        if self.direction not in ("to_previous", "to_current"):
            return f"motion direction {self.direction!r} is not known; use to_previous or to_current"
        return None


@dataclass(frozen=True)
class Offer:
    """What a game wants to send, as negotiated; see the arguments of `Session`.

    ``size`` is (width, height) in pixels; ``row_pitch_bytes`` 0 means rows without a gap.
    """

    size: tuple[int, int] = (640, 360)
    pixel_format: str = "RGBA8"
    planes: tuple[str, ...] = ()
    orientation: str = "top_down"
    color_space: str = "srgb"
    depth: DepthConvention = field(default_factory=DepthConvention)
    motion: MotionConvention = field(default_factory=MotionConvention)
    row_pitch_bytes: int = 0
    delivery: str = "wait"
    budget_ns: int = 16_670_000
    compression: str = "none"

    def problem(self) -> str | None:
        """A sentence saying what the protocol does not know, or None.  What a host can do is another
        question.
        """
        width, height = self.size
        if not (0 < width <= MAX_SIDE_PIXELS and 0 < height <= MAX_SIDE_PIXELS):
            return f"size {width}x{height} is out of range; each side is 1 to {MAX_SIDE_PIXELS} pixels"
        for what, value, known in (
            ("pixel format", self.pixel_format, tuple(PIXEL_FORMATS)),
            ("orientation", self.orientation, ORIENTATIONS),
            ("color space", self.color_space, COLOR_SPACES),
            ("delivery", self.delivery, DELIVERIES),
            ("compression", self.compression, COMPRESSIONS),
        ):
            if value not in known:
                return f"{what} {value!r} is not known; use one of {', '.join(known)}"
        for plane in self.planes:
            if plane not in PLANES:
                return f"plane {plane!r} is not known; use any of {', '.join(PLANES)}"
        if len(set(self.planes)) != len(self.planes):
            return "a plane is named twice"
        tight = width * pixel_bytes(self.pixel_format)
        itemsize = np.dtype(PIXEL_FORMATS[self.pixel_format][0]).itemsize
        if self.row_pitch_bytes and not tight <= self.row_pitch_bytes <= 2 * tight + PAGE:
            return f"row pitch {self.row_pitch_bytes} is out of range for {tight} bytes a row"
        if self.row_pitch_bytes % itemsize:
            return f"row pitch {self.row_pitch_bytes} is not a multiple of {itemsize} bytes"
        if not 0 < self.budget_ns <= 60_000_000_000:
            return "budget is out of range; use more than 0 and at most 60000 ms"
        return self.depth.problem() or self.motion.problem()

    def to_wire(self) -> dict[str, Any]:
        """The msgpack-able fields of this offer."""
        return {
            "size": list(self.size),
            "pixel_format": self.pixel_format,
            "planes": list(self.planes),
            "orientation": self.orientation,
            "color_space": self.color_space,
            "depth": [self.depth.kind, self.depth.near_m, self.depth.far_m],
            "motion": [self.motion.unit, self.motion.direction, self.motion.not_written],
            "row_pitch_bytes": self.row_pitch_bytes,
            "delivery": self.delivery,
            "budget_ns": self.budget_ns,
            "compression": self.compression,
        }

    @staticmethod
    def from_wire(fields: Mapping[str, Any]) -> Offer:
        """Read `to_wire` back from a peer; raises `ProtocolError` naming the field that is wrong."""
        size = take(fields, "size", list)
        if len(size) != 2 or not all(_is_int(side) for side in size):
            raise ProtocolError("field 'size' must be [width, height]")
        planes = take(fields, "planes", list)
        if len(planes) > len(PLANES) or not all(isinstance(plane, str) for plane in planes):
            raise ProtocolError("field 'planes' must be a short list of names")
        depth = take(fields, "depth", list)
        if (
            len(depth) != 3
            or not isinstance(depth[0], str)
            or not all(_is_number(each) for each in depth[1:])
        ):
            raise ProtocolError("field 'depth' must be [kind, near_m, far_m]")
        motion = take(fields, "motion", list)
        if (
            len(motion) != 3
            or not all(isinstance(each, str) for each in motion[:2])
            or not _is_number(motion[2])
        ):
            raise ProtocolError("field 'motion' must be [unit, direction, not_written]")
        return Offer(
            size=(size[0], size[1]),
            pixel_format=take(fields, "pixel_format", str),
            planes=tuple(planes),
            orientation=take(fields, "orientation", str),
            color_space=take(fields, "color_space", str),
            depth=DepthConvention(depth[0], float(depth[1]), float(depth[2])),
            motion=MotionConvention(motion[0], motion[1], float(motion[2])),
            row_pitch_bytes=take(fields, "row_pitch_bytes", int),
            delivery=take(fields, "delivery", str),
            budget_ns=take(fields, "budget_ns", int),
            compression=take(fields, "compression", str),
        )


@dataclass(frozen=True)
class Capabilities:
    """What a host can serve; everything else is refused with a sentence that lists this.

    ``max_size`` is (width, height) in pixels; ``max_sessions`` counts games at once.
    """

    pixel_formats: tuple[str, ...] = ("RGBA8", "BGRA8")
    planes: tuple[str, ...] = tuple(PLANES)
    orientations: tuple[str, ...] = ORIENTATIONS
    color_spaces: tuple[str, ...] = COLOR_SPACES
    deliveries: tuple[str, ...] = DELIVERIES
    compressions: tuple[str, ...] = COMPRESSIONS
    min_size: tuple[int, int] = (8, 8)
    max_size: tuple[int, int] = (7680, 4320)
    max_sessions: int = 16

    def problem(self, offer: Offer) -> str | None:
        """Why ``offer`` cannot be served, as a sentence that says what can be; None if it can."""
        sentence = offer.problem()
        if sentence is not None:
            return sentence
        for what, value, served in (
            ("pixel format", offer.pixel_format, self.pixel_formats),
            ("orientation", offer.orientation, self.orientations),
            ("color space", offer.color_space, self.color_spaces),
            ("delivery", offer.delivery, self.deliveries),
            ("compression", offer.compression, self.compressions),
            *(("plane", plane, self.planes) for plane in offer.planes),
        ):
            if value not in served:
                return f"{what} {value} is not served here; use one of {', '.join(served) or '(none)'}"
        (width, height), (least_w, least_h), (most_w, most_h) = offer.size, self.min_size, self.max_size
        if not (least_w <= width <= most_w and least_h <= height <= most_h):
            return f"size {width}x{height} is not served here; use {least_w}x{least_h} to {most_w}x{most_h}"
        return None


@dataclass(frozen=True)
class Admission:
    """A host's yes.  ``info`` is told to the game (tier, device, ...): msgpack-able, a few KB at most."""

    info: Mapping[str, Any] = field(default_factory=dict)


def pixel_bytes(pixel_format: str) -> int:
    """Bytes of one pixel."""
    dtype, channels = PIXEL_FORMATS[pixel_format]
    return np.dtype(dtype).itemsize * channels


# §4 Layout ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PlaneLayout:
    """Where a plane stands in a slot: ``offset`` and ``strides`` in bytes, ``shape`` with rows first."""

    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class Layout:
    """Where everything stands in a segment: a pure function of what was negotiated.

    Both sides compute it and neither reads an offset from the other.
    """

    size: tuple[int, int]
    pixel_format: str
    planes: tuple[str, ...]
    row_pitch_bytes: int
    frame_slots: int
    answer_slots: int
    frame_planes: Mapping[str, PlaneLayout]
    frame_slot_bytes: int
    answer_slot_bytes: int
    frames_offset: int
    answers_offset: int
    total_bytes: int

    @staticmethod
    def of(offer: Offer, frame_slots: int = FRAME_SLOTS, answer_slots: int = ANSWER_SLOTS) -> Layout:
        """The layout for an offer that has no `Offer.problem`."""
        pixels = _plane(0, *PIXEL_FORMATS[offer.pixel_format], offer.size, offer.row_pitch_bytes)
        planes = {"pixels": pixels}
        end = _page_up(pixels.size_bytes)
        for name, (dtype, channels) in PLANES.items():
            if name in offer.planes:
                planes[name] = _plane(end, dtype, channels, offer.size, 0)
                end = _page_up(end + planes[name].size_bytes)
        answer_slot_bytes = _page_up(pixels.size_bytes)
        frames_offset = SLOTS_OFFSET + _page_up((frame_slots + answer_slots) * SLOT_HEADER_BYTES)
        answers_offset = frames_offset + frame_slots * end
        return Layout(
            size=offer.size,
            pixel_format=offer.pixel_format,
            planes=tuple(name for name in PLANES if name in offer.planes),
            row_pitch_bytes=pixels.strides[0],
            frame_slots=frame_slots,
            answer_slots=answer_slots,
            frame_planes=MappingProxyType(planes),
            frame_slot_bytes=end,
            answer_slot_bytes=answer_slot_bytes,
            frames_offset=frames_offset,
            answers_offset=answers_offset,
            total_bytes=answers_offset + answer_slots * answer_slot_bytes,
        )

    def header(self, generation: int, token: bytes) -> bytes:
        """The segment header that stands at offset 0."""
        planes = sum(1 << bit for bit, name in enumerate(PLANES) if name in self.planes)
        return SEGMENT_HEADER.pack(
            SEGMENT_MAGIC,
            *PROTOCOL_VERSION,
            SEGMENT_HEADER.size,
            generation,
            self.frame_slots,
            self.answer_slots,
            self.total_bytes,
            token,
            *self.size,
            list(PIXEL_FORMATS).index(self.pixel_format),
            planes,
            self.row_pitch_bytes,
        )


def _plane(offset: int, dtype: str, channels: int, size: tuple[int, int], pitch: int) -> PlaneLayout:
    width, height = size
    item = np.dtype(dtype).itemsize
    pitch = pitch or width * channels * item
    shape = (height, width) if channels == 1 else (height, width, channels)
    strides = (pitch, item) if channels == 1 else (pitch, channels * item, item)
    return PlaneLayout(offset, dtype, shape, strides, pitch * height)


def _page_up(size_bytes: int) -> int:
    return -(-size_bytes // PAGE) * PAGE


# §6 Records -----------------------------------------------------------------------------------------
FRAME_MAGIC: Final = b"MFR1"
ANSWER_MAGIC: Final = b"MAN1"
FLAG_CAMERA_CUT: Final = 1
#: An answer without pixels: show your own frame.
FLAG_NO_PIXELS: Final = 1
MAX_REASON_BYTES: Final = 48

#: As `SEGMENT_FIELDS`; ``reserved`` is zero.
FRAME_FIELDS: Final = (
    ("magic", "4s"),
    ("major", "H"),
    ("slot", "H"),
    ("generation", "I"),
    ("flags", "I"),
    ("sequence", "Q"),
    ("frame_id", "Q"),
    ("input_ns", "Q"),
    ("captured_ns", "Q"),
    ("published_ns", "Q"),
    ("budget_ns", "Q"),
    ("seed", "Q"),
    ("style_epoch", "I"),
    ("strength", "f"),
    ("reserved", "48x"),
)
ANSWER_FIELDS: Final = (
    ("magic", "4s"),
    ("major", "H"),
    ("slot", "H"),
    ("generation", "I"),
    ("flags", "I"),
    ("sequence", "Q"),
    ("frame_id", "Q"),
    ("frame_published_ns", "Q"),
    ("published_ns", "Q"),
    ("service_ns", "Q"),
    ("style_epoch", "I"),
    ("kind", "H"),
    ("reason_bytes", "H"),
    ("edit_age_frames", "I"),
    ("working_width", "I"),
    ("working_height", "I"),
    ("skipped", "I"),
    ("reason", "48s"),
)
_FRAME: Final = struct.Struct("<" + "".join(code for _, code in FRAME_FIELDS))
_ANSWER: Final = struct.Struct("<" + "".join(code for _, code in ANSWER_FIELDS))
assert _FRAME.size == _ANSWER.size == RECORD_BYTES


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One frame's words: the doorbell, and what stands in its slot.  Times are the game's CLOCK_MONOTONIC."""

    slot: int
    generation: int
    sequence: int
    frame_id: int
    input_ns: int
    captured_ns: int
    published_ns: int
    budget_ns: int
    seed: int
    style_epoch: int
    strength: float
    camera_cut: bool = False

    def pack(self) -> bytes:
        """The 128 bytes of §6.1."""
        return _FRAME.pack(
            FRAME_MAGIC,
            PROTOCOL_VERSION[0],
            self.slot,
            self.generation,
            FLAG_CAMERA_CUT if self.camera_cut else 0,
            self.sequence,
            self.frame_id,
            self.input_ns,
            self.captured_ns,
            self.published_ns,
            self.budget_ns,
            self.seed,
            self.style_epoch,
            self.strength,
        )

    @staticmethod
    def unpack(data: bytes | memoryview) -> FrameRecord:
        """Read and range-check a peer's record; raises `ProtocolError`."""
        if len(data) != RECORD_BYTES:
            raise ProtocolError(f"a frame record has {RECORD_BYTES} bytes, not {len(data)}")
        (
            magic, major, slot, generation, flags, sequence, frame_id, input_ns, captured_ns,
            published_ns, budget_ns, seed, style_epoch, strength,
        ) = _FRAME.unpack(data)  # fmt: skip
        if magic != FRAME_MAGIC or major != PROTOCOL_VERSION[0]:
            raise ProtocolError("not a frame record of this protocol version")
        if not 0.0 <= strength <= 1.0:  # NaN fails too
            raise ProtocolError(f"strength {strength} is not within 0 to 1")
        if not 0 < budget_ns <= 60_000_000_000 or flags & ~FLAG_CAMERA_CUT:
            raise ProtocolError("a frame record has a budget or flag out of range")
        if max(frame_id, published_ns) >= _NO_TIME:
            raise ProtocolError("a frame record has a frame id or time out of range")
        # What a game cannot tell is 0; an engine's -1, or a difference that went below 0, is no reason to lose a frame.
        input_ns, captured_ns = (0 if each >= _NO_TIME else each for each in (input_ns, captured_ns))
        return FrameRecord(
            slot, generation, sequence, frame_id, input_ns, captured_ns, published_ns, budget_ns,
            seed, style_epoch, strength, bool(flags & FLAG_CAMERA_CUT),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One answer's words, as they stand in its slot and travel as its doorbell."""

    slot: int
    generation: int
    sequence: int
    frame_id: int
    frame_published_ns: int
    published_ns: int
    service_ns: int
    style_epoch: int
    kind: str
    edit_age_frames: int
    working_size: tuple[int, int]
    skipped: int
    reason: str = ""
    has_pixels: bool = True

    def pack(self) -> bytes:
        """The 128 bytes of §6.2; a reason longer than 48 bytes of UTF-8 is cut between characters."""
        reason = self.reason.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
        return _ANSWER.pack(
            ANSWER_MAGIC,
            PROTOCOL_VERSION[0],
            self.slot,
            self.generation,
            0 if self.has_pixels else FLAG_NO_PIXELS,
            self.sequence,
            self.frame_id,
            self.frame_published_ns,
            self.published_ns,
            self.service_ns,
            self.style_epoch,
            KINDS.index(self.kind),
            len(reason),
            self.edit_age_frames,
            *self.working_size,
            self.skipped,
            reason,
        )

    @staticmethod
    def unpack(data: bytes | memoryview) -> AnswerRecord:
        """Read and range-check a peer's record; raises `ProtocolError`."""
        if len(data) != RECORD_BYTES:
            raise ProtocolError(f"an answer record has {RECORD_BYTES} bytes, not {len(data)}")
        (
            magic, major, slot, generation, flags, sequence, frame_id, frame_published_ns, published_ns,
            service_ns, style_epoch, kind, reason_len, edit_age, work_w, work_h, skipped, reason,
        ) = _ANSWER.unpack(data)  # fmt: skip
        if magic != ANSWER_MAGIC or major != PROTOCOL_VERSION[0]:
            raise ProtocolError("not an answer record of this protocol version")
        if kind >= len(KINDS) or reason_len > MAX_REASON_BYTES or flags & ~FLAG_NO_PIXELS:
            raise ProtocolError("an answer record has a kind, flag or reason out of range")
        return AnswerRecord(
            slot, generation, sequence, frame_id, frame_published_ns, published_ns, service_ns, style_epoch,
            KINDS[kind], edit_age, (work_w, work_h), skipped,
            reason[:reason_len].decode("utf-8", "replace"), not flags & FLAG_NO_PIXELS,
        )  # fmt: skip

    def at(self, slot: int, sequence: int, generation: int) -> AnswerRecord:
        """The same answer in another place of the ring."""
        return replace(self, slot=slot, sequence=sequence, generation=generation)


# §5 Control messages --------------------------------------------------------------------------------
TAG_CONTROL: Final = b"C"
TAG_DOORBELL: Final = b"D"
TAG_FRAME: Final = b"F"
TAG_ANSWER: Final = b"A"
TAG_CREDIT: Final = b"K"


def pack_control(fields: Mapping[str, Any]) -> bytes:
    """One control message; raises `MessageTooLargeError` over 64 KB and `ProtocolError` for what msgpack
    cannot say.
    """
    try:
        data: bytes = msgpack.packb(dict(fields), use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(
            f"a message may hold maps, lists, text, bytes, numbers and None only: {error}"
        ) from None
    if len(data) > MAX_CONTROL_BYTES:
        raise MessageTooLargeError(
            f"a control message has {len(data)} bytes; at most {MAX_CONTROL_BYTES} are allowed"
        )
    return data


def unpack_control(data: bytes | memoryview) -> dict[str, Any]:
    """Unpack a peer's control message: a map with text keys and a text ``type``.

    The size is checked before anything is unpacked, so a bomb costs no more than its own bytes.
    Raises `MessageTooLargeError` or `ProtocolError`, and nothing else.
    """
    if len(data) > MAX_CONTROL_BYTES:
        raise MessageTooLargeError(
            f"a control message has {len(data)} bytes; at most {MAX_CONTROL_BYTES} are allowed"
        )
    try:
        fields = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=MAX_CONTROL_BYTES,
            max_bin_len=MAX_CONTROL_BYTES,
            max_array_len=8192,
            max_map_len=1024,
            max_ext_len=0,
            ext_hook=_no_extension,
        )
    except Exception as error:  # msgpack raises a dozen unrelated kinds on bad bytes
        raise ProtocolError(f"a control message is not msgpack: {error}") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise ProtocolError("a control message must be a map with a text field 'type'")
    if not all(isinstance(key, str) for key in fields):
        raise ProtocolError("the keys of a control message must be text")
    return fields


def _no_extension(code: int, data: bytes) -> Any:
    raise ProtocolError(f"msgpack extension {code} is not allowed")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)


def take(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    """Field ``name`` of a peer's message, of type ``kind`` exactly; raises `ProtocolError`."""
    if name not in fields:
        raise ProtocolError(f"field {name!r} is missing")
    value: Any = fields[name]
    if kind is float and _is_int(value):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ProtocolError(f"field {name!r} must be {kind.__name__}, not {type(value).__name__}")
    return value


def check_style(style: object) -> None:
    """Raise `ProtocolError` unless ``style`` is a name or mapping that fits the wire (60 KB)."""
    if not isinstance(style, (str, Mapping)):
        raise ProtocolError("a style is a name or a mapping")
    packed = pack_control({"type": "style", "style": style})
    if len(packed) > MAX_STYLE_BYTES:
        raise MessageTooLargeError(f"a style has {len(packed)} bytes; at most {MAX_STYLE_BYTES} are allowed")
    try:
        unpack_control(packed)  # what the other side would drop without a word is refused here
    except ProtocolError as error:
        why = f"a style that the other side would drop (keys are text, as in {{'2': 'ink'}}): {error}"
        raise ProtocolError(why) from None

"""Frames across the process border: a game on one side, a sidecar on the other.

The game makes a `Session`, draws every frame into `Session.begin_frame` and shows what `Session.wait_answer`
gives; the sidecar makes a `Host`.  ``bridge/PROTOCOL.md`` is the contract between the two.
"""

from __future__ import annotations

import sys

from . import keys
from .endpoint import default_endpoint
from .errors import (
    BridgeError,
    EndpointError,
    EndpointInUseError,
    LeaseError,
    MessageTooLargeError,
    ProtocolError,
    RequestError,
    RequestTimeoutError,
    SegmentError,
    StyleError,
)
from .host import (
    AnswerDraft,
    Event,
    FrameJob,
    Host,
    HostSession,
    Paused,
    Resized,
    Resumed,
    SessionClosed,
    SessionOpened,
    StyleChanged,
)
from .protocol import (
    PROTOCOL_VERSION,
    Admission,
    Capabilities,
    DepthConvention,
    MotionConvention,
    Offer,
)
from .request import request
from .session import Answer, Frame, Session, SessionStats

if sys.byteorder != "little":  # shared words are written in the machine's order and declared little-endian
    raise ImportError("mirage_bridge needs a little-endian machine")

__all__ = [
    "PROTOCOL_VERSION",
    "Admission",
    "Answer",
    "AnswerDraft",
    "BridgeError",
    "Capabilities",
    "DepthConvention",
    "EndpointError",
    "EndpointInUseError",
    "Event",
    "Frame",
    "FrameJob",
    "Host",
    "HostSession",
    "LeaseError",
    "MessageTooLargeError",
    "MotionConvention",
    "Offer",
    "Paused",
    "ProtocolError",
    "RequestError",
    "RequestTimeoutError",
    "Resized",
    "Resumed",
    "SegmentError",
    "Session",
    "SessionClosed",
    "SessionOpened",
    "SessionStats",
    "StyleChanged",
    "StyleError",
    "default_endpoint",
    "keys",
    "request",
]

"""What the bridge raises, drawn once.

BridgeError
├── EndpointError            the address cannot be used
│   └── EndpointInUseError   another host answers there
├── ProtocolError            a peer sent what the protocol does not allow
│   └── MessageTooLargeError over the limit, found before anything was unpacked
├── SegmentError             the shared memory is not what was announced
├── LeaseError               a view was used after its frame, job or answer was given back
├── StyleError               raised by a host's ``check_style``; its sentence goes to the game
└── RequestError             a named request was refused by the host
    └── RequestTimeoutError  nobody replied in time
"""

from __future__ import annotations

__all__ = [
    "BridgeError",
    "EndpointError",
    "EndpointInUseError",
    "LeaseError",
    "MessageTooLargeError",
    "ProtocolError",
    "RequestError",
    "RequestTimeoutError",
    "SegmentError",
    "StyleError",
]


class BridgeError(Exception):
    """Anything the bridge raises on purpose."""


class EndpointError(BridgeError):
    """An endpoint is malformed, unsafe, or cannot be bound."""


class EndpointInUseError(EndpointError):
    """Another live host is bound to the endpoint."""


class ProtocolError(BridgeError):
    """A message or record breaks the protocol."""


class MessageTooLargeError(ProtocolError):
    """A message is over its limit; it was not unpacked."""


class SegmentError(BridgeError):
    """Shared memory could not be made, or is not the memory that was announced."""


class LeaseError(BridgeError):
    """A view into shared memory was used after it was given back."""


class StyleError(BridgeError):
    """A style cannot be served; the sentence is shown to the game."""


class RequestError(BridgeError):
    """The host refused or failed a named request."""


class RequestTimeoutError(RequestError):
    """The host did not reply to a named request in time."""

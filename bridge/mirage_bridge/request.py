"""Asking a host something by name: the client half of `Host.handle`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import zmq

from . import endpoint as endpoints
from .errors import ProtocolError, RequestError, RequestTimeoutError
from .keys import Credentials
from .protocol import IDENTITY_BYTES, TAG_CONTROL, pack_control, take, unpack_control

__all__ = ["request"]


def request(
    endpoint: str | None,
    name: str,
    fields: Mapping[str, Any] | None = None,
    timeout_s: float = 5.0,
    credentials: Credentials | None = None,
) -> dict[str, Any]:
    """Ask the host at ``endpoint`` (None: the default) for ``name`` and return its reply.

    ``fields`` and the reply are msgpack-able mappings of at most 64 KB.  Raises `RequestError` with the
    host's sentence, `RequestTimeoutError` if nobody replied, `EndpointError` for an address that cannot be
    used.
    """
    address = endpoint if endpoint is not None else endpoints.default_endpoint()
    endpoints.check(address)
    number = secrets.randbits(62)
    message = pack_control({"type": "request", "number": number, "name": name, "fields": dict(fields or {})})
    end_s = time.monotonic() + timeout_s
    silent = RequestTimeoutError(
        f"no sidecar replied at {address} within {timeout_s:g} s; is `mirage serve` running?"
    )
    sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    with sock:
        sock.setsockopt(zmq.ROUTING_ID, b"\x02" + secrets.token_bytes(IDENTITY_BYTES - 1))
        endpoints.connect(sock, address, endpoints.needed_credentials(address, credentials))
        if not sock.poll(int(timeout_s * 1000), zmq.POLLOUT):
            raise silent
        sock.send_multipart([TAG_CONTROL, message])
        while True:
            left_ms = int((end_s - time.monotonic()) * 1000)
            if left_ms <= 0 or not sock.poll(left_ms):
                raise silent
            parts = sock.recv_multipart()
            if len(parts) != 2 or parts[0] != TAG_CONTROL:
                continue
            reply = unpack_control(parts[1])
            if reply.get("number") != number:
                continue
            if reply["type"] == "error":
                raise RequestError(take(reply, "sentence", str))
            if reply["type"] != "ok":
                raise ProtocolError(f"an unexpected reply of type {reply['type']!r}")
            given: dict[str, Any] = take(reply, "fields", dict)
            return given

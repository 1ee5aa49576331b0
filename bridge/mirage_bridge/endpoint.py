"""Addresses: the per-user default, what makes one safe, and sockets with every limit set (PROTOCOL §8)."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import zmq

from . import keys
from .errors import EndpointError, EndpointInUseError, ProtocolError
from .keys import Credentials
from .protocol import MAX_CONTROL_BYTES, MAX_PARTS

if sys.platform != "win32":
    import fcntl

__all__ = ["bind", "connect", "default_endpoint", "is_local", "is_loopback"]

HEARTBEAT_MS: Final = 500
HEARTBEAT_TIMEOUT_MS: Final = 3000
#: Messages, not bytes: doorbells and control messages are small, and a lost doorbell costs nothing.
HIGH_WATER: Final = 64
#: The largest remote part: a 16384-pixel-wide frame is refused long before, see `Capabilities.max_size`.
MAX_REMOTE_PART_BYTES: Final = 7680 * 4320 * 8
_MAX_IPC_PATH: Final = 107
#: A context and a socket take six, and libzmq asks for them with an abort.
_SPARE_DESCRIPTORS: Final = 10
_MANY_PARTS: Final = 64
#: ZMQ_IPC_FILTER_UID: libzmq asks the kernel who is at the other end; pyzmq has no name for it.
_IPC_FILTER_UID: Final = 59


def default_endpoint() -> str:
    """``$MIRAGE_ENDPOINT``, else ``ipc://`` in a directory that belongs to this user alone.

    On Windows, which has no such sockets, ``tcp://127.0.0.1:47363``.
    """
    configured = os.environ.get("MIRAGE_ENDPOINT")
    if configured:
        return configured
    if sys.platform == "win32":
        return "tcp://127.0.0.1:47363"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) / "mirage" if runtime else Path(tempfile.gettempdir()) / f"mirage-{os.getuid()}"
    return f"ipc://{base}/bridge"


def is_local(endpoint: str) -> bool:
    """Whether pixels may go through shared memory."""
    return endpoint.startswith("ipc://")


def is_loopback(endpoint: str) -> bool:
    """Whether a tcp endpoint stays on this machine."""
    host, _ = _tcp(endpoint)
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def check(endpoint: str) -> None:
    """Raise `EndpointError` unless ``endpoint`` is a well-formed ipc:// or tcp:// address."""
    if is_local(endpoint):
        _ipc_path(endpoint)
    else:
        _tcp(endpoint)


def configure(sock: zmq.Socket[bytes], endpoint: str) -> None:
    """Every limit ZeroMQ leaves open by default."""
    sock.linger = 0
    sock.sndhwm = sock.rcvhwm = HIGH_WATER
    sock.maxmsgsize = MAX_CONTROL_BYTES if is_local(endpoint) else MAX_REMOTE_PART_BYTES
    sock.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    sock.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
    sock.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    sock.setsockopt(zmq.BACKLOG, 64)
    if "[" in endpoint:
        sock.setsockopt(zmq.IPV6, 1)


def needed_credentials(endpoint: str, given: Credentials | None) -> Credentials | None:
    """The credentials a connection to ``endpoint`` uses; raises `EndpointError` where it needs some and none
    are known.
    """
    if given is not None or is_local(endpoint) or is_loopback(endpoint):
        return given
    return keys.credentials(endpoint)


def check_descriptors() -> None:
    """Raise `EndpointError` where the process is about to run out of descriptors: libzmq aborts it then."""
    spare: list[int] = []
    try:
        for _ in range(_SPARE_DESCRIPTORS):
            spare.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise EndpointError(f"no socket can be made: {error.strerror}; raise the limit (ulimit -n)") from error
    finally:
        for fd in spare:
            os.close(fd)


def receive(
    sock: zmq.Socket[bytes], copy: bool, endless: bool = True
) -> tuple[list[bytes | memoryview], str]:
    """One message if one waits, and the name of the key it came under; ([], "") if none waits.

    Parts over the protocol's most are dropped unseen; unless ``endless``, a message of very many raises
    `ProtocolError`, and what is left of it goes with the socket.  Without ``copy`` large parts are views of ZeroMQ's
    memory.
    """
    parts: list[bytes | memoryview] = []
    user, count = "", 0
    while True:
        count += 1
        if count > _MANY_PARTS and not endless:
            raise ProtocolError("a message without an end")
        try:
            part = sock.recv(zmq.NOBLOCK, copy=copy)
        except zmq.ZMQError:
            return [], ""
        data = part if isinstance(part, bytes) else part.buffer
        if len(parts) <= MAX_PARTS:
            parts.append(data)
        if not sock.getsockopt(zmq.RCVMORE):
            break
    if not isinstance(part, bytes):
        with contextlib.suppress(zmq.ZMQError):
            user = str(part.get("User-Id"))
    return parts, user


def connect(sock: zmq.Socket[bytes], endpoint: str, credentials: Credentials | None = None) -> None:
    """Connect a game's socket; never blocks.  Raises `EndpointError` for an endpoint nobody should trust."""
    if is_local(endpoint):
        directory = _ipc_path(endpoint).parent
        with contextlib.suppress(FileNotFoundError):
            _check_private(directory)
    configure(sock, endpoint)
    sock.setsockopt(zmq.RECONNECT_IVL, 20)
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
    # Nothing is queued for a host that is not there, so nothing stale reaches one that comes later.
    sock.setsockopt(zmq.IMMEDIATE, 1)
    if credentials is not None:
        sock.curve_serverkey = credentials.host_public.encode("ascii")
        sock.curve_publickey = credentials.key.public.encode("ascii")
        sock.curve_secretkey = credentials.key.secret.encode("ascii")
    try:
        sock.connect(endpoint)
    except zmq.ZMQError as error:
        raise EndpointError(f"cannot connect to {endpoint}: {error}") from error


def bind(sock: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind a host's socket and return the address as bound (a port of ``*`` or 0 is filled in).

    Raises `EndpointInUseError` if another host lives there, `EndpointError` if the place is unsafe.  A socket
    file that a dead host left behind is taken over.
    """
    configure(sock, endpoint)
    if not is_local(endpoint):
        _tcp(endpoint)
        _zmq_bind(sock, endpoint)
        return str(sock.get_string(zmq.LAST_ENDPOINT))
    path = _ipc_path(endpoint)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EndpointError(
            f"{path.parent} cannot be made ({error.strerror}): choose another address, or set XDG_RUNTIME_DIR to a "
            "directory of this user"
        ) from error
    _check_private(path.parent)
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        raise EndpointError(f"{path} is there and not a socket; choose another address")  # libzmq would delete a file
    with contextlib.suppress(
        zmq.ZMQError
    ):  # libzmq built without peer credentials: the directory still guards
        sock.setsockopt(_IPC_FILTER_UID, os.getuid())
    with _directory_lock(path.parent):
        # libzmq unlinks whatever stands at the path, so ask first whether somebody lives there.
        if _answers(path):
            raise EndpointInUseError(
                f"{endpoint} is in use by another Mirage host; stop that one or choose another address"
            )
        _zmq_bind(sock, endpoint)
        os.chmod(path, 0o600)
    return endpoint


def identity(endpoint: str) -> int:
    """The inode of a bound ipc address's file; 0 for tcp."""
    return os.stat(_ipc_path(endpoint)).st_ino if is_local(endpoint) else 0


def release(endpoint: str, inode: int) -> None:
    """Remove a host's socket file, if it still is that host's: libzmq leaves it where it was."""
    if not inode:
        return
    path = _ipc_path(endpoint)
    with contextlib.suppress(OSError), _directory_lock(path.parent):
        if os.stat(path).st_ino == inode:
            path.unlink()


def _zmq_bind(sock: zmq.Socket[bytes], endpoint: str) -> None:
    try:
        sock.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            raise EndpointInUseError(
                f"{endpoint} is in use by another program; stop that one or choose another port"
            ) from error
        raise EndpointError(f"cannot bind {endpoint}: {error}") from error


def _ipc_path(endpoint: str) -> Path:
    if sys.platform == "win32":
        raise EndpointError(f"{endpoint}: ipc:// addresses do not work on Windows; use tcp://127.0.0.1:PORT")
    path = Path(endpoint.removeprefix("ipc://"))
    if not path.is_absolute() or path.name in ("", ".."):
        raise EndpointError(f"{endpoint} needs an absolute path, as in ipc:///run/user/1000/mirage/bridge")
    if len(os.fsencode(path)) > _MAX_IPC_PATH:
        raise EndpointError(f"{endpoint} is longer than the {_MAX_IPC_PATH} bytes a socket's path may have")
    return path


def _tcp(endpoint: str) -> tuple[str, str]:
    match = re.fullmatch(r"tcp://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.*_-]+):(\d{1,5}|\*)", endpoint)
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        raise EndpointError(f"{endpoint!r} is not an address; use ipc:///path/socket or tcp://host:port")
    return match[1], match[2]


def _check_private(directory: Path) -> None:
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EndpointError(f"{directory} cannot be looked at ({error.strerror}): choose another address") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise EndpointError(
            f"{directory} is not a directory of this user alone; chmod 700 it or choose another place"
        )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            if error.errno == errno.ENOTSOCK:
                raise EndpointError(f"{path} is a file and not a socket; choose another address") from error
            return True
        return True


@contextlib.contextmanager
def _directory_lock(directory: Path) -> Iterator[None]:
    """Two hosts that start at once ask one after the other; the lock leaves no file behind."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

"""The shared segment: a sealed memfd reached through its owner, or an unlinked file (PROTOCOL §4).

The host owns the memory.  A sealed memfd cannot be truncated under its reader and has no name, so nothing
is left behind by any death.  Where ``/proc/PID/fd`` does not lead to the host (separate PID namespaces, other
systems) a file of random name and mode 0600 stands in until the game has mapped it; its owner holds a lock
on it, so that a file whose both sides died in that moment is known as an orphan and swept by the next host.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .errors import ProtocolError, SegmentError
from .protocol import SEGMENT_HEADER, Layout, take

if sys.platform != "win32":
    import fcntl

__all__ = ["Segment", "file_directory", "sweep"]

TOKEN_BYTES: Final = 16
_SEALS: Final = (fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW) if hasattr(os, "memfd_create") else 0
_FILE_NAME: Final = re.compile(r"mirage-[0-9a-f]{32}")


class Segment:
    """A mapped segment of exactly ``layout.total_bytes``.  ``memory`` is a writable view of all of it.

    The mapping goes away with the last view on it, so dropping a segment never pulls memory from under a
    view.
    """

    def __init__(
        self, layout: Layout, generation: int, token: bytes, mapping: mmap.mmap, fd: int, path: Path | None
    ) -> None:
        self.layout = layout
        self.generation = generation
        self.token = token
        self.memory = memoryview(mapping)
        self._fd = fd
        self._path = path

    @staticmethod
    def create(layout: Layout, generation: int, kind: str) -> Segment:
        """Make a segment to be offered to one game; ``kind`` is ``memfd`` or ``file``.

        Raises `SegmentError` if the machine has no room for it.
        """
        token = secrets.token_bytes(TOKEN_BYTES)
        path: Path | None = None
        fd = -1
        try:
            if kind == "memfd":
                fd = os.memfd_create("mirage", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                os.fchmod(fd, 0o600)
            else:
                path = file_directory() / f"mirage-{secrets.token_hex(16)}"
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
                _lock(fd)
            os.ftruncate(fd, layout.total_bytes)
            if kind == "file" and hasattr(os, "posix_fallocate"):
                # Else whoever first draws where there is no room dies of SIGBUS.
                os.posix_fallocate(fd, 0, layout.total_bytes)
            if kind == "memfd":
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
            mapping = mmap.mmap(fd, layout.total_bytes)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            if path is not None:
                path.unlink(missing_ok=True)
            raise SegmentError(
                f"no shared memory of {layout.total_bytes >> 20} MB could be made ({error}); free memory or "
                f"ask for a smaller size"
            ) from error
        segment = Segment(layout, generation, token, mapping, fd, path)
        header = layout.header(generation, token)
        segment.memory[: len(header)] = header
        return segment

    def address(self) -> dict[str, Any]:
        """Where the game finds this segment, as fields of a message."""
        where: dict[str, Any] = {
            "generation": self.generation,
            "token": self.token,
            "total_bytes": len(self.memory),
        }
        if self._path is None:
            return where | {"memory": "memfd", "pid": os.getpid(), "fd": self._fd}
        return where | {"memory": "file", "path": str(self._path)}

    @staticmethod
    def attach(layout: Layout, address: Mapping[str, Any]) -> Segment:
        """Map the segment a host announced, if it really is that one.

        Raises `SegmentError` if it cannot be reached or is anything else, `ProtocolError` on malformed
        fields.
        """
        generation = take(address, "generation", int)
        token = take(address, "token", bytes)
        total = take(address, "total_bytes", int)
        kind = take(address, "memory", str)
        if len(token) != TOKEN_BYTES or not 0 < generation < 1 << 32:
            raise ProtocolError("the segment's token or generation is out of range")
        if total != layout.total_bytes:
            raise SegmentError(f"the host announced {total} bytes where the layout has {layout.total_bytes}")
        if kind == "memfd":
            fd = _open_memfd(take(address, "pid", int), take(address, "fd", int))
        elif kind == "file":
            fd = _open_file(take(address, "path", str))
        else:
            raise ProtocolError(f"memory kind {kind!r} is not known")
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != total:
                raise SegmentError("the announced memory has another size: it is not the host's segment")
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                raise SegmentError("the announced memory belongs to another user")
            if kind == "memfd" and fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
                raise SegmentError("the announced memory is not sealed against truncation")
            mapping = mmap.mmap(fd, total)
        except OSError as error:
            raise SegmentError(f"the host's memory cannot be mapped: {error}") from error
        finally:
            os.close(fd)
        segment = Segment(layout, generation, token, mapping, -1, None)
        expected = layout.header(generation, token)
        if bytes(segment.memory[: SEGMENT_HEADER.size]) != expected:
            raise SegmentError("the announced memory does not carry the host's header and token")
        return segment

    def unname(self) -> None:
        """Let go of the way in, once the game is in: no descriptor and no name remain."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.unname()


def file_directory() -> Path:
    """Where fallback files stand: memory-backed where there is such a place."""
    return Path("/dev/shm") if os.path.isdir("/dev/shm") else Path(tempfile.gettempdir())


def sweep() -> int:
    """Remove fallback files of this user whose owner died while offering them; returns how many."""
    removed = 0
    if sys.platform == "win32":
        return removed
    for path in file_directory().glob("mirage-*"):
        if not _FILE_NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_uid == os.getuid():
                    # Raises where the owner lives, for the lock goes with its process.
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    removed += 1
            finally:
                os.close(fd)
    return removed


def _lock(fd: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open_memfd(pid: int, fd: int) -> int:
    if not (0 < pid < 1 << 31 and 0 <= fd < 1 << 31):
        raise ProtocolError("the segment's process or descriptor is out of range")
    path = f"/proc/{pid}/fd/{fd}"
    try:
        # Looked at before it is opened: in another PID namespace this is a stranger's descriptor, and
        # opening a device or a pipe has effects.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SegmentError(f"{path} is not memory: the host lives in another PID namespace")
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SegmentError(f"the host's memory cannot be opened through {path}: {error}") from error


def _open_file(name: str) -> int:
    path = Path(name)
    if path.parent != file_directory() or not _FILE_NAME.fullmatch(path.name):
        raise SegmentError(f"the announced file {name!r} is not a segment's name on this machine")
    try:
        # A lease that somebody holds on the file would be waited for.
        flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        fd = os.open(path, flags)
    except OSError as error:
        raise SegmentError(f"the host's memory cannot be opened through {path}: {error}") from error
    if stat.S_IMODE(os.fstat(fd).st_mode) != 0o600 and sys.platform != "win32":
        os.close(fd)
        raise SegmentError(f"the announced file {path} is open to other users")
    # Whoever comes first takes the name away; the host does the same when it hears that the game is in.
    with contextlib.suppress(OSError):
        path.unlink()
    return fd

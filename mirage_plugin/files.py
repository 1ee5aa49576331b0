"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json as json_format
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mirage_plugin.errors import OutputError

__all__ = ["check_writable", "whole_file", "write_json", "write_text"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `path` in the end; where that fails, what stood there stays.

    Its folder is made. What is no ordinary file (a pipe, `/dev/stdout`) is written to as it is. Raises `OutputError`.
    """
    target = Path(os.path.realpath(path))  # a link goes on pointing where it did
    part = target.with_name(f".{target.stem[:80]}.part{target.suffix[:20]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            yield target
            return
        try:
            yield part
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError.at(path, error) from error


def check_writable(path: Path | None) -> None:
    """Say before hours of work that its result will not be written there, not after them; raises `OutputError`."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.is_file() or not path.exists():
            with tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent):
                pass
    except OSError as error:
        raise OutputError.at(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all; raises `OutputError`."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write data as JSON, whole or not at all; raises `OutputError`."""
    write_text(path, json_format.dumps(data, indent=1) + "\n")

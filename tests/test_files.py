"""What is written stands there whole, or what stood there before does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirage_plugin.errors import OutputError
from mirage_plugin.files import check_writable, whole_file, write_json, write_text


def write_half(path: Path, error: Exception) -> None:
    with whole_file(path) as part:
        part.write_text("half of")
        raise error


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("edited by hand")
    with pytest.raises(OutputError, match="No space"):
        write_half(path, OSError(28, "No space left on device"))
    with pytest.raises(ZeroDivisionError):
        write_half(path, ZeroDivisionError())
    assert path.read_text() == "edited by hand"
    assert [each.name for each in tmp_path.iterdir()] == ["mine.toml"]


def test_folders_are_made_and_links_kept(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "x.json", {"x": 1})
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "a" / "b" / "x.json")
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "a" / "b" / "x.json").read_text() == "new"


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    assert pipe.is_fifo()


def test_what_will_not_be_written_is_said_before(tmp_path: Path) -> None:
    check_writable(None)
    check_writable(tmp_path / "new" / "x.json")
    assert list((tmp_path / "new").iterdir()) == []
    for path in (tmp_path / "new", Path("/proc/x.json"), tmp_path / ("n" * 300)):
        with pytest.raises(OutputError):
            check_writable(path)

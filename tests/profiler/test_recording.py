"""Recordings as files: what is written is read, and what is not whole is refused."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirage_plugin.errors import DataError, OutputError
from mirage_plugin.profiler.record import KINDS
from mirage_plugin.profiler.recording import Recording
from mirage_plugin.profiler.statistics import summary
from tests.profiler.planted import Planted, every


@pytest.fixture
def recording() -> Recording:
    return Planted(every(10, compose=5.0), frames=60).record()


@pytest.fixture
def written(recording: Recording, tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "run.json"
    recording.write(path, summary(recording))
    return path


def test_it_comes_back_as_it_was(recording: Recording, written: Path) -> None:
    again = Recording.read(written)
    for before, after in ((recording.frames, again.frames), (recording.games, again.games)):
        assert before.keys() == after.keys()
        for name in before:
            assert before[name].dtype == after[name].dtype
            assert np.array_equal(before[name], after[name], equal_nan=True)
    assert (again.reasons, again.game_reasons) == (recording.reasons, recording.game_reasons)
    assert (again.info, again.sessions, again.lost) == (recording.info, recording.sessions, 0)
    assert summary(again) == summary(recording)
    assert [path.name for path in written.parent.iterdir()] == ["run.json"], "no half file is left"


def test_the_figures_stand_beside_it(written: Path) -> None:
    figures = json.loads(written.read_text())
    assert (figures["frames"], figures["budget_ms"], figures["missed"]) == (60, 16.67, 6)
    assert figures["recording"]["format"] == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(written: Path, share: float) -> None:
    text = written.read_text()
    written.write_text(text[: int(len(text) * share)])
    with pytest.raises(DataError, match="only a part of one"):
        Recording.read(written)


def damaged(path: Path, change: Any) -> Path:
    data = json.loads(path.read_text())
    change(data["recording"])
    path.write_text(json.dumps(data))
    return path


def altered(packed: dict[str, Any], name: str, value: int) -> dict[str, Any]:
    """The same rows, whole, with another value in the first of a column."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), "<i8").copy()
    raw[[field for field, _ in packed["fields"]].index(name) * packed["count"]] = value
    data = base64.b64encode(zlib.compress(raw.tobytes())).decode()
    return packed | {"data": data, "crc32": zlib.crc32(raw.tobytes())}


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.pop("games"),
        lambda it: it["frames"].update(count=59),
        lambda it: it["frames"].update(count=-1),
        lambda it: it["frames"].update(count=10**12),
        lambda it: it["frames"].update(crc32=1),
        lambda it: it["frames"].update(data=it["frames"]["data"][:40]),
        lambda it: it["frames"].update(data="?"),
        lambda it: it["frames"].update(data=base64.b64encode(zlib.compress(bytes(10**7))).decode()),
        lambda it: it["frames"].update(fields=[["one", "<i8"]]),
        lambda it: it.update(sessions={"first": {}}),
        lambda it: it.update(reasons=None),
        lambda it: it.update(frames=altered(it["frames"], "kind", len(KINDS))),
        lambda it: it.update(frames=altered(it["frames"], "reason", -1)),
        lambda it: it.update(frames=altered(it["frames"], "action", 2**40)),
    ],
)
def test_a_damaged_recording_is_refused(written: Path, change: Any) -> None:
    with pytest.raises(DataError, match="is damaged"):
        Recording.read(damaged(written, change))


def test_another_version_is_told_what_to_update(written: Path) -> None:
    with pytest.raises(DataError, match=r"format 2 and this Mirage reads 1: update Mirage"):
        Recording.read(damaged(written, lambda it: it.update(format=2)))
    with pytest.raises(DataError, match="record it again"):
        Recording.read(damaged(written, lambda it: it.update(format=0)))


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(DataError, match="cannot be read"):
        Recording.read(path)
    for text, words in (
        ("[]", "holds no recording"),
        ('{"frames": 3}', "mirage profile --json"),
        ("\x00", "part"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            Recording.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a recording"):
        Recording.read(path)


def test_a_place_that_cannot_be_written_is_named(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        recording.write(tmp_path / "file" / "x.json", {})

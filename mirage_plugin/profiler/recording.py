"""Plain data: what was recorded, away from whoever recorded it.

A `Recording` holds one array a field, for the sidecar's frames and, where games told, for theirs. It is built
from the pages of a running sidecar (`Pages`), joined with what games saw (`Recording.with_games`), and kept
as JSON: the figures of `mirage_plugin.profiler.statistics.summary` beside the data itself, packed.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mirage_plugin.errors import DataError
from mirage_plugin.files import write_text
from mirage_plugin.profiler.record import ACTIONS, FIELDS, FLAGS, FORMAT, KINDS

__all__ = ["GAME_FIELDS", "GAME_KINDS", "Columns", "Pages", "Recording"]

Columns = Mapping[str, npt.NDArray[Any]]

GAME_FIELDS: Final[tuple[tuple[str, str], ...]] = tuple(
    (name, "<i8")
    for name in (
        "game",
        "frame_id",
        "started_ns",
        "input_ns",
        "published_ns",
        "asked_ns",
        "waited_ns",
        "shown_ns",
        "answer_frame_id",
        "answer_published_ns",
        "service_ns",
        "kind",
        "reason",
        "edit_age_frames",
        "width",
        "height",
        "sent",
    )
)
"""(name, dtype) of what a game tells of a frame. ``started_ns`` is when the game began it, ``published_ns``
when it was given to the bridge, ``asked_ns`` when the game began to wait, ``waited_ns`` when there was
something to show, ``shown_ns`` when that was on the screen; ``kind`` indexes `GAME_KINDS`; ``sent`` is 0
where there was no sidecar to send to."""
GAME_KINDS: Final = ("styled", "reprojected", "source", "unanswered")

_MAX_FRAMES: Final = 20_000_000
_DTYPES: Final = dict(FIELDS)
_GAME_DTYPES: Final = dict(GAME_FIELDS)


@dataclass(frozen=True)
class Recording:
    """Frames of a sidecar and of the games it served.

    ``frames`` has the columns `FIELDS`, ``games`` has `GAME_FIELDS` (no rows where no game told). ``reasons``
    and ``game_reasons`` are what their ``reason`` columns index. ``info`` and ``sessions`` are what the
    sidecar says of itself and of its games. ``lost`` counts frames that were overwritten before they were
    read.
    """

    frames: Columns
    games: Columns
    reasons: tuple[str, ...] = ("",)
    game_reasons: tuple[str, ...] = ("",)
    info: Mapping[str, Any] = field(default_factory=dict)
    sessions: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    lost: int = 0

    @staticmethod
    def of_rows(rows: npt.NDArray[np.int64], **others: Any) -> Recording:
        """From rows of `Recorder.rows`: int64 [frames, len(FIELDS)]."""
        columns = {}
        for index, (name, dtype) in enumerate(FIELDS):
            columns[name] = np.ascontiguousarray(rows[:, index]).view(dtype)
        return Recording(columns, _no_rows(GAME_FIELDS), **others)

    def __len__(self) -> int:
        return len(self.frames["frame_id"])

    @property
    def game_frames(self) -> int:
        """Frames that games told of."""
        return len(self.games["frame_id"])

    def flag(self, name: str) -> npt.NDArray[np.bool_]:
        """One of `FLAGS`, by frame."""
        bits: npt.NDArray[np.bool_] = (self.frames["flags"] >> FLAGS.index(name) & 1).astype(bool)
        return bits

    def only(self, rows: npt.NDArray[Any]) -> Recording:
        """The frames that ``rows`` (a mask or indices) picks; what games told stays."""
        return replace(self, frames={name: column[rows] for name, column in self.frames.items()})

    def with_games(self, games: Sequence[Columns], reasons: Sequence[str]) -> Recording:
        """Join with what games told, each a set of `GAME_FIELDS` columns.

        The frame of an answer is found by its id and by when it was published, which the answer tells: it is
        when the answer was published, less the service time. The frames of the sidecar get ``delivered_ns``,
        ``input_ns`` and their ``deliver`` stage, which begins when the answer was there and the game asked
        for it: what the game did before it asked is its own time.
        """
        joined = {
            name: np.concatenate([np.asarray(one[name]) for one in games] or [np.empty(0, np.int64)])
            for name, _ in GAME_FIELDS
        }
        frames = {name: column.copy() for name, column in self.frames.items()}
        ids, published = frames["frame_id"].tolist(), frames["published_ns"].tolist()
        where = {key: row for row, key in enumerate(zip(ids, published, strict=True))}
        served_ns = joined["answer_published_ns"] - joined["service_ns"]
        for index, key in enumerate(zip(joined["answer_frame_id"].tolist(), served_ns.tolist(), strict=True)):
            row = where.get(key)
            # An answer that is shown again was delivered long ago.
            if row is None or frames["delivered_ns"][row]:
                continue
            delivered_ns = int(joined["waited_ns"][index])
            start_ns = max(int(joined["answer_published_ns"][index]), int(joined["asked_ns"][index]))
            frames["delivered_ns"][row] = delivered_ns
            frames["deliver_start_ns"][row] = start_ns
            frames["deliver_ns"][row] = max(0, delivered_ns - start_ns)
            if joined["frame_id"][index] == key[0]:
                frames["input_ns"][row] = joined["input_ns"][index]
        return replace(self, frames=frames, games=joined, game_reasons=tuple(reasons))

    # -- as a file ---------------------------------------------------------------------------------------

    def to_json(self, summary: Mapping[str, Any]) -> str:
        """The figures and, under ``recording``, everything they come from."""
        packed = {
            "format": FORMAT,
            "lost": self.lost,
            "reasons": list(self.reasons),
            "game_reasons": list(self.game_reasons),
            "info": dict(self.info),
            "sessions": {str(session): dict(what) for session, what in self.sessions.items()},
            "frames": _pack(self.frames, FIELDS),
            "games": _pack(self.games, GAME_FIELDS),
        }
        return json.dumps({**summary, "recording": packed}, indent=1, default=str) + "\n"

    def write(self, path: Path, summary: Mapping[str, Any]) -> None:
        """Write `to_json` to ``path``, whole or not at all. Raises `OutputError`."""
        write_text(path, self.to_json(summary))

    @staticmethod
    def read(path: Path) -> Recording:
        """Read what `write` wrote. Raises `DataError` for anything else, and says what is wrong."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{path} is not a recording, or only a part of one: record it again") from error
        packed = data.get("recording") if isinstance(data, dict) else None
        if not isinstance(packed, dict):
            raise DataError(f"{path} holds no recording: `mirage profile --json FILE` writes one")
        version = packed.get("format")
        if version != FORMAT:
            newer = isinstance(version, int) and version > FORMAT
            mend = "update Mirage" if newer else "record it again"
            raise DataError(f"{path} has format {version!r} and this Mirage reads {FORMAT}: {mend}")
        try:
            frames, games = _unpack(packed["frames"], FIELDS), _unpack(packed["games"], GAME_FIELDS)
            reasons, game_reasons = _texts(packed["reasons"]), _texts(packed["game_reasons"])
            for columns, name, count in (
                (frames, "action", len(ACTIONS)), (frames, "kind", len(KINDS)), (frames, "reason", len(reasons)),
                (games, "kind", len(GAME_KINDS)), (games, "reason", len(game_reasons)),
            ):  # fmt: skip
                if ((columns[name] < 0) | (columns[name] >= count)).any():
                    raise ValueError(f"it tells of a {name} that is none")
            return Recording(
                frames=frames,
                games=games,
                reasons=reasons,
                game_reasons=game_reasons,
                info=dict(packed["info"]),
                sessions={int(key): dict(what) for key, what in packed["sessions"].items()},
                lost=int(packed["lost"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise DataError(f"{path} is damaged ({error}): record it again") from error


class Pages:
    """Gathers the replies of `Recorder.page` into a `Recording`."""

    def __init__(self) -> None:
        self._rows: list[npt.NDArray[np.int64]] = []
        self._last: Mapping[str, Any] = {}
        self._lost = 0
        #: What to ask for next; None before the first reply.
        self.since: int | None = None

    def add(self, page: Mapping[str, Any]) -> int:
        """Keep a page; returns how many frames it brought. Raises `DataError` for another version."""
        version = page.get("format")
        if version != FORMAT:
            raise DataError(
                f"this sidecar records in format {version!r} and this Mirage reads {FORMAT}: update the older one"
            )
        named = [name for name, _ in FIELDS]
        rows = np.frombuffer(page["rows"], "<i8")
        if page["fields"] != named or rows.size % len(named):
            raise DataError("the sidecar's frames have other fields than this Mirage knows: update the older")
        if self.since is not None and page["first"] < self.since:
            self._rows.clear()  # another sidecar answers there now
        self._rows.append(rows.reshape(-1, len(named)))
        self._lost += page["lost"] if self.since is not None else 0
        self._last = page
        self.since = int(page["next"])
        return len(self._rows[-1])

    @property
    def frames(self) -> int:
        """Frames so far."""
        return sum(len(rows) for rows in self._rows)

    def recording(self, last: int | None = None) -> Recording:
        """Everything so far, or the ``last`` frames."""
        width = len(FIELDS)
        rows = np.concatenate(self._rows) if self._rows else np.empty((0, width), np.int64)
        page = self._last
        return Recording.of_rows(
            rows if last is None else rows[-last:],
            reasons=_texts(page.get("reasons", [""])),
            info=dict(page.get("info", {})),
            sessions={int(key): dict(what) for key, what in page.get("sessions", {}).items()},
            lost=self._lost,
        )


def _pack(columns: Columns, fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
    # Column by column: neighbours are alike, and it packs to a quarter.
    raw = b"".join(np.asarray(columns[name]).astype(dtype).tobytes() for name, dtype in fields)
    count = len(columns[fields[0][0]])
    return {
        "count": count,
        "fields": [list(each) for each in fields],
        "crc32": zlib.crc32(raw),
        "data": base64.b64encode(zlib.compress(raw, 6)).decode("ascii"),
    }


def _unpack(packed: Mapping[str, Any], fields: Sequence[tuple[str, str]]) -> Columns:
    count = packed["count"]
    if [tuple(each) for each in packed["fields"]] != list(fields):
        raise ValueError("its fields are not those of its format")
    if not isinstance(count, int) or not 0 <= count <= _MAX_FRAMES:
        raise ValueError(f"it claims {count!r} frames")
    expected = count * 8 * len(fields)
    unpacker = zlib.decompressobj()
    # Never more than announced: a small file must not fill the memory.
    raw = unpacker.decompress(base64.b64decode(packed["data"], validate=True), expected + 1)
    if len(raw) != expected or zlib.crc32(raw) != packed["crc32"]:
        raise ValueError("its frames are cut off or altered")
    whole = np.frombuffer(raw, "<i8").reshape(len(fields), count)
    return {name: whole[index].view(dtype) for index, (name, dtype) in enumerate(fields)}


def _no_rows(fields: Sequence[tuple[str, str]]) -> Columns:
    return {name: np.empty(0, dtype) for name, dtype in fields}


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values) or ("",)


assert KINDS[:3] == GAME_KINDS[:3]

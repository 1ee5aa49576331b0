"""CSV with the columns that PresentMon 2 writes, so that the tools people have can read it.

A metric that does not exist here is ``NA``, as PresentMon writes it. ``GPU…`` are the sidecar's, where it has
a GPU: they are what Mirage adds to the frame. The columns that begin with ``Mirage`` are ours.
"""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import numpy as np

from mirage_plugin.profiler.record import ACTIONS, GPU_STAGES, KINDS, STAGES
from mirage_plugin.profiler.recording import GAME_KINDS, Recording

__all__ = ["COLUMNS", "to_csv"]

COLUMNS: Final = (
    "Application", "ProcessID", "SwapChainAddress", "PresentRuntime", "SyncInterval", "PresentFlags",
    "AllowsTearing", "PresentMode", "FrameType", "CPUStartTime", "FrameTime", "CPUBusy", "CPUWait",
    "GPULatency", "GPUTime", "GPUBusy", "GPUWait", "DisplayLatency", "DisplayedTime", "AnimationError",
    "AllInputToPhotonLatency", "Dropped",
    "MirageFrame", "MirageAnswer", "MirageReason", "MirageWorkingSize", "MirageEditAge", "MirageEndToEnd",
    "MirageService", "MirageMissed", *(f"Mirage{stage.capitalize()}" for stage in STAGES),
)  # fmt: skip
_NA: Final = "NA"


def to_csv(recording: Recording) -> str:
    """One line a frame: the games' frames where games told, else the sidecar's. Milliseconds."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval=_NA, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_of_games(recording) if recording.game_frames else _of_sidecar(recording))
    return out.getvalue()


def _of_games(recording: Recording) -> list[dict[str, Any]]:
    games, frames = recording.games, recording.frames
    where = {
        key: row
        for row, key in enumerate(zip(frames["frame_id"].tolist(), frames["published_ns"].tolist(), strict=True))
    }
    first_ns = int(games["started_ns"].min())
    lines = []
    for game in np.unique(games["game"]):
        mine = np.flatnonzero(games["game"] == game)
        mine = mine[np.argsort(games["started_ns"][mine], kind="stable")]
        for at, index in enumerate(mine):
            told = {name: int(column[index]) for name, column in games.items()}
            following = mine[at + 1] if at + 1 < len(mine) else None
            before = mine[at - 1] if at else None
            cpu_step = told["started_ns"] - int(games["started_ns"][before]) if before is not None else None
            shown_step = told["shown_ns"] - int(games["shown_ns"][before]) if before is not None else None
            row = where.get((told["answer_frame_id"], told["answer_published_ns"] - told["service_ns"]))
            line = {
                "Application": "game",
                "SwapChainAddress": hex(int(game)),
                "PresentRuntime": "Mirage",
                "FrameType": "Application",
                "CPUStartTime": _ms(told["started_ns"] - first_ns),
                "CPUBusy": _ms(told["published_ns"] - told["started_ns"] + told["shown_ns"] - told["waited_ns"]),
                "CPUWait": _ms(told["waited_ns"] - told["published_ns"]),
                "DisplayLatency": _ms(told["shown_ns"] - told["started_ns"]),
                "Dropped": int(told["kind"] == GAME_KINDS.index("unanswered")),
                "MirageFrame": told["frame_id"],
                "MirageAnswer": GAME_KINDS[told["kind"]],
                "MirageReason": recording.game_reasons[told["reason"]],
                "MirageEditAge": told["edit_age_frames"],
                "MirageWorkingSize": f"{told['width']}x{told['height']}",
            }
            if told["input_ns"]:
                line["AllInputToPhotonLatency"] = _ms(told["shown_ns"] - told["input_ns"])
            if following is not None:
                line["FrameTime"] = _ms(int(games["started_ns"][following]) - told["started_ns"])
                line["DisplayedTime"] = _ms(int(games["shown_ns"][following]) - told["shown_ns"])
            if cpu_step is not None and shown_step is not None:
                line["AnimationError"] = _ms(cpu_step - shown_step)
            if row is not None:
                line |= _of_row(recording, row, told["started_ns"])
            lines.append(line)
    return lines


def _of_sidecar(recording: Recording) -> list[dict[str, Any]]:
    frames = recording.frames
    if not len(recording):
        return []
    start_ns = np.where(frames["captured_ns"] > 0, frames["captured_ns"], frames["published_ns"])
    first_ns = int(start_ns.min())
    lines = []
    for session in np.unique(frames["session"]):
        mine = np.flatnonzero(frames["session"] == session)
        for at, row in enumerate(mine):
            following = mine[at + 1] if at + 1 < len(mine) else None
            line = {
                "Application": "game",
                "SwapChainAddress": hex(int(session)),
                "PresentRuntime": "Mirage",
                "FrameType": "Application",
                "CPUStartTime": _ms(int(start_ns[row]) - first_ns),
                "Dropped": int(frames["kind"][row] == KINDS.index("dropped")),
                "MirageFrame": int(frames["frame_id"][row]),
                "MirageEditAge": int(frames["edit_age_frames"][row]),
                "MirageWorkingSize": f"{int(frames['width'][row])}x{int(frames['height'][row])}",
                "MirageAnswer": KINDS[int(frames["kind"][row])],
            }
            if following is not None:
                line["FrameTime"] = _ms(int(start_ns[following]) - int(start_ns[row]))
            lines.append(line | _of_row(recording, int(row), int(start_ns[row])))
    return lines


def _of_row(recording: Recording, row: int, started_ns: int) -> dict[str, Any]:
    """What the sidecar knows of a frame."""
    frames = recording.frames
    frame = {name: column[row].item() for name, column in frames.items()}
    until = frame["delivered_ns"] or frame["answered_ns"]
    line: dict[str, Any] = {
        "MirageReason": recording.reasons[frame["reason"]] or ACTIONS[frame["action"]],
        "MirageEndToEnd": _ms(until - frame["published_ns"]),
        "MirageService": _ms(frame["answered_ns"] - frame["received_ns"]),
        "MirageMissed": int(frame["flags"] & 1 or until > frame["deadline_ns"]),
    }
    line |= {f"Mirage{stage.capitalize()}": _ms(frame[f"{stage}_ns"]) for stage in STAGES}
    starts = [frame[f"gpu_{stage}_start_ns"] for stage in GPU_STAGES if frame[f"gpu_{stage}_ns"]]
    if starts:
        ends = [frame[f"gpu_{stage}_start_ns"] + frame[f"gpu_{stage}_ns"] for stage in GPU_STAGES]
        busy = sum(frame[f"gpu_{stage}_ns"] for stage in GPU_STAGES)
        span = max(ends) - min(starts)
        line |= {
            "GPULatency": _ms(min(starts) - started_ns),
            "GPUTime": _ms(span),
            "GPUBusy": _ms(busy),
            "GPUWait": _ms(max(0, span - busy)),
        }
    return line


def _ms(time_ns: int) -> str:
    return f"{time_ns / 1e6:.4f}"

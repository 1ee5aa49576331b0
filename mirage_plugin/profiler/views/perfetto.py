"""A trace for the Perfetto UI (https://ui.perfetto.dev): one track a game, a stage a slice.

The trace is built from Perfetto's own schema (the ``perfetto`` package), so a field that does not exist there
cannot be written; `check` reads one back and walks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mirage_plugin.errors import DataError, MissingDependencyError
from mirage_plugin.profiler.record import ACTIONS, FLAGS, GPU_STAGES, KINDS, STAGES
from mirage_plugin.profiler.recording import GAME_KINDS, Recording
from mirage_plugin.profiler.statistics import misses

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check", "to_trace"]

_SEQUENCE: Final = 77
_MONOTONIC: Final = 3  # BUILTIN_CLOCK_MONOTONIC
_SIDECAR, _GAMES = 1, 2
# Frames of one game in flight at once that get a track each.
_MAX_LANES: Final = 16


def to_trace(recording: Recording) -> bytes:
    """The recording as a serialized ``perfetto.protos.Trace``. Times are CLOCK_MONOTONIC."""
    try:
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (  # type: ignore[import-untyped]
            TrackEvent,
        )
        from perfetto.trace_builder.proto_builder import (  # type: ignore[import-untyped]
            TraceProtoBuilder,
        )
    except ModuleNotFoundError:
        raise MissingDependencyError("perfetto") from None
    builder = TraceProtoBuilder()
    _process(builder, _SIDECAR, f"sidecar {recording.info.get('tier', '')}", 1)
    if recording.game_frames:
        _process(builder, _GAMES, "games", 2)
    begin, end = TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_SLICE_END
    late = misses(recording)
    for number, session in enumerate(np.unique(recording.frames["session"])):
        base = 100 + 100 * number
        game = f"game {number + 1}"
        _track(builder, base, f"{game}: CPU", _SIDECAR)
        _track(builder, base + 1, f"{game}: GPU", _SIDECAR)
        _track(builder, base + 2, f"{game}: edit age", _SIDECAR, "frames")
        free_ns: list[int] = []
        for row in np.flatnonzero(recording.frames["session"] == session):
            frame = {name: column[row].item() for name, column in recording.frames.items()}
            start_ns = frame["published_ns"]
            until_ns = max(start_ns + 1, frame["delivered_ns"] or frame["answered_ns"])
            # Slices of one track must nest, and a late frame overlaps the next: it gets a track beside it.
            lane = next((index for index, free in enumerate(free_ns) if free <= start_ns), len(free_ns))
            if lane == len(free_ns) and lane < _MAX_LANES:
                free_ns.append(0)
                _track(builder, base + 3 + lane, f"{game}: frames", _SIDECAR)
            lane = min(lane, _MAX_LANES - 1)
            free_ns[lane] = until_ns
            packet = _event(builder, begin, base + 3 + lane, start_ns)
            packet.track_event.name = f"frame {frame['frame_id']}"
            _annotate(packet, _words(recording, frame, bool(late[row])))
            for stage in ("queue", "deliver"):
                if took_ns := min(frame[f"{stage}_ns"], until_ns - frame[f"{stage}_start_ns"]):
                    packet = _event(builder, begin, base + 3 + lane, frame[f"{stage}_start_ns"])
                    packet.track_event.name = stage
                    _event(builder, end, base + 3 + lane, frame[f"{stage}_start_ns"] + took_ns)
            _event(builder, end, base + 3 + lane, until_ns)
            for track, prefix, stages in ((base, "", STAGES[1:-1]), (base + 1, "gpu_", GPU_STAGES)):
                for name, started_ns, ended_ns in _slices(frame, prefix, stages):
                    packet = _event(builder, begin, track, started_ns)
                    packet.track_event.name = name
                    _event(builder, end, track, ended_ns)
            packet = _event(builder, TrackEvent.TYPE_COUNTER, base + 2, until_ns)
            packet.track_event.counter_value = frame["edit_age_frames"]
            if late[row]:
                packet = _event(builder, TrackEvent.TYPE_INSTANT, base + 3 + lane, frame["deadline_ns"])
                packet.track_event.name = "missed"
    _game_tracks(builder, recording, begin, end)
    serialized: bytes = builder.serialize()
    return serialized


def check(trace: bytes) -> Mapping[str, int]:
    """Read a trace back with Perfetto's schema; returns what is in it, by kind.

    Raises `DataError` where it is no trace, an event lies on a track that is not described, or slices do not
    nest.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    read = Trace()
    try:
        read.ParseFromString(trace)
    except DecodeError as error:
        raise DataError(f"not a Perfetto trace: {error}") from error
    tracks: set[int] = set()
    events: dict[int, list[tuple[int, int]]] = {}
    counts = {"packets": len(read.packet), "tracks": 0, "slices": 0, "instants": 0, "counters": 0}
    for packet in read.packet:
        if packet.HasField("track_descriptor"):
            parent = packet.track_descriptor.parent_uuid
            if parent and parent not in tracks:
                raise DataError(f"track {packet.track_descriptor.name!r} has no parent")
            tracks.add(packet.track_descriptor.uuid)
            counts["tracks"] += 1
        elif packet.HasField("track_event"):
            event = packet.track_event
            if event.track_uuid not in tracks:
                raise DataError(f"an event lies on track {event.track_uuid}, which is not described")
            if event.type == TrackEvent.TYPE_SLICE_BEGIN and not event.name:
                raise DataError("a slice has no name")
            kind = {TrackEvent.TYPE_INSTANT: "instants", TrackEvent.TYPE_COUNTER: "counters"}.get(event.type)
            if kind:
                counts[kind] += 1
                continue
            opens = event.type == TrackEvent.TYPE_SLICE_BEGIN
            counts["slices"] += opens
            events.setdefault(event.track_uuid, []).append((packet.timestamp, 1 if opens else -1))
    for track, changes in events.items():
        depth = 0
        # At the same moment a slice ends before the next begins, as the writer has them.
        for _, change in sorted(changes, key=lambda each: each[0]):
            depth += change
            if depth < 0:
                raise DataError(f"a slice of track {track} ends before it begins")
        if depth:
            raise DataError(f"{depth} slices of track {track} do not end")
    return counts


def _slices(frame: Mapping[str, Any], prefix: str, stages: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """The stages of a frame that were timed, one after the other: (name, start, end)."""
    timed = sorted(
        (frame[f"{prefix}{stage}_start_ns"], frame[f"{prefix}{stage}_ns"], stage)
        for stage in stages
        if frame[f"{prefix}{stage}_ns"]
    )
    for index, (start_ns, took_ns, stage) in enumerate(timed):
        # A stage that runs inside another is taken out of it: the outer one ends where the inner begins.
        until_ns = timed[index + 1][0] if index + 1 < len(timed) else start_ns + took_ns
        yield stage, start_ns, min(start_ns + took_ns, max(start_ns, until_ns))


def _words(recording: Recording, frame: Mapping[str, Any], missed: bool) -> dict[str, str | int | float]:
    flags = [name for bit, name in enumerate(FLAGS) if frame["flags"] >> bit & 1]
    return {
        "answer": KINDS[frame["kind"]],
        "decision": ACTIONS[frame["action"]],
        "reason": recording.reasons[frame["reason"]],
        "working_size": f"{frame['width']}x{frame['height']}",
        "steps": frame["steps"],
        "edit_age_frames": frame["edit_age_frames"],
        "mix": frame["mix"],
        "left_ms": frame["left_ns"] / 1e6,
        "missed": int(missed),
        "flags": ", ".join(flags),
        "skipped": frame["skipped"],
        "gc_ms": frame["gc_ns"] / 1e6,
        "drift_state": frame["drift_state"],
        "drift_output": frame["drift_output"],
    }


def _game_tracks(builder: Any, recording: Recording, begin: int, end: int) -> None:
    games = recording.games
    for game in np.unique(games["game"]):
        track = 10_000 + int(game)
        _track(builder, track, f"game {int(game) + 1}", _GAMES)
        for index in np.flatnonzero(games["game"] == game):
            told = {name: int(column[index]) for name, column in games.items()}
            for name, start, stop in (
                ("draw", told["started_ns"], told["published_ns"]),
                ("wait", told["published_ns"], told["waited_ns"]),
                (f"show {GAME_KINDS[told['kind']]}", told["waited_ns"], told["shown_ns"]),
            ):
                packet = _event(builder, begin, track, start)
                packet.track_event.name = name
                _annotate(packet, {"frame_id": told["frame_id"], "reason": recording.game_reasons[told["reason"]]})
                _event(builder, end, track, max(start, stop))


def _process(builder: Any, uuid: int, name: str, pid: int) -> None:
    packet = builder.add_packet()
    packet.track_descriptor.uuid = uuid
    packet.track_descriptor.process.pid = pid
    packet.track_descriptor.process.process_name = name.strip()
    packet.trusted_packet_sequence_id = _SEQUENCE


def _track(builder: Any, uuid: int, name: str, parent: int, unit: str = "") -> None:
    packet = builder.add_packet()
    packet.track_descriptor.uuid = uuid
    packet.track_descriptor.parent_uuid = parent
    packet.track_descriptor.name = name
    if unit:
        packet.track_descriptor.counter.unit_name = unit
    packet.trusted_packet_sequence_id = _SEQUENCE


def _event(builder: Any, kind: int, track: int, time_ns: int) -> Any:
    packet = builder.add_packet()
    packet.timestamp = max(0, time_ns)
    packet.timestamp_clock_id = _MONOTONIC
    packet.track_event.type = kind
    packet.track_event.track_uuid = track
    packet.trusted_packet_sequence_id = _SEQUENCE
    return packet


def _annotate(packet: Any, words: Mapping[str, str | int | float]) -> None:
    for name, value in words.items():
        note = packet.track_event.debug_annotations.add()
        note.name = name
        if isinstance(value, str):
            note.string_value = value
        elif isinstance(value, int):
            note.int_value = value
        else:
            note.double_value = value

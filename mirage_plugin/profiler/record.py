"""Record: what each frame did and when, into memory that was there before the first frame.

A `Recorder` is a ring of rows of 8-byte words, one row a frame (`FIELDS`). A stage is two looks at the clock
and three stores, about half a microsecond; nothing is allocated, nothing waits, and no GPU is asked to finish
(see `mirage_plugin.profiler.gpu`). Timing stands beside the frame path, not in it::

    recorder = Recorder(info={"tier": "nano", "device": "cpu"})
    activate(recorder)

    @staged("denoise")
    def denoise(...): ...

    row = recorder.begin(session.id, job.frame_id, job.published_ns, job.deadline_ns)
    recorder.decided(decision)
    ...                                              # the stages
    recorder.finish(row, "styled", missed=False)

    host.handle("profile", recorder.page)            # `mirage profile --attach` reads it there

One thread records. All times are CLOCK_MONOTONIC in nanoseconds.
"""

from __future__ import annotations

import functools
import gc
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mirage_plugin.pacing import Decision
    from mirage_plugin.profiler.gpu import GpuClock

__all__ = [
    "ACTIONS",
    "FIELDS",
    "FLAGS",
    "FORMAT",
    "GPU_STAGES",
    "KINDS",
    "STAGES",
    "Recorder",
    "activate",
    "active",
    "staged",
]

P = ParamSpec("P")
R = TypeVar("R")

FORMAT: Final = 1
"""Version of the rows, of `Recorder.page` and of recordings; another number is refused."""

STAGES: Final = (
    "queue",
    "upload",
    "preprocess",
    "condition",
    "denoise",
    "compose",
    "download",
    "publish",
    "deliver",
)
"""What a frame goes through, in order. ``queue`` is from the game's publish to the sidecar's pick-up,
``deliver`` from the sidecar's publish to the game's having it; the latter only the game can tell."""
GPU_STAGES: Final = ("upload", "preprocess", "condition", "denoise", "compose", "download")
"""The stages that a GPU clock can time as well."""
ACTIONS: Final = ("net", "reuse", "source")
KINDS: Final = ("styled", "reprojected", "source", "dropped")
"""What the answer was; a dropped frame was taken and never answered."""
FLAGS: Final = ("missed", "rescued", "short", "camera_cut", "reseeded", "corrected")
"""Names of the bits of a row's ``flags``, lowest first."""

_PLAIN: Final = (
    "session", "frame_id", "input_ns", "captured_ns", "published_ns", "deadline_ns", "received_ns",
    "answered_ns", "delivered_ns", "action", "kind", "reason", "rung", "width", "height", "steps",
    "edit_age_frames", "left_ns", "flags", "skipped", "gc_ns", "cpu_ns", "rss_bytes",
)  # fmt: skip
_REAL: Final = ("mix", "drift_state", "drift_output")
FIELDS: Final[tuple[tuple[str, str], ...]] = (
    *((name, "<i8") for name in _PLAIN),
    *((name, "<f8") for name in _REAL),
    *((f"{stage}_start_ns", "<i8") for stage in STAGES),
    *((f"{stage}_ns", "<i8") for stage in STAGES),
    *((f"gpu_{stage}_start_ns", "<i8") for stage in GPU_STAGES),
    *((f"gpu_{stage}_ns", "<i8") for stage in GPU_STAGES),
)
"""(name, dtype) of a row's words, all of 8 bytes. 0 means *not known* for times."""

_AT: Final = {name: index for index, (name, _) in enumerate(FIELDS)}
_WIDTH: Final = len(FIELDS)
_START: Final = _AT["queue_start_ns"]
_TOOK: Final = _AT["queue_ns"]
_GPU_START: Final = _AT["gpu_upload_start_ns"]
_GPU_TOOK: Final = _AT["gpu_upload_ns"]
_STAGE_INDEX: Final = {stage: index for index, stage in enumerate(STAGES)}
_KIND_INDEX: Final = {kind: index for index, kind in enumerate(KINDS)}
_ACTION_INDEX: Final = {action: index for index, action in enumerate(ACTIONS)}
_MISSED, _RESCUED, _SHORT, _CUT, _RESEEDED, _CORRECTED = (1 << bit for bit in range(len(FLAGS)))

# Of the 64 KB that a message may have; names, reasons and sessions take the rest.
_PAGE_BYTES: Final = 40 * 1024
_MAX_REASONS: Final = 250
_MAX_SESSIONS: Final = 64
_MAX_OPEN: Final = 256
# Reading /proc costs 10 µs: once in so many frames.
_RSS_FRAMES: Final = 64

_active: Recorder | None = None


def activate(recorder: Recorder | None) -> None:
    """Make ``recorder`` the one that `staged` functions write to; None: they cost nothing but a look."""
    global _active
    _active = recorder


def active() -> Recorder | None:
    """The recorder that `staged` functions write to."""
    return _active


def staged(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Time a function as a stage of the frame being served; what it calls is counted once, as its own stage.

    Raises `KeyError` for an unknown stage.
    """
    stage = _STAGE_INDEX[name]

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            recorder = _active
            if recorder is None or not recorder._bases:
                return function(*args, **kwargs)
            clock = recorder._clock
            gpu = recorder.gpu
            if gpu is not None:
                gpu.start(name)
            around_ns, recorder._inner_ns = recorder._inner_ns, 0
            began_ns = clock()
            try:
                return function(*args, **kwargs)
            finally:
                took_ns = clock() - began_ns
                recorder.mark(stage, began_ns, took_ns - recorder._inner_ns)
                recorder._inner_ns = around_ns + took_ns
                if gpu is not None:
                    gpu.stop(name)

        return timed

    return decorate


class Recorder:
    """The ring. ``capacity`` is in frames (480 bytes each); the oldest are overwritten.

    ``info`` is told to whoever asks: ``tier``, ``device`` and what else is known of the sidecar. ``gpu`` is
    the clock of the GPU stages, None on a CPU. ``clock`` and ``cpu_clock`` are for tests.
    """

    def __init__(
        self,
        capacity: int = 32768,
        info: Mapping[str, Any] | None = None,
        gpu: GpuClock | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        cpu_clock: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a recorder holds at least one frame, not {capacity}")
        self.capacity = capacity
        self.info = dict(info or {})
        self.sessions: dict[int, dict[str, Any]] = {}
        self.gpu = gpu
        if gpu is not None:
            gpu.attach(self)
        self._clock = clock
        self._cpu_clock = cpu_clock
        memory = bytearray(8 * _WIDTH * capacity)
        self._store = np.frombuffer(memory, "<i8").reshape(capacity, _WIDTH)
        # Item access through a memoryview takes a third of what numpy's takes.
        self._bytes = memoryview(memory)
        self._words = self._bytes.cast("q")
        self._reals = self._bytes.cast("d")
        self._blank = bytes(8 * _WIDTH)
        self._next = 0
        self._bases: tuple[int, ...] = ()
        # Rows that are not finished, or whose GPU times are still to come: how many wait for each.
        self._open: dict[int, int] = {}
        self._began_cpu: dict[int, int] = {}
        self._reasons: dict[str, int] = {"": 0}
        # Time of the stages inside the one that runs.
        self._inner_ns = 0
        self._gc_began_ns = 0
        self._gc_between_ns = 0
        self._rss_bytes = 0
        gc.callbacks.append(self._on_gc)

    def close(self) -> None:
        """Let go of the interpreter's hooks. Safe to repeat."""
        if self._on_gc in gc.callbacks:
            gc.callbacks.remove(self._on_gc)
        if _active is self:
            activate(None)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def frames(self) -> int:
        """Frames begun since the start."""
        return self._next

    def describe(self, session: int, **what: Any) -> None:
        """Tell whoever asks about a session: ``size``, ``budget_ns``, ``delivery`` and the like."""
        if session not in self.sessions and len(self.sessions) >= _MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        self.sessions.setdefault(session, {}).update(what)

    # -- one frame ---------------------------------------------------------------------------------------

    def begin(
        self,
        session: int,
        frame_id: int,
        published_ns: int,
        deadline_ns: int,
        input_ns: int = 0,
        captured_ns: int = 0,
        skipped: int = 0,
        camera_cut: bool = False,
    ) -> int:
        """A frame was picked up: returns its row, and makes it the one that stages are written to.

        ``input_ns`` and ``captured_ns`` are 0 where the game's clock is not this one.
        """
        now_ns = self._clock()
        row = self._next
        self._next = row + 1
        base = row % self.capacity * _WIDTH
        self._open.pop(row - self.capacity, None)
        self._began_cpu.pop(row - self.capacity, None)
        words = self._words
        self._bytes[8 * base : 8 * (base + _WIDTH)] = self._blank
        words[base] = session
        words[base + 1] = frame_id
        words[base + 2] = input_ns
        words[base + 3] = captured_ns
        words[base + 4] = published_ns
        words[base + 5] = deadline_ns
        words[base + 6] = now_ns
        words[base + _START] = published_ns
        words[base + _TOOK] = max(0, now_ns - published_ns)
        words[base + _AT["skipped"]] = skipped
        words[base + _AT["flags"]] = _CUT if camera_cut else 0
        words[base + _AT["rung"]] = -1
        if self._gc_between_ns:
            words[base + _AT["gc_ns"]], self._gc_between_ns = self._gc_between_ns, 0
        if row % _RSS_FRAMES == 0:
            self._rss_bytes = _rss_bytes()
        words[base + _AT["rss_bytes"]] = self._rss_bytes
        self._open[row] = 1
        self._bases = (base,)
        self._began_cpu[row] = self._cpu_clock()
        return row

    def focus(self, *rows: int) -> None:
        """Write the next stages to these rows: the frames of a batch, or one that is taken up again."""
        self._bases = tuple(row % self.capacity * _WIDTH for row in rows)

    def mark(self, stage: int, began_ns: int, took_ns: int) -> None:
        """A stage (index into `STAGES`) began at ``began_ns`` and took ``took_ns``; repeated ones add up."""
        words = self._words
        for base in self._bases:
            if not words[base + _START + stage]:
                words[base + _START + stage] = began_ns
            words[base + _TOOK + stage] += took_ns

    def stage(self, name: str) -> _Stage:
        """`with recorder.stage("denoise"): ...` where no function is to be decorated."""
        return _Stage(self, name)

    def decided(self, decision: Decision) -> None:
        """Keep what pacing chose for the frame in focus."""
        words = self._words
        for base in self._bases:
            words[base + _AT["action"]] = _ACTION_INDEX[decision.action]
            words[base + _AT["reason"]] = self._reason(decision.reason)
            words[base + _AT["rung"]] = decision.rung
            words[base + _AT["width"]], words[base + _AT["height"]] = decision.size
            words[base + _AT["steps"]] = decision.steps
            words[base + _AT["edit_age_frames"]] = decision.edit_age_frames
            words[base + _AT["left_ns"]] = decision.left_ns
            if decision.short:
                words[base + _AT["flags"]] |= _SHORT
            self._reals[base + _AT["mix"]] = decision.mix

    def finish(
        self,
        row: int,
        kind: str,
        answered_ns: int | None = None,
        missed: bool | None = None,
        rescued: bool = False,
        reseeded: bool = False,
        reason: str | None = None,
        drift_state: float = 0.0,
        drift_output: float = 0.0,
        corrected: bool = False,
    ) -> None:
        """The frame's answer was published at ``answered_ns`` (None: now), or the frame was dropped.

        ``kind`` is one of `KINDS`. ``missed`` None compares with the deadline. ``drift_state`` and
        ``drift_output`` are how far the memory and the picture are from what the training set had, in
        standard deviations. ``corrected``: the frame was out of bounds and its memory was dropped.
        """
        now_ns = self._clock() if answered_ns is None else answered_ns
        base = row % self.capacity * _WIDTH
        words = self._words
        if self._next - row > self.capacity:
            return  # overwritten meanwhile: its words are another frame's
        words[base + _AT["answered_ns"]] = now_ns
        words[base + _AT["kind"]] = _KIND_INDEX[kind]
        if missed is None:
            missed = now_ns > words[base + _AT["deadline_ns"]]
        words[base + _AT["flags"]] |= (
            _MISSED * missed | _RESCUED * rescued | _RESEEDED * reseeded | _CORRECTED * corrected
        )
        if reason is not None:
            words[base + _AT["reason"]] = self._reason(reason)
        self._reals[base + _AT["drift_state"]] = drift_state
        self._reals[base + _AT["drift_output"]] = drift_output
        words[base + _AT["cpu_ns"]] = self._cpu_clock() - self._began_cpu.pop(row, 0)
        if base in self._bases:
            self._bases = tuple(other for other in self._bases if other != base)
        self.settle(row)
        if self.gpu is not None:
            self.gpu.resolve()

    def hold(self, row: int) -> None:
        """Something of this row is still to come: it is not shown before `settle`."""
        self._open[row] = self._open.get(row, 0) + 1

    def settle(self, row: int) -> None:
        """What `hold` or `begin` announced has come."""
        left = self._open.get(row, 0) - 1
        if left > 0:
            self._open[row] = left
        else:
            self._open.pop(row, None)

    def rows_in_focus(self) -> tuple[int, ...]:
        """The rows that stages are written to now."""
        newest = self._next - 1
        slots = (base // _WIDTH for base in self._bases)
        return tuple(newest - (newest - slot) % self.capacity for slot in slots)

    def mark_gpu(self, row: int, stage: str, began_ns: int, took_ns: int) -> None:
        """A GPU stage ran, in the CPU's time; repeated ones add up."""
        if self._next - row > self.capacity:
            return
        base = row % self.capacity * _WIDTH
        index = GPU_STAGES.index(stage)
        if not self._words[base + _GPU_START + index]:
            self._words[base + _GPU_START + index] = began_ns
        self._words[base + _GPU_TOOK + index] += took_ns

    # -- whoever asks ------------------------------------------------------------------------------------

    def page(self, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Finished rows, for `mirage_bridge.Host.handle("profile", recorder.page)`; at most 64 KB packed.

        ``fields`` may have ``since`` (the first row wanted; None: only rows that come from now on, and no
        rows now). The reply has ``next`` to ask with again, ``lost`` rows overwritten before they were
        asked for, ``rows`` as little-endian bytes of `FIELDS`. Raises `ValueError` for a ``since`` that is
        not a row.
        """
        since = (fields or {}).get("since")
        # A frame that is never finished must not hide all later ones.
        recent = self._next - _MAX_OPEN
        end = min((row for row in self._open if row >= recent), default=self._next)
        if since is None:
            since = end
        if not isinstance(since, int) or isinstance(since, bool) or since < 0:
            raise ValueError("'since' is a row number, 0 or more")
        oldest = max(0, self._next - self.capacity)
        # A sidecar that was started anew counts from 0 again.
        first = min(max(since, oldest), end)
        count = min(end - first, _PAGE_BYTES // (8 * _WIDTH))
        return {
            "format": FORMAT,
            "fields": [name for name, _ in FIELDS],
            "first": first,
            "next": first + count,
            "lost": max(0, first - since),
            "rows": self.rows(first, first + count).tobytes(),
            "end": end,
            "reasons": list(self._reasons),
            "sessions": {str(session): what for session, what in self.sessions.items()},
            "info": self.info,
            "pid": os.getpid(),
            "now_ns": self._clock(),
        }

    def rows(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """A copy of rows ``first`` to ``end``: int64 [rows, len(FIELDS)], real numbers as their bits."""
        return self._store[np.arange(first, end) % self.capacity]

    # -- the inside --------------------------------------------------------------------------------------

    def _reason(self, text: str) -> int:
        known = self._reasons.get(text)
        if known is not None:
            return known
        if len(self._reasons) >= _MAX_REASONS:
            return 0
        self._reasons[text] = len(self._reasons)
        return self._reasons[text]

    def _on_gc(self, phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            self._gc_began_ns = self._clock()
            return
        took_ns = self._clock() - self._gc_began_ns
        for base in self._bases:
            self._words[base + _AT["gc_ns"]] += took_ns
        if not self._bases:
            self._gc_between_ns += took_ns


class _Stage:
    """A stage as a ``with`` block."""

    __slots__ = ("_around_ns", "_began_ns", "_name", "_recorder")

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder = recorder
        self._name = name
        self._began_ns = self._around_ns = 0

    def __enter__(self) -> None:
        if self._recorder.gpu is not None:
            self._recorder.gpu.start(self._name)
        self._around_ns, self._recorder._inner_ns = self._recorder._inner_ns, 0
        self._began_ns = self._recorder._clock()

    def __exit__(self, *_: object) -> None:
        recorder = self._recorder
        took_ns = recorder._clock() - self._began_ns
        recorder.mark(_STAGE_INDEX[self._name], self._began_ns, took_ns - recorder._inner_ns)
        recorder._inner_ns = self._around_ns + took_ns
        if recorder.gpu is not None:
            recorder.gpu.stop(self._name)


def _rss_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

"""The GPU's clock: pairs of CUDA events around a stage, read when they are long past.

Nothing here waits for the GPU. An event is recorded before a stage and one after it; frames later, when
``query`` says that both have happened, their times are taken. They are brought to the CPU's clock by two
bounds that every event gives for nothing: it cannot have happened before it was recorded, nor after it was
seen to have happened. The offset between the clocks is moved just far enough to keep both.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from mirage_plugin.profiler.record import GPU_STAGES

if TYPE_CHECKING:
    from mirage_plugin.profiler.record import Recorder

__all__ = ["CudaEvent", "GpuClock"]

# ``elapsed_time`` is a 32-bit float of milliseconds: after two seconds its grain is 0.1 µs, after an hour
# 0.25 ms. So the event that times are measured from is renewed.
_RENEW_NS: Final = 2_000_000_000
# Events in flight beyond this mean a GPU that hangs: stop recording, never grow.
_MAX_PENDING: Final = 256


class CudaEvent(Protocol):
    """What is used of `torch.cuda.Event`."""

    def record(self) -> Any:
        """Enqueue the event on the current stream."""

    def query(self) -> bool:
        """Whether it has happened."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from this event to another that has happened."""


@dataclass(slots=True)
class _Pair:
    rows: tuple[int, ...]
    stage: str
    began: CudaEvent
    ended: CudaEvent
    recorded_ns: int


class GpuClock:
    """Times GPU stages for a `Recorder`.

    ``make_event`` makes timing events (None: `torch.cuda.Event(enable_timing=True)`, and torch is imported
    now). Events are reused, so that a steady stream of frames makes none. Begin and end of a stage are
    recorded on the current stream; around a captured graph, never inside one.
    """

    def __init__(
        self, make_event: Callable[[], CudaEvent] | None = None, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._make = make_event if make_event is not None else _torch_event()
        self._clock = clock
        self._recorder: Recorder | None = None
        self._free: list[CudaEvent] = []
        self._pending: deque[_Pair] = deque()
        self._running: dict[str, tuple[CudaEvent, int]] = {}
        self._reference: CudaEvent | None = None
        self._reference_ns = 0
        #: Pairs that were not recorded because too many were in flight.
        self.skipped = 0

    def attach(self, recorder: Recorder) -> None:
        """Write to ``recorder``; called by it."""
        self._recorder = recorder

    def start(self, stage: str) -> None:
        """The stage's work is about to be enqueued. Stages that have no GPU side are ignored."""
        if stage not in GPU_STAGES:
            return
        if len(self._pending) >= _MAX_PENDING:
            self.skipped += 1
            return
        event = self._free.pop() if self._free else self._make()
        self._running[stage] = (event, self._clock())
        event.record()

    def stop(self, stage: str) -> None:
        """The stage's work is enqueued."""
        running = self._running.pop(stage, None)
        recorder = self._recorder
        if running is None or recorder is None:
            return
        event = self._free.pop() if self._free else self._make()
        event.record()
        rows = recorder.rows_in_focus()
        for row in rows:
            recorder.hold(row)
        self._pending.append(_Pair(rows, stage, running[0], event, running[1]))

    def resolve(self) -> int:
        """Take the times of what has happened, without waiting; returns how many stages that were."""
        done = 0
        while self._pending and self._pending[0].ended.query():
            self._take(self._pending.popleft())
            done += 1
        return done

    def _take(self, pair: _Pair) -> None:
        seen_ns = self._clock()
        if self._reference is None:
            # The first event is taken to have happened as it was recorded; the bounds mend that.
            self._reference, self._reference_ns = pair.began, pair.recorded_ns
        began_ns = self._reference_ns + int(self._reference.elapsed_time(pair.began) * 1e6)
        took_ns = int(pair.began.elapsed_time(pair.ended) * 1e6)
        early_ns = pair.recorded_ns - began_ns
        late_ns = began_ns + took_ns - seen_ns
        if early_ns > 0:
            shift_ns = early_ns
        elif late_ns > 0:
            shift_ns = -late_ns
        else:
            shift_ns = 0
        self._reference_ns += shift_ns
        began_ns += shift_ns
        assert self._recorder is not None
        for row in pair.rows:
            self._recorder.mark_gpu(row, pair.stage, began_ns, took_ns)
            self._recorder.settle(row)
        self._free.append(pair.ended)
        if began_ns - self._reference_ns > _RENEW_NS:
            self._free.append(self._reference)
            self._reference, self._reference_ns = pair.began, began_ns
        elif pair.began is not self._reference:
            self._free.append(pair.began)


def _torch_event() -> Callable[[], CudaEvent]:
    import torch

    return lambda: torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

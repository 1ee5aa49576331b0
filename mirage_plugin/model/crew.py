"""Threads that share the work of one frame in C, as `crew.h` says."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

__all__ = ["MAX_THREADS", "Crew", "crew_of", "usual_threads"]

MAX_THREADS = 8
"""As `CREW` in crew.h."""
_LINE_BYTES = 64


def usual_threads() -> int:
    """How many threads serve where nobody says: half of the processor's, two at least where it has them, four at most.

    A game that waits for its answer leaves its own core to it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, int(min(cores, _quota())))
    return min(cores, max(2, cores // 2), 4)


def _quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """How many cores' time a container gives (`docker --cpus`): who runs on more stands still when it is used up."""
    with contextlib.suppress(OSError, ValueError):
        most, period = (root / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if most == "max" else int(most) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        files = (root / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
        most, period = (file.read_text(encoding="ascii") for file in files)
        return math.inf if int(most) <= 0 else int(most) / int(period)
    return math.inf


class Crew:
    """The calling thread and `threads - 1` others; they live as long as the process."""

    def __init__(self, threads: int = 1) -> None:
        """Start them; they sleep until they are called."""
        if not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"a crew has 1 to {MAX_THREADS} threads, not {threads}")
        self.threads = threads
        self._waiting: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(threads - 1)]
        for number, jobs in enumerate(self._waiting, 1):
            threading.Thread(target=_help, args=(jobs, number, threads), name=f"crew {number}", daemon=True).start()

    def __call__(self, function: Callable[..., Any], phases: int, *given: Any, keep: object = None) -> Any:
        """Call `function(phases, me, threads, *given)` on every thread, and return what it says here, when all is done.

        Of what `given` points to only `keep` has to outlive the call: it is what a thread that comes late may read.
        """
        marks = np.zeros((phases + 1) * _LINE_BYTES, np.uint8)
        at = -(-int(marks.ctypes.data) // _LINE_BYTES) * _LINE_BYTES
        try:
            for jobs in self._waiting:
                # Who is still busy with a frame of before, because something else has its core, is not called.
                if jobs.empty():
                    jobs.put((function, at, given, (marks, keep)))
        finally:
            # Also when Ctrl-C comes between: who was called writes to what would be gone.
            said = function(at, 0, self.threads, *given)
        return said


def _help(jobs: SimpleQueue[Any], me: int, threads: int) -> None:
    while True:
        function, at, given, keep = jobs.get()
        with contextlib.suppress(Exception):  # the caller's thread raises it as well
            function(at, me, threads, *given)
        del function, given, keep  # a frame's memory is its game's again


@functools.cache
def crew_of(threads: int) -> Crew:
    """The one crew of so many threads."""
    return Crew(threads)

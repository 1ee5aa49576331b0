"""The frame-budget profiler: record, then plain data, then views.

`Recorder` and `staged` are what a sidecar needs and all that is imported with this package; `profile` is
``mirage profile``.
"""

from __future__ import annotations

from typing import Any

from mirage_plugin.profiler.gpu import GpuClock
from mirage_plugin.profiler.record import STAGES, Recorder, activate, staged

__all__ = ["STAGES", "GpuClock", "Recorder", "activate", "profile", "staged"]


def profile(**asked: Any) -> int:
    """Run ``mirage profile``; see `mirage_plugin.profiler.command.profile` for the arguments.

    Imported when it is called: a sidecar that records needs none of the views.
    """
    from mirage_plugin.profiler.command import profile as run

    return run(**asked)

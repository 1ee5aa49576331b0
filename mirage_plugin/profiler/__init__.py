"""The frame-budget profiler: record, then plain data, then views."""

from __future__ import annotations

from mirage_plugin.profiler.gpu import GpuClock
from mirage_plugin.profiler.record import STAGES, Recorder, activate, staged

__all__ = ["STAGES", "GpuClock", "Recorder", "activate", "staged"]

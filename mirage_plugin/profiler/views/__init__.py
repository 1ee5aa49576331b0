"""Views of a `mirage_plugin.profiler.recording.Recording`: each takes plain data and gives text or bytes."""

from __future__ import annotations

__all__: list[str] = []

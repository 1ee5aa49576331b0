"""Prometheus metrics of a running sidecar, for whoever watches more than one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mirage_plugin.errors import MissingDependencyError, OutputError
from mirage_plugin.profiler.record import KINDS, STAGES
from mirage_plugin.profiler.statistics import end_to_end_ms, misses

if TYPE_CHECKING:
    from mirage_plugin.profiler.recording import Recording

__all__ = ["Metrics"]

_BUCKETS_MS = (1, 2, 4, 6, 8, 10, 12, 14, 16.67, 20, 25, 33.3, 50, 100)


class Metrics:
    """Counts frames into metrics; ``add`` is fed every new frame once.

    ``port`` serves them at ``http://127.0.0.1:port/metrics``; None serves nothing. Raises `OutputError`
    where the port is in use and `MissingDependencyError` without prometheus_client.
    """

    def __init__(self, port: int | None = None) -> None:
        try:
            import prometheus_client as prometheus
        except ModuleNotFoundError:
            raise MissingDependencyError("prometheus_client") from None
        self._prometheus = prometheus
        self.registry = prometheus.CollectorRegistry()
        self._frames = prometheus.Counter(
            "mirage_frames", "Frames by what answered them", ["answer"], registry=self.registry
        )
        self._missed = prometheus.Counter("mirage_frames_missed", "Frames past their deadline", registry=self.registry)
        self._skipped = prometheus.Counter(
            "mirage_frames_skipped", "Frames passed over for newer ones", registry=self.registry
        )
        self._end_to_end = prometheus.Histogram(
            "mirage_end_to_end_seconds",
            "From the game's publish to the answer's",
            buckets=[ms / 1000 for ms in _BUCKETS_MS],
            registry=self.registry,
        )
        self._stages = prometheus.Counter(
            "mirage_stage_seconds", "Time spent in a stage", ["stage"], registry=self.registry
        )
        self._memory = prometheus.Gauge(
            "mirage_resident_bytes", "Resident memory of the sidecar", registry=self.registry
        )
        self._server: Any = None
        if port is not None:
            try:
                self._server, _ = prometheus.start_http_server(port, addr="127.0.0.1", registry=self.registry)
            except OSError as error:
                raise OutputError(f"port {port} cannot serve metrics ({error.strerror}): choose another") from error

    def add(self, recording: Recording) -> None:
        """Count the frames of ``recording``, which were not counted before."""
        if not len(recording):
            return
        frames = recording.frames
        for index, kind in enumerate(KINDS):
            self._frames.labels(kind).inc(int((frames["kind"] == index).sum()))
        self._missed.inc(int(misses(recording).sum()))
        self._skipped.inc(int(frames["skipped"].sum()))
        for ms in end_to_end_ms(recording):
            self._end_to_end.observe(float(ms) / 1000)
        for stage in STAGES:
            self._stages.labels(stage).inc(float(np.maximum(0, frames[f"{stage}_ns"]).sum()) / 1e9)
        self._memory.set(float(frames["rss_bytes"][-1]))

    def text(self) -> str:
        """The metrics as Prometheus reads them."""
        exposed: bytes = self._prometheus.generate_latest(self.registry)
        return exposed.decode("utf-8")

    def close(self) -> None:
        """Stop serving. Safe to repeat."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

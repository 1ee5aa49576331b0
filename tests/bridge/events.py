"""Reading the JSON lines the programs print."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]


class Events:
    """The lines of one process, read beside the test so that no pipe fills up."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.seen: list[Event] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                self._lines.put(line)
        except ValueError:
            pass  # the test closed the pipe
        self._lines.put(None)

    def until(self, wanted: Callable[[Event], bool], timeout_s: float = 20.0) -> Event:
        """The next event that is wanted; fails the test with what came instead."""
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"timed out; last events: {self.seen[-5:]}") from None
            if line is None:
                raise AssertionError(
                    f"the process ended ({self.process.wait()}); last events: {self.seen[-5:]}"
                )
            event = json.loads(line)
            self.seen.append(event)
            if wanted(event):
                return event

    def named(self, name: str, timeout_s: float = 20.0, **fields: object) -> Event:
        """The next event of that name whose fields are as given."""
        return self.until(
            lambda event: (
                event["event"] == name and all(event.get(key) == value for key, value in fields.items())
            ),
            timeout_s,
        )

    def drain(self) -> list[Event]:
        """Everything that was printed by now."""
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return self.seen
            if line is not None:
                self.seen.append(json.loads(line))

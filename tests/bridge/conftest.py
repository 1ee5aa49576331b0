"""Addresses, real processes and their end."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"

#: The long form of fuzzers, kill matrix and races: minutes to hours instead of seconds.
LONG = bool(os.environ.get("MIRAGE_LONG"))

Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _long_is_not_stuck() -> None:
    """In the long form a test may take longer than what pytest takes for a hang (`faulthandler_timeout`)."""
    if LONG:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An ipc address in a private directory of its own (pytest's own paths can be too long for a socket)."""
    directory = tempfile.mkdtemp(prefix="mb")
    yield f"ipc://{directory}/s"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a program of ``programs/`` with text pipes; all are ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-u", str(PROGRAMS / program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that others keep busy a sidecar may stand still for longer than a game should wait for it.

    Tests of what a hang does put the real bound back.
    """
    monkeypatch.setattr("mirage_bridge.session.STALL_NS", 10_000_000_000)


def shm_names() -> set[str]:
    """The fallback files there are."""
    return {path.name for path in Path("/dev/shm").glob("mirage-*")} if Path("/dev/shm").is_dir() else set()

"""The smallest game is small, runs with and without a sidecar, and is what the README shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.bridge.conftest import Spawn
from tests.bridge.test_session import start_host

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "hello_frame.py"


def play(*arguments: object) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), *map(str, arguments)],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


def test_hello_frame_plays_with_and_without_a_sidecar(endpoint: str, spawn: Spawn) -> None:
    alone = play(3, endpoint)
    assert "no sidecar: start one with: mirage serve" in alone
    assert "frames_offline=3" in alone
    start_host(spawn, endpoint)
    assert "frames=30, frames_offline=0" in play(30, endpoint)


def test_the_readme_shows_it_whole() -> None:
    source = EXAMPLE.read_text()
    assert len(source.splitlines()) <= 30
    assert f"```python\n{source}```" in (ROOT / "bridge" / "README.md").read_text()


def test_the_readme_shows_the_loop_of_the_c_twin() -> None:
    shown = re.findall(r"```c\n(.*?)```", (ROOT / "bridge" / "README.md").read_text(), re.DOTALL)[0]
    source = (ROOT / "bridge" / "c" / "example" / "hello_frame.c").read_text()
    for line in shown.strip().splitlines():
        if not line.startswith("/*"):
            assert line in source, line

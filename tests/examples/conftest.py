"""The sample game is run as a script; its tests import what stands beside that script."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]

from walks import Walk  # noqa: E402


@pytest.fixture(scope="session")
def walk() -> Walk:
    return Walk()

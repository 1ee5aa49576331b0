"""Runs `interpreted/` in a process of its own: Triton decides at import whether it compiles or interprets."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton has wheels for Linux only")
@pytest.mark.parametrize(
    "part", ["pixels or compose", "block or forward", "not (pixels or compose or block or forward)"]
)
def test_kernels_equal_their_references(part: str) -> None:
    """A part at a time, so that what fails is named; the parts together are all of it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rP", "-p", "no:cacheprovider", "-k", part,
         str(HERE / "interpreted" / "check_kernels.py")],
        cwd=ROOT, capture_output=True, text=True, timeout=1500,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    # What failed is told first, what passed after it.
    print(done.stdout[:20000], done.stderr[-5000:])
    assert done.returncode == 0
    assert " passed" in done.stdout

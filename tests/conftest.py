"""What every test stands on: quiet libraries, and a way to say what a test needs of the machine.

`@pytest.mark.needs("cmake", "libzmq")` skips a test where one of these is absent, by name and with the line
that brings it. Where `MIRAGE_TEST_STRICT=1` (set by `.ci/run` once the packages are installed) a package that
is absent is a failure; what no package brings (root, network namespaces, a GPU) is still a skip.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import settings

# Tests of the game draw without a window, and pygame greets nobody.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

# A deadline measures the machine, which others share; what is tested is the answer.
settings.register_profile("mirage", deadline=None, print_blob=True)
settings.load_profile("mirage")


class Need(NamedTuple):
    """Something the machine must have: how to tell, how to get it, and whether a system package brings it."""

    there: Callable[[], bool]
    mend: str
    packaged: bool


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _program(name: str, package: str) -> Need:
    return Need(lambda: shutil.which(name) is not None, f"sudo apt-get install {package}", packaged=True)


NEEDS = {
    "cc": _program("cc", "build-essential"),
    "cmake": _program("cmake", "cmake"),
    "pkg-config": _program("pkg-config", "pkg-config"),
    "valgrind": _program("valgrind", "valgrind"),
    "ip": _program("ip", "iproute2"),
    "tc": _program("tc", "iproute2"),
    "libzmq": Need(
        lambda: _runs("pkg-config", "--exists", "libzmq"), "sudo apt-get install libzmq3-dev", packaged=True
    ),
    "libmsgpack": Need(
        lambda: _runs("pkg-config", "--exists", "msgpack-c") or _runs("pkg-config", "--exists", "msgpack"),
        "sudo apt-get install libmsgpack-dev (or libmsgpack-c-dev)",
        packaged=True,
    ),
    "root": Need(lambda: hasattr(os, "geteuid") and os.geteuid() == 0, "run as root", packaged=False),
    "netns": Need(
        lambda: _runs("unshare", "--net", "true"),
        "run as root where network namespaces are allowed",
        packaged=False,
    ),
    "ziglang": Need(
        lambda: importlib.util.find_spec("ziglang") is not None, "pip install ziglang", packaged=True
    ),
    "atheris": Need(
        lambda: importlib.util.find_spec("atheris") is not None,
        "pip install atheris (Linux on x86-64, Python up to 3.13)", packaged=False,
    ),
    "cuda": Need(_has_cuda, "run on a machine with an NVIDIA GPU", packaged=False),
}


@functools.cache
def _is_there(name: str) -> bool:
    return NEEDS[name].there()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs this machine does not meet."""
    names = [name for mark in item.iter_markers("needs") for name in mark.args]
    if unknown := sorted(set(names) - NEEDS.keys()):
        pytest.fail(f"unknown needs {unknown}; known are {sorted(NEEDS)}")
    missing = [name for name in names if not _is_there(name)]
    if not missing:
        return
    reason = "; ".join(f"needs {name}: {NEEDS[name].mend}" for name in missing)
    if os.environ.get("MIRAGE_TEST_STRICT") == "1" and any(NEEDS[name].packaged for name in missing):
        pytest.fail(reason)
    pytest.skip(reason)

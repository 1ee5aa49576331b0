"""Who may import whom: examples -> bridge; plugin -> bridge, kernels; these two nothing of each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"mirage_bridge", "mirage_kernels", "mirage_plugin", "examples", "benchmarks", "tests"}


class Room(NamedTuple):
    """A folder of code and what may be imported in it."""

    folder: str
    ours: set[str]
    """Which of our own packages, anywhere in a file."""
    others: set[str] | None
    """Which packages, besides the standard library, a file may need to be loaded; None: any."""


ROOMS = [
    Room("bridge/mirage_bridge", {"mirage_bridge"}, {"numpy", "zmq", "msgpack"}),
    Room("kernels/mirage_kernels", {"mirage_kernels"}, {"torch", "triton"}),
    Room("mirage_plugin", {"mirage_plugin", "mirage_bridge", "mirage_kernels"}, None),
    Room("examples", {"examples", "mirage_bridge"}, None),
    Room("benchmarks", OURS - {"tests"}, None),
]


class Import(NamedTuple):
    """One import statement: the top package, where it stands, and whether loading the file depends on it."""

    package: str
    line: int
    needed: bool


def imports(tree: ast.AST, *, needed: bool = True) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name.partition(".")[0], node.lineno, needed)
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays in its own package, which it names by where the file lies.
            if node.level == 0:
                assert node.module is not None
                yield Import(node.module.partition(".")[0], node.lineno, needed)
        else:
            yield from imports(node, needed=needed and not _is_spared(node))


def _is_spared(node: ast.AST) -> bool:
    """Whether the file loads where an import below this node fails."""
    if isinstance(node, ast.Try):
        caught = {ast.unparse(handler.type) for handler in node.handlers if handler.type is not None}
        return bool(caught & {"ImportError", "ModuleNotFoundError"})
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.folder)
def test_a_room_imports_only_what_it_may(room: Room) -> None:
    siblings = (
        {path.stem for path in files(room.folder)} if room.folder in ("examples", "benchmarks") else set()
    )
    wrong = []
    for path in files(room.folder):
        for found in imports(ast.parse(path.read_text(encoding="utf-8"))):
            foreign = found.package in OURS and found.package not in room.ours
            heavy = (
                room.others is not None
                and found.needed
                and found.package not in room.others | room.ours | siblings | sys.stdlib_module_names
            )
            # The bridge may use an optional codec, but never torch: a game process must not load it.
            torch = room.folder.startswith("bridge") and found.package in ("torch", "triton")
            if foreign or heavy or torch:
                wrong.append(f"{path.relative_to(ROOT)}:{found.line} imports {found.package}")
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_what_it_must() -> None:
    source = (
        "import os.path, torch\n"
        "from mirage_bridge.ring import Ring\n"
        "from . import sibling\n"
        "try:\n    import lz4\nexcept ImportError:\n    pass\n"
        "def late() -> None:\n    import triton\n"
        "class A:\n    import msgpack\n"
        "if TYPE_CHECKING:\n    import pygame\n"
    )
    found = {(i.package, i.needed) for i in imports(ast.parse(source))}
    assert found == {
        ("os", True), ("torch", True), ("mirage_bridge", True), ("lz4", False),
        ("triton", False), ("msgpack", True), ("pygame", False),
    }  # fmt: skip


def test_importing_the_bridge_is_light() -> None:
    # How long it takes is a figure of `benchmarks/bridge.py`; what it drags in is what a test can hold.
    heavy = "{'torch', 'triton', 'mirage_plugin', 'mirage_kernels', 'cv2', 'PIL', 'asyncio', 'multiprocessing'}"
    program = f"import sys, mirage_bridge; print(len(sys.modules), *sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, *loaded = done.stdout.split()
    assert not loaded, f"import mirage_bridge loads {', '.join(loaded)}"
    # 267 when this was written, 160 of them numpy's.
    assert int(count) < 330


def test_importing_the_command_line_loads_no_torch() -> None:
    program = "import sys, mirage_plugin.cli; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]

"""The documents tell the truth: their Python runs; the commands, options, targets and files they name exist.

A Python snippet fenced as ```` ```python run ```` is executed in an empty directory.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

from mirage_plugin.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "bridge/README.md", "docs/DATASETS.md", "docs/PROFILER.md", "docs/STYLES.md",
]  # fmt: skip
SHELLS = ("sh", "bash", "shell", "console")


class Fence(NamedTuple):
    """A fenced block of a document."""

    document: str
    line: int
    info: list[str]
    text: str


def fences(document: str, text: str) -> Iterator[Fence]:
    for match in re.finditer(r"^```(\w[^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Fence(document, text.count("\n", 0, match.start()) + 1, match[1].split(), match[2])


ALL = [fence for name in DOCUMENTS for fence in fences(name, (ROOT / name).read_text(encoding="utf-8"))]
RUNNABLE = [fence for fence in ALL if fence.info[0] == "python" and "run" in fence.info]
SHELL_LINES = [
    (fence, line.removeprefix("$ "))
    for fence in ALL
    if fence.info[0] in SHELLS
    for line in fence.text.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def test_the_readme_shows_a_client_of_about_ten_lines() -> None:
    clients = [fence for fence in RUNNABLE if fence.document == "README.md" and "Session(" in fence.text]
    assert clients
    assert min(len(fence.text.splitlines()) for fence in clients) <= 12


@pytest.mark.parametrize("fence", RUNNABLE, ids=lambda fence: f"{fence.document}:{fence.line}")
def test_a_python_snippet_runs(fence: Fence, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", fence.text],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fence", "line"), SHELL_LINES, ids=[f"{fence.document}: {line}" for fence, line in SHELL_LINES]
)
def test_a_shell_line_is_possible(fence: Fence, line: str) -> None:
    assert (problem := _problem(line)) is None, f"{fence.document}:{fence.line}: {problem}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_linked_or_quoted_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)\s#]+)", text)
    # `out/` and `runs/` are written by commands.
    quoted = re.findall(r"`((?:bridge|kernels|mirage_plugin|examples|benchmarks|docs|tests)/[\w./-]*)`", text)
    # Links are relative to the document, quoted paths to the top.
    beside = (ROOT / document).parent
    missing = [link for link in links if not link.startswith("out/") and not (beside / link).exists()]
    assert missing + [path for path in quoted if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    "line",
    [
        "make nonsense",
        "mirage dance",
        "mirage serve --colour red",
        'pip install -e ".[sidecar,nonsense]"',
        "python examples/nonsense.py",
        "sudo launch --missiles",
    ],
)
def test_an_impossible_line_is_found(line: str) -> None:
    assert _problem(line) is not None


def _problem(line: str) -> str | None:
    """Why a shell line of a document cannot be, or None."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment before the command
        words.pop(0)
    match words:
        case ["mirage", *rest]:
            return _mirage_problem(rest)
        case ["make", *rest]:
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            unknown = [word for word in rest if "=" not in word and word not in targets]
            return f"the Makefile has no target {unknown}" if unknown else None
        case ["pip", "install", *rest]:
            return _pip_problem(rest)
        case ["python" | "python3", script, *_] if script.endswith(".py"):
            return None if (ROOT / script).is_file() else f"there is no {script}"
        case ["python", "-c", code]:
            compile(code, "a document", "exec")
            return None
        case ["git" | "cd" | "cmake", *_]:
            return None
        case [program, *_] if program.startswith("build/"):
            return None if (ROOT / "bridge/c/example" / f"{Path(program).name}.c").is_file() else f"no {program}"
    return f"nothing is known of {line!r}; teach this test what it means"


def _mirage_problem(words: list[str]) -> str | None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if words and words[0] == "--help":
        return None
    if not words or words[0] not in commands:
        return f"mirage has no command {words[:1]}"
    options = {name for p in commands[words[0]].params for name in (*p.opts, *p.secondary_opts)} | {
        "--help",
        "-h",
    }
    words = words[: words.index("--")] if "--" in words else words
    unknown = [word for word in words[1:] if word.startswith("-") and word.partition("=")[0] not in options]
    return f"mirage {words[0]} has no option {unknown}" if unknown else None


def _pip_problem(words: list[str]) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        if (match := re.fullmatch(r"(?:\.|([\w-]+))(?:\[([\w,]+)\])?", word)) and not word.startswith("-"):
            if match[1] not in (None, project["name"]):
                return f"{word} is not this project"
            if (
                unknown := set(filter(None, (match[2] or "").split(",")))
                - project["optional-dependencies"].keys()
            ):
                return f"there are no extras {sorted(unknown)}"
    return None

"""The `mirage` command's outermost layer: what the user sees when something goes wrong.

Exit codes: 0 done, 1 failed or cannot run here, 2 wrong use or an error that says what to do, 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mirage_plugin.errors import MirageError, MissingDependencyError

__all__ = ["main"]

# Packages of the `sidecar` extra whose absence means that the extra was not installed.
_SIDECAR_PACKAGES = frozenset({"torch", "safetensors", "numba", "cv2", "PIL", "matplotlib", "av", "hdrh"})
_GAME_PACKAGES = frozenset({"pygame"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mirage` with `arguments` (default: the command line's) and return its exit code.

    No traceback reaches the user: an unexpected exception is written to a file whose path is printed, and
    shown in full only where the environment has `MIRAGE_DEBUG=1`.
    """
    try:
        import rich  # noqa: F401 - wanted later, and not without it

        from mirage_plugin.cli import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            return _unexpected(error)
        _say('the command line is not installed: pip install "mirage-plugin[sidecar]"')
        return 1
    for stream in (sys.stdout, sys.stderr):
        # A mark that the terminal's encoding lacks is no reason to stop.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with _ended_in_order():
        return _run(app, arguments)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: its children are stopped, and what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(app: Callable[..., Any], arguments: Sequence[str] | None) -> int:
    try:
        app(args=None if arguments is None else list(arguments), prog_name="mirage")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        return 130
    except MissingDependencyError as error:
        _say(str(error))
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _SIDECAR_PACKAGES | _GAME_PACKAGES:
            _say(str(MissingDependencyError(package, "game" if package in _GAME_PACKAGES else "sidecar")))
            return 1
        return _unexpected(error)
    except Exception as error:
        if isinstance(error, MirageError) or _is_of_the_bridge(error):
            if os.environ.get("MIRAGE_DEBUG") == "1":
                traceback.print_exception(error)
            _say(str(error))
            return 2
        return _unexpected(error)
    return 0


def _is_of_the_bridge(error: Exception) -> bool:
    """Whether the bridge raised it on purpose: its errors are sentences for the user too."""
    # Where the bridge was not imported, it has raised nothing.
    errors = sys.modules.get("mirage_bridge.errors")
    return errors is not None and isinstance(error, errors.BridgeError)


def _unexpected(error: BaseException) -> int:
    """Keep the traceback of a bug in a file, tell where, and return the exit code."""
    if os.environ.get("MIRAGE_DEBUG") == "1":
        traceback.print_exception(error)
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="mirage-", suffix=".traceback.txt", delete=False, encoding="utf-8",
            errors="backslashreplace",
        ) as file:
            file.write(f"mirage {' '.join(sys.argv[1:])}\nPython {sys.version}\n\n{text}")
        where = f"the traceback is in {Path(file.name)}; please report it"
    except OSError:
        where = "set MIRAGE_DEBUG=1 to see the traceback"
    _say(f"an unexpected {type(error).__name__} stopped this command ({where})")
    return 1


def _say(sentence: str) -> None:
    """Print one sentence to stderr, in colour where rich is installed and the terminal has it."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ModuleNotFoundError:
        print(f"mirage: {sentence}", file=sys.stderr)
        return
    # Text: a path with [brackets] in it is not markup. Soft wrap: a path stays one line that can be copied.
    Console(stderr=True).print(Text.assemble(("mirage: ", "bold red"), sentence), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

"""The C files of this package, compiled for this processor when they are first needed, and kept.

A wheel built for every processor would have to leave out what makes them fast here. The compiler is the system's own,
or where there is none the one that the package `ziglang` brings. Without either, numba's loops and PyTorch do the work.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mirage_kernels.pixelate import block_side
from mirage_plugin.config import cache_directory
from mirage_plugin.model import cpu_pixels
from mirage_plugin.model.crew import crew_of

__all__ = ["compilers", "compose_pixels", "library", "pixelate", "why_not_native"]

_FLAGS = (
    "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-std=gnu11",
    *(() if sys.platform == "win32" else ("-fPIC",)),
)  # fmt: skip
_LIBRARIES = () if sys.platform == "win32" else ("-lm",)
_TIMEOUT_S = 120


def _processor() -> str:
    """What code compiled for this processor depends on."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next((line for line in file if line.startswith(("flags", "Features"))), platform.processor())
    except OSError:
        return platform.processor() + platform.platform()


def _sources(name: str) -> dict[str, bytes]:
    """A C file of this package, and the headers beside it that it includes, by name."""
    found: dict[str, bytes] = {}
    wanted = [name]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = resources.files("mirage_plugin.model").joinpath(name).read_bytes()
            wanted += re.findall(r'^#include "(.+)"', found[name].decode(), re.MULTILINE)
    return found


def compilers() -> list[tuple[str, ...]]:
    """Commands that compile C here: the system's own before the one that the package `ziglang` brings."""
    paths: dict[str, str] = {}
    for path in map(shutil.which, ("cc", "gcc", "clang")):
        if path:  # `cc` is mostly one of the others by another name
            paths.setdefault(os.path.realpath(path), path)
    found: list[tuple[str, ...]] = [(path,) for path in paths.values()]
    if importlib.util.find_spec("ziglang"):
        found.append((sys.executable, "-m", "ziglang", "cc"))
    return found


@functools.cache
def library(name: str, *more: str) -> ctypes.CDLL:
    """Compile `<name>.c` of this package, with `more` flags, or load what was compiled before.

    Raises `OSError` or `subprocess.SubprocessError`.
    """
    flags, sources = (*_FLAGS, *more), _sources(f"{name}.c")
    # Every file that is read counts, or a change of a header would go on being served as it was.
    texts = [text for key in sorted(sources) for text in (key.encode(), sources[key])]
    failed: OSError | subprocess.SubprocessError = OSError("there is no C compiler")
    for compiler in compilers():
        version = metadata.version("ziglang") if "ziglang" in compiler else os.path.realpath(compiler[0])
        key = hashlib.sha256(b"\0".join([*texts, version.encode(), *map(str.encode, flags)]))
        key.update(_processor().encode())
        made = f"{name}-{key.hexdigest()[:20]}.so"
        # Where files are kept, unless that is full, read-only, or nothing there may be run.
        for folder in (_kept, _scratch):
            try:
                where = folder() / made
                if not _whole(where):
                    _compile([*compiler, *flags], name, sources, where)
                return ctypes.CDLL(str(where))
            except subprocess.SubprocessError as error:
                failed = error
                break  # of another folder the compiler thinks the same
            except OSError as error:
                failed = error
    raise failed


def _kept() -> Path:
    """Where what is compiled stays from start to start. Raises `OSError` where this user has no place for it."""
    try:
        return cache_directory() / "native"
    except RuntimeError as error:  # neither a home nor an entry among the users
        raise OSError(str(error)) from error


def _seal(made: Path) -> Path:
    return made.with_name(f"{made.name}.sha256")


def _whole(made: Path) -> bool:
    """Whether a file is what the compiler wrote: one that a power cut or a full disk left would crash every start."""
    try:
        return hashlib.sha256(made.read_bytes()).hexdigest() == _seal(made).read_text(encoding="ascii")
    except (OSError, ValueError):
        return False


@functools.cache
def _scratch() -> Path:
    """A folder of this process alone, where nothing can be kept: it compiles anew at every start."""
    folder = tempfile.mkdtemp(prefix="mirage-native-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _compile(command: list[str], name: str, sources: dict[str, bytes], to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    # Where zig keeps what it builds of the C library at its first call.
    kept = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(to.parent / "zig"))
    with tempfile.TemporaryDirectory(dir=to.parent) as scratch:
        for file, text in sources.items():
            (Path(scratch) / file).write_bytes(text)
        made = Path(scratch) / f"{name}.so"
        try:
            subprocess.run(
                [*command, "-o", str(made), str(Path(scratch) / f"{name}.c"), *_LIBRARIES],
                check=True, capture_output=True, timeout=_TIMEOUT_S, env=os.environ | kept,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {error.returncode}"]
            # Of many lines the first error is what is wrong; the command is as long as a page.
            why = next((line for line in said if "error" in line), said[-1])
            raise subprocess.SubprocessError(f"{command[0]}: {why.strip()[:200]}") from error
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        # The seal last: it belongs to a file that is there.
        made.replace(to)
        _seal(to).write_text(digest, encoding="ascii")


@functools.cache
def _load() -> tuple[Any, str]:
    """The compiled functions, or None and why."""
    try:
        compiled = library("compose")
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)
    compose = compiled.mirage_compose
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_ssize_t
    compose.argtypes = [
        pointer, number, number,
        pointer, size, pointer, size, number, number, number, *[pointer] * 5, number, number, pointer, size,
        ctypes.c_float, number, number, pointer, number, number, ctypes.c_float, ctypes.c_float,
    ]  # fmt: skip
    compose.restype = number
    compiled.mirage_pixelate.argtypes = [
        pointer, size, number, number, number, number, ctypes.c_float, pointer, size,
    ]  # fmt: skip
    compiled.mirage_pixelate.restype = number
    return compiled, ""


def why_not_native() -> str:
    """Empty where `compose_pixels` runs compiled C; else the reason why it runs numba's loops."""
    return str(_load()[1])


def _packed(image: NDArray[np.uint8]) -> bool:
    """Whether the pixels of each row lie together: the rows may be any distance apart."""
    return image.strides[1:] == (image.shape[2], 1)


def compose_pixels(
    pixels: NDArray[np.uint8], out: NDArray[np.uint8], order: NDArray[np.int64], edit: tuple[NDArray[np.float32], ...],
    mask: NDArray[np.uint8] | None, strength: float, content: tuple[int, int], lines: NDArray[np.uint8] | None = None,
    shown: tuple[float, float] = (0.0, 0.0), threads: int = 1,
) -> None:  # fmt: skip
    """Apply an edit (matrices, detail, anchors, pens) to a frame's bytes; as `cpu_pixels.compose_pixels`, for rows any
    distance apart. Of `lines` uint8 [2, rows, columns] the first `shown` points cover the frame; None draws none. The
    answer does not depend on how many `threads` share the work."""
    compose = _load()[0]
    height, width, channels = pixels.shape
    source = pixels if compose is not None and _packed(pixels) else np.ascontiguousarray(pixels)
    drawn = out if compose is not None and _packed(out) else np.empty(out.shape, np.uint8)
    kept = mask if mask is None or mask.strides[1] == 1 else np.ascontiguousarray(mask)
    if compose is None:
        frozen = source.view()
        # numba compiles for each kind of array it meets, which takes half a minute: always the same kind.
        frozen.flags.writeable = False
        kept = np.zeros((1, 1), np.uint8) if kept is None else np.ascontiguousarray(kept).view()
        kept.flags.writeable = False
        traced = np.zeros((2, 1, 1), np.uint8) if lines is None else lines
        given: Any = (
            frozen, drawn, order, *edit, kept, mask is not None, strength, *content, traced, lines is not None,
            *map(float, shown),
        )  # fmt: skip
        cpu_pixels.compose_pixels(*given)
    else:
        numbers = [np.ascontiguousarray(a) for a in (order, *edit)]
        assert numbers[0].dtype == np.int64
        assert all(a.dtype == np.float32 for a in numbers[1:])
        at = [a.ctypes.data for a in numbers]
        h, w = edit[0].shape[:2]
        assert lines is None or (lines.dtype == np.uint8 and lines.flags.c_contiguous)
        failed = crew_of(threads)(
            compose.mirage_compose, 1,
            source.ctypes.data, source.strides[0], drawn.ctypes.data, drawn.strides[0], height, width, channels,
            *at, h, w, None if kept is None else kept.ctypes.data, 0 if kept is None else kept.strides[0], strength,
            *content, None if lines is None else lines.ctypes.data, *((1, 1) if lines is None else lines.shape[1:]),
            *shown,
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory to compose a frame")
    if drawn is not out:
        out[...] = drawn


def pixelate(out: NDArray[np.uint8], amount: float, mask: NDArray[np.uint8] | None) -> None:
    """Draw an answer [H, W, C] in square pixels, in place, as far as `amount` says; as `mirage_kernels.pixelate`. What
    `mask` [H, W] keeps stays."""
    compiled = _load()[0]
    height, width, channels = out.shape
    side = block_side(height)
    kept = mask if mask is None or mask.strides[1] == 1 else np.ascontiguousarray(mask)
    if compiled is not None and _packed(out):
        at = (None, 0) if kept is None else (kept.ctypes.data, kept.strides[0])
        if compiled.mirage_pixelate(out.ctypes.data, out.strides[0], height, width, channels, side, amount, *at):
            raise MemoryError("no memory to draw a frame in square pixels")
        return
    rgb = out[..., :3].astype(np.float32)
    whole = cv2.copyMakeBorder(rgb, 0, -height % side, 0, -width % side, cv2.BORDER_REPLICATE)
    small = cv2.resize(whole, (whole.shape[1] // side, whole.shape[0] // side), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(small, whole.shape[1::-1], interpolation=cv2.INTER_NEAREST)[:height, :width]
    mixed = cv2.addWeighted(rgb, 1 - amount, np.ascontiguousarray(coarse), amount, 0.5)
    if kept is not None:
        mixed = np.where((kept == 0)[..., None], rgb, mixed)
    out[..., :3] = mixed  # cut off, after half a step was added

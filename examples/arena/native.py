"""`raycast.c`, compiled for this processor when a game first starts and kept; None where that cannot be.

The renderer then draws in numpy: the same picture, several times slower.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BILLBOARD", "PlanesAt", "Raycaster", "SceneAt", "Shot", "address", "load_raycaster"]

_SOURCE = Path(__file__).with_name("raycast.c")
# Every rounding as numpy has it, so that the two renderers agree to the pixel; NaN and traps do not occur.
_FLAGS = (
    "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-shared",
    *(() if sys.platform == "win32" else ("-fPIC",)), "-std=gnu11",
)  # fmt: skip
_TIMEOUT_S = 60

_pointer, _int, _double = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class SceneAt(ctypes.Structure):
    """`struct scene`: what stays the same from frame to frame."""

    _fields_ = [
        *((name, _pointer) for name in (
            "low", "high", "rim", "lit", "face_base", "face_height", "face_top", "flat_base", "flat_pitch", "slope",
            "angle", "sky_scale",
        )),
        *((name, _int) for name in (
            "world_width", "texels", "edges", "face_mips", "face_texels", "flat_mips", "flat_texels", "sky_around",
            "sky_up", "sky_base", "width", "height", "haze_red", "haze_green", "haze_blue",
        )),
        *((name, _double) for name in (
            "open", "roof", "ceiling", "tallest", "focal", "nearest", "far", "haze_from", "haze", "sky_inverse",
        )),
    ]  # fmt: skip


class Shot(ctypes.Structure):
    """`struct shot`: the camera now, and (names ending in 0) the one before."""

    _fields_ = [
        (name, _double)
        for name in ("x", "y", "z", "yaw", "sin", "cos", "horizon", "x0", "y0", "z0", "sin0", "cos0", "horizon0")
    ]


class PlanesAt(ctypes.Structure):
    """`struct planes`: where a frame goes; 0 for what is not wanted, pitches in bytes."""

    _fields_ = [
        *((name, _pointer) for name in ("pixels", "depth", "motion", "mask", "iz")),
        *((f"{name}_pitch", _int) for name in ("pixels", "depth", "motion", "mask")),
    ]


BILLBOARD = np.dtype(
    [
        *((name, np.int64) for name in ("texels", "solid", "rows", "columns", "x0", "x1", "y0", "y1")),
        *((name, np.float64) for name in ("left", "top", "wide", "tall", "inverse")),
        ("light", np.float64, 3),
        ("haze", np.float64, 3),
        *((name, np.float64) for name in ("across", "size", "across0", "size0", "foot", "foot0")),
    ]
)
"""`struct billboard`: one sprite in this frame and in the one before."""


def address(array: NDArray[Any] | None) -> int | None:
    """Where an array begins, for a field of the structures above; rows may be any distance apart."""
    return None if array is None else array.ctypes.data


class Raycaster:
    """The compiled functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._draw, self._sprites, self._warp = library.arena_draw, library.arena_sprites, library.arena_warp
        scene, shot, planes = (ctypes.POINTER(kind) for kind in (SceneAt, Shot, PlanesAt))
        self._draw.argtypes = [scene, shot, planes]
        self._sprites.argtypes = [scene, shot, planes, _pointer, _int]
        self._sprites.restype = None
        self._warp.argtypes = [scene, shot, _pointer, _pointer, _int, _pointer, _int]

    def draw(self, scene: SceneAt, shot: Shot, planes: PlanesAt) -> None:
        """Draw the world. Raises `MemoryError`."""
        if self._draw(scene, shot, planes):
            raise MemoryError("no memory to draw a frame")

    def sprites(self, scene: SceneAt, shot: Shot, planes: PlanesAt, billboards: NDArray[np.void]) -> None:
        """Draw sprites, `BILLBOARD` [N], one after the other into what `draw` has drawn."""
        self._sprites(scene, shot, planes, billboards.ctypes.data, len(billboards))

    def warp(
        self, scene: SceneAt, shot: Shot, iz: NDArray[np.float32], pixels: NDArray[np.uint8], out: NDArray[np.uint8]
    ) -> None:
        """Show `pixels` from the camera now; `shot` has the one they were drawn from as the one before.

        `pixels`, `out` uint8 [H, W, 4]; `iz` float32 [H, W], the picture's inverse depths. Raises `MemoryError`.
        """
        places = (pixels.ctypes.data, pixels.strides[0], out.ctypes.data, out.strides[0])
        if self._warp(scene, shot, iz.ctypes.data, *places):
            raise MemoryError("no memory to warp a frame")


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mirage" / "arena"


def _processor() -> str:
    """What code compiled for this processor depends on."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next((line for line in file if line.startswith(("flags", "Features"))), platform.processor())
    except OSError:
        return platform.processor() + platform.platform()


def _build() -> ctypes.CDLL:
    """Compile, or load what was compiled before. Raises `OSError` or `subprocess.SubprocessError`."""
    found = next((c for c in map(shutil.which, ("cc", "gcc", "clang")) if c), None)
    compiler = [found] if found else [sys.executable, "-m", "ziglang", "cc"]
    if found is None and importlib.util.find_spec("ziglang") is None:
        raise OSError("there is no C compiler")
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(b"\0".join([source, os.path.realpath(compiler[0]).encode(), *map(str.encode, _FLAGS)]))
    key.update(_processor().encode())
    library = _cache() / f"raycast-{key.hexdigest()[:20]}.so"
    if not library.is_file():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            made = Path(scratch) / "raycast.so"
            command = [*compiler, *_FLAGS, "-o", str(made), str(_SOURCE), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S)
            made.replace(library)
    return ctypes.CDLL(str(library))


@functools.cache
def load_raycaster() -> Raycaster | None:
    """The compiled functions, or None where there is no compiler or it fails."""
    try:
        return Raycaster(_build())
    except (OSError, subprocess.SubprocessError):
        return None

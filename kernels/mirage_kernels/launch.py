"""The ground every launcher stands on: which side of the switch is taken, what bad input gets, one way to
launch.

An op of this package has two sides behind one name: its fp32 reference, which is its definition, and a Triton
kernel. `use` turns the switch for the whole process. Launchers never tune at run time: they read their launch
parameters from a small table by shape, so that `record` can list every launch that a shape leads to, on a
machine without a GPU, with the very arguments (and so the alignment facts) that the GPU would get.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no wheel for this platform: the references still hold
    triton = tl = None

__all__ = [
    "FLOATS",
    "HAS_TRITON",
    "Backend",
    "Config",
    "KernelError",
    "Launch",
    "backend",
    "check",
    "contiguous",
    "divisor",
    "interpreting",
    "jit",
    "launch",
    "on_triton",
    "record",
    "recording",
    "require",
    "roomy",
    "target",
    "tl",
    "triton",
    "use",
    "wide",
]

Backend = Literal["auto", "reference", "triton"]
HAS_TRITON = triton is not None
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""What a kernel computes on. Sums are fp32 in all of them."""
_INDEX_LIMIT = 2**31 - 1
_GRID_LIMIT = 65535


class KernelError(ValueError):
    """An op was called with what it cannot work on; the text names the argument and what would be right."""


@dataclass(frozen=True, slots=True)
class Config:
    """Launch parameters of a kernel for one class of shapes; `sizes`: its block sizes by constexpr name."""

    sizes: dict[str, int]
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch: everything that a compiler or a GPU needs to repeat it."""

    kernel: Any
    grid: tuple[int, ...]
    args: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int

    @property
    def name(self) -> str:
        """The kernel's name, without the leading underscore."""
        return str(getattr(self.kernel, "__name__", self.kernel)).lstrip("_")


_choice: Backend = "auto"
_recorder: list[Launch] | None = None
_recorded_target: int = 90


def backend() -> Backend:
    """Return which side of the switch is taken."""
    return _choice


def use(name: Backend) -> Backend:
    """Take one side for the whole process and return the side that was taken before.

    ``"auto"``: Triton for tensors on CUDA, the reference elsewhere. ``"reference"``: always the definition,
    on any device. ``"triton"``: always the kernels; a CPU tensor is then a `KernelError`, unless Triton's
    interpreter is on (``TRITON_INTERPRET=1`` before the first import).
    """
    global _choice
    if name not in ("auto", "reference", "triton"):
        raise KernelError(f'the backend is "auto", "reference" or "triton", not {name!r}')
    if name == "triton" and not HAS_TRITON:
        raise KernelError("Triton is not installed (pip install triton, Linux only): use the reference")
    previous, _choice = _choice, name
    return previous


def interpreting() -> bool:
    """Whether Triton's interpreter is on, in which kernels run on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def on_triton(x: Tensor) -> bool:
    """Whether an op on `x` goes to its kernel. Raises `KernelError` where switch and device disagree."""
    if _choice == "reference" or (_choice == "auto" and not (HAS_TRITON and x.is_cuda)):
        return False
    if not (x.is_cuda or interpreting()):
        raise KernelError(f'the backend is "triton" and the tensor is on {x.device}: move it to CUDA, or use("auto")')
    return True


@functools.cache
def _capability(index: int) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return major * 10 + minor


def target(x: Tensor) -> int:
    """Compute capability to choose launch parameters for, such as 90 for Hopper."""
    if _recorder is None and x.is_cuda:
        return _capability(x.device.index)
    return _recorded_target


def roomy(x: Tensor) -> bool:
    """Whether a block may hold more than 99 KB of shared memory: data-centre chips may, others not."""
    return target(x) in (80, 90, 100, 103)


def jit(function: Callable[..., Any]) -> Any:
    """`triton.jit`; where there is no Triton the function stays as it is and is never called."""
    return triton.jit(function) if triton is not None else function


@contextmanager
def record(capability: int) -> Iterator[list[Launch]]:
    """Collect launches for a chip of this compute capability instead of carrying them out.

    Launchers may then be called with tensors on the meta device. What they return was never written.
    """
    global _recorder, _recorded_target
    if _recorder is not None:
        raise KernelError("launches are already being recorded: leave the outer record() first")
    _recorder, _recorded_target = [], capability
    try:
        yield _recorder
    finally:
        _recorder, _recorded_target = None, 90


def recording() -> bool:
    """Whether launches are being recorded: ops then go to their launchers, whatever the device."""
    return _recorder is not None


def launch(kernel: Any, grid: tuple[int, ...], args: dict[str, Any], constants: dict[str, Any], config: Config) -> None:
    """Launch `kernel` on the current stream of its tensors' device; an empty grid is no launch."""
    if 0 in grid:
        return
    require(grid[0] <= _INDEX_LIMIT and all(g <= _GRID_LIMIT for g in grid[1:]), f"a grid of {grid} is too large")
    constants = {**constants, **config.sizes}
    if _recorder is not None:
        _recorder.append(Launch(kernel, grid, args, constants, config.warps, config.stages))
        return
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True}
    first = next(value for value in args.values() if isinstance(value, Tensor))
    if first.is_cuda:
        with torch.cuda.device(first.device):
            kernel[grid](**args, **constants, **options)
    else:
        kernel[grid](**args, **constants, **options)


def require(condition: bool, message: str) -> None:
    """Raise `KernelError` with this message unless the condition holds."""
    if not condition:
        raise KernelError(message)


def check(
    name: str,
    x: Tensor,
    shape: Sequence[int | None],
    dtypes: torch.dtype | Sequence[torch.dtype],
    like: Tensor | None = None,
) -> None:
    """Refuse a tensor that a launcher cannot take: shape (None: any), dtype, device, strides, start, size."""
    allowed = (dtypes,) if isinstance(dtypes, torch.dtype) else tuple(dtypes)
    wanted = ", ".join("*" if size is None else str(size) for size in shape)
    fits = x.dim() == len(shape) and all(
        want is None or want == size for want, size in zip(shape, x.shape, strict=True)
    )
    require(fits, f"{name} has shape {list(x.shape)}; it must be [{wanted}]")
    if x.dtype not in allowed:
        raise KernelError(f"{name} is {x.dtype}; it must be {' or '.join(map(str, allowed))}")
    if like is not None and x.device != like.device:
        raise KernelError(f"{name} is on {x.device} and the frame's tensors on {like.device}: move one of them")
    if not x.is_contiguous():
        raise KernelError(f"{name} has strides {x.stride()}: make it contiguous")
    if x.device.type != "meta" and x.data_ptr() % 16:
        raise KernelError(f"{name} does not start on a 16-byte boundary: clone it")
    if x.numel() > _INDEX_LIMIT:
        raise KernelError(f"{name} has {x.numel()} elements; a kernel indexes 2**31 - 1: split the batch")


def contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return each tensor as a contiguous one."""
    return tuple(x.contiguous() for x in tensors)


def divisor(size: int, *candidates: int) -> int:
    """Return the first of the candidates that divides `size`; raises `KernelError` where none does."""
    for candidate in candidates:
        if size % candidate == 0:
            return candidate
    raise KernelError(f"{size} channels: a kernel needs a multiple of {candidates[-1]}")


def wide(x: Tensor) -> Tensor:
    """What a reference computes in: fp64 stays, everything else becomes fp32."""
    return x if x.dtype == torch.float64 else x.float()

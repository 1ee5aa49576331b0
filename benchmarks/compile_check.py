"""Compile every kernel that a launcher can choose, for several chips, on a machine without a GPU.

    python benchmarks/compile_check.py --json out/compile.json            everything, minutes
    python benchmarks/compile_check.py --short --json out/compile.json    what base and nano launch at 1080p
    in bf16

The launches are not listed by hand: each op is called as the network calls it, with tensors that have shapes
and no memory, and what it would have launched is recorded (`mirage_kernels.record`) with the same arguments,
so that the compiler is told exactly what a launch tells it. The JSON is

    {"triton": version, "kernels": [{"name", "config", "target", "registers", "spill_bytes", "shared_bytes",
                                     "warps", "stages", "tensor_core"}]}

with `tensor_core` the matrix instruction in the machine code ("HGMMA", "QGMMA" on sm_90; "HMMA", "IMMA", ...;
"" where there is none). The exit code is 1 where a kernel spills on sm_90, misses a matrix instruction that
its source asks for, or wants more shared memory than the chip has.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch

import mirage_kernels as kernels
from mirage_kernels import Launch, record
from mirage_kernels.launch import triton

__all__ = ["compile_launch", "launches", "main", "problems"]

TARGETS = (80, 90, 120)
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
_TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
}
_MATRIX = re.compile(r"\b(HGMMA|QGMMA|IGMMA|UTC[A-Z]*MMA|HMMA|QMMA|OMMA|IMMA)\b")


def _signature(launch: Launch) -> tuple[dict[str, str], dict[Any, Any], dict[Any, Any]]:
    """The types, constants and alignment facts that Triton would derive from these arguments."""
    names = launch.kernel.arg_names
    signature: dict[str, str] = {}
    constants: dict[Any, Any] = {}
    facts: dict[Any, Any] = {}
    for place, name in enumerate(names):
        if name in launch.constants:
            signature[name] = "constexpr"
            constants[name] = launch.constants[name]
            continue
        value = launch.args[name]
        if isinstance(value, torch.Tensor):
            signature[name] = "*" + _TYPES[value.dtype]
            # Launchers refuse what is not aligned; a frame starts where shared memory put it, on 64 bytes.
            facts[(place,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif value == 1:
            signature[name] = "constexpr"
            constants[name] = 1
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                facts[(place,)] = [["tt.divisibility", 16]]
    return signature, constants, facts


def _key(launch: Launch) -> str:
    signature, constants, facts = _signature(launch)
    return repr((launch.name, signature, constants, sorted(facts), launch.warps, launch.stages))


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _read(
    weights: kernels.NetworkWeights,
    layout: kernels.FrameLayout,
    rows: int,
    columns: int,
    *,
    n: int = 1,
    what: str,
) -> torch.Tensor:
    """Read frames: with `what` in "noise", "still" (noise, depth and mask: an overview's), "planes" (noise and all
    planes) or "step" (a later step)."""
    h, w = kernels.grid_size(rows, columns)
    frames = _empty(n, layout.size_bytes, dtype=torch.uint8)
    optional: dict[str, torch.Tensor] = {"noise": _empty(n, 1, 4 * h, 4 * w)}
    if what in ("still", "planes"):
        optional["depth"] = _empty(n, 1, rows, columns)
        optional["mask"] = _empty(n, 3, rows, columns)
    if what == "planes":
        optional["motion"] = _empty(n, 2, rows, columns)
    if what == "step":
        optional["answer"], optional["k"] = _empty(n, h, w, 192, dtype=weights.dtype), _empty(n)
    return kernels.pixels(frames, layout, weights.stem(layout, 0.25), rows=rows, columns=columns, **optional)


def _compose(
    weights: kernels.NetworkWeights,
    layout: kernels.FrameLayout,
    rows: int,
    columns: int,
    *,
    n: int = 1,
    **which: bool,
) -> None:
    h, w = kernels.grid_size(rows, columns)
    optional: dict[str, torch.Tensor] = {}
    if which.get("mask"):
        optional["mask"] = _empty(n, 1, layout.height, layout.width)
    if which.get("dither"):
        optional["dither"] = _empty(n, dtype=torch.int64)
    if which.get("late"):
        optional["motion"], optional["visible"] = _empty(n, 2, h, w), _empty(n, 1, h, w)
    points = kernels.line_points(layout.height, layout.width) if which.get("mask") else (4 * h, 4 * w)
    optional["lines"] = _empty(n, 2, *points, dtype=torch.float16)
    frames = _empty(n, layout.size_bytes, dtype=torch.uint8)
    edit = _empty(n, h, w, kernels.EDIT_CHANNELS, dtype=weights.dtype)
    kernels.compose(frames, layout, edit, _empty(n), rows=rows, columns=columns, **optional)
    if which.get("dither"):
        kernels.pixelate(frames, layout, _empty(n), mask=optional.get("mask"))


def _look_over(
    weights: kernels.NetworkWeights, sizes: kernels.NetworkSizes, layout: kernels.FrameLayout, film: torch.Tensor
) -> tuple[torch.Tensor, tuple[float, float]] | None:
    """Look at large frames as a whole."""
    size = kernels.overview_size(layout.height, layout.width)
    if size is None:
        return None
    n, (h, w) = film.shape[0], kernels.grid_size(*size)
    for what in ("still", "noise"):
        stem = _read(weights, layout, *size, n=n, what=what)
    nothing = (_empty(n, h // 2, w // 2, channels, dtype=weights.dtype) for channels in (sizes.state, 1))
    head, _ = kernels.look(weights, stem, *nothing, film)
    kernels.remember(head, _empty(*head.shape, dtype=weights.dtype), _empty(n, 2, h, w))
    return kernels.agree(head), (size[0] / layout.height, size[1] / layout.width)


def _frame(sizes: kernels.NetworkSizes, dtype: torch.dtype, size: tuple[int, int], n: int, fp8: bool) -> None:
    """What one frame (or a batch of several games') launches, from bytes to bytes."""
    weights = kernels.prepare(kernels.random_parameters(sizes, "meta"), dtype, fp8=fp8)
    height, width = size
    layout = kernels.FrameLayout("bgra8", height, width, 4 * width)
    stem = _read(weights, layout, height, width, n=n, what="noise")
    _, h, w, _ = stem.shape
    stored = _empty(n, h // 2, w // 2, sizes.state, dtype=torch.int8)
    motion, visible = _empty(n, 2, h // 2, w // 2), _empty(n, 1, h // 2, w // 2)
    state, valid = kernels.warp_state(stored, motion, visible, dtype)
    film = kernels.film_of(weights, _empty(n, sizes.condition))
    style, noise = _empty(n, kernels.STYLE_NUMBERS), _empty(n, 1, 4 * h, 4 * w)
    kernels.trace_lines(kernels.depth_lines(_empty(n, 1, height, width)), _empty(n))
    kernels.colour_lines(_empty(n, layout.size_bytes, dtype=torch.uint8), layout)
    overview = _look_over(weights, sizes, layout, film)
    hear = None if overview is None else lambda head: kernels.overview(head, *overview)
    edit, stored = kernels.forward(weights, stem, state, valid, film, style, noise, _empty(n, h, w, 2), hear=hear)
    seed = _empty(n, dtype=torch.int64)
    kernels.fresh_noise(seed, seed, 4 * h, 4 * w)
    seen = _empty(n, 1, 4 * h, 4 * w, dtype=torch.bool)
    kernels.advect_noise(_empty(n, 1, 4 * h, 4 * w), _empty(n, 2, 4 * h, 4 * w), seen, seed, seed)
    kernels.drift_statistics(stored, 8, scale=1 / 127)
    kernels.drift_statistics(edit, 33)
    settled = _empty(n, h, w, kernels.SETTLED)
    before, _ = kernels.warp_state(settled, _empty(n, 2, h, w), _empty(n, 1, h, w))
    frames = _empty(n, layout.size_bytes, dtype=torch.uint8)
    rows, columns = _empty(4 * h, dtype=torch.int64), _empty(4 * w, dtype=torch.int64)
    kernels.steady(frames, layout, rows, columns, edit, before, settled)
    _compose(weights, layout, height, width, n=n, dither=True)
    _compose(weights, layout, height, width, n=n, late=True)


def narrow() -> None:
    """Call the ops on frames and grids of one row or column: an argument that is 1 is a constant to the compiler."""
    weights = kernels.prepare(kernels.random_parameters(kernels.SIZES["nano"], "meta"), torch.bfloat16)
    seed = _empty(1, dtype=torch.int64)
    for height, width in ((1, 64), (64, 1), (1, 1)):
        layout = kernels.FrameLayout("rgba8", height, width, 4 * width)
        _read(weights, layout, height, width, what="planes")
        _compose(weights, layout, height, width, mask=True, dither=True)
        _compose(weights, layout, height, width, late=True)
        _compose(weights, kernels.FrameLayout("rgba8", 48, 48, 192), height, width, late=True)
        kernels.trace_lines(kernels.depth_lines(_empty(1, 1, height, width)), _empty(1))
        kernels.colour_lines(_empty(1, layout.size_bytes, dtype=torch.uint8), layout)
        lines = _empty(1, 2, height, width, dtype=torch.float16)
        edit = _empty(1, 4, 4, kernels.EDIT_CHANNELS, dtype=torch.bfloat16)
        large = kernels.FrameLayout("rgba8", 20, 28, 112)
        kernels.compose(_empty(1, large.size_bytes, dtype=torch.uint8), large, edit, _empty(1), lines=lines)
        stored = _empty(1, height, width, 48, dtype=torch.int8)
        kernels.warp_state(stored, _empty(1, 2, height, width), _empty(1, 1, height, width), torch.bfloat16)
        kernels.drift_statistics(stored, 8)
        seen = _empty(1, 1, height, width, dtype=torch.bool)
        kernels.advect_noise(_empty(1, 1, height, width), _empty(1, 2, height, width), seen, seed, seed)


def rehearse(short: bool, target: int, tiers: Collection[str] = ("nano", "small", "base")) -> None:
    """Call the ops as a session would, in all the ways a session can differ."""
    sizes = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
    if short:
        for tier in [name for name in ("base", "nano") if name in tiers]:
            _frame(kernels.SIZES[tier], torch.bfloat16, sizes["1080p"], 1, False)
        if target >= 89:
            weights = kernels.pack_linear(_empty(384, 768), _empty(384), torch.bfloat16, fp8=True)
            kernels.linear(_empty(1, 136, 240, 192, dtype=torch.bfloat16), weights, "down")
        return
    for tier in (kernels.SIZES[name] for name in tiers):
        for dtype in (torch.bfloat16, torch.float16):
            for size in sizes.values():
                for n in (1, 4) if size == sizes["1080p"] else (1,):
                    _frame(tier, dtype, size, n, False)
        # Eight games at 4K fill even the quarter grid.
        _frame(tier, torch.bfloat16, sizes["4K"], 8, False)
        if target >= 89:
            for size in sizes.values():
                _frame(tier, torch.bfloat16, size, 1, True)
        # fp32 is for telling where a difference comes from: one size will do.
        _frame(tier, torch.float32, sizes["720p"], 1, False)
        weights = kernels.prepare(kernels.random_parameters(tier, "meta"), torch.bfloat16)
        plain = kernels.FrameLayout("rgba8", 1080, 1920, 4 * 1920)
        for what in ("planes", "step"):
            _read(weights, plain, 1080, 1920, what=what)
    narrow()
    h, w = kernels.grid_size(1080, 1920)
    cells = _empty(1, h, w, 192, dtype=torch.bfloat16)
    kernels.solver_step(cells, cells, _empty(1, 1, 4 * h, 4 * w), _empty(1), 0.25)
    weights = kernels.prepare(kernels.random_parameters(kernels.SIZES["base"], "meta"), torch.bfloat16)
    for name in kernels.FORMATS:
        for linear in (False, True):
            bytes_per_pixel = {"rgb8": 3, "rgba16f": 8}.get(name, 4)
            layout = kernels.FrameLayout(name, 2160, 3840, 3840 * bytes_per_pixel, linear=linear)
            _read(weights, layout, 2160, 3840, what="noise")
            # 4K shown, 1080p worked on; and a ratio that is no whole number.
            _read(weights, layout, 1080, 1920, what="noise")
            _read(weights, layout, 1440, 2560, what="noise")
            _compose(weights, layout, 2160, 3840, mask=True, dither=True)
            _compose(weights, layout, 1080, 1920, dither=True)
            _compose(weights, layout, 1080, 1920, late=True, dither=True)


def launches(target: int, short: bool, tiers: Collection[str] = ("nano", "small", "base")) -> Iterator[Launch]:
    """Every distinct launch for a chip, in the order in which a frame meets them."""
    seen: set[str] = set()
    with record(target) as found:
        rehearse(short, target, tiers)
        for launch in found:
            key = _key(launch)
            if key not in seen:
                seen.add(key)
                yield launch


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def compile_launch(launch: Launch, target: int) -> dict[str, Any]:
    """Compile one launch and return its row of the table."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, facts = _signature(launch)
    source = ASTSource(launch.kernel, signature, constants, facts)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.run(
            [_tool("cuobjdump"), "-res-usage", cubin.name], capture_output=True, text=True, check=True
        ).stdout
        code = subprocess.run(
            [_tool("cuobjdump"), "-sass", cubin.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = (
        int(re.search(rf"\b{name}:(\d+)", usage)[1])  # type: ignore[index]
        for name in ("REG", "STACK", "LOCAL")
    )
    matrix = set(_MATRIX.findall(code))
    best = next((name for name in sorted(matrix, key=lambda n: ("GMMA" not in n and "UTC" not in n, n))), "")
    types = sorted({kind for name, kind in signature.items() if kind.startswith("*")})
    return {
        "name": launch.name,
        "config": {**launch.constants, "types": types},
        "target": f"sm_{target}",
        "registers": registers,
        "spill_bytes": stack + local,
        "shared_bytes": compiled.metadata.shared,
        "warps": launch.warps,
        "stages": launch.stages,
        "tensor_core": best,
        # fp32 products are exact by intent, off the tensor cores.
        "matrix_product": "tt.dot" in compiled.asm["ttir"] and not launch.constants.get("EXACT", False),
    }


def problems(row: dict[str, Any]) -> list[str]:
    """What is wrong with a row; nothing where all is well."""
    target = int(row["target"].removeprefix("sm_"))
    found = []
    if target == 90 and row["spill_bytes"]:
        found.append(f"spills {row['spill_bytes']} bytes")
    if row["shared_bytes"] > SHARED_LIMIT[target]:
        found.append(f"wants {row['shared_bytes']} bytes of shared memory, the chip has {SHARED_LIMIT[target]}")
    if row["matrix_product"] and not row["tensor_core"]:
        found.append("has a matrix product and no matrix instruction")
    if target == 90 and row["matrix_product"] and "GMMA" not in row["tensor_core"]:
        found.append(f"takes {row['tensor_core']} where Hopper has warp-group products")
    fp8 = any("fp8" in kind for kind in row["config"]["types"])
    if target == 90 and fp8 and row["matrix_product"] and row["tensor_core"] != "QGMMA":
        found.append("has fp8 weights and no QGMMA")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Compile, print a table, write the JSON; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="where the table goes")
    parser.add_argument("--short", action="store_true", help="what base and nano launch at 1080p in bf16")
    parser.add_argument("--targets", default=",".join(map(str, TARGETS)), help="compute capabilities, such as 80,90")
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--tiers", default="nano,small,base", help="whose widths")
    options = parser.parse_args(arguments)
    if triton is None:
        print("compile_check needs Triton, which has wheels for Linux only: pip install triton", file=sys.stderr)
        return 2
    rows, wrong = [], 0
    for target in map(int, options.targets.split(",")):
        for launch in launches(target, options.short, options.tiers.split(",")):
            if options.only not in launch.name:
                continue
            started = time.perf_counter()
            row = compile_launch(launch, target)
            rows.append(row)
            found = problems(row)
            wrong += bool(found)
            sizes = " ".join(f"{k}={int(v)}" for k, v in launch.constants.items())
            print(
                f"{row['target']:7} {row['name']:22} regs {row['registers']:3} spill {row['spill_bytes']:4} "
                f"shared {row['shared_bytes']:6} warps {row['warps']} {row['tensor_core']:7} {sizes} "
                f"({time.perf_counter() - started:.1f} s){'  WRONG: ' + ', '.join(found) if found else ''}",
                flush=True,
            )
    print(f"{len(rows)} kernels compiled, {wrong} with something wrong")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"triton": triton.__version__, "kernels": rows}, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

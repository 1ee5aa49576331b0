"""The GPU's tables: accuracy, a ladder of ratios, memory to memory, sessions and steps, memory, other designs.

    python benchmarks/gpu.py --json out/gpu.json                          on a GPU, under six minutes
    python benchmarks/gpu.py --json out/gpu.json --device cpu --quick     the same script without one

Needs torch, Triton and numpy alone; nothing is downloaded. A tier without weights here is drawn at random, and the
output says so: speed does not depend on it. Frames are random bytes, never zeros. Copy bandwidth and matrix rate are
measured first, and a floor stands beside each figure that has one: the larger of bytes over the one and operations
over the other. Variants are measured in the order A B .. B A. What was not measured (no time left, no GPU) is a dash.

Part 1 holds answers against the network's definition in fp32; 2 is the ladder from eager fp32 to ours in fp8; 3 goes
from a frame ready in shared memory, written by a process of its own, to its answer ready there; 4 has several sessions
and several steps; 5 looks at memory and at frame 20,000; 6 is the latency of other designs built from this network.
`--parts 1,3` runs some of them. The exit code is 1 where an answer of part 1 is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import itertools
import json
import mmap
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Bench", "main"]

SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "1440p": (1440, 2560), "4K": (2160, 3840)}
QUICK_SIZES = {"96x64": (64, 96)}
LIMIT_S = 330.0
FRAME_NS = 16_666_667
NETWORK_MS = 20.0
NETWORK_BYTES_PER_S = 100e6 / 8
NETWORK_COMPRESSION = 20
TOLERANCE = {
    "fp32": (1, 0.01, "sums in another order put a value over a rounding's edge"),
    "bf16": (None, 1.0, "8 bits of mantissa in every layer"),
    "fp8": (None, 2.0, "4 bits of mantissa between the stages"),
}
"""Per dtype: the largest difference in steps of 255 allowed, the largest share (fp32) or mean (others), and why."""


# -- the process that writes frames ------------------------------------------------------------------------------

SLOTS = 3
HEADER_BYTES = 4096
PUBLISHED, ANSWERED, READY, STOP, TIMES = 0, 8, 16, 24, 32
"""Places in the header, in int64, each on a cache line of its own; a slot's time at TIMES + slot."""


def _slots(mapping: mmap.mmap, shape: tuple[int, int]) -> tuple[Any, list[Any], list[Any]]:
    """(header int64, frames, answers), all uint8 [H, W, 4] views of the shared file."""
    whole = memoryview(mapping)
    size = shape[0] * shape[1] * 4
    views = [np.ndarray((*shape, 4), np.uint8, whole, HEADER_BYTES + size * i) for i in range(2 * SLOTS)]
    return np.ndarray(512, np.int64, whole), views[:SLOTS], views[SLOTS:]


def writer(path: str, height: int, width: int, frames: int, paced: bool) -> None:
    """Publish random frames: one each 60th of a second, or the next when the last was answered."""
    with open(path, "r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    header, slots, _ = _slots(mapping, (height, width))
    random = np.random.default_rng(int(time.time()))
    sources = [random.integers(0, 256, (height, width, 4), np.uint8) for _ in range(4)]
    header[READY] = 1
    due_ns = time.monotonic_ns() + 50_000_000
    for number in range(1, frames + 1):
        slot = number % SLOTS
        slots[slot][...] = sources[number % 4]
        if paced:
            due_ns += FRAME_NS
            while (left_ns := due_ns - time.monotonic_ns()) > 0:
                if left_ns > 300_000:
                    time.sleep((left_ns - 200_000) / 1e9)
        else:
            while header[ANSWERED] < number - 1 and not header[STOP]:
                pass
        if header[STOP]:
            return
        header[TIMES + slot] = time.monotonic_ns()
        header[PUBLISHED] = number


# -- the bench ---------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """What all parts share: the device, the time that is left, the ceilings, and what was printed."""

    device: Any
    quick: bool
    began: float = field(default_factory=time.perf_counter)
    ceilings: dict[str, float] = field(default_factory=dict)
    random_tiers: set[str] = field(default_factory=set)
    parts: set[int] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU."""
        return bool(self.device.type == "cuda")

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Frames by name, (height, width)."""
        return QUICK_SIZES if self.quick else SIZES

    @property
    def tiers(self) -> tuple[str, ...]:
        """Tiers of part 1; the last is the largest."""
        return ("nano",) if self.quick else ("nano", "small", "base")

    @property
    def full_hd(self) -> str:
        """The name of the size that most parts work at."""
        return "96x64" if self.quick else "1080p"

    def left_s(self) -> float:
        """Seconds until everything should be over."""
        return LIMIT_S - (time.perf_counter() - self.began)

    def say(self, line: str = "") -> None:
        """Print a line of the report."""
        self.lines.append(line)
        print(line, flush=True)

    def table(self, title: str, rows: Iterable[dict[str, Any]]) -> None:
        """Print rows as a Markdown table; None is a dash."""
        rows = list(rows)
        self.say(f"\n### {title}\n")
        if not rows:
            self.say("Not measured: no time was left.")
            return
        names = list(rows[0])
        self.say("| " + " | ".join(names) + " |")
        self.say("|" + "---|" * len(names))
        for row in rows:
            self.say("| " + " | ".join(_cell(row[name]) for name in names) + " |")

    def network(self, tier: str) -> Any:
        """The tier's weights, or a network drawn at random where there are none."""
        import torch

        from mirage_plugin.model.network import TIERS, MirageNet

        try:
            from mirage_plugin.model.checkpoint import load_network

            return load_network(tier)
        except Exception:  # no weights, or none of this version: the shapes are what is timed
            self.random_tiers.add(tier)
        torch.manual_seed(1)
        net = MirageNet(TIERS[tier]).eval().requires_grad_(False)
        net.begin_training()
        for layer in (net.head_matrices, net.head_words, net.head_detail):
            layer.weight.normal_(0, 0.02)
        return net

    def engine(self, tier: str, size: tuple[int, int], steps: int = 1, dtype: str = "bf16") -> tuple[Any, Any]:
        """Our engine for a tier, and the kind of frame it is captured for."""
        import torch

        from mirage_plugin.config import ServeConfig
        from mirage_plugin.cuda_engine import CudaEngine
        from mirage_plugin.frames import FrameKind

        kind = FrameKind("RGBA8", *size)
        named: Any = {"device": "cuda" if self.cuda else "cpu", "tier": tier, "steps": steps}
        engine = CudaEngine(
            ServeConfig(**named), lambda sentence: self.say(f"note: {sentence}"), net=self.network(tier),
            dtype=torch.float32 if dtype == "fp32" or not self.cuda else torch.bfloat16, fp8=dtype == "fp8",
            warm=(kind,), sizes=1,
        )  # fmt: skip
        return engine, kind

    def times_ms(self, run: Callable[[], Any], repeats: int) -> list[float]:
        """Milliseconds of each of so many calls, by the device's clock."""
        import torch

        if not self.cuda:
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                run()
                times.append((time.perf_counter() - start) * 1e3)
            return times
        events: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]  # type: ignore[no-untyped-call]
        for event in events[:-1]:
            event.record()
            run()
        events[-1].record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in itertools.pairwise(events)]

    def compare(self, runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
        """Each variant's p20, p50, p80 in ms, over a pass forwards and one backwards; two calls first."""
        samples: dict[str, list[float]] = {name: [] for name in runs}
        # Whatever takes long is asked less often: a second and a half a pass.
        counts = {name: max(3, min(repeats, int(1500 / self.times_ms(run, 2)[1]))) for name, run in runs.items()}
        for name in (*runs, *reversed(runs)):
            samples[name] += self.times_ms(runs[name], counts[name])
        return {
            name: {f"p{q}": float(np.percentile(values, q)) for q in (20, 50, 80)} for name, values in samples.items()
        }

    def let_go(self) -> None:
        """Give the device back what nobody uses any more, engines and their graphs among it."""
        import torch

        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def captured(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """The same launches as one graph, where there are graphs."""
        import torch

        if not self.cuda:
            return run
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(side):
            run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        # What was captured reads the tensors of `run`, which therefore stays.
        return lambda _=run: graph.replay()

    def measure_ceilings(self) -> None:
        """Copy bandwidth (read plus written) and bf16 matrix rate of this device, now."""
        import torch

        big = torch.randn(2**28 if self.cuda else 2**20, device=self.device)
        other = torch.empty_like(big)
        side = 8192 if self.cuda else 256
        a, b = (torch.randn(side, side, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        runs: dict[str, Callable[[], Any]] = {"copy": lambda: other.copy_(big), "matrix": lambda: a @ b}
        times = self.compare(runs, 10)
        self.ceilings = {
            "copy_bytes_per_s": 8e3 * big.numel() / times["copy"]["p50"],
            "bf16_flops_per_s": 2e3 * side**3 / times["matrix"]["p50"],
        }
        self.say(
            f"measured here: copy {self.ceilings['copy_bytes_per_s'] / 1e12:.3g} TB/s, "
            f"bf16 products {self.ceilings['bf16_flops_per_s'] / 1e12:.3g} TFLOP/s"
        )

    def floor_ms(self, net: Any, size: tuple[int, int]) -> float:
        """No frame of this network is faster here: its products at the measured rate, or each byte once."""
        c0, c1, c2 = net.tier.widths
        cells = working_cells(size)
        blocks = sum(
            4 * net.tier.expand * c * c * count * cells / share
            for c, count, share in zip((c0, c1, c2, c1, c0), net.tier.depths, (1, 4, 16, 4, 1), strict=True)
        )
        s = net.tier.state
        layers = 2 * cells * (208 * c0 + (4 * c0 * c1 * 2 + 2 * s * (2 * c1 + s)) / 4 + 4 * c1 * c2 * 2 / 16 + 240 * c0)
        weights = 2 * sum(p.numel() for p in net.stages.parameters())
        moved = 2 * 4 * size[0] * size[1] + weights + 2 * cells / 4 * s
        rates = self.ceilings
        return float(1e3 * max((blocks + layers) / rates["bf16_flops_per_s"], moved / rates["copy_bytes_per_s"]))


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def working_cells(size: tuple[int, int]) -> int:
    """Cells of the largest working frame for a display of (height, width)."""
    import mirage_kernels as kernels
    from mirage_plugin.cuda_path import WorkingSize

    h, w = kernels.grid_size(*WorkingSize.of(*size, 0).content)
    return h * w


def style_vector(net: Any, name: str = "snow") -> Any:
    """A preset as the network's style vector, fp32 [1, STYLE_SIZE] on the processor."""
    import torch

    from mirage_plugin.styles.parameters import load_style

    with torch.no_grad():
        return net.style(torch.from_numpy(load_style(name).vector().astype(np.float32))[None])


def random_frame(size: tuple[int, int], seed: int) -> Any:
    """uint8 [H, W, 4]."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 4), np.uint8)


def shared_frames(size: tuple[int, int], count: int) -> Any:
    """uint8 [count, H, W, 4] in shared memory, as a game's frames and answers are: others are copied once more."""
    frames = np.frombuffer(mmap.mmap(-1, count * size[0] * size[1] * 4), np.uint8).reshape(count, *size, 4)
    for number, frame in enumerate(frames):
        frame[...] = random_frame(size, number)
    return frames


def answer_of(engine: Any, canvas: Any, frame: Any, out: Any) -> None:
    """One frame through the engine, from host memory to host memory."""
    from mirage_plugin.frames import FramePlanes

    none = FramePlanes()
    engine.upload(canvas, frame, none)
    engine.read(canvas, frame, None, none, False)
    engine.denoise(canvas)
    engine.compose(canvas, frame, out, None, None, 1.0)
    engine.wait(canvas, time.monotonic_ns() + 10_000_000_000)


def opened(engine: Any, kind: Any, seed: int = 3) -> Any:
    """A canvas in the style "snow"."""
    from mirage_plugin.styles.parameters import load_style

    canvas = engine.open(kind, seed)
    engine.set_style(canvas, load_style("snow"))
    return canvas


# -- the parts ---------------------------------------------------------------------------------------------------


def part_1(bench: Bench) -> dict[str, Any]:
    """The answer of each tier and dtype against the network's definition, fp32 on the processor."""
    import torch

    from mirage_plugin.model.memory import MemoryState
    from mirage_plugin.model.network import Planes, frame_lines
    from mirage_plugin.model.noise import fresh_noise
    from mirage_plugin.model.sampling import look_over, sample

    size = (64, 96) if bench.quick else (352, 640)
    h, w = size[0] // 8, size[1] // 8
    rows = []
    for tier in bench.tiers:
        net, frame = bench.network(tier), random_frame(size, 7)
        c = net.tier.state
        with torch.no_grad():
            v = torch.from_numpy(frame[..., :3].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
            none = MemoryState(torch.zeros(1, h // 2, w // 2, c), torch.zeros(1, h // 2, w // 2, 1))
            noise = fresh_noise(torch.tensor([3]), torch.tensor([0]), 4 * h, 4 * w)
            planes, trust = torch.zeros(1, h, w, 32), torch.ones(1)
            lines = frame_lines(v, None, None, style_vector(net))
            seen = look_over(net, v, Planes(), style_vector(net))
            expected, *_ = sample(net, v, noise, planes, none, style_vector(net), trust, lines, overview=seen)
        right = ((expected[0].permute(1, 2, 0) + 1) * 127.5 + 0.5).floor().clamp(0, 255).numpy()
        for dtype in ("fp32", "bf16", "fp8") if bench.cuda else ("fp32",):
            engine, kind = bench.engine(tier, size, dtype=dtype)
            out = np.zeros_like(frame)
            answer_of(engine, opened(engine, kind), frame, out)
            apart = np.abs(out[..., :3].astype(float) - right)
            most, bound, why = TOLERANCE[dtype]
            error = float((apart > 0).mean()) if most else float(apart.mean())
            rows.append({
                "tier": tier, "dtype": dtype, "changed by": float(np.abs(right - frame[..., :3]).mean()),
                "largest": int(apart.max()), "mean": float(apart.mean()),
                "share of bytes": float((apart > 0).mean()), "bound": f"{bound:g} {'share' if most else 'mean'}",
                "right": bool(error <= bound and (most is None or apart.max() <= most)), "why": why,
            })  # fmt: skip
    bench.table("1. The answer against the definition, in steps of 255", rows)
    return {"rows": rows, "wrong": sum(not row["right"] for row in rows)}


def torch_frame(net: Any, size: tuple[int, int], device: Any, dtype: Any, nchw: bool) -> Callable[[], Any]:
    """A whole frame as PyTorch says it: the frame's bytes on the device to the answer's, and the next memory."""
    import copy

    import torch
    from torch.nn import functional

    import mirage_kernels as kernels
    from mirage_kernels.lines import spread_lines
    from mirage_plugin.cuda_path import WorkingSize
    from mirage_plugin.model.memory import dequantise, quantise, warp_state
    from mirage_plugin.model.network import SIGMA, compose, frame_lines, pixels_to_cells
    from mirage_plugin.model.sampling import lift_noise

    style = style_vector(net).to(device)
    net = copy.deepcopy(net).to(device, dtype)
    if nchw:
        for stage in net.stages:
            for block in stage:
                block.depthwise.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
    height, width = size
    content = WorkingSize.of(*size, 0).content
    h, w = kernels.grid_size(*content)
    # Padded so that the working frame's cells cover it: the scale from one to the other stays what it is.
    full = (8 * h * height // content[0], 8 * w * width // content[1])
    frame = torch.from_numpy(random_frame(size, 5))[None].to(device)
    noise = torch.randn(1, 1, 4 * h, 4 * w, device=device)
    stored = torch.randint(-90, 90, (1, h // 2, w // 2, net.tier.state), dtype=torch.int8, device=device)
    motion, seen = torch.zeros(1, 2, h // 2, w // 2, device=device), torch.ones(1, 1, h // 2, w // 2, device=device)
    planes, one = torch.zeros(1, h, w, 32, device=device, dtype=dtype), torch.ones(1, device=device)
    condition = net.condition(style.to(dtype), one, one)
    film = net.conditioned(condition, style)

    def run() -> Any:
        v = frame[..., :3].permute(0, 3, 1, 2).to(dtype) / 127.5 - 1
        v = functional.pad(v, (0, full[1] - width, 0, full[0] - height), mode="replicate")
        small = v if full == (8 * h, 8 * w) else functional.interpolate(v, (8 * h, 8 * w), mode="area")
        noisy = small + SIGMA * lift_noise(noise).to(dtype)
        memory = warp_state(dequantise(stored, dtype), motion, seen)
        edit, state = net(pixels_to_cells(small), pixels_to_cells(noisy), planes, memory, film, noise)
        lines = spread_lines(frame_lines(small, None, None, style), *v.shape[-2:])
        answer = compose(v, edit, lines)[..., :height, :width]
        bytes_ = ((answer.float().clamp(-1, 1) + 1) * 127.5 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)
        return torch.cat([bytes_, frame[..., 3:]], -1), quantise(state)

    return torch.no_grad()(run)


def our_frame(engine: Any, kind: Any) -> Callable[[], Any]:
    """A whole frame as we launch it, on the device: the frame's bytes to the answer's."""
    import torch

    canvas = opened(engine, kind)
    answer_of(engine, canvas, random_frame((kind.height, kind.width), 5), random_frame((kind.height, kind.width), 6))
    work = canvas.work

    def run() -> None:
        work.net()
        work.compose()

    run.canvas = canvas  # type: ignore[attr-defined]  # the buffers live as long as the function
    return torch.inference_mode()(run)


def part_2(bench: Bench) -> dict[str, Any]:
    """The ladder, at every size, for small and base, the most telling first."""
    import torch

    wanted = [(tier, size) for size in ("1080p", "4K", "720p", "1440p") for tier in ("base", "small")]
    if bench.quick:
        wanted = [("nano", bench.full_hd)]
    rows: list[dict[str, Any]] = []
    reserve = 25.0 * len(bench.parts & {4, 5, 6}) + 10
    for tier, name in wanted:
        if bench.left_s() < reserve + 10:
            break
        net, size = bench.network(tier), bench.sizes[name]
        runs: dict[str, Callable[[], Any]] = {
            "eager fp32 NCHW": torch_frame(net, size, bench.device, torch.float32, True),
            "eager bf16 NHWC": torch_frame(net, size, bench.device, torch.bfloat16, False),
        }
        modes = {"compile": "default", "compile max-autotune": "max-autotune"} if bench.cuda else {}
        for label, mode in modes.items():
            # Compiling for one shape takes a minute in the second mode: where time is short, the first is enough.
            if bench.left_s() - reserve < (90 if mode == "max-autotune" else 30):
                continue
            torch.compiler.reset()
            compiled = torch.compile(
                torch_frame(net, size, bench.device, torch.bfloat16, False), mode=mode, dynamic=False
            )
            try:
                for _ in range(3):
                    compiled()
                runs[label] = compiled
            except Exception as error:  # a compiler's failure is a dash, not the end of the table
                bench.say(f"note: torch.compile ({mode}) gave up on {tier} at {name}: {type(error).__name__}")
        engines = []
        for label, dtype in {"ours bf16": "bf16", "ours fp8": "fp8"}.items():
            if dtype == "bf16" or bench.cuda:
                engines.append(bench.engine(tier, size, dtype=dtype))
                runs[label] = our_frame(*engines[-1])
        times = bench.compare(runs, 3 if bench.quick else 20)
        first, ours = times["eager fp32 NCHW"]["p50"], times["ours bf16"]["p50"]
        best = min((times[label]["p50"] for label in modes if label in times), default=None)
        rows.append({
            "tier": tier, "size": name,
            **{label: times[label]["p50"] if label in times else None for label in (
                "eager fp32 NCHW", "eager bf16 NHWC", "compile", "compile max-autotune", "ours bf16", "ours fp8")},
            "over eager fp32": first / ours, "over best compile": best / ours if best else None,
            "floor": bench.floor_ms(net, size) if bench.cuda else None, "spread": times,
        })  # fmt: skip
        del runs, engines
        bench.let_go()
    bench.table(
        "2. One frame on the device, ms (p50, forwards and backwards)",
        [{key: value for key, value in row.items() if key != "spread"} for row in rows],
    )
    return {"rows": rows}


def _segment(size_bytes: int) -> Any:
    """A file in shared memory; where that is small, as in a container, in the folder of temporary files."""
    for directory in ("/dev/shm", None):
        if directory is not None and not os.path.isdir(directory):
            continue
        file = tempfile.NamedTemporaryFile(dir=directory)  # noqa: SIM115
        try:
            # Not a hole: writing into one that nothing is left for kills the process.
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        except OSError:
            file.close()
            continue
        return file
    raise RuntimeError(f"neither shared memory nor the temporary folder has {size_bytes} bytes")


def memory_to_memory(bench: Bench, engine: Any, kind: Any, frames: int, paced: bool) -> dict[str, Any]:
    """Serve a writer's frames from its shared memory into it; what each took, in ms."""
    shape = (kind.height, kind.width)
    with _segment(HEADER_BYTES + 2 * SLOTS * shape[0] * shape[1] * 4) as file:
        mapping = mmap.mmap(file.fileno(), 0)
        header, slots, answers = _slots(mapping, shape)
        command = [sys.executable, __file__, "--writer", file.name, *map(str, shape), str(frames), str(int(paced))]
        canvas = opened(engine, kind)
        answer_of(engine, canvas, slots[0], answers[0])  # pins the mapping, before the writer begins
        process = subprocess.Popen(command)
        took, ends, last, skipped = [], [], 0, 0
        try:
            silent_since = time.monotonic()
            while last < frames:
                number = int(header[PUBLISHED])
                if number == last:
                    if process.poll() is not None and int(header[PUBLISHED]) == last:
                        break
                    if time.monotonic() - silent_since > 60:
                        raise RuntimeError("the writer published nothing for a minute")
                    if paced:
                        time.sleep(20e-6)
                    continue
                skipped += number - last - 1
                slot = number % SLOTS
                ready_ns = int(header[TIMES + slot])
                answer_of(engine, canvas, slots[slot], answers[slot])
                end_ns = time.monotonic_ns()
                header[ANSWERED] = last = number
                took.append((end_ns - ready_ns) / 1e6)
                ends.append(end_ns)
                silent_since = time.monotonic()
        finally:
            header[STOP] = 1
            process.wait(30)
        changed = any(np.any(answer) for answer in answers)
    assert changed, "no answer was written"
    settled = np.array(took[min(20, len(took) // 4) :])
    intervals = np.diff(ends)[min(20, len(took) // 4) :] / 1e6
    return {
        "frames": len(settled), "p50": float(np.percentile(settled, 50)), "p95": float(np.percentile(settled, 95)),
        "p99": float(np.percentile(settled, 99)), "p99.9": float(np.percentile(settled, 99.9)),
        "max": float(settled.max()), "misses": int((settled > FRAME_NS / 1e6).sum()) + skipped,
        "jitter": float(intervals.std()) if paced else None,
    }  # fmt: skip


def stages(bench: Bench, engine: Any, kind: Any, repeats: int) -> dict[str, float]:
    """What each stage takes alone on the device, ms p50: the copies with the graphs between them."""
    import torch

    canvas = opened(engine, kind)
    frame = random_frame((kind.height, kind.width), 2)
    answer_of(engine, canvas, frame, frame.copy())
    path, work = canvas.path, canvas.work
    host = path.host(path.frame.numel())
    host.copy_(torch.from_numpy(frame).view(-1))
    runs: dict[str, Callable[[], Any]] = {
        "upload": lambda: path.frame[0].copy_(host, non_blocking=True), "net": work.net, "compose": work.compose,
        "download": lambda: host.copy_(path.answer[0], non_blocking=True),
    }  # fmt: skip
    with torch.inference_mode():
        return {name: times["p50"] for name, times in bench.compare(runs, repeats).items()}


def part_3(bench: Bench) -> dict[str, Any]:
    """Memory to memory, back to back and at 60 Hz, and stage by stage."""
    tier = bench.tiers[-1]
    frames = 40 if bench.quick else 2020
    rows, staged = [], []
    for name in (bench.full_hd,) if bench.quick else ("1080p", "4K"):
        engine, kind = bench.engine(tier, bench.sizes[name])
        for paced in (False, True):
            # 2,000 frames at 60 Hz are 34 seconds: the second size is paced only where the ladder has time besides.
            needed_s = 260 if bench.parts & {2, 4, 5, 6} else 40
            if not bench.quick and paced and name != "1080p" and bench.left_s() < needed_s:
                continue
            row = memory_to_memory(bench, engine, kind, frames, paced)
            rows.append({"tier": tier, "size": name, "pace": "60 Hz" if paced else "back to back", **row})
        staged.append({"tier": tier, "size": name, **stages(bench, engine, kind, 5 if bench.quick else 100)})
    bench.table("3. From ready in shared memory to ready in shared memory, ms", rows)
    bench.table("3. Each stage alone, ms p50", staged)
    return {"rows": rows, "stages": staged}


def sampler_runs(bench: Bench, net: Any, size: tuple[int, int], steps: int) -> dict[str, Callable[[], Any]]:
    """A frame in so many steps with the sampler that evaluation uses, the net in PyTorch: in sequence, in parallel."""
    import copy

    import torch

    from mirage_plugin.model.memory import MemoryState
    from mirage_plugin.model.network import PLANE_CHANNELS, frame_lines
    from mirage_plugin.model.sampling import ParallelSampler, sample

    h, w = (8 * -(-side // 64) for side in size)
    style = style_vector(net).to(bench.device)
    net = copy.deepcopy(net).to(bench.device)
    random = torch.Generator().manual_seed(4)
    v = (torch.rand(1, 3, 8 * h, 8 * w, generator=random) * 2 - 1).to(bench.device)
    noise = torch.randn(1, 1, 4 * h, 4 * w, generator=random).to(bench.device)
    planes = torch.zeros(1, h, w, PLANE_CHANNELS, device=bench.device)
    state = torch.rand(1, h // 2, w // 2, net.tier.state, generator=random).to(bench.device) * 2 - 1
    memory = MemoryState(state, torch.ones(1, h // 2, w // 2, 1, device=bench.device))
    given = (v, noise, planes, memory, style, torch.ones(1, device=bench.device), frame_lines(v, None, None, style))
    sampler = ParallelSampler(net, steps)

    def bf16() -> Any:
        return torch.autocast(bench.device.type, torch.bfloat16, enabled=bench.cuda)

    def in_sequence() -> None:
        with torch.inference_mode(), bf16():
            sample(net, *given, steps)

    def in_parallel() -> None:
        with torch.inference_mode(), bf16():
            sampler.step(*given)

    for _ in range(sampler.latency_frames):
        in_parallel()
    return {"in sequence": in_sequence, "in parallel": in_parallel}


def part_4(bench: Bench) -> dict[str, Any]:
    """Several sessions on one engine, one after another and overlapped; several steps, in a row and as a batch."""
    import torch

    import mirage_kernels as kernels
    from mirage_plugin.frames import FramePlanes

    tier, size = bench.tiers[-1], bench.sizes[bench.full_hd]
    repeats = 3 if bench.quick else 100
    engine, kind = bench.engine(tier, size)
    rows, none = [], FramePlanes()
    for count in (1, 2) if bench.quick else (1, 2, 4, 8):
        canvases = [opened(engine, kind, seed) for seed in range(count)]
        frames, outs = np.split(shared_frames(size, 2 * count), 2)

        def serial(canvases: Any = canvases, frames: Any = frames, outs: Any = outs) -> None:
            for canvas, frame, out in zip(canvases, frames, outs, strict=True):
                answer_of(engine, canvas, frame, out)

        def overlapped(canvases: Any = canvases, frames: Any = frames, outs: Any = outs) -> None:
            for canvas, frame in zip(canvases, frames, strict=True):
                engine.upload(canvas, frame, none)
            for canvas, frame, out in zip(canvases, frames, outs, strict=True):
                engine.read(canvas, frame, None, none, False)
                engine.denoise(canvas)
                engine.compose(canvas, frame, out, None, None, 1.0)
            for canvas in canvases:
                engine.wait(canvas, time.monotonic_ns() + 10_000_000_000)

        times: dict[str, list[float]] = {"serial": [], "overlapped": []}
        both = ("serial", serial), ("overlapped", overlapped)
        for label, run in (*both, *reversed(both)):
            for _ in range(repeats):
                start = time.perf_counter()
                run()
                times[label].append((time.perf_counter() - start) * 1e3)
        p99 = float(np.percentile(times["overlapped"], 99))
        rows.append({
            "sessions": count, "a round, one by one": statistics.median(times["serial"]),
            "a round, overlapped": statistics.median(times["overlapped"]), "p99": p99,
            "60 Hz each": bool(p99 <= FRAME_NS / 1e6),
        })  # fmt: skip
        del canvases
    bench.table(f"4. Sessions of {tier} at {bench.full_hd}, ms for a frame of each, host to host", rows)

    network = engine._weights.network
    canvas = opened(engine, kind)
    work = canvas.work
    steps = []
    for count in (1, 2) if bench.quick else (1, 2, 4):
        if bench.left_s() < 45 and not bench.quick:
            break
        whole, whole_kind = (engine, kind) if count == 1 else bench.engine(tier, size, steps=count)
        sequence = bench.compare({"frame": our_frame(whole, whole_kind)}, repeats)["frame"]["p50"]
        with torch.inference_mode():
            stem = torch.randn(count, work.h, work.w, network.stem_bias.numel(), device=bench.device).to(network.dtype)
            shape = (count, work.h // 2, work.w // 2)
            state = torch.randn(*shape, engine._weights.state, device=bench.device).to(network.dtype)
            valid = torch.ones(*shape, 1, device=bench.device, dtype=network.dtype)
            film, style = (x[:1].repeat(count, 1) for x in (canvas.path.film, canvas.path.style))
            noise = torch.randn(count, 1, 4 * work.h, 4 * work.w, device=bench.device)

            there = torch.full((count, work.h, work.w, 2), -1.0, device=bench.device)
            every = (stem, state, valid, film, style, noise, there)
            # Clones, for a row of a style need not start where a kernel wants it to.
            alone = [[x[i : i + 1].clone() for x in every] for i in range(count)]

            def batch(given: Any = every) -> Any:
                return kernels.forward(network, *given)

            def row(frames: Any = alone) -> None:
                for given in frames:
                    kernels.forward(network, *given)

            runs = {"in a row": bench.captured(row), "as a batch": bench.captured(batch)}
            parallel = {name: values["p50"] for name, values in bench.compare(runs, repeats).items()}
        both_ways = {
            name: values["p50"]
            for name, values in bench.compare(sampler_runs(bench, bench.network(tier), size, count), repeats).items()
        }
        steps.append({
            "steps": count, "a frame": sequence, **{f"net {k}": v for k, v in parallel.items()},
            **{f"PyTorch {k}": v for k, v in both_ways.items()},
            "times the frames": both_ways["in sequence"] / both_ways["in parallel"], "frames later": count - 1,
        })  # fmt: skip
    bench.table(f"4. Steps of {tier} at {bench.full_hd}, ms on the device", steps)
    return {"sessions": rows, "steps": steps}


def part_5(bench: Bench) -> dict[str, Any]:
    """Device memory of a game, and whether the twenty-thousandth frame costs what the hundredth did."""
    import torch

    tier, size = ("nano" if bench.quick else "small"), bench.sizes[bench.full_hd]
    frames = 120 if bench.quick else 20_050
    bench.let_go()
    before = torch.cuda.mem_get_info()[0] if bench.cuda else 0
    engine, kind = bench.engine(tier, size)
    canvas = opened(engine, kind)
    bench.let_go()
    used = (before - torch.cuda.mem_get_info()[0]) / 2**20 if bench.cuda else None
    *sources, out = shared_frames(size, 4)
    took: list[float] = []
    allocated: list[int] = []
    while len(took) < frames and bench.left_s() > 25:
        start = time.perf_counter()
        answer_of(engine, canvas, sources[len(took) % 3], out)
        took.append((time.perf_counter() - start) * 1e3)
        if len(took) in (100, frames - 1):
            allocated.append(torch.cuda.memory_allocated() if bench.cuda else 0)
    early, late = statistics.median(took[20:100]), statistics.median(took[-80:])
    row = {
        "tier": tier, "size": bench.full_hd, "device memory MiB": used, "frame 100 ms": early,
        f"frame {len(took)} ms": late, "ratio": late / early,
        "grown bytes": allocated[-1] - allocated[0] if bench.cuda and len(allocated) > 1 else None,
    }  # fmt: skip
    bench.table("5. Memory and age, host to host", [row])
    return row


def part_6(bench: Bench, measured: dict[str, Any]) -> dict[str, Any]:
    """Latency of other designs with this very network, from what was measured and what they are by construction."""
    import torch

    import mirage_kernels as kernels

    tier, size = bench.tiers[-1], bench.sizes[bench.full_hd]
    engine, kind = bench.engine(tier, size)
    own = memory_to_memory(bench, engine, kind, 40 if bench.quick else 320, False)["p50"]
    canvas = opened(engine, kind)
    work, network = canvas.work, engine._weights.network
    window, steps = (2, 2) if bench.quick else (16, 25)
    device_ms = sum(stages(bench, engine, kind, 3 if bench.quick else 30)[name] for name in ("upload", "download"))

    def forward(count: int) -> Callable[[], Any]:
        stem = torch.randn(count, work.h, work.w, network.stem_bias.numel(), device=bench.device).to(network.dtype)
        half = (count, work.h // 2, work.w // 2)
        state = torch.zeros(*half, engine._weights.state, device=bench.device, dtype=network.dtype)
        valid = torch.zeros(*half, 1, device=bench.device, dtype=network.dtype)
        film, style = (x[:1].repeat(count, 1) for x in (canvas.path.film, canvas.path.style))
        noise = torch.randn(count, 1, 4 * work.h, 4 * work.w, device=bench.device)
        there = torch.full((count, work.h, work.w, 2), -1.0, device=bench.device)

        def run() -> None:
            for _ in range(steps):
                kernels.forward(network, stem, state, valid, film, style, noise, there)

        return bench.captured(run)

    with torch.inference_mode():
        times = bench.compare({"window": forward(window), "frame": forward(1)}, 2 if bench.quick else 3)
    chunk, one = times["window"]["p50"], times["frame"]["p50"]
    fill = (window - 1) * FRAME_NS / 1e6
    sent = 2 * size[0] * size[1] * 3 / NETWORK_COMPRESSION / NETWORK_BYTES_PER_S * 1e3
    rows = [
        {"design": "ours", "compute ms": own, "by construction ms": 0.0, "latency ms": own, "note": "measured whole"},
        {
            "design": f"chunks of {window} frames, {steps} steps", "compute ms": chunk, "by construction ms": fill,
            "latency ms": chunk + fill, "note": "the first frame of a chunk waits for the last, at 60 Hz",
        },
        {
            "design": f"frame after frame, {steps} steps", "compute ms": one + device_ms, "by construction ms": 0.0,
            "latency ms": one + device_ms, "note": "the previous picture is in the input, so no frame overlaps",
        },
        {
            "design": "ours, remote", "compute ms": own, "by construction ms": NETWORK_MS + sent,
            "latency ms": own + NETWORK_MS + sent,
            "note": f"stated, not measured: {NETWORK_MS:.0f} ms both ways, 100 Mbit/s, frames 1:{NETWORK_COMPRESSION}",
        },
    ]  # fmt: skip
    bench.table(f"6. Latency of designs with the {tier} network at {bench.full_hd}", rows)
    return {"rows": rows}


# -- the whole ---------------------------------------------------------------------------------------------------


def _make_importable() -> None:
    """Import from a checkout, on a machine with torch and numpy alone."""
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root), str(root / "kernels")]


def _warm(bench: Bench) -> None:
    """Compile the kernels that the parts launch, in processes side by side; they are kept on disk."""
    wanted = []
    if 1 in bench.parts:
        wanted += [(tier, "352p", dtype) for tier in bench.tiers for dtype in ("fp32", "bf16", "fp8")]
    if bench.parts - {1}:
        names = SIZES if 2 in bench.parts else ("1080p", "4K")
        dtypes = ("bf16", "fp8") if 2 in bench.parts else ("bf16",)
        wanted += [(tier, name, dtype) for name in names for tier in ("base", "small") for dtype in dtypes]
    count = min(8, os.cpu_count() or 1)
    lists = [",".join(":".join(each) for each in wanted[i::count]) for i in range(count)]
    command = [sys.executable, __file__, "--warm"]
    processes = [subprocess.Popen([*command, each], stdout=subprocess.DEVNULL) for each in lists if each]
    for process in processes:
        try:
            process.wait(max(1.0, bench.left_s() - 200))
        except subprocess.TimeoutExpired:
            process.kill()
    bench.say(f"compiled in {time.perf_counter() - bench.began:.0f} s")


def _machine(bench: Bench) -> dict[str, Any]:
    import torch

    from mirage_kernels.launch import HAS_TRITON, triton

    driver = None
    if bench.cuda:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        driver = done.stdout.strip().splitlines()[0] if done.stdout.strip() else None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if bench.cuda else platform.processor() or platform.machine(),
        "driver": driver, "cores": os.cpu_count(), "torch": torch.__version__,
        "triton": triton.__version__ if HAS_TRITON else None, "numpy": np.__version__,
        "python": platform.python_version(), "quick": bench.quick,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, print the tables, write them as JSON and Markdown; 1 where an answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="where the results go; the Markdown goes beside it")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="tiny frames, few repeats, no torch.compile")
    parser.add_argument("--parts", default="1,2,3,4,5,6", help="which parts, such as 1,3")
    parser.add_argument("--writer", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--warm", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.writer:
        path, height, width, frames, paced = options.writer
        writer(path, int(height), int(width), int(frames), paced == "1")
        return 0
    _make_importable()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device: run with --device cpu --quick", file=sys.stderr)
        return 2
    bench = Bench(torch.device(options.device), options.quick, parts={int(part) for part in options.parts.split(",")})
    if options.warm:
        for each in options.warm.split(","):
            tier, name, dtype = each.split(":")
            bench.engine(tier, SIZES.get(name, (352, 640)), dtype=dtype)
        return 0
    result: dict[str, Any] = {"machine": _machine(bench)}
    bench.say("# What the GPU's path takes\n")
    bench.say(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    if not bench.cuda:
        bench.say("\nNo GPU in this run: ours are the operations' references in fp32, and times say nothing.\n")
    bench.measure_ceilings()
    result["ceilings"] = bench.ceilings
    if bench.cuda and not bench.quick:
        _warm(bench)
    # What the goals are about comes first; the ladder takes what time is left.
    parts = bench.parts
    for number in (1, 3, 2, 4, 5, 6):
        if number not in parts:
            continue
        if bench.left_s() < 15:
            bench.say(f"\nPart {number} was not run: no time was left.")
            continue
        began = time.perf_counter()
        run: Any = globals()[f"part_{number}"]
        result[f"part_{number}"] = run(bench, result) if number == 6 else run(bench)
        bench.say(f"\n({time.perf_counter() - began:.0f} s)")
    if bench.random_tiers:
        bench.say(f"\nWeights drawn at random, for there are none here: {', '.join(sorted(bench.random_tiers))}.")
    result["random_weights"] = sorted(bench.random_tiers)
    result["seconds"] = round(time.perf_counter() - bench.began, 1)
    bench.say(f"{result['seconds']} s")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
        options.json.with_suffix(".md").write_text("\n".join(bench.lines) + "\n")
    return 1 if result.get("part_1", {}).get("wrong") else 0


if __name__ == "__main__":
    raise SystemExit(main())

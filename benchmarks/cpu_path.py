"""The processor's path beside the same network in plain PyTorch, `torch.compile` and ONNX Runtime, as ratios.

    python benchmarks/cpu_path.py --json out/cpu_path.json           about four minutes, more the first time
    python benchmarks/cpu_path.py --json out/cpu_path.json --quick   the same script, small and uncompiled

One thread, 640x360, nano, batch of one, all in one run; the machine should be idle otherwise, and the load average is
printed. Every variant is measured in the order A B .. B A. *Net alone* is from cells and memory to edit and memory;
*whole frame* is from a frame's bytes to the answer's. Ours is what `mirage serve` runs: the core compiled ahead of
time, pixels by numba and C. ONNX Runtime is measured where `onnx`, `onnxscript` and `onnxruntime` are installed, and
named where not. The stage table says where a frame's milliseconds go.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from gpu import random_frame, torch_frame  # the script beside this one
from torch import Tensor, nn

from mirage_plugin import engine as serving
from mirage_plugin.config import ServeConfig
from mirage_plugin.errors import WeightsError
from mirage_plugin.frames import FrameKind, FramePlanes
from mirage_plugin.model.checkpoint import load_network
from mirage_plugin.model.core import Core, CoreInput, core_input
from mirage_plugin.model.native import why_not_native
from mirage_plugin.model.network import TIERS, MirageNet
from mirage_plugin.styles.parameters import load_style

__all__ = ["main"]

ORDER = np.array([0, 1, 2])
STAGES = {
    "read": "bytes to cells, planes to cells, noise moved (numba)",
    "denoise": "the net: memory warped, one step, memory packed",
    "compose": "colour transforms and detail on the full frame (C, or numba)",
    "reuse": "instead of denoise: the last edit moved along (numba)",
}


PASS_S = 10.0
"""A pass over one way of running it ends after so long."""


def measured(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds p20, p50, p80 of each, over a pass forwards and one backwards, after two calls that do not count."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
        run()
    for name in (*runs, *reversed(runs)):
        begun = time.perf_counter()
        for i in range(repeats):
            start = time.perf_counter()
            if i >= 3 and start - begun > PASS_S:
                break  # bf16 where a processor has none takes seconds a call
            runs[name]()
            samples[name].append((time.perf_counter() - start) * 1e3)
    return {name: {f"p{q}": float(np.percentile(took, q)) for q in (20, 50, 80)} for name, took in samples.items()}


def network() -> tuple[MirageNet, bool]:
    """Nano's weights, or nano drawn at random and False."""
    try:
        return load_network("nano"), True
    except WeightsError:
        torch.manual_seed(1)
        net = MirageNet(TIERS["nano"]).eval().requires_grad_(False)
        net.begin_training()
        for layer in (net.head_matrices, net.head_words, net.head_detail):
            layer.weight.normal_(0, 0.02)
        return net, False


def random_input(core: Core, rows: int, columns: int) -> CoreInput:
    """Random cells, noise and memory: zeros would be faster than any frame."""
    empty = core_input(core, rows, columns)
    return empty._replace(
        cells=torch.randint(0, 256, empty.cells.shape, dtype=torch.uint8), noise=torch.randn(empty.noise.shape),
        stored=torch.randint(-90, 90, empty.stored.shape, dtype=torch.int8), seen=torch.ones_like(empty.seen),
    )  # fmt: skip


class _Flat(nn.Module):
    """The core with plain tensors in and out, as an exporter takes it."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        out = self.core(CoreInput._make(given))
        return (*out.edit, out.stored)


def onnx_runs(core: Core, given: CoreInput, folder: Path) -> dict[str, Callable[[], Any]]:
    """The core in ONNX Runtime: fp32, and statically quantised to int8. Raises `ImportError` where it is absent."""
    import onnx  # noqa: F401 - what the exporter writes with
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    plain, small = folder / "core.onnx", folder / "core8.onnx"
    names = list(CoreInput._fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Flat(core), tuple(given), str(plain), input_names=names, opset_version=18, dynamo=True, verbose=False
        )
    fed = {name: value.numpy() for name, value in zip(names, given, strict=True)}

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [fed] * 4

        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = torch.get_num_threads()
    runs: dict[str, Callable[[], Any]] = {}
    for label, path in (("ONNX Runtime fp32", plain), ("ONNX Runtime int8", small)):
        if path is small:
            quantize_static(
                str(plain), str(small), Reader(), quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8, per_channel=True, op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            )  # fmt: skip
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        wanted = {each.name for each in session.get_inputs()}
        part = {name: value for name, value in fed.items() if name in wanted}
        runs[label] = lambda session=session, part=part: session.run(None, part)
    return runs


def net_alone(net: MirageNet, engine: serving.Engine, quick: bool, notes: list[str]) -> dict[str, Any]:
    """The core in every way of running it, on the largest grid."""
    rows, columns = serving.GRIDS[-1 if quick else 0]
    core32, core16 = Core(copy.deepcopy(net), torch.float32), Core(copy.deepcopy(net), torch.bfloat16)
    given32, given16 = random_input(core32, rows, columns), random_input(core16, rows, columns)
    best = random_input(core32 if engine.dtype == torch.float32 else core16, rows, columns)
    runs: dict[str, Callable[[], Any]] = {
        "eager fp32": lambda: core32(given32), "eager bf16": lambda: core16(given16),
        "ours": lambda: engine._forward(best),
    }  # fmt: skip
    if not quick:
        name, core, given = ("fp32", core32, given32) if engine.dtype == torch.float32 else ("bf16", core16, given16)
        compiled = torch.compile(core, dynamic=False)
        try:
            compiled(given)
            runs[f"torch.compile {name}"] = lambda: compiled(given)
        except Exception as error:  # as for an exporter, below
            notes.append(f"torch.compile was not measured: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad():
        try:
            runs |= onnx_runs(core32, given32, Path(folder))
        except ImportError as error:
            mend = "pip install onnx onnxscript onnxruntime"
            notes.append(f"ONNX Runtime was not measured: {error.name} is not installed ({mend})")
        except Exception as error:  # an exporter's failure is a dash, not the end of the table
            notes.append(f"ONNX Runtime was not measured: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
        return {"grid": f"{columns}x{rows} cells", "ms": measured(runs, 3 if quick else 40)}


def whole_frame(net: MirageNet, engine: serving.Engine, quick: bool) -> dict[str, Any]:
    """A frame's bytes to its answer's, in PyTorch as it is written and as it is served."""
    height, width = (64, 96) if quick else (360, 640)
    cpu = torch.device("cpu")
    canvas = engine.open(FrameKind("RGBA8", height, width), 3, len(serving.GRIDS) - 1 if quick else 0)
    engine.set_style(canvas, load_style("snow"))
    frame = random_frame((height, width), 4)
    out = np.empty_like(frame)

    def ours() -> None:
        engine.read(canvas, frame, ORDER, FramePlanes(), False)
        engine.denoise(canvas)
        engine.compose(canvas, frame, out, ORDER, None, 1.0)

    runs: dict[str, Callable[[], Any]] = {
        "eager fp32": torch_frame(net, (height, width), cpu, torch.float32, False),
        "eager bf16": torch_frame(net, (height, width), cpu, torch.bfloat16, False), "ours": ours,
    }  # fmt: skip
    return {"size": f"{width}x{height}", "ms": measured(runs, 3 if quick else 20)}


def stage_table(engine: serving.Engine, quick: bool) -> list[dict[str, Any]]:
    """What each stage takes, for frames with and without planes, and for a display larger than the working frame."""
    found = []
    shapes = [(64, 96)] if quick else [(360, 640), (1080, 1920)]
    for height, width in shapes:
        for planes in (False, True):
            canvas = engine.open(FrameKind("RGBA8", height, width), 3, len(serving.GRIDS) - 1 if quick else 0)
            engine.set_style(canvas, load_style("snow"))
            frame, random = random_frame((height, width), 4), np.random.default_rng(1)
            out = np.empty_like(frame)
            given = FramePlanes(
                random.random((height, width), np.float32) * 40,
                (random.random((height, width, 2), np.float32) * 8 - 4).astype(np.float16),
                random.integers(0, 4, (height, width), np.uint8),
            ) if planes else FramePlanes()  # fmt: skip
            # Each needs what the one before it left; so they run in turn, and each is timed alone.
            took: dict[str, list[float]] = {name: [] for name in STAGES}
            calls: dict[str, Callable[[], Any]] = {
                "read": lambda c=canvas, f=frame, g=given: engine.read(c, f, ORDER, g, False),
                "denoise": lambda c=canvas: engine.denoise(c),
                "compose": lambda c=canvas, f=frame, o=out, g=given: engine.compose(c, f, o, ORDER, g.mask, 1.0),
                "reuse": lambda c=canvas: engine.reuse(c),
            }  # fmt: skip
            for turn in range(5 if quick else 32):
                for name, call in calls.items():
                    start = time.perf_counter()
                    call()
                    if turn >= 2:
                        took[name].append((time.perf_counter() - start) * 1e3)
            row = {name: float(np.percentile(values, 50)) for name, values in took.items()}
            whole = [sum(each) for each in zip(took["read"], took["denoise"], took["compose"], strict=True)]
            found.append({
                "size": f"{width}x{height}", "planes": planes, **row,
                "frame p50": float(np.percentile(whole, 50)), "frame p99": float(np.percentile(whole, 99)),
            })  # fmt: skip
    return found


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    machine = result["machine"]
    lines = ["# What the processor's path takes", "", ", ".join(f"{k} {v}" for k, v in machine.items()), ""]
    lines += [f"- {note}" for note in result["notes"]]
    for title, part in (("Net alone", result["net"]), ("Whole frame", result["frame"])):
        ours = part["ms"]["ours"]["p50"]
        lines += ["", f"## {title}, {part.get('grid') or part['size']}, one thread", "",
                  "| | ms p20 | p50 | p80 | ours is faster by |", "|---|---|---|---|---|"]  # fmt: skip
        for name, ms in part["ms"].items():
            lines.append(f"| {name} | {ms['p20']:.2f} | {ms['p50']:.2f} | {ms['p80']:.2f} | {ms['p50'] / ours:.2f} |")
    lines += ["", "## Stages, ms p50", "", "| display | planes | " + " | ".join(STAGES) + " | frame p50 | frame p99 |",
              "|" + "---|" * (len(STAGES) + 4)]  # fmt: skip
    for row in result["stages"]:
        figures = " | ".join(f"{row[name]:.2f}" for name in (*STAGES, "frame p50", "frame p99"))
        lines.append(f"| {row['size']} | {'all' if row['planes'] else 'none'} | {figures} |")
    lines += ["", *(f"- {name}: {what}" for name, what in STAGES.items()), "", f"{result['seconds']} s", ""]
    return "\n".join(lines)


def _version(name: str) -> str | None:
    return importlib.metadata.version(name) if importlib.util.find_spec(name) else None


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    """Measure, print the page, write it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="where the results go; the Markdown goes beside it")
    parser.add_argument("--quick", action="store_true", help="small frames, few repeats, nothing compiled")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    torch.set_num_threads(1)
    net, trained = network()
    notes = [] if trained else ["nano has no weights here: the network is drawn at random and not compiled ahead"]
    compile_ = trained and not options.quick
    with mock.patch.object(serving, "load_network", side_effect=lambda *_: copy.deepcopy(net)):
        config = ServeConfig(device="cpu", tier="nano", compile=compile_)
        engine = serving.Engine(config, lambda sentence: notes.append(sentence))
    if not compile_:
        notes.append("ours ran uncompiled in this run, which is not what serves")
    if reason := why_not_native():
        notes.append(f"composed with numba: {reason[:160]}")
    machine = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "dtype": str(engine.dtype).removeprefix("torch."), "load average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__, "numpy": np.__version__, "numba": _version("numba"),
        "onnxruntime": _version("onnxruntime"), "python": platform.python_version(), "quick": options.quick,
    }  # fmt: skip
    result: dict[str, Any] = {
        "machine": machine, "notes": notes, "net": net_alone(net, engine, options.quick, notes),
        "frame": whole_frame(net, engine, options.quick), "stages": stage_table(engine, options.quick),
    }  # fmt: skip
    result["seconds"] = round(time.perf_counter() - began, 1)
    page = markdown(result)
    print(page)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
        options.json.with_suffix(".md").write_text(page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

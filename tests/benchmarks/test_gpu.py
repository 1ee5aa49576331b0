"""The GPU's benchmark without one: that it runs, that its answers are right, and that it needs no more than it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
ABSENT = ("numba", "safetensors", "cv2", "zmq", "msgpack", "pygame", "rich", "typer", "scipy", "PIL", "matplotlib")
BARE = """
import runpy, sys
for name in {absent!r}:
    sys.modules[name] = None
sys.argv = {argv!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *command], capture_output=True, text=True, timeout=280, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_answers_and_the_way_through_shared_memory(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    said = run(str(SCRIPT), "--device", "cpu", "--quick", "--parts", "1,3,4", "--json", str(out))
    result = json.loads(out.read_text())
    assert result["part_1"]["wrong"] == 0
    assert all(row["changed by"] > 1 for row in result["part_1"]["rows"]), "an answer that is the source proves nothing"
    back_to_back, paced = result["part_3"]["rows"]
    assert back_to_back["frames"] == 30
    assert 0 < back_to_back["p50"] <= back_to_back["p99"] <= back_to_back["max"]
    # The writer's clock runs on while the reference takes longer than a frame: what was passed over is a miss.
    assert paced["misses"] + paced["frames"] >= 38
    assert {"upload", "net", "compose", "download"} <= set(result["part_3"]["stages"][0])
    assert [row["frames later"] for row in result["part_4"]["steps"]] == [0, 1]
    assert all(row["PyTorch in parallel"] > 0 for row in result["part_4"]["steps"])
    assert "not measured" not in said
    assert out.with_suffix(".md").read_text().startswith("# What the GPU's path takes")


def test_a_bare_machine_has_all_it_needs(tmp_path: Path) -> None:
    argv = ["gpu.py", "--device", "cpu", "--quick", "--parts", "1", "--json", str(tmp_path / "gpu.json")]
    said = run("-c", BARE.format(absent=ABSENT, argv=argv, script=str(SCRIPT)))
    assert json.loads((tmp_path / "gpu.json").read_text())["random_weights"] == ["nano"]
    assert "drawn at random" in said

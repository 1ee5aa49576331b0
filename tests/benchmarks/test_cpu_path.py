"""The processor's benchmark runs, and says what it did not measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cpu_path.py"


def test_quick(tmp_path: Path) -> None:
    out = tmp_path / "cpu_path.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", str(out)],
        capture_output=True, text=True, timeout=280, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    for part in ("net", "frame"):
        for name in ("eager fp32", "eager bf16", "ours"):
            ms = result[part]["ms"][name]
            assert 0 < ms["p20"] <= ms["p50"] <= ms["p80"]
    assert {row["planes"] for row in result["stages"]} == {False, True}
    for row in result["stages"]:
        assert row["frame p50"] > row["read"] + row["compose"]
    if result["machine"]["onnxruntime"] is None:
        assert any("ONNX Runtime was not measured" in note for note in result["notes"])
    assert any("uncompiled" in note for note in result["notes"]), "nobody may take these for what serves"
    assert "| ours |" in out.with_suffix(".md").read_text()

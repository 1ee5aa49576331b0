"""Kernels are compiled for chips that are not here; what the compiler says of them is checked.

The short form: base's heaviest launches at 1080p, and one of each other kind. Everything that a launcher can
choose is compiled where `MIRAGE_TEST_LONG=1` is set, which takes as long as a coffee.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton has wheels for Linux only"),
    # Triton speaks of its own defaults to come.
    pytest.mark.filterwarnings("default"),
]
LONG = os.environ.get("MIRAGE_TEST_LONG") == "1"
FIELDS = {"name", "config", "target", "registers", "spill_bytes", "shared_bytes", "tensor_core"}


@pytest.fixture(scope="module")
def compile_check() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "compile_check.py"
    spec = importlib.util.spec_from_file_location("compile_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compile_check"] = module
    spec.loader.exec_module(module)
    return module


def table(compile_check: ModuleType, out: Path, *options: str) -> list[dict[str, Any]]:
    code = compile_check.main(["--json", str(out), *([] if LONG else ["--short"]), *options])
    rows: list[dict[str, Any]] = json.loads(out.read_text())["kernels"]
    wrong = {row["name"]: found for row in rows if (found := compile_check.problems(row))}
    assert (code, wrong) == (0, {})
    assert all(row.keys() >= FIELDS for row in rows)
    return rows


def test_hopper_compiles_to_what_it_has(compile_check: ModuleType, tmp_path: Path) -> None:
    rows = table(compile_check, tmp_path / "90.json", "--targets", "90", *([] if LONG else ["--only", "linear"]))
    linear = [row for row in rows if row["name"] == "linear_kernel"]
    assert {"HGMMA", "QGMMA"} == {row["tensor_core"] for row in linear if row["matrix_product"]}
    assert all(row["spill_bytes"] == 0 for row in rows)


@pytest.mark.parametrize("name", ["block_kernel", "pixels", "memory_write"])
def test_the_heavy_kernels_do_not_spill(compile_check: ModuleType, tmp_path: Path, name: str) -> None:
    # Nano's, which compile in seconds; base's come with the long form.
    rows = table(compile_check, tmp_path / "90.json", "--targets", "90", "--only", name, "--tiers", "nano")
    assert rows
    assert all("GMMA" in row["tensor_core"] for row in rows)


@pytest.mark.parametrize("target", ["80", "120"])
def test_other_chips(compile_check: ModuleType, tmp_path: Path, target: str) -> None:
    narrow = [] if LONG else ["--only", "linear", "--tiers", "nano"]
    rows = table(compile_check, tmp_path / f"{target}.json", "--targets", target, *narrow)
    assert all(row["tensor_core"] for row in rows if row["matrix_product"])


def test_every_row_of_a_launch_table_can_be_chosen(compile_check: ModuleType) -> None:
    """What a launcher can choose is what is compiled: no row of a table is dead, none is left out."""
    block = importlib.import_module("mirage_kernels.block")
    chosen: dict[int, set[tuple[int, int]]] = {}
    for launch in compile_check.launches(90, short=False):
        if launch.name == "block_kernel" and not launch.constants["EXACT"]:
            tile = launch.constants["TH"], launch.constants["TW"]
            chosen.setdefault(launch.constants["C"], set()).add(tile)
    table = {c: {(row.sizes["TH"], row.sizes["TW"]) for row in rows} for c, rows in block._ROOMY.items()}
    assert chosen == table
    tight = compile_check.launches(120, short=False)
    assert {launch.constants["C"] for launch in tight if launch.name == "block_kernel"} == set(block._TIGHT)


def test_problems_are_found(compile_check: ModuleType) -> None:
    good = {
        "target": "sm_90", "spill_bytes": 0, "shared_bytes": 1024, "matrix_product": True, "tensor_core": "HGMMA",
        "config": {"types": ["*bf16"]},
    }  # fmt: skip
    assert compile_check.problems(good) == []
    for spoil, word in (
        ({"spill_bytes": 8}, "spills"),
        ({"shared_bytes": 300_000}, "shared memory"),
        ({"tensor_core": ""}, "no matrix instruction"),
        ({"tensor_core": "HMMA"}, "warp-group"),
        ({"config": {"types": ["*fp8e4nv"]}}, "no QGMMA"),
    ):
        assert any(word in found for found in compile_check.problems(good | spoil))


def test_a_row_or_a_column_alone_compiles(compile_check: ModuleType) -> None:
    """The interpreter takes what the compiler refuses: it makes an argument that is 1 a constant, without methods."""
    seen: set[str] = set()
    names: set[str] = set()
    with compile_check.record(90) as found:
        compile_check.narrow()
    for launch in found:
        ones = any(value == 1 for value in launch.args.values() if isinstance(value, int))
        key = compile_check._key(launch)
        # What reads a frame into cells is compiled by the other tests; in one of each shape it takes minutes.
        if ones and key not in seen and not launch.name.startswith("pixels"):
            seen.add(key)
            names.add(launch.name)
            compile_check.compile_launch(launch, 90)
    assert names >= {"compose_kernel", "noise_kernel", "warp_state_kernel", "depth_lines_kernel"}

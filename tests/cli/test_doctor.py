"""The doctor: what it finds, what it concludes, and what it says about what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirage_plugin import doctor as doctor_module
from mirage_plugin.__main__ import main
from mirage_plugin.config import TIERS
from mirage_plugin.doctor import Check, Diagnosis, display_name, examine


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    return examine()


def test_the_json_is_what_was_found(
    found: Diagnosis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "doctor.json"
    code = main(["doctor", "--json", str(path)])
    said = json.loads(path.read_text(encoding="utf-8"))
    assert code == (0 if said["can_serve"] else 1)
    assert said["can_serve"] == found.can_serve
    assert [check["name"] for check in said["checks"]] == [check.name for check in found.checks]
    printed = capsys.readouterr().out
    assert all(check.name in printed for check in found.checks)


def test_whatever_cannot_be_used_says_how_to_mend_it(found: Diagnosis) -> None:
    assert [check.name for check in found.checks if check.state == "broken" and not check.mend] == []
    assert [check.name for check in found.checks if check.state == "ok" and check.mend] == []


def test_torch_is_found_where_the_tests_run(found: Diagnosis) -> None:
    import torch

    checks = {check.name: check for check in found.checks}
    assert checks["torch"].state == "ok"
    assert torch.__version__ in checks["torch"].found
    assert (checks["GPU"].state == "ok") == torch.cuda.is_available()


def test_weights_decide_the_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "weights_directory", lambda: tmp_path)
    nothing = examine()
    assert nothing.tier is None
    assert not nothing.can_serve
    for tier in TIERS:
        (tmp_path / f"{tier}.safetensors").write_bytes(b"x" * 1_500_000)
    everything = examine()
    assert everything.can_serve
    assert everything.tier in (TIERS if everything.device == "cuda" else ("nano",))
    weights = next(check for check in everything.checks if check.name == "weights")
    assert weights.found == "nano 1.5 MB, small 1.5 MB, base 1.5 MB"


def test_only_what_is_broken_stops_the_sidecar() -> None:
    absent, broken = Check("GPU", "absent", "none"), Check("torch", "broken", "none", "pip install torch")
    assert Diagnosis((absent,), "nano", "cpu").can_serve
    assert not Diagnosis((absent, broken), "nano", "cpu").can_serve
    assert not Diagnosis((absent,), None, "cpu").can_serve


def test_json_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["doctor", "--json", str(tmp_path / "file" / "doctor.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="a desktop always has a display")
def test_a_display_is_x11_or_wayland(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert display_name() is None
    monkeypatch.setenv("DISPLAY", ":7")
    assert display_name() == "X11 :7"
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-1")
    assert display_name() == "Wayland wayland-1"


@pytest.mark.skipif(sys.platform == "win32", reason="the endpoint is a port there")
def test_an_endpoint_without_a_place_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("MIRAGE_ENDPOINT", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    endpoint = next(check for check in examine().checks if check.name == "endpoint")
    assert endpoint.state == "broken"
    assert "XDG_RUNTIME_DIR" in endpoint.mend


def test_it_works_where_torch_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib import metadata\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "version = metadata.version\n"
        "def without(name):\n"
        "    if name == 'torch':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "metadata.version = without\n",
        encoding="utf-8",
    )
    path = tmp_path / "doctor.json"
    done = subprocess.run(
        [sys.executable, "-m", "mirage_plugin", "doctor", "--json", str(path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(path.read_text(encoding="utf-8"))["checks"]}
    assert checks["torch"]["state"] == "broken"
    assert checks["torch"]["mend"] == 'pip install "mirage-plugin[sidecar]"'


def test_a_package_that_serving_needs_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "cv2" else there(name, *more))
    found = examine()
    (check,) = (check for check in found.checks if check.name == "sidecar")
    assert (check.state, found.can_serve) == ("broken", False)
    assert "cv2" in check.found
    assert "pip install" in check.mend

"""What each command hands to its implementation, and that the implementation takes it."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mirage_plugin.__main__ import main
from mirage_plugin.config import ServeConfig, TrainConfig

# command line -> module, function, the arguments it must get
CALLS: list[tuple[list[str], str, str, dict[str, Any]]] = [
    (
        ["serve", "--tier", "nano", "--device", "cpu", "--style", "ink", "--bind", "tcp://127.0.0.1:7788"],
        "mirage_plugin.sidecar",
        "serve",
        {"config": ServeConfig(tier="nano", device="cpu", style="ink", bind="tcp://127.0.0.1:7788")},
    ),
    (
        ["serve", "--steps", "2", "--threads", "2", "--weights", "w.safetensors", "--json", "stats.json"],
        "mirage_plugin.sidecar",
        "serve",
        {"config": ServeConfig(steps=2, threads=2, weights=Path("w.safetensors"), json=Path("stats.json"))},
    ),
    (
        ["demo", "--headless", "--size", "641x359", "--seed", "7", "--json", "demo.json"],
        "mirage_plugin.demo",
        "demo",
        {
            "headless": True,
            "frames": 300,
            "size": "641x359",
            "seed": 7,
            "out": Path("out/demo"),
            "tier": "auto",
            "device": "auto",
            "style": None,
            "weights": None,
            "json": Path("demo.json"),
        },
    ),
    (
        ["demo", "--window", "--style", "ink", "--tier", "small", "--device", "cuda", "--out", "shots"],
        "mirage_plugin.demo",
        "demo",
        {
            "headless": False,
            "frames": 0,
            "size": "640x360",
            "seed": 0,
            "out": Path("shots"),
            "tier": "small",
            "device": "cuda",
            "style": "ink",
            "weights": None,
            "json": None,
        },
    ),
    (
        ["train", "--tier", "base", "--minutes", "20", "--out", "runs/x", "--fresh", "--seed", "3"],
        "mirage_plugin.train.trainer",
        "train",
        {"config": TrainConfig(tier="base", minutes=20.0, out=Path("runs/x"), resume=False, seed=3)},
    ),
    (
        ["train", "--from", __file__, "--ablation", "truth-fed", "--minutes", "5"],
        "mirage_plugin.train.trainer",
        "train",
        {"config": TrainConfig(minutes=5.0, start=Path(__file__), ablation="truth-fed")},
    ),
    (
        ["eval", "--tier", "nano", "--quick", "--time", "--weights", "w.safetensors", "--json", "e.json"],
        "mirage_plugin.train.evaluation",
        "evaluate",
        {
            "tier": "nano",
            "seed": 0,
            "quick": True,
            "out": Path("out/eval"),
            "json": Path("e.json"),
            "weights": Path("w.safetensors"),
            "time": True,
        },
    ),
    (
        ["styles", "--sheet", "s.png"],
        "mirage_plugin.styles",
        "show",
        {"sheet": Path("s.png"), "json": None},
    ),
    (
        ["worlds", "--out", "pairs", "--clips", "2", "--frames", "3", "--size", "64x36", "--style", "ink"],
        "mirage_plugin.train.worlds",
        "write",
        {"out": Path("pairs"), "clips": 2, "frames": 3, "size": "64x36", "seed": 0, "style": "ink"},
    ),
    (
        ["restyle", "--frames", ".", "--style", "ink", "--out", "painted", "--strength", "0.5"],
        "mirage_plugin.restyle",
        "restyle",
        {
            "frames": Path(),
            "style": "ink",
            "out": Path("painted"),
            "strength": 0.5,
            "tier": "auto",
            "device": "auto",
            "seed": 0,
            "json": None,
            "weights": None,
            "stills": False,
            "fps": None,
        },
    ),
    (
        ["profile", "--seconds", "2", "--sessions", "3", "--html", "r.html"],
        "mirage_plugin.profiler",
        "profile",
        {
            "attach": None,
            "read": None,
            "compare": None,
            "overhead": False,
            "size": "640x360",
            "fps": 60.0,
            "sessions": 3,
            "seconds": 2.0,
            "tier": "auto",
            "device": "auto",
            "html": Path("r.html"),
            "trace": None,
            "csv": None,
            "prometheus": None,
            "json": None,
        },
    ),
]


@pytest.mark.parametrize(
    ("line", "module", "function", "wanted"), CALLS, ids=[" ".join(c[0][:3]) for c in CALLS]
)
def test_a_command_hands_over_what_was_asked(
    line: list[str], module: str, function: str, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[dict[str, Any]] = []
    recorder = ModuleType(module)
    setattr(recorder, function, lambda **arguments: got.append(arguments) or 0)
    monkeypatch.setitem(sys.modules, module, recorder)
    assert main(line) == 0
    assert got == [wanted]


@pytest.mark.parametrize(
    ("line", "module", "function", "wanted"), CALLS, ids=[" ".join(c[0][:3]) for c in CALLS]
)
def test_the_implementation_takes_it(
    line: list[str], module: str, function: str, wanted: dict[str, Any]
) -> None:
    implementation = getattr(importlib.import_module(module), function)
    inspect.signature(implementation).bind(**wanted)


def test_keys_are_made_allowed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--directory", str(tmp_path)]
    assert main(["keys", "make", "attic", *place]) == 0
    public = capsys.readouterr().out.strip()
    assert len(public) == 40
    assert main(["keys", "allow", "desk", public, *place]) == 0
    assert main(["keys", "list", *place]) == 0
    assert capsys.readouterr().out.splitlines() == [f"key      attic  {public}", f"allowed  desk  {public}"]
    assert main(["keys", "revoke", "desk", *place]) == 0
    assert main(["keys", "revoke", "desk", *place]) == 2
    assert main(["keys", "make", "attic", *place]) == 2
    assert main(["keys", "allow", "desk", "short", *place]) == 2
    # A key of another program may begin with a dash; none has an underscore.
    assert main(["keys", "allow", "desk", "-" + public[1:], *place]) == 0
    assert main(["keys", "allow", "desk", "_" + public[1:], *place]) == 2
    assert main(["keys", "list", "--directory", str(tmp_path / "typo")]) == 0
    assert not (tmp_path / "typo").exists()
    assert main(["keys", "make", "desk", "--directory", "/proc/nowhere"]) == 2


@pytest.mark.parametrize(
    ("environment", "headless"),
    [({}, True), ({"DISPLAY": ":0"}, False), ({"WAYLAND_DISPLAY": "wayland-0"}, False)],
)
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="a desktop always has a display")
def test_demo_opens_a_window_where_there_is_a_display(
    environment: dict[str, str], headless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    got: list[dict[str, Any]] = []
    recorder = ModuleType("mirage_plugin.demo")
    vars(recorder).update(demo=lambda **arguments: got.append(arguments))
    monkeypatch.setitem(sys.modules, "mirage_plugin.demo", recorder)
    assert main(["demo"]) == 0
    assert (got[0]["headless"], got[0]["frames"]) == (headless, 300 if headless else 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--size", "1x1"], "16x16 to 7680x4320"), (["--headless", "--out", "shots"], "demo.mp4")],
)
def test_demo_says_before_it_starts_anything_what_keeps_it_from_the_end(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shots" / "demo.mp4").mkdir(parents=True)
    monkeypatch.setattr("mirage_plugin.demo._sidecar", lambda *_: pytest.fail("a sidecar was started"))
    assert main(["demo", *options]) == 2
    assert said in capsys.readouterr().err

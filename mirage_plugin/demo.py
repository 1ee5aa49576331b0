"""`mirage demo`: the sidecar as one process, the sample game as another, and what came of it."""

from __future__ import annotations

import contextlib
import json as json_format
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageStat
from rich.console import Console
from rich.table import Table
from rich.text import Text

import mirage_bridge
from mirage_plugin.config import EXIT_WITH_PARENT, parse_size
from mirage_plugin.errors import ConfigError, MirageError, MissingDependencyError, OutputError
from mirage_plugin.files import check_writable, write_json
from mirage_plugin.style_input import read_style

__all__ = ["demo"]

_STYLES = ("ink", "lava", "neon", "snow")
_READY_TIMEOUT_S = 600.0
# (frames a second, the most that a frame on the fewest cells may cost alone): a slow machine
# plays slower and restyled, not fast and plain. How many cells fit beside the game, pacing finds out.
_RATES = ((60, 8.0), (30, 22.0))


def demo(
    *,
    headless: bool,
    frames: int,
    size: str,
    seed: int,
    out: Path,
    tier: str,
    device: str,
    style: str | None,
    weights: Path | None,
    json: Path | None,
) -> None:
    """Start a sidecar and the sample game, play or film it, and print the frame budget.

    Headless, the game plays itself for `frames` frames and `out` gets `before_after.png` (four styles, source
    beside answer) and `demo.mp4`. Raises `MirageError` for whatever keeps it from running.
    """  # fmt: skip
    width, height = parse_size(size)
    if not (16 <= width <= 7680 and 16 <= height <= 4320):
        raise ConfigError(f"the sample game plays at sizes from 16x16 to 7680x4320, not at {width}x{height}")
    console = Console()
    game = _game_file()
    styles = [style] if style else list(_STYLES)
    # The sidecar reads a style file or a picture; the game asks for it by the name that it gets there.
    served = styles[0]
    styles = [read_style(name).name for name in styles]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.at(out, error) from error
    for path in (json, *(out / name for name in ("demo.mp4", "before_after.png") if headless)):
        check_writable(path)
    with tempfile.TemporaryDirectory(prefix="mirage-demo-") as scratch:
        endpoint = f"ipc://{scratch}/sidecar-{secrets.token_hex(4)}"
        figures, pairs = Path(scratch) / "game.json", Path(scratch) / "pairs"
        with _sidecar(endpoint, tier, device, served, weights, console):
            status = mirage_bridge.request(endpoint, "status", {}, timeout_s=5.0)
            command = [sys.executable, str(game), "--endpoint", endpoint, "--size", f"{width}x{height}",
                       "--seed", str(seed), "--wait-s", "10", "--json", str(figures)]  # fmt: skip
            cost_ms = status["cost_ms"][-1]
            fps = next((rate for rate, most_ms in _RATES if cost_ms < most_ms), 15)
            command += ["--fps", str(fps), "--budget-ms", f"{1000 / fps:.2f}"]
            if headless:
                cycle = max(1, frames // len(styles))
                command += ["--headless", "--frames", str(frames), "--record", str(out / "demo.mp4"),
                            "--dump", str(pairs), "--dump-every", str(max(1, cycle // 4))]  # fmt: skip
                # A style of one's own may have a comma in its name.
                command += ["--styles", ",".join(styles), "--style-cycle", str(cycle)] if len(styles) > 1 else []
            elif frames:
                command += ["--frames", str(frames)]
            command.append(f"--style={styles[0]}")
            finished = subprocess.run(command, check=False)
        if finished.returncode != 0 or not figures.is_file():
            raise MirageError(
                f"the sample game ended with code {finished.returncode}; its own lines above say why"
            )
        played: dict[str, Any] = json_format.loads(figures.read_text(encoding="utf-8"))
        report = {
            "frames": played["frames"], "answered": played["answered"], "service_ms": played["service_ms"],
            "fps": played["fps"], "size": f"{width}x{height}", "tier": status["tier"], "device": status["device"],
            "style": ",".join(styles), **{k: v for k, v in played.items() if k not in ("style", "size")},
        }  # fmt: skip
        sheet, film = out / "before_after.png", out / "demo.mp4"
        drawn = headless and pairs.is_dir() and _contact_sheet(pairs, styles, sheet)
    _print(report, console)
    if headless:
        if not drawn:
            sheet.unlink(missing_ok=True)
            console.print("no frame was restyled in time, so there is no sheet: see `mirage doctor`")
        made = [path for path in (sheet, film) if path.is_file()]
        console.print(Text(f"pictures: {', '.join(map(str, made))}"), soft_wrap=True)
    if json:
        write_json(json, report)


def _game_file() -> Path:
    game = Path(__file__).parents[1] / "examples" / "game.py"
    if not game.is_file():
        raise MirageError(
            "the sample game is not in the wheel: run the demo from a checkout of the repository"
        )
    try:
        import pygame  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("pygame", "game") from error
    return game


@contextlib.contextmanager
def _sidecar(
    endpoint: str, tier: str, device: str, style: str, weights: Path | None, console: Console
) -> Iterator[None]:
    """Run `mirage serve` until it is ready, and stop it in the end, whatever happened."""
    command = [sys.executable, "-m", "mirage_plugin", "serve", "--bind", endpoint, "--tier", tier,
               "--device", device, "--style", style]  # fmt: skip
    command += [] if weights is None else ["--weights", str(weights)]
    process = subprocess.Popen(
        command, start_new_session=os.name == "posix", env=os.environ | {EXIT_WITH_PARENT: str(os.getpid())}
    )
    # Whoever ends the demo ends its sidecar: Ctrl-C and SIGTERM run the `finally`, a SIGKILL is seen by the child.
    try:
        with console.status("the sidecar loads and warms up; the first time it compiles, for some seconds"):
            until = time.monotonic() + _READY_TIMEOUT_S
            while True:
                if process.poll() is not None:
                    raise MirageError("the sidecar stopped before it was ready; its own lines above say why")
                with contextlib.suppress(mirage_bridge.BridgeError):
                    mirage_bridge.request(endpoint, "status", {}, timeout_s=1.0)
                    break
                if time.monotonic() > until:
                    raise MirageError(
                        f"the sidecar was not ready after {_READY_TIMEOUT_S:.0f} s; run `mirage serve` to see why"
                    )
                time.sleep(0.1)
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _contact_sheet(pairs: Path, styles: list[str], path: Path) -> bool:
    """Of each style that was restyled the pair in which most is drawn: source on the left, answer on the right. False
    where none was."""
    index = json_format.loads((pairs / "index.json").read_text(encoding="utf-8"))
    rows: list[tuple[str, Image.Image, Image.Image]] = []
    for style in styles:
        styled = [e for e in index if e["style"] == style and e["kind"] == "styled"]
        # A frame that still fades in shows half a style.
        entries = [e for e in styled if e["reason"] != "fading in"] or styled
        both = [
            [Image.open(pairs / entry[key]).convert("RGB") for key in ("source", "answer")] for entry in entries
        ]
        if both:
            # A wall from nearby shows little of a style.
            edges = [sum(ImageStat.Stat(answer.filter(ImageFilter.FIND_EDGES)).mean) for _, answer in both]
            source, answer = both[edges.index(max(edges))]
            rows.append((style, source, answer))
    if not rows:
        return False
    width, height = rows[0][1].size
    sheet = Image.new("RGB", (2 * width + 12, len(rows) * (height + 28) + 4), (18, 18, 20))
    draw = ImageDraw.Draw(sheet)
    for i, (style, source, answer) in enumerate(rows):
        top = i * (height + 28) + 24
        draw.text((6, top - 18), "the game", fill=(200, 200, 200))
        draw.text((width + 14, top - 18), style, fill=(255, 255, 255))
        sheet.paste(source, (4, top))
        sheet.paste(answer, (width + 8, top))
    try:
        sheet.save(path)
    except OSError as error:
        raise OutputError.at(path, error) from error
    return True


def _print(report: dict[str, Any], console: Console) -> None:
    table = Table(title=f"frame budget: {report['size']}, {report['tier']} on {report['device']}")
    for name in ("", "p50", "p95", "p99", "max"):
        table.add_column(name, justify="right" if name else "left")
    rows = (("service", "service_ms"), ("the game's own frame", "game_ms"), ("the game's wait", "wait_ms"),
            ("motion to photon", "motion_to_photon_ms"))  # fmt: skip
    for title, key in rows:
        if isinstance(report.get(key), dict):
            table.add_row(title, *(f"{report[key].get(q) or 0:.1f} ms" for q in ("p50", "p95", "p99", "max")))
    console.print(table)
    answered = report["answered"]
    console.print(
        f"{report['frames']} frames at {report['fps']:.1f} a second: {answered['styled']} styled, "
        f"{answered['reprojected']} reprojected, {answered['source']} shown as the game drew them"
    )

"""`mirage profile`: from what was asked for to what is printed and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mirage_plugin.config import parse_size
from mirage_plugin.errors import ConfigError
from mirage_plugin.files import check_writable, whole_file, write_json
from mirage_plugin.profiler import attach as attaching
from mirage_plugin.profiler.compare import Comparison, compare
from mirage_plugin.profiler.overhead import Overhead, measure
from mirage_plugin.profiler.recording import Pages, Recording
from mirage_plugin.profiler.statistics import summary
from mirage_plugin.profiler.views import terminal
from mirage_plugin.profiler.workload import Workload, run

__all__ = ["profile"]

# The live screen shows the last two seconds of a game.
_SHOWN_FRAMES: Final = 120
_MAX_SESSIONS: Final = 64


def profile(
    *,
    attach: str | None = None,
    read: Path | None = None,
    compare: tuple[Path, Path] | None = None,
    overhead: bool = False,
    size: str = "640x360",
    fps: float = 60.0,
    sessions: int = 1,
    seconds: float = 10.0,
    tier: str = "auto",
    device: str = "auto",
    html: Path | None = None,
    trace: Path | None = None,
    csv: Path | None = None,
    json: Path | None = None,
    prometheus: int | None = None,
    console: Console | None = None,
) -> int:
    """Do what ``mirage profile`` was asked for; returns the exit code.

    0; 1 where ``compare`` found B worse, ``overhead`` more than a hundredth of the budget, or no frame came.
    ``prometheus`` is a port to serve metrics at while it watches. Raises `MirageError` for whatever keeps it
    from running.
    """
    out = console if console is not None else Console()
    if compare is not None:
        return _compare(out, compare, json)
    if overhead:
        return _overhead(out, json)
    for path in (html, trace, csv, json):
        check_writable(path)
    if read is not None:
        recording = Recording.read(read)
    else:
        watch = _Watcher(out, prometheus)
        with watch:
            if attach is not None:
                recording = attaching.collect(attach, seconds, watch).recording()
            else:
                workload = _workload(size, fps, sessions, seconds, tier, device)
                recording = run(workload, watch, lambda sentence: watch.note(sentence))
    figures = summary(recording)
    if not len(recording):
        out.print("no frames came: does a game play? `mirage demo` starts one")
        return 1
    out.print(terminal.report(figures))
    _write(recording, figures, html, trace, csv, json, out)
    return 0


def _workload(size: str, fps: float, sessions: int, seconds: float, tier: str, device: str) -> Workload:
    width, height = parse_size(size)
    if not 1.0 <= fps <= 1000.0:
        raise ConfigError(f"fps must be from 1 to 1000, not {fps:g}")
    if not 1 <= sessions <= _MAX_SESSIONS:
        raise ConfigError(f"sessions must be from 1 to {_MAX_SESSIONS}, not {sessions}")
    if not 0.1 <= seconds <= 86400:
        raise ConfigError(f"seconds must be from 0.1 to 86400, not {seconds:g}")
    frames = max(1, round(seconds * fps))
    # A game that draws for longer than its frame could never keep its rate.
    draw_ms = min(4.0, 250.0 / fps)
    return Workload(
        size=(width, height),
        fps=fps,
        sessions=sessions,
        frames=frames,
        tier=tier,
        device=device,
        draw_ms=draw_ms,
    )


class _Watcher:
    """What happens while frames come: a live screen on a terminal, metrics where they were asked for."""

    def __init__(self, console: Console, prometheus: int | None) -> None:
        self._console = console
        self._live: Live | None = None
        self._metrics: Any = None
        self._stack = ExitStack()
        self._counted = 0
        self._shown_s = 0.0
        if prometheus is not None:
            from mirage_plugin.profiler.views.prometheus import Metrics

            self._metrics = self._stack.enter_context(Metrics(prometheus))
            console.print(f"metrics at http://127.0.0.1:{prometheus}/metrics")

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def note(self, sentence: str) -> None:
        """Say what is going on."""
        self._console.print(sentence, style="dim")

    def __call__(self, pages: Pages) -> None:
        if self._metrics is not None and pages.frames > self._counted:
            self._metrics.add(pages.recording(pages.frames - self._counted))
            self._counted = pages.frames
        if not self._console.is_terminal or time.monotonic() - self._shown_s < 0.2:
            return
        self._shown_s = time.monotonic()
        if self._live is None:
            self._live = self._stack.enter_context(Live(console=self._console, transient=True, auto_refresh=False))
        title = f"mirage profile: {pages.frames} frames"
        self._live.update(terminal.screen(pages.recording(_SHOWN_FRAMES), title, self._console.width), refresh=True)


# -- what is written ---------------------------------------------------------------------------------------


def _write(
    recording: Recording,
    figures: Mapping[str, Any],
    html: Path | None,
    trace: Path | None,
    csv: Path | None,
    json: Path | None,
    out: Console,
) -> None:
    def as_html() -> bytes:
        from mirage_plugin.profiler.views.html import to_html

        return to_html(recording).encode("utf-8")

    def as_trace() -> bytes:
        from mirage_plugin.profiler.views.perfetto import to_trace

        return to_trace(recording)

    def as_csv() -> bytes:
        from mirage_plugin.profiler.views.presentmon import to_csv

        return to_csv(recording).encode("utf-8")

    wanted: tuple[tuple[Path | None, Callable[[], bytes], str], ...] = (
        (html, as_html, "a report"),
        (trace, as_trace, "a trace for https://ui.perfetto.dev"),
        (csv, as_csv, "PresentMon's columns"),
    )
    for path, make, what in wanted:
        if path is not None:
            made = make()
            with whole_file(path) as part:
                part.write_bytes(made)
            out.print(f"wrote {what} to {path}", soft_wrap=True, markup=False)
    if json is not None:
        recording.write(json, figures)
        out.print(f"wrote figures and recording to {json}", soft_wrap=True, markup=False)


def _compare(out: Console, paths: tuple[Path, Path], json: Path | None) -> int:
    found: Comparison = compare(Recording.read(paths[0]), Recording.read(paths[1]))
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"A {paths[0].name}   B {paths[1].name}")
    for name in ("", "A", "B", "B − A", "99 % interval", ""):
        table.add_column(name, justify="left" if not name else "right")
    colours = {"worse": "red", "better": "green", "same": "dim"}
    for change in found.changes:
        digits = 3 if change.unit == "ms" else 2
        table.add_row(
            f"{change.name} ({change.unit})",
            f"{change.a:.{digits}f}",
            f"{change.b:.{digits}f}",
            f"{change.difference:+.{digits}f}",
            f"{change.low:+.{digits}f} to {change.high:+.{digits}f}",
            f"[{colours[change.verdict]}]{change.verdict}[/]",
        )
    out.print(table)
    for remark in found.remarks:
        out.print(f"• {remark}", style="yellow")
    out.print("B is worse" if found.worse else "B is not worse", style="bold red" if found.worse else "bold green")
    if json is not None:
        write_json(json, found.to_json())
    return int(found.worse)


def _overhead(out: Console, json: Path | None) -> int:
    found: Overhead = measure()
    out.print(
        f"recording a frame takes {found.frame_p50_us:.1f} µs (p99 {found.frame_p99_us:.1f}), which is "
        f"{100 * found.share:.3f} % of {found.budget_ms:g} ms; one stage {found.stage_us:.2f} µs, "
        f"a page for a watcher {found.page_us:.0f} µs"
    )
    out.print("GPU stages are timed by events that are read when they are past: nothing waits for the GPU")
    if not found.within:
        out.print("this is more than 1 % of the budget: is the machine busy?", style="red")
    if json is not None:
        write_json(json, {"overhead": found.to_json()})
    return int(not found.within)

"""The terminal's view: a table of the budget, and a live screen with a stacked bar of the stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mirage_plugin.profiler.culprits import culprits
from mirage_plugin.profiler.record import KINDS, STAGES
from mirage_plugin.profiler.recording import Recording
from mirage_plugin.profiler.statistics import budget_ms, end_to_end_ms, misses

__all__ = ["STAGE_COLOURS", "bar", "report", "screen"]

STAGE_COLOURS: Final[Mapping[str, str]] = {
    "queue": "#7f8c9a",
    "upload": "#5ab4d6",
    "preprocess": "#3f86c9",
    "condition": "#7a6fd0",
    "denoise": "#c065b8",
    "compose": "#e08a3c",
    "download": "#d9bb4b",
    "publish": "#6fae5a",
    "deliver": "#b0b8bf",
}
"""One colour a stage, the same in every view."""

# Blocks of an eighth to a whole cell: the strip of frame times.
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


def bar(stages_ms: Mapping[str, float], budget: float, width: int = 60) -> Text:
    """A stacked bar of stage times, with the budget as a line at three quarters of ``width``."""
    line = max(1, width * 3 // 4)
    per_ms = line / budget if budget > 0 else 0.0
    text, drawn, exact = Text(), 0, 0.0
    for stage in STAGES:
        exact += stages_ms.get(stage, 0.0) * per_ms
        cells = min(width, round(exact)) - drawn
        for _ in range(cells):
            # A block has the colour in front, so that the bar is there without colours too.
            colour = STAGE_COLOURS[stage]
            text.append("│", f"bold white on {colour}") if drawn == line else text.append("█", colour)
            drawn += 1
    for cell in range(drawn, width):
        text.append("│" if cell == line else "·" if cell < line else " ", style="bold red" if cell == line else "dim")
    total = sum(stages_ms.get(stage, 0.0) for stage in STAGES)
    text.append(f" {total:.2f} of {budget:g} ms", style="red" if total > budget else "green")
    return text


def report(figures: Mapping[str, Any]) -> RenderableType:
    """The figures of `statistics.summary` as text to print."""
    answered = figures["answered"]
    head = Table.grid(padding=(0, 2))
    what = f"{figures['tier']} on {figures['device']}" if figures["tier"] else "a sidecar"
    width, height = figures["size"]
    head.add_row("sidecar", f"{what}, {figures['sessions']} game(s) of {width}x{height}")
    head.add_row("frames", f"{figures['frames']} in {figures['window_s']:g} s, {figures['fps']:g} answered a second")
    shares = ", ".join(f"{count} {kind}" for kind, count in answered.items())
    head.add_row("answered", f"{shares}; {figures['missed']} missed {figures['budget_ms']:g} ms")
    head.add_row(
        "lows", f"1 %: {figures['low_1pct_fps']:g} fps, 0.1 %: {figures['low_0_1pct_fps']:g} fps "
        f"(of {figures['frames']} frames; {figures['low_is']})",
    )  # fmt: skip
    times = Table(box=None, pad_edge=False, header_style="bold")
    times.add_column("milliseconds")
    for name in ("p50", "p95", "p99", "p99.9", "max"):
        times.add_column(name, justify="right")
    for name, key in (
        (f"end to end ({figures['end_to_end_is']})", "end_to_end_ms"),
        ("service (pick-up to publish)", "service_ms"),
        ("the game's wait", "wait_ms"),
        ("motion to photon", "motion_to_photon_ms"),
        ("frame time", "frame_time_ms"),
    ):
        values = figures[key]
        if values["max"]:
            times.add_row(name, *(f"{values[each]:.2f}" for each in ("p50", "p95", "p99", "p99_9", "max")))
    stages = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "p50", "p99", "max", "GPU p50", "GPU p99"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    gpu = figures["gpu_stages_ms"]
    for stage, values in figures["stages_ms"].items():
        label = Text.assemble(("  ", f"on {STAGE_COLOURS[stage]}"), f" {stage}")
        on_gpu = [f"{gpu[stage][each]:.2f}" if stage in gpu else "" for each in ("p50", "p99")]
        stages.add_row(label, *(f"{values[each]:.2f}" for each in ("p50", "p99", "max")), *on_gpu)
    means = {stage: values["p50"] for stage, values in figures["stages_ms"].items()}
    ends = [Text(f"• {each['sentence']}") for each in figures["culprits"]]
    blame = Group(*ends) if ends else Text("every frame was answered well within its budget", style="green")
    return Group(head, Text(), times, Text(), stages, bar(means, figures["budget_ms"]), Text(), blame)


def screen(recording: Recording, title: str, width: int = 100) -> RenderableType:
    """What is shown while it runs: the last frames of ``recording``."""
    if not len(recording):
        return Panel(Text("no frames yet: does a game play?", style="dim"), title=title)
    frames = recording.frames
    budget = budget_ms(recording)
    cells = max(20, width - 24)
    medians = {stage: float(np.median(frames[f"{stage}_ns"])) / 1e6 for stage in STAGES}
    worst_row = int((frames["answered_ns"] - frames["published_ns"]).argmax())
    worst = {stage: float(frames[f"{stage}_ns"][worst_row]) / 1e6 for stage in STAGES}
    took = end_to_end_ms(recording)
    strip = Text()
    late = misses(recording)[frames["kind"] != KINDS.index("dropped")]
    for ms, missed in list(zip(took, late, strict=False))[-cells:]:
        level = min(8, int(ms / budget * 6)) if budget else 0
        strip.append(_BLOCKS[max(1, level)], style="red" if missed else "green" if level < 5 else "yellow")
    counts = {kind: int((frames["kind"] == index).sum()) for index, kind in enumerate(KINDS)}
    words = "  ".join(f"{kind} {count}" for kind, count in counts.items() if count)
    sizes = {(int(w), int(h)) for w, h in zip(frames["width"][-30:], frames["height"][-30:], strict=True) if w}
    now = ", ".join(f"{w}x{h}" for w, h in sorted(sizes)) or "no net"
    body = Table.grid(padding=(0, 1))
    body.add_row("usual", bar(medians, budget, cells - 22))
    body.add_row("worst", bar(worst, budget, cells - 22))
    body.add_row("frames", strip)
    body.add_row("", Text(f"{words}  missed {int(misses(recording).sum())}  net at {now}"))
    memory_mb = float(frames["rss_bytes"].max()) / 1e6
    reason = recording.reasons[int(frames["reason"][-1])] if len(recording) else ""
    body.add_row("now", Text(f"{took[-1]:.2f} ms  {reason or 'full path'}  {memory_mb:.0f} MB" if took.size else ""))
    legend = Text()
    for stage in STAGES:
        legend.append("  ", style=f"on {STAGE_COLOURS[stage]}")
        legend.append(f" {stage}  ")
    blame = [Text(f"• {each.sentence}") for each in culprits(recording)[:3]]
    return Panel(Group(body, legend, *blame), title=title, subtitle="Ctrl-C ends it and prints the report")

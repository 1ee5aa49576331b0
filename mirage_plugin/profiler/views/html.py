"""The report: one HTML file with everything in it, plots as SVG, no script and nothing to load."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mirage_plugin.errors import MissingDependencyError
from mirage_plugin.profiler.culprits import culprits, worst_frames
from mirage_plugin.profiler.record import ACTIONS, GPU_STAGES, KINDS, STAGES
from mirage_plugin.profiler.recording import Recording
from mirage_plugin.profiler.statistics import (
    budget_ms,
    end_to_end_ms,
    frame_times_ms,
    histogram,
    misses,
    summary,
)
from mirage_plugin.profiler.views.terminal import STAGE_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["to_html"]

KIND_COLOURS: Final[Mapping[str, str]] = {
    "styled": "#4f9d69",
    "reprojected": "#d9a441",
    "source": "#7f8c9a",
    "dropped": "#c0392b",
}
_MISS: Final = "#c0392b"
# More points than this are drawn as an image inside the SVG: a vector of each would be megabytes.
_VECTOR_POINTS: Final = 3000
_WORST: Final = 12

_STYLE: Final = """
:root{color-scheme:light;--ink:#1d2329;--dim:#66727d;--line:#dfe4e8;--paper:#fff;--page:#f4f6f7}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}h1{font-size:24px;margin:0 0 2px}
h2{font-size:17px;margin:0 0 10px}p{margin:6px 0}.dim{color:var(--dim)}
section{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:18px 20px;
margin:16px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:16px 0}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums;white-space:nowrap}
.bad b{color:#c0392b}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}th{color:var(--dim);font-weight:600}
.swatch{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:8px}
svg{width:100%;height:auto;display:block}li{margin:4px 0}.wide{overflow-x:auto}
"""


def to_html(recording: Recording, title: str = "Mirage frame budget") -> str:
    """The whole report of ``recording``. Raises `MissingDependencyError` without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MissingDependencyError("matplotlib") from None
    figures = summary(recording)
    with matplotlib.rc_context(
        {"font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
         "svg.fonttype": "none", "axes.edgecolor": "#9aa5ae", "axes.labelcolor": "#444d55"}
    ):  # fmt: skip
        plots = [
            ("Frame by frame", "Every answer's time from the game's publish, by what it was. Above the line "
             "the game did not wait for it any more.", _draw(recording, _strip, 2.6)),
            ("How the times are spread", "HDR histogram of end to end, and its percentiles as seen from "
             "the slow end.", _draw(recording, _spread, 2.8)),
            ("Where the time goes", "Stages of each frame, averaged over neighbours, against the budget.",
             _draw(recording, _stages, 2.8)),
            (f"The {_WORST} worst frames", "Each stage where it really stood; time 0 is the game's publish. "
             "Hatched: on the GPU.", _draw(recording, _waterfall, 3.4)),
            ("Decisions over time", "What answered, at what working size, and how old the edit was.",
             _draw(recording, _decisions, 3.4)),
            ("Drift and memory", "How far memory and picture are from what the training set had, and the "
             "sidecar's resident memory.", _draw(recording, _drift, 2.2)),
        ]  # fmt: skip
    parts = [_tiles(figures), _blame(recording)]
    parts += [
        f"<section><h2>{html.escape(name)}</h2><p class=dim>{html.escape(words)}</p>{svg}</section>"
        for name, words, svg in plots
        if svg
    ]
    parts.append(_tables(figures))
    what = f"{figures['tier']} on {figures['device']}" if figures["tier"] else "a sidecar"
    width, height = figures["size"]
    lead = (
        f"{figures['frames']} frames of {figures['sessions']} game(s) at {width}×{height} in "
        f"{figures['window_s']:g} s, redrawn by {what}; budget {figures['budget_ms']:g} ms"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{html.escape(title)}</h1><p class=dim>{html.escape(lead)}</p>{''.join(parts)}"
        "</main></body></html>\n"
    )


# -- words and tables --------------------------------------------------------------------------------------


def _tiles(figures: Mapping[str, Any]) -> str:
    answered, frames = figures["answered"], max(1, figures["frames"])
    in_time, many = 100 * (1 - figures["missed"] / frames), figures["missed"] > frames / 1000
    tiles = [
        ("answered in time", f"{in_time:.2f} %", many),
        ("of these by the net", f"{100 * answered['styled'] / max(1, sum(answered.values())):.1f} %", False),
        ("p50 end to end", f"{figures['end_to_end_ms']['p50']:.2f} ms", False),
        ("p99 end to end", f"{figures['end_to_end_ms']['p99']:.2f} ms",
         figures["end_to_end_ms"]["p99"] > figures["budget_ms"] > 0),
        ("1 % low", f"{figures['low_1pct_fps']:.1f} fps", False),
        ("missed", str(figures["missed"]), many),
    ]  # fmt: skip
    cells = "".join(
        f'<div class="tile{" bad" if bad else ""}"><span class=dim>{name}</span><b>{value}</b></div>'
        for name, value, bad in tiles
    )
    return f"<div class=tiles>{cells}</div>"


def _blame(recording: Recording) -> str:
    found = culprits(recording)
    if not found:
        nothing = "Every frame was answered well within its budget."
        return f"<section><h2>What to look at</h2><p>{nothing}</p></section>"
    lines = "".join(
        f"<li>{html.escape(each.sentence)} <span class=dim>(worst: frame {each.worst_frame}, "
        f"{each.worst_ms:.1f} ms)</span></li>"
        for each in found
    )
    return f"<section><h2>What to look at</h2><ol>{lines}</ol></section>"


def _tables(figures: Mapping[str, Any]) -> str:
    names = ("p50", "p95", "p99", "p99_9", "max")
    heads = "".join(f"<th>{name.replace('_', '.')}</th>" for name in names)
    rows = "".join(
        f"<tr><td>{label}</td>{''.join(f'<td>{figures[key][name]:.2f}</td>' for name in names)}</tr>"
        for label, key in (
            (f"end to end ({figures['end_to_end_is']})", "end_to_end_ms"),
            ("service (pick-up to publish)", "service_ms"),
            ("the game's wait", "wait_ms"),
            ("motion to photon", "motion_to_photon_ms"),
            ("frame time", "frame_time_ms"),
        )
        if figures[key]["max"]
    )
    gpu = figures["gpu_stages_ms"]
    stages = "".join(
        f'<tr><td><span class=swatch style="background:{STAGE_COLOURS[stage]}"></span>{stage}</td>'
        f"<td>{each['p50']:.3f}</td><td>{each['p99']:.3f}</td><td>{each['max']:.3f}</td>"
        f"<td>{gpu.get(stage, {}).get('p50', '')}</td><td>{gpu.get(stage, {}).get('p99', '')}</td></tr>"
        for stage, each in figures["stages_ms"].items()
    )
    decisions = "".join(
        f"<tr><td>{html.escape(reason or 'full path')}</td><td>{count}</td></tr>"
        for reason, count in figures["decisions"].items()
    )
    return (
        f"<section class=wide><h2>Milliseconds</h2><table><tr><th></th>{heads}</tr>{rows}</table>"
        f"<p class=dim>1 % low {figures['low_1pct_fps']:g} fps, 0.1 % low {figures['low_0_1pct_fps']:g} fps: "
        f"{figures['low_is']}; N {figures['frames']}, window {figures['window_s']:g} s. "
        "Percentiles are nearest-rank.</p></section><section class=wide><h2>Stages, milliseconds</h2>"
        "<table><tr><th>stage</th><th>p50</th>"
        f"<th>p99</th><th>max</th><th>GPU p50</th><th>GPU p99</th></tr>{stages}</table></section>"
        "<section class=wide><h2>Why</h2><table><tr><th>decision</th><th>frames</th></tr>"
        f"{decisions}</table></section>"
    )


# -- plots ---------------------------------------------------------------------------------------------------


def _draw(recording: Recording, plot: Callable[[Figure, Recording], bool], height: float) -> str:
    """One plot as an inline SVG; empty where there is nothing to show."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    if not len(recording):
        return ""
    figure = Figure(figsize=(10.2, height), layout="constrained")
    FigureCanvasSVG(figure)
    if not plot(figure, recording):
        return ""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, dpi=150)
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def _seconds(recording: Recording) -> np.ndarray[Any, np.dtype[np.float64]]:
    times = recording.frames["published_ns"]
    seconds: np.ndarray[Any, np.dtype[np.float64]] = (times - times.min()) / 1e9
    return seconds


def _until_ns(recording: Recording) -> np.ndarray[Any, np.dtype[np.int64]]:
    """From the game's publish to the answer, as far as it is known."""
    frames = recording.frames
    until = np.where(frames["delivered_ns"] > 0, frames["delivered_ns"], frames["answered_ns"])
    took: np.ndarray[Any, np.dtype[np.int64]] = until - frames["published_ns"]
    return took


def _budget_line(axes: Axes, budget: float, upright: bool = False) -> None:
    draw = axes.axvline if upright else axes.axhline
    from matplotlib.patheffects import withStroke

    draw(budget, color=_MISS, linewidth=1, linestyle=(0, (4, 2)))
    halo = [withStroke(linewidth=3, foreground="white")]
    if upright:
        axes.text(
            budget,
            1.0,
            f" {budget:g} ms",
            color=_MISS,
            transform=axes.get_xaxis_transform(),
            va="top",
            path_effects=halo,
        )
    else:
        axes.text(
            1.0,
            budget,
            f"{budget:g} ms ",
            color=_MISS,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="bottom",
            path_effects=halo,
        )


def _strip(figure: Figure, recording: Recording) -> bool:
    axes = figure.subplots()
    frames = recording.frames
    seconds = _seconds(recording)
    took = _until_ns(recording) / 1e6
    late = misses(recording)
    flat = len(recording) > _VECTOR_POINTS
    for index, kind in enumerate(KINDS):
        mine = (frames["kind"] == index) & ~late
        if mine.any():
            axes.scatter(
                seconds[mine],
                took[mine],
                s=5,
                color=KIND_COLOURS[kind],
                label=kind,
                linewidths=0,
                rasterized=flat,
            )
    if late.any():
        axes.scatter(seconds[late], took[late], s=16, color=_MISS, marker="x", linewidths=1, label="missed")
    budget = budget_ms(recording)
    _budget_line(axes, budget)
    axes.set(xlabel="seconds", ylabel="ms", xlim=(0, max(0.1, float(seconds.max()))))
    top = max(1.25 * budget, min(float(took.max()) * 1.05, 6 * budget))
    axes.set_ylim(0, top)
    beyond = took > top
    if beyond.any():
        # A few frames must not press all others flat, and must not be missing either.
        label = f"beyond {top:.0f} ms: {int(beyond.sum())}"
        edge = np.full(int(beyond.sum()), 0.985 * top)
        axes.scatter(seconds[beyond], edge, s=22, color=_MISS, marker="^", linewidths=0, label=label)
    axes.legend(loc="upper left", ncols=5, frameon=False, markerscale=2, bbox_to_anchor=(0, 1.14))
    return True


def _spread(figure: Figure, recording: Recording) -> bool:
    took = end_to_end_ms(recording)
    if took.size == 0:
        return False
    left, right = figure.subplots(1, 2)
    counted = histogram(took)
    budget = budget_ms(recording)
    top = max(1.2 * budget, float(np.percentile(took, 99.9)) * 1.05)
    edges = np.linspace(0, top, 81)
    counts = np.zeros(80)
    for item in counted.get_recorded_iterator():
        bin_ = min(79, int(item.value_iterated_to / 1000 / top * 80))
        counts[bin_] += item.count_added_in_this_iter_step
    past = edges[:-1] >= budget
    left.bar(edges[:-1][~past], counts[~past], width=edges[1], align="edge", color="#4f9d69")
    left.bar(edges[:-1][past], counts[past], width=edges[1], align="edge", color=_MISS)
    left.set(xlabel="ms end to end", ylabel="frames (log)", yscale="symlog", ylim=(0, None), xlim=(0, top))
    _budget_line(left, budget, upright=True)
    ranked = np.sort(took)
    rest = 1 - np.arange(ranked.size) / ranked.size
    right.plot(
        rest,
        ranked,
        color="#3f86c9",
        linewidth=1.4,
        drawstyle="steps-post",
        rasterized=took.size > _VECTOR_POINTS,
    )
    right.set(xscale="log", xlabel="share of frames that took longer", ylabel="ms")
    right.set_ylim(0, 1.15 * max(budget, float(ranked[-1])))
    right.set_xlim(1, max(0.5 / ranked.size, 1e-6))
    right.set_xticks([each for each in (1, 0.5, 0.1, 0.01, 0.001, 0.0001) if each >= 0.5 / ranked.size])
    right.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    right.minorticks_off()
    _budget_line(right, budget)
    return True


def _stages(figure: Figure, recording: Recording) -> bool:
    axes = figure.subplots()
    seconds = _seconds(recording)
    order = np.argsort(seconds, kind="stable")
    bins = np.array_split(order, min(240, len(order)))
    at = np.array([seconds[rows].mean() for rows in bins])
    stacks, labels = [], []
    for stage in STAGES:
        took = _stage_ms(recording, stage)
        if took.any():
            stacks.append([took[rows].mean() for rows in bins])
            labels.append(stage)
    if not stacks:
        return False
    colours = [STAGE_COLOURS[each] for each in labels]
    axes.stackplot(at, *stacks, labels=labels, colors=colours, step="mid", linewidth=0)
    budget = budget_ms(recording)
    _budget_line(axes, budget)
    top = max(1.15 * budget, 1.1 * float(np.sum(stacks, axis=0).max()))
    axes.set(xlabel="seconds", ylabel="ms", xlim=(at[0], max(at[-1], at[0] + 0.01)), ylim=(0, top))
    axes.legend(loc="upper left", ncols=9, frameon=False, bbox_to_anchor=(0, 1.14), handlelength=1, columnspacing=1)
    return True


def _stage_ms(recording: Recording, stage: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A stage's time: the GPU's where a GPU does it."""
    took = recording.frames[f"{stage}_ns"]
    if stage in GPU_STAGES:
        took = np.maximum(took, recording.frames[f"gpu_{stage}_ns"])
    milliseconds: np.ndarray[Any, np.dtype[np.float64]] = took / 1e6
    return milliseconds


def _waterfall(figure: Figure, recording: Recording) -> bool:
    axes = figure.subplots()
    frames = recording.frames
    rows = worst_frames(recording, _WORST)
    for line, row in enumerate(rows):
        zero = int(frames["published_ns"][row])
        for stage in STAGES:
            spans = [("", 0.4 if stage in GPU_STAGES and frames[f"gpu_{stage}_ns"][row] else 0.8, 0.0)]
            if stage in GPU_STAGES and frames[f"gpu_{stage}_ns"][row]:
                spans.append(("gpu_", 0.4, 0.4))
            for prefix, height, down in spans:
                took = frames[f"{prefix}{stage}_ns"][row] / 1e6
                if took <= 0:
                    continue
                start = (int(frames[f"{prefix}{stage}_start_ns"][row]) - zero) / 1e6
                axes.barh(
                    line + down - 0.4, took, height, start, align="edge", color=STAGE_COLOURS[stage],
                    hatch="////" if prefix else None, edgecolor="white" if prefix else "none", linewidth=0,
                )  # fmt: skip
        decision = ACTIONS[int(frames["action"][row])]
        why = recording.reasons[int(frames["reason"][row])]
        end = max(int(frames["delivered_ns"][row]), int(frames["answered_ns"][row])) - zero
        axes.text(end / 1e6, line, f"  {why or decision}", va="center", fontsize=7.5, color="#66727d")
    axes.set_yticks(range(len(rows)), [f"frame {int(frames['frame_id'][row])}" for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="ms since the game's publish")
    budget, longest = budget_ms(recording), float(_until_ns(recording)[rows].max()) / 1e6
    axes.set_xlim(0, 1.15 * max(budget, longest))
    _budget_line(axes, budget, upright=True)
    from matplotlib.patches import Patch

    axes.legend(
        handles=[Patch(color=colour, label=stage) for stage, colour in STAGE_COLOURS.items()],
        loc="upper left", ncols=9, frameon=False, bbox_to_anchor=(-0.05, 1.12), handlelength=1,
        columnspacing=1,
    )  # fmt: skip
    return True


def _decisions(figure: Figure, recording: Recording) -> bool:
    frames = recording.frames
    seconds = _seconds(recording)
    share, size, age = figure.subplots(3, 1, sharex=True, height_ratios=(1.4, 1, 1))
    order = np.argsort(seconds, kind="stable")
    bins = np.array_split(order, min(200, len(order)))
    at = [seconds[rows].mean() for rows in bins]
    shares = [[float((frames["kind"][rows] == index).mean()) * 100 for rows in bins] for index in range(len(KINDS))]
    share.stackplot(at, *shares, colors=list(KIND_COLOURS.values()), labels=KINDS, step="mid", linewidth=0)
    share.set(ylabel="% of frames", ylim=(0, 100))
    share.legend(loc="upper left", ncols=4, frameon=False, bbox_to_anchor=(0, 1.32), handlelength=1)
    flat = len(recording) > _VECTOR_POINTS
    net = frames["width"] > 0
    pixels = sorted({(int(w), int(h)) for w, h in zip(frames["width"][net], frames["height"][net], strict=True)})
    ladder = {side: index for index, side in enumerate(pixels)}
    heights = [ladder[int(w), int(h)] for w, h in zip(frames["width"][net], frames["height"][net], strict=True)]
    size.plot(seconds[net], heights, ".", markersize=2, color="#c065b8", rasterized=flat)
    size.set_yticks(range(len(pixels)), [f"{w}×{h}" for w, h in pixels])
    size.set(ylabel="net at", ylim=(-0.5, max(0.5, len(pixels) - 0.5)))
    age.plot(seconds[order], frames["edit_age_frames"][order], color="#d9a441", linewidth=0.8, rasterized=flat)
    age.set(ylabel="edit age", xlabel="seconds", ylim=(0, max(2, int(frames["edit_age_frames"].max()) + 1)))
    age.set_xlim(0, max(0.1, float(seconds.max())))
    return True


def _drift(figure: Figure, recording: Recording) -> bool:
    frames = recording.frames
    seconds = _seconds(recording)
    order = np.argsort(seconds, kind="stable")
    has_drift = bool(frames["drift_state"].any() or frames["drift_output"].any())
    axes = figure.subplots(1, 3 if frame_times_ms(recording).size and has_drift else 2)
    flat = len(recording) > _VECTOR_POINTS
    memory = axes[0]
    memory.plot(seconds[order], frames["rss_bytes"][order] / 1e6, color="#3f86c9", linewidth=1.2, rasterized=flat)
    most_mb = max(1.0, float(frames["rss_bytes"].max()) / 1e6)
    memory.set(ylabel="MB resident", xlabel="seconds", ylim=(0, 1.2 * most_mb))
    pauses = axes[1]
    pauses.plot(seconds[order], frames["gc_ns"][order] / 1e6, color="#e08a3c", linewidth=0.9, rasterized=flat)
    longest_ms = float(frames["gc_ns"].max()) / 1e6
    pauses.set(ylabel="ms of garbage collection", xlabel="seconds", ylim=(0, max(1.0, 1.1 * longest_ms)))
    if len(axes) == 3:
        for name, colour in (("drift_state", "#7a6fd0"), ("drift_output", "#6fae5a")):
            axes[2].plot(
                seconds[order],
                frames[name][order],
                color=colour,
                linewidth=0.9,
                label=name[6:],
                rasterized=flat,
            )
        axes[2].set(ylabel="drift, σ", xlabel="seconds")
        axes[2].legend(frameon=False)
    return True

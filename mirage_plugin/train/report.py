"""What an evaluation says: rows with a bar each, as a table, as JSON, as plots and contact sheets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mirage_plugin.errors import OutputError
from mirage_plugin.files import write_json

__all__ = ["Bar", "Row", "contact_sheet", "plotted", "print_rows", "write_rows"]

BASELINES = ("identity", "oracle_lut", "per_frame")


@dataclass(frozen=True)
class Bar:
    """What a value must reach: at least `low`, at most `high`; with neither, there is nothing to reach."""

    low: float | None = None
    high: float | None = None

    def met(self, value: float | None) -> bool | None:
        """Whether a value reaches the bar; None where there is no value or no bar."""
        if value is None or (self.low is None and self.high is None):
            return None
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        """In words."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f">= {self.low:g}"
        return f"<= {self.high:g}" if self.high is not None else "-"


@dataclass(frozen=True)
class Row:
    """One line of an evaluation."""

    row: str
    tier: str
    value: float | None
    """None where it could not be measured; `note` says why."""
    unit: str
    bar: Bar
    baselines: dict[str, float | None] = field(default_factory=dict)
    """The same measure of doing nothing (`identity`), of the oracle LUT and of the per-frame model."""
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """The row as JSON holds it; what is not finite is null."""
        data: dict[str, Any] = {
            "row": self.row,
            "tier": self.tier,
            "value": _finite(self.value),
            "unit": self.unit,
            "baselines": {name: _finite(self.baselines.get(name)) for name in BASELINES},
            "bar": str(self.bar),
            "met": self.bar.met(_finite(self.value)),
        }
        return data | ({"note": self.note} if self.note else {})


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"


def print_rows(console: Console, title: str, rows: Sequence[Row]) -> None:
    """Print rows as a table, each beside its baselines, and the notes below it."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("", min_width=28)
    for name in ("value", "bar", "met", "identity", "LUT", "per frame"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        met = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "-"}[r.bar.met(_finite(r.value))]
        table.add_row(
            r.row,
            f"{_number(r.value)} {r.unit}".strip(),
            str(r.bar),
            met,
            *(_number(r.baselines.get(name)) for name in BASELINES),
        )
    console.print(table)
    for r in rows:
        if r.note:
            console.print(f"[dim]{r.row}: {r.note}[/dim]")


def write_rows(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Write rows as `{"rows": [...], **about}`; raises `OutputError` where that fails."""
    write_json(path, {"rows": [r.plain() for r in rows], **about})


@contextmanager
def plotted(path: Path, **layout: Any) -> Iterator[Any]:
    """The axes of a new plot, which is written to `path` at the end; `layout` as `pyplot.subplots` has it.

    Raises `OutputError` where the file cannot be written.
    """
    import matplotlib as mpl  # half a second that only drawing needs

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(**layout)
    try:
        yield axes
        figure.savefig(path, dpi=110, bbox_inches="tight")
    except OSError as error:
        raise OutputError.at(path, error) from error
    finally:
        plt.close(figure)


def contact_sheet(path: Path, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Tensor]]]) -> None:
    """Write pictures as a labelled grid: `columns` names them from left to right, each row has its own label.

    Pictures are v [3, H, W] in [-1, 1], all of one size. Raises `OutputError` where the file cannot be
    written.
    """
    height, width = rows[0][1][0].shape[-2:]
    bar, gap = 18, 4
    sheet = Image.new(
        "RGB", (len(columns) * (width + gap) + gap, bar + len(rows) * (height + bar + gap) + gap), "#17181c"
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for i, name in enumerate(columns):
        pen.text((gap + i * (width + gap), 2), name, fill="#f2f2f2", font=font)
    for j, (label, pictures) in enumerate(rows):
        top = bar + gap + j * (height + bar + gap)
        for i, v in enumerate(pictures):
            pixels = ((v.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
            sheet.paste(Image.fromarray(pixels), (gap + i * (width + gap), top))
        pen.text((gap + 2, top + height + 1), label, fill="#a8adb8", font=font)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        raise OutputError.at(path, error) from error

"""The demo's contact sheet."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mirage_plugin import demo


def test_the_sheet_shows_where_most_is_drawn(tmp_path: Path) -> None:
    """Not a bare wall, nothing that still fades in, and nothing that was not restyled."""
    y, x = np.mgrid[0:32, 0:48]
    wall, busy = np.full((32, 48), 90), (x // 4 + y // 4) % 2 * 200
    fading, late = (255 - busy, "styled", "fading in"), (255 - busy, "source", "late")
    drawn = [(wall, "styled", ""), (busy, "styled", ""), fading, late]
    index = []
    for i, (picture, kind, reason) in enumerate(drawn):
        for name in ("source", "answer"):
            Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{name}{i}.png")
        names = {"source": f"source{i}.png", "answer": f"answer{i}.png"}
        index.append({"frame": i, "style": "ink", "kind": kind, "reason": reason, **names})
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert demo._contact_sheet(tmp_path, ["ink", "snow"], tmp_path / "sheet.png")
    assert not demo._contact_sheet(tmp_path, ["snow"], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    with Image.open(tmp_path / "sheet.png") as sheet:
        shown = np.asarray(sheet.convert("L"))[24 : 24 + 32, 48 + 8 : 48 + 8 + 48]
    assert np.array_equal(shown, busy)

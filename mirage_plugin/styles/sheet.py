"""`mirage styles`: the presets by family, and a sheet that shows each of them on one scene."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirage_plugin.errors import ConfigError, MissingDependencyError
from mirage_plugin.files import whole_file, write_json, write_text
from mirage_plugin.styles.parameters import PARAMETERS, Style, load_style, preset_names

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from mirage_plugin.train.worlds.gbuffer import GBuffer
    from mirage_plugin.train.worlds.scenes import Scene

__all__ = ["FAMILIES", "Preset", "draw_sheet", "draw_styles", "presets", "show", "showcase", "write_style"]

FAMILIES = ("art", "weather", "light", "world")
"""The families of presets, in the order in which they are shown."""

COLUMNS = 6
TILE = (320, 180)
LABEL_HEIGHT = 26
GAP = 6


@dataclass(frozen=True)
class Preset:
    """A style that ships, with the line its file says about it."""

    style: Style
    about: str


def presets() -> tuple[Preset, ...]:
    """Return every preset, by family and then by name."""
    folder = Path(str(resources.files("mirage_plugin.styles"))) / "presets"
    found = []
    for name in preset_names():
        data: dict[str, Any] = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
        found.append(Preset(load_style(name), str(data.get("about", ""))))
    order = {family: i for i, family in enumerate(FAMILIES)}
    return tuple(sorted(found, key=lambda p: (order.get(p.style.family, len(order)), p.style.name)))


def showcase(width: int, height: int) -> GBuffer:
    """Draw one frame of a street that has everything a style may touch, without its light: T = 1.

    Houses with windows, plants, objects, a lamp, a creature, hills, sky. Raises `MissingDependencyError`
    where torch is not installed.
    """
    try:
        from mirage_plugin.train.worlds.raycast import Window, cast_clip
    except ModuleNotFoundError as error:
        # Listing the styles needs no torch; drawing them does.
        raise MissingDependencyError(error.name or "torch") from error

    # No overlay is drawn from this seed.
    return cast_clip(_street(), Window(height, width, 0, 0, height, width), 1)


def _street() -> Scene:
    import torch

    from mirage_plugin.train.worlds.gbuffer import Material
    from mirage_plugin.train.worlds.scenes import Camera, Scene
    from mirage_plugin.train.worlds.textures import (
        Atlas,
        draw_cards,
        draw_texture,
        tileable_noise,
    )

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    kinds = {
        "cobbles": ("pebbles", 21), "lawn": ("grass", 19), "house": ("windows", 8), "tower": ("windows", 22),
        "far house": ("windows", 17), "roof": ("tiles", 6), "planks": ("planks", 1), "bark": ("bark", 1),
        "leaves": ("leaves", 2), "hedge": ("leaves", 19), "red": ("plain", 11), "bricks": ("bricks", 1),
        "lamp": ("plain", 8), "ball": ("stripes", 3),
    }  # fmt: skip
    number = {name: i for i, name in enumerate(kinds)}
    wall, thing, plant, ground = Material.WALL, Material.OBJECT, Material.FOLIAGE, Material.GROUND
    # centre, half size, yaw, texture, repeats per metre, material
    boxes: list[tuple[list[float], list[float], float, str, float, Material]] = [
        ([-8.2, 3.2, 5.0], [3.4, 3.2, 4.6], 0.0, "house", 0.16, wall),
        ([-8.2, 6.6, 5.0], [3.9, 0.25, 5.1], 0.0, "roof", 0.4, wall),
        ([8.6, 2.6, 8.5], [3.4, 2.6, 4.0], 0.12, "bricks", 0.3, wall),
        ([8.6, 5.4, 8.5], [3.9, 0.25, 4.5], 0.12, "roof", 0.4, wall),
        ([4.4, 6.5, 27.0], [3.2, 6.5, 3.2], 0.3, "tower", 0.11, wall),
        ([-4.6, 3.0, 24.0], [3.6, 3.0, 3.0], -0.2, "far house", 0.16, wall),
        ([-3.9, 0.04, 4.5], [0.9, 0.04, 5.0], 0.0, "lawn", 0.6, ground),
        ([4.3, 0.32, 7.5], [0.45, 0.32, 3.6], 0.12, "hedge", 0.8, plant),
        ([3.0, 0.5, 0.4], [0.5, 0.5, 0.5], 0.5, "planks", 1.0, thing),
        ([3.9, 0.42, 1.3], [0.42, 0.42, 0.42], 0.1, "planks", 1.0, thing),
        ([3.2, 1.3, 0.5], [0.3, 0.3, 0.3], 0.9, "red", 0.7, thing),
        ([-3.9, 1.4, 2.2], [0.17, 1.4, 0.17], 0.0, "bark", 0.8, thing),
        ([-3.9, 1.5, 7.8], [0.17, 1.5, 0.17], 0.0, "bark", 0.8, thing),
        ([1.9, 1.5, 8.0], [0.07, 1.5, 0.07], 0.0, "bark", 0.8, thing),
    ]
    # centre, radius, texture, material
    spheres: list[tuple[list[float], float, str, Material]] = [
        ([-3.9, 3.5, 2.2], 1.05, "leaves", plant), ([-3.3, 2.95, 1.8], 0.7, "leaves", plant),
        ([-3.9, 3.9, 7.8], 1.3, "leaves", plant), ([-4.6, 3.3, 7.6], 0.8, "leaves", plant),
        ([1.9, 3.2, 8.0], 0.32, "lamp", Material.EMISSIVE), ([1.55, 0.35, 1.6], 0.35, "ball", thing),
        ([-30.0, -14.0, 75.0], 26.0, "hedge", plant), ([26.0, -20.0, 85.0], 32.0, "leaves", plant),
    ]  # fmt: skip
    forward = torch.nn.functional.normalize(torch.tensor([0.03, -0.015, 1.0]), dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], 1)
    still = torch.zeros
    return Scene(
        family="town", smooth=True,
        atlas=Atlas(torch.stack([draw_texture(kind, seeded(seed)) for kind, seed in kinds.values()])),
        box_centre=torch.tensor([b[0] for b in boxes]), box_half=torch.tensor([b[1] for b in boxes]),
        box_yaw=torch.tensor([b[2] for b in boxes]), box_texture=torch.tensor([number[b[3]] for b in boxes]),
        box_scale=torch.tensor([b[4] for b in boxes]), box_material=torch.tensor([int(b[5]) for b in boxes]),
        box_velocity=still(len(boxes), 3), box_inverted=torch.zeros(len(boxes), dtype=torch.bool),
        sphere_centre=torch.tensor([s[0] for s in spheres]),
        sphere_radius=torch.tensor([s[1] for s in spheres]),
        sphere_texture=torch.tensor([number[s[2]] for s in spheres]),
        sphere_material=torch.tensor([int(s[3]) for s in spheres]), sphere_velocity=still(len(spheres), 3),
        cards=draw_cards(seeded(4), 1), card_centre=torch.tensor([[-0.9, 0.7, 1.2]]),
        card_size=torch.tensor([[1.1, 1.4]]), card_velocity=still(1, 3),
        ground_texture=number["cobbles"], ground_scale=0.22, ground_material=int(ground), height_map=None,
        height_extent=1.0, water_level=-1e9,
        sun=torch.nn.functional.normalize(torch.tensor([0.75, 0.8, -0.5]), dim=0), indoor=False,
        lamp_centre=torch.tensor([[1.9, 2.9, 7.6]]), lamp_colour=torch.tensor([[1.0, 0.75, 0.45]]),
        cloud_map=tileable_noise(seeded(5), 256, 1.6), cloud_cover=0.4,
        cameras=(Camera(torch.tensor([0.3, 1.75, -5.2]), rotation, 1.0),), cut=(True,), times=(0.0,),
    )  # fmt: skip


def draw_styles(g: GBuffer, styles: list[Style], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one frame plainly and in each style, with smoothed edges.

    `g` holds one frame. Returns the source, float32 [3, H, W] in [0, 1], and the styles [len(styles), 3, H,
    W].
    """
    import torch

    from mirage_plugin.train.batch import _smooth_edges, clip_noise
    from mirage_plugin.train.worlds.program import Look, as_shown, draw_source, of_looks, restyle
    from mirage_plugin.train.worlds.styles import style_tensor

    look = Look(
        sun=0.62, sun_colour=(1.0, 0.95, 0.85), ambient=0.5, ambient_colour=(0.9, 0.94, 1.0), texture=1.0,
        lamps=0.5,
        sky_top=(0.32, 0.54, 0.86), sky_horizon=(0.78, 0.88, 0.96), clouds=0.6, fog=0.0, exposure=0.1,
        contrast=1.0,
        saturation=1.05, temperature=0.05, pixels=1, noise=0.0, levels=0, outline=0.0, blur=False,
    )  # fmt: skip
    _, _, height, width = g.depth.shape
    g = of_looks([look], g)
    source, clean = draw_source(g, [look], torch.zeros(1, 1, height, width))
    shown = as_shown(g, clean)
    noise = clip_noise(g, seed)
    drawn = []
    for style in styles:
        natural, _ = style_tensor([style])
        drawn.append(_smooth_edges(restyle(shown, natural, noise, source), g)[0])
    return _smooth_edges(source, g)[0], torch.stack(drawn)


def draw_sheet(path: Path) -> None:
    """Draw every preset on the showcase scene, by family and labelled, as a PNG.

    Raises `OutputError` when `path` cannot be written and `MissingDependencyError` without torch.
    """
    from PIL import Image, ImageDraw, ImageFont

    width, height = TILE
    all_presets = presets()
    g = showcase(width + width % 2, height + height % 2)
    source, drawn = draw_styles(g, [p.style for p in all_presets])
    tiles: list[tuple[str, str, Image.Image]] = [("the game itself", "", _picture(source))]
    tiles += [
        (p.style.name, p.style.family, _picture(picture))
        for p, picture in zip(all_presets, drawn, strict=True)
    ]
    rows = -(-len(tiles) // COLUMNS)
    size = (COLUMNS * (width + GAP) + GAP, rows * (height + LABEL_HEIGHT + GAP) + GAP)
    sheet = Image.new("RGB", size, "#17181c")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for i, (name, family, picture) in enumerate(tiles):
        x, y = GAP + i % COLUMNS * (width + GAP), GAP + i // COLUMNS * (height + LABEL_HEIGHT + GAP)
        sheet.paste(picture, (x, y))
        pen.text((x + 4, y + height + 4), name, fill="#f2f2f2", font=font)
        pen.text((x + width - 4, y + height + 4), family, fill="#8d93a0", font=font, anchor="ra")
    with whole_file(path) as part:
        sheet.save(part, format="PNG")


def _picture(rgb: torch.Tensor) -> Image.Image:
    from PIL import Image

    return Image.fromarray((rgb.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy())


def show(*, sheet: Path | None = None, json: Path | None = None) -> None:
    """Print the presets by family; also draw them all into `sheet`, and write them as data into `json`.

    The data is `{"styles": [{"name", "family", "about", "caption", "parameters": {name: value}}]}`. Raises
    `OutputError` when a file cannot be written.
    """
    from rich.console import Console
    from rich.table import Table

    found = presets()
    console = Console()
    for family in dict.fromkeys(p.style.family for p in found):
        table = Table(title=family, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        table.add_column("style", style="cyan", no_wrap=True, min_width=max(len(p.style.name) for p in found))
        table.add_column("about", ratio=2)
        table.add_column("what it does", style="dim", ratio=3)
        for p in (p for p in found if p.style.family == family):
            table.add_row(p.style.name, p.about, p.style.caption())
        console.print(table)
        console.print()
    if sheet is not None:
        with console.status("drawing"):
            draw_sheet(sheet)
        console.print(f"{len(found)} styles on one scene: {sheet}", markup=False)
    if json is not None:
        rows = [
            {
                "name": p.style.name, "family": p.style.family, "about": p.about,
                "caption": p.style.caption(),
                "parameters": {q.name: p.style.value(q.name) for q in PARAMETERS},
            }
            for p in found
        ]  # fmt: skip
        write_json(json, {"styles": rows})


def write_style(source: str, out: Path | None) -> None:
    """Write a style as a style file, or print it; `source` is as `read_style` reads it.

    Raises what `read_style` raises, `ConfigError` for what is no name of a style file, and `OutputError`.
    """
    from mirage_plugin.style_input import read_style

    if out is not None and out.suffix.lower() != ".toml":
        raise ConfigError(f"--out {out}: a style file's name ends with .toml")
    if out is not None and out.exists() and out.resolve() == Path(source).resolve():
        raise ConfigError(f"--out would replace the source itself ({out}): choose another name")
    style = read_style(source)
    if out is None:
        print(style.text(), end="")
        return
    # It is another style from now on: games ask for it by the name of its file.
    text = replace(style, name=out.stem).text()
    write_text(out, text)

"""Paired worlds: scenes that are drawn twice, once as a plain game would and once in a style."""

from pathlib import Path

from mirage_plugin.train.worlds.gbuffer import SKY_DEPTH, GBuffer, Material
from mirage_plugin.train.worlds.program import Look, draw_source, of_looks, random_look, restyle
from mirage_plugin.train.worlds.raycast import Window, cast_clip
from mirage_plugin.train.worlds.scenes import FAMILIES, Camera, Scene, draw_scene
from mirage_plugin.train.worlds.styles import held_out, random_style

__all__ = [
    "FAMILIES",
    "SKY_DEPTH",
    "Camera",
    "GBuffer",
    "Look",
    "Material",
    "Scene",
    "Window",
    "cast_clip",
    "draw_scene",
    "draw_source",
    "held_out",
    "of_looks",
    "random_look",
    "random_style",
    "restyle",
    "write",
]


def write(*, out: Path, clips: int, frames: int, size: str, seed: int, style: str | None) -> None:
    """Do what `mirage worlds` does: `write_pairs` with a progress bar.

    Raises what `mirage_plugin.train.pairs.write_pairs` raises.
    """
    from rich.progress import Progress

    from mirage_plugin.train.pairs import write_pairs

    with Progress() as progress:
        task = progress.add_task("drawing clips", total=clips)
        write_pairs(
            out=out, clips=clips, frames=frames, size=size, seed=seed, style=style,
            progress=lambda: progress.advance(task),
        )  # fmt: skip
        progress.console.print(f"{clips} clips of {frames} frames in {out}: train on them with --data {out}")

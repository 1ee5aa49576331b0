"""The dataset folder: recorded frames and their restyled twins, written by `mirage worlds`, read by `mirage
train`.

`docs/DATASETS.md` describes the folder for those who fill one with frames of their own. In short, a folder
of clips, each with `clip.json`, `source/%05d.png`, `styled/%05d.png` and, where an engine gave them,
`depth/%05d.npy` (metres), `motion/%05d.npy` (pixels to where the surface was, NaN where it was not to be
seen) and `mask/%05d.png` (red overlay, green object, blue sky).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mirage_plugin.config import MAX_SIDE_PX, parse_size
from mirage_plugin.errors import DataError, OutputError
from mirage_plugin.model.noise import advect_noise, fresh_noise
from mirage_plugin.model.reference import rgb_of
from mirage_plugin.styles.parameters import PARAMETERS, Style, load_style, preset_names
from mirage_plugin.train.batch import Batch, clip_noise, engine_planes, offered, render_pair
from mirage_plugin.train.pool import draw_clip
from mirage_plugin.train.worlds.gbuffer import SKY_DEPTH, GBuffer
from mirage_plugin.train.worlds.styles import random_style
from mirage_plugin.train.worlds.textures import choice

__all__ = ["FORMAT", "Clip", "PairFolder", "style_file", "write_pairs"]

FORMAT = 1
"""Version of the folder's layout, as `clip.json` says it."""
OVERLAY = (24, 96)
"""Lines and columns that the largest element of a drawn overlay takes up."""


@dataclass(frozen=True)
class Clip:
    """One clip of a dataset folder, as its files say; nothing is decoded yet."""

    folder: Path
    frames: int
    width: int
    height: int
    fps: float
    style: Style
    """The style that `clip.json` names; where it names none that is known, the plain style."""
    cuts: frozenset[int]
    """Frames that begin a new shot; 0 always does."""
    seed: int | None
    """Seed of the noise that the styled frames were drawn with; None where they were not drawn with any."""
    has_depth: bool
    has_motion: bool
    has_mask: bool

    def path(self, kind: str, frame: int) -> Path:
        """Where a frame's file of a kind (`source`, `styled`, `depth`, `motion`, `mask`) lies."""
        return self.folder / kind / f"{frame:05d}.{'npy' if kind in ('depth', 'motion') else 'png'}"


def _open_clip(folder: Path) -> Clip:
    """Read what a clip says about itself and check that its files are there and fit."""
    about = folder / "clip.json"
    try:
        data: Any = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{about} cannot be read ({error}); docs/DATASETS.md says what stands in it"
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise DataError(f'{about}: "format" is {found!r}, this version reads {FORMAT}')
    known = {"format", "size", "frames", "fps", "style", "cuts", "seed"}
    if unknown := sorted(set(data) - known):
        raise DataError(f"{about}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    size, frames, fps = data.get("size"), data.get("frames"), data.get("fps", 30)
    if not (isinstance(size, list) and len(size) == 2 and all(_whole(s, 1, MAX_SIDE_PX) for s in size)):
        raise DataError(f'{about}: "size" must be [width, height] in pixels, not {size!r}')
    if not _whole(frames, 1, 99_999):
        raise DataError(f'{about}: "frames" must be a whole number from 1 to 99999, not {frames!r}')
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps <= 1000:
        raise DataError(f'{about}: "fps" must be a number from 0 to 1000, not {fps!r}')
    cuts, seed = data.get("cuts", []), data.get("seed")
    if not (isinstance(cuts, list) and all(_whole(c, 0, frames - 1) for c in cuts)):
        raise DataError(f'{about}: "cuts" must list frame numbers from 0 to {frames - 1}, not {cuts!r}')
    if seed is not None and not _whole(seed, 0, 2**31 - 1):
        raise DataError(f'{about}: "seed" must be a whole number from 0 to {2**31 - 1}, not {seed!r}')
    planes = {kind: (folder / kind).is_dir() for kind in ("depth", "motion", "mask")}
    clip = Clip(
        folder,
        frames,
        size[0],
        size[1],
        float(fps),
        _clip_style(about, data.get("style")),
        frozenset({0, *cuts}),
        seed,
        planes["depth"],
        planes["motion"],
        planes["mask"],
    )
    for kind in ("source", "styled", *(kind for kind, there in planes.items() if there)):
        _check_files(clip, kind)
    return clip


def _whole(value: object, low: int, high: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _clip_style(about: Path, name: object) -> Style:
    if name is None:
        return Style.make("plain", {})
    if not isinstance(name, str):
        raise DataError(
            f'{about}: "style" must be the name of a style or of a .toml file beside it, not {name!r}'
        )
    if name.lower().endswith(".toml"):
        beside = about.parent / name
        if not beside.is_file():
            raise DataError(f'{about}: "style" names {name}, which is not beside it')
        return load_style(beside)
    # A look of one's own has no parameters here: the model learns it as its plain style.
    return load_style(name) if name in preset_names() else Style.make(name, {})


def _check_files(clip: Clip, kind: str) -> None:
    """Every frame has its file of this kind, of the clip's size; headers are read, pixels are not."""
    for frame in range(clip.frames):
        path = clip.path(kind, frame)
        if not path.is_file():
            twin = f" (the twin of {clip.path('source', frame).name})" if kind == "styled" else ""
            raise DataError(f"{path} is missing{twin}: clip.json says {clip.frames} frames")
        if path.suffix == ".png":
            try:
                with Image.open(path) as picture:
                    found = picture.size
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                raise DataError(f"{path} is not a readable PNG ({error})") from error
        else:
            found = _array(path, mapped=True).shape[1::-1]
        if found != (clip.width, clip.height):
            raise DataError(
                f"{path} is {found[0]}x{found[1]}, but clip.json says {clip.width}x{clip.height}: "
                "all frames of a clip have one size"
            )


def _array(path: Path, *, mapped: bool = False) -> np.ndarray[Any, Any]:
    channels = 2 if path.parent.name == "motion" else 1
    try:
        # Not np.load, which reads an archive (.npz) of any name as well.
        found: np.ndarray[Any, Any] = np.lib.format.open_memmap(path, mode="r")
        found = found if mapped else np.array(found)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable NumPy file ({error})") from error
    if (
        found.dtype.kind != "f"
        or found.ndim != (3 if channels == 2 else 2)
        or found.shape[2:] not in ((), (2,))
    ):
        shape = "[height, width, 2]" if channels == 2 else "[height, width]"
        raise DataError(f"{path} must be float16 or float32 {shape}, not {found.dtype} {list(found.shape)}")
    return found


def _picture(path: Path) -> Tensor:
    """A PNG as float32 [3, H, W] in [0, 1]."""
    try:
        with Image.open(path) as picture:
            pixels = rgb_of(picture).astype(np.float32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable PNG ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def _mask(path: Path) -> Tensor:
    """A mask as float32 [3, H, W] in [0, 1]. Raises `DataError` for one that says something else than yes and no."""
    mask = _picture(path)
    between = float(((mask > 0.1) & (mask < 0.9)).float().mean())  # edges may be soft
    if between > 0.05 or 0 < float(mask.max()) < 0.9:
        raise DataError(
            f"{path} must be 0 or 255 in red (overlay), green (moving objects) and blue (sky): a mask of numbers, as "
            "games send it, is another thing"
        )
    return mask


class PairFolder:
    """A dataset folder, checked when it is opened, from which training batches are drawn."""

    def __init__(self, path: Path) -> None:
        """Open the folder at `path` and check every clip in it.

        Raises `DataError` that names the file and what is wrong with it: no clip, a missing twin, another
        size, a PNG or array that cannot be read, an unknown key.
        """
        folders = sorted(p.parent for p in path.glob("*/clip.json"))
        if not folders:
            if (path / "clip.json").is_file():
                raise DataError(f"{path} is one clip: give the folder that it lies in")
            raise DataError(
                f"{path} holds no clip: `mirage worlds --out DIR` writes an example of such a folder"
            )
        self.path = path
        self.clips = tuple(_open_clip(folder) for folder in folders)

    def fitting(self, frames: int, height: int, width: int) -> list[Clip]:
        """The clips that hold `frames` frames of `height` x `width`; raises `DataError` where none does."""
        fit = [c for c in self.clips if c.frames >= frames and c.height >= height and c.width >= width]
        if not fit:
            largest = max(self.clips, key=lambda c: (c.frames, c.height * c.width))
            raise DataError(
                f"no clip in {self.path} has {frames} frames of at least {width}x{height}; the longest has "
                f"{largest.frames} of {largest.width}x{largest.height}"
            )
        return fit

    def draw_batch(self, rng: torch.Generator, *, size: int, frames: int, height: int, width: int) -> Batch:
        """Draw `size` pieces of `frames` frames, cropped to `height` x `width`, half of them mirrored.

        Clips that are too short or too small for that are passed over. Depth, motion and mask are withheld
        half of the time each, from a whole clip or from some of its frames, as an engine may. Raises
        `DataError` where no clip will do or a file is bad.
        """
        fit = self.fitting(frames, height, width)
        columns: dict[str, list[Tensor]] = {name: [] for name in Batch.__dataclass_fields__ if name != "surface"}
        for _ in range(size):
            clip = fit[choice(rng, len(fit))]
            for name, value in _draw_piece(clip, rng, frames, height, width).items():
                columns[name].append(value)
        return Batch(**{name: torch.stack(values, dim=1) for name, values in columns.items()})


def _draw_piece(clip: Clip, rng: torch.Generator, frames: int, height: int, width: int) -> dict[str, Tensor]:
    start = choice(rng, clip.frames - frames + 1)
    # Even: the noise has one value per 2x2 pixels.
    top, left = (
        choice(rng, (clip.height - height) // 2 + 1) * 2,
        choice(rng, (clip.width - width) // 2 + 1) * 2,
    )
    window = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))
    span = range(start, start + frames)
    source, truth = (
        torch.stack([_picture(clip.path(kind, i)) for i in span]) for kind in ("source", "styled")
    )
    cut = torch.tensor([i == start or i in clip.cuts for i in span])
    has_depth, has_motion, has_mask = (
        offered(rng, frames) * there for there in (clip.has_depth, clip.has_motion, clip.has_mask)
    )

    plane = torch.zeros(frames, 1, clip.height, clip.width)
    depth = torch.cat([_depth(clip.path("depth", i)) for i in span]) if has_depth.any() else plane
    mask = plane.expand(-1, 3, -1, -1)
    if has_mask.any():
        mask = torch.stack([_mask(clip.path("mask", i)) for i in span])
    seed = int(torch.randint(1 << 31, (), generator=rng))
    if clip.seed is not None and clip.has_motion:
        # Styled frames drawn with our noise have grain in it: the same field, from the clip's first frame on.
        noise = _noise(clip, clip.seed, range(span.stop))[start:]
    elif has_motion.any():
        noise = _noise(clip, seed, span)
    else:
        noise = _noise(clip, seed, range(start, start + 1)).expand(frames, -1, -1, -1)
    motion, visible = torch.zeros(frames, 2, clip.height, clip.width), plane + 1
    if has_motion.any():
        both = [_motion(clip, i) for i in span]
        withheld = (has_motion == 0)[:, None, None, None]
        motion = torch.cat([b[0] for b in both]).masked_fill(withheld, 0)
        visible = torch.cat([b[1] for b in both]).float().masked_fill(withheld, 1)
    row = {
        "source": source[window] * 2 - 1,
        "truth": truth[window] * 2 - 1,
        "noise": noise[:, :, top // 2 : (top + height) // 2, left // 2 : (left + width) // 2],
        "depth": depth[window],
        "motion": motion[window],
        "visible": visible[window],
        "mask": mask[window],
    }
    if choice(rng, 2):
        row = {name: value.flip(-1) for name, value in row.items()}
        row["motion"] = row["motion"] * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
    row |= {
        "has_depth": has_depth,
        "has_motion": has_motion,
        "has_mask": has_mask,
        "cut": cut,
        "parameters": torch.from_numpy(clip.style.vector()).float().expand(frames, -1),
    }
    return row


def _depth(path: Path) -> Tensor:
    depth = torch.from_numpy(_array(path).astype(np.float32))
    wrong = int((depth.isnan() | (depth < 0)).sum())
    if wrong:
        raise DataError(
            f"{path}: {wrong} pixels are NaN or negative; depth is in metres, and far is large or inf"
        )
    return depth.clamp_max(SKY_DEPTH)[None, None]


def _motion(clip: Clip, frame: int) -> tuple[Tensor, Tensor]:
    """Motion float32 [1, 2, H, W], finite, and where it was to be seen, bool [1, 1, H, W]."""
    found = torch.from_numpy(_array(clip.path("motion", frame)).astype(np.float32)).permute(2, 0, 1)[None]
    visible = found.isfinite().all(1, keepdim=True)
    if frame in clip.cuts:
        visible = torch.zeros_like(visible)
    return torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), visible


def _noise(clip: Clip, seed: int, span: range) -> Tensor:
    """The noise field of the frames of `span`, carried along the motion: float32 [T, 1, H'/2, W'/2].

    H' and W' are the clip's sides made even. The first frame of `span` is drawn anew.
    """
    height, width = (clip.height + 1) // 2, (clip.width + 1) // 2
    key = torch.full((1,), seed, dtype=torch.int64)
    out: list[Tensor] = []
    for i in span:
        field = fresh_noise(key, torch.full((1,), i, dtype=torch.int64), height, width)
        if out:
            motion, visible = _motion(clip, i)
            field = advect_noise(out[-1], motion[..., ::2, ::2], visible[..., ::2, ::2], field)
        out.append(field)
    return torch.cat(out)


def style_file(style: Style, about: str = "") -> str:
    """Write a style down as the text of a `.toml` file that `load_style` reads; only what differs from
    plain.
    """
    lines = [f"name = {json.dumps(style.name)}", f"family = {json.dumps(style.family)}"]
    if about:
        lines.append(f"about = {json.dumps(about)}")
    for section in dict.fromkeys(p.section for p in PARAMETERS):
        settings = []
        for p in (p for p in PARAMETERS if p.section == section):
            value = style.value(p.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if any(abs(a - b) > 1e-6 for a, b in zip(numbers, p.default, strict=True)):
                text = [repr(min(max(float(n), p.low), p.high)) for n in numbers]
                settings.append(f"{p.name} = {text[0] if p.size == 1 else '[' + ', '.join(text) + ']'}")
        if settings:
            lines += ["", f"[{section}]", *settings]
    return "\n".join(lines) + "\n"


def write_pairs(
    *,
    out: Path,
    clips: int,
    frames: int,
    size: str,
    seed: int,
    style: str | None,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Draw `clips` paired clips into the folder `out`, in the layout that `PairFolder` reads.

    `size` is `WIDTHxHEIGHT`; `style` names one for all, None draws a random one for each; `progress` is
    called after each clip. The same arguments write the same files. Raises `ConfigError` for a bad size or
    an unknown style, and `OutputError` when a clip of that number is there already or the folder cannot be
    written."""
    width, height = parse_size(size)
    wanted = load_style(style) if style is not None else None
    taken = next((p for i in range(clips) if (p := out / f"clip-{i:05d}").exists()), None)
    if taken is not None:
        raise OutputError(f"{taken} is there already: choose another --out, or delete it first")
    for i in range(clips):
        rng = torch.Generator().manual_seed((seed * 1_000_003 + i) & (2**63 - 1))
        clip_seed = int(torch.randint(1 << 31, (), generator=rng))
        # The noise has one value per 2x2 pixels: odd sizes are drawn a pixel larger. An overlay needs room.
        even = height + height % 2, width + width % 2
        drawn = max(even[0], OVERLAY[0]), max(even[1], OVERLAY[1])
        g = draw_clip(clip_seed, frames, *drawn, whole=True).crop(0, 0, *even)
        chosen = wanted if wanted is not None else random_style(rng)
        source, truth, _ = render_pair(g, [chosen] * frames, clip_noise(g, clip_seed), rng)
        folder = out / f"clip-{i:05d}"
        try:
            _write_clip(folder, g, source, truth, chosen, clip_seed, (width, height))
        except OSError as error:
            raise OutputError.at(folder, error) from error
        progress()


def _write_clip(
    folder: Path, g: GBuffer, source: Tensor, truth: Tensor, style: Style, seed: int, size: tuple[int, int]
) -> None:
    width, height = size
    depth, motion, mask = engine_planes(g)
    motion = torch.where(g.visible, motion, torch.full_like(motion, float("nan")))
    for kind in ("source", "styled", "depth", "motion", "mask"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(source.shape[0]):
        for kind, picture in (("source", (source + 1) / 2), ("styled", (truth + 1) / 2), ("mask", mask)):
            pixels = (
                (picture[i, :, :height, :width].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
            )
            Image.fromarray(pixels).save(folder / kind / f"{i:05d}.png")
        np.save(folder / "depth" / f"{i:05d}.npy", depth[i, 0, :height, :width].half().numpy())
        np.save(
            folder / "motion" / f"{i:05d}.npy", motion[i, :, :height, :width].permute(1, 2, 0).half().numpy()
        )
    name = style.name
    if name not in preset_names() or not np.array_equal(load_style(name).values, style.values):
        name = "style.toml"
        (folder / name).write_text(style_file(style, style.caption()), encoding="utf-8")
    about = {
        "format": FORMAT,
        "size": [width, height],
        "frames": source.shape[0],
        "fps": 30,
        "style": name,
        "cuts": [t for t in range(source.shape[0]) if bool(g.cut[t])],
        "seed": seed,
    }
    # Last: a folder without it is not a clip, so a clip that was cut short is never read.
    (folder / "clip.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

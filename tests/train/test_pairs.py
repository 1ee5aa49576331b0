"""The dataset folder: what is written is read, and every mistake in one is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirage_plugin.errors import ConfigError, DataError, OutputError, UnknownStyleError
from mirage_plugin.styles import Style, load_style
from mirage_plugin.train.batch import Batch
from mirage_plugin.train.pairs import PairFolder, style_file, write_pairs
from mirage_plugin.train.worlds import random_style, write

# What the pictures show, nobody has written down.
FIELDS = [name for name in Batch.__dataclass_fields__ if name != "surface"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs"
    write_pairs(out=path, clips=2, frames=3, size="71x45", seed=4, style=None)
    return path


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of one's own, to spoil."""
    shutil.copytree(written, tmp_path / "pairs")
    return tmp_path / "pairs"


def draw(path: Path, seed: int = 1, *, frames: int = 2, height: int = 32, width: int = 64) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return PairFolder(path).draw_batch(rng, size=4, frames=frames, height=height, width=width)


def pixels(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_written_folder_can_be_trained_on(written: Path) -> None:
    batch = draw(written)
    assert batch.source.shape == batch.truth.shape == (2, 4, 3, 32, 64)
    assert batch.noise.shape == (2, 4, 1, 16, 32)
    assert batch.parameters.shape[:2] == batch.cut.shape == (2, 4)
    for name in FIELDS:
        assert bool(getattr(batch, name).float().isfinite().all()), name
    assert float(batch.source.abs().max()) <= 1
    assert not torch.equal(batch.source, batch.truth)


def test_planes_are_withheld_now_and_then(written: Path) -> None:
    many = [draw(written, seed) for seed in range(6)]
    for name in ("has_depth", "has_motion", "has_mask"):
        assert {float(x) for batch in many for x in getattr(batch, name).flatten()} == {0.0, 1.0}
    for batch in many:
        kept = batch.has_motion.bool()
        assert float(batch.motion[~kept].abs().sum()) == 0
        assert float(batch.visible[~kept].sum()) == batch.visible[~kept].numel()
    assert any(float((batch.visible == 0).float().mean()) > 0 for batch in many)


def test_the_same_generator_gives_the_same_batch(written: Path) -> None:
    first, second, other = draw(written, 3), draw(written, 3), draw(written, 4)
    assert all(torch.equal(getattr(first, n), getattr(second, n)) for n in FIELDS)
    assert not torch.equal(first.source, other.source)


def test_writing_is_repeatable_and_overwrites_nothing(written: Path, tmp_path: Path) -> None:
    write_pairs(out=tmp_path / "again", clips=1, frames=3, size="71x45", seed=4, style=None)
    for kind in ("source", "styled", "mask"):
        a, b = (p / "clip-00000" / kind / "00002.png" for p in (written, tmp_path / "again"))
        assert a.read_bytes() == b.read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        write_pairs(out=written, clips=1, frames=3, size="71x45", seed=4, style=None)


def test_a_named_style_is_written_by_name_and_its_frames_have_its_noise(tmp_path: Path) -> None:
    write(out=tmp_path / "p", clips=1, frames=2, size="64x32", seed=1, style="ink")
    about = json.loads((tmp_path / "p" / "clip-00000" / "clip.json").read_text())
    assert (about["style"], about["size"], about["frames"], about["cuts"][0]) == ("ink", [64, 32], 2, 0)
    clip = PairFolder(tmp_path / "p").clips[0]
    assert np.array_equal(clip.style.values, load_style("ink").values)
    # The field of noise follows from the folder alone, whatever part of it is drawn.
    noises = {
        tuple(draw(tmp_path / "p", s).noise[0, 0].abs().flatten().sort().values[:9].tolist())
        for s in range(4)
    }
    assert len(noises) == 1


def test_a_style_file_comes_back(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(5)
    for number in range(8):
        style = random_style(rng, only_held_out=number % 2 == 1)
        (tmp_path / "s.toml").write_text(style_file(style, 'says "hello"'))
        assert np.allclose(load_style(tmp_path / "s.toml").values, style.values, atol=2e-6)
    assert style_file(Style.make("plain", {})).strip().count("\n") == 1


def test_a_look_of_ones_own_is_plain(folder: Path) -> None:
    about = folder / "clip-00000" / "clip.json"
    data = json.loads(about.read_text()) | {"style": "my studio's look"}
    about.write_text(json.dumps(data))
    clip = PairFolder(folder).clips[0]
    assert clip.style.name == "my studio's look"
    assert np.array_equal(clip.style.values, Style.make("plain", {}).values)


def test_frames_alone_are_enough(folder: Path) -> None:
    for clip in folder.iterdir():
        for kind in ("depth", "motion", "mask"):
            shutil.rmtree(clip / kind)
        (clip / "clip.json").write_text('{"format": 1, "size": [71, 45], "frames": 3}')
    batch = draw(folder)
    assert float(batch.has_depth.sum() + batch.has_motion.sum() + batch.has_mask.sum()) == 0


def edit(clip: Path, **changes: object) -> None:
    data = json.loads((clip / "clip.json").read_text()) | changes
    (clip / "clip.json").write_text(json.dumps(data))


def resize(path: Path) -> None:
    with Image.open(path) as picture:
        small = picture.resize((32, 16))
    small.save(path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, np.zeros((45, 71), np.float32))


MISTAKES: list[tuple[Callable[[Path], object], str]] = [
    (lambda c: (c / "styled" / "00001.png").unlink(), r"styled/00001\.png is missing \(the twin of 00001"),
    (lambda c: (c / "source" / "00002.png").unlink(), r"source/00002\.png is missing"),
    (lambda c: (c / "depth" / "00000.npy").unlink(), r"depth/00000\.npy is missing"),
    (lambda c: resize(c / "styled" / "00000.png"), "is 32x16, but clip.json says 71x45"),
    (lambda c: (c / "styled" / "00000.png").write_text("x"), "is not a readable PNG"),
    (lambda c: (c / "motion" / "00000.npy").write_text("x"), "is not a readable NumPy file"),
    (lambda c: archive(c / "depth" / "00000.npy"), "is not a readable NumPy file"),
    (lambda c: np.save(c / "depth" / "00000.npy", np.zeros((45, 71), int)), "must be float16 or float32"),
    (lambda c: np.save(c / "motion" / "00000.npy", np.zeros((45, 71), np.float32)), "height, width, 2"),
    (lambda c: (c / "clip.json").write_text("{"), "cannot be read"),
    (lambda c: (c / "clip.json").write_text("[]"), '"format" is None'),
    (lambda c: edit(c, format=2), '"format" is 2, this version reads 1'),
    (lambda c: edit(c, colour="red"), "unknown key 'colour'; known are cuts, format"),
    (lambda c: edit(c, size=[71]), '"size" must be'),
    (lambda c: edit(c, size=[0, 45]), '"size" must be'),
    (lambda c: edit(c, frames=True), '"frames" must be'),
    (lambda c: edit(c, fps=0), '"fps" must be'),
    (lambda c: edit(c, cuts=[3]), '"cuts" must list'),
    (lambda c: edit(c, seed=-1), '"seed" must be'),
    (lambda c: edit(c, style=3), '"style" must be'),
    (lambda c: edit(c, style="lost.toml"), "lost.toml, which is not beside it"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_named(folder: Path, number: int) -> None:
    spoil, said = MISTAKES[number]
    spoil(folder / "clip-00000")
    with pytest.raises(DataError, match=said):
        PairFolder(folder)


def test_what_only_decoding_shows_is_named_as_well(folder: Path) -> None:
    for clip in folder.iterdir():
        for i in range(3):
            cut_short(clip / "styled" / f"{i:05d}.png")
    with pytest.raises(DataError, match=r"styled/0000\d\.png is not a readable PNG"):
        draw(folder)


def test_depth_of_nan_is_refused_and_motion_of_nan_means_hidden(folder: Path) -> None:
    for clip in folder.iterdir():
        for i in range(3):
            motion = np.full((45, 71, 2), np.nan, np.float32)
            np.save(clip / "motion" / f"{i:05d}.npy", motion)
    batches = [draw(folder, seed) for seed in range(4)]
    assert any(float(b.has_motion.sum()) > 0 for b in batches)
    for batch in batches:
        assert float(batch.visible[batch.has_motion.bool()].sum()) == 0
        assert bool(batch.motion.isfinite().all())
    for clip in folder.iterdir():
        for i in range(3):
            depth = np.ones((45, 71), np.float32)
            depth[3, 4] = np.nan
            np.save(clip / "depth" / f"{i:05d}.npy", depth)
    # Depth is withheld half of the time: take a seed that gave it.
    seed = next(i for i, batch in enumerate(batches) if float(batch.has_depth.sum()) > 0)
    with pytest.raises(DataError, match=r"depth/.*: 1 pixels are NaN or negative"):
        draw(folder, seed)


def test_what_is_too_short_or_too_small(written: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 4 frames of at least 64x32; the longest has 3 of 71x45"):
        draw(written, frames=4)
    with pytest.raises(DataError, match="96x32"):
        draw(written, width=96)
    with pytest.raises(DataError, match="holds no clip"):
        PairFolder(tmp_path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        write_pairs(out=tmp_path, clips=1, frames=1, size="big", seed=0, style=None)
    with pytest.raises(UnknownStyleError):
        write_pairs(out=tmp_path, clips=1, frames=1, size="8x8", seed=0, style="inc")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_pairs(out=tmp_path / "file", clips=1, frames=1, size="8x8", seed=0, style="ink")


def test_a_frame_of_one_pixel(tmp_path: Path) -> None:
    write_pairs(out=tmp_path, clips=1, frames=2, size="1x1", seed=0, style="snow")
    assert pixels(tmp_path / "clip-00000" / "styled" / "00001.png").shape == (1, 1, 3)
    assert PairFolder(tmp_path).clips[0].width == 1


def test_a_name_is_no_file_unless_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look of one's own may be called as a version or as a file in the folder that one stands in is."""
    write(out=tmp_path / "pairs", clips=1, frames=1, size="64x48", seed=1, style="ink")
    about = tmp_path / "pairs" / "clip-00000" / "clip.json"
    (tmp_path / "README").write_text("no style")
    monkeypatch.chdir(tmp_path)
    said = json.loads(about.read_text())
    for name in ("look v1.2", "README"):
        about.write_text(json.dumps(said | {"style": name}))
        assert PairFolder(tmp_path / "pairs").clips[0].style.name == name


def test_a_mask_of_numbers_is_refused(tmp_path: Path) -> None:
    """As a game sends it, 0, 2 and 3 in one channel, it would be read as no mask at all."""
    write(out=tmp_path / "pairs", clips=1, frames=1, size="64x48", seed=1, style="ink")
    path = next((tmp_path / "pairs").glob("*/mask/*.png"))
    Image.fromarray(np.random.default_rng(0).integers(0, 4, (48, 64)).astype(np.uint8)).save(path)
    folder = PairFolder(tmp_path / "pairs")
    # So many that some engine among them sends its mask.
    with pytest.raises(DataError, match="a mask of numbers"):
        folder.draw_batch(torch.Generator().manual_seed(0), size=20, frames=1, height=48, width=64)

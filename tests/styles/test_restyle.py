"""`mirage restyle`: pictures and videos in, pictures and videos out."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mirage_plugin.errors import ConfigError, DataError, UnknownStyleError, WeightsError
from mirage_plugin.model.checkpoint import save_network
from mirage_plugin.model.network import MirageNet
from mirage_plugin.restyle import Redrawer, estimate_motion, restyle
from mirage_plugin.styles import load_style

Pixels = NDArray[np.uint8]


def texture(height: int, width: int, seed: int = 0) -> Pixels:
    coarse = np.random.default_rng(seed).integers(
        0, 255, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8
    )
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def weights(net: MirageNet, tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "nano.safetensors"
    save_network(net, path)
    return path


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    whole = texture(60, 120)
    for i in range(3):
        Image.fromarray(whole[:45, 2 * i : 2 * i + 71]).save(folder / f"shot{i}.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def decode(path: Path) -> list[Pixels]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_folder_becomes_a_folder(shots: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    restyle(frames=shots, style="ink", out=out, weights=weights, device="cpu", json=tmp_path / "r.json")
    assert sorted(p.name for p in out.iterdir()) == ["shot0.png", "shot1.png", "shot2.png"]
    for i in range(3):
        a, b = np.asarray(Image.open(shots / f"shot{i}.png")), np.asarray(Image.open(out / f"shot{i}.png"))
        assert b.shape == a.shape == (45, 71, 3)
        assert not np.array_equal(a, b)
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["frames"], report["size"], report["tier"], report["style"]) == (3, [71, 45], "nano", "ink")


def test_the_same_arguments_give_the_same_frames(shots: Path, weights: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        restyle(frames=shots, style="ink", out=tmp_path / name, weights=weights, device="cpu", seed=seed)
    last = [(tmp_path / name / "shot2.png").read_bytes() for name in "abc"]
    assert last[0] == last[1] != last[2]


def test_no_strength_changes_nothing(shots: Path, weights: Path, tmp_path: Path) -> None:
    restyle(frames=shots, style="ink", out=tmp_path / "out", weights=weights, device="cpu", strength=0.0)
    for i in range(3):
        a, b = (np.asarray(Image.open(d / f"shot{i}.png")) for d in (shots, tmp_path / "out"))
        assert np.array_equal(a, b)


def test_a_folder_becomes_a_video_and_that_a_video_again(shots: Path, weights: Path, tmp_path: Path) -> None:
    restyle(frames=shots, style="snow", out=tmp_path / "one.mp4", weights=weights, device="cpu")
    restyle(frames=tmp_path / "one.mp4", style="ink", out=tmp_path / "two.mkv", weights=weights, device="cpu")
    for name in ("one.mp4", "two.mkv"):
        found = decode(tmp_path / name)
        # A video has even sides.
        assert [f.shape for f in found] == [(46, 72, 3)] * 3
    assert not list(tmp_path.glob(".*part*"))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 97), (33, 1), (31, 33), (64, 96)])
def test_any_size(net: MirageNet, height: int, width: int) -> None:
    redraw = Redrawer(net, load_style("ink"))
    frame = np.full((height, width, 3), 128, np.uint8)
    for _ in range(3):
        assert redraw(frame).shape == frame.shape


def test_a_frame_larger_than_the_network_works_on(net: MirageNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirage_plugin.restyle.WORKING_PIXELS", 64 * 64)
    redraw = Redrawer(net, load_style("ink"))
    frames = [texture(130, 190, 1), texture(130, 190, 1), texture(64, 64, 2), texture(130, 190, 1)]
    for frame in frames:
        assert redraw(frame).shape == frame.shape


def test_a_still_picture_stays_and_what_is_remembered_is_dropped_at_a_cut(net: MirageNet) -> None:
    redraw, frame = Redrawer(net, load_style("ink")), texture(64, 96, 3)
    first = redraw(frame)
    assert redraw._settled is not None
    second = redraw(frame)
    assert np.abs(second.astype(int) - first).max() <= 1
    redraw._settled = redraw._settled.clone()
    redraw._settled[..., :3] += 0.2
    assert (redraw(frame).astype(int) - second).mean() > 5, "what cells were changed by goes on"
    other = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    redraw(other)
    assert redraw.cuts == 1


def test_motion_is_found() -> None:
    whole = texture(120, 200, 4)
    # The camera goes right: what is seen at x was at x + 5.
    motion, seen = estimate_motion(whole[:96, 25:153], whole[:96, 20:148])
    assert motion.shape == (96, 128, 2)
    middle = motion[16:-16, 16:-24]
    assert abs(float(np.median(middle[..., 0])) - 5) < 0.5
    assert abs(float(np.median(middle[..., 1]))) < 0.5
    assert seen[16:-16, 16:-24].mean() > 0.9
    still, all_seen = estimate_motion(whole, whole)
    assert abs(still).max() < 0.1
    assert all_seen.all()


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf")])
def test_strength_out_of_range(shots: Path, tmp_path: Path, strength: float) -> None:
    with pytest.raises(ConfigError, match="strength"):
        restyle(frames=shots, style="ink", out=tmp_path / "o", strength=strength)


def test_what_cannot_be_asked_for(shots: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownStyleError, match="did you mean ink"):
        restyle(frames=shots, style="inc", out=tmp_path / "o", weights=weights)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        restyle(frames=shots, style="painting.jpg", out=tmp_path / "o", weights=weights)
    with pytest.raises(ConfigError, match="source itself"):
        restyle(frames=shots, style="ink", out=shots, weights=weights)
    with pytest.raises(WeightsError):
        restyle(frames=shots, style="ink", out=tmp_path / "o", weights=tmp_path / "none.safetensors")


def test_what_cannot_be_read(weights: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        restyle(frames=empty, style="ink", out=tmp_path / "o", weights=weights)
    bad = tmp_path / "bad"
    bad.mkdir()
    Image.fromarray(texture(40, 40)).save(bad / "a.png")
    (bad / "a.png").write_bytes((bad / "a.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        restyle(frames=bad, style="ink", out=tmp_path / "o", weights=weights)
    video = tmp_path / "no.mp4"
    video.write_bytes(b"this is no video")
    with pytest.raises(DataError, match="cannot be opened as a video"):
        restyle(frames=video, style="ink", out=tmp_path / "o", weights=weights)


def test_an_enormous_picture_is_refused_unread(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    Image.new("1", (9000, 9000)).save(folder / "a.png")
    with pytest.raises(DataError, match="9000x9000 pixels"):
        restyle(frames=folder, style="ink", out=tmp_path / "o", weights=weights)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "I;16"])
def test_pictures_of_other_kinds(weights: Path, tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    if mode == "I;16":
        Image.fromarray(np.full((20, 30), 40000, np.uint16)).save(folder / "a.png")
    else:
        Image.fromarray(texture(20, 30)).convert(mode).save(folder / "a.png")
    restyle(frames=folder, style="ink", out=tmp_path / "o", weights=weights, strength=0.0, device="cpu")
    found = np.asarray(Image.open(tmp_path / "o" / "a.png"))
    assert found.shape == (20, 30, 3)
    if mode == "I;16":
        assert abs(int(found[0, 0, 0]) - 155) <= 1

"""`mirage restyle`: pictures and videos in, pictures and videos out."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from mirage_plugin.errors import ConfigError, DataError, OutputError, UnknownStyleError, WeightsError
from mirage_plugin.model.checkpoint import save_network
from mirage_plugin.model.network import MirageNet
from mirage_plugin.model.reference import read_picture as read_reference
from mirage_plugin.restyle import Redrawer, estimate_motion, open_recording, restyle
from mirage_plugin.restyle import read_picture as read_frame
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


def test_nothing_is_written_over_its_source(shots: Path, weights: Path) -> None:
    one = min(shots.glob("*.png"))
    before = one.read_bytes()
    for out in (shots, one):
        with pytest.raises(ConfigError, match="replace the source"):
            restyle(frames=one, style="ink", out=out, weights=weights)
    assert one.read_bytes() == before


def test_frames_are_in_the_order_of_their_numbers_and_no_two_have_one_name(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for name in ("frame10.png", "frame2.png", "frame1.png"):
        Image.new("RGB", (32, 24)).save(folder / name)
    (folder / "._frame1.png").write_bytes(b"what a Mac leaves beside it")
    (folder / "frame3.png").mkdir()
    assert [frame.name for frame in open_recording(folder).frames] == ["frame1", "frame2", "frame10"]
    Image.new("RGB", (32, 24)).save(folder / "frame2.jpg")
    with pytest.raises(DataError, match="'frame2' with more than one suffix"):
        restyle(frames=folder, style="ink", out=tmp_path / "o", weights=weights)


def test_one_picture_becomes_one_picture(shots: Path, weights: Path, tmp_path: Path) -> None:
    one = min(shots.glob("*.png"))
    restyle(frames=one, style="ink", out=tmp_path / "new" / "inked.png", weights=weights)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["inked.png"]
    with pytest.raises(ConfigError, match="one picture"):
        restyle(frames=shots, style="ink", out=tmp_path / "many.png", weights=weights)


def test_a_video_has_one_size(shots: Path, weights: Path, tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(shots / "zz.png")
    with pytest.raises(DataError, match="frame zz has 200x100"):
        restyle(frames=shots, style="ink", out=tmp_path / "o.mp4", weights=weights)
    assert not list(tmp_path.glob("*.mp4"))
    assert not list(tmp_path.glob(".*"))


def test_deep_grey_is_read_in_full(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(8, 0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp // 257 // 2).astype(np.uint16)).save(tmp_path / "dark.png")
    for read in (lambda path: read_frame(path)[0], read_reference):
        assert abs(read(tmp_path / "deep.png")[0, :, 0].astype(int) - ramp[0] // 257).max() <= 1
        assert read(tmp_path / "dark.png").max() <= 1


def test_a_turned_video_is_upright(weights: Path, tmp_path: Path) -> None:
    """Phones write how they were held beside the frames."""
    with av.open(str(tmp_path / "v.mp4"), "w") as made:
        stream = made.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[:, :16] = 255  # the left
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")), *stream.encode()]:
            made.mux(packet)
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    # The matrix of the track's header: a quarter turn clockwise when shown.
    at = data.index(b"tkhd") + 4 + 40
    turn = (0, 1 << 16, 0, -(1 << 16) & 0xFFFFFFFF, 0, 0, 32 << 16, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9I", *turn)
    (tmp_path / "turned.mp4").write_bytes(data)
    (upright,) = (frame.pixels for frame in open_recording(tmp_path / "turned.mp4").frames)
    assert upright.shape == (64, 32, 3)
    assert upright[:12].mean() > 200  # what was on the left is on top
    assert upright[20:].mean() < 50


@pytest.mark.parametrize(
    ("source", "of", "suffix", "codec"),
    [
        ("v.mp4", "aac", ".mp4", "aac"), ("v.mp4", "aac", ".webm", "opus"),
        ("v.mov", "pcm_s16le", ".mkv", "pcm_s16le"), ("v.mov", "pcm_s16le", ".mp4", "aac"),
        ("v.mkv", "libopus", ".mov", "aac"), ("v.avi", "libmp3lame", ".m4v", "aac"),
    ],
)  # fmt: skip
def test_a_video_keeps_its_sound(
    source: str, of: str, suffix: str, codec: str, weights: Path, tmp_path: Path
) -> None:
    with av.open(str(tmp_path / source), "w") as made:
        picture, sound = made.add_stream("libx264", rate=25), made.add_stream(of, rate=48000)
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuv420p"
        for i in range(10):
            shade = np.full((64, 96, 3), 20 * i, np.uint8)
            made.mux(picture.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        made.mux(picture.encode())
        tone = np.sin(np.arange(24000) / 48000 * 440 * 2 * np.pi)[None]
        frame = av.AudioFrame.from_ndarray((30000 * tone).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        made.mux([*sound.encode(frame), *sound.encode()])
    out = tmp_path / f"o{suffix}"
    restyle(frames=tmp_path / source, style="ink", out=out, weights=weights, device="cpu")
    assert len(decode(out)) == 10
    with av.open(str(out)) as container:
        (stream,) = container.streams.audio
        to_floats = av.AudioResampler("fltp")
        heard = np.concatenate([p.to_ndarray()[0] for f in container.decode(stream) for p in to_floats.resample(f)])
        assert stream.codec_context.name.removeprefix("lib") == codec
        # No longer than the picture, 0.4 s, but for the last packet.
        assert 0.35 < len(heard) / stream.rate < 0.5
        assert 0.5 < np.abs(heard[len(heard) // 4 : len(heard) // 2]).max() < 1.1


def film(path: Path, pictures: list[Pixels], seconds: list[float], **tags: int) -> None:
    """A video of pictures of one size, each from its second on."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "4"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for picture, second in zip(pictures, seconds, strict=True):
            whole = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = whole.reformat(format="yuv420p", dst_colorspace="itu709")
            frame.pts, frame.time_base = round(1000 * second), Fraction(1, 1000)
            made.mux(stream.encode(frame))
        made.mux(stream.encode())


def test_frames_of_a_video_keep_their_times(weights: Path, tmp_path: Path) -> None:
    """Recorders of screens write a frame when there is one: made even, it would run away from its sound."""
    seconds = [0.0, 0.1, 0.2, 0.22, 0.24, 0.9, 1.0]
    film(tmp_path / "v.mp4", [texture(48, 64, i) for i in range(7)], seconds)
    for suffix in (".mp4", ".webm", ".mkv"):
        restyle(frames=tmp_path / "v.mp4", style="ink", out=tmp_path / f"o{suffix}", weights=weights, strength=0.0)
        with av.open(str(tmp_path / f"o{suffix}")) as made:
            times = [float(frame.pts * frame.time_base) for frame in made.decode(video=0)]
        assert np.allclose(times, seconds, atol=0.002), suffix


def test_colours_of_large_videos_are_those_that_players_show(weights: Path, tmp_path: Path) -> None:
    pure = np.zeros((720, 1280, 3), np.uint8)
    pure[:, :400], pure[:, 400:800], pure[:, 800:] = (255, 0, 0), (0, 255, 0), (0, 160, 90)
    film(tmp_path / "v.mp4", [pure], [0.0])  # says nothing of its colours, as many do not
    restyle(frames=tmp_path / "v.mp4", style="ink", out=tmp_path / "o.mp4", weights=weights, strength=0.0)
    with av.open(str(tmp_path / "o.mp4")) as made:
        frame = next(made.decode(video=0))
        assert frame.colorspace == 1, "it says BT.709"
        drawn = frame.to_ndarray(format="rgb24", src_colorspace="itu709").astype(int)
    for x in (200, 600, 1100):
        assert np.abs(drawn[300, x] - pure[300, x]).max() <= 4


def test_wide_pixels_stay_wide(weights: Path, tmp_path: Path) -> None:
    film(tmp_path / "v.mp4", [texture(48, 64)], [0.0], sample_aspect_ratio=Fraction(4, 3))
    restyle(frames=tmp_path / "v.mp4", style="ink", out=tmp_path / "o.mp4", weights=weights, strength=0.0)
    with av.open(str(tmp_path / "o.mp4")) as made:
        assert made.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_transparency_is_kept_where_it_can_be(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sprite = np.dstack([texture(32, 48), np.full((32, 48), 255, np.uint8)])
    sprite[8:20, 8:20, 3], sprite[20:, 30:, 3] = 0, 128
    Image.fromarray(sprite).save(tmp_path / "sprite.png")
    for name in ("o.png", "o.webp"):
        restyle(frames=tmp_path / "sprite.png", style="ink", out=tmp_path / name, weights=weights)
        assert np.array_equal(np.asarray(Image.open(tmp_path / name))[..., 3], sprite[..., 3])
    assert "transparent" not in capsys.readouterr().out
    restyle(frames=tmp_path / "sprite.png", style="ink", out=tmp_path / "o.jpg", weights=weights)
    assert "transparent in places" in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "o.jpg")).shape == (32, 48, 3)


def test_stills_know_nothing_of_each_other(shots: Path, weights: Path, tmp_path: Path) -> None:
    restyle(frames=shots, style="ink", out=tmp_path / "all", weights=weights, stills=True)
    last = max(shots.glob("*.png"))
    restyle(frames=last, style="ink", out=tmp_path / "one", weights=weights)
    restyle(frames=shots, style="ink", out=tmp_path / "film", weights=weights)
    alone, among, played = ((tmp_path / folder / last.name).read_bytes() for folder in ("one", "all", "film"))
    assert alone == among != played


def test_motion_that_leads_to_another_colour_is_not_believed() -> None:
    black, white = (np.full((90, 160, 3), value, np.uint8) for value in (0, 255))
    assert estimate_motion(white, black)[1].mean() < 0.1
    assert estimate_motion(white, white)[1].mean() > 0.9


def test_a_film_of_pictures_has_their_rate(shots: Path, weights: Path, tmp_path: Path) -> None:
    restyle(frames=shots, style="ink", out=tmp_path / "o.mp4", weights=weights, fps=60)
    with av.open(str(tmp_path / "o.mp4")) as made:
        times = [float(frame.pts * frame.time_base) for frame in made.decode(video=0)]
    assert np.allclose(times, [0, 1 / 60, 2 / 60], atol=0.001)
    with pytest.raises(ConfigError, match="--fps"):
        restyle(frames=shots, style="ink", out=tmp_path / "o", weights=weights, fps=60)
    for fps in (0.0, float("nan")):
        with pytest.raises(ConfigError, match="--fps"):
            restyle(frames=shots, style="ink", out=tmp_path / "p.mp4", weights=weights, fps=fps)


def test_what_is_not_written_is_said_before_anything_is_done(shots: Path, weights: Path, tmp_path: Path) -> None:
    for name in ("o.wmv", "o.TIF", "o.gif"):
        with pytest.raises(ConfigError, match="is not written"):
            restyle(frames=shots, style="ink", out=tmp_path / name, weights=weights)
    with pytest.raises(OutputError):
        restyle(frames=shots, style="ink", out=tmp_path / "out", weights=weights, json=shots)
    assert not (tmp_path / "out").exists()


def test_a_wide_screen_s_picture_keeps_its_looks(tmp_path: Path) -> None:
    """What says that its numbers are those of another space is brought to sRGB."""
    lab = ImageCms.createProfile("LAB")
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    picture = Image.fromarray(texture(16, 16))
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "srgb.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    picture.save(tmp_path / "odd.png", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    picture.save(tmp_path / "none.png", icc_profile=b"no profile at all")
    picture.save(tmp_path / "xyz.png", icc_profile=xyz)
    plain = read_frame(tmp_path / "plain.png")[0]
    for name in ("srgb", "odd", "none"):
        assert np.array_equal(read_frame(tmp_path / f"{name}.png")[0], plain)
    assert read_frame(tmp_path / "xyz.png")[0].shape == plain.shape

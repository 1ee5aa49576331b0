"""A style from pictures: what point of the style space would draw a picture like these.

The answer is an ordinary `Style`, so what was read off a painting can be looked at, edited and saved like a preset. The
encoder serves every tier. It is trained (`mirage train --reference`) on the truths that networks are trained with:
pictures of any scene in a known style.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor, nn
from torch.nn import functional

from mirage_plugin.config import weights_directory
from mirage_plugin.errors import DataError, WeightsError
from mirage_plugin.model.chart import chart
from mirage_plugin.model.checkpoint import load_tensors
from mirage_plugin.model.network import CELL, pixels_to_cells, space_to_depth
from mirage_plugin.styles.parameters import VECTOR_SIZE, Style, parameter_range

__all__ = ["ReferenceEncoder", "load_reference", "read_picture", "reference_loss", "style_of"]

MAX_PICTURES = 8
# Pictures are looked at in windows as large as those that the encoder was trained on, at two scales. A whole picture at
# once is read worse: what its styles then draw of 140 other unseen scenes is 20.7 dB from the truth, in windows 21.2.
_SHORT_SIDES = (128, 192)
_WINDOW = (128, 160)
_WIDTHS = (96, 160)


class _Mix(nn.Module):
    """`x + W2 silu(W1 norm(depthwise5x5(x)))`, x [N, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x)).permute(0, 2, 3, 1)
        out: Tensor = x + self.project(functional.silu(self.expand(y))).permute(0, 3, 1, 2)
        return out


class ReferenceEncoder(nn.Module):
    """Pictures v [N, 3, H, W] in [-1, 1], sides multiples of 16 -> the parameters of their styles in [-1, 1],
    [N, VECTOR_SIZE]."""

    def __init__(self) -> None:
        super().__init__()
        c0, c1 = _WIDTHS
        self.stem = nn.Linear(CELL * CELL * 3, c0)
        self.fine = nn.Sequential(_Mix(c0), _Mix(c0))
        self.down = nn.Linear(4 * c0, c1)
        self.coarse = nn.Sequential(_Mix(c1), _Mix(c1))
        known = 3 * c0 + 3 * c1
        # Without the norm what is found grows from block to block, and the layer behind it falls silent for good.
        self.head = nn.Sequential(nn.LayerNorm(known), nn.Linear(known, 320), nn.SiLU(), nn.Linear(320, VECTOR_SIZE))

    def forward(self, v: Tensor) -> Tensor:
        """See the class."""
        fine = self.fine(self.stem(pixels_to_cells(v)).permute(0, 3, 1, 2))
        coarse = self.coarse(self.down(space_to_depth(fine.permute(0, 2, 3, 1).contiguous())).permute(0, 3, 1, 2))
        # Where a thing stands says nothing of the style: what there is on average, at most, and how much it varies.
        found = [
            part
            for x in (fine.float(), coarse.float())
            for part in (x.mean((2, 3)), x.amax((2, 3)), x.std((2, 3)))
        ]
        out: Tensor = torch.tanh(self.head(torch.cat(found, 1)).float())
        return out


def reference_loss(encoder: ReferenceEncoder, pictures: Tensor, parameters: Tensor) -> Tensor:
    """Distance of the styles read off pictures [N, 3, H, W] to theirs [N, VECTOR_SIZE].

    By what they make of the chart, which is what will be seen, as the logarithm of a mean square, as PSNR is: a halved
    error counts alike in every style. And by the parameters, for those that the chart does not show.
    """
    found = encoder(pictures)
    low, high = (torch.from_numpy(bound).to(found.device) for bound in parameter_range())

    def drawn(scaled: Tensor) -> Tensor:
        return chart(low + (high - low) * (scaled.float() + 1) / 2)

    with torch.no_grad():
        wanted = drawn(parameters)
    apart = ((drawn(found) - wanted).square().mean(1) + 2e-4).log().mean()
    # A tenth: gradients are cut at a norm of 1, which is for accidents.
    loss: Tensor = 0.1 * (apart + (found - parameters).abs().mean())
    return loss


def load_reference(path: Path | None = None) -> ReferenceEncoder:
    """Load the encoder that ships, or another; raises `WeightsError` where it is missing or damaged."""
    encoder, path = ReferenceEncoder(), path or weights_directory() / "reference.safetensors"
    tensors = load_tensors("reference", path)
    try:
        encoder.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise WeightsError.unreadable(path, "its tensors do not fit this version's encoder") from error
    return encoder.eval().requires_grad_(False)


def rgb_of(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture of any kind as uint8 [H, W, 3]; grey of 16 bits, which PIL itself would cut off at 255, in full."""
    if picture.mode.startswith(("I", "F")):
        deep = np.asarray(picture, np.float64)
        # Whole numbers of 32 bits are what PIL makes of some files of 16; fractions go to 1, or to 255.
        top = 65535.0 if picture.mode.startswith("I") else 1.0 if deep.max(initial=0.0) <= 1 else 255.0
        grey = (np.nan_to_num(deep / top).clip(0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in ("RGB", "CMYK"):
        # A wide screen's pictures (Display P3) look pale where their numbers are taken for sRGB.
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(given):
                srgb = ImageCms.createProfile("sRGB")
                picture = ImageCms.profileToProfile(picture, given, srgb, outputMode="RGB") or picture
    return np.array(picture.convert("RGB"))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a PNG or JPEG as uint8 RGB [H, W, 3]; raises `DataError` where it is none, or enormous."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as picture:
                return rgb_of(picture)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"{path} has too many pixels to be read whole: make it smaller first") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a picture: {error}") from error


def _windows(picture: NDArray[np.uint8], short_side: int) -> Iterator[Tensor]:
    """Cut a picture uint8 [H, W, 3] into windows, once its short side has been scaled: v [1, 3, h, w] each."""
    scale = short_side / min(picture.shape[:2])
    height, width = (max(32, min(1024, round(side * scale / 16) * 16)) for side in picture.shape[:2])
    shrinks = picture.shape[0] > height
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    v = torch.from_numpy(np.ascontiguousarray(small)).permute(2, 0, 1)[None].float() * (2 / 255) - 1

    def starts(length: int, window: int) -> list[int]:
        count, free = max(1, round(length / window)), max(0, length - window)
        return [free * i // max(1, count - 1) for i in range(count)]

    for top, left in itertools.product(starts(height, _WINDOW[0]), starts(width, _WINDOW[1])):
        yield v[..., top : top + _WINDOW[0], left : left + _WINDOW[1]]


@torch.inference_mode()
def style_of(pictures: Sequence[NDArray[np.uint8]], name: str, encoder: ReferenceEncoder | None = None) -> Style:
    """The style that would draw one to eight pictures uint8 [H, W, 3]: the mean of what each says.

    Raises `DataError` for another number of them.
    """
    if not 1 <= len(pictures) <= MAX_PICTURES:
        raise DataError(f"a style is read off one to {MAX_PICTURES} pictures, not {len(pictures)}")
    encoder = encoder or load_reference()
    found = []
    for picture in pictures:
        # Each scale counts alike, whatever the number of its windows.
        looks = [torch.cat([encoder(w) for w in _windows(picture, side)]).mean(0) for side in _SHORT_SIDES]
        found.append(torch.stack(looks).mean(0))
    low, high = parameter_range()
    scaled: NDArray[Any] = torch.stack(found).mean(0).clamp(-1, 1).numpy()
    return Style(name, "custom", (low + (high - low) * (scaled + 1) / 2).astype(np.float32))

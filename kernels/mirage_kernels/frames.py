# mypy: disable-error-code="no-untyped-def"
"""The pixels of engines: what formats there are, and how one pixel of each is read and written.

Shared by the op that reads a frame (`pixels`) and the op that writes one (`compose`). Values go by three
names:

- *raw*: what stands in memory, as a number: 0..255, 0..1023, or any half float;
- *unit*: display-encoded colour in [0, 1]; a linear frame is encoded with the sRGB curve, a half float is
bounded
  to [0, 1] and its NaN is 0, so that nothing an engine writes can enter the network unbounded;
- *v* = 2 * unit - 1, the network's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mirage_kernels.launch import KernelError, jit, require, tl

__all__ = [
    "FORMATS",
    "FrameLayout",
    "PixelFormat",
    "frame_of",
    "load_rgb",
    "mix32",
    "pack_frame",
    "srgb_decode",
    "srgb_encode",
    "typed_view",
    "unit_rgb",
    "unpack_frame",
]

PixelFormat = Literal["rgba8", "bgra8", "rgb8", "rgb10a2", "rgba16f"]
FORMATS: tuple[PixelFormat, ...] = get_args(PixelFormat)
_BYTES = {"rgba8": 4, "bgra8": 4, "rgb8": 3, "rgb10a2": 4, "rgba16f": 8}
_ALIGN = {"rgba8": 4, "bgra8": 4, "rgb8": 1, "rgb10a2": 4, "rgba16f": 8}
_SCALE = {"rgba8": 255, "bgra8": 255, "rgb8": 255, "rgb10a2": 1023, "rgba16f": 1}


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """How a frame lies in memory: `height` rows of `width` pixels, `pitch_bytes` from row to row.

    `flipped`: the first row in memory is the lowest on the screen (OpenGL). `linear`: values are linear
    light; otherwise they are encoded as a display wants them (sRGB). Raises `KernelError` for what cannot be.
    """

    format: PixelFormat
    height: int
    width: int
    pitch_bytes: int
    flipped: bool = False
    linear: bool = False

    def __post_init__(self) -> None:
        """Validate every field."""
        require(self.format in FORMATS, f"pixel format {self.format!r}: there are {', '.join(FORMATS)}")
        require(self.height > 0 and self.width > 0, f"a frame of {self.width}x{self.height} pixels")
        least, align = self.width * self.bytes_per_pixel, _ALIGN[self.format]
        if self.pitch_bytes < least or self.pitch_bytes % align:
            raise KernelError(
                f"a pitch of {self.pitch_bytes} bytes: {self.width} pixels of {self.format} need at "
                f"least {least}, "
                f"in multiples of {align}"
            )
        require(self.height * self.pitch_bytes < 2**31, "a frame of 2 GiB or more: a kernel indexes 2**31 - 1")

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes from a pixel to its right neighbour."""
        return _BYTES[self.format]

    @property
    def scale(self) -> int:
        """The raw value that means one."""
        return _SCALE[self.format]

    @property
    def size_bytes(self) -> int:
        """Bytes from the first pixel in memory to the end of the last."""
        return self.pitch_bytes * (self.height - 1) + self.width * self.bytes_per_pixel

    @property
    def kind(self) -> int:
        """What a kernel distinguishes: 0 four bytes, 1 three bytes, 2 ten-bit fields, 3 half floats."""
        return {"rgba8": 0, "bgra8": 0, "rgb8": 1, "rgb10a2": 2, "rgba16f": 3}[self.format]

    @property
    def order(self) -> tuple[int, int, int]:
        """Where red, green and blue stand among a pixel's elements."""
        return (2, 1, 0) if self.format == "bgra8" else (0, 1, 2)


def frame_of(frames: Tensor, layout: FrameLayout) -> Tensor:
    """Check uint8 [N, size_bytes or more] against a layout and return it.

    Frames may lie any distance apart; a frame's own bytes are contiguous and start where the format needs.
    """
    require(frames.dtype == torch.uint8, f"frames are {frames.dtype}; a frame is uint8 [N, size_bytes]")
    require(frames.dim() == 2, f"frames have shape {list(frames.shape)}; they must be uint8 [N, size_bytes]")
    if frames.shape[1] < layout.size_bytes:
        raise KernelError(f"a frame has {frames.shape[1]} bytes; its layout needs {layout.size_bytes}")
    require(frames.stride(1) == 1, "the bytes of a frame must be contiguous")
    align = _ALIGN[layout.format]
    start = 0 if frames.device.type == "meta" else frames.data_ptr()
    if start % align or (frames.shape[0] > 1 and frames.stride(0) % align):
        raise KernelError(f"a {layout.format} frame must start on a multiple of {align} bytes")
    return frames


def typed_view(frames: Tensor, layout: FrameLayout, words: bool = False) -> tuple[Tensor, int, int, int]:
    """The frame as a kernel loads it: (tensor of elements, frame stride, first row, pitch), in elements.

    Elements are bytes (or, with `words`, the 32-bit pixels of a four-byte format), 32-bit words of ten-bit
    fields, or half floats. A flipped frame starts at its last row with a negative pitch, so that kernels know
    nothing of orientation.
    """
    dtypes = {0: torch.int32 if words else torch.uint8, 1: torch.uint8, 2: torch.int32, 3: torch.float16}
    dtype = dtypes[layout.kind]
    n, size = frames.shape[0], dtype.itemsize
    # The stride of a batch of one is anything; a view as wider elements wants it a multiple of them.
    stride = frames.stride(0) if n > 1 else layout.size_bytes
    bytes_ = frames.as_strided((n, layout.size_bytes), (stride, 1), frames.storage_offset())
    elements = bytes_ if size == 1 else bytes_.view(dtype)
    pitch = layout.pitch_bytes // size
    first = (layout.height - 1) * pitch if layout.flipped else 0
    return elements, stride // size, first, -pitch if layout.flipped else pitch


def srgb_encode(linear: Tensor) -> Tensor:
    """Linear light in [0, 1] -> display-encoded, IEC 61966-2-1."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(1e-8).pow(1 / 2.4) - 0.055)


def srgb_decode(encoded: Tensor) -> Tensor:
    """Undo `srgb_encode`."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded.clamp_min(0) + 0.055) / 1.055).pow(2.4))


def unpack_frame(
    frames: Tensor, layout: FrameLayout, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """Raw values, upright: uint8 [N, size_bytes] -> fp32 [N, H, W, 4] as (r, g, b, a); rgb8 has alpha 0.

    Of the `rows` and `columns` (int64) that are asked for, counted from the upper left; else of all.
    """
    frames = frame_of(frames, layout)
    n, size = frames.shape[0], layout.bytes_per_pixel
    shape, strides = (n, layout.height, layout.width, size), (frames.stride(0), layout.pitch_bytes, size, 1)
    pixels = frames.as_strided(shape, strides)
    if layout.flipped and rows is None:
        pixels = pixels.flip(1)
    if rows is not None:
        pixels = pixels[:, layout.height - 1 - rows if layout.flipped else rows]
    rows = (pixels if columns is None else pixels[:, :, columns]).contiguous()
    if layout.format == "rgb10a2":
        word = rows.contiguous().view(torch.int32).long() & 0xFFFFFFFF
        return torch.cat([word & 1023, word >> 10 & 1023, word >> 20 & 1023, word >> 30], -1).float()
    if layout.format == "rgba16f":
        return rows.contiguous().view(torch.float16).float()
    r, g, b = layout.order
    alpha = rows[..., 3] if size == 4 else torch.zeros_like(rows[..., 0])
    return torch.stack([rows[..., r], rows[..., g], rows[..., b], alpha], -1).float()


def unit_rgb(raw: Tensor, layout: FrameLayout) -> Tensor:
    """Raw [N, H, W, 4] -> unit colour fp32 [N, H, W, 3]."""
    unit = torch.nan_to_num(raw[..., :3], nan=0.0).clamp(0, layout.scale) / layout.scale
    return srgb_encode(unit) if layout.linear else unit


def pack_frame(raw: Tensor, layout: FrameLayout, into: Tensor) -> Tensor:
    """Write raw values [N, H, W, 4], whole numbers where the format has them, into uint8 [N, size_bytes]."""
    if layout.format == "rgb10a2":
        fields = raw.long()
        word = fields[..., 0] | fields[..., 1] << 10 | fields[..., 2] << 20 | fields[..., 3] << 30
        rows = (word & 0xFFFFFFFF).to(torch.uint32).view(torch.int32).unsqueeze(-1).view(torch.uint8)
    elif layout.format == "rgba16f":
        rows = raw.half().contiguous().view(torch.uint8)
    else:
        r, g, b = layout.order
        places = [raw[..., (r, g, b).index(i)] for i in range(3)]
        rows = torch.stack([*places, raw[..., 3]][: layout.bytes_per_pixel], -1).to(torch.uint8)
    rows = rows.reshape(raw.shape[0], layout.height, layout.width * layout.bytes_per_pixel)
    shape = (raw.shape[0], layout.height, rows.shape[-1])
    target = into.as_strided(shape, (into.stride(0), layout.pitch_bytes, 1), into.storage_offset())
    target.copy_(rows.flip(1) if layout.flipped else rows)
    return into


@jit
def mix32(x):
    """The 32-bit finaliser `lowbias32` (C. Wellons) on uint32."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@jit
def encode(u):
    """`srgb_encode` of values in [0, 1]."""
    curve = 1.055 * tl.exp2(tl.log2(tl.maximum(u, 1e-8)) * (1.0 / 2.4)) - 0.055
    return tl.where(u <= 0.0031308, u * 12.92, curve)


@jit
def decode(u):
    """`srgb_decode` of values in [0, 1]."""
    curve = tl.exp2(tl.log2((u + 0.055) * (1.0 / 1.055)) * 2.4)
    return tl.where(u <= 0.04045, u * (1.0 / 12.92), curve)


@jit
def raw_to_unit(raw, KIND: tl.constexpr, LINEAR: tl.constexpr):
    """Raw -> unit, for any shape of raw values."""
    if KIND == 3:
        u = tl.where(raw == raw, raw, 0.0)
        u = tl.minimum(tl.maximum(u, 0.0), 1.0)
    elif KIND == 2:
        u = raw * (1.0 / 1023.0)
    else:
        u = raw * (1.0 / 255.0)
    if LINEAR:
        u = encode(u)
    return u


@jit
def load_rgb(frame_ptr, row, x, mask, KIND: tl.constexpr, BGR: tl.constexpr):
    """Raw (r, g, b, alpha) of the pixels x [P] in the rows that start at elements row [P], fp32."""
    if KIND == 0:
        # One 32-bit load per pixel: frame_ptr is a pointer to words here, row counts words.
        word = tl.load(frame_ptr + row + x, mask=mask, other=0)
        c0 = (word & 255).to(tl.float32)
        g = ((word >> 8) & 255).to(tl.float32)
        c2 = ((word >> 16) & 255).to(tl.float32)
        a = ((word >> 24) & 255).to(tl.float32)
        if BGR:
            r, b = c2, c0
        else:
            r, b = c0, c2
    elif KIND == 1:
        at = frame_ptr + row + x * 3
        r = tl.load(at, mask=mask, other=0).to(tl.float32)
        g = tl.load(at + 1, mask=mask, other=0).to(tl.float32)
        b = tl.load(at + 2, mask=mask, other=0).to(tl.float32)
        a = tl.zeros_like(r)
    elif KIND == 2:
        word = tl.load(frame_ptr + row + x, mask=mask, other=0)
        r = (word & 1023).to(tl.float32)
        g = ((word >> 10) & 1023).to(tl.float32)
        b = ((word >> 20) & 1023).to(tl.float32)
        a = ((word >> 30) & 3).to(tl.float32)
    else:
        at = frame_ptr + row + x * 4
        r = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(at + 1, mask=mask, other=0.0).to(tl.float32)
        b = tl.load(at + 2, mask=mask, other=0.0).to(tl.float32)
        a = tl.load(at + 3, mask=mask, other=0.0).to(tl.float32)
    return r, g, b, a

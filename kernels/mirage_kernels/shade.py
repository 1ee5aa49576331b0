# mypy: disable-error-code="no-untyped-def"
"""shade: what a style makes of the surfaces that the network sees, as colour transforms on the cell grid.

The network says of each cell, in `BINS` readings that `compose` chooses between at full resolution by their colours,
what is to be seen there: its colour, what it is made of, how it is lit, which way it faces, how far away it is, whether
a line runs there. Those words know nothing of the style. `shade` then paints them as the style's program paints a truth
(`mirage_plugin.train.worlds.program.restyle`, stage for stage): it carries an affine map of the source's colour,
`colour -> T . (r, g, b, 1)`, through every stage of the program. Stages that are affine are carried exactly; the others
(bands, few colours, highlights) are replaced by the affine map that touches them at the cell's own colour. What
comes out is what `compose` takes: a change of v per cell and reading, to which the network's own correction is added.

Marks that are finer than a cell are added to the detail: what a style draws from the noise field (grain, strokes,
pooled pigment). The field has one value for 2x2 pixels, and all but grain is spread between them. Lines are finer
still: `compose` draws them at full resolution, with the `pens` that a cell gets here. Those that depth shows are drawn
as they are; those that only colours show, as much of them as the words say there is in the cell.

Floor: `WORDS` numbers of a cell in, 16 a reading, 192 and 8 out; about 700 operations a reading.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.compose import EDIT_CHANNELS, pack_edit, split_edit
from mirage_kernels.launch import FLOATS, Config, check, jit, launch, on_triton, recording, tl, wide

__all__ = [
    "BINS",
    "HEAD_CHANNELS",
    "KINDS",
    "STYLE_LAYOUT",
    "STYLE_NUMBERS",
    "SURFACE",
    "WORDS",
    "pack_head",
    "shade",
    "shade_reference",
    "shade_triton",
    "split_head",
    "style_offset",
]

BINS = 4
"""Readings of a cell."""
KINDS = 9
"""Kinds of material, by number: sky, ground, foliage, wall, object, creature, water, emissive, window."""
SURFACE = 29
"""Numbers of a reading, before their squashing: colour 3, kinds 9, sun 1, openness 1, lamp 3, which way up 1, facing 1,
nearness 1, elevation 1, cloud 1, line 1, texture's line 1, shine 1, keep 1, and 3 that its colour's are moved by to
those of the surface without its texture."""
KEEP = 25
"""Where `keep` stands among them."""
WORDS = BINS * SURFACE + BINS
"""Numbers of a cell: its readings one after another, then how much of the cell each holds for."""
MADE = BINS * 12 + 192
"""What the head itself adds to a cell's transforms and detail."""
HEAD_CHANNELS = MADE + WORDS
"""What the head says of a cell in all."""

STYLE_LAYOUT = (
    ("sun", 1), ("sun_colour", 3), ("ambient", 1), ("ambient_colour", 3), ("overhead", 1), ("headlight", 1),
    ("lamps", 1), ("windows", 1), ("window_colour", 3), ("emissive", 1), ("flatten", 1), ("cover", 1),
    ("cover_colour", 3), ("wet", 1), ("ground", 1), ("ground_colour", 3), ("foliage", 1), ("foliage_colour", 3),
    ("walls", 1), ("wall_colour", 3), ("objects", 1), ("object_colour", 3), ("sky", 1), ("sky_top", 3),
    ("sky_horizon", 3), ("clouds", 1), ("fog", 1), ("fog_colour", 3), ("bands", 1), ("band_count", 1), ("ink", 1),
    ("ink_width", 1), ("ink_detail", 1), ("ink_colour", 3), ("hatch", 1), ("wash", 1), ("grain", 1), ("glow", 1),
    ("glow_colour", 3), ("posterize", 1), ("pixels", 1), ("exposure", 1), ("contrast", 1), ("saturation", 1),
    ("temperature", 1), ("tone", 1), ("tone_dark", 3), ("tone_light", 3),
)  # fmt: skip
"""A style's parameters in natural units, in the order of the model's style space; a test holds the two together."""
STYLE_NUMBERS = sum(size for _, size in STYLE_LAYOUT)


def style_offset(name: str) -> int:
    """Where a parameter of a style begins among its numbers; `StopIteration` for one that is not in `STYLE_LAYOUT`."""
    place = next(i for i, (other, _) in enumerate(STYLE_LAYOUT) if other == name)
    return sum(size for _, size in STYLE_LAYOUT[:place])


# The light of the plain style, by which a surface's own colour is told from what a game shows of it.
PLAIN_SUN = (0.75, 0.7275, 0.675)
PLAIN_AMBIENT = (0.36, 0.38, 0.40)
PLAIN_LAMP = 0.5
PLAIN_GLOW = 0.9
DARKEST = 0.12
"""No light is taken to be less: a colour divided by next to nothing is noise."""
HELD = 0.6
"""How much of the evenness of a style's bands is painted. It takes a cell's colour for its pixels' own, which blurs
what the readings do not part: measured on 56 unseen scenes and styles, this share is nearer to the truth than all of
it, and sharper."""
COVERED = 0.48
"""How much brighter what lies on a surface is where that is brighter."""
RAMP = 0.06
"""Half the way from one of a few colours to the next, in steps: how bright a reading is is not known better than that,
and where it is on an edge it would be on either side from cell to cell and from frame to frame."""
SOFT_RAMP = 0.2
"""The same between bands, which are defined so: two of three bands are three times as bright as one, and a wall of
about that brightness would be blotched, and flicker (soft quantisation, Winnemoeller et al. 2006)."""
SCATTER, SCATTERED_SUN = 0.5, 0.4
"""What lies on a surface has this part of its sun from all around, where the sun is this: a dark stone in the sun and a
light one in shadow look alike, and snow on them would be twice as bright on one as on the other."""
DARK_SKY, SHOWN_SKY = 0.03, 0.25
"""A sky that a game shows darker than the first is left as it is, without fog; from the second on a style's own is
painted: what is all but black is space, a cave or a page as often, which no picture tells from a sky by night."""
_LUMA = (0.2126, 0.7152, 0.0722)
SPARSE = 0.2
"""Lines that colours show are drawn in full where the words say this much of a cell is line, however few there are."""


def steps_of(x: Tensor, ramp: float) -> Tensor:
    """The middles of the steps that x lies on, whole numbers apart, with a ramp of half length `ramp` between them."""
    edge = torch.floor(x + 0.5).clamp_min(1)
    return edge + ((x - edge) * (0.5 / ramp)).clamp(-0.5, 0.5)


def shade_reference(
    words: Tensor, detail: Tensor, matrices: Tensor, noise: Tensor, there: Tensor, style: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The definition of `shade`: (matrices [N, h, w, BINS * 12], detail [N, h, w, 192], anchors [N, h, w, BINS * 4],
    pens [N, h, w, 8]).

    All fp32. The anchor of a reading is its colour in v = 2 rgb - 1, and the share of the cell that it holds for. Pens
    are what `compose` draws lines with: how dark a line is and how bright it shines, then the ink's colour in v, and
    what shining adds to v.

    `words` [N, h, w, WORDS], `detail` [N, h, w, 192] and `matrices` [N, h, w, BINS * 12] from the network's head, the
    matrices per reading row-major 3x4; `noise` [N, 1, 4h, 4w]; `there` [N, h, w, 2] is -1 where lines are certain, in
    frames without depth how much of the cell those cover that colours show, of either kind (`line_shares`); `style`
    [N, STYLE_NUMBERS] as `STYLE_LAYOUT`.
    """
    n, h, w, _ = words.shape
    device = words.device
    every = wide(words).view(n, h * w, WORDS)
    # Numbers first, cells last: [SURFACE, N, cells * BINS].
    x = every[..., : BINS * SURFACE].reshape(n, h * w * BINS, SURFACE).permute(2, 0, 1).contiguous()
    p: dict[str, Tensor] = {}
    at = 0
    for name, size in STYLE_LAYOUT:
        p[name] = wide(style)[:, at : at + size].T.reshape(size, n, 1) if size > 1 else wide(style)[:, at, None]
        at += size

    def rgb(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device=device).view(3, 1, 1)

    def luma(t: Tensor) -> Tensor:
        """Of colours [..., 3, N, E]: [..., N, E]."""
        return _LUMA[0] * t[..., 0, :, :] + _LUMA[1] * t[..., 1, :, :] + _LUMA[2] * t[..., 2, :, :]

    def mix(a: Tensor, b: Tensor, amount: Tensor) -> Tensor:
        return a + amount * (b - a)

    kind = x[3 : 3 + KINDS].softmax(0)
    sky, ground, foliage, wall, thing, creature, water, emissive, window = kind
    said = torch.cat([x[:3], x[3 + KINDS : KEEP + 1], x[:3] + x[KEEP + 1 :]]).sigmoid()
    colour, sun, openness, lamp = said[:3], said[3], said[4], said[5:8] * 1.5
    up = said[8] * 2 - 1
    facing, near, elevation, cloud, line, texture_line, shine, keep = said[9:17]
    plane = said[17:]

    # The map so far: colour -> m . colour + c, m [3 in, 3 out, N, E] and c [3, N, E].
    identity = torch.eye(3, device=device)[:, :, None, None]

    def value() -> Tensor:
        """What the map makes of the reading's own colour: [3, N, E]."""
        reached: Tensor = (m * colour[:, None]).sum(0) + c
        return reached

    def covered(paint: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
        return m * (1 - amount), mix(c, paint, amount)

    def painted(paint: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
        """A paint of which the brightness below shows through."""
        return mix(m, paint * (1.3 * luma(m))[:, None], amount), mix(c, paint * (0.35 + 1.3 * luma(c)), amount)

    # From what the game shows to the surface's own colour, and its texture away from it.
    plain = sun * rgb(PLAIN_SUN) + openness * rgb(PLAIN_AMBIENT) + lamp * PLAIN_LAMP + emissive * PLAIN_GLOW
    unlit = torch.minimum(1 / plain.clamp_min(DARKEST), 1.5 / colour.clamp_min(1e-3))
    flat = p["flatten"] * (1 - window)
    m, c = identity * (unlit * (1 - flat)), unlit * plane * flat

    m, c = painted(p["ground_colour"], (ground + water) * p["ground"])
    m, c = painted(p["foliage_colour"], foliage * p["foliage"])
    m, c = painted(p["wall_colour"], wall * p["walls"])
    m, c = painted(p["object_colour"], (thing + creature) * p["objects"])
    # What lies on a surface clings to what is bright of its texture, and shows it: `fine` is how bright a pixel is.
    fine = unlit * rgb(_LUMA)
    clings = ((up - 0.35) * 2.2 + 0.8 * (fine * (colour - plane)).sum(0)).clamp(0, 1)
    lies = clings * (1 - creature - sky).clamp_min(0)
    on, paint = (lies * p["cover"] * 1.25).clamp(0, 1), p["cover_colour"]
    m, c = covered(paint * 0.94, on)
    m = m + (COVERED * on) * paint * fine[:, None]
    c = c - (COVERED * on) * paint * (fine * plane).sum(0)
    level = ((up - 0.7) * 4).clamp(0, 1) * (1 - sky) * p["wet"]

    hemisphere = openness * (1 + p["overhead"] * (0.6 * up.clamp_min(-0.5) - 0.45))
    around = hemisphere * p["ambient"] + facing * p["headlight"] * 0.5
    direct, lamps = sun * p["sun"], lamp * p["lamps"]
    whole = (0.5 * p["sun"] + 0.8 * p["ambient"] + 0.35 * p["headlight"] + 0.15 * p["lamps"]) / 0.77
    was = (sun * 0.75 + openness * 0.4 + luma(lamp) * PLAIN_LAMP).clamp_min(0.02)
    now = (direct + around + luma(lamps)).clamp_min(0.02)
    scattered = mix(direct, SCATTERED_SUN * p["sun"], SCATTER * on)
    light = scattered * p["sun_colour"] + around * p["ambient_colour"] + lamps
    light = light * ((whole * was / now).clamp(0.05, 20).sqrt() * (1 - 0.45 * level))
    m, c = m * light, c * light

    # A band holds its brightness and lets the hue through.
    here = value().detach()
    bright = luma(here).clamp_min(0.02)
    steps = p["band_count"].clamp_min(1)
    stepped = steps_of(bright * steps, SOFT_RAMP) / steps
    hue, rate = here / bright, p["bands"] * stepped / bright
    held = 1 - p["bands"] + rate
    rate = rate * HELD
    m, c = m * held - hue * (rate * luma(m))[:, None], c * held - hue * (rate * (luma(c) - bright))

    glow = unlit * (emissive * p["emissive"] * 0.9)
    m = m + identity * glow
    lit = (window * p["windows"]).clamp(0, 1)
    through = (2.2 * torch.tensor(_LUMA, device=device))[:, None, None, None] * unlit[:, None] * p["window_colour"]
    m, c = mix(m, through, lit), mix(c, 0.5 * p["window_colour"], lit)
    m, c = covered(p["sky_horizon"], level * (1 - facing).square() * 0.85)
    above = mix(mix(p["sky_horizon"], p["sky_top"], elevation), p["sky_horizon"] * 0.65 + 0.35, cloud * p["clouds"])
    shown = ((luma(colour) - DARK_SKY) * (1 / (SHOWN_SKY - DARK_SKY))).clamp(0, 1)
    painted_sky = p["sky"] * shown
    m, c = mix(m, identity * (1 - painted_sky), sky), mix(c, above * painted_sky, sky)
    density = 0.0025 * torch.exp(p["fog"] * 3.9) * (p["fog"] > 0.01)
    depth = (4 / near.clamp_min(1e-3) - 4).clamp(0, 400)
    m, c = covered(p["fog_colour"], (1 - torch.exp(-depth * density)) * (1 - sky * (1 - 0.75 * shown)))

    # The grade; highlights roll off, and what is out of range stays at its end.
    grade = (1 - 0.35 * p["wash"] * (1 - p["ink"]) * line) * torch.exp2(p["exposure"])
    grade = grade * (1 + rgb((0.12, 0.0, -0.14)) * p["temperature"])
    m, c = m * grade, c * grade
    here = value().detach()
    over = torch.tanh((here - 0.8).clamp_min(0) / 0.2)
    slope = (1 - over.square()) * p["contrast"]
    rolled = torch.where(here > 0.8, 0.8 + 0.2 * over, here)
    m, c = m * slope, c * slope + (rolled * p["contrast"] - here * slope) + (0.45 - 0.45 * p["contrast"])
    m, c = mix(luma(m)[:, None], m, p["saturation"]), mix(luma(c), c, p["saturation"])
    here = value().detach()
    out = (here < 0) | (here > 1)
    m, c = torch.where(out, 0.0, m), torch.where(out, here.clamp(0, 1), c)
    duo = p["tone_light"] - p["tone_dark"]
    m, c = mix(m, duo * luma(m)[:, None], p["tone"]), mix(c, p["tone_dark"] + duo * luma(c), p["tone"])
    here = value().detach()
    m, c = covered(steps_of(here * 5, RAMP) / 5, p["posterize"] * 0.9)

    unmarked = value()
    # Lines of shapes are marks; those of textures stay with the readings.
    m, c = covered(p["ink_colour"], (texture_line * p["ink_detail"] * p["ink"] * 1.1).clamp(0, 1))
    m, c = mix(m, identity, keep), c * (1 - keep)

    # With v = 2 colour - 1, as a change of v: [3 out, 4, N, cells * BINS].
    change = torch.cat([(m - identity).transpose(0, 1), (m.sum(0) + 2 * c - 1)[:, None]], 1)
    shaded = wide(matrices) + change.permute(2, 3, 0, 1).reshape(n, h, w, BINS * 12)

    # Marks of each cell: [N, cells, 64, 3].
    share = every[..., BINS * SURFACE :].softmax(-1)[..., None]
    seen = (unmarked.permute(1, 2, 0).reshape(n, h * w, BINS, 3) * share).sum(-2)[:, :, None]
    kept = (keep.reshape(n, h * w, BINS, 1) * share).sum(-2)[:, :, None]

    def cells(field: Tensor) -> Tensor:
        """A field of pixels [N, 1, 8h, 8w] by cells: [N, cells, 64, 1]."""
        return field.view(n, h, 8, w, 8).transpose(2, 3).reshape(n, h * w, 64, 1)

    def spread(field: Tensor) -> Tensor:
        return cells(functional.interpolate(field, scale_factor=2, mode="bilinear", align_corners=False))

    field = wide(noise)
    stroke = sum((torch.roll(field, (k, -k), (2, 3)) for k in range(-2, 3)), torch.zeros_like(field)) / 5**0.5
    pooled = functional.avg_pool2d(functional.pad(field, (2, 2, 2, 2), mode="replicate"), 5, 1) * 5
    hatch, wash, grain = (p[name][:, None, None] for name in ("hatch", "wash", "grain"))
    dark = (0.75 - (seen * torch.tensor(_LUMA, device=device)).sum(-1, keepdim=True)).clamp(0, 1)
    strokes = torch.sigmoid((spread(stroke) + 3.2 * dark - 1.7) * 5) * (dark > 0.02)
    ink_colour, glow_colour = (p[name].permute(1, 2, 0)[:, None] for name in ("ink_colour", "glow_colour"))
    # Where paper is white no pigment shows.
    marks = wash * 0.13 * spread(pooled) * seen * (4 - 4 * seen).clamp(0, 1)
    marks = marks + hatch * 0.75 * strokes * (ink_colour - seen - marks)
    # Grain alone is of 2x2 pixels, in the truth as well.
    coarse = functional.interpolate(field, scale_factor=2, mode="nearest")
    marks = marks + grain * cells(coarse) * (0.11 * seen + 0.03)
    marks = marks * (2 * (1 - kept))
    anchors = torch.cat([(colour * 2 - 1).permute(1, 2, 0).reshape(n, h * w, BINS, 3), share], -1)

    # Lines that only colours show are drawn as far as the words say that they are some.
    covered_by = wide(there).view(n, h * w, 2)
    said_lines = (torch.stack([line, shine], -1).view(n, h * w, BINS, 2) * share).sum(-2)
    believed = torch.where(covered_by < 0, 1.0, (said_lines / covered_by.clamp_min(SPARSE)).clamp(0, 1))
    amounts = believed * torch.stack([p["ink"] * 1.1, p["glow"]], -1) * (1 - kept[:, :, 0])
    colours = torch.cat([ink_colour * 2 - 1, glow_colour * 2], -1)[:, 0].expand(n, h * w, 6)
    pens = torch.cat([amounts, colours], -1).view(n, h, w, 8)
    return shaded, wide(detail) + marks.reshape(n, h, w, 192), anchors.view(n, h, w, BINS * 4), pens


def pack_head(matrices: Tensor, detail: Tensor, words: Tensor) -> Tensor:
    """Bring what the head's layers say, as the reference takes it, into `shade`'s order: [..., HEAD_CHANNELS].

    `matrices` [..., 48], `detail` [..., 192], `words` [..., WORDS]: a bias, a transposed weight, or what was said.
    """
    lead = words.shape[:-1]
    cells = (1, 1, lead.numel())
    nothing = words.new_zeros(*cells, 4 * BINS), words.new_zeros(*cells, 8)
    edit = pack_edit(matrices.reshape(*cells, 48), detail.reshape(*cells, 192), *nothing)[..., :MADE].view(*lead, MADE)
    readings = words[..., : BINS * SURFACE].reshape(*lead, BINS, SURFACE).transpose(-1, -2)
    return torch.cat([edit, readings.reshape(*lead, BINS * SURFACE), words[..., BINS * SURFACE :]], -1)


def split_head(head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Undo `pack_head` for what was said of cells [N, h, w, HEAD_CHANNELS]: (matrices, detail, words)."""
    matrices, detail, *_ = split_edit(head[..., :EDIT_CHANNELS])
    said, share = head[..., MADE:-BINS], head[..., -BINS:]
    readings = said.reshape(*head.shape[:-1], SURFACE, BINS).transpose(-1, -2)
    return matrices, detail, torch.cat([readings.flatten(-2), share], -1)


def _reference(head: Tensor, noise: Tensor, there: Tensor, style: Tensor) -> Tensor:
    """`shade_reference` on the head's output in its packed order, back in its dtype."""
    matrices, detail, words = split_head(head)
    return pack_edit(*shade_reference(words, detail, matrices, noise, there, style)).to(head.dtype)


# In the kernel a reading's map is three tensors, one for each colour that comes out, [4, E] over the colours that go in
# and 1: in this order a thread holds the whole map of its reading. `last` [4, 1] is true for the 1, where that stands
# which does not depend on the colour.


@jit
def _luma_of(r, g, b):
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@jit
def _clamp(x, low, high):
    return tl.minimum(tl.maximum(x, low), high)


@jit
def _painted(r, g, b, last, paint_ptr, amount):
    """A paint of which the brightness below shows through."""
    bright = 1.3 * _luma_of(r, g, b)
    bright = tl.where(last, bright + 0.35, bright)
    part = amount[None, :]
    r += part * (tl.load(paint_ptr) * bright - r)
    g += part * (tl.load(paint_ptr + 1) * bright - g)
    b += part * (tl.load(paint_ptr + 2) * bright - b)
    return r, g, b


@jit
def _toward(x, last, value, amount):
    """A row drawn towards one value [E], or the same one everywhere."""
    rest = x * (1.0 - amount)[None, :]
    return tl.where(last, rest + (value * amount)[None, :], rest)


@jit
def _covered(r, g, b, last, paint_ptr, scale, amount):
    r = _toward(r, last, tl.load(paint_ptr) * scale, amount)
    g = _toward(g, last, tl.load(paint_ptr + 1) * scale, amount)
    b = _toward(b, last, tl.load(paint_ptr + 2) * scale, amount)
    return r, g, b


@jit
def _skyward(x, own, last, horizon_ptr, top_ptr, painted, elevation, cloud, sky):
    """A row drawn towards the sky that the style paints, or towards the game's as far as it paints none."""
    horizon = tl.load(horizon_ptr)
    above = horizon + elevation * (tl.load(top_ptr) - horizon)
    above += cloud * (horizon * 0.65 + 0.35 - above)
    target = tl.where(own, (1.0 - painted)[None, :], tl.where(last, (above * painted)[None, :], 0.0))
    return x + sky[None, :] * (target - x)


@jit
def _rolled(x, last, here, contrast):
    """Highlights roll off and contrast turns about grey: a row of the map, touched at what it makes of the colour."""
    over = tl.maximum(here - 0.8, 0.0) * 5.0
    over = 1.0 - 2.0 / (tl.exp(2.0 * over) + 1.0)
    slope = (1.0 - over * over) * contrast
    shift = tl.where(here > 0.8, 0.8 + 0.2 * over, here) * contrast - here * slope + (0.45 - 0.45 * contrast)
    x *= slope[None, :]
    return tl.where(last, x + shift[None, :], x)


@jit
def _bounded(x, last, here):
    """What is out of range stays at its end."""
    out = (here < 0.0) | (here > 1.0)
    return tl.where(out[None, :], tl.where(last, _clamp(here, 0.0, 1.0)[None, :], 0.0), x)


@jit
def _toned(x, last, dark_ptr, light_ptr, bright, tone):
    dark = tl.load(dark_ptr)
    target = (tl.load(light_ptr) - dark) * bright
    return x + tone * (tl.where(last, target + dark, target) - x)


@jit
def _stepped(x, ramp):
    """The middles of the steps that x lies on, with a ramp of half length `ramp` between them."""
    edge = tl.maximum(tl.floor(x + 0.5), 1.0)
    return edge + _clamp((x - edge) * (0.5 / ramp), -0.5, 0.5)


@jit
def _settled(x, last, colour, posterize):
    """A row drawn towards a few steps of what it makes of the colour."""
    return _toward(x, last, _stepped(tl.sum(x * colour, 0) * 5.0, 0.06) * 0.2, posterize)  # RAMP


@jit
def _changed(head_ptr, out_ptr, x, own, last, kept, keep):
    """Draw a row towards the source as far as that is kept; add its change of v = 2 colour - 1 to the head's."""
    x += kept[None, :] * (tl.where(own, 1.0, 0.0) - x)
    change = tl.where(own, x - 1.0, tl.where(last, x + (tl.sum(x, 0) - 1.0)[None, :], x))
    tl.store(out_ptr, (tl.load(head_ptr).to(tl.float32) + change).to(out_ptr.dtype.element_ty), mask=keep)


@jit
def _shade_taps_kernel(
    noise_ptr,  # [N, 1, height, width] fp32
    style_ptr,  # [N, STYLE] fp32
    taps_ptr,  # [N, 2, height, width] fp32: strokes, pooled pigment; what a frame lacks is not written
    height,
    width,
    STYLE: tl.constexpr,
    B: tl.constexpr,
):
    frame = tl.program_id(1)
    i = tl.program_id(0) * B + tl.arange(0, B)
    keep = i < height * width
    y, x = i // width, i % width
    noise_ptr += frame.to(tl.int64) * height * width
    taps_ptr += frame.to(tl.int64) * 2 * height * width
    style_ptr += frame * STYLE
    if tl.load(style_ptr + 58) != 0.0:  # hatch
        total = tl.zeros([B], tl.float32)
        for step in tl.static_range(5):
            # Strokes go on at the other side of the field.
            row = y - (step - 2)
            row = tl.where(row < 0, row + height, row)
            row = tl.where(row >= height, row - height, row)
            column = x + (step - 2)
            column = tl.where(column < 0, column + width, column)
            column = tl.where(column >= width, column - width, column)
            total += tl.load(noise_ptr + row * width + column, mask=keep, other=0.0)
        tl.store(taps_ptr + i, total * 0.4472135954999579, mask=keep)
    if tl.load(style_ptr + 59) != 0.0:  # wash
        total = tl.zeros([B], tl.float32)
        for tap in tl.static_range(25):
            row = tl.minimum(tl.maximum(y + (tap // 5 - 2), 0), height - 1)
            column = tl.minimum(tl.maximum(x + (tap % 5 - 2), 0), width - 1)
            total += tl.load(noise_ptr + row * width + column, mask=keep, other=0.0)
        tl.store(taps_ptr + height * width + i, total * 0.2, mask=keep)


@jit
def _believed(there, said):
    """How much of a cell's lines is drawn: all that is certain, else as much as the words say there is."""
    return tl.where(there < 0.0, 1.0, _clamp(said / tl.maximum(there, 0.2), 0.0, 1.0))  # SPARSE


@jit
def _spread(field_ptr, above, below, left, right):
    """A field at pixels between its entries: those in rows `above` and `left` are the nearer ones, [BM, 32] each."""
    near = 0.75 * tl.load(field_ptr + above + left) + 0.25 * tl.load(field_ptr + above + right)
    far = 0.75 * tl.load(field_ptr + below + left) + 0.25 * tl.load(field_ptr + below + right)
    return 0.75 * near + 0.25 * far


@jit
def _shade_kernel(
    head_ptr,  # [N, h, w, HEAD]
    noise_ptr,  # [N, 1, 4h, 4w] fp32
    there_ptr,  # [N, h, w, 2] fp32
    taps_ptr,  # [N, 2, 4h, 4w] fp32
    style_ptr,  # [N, STYLE] fp32, in the order of STYLE_LAYOUT
    out_ptr,  # [N, h, w, EDIT]
    h,
    w,
    HEAD: tl.constexpr,
    MADE: tl.constexpr,
    EDIT: tl.constexpr,
    STYLE: tl.constexpr,
    BM: tl.constexpr,
):
    frame = tl.program_id(1)
    first = tl.program_id(0) * BM
    E: tl.constexpr = BM * 4
    e = tl.arange(0, E)
    cells = h * w
    head_ptr += frame.to(tl.int64) * cells * HEAD
    out_ptr += frame.to(tl.int64) * cells * EDIT
    s = style_ptr + frame * STYLE

    # Readings [E]: four neighbours are those of a cell. Cells beyond the last are computed as the last, and not stored.
    cell = tl.minimum(first + e // 4, cells - 1)
    word_ptr = head_ptr + cell * HEAD + MADE + e % 4
    red = tl.sigmoid(tl.load(word_ptr).to(tl.float32))
    green = tl.sigmoid(tl.load(word_ptr + 4).to(tl.float32))
    blue = tl.sigmoid(tl.load(word_ptr + 8).to(tl.float32))
    k0 = tl.load(word_ptr + 12).to(tl.float32)
    k1 = tl.load(word_ptr + 16).to(tl.float32)
    k2 = tl.load(word_ptr + 20).to(tl.float32)
    k3 = tl.load(word_ptr + 24).to(tl.float32)
    k4 = tl.load(word_ptr + 28).to(tl.float32)
    k5 = tl.load(word_ptr + 32).to(tl.float32)
    k6 = tl.load(word_ptr + 36).to(tl.float32)
    k7 = tl.load(word_ptr + 40).to(tl.float32)
    k8 = tl.load(word_ptr + 44).to(tl.float32)
    top = tl.maximum(tl.maximum(tl.maximum(k0, k1), tl.maximum(k2, k3)), tl.maximum(tl.maximum(k4, k5), k6))
    top = tl.maximum(top, tl.maximum(k7, k8))
    k0 = tl.exp(k0 - top)
    k1 = tl.exp(k1 - top)
    k2 = tl.exp(k2 - top)
    k3 = tl.exp(k3 - top)
    k4 = tl.exp(k4 - top)
    k5 = tl.exp(k5 - top)
    k6 = tl.exp(k6 - top)
    k7 = tl.exp(k7 - top)
    k8 = tl.exp(k8 - top)
    whole = 1.0 / (k0 + k1 + k2 + k3 + k4 + k5 + k6 + k7 + k8)
    sky = k0 * whole
    creature = k5 * whole
    emissive = k7 * whole
    window = k8 * whole
    sun = tl.sigmoid(tl.load(word_ptr + 48).to(tl.float32))
    openness = tl.sigmoid(tl.load(word_ptr + 52).to(tl.float32))
    lamp_r = tl.sigmoid(tl.load(word_ptr + 56).to(tl.float32)) * 1.5
    lamp_g = tl.sigmoid(tl.load(word_ptr + 60).to(tl.float32)) * 1.5
    lamp_b = tl.sigmoid(tl.load(word_ptr + 64).to(tl.float32)) * 1.5
    up = tl.sigmoid(tl.load(word_ptr + 68).to(tl.float32)) * 2.0 - 1.0
    facing = tl.sigmoid(tl.load(word_ptr + 72).to(tl.float32))
    line = tl.sigmoid(tl.load(word_ptr + 88).to(tl.float32))
    kept = tl.sigmoid(tl.load(word_ptr + 100).to(tl.float32))
    # The surface's colour without its texture.
    plane_r = tl.sigmoid(tl.load(word_ptr).to(tl.float32) + tl.load(word_ptr + 104).to(tl.float32))
    plane_g = tl.sigmoid(tl.load(word_ptr + 4).to(tl.float32) + tl.load(word_ptr + 108).to(tl.float32))
    plane_b = tl.sigmoid(tl.load(word_ptr + 8).to(tl.float32) + tl.load(word_ptr + 112).to(tl.float32))

    column = tl.arange(0, 4)[:, None]
    own_r = column == 0
    own_g = column == 1
    own_b = column == 2
    last = column == 3
    colour = tl.where(own_g, green[None, :], tl.where(own_b, blue[None, :], 1.0))
    colour = tl.where(own_r, red[None, :], colour)

    # From what the game shows, lit as in the plain style, to the surface's own colour, and its texture away from it.
    glow = emissive * 0.9
    unlit_r = sun * 0.75 + openness * 0.36 + lamp_r * 0.5 + glow
    unlit_g = sun * 0.7275 + openness * 0.38 + lamp_g * 0.5 + glow
    unlit_b = sun * 0.675 + openness * 0.40 + lamp_b * 0.5 + glow
    unlit_r = tl.minimum(1.0 / tl.maximum(unlit_r, 0.12), 1.5 / tl.maximum(red, 1e-3))
    unlit_g = tl.minimum(1.0 / tl.maximum(unlit_g, 0.12), 1.5 / tl.maximum(green, 1e-3))
    unlit_b = tl.minimum(1.0 / tl.maximum(unlit_b, 0.12), 1.5 / tl.maximum(blue, 1e-3))
    r = tl.where(own_r, unlit_r[None, :], 0.0)
    g = tl.where(own_g, unlit_g[None, :], 0.0)
    b = tl.where(own_b, unlit_b[None, :], 0.0)
    flat = tl.load(s + 16) * (1.0 - window)
    r = _toward(r, last, unlit_r * plane_r, flat)
    g = _toward(g, last, unlit_g * plane_g, flat)
    b = _toward(b, last, unlit_b * plane_b, flat)

    # Ground and water, foliage, walls, things and creatures; then what lies on all that faces up: it clings to what is
    # bright of the texture, and shows it.
    r, g, b = _painted(r, g, b, last, s + 23, (k1 + k6) * whole * tl.load(s + 22))
    r, g, b = _painted(r, g, b, last, s + 27, k2 * whole * tl.load(s + 26))
    r, g, b = _painted(r, g, b, last, s + 31, k3 * whole * tl.load(s + 30))
    r, g, b = _painted(r, g, b, last, s + 35, (k4 + k5) * whole * tl.load(s + 34))
    plane = _luma_of(unlit_r * plane_r, unlit_g * plane_g, unlit_b * plane_b)
    clings = (up - 0.35) * 2.2 + 0.8 * (_luma_of(unlit_r * red, unlit_g * green, unlit_b * blue) - plane)
    lies = _clamp(clings, 0.0, 1.0) * tl.maximum(1.0 - creature - sky, 0.0)
    on = _clamp(lies * tl.load(s + 17) * 1.25, 0.0, 1.0)
    r, g, b = _covered(r, g, b, last, s + 18, 0.94, on)
    fine = tl.where(own_g, (0.7152 * unlit_g)[None, :], tl.where(own_b, (0.0722 * unlit_b)[None, :], 0.0))
    fine = tl.where(own_r, (0.2126 * unlit_r)[None, :], fine)
    fine = tl.where(last, -plane[None, :], fine) * (0.48 * on)[None, :]  # COVERED
    r += tl.load(s + 18) * fine
    g += tl.load(s + 19) * fine
    b += tl.load(s + 20) * fine
    level = _clamp((up - 0.7) * 4.0, 0.0, 1.0) * (1.0 - sky) * tl.load(s + 21)

    p_sun = tl.load(s)
    p_ambient = tl.load(s + 4)
    p_headlight = tl.load(s + 9)
    p_lamps = tl.load(s + 10)
    around = openness * (1.0 + tl.load(s + 8) * (0.6 * tl.maximum(up, -0.5) - 0.45))
    around = around * p_ambient + facing * p_headlight * 0.5
    direct = sun * p_sun
    lamps = _luma_of(lamp_r, lamp_g, lamp_b)
    was = tl.maximum(sun * 0.75 + openness * 0.4 + lamps * 0.5, 0.02)
    now = tl.maximum(direct + around + lamps * p_lamps, 0.02)
    even = (0.5 * p_sun + 0.8 * p_ambient + 0.35 * p_headlight + 0.15 * p_lamps) * (1.0 / 0.77)
    even = tl.sqrt(_clamp(even * was / now, 0.05, 20.0)) * (1.0 - 0.45 * level)
    direct += 0.5 * on * (0.4 * p_sun - direct)  # SCATTER and SCATTERED_SUN
    r *= ((direct * tl.load(s + 1) + around * tl.load(s + 5) + lamp_r * p_lamps) * even)[None, :]
    g *= ((direct * tl.load(s + 2) + around * tl.load(s + 6) + lamp_g * p_lamps) * even)[None, :]
    b *= ((direct * tl.load(s + 3) + around * tl.load(s + 7) + lamp_b * p_lamps) * even)[None, :]

    # A band holds its brightness and lets the hue through.
    p_bands = tl.load(s + 50)
    count = tl.maximum(tl.load(s + 51), 1.0)
    here_r = tl.sum(r * colour, 0)
    here_g = tl.sum(g * colour, 0)
    here_b = tl.sum(b * colour, 0)
    bright = tl.maximum(_luma_of(here_r, here_g, here_b), 0.02)
    rate = p_bands * (_stepped(bright * count, 0.2) / count) / bright  # SOFT_RAMP
    held = (1.0 - p_bands + rate)[None, :]
    across = _luma_of(r, g, b)
    across = tl.where(last, across - bright[None, :], across) * (0.6 * rate / bright)[None, :]  # HELD
    r = r * held - here_r[None, :] * across
    g = g * held - here_g[None, :] * across
    b = b * held - here_b[None, :] * across

    glow *= tl.load(s + 15)
    r = tl.where(own_r, r + (unlit_r * glow)[None, :], r)
    g = tl.where(own_g, g + (unlit_g * glow)[None, :], g)
    b = tl.where(own_b, b + (unlit_b * glow)[None, :], b)
    lit = _clamp(window * tl.load(s + 11), 0.0, 1.0)[None, :]
    through = tl.where(
        own_g, (2.2 * 0.7152 * unlit_g)[None, :], tl.where(own_b, (2.2 * 0.0722 * unlit_b)[None, :], 0.5)
    )
    through = tl.where(own_r, (2.2 * 0.2126 * unlit_r)[None, :], through)
    r += lit * (tl.load(s + 12) * through - r)
    g += lit * (tl.load(s + 13) * through - g)
    b += lit * (tl.load(s + 14) * through - b)
    r, g, b = _covered(r, g, b, last, s + 42, 1.0, level * (1.0 - facing) * (1.0 - facing) * 0.85)

    near = tl.sigmoid(tl.load(word_ptr + 76).to(tl.float32))
    elevation = tl.sigmoid(tl.load(word_ptr + 80).to(tl.float32))
    cloud = tl.sigmoid(tl.load(word_ptr + 84).to(tl.float32)) * tl.load(s + 45)
    # DARK_SKY and SHOWN_SKY
    shown = _clamp((_luma_of(red, green, blue) - 0.03) * (1.0 / 0.22), 0.0, 1.0)
    p_sky = tl.load(s + 38) * shown
    r = _skyward(r, own_r, last, s + 42, s + 39, p_sky, elevation, cloud, sky)
    g = _skyward(g, own_g, last, s + 43, s + 40, p_sky, elevation, cloud, sky)
    b = _skyward(b, own_b, last, s + 44, s + 41, p_sky, elevation, cloud, sky)
    fog = tl.load(s + 46)
    density = tl.where(fog > 0.01, 0.0025 * tl.exp(fog * 3.9), 0.0)
    depth = _clamp(4.0 / tl.maximum(near, 1e-3) - 4.0, 0.0, 400.0)
    haze = (1.0 - tl.exp(-depth * density)) * (1.0 - sky * (1.0 - 0.75 * shown))
    r, g, b = _covered(r, g, b, last, s + 47, 1.0, haze)

    # The grade.
    p_ink = tl.load(s + 52)
    p_wash = tl.load(s + 59)
    warm = tl.load(s + 70)
    grade = ((1.0 - 0.35 * p_wash * (1.0 - p_ink) * line) * tl.exp2(tl.load(s + 67)))[None, :]
    r *= grade * (1.0 + 0.12 * warm)
    g *= grade
    b *= grade * (1.0 - 0.14 * warm)
    contrast = tl.load(s + 68)
    r = _rolled(r, last, tl.sum(r * colour, 0), contrast)
    g = _rolled(g, last, tl.sum(g * colour, 0), contrast)
    b = _rolled(b, last, tl.sum(b * colour, 0), contrast)
    saturation = tl.load(s + 69)
    bright = _luma_of(r, g, b)
    r = bright + saturation * (r - bright)
    g = bright + saturation * (g - bright)
    b = bright + saturation * (b - bright)
    r = _bounded(r, last, tl.sum(r * colour, 0))
    g = _bounded(g, last, tl.sum(g * colour, 0))
    b = _bounded(b, last, tl.sum(b * colour, 0))
    tone = tl.load(s + 71)
    bright = _luma_of(r, g, b)
    r = _toned(r, last, s + 72, s + 75, bright, tone)
    g = _toned(g, last, s + 73, s + 76, bright, tone)
    b = _toned(b, last, s + 74, s + 77, bright, tone)
    posterize = tl.load(s + 65) * 0.9 + tl.zeros([E], tl.float32)
    r = _settled(r, last, colour, posterize)
    g = _settled(g, last, colour, posterize)
    b = _settled(b, last, colour, posterize)

    # What marks are drawn on: the cell's colour before its lines, its readings by their shares.
    share = tl.reshape(tl.load(word_ptr + 116).to(tl.float32), [BM, 4])
    share = tl.exp(share - tl.max(share, 1)[:, None])
    share = share / tl.sum(share, 1)[:, None]
    seen_r = tl.sum(tl.reshape(tl.sum(r * colour, 0), [BM, 4]) * share, 1)
    seen_g = tl.sum(tl.reshape(tl.sum(g * colour, 0), [BM, 4]) * share, 1)
    seen_b = tl.sum(tl.reshape(tl.sum(b * colour, 0), [BM, 4]) * share, 1)
    marked = 2.0 * (1.0 - tl.sum(tl.reshape(kept, [BM, 4]) * share, 1))

    # Lines of shapes are left to the pens; those of textures stay with the readings.
    texture_line = tl.sigmoid(tl.load(word_ptr + 92).to(tl.float32)) * tl.load(s + 54)
    r, g, b = _covered(r, g, b, last, s + 55, 1.0, _clamp(texture_line * p_ink * 1.1, 0.0, 1.0))
    shine = tl.sigmoid(tl.load(word_ptr + 96).to(tl.float32))
    said_line = tl.sum(tl.reshape(line, [BM, 4]) * share, 1)
    said_shine = tl.sum(tl.reshape(shine, [BM, 4]) * share, 1)
    keep = (first + e // 4 < cells)[None, :]
    said = head_ptr + (cell * HEAD + e % 4 * 4)[None, :] + column
    edit = out_ptr + (cell * EDIT + e % 4 * 4)[None, :] + column
    _changed(said, edit, r, own_r, last, kept, keep)
    _changed(said + 16, edit + 16, g, own_g, last, kept, keep)
    _changed(said + 32, edit + 32, b, own_b, last, kept, keep)

    # What each reading is of, for `compose` to tell its pixels by.
    anchor = out_ptr + cell * EDIT + MADE + e % 4
    keep = first + e // 4 < cells
    dtype = out_ptr.dtype.element_ty
    tl.store(anchor, (red * 2.0 - 1.0).to(dtype), mask=keep)
    tl.store(anchor + 4, (green * 2.0 - 1.0).to(dtype), mask=keep)
    tl.store(anchor + 8, (blue * 2.0 - 1.0).to(dtype), mask=keep)
    tl.store(anchor + 12, tl.reshape(share, [E]).to(dtype), mask=keep)

    # What `compose` draws the lines with.
    mine = tl.minimum(first + tl.arange(0, BM), cells - 1)
    there_ptr += frame.to(tl.int64) * 2 * cells
    pen = out_ptr + mine * EDIT + MADE + 16
    keep = first + tl.arange(0, BM) < cells
    shown = 0.5 * marked
    dark_pen = _believed(tl.load(there_ptr + 2 * mine), said_line) * (p_ink * 1.1) * shown
    bright_pen = _believed(tl.load(there_ptr + 2 * mine + 1), said_shine) * tl.load(s + 61) * shown
    tl.store(pen, dark_pen.to(dtype), mask=keep)
    tl.store(pen + 1, bright_pen.to(dtype), mask=keep)
    for rgb in tl.static_range(3):
        colour_of = tl.load(s + 55 + rgb) * 2.0 - 1.0 + tl.zeros([BM], tl.float32)
        tl.store(pen + 2 + rgb, colour_of.to(dtype), mask=keep)
        colour_of = tl.load(s + 62 + rgb) * 2.0 + tl.zeros([BM], tl.float32)
        tl.store(pen + 5 + rgb, colour_of.to(dtype), mask=keep)

    # The marks, a sixth of a cell's detail at a time: (row, column, colour), a value of noise for two rows and columns.
    hatch = tl.load(s + 58)
    grain = tl.load(s + 60)
    cell = tl.minimum(first + tl.arange(0, BM), cells - 1)
    keep = (first + tl.arange(0, BM) < cells)[:, None]
    dark = _clamp(0.75 - _luma_of(seen_r, seen_g, seen_b), 0.0, 1.0)
    noise_ptr += frame.to(tl.int64) * 16 * cells
    taps_ptr += frame.to(tl.int64) * 32 * cells
    for sixth in tl.static_range(6):
        j = sixth * 32 + tl.arange(0, 32)
        # Of each pixel the entry of the fields that it lies in, and the one on its side of that.
        row = (cell // w * 4)[:, None] + (j // 48)[None, :]
        column = (cell % w * 4)[:, None] + (j % 24 // 6)[None, :]
        at = row * 4 * w + column
        below = _clamp(row + (j // 24 % 2 * 2 - 1)[None, :], 0, 4 * h - 1) * 4 * w
        right = _clamp(column + (j % 6 // 3 * 2 - 1)[None, :], 0, 4 * w - 1)
        above = row * 4 * w
        rgb = (j % 3)[None, :]
        seen = tl.where(rgb == 0, seen_r[:, None], tl.where(rgb == 1, seen_g[:, None], seen_b[:, None]))
        marks = tl.zeros([BM, 32], tl.float32)
        if p_wash != 0.0:
            pigment = p_wash * 0.13 * _spread(taps_ptr + 16 * cells, above, below, column, right)
            marks += pigment * seen * _clamp(4.0 - 4.0 * seen, 0.0, 1.0)
        if hatch != 0.0:
            stroke = _spread(taps_ptr, above, below, column, right)
            stroke = tl.sigmoid((stroke + (3.2 * dark - 1.7)[:, None]) * 5.0)
            stroke = hatch * 0.75 * tl.where((dark > 0.02)[:, None], stroke, 0.0)
            marks += stroke * (tl.load(s + 55 + rgb) - seen - marks)
        marks += grain * tl.load(noise_ptr + at) * (0.11 * seen + 0.03)
        said = tl.load(head_ptr + (cell * HEAD + 48)[:, None] + j[None, :]).to(tl.float32)
        value = (said + marks * marked[:, None]).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + (cell * EDIT + 48)[:, None] + j[None, :], value, mask=keep)


# A reading a thread: its map is 12 numbers of it, beside 30 of what was said. 32 cells make 1,020 programs at 1080p.
_SHADE = Config({"BM": 32}, 4, 1)
# Two values a thread.
_TAPS = Config({"B": 256}, 4, 1)


def shade_triton(head: Tensor, noise: Tensor, there: Tensor, style: Tensor) -> Tensor:
    """Launch the kernels of `shade` on checked arguments."""
    n, h, w, _ = head.shape
    taps = torch.empty(n, 2, 4 * h, 4 * w, device=head.device)
    out = torch.empty(n, h, w, EDIT_CHANNELS, dtype=head.dtype, device=head.device)
    fields = {"noise_ptr": noise, "taps_ptr": taps, "style_ptr": style}
    args = {**fields, "height": 4 * h, "width": 4 * w}
    launch(_shade_taps_kernel, (-(-16 * h * w // _TAPS.sizes["B"]), n), args, {"STYLE": STYLE_NUMBERS}, _TAPS)
    args = {**fields, "there_ptr": there, "head_ptr": head, "out_ptr": out, "h": h, "w": w}
    constants = {"HEAD": HEAD_CHANNELS, "MADE": MADE, "EDIT": EDIT_CHANNELS, "STYLE": STYLE_NUMBERS}
    launch(_shade_kernel, (-(-h * w // _SHADE.sizes["BM"]), n), args, constants, _SHADE)
    return out


@torch.library.custom_op(
    "mirage::shade", mutates_args=(), schema="(Tensor head, Tensor noise, Tensor there, Tensor style) -> Tensor"
)
def _op(head: Tensor, noise: Tensor, there: Tensor, style: Tensor) -> Tensor:
    check("head", head, (None, None, None, HEAD_CHANNELS), (*FLOATS, torch.float64))
    n, h, w, _ = head.shape
    full = torch.float64 if head.dtype == torch.float64 else torch.float32
    check("noise", noise, (n, 1, 4 * h, 4 * w), full, like=head)
    check("there", there, (n, h, w, 2), full, like=head)
    check("style", style, (n, STYLE_NUMBERS), full, like=head)
    return (shade_triton if on_triton(head) else _reference)(head, noise, there, style)


@_op.register_fake
def _fake(head: Tensor, noise: Tensor, there: Tensor, style: Tensor) -> Tensor:
    return head.new_empty(*head.shape[:-1], EDIT_CHANNELS)


def shade(head: Tensor, noise: Tensor, there: Tensor, style: Tensor) -> Tensor:
    """Return the edit [N, h, w, 264] of what the head says, [N, h, w, HEAD_CHANNELS] in its order, in its dtype.

    `noise` fp32 [N, 1, 4h, 4w] is the noise field; `there` fp32 [N, h, w, 2] how much of a cell lines of colours cover
    (`line_shares`), -1 where lines are those of depth; `style` fp32 [N, STYLE_NUMBERS] each frame's style in natural
    units (`STYLE_LAYOUT`). Raises `KernelError` for what a kernel could not take.
    """
    if recording():
        return shade_triton(head, noise, there, style)
    out: Tensor = torch.ops.mirage.shade(head, noise, there, style)
    return out

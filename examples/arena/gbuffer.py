"""A frame's geometry, materials and light, for drawing the same frame again in another style."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arena.bake import ROOM_COLOUR, SKY_COLOUR
from arena.renderer import FAR_M, HAZE, Planes, Renderer, View, haze_share
from arena.textures import Material

__all__ = ["HAZE_COLOUR", "GBuffer", "gbuffer"]

HAZE_COLOUR = np.array(HAZE, np.float32) / 255
"""What far things fade into, float32 [3] in 0..1."""

SHADE = SKY_COLOUR + ROOM_COLOUR / 4
"""The light on a floor under the open sky without the sun."""


@dataclass(frozen=True)
class GBuffer:
    """All that is known of one frame. World axes are x right (east), y up, z forward (north), in metres.

    The picture is `source`; before rounding and clipping it is
    ``(albedo * light) * (1 - haze) + HAZE_COLOUR * haze`` where it is not sky, and ``albedo`` in the sky.
    """

    source: NDArray[np.uint8]
    """[H, W, 4] RGBA as drawn."""
    albedo: NDArray[np.float32]
    """[H, W, 3] in 0..1: the texture's colour as it would be drawn under a light of 1 (not linearised)."""
    flat: NDArray[np.float32]
    """[H, W, 3] in 0..1: the mean colour of the texture, which of what is no tile is the albedo."""
    light: NDArray[np.float32]
    """[H, W, 3] in 0..2: baked sun, sky, lamps, shadow and occlusion by which the albedo is multiplied."""
    sun: NDArray[np.float32]
    """[H, W, 3] in 0..2: what the light has of the sun's; of a sprite, what is brighter than the shade."""
    lamps: NDArray[np.float32]
    """[H, W, 3] in 0..2: what it has of the lamps'; none on sprites."""
    haze: NDArray[np.float32]
    """[H, W] in 0..1: the share of the haze."""
    depth: NDArray[np.float32]
    """[H, W]: view-space z in metres; `FAR_M` in the sky."""
    normal: NDArray[np.float32]
    """[H, W, 3]: unit vectors; sprites face the camera, the sky has 0."""
    position: NDArray[np.float32]
    """[H, W, 3]: the point seen, in metres; in the sky the point `FAR_M` deep."""
    material: NDArray[np.uint8]
    """[H, W]: `Material`."""
    ident: NDArray[np.int32]
    """[H, W]: 0 for the world, else the number of the sprite, the same from frame to frame."""
    sky: NDArray[np.bool_]
    """[H, W]."""
    motion: NDArray[np.float32]
    """[H, W, 2]: x, y in pixels from here to where it was in the frame before."""
    mask: NDArray[np.uint8]
    """[H, W]: 1 world, 2 sprites, 3 sky."""


def gbuffer(renderer: Renderer, view: View) -> GBuffer:
    """Draw `view` and take everything down; the game must come from ``Game(seed, everything=True)``."""
    baked = renderer.baked
    if not baked.material.size:
        raise ValueError("this world keeps no materials; make the game with Game(seed, everything=True)")
    height, width = renderer.height, renderer.width
    source = np.empty((height, width, 4), np.uint8)
    depth = np.empty((height, width), np.float32)
    motion = np.empty((height, width, 2), np.float32)
    mask = np.empty((height, width), np.uint8)
    renderer.draw_in_numpy(view, source, Planes(depth, motion, mask))
    albedo = _rgb(baked.albedo.take(renderer.texel)) / np.float32(255)
    flat = _rgb(baked.flat.take(renderer.texel)) / np.float32(255)
    light, sun, lamps = (
        _rgb(layer.take(renderer.texel)) * np.float32(1 / 128) for layer in (baked.light, baked.sun, baked.lamps)
    )
    material = baked.material.take(renderer.texel)
    normal = renderer.normals()
    ident = np.zeros((height, width), np.int32)
    for drawn in renderer.drawn():
        area, seen = drawn.area, drawn.seen
        albedo[area][seen] = flat[area][seen] = _rgb(drawn.texels)[seen] / np.float32(255)
        light[area][seen] = drawn.light
        sun[area][seen] = np.maximum(drawn.light - SHADE, 0)
        lamps[area][seen] = 0
        material[area][seen] = int(drawn.material)
        ident[area][seen] = drawn.sprite.ident
    sky = material == int(Material.SKY)
    return GBuffer(
        source=source,
        albedo=albedo,
        flat=flat,
        light=light,
        sun=sun,
        lamps=lamps,
        haze=np.where(sky, 0, haze_share(depth).astype(np.float32) / 256).astype(np.float32),
        depth=depth,
        normal=normal,
        position=renderer.positions(np.minimum(depth, np.float32(FAR_M))),
        material=material,
        ident=ident,
        sky=sky,
        motion=motion,
        mask=mask,
    )


def _rgb(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Packed texels [...] as float32 [..., 3] in 0..255."""
    return np.ascontiguousarray(words)[..., None].view(np.uint8)[..., :3].astype(np.float32)

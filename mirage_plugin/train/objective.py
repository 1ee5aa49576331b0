"""What a network is trained for: Diffusion Forcing on clips, with its own history and none of the truth's.

Each frame is predicted from the source at noise level 1, and often once more at a level of its own from the
network's *own* 8-bit answer. The state that the next frame sees is the network's own, quantised as it will be
at play, and often corrupted; the network is told how much to trust it, sometimes wrongly. The truth is only
ever compared with: at play time there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mirage_kernels.compose import SIMILAR
from mirage_kernels.shade import BINS, KEEP, KINDS, SURFACE
from mirage_plugin.model.memory import MemoryState, quantise, warp_state
from mirage_plugin.model.network import CELL, SIGMA, MirageNet, Tier, frame_lines, planes_to_cells
from mirage_plugin.model.sampling import Prediction, lift_noise, predict, to_8_bits
from mirage_plugin.train.batch import Batch, kept
from mirage_plugin.train.metrics import warp_back

__all__ = [
    "ABLATED",
    "FULL",
    "LOSSES",
    "Ablation",
    "Losses",
    "Rollout",
    "clip_loss",
    "entries",
    "given_lines",
    "given_planes",
    "reconstruction_loss",
    "surface_loss",
    "unsteadiness",
]

SURFACE_SHARE = 0.5
"""What the words about surfaces count beside the picture."""
STEADY_SHARE = 0.3
"""What it counts that an answer's error changes from one frame to the next."""
TOLD_LEVEL = 0.25
"""The noise level of a picture that a fed history is written from: the least that refined steps know."""
RARE = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 6.0, 4.0, 30.0)
"""What a pixel of each material counts. Panes are 0.4 % of all: a net that calls them wall lights none by night. It
learns to answer as if there were as many more of them, and says what it would without (Menon et al. 2021)."""


Frame = tuple[Tensor, Tensor, Tensor, MemoryState, Tensor, Tensor, Tensor, Tensor]
"""What a step is predicted from: (v, noised, planes, memory, style, trust, noise, lines)."""


@dataclass(frozen=True)
class Ablation:
    """What a network is trained and played without; by default nothing is left out.

    Training (`clip_loss`) and evaluation ask the same methods, so that a network is played as it was trained.
    """

    corruption: bool = True
    """In training, history is spoilt now and then, and some clips begin with a foreign one."""
    own_history: bool = True
    """The memory is what the first step writes. Else another pass writes it, from a picture: in training the truth."""
    memory: bool = True
    """Frames know of one another."""
    warp: bool = True
    """The memory is moved along the motion, and what was hidden is not valid."""
    source_start: bool = True
    """The bridge begins at the source and a little noise. Else at noise alone."""
    half_grid: bool = True
    """The memory has an entry for four cells. Else for each, of as many channels: four times as large."""
    eight_bits: bool = True
    """Between frames the memory is kept in eight bits. Else in float32."""
    steady: bool = True
    """In training it counts that errors change from frame to frame."""

    def tier(self, tier: Tier) -> Tier:
        """The sizes of a network of `tier`."""
        return tier if self.half_grid else replace(tier, full_grid=True)

    def start(self, v: Tensor, noise: Tensor) -> Tensor:
        """The end of the bridge at level 1 for v [N, 3, H, W] and `noise` [N, 1, H/2, W/2]: [N, 3, H, W]."""
        lifted = lift_noise(noise)
        return v + SIGMA * lifted if self.source_start else lifted.to(v.dtype).expand_as(v)

    def recall(self, state: Tensor, motion: Tensor, seen: Tensor, known: Tensor) -> MemoryState:
        """What a frame remembers of `state`; arguments as `warp_state`, and `known` [N]: 0 where nothing was before."""
        if not self.memory:
            return MemoryState(torch.zeros_like(state), torch.zeros_like(state[..., :1]))
        if not self.warp:
            motion, seen = torch.zeros_like(motion), torch.ones_like(seen)
        entry = 2 * CELL if self.half_grid else CELL
        return warp_state(state, motion, seen * known[:, None, None, None].to(seen.dtype), entry)

    def stored(self, state: Tensor) -> Tensor:
        """A state [..., S] as it is kept until the next frame, in steps of 1/127: int8, or float32 without rounding."""
        return quantise(state) if self.eight_bits else state.float() * 127

    def write(self, net: MirageNet, frame: Frame, shown: Tensor, written: Tensor) -> Tensor:
        """The state that a frame leaves [N, h/2, w/2, S].

        `frame` is what its first step was predicted from, `written` what its first step wrote; `shown`
        [N, 3, H, W] the picture that a fed history is told of: the truth in training, the network's own answer at play.
        """
        if self.own_history or not self.memory:
            return written
        v, noised, planes, memory, style, trust, noise, lines = frame
        noisy = (1 - TOLD_LEVEL) * to_8_bits(shown) + TOLD_LEVEL * noised
        level = torch.full_like(trust, TOLD_LEVEL)
        return predict(net, v, noisy, planes, memory, style, level, trust, noise, lines).state


FULL = Ablation()
ABLATED: dict[str, Ablation] = {
    "full": FULL,
    "no-corruption": Ablation(corruption=False),
    "truth-fed": Ablation(own_history=False),
    "no-memory": Ablation(memory=False),
    "no-warp": Ablation(warp=False),
    "white-start": Ablation(source_start=False),
    "full-grid": Ablation(half_grid=False),
    "no-steadiness": Ablation(steady=False),
}
"""By the names of `config.ABLATIONS`."""


def reconstruction_loss(answer: Tensor, truth: Tensor) -> Tensor:
    """Distance of an answer to the truth, v [N, 3, H, W]: the mean over pictures of the logarithm of a distance.

    The distance of a picture is Charbonnier on values, on gradients (what keeps edges and strokes sharp where plain
    distances blur them), and on the means of patches and regions: what is off as a whole costs more than its pixels
    alone. Its logarithm counts a halved error alike in every style; without it, styles that no network gets right
    drown those it could get exactly right.
    """
    difference = (answer - truth).float()
    value = (difference.square() + 2e-4).sqrt().mean((1, 2, 3))
    dx = (difference[..., :, 1:] - difference[..., :, :-1]).square()
    dy = (difference[..., 1:, :] - difference[..., :-1, :]).square()
    gradient = (dx + 2e-4).sqrt().mean((1, 2, 3)) + (dy + 2e-4).sqrt().mean((1, 2, 3))
    patch = functional.avg_pool2d(difference, 8)
    region = functional.avg_pool2d(patch, 4, ceil_mode=True, count_include_pad=False)
    coarse = (patch.square() + 1e-4).sqrt().mean((1, 2, 3)) + 0.5 * (region.square() + 1e-4).sqrt().mean((1, 2, 3))
    return (value + 0.3 * gradient + coarse).log().mean()


def unsteadiness(error: Tensor, before: Tensor, motion: Tensor, seen: Tensor) -> Tensor:
    """How far errors, v [N, 3, H, W], are from those of the frame before, carried along the motion.

    `motion` [N, 2, H, W] in pixels, `seen` [N, 1, H, W]: where the frame before shows the same surface; nothing else
    counts. A mean over pictures of logarithms of distances, as `reconstruction_loss`, of patches and of regions: what
    a viewer sees as flicker is light or paint that is believed in one frame and not in the next.
    """
    difference = (error.float() - warp_back(before.float(), motion)) * seen
    patch = functional.avg_pool2d(difference, 8)
    region = functional.avg_pool2d(patch, 4, ceil_mode=True, count_include_pad=False)
    far = (patch.square() + 1e-4).sqrt().mean((1, 2, 3)) + 0.5 * (region.square() + 1e-4).sqrt().mean((1, 2, 3))
    return far.log().mean()


def surface_loss(words: Tensor, anchors: Tensor, v: Tensor, surface: Tensor) -> Tensor:
    """How far the words about surfaces are from what is there, for networks that train on worlds.

    `words` [N, h, w, WORDS], `anchors` [N, h, w, BINS * 4] of the edit, `v` [N, 3, H, W], `surface`
    [N, SURFACE_PLANES, H/2, W/2]. A cell's readings share its pixels as a mixture does: by their shares and by how like
    a pixel their colours are. Material, lines and overlay are compared pixel by pixel, by likelihood: so the readings
    learn to part where surfaces part. Colour, light and place of each reading are compared with the mean over what it
    was given, by distance; what only the sky or only solid things have counts only there.
    """
    n, h, w, _ = words.shape
    words = words.float()
    x = words[..., : BINS * SURFACE].view(n, h, w, BINS, SURFACE)
    half = CELL // 2

    def by_cell(planes: Tensor) -> Tensor:
        """Planes [N, C, H/2, W/2] as [N, h, w, C, 16], a cell's pixels together."""
        c = planes.shape[1]
        return planes.view(n, c, h, half, w, half).permute(0, 2, 4, 1, 3, 5).reshape(n, h, w, c, half * half)

    seen = by_cell(v[..., ::2, ::2].float())
    anchor = anchors.float().view(n, h, w, BINS, 4)
    away = torch.stack([(seen[..., None, c, :] - anchor[..., c, None]).square() for c in range(3)]).sum(0)
    count = anchor[..., 3:] / (1 + away / SIMILAR).square()
    chosen = count / count.sum(-2, keepdim=True)

    # What a reading says of the surface without its texture is said beside its colour.
    x = torch.cat([x[..., : KEEP + 1], x[..., :3].detach() + x[..., KEEP + 1 :]], -1)
    rare = torch.tensor(RARE, device=x.device)
    at_pixels = torch.cat([(x[..., 3 : 3 + KINDS] + rare.log()).softmax(-1), x[..., 22:26].sigmoid()], -1)
    fine = (at_pixels.transpose(-1, -2) @ chosen).clamp(1e-4, 1 - 1e-4)
    there = by_cell(surface)
    material = there[..., :1, :].long()
    total = -0.15 * (rare[material] * fine.gather(-2, material).log()).mean()
    lines = fine[..., KINDS:, :]
    total = total + 0.4 * functional.binary_cross_entropy(lines, there[..., 11:15, :].clamp(0, 1)) * lines.shape[-2]

    sky = (material == 0).float()
    colour = (seen + 1) / 2
    solid, air = there[..., 1:8, :] * (1 - sky), there[..., 9:11, :] * sky
    solid = torch.cat([solid[..., :5, :], (solid[..., 5:6, :] + (1 - sky)) / 2, solid[..., 6:, :]], -2)
    planes = torch.cat([sky, colour, solid, air, there[..., 8:9, :], (colour * there[..., 15:, :]).clamp(0, 1)], -2)
    chosen = chosen.detach()
    share = chosen.mean(-1)
    total = total - 0.1 * (share * words[..., BINS * SURFACE :].log_softmax(-1)).sum(-1).mean()
    pooled = chosen @ planes.transpose(-1, -2) / half**2
    mass, in_air = share[..., None], pooled[..., :1]
    # In the order of `planes`: (where it stands among the words, how many, what it counts, its scale, where).
    at = 1
    for first, number, worth, scale, where in (
        (0, 3, 2.0, 1.0, mass), (12, 2, 2.0, 1.0, mass - in_air), (14, 3, 1.2, 1.5, mass - in_air),
        (17, 2, 0.6, 1.0, mass - in_air), (20, 2, 0.4, 1.0, in_air), (19, 1, 2.0, 1.0, mass), (26, 3, 4.0, 1.0, mass),
    ):  # fmt: skip
        said = x[..., first : first + number].sigmoid() * (scale * where)
        total = total + worth * (said - pooled[..., at : at + number]).abs().sum((-1, -2)).mean()
        at += number
    return total


def _corrupt(state: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Spoil some states of a batch [N, h, w, S]; returns them and how much each may be trusted [N]."""
    n = state.shape[0]
    trust = torch.ones(n)
    out = []
    for i in range(n):
        s = state[i]
        kind = int(torch.randint(14, (), generator=rng))
        amount = float(torch.rand((), generator=rng))
        told = bool(torch.rand((), generator=rng) < 0.5)
        if kind == 0:
            s = (s + amount * 0.6 * torch.randn(s.shape, generator=rng).to(s)).clamp(-1, 1)
        elif kind == 1:
            s = s * (1 - amount)
        elif kind == 2:
            shift = (
                int(torch.randint(-2, 3, (), generator=rng)),
                int(torch.randint(-2, 3, (), generator=rng)),
            )
            s = torch.roll(s, shift, (0, 1))
        elif kind == 3:
            blurred = functional.avg_pool2d(s.permute(2, 0, 1)[None], 3, 1, 1, count_include_pad=False)[0]
            s = torch.lerp(s, blurred.permute(1, 2, 0), amount)
        elif kind == 4:
            # Another scene in another style: what a missed cut or a session mixed up would leave.
            s = torch.lerp(s, state[(i + 1) % n].detach(), amount)
        else:
            out.append(s)
            continue
        if told:
            trust[i] = 1 - amount
        out.append(s)
    return torch.stack(out), trust.to(state)


def given_planes(batch: Batch, t: int) -> Tensor:
    """The planes of frame t on the cell grid, [N, h, w, PLANE_CHANNELS], blank where an engine gives none."""
    n, _, height, width = batch.source.shape[1:]
    depth, motion, mask = (has[t][:, None] for has in (batch.has_depth, batch.has_motion, batch.has_mask))
    flags = torch.cat([depth.expand(-1, 17), motion.expand(-1, 3), mask.expand(-1, 4), depth.expand(-1, 8)], 1)
    flags = flags[:, None, None]
    return planes_to_cells(batch.planes(t), n, height // 8, width // 8, batch.source[t]) * flags


def given_lines(batch: Batch, t: int, style: Tensor) -> Tensor:
    """The lines of frame t, [N, 2, H, W], of depth where the engine gives it, drawn in styles [N, STYLE_SIZE]."""
    return frame_lines(batch.source[t], batch.depth[t], batch.has_depth[t], style)


def _first_step(
    net: MirageNet, batch: Batch, t: int, memory: MemoryState, trust: Tensor, ablation: Ablation
) -> tuple[Prediction, Frame]:
    """Predict frame t at noise level 1."""
    v, noise = batch.source[t], batch.noise[t]
    style = net.style(batch.parameters[t])
    noised, lines, planes = ablation.start(v, noise), given_lines(batch, t, style), given_planes(batch, t)
    found = predict(net, v, noised, planes, memory, style, torch.ones_like(trust), trust, noise, lines)
    return found, (v, noised, planes, memory, style, trust, noise, lines)


@torch.no_grad()
def _played_backwards(net: MirageNet, batch: Batch, state: Tensor, ablation: Ablation) -> Tensor:
    """The state that playing clips on from their last frame to their first leaves, from `state` [N, h2, w2, S].

    Nobody tells of the motion back, as in many a game.
    """
    frames, n = batch.cut.shape
    seen, motion = entries(batch, 0, net.tier.entry)
    still, seen, trust = torch.zeros_like(motion), torch.ones_like(seen), torch.ones(n, device=state.device)
    for t in reversed(range(frames)):
        known = (~batch.cut[t + 1]).float() if t + 1 < frames else trust
        found, frame = _first_step(net, batch, t, ablation.recall(state, still, seen, known), trust, ablation)
        state = ablation.stored(ablation.write(net, frame, batch.truth[t], found.state)) / 127
    return state


def entries(batch: Batch, t: int, entry: int) -> tuple[Tensor, Tensor]:
    """What moves the memory to frame t, by its entries of `entry` pixels a side.

    How much of each was to be seen before [N, 1, h2, w2], and its motion in pixels [N, 2, h2, w2].
    """
    middle = entry // 2
    return functional.avg_pool2d(batch.visible[t], entry), batch.motion[t][..., middle::entry, middle::entry]


class Losses(NamedTuple):
    """What an answer, and the words about it, are judged by; a trainer may put compiled ones here."""

    picture: Callable[[Tensor, Tensor], Tensor] = reconstruction_loss
    surface: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = surface_loss


LOSSES = Losses()


class Rollout(NamedTuple):
    """What rolling a batch of clips out has shown.

    `loss` is to be descended, `state` [N, h2, w2, S], detached, is what the clips have left, `distance` the
    `reconstruction_loss` of their first steps.
    """

    loss: Tensor
    state: Tensor
    distance: float


def clip_loss(
    net: MirageNet,
    batch: Batch,
    rng: torch.Generator,
    *,
    second_pass: float = 0.35,
    carried: Tensor | None = None,
    history: Tensor | None = None,
    ablation: Ablation = FULL,
    judged: Losses = LOSSES,
) -> Rollout:
    """Roll a batch of clips out.

    `second_pass` is the share of frames that are also refined at a lower noise level; `ablation` is what training goes
    without; `judged` says how far answers are from truths. Clips begin from nothing, and some from `carried`, a state
    of other clips. With `history`, the state that these very clips have left [N, h2, w2, S], they are first played
    backwards from there: the rollout goes on.
    """
    frames, n, _, height, width = batch.source.shape
    device, entry = batch.source.device, net.tier.entry
    state = torch.zeros(n, height // entry, width // entry, net.tier.state, device=device)
    starts = torch.zeros(n, device=device)
    spoilt = ablation.corruption and ablation.memory
    if history is not None:
        state, starts = _played_backwards(net, batch, history, ablation), torch.ones_like(starts)
    if spoilt and carried is not None and carried.shape == state.shape:
        foreign = (torch.rand(n, generator=rng) < 0.2).to(device)
        state = torch.where(foreign[:, None, None, None], carried, state)
        starts = torch.where(foreign, torch.ones_like(starts), starts)
    losses, distances = [], []
    before = torch.zeros_like(batch.truth[0])
    for t in range(frames):
        truth = batch.truth[t]
        seen, motion = entries(batch, t, entry)
        trust = torch.ones(n, device=device)
        if t == 0:
            seen, known = torch.ones_like(seen), starts
            motion = motion if history is None else torch.zeros_like(motion)
        else:
            if spoilt:
                state, trust = _corrupt(state, rng)
            # A cut is told half of the time; else the network has to see it for itself.
            told = batch.cut[t] & (torch.rand(n, generator=rng) < 0.5).to(device)
            seen = torch.where(batch.cut[t][:, None, None, None], torch.ones_like(seen), seen)
            known = (~told).float()
        found, frame = _first_step(net, batch, t, ablation.recall(state, motion, seen, known), trust, ablation)
        v, noised, planes, memory, style, _, noise, lines = frame
        answer, written = kept(batch, t, found.answer), found.state
        losses.append(judged.picture(answer, truth))
        distances.append(losses[-1].detach())
        error = answer - truth
        if t > 0 and ablation.steady:
            # What a cut or another style changes is no flicker, and nobody knows what moved where motion is withheld.
            same = (batch.parameters[t] == batch.parameters[t - 1]).all(-1) & ~batch.cut[t] & (batch.has_motion[t] > 0)
            seen_before = batch.visible[t].float() * same[:, None, None, None]
            losses[-1] = losses[-1] + STEADY_SHARE * unsteadiness(error, before, batch.motion[t], seen_before)
        before = error
        if batch.surface is not None:
            surface = judged.surface(found.words, found.edit.anchors, v, batch.surface[t])
            losses[-1] = losses[-1] + SURFACE_SHARE * surface
        if float(torch.rand((), generator=rng)) < second_pass:
            k = torch.randint(1, 4, (n,), generator=rng).float().to(device) / 4
            own = to_8_bits(answer.detach())
            if float(torch.rand((), generator=rng)) < 0.25:
                own = functional.avg_pool2d(own, 3, 1, 1, count_include_pad=False)
            mix = k[:, None, None, None]
            noisy = (1 - mix) * own + mix * noised
            refined = predict(net, v, noisy, planes, memory, style, k, trust, noise, lines)
            losses.append(judged.picture(kept(batch, t, refined.answer), truth))
        written = ablation.write(net, frame, truth, written)
        # As it is stored between frames; the gradient passes straight through.
        state = written + (ablation.stored(written) / 127 - written).detach()
        if float(torch.rand((), generator=rng)) < 0.15:
            state = state.detach()
    return Rollout(torch.stack(losses).mean(), state.detach(), float(torch.stack(distances).mean()))

"""The operations of one frame as few passes over memory, each with a reference that is its definition.

Every op is a `torch.library` op under ``mirage::`` with a fake, so that it works under compile and export. On
CUDA it is a Triton kernel, elsewhere the fp32 reference, behind one switch (`use`). Nothing of Mirage is
imported here: what the network is, `mirage_plugin.model` says, and a test holds the two together.

================  ==========================================================================================
`pixels`          an engine's bytes, noise and planes -> the features of the patch projection
`block`           depthwise 5x5, RMSNorm, FiLM, expand, SiLU, project, gated residual
`linear`          products with what stands around them: down, up with skip, head; bf16, fp16, fp8
`agree`           what surfaces are, from a look at the whole frame, of one mind from cell to cell
`overview`        and told to the readings of a large grid
`remember`        and what it was in the frame before
`shade`           what the head says of surfaces, painted in the style: the edit
`depth_lines`     where shapes end and turn: the lines that `compose` draws
`colour_lines`    where colours part: those that it may draw in a frame without depth
`trace_lines`     either as wide as a style draws it, and as far as it shines
`warp_state`      motion warp and unpacking of the memory
`memory_read`     the trust gate
`memory_write`    the gated update and packing
`fresh_noise`     counter-based noise
`advect_noise`    the noise field carried along the motion, fresh where it must be
`solver_step`     the noisy end of a denoising step
`drift_statistics`mean, square, bounds, NaN and infinities, without a synchronisation
`compose`         the edit on the full-resolution frame, packed for the engine; also the late answer
`steady`          what the cells of an edit were changed by, from frame to frame
`pixelate`        an answer in square pixels, where its style has them
`look`            the network on these ops, from weights that `prepare` packed, up to what its head says
`forward`         and on to the edit
================  ==========================================================================================
"""

from mirage_kernels.block import BlockWeights, block, block_reference, pack_block
from mirage_kernels.compose import (
    EDIT_CHANNELS,
    SIMILAR,
    compose,
    compose_reference,
    pack_edit,
    split_edit,
)
from mirage_kernels.frames import FORMATS, FrameLayout, PixelFormat, pack_frame, unit_rgb, unpack_frame
from mirage_kernels.launch import HAS_TRITON, Backend, KernelError, Launch, backend, interpreting, record, use
from mirage_kernels.linear import LinearWeights, linear, linear_reference, pack_linear
from mirage_kernels.lines import (
    colour_lines,
    colour_lines_of,
    colour_lines_reference,
    depth_lines,
    depth_lines_reference,
    line_points,
    line_shares,
    middles,
    trace_lines,
    trace_lines_reference,
)
from mirage_kernels.memory import (
    MemoryWeights,
    memory_read,
    memory_read_reference,
    memory_write,
    memory_write_reference,
    pack_memory,
    pack_state,
    unpack_state,
    warp_state,
    warp_state_reference,
)
from mirage_kernels.network import (
    SIZES,
    NetworkSizes,
    NetworkWeights,
    film_of,
    forward,
    look,
    prepare,
    random_parameters,
)
from mirage_kernels.noise import (
    advect_noise,
    advect_noise_reference,
    fresh_noise,
    fresh_noise_reference,
    solver_step,
    solver_step_reference,
)
from mirage_kernels.overview import (
    agree,
    agreed,
    overview,
    overview_entries,
    overview_reference,
    overview_size,
    remember,
    remembered,
    told_by_overview,
)
from mirage_kernels.pixelate import block_side, pixelate, pixelate_reference
from mirage_kernels.pixels import StemWeights, fold_stem, grid_size, pixels, pixels_reference
from mirage_kernels.shade import (
    HEAD_CHANNELS,
    STYLE_LAYOUT,
    STYLE_NUMBERS,
    WORDS,
    pack_head,
    shade,
    shade_reference,
    split_head,
    style_offset,
)
from mirage_kernels.statistics import STATISTICS, drift_statistics, drift_statistics_reference
from mirage_kernels.steady import SETTLED, steady, steady_reference

__all__ = [
    "EDIT_CHANNELS",
    "FORMATS",
    "HAS_TRITON",
    "HEAD_CHANNELS",
    "SETTLED",
    "SIMILAR",
    "SIZES",
    "STATISTICS",
    "STYLE_LAYOUT",
    "STYLE_NUMBERS",
    "WORDS",
    "Backend",
    "BlockWeights",
    "FrameLayout",
    "KernelError",
    "Launch",
    "LinearWeights",
    "MemoryWeights",
    "NetworkSizes",
    "NetworkWeights",
    "PixelFormat",
    "StemWeights",
    "advect_noise",
    "advect_noise_reference",
    "agree",
    "agreed",
    "backend",
    "block",
    "block_reference",
    "block_side",
    "colour_lines",
    "colour_lines_of",
    "colour_lines_reference",
    "compose",
    "compose_reference",
    "depth_lines",
    "depth_lines_reference",
    "drift_statistics",
    "drift_statistics_reference",
    "film_of",
    "fold_stem",
    "forward",
    "fresh_noise",
    "fresh_noise_reference",
    "grid_size",
    "interpreting",
    "line_points",
    "line_shares",
    "linear",
    "linear_reference",
    "look",
    "memory_read",
    "memory_read_reference",
    "memory_write",
    "memory_write_reference",
    "middles",
    "overview",
    "overview_entries",
    "overview_reference",
    "overview_size",
    "pack_block",
    "pack_edit",
    "pack_frame",
    "pack_head",
    "pack_linear",
    "pack_memory",
    "pack_state",
    "pixelate",
    "pixelate_reference",
    "pixels",
    "pixels_reference",
    "prepare",
    "random_parameters",
    "record",
    "remember",
    "remembered",
    "shade",
    "shade_reference",
    "solver_step",
    "solver_step_reference",
    "split_edit",
    "split_head",
    "steady",
    "steady_reference",
    "style_offset",
    "told_by_overview",
    "trace_lines",
    "trace_lines_reference",
    "unit_rgb",
    "unpack_frame",
    "unpack_state",
    "use",
    "warp_state",
    "warp_state_reference",
]

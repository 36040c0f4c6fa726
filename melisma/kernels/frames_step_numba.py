"""The next frames of a stream through a backbone of ConvNeXt blocks, in one call; see ``frames_numba.py``."""

import numpy as np

from melisma.kernels import LANES
from melisma.kernels.frames_numba import normalise, perceptron
from melisma.kernels.lanes_numba import compiled, inner, load, store
from melisma.kernels.matrix_numba import DEEP, WIDE, product


@inner
def convolve(window, count, taps, offset, middle, norm, skip, out, after):  # type: ignore[no-untyped-def]
    """Depthwise convolution and layer norm of ``count`` frames; ``after`` becomes what they were, and ``skip``."""
    scale, bias, epsilon = norm
    groups = scale.shape[0]
    size = taps.shape[0] // groups
    for frame in range(count):
        row = frame * groups
        for g in range(groups):
            total = load(offset, g)
            for tap in range(size):
                total = total + load(window, row + tap * groups + g) * load(taps, tap * groups + g)
            store(out, row + g, total)
            store(after, row + g, load(window, row + middle * groups + g) + load(skip, g))
        normalise(out, row, groups, scale, bias, epsilon)


@compiled
def next_frames(shape, given, entry, blocks, leave, past, out):  # type: ignore[no-untyped-def]
    """Some frames through all blocks, each of which knows the last inputs of its convolution.

    Args:
        shape: ``(frames, frames before that a convolution reads, epsilon of the norms)``.
        given: ``(conditions, rows)``: the frames behind those that the first convolution reads too, and how many rows
            a frame has.
        entry: and ``blocks`` and ``leave`` as :func:`melisma.kernels.frames_numba.backbone` has them.
        past: the inputs of every block before these, ``(blocks, (size - 1) * groups, 16)``; moved on by ``frames``.
        out: what the head says, ``(frames, width)``.
    """
    count, middle, epsilon = shape
    conditions, heard = given
    weights, offset, depth, scale, bias = entry
    taps, offsets, scales, biases, widen, widen_bias, narrow, skip = blocks
    last_scale, last_bias, head, head_bias = leave
    groups, before = scale.shape[0], past.shape[1]
    channels, columns = groups * LANES, head_bias.size
    panels, new = channels // WIDE, count * groups
    window = np.empty((before + new, LANES), np.float32)
    normalised = np.empty((new, LANES), np.float32)
    inside = np.empty((count * DEEP // LANES, LANES), np.float32)
    x = np.empty((new, LANES), np.float32)
    here = (x, 0, channels)
    product((conditions, 0, heard), count, (weights, depth, 0), (offset, 0, 0), here, panels)
    for frame in range(count):
        normalise(x, frame * groups, groups, scale, bias, epsilon)
    for b in range(scales.shape[0]):
        for i in range(before):
            store(window, i, load(past[b], i))
        for i in range(new):
            store(window, before + i, load(x, i))
        for i in range(before):
            store(past[b], i, load(window, new + i))
        norm = (scales[b], biases[b], epsilon)
        convolve(window, count, taps[b], offsets[b], middle, norm, skip[b], normalised, x)
        perceptron(normalised, count, widen[b], widen_bias[b], narrow[b], inside, here, panels)
    for frame in range(count):
        normalise(x, frame * groups, groups, last_scale, last_bias, epsilon)
    product(here, count, (head, channels, 0), (head_bias, 0, 0), (out, 0, columns), columns // WIDE)

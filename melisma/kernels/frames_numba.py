"""A backbone of ConvNeXt blocks; channels last, sixteen of them at a time.

Arrays of frames are ``(frames * channels / 16, 16)``.
"""

import numpy as np

from melisma.kernels import LANES
from melisma.kernels.lanes_numba import compiled, everywhere, exponential, inner, load, store, sum_of
from melisma.kernels.matrix_numba import DEEP, WIDE, part_of_product, product
from melisma.kernels.waiting_numba import meet

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
# gelu(x) = x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))), the form with tanh in other words.
_LINEAR, _CUBIC = np.float32(-2.0 * np.sqrt(2.0 / np.pi)), np.float32(-2.0 * np.sqrt(2.0 / np.pi) * 0.044715)


@inner
def normalise(rows, first, groups, scale, bias, epsilon):  # type: ignore[no-untyped-def]
    """Layer norm of one frame in place."""
    total = everywhere(_ZERO)
    for g in range(groups):
        total = total + load(rows, first + g)
    mean = sum_of(total) / np.float32(groups * 16)
    total = everywhere(_ZERO)
    for g in range(groups):
        away = load(rows, first + g) - mean
        total = total + away * away
    shrink = _ONE / np.sqrt(sum_of(total) / np.float32(groups * 16) + epsilon)
    for g in range(groups):
        store(rows, first + g, (load(rows, first + g) - mean) * shrink * load(scale, g) + load(bias, g))


@inner
def begin_block(x, frames, first, stop, taps, offset, left, norm, skip, out, after):  # type: ignore[no-untyped-def]
    """Depthwise convolution and layer norm of the frames ``first`` to ``stop``; ``after`` becomes ``x + skip``."""
    scale, bias, epsilon = norm
    groups = scale.shape[0]
    size = taps.shape[0] // groups
    for frame in range(first, stop):
        low, high = max(0, left - frame), min(size, frames + left - frame)
        row = (frame - first) * groups
        for g in range(groups):
            total = load(offset, g)
            for tap in range(low, high):
                total = total + load(x, (frame - left + tap) * groups + g) * load(taps, tap * groups + g)
            store(out, row + g, total)
            store(after, frame * groups + g, load(x, frame * groups + g) + load(skip, g))
        normalise(out, row, groups, scale, bias, epsilon)


@inner
def gelu(x):  # type: ignore[no-untyped-def]
    """The Gaussian error linear unit in its form with tanh, of sixteen numbers."""
    return x / (exponential(x * (x * x * _CUBIC + _LINEAR)) + _ONE)


@inner
def perceptron(normalised, count, widen, widen_bias, narrow, inside, after, panels):  # type: ignore[no-untyped-def]
    """Add what a block makes of ``count`` frames to ``after``.

    What a frame becomes inside of a block goes out again while it is near, a part of ``DEEP`` numbers after the other.
    """
    channels, wide = panels * WIDE, widen_bias.size
    for c in range(0, wide, DEEP):
        part = min(DEEP, wide - c)
        within, chosen = (inside, 0, part), (widen, channels, c // WIDE)
        product((normalised, 0, channels), count, chosen, (widen_bias, c, 0), within, part // WIDE)
        for i in range(count * part // LANES):
            store(inside, i, gelu(load(inside, i)))
        part_of_product(within, count, (narrow, wide, 0), (c, part), after, after, panels)


@compiled
def backbone(worker, edges, counter, shape, given, entry, blocks, leave, work):  # type: ignore[no-untyped-def]
    """A worker's frames through all blocks; a block's convolution reads the neighbours' frames of the one before.

    Args:
        worker: its number.
        edges: frames at which the workers' parts begin and end, ``(workers + 1,)``.
        counter: on which they meet, 0 at first.
        shape: ``(frames that go through a block's products together, frames before that a convolution reads, epsilon
            of the norms)``.
        given: ``(conditions, rows)``: all frames with their padding, and how many rows a frame has.
        entry: ``(weights, bias, depth, scale, bias of the norm)``.
        blocks: ``(taps, offset, scale, bias, widen, its bias, narrow, skip)``, each with the block as its first axis;
            ``skip`` is added to a block's input on its way past the block.
        leave: ``(scale, bias of the norm, head, its bias)``.
        work: ``(x, other, out)``: the frames ``(frames * groups, 16)`` twice, what the head says ``(frames, width)``.
    """
    most, left, epsilon = shape
    conditions, heard = given
    weights, offset, depth, scale, bias = entry
    taps, offsets, scales, biases, widen, widen_bias, narrow, skip = blocks
    last_scale, last_bias, head, head_bias = leave
    x, other, out = work
    groups, frames = scale.shape[0], edges[-1]
    channels, columns = groups * LANES, head_bias.size
    panels = channels // WIDE
    first, stop = edges[worker], edges[worker + 1]
    mine = stop - first
    normalised = np.empty((most * groups, LANES), np.float32)
    inside = np.empty((most * DEEP // LANES, LANES), np.float32)
    here = (x, first * channels, channels)
    product((conditions, first * heard, heard), mine, (weights, depth, 0), (offset, 0, 0), here, panels)
    for frame in range(first, stop):
        normalise(x, frame * groups, groups, scale, bias, epsilon)
    for b in range(scales.shape[0]):
        meet(counter, (b + 1) * (edges.size - 1))
        norm = (scales[b], biases[b], epsilon)
        for start in range(first, stop, most):
            count = min(most, stop - start)
            begin_block(x, frames, start, start + count, taps[b], offsets[b], left, norm, skip[b], normalised, other)
            after = (other, start * channels, channels)
            perceptron(normalised, count, widen[b], widen_bias[b], narrow[b], inside, after, panels)
        x, other = other, x
    for frame in range(first, stop):
        normalise(x, frame * groups, groups, last_scale, last_bias, epsilon)
    said = (out, first * columns, columns)
    product((x, first * channels, channels), mine, (head, channels, 0), (head_bias, 0, 0), said, columns // WIDE)

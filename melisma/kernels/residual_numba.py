"""The next chunk through a residual block of leaky ReLUs; see :mod:`melisma.kernels.residual`.

Signals are flat, channel by channel. A step is ``(first, second, waiting, kept)``: two layers, what of the block's
input still waits for the second one, and room for what will. A layer is ``(convolution, tail, zeros, kept, outputs)``:
what the kernel needs of it, the samples it has heard before, how many numbers of zeros come before those and behind the
last one, room for the next tail, and how many numbers come out.
"""

import numpy as np

from melisma.kernels.lanes_numba import compiled, inner
from melisma.kernels.matrix_numba import WIDE, product
from melisma.kernels.winograd_numba import convolve

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@inner
def heard(x, slope, layer):  # type: ignore[no-untyped-def]
    """What a convolution without padding is to hear: what is new after a leaky ReLU, behind what was; keeps the end."""
    _convolution, tail, zeros, kept, _outputs = layer
    before, behind = zeros
    start = before + tail.size
    joined = np.empty(start + x.size + behind, np.float32)
    joined[:before] = _ZERO
    joined[before:start] = tail
    new = joined[start:]
    for i in range(x.size):
        new[i] = x[i] if x[i] > _ZERO else x[i] * slope
    joined[start + x.size :] = _ZERO
    kept[:] = joined[joined.size - kept.size :]
    return joined


@inner
def bases(x, step):  # type: ignore[no-untyped-def]
    """What is added to the second layer's outputs, in the place where they will be; keeps what waits on."""
    _first, second, waiting, kept = step
    out = np.empty(second[4], np.float32)
    early = min(waiting.size, out.size)
    out[:early] = waiting[:early]
    out[early:] = x[: out.size - early]
    left = waiting.size - early
    kept[:left] = waiting[early:]
    kept[left:] = x[out.size - early :]
    return out


@inner
def sum_taps(joined, convolution, out):  # type: ignore[no-untyped-def]
    """Add a convolution, tap by tap, to what stands in ``out``; it is ``(weights, bias, taps, dilation)``."""
    weights, bias, taps, dilation = convolution
    channels = bias.size
    if out.size == 0:
        return
    rows, panels, target = out.size // channels, channels // WIDE, (out, 0, channels)
    for row in range(rows):
        for i in range(channels):
            out[row * channels + i] += bias[i]
    for tap in range(taps):
        source, chosen = (joined, tap * dilation * channels, channels), (weights, channels, tap * panels)
        product(source, rows, chosen, target, target, panels)


@compiled
def summed(x, slope, steps):  # type: ignore[no-untyped-def]
    """Three steps tap by tap, for few samples; a convolution is that of :func:`sum_taps`."""
    for number in range(3):
        step = steps[number]
        first, second = step[0], step[1]
        joined = heard(x, slope, first)
        between = np.zeros(first[4], np.float32)
        sum_taps(joined, first[0], between)
        joined = heard(between, slope, second)
        out = bases(x, step)
        sum_taps(joined, second[0], out)
        x = out
    return x


@inner
def filter_by(convolution, joined, out, added):  # type: ignore[no-untyped-def]
    """Fill ``out`` with a convolution by minimal filtering, or add it; it is ``(weights, bias, channels, shape)``."""
    weights, bias, channels, shape = convolution
    if out.size > 0:
        convolve(joined, out, out, added, _ONE, weights, bias, channels, shape)


@compiled
def filtered(x, slope, steps):  # type: ignore[no-untyped-def]
    """Three steps by minimal filtering; a convolution is that of :func:`filter_by`."""
    for number in range(3):
        step = steps[number]
        first, second = step[0], step[1]
        joined = heard(x, slope, first)
        between = np.empty(first[4], np.float32)
        filter_by(first[0], joined, between, False)
        joined = heard(between, slope, second)
        out = bases(x, step)
        filter_by(second[0], joined, out, True)
        x = out
    return x

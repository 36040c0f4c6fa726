"""The next chunk through a residual block; see :mod:`melisma.kernels.residual`.

Signals are flat, channel by channel. A step is ``(first, second, waiting, kept)``: two layers, what of the block's
input still waits for the second one, and room for what will. A layer is ``(activation, convolution, tail, zeros, kept,
outputs)``: what the kernel needs of both, the samples that the convolution has heard before, how many numbers of zeros
come before those and behind the last one, room for the next tail, and how many numbers come out.

An activation is the slope of a leaky ReLU, or ``(settings, taps, rising, falling)`` of an anti-aliased snake:
frequencies and heights of all channels, the low-pass, and for either sampling ``(tail, edges, kept, outputs)``: what it
has heard before, how often the first sample stands before and the last one behind, room for the next tail, and how many
numbers come out.

What a convolution is, is told by what stands in its tuple: :func:`_sum_taps`, :func:`_filter`, and where there is AMX
:mod:`melisma.kernels.residual_amx_numba`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from melisma.kernels.lanes_numba import compiled, inner, one_of
from melisma.kernels.matrix_numba import WIDE, product
from melisma.kernels.snake_lanes_numba import down, up
from melisma.kernels.winograd_numba import convolve

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@compiled
def next_samples(x, steps):  # type: ignore[no-untyped-def]
    """What three steps make of a chunk."""
    for number in range(3):
        first, second, waiting, kept = steps[number]
        between = np.zeros(first[5], np.float32)
        add_convolution(first[1], heard(x, first[0], first), between)
        joined = heard(between, second[0], second)
        out = _bases(x, waiting, kept, second[5])
        add_convolution(second[1], joined, out)
        x = out
    return x


@one_of
def add_convolution(convolution: Any, joined: Any, out: Any) -> Callable[..., None] | None:
    """Add the convolution of ``joined``, which it does not pad, to what stands in ``out``."""
    if isinstance(convolution[0], types.BaseTuple):
        return None  # tiles
    return _sum_taps if isinstance(convolution[2], types.Integer) else _filter


@one_of
def heard(x: Any, activation: Any, layer: Any) -> Callable[..., Any]:
    """What the convolution of a layer is to hear: what is new after the activation, behind what was; keeps the end."""
    return _heard_snake if isinstance(activation, types.BaseTuple) else _heard_leaky


def _sum_taps(convolution, joined, out):  # type: ignore[no-untyped-def]
    """Tap by tap, for few samples; a convolution is ``(weights, bias, taps, dilation)``."""
    weights, bias, taps, dilation = convolution
    channels = bias.size
    if out.size > 0:
        rows, panels, target = out.size // channels, channels // WIDE, (out, 0, channels)
        for row in range(rows):
            for i in range(channels):
                out[row * channels + i] += bias[i]
        for tap in range(taps):
            source, chosen = (joined, tap * dilation * channels, channels), (weights, channels, tap * panels)
            product(source, rows, chosen, target, target, panels)


def _filter(convolution, joined, out):  # type: ignore[no-untyped-def]
    """By minimal filtering; a convolution is ``(weights, bias, channels, shape)``."""
    weights, bias, channels, shape = convolution
    if out.size > 0:
        convolve(joined, out, out, _ONE, weights, bias, channels, shape)


def _heard_leaky(x, activation, layer):  # type: ignore[no-untyped-def]
    _activation, _convolution, tail, zeros, kept, _outputs = layer
    return _joined(x, activation, tail, zeros, kept)


def _heard_snake(x, activation, layer):  # type: ignore[no-untyped-def]
    settings, taps, rising, falling = activation
    _activation, _convolution, tail, zeros, kept, _outputs = layer
    channels = settings.shape[1]
    raised = np.empty(rising[3], np.float32)
    up(_continued(x, rising, channels), channels, settings, taps, raised)
    lowered = np.empty(falling[3], np.float32)
    down(_continued(raised, falling, channels), channels, taps, lowered)
    return _joined(lowered, _ONE, tail, zeros, kept)


@inner
def _joined(x, slope, tail, zeros, kept):  # type: ignore[no-untyped-def]
    """What is new after a leaky ReLU, behind what was, between zeros; keeps the end."""
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
def _continued(x, sampling, channels):  # type: ignore[no-untyped-def]
    """What is new behind what was, with the ends continued; keeps the end."""
    tail, edges, kept, _outputs = sampling
    before, behind = edges
    start, stop = before * channels + tail.size, before * channels + tail.size + x.size
    joined = np.empty(stop + behind * channels, np.float32)
    joined[before * channels : start] = tail
    joined[start:stop] = x
    for row in range(before):
        joined[row * channels : (row + 1) * channels] = joined[before * channels : (before + 1) * channels]
    for row in range(behind):
        joined[stop + row * channels : stop + (row + 1) * channels] = joined[stop - channels : stop]
    kept[:] = joined[joined.size - kept.size :]
    return joined


@inner
def _bases(x, waiting, kept, outputs):  # type: ignore[no-untyped-def]
    """What is added to the second layer's outputs, in the place where they will be; keeps what waits on."""
    out = np.empty(outputs, np.float32)
    early = min(waiting.size, out.size)
    out[:early] = waiting[:early]
    out[early:] = x[: out.size - early]
    left = waiting.size - early
    kept[:left] = waiting[early:]
    kept[left:] = x[out.size - early :]
    return out

"""The next chunk through a residual block of anti-aliased snakes; see :mod:`melisma.kernels.residual`.

As in :mod:`melisma.kernels.residual_numba`, but before each layer of a step stands its snake: ``(settings, up, down)``,
frequencies and heights of all channels, and for either sampling ``(tail, edges, kept, outputs)``: what it has heard
before, how often the first sample stands before and the last one behind, room for the next tail, and how many numbers
come out.
"""

import numpy as np

from melisma.kernels.lanes_numba import compiled, inner
from melisma.kernels.residual_numba import bases, filter_by, heard, sum_taps
from melisma.kernels.snake_lanes_numba import down, up

_ONE = np.float32(1.0)


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
def activated(x, snake, taps, channels):  # type: ignore[no-untyped-def]
    """The samples of an anti-aliased snake that a chunk makes known."""
    settings, rising, falling = snake
    joined = _continued(x, rising, channels)
    raised = np.empty(rising[3], np.float32)
    up(joined, channels, settings, taps, raised)
    joined = _continued(raised, falling, channels)
    lowered = np.empty(falling[3], np.float32)
    down(joined, channels, taps, lowered)
    return lowered


@compiled
def filtered(x, taps, channels, steps):  # type: ignore[no-untyped-def]
    """Three steps with convolutions by minimal filtering; see :func:`melisma.kernels.residual_numba.filtered`."""
    for number in range(3):
        step, snakes = steps[number]
        first, second = step[0], step[1]
        joined = heard(activated(x, snakes[0], taps, channels), _ONE, first)
        between = np.empty(first[4], np.float32)
        filter_by(first[0], joined, between, False)
        joined = heard(activated(between, snakes[1], taps, channels), _ONE, second)
        out = bases(x, step)
        filter_by(second[0], joined, out, True)
        x = out
    return x


@compiled
def summed(x, taps, channels, steps):  # type: ignore[no-untyped-def]
    """Three steps with convolutions tap by tap; see :func:`melisma.kernels.residual_numba.summed`."""
    for number in range(3):
        step, snakes = steps[number]
        first, second = step[0], step[1]
        joined = heard(activated(x, snakes[0], taps, channels), _ONE, first)
        between = np.zeros(first[4], np.float32)
        sum_taps(joined, first[0], between)
        joined = heard(activated(between, snakes[1], taps, channels), _ONE, second)
        out = bases(x, step)
        sum_taps(joined, second[0], out)
        x = out
    return x

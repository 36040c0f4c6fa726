"""The kernels of :mod:`melisma.kernels.residual` with convolutions in the tiles of AMX, in bfloat16."""

import numpy as np

from melisma.kernels.amx_numba import convolve
from melisma.kernels.lanes_numba import compiled
from melisma.kernels.residual_numba import bases, heard
from melisma.kernels.residual_snake_numba import activated

_ONE = np.float32(1.0)


@compiled
def in_tiles(x, slope, steps, channels, configuration):  # type: ignore[no-untyped-def]
    """Three steps; a convolution is the layer of a :class:`melisma.kernels.amx.AmxConvolution`."""
    cut = (True, True)
    for number in range(3):
        step = steps[number]
        first, second = step[0], step[1]
        joined = heard(x, slope, first)
        between = np.empty(first[4], np.float32)
        if between.size > 0:
            convolve(joined, between, between, False, _ONE, first[0], cut, channels, configuration)
        joined = heard(between, slope, second)
        out = bases(x, step)
        if out.size > 0:
            convolve(joined, out, out, True, _ONE, second[0], cut, channels, configuration)
        x = out
    return x


@compiled
def snakes_in_tiles(x, taps, channels, steps, configuration):  # type: ignore[no-untyped-def]
    """Three steps of snakes; see :mod:`melisma.kernels.residual_snake_numba`."""
    cut = (True, True)
    for number in range(3):
        step, snakes = steps[number]
        first, second = step[0], step[1]
        joined = heard(activated(x, snakes[0], taps, channels), _ONE, first)
        between = np.empty(first[4], np.float32)
        if between.size > 0:
            convolve(joined, between, between, False, _ONE, first[0], cut, channels, configuration)
        joined = heard(activated(between, snakes[1], taps, channels), _ONE, second)
        out = bases(x, step)
        if out.size > 0:
            convolve(joined, out, out, True, _ONE, second[0], cut, channels, configuration)
        x = out
    return x

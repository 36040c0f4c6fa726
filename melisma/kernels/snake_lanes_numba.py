"""The anti-aliased snake of :mod:`melisma.kernels.snake_numba` for channels that fill lanes, channels last.

Sixteen channels at a time go up, through the snake and down again over a hundred samples, which stay in the nearest
cache; both phases of the upsampling share what they read. Signals are ``(time * groups, 16)``, flat or not: a group is
sixteen channels.
"""

import numpy as np

from melisma.kernels import LANES
from melisma.kernels.lanes_numba import compiled, inner, larger, load, smaller, store
from melisma.kernels.polynomials import ROUND, SINE_SQUARED
from melisma.kernels.snake_numba import MARGIN

_STEP = 128  # samples of a block
_LINE = 64  # bytes
_ROUND, _HALF = np.float32(ROUND), np.float32(0.5)
_P = tuple(np.float32(value) for value in SINE_SQUARED)


@inner
def _of(taps):  # type: ignore[no-untyped-def]
    """Six taps that no store can change."""
    return taps[0], taps[1], taps[2], taps[3], taps[4], taps[5]


@inner
def _rows(count):  # type: ignore[no-untyped-def]
    """Room for lanes that begin where a line of the cache does."""
    room = np.empty((count + 1) * LANES, np.float32)
    return room[(-room.ctypes.data % _LINE) // 4 :]


@inner
def _six(values, row, apart, taps):  # type: ignore[no-untyped-def]
    """Weighted sum of six rows that are so far apart."""
    total = load(values, row) * taps[0] + load(values, row + apart) * taps[1]
    total = total + load(values, row + 2 * apart) * taps[2] + load(values, row + 3 * apart) * taps[3]
    return total + load(values, row + 4 * apart) * taps[4] + load(values, row + 5 * apart) * taps[5]


@inner
def _snake(value, frequency, height):  # type: ignore[no-untyped-def]
    """``u + height sin(pi frequency u)^2``."""
    cycles = value * frequency
    part = cycles - ((cycles + _ROUND) - _ROUND)
    # Beyond 2^22 cycles single precision has no fraction left; the polynomial must stay in its range all the same.
    part = smaller(larger(part, -_HALF), _HALF)
    q = part * part
    series = _P[0] + q * (_P[1] + q * (_P[2] + q * (_P[3] + q * (_P[4] + q * (_P[5] + q * _P[6])))))
    return value + height * (q * series)


@compiled
def forward(x, time, width, snake, taps, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the anti-aliased snake of ``x``; arguments as of :func:`melisma.kernels.snake_numba.forward`.

    ``width`` is a multiple of sixteen, and ``snake`` the same for all rows, ``(1, 2, width)``.
    """
    groups = width // LANES
    settings = snake.reshape(-1)
    up_even, up_odd, down_even, down_odd = _of(taps[0, 0]), _of(taps[0, 1]), _of(taps[1, 0]), _of(taps[1, 1])
    source, even, odd = _rows(_STEP + 4 * MARGIN), _rows(_STEP + 2 * MARGIN), _rows(_STEP + 2 * MARGIN)
    for start in range(0, x.size // LANES, time * groups):
        for first in range(0, time, _STEP):
            count = min(_STEP, time - first)
            for g in range(groups):
                frequency, height = load(settings, g), load(settings, groups + g)
                for i in range(count + 4 * MARGIN):
                    row = min(max(first - 2 * MARGIN + i, 0), time - 1)  # the ends are continued
                    store(source, i, load(x, start + row * groups + g))
                for i in range(count + 2 * MARGIN):
                    store(even, i, _snake(_six(source, i, 1, up_even), frequency, height))
                    store(odd, i, _snake(_six(source, i + 1, 1, up_odd), frequency, height))
                # Before the first sample stands the first upsampled value, after the last one the last.
                for i in range(MARGIN - first):
                    store(even, i, load(even, MARGIN - first))
                    store(odd, i, load(even, MARGIN - first))
                last = time - 1 - first + MARGIN
                for i in range(last + 1, count + 2 * MARGIN):
                    store(even, i, load(odd, last))
                    store(odd, i, load(odd, last))
                for i in range(count):
                    made = _six(even, i + 1, 1, down_even) + _six(odd, i, 1, down_odd)
                    store(out, start + (first + i) * groups + g, made)


@compiled
def up(x, width, snake, taps, out):  # type: ignore[no-untyped-def]
    """See :func:`melisma.kernels.snake_numba.up`."""
    groups = width // LANES
    settings, even, odd = snake.reshape(-1), _of(taps[0, 0]), _of(taps[0, 1])
    for g in range(groups):
        frequency, height = load(settings, g), load(settings, groups + g)
        for i in range(out.size // (2 * width)):
            row = i * groups + g
            made = _snake(_six(x, row, groups, even), frequency, height)
            store(out, 2 * i * groups + g, made)
            made = _snake(_six(x, row + groups, groups, odd), frequency, height)
            store(out, (2 * i + 1) * groups + g, made)


@compiled
def down(values, width, taps, out):  # type: ignore[no-untyped-def]
    """See :func:`melisma.kernels.snake_numba.down`."""
    groups, even, odd = width // LANES, _of(taps[1, 0]), _of(taps[1, 1])
    for i in range(out.size // width):
        for g in range(groups):
            row = 2 * i * groups + g
            made = _six(values, row + groups, 2 * groups, even) + _six(values, row, 2 * groups, odd)
            store(out, i * groups + g, made)

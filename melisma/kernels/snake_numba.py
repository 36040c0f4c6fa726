"""The anti-aliased snake on a CPU in one pass, compiled by numba (LLVM comes with its wheel; no compiler is needed).

Up-sampling is polyphase: of the twelve taps six meet samples for an even output and six for an odd one, and the zeros
between the samples are never touched. A block of rows goes up, through ``u + h sin(a u)^2`` and down again while it is
in the cache. Arrays are ``(rows, time, width)``: ``width`` values share a time step, so that the inner loops run over
contiguous memory in either layout: channels last is ``(batch, time, channels)``, channels first is
``(batch * channels, time, 1)``.

Importing this module imports numba; ``melisma.kernels.snake`` does so when a kernel is first called.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from melisma.kernels.keeping import kept
from melisma.kernels.polynomials import DOUBLE_SINE, ROUND, SINE_SQUARED

MARGIN = 3  # rows on either side of a block that its output depends on, once up and once down
_BLOCK_VALUES = 8192  # values of a block: its five work arrays stay in the second-level cache
_LEAST_ROWS = 64
_ROUND = np.float32(ROUND)
# Contraction to fused multiply-add only: reordering sums would undo the rounding trick.
_FAST = frozenset({"contract"})


_P = tuple(np.float32(value) for value in SINE_SQUARED)
_Q = tuple(np.float32(value) for value in DOUBLE_SINE)
_HALF = np.float32(0.5)


def _compiled(function: Callable[..., Any], fastmath: frozenset[str] = _FAST) -> Callable[..., Any]:
    """See :func:`melisma.kernels.keeping.kept`."""
    return kept(function, fastmath)


@njit(inline="always", fastmath=set(_FAST))
def _cycle_part(cycles: np.float32) -> np.float32:
    part = cycles - ((cycles + _ROUND) - _ROUND)
    # Beyond 2^22 cycles single precision has no fraction left; the polynomial must stay in its range all the same.
    return min(max(part, -_HALF), _HALF)


@njit(inline="always", fastmath=set(_FAST))
def _sine_squared(cycles: np.float32) -> np.float32:
    """``sin(pi cycles)^2``."""
    part = _cycle_part(cycles)
    q = part * part
    return q * (_P[0] + q * (_P[1] + q * (_P[2] + q * (_P[3] + q * (_P[4] + q * (_P[5] + q * _P[6]))))))


@njit(inline="always", fastmath=set(_FAST))
def _double_sine(cycles: np.float32) -> np.float32:
    """``sin(2 pi cycles)``."""
    part = _cycle_part(cycles)
    q = part * part
    return part * (_Q[0] + q * (_Q[1] + q * (_Q[2] + q * (_Q[3] + q * (_Q[4] + q * (_Q[5] + q * _Q[6]))))))


@_compiled
def _add_six(values, start, width, count, w, out, into):  # type: ignore[no-untyped-def]
    """``out[into + i] += sum over k of values[start + i + k * width] * w[k]``.

    Apart from what comes before and after it: a loop over more arrays does not become vector code.
    """
    w0, w1, w2, w3, w4, w5 = w[0], w[1], w[2], w[3], w[4], w[5]
    v0, v1, v2 = values[start:], values[start + width :], values[start + 2 * width :]
    v3, v4, v5 = values[start + 3 * width :], values[start + 4 * width :], values[start + 5 * width :]
    target = out[into:]
    for i in range(count):
        target[i] += v0[i] * w0 + v1[i] * w1 + v2[i] * w2 + v3[i] * w3 + v4[i] * w4 + v5[i] * w5


@_compiled
def _activate(values, frequency, height, count):  # type: ignore[no-untyped-def]
    for n in range(count):
        i = np.uintp(n)
        u = values[i]
        values[i] = u + height[i] * _sine_squared(u * frequency[i])


@_compiled
def _fill(x, start, time, width, first, rows, out):  # type: ignore[no-untyped-def]
    """Rows ``first`` to ``first + rows`` of a clip of ``time`` rows into ``out``; the ends are continued."""
    low, high = max(first, 0), min(first + rows, time)
    source, target = x[start + low * width :], out[(low - first) * width :]
    for i in range((high - low) * width):
        target[i] = source[i]
    before, after = (low - first) * width, (first + rows - high) * width
    for i in range(before):
        out[i] = x[start + i % width]
    source, target = x[start + (time - 1) * width :], out[(high - first) * width :]
    for i in range(after):
        target[i] = source[i % width]


@_compiled
def _continue(pair, first, stop, time, width):  # type: ignore[no-untyped-def]
    """Before the first sample stands the first upsampled value, after the last one the last."""
    for row in range(first - MARGIN, stop + MARGIN):
        if row < 0 or row >= time:
            phase, kept = (0, 0) if row < 0 else (1, time - 1)
            here, there = (row - first + MARGIN) * width, (kept - first + MARGIN) * width
            for i in range(width):
                value = pair[phase, there + i]
                pair[0, here + i], pair[1, here + i] = value, value


@_compiled
def _clip(x, start, time, width, up, down, source, pair, height, out):  # type: ignore[no-untyped-def]
    """One row of :func:`forward`: ``time * width`` values of the flat ``x`` and ``out`` from ``start`` on."""
    step = pair.shape[1] // width - 2 * MARGIN
    for first in range(0, time, step):
        stop = min(time, first + step)
        rows, into = stop - first + 2 * MARGIN, start + first * width
        _fill(x, start, time, width, first - 2 * MARGIN, rows + 2 * MARGIN, source)
        pair[:] = 0.0
        for phase in range(2):
            _add_six(source, phase * width, width, rows * width, up[phase], pair[phase], 0)
            _activate(pair[phase], height[0], height[1], rows * width)
        _continue(pair, first, stop, time, width)
        out[into : start + stop * width] = 0.0
        for phase in range(2):
            _add_six(pair[phase], (1 - phase) * width, width, (stop - first) * width, down[phase], out, into)


@_compiled
def forward(x, time, width, snake, taps, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the anti-aliased snake of ``x``.

    Args:
        x: float32, ``rows * time * width`` values, flat.
        time: samples of a row.
        width: values that share a time step.
        snake: ``alpha / pi`` and ``1 / beta``, float32 ``(groups, 2, width)``; row ``r`` has those of group
            ``r % groups``.
        taps: see :func:`phases`.
        out: like ``x``, and not the same memory.
    """
    step = min(max(_LEAST_ROWS, _BLOCK_VALUES // width), time)
    most = (step + 2 * MARGIN) * width
    source = np.empty(most + 2 * MARGIN * width, np.float32)
    pair, settings = np.empty((2, most), np.float32), np.empty((2, most), np.float32)
    for row in range(x.size // (time * width)):
        if row == 0 or snake.shape[0] > 1:
            values = snake[row % snake.shape[0]]
            for which in range(2):
                for i in range(0, most, width):
                    for c in range(width):
                        settings[which, i + c] = values[which, c]
        _clip(x, row * time * width, time, width, taps[0], taps[1], source, pair, settings, out)


@_compiled
def up(x, width, snake, taps, out):  # type: ignore[no-untyped-def]
    """The first half of :func:`forward` for a chunk of one clip: upsampled and activated, without its ends.

    Args:
        x: float32, ``time * width`` values, flat.
        width: values that share a time step.
        snake: ``alpha / pi`` and ``1 / beta``, ``(2, width)``.
        taps: see :func:`phases`.
        out: to be filled, ``2 * (time - 6) * width``.
    """
    count = out.size // 2
    made = np.zeros(count, np.float32)
    for phase in range(2):
        made[:] = 0.0
        _add_six(x, phase * width, width, count, taps[0, phase], made, 0)
        for first in range(0, count, width):
            row = made[first : first + width]
            _activate(row, snake[0], snake[1], width)
            target = out[2 * first + phase * width :]
            for i in range(width):
                target[i] = row[i]


@_compiled
def down(values, width, taps, out):  # type: ignore[no-untyped-def]
    """The second half: ``2 * time + 10`` rows of ``width`` values to ``time``, both flat."""
    half = values.size // 2
    phase = np.empty(half, np.float32)
    out[:] = 0.0
    for odd in range(2):
        for first in range(0, half, width):
            source, target = values[2 * first + odd * width :], phase[first:]
            for i in range(width):
                target[i] = source[i]
        _add_six(phase, 0, width, out.size, taps[1, 1 - odd], out, 0)


@partial(_compiled, fastmath=frozenset({"contract", "reassoc"}))
def _sum(values, count):  # type: ignore[no-untyped-def]
    total = 0.0
    for first in range(0, count, 1024):
        part = np.float32(0.0)
        for n in range(first, min(first + 1024, count)):
            part += values[np.uintp(n)]
        total += part
    return total


@_compiled
def _through(u, g, frequency, height, count, scratch, sums):  # type: ignore[no-untyped-def]
    """Gradient ``g`` of the activated values to that of the upsampled ``u``, in place; sums for the parameters."""
    slope = np.float32(math.pi) * frequency * height
    u0, g0 = np.uintp(MARGIN), np.uintp(2 * MARGIN)
    for n in range(count):
        i = np.uintp(n)
        scratch[i] = g[g0 + i] * _sine_squared(u[u0 + i] * frequency)
    sums[1] += _sum(scratch, count)
    for n in range(count):
        i = np.uintp(n)
        sine = _double_sine(u[u0 + i] * frequency)
        scratch[i] = g[g0 + i] * u[u0 + i] * sine
        g[g0 + i] *= np.float32(1.0) + slope * sine
    sums[0] += _sum(scratch, count) * math.pi * height


@_compiled
def _clip_backward(x, grad, start, time, frequency, height, taps, source, pair, grads, sums, out):  # type: ignore[no-untyped-def]
    """One row of :func:`backward`."""
    m, wide, end = MARGIN, time + 2 * MARGIN, time + 2 * MARGIN
    pair[:] = 0.0
    grads[:] = 0.0
    _fill(x, start, time, 1, -2 * m, time + 4 * m, source)
    for phase in range(2):
        _add_six(source, phase, 1, wide, taps[0, phase], pair[phase], 0)
    # Against the down-sampling; what its continued ends read goes to the first and the last value.
    source[: 2 * m], source[end:] = 0.0, 0.0
    source[2 * m : end] = grad[start : start + time]
    for phase in range(2):
        _add_six(source, phase, 1, wide, taps[2, phase], grads[phase], m)
    for i in range(m):
        grads[0, 2 * m] += grads[0, m + i] + grads[1, m + i]
        grads[1, end - 1] += grads[0, end + i] + grads[1, end + i]
    sums[:] = 0.0
    for phase in range(2):
        _through(pair[phase], grads[phase], frequency, height, time, source, sums)
    # Against the up-sampling, likewise.
    grads[:, : 2 * m], grads[:, end:], pair[0] = 0.0, 0.0, 0.0
    for phase in range(2):
        _add_six(grads[phase], 1 - phase, 1, wide, taps[3, phase], pair[0], 0)
    for i in range(time):
        out[start + i] = pair[0, m + i]
    for i in range(m):
        out[start] += pair[0, i]
        out[start + time - 1] += pair[0, m + time + i]


@_compiled
def backward(x, grad, time, snake, taps, grad_x, grad_snake):  # type: ignore[no-untyped-def]
    """Gradients of :func:`forward`, channels first.

    Args:
        x: float32, ``rows * time`` values, flat.
        grad: of the output, the same shape.
        time: samples of a row.
        snake: ``alpha / pi`` and ``1 / beta``, ``(groups, 2, 1)``.
        taps: see :func:`phases`.
        grad_x: to be filled, like ``x``.
        grad_snake: to be filled, float64 ``(rows, 2)``: of ``snake``, summed over time.
    """
    source, pair = np.empty(time + 4 * MARGIN, np.float32), np.empty((2, time + 2 * MARGIN), np.float32)
    grads = np.empty((2, time + 4 * MARGIN), np.float32)
    for row in range(x.size // time):
        frequency, height = snake[row % snake.shape[0], 0, 0], snake[row % snake.shape[0], 1, 0]
        _clip_backward(x, grad, row * time, time, frequency, height, taps, source, pair, grads, grad_snake[row], grad_x)


def phases(taps: np.ndarray) -> np.ndarray:
    """The twelve taps as they meet the phases, ``(4, 2, 6)``: up, down, and the transposes of down and of up."""
    up = np.stack([2 * taps[11::-2], 2 * taps[10::-2]])
    down = np.stack([taps[1::2], taps[0::2]])
    return np.ascontiguousarray(np.stack([up, down, down[:, ::-1], up[:, ::-1]]), dtype=np.float32)

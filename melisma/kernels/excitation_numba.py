"""Pulse trains and counted noise, compiled by numba; see :mod:`melisma.pulse` and :mod:`melisma.noise`."""

import numpy as np

from melisma.kernels import LANES
from melisma.kernels.lanes_numba import (
    compiled,
    everywhere,
    exponential,
    load,
    root,
    sine_and_cosine_of_cycles,
    store,
    where_less,
    whole_below,
)

_ONE, _HALF, _TWO = np.float32(1.0), np.float32(0.5), np.float32(2.0)
_COARSE = np.float64(1 << 16)
_NEAR = np.float32((1e-4 / np.pi) ** 2)  # squared cycles from a pulse's middle


@compiled
def pulses(segments, offset, shape, position, out):  # type: ignore[no-untyped-def]
    """The pulse train of segments between the centres of frames.

    Args:
        segments: F0 and voicing at both ends and the logarithm of the ratio of the F0s, float32 ``(segments, 5)``.
        offset: cycles at the start of each, float64 ``(segments,)``.
        shape: ``(sample rate, harmonics times Hz)``: of the highest harmonic.
        position: of the samples in a segment, 0 to 1, ``(hop / 16, 16)``.
        out: ``(segments * hop / 16, 16)``.
    """
    sample_rate, highest_hz = shape
    rows = position.shape[0]
    frequency, cycles = np.empty((rows, LANES), np.float32), np.empty((rows, LANES), np.float32)
    step, rate = np.float64(1.0) / sample_rate, np.float32(_ONE / np.float32(sample_rate))
    for s in range(segments.shape[0]):
        begin, before, after, ratio = segments[s, 0], segments[s, 2], segments[s, 3], segments[s, 4]
        for g in range(rows):
            store(frequency, g, exponential(load(position, g) * ratio) * begin)
        phase = offset[s]
        for g in range(rows):
            for lane in range(LANES):
                phase += np.float64(frequency[g, lane]) * step
                cycles[g, lane] = np.float32(phase - np.rint(phase))
        for g in range(rows):
            hertz, cycle = load(frequency, g), load(cycles, g)
            harmonics = everywhere(highest_hz) / hertz
            whole = whole_below(harmonics)
            sine, _ = sine_and_cosine_of_cycles(cycle * _HALF)
            many, _ = sine_and_cosine_of_cycles((whole * _TWO + _ONE) * (cycle * _HALF))
            _, top = sine_and_cosine_of_cycles((whole + _ONE) * cycle)
            square = cycle * cycle
            sine = where_less(square, _NEAR, everywhere(_ONE), sine)
            sum_of_whole = where_less(square, _NEAR, whole, many * _HALF / sine - _HALF)
            amplitude = (load(position, g) * (after - before) + before) * _TWO * root(hertz * rate)
            store(out, s * rows + g, amplitude * (sum_of_whole + (harmonics - whole) * top))


@compiled
def normal(start, keys, constants, table, out):  # type: ignore[no-untyped-def]
    """Counted normal noise.

    Args:
        start: absolute index of the first row.
        keys: of the streams, uint64.
        constants: Weyl increment and two multipliers, uint64 ``(3,)``.
        table: of quantiles, ``(2^16,)``.
        out: ``(rows, streams)``.
    """
    weyl, first, second = constants[0], constants[1], constants[2]
    for row in range(out.shape[0]):
        base = np.uint64(start + row) * weyl
        for column in range(out.shape[1]):
            word = base + keys[column]
            word = (word ^ (word >> np.uint64(30))) * first
            word = (word ^ (word >> np.uint64(27))) * second
            high, low = word >> np.uint64(48), (word >> np.uint64(32)) & np.uint64(0xFFFF)
            out[row, column] = table[high] + table[low]


@compiled
def harmonics(first, stop, phase, offsets, weights, noise, levels, out):  # type: ignore[no-untyped-def]
    """Weighted harmonics of a phase, and weighted noise beside them.

    Args:
        first: row of sixteen samples.
        stop: row.
        phase: cycles of the fundamental, float64 ``(samples,)``, 0 to 1.
        offsets: cycles that every harmonic is ahead, float32 ``(harmonics,)``.
        weights: of the harmonics, and of the columns of noise.
        noise: ``(samples, harmonics)``.
        levels: of harmonics and of noise in every row, ``(rows, 2)``.
        out: ``(rows, 16)``.
    """
    # Coarse parts of a phase times a number are exact, and so are their fractions; fine parts are too small to matter.
    coarse, fine = np.empty((1, LANES), np.float32), np.empty((1, LANES), np.float32)
    for row in range(first, stop):
        for lane in range(LANES):
            cycles = phase[row * LANES + lane]
            near = np.rint(cycles * _COARSE) / _COARSE
            coarse[0, lane], fine[0, lane] = np.float32(near), np.float32(cycles - near)
        total = everywhere(np.float32(0.0))
        for h in range(weights.size):
            number = np.float32(h + 1)
            most = load(coarse, 0) * number
            turn = most - whole_below(most + _HALF) + (load(fine, 0) * number + offsets[h])
            sine, _ = sine_and_cosine_of_cycles(turn)
            total = total + sine * weights[h]
        store(out, row, total * levels[row, 0])
        for lane in range(LANES):
            drawn = np.float32(0.0)
            for h in range(weights.size):
                drawn += noise[row * LANES + lane, h] * weights[h]
            out[row, lane] += drawn * levels[row, 1]

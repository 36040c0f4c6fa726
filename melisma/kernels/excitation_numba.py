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

_ZERO, _ONE, _HALF, _TWO = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(2.0)
_LEAST_HZ = np.float32(1e-3)
_COARSE = np.float64(1 << 16)
_NEAR = np.float32((1e-4 / np.pi) ** 2)  # squared cycles from a pulse's middle


@compiled
def held(f0, frames, out):  # type: ignore[no-untyped-def]
    """See :class:`melisma.layers.framing.Hold`; both curves are ``(frames,)``."""
    for f in range(f0.size):
        made = f0[f]
        away = 1
        while not made > 0.0 and away <= frames:
            before = f0[f - away] if f >= away else _ZERO
            behind = f0[f + away] if f + away < f0.size else _ZERO
            made = before if before > 0.0 else behind
            away += 1
        out[f] = made


@compiled
def segments(edges, phase, shape, out, ratio, offset):  # type: ignore[no-untyped-def]
    """What :func:`melisma.pulse.next_pulses` needs of a curve; the phase at its end, within one cycle.

    Args:
        edges: F0 at the centres of frames, float32 ``(segments + 1,)``.
        phase: cycles at the first of them.
        shape: ``(sample rate, hop)``.
        out: made here but for its last column, see :func:`pulses`.
        ratio: made here: of the F0s at both ends, float32 ``(segments,)``.
        offset: made here, see :func:`pulses`.
    """
    sample_rate, hop = shape
    advanced = 0.0
    for s in range(offset.size):
        left, right = edges[s], edges[s + 1]
        start = left if left > _ZERO else right
        end = right if right > _ZERO else left
        low, high = max(np.float64(start), 1e-3), max(np.float64(end), 1e-3)
        half = np.log(high / low) / hop / 2.0
        series = hop if abs(half) < 1e-9 else np.sinh(hop * half) / np.sinh(half)
        out[s, 0], out[s, 1] = max(start, _LEAST_HZ), end
        out[s, 2], out[s, 3] = _ONE if left > _ZERO else _ZERO, _ONE if right > _ZERO else _ZERO
        ratio[s] = max(end, _LEAST_HZ) / out[s, 0]
        offset[s] = (advanced + phase) % 1.0
        advanced += np.float64(start) * np.exp(hop * half) * series / sample_rate
    return (advanced + phase) % 1.0


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

"""What is read off the fine structure of mels, frame by frame; see :mod:`melisma.kernels.ripple`.

Mels are natural log-mels ``(frames, bands)``, float32.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from melisma.kernels.keeping import kept

# Sums may be taken in any order: nothing here is compared bit by bit.
_FAST = frozenset({"contract", "reassoc", "nsz"})
_ZERO, _ONE, _FIFTY, _HUNDRED = np.float32(0.0), np.float32(1.0), np.float32(50.0), np.float32(100.0)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return kept(function, _FAST)


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    return njit(function, nogil=True, fastmath=set(_FAST), error_model="numpy")


@_inner
def _means(count, reach):  # type: ignore[no-untyped-def]
    """Room for the sums of a moving average with zeros on either side, and one over how many values each has."""
    shares = np.empty(count, np.float32)
    for b in range(count):
        shares[b] = 1.0 / (min(count, b + reach + 1) - max(0, b - reach))
    return np.zeros(count + 2 * reach, np.float32), np.empty(count, np.float32), shares


@_inner
def _fine(row, means, out):  # type: ignore[no-untyped-def]
    """A row less its moving average, as far as ``out`` reaches; ``means`` is from :func:`_means`."""
    padded, sums, shares = means
    count = out.size
    reach = (padded.size - count) // 2
    inside = padded[reach:]  # slices from zero on are what the compiler makes vectors of
    for b in range(count):
        inside[b] = row[b]
        sums[b] = 0.0
    for away in range(2 * reach + 1):
        moved = padded[away:]
        for b in range(count):
            sums[b] += moved[b]
    for b in range(count):
        out[b] = row[b] - sums[b] * shares[b]


@_inner
def _product(x, y):  # type: ignore[no-untyped-def]
    """Mean product of two rows."""
    total = np.float32(0.0)
    for b in range(x.size):
        total += x[b] * y[b]
    return total / np.float32(x.size)


@_compiled
def compared(wanted, pulses, bands, reach, out):  # type: ignore[no-untyped-def]
    """Mean products of the fine structures of two mels over their lowest bands: ``(3, frames)``, both with both."""
    target, comb, means = np.empty(bands, np.float32), np.empty(bands, np.float32), _means(bands, reach)
    for f in range(wanted.shape[0]):
        _fine(wanted[f], means, target)
        _fine(pulses[f], means, comb)
        out[0, f], out[1, f], out[2, f] = _product(target, target), _product(target, comb), _product(comb, comb)


@_compiled
def bends(wanted, bands, out):  # type: ignore[no-untyped-def]
    """Mean square of the second difference over the lowest bands, ``(1, frames)``."""
    for f in range(wanted.shape[0]):
        row, total = wanted[f], np.float32(0.0)
        middle, higher = row[1:], row[2:]
        for b in range(bands - 2):
            bend = higher[b] - (middle[b] + middle[b]) + row[b]
            total += bend * bend
        out[0, f] = total / np.float32(bands - 2)


@_compiled
def lags(wanted, bands, reach, steps, low, out):  # type: ignore[no-untyped-def]
    """Autocorrelation over frequency of the fine structure, at lags from ``low`` on: ``(lags, frames)``.

    ``steps`` is ``(lower, weights)``: the lower of the two bands that a step of frequency reads, and weights of both.
    A lag is the sum over the steps that it can be taken at, made as large as if these were all.
    """
    lower, weights = steps
    count = lower.size
    fine, even, means = np.zeros(bands + 1, np.float32), np.empty(count, np.float32), _means(bands, reach)
    for f in range(wanted.shape[0]):
        _fine(wanted[f], means, fine[:bands])
        for k in range(count):
            even[k] = fine[lower[k]] * weights[k, 0] + fine[lower[k] + 1] * weights[k, 1]
        for place in range(out.shape[0]):
            lag = low + place
            sums = np.float32(0.0)
            moved = even[lag:]
            for k in range(count - lag):
                sums += even[k] * moved[k]
            out[place, f] = sums * (np.float32(count) / np.float32(count - lag))


@_compiled
def fitted(wanted, actual, pulses, per_cent, reach, out):  # type: ignore[no-untyped-def]
    """Mean products of what :func:`melisma.layers.pitch_gate.pitch_gate` compares, in its order: ``(8, frames)``."""
    bands = per_cent.size
    means, higher, lower = _means(bands, reach), np.empty(bands, np.float32), np.empty(bands, np.float32)
    target, own = np.empty(bands, np.float32), np.empty(bands, np.float32)
    comb, moved = np.empty(bands, np.float32), np.empty(bands, np.float32)
    for f in range(wanted.shape[0]):
        _fine(wanted[f], means, target)
        _fine(actual[f], means, own)
        _fine(pulses[f], means, comb)
        higher[:-1], higher[-1], lower[1:], lower[0] = own[1:], own[-1], own[:-1], own[0]
        for b in range(bands):
            moved[b] = (lower[b] - higher[b]) * per_cent[b] * _FIFTY
        out[0, f], out[1, f], out[2, f] = _product(target, target), _product(target, own), _product(own, own)
        out[3, f], out[4, f], out[5, f] = _product(target, moved), _product(moved, moved), _product(own, moved)
        out[6, f], out[7, f] = _product(target, comb), _product(comb, comb)


@_inner
def _ramp(value, ends):  # type: ignore[no-untyped-def]
    return min(max((value - ends[0]) / (ends[1] - ends[0]), _ZERO), _ONE)


@_inner
def _correlation(xy, xx, yy):  # type: ignore[no-untyped-def]
    return xy / np.sqrt(xx * yy + np.float32(1e-8))


@_inner
def _unexplained(tt, tc, cc):  # type: ignore[no-untyped-def]
    heard = max(tc, _ZERO)
    return np.sqrt(max(tt - heard * heard / (cc + np.float32(1e-6)), _ZERO))


@_inner
def _foreign(tt, tc, cc, ends):  # type: ignore[no-untyped-def]
    none, full = ends[0]
    own = (none - _correlation(tc, tt, cc)) / (none - full)
    return min(max(own, _ZERO), _ONE) * _ramp(_unexplained(tt, tc, cc), ends[1])


@_inner
def _fit(to, oo, tm, mm, om):  # type: ignore[no-untyped-def]
    """Contrast, and detuning in cents."""
    determinant = oo * mm - om * om + np.float32(1e-7)
    contrast = (to * mm - tm * om) / determinant
    return contrast, _HUNDRED * (tm * oo - to * om) / determinant / max(contrast, np.float32(0.3))


@_compiled
def foreign(means, ends, out):  # type: ignore[no-untyped-def]
    """See :func:`melisma.kernels.ripple.foreign`; ``means`` is ``(3, frames)``."""
    for f in range(out.size):
        out[f] = _foreign(means[0, f], means[1, f], means[2, f], ends)


@_compiled
def opened(long, local, ramps, ends, out):  # type: ignore[no-untyped-def]
    """The gate of averaged products ``(8, frames)``, and of the fit alone over fewer frames, ``(5, frames)``."""
    for f in range(out.size):
        tt, to, oo, tm = long[0, f], long[1, f], long[2, f], long[3, f]
        mm, om, tc, cc = long[4, f], long[5, f], long[6, f], long[7, f]
        contrast, _ = _fit(to, oo, tm, mm, om)
        _, detuning = _fit(local[0, f], local[1, f], local[2, f], local[3, f], local[4, f])
        gate = (_ONE - _foreign(tt, tc, cc, ends)) * _ramp(_correlation(to, tt, oo), ramps[0])
        gate *= _ramp(contrast, ramps[1]) * _ramp(_correlation(tc, tt, cc), ramps[2])
        out[f] = gate * _ramp(-abs(detuning), ramps[3]) * _ramp(-_unexplained(tt, tc, cc), ramps[4])


@_compiled
def first_peaks(values, share, out):  # type: ignore[no-untyped-def]
    """The first row of every column that is at least a share of the highest; their number where none is."""
    for f in range(out.size):
        highest = values[0, f]
        for row in range(1, values.shape[0]):
            highest = max(highest, values[row, f])
        first = 0
        while first < values.shape[0] and not values[first, f] >= share * highest:
            first += 1
        out[f] = first


@_compiled
def missed(wanted, heard, sharp, reach, largest, out):  # type: ignore[no-untyped-def]
    """What a draft misses of a mel: all of it where ``sharp``, ``(frames,)``, is 1, its envelope where that is 0."""
    bands = wanted.shape[1]
    away, fine, means = np.empty(bands, np.float32), np.empty(bands, np.float32), _means(bands, reach)
    for f in range(wanted.shape[0]):
        row, other, made, share = wanted[f], heard[f], out[f], sharp[f]
        for b in range(bands):
            away[b] = row[b] - other[b]
        _fine(away, means, fine)
        for b in range(bands):
            envelope = min(max(away[b] - fine[b], -largest), largest)
            whole = min(max(away[b], -largest), largest)
            made[b] = envelope + share * (whole - envelope)

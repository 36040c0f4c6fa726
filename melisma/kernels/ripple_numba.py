"""What is read off the fine structure of mels, frame by frame; see :mod:`melisma.kernels.ripple`.

Mels are natural log-mels ``(frames, bands)``, float32.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from melisma.kernels.keeping import kept

# Sums may be taken in any order: nothing here is compared bit by bit.
FAST = frozenset({"contract", "reassoc", "nsz"})
_ZERO, _ONE, _FIFTY, _HUNDRED = np.float32(0.0), np.float32(1.0), np.float32(50.0), np.float32(100.0)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return kept(function, FAST)


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    return njit(function, nogil=True, fastmath=set(FAST), error_model="numpy")


@inner
def means_of(count, reach):  # type: ignore[no-untyped-def]
    """Room for the sums of a moving average with zeros on either side, and one over how many values each has."""
    shares = np.empty(count, np.float32)
    for b in range(count):
        shares[b] = 1.0 / (min(count, b + reach + 1) - max(0, b - reach))
    return np.zeros(count + 2 * reach, np.float32), np.empty(count, np.float32), shares


@inner
def fine(row, means, out):  # type: ignore[no-untyped-def]
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


@inner
def product(x, y):  # type: ignore[no-untyped-def]
    """Mean product of two rows."""
    total = np.float32(0.0)
    for b in range(x.size):
        total += x[b] * y[b]
    return total / np.float32(x.size)


@_compiled
def compared(wanted, pulses, bands, reach, out):  # type: ignore[no-untyped-def]
    """Mean products of the fine structures of two mels over their lowest bands: ``(3, frames)``, both with both."""
    target, comb, means = np.empty(bands, np.float32), np.empty(bands, np.float32), means_of(bands, reach)
    for f in range(wanted.shape[0]):
        fine(wanted[f], means, target)
        fine(pulses[f], means, comb)
        out[0, f], out[1, f], out[2, f] = product(target, target), product(target, comb), product(comb, comb)


@inner
def bend_of(row, bands):  # type: ignore[no-untyped-def]
    """Mean square of the second difference over the lowest bands of a frame."""
    total = np.float32(0.0)
    middle, higher = row[1:], row[2:]
    for b in range(bands - 2):
        bend = higher[b] - (middle[b] + middle[b]) + row[b]
        total += bend * bend
    return total / np.float32(bands - 2)


@_compiled
def bends(wanted, bands, out):  # type: ignore[no-untyped-def]
    """:func:`bend_of` of all frames, ``(1, frames)``."""
    for f in range(wanted.shape[0]):
        out[0, f] = bend_of(wanted[f], bands)


@inner
def lags_of(structure, steps, low, even, out):  # type: ignore[no-untyped-def]
    """See :func:`lags`, of one frame whose fine structure is given, with a zero behind; ``even`` is room for steps."""
    lower, weights = steps
    count = lower.size
    for k in range(count):
        even[k] = structure[lower[k]] * weights[k, 0] + structure[lower[k] + 1] * weights[k, 1]
    for place in range(out.size):
        lag = low + place
        sums = np.float32(0.0)
        moved = even[lag:]
        for k in range(count - lag):
            sums += even[k] * moved[k]
        out[place] = sums * (np.float32(count) / np.float32(count - lag))


@_compiled
def lags(wanted, bands, reach, steps, low, out):  # type: ignore[no-untyped-def]
    """Autocorrelation over frequency of the fine structure, at lags from ``low`` on: ``(lags, frames)``.

    ``steps`` is ``(lower, weights)``: the lower of the two bands that a step of frequency reads, and weights of both.
    A lag is the sum over the steps that it can be taken at, made as large as if these were all.
    """
    structure, even, means = (
        np.zeros(bands + 1, np.float32),
        np.empty(steps[0].size, np.float32),
        means_of(bands, reach),
    )
    made = np.empty(out.shape[0], np.float32)
    for f in range(wanted.shape[0]):
        fine(wanted[f], means, structure[:bands])
        lags_of(structure, steps, low, even, made)
        out[:, f] = made


@inner
def fit_of(wanted, actual, pulses, per_cent, room, out):  # type: ignore[no-untyped-def]
    """Mean products of what :func:`melisma.layers.pitch_gate.pitch_gate` compares in a frame, in its order: eight.

    ``room`` is from :func:`room_to_fit`.
    """
    means, rows = room
    bands = per_cent.size
    target, own, comb, higher, lower, moved = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    fine(wanted, means, target)
    fine(actual, means, own)
    fine(pulses, means, comb)
    higher[:-1], higher[-1], lower[1:], lower[0] = own[1:], own[-1], own[:-1], own[0]
    for b in range(bands):
        moved[b] = (lower[b] - higher[b]) * per_cent[b] * _FIFTY
    out[0], out[1], out[2] = product(target, target), product(target, own), product(own, own)
    out[3], out[4], out[5] = product(target, moved), product(moved, moved), product(own, moved)
    out[6], out[7] = product(target, comb), product(comb, comb)


@inner
def room_to_fit(bands, reach):  # type: ignore[no-untyped-def]
    """Room for :func:`fit_of`."""
    return means_of(bands, reach), np.empty((6, bands), np.float32)


@inner
def ramp(value, ends):  # type: ignore[no-untyped-def]
    return min(max((value - ends[0]) / (ends[1] - ends[0]), _ZERO), _ONE)


@inner
def _correlation(xy, xx, yy):  # type: ignore[no-untyped-def]
    return xy / np.sqrt(xx * yy + np.float32(1e-8))


@inner
def _unexplained(tt, tc, cc):  # type: ignore[no-untyped-def]
    heard = max(tc, _ZERO)
    return np.sqrt(max(tt - heard * heard / (cc + np.float32(1e-6)), _ZERO))


@inner
def foreign_of(tt, tc, cc, ends):  # type: ignore[no-untyped-def]
    none, full = ends[0]
    own = (none - _correlation(tc, tt, cc)) / (none - full)
    return min(max(own, _ZERO), _ONE) * ramp(_unexplained(tt, tc, cc), ends[1])


@inner
def _fit(to, oo, tm, mm, om):  # type: ignore[no-untyped-def]
    """Contrast, and detuning in cents."""
    determinant = oo * mm - om * om + np.float32(1e-7)
    contrast = (to * mm - tm * om) / determinant
    return contrast, _HUNDRED * (tm * oo - to * om) / determinant / max(contrast, np.float32(0.3))


@_compiled
def foreign(means, ends, out):  # type: ignore[no-untyped-def]
    """See :func:`melisma.kernels.ripple.foreign`; ``means`` is ``(3, frames)``."""
    for f in range(out.size):
        out[f] = foreign_of(means[0, f], means[1, f], means[2, f], ends)


@inner
def opened_of(long, local, ramps, ends):  # type: ignore[no-untyped-def]
    """The gate of averaged products ``(8,)``, and of those of the fit alone over fewer frames, ``(5,)``."""
    tt, to, oo, tm = long[0], long[1], long[2], long[3]
    mm, om, tc, cc = long[4], long[5], long[6], long[7]
    contrast, _ = _fit(to, oo, tm, mm, om)
    _, detuning = _fit(local[0], local[1], local[2], local[3], local[4])
    gate = (_ONE - foreign_of(tt, tc, cc, ends)) * ramp(_correlation(to, tt, oo), ramps[0])
    gate *= ramp(contrast, ramps[1]) * ramp(_correlation(tc, tt, cc), ramps[2])
    return gate * ramp(-abs(detuning), ramps[3]) * ramp(-_unexplained(tt, tc, cc), ramps[4])


@inner
def first_peak(values, share):  # type: ignore[no-untyped-def]
    """The first value that is at least a share of the highest; their number where none is."""
    highest = values[0]
    for value in values[1:]:
        highest = max(highest, value)
    first = 0
    while first < values.size and not values[first] >= share * highest:
        first += 1
    return first


@_compiled
def first_peaks(values, share, out):  # type: ignore[no-untyped-def]
    """:func:`first_peak` of every column."""
    for f in range(out.size):
        out[f] = first_peak(values[:, f], share)


@inner
def missed_of(wanted, heard, sharp, largest, room, out):  # type: ignore[no-untyped-def]
    """What a draft misses of a frame: all of it where ``sharp`` is 1, its envelope where that is 0."""
    means, rows = room
    away, detail = rows[0], rows[1]
    for b in range(out.size):
        away[b] = wanted[b] - heard[b]
    fine(away, means, detail)
    for b in range(out.size):
        envelope = min(max(away[b] - detail[b], -largest), largest)
        whole = min(max(away[b], -largest), largest)
        out[b] = envelope + sharp * (whole - envelope)


@inner
def room_to_miss(bands, reach):  # type: ignore[no-untyped-def]
    """Room for :func:`missed_of`."""
    return means_of(bands, reach), np.empty((2, bands), np.float32)


@_compiled
def missed(wanted, heard, sharp, reach, largest, out):  # type: ignore[no-untyped-def]
    """:func:`missed_of` of all frames; ``sharp`` is ``(frames,)``."""
    room = room_to_miss(wanted.shape[1], reach)
    for f in range(wanted.shape[0]):
        missed_of(wanted[f], heard[f], sharp[f], largest, room, out[f])

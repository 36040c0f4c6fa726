"""What is read off the mels of a whole clip, each in one call; see :mod:`melisma.kernels.ripple`.

Workers share the frames, and meet where one reads what others have made of its neighbours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from melisma.kernels.keeping import kept
from melisma.kernels.ripple import LOWEST_HZ, MIDDLE_HZ, MIDDLE_MEL
from melisma.kernels.ripple_numba import (
    FAST,
    bend_of,
    fine,
    first_peak,
    fit_of,
    foreign_of,
    inner,
    lags_of,
    means_of,
    missed_of,
    opened_of,
    product,
    ramp,
    room_to_fit,
    room_to_miss,
)
from melisma.kernels.waiting_numba import meet

_ZERO, _ONE, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
_LOWEST_HZ, _MIDDLE_HZ, _MIDDLE_MEL = np.float32(LOWEST_HZ), np.float32(MIDDLE_HZ), np.float32(MIDDLE_MEL)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return kept(function, FAST)


@inner
def _averaged(rows, frame, left, right, mean):  # type: ignore[no-untyped-def]
    """Mean of a frame's row and of so many before and behind it, at the ends of those that are there."""
    first, stop = max(0, frame - left), min(rows.shape[0], frame + right + 1)
    mean[:] = _ZERO
    for f in range(first, stop):
        row = rows[f]
        for k in range(mean.size):
            mean[k] += row[k]
    count = np.float32(stop - first)
    for k in range(mean.size):
        mean[k] /= count


@_compiled
def widths(worker, edges, counter, mels, f0, sizes, steps, limits, work):  # type: ignore[no-untyped-def]
    """Distance of the harmonics that a mel shows, how sharp it is, and whether they are another pitch's.

    Args:
        worker: its number.
        edges: frames at which the workers' parts begin and end, ``(workers + 1,)``.
        counter: on which they meet, 0 at first.
        mels: wanted and of the pulses, ``(frames, bands)``.
        f0: Hz, ``(frames,)``.
        sizes: ``(bands, reach, low, left, right, late, hz, strong)``: bands that are looked at and how far structure is
            averaged away, the first lag, over how many frames before and behind is averaged, how many the pulses are
            late, Hz of a lag and what share of the highest peak is strong.
        steps: see :func:`melisma.kernels.ripple_numba.lags`.
        limits: ``(ends, sharp)``: see :func:`melisma.kernels.ripple_numba.foreign`, and bends that are none and all.
        work: ``(rows, width, sharp, foreign)``: room for ``(frames, 4 + lags)``, and what is made, ``(frames,)`` each.
    """
    wanted, pulses = mels
    bands, reach, low, left, right, late, hz, strong = sizes
    ends, sharp_ends = limits
    rows, width, sharp, foreign = work
    first, stop = edges[worker], edges[worker + 1]
    means, comb = means_of(bands, reach), np.empty(bands, np.float32)
    structure, even = np.zeros(bands + 1, np.float32), np.empty(steps[0].size, np.float32)
    target, partner = structure[:bands], np.empty(bands, np.float32)
    for f in range(first, stop):
        row = rows[f]
        fine(pulses[f], means, comb)
        fine(wanted[f], means, target)
        partner[:] = target
        if late > 0:  # the pulses' mel comes behind
            partner[:] = _ZERO
            if f >= late:
                fine(wanted[f - late], means, partner)
        row[0], row[1], row[2] = product(partner, partner), product(partner, comb), product(comb, comb)
        row[3] = bend_of(wanted[f], bands)
        lags_of(structure, steps, low, even, row[4:])
    meet(counter, edges.size - 1)
    mean = np.empty(rows.shape[1], np.float32)
    for f in range(first, stop):
        _averaged(rows, f, left, right, mean)
        foreign[f] = foreign_of(mean[0], mean[1], mean[2], ends)
        ripple = (np.float32(first_peak(mean[4:], strong) + low) + _HALF) * hz
        width[f] = f0[f] + foreign[f] * (max(f0[f], ripple) - f0[f])
        sharp[f] = ramp(np.sqrt(mean[3]), sharp_ends)


@_compiled
def gate(worker, edges, counter, mels, voiced, sizes, per_cent, limits, work):  # type: ignore[no-untyped-def]
    """The gate of a clip; see :func:`melisma.layers.pitch_gate.pitch_gate`.

    Args:
        worker: see :func:`widths`, and so are ``edges`` and ``counter``.
        mels: wanted, of the audio and of the pulses, ``(frames, bands)``.
        voiced: ``(frames,)``.
        sizes: ``(reach, long, local, near)``: how far structure is averaged away; frames on either side that are
            evidence, that detuning and sharpness are read from, and that an unvoiced frame reaches over.
        per_cent: bands that a partial moves in a cent, ``(bands that are looked at,)``.
        limits: ``(ramps, ends, sharp)``: of :func:`melisma.kernels.ripple_numba.opened_of`, and see :func:`widths`.
        work: ``(rows, gates, out)``: room for ``(frames, 9)`` and ``(2, frames)``, and what is made, ``(frames,)``.
    """
    wanted, actual, pulses = mels
    reach, long, local, near = sizes
    ramps, ends, sharp_ends = limits
    rows, both, out = work
    gates, sharp = both[0], both[1]
    first, stop, workers = edges[worker], edges[worker + 1], edges.size - 1
    room = room_to_fit(per_cent.size, reach)
    for f in range(first, stop):
        row = rows[f]
        fit_of(wanted[f], actual[f], pulses[f], per_cent, room, row)
        for k in range(8):
            row[k] *= voiced[f]
        row[8] = bend_of(wanted[f], per_cent.size)
    meet(counter, workers)
    far, close = np.empty(rows.shape[1], np.float32), np.empty(rows.shape[1], np.float32)
    for f in range(first, stop):
        _averaged(rows, f, long, long, far)
        _averaged(rows, f, local, local, close)
        gates[f] = opened_of(far, close[1:6], ramps, ends)
        sharp[f] = ramp(np.sqrt(close[8]), sharp_ends)
    meet(counter, 2 * workers)
    for f in range(first, stop):
        made = gates[f]
        if not voiced[f] > _ZERO:
            made = _ONE
            for g in range(max(0, f - near), min(out.size, f + near + 1)):
                made = min(made, gates[g] * voiced[g] + (_ONE - voiced[g]))
        out[f] = made * sharp[f]


@_compiled
def conditions(first, stop, mels, told, sizes, missed, out):  # type: ignore[no-untyped-def]
    """What a draft misses in the frames ``first`` to ``stop``, and all that the backbone is told of them.

    Args:
        first: frame.
        stop: frame.
        mels: wanted, of the pulses and of the draft, ``(frames, bands)``.
        told: ``(f0, sharp)``, ``(frames,)`` each.
        sizes: ``(reach, largest, left)``: see :func:`melisma.kernels.ripple_numba.missed_of`, and rows of ``out``
            before that of the first frame.
        missed: made here, ``(frames, bands)``.
        out: made here, ``(rows, at least 3 * bands + 2)``.
    """
    wanted, pulses, heard = mels
    f0, sharp = told
    reach, largest, left = sizes
    bands = wanted.shape[1]
    room = room_to_miss(bands, reach)
    for f in range(first, stop):
        row, away, mel, train = out[left + f], missed[f], wanted[f], pulses[f]
        missed_of(mel, heard[f], sharp[f], largest, room, away)
        train_row, away_row = row[bands:], row[2 * bands + 2 :]
        for b in range(bands):
            row[b] = (mel[b] - _MIDDLE_MEL) * _HALF
            train_row[b] = train[b]
            away_row[b] = away[b]
        voiced = _ONE if f0[f] > _ZERO else _ZERO
        row[2 * bands] = np.log2(max(f0[f], _LOWEST_HZ) / _MIDDLE_HZ) * voiced
        row[2 * bands + 1] = voiced
        row[3 * bands + 2 :] = _ZERO

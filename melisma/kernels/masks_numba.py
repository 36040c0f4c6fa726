"""Masks on a pulse train and on noise, from the log-mel to samples; see :mod:`melisma.kernels.masks`."""

import numpy as np

from melisma.kernels import LANES
from melisma.kernels.fft_numba import ends, forward_of, inverse, merge, merge_ends, split
from melisma.kernels.grid_numba import add_frames, finish_heads, summed_rows
from melisma.kernels.lanes_numba import (
    compiled,
    exponential,
    inner,
    into_lanes,
    larger,
    load,
    logarithm,
    out_of_lanes,
    store,
)
from melisma.kernels.waiting_numba import meet

_ZERO, _ONE, _TWO, _HALF = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(0.5)
_SILENT = np.float32(1e-14)
_BLOCK = 4  # groups of bins that are turned into lanes together


@compiled
def envelopes(first, stop, wanted, width, bands, spread, split, out):  # type: ignore[no-untyped-def]
    """Log masks of the frames ``first`` to ``stop`` that follow from half the logarithm of the local power.

    Args:
        first: frame.
        stop: frame.
        wanted: natural log-mel, ``(frames * groups, 16)``, rows padded to whole groups.
        width: bins over which the power of a frame is averaged, float64 ``(frames,)``.
        bands: ``(silence, flat)``: power of the contract's floor, log level of white noise ``(groups, 16)``.
        spread: ``(lower, weights)``: the lower of the two bands that a bin reads, ``(bins, 2)``.
        split: ``(pulses, noise, held, f0)``: what is added for the pulses, and in voiced frames for the noise,
            ``(bins,)``; what is added for pulses that are only held; F0 ``(frames,)``.
        out: on the pulses and on the noise side by side, ``(frames, at least 2 * bins)``.
    """
    silence, flat = bands
    lower, weights = spread
    pulse_share, noise_share, held, f0 = split
    groups, count = flat.shape[0], lower.size
    density = np.zeros((groups + 1, LANES), np.float32)
    seen = density.reshape(-1)
    total, row = np.zeros(count + 1), np.empty(((count + LANES - 1) // LANES, LANES), np.float32)
    line = row.reshape(-1)
    line[:] = _ONE
    for frame in range(first, stop):
        for g in range(groups):
            power = larger(exponential(load(wanted, frame * groups + g) * _TWO) - silence, _ZERO)
            store(density, g, power * exponential(load(flat, g) * -_TWO))
        for k in range(count):
            power_here = seen[lower[k]] * weights[k, 0] + seen[lower[k] + 1] * weights[k, 1]
            total[k + 1] = total[k] + power_here
        half = width[frame] / 2.0
        for k in range(count):
            low, high = max(k + 0.5 - half, 0.0), min(k + 0.5 + half, float(count))
            below, above = min(int(low), count - 1), min(int(high), count - 1)
            start = total[below] + (total[below + 1] - total[below]) * (low - below)
            end = total[above] + (total[above + 1] - total[above]) * (high - above)
            line[k] = (end - start) / (high - low)
        for g in range(row.shape[0]):
            store(row, g, logarithm(larger(load(row, g), _SILENT)) * _HALF)
        pulse_log, noise_log = out[frame, :count], out[frame, count:]
        voiced = _ONE if f0[frame] > _ZERO else _ZERO
        quieter = held * (_ONE - voiced)
        for k in range(count):
            pulse_log[k] = line[k] + pulse_share[k] + quieter
            noise_log[k] = line[k] + noise_share[k] * voiced


@compiled
def believe(first, stop, said, missed, belief, spread, logs, out):  # type: ignore[no-untyped-def]
    """Log masks of the frames ``first`` to ``stop`` with a share of what was missed in every band: none to twice.

    Args:
        first: frame.
        stop: frame.
        said: ``(values, step)``: what is added besides, ``2 * bins`` every ``step`` values; a step of 0 is nothing.
        missed: nepers, ``(frames, bands)``.
        belief: ``(values, step)``: logits of half the share, for the pulses and for the noise, ``2 * bands`` every
            ``step`` values.
        spread: see :func:`envelopes`.
        logs: likewise ``(values, step)``: on the pulses and on the noise side by side.
        out: the same, ``(frames, at least 2 * bins)``.
    """
    lower, weights = spread
    more, more_step = said
    shares_of, shares_step = belief
    begin_logs, logs_step = logs
    bands, bins = missed.shape[1], lower.size
    wide, tall = (bands + LANES - 1) // LANES * LANES, (bins + LANES - 1) // LANES * LANES
    rows, heard = np.zeros((LANES, 3 * wide), np.float32), np.zeros((3 * wide, LANES), np.float32)
    shares = np.zeros((wide + 1, LANES), np.float32)
    added, columns = np.zeros((tall, LANES), np.float32), np.zeros((LANES, tall), np.float32)
    for begin in range(first, stop, LANES):
        for lane in range(LANES):
            frame = min(begin + lane, stop - 1)
            rows[lane, :bands] = missed[frame]
            both = shares_of[frame * shares_step :]
            rows[lane, wide : wide + bands] = both[:bands]
            rows[lane, 2 * wide : 2 * wide + bands] = both[bands : 2 * bands]
        for b in range(0, 3 * wide, LANES):
            into_lanes(rows, b, 3 * wide, heard, b)
        for half in range(2):
            for b in range(bands):
                believed = exponential(load(heard, (1 + half) * wide + b) * -_ONE) + _ONE
                store(shares, b, load(heard, b) * _TWO / believed)
            for k in range(bins):
                b = lower[k]
                store(added, k, load(shares, b) * weights[k, 0] + load(shares, b + 1) * weights[k, 1])
            for k in range(0, tall, LANES):
                out_of_lanes(added, k, columns, k, tall)
            for frame in range(begin, min(begin + LANES, stop)):
                before, after = begin_logs[frame * logs_step + half * bins :], out[frame, half * bins :]
                change = columns[frame - begin]
                if more_step:
                    own = more[frame * more_step + half * bins :]
                    for k in range(bins):
                        after[k] = before[k] + own[k] + change[k]
                else:
                    for k in range(bins):
                        after[k] = before[k] + change[k]


@inner
def _masked(p, n, logs, k, bins):  # type: ignore[no-untyped-def]
    """A bin of the pulses and of the noise, each ``(real, imaginary)``, under their masks, added up."""
    pulse, noise = exponential(load(logs, k)), exponential(load(logs, bins + k))
    return p[0] * pulse + n[0] * noise, p[1] * pulse + n[1] * noise


@inner
def _between(rows, frames, slots, t, offset, line, out):  # type: ignore[no-untyped-def]
    """The masks of a slot of every lane, on the line from its frame to the one before or behind it; ends are held.

    ``rows`` are ``(frames * groups, 16)``, ``line`` room for sixteen of them, and ``out`` has a row for each bin.
    """
    beside, share = (-1, -offset) if offset < 0 else (1, offset)
    groups = rows.shape[0] // frames
    for first in range(0, groups, _BLOCK):
        many = min(_BLOCK, groups - first)
        for lane in range(LANES):
            frame = min(lane * slots + t, frames - 1)
            here = frame * groups + first
            there = max(0, min(frame + beside, frames - 1)) * groups + first
            for g in range(many):
                value = load(rows, here + g)
                store(line, lane * _BLOCK + g, value + (load(rows, there + g) - value) * share)
        for g in range(many):
            into_lanes(line, g * LANES, _BLOCK * LANES, out, (first + g) * LANES)


@compiled
def sing(worker, edges, counter, shape, tables, given, masks, work):  # type: ignore[no-untyped-def]
    """A worker's part of both priors under their masks.

    Args:
        worker: its number.
        edges: slots at which the workers' parts begin and end; a slot is a mask frame of every lane.
        counter: on which they meet, 0 at first.
        shape: ``(hop, frames)``; ``frames`` counts those of the mel.
        tables: ``(window, twiddles, position, turn)``.
        given: ``(pulses, noise, live)``: signals, and a factor for frames of the clip, 0 for others.
        masks: ``(logs, offsets)``: log magnitude on the pulses and on the noise, the ``2 * bins`` of a frame in whole
            groups of sixteen, ``(frames * groups, 16)``, and where the mask frames of a frame lie, in frames from its
            centre.
        work: ``(sums, signal)``; the signal is made here.
    """
    hop, frames = shape
    window, twiddles, position, turn = tables
    pulses, noise, live = given
    logs, offsets = masks
    (total, heads), signal = work
    workers, half, bins = edges.size - 1, window.size // 2, window.size // 2 + 1
    slots = edges[-1] // offsets.size
    re, im = np.empty((half, LANES), np.float32), np.empty((half, LANES), np.float32)
    noise_re, noise_im = np.empty((half, LANES), np.float32), np.empty((half, LANES), np.float32)
    words = np.empty((logs.shape[0] // frames * LANES, LANES), np.float32)
    line = np.empty((LANES * _BLOCK, LANES), np.float32)
    first, stop = edges[worker], edges[worker + 1]
    shared = window.size - hop
    own = total[first * hop + worker * shared :]
    for t in range(first, stop):
        _between(logs, frames, slots, t // offsets.size, offsets[t % offsets.size], line, words)
        forward_of(pulses, t * hop, window, re, im, twiddles)
        forward_of(noise, t * hop, window, noise_re, noise_im, twiddles)
        p, n = ends(re, im, position), ends(noise_re, noise_im, position)
        zero = load(live, t) * _ZERO
        # The lowest bin of the noise is what lets no frame have a mean; see Analytic.render.
        second, _, _, _ = split(noise_re, noise_im, 1, position, turn)
        low = p[0] * exponential(load(words, 0)) + second * exponential(load(words, bins + 1))
        high, _ = _masked((p[1], zero), (n[1], zero), words, half, bins)
        merge_ends(re, im, position, low, high)
        for k in range(1, half // 2 + 1):
            pr, pi, qr, qi = split(re, im, k, position, turn)
            nr, ni, mr, mi = split(noise_re, noise_im, k, position, turn)
            xr, xi = _masked((pr, pi), (nr, ni), words, k, bins)
            yr, yi = _masked((qr, qi), (mr, mi), words, half - k, bins)
            merge(re, im, k, position, turn, xr, xi, yr, yi)
        inverse(re, im, twiddles)
        add_frames(re, im, window, load(live, t), hop, own, heads[worker], t - first)
    meet(counter, workers)
    finish_heads(worker, edges, hop, window, live, total, heads)
    for row in range(summed_rows(worker, edges, hop, shared)):
        store(signal, first * hop + row, load(own, row))

"""Rounds of mel projection on signals in lanes; see :mod:`melisma.kernels.projection`.

Workers share the slots (a slot is a frame of every lane), and meet between the steps of a round.
"""

import numpy as np

from melisma.kernels import LANES
from melisma.kernels.fft_numba import ends, forward_of, inverse, merge, merge_ends, split
from melisma.kernels.grid_numba import add_frames, close_ends, finish_heads, frames_in, frames_out, summed_rows
from melisma.kernels.lanes_numba import (
    compiled,
    everywhere,
    inner,
    larger,
    load,
    logarithm,
    root,
    smaller,
    store,
)
from melisma.kernels.waiting_numba import meet

_ZERO, _ONE, _QUARTER = np.float32(0.0), np.float32(1.0), np.float32(0.25)
_EXP = tuple(np.float32(1 / value) for value in range(1, 9))


@inner
def _log_mel(magnitude, reads, filters, floor, out):  # type: ignore[no-untyped-def]
    """Log-mel of the frames of a slot: band ``b`` reads ``reads[b, 1]`` bins from ``reads[b, 0]`` on."""
    done = 0
    for b in range(reads.shape[0]):
        total = everywhere(_ZERO)
        for i in range(reads[b, 1]):
            total = total + load(magnitude, reads[b, 0] + i) * filters[done + i]
        done += reads[b, 1]
        store(out, b, logarithm(larger(total, floor)))


@inner
def _size(re, im, scale, epsilon):  # type: ignore[no-untyped-def]
    return root((re * re + im * im) * scale + epsilon)


@inner
def _gain(step, lower, weights, k):  # type: ignore[no-untyped-def]
    """``exp`` of the share of two neighbouring steps in a bin; they are at most a few nepers."""
    b = lower[k]
    r = (load(step, b) * weights[k, 0] + load(step, b + 1) * weights[k, 1]) * _QUARTER
    # The power series of a quarter, squared twice.
    e = _ONE + r * _EXP[5] * (_ONE + r * _EXP[6] * (_ONE + r * _EXP[7]))
    e = _ONE + r * _EXP[2] * (_ONE + r * _EXP[3] * (_ONE + r * _EXP[4] * e))
    e = _ONE + r * (_ONE + r * _EXP[1] * e)
    return (e * e) * (e * e)


@inner
def _sizes(re, im, position, turn, scale, epsilon, magnitude):  # type: ignore[no-untyped-def]
    """Magnitudes of all bins."""
    half = re.shape[0]
    low, high = ends(re, im, position)
    store(magnitude, 0, _size(low, everywhere(_ZERO), scale, epsilon))
    store(magnitude, half, _size(high, everywhere(_ZERO), scale, epsilon))
    for k in range(1, half // 2 + 1):
        xr, xi, yr, yi = split(re, im, k, position, turn)
        store(magnitude, k, _size(xr, xi, scale, epsilon))
        store(magnitude, half - k, _size(yr, yi, scale, epsilon))


@inner
def _amplify(re, im, position, turn, step, lower, weights):  # type: ignore[no-untyped-def]
    """Multiply every bin by its gain."""
    half = re.shape[0]
    low, high = ends(re, im, position)
    low, high = low * _gain(step, lower, weights, 0), high * _gain(step, lower, weights, half)
    merge_ends(re, im, position, low, high)
    for k in range(1, half // 2 + 1):
        xr, xi, yr, yi = split(re, im, k, position, turn)
        x, y = _gain(step, lower, weights, k), _gain(step, lower, weights, half - k)
        merge(re, im, k, position, turn, xr * x, xi * x, yr * y, yi * y)


@compiled
def project(worker, edges, counter, shape, tables, mel, given, work):  # type: ignore[no-untyped-def]
    """A worker's part of all rounds.

    Args:
        worker: its number.
        edges: slots at which the workers' parts begin and end, ``(workers + 1,)``.
        counter: on which they meet, 0 at first.
        shape: ``(hop, left, samples, reflected, rounds, momentum)``.
        tables: ``(window, twiddles, position, turn)``, see :mod:`melisma.kernels.fft_numba`.
        mel: ``(scale, epsilon, floor, largest, reads, filters, lower, weights)``; ``weights`` are ``(bins, 2)``.
        given: ``(wanted, gate, live)``: natural log-mel ``(frames, bands and perhaps more)`` and gate ``(frames,)``,
            both flat; 1 over ``n_fft / 2`` for frames of the clip, 0 for others.
        work: ``(audio, ahead, sums, density)``: what is projected, the point ahead of it, room for every worker's sums
            of frames and for their heads, one over the sum of squared windows.
    """
    hop, left, samples, reflected, rounds, momentum = shape
    window, twiddles, position, turn = tables
    scale, epsilon, floor, largest, reads, filters, lower, weights = mel
    wanted, gate, live = given
    audio, ahead, sums, density = work
    total, heads = sums
    workers, slots, bands = edges.size - 1, edges[-1], reads.shape[0]
    half = window.size // 2
    shared = 2 * half - hop
    re, im = np.empty((half, LANES), np.float32), np.empty((half, LANES), np.float32)
    magnitude, step = np.empty((half + 1, LANES), np.float32), np.zeros((bands + 1, LANES), np.float32)
    first, stop = edges[worker], edges[worker + 1]
    target, openings = (
        np.empty(((stop - first) * bands, LANES), np.float32),
        np.empty((stop - first, LANES), np.float32),
    )
    frames = samples // hop
    for t in range(first, stop):
        frames_in(wanted, wanted.size // frames, frames, bands, slots, t, target, (t - first) * bands)
        frames_in(gate, 1, frames, 1, slots, t, openings, t - first)
    own = total[first * hop + worker * shared :]
    arrivals = 0
    for number in range(rounds):
        share = momentum if number > 0 else _ZERO
        for t in range(first, stop):
            forward_of(ahead, t * hop, window, re, im, twiddles)
            _sizes(re, im, position, turn, scale, epsilon, magnitude)
            _log_mel(magnitude, reads, filters, floor, step)
            opened = load(openings, t - first)
            for b in range(bands):
                change = load(target, (t - first) * bands + b) - load(step, b)
                store(step, b, smaller(larger(change, -largest), largest) * opened)
            _amplify(re, im, position, turn, step, lower, weights)
            inverse(re, im, twiddles)
            add_frames(re, im, window, load(live, t), hop, own, heads[worker], t - first)
        arrivals += workers
        meet(counter, arrivals)
        finish_heads(worker, edges, hop, window, live, total, heads)
        for row in range(summed_rows(worker, edges, hop, shared)):
            at = first * hop + row
            new = load(own, row) * load(density, at)
            store(ahead, at, new + (new - load(audio, at)) * share)
            store(audio, at, new)
        arrivals += workers
        meet(counter, arrivals)
        if worker == 0:
            close_ends(ahead, slots * hop, shared, left, samples, reflected)
        arrivals += workers
        meet(counter, arrivals)


@compiled
def measure(worker, edges, counter, shape, tables, mel, given, low):  # type: ignore[no-untyped-def]
    """A worker's part of the log-mel of a signal, and of its low band at a fraction of the rate.

    Args:
        worker: see :func:`project`, and so are ``edges``, ``counter``, ``tables`` and the first values of ``mel``.
        shape: ``(hop, low hop)``; without a low band that is 0.
        given: ``(signal, live, log-mel)``; the last, ``(slots * 16, bands)``, flat, is made here.
        low: ``(tables, signal, sums, density)`` of the low band; the signal is made here.
    """
    hop, low_hop = shape
    window, twiddles, position, turn = tables
    scale, epsilon, floor, reads, filters = mel
    signal, live, out = given
    (low_window, low_twiddles, low_position, low_turn), low_signal, sums, density = low
    total, heads = sums
    workers, bands, half = edges.size - 1, reads.shape[0], window.size // 2
    re, im = np.empty((half, LANES), np.float32), np.empty((half, LANES), np.float32)
    small = low_window.size // 2
    low_re, low_im = np.empty((small, LANES), np.float32), np.empty((small, LANES), np.float32)
    magnitude, nothing = np.empty((half + 1, LANES), np.float32), everywhere(_ZERO)
    seen = np.empty((bands, LANES), np.float32)
    first, stop = edges[worker], edges[worker + 1]
    shared = 2 * small - low_hop
    own = total[first * low_hop + worker * shared :]
    for t in range(first, stop):
        forward_of(signal, t * hop, window, re, im, twiddles)
        _sizes(re, im, position, turn, scale, epsilon, magnitude)
        _log_mel(magnitude, reads, filters, floor, seen)
        frames_out(seen, bands, edges[-1], t, out)
        if low_hop == 0:
            continue
        merge_ends(low_re, low_im, low_position, ends(re, im, position)[0], nothing)
        for k in range(1, small // 2 + 1):
            xr, xi, _, _ = split(re, im, k, position, turn)
            yr, yi, _, _ = split(re, im, small - k, position, turn)
            merge(low_re, low_im, k, low_position, low_turn, xr, xi, yr, yi)
        inverse(low_re, low_im, low_twiddles)
        add_frames(low_re, low_im, low_window, load(live, t), low_hop, own, heads[worker], t - first)
    if low_hop == 0:
        return
    meet(counter, workers)
    finish_heads(worker, edges, low_hop, low_window, live, total, heads)
    for row in range(summed_rows(worker, edges, low_hop, shared)):
        at = first * low_hop + row
        store(low_signal, at, load(own, row) * load(density, at))


@compiled
def lift(worker, edges, counter, shape, tables, given, low):  # type: ignore[no-untyped-def]
    """A worker's part of adding the change of the low band to the signal at the full rate.

    Args:
        worker: see :func:`project`, and so are ``edges``, ``counter`` and ``tables``.
        shape: ``(hop, low hop)``.
        given: ``(signal, live, sums, density)``; the signal is changed.
        low: ``(tables, change)`` of the low band.
    """
    hop, low_hop = shape
    window, twiddles, position, turn = tables
    signal, live, sums, density = given
    total, heads = sums
    (low_window, low_twiddles, low_position, low_turn), low_change = low
    workers, half, nothing = edges.size - 1, window.size // 2, everywhere(_ZERO)
    re, im = np.empty((half, LANES), np.float32), np.empty((half, LANES), np.float32)
    small = low_window.size // 2
    low_re, low_im = np.empty((small, LANES), np.float32), np.empty((small, LANES), np.float32)
    first, stop = edges[worker], edges[worker + 1]
    shared = 2 * half - hop
    own = total[first * hop + worker * shared :]
    for t in range(first, stop):
        forward_of(low_change, t * low_hop, low_window, low_re, low_im, low_twiddles)
        merge_ends(re, im, position, ends(low_re, low_im, low_position)[0], nothing)
        for k in range(1, half // 2 + 1):
            if k < small // 2 + 1:
                xr, xi, _, _ = split(low_re, low_im, k, low_position, low_turn)
            elif k < small:
                _, _, xr, xi = split(low_re, low_im, small - k, low_position, low_turn)
            else:
                xr, xi = nothing, nothing
            merge(re, im, k, position, turn, xr, xi, nothing, nothing)
        inverse(re, im, twiddles)
        add_frames(re, im, window, load(live, t), hop, own, heads[worker], t - first)
    meet(counter, workers)
    finish_heads(worker, edges, hop, window, live, total, heads)
    for row in range(summed_rows(worker, edges, hop, shared)):
        at = first * hop + row
        store(signal, at, load(signal, at) + load(own, row) * load(density, at))


@compiled
def local_means(values, width, out):  # type: ignore[no-untyped-def]
    """Means of ``width[row]`` values around every value of a row; between values linear, cut at the ends."""
    count = values.shape[1]
    total = np.zeros(count + 1)
    for f in range(values.shape[0]):
        row, target = values[f], out[f]
        for b in range(count):
            total[b + 1] = total[b] + row[b]
        half = width[f] / 2.0
        for b in range(count):
            low, high = max(b + 0.5 - half, 0.0), min(b + 0.5 + half, float(count))
            below, above = min(int(low), count - 1), min(int(high), count - 1)
            start = total[below] + (total[below + 1] - total[below]) * (low - below)
            end = total[above] + (total[above + 1] - total[above]) * (high - above)
            target[b] = (end - start) / (high - low)

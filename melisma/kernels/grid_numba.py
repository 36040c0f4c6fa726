"""Frames of signals in lanes: cut out, added up, continued at the ends; see :mod:`melisma.kernels.grid`."""

import numpy as np

from melisma.kernels import LANES
from melisma.kernels.lanes_numba import compiled, inner, into_lanes, load, one_down, one_up, out_of_lanes, store

_ZERO = np.float32(0.0)


@inner
def add_frames(re, im, window, share, hop, total, head, slot):  # type: ignore[no-untyped-def]
    """Window the frames of a worker's slot and add them to its sums.

    The first hops of a worker also belong to frames of the one before, which come first: a sum goes over its frames in
    their order, so that it is the same to the last digit however a clip is cut. What falls there waits in ``head``.
    """
    n_fft = 2 * re.shape[0]
    shared, first = n_fft - hop, slot * hop
    waits = max(0, shared - first)
    for n in range(0, waits, 2):
        store(head, slot * shared + n, load(re, n // 2))
        store(head, slot * shared + n + 1, load(im, n // 2))
    for n in range(waits, shared, 2):
        row = first + n
        store(total, row, load(total, row) + load(re, n // 2) * (share * window[n]))
        store(total, row + 1, load(total, row + 1) + load(im, n // 2) * (share * window[n + 1]))
    for n in range(shared, n_fft, 2):  # nothing stands there yet
        store(total, first + n, load(re, n // 2) * (share * window[n]))
        store(total, first + n + 1, load(im, n // 2) * (share * window[n + 1]))


@inner
def finish_heads(worker, edges, hop, window, live, total, heads):  # type: ignore[no-untyped-def]
    """Sum the first rows of a worker: frames of the worker before it, or of the lane before, and then its own."""
    shared, first = window.size - hop, edges[worker]
    before = (worker - 1) % (edges.size - 1)
    start, tail = first * hop + worker * shared, edges[before + 1] * hop + before * shared
    head = heads[worker]
    for row in range(shared):
        value = load(total, tail + row)
        if worker == 0:
            value = one_up(value)
        for i in range(row // hop + 1):
            n = row - i * hop
            value = value + load(head, i * shared + n) * (load(live, first + i) * window[n])
        store(total, start + row, value)


@inner
def summed_rows(worker, edges, hop, shared):  # type: ignore[no-untyped-def]
    """How many rows a worker sums; the last one also those behind its last hop, which are right in the last lane."""
    own = (edges[worker + 1] - edges[worker]) * hop
    return own + shared if worker == edges.size - 2 else own


@inner
def close_ends(signal, rows, hop_rows, left, samples, reflected):  # type: ignore[no-untyped-def]
    """Continue a signal beyond its ends, and repeat the next lane's first hops behind each lane.

    Args:
        signal: of which every lane's first ``rows`` rows are right, and all of the last one's.
        rows: ``slots * hop``.
        hop_rows: ``(overlaps - 1) * hop``, what the lanes share.
        left: rows before the first sample.
        samples: of the clip.
        reflected: whether by its mirror image, else by zeros.
    """
    right = hop_rows - left
    mirrored = reflected and max(left, right) < samples
    for i in range(left):
        signal[i, 0] = signal[2 * left - i, 0] if mirrored else _ZERO
    for i in range(right):
        to, source = left + samples + i, left + samples - 2 - i
        lane, other = min(to // rows, LANES - 1), min(max(source, 0) // rows, LANES - 1)
        signal[to - lane * rows, lane] = signal[source - other * rows, other] if mirrored else _ZERO
    for i in range(hop_rows):
        store(signal, rows + i, one_down(load(signal, i), load(signal, rows + i)))


@inner
def frames_out(rows, bands, slots, t, values):  # type: ignore[no-untyped-def]
    """The first ``bands`` rows, of the frames of slot ``t``, to their places in ``(slots * 16, bands)``, flat."""
    whole = bands // LANES * LANES
    for b in range(0, whole, LANES):
        out_of_lanes(rows, b, values, t * bands + b, slots * bands)
    for lane in range(LANES):
        for b in range(whole, bands):
            values[(lane * slots + t) * bands + b] = rows[b, lane]


@inner
def frames_in(values, columns, frames, bands, slots, t, rows, first):  # type: ignore[no-untyped-def]
    """The inverse of :func:`frames_out` from ``(frames, columns)``, to rows from ``first`` on; zeros beyond the end."""
    whole = bands // LANES * LANES if (LANES - 1) * slots + t < frames else 0
    for b in range(0, whole, LANES):
        into_lanes(values, t * columns + b, slots * columns, rows, first + b)
    for lane in range(LANES):
        frame = lane * slots + t
        for b in range(whole, bands):
            rows[first + b, lane] = values[frame * columns + b] if frame < frames else _ZERO


@compiled
def close(signal, rows, hop_rows, left, samples, reflected):  # type: ignore[no-untyped-def]
    """:func:`close_ends`, called from outside."""
    close_ends(signal, rows, hop_rows, left, samples, reflected)


@compiled
def fill(begin, end, audio, rows, left, signal):  # type: ignore[no-untyped-def]
    """Take samples ``(n,)``, ``left`` rows behind the start of lane 0, to the rows ``begin`` to ``end``; zeros around.

    ``rows`` is how far the lanes are apart.
    """
    samples = audio.size
    for start in range(begin, end, LANES):
        first, last = start - left, (LANES - 1) * rows + start + LANES - left
        if start + LANES <= end and first >= 0 and last <= samples:
            into_lanes(audio, first, rows, signal, start)
        else:
            for row in range(start, min(start + LANES, end)):
                for lane in range(LANES):
                    place = lane * rows + row - left
                    signal[row, lane] = audio[place] if 0 <= place < samples else _ZERO


@compiled
def read_out(begin, end, signal, rows, left, audio):  # type: ignore[no-untyped-def]
    """The inverse of :func:`fill`; the last lane is read to its end."""
    samples = audio.size
    for start in range(begin, end, LANES):
        first, last = start - left, (LANES - 1) * rows + start + LANES - left
        if start + LANES <= min(end, rows) and first >= 0 and last <= samples:
            out_of_lanes(signal, start, audio, first, rows)
        else:
            for row in range(start, min(start + LANES, end)):
                for lane in range(LANES):
                    place = lane * rows + row - left
                    if 0 <= place < samples and (row < rows or lane == LANES - 1):
                        audio[place] = signal[row, lane]

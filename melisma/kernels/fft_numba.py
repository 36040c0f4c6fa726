"""Real FFTs of sixteen frames side by side (:mod:`melisma.kernels.lanes_numba`), in place.

``n`` real samples go as ``n / 2`` complex numbers through a radix-4 transform that leaves its result in the order of
reversed digits; nothing is sorted, because the step that makes the spectrum of the real signal reads it through a table
of positions. The inverse takes the same order back to samples.

A transform needs the tables of :func:`tables`, and a work array for real and one for imaginary parts, ``(n / 2, 16)``.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from melisma.kernels.lanes_numba import inner, load, store

_HALF = np.float32(0.5)
_NEAR = 256  # complex rows of sixteen lanes, 32 KiB, that fit the first cache: passes over more go a part at a time


class Tables(NamedTuple):
    """What a transform of ``n`` real samples reads.

    Attributes:
        twiddles: of all passes, the widest first: cosine and sine of one, two and three times the angle, ``(rows, 6)``.
        position: where the complex transform leaves its result ``k``, int64 ``(n / 2 + 1,)``; the last is the first.
        turn: cosine and sine of ``2 pi k / n`` for ``k`` up to ``n / 4``, ``(n / 4 + 1, 2)``.
    """

    twiddles: np.ndarray
    position: np.ndarray
    turn: np.ndarray


@lru_cache(maxsize=16)
def tables(n: int) -> Tables:
    """Tables for ``n`` samples, a power of two, at least 16."""
    size, rows = n // 2, []
    position, rest, span = np.zeros(size, np.int64), np.arange(size), size
    while span >= 4:
        angle = 2 * np.pi * np.outer(np.arange(span // 4), (1, 2, 3)) / span
        rows.append(np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(-1, 6))
        position, rest, span = position + rest % 4 * (span // 4), rest // 4, span // 4
    if span == 2:
        position = position + rest % 2
    half = 2 * np.pi * np.arange(n // 4 + 1) / n
    return Tables(
        np.concatenate(rows).astype(np.float32),
        np.append(position, position[0]),
        np.stack([np.cos(half), np.sin(half)], axis=-1).astype(np.float32),
    )


def fits(n: int) -> bool:
    """Whether frames of this length can be transformed here."""
    return n >= 16 and n & (n - 1) == 0


@inner
def _forward_pass(re, im, start, stop, span, twiddles, first):  # type: ignore[no-untyped-def]
    quarter = span // 4
    for base in range(start, stop, span):
        for j in range(quarter):
            a = base + j
            b, c, d = a + quarter, a + 2 * quarter, a + 3 * quarter
            ar, ai, cr, ci = load(re, a), load(im, a), load(re, c), load(im, c)
            br, bi, dr, di = load(re, b), load(im, b), load(re, d), load(im, d)
            sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
            ur, ui, vr, vi = br + dr, bi + di, bi - di, dr - br  # v = -i (b - d)
            w = twiddles[first + j]
            store(re, a, sr + ur)
            store(im, a, si + ui)
            xr, xi = tr + vr, ti + vi
            store(re, b, xr * w[0] + xi * w[1])
            store(im, b, xi * w[0] - xr * w[1])
            xr, xi = sr - ur, si - ui
            store(re, c, xr * w[2] + xi * w[3])
            store(im, c, xi * w[2] - xr * w[3])
            xr, xi = tr - vr, ti - vi
            store(re, d, xr * w[4] + xi * w[5])
            store(im, d, xi * w[4] - xr * w[5])


@inner
def _fours(re, im, start, stop):  # type: ignore[no-untyped-def]
    """The pass of span 4, whose angles are all zero; with real and imaginary parts exchanged it is its inverse."""
    for a in range(start, stop, 4):
        ar, ai, cr, ci = load(re, a), load(im, a), load(re, a + 2), load(im, a + 2)
        br, bi, dr, di = load(re, a + 1), load(im, a + 1), load(re, a + 3), load(im, a + 3)
        sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
        ur, ui, vr, vi = br + dr, bi + di, bi - di, dr - br
        store(re, a, sr + ur)
        store(im, a, si + ui)
        store(re, a + 1, tr + vr)
        store(im, a + 1, ti + vi)
        store(re, a + 2, sr - ur)
        store(im, a + 2, si - ui)
        store(re, a + 3, tr - vr)
        store(im, a + 3, ti - vi)


@inner
def _inverse_pass(re, im, start, stop, span, twiddles, first):  # type: ignore[no-untyped-def]
    quarter = span // 4
    for base in range(start, stop, span):
        for j in range(quarter):
            a = base + j
            b, c, d = a + quarter, a + 2 * quarter, a + 3 * quarter
            w = twiddles[first + j]
            ar, ai = load(re, a), load(im, a)
            xr, xi = load(re, b), load(im, b)
            br, bi = xr * w[0] - xi * w[1], xi * w[0] + xr * w[1]
            xr, xi = load(re, c), load(im, c)
            cr, ci = xr * w[2] - xi * w[3], xi * w[2] + xr * w[3]
            xr, xi = load(re, d), load(im, d)
            dr, di = xr * w[4] - xi * w[5], xi * w[4] + xr * w[5]
            sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
            ur, ui, vr, vi = br + dr, bi + di, di - bi, br - dr  # v = i (b - d)
            store(re, a, sr + ur)
            store(im, a, si + ui)
            store(re, b, tr + vr)
            store(im, b, ti + vi)
            store(re, c, sr - ur)
            store(im, c, si - ui)
            store(re, d, tr - vr)
            store(im, d, ti - vi)


@inner
def _pairs(re, im, start, stop):  # type: ignore[no-untyped-def]
    """The last pass of sizes that are two times a power of four; it is its own inverse, up to a factor."""
    for a in range(start, stop, 2):
        ar, ai, br, bi = load(re, a), load(im, a), load(re, a + 1), load(im, a + 1)
        store(re, a, ar + br)
        store(im, a, ai + bi)
        store(re, a + 1, ar - br)
        store(im, a + 1, ai - bi)


@inner
def _forward_rest(re, im, twiddles, span, first, start, stop):  # type: ignore[no-untyped-def]
    """The passes of a span and of all below it, over a part."""
    while span > 4:
        _forward_pass(re, im, start, stop, span, twiddles, first)
        first += span // 4
        span //= 4
    if span == 4:
        _fours(re, im, start, stop)
    else:
        _pairs(re, im, start, stop)


@inner
def _inverse_up_to(re, im, twiddles, widest, first, start, stop):  # type: ignore[no-untyped-def]
    """The passes of the inverse up to a span over a part; ``first``: where the twiddles of that span begin."""
    span = widest
    while span > 4:
        first += span // 4
        span //= 4
    if span == 4:
        _fours(im, re, start, stop)
    else:
        _pairs(re, im, start, stop)
    while span < widest:
        span *= 4
        first -= span // 4
        _inverse_pass(re, im, start, stop, span, twiddles, first)


@inner
def forward_of(signal, row, window, re, im, twiddles):  # type: ignore[no-untyped-def]
    """Transform the real samples from ``row`` of a signal on, times a window; result ``k`` stands at ``position[k]``.

    The samples are read by the first pass. Where the others reach over more than the nearest cache holds, each of the
    four parts that the first one leaves goes through all of them.
    """
    size = re.shape[0]
    quarter = size // 4
    for a in range(quarter):
        b, c, d = a + quarter, a + 2 * quarter, a + 3 * quarter
        ar, ai = load(signal, row + 2 * a) * window[2 * a], load(signal, row + 2 * a + 1) * window[2 * a + 1]
        br, bi = load(signal, row + 2 * b) * window[2 * b], load(signal, row + 2 * b + 1) * window[2 * b + 1]
        cr, ci = load(signal, row + 2 * c) * window[2 * c], load(signal, row + 2 * c + 1) * window[2 * c + 1]
        dr, di = load(signal, row + 2 * d) * window[2 * d], load(signal, row + 2 * d + 1) * window[2 * d + 1]
        sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
        ur, ui, vr, vi = br + dr, bi + di, bi - di, dr - br  # v = -i (b - d)
        w = twiddles[a]
        store(re, a, sr + ur)
        store(im, a, si + ui)
        xr, xi = tr + vr, ti + vi
        store(re, b, xr * w[0] + xi * w[1])
        store(im, b, xi * w[0] - xr * w[1])
        xr, xi = sr - ur, si - ui
        store(re, c, xr * w[2] + xi * w[3])
        store(im, c, xi * w[2] - xr * w[3])
        xr, xi = tr - vr, ti - vi
        store(re, d, xr * w[4] + xi * w[5])
        store(im, d, xi * w[4] - xr * w[5])
    part = quarter if size > _NEAR else size
    for start in range(0, size, part):
        _forward_rest(re, im, twiddles, quarter, quarter, start, start + part)


@inner
def inverse(re, im, twiddles):  # type: ignore[no-untyped-def]
    """Back to samples, times ``n / 2``."""
    size = re.shape[0]
    quarter = size // 4
    part = quarter if size > _NEAR else size
    for start in range(0, size, part):
        _inverse_up_to(re, im, twiddles, quarter, quarter, start, start + part)
    _inverse_pass(re, im, 0, size, size, twiddles, 0)


@inner
def split(re, im, k, position, turn):  # type: ignore[no-untyped-def]
    """Bins ``k`` and ``n / 2 - k`` of the real signal, ``0 < k <= n / 4``, from the complex transform."""
    p, q = position[k], position[re.shape[0] - k]
    ar, ai, br, bi = load(re, p), load(im, p), load(re, q), load(im, q)
    er, ei = (ar + br) * _HALF, (ai - bi) * _HALF
    dr, di = (ai + bi) * _HALF, (br - ar) * _HALF  # the transform of the odd samples
    c, s = turn[k, 0], turn[k, 1]
    wr, wi = dr * c + di * s, di * c - dr * s
    return er + wr, ei + wi, er - wr, wi - ei


@inner
def merge(re, im, k, position, turn, xr, xi, yr, yi):  # type: ignore[no-untyped-def]
    """What :func:`split` took apart, put back: bins ``k`` and ``n / 2 - k`` of a real signal."""
    er, ei = (xr + yr) * _HALF, (xi - yi) * _HALF
    wr, wi = (xr - yr) * _HALF, (xi + yi) * _HALF
    c, s = turn[k, 0], turn[k, 1]
    dr, di = wr * c - wi * s, wi * c + wr * s
    p, q = position[k], position[re.shape[0] - k]
    # One number where k is the middle; then both say the same.
    store(re, p, er - di)
    store(im, p, ei + dr)
    store(re, q, er + di)
    store(im, q, dr - ei)


@inner
def ends(re, im, position):  # type: ignore[no-untyped-def]
    """Bins 0 and ``n / 2`` of the real signal; both are real."""
    p = position[0]
    ar, ai = load(re, p), load(im, p)
    return ar + ai, ar - ai


@inner
def merge_ends(re, im, position, low, high):  # type: ignore[no-untyped-def]
    """What :func:`ends` took apart, put back."""
    p = position[0]
    store(re, p, (low + high) * _HALF)
    store(im, p, (low - high) * _HALF)

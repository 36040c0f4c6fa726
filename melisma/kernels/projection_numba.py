"""Inner loops of a round of mel projection, compiled by numba; see :mod:`melisma.kernels.projection`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

_FAST = frozenset({"contract"})


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call, without the GIL; keep the machine code beside the module or in the user's cache."""
    try:
        return njit(function, nogil=True, cache=True, fastmath=set(_FAST), error_model="numpy")
    except RuntimeError:  # no folder may be written
        return njit(function, nogil=True, fastmath=set(_FAST), error_model="numpy")


@_compiled
def magnitudes(spectrum, scale, epsilon, out):  # type: ignore[no-untyped-def]
    """``out[f, b] = sqrt(scale |spectrum[f, b]|^2 + epsilon)``; ``spectrum`` holds real and imaginary parts in turn."""
    for f in range(out.shape[0]):
        row, target = spectrum[f], out[f]
        for b in range(target.size):
            real, imaginary = row[2 * b], row[2 * b + 1]
            target[b] = np.sqrt((real * real + imaginary * imaginary) * scale + epsilon)


@_compiled
def amplify(spectrum, step, lower, weights, gains):  # type: ignore[no-untyped-def]
    """Multiply every bin by ``exp`` of its share of two neighbouring steps, which are at most a few nepers.

    Args:
        spectrum: ``(frames, 2 * bins)``, real and imaginary parts in turn; changed in place.
        step: ``(frames, bands + 1)``, the last one 0.
        lower: the lower band of every bin, ``(bins,)``.
        weights: of the lower and the next band, ``(2, bins)``.
        gains: room for ``(bins,)`` values.
    """
    one = np.float32(1.0)
    for f in range(spectrum.shape[0]):
        row, steps = spectrum[f], step[f]
        for b in range(lower.size):
            gains[b] = steps[lower[b]] * weights[0, b] + steps[lower[b] + 1] * weights[1, b]
        for b in range(lower.size):
            r = gains[b] * np.float32(0.25)  # the power series of a quarter, squared twice
            e = one + r * np.float32(1 / 6) * (one + r * np.float32(1 / 7) * (one + r * np.float32(1 / 8)))
            e = one + r * np.float32(1 / 3) * (one + r * np.float32(1 / 4) * (one + r * np.float32(1 / 5) * e))
            e = one + r * (one + r * np.float32(1 / 2) * e)
            gains[b] = (e * e) * (e * e)
        for b in range(lower.size):
            row[2 * b] *= gains[b]
            row[2 * b + 1] *= gains[b]


@_compiled
def add_up(frames, window, weight, hop_length, first, stop, momentum, audio, ahead):  # type: ignore[no-untyped-def]
    """Overlap-add of the hops ``first`` to ``stop``, and the point ahead in the direction of the change.

    Args:
        frames: ``(frames, n_fft)``.
        window: ``(n_fft,)``.
        weight: one over the sum of squared windows, ``(hops * hop_length,)``.
        hop_length: samples; ``n_fft`` is a multiple.
        first: hop.
        stop: hop.
        momentum: share of the change.
        audio: ``(hops * hop_length,)``, the last round's result, replaced by the new one.
        ahead: likewise, replaced by ``new + momentum * (new - last)``.
    """
    overlaps = window.size // hop_length
    for q in range(first, stop):
        start = q * hop_length
        total = ahead[start : start + hop_length]
        total[:] = np.float32(0.0)
        for k in range(max(0, q - frames.shape[0] + 1), min(overlaps, q + 1)):
            piece, shape = frames[q - k, k * hop_length :], window[k * hop_length :]
            for i in range(hop_length):
                total[i] += piece[i] * shape[i]
        last, own = audio[start:], weight[start:]
        for i in range(hop_length):
            new = total[i] * own[i]
            total[i] = new + momentum * (new - last[i])
            last[i] = new


@_compiled
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

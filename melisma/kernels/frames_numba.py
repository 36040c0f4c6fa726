"""What a backbone does to frames between its matrix products; channels last, sixteen of them at a time.

Arrays of frames are ``(frames * channels / 16, 16)``.
"""

import numpy as np

from melisma.kernels.lanes_numba import compiled, everywhere, exponential, inner, load, meet, store, sum_of

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
# gelu(x) = x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))), the form with tanh in other words.
_LINEAR, _CUBIC = np.float32(-2.0 * np.sqrt(2.0 / np.pi)), np.float32(-2.0 * np.sqrt(2.0 / np.pi) * 0.044715)


@inner
def _normalise(rows, first, groups, scale, bias, epsilon):  # type: ignore[no-untyped-def]
    """Layer norm of one frame in place."""
    total = everywhere(_ZERO)
    for g in range(groups):
        total = total + load(rows, first + g)
    mean = sum_of(total) / np.float32(groups * 16)
    total = everywhere(_ZERO)
    for g in range(groups):
        away = load(rows, first + g) - mean
        total = total + away * away
    shrink = _ONE / np.sqrt(sum_of(total) / np.float32(groups * 16) + epsilon)
    for g in range(groups):
        store(rows, first + g, (load(rows, first + g) - mean) * shrink * load(scale, g) + load(bias, g))


@compiled
def normalise(rows, first, stop, norm):  # type: ignore[no-untyped-def]
    """Layer norm of the frames ``first`` to ``stop`` in place; ``norm``: ``(scale, bias, epsilon)``."""
    scale, bias, epsilon = norm
    groups = scale.shape[0]
    for frame in range(first, stop):
        _normalise(rows, frame * groups, groups, scale, bias, epsilon)


@compiled
def begin_block(x, frames, first, stop, depthwise, norm, skip, out, after):  # type: ignore[no-untyped-def]
    """Depthwise convolution and layer norm of the frames ``first`` to ``stop``.

    Args:
        x: what the block is given, all frames.
        frames: how many.
        first: frame.
        stop: frame.
        depthwise: ``(taps, bias, left)``: ``(taps * groups, 16)``, ``(groups, 16)``, frames before that are read.
        norm: ``(scale, bias, epsilon)``.
        skip: added to ``x`` on its way past the block, ``(groups, 16)``.
        out: the normalised frames, from ``first`` on.
        after: all frames; becomes ``x + skip``.
    """
    taps, offset, left = depthwise
    scale, bias, epsilon = norm
    groups = scale.shape[0]
    size = taps.shape[0] // groups
    for frame in range(first, stop):
        low, high = max(0, left - frame), min(size, frames + left - frame)
        row = (frame - first) * groups
        for g in range(groups):
            total = load(offset, g)
            for tap in range(low, high):
                total = total + load(x, (frame - left + tap) * groups + g) * load(taps, tap * groups + g)
            store(out, row + g, total)
            store(after, frame * groups + g, load(x, frame * groups + g) + load(skip, g))
        _normalise(out, row, groups, scale, bias, epsilon)


@compiled
def gelu(rows):  # type: ignore[no-untyped-def]
    """The Gaussian error linear unit in its form with tanh, in place."""
    for i in range(rows.shape[0]):
        x = load(rows, i)
        store(rows, i, x / (exponential(x * (x * x * _CUBIC + _LINEAR)) + _ONE))


@compiled
def wait(counter, expected):  # type: ignore[no-untyped-def]
    """Wait for the other workers without the GIL, see :func:`melisma.kernels.lanes_numba.meet`."""
    meet(counter, expected)

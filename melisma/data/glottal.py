"""The built-in singer's voice source: band-limited glottal pulses that follow a phase.

One period of a glottal flow derivative is turned into its Fourier coefficients once, and into tables that hold fewer
and fewer harmonics. Reading the tables at the phase gives pulses without aliasing and with exactly the F0 asked for.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_TABLE_LENGTH = 1 << 15
_LEVELS_PER_OCTAVE = 4


def flow_derivative(open_quotient: float, speed_quotient: float, length: int = _TABLE_LENGTH) -> Array:
    """Return one period ``(length,)`` of the derivative of Rosenberg's glottal flow (Rosenberg 1971, pulse C).

    Args:
        open_quotient: share of the period in which the glottis is open, 0 to 1.
        speed_quotient: opening time over closing time.
        length: samples in the period.
    """
    t = np.arange(length) / length
    closing = open_quotient / (1.0 + speed_quotient)
    opening = open_quotient - closing
    rise = 0.5 * np.pi / opening * np.sin(np.pi * t / opening)
    fall = -0.5 * np.pi / closing * np.sin(0.5 * np.pi * (t - opening) / closing)
    return np.where(t < opening, rise, np.where(t < open_quotient, fall, 0.0))


@lru_cache(maxsize=8)
def _tables(open_quotient: float, speed_quotient: float, sample_rate: int, lowest_hz: float, levels: int) -> Array:
    """Pulse tables ``(levels, length + 1)``; level ``i`` does not alias up to ``lowest_hz * 2 ** (i / 4)``."""
    coefficients = np.fft.rfft(flow_derivative(open_quotient, speed_quotient))
    coefficients[0] = 0.0
    # Same energy whatever the shape, so that soft and loud differ by the gain that the singer gives them.
    coefficients /= np.sqrt(2.0 * np.sum(np.abs(coefficients) ** 2)) / _TABLE_LENGTH
    tables = np.empty((levels, _TABLE_LENGTH + 1))
    for level in range(levels):
        highest_hz = lowest_hz * 2.0 ** (level / _LEVELS_PER_OCTAVE)
        kept = coefficients.copy()
        kept[max(1, int(0.485 * sample_rate / highest_hz)) + 1 :] = 0.0
        period = np.fft.irfft(kept)
        tables[level] = np.append(period, period[0])
    tables.setflags(write=False)
    return tables


def pulses(phase: Array, f0_hz: Array, open_quotient: float, speed_quotient: float, sample_rate: int) -> Array:
    """Read glottal pulses at a phase.

    Args:
        phase: ``(samples,)`` in cycles, unwrapped.
        f0_hz: ``(samples,)``, positive everywhere; decides how many harmonics fit below half the sample rate.
        open_quotient: see :func:`flow_derivative`.
        speed_quotient: see :func:`flow_derivative`.
        sample_rate: Hz.

    Returns:
        ``(samples,)`` with RMS near 1.
    """
    lowest_hz = 40.0
    octaves = np.log2(max(float(f0_hz.max()), lowest_hz) / lowest_hz)
    levels = int(np.ceil(octaves * _LEVELS_PER_OCTAVE)) + 2
    tables = _tables(open_quotient, speed_quotient, sample_rate, lowest_hz, levels)
    place = np.maximum(0.0, np.log2(f0_hz / lowest_hz) * _LEVELS_PER_OCTAVE)
    level = np.ceil(place).astype(np.int64)
    blend = 1.0 - (level - place)  # 1 at the level's own highest F0: by then only the next, safer level is heard
    at = (phase - np.floor(phase)) * _TABLE_LENGTH
    index = np.minimum(at.astype(np.int64), _TABLE_LENGTH - 1)
    part = at - index

    def read(which: NDArray[np.int64]) -> Array:
        left = tables[which, index]
        return left + part * (tables[which, index + 1] - left)

    return (1.0 - blend) * read(level) + blend * read(np.minimum(level + 1, levels - 1))

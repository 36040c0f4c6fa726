"""Sines as polynomials, for kernels that must become vector code: both for a phase within half a cycle of zero."""

from collections.abc import Callable

import numpy as np


def _fit(function: Callable[[np.ndarray], np.ndarray], degree: int = 6) -> tuple[float, ...]:
    """Coefficients of a polynomial in ``q`` on [0, 1/4] through Chebyshev nodes, lowest first, in single precision."""
    nodes = (1 + np.cos(np.pi * (np.arange(64) + 0.5) / 64)) / 8
    series = np.polynomial.Chebyshev.fit(nodes, function(nodes), degree, domain=[0, 0.25])
    return tuple(float(np.float32(value)) for value in series.convert(kind=np.polynomial.Polynomial).coef)


# sin(pi r)^2 = q P(q) and sin(2 pi r) = r Q(q), q = r^2.
SINE_SQUARED = _fit(lambda q: np.sin(np.pi * np.sqrt(q)) ** 2 / q)
DOUBLE_SINE = _fit(lambda q: np.sin(2 * np.pi * np.sqrt(q)) / np.sqrt(q))
ROUND = 1.5 * 2.0**23  # added and taken away again, it rounds a float32 to whole numbers


def _log_series(degree: int = 8) -> tuple[float, ...]:
    """``log(1 + r) = r L(r)`` for ``r`` in [-1/4, 1/2], lowest coefficient first, in single precision."""
    r = 0.125 + 0.375 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    series = np.polynomial.Chebyshev.fit(r, np.log1p(r) / r, degree, domain=[-0.25, 0.5])
    return tuple(float(np.float32(value)) for value in series.convert(kind=np.polynomial.Polynomial).coef)


# cos(2 pi r) = C(q), q = r^2, for r within half a cycle of zero.
COSINE = _fit(lambda q: np.cos(2 * np.pi * np.sqrt(q)))
LOGARITHM = _log_series()

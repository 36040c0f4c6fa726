"""Harvest of WORLD (Morise 2017): band-pass candidates refined by instantaneous frequency. Slow, few gaps."""

from fractions import Fraction

import numpy as np

from melisma.f0.raw import Estimator, RawF0

STEP_MS = 5


def estimate(audio: np.ndarray, sample_rate: int, fmin: float, fmax: float) -> RawF0:
    """Estimate with Harvest; see :class:`melisma.f0.raw.Estimator`."""
    import pyworld

    f0_hz, times_s = pyworld.harvest(
        audio.astype(np.float64), sample_rate, f0_floor=fmin, f0_ceil=fmax, frame_period=float(STEP_MS)
    )
    return RawF0(times_s, f0_hz)


HARVEST = Estimator(estimate, step_s=Fraction(STEP_MS, 1000), lowest_hz=30.0, highest_hz=2000.0)

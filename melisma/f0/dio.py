"""DIO of WORLD (Morise et al. 2009): zero crossings of low-passed signals. The fastest, and the least robust."""

from fractions import Fraction

import numpy as np

from melisma.f0.raw import Estimator, RawF0

STEP_MS = 5


def estimate(audio: np.ndarray, sample_rate: int, fmin: float, fmax: float) -> RawF0:
    """Estimate with DIO; see :class:`melisma.f0.raw.Estimator`."""
    import pyworld

    f0_hz, times_s = pyworld.dio(
        audio.astype(np.float64), sample_rate, f0_floor=fmin, f0_ceil=fmax, frame_period=float(STEP_MS)
    )
    return RawF0(times_s, f0_hz)


DIO = Estimator(estimate, step_s=Fraction(STEP_MS, 1000), lowest_hz=30.0, highest_hz=2000.0)

"""Refinement of a coarse F0 on the signal at its full rate."""

import numpy as np

# A refinement that moves F0 further than this has found something else.
LARGEST_MOVE_CENTS = 50.0


def stonemask(audio: np.ndarray, sample_rate: int, f0_hz: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """StoneMask of WORLD: F0 from the instantaneous frequencies of the first harmonics in about three periods.

    Args:
        audio: ``(samples,)``.
        sample_rate: Hz.
        f0_hz: ``(frames,)`` float64, 0 unvoiced.
        times_s: ``(frames,)`` float64.

    Returns:
        ``(frames,)`` float64; where the refinement moves more than ``LARGEST_MOVE_CENTS`` or fails, the input.
    """
    import pyworld

    voiced = f0_hz > 0
    if not voiced.any():
        return f0_hz
    refined = f0_hz.copy()
    refined[voiced] = pyworld.stonemask(
        np.ascontiguousarray(audio, dtype=np.float64), f0_hz[voiced], times_s[voiced], sample_rate
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.abs(1200.0 * np.log2(refined / f0_hz))
    return np.where(moved <= LARGEST_MOVE_CENTS, refined, f0_hz)

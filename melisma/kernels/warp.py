"""A recording read through a warp of time on a CPU: phase, its inverse and the cubic between samples in one pass."""

from functools import partial

import numpy as np

from melisma.kernels import choice, numba_part, ready, workers

_numba = numba_part("warp_numba")

_LEAST_FRAMES = 8  # for a worker of its own

Curve = tuple[int, np.ndarray, np.ndarray, np.ndarray]


def allowed() -> bool:
    """Whether it may be taken."""
    return ready.usable(choice.excitation())


def read_warped(
    dense: np.ndarray,
    oversampling: int,
    low: int,
    target: Curve,
    here: Curve,
    centres: np.ndarray,
    periods: np.ndarray,
    fine: int,
    values: int,
) -> np.ndarray:
    """Read frames of a recording where its phase is what the target's is in the result.

    Args:
        dense: the recording, float32 ``(channels, samples * oversampling)``.
        oversampling: values a sample.
        low: position of its first sample.
        target: phase curve of the result: hop, and ``advance``, ``slope`` and ``cycles`` of
            :class:`melisma.audio.transpose.PhaseCurve`.
        here: that of the recording.
        centres: of the frames in the result, samples, ``(frames,)``.
        periods: whole cycles that are added to the target's, ``(frames,)``.
        fine: values a sample that are read.
        values: of a frame.

    Returns:
        float32 ``(channels, frames, values)``.
    """
    out = np.empty((dense.shape[0], len(centres), values), np.float32)
    curve = (*here, low)

    def part(first: int, stop: int) -> None:
        _numba().read_warped(
            dense, oversampling, target, curve, centres[first:stop], periods[first:stop], fine, out[:, first:stop]
        )

    workers.together([partial(part, *ends) for ends in workers.stretches(len(centres), _LEAST_FRAMES, len(centres))])
    return out

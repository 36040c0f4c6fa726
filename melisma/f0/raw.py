"""What an estimator gives, and how it is read at the frames of a mel."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from melisma.audio.f0_curve import sample_curve
from melisma.errors import MelismaError


@dataclass(frozen=True)
class RawF0:
    """F0 on an estimator's own grid.

    Attributes:
        times_s: ``(points,)`` float64, increasing: seconds from the first sample to the centre of a point.
        f0_hz: ``(points,)`` float64, 0 where unvoiced.
    """

    times_s: np.ndarray
    f0_hz: np.ndarray


@dataclass(frozen=True)
class Estimator:
    """One row of the table of estimators.

    Attributes:
        estimate: ``(audio (samples,) float32, sample_rate, fmin, fmax) -> RawF0``.
        step_s: distance of the grid's points in seconds; blocks of long audio begin on multiples of it.
        lowest_hz: lowest F0 that it can find.
        highest_hz: highest F0 that it can find.
        dither: standard deviation of white noise that is added to what it hears.
    """

    estimate: Callable[[np.ndarray, int, float, float], RawF0]
    step_s: Fraction
    lowest_hz: float
    highest_hz: float
    dither: float = 0.0


def frame_count(samples: int, hop_length: int, padding: Literal["same", "nvstft", "centre"] = "same") -> int:
    """Frames that a mel of that padding has (for even ``n_fft - hop``), at least one."""
    return samples // hop_length + 1 if padding == "centre" else max(1, samples // hop_length)


def frame_times(
    samples: int, sample_rate: int, hop_length: int, padding: Literal["same", "nvstft", "centre"] = "same"
) -> np.ndarray:
    """Centres of the frames in seconds: ``(t + 1/2) * hop`` samples, or ``t * hop`` for ``centre``."""
    if padding not in ("same", "nvstft", "centre"):
        raise MelismaError(f"unknown padding {padding!r}; known: same, nvstft, centre")
    first = 0.0 if padding == "centre" else 0.5
    return (np.arange(frame_count(samples, hop_length, padding)) + first) * (hop_length / sample_rate)


def read_at(raw: RawF0, times_s: np.ndarray) -> np.ndarray:
    """F0 at given times, float64: :func:`sample_curve`, but the nearest point where the pitch leaps between two points.

    A leap of more than a third of an octave is a new note, not a glide.
    """
    times, f0_hz = raw.times_s, raw.f0_hz
    line = sample_curve(times, f0_hz, times_s)
    if times.size < 2:
        return line
    after = np.clip(np.searchsorted(times, times_s), 1, times.size - 1)
    low, high = f0_hz[after - 1], f0_hz[after]
    leap = np.abs(np.log2(np.maximum(high, 1.0) / np.maximum(low, 1.0))) > 1.0 / 3.0
    return np.where(leap, np.where(times_s - times[after - 1] < times[after] - times_s, low, high), line)

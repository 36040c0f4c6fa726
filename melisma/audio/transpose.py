"""A recording at another pitch or tempo, with its formants where they were.

Every frame of the result is read from the recording through a warp of time that makes the phase of its fundamental run
as the new pitch's does (:class:`PhaseCurve`); so every harmonic stands and glides where the new pitch wants it, with
its own fine movements. Neighbouring frames read the recording whole periods apart, as PSOLA (Moulines and Charpentier
1990) does, and overlap in phase. The warp moves the formants; :mod:`melisma.audio.formant_filter` puts them back.

This is the classical half of a pitch shift: what comes out has the mel that belongs to the new pitch, and a vocoder
that is given it need not guess. There and back again is almost without loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr

from melisma.audio.f0_curve import interpolate_unvoiced
from melisma.audio.mel import MelContract
from melisma.kernels import warp as kernel

# An unvoiced frame this near to a note hears the note in its window, and moves with it; but not far up, where what is
# too weak to be a voice in place would become one.
REACH_FRAMES = 8
FAR_RATIO = 1.5
# The recording is read between its samples: cubic interpolation at twice its rate.
_OVERSAMPLING = 2
MARGIN = 2048


class PhaseCurve:
    """Phase of the fundamental over time; F0 lies on straight lines between frame centres and goes on through gaps.

    Args:
        f0_hz: ``(frames,)`` Hz, 0 where unvoiced, at least one voiced.
        sample_rate: Hz.
        hop_length: samples between frames; frame ``t`` stands at ``(t + 1/2) * hop_length``.
    """

    def __init__(self, f0_hz: np.ndarray, sample_rate: int, hop_length: int) -> None:
        filled = interpolate_unvoiced(np.asarray(f0_hz, dtype=np.float64)) / sample_rate
        self.hop_length = hop_length
        self.advance = np.concatenate([filled[:1], filled, filled[-1:]])  # cycles a sample; the ends go on for ever
        self.slope = np.diff(self.advance) / hop_length
        steps = 0.5 * (self.advance[1:] + self.advance[:-1]) * hop_length
        self.cycles = np.concatenate([[0.0], np.cumsum(steps)])  # at the centre of frame ``i - 1``

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Cycles at sample positions (any shape, fractional, also outside the clip)."""
        segment = np.floor(positions / self.hop_length + 0.5).astype(np.int64).clip(0, len(self.slope) - 1)
        since = positions - (segment - 0.5) * self.hop_length
        return self.cycles[segment] + since * (self.advance[segment] + 0.5 * self.slope[segment] * since)

    def position(self, cycles: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`at`: where the phase is so far."""
        segment = np.searchsorted(self.cycles[1:-1], cycles, side="right")
        beyond = cycles - self.cycles[segment]
        start = self.advance[segment]
        root = np.sqrt(np.maximum(start**2 + 2.0 * self.slope[segment] * beyond, 0.25 * start**2))
        return (segment - 0.5) * self.hop_length + 2.0 * beyond / (start + root)


def frame_ratios(f0_hz: np.ndarray, target_f0_hz: np.ndarray) -> np.ndarray:
    """By how much the pitch of every frame moves.

    Args:
        f0_hz: ``(frames,)`` Hz of the recording, 0 where unvoiced.
        target_f0_hz: ``(frames,)`` Hz as it shall be sung.

    Returns:
        ``(frames,)`` float64; 0 where there is no pitch to move: unvoiced frames, except close to a note, which they
        follow.
    """
    both = (f0_hz > 0) & (target_f0_hz > 0)
    ratios = np.where(both, target_f0_hz / np.where(both, f0_hz, 1.0), 0.0).astype(np.float64)
    where = np.flatnonzero(both)
    if where.size == 0:
        return ratios
    frames = np.arange(len(ratios))
    after = np.searchsorted(where, frames).clip(max=where.size - 1)
    before = (after - 1).clip(min=0)
    nearest = np.where(np.abs(where[after] - frames) <= np.abs(where[before] - frames), where[after], where[before])
    follows = (np.abs(nearest - frames) <= REACH_FRAMES) & (ratios[nearest] < FAR_RATIO)
    return np.where(both | follows, ratios[nearest], 0.0)


def read_between(block: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Read a signal between its samples.

    Args:
        block: ``(channels, samples)``, with at least ``MARGIN`` samples around all positions.
        positions: any shape, in samples.

    Returns:
        ``(channels, *positions.shape)`` float32.
    """
    dense = _dense(block)
    scaled = positions * _OVERSAMPLING
    index = np.floor(scaled).astype(np.int64)
    x = (scaled - index).astype(np.float32)
    before, first, second, after = (dense[:, index + k] for k in (-1, 0, 1, 2))
    # Catmull-Rom: the tangent at a sample is the mean slope around it.
    cubic = x * (3.0 * (first - second) + after - before) + 2.0 * before - 5.0 * first + 4.0 * second - after
    return first + 0.5 * x * (second - before + x * cubic)


def _dense(block: np.ndarray) -> np.ndarray:
    return soxr.resample(np.ascontiguousarray(block.T), 1, _OVERSAMPLING, quality="HQ").T.reshape(len(block), -1)


@dataclass(frozen=True)
class Warp:
    """Frames of a result, and where in the recording their samples are: where the phase is the same.

    Attributes:
        target: phase of the result.
        here: phase of the recording.
        centres: of the frames in the result, samples, ``(frames,)``.
        periods: whole cycles between the two, ``(frames,)``.
        fine: values a sample.
        values: of a frame.
    """

    target: PhaseCurve
    here: PhaseCurve
    centres: np.ndarray
    periods: np.ndarray
    fine: int
    values: int

    def positions(self, first: int, stop: int) -> np.ndarray:
        """Positions in the recording of the values ``first`` to ``stop`` of all frames."""
        offsets = np.arange(first, stop) / self.fine - self.values / (2 * self.fine)
        wanted = self.target.at(self.centres[:, None] + offsets)
        return self.here.position(wanted + self.periods[:, None])

    def read(self, take: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The frames ``(channels, frames, values)``; ``take`` gives the recording at whole positions."""
        ends = self.positions(0, 1), self.positions(self.values - 1, self.values)  # the phase only grows
        low, high = int(ends[0].min()) - MARGIN, int(ends[1].max()) + MARGIN
        block = take(np.arange(low, high))
        if not kernel.allowed():
            return read_between(block, self.positions(0, self.values) - low)
        target, here = ((c.hop_length, c.advance, c.slope, c.cycles) for c in (self.target, self.here))
        dense = np.ascontiguousarray(_dense(block))
        more = self.centres, self.periods, self.fine, self.values
        return kernel.read_warped(dense, _OVERSAMPLING, low, target, here, *more)


def samples_a_sample(ratio: float, mel: MelContract) -> int:
    """How finely a frame must be read so that nothing folds back into the bands of the mel."""
    return max(1, math.ceil(0.5 * ratio + mel.highest_hz / mel.sample_rate - 1e-9))

"""The one door to F0: any estimator, read at the frames of a mel, at flat memory."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np

from melisma.config import lookup
from melisma.errors import MelismaError
from melisma.f0.dio import DIO
from melisma.f0.harvest import HARVEST
from melisma.f0.raw import Estimator, frame_times, read_at
from melisma.f0.refine import stonemask
from melisma.f0.swift import SWIFT_F0

ESTIMATORS: dict[str, Estimator] = {"swift-f0": SWIFT_F0, "harvest": HARVEST, "dio": DIO}
DEFAULT_METHOD = "swift-f0"

# Long audio goes in blocks; each is read with this much real context on both sides.
BLOCK_SECONDS = 30
CONTEXT_SECONDS = 1
# A recording that begins or ends in the middle of a note goes on for the estimators as its own mirror image: they need
# what is around a frame, and would call the first frames and the last ones unvoiced.
MIRROR_SECONDS = 0.1
# Shorter audio is padded with silence: the estimators need a few periods.
SHORTEST_SECONDS = 0.1
# A quiet recording is raised to this peak, by at most this gain: SwiftF0 silences what peaks below 1e-3.
QUIET_PEAK = 0.3
LARGEST_GAIN = 300.0
# Below this peak (-100 dB) there is nothing to find.
SILENT_PEAK = 1e-5
# What a voice can sing, and more.
LOWEST_HZ, HIGHEST_HZ = 40.0, 2000.0
# Samples read at once to find the peak.
_READ = 1 << 18


def estimate_f0(
    audio: np.ndarray,
    sample_rate: int,
    hop_length: int,
    method: str = DEFAULT_METHOD,
    fmin: float = LOWEST_HZ,
    fmax: float = HIGHEST_HZ,
    refine: bool = True,
    padding: Literal["same", "nvstft", "centre"] = "same",
) -> np.ndarray:
    """Estimate F0 at the frames of a log-mel.

    Args:
        audio: ``(samples,)``, numpy or torch, nominally in [-1, 1]; the level does not matter.
        sample_rate: Hz.
        hop_length: samples between frames.
        method: a name of ``ESTIMATORS``.
        fmin: lowest F0 looked for, Hz.
        fmax: highest F0 looked for, Hz.
        refine: sharpen the estimate on the signal at its full rate.
        padding: the mel contract's; frame ``t`` is centred on ``(t + 1/2) * hop_length`` (``same``, ``nvstft``) or on
            ``t * hop_length`` (``centre``).

    Returns:
        ``(frames,)`` float32 in Hz, 0 where unvoiced; as many frames as the mel has.

    Raises:
        MelismaError: unknown method, audio that is not one channel, empty, or not finite, or an empty F0 range.
    """
    lookup(ESTIMATORS, method, "F0 estimator")
    signal = np.asarray(audio)
    if signal.ndim != 1 or signal.size == 0:
        raise MelismaError(f"F0 needs one channel of audio, (samples,), not {signal.shape}; average the channels first")
    if sample_rate < 1 or hop_length < 1:
        raise MelismaError(f"F0 needs a positive sample rate and hop, not {sample_rate} Hz and {hop_length}")
    times_s = frame_times(signal.size, sample_rate, hop_length, padding)

    def read(start: int, stop: int) -> np.ndarray:
        return signal[start:stop]

    return estimate_f0_blocks(read, signal.size, sample_rate, times_s, method, fmin, fmax, refine)


def estimate_f0_blocks(
    read: Callable[[int, int], np.ndarray],
    samples: int,
    sample_rate: int,
    times_s: np.ndarray,
    method: str = DEFAULT_METHOD,
    fmin: float = LOWEST_HZ,
    fmax: float = HIGHEST_HZ,
    refine: bool = True,
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """:func:`estimate_f0` of audio that is read in pieces; it is read twice, for the level and for F0.

    Args:
        read: ``(start, stop) -> (stop - start,)`` samples of one channel, ``0 <= start < stop <= samples``.
        samples: length, at least 1.
        sample_rate: Hz.
        times_s: ``(frames,)`` seconds, increasing: where F0 is wanted.
        method: as in :func:`estimate_f0`, like ``fmin``, ``fmax`` and ``refine``.
        fmin: Hz.
        fmax: Hz.
        refine: see there.
        progress: called with the share done, 0 to 1, after every block.

    Returns:
        ``(frames,)`` float32 in Hz, 0 where unvoiced.

    Raises:
        MelismaError: unknown method, samples that are not finite, or an empty F0 range.
    """
    estimator = lookup(ESTIMATORS, method, "F0 estimator")
    low, high = max(fmin, estimator.lowest_hz), min(fmax, estimator.highest_hz, 0.45 * sample_rate)
    if not 0 < low < high / 1.1:
        raise MelismaError(
            f"no F0 lies between {low:.0f} and {high:.0f} Hz, the range that is left of {method}'s; widen it"
        )
    gain = level_gain(read, samples)
    f0_hz = np.zeros(len(times_s))
    edge = grid_samples(MIRROR_SECONDS, sample_rate, estimator.step_s)
    for start, stop, first, last in blocks(samples, sample_rate, estimator.step_s) if gain > 0 else []:
        here = (times_s >= first / sample_rate) & ((times_s < last / sample_rate) | (last >= samples))
        piece = read(start, stop).astype(np.float32) * np.float32(gain)
        piece, before = mirrored(piece, edge if start == 0 else 0, edge if stop == samples else 0)
        piece = np.pad(piece, (0, max(0, math.ceil(SHORTEST_SECONDS * sample_rate) - len(piece))))
        start -= before
        times_here = times_s[here] - start / sample_rate
        heard = piece + dither(start, len(piece), estimator.dither) if estimator.dither > 0 else piece
        found = read_at(estimator.estimate(heard, sample_rate, low, high), times_here)
        f0_hz[here] = stonemask(piece, sample_rate, found, times_here) if refine else found
        progress(last / samples)
    return held_at_the_ends(f0_hz).astype(np.float32)


def grid_samples(seconds: float, sample_rate: int, step_s: Fraction) -> int:
    """At least so many seconds in samples, a whole number of steps of an estimator's grid."""
    unit = (step_s * sample_rate).numerator
    return math.ceil(seconds * sample_rate / unit) * unit


def mirrored(piece: np.ndarray, before: int, after: int) -> tuple[np.ndarray, int]:
    """A piece ``(samples,)`` with its mirror image at its ends, and how many samples were put in front.

    A piece too short for it stays as it is.
    """
    if max(before, after) >= len(piece):
        return piece, 0
    return np.pad(piece, (before, after), mode="reflect"), before


def held_at_the_ends(f0_hz: np.ndarray) -> np.ndarray:
    """The first and the last frame with the pitch of their neighbours, where both are voiced.

    Half of what the estimators hear there is the mirror image, whose periods join the real ones anyhow.
    """
    held = f0_hz.copy()
    for end, beside in ((0, 1), (-1, -2)):
        if len(held) > 2 and held[end] > 0 and held[beside] > 0:
            held[end] = held[beside]
    return held


def level_gain(read: Callable[[int, int], np.ndarray], samples: int) -> float:
    """Gain that raises a quiet recording to where the estimators work; 0 for silence; NaN and infinity are refused."""
    peak = 0.0
    for start in range(0, samples, _READ):
        here = float(np.abs(read(start, min(start + _READ, samples))).max())
        peak = max(peak, here)
        if not math.isfinite(here):
            raise MelismaError("the audio holds NaN or infinite samples; repair the file first")
    if peak < SILENT_PEAK:
        return 0.0
    return min(LARGEST_GAIN, QUIET_PEAK / peak) if peak < QUIET_PEAK else min(1.0, 1.0 / peak)


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(1 << 18, dtype=np.float32)
    noise.setflags(write=False)
    return noise


def dither(start: int, samples: int, level: float) -> np.ndarray:
    """Noise that depends on the position in the whole signal only: ``(samples,)`` float32."""
    noise = _noise()
    return np.float32(level) * np.resize(np.roll(noise, -(start % len(noise))), samples)


def blocks(samples: int, sample_rate: int, step_s: Fraction) -> list[tuple[int, int, int, int]]:
    """Cut a long signal: ``(start, stop, first, last)`` in samples.

    A block is read from ``start`` to ``stop`` and answers for ``first`` to ``last``. It starts on a point of the
    estimator's grid that falls on a sample, so that all blocks share the grid of the whole.
    """
    step = step_s * sample_rate
    unit = step.numerator  # the smallest whole number of samples that is a whole number of steps
    length = max(1, BLOCK_SECONDS * sample_rate // unit) * unit
    context = grid_samples(CONTEXT_SECONDS, sample_rate, step_s)
    if samples <= length + context:
        return [(0, samples, 0, samples)]
    cuts = [*range(0, samples - context, length), samples]
    return [
        (max(0, first - context), min(samples, last + context), first, last) for first, last in itertools.pairwise(cuts)
    ]

"""F0 of a recording that is read piece by piece: what ``melisma.f0.estimate_f0`` gives for the whole."""

import math
from collections.abc import Callable

import numpy as np

from melisma.audio.mel import MelContract
from melisma.config import lookup
from melisma.f0.estimate import DEFAULT_METHOD, ESTIMATORS, SHORTEST_SECONDS, blocks, dither, level_gain
from melisma.f0.raw import frame_times, read_at
from melisma.f0.refine import stonemask
from melisma.inference.sources import Source

LOWEST_HZ, HIGHEST_HZ = 40.0, 2000.0
_READ = 1 << 18


def f0_of_source(
    source: Source, mel: MelContract, method: str | None, downmix: bool, progress: Callable[[float], None]
) -> np.ndarray:
    """Estimate the F0 that all channels share, at the frames of the mel.

    Args:
        source: the recording at the mel's sample rate.
        mel: where the frames lie.
        method: an F0 estimator's name, None for the default.
        downmix: estimate on the mean of the channels; otherwise on the first.
        progress: called with the share done, 0 to 1.

    Returns:
        ``(ceil(samples / hop_length),)`` float32 in Hz, 0 where unvoiced.
    """
    estimator = lookup(ESTIMATORS, method or DEFAULT_METHOD, "F0 estimator")
    rate = mel.sample_rate

    def mono(start: int, stop: int) -> np.ndarray:
        samples = source.read(start, min(stop, source.samples))
        return samples.mean(axis=0) if downmix else samples[0]

    peak = max(float(np.abs(mono(start, start + _READ)).max()) for start in range(0, source.samples, _READ))
    gain = level_gain(np.array([peak]))
    frames = math.ceil(source.samples / mel.hop_length)
    times_s = frame_times(frames * mel.hop_length, rate, mel.hop_length)
    f0_hz = np.zeros(frames)
    low, high = max(LOWEST_HZ, estimator.lowest_hz), min(HIGHEST_HZ, estimator.highest_hz, 0.45 * rate)
    for start, stop, first, last in blocks(source.samples, rate, estimator.step_s) if gain > 0 else []:
        here = (times_s >= first / rate) & ((times_s < last / rate) | (last >= source.samples))
        piece = mono(start, stop).astype(np.float32) * np.float32(gain)
        piece = np.pad(piece, (0, max(0, math.ceil(SHORTEST_SECONDS * rate) - len(piece))))
        times_here = times_s[here] - start / rate
        heard = piece + dither(start, len(piece), estimator.dither) if estimator.dither > 0 else piece
        found = read_at(estimator.estimate(heard, rate, low, high), times_here)
        f0_hz[here] = stonemask(piece, rate, found, times_here)
        progress(last / source.samples)
    return f0_hz.astype(np.float32)

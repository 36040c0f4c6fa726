"""F0 of a recording that is read piece by piece: what ``melisma.f0.estimate_f0`` gives for the whole."""

import math
from collections.abc import Callable

import numpy as np

from melisma.audio.mel import MelContract
from melisma.f0.estimate import DEFAULT_METHOD, estimate_f0_blocks
from melisma.f0.raw import frame_times
from melisma.inference.sources import Source


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

    def mono(start: int, stop: int) -> np.ndarray:
        samples = source.read(start, stop)
        return samples.mean(axis=0) if downmix else samples[0]

    frames = math.ceil(source.samples / mel.hop_length)
    times_s = frame_times(frames * mel.hop_length, mel.sample_rate, mel.hop_length)
    return estimate_f0_blocks(
        mono, source.samples, mel.sample_rate, times_s, method or DEFAULT_METHOD, progress=progress
    )

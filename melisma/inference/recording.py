"""A stretch of a recording in memory, and its mel frame by frame, at any tempo."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from melisma.audio.mel import MelContract, log_mel
from melisma.inference.sources import Source


class Recording:
    """Samples of a source from ``low`` to ``high`` (both may lie outside), read once; the ends are reflected.

    Args:
        source: the recording.
        low: first sample that will be asked for.
        high: last sample that will be asked for, exclusive.
    """

    def __init__(self, source: Source, low: int, high: int) -> None:
        self.samples = source.samples
        # What lies beyond an end is read from its mirror image.
        reflected_high, reflected_low = 1 - low, 2 * source.samples - high - 2
        high, low = max(high, min(reflected_high, source.samples)), min(low, max(reflected_low, 0))
        self._low = max(0, low)
        self._block = source.read(self._low, max(self._low + 1, min(source.samples, high)))

    def take(self, index: np.ndarray) -> np.ndarray:
        """``(channels, *index.shape)`` samples."""
        if index.size and index.min() >= 0 and index.max() < self.samples:  # the usual case, and a division less
            return self._block[:, index - self._low]
        fold = max(1, 2 * (self.samples - 1))
        index = np.abs(index) % fold
        return self._block[:, np.minimum(index, fold - index) - self._low]

    def log_mel(self, frames: np.ndarray, mel: MelContract, speed: float = 1.0) -> Tensor:
        """Log-mel ``(channels, n_mels, len(frames))`` of frames of the recording read ``speed`` times as fast.

        At speed 1 it equals :func:`melisma.audio.mel.log_mel` of the whole. At any other the frames stand on the exact
        sample, so that long recordings do not drift.
        """
        starts = frame_starts(frames, mel, self.samples, speed)
        return log_mel_of_frames(torch.from_numpy(self.take(starts[:, None] + np.arange(mel.n_fft))), mel)


def frame_starts(frames: np.ndarray, mel: MelContract, samples: int, speed: float = 1.0) -> np.ndarray:
    """First sample of the windows of frames, ``(len(frames),)``."""
    left, _ = mel.pad_amounts(samples)
    middle = (np.asarray(frames) + 0.5) * mel.hop_length * speed
    return np.rint(middle - left - 0.5 * mel.hop_length).astype(np.int64)


def log_mel_of_frames(windows: Tensor, mel: MelContract) -> Tensor:
    """Log-mel ``(channels, n_mels, frames)`` of windows ``(channels, frames, n_fft)`` that were cut already."""
    # As one signal with a hop of a whole frame and no padding, every frame stands alone.
    return log_mel(windows.flatten(1), dataclasses.replace(mel, hop_length=mel.n_fft, padding="nvstft"))

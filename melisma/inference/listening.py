"""Mel and F0 of a recording while it is being made."""

import math

import numpy as np
from torch import Tensor, from_numpy

from melisma.audio.mel import MelContract
from melisma.f0.estimate import (
    ESTIMATORS,
    HIGHEST_HZ,
    LARGEST_GAIN,
    LOWEST_HZ,
    QUIET_PEAK,
    SILENT_PEAK,
    dither,
)
from melisma.f0.raw import read_at
from melisma.f0.refine import stonemask
from melisma.inference.recording import log_mel_of_frames

LIVE_METHOD = "swift-f0"
# Of what comes after a frame so much is waited for.
AHEAD_SECONDS = 0.04
# SwiftF0 looks 160 ms ahead, and takes what is not there for silence: so the last sound is turned round and appended,
# as much of it as makes a difference. Without that 80 ms are needed to find as much of the voicing
# (docs/experiments.md).
_TURNED_SECONDS = 0.09
# It also looks 176 ms back.
BACK_SECONDS = 0.18
# F0 is found for so many frames at once: half the work at one frame more of latency, or a quarter at three more.
FRAMES_AT_ONCE = 2
MANY_AT_ONCE = 4
_PEAK_HALF_LIFE_SECONDS = 10.0


class _Recent:
    """The last samples of a signal, by their position in the whole: ``(samples,)`` float32."""

    def __init__(self) -> None:
        self._values = np.zeros(0, dtype=np.float32)
        self._start = 0

    @property
    def stop(self) -> int:
        """Number of samples so far."""
        return self._start + len(self._values)

    def add(self, samples: np.ndarray, needed_from: int) -> None:
        """Append samples; what lies before ``needed_from`` may be forgotten."""
        drop = min(max(0, needed_from - self._start), len(self._values))
        self._values = np.concatenate([self._values[drop:], samples])
        self._start += drop

    def at(self, index: np.ndarray) -> np.ndarray:
        """Samples at positions in the whole."""
        return self._values[index - self._start]

    def between(self, start: int, stop: int) -> np.ndarray:
        """Samples of a stretch of the whole."""
        return self._values[start - self._start : stop - self._start]


class MelStream:
    """Log-mel of a signal that comes in blocks: the frames of :func:`melisma.inference.recording.Recording.log_mel`.

    Args:
        mel: the contract.
    """

    def __init__(self, mel: MelContract) -> None:
        self.mel = mel
        self._left = mel.pad_amounts(2 * mel.n_fft)[0]
        self._heard = _Recent()
        self._frames = 0

    @property
    def lookahead_samples(self) -> int:
        """Samples behind the start of a frame that it needs."""
        return self.mel.n_fft - self._left

    def push(self, samples: np.ndarray) -> Tensor:
        """Take ``(samples,)`` and give the frames that are complete, ``(n_mels, frames)``."""
        # The reflections at the ends reach back, and so do the windows.
        self._heard.add(samples, self._frames * self.mel.hop_length - 2 * self.mel.n_fft)
        stop = self._heard.stop
        if stop <= self._left:  # the first frame begins with a reflection
            return self._made(self._frames)
        return self._made(max(self._frames, (stop - self.lookahead_samples) // self.mel.hop_length + 1))

    def finish(self) -> Tensor:
        """The rest; one frame for every hop that was begun."""
        return self._made(math.ceil(self._heard.stop / self.mel.hop_length))

    def _made(self, stop: int) -> Tensor:
        first, self._frames = self._frames, max(self._frames, stop)
        if self._frames == first:
            return from_numpy(np.zeros((self.mel.n_mels, 0), dtype=np.float32))
        starts = np.arange(first, self._frames) * self.mel.hop_length - self._left
        fold = max(1, 2 * (self._heard.stop - 1))
        index = np.abs(starts[:, None] + np.arange(self.mel.n_fft)) % fold
        return log_mel_of_frames(from_numpy(self._heard.at(np.minimum(index, fold - index))[None]), self.mel)[0]


class F0Stream:
    """F0 of a signal that comes in blocks, at the frames of a mel.

    The estimator sees a window of the recent past and ``AHEAD_SECONDS`` after each frame, and takes for what follows
    that the sound goes on as it was, backwards. The result is within a few cents of :func:`melisma.f0.estimate_f0` of
    the whole, not equal to it.

    Args:
        sample_rate: Hz.
        hop_length: samples a frame; frame ``t`` is centred on ``(t + 1/2) * hop_length``.
        at_once: frames whose F0 is found together.
    """

    def __init__(self, sample_rate: int, hop_length: int, at_once: int = FRAMES_AT_ONCE) -> None:
        self._rate, self._hop, self._at_once = sample_rate, hop_length, at_once
        self._estimator = ESTIMATORS[LIVE_METHOD]
        # Windows begin where a point of the estimator's grid falls on a sample, so that all share one grid.
        self._unit = (self._estimator.step_s * sample_rate).numerator
        self._heard = _Recent()
        self._frames = 0
        self._peak = 0.0

    @property
    def lookahead_samples(self) -> int:
        """Samples behind the start of a frame that may have to come before its F0 is given."""
        return self._hop // 2 + round(AHEAD_SECONDS * self._rate) + (self._at_once - 1) * self._hop

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take ``(samples,)`` and give F0 of the frames that are due, ``(frames,)`` float32 in Hz, 0 where unvoiced."""
        loudest = float(np.abs(samples).max(initial=0.0))
        self._peak = max(loudest, self._peak * 0.5 ** (len(samples) / self._rate / _PEAK_HALF_LIFE_SECONDS))
        self._heard.add(samples, self._window_start(self._frames))
        due = math.floor((self._heard.stop - AHEAD_SECONDS * self._rate) / self._hop - 0.5) + 1
        return self._found(due if due - self._frames >= self._at_once else self._frames)

    def finish(self) -> np.ndarray:
        """F0 of the rest; one frame for every hop that was begun."""
        return self._found(math.ceil(self._heard.stop / self._hop), ended=True)

    def _window_start(self, frame: int) -> int:
        return max(0, int((frame + 0.5) * self._hop - BACK_SECONDS * self._rate) // self._unit * self._unit)

    def _found(self, stop: int, ended: bool = False) -> np.ndarray:
        first, self._frames = self._frames, max(self._frames, stop)
        count = self._frames - first
        if count == 0 or self._peak < SILENT_PEAK:
            return np.zeros(count, dtype=np.float32)
        start = self._window_start(first)
        gain = min(LARGEST_GAIN, QUIET_PEAK / self._peak) if self._peak < QUIET_PEAK else min(1.0, 1.0 / self._peak)
        window = self._heard.between(start, self._heard.stop) * np.float32(gain)
        times_s = (np.arange(first, self._frames) + 0.5) * self._hop / self._rate - start / self._rate
        heard = window if ended else _going_on(window, round(_TURNED_SECONDS * self._rate))
        heard = heard + dither(start, len(heard), self._estimator.dither)
        low, high = max(LOWEST_HZ, self._estimator.lowest_hz), min(HIGHEST_HZ, self._estimator.highest_hz)
        found = read_at(self._estimator.estimate(heard, self._rate, low, min(high, 0.45 * self._rate)), times_s)
        return stonemask(window, self._rate, found, times_s).astype(np.float32)


def _going_on(window: np.ndarray, count: int) -> np.ndarray:
    """A window, and behind it its last ``count`` samples backwards: what is periodic stays so."""
    return np.concatenate([window, window[-2 : -2 - count : -1]])

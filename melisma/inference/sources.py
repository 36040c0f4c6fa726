"""A recording at the model's sample rate, read piece by piece: from memory or from a file, with the same values."""

import math
from pathlib import Path
from typing import Protocol

import numpy as np

from melisma.audio.io import AudioReader, ResampleStream, output_length, resample

_BLOCK = 65_536
_LEVEL_BLOCK_SECONDS = 0.1


class Level:
    """Root mean square of every channel of a signal that comes in pieces.

    Each tenth of a second counts without its own mean, so that an offset or a rumble, which no mel holds, is not
    taken for level.

    Args:
        channels: number of channels.
        sample_rate: Hz.
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        self._block = max(2, round(_LEVEL_BLOCK_SECONDS * sample_rate))
        self._rest = np.zeros((channels, 0), dtype=np.float32)
        self._energy = np.zeros(channels)
        self._count = 0

    def add(self, samples: np.ndarray) -> None:
        """Take the next ``(channels, n)`` samples."""
        joined = np.concatenate([self._rest, samples], axis=1)
        whole = joined.shape[1] // self._block * self._block
        self._energy += self._energy_of(joined[:, :whole].reshape(len(joined), -1, self._block))
        self._rest = joined[:, whole:]
        self._count += samples.shape[1]

    def rms(self) -> np.ndarray:
        """``(channels,)``, full scale 1."""
        energy = self._energy + (self._energy_of(self._rest[:, None]) if self._rest.shape[1] > 1 else 0.0)
        return np.sqrt(energy / max(1, self._count))

    @staticmethod
    def _energy_of(blocks: np.ndarray) -> np.ndarray:
        if blocks.shape[1] == 0:
            return np.zeros(len(blocks))
        # A constant block leaves rounding behind: what is a millionth of the offset is nothing.
        mean = blocks.mean(axis=2, dtype=np.float64, keepdims=True)
        spread = np.square(blocks - mean).sum(axis=2)
        return np.where(spread > 1e-12 * blocks.shape[2] * mean[..., 0] ** 2, spread, 0.0).sum(axis=1)


class Source(Protocol):
    """What the resynthesis reads.

    Attributes:
        channels: number of channels.
        samples: length at the model's rate.
        native_rate: Hz of the recording.
        native_samples: length of the recording.
        level: level of the recording at its own rate; complete once all of it has been read.
    """

    channels: int
    samples: int
    native_rate: int
    native_samples: int
    level: Level

    def read(self, start: int, stop: int) -> np.ndarray:
        """``(channels, stop - start)`` float32 at the model's rate, zeros beyond the ends."""


class ArraySource:
    """A recording in memory; see :class:`Source`.

    Args:
        samples: ``(channels, samples)`` float32.
        native_rate: Hz.
        sample_rate: the model's, Hz.
    """

    def __init__(self, samples: np.ndarray, native_rate: int, sample_rate: int) -> None:
        self.native_rate = native_rate
        self.channels, self.native_samples = samples.shape
        self.level = Level(self.channels, native_rate)
        self.level.add(samples)
        self._samples = resample(samples, native_rate, sample_rate)
        self.samples = self._samples.shape[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        """See :class:`Source`."""
        inside = self._samples[:, max(0, start) : max(0, stop)]
        return _with_zeros(inside, start, stop)


class FileSource:
    """A file that is decoded and resampled as it is read; see :class:`Source`.

    Reading forward with overlaps costs one decoding; going back before the start of the last read begins anew.

    Args:
        path: the audio file.
        sample_rate: the model's, Hz.
    """

    def __init__(self, path: str | Path, sample_rate: int) -> None:
        self._reader = AudioReader(path)
        self._target = sample_rate
        self.sample_format = self._reader.sample_format
        self.native_rate = self._reader.sample_rate
        self.native_samples = self._reader.frames
        self.channels = self._reader.channels
        self.samples = output_length(self.native_samples, self.native_rate, sample_rate)
        self.level = Level(self.channels, self.native_rate)
        self._measured = 0
        self._restart()

    def _restart(self) -> None:
        self._stream = ResampleStream(self.native_rate, self._target, self.channels)
        self._taken = 0
        self._held = np.zeros((self.channels, 0), dtype=np.float32)
        self._held_start = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """See :class:`Source`."""
        first = max(0, start)
        if first < self._held_start:
            self._restart()
        pieces, end = [self._held], self._held_start + self._held.shape[1]
        while end < min(stop, self.samples) and self._taken <= self.native_samples:
            pieces.append(self._next())
            end += pieces[-1].shape[1]
        self._held = np.concatenate(pieces, axis=1)
        drop = min(max(0, first - self._held_start), self._held.shape[1])
        self._held, self._held_start = self._held[:, drop:], self._held_start + drop
        low = max(0, first - self._held_start)
        return _with_zeros(self._held[:, low : max(low, stop - self._held_start)], start, stop)

    def _next(self) -> np.ndarray:
        block = self._reader.read(self._taken, _BLOCK)
        if self._taken == self._measured and block.shape[1]:
            self.level.add(block)
            self._measured += block.shape[1]
        self._taken += block.shape[1]
        if self._taken < self.native_samples:
            return self._stream.push(block)
        self._taken += 1  # the end was handed out: nothing comes after it
        return np.concatenate([self._stream.push(block), self._stream.finish()], axis=1)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _with_zeros(inside: np.ndarray, start: int, stop: int) -> np.ndarray:
    left = min(max(0, -start), stop - start)
    right = stop - start - left - inside.shape[1]
    if left == right == 0:
        return inside
    return np.pad(inside, ((0, 0), (left, right)))


def hop_peaks(source: Source, hop_length: int) -> tuple[np.ndarray, bool]:
    """Read a source once, from end to end.

    Returns:
        peaks of every hop, ``(channels, ceil(samples / hop_length))``, and whether its downmix keeps the sound (it does
        not when the channels cancel each other).
    """
    count = math.ceil(source.samples / hop_length)
    peaks = np.zeros((source.channels, count), dtype=np.float32)
    downmix_peak = 0.0
    hops = max(1, 4 * _BLOCK // hop_length)
    for start in range(0, count, hops):
        stop = min(count, start + hops)
        block = source.read(start * hop_length, stop * hop_length)
        peaks[:, start:stop] = np.abs(block).reshape(source.channels, stop - start, hop_length).max(axis=2)
        downmix_peak = max(downmix_peak, float(np.abs(block.mean(axis=0)).max(initial=0.0)))
    return peaks, downmix_peak > 0.02 * float(peaks.max(initial=0.0))

"""Resampling with soxr, at once or piece by piece with the same result."""

import numpy as np
import soxr

from melisma.errors import MelismaError


def output_length(samples: int, source_rate: int, target_rate: int) -> int:
    """Number of samples after resampling: ``samples * target_rate / source_rate``, rounded, halves up."""
    return (2 * samples * target_rate + source_rate) // (2 * source_rate)


class ResampleStream:
    """Resample piece by piece; the pieces together equal :func:`resample` of the whole.

    Args:
        source_rate: Hz of what is pushed.
        target_rate: Hz of what comes back.
        channels: number of channels.
        quality: soxr's recipe, ``VHQ`` by default (aliases below -137 dB).
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int = 1, quality: str = "VHQ") -> None:
        if min(source_rate, target_rate) < 1:
            raise MelismaError(f"sample rates must be positive, not {source_rate} and {target_rate} Hz")
        self.source_rate, self.target_rate, self.channels = source_rate, target_rate, channels
        self._consumed = self._emitted = 0
        self._soxr = None
        if source_rate != target_rate:
            self._soxr = soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32", quality=quality)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take ``(channels, n)`` float32 and return the ``(channels, m)`` that are ready; m may be 0."""
        self._consumed += samples.shape[-1]
        return self._pass(samples, last=False)

    def finish(self) -> np.ndarray:
        """Return the rest ``(channels, m)``; the total is :func:`output_length` of all that was pushed."""
        rest = self._pass(np.zeros((self.channels, 0), dtype=np.float32), last=True)
        missing = output_length(self._consumed, self.source_rate, self.target_rate) - self._emitted
        if missing > 0:
            rest = np.pad(rest, ((0, 0), (0, missing)))
        self._emitted += max(0, missing)
        return rest

    def _pass(self, samples: np.ndarray, last: bool) -> np.ndarray:
        if self._soxr is None:
            ready = np.array(samples, dtype=np.float32)
        else:
            piece = np.ascontiguousarray(samples.T, dtype=np.float32)
            ready = self._soxr.resample_chunk(piece, last=last).reshape(-1, self.channels).T
        room = output_length(self._consumed, self.source_rate, self.target_rate) - self._emitted
        ready = ready[:, : max(0, room)]
        self._emitted += ready.shape[-1]
        return ready


def resample(samples: np.ndarray, source_rate: int, target_rate: int, quality: str = "VHQ") -> np.ndarray:
    """Resample ``(samples,)`` or ``(channels, samples)``; the length is :func:`output_length`, the type float32."""
    if source_rate == target_rate:
        return np.asarray(samples, dtype=np.float32)
    rows = np.atleast_2d(samples)
    stream = ResampleStream(source_rate, target_rate, rows.shape[0], quality)
    out = np.concatenate([stream.push(rows), stream.finish()], axis=1)
    return out.reshape(*samples.shape[:-1], -1)

"""Peaks above full scale lowered without a click, for files that cannot hold them.

A file of integers cuts what is louder than full scale, and every cut is heard as a click. Here the level goes down
before a peak and comes back behind it, as slowly as a voice's own swells: the gain that every sample needs, its lowest
value over some milliseconds around each, and a Hann-weighted mean of those over the same time. A mean of values that
are all low enough is low enough, so that nothing passes full scale, and sound away from peaks stays as it is.
"""

import numpy as np

REACH_S = 0.01  # half a period of 50 Hz: a loud low note is turned down as a whole and not pulse by pulse
TOLERANCE = 2.0**-16  # half a step of 16 bits is no overshoot


class Limiter:
    """Limits a signal that comes in blocks.

    Args:
        channels: their number; all get the same gain, so that a voice stays where it is between them.
        sample_rate: Hz.
    """

    def __init__(self, channels: int, sample_rate: float) -> None:
        self._reach = max(1, round(REACH_S * sample_rate))
        # Samples that wait, the last of them for those to come, and the gains that these and those before them need.
        self._waiting = np.zeros((channels, 0), np.float32)
        self._needed = np.ones(2 * self._reach)
        self._window = np.hanning(2 * self._reach + 3)[1:-1]
        self._window /= self._window.sum()

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take ``(channels, n)``, finite; returns the float32 samples that are decided, ``(channels, m)``."""
        loudest = np.abs(block).max(axis=0, initial=0.0)
        needed = 1.0 / np.where(loudest > 1.0 + TOLERANCE, loudest, 1.0)
        self._waiting = np.concatenate([self._waiting, block.astype(np.float32, copy=False)], axis=1)
        self._needed = np.concatenate([self._needed, needed])
        return self._take(self._waiting.shape[1] - 2 * self._reach)

    def finish(self) -> np.ndarray:
        """The rest, ``(channels, m)``."""
        self._needed = np.concatenate([self._needed, np.ones(2 * self._reach)])
        return self._take(self._waiting.shape[1])

    def _take(self, count: int) -> np.ndarray:
        if count <= 0:
            return self._waiting[:, :0]
        decided, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        needed, self._needed = self._needed[: count + 4 * self._reach], self._needed[count:]
        if needed.min() == 1.0:
            return decided
        gain = np.convolve(_lowest(needed, len(self._window)), self._window, "valid")
        return (decided * gain).astype(np.float32)


def limited(samples: np.ndarray, sample_rate: float) -> np.ndarray:
    """``(samples,)`` or ``(channels, samples)`` with its peaks within full scale."""
    rows = np.atleast_2d(samples)
    limiter = Limiter(rows.shape[0], sample_rate)
    return np.concatenate([limiter.push(rows), limiter.finish()], axis=1).reshape(np.shape(samples))


def _lowest(values: np.ndarray, width: int) -> np.ndarray:
    """The lowest of every ``width`` neighbours, ``(n - width + 1,)``."""
    seen = 1
    while seen < width:
        more = min(seen, width - seen)
        values = np.minimum(values[:-more], values[more:])
        seen += more
    return values

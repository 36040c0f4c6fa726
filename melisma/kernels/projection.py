"""Mel projection on a CPU: a clip in sixteen stretches side by side, several of them a worker.

The same computation as the plain code of :mod:`melisma.layers.mel_projection`. A worker keeps what a frame needs in the
cache from the window to the overlap-add of the inverse, and goes through all rounds in one call without the GIL; at the
end of a step the workers wait for each other, which takes less than a microsecond.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import LANES, choice, numba_part, ready, workers
from melisma.kernels.grid import Signal, Transform, fits, grid_of

_numba = numba_part("projection_numba")

__all__ = ["Band", "Clip", "fits", "fused", "local_mean", "neighbours", "readings"]

_LEAST_FRAMES = 64  # for a worker of its own


def fused(audio: Tensor) -> bool:
    """Whether this signal can be computed with here."""
    return choice.holds_values(audio) and ready.usable(choice.projection())


@dataclass(frozen=True, eq=False)
class Band(Transform):
    """A transform with its mel, at the full rate or for the lowest bins at a fraction of it.

    Attributes:
        reads: first bin and number of bins that a mel band reads, int64 ``(bands, 2)``.
        filters: their weights, one band after the other.
        lower: the lower of the two mel bands that a bin's gain reads, int64 ``(bins,)``.
        weights: of that and the next band, float32 ``(bins, 2)``.
        scale: of the spectrum, in the mel.
        epsilon: added to the power.
        floor: of the mel.
        largest: step of a round, nepers.
    """

    reads: np.ndarray
    filters: np.ndarray
    lower: np.ndarray
    weights: np.ndarray
    scale: float
    epsilon: float
    floor: float
    largest: float

    @cached_property
    def mel(self) -> tuple[Any, ...]:
        """What the kernels need to make a mel."""
        return (np.float32(self.scale**2), np.float32(self.epsilon), np.float32(self.floor), self.reads, self.filters)


def local_mean(values: Tensor, width: Tensor) -> Tensor:
    """Mean around every value of a row, over a width of that row, in whole values and parts of them.

    Args:
        values: ``(batch, rows, columns)`` for which :func:`fused` holds.
        width: ``(batch, rows)``, above 0.

    Returns:
        like ``values``; sums are double precision.
    """
    flat = values.reshape(-1, values.shape[-1]).contiguous()
    widths = width.reshape(-1).double().contiguous()
    out = torch.empty_like(flat)

    def part(first: int, stop: int) -> None:
        given = (flat[first:stop].numpy(), widths[first:stop].numpy(), out[first:stop].numpy())
        _numba().local_means(*given)

    workers.run([partial(part, *rows) for rows in workers.stretches(flat.shape[0], _LEAST_FRAMES, flat.shape[0])])
    return out.reshape(values.shape)


class Clip:
    """One clip that is being projected.

    Args:
        full: the transform at the full rate.
        low: that of the low band, or None.
        audio: ``(frames * hop_length,)`` for which :func:`fused` holds.
    """

    def __init__(self, full: Band, low: Band | None, audio: Tensor) -> None:
        self._full, self._low = full, low
        frames = audio.shape[0] // full.hop_length
        self._grid = grid_of(frames, full.shared_hops)
        self._signal = Signal(full, self._grid)
        self._signal.fill(audio)
        self._small = full if low is None else low
        self._low_signal = self._signal if low is None else Signal(low, self._grid)

    def log_mel(self) -> Tensor:
        """Natural log-mel ``(frames, bands)`` of the clip as it is; also takes its low band out for later."""
        full, low, grid = self._full, self._low, self._grid
        out, small = torch.empty(grid.slots * LANES, len(full.reads)), self._low_signal
        hops = (full.hop_length, 0 if low is None else low.hop_length)
        scale = 1.0 if low is None else 2.0 / low.n_fft * low.n_fft / full.n_fft
        given = (self._signal.samples, grid.live(scale), out.reshape(-1).numpy())
        target = (self._small.tables, small.samples, small.sums(), small.density)
        grid.run(_numba().measure, hops, full.tables, full.mel, given, target)
        if low is not None:
            small.close()
        return out[: grid.frames]

    def project(
        self, wanted: Tensor, gate: Tensor, rounds: int, momentum: float, low_rounds: int, low_momentum: float
    ) -> Tensor:
        """Project, after :meth:`log_mel`: rounds on the low band, then full ones.

        Args:
            wanted: natural log-mel, ``(frames, bands)``.
            gate: ``(frames, 1)``.
            rounds: how many.
            momentum: share of the last change that a round starts ahead by.
            low_rounds: how many on the low band before; 0 where there is none.
            low_momentum: likewise.

        Returns:
            ``(frames * hop_length,)``.
        """
        given = (wanted.contiguous().reshape(-1).numpy(), gate.contiguous().reshape(-1).numpy())
        if low_rounds and self._low is not None:
            small = self._low_signal
            start = small.samples.copy()
            _project(small, self._low, given, low_rounds, low_momentum)
            self._lift(small.samples - start)
        if rounds:
            _project(self._signal, self._full, given, rounds, momentum)
        return self._signal.audio()

    def _lift(self, change: np.ndarray) -> None:
        full, low, grid = self._full, self._small, self._grid
        low_change = Signal(low, grid, change)
        low_change.close()
        signal = self._signal
        given = (signal.samples, grid.live(2.0 / low.n_fft), signal.sums(), signal.density)
        hops = (full.hop_length, low.hop_length)
        grid.run(_numba().lift, hops, full.tables, given, (low.tables, low_change.samples))
        signal.close()


def _project(signal: Signal, band: Band, given: tuple[np.ndarray, np.ndarray], rounds: int, momentum: float) -> None:
    """Rounds; ``given`` is what is wanted and the gate, frame by frame."""
    grid = signal.grid
    ahead = torch.from_numpy(signal.samples).clone().numpy()
    shape = (band.hop_length, band.left, signal.count, band.reflected, rounds, np.float32(momentum))
    scale, epsilon, floor, reads, filters = band.mel
    mel = (scale, epsilon, floor, np.float32(band.largest), reads, filters, band.lower, band.weights)
    all_given = (*given, grid.live(2.0 / band.n_fft))
    grid.run(
        _numba().project, shape, band.tables, mel, all_given, (signal.samples, ahead, signal.sums(), signal.density)
    )


def readings(filters: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A matrix ``(bands, bins)`` as the bins that every band reads, and their weights.

    Returns:
        first bin and number of bins, int64 ``(bands, 2)``, and the weights one band after the other, float32.
    """
    dense = filters.numpy()
    heard = dense != 0
    first = heard.argmax(axis=1)
    count = np.where(heard.any(axis=1), dense.shape[1] - heard[:, ::-1].argmax(axis=1) - first, 0)
    rows = [row[start : start + length] for row, start, length in zip(dense, first, count, strict=True)]
    return np.stack([first, count], axis=1).astype(np.int64), np.concatenate(rows).astype(np.float32)


def neighbours(spread: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A matrix ``(bands, bins)`` in which every bin reads two neighbouring bands at most, as those and their weights.

    Returns:
        the lower band, int64 ``(bins,)``, and weights of it and the next one, float32 ``(bins, 2)``.
    """
    dense = np.vstack([spread.numpy(), np.zeros((1, spread.shape[1]), np.float32)])
    lower = np.minimum((dense != 0).argmax(axis=0), spread.shape[0] - 1).astype(np.int64)
    bins = np.arange(spread.shape[1])
    return lower, np.stack([dense[lower, bins], dense[lower + 1, bins]], axis=1).astype(np.float32)

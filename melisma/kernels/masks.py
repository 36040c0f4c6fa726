"""Masks on a pulse train and on noise on a CPU: from the log-mel to samples, sixteen frames side by side.

The same computation as the plain code of :mod:`melisma.generators.spectral`; spectra and masks of a frame never leave
the cache.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.kernels import LANES, numba_part, workers
from melisma.kernels.grid import Signal, Transform, grid_of

_numba = numba_part("masks_numba")

_LEAST_FRAMES = 16  # for a worker of its own


@dataclass(frozen=True, eq=False)
class Masks:
    """What the masks of one model share.

    Attributes:
        transform: of the masks, padded with zeros.
        offsets: where the mask frames of a mel frame lie, in mel frames from its centre, float32 ``(subframes,)``.
        silence: power of the mel's floor.
        flat: natural log-mel of unit white noise, ``(bands,)``.
        lower: the lower of the two bands that a bin reads, int64 ``(bins,)``.
        weights: of that and the next band, float32 ``(bins, 2)``.
        split: nepers by which the pulses, and the noise in voiced frames, lie below the envelope, each ``(bins,)``.
    """

    transform: Transform
    offsets: np.ndarray
    silence: float
    flat: Tensor
    lower: np.ndarray
    weights: np.ndarray
    split: tuple[np.ndarray, np.ndarray]

    def begin(self, wanted: Tensor, width_bins: Tensor, f0_hz: Tensor, held: float) -> tuple[Tensor, Tensor]:
        """Masks that follow from the envelope of a clip.

        Args:
            wanted: natural log-mel, ``(frames, bands)``.
            width_bins: over which the power of a frame is averaged, float64 ``(frames,)``.
            f0_hz: ``(frames,)``, 0 where unvoiced: there the noise has all of the envelope.
            held: nepers that the pulses get besides where F0 is 0.

        Returns:
            natural log magnitude on the pulses and on the noise, each ``(frames, bins)``, side by side in memory.
        """
        frames, spare, bins = wanted.shape[0], -self.flat.shape[0] % LANES, len(self.lower)
        rows = (F.pad(wanted, (0, spare)) if spare else wanted.contiguous()).reshape(-1, LANES).numpy()
        flat = F.pad(self.flat, (0, spare)).reshape(-1, LANES).numpy()
        out = _room(frames, bins)
        split = (*self.split, np.float32(held), f0_hz.contiguous().numpy())
        bands, spread = (np.float32(self.silence), flat), (self.lower, self.weights)
        arguments = rows, width_bins.numpy(), bands, spread, split, out.numpy()
        shares = workers.stretches(frames, _LEAST_FRAMES, frames)
        workers.together([partial(_numba().envelopes, *ends, *arguments) for ends in shares])
        return out[:, :bins], out[:, bins : 2 * bins]

    def believe(
        self, logs: tuple[Tensor, Tensor], missed: Tensor, belief: Tensor, said: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Masks corrected by what a draft missed.

        Args:
            logs: natural log magnitude on the pulses and on the noise, each ``(frames, bins)``.
            missed: nepers, ``(frames, bands)``.
            belief: logits of half the share that is believed, for both, ``(frames, 2 * bands)``.
            said: nepers that are added besides, for both, ``(frames, 2 * bins)``.

        Returns:
            like ``logs``, and side by side in memory.
        """
        out = _room(*logs[0].shape)
        more = (np.zeros(0, np.float32), 0) if said is None else _strided(said)
        given = (more, missed.contiguous().numpy(), _strided(belief), (self.lower, self.weights))
        arguments = *given, _strided(_side_by_side(*logs)), out.numpy()
        shares = workers.stretches(missed.shape[0], _LEAST_FRAMES, missed.shape[0])
        workers.together([partial(_numba().believe, *ends, *arguments) for ends in shares])
        bins = logs[0].shape[1]
        return out[:, :bins], out[:, bins : 2 * bins]

    def clip(self, pulses: Tensor, noise: Tensor, frames: int) -> "Clip":
        """A clip's priors, each ``(samples,)``, for ``frames`` of the mel."""
        return Clip(self, pulses, noise, frames)


def _room(frames: int, bins: int) -> Tensor:
    """Room for two masks side by side, ``(frames, 2 * bins in whole groups of sixteen)``."""
    return torch.empty(frames, -(-2 * bins // LANES) * LANES)


def _strided(rows: Tensor) -> tuple[np.ndarray, int]:
    """``(rows, columns)`` as its values from the first to the last, and how far its rows are apart."""
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    step = rows.stride(0)
    return rows.detach().as_strided(((rows.shape[0] - 1) * step + rows.shape[1],), (1,)).numpy(), step


def _side_by_side(pulse_log: Tensor, noise_log: Tensor) -> Tensor:
    """Two masks ``(frames, bins)`` in one array as of :func:`_room`; the last columns mean nothing."""
    frames, bins = pulse_log.shape
    shape = (frames, -(-2 * bins // LANES) * LANES)
    apart = noise_log.data_ptr() - pulse_log.data_ptr()
    if pulse_log.stride() == noise_log.stride() == (shape[1], 1) and apart == bins * pulse_log.element_size():
        return pulse_log.detach().as_strided(shape, (shape[1], 1))
    both = _room(frames, bins)
    both[:, :bins], both[:, bins : 2 * bins] = pulse_log.detach(), noise_log.detach()
    return both


class Clip:
    """Both priors of a clip, ready to be sung under masks, more than once."""

    def __init__(self, shared: Masks, pulses: Tensor, noise: Tensor, frames: int) -> None:
        self.shared, self.frames, transform = shared, frames, shared.transform
        subframes = len(shared.offsets)
        self.grid = grid_of(frames * subframes, transform.shared_hops, subframes)
        self.signals = Signal(transform, self.grid), Signal(transform, self.grid)
        self.signals[0].fill(pulses)
        self.signals[1].fill(noise)
        # Four or more squared windows add up to 3 / 8 of the overlaps; the inverse transform is times n_fft / 2.
        self.live = self.grid.live(8 * transform.hop_length / (3 * transform.n_fft) * 2 / transform.n_fft)

    def sing(self, pulse_log: Tensor, noise_log: Tensor) -> Tensor:
        """Both priors under their masks.

        Args:
            pulse_log: natural log magnitude on the pulses at the mel's frames, ``(frames, bins)``.
            noise_log: the same on the noise.

        Returns:
            ``(samples,)``.
        """
        transform, out = self.shared.transform, Signal(self.shared.transform, self.grid)
        given = (self.signals[0].samples, self.signals[1].samples, self.live)
        shape = (transform.hop_length, self.frames)
        masks = (_side_by_side(pulse_log, noise_log).reshape(-1, LANES).numpy(), self.shared.offsets)
        self.grid.run(_numba().sing, shape, transform.tables, given, masks, (out.sums(), out.samples))
        return out.audio()

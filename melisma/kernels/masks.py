"""Masks on a pulse train and on noise on a CPU: from the log-mel to samples, sixteen frames side by side.

The same computation as the plain code of :mod:`melisma.generators.spectral`; spectra and masks of a frame never leave
the cache.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.kernels import LANES, workers
from melisma.kernels.grid import Grid, Signal, Transform

_LEAST_FRAMES = 16  # for a worker of its own


@dataclass(frozen=True, eq=False)
class Masks:
    """What the masks of one model share.

    Attributes:
        transform: of the masks, padded with zeros.
        subframes: mask frames a mel frame.
        silence: power of the mel's floor.
        flat: natural log-mel of unit white noise, ``(bands,)``.
        lower: the lower of the two bands that a bin reads, int64 ``(bins,)``.
        weights: of that and the next band, float32 ``(bins, 2)``.
        share: log share of pulses and of noise in voiced frames, float32 ``(bins, 2)``.
    """

    transform: Transform
    subframes: int
    silence: float
    flat: Tensor
    lower: np.ndarray
    weights: np.ndarray
    share: np.ndarray

    def envelopes(self, wanted: Tensor, width_bins: Tensor) -> Tensor:
        """Log envelope of a clip.

        Args:
            wanted: natural log-mel, ``(frames, bands)``.
            width_bins: over which the power of a frame is averaged, float64 ``(frames,)``.

        Returns:
            ``(frames, bins in whole groups of sixteen)``; the last ones of a row mean nothing.
        """
        frames, spare = wanted.shape[0], -self.flat.shape[0] % LANES
        rows = F.pad(wanted, (0, spare)).reshape(-1, LANES).numpy()
        flat = F.pad(self.flat, (0, spare)).reshape(-1, LANES).numpy()
        out = torch.empty(frames, -(-len(self.lower) // LANES) * LANES)
        arguments = rows, width_bins.numpy(), (np.float32(self.silence), flat), (self.lower, self.weights), out.numpy()
        shares = workers.stretches(frames, _LEAST_FRAMES, frames)
        workers.together([partial(_numba().envelopes, *ends, *arguments) for ends in shares])
        return out

    def sing(self, pulses: Tensor, noise: Tensor, said: Tensor, level: Tensor, voiced: Tensor) -> Tensor:
        """Both priors of a clip under their masks.

        Args:
            pulses: ``(samples,)``.
            noise: ``(samples,)``.
            said: what is added to the analytic masks, ``(frames, subframes * 3 * bins)``: for every mask frame log
                magnitude on the pulses, angle in radians, log magnitude on the noise.
            level: log envelope, see :meth:`envelopes`.
            voiced: ``(frames,)``, 1 where F0 is given.

        Returns:
            ``(samples,)``.
        """
        transform, frames = self.transform, said.shape[0]
        grid = Grid(frames * self.subframes, transform.shared_hops, self.subframes)
        signals = Signal(transform, grid), Signal(transform, grid)
        signals[0].fill(pulses)
        signals[1].fill(noise)
        out = Signal(transform, grid)
        # Four or more squared windows add up to 3 / 8 of the overlaps; the inverse transform is times n_fft / 2.
        live = grid.live(8 * transform.hop_length / (3 * transform.n_fft) * 2 / transform.n_fft)
        given = (signals[0].samples, signals[1].samples, live)
        masks = (said.numpy(), level.numpy(), self.share, voiced.unsqueeze(1).numpy())
        shape = (transform.hop_length, self.subframes, frames)
        grid.run(_numba().sing, shape, transform.tables, given, masks, (out.sums(), out.samples))
        return out.audio()


@lru_cache(maxsize=1)
def _numba() -> ModuleType:
    from melisma.kernels import masks_numba

    return masks_numba

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
        offsets: where the mask frames of a mel frame lie, in mel frames from its centre, float32 ``(subframes,)``.
        silence: power of the mel's floor.
        flat: natural log-mel of unit white noise, ``(bands,)``.
        lower: the lower of the two bands that a bin reads, int64 ``(bins,)``.
        weights: of that and the next band, float32 ``(bins, 2)``.
    """

    transform: Transform
    offsets: np.ndarray
    silence: float
    flat: Tensor
    lower: np.ndarray
    weights: np.ndarray

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

    def believe(self, logs: tuple[Tensor, Tensor], missed: Tensor, belief: Tensor) -> tuple[Tensor, Tensor]:
        """Masks corrected by what a draft missed.

        Args:
            logs: natural log magnitude on the pulses and on the noise, each ``(frames, bins)``.
            missed: nepers, ``(frames, bands)``.
            belief: logits of half the share that is believed, for both, ``(frames, 2 * bands)``.

        Returns:
            like ``logs``.
        """
        before = tuple(values.contiguous().numpy() for values in logs)
        out = torch.empty_like(logs[0]), torch.empty_like(logs[1])
        given = (missed.contiguous().numpy(), belief.contiguous().numpy(), (self.lower, self.weights))
        arguments = *given, before, tuple(values.numpy() for values in out)
        shares = workers.stretches(missed.shape[0], _LEAST_FRAMES, missed.shape[0])
        workers.together([partial(_numba().believe, *ends, *arguments) for ends in shares])
        return out

    def clip(self, pulses: Tensor, noise: Tensor, frames: int) -> "Clip":
        """A clip's priors, each ``(samples,)``, for ``frames`` of the mel."""
        return Clip(self, pulses, noise, frames)


class Clip:
    """Both priors of a clip, ready to be sung under masks, more than once."""

    def __init__(self, shared: Masks, pulses: Tensor, noise: Tensor, frames: int) -> None:
        self.shared, self.frames, transform = shared, frames, shared.transform
        subframes = len(shared.offsets)
        self.grid = Grid(frames * subframes, transform.shared_hops, subframes)
        self.signals = Signal(transform, self.grid), Signal(transform, self.grid)
        self.signals[0].fill(pulses)
        self.signals[1].fill(noise)
        # Four or more squared windows add up to 3 / 8 of the overlaps; the inverse transform is times n_fft / 2.
        self.live = self.grid.live(8 * transform.hop_length / (3 * transform.n_fft) * 2 / transform.n_fft)

    def sing(self, logs: Tensor) -> Tensor:
        """Both priors under their masks.

        Args:
            logs: natural log magnitude on the pulses and on the noise at the mel's frames, ``(frames, 2 * bins)``.

        Returns:
            ``(samples,)``.
        """
        transform, out = self.shared.transform, Signal(self.shared.transform, self.grid)
        given = (self.signals[0].samples, self.signals[1].samples, self.live)
        shape = (transform.hop_length, self.frames)
        rows = F.pad(logs.detach(), (0, -logs.shape[1] % LANES)).reshape(-1, LANES)
        masks = (rows.numpy(), self.shared.offsets)
        self.grid.run(_numba().sing, shape, transform.tables, given, masks, (out.sums(), out.samples))
        return out.audio()


@lru_cache(maxsize=1)
def _numba() -> ModuleType:
    from melisma.kernels import masks_numba

    return masks_numba

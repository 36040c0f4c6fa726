"""Signals in lanes: a clip in sixteen stretches side by side, cut into frames that workers share.

Lane ``l`` of a signal holds the hops from ``l * slots`` on, as many as its ``slots`` frames reach over, so that its
last hops are also the first of the next lane. A signal is ``(rows, 16)``, a row for every sample of a lane.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import LANES, numba_part, workers

_numba = numba_part("grid_numba")

_LEAST_UNITS = 4  # for a worker of its own
_LEAST_BLOCKS = 600  # of sixteen rows, likewise: to wake a worker takes as long as so many


def fits(n_fft: int) -> bool:
    """Whether frames of this length can be transformed here: powers of two."""
    return n_fft >= 16 and n_fft & (n_fft - 1) == 0


def together(clips: Sequence[Tensor]) -> Tensor:
    """Clips as a batch; a single one is not copied."""
    return clips[0].unsqueeze(0) if len(clips) == 1 else torch.stack(list(clips))


@dataclass(frozen=True, eq=False)
class Transform:
    """A short-time Fourier transform and its inverse.

    Attributes:
        hop_length: samples a frame.
        window: ``(n_fft,)`` float32, of both directions; ``n_fft`` is a multiple of the hop.
        left: samples before the first frame's own, of ``n_fft - hop_length``.
        reflected: whether the signal is continued by its mirror image beyond its ends, else by zeros.
    """

    hop_length: int
    window: np.ndarray
    left: int
    reflected: bool

    @property
    def n_fft(self) -> int:
        """Samples of a frame."""
        return int(self.window.size)

    @property
    def shared_hops(self) -> int:
        """Hops of a frame that the next one also covers."""
        return self.n_fft // self.hop_length - 1

    @cached_property
    def tables(self) -> tuple[np.ndarray, ...]:
        """What the kernels need of it."""
        from melisma.kernels import fft_numba

        return (self.window, *fft_numba.tables(self.n_fft))

    def density(self, frames: int, slots: int) -> np.ndarray:
        """One over the sum of the squared windows of so many frames."""
        return _density(self, frames, slots)


class Grid:
    """How the frames of a clip are spread over lanes and workers; make it with :func:`grid_of`.

    Lane ``l`` has the frames from ``l * slots`` on. A worker needs as many slots as frames overlap, or its ends would
    reach past its neighbours.
    """

    def __init__(self, frames: int, shared_hops: int, unit: int, most: int) -> None:
        self.frames, self.shared_hops = frames, shared_hops
        units = -(-max(-(-frames // LANES), shared_hops + 1) // unit)
        self.slots = units * unit
        count = max(1, min(most, units // max(_LEAST_UNITS, -(-shared_hops // unit))))
        self.edges = np.array([units * part // count * unit for part in range(count + 1)])

    def run(self, kernel: Any, *arguments: Any) -> None:
        """A kernel on all workers."""
        workers.meeting(kernel, self.edges, *arguments)

    def empty(self, rows: int) -> np.ndarray:
        """Room for rows of lanes, where vectors start at cache lines."""
        return torch.empty(rows, LANES).numpy()

    def live(self, value: float) -> np.ndarray:
        """A value in frames of the clip, 0 in those that only fill the lanes: ``(slots, 16)``, to be read only."""
        return _live(self.frames, self.slots, value)


def grid_of(frames: int, shared_hops: int, unit: int = 1) -> Grid:
    """The grid of a clip for the workers that there are now.

    Args:
        frames: of the clip.
        shared_hops: hops of a frame that the next one also covers.
        unit: frames that stay together, in one lane and one worker.
    """
    return _grid(frames, shared_hops, unit, workers.count())


class Signal:
    """A signal in lanes: the samples that a grid's frames reach over, padding included."""

    def __init__(self, transform: Transform, grid: Grid, samples: np.ndarray | None = None) -> None:
        self.transform, self.grid = transform, grid
        self.shared = grid.shared_hops * transform.hop_length
        self.lane_rows = grid.slots * transform.hop_length
        self.count = grid.frames * transform.hop_length
        self.samples = grid.empty(self.lane_rows + self.shared) if samples is None else samples

    def fill(self, audio: Tensor) -> None:
        """Take ``(samples,)``."""
        self._share(_numba().fill, audio.contiguous().numpy(), self.lane_rows, self.transform.left, self.samples)
        self.close()

    def audio(self) -> Tensor:
        """Back to ``(samples,)``."""
        audio = torch.empty(self.count)
        self._share(_numba().read_out, self.samples, self.lane_rows, self.transform.left, audio.numpy())
        return audio

    def _share(self, kernel: Any, *arguments: Any) -> None:
        """A kernel on all rows, some of them a worker."""
        blocks = -(-len(self.samples) // LANES)
        shares = workers.stretches(blocks, _LEAST_BLOCKS, blocks)
        ends = [(first * LANES, min(stop * LANES, len(self.samples))) for first, stop in shares]
        workers.together([partial(kernel, *rows, *arguments) for rows in ends])

    @property
    def density(self) -> np.ndarray:
        """One over the sum of the squared windows."""
        return self.transform.density(self.grid.frames, self.grid.slots)

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Room for every worker's sums of frames, and for what waits to be added to them."""
        count = len(self.grid.edges) - 1
        heads = self.grid.empty(count * self.grid.shared_hops * self.shared)
        return self.grid.empty(self.lane_rows + count * self.shared), heads.reshape(count, -1, LANES)

    def close(self) -> None:
        """Continue the signal beyond its ends, and repeat every lane's first hops behind the one before."""
        transform = self.transform
        _numba().close(self.samples, self.lane_rows, self.shared, transform.left, self.count, transform.reflected)


@lru_cache(maxsize=16)
def _live(frames: int, slots: int, value: float) -> np.ndarray:
    lanes = torch.arange(slots * LANES).reshape(LANES, slots) < frames
    return (lanes.t() * value).float().contiguous().numpy()


@lru_cache(maxsize=8)
def _density(transform: Transform, frames: int, slots: int) -> np.ndarray:
    hop_length = transform.hop_length
    squares = torch.from_numpy(transform.window).square().reshape(-1, hop_length)
    overlaps = squares.shape[0]
    total = torch.zeros(LANES * slots + overlaps - 1, hop_length)
    for k in range(overlaps):
        total[k : k + frames] += squares[k]
    flat = total.clamp_(min=1e-3).reciprocal_().reshape(-1)
    return flat.unfold(0, (slots + overlaps - 1) * hop_length, slots * hop_length).t().contiguous().numpy()


@lru_cache(maxsize=16)
def _grid(frames: int, shared_hops: int, unit: int, most: int) -> Grid:
    return Grid(frames, shared_hops, unit, most)

"""Rounds of mel projection on a CPU: what a frame needs stays in the cache, and frames go side by side.

The same computation as the plain rounds of :mod:`melisma.layers.mel_projection`, with a third of their memory passes:
magnitudes, gains and overlap-add are loops of their own, only filters and transforms are torch's.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import choice, workers

_LEAST_FRAMES = 64  # for a worker of its own


def fused(audio: Tensor) -> bool:
    """Whether the rounds of this signal can be computed here."""
    return (
        choice.projection().fast
        and choice.kernels_allowed()
        and type(audio) is Tensor
        and audio.numel() > 0
        and audio.device.type == "cpu"
        and audio.dtype == torch.float32
        and not (audio.requires_grad and torch.is_grad_enabled())
    )


@dataclass(frozen=True)
class Rounds:
    """What all rounds of one transform and mel share.

    Attributes:
        hop_length: samples a frame.
        window: ``(n_fft,)``, of both directions; ``n_fft`` is a multiple of the hop.
        left: samples before the first frame's own, of ``n_fft - hop_length``.
        reflected: whether the signal is continued by its mirror image beyond its ends, else by zeros.
        filters: from bins to bands, ``(heard bins, bands)``.
        spread: from bands to the bins that are changed, see :func:`neighbours`.
        scale: of the spectrum, in the mel.
        epsilon: added to the power.
        floor: of the mel.
        largest: step of a round, nepers.
    """

    hop_length: int
    window: Tensor
    left: int
    reflected: bool
    filters: Tensor
    spread: tuple[np.ndarray, np.ndarray]
    scale: float
    epsilon: float
    floor: float
    largest: float

    def run(self, audio: Tensor, wanted: Tensor, gate: Tensor, rounds: int, momentum: float) -> Tensor:
        """Project.

        Args:
            audio: ``(batch, frames * hop_length)``.
            wanted: natural log-mel, ``(batch, frames, bands)``.
            gate: ``(batch, frames, 1)``.
            rounds: how many.
            momentum: share of the last change that a round starts ahead by.

        Returns:
            the same shape.
        """
        out = audio.clone()
        for item in range(audio.shape[0] if rounds else 0):
            out[item] = _Clip(self, audio[item], wanted[item], gate[item]).run(rounds, momentum)
        return out


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


class _Clip:
    """The buffers of one clip. They run from the first frame's first sample to the last one's last."""

    def __init__(self, shared: Rounds, audio: Tensor, wanted: Tensor, gate: Tensor) -> None:
        self.shared, self.wanted, self.gate = shared, wanted, gate
        hop, n_fft = shared.hop_length, shared.window.shape[0]
        count = wanted.shape[0]
        self.hops = count + n_fft // hop - 1
        self.inside = slice(shared.left, shared.left + count * hop)
        self.audio = audio.new_zeros(self.hops * hop)
        self.audio[self.inside] = audio
        self.ahead = self.audio.clone()
        self.frames = audio.new_empty(count, n_fft)
        self.weight = _weight(count, hop, shared.window)
        self.parts = workers.stretches(count, _LEAST_FRAMES, count)
        self.hop_parts = workers.stretches(self.hops, _LEAST_FRAMES, self.hops)

    def run(self, rounds: int, momentum: float) -> Tensor:
        shape = [partial(self._shape, first, stop) for first, stop in self.parts]
        for number in range(rounds):
            self._continue_ends()
            workers.run(shape)
            share = momentum if number else 0.0
            workers.run([partial(self._add, first, stop, share) for first, stop in self.hop_parts])
        return self.audio[self.inside]

    def _continue_ends(self) -> None:
        inside, left = self.ahead[self.inside], self.inside.start
        right = self.ahead.shape[0] - self.inside.stop
        if self.shared.reflected and max(left, right) < inside.shape[0]:
            self.ahead[:left] = inside[1 : left + 1].flip(0)
            self.ahead[self.inside.stop :] = inside[-right - 1 : -1].flip(0)
        else:
            self.ahead[:left] = 0.0
            self.ahead[self.inside.stop :] = 0.0

    def _shape(self, first: int, stop: int) -> None:
        """Frames of the point ahead, moved to their mel."""
        shared, frames = self.shared, self.frames[first:stop]
        given = self.ahead.unfold(0, shared.window.shape[0], shared.hop_length)[first:stop]
        spectrum = torch.fft.rfft(torch.mul(given, shared.window, out=frames))
        parts = torch.view_as_real(spectrum).flatten(1).numpy()
        magnitude = frames.new_empty(stop - first, shared.filters.shape[0])
        _numba().magnitudes(parts, np.float32(shared.scale**2), np.float32(shared.epsilon), magnitude.numpy())
        mel = (magnitude @ shared.filters).clamp_(min=shared.floor).log_()
        step = frames.new_zeros(stop - first, mel.shape[1] + 1)
        difference = (self.wanted[first:stop] - mel).clamp_(-shared.largest, shared.largest)
        torch.mul(difference, self.gate[first:stop], out=step[:, :-1])
        lower, weights = shared.spread
        _numba().amplify(parts, step.numpy(), lower, weights, np.empty(lower.size, np.float32))
        torch.fft.irfft(spectrum, n=shared.window.shape[0], out=frames)

    def _add(self, first: int, stop: int, momentum: float) -> None:
        shared = self.shared
        _numba().add_up(
            self.frames.numpy(), shared.window.numpy(), self.weight.numpy(), shared.hop_length, first, stop,
            np.float32(momentum), self.audio.numpy(), self.ahead.numpy(),
        )  # fmt: skip


@lru_cache(maxsize=1)
def _numba() -> ModuleType:
    from melisma.kernels import projection_numba

    return projection_numba


def neighbours(spread: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A matrix ``(bands, bins)`` in which every bin reads two neighbouring bands at most, as those and their weights.

    Returns:
        the lower band, int64 ``(bins,)``, and weights of it and the next one, float32 ``(2, bins)``.
    """
    dense = np.vstack([spread.numpy(), np.zeros((1, spread.shape[1]), np.float32)])
    lower = np.minimum((dense != 0).argmax(axis=0), spread.shape[0] - 1).astype(np.int64)
    bins = np.arange(spread.shape[1])
    return lower, np.stack([dense[lower, bins], dense[lower + 1, bins]]).astype(np.float32)


def _weight(count: int, hop_length: int, window: Tensor) -> Tensor:
    """One over the sum of the squared windows of ``count`` frames."""
    overlaps = window.shape[0] // hop_length
    squares = window.square().reshape(overlaps, hop_length)
    total = window.new_zeros(count + overlaps - 1, hop_length)
    for k in range(overlaps):
        total[k : k + count] += squares[k]
    return total.clamp_(min=1e-3).reciprocal_().reshape(-1)

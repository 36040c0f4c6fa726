"""Pulse trains and counted noise on a CPU, in one pass over the samples and on all workers."""

import sys
from functools import partial

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import LANES, choice, numba_part, ready, workers

_numba = numba_part("excitation_numba")

_LEAST_SEGMENTS = 16  # for a worker of its own
_LEAST_ROWS = 1 << 14
_LEAST_SIXTEENS = 1 << 9
_MANY_VALUES = 1 << 23  # of noise; from so many on, those to come will be many too
_asked = {"values": 0}


def fused(hop_length: int, like: Tensor) -> bool:
    """Whether the pulse train of such a curve can be made here."""
    return hop_length % LANES == 0 and choice.holds_values(like) and ready.usable(choice.excitation())


def worth_loading(values: int) -> bool:
    """Whether to make so many values of noise here: not where numba would have to be loaded for them.

    Loading takes most of a second, once; torch makes the noise of a second of audio in some milliseconds.
    """
    if "numba" in sys.modules:
        return True
    _asked["values"] += values
    return _asked["values"] > _MANY_VALUES


def pulses(segments: Tensor, offset: Tensor, sample_rate: int, highest_hz: float, hop_length: int) -> Tensor:
    """The pulse train of segments, see :func:`melisma.pulse.next_pulses`.

    Args:
        segments: start and end F0, start and end voicing, and log of the ratio of the F0s, ``(batch, segments, 5)``.
        offset: cycles at the start of each, float64 ``(batch, segments)``.
        sample_rate: Hz.
        highest_hz: of the highest harmonic.
        hop_length: samples a segment.

    Returns:
        ``(batch, segments * hop_length)``.
    """
    batch, count = offset.shape
    given = segments.reshape(-1, 5).contiguous().numpy()
    begin = offset.reshape(-1).contiguous().numpy()
    position = ((torch.arange(hop_length, dtype=torch.float32) + 0.5) / hop_length).reshape(-1, LANES).numpy()
    rows = hop_length // LANES
    out = torch.empty(batch * count * rows, LANES)
    made, shape = out.numpy(), (float(sample_rate), np.float32(highest_hz))

    def part(first: int, stop: int) -> None:
        _numba().pulses(given[first:stop], begin[first:stop], shape, position, made[first * rows : stop * rows])

    workers.together([partial(part, *ends) for ends in _shares(batch * count, _LEAST_SEGMENTS)])
    return out.reshape(batch, count * hop_length)


def harmonics(phase: Tensor, offsets: Tensor, weights: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    """Weighted sines at the harmonics of a phase, and weighted noise beside them.

    Args:
        phase: cycles of the fundamental, float64 ``(samples,)``, 0 to 1; whole sixteens.
        offsets: cycles that every harmonic is ahead, 0 to 1, ``(harmonics,)``.
        weights: of the harmonics, and of the columns of noise; float32.
        noise: float32 ``(samples, harmonics)``.
        levels: of sines and of noise in every sixteen samples, float32 ``(samples / 16, 2)``.

    Returns:
        float32 ``(samples,)``.
    """
    out = torch.empty(len(levels), LANES)
    values = (phase, offsets.float(), weights, noise, levels)
    given = [value.detach().contiguous().numpy() for value in values]

    def part(first: int, stop: int) -> None:
        _numba().harmonics(first, stop, *given, out.numpy())

    workers.together([partial(part, *ends) for ends in _shares(len(levels), _LEAST_SIXTEENS)])
    return out.reshape(-1)


def normal(start: int, count: int, keys: tuple[int, ...], constants: tuple[int, ...], table: Tensor) -> Tensor:
    """Counted noise ``(count, streams)``, see :func:`melisma.noise.counter_normal`; words may be signed or not."""
    words = [np.array([value & (1 << 64) - 1 for value in values], np.uint64) for values in (keys, constants)]
    out = torch.empty(count, len(keys))

    def part(first: int, stop: int) -> None:
        _numba().normal(np.int64(start + first), *words, table.numpy(), out[first:stop].numpy())

    workers.together([partial(part, *ends) for ends in _shares(count, _LEAST_ROWS)])
    return out


def _shares(length: int, least: int) -> list[tuple[int, int]]:
    """One stretch a worker."""
    return workers.stretches(length, least, length)

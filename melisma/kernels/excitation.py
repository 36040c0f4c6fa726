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


def held(f0_hz: Tensor, frames: int) -> Tensor | None:
    """Notes that go on, ``(batch, frames)``, see :class:`melisma.layers.framing.Hold`; None where it cannot."""
    if not (choice.holds_values(f0_hz) and ready.usable(choice.excitation())):
        return None
    out = torch.empty(f0_hz.shape)
    for curve, made in zip(f0_hz, out, strict=True):
        _numba().held(curve.contiguous().numpy(), frames, made.numpy())
    return out


def pulses(
    edges_hz: Tensor, phase: Tensor, sample_rate: int, highest_hz: float, hop_length: int
) -> tuple[Tensor, Tensor]:
    """The pulse train between the centres of frames, see :func:`melisma.pulse.next_pulses`.

    Args:
        edges_hz: F0 at the centres, ``(batch, segments + 1)``, 0 where unvoiced.
        phase: cycles at the first centre, float64 ``(batch, 1)``.
        sample_rate: Hz.
        highest_hz: of the highest harmonic.
        hop_length: samples a segment.

    Returns:
        ``(batch, segments * hop_length)``, and the phase at the last centre, within one cycle.
    """
    batch, count = edges_hz.shape[0], edges_hz.shape[1] - 1
    given, begin = torch.empty(batch * count, 5), np.empty(batch * count)
    segments, ratio = given.numpy(), torch.empty(batch * count)
    end_phase = torch.empty(batch, 1, dtype=torch.float64)
    for clip, (curve, start) in enumerate(zip(edges_hz, phase[:, 0].tolist(), strict=True)):
        rows = slice(clip * count, (clip + 1) * count)
        shape = (float(sample_rate), float(hop_length))
        work = segments[rows], ratio[rows].numpy(), begin[rows]
        end_phase[clip] = _numba().segments(curve.contiguous().numpy(), start, shape, *work)
    # Torch's logarithm, whose last bit is heard: the highest harmonic multiplies it by hundreds.
    given[:, 4] = torch.log(ratio)
    position = ((torch.arange(hop_length, dtype=torch.float32) + 0.5) / hop_length).reshape(-1, LANES).numpy()
    rows_each = hop_length // LANES
    out = torch.empty(batch * count * rows_each, LANES)
    made, limits = out.numpy(), (float(sample_rate), np.float32(highest_hz))

    def part(first: int, stop: int) -> None:
        target = made[first * rows_each : stop * rows_each]
        _numba().pulses(segments[first:stop], begin[first:stop], limits, position, target)

    workers.together([partial(part, *ends) for ends in _shares(batch * count, _LEAST_SEGMENTS)])
    return out.reshape(batch, count * hop_length), end_phase


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

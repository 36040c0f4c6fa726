"""A recording at another pitch or tempo, with its formants where they were.

Every frame of the result is read from the recording through a warp of time that makes the phase of its fundamental run
as the new pitch's does (:class:`PhaseCurve`); so every harmonic stands and glides where the new pitch wants it, with
its own fine movements. Neighbouring frames read the recording whole periods apart, as PSOLA (Moulines and Charpentier
1990) does, and overlap in phase. The warp moves the formants; a filter puts them back, frame by frame: what the
envelope of the moved frame lacks to that of the recording's own frame, measured alike in both.

This is the classical half of a pitch shift: what comes out has the mel that belongs to the new pitch, and a vocoder
that is given it need not guess. There and back again is almost without loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from torch import Tensor

from melisma.audio.f0_curve import interpolate_unvoiced
from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import local_mean
from melisma.kernels import warp as kernel

# An unvoiced frame this near to a note hears the note in its window, and moves with it; but not far up, where what is
# too weak to be a voice in place would become one.
REACH_FRAMES = 8
FAR_RATIO = 1.5
# The envelope: power averaged over this share of the distance of the harmonics, then a lifter that keeps what has so
# many ripples, or fewer, in that distance, and nothing above the second (docs/experiments.md).
AVERAGED_SHARE = 0.4
LIFTER_PERIODS = (0.1, 0.6)
# Where a moved spectrum would have to be raised by so many nepers it is empty, as above the end of a recording's band:
# the recording's own takes its place from the first to the second.
EMPTY_NEPERS = (2.0, 3.0)
# The moved spectrum ends below half the sample rate times the ratio; the last part of it is faded out.
BAND_SHARE = 0.95
# A moved signal may have so many times the power that the recording has around the same moment.
LOUDEST = 2.0
_SILENCE = 1e-14
# The recording is read between its samples: cubic interpolation at twice its rate.
_OVERSAMPLING = 2
MARGIN = 2048


class PhaseCurve:
    """Phase of the fundamental over time; F0 lies on straight lines between frame centres and goes on through gaps.

    Args:
        f0_hz: ``(frames,)`` Hz, 0 where unvoiced, at least one voiced.
        sample_rate: Hz.
        hop_length: samples between frames; frame ``t`` stands at ``(t + 1/2) * hop_length``.
    """

    def __init__(self, f0_hz: np.ndarray, sample_rate: int, hop_length: int) -> None:
        filled = interpolate_unvoiced(np.asarray(f0_hz, dtype=np.float64)) / sample_rate
        self.hop_length = hop_length
        self.advance = np.concatenate([filled[:1], filled, filled[-1:]])  # cycles a sample; the ends go on for ever
        self.slope = np.diff(self.advance) / hop_length
        steps = 0.5 * (self.advance[1:] + self.advance[:-1]) * hop_length
        self.cycles = np.concatenate([[0.0], np.cumsum(steps)])  # at the centre of frame ``i - 1``

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Cycles at sample positions (any shape, fractional, also outside the clip)."""
        segment = np.floor(positions / self.hop_length + 0.5).astype(np.int64).clip(0, len(self.slope) - 1)
        since = positions - (segment - 0.5) * self.hop_length
        return self.cycles[segment] + since * (self.advance[segment] + 0.5 * self.slope[segment] * since)

    def position(self, cycles: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`at`: where the phase is so far."""
        segment = np.searchsorted(self.cycles[1:-1], cycles, side="right")
        beyond = cycles - self.cycles[segment]
        start = self.advance[segment]
        root = np.sqrt(np.maximum(start**2 + 2.0 * self.slope[segment] * beyond, 0.25 * start**2))
        return (segment - 0.5) * self.hop_length + 2.0 * beyond / (start + root)


def frame_ratios(f0_hz: np.ndarray, target_f0_hz: np.ndarray) -> np.ndarray:
    """By how much the pitch of every frame moves.

    Args:
        f0_hz: ``(frames,)`` Hz of the recording, 0 where unvoiced.
        target_f0_hz: ``(frames,)`` Hz as it shall be sung.

    Returns:
        ``(frames,)`` float64; 0 where there is no pitch to move: unvoiced frames, except close to a note, which they
        follow.
    """
    both = (f0_hz > 0) & (target_f0_hz > 0)
    ratios = np.where(both, target_f0_hz / np.where(both, f0_hz, 1.0), 0.0).astype(np.float64)
    where = np.flatnonzero(both)
    if where.size == 0:
        return ratios
    frames = np.arange(len(ratios))
    after = np.searchsorted(where, frames).clip(max=where.size - 1)
    before = (after - 1).clip(min=0)
    nearest = np.where(np.abs(where[after] - frames) <= np.abs(where[before] - frames), where[after], where[before])
    follows = (np.abs(nearest - frames) <= REACH_FRAMES) & (ratios[nearest] < FAR_RATIO)
    return np.where(both | follows, ratios[nearest], 0.0)


def read_between(block: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Read a signal between its samples.

    Args:
        block: ``(channels, samples)``, with at least ``MARGIN`` samples around all positions.
        positions: any shape, in samples.

    Returns:
        ``(channels, *positions.shape)`` float32.
    """
    dense = _dense(block)
    scaled = positions * _OVERSAMPLING
    index = np.floor(scaled).astype(np.int64)
    x = (scaled - index).astype(np.float32)
    before, first, second, after = (dense[:, index + k] for k in (-1, 0, 1, 2))
    # Catmull-Rom: the tangent at a sample is the mean slope around it.
    cubic = x * (3.0 * (first - second) + after - before) + 2.0 * before - 5.0 * first + 4.0 * second - after
    return first + 0.5 * x * (second - before + x * cubic)


def _dense(block: np.ndarray) -> np.ndarray:
    return soxr.resample(np.ascontiguousarray(block.T), 1, _OVERSAMPLING, quality="HQ").T.reshape(len(block), -1)


@dataclass(frozen=True)
class Warp:
    """Frames of a result, and where in the recording their samples are: where the phase is the same.

    Attributes:
        target: phase of the result.
        here: phase of the recording.
        centres: of the frames in the result, samples, ``(frames,)``.
        periods: whole cycles between the two, ``(frames,)``.
        fine: values a sample.
        values: of a frame.
    """

    target: PhaseCurve
    here: PhaseCurve
    centres: np.ndarray
    periods: np.ndarray
    fine: int
    values: int

    def positions(self, first: int, stop: int) -> np.ndarray:
        """Positions in the recording of the values ``first`` to ``stop`` of all frames."""
        offsets = np.arange(first, stop) / self.fine - self.values / (2 * self.fine)
        wanted = self.target.at(self.centres[:, None] + offsets)
        return self.here.position(wanted + self.periods[:, None])

    def read(self, take: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The frames ``(channels, frames, values)``; ``take`` gives the recording at whole positions."""
        ends = self.positions(0, 1), self.positions(self.values - 1, self.values)  # the phase only grows
        low, high = int(ends[0].min()) - MARGIN, int(ends[1].max()) + MARGIN
        block = take(np.arange(low, high))
        if not kernel.allowed():
            return read_between(block, self.positions(0, self.values) - low)
        target, here = ((c.hop_length, c.advance, c.slope, c.cycles) for c in (self.target, self.here))
        dense = np.ascontiguousarray(_dense(block))
        more = self.centres, self.periods, self.fine, self.values
        return kernel.read_warped(dense, _OVERSAMPLING, low, target, here, *more)


def samples_a_sample(ratio: float, mel: MelContract) -> int:
    """How finely a frame must be read so that nothing folds back into the bands of the mel."""
    return max(1, math.ceil(0.5 * ratio + mel.highest_hz / mel.sample_rate - 1e-9))


def envelope(power: Tensor, width_hz: Tensor, sample_rate: int) -> Tensor:
    """Smooth log envelope of power spectra.

    The power is averaged over a part of F0 so that no valley between harmonics is deep, and what its logarithm does
    faster than an envelope that shows at every harmonic is taken away in the cepstrum.

    Args:
        power: ``(channels, frames, bins)``.
        width_hz: distance of the harmonics, ``(frames,)`` Hz.
        sample_rate: Hz.

    Returns:
        ``(channels, frames, bins)`` nepers.
    """
    bins = power.shape[-1]
    n_fft = 2 * (bins - 1)
    width = (AVERAGED_SHARE * width_hz * n_fft / sample_rate).clamp(min=1.0, max=bins / 2)
    mean = local_mean(power, width.expand(power.shape[:-1]))
    logs = 0.5 * torch.log(mean.clamp(min=_SILENCE))
    periods = torch.arange(bins, dtype=logs.dtype, device=logs.device) * (width_hz / sample_rate).unsqueeze(-1)
    kept, gone = LIFTER_PERIODS
    lifter = 0.5 + 0.5 * torch.cos(math.pi * ((periods - kept) / (gone - kept)).clamp(0.0, 1.0))
    cepstrum = torch.fft.irfft(torch.complex(logs, torch.zeros_like(logs)), n=n_fft)[..., :bins]
    return torch.fft.hfft(cepstrum * lifter, n=n_fft)[..., :bins]


def level_gains(gains: Tensor, wanted: Tensor, found: Tensor) -> Tensor:
    """What gains from envelopes lack to keep the level; an envelope is a mean of logarithms, lower where valleys are.

    Args:
        gains: that put the formants back, nepers, ``(channels, frames, bins)``.
        wanted: power of the recording, as many.
        found: power that the gains are applied to.

    Returns:
        ``(channels, frames, 1)`` nepers, bounded: where the warp reads next to nothing beside an onset there is only
        noise to raise. High frequencies count more, as in the ear, and rumble counts nothing.
    """
    weights = torch.arange(gains.shape[-1], dtype=gains.dtype, device=gains.device)
    made = found * (2.0 * gains.clamp(max=EMPTY_NEPERS[1])).exp()
    before, after = (torch.log((power * weights).sum(-1, keepdim=True) + _SILENCE) for power in (wanted, made))
    return (0.5 * (before - after)).clamp(-EMPTY_NEPERS[1], EMPTY_NEPERS[1])


def no_louder(moved: Tensor, own: Tensor, window: Tensor) -> Tensor:
    """A moved signal, turned down where it is louder than the recording can have been there.

    The frame in which a voice sets in is quiet up to the middle of it and loud after that; read at another speed, and
    whole periods apart, it may hold less of the voice, or hold it sooner, and what is then raised to the level of the
    recording's frame is a pulse before the voice, or a late one when it has ended.

    Args:
        moved: ``(channels, samples)``.
        own: the recording at the same time, as many.
        window: over which levels are compared, ``(even number of samples,)``: power.

    Returns:
        like ``moved``; it is right from half a window inside the ends on.
    """
    size, samples = window.shape[0], moved.shape[1]
    n_fft = size * (samples // size + 2)
    # In double precision: beside a loud note silence must stay silent.
    shape = torch.fft.rfft(window.double() / window.sum(), n=n_fft)
    level, allowed = (
        torch.fft.irfft(torch.fft.rfft(signal.double().square(), n=n_fft) * shape, n=n_fft)[:, size // 2 :][:, :samples]
        .clamp(min=0.0)
        .to(signal.dtype)
        for signal in (moved, own)
    )
    return moved * ((LOUDEST * allowed + _SILENCE) / (level + _SILENCE)).sqrt().clamp(max=1.0)


def steady(nepers: Tensor, present: np.ndarray) -> Tensor:
    """Average over a frame and half of each that stands beside it: what moves faster is where pulses stand in a window.

    Args:
        nepers: of the frames that are present, ``(channels, present.sum(), bins)``.
        present: ``(frames,)`` of bool.

    Returns:
        like ``nepers``.
    """
    where = np.flatnonzero(present)
    beside = torch.from_numpy((np.diff(where) == 1).astype(np.float32) * 0.5)[:, None]
    total, weight = nepers.clone(), torch.ones(len(where), 1)
    total[:, 1:] += beside * nepers[:, :-1]
    total[:, :-1] += beside * nepers[:, 1:]
    weight[1:] += beside
    weight[:-1] += beside
    return total / weight


def formant_gains(wanted: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Gains that put the formants of moved frames back.

    Args:
        wanted: envelope of the recording over that of the moved frame, nepers, ``(channels, frames, bins)``.
        ratios: by which their frequencies were moved, ``(frames,)``.

    Returns:
        gains on the moved spectrum and gains on the recording's own, ``(channels, frames, bins)`` each: the second
        takes over where a spectrum that was moved down ends or is empty.
    """
    number = torch.arange(wanted.shape[-1], dtype=ratios.dtype, device=ratios.device)
    edge = BAND_SHARE * ratios.unsqueeze(-1) * (len(number) - 1)
    full, empty = EMPTY_NEPERS
    inside = ((edge - number) / (0.1 * edge)).clamp(0.0, 1.0) * ((empty - wanted) / (empty - full)).clamp(0.0, 1.0)
    # Moved up, nothing ends; below the new fundamental there is only the old one, which must not come back.
    inside = torch.where(ratios.unsqueeze(-1) < 1.0, inside, 1.0)
    return wanted.clamp(max=empty).exp() * inside, 1.0 - inside

"""Formants of a recording that is moved to another pitch, put back where they were.

First by what the envelope of a moved frame lacks to that of the recording's own frame, measured alike in both windows
of 23 ms (:func:`envelope`, :func:`formant_gains`); then by what the mel of the result, as a vocoder is given it, still
lacks to the recording's (:func:`missed_in_mel`).
"""

import math

import numpy as np
import torch
from torch import Tensor

from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import band_centres_hz, local_mean, natural
from melisma.constants import constant

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
# What a mel still lacks: ripples over the bands are kept to so many in 128 bands, and to so many in the distance of the
# harmonics, from the first share of that on less and less.
FINEST = 30 / 128
MEL_PERIODS = 0.6
KEPT_SHARE = 0.4
# Below the first frequency nothing is put right, above the second all: there single harmonics are the envelope.
PUT_RIGHT_HZ = (250.0, 750.0)
# What is missed more than that is an edge, as where the band of a recording ends, and no formant.
MOST_NEPERS = 1.5


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


def missed_in_mel(wanted: Tensor, found: Tensor, width_hz: Tensor, mel: MelContract) -> Tensor:
    """What the envelope of a mel lacks to that of another, less their levels.

    Args:
        wanted: log-mel of the recording, ``(channels, n_mels, frames)``.
        found: log-mel of the moved recording, as many.
        width_hz: distance of the harmonics, ``(frames,)`` Hz: what is finer than they allow to see is left alone.
        mel: the contract.

    Returns:
        nepers of amplitude, ``(channels, frames, n_mels)``.
    """
    missed = (natural(wanted - found, mel).transpose(1, 2) / mel.power).clamp(-MOST_NEPERS, MOST_NEPERS)
    basis, fade, spacing_hz = _mel_cosines(mel, missed.device, missed.dtype)
    order = torch.arange(mel.n_mels, dtype=missed.dtype, device=missed.device)
    ripples = MEL_PERIODS * 2 * mel.n_mels * spacing_hz / width_hz
    last = ripples.clamp(max=FINEST * mel.n_mels).unsqueeze(-1)
    kept = 0.5 + 0.5 * torch.cos(math.pi * ((order / last - KEPT_SHARE) / (1.0 - KEPT_SHARE)).clamp(0.0, 1.0))
    return (missed @ basis * kept) @ basis.t() * fade


@constant(8)
def _mel_cosines(mel: MelContract, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """Cosines over the bands ``(n_mels, orders)`` without the level, the share of each band that is put right, and how
    far apart the lowest bands are in Hz."""
    bands = np.arange(mel.n_mels) + 0.5
    basis = np.cos(np.pi / mel.n_mels * np.outer(bands, np.arange(mel.n_mels))) * math.sqrt(2.0 / mel.n_mels)
    basis[:, 0] = 0.0
    centres, (low, high) = band_centres_hz(mel), PUT_RIGHT_HZ
    fade = ((centres - low) / (high - low)).clip(0.0, 1.0)
    spacing = float(centres[1] - centres[0]) if mel.n_mels > 1 else math.inf
    return torch.tensor(basis, device=device, dtype=dtype), torch.tensor(fade, device=device, dtype=dtype), spacing

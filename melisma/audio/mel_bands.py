"""What the bands of a mel mean on the frequency axis: their centres, their spread over bins, their level."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.audio.mel import MelContract, hz_to_mel, mel_filterbank, mel_to_hz
from melisma.constants import constant
from melisma.kernels import projection as kernel


def natural(log_mel_values: Tensor, mel: MelContract) -> Tensor:
    """A log-mel of the contract's base as natural logarithm."""
    return log_mel_values if mel.log_base == "e" else log_mel_values * 2.302585092994046


def band_centres_hz(mel: MelContract) -> np.ndarray:
    """Centre frequency of every mel band, ``(n_mels,)`` in Hz."""
    lowest, highest = hz_to_mel(np.array([mel.fmin, mel.highest_hz]), mel.scale)
    return mel_to_hz(np.linspace(lowest, highest, mel.n_mels + 2), mel.scale)[1:-1]


@constant(16)
def band_to_bin_weights(mel: MelContract, n_fft: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Linear interpolation from band centres to the bins of an FFT, ``(n_mels, n_fft // 2 + 1)``; edges hold."""
    centres = band_centres_hz(mel)
    bins = np.linspace(0.0, mel.sample_rate / 2, n_fft // 2 + 1)
    position = np.interp(bins, centres, np.arange(mel.n_mels))
    lower = np.minimum(np.floor(position).astype(int), mel.n_mels - 2) if mel.n_mels > 1 else np.zeros(len(bins), int)
    weights = np.zeros((mel.n_mels, len(bins)))
    share = position - lower
    weights[lower, np.arange(len(bins))] = 1.0 - share
    if mel.n_mels > 1:
        weights[lower + 1, np.arange(len(bins))] = share
    return torch.tensor(weights, device=device, dtype=dtype)


def spread_to_bins(bands: Tensor, mel: MelContract, n_fft: int) -> Tensor:
    """Interpolate ``(..., n_mels)`` values to FFT bins, ``(..., n_fft // 2 + 1)``."""
    return bands @ band_to_bin_weights(mel, n_fft, bands.device, bands.dtype)


@constant(8)
def noise_share(sample_rate: int, n_fft: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Share of the amplitude that is noise in voiced frames, ``(bins,)``: -30 dB low, half the power from 8 kHz."""
    hz = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    decibel = np.interp(hz, [0.0, 1000.0, 4000.0, 8000.0], [-30.0, -25.0, -12.0, -3.0])
    return torch.tensor(10.0 ** (decibel / 20.0), device=device, dtype=dtype)


def pulse_part(noise_part: Tensor) -> Tensor:
    """Natural log of the share of the amplitude that is left beside a share of noise, of equal power together."""
    return 0.5 * torch.log1p(-noise_part.square())


def flat_mel(mel: MelContract, like: Tensor) -> Tensor:
    """Natural log of the expected mel of unit white noise, ``(n_mels,)``: what a level of 1 looks like in each band."""
    return _flat_mel(mel, like.device, like.dtype)


@constant(16)
def _flat_mel(mel: MelContract, device: torch.device, dtype: torch.dtype) -> Tensor:
    energy = 3.0 / 8.0 * mel.n_fft if mel.win_length == mel.n_fft else 3.0 / 8.0 * mel.win_length
    # E|X| of a complex Gaussian of that power is sqrt(pi / 4 * power); E|X|^2 is the power.
    level = (0.7853981633974483 * energy) ** 0.5 if mel.power == 1.0 else energy ** (mel.power / 2)
    heard = mel_filterbank(mel).sum(axis=1, dtype=np.float64) * level
    return torch.tensor(np.log(np.maximum(heard, 1e-12)), device=device, dtype=dtype)


def local_power(wanted: Tensor, width_hz: Tensor, mel: MelContract, n_fft: int) -> Tensor:
    """Power density that a log-mel shows, averaged over a width around every bin of an FFT.

    Averaged over one F0, the harmonics are gone and the envelope is left (Morise 2015, CheapTrick). A band at the
    contract's floor is silent.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        width_hz: ``(batch, frames)``.
        mel: the contract.
        n_fft: FFT length of the bins that are asked for.

    Returns:
        ``(batch, frames, n_fft // 2 + 1)``, 1 for the level of unit white noise.
    """
    flat = flat_mel(mel, wanted)
    power = (torch.exp(2.0 * wanted) - mel.floor**2).clamp(min=0.0) * torch.exp(-2.0 * flat)
    power = spread_to_bins(power, mel, n_fft)
    return local_mean(power, (width_hz * n_fft / mel.sample_rate).clamp(min=1.0, max=power.shape[-1] / 2))


def local_mean(values: Tensor, width: Tensor) -> Tensor:
    """Mean around every value of a row over a width of that row; beyond the ends there is nothing.

    Args:
        values: ``(batch, frames, bins)``.
        width: in bins, ``(batch, frames)``, at least 1.

    Returns:
        like ``values``; sums are double precision.
    """
    if kernel.fused(values):
        return kernel.local_mean(values, width)
    bins = values.shape[-1]
    total = F.pad(torch.cumsum(values.double(), dim=-1), (1, 0))
    half = 0.5 * width.double().unsqueeze(-1)
    centre = torch.arange(bins, device=values.device, dtype=torch.float64) + 0.5
    upper, lower = (centre + half).clamp(max=bins), (centre - half).clamp(min=0.0)
    return ((read_between_bins(total, upper) - read_between_bins(total, lower)) / (upper - lower)).to(values.dtype)


def read_between_bins(total: Tensor, position: Tensor) -> Tensor:
    """Read ``(batch, frames, n)`` at fractional positions ``(batch or 1, frames, m)``, on straight lines."""
    position = position.expand(*total.shape[:-1], -1)
    whole = position.floor().clamp(max=total.shape[-1] - 2)
    index = whole.long()
    low, high = total.gather(-1, index), total.gather(-1, index + 1)
    return low + (high - low) * (position - whole)

"""Losses on short-time spectra for training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from melisma.audio.stft import pad_signal, spectra

Resolutions = Sequence[int]

# Magnitudes below this (the spectrum of noise at about -90 dBFS) count as silence in the logarithm.
SILENCE = 1e-3


def band_weights(band_hz: Tensor, n_fft: int, sample_rate: int) -> Tensor:
    """1 for the bins that a clip really has, 0 above its band: ``(batch,)`` Hz -> ``(batch, 1, n_fft // 2 + 1)``."""
    bins = torch.arange(n_fft // 2 + 1, device=band_hz.device) * (sample_rate / n_fft)
    return (bins < band_hz.unsqueeze(-1)).to(torch.float32).unsqueeze(1)


def magnitudes_of(signals: Sequence[Tensor], n_fft: int) -> list[Tensor]:
    """Magnitudes ``(batch, frames, bins)`` of several ``(batch, samples)`` signals, hop ``n_fft / 4``."""
    hop = n_fft // 4
    result = []
    for signal in signals:
        spectrum = spectra(pad_signal(signal, n_fft // 2, n_fft // 2), n_fft, hop)
        result.append((spectrum.real.square() + spectrum.imag.square() + SILENCE**2).sqrt())
    return result


def magnitude_distance(first: Tensor, second: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
    """Distance of two magnitude spectrograms: mean absolute log difference plus the scaled linear one.

    Args:
        first: ``(batch, frames, bins)``.
        second: the same.
        weights: ``(batch, 1, bins)``, see :func:`band_weights`.
        scale: ``(batch, 1, 1)``: the reference's level, so that loud clips do not count more.

    Returns:
        a scalar. It is a metric on log and linear magnitudes, as the energy distance needs.
    """
    # Every clip counts alike, whatever its band: the loss of a batch is the mean of the losses of its parts.
    count = weights.sum(dim=(1, 2)) * first.shape[1]
    both = (first.log() - second.log()).abs() + (first - second).abs() / scale
    return ((both * weights).sum(dim=(1, 2)) / count).mean()


def energy_distance(
    draws: tuple[Tensor, Tensor], reference: Tensor, n_fft: int, band_hz: Tensor, sample_rate: int, repulsion: float
) -> Tensor:
    """Spectral energy distance at one resolution (Gritsenko et al. 2020, eq. 4).

    Two draws with independent noise are each pulled to the reference and pushed apart; with ``repulsion`` 1 the loss is
    smallest where the draws have the reference's distribution, so that noise stays noise; with 0 it is a plain loss,
    whose best answer is the same predictable median every time.
    """
    first, second, target = magnitudes_of((*draws, reference), n_fft)
    weights = band_weights(band_hz, n_fft, sample_rate)
    scale = (target * weights).mean(dim=(1, 2), keepdim=True) + SILENCE
    pull = magnitude_distance(first, target, weights, scale) + magnitude_distance(second, target, weights, scale)
    return 0.5 * pull - 0.5 * repulsion * magnitude_distance(first, second, weights, scale)


def hearing_weights(n_fft: int, sample_rate: int, like: Tensor) -> Tensor:
    """Weights of the bins as wide as hearing resolves them, ``(n_fft // 2 + 1,)`` with mean 1.

    The density of the equivalent rectangular bandwidth scale (Glasberg & Moore 1990): each critical band counts alike.
    """
    hz = torch.arange(n_fft // 2 + 1, device=like.device, dtype=like.dtype) * (sample_rate / n_fft)
    density = 1.0 / (24.7 * (4.37e-3 * hz + 1.0))
    return density / density.mean()


def spectral_distance(
    generated: Tensor, reference: Tensor, n_fft: int, band_hz: Tensor, sample_rate: int, hearing: bool = False
) -> Tensor:
    """Plain log and linear magnitude distance at one resolution, for one draw; see :func:`hearing_weights`."""
    first, target = magnitudes_of((generated, reference), n_fft)
    weights = band_weights(band_hz, n_fft, sample_rate)
    if hearing:
        weights = weights * hearing_weights(n_fft, sample_rate, first)
    scale = (target * weights).mean(dim=(1, 2), keepdim=True) + SILENCE
    return magnitude_distance(first, target, weights, scale)


def mr_stft_loss(generated: Tensor, reference: Tensor, resolutions: Resolutions) -> Tensor:
    """Spectral convergence plus log magnitude, mean over resolutions (Yamamoto et al. 2020, Parallel WaveGAN).

    Args:
        generated: ``(batch, samples)``.
        reference: the same.
        resolutions: FFT sizes; hop a quarter.

    Returns:
        a scalar.
    """
    parts = []
    for n_fft in resolutions:
        made, real = magnitudes_of((generated, reference), n_fft)
        distance = (made - real).square().sum(dim=(1, 2)).clamp(min=1e-12).sqrt()
        convergence = distance / real.square().sum(dim=(1, 2)).sqrt()
        parts.append((convergence + (made.log() - real.log()).abs().mean(dim=(1, 2))).mean())
    return torch.stack(parts).mean()


def complex_stft_loss(generated: Tensor, reference: Tensor, resolutions: Resolutions) -> Tensor:
    """L1 distance of real and imaginary parts over the reference's mean magnitude, mean over resolutions.

    It sees phase, so it suits generators that are told the phase or are to copy it (Ai & Ling 2023, APNet's
    real-and-imaginary loss). Arguments and result as of :func:`mr_stft_loss`.
    """
    parts = []
    for n_fft in resolutions:
        made, real = (
            spectra(pad_signal(signal, n_fft // 2, n_fft // 2), n_fft, n_fft // 4) for signal in (generated, reference)
        )
        scale = real.abs().mean(dim=(1, 2), keepdim=True) + SILENCE
        parts.append((((made.real - real.real).abs() + (made.imag - real.imag).abs()) / scale).mean())
    return torch.stack(parts).mean()

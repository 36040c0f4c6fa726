"""How loud an error is, as PESQ counts it (ITU-T P.862, 2001, section 10.2), in a form that has gradients.

Losses on log magnitudes count a decibel in a valley between harmonics like one on their peaks, and are content with the
median of what they cannot know, which is too soft. PESQ turns power in critical bands into loudness, forgives what the
louder sound beside it hides, and counts what was added more than what is missing. As a loss for enhancement it is that
of Martin-Donas et al. (2018); here without the alignment and equalisation that PESQ begins with, which copies do not
need. On copies by five systems it correlates with PESQ at 0.9.
"""

import numpy as np
import torch
from torch import Tensor

from melisma.audio.stft import pad_signal, spectra
from melisma.constants import constant

# How many bins of 31.25 Hz make each band, from 0 to 8 kHz.
BAND_BINS = (
    *(1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2),
    *(3, 3, 3, 3, 4, 3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20),
)
BIN_HZ = 31.25
WINDOW_S = 0.032
# Of power to loudness (Zwicker), and what makes it sones.
EXPONENT, SONES = 0.23, 0.187
# The power that a voice is brought to: about 83 dB above the threshold of hearing.
SPEECH_POWER = 2e8
# A frame counts for that as far as it is no softer than this share of the loudest.
ACTIVE = 1e-3
# So much of the softer of two loudnesses hides a difference.
MASKED = 0.25
# Weights of what is missing or added, and of what is added once more.
SYMMETRIC, ASYMMETRIC = 0.1, 0.0309
MOST = 45.0


@constant(8)
def _bands(n_fft: int, sample_rate: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(bins, bands)`` filters, and of each band: power at the threshold of hearing, width in Bark, exponent.

    The lowest band is left out, as PESQ leaves it out.
    """
    counts = np.array(BAND_BINS, dtype=float)
    edges = (np.concatenate([[0.0], np.cumsum(counts)]) - 0.5) * BIN_HZ
    hz, width = np.arange(n_fft // 2 + 1) * sample_rate / n_fft, sample_rate / n_fft
    overlap = np.minimum(edges[1:, None], hz + width / 2) - np.maximum(edges[:-1, None], hz - width / 2)
    # Whole bins make the bands uneven; their density counts over a width that grows smoothly.
    smooth = np.exp(np.convolve(np.pad(np.log(counts), 3, mode="edge"), np.full(7, 1 / 7), "valid"))
    filters = (overlap.clip(min=0.0) / width) * (smooth / counts)[:, None]
    bark = 7.0 * np.arcsinh(edges.clip(min=0.0) / 650.0)  # Schroeder 1977
    middle = 0.5 * (bark[1:] + bark[:-1])
    khz = (0.5 * (edges[1:] + edges[:-1])).clip(min=25.0) / 1000.0
    # The threshold in quiet (Terhardt 1979), dB.
    quiet_db = 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    exponent = EXPONENT * np.where(middle < 4.0, np.minimum(6.0 / (middle + 2.0), 2.0), 1.0) ** 0.15
    rows = (filters.T[:, 1:], 10.0 ** (quiet_db[1:].clip(max=75.0) / 10.0), np.diff(bark)[1:], exponent[1:])
    filters_, quiet, wide, powers = (torch.tensor(row.copy(), dtype=torch.float32) for row in rows)
    return filters_, quiet, wide, powers


def disturbances(generated: Tensor, reference: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Symmetric and asymmetric disturbance of every frame of 32 ms, half of them overlapping.

    Args:
        generated: ``(batch, samples)``.
        reference: the same; its level decides what both count as.
        sample_rate: Hz.

    Returns:
        each ``(batch, frames)``, 0 where nothing is heard to differ.
    """
    n_fft = 2 * round(WINDOW_S * sample_rate / 2)
    filters, quiet, width, exponent = (row.to(reference.device) for row in _bands(n_fft, sample_rate))
    made, real = (_power(signal, n_fft) @ filters for signal in (generated, reference))
    total = real.sum(dim=-1, keepdim=True)
    active = (total > ACTIVE * total.amax(dim=1, keepdim=True)).to(total)
    level = (total * active).sum(dim=1, keepdim=True) / active.sum(dim=1, keepdim=True).clamp(min=1.0)
    scale = SPEECH_POWER / level.clamp(min=1e-3)
    made, real = made * scale, real * scale
    ours, theirs = (_loudness(power, quiet, exponent) for power in (made, real))
    away = ours - theirs
    heard = away.sign() * (away.abs() - MASKED * torch.minimum(ours, theirs).detach()).clamp(min=0.0)
    whole = width.sum()
    symmetric = ((heard * width).square().sum(dim=-1) / whole + 1e-6).sqrt() * whole
    ratio = (((made + 50.0) / (real + 50.0)) ** 1.2).detach()
    added = torch.where(ratio < 3.0, torch.zeros_like(ratio), ratio.clamp(max=12.0))
    asymmetric = (heard.abs() * added * width).sum(dim=-1)
    loud = ((real.sum(dim=-1) + 1e5) / 1e7) ** 0.04
    return symmetric / loud, asymmetric / loud


def loudness_loss(generated: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """Both disturbances, root mean square over the frames of a clip, with PESQ's weights: points of raw PESQ, roughly.

    Arguments as of :func:`disturbances`; a scalar, the mean over the clips.
    """
    parts = disturbances(generated, reference, sample_rate)
    means = [(part.clamp(max=MOST).square().mean(dim=-1) + 1e-6).sqrt().mean() for part in parts]
    return SYMMETRIC * means[0] + ASYMMETRIC * means[1]


def _power(signal: Tensor, n_fft: int) -> Tensor:
    spectrum = spectra(pad_signal(signal, n_fft // 2, n_fft // 2), n_fft, n_fft // 2)
    return spectrum.real.square() + spectrum.imag.square()


def _loudness(power: Tensor, quiet: Tensor, exponent: Tensor) -> Tensor:
    """Sones of each band (Zwicker & Feldtkeller 1967, with the exponents of P.862)."""
    rise = (0.5 + 0.5 * power / quiet) ** exponent - 1.0
    return SONES * (quiet / 0.5) ** exponent * rise.clamp(min=0.0)

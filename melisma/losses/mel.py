"""Mel losses."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from melisma.audio.mel import MelContract, log_mel
from melisma.audio.mel_bands import band_centres_hz, natural

# FFT size and mel bins of each scale (Kumar et al. 2023, Descript Audio Codec).
SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))


def mel_loss(generated: Tensor, reference: Tensor, mel: MelContract) -> Tensor:
    """L1 distance of the log-mels, a scalar in units of the contract's logarithm.

    Args:
        generated: audio ``(batch, samples)`` or ``(batch, 1, samples)``.
        reference: audio of the same shape.
        mel: the contract; its full band (``fmax=None``) is usual in training.
    """
    made, real = (log_mel(audio.flatten(0, -2), mel) for audio in (generated, reference))
    return (made - real).abs().mean()


def contract_mel_loss(generated: Tensor, reference: Tensor, mel: MelContract, band_hz: Tensor) -> Tensor:
    """L1 distance of the log-mels in nepers, over the bands that a clip really has.

    Args:
        generated: audio ``(batch, samples)``.
        reference: audio of the same shape.
        mel: the contract.
        band_hz: nothing of a reference above this is real, ``(batch,)`` in Hz.

    Returns:
        a scalar; every clip counts alike.
    """
    centres = torch.from_numpy(band_centres_hz(mel)).to(band_hz.device)
    real = (centres < band_hz.unsqueeze(-1)).to(generated.dtype)
    error = natural(log_mel(generated, mel) - log_mel(reference, mel), mel).abs().mean(dim=-1)
    return ((error * real).sum(dim=-1) / real.sum(dim=-1).clamp(min=1.0)).mean()


def multi_scale_mel_loss(
    generated: Tensor, reference: Tensor, sample_rate: int, scales: Sequence[tuple[int, int]] = SCALES
) -> Tensor:
    """L1 distance of log10-mels summed over scales: a scalar.

    Args:
        generated: audio ``(batch, samples)``.
        reference: audio of the same shape.
        sample_rate: Hz.
        scales: FFT size and mel bins of each.
    """
    contracts = [_contract(sample_rate, n_fft, bins) for n_fft, bins in scales]
    return torch.stack([mel_loss(generated, reference, mel) for mel in contracts]).sum()


@lru_cache(maxsize=64)
def _contract(sample_rate: int, n_fft: int, bins: int) -> MelContract:
    return MelContract(
        sample_rate=sample_rate,
        n_fft=n_fft,
        win_length=n_fft,
        hop_length=n_fft // 4,
        n_mels=bins,
        fmin=0.0,
        fmax=None,
        log_base="10",
        magnitude_epsilon=1e-9,
    )

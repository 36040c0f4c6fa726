"""What a vocoder must beat: WORLD and Griffin-Lim."""

import numpy as np
import torch

from melisma.audio.mel import MelContract, decompress, filterbank
from melisma.audio.stft import hann, overlap_add, spectra
from melisma.errors import MelismaError

GRIFFIN_LIM_ROUNDS = 32
# Fast Griffin-Lim (Perraudin, Balazs, Sondergaard 2013): how far each round overshoots.
GRIFFIN_LIM_MOMENTUM = 0.99
INVERSION_ROUNDS = 30


def world_copy(
    audio: np.ndarray, sample_rate: int, f0_scale: float = 1.0, fmin: float = 40.0, fmax: float = 1600.0
) -> np.ndarray:
    """Analyse and synthesise with WORLD: Harvest and StoneMask, CheapTrick, D4C.

    Args:
        audio: ``(samples,)``.
        sample_rate: Hz.
        f0_scale: factor on F0 before the synthesis.
        fmin: lowest F0 looked for, Hz.
        fmax: highest F0 looked for, Hz.

    Returns:
        ``(samples,)`` float32.
    """
    import pyworld

    signal = np.ascontiguousarray(audio, dtype=np.float64)
    f0_hz, times_s = pyworld.harvest(signal, sample_rate, f0_floor=fmin, f0_ceil=fmax)
    f0_hz = pyworld.stonemask(signal, f0_hz, times_s, sample_rate)
    envelope = pyworld.cheaptrick(signal, f0_hz, times_s, sample_rate)
    aperiodicity = pyworld.d4c(signal, f0_hz, times_s, sample_rate)
    made = pyworld.synthesize(f0_hz * f0_scale, envelope, aperiodicity, sample_rate)
    made = np.pad(made, (0, max(0, len(signal) - len(made))))[: len(signal)]
    return np.nan_to_num(made).astype(np.float32)


def mel_to_magnitude(log_mel_values: torch.Tensor, mel: MelContract, rounds: int = INVERSION_ROUNDS) -> torch.Tensor:
    """Non-negative magnitudes ``(frames, bins)`` whose mel is nearest: multiplicative updates (Lee & Seung 2001).

    Args:
        log_mel_values: ``(n_mels, frames)``.
        mel: the contract; bins that no filter sees stay zero.
        rounds: number of updates.
    """
    wanted = decompress(log_mel_values, mel).T
    bank = filterbank(mel, wanted)
    guess = (wanted @ torch.linalg.pinv(bank).T).clamp(min=1e-8)
    guess = guess * (bank.sum(0) > 0)
    numerator = wanted @ bank
    gram = bank.T @ bank
    for _ in range(rounds):
        guess = guess * numerator / (guess @ gram).clamp(min=1e-12)
    return guess if mel.power == 1.0 else guess.pow(1.0 / mel.power)


def griffin_lim(log_mel_values: np.ndarray, mel: MelContract, rounds: int = GRIFFIN_LIM_ROUNDS) -> np.ndarray:
    """Audio from a log-mel by Griffin-Lim with momentum.

    Args:
        log_mel_values: ``(n_mels, frames)`` under ``mel``.
        mel: the contract, with ``same`` or ``nvstft`` padding and a hop that divides ``n_fft``.
        rounds: number of rounds.

    Returns:
        ``(frames * hop_length,)`` float32.
    """
    if mel.padding == "centre" or mel.n_fft % mel.hop_length:
        raise MelismaError("Griffin-Lim here needs 'same' padding and a hop that divides n_fft")
    values = torch.as_tensor(np.asarray(log_mel_values), dtype=torch.float32)
    magnitude = mel_to_magnitude(values, mel)
    window = hann(mel.win_length, magnitude)
    missing = mel.n_fft - mel.win_length
    window = torch.nn.functional.pad(window, (missing // 2, missing - missing // 2))
    weight = overlap_add((window**2).expand(1, magnitude.shape[0], -1), mel.hop_length).clamp(min=1e-3)

    def signal_of(spectrum: torch.Tensor) -> torch.Tensor:
        return overlap_add((torch.fft.irfft(spectrum) * window).unsqueeze(0), mel.hop_length) / weight

    generator = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator)
    estimate = torch.polar(magnitude, angle)
    before = torch.zeros_like(estimate)
    for _ in range(rounds):
        consistent = spectra(signal_of(estimate), mel.n_fft, mel.hop_length, mel.win_length)[0]
        pushed = consistent + GRIFFIN_LIM_MOMENTUM * (consistent - before)
        estimate = magnitude * pushed / pushed.abs().clamp(min=1e-12)
        before = consistent
    left = (mel.n_fft - mel.hop_length) // 2
    audio = signal_of(estimate)[0, left:]
    return audio[: magnitude.shape[0] * mel.hop_length].numpy().astype(np.float32)

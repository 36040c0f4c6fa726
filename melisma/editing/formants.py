"""Formants moved on a log-mel: the singer's size changes, the pitch stays.

The spectrum's envelope is read between the harmonics (the mean of the log-mel over one harmonic's distance, as WORLD's
CheapTrick does on a spectrum; Morise 2015), moved along frequency, and the difference added: harmonics stay where they
are, what they ride on moves.
"""

import numpy as np
import torch
from torch import Tensor

from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import band_centres_hz
from melisma.errors import MelismaError

FARTHEST = 12.0  # semitones
RAMP_FRAMES = 3  # at the borders of voiced stretches
_NARROWEST_HZ = 80.0  # below a low voice's harmonics are not told apart by a mel


def warp_formants(
    log_mel: Tensor, mel: MelContract, semitones: float, f0_hz: np.ndarray | Tensor, first: int = 0
) -> Tensor:
    """Move the formants of a log-mel.

    Args:
        log_mel: ``(..., n_mels, frames)`` under the contract.
        mel: the contract.
        semitones: -12 to 12; 4 makes a man's formants about a child's.
        f0_hz: ``(frames,)``: F0 of what the log-mel holds, 0 where unvoiced. Unvoiced frames stay as they are. May be
            the curve of a longer clip that the log-mel is a piece of: the pieces together equal the whole.
        first: the frame of ``f0_hz`` with which the log-mel begins.

    Returns:
        The same shape and type.

    Raises:
        MelismaError: too far, or F0 of another length.
    """
    if not abs(semitones) <= FARTHEST:
        raise MelismaError(f"formants {semitones:g} are outside -12 to 12 semitones; choose a smaller shift")
    around, frames = np.asarray(f0_hz, dtype=np.float64), log_mel.shape[-1]
    if around.ndim != 1 or len(around) < first + frames:
        raise MelismaError(f"F0 has the shape {around.shape}, the mel {frames} frames; give one value a frame")
    start = max(0, first - RAMP_FRAMES)
    around = around[start : first + frames + RAMP_FRAMES]
    curve = around[first - start :][:frames]
    if semitones == 0 or not (curve > 0).any():
        return log_mel
    presence = _presence(around)[first - start :][:frames]
    values = log_mel.detach().cpu().numpy().astype(np.float64)
    frequencies = band_centres_hz(mel)
    envelope = _envelope(values, frequencies, np.maximum(curve, _NARROWEST_HZ))
    moved = _read(envelope, frequencies, frequencies / 2.0 ** (semitones / 12.0))
    changed = values + presence * (moved - envelope)
    floor = np.log(mel.floor) / (1.0 if mel.log_base == "e" else np.log(10.0))
    changed = np.maximum(changed, np.minimum(values, floor))
    return torch.from_numpy(changed).to(log_mel)


def _envelope(values: np.ndarray, frequencies: np.ndarray, width_hz: np.ndarray) -> np.ndarray:
    """Mean over ``width_hz`` around each filter, twice; ``values`` are ``(..., n_mels, frames)``."""
    for _ in range(2):
        steps = np.diff(frequencies)[:, None]
        areas = 0.5 * (values[..., 1:, :] + values[..., :-1, :]) * steps
        total = np.concatenate([np.zeros_like(values[..., :1, :]), np.cumsum(areas, axis=-2)], axis=-2)
        low = np.clip(frequencies[:, None] - 0.5 * width_hz, frequencies[0], frequencies[-1])
        high = np.clip(frequencies[:, None] + 0.5 * width_hz, frequencies[0], frequencies[-1])
        values = (_read(total, frequencies, high) - _read(total, frequencies, low)) / (high - low)
    return values


def _read(values: np.ndarray, frequencies: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """``(..., n_mels, frames)`` on a straight line at ``(n_mels,)`` or ``(n_mels, frames)`` Hz; the ends hold."""
    wanted = np.broadcast_to(wanted[:, None] if wanted.ndim == 1 else wanted, values.shape[-2:])
    after = np.clip(np.searchsorted(frequencies, wanted), 1, len(frequencies) - 1)
    share = np.clip((wanted - frequencies[after - 1]) / (frequencies[after] - frequencies[after - 1]), 0.0, 1.0)
    frames = np.arange(values.shape[-1])
    return (1.0 - share) * values[..., after - 1, frames] + share * values[..., after, frames]


def _presence(f0_hz: np.ndarray) -> np.ndarray:
    """1 in voiced frames, 0 in unvoiced ones, with a short ramp inside every voiced stretch."""
    voiced = np.pad((f0_hz > 0).astype(np.float64), RAMP_FRAMES, mode="edge")
    near = np.lib.stride_tricks.sliding_window_view(voiced, 2 * RAMP_FRAMES + 1)
    away = np.abs(np.arange(-RAMP_FRAMES, RAMP_FRAMES + 1)) / (RAMP_FRAMES + 1)
    return np.where(near > 0, 1.0, away).min(axis=1)

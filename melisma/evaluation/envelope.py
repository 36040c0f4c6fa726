"""Formants under a pitch shift, and metrics by octave of F0: what is judged frame by frame on the log-mel."""

import math
from itertools import pairwise

import numpy as np

from melisma.audio.mel import MelContract, log_mel
from melisma.audio.mel_bands import natural
from melisma.evaluation.metrics import aligned, cepstra, cepstral_distance_db, f0_agreement, periodicity

QUEFRENCIES = 30
OCTAVES_HZ = (55.0, 110.0, 220.0, 440.0, 880.0, 1760.0)
# An octave needs so many frames of a clip to be judged there.
FEWEST_FRAMES = 10


def envelope_distance(reference: np.ndarray, shifted: np.ndarray, mel: MelContract, voiced: np.ndarray) -> float:
    """How far the formants of a shifted clip are from the recording's, nepers; NaN without a voiced frame.

    The mean absolute difference of the log-mel envelopes in the voiced frames. An envelope is what 30 quefrencies of a
    cosine transform over the mel bins hold, the zeroth (the level) left out. Where the harmonics are farther apart than
    those can blur, above about 300 Hz, the harmonics themselves are part of it and a shift moves them.

    Args:
        reference: ``(samples,)``.
        shifted: ``(samples,)``, in step with it.
        mel: the contract.
        voiced: ``(frames,)`` of bool.
    """
    left, right = (_envelope(clip, mel) for clip in aligned(reference, shifted))
    frames = min(left.shape[1], right.shape[1], len(voiced))
    here = np.asarray(voiced[:frames], dtype=bool)
    if not here.any():
        return math.nan
    return float(np.abs(left[:, :frames] - right[:, :frames])[:, here].mean())


def _envelope(audio: np.ndarray, mel: MelContract) -> np.ndarray:
    values = natural(log_mel(audio, mel)[0], mel).numpy().astype(np.float64)
    bins = np.arange(mel.n_mels) + 0.5
    basis = np.cos(np.pi / mel.n_mels * np.outer(np.arange(1, QUEFRENCIES), bins)) * math.sqrt(2.0 / mel.n_mels)
    return np.asarray(basis.T @ (basis @ values))


def by_octave(
    reference: np.ndarray, generated: np.ndarray, mel: MelContract, f0_hz: np.ndarray, found_hz: np.ndarray
) -> dict[str, dict[str, float]]:
    """Metrics of the frames whose F0 lies in an octave: ``{"110-220 Hz": {"log_mel": ...}}``, octaves that occur.

    Args:
        reference: ``(samples,)``.
        generated: ``(samples,)``.
        mel: the contract.
        f0_hz: ``(frames,)`` of the reference.
        found_hz: ``(frames,)`` of what was generated.
    """
    reference, generated = aligned(reference, generated)
    left, right = (natural(log_mel(clip, mel)[0], mel) for clip in (reference, generated))
    frames = min(left.shape[1], len(f0_hz), len(found_hz))
    f0_hz, found_hz = np.asarray(f0_hz[:frames]), np.asarray(found_hz[:frames])
    log_mels = (left - right).abs().mean(0).numpy()[:frames]
    distortion = cepstral_distance_db(cepstra(left), cepstra(right)).numpy()[:frames]
    periods = [periodicity(clip, mel.sample_rate, mel.hop_length, f0_hz) for clip in (reference, generated)]
    result = {}
    for low, high in pairwise(OCTAVES_HZ):
        here = (f0_hz >= low) & (f0_hz < high)
        if here.sum() >= FEWEST_FRAMES:
            result[f"{low:.0f}-{high:.0f} Hz"] = {
                "log_mel": float(log_mels[here].mean()),
                "mcd": float(distortion[here].mean()),
                "f0_cents": f0_agreement(f0_hz[here], found_hz[here])[0],
                "vuv_recall": float((found_hz[here] > 0).mean()),
                "periodicity": float(np.sqrt(np.mean((periods[0] - periods[1])[here] ** 2))),
            }
    return result

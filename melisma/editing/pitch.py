"""Hz and pitch: semitones as MIDI counts them, 69 is A4 at 440 Hz, fractions allowed."""

import math

import numpy as np

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def pitch_of(f0_hz: np.ndarray) -> np.ndarray:
    """Pitch in semitones, float64, of ``(...)`` Hz; NaN where the curve is unvoiced."""
    curve = np.asarray(f0_hz, dtype=np.float64)
    return 69.0 + 12.0 * np.log2(np.where(curve > 0, curve, np.nan) / 440.0)


def hz_of(pitch: float) -> float:
    """Hz of a pitch in semitones."""
    return 440.0 * math.exp2((pitch - 69.0) / 12.0)


def pitch_name(pitch: float) -> str:
    """The nearest note of the tempered scale, ``A4`` for 69."""
    number = round(pitch)
    return f"{NAMES[number % 12]}{number // 12 - 1}"

"""The built-in singer's vocal tract: formants that move, and the noises of consonants.

The formant frequencies are the averages of Peterson & Barney (1952) for men; a voice scales them by the length of its
tract.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Spectrum = NDArray[np.complex128]

# Vowel (or voiced consonant) -> the first three formants in Hz.
FORMANTS_HZ: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "i": (270.0, 2290.0, 3010.0),
        "I": (390.0, 1990.0, 2550.0),
        "e": (460.0, 2050.0, 2600.0),
        "E": (530.0, 1840.0, 2480.0),
        "ae": (660.0, 1720.0, 2410.0),
        "a": (730.0, 1090.0, 2440.0),
        "O": (570.0, 840.0, 2410.0),
        "o": (450.0, 780.0, 2350.0),
        "U": (440.0, 1020.0, 2240.0),
        "u": (300.0, 870.0, 2240.0),
        "A": (640.0, 1190.0, 2390.0),
        "r": (490.0, 1350.0, 1690.0),
        "m": (250.0, 1050.0, 2200.0),
        "n": (250.0, 1500.0, 2450.0),
        "l": (360.0, 1150.0, 2700.0),
    }
)
VOWELS = ("i", "I", "e", "E", "ae", "a", "O", "o", "U", "u", "A")

# Noise of a consonant -> (centre Hz, sharpness, gain).
NOISES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "s": (7500.0, 1.6, 1.0),
        "sh": (3400.0, 1.5, 1.0),
        "f": (6500.0, 0.4, 0.35),
        "t": (5500.0, 0.9, 0.9),
        "k": (1900.0, 1.6, 0.9),
        "p": (900.0, 0.5, 0.7),
    }
)


def resonance(frequencies_hz: Array, centre_hz: Array, sample_rate: int) -> Spectrum:
    """Response of a two-pole resonator with gain 1 at 0 Hz (Klatt 1980), as wide as formants at its centre are.

    Args:
        frequencies_hz: ``(bins,)``.
        centre_hz: ``(frames,)``.
        sample_rate: Hz.

    Returns:
        complex ``(frames, bins)``.
    """
    bandwidth_hz = 50.0 + 0.022 * centre_hz
    radius = np.exp(-np.pi * bandwidth_hz / sample_rate)[:, None]
    turn = np.cos(2 * np.pi * centre_hz / sample_rate)[:, None]
    delay = np.exp(-2j * np.pi * frequencies_hz / sample_rate)[None, :]
    first, second = 2.0 * radius * turn, -(radius**2)
    return (1.0 - first - second) / (1.0 - first * delay - second * delay**2)


def vowel_response(frequencies_hz: Array, formants_hz: Array, scale: float, ring: float, rate: int) -> Spectrum:
    """Response of the whole tract, normalised to an RMS gain of 1 below 5 kHz.

    Args:
        frequencies_hz: ``(bins,)``.
        formants_hz: ``(frames, 3)``, already those of this voice.
        scale: 1 for an average man, larger for a shorter tract; places the formants above the third.
        ring: 0 to 1, how far formants 3 to 5 draw together near 2.9 kHz (the "singer's formant", Sundberg 1974).
        rate: sample rate, Hz.

    Returns:
        complex ``(frames, bins)``.
    """
    count = int((0.47 * rate - 3500.0 * scale) // (1000.0 * scale)) + 1
    upper = 3500.0 * scale + 1000.0 * scale * np.arange(max(0, count))
    moving = np.minimum(formants_hz, 0.45 * rate)
    cluster = scale * np.array([2550.0, 2900.0, 3250.0])
    if len(upper) >= 2:
        moving[:, 2] += 0.8 * ring * (cluster[0] - moving[:, 2])
        upper[:2] += 0.8 * ring * (cluster[1:] - upper[:2])
    fixed = np.ones((1, len(frequencies_hz)), dtype=np.complex128)
    for centre in upper:
        fixed = fixed * resonance(frequencies_hz, np.array([centre]), rate)
    response = np.repeat(fixed, len(moving), axis=0)
    for centres in moving.T:
        response *= resonance(frequencies_hz, centres, rate)
    low = frequencies_hz < 5000.0
    return response / np.sqrt(np.mean(np.abs(response[:, low]) ** 2, axis=1, keepdims=True))


def noise_shape(frequencies_hz: Array, kind: str, scale: float) -> Array:
    """Magnitude ``(bins,)`` of a consonant's noise, a band around the table's centre."""
    centre, sharpness, gain = NOISES[kind]
    ratio = np.maximum(frequencies_hz, 20.0) / (centre * scale**0.5)
    return gain / np.sqrt(1.0 + (sharpness * (ratio - 1.0 / ratio)) ** 2) ** 3


def frame_sizes(sample_rate: int) -> tuple[int, int]:
    """Window length and hop in samples of :func:`filter_frames`: a window of about 23 ms, a quarter of it as hop."""
    window = 1 << round(np.log2(0.0232 * sample_rate))
    return window, window // 4


def frame_centres(samples: int, sample_rate: int) -> NDArray[np.int64]:
    """Sample positions of the frames that :func:`filter_frames` uses for a signal of that length."""
    window, hop = frame_sizes(sample_rate)
    return np.arange(-(-samples // hop) + 3) * hop - window // 2 + hop


def filter_frames(signal: Array, responses: Spectrum, start_frame: int, out: Array, rate: int) -> None:
    """Add a signal through a time-varying filter to ``out``: every frame through its own response, cross-faded.

    Args:
        signal: ``(samples,)``, the whole signal.
        responses: ``(frames, window + 1)`` of the FFT length ``2 * window``, so that a response may ring a window long.
        start_frame: index of the first of these frames among :func:`frame_centres`.
        out: ``(samples,)``, added to in place.
        rate: sample rate, Hz.
    """
    window = frame_sizes(rate)[0]
    fade = 0.5 * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window))  # sums to 1 at a quarter's hop
    starts = frame_centres(len(signal), rate)[start_frame : start_frame + len(responses)] - window // 2
    first, last = int(starts[0]), int(starts[-1]) + 2 * window
    padded = np.zeros(last - first)
    low, high = max(0, first), min(len(signal), last)
    padded[low - first : high - first] = signal[low:high]
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[starts - first] * fade
    filtered = np.fft.irfft(np.fft.rfft(frames, 2 * window, axis=1) * responses, axis=1)
    total = np.zeros(last - first)
    for start, frame in zip(starts - first, filtered, strict=True):
        total[start : start + 2 * window] += frame
    out[low:high] += total[low - first : high - first]

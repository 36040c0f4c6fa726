"""Made voices whose F0 is known exactly: harmonics of a glottal source through formants, plus breath noise."""

import numpy as np

FORMANTS = {"a": (800, 1200, 2900, 3900), "i": (300, 2200, 3000, 3700), "u": (330, 750, 2500, 3500)}
BANDWIDTHS = (90, 110, 170, 250)


def formant_gain(hz: np.ndarray, vowel: str) -> np.ndarray:
    """Magnitude of the vocal tract (parallel resonances) times a -12 dB/octave glottal slope, at ``hz``."""
    gain = np.full_like(hz, 0.02)
    for centre, width in zip(FORMANTS[vowel], BANDWIDTHS, strict=True):
        gain += width * centre / np.abs(centre**2 - hz**2 + 1j * hz * width * 2)
    return gain / (1.0 + (hz / 400.0) ** 1.5)


def voice(f0_hz: np.ndarray, sample_rate: int, vowel: str = "a", breath: float = 0.002, seed: int = 0) -> np.ndarray:
    """A voice that follows ``f0_hz`` (one value a sample, 0 unvoiced); float32, peak 0.5."""
    rng = np.random.default_rng(seed)
    cycles = np.cumsum(f0_hz / sample_rate)
    cycles -= f0_hz / sample_rate / 2  # the midpoint rule: no half-sample lag
    audio = np.zeros(len(f0_hz))
    lowest = f0_hz[f0_hz > 0].min(initial=sample_rate)
    phases = rng.uniform(0, 0.3, size=400)
    for k in range(1, int(min(12000, sample_rate / 2.1) / lowest) + 1):
        hz = k * f0_hz
        level = np.where((hz > 0) & (hz < sample_rate / 2.1), formant_gain(hz, vowel), 0.0)
        audio += level * np.sin(2 * np.pi * (k * cycles + phases[k % 400]))
    voiced = (f0_hz > 0).astype(float)
    ramp = np.hanning(int(0.01 * sample_rate) | 1)
    audio *= np.convolve(voiced, ramp / ramp.sum(), "same") * voiced
    audio *= 0.5 / max(1e-9, np.abs(audio).max())
    return (audio + breath * rng.standard_normal(len(audio))).astype(np.float32)


def vibrato(base_hz: float, seconds: float, sample_rate: int, cents: float = 60.0, rate_hz: float = 5.5) -> np.ndarray:
    """An F0 curve, one value a sample: a held note with vibrato."""
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    return base_hz * 2.0 ** (cents / 1200.0 * np.sin(2 * np.pi * rate_hz * time))

"""Twins: the same voice at another pitch, in step with the recording.

A twin's mel with the original as target teaches a generator what to do when the mel and the F0 disagree, which is what
every pitch shift is. WORLD (Morise et al. 2016) makes them.
"""

import numpy as np

Array = np.ndarray

# WORLD's envelope takes a lower F0 than this for no voice; its own bound, 71 Hz, is above a bass.
LOWEST_HZ = 40.0


def draw_mismatch(rng: np.random.Generator) -> float:
    """Semitones of mismatch: large shifts as users make them, small ones as a singer's detuning."""
    if rng.random() < 0.35:
        return float(rng.choice([-1.0, 1.0]) * rng.uniform(0.15, 1.2))
    return float(rng.uniform(-12.0, 12.0))


def shifted_by_world(audio: Array, f0_hz: Array, sample_rate: int, hop_length: int, semitones: float) -> Array:
    """The clip sung at another pitch with its own envelope and timing, ``(samples,)`` float32."""
    import pyworld

    period_ms = 1000.0 * hop_length / sample_rate
    # The frames are centred between samples, WORLD's on them: put half a hop in front, take it away afterwards.
    times = np.arange(len(f0_hz) + 1) * period_ms / 1000.0
    double = np.concatenate([np.zeros(hop_length // 2), audio.astype(np.float64), np.zeros(hop_length)])
    curve = np.concatenate([f0_hz[:1], f0_hz]).astype(np.float64)
    n_fft = pyworld.get_cheaptrick_fft_size(sample_rate, LOWEST_HZ)
    envelope = pyworld.cheaptrick(double, curve, times, sample_rate, f0_floor=LOWEST_HZ, fft_size=n_fft)
    aperiodicity = pyworld.d4c(double, curve, times, sample_rate, fft_size=n_fft)
    moved = pyworld.synthesize(curve * 2.0 ** (semitones / 12), envelope, aperiodicity, sample_rate, period_ms)
    start = hop_length // 2
    out = np.zeros(len(audio), dtype=np.float32)
    moved = moved[start : start + len(audio)]
    out[: len(moved)] = moved
    return out

"""What vocoders do wrong and no distance tells apart: DC, tones in silence and in breath, too much or too little noise
among the harmonics, a wrong level above 16 kHz.

Audio is ``(samples,)``, full scale 1; levels are in dB of a full-scale sine. A figure without material to judge by (no
silence, no voiced frame) is NaN.
"""

import math

import numpy as np

from melisma.audio.f0_curve import interpolate_unvoiced

LOWEST_DB = -120.0
LINE_FFT = 4096
BREATH_FFT = 2048
# A bin's neighbourhood on both sides, without the line itself.
NEAR_BINS, LINE_BINS = 24, 3
# Averages fluctuate: a line is what stands out by more than so many standard deviations of a noise's bin.
DEVIATIONS, BREATH_DEVIATIONS = 5.0, 6.0
FEWEST_WINDOWS = 8
HARMONIC_BANDS_HZ = ((5000.0, 7000.0), (7000.0, 10000.0), (10000.0, 13000.0), (13000.0, 16000.0))
HARMONIC_WINDOW_S = 0.03
EDGE_SHARE = 0.3
HARMONIC_RANGE_DB = (-10.0, 30.0)
# Beyond this F0 a band may hold no harmonic at all.
HARMONICS_A_BAND = 1.5
THIRD = 2.0 ** (1.0 / 3.0)
TOP_BANDS_HZ = ((16000.0, 16000.0 * THIRD), (16000.0 * THIRD, 22050.0))


def dc_db(audio: np.ndarray) -> float:
    """Level of the mean, dB of full scale, -120 at least."""
    return max(LOWEST_DB, 20.0 * math.log10(max(abs(float(np.mean(audio, dtype=np.float64))), 1e-6)))


def windows_inside(mask: np.ndarray, hop_length: int, size: int) -> np.ndarray:
    """Starts of the windows of ``size`` samples, half overlapping, that lie in frames of the mask only."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    runs = zip(edges[::2] * hop_length, edges[1::2] * hop_length, strict=True)
    starts = [np.arange(first, last - size + 1, size // 2) for first, last in runs]
    return np.concatenate(starts) if starts else np.zeros(0, dtype=int)


def power_spectrum(audio: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Mean power of Hann windows at ``starts``, ``(size // 2 + 1,)``; a full-scale sine on a bin has 1."""
    window = np.hanning(size + 1)[:-1]
    total = np.zeros(size // 2 + 1)
    for start in starts:
        total += np.abs(np.fft.rfft(audio[start : start + size] * window)) ** 2
    return total / max(1, len(starts)) * (4.0 / size) ** 2


def _neighbourhood(power: np.ndarray) -> np.ndarray:
    """Median of the bins around each bin, those of a line left out."""
    reach = np.r_[-NEAR_BINS:-LINE_BINS, LINE_BINS + 1 : NEAR_BINS + 1]
    padded = np.pad(power, NEAR_BINS, mode="reflect")
    return np.asarray(np.median(np.stack([padded[NEAR_BINS + k : NEAR_BINS + k + len(power)] for k in reach]), axis=0))


def strongest_line_db(audio: np.ndarray, starts: np.ndarray, size: int = LINE_FFT) -> float:
    """Level of the strongest tone in the windows at ``starts``; -120 where nothing stands out of the noise."""
    if len(starts) < FEWEST_WINDOWS:
        return math.nan
    power = power_spectrum(audio, starts, size)
    noise = _neighbourhood(power)
    # Half of the windows are independent of each other.
    stands_out = power > noise * (1.0 + DEVIATIONS / math.sqrt(len(starts) / 2)) + 1e-13
    stands_out[:2] = False  # the mean is no tone
    if not stands_out.any():
        return LOWEST_DB
    # A tone between two bins shows in both: a Hann window spreads its power over three, 1.5 times in all.
    around = np.convolve(power, np.ones(3), "same") / 1.5
    return max(LOWEST_DB, 10.0 * math.log10(float(around[stands_out].max())))


def line_in_breath_db(
    reference: np.ndarray, generated: np.ndarray, starts: np.ndarray, size: int = BREATH_FFT
) -> float:
    """By how much the generated noise's strongest line stands out more than the reference does there, dB; 0 is none."""
    if len(starts) < FEWEST_WINDOWS:
        return math.nan
    rise = []
    for audio in (generated, reference):
        power = np.maximum(power_spectrum(audio, starts, size), 1e-14)
        rise.append(10.0 * np.log10(power / np.maximum(_neighbourhood(power), 1e-14)))
    expected = 10.0 / math.log(10.0) * math.sqrt(2.0 / (len(starts) / 2)) * BREATH_DEVIATIONS
    excess = (rise[0] - rise[1])[2:].max()
    return float(excess) if excess > expected else 0.0


def harmonic_to_noise_db(
    audio: np.ndarray, sample_rate: int, hop_length: int, f0_hz: np.ndarray, band_hz: tuple[float, float]
) -> np.ndarray:
    """Ratio of what repeats after one period to what does not, in a band, ``(frames,)`` in dB; NaN where not judged.

    The band is moved to 0 Hz and compared with itself one period later, where the period follows the F0 sample by
    sample, so that vibrato does not count as noise; an error of the F0 turns the phase and cancels in the magnitude.

    Args:
        audio: ``(samples,)``.
        sample_rate: Hz.
        hop_length: samples between F0 values, frame ``t`` at ``(t + 1/2) * hop_length``.
        f0_hz: ``(frames,)``, 0 where unvoiced.
        band_hz: lower and upper edge.
    """
    low, high = band_hz
    from scipy.interpolate import CubicSpline

    result = np.full(len(f0_hz), np.nan)
    judged = _steady(f0_hz) & (f0_hz < (high - low) / HARMONICS_A_BAND)
    if not judged.any() or high > sample_rate / 2 or len(audio) < 2 * hop_length:
        return result
    middle = (low + high) / 2
    base = _to_base_band(np.asarray(audio, dtype=np.float64), sample_rate, low, high)
    samples = np.arange(len(audio), dtype=np.float64)
    centres = (np.arange(len(f0_hz)) + 0.5) * hop_length
    logs = CubicSpline(centres, np.log(interpolate_unvoiced(np.asarray(f0_hz, dtype=np.float64))))
    # A straight line between frames would miss the bends of a vibrato by enough to turn the 100th harmonic.
    curve = np.exp(logs(np.clip(samples, centres[0], centres[-1])))
    cycles = np.cumsum(curve) / sample_rate
    later = np.interp(cycles + 1.0, cycles, samples)
    moved = np.interp(later, samples, base) * np.exp(2j * np.pi * middle / sample_rate * (later - samples))
    half = round(HARMONIC_WINDOW_S * sample_rate / 2)
    centre = ((np.flatnonzero(judged) + 0.5) * hop_length - 0.5 * sample_rate / f0_hz[judged]).astype(int)
    first, last = np.clip(centre - half, 0, len(audio)), np.clip(centre + half, 0, len(audio))
    sums = [_between(values, first, last) for values in (base.conj() * moved, np.abs(base) ** 2, np.abs(moved) ** 2)]
    alike = np.abs(sums[0]) ** 2 / np.maximum(np.real(sums[1] * sums[2]), 1e-30)
    # Noise of finite length is never quite unlike itself: one over its number of independent values.
    chance = 1.0 / max(2.0, HARMONIC_WINDOW_S * (high - low) * (1.0 - EDGE_SHARE))
    share = np.sqrt(np.clip((alike - chance) / (1.0 - chance), 1e-6, 1.0))
    result[judged] = np.clip(10.0 * np.log10(share / np.maximum(1.0 - share, 1e-6)), *HARMONIC_RANGE_DB)
    return result


def _steady(f0_hz: np.ndarray) -> np.ndarray:
    """Voiced frames between voiced frames, near them in pitch."""
    before, after = np.pad(f0_hz, (1, 0))[:-1], np.pad(f0_hz, (0, 1))[1:]
    near = (np.abs(before / np.maximum(f0_hz, 1.0) - 1.0) < 0.06) & (
        np.abs(after / np.maximum(f0_hz, 1.0) - 1.0) < 0.06
    )
    return np.asarray((f0_hz > 0) & near)


def _to_base_band(audio: np.ndarray, sample_rate: int, low: float, high: float) -> np.ndarray:
    """The analytic signal of a band, its middle moved to 0 Hz: ``(samples,)`` complex."""
    n_fft = 2 ** math.ceil(math.log2(len(audio) + sample_rate // 100))
    spectrum = np.fft.fft(audio, n_fft)
    hz = np.fft.fftfreq(n_fft, 1.0 / sample_rate)
    # Soft edges: through hard ones the harmonics of a vibrato would come and go within a period.
    inside = np.clip(np.minimum(hz - low, high - hz) / (EDGE_SHARE * (high - low)), 0.0, 1.0)
    analytic = np.fft.ifft(2.0 * np.sin(0.5 * np.pi * inside) ** 2 * spectrum)[: len(audio)]
    turn = np.exp(-2j * np.pi * (low + high) / 2 / sample_rate * np.arange(len(audio)))
    return np.asarray(analytic * turn)


def _between(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(total[last] - total[first])


def harmonic_to_noise_change_db(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int, hop_length: int, f0_hz: np.ndarray
) -> dict[str, float]:
    """Mean change of :func:`harmonic_to_noise_db` per band of 5 to 16 kHz, ``{"hnr_5k_db": ...}``; 0 is no change."""
    changes = {}
    for band in HARMONIC_BANDS_HZ:
        left, right = (harmonic_to_noise_db(a, sample_rate, hop_length, f0_hz, band) for a in (reference, generated))
        both = np.isfinite(left) & np.isfinite(right)
        changes[f"hnr_{band[0] / 1000:.0f}k_db"] = float((right - left)[both].mean()) if both.any() else math.nan
    return changes


def top_level_change_db(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int, band_hz: float
) -> dict[str, float]:
    """Change of level above 16 kHz in thirds of an octave, dB, as far as the recording's own band reaches."""
    size = LINE_FFT
    starts = np.arange(0, len(reference) - size + 1, size // 2)
    hz = np.fft.rfftfreq(size, 1.0 / sample_rate)
    powers = [power_spectrum(audio, starts, size) for audio in (reference, generated)]
    changes = {}
    for low, high in TOP_BANDS_HZ:
        here = (hz >= low) & (hz < min(high, band_hz))
        wide_enough = min(high, band_hz) - low > 0.3 * (high - low)
        left, right = (max(float(power[here].sum()), 1e-15) for power in powers)
        known = wide_enough and len(starts) > 0
        changes[f"above_{low / 1000:.0f}k_db"] = 10.0 * math.log10(right / left) if known else math.nan
    return changes

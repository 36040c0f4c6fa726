"""Where the band of a recording really ends: MP3, Opus and upsampled files hold nothing above some frequency."""

import numpy as np

FRAME_HZ = 43.0  # resolution: 1024 samples at 44.1 kHz
MOST_FRAMES = 2000
# What a bin reaches in the loudest frames; a hiss shows, a single click does not.
QUANTILE = 0.95
# A cut falls by so much within the gap between two neighbourhoods, and above it lies no more than rounding to 16 bits,
# in dB of a full-scale sine. No voice and no microphone does both; a singer's formant falls as steeply, into the room.
GAP_HZ, NEIGHBOURHOOD_HZ = 250.0, 700.0
DROP_DB, DEAD_DB = 14.0, -106.0
LOWEST_CUT_HZ = 3000.0
# Nothing that close to half the sample rate survives converters and resampling.
KEPT_BAND = 0.95


def real_band(audio: np.ndarray, sample_rate: int) -> float:
    """Highest frequency with content, Hz.

    Args:
        audio: ``(samples,)`` at the rate of the file, full scale 1.
        sample_rate: Hz.

    Returns:
        Where a codec or an upsampling cut the band, else 0.95 of half the sample rate.
    """
    whole = KEPT_BAND * sample_rate / 2
    levels, step = _levels(audio, sample_rate)
    if len(levels) == 0:
        return whole
    gap, near = max(1, round(GAP_HZ / step)), max(2, round(NEIGHBOURHOOD_HZ / step))
    total = np.concatenate([[0.0], np.cumsum(levels)])
    loudest_above = np.maximum.accumulate(levels[::-1])[::-1]
    best, found = DROP_DB, whole
    for cut in range(round(LOWEST_CUT_HZ / step), len(levels) - gap - 2):
        low, high = max(0, cut - gap - near), min(len(levels), cut + gap + near)
        below = (total[cut - gap] - total[low]) / (cut - gap - low)
        above = (total[high] - total[cut + gap]) / (high - cut - gap)
        if below - above > best and loudest_above[cut + gap] < min(DEAD_DB, below - DROP_DB / 2):
            best, found = below - above, cut * step
    return float(min(found, whole))


def _levels(audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Level of every bin in dB of a full-scale sine, and the bins' distance in Hz; none for audio below four frames."""
    size = 2 ** round(np.log2(sample_rate / FRAME_HZ))
    if len(audio) < 4 * size:
        return np.zeros(0), sample_rate / size
    count = min(MOST_FRAMES, len(audio) // size)
    starts = np.linspace(0, len(audio) - size, count).astype(np.int64)
    frames = np.stack([audio[start : start + size] for start in starts]).astype(np.float64)
    magnitude = np.abs(np.fft.rfft(frames * np.hanning(size))) * (4.0 / size)
    return 20.0 * np.log10(np.maximum(np.quantile(magnitude, QUANTILE, axis=0), 1e-9)), sample_rate / size

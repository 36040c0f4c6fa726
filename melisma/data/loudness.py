"""How loud a recording is (ITU-R BS.1770-4) and whether it was clipped."""

import math
from collections.abc import Iterator

import numpy as np

# The two filters of K-weighting as analogue prototypes: a shelf for the head, a high pass. At 48 kHz they give the
# coefficients that BS.1770 prints; other rates follow by the bilinear transform.
SHELF_HZ, SHELF_DB, SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
HIGH_PASS_HZ, HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
CELLS_PER_SECOND, CELLS_PER_BLOCK = 10, 4  # blocks of 400 ms, a new one every 100 ms
# Long audio is filtered in chunks of this many cells, each with so much of what precedes it.
CHUNK_CELLS, LEAD_SECONDS = 300, 1.0
# So many samples in a row at the largest value are a clipped peak; one step of 16 bits counts as the same.
CLIPPED_RUN = 3
QUIETEST_CLIPPED = 0.1


def loudness_lufs(audio: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness with both gates.

    Args:
        audio: ``(channels, samples)``; every channel has weight 1, as left, right and centre have.
        sample_rate: Hz.

    Returns:
        LUFS, of a full-scale sine of 997 Hz in one channel -3.01; minus infinity where all is below -70 LUFS.
    """
    cells = np.array([float(np.square(cell).mean(axis=1).sum()) for cell in _weighted_cells(audio, sample_rate)])
    if len(cells) >= CELLS_PER_BLOCK:
        cells = np.convolve(cells, np.full(CELLS_PER_BLOCK, 1 / CELLS_PER_BLOCK), "valid")
    elif len(cells):
        cells = cells.mean(keepdims=True)
    for gate in (lambda loud: ABSOLUTE_GATE_LUFS, lambda loud: _lufs(loud) + RELATIVE_GATE_LU):
        if not len(cells):
            break
        threshold = gate(float(cells.mean()))
        cells = np.array([cell for cell in cells if _lufs(cell) > threshold])
    return _lufs(float(cells.mean())) if len(cells) else -math.inf


def _lufs(power: float) -> float:
    return -0.691 + 10.0 * math.log10(power) if power > 0 else -math.inf


def _weighted_cells(audio: np.ndarray, sample_rate: int) -> Iterator[np.ndarray]:
    """K-weighted audio in cells of 100 ms, ``(channels, n)``; a rest shorter than a cell counts only when alone."""
    size = max(1, round(sample_rate / CELLS_PER_SECOND))
    samples, lead = audio.shape[1], round(LEAD_SECONDS * sample_rate)
    whole = max(size, samples // size * size) if samples else 0
    for start in range(0, whole, CHUNK_CELLS * size):
        stop = min(whole, start + CHUNK_CELLS * size)
        before = min(start, lead)
        piece = audio[:, start - before : stop].astype(np.float64)
        n_fft = 2 ** math.ceil(math.log2(piece.shape[1] + lead))
        spectrum = np.fft.rfft(piece, n_fft) * k_weighting(np.fft.rfftfreq(n_fft), sample_rate)
        filtered = np.fft.irfft(spectrum, n_fft)[:, before : piece.shape[1]]
        for first in range(0, filtered.shape[1], size):
            yield filtered[:, first : first + size]


def k_weighting(frequencies: np.ndarray, sample_rate: int) -> np.ndarray:
    """Complex response of the K-weighting filters at ``frequencies`` in cycles a sample."""
    z = np.exp(-2j * np.pi * frequencies)
    gain = 10.0 ** (SHELF_DB / 20.0)
    middle = gain**0.4996667741545416
    k = math.tan(math.pi * SHELF_HZ / sample_rate)
    shelf = _biquad(
        z,
        (gain + middle * k / SHELF_Q + k * k, 2 * (k * k - gain), gain - middle * k / SHELF_Q + k * k),
        (1 + k / SHELF_Q + k * k, 2 * (k * k - 1), 1 - k / SHELF_Q + k * k),
    )
    k = math.tan(math.pi * HIGH_PASS_HZ / sample_rate)
    a0 = 1 + k / HIGH_PASS_Q + k * k
    # BS.1770 writes this numerator as 1, -2, 1 whatever the denominator's scale.
    return shelf * _biquad(z, (a0, -2 * a0, a0), (a0, 2 * (k * k - 1), 1 - k / HIGH_PASS_Q + k * k))


def _biquad(z: np.ndarray, b: tuple[float, float, float], a: tuple[float, float, float]) -> np.ndarray:
    return np.asarray((b[0] + b[1] * z + b[2] * z * z) / (a[0] + a[1] * z + a[2] * z * z))


def clipped_samples(audio: np.ndarray) -> int:
    """Samples of ``(channels, samples)`` in runs of three or more at a channel's largest magnitude."""
    total = 0
    for channel in audio:
        peak = float(np.abs(channel).max(initial=0.0))
        if peak < QUIETEST_CLIPPED:
            continue
        flat = (np.abs(channel) >= peak - 2.0**-15).astype(np.int8)
        edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
        runs = edges[1::2] - edges[::2]
        total += int(runs[runs >= CLIPPED_RUN].sum())
    return total

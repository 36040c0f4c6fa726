"""Jitter and shimmer: how much one period of a held note differs from the next, in length and in level."""

import math
from dataclasses import dataclass

import numpy as np

# Lengths looked at around the period that the F0 tells.
SEARCH = 0.12
# The fundamental alone marks the periods: this share of F0 on both sides passes.
PASS = 0.45
FEWEST_PERIODS = 10
_AT_ONCE = 4096
# A note is held where the pitch stays within so many octaves of where it began, for so long.
NEAR, HELD_SECONDS = 2 / 12, 0.3


@dataclass(frozen=True)
class Steadiness:
    """Local jitter and shimmer as Praat defines them, as shares: 0.01 is one percent."""

    jitter: float
    shimmer: float


def steadiness(audio: np.ndarray, sample_rate: int, f0_hz: float) -> Steadiness:
    """Jitter and shimmer of a note.

    Marks of the periods come from the fundamental; a period is as long as makes the waveform around the next mark most
    like that around this one (to a fraction of a sample), its level the RMS there; Hann windows around its loudest
    place keep the neighbours out.

    Args:
        audio: ``(samples,)``, one held note.
        sample_rate: Hz.
        f0_hz: its pitch.

    Returns:
        NaN for both where fewer than ten periods are found.
    """
    signal = np.asarray(audio, dtype=np.float64)
    marks = _marks(signal, sample_rate, f0_hz)
    half = max(2, round(sample_rate / f0_hz / 2))
    reach = max(2, math.ceil(SEARCH * sample_rate / f0_hz))
    room = 2 * half + reach + 2
    marks = marks[(marks > room) & (marks < len(signal) - room)]
    if len(marks) < FEWEST_PERIODS:
        return Steadiness(math.nan, math.nan)
    marks = marks + _loudest_place(signal, marks, half)
    window = np.hanning(2 * half + 1)[:-1]
    lengths = _lengths(signal, marks, window, reach)
    levels = np.sqrt(np.square(signal[marks[:, None] + np.arange(-half, half)]) @ window)
    shimmer = float(np.abs(np.diff(levels)).mean() / max(float(levels.mean()), 1e-12))
    return Steadiness(float(np.abs(np.diff(lengths)).mean() / lengths.mean()), shimmer)


def _loudest_place(signal: np.ndarray, marks: np.ndarray, half: int) -> int:
    """Where in the periods the energy is, in samples after the marks: there one pulse is told from its neighbours."""
    energy = np.square(signal[marks[:, None] + np.arange(-half, half)]).mean(axis=0)
    turn = np.exp(1j * np.pi * (np.arange(-half, half) + 0.5) / half)
    return round(float(np.angle((energy * turn).sum())) / np.pi * half)


def _marks(signal: np.ndarray, sample_rate: int, f0_hz: float) -> np.ndarray:
    """Samples at which the fundamental rises through zero, one a period."""
    n_fft = 2 ** math.ceil(math.log2(len(signal) + sample_rate // 10))
    spectrum = np.fft.rfft(signal, n_fft)
    hz = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
    spectrum[np.abs(hz - f0_hz) > PASS * f0_hz] = 0.0
    fundamental = np.fft.irfft(spectrum, n_fft)[: len(signal)]
    return np.flatnonzero((fundamental[:-1] < 0) & (fundamental[1:] >= 0))


def _lengths(signal: np.ndarray, marks: np.ndarray, weights: np.ndarray, reach: int) -> np.ndarray:
    """Length of every period in samples, by the best match of the waveforms around neighbouring marks."""
    half = len(weights) // 2
    window = np.arange(-half, half)
    shifts = np.arange(-reach, reach + 1)
    found = []
    for begin in range(0, len(marks) - 1, _AT_ONCE):
        here = marks[begin : begin + _AT_ONCE + 1]
        this, following = here[:-1], here[1:]
        wave = signal[this[:, None] + window]
        weighted = wave * weights
        energy = (weighted * wave).sum(1)
        alike = np.empty((len(this), len(shifts)))
        for column, shift in enumerate(shifts):
            other = signal[following[:, None] + shift + window]
            alike[:, column] = (weighted * other).sum(1) / np.sqrt(np.maximum(energy * (other**2 @ weights), 1e-20))
        best = np.clip(alike.argmax(axis=1), 1, len(shifts) - 2)
        rows = np.arange(len(this))
        left, peak, right = alike[rows, best - 1], alike[rows, best], alike[rows, best + 1]
        bend = left - 2 * peak + right
        fraction = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), 0.0)
        found.append(following - this + shifts[best] + np.clip(fraction, -0.5, 0.5))
    return np.concatenate(found)


def steadiness_change(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int, hop_length: int, f0_hz: np.ndarray
) -> Steadiness:
    """Jitter and shimmer of what was generated as multiples of the recording's, in its held notes.

    Args:
        reference: ``(samples,)``.
        generated: ``(samples,)``, in step with it.
        sample_rate: Hz.
        hop_length: samples between the frames of F0.
        f0_hz: ``(frames,)`` Hz of the recording, 0 where unvoiced.

    Returns:
        medians over the notes; NaN without any.
    """
    found = []
    for first, stop in held_notes(f0_hz, math.ceil(HELD_SECONDS * sample_rate / hop_length)):
        pitch, samples = float(np.median(f0_hz[first:stop])), slice(first * hop_length, stop * hop_length)
        was, became = (steadiness(clip[samples], sample_rate, pitch) for clip in (reference, generated))
        if was.jitter > 0 and was.shimmer > 0 and math.isfinite(became.jitter):  # NaN is above nothing
            found.append((became.jitter / was.jitter, became.shimmer / was.shimmer))
    return Steadiness(*np.median(found, axis=0).tolist()) if found else Steadiness(math.nan, math.nan)


def held_notes(f0_hz: np.ndarray, least: int) -> list[tuple[int, int]]:
    """First frame and one after the last of voiced stretches of at least so many frames whose pitch stays near."""
    notes, first = [], 0
    octaves = np.log2(np.where(f0_hz > 0, f0_hz, math.nan))
    for frame in range(len(octaves) + 1):
        # False where it is unvoiced, too: nothing is near to NaN.
        if frame < len(octaves) and abs(octaves[frame] - octaves[first]) < NEAR:
            continue
        if frame - first >= least and np.isfinite(octaves[first]):
            notes.append((first, frame))
        first = frame
    return notes

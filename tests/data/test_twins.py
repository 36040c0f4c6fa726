"""A twin is the same voice, in time with it, at the pitch that was asked for."""

import numpy as np
import pytest

from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.data.singer import Note, sing
from melisma.data.twins import draw_mismatch, shifted_by_world
from melisma.f0 import estimate_f0

RATE, HOP = 16000, 128


def hop_energy(audio: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(audio[: len(audio) // HOP * HOP].reshape(-1, HOP).astype(np.float64)).mean(axis=1))


@pytest.mark.parametrize(("f0_hz", "semitones"), [(200.0, 5.0), (200.0, -7.0), (60.0, 4.0)])
def test_the_twin_is_in_time_at_the_shifted_pitch(f0_hz: float, semitones: float) -> None:
    notes = [Note(f0_hz, 0.5, "a"), Note(0.0, 0.3), Note(f0_hz * 1.2, 0.4, "i", loudness=0.4), Note(0.0, 0.2)]
    audio, curve = sing(notes, RATE, hop_length=HOP)
    twin = shifted_by_world(audio, curve, RATE, HOP, semitones)
    assert twin.shape == audio.shape
    assert twin.dtype == np.float32
    loud, other = (np.convolve(hop_energy(signal), np.ones(5) / 5, "same") for signal in (audio, twin))
    by_lag = {lag: np.corrcoef(loud[8:-8], np.roll(other, lag)[8:-8])[0, 1] for lag in range(-6, 7)}
    assert by_lag[0] > 0.9
    assert abs(max(by_lag, key=by_lag.__getitem__)) <= 1
    found = estimate_f0(twin, RATE, HOP, "harvest")[: len(curve)]
    both = (found > 0) & (curve > 0)
    assert both.sum() > 0.7 * (curve > 0).sum()
    assert np.median(12 * np.log2(found[both] / curve[both])) == pytest.approx(semitones, abs=0.1)


def test_the_twin_of_a_bass_keeps_his_timbre() -> None:
    audio, curve = sing([Note(52.0, 0.8, "a")], OPENVPI_44K.sample_rate, hop_length=OPENVPI_44K.hop_length)
    twin = shifted_by_world(audio, curve, OPENVPI_44K.sample_rate, OPENVPI_44K.hop_length, 3.0)
    difference = (log_mel(twin, OPENVPI_44K) - log_mel(audio, OPENVPI_44K)).abs()
    assert difference[..., curve[: difference.shape[-1]] > 0].mean() < 0.25


def test_shifts_go_both_ways_within_an_octave_and_many_are_small() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_mismatch(rng) for _ in range(1000)])
    assert (drawn != 0).all()
    assert np.abs(drawn).max() <= 12.0
    assert np.mean(drawn > 0) == pytest.approx(0.5, abs=0.05)
    assert np.mean(np.abs(drawn) < 1.2) == pytest.approx(0.35 + 0.65 * 0.1, abs=0.05)

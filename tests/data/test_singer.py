"""The made voice: exact F0, no aliasing, every choice from the seed."""

import numpy as np
import pytest

from melisma.data.glottal import pulses
from melisma.data.singer import Note, Voice, random_phrase, sing
from melisma.errors import MelismaError

STILL = Voice(vibrato_cents=0.0, drift_cents=0.0, jitter=0.0, shimmer=0.0, breath=0.0)


@pytest.mark.parametrize("f0_hz", [50.0, 61.7, 220.0, 987.8, 1600.0])
def test_a_held_note_has_the_f0_asked_for_and_nothing_between_its_harmonics(f0_hz: float) -> None:
    sample_rate, samples = 44100, 44100
    audio = pulses(np.arange(samples) * f0_hz / sample_rate, np.full(samples, f0_hz), 0.6, 2.5, sample_rate)
    window = np.blackman(samples)
    spectrum = np.abs(np.fft.rfft(audio * window)) ** 2
    frequencies = np.arange(len(spectrum)) * sample_rate / samples
    distance = np.abs(frequencies / f0_hz - np.round(frequencies / f0_hz)) * f0_hz
    assert frequencies[spectrum.argmax()] == pytest.approx(f0_hz, abs=1.0)
    off = spectrum[(distance > 10.0) | (frequencies > 0.486 * sample_rate)].sum()
    assert 10 * np.log10(off / spectrum.sum()) < -75


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100, 48000])
def test_lengths_levels_and_f0(sample_rate: int) -> None:
    notes = [Note(110.0, 0.3, "a", "s"), Note(0.0, 0.2, onset="h"), Note(1600.0, 0.3, "i", "k", 0.2)]
    audio, f0_hz = sing(notes, sample_rate, seed=3, hop_length=128)
    assert len(audio) == round(0.8 * sample_rate)
    assert len(f0_hz) == len(audio) // 128
    assert audio.dtype == f0_hz.dtype == np.float32
    assert np.abs(audio).max() == pytest.approx(0.5, rel=1e-3)
    assert {0.0} < set(f0_hz.tolist())
    assert f0_hz[f0_hz > 0].min() > 100


def test_f0_is_the_one_that_sounds() -> None:
    audio, f0_hz = sing([Note(233.3, 1.0, "a")], voice=STILL)
    middle = audio[8000:40768]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 19))
    lags = np.fft.irfft(spectrum**2)
    period = 44100 / 400 + np.argmax(lags[int(44100 / 400) : int(44100 / 150)])
    assert 1200 * abs(np.log2(44100 / period / 233.3)) < 8
    assert np.allclose(f0_hz[f0_hz > 0], 233.3, rtol=1e-4)


def test_the_seed_decides_everything() -> None:
    one, one_f0 = random_phrase(np.random.default_rng(5), 1.5, 50.0, 1600.0)
    two, two_f0 = random_phrase(np.random.default_rng(5), 1.5, 50.0, 1600.0)
    other, _ = random_phrase(np.random.default_rng(6), 1.5, 50.0, 1600.0)
    assert np.array_equal(one, two)
    assert np.array_equal(one_f0, two_f0)
    assert not np.array_equal(one, other)


def test_many_phrases_are_finite_and_in_range() -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        audio, f0_hz = random_phrase(rng, 1.0, 50.0, 1600.0)
        assert len(audio) == 44100
        assert np.isfinite(audio).all()
        assert np.abs(audio).max() <= 1.0
        assert f0_hz.max() < 2000.0


def test_a_score_of_rests_is_silent() -> None:
    audio, f0_hz = sing([Note(0.0, 0.5)])
    assert not audio.any()
    assert not f0_hz.any()


def test_wrong_use_says_what_to_do() -> None:
    with pytest.raises(MelismaError, match="50 to 1600"):
        random_phrase(np.random.default_rng(0), 1.0, 20.0, 100.0)
    with pytest.raises(MelismaError, match="at least one note"):
        sing([])
    with pytest.raises(MelismaError, match="unknown vowel 'ee'"):
        sing([Note(100.0, 0.1, "ee")])
    with pytest.raises(MelismaError, match="unknown onset"):
        sing([Note(100.0, 0.1, "a", "q")])

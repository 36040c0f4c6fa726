"""Loudness, clipping, band and cuts of signals whose answer is known."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soxr

from melisma.audio.io import encode_audio, read_audio
from melisma.data.band import real_band
from melisma.data.cutting import frame_levels, stretches
from melisma.data.loudness import clipped_samples, k_weighting, loudness_lufs

RATES = (44100, 48000, 96000)


def sine(hz: float, seconds: float, rate: int, level_db: float = 0.0) -> np.ndarray:
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hz / rate * np.arange(round(seconds * rate)))


@pytest.mark.parametrize("rate", RATES)
def test_loudness_of_the_tones_of_ebu_tech_3341(rate: int) -> None:
    assert loudness_lufs(sine(997.0, 3.0, rate)[None], rate) == pytest.approx(-3.01, abs=0.02)
    both = np.stack([sine(1000.0, 5.0, rate, -23.0)] * 2)
    assert loudness_lufs(both, rate) == pytest.approx(-23.0, abs=0.1)
    # Case 3: what is 13 LU quieter is gated away.
    levels = (-36.0, -23.0, -36.0)
    parts = np.concatenate([sine(1000.0, s, rate, level) for s, level in zip((5, 30, 5), levels, strict=True)])
    assert loudness_lufs(np.stack([parts] * 2), rate) == pytest.approx(-23.0, abs=0.1)


def test_the_weighting_is_the_one_printed_in_bs1770() -> None:
    z = np.exp(-2j * np.pi * (frequencies := np.linspace(0.001, 0.5, 50)))
    shelf = (1.53512485958697 - 2.69169618940638 * z + 1.19839281085285 * z**2) / (
        1 - 1.69065929318241 * z + 0.73248077421585 * z**2
    )
    high_pass = (1 - 2 * z + z**2) / (1 - 1.99004745483398 * z + 0.99007225036621 * z**2)
    assert np.allclose(k_weighting(frequencies, 48000), shelf * high_pass, rtol=1e-4)


def test_silence_and_scraps_have_a_loudness_too() -> None:
    assert loudness_lufs(np.zeros((1, 44100)), 44100) == -math.inf
    assert loudness_lufs(np.zeros((1, 0)), 44100) == -math.inf
    assert loudness_lufs(sine(997.0, 0.15, 44100)[None], 44100) == pytest.approx(-3.01, abs=0.3)


def test_clipping_is_told_from_a_loud_wave() -> None:
    rng = np.random.default_rng(0)
    loud = np.clip(rng.normal(0.0, 0.2, 44100), -1.0, 1.0)
    assert clipped_samples(loud[None]) == 0
    cut = np.stack([np.clip(2.0 * sine(220.0, 1.0, 44100), -0.8, 0.8), np.zeros(44100)])
    share = 1 - 2 / np.pi * math.asin(0.4)
    assert clipped_samples(cut) == pytest.approx(share * 44100, rel=0.02)
    assert clipped_samples(np.full((1, 1000), 0.01)) == 0


@pytest.mark.parametrize(("cut_hz", "rate"), [(8000, 44100), (11025, 48000), (16000, 48000), (16000, 44100)])
def test_upsampling_leaves_the_band_of_the_lower_rate(cut_hz: int, rate: int) -> None:
    low = np.random.default_rng(0).normal(0.0, 0.05, 6 * 2 * cut_hz).astype(np.float32)
    upsampled = soxr.resample(low, 2 * cut_hz, rate, quality="VHQ")
    in_16_bits = np.round(upsampled * 2**15) / 2**15
    for audio in (upsampled, in_16_bits):
        assert 0.88 * cut_hz < real_band(audio, rate) < 1.02 * cut_hz


def test_a_codec_cuts_the_band(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.05, 4 * 48000).astype(np.float32)
    (tmp_path / "a.opus").write_bytes(encode_audio(noise, 48000, ".opus"))
    audio, rate = read_audio(tmp_path / "a.opus")
    assert 19500 < real_band(audio[0], rate) < 21200


@pytest.mark.parametrize("level_db", [-10.0, -50.0])
def test_a_steep_formant_over_a_quiet_room_is_no_cut(level_db: float) -> None:
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.normal(size=5 * 48000))
    hz = np.fft.rfftfreq(5 * 48000, 1 / 48000)
    voice = np.fft.irfft(spectrum * np.where(hz < 4000, 1.0, 10 ** (-35 / 20)))
    audio = voice / np.abs(voice).max() * 10 ** (level_db / 20) + rng.normal(0.0, 1e-4, len(voice))
    assert real_band(audio, 48000) == pytest.approx(0.95 * 24000)


def test_a_scrap_has_the_whole_band() -> None:
    assert real_band(np.zeros(100), 44100) == pytest.approx(0.95 * 22050)


def speech_like(*parts: tuple[float, float]) -> np.ndarray:
    """Noise of given seconds and level in dB, one part after the other, at 100 frames a second of 80 samples."""
    rng = np.random.default_rng(0)
    return np.concatenate([10 ** (db / 20) * rng.normal(size=round(100 * s) * 80) for s, db in parts])


def test_silence_goes_at_the_ends_and_in_long_pauses_only() -> None:
    audio = speech_like((2.0, -90), (3.0, -20), (0.5, -90), (2.0, -25), (4.0, -90), (1.0, -20), (1.0, -95))
    levels = frame_levels(audio, 80)
    assert len(levels) == 1350
    assert stretches(levels, 100.0, trim=False, longest_s=60.0) == [(0, 1350)]
    assert stretches(levels, 100.0, trim=True, longest_s=60.0) == [(180, 770), (1130, 1270)]
    assert stretches(frame_levels(np.zeros(8000), 80), 100.0, trim=True, longest_s=60.0) == []


def test_long_stretches_are_cut_where_it_is_quiet_and_nothing_is_lost() -> None:
    parts = [(4.0, -20), (0.3, -60)] * 8
    levels = frame_levels(speech_like(*parts), 80)
    pieces = stretches(levels, 100.0, trim=False, longest_s=10.0)
    assert [pieces[0][0], pieces[-1][1]] == [0, len(levels)]
    assert all(one[1] == other[0] for one, other in pairwise(pieces))
    assert all(last - first <= 1000 for first, last in pieces)
    assert all(levels[cut] < -55 for _, cut in pieces[:-1])

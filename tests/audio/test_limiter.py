"""Peaks above full scale: lowered, without a click, and nothing else changed."""

import numpy as np
import pytest

from melisma.audio.limiter import REACH_S, Limiter, limited

RATE = 44100
REACH = round(REACH_S * RATE)


def tone(level: float, seconds: float = 0.5, hz: float = 110.0) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def burst(peak: float) -> np.ndarray:
    """A soft tone that is loud for a tenth of a second."""
    audio = tone(0.5)
    swell = np.zeros(len(audio))
    swell[8000:12410] = np.hanning(4410)
    return (audio * (1.0 + (peak / 0.5 - 1.0) * swell)).astype(np.float32)


def above(audio: np.ndarray, hz: float) -> float:
    """Power above a frequency, dB."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    return 10.0 * float(np.log10(power[int(hz * len(audio) / RATE) :].sum()))


@pytest.mark.parametrize("peak", [1.01, 2.0, 20.0])
def test_nothing_passes_full_scale_and_what_is_far_away_stays(peak: float) -> None:
    audio = burst(peak)
    made = limited(audio, RATE)
    assert made.shape == audio.shape
    assert np.abs(made).max() <= 1.0 + 2.0**-16
    assert np.abs(made).max() >= 0.97 if peak < 3 else True
    loud = np.flatnonzero(np.abs(audio) > 1.0)
    far = np.ones(len(audio), bool)
    far[loud[0] - 2 * REACH : loud[-1] + 2 * REACH + 1] = False
    np.testing.assert_array_equal(made[far], audio[far])


def test_what_fits_is_left_bit_by_bit() -> None:
    audio = np.stack([tone(1.0), tone(1.0 + 2.0**-17, hz=300.0)])
    np.testing.assert_array_equal(limited(audio, RATE), audio)


def test_no_click_is_heard_where_a_cut_is_heard() -> None:
    audio = burst(1.5)
    cut, made = np.clip(audio, -1.0, 1.0), limited(audio, RATE)
    assert above(cut, 4000.0) > above(audio, 4000.0) + 20.0
    assert above(made, 4000.0) < above(audio, 4000.0) + 3.0


def test_a_loud_low_note_keeps_its_shape() -> None:
    """Turned down as a whole: no harmonics of its own."""
    made = limited(tone(1.4, hz=55.0), RATE)[4 * REACH : -4 * REACH]
    scaled = tone(1.4, hz=55.0)[4 * REACH : -4 * REACH] / 1.4
    np.testing.assert_allclose(made, scaled, atol=2e-3)


@pytest.mark.parametrize("size", [1, 7, 500, 5000])
def test_blocks_are_the_whole(size: int) -> None:
    audio = np.stack([burst(1.7), tone(0.3)])[:, 6000:14000]
    limiter = Limiter(2, RATE)
    parts = [limiter.push(audio[:, start : start + size]) for start in range(0, audio.shape[1], size)]
    np.testing.assert_allclose(np.concatenate([*parts, limiter.finish()], axis=1), limited(audio, RATE), atol=1e-6)


def test_channels_share_the_gain() -> None:
    audio = np.stack([burst(2.0), 0.25 * burst(2.0)])
    made = limited(audio, RATE)
    np.testing.assert_allclose(made[1], 0.25 * made[0], atol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 10])
def test_short_clips(length: int) -> None:
    made = limited(np.full(length, 3.0, np.float32), RATE)
    np.testing.assert_allclose(made, np.ones(length), atol=1e-6)

"""DC, lines, harmonic-to-noise ratio, top level, jitter, shimmer, formants: on signals whose answer is known."""

import math

import numpy as np
import pytest

from melisma.audio.mel import OPENVPI_44K
from melisma.data.singer import Note, Voice, sing
from melisma.evaluation.artefacts import (
    HARMONIC_BANDS_HZ,
    LINE_FFT,
    dc_db,
    harmonic_to_noise_change_db,
    harmonic_to_noise_db,
    line_in_breath_db,
    strongest_line_db,
    top_level_change_db,
    windows_inside,
)
from melisma.evaluation.envelope import by_octave, envelope_distance
from melisma.evaluation.steadiness import held_notes, steadiness, steadiness_change

RATE, HOP = 44100, 512
TIME = np.arange(4 * RATE) / RATE


def noise(level: float, seed: int = 0, samples: int = len(TIME)) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(samples)


def every(samples: int, size: int = LINE_FFT) -> np.ndarray:
    return np.arange(0, samples - size + 1, size // 2)


@pytest.mark.parametrize(("offset", "level"), [(0.001, -60.0), (-0.1, -20.0), (0.0, -120.0)])
def test_dc(offset: float, level: float) -> None:
    assert dc_db(np.full(1000, offset)) == pytest.approx(level)


@pytest.mark.parametrize("hz", [440.0, 1003.7, 86.13 * 40, 15000.0])
@pytest.mark.parametrize("level_db", [-50.0, -85.0])
def test_a_line_in_silence_is_found_at_its_level(hz: float, level_db: float) -> None:
    line = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * TIME)
    found = strongest_line_db(line + noise(1e-6), every(len(TIME)))
    assert found == pytest.approx(level_db, abs=0.8)


def test_noise_dc_and_silence_are_no_lines() -> None:
    starts = every(len(TIME))
    for level in (0.0, 1e-6, 0.1):
        for seed in range(3):
            assert strongest_line_db(noise(level, seed) + 0.01, starts) == -120.0
    assert math.isnan(strongest_line_db(noise(0.1), starts[:3]))


def test_a_line_in_breath_stands_out_against_the_reference() -> None:
    starts = every(len(TIME), 2048)
    spectrum = np.fft.rfft(noise(0.05)) / (1 + np.fft.rfftfreq(len(TIME), 1 / RATE) / 500)
    breath = np.fft.irfft(spectrum, len(TIME))
    other = np.fft.irfft(np.fft.rfft(noise(0.05, 1)) / (1 + np.fft.rfftfreq(len(TIME), 1 / RATE) / 500), len(TIME))
    assert line_in_breath_db(breath, other, starts) == 0.0
    whistling = other + 5e-4 * np.sin(2 * np.pi * 8000 * TIME)
    louder = other + 3e-3 * np.sin(2 * np.pi * 8000 * TIME)
    found = line_in_breath_db(breath, whistling, starts), line_in_breath_db(breath, louder, starts)
    assert 3.0 < found[0] < found[1]
    # The same whistle in the reference is no fault.
    assert line_in_breath_db(breath + 3e-3 * np.sin(2 * np.pi * 8000 * TIME), louder, starts) == 0.0


def test_windows_lie_inside_the_mask() -> None:
    mask = np.zeros(100, dtype=bool)
    mask[10:30] = mask[50:53] = True
    starts = windows_inside(mask, HOP, 2048)
    assert starts[0] == 10 * HOP
    assert starts[-1] + 2048 <= 30 * HOP
    assert len(starts) == 9
    assert len(windows_inside(np.zeros(9, dtype=bool), HOP, 2048)) == 0


def harmonics(f0_hz: np.ndarray) -> np.ndarray:
    phase = 2 * np.pi * np.cumsum(f0_hz) / RATE
    return sum(np.cos(k * phase + k * k) for k in range(1, int(18000 / f0_hz.max())))


@pytest.mark.parametrize("ratio_db", [0.0, 10.0, 20.0])
@pytest.mark.parametrize("f0_hz", [110.0, 330.0])
@pytest.mark.parametrize("vibrato_cents", [0.0, 60.0])
def test_harmonic_to_noise_ratio_in_each_band(ratio_db: float, f0_hz: float, vibrato_cents: float) -> None:
    curve = f0_hz * 2 ** (vibrato_cents / 1200 * np.sin(2 * np.pi * 5.5 * TIME))
    voice = harmonics(curve)
    # Power per Hz of the harmonics is 1/2 over f0; that of white noise of variance v is v over half the rate.
    level = math.sqrt(0.5 / f0_hz * RATE / 2 * 10 ** (-ratio_db / 10))
    audio = voice + noise(level)
    frames = len(TIME) // HOP
    sampled = curve[HOP // 2 :: HOP][:frames] * 2 ** (4 / 1200)  # an estimate is some cents off
    for band in HARMONIC_BANDS_HZ:
        found = harmonic_to_noise_db(audio, RATE, HOP, sampled, band)[4:-4]
        assert np.nanmean(found) == pytest.approx(ratio_db, abs=1.0 if ratio_db < 20 else 3.5)


def test_the_ratio_is_judged_in_steady_voiced_frames_only() -> None:
    curve = np.full(len(TIME), 220.0)
    frames = np.full(len(TIME) // HOP, 220.0)
    frames[100:] = 0.0
    found = harmonic_to_noise_db(harmonics(curve), RATE, HOP, frames, HARMONIC_BANDS_HZ[0])
    assert np.isfinite(found[1:99]).all()
    assert np.isnan(found[99:]).all()
    high = np.full(len(frames), 1500.0)
    assert np.isnan(harmonic_to_noise_db(harmonics(curve), RATE, HOP, high, HARMONIC_BANDS_HZ[0])).all()
    change = harmonic_to_noise_change_db(noise(0.1), noise(0.1, 1), RATE, HOP, np.full(len(frames), 220.0))
    assert set(change) == {"hnr_5k_db", "hnr_7k_db", "hnr_10k_db", "hnr_13k_db"}
    assert max(map(abs, change.values())) < 1.0


def test_the_level_above_16_khz() -> None:
    reference = noise(0.1)
    spectrum, hz = np.fft.rfft(reference), np.fft.rfftfreq(len(TIME), 1 / RATE)
    tilted = np.fft.irfft(np.where(hz > 16000, np.where(hz > 20160, 2.0, 0.5), 1.0) * spectrum, len(TIME))
    change = top_level_change_db(reference, tilted, RATE, RATE / 2)
    assert change["above_16k_db"] == pytest.approx(-6.02, abs=0.1)
    assert change["above_20k_db"] == pytest.approx(6.02, abs=0.1)
    limited = top_level_change_db(reference, tilted, RATE, 16500.0)
    assert all(math.isnan(value) for value in limited.values())


def pulses(lengths: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Damped resonances, one a period, placed to a fraction of a sample."""
    at = np.cumsum(lengths)
    out = np.zeros(int(at[-1]) + 400)
    for place, level in zip(at, levels, strict=True):
        n = np.arange(math.ceil(place), math.ceil(place) + 300)
        t = (n - place) / RATE
        out[n] += level * np.exp(-600 * t) * np.sin(2 * np.pi * 700 * t)
    return out


@pytest.mark.parametrize("deviation", [0.0, 0.004, 0.01])
def test_jitter_of_periods_that_are_known(deviation: float) -> None:
    rng = np.random.default_rng(0)
    lengths = RATE / 150.0 * (1 + deviation * rng.standard_normal(450))
    expected = np.abs(np.diff(lengths)).mean() / lengths.mean()
    found = steadiness(pulses(lengths, np.ones(450)), RATE, 150.0)
    assert found.jitter == pytest.approx(expected, rel=0.12, abs=2e-4)
    # Neighbouring resonances overlap, so that a jittered note is not quite even in level.
    assert found.shimmer < 0.02


@pytest.mark.parametrize("deviation", [0.02, 0.08])
def test_shimmer_of_levels_that_are_known(deviation: float) -> None:
    levels = 1 + deviation * np.random.default_rng(0).standard_normal(450)
    expected = np.abs(np.diff(levels)).mean() / levels.mean()
    found = steadiness(pulses(np.full(450, RATE / 150.0), levels), RATE, 150.0)
    assert found.shimmer == pytest.approx(expected, rel=0.2)
    assert found.jitter < 0.002


def test_a_voice_with_more_jitter_has_more() -> None:
    found = []
    for jitter in (0.001, 0.004, 0.008):
        voice = Voice(jitter=jitter, shimmer=0.01, vibrato_cents=0.0, drift_cents=0.0, breath=0.0)
        found.append(steadiness(sing([Note(220.0, 2.0, "a")], RATE, voice=voice)[0], RATE, 220.0).jitter)
    assert found[0] < 0.5 * found[1]
    assert found[1] < 0.7 * found[2]
    assert math.isnan(steadiness(np.zeros(RATE), RATE, 220.0).jitter)


def test_notes_are_held_where_the_pitch_stays() -> None:
    f0_hz = np.array([0, 0, 200, 201, 199, 0, 220, 230, 300, 300, 300, 300, 0, 100], dtype=np.float32)
    assert held_notes(f0_hz, 2) == [(2, 5), (6, 8), (8, 12)]
    assert held_notes(f0_hz, 4) == [(8, 12)]
    assert held_notes(f0_hz[:6], 3) == [(2, 5)]
    assert held_notes(f0_hz[2:5], 3) == [(0, 3)]
    assert held_notes(np.zeros(9), 1) == held_notes(np.zeros(0), 1) == []


def test_a_copy_with_half_the_jitter_shows() -> None:
    plain = {"vibrato_cents": 0.0, "drift_cents": 0.0, "breath": 0.0}
    notes = [Note(220.0, 1.0, "a"), Note(330.0, 1.0, "e")]
    rough, even = (
        sing(notes, RATE, voice=Voice(jitter=jitter, shimmer=0.01, **plain), hop_length=HOP)
        for jitter in (0.006, 0.003)
    )
    own = steadiness_change(rough[0], rough[0], RATE, HOP, rough[1])
    assert own.jitter == own.shimmer == 1.0
    assert 0.4 < steadiness_change(rough[0], even[0], RATE, HOP, rough[1]).jitter < 0.7
    assert math.isnan(steadiness_change(rough[0], even[0], RATE, HOP, np.zeros(len(rough[1]))).jitter)
    silence = np.zeros_like(rough[0])
    assert math.isnan(steadiness_change(silence, silence, RATE, HOP, rough[1]).jitter)


def test_formants_that_stay_and_formants_that_move() -> None:
    steady = {"vibrato_cents": 0.0, "drift_cents": 0.0}

    def vowel(f0_hz: float, tract: float) -> tuple[np.ndarray, np.ndarray]:
        return sing([Note(f0_hz, 1.0, "a")], RATE, voice=Voice(tract=tract, **steady))  # type: ignore[arg-type]

    (low, f0_hz), (high, _), (child, _) = vowel(110.0, 1.0), vowel(165.0, 1.0), vowel(165.0, 1.3)
    voiced = f0_hz > 0
    kept = envelope_distance(low, high, OPENVPI_44K, voiced)
    moved = envelope_distance(low, child, OPENVPI_44K, voiced)
    assert envelope_distance(low, low, OPENVPI_44K, voiced) == 0.0
    assert envelope_distance(low, 3.0 * low, OPENVPI_44K, voiced) < 0.02  # a level is no formant
    assert kept < 0.35
    assert moved > 2 * kept
    assert math.isnan(envelope_distance(low, high, OPENVPI_44K, voiced & False))


def test_a_fault_in_one_octave_shows_there_only() -> None:
    low, high = (np.asarray(sing([Note(hz, 1.0, "a")], RATE)[0]) for hz in (150.0, 600.0))
    audio = np.concatenate([low, high])
    spoilt = np.concatenate([low, 0.5 * high])
    f0_hz = np.repeat([150.0, 600.0], len(audio) // HOP // 2 + 1)[: len(audio) // HOP]
    table = by_octave(audio, spoilt, OPENVPI_44K, f0_hz, f0_hz * np.where(f0_hz > 300, 2 ** (25 / 1200), 1.0))
    assert list(table) == ["110-220 Hz", "440-880 Hz"]
    assert table["110-220 Hz"]["log_mel"] < 0.05
    assert table["440-880 Hz"]["log_mel"] == pytest.approx(math.log(2), abs=0.05)
    assert table["440-880 Hz"]["f0_cents"] == pytest.approx(25.0)
    assert table["110-220 Hz"]["f0_cents"] == 0.0

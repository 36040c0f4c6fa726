"""Metrics: perfect for equal clips, worse the more noise there is, safe with silence and NaN."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from melisma.data.singer import Note, sing
from melisma.errors import MelismaError
from melisma.evaluation import metrics
from melisma.evaluation.metrics import (
    f0_agreement,
    log_mel_l1,
    mel_cepstral_distortion,
    multi_resolution_stft,
    periodicity,
    pesq_wideband,
    score,
)
from melisma.f0 import estimate_f0

RATE, HOP = 44100, 512


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    notes = [Note(220.0, 0.6, "a", onset="s"), Note(330.0, 0.6, "i"), Note(262.0, 0.6, "o", onset="h")]
    return np.asarray(sing(notes)[0], dtype=np.float32)


def noisy(audio: np.ndarray, level: float) -> np.ndarray:
    return audio + np.float32(level) * np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)


def test_equal_clips_are_perfect(song: np.ndarray) -> None:
    scores = score(song, song, RATE)
    assert scores.pesq > 4.6
    assert (scores.log_mel, scores.mr_stft, scores.mr_stft_16k, scores.mcd) == (0.0, 0.0, 0.0, 0.0)
    assert (scores.f0_cents, scores.vuv_f1, scores.periodicity) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "metric", [log_mel_l1, mel_cepstral_distortion, lambda a, b: multi_resolution_stft(a, b, RATE)]
)
def test_distances_grow_with_noise(song: np.ndarray, metric) -> None:
    distances = [metric(song, noisy(song, level)) for level in (1e-4, 1e-3, 1e-2, 1e-1)]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_pesq_falls_with_noise(song: np.ndarray) -> None:
    values = [pesq_wideband(song, noisy(song, level), RATE) for level in (1e-4, 1e-3, 1e-2, 1e-1)]
    assert values == sorted(values, reverse=True)


def test_a_gain_of_e_is_one_neper(song: np.ndarray) -> None:
    loud = noisy(song, 0.01)
    assert log_mel_l1(loud / math.e, loud) == pytest.approx(1.0, abs=0.01)
    assert mel_cepstral_distortion(loud / math.e, loud) == pytest.approx(
        0.0, abs=0.05
    )  # the zeroth cepstrum is left out


def test_mcd_of_a_known_tilt(monkeypatch: pytest.MonkeyPatch) -> None:
    # Log-mels that differ by d * cos(pi * (n + 1/2) / N) have one cepstrum of d: 10 / ln 10 * sqrt(2) * d decibels.
    tilt = 0.3 * np.cos(np.pi * (np.arange(128) + 0.5) / 128)
    mels = iter([np.zeros((1, 128, 3)), np.tile(tilt[None, :, None], (1, 1, 3))])
    monkeypatch.setattr(metrics, "log_mel", lambda clip, mel: torch.from_numpy(next(mels)).float())
    distortion = mel_cepstral_distortion(np.ones(9), np.ones(9))
    assert distortion == pytest.approx(10 / math.log(10) * math.sqrt(2) * 0.3, rel=1e-4)


def test_the_upper_limit_hides_what_lies_above(song: np.ndarray) -> None:
    time = np.arange(len(song)) / RATE
    whistling = song + np.float32(0.01) * np.sin(2 * np.pi * 19000 * time).astype(np.float32)
    assert multi_resolution_stft(song, whistling, RATE, 16000.0) < 0.1 * multi_resolution_stft(song, whistling, RATE)


@pytest.mark.parametrize("pair", ["both", "generated", "reference"])
def test_silence_gives_no_nan_where_a_number_exists(song: np.ndarray, pair: str) -> None:
    silence = np.zeros_like(song)
    reference, generated = {"both": (silence, silence), "generated": (song, silence), "reference": (silence, song)}[
        pair
    ]
    scores = score(reference, generated, RATE)
    assert math.isnan(scores.pesq)
    assert all(math.isfinite(getattr(scores, name)) for name in ("log_mel", "mr_stft", "mr_stft_16k", "mcd", "vuv_f1"))
    assert scores.vuv_f1 == (1.0 if pair == "both" else 0.0)


def test_nan_makes_every_metric_nan(song: np.ndarray) -> None:
    broken = song.copy()
    broken[100] = np.nan
    assert all(math.isnan(value) for value in dataclasses.asdict(score(song, broken, RATE)).values())


def test_another_rate_or_an_empty_clip_is_an_error(song: np.ndarray) -> None:
    with pytest.raises(MelismaError, match="resample"):
        score(song, song, 16000)
    with pytest.raises(MelismaError, match="empty"):
        score(song, song[:0], RATE)


def test_f0_agreement() -> None:
    wanted = np.array([0.0, 100.0, 200.0, 400.0, 0.0])
    found = np.array([0.0, 100.0, 200.0 * 2 ** (10 / 1200), 0.0, 50.0])
    cents, f1 = f0_agreement(wanted, found)
    assert cents == pytest.approx(5.0)
    assert f1 == pytest.approx(2 * 2 / 6)
    assert f0_agreement(np.zeros(3), np.zeros(3))[1] == 1.0


def test_periodicity_tells_a_voice_from_noise(song: np.ndarray) -> None:
    f0 = estimate_f0(song, RATE, HOP)
    voiced = f0 > 0
    assert np.median(periodicity(song, RATE, HOP, f0)[voiced]) > 0.9
    noise = np.random.default_rng(0).standard_normal(len(song))
    assert np.median(periodicity(noise, RATE, HOP, f0)[voiced]) < 0.4

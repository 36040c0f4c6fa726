"""F0 of made voices is what they were made with, at the right frame, whatever the level, length and padding."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from voices import vibrato, voice

from melisma.audio.mel import OPENVPI_44K
from melisma.errors import MelismaError
from melisma.f0 import ESTIMATORS, estimate_f0
from melisma.f0 import estimate as estimate_module
from melisma.f0.raw import RawF0, frame_times, read_at

RATE, HOP = 44100, 512
METHODS = list(ESTIMATORS)


def centres(samples: int) -> np.ndarray:
    return (np.arange(samples // HOP) + 0.5) * HOP


def cents(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    both = (found > 0) & (wanted > 0)
    return np.abs(1200 * np.log2(found[both] / wanted[both]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("base_hz", [65.0, 220.0, 1000.0])
def test_a_note_with_vibrato_is_followed_within_3_cents(method: str, base_hz: float) -> None:
    curve = vibrato(base_hz, 1.0, RATE)
    audio = voice(curve, RATE)
    found = estimate_f0(audio, RATE, HOP, method)
    wanted = curve[centres(len(audio)).astype(int)]
    inner = slice(8, -8)
    assert found.dtype == np.float32
    assert (found[inner] > 0).mean() > 0.95
    assert np.median(cents(found[inner], wanted[inner])) < 3.0


@pytest.mark.parametrize("base_hz", [55.0, 1600.0])
def test_the_default_reaches_the_ends_of_the_range(base_hz: float) -> None:
    curve = vibrato(base_hz, 1.0, RATE)
    found = estimate_f0(voice(curve, RATE), RATE, HOP)[8:-8]
    assert (found > 0).mean() > 0.9
    assert np.percentile(cents(found, np.full(len(found), base_hz)), 95) < 65.0  # the vibrato's own depth is 60


@pytest.mark.parametrize("base_hz", [80.0, 220.0, 700.0])
@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_a_clip_cut_out_of_a_note_is_voiced_to_its_ends(base_hz: float, seconds: float) -> None:
    curve = vibrato(base_hz, 2.0, RATE)
    audio, curve = (values[20000 : 20000 + round(seconds * RATE)] for values in (voice(curve, RATE), curve))
    found = estimate_f0(audio, RATE, HOP)
    assert (found > 0).all()
    assert cents(found, curve[centres(len(audio)).astype(int)]).max() < 30.0


@pytest.mark.parametrize("method", METHODS)
def test_a_leap_and_an_end_are_found_at_their_frames(method: str) -> None:
    leap, end = 60, 120
    at = np.arange(180 * HOP) // HOP
    curve = np.where(at < leap, 200.0, np.where(at < end, 300.0, 0.0))
    found = estimate_f0(voice(curve, RATE), RATE, HOP, method)
    first_high = int(np.argmax(found > 245.0))
    assert abs(first_high - leap) <= 1
    last_voiced = int(np.flatnonzero(found)[-1])
    # Harvest is known to go on into the silence behind a note.
    assert abs(last_voiced - (end - 1)) <= (6 if method == "harvest" else 1)


@pytest.mark.parametrize("tone_hz", [110.0, 440.0, 1000.0])
def test_a_pure_tone_is_voiced_within_5_cents(tone_hz: float) -> None:
    audio = 0.3 * np.sin(2 * np.pi * tone_hz * np.arange(RATE) / RATE)
    found = estimate_f0(audio, RATE, HOP)[8:-8]
    assert (found > 0).mean() > 0.95
    assert np.median(cents(found, np.full(len(found), tone_hz))) < 5.0


@pytest.mark.parametrize("method", METHODS)
def test_silence_and_noise_are_unvoiced(method: str) -> None:
    assert not estimate_f0(np.zeros(RATE), RATE, HOP, method).any()
    noise = 0.1 * np.random.default_rng(1).standard_normal(RATE)
    assert (estimate_f0(noise, RATE, HOP, method) > 0).mean() < (0.6 if method == "harvest" else 0.1)


def test_the_level_does_not_matter() -> None:
    audio = voice(vibrato(220.0, 0.6, RATE), RATE)
    loud, quiet = estimate_f0(audio, RATE, HOP), estimate_f0(audio * 1e-3, RATE, HOP)
    assert ((loud > 0) == (quiet > 0)).mean() > 0.95
    assert np.median(cents(loud, quiet)) < 0.5


@pytest.mark.parametrize("samples", [1, 100, 511, 512, 513, 1024, 7000])
@pytest.mark.parametrize("method", METHODS)
def test_as_many_frames_as_the_mel(samples: int, method: str) -> None:
    audio = 0.1 * np.sin(0.03 * np.arange(samples))
    assert len(estimate_f0(audio, RATE, HOP, method)) == OPENVPI_44K.frames(samples)
    assert len(estimate_f0(audio, RATE, HOP, method, padding="centre")) == samples // HOP + 1


@pytest.mark.parametrize("rate", [8000, 16000, 48000, 96000])
def test_any_sample_rate(rate: int) -> None:
    found = estimate_f0(voice(vibrato(180.0, 0.6, rate, cents=0.0), rate), rate, rate // 100)[10:-10]
    assert (found > 0).all()
    assert np.median(cents(found, np.full(len(found), 180.0))) < 3.0


def test_blocks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = np.concatenate([voice(vibrato(hz, 0.7, RATE), RATE, vowel) for hz in (90, 210, 520) for vowel in "ai"])
    whole = estimate_f0(audio, RATE, HOP)
    monkeypatch.setattr(estimate_module, "BLOCK_SECONDS", 1)
    pieces = estimate_f0(audio, RATE, HOP)
    assert ((whole > 0) == (pieces > 0)).all()
    assert cents(whole, pieces).max() < 1.0


def test_blocks_answer_for_every_sample_once() -> None:
    for samples in (1, RATE, 31 * RATE, 100 * RATE, 3601 * RATE + 7):
        answers = [
            (first, last) for _, _, first, last in estimate_module.blocks(samples, RATE, ESTIMATORS["dio"].step_s)
        ]
        assert answers[0][0] == 0
        assert answers[-1][1] == samples
        assert all(before[1] == after[0] for before, after in itertools.pairwise(answers))


def test_reading_between_points() -> None:
    raw = RawF0(np.arange(5) * 0.01, np.array([100.0, 200.0, 0.0, 300.0, 330.0]))
    read = read_at(raw, np.array([0.002, 0.009, 0.013, 0.017, 0.027, 0.035, 0.9]))
    assert read[:5].tolist() == pytest.approx([100.0, 200.0, 200.0, 0.0, 300.0])  # an octave's leap is not a glide
    assert read[5] == pytest.approx(np.sqrt(300.0 * 330.0))
    assert read[6] == pytest.approx(330.0)


def test_frame_times_are_centres() -> None:
    assert frame_times(4 * HOP, RATE, HOP)[1] == pytest.approx(1.5 * HOP / RATE)
    assert frame_times(4 * HOP, RATE, HOP, "centre")[1] == pytest.approx(HOP / RATE)


def test_torch_audio_is_read() -> None:
    audio = torch.from_numpy(voice(vibrato(220.0, 0.3, RATE), RATE))
    assert np.array_equal(estimate_f0(audio, RATE, HOP), estimate_f0(audio.numpy(), RATE, HOP))


@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        (np.zeros((2, 100)), {}, "one channel"),
        (np.zeros(0), {}, "one channel"),
        (np.array([0.0, np.nan]), {}, "NaN"),
        (np.ones(1000), {"method": "swift"}, "swift-f0"),
        (np.ones(1000), {"fmin": 500.0, "fmax": 400.0}, "widen"),
        (np.ones(1000), {"padding": "left"}, "padding"),
    ],
)
def test_bad_input_is_one_clear_error(audio: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(MelismaError, match=message):
        estimate_f0(audio, RATE, HOP, **options)


def test_every_file_of_the_package_is_in_the_table() -> None:
    files = {path.stem for path in Path(estimate_module.__file__).parent.glob("*.py")}
    assert files - {"__init__", "raw", "refine", "estimate"} == {"swift", "harvest", "dio"}

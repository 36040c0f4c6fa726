"""Formants moved on a log-mel, alone and through a vocoder."""

import numpy as np
import pytest
import torch

from melisma.audio.mel import OPENVPI_44K, MelContract, log_mel
from melisma.data.singer import Note, Voice, sing
from melisma.editing.formants import warp_formants
from melisma.errors import MelismaError
from melisma.f0 import estimate_f0
from melisma.generators.analytic import analytic
from melisma.inference.vocoder import Info, Vocoder

MEL = MelContract(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, fmin=40.0, fmax=8000.0)
STEADY = {"vibrato_cents": 0.0, "drift_cents": 0.0, "jitter": 0.0, "shimmer": 0.0}


def vowel(f0_hz: float, tract: float) -> tuple[torch.Tensor, np.ndarray]:
    audio, curve = sing([Note(f0_hz, 0.5, "a")], seed=0, voice=Voice(tract=tract, **STEADY))
    return log_mel(audio, OPENVPI_44K)[0, :, : len(curve)], curve


@pytest.mark.parametrize(("f0_hz", "tract"), [(120.0, 1.2), (220.0, 1.2), (330.0, 0.85)])
def test_a_warped_vowel_is_nearer_to_that_of_another_tract(f0_hz: float, tract: float) -> None:
    mine, curve = vowel(f0_hz, 1.0)
    other, _ = vowel(f0_hz, tract)
    warped = warp_formants(mine, OPENVPI_44K, 12 * np.log2(tract), curve)
    middle = slice(10, -10)

    def distance(values: torch.Tensor) -> float:
        gap = (values - other)[20:110, middle].mean(dim=1)
        return float((gap - gap.mean()).abs().mean())

    assert distance(warped) < 0.65 * distance(mine)


def test_unvoiced_frames_and_no_shift_change_nothing() -> None:
    mel = torch.randn(2, 128, 40) - 5
    f0_hz = np.r_[np.zeros(15), np.full(25, 200.0)]
    assert torch.equal(warp_formants(mel, OPENVPI_44K, 0.0, f0_hz), mel)
    warped = warp_formants(mel, OPENVPI_44K, 5.0, f0_hz)
    assert torch.equal(warped[..., :15], mel[..., :15])
    assert not torch.allclose(warped[..., 20:], mel[..., 20:])
    assert warped.dtype == mel.dtype


def test_silence_stays_silent() -> None:
    silence = torch.full((128, 20), float(np.log(1e-5)))
    assert torch.allclose(warp_formants(silence, OPENVPI_44K, 7.0, np.full(20, 200.0)), silence)


def test_pieces_equal_the_whole() -> None:
    mel, f0_hz = torch.randn(128, 60) - 5, np.r_[np.full(25, 180.0), np.zeros(10), np.full(25, 240.0)]
    whole = warp_formants(mel, OPENVPI_44K, -4.0, f0_hz)
    pieces = [warp_formants(mel[:, at : at + 7], OPENVPI_44K, -4.0, f0_hz, at) for at in range(0, 60, 7)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)


@pytest.mark.parametrize(("semitones", "frames"), [(13.0, 40), (float("nan"), 40), (2.0, 39)])
def test_too_far_and_too_short_are_errors(semitones: float, frames: int) -> None:
    with pytest.raises(MelismaError):
        warp_formants(torch.zeros(128, 40), OPENVPI_44K, semitones, np.full(frames, 200.0))


def test_a_recording_keeps_its_pitch_when_its_formants_move() -> None:
    vocoder = Vocoder(analytic(MEL), Info("analytic", "analytic"))
    audio, f0_hz = sing([Note(220.0, 0.5, "a"), Note(261.6, 0.5, "o", "s")], 16000, 1, hop_length=128)
    moved = vocoder.resynthesize(audio, 16000, f0_hz=f0_hz, formant_semitones=4.0)
    same = vocoder.resynthesize(audio, 16000, f0_hz=f0_hz)
    found = estimate_f0(moved, 16000, 128)[: len(f0_hz)]
    both = (found > 0) & (f0_hz > 0)
    assert np.median(np.abs(1200 * np.log2(found[both] / f0_hz[both]))) < 10
    spread = (log_mel(moved, MEL) - log_mel(same, MEL)).abs()[0, :, : len(f0_hz)].mean(dim=0).numpy()
    assert spread[f0_hz > 0].mean() > 0.3


def test_a_target_curve_is_sung() -> None:
    vocoder = Vocoder(analytic(MEL), Info("analytic", "analytic"))
    audio, f0_hz = sing([Note(220.0, 1.0, "a")], 16000, 1, hop_length=128)
    target = f0_hz * 2 ** (3 / 12)
    made = vocoder.resynthesize(audio, 16000, f0_hz=f0_hz, target_f0_hz=target)
    np.testing.assert_array_equal(made, vocoder.resynthesize(audio, 16000, f0_hz=f0_hz, target_f0_hz=lambda f0: target))
    shifted = vocoder.resynthesize(audio, 16000, f0_hz=f0_hz, shift_semitones=3.0)
    np.testing.assert_allclose(made, shifted, atol=2e-3)  # the shift rounds otherwise
    with pytest.raises(MelismaError, match="frames"):
        vocoder.resynthesize(audio, 16000, f0_hz=f0_hz, target_f0_hz=target[:-9])

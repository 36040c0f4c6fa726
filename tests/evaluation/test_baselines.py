"""WORLD and Griffin-Lim give back what they were given, recognisably."""

import numpy as np
import pytest

from melisma.audio.mel import OPENVPI_44K, MelContract, log_mel
from melisma.data.singer import Note, sing
from melisma.errors import MelismaError
from melisma.evaluation.baselines import griffin_lim, world_copy
from melisma.evaluation.metrics import f0_agreement, log_mel_l1
from melisma.f0 import estimate_f0

RATE, HOP = 44100, 512


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return np.asarray(sing([Note(220.0, 0.5, "a"), Note(330.0, 0.5, "i")])[0], dtype=np.float32)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_world_sings_the_pitch_asked_for(song: np.ndarray, scale: float) -> None:
    made = world_copy(song, RATE, f0_scale=scale)
    assert made.shape == song.shape
    assert made.dtype == np.float32
    cents, f1 = f0_agreement(estimate_f0(song, RATE, HOP) * scale, estimate_f0(made, RATE, HOP))
    assert cents < 10.0
    assert f1 > 0.9


def test_world_of_silence_is_silent() -> None:
    assert np.abs(world_copy(np.zeros(RATE // 2), RATE)).max() < 1e-4


def test_griffin_lim_comes_near_the_mel(song: np.ndarray) -> None:
    features = log_mel(song, OPENVPI_44K)[0].numpy()
    made = griffin_lim(features, OPENVPI_44K)
    assert len(made) == features.shape[1] * HOP
    assert log_mel_l1(song, made) < 0.3
    assert log_mel_l1(song, made) < 0.5 * log_mel_l1(song, griffin_lim(features, OPENVPI_44K, rounds=0))


def test_griffin_lim_of_silence_is_silent() -> None:
    features = np.full((128, 20), np.log(1e-5), dtype=np.float32)
    assert np.abs(griffin_lim(features, OPENVPI_44K)).max() < 1e-3


def test_griffin_lim_refuses_a_centred_mel() -> None:
    mel = MelContract(24000, 1024, 1024, 256, 100, 0.0, None, padding="centre")
    with pytest.raises(MelismaError, match="Griffin-Lim"):
        griffin_lim(np.zeros((100, 4)), mel)

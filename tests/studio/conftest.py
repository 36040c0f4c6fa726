"""A short song of the built-in singer, and the model without weights."""

import numpy as np
import pytest

import melisma
from melisma.data.singer import Note, Voice, sing
from melisma.inference.vocoder import Vocoder
from melisma.studio.clip import Clip

RATE = 44100
SONG = (
    Note(220.0, 0.4, "a", "m"),
    Note(246.9, 0.4, "o"),
    Note(0.0, 0.25, "a"),
    Note(261.6, 0.45, "a", "s"),
    Note(0.0, 0.25, "a"),
    Note(220.0, 0.5, "o", "t"),
)


@pytest.fixture(scope="session")
def song() -> np.ndarray:
    """``(1, samples)``."""
    audio, _ = sing(SONG, RATE, seed=1, voice=Voice(tract=1.1, vibrato_cents=30.0))
    return np.asarray(audio, dtype=np.float32)[None]


@pytest.fixture(scope="session")
def analytic() -> Vocoder:
    return melisma.load("analytic", device="cpu")


@pytest.fixture(scope="session")
def clip(song: np.ndarray, analytic: Vocoder) -> Clip:
    return Clip(song, RATE, analytic)

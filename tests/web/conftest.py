"""Fixtures: a running service with small models, and a clip."""

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pytest
from web_service import Clip, Running, running

from melisma.audio.io import encode_audio
from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.data.singer import Note, sing
from melisma.web import Settings


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A service under test limits; leave it as it is."""
    with running(Settings(models={"analytic": "analytic"}, workers=2, most_seconds=30.0, decode_seconds=20.0)) as one:
        yield one


@pytest.fixture
def serve() -> Callable[..., AbstractContextManager[Running]]:
    """Start a service with settings of one's own."""

    def start(**settings: object) -> AbstractContextManager[Running]:
        return running(Settings(**{"models": {"analytic": "analytic"}, "workers": 1} | settings))  # type: ignore[arg-type]

    return start


@pytest.fixture(scope="session")
def clip() -> Clip:
    audio, f0_hz = sing([Note(220.0, 0.6, "a"), Note(330.0, 0.6, "i", "s")], seed=1)
    mel = log_mel(audio, OPENVPI_44K)[0].numpy()
    f0_hz = np.pad(f0_hz, (0, mel.shape[1] - len(f0_hz)))
    packed = io.BytesIO()
    np.savez_compressed(packed, mel=mel, f0=f0_hz)
    return Clip(audio, f0_hz, encode_audio(audio, 44100, ".wav"), packed.getvalue())

"""The store: sessions are analysed and sung behind, and their number and size stay bounded."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from melisma.editing import Edits, Transpose
from melisma.errors import MelismaError
from melisma.inference.vocoder import Vocoder
from melisma.studio.store import FullError, Limits, NotFoundError, Session, Store


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


@pytest.fixture
def store(analytic: Vocoder) -> Iterator[Store]:
    store = Store(lambda name: analytic, Limits(sessions=2, seconds=5.0, total_seconds=8.0, grace_seconds=60.0))
    yield store
    store.stop()


def opened(store: Store, song: np.ndarray) -> Session:
    session = store.open(song, 44100, "song", "analytic")
    until(lambda: session.result is not None or session.error is not None)
    return session


def test_edits_are_sung_behind(store: Store, song: np.ndarray) -> None:
    session = opened(store, song)
    store.edit(session, Edits((Transpose(1.0),)), 0.0, False)
    until(lambda: not session.ready.busy)
    assert not np.array_equal(session.ready.audio, session.ready.clip.audio)
    store.compare(session, ("analytic", "analytic"))
    until(lambda: session.comparison is not None and not session.comparison.busy)
    assert session.comparison is not None
    assert session.comparison.audio(0).shape == song.shape
    assert session.comparison.download().startswith(b"PK")


def test_the_number_of_sessions_is_bounded(store: Store, song: np.ndarray) -> None:
    first, second = opened(store, song), opened(store, song)
    with pytest.raises(FullError, match="full"):
        store.open(song, 44100, "third", "analytic")
    second.touched -= 100.0  # nobody asked for it for a while
    opened(store, song)
    assert store.get(first.id) is first
    with pytest.raises(NotFoundError, match="closed"):
        store.get(second.id)


def test_the_size_of_recordings_is_bounded(store: Store) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 44100 * 5)).astype(np.float32) * 0.01
    with pytest.raises(MelismaError, match="takes 5 s"):
        store.open(np.zeros((1, 44100 * 6), dtype=np.float32), 44100, "long", "analytic")
    with pytest.raises(FullError, match="full"):
        store.open(noise, 44100, "wide", "analytic")
    with pytest.raises(MelismaError, match="channels"):
        store.open(noise[:, :1000].repeat(2, axis=0), 44100, "four", "analytic")


def test_a_closed_session_is_gone(store: Store, song: np.ndarray) -> None:
    session = opened(store, song)
    store.close(session.id)
    with pytest.raises(NotFoundError):
        store.get(session.id)


def test_nobody_asks_and_it_is_forgotten(store: Store, song: np.ndarray) -> None:
    old, young = opened(store, song), opened(store, song)
    old.touched -= store.limits.idle_seconds + 1.0
    store.edit(young, Edits((Transpose(1.0),)), 0.0, False)  # any work is an occasion to look
    until(lambda: old.closed)
    with pytest.raises(NotFoundError):
        store.get(old.id)


def test_a_recording_that_cannot_be_sung_says_why(song: np.ndarray) -> None:
    def load(name: str) -> Vocoder:
        raise MelismaError("no such model; choose another")

    store = Store(load)
    session = opened(store, song)
    with pytest.raises(MelismaError, match="no such model"):
        _ = session.ready
    store.stop()

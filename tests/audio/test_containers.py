"""m4a and webm through PyAV: the samples, their place, and what is said where they cannot be read."""

import io
from pathlib import Path

import numpy as np
import pytest

from melisma.audio import containers
from melisma.audio.io import AudioReader, duration_seconds, read_audio
from melisma.data.singer import Note, sing
from melisma.errors import MelismaError

av = pytest.importorskip("av")
RATE = 48_000


def encoded(audio: np.ndarray, container: str, codec: str) -> bytes:
    """``(channels, samples)`` in a container."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono" if len(audio) == 1 else "stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.pts = RATE, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    audio, _ = sing([Note(220.0, 0.5, "a"), Note(330.0, 0.5, "i", "s")], RATE, seed=2)
    return np.stack([audio, 0.5 * audio])


@pytest.mark.parametrize(
    ("suffix", "container", "codec"),
    [(".m4a", "ipod", "aac"), (".mp4", "mp4", "aac"), (".webm", "webm", "libopus"), (".aac", "adts", "aac")],
)
def test_the_samples_are_where_they_were(
    voice: np.ndarray, tmp_path: Path, suffix: str, container: str, codec: str
) -> None:
    path = tmp_path / f"voice{suffix}"
    path.write_bytes(encoded(voice, container, codec))
    made, rate = read_audio(path)
    assert (rate, len(made)) == (RATE, 2)
    assert abs(made.shape[1] - voice.shape[1]) <= 2 * 1152
    lags = range(-1500, 1501)
    middle = slice(8000, 30000)
    match = [float(voice[0, middle] @ made[0, middle.start + lag : middle.stop + lag]) for lag in lags]
    late = lags[int(np.argmax(match))]
    assert late == (1024 if suffix == ".aac" else 0)  # bare AAC has no place for the codec's delay
    if late == 0:
        residue = made[0, middle] - voice[0, middle]
        assert np.sqrt(np.mean(residue**2) / np.mean(voice[0, middle] ** 2)) < 0.2


def test_reading_in_pieces_equals_reading_the_whole(voice: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "voice.m4a"
    path.write_bytes(encoded(voice, "ipod", "aac"))
    whole, _ = read_audio(path)
    with AudioReader(path) as reader:
        for start in (20_000, 3_000, 40_000, 0):
            np.testing.assert_array_equal(reader.read(start, 5_000), whole[:, start : start + 5_000])
    seconds = duration_seconds(path)
    assert seconds is not None
    assert seconds == pytest.approx(1.0, abs=0.05)


def test_a_truncated_one_is_an_error(voice: np.ndarray, tmp_path: Path) -> None:
    content = encoded(voice, "ipod", "aac")
    for share in (0.01, 0.3, 0.9):
        path = tmp_path / "cut.m4a"
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(MelismaError, match=r"truncated|not an audio file"):
            read_audio(path)


def test_without_the_package_the_line_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "voice.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(MelismaError, match="not an audio file"):
        read_audio(path)
    monkeypatch.setattr(containers, "find_spec", lambda name: None)
    with pytest.raises(MelismaError, match=r"needs PyAV: pip install 'melisma\[m4a\]'"):
        read_audio(path)

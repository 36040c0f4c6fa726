"""Files of the studio: a session that opens again, exports that others read, and files that are no sessions."""

import io
import json
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from melisma.editing import Edits, Transpose, read_midi
from melisma.errors import MelismaError
from melisma.studio.clip import Clip
from melisma.studio.files import EXPORTS, open_session, save_session
from melisma.studio.result import Result

EDITS = Edits((Transpose(2.0),), formant_semitones=1.0)


@pytest.fixture(scope="module")
def result(clip: Clip) -> Result:
    result = Result(clip)
    result.set_edits(EDITS)
    while result.work():
        pass
    return result


def test_a_session_opens_again(result: Result) -> None:
    saved = open_session(save_session("voice.wav", "analytic", result), 1 << 26)
    assert (saved.name, saved.model, saved.edits, saved.everything) == ("voice.wav", "analytic", EDITS, False)
    np.testing.assert_allclose(saved.f0_hz[0], result.clip.f0_hz, atol=1e-3)
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(saved.recording), dtype="float32", always_2d=True)
    assert rate == result.clip.native_rate
    np.testing.assert_allclose(samples.T, result.clip.native, atol=2.0**-23)


def rewritten(content: bytes, change: Callable[[dict], None]) -> bytes:
    """The session with another session.json."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            text = old.read(entry)
            if entry.filename == "session.json":
                told = json.loads(text)
                change(told)
                text = json.dumps(told).encode()
            new.writestr(entry.filename, text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.update(version=2), "version"),
        (lambda told: told.update(format="other"), "format"),
        (lambda told: told.update(more=1), "more"),
        (lambda told: told.update(f0_hz=[-5.0]), "no voice has"),
        (lambda told: told.update(f0_hz=[]), "no voice has"),
        (lambda told: told.update(edits={"steps": [{"kind": "explode"}]}), "edits"),
    ],
)
def test_wrong_sessions_are_refused(result: Result, change: Callable[[dict], None], words: str) -> None:
    with pytest.raises(MelismaError, match=words):
        open_session(rewritten(save_session("a", "analytic", result), change), 1 << 26)


def packed(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 broken",
        packed({}),
        packed({"session.json": b"{}", "../../etc/passwd": b"x"}),
        packed({"session.json": b"{}", "recording.flac": b"x", "more": b""}),
        packed({"session.json": b"\xff", "recording.flac": b"x"}),
    ],
)
def test_other_zips_are_refused(content: bytes) -> None:
    with pytest.raises(MelismaError, match="not a session file"):
        open_session(content, 1 << 20)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = packed({"session.json": b"{}", "recording.flac": bytes(1 << 24)})
    assert len(bomb) < 1 << 16
    with pytest.raises(MelismaError, match="larger than 1 MB"):
        open_session(bomb, 1 << 20)


def test_exports(result: Result) -> None:
    made = {kind: make(result) for kind, (_, _, make) in EXPORTS.items()}
    assert made["wav"].startswith(b"RIFF")
    assert made["flac"].startswith(b"fLaC")
    assert [round(note.pitch) for note in read_midi(made["midi"])] == [59, 61, 62, 59]
    rows = [line.split(",") for line in made["csv"].decode().splitlines()[1:]]
    np.testing.assert_allclose([float(hz) for _, hz in rows], result.f0_hz, atol=1e-3)

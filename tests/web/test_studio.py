"""The studio over HTTP: a session from upload to export, and everything that is refused."""

import io
import json
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web_service import Clip, Running, decoded

from melisma.editing import MelodyNote, read_midi, write_midi

API = "/studio/api"
MOVE = {"steps": [{"kind": "move", "start_s": 0.72, "stop_s": 1.2, "semitones": 2}]}


def settled(server: Running, told: dict[str, Any]) -> dict[str, Any]:
    """Wait until a session is analysed and sung."""
    deadline = time.monotonic() + 30
    while True:
        told = server.client.get(f"{API}/sessions/{told['id']}").json()
        if told["error"] or (told.get("frames") and not told["busy"]):
            return told
        assert time.monotonic() < deadline
        time.sleep(0.02)


def opened(server: Running, content: bytes, name: str = "voice.wav") -> dict[str, Any]:
    answer = server.client.post(f"{API}/sessions", params={"name": name}, content=content)
    assert answer.status_code == 200, answer.text
    return settled(server, answer.json())


@pytest.fixture
def session(server: Running, clip: Clip) -> Any:
    told = opened(server, clip.wav)
    yield told
    server.client.delete(f"{API}/sessions/{told['id']}")


def test_open_edit_hear_export_and_open_again(
    server: Running, session: dict[str, Any], clip: Clip, tmp_path: Path
) -> None:
    at = f"{API}/sessions/{session['id']}"
    assert [round(note["pitch"]) for note in session["notes"]] == [57, 64]
    edited = server.client.put(f"{at}/edits", params={"focus_s": 0.7}, json=MOVE).json()
    assert edited["notes"][1]["sung_pitch"] == pytest.approx(66, abs=0.2)
    news = {"busy": True, "seen": 0}
    while news["busy"]:
        query = {"generation": session["generation"], "seen": news["seen"], "wait_s": 5}
        news = server.client.get(f"{at}/news", params=query).json()
    hop = session["hop_length"]
    original, result = (
        np.frombuffer(server.client.get(f"{at}/audio", params={"which": which}).content, "<i2")
        for which in ("original", "result")
    )
    assert original.size == result.size == session["frames"] * hop
    first, last = edited["spans"][0][0] * hop, edited["spans"][-1][1] * hop
    np.testing.assert_array_equal(original[:first], result[:first])
    np.testing.assert_array_equal(original[last:], result[last:])
    assert np.abs(original[first:last].astype(int) - result[first:last]).max() > 500
    assert 0.5 < server.client.get(f"{at}/gain").json()["gain"] < 2.0
    recorded, sung = np.frombuffer(server.client.get(f"{at}/curve").content, "<f4").reshape(2, -1)
    assert 12 * np.log2(np.median(sung[70:95] / recorded[70:95])) == pytest.approx(2.0, abs=0.05)
    picture = server.client.get(f"{at}/picture").content
    assert len(picture) == session["frames"] * session["bands"]
    wav, rate = decoded(server.client.get(f"{at}/export/wav").content, tmp_path)
    assert (rate, wav.shape[1]) == (44100, len(clip.audio))
    assert [round(note.pitch) for note in read_midi(server.client.get(f"{at}/export/midi").content)] == [57, 66]
    assert b"seconds,f0_hz" in server.client.get(f"{at}/export/csv").content
    saved = server.client.get(f"{at}/export/session")
    assert 'filename="voice.melisma.zip"' in saved.headers["content-disposition"]
    again = opened(server, saved.content)
    assert (again["name"], again["edits"]["steps"]) == ("voice.wav", MOVE["steps"])
    assert again["notes"] == settled(server, session)["notes"]
    server.client.delete(f"{API}/sessions/{again['id']}")


def test_an_edit_sings_the_note_and_not_the_song(server: Running, session: dict[str, Any]) -> None:
    edited = server.client.put(f"{API}/sessions/{session['id']}/edits", json=MOVE).json()
    assert sum(last - first for first, last in edited["spans"]) < 0.7 * session["frames"]


def test_midi_becomes_a_melody_to_follow(server: Running, session: dict[str, Any]) -> None:
    at = f"{API}/sessions/{session['id']}"
    midi = write_midi((MelodyNote(0.0, 0.6, 60.0), MelodyNote(0.65, 1.2, 62.0)))
    melody = server.client.post(f"{at}/midi", content=midi).json()["melody"]
    edited = server.client.put(f"{at}/edits", json={"steps": [{"kind": "follow", "melody": melody}]}).json()
    assert [round(note["sung_pitch"]) for note in edited["notes"]] == [60, 62]
    assert server.client.post(f"{at}/midi", content=b"no midi").status_code == 400


def test_two_models_are_compared(server: Running, session: dict[str, Any]) -> None:
    at = f"{API}/sessions/{session['id']}"
    assert server.client.get(f"{at}/compare").status_code == 404
    told = server.client.post(f"{at}/compare", json={"models": ["analytic", "analytic"]}).json()
    while told["busy"]:
        time.sleep(0.02)
        told = server.client.get(f"{at}/compare").json()
    assert server.client.get(f"{at}/compare/a").content.startswith(b"RIFF")
    with zipfile.ZipFile(io.BytesIO(server.client.get(f"{at}/compare/zip").content)) as archive:
        assert set(archive.namelist()) == {
            "recording.wav", "a.wav", "b.wav", "spectrograms.png", "comparison.json",
        }  # fmt: skip
        assert json.loads(archive.read("comparison.json"))["models"] == {"a": "analytic", "b": "analytic"}
    assert server.client.post(f"{at}/model", json={"model": "analytic"}).json()["model"] == "analytic"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/sessions", b"not audio", 400, "not an audio file"),
        ("POST", "/sessions", b"", 400, "empty"),
        ("POST", "/sessions", b"PK\x03\x04zip", 400, "not a session file"),
        ("POST", "/sessions?model=../../etc/passwd", b"x", 400, "no model"),
        ("GET", "/sessions/nobody", None, 404, "closed"),
        ("PUT", "/sessions/{id}/edits", b"{", 400, "edits"),
        ("PUT", "/sessions/{id}/edits", b'{"steps": [{"kind": "snap", "scale": "H:maj"}]}', 400, "scale"),
        ("PUT", "/sessions/{id}/edits", b'{"speed": NaN}', 400, "edits"),
        ("PUT", "/sessions/{id}/edits?focus_s=nan", b"{}", 400, "focus_s"),
        ("POST", "/sessions/{id}/model", b'{"model": "/etc/passwd"}', 400, "no model"),
        ("GET", "/sessions/{id}/export/exe", None, 400, "no export"),
        ("GET", "/sessions/{id}/compare/c", None, 404, ""),
        ("GET", "/sessions/{id}/news?wait_s=1000", None, 400, "wait_s"),
        ("GET", "/sessions/{id}/audio?which=passwd", None, 400, "which"),
    ],
)
def test_what_is_refused(
    server: Running, session: dict[str, Any], method: str, path: str, body: bytes | None, status: int, words: str
) -> None:
    headers = {"content-type": "application/json"} if body and body.startswith(b"{") else {}
    address = API + path.replace("{id}", session["id"])
    answer = server.client.request(method, address, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_closed_session_is_gone(server: Running, clip: Clip) -> None:
    told = opened(server, clip.wav)
    assert server.client.delete(f"{API}/sessions/{told['id']}").status_code == 204
    assert server.client.get(f"{API}/sessions/{told['id']}").status_code == 404


def test_too_many_sessions_are_told_to_come_back(
    serve: Callable[..., AbstractContextManager[Running]], clip: Clip
) -> None:
    with serve() as server:
        for _ in range(8):
            server.client.post(f"{API}/sessions", content=clip.wav)
        answer = server.client.post(f"{API}/sessions", content=clip.wav)
        assert answer.status_code == 429
        assert "full" in answer.json()["error"]
        assert answer.headers["retry-after"]

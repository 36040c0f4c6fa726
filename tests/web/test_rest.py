"""What the routes answer: the library's own results, and one line for what cannot be done."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from web_service import Clip, Running, decoded

import melisma
from melisma.editing import MelodyNote, write_midi
from melisma.f0 import estimate_f0


def test_a_recording_comes_back_as_the_library_sings_it(server: Running, clip: Clip, tmp_path: Path) -> None:
    edits = {"steps": [{"kind": "transpose", "semitones": 3}], "formant_semitones": 2, "speed": 0.8}
    answer = server.client.post(
        "/v1/resynth", files={"audio": clip.wav}, data={"edits": json.dumps(edits), "seed": "5"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/wav"
    made, rate = decoded(answer.content, tmp_path)
    sent, _ = decoded(clip.wav, tmp_path)
    expected = melisma.load("analytic").resynthesize(
        sent, rate, shift_semitones=3, formant_semitones=2, speed=0.8, seed=5
    )
    assert np.abs(made - expected).max() < 2e-3
    assert float(answer.headers["x-melisma-seconds"]) == pytest.approx(made.shape[1] / rate)


def test_one_note_moves_and_nothing_else(server: Running, clip: Clip, tmp_path: Path) -> None:
    edits = {"steps": [{"kind": "move", "start_s": 0.72, "stop_s": 1.2, "semitones": 2}]}
    answer = server.client.post("/v1/resynth", files={"audio": clip.wav}, data={"edits": json.dumps(edits)})
    made, _ = decoded(answer.content, tmp_path)
    found, before = (estimate_f0(audio, 44100, 512) for audio in (made[0], clip.audio))
    cents = 1200 * np.log2(np.where(found > 0, found, np.nan) / np.where(before > 0, before, np.nan))
    assert np.nanmedian(cents[:50]) == pytest.approx(0, abs=8)
    assert np.nanmedian(cents[65:100]) == pytest.approx(200, abs=8)


def test_a_melody_is_followed(server: Running, clip: Clip, tmp_path: Path) -> None:
    midi = write_midi((MelodyNote(0.0, 0.6, 60.0), MelodyNote(0.65, 1.2, 62.0)))
    answer = server.client.post("/v1/resynth", files={"audio": clip.wav, "midi": midi}, data={"format": "flac"})
    made, _ = decoded(answer.content, tmp_path, ".flac")
    found = estimate_f0(made[0], 44100, 512)
    assert 69 + 12 * np.log2(np.median(found[20:45]) / 440) == pytest.approx(60, abs=0.15)
    assert 69 + 12 * np.log2(np.median(found[75:100]) / 440) == pytest.approx(62, abs=0.15)


def test_features_are_synthesised(server: Running, clip: Clip, tmp_path: Path) -> None:
    answer = server.client.post("/v1/synth", files={"features": clip.npz}, data={"seed": "3"})
    assert answer.status_code == 200, answer.text
    made, rate = decoded(answer.content, tmp_path)
    with np.load(io.BytesIO(clip.npz)) as arrays:
        expected = melisma.load("analytic").synthesize(arrays["mel"], arrays["f0"], seed=3)
    assert rate == 44100
    assert np.abs(made[0] - expected).max() < 2e-3


@pytest.mark.parametrize(("kind", "media"), [("wav", "audio/wav"), ("flac", "audio/flac"), ("mp3", "audio/mpeg")])
def test_the_answer_has_the_format_that_was_asked_for(
    server: Running, clip: Clip, tmp_path: Path, kind: str, media: str
) -> None:
    answer = server.client.post("/v1/synth", files={"features": clip.npz}, data={"format": kind})
    assert answer.headers["content-type"] == media
    assert decoded(answer.content, tmp_path, f".{kind}")[1] == 44100


def test_models_health_and_metrics(server: Running, clip: Clip) -> None:
    (model,) = server.client.get("/v1/models").json()
    assert (model["name"], model["default"], model["mel"]["n_mels"]) == ("analytic", True, 128)
    assert server.client.get("/healthz").json()["status"] == "ok"
    server.client.post("/v1/synth", files={"features": clip.npz})
    counted = server.client.get("/metrics").text
    assert 'melisma_requests_total{route="/v1/synth",status="200"}' in counted
    assert 'melisma_audio_seconds_total{model="analytic"}' in counted


@pytest.mark.parametrize(
    ("route", "files", "data", "said"),
    [
        ("resynth", {}, {}, "audio: Field required"),
        ("resynth", {"audio": b"no audio at all"}, {}, "not an audio file"),
        ("resynth", {"audio": b""}, {}, "the file is empty"),
        ("resynth", {"audio": "half"}, {}, "truncated"),
        ("resynth", {"audio": "wav"}, {"edits": "{"}, "edits: Invalid JSON"),
        ("resynth", {"audio": "wav"}, {"edits": '{"steps": [{"kind": "snap", "scale": "X"}]}'}, "scale 'X'"),
        ("resynth", {"audio": "wav"}, {"edits": '{"steps": [{"kind": "transpose", "semitones": 48}]}'}, None),
        ("resynth", {"audio": "wav"}, {"model": "../../etc/passwd"}, "unknown model"),
        ("resynth", {"audio": "wav"}, {"model": "melisma-44k"}, "known: analytic"),
        ("resynth", {"audio": "wav"}, {"seed": "-1"}, "seed"),
        ("resynth", {"audio": "wav"}, {"seed": "x"}, "seed"),
        ("resynth", {"audio": "wav"}, {"format": "exe"}, "format"),
        ("resynth", {"audio": "wav", "midi": b"no midi"}, {}, "the MIDI file: not a MIDI file"),
        ("resynth", {"audio": "npz"}, {}, "not an audio file"),
        ("synth", {"features": "wav"}, {}, "not an .npz"),
        ("synth", {"features": b""}, {}, "not an .npz"),
        ("synth", {"features": "no f0"}, {}, "no F0 beside the mel"),
        ("synth", {"features": "short f0"}, {}, "frames"),
        ("synth", {"features": "objects"}, {}, "numbers"),
        ("synth", {"features": "decibel"}, {}, "decibel"),
        ("synth", {"features": "contract"}, {}, "hop_length"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    server: Running, clip: Clip, route: str, files: dict[str, bytes | str], data: dict[str, str], said: str | None
) -> None:
    with np.load(io.BytesIO(clip.npz)) as arrays:
        mel, f0_hz = arrays["mel"], arrays["f0"]
    named = {
        "wav": clip.wav,
        "half": clip.wav[: len(clip.wav) // 2],
        "npz": clip.npz,
        "no f0": npz(mel=mel),
        "short f0": npz(mel=mel, f0=f0_hz[:-9]),
        "objects": npz(mel=np.array([{}, {}])),
        "decibel": npz(mel=mel * 8.7, f0=f0_hz),
        "contract": npz(mel=mel, f0=f0_hz, mel_contract=json.dumps(CONTRACT)),
    }
    sent = {name: named[content] if isinstance(content, str) else content for name, content in files.items()}
    answer = server.client.post(f"/v1/{route}", files=sent, data=data)
    if said is None:
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert "/dev/" not in answer.json()["error"]


CONTRACT = {
    "sample_rate": 44100,
    "n_fft": 2048,
    "win_length": 2048,
    "hop_length": 441,
    "n_mels": 128,
    "fmin": 40.0,
    "fmax": 16000.0,
}


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_the_schema_of_edits_knows_every_step(server: Running) -> None:
    schema = server.client.get("/v1/edits-schema").json()
    assert set(schema["properties"]) == {"steps", "formant_semitones", "speed"}
    assert {"Snap", "Move", "Follow"} <= set(schema["$defs"])


def test_nothing_unknown_is_answered(server: Running) -> None:
    assert server.client.get("/v1/../etc/passwd").status_code == 404
    assert server.client.get("/v1/resynth").status_code == 405
    assert server.client.get("/v1/none").json() == {"error": "Not Found"}

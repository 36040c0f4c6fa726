"""What leaves the studio and comes back: audio, MIDI, F0 as CSV, and a session as one file.

A session file is a zip with exactly two entries: ``session.json`` and ``recording.flac`` (or ``recording.wav`` in
float, where the recording passes full scale). It is opened without unpacking: names decide nothing, sizes are limited.
"""

import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melisma.audio.io import write_audio
from melisma.editing import Edits, find_notes, read_edits, write_midi
from melisma.editing.edits import write_edits
from melisma.editing.midi import melody_of
from melisma.errors import MelismaError
from melisma.studio.result import Result

RECORDINGS = ("recording.flac", "recording.wav")
MOST_JSON_BYTES = 32 << 20
MOST_FRAMES = 1_000_000


class _Saved(BaseModel):
    """``session.json``."""

    model_config = ConfigDict(extra="forbid")
    format: Literal["melisma-studio"]
    version: Literal[1]
    name: str = Field(max_length=200)
    model: str = Field(max_length=1000)
    everything: bool
    edits: dict
    f0_step_s: float = Field(gt=1e-4, lt=1.0)
    f0_hz: list[float] = Field(max_length=MOST_FRAMES)


@dataclass(frozen=True)
class SavedSession:
    """What a session file holds.

    Attributes:
        name: of the recording.
        model: the model's name; it may not be there any more.
        everything: see :class:`melisma.studio.result.Result`.
        edits: all of them.
        f0_hz: the recording's curve and its step in seconds.
        recording: the audio file's bytes.
    """

    name: str
    model: str
    everything: bool
    edits: Edits
    f0_hz: tuple[np.ndarray, float]
    recording: bytes


def audio_bytes(samples: np.ndarray, sample_rate: int, suffix: str) -> bytes:
    """``(channels, samples)`` as the bytes of an audio file (24 bits; float .wav where it passes full scale)."""
    overshoots = suffix == ".wav" and float(np.abs(samples).max(initial=0.0)) > 1.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"audio{suffix}"
        write_audio(path, samples, sample_rate, "float" if overshoots else "pcm24")
        return path.read_bytes()


def save_session(name: str, model: str, result: Result) -> bytes:
    """The whole session as one file, which :func:`open_session` reads."""
    clip = result.clip
    saved = _Saved(
        format="melisma-studio",
        version=1,
        name=name[:200],
        model=model,
        everything=result.everything,
        edits=json.loads(write_edits(result.edits)),
        f0_step_s=1.0 / clip.frame_rate_hz,
        f0_hz=[round(float(value), 3) for value in clip.f0_hz],
    )
    fits = float(np.abs(clip.native).max(initial=0.0)) <= 1.0
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("session.json", saved.model_dump_json(), zipfile.ZIP_DEFLATED)
        archive.writestr(
            RECORDINGS[0] if fits else RECORDINGS[1],
            audio_bytes(clip.native, clip.native_rate, ".flac" if fits else ".wav"),
        )
    return buffer.getvalue()


def open_session(content: bytes, most_bytes: int) -> SavedSession:
    """Read a session file.

    Args:
        content: the file.
        most_bytes: limit of the recording in it.

    Raises:
        MelismaError: not such a file, another version, more entries than it should have, or too large.
    """
    wrong = "this is not a session file of the studio"
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            recordings = [name for name in RECORDINGS if name in entries]
            if len(archive.infolist()) != 2 or "session.json" not in entries or len(recordings) != 1:
                raise MelismaError(f"{wrong}: it must hold session.json and one recording; save it again in the studio")
            text = _limited(archive, entries["session.json"], MOST_JSON_BYTES)
            recording = _limited(archive, entries[recordings[0]], most_bytes)
        saved = _Saved.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MelismaError(f"{wrong} that this version reads: {where}: {first['msg']}") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError, OSError) as error:
        raise MelismaError(f"{wrong}: it is damaged; save it again") from error
    curve = np.array(saved.f0_hz, dtype=np.float32)
    if not curve.size or not np.isfinite(curve).all() or (curve < 0).any() or (curve > 20_000).any():
        raise MelismaError(f"{wrong} that can be trusted: its F0 holds values that no voice has")
    edits = read_edits(json.dumps(saved.edits), "the session's edits")
    return SavedSession(saved.name, saved.model, saved.everything, edits, (curve, saved.f0_step_s), recording)


def _limited(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    """One entry, and an error where it is larger than allowed: its header may lie, so it is read to the limit."""
    with archive.open(entry) as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise MelismaError(f"the session's {entry.filename} is larger than {most >> 20} MB; give a shorter recording")
    return content


def _midi(result: Result) -> bytes:
    clip = result.clip
    f0_hz = clip.at_speed(result.f0_hz, result.edits.speed)
    notes = find_notes(f0_hz, clip.frame_rate_hz)
    if not notes:
        raise MelismaError("nothing is sung in this clip: there is no note to write; record or choose another")
    return write_midi(melody_of(notes, clip.frame_rate_hz), bends=True)


def _csv(result: Result) -> bytes:
    clip = result.clip
    lines = ["seconds,f0_hz"]
    for frame, hz in enumerate(clip.at_speed(result.f0_hz, result.edits.speed)):
        lines.append(f"{(frame + 0.5) / clip.frame_rate_hz:.5f},{hz:.3f}")
    return ("\n".join(lines) + "\n").encode()


def _audio(suffix: str) -> Callable[[Result], bytes]:
    return lambda result: audio_bytes(result.native_audio(), result.clip.native_rate, suffix)


# kind -> (suffix of the file, media type, what makes it)
EXPORTS: dict[str, tuple[str, str, Callable[[Result], bytes]]] = {
    "wav": (".wav", "audio/wav", _audio(".wav")),
    "flac": (".flac", "audio/flac", _audio(".flac")),
    "midi": (".mid", "audio/midi", _midi),
    "csv": (".csv", "text/csv", _csv),
}

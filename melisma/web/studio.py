"""The studio over HTTP: its page, and sessions behind unguessable ids.

Bodies are raw bytes or JSON, never forms: another site's page cannot send these without asking first. No name from a
request reaches the file system.
"""

import json
import math
import re
import tempfile
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from melisma.editing import read_edits, read_midi
from melisma.editing.edits import write_edits
from melisma.editing.midi import MelodyNote
from melisma.editing.pitch import NAMES, pitch_of
from melisma.editing.scales import MODES
from melisma.errors import MelismaError
from melisma.inference.resynthesis import level_gains
from melisma.studio.compare import level_of
from melisma.studio.files import EXPORTS, audio_bytes, open_session, save_session
from melisma.studio.result import Result
from melisma.studio.store import Limits, Session, Store
from melisma.web.decoding import decode_audio
from melisma.web.service import Service

API = "/studio/api"
ZIP = b"PK\x03\x04"
LONGEST_WAIT_S = 10.0
MOST_EDIT_BYTES = 4 << 20
_MELODY: TypeAdapter[tuple[MelodyNote, ...]] = TypeAdapter(tuple[MelodyNote, ...])


class Studio:
    """The studio of an application.

    Attributes:
        service: what all routes share.
        settings: the service's.
        store: the sessions.
    """

    def __init__(self, service: Service) -> None:
        self.service, self.settings = service, service.settings
        limits = Limits(seconds=min(Limits.seconds, service.settings.most_seconds))
        self.store = Store(service.models.get, limits)

    @property
    def models(self) -> list[str]:
        """The names that a session may choose, the default first."""
        return list(self.settings.models)

    def close(self) -> None:
        """Forget all sessions."""
        self.store.stop()

    async def decode(self, content: bytes) -> tuple[np.ndarray, int]:
        """``(channels, samples)`` and Hz of an audio file, decoded in a process of its own."""
        with tempfile.TemporaryFile() as file:
            file.write(content)
            async with self.service.core():
                found = await decode_audio(file, self.settings, "the recording")
        return found.samples, found.sample_rate


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


UsesStudio = Annotated[Studio, Depends(_studio)]
router = APIRouter(prefix=API, include_in_schema=False)  # the page's own; /v1 is for others


def _session(session_id: str, studio: UsesStudio) -> Session:
    return studio.store.get(session_id)


def _ready(session: Annotated[Session, Depends(_session)]) -> Result:
    return session.ready


UsesSession = Annotated[Session, Depends(_session)]
UsesResult = Annotated[Result, Depends(_ready)]


async def _body(request: Request, most: int | None = None) -> bytes:
    """The body; the door limits uploads already, ``most`` limits what should be small."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if most is not None and size > most:
            raise HTTPException(413, f"this is larger than {most >> 20} MB; send less")
        chunks.append(chunk)
    if not size:
        raise MelismaError("the upload is empty; choose a file")
    return b"".join(chunks)


def _known(studio: Studio, model: str) -> str:
    names = studio.models
    if model not in names:
        raise MelismaError(f"no model {model[:100]!r} here; known: {', '.join(names)}")
    return model


@router.get("/models")
def models(studio: UsesStudio) -> dict[str, Any]:
    """The models that a session may choose, and the keys and modes that notes may be drawn to."""
    names = studio.models
    return {"models": names, "default": names[0], "roots": list(NAMES), "modes": list(MODES)}


@router.post("/sessions")
async def open_recording(
    request: Request, studio: UsesStudio, name: str = Query("recording", max_length=200), model: str = Query("")
) -> dict[str, Any]:
    """Open a recording (any audio file that melisma reads) or a session file; the body is the file."""
    content = await _body(request)
    chosen = _known(studio, model) if model else studio.models[0]
    if not content.startswith(ZIP):
        native, rate = await studio.decode(content)
        return state(await run_in_threadpool(studio.store.open, native, rate, name, chosen))
    saved = await run_in_threadpool(open_session, content, studio.settings.most_upload_bytes)
    if saved.model in studio.models:
        chosen = saved.model
    native, rate = await studio.decode(saved.recording)
    kept = (saved.name, chosen, saved.edits, saved.everything, saved.f0_hz)
    return state(await run_in_threadpool(studio.store.open, native, rate, *kept))


@router.get("/sessions/{session_id}")
def state(session: UsesSession) -> dict[str, Any]:
    """All of a session but its arrays."""
    told: dict[str, Any] = {
        "id": session.id,
        "name": session.name,
        "model": session.model,
        "loading": session.loading,
        "error": session.error,
    }
    result = session.result
    if result is None or session.error is not None:
        return told
    clip = result.clip
    told |= {
        "edits": json.loads(write_edits(result.edits)),
        "everything": result.everything,
        "seconds": clip.seconds,
        "native_rate": clip.native_rate,
        "sample_rate": clip.mel.sample_rate,
        "hop_length": clip.mel.hop_length,
        "channels": len(clip.audio),
        "frames": clip.frames,
        "frame_rate_hz": clip.frame_rate_hz,
        "bands": clip.mel.n_mels,
    }
    return told | progress(result)


def progress(result: Result) -> dict[str, Any]:
    """How far the result is, and its notes as they are sung."""
    return {
        "generation": result.generation,
        "result_frames": result.frames,
        "result_seconds": result.seconds,
        "seen": len(result.news),
        "progress": result.progress,
        "busy": result.busy,
        "notes": notes_of(result),
    }


def notes_of(result: Result) -> list[dict[str, float]]:
    """The recording's notes, with the pitch that each is sung at now."""
    clip = result.clip
    sung = pitch_of(result.f0_hz)
    found = []
    for note in clip.notes:
        margin = round(0.15 * (note.stop - note.start))
        middle = sung[note.start + margin : note.stop - margin]
        known = middle[np.isfinite(middle)]
        now = float(np.median(known)) if known.size else note.pitch
        found.append(
            {
                "start_s": note.start / clip.frame_rate_hz,
                "stop_s": note.stop / clip.frame_rate_hz,
                "pitch": round(note.pitch, 4),
                "sung_pitch": round(now, 4),
            }
        )
    return found


@router.delete("/sessions/{session_id}", status_code=204)
def close(session: UsesSession, studio: UsesStudio) -> None:
    """Close a session; nothing of it is kept."""
    studio.store.close(session.id)


@router.put("/sessions/{session_id}/edits")
async def edit(
    request: Request,
    session: UsesSession,
    studio: UsesStudio,
    focus_s: float = Query(0.0, ge=0, le=1e6, allow_inf_nan=False),
    everything: bool = False,
) -> dict[str, Any]:
    """Replace all edits (the body, see ``melisma.editing.Edits``); what they change is sung from ``focus_s`` on."""
    text = await _body(request, MOST_EDIT_BYTES)

    def apply() -> dict[str, Any]:
        spans = studio.store.edit(session, read_edits(text), focus_s, everything)
        return {"spans": spans, **progress(session.ready)}

    return await run_in_threadpool(apply)


class _ModelChoice(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str = Field(max_length=1000)


@router.post("/sessions/{session_id}/model")
def change_model(choice: _ModelChoice, session: UsesSession, studio: UsesStudio) -> dict[str, Any]:
    """Let another model sing this session."""
    studio.store.change_model(session, _known(studio, choice.model))
    return state(session)


@router.get("/sessions/{session_id}/news")
def news(
    session: UsesSession,
    result: UsesResult,
    generation: int = Query(0, ge=0),
    seen: int = Query(0, ge=0),
    wait_s: float = Query(0.0, ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False),
) -> dict[str, Any]:
    """Frames that became ready since the first ``seen`` of a generation; waits for them where there are none yet."""
    if wait_s:
        result.wait(generation, seen, wait_s)
    result = session.ready
    spans = result.news[seen:] if generation == result.generation else list(result.news)
    return {
        "generation": result.generation,
        "seen": len(result.news),
        "spans": spans,
        "progress": result.progress,
        "busy": result.busy,
        "result_frames": result.frames,
    }


def _raw(values: np.ndarray) -> Response:
    return Response(values.tobytes(), media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


@router.get("/sessions/{session_id}/curve", response_class=Response)
def curve(result: UsesResult) -> Response:
    """F0 as float32: the recording's frames, then as many of what is sung, before any change of speed."""
    return _raw(np.concatenate([result.clip.f0_hz, result.f0_hz]).astype("<f4"))


@router.get("/sessions/{session_id}/picture", response_class=Response)
def picture(result: UsesResult) -> Response:
    """The recording's mel spectrogram as bytes, frame by frame, low bands first."""
    return _raw(result.clip.picture())


@router.get("/sessions/{session_id}/audio", response_class=Response)
def audio(
    result: UsesResult,
    which: str = Query("result", pattern="^(original|result)$"),
    first: int = Query(0, ge=0),
    last: int = Query(1 << 30, ge=0),
) -> Response:
    """Frames ``first`` to ``last`` as 16-bit PCM at the model's rate, channels interleaved."""
    hop = result.clip.mel.hop_length
    samples = result.audio if which == "result" else result.clip.audio
    part = samples[:, first * hop : max(first, last) * hop]
    return _raw(np.rint(np.clip(part, -1.0, 1.0) * 32767.0).astype("<i2").T)


@router.get("/sessions/{session_id}/gain")
def gain(result: UsesResult) -> dict[str, float]:
    """What brings the result to the recording's level, as a factor: for an A/B that loudness does not decide."""
    rate = result.clip.mel.sample_rate
    factors = level_gains(level_of(result.clip.audio, rate), level_of(result.audio, rate))
    return {"gain": float(np.exp(np.mean(np.log(factors))))}


@router.post("/sessions/{session_id}/midi")
async def import_midi(request: Request, result: UsesResult) -> dict[str, Any]:
    """Read a MIDI file (the body): the melody as ``Follow`` takes it."""
    content = await _body(request, 4 << 20)
    melody = await run_in_threadpool(read_midi, content, "the MIDI file")
    return {"melody": _MELODY.dump_python(melody)}


def _stem(session: Session) -> str:
    """The recording's name without the suffix of its file."""
    return session.name.rsplit(".", 1)[0] or session.name


def _download(content: bytes, name: str, suffix: str, media_type: str) -> Response:
    plain = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._") or "clip"
    full = quote(f"{name[:100]}{suffix}")
    disposition = f"attachment; filename=\"{plain[:80]}{suffix}\"; filename*=UTF-8''{full}"
    return Response(content, media_type=media_type, headers={"Content-Disposition": disposition})


@router.get("/sessions/{session_id}/export/{kind}", response_class=Response)
def export(kind: str, session: UsesSession, result: UsesResult) -> Response:
    """Download ``wav``, ``flac``, ``midi``, ``csv`` or ``session``; audio only once all of it is sung."""
    if kind == "session":
        content = save_session(session.name, session.model, result)
        return _download(content, _stem(session), ".melisma.zip", "application/zip")
    if kind not in EXPORTS:
        raise MelismaError(f"no export {kind[:20]!r}; known: {', '.join([*EXPORTS, 'session'])}")
    suffix, media_type, make = EXPORTS[kind]
    if media_type in ("audio/wav", "audio/flac") and result.busy:
        raise HTTPException(409, f"still singing: {math.floor(100 * result.progress)} % are done; try again soon")
    return _download(make(result), _stem(session), suffix, media_type)


class _Pair(BaseModel):
    model_config = ConfigDict(extra="forbid")
    models: tuple[str, str]


def _comparison(session: Session) -> dict[str, Any]:
    made = session.comparison
    if made is None:
        raise HTTPException(404, "nothing is compared in this session; choose two models first")
    return {"models": made.names, "progress": made.progress, "busy": made.busy}


@router.post("/sessions/{session_id}/compare")
def compare(pair: _Pair, session: UsesSession, studio: UsesStudio) -> dict[str, Any]:
    """Sing the session with two models."""
    studio.store.compare(session, (_known(studio, pair.models[0]), _known(studio, pair.models[1])))
    return _comparison(session)


@router.get("/sessions/{session_id}/compare")
def compared(session: UsesSession) -> dict[str, Any]:
    """How far the comparison is."""
    return _comparison(session)


@router.get("/sessions/{session_id}/compare/{what}", response_class=Response)
def compared_audio(what: str, session: UsesSession) -> Response:
    """One side as ``a`` or ``b`` (wav at the recording's level), or ``zip`` with everything."""
    told = _comparison(session)
    made = session.comparison
    assert made is not None
    if what not in ("a", "b", "zip"):
        raise HTTPException(404, "ask for a, b or zip")
    if told["busy"]:
        raise HTTPException(409, f"still singing: {math.floor(100 * made.progress)} % are done; try again soon")
    if what == "zip":
        return _download(made.download(), f"{_stem(session)}-comparison", ".zip", "application/zip")
    content = audio_bytes(made.audio("ab".index(what)), made.clip.native_rate, ".wav")
    return Response(content, media_type="audio/wav", headers={"Cache-Control": "no-store"})

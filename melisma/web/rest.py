"""``/v1``: recordings sung again, features synthesised, and which models there are."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from melisma.audio.arrays import choose
from melisma.audio.f0_curve import KEYS as F0_KEYS
from melisma.audio.f0_curve import check_f0
from melisma.audio.io import SampleFormat, encode_audio
from melisma.audio.limiter import limited
from melisma.editing.edits import Edits, Follow, apply, edits_schema, read_edits
from melisma.editing.midi import LARGEST_FILE, read_midi
from melisma.errors import MelismaError
from melisma.inference.feature_files import features_of_arrays
from melisma.inference.resynthesis import check_recording, required_mel
from melisma.inference.vocoder import Vocoder
from melisma.web.decoding import Recording, decode_arrays, decode_audio
from melisma.web.models import ModelInfo
from melisma.web.service import Progress, Service, service_of

router = APIRouter(prefix="/v1", tags=["vocoder"])

MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "ogg": "audio/ogg", "mp3": "audio/mpeg"}
Format = Literal["wav", "flac", "ogg", "mp3"]
MOST_SEED = 2**63 - 1


class Error(BaseModel):
    """Any error: one line that names the thing and the cure."""

    error: str


_SPOKEN = {
    400: "The request cannot be done; the line says why.",
    401: "The service has a token and the request does not.",
    403: "The request comes by a name or from a page that is not the service's own.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    429: "The queue is full; Retry-After says when to come back.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": words} for status, words in _SPOKEN.items()
}
AUDIO: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An audio file.",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()},
        "headers": {
            "X-Melisma-Model": {"description": "The model that sang.", "schema": {"type": "string"}},
            "X-Melisma-Seconds": {"description": "Length of the audio.", "schema": {"type": "number"}},
        },
    }
}

TheService = Annotated[Service, Depends(service_of)]
# What is left out is None inside; a form cannot hold a null, so the document does not speak of it.
ModelName = Annotated[str | SkipJsonSchema[None], Form(description="A name from /v1/models; else the default.")]
Seed = Annotated[int, Form(ge=0, le=MOST_SEED, description="Of phase and noise: the same seed gives the same audio.")]
Projections = Annotated[
    int | SkipJsonSchema[None], Form(ge=0, le=16, description="Rounds of mel projection of spectral models; 0 is off.")
]
AudioFormat = Annotated[Format, Form(alias="format", description="Of the answer.")]


@router.get("/models", responses={status: ERRORS[status] for status in (401, 403)})
async def models(service: TheService) -> list[ModelInfo]:
    """The models of this service; the first one sings where a request names none."""
    if service.models.loaded:  # no reason to wait behind those that sing
        return service.models.describe()
    async with service.core():
        return await service.work(lambda progress: service.models.describe())


@router.get("/edits-schema", responses={status: ERRORS[status] for status in (401, 403)})
async def schema_of_edits() -> dict[str, Any]:
    """The JSON schema of ``edits``."""
    return edits_schema()


@router.post("/resynth", response_class=Response, responses=AUDIO | ERRORS)
async def resynth(
    request: Request,
    service: TheService,
    audio: Annotated[UploadFile, File(description="wav, flac, ogg, opus or mp3, any rate from 8 to 192 kHz.")],
    edits: Annotated[
        str,
        Form(
            description="Edits as JSON, see /v1/edits-schema: steps, formant_semitones, speed.",
            examples=['{"steps": [{"kind": "snap", "scale": "C:maj", "strength": 0.8}], "formant_semitones": 1}'],
        ),
    ] = "{}",
    midi: Annotated[
        UploadFile | SkipJsonSchema[None], File(description="A melody to follow, before the other steps.")
    ] = None,
    model: ModelName = None,
    seed: Seed = 0,
    projections: Projections = None,
    audio_format: AudioFormat = "wav",
) -> Response:
    """Sing a recording again under edits: same rate, channels and level, at another pitch, key, tune or speed."""
    wanted = read_edits(edits)
    if midi is not None:
        melody = read_midi(await midi.read(LARGEST_FILE + 1), "the MIDI file")
        wanted = dataclasses.replace(wanted, steps=(Follow(melody), *wanted.steps))
    name = service.models.name(model)

    async def answer() -> Response:
        async with service.core():
            recording = await decode_audio(audio.file, service.settings)
            _check_seconds(recording.seconds / wanted.speed, service)
            return await service.work(
                lambda progress: _resung(service, name, recording, wanted, seed, projections, audio_format, progress)
            )

    return await service.until_left(request, answer())


@router.post("/synth", response_class=Response, responses=AUDIO | ERRORS)
async def synth(
    request: Request,
    service: TheService,
    features: Annotated[
        UploadFile,
        File(description=".npz of a log-mel (mel) and F0 in Hz (f0); mel_contract, where there, is checked."),
    ],
    model: ModelName = None,
    seed: Seed = 0,
    projections: Projections = None,
    speaker: Annotated[str | SkipJsonSchema[None], Form(description="Its name or number.")] = None,
    audio_format: AudioFormat = "wav",
) -> Response:
    """Audio from the features and the F0 that an acoustic model gives."""
    name = service.models.name(model)

    async def answer() -> Response:
        async with service.core():
            arrays = await decode_arrays(features.file, service.settings, "features")
            return await service.work(
                lambda progress: _sung(service, name, arrays, seed, projections, speaker, audio_format, progress)
            )

    return await service.until_left(request, answer())


def _check_seconds(seconds: float, service: Service) -> None:
    most = service.settings.most_seconds
    if seconds > most:
        raise MelismaError(f"the result would be {seconds:.0f} s long; the service makes {most:.0f} s: send less")


def _resung(
    service: Service,
    name: str,
    recording: Recording,
    edits: Edits,
    seed: int,
    projections: int | None,
    audio_format: Format,
    progress: Progress,
) -> Response:
    channels, samples = recording.samples.shape
    check_recording(channels, samples, recording.sample_rate, "the recording")
    vocoder = service.models.get(name)
    frame_rate_hz = required_mel(vocoder).frame_rate_hz
    made = vocoder.resynthesize(
        recording.samples,
        recording.sample_rate,
        speed=edits.speed,
        seed=seed,
        projections=projections,
        progress=progress,
        target_f0_hz=lambda f0_hz: apply(edits, f0_hz, frame_rate_hz),
        formant_semitones=edits.formant_semitones,
    )
    return _audio(service, name, made, recording.sample_rate, audio_format, recording.sample_format)


def _sung(
    service: Service,
    name: str,
    arrays: dict[str, np.ndarray],
    seed: int,
    projections: int | None,
    speaker: str | None,
    audio_format: Format,
    progress: Progress,
) -> Response:
    vocoder = service.models.get(name)
    values = features_of_arrays(arrays, "features", vocoder.generator)
    frames = values.shape[-1]
    _check_seconds(frames * vocoder.hop_length / vocoder.sample_rate, service)
    chosen = int(speaker) if speaker is not None and speaker.isdecimal() else speaker
    curve = _f0(arrays, vocoder, frames)
    made = vocoder.synthesize(values, curve, chosen, seed, projections, progress=progress)
    return _audio(service, name, made, vocoder.sample_rate, audio_format, "pcm16")


def _f0(arrays: dict[str, np.ndarray], vocoder: Vocoder, frames: int) -> np.ndarray | None:
    if not vocoder.uses_f0:
        return None
    names = [name for name in arrays if name in F0_KEYS]
    if not names:
        raise MelismaError(f"features: no F0 beside the mel ({', '.join(arrays)}); save it under the name f0")
    return check_f0(arrays[choose(Path("features"), names, F0_KEYS, "F0")], vocoder.sample_rate, frames)


def _audio(
    service: Service, name: str, made: np.ndarray, sample_rate: int, audio_format: Format, sample_format: str
) -> Response:
    kept: SampleFormat = "pcm24" if sample_format == "pcm24" else "float" if sample_format == "float" else "pcm16"
    if kept != "float" or audio_format != "wav":
        made = limited(made, sample_rate)
    content = encode_audio(made, sample_rate, f".{audio_format}", kept)
    seconds = made.shape[-1] / sample_rate
    service.metrics.audio_seconds.labels(name).inc(seconds)
    headers = {"x-melisma-model": name, "x-melisma-seconds": f"{seconds:.6f}"}
    return Response(content, media_type=MEDIA_TYPES[audio_format], headers=headers)

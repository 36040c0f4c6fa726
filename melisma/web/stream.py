"""``/v1/stream``: a WebSocket that takes frames of features and F0 and gives audio as soon as it is decided.

1. The client sends a text: ``{"model": name, "seed": 0, "projections": 2, "format": "f32"}``, each of them optional;
   ``format`` is ``f32`` or ``s16``. The service answers with what it expects and gives:
   ``{"model", "sample_rate", "hop_length", "channels", "format", "lookahead_samples"}``.
2. The client sends binary messages of whole frames, ``1 + channels`` little-endian float32 each: F0 in Hz (0 where
   unvoiced), then the features. Each is answered by a binary message of mono PCM, empty where nothing is decided yet.
3. ``{"finish": true}`` is answered by the rest of the PCM and by ``{"samples": number}``; the service closes.

Whatever is wrong is said as ``{"error": line}`` before the service closes with 1008. Together the PCM equals what
``/v1/synth`` makes of the same features.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from melisma.errors import MelismaError
from melisma.inference.features import feature_channels
from melisma.inference.vocoder import Vocoder
from melisma.web.rest import MOST_SEED
from melisma.web.service import Service, service_of

router = APIRouter()

REFUSED, LATER = 1008, 1013  # close codes of RFC 6455 and its registry
_Pcm = Literal["f32", "s16"]


@dataclass(frozen=True)
class Wishes:
    """The first message of a stream."""

    model: Annotated[str, Field(max_length=200)] | None = None
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    projections: Annotated[int, Field(ge=0, le=16)] | None = None
    format: _Pcm = "f32"
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


_WISHES = TypeAdapter(Wishes)


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """See the head of this module."""
    service = service_of(socket)
    await socket.accept()
    if service.streams >= service.settings.streams:
        await _refuse(socket, f"{service.streams} streams are open; try again later", LATER)
        return
    service.streams += 1
    service.metrics.streams.set(service.streams)
    try:
        await _sing(socket, service)
    except MelismaError as error:
        await _refuse(socket, str(error))
    except TimeoutError:
        await _refuse(socket, f"nothing came for {service.settings.upload_seconds:.0f} s")
    except WebSocketDisconnect:
        service.metrics.left.inc()
    finally:
        service.streams -= 1
        service.metrics.streams.set(service.streams)


async def _refuse(socket: WebSocket, line: str, code: int = REFUSED) -> None:
    try:
        await socket.send_json({"error": line})
        await socket.close(code)
    except (WebSocketDisconnect, RuntimeError):
        return  # it left by itself


async def _sing(socket: WebSocket, service: Service) -> None:
    wishes = _wishes(await _message(socket, service))
    name = service.models.name(wishes.model)
    async with service.core():
        vocoder = await service.work(lambda progress: service.models.get(name))
        voice = await service.work(lambda progress: vocoder.stream(wishes.seed, projections=wishes.projections))
    channels = feature_channels(vocoder.generator) or 1
    await socket.send_json(
        {
            "model": name,
            "sample_rate": vocoder.sample_rate,
            "hop_length": vocoder.hop_length,
            "channels": channels,
            "format": wishes.format,
            "lookahead_samples": voice.lookahead_samples,
        }
    )
    most, taken, samples = service.settings.most_seconds * vocoder.sample_rate / vocoder.hop_length, 0, 0
    while True:
        message = await _message(socket, service)
        if isinstance(message, str):
            break
        features, f0_hz = _frames(message, channels, vocoder)
        taken += len(f0_hz)
        if taken > most:
            raise MelismaError(f"the stream is longer than {service.settings.most_seconds:.0f} s; begin a new one")
        async with service.core():
            audio = await service.work(lambda progress: voice.push(features, f0_hz))  # noqa: B023
        samples += audio.size
        await socket.send_bytes(_pcm(audio, wishes.format))
    _check_finish(message)
    async with service.core():
        audio = await service.work(lambda progress: voice.finish())
    service.metrics.audio_seconds.labels(name).inc((samples + audio.size) / vocoder.sample_rate)
    await socket.send_bytes(_pcm(audio, wishes.format))
    await socket.send_json({"samples": samples + audio.size})
    await socket.close()


async def _message(socket: WebSocket, service: Service) -> str | bytes:
    async with asyncio.timeout(service.settings.upload_seconds):
        message: Any = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return message["text"] if message.get("text") is not None else message["bytes"]


def _wishes(message: str | bytes) -> Wishes:
    if isinstance(message, bytes):
        raise MelismaError('the first message is a text: {"model": null, "seed": 0, "format": "f32"}')
    try:
        return _WISHES.validate_json(message)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MelismaError(f"{where + ': ' if where else ''}{first['msg']}") from error


def _check_finish(message: str) -> None:
    try:
        finished = json.loads(message) == {"finish": True}
    except json.JSONDecodeError:
        finished = False
    if not finished:
        raise MelismaError('a text in the stream is {"finish": true}; frames are binary messages')


def _frames(message: bytes, channels: int, vocoder: Vocoder) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(channels, frames)`` and F0 ``(frames,)`` of a message."""
    size = 4 * (1 + channels)
    if len(message) % size:
        raise MelismaError(f"{len(message)} bytes are no whole frames of {size}: F0 and {channels} float32 each")
    rows = np.frombuffer(message, dtype="<f4").reshape(-1, 1 + channels)
    return np.ascontiguousarray(rows[:, 1:].T), np.ascontiguousarray(rows[:, 0])


def _pcm(audio: np.ndarray, kind: _Pcm) -> bytes:
    if kind == "f32":
        return audio.astype("<f4").tobytes()
    return np.clip(np.rint(audio * 32768.0), -32768, 32767).astype("<i2").tobytes()

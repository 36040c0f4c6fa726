"""The WebSocket: chunks of any sizes give the audio of the whole, and what is wrong is said."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import numpy as np
import pytest
from web_service import Clip, Running, eventually
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import melisma

Serve = Callable[..., AbstractContextManager[Running]]


@contextmanager
def connected(server: Running, **headers: str) -> Iterator[ClientConnection]:
    url = server.url.replace("http", "ws", 1) + "/v1/stream"
    with connect(url, proxy=None, additional_headers=headers) as socket:
        yield socket


def frames_of(clip: Clip) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mel, F0, and both as the rows that are sent."""
    with np.load(io.BytesIO(clip.npz)) as arrays:
        mel, f0_hz = arrays["mel"], arrays["f0"]
    return mel, f0_hz, np.concatenate([f0_hz[:, None], mel.T], axis=1).astype("<f4")


@pytest.mark.parametrize(("kind", "dtype", "scale"), [("f32", "<f4", 1.0), ("s16", "<i2", 32768.0)])
@pytest.mark.parametrize("chunk", [7, 40])
def test_chunks_give_the_audio_of_the_whole(
    server: Running, clip: Clip, kind: str, dtype: str, scale: float, chunk: int
) -> None:
    mel, f0_hz, rows = frames_of(clip)
    with connected(server) as socket:
        socket.send(json.dumps({"seed": 4, "format": kind}))
        facts = json.loads(socket.recv())
        assert (facts["model"], facts["sample_rate"], facts["channels"], facts["format"]) == (
            "analytic",
            44100,
            128,
            kind,
        )
        parts = []
        for start in range(0, len(rows), chunk):
            socket.send(rows[start : start + chunk].tobytes())
            parts.append(socket.recv())
            assert sum(map(len, parts)) // np.dtype(dtype).itemsize >= (
                min(len(rows), start + chunk) * facts["hop_length"] - facts["lookahead_samples"]
            )
        socket.send('{"finish": true}')
        parts.append(socket.recv())
        assert json.loads(socket.recv()) == {"samples": len(rows) * 512}
        with pytest.raises(ConnectionClosed):
            socket.recv()
    made = np.frombuffer(b"".join(parts), dtype=dtype) / scale  # type: ignore[arg-type]
    whole = melisma.load("analytic").synthesize(mel, f0_hz, seed=4)
    assert np.abs(made - whole).max() < 1e-4


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([b"\0" * 516], "the first message is a text"),
        (["{"], "Invalid JSON"),
        (['{"seed": -1}'], "seed"),
        (['{"modell": "x"}'], "modell"),
        (['{"model": "../x"}'], "unknown model"),
        (["{}", b"\0" * 515], "no whole frames"),
        (["{}", np.full(129, np.nan, dtype="<f4").tobytes()], "NaN"),
        (["{}", np.full(129, -1.0, dtype="<f4").tobytes()], "negative"),
        (["{}", "stop"], '{"finish": true}'),
    ],
)
def test_what_is_wrong_is_said_before_the_service_closes(
    server: Running, messages: list[str | bytes], said: str
) -> None:
    with connected(server) as socket:
        for message in messages:
            socket.send(message)
        if len(messages) > 1:
            socket.recv()
        assert said in json.loads(socket.recv())["error"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert eventually(lambda: server.service.streams == 0)


def test_streams_are_counted_and_limited(serve: Serve, clip: Clip) -> None:
    with serve(streams=1, most_seconds=0.5) as service:
        with connected(service) as first:
            first.send("{}")
            first.recv()
            with connected(service) as second:
                assert "try again later" in json.loads(second.recv())["error"]
            first.send(frames_of(clip)[2].tobytes())
            assert "longer than" in json.loads(first.recv())["error"]
        assert eventually(lambda: service.service.streams == 0)
        with connected(service) as again:
            again.send("{}")
            assert "sample_rate" in json.loads(again.recv())


def test_a_silent_client_is_let_go(serve: Serve) -> None:
    with serve(upload_seconds=0.2) as service, connected(service) as socket:
        assert "nothing came" in json.loads(socket.recv())["error"]


def test_the_door_is_closed_to_others(serve: Serve) -> None:
    token = "a-token-of-enough-letters"
    with serve(token=token) as service:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Origin": "http://evil.example"}):
            with pytest.raises(InvalidStatus), connected(service, **headers):
                pass
        with connected(service, Authorization=f"Bearer {token}") as socket:
            socket.send("{}")
            assert "sample_rate" in json.loads(socket.recv())
        assert httpx.get(f"{service.url}/healthz").json()["streams"] == 0

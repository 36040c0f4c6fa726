"""A service that runs, the clips that are sent to it, and its answers read."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import uvicorn

from melisma.commands.serve import _server
from melisma.web import Settings, create_app
from melisma.web.service import Service


@dataclass(frozen=True)
class Running:
    """A service on a free port of this machine."""

    url: str
    service: Service
    client: httpx.Client


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    """Serve an application from a thread, as ``melisma serve`` does."""
    app = create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server: uvicorn.Server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=60) as client:
        yield Running(url, app.state.service, client)
    server.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


@dataclass(frozen=True)
class Clip:
    """A made voice: two notes, its mel and its F0."""

    audio: np.ndarray
    f0_hz: np.ndarray
    wav: bytes
    npz: bytes


def decoded(content: bytes, folder: Path, suffix: str = ".wav") -> tuple[np.ndarray, int]:
    """Read an answer as a file."""
    from melisma.audio.io import read_audio

    path = folder / f"answer{suffix}"
    path.write_bytes(content)
    return read_audio(path)


def eventually(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something is so; an answer arrives a moment before its request is over."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

"""How the service runs: where it listens, who may ask, which models it knows, what is too much."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from melisma.errors import MelismaError

TOKEN_VARIABLE = "MELISMA_TOKEN"
SHORTEST_TOKEN = 16
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        token: what every request must carry; needed where others than this machine can reach the service.
        models: name -> shipped model or path of a checkpoint; the first is the default. Requests know the names only.
        workers: requests that are worked on at once, each on one thread; one a core.
        queue: requests that wait for a worker or send their body; more are told to come back (429).
        streams: open WebSocket streams; more are turned away.
        most_upload_bytes: of a request's body.
        most_seconds: of an uploaded recording, and of what is made from it.
        most_decoded_bytes: of an upload as float32 samples or arrays.
        upload_seconds: a body that takes longer to arrive is given up.
        decode_seconds: a decoder that takes longer is killed.
        decoder_memory_bytes: address space of the decoder's process.
        device: where the models run, see :func:`melisma.load`.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = field(default=None, repr=False)
    models: Mapping[str, str] = field(default_factory=lambda: {"melisma-44k": "melisma-44k", "analytic": "analytic"})
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    queue: int = 16
    streams: int = 8
    most_upload_bytes: int = 128 << 20
    most_seconds: float = 900.0
    most_decoded_bytes: int = 384 << 20
    upload_seconds: float = 120.0
    decode_seconds: float = 60.0
    decoder_memory_bytes: int = 2 << 30
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise MelismaError(f"the token is short; take {SHORTEST_TOKEN} characters or more: openssl rand -hex 16")
        if self.token is None and not is_local(self.host):
            raise MelismaError(
                f"listening on {self.host} opens the service to others: give a --token (or MELISMA_TOKEN), "
                "say from openssl rand -hex 16, or listen on 127.0.0.1"
            )
        if not self.models:
            raise MelismaError("the service has no models; name at least one")
        if not 0 <= self.port <= 65_535 or min(self.workers, self.queue, self.streams) < 1:
            raise MelismaError("the port lies between 0 and 65535; workers, queue and streams are 1 or more")

    @property
    def default_model(self) -> str:
        """The model that sings where a request names none."""
        return next(iter(self.models))


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def named_models(paths: list[str]) -> dict[str, str]:
    """Models by name: shipped ones by their own, a checkpoint by its file's.

    Raises:
        MelismaError: two that share a name, or one that is not there.
    """
    from melisma.inference.vocoder import ANALYTIC, model_path

    models: dict[str, str] = {}
    for path in paths:
        name = path if path == ANALYTIC or not Path(path).exists() else Path(path).stem
        if path != ANALYTIC:
            model_path(path)
        if name in models:
            raise MelismaError(f"two models are called {name!r} ({models[name]} and {path}); rename one of the files")
        models[name] = path
    return models

"""``melisma serve``: the service and the studio's page on this machine."""

import os
import socket
import threading
import time
import webbrowser
from importlib.util import find_spec
from typing import TYPE_CHECKING

from melisma.errors import MelismaError

if TYPE_CHECKING:
    import uvicorn

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "websockets")
_SHUTDOWN_SECONDS = 5
_LARGEST_MESSAGE = 1 << 20
_PATIENCE_SECONDS = 30.0


def run(
    host: str,
    port: int,
    token: str | None,
    models: tuple[str, ...],
    workers: int | None,
    queue: int,
    most_seconds: float,
    device: str,
    browser: bool,
) -> None:
    """Serve until interrupted; see :func:`melisma.cli.serve` for the arguments."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MelismaError(f"the service needs {', '.join(missing)}; install its extra: pip install 'melisma[serve]'")
    # The workers are the threads that sing: numpy's own, made when it is first imported, would only crowd them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from melisma.web import Settings, create_app
    from melisma.web.settings import TOKEN_VARIABLE, named_models

    settings = Settings(
        host=host,
        port=port,
        token=token or os.environ.get(TOKEN_VARIABLE) or None,
        models=named_models(list(models)),
        workers=workers or len(os.sched_getaffinity(0)),
        queue=queue,
        most_seconds=most_seconds,
        device=device,
    )
    listener = _listener(settings.host, settings.port)
    app = create_app(settings)
    app.state.service.models.get()  # a default model that cannot be loaded is said now
    address = listener.getsockname()
    url = f"http://{_in_url(settings.host)}:{address[1]}/"
    server = _server(app)
    print(f"melisma serves on {url} (Ctrl-C stops it)", flush=True)
    if browser:
        page = url if settings.token is None else f"{url}?token={settings.token}"
        threading.Thread(target=_open_when_started, args=(server, page), daemon=True).start()
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        print("stopped")


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=128)
    except OSError as error:
        raise MelismaError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port (0 takes a free one)"
        ) from error


def _in_url(host: str) -> str:
    return f"[{host.strip('[]')}]" if ":" in host else host


def _server(app: object) -> "uvicorn.Server":
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_level="warning",
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=_LARGEST_MESSAGE,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


def _open_when_started(server: "uvicorn.Server", page: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    if server.started:
        webbrowser.open(page)

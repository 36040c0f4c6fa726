"""The application: routes, the door before them, and errors as one line of JSON."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from melisma.errors import MelismaError
from melisma.studio.store import FullError, NotFoundError
from melisma.web import health, page, rest, stream, studio
from melisma.web.door import Door, refusal
from melisma.web.service import ClientLeftError, Service
from melisma.web.settings import Settings

# What the application answers; a line here is a part of it. Static files: address -> folder.
ROUTERS: list[APIRouter] = [health.router, rest.router, stream.router, studio.router, page.router]
STATIC: dict[str, Path] = {}

_DESCRIPTION = """A neural vocoder for singing: recordings sung again under edits of their pitch, audio from features.

Errors are `{"error": "one line with the cure"}`. Where the service has a token, send `Authorization: Bearer TOKEN`.
A full queue answers 429 with `Retry-After`. Streaming is a WebSocket at `/v1/stream`, see the documentation.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application under its settings; ``melisma serve`` and any ASGI server run it.

    ``app.state.service`` holds what routes share (:class:`melisma.web.service.Service`).
    """
    settings = settings or Settings()
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.studio.close()
        service.close()

    app = FastAPI(
        title="melisma",
        version=version("melisma"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its page would load from another site
        redoc_url=None,
        separate_input_output_schemas=False,
        exception_handlers=_HANDLERS,
    )
    app.state.service = service
    app.state.studio = studio.Studio(service)
    app.add_middleware(Door, service=service)
    for router in ROUTERS:
        app.include_router(router)
    for address, folder in STATIC.items():
        app.mount(address, StaticFiles(directory=folder), name=address.strip("/"))
    return app


async def _melisma_error(_: Request, error: Any) -> JSONResponse:
    return refusal(400, str(error))


async def _invalid(_: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return refusal(400, f"{where}: {first['msg']}" if where else str(first["msg"]))


async def _no_session(_: Request, error: Any) -> JSONResponse:
    return refusal(404, str(error))


async def _no_room(_: Request, error: Any) -> JSONResponse:
    return refusal(429, str(error), {"retry-after": "120"})


async def _http_error(_: Request, error: Any) -> JSONResponse:
    return refusal(error.status_code, str(error.detail), error.headers)


async def _left(_: Request, error: Any) -> Response:
    return Response(status_code=499)  # nobody reads it; the log does


async def _bug(_: Request, error: Any) -> JSONResponse:
    return refusal(500, f"unexpected {type(error).__name__}; the service's log has the rest: please report it")


_Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]
_HANDLERS: dict[int | type[Exception], _Handler] = {
    MelismaError: _melisma_error,
    NotFoundError: _no_session,
    FullError: _no_room,
    RequestValidationError: _invalid,
    HTTPException: _http_error,
    ClientLeftError: _left,
    Exception: _bug,
}

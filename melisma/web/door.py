"""The door: what every request passes before a route sees it. Plain ASGI, so that nothing is read before it may be.

1. Where the service listens on this machine only, the Host header must name this machine: another site's name that
   resolves to 127.0.0.1 (DNS rebinding) is refused. A browser's Origin must be the service itself.
2. Where there is a token, it must come with every request but ``/healthz``: ``Authorization: Bearer``, or, from a
   browser, once as ``?token=`` in the page's address, which becomes a cookie.
3. A body beyond the limit is refused, by its promise or when it passes it, and so is one that takes too long to come.
4. Requests that do work wait in a queue of bounded length: beyond it the answer is 429 with Retry-After.
"""

import asyncio
import hmac
import time
from collections.abc import Mapping
from contextlib import suppress
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from melisma.web.service import Service
from melisma.web.settings import is_local

COOKIE = "melisma_token"
OPEN_PATHS = ("/healthz",)
RETRY_SECONDS = 2
DRAIN_SECONDS = 5.0
_WORKING_METHODS = ("POST", "PUT", "PATCH", "DELETE")
_SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class TooMuchError(HTTPException):
    """The body passed a limit; an HTTPException, so that it comes through what reads forms."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(status, line, {"connection": "close"})


def refusal(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as every route answers it."""
    return JSONResponse({"error": line}, status, headers)


class Door:
    """See the head of this module."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is not None:
            if scope["type"] == "websocket":
                await receive()
                await WebSocketClose(1008, "refused")(scope, receive, send)
            else:
                await refused(scope, receive, send)
                self._service.metrics.requests.labels("refused", str(refused.status_code)).inc()
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._http(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if is_local(self._service.settings.host) and not is_local(_without_port(host)):
            return refusal(403, f"this service answers on this machine only, not as {host[:80]!r}")
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != host:
            return refusal(403, "requests from the pages of other sites are refused")
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        token = self._service.settings.token
        if token is None or scope["path"] in OPEN_PATHS:
            return None
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        in_query = query.pop("token", [""])[0]
        if _same(in_query, token) and scope["type"] == "http" and scope["method"] == "GET":
            # A relative address: nobody's Host header decides where this leads.
            rest = urlencode(query, doseq=True)
            kept = RedirectResponse(scope["path"].replace("//", "/") + (f"?{rest}" if rest else ""), 303)
            kept.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=scope["scheme"] == "https")
            return kept
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        given = (in_query, bearer.strip() if scheme.lower() == "bearer" else "", cookie.value if cookie else "")
        if any(_same(one, token) for one in given):
            return None
        return refusal(
            401, "a token is needed: Authorization: Bearer TOKEN", {"www-authenticate": 'Bearer realm="melisma"'}
        )

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, began, status = self._service, time.perf_counter(), 500
        started = False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if scope["method"] in _WORKING_METHODS:
                await self._admitted(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except TooMuchError as error:
            if not started:
                await refusal(error.status_code, error.detail, error.headers)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            service.metrics.requests.labels(route, str(status)).inc()
            service.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, settings = self._service, self._service.settings
        promised = Headers(scope=scope).get("content-length", "0")
        if not promised.isdecimal() or int(promised) > settings.most_upload_bytes:
            await self._drain(receive)
            raise TooMuchError(413, _too_large(settings.most_upload_bytes))
        if service.admitted >= settings.queue + settings.workers:
            await self._drain(receive)
            line = f"{service.admitted} requests are being worked on or wait; try again in {RETRY_SECONDS} s"
            headers = {"retry-after": str(RETRY_SECONDS), "connection": "close"}
            await refusal(429, line, headers)(scope, receive, send)
            return
        service.admitted += 1
        try:
            await self._app(scope, self._limited(receive), send)
        finally:
            service.admitted -= 1

    async def _drain(self, receive: Receive) -> None:
        """Read a refused body and drop it, in bounds: a client that still sends when the connection closes would see
        a reset instead of the answer."""
        left = self._service.settings.most_upload_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0:
                    message: Any = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    def _limited(self, receive: Receive) -> Receive:
        settings = self._service.settings
        size, complete, deadline = 0, False, time.monotonic() + settings.upload_seconds

        async def limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message: Any = await receive()
            except TimeoutError as error:
                raise TooMuchError(408, f"the upload took more than {settings.upload_seconds:.0f} s") from error
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > settings.most_upload_bytes:
                raise TooMuchError(413, _too_large(settings.most_upload_bytes))
            return message

        return limited


def _too_large(most: int) -> str:
    return f"the upload is larger than {most / (1 << 20):.0f} MB; send a shorter part, or as FLAC"


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]

"""The studio's page: its files are read once and served from memory, so that no request names a file."""

import hashlib
import mimetypes
import secrets
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

STATIC = Path(__file__).parent / "static"
MOUNT = "/studio"
_NONCE = b"__NONCE__"  # where index.html wants the nonce of the style that the waveform view adds
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}

router = APIRouter(include_in_schema=False)


@lru_cache(maxsize=1)
def files() -> dict[str, tuple[bytes, str]]:
    """Path below the page -> content and media type."""
    found = {}
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
            found[path.relative_to(STATIC).as_posix()] = (path.read_bytes(), kind)
    return found


def security_headers(nonce: str) -> dict[str, str]:
    """Only our own files, no inline script, no frame around us, the microphone for ourselves."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": f"'self' 'nonce-{nonce}'",
        "img-src": "'self' data: blob:",
        "media-src": "'self' blob:",
        "connect-src": "'self'",
        "worker-src": "'self'",
        "font-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


@router.get(f"{MOUNT}/")
def page() -> Response:
    """The page itself."""
    nonce = secrets.token_urlsafe(16)
    content = files()["index.html"][0].replace(_NONCE, nonce.encode())
    headers = security_headers(nonce) | {"Cache-Control": "no-store"}
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)


@router.get("/")
@router.get(MOUNT)
def home() -> Response:
    """Lead to the page."""
    return RedirectResponse(f"{MOUNT}/")


@router.get(MOUNT + "/static/{name:path}")
def static(name: str, request: Request) -> Response:
    """A file of the page."""
    if name not in files() or name == "index.html":
        return Response("no such file", 404)
    content, kind = files()[name]
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = security_headers("none") | {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)

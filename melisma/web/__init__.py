"""The service: a vocoder behind HTTP, and the studio's page in front of it.

    from melisma.web import Settings, create_app
    app = create_app(Settings())  # an ASGI application; melisma serve runs it

Importing this loads nothing: the decoder, which runs in a process of its own, lives here too and starts fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melisma.web.app import create_app
    from melisma.web.settings import Settings

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from melisma.web.app import create_app

        return create_app
    if name == "Settings":
        from melisma.web.settings import Settings

        return Settings
    raise AttributeError(f"module 'melisma.web' has no attribute {name!r}")

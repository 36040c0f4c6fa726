"""What the tiles of AMX multiply: numbers rounded to bfloat16, or what float32 holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from melisma.kernels import choice, ready

_halved: ContextVar[bool] = ContextVar("halved", default=False)


@contextmanager
def halved(wanted: bool = True) -> Iterator[None]:
    """Within this block they round to bfloat16, where the CPU has them."""
    token = _halved.set(wanted and ready.usable(choice.tiles()))
    try:
        yield
    finally:
        _halved.reset(token)


def is_halved() -> bool:
    """Whether this is within such a block."""
    return _halved.get()

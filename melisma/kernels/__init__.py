"""Kernels: the same computations as the layers' plain torch code, faster; each is checked against it.

``choice`` says which of them this machine can run, and why.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from types import ModuleType

LANES = 16  # float32 that are computed side by side: a register of AVX-512, two of AVX2


def numba_part(name: str) -> Callable[[], ModuleType]:
    """A module of compiled code when it is first asked for: numba takes .3 s to import, and not everyone needs it."""
    return lru_cache(maxsize=1)(partial(import_module, f"{__name__}.{name}"))

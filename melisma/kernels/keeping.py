"""Machine code that is kept from one process to the next, until any kernel changes.

numba looks at the file of the function alone. But code of other files becomes part of it, and so do their constants:
after an upgrade it would go on with layouts of before, and sing noise.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any


def kept(function: Callable[..., Any], fastmath: frozenset[str]) -> Callable[..., Any]:
    """Compile on the first call, without the GIL; keep the machine code beside the module or in the user's cache."""
    from numba import njit

    options: dict[str, Any] = {"nogil": True, "fastmath": set(fastmath), "error_model": "numpy"}
    try:
        dispatcher: Any = njit(function, cache=True, **options)
    except RuntimeError:  # no folder may be written
        return njit(function, **options)
    cache: Any = getattr(dispatcher, "_cache", None)
    index: Any = getattr(cache, "_cache_file", None)
    if not hasattr(index, "_source_stamp"):  # another numba, whose cache cannot be told: rather none
        return njit(function, **options)
    index._source_stamp = (index._source_stamp, sources())
    if hasattr(cache, "_load_overload"):
        cache.load_overload = partial(_loaded, cache)
    return dispatcher


def _loaded(cache: Any, signature: Any, target: Any) -> Any:
    """Machine code that was kept, or None.

    numba first imports all that it can compile, and with it scipy's linear algebra: three quarters of a second that
    machine code has no need of. Its compiler does the same when there is something to compile.
    """
    from numba.core.runtime import rtsys

    rtsys.initialize(target)
    try:
        return cache._load_overload(signature, target)
    except PermissionError:  # Windows, where another process has the file open
        return None


@lru_cache(maxsize=1)
def sources() -> str:
    """What all kernels are written like."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()

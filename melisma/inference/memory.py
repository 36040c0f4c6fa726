"""Keep freed memory for the next call.

Synthesis frees and asks again for arrays of a few megabytes. By default the C library gives such memory back to the
system, which then clears every page anew: 10 to 20 % of the time (12,000 page faults for eight seconds of audio).
"""

import ctypes
import sys
from functools import lru_cache

# glibc's mallopt parameters (malloc.h), and how much it may keep.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 * 2**20


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Tell glibc to keep up to ``KEPT_BYTES`` of freed memory; False where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_MMAP_THRESHOLD, KEPT_BYTES), mallopt(_TRIM_THRESHOLD, KEPT_BYTES)])

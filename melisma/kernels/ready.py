"""Whether the kernels, which are slow to compile, have been compiled on this machine.

LLVM takes one to two minutes for all of them, once; numba keeps the machine code. Nobody shall wait for it:
until it is there, the plain code sings, and a process of its own compiles. A file in the user's cache says when it is
done; its name changes with the sources, the versions and the CPU.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

from melisma.kernels import choice, keeping

_COMPILER = "melisma.inference.compiling"  # the module that runs every kernel once
_LONGEST_SECONDS = 900.0  # after that a compiler that has not come back is taken for dead
_known = {"ready": False, "started": False}
_compilers: list[subprocess.Popen[bytes]] = []  # kept: nobody waits for them


def ready() -> bool:
    """Whether kernels can be taken without waiting; where not, their compilation is begun, once."""
    if not _known["ready"]:
        _known["ready"] = marker().exists()
        if not _known["ready"] and not _known["started"]:
            _known["started"] = True
            _begin()
    return _known["ready"]


def usable(chosen: choice.Choice) -> bool:
    """Whether a kernel that was chosen for this machine can be taken here and now."""
    return chosen.fast and choice.kernels_allowed() and ready()


def force() -> None:
    """Take kernels in this process from now on; what is not compiled yet is waited for."""
    _known["ready"] = True


def declare() -> None:
    """Say that all kernels have been compiled, here and to processes to come."""
    force()
    try:
        marker().parent.mkdir(parents=True, exist_ok=True)
        marker().touch()
        _lock().unlink(missing_ok=True)
    except OSError:  # no folder may be written: then it is known in this process only
        return


@lru_cache(maxsize=1)
def marker() -> Path:
    """The file that says so."""
    default = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or default or Path.home() / ".cache")
    numba, machine = importlib.metadata.version("numba"), (platform.machine(), choice.cpu_features())
    facts = (str(Path(__file__).parent), keeping.sources(), numba, sys.version, machine)
    return folder / "melisma" / f"kernels-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def _lock() -> Path:
    return marker().with_suffix(".busy")


def _begin() -> None:
    """Start the compiler unless another process has done so, or this is no Python that can be started."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return
    try:
        _lock().parent.mkdir(parents=True, exist_ok=True)
        if _lock().exists() and time.time() - _lock().stat().st_mtime > _LONGEST_SECONDS:
            _lock().unlink(missing_ok=True)
        _lock().touch(exist_ok=False)
    except OSError:  # it exists, or nothing may be written
        return
    nothing = subprocess.DEVNULL
    # It outlives this process: what it makes is for those to come.
    command = [sys.executable, "-m", _COMPILER]
    _compilers.append(subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True))

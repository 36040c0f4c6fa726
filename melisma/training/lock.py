"""One run a folder."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melisma.errors import MelismaError

NAME = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is made; a folder that stays empty is taken away again.

    The operating system holds the lock (``flock``), so that of a process that was killed is free at once; the file's
    text only says whose it is.

    Raises:
        MelismaError: another run holds it, or the folder cannot be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _take(folder / NAME)
    except OSError as error:
        raise MelismaError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / NAME).unlink()
        os.close(handle)
        if made:
            with suppress(OSError):
                folder.rmdir()


def _take(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            raise MelismaError(
                f"{path.parent}: another run writes here ({holder}); wait for it, stop it, or choose another folder"
            ) from error
        # Whoever held it before may have taken the file away between our opening and locking it.
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                os.truncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return handle
        os.close(handle)

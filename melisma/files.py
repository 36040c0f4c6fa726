"""Files that appear whole or not at all, and folders that one run writes at a time."""

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melisma.errors import MelismaError

LOCK = "lock"

_unfinished: set[Path] = set()
"""Temporary files of this process that have not been renamed or removed yet."""


def free_megabytes(folder: Path) -> float:
    """Room left on the disk of a folder in MB; infinite when that cannot be told."""
    try:
        return shutil.disk_usage(folder).free / 1e6
    except OSError:
        return float("inf")


def write_failure(target: Path, reason: object) -> MelismaError:
    """The error for a write that broke off: what, where and what to do about it."""
    free = free_megabytes(target.parent)
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    text = "the disk is full" if free < 1 else text.splitlines()[0].strip().rstrip(".: ")
    return MelismaError(
        f"{target}: could not be written: {text} ({free:.0f} MB are free in {target.parent}); nothing was left behind: "
        "free some space or choose another folder"
    )


def temporary_beside(target: Path) -> Path:
    """Create an empty hidden file beside ``target`` with the same suffix and return its path.

    It ends in :func:`put_in_place` or :func:`remove_temporary`. A signal may come between any two instructions, also
    before the caller holds the path; so the file is noted before it exists, for :func:`remove_unfinished`.

    Raises:
        MelismaError: the folder does not exist or cannot be written, or ``target`` is itself a folder.
    """
    if target.is_dir():
        raise MelismaError(f"{target}: is a folder; name a file in it")
    if not target.parent.is_dir():
        raise MelismaError(f"{target}: the folder {target.parent} does not exist; make it first or choose another")
    temporary = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(4)}.part{target.suffix}")
    _unfinished.add(temporary)
    try:
        temporary.open("xb").close()
    except OSError as error:
        _unfinished.discard(temporary)
        raise MelismaError(
            f"{target}: cannot write in {target.parent}: {error.strerror}; choose another folder"
        ) from error
    return temporary


def put_in_place(temporary: Path, target: Path) -> None:
    """Flush ``temporary`` to the disk and rename it to ``target``; an ``OSError`` here means that it did not fit."""
    with temporary.open("rb+") as handle:
        os.fsync(handle.fileno())
    temporary.replace(target)
    _unfinished.discard(temporary)


def remove_temporary(temporary: Path) -> None:
    """Remove a file of :func:`temporary_beside`; nothing happens when it was renamed or removed before."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
    _unfinished.discard(temporary)


def remove_unfinished() -> None:
    """Remove the temporary files that an interruption kept their writers from removing; for the end of a process."""
    for temporary in list(_unfinished):
        remove_temporary(temporary)


@contextmanager
def replace_on_success(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends well, else remove it.

    Raises:
        MelismaError: the folder cannot be written, or an ``OSError`` (a full disk) broke the write off.
    """
    target = Path(path)
    temporary = temporary_beside(target)
    try:
        yield temporary
        put_in_place(temporary, target)
    except OSError as error:
        raise write_failure(target, error) from error
    finally:
        remove_temporary(temporary)


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
        handle = _take(folder / LOCK)
    except OSError as error:
        raise MelismaError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        os.close(handle)
        if made:
            with suppress(OSError):
                folder.rmdir()


def _take(path: Path) -> int:
    """Descriptor of the lock file, locked, with this process' name in it."""
    import fcntl

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

"""Files that appear whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melisma.errors import MelismaError


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

    Raises:
        MelismaError: the folder does not exist or cannot be written, or ``target`` is itself a folder.
    """
    if target.is_dir():
        raise MelismaError(f"{target}: is a folder; name a file in it")
    if not target.parent.is_dir():
        raise MelismaError(f"{target}: the folder {target.parent} does not exist; make it first or choose another")
    temporary = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        temporary.open("xb").close()
    except OSError as error:
        raise MelismaError(
            f"{target}: cannot write in {target.parent}: {error.strerror}; choose another folder"
        ) from error
    return temporary


def put_in_place(temporary: Path, target: Path) -> None:
    """Flush ``temporary`` to the disk and rename it to ``target``; an ``OSError`` here means that it did not fit."""
    with temporary.open("rb+") as handle:
        os.fsync(handle.fileno())
    temporary.replace(target)


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
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def only_run(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for one process; the lock goes with the process, however it ends.

    Args:
        folder: made where it is missing; the lock is a hidden file in it.
        what: names the work in the error, ``preparing`` for instance.

    Raises:
        MelismaError: another process holds the folder, or it cannot be written.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise MelismaError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MelismaError(
                f"{folder}: another run is {what} it just now; wait for it, or choose another folder"
            ) from error
        yield

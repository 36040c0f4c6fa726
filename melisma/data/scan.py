"""Find the recordings of source folders, and what a ``manifest.json`` beside them says of each."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melisma.errors import MelismaError

MANIFEST = "manifest.json"
SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm", ".aif", ".aiff", ".aifc",
    ".au", ".caf", ".w64", ".rf64",
)  # fmt: skip
# Columns of a manifest that are taken over as they are; the others it may have are left alone.
TAKEN_OVER = ("licence", "credit", "language", "note")


@dataclass(frozen=True)
class Defaults:
    """What holds for recordings of which no manifest says it."""

    kind: str = "singing"
    speaker: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Recording:
    """One file.

    Attributes:
        key: its name in the dataset.
        path: where it is.
        name: path relative to its source folder, with ``/`` between.
        kind: ``singing`` or ``speech``.
        speaker: from the manifest, else the caller's, else the first folder on the way to it.
        facts: licence, credit, language and note.
    """

    key: str
    path: Path
    name: str
    kind: str
    speaker: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A recording that is not in the dataset, and why, in words."""

    name: str
    reason: str


def scan(
    sources: Sequence[Path],
    defaults: Defaults | None = None,
    left_out: frozenset[str] | set[str] = frozenset(),
    but: Path | None = None,
) -> tuple[list[Recording], list[Skipped]]:
    """Recordings of folders (searched to the bottom; hidden ones are passed over) and of single files.

    Args:
        sources: folders and files, in the order that the dataset shall have.
        defaults: for what no manifest says.
        left_out: relative paths to leave out (a held-out list).
        but: a folder to pass over, the dataset's own.

    Returns:
        The recordings in a fixed order, and what a manifest names but is not there.

    Raises:
        MelismaError: a source that does not exist, a manifest that cannot be read, or no recording at all.
    """
    defaults = defaults or Defaults()
    found: list[Recording] = []
    skipped: list[Skipped] = []
    taken: set[str] = set()
    for source in sources:
        rows = _manifest_rows(source) if source.is_dir() else {}
        names = list(_names(source, but))
        gone = [name for name in rows if name not in set(names) and not (source / name).is_file()]
        if rows and len(gone) == len(rows):
            raise MelismaError(f"{source / MANIFEST}: none of its {len(rows)} paths is there; {gone[0]!r}, for one")
        skipped += [Skipped(name, f"named in {MANIFEST} but not there") for name in gone if name not in left_out]
        names += [name for name in rows if name not in set(names) and name not in gone]
        for name in names:
            if name in left_out:
                continue
            path = (source / name if source.is_dir() else source).absolute()
            found.append(_recording(_key(name, taken), path, name, rows.get(name, {}), source, defaults))
    if not found:
        where = ", ".join(map(str, sources)) or "no folder"
        raise MelismaError(f"{where}: holds no recording to use; known are {', '.join(SUFFIXES)}")
    return found, skipped


def _recording(key: str, path: Path, name: str, row: dict[str, Any], source: Path, defaults: Defaults) -> Recording:
    facts = {column: str(row.get(column) or "") for column in TAKEN_OVER}
    facts["licence"] = facts["licence"] or defaults.licence
    folder = name.split("/")[0] if "/" in name else (source.name if source.is_dir() else source.parent.name)
    speaker = str(row.get("speaker") or defaults.speaker or folder)
    return Recording(key, path, name, str(row.get("kind") or defaults.kind), speaker, facts)


def _names(source: Path, but: Path | None) -> Iterator[str]:
    """Relative paths of the recordings of a source, sorted."""
    if source.is_file():
        yield source.name
        return
    if not source.is_dir():
        raise MelismaError(f"{source}: no such file or folder; give recordings, or a folder with some")
    own = but.resolve() if but is not None else None
    names = []
    for folder, subfolders, files in os.walk(source):
        here = Path(folder)
        subfolders[:] = [sub for sub in subfolders if not sub.startswith(".") and (here / sub).resolve() != own]
        names += [(here / file).relative_to(source).as_posix() for file in files if _is_audio(file)]
    yield from sorted(names)


def _is_audio(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _manifest_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of a folder's manifest by path; none where there is no manifest."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        return {str(row["path"]): row for row in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MelismaError(f"{path}: needs to be a JSON list of rows that have a path: {error}") from error


def _key(name: str, taken: set[str]) -> str:
    """A free name in a dataset for the recording ``name``, without a dot in its base name."""
    folder, _, base = name.rpartition("/")
    stem = re.sub(r"[.\x00-\x1f]", "_", base.rpartition(".")[0]) or "_"
    wanted = f"{folder}/{stem}" if folder else stem
    key, number = wanted, 2
    while key in taken:
        key, number = f"{wanted}-{number}", number + 1
    taken.add(key)
    return key

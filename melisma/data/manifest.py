"""What a data folder holds (``manifest.json``) and what a list keeps out of training (``recipes/heldout.txt``)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melisma.errors import MelismaError


@dataclass(frozen=True)
class Entry:
    """A line of a held-out list: a file, or a part of it in seconds."""

    path: str
    start_s: float | None = None
    end_s: float | None = None


def read_list(path: Path) -> list[list[Entry]]:
    """Read a held-out list: entries ``path [start end]``; a blank line ends a clip, ``#`` begins a comment line.

    Raises:
        MelismaError: a line that is neither.
    """
    groups: list[list[Entry]] = [[]]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MelismaError(f"{path}: cannot read the list of clips: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if line.startswith("#"):
            continue
        if not words:
            groups.append([])
            continue
        try:
            start, end = (float(words[1]), float(words[2])) if len(words) == 3 else (None, None)
        except ValueError:
            start, end = None, -1.0
        if len(words) not in (1, 3) or (end is not None and end <= (start or 0.0)):
            raise MelismaError(f"{path}:{number}: an entry is 'path' or 'path start end' in seconds, not {line!r}")
        groups[-1].append(Entry(words[0], start, end))
    return [group for group in groups if group]


def held_out(path: Path) -> set[str]:
    """Relative paths that a held-out list names, in whole or in part."""
    return {entry.path for group in read_list(path) for entry in group}


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of ``folder/manifest.json`` by their path relative to the folder, in the file's order.

    Raises:
        MelismaError: no such file, or one that is not a list of rows with a path, a kind and a sample rate.
    """
    path = folder / "manifest.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {
            row["path"]: {"note": "", "kind": row["kind"], "sample_rate": row["sample_rate"], **row} for row in rows
        }
    except OSError as error:
        raise MelismaError(f"{path}: not found; give the folder that holds the recordings and manifest.json") from error
    except (ValueError, TypeError, KeyError) as error:
        raise MelismaError(f"{path}: needs a list of rows with path, kind and sample_rate: {error}") from error


def real_band_hz(note: str, sample_rate: int) -> float:
    """What a manifest row's note and rate say about the highest real frequency."""
    for mark, band in (("11.6 kHz", 11600.0), ("16 kHz", 16000.0), ("20.3 kHz", 20300.0)):
        if mark in note:
            return band
    return sample_rate / 2 * 0.95

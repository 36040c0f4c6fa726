"""The clips on which models are judged: a list file beside the recipes, the recordings in a data folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melisma.audio.io import load_training_audio
from melisma.data.corpus import real_band_hz
from melisma.errors import MelismaError

# Entries that are joined into one clip fade into each other over this long.
JOIN_SECONDS = 0.01


@dataclass(frozen=True)
class Entry:
    """A line of the list: a file, or a part of it in seconds."""

    path: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class EvaluationClip:
    """One clip.

    Attributes:
        name: the path of its first entry, with its start.
        kind: ``singing`` or ``speech``.
        audio: ``(samples,)`` float32.
        sample_rate: Hz.
        band_hz: highest frequency at which the recording holds anything real (an MP3 ends at 16 kHz).
    """

    name: str
    kind: str
    audio: np.ndarray
    sample_rate: int
    band_hz: float


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


def load_clips(data_folder: Path, list_file: Path, sample_rate: int) -> list[EvaluationClip]:
    """Load the clips of a list at one sample rate; their kinds stand in ``data_folder/manifest.json``."""
    manifest = data_folder / "manifest.json"
    if not manifest.exists():
        raise MelismaError(f"{manifest}: not found; give the folder that holds the recordings and their manifest.json")
    rows = {row["path"]: row for row in json.loads(manifest.read_text(encoding="utf-8"))}
    clips = []
    for group in read_list(list_file):
        for entry in group:
            if entry.path not in rows:
                raise MelismaError(f"{list_file}: {entry.path} is not in {manifest}")
        audio = join([_part(data_folder, entry, sample_rate) for entry in group], sample_rate)
        name = group[0].path + (f"@{group[0].start_s:g}" if group[0].start_s is not None else "")
        row = rows[group[0].path]
        band = min(real_band_hz(row.get("note", ""), row["sample_rate"]), sample_rate / 2)
        clips.append(EvaluationClip(name, row["kind"], audio, sample_rate, band))
    return clips


def join(parts: list[np.ndarray], sample_rate: int) -> np.ndarray:
    """Join recordings end to end with short cross-fades."""
    fade = round(JOIN_SECONDS * sample_rate)
    rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).astype(np.float32)
    whole = parts[0]
    for part in parts[1:]:
        middle = whole[-fade:] * rise[::-1] + part[:fade] * rise
        whole = np.concatenate([whole[:-fade], middle, part[fade:]])
    return whole


def _part(data_folder: Path, entry: Entry, sample_rate: int) -> np.ndarray:
    audio = np.asarray(load_training_audio(data_folder / entry.path, sample_rate, channel="mean"), dtype=np.float32)
    if entry.start_s is None or entry.end_s is None:
        return audio
    return audio[round(entry.start_s * sample_rate) : round(entry.end_s * sample_rate)]

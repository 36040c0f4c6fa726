"""The clips on which models are judged: a list file beside the recipes, the recordings in a data folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melisma.audio.io import load_training_audio
from melisma.data.manifest import Entry, read_list, read_manifest, real_band_hz
from melisma.errors import MelismaError

# Entries that are joined into one clip fade into each other over this long.
JOIN_SECONDS = 0.01


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


def load_clips(data_folder: Path, list_file: Path, sample_rate: int) -> list[EvaluationClip]:
    """Load the clips of a list at one sample rate; their kinds stand in ``data_folder/manifest.json``."""
    rows = read_manifest(data_folder)
    clips = []
    for group in read_list(list_file):
        for entry in group:
            if entry.path not in rows:
                raise MelismaError(f"{list_file}: {entry.path} is not in {data_folder / 'manifest.json'}")
        audio = join([_part(data_folder, entry, sample_rate) for entry in group], sample_rate)
        name = group[0].path + (f"@{group[0].start_s:g}" if group[0].start_s is not None else "")
        row = rows[group[0].path]
        band = min(real_band_hz(row["note"], row["sample_rate"]), sample_rate / 2)
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

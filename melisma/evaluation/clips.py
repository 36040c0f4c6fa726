"""The clips on which models are judged: of a list file beside the recipes, of any folder, or of a prepared dataset."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melisma.audio.io import load_training_audio, read_audio
from melisma.audio.resample import resample
from melisma.data.band import real_band
from melisma.data.dataset import INDEX, Dataset
from melisma.data.manifest import Entry, read_list, read_manifest, real_band_hz
from melisma.data.scan import Skipped, scan
from melisma.errors import MelismaError

# Entries that are joined into one clip fade into each other over this long.
JOIN_SECONDS = 0.01
SHORTEST_SECONDS = 0.3
SILENT_PEAK = 1e-4
# A long recording is judged where it sounds most, looked for in steps of this.
STEP_SECONDS = 0.5


@dataclass(frozen=True)
class EvaluationClip:
    """One clip.

    Attributes:
        name: the path of its first entry, with its start where it is a part.
        kind: ``singing``, ``speech`` or ``made``.
        audio: ``(samples,)`` float32.
        sample_rate: Hz.
        band_hz: highest frequency at which the recording holds anything real (an MP3 ends at 16 kHz).
        stem: file name without folder and suffix, by which published audio of the same clip is found.
        start_s: where in that file it begins.
    """

    name: str
    kind: str
    audio: np.ndarray
    sample_rate: int
    band_hz: float
    stem: str = ""
    start_s: float = 0.0


def load_clips(data_folder: Path, list_file: Path, sample_rate: int) -> list[EvaluationClip]:
    """Load the clips of a list at one sample rate; their kinds stand in ``data_folder/manifest.json``."""
    groups, rows = read_list(list_file), read_manifest(data_folder)
    clips = []
    for group in groups:
        for entry in group:
            if entry.path not in rows:
                raise MelismaError(f"{list_file}: {entry.path} is not in {data_folder / 'manifest.json'}")
        audio = join([_part(data_folder, entry, sample_rate) for entry in group], sample_rate)
        first = group[0]
        name = first.path + (f"@{first.start_s:g}" if first.start_s is not None else "")
        row = rows[first.path]
        band = min(real_band_hz(row["note"], row["sample_rate"]), sample_rate / 2)
        stem = Path(first.path).stem if len(group) == 1 else ""
        clips.append(EvaluationClip(name, row["kind"], audio, sample_rate, band, stem, first.start_s or 0.0))
    return clips


def find_clips(data: Path, sample_rate: int, longest_s: float) -> tuple[list[EvaluationClip], list[Skipped]]:
    """Clips of any folder of recordings, of one file, or of a dataset that ``melisma prepare`` made.

    Args:
        data: the folder, searched to the bottom, or the file.
        sample_rate: Hz of the clips.
        longest_s: of a longer recording the stretch of this length that sounds most is taken; 0 takes all.

    Returns:
        The clips, and what could not be used with the reasons.

    Raises:
        MelismaError: nothing that can be used.
    """
    if (data / INDEX).is_file():
        return _of_dataset(data, sample_rate, longest_s), []
    recordings, skipped = scan([data])
    clips = []
    for recording in recordings:
        try:
            samples, rate = read_audio(recording.path)
        except MelismaError as error:
            skipped.append(Skipped(recording.name, str(error).removeprefix(f"{recording.path}: ")))
            continue
        mono = samples.mean(axis=0)
        if len(mono) < SHORTEST_SECONDS * rate or np.abs(mono).max() < SILENT_PEAK:
            skipped.append(Skipped(recording.name, f"silent, or shorter than {SHORTEST_SECONDS:g} s"))
            continue
        band = min(real_band(mono, rate), real_band_hz(recording.facts["note"], rate), sample_rate / 2)
        audio = resample(mono, rate, sample_rate)
        start, stop = loudest_stretch(audio, sample_rate, longest_s)
        name = recording.name + (f"@{start / sample_rate:g}" if stop - start < len(audio) else "")
        piece = audio[start:stop]
        stem = Path(recording.name).stem
        clips.append(EvaluationClip(name, recording.kind, piece, sample_rate, band, stem, start / sample_rate))
    if not clips:
        raise MelismaError(f"{data}: none of its {len(skipped)} recordings can be used; {skipped[0].reason}")
    return clips, skipped


def _of_dataset(folder: Path, sample_rate: int, longest_s: float) -> list[EvaluationClip]:
    dataset = Dataset.open(folder)
    clips = []
    for index, entry in enumerate(dataset.clips):
        audio = resample(dataset.audio(index, 0, entry.samples), dataset.sample_rate, sample_rate)
        start, stop = loudest_stretch(audio, sample_rate, longest_s)
        band, begin = min(entry.band_hz, sample_rate / 2), start / sample_rate
        stem = entry.key.rpartition("/")[2]
        clips.append(EvaluationClip(entry.key, entry.kind, audio[start:stop], sample_rate, band, stem, begin))
    return clips


def loudest_stretch(audio: np.ndarray, sample_rate: int, longest_s: float) -> tuple[int, int]:
    """First and last (exclusive) sample of the stretch of ``longest_s`` seconds with most energy; 0 takes all."""
    length, step = round(longest_s * sample_rate), max(1, round(STEP_SECONDS * sample_rate))
    if length <= 0 or len(audio) <= length:
        return 0, len(audio)
    total = np.concatenate([[0.0], np.cumsum(np.square(audio, dtype=np.float64))])
    starts = np.arange(0, len(audio) - length + 1, step)
    start = int(starts[np.argmax(total[starts + length] - total[starts])])
    return start, start + length


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

"""Recordings to a dataset: scan, run the jobs, put the parts together in order, say what is in it.

dataset/
  index.json, shard-*.tar     see melisma.data.dataset
  manifest.csv                a line a clip: source, speaker, licence, loudness, band, F0
  skipped.csv                 what was left out, and why
  prepared.json               settings, a fingerprint of all that went in, and the clips of each recording
  .parts/                     finished jobs while it is being made; a later run goes on from them
"""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melisma.config import lookup
from melisma.data.dataset import Dataset
from melisma.data.engines import ENGINES
from melisma.data.made import phrases
from melisma.data.parts import Job, Outcome, PrepareSettings, fingerprint, load_part, part_path, save_part
from melisma.data.scan import Recording, Skipped
from melisma.data.shards import SHARD_BYTES, DatasetWriter, NewClip, read_clips
from melisma.errors import MelismaError
from melisma.f0.estimate import ESTIMATORS
from melisma.files import free_megabytes, locked, replace_on_success

PARTS, PREPARED, MANIFEST, SKIPPED = ".parts", "prepared.json", "manifest.csv", "skipped.csv"
COLUMNS = (
    "key", "source", "start_s", "seconds", "kind", "speaker", "language", "licence", "credit", "note", "source_rate",
    "source_channels", "band_hz", "loudness_lufs", "peak_db", "clipped_samples", "f0", "voiced", "f0_median_hz",
    "f0_lowest_hz", "f0_highest_hz", "twin_semitones", "sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """What a run made: the dataset, lines of its manifest, what was skipped, and whether all of it was there before."""

    dataset: Dataset
    rows: list[dict[str, Any]]
    skipped: list[Skipped]
    was_there: bool = False


def prepare(
    recordings: Sequence[Recording],
    folder: Path,
    settings: PrepareSettings,
    made_seconds: float = 0.0,
    skipped: Sequence[Skipped] = (),
    workers: int = 1,
    engine: str = "local",
    sample_format: str = "pcm16",
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[float], None] = lambda share: None,
) -> Prepared:
    """Make a dataset; the bytes do not depend on the number of workers, the engine, or interruptions on the way.

    Of a dataset that is there, what is wanted again is taken: a song more costs the work of a song.

    Args:
        recordings: what :func:`melisma.data.scan.scan` found.
        folder: of the dataset; made where it is missing.
        settings: what decides the clips.
        made_seconds: so much of the built-in singer besides.
        skipped: what was left out before.
        workers: processes.
        engine: a name of :data:`melisma.data.engines.ENGINES`.
        sample_format: ``pcm16`` or ``float``.
        shard_bytes: size at which a shard ends.
        progress: called with the share done, 0 to 1.

    Raises:
        MelismaError: unknown names, impossible settings, nothing that can be used, a full disk, or another run that is
            making the same folder.
    """
    run = lookup(ENGINES, engine, "engine")
    lookup(ESTIMATORS, settings.f0_method, "F0 estimator")
    _check(settings, workers)
    jobs: list[Job] = [*recordings, *phrases(made_seconds)]
    if not jobs:
        raise MelismaError(f"{folder}: nothing to make a dataset from; give recordings, or seconds of made voices")
    form = [sample_format, shard_bytes, [asdict(one) for one in skipped]]
    with locked(folder):
        wanted = _fingerprints(jobs, settings)
        before = _before(folder)
        if before.get("stamp") == _stamp(wanted, form):
            rows, left = (_read_table(folder / name) for name in (MANIFEST, SKIPPED))
            return Prepared(Dataset.open(folder), rows, [Skipped(**row) for row in left], was_there=True)
        (folder / PARTS).mkdir(exist_ok=True)
        _take_again(folder, before, sample_format, set(wanted))
        (folder / PREPARED).unlink(missing_ok=True)
        outcomes: dict[int, Outcome] = {}
        for outcome in run(dict(enumerate(jobs)), settings, folder / PARTS, workers):
            outcomes[outcome.job] = outcome
            progress(0.95 * len(outcomes) / len(jobs))
        done = [(job, outcomes[number]) for number, job in enumerate(jobs)]
        rows, unused, clips = _assemble(folder, done, settings, sample_format, shard_bytes)
        unused = [*skipped, *unused]
        _write_table(folder / MANIFEST, COLUMNS, rows)
        _write_table(folder / SKIPPED, ("name", "reason"), [asdict(one) for one in unused])
        stamp = _stamp([outcome.fingerprint for _, outcome in done], form)
        with replace_on_success(folder / PREPARED) as temporary:
            content = {"settings": asdict(settings), "stamp": stamp, "sample_format": sample_format, "clips": clips}
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.rmtree(folder / PARTS)
        progress(1.0)
    return Prepared(Dataset.open(folder), rows, unused)


def _check(settings: PrepareSettings, workers: int) -> None:
    if not 8000 <= settings.sample_rate <= 192000:
        raise MelismaError(f"a dataset of {settings.sample_rate} Hz? choose a rate from 8000 to 192000")
    if not 16 <= settings.hop_length <= settings.sample_rate // 20:
        raise MelismaError(f"a hop of {settings.hop_length} samples? choose 16 to {settings.sample_rate // 20}")
    if settings.longest_s < 1.0:
        raise MelismaError(f"clips of at most {settings.longest_s:g} s? choose 1 or more")
    if workers < 1:
        raise MelismaError(f"{workers} jobs at once? choose 1 or more")


def _name(job: Job) -> str:
    return job.name if isinstance(job, Recording) else job.key


def _stamp(fingerprints: list[str], form: list[Any]) -> str:
    """Fingerprint of everything that decides the bytes of the dataset."""
    return hashlib.sha256(json.dumps([fingerprints, form]).encode()).hexdigest()


def _fingerprints(jobs: list[Job], settings: PrepareSettings) -> list[str]:
    """Of every job; empty for one that cannot be read."""
    found = []
    for job in jobs:
        try:
            found.append(fingerprint(job, settings))
        except OSError:
            found.append("")
    return found


def _before(folder: Path) -> dict[str, Any]:
    """What an earlier run says about the dataset in the folder; empty without one."""
    try:
        found = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _take_again(folder: Path, before: dict[str, Any], sample_format: str, wanted: set[str]) -> None:
    """Make parts from the dataset that is there; what cannot be read from it is made anew."""
    clips = before.get("clips")
    if before.get("sample_format") != sample_format or not isinstance(clips, dict) or not wanted & set(clips):
        return
    try:
        there = read_clips(Dataset.open(folder))
        for name in sorted(wanted & set(clips)):
            part = part_path(folder / PARTS, name)
            if not part.exists():
                save_part(part, [there[key]() for key in clips[name]])
    except (MelismaError, OSError, ValueError, KeyError, TypeError):
        if free_megabytes(folder) < 1:
            raise


def _assemble(
    folder: Path, done: list[tuple[Job, Outcome]], settings: PrepareSettings, sample_format: str, shard_bytes: int
) -> tuple[list[dict[str, Any]], list[Skipped], dict[str, list[str]]]:
    """Write the parts in order into shards.

    Returns:
        the lines of the manifest, what was not used, and the keys of the clips by the fingerprint of their job.
    """
    parts = {o.fingerprint: part_path(folder / PARTS, o.fingerprint) for _, o in done if not o.reason}
    if not parts:
        raise MelismaError(f"none of {len(done)} recordings can be used; {_name(done[0][0])}: {done[0][1].reason}")
    needed = sum(path.stat().st_size for path in parts.values()) / 1e6 * (0.6 if sample_format == "pcm16" else 1.05)
    if free_megabytes(folder) < needed:
        raise MelismaError(f"{folder}: {needed:.0f} MB are needed and {free_megabytes(folder):.0f} free; make room")
    rows: list[dict[str, Any]] = []
    skipped = [Skipped(_name(job), outcome.reason) for job, outcome in done if outcome.reason]
    seen: dict[str, str] = {}
    clips: dict[str, list[str]] = {}
    with DatasetWriter(folder, settings.sample_rate, settings.hop_length, sample_format, shard_bytes) as writer:
        for job, outcome in done:
            if outcome.reason:
                continue
            for clip in load_part(parts[outcome.fingerprint]):
                digest = str(clip.facts.get("sha256") or clip.key)
                if seen.setdefault(digest, _name(job)) != _name(job):
                    skipped.append(Skipped(_name(job), f"the same bytes as {seen[digest]}"))
                    break
                writer.add(clip)
                rows.append(_row(clip, settings))
                clips.setdefault(outcome.fingerprint, []).append(clip.key)
    return rows, skipped, clips


def _row(clip: NewClip, settings: PrepareSettings) -> dict[str, Any]:
    voiced = clip.f0_hz[clip.f0_hz > 0]
    measured = {
        "key": clip.key,
        "kind": clip.kind,
        "speaker": clip.speaker,
        "seconds": round(len(clip.audio) / settings.sample_rate, 3),
        "band_hz": round(clip.band_hz),
        "voiced": round(len(voiced) / len(clip.f0_hz), 3),
        "twin_semitones": round(clip.twin_semitones, 2),
    }
    if len(voiced):
        low, middle, high = (round(float(value), 1) for value in (voiced.min(), np.median(voiced), voiced.max()))
        measured |= {"f0_lowest_hz": low, "f0_median_hz": middle, "f0_highest_hz": high}
    return {**clip.facts, **measured}


def _write_table(path: Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    with replace_on_success(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _read_table(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

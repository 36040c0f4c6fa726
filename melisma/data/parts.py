"""One job of preparing: a recording, or a phrase of the built-in singer, to a part file with its clips.

A part's name is a fingerprint of the recording's bytes, of what is said about it and of the settings. So a job that was
done before an interruption is recognised, whoever did it, and nothing depends on the order or the number of workers.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from melisma.audio.io import AudioReader
from melisma.audio.resample import resample
from melisma.data.band import KEPT_BAND, real_band
from melisma.data.cutting import frame_levels, stretches
from melisma.data.loudness import clipped_samples, loudness_lufs
from melisma.data.made import BAND_HZ, Phrase
from melisma.data.manifest import real_band_hz
from melisma.data.scan import Recording
from melisma.data.shards import NewClip
from melisma.data.twins import draw_mismatch, shifted_by_world
from melisma.errors import MelismaError
from melisma.f0 import estimate_f0
from melisma.files import free_megabytes, replace_on_success

# Counts up when the same recording would give another part.
VERSION = 1
SHORTEST_FRAMES = 16
SILENT_PEAK = 1e-4
HIGHEST_PEAK = 0.99
# Longer recordings are read in sections of this length, so that memory stays flat.
SECTION_SECONDS = 600
MADE_LICENCE, MADE_SPEAKER = "CC0", "melisma's built-in singer"

Job = Recording | Phrase


@dataclass(frozen=True)
class PrepareSettings:
    """What decides the clips of a recording.

    Attributes:
        sample_rate: Hz of the dataset.
        hop_length: samples between F0 values.
        f0_method: a name of :data:`melisma.f0.estimate.ESTIMATORS`.
        trim: take silence away.
        longest_s: longer recordings are cut where they are quiet.
        twins: add the same voice at another pitch.
        seed: of the twins' pitches.
    """

    sample_rate: int = 44100
    hop_length: int = 512
    f0_method: str = "swift-f0"
    trim: bool = False
    longest_s: float = 60.0
    twins: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a job: the fingerprint that names its part, and the reason where it has none."""

    job: int
    fingerprint: str = ""
    reason: str = ""


def run_job(number: int, job: Job, settings: PrepareSettings, folder: Path) -> Outcome:
    """Make the part of a job, unless it is there already. A recording that is of no use gives a reason, no error."""
    name = ""
    try:
        name = fingerprint(job, settings)
        part = part_path(folder, name)
        if not part.exists():
            save_part(part, list(_clips(job, settings)))
        return Outcome(number, name)
    except MelismaError as error:
        if free_megabytes(folder) < 1:
            raise
        return Outcome(number, name, _without_path(str(error), job))
    except OSError as error:
        return Outcome(number, name, f"cannot be read: {error.strerror or error}")
    except Exception as error:  # one odd file must not end the work on ten thousand others
        return Outcome(number, name, f"unexpected {type(error).__name__}: {error}")


def part_path(folder: Path, name: str) -> Path:
    """Where the part with a fingerprint lies."""
    return folder / f"{name}.npz"


def _without_path(text: str, job: Job) -> str:
    return text.removeprefix(f"{job.path}: ") if isinstance(job, Recording) else text


def fingerprint(job: Job, settings: PrepareSettings) -> str:
    """A name for what a job gives: 32 hexadecimal digits."""
    said = {"version": VERSION, "settings": asdict(settings), "job": asdict(job) | {"path": ""}}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    if isinstance(job, Recording):
        digest.update(content_hash(job.path).encode())
    return digest.hexdigest()[:32]


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clips(job: Job, settings: PrepareSettings) -> Iterator[NewClip]:
    made = _phrase(job, settings) if isinstance(job, Phrase) else _recording(job, settings)
    for clip in made:
        yield _with_twin(clip, settings) if settings.twins else clip


def _phrase(job: Phrase, settings: PrepareSettings) -> Iterator[NewClip]:
    audio, f0_hz = job.sing(settings.sample_rate, settings.hop_length)
    facts = {"source": job.key, "licence": MADE_LICENCE, "f0": "exact", "loudness_lufs": _loudness(audio, settings)}
    band = min(BAND_HZ, KEPT_BAND * settings.sample_rate / 2)
    samples = len(f0_hz) * settings.hop_length
    yield NewClip(job.key, "made", audio[:samples], f0_hz, band, MADE_SPEAKER, facts=facts)


def _loudness(audio: np.ndarray, settings: PrepareSettings) -> float | None:
    value = loudness_lufs(audio[None], settings.sample_rate)
    return round(value, 1) if math.isfinite(value) else None


def _recording(job: Recording, settings: PrepareSettings) -> Iterator[NewClip]:
    whole = True
    pieces: list[NewClip] = []
    said = {"source": job.name, "sha256": content_hash(job.path), **job.facts, "f0": settings.f0_method}
    with AudioReader(job.path) as reader:
        section = SECTION_SECONDS * reader.sample_rate
        for start in range(0, reader.frames, section):
            audio = reader.read(start, min(section, reader.frames - start))
            for clip in _section(job, audio, reader.sample_rate, settings):
                begin = start / reader.sample_rate + clip.facts["start_s"]
                pieces.append(replace(clip, facts={**clip.facts, **said, "start_s": round(begin, 3)}))
        whole = len(pieces) == 1
    if not pieces:
        raise MelismaError(f"shorter than {SHORTEST_FRAMES} frames, or silent where it is longer")
    for number, clip in enumerate(pieces):
        yield clip if whole else replace(clip, key=f"{job.key}+{number:03d}")


def _section(job: Recording, audio: np.ndarray, rate: int, settings: PrepareSettings) -> Iterator[NewClip]:
    """Clips of ``(channels, samples)`` at the recording's own rate."""
    hop = settings.hop_length
    mono = audio.mean(axis=0)
    peak, loudest = float(np.abs(mono).max(initial=0.0)), float(np.abs(audio).max(initial=0.0))
    if peak < SILENT_PEAK:
        hint = "; its channels cancel each other" if loudest > 30 * max(peak, 1e-9) and loudest > SILENT_PEAK else ""
        raise MelismaError(f"silent: its peak is {20 * math.log10(max(peak, 1e-9)):.0f} dB of full scale{hint}")
    loudness = loudness_lufs(audio, rate)
    facts: dict[str, Any] = {
        "source_rate": rate,
        "source_channels": len(audio),
        "loudness_lufs": round(loudness, 1) if math.isfinite(loudness) else None,
        "peak_db": round(20 * math.log10(loudest), 1),
        "clipped_samples": clipped_samples(audio),
    }
    said = real_band_hz(job.facts.get("note", ""), rate)
    band = min(real_band(mono, rate), said, settings.sample_rate / 2 * KEPT_BAND)
    voice = resample(mono, rate, settings.sample_rate)
    voice *= min(1.0, HIGHEST_PEAK / float(np.abs(voice).max()))
    f0_hz = estimate_f0(voice, settings.sample_rate, hop, settings.f0_method)
    levels = frame_levels(voice, hop)
    frame_rate = settings.sample_rate / hop
    for first, last in stretches(levels, frame_rate, settings.trim, settings.longest_s):
        if last - first >= SHORTEST_FRAMES:
            piece = voice[first * hop : last * hop]
            here = facts | {"start_s": first / frame_rate}
            yield NewClip(job.key, job.kind, piece, f0_hz[first:last], band, job.speaker, facts=here)


def _with_twin(clip: NewClip, settings: PrepareSettings) -> NewClip:
    if not (clip.f0_hz > 0).any():
        return clip
    seed = hashlib.sha256(f"{settings.seed} {clip.key}".encode()).digest()
    semitones = draw_mismatch(np.random.default_rng(list(seed)))
    twin = shifted_by_world(clip.audio, clip.f0_hz, settings.sample_rate, settings.hop_length, semitones)
    return replace(clip, twin=twin, twin_semitones=semitones)


def save_part(path: Path, clips: list[NewClip]) -> None:
    """Write the clips of a job."""
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for number, clip in enumerate(clips):
        arrays[f"audio{number}"], arrays[f"f0{number}"] = clip.audio.astype(np.float32), clip.f0_hz
        if clip.twin is not None:
            arrays[f"twin{number}"] = clip.twin
        fixed = {"key": clip.key, "kind": clip.kind, "band_hz": clip.band_hz, "speaker": clip.speaker}
        rows.append({**fixed, "twin_semitones": clip.twin_semitones, "facts": dict(clip.facts)})
    with replace_on_success(path) as temporary:
        np.savez(temporary, **arrays | {"rows": np.array(json.dumps(rows))})  # type: ignore[arg-type]


def load_part(path: Path) -> list[NewClip]:
    """Clips of a part."""
    with np.load(path, allow_pickle=False) as stored:
        return [
            NewClip(**row, audio=stored[f"audio{n}"], f0_hz=stored[f"f0{n}"], twin=stored.get(f"twin{n}"))
            for n, row in enumerate(json.loads(str(stored["rows"])))
        ]

"""A training corpus in memory-mapped arrays: audio, F0 and the same voice at another pitch.

``build_corpus`` reads the clips of a manifest once; :class:`Corpus` then serves random crops. Beside each clip stands a
version of it that WORLD (Morise et al. 2016) sang at another pitch, frame by frame in step with it: its mel with the
original as target teaches a generator what to do when the mel and the F0 disagree, which is what every pitch shift is.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from melisma.audio.io import load_training_audio
from melisma.data.manifest import read_manifest, real_band_hz
from melisma.data.twins import draw_mismatch, shifted_by_world
from melisma.errors import MelismaError
from melisma.f0 import estimate_f0
from melisma.files import replace_on_success

Array = np.ndarray

# Shorter clips are left out.
SHORTEST_FRAMES = 16
# Share of the narrower band that resampling keeps.
KEPT_BAND = 0.92


@dataclass(frozen=True)
class Clip:
    """One clip of a corpus.

    Attributes:
        name: path or name.
        kind: ``singing``, ``speech`` or ``made``.
        start_frame: where it begins in the arrays, in frames.
        frames: its length.
        band_hz: nothing above this is real.
        mismatch: semitones of the WORLD version, 0 where there is none.
    """

    name: str
    kind: str
    start_frame: int
    frames: int
    band_hz: float
    mismatch: float


@dataclass(frozen=True)
class Source:
    """One recording to take in: name, kind, samples, real band in Hz, and F0 where it is known."""

    name: str
    kind: str
    audio: Array
    band_hz: float
    f0_hz: Array | None = None


def manifest_sources(folder: Path, excluded: set[str], sample_rate: int) -> Iterator[Source]:
    """Clips of ``folder/manifest.json`` that are not excluded, at the corpus' rate."""
    for path, row in read_manifest(folder).items():
        if path in excluded:
            continue
        audio = load_training_audio(folder / path, sample_rate, channel="mean")
        yield Source(path, row["kind"], audio, real_band_hz(row["note"], row["sample_rate"]))


def build_corpus(
    folder: Path,
    sources: Iterator[Source],
    sample_rate: int,
    hop_length: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda name: None,
) -> None:
    """Write ``audio.i16``, ``mismatch.i16``, ``f0.f32`` and ``clips.json`` into ``folder``.

    Audio is stored with 16 bits; a clip's length is rounded down to whole frames. ``clips.json`` comes last: a folder
    without it is no corpus, whatever else an interruption left there.

    Raises:
        MelismaError: no clip of 16 frames or more, or a given F0 with fewer frames than its audio.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clips.json").unlink(missing_ok=True)
    rng = np.random.default_rng(seed)
    clips: list[Clip] = []
    start = 0
    with (
        (folder / "audio.i16").open("wb") as audio_file,
        (folder / "mismatch.i16").open("wb") as mismatch_file,
        (folder / "f0.f32").open("wb") as f0_file,
    ):
        for source in sources:
            frames = len(source.audio) // hop_length
            if frames < SHORTEST_FRAMES:
                continue
            audio = source.audio[: frames * hop_length]
            audio = audio * min(1.0, 0.95 / max(1e-9, float(np.abs(audio).max())))
            known = source.f0_hz
            f0_hz = estimate_f0(audio, sample_rate, hop_length)[:frames] if known is None else known[:frames]
            if len(f0_hz) != frames:
                raise MelismaError(
                    f"{source.name}: {len(f0_hz)} values of F0 for {frames} frames; they must be as many"
                )
            semitones = draw_mismatch(rng) if (f0_hz > 0).any() else 0.0
            other = shifted_by_world(audio, f0_hz, sample_rate, hop_length, semitones) if semitones else audio
            for file, samples in ((audio_file, audio), (mismatch_file, other)):
                file.write(np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
            f0_file.write(f0_hz.astype("<f4").tobytes())
            clips.append(Clip(source.name, source.kind, start, frames, source.band_hz, semitones))
            start += frames
            progress(source.name)
    if not clips:
        raise MelismaError(f"{folder}: no clip of {SHORTEST_FRAMES} frames or more to make a corpus from; give some")
    header = {"sample_rate": sample_rate, "hop_length": hop_length, "clips": [asdict(clip) for clip in clips]}
    with replace_on_success(folder / "clips.json") as temporary:
        temporary.write_text(json.dumps(header), encoding="utf-8")


@dataclass(frozen=True)
class Crop:
    """One training example of ``frames + 2 * margin`` frames.

    Attributes:
        reference: target audio, ``((frames + 2 margin) * hop,)`` float32.
        source: audio whose mel is the input: the reference, or the same at another pitch.
        f0_hz: F0 of the reference, ``(frames + 2 margin,)``.
        band_hz: nothing of the reference above this is real.
    """

    reference: Array
    source: Array
    f0_hz: Array
    band_hz: float


class Corpus:
    """Random crops of one or more built corpora.

    Args:
        folders: what :func:`build_corpus` wrote; all at one rate and hop.
        shares: how often each kind of clip is drawn, ``{"singing": 0.3, ...}``; kinds that are not there are left out.
    """

    def __init__(self, folders: list[Path], shares: dict[str, float]) -> None:
        self.parts: list[tuple[Array, Array, Array, list[Clip]]] = []
        rates: set[tuple[int, int]] = set()
        for folder in folders:
            if not (folder / "clips.json").exists():
                raise MelismaError(f"{folder} holds no corpus (clips.json is missing); make it with recipes/corpus.py")
            header = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
            rates.add((header["sample_rate"], header["hop_length"]))
            self.parts.append(_open(folder, header))
        if len(rates) != 1:
            raise MelismaError(f"corpora of different rates or hops cannot be mixed: {sorted(rates)}")
        self.sample_rate, self.hop_length = rates.pop()
        index = [(part, clip) for part, (*_, clips) in enumerate(self.parts) for clip in clips]
        kinds = {kind: sum(clip.frames for _, clip in index if clip.kind == kind) for kind in shares}
        weights = np.array([shares.get(c.kind, 0.0) * c.frames / max(1, kinds.get(c.kind, 0)) for _, c in index])
        if weights.sum() == 0:
            raise MelismaError(f"no clip of the kinds {', '.join(shares)} in {', '.join(map(str, folders))}")
        self.index, self.weights = index, weights / weights.sum()

    def crop(self, rng: np.random.Generator, frames: int, mismatch: float, resample: float) -> Crop:
        """Draw one example of ``frames`` frames.

        Args:
            rng: the only source of chance.
            frames: length.
            mismatch: probability that the input mel is that of another pitch.
            resample: probability that pitch and formants are moved together by resampling with 0.6 to 1.8.
        """
        part, clip = self.index[int(rng.choice(len(self.index), p=self.weights))]
        audio, other, f0_hz, _ = self.parts[part]
        use_other = clip.mismatch != 0.0 and rng.random() < mismatch
        ratio = float(np.exp(rng.uniform(np.log(0.6), np.log(1.8)))) if rng.random() < resample else 1.0
        needed = int(np.ceil(frames * ratio)) + 2
        offset = int(rng.integers(0, max(1, clip.frames - needed + 1)))
        first, last = clip.start_frame + offset, clip.start_frame + min(clip.frames, offset + needed)
        window = slice(first * self.hop_length, last * self.hop_length)
        curve = np.asarray(f0_hz[first:last])
        gain = min(10.0 ** (rng.uniform(-20.0, 4.0) / 20.0), 0.99 / max(1e-3, np.abs(audio[window]).max() / 32768.0))
        pieces = []
        for samples in (audio, other) if use_other else (audio,):
            piece = samples[window].astype(np.float32) * np.float32(gain / 32768.0)
            if ratio != 1.0:
                piece = soxr.resample(piece, self.sample_rate * ratio, self.sample_rate, quality="HQ")
            pieces.append(_fit(piece, frames * self.hop_length))
        if ratio != 1.0:
            curve = _stretch(curve, ratio, frames)
        kept_hz = self.sample_rate / 2 * (1.0 if ratio == 1.0 else KEPT_BAND * min(1.0, ratio))
        return Crop(pieces[0], pieces[-1], _fit(curve, frames), min(clip.band_hz * ratio, kept_hz))


def _open(folder: Path, header: dict[str, Any]) -> tuple[Array, Array, Array, list[Clip]]:
    """Audio, mismatch and F0 of a corpus as memory-mapped arrays, and its clips."""
    clips = [Clip(**row) for row in header["clips"]]
    frames = sum(clip.frames for clip in clips)
    samples = frames * header["hop_length"]
    arrays = []
    for name, dtype, length in (
        ("audio.i16", "<i2", samples),
        ("mismatch.i16", "<i2", samples),
        ("f0.f32", "<f4", frames),
    ):
        path = folder / name
        if not path.is_file() or path.stat().st_size != length * np.dtype(dtype).itemsize:
            raise MelismaError(f"{path}: missing or not the size that clips.json asks for; make the corpus again")
        arrays.append(np.memmap(path, dtype=dtype, mode="r"))
    return arrays[0], arrays[1], arrays[2], clips


def _fit(values: Array, length: int) -> Array:
    out = np.zeros(length, dtype=np.float32)
    out[: min(length, len(values))] = values[:length]
    return out


def _stretch(f0_hz: Array, ratio: float, frames: int) -> Array:
    """F0 of a clip that plays ``ratio`` times as fast, at the frame centres; 0 behind its end."""
    position = (np.arange(frames) + 0.5) * ratio - 0.5
    voiced = f0_hz > 0
    nearest = np.clip(np.round(position).astype(int), 0, len(f0_hz) - 1)
    if not voiced.any():
        return np.zeros(frames, dtype=np.float32)
    where = np.flatnonzero(voiced)
    smooth = np.exp(np.interp(position, where, np.log(f0_hz[where]))) * ratio
    return np.where(voiced[nearest] & (position < len(f0_hz) - 0.5), smooth, 0.0).astype(np.float32)

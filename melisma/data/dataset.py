"""A dataset on the disk: tar shards that WebDataset reads, and an index that makes random crops a few bytes' reading.

    folder/
      index.json            rate, hop, and of every clip what it is and where its members lie
      shard-00000.tar       KEY.wav, KEY.json, KEY.f0.npy and, where the voice was moved, KEY.twin.wav; then others

Members of a clip follow each other and share their name up to the first dot of the base name, which is how WebDataset
(Aizman, Maltby, Breuel 2019) groups them, so that any of its readers streams the shards. Training wants half a second
from anywhere instead: audio is therefore stored as plain PCM, whose sample ``n`` stands at a known byte of the tar, and
read through a memory map. FLAC would be half as large, but a crop of it starts by decoding.

The length of a clip is a whole number of frames: ``samples == frames * hop_length``. F0 value ``t`` belongs to sample
``(t + 1/2) * hop_length``. The twin of a clip is the same voice at another pitch, sample by sample in step with it.
"""

import json
import tarfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from melisma.config import from_mapping
from melisma.errors import MelismaError

INDEX = "index.json"
FORMAT = 1
# As they stand in a WAV file: little-endian, full scale at 2**15 or 1.
SAMPLE_TYPES: dict[str, np.dtype[Any]] = {"pcm16": np.dtype("<i2"), "float": np.dtype("<f4")}
F0_TYPE = np.dtype("<f4")


@dataclass(frozen=True)
class DatasetClip:
    """One clip.

    Attributes:
        key: its name in the dataset, ``folder/name`` without a dot in the base name.
        kind: ``singing``, ``speech`` or ``made``.
        speaker: who sings, as the source's manifest calls them; empty where it does not say.
        samples: length.
        frames: number of F0 values, ``samples // hop_length``.
        band_hz: nothing above this is real.
        twin_semitones: by how much the twin is higher, 0 where there is none.
    """

    key: str
    kind: str
    speaker: str
    samples: int
    frames: int
    band_hz: float
    twin_semitones: float


@dataclass(frozen=True)
class ClipPlace:
    """Where a clip lies: number of its shard, and bytes from the shard's beginning to the first sample or F0 value.

    ``twin_offset`` is 0 where there is no twin; ``median_f0_hz`` is that of the voiced frames, 0 without any.
    """

    shard: int
    audio_offset: int
    f0_offset: int
    twin_offset: int
    median_f0_hz: float


@dataclass(frozen=True)
class Shard:
    """A tar file of the dataset and its size in bytes."""

    name: str
    size: int


class Dataset:
    """What ``melisma prepare`` or :class:`melisma.data.shards.DatasetWriter` made, read at random.

    It can be pickled and forked: maps of the shards are opened where they are first used.

    Attributes:
        folder: where it lies.
        sample_rate: Hz.
        hop_length: samples between F0 values.
        clips: what is in it.
    """

    def __init__(
        self,
        folder: Path,
        sample_rate: int,
        hop_length: int,
        sample_format: str,
        shards: list[Shard],
        clips: list[tuple[DatasetClip, ClipPlace]],
    ) -> None:
        self.folder = folder
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.clips = tuple(clip for clip, _ in clips)
        self._places = tuple(place for _, place in clips)
        self._shards = shards
        self._type = SAMPLE_TYPES[sample_format]
        self._maps: dict[int, np.memmap] = {}

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a dataset.

        Raises:
            MelismaError: no dataset in the folder, one of another format, or a shard that is missing or cut off.
        """
        folder = Path(folder)
        header = _read_index(folder)
        shards = [from_mapping(Shard, row, f"{folder / INDEX}: shards") for row in header["shards"]]
        for shard in shards:
            path = folder / shard.name
            if not path.is_file() or path.stat().st_size != shard.size:
                raise MelismaError(f"{path}: missing, or not the {shard.size} bytes of the index; prepare it again")
        clips = [(_row(DatasetClip, row), _row(ClipPlace, row)) for row in header["clips"]]
        return cls(folder, header["sample_rate"], header["hop_length"], header["sample_format"], shards, clips)

    def audio(self, index: int, start_sample: int, samples: int) -> np.ndarray:
        """``(samples,)`` float32 of a clip from ``start_sample`` on, full scale 1; zeros beyond its ends."""
        clip, place = self.clips[index], self._places[index]
        return self._samples(place.shard, place.audio_offset, clip.samples, start_sample, samples)

    def twin(self, index: int, start_sample: int, samples: int) -> np.ndarray | None:
        """The same stretch of the same voice ``twin_semitones`` higher, in step with the audio; None without one."""
        clip, place = self.clips[index], self._places[index]
        if clip.twin_semitones == 0.0:
            return None
        return self._samples(place.shard, place.twin_offset, clip.samples, start_sample, samples)

    def f0_hz(self, index: int, start_frame: int, frames: int) -> np.ndarray:
        """``(frames,)`` float32 in Hz from ``start_frame`` on, 0 where unvoiced and beyond the ends."""
        clip, place = self.clips[index], self._places[index]
        return self._values(place.shard, place.f0_offset, F0_TYPE, clip.frames, start_frame, frames).astype(np.float32)

    def median_f0_hz(self, index: int) -> float:
        """Median F0 of the voiced frames of a clip in Hz, 0 where none is voiced."""
        return self._places[index].median_f0_hz

    def facts(self) -> dict[str, dict[str, Any]]:
        """What ``KEY.json`` says about each clip, by key: licence, provenance, loudness and so on.

        Raises:
            OSError: a shard cannot be read.
            ValueError: a member is not JSON.
        """
        found = {}
        for shard in self._shards:
            with tarfile.open(self.folder / shard.name, "r:") as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.name.endswith(".json") else None
                    if content is not None:
                        found[member.name.removesuffix(".json")] = json.loads(content.read())
        return found

    def _samples(self, shard: int, offset: int, length: int, start: int, count: int) -> np.ndarray:
        stored = self._values(shard, offset, self._type, length, start, count)
        scale = np.float32(1.0 if self._type.kind == "f" else 2.0**-15)
        return stored.astype(np.float32) * scale

    def _values(self, shard: int, offset: int, kind: np.dtype, length: int, start: int, count: int) -> np.ndarray:
        """``count`` stored numbers from ``start`` on, with zeros before 0 and behind ``length``."""
        first, last = max(0, start), min(length, start + count)
        out = np.zeros(count, dtype=kind)
        if first < last:
            piece = self._map(shard)[offset + first * kind.itemsize : offset + last * kind.itemsize]
            out[first - start : last - start] = np.frombuffer(piece, dtype=kind)
        return out

    def _map(self, shard: int) -> np.memmap:
        if shard not in self._maps:
            self._maps[shard] = np.memmap(self.folder / self._shards[shard].name, dtype=np.uint8, mode="r")
        return self._maps[shard]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}


def _row(cls: type[Any], row: dict[str, Any]) -> Any:
    return cls(**{field.name: row[field.name] for field in fields(cls)})


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    cure = f"make one with: melisma prepare YOUR_SONGS -o {folder}"
    if not folder.is_dir():
        raise MelismaError(f"{folder}: no such folder; {cure}")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header["format"] != FORMAT:
            raise MelismaError(f"{path}: format {header['format']}, this melisma reads {FORMAT}; prepare it again")
        if header["sample_format"] not in SAMPLE_TYPES:
            raise KeyError(header["sample_format"])
        wanted = {field.name for cls in (DatasetClip, ClipPlace) for field in fields(cls)}
        missing = next((wanted - set(row) for row in header["clips"] if wanted - set(row)), None)
        if missing or not {"sample_rate", "hop_length", "shards"} <= set(header):
            raise KeyError(*(missing or ()))
    except FileNotFoundError as error:
        raise MelismaError(f"{folder}: holds no dataset ({INDEX} is missing, or it was interrupted); {cure}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise MelismaError(f"{path}: not the index of a dataset ({error}); prepare it again") from error
    return header

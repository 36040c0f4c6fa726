"""Write a dataset: clips one after the other into tar shards, the index last.

The bytes depend on the clips and their order alone: no clock, no user and no name of this machine enters the tar.
"""

import io
import json
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from melisma.config import lookup
from melisma.data.dataset import F0_TYPE, FORMAT, INDEX, SAMPLE_TYPES, ClipPlace, Dataset, DatasetClip, Shard
from melisma.errors import MelismaError
from melisma.files import put_in_place, replace_on_success, write_failure

SHARD_BYTES = 256 << 20
_BLOCK = 512  # of a tar


@dataclass(frozen=True)
class NewClip:
    """A clip to write.

    Attributes:
        key: name in the dataset, not empty, without a dot in its base name; unique.
        kind: ``singing``, ``speech`` or ``made``.
        audio: ``(frames * hop_length,)``, full scale 1.
        f0_hz: ``(frames,)`` in Hz, 0 where unvoiced.
        band_hz: nothing above this is real.
        speaker: who sings.
        twin: ``audio`` at another pitch, as long; None without one.
        twin_semitones: by how much the twin is higher.
        facts: what else ``KEY.json`` says: licence, provenance, loudness and so on.
    """

    key: str
    kind: str
    audio: np.ndarray
    f0_hz: np.ndarray
    band_hz: float
    speaker: str = ""
    twin: np.ndarray | None = None
    twin_semitones: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


class DatasetWriter:
    """Write clips in order; as a context manager, a block that fails leaves no index and so no dataset.

    Args:
        folder: made where it is missing; the index of a dataset that is there is removed at once.
        sample_rate: Hz.
        hop_length: samples between F0 values.
        sample_format: ``pcm16`` (half the size; its rounding lies 98 dB below full scale) or ``float``.
        shard_bytes: a shard that has reached this size is followed by another.
    """

    def __init__(
        self,
        folder: str | Path,
        sample_rate: int,
        hop_length: int,
        sample_format: str = "pcm16",
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.folder = Path(folder)
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.sample_format, self.shard_bytes = sample_format, shard_bytes
        self._type = lookup(SAMPLE_TYPES, sample_format, "sample format")
        self._shards: list[Shard] = []
        self._rows: dict[str, dict[str, Any]] = {}
        self._file: IO[bytes] | None = None
        self._tar: tarfile.TarFile | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / INDEX).unlink(missing_ok=True)

    def add(self, clip: NewClip) -> None:
        """Append a clip.

        Raises:
            MelismaError: lengths that do not fit each other, a key that is taken or not a key, or a full disk.
        """
        self._check(clip)
        frames = len(clip.f0_hz)
        voiced = clip.f0_hz[clip.f0_hz > 0]
        semitones = 0.0 if clip.twin is None else float(clip.twin_semitones)
        entry = DatasetClip(
            clip.key, clip.kind, clip.speaker, frames * self.hop_length, frames, float(clip.band_hz), semitones
        )
        facts = {**clip.facts, **asdict(entry), "sample_rate": self.sample_rate, "hop_length": self.hop_length}
        try:
            audio_offset = self._member(f"{clip.key}.wav", wav_bytes(clip.audio, self.sample_rate, self._type), clip)
            self._member(f"{clip.key}.json", json.dumps(facts, ensure_ascii=False, indent=1).encode(), clip)
            f0_offset = self._member(f"{clip.key}.f0.npy", npy_bytes(clip.f0_hz), clip)
            twin_offset = 0
            if clip.twin is not None:
                content = wav_bytes(clip.twin, self.sample_rate, self._type)
                twin_offset = self._member(f"{clip.key}.twin.wav", content, clip)
        except OSError as error:
            raise write_failure(self.folder / INDEX, error) from error
        median = float(np.median(voiced)) if len(voiced) else 0.0
        place = ClipPlace(len(self._shards), audio_offset, f0_offset, twin_offset, median)
        self._rows[clip.key] = asdict(entry) | asdict(place)
        if self._file is not None and self._file.tell() >= self.shard_bytes:
            self._end_shard()

    def _check(self, clip: NewClip) -> None:
        name = clip.key.rpartition("/")[2]
        if not name or "." in name or clip.key.startswith("/"):
            raise MelismaError(f"{clip.key!r} cannot name a clip; it needs a base name without a dot")
        if clip.key in self._rows:
            raise MelismaError(f"two clips are called {clip.key!r}; give one of them another name")
        wanted = len(clip.f0_hz) * self.hop_length
        lengths = [len(clip.audio), *([] if clip.twin is None else [len(clip.twin)])]
        if any(length != wanted for length in lengths) or wanted == 0:
            raise MelismaError(
                f"{clip.key}: {len(clip.f0_hz)} values of F0 need {wanted} samples, not {max(lengths)}; cut it first"
            )
        if clip.twin is not None and clip.twin_semitones == 0.0:
            raise MelismaError(f"{clip.key}: a twin at the same pitch is none; say by how many semitones it is higher")

    def _member(self, name: str, content: bytes, clip: NewClip) -> int:
        """Append a member; gives the offset of its payload (what follows a WAV or NPY header) in the shard."""
        if self._tar is None:
            path = self.folder / f".shard-{len(self._shards):05d}.part"
            self._file = path.open("wb")
            self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        assert self._file is not None
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))
        data = self._file.tell() - -(-len(content) // _BLOCK) * _BLOCK
        if name.endswith(".wav"):
            return data + len(content) - len(clip.audio) * self._type.itemsize
        return data + len(content) - len(clip.f0_hz) * F0_TYPE.itemsize

    def _end_shard(self) -> None:
        if self._tar is None or self._file is None:
            return
        name = f"shard-{len(self._shards):05d}.tar"
        try:
            self._tar.close()
            self._file.close()
            size = Path(self._file.name).stat().st_size
            put_in_place(Path(self._file.name), self.folder / name)
        except OSError as error:
            raise write_failure(self.folder / name, error) from error
        self._shards.append(Shard(name, size))
        self._tar = self._file = None

    def close(self) -> None:
        """Finish the last shard, remove shards of an earlier dataset that are left over, and write the index.

        Raises:
            MelismaError: no clip was added, or a full disk.
        """
        if not self._rows:
            raise MelismaError(f"{self.folder}: no clip to make a dataset from; give recordings that can be used")
        self._end_shard()
        header = {
            "format": FORMAT,
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "sample_format": self.sample_format,
            "shards": [asdict(shard) for shard in self._shards],
            "clips": list(self._rows.values()),
        }
        mine = {shard.name for shard in self._shards}
        for left in self.folder.glob("shard-*.tar"):
            if left.name not in mine:
                left.unlink()
        with replace_on_success(self.folder / INDEX) as temporary:
            temporary.write_text(json.dumps(header, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")

    def abort(self) -> None:
        """Remove the shard that is being written."""
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
        self._tar = self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.abort()


def read_clips(dataset: Dataset) -> dict[str, Callable[[], NewClip]]:
    """Whole clips of a dataset as they were written, by key, each read when it is called; samples as rounded there.

    Raises:
        OSError: a shard cannot be read.
        ValueError: what it says about a clip is not JSON.
    """
    fixed = {field.name for field in fields(DatasetClip)} | {"sample_rate", "hop_length"}
    facts = dataset.facts()

    def read(number: int) -> NewClip:
        clip = dataset.clips[number]
        said = {name: value for name, value in facts[clip.key].items() if name not in fixed}
        audio, f0_hz = dataset.audio(number, 0, clip.samples), dataset.f0_hz(number, 0, clip.frames)
        twin = dataset.twin(number, 0, clip.samples)
        more = clip.band_hz, clip.speaker, twin, clip.twin_semitones, said
        return NewClip(clip.key, clip.kind, audio, f0_hz, *more)

    return {clip.key: partial(read, number) for number, clip in enumerate(dataset.clips)}


def wav_bytes(audio: np.ndarray, sample_rate: int, kind: np.dtype) -> bytes:
    """A WAV file of one channel: a header, then the samples to the end, limited to full scale in 16 bits."""
    if kind.kind == "f":
        samples = np.asarray(audio, dtype=kind)
    else:
        samples = np.clip(np.rint(np.asarray(audio, dtype=np.float64) * 2.0**15), -(2.0**15), 2.0**15 - 1).astype(kind)
    code, size = (3 if kind.kind == "f" else 1), kind.itemsize
    form = struct.pack("<HHIIHH", code, 1, sample_rate, sample_rate * size, size, 8 * size)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    if code == 3:
        chunks += b"fact" + struct.pack("<II", 4, len(samples))
    chunks += b"data" + struct.pack("<I", samples.nbytes)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) + samples.nbytes) + b"WAVE" + chunks + samples.tobytes()


def npy_bytes(values: np.ndarray) -> bytes:
    """An NPY file of F0 values."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values, dtype=F0_TYPE), version=(1, 0))
    return buffer.getvalue()

"""Audio files: read any format in pieces or whole, write so that a file appears whole or not at all.

Outside of models audio is float32 numpy, ``(channels, samples)``, full scale 1.

**Integer ranges in float files.** Some float WAV files hold 16-bit or 32-bit integers as they are. The seed
(so-vits-svc, ``load_wav_to_torch`` of ``nvSTFT``) decides by the peak: above 2**15 it divides by 2**31 + 1, above 1.01
by 2**15 + 1, else it keeps the values. Here the rule is the same with two narrowings, because the seed's own turns
every recording that overshoots a little into silence: it looks at float files only (an MP3 may decode to a peak of
1.1), and a peak up to 16 (24 dB above full scale; as 16-bit integers it would be below -66 dB) is an overshoot and
kept.
"""

import io
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import soundfile

from melisma.audio.containers import ContainerFile, container_of
from melisma.audio.limiter import TOLERANCE
from melisma.audio.resample import ResampleStream, output_length, resample
from melisma.config import lookup
from melisma.errors import MelismaError
from melisma.files import put_in_place, remove_temporary, temporary_beside, write_failure

__all__ = [
    "AudioReader",
    "AudioWriter",
    "ResampleStream",
    "SampleFormat",
    "duration_seconds",
    "encode_audio",
    "load_training_audio",
    "output_length",
    "read_audio",
    "resample",
    "write_audio",
]

SampleFormat = Literal["pcm16", "pcm24", "float"]

BLOCK = 65_536  # libsndfile's Vorbis encoder overflows its stack when one call brings much more
HISTORY = 1 << 20  # samples a reader of a compressed format remembers, for reads that overlap or go back a little
OVERSHOOT = 16.0  # a float file with a peak up to here is a recording above full scale, not integers
LARGEST_WAV = 0xFFFF0000  # bytes that the 32-bit sizes of a WAV header can count

# suffix -> libsndfile's format, and its subtype for each sample format (one for all when the format is compressed)
WRITABLE: dict[str, tuple[str, dict[SampleFormat, str]]] = {
    ".wav": ("WAV", {"pcm16": "PCM_16", "pcm24": "PCM_24", "float": "FLOAT"}),
    ".flac": ("FLAC", {"pcm16": "PCM_16", "pcm24": "PCM_24", "float": "PCM_24"}),
    ".ogg": ("OGG", dict.fromkeys(("pcm16", "pcm24", "float"), "VORBIS")),
    ".opus": ("OGG", dict.fromkeys(("pcm16", "pcm24", "float"), "OPUS")),
    ".mp3": ("MP3", dict.fromkeys(("pcm16", "pcm24", "float"), "MPEG_LAYER_III")),
}
_BITS = {"PCM_16": 16, "PCM_24": 24}
_FAILURES = (soundfile.SoundFileError, OSError, TypeError, ValueError, AssertionError)


def integer_range(peak: float) -> float:
    """What a float file with this peak must be divided by (see the module's head for the rule)."""
    if peak > 2**15:
        return 2.0**31 + 1
    return 2.0**15 + 1 if peak > OVERSHOOT else 1.0


class AudioReader:
    """An audio file read at exact sample positions in flat memory.

    Opening decodes a compressed or float file once from end to end, so that the length is the true one and NaN,
    truncation and integer ranges are known before any work begins.

    Attributes:
        path: the file.
        sample_rate: Hz.
        channels: number of channels.
        frames: samples of each channel.
        sample_format: how the file holds its samples: ``pcm16`` (also for compressed files), ``pcm24`` or ``float``.

    Raises:
        MelismaError: no such file, a folder, not audio, truncated, empty, NaN or Inf; the line says which and the cure.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = self._open()
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int = self._file.frames
        subtype = self._file.subtype
        self.sample_format: SampleFormat = {  # type: ignore[assignment]
            "FLOAT": "float",
            "DOUBLE": "float",
            "PCM_24": "pcm24",
            "PCM_32": "pcm24",
        }.get(subtype, "pcm16")
        self._scale = 1.0
        self._seekable = subtype.startswith(("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW"))
        self._position = 0
        self._history: deque[tuple[int, np.ndarray]] = deque()
        try:
            self._check_headers()
            if not subtype.startswith("PCM") or self._file.format == "FLAC":
                self._scan()
            if self.frames == 0:
                raise MelismaError(f"{self.path}: holds no samples; record or export it again")
        except MelismaError:
            self.close()
            raise

    def _open(self) -> Any:
        if self.path.is_dir():
            raise MelismaError(f"{self.path}: is a folder; name an audio file in it")
        if not self.path.exists():
            raise MelismaError(f"{self.path}: no such file; check the name and the folder")
        try:
            if self.path.stat().st_size == 0:
                raise MelismaError(f"{self.path}: the file is empty (0 bytes); record or export it again")
            container = container_of(self.path)
            if container is not None:
                return ContainerFile(self.path, container)
            return soundfile.SoundFile(os.fspath(self.path))
        except PermissionError as error:
            raise MelismaError(f"{self.path}: not allowed to read it; change its permissions") from error
        except _FAILURES as error:
            raise MelismaError(
                f"{self.path}: not an audio file that can be read (its content decides, not its name); "
                "give wav, flac, ogg, opus, mp3 or m4a, or convert it with ffmpeg first"
            ) from error

    def _truncated(self, detail: str) -> MelismaError:
        return MelismaError(f"{self.path}: truncated audio: {detail}; copy or export the file again")

    def _check_headers(self) -> None:
        """Find the truncations that libsndfile mends in silence."""
        if self._file.format in ("WAV", "WAVEX"):
            promised, present = _wav_data_bytes(self.path)
            if promised > present:
                raise self._truncated(f"the header promises {promised} bytes of samples, the file has {present}")
        if self._file.format == "OGG" and not _ogg_is_complete(self.path):
            raise self._truncated("the last page of the Ogg stream is missing")

    def _scan(self) -> None:
        """Decode everything once: true length, peak, NaN."""
        peak, count = 0.0, 0
        try:
            for block in self._file.blocks(BLOCK, dtype="float32", always_2d=True):
                bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
                if bad.size:
                    first = count + bad[0]
                    raise MelismaError(f"{self.path}: holds NaN or Inf, first at sample {first}; export it again")
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
                count += len(block)
        except _FAILURES as error:
            raise self._truncated(f"it breaks off after {count} of {self.frames} samples") from error
        if count < self.frames - 2 * 1152:  # an MP3 header may be off by a frame or two
            raise self._truncated(f"the header promises {self.frames} samples, the file has {count}")
        self.frames = count
        if self.sample_format == "float":
            self._scale = integer_range(peak)
        self._rewind()

    def _rewind(self) -> None:
        self._file.close()
        self._file = self._open()
        self._position = 0
        self._history.clear()

    def read(self, start: int, count: int) -> np.ndarray:
        """Samples ``start`` to ``start + count`` as ``(channels, n)`` float32; n is smaller at the end of the file."""
        if start < 0 or count < 0:
            raise ValueError(f"cannot read {count} samples from {start}")
        count = max(0, min(count, self.frames - start))
        if count == 0:
            return np.zeros((self.channels, 0), dtype=np.float32)
        try:
            block = self._read_seeking(start, count) if self._seekable else self._read_forward(start, count)
        except _FAILURES as error:
            raise self._truncated(f"samples {start} to {start + count} cannot be decoded") from error
        if len(block) < count:
            raise self._truncated(f"samples {start} to {start + count} are missing")
        samples = np.ascontiguousarray(block.T)
        return samples if self._scale == 1.0 else samples / np.float32(self._scale)

    def _read_seeking(self, start: int, count: int) -> np.ndarray:
        self._file.seek(start)
        return self._file.read(count, dtype="float32", always_2d=True)

    def _read_forward(self, start: int, count: int) -> np.ndarray:
        """Decode from the beginning onward: seeking in MP3, Vorbis and Opus does not land on the exact sample."""
        if start < (self._history[0][0] if self._history else self._position):
            self._rewind()
        while self._position < start + count:
            block = self._file.read(BLOCK, dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            self._history.append((self._position, block))
            self._position += len(block)
            while self._history[0][0] + len(self._history[0][1]) <= min(start, self._position - HISTORY):
                self._history.popleft()
        pieces = [block[max(0, start - at) : start + count - at] for at, block in self._history if at < start + count]
        return np.concatenate(pieces)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _wav_data_bytes(path: Path) -> tuple[int, int]:
    """Bytes of samples that a RIFF header promises and that the file has; equal when the header does not know."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(12)
        while head[:4] == b"RIFF" and len(chunk := handle.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                # Programs that write to a pipe leave 0 or a huge number here: the samples go on to the end.
                unknown = length == 0 or length >= 0x7FFFF000
                return (0, 0) if unknown else (length, min(length, size - handle.tell()))
            handle.seek(length + length % 2, os.SEEK_CUR)
    return 0, 0


def _ogg_is_complete(path: Path) -> bool:
    """Whether the file ends with a whole Ogg page that carries the end-of-stream flag (RFC 3533)."""
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - 2 * BLOCK))
        tail = handle.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27 or not page[5] & 4:
        return False
    segments = page[26]
    return len(page) >= 27 + segments + sum(page[27 : 27 + segments])


def _in_steps(block: np.ndarray, bits: int | None) -> np.ndarray:
    """Samples limited to full scale, as the integers of a depth where there is one."""
    if bits is None:
        return np.ascontiguousarray(np.clip(block, -1.0, 1.0), dtype=np.float32)
    # Scaled here and not by libsndfile, which multiplies by 2**15 - 1: what was read from a file of the same depth
    # is written back bit by bit.
    steps = 2.0 ** (bits - 1)
    integers = np.clip(np.rint(block.astype(np.float64) * steps), -steps, steps - 1).astype(np.int32)
    return np.ascontiguousarray(integers << (32 - bits))


class AudioWriter:
    """An audio file written in pieces; it appears under its name when all is on the disk.

    Used as a context manager: an exception inside the block removes what was written.

    Args:
        path: target; the suffix (.wav, .flac, .ogg, .opus, .mp3) decides the format.
        sample_rate: Hz.
        channels: number of channels.
        sample_format: for .wav and .flac; ``None`` is ``pcm16``. FLAC holds ``float`` as 24 bits.
        frames: expected length, if known: a WAV beyond 4 GB is then written as RF64.

    Attributes:
        written: samples of each channel so far.
        limited: values beyond full scale that were limited (never in ``float`` files, which hold them as they are).
        keeps_overshoot: whether it is such a file.

    Raises:
        MelismaError: unknown suffix, a rate that the format does not know, a folder that cannot be written, a full
            disk, or NaN in the samples.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        channels: int,
        sample_format: SampleFormat | None = None,
        frames: int | None = None,
    ) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in WRITABLE:
            raise MelismaError(
                f"{self.path}: cannot write {suffix or 'a name without suffix'!r}; use .wav, .flac, .ogg, .opus or .mp3"
            )
        container, subtypes = WRITABLE[suffix]
        subtype = subtypes[sample_format or "pcm16"]
        if container == "WAV" and frames is not None and frames * channels * 4 > LARGEST_WAV:
            container = "RF64"
        self.written = self.limited = 0
        self._bits = _BITS.get(subtype)
        self.keeps_overshoot = subtype == "FLOAT"
        self._temporary = temporary_beside(self.path)
        try:
            self._file = soundfile.SoundFile(
                os.fspath(self._temporary), "w", sample_rate, channels, format=container, subtype=subtype
            )
        except _FAILURES as error:
            remove_temporary(self._temporary)
            raise MelismaError(
                f"{self.path}: {suffix} cannot hold {channels} channels at {sample_rate} Hz; "
                "write .wav or .flac, or choose another rate (Opus: 8, 12, 16, 24 or 48 kHz, MP3: to 48 kHz)"
            ) from error

    def write(self, samples: np.ndarray) -> None:
        """Append ``(channels, n)`` float samples."""
        if not np.isfinite(samples).all():
            self.abort()
            raise MelismaError(f"{self.path}: not written: the audio holds NaN or Inf near sample {self.written}")
        try:
            for start in range(0, samples.shape[-1], BLOCK):
                block = samples[:, start : start + BLOCK].T
                self._file.write(self._encoded(block))
                self.written += len(block)
        except _FAILURES as error:
            self.abort()
            raise write_failure(self.path, error) from error

    def _encoded(self, block: np.ndarray) -> np.ndarray:
        if self.keeps_overshoot:
            return np.ascontiguousarray(block, dtype=np.float32)
        # A compressed file decodes to about what went in, so the same limit holds; half a 16-bit step is no overshoot.
        self.limited += int(np.count_nonzero(np.abs(block) > 1.0 + TOLERANCE))
        return _in_steps(block, self._bits)

    def close(self) -> None:
        """Finish the file, check that all of it is there and give it its name."""
        try:
            self._file.close()
            with soundfile.SoundFile(os.fspath(self._temporary)) as written:
                if written.frames != self.written:
                    raise OSError(f"only {written.frames} of {self.written} samples reached the disk")
            put_in_place(self._temporary, self.path)
        except _FAILURES as error:
            raise write_failure(self.path, error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove what was written."""
        with suppress(*_FAILURES):
            self._file.close()
        remove_temporary(self._temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def duration_seconds(path: str | Path) -> float | None:
    """What a file's header promises of its length, without decoding it; None where it promises nothing."""
    try:
        container = container_of(Path(path))
        file = soundfile.SoundFile(os.fspath(path)) if container is None else ContainerFile(Path(path), container)
    except _FAILURES:
        return None
    frames, rate = file.frames, file.samplerate
    file.close()
    return frames / rate if frames > 0 and rate > 0 else None


def read_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """Read a whole file as float32 ``(channels, samples)`` and its rate in Hz; errors as :class:`AudioReader`."""
    with AudioReader(path) as reader:
        return reader.read(0, reader.frames), reader.sample_rate


def write_audio(
    path: str | Path, samples: np.ndarray, sample_rate: int, sample_format: SampleFormat | None = None
) -> int:
    """Write ``(samples,)`` or ``(channels, samples)``; returns how many values were limited to full scale."""
    rows = np.atleast_2d(samples)
    with AudioWriter(path, sample_rate, rows.shape[0], sample_format, rows.shape[1]) as writer:
        writer.write(rows)
    return writer.limited


def encode_audio(
    samples: np.ndarray, sample_rate: int, suffix: str, sample_format: SampleFormat | None = None
) -> bytes:
    """A file of ``(samples,)`` or ``(channels, samples)`` in memory; what :func:`write_audio` would put on the disk."""
    rows = np.atleast_2d(samples)
    container, subtypes = lookup(WRITABLE, suffix, "format")
    subtype, buffer = subtypes[sample_format or "pcm16"], io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", sample_rate, rows.shape[0], format=container, subtype=subtype) as file:
            for start in range(0, rows.shape[1], BLOCK):
                block = rows[:, start : start + BLOCK].T
                as_they_are = np.ascontiguousarray(block, dtype=np.float32)
                file.write(as_they_are if subtype == "FLOAT" else _in_steps(block, _BITS.get(subtype)))
    except _FAILURES as error:
        raise MelismaError(
            f"{suffix} cannot hold {rows.shape[0]} channels at {sample_rate} Hz; ask for .wav or .flac"
        ) from error
    return buffer.getvalue()


def load_training_audio(path: str | Path, sample_rate: int, channel: Literal["first", "mean"] = "first") -> np.ndarray:
    """Read a file as float32 mono ``(samples,)`` at ``sample_rate`` Hz.

    Args:
        path: any readable audio file.
        sample_rate: target rate in Hz.
        channel: ``first`` takes the first channel (the seed's rule), ``mean`` the mean of all.
    """
    samples, source_rate = read_audio(path)
    mono = samples[0] if channel == "first" else samples.mean(axis=0)
    return resample(mono, source_rate, sample_rate)

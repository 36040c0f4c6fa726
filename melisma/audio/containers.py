"""Audio that libsndfile does not read, through PyAV (the extra ``m4a``): AAC in .m4a, .mp4 and .aac, .webm of browsers.

A file is told by its first bytes, and its demuxer is named: FFmpeg never guesses, so no upload is taken for a playlist
that would open other files.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from melisma.errors import MelismaError

EXTRA = "pip install 'melisma[m4a]'"


def container_of(path: Path) -> str | None:
    """FFmpeg's name of the demuxer for a file of this kind, None for any other file."""
    with path.open("rb") as handle:
        head = handle.read(12)
    if head[4:8] == b"ftyp":
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    return "aac" if head[:2] in (b"\xff\xf1", b"\xff\xf9") else None


class ContainerFile:
    """Reads like ``soundfile.SoundFile`` as far as :class:`melisma.audio.io.AudioReader` needs: forward only.

    Attributes:
        samplerate: Hz.
        channels: number of channels.
        frames: samples that the header promises, 0 where it promises nothing.
        format: the demuxer.
        subtype: the codec.

    Raises:
        MelismaError: PyAV is not installed.
        OSError: not such a file after all, damaged, or without audio.
    """

    def __init__(self, path: Path, container: str) -> None:
        if find_spec("av") is None:
            raise MelismaError(f"{path}: reading {container} files (m4a, webm) needs PyAV: {EXTRA}")
        import av

        self._errors = (av.error.FFmpegError, ValueError, EOFError)
        try:
            self._container = av.open(os.fspath(path), format=container)
        except self._errors as error:
            raise OSError(str(error)) from error
        if not self._container.streams.audio:
            self._container.close()
            raise OSError("no audio in it")
        stream = self._container.streams.audio[0]
        context = stream.codec_context
        context.thread_count = 1
        self.samplerate, self.channels = int(stream.rate or 0), int(context.channels)
        self.format, self.subtype = container, str(context.name).upper()
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        self.frames = round(seconds * self.samplerate)
        if self.samplerate < 1 or self.channels < 1:
            self.close()
            raise OSError("no rate or no channels")
        self._blocks = self._decoded(av.AudioResampler("fltp"))
        self._rest = np.zeros((0, self.channels), dtype=np.float32)

    def _decoded(self, planar: Any) -> Iterator[np.ndarray]:
        """``(n, channels)`` float32, packet by packet; the codec's delay is cut off by FFmpeg."""
        try:
            for frame in self._container.decode(audio=0):
                for part in planar.resample(frame):
                    yield part.to_ndarray().T
        except self._errors as error:
            raise OSError(str(error)) from error

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next ``(n, channels)`` float32, fewer at the end."""
        pieces, count = [self._rest], len(self._rest)
        while count < frames and (block := next(self._blocks, None)) is not None:
            pieces.append(block)
            count += len(block)
        joined = np.concatenate(pieces)
        self._rest = joined[frames:]
        return joined[:frames]

    def blocks(self, blocksize: int, dtype: str = "float32", always_2d: bool = True) -> Iterator[np.ndarray]:
        """All of it, in blocks."""
        while len(block := self.read(blocksize)):
            yield block

    def close(self) -> None:
        """Close the file."""
        self._container.close()

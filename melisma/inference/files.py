"""Recordings from file to file, at flat memory."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from melisma.audio.io import AudioWriter
from melisma.audio.limiter import TOLERANCE, Limiter
from melisma.errors import MelismaError
from melisma.files import write_failure
from melisma.inference.resynthesis import (
    Edit,
    Plan,
    Settings,
    check_recording,
    check_settings,
    level_gains,
    plan,
    required_mel,
    sing,
)
from melisma.inference.sources import FileSource, Level

if TYPE_CHECKING:
    from melisma.inference.vocoder import Vocoder

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Report:
    """What was done.

    Attributes:
        output: the file written.
        seconds: length of the output.
        elapsed: seconds of work.
        sample_rate: Hz.
        channels: number of channels.
        frame_rate_hz: frames of the F0 curves a second.
        input_f0_hz: F0 of the recording.
        f0_hz: F0 of the output.
        level_db: RMS level of the recording and of the output, dB of full scale, loudest channel.
        limited: values that passed full scale, around which the level was lowered (none in a file of floats).
    """

    output: Path
    seconds: float
    elapsed: float
    sample_rate: int
    channels: int
    frame_rate_hz: float
    input_f0_hz: np.ndarray
    f0_hz: np.ndarray
    level_db: tuple[float, float]
    limited: int

    @property
    def times_real_time(self) -> float:
        """Seconds of audio for a second of work."""
        return self.seconds / max(self.elapsed, 1e-9)


def resynth_file(
    vocoder: "Vocoder",
    source: str | Path,
    target: str | Path,
    settings: Settings | None = None,
    f0_hz: np.ndarray | Callable[[int], np.ndarray] | None = None,
    progress: Callable[[float], None] | None = None,
    edit: Edit | None = None,
) -> Report:
    """Resynthesise a file of any length; the result equals :meth:`Vocoder.resynthesize` of its samples.

    Where it passes full scale and the file's format cannot hold that, the level is lowered around the peaks.

    Args:
        vocoder: the model.
        source: any readable audio file.
        target: the file to write, at the recording's rate, with its channels and length; it appears when all is done.
            The samples wait beside it in an unnamed temporary file (4 bytes each) until the level is known.
        settings: shift, speed, seed, projections.
        f0_hz: F0 of the recording at the model's frames, or a function that gives it for their number; None estimates.
        progress: called with the share done, 0 to 1.
        edit: makes the F0 to sing from the recording's, see :mod:`melisma.editing`.

    Raises:
        MelismaError: the line names the file and the cure; nothing is left behind.
    """
    began, settings, report = time.perf_counter(), settings or Settings(), progress or (lambda done: None)
    target = Path(target)
    check_settings(settings)
    mel = required_mel(vocoder)
    recording = FileSource(source, vocoder.sample_rate)
    try:
        check_recording(recording.channels, recording.native_samples, recording.native_rate, str(source))
        expected = round(recording.native_samples / settings.speed)
        with (
            AudioWriter(target, recording.native_rate, recording.channels, recording.sample_format, expected) as writer,
            _spool(target) as spool,
        ):
            curve = f0_hz(-(-recording.samples // mel.hop_length)) if callable(f0_hz) else f0_hz
            planned = plan(vocoder, recording, settings, curve, report, edit)
            made = Level(recording.channels, recording.native_rate)
            _fill(spool, vocoder, recording, settings, planned, made, report, target)
            gains = level_gains(recording.level, made)
            limited = _pour(spool, writer, recording, gains)
    finally:
        recording.close()
    return Report(
        output=target,
        seconds=planned.native_samples / recording.native_rate,
        elapsed=time.perf_counter() - began,
        sample_rate=recording.native_rate,
        channels=recording.channels,
        frame_rate_hz=mel.frame_rate_hz,
        input_f0_hz=planned.input_f0_hz,
        f0_hz=planned.f0_hz,
        level_db=(_decibel(recording.level.rms()), _decibel(made.rms() * gains)),
        limited=limited,
    )


def _decibel(rms: np.ndarray) -> float:
    return float(20.0 * np.log10(max(float(rms.max()), 1e-10)))


def _spool(target: Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=target.parent)
    except OSError as error:
        raise write_failure(target, error) from error


def _fill(
    spool: IO[bytes],
    vocoder: "Vocoder",
    recording: FileSource,
    settings: Settings,
    planned: Plan,
    made: Level,
    progress: Callable[[float], None],
    target: Path,
) -> None:
    for block in sing(vocoder, recording, settings, planned, progress):
        made.add(block)
        try:
            spool.write(np.ascontiguousarray(block.T, dtype=np.float32).tobytes())
        except OSError as error:
            raise write_failure(target, error) from error
    try:
        spool.flush()
    except OSError as error:
        raise write_failure(target, error) from error
    spool.seek(0, os.SEEK_SET)


def _pour(spool: IO[bytes], writer: AudioWriter, recording: FileSource, gains: np.ndarray) -> int:
    """At its level into the file; returns how many values passed full scale, around which it was lowered."""
    channels, passed = recording.channels, 0
    limiter = None if writer.keeps_overshoot else Limiter(channels, recording.native_rate)
    while block := spool.read(_BLOCK * channels * 4):
        samples = np.frombuffer(block, dtype=np.float32).reshape(-1, channels).T * gains[:, None]
        if limiter is not None:
            passed += int(np.count_nonzero(np.abs(samples) > 1.0 + TOLERANCE))
            samples = limiter.push(samples)
        writer.write(samples)
    if limiter is not None:
        writer.write(limiter.finish())
    return passed


def check_output(target: str | Path, what: str = "the output") -> Path:
    """Refuse an output that cannot be written, before any work is done."""
    path = Path(target)
    if path.is_dir():
        raise MelismaError(f"{path}: is a folder; name a file for {what}")
    if not path.parent.is_dir():
        raise MelismaError(f"{path}: the folder {path.parent} does not exist; make it first or choose another")
    if not os.access(path.parent, os.W_OK):
        raise MelismaError(f"{path}: cannot write in {path.parent}; choose another folder")
    return path

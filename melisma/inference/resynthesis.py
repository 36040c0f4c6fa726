"""A recording through a vocoder: mel and F0 of it, synthesis in pieces, level and silence kept.

The same code serves recordings in memory and files of any length; only the source and the sink differ.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from melisma.audio.f0_curve import check_f0, resample_curve, shift_semitones
from melisma.audio.io import ResampleStream
from melisma.audio.mel import MelContract
from melisma.editing.formants import FARTHEST, warp_formants
from melisma.errors import MelismaError
from melisma.inference.pieces import Request, render
from melisma.inference.pitch import f0_of_source
from melisma.inference.recording_mel import RecordingMel
from melisma.inference.sources import Level, Source, hop_peaks

if TYPE_CHECKING:
    from melisma.inference.vocoder import Vocoder

Progress = Callable[[float], None]
Edit = Callable[[np.ndarray], np.ndarray]  # F0 of the recording -> F0 to sing, the same number of frames

SILENT_PEAK = 1e-6  # -120 dB: digital silence, and what a resampler leaves of it
QUIET_RMS = 1e-4  # -80 dB: nothing is turned up to, or from, below this level
LEAST_GAIN_DB = 0.1  # a level that is nearer than this is left alone
MOST_GAIN_DB = 20.0
SHORTEST_SECONDS = 0.001
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
_F0_SHARE = 0.25  # of the progress


@dataclass(frozen=True)
class Settings:
    """How a recording is resynthesised; see :meth:`melisma.inference.vocoder.Vocoder.resynthesize`."""

    shift_semitones: float = 0.0
    speed: float = 1.0
    seed: int = 0
    projections: int | None = None
    f0_method: str | None = None
    formant_semitones: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What is known of a recording before the synthesis.

    Attributes:
        frames: frames to synthesise.
        native_samples: length of the result at the recording's rate.
        input_f0_hz: ``(input frames,)`` as found or given.
        f0_hz: ``(frames,)`` as sung, 0 where unvoiced.
        loud: ``(channels, frames)``, 1 where there is sound, 0 in digital silence.
        found: F0 was found here, so a mel in place is of the pitch that is sung; a given curve may be another.
    """

    frames: int
    native_samples: int
    input_f0_hz: np.ndarray
    f0_hz: np.ndarray
    loud: np.ndarray
    found: bool


def check_recording(channels: int, samples: int, sample_rate: int, what: str) -> None:
    """Refuse recordings that no vocoder can take; ``what`` names them in the error."""
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise MelismaError(
            f"{what}: sample rate {sample_rate} Hz is outside {LOWEST_RATE} to {HIGHEST_RATE} Hz; resample it first"
        )
    if channels < 1 or samples == 0:
        raise MelismaError(f"{what}: holds no samples; record or export it again")
    if samples < SHORTEST_SECONDS * sample_rate:
        raise MelismaError(f"{what}: too short ({samples} sample{'s' * (samples > 1)}); give at least a millisecond")


def check_settings(settings: Settings) -> None:
    """Refuse a shift or a speed that makes no sense."""
    if not (math.isfinite(settings.shift_semitones) and abs(settings.shift_semitones) <= 48):
        raise MelismaError(f"shift {settings.shift_semitones:g} is outside -48 to 48 semitones; choose a smaller one")
    if not 0.1 <= settings.speed <= 10.0:
        raise MelismaError(f"speed {settings.speed:g} is outside 0.1 to 10; 1 keeps the tempo, 2 is twice as fast")
    if settings.projections is not None and settings.projections < 0:
        raise MelismaError(f"projections {settings.projections} is negative; 0 turns them off")
    if not abs(settings.formant_semitones) <= FARTHEST:
        raise MelismaError(
            f"formants {settings.formant_semitones:g} are outside -12 to 12 semitones; choose a smaller shift"
        )


def plan(
    vocoder: "Vocoder",
    source: Source,
    settings: Settings,
    f0_hz: np.ndarray | None,
    progress: Progress,
    edit: Edit | None = None,
) -> Plan:
    """Read the source once (twice to find F0), edit the F0, and settle pitch, length and silence."""
    mel = required_mel(vocoder)
    hop, rate = mel.hop_length, mel.sample_rate
    peaks, downmix = hop_peaks(source, hop)
    found = f0_hz is None
    frames_in = peaks.shape[1]
    if f0_hz is None:
        if float(peaks.max()) < SILENT_PEAK:
            f0_hz = np.zeros(frames_in, dtype=np.float32)
        else:
            f0_hz = f0_of_source(source, mel, settings.f0_method, downmix, lambda done: progress(_F0_SHARE * done))
    f0_hz = _fitted(check_f0(f0_hz, rate), frames_in)
    edited = f0_hz if edit is None else _edited(f0_hz, edit, rate)
    native = source.native_samples if settings.speed == 1.0 else max(1, round(source.native_samples / settings.speed))
    frames = max(1, math.ceil(source.samples / settings.speed / hop)) if settings.speed != 1.0 else frames_in
    sung = edited if settings.speed == 1.0 else resample_curve(edited, 1.0, settings.speed, frames)
    sung = check_f0(shift_semitones(sung, settings.shift_semitones), rate, what="F0 after the shift")
    return Plan(frames, native, f0_hz, sung, _loud_frames(peaks, frames, mel, settings.speed), found)


def _edited(f0_hz: np.ndarray, edit: Edit, rate: int) -> np.ndarray:
    return _fitted(check_f0(edit(f0_hz), rate, what="F0 after the edits"), len(f0_hz))


def required_mel(vocoder: "Vocoder") -> MelContract:
    """The mel contract of a model that can take recordings."""
    if vocoder.mel is None:
        raise MelismaError(
            "this model decodes latents, not mels: it cannot resynthesise a recording; load a mel vocoder "
            "(melisma-44k, an NSF-HiFi-GAN of DiffSinger) or feed it with synthesize()"
        )
    return vocoder.mel


def _fitted(f0_hz: np.ndarray, frames: int) -> np.ndarray:
    """An F0 curve of the recording's own length; one frame more or less is a matter of rounding."""
    if f0_hz.ndim != 1 or abs(len(f0_hz) - frames) > 1:
        raise MelismaError(
            f"F0 has {f0_hz.shape[-1]} frames, the recording {frames}; give one value every hop of the model, "
            "or a curve with times"
        )
    return np.pad(f0_hz, (0, max(0, frames - len(f0_hz))), mode="edge")[:frames]


def _loud_frames(peaks: np.ndarray, frames: int, mel: MelContract, speed: float) -> np.ndarray:
    """Which frames to sing, ``(channels, frames)``: those whose analysis window holds any sound."""
    reach = mel.n_fft / 2 / mel.hop_length
    centres = (np.arange(frames) + 0.5) * speed
    first = np.clip(np.floor(centres - reach).astype(int), 0, peaks.shape[1] - 1)
    last = np.clip(np.ceil(centres + reach).astype(int), 1, peaks.shape[1])
    sounding = np.pad(np.cumsum(peaks >= SILENT_PEAK, axis=1), ((0, 0), (1, 0)))
    return (sounding[:, last] > sounding[:, first]).astype(np.float32)


def sing(
    vocoder: "Vocoder", source: Source, settings: Settings, planned: Plan, progress: Progress
) -> Iterator[np.ndarray]:
    """Synthesise a planned recording.

    Yields:
        ``(channels, n)`` float32 at the recording's rate, ``planned.native_samples`` together.
    """
    mel = required_mel(vocoder)
    out = ResampleStream(mel.sample_rate, source.native_rate, source.channels)
    left = planned.native_samples

    def trimmed(samples: np.ndarray) -> np.ndarray:
        nonlocal left
        samples = samples[:, :left]
        left -= samples.shape[1]
        return samples

    for samples in _at_model_rate(vocoder, source, settings, planned, progress):
        yield trimmed(out.push(samples))
    yield trimmed(out.finish())
    if left > 0:
        yield np.zeros((source.channels, left), dtype=np.float32)


def _at_model_rate(
    vocoder: "Vocoder", source: Source, settings: Settings, planned: Plan, progress: Progress
) -> Iterator[np.ndarray]:
    mel = required_mel(vocoder)
    hop = mel.hop_length
    if not planned.loud.any():
        for start in range(0, planned.frames, 1024):
            yield np.zeros((source.channels, min(1024, planned.frames - start) * hop), dtype=np.float32)
        return
    f0_hz = vocoder.f0_for_model(planned.f0_hz[None])
    features = RecordingMel(source, mel, settings.speed, planned.input_f0_hz, planned.f0_hz)
    trust = features.trust(planned.f0_hz) if planned.found or features.moves else None
    request = Request(
        frames=planned.frames,
        features=_with_formants(features, mel, settings, planned),
        f0_hz=None if f0_hz is None else f0_hz.expand(source.channels, -1),
        seed=settings.seed,
        projections=vocoder.check_projections(settings.projections),
        trust=None if trust is None else torch.from_numpy(trust).expand(source.channels, -1),
    )
    frame = 0
    for samples in render(vocoder.generator, request, vocoder.precision):
        count = samples.shape[1] // hop
        yield samples * _gate(planned.loud, frame, frame + count, hop)
        frame += count
        progress(_F0_SHARE + (1.0 - _F0_SHARE) * frame / planned.frames)


def _with_formants(
    features: RecordingMel, mel: MelContract, settings: Settings, planned: Plan
) -> Callable[[int, int], Tensor]:
    """What the model is given of a planned recording: its mel, the formants moved where that is wanted."""
    if settings.formant_semitones == 0:
        return features
    # The formants are read between the harmonics that this mel has: those of what is sung.
    return lambda first, last: warp_formants(
        features(first, last), mel, settings.formant_semitones, planned.f0_hz, first
    )


def _gate(loud: np.ndarray, first: int, last: int, hop: int) -> np.ndarray:
    """Gain of every sample, ``(channels, samples)``: the frames' own, with a ramp of a hop between their centres."""
    around = np.concatenate([loud[:, max(0, first - 1) : first], loud[:, first : last + 1]], axis=1)
    if first == 0:
        around = np.concatenate([around[:, :1], around], axis=1)
    if around.shape[1] < last - first + 2:
        around = np.concatenate([around, around[:, -1:]], axis=1)
    if around.all():
        return np.ones((len(loud), 1), dtype=np.float32)
    positions = (np.arange((last - first) * hop) + 0.5) / hop + 0.5
    index = positions.astype(np.int64)
    part = (positions - index).astype(np.float32)
    return around[:, index] * (1.0 - part) + around[:, index + 1] * part


def level_gains(wanted: Level, made: Level) -> np.ndarray:
    """Gain ``(channels,)`` that brings what was made to the recording's level; 1 where it is there or is silence."""
    target, actual = wanted.rms(), made.rms()
    audible = (target > QUIET_RMS) & (actual > QUIET_RMS)
    decibel = 20.0 * np.log10(np.where(audible, target, 1.0) / np.where(audible, actual, 1.0))
    decibel = np.where(np.abs(decibel) < LEAST_GAIN_DB, 0.0, np.clip(decibel, -MOST_GAIN_DB, MOST_GAIN_DB))
    return (10.0 ** (decibel / 20.0)).astype(np.float32)

"""What is asked of a vocoder: copies, other pitches, there and back, blurred mels, speed."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from melisma.audio.f0_curve import shift_semitones
from melisma.audio.mel import MelContract, log_mel
from melisma.evaluation.baselines import griffin_lim, world_copy
from melisma.evaluation.clips import EvaluationClip
from melisma.evaluation.metrics import aligned, f0_agreement, pesq_wideband, score
from melisma.f0 import estimate_f0

SHIFTS_SEMITONES = (1, -1, 4, -4, 7, -7, 12, -12)
DETUNINGS_CENTS = (20, -20, 50, -50, 80, -80)
BACK_SEMITONES = 4
BLUR_BINS, BLUR_FRAMES = 2.0, 2.0
# Asked F0 outside is not judged: the estimator does not reach there.
JUDGED_HZ = (50.0, 1900.0)
SPEED_THREADS, SPEED_RUNS, SPEED_SECONDS = 2, 5, 8.0

Measured = dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """A clip with what every condition needs of it: its log-mel ``(n_mels, frames)`` and F0 ``(frames,)``."""

    clip: EvaluationClip
    mel: MelContract
    features: np.ndarray
    f0_hz: np.ndarray


def prepare(clip: EvaluationClip, mel: MelContract) -> Prepared:
    """Analyse a clip once."""
    features = log_mel(clip.audio, mel)[0].numpy()
    f0_hz = estimate_f0(clip.audio, clip.sample_rate, mel.hop_length, padding=mel.padding)
    return Prepared(clip, mel, features, f0_hz)


def _score(item: Prepared, generated: np.ndarray) -> Measured:
    clip = item.clip
    return dataclasses.asdict(score(clip.audio, generated, clip.sample_rate, item.f0_hz, item.mel, clip.band_hz))


def copy(model: Any, item: Prepared, projections: int | None) -> Measured:
    """Copy synthesis from the exact mel."""
    return _score(item, model.synthesize(item.features, item.f0_hz, projections=projections))


def blurred(model: Any, item: Prepared, projections: int | None) -> Measured:
    """Copy synthesis from a mel blurred as acoustic models blur it."""
    features = blur(item.features, BLUR_BINS, BLUR_FRAMES)
    return _score(item, model.synthesize(features, item.f0_hz, projections=projections))


def shifted(model: Any, item: Prepared, semitones: float) -> Measured:
    """F0 that comes out of a pitch shift against the F0 asked for."""
    rate = item.clip.sample_rate
    generated = model.resynthesize(item.clip.audio, rate, shift_semitones=semitones, f0_hz=item.f0_hz)
    asked = shift_semitones(item.f0_hz, semitones)
    found = estimate_f0(generated, rate, item.mel.hop_length, padding=item.mel.padding)
    frames = min(len(asked), len(found))
    judged = (asked[:frames] == 0) | ((asked[:frames] > JUDGED_HZ[0]) & (asked[:frames] < JUDGED_HZ[1]))
    cents, f1 = f0_agreement(asked[:frames][judged], found[:frames][judged])
    return {"f0_cents": cents, "vuv_f1": f1}


def there_and_back(model: Any, item: Prepared) -> Measured:
    """PESQ of a shift up and the shift of the result back down, F0 estimated anew each time."""
    clip = item.clip
    there = model.resynthesize(clip.audio, clip.sample_rate, shift_semitones=BACK_SEMITONES)
    back = model.resynthesize(there, clip.sample_rate, shift_semitones=-BACK_SEMITONES)
    return {"pesq": pesq_wideband(*aligned(clip.audio, back), clip.sample_rate)}


def world(item: Prepared) -> Measured:
    """The baseline WORLD."""
    return _score(item, world_copy(item.clip.audio, item.clip.sample_rate))


def griffin(item: Prepared) -> Measured:
    """The baseline Griffin-Lim, from the exact mel."""
    return _score(item, griffin_lim(item.features, item.mel))


def conditions(model: Any, parts: tuple[str, ...]) -> dict[str, Callable[[Prepared], Measured]]:
    """The conditions of the named parts (``copy``, ``shift``, ``detune``, ``back``, ``blur``) that suit the model."""
    table: dict[str, Callable[[Prepared], Measured]] = {}
    rounds: dict[str, int | None] = {"": None}
    if getattr(getattr(model, "generator", None), "default_projections", None) is not None:
        rounds[", projections off"] = 0
    for suffix, projections in rounds.items():
        if "copy" in parts:
            table["copy" + suffix] = partial(copy, model, projections=projections)
        if "blur" in parts:
            table["blurred mel" + suffix] = partial(blurred, model, projections=projections)
    if "shift" in parts:
        for semitones in SHIFTS_SEMITONES:
            table[f"{semitones:+d} semitones"] = partial(shifted, model, semitones=semitones)
    if "detune" in parts:
        for cents in DETUNINGS_CENTS:
            table[f"{cents:+d} cents"] = partial(shifted, model, semitones=cents / 100.0)
    if "back" in parts:
        table[f"+{BACK_SEMITONES} and back"] = partial(there_and_back, model)
    return table


def blur(features: np.ndarray, bins: float, frames: float) -> np.ndarray:
    """Gaussian blur of a log-mel ``(n_mels, frames)``; the edges are held."""
    return _smooth(_smooth(features, bins, 0), frames, 1).astype(np.float32)


def _smooth(values: np.ndarray, sigma: float, axis: int) -> np.ndarray:
    reach = math.ceil(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    pad = [(reach, reach) if k == axis else (0, 0) for k in range(values.ndim)]
    held = np.pad(values, pad, mode="edge")
    return np.apply_along_axis(np.convolve, axis, held, kernel / kernel.sum(), "valid")


def speed(model: Any, item: Prepared, projections: int | None) -> float:
    """Times real time of ``synthesize`` on two threads: median of five runs after a warm-up, 8 seconds of audio."""
    frames = max(1, round(SPEED_SECONDS * item.mel.frame_rate_hz))
    repeats = math.ceil(frames / item.features.shape[1])
    features = np.tile(item.features, (1, repeats))[:, :frames]
    f0_hz = np.tile(item.f0_hz, repeats)[:frames]
    threads = torch.get_num_threads()
    torch.set_num_threads(SPEED_THREADS)
    try:
        taken = []
        for _ in range(SPEED_RUNS + 1):
            start = time.perf_counter()
            model.synthesize(features, f0_hz, projections=projections)
            taken.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return frames / item.mel.frame_rate_hz / float(np.median(taken[1:]))

"""What is asked of a vocoder: copies, other pitches, there and back, blurred mels; and how each is judged."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from melisma.audio.f0_curve import shift_semitones
from melisma.audio.mel import MelContract, log_mel
from melisma.data.cutting import frame_levels, silent_frames
from melisma.evaluation.artefacts import (
    BREATH_FFT,
    LINE_FFT,
    LOWEST_DB,
    dc_db,
    harmonic_to_noise_change_db,
    line_in_breath_db,
    strongest_line_db,
    top_level_change_db,
    windows_inside,
)
from melisma.evaluation.baselines import griffin_lim, world_copy
from melisma.evaluation.clips import EvaluationClip
from melisma.evaluation.envelope import by_octave, envelope_distance
from melisma.evaluation.metrics import aligned, f0_agreement, pesq_wideband, score
from melisma.evaluation.steadiness import steadiness_change
from melisma.evaluation.visqol import visqol_mos
from melisma.f0 import estimate_f0

SHIFTS_SEMITONES = (1, -1, 4, -4, 7, -7, 12, -12)
WORLD_SHIFTS = (4, -4, 12, -12)
MOVED_SEMITONES = (4, -4, 12)
DETUNINGS_CENTS = (20, -20, 50, -50, 80, -80)
BACK_SEMITONES = 4
BLUR_BINS, BLUR_FRAMES = 2.0, 2.0
# Asked F0 outside is not judged: the estimator does not reach there.
JUDGED_HZ = (50.0, 1900.0)

# With the noise that happens to be drawn PESQ of a clip moves by a tenth and more, and F0 by half a cent.
SEEDS = (0, 1, 2)
# A line counts where the recording has none that is as strong to within this.
OWN_LINE_DB = 3.0
EDGE_FRAMES = 2

Measured = dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """A clip with what every condition needs of it: its log-mel ``(n_mels, frames)`` and F0 ``(frames,)``."""

    clip: EvaluationClip
    mel: MelContract
    features: np.ndarray
    f0_hz: np.ndarray


@dataclass(frozen=True)
class Condition:
    """One thing asked.

    Attributes:
        make: what is to be judged, ``(samples,)``; None where there is nothing (a published clip that is missing).
        judge: the figures.
        copies: whether the result ought to be the recording itself; such results are worth hearing beside it.
        seeded: whether ``make`` takes a ``seed``; then the figures are means over ``SEEDS``.
    """

    make: Callable[..., np.ndarray | None]
    judge: Callable[[Prepared, np.ndarray], Measured]
    copies: bool = False
    seeded: bool = False

    def results(self, item: Prepared) -> list[np.ndarray]:
        """One result, or one of every seed; none where there is nothing to judge."""
        made = [self.make(item, seed=seed) for seed in SEEDS] if self.seeded else [self.make(item)]
        return [audio for audio in made if audio is not None]

    def judged(self, item: Prepared, results: Sequence[np.ndarray]) -> Measured:
        """The figures of the results, each the mean over those that have it."""
        found = [self.judge(item, audio) for audio in results]
        return {name: _mean([values[name] for values in found if name in values]) for name in found[0]}


def _mean(values: Sequence[float]) -> float:
    """NaN where one of them is: a result that is not finite must show."""
    return float(np.mean(values))


def prepare(clip: EvaluationClip, mel: MelContract, f0_hz: np.ndarray | None = None) -> Prepared:
    """Analyse a clip once; ``f0_hz`` where it is known."""
    features = log_mel(clip.audio, mel)[0].numpy()
    if f0_hz is None:
        f0_hz = estimate_f0(clip.audio, clip.sample_rate, mel.hop_length, padding=mel.padding)
    return Prepared(clip, mel, features, f0_hz)


def judge_copy(item: Prepared, generated: np.ndarray, with_visqol: bool = False) -> Measured:
    """Nearness to the recording, and faults."""
    clip = item.clip
    values = dataclasses.asdict(score(clip.audio, generated, clip.sample_rate, item.f0_hz, item.mel, clip.band_hz))
    if not np.isfinite(generated).all():
        return values
    values |= faults(item, generated)
    if with_visqol:
        values["visqol"] = visqol_mos(clip.audio, generated, clip.sample_rate)
    return values


def faults(item: Prepared, generated: np.ndarray) -> Measured:
    """What :mod:`melisma.evaluation.artefacts` finds: levels in dB, and changes against the recording."""
    rate, hop = item.clip.sample_rate, item.mel.hop_length
    reference, generated = aligned(item.clip.audio, generated)
    frames = min(len(item.f0_hz), len(reference) // hop)
    silent = silent_frames(frame_levels(reference, hop))[:frames]
    quiet = windows_inside(silent, hop, LINE_FFT)
    # The first and last frames of what is unvoiced still hold some of the voice beside it.
    voiced = np.convolve(item.f0_hz[:frames] > 0, np.ones(2 * EDGE_FRAMES + 1), "same") > 0
    breath = windows_inside(~silent & ~voiced, hop, BREATH_FFT)
    steady = steadiness_change(reference, generated, rate, hop, item.f0_hz[:frames])
    line, own = strongest_line_db(generated, quiet), strongest_line_db(reference, quiet)
    return {
        "dc_db": dc_db(generated),
        "line_silence_db": LOWEST_DB if line < own + OWN_LINE_DB else line,
        "line_breath_db": line_in_breath_db(reference, generated, breath),
        **harmonic_to_noise_change_db(reference, generated, rate, hop, item.f0_hz[:frames]),
        **top_level_change_db(reference, generated, rate, item.clip.band_hz),
        "jitter_ratio": steady.jitter,
        "shimmer_ratio": steady.shimmer,
    }


def judge_octaves(item: Prepared, generated: np.ndarray) -> dict[str, Measured]:
    """The figures of :func:`melisma.evaluation.envelope.by_octave`; none for audio that is not finite."""
    if not np.isfinite(generated).all():
        return {}
    mel = item.mel
    found = estimate_f0(generated, mel.sample_rate, mel.hop_length, padding=mel.padding)
    return by_octave(item.clip.audio, generated, mel, item.f0_hz, found)


def copy(model: Any, item: Prepared, projections: int | None = None, seed: int = 0) -> np.ndarray:
    """Copy synthesis from the exact mel."""
    return np.asarray(model.synthesize(item.features, item.f0_hz, projections=projections, seed=seed))


def blurred(model: Any, item: Prepared, projections: int | None, seed: int = 0) -> np.ndarray:
    """Copy synthesis from a mel blurred as acoustic models blur it."""
    features = blur(item.features, BLUR_BINS, BLUR_FRAMES)
    return np.asarray(model.synthesize(features, item.f0_hz, projections=projections, seed=seed))


def moved(model: Any, item: Prepared, semitones: float, projections: int | None, seed: int = 0) -> np.ndarray:
    """F0 moved against the mel, as an acoustic model's is when a user moves it, and as it is in live singing."""
    asked = shift_semitones(item.f0_hz, semitones)
    asked = np.minimum(asked, item.mel.sample_rate / 2).astype(np.float32)
    return np.asarray(model.synthesize(item.features, asked, projections=projections, seed=seed))


def shifted(model: Any, item: Prepared, semitones: float, seed: int = 0) -> np.ndarray:
    """The recording at another pitch."""
    audio, rate = item.clip.audio, item.clip.sample_rate
    return np.asarray(model.resynthesize(audio, rate, shift_semitones=semitones, f0_hz=item.f0_hz, seed=seed))


def judge_shift(item: Prepared, generated: np.ndarray, semitones: float) -> Measured:
    """F0 that comes out against the F0 asked for, formants against the recording's."""
    rate = item.clip.sample_rate
    if not np.isfinite(generated).all():
        return dict.fromkeys(("f0_cents", "vuv_f1", "formants", "dc_db"), math.nan)
    asked = shift_semitones(item.f0_hz, semitones)
    found = estimate_f0(generated, rate, item.mel.hop_length, padding=item.mel.padding)
    frames = min(len(asked), len(found))
    judged = (asked[:frames] == 0) | ((asked[:frames] > JUDGED_HZ[0]) & (asked[:frames] < JUDGED_HZ[1]))
    cents, f1 = f0_agreement(asked[:frames][judged], found[:frames][judged])
    formants = envelope_distance(item.clip.audio, generated, item.mel, item.f0_hz > 0)
    return {"f0_cents": cents, "vuv_f1": f1, "formants": formants, "dc_db": dc_db(generated)}


def there_and_back(model: Any, item: Prepared, seed: int = 0) -> np.ndarray:
    """A shift up and the shift of the result back down, F0 estimated anew each time."""
    clip = item.clip
    there = model.resynthesize(clip.audio, clip.sample_rate, shift_semitones=BACK_SEMITONES, seed=seed)
    return np.asarray(model.resynthesize(there, clip.sample_rate, shift_semitones=-BACK_SEMITONES, seed=seed))


def judge_pesq(item: Prepared, generated: np.ndarray) -> Measured:
    """PESQ alone: phases and details may differ after two shifts."""
    return {"pesq": pesq_wideband(*aligned(item.clip.audio, generated), item.clip.sample_rate)}


def world(item: Prepared) -> np.ndarray:
    """The baseline WORLD."""
    return world_copy(item.clip.audio, item.clip.sample_rate)


def world_shifted(item: Prepared, semitones: float) -> np.ndarray:
    """WORLD at another pitch: what a shift costs that has the envelope for itself."""
    return world_copy(item.clip.audio, item.clip.sample_rate, 2.0 ** (semitones / 12.0))


def griffin(item: Prepared) -> np.ndarray:
    """The baseline Griffin-Lim, from the exact mel."""
    return griffin_lim(item.features, item.mel)


def world_conditions(parts: tuple[str, ...]) -> dict[str, Condition]:
    """WORLD's copy, and its shifts by some of ``SHIFTS_SEMITONES``."""
    table = {"copy": Condition(world, partial(judge_copy, with_visqol="visqol" in parts), copies=True)}
    for semitones in WORLD_SHIFTS if "shift" in parts else ():
        make, judge = partial(world_shifted, semitones=semitones), partial(judge_shift, semitones=semitones)
        table[f"{semitones:+d} semitones"] = Condition(make, judge)
    return table


def shift_condition(model: Any, semitones: float) -> Condition:
    """A pitch shift by so many semitones."""
    make, judge = partial(shifted, model, semitones=semitones), partial(judge_shift, semitones=semitones)
    return Condition(make, judge, seeded=True)


def conditions(model: Any, parts: tuple[str, ...]) -> dict[str, Condition]:
    """The conditions of the named parts that suit the model.

    Of ``copy``, ``blur``, ``moved``, ``shift``, ``detune`` and ``back``.
    """
    table: dict[str, Condition] = {}
    judge = partial(judge_copy, with_visqol="visqol" in parts)
    rounds: dict[str, int | None] = {"": None}
    if getattr(getattr(model, "generator", None), "default_projections", None) is not None:
        rounds[", projections off"] = 0
    for suffix, projections in rounds.items():
        if "copy" in parts:
            table["copy" + suffix] = Condition(partial(copy, model, projections=projections), judge, True, True)
        if "blur" in parts:
            make = partial(blurred, model, projections=projections)
            table["blurred mel" + suffix] = Condition(make, judge_copy, seeded=True)
        for semitones in MOVED_SEMITONES if "moved" in parts else ():
            make = partial(moved, model, semitones=semitones, projections=projections)
            asked = partial(judge_shift, semitones=semitones)
            table[f"F0 {semitones:+d} semitones{suffix}"] = Condition(make, asked, seeded=True)
    if "shift" in parts:
        for semitones in SHIFTS_SEMITONES:
            table[f"{semitones:+d} semitones"] = shift_condition(model, semitones)
    if "detune" in parts:
        for cents in DETUNINGS_CENTS:
            table[f"{cents:+d} cents"] = shift_condition(model, cents / 100.0)
    if "back" in parts:
        table[f"+{BACK_SEMITONES} and back"] = Condition(partial(there_and_back, model), judge_pesq, seeded=True)
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

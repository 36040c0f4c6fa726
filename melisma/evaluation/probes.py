"""Made signals that show one fault each: silence, breath, a note held for a minute, every octave, every semitone.

Their F0 is known exactly, and a model meets them whatever recordings are at hand.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from melisma.audio.mel import MelContract
from melisma.data.band import KEPT_BAND
from melisma.data.singer import Note, Voice, random_phrase, sing
from melisma.evaluation.artefacts import dc_db
from melisma.evaluation.clips import EvaluationClip
from melisma.evaluation.conditions import (
    Condition,
    Measured,
    Prepared,
    copy,
    faults,
    prepare,
    shift_condition,
)
from melisma.evaluation.envelope import OCTAVES_HZ
from melisma.evaluation.metrics import aligned, f0_agreement, log_mel_l1
from melisma.evaluation.report import PROBE
from melisma.evaluation.steadiness import steadiness
from melisma.f0 import estimate_f0

HELD_HZ, HELD_SECONDS = (110.0, 440.0), 60.0
OCTAVE_SECONDS, NOISE_SECONDS, SEMITONE_SECONDS = 4.0, 5.0, 2.5
BREATH_LEVEL = 0.02
SEMITONES = tuple(semitones for semitones in range(-12, 13) if semitones)
SEMITONE_VOICE_HZ = (180.0, 260.0)
# So many semitones share a line of the table.
STEP = 4
# The singer's compass.
SUNG_HZ = (55.0, 1600.0)

Probe = tuple[Prepared, str, Condition]


def probes(model: Any, mel: MelContract, parts: tuple[str, ...]) -> Iterator[Probe]:
    """Clip, name and condition of every probe of the parts ``probes`` and ``semitones``."""
    if "probes" in parts:
        silence = np.zeros(round(NOISE_SECONDS * mel.sample_rate), dtype=np.float32)
        yield _item("silence", silence, np.zeros(0), mel), "silence", Condition(partial(copy, model), judge_silence)
        breath = _breath(mel.sample_rate)
        yield _item("breath", breath, np.zeros(0), mel), "breath", Condition(partial(copy, model), judge_breath)
        for low, high in zip(OCTAVES_HZ, (*OCTAVES_HZ[1:-1], SUNG_HZ[1]), strict=False):
            rng = np.random.default_rng(round(low))
            sung = random_phrase(rng, OCTAVE_SECONDS, low, high, mel.sample_rate, mel.hop_length)
            name = f"octave {low:.0f}-{high:.0f} Hz"
            yield _item(name, *sung, mel), name, Condition(partial(copy, model), judge_octave)
        for f0_hz in HELD_HZ:
            name = f"{f0_hz:.0f} Hz for a minute"
            held = _held(f0_hz, mel)
            yield _item(name, *held, mel), name, Condition(partial(copy, model), partial(judge_held, f0_hz=f0_hz))
    if "semitones" in parts:
        rng = np.random.default_rng(7)
        sung = random_phrase(rng, SEMITONE_SECONDS, *SEMITONE_VOICE_HZ, mel.sample_rate, mel.hop_length)
        item = _item("semitones", *sung, mel)
        for semitones in SEMITONES:
            named = replace(item, clip=replace(item.clip, name=f"{semitones:+d} semitones"))
            first = (abs(semitones) - 1) // STEP * STEP + 1
            sign = "+" if semitones > 0 else "-"
            yield named, f"{sign}{first} to {sign}{first + STEP - 1} semitones", shift_condition(model, semitones)


def _item(name: str, audio: np.ndarray, f0_hz: np.ndarray, mel: MelContract) -> Prepared:
    frames = len(audio) // mel.hop_length
    audio = np.asarray(audio[: frames * mel.hop_length], dtype=np.float32)
    curve = np.zeros(frames, dtype=np.float32)
    curve[: len(f0_hz)] = f0_hz[:frames]
    return prepare(EvaluationClip(name, PROBE, audio, mel.sample_rate, KEPT_BAND * mel.sample_rate / 2), mel, curve)


def _breath(sample_rate: int) -> np.ndarray:
    """Noise that falls by 3 dB an octave, as breath roughly does."""
    samples = round(NOISE_SECONDS * sample_rate)
    spectrum = np.fft.rfft(np.random.default_rng(3).standard_normal(samples))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(samples, 1 / sample_rate), 50.0))
    noise = np.fft.irfft(spectrum, samples)
    return np.asarray(BREATH_LEVEL * noise / np.sqrt(np.mean(noise**2)), dtype=np.float32)


def _held(f0_hz: float, mel: MelContract) -> tuple[np.ndarray, np.ndarray]:
    voice = Voice(vibrato_cents=0.0, drift_cents=0.0)
    return sing([Note(f0_hz, HELD_SECONDS, "a")], mel.sample_rate, 5, voice, mel.hop_length)


def judge_silence(item: Prepared, generated: np.ndarray) -> Measured:
    """Tones, DC and level of what ought to be silence."""
    found = faults(item, generated)
    level = 10.0 * math.log10(max(float(np.mean(np.square(generated, dtype=np.float64))), 1e-12))
    return {"dc_db": found["dc_db"], "line_silence_db": found["line_silence_db"], "level_db": level}


def judge_breath(item: Prepared, generated: np.ndarray) -> Measured:
    """Tones in what ought to be noise, and whether it has its colour."""
    found = faults(item, generated)
    wanted = ("dc_db", "line_breath_db", "above_16k_db", "above_20k_db")
    return {name: found[name] for name in wanted} | {"log_mel": log_mel_l1(item.clip.audio, generated, item.mel)}


def judge_octave(item: Prepared, generated: np.ndarray) -> Measured:
    """F0 against the exact F0, and the log-mel."""
    mel = item.mel
    found = estimate_f0(generated, mel.sample_rate, mel.hop_length, padding=mel.padding)
    cents, f1 = f0_agreement(item.f0_hz, found)
    return {"log_mel": log_mel_l1(item.clip.audio, generated, mel), "f0_cents": cents, "vuv_f1": f1}


def judge_held(item: Prepared, generated: np.ndarray, f0_hz: float) -> Measured:
    """A note held for a minute: jitter and shimmer as multiples of the original's, F0 and log-mel."""
    reference, generated = aligned(item.clip.audio, generated)
    original, found = (steadiness(clip, item.clip.sample_rate, f0_hz) for clip in (reference, generated))
    ratios = {
        "jitter_ratio": found.jitter / original.jitter if original.jitter > 0 else math.nan,
        "shimmer_ratio": found.shimmer / original.shimmer if original.shimmer > 0 else math.nan,
    }
    return judge_octave(item, generated) | ratios | {"dc_db": dc_db(generated)}

"""Versions of one clip: the original, WORLD, and models, all at one pitch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from melisma.errors import MelismaError
from melisma.evaluation.baselines import world_copy
from melisma.evaluation.clips import EvaluationClip
from melisma.evaluation.page import Section, Version
from melisma.inference.vocoder import Vocoder, load


@dataclass(frozen=True)
class Singer:
    """Who sings a clip again: a name, and ``(audio, sample_rate, semitones) -> audio``."""

    name: str
    sing: Callable[[np.ndarray, int, float], np.ndarray]


def world_singer() -> Singer:
    """WORLD: Harvest, CheapTrick, D4C."""
    return Singer("WORLD", lambda audio, rate, semitones: world_copy(audio, rate, 2.0 ** (semitones / 12.0)))


def singers(models: Sequence[str], projections: int | None) -> tuple[list[Singer], int]:
    """Models by name or path, and the rate in Hz of the first, at which all are compared.

    Raises:
        MelismaError: no model, one that cannot be read, or one that decodes a latent.
    """
    found, rates = [], []
    for model in models:
        vocoder = load(model, device="cpu", precision="float32")
        if vocoder.mel is None:
            raise MelismaError(f"{model} decodes a latent and has no mel: it cannot sing a recording again")
        rounds = projections if getattr(vocoder.generator, "default_projections", None) is not None else None
        found.append(Singer(_name(model, models), partial(_resynthesized, vocoder, rounds)))
        rates.append(vocoder.sample_rate)
    if not found:
        raise MelismaError("no model to listen to; name one with --models")
    return found, rates[0]


def _resynthesized(
    vocoder: Vocoder, projections: int | None, audio: np.ndarray, rate: int, semitones: float
) -> np.ndarray:
    return np.asarray(vocoder.resynthesize(audio, rate, shift_semitones=semitones, projections=projections))


def _name(model: str, models: Sequence[str]) -> str:
    """A model's short name; its whole path where two share the short one."""
    stem = Path(model).stem
    return stem if sum(Path(other).stem == stem for other in models) == 1 else model


def compare(clip: EvaluationClip, voices: Sequence[Singer], semitones: float) -> Section:
    """The clip by every singer, the recording first."""
    versions = [Version("original", clip.audio)]
    for voice in voices:
        versions.append(Version(voice.name, voice.sing(clip.audio, clip.sample_rate, semitones)))
    note = f"{semitones:+g} semitones; the original is at its own pitch" if semitones else "at the recording's pitch"
    return Section(clip.name, versions, note)

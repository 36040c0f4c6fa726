"""The built-in singer: a made voice whose F0 is known exactly.

A source-filter synthesiser: band-limited glottal pulses with vibrato, drift, jitter and shimmer, and breath and
consonant noise, through formants that glide from vowel to vowel. 50 to 1600 Hz. It makes the material of demos and
tests, and adds range to training data; nothing in it is recorded.

    audio, f0_hz = sing([Note(220.0, 0.5, "a"), Note(330.0, 0.8, "i", onset="s")])
    audio, f0_hz = random_phrase(np.random.default_rng(1), seconds=8.0, lowest_hz=110.0, highest_hz=880.0)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melisma.config import lookup
from melisma.data.glottal import pulses
from melisma.data.tract import (
    FORMANTS_HZ,
    NOISES,
    VOWELS,
    filter_frames,
    frame_centres,
    frame_sizes,
    noise_shape,
    vowel_response,
)
from melisma.errors import MelismaError

Array = NDArray[np.floating]
Float32 = NDArray[np.float32]

ONSETS = ("", "h", "m", "n", "l", "r", "v", "z", *NOISES)
_FRAMES_AT_ONCE = 256


@dataclass(frozen=True)
class Note:
    """One sung syllable.

    Attributes:
        f0_hz: pitch in Hz; 0 is a rest (``onset="h"`` makes it a breath).
        seconds: length, the onset's included.
        vowel: a key of :data:`melisma.data.tract.FORMANTS_HZ`.
        onset: the consonant before the vowel, one of :data:`ONSETS`; an empty string sings on without a break.
        loudness: gain, 1 is loud.
    """

    f0_hz: float
    seconds: float
    vowel: str = "a"
    onset: str = ""
    loudness: float = 0.8


@dataclass(frozen=True)
class Voice:
    """What makes one voice differ from another.

    Attributes:
        tract: formant scale, 1 for an average man, about 1.15 for a woman, 1.3 for a child.
        open_quotient: share of the period with the glottis open, 0.4 pressed to 0.8 breathy.
        speed_quotient: opening time over closing time of the glottis.
        tilt_hz: corner above which a loud voice falls by a further 6 dB an octave; soft notes have it lower.
        ring: strength of the singer's formant, 0 to 1.
        breath: level of the breath noise relative to the pulses.
        vibrato_hz: rate.
        vibrato_cents: peak deviation; vibrato sets in gradually after the start of a note.
        drift_cents: size of the slow wander of the pitch.
        jitter: deviation of single pulses in cycles; it moves pulses about the phase of the exact F0.
        shimmer: deviation of the level of single pulses.
        glide_seconds: time from one note to the next.
    """

    tract: float = 1.0
    open_quotient: float = 0.6
    speed_quotient: float = 2.5
    tilt_hz: float = 7000.0
    ring: float = 0.4
    breath: float = 0.03
    vibrato_hz: float = 5.5
    vibrato_cents: float = 50.0
    drift_cents: float = 8.0
    jitter: float = 0.003
    shimmer: float = 0.03
    glide_seconds: float = 0.09


@dataclass(frozen=True)
class _Score:
    """Tracks over ``(samples,)`` made from notes: log2 pitch, gains; and ``(samples,)`` indices of tract shapes."""

    pitch: Array
    voiced: Array
    aspiration: Array
    shape: NDArray[np.int64]
    shapes: list[str]
    noises: Mapping[str, Array]
    since_onset: Array


def random_voice(rng: np.random.Generator, f0_hz: float) -> Voice:
    """Draw a voice that could sing near ``f0_hz``: high voices have shorter tracts, some are breathy or plain."""
    height = np.clip(math.log2(f0_hz / 110.0) / 2.5, 0.0, 1.0)
    return Voice(
        tract=float(np.clip(0.92 + 0.3 * height + rng.normal(0.0, 0.06), 0.85, 1.4)),
        open_quotient=float(rng.uniform(0.42, 0.8)),
        speed_quotient=float(rng.uniform(1.3, 4.0)),
        tilt_hz=float(np.exp(rng.uniform(math.log(2500.0), math.log(20000.0)))),
        ring=float(rng.uniform(0.0, 0.9) * (rng.random() < 0.7)),
        breath=float(np.exp(rng.uniform(math.log(0.004), math.log(0.25)))),
        vibrato_hz=float(rng.uniform(4.5, 7.0)),
        vibrato_cents=float(rng.choice([0.0, rng.uniform(10.0, 60.0), rng.uniform(40.0, 130.0)])),
        drift_cents=float(rng.uniform(2.0, 20.0)),
        jitter=float(np.exp(rng.uniform(math.log(0.0008), math.log(0.008)))),
        shimmer=float(rng.uniform(0.005, 0.08)),
        glide_seconds=float(rng.uniform(0.03, 0.2)),
    )


def random_notes(rng: np.random.Generator, seconds: float, lowest_hz: float, highest_hz: float) -> list[Note]:
    """Draw notes that last ``seconds`` together: short and held ones, steps and leaps, rests and breaths."""
    low, high = math.log2(lowest_hz), math.log2(highest_hz)
    place, left, notes = rng.uniform(low, high), seconds, list[Note]()
    mood = rng.uniform(0.3, 1.0)
    vowels = rng.choice(VOWELS, size=rng.integers(2, len(VOWELS)), replace=False)
    while left > 0:
        length = min(left, float(np.exp(rng.normal(math.log(0.4), 0.7))), 6.0)
        if notes and rng.random() < 0.12:
            onset = str(rng.choice(["", "h"]))
            notes.append(Note(0.0, min(left, rng.uniform(0.1, 0.6)), str(rng.choice(vowels)), onset, 0.25))
            left -= notes[-1].seconds
            continue
        leap = rng.normal(0.0, 0.25) if rng.random() < 0.75 else rng.uniform(-1.0, 1.0)
        place = float(np.clip(place + leap, low, high))
        onset = "" if notes and rng.random() < 0.4 else str(rng.choice(ONSETS))
        loudness = float(np.clip(mood * np.exp(rng.normal(0.0, 0.35)), 0.05, 1.0))
        notes.append(Note(2.0**place, length, str(rng.choice(vowels)), onset, loudness))
        left -= length
    return notes


def random_phrase(
    rng: np.random.Generator,
    seconds: float,
    lowest_hz: float,
    highest_hz: float,
    sample_rate: int = 44100,
    hop_length: int = 512,
) -> tuple[Float32, Float32]:
    """Sing random notes in a random voice.

    Args:
        rng: where every choice comes from; the same state gives the same phrase.
        seconds: length.
        lowest_hz: lowest note, at least 50; vibrato and drift may pass it slightly.
        highest_hz: highest note, at most 1600.
        sample_rate: Hz.
        hop_length: samples between F0 values; 1 gives F0 at every sample.

    Returns:
        audio ``(samples,)`` with a peak between 0.1 and 0.95, and F0 in Hz, 0 where unvoiced, as :func:`sing` does.
    """
    if not 50.0 <= lowest_hz <= highest_hz <= 1600.0:
        raise MelismaError(f"the singer sings 50 to 1600 Hz, not {lowest_hz:g} to {highest_hz:g}; stay inside")
    notes = random_notes(rng, seconds, lowest_hz, highest_hz)
    voice = random_voice(rng, math.sqrt(lowest_hz * highest_hz))
    seed = int(rng.integers(1 << 62))
    audio, f0_hz = sing(notes, sample_rate, seed, voice, hop_length)
    peak = float(np.exp(rng.uniform(math.log(0.1), math.log(0.95))))
    audio *= peak / max(1e-9, float(np.abs(audio).max()))
    if rng.random() < 0.5:  # the room: without it, rests are digital silence
        audio += (rng.normal(size=len(audio)) * peak * 10 ** rng.uniform(-4.5, -3.0)).astype(np.float32)
    return audio, f0_hz


def sing(
    notes: Sequence[Note],
    sample_rate: int = 44100,
    seed: int = 0,
    voice: Voice | None = None,
    hop_length: int = 512,
) -> tuple[Float32, Float32]:
    """Sing notes.

    Args:
        notes: one after the other; the audio lasts as long as they do together.
        sample_rate: Hz, 8000 or more.
        seed: of jitter, drift, breath and consonants.
        voice: whose voice; an average one when ``None``.
        hop_length: samples between F0 values.

    Returns:
        audio ``(samples,)`` with a peak of 0.5, and F0 ``(samples // hop_length,)`` in Hz, 0 where unvoiced; value
        ``t`` belongs to sample ``(t + 1/2) * hop_length``, where frame ``t`` of a mel with ``same`` padding stands.
    """
    if not notes or sample_rate < 8000:
        raise MelismaError("the singer needs at least one note and a sample rate of at least 8000 Hz")
    voice = Voice() if voice is None else voice
    rng = np.random.default_rng(seed)
    score = _read_score(notes, sample_rate, voice)
    samples = len(score.pitch)
    f0 = np.minimum(_pitch_curve(score, voice, sample_rate, rng), 0.4 * sample_rate)
    phase = np.cumsum(f0) / sample_rate
    audio = np.zeros(samples)
    _through_tract(*_sources(phase, f0, score, voice, sample_rate, rng), f0, score, voice, sample_rate, audio)
    _add_consonants(score, voice, sample_rate, rng, audio)
    audio *= 0.5 / max(1e-9, float(np.abs(audio).max()))
    at = np.arange(samples // hop_length) * hop_length + hop_length // 2
    voiced = score.voiced[at] > 0.02
    return audio.astype(np.float32), np.where(voiced, f0[at], 0.0).astype(np.float32)


def _smooth(track: Array, seconds: float, sample_rate: int) -> Array:
    """Moving average, twice: steps become smooth ramps about ``seconds`` long. Edges hold their value."""
    length = max(1, int(0.5 * seconds * sample_rate))
    for _ in range(2):
        left = length // 2
        padded = np.pad(track, (left, length - 1 - left), mode="edge")
        total = np.cumsum(np.insert(padded, 0, 0.0))
        track = (total[length:] - total[:-length]) / length
    return track


def _read_score(notes: Sequence[Note], rate: int, voice: Voice) -> _Score:
    edges = np.round(np.cumsum([0.0, *[note.seconds for note in notes]]) * rate).astype(np.int64)
    samples = int(edges[-1])
    if samples == 0:
        raise MelismaError("the notes last no time at all; give them seconds")
    pitch, voiced, aspiration, since = np.zeros(samples), np.zeros(samples), np.zeros(samples), np.zeros(samples)
    shape = np.zeros(samples, dtype=np.int64)
    shapes, tracks = sorted(FORMANTS_HZ), {kind: np.zeros(samples) for kind in NOISES}
    sung = [note.f0_hz for note in notes if note.f0_hz > 0] or [220.0]
    height = sung[0]
    for note, start, end in zip(notes, edges[:-1], edges[1:], strict=True):
        lookup(FORMANTS_HZ, note.vowel, "vowel")
        lookup(dict.fromkeys(ONSETS), note.onset, "onset")
        height = note.f0_hz or height
        pitch[start:end] = math.log2(height)
        shape[start:end] = shapes.index(note.vowel)
        since[start:end] = np.arange(end - start) / rate
        if note.f0_hz == 0:
            aspiration[start:end] = 0.5 * note.loudness * (note.onset == "h")
            continue
        middle = start + int(min(0.12, 0.35 * note.seconds) * rate) * bool(note.onset)
        voiced[start:end] = note.loudness
        if note.onset in FORMANTS_HZ:
            shape[start:middle] = shapes.index(note.onset)
            voiced[start:middle] *= 0.45
        elif note.onset in ("v", "z"):
            voiced[start:middle] *= 0.3
            tracks["f" if note.onset == "v" else "s"][start:middle] = 0.25 * note.loudness
        elif note.onset == "h":
            voiced[start:middle] = 0.0
            aspiration[start:middle] = 0.4 * note.loudness
        elif note.onset:
            stop = note.onset in ("t", "k", "p")
            voiced[start:middle] = 0.0
            burst = middle - int(0.02 * rate) if stop else start
            tracks[note.onset][max(start, burst) : middle] = 0.5 * note.loudness
    glide = _smooth(pitch, voice.glide_seconds, rate)
    noises = {kind: _smooth(track, 0.008, rate) for kind, track in tracks.items() if track.any()}
    return _Score(glide, _smooth(voiced, 0.03, rate), _smooth(aspiration, 0.06, rate), shape, shapes, noises, since)


def _pitch_curve(score: _Score, voice: Voice, rate: int, rng: np.random.Generator) -> Array:
    """F0 at every sample, also where nothing is voiced: the notes, vibrato that sets in late, slow drift."""
    samples = len(score.pitch)
    seconds = np.arange(samples) / rate
    knots = rng.normal(size=int(seconds[-1] * 4.0) + 3)
    drift = _smooth(np.interp(seconds * 4.0, np.arange(len(knots)), knots), 0.2, rate) * voice.drift_cents
    depth = _smooth(np.clip((score.since_onset - 0.15) / 0.4, 0.0, 1.0), 0.1, rate) * voice.vibrato_cents
    rates = voice.vibrato_hz * (1.0 + 0.06 * np.interp(seconds * 4.0, np.arange(len(knots)), rng.permutation(knots)))
    vibrato = depth * np.sin(2 * np.pi * (np.cumsum(rates) / rate + rng.random()))
    return 2.0 ** (score.pitch + (vibrato + drift) / 1200.0)


def _sources(
    phase: Array, f0: Array, score: _Score, voice: Voice, rate: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Pulses, pressed when loud and round when soft, and the breath that comes through the open glottis."""
    cycles = np.arange(int(phase[-1]) + 3)
    moved = phase + voice.jitter * np.interp(phase, cycles, rng.normal(size=len(cycles)))
    gain = 1.0 + voice.shimmer * np.interp(phase, cycles, rng.normal(size=len(cycles)))
    loud = pulses(moved, f0, voice.open_quotient, voice.speed_quotient, rate)
    soft = pulses(moved, f0, min(0.95, voice.open_quotient + 0.2), 1.0, rate)
    effort = np.clip(score.voiced, 0.0, 1.0)
    open_glottis = 0.6 + 0.4 * np.sin(2 * np.pi * moved)
    breath = rng.normal(size=len(phase)) * (voice.breath * score.voiced * open_glottis + 0.15 * score.aspiration)
    return gain * score.voiced * (effort * loud + (1.0 - effort) * soft), breath


def _through_tract(voiced: Array, breath: Array, f0: Array, score: _Score, voice: Voice, rate: int, out: Array) -> None:
    window, _ = frame_sizes(rate)
    frequencies = np.arange(window + 1) * (0.5 * rate / window)
    centres = np.clip(frame_centres(len(f0), rate), 0, len(f0) - 1)
    table = np.array([FORMANTS_HZ[name] for name in score.shapes])
    frame_rate = rate * len(centres) // len(f0)
    formants = np.log(table[score.shape[centres]] * voice.tract)
    formants = np.exp(np.stack([_smooth(track, 0.09, max(60, frame_rate)) for track in formants.T], axis=1))
    formants[:, 0] = np.maximum(formants[:, 0], 1.02 * f0[centres])  # singers raise the first formant to the pitch
    formants[:, 1] = np.maximum(formants[:, 1], 1.25 * formants[:, 0])
    formants[:, 2] = np.maximum(formants[:, 2], 1.15 * formants[:, 1])
    effort = np.clip(score.voiced[centres], 0.05, 1.0)[:, None]
    for start in range(0, len(centres), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        response = vowel_response(frequencies, formants[part], voice.tract, voice.ring, rate)
        tilt = 1.0 / (1.0 + 1j * frequencies / (voice.tilt_hz * effort[part] ** 0.5))
        filter_frames(voiced, response * tilt, start, out, rate)
        filter_frames(breath, response, start, out, rate)


def _add_consonants(score: _Score, voice: Voice, rate: int, rng: np.random.Generator, out: Array) -> None:
    window, _ = frame_sizes(rate)
    frequencies = np.arange(window + 1) * (0.5 * rate / window)
    noise = rng.normal(size=len(out)) * 0.12
    centres = np.clip(frame_centres(len(out), rate), 0, len(out) - 1)
    for kind, gain in score.noises.items():
        shape = noise_shape(frequencies, kind, voice.tract).astype(np.complex128)
        for start in range(0, len(centres), _FRAMES_AT_ONCE):
            if gain[centres[start : start + _FRAMES_AT_ONCE]].any():
                count = len(centres[start : start + _FRAMES_AT_ONCE])
                filter_frames(noise * gain, np.broadcast_to(shape, (count, len(shape))), start, out, rate)

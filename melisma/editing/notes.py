"""The notes in an F0 curve.

A note is a stretch on which one pitch explains the curve. Within each voiced stretch the cheapest staircase is found
(dynamic programming): every frame costs its distance from the step it stands on, up to a cap, and every change of step
costs as much as :data:`CHANGE` semitone seconds. A vibrato of a semitone to either side costs less than the changes
that would follow it, a glide is cheaper to cross in one step, and an octave error costs no more than its cap.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from melisma.editing.pitch import pitch_of

CHANGE = 0.06  # semitone seconds: a step of one semitone must last 120 ms, one of two 60 ms, to be a note
CAP = 1.5  # semitones
STEPS = 4  # of the staircase, a semitone
DROPOUT_SECONDS = 0.05  # unvoiced frames as short as this, with one pitch on both sides, do not end a note
SAME_PITCH = 1.5  # semitones
SHORTEST_SECONDS = 0.08  # shorter steps between two others are glides and belong to these
ONE_PITCH = 0.5  # semitones: notes on both sides of a glide that are nearer than this are one
BLIP_SECONDS = 0.04  # voiced stretches shorter than this are no notes
_TOO_LONG = 4096  # frames of one voiced stretch that are looked at together, for flat memory


@dataclass(frozen=True)
class Note:
    """One sung note.

    Attributes:
        start: its first frame.
        stop: the frame after its last; frames between may be unvoiced for a moment.
        pitch: semitones as MIDI counts them (69 is 440 Hz), the median over the middle of the note.
    """

    start: int
    stop: int
    pitch: float


def find_notes(f0_hz: np.ndarray, frame_rate_hz: float) -> tuple[Note, ...]:
    """Find the notes of a curve.

    Args:
        f0_hz: ``(frames,)`` in Hz, 0 where unvoiced.
        frame_rate_hz: frames a second.

    Returns:
        Notes in order, without overlap. Every voiced frame is in one but for stretches below 40 ms.
    """
    pitch = pitch_of(f0_hz)
    notes: list[Note] = []
    for start, stop in _stretches(pitch, frame_rate_hz):
        for first in range(start, stop, _TOO_LONG):
            last = min(stop, first + _TOO_LONG)
            part = pitch[first:last]
            edges = _without_glides(_staircase(_filled(part), frame_rate_hz), part, frame_rate_hz)
            notes += [
                Note(first + low, first + high, _centre(part[low:high])) for low, high in itertools.pairwise(edges)
            ]
    return tuple(notes)


def voiced_runs(voiced: np.ndarray) -> list[tuple[int, int]]:
    """``(start, stop)`` of every stretch of true values in ``(frames,)``."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], voiced.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in zip(change[::2], change[1::2], strict=True)]


def _stretches(pitch: np.ndarray, rate: float) -> list[tuple[int, int]]:
    """Voiced stretches, joined across dropouts, without blips."""
    joined: list[tuple[int, int]] = []
    for start, stop in voiced_runs(np.isfinite(pitch)):
        if joined and start - joined[-1][1] <= DROPOUT_SECONDS * rate:
            before = np.median(pitch[max(joined[-1][0], joined[-1][1] - 3) : joined[-1][1]])
            after = np.median(pitch[start : min(stop, start + 3)])
            if abs(before - after) <= SAME_PITCH:
                joined[-1] = (joined[-1][0], stop)
                continue
        joined.append((start, stop))
    return [(start, stop) for start, stop in joined if stop - start >= BLIP_SECONDS * rate]


def _filled(pitch: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(np.isfinite(pitch))
    return np.interp(np.arange(len(pitch)), known, pitch[known]) if len(known) else np.zeros(len(pitch))


def _staircase(pitch: np.ndarray, rate: float) -> list[int]:
    """Where the cheapest staircase changes its step, with both ends: frames, one more than steps."""
    grid = np.arange(np.floor(pitch.min() * STEPS), np.ceil(pitch.max() * STEPS) + 1) / STEPS
    came_from = np.zeros((len(pitch), len(grid)), dtype=np.int16)
    here = np.arange(len(grid), dtype=np.int16)
    total = np.zeros(len(grid))
    for frame, value in enumerate(pitch):
        cheapest = int(total.argmin())
        change = total[cheapest] + CHANGE * rate
        came_from[frame] = np.where(total <= change, here, cheapest)
        total = np.minimum(total, change) + np.minimum(np.abs(grid - value), CAP)
    path = np.zeros(len(pitch), dtype=np.int64)
    path[-1] = total.argmin()
    for frame in range(len(pitch) - 1, 0, -1):
        path[frame - 1] = came_from[frame][path[frame]]
    return [0, *(int(frame) + 1 for frame in np.flatnonzero(np.diff(path))), len(pitch)]


def _without_glides(edges: list[int], pitch: np.ndarray, rate: float) -> list[int]:
    """Give the frames of steps that are too short, the shortest first, to the nearer of their neighbours."""
    bounds = list(edges)
    while len(bounds) > 2:
        short = int(np.diff(bounds).argmin())
        start, stop = bounds[short], bounds[short + 1]
        if stop - start >= SHORTEST_SECONDS * rate:
            break
        if short == 0:
            del bounds[1]
        elif short == len(bounds) - 2:
            del bounds[short]
        else:
            left, right = _centre(pitch[bounds[short - 1] : start]), _centre(pitch[stop : bounds[short + 2]])
            gain = np.nan_to_num(np.abs(pitch[start:stop] - right) - np.abs(pitch[start:stop] - left))
            border = start + int(np.argmax(np.concatenate([[0.0], np.cumsum(gain)])))
            bounds[short : short + 2] = [border] if abs(left - right) > ONE_PITCH else []
    return bounds


def _centre(pitch: np.ndarray) -> float:
    """Median over the middle 70 % of a note, whose ends glide; over all of it where the middle is unvoiced."""
    margin = round(0.15 * len(pitch))
    middle = pitch[margin : len(pitch) - margin]
    return float(np.nanmedian(middle if np.isfinite(middle).any() else pitch))

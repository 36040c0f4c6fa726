"""Edits of an F0 curve: each is a number of semitones to add to every voiced frame.

An edit works out its semitones frame by frame, joins them where they would jump within a voiced stretch, and adds them.
So unvoiced frames stay 0, and a curve that was continuous stays so.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from melisma.audio.f0_curve import shift_semitones
from melisma.editing.notes import Note, voiced_runs
from melisma.editing.pitch import pitch_of
from melisma.editing.scales import Scale
from melisma.errors import MelismaError

GLIDE_SECONDS = 0.06  # from one offset to another
VIBRATO_DELAY_SECONDS = 0.15
VIBRATO_RISE_SECONDS = 0.2
SHORTEST_VIBRATO_SECONDS = 0.35
_CENTRE_SECONDS = 0.36  # Hann window that leaves the centre line of a vibrato: its sidelobes lie where 5 to 7 Hz do


def transpose(f0_hz: np.ndarray, semitones: float) -> np.ndarray:
    """Move the whole curve by semitones."""
    return shift_semitones(f0_hz, semitones)


def move(f0_hz: np.ndarray, frame_rate_hz: float, start: int, stop: int, semitones: float) -> np.ndarray:
    """Move the frames ``start`` to ``stop`` by semitones, with a glide where the voice goes on at a border."""
    offset = np.zeros(len(f0_hz))
    offset[start:stop] = semitones
    return _added(f0_hz, joined(offset, f0_hz, (start, stop), frame_rate_hz))


def draw(f0_hz: np.ndarray, frame_rate_hz: float, frames: Sequence[float], pitches: Sequence[float]) -> np.ndarray:
    """Put the curve on a line through points; only voiced frames take it.

    Args:
        f0_hz: ``(frames,)``.
        frame_rate_hz: frames a second.
        frames: positions of the points in frames, fractions allowed, growing; frame ``t`` stands at ``t + 1/2``.
        pitches: semitones as MIDI counts them; the line is straight in semitones between the points.
    """
    if len(frames) != len(pitches) or len(frames) < 2 or (np.diff(frames) <= 0).any():
        raise MelismaError("a drawn curve needs two points or more, their times growing")
    centres = np.arange(len(f0_hz)) + 0.5
    inside = np.flatnonzero((centres >= frames[0]) & (centres <= frames[-1]))
    if inside.size == 0:
        return np.array(f0_hz)
    offset = np.zeros(len(f0_hz))
    offset[inside] = np.nan_to_num(np.interp(centres[inside], frames, pitches) - pitch_of(f0_hz)[inside])
    return _added(f0_hz, joined(offset, f0_hz, (int(inside[0]), int(inside[-1]) + 1), frame_rate_hz))


def snap(
    f0_hz: np.ndarray,
    frame_rate_hz: float,
    notes: Sequence[Note],
    scale: Scale,
    strength: float = 1.0,
    speed_seconds: float = 0.1,
) -> np.ndarray:
    """Draw notes to the nearest pitches of a scale.

    Args:
        f0_hz: ``(frames,)``.
        frame_rate_hz: frames a second.
        notes: the notes to tune; frames outside them stay.
        scale: where to.
        strength: 0 leaves everything, 1 lands on the pitch.
        speed_seconds: how fast the pitch is drawn to the note: what changes more slowly than this is corrected, what
            changes faster (vibrato, scoops) stays. 0 leaves nothing of it (the robot), 0.4 moves the note as a whole.
    """
    pitch = pitch_of(f0_hz)
    offset = np.zeros(len(pitch))
    for note in notes:
        missing = scale.nearest(note.pitch) - pitch[note.start : note.stop]
        offset[note.start : note.stop] = strength * _slow(missing, speed_seconds * frame_rate_hz)
    return _added(f0_hz, joined(offset, f0_hz, _borders(notes), frame_rate_hz))


def vibrato(
    f0_hz: np.ndarray,
    frame_rate_hz: float,
    notes: Sequence[Note],
    keep: float = 1.0,
    depth_cents: float = 0.0,
    rate_hz: float = 5.5,
) -> np.ndarray:
    """Scale the vibrato that is there, and add one.

    Args:
        f0_hz: ``(frames,)``.
        frame_rate_hz: frames a second.
        notes: the notes that get it; a note below 0.35 s is left alone.
        keep: factor of the vibrato that is there: 0 straightens, 1 leaves, 2 doubles.
        depth_cents: peak deviation of the vibrato that is added; it sets in gradually, and fades before the note ends.
        rate_hz: its rate.
    """
    pitch = pitch_of(f0_hz)
    offset = np.zeros(len(pitch))
    for note in notes:
        length = note.stop - note.start
        if length < SHORTEST_VIBRATO_SECONDS * frame_rate_hz:
            continue
        part = pitch[note.start : note.stop]
        wave = part - _smoothed(part, _CENTRE_SECONDS * frame_rate_hz)
        edge = _window(length, 0.0, 0.5 * VIBRATO_RISE_SECONDS * frame_rate_hz)
        seconds = np.arange(length) / frame_rate_hz
        rise = _window(length, VIBRATO_DELAY_SECONDS * frame_rate_hz, VIBRATO_RISE_SECONDS * frame_rate_hz)
        added = depth_cents / 100.0 * rise * np.sin(2.0 * np.pi * rate_hz * (seconds - VIBRATO_DELAY_SECONDS))
        offset[note.start : note.stop] = np.nan_to_num((keep - 1.0) * edge * wave) + added
    return _added(f0_hz, offset)


def smooth(f0_hz: np.ndarray, frame_rate_hz: float, notes: Sequence[Note], seconds: float) -> np.ndarray:
    """Make the way from one note to the next ``seconds`` long where the voice does not pause between them."""
    pitch, width = pitch_of(f0_hz), seconds * frame_rate_hz
    offset, covered = np.zeros(len(pitch)), np.zeros(len(pitch))
    for start, stop in voiced_runs(np.isfinite(pitch)):
        part = pitch[start:stop]
        borders = [note.start - start for note in notes if start < note.start < stop]
        if not borders:
            continue
        change = _smoothed(part, width) - part
        near = np.zeros(len(part))
        for border in borders:
            distance = np.abs(np.arange(len(part)) + 0.5 - border) / max(width, 1.0)
            near = np.maximum(near, np.where(distance < 1.0, 0.5 + 0.5 * np.cos(np.pi * distance), 0.0))
        offset[start:stop], covered[start:stop] = near * change, near
    return _added(f0_hz, offset)


def follow(
    f0_hz: np.ndarray,
    frame_rate_hz: float,
    notes: Sequence[Note],
    starts: Sequence[float],
    stops: Sequence[float],
    pitches: Sequence[float],
    tolerance_seconds: float = 0.15,
) -> np.ndarray:
    """Let the voice sing a melody: every sung note, or the part of it that a melody note covers, moves to its pitch.

    The voice keeps its own timing where it is within the tolerance: the change from one melody note to the next is
    taken to be at the nearest border of sung notes. Vibrato and scoops stay. What is sung in a pause of the melody goes
    to the melody note that is nearer in time.

    Args:
        f0_hz: ``(frames,)``.
        frame_rate_hz: frames a second.
        notes: what is sung.
        starts: of the melody's notes, in frames, growing.
        stops: of the melody's notes, in frames.
        pitches: of the melody's notes, semitones as MIDI counts them.
        tolerance_seconds: how far singing and melody may be apart.
    """
    if not len(starts):
        raise MelismaError("the melody has no notes; there is nothing to follow")
    pitch, offset = pitch_of(f0_hz), np.zeros(len(f0_hz))
    changes = 0.5 * (np.asarray(starts[1:], dtype=float) + np.asarray(stops[:-1], dtype=float))
    sung = np.array(sorted({edge for note in notes for edge in (note.start, note.stop)}), dtype=float)
    if sung.size:
        # The nearest border of sung notes, within tolerance, of the pause between two notes of the melody.
        for index, (stop, start) in enumerate(zip(stops[:-1], starts[1:], strict=True)):
            away = np.maximum(np.maximum(stop - sung, sung - start), 0.0)
            best = int(np.lexsort((np.abs(sung - start), away))[0])
            if away[best] <= tolerance_seconds * frame_rate_hz:
                changes[index] = sung[best]
    changes = np.maximum.accumulate(changes)
    which = np.searchsorted(changes, np.arange(len(f0_hz)), side="right")
    borders: list[int] = []
    for note in notes:
        parts = which[note.start : note.stop]
        cuts = [0, *(np.flatnonzero(np.diff(parts)) + 1), len(parts)]
        for low, high in itertools.pairwise(cuts):
            first, last = note.start + int(low), note.start + int(high)
            known = pitch[first:last][np.isfinite(pitch[first:last])]
            # A short part says little about its pitch: it is taken from the note.
            centre = (
                note.pitch if high - low < tolerance_seconds * frame_rate_hz or not known.size else np.median(known)
            )
            offset[first:last] = pitches[which[first]] - centre
            borders += [first, last]
    return _added(f0_hz, joined(offset, f0_hz, borders, frame_rate_hz))


def joined(offset: np.ndarray, f0_hz: np.ndarray, borders: Iterable[int], frame_rate_hz: float) -> np.ndarray:
    """Put a glide where an offset jumps at a border inside a voiced stretch.

    Half of the jump is added before the border and half taken away after it, both under a raised cosine, so that what
    the offset does elsewhere stays.

    Args:
        offset: ``(frames,)`` semitones.
        f0_hz: ``(frames,)``; only its voiced stretches matter.
        borders: frames at which the offset may jump: from ``border - 1`` to ``border``.
        frame_rate_hz: frames a second.
    """
    reach = max(1, round(0.5 * GLIDE_SECONDS * frame_rate_hz))
    result = np.array(offset, dtype=np.float64)
    edges = np.array(sorted(set(borders)), dtype=np.int64)
    for start, stop in voiced_runs(np.asarray(f0_hz) > 0):
        inside = edges[(edges > start) & (edges < stop)]
        # To the next border there is half of the way, to the end of the stretch all of it.
        around = np.concatenate([[2 * start - border for border in inside[:1]], inside])
        around = np.append(around, [2 * stop - border for border in inside[-1:]])
        for border, before, after in zip(inside, around[:-2], around[2:], strict=True):
            jump = offset[border] - offset[border - 1]
            left, right = (_fall(min(reach, max(1, room // 2))) for room in (border - before, after - border))
            result[border - len(left) : border] += 0.5 * jump * left[::-1]
            result[border : border + len(right)] -= 0.5 * jump * right
    return result


def _fall(frames: int) -> np.ndarray:
    """A raised cosine from nearly 1 down to nearly 0."""
    return 0.5 + 0.5 * np.cos(np.pi * (np.arange(frames) + 0.5) / frames)


def _added(f0_hz: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return shift_semitones(f0_hz, np.where(np.asarray(f0_hz) > 0, offset, 0.0))


def _borders(notes: Sequence[Note]) -> list[int]:
    return sorted({edge for note in notes for edge in (note.start, note.stop)})


def _window(frames: int, delay: float, ramp: float) -> np.ndarray:
    """0 for ``delay`` frames, a raised cosine up over ``ramp``, 1, and down over the last ``ramp`` frames."""
    at = np.arange(frames) + 0.5
    up = np.clip((at - delay) / max(ramp, 1.0), 0.0, 1.0)
    down = np.clip((frames - at) / max(ramp, 1.0), 0.0, 1.0)
    return 0.25 * (1.0 - np.cos(np.pi * up)) * (1.0 - np.cos(np.pi * down))


def _smoothed(values: np.ndarray, width: float) -> np.ndarray:
    """Mean under a Hann window of ``width`` frames, over what is known (not NaN) of it."""
    half = max(1, round(0.5 * width))
    return _weighted(values, 0.5 + 0.5 * np.cos(np.pi * np.arange(-half + 1, half) / half))


def _slow(values: np.ndarray, frames: float) -> np.ndarray:
    """Low pass to both sides with a time constant of ``frames``, over what is known; 0 changes nothing."""
    if frames < 0.05:
        return np.nan_to_num(values)
    half = min(len(values), int(6 * frames) + 1)
    return _weighted(values, np.exp(-np.abs(np.arange(-half + 1, half)) / frames))


def _weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    middle = slice(len(weights) // 2, len(weights) // 2 + len(values))
    total = np.convolve(np.where(known, values, 0.0), weights)[middle]
    share = np.convolve(known.astype(np.float64), weights)[middle]
    return np.divide(total, share, out=np.zeros(len(values)), where=share > 1e-12)

"""Notes found in curves whose notes are known."""

import numpy as np
import pytest

from melisma.data.singer import Note as Syllable
from melisma.data.singer import Voice, sing
from melisma.editing.notes import find_notes
from melisma.editing.pitch import hz_of, pitch_name, pitch_of

RATE = 44100 / 512


def curve(*parts: tuple[float, float]) -> np.ndarray:
    """Steady stretches of (pitch, seconds); pitch 0 is unvoiced."""
    return np.concatenate([np.full(round(seconds * RATE), hz_of(pitch) if pitch else 0.0) for pitch, seconds in parts])


@pytest.mark.parametrize("vibrato_cents", [0.0, 60.0, 100.0])
@pytest.mark.parametrize("vibrato_hz", [4.5, 5.5, 7.0])
def test_sung_notes_are_found_through_vibrato_and_glides(vibrato_cents: float, vibrato_hz: float) -> None:
    sung = [(57, 0.6, ""), (59, 0.4, ""), (64, 0.9, "s"), (64, 0.5, "t"), (69, 0.2, ""), (71, 0.2, ""), (69, 1.2, "")]
    syllables = [Syllable(hz_of(pitch), seconds, "a", onset) for pitch, seconds, onset in sung]
    _, f0_hz = sing(syllables, seed=3, voice=Voice(vibrato_cents=vibrato_cents, vibrato_hz=vibrato_hz))
    notes = find_notes(f0_hz, RATE)
    assert [round(note.pitch) for note in notes] == [pitch for pitch, _, _ in sung]
    assert max(abs(note.pitch - pitch) for note, (pitch, _, _) in zip(notes, sung, strict=True)) < 0.35
    ends = np.cumsum([seconds for _, seconds, _ in sung])
    assert max(abs(note.stop / RATE - end) for note, end in zip(notes, ends, strict=True)) < 0.06


@pytest.mark.parametrize(
    ("parts", "pitches"),
    [
        ([(60, 0.5), (0, 0.03), (60, 0.5)], [60]),  # a dropout
        ([(60, 0.5), (0, 0.03), (67, 0.5)], [60, 67]),  # a consonant between two notes
        ([(60, 0.5), (0, 0.2), (60, 0.5)], [60, 60]),  # the same note again
        ([(60, 0.5), (72, 0.03), (60, 0.5)], [60]),  # an octave error
        ([(60, 0.4), *((60 + k, 0.024) for k in range(1, 12)), (72, 0.4)], [60, 72]),  # a glide over an octave
        ([(60, 0.02), (0, 0.2)], []),  # a blip
        ([(0, 0.5)], []),
        ([(60.4, 0.5)], [60.4]),
    ],
)
def test_what_is_one_note_and_what_is_two(parts: list[tuple[float, float]], pitches: list[float]) -> None:
    notes = find_notes(curve(*parts), RATE)
    assert [note.pitch for note in notes] == pytest.approx(pitches, abs=0.05)


def test_notes_cover_the_voiced_frames_in_order() -> None:
    rng = np.random.default_rng(0)
    f0_hz = curve(*((rng.choice([0, 55, 57, 60, 64.5]), rng.uniform(0.05, 0.5)) for _ in range(60)))
    notes = find_notes(f0_hz, RATE)
    covered = np.zeros(len(f0_hz), dtype=int)
    for note in notes:
        covered[note.start : note.stop] += 1
    assert covered.max() == 1
    assert (covered[f0_hz > 0] == 1).all()
    assert [note.start for note in notes] == sorted(note.start for note in notes)


def test_an_empty_curve_has_no_notes() -> None:
    assert find_notes(np.zeros(0), RATE) == ()


def test_pitch_and_hz_are_inverse() -> None:
    assert hz_of(69) == 440.0
    assert pitch_of(np.array([hz_of(60.3), 0.0]))[0] == pytest.approx(60.3)
    assert np.isnan(pitch_of(np.zeros(1))).all()
    assert [pitch_name(pitch) for pitch in (69, 60, 61.2, 21)] == ["A4", "C4", "C#4", "A0"]

"""Edits of curves: what every one must keep, and what each must do."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma.editing import (
    Draw,
    Edits,
    Follow,
    MelodyNote,
    Move,
    Smooth,
    Snap,
    Transpose,
    Vibrato,
    apply,
    find_notes,
    read_edits,
)
from melisma.editing.edits import _DO, Step, write_edits
from melisma.editing.notes import voiced_runs
from melisma.editing.pitch import hz_of, pitch_of
from melisma.editing.scales import MODES, Scale
from melisma.errors import MelismaError

RATE = 44100 / 512
STEPS: dict[str, Step] = {
    "transpose": Transpose(3.0),
    "move": Move(0.4, 0.9, 5.0),
    "snap": Snap("C:maj", 1.0, 0.0),
    "vibrato": Vibrato(80.0, 6.0, keep=0.0),
    "draw": Draw(((0.3, 220.0), (0.6, 330.0), (1.1, 250.0))),
    "smooth": Smooth(200.0),
    "follow": Follow((MelodyNote(0.0, 0.5, 62.0), MelodyNote(0.55, 1.2, 69.0), MelodyNote(1.2, 3.0, 55.0))),
}


@st.composite
def voices(draw: st.DrawFn) -> np.ndarray:
    """Curves of one to six notes with vibrato and glides, with pauses between some of them."""
    pitches, rng = [], np.random.default_rng(draw(st.integers(0, 1 << 30)))
    for _ in range(draw(st.integers(1, 6))):
        length = draw(st.integers(4, 70))
        pitches.append(np.full(length, rng.uniform(45, 80)))
        if draw(st.booleans()):
            pitches.append(np.full(draw(st.integers(1, 12)), np.nan))
    pitch = np.concatenate(pitches)
    for start, stop in voiced_runs(np.isfinite(pitch)):
        padded = np.pad(pitch[start:stop], 3, mode="edge")
        pitch[start:stop] = np.convolve(padded, np.full(7, 1 / 7), mode="valid")
    pitch += rng.uniform(0, 1) * np.sin(2 * np.pi * 5.5 * np.arange(len(pitch)) / RATE)
    return np.where(np.isfinite(pitch), 440.0 * 2 ** ((pitch - 69) / 12), 0.0)


def test_every_kind_of_edit_is_tested_here() -> None:
    assert {type(step) for step in STEPS.values()} == set(_DO)


@pytest.mark.parametrize("kind", STEPS)
@given(f0_hz=voices())
@settings(max_examples=40, deadline=None)
def test_unvoiced_frames_stay_and_voiced_stretches_stay_continuous(kind: str, f0_hz: np.ndarray) -> None:
    edited = apply(Edits((STEPS[kind],)), f0_hz, RATE)
    assert edited.shape == f0_hz.shape
    assert ((edited > 0) == (f0_hz > 0)).all()
    for start, stop in voiced_runs(f0_hz > 0):
        before, after = pitch_of(f0_hz)[start:stop], pitch_of(edited)[start:stop]
        change = after - before
        # A jump of the whole change from one frame to the next would be a break; half of it is the shortest glide.
        allowed = 0.55 * np.ptp(change) + np.abs(np.diff(before)).max(initial=0.0) + 0.2
        assert np.abs(np.diff(change)).max(initial=0.0) <= allowed


@given(f0_hz=voices(), semitones=st.floats(-12, 12))
@settings(max_examples=40, deadline=None)
def test_a_moved_note_moves_alone(f0_hz: np.ndarray, semitones: float) -> None:
    for note in find_notes(f0_hz, RATE):
        edited = apply(Edits((Move(note.start / RATE, note.stop / RATE, semitones),)), f0_hz, RATE)
        change = pitch_of(edited) - pitch_of(f0_hz)
        middle = change[note.start + 3 : note.stop - 3]
        outside = np.concatenate([change[: max(0, note.start - 3)], change[note.stop + 3 :]])
        assert np.abs(middle[np.isfinite(middle)] - semitones).max(initial=0.0) < 1e-4
        assert np.abs(outside[np.isfinite(outside)]).max(initial=0.0) < 1e-4


def steady(*pitches: float, seconds: float = 1.0, vibrato: float = 0.0) -> np.ndarray:
    pitch = np.repeat(np.array(pitches), round(seconds * RATE))
    return 440.0 * 2 ** ((pitch + vibrato * np.sin(2 * np.pi * 5.5 * np.arange(len(pitch)) / RATE) - 69) / 12)


def test_snap_lands_on_the_scale_by_its_strength() -> None:
    f0_hz = steady(60.3, 63.2, 66.6)
    for strength, expected in ((1.0, [60, 64, 67]), (0.5, [60.15, 63.6, 66.8]), (0.0, [60.3, 63.2, 66.6])):
        notes = find_notes(apply(Edits((Snap("C:maj", strength),)), f0_hz, RATE), RATE)
        assert [note.pitch for note in notes] == pytest.approx(expected, abs=0.02)


def test_the_speed_of_a_snap_decides_what_becomes_of_the_vibrato() -> None:
    f0_hz = steady(60.3, vibrato=0.5)
    deviation = [
        float(np.std(pitch_of(apply(Edits((Snap("C:maj", 1.0, speed),)), f0_hz, RATE))[20:-20]))
        for speed in (0.0, 30.0, 400.0)
    ]
    assert deviation[0] < 1e-5
    assert 0.02 < deviation[1] < 0.9 * deviation[2]
    assert deviation[2] == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_vibrato_is_straightened_doubled_and_added() -> None:
    wavy, middle = steady(60, seconds=2.0, vibrato=0.5), slice(40, -40)

    def depth(f0_hz: np.ndarray) -> float:
        return float(np.ptp(pitch_of(f0_hz)[middle]) / 2)

    assert depth(apply(Edits((Vibrato(keep=0.0),)), wavy, RATE)) < 0.1
    assert depth(apply(Edits((Vibrato(keep=2.0),)), wavy, RATE)) == pytest.approx(1.0, abs=0.1)
    added = apply(Edits((Vibrato(70.0, 4.0),)), steady(60, seconds=2.0), RATE)
    assert depth(added) == pytest.approx(0.7, abs=0.05)
    spectrum = np.abs(np.fft.rfft((pitch_of(added) - 60) * np.hanning(len(added)), 4096))
    assert np.fft.rfftfreq(4096, 1 / RATE)[spectrum.argmax()] == pytest.approx(4.0, abs=0.2)


def test_a_drawn_line_is_sung() -> None:
    edited = apply(Edits((Draw(((0.25, 200.0), (0.75, 400.0))),)), steady(60), RATE)
    assert edited[round(0.5 * RATE)] == pytest.approx(np.sqrt(200 * 400), rel=0.02)
    assert edited[5] == pytest.approx(hz_of(60))


def test_smoothing_makes_the_way_between_notes_longer() -> None:
    f0_hz = steady(60, 65)
    edited = apply(Edits((Smooth(200.0),)), f0_hz, RATE)
    between = (pitch_of(edited) > 60.2) & (pitch_of(edited) < 64.8)
    assert 0.06 < between.sum() / RATE < 0.25
    np.testing.assert_allclose(edited[:60], f0_hz[:60], rtol=1e-6)


def test_a_melody_is_followed_in_the_singers_own_time() -> None:
    f0_hz = np.concatenate([steady(57.2, seconds=0.5), np.zeros(10), steady(60.1, seconds=1.0), steady(63.0)])
    notes = find_notes(f0_hz, RATE)
    melody = (MelodyNote(0.0, 0.55, 62.0), MelodyNote(0.6, 1.55, 64.0), MelodyNote(1.55, 2.1, 65.0))
    melody += (MelodyNote(2.1, 2.6, 67.0),)
    edited = apply(Edits((Follow(melody),)), f0_hz, RATE)
    found = find_notes(edited, RATE)
    assert [note.pitch for note in found] == pytest.approx([62, 64, 65, 67], abs=0.05)
    # Borders within the tolerance are the singer's; a note held through a change of the melody changes there.
    assert [note.start for note in found[:3]] == [note.start for note in notes]
    assert found[3].start / RATE == pytest.approx(2.1, abs=0.02)
    later = apply(Edits((Follow(melody, semitones=-12.0),)), f0_hz, RATE)
    np.testing.assert_allclose(later, edited / 2, rtol=1e-5)


@pytest.mark.parametrize("kind", STEPS)
def test_edits_survive_json(kind: str) -> None:
    edits = Edits((STEPS[kind], STEPS["transpose"]), formant_semitones=2.0, speed=0.5)
    assert read_edits(write_edits(edits)) == edits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "object"),
        ('{"stepz": []}', "stepz"),
        ('{"speed": NaN}', "speed"),
        ('{"speed": "2"}', "speed"),
        ('{"speed": 100}', "less than or equal to 10"),
        ('{"formant_semitones": true}', "formant_semitones"),
        ('{"steps": [{"kind": "mov"}]}', "'mov'"),
        ('{"steps": [{"semitones": 2}]}', "kind"),
        ('{"steps": [{"kind": "transpose", "semitones": 99}]}', "steps.0.transpose.semitones"),
        ('{"steps": [{"kind": "transpose", "semitones": 2, "more": 1}]}', "more"),
        ('{"steps": [{"kind": "move", "start_s": 2, "stop_s": 1, "semitones": 2}]}', "not before"),
        ('{"steps": [{"kind": "snap", "scale": "H:maj"}]}', "C:maj"),
        ('{"steps": [{"kind": "snap", "scale": "C:majj"}]}', "did you mean 'maj'"),
        ('{"steps": [{"kind": "draw", "points": [[1, 200], [1, 300]]}]}', "must grow"),
        ('{"steps": [{"kind": "draw", "points": [[1, 200]]}]}', "points"),
        ('{"steps": [{"kind": "follow", "melody": []}]}', "melody"),
        (
            '{"steps": [{"kind": "follow", "melody": [{"start_s": 0, "stop_s": 1, "pitch": 60}, '
            '{"start_s": 0.5, "stop_s": 1, "pitch": 64}]}]}',
            "one at a time",
        ),
    ],
)
def test_wrong_edits_are_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(MelismaError) as error:
        read_edits(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda deeper: st.lists(deeper)))
def test_any_json_is_edits_or_an_error(value: object) -> None:
    with pytest.raises(MelismaError):
        read_edits(json.dumps(value))


def test_scales_are_read_and_their_degrees_are_right() -> None:
    assert Scale.parse("C:maj").classes == (0, 2, 4, 5, 7, 9, 11)
    assert Scale.parse("a:min").classes == Scale.parse("C:major").classes
    assert Scale.parse("Bb:dorian").classes == Scale.parse("A#:dorian").classes == Scale.parse("G#:maj").classes
    assert Scale.parse("chromatic").classes == tuple(range(12))
    for mode in MODES:
        assert Scale.parse(f"F#:{mode}").nearest(66.2) == 66
    assert Scale.parse("C:maj").nearest(61.0) == 60
    assert Scale.parse("C:maj").nearest(-0.6) == -1

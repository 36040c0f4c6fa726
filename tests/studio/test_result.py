"""The result under edits: only what an edit reaches changes, it changes as asked, and undo brings every sample back."""

import numpy as np
import pytest

from melisma.editing import Draw, Edits, Move, Snap, Transpose
from melisma.errors import MelismaError
from melisma.f0.estimate import estimate_f0
from melisma.inference.vocoder import Vocoder
from melisma.studio.clip import Clip
from melisma.studio.result import Result


def finish(result: Result) -> Result:
    while result.work():
        pass
    assert result.progress == 1.0
    return result


def moved(clip: Clip, index: int, semitones: float) -> Move:
    note = clip.notes[index]
    return Move(note.start / clip.frame_rate_hz, note.stop / clip.frame_rate_hz, semitones)


def cents(clip: Clip, result: Result) -> np.ndarray:
    found = estimate_f0(result.audio[0], clip.mel.sample_rate, clip.mel.hop_length)
    both = (found > 0) & (clip.f0_hz > 0)
    return np.where(both, 1200 * np.log2(np.maximum(found, 1.0) / np.maximum(clip.f0_hz, 1.0)), np.nan)


def test_the_song_has_its_notes(clip: Clip) -> None:
    assert [round(note.pitch) for note in clip.notes] == [57, 59, 60, 57]


def test_unedited_is_the_recording_itself(clip: Clip, song: np.ndarray) -> None:
    result = Result(clip)
    assert not result.busy
    np.testing.assert_array_equal(result.audio, clip.audio)
    assert result.native_audio() is song


def test_a_moved_note_moves_and_nothing_else_does(clip: Clip) -> None:
    result = Result(clip)
    spans = result.set_edits(Edits((moved(clip, 2, 2.0),)))
    finish(result)
    note = clip.notes[2]
    off = cents(clip, result)
    assert np.nanmedian(off[note.start + 3 : note.stop - 3]) == pytest.approx(200.0, abs=6.0)
    (first, last), hop = spans[0], clip.mel.hop_length
    assert len(spans) == 1
    assert first <= note.start < note.stop <= last
    np.testing.assert_array_equal(result.audio[:, : first * hop], clip.audio[:, : first * hop])
    np.testing.assert_array_equal(result.audio[:, last * hop :], clip.audio[:, last * hop :])


def test_a_neighbour_in_the_same_breath_keeps_its_pitch(clip: Clip) -> None:
    result = Result(clip)
    result.set_edits(Edits((moved(clip, 1, 2.0),)))
    finish(result)
    neighbour, note = clip.notes[0], clip.notes[1]
    off = cents(clip, result)
    assert np.nanmedian(np.abs(off[neighbour.start + 3 : neighbour.stop - 5])) < 6.0
    assert np.nanmedian(off[note.start + 5 : note.stop - 3]) == pytest.approx(200.0, abs=6.0)


def test_undo_brings_back_every_sample(clip: Clip) -> None:
    result = Result(clip)
    result.set_edits(Edits((moved(clip, 0, -3.0),)))
    finish(result)
    assert not np.array_equal(result.audio, clip.audio)
    result.set_edits(Edits())
    assert not result.busy
    np.testing.assert_array_equal(result.audio, clip.audio)


def test_the_result_does_not_depend_on_where_it_was_heard_first(clip: Clip) -> None:
    edits = Edits((Transpose(2.0),))
    results = []
    for focus_s in (0.0, 1.0):
        result = Result(clip)
        result.set_edits(edits, focus_s)
        results.append(finish(result).audio)
    np.testing.assert_allclose(results[0], results[1], atol=2e-4)


def test_edits_that_come_while_it_sings_win(clip: Clip) -> None:
    result, direct = Result(clip), Result(clip)
    result.set_edits(Edits((Transpose(5.0),)))
    result.work()
    result.set_edits(Edits((moved(clip, 2, 1.0),)))
    direct.set_edits(Edits((moved(clip, 2, 1.0),)))
    np.testing.assert_allclose(finish(result).audio, finish(direct).audio, atol=2e-4)


def test_news_names_exactly_what_changed(clip: Clip) -> None:
    result = Result(clip)
    before = result.audio.copy()
    result.set_edits(Edits((moved(clip, 2, 2.0),)))
    finish(result)
    hop = clip.mel.hop_length
    for first, last in result.news:
        before[:, first * hop : last * hop] = result.audio[:, first * hop : last * hop]
    np.testing.assert_array_equal(before, result.audio)


@pytest.mark.parametrize("speed", [0.8, 1.6])
def test_speed_changes_the_length_and_keeps_the_pitch(clip: Clip, speed: float) -> None:
    result = Result(clip)
    generation = result.generation
    result.set_edits(Edits(speed=speed))
    finish(result)
    assert result.generation != generation
    assert result.native_audio().shape[1] == round(clip.native.shape[1] / speed)
    found = estimate_f0(result.audio[0], clip.mel.sample_rate, clip.mel.hop_length)
    wanted = clip.at_speed(clip.f0_hz, speed)
    both = (found[: len(wanted)] > 0) & (wanted > 0)
    assert np.median(np.abs(1200 * np.log2(found[: len(wanted)][both] / wanted[both]))) < 10.0
    result.set_edits(Edits())
    np.testing.assert_array_equal(result.audio, clip.audio)


def test_formants_leave_pauses_as_they_are(clip: Clip) -> None:
    result = Result(clip)
    result.set_edits(Edits(formant_semitones=4.0))
    finish(result)
    assert not np.allclose(result.audio, clip.audio, atol=1e-3)
    assert np.nanmedian(np.abs(cents(clip, result))) < 10.0


def test_everything_is_what_the_model_makes_of_the_clip(clip: Clip) -> None:
    result = finish(Result(clip, everything=True))
    whole = clip.vocoder.resynthesize(clip.native[0], clip.native_rate)
    made = result.audio[0, : len(whole)]
    # resynthesize() evens out the level by one factor and stops in digital silence.
    gain = np.dot(made, whole) / np.dot(made, made)
    assert np.abs(gain * made - whole).max() < 2e-3


def test_wrong_edits_leave_the_result_as_it_was(clip: Clip) -> None:
    result = Result(clip)
    with pytest.raises(MelismaError, match="mode"):
        result.set_edits(Edits((Snap("C:wrong"),)))
    with pytest.raises(MelismaError, match="half the sample rate"):
        result.set_edits(Edits((Transpose(48.0), Transpose(48.0))))
    assert result.edits == Edits()
    assert not result.busy


def test_steps_before_a_new_one_are_not_worked_out_again(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    from melisma.studio import result as module

    asked: list[object] = []
    real = module.apply
    monkeypatch.setattr(module, "apply", lambda edits, *rest: (asked.append(edits.steps[0]), real(edits, *rest))[1])
    result = Result(clip)
    first, second = moved(clip, 0, 1.0), Draw(((1.2, 262.0), (1.4, 270.0)))
    result.set_edits(Edits((first,)))
    result.set_edits(Edits((first, second)))
    assert asked == [first, second]
    result.set_edits(Edits((second,)))
    assert asked == [first, second, second]


def test_stereo_keeps_its_channels(song: np.ndarray, analytic: Vocoder) -> None:
    wide = np.concatenate([song, 0.5 * song])
    clip = Clip(wide, 44100, analytic)
    result = Result(clip)
    result.set_edits(Edits((Transpose(1.0),)))
    finish(result)
    left, right = np.sqrt(np.mean(result.audio**2, axis=1))
    assert right / left == pytest.approx(0.5, abs=0.05)

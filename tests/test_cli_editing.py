"""``melisma resynth`` with edits of the melody: the F0 of what it writes, the notes that it prints."""

from pathlib import Path

import numpy as np
import pytest

from melisma.audio.io import read_audio, write_audio
from melisma.cli import main
from melisma.data.singer import Note, Voice, sing
from melisma.editing import MelodyNote, find_notes, write_midi
from melisma.editing.pitch import hz_of, pitch_of
from melisma.f0 import estimate_f0

RATE = 44100 / 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three notes, 20, 30 and -40 cents off A3, B3 and E4, a melody for them, and edits."""
    folder = tmp_path_factory.mktemp("edited")
    syllables = [Note(hz_of(pitch), 0.6, "a", onset) for pitch, onset in ((57.2, ""), (59.3, ""), (63.6, "s"))]
    audio, _ = sing(syllables, seed=1, voice=Voice(vibrato_cents=40.0, drift_cents=2.0))
    write_audio(folder / "voice.wav", audio, 44100)
    melody = (MelodyNote(0, 0.62, 60.0), MelodyNote(0.62, 1.2, 64.0), MelodyNote(1.2, 1.8, 62.0))
    (folder / "melody.mid").write_bytes(write_midi(melody))
    (folder / "edits.json").write_text('{"steps": [{"kind": "transpose", "semitones": -2}], "speed": 0.5}')
    return folder


def resynth(folder: Path, *options: str) -> np.ndarray:
    """F0 of what the command makes of the voice."""
    named = [str(folder / option) if (folder / option).is_file() else option for option in options]
    out = folder / "out.wav"
    assert main(["resynth", str(folder / "voice.wav"), "-o", str(out), "--model", "analytic", *named]) == 0
    return estimate_f0(read_audio(out)[0][0], 44100, 512)


@pytest.mark.parametrize(
    ("options", "pitches"),
    [
        (["--scale", "C:maj"], [57, 59, 64]),
        (["--scale", "C:maj", "--strength", "0.5"], [57.1, 59.15, 63.8]),
        (["--scale", "chromatic", "--shift", "1"], [58, 60, 65]),
        (["--midi", "melody.mid"], [60, 64, 62]),
        (["--midi", "melody.mid", "--vibrato"], [60, 64, 62]),
        (["--formant", "-3"], [57.2, 59.3, 63.6]),
        (["--edits", "edits.json"], [55.2, 57.3, 61.6]),
    ],
)
def test_the_notes_are_where_they_were_asked_for(folder: Path, options: list[str], pitches: list[float]) -> None:
    f0_hz = resynth(folder, *options)
    third = len(f0_hz) // 3
    found = [np.nanmedian(pitch_of(f0_hz[part * third + 20 : (part + 1) * third - 10])) for part in range(3)]
    assert found == pytest.approx(pitches, abs=0.12)


def test_a_voice_is_straightened(folder: Path) -> None:
    wavy, straight = (pitch_of(resynth(folder, *options))[20:41] for options in ([], ["--vibrato", "0"]))
    assert np.nanstd(straight) < 0.5 * np.nanstd(wavy)


def test_notes_are_printed_with_and_without_an_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resynth", str(folder / "voice.wav"), "--notes", "--model", "analytic"]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("notes: 3\n")
    assert [line.split()[2] for line in alone.splitlines()[2:]] == ["A3", "B3", "E4"]
    resynth(folder, "--notes")
    assert alone in capsys.readouterr().out
    assert len(find_notes(estimate_f0(read_audio(folder / "voice.wav")[0][0], 44100, 512), RATE)) == 3


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "-o OUT"),
        (["-o", "x.wav", "--scale", "H"], 1, "as C:maj"),
        (["-o", "x.wav", "--scale", "C:mai"], 1, "did you mean 'min'"),
        (["-o", "x.wav", "--strength", "0.5"], 1, "--scale"),
        (["-o", "x.wav", "--scale", "C:maj", "--strength", "2"], 1, "outside 0 to 1"),
        (["-o", "x.wav", "--midi", "voice.wav"], 1, "not a MIDI file"),
        (["-o", "x.wav", "--midi", "none.mid"], 1, "no such file"),
        (["-o", "x.wav", "--formant", "20"], 1, "outside -12 to 12"),
        (["-o", "x.wav", "--vibrato", "900"], 1, "--vibrato takes"),
        (["-o", "x.wav", "--edits", "melody.mid"], 1, "edits"),
        (["-o", "x.wav", "--edits", "none.json"], 1, "none.json"),
    ],
)
def test_wrong_wishes_are_said_in_one_line(
    folder: Path, options: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(folder / option) if (folder / option).is_file() else option for option in options]
    assert main(["resynth", str(folder / "voice.wav"), "--model", "analytic", *named]) == code
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1

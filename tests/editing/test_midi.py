"""Melodies from and to MIDI files, and what is no melody."""

import contextlib
import io
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.audio.f0_curve import format_table, parse_table
from melisma.editing.midi import MelodyNote, melody_of, read_midi, write_midi
from melisma.editing.notes import Note
from melisma.errors import MelismaError

MELODY = (MelodyNote(0.5, 1.0, 60.0), MelodyNote(1.0, 1.25, 64.0), MelodyNote(2.0, 3.5, 72.0))


def file(*tracks: list[mido.Message | mido.MetaMessage]) -> bytes:
    buffer = io.BytesIO()
    mido.MidiFile(type=1, ticks_per_beat=480, tracks=[mido.MidiTrack(track) for track in tracks]).save(file=buffer)
    return buffer.getvalue()


def note(pitch: int, wait: int, length: int, channel: int = 0) -> list[mido.Message]:
    return [
        mido.Message("note_on", note=pitch, velocity=90, time=wait, channel=channel),
        mido.Message("note_on", note=pitch, velocity=0, time=length, channel=channel),
    ]


@pytest.mark.parametrize("bends", [False, True])
def test_a_melody_survives_midi(bends: bool) -> None:
    read = read_midi(write_midi(MELODY, bends))
    assert [note.pitch for note in read] == [60, 64, 72]
    for before, after in zip(MELODY, read, strict=True):
        assert after.start_s == pytest.approx(before.start_s, abs=2e-3)
        assert after.stop_s == pytest.approx(before.stop_s, abs=2e-3)


def test_bends_keep_the_cents() -> None:
    content = mido.MidiFile(file=io.BytesIO(write_midi((MelodyNote(0, 1, 60.25),), bends=True)))
    assert [message.pitch for message in content if message.type == "pitchwheel"] == [1024]


def test_the_tempo_map_of_another_track_counts() -> None:
    tempo = [mido.MetaMessage("set_tempo", tempo=1_000_000), mido.MetaMessage("set_tempo", tempo=500_000, time=480)]
    read = read_midi(file(tempo, [*note(60, 0, 480), *note(62, 0, 480)], note(40, 0, 960, channel=9)))
    assert [(note.start_s, note.stop_s, note.pitch) for note in read] == [(0, 1, 60), (1, 1.5, 62)]


def test_a_slight_overlap_is_a_legato() -> None:
    read = read_midi(
        file(
            [
                mido.Message("note_on", note=60, velocity=90),
                mido.Message("note_on", note=62, velocity=90, time=480),
                mido.Message("note_off", note=60, time=40),
                mido.Message("note_off", note=62, time=440),
            ]
        )
    )
    assert [(note.start_s, note.stop_s) for note in read] == [(0.0, 0.5), (0.5, 1.0)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (file(note(60, 0, 480), note(64, 0, 480)), "one at a time"),
        (file([]), "has no notes"),
        (file(note(60, 0, 480, channel=9)), "has no notes"),
        (b"", "not a MIDI file"),
        (b"RIFF" + bytes(100), "not a MIDI file"),
        (write_midi(MELODY)[:40], "not a MIDI file"),
        (bytes(2 << 20), "more than 1 MB"),
    ],
)
def test_what_is_no_melody_is_said_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "melody.mid"
    path.write_bytes(content)
    with pytest.raises(MelismaError, match=said) as error:
        read_midi(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MelismaError, match="no such file"):
        read_midi(tmp_path / "none.mid")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_melody_or_an_error(tail: bytes) -> None:
    for content in (tail, write_midi(MELODY)[:22] + tail):
        with contextlib.suppress(MelismaError):
            assert read_midi(content)


def test_found_notes_become_a_melody() -> None:
    assert melody_of((Note(10, 20, 60.2),), 10.0) == (MelodyNote(1.0, 2.0, 60.2),)


def test_a_curve_survives_csv() -> None:
    f0_hz = np.array([0, 0, 220, 221.5, 0, 330, 0], dtype=np.float32)
    hop = 512 / 44100
    np.testing.assert_allclose(parse_table(format_table(f0_hz, hop), "f0", hop, len(f0_hz)), f0_hz, rtol=1e-4)

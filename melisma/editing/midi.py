"""Melodies from and to standard MIDI files."""

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from melisma.editing.notes import Note
from melisma.editing.pitch import pitch_name
from melisma.errors import MelismaError

OVERLAP_SECONDS = 0.1  # a sequencer lets notes of a line overlap by as much; more is polyphony
LARGEST_FILE = 1 << 20  # bytes
MOST_NOTES = 100_000
_PERCUSSION = 9  # channel 10 of General MIDI
_TICKS, _TEMPO = 480, 500_000  # a beat, and microseconds of it: 120 beats a minute
_CENTS_OF_FULL_BEND = 200.0

Seconds = Annotated[float, Field(ge=0, le=86_400)]


@dataclass(frozen=True)
class MelodyNote:
    """One note of a melody.

    Attributes:
        start_s: seconds.
        stop_s: seconds, after the start.
        pitch: semitones as MIDI counts them, fractions allowed.
    """

    start_s: Seconds
    stop_s: Seconds
    pitch: Annotated[float, Field(ge=0, le=127)]
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def in_order(melody: Sequence[MelodyNote], what: str) -> tuple[MelodyNote, ...]:
    """Sort a melody; a small overlap goes to the later note, a large one is an error.

    Raises:
        MelismaError: no note, a note that ends before it starts, or two at a time.
    """
    if not melody:
        raise MelismaError(f"{what} has no notes; export the track that has the melody")
    notes = sorted(melody, key=lambda note: (note.start_s, note.pitch))
    for note in notes:
        if not note.start_s < note.stop_s:
            raise MelismaError(f"{what}: the note at {note.start_s:.2f} s ends before it starts; mend its length")
    result = list(notes)
    for index, (note, after) in enumerate(itertools.pairwise(notes)):
        if note.stop_s <= after.start_s:
            continue
        overlap = note.stop_s - after.start_s
        if overlap > OVERLAP_SECONDS or after.start_s - note.start_s < 1e-3:
            raise MelismaError(
                f"{what} has several notes at {after.start_s:.2f} s ({pitch_name(note.pitch)} and "
                f"{pitch_name(after.pitch)}); a voice sings one at a time: keep one line and export it again"
            )
        result[index] = MelodyNote(note.start_s, after.start_s, note.pitch)
    return tuple(result)


def read_midi(source: str | Path | bytes, what: str | None = None) -> tuple[MelodyNote, ...]:
    """Read the melody of a MIDI file: its notes in seconds under its own tempo map, percussion left out.

    Args:
        source: a path, or the file's bytes.
        what: names the file in errors; its path where it has one.

    Raises:
        MelismaError: no such file, not MIDI, no notes, or more than one note at a time.
    """
    import mido

    name = what or (str(source) if isinstance(source, str | Path) else "the MIDI file")
    content = source if isinstance(source, bytes) else _content(Path(source))
    if len(content) > LARGEST_FILE:
        raise MelismaError(f"{name}: more than {LARGEST_FILE >> 20} MB; export the melody's track alone")
    try:
        file = mido.MidiFile(file=io.BytesIO(content), clip=True)
        notes = _notes(file)
    except MelismaError:
        raise
    except Exception as error:  # what a damaged file raises depends on its bytes
        raise MelismaError(f"{name}: not a MIDI file that can be read; export it as a standard .mid") from error
    return in_order(notes, name)


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise MelismaError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; name a .mid file")
    with path.open("rb") as handle:
        return handle.read(LARGEST_FILE + 1)


def _notes(file: "object") -> list[MelodyNote]:
    seconds = 0.0
    sounding: dict[tuple[int, int], float] = {}
    notes: list[MelodyNote] = []
    for message in file:  # type: ignore[attr-defined]
        seconds += message.time
        if message.type not in ("note_on", "note_off") or message.channel == _PERCUSSION:
            continue
        key = (message.channel, message.note)
        started = sounding.pop(key, None)
        if started is not None and seconds > started:
            notes.append(MelodyNote(started, seconds, float(message.note)))
        if message.type == "note_on" and message.velocity > 0:
            sounding[key] = seconds
        if len(notes) > MOST_NOTES:
            raise MelismaError(f"the MIDI file has more than {MOST_NOTES} notes; export the melody's track alone")
    notes += [MelodyNote(start, seconds, float(key[1])) for key, start in sounding.items() if seconds > start]
    return notes


def melody_of(notes: Sequence[Note], frame_rate_hz: float) -> tuple[MelodyNote, ...]:
    """Notes that were found as a melody in seconds; the inverse way is :class:`melisma.editing.edits.Follow`."""
    return tuple(MelodyNote(note.start / frame_rate_hz, note.stop / frame_rate_hz, note.pitch) for note in notes)


def write_midi(melody: Sequence[MelodyNote], bends: bool = False) -> bytes:
    """A MIDI file (type 0, 120 beats a minute) of a melody.

    Args:
        melody: notes; pitches are rounded to whole semitones.
        bends: keep the fractions as pitch bends (over the usual two semitones).
    """
    import mido

    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=_TEMPO)])
    now = 0

    def add(kind: str, seconds: float, **values: int) -> None:
        nonlocal now
        tick = max(now, round(mido.second2tick(seconds, _TICKS, _TEMPO)))
        track.append(mido.Message(kind, time=tick - now, **values))
        now = tick

    for note in in_order(melody, "the melody"):
        number = min(127, max(0, round(note.pitch)))
        if bends:
            share = 100.0 * (note.pitch - number) / _CENTS_OF_FULL_BEND
            add("pitchwheel", note.start_s, pitch=max(-8192, min(8191, round(8192 * share))))
        add("note_on", note.start_s, note=number, velocity=80)
        add("note_off", note.stop_s, note=number, velocity=0)
    buffer = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=_TICKS, tracks=[track]).save(file=buffer)
    return buffer.getvalue()

"""Pure functions on F0 curves: find notes, move them, tune them, let them follow a melody.

A curve is ``(frames,)`` in Hz, 0 where unvoiced, at the frames of the model's mel. No edit touches an unvoiced frame,
and none breaks a curve within a note: what an edit adds, in semitones, is joined by short glides where it would jump.

    notes = find_notes(f0_hz, frame_rate_hz)
    edits = Edits((Snap("C:maj", strength=0.8), Move(1.2, 1.7, semitones=2.0)), formant_semitones=1.0)
    sung_hz = apply(edits, f0_hz, frame_rate_hz)
"""

from melisma.editing.edits import Draw, Edits, Follow, Move, Smooth, Snap, Transpose, Vibrato, apply, read_edits
from melisma.editing.formants import warp_formants
from melisma.editing.midi import MelodyNote, read_midi, write_midi
from melisma.editing.notes import Note, find_notes
from melisma.editing.scales import Scale

__all__ = [
    "Draw",
    "Edits",
    "Follow",
    "MelodyNote",
    "Move",
    "Note",
    "Scale",
    "Smooth",
    "Snap",
    "Transpose",
    "Vibrato",
    "apply",
    "find_notes",
    "read_edits",
    "read_midi",
    "warp_formants",
    "write_midi",
]

"""Scales: which pitches a note may be drawn to."""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from melisma.config import lookup
from melisma.editing.pitch import NAMES
from melisma.errors import MelismaError

# Semitones above the root.
MODES: dict[str, tuple[int, ...]] = {
    "maj": (0, 2, 4, 5, 7, 9, 11),
    "min": (0, 2, 3, 5, 7, 8, 10),
    "harmonic-min": (0, 2, 3, 5, 7, 8, 11),
    "melodic-min": (0, 2, 3, 5, 7, 9, 11),
    "ionian": (0, 2, 4, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "aeolian": (0, 2, 3, 5, 7, 8, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "maj-pentatonic": (0, 2, 4, 7, 9),
    "min-pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "whole-tone": (0, 2, 4, 6, 8, 10),
    "chromatic": tuple(range(12)),
}
_OTHER_WORDS = {"major": "maj", "minor": "min"}
_ROOT = re.compile(r"([A-Ga-g])([#b♯♭]?)")


@dataclass(frozen=True)
class Scale:
    """A set of pitch classes.

    Attributes:
        classes: semitones above C, 0 to 11, rising.
    """

    classes: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``C:maj``, ``F#:min``, ``Bb:dorian`` or ``chromatic``.

        Raises:
            MelismaError: an unknown root or mode; the line lists the known ones.
        """
        root, colon, mode = text.strip().partition(":")
        if not colon and root.lower() == "chromatic":
            return cls(MODES["chromatic"])
        found = _ROOT.fullmatch(root)
        if not found or not colon:
            raise MelismaError(f"scale {text[:40]!r}: write a root and a mode, as C:maj, F#:min or Bb:dorian")
        lowered = mode.strip().lower()
        intervals = lookup(MODES, _OTHER_WORDS.get(lowered, lowered), "mode")
        moved = {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(found[2], 0)
        start = NAMES.index(found[1].upper()) + moved
        return cls(tuple(sorted((start + interval) % 12 for interval in intervals)))

    def nearest(self, pitch: float) -> int:
        """The pitch of the scale (whole semitones) nearest to one in semitones; the lower of two that are as near."""
        floor = int(np.floor(pitch))
        near = [number for number in range(floor - 11, floor + 13) if number % 12 in self.classes]
        return min(near, key=lambda number: (abs(number - pitch), number))

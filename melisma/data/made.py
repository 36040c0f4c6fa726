"""Voices of the built-in singer for a dataset: every pitch from 50 to 1600 Hz, F0 known exactly, no licence needed."""

from dataclasses import dataclass

import numpy as np

from melisma.data.singer import random_phrase

PHRASE_SECONDS = 8.0
LOWEST_HZ, OCTAVES = 50.0, 5.0
BAND_HZ = 20000.0


@dataclass(frozen=True)
class Phrase:
    """Phrase ``number`` of ``count``: together they spread evenly over the five octaves."""

    number: int
    count: int

    @property
    def key(self) -> str:
        """Its name in a dataset."""
        return f"made/singer-{self.number:05d}"

    def sing(self, sample_rate: int, hop_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Audio ``(samples,)`` and exact F0 ``(samples // hop_length,)`` in Hz, of 8 seconds."""
        centre = LOWEST_HZ * 2.0 ** (OCTAVES * (self.number + 0.5) / self.count)
        low, high = max(50.0, centre / 1.5), min(1600.0, centre * 1.5)
        rng = np.random.default_rng(1000 + self.number)
        return random_phrase(rng, PHRASE_SECONDS, low, high, sample_rate, hop_length)


def phrases(seconds: float) -> list[Phrase]:
    """As many phrases as last ``seconds`` together, rounded up; none for 0."""
    count = int(np.ceil(max(0.0, seconds) / PHRASE_SECONDS))
    return [Phrase(number, count) for number in range(count)]

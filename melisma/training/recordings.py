"""What a run is trained on: one or more datasets as one list of clips, and chances to draw from it.

Two ways of drawing are mixed. By *kind*: a clip by the shares of the recipe, then any place in it, consonants, breath
and silence included. By *pitch*: a semitone from 55 to 1600 Hz, every one with the same chance, then a frame that is
sung at it, or that resampling can bring there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from melisma.data.dataset import Dataset, DatasetClip
from melisma.errors import MelismaError

Array = np.ndarray

LOWEST_HZ, HIGHEST_HZ = 55.0, 1600.0
SEMITONES = int(12 * np.log2(HIGHEST_HZ / LOWEST_HZ))  # 0 is LOWEST_HZ


@dataclass(frozen=True)
class Place:
    """A clip of one of the datasets."""

    recordings: Dataset
    index: int

    @property
    def clip(self) -> DatasetClip:
        """What it is."""
        return self.recordings.clips[self.index]

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.clip.samples / self.recordings.sample_rate


def all_places(folders: Sequence[str]) -> list[Place]:
    """The clips of all folders, in order.

    Raises:
        MelismaError: no folder, none of these datasets holds a clip, or see :meth:`Dataset.open`.
    """
    if not folders:
        raise MelismaError(
            "the recipe names no data; give data.folders, what 'melisma prepare' wrote: --data.folders '[my-dataset]'"
        )
    opened = [Dataset.open(folder) for folder in folders]
    places = [Place(one, index) for one in opened for index in range(len(one.clips))]
    if not places:
        raise MelismaError(f"{', '.join(folders)}: no clip in there; prepare some recordings")
    return places


def hold_out(places: Sequence[Place], share: float) -> tuple[list[Place], list[Place]]:
    """Part clips for training from clips for validation, by their names alone: the same parts in every run.

    Raises:
        MelismaError: a single clip cannot be parted.
    """
    if len(places) < 2:
        raise MelismaError(
            f"there is one clip only ({places[0].clip.key}), and validation needs another; add recordings, name others "
            "with validation.folders, or do without: --validation.every 0"
        )
    ranked = sorted(places, key=lambda place: (crc32(place.clip.key.encode()), place.clip.key))
    count = min(len(places) - 1, max(1, round(share * len(places))))
    held = {id(place) for place in ranked[:count]}
    return [place for place in places if id(place) not in held], [place for place in places if id(place) in held]


class Chances:
    """Draws of places, from chance alone.

    Args:
        places: clips to draw from.
        shares: how often each kind is drawn; empty goes by the length of the clips.
    """

    def __init__(self, places: Sequence[Place], shares: Mapping[str, float]) -> None:
        self.places = list(places)
        seconds = np.array([place.seconds for place in places])
        kinds = np.array([place.clip.kind for place in places])
        if shares:
            totals = {kind: float(seconds[kinds == kind].sum()) for kind in shares}
            weights = np.array([shares.get(kind, 0.0) / max(1e-9, totals.get(kind, 0.0)) for kind in kinds.tolist()])
        else:
            weights = np.ones(len(places))
        chances = weights * seconds
        if chances.sum() <= 0:
            raise MelismaError(
                f"no clip of the kinds {', '.join(shares)} in data.folders; there are {', '.join(sorted(set(kinds)))}"
            )
        self._cumulative = np.cumsum(chances / chances.sum())
        self._pitches = _occupancy(self.places, weights)
        self._reachable: dict[tuple[float, float], list[int]] = {}

    def clip(self, rng: np.random.Generator) -> int:
        """A clip by its kind's share and its length."""
        found = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        return min(found, len(self.places) - 1)

    def reachable(self, lowest_ratio: float, highest_ratio: float) -> list[int]:
        """Semitones above 55 Hz that are sung somewhere, or that resampling within the ratios can bring there."""
        ratios = (lowest_ratio, highest_ratio)
        if ratios not in self._reachable:
            down, up = 12 * np.log2(lowest_ratio), 12 * np.log2(highest_ratio)
            self._reachable[ratios] = [
                target for target in range(SEMITONES + 1) if self.sung_between(target - up, target - down)
            ]
        return self._reachable[ratios]

    def out_of_reach(self, lowest_ratio: float, highest_ratio: float) -> list[str]:
        """What to say about semitones that no clip has, however it is resampled."""
        reached = self.reachable(lowest_ratio, highest_ratio)
        cure = "the model will not know these notes (melisma prepare --made adds voices of the built-in singer)"
        if not reached:
            return [f"nothing is sung from {LOWEST_HZ:.0f} to {HIGHEST_HZ:.0f} Hz; {cure}"]
        edges = ((reached[0], 0, "below"), (reached[-1], SEMITONES, "above"))
        return [
            f"nothing is sung {side} {_hz(tone):.0f} Hz, even resampled; {cure}"
            for tone, end, side in edges
            if tone != end
        ]

    def range_hz(self) -> tuple[float, float] | None:
        """Lowest and highest F0 that is sung, to the semitone, but for what is sung a second in all or less."""
        long = [semitone for semitone, (_, _, seconds) in self._pitches.items() if seconds > 1.0]
        return (_hz(min(long)), _hz(max(long))) if long else None

    def frame_at(self, rng: np.random.Generator, semitone: int) -> tuple[int, int]:
        """A clip and a frame of it, in its own frames, that is sung at a semitone above 55 Hz."""
        clips, cumulative, _ = self._pitches[semitone]
        clip = int(clips[min(int(np.searchsorted(cumulative, rng.random(), side="right")), len(clips) - 1)])
        place = self.places[clip]
        curve = place.recordings.f0_hz(place.index, 0, place.clip.frames)
        return clip, int(rng.choice(np.flatnonzero(semitones(curve) == semitone)))

    def sung_between(self, lowest: float, highest: float) -> list[int]:
        """The semitones above 55 Hz, from ``lowest`` to ``highest``, at which some frame is sung."""
        return [sung for sung in sorted(self._pitches) if lowest <= sung <= highest]

    def is_sung(self, semitone: int) -> bool:
        """Whether some frame is sung at a semitone above 55 Hz."""
        return semitone in self._pitches


def _hz(semitone: int) -> float:
    return float(round(LOWEST_HZ * 2.0 ** (semitone / 12), 1))


def semitones(f0_hz: Array) -> Array:
    """The nearest semitone above 55 Hz of each frame; -1000 where unvoiced."""
    voiced = f0_hz > 0
    return np.where(voiced, np.round(12 * np.log2(np.where(voiced, f0_hz, LOWEST_HZ) / LOWEST_HZ)), -1000).astype(int)


def _occupancy(places: Sequence[Place], weights: Array) -> dict[int, tuple[Array, Array, float]]:
    """For each semitone that is sung: the clips, the running sum of their chances, and the seconds of it in all."""
    found: dict[int, list[tuple[int, float]]] = {}  # semitone -> clip, seconds
    for number, place in enumerate(places):
        if weights[number] == 0:
            continue
        curve = place.recordings.f0_hz(place.index, 0, place.clip.frames)
        sung, counts = np.unique(semitones(curve[curve > 0]), return_counts=True)
        a_frame = place.recordings.hop_length / place.recordings.sample_rate
        for semitone, count in zip(sung.tolist(), counts.tolist(), strict=True):
            found.setdefault(semitone, []).append((number, count * a_frame))
    tables = {}
    for semitone, rows in found.items():
        numbers, seconds = np.array([number for number, _ in rows]), np.array([spent for _, spent in rows])
        chances = seconds * weights[numbers]
        tables[semitone] = (numbers, np.cumsum(chances / chances.sum()), float(seconds.sum()))
    return tables

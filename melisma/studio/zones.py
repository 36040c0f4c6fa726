"""Which part of a recording an edit reaches.

A voiced stretch is sung in one breath of phase: when its F0 changes anywhere, every pulse after that moves. So a
stretch is made again as a whole, and what is made is faded into the recording beside it, in the unvoiced frames where
no ear follows a phase. What lies farther in the pauses stays as it was recorded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from melisma.editing.notes import voiced_runs

FADE_FRAMES = 4
FIRST_FRAMES = 64  # the piece that is heard first is short, so that it comes soon
PIECE_FRAMES = 256


@dataclass(frozen=True)
class Zone:
    """Frames ``start`` to ``stop`` that are made together, and how many at each end are faded.

    Attributes:
        start: first frame.
        stop: the frame after the last.
        fade_in: frames at the start that lead in from what lies under them; 0 at a border without a pause.
        fade_out: the same at the end.
    """

    start: int
    stop: int
    fade_in: int
    fade_out: int


def find_zones(voiced: np.ndarray, everything: bool = False) -> list[Zone]:
    """The stretches of a clip that are made as a whole, in order and without overlap.

    Args:
        voiced: ``(frames,)`` booleans.
        everything: cover all frames, cut at the middle of the pauses, without fades; otherwise a zone is a voiced
            stretch and as much of the pauses beside it as the fades need, and the rest of the pauses is left out.
    """
    frames = len(voiced)
    runs = voiced_runs(voiced)
    if not runs:
        return [Zone(0, frames, 0, 0)] if everything else []
    cuts = [0, *((before[1] + after[0]) // 2 for before, after in pairwise(runs)), frames]
    spans = zip(cuts[:-1], cuts[1:], runs, strict=True)
    if everything:
        return [Zone(low, high, 0, 0) for low, high, _ in spans]
    zones = []
    for low, high, (start, stop) in spans:
        fade_in, fade_out = min(FADE_FRAMES, start - low), min(FADE_FRAMES, high - stop)
        zones.append(Zone(start - fade_in, stop + fade_out, fade_in, fade_out))
    return zones


def cut_zone(zone: Zone, focus: int) -> list[tuple[int, int]]:
    """Pieces ``(start, stop)`` of a zone in the order of making: a short one at ``focus`` first, then on from there.

    Args:
        zone: what to cut.
        focus: frame that is heard first.
    """
    if focus >= zone.stop:
        return _steps(zone.start, zone.stop)
    first = max(zone.start, focus)
    head = min(zone.stop, first + FIRST_FRAMES)
    return [(first, head), *_steps(head, zone.stop), *_steps(zone.start, first)]


def _steps(start: int, stop: int) -> list[tuple[int, int]]:
    return [(low, min(stop, low + PIECE_FRAMES)) for low in range(start, stop, PIECE_FRAMES)]


def in_listening_order(zones: Iterable[Zone], focus: int) -> list[Zone]:
    """The zone at ``focus`` first, then those after it, then those before it."""
    return sorted(zones, key=lambda zone: (zone.stop <= focus, zone.start))


def fade_gain(zone: Zone, start: int, stop: int, hop_length: int) -> np.ndarray:
    """How much of what was made is heard in the frames ``start`` to ``stop`` of a zone.

    Returns:
        ``((stop - start) * hop_length,)`` float32 from 0 to 1; ``sqrt(1 - gain^2)`` is left of what lies under it,
        since the two have nothing in common in a pause.
    """
    at = (np.arange(start * hop_length, stop * hop_length) + 0.5) / hop_length
    gain = np.ones(len(at))
    if zone.fade_in:
        gain = np.minimum(gain, (at - zone.start) / zone.fade_in)
    if zone.fade_out:
        gain = np.minimum(gain, (zone.stop - at) / zone.fade_out)
    return np.sin(0.5 * np.pi * np.clip(gain, 0.0, 1.0)).astype(np.float32)

"""Which stretches of a recording become clips: long ones are cut where it is quiet, silence goes where wished."""

import numpy as np

# So far below its loud frames, or below this, a recording is silent.
SILENT_BELOW_LOUD_DB, SILENT_DB = 50.0, -80.0
LOUD_QUANTILE = 0.95
# What stays of the silence beside a sound, and the shortest silence inside a recording that is taken out.
MARGIN_SECONDS, PAUSE_SECONDS = 0.2, 1.0
# A cut is looked for in this last part of the longest piece.
CUT_SHARE = 0.4
_FLOOR = 1e-10


def frame_levels(audio: np.ndarray, hop_length: int) -> np.ndarray:
    """Level of every whole frame in dB of full scale, ``(samples // hop_length,)``."""
    frames = audio[: len(audio) // hop_length * hop_length].reshape(-1, hop_length)
    return 10.0 * np.log10(np.maximum(np.square(frames, dtype=np.float64).mean(axis=1), _FLOOR))


def silent_frames(levels_db: np.ndarray) -> np.ndarray:
    """Which frames are silent beside the loud ones, ``(frames,)`` of bool."""
    if len(levels_db) == 0:
        return np.zeros(0, dtype=bool)
    loud = float(np.quantile(levels_db, LOUD_QUANTILE))
    return np.asarray(levels_db < max(SILENT_DB, loud - SILENT_BELOW_LOUD_DB))


def stretches(levels_db: np.ndarray, frame_rate_hz: float, trim: bool, longest_s: float) -> list[tuple[int, int]]:
    """First and last (exclusive) frame of every clip.

    Args:
        levels_db: :func:`frame_levels`.
        frame_rate_hz: frames a second.
        trim: take silence away at the ends, and inside where it lasts a second or more.
        longest_s: a longer stretch is cut where it is quietest, late in what may be its length.
    """
    parts = _sounding(levels_db, frame_rate_hz) if trim else [(0, len(levels_db))]
    longest = max(1, round(longest_s * frame_rate_hz))
    return [piece for part in parts for piece in _pieces(levels_db, *part, longest)]


def _sounding(levels_db: np.ndarray, frame_rate_hz: float) -> list[tuple[int, int]]:
    sound = np.flatnonzero(~silent_frames(levels_db))
    if len(sound) == 0:
        return []
    margin, pause = round(MARGIN_SECONDS * frame_rate_hz), round(PAUSE_SECONDS * frame_rate_hz)
    breaks = np.flatnonzero(np.diff(sound) > max(pause, 2 * margin))
    firsts, lasts = sound[np.r_[0, breaks + 1]], sound[np.r_[breaks, len(sound) - 1]] + 1
    return [(max(0, int(a) - margin), min(len(levels_db), int(b) + margin)) for a, b in zip(firsts, lasts, strict=True)]


def _pieces(levels_db: np.ndarray, first: int, last: int, longest: int) -> list[tuple[int, int]]:
    pieces = []
    while last - first > longest:
        early = first + max(1, round((1.0 - CUT_SHARE) * longest))
        cut = early + int(np.argmin(levels_db[early : first + longest + 1]))
        pieces.append((first, cut))
        first = cut
    return [*pieces, (first, last)]

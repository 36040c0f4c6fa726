"""ViSQOL (Chinen et al. 2020) by the package ``visqol-python``, an extra: an estimate of MOS at the full band."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from melisma.audio.resample import resample
from melisma.errors import MelismaError
from melisma.evaluation.metrics import aligned

RATE = 48000
SHORTEST_SECONDS = 1.0


@lru_cache(maxsize=1)
def _judge() -> Any:
    try:
        from visqol import VisqolApi
    except ImportError as error:
        raise MelismaError("ViSQOL needs its package: pip install 'melisma[visqol]'") from error
    judge = VisqolApi()
    judge.create(mode="audio")
    return judge


def visqol_mos(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """ViSQOL in audio mode at 48 kHz, 1 to about 4.7, higher is better; NaN below a second and where one is silent."""
    judge = _judge()
    pair = [resample(clip, sample_rate, RATE).astype(np.float64) for clip in aligned(reference, generated)]
    length = min(map(len, pair))
    if length < SHORTEST_SECONDS * RATE or min(float(np.abs(clip).max()) for clip in pair) < 1e-5:
        return math.nan
    return float(judge.measure_from_arrays(pair[0][:length], pair[1][:length], RATE).moslqo)

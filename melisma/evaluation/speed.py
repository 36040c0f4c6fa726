"""How fast a vocoder sings: copies from features, and a recording at another pitch with all that is heard before."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from melisma.evaluation.conditions import BACK_SEMITONES, Prepared

THREADS, RUNS, SECONDS = 2, 5, 8.0


def copy_speed(model: Any, item: Prepared, projections: int | None) -> float:
    """Times real time of ``synthesize``."""
    frames = max(1, round(SECONDS * item.mel.frame_rate_hz))
    repeats = math.ceil(frames / item.features.shape[1])
    features = np.tile(item.features, (1, repeats))[:, :frames]
    f0_hz = np.tile(item.f0_hz, repeats)[:frames]
    return _times_real_time(
        lambda: model.synthesize(features, f0_hz, projections=projections), frames / item.mel.frame_rate_hz
    )


def shift_speed(model: Any, item: Prepared, semitones: float = BACK_SEMITONES) -> float:
    """Times real time of ``resynthesize``: F0, the moved recording, its mel, the model."""
    rate = item.clip.sample_rate
    audio = np.resize(item.clip.audio, round(SECONDS * rate))
    return _times_real_time(lambda: model.resynthesize(audio, rate, shift_semitones=semitones), SECONDS)


def _times_real_time(run: Callable[[], object], seconds: float) -> float:
    """Of ``seconds`` of audio, on two threads: the median of five runs after a warm-up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        taken = []
        for _ in range(RUNS + 1):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return seconds / float(np.median(taken[1:]))

"""A small dataset of made voices and small recipes that train on it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from melisma.data.shards import DatasetWriter, NewClip
from melisma.data.singer import random_phrase

RATE, HOP = 16000, 128
MEL = {
    "sample_rate": RATE, "n_fft": 512, "win_length": 512, "hop_length": HOP, "n_mels": 24, "fmin": 40.0, "fmax": 8000.0,
}  # fmt: skip
SPECTRAL = {
    "kind": "spectral", "mel": MEL, "n_fft": 256, "subframes": 2, "projections": 1, "channels": 8, "blocks": 1,
    "expansion": 2,
}  # fmt: skip
CONVOLUTIONAL = {
    "kind": "nsf-hifigan", "sample_rate": RATE, "in_channels": 24, "mel": MEL, "upsample_rates": [8, 4, 4],
    "upsample_kernel_sizes": [16, 8, 8], "upsample_initial_channel": 16, "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]], "overtones": 2,
}  # fmt: skip
JUDGES = {
    "multi-period": {"periods": [2], "width": 1 / 32},
    "multi-resolution": {"resolutions": [[256, 64, 256]], "width": 1 / 8},
}


def mapping(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of four steps that trains in a second."""
    return {
        "generator": SPECTRAL,
        "data": {"folders": [str(folder)], "frames": 16},
        "batch": 2,
        "steps": 4,
        "losses": {"spectral-energy": 1.0, "projected/input-mel": 0.5, "projected/spectral": 0.5},
        "loss_settings": {"resolutions": [128, 256, 512], "resolutions_a_step": 2, "projections": [0, 1]},
        "optimizer": {"warmup": 2},
        "validation": {"every": 0},
        "save_every": 2,
    } | changes


def adversarial(folder: Path, **changes: Any) -> dict[str, Any]:
    """The same against discriminators, with a convolutional generator."""
    return mapping(
        folder,
        **{
            "generator": CONVOLUTIONAL,
            "losses": {"mel": 45.0, "least-squares": 1.0, "feature-matching": 1.0},
            "discriminators": JUDGES,
            "discriminator_optimizer": {"warmup": 2},
        }
        | changes,
    )


def write_dataset(folder: Path, count: int = 4, seconds: float = 1.5, broken: str | None = None) -> Path:
    """Voices from 55 to 1600 Hz; half of the clips have a twin. The clip ``broken`` holds NaN."""
    with DatasetWriter(folder, RATE, HOP, sample_format="float") as writer:
        for number in range(count):
            low = 55.0 * 2.0 ** (4.0 * number / count)
            audio, f0_hz = random_phrase(np.random.default_rng(number), seconds, low, min(1600.0, 2.2 * low), RATE, HOP)
            frames = len(audio) // HOP
            audio = audio[: frames * HOP].astype(np.float32)
            twin = np.roll(audio, 7) if number % 2 else None
            key = f"clip-{number}"
            if key == broken:
                audio[:] = np.nan
            writer.add(
                NewClip(
                    key, "made", audio, f0_hz[:frames].astype(np.float32), 7900.0, "anna" if number % 2 else "ben",
                    twin, 3.0 if number % 2 else 0.0,
                )
            )  # fmt: skip
    return folder


def flat_state(content: Any, prefix: str = "") -> dict[str, Any]:
    """Every tensor and number of a checkpoint by its path."""
    if isinstance(content, dict):
        return {
            name: leaf for key, value in content.items() for name, leaf in flat_state(value, f"{prefix}/{key}").items()
        }
    if isinstance(content, list | tuple):
        return flat_state(dict(enumerate(content)), prefix)
    return {prefix: content}


def same(first: Any, second: Any, but: tuple[str, ...] = ()) -> bool:
    """Whether two checkpoints are equal to the last bit, but for entries that begin so."""
    one, other = (
        {name: value for name, value in flat_state(content).items() if not name.startswith(but or ("//",))}
        for content in (first, second)
    )
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )

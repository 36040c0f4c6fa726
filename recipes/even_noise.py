"""Make the table of :mod:`melisma.even_noise`: white noise whose short-time spectra are nearly flat.

    python recipes/even_noise.py melisma/even_noise.npy

Griffin & Lim's projections (1984) onto spectra of one magnitude, in windows of 46 ms, which mels are made of, and of
32 ms; at another place of the signal in every round, so that nothing in it repeats with a frame.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from melisma.even_noise import LENGTH, SCALE
from melisma.files import replace_on_success

WINDOWS = (2048, 1412)
ROUNDS = 200
SEED = 0


def flattened(signal: Tensor, window: int) -> Tensor:
    """The periodic signal ``(samples,)`` nearest to its short-time spectra with all magnitudes made one."""
    shape, hop = torch.hann_window(window), window // 16
    around = torch.cat([signal[-window:], signal, signal[: 2 * window]])
    spectra = torch.stft(around, window, hop, window=shape, return_complex=True)
    magnitude = spectra.abs()
    spectra = spectra / magnitude.clamp(min=1e-9) * magnitude.square().mean().sqrt()
    return torch.istft(spectra, window, hop, window=shape, length=len(around))[window : window + len(signal)]


def even_noise(length: int, rounds: int, seed: int) -> Tensor:
    """Periodic noise ``(length,)`` of mean square one."""
    drawn = torch.Generator().manual_seed(seed)
    noise = torch.randn(length, generator=drawn)
    for _ in range(rounds):
        turns = [int(torch.randint(0, window, (1,), generator=drawn)) for window in WINDOWS]
        parts = [flattened(noise.roll(turn), window).roll(-turn) for window, turn in zip(WINDOWS, turns, strict=True)]
        noise = torch.stack(parts).mean(dim=0)
        noise = (noise - noise.mean()) / noise.square().mean().sqrt()
    return noise


def main(path: Path) -> None:
    """Write the table."""
    table = even_noise(LENGTH, ROUNDS, SEED).double().numpy()
    with replace_on_success(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, np.round(table * SCALE).astype(np.int16))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

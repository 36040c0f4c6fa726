"""Even noise: white noise whose short-time spectra are nearly flat, a pure function of (seed, sample index).

In a frame of Gaussian noise the magnitude of a bin is anything between nothing and three times its mean. A mask that is
to give a certain spectrum would have to know which, and a network that does not hear the noise cannot. Even noise gives
nearly the same whatever stretch of it is played: in windows of 32 to 46 ms the logarithms of its magnitudes have a
standard deviation of .3 nepers (Gaussian: .64). Low-noise noise (Pumplin 1985) is as even in its envelope.

It is made by ``recipes/even_noise.py`` and kept as a table of six seconds, which repeats. A seed says where it begins
and which sign it has. Values are whole numbers times a power of two, the same to the last bit everywhere.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from melisma.constants import constant
from melisma.errors import MelismaError
from melisma.noise import derived_seed

LENGTH = 1 << 18
SCALE = 1 << 12  # of the table's whole numbers, for a mean square of one
_FILE = Path(__file__).with_suffix(".npy")


@constant(8)
def _table(device: torch.device) -> Tensor:
    if not _FILE.is_file():
        raise MelismaError(f"{_FILE} is missing; install melisma anew")
    return torch.from_numpy(np.load(_FILE).astype(np.float32) / SCALE).to(device)


def even_noise(seed: int, start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """White noise of mean square one with nearly flat short-time spectra.

    Args:
        seed: any integer; it chooses where in the table noise begins, and its sign.
        start: absolute index of the first sample; may be negative.
        count: number of samples.
        device: where the noise is made; the values do not depend on it.

    Returns:
        float32 ``(count,)``; the sample at an absolute index is the same whatever piece is asked for.
    """
    if count < 0:
        raise MelismaError(f"even_noise needs count >= 0, not {count}")
    device = torch.device(device)
    word = derived_seed(seed, "even noise")
    first = (start + (word >> 1)) % LENGTH
    if isinstance(count, int):
        ends = [min(at + LENGTH, first + count) for at in range(0, first + count, LENGTH)]
        pieces = [_table(device)[max(first - at * LENGTH, 0) : end - at * LENGTH] for at, end in enumerate(ends)]
        values = torch.cat(pieces) if pieces else torch.empty(0, device=device)
    else:  # a length that a traced graph only knows by name
        place = torch.arange(count, device=device).add(first).bitwise_and(LENGTH - 1)
        values = _table(device).take(place)
    return values.neg() if word & 1 else values

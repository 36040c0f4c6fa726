"""Even noise: white noise whose short-time spectra are nearly flat, a pure function of (seed, sample index).

In a frame of Gaussian noise the magnitude of a bin is anything between nothing and three times its mean. A mask that is
to give a certain spectrum would have to know which, and a network that does not hear the noise cannot. Even noise gives
nearly the same whatever stretch of it is played: in windows of 32 to 46 ms the logarithms of its magnitudes have a
standard deviation of .3 nepers (Gaussian: .64). Low-noise noise (Pumplin 1985) is as even in its envelope.

It is made by ``recipes/even_noise.py`` and kept as a table of six seconds, a circle. A seed says where on it noise
begins and which sign it has. After each round it goes on from another place in the other direction, and after every
second one with the other sign: nothing comes back for seven seconds, and then only parts of it. What came back as a
whole would be a tone with very many partials. Values are whole numbers times a power of two, the same to the last bit
everywhere.
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
# How much farther on the circle each round begins: odd, and near the golden section of it.
STEP = 100_129
_FILE = Path(__file__).with_suffix(".npy")


@constant(8)
def _table(device: torch.device) -> Tensor:
    if not _FILE.is_file():
        raise MelismaError(f"{_FILE} is missing; install melisma anew")
    return torch.from_numpy(np.load(_FILE).astype(np.float32) / SCALE).to(device)


@constant(8)
def _circles(device: torch.device) -> tuple[Tensor, Tensor]:
    """The table twice round, forwards and backwards: any round from any place is a slice."""
    table = _table(device)
    return table.repeat(2), table.flip(0).repeat(2)


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
    if isinstance(count, int):
        values = _played(word >> 1, start, count, device)
    else:  # a length that a traced graph only knows by name
        values = _looked_up(word >> 1, torch.arange(count, device=device).add(start), device)
    return values.neg() if word & 1 else values


def _played(origin: int, start: int, count: int, device: torch.device) -> Tensor:
    """Samples from ``start`` on, round by round."""
    rounds = []
    for turn in range(start // LENGTH, -(-(start + count) // LENGTH)):
        first, last = max(start - turn * LENGTH, 0), min(start + count - turn * LENGTH, LENGTH)
        place = origin + turn * STEP  # of the round's beginning
        backwards = turn % 2
        begin = (first - place - 1 if backwards else first + place) % LENGTH
        values = _circles(device)[backwards][begin : begin + last - first]
        rounds.append(values.neg() if turn // 2 % 2 else values)
    return torch.cat(rounds) if rounds else torch.empty(0, device=device)


def _looked_up(origin: int, number: Tensor, device: torch.device) -> Tensor:
    """The same, sample by sample, for absolute indices from 0 on."""
    turn = torch.div(number, LENGTH, rounding_mode="floor")
    direction = 1 - 2 * (turn % 2)
    place = (origin % LENGTH + turn * STEP + direction * (number % LENGTH)) % LENGTH
    sign = 1 - 2 * (torch.div(turn, 2, rounding_mode="floor") % 2)
    return _table(device).take(place) * sign

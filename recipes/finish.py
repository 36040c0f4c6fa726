"""Make what is shipped of what was learned: the mean of some models' weights, level where recordings say nothing.

    python recipes/finish.py MODEL=SHARE [MODEL=SHARE ...] -o OUT.safetensors [--version V] [--level-from HZ]

MODEL is what ``melisma export model`` wrote of runs of one recipe, SHARE its part of the mean (1 where there is one
model alone). Near the top of the band the sounds that models learn from end, some with a hump or a line that comes of
how they were recorded: of the bins from HZ on a spectral model says what it says, on the average, of the eight below.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from melisma.errors import MelismaError
from melisma.generators.spectral import Spectral
from melisma.interop.checkpoint import load_checkpoint, save_checkpoint
from melisma.interop.loaded import LoadedModel

LEVEL_FROM_HZ = 20_950.0
BINS_BELOW = 8


def mean_of(models: list[LoadedModel], shares: list[float]) -> LoadedModel:
    """The last model with the weighted mean of the weights of all; the shares need not add up to one.

    Raises:
        MelismaError: models with different settings, or shares that add up to nothing.
    """
    last = models[-1]
    if sum(shares) <= 0:
        raise MelismaError(f"the shares add up to {sum(shares):g}; give positive ones")
    for model in models:
        if model.generator.config != last.generator.config:
            raise MelismaError(f"{model.name} and {last.name} have different settings: they have no mean")
    states = [model.generator.state_dict() for model in models]
    parts = [share / sum(shares) for share in shares]
    last.generator.load_state_dict(
        {name: sum(part * state[name] for part, state in zip(parts, states, strict=True)) for name in states[-1]}
    )
    return last


def level(generator: Spectral, from_hz: float) -> None:
    """Let the head say of every bin from ``from_hz`` on the mean of what it says of the bins below."""
    first = int(-(-from_hz * generator.config.n_fft // generator.sample_rate))
    if first < BINS_BELOW:
        raise MelismaError(f"level from {from_hz:g} Hz: there are not {BINS_BELOW} bins below")
    for values in (generator.head.weight.data, generator.head.bias.data):
        for rows in (values[: generator.bins], values[generator.bins : 2 * generator.bins]):  # pulses, noise
            rows[first:] = rows[first - BINS_BELOW : first].mean(dim=0)


def _share(text: str) -> tuple[LoadedModel, float]:
    path, _, share = text.rpartition("=") if "=" in text else (text, "", "1")
    return load_checkpoint(path), float(share)


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL=SHARE")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--version", help="of the model; that of the last one where it is not given")
    parser.add_argument("--level-from", type=float, default=LEVEL_FROM_HZ, metavar="HZ", help="default: %(default)g")
    options = parser.parse_args()
    try:
        models, shares = zip(*map(_share, options.models), strict=True)
        made = mean_of(list(models), list(shares))
        if isinstance(made.generator, Spectral):
            level(made.generator, options.level_from)
        save_checkpoint(dataclasses.replace(made, version=options.version or made.version), options.out, half=True)
    except (MelismaError, ValueError) as error:
        print(f"finish: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())

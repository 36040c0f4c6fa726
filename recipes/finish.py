"""Make what is shipped of what was learned: the mean of some models' weights, without a line near the top of the band.

    python recipes/finish.py MODEL=SHARE [MODEL=SHARE ...] -o OUT.safetensors [--version V] [--bridge LOW HIGH]
                             [--settle BELIEF] [--average SHARE]

MODEL is what ``melisma export model`` wrote of runs of one recipe, SHARE its part of the mean (1 where there is one
model alone). Some recordings that models learn from have a line or a hump where they end, which the model then sings:
of the bins from LOW to HIGH Hz a spectral model says what lies on a straight line between the means of the eight bins
below and above; up to the end of the band, what it says of those below. melisma-44k 0.6.1 is bridged from 20,950 to
21,250 Hz, melisma-44k-live from 20,950 to 22,050.

Where no projections follow, a spectral model may settle once more, which nobody trained: everywhere it believes BELIEF
of what is still missed then (1 is all of it); and what settlings miss in voiced frames may be averaged there, with so
large a SHARE of each neighbour. melisma-44k 0.7.0 is 0.6.1 with ``--settle 0.6 --average 0.25``.
"""

import argparse
import dataclasses
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from melisma.errors import MelismaError
from melisma.generators.spectral import Spectral
from melisma.interop.checkpoint import load_checkpoint, save_checkpoint
from melisma.interop.loaded import LoadedModel

BINS_BESIDE = 8


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


def bridge(generator: Spectral, low_hz: float, high_hz: float) -> None:
    """Let the head say of the bins from ``low_hz`` to ``high_hz`` what lies between those below and those above."""
    first, stop = (-int(-hz * generator.config.n_fft // generator.sample_rate) for hz in (low_hz, high_hz))
    if not BINS_BESIDE <= first < stop:
        raise MelismaError(
            f"a bridge from {low_hz:g} to {high_hz:g} Hz: give two frequencies, {BINS_BESIDE} bins below"
        )
    ends = stop + BINS_BESIDE > generator.bins
    for values in (generator.head.weight.data, generator.head.bias.data):
        for rows in (values[: generator.bins], values[generator.bins : 2 * generator.bins]):  # pulses, noise
            below = rows[first - BINS_BESIDE : first].mean(dim=0)
            above = below if ends else rows[stop : stop + BINS_BESIDE].mean(dim=0)
            bridged = rows[first:] if ends else rows[first:stop]
            for number, row in enumerate(bridged, 1):
                row.copy_(torch.lerp(below, above, number / (len(bridged) + 1)))


def settled(generator: Spectral, belief: float | None, average: float | None) -> Spectral:
    """The model with one more settling that believes ``belief`` everywhere, or with averaged ones; None leaves it."""
    if belief is not None and not 0.0 < belief < 2.0:
        raise MelismaError(f"a settling that believes {belief:g}: give more than 0 and less than 2")
    config = dataclasses.replace(
        generator.config,
        settles_alone=generator.config.settles_alone + (belief is not None),
        settle_average=generator.config.settle_average if average is None else average,
    )
    made = Spectral(config).eval()
    weights = dict(generator.state_dict())
    if belief is not None:
        if not config.draft:
            raise MelismaError("a model that hears no draft does not settle; leave --settle out")
        rows = 2 * config.mel.n_mels
        said = math.log(belief / (2.0 - belief))  # twice its sigmoid is believed
        weights["head.weight"] = F.pad(weights["head.weight"], (0, 0, 0, rows))
        weights["head.bias"] = F.pad(weights["head.bias"], (0, rows), value=said)
    made.load_state_dict(weights)
    return made


def _share(text: str) -> tuple[LoadedModel, float]:
    path, _, share = text.rpartition("=") if "=" in text else (text, "", "1")
    return load_checkpoint(path), float(share)


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL=SHARE")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--version", help="of the model; that of the last one where it is not given")
    parser.add_argument("--bridge", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of spectral models")
    parser.add_argument(
        "--settle",
        type=float,
        metavar="BELIEF",
        help="one settling more where no projections follow, of spectral models",
    )
    parser.add_argument(
        "--average", type=float, metavar="SHARE", help="of each neighbour, in settlings of spectral models"
    )
    options = parser.parse_args()
    try:
        models, shares = zip(*map(_share, options.models), strict=True)
        made = mean_of(list(models), list(shares))
        changes = (options.bridge, options.settle, options.average)
        if any(change is not None for change in changes):
            if not isinstance(made.generator, Spectral):
                raise MelismaError(f"{made.name} is no spectral model; leave --bridge, --settle and --average out")
            if options.bridge:
                bridge(made.generator, *options.bridge)
            made = dataclasses.replace(made, generator=settled(made.generator, options.settle, options.average))
        save_checkpoint(dataclasses.replace(made, version=options.version or made.version), options.out, half=True)
    except (MelismaError, ValueError) as error:
        print(f"finish: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())

"""Do several small requests win when they are synthesised as one batch? Time of a batch over that of one by one.

    python benchmarks/service_batch.py [--model melisma-44k] [--rounds 9]

One thread, as in a worker of the service; the two are timed in turn, medians of the rounds. Below 1 the batch wins.
"""

import argparse
import sys
import time

import numpy as np
import torch

import melisma
from melisma.audio.mel import log_mel
from melisma.data.singer import random_phrase
from melisma.inference.vocoder import Vocoder


def ratio(vocoder: Vocoder, seconds: float, count: int, rounds: int) -> float:
    """Median time of one batch of ``count`` clips over that of ``count`` single ones."""
    assert vocoder.mel is not None
    mels, curves = [], []
    for seed in range(count):
        audio, f0_hz = random_phrase(np.random.default_rng(seed), seconds, 150.0, 500.0)
        mel = log_mel(audio, vocoder.mel)[0].numpy()
        mels.append(mel)
        curves.append(np.pad(f0_hz, (0, mel.shape[1] - len(f0_hz))))
    batch, curve = np.stack(mels), np.stack(curves)
    times: dict[str, list[float]] = {"batch": [], "single": []}
    for _ in range(rounds):
        began = time.perf_counter()
        vocoder.synthesize(batch, curve)
        times["batch"].append(time.perf_counter() - began)
        began = time.perf_counter()
        for mel, f0_hz in zip(mels, curves, strict=True):
            vocoder.synthesize(mel, f0_hz)
        times["single"].append(time.perf_counter() - began)
    return float(np.median(times["batch"]) / np.median(times["single"]))


def main() -> int:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="melisma-44k")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vocoder = melisma.load(options.model, device="cpu")
    print("seconds   2 clips   4 clips   8 clips   (time of a batch over one by one)")
    for seconds in (0.25, 1.0, 3.0):
        ratios = [ratio(vocoder, seconds, count, options.rounds) for count in (2, 4, 8)]
        print(f"{seconds:7.2f} " + " ".join(f"{value:9.2f}" for value in ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Print how fast models stream here, chunk by chunk: seconds of audio a second.

python benchmarks/streams.py [MODEL ...] [--threads 2] [--frames 4 16]
"""

import argparse
import sys
import time

import torch

from melisma.benchmarking.subjects import material, subject
from melisma.errors import MelismaError
from melisma.kernels import ready

SECONDS = 2.0
DEFAULT = ["nsf-hifigan", "snake", "melisma-44k"]


def times_real_time(name: str, frames: int) -> float:
    """Of a stream that is given so many frames at a time."""
    vocoder = subject(name)
    given = material(vocoder, SECONDS, 1)
    features, f0_hz = given.pop("features")[0], given.pop("f0_hz", [None])[0]

    def stream() -> float:
        begin = time.perf_counter()
        singing = vocoder.stream(**given)
        for first in range(0, features.shape[1], frames):
            part = slice(first, first + frames)
            singing.push(features[:, part], None if f0_hz is None else f0_hz[part])
        singing.finish()
        return time.perf_counter() - begin

    stream()  # warms up
    return SECONDS / min(stream() for _ in range(3))


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=DEFAULT, help="as of melisma bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 16], help="of a chunk")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ready.force()
    try:
        for name in options.models:
            speeds = [f"{times_real_time(name, frames):.3g} ({frames} frames)" for frames in options.frames]
            print(f"{name}: {', '.join(speeds)} times real time on {options.threads} threads")
    except MelismaError as error:
        print(f"streams: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

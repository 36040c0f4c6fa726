"""Print how near models come to a recording when they sing it live, F0 and all, and how late they are.

    python benchmarks/live.py DATA [MODEL ...] [--shift 4]

DATA is a folder with `manifest.json` and the recordings that `recipes/heldout.txt` names. Every clip goes through what
`melisma stream` does to a microphone, in blocks of 10 ms, once as it is and once shifted. Medians of the clips but for
the first figure: of PESQ the mean moves less with where the pulses happen to fall.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from melisma.errors import MelismaError
from melisma.evaluation.clips import load_clips
from melisma.evaluation.conditions import Measured, Prepared, judge_copy, judge_shift, prepare
from melisma.inference.live import Live
from melisma.inference.resynthesis import Settings
from melisma.inference.vocoder import Vocoder, load

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ["melisma-44k-live", "melisma-44k", "analytic"]
BLOCK_SECONDS = 0.01
COLUMNS = {"pesq": "PESQ", "log_mel": "log-mel", "mr_stft": "MR-STFT", "f0_cents": "F0 cents", "vuv_f1": "V/UV F1"}
SHIFTED = {"f0_cents": "F0 cents", "vuv_f1": "V/UV F1", "formants": "formants"}


def live(vocoder: Vocoder, item: Prepared, semitones: float) -> np.ndarray:
    """A clip as it sounds live, ``(samples,)``."""
    rate, audio = item.clip.sample_rate, item.clip.audio
    singing, block = Live(vocoder, rate, Settings(semitones)), round(BLOCK_SECONDS * rate)
    made = [singing.push(audio[start : start + block]) for start in range(0, len(audio), block)]
    return np.concatenate([*made, singing.finish()])


def row(name: str, items: list[Prepared], semitones: float) -> str:
    """A model's line of the table."""
    vocoder = load(name, device="cpu")
    late = Live(vocoder, vocoder.sample_rate).latency_seconds + 2 * BLOCK_SECONDS
    copies: list[Measured] = []
    shifts: list[Measured] = []
    for number, item in enumerate(items):
        print(f"{name}: {number + 1} of {len(items)}", end="\r", file=sys.stderr, flush=True)
        copies.append(judge_copy(item, live(vocoder, item, 0.0)))
        shifts.append(judge_shift(item, live(vocoder, item, semitones), semitones))
    found = [np.nanmean([values["pesq"] for values in copies])]
    found += [np.nanmedian([values[key] for values in copies]) for key in COLUMNS]
    found += [np.nanmedian([values[key] for values in shifts]) for key in SHIFTED]
    return f"| {name} | {1000 * late:.0f} | " + " | ".join(f"{value:.3g}" for value in found) + " |"


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.json and the recordings")
    parser.add_argument("models", nargs="*", default=DEFAULT, help="names or paths (default: %(default)s)")
    parser.add_argument("--list", type=Path, default=ROOT / "recipes" / "heldout.txt", help="held-out list")
    parser.add_argument("--shift", type=float, default=4.0, help="semitones (default: %(default)g)")
    options = parser.parse_args()
    try:
        contract = load("analytic", device="cpu").mel
        assert contract is not None
        clips = load_clips(options.data, options.list, contract.sample_rate)
        items = [prepare(clip, contract) for clip in clips]
        titles = ["PESQ, mean", *COLUMNS.values(), *(f"{options.shift:+g}: {title}" for title in SHIFTED.values())]
        print("| model | late, ms | " + " | ".join(titles) + " |")
        print("|---|---:|" + "---:|" * len(titles))
        for name in options.models:
            print(row(name, items, options.shift), flush=True)
    except MelismaError as error:
        print(f"live: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

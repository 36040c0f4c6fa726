"""Print the README's table of quality: the shipped model and its baselines on clips held out from training.

    python benchmarks/quality.py DATA [--model melisma-44k] [--output build/quality] [--parts copy,baselines,...]

DATA is a folder with `manifest.json` and the recordings that `recipes/heldout.txt` names.
"""

import argparse
import sys
from pathlib import Path

from melisma.errors import MelismaError
from melisma.evaluation.evaluate import PARTS, main

ROOT = Path(__file__).resolve().parent.parent


def command() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.json and the recordings")
    parser.add_argument("--model", default="melisma-44k", help="name or path of the model (default: %(default)s)")
    parser.add_argument("--list", type=Path, default=ROOT / "recipes" / "heldout.txt", help="held-out list")
    parser.add_argument("--output", type=Path, help="folder for report.json and report.md")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, comma separated (default: %(default)s)")
    options = parser.parse_args()
    try:
        report = main(options.model, options.data, options.list, options.output, options.parts.split(","))
    except MelismaError as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    print(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(command())

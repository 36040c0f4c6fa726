"""Write the averaged weights of a training run as the shipped model.

python recipes/export.py runs/melisma-44k melisma/models/melisma-44k.safetensors
"""

import argparse
from pathlib import Path

from melisma.generators.spectral import Spectral
from melisma.interop.own import save_model
from melisma.training.checkpoint import latest_checkpoint, load_checkpoint
from melisma.training.recipe import read_recipe

NAME, VERSION, LICENCE = "melisma-44k", "0.2.0", "MIT"
# Range of the training data: the built-in singer sings all of it, the recordings up to about 1000 Hz.
F0_RANGE_HZ = (50.0, 1600.0)
PROVENANCE = (
    "Trained by recipes/melisma-44k.yaml on: NIT SONG070 F001, HTS Working Group, Department of Computer Science, "
    "Nagoya Institute of Technology, 2004-2015 (CC BY 3.0); vocobox human-voice-dataset, 2014 (MIT); speech of the "
    "speakers kathleen, nathalie, flemishguy and eight voices of the Open Home Foundation (all CC0); and voices made "
    "by melisma's built-in singer and by espeak-ng. See docs/model-card.md."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("output", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_name("melisma-44k.yaml"))
    arguments = parser.parse_args()
    latest = latest_checkpoint(arguments.run, "S")
    if latest is None:
        raise SystemExit(f"{arguments.run}: no checkpoint S_<step>.pth")
    generator = Spectral(read_recipe(arguments.recipe).generator).eval()
    generator.load_state_dict(load_checkpoint(latest)["average"])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_model(
        arguments.output,
        generator,
        name=NAME,
        version=VERSION,
        licence=LICENCE,
        provenance=PROVENANCE,
        f0_range_hz=F0_RANGE_HZ,
        half=True,
    )
    print(f"{arguments.output}: {latest.name}, {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

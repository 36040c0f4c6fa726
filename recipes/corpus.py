"""Make the corpora of ``melisma-44k``: the licensed recordings, and voices made by the library itself and espeak-ng.

    python recipes/corpus.py DATA_FOLDER runs/corpus

``DATA_FOLDER`` holds ``manifest.json``. Clips of ``recipes/heldout.txt`` are left out.
"""

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from melisma.audio.io import load_training_audio
from melisma.audio.mel import OPENVPI_44K
from melisma.data.corpus import Source, build_corpus, manifest_sources
from melisma.data.manifest import held_out
from melisma.data.singer import random_phrase

RATE, HOP = OPENVPI_44K.sample_rate, OPENVPI_44K.hop_length

SENTENCES = {
    "en-us": "She sang of rivers, of snow on the hills, and of home. Why do you ask? Five ships, six seas.",
    "de": "Sie sang von Flüssen, vom Schnee auf den Bergen und von zu Hause. Warum fragst du?",
    "fr-fr": "Elle chantait les rivières, la neige sur les collines et la maison. Pourquoi demandes-tu?",
    "es": "Cantaba de los ríos, de la nieve en las montañas y del hogar. ¿Por qué preguntas?",
    "it": "Cantava dei fiumi, della neve sulle colline e della casa. Perché lo chiedi?",
    "cmn": "她唱着河流，唱着山上的雪，唱着故乡。",
    "ja": "かのじょはかわのうたをうたいました。ゆきがふるやまのうたも。",
    "pl": "Śpiewała o rzekach, o śniegu na wzgórzach i o domu. Dlaczego pytasz?",
    "ru": "Она пела о реках, о снеге на холмах и о доме. Почему ты спрашиваешь?",
    "sv": "Hon sjöng om floder, om snö på kullarna och om hemmet. Varför frågar du?",
}
VARIANTS = ("m1", "m3", "m7", "f1", "f2", "f4", "croak", "whisper")


def sung(count: int, seconds: float) -> Iterator[Source]:
    """Phrases of the built-in singer, spread evenly over 50 to 1600 Hz."""
    for number in range(count):
        rng = np.random.default_rng(1000 + number)
        centre = 50.0 * 2.0 ** (5.0 * (number + 0.5) / count)
        low, high = max(50.0, centre / 1.5), min(1600.0, centre * 1.5)
        audio, f0_hz = random_phrase(rng, seconds, low, high, RATE, HOP)
        yield Source(f"singer-{number}", "made", audio, 20000.0, f0_hz)


def spoken() -> Iterator[Source]:
    """One sentence in each language and variant of espeak-ng, where it is installed."""
    if shutil.which("espeak-ng") is None:
        print("espeak-ng is not installed: no spoken voices are made")
        return
    with tempfile.TemporaryDirectory() as folder:
        for language, sentence in SENTENCES.items():
            for number, variant in enumerate(VARIANTS):
                path = Path(folder) / f"{language}-{variant}.wav"
                pitch = str(20 + 10 * (number % 7))
                command = ["espeak-ng", "-v", f"{language}+{variant}", "-p", pitch, "-w", str(path), sentence]
                subprocess.run(command, check=True, capture_output=True)
                yield Source(path.stem, "made", load_training_audio(path, RATE, channel="mean"), 10500.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sung", type=int, default=90, help="phrases of the built-in singer, 8 s each")
    parser.add_argument("--only", choices=["made", "recorded"], help="make one of the two corpora")
    arguments = parser.parse_args()
    left_out = held_out(Path(__file__).with_name("heldout.txt"))

    def made() -> Iterator[Source]:
        yield from sung(arguments.sung, 8.0)
        yield from spoken()

    if arguments.only != "recorded":
        build_corpus(arguments.output / "made", made(), RATE, HOP, seed=1, progress=print)
    if arguments.only != "made":
        build_corpus(
            arguments.output / "recorded", manifest_sources(arguments.data, left_out, RATE), RATE, HOP, progress=print
        )


if __name__ == "__main__":
    main()

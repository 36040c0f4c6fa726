"""Make the datasets of ``melisma-44k``: the licensed recordings, and voices made by the library itself and espeak-ng.

    python recipes/corpus.py DATA_FOLDER runs/corpus

``DATA_FOLDER`` holds the recordings and their ``manifest.json``; those of ``recipes/heldout.txt`` are left out. Both
are datasets as ``melisma prepare`` makes them, with twins. Interrupted, the same command goes on.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from melisma.audio.mel import OPENVPI_44K
from melisma.commands import prepare
from melisma.data.made import PHRASE_SECONDS
from melisma.data.parts import PrepareSettings
from melisma.data.scan import Defaults, Recording
from melisma.errors import MelismaError

SETTINGS = PrepareSettings(OPENVPI_44K.sample_rate, OPENVPI_44K.hop_length, twins=True)
HELD_OUT = Path(__file__).with_name("heldout.txt")
RECORDED, MADE = "recorded", "made"

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


def spoken(folder: Path) -> list[Recording]:
    """One sentence in each language and variant of espeak-ng, written into ``folder``; none where it is not installed.

    Raises:
        MelismaError: espeak-ng has no such voice.
    """
    if shutil.which("espeak-ng") is None:
        print("espeak-ng is not installed: no spoken voices are made")
        return []
    found = []
    for language, sentence in SENTENCES.items():
        for number, variant in enumerate(VARIANTS):
            path = folder / f"{language}-{variant}.wav"
            command = ["espeak-ng", "-v", f"{language}+{variant}", "-p", str(20 + 10 * (number % 7)), "-w", str(path)]
            done = subprocess.run([*command, sentence], check=False, capture_output=True, text=True)
            if done.returncode or not path.is_file():
                raise MelismaError(
                    f"espeak-ng cannot speak as {language}+{variant}: {done.stderr.strip()}; install its voices"
                )
            key = f"made/espeak-{path.stem}"
            facts = {"language": language, "note": "made by espeak-ng"}
            found.append(Recording(key, path, key, "made", f"espeak-ng {variant}", facts))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and make what it asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sung", type=int, default=90, help="phrases of the built-in singer, 8 s each")
    parser.add_argument("--only", choices=[MADE, RECORDED], help="make one of the two datasets")
    parser.add_argument("--jobs", type=int, help="processes; one a core")
    given = parser.parse_args(arguments)
    try:
        if given.only != RECORDED:
            with tempfile.TemporaryDirectory() as folder:
                prepare.make(
                    spoken(Path(folder)),
                    [],
                    given.output / MADE,
                    SETTINGS,
                    given.sung * PHRASE_SECONDS,
                    jobs=given.jobs,
                )
        if given.only != MADE:
            prepare.run([given.data], given.output / RECORDED, SETTINGS, Defaults(), HELD_OUT, jobs=given.jobs)
    except MelismaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

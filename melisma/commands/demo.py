"""``melisma demo``, behind ``make demo``: an example recording, sung again at 0 and +3 semitones, with a picture."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from melisma.audio.io import read_audio, write_audio
from melisma.commands.resynth import draw, tell
from melisma.commands.show import progress_bar
from melisma.data.singer import Note, Voice, sing
from melisma.errors import MelismaError
from melisma.inference.files import resynth_file
from melisma.inference.resynthesis import Settings
from melisma.inference.vocoder import ANALYTIC, SHIPPED, load

SHIFTS = (0, 3)
SENTENCE = "One syllable, sung over many notes, is called a melisma."
_MELODY = (
    Note(220.0, 0.45, "a", "m", 0.7),
    Note(246.9, 0.4, "E", "l", 0.8),
    Note(261.6, 0.5, "i", "s", 0.8),
    Note(0.0, 0.15, "a", "h", 0.3),
    Note(329.6, 0.3, "a", "m", 0.9),
    Note(349.2, 0.25, "a", "", 0.9),
    Note(329.6, 0.25, "a", "", 0.8),
    Note(293.7, 0.25, "a", "", 0.8),
    Note(261.6, 0.3, "a", "", 0.7),
    Note(220.0, 1.2, "o", "t", 0.9),
    Note(0.0, 0.2, "o"),
)


def example(path: Path, speak: bool = True) -> str:
    """Write an example recording and say where it comes from.

    Args:
        path: .wav to write.
        speak: let espeak-ng speak a sentence where it is installed; otherwise the built-in singer sings.
    """
    program = shutil.which("espeak-ng") if speak else None
    if program is not None and _spoken(program, path):
        return "spoken by espeak-ng"
    audio, _ = sing(_MELODY, 44100, seed=1, voice=Voice(tract=1.12, vibrato_cents=45.0))
    write_audio(path, audio, 44100)
    return "sung by the built-in singer"


def _spoken(program: str, path: Path) -> bool:
    """Whether espeak-ng managed to speak; it may be there without a sound of its own (no voices)."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "spoken.wav"
        try:
            subprocess.run(
                [program, "-v", "en", "-s", "150", "-w", str(raw), SENTENCE],
                check=True,
                capture_output=True,
                timeout=60,
            )
            audio, sample_rate = read_audio(raw)
        except (OSError, subprocess.SubprocessError, MelismaError):
            return False
    peak = float(np.abs(audio).max())
    if peak < 0.01:
        return False
    write_audio(path, audio * (0.5 / peak), sample_rate)
    return True


def run(folder: Path, speak: bool = True) -> None:
    """Fill ``folder`` with the example, its resyntheses and a picture, and print where they are."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MelismaError(f"{folder}: cannot be made: {error.strerror}; choose another folder") from error
    original = folder / "example.wav"
    print(f"{original}: {example(original, speak)}")
    name = "melisma-44k" if SHIPPED["melisma-44k"].exists() else ANALYTIC
    vocoder = load(name)
    print(f"model: {name}")
    panels: list[tuple[str, Path, np.ndarray]] = []
    for shift in SHIFTS:
        target = folder / f"example_{shift:+d}.wav"
        with progress_bar(target.name) as progress:
            report = resynth_file(vocoder, original, target, Settings(shift_semitones=shift), progress=progress)
        print()
        tell(report)
        if not panels:
            panels.append(("input", original, report.input_f0_hz))
        panels.append((f"{name}, {shift:+d} semitones", target, report.f0_hz))
    picture = folder / "example.png"
    draw(picture, panels, vocoder)
    print(f"\nListen to the .wav files in {folder.resolve()} and look at {picture.resolve()}")

"""``melisma synth``: features and F0 from files."""

import time
from pathlib import Path
from typing import Literal

import numpy as np

from melisma.audio.f0_curve import check_f0, load_f0
from melisma.audio.io import AudioWriter
from melisma.commands.show import f0_summary, progress_bar
from melisma.errors import MelismaError
from melisma.inference.feature_files import Layout, load_features
from melisma.inference.files import check_output
from melisma.inference.vocoder import WantedPrecision, load


def run(
    features: Path,
    f0: Path,
    out: Path,
    model: str,
    layout: Layout,
    mel_base: Literal["auto", "e", "10"],
    speaker: str | None,
    projections: int | None,
    seed: int,
    device: str,
    precision: WantedPrecision,
) -> None:
    """Synthesise files and say what was done; see :func:`melisma.cli.synth` for the arguments."""
    check_output(out)
    for path in (features, f0):
        if not path.is_file():
            raise MelismaError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; name a saved array")
    vocoder = load(model, device=device, precision=precision)
    values = load_features(features, vocoder.generator, layout, mel_base)
    frames = values.shape[-1]
    curve = load_f0(f0, vocoder.hop_length / vocoder.sample_rate, frames)
    curve = check_f0(curve, vocoder.sample_rate, frames, what=str(f0))
    began = time.perf_counter()
    with progress_bar(features.name):
        try:
            chosen = int(speaker) if speaker is not None and speaker.isdecimal() else speaker
            audio = vocoder.synthesize(values, curve, chosen, seed, projections)
        except MelismaError as error:
            raise MelismaError(f"{features}: {error}") from error
        with AudioWriter(out, vocoder.sample_rate, 1, frames=len(audio)) as writer:
            writer.write(np.atleast_2d(audio))
    elapsed, seconds = time.perf_counter() - began, len(audio) / vocoder.sample_rate
    print(f"{out}: {seconds:.2f} s, {vocoder.sample_rate} Hz, mono")
    print(f0_summary(curve))
    print(f"time: {elapsed:.1f} s, {seconds / max(elapsed, 1e-9):.1f} x real time")

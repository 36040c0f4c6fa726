"""``melisma resynth``: the main job."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from melisma.audio.f0_curve import check_f0, load_f0
from melisma.commands.show import f0_summary, progress_bar
from melisma.errors import MelismaError
from melisma.inference.files import Report, check_output, resynth_file
from melisma.inference.resynthesis import Settings, check_settings, required_mel
from melisma.inference.sources import FileSource
from melisma.inference.vocoder import Vocoder, load

PLOT_SECONDS = 30.0


def run(
    source: Path,
    out: Path,
    shift: float,
    f0: Path | None,
    speed: float,
    model: str,
    projections: int | None,
    seed: int,
    f0_method: str | None,
    plot: Path | None,
    device: str,
) -> None:
    """Resynthesise a file and say what was done; see :func:`melisma.cli.resynth` for the arguments."""
    check_output(out)
    if plot is not None:
        check_output(plot, "the picture")
    settings = Settings(shift, speed, seed, projections, f0_method)
    check_settings(settings)
    FileSource(source, 44100).close()  # what is wrong with the input is said before a model is loaded
    vocoder = load(model, device=device)
    curve = None if f0 is None else _given_f0(f0, vocoder)
    with progress_bar(source.name) as progress:
        report = resynth_file(vocoder, source, out, settings, curve, progress)
    if plot is not None:
        draw(
            plot,
            [(f"input: {source.name}", source, report.input_f0_hz), (f"output: {out.name}", out, report.f0_hz)],
            vocoder,
        )
    tell(report)


def _given_f0(path: Path, vocoder: Vocoder) -> Callable[[int], np.ndarray]:
    hop_seconds = 1.0 / required_mel(vocoder).frame_rate_hz
    load_f0(path, hop_seconds)  # fails now rather than after the recording was read

    def curve(frames: int) -> np.ndarray:
        loaded = load_f0(path, hop_seconds, frames)
        if loaded.ndim != 1 or abs(len(loaded) - frames) > 1:
            raise MelismaError(
                f"{path}: F0 of shape {loaded.shape}, the recording has {frames} frames of "
                f"{1000 * hop_seconds:.2f} ms; give one value a frame, or a .csv with seconds and Hz"
            )
        return check_f0(loaded, vocoder.sample_rate, what=str(path))

    return curve


def tell(report: Report) -> None:
    """Print what was done."""
    channels = "mono" if report.channels == 1 else f"{report.channels} channels"
    print(f"{report.output}: {report.seconds:.2f} s, {report.sample_rate} Hz, {channels}")
    print(f"input  {f0_summary(report.input_f0_hz)}")
    print(f"output {f0_summary(report.f0_hz)}")
    before, after = report.level_db
    print("level: silence" if before < -150 else f"level: {before:.1f} dB in, {after:.1f} dB out")
    if report.limited:
        print(f"limited: {report.limited} values passed full scale; lower the input's level if it is heard")
    print(f"time: {report.elapsed:.1f} s, {report.times_real_time:.1f} x real time")


def draw(path: Path, panels: list[tuple[str, Path, np.ndarray]], vocoder: Vocoder) -> None:
    """Draw files (their first half minute) under each other, each with its F0 at the vocoder's frames."""
    from melisma.inference.plots import plot_spectrograms

    drawn: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    for title, file, f0_hz in panels:
        source = FileSource(file, vocoder.sample_rate)
        try:
            samples = min(source.samples, round(PLOT_SECONDS * vocoder.sample_rate))
            audio = source.read(0, samples)
        finally:
            source.close()
        drawn.append((title, audio, f0_hz[: -(-samples // vocoder.hop_length)]))
    plot_spectrograms(path, drawn, vocoder.sample_rate, vocoder.hop_length)

"""``melisma resynth``: the main job."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from melisma.audio.f0_curve import check_f0, load_f0
from melisma.commands.show import f0_summary, notes_table, progress_bar
from melisma.editing import Edits, Follow, Snap, Vibrato, apply, find_notes, read_edits, read_midi
from melisma.editing.edits import Step, check_step
from melisma.errors import MelismaError
from melisma.inference.files import Report, check_output, resynth_file
from melisma.inference.resynthesis import Settings, check_settings, plan, required_mel
from melisma.inference.sources import FileSource
from melisma.inference.vocoder import Vocoder, WantedPrecision, load

PLOT_SECONDS = 30.0
USUAL_VIBRATO = (50.0, 5.5)  # cents, Hz


@dataclass(frozen=True)
class Wishes:
    """What the options say about the melody; see :func:`melisma.cli.resynth`."""

    edits: Path | None = None
    midi: Path | None = None
    scale: str | None = None
    strength: float = 1.0
    vibrato: tuple[float, ...] | None = None
    formant: float = 0.0


def edits_of(wishes: Wishes) -> Edits:
    """The options as edits: those of a file first, then the melody, the scale, the vibrato."""
    given = Edits() if wishes.edits is None else read_edits(_text(wishes.edits), str(wishes.edits))
    steps: list[Step] = list(given.steps)
    if wishes.midi is not None:
        steps.append(Follow(read_midi(wishes.midi)))
    if not 0 <= wishes.strength <= 1:
        raise MelismaError(f"strength {wishes.strength:g} is outside 0 to 1; 1 lands on the scale, 0 leaves everything")
    if wishes.scale is not None:
        steps.append(Snap(wishes.scale, wishes.strength))
    elif wishes.strength != 1.0:
        raise MelismaError("--strength is that of a --scale; name one, say --scale C:maj")
    if wishes.vibrato is not None:
        cents, rate_hz, *more = (*wishes.vibrato, *USUAL_VIBRATO[len(wishes.vibrato) :])
        if more or not (0 <= cents <= 400 and 0.1 <= rate_hz <= 15):
            raise MelismaError("--vibrato takes cents (0 to 400) and Hz (0.1 to 15), as --vibrato 50 5.5")
        steps.append(Vibrato(cents, rate_hz, keep=0.0))
    for step in steps:
        check_step(step)
    return Edits(tuple(steps), given.formant_semitones + wishes.formant, given.speed)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MelismaError(f"{path}: cannot be read as text; name a .json file of edits") from error


def run(
    source: Path,
    out: Path | None,
    settings: Settings,
    wishes: Wishes,
    f0: Path | None,
    model: str,
    plot: Path | None,
    notes: bool,
    device: str,
    precision: WantedPrecision,
) -> None:
    """Resynthesise a file and say what was done; see :func:`melisma.cli.resynth` for the arguments."""
    if out is not None:
        check_output(out)
    if plot is not None:
        check_output(plot, "the picture")
    edits = edits_of(wishes)
    settings = replace(settings, speed=settings.speed * edits.speed, formant_semitones=edits.formant_semitones)
    check_settings(settings)
    FileSource(source, 44100).close()  # what is wrong with the input is said before a model is loaded
    vocoder = load(model, device=device, precision=precision)
    frame_rate_hz = required_mel(vocoder).frame_rate_hz
    curve = None if f0 is None else _given_f0(f0, vocoder)
    if out is None:
        print(notes_table(find_notes(_found_f0(source, vocoder, settings, curve), frame_rate_hz), frame_rate_hz))
        return
    with progress_bar(source.name) as progress:
        report = resynth_file(
            vocoder, source, out, settings, curve, progress, lambda f0_hz: apply(edits, f0_hz, frame_rate_hz)
        )
    if notes:
        print(notes_table(find_notes(report.input_f0_hz, frame_rate_hz), frame_rate_hz))
    if plot is not None:
        draw(
            plot,
            [(f"input: {source.name}", source, report.input_f0_hz), (f"output: {out.name}", out, report.f0_hz)],
            vocoder,
        )
    tell(report)


def _found_f0(
    source: Path, vocoder: Vocoder, settings: Settings, curve: Callable[[int], np.ndarray] | None
) -> np.ndarray:
    """F0 of a recording that is not sung again."""
    recording = FileSource(source, vocoder.sample_rate)
    try:
        given = None if curve is None else curve(-(-recording.samples // vocoder.hop_length))
        with progress_bar(source.name) as progress:
            return plan(vocoder, recording, settings, given, progress).input_f0_hz
    finally:
        recording.close()


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
        print(f"limited: {report.limited} values passed full scale; the level is lower around them")
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

"""Arguments of the commands around recordings: ``prepare`` before training, ``evaluate`` and ``listen`` after it."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


def prepare(
    sources: Annotated[Positional[tuple[Path, ...]], arg(metavar="SRC")],
    out: Annotated[Path, arg(aliases=["-o"], metavar="DATASET")],
    rate: int = 44100,
    hop: int = 512,
    f0_method: str = "swift-f0",
    kind: Literal["singing", "speech"] = "singing",
    speaker: str = "",
    licence: str = "",
    held_out: Path | None = None,
    trim: bool = False,
    longest: float = 60.0,
    twins: bool = False,
    made: float = 0.0,
    sample_format: Literal["pcm16", "float"] = "pcm16",
    jobs: int | None = None,
    engine: Literal["local", "ray"] = "local",
    seed: int = 0,
) -> None:
    """Make a dataset to train on from folders of recordings; interrupted, the same command goes on.

    Args:
        sources: folders and files: wav, flac, ogg, opus, mp3, aiff and m4a of any rate and number of channels.
        out: folder of the dataset.
        rate: Hz of the dataset, that of the model to train.
        hop: samples between F0 values, that of the model to train.
        f0_method: swift-f0, harvest or dio.
        kind: what the recordings are, where no manifest.json beside them says it.
        speaker: who sings, where no manifest says it; else the name of the folder.
        licence: under which the recordings may be used, where no manifest says it.
        held_out: list of recordings to leave out, see recipes/heldout.txt.
        trim: take silence away.
        longest: seconds; longer recordings are cut where they are quiet.
        twins: add the same voices at other pitches (WORLD), which teaches a model to sing shifted.
        made: so many seconds of the built-in singer besides, 50 to 1600 Hz.
        sample_format: pcm16, or float at twice the size.
        jobs: processes; one a core. The result is the same for any number.
        engine: local, or ray for the machines of a Ray cluster.
        seed: of the twins' pitches.
    """
    _need(sources, "prepare: name the folders with your recordings")
    from melisma.commands import prepare as command
    from melisma.data.parts import PrepareSettings
    from melisma.data.scan import Defaults

    settings = PrepareSettings(rate, hop, f0_method, trim, longest, twins, seed)
    defaults = Defaults(kind, speaker, licence)
    command.run(sources, out, settings, defaults, held_out, made, sample_format, jobs, engine)


def evaluate(
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    data: Annotated[Positional[Path], arg(metavar="DATA")],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="OUT")] = None,
    clips: Path | None = None,
    parts: tuple[str, ...] = (),
    audio: Annotated[tuple[str, ...], arg(metavar="NAME=FOLDER")] = (),
    longest: float = 15.0,
    heard: int = 6,
) -> None:
    """Measure a model on recordings that it never heard, beside WORLD, Griffin-Lim and other systems' audio.

    Args:
        model: melisma-44k, analytic, or a checkpoint.
        data: folder of recordings, one recording, or a dataset of melisma prepare.
        out: folder for report.json, report.md and report.html, which has tables, players and spectrograms.
        clips: list of the clips in a folder with manifest.json, see recipes/heldout.txt; else all are taken.
        parts: copy, blur, moved, shift, detune, back, baselines, octaves, probes, semitones, speed and visqol (an
            extra); all but visqol where none is named.
        audio: folders with audio of other systems, files called as the clips are.
        longest: seconds; of longer recordings the stretch that sounds most is taken, 0 takes all.
        heard: clips to hear in report.html.
    """
    from melisma.evaluation.evaluate import PARTS, main

    main(model, data, clips, out, parts or PARTS, audio, longest, heard)


def listen(
    clips: Annotated[Positional[tuple[Path, ...]], arg(metavar="CLIP")],
    out: Annotated[Path, arg(aliases=["-o"], metavar="PAGE.html")],
    models: tuple[str, ...] = ("analytic", "melisma-44k"),
    shift: tuple[float, ...] = (0.0,),
    longest: float = 20.0,
    projections: int | None = None,
    world: bool = True,
    small: bool = False,
) -> None:
    """Make a page to listen on: original, WORLD and models side by side, switched at the same place, with spectrograms.

    Args:
        clips: recordings, and folders of them.
        out: the page; it holds its audio, and needs no network and no other file.
        models: which; each melisma-44k, analytic, or a checkpoint.
        shift: semitones; of every clip a part of the page for each.
        longest: seconds; of longer recordings the stretch that sounds most is taken, 0 takes all.
        projections: rounds of mel projection of the spectral models.
        world: let WORLD sing too.
        small: compress the audio (Opus); a tenth of the size, and no longer exactly what the models gave.
    """
    _need(clips, "listen: name recordings, or folders of them")
    from melisma.commands import listen as command

    command.run(clips, out, models, shift, longest, projections, world, small)


def _need(given: tuple[Path, ...], wish: str) -> None:
    """Wrong usage where nothing is named."""
    if not given:
        print(f"error: {wish}", file=sys.stderr)
        raise SystemExit(2)

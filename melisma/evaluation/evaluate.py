"""Measure a vocoder on clips that it never saw, beside its baselines and what others published."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from melisma.errors import MelismaError
from melisma.evaluation.clips import EvaluationClip, find_clips, load_clips
from melisma.evaluation.conditions import (
    BACK_SEMITONES,
    Condition,
    Prepared,
    conditions,
    griffin,
    judge_copy,
    judge_octaves,
    prepare,
    world_conditions,
)
from melisma.evaluation.probes import probes
from melisma.evaluation.published import Published, read_published
from melisma.evaluation.report import Report, Row
from melisma.evaluation.speed import copy_speed, shift_speed

PARTS = ("copy", "blur", "moved", "shift", "detune", "back", "baselines", "octaves", "probes", "semitones", "speed")
# Takes a package of its own, and seconds a clip.
EXTRA_PARTS = ("visqol",)
BASELINE_MODEL = "analytic"

# Hears every copy: clip, system, condition, audio.
Listener = Callable[[Prepared, str, str, np.ndarray], None]
Progress = Callable[[float, str], None]
_Job = tuple[str, str, Condition]


def evaluate(
    model: Any,
    clips: Sequence[EvaluationClip],
    name: str = "model",
    parts: Sequence[str] = PARTS,
    baseline: Any | None = None,
    progress: Progress | None = None,
    published: Sequence[Published] = (),
    listener: Listener | None = None,
) -> Report:
    """Measure a model.

    Args:
        model: a :class:`melisma.inference.vocoder.Vocoder`, or whatever has its ``synthesize``, ``resynthesize``
            and ``mel``.
        clips: at the model's sample rate.
        name: what the report calls it.
        parts: which of ``PARTS`` and ``EXTRA_PARTS``.
        baseline: an untrained model that is measured beside it (part ``baselines``).
        progress: called with the share done and what comes next.
        published: systems by their audio.
        listener: called with every copy that was judged.

    Raises:
        MelismaError: unknown parts, no clips, clips at another rate, or a model without a mel.
    """
    _check(model, clips, name, parts)
    report = Report(name)
    systems = {name: model}
    if baseline is not None and "baselines" in parts:
        systems[BASELINE_MODEL] = baseline
    jobs = _jobs(systems, name, tuple(parts), published)
    tests = [(system, *probe) for system, one in systems.items() for probe in probes(one, one.mel, tuple(parts))]
    total, done = len(clips) * len(jobs) + len(tests), 0

    def tell(what: str) -> None:
        if progress:
            progress(done / max(1, total), what)

    first: Prepared | None = None
    for clip in clips:
        item = prepare(clip, model.mel)
        first = first or item
        for system, condition, asked in jobs:
            tell(f"{clip.name}: {system}, {condition}")
            report.rows += _rows(item, system, condition, asked, "octaves" in parts, listener)
            done += 1
    for system, item, condition, asked in tests:
        tell(f"{system}, {condition}")
        report.rows += _rows(item, system, condition, asked, False, None)
        done += 1
    if "speed" in parts and first is not None:
        tell("speed")
        report.rows += [row for system, one in systems.items() for row in _speeds(one, system, first)]
    tell("done")
    return report


def _check(model: Any, clips: Sequence[EvaluationClip], name: str, parts: Sequence[str]) -> None:
    known = (*PARTS, *EXTRA_PARTS)
    unknown = [part for part in parts if part not in known]
    if unknown:
        raise MelismaError(f"unknown part {unknown[0]!r}; known: {', '.join(known)}")
    if not clips:
        raise MelismaError("no clips to evaluate on")
    if model.mel is None:
        raise MelismaError(f"{name} decodes a latent and has no mel: it cannot be evaluated on recordings alone")
    if clips[0].sample_rate != model.mel.sample_rate:
        raise MelismaError(f"the clips are at {clips[0].sample_rate} Hz, {name} at {model.mel.sample_rate} Hz")


def _jobs(systems: dict[str, Any], name: str, parts: tuple[str, ...], published: Sequence[Published]) -> list[_Job]:
    extra = tuple(part for part in parts if part in EXTRA_PARTS)
    judge = partial(judge_copy, with_visqol="visqol" in extra)
    jobs: list[_Job] = []
    for system, model in systems.items():
        asked = parts if system == name else ("copy", *extra)
        jobs += [(system, key, condition) for key, condition in conditions(model, asked).items()]
    jobs += [(one.name, "copy", Condition(one.audio_for, judge, copies=True)) for one in published]
    if "baselines" in parts:
        jobs += [("WORLD", key, condition) for key, condition in world_conditions(parts).items()]
        jobs.append(("Griffin-Lim", "copy", Condition(griffin, judge, copies=True)))
    return jobs


def _rows(
    item: Prepared, system: str, condition: str, asked: Condition, octaves: bool, listener: Listener | None
) -> Iterator[Row]:
    clip = item.clip
    results = asked.results(item)
    if not results:
        return
    audio = results[0]
    if asked.copies and listener is not None:
        listener(item, system, condition, audio)
    values = asked.judged(item, results)
    yield Row(system, condition, clip.name, clip.kind, values)
    if not (octaves and asked.copies):
        return
    voiced = item.f0_hz[item.f0_hz > 0]
    middle = float(np.median(voiced)) if len(voiced) else 0.0
    for octave, found in judge_octaves(item, audio).items():
        low, high = (float(edge) for edge in octave.removesuffix(" Hz").split("-"))
        # PESQ and MR-STFT judge a clip as a whole: it counts where the middle of its F0 lies.
        whole = {key: values[key] for key in ("pesq", "mr_stft") if low <= middle < high and key in values}
        yield Row(system, condition, clip.name, clip.kind, whole | found, octave)


def _speeds(model: Any, name: str, item: Prepared) -> Iterator[Row]:
    for condition in conditions(model, ("copy",)):
        value = copy_speed(model, item, 0 if "off" in condition else None)
        yield Row(name, condition, "", "", {"speed": value})
    yield Row(name, f"{BACK_SEMITONES:+d} semitones", "", "", {"speed": shift_speed(model, item)})


def main(
    model: str,
    data: Path,
    clip_list: Path | None = None,
    output: Path | None = None,
    parts: Sequence[str] = PARTS,
    audio: tuple[str, ...] = (),
    longest_s: float = 15.0,
    heard: int = 6,
) -> Report:
    """Evaluate a model by name or path, print the tables and save ``report.json``, ``.md`` and ``.html``.

    Args:
        model: what :func:`melisma.inference.vocoder.load` takes.
        data: a folder of recordings or a dataset; with a list, the folder with ``manifest.json``.
        clip_list: a held-out list, see ``recipes/heldout.txt``; None takes every recording.
        output: folder for the files; None writes none.
        parts: which of ``PARTS`` and ``EXTRA_PARTS``.
        audio: ``NAME=FOLDER`` of systems that published their audio.
        longest_s: of longer recordings so much is taken, where they sound most; 0 takes all.
        heard: how many clips the HTML report lets hear.
    """
    from rich.progress import Progress as Bar

    from melisma.evaluation.html_report import Hearing, write_html
    from melisma.inference.vocoder import load

    vocoder = load(model, device="cpu", precision="float32")
    name = Path(model).stem
    if vocoder.mel is None:
        raise MelismaError(f"{model} decodes a latent and has no mel: it cannot be evaluated on recordings alone")
    rate = vocoder.mel.sample_rate
    clips, skipped = (load_clips(data, clip_list, rate), []) if clip_list else find_clips(data, rate, longest_s)
    for one in skipped:
        print(f"skipped: {one.name}: {one.reason}")
    published = read_published(audio, clips)
    baseline = load(BASELINE_MODEL, device="cpu") if name != BASELINE_MODEL else None
    if baseline is not None and baseline.mel != vocoder.mel:
        baseline = None
    hearing = Hearing(heard if output is not None else 0)
    with Bar(transient=True) as bar:
        task = bar.add_task("evaluate", total=1.0)
        report = evaluate(
            vocoder,
            clips,
            name,
            parts,
            baseline,
            lambda done, what: bar.update(task, completed=done, description=what),
            published,
            hearing.listen,
        )
    report.show()
    if output is not None:
        report.save(output)
        write_html(output / "report.html", report, hearing)
        print(f"{output}: report.json, report.md and report.html written")
    return report

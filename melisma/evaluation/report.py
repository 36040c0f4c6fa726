"""Measure a vocoder on clips that it never saw, beside its baselines, and print, save and quote the result."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from melisma.errors import MelismaError
from melisma.evaluation.clips import EvaluationClip, load_clips
from melisma.evaluation.conditions import Prepared, conditions, griffin, prepare, speed, world

PARTS = ("copy", "blur", "shift", "detune", "back", "baselines", "speed")
BASELINE_MODEL = "analytic"
TABLE_WIDTH = 132
COLUMNS = {
    "pesq": ("PESQ", 2),
    "log_mel": ("log-mel", 3),
    "mr_stft": ("MR-STFT", 2),
    "mr_stft_16k": ("to 16 kHz", 2),
    "mcd": ("MCD", 2),
    "f0_cents": ("F0 cents", 1),
    "vuv_f1": ("V/UV F1", 3),
    "periodicity": ("period.", 3),
    "speed": ("x real time", 0),
}


@dataclass(frozen=True)
class Row:
    """One system under one condition on one clip; ``kind`` is ``singing``, ``speech``, or ``""`` for a speed."""

    system: str
    condition: str
    clip: str
    kind: str
    values: dict[str, float]


@dataclass
class Report:
    """All rows of an evaluation."""

    model: str
    rows: list[Row] = field(default_factory=list)

    def medians(self, kind: str = "all") -> dict[tuple[str, str], dict[str, float]]:
        """Medians over the clips of a kind (or ``all``): ``(system, condition) -> {metric: value}``."""
        keys = dict.fromkeys((row.system, row.condition) for row in self.rows)
        return {key: self._median(*key, kind) for key in keys}

    def _median(self, system: str, condition: str, kind: str) -> dict[str, float]:
        here = [row for row in self.rows if (row.system, row.condition) == (system, condition)]
        here = [row for row in here if kind == "all" or row.kind in (kind, "")]
        result = {}
        for name in dict.fromkeys(name for row in here for name in row.values):
            values = [row.values[name] for row in here if math.isfinite(row.values.get(name, math.nan))]
            if values:
                result[name] = float(np.median(values))
        return result

    def kinds(self) -> list[str]:
        """The kinds of clip that occur, then ``all``."""
        return [*dict.fromkeys(row.kind for row in self.rows if row.kind), "all"]

    def save(self, path: Path) -> None:
        """Write medians and rows as JSON."""
        medians = {
            kind: [{"system": s, "condition": c, **values} for (s, c), values in self.medians(kind).items()]
            for kind in self.kinds()
        }
        content = {"model": self.model, "medians": medians, "rows": [asdict(row) for row in self.rows]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_without_nan(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def markdown(self, kind: str = "all") -> str:
        """The medians of a kind as a markdown table."""
        lines = ["| system | condition | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
        lines.append("|---|---|" + "---:|" * len(COLUMNS))
        for (system, condition), values in self.medians(kind).items():
            if values:
                lines.append(f"| {system} | {condition} | " + " | ".join(_cells(values)) + " |")
        return "\n".join(lines)

    def show(self) -> None:
        """Print one table a kind."""
        from rich.console import Console
        from rich.table import Table

        console = Console()
        console.width = max(console.width, TABLE_WIDTH)
        for kind in self.kinds():
            count = len({row.clip for row in self.rows if row.kind and kind in (row.kind, "all")})
            table = Table(title=f"{self.model}, {kind}: medians over {count} clips", title_justify="left")
            table.add_column("system", no_wrap=True)
            table.add_column("condition", no_wrap=True)
            for title, _ in COLUMNS.values():
                table.add_column(title, justify="right")
            for (system, condition), values in self.medians(kind).items():
                if values:
                    table.add_row(system, condition, *_cells(values))
            console.print(table)


def _cells(values: dict[str, float]) -> list[str]:
    return [f"{values[name]:.{digits}f}" if name in values else "" for name, (_, digits) in COLUMNS.items()]


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate(
    model: Any,
    clips: Sequence[EvaluationClip],
    name: str = "model",
    parts: Sequence[str] = PARTS,
    baseline: Any | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Report:
    """Measure a model.

    Args:
        model: a :class:`melisma.inference.vocoder.Vocoder`, or whatever has its ``synthesize``, ``resynthesize``
            and ``mel``.
        clips: at the model's sample rate.
        name: what the report calls it.
        parts: which of ``PARTS``.
        baseline: an untrained model whose copies are measured beside it (part ``baselines``).
        progress: called with the share done and what comes next.

    Raises:
        MelismaError: unknown parts, no clips, clips at another rate, or a model without a mel.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise MelismaError(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    if not clips:
        raise MelismaError("no clips to evaluate on")
    if model.mel is None:
        raise MelismaError(f"{name} decodes a latent and has no mel: it cannot be evaluated on recordings alone")
    if clips[0].sample_rate != model.mel.sample_rate:
        raise MelismaError(f"the clips are at {clips[0].sample_rate} Hz, {name} at {model.mel.sample_rate} Hz")
    report = Report(name)
    jobs = _jobs(model, name, tuple(parts), baseline)
    first: Prepared | None = None
    for index, clip in enumerate(clips):
        item = prepare(clip, model.mel)
        first = first or item
        for step, (system, condition, run) in enumerate(jobs):
            if progress:
                progress((index + step / len(jobs)) / len(clips), f"{clip.name}: {system}, {condition}")
            report.rows.append(Row(system, condition, clip.name, clip.kind, run(item)))
    if "speed" in parts and first is not None:
        _measure_speed(report, model, name, first)
        if baseline is not None and "baselines" in parts:
            _measure_speed(report, baseline, BASELINE_MODEL, first)
    if progress:
        progress(1.0, "done")
    return report


def _jobs(model: Any, name: str, parts: tuple[str, ...], baseline: Any | None) -> list[tuple[str, str, Callable]]:
    jobs: list[tuple[str, str, Callable]] = [(name, key, run) for key, run in conditions(model, parts).items()]
    if "baselines" in parts:
        if baseline is not None:
            jobs += [(BASELINE_MODEL, key, run) for key, run in conditions(baseline, ("copy",)).items()]
        jobs += [("WORLD", "copy", world), ("Griffin-Lim", "copy", griffin)]
    return jobs


def _measure_speed(report: Report, model: Any, name: str, item: Prepared) -> None:
    for condition in conditions(model, ("copy",)):
        value = speed(model, item, 0 if "off" in condition else None)
        report.rows.append(Row(name, condition, "", "", {"speed": value}))


def main(
    model: str,
    data: Path,
    clip_list: Path,
    output: Path | None = None,
    parts: Sequence[str] = PARTS,
) -> Report:
    """Evaluate a model by name or path on a held-out list, print the tables and save ``report.json`` and ``report.md``.

    Args:
        model: what :func:`melisma.inference.vocoder.load` takes.
        data: the folder of the recordings, with ``manifest.json``.
        clip_list: the held-out list; see ``recipes/heldout.txt``.
        output: folder for the files; None writes none.
        parts: which of ``PARTS``.
    """
    from rich.progress import Progress

    from melisma.inference.vocoder import load

    vocoder = load(model, device="cpu", precision="float32")
    if vocoder.mel is None:
        raise MelismaError(f"{model} decodes a latent and has no mel: it cannot be evaluated on recordings alone")
    clips = load_clips(data, clip_list, vocoder.mel.sample_rate)
    name = Path(model).stem
    baseline = load(BASELINE_MODEL, device="cpu") if name != BASELINE_MODEL else None
    if baseline is not None and baseline.mel != vocoder.mel:
        baseline = None
    with Progress(transient=True) as bar:
        task = bar.add_task("evaluate", total=1.0)
        report = evaluate(
            vocoder, clips, name, parts, baseline, lambda done, what: bar.update(task, completed=done, description=what)
        )
    report.show()
    if output is not None:
        report.save(output / "report.json")
        text = "\n\n".join(f"### {kind}\n\n{report.markdown(kind)}" for kind in report.kinds())
        (output / "report.md").write_text(text + "\n", encoding="utf-8")
    return report

"""Which measurements are made, and the tables that they become."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from melisma.benchmarking.measure import Fresh, Row, Setting, fresh, rows
from melisma.benchmarking.subjects import CONVOLUTIONAL, TRAINED
from melisma.errors import MelismaError
from melisma.files import replace_on_success
from melisma.inference.files import check_output as check_folder
from melisma.kernels import choice

PATHS = ("plain", "fast")
COLUMNS = ("model", "path", "precision", "threads", "batch", "chunk", "x real time", "ratio", "GFLOP/s", "of peak")
FRESH_COLUMNS = ("model", "path", "import", "first 2 s", "again", "peak memory")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        models: names, see :data:`melisma.benchmarking.subjects.SUBJECTS`.
        threads: numbers of threads.
        precisions: of the layers with weights; those that have no other here are measured in float32 alone.
        batches: clips at once; on the most threads, in one piece.
        chunks: seconds of a piece, 0 is in one piece; on the most threads, one clip.
        seconds: length of a clip.
        rounds: how often every variant has its turn.
        fresh: whether first calls and memory are measured too, in new processes.
    """

    models: tuple[str, ...]
    threads: tuple[int, ...]
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    chunks: tuple[float, ...]
    seconds: float
    rounds: int
    fresh: bool

    def __post_init__(self) -> None:
        numbers = (*self.threads, *self.batches, self.rounds, self.seconds)
        if not all(number > 0 for number in numbers) or any(chunk < 0 for chunk in self.chunks):
            raise MelismaError("bench: threads, batches, rounds and seconds must be above zero, chunks at least zero")
        if not (self.models and self.threads and self.precisions and self.batches and self.chunks):
            raise MelismaError("bench: name at least one of models, threads, precisions, batches and chunks each")

    def settings(self) -> list[Setting]:
        """One thread, two, and so on; and the other batches and chunks on the most threads."""
        most = max(self.threads)
        plain = [Setting(threads, self.batches[0], self.chunks[0], self.seconds) for threads in self.threads]
        batches = [Setting(most, batch, self.chunks[0], self.seconds) for batch in self.batches[1:]]
        chunks = [Setting(most, self.batches[0], chunk, self.seconds) for chunk in self.chunks[1:]]
        return [*plain, *batches, *chunks]


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        machine: what it is and which kernels it takes, in lines.
        peaks: ``(threads, precision)`` -> GFLOP/s of a matrix product.
        rows: of the table of speeds.
        first: ``(model, path)`` -> first call and memory.
    """

    machine: list[str]
    peaks: dict[tuple[int, str], float]
    rows: list[Row]
    first: dict[tuple[str, str], Fresh]

    def json(self) -> str:
        """All of it, for machines."""
        return json.dumps(
            {
                "machine": self.machine,
                "peaks": [
                    {"threads": threads, "precision": precision, "gflops": value}
                    for (threads, precision), value in self.peaks.items()
                ],
                "rows": [asdict(row) for row in self.rows],
                "first": [
                    {"model": model, "path": path, **asdict(value)} for (model, path), value in self.first.items()
                ],
            },
            indent=1,
        )

    def markdown(self) -> str:
        """The tables, for people."""
        peaks = "; ".join(
            f"{precision} on {threads}: {value:.0f}" for (threads, precision), value in sorted(self.peaks.items())
        )
        parts = ["\n".join(f"- {line}" for line in [*self.machine, f"matrix product, GFLOP/s: {peaks}"])]
        parts.append(_table(COLUMNS, [self._speed(row) for row in self.rows]))
        if self.first:
            parts.append(_table(FRESH_COLUMNS, [_fresh(*names, value) for names, value in self.first.items()]))
        return "\n\n".join(parts) + "\n"

    def _speed(self, row: Row) -> tuple[str, ...]:
        chunk = f"{row.chunk_seconds:g} s" if row.chunk_seconds else "whole"
        peak = max(self.peaks[row.threads, precision] for precision in (row.precision, "float32"))
        share = row.gflops / peak  # filtering computes in float32 where that is quicker
        setting = (str(row.threads), str(row.batch), chunk)
        figures = (f"{row.times_real_time:.3g}", f"{row.ratio:.2f}", f"{row.gflops:.0f}", f"{share:.0%}")
        return row.model, row.path, row.precision, *setting, *figures


def _fresh(model: str, path: str, value: Fresh) -> tuple[str, ...]:
    times = (f"{seconds:.2f} s" for seconds in (value.import_seconds, value.first_seconds, value.second_seconds))
    return model, path, *times, f"{value.peak_mb:.0f} MB"


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    right = ["---:" if line[0].isdigit() else "---" for line in (lines[0] if lines else head)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, tuple(right), *lines))


def measure(plan: Plan, progress: Callable[[float], None] = lambda done: None) -> Report:
    """Measure what is planned; ``progress`` is told the share that is done."""
    settings = plan.settings()
    steps = len(plan.models) * (len(settings) + (len(PATHS) if plan.fresh else 0))
    peaks: dict[tuple[int, str], float] = {}
    measured: list[Row] = []
    first: dict[tuple[str, str], Fresh] = {}
    done = 0
    for model in plan.models:
        rounds = model in CONVOLUTIONAL or (model in TRAINED and choice.backbone().path == "amx")
        precisions = plan.precisions if rounds else ("float32",)
        for setting in settings:
            measured += rows(model, setting, precisions, plan.rounds, peaks)
            done += 1
            progress(done / steps)
        for path in PATHS if plan.fresh else ():
            first[model, path] = fresh(model, path, max(plan.threads))
            done += 1
            progress(done / steps)
    return Report(machine(), peaks, measured, first)


def machine() -> list[str]:
    """What this machine is, in lines, and how busy: on a busy one only the ratios mean much."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = "busy with other work: trust the ratios only" if load > cores + 1 else "not busy with other work"
    return [
        f"{cores} cores, load average {load:.1f} at the end: {busy}",
        f"{choice.cpu_name()} ({', '.join(choice.cpu_features()) or 'no features of use'}), torch {torch.__version__}, "
        f"{date.today().isoformat()}",
        *(f"{what}: {chosen.path} ({chosen.why})" for what, chosen in choice.choices().items()),
    ]


def write(report: Report, path: Path) -> None:
    """Write the report as ``.json`` or ``.md``, whole or not at all."""
    kinds: dict[str, Callable[[], str]] = {".json": report.json, ".md": report.markdown}
    with replace_on_success(path) as temporary:
        temporary.write_text(kinds[path.suffix](), encoding="utf-8")


def check_output(path: Path) -> None:
    """Refuse a file that could not be written before an hour is spent on its content."""
    if path.suffix not in (".json", ".md"):
        raise MelismaError(f"{path}: name it .json or .md; those are what bench writes")
    check_folder(path)

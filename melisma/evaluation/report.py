"""What an evaluation found: rows, medians, tables to print, to quote and to read by machine."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from melisma.errors import MelismaError
from melisma.files import replace_on_success

TABLE_WIDTH = 150
# The kind of made signals, which show one fault each; see melisma.evaluation.probes.
PROBE = "probe"
FAULTS_TITLE = "faults, dB (h/n, harmonics to noise, and the level above 16 kHz against the recording's)"
Columns = dict[str, tuple[str, int]]
QUALITY: Columns = {
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
WITH_VISQOL: Columns = {"visqol": ("ViSQOL", 2)}
FAULTS: Columns = {
    "dc_db": ("DC", 0),
    "line_silence_db": ("in silence", 0),
    "line_breath_db": ("in breath", 1),
    "hnr_5k_db": ("h/n 5-7k", 1),
    "hnr_7k_db": ("7-10k", 1),
    "hnr_10k_db": ("10-13k", 1),
    "hnr_13k_db": ("13-16k", 1),
    "above_16k_db": ("> 16k", 1),
    "above_20k_db": ("> 20k", 1),
    "formants": ("formants", 2),
    "jitter_ratio": ("jitter", 2),
    "shimmer_ratio": ("shimmer", 2),
}
OCTAVE: Columns = {
    "pesq": ("PESQ", 2),
    "mr_stft": ("MR-STFT", 2),
    "log_mel": ("log-mel", 3),
    "mcd": ("MCD", 2),
    "f0_cents": ("F0 cents", 1),
    "vuv_recall": ("voiced", 3),
    "periodicity": ("period.", 3),
}


@dataclass(frozen=True)
class Row:
    """One system under one condition on one clip.

    ``kind`` is ``singing``, ``speech``, ``made`` or ``""`` for a speed; ``octave`` names the frames that were judged
    where it was not the whole clip.
    """

    system: str
    condition: str
    clip: str
    kind: str
    values: dict[str, float]
    octave: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its title: headings, and lines of which the first two cells are system and condition."""

    title: str
    headings: list[str]
    lines: list[list[str]]


@dataclass
class Report:
    """All rows of an evaluation."""

    model: str
    rows: list[Row] = field(default_factory=list)

    def medians(self, kind: str = "all", octave: str = "") -> dict[tuple[str, str], dict[str, float]]:
        """Medians over the clips of a kind (or ``all`` but the probes): ``(system, condition) -> {metric: value}``."""
        here = [row for row in self.rows if row.octave == octave and self._belongs(row, kind)]
        keys = dict.fromkeys((row.system, row.condition) for row in here)
        return {key: _median(row for row in here if (row.system, row.condition) == key) for key in keys}

    def _belongs(self, row: Row, kind: str) -> bool:
        if kind == "all":
            return row.kind != PROBE
        return row.kind == kind or (row.kind == "" and kind != PROBE)

    def kinds(self) -> list[str]:
        """The kinds of clip that occur, then ``all``, which leaves the probes out."""
        return [*dict.fromkeys(row.kind for row in self.rows if row.kind), "all"]

    def octaves(self) -> list[str]:
        """The octaves of F0 that occur, low to high."""
        return sorted({row.octave for row in self.rows if row.octave}, key=lambda name: float(name.split("-")[0]))

    def clips(self, kind: str = "all") -> int:
        """How many clips of a kind were judged."""
        return len({row.clip for row in self.rows if row.kind and self._belongs(row, kind)})

    def table(self, kind: str = "all", columns: Columns = QUALITY, octave: str = "") -> Table:
        """The medians of a kind, lines without any of the columns left out, and columns without any value."""
        medians = {key: values for key, values in self.medians(kind, octave).items() if set(values) & set(columns)}
        shown = {
            name: c
            for name, c in columns.items()
            if (columns is QUALITY and kind != PROBE) or any(name in v for v in medians.values())
        }
        lines = [[*key, *_cells(values, shown)] for key, values in medians.items()]
        return Table(kind, ["system", "condition", *(title for title, _ in shown.values())], lines)

    def tables(self) -> list[Table]:
        """Every table that has lines: quality by kind, ViSQOL, faults, quality by octave."""
        kinds = self.kinds()
        recorded = [kind for kind in kinds if kind not in ("all", PROBE)]
        shown = [kind for kind in kinds if kind != "all" or len(recorded) != 1]
        found = [self._titled(kind, QUALITY, f"{self.model}, {kind}") for kind in shown]
        found.append(self._titled("all", WITH_VISQOL, "ViSQOL"))
        found.append(self._titled("all", FAULTS, FAULTS_TITLE))
        found.append(self._titled(PROBE, FAULTS, f"{FAULTS_TITLE}; made signals"))
        found += [self._titled("all", OCTAVE, f"where F0 is {octave}", octave) for octave in self.octaves()]
        return [table for table in found if table.lines]

    def _titled(self, kind: str, columns: Columns, title: str, octave: str = "") -> Table:
        table, count = self.table(kind, columns, octave), self.clips(kind)
        what = "made signals" if kind == PROBE else "clips" if count != 1 else "clip"
        return Table(f"{title}: medians over {count} {what}", table.headings, table.lines)

    def markdown(self, kind: str = "all") -> str:
        """The medians of a kind as a markdown table."""
        return in_markdown(self.table(kind))

    @classmethod
    def read(cls, *folders: Path) -> "Report":
        """The report that :meth:`save` wrote into a folder, or that of several whose parts were run one by one.

        Raises:
            MelismaError: no report there, reports of different models, or the same figure twice.
        """
        reports = [_read(folder) for folder in folders]
        models = sorted({report.model for report in reports})
        if len(models) != 1:
            raise MelismaError(f"reports of {' and '.join(models)} are not one report; give those of one model")
        seen: set[tuple[str, ...]] = set()
        for report in reports:
            own = report._figures()
            if again := sorted(seen & own):
                raise MelismaError(f"{' '.join(filter(None, again[0]))} stands in two of the reports; give one of them")
            seen |= own
        return cls(models[0], [row for report in reports for row in report.rows])

    def _figures(self) -> set[tuple[str, ...]]:
        """What was measured, by name."""
        return {(row.system, row.condition, row.clip, row.octave, name) for row in self.rows for name in row.values}

    def document(self) -> str:
        """What ``report.md`` holds: quality by kind, then the other tables."""
        text = [f"### {kind}\n\n{self.markdown(kind)}" for kind in self.kinds()]
        tables = [table for table in self.tables() if table.headings[-1] != QUALITY["speed"][0]]
        return "\n\n".join([*text, *(f"### {table.title}\n\n{in_markdown(table)}" for table in tables)]) + "\n"

    def save(self, folder: Path) -> None:
        """Write ``report.json`` (medians and every row) and ``report.md`` into a folder, made where it is missing."""
        medians = {
            kind: [{"system": s, "condition": c, **values} for (s, c), values in self.medians(kind).items()]
            for kind in self.kinds()
        }
        octaves = {
            octave: [{"system": s, "condition": c, **values} for (s, c), values in self.medians("all", octave).items()]
            for octave in self.octaves()
        }
        rows = [asdict(row) for row in self.rows]
        content = _without_nan({"model": self.model, "medians": medians, "octaves": octaves, "rows": rows})
        folder.mkdir(parents=True, exist_ok=True)
        with replace_on_success(folder / "report.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with replace_on_success(folder / "report.md") as temporary:
            temporary.write_text(self.document(), encoding="utf-8")

    def show(self) -> None:
        """Print every table."""
        from rich.console import Console
        from rich.table import Table as Drawn

        console = Console()
        console.width = max(console.width, TABLE_WIDTH)
        for table in self.tables():
            drawn = Drawn(title=table.title, title_justify="left")
            for heading in table.headings:
                left = heading in ("system", "condition")
                drawn.add_column(heading, justify="left" if left else "right", no_wrap=left)
            for line in table.lines:
                drawn.add_row(*line)
            console.print(drawn)


def _read(folder: Path) -> Report:
    path = folder / "report.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**{**row, "values": _with_nan(row["values"])}) for row in content["rows"]]
        return Report(content["model"], rows)
    except FileNotFoundError as error:
        raise MelismaError(
            f"{path}: no report there; write one with: melisma evaluate MODEL DATA -o {folder}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise MelismaError(f"{path}: not a report of melisma evaluate ({error})") from error


def _with_nan(values: dict[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def in_markdown(table: Table) -> str:
    """A table in markdown, without its title."""
    lines = ["| " + " | ".join(table.headings) + " |", "|---|---|" + "---:|" * (len(table.headings) - 2)]
    return "\n".join([*lines, *("| " + " | ".join(line) + " |" for line in table.lines)])


def _median(rows: Iterable[Row]) -> dict[str, float]:
    here = list(rows)
    result = {}
    for name in dict.fromkeys(name for row in here for name in row.values):
        values = [row.values[name] for row in here if math.isfinite(row.values.get(name, math.nan))]
        if values:
            result[name] = float(np.median(values))
    return result


def _cells(values: dict[str, float], columns: Columns) -> list[str]:
    return [f"{values[name]:.{digits}f}" if name in values else "" for name, (_, digits) in columns.items()]


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

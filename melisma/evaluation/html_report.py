"""The report as a page: tables, and some clips to hear and see."""

import html
from pathlib import Path

import numpy as np

from melisma.evaluation.conditions import Prepared
from melisma.evaluation.page import CONTROLS, Section, Version, section_html, write_page
from melisma.evaluation.report import Report, Table

# A page of lossless audio would be ten times as large, and this one is for a look at the figures.
SUFFIX = ".opus"
ORIGINAL = "original"


class Hearing:
    """Keeps the copies of the first clips that it hears.

    Args:
        clips: how many.
    """

    def __init__(self, clips: int) -> None:
        self.clips = clips
        self.items: dict[str, Prepared] = {}
        self.versions: dict[str, list[Version]] = {}

    def listen(self, item: Prepared, system: str, condition: str, audio: np.ndarray) -> None:
        """Keep a copy, if its clip is one of the first."""
        name = item.clip.name
        if name not in self.items and len(self.items) >= self.clips:
            return
        self.items[name] = item
        suffix = condition.removeprefix("copy")
        version = Version(system + suffix, np.asarray(audio, dtype=np.float32))
        self.versions.setdefault(name, [Version(ORIGINAL, item.clip.audio)]).append(version)

    def sections(self, report: Report) -> str:
        """The clips as HTML, each with its own figures."""
        parts = []
        for name, item in self.items.items():
            copies = [r for r in report.rows if r.clip == name and not r.octave and r.condition.startswith("copy")]
            pesq = {row.system + row.condition.removeprefix("copy"): row.values for row in copies}
            told = [f"{system} {values['pesq']:.2f}" for system, values in pesq.items() if values.get("pesq", 0) > 0]
            note = f"{item.clip.kind}; PESQ: {', '.join(told)}" if told else item.clip.kind
            parts.append(section_html(Section(name, self.versions[name], note), item.clip.sample_rate, SUFFIX))
        return "\n".join(parts)


def table_html(table: Table) -> str:
    """A table with its title."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in table.headings)
    lines = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in table.lines]
    title = html.escape(table.title)
    return f'<div class="scroll"><table><caption>{title}</caption><tr>{head}</tr>{"".join(lines)}</table></div>'


def write_html(path: Path, report: Report, hearing: Hearing) -> None:
    """Write the page."""
    tables = "\n".join(table_html(table) for table in report.tables())
    clips = f"{CONTROLS}\n{hearing.sections(report)}" if hearing.items else ""
    write_page(path, f"{report.model}, measured", f"{tables}\n{clips}")

"""Write docs/figures/quality.md and the README's figures from the report of benchmarks/quality.py.

python benchmarks/quality.py DATA --output build/quality
python benchmarks/figures.py build/quality

Parts that were run one by one (speed needs the machine for itself) are joined: give the folder of each.
"""

import argparse
import re
import sys
from pathlib import Path

from melisma.errors import MelismaError
from melisma.evaluation.report import Report

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- figures: begin; generated from docs/figures/*.md, do not edit by hand -->"
END = "<!-- figures: end -->"
INTRODUCTION = """\
Medians over the clips of `recipes/heldout.txt`, which no training saw, printed by `python benchmarks/quality.py DATA`.
Copy synthesis unless it says otherwise, each clip's figures means over the seeds 0, 1 and 2. F0 by the default
estimator on both sides; MR-STFT is spectral convergence plus log magnitude over FFT 512, 1024 and 2048; "x real time"
is float32 on two threads. `docs/figures/quality.md` has all conditions, singing and speech apart.
"""


def table(report: str, kind: str, wanted: re.Pattern[str]) -> str:
    """Rows of one kind's table whose second column matches."""
    section = report.split(f"### {kind}\n", 1)[1].split("### ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [line for line in lines[2:] if wanted.fullmatch(line.split("|")[2].strip())]
    return "\n".join([*lines[:2], *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, nargs="+", help="folder with report.json")
    try:
        report = Report.read(*parser.parse_args().report).document()
    except MelismaError as error:
        sys.exit(f"figures: {error}")
    folder = ROOT / "docs" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.md").write_text(f"# Quality on held-out clips\n\n{INTRODUCTION}\n{report}", encoding="utf-8")
    copies = re.compile(r"copy(, projections off)?")
    parts = [f"{kind.capitalize()}:\n\n{table(report, kind, copies)}" for kind in ("singing", "speech", "all")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    head, rest = readme.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    body = "\n\n".join([INTRODUCTION.strip(), *parts])
    (ROOT / "README.md").write_text(f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()

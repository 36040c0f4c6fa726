"""What the data's own table says about licences: the provenance of a model whose recipe says nothing better."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

TABLE = "manifest.csv"  # of melisma prepare
UNSTATED = "licence not stated"


def provenance_of(folders: Sequence[str]) -> str:
    """One sentence with the licences and credits of the clips in all datasets; empty where none has a table."""
    counts: Counter[str] = Counter()
    for folder in folders:
        path = Path(folder) / TABLE
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                parts = (row.get("credit") or "", row.get("licence") or UNSTATED)
                counts[", ".join(part for part in parts if part)] += 1
    if not counts:
        return ""
    listed = "; ".join(f"{text} ({count} clip{'s' * (count > 1)})" for text, count in counts.most_common())
    return f"Trained on {counts.total()} clips: {listed}."

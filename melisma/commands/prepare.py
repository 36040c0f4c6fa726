"""``melisma prepare``: folders of recordings to a dataset, and a report of what is in it."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melisma.commands.show import progress_bar
from melisma.data.manifest import held_out as read_held_out
from melisma.data.parts import PrepareSettings
from melisma.data.prepare import MANIFEST, SKIPPED, Prepared, prepare
from melisma.data.scan import Defaults, Recording, Skipped, scan
from melisma.errors import MelismaError

SHOWN = 10
# Fewer clipped samples than this are an accident of the waveform.
CLIPPED = 20


def run(
    sources: Sequence[Path],
    out: Path,
    settings: PrepareSettings,
    defaults: Defaults,
    held_out: Path | None = None,
    made: float = 0.0,
    sample_format: str = "pcm16",
    jobs: int | None = None,
    engine: str = "local",
) -> None:
    """Find the recordings, prepare them and print the report."""
    left_out = read_held_out(held_out) if held_out is not None else set()
    recordings, missing = scan(sources, defaults, left_out, out)
    print(f"{len(recordings)} recordings found" + (f", {len(left_out)} held out" if left_out else ""))
    make(recordings, missing, out, settings, made, sample_format, jobs, engine)


def make(
    recordings: Sequence[Recording],
    missing: Sequence[Skipped],
    out: Path,
    settings: PrepareSettings,
    made: float = 0.0,
    sample_format: str = "pcm16",
    jobs: int | None = None,
    engine: str = "local",
) -> None:
    """Prepare recordings that were found and print the report."""
    workers = jobs if jobs is not None else len(os.sched_getaffinity(0))
    try:
        with progress_bar("preparing") as progress:
            prepared = prepare(
                recordings, out, settings, made, missing, workers, engine, sample_format, progress=progress
            )
    except KeyboardInterrupt:
        raise MelismaError(f"{out}: interrupted; what is done is kept, and the same command goes on") from None
    print("\n".join(report(prepared)))
    print(f"{out}: {'is up to date' if prepared.was_there else 'written'}; {out / MANIFEST} has a line a clip")


def report(prepared: Prepared) -> list[str]:
    """What is in a dataset, in words: lengths, levels, band, F0, licences, and what deserves a look."""
    rows = prepared.rows
    lines = [*_lengths(rows), *_levels(rows), *_bands(rows), *_pitches(rows), *_licences(rows)]
    if len(rows) == 1:
        lines.append("one clip only: nothing is left to judge a model by; more recordings are better")
    return [*lines, *_skipped(prepared.skipped)]


def _lengths(rows: list[dict[str, Any]]) -> list[str]:
    kinds = Counter[str]()
    for row in rows:
        kinds[row["kind"]] += float(row["seconds"])  # type: ignore[assignment]
    parts = [f"{kind} {_minutes(seconds)}" for kind, seconds in kinds.items()]
    speakers = len({row["speaker"] for row in rows})
    lines = [f"{len(rows)} clips, {_minutes(sum(kinds.values()))} ({', '.join(parts)}), speakers: {speakers}"]
    rates = Counter(rate for row in rows if (rate := _number(row, "source_rate")))
    if len(rates) > 1:
        lines.append(
            f"rates mixed, all resampled: {', '.join(f'{hz:.0f} Hz ({n})' for hz, n in sorted(rates.items()))}"
        )
    return lines


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _levels(rows: list[dict[str, Any]]) -> list[str]:
    levels = sorted((float(row["loudness_lufs"]), row["key"]) for row in rows if _number(row, "loudness_lufs"))
    if not levels:
        return []
    low, middle, high = levels[0], levels[len(levels) // 2], levels[-1]
    lines = [f"loudness: {low[0]:.1f} ({low[1]}) to {high[0]:.1f} LUFS ({high[1]}), median {middle[0]:.1f}"]
    clipped = [row for row in rows if (_number(row, "clipped_samples") or 0) >= CLIPPED]
    if clipped:
        worst = sorted(clipped, key=lambda row: -float(row["clipped_samples"]))[:SHOWN]
        names = ", ".join(f"{row['key']} ({row['clipped_samples']} samples)" for row in worst)
        lines.append(f"clipped: {len(clipped)} of {len(rows)} clips: {names}{_more(len(clipped))}")
    return lines


def _bands(rows: list[dict[str, Any]]) -> list[str]:
    highest = max(float(row["band_hz"]) for row in rows)
    cut = [float(row["band_hz"]) for row in rows if float(row["band_hz"]) < 0.95 * highest]
    line = f"band: to {highest / 1000:.1f} kHz"
    return [line + (f"; clips that end earlier, at {min(cut) / 1000:.1f} kHz or above: {len(cut)}" if cut else "")]


def _pitches(rows: list[dict[str, Any]]) -> list[str]:
    voiced = [row for row in rows if _number(row, "f0_median_hz")]
    if not voiced:
        return ["F0: nothing is voiced"]
    low = min(float(row["f0_lowest_hz"]) for row in voiced)
    high = max(float(row["f0_highest_hz"]) for row in voiced)
    share = sum(float(row["voiced"]) * float(row["seconds"]) for row in rows) / sum(float(r["seconds"]) for r in rows)
    return [f"F0: {low:.0f} to {high:.0f} Hz, voiced {share:.0%}"]


def _licences(rows: list[dict[str, Any]]) -> list[str]:
    found = Counter(row.get("licence") or "" for row in rows)
    lines = (
        [f"licences: {', '.join(f'{name} ({count})' for name, count in found.items() if name)}"] if any(found) else []
    )
    if found[""]:
        lines.append(f"licence unknown for {found['']} clips: say it with --licence, or in a manifest.json beside them")
    return lines


def _skipped(skipped: list[Skipped]) -> list[str]:
    if not skipped:
        return []
    lines = [f"skipped: {len(skipped)}, listed in {SKIPPED}"]
    return [
        *lines,
        *(f"  {one.name}: {one.reason}" for one in skipped[:SHOWN]),
        *([_more(len(skipped))] * (len(skipped) > SHOWN)),
    ]


def _more(count: int) -> str:
    return f" and {count - SHOWN} more" if count > SHOWN else ""


def _number(row: dict[str, Any], column: str) -> float | None:
    value = row.get(column)
    return float(value) if value not in (None, "") else None

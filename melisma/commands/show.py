"""What commands show: a progress bar, and pitches with their names."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from melisma.editing import Note
from melisma.editing.pitch import hz_of, pitch_name


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on stderr while the block runs, where somebody watches; give the function that moves it, 0 to 1."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda done: bar.update(task, completed=done)


def note_name(f0_hz: float) -> str:
    """The nearest note of the tempered scale, ``A4`` for 440 Hz."""
    return pitch_name(69 + 12 * math.log2(f0_hz / 440.0))


def notes_table(notes: Sequence[Note], frame_rate_hz: float) -> str:
    """Notes as lines: start and length in seconds, name, cents off it, Hz."""
    if not notes:
        return "notes: none found"
    lines = [f"notes: {len(notes)}", f"{'start':>9} {'length':>8}  {'note':<4} {'cents':>5} {'Hz':>8}"]
    for note in notes:
        start, length = note.start / frame_rate_hz, (note.stop - note.start) / frame_rate_hz
        cents = round(100 * (note.pitch - round(note.pitch)))
        lines.append(f"{start:8.2f}s {length:7.2f}s  {pitch_name(note.pitch):<4} {cents:+5d} {hz_of(note.pitch):8.1f}")
    return "\n".join(lines)


def f0_summary(f0_hz: np.ndarray) -> str:
    """Range, median and voiced share of a curve as words."""
    voiced = f0_hz[f0_hz > 0]
    if voiced.size == 0:
        return "F0: nothing voiced"
    low, middle, high = (float(value) for value in (voiced.min(), np.median(voiced), voiced.max()))
    pitches = [f"{value:.1f} Hz ({note_name(value)})" for value in (low, high, middle)]
    return f"F0: {pitches[0]} to {pitches[1]}, median {pitches[2]}; voiced {voiced.size / f0_hz.size:.0%}"

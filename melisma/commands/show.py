"""What commands show: a progress bar, and pitches with their names."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

_NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


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
    number = round(69 + 12 * math.log2(f0_hz / 440.0))
    return f"{_NOTES[number % 12]}{number // 12 - 1}"


def f0_summary(f0_hz: np.ndarray) -> str:
    """Range, median and voiced share of a curve as words."""
    voiced = f0_hz[f0_hz > 0]
    if voiced.size == 0:
        return "F0: nothing voiced"
    low, middle, high = (float(value) for value in (voiced.min(), np.median(voiced), voiced.max()))
    pitches = [f"{value:.1f} Hz ({note_name(value)})" for value in (low, high, middle)]
    return f"F0: {pitches[0]} to {pitches[1]}, median {pitches[2]}; voiced {voiced.size / f0_hz.size:.0%}"

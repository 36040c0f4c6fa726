"""What a run shows: a live bar on a terminal, lines elsewhere, rows in ``log.jsonl`` always, TensorBoard if asked."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from melisma.training.validation import Piece, Record, ValidationSettings

LOG = "log.jsonl"


class View:
    """Shows a run on the first process; one of a quiet process does nothing.

    Args:
        folder: of the run.
        steps: in all.
        quiet: whether this process shows nothing.
        board: whether TensorBoard's files are written.
    """

    def __init__(self, folder: Path, steps: int, quiet: bool, board: bool) -> None:
        self.folder, self.steps, self.quiet = folder, steps, quiet
        self.board: Any = None
        self._stack = ExitStack()
        self._progress: Any = None
        self._task: Any = None
        self._since = time.monotonic()
        if board and not quiet:
            from melisma.training.board import Board

            self.board = Board(folder / "tensorboard")

    def __enter__(self) -> Self:
        if not self.quiet and sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._progress = self._stack.enter_context(Progress(*columns))
            self._task = self._progress.add_task("train", total=self.steps, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self.board is not None:
            self.board.close()

    def step(self, step: int, loss: float | None) -> None:
        """Move the bar."""
        if self._progress is None:
            return
        task = self._progress.tasks[0]
        if task.completed == 0 and step > 1:
            self._progress.reset(self._task, total=self.steps, completed=step - 1)
        rate = f"{task.speed:.2f} steps/s" if task.speed else ""
        label = "train" if loss is None else f"loss {loss:.4f}"
        self._progress.update(self._task, completed=step, description=label, rate=rate)

    def row(self, step: int, window: Sequence[Mapping[str, float]], rate: float) -> None:
        """The means of some steps and the learning rate of the last; steps that were not finite do not count."""
        if self.quiet:
            return
        names = sorted({name for values in window for name in values})
        means = {}
        for name in names:
            there = [values[name] for values in window if name in values and math.isfinite(values[name])]
            if there:
                means[name] = round(sum(there) / len(there), 4)
        seconds, self._since = (time.monotonic() - self._since) / max(1, len(window)), time.monotonic()
        row = {"step": step, **means, "learning_rate": rate, "seconds_a_step": round(seconds, 3)}
        self._write(row)
        left = _duration((self.steps - step) * seconds)
        self._say(
            f"step {step} of {self.steps}: "
            + ", ".join(f"{k} {v:g}" for k, v in row.items() if k != "step")
            + f", {left} left"
        )
        if self.board is not None:
            self.board.scalars(step, {**means, "learning_rate": rate})

    def validated(
        self, step: int, metrics: Mapping[str, float], pieces: Sequence[Piece], record: Record, rate: int,
        settings: ValidationSettings,
    ) -> None:  # fmt: skip
        """The metrics of a validation beside those of the start, and the pieces."""
        if self.quiet:
            return
        rounded = {name: round(value, 4) for name, value in metrics.items()}
        self._write({"step": step, "validation": rounded, "best_step": record.best_step})
        parts = [f"{name} {value:g} (start {record.start[name]:.4g})" for name, value in rounded.items()]
        verdict = "the best so far" if record.best_step == step else f"the best is step {record.best_step}"
        self._say(f"validation after step {step}: {', '.join(parts)}; by {settings.metric} {verdict}")
        if self.board is not None:
            self.board.validated(step, metrics, pieces, record, rate)

    def note(self, step: int, text: str) -> None:
        """Something that happened."""
        if self.quiet:
            return
        self._write({"step": step, "note": text})
        self._say(text)

    def forget_after(self, step: int) -> None:
        """Take back the rows of steps that a run will make again."""
        path = self.folder / LOG
        if self.quiet or not path.is_file():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def _write(self, row: Mapping[str, Any]) -> None:
        try:
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:  # a full disk must not end a run that goes on in memory
            self._say(f"{self.folder / LOG}: not written: {error.strerror}")

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the half line of a run that was killed
        return math.inf


def _duration(seconds: float) -> str:
    minutes = max(0, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"

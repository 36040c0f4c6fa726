"""The loop of a run: draw, learn, log, validate, save; go on after whatever interrupts it."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from melisma.errors import MelismaError
from melisma.training.checkpoint import latest_checkpoint, load_checkpoint, save_config
from melisma.training.credits import provenance_of
from melisma.training.features import features_of
from melisma.training.processes import choose_device, first_does, rank, world_size
from melisma.training.recipe import Recipe, differences, recipe_mapping
from melisma.training.recordings import Place
from melisma.training.run_state import PREFIX, Facts, restore, save, snapshot, sweep
from melisma.training.start import Start, begin, read_start
from melisma.training.step import new_state, train_step
from melisma.training.supply import Supply, clips_of
from melisma.training.terms import losses_of_step
from melisma.training.validation import Piece, Record, Validation
from melisma.training.view import View

# Rollbacks to one checkpoint before a run gives up.
MOST_ROLLBACKS = 5
LOWERED = 0.5  # what a rollback does to the learning rates


class Trainer:
    """State of a run and its loop.

    Args:
        recipe: what to train; its generator is known.
        folder: where checkpoints, ``recipe.json`` and ``log.jsonl`` are kept; a run found there goes on.
        board: whether TensorBoard's files are written.

    Raises:
        MelismaError: the data or the recipe cannot be trained, a checkpoint in the folder is of another recipe, or does
            not fit.
    """

    def __init__(self, recipe: Recipe, folder: Path, board: bool = False) -> None:
        self.recipe, self.folder, self.board = recipe, folder, board
        self.device = choose_device(recipe.device)
        self.asked = self.stopping = False
        found = first_does(lambda: _latest(folder, recipe))
        content = first_does(lambda: load_checkpoint(found)) if found is not None else None
        begins_with = recipe.start_from if content is None else None
        start = first_does(lambda: read_start(begins_with, recipe.generator)) if begins_with is not None else None
        places, held = clips_of(recipe)
        known = content["speakers"] if content else (start.speaker_names if start else {})
        self.speakers = rows_of(sorted({place.clip.speaker for place in places}), known)
        self.state = new_state(recipe, 1 + max(self.speakers.values()), self.device)
        self.features = features_of(self.state.voice.generator, recipe.start_from, self.device)
        self.supply = Supply(recipe, places, self.state.voice, self.features, self.speakers, self.device)
        self.facts = Facts(self.speakers, self.supply.chances.range_hz(), provenance_of(recipe.data.folders))
        self.notes = list(self.supply.notes)
        self.record, self.saved = Record(), -1
        if content is not None and found is not None:
            self.record, self.saved = restore(self.state, content, found), content["step"]
        elif start is not None:
            self._begin_with(start)
        self.validation = self._validation(held) if held and rank() == 0 else None

    def _begin_with(self, start: Start) -> None:
        state = self.state
        fresh = begin(state.voice, state.average, state.judges, start, self.speakers)
        if fresh:
            state.warmup = self.recipe.discriminator_warmup
            self.notes.append(f"fresh discriminators: {'; '.join(fresh)}; they learn alone for {state.warmup} steps")

    def _validation(self, held: list[Place]) -> Validation:
        recipe, voice = self.recipe, self.state.voice
        losses = losses_of_step(recipe.losses, recipe.loss_settings, voice.generator, np.random.default_rng(0))
        return Validation(recipe.validation, held, voice, self.features, self.speakers, losses.context, self.device)

    def train_step(self, view: View) -> dict[str, float]:
        """One step; what is not finite is named, passed over, and after several in a row undone."""
        step = self.state.step
        shared = np.random.default_rng([self.recipe.seed, step])
        losses = losses_of_step(self.recipe.losses, self.recipe.loss_settings, self.state.voice.generator, shared)
        outcome = train_step(self.state, self.recipe, self.supply.batches(step), losses, self.asked)
        # Alone, a wish that came while the step went on counts at once; together, with the next step's message.
        self.stopping = outcome.asked or (world_size() == 1 and self.asked)
        if outcome.finite:
            self.state.bad = 0
        else:
            self._not_finite(step, outcome.values, view)
        return outcome.values

    def _not_finite(self, step: int, values: dict[str, float], view: View) -> None:
        wrong = [name for name, value in values.items() if not np.isfinite(value)]
        clips = ", ".join(self.supply.keys(step))
        view.note(step, f"step {step} is not finite ({', '.join(wrong)}) and was passed over; its clips: {clips}")
        self.state.bad += 1
        if self.state.bad < self.recipe.bad_in_a_row:
            return
        rollbacks, scale = self.state.rollbacks + 1, self.state.rate_scale * LOWERED
        if rollbacks > MOST_ROLLBACKS:
            raise MelismaError(
                f"steps before {step} are not finite whatever the learning rate; look at the clips that the last lines "
                f"name, or take another seed; the last checkpoint in {self.folder} is whole"
            )
        found = first_does(lambda: latest_checkpoint(self.folder, PREFIX))
        if found is None:
            raise MelismaError(f"step {step} is not finite, and there is no checkpoint to go back to; free some disk")
        self.record = restore(self.state, first_does(lambda: load_checkpoint(found)), found)
        self.state.rollbacks, self.state.rate_scale = rollbacks, scale
        view.note(step, f"back to {found.name} with {scale:g} of the learning rate")

    def run(self) -> None:
        """Train to the end and save. Ctrl-C and SIGTERM wait for the step to end and save too.

        Raises:
            MelismaError: interrupted, the end could not be saved, or see :meth:`train_step`.
        """
        window: list[dict[str, float]] = []
        with View(self.folder, self.recipe.steps, rank() != 0, self.board) as view, self.interruptions():
            self._begin(view)
            while self.state.step < self.recipe.steps and not self.stopping and not self.record.stopped:
                window.append(self.train_step(view))
                step = self.state.step
                view.step(step, window[-1].get("loss"))
                if step % self.recipe.log_every == 0:
                    view.row(
                        step, window, self.recipe.optimizer.rate(step - 1, self.recipe.steps) * self.state.rate_scale
                    )
                    window = []
                if self._is_due(step, self.recipe.validation.every):
                    self.validate(view)
                if self._is_due(step, self.recipe.save_every) or self.record.best_step == step:
                    self.save(view)
            self._end(view)

    def _begin(self, view: View) -> None:
        if rank() == 0:
            sweep(self.folder)
            save_config(self.folder, recipe_mapping(self.recipe), "recipe.json")
        view.forget_after(self.state.step)
        for note in self.notes:
            view.note(self.state.step, note)
        if self.saved < 0:
            self.validate(view)
            self.save(view)
        elif self.state.step < self.recipe.steps:
            view.note(self.state.step, f"going on after step {self.state.step}")
        if view.board is not None and self.validation is not None and (self.folder / f"{PREFIX}_0.pth").is_file():
            view.board.begin(self._sung_at_the_start())

    def _sung_at_the_start(self) -> list[Piece]:
        assert self.validation is not None
        path = self.folder / f"{PREFIX}_0.pth"
        now = snapshot(self.state.average)
        self.state.average.load_state_dict(load_checkpoint(path)["average"])
        _, pieces = self.validation(self.state.average)
        self.state.average.load_state_dict(now)
        return pieces

    def _is_due(self, step: int, every: int) -> bool:
        return every > 0 and (step % every == 0 or step == self.recipe.steps) and self.state.bad == 0

    def _end(self, view: View) -> None:
        failure = self.save(view)
        if failure is not None:
            raise failure
        step, settings = self.state.step, self.recipe.validation
        best = f"; the best by {settings.metric} is {PREFIX}_{self.record.best_step}.pth" if self.record.best else ""
        if self.record.stopped:
            view.note(step, f"stopped after step {step}: {settings.patience} validations in a row were worse{best}")
        elif step < self.recipe.steps:
            raise MelismaError(f"interrupted after step {step}, which is saved; the same command goes on from it")
        else:
            view.note(step, f"trained {step} steps{best}")

    def validate(self, view: View) -> None:
        """Sing the held-out pieces on the first process; all learn whether the run should stop."""

        def work() -> Record:
            if self.validation is None:
                return self.record
            metrics, pieces = self.validation(self.state.average)
            if all(np.isfinite(value) for value in metrics.values()):
                self.record.add(self.state.step, metrics, self.recipe.validation)
            rate = int(self.state.voice.generator.sample_rate)
            view.validated(self.state.step, metrics, pieces, self.record, rate, self.recipe.validation)
            return self.record

        if self.recipe.validation.every:
            self.record = first_does(work)

    def save(self, view: View) -> MelismaError | None:
        """Write ``S_<step>.pth`` by rename, once for each step, and keep the newest few and the best.

        A disk that is full costs no more than this checkpoint: the earlier ones stay, and the run goes on. The failure
        is returned.
        """

        def work() -> MelismaError | None:
            try:
                save(self.folder, self.state, self.record, self.recipe, self.facts)
            except MelismaError as error:
                view.note(self.state.step, f"warning: {error}; training goes on with the earlier checkpoints")
                return error
            return None

        if self.saved == self.state.step:
            return None
        failure = first_does(work)
        if failure is None:
            self.saved, self.state.rollbacks = self.state.step, 0
        return failure

    @contextmanager
    def interruptions(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into ``asked`` while a run is going: half a step must not be saved.

        A second Ctrl-C does not wait.
        """

        def ask(number: int, _: object) -> None:
            if self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def rows_of(names: list[str], known: Mapping[str, int]) -> dict[str, int]:
    """The row of each speaker in the table: those of a checkpoint keep theirs, new ones come behind.

    Where the checkpoint knows one speaker and the data one other, they are the same: a name was not given.
    """
    if len(known) == 1 and len(names) == 1:
        return dict(zip(names, known.values(), strict=True))
    rows = dict(known)
    for name in names:
        rows.setdefault(name, 1 + max([-1, *rows.values()]))
    return rows


def _latest(folder: Path, recipe: Recipe) -> Path | None:
    """The newest checkpoint in a folder, if there is any; it must be of this recipe."""
    path = latest_checkpoint(folder, PREFIX)
    if path is None:
        return None
    saved = load_checkpoint(path).get("recipe")
    if saved is None:
        raise MelismaError(f"{path}: a checkpoint of an older trainer; train in another folder")
    differs = differences(saved, recipe)
    if differs:
        more = f"; and {len(differs) - 6} more" if len(differs) > 6 else ""
        raise MelismaError(
            f"{path}: a checkpoint of another recipe (its value != yours): {'; '.join(differs[:6])}{more}; "
            "train in another folder, or set these back"
        )
    return path

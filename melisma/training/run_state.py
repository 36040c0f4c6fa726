"""A run on the disk: one checkpoint holds all that it carries on, so that it goes on as if it had never stopped."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from melisma.errors import MelismaError
from melisma.training.checkpoint import checkpoint_path, find_checkpoints, save_checkpoint
from melisma.training.recipe import Recipe, recipe_mapping
from melisma.training.step import State
from melisma.training.validation import Record

# Checkpoints are S_<step>.pth.
PREFIX = "S"
COUNTS = ("step", "rate_scale", "warmup", "bad", "rollbacks")


@dataclass(frozen=True)
class Facts:
    """What a run knows of its data.

    Attributes:
        speakers: row of each in the speaker table.
        f0_range_hz: lowest and highest F0, None without any.
        data_provenance: licences and credits, as the datasets state them.
    """

    speakers: dict[str, int]
    f0_range_hz: tuple[float, float] | None
    data_provenance: str


def save(folder: Path, state: State, record: Record, recipe: Recipe, facts: Facts) -> None:
    """Write ``S_<step>.pth`` by rename and take away what is neither new, nor the best, nor the beginning.

    Raises:
        MelismaError: it could not be written; every earlier checkpoint is as it was.
    """
    content = {
        "recipe": recipe_mapping(recipe),
        **asdict(facts),
        "voice": state.voice.state_dict(),
        "average": state.average.state_dict(),
        "judges": state.judges.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "judge_optimizer": None if state.judge_optimizer is None else state.judge_optimizer.state_dict(),
        "record": asdict(record),
        **{name: getattr(state, name) for name in COUNTS},
    }
    save_checkpoint(checkpoint_path(folder, PREFIX, state.step), content)
    prune(folder, recipe.keep, {record.best_step, 0})


def prune(folder: Path, keep: int, precious: set[int]) -> None:
    """Take away all but the ``keep`` newest checkpoints and those of precious steps."""
    for step, path in find_checkpoints(folder, PREFIX)[:-keep]:
        if step not in precious:
            path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Take away what a run that was killed while it saved left half-written; only for who holds the folder's lock."""
    for path in folder.glob(f".{PREFIX}_*.part.pth"):
        path.unlink(missing_ok=True)


def restore(state: State, content: Mapping[str, Any], path: Path) -> Record:
    """Put a checkpoint's content into a run and give what its validations had found.

    Raises:
        MelismaError: it is not of this recipe's model.
    """
    with fitting(path):
        state.voice.load_state_dict(content["voice"])
        state.average.load_state_dict(content["average"])
        state.judges.load_state_dict(content["judges"])
        state.optimizer.load_state_dict(content["optimizer"])
        if state.judge_optimizer is not None:
            state.judge_optimizer.load_state_dict(content["judge_optimizer"])
        for name in COUNTS:
            setattr(state, name, content[name])
        return Record(**content["record"])


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state."""
    return {name: value.clone() for name, value in module.state_dict().items()}


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Say in one line that a checkpoint is not one of this recipe's model."""
    try:
        yield
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise MelismaError(
            f"{path}: not a checkpoint of this recipe's generator and discriminators; train in another folder, or with "
            "the settings of recipe.json beside it"
        ) from error

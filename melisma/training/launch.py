"""Start a run: read the recipe, fill in what the starting checkpoint knows, join the processes, keep others out."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from melisma.errors import MelismaError
from melisma.files import locked
from melisma.training.processes import choose_device, first_does, rank, together
from melisma.training.recipe import Recipe, read_recipe, recipe_from
from melisma.training.start import read_start
from melisma.training.trainer import Trainer

RECIPE = "recipe.json"


def train(recipe_path: Path, folder: Path, overrides: Sequence[str] = (), board: bool = False) -> None:
    """Train a recipe into a folder; a run found there goes on. Started by ``torchrun``, processes work together.

    Args:
        recipe_path: a YAML file.
        folder: where checkpoints and the log go.
        overrides: ``dotted.key=value`` that go before the file's settings.
        board: whether TensorBoard's files are written too.

    Raises:
        MelismaError: one line: what is wrong with the recipe, the data or the folder; interrupted.
    """
    recipe = read_recipe(recipe_path, overrides)
    with together(choose_device(recipe.device)), locked(folder) if rank() == 0 else nullcontext():
        recipe = first_does(lambda: complete(recipe, folder))
        Trainer(recipe, folder, board).run()


def complete(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its generator: that of the run in the folder, or of the checkpoint to begin with."""
    if recipe.generator is not None:
        return recipe
    path = folder / RECIPE
    if path.is_file():
        try:
            saved = recipe_from(json.loads(path.read_text(encoding="utf-8")), str(path))
        except ValueError as error:
            raise MelismaError(f"{path}: damaged ({error}); copy it again, or train in another folder") from error
        return dataclasses.replace(recipe, generator=saved.generator)
    assert recipe.start_from is not None  # a recipe without either is refused when it is read
    return dataclasses.replace(recipe, generator=read_start(recipe.start_from).config)


def split_overrides(arguments: Sequence[str], own: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Part the recipe's settings from a command's own arguments.

    ``--key value`` and ``--key=value`` of keys that are not the command's ``own`` become ``key=value``.

    Returns:
        the command's arguments, and the settings.

    Raises:
        MelismaError: a key without a value.
    """
    rest: list[str] = []
    settings: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or f"--{key}" in own:
            rest.append(argument)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise MelismaError(f"--{key}: give a value: --{key} VALUE")
            value = waiting.pop(0)
        settings.append(f"{key}={value}")
    return rest, settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of ``python -m melisma.training``, for ``torchrun``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m melisma.training",
        description="Train a recipe into a folder. Settings of the recipe: --key VALUE, --part.key VALUE.",
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path, help="where checkpoints and the log go")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's files too")
    try:
        rest, overrides = split_overrides(
            list(sys.argv[1:] if arguments is None else arguments), ("--tensorboard", "--help")
        )
        given = parser.parse_args(rest)
        train(given.recipe, given.folder, overrides, given.tensorboard)
    except MelismaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

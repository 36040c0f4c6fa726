"""Read a training recipe and run it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import yaml

from melisma.config import from_mapping
from melisma.errors import MelismaError
from melisma.training.trainer import Recipe, Trainer


def read_recipe(path: Path) -> Recipe:
    """Read a YAML recipe; unknown keys and wrong types are errors that name them."""
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MelismaError(f"{path}: no such recipe") from error
    except OSError as error:
        raise MelismaError(f"{path}: cannot be read: {error.strerror}; give a .yaml file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MelismaError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(mapping, dict):
        raise MelismaError(f"{path}: a recipe is a mapping of settings")
    return from_mapping(Recipe, mapping, str(path))


def train(recipe_path: Path, folder: Path) -> None:
    """Train a recipe into a folder; a run found there goes on. Started by ``torchrun``, processes work together."""
    recipe = read_recipe(recipe_path)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["WORLD_SIZE"])))
    try:
        Trainer(recipe, folder).run()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of ``python -m melisma.training``; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path, help="where checkpoints and the log go")
    given = parser.parse_args(arguments)
    try:
        train(given.recipe, given.folder)
    except MelismaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

"""A small dataset of made voices, and recipes that train on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import adversarial, mapping, write_dataset

from melisma.training.recipe import Recipe, recipe_from


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "made")


@pytest.fixture
def recipe(dataset: Path) -> Recipe:
    return recipe_from(mapping(dataset), "recipe")


@pytest.fixture
def gan(dataset: Path) -> Recipe:
    return recipe_from(adversarial(dataset), "recipe")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

"""Kernels are tested, not the code that stands in for them until they are compiled."""

import pytest

from melisma.inference.compiling import compile_all


@pytest.fixture(scope="session", autouse=True)
def _compiled_kernels() -> None:
    compile_all()

"""Tensors that follow from settings alone: computed once, and kept for all who need them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")


def constant(most: int) -> Callable[[Callable[Arguments, Made]], Callable[Arguments, Made]]:
    """Keep the last ``most`` results of a function, whoever asks for them first.

    What is made within :func:`torch.inference_mode` could not be trained with, and what is made while a graph is traced
    (:func:`torch.export.export`) has no values: so the function runs outside of both.
    """

    def decorate(function: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
        @lru_cache(maxsize=most)
        @wraps(function)
        def kept(*args: Any, **kwargs: Any) -> Made:
            with torch.inference_mode(False), _no_tracing():
                return cast(Callable[..., Made], function)(*args, **kwargs)

        return cast(Callable[Arguments, Made], kept)

    return decorate


def _no_tracing() -> AbstractContextManager[Any]:
    """Where torch has no way to do so, a graph is traced after the model has run once."""
    from torch.utils import _python_dispatch

    leave = getattr(_python_dispatch, "_disable_current_modes", None)
    return nullcontext() if leave is None else leave()

"""The processes that train together: who is first, what one of them alone does for all."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from melisma.errors import MelismaError

T = TypeVar("T")


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first_does(work: Callable[[], T]) -> T:
    """Let the first process work and tell the others what came of it; its ``MelismaError`` is raised on all."""
    if world_size() == 1:
        return work()
    told: list[tuple[T | None, str | None]] = [(None, None)]
    if rank() == 0:
        try:
            told = [(work(), None)]
        except MelismaError as error:
            told = [(None, str(error))]
    dist.broadcast_object_list(told)
    result, complaint = told[0]
    if complaint is not None:
        raise MelismaError(complaint)
    return result  # type: ignore[return-value]


def choose_device(wanted: str) -> torch.device:
    """The device of this process: its own card under ``torchrun``.

    Raises:
        MelismaError: CUDA was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MelismaError("device is cuda, and torch finds no CUDA device here; use device auto or cpu")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Join the processes that ``torchrun`` started, over nccl on cards and gloo on processors."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    try:
        yield
    finally:
        dist.destroy_process_group()

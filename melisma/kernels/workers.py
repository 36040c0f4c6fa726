"""Tasks side by side, each on one core.

Torch spreads a single operation over the cores and waits for all of them at its end; with operations of a tenth of a
millisecond that waiting is felt. Here whole stretches of a network run side by side instead, and inside of a worker
torch keeps to one thread.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from melisma.kernels import gang

_lock = threading.Lock()
_count: ContextVar[int] = ContextVar("count", default=0)  # of tasks at once, within ours()
_pools: dict[int, ThreadPoolExecutor] = {}


def _forget() -> None:
    _pools.clear()


# A child process has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _pool(workers: int) -> ThreadPoolExecutor:
    with _lock:
        if workers not in _pools:
            ready, here = threading.Barrier(workers + 1), torch.get_num_threads()

            def start() -> None:
                torch.get_num_threads()  # a thread's first question sets its number to that of all; then it may differ
                torch.set_num_threads(1)
                ready.wait()

            pool = ThreadPoolExecutor(workers, thread_name_prefix="melisma", initializer=start)
            for _ in range(workers):
                pool.submit(lambda: None)
            ready.wait()
            # The number counts for the thread that sets it, but new threads take the one that was set last.
            torch.set_num_threads(here)
            _pools[workers] = pool
        return _pools[workers]


@contextmanager
def ours() -> Iterator[None]:
    """Within this block only tasks go side by side; what torch computes in the calling thread keeps to that thread.

    Torch's own threads stay awake for milliseconds after an operation, on the very cores where the tasks are to run.
    """
    count = torch.get_num_threads()
    if count == 1 or _count.get():
        yield
        return
    token = _count.set(count)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
        _count.reset(token)


def count() -> int:
    """How many tasks may run at once."""
    return _count.get() or torch.get_num_threads()


def _in_mode(task: Callable[[], None], inference: bool, gradients: bool) -> None:
    _count.set(1)
    with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
        task()


class _Line:
    """Tasks in their order, of which every worker takes the first one that may begin."""

    def __init__(self, tasks: Sequence[Callable[[], None]], after: Sequence[Collection[int]]) -> None:
        self._tasks, self._open = tasks, list(range(len(tasks)))
        self._awaited = [set(numbers) for numbers in after]
        self._ended = threading.Condition()
        self.errors: list[BaseException] = []

    def work(self) -> None:
        """Do tasks until none is left."""
        while (number := self._next()) is not None:
            try:
                self._tasks[number]()
            except BaseException as error:
                self.errors.append(error)
            with self._ended:
                for awaited in self._awaited:
                    awaited.discard(number)
                self._ended.notify_all()

    def _next(self) -> int | None:
        with self._ended:
            while self._open:
                for place, number in enumerate(self._open):
                    if not self._awaited[number]:
                        return self._open.pop(place)
                self._ended.wait()
        return None


def run(tasks: Sequence[Callable[[], None]], after: Sequence[Collection[int]] | None = None) -> None:
    """Run tasks on as many threads as torch may use; the first error is raised when all have ended.

    Args:
        tasks: what is to be done.
        after: which tasks must have ended before each of them begins, by their places: only such as come before it.
            None where no task depends on any other.
    """
    workers = min(count(), len(tasks))
    if workers < 2:
        for task in tasks:
            task()
        return
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    line = _Line(tasks, after or [()] * len(tasks))
    # All end before an error is raised: they write into the caller's arrays.
    here = [copy_context() for _ in range(workers)]  # what is decided where the tasks come from holds for them
    wait([_pool(count()).submit(one.run, _in_mode, line.work, inference, gradients) for one in here])
    if line.errors:
        raise line.errors[0]


def together(tasks: Sequence[Callable[[], None]]) -> None:
    """Run kernels that may wait for each other, at most as many as torch has threads: all of them at the same time.

    The first one runs in the calling thread.
    """
    if len(tasks) < 2:
        for task in tasks:
            task()
        return
    with ours():
        gang.run(tasks)


def edges(length: int, least: int) -> np.ndarray:
    """Where even parts of ``length`` begin and end, ``(parts + 1,)``: one a worker, of at least ``least`` each."""
    parts = max(1, min(count(), length // least))
    return np.array([length * part // parts for part in range(parts + 1)])


def meeting(kernel: Callable[..., None], parts: np.ndarray, *arguments: Any) -> None:
    """Run a kernel whose workers meet on a counter: ``kernel(worker, parts, counter, *arguments)`` for every part.

    ``parts`` are edges as of :func:`edges`.
    """
    counter = np.zeros(1, np.int64)
    together([partial(kernel, worker, parts, counter, *arguments) for worker in range(len(parts) - 1)])


def stretches(length: int, least: int, most: int) -> list[tuple[int, int]]:
    """Cut ``length`` into even parts of at most ``most``, and enough for every worker unless below ``least``."""
    if length == 0:
        return []
    workers = count()
    parts = max(-(-length // most), min(workers, length // least), 1)
    if parts > workers:
        parts = -(-parts // workers) * workers  # nobody waits in the last round
    cuts = [length * part // parts for part in range(parts + 1)]
    return [(first, stop) for first, stop in pairwise(cuts) if stop > first]

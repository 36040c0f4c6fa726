"""Threads that do their parts of a kernel together, and wait awake for a moment before they sleep.

Two seconds of singing take melisma-44k a dozen kernels of a third of a millisecond. To wake a sleeping thread and to
hand it the GIL takes a tenth: so a helper that has done its part looks out for the next one, without the GIL, before
it goes to sleep, and whoever waits for it does the same.
"""

import atexit
import os
import threading
from collections.abc import Callable, Sequence

import numpy as np

from melisma.kernels import numba_part

_waiting = numba_part("waiting_numba")

_PATIENCE = 2_000_000  # nanoseconds of looking at what another thread changes, before sleeping
_HEAD_START = 60000  # looks without a pause, some ten microseconds: until a helper is in compiled code

Task = Callable[[], None]


class _Bell:
    """What one thread rings and another one waits for.

    Who waits needs the GIL when it has rung, and a thread that finds the GIL taken is put to sleep, for longer than it
    would have had to wait. So bells are rung in compiled code, which then stays away from it for as long.
    """

    def __init__(self) -> None:
        self._rung = np.zeros(1, np.int64)
        self._asleep = False
        self._wake = threading.Semaphore(0)

    def ring(self) -> None:
        """Once more; time for whoever waits to begin what comes next."""
        _waiting().ring(self._rung, 0 if self._asleep else _HEAD_START)
        self._rouse()

    def wait(self, heard: int) -> None:
        """Until it has been rung more often than ``heard``."""
        while self._rung[0] <= heard:
            if _waiting().changed(self._rung, heard, _PATIENCE):
                return
            self._asleep = True
            # It may have been rung in between; then nobody would wake us.
            if self._rung[0] <= heard:
                self._wake.acquire()
            self._asleep = False

    def _rouse(self) -> None:
        if self._asleep:  # whoever is awake already goes on as if nothing had been
            self._wake.release()


class _Helper:
    """A thread that does what it is given, one task after the other."""

    def __init__(self) -> None:
        self._given, self._done = _Bell(), _Bell()
        self._task: Task | None = None
        self._error: BaseException | None = None
        self._count = 0
        self._thread = threading.Thread(target=self._work, name="melisma-helper", daemon=True)
        self._thread.start()

    def give(self, task: Task) -> None:
        """Begin a task, after one that an interrupt may have left behind."""
        self.join()
        self._task = task
        self._count += 1
        self._given.ring()

    def join(self) -> BaseException | None:
        """Wait for the end of what was given; the error that it raised."""
        self._done.wait(self._count - 1)
        error, self._error = self._error, None
        return error

    def leave(self) -> None:
        """End the thread."""
        self.join()
        self._given.ring()
        self._thread.join()

    def _work(self) -> None:
        heard = 0
        while True:
            self._given.wait(heard)
            heard += 1
            task, self._task = self._task, None
            if task is None:  # the process ends
                return
            try:
                task()
            except BaseException as error:
                self._error = error
            del task  # it holds the arrays of a clip
            self._done.ring()


_one_at_a_time = threading.Lock()
_helpers: list[_Helper] = []


def _forget() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.Lock()
    _helpers.clear()


@atexit.register
def _leave() -> None:
    """A thread that comes back from compiled code while Python is being taken down aborts the process."""
    while _helpers:
        _helpers.pop().leave()


# A child process has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run(tasks: Sequence[Task]) -> None:
    """Run tasks at the same time, each on a thread of its own, the first one in the calling thread.

    All have ended before the first error is raised. Tasks are compiled code that needs no GIL: nothing of torch is set
    for their threads.
    """
    with _one_at_a_time:  # two half-started gangs would wait for each other's threads
        while len(_helpers) < len(tasks) - 1:
            _helpers.append(_Helper())
        active = _helpers[: len(tasks) - 1]
        for helper, task in zip(active, tasks[1:], strict=True):
            helper.give(task)
        try:
            tasks[0]()
        finally:
            errors = [helper.join() for helper in active]
    for error in errors:
        if error is not None:
            raise error

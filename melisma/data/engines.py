"""Who runs the jobs of preparing: processes of this machine, or Ray on one machine or many.

An engine is ``run(jobs, settings, folder, workers) -> outcomes`` in any order; the table names them. Parts lie in
``folder``, which with Ray every machine must see.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path

from melisma.data.parts import Job, Outcome, PrepareSettings, run_job
from melisma.errors import MelismaError

Numbered = Mapping[int, Job]
Engine = Callable[[Numbered, PrepareSettings, Path, int], Iterator[Outcome]]

CRASHED = "the process that read it died (a damaged file, or too little memory)"


def here(jobs: Numbered, settings: PrepareSettings, folder: Path, workers: int) -> Iterator[Outcome]:
    """One after the other in this process, whatever ``workers`` says."""
    del workers
    for number, job in jobs.items():
        yield run_job(number, job, settings, folder)


def local(jobs: Numbered, settings: PrepareSettings, folder: Path, workers: int) -> Iterator[Outcome]:
    """In processes of this machine. A job that kills its process is tried once more alone, then given up."""
    left = dict(jobs)
    try:
        for outcome in _pooled(left, settings, folder, workers):
            del left[outcome.job]
            yield outcome
        return
    except BrokenProcessPool:
        pass
    # The dead process took the whole pool along; which job was at fault shows when each has a process of its own.
    for number, job in left.items():
        try:
            yield from _pooled({number: job}, settings, folder, 1)
        except BrokenProcessPool:
            yield Outcome(number, reason=CRASHED)


def _pooled(jobs: Numbered, settings: PrepareSettings, folder: Path, workers: int) -> Iterator[Outcome]:
    pool = ProcessPoolExecutor(min(workers, len(jobs)) or 1, get_context("spawn"), _begin_worker)
    try:
        futures: list[Future[Outcome]] = [
            pool.submit(run_job, number, job, settings, folder) for number, job in jobs.items()
        ]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin_worker() -> None:
    """One thread a worker, deaf to Ctrl-C, which its parent answers; without a parent it ends."""
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def ray(jobs: Numbered, settings: PrepareSettings, folder: Path, workers: int) -> Iterator[Outcome]:
    """As tasks of Ray Data on the cluster that ``RAY_ADDRESS`` names, or on one of this machine.

    Raises:
        MelismaError: Ray is not installed.
    """
    try:
        import ray.data as ray_data
    except ImportError as error:
        raise MelismaError("--engine ray needs Ray Data; install its extra: pip install 'melisma[ray]'") from error
    target = folder.resolve()

    def run(row: dict[str, int]) -> dict[str, object]:
        import torch

        torch.set_num_threads(1)
        outcome = run_job(row["item"], jobs[row["item"]], settings, target)
        return {"job": outcome.job, "name": outcome.fingerprint, "reason": outcome.reason}

    ray_data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    blocks = min(len(jobs), 4 * workers)
    numbers = ray_data.from_items(list(jobs), override_num_blocks=max(1, blocks))
    for row in numbers.map(run, compute=ray_data.TaskPoolStrategy(size=workers)).iter_rows():
        yield Outcome(int(row["job"]), row["name"], row["reason"])


ENGINES: dict[str, Engine] = {"local": local, "ray": ray, "here": here}

"""Tasks side by side."""

import threading
import time
from functools import partial

import pytest
import torch

from melisma.kernels import workers


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_all_run_in_the_mode_of_the_caller(threads: int) -> None:
    seen: list[tuple[int, bool, int]] = []

    def task(number: int) -> None:
        seen.append((number, torch.is_inference_mode_enabled(), torch.get_num_threads()))

    with torch.inference_mode():
        workers.run([lambda number=number: task(number) for number in range(7)])  # type: ignore[misc]
    assert sorted(number for number, _, _ in seen) == list(range(7))
    assert all(mode for _, mode, _ in seen)
    assert all(inner == 1 for _, _, inner in seen)


def test_the_number_of_threads_stays(threads: int) -> None:
    workers.run([lambda: None] * 4)
    assert torch.get_num_threads() == threads
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [threads]


def test_an_error_is_raised_after_all_have_ended(threads: int) -> None:
    done: list[int] = []

    def bad() -> None:
        raise ValueError("one of them")

    with pytest.raises(ValueError, match="one of them"):
        workers.run([bad, lambda: done.append(1)])
    assert done == ([1] if threads > 1 else [])


@pytest.mark.parametrize("length", [0, 1, 511, 512, 5000, 100_000])
def test_stretches_cover_everything_once(length: int, threads: int) -> None:
    parts = workers.stretches(length, 512, 4096)
    assert [number for first, stop in parts for number in range(first, stop)] == list(range(length))
    assert max((stop - first for first, stop in parts), default=0) <= 4096
    assert len(parts) >= min(threads, length // 512)


def test_tasks_wait_for_those_that_they_need(threads: int) -> None:
    """A wave over a grid: each waits for two of the row before, and some are slow."""
    ended: set[int] = set()
    late: list[int] = []
    width, after = 5, []

    def task(number: int) -> None:
        if number % 4 == 0:
            time.sleep(0.003)
        if not set(after[number]) <= ended:
            late.append(number)
        ended.add(number)

    for number in range(8 * width):
        above = number - width
        after.append([place for place in (above, above + 1) if place >= 0 and place // width == above // width])
    workers.run([partial(task, number) for number in range(len(after))], after)
    assert not late
    assert len(ended) == 8 * width


def test_an_error_does_not_leave_those_waiting_that_come_after_it(threads: int) -> None:
    def bad() -> None:
        raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        workers.run([bad, lambda: None, lambda: None], [(), (0,), (1,)])

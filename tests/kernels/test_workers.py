"""Tasks side by side."""

import threading

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

"""Threads that do their parts of a kernel together."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("numba")

from melisma.kernels import gang, waiting_numba


def test_all_run_at_the_same_time_and_the_first_one_here() -> None:
    meeting, here = threading.Barrier(3, timeout=10.0), []

    def part() -> None:
        meeting.wait()  # nobody gets past it unless all are running
        here.append(threading.current_thread())

    gang.run([part] * 3)
    assert len(set(here)) == 3
    assert threading.current_thread() in here


def test_helpers_that_fell_asleep_wake_up() -> None:
    done: list[int] = []
    for number, pause in enumerate([0.0, 0.0, 0.05, 0.0, 0.1]):
        time.sleep(pause)  # far longer than a helper stays awake
        gang.run([lambda: None, lambda number=number: done.append(number)])  # type: ignore[misc]
    assert done == [0, 1, 2, 3, 4]


@pytest.mark.skipif(os.name != "posix", reason="this system has no clock for compiled code")
def test_patience_is_counted_by_the_clock() -> None:
    silent, rung = np.zeros(1, np.int64), np.ones(1, np.int64)
    waiting_numba.changed(rung, 0, 1)  # compiled
    for patience in (1_000_000, 20_000_000):
        began = time.perf_counter_ns()
        assert not waiting_numba.changed(silent, 0, patience)
        assert patience <= time.perf_counter_ns() - began
        began = time.perf_counter_ns()
        assert waiting_numba.changed(rung, 0, 10**10)
        assert time.perf_counter_ns() - began < 10**9


def test_slow_parts_are_waited_for() -> None:
    done: list[str] = []

    def slow() -> None:
        time.sleep(0.05)
        done.append("slow")

    gang.run([lambda: None, slow])
    assert done == ["slow"]


def test_what_an_interrupted_wait_left_behind_ends_before_the_next_task() -> None:
    done: list[str] = []

    def slow() -> None:
        time.sleep(0.05)
        done.append("slow")

    helper = gang._Helper()
    helper.give(slow)
    helper.give(lambda: done.append("next"))
    assert helper.join() is None
    assert done == ["slow", "next"]


@pytest.mark.parametrize("which", [0, 1])
def test_an_error_is_raised_after_all_have_ended_and_the_next_one_runs(which: int) -> None:
    done: list[int] = []

    def bad() -> None:
        raise ValueError("one of them")

    def good() -> None:
        time.sleep(0.02)
        done.append(1)

    with pytest.raises(ValueError, match="one of them"):
        gang.run([bad, good] if which == 0 else [good, bad])
    assert done == [1]
    gang.run([good, good])
    assert done == [1, 1, 1]


def test_many_threads_may_ask_at_once() -> None:
    counts = [0, 0, 0, 0]

    def count(place: int) -> None:
        counts[place] += 1

    def ask(first: int) -> None:
        for _ in range(300):
            gang.run([lambda: count(first), lambda: count(first + 1)])

    askers = [threading.Thread(target=ask, args=(first,)) for first in (0, 2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(timeout=60.0)
    assert counts == [300] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_has_helpers_of_its_own() -> None:
    gang.run([lambda: None, lambda: None])
    child = os.fork()
    if child == 0:
        done: list[int] = []
        gang.run([lambda: None, lambda: done.append(1)])
        os._exit(0 if done == [1] else 1)
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child waits for threads that it does not have")


def test_helpers_leave_before_python_does() -> None:
    code = "from melisma.kernels import gang; gang.run([lambda: None] * 3); helpers = gang._helpers[:]; " + (
        "gang._leave(); print([helper._thread.is_alive() for helper in helpers], gang._helpers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[False, False] []", "")

"""Freed memory is kept: the second call of the same size touches hardly any new page."""

import resource
import sys

import numpy as np
import pytest

from melisma.inference.memory import keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_large_arrays_come_back_without_page_faults() -> None:
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(5_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(5)) < 1000  # 40 MB are 9,766 pages

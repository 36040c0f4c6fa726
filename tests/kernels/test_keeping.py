"""Machine code that is kept, and that is not taken any more when another file changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

import melisma

_INNER = """
from melisma.kernels.lanes_numba import inner


@inner
def number():
    return {value}
"""
_OUTER = """
from melisma.kernels.lanes_numba import compiled
from melisma.kernels.one_numba import number


@compiled
def asked():
    return number()
"""
_ASK = """
from melisma.kernels.two_numba import asked
print(asked(), sum(asked.stats.cache_hits.values()))
"""


def test_code_that_is_part_of_other_code_counts(tmp_path: Path) -> None:
    package = tmp_path / "melisma"
    shutil.copytree(
        Path(melisma.__file__).parent / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__*")
    )
    for folder in (package, package / "kernels"):
        (folder / "__init__.py").write_text("LANES = 16\n", encoding="utf-8")
    (package / "kernels" / "two_numba.py").write_text(_OUTER, encoding="utf-8")
    # Python would take its own bytecode for that of a file as long that was changed within the same second.
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    env["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")

    def asked(value: int) -> str:
        (package / "kernels" / "one_numba.py").write_text(_INNER.format(value=value), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", _ASK], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        return done.stdout.strip() or done.stderr

    assert asked(1) == "1 0"
    assert asked(1) == "1 1", "kept"
    assert asked(2) == "2 0", "not taken any more"

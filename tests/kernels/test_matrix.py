"""Matrix products in tiles against those of numpy, and masks of which a draft missed something against torch."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from melisma.kernels.lanes_numba import compiled
from melisma.kernels.matrix_numba import WIDE, packed, product


@compiled
def _product(x, step, rows, weights, depth, bias, out, width):  # type: ignore[no-untyped-def]
    given = (weights, depth, 0)
    product((x, 0, step), rows, given, (bias, 0, 0), (out, 0, width), width // WIDE)


def _made(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, step: int, rows: int) -> np.ndarray:
    depth, columns = weights.shape
    width = -(-columns // WIDE) * WIDE
    out = np.full((rows, width), np.nan, np.float32)
    filled = np.pad(bias, (0, width - columns))
    _product(x, step, rows, packed(torch.from_numpy(weights)), depth, filled, out, width)
    return out[:, :columns]


@pytest.mark.parametrize("rows", [1, 2, 11, 12, 13, 30])
@pytest.mark.parametrize(("depth", "columns"), [(1, 1), (7, 32), (256, 40), (600, 64)])
def test_products_are_those_of_numpy(rows: int, depth: int, columns: int) -> None:
    rng = np.random.default_rng(rows + depth)
    x, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, depth), (depth, columns)))
    bias = rng.standard_normal(columns).astype(np.float32)
    expected = x.astype(np.float64) @ weights + bias
    assert np.abs(_made(x, weights, bias, depth, rows) - expected).max() <= 6e-6 * depth**0.5


def test_rows_may_overlap_as_the_windows_of_a_convolution_do() -> None:
    rng = np.random.default_rng(1)
    frames, heard, size = 20, 5, 3
    signal = rng.standard_normal((frames + size - 1, heard)).astype(np.float32)
    weights, bias = rng.standard_normal((size * heard, 32)).astype(np.float32), np.zeros(32, np.float32)
    windows = np.stack([signal[frame : frame + size].reshape(-1) for frame in range(frames)])
    np.testing.assert_allclose(_made(signal, weights, bias, heard, frames), windows @ weights, atol=2e-5)


def test_a_row_is_the_same_to_the_last_digit_in_any_piece() -> None:
    rng = np.random.default_rng(2)
    x, weights = rng.standard_normal((50, 300)).astype(np.float32), rng.standard_normal((300, 32)).astype(np.float32)
    bias = np.ones(32, np.float32)
    whole = _made(x, weights, bias, 300, 50)
    for first, stop in ((0, 17), (17, 18), (18, 50)):
        np.testing.assert_array_equal(_made(x[first:stop].copy(), weights, bias, 300, stop - first), whole[first:stop])


_AVX2 = """
import numpy as np
from test_matrix import WIDE, _made
rng = np.random.default_rng(0)
x, weights = rng.standard_normal((13, 300)).astype(np.float32), rng.standard_normal((300, 40)).astype(np.float32)
made = _made(x, weights, np.zeros(40, np.float32), 300, 13)
print(WIDE, np.abs(made - x.astype(np.float64) @ weights).max() <= 1e-4)
"""


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="another kind of processor")
def test_tiles_for_the_registers_of_avx2_make_the_same(tmp_path: Path) -> None:
    """A machine with AVX-512 compiles for one without, in a process of its own."""
    machine = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+sse4.2,+bmi,+bmi2,+f16c"}
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, **machine, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", _AVX2], env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["16", "True"], done.stderr

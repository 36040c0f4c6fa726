"""Sixteen float32 as one value: arithmetic, elementary functions, real FFTs."""

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from melisma.kernels import fft_numba
from melisma.kernels.grid import Signal, Transform, grid_of
from melisma.kernels.lanes_numba import (
    compiled,
    exponential,
    load,
    logarithm,
    one_down,
    one_up,
    sine_and_cosine,
    store,
    sum_of,
    where_less,
    whole_below,
)


@compiled
def _functions(values, out):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        v = load(values, i)
        sine, cosine = sine_and_cosine(v)
        store(out, 6 * i, logarithm(v))
        store(out, 6 * i + 1, exponential(logarithm(v)))
        store(out, 6 * i + 2, sine)
        store(out, 6 * i + 3, cosine)
        store(out, 6 * i + 4, whole_below(v))
        store(out, 6 * i + 5, where_less(v, np.float32(1.0), one_up(v), one_down(v, v)))
        out[6 * i + 5, 0] = sum_of(v)


def test_functions_are_those_of_numpy() -> None:
    values = np.exp(np.random.default_rng(0).uniform(-20, 4, (200, 16))).astype(np.float32)
    out = np.zeros((1200, 16), np.float32)
    _functions(values, out)
    log, exp, sine, cosine, floor, moved = out.reshape(200, 6, 16).transpose(1, 0, 2)
    exact = values.astype(np.float64)
    assert np.abs(log - np.log(exact)).max() < 2e-6
    assert np.abs(exp / exact - 1).max() < 3e-6
    assert np.abs(sine - np.sin(exact)).max() < 1e-5
    assert np.abs(cosine - np.cos(exact)).max() < 1e-5
    np.testing.assert_array_equal(floor, np.floor(values))
    left, right = np.roll(values, 1, axis=1), np.concatenate([values[:, 1:], values[:, -1:]], axis=1)
    np.testing.assert_array_equal(moved[:, 1:], np.where(values < 1, left, right)[:, 1:])
    np.testing.assert_allclose(moved[:, 0], exact.sum(axis=1), rtol=1e-6)


@compiled
def _spectrum(x, window, re, im, tables, out):  # type: ignore[no-untyped-def]
    twiddles, position, turn = tables
    half = re.shape[0]
    fft_numba.forward_of(x, 0, window, re, im, twiddles)
    low, high = fft_numba.ends(re, im, position)
    store(out[0], 0, low)
    store(out[0], half, high)
    for k in range(1, half // 2 + 1):
        xr, xi, yr, yi = fft_numba.split(re, im, k, position, turn)
        store(out[0], k, xr)
        store(out[1], k, xi)
        store(out[0], half - k, yr)
        store(out[1], half - k, yi)
        fft_numba.merge(re, im, k, position, turn, xr, xi, yr, yi)
    fft_numba.merge_ends(re, im, position, low, high)
    fft_numba.inverse(re, im, twiddles)
    for n in range(half):
        store(x, 2 * n, load(re, n))
        store(x, 2 * n + 1, load(im, n))


@pytest.mark.parametrize("n", [16, 32, 64, 256, 512, 2048])
def test_spectra_are_those_of_numpy_and_come_back(n: int) -> None:
    rng = np.random.default_rng(n)
    given, window = rng.standard_normal((n, 16)).astype(np.float32), rng.uniform(0.5, 1.0, n).astype(np.float32)
    x, work, out = given.copy(), np.zeros((2, n // 2, 16), np.float32), np.zeros((2, n // 2 + 1, 16), np.float32)
    tables: Any = tuple(fft_numba.tables(n))
    _spectrum(x, window, *work, tables, out)
    windowed = given * window[:, None]
    expected = np.fft.rfft(windowed.astype(np.float64), axis=0)
    assert np.abs(out[0] + 1j * out[1] - expected).max() < 1e-6 * n**0.5 * 4
    np.testing.assert_allclose(x / (n // 2), windowed, atol=2e-6)


@pytest.mark.parametrize("frames", [1, 40, 131])
def test_signals_come_out_of_their_lanes_as_they_went_in(frames: int) -> None:
    transform = Transform(24, np.ones(96, np.float32), 36, reflected=False)
    signal = Signal(transform, grid_of(frames, transform.shared_hops))
    audio = torch.arange(1.0, frames * 24 + 1)
    signal.fill(audio)
    assert signal.samples[36, 0] == 1.0
    assert not signal.samples[:36, 0].any()
    torch.testing.assert_close(signal.audio(), audio, rtol=0, atol=0)

"""Convolutions with fewer multiplications against those that take all of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from melisma.kernels import winograd
from melisma.kernels.winograd_numba import ALL, Filtering

KERNELS = [3, 5, 7, 9, 11, 13]
# Largest error over the output's standard deviation: of a plain sum 1e-6, see the kernel's words on points.
FAST_ERROR, EXACT_ERROR = 5e-5, 5e-6


def drawn(time: int, inputs: int, outputs: int, kernel: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples ``(time, inputs)``, weights, bias and what the result is added to."""
    generator = torch.Generator().manual_seed(time + kernel)
    x = torch.randn(time, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, kernel, generator=generator) / (inputs * kernel) ** 0.5
    return x, weight, torch.randn(outputs, generator=generator), torch.randn(time, outputs, generator=generator)


def plain(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] - 1) // 2
    doubles = (values.double() for values in (weight, bias))
    return torch.nn.functional.conv1d(x.double().t()[None], *doubles, padding=padding, dilation=dilation)[0].t()


@pytest.mark.parametrize("filtering", ALL)
def test_the_matrices_make_a_filter_of_any_tile_and_taps(filtering: Filtering) -> None:
    rng = np.random.default_rng(0)
    outwards, weights, inwards = filtering.matrices()
    x, w = rng.standard_normal(filtering.products), rng.standard_normal(filtering.taps)
    assert filtering.products < filtering.step * filtering.taps
    np.testing.assert_allclose(outwards @ ((weights @ w) * (inwards @ x)), np.correlate(x, w), atol=1e-12)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dilation", [1, 3, 5])
def test_equals_the_plain_convolution(kernel: int, dilation: int, exact: bool) -> None:
    for time in (1, 23, 300):  # shorter than a kernel, than a tile, and of several blocks with a rest
        x, weight, bias, base = drawn(time, 64, 32, kernel)
        convolution = winograd.pack(weight, bias, dilation, exact)
        expected = plain(x, weight, bias, dilation)
        tolerance = (EXACT_ERROR if exact else FAST_ERROR) * expected.std()
        assert (convolution(x) - expected).abs().max() <= tolerance
        assert (convolution(x, base=base) - base - expected).abs().max() <= tolerance
        kept = base.clone()
        assert convolution(x, base=kept, in_place=True) is kept
        assert (kept - base - expected).abs().max() <= tolerance


@pytest.mark.parametrize("slope", [0.1, 0.0])
def test_a_slope_comes_before(slope: float) -> None:
    x, weight, bias, _ = drawn(100, 32, 32, 7)
    given = x.clone()
    expected = plain(torch.nn.functional.leaky_relu(x, slope), weight, bias, 1)
    assert (winograd.pack(weight, bias)(x, slope) - expected).abs().max() <= FAST_ERROR * expected.std()
    assert torch.equal(x, given)


def test_long_input_is_cut_into_blocks_without_a_seam() -> None:
    x, weight, bias, _ = drawn(4000, 128, 128, 11)
    expected = plain(x, weight, bias, 3)
    error = (winograd.pack(weight, bias, 3)(x) - expected).abs() / expected.std()
    assert error.max() <= FAST_ERROR
    assert error.mean() <= FAST_ERROR / 10


@pytest.mark.parametrize("shape", [(32, 32, 1), (32, 32, 4), (32, 16, 3), (48, 32, 3)])
def test_other_shapes_are_left_to_others(shape: tuple[int, int, int]) -> None:
    assert not winograd.fits(torch.zeros(shape))
    assert winograd.fits(torch.zeros(32, 64, 3))

"""Convolutions with fewer multiplications against those that take all of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from melisma.kernels import winograd
from melisma.kernels.winograd_numba import ALL, Filtering, filtering

KERNELS = [3, 5, 7, 9, 11, 13]
# Largest error over the output's standard deviation: of a plain sum 1e-6, see the kernel's words on points.
ERRORS: dict[winograd.Rounding, float] = {"exact": 5e-6, "single": 5e-5, "half": 2e-2}


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


@pytest.mark.parametrize("way", ALL)
def test_the_matrices_make_a_filter_of_any_tile_and_taps(way: Filtering) -> None:
    rng = np.random.default_rng(0)
    outwards, weights, inwards = way.matrices()
    x, w = rng.standard_normal(way.products), rng.standard_normal(way.taps)
    assert way.products < way.step * way.taps
    np.testing.assert_allclose(outwards @ ((weights @ w) * (inwards @ x)), np.correlate(x, w), atol=1e-9)


@pytest.mark.parametrize("rounding", ERRORS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dilation", [1, 3, 5])
def test_equals_the_plain_convolution(kernel: int, dilation: int, rounding: winograd.Rounding) -> None:
    for time in (1, 23, 300):  # shorter than a kernel, than a tile, and of several blocks with a rest
        x, weight, bias, base = drawn(time, 64, 32, kernel)
        convolution = winograd.pack(weight, bias, dilation, rounding)
        expected = plain(x, weight, bias, dilation)
        tolerance = ERRORS[rounding] * expected.std()
        assert (convolution(x) - expected).abs().max() <= tolerance
        assert (convolution(x, base=base) - base - expected).abs().max() <= tolerance
        kept = base.clone()
        assert convolution(x, base=kept, in_place=True) is kept
        assert (kept - base - expected).abs().max() <= tolerance


@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (16, 48), (48, 16), (32, 16), (16, 32)])
@pytest.mark.parametrize("kernel", [3, 11])
def test_channels_that_fill_no_wide_panel(kernel: int, inputs: int, outputs: int) -> None:
    for time in (5, 700):
        x, weight, bias, base = drawn(time, inputs, outputs, kernel)
        expected = plain(x, weight, bias, 3) + base
        assert (winograd.pack(weight, bias, 3)(x, base=base) - expected).abs().max() <= ERRORS["single"]


@pytest.mark.parametrize("time", [1, 29, 30, 31, 59, 60, 61, 62, 64, 66, 90, 200])
@pytest.mark.parametrize("dilation", [1, 4])
def test_the_ends_of_a_clip_fall_anywhere_in_a_tile(time: int, dilation: int) -> None:
    x, weight, bias, base = drawn(time, 32, 32, 7)
    expected = plain(x, weight, bias, dilation) + base
    assert (winograd.pack(weight, bias, dilation)(x, base=base) - expected).abs().max() <= ERRORS["single"]
    reach = 3 * dilation
    if time <= 2 * reach:
        return
    for cut in ((True, True), (True, False), (False, True)):
        kept = slice(reach * cut[0], time - reach * cut[1])
        made = winograd.pack(weight, bias, dilation)(x, base=base[kept], cut=cut)
        assert (made - expected[kept]).abs().max() <= ERRORS["single"]


@pytest.mark.parametrize("slope", [0.1, 0.0])
def test_a_slope_comes_before(slope: float) -> None:
    x, weight, bias, _ = drawn(100, 32, 32, 7)
    given = x.clone()
    expected = plain(torch.nn.functional.leaky_relu(x, slope), weight, bias, 1)
    assert (winograd.pack(weight, bias)(x, slope) - expected).abs().max() <= ERRORS["single"] * expected.std()
    assert torch.equal(x, given)


def test_long_input_is_cut_into_blocks_without_a_seam() -> None:
    x, weight, bias, _ = drawn(4000, 128, 128, 11)
    expected = plain(x, weight, bias, 3)
    error = (winograd.pack(weight, bias, 3)(x) - expected).abs() / expected.std()
    assert error.max() <= ERRORS["single"]
    assert error.mean() <= ERRORS["single"] / 10


@pytest.mark.parametrize("kernel", KERNELS)
def test_coarse_tiles_round_less_than_bfloat16(kernel: int) -> None:
    x, weight, bias, _ = drawn(2000, 64, 64, kernel)
    expected = plain(x, weight, bias, 1)
    rounded = plain(x.bfloat16().float(), weight.bfloat16().float(), bias, 1)
    error = (winograd.pack(weight, bias, rounding="half")(x) - expected).square().mean()
    assert error <= 0.1 * (rounded - expected).square().mean()


def test_fewer_multiplications_the_more_may_be_rounded() -> None:
    for kernel in (3, 7, 11):
        ways = [filtering(kernel, rounding) for rounding in ("half", "single", "exact")]
        costs = [way.products / way.step * -(-kernel // way.taps) for way in ways]
        assert costs == sorted(costs)
        assert costs[0] < costs[-1]


@pytest.mark.parametrize("shape", [(32, 32, 1), (32, 32, 4), (32, 8, 3), (40, 32, 3)])
def test_other_shapes_are_left_to_others(shape: tuple[int, int, int]) -> None:
    assert not winograd.fits(torch.zeros(shape))
    assert winograd.fits(torch.zeros(32, 64, 3))

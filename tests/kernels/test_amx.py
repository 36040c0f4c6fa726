"""Convolutions in tiles of bfloat16 against plain ones of the same rounded numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.kernels import amx, choice

pytestmark = pytest.mark.skipif(not choice.tiles().fast, reason=choice.tiles().why)

KERNELS = [1, 3, 7, 11]
EXACT = 1e-5  # of products of bfloat16 that are added up in float32


def drawn(time: int, inputs: int, outputs: int, kernel: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples ``(time, inputs)``, weights, bias and what the result is added to."""
    generator = torch.Generator().manual_seed(time + kernel)
    x = torch.randn(time, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, kernel, generator=generator) / (inputs * kernel) ** 0.5
    return x, weight, torch.randn(outputs, generator=generator), torch.randn(time, outputs, generator=generator)


def rounded(x: Tensor, weight: Tensor, bias: Tensor, dilation: int, slope: float = 1.0) -> Tensor:
    """The same of rounded numbers, exact from there on."""
    padding = dilation * (weight.shape[-1] - 1) // 2
    halves = [values.bfloat16().double() for values in (F.leaky_relu(x, slope), weight)]
    return F.conv1d(halves[0].t()[None], halves[1], bias.double(), padding=padding, dilation=dilation)[0].t()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (48, 16), (64, 32), (32, 80)])
def test_equals_the_plain_convolution_of_rounded_numbers(kernel: int, dilation: int, inputs: int, outputs: int) -> None:
    for time in (1, 23, 64, 300):  # shorter than a kernel, than a tile, as four tiles, and with a rest
        x, weight, bias, base = drawn(time, inputs, outputs, kernel)
        convolution = amx.pack(weight, bias, dilation)
        expected = rounded(x, weight, bias, dilation)
        assert (convolution(x) - expected).abs().max() <= EXACT
        assert (convolution(x, base=base) - base - expected).abs().max() <= EXACT
        kept = base.clone()
        assert convolution(x, base=kept, in_place=True) is kept
        assert (kept - base - expected).abs().max() <= EXACT


@pytest.mark.parametrize("inputs", [16, 64])
def test_kernels_of_even_size_filter_what_is_cut_at_both_ends(inputs: int) -> None:
    x, weight, *_ = drawn(70, inputs, 32, 2)
    made = amx.pack(weight, None)(x, cut=(True, True))
    expected = F.conv1d(x.bfloat16().double().t()[None], weight.bfloat16().double())[0].t()
    assert made.shape == expected.shape
    assert (made - expected).abs().max() <= EXACT


@pytest.mark.parametrize("channels", [16, 32])
@pytest.mark.parametrize("dilation", [1, 4])
def test_a_piece_is_what_it_is_in_the_whole(channels: int, dilation: int) -> None:
    """To the last bit, wherever a tile begins: streams and pieces of a long clip are joined from such."""
    x, weight, bias, base = drawn(200, channels, channels, 7)
    first, second = amx.pack(weight, bias, dilation), amx.pack(weight.flip(2), bias, 1)
    whole, reach = first(x, 0.1), first.reach
    both, far = amx.in_turn((first, second), (0.1, 0.1), x, base, False, (False, False)), reach + second.reach
    for begin, end in ((0, 90), (37, 160), (61, 200), (90, 107)):
        cut = (begin > 0, end < 200)
        kept = slice(begin - reach * cut[0], end + reach * cut[1])
        assert torch.equal(first(x[kept].contiguous(), 0.1, cut=cut), whole[begin:end])
        kept = slice(begin - far * cut[0], end + far * cut[1])
        made = amx.in_turn((first, second), (0.1, 0.1), x[kept], base[begin:end].clone(), True, cut)
        assert torch.equal(made, both[begin:end])


@pytest.mark.parametrize("channels", [16, 64])
def test_two_in_turn_are_one_after_the_other(channels: int) -> None:
    x, weight, bias, base = drawn(150, channels, channels, 3)
    first, second = amx.pack(weight, bias, 3), amx.pack(weight.flip(0), bias, 1)
    made = amx.in_turn((first, second), (0.1, 0.2), x, base, False, (False, False))
    assert torch.equal(made, second(first(x, 0.1), 0.2, base))


@pytest.mark.parametrize("slope", [0.1, 0.0])
def test_a_slope_comes_before(slope: float) -> None:
    x, weight, bias, _ = drawn(100, 32, 32, 7)
    given = x.clone()
    made = amx.pack(weight, bias)(x, slope)
    assert (made - rounded(x, weight, bias, 1, slope)).abs().max() <= EXACT
    assert torch.equal(x, given)


def test_onednn_finds_the_tiles_as_it_left_them() -> None:
    """It configures them once for each thread and shape; a kernel that left them otherwise would end the process."""
    left, right = torch.randn(64, 64).bfloat16(), torch.randn(64, 64).bfloat16()
    expected = left @ right
    x, weight, bias, _ = drawn(100, 32, 32, 7)
    convolution = amx.pack(weight, bias)
    for _ in range(3):
        convolution(x)
        assert torch.equal(left @ right, expected)


@pytest.mark.parametrize("shape", [(32, 8, 3), (40, 32, 3)])
def test_other_shapes_are_left_to_others(shape: tuple[int, int, int]) -> None:
    assert not amx.fits(torch.zeros(shape))
    assert amx.fits(torch.zeros(48, 16, 3))

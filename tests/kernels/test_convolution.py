"""Packed convolutions against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from melisma.kernels import choice
from melisma.kernels.convolution import pack, pack_short, polyphase

pytestmark = pytest.mark.skipif(not choice.convolutions().fast, reason=choice.convolutions().why)


@pytest.mark.parametrize("longest_sum", [None, 40])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (7, 3), (11, 5)])
@pytest.mark.parametrize("time", [1, 40])
def test_equals_the_plain_convolution(kernel: int, dilation: int, time: int, longest_sum: int | None) -> None:
    torch.manual_seed(kernel)
    weight, bias, x = torch.randn(6, 16, kernel), torch.randn(6), torch.randn(1, 16, time)
    expected = F.conv1d(x, weight, bias, padding=dilation * (kernel - 1) // 2, dilation=dilation)[0].t()
    packed = pack(weight, bias, torch.float32, dilation, longest_sum=longest_sum)
    assert len(packed.weights) == (1 if longest_sum is None else min(kernel, -(-16 * kernel // longest_sum)))
    line = x[0].t().contiguous()
    torch.testing.assert_close(packed(line), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed(line, slope=0.1), F.leaky_relu(expected, 0.1), rtol=1e-4, atol=1e-4)
    total = torch.randn(time, 6)
    kept = total.clone()
    torch.testing.assert_close(packed.added_to(total, line, in_place=False), kept + expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(total, kept)
    packed.added_to(total, line, in_place=True)
    torch.testing.assert_close(total, kept + expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (7, 1), (3, 5)])
@pytest.mark.parametrize("made", [1, 2, 9])
def test_a_few_samples_in_one_product(kernel: int, dilation: int, made: int) -> None:
    torch.manual_seed(kernel)
    time = made + dilation * (kernel - 1)
    weight, bias, x = torch.randn(6, 16, kernel), torch.randn(6), torch.randn(time + 3, 16)
    for rows in (x[3:], x[3:].t().contiguous().t()):  # either layout, and not at the beginning of its memory
        expected = F.conv1d(rows.t()[None], weight, bias, dilation=dilation)[0].t()
        torch.testing.assert_close(pack_short(weight, bias, dilation)(rows), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pack_short(weight, None, dilation)(rows), expected - bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(16, 8), (4, 2), (3, 3), (8, 3), (10, 5), (2, 1), (7, 4)])
def test_polyphase_is_the_transposed_convolution(kernel: int, stride: int) -> None:
    torch.manual_seed(kernel)
    weight, x = torch.randn(5, 3, kernel), torch.randn(1, 5, 9)
    expected = F.conv_transpose1d(x, weight, stride=stride)
    plain = polyphase(weight, stride)
    taps = plain.shape[-1]
    made = F.conv1d(F.pad(x, (taps - 1, taps - 1)), plain)
    found = made[0].t().reshape(-1, 3).t()[:, : expected.shape[-1]]
    torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-5)


def test_sums_in_parts_round_less() -> None:
    """The reason for ``longest_sum``; without effect it would only cost time."""
    torch.manual_seed(0)
    weight, x = torch.randn(64, 64, 11), torch.randn(1, 64, 200)
    exact = F.conv1d(x.double(), weight.double(), padding=5)[0].t()
    errors = []
    for longest in (None, 128):
        found = pack(weight, None, torch.float32, longest_sum=longest)(x[0].t().contiguous())
        errors.append((found - exact).square().mean())
    assert errors[1] < 0.6 * errors[0]

"""The one-pass snake against the plain code, which is what the references compute."""

import pytest
import torch
from torch import Tensor

from melisma.kernels import choice, snake
from melisma.layers.activations import AntiAliased, Snake, SnakeBeta

pytest.importorskip("numba")


def made(kind: type[Snake], channels: int, log_scale: bool) -> AntiAliased:
    drawing = torch.Generator().manual_seed(channels)
    activation = AntiAliased(kind(channels, log_scale))
    for parameter in activation.parameters():
        parameter.data += 0.3 * torch.rand(channels, generator=drawing)
    return activation


def clip(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("kind", [Snake, SnakeBeta])
@pytest.mark.parametrize("log_scale", [False, True])
@pytest.mark.parametrize("time", [1, 2, 3, 5, 63, 9000])
def test_equals_the_plain_code(kind: type[Snake], log_scale: bool, time: int) -> None:
    activation = made(kind, 3, log_scale)
    x = clip(2, 3, time)
    assert snake.fused(x)
    with choice.plain():
        assert not snake.fused(x)
        expected = activation(x)
    torch.testing.assert_close(activation(x), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("channels", [5, 16, 48])  # lanes hold whole sixteens
@pytest.mark.parametrize("time", [1, 2, 3, 7, 126, 128, 129, 131, 257, 700])  # blocks are of 128
def test_channels_last_equals_channels_first(time: int, channels: int) -> None:
    activation = made(SnakeBeta, channels, True).requires_grad_(False)
    alpha, height = activation.act.terms()
    x = clip(1, channels, time)
    settings = torch.stack([alpha / torch.pi, height]).unsqueeze(0)
    last = snake.channels_last(x[0].t().contiguous(), settings, activation.taps)
    torch.testing.assert_close(last.t(), activation(x)[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [5, 16, 48])
def test_steps_are_bit_by_bit_what_they_are_in_the_whole(channels: int) -> None:
    """What a stream is joined from; a snake would amplify the last digit."""
    activation = made(SnakeBeta, channels, True).requires_grad_(False)
    alpha, height = activation.act.terms()
    settings, x = torch.stack([alpha / torch.pi, height]).unsqueeze(0), clip(300, channels)
    whole = snake.channels_last(x, settings, activation.taps)
    for first, stop in ((0, 40), (11, 200), (150, 300)):
        # Six samples are lost by going up, five upsampled ones on either side by coming down.
        high = snake.up(x[first:stop].contiguous(), settings, activation.taps)
        low = snake.down(high[1:-1].contiguous(), activation.taps)
        assert torch.equal(low, whole[first + 6 : stop - 6])


@pytest.mark.parametrize("channels", [5, 32])
def test_large_values_stay_bounded_with_channels_last(channels: int) -> None:
    activation = made(SnakeBeta, channels, True).requires_grad_(False)
    alpha, height = activation.act.terms()
    x = 1e9 * clip(50, channels)
    out = snake.channels_last(x, torch.stack([alpha / torch.pi, height]).unsqueeze(0), activation.taps)
    assert torch.isfinite(out).all()
    assert out.abs().max() < 2 * x.abs().max()


@pytest.mark.parametrize("kind", [Snake, SnakeBeta])
@pytest.mark.parametrize("time", [1, 2, 4, 37])
def test_gradient_equals_that_of_the_plain_code(kind: type[Snake], time: int) -> None:
    """In double precision: a finite difference in single precision would show its own error instead."""
    activation = made(kind, 3, True)
    x, towards = clip(2, 3, time), clip(2, 3, time).flip(0)
    given = x.clone().requires_grad_()
    activation(given).backward(towards)
    found = [given.grad, *(parameter.grad for parameter in activation.parameters())]
    exact = made(kind, 3, True).double()
    wide = x.double().requires_grad_()
    exact(wide).backward(towards.double())
    expected = [wide.grad, *(parameter.grad for parameter in exact.parameters())]
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Input #:UserWarning")  # that it is single precision, which the step allows for
def test_finite_differences_agree() -> None:
    activation = made(SnakeBeta, 2, True)
    alpha, height = (term.detach().requires_grad_() for term in activation.act.terms())
    x = clip(1, 2, 9).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *given: snake.anti_aliased(*given, activation.taps), (x, alpha, height), eps=1e-2, atol=2e-2, rtol=2e-2
    )  # fmt: skip


def test_values_beyond_any_reason_stay_bounded() -> None:
    activation = made(SnakeBeta, 2, True)
    x = 1e9 * clip(1, 2, 50)
    out = activation(x)
    assert torch.isfinite(out).all()
    assert out.abs().max() < 2 * x.abs().max()


def test_half_precision_keeps_its_type() -> None:
    activation = made(SnakeBeta, 4, True)
    x = clip(1, 4, 50)
    out = activation(x.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), activation(x), rtol=0.02, atol=0.05)


def test_many_threads_give_what_one_gives() -> None:
    activation = made(SnakeBeta, 8, True)
    x = clip(1, 8, 1 << 16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = activation(x)
        torch.set_num_threads(2)
        assert torch.equal(activation(x), alone)
    finally:
        torch.set_num_threads(before)

"""Cases of the Triton snake; run by itself it goes through them in Triton's interpreter, without a GPU.

The interpreter is chosen when triton is first imported: that is why it has a process of its own.
"""

import os

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from melisma.kernels.snake_triton import Snake
from melisma.layers.activations import AntiAliased, SnakeBeta


def made(channels: int) -> AntiAliased:
    drawing = torch.Generator().manual_seed(channels)
    activation = AntiAliased(SnakeBeta(channels))
    for parameter in activation.parameters():
        parameter.data += 0.3 * torch.rand(channels, generator=drawing)
    return activation


def check(time: int, device: str) -> None:
    """Output and gradients against the plain code in double precision."""
    drawing = torch.Generator().manual_seed(time)
    x, towards = 2 * torch.randn(1, 2, time, generator=drawing), torch.randn(1, 2, time, generator=drawing)
    activation = made(2).double()
    wide = x.double().requires_grad_()
    alpha, height = activation.act.terms()
    alpha.retain_grad()
    height.retain_grad()
    u = AntiAliased(_Given(alpha, height)).double().plain(wide)
    u.backward(towards.double())
    given: list[Tensor] = [
        tensor.detach().float().to(device).requires_grad_() for tensor in (x, alpha.detach(), height.detach())
    ]
    found = Snake.apply(*given, activation.taps.float().to(device))
    torch.testing.assert_close(found.cpu().double(), u.detach(), rtol=0, atol=1e-5)
    found.backward(towards.to(device))
    for one, other in zip(given, (wide, alpha, height), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad.cpu().double(), other.grad, rtol=1e-4, atol=1e-4)


class _Given(torch.nn.Module):
    def __init__(self, alpha: Tensor, height: Tensor) -> None:
        super().__init__()
        self.alpha, self.height = alpha, height

    def forward(self, x: Tensor) -> Tensor:
        return x + self.height.unsqueeze(-1) * (x * self.alpha.unsqueeze(-1)).sin().square()


def check_half(device: str) -> None:
    """The type stays; sums are single precision."""
    activation, x = made(1).requires_grad_(False), torch.randn(1, 1, 20)
    given = (x.half(), *activation.act.terms(), activation.taps)
    out = Snake.apply(*(tensor.to(device) for tensor in given)).cpu()
    assert out.dtype == torch.half
    torch.testing.assert_close(out.float(), activation.plain(x), rtol=0.01, atol=0.01)


if __name__ == "__main__":
    for length in (1, 3, 20, 520):
        check(length, "cpu")
    check_half("cpu")
    print("all equal")

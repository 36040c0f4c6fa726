"""Residual blocks of dilated convolutions (HiFi-GAN, Kong et al. 2020), types 1 and 2, with any activation."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from melisma.layers.activations import REACH
from melisma.layers.convolution import Convolution
from melisma.layers.residual_rows import next_step
from melisma.layers.streaming import Memory
from melisma.layers.weight_norm import normed

LEAKY_SLOPE = 0.1


class Leaky(nn.Module):
    """Leaky ReLU with the slope 0.1 that all of these models use inside."""

    slope = LEAKY_SLOPE

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.leaky_relu(x, self.slope)

    def step(self, x: Tensor, memory: Memory) -> Tensor:
        """The next chunk; it needs no past."""
        return self(x)


def _convolution(channels: int, kernel_size: int, dilation: int) -> nn.Module:
    return normed(
        Convolution(channels, channels, kernel_size, dilation=dilation, padding=dilation * (kernel_size - 1) // 2)
    )


class ResidualBlock1(nn.Module):
    """For every dilation: activation, dilated convolution, activation, plain convolution, added to the input.

    Args:
        channels: number of channels.
        kernel_size: odd.
        dilations: one residual step each.
        activation: makes the module that goes before a convolution of so many channels.
    """

    def __init__(
        self, channels: int, kernel_size: int, dilations: Sequence[int], activation: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_convolution(channels, kernel_size, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_convolution(channels, kernel_size, 1) for _ in dilations)
        self.activations = nn.ModuleList(activation(channels) for _ in range(2 * len(dilations)))

    @staticmethod
    def reach(kernel_size: int, dilations: Sequence[int], anti_aliased: bool) -> int:
        """Samples on either side on which an output sample depends."""
        per_step = 2 * REACH if anti_aliased else 0
        return sum((kernel_size - 1) // 2 * (dilation + 1) + per_step for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, time)`` -> the same shape."""
        for step, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            inner = dilated(self.activations[2 * step](x))
            x = x + plain(self.activations[2 * step + 1](inner))
        return x

    def step(self, x: Tensor, memory: Memory) -> Tensor:
        """The next chunk, see :mod:`melisma.layers.streaming`."""
        at_once = next_step(self, x, memory)
        if at_once is not None:
            at_once.chunk.run()
            return at_once.finish()
        for step, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            part = memory.at(step)
            inner = part.through("activation1", self.activations[2 * step], x)
            inner = part.through("conv1", dilated, inner)
            inner = part.through("activation2", self.activations[2 * step + 1], inner)
            x, inner = part.together("sum", x, part.through("conv2", plain, inner))
            x = x + inner
        return x


class ResidualBlock2(nn.Module):
    """For every dilation: activation and dilated convolution, added to the input. Arguments as for type 1."""

    def __init__(
        self, channels: int, kernel_size: int, dilations: Sequence[int], activation: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_convolution(channels, kernel_size, dilation) for dilation in dilations)
        self.activations = nn.ModuleList(activation(channels) for _ in dilations)

    @staticmethod
    def reach(kernel_size: int, dilations: Sequence[int], anti_aliased: bool) -> int:
        """Samples on either side on which an output sample depends."""
        return sum((kernel_size - 1) // 2 * dilation + (REACH if anti_aliased else 0) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, time)`` -> the same shape."""
        for activation, convolution in zip(self.activations, self.convs, strict=True):
            x = x + convolution(activation(x))
        return x

    def step(self, x: Tensor, memory: Memory) -> Tensor:
        """The next chunk, see :mod:`melisma.layers.streaming`."""
        for step, (activation, convolution) in enumerate(zip(self.activations, self.convs, strict=True)):
            part = memory.at(step)
            inner = part.through("conv", convolution, part.through("activation", activation, x))
            x, inner = part.together("sum", x, inner)
            x = x + inner
        return x


RESIDUAL_BLOCKS: dict[int, type[ResidualBlock1] | type[ResidualBlock2]] = {1: ResidualBlock1, 2: ResidualBlock2}

"""ConvNeXt blocks over frames (Liu et al. 2022; one-dimensional as in Vocos, Siuzdak 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.layers.convolution import CausalConvolution, Convolution
from melisma.layers.streaming import Memory


def frame_convolution(channels: int, out: int, kernel_size: int, causal: bool, groups: int = 1) -> Convolution:
    """A convolution over frames that keeps their number, over both sides or the past."""
    if causal:
        return CausalConvolution(channels, out, kernel_size, groups=groups)
    return Convolution(channels, out, kernel_size, padding=kernel_size // 2, groups=groups)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron per frame, as a residual. Channels last."""

    def __init__(self, channels: int, inner: int, kernel_size: int, scale: float, causal: bool = False) -> None:
        super().__init__()
        self.depthwise = frame_convolution(channels, channels, kernel_size, causal, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, inner)
        self.narrow = nn.Linear(inner, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, frames, channels)`` -> the same."""
        return x + self._change(self.depthwise(x.transpose(1, 2)))

    def step(self, x: Tensor, memory: Memory) -> Tensor:
        """The next chunk, see :mod:`melisma.layers.streaming`."""
        y = memory.through("depthwise", self.depthwise, x.transpose(1, 2))
        x, y = memory.together("sum", x.transpose(1, 2), y)
        return x.transpose(1, 2) + self._change(y)

    def _change(self, y: Tensor) -> Tensor:
        y = self.norm(y.transpose(1, 2))
        return self.scale * self.narrow(F.gelu(self.widen(y), approximate="tanh"))

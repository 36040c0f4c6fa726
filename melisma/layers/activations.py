"""Periodic activations (Snake, Ziyin et al. 2020; SnakeBeta, Lee et al. 2023) without the aliasing that they cause.

A pointwise non-linearity makes frequencies above half the sample rate, which fold back. The anti-aliased form
(Karras et al. 2021) doubles the rate, applies it and halves the rate again, with the same short low-pass both times.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.kernels import snake as kernel
from melisma.layers.rows import is_rows, wanted
from melisma.layers.streaming import Memory
from melisma.layers.weights import made_of, weights_of

TAPS = 12
REACH = 6  # samples of input on either side on which an output sample of AntiAliased depends


def lowpass_taps() -> Tensor:
    """The 12-tap half-band low-pass at twice the rate, ``(TAPS,)`` float32, with a sum of one.

    A sinc with cut-off at a quarter of the doubled rate under a Kaiser window whose shape follows from a transition
    width of 0.6 of the original rate (Kaiser's formula for the attenuation of that length).
    """
    transition = 2 * math.pi * 0.6
    attenuation = 2.285 * (TAPS // 2 - 1) * transition + 7.95
    if attenuation > 50:
        shape = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        shape = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        shape = 0.0
    # Single precision throughout, as the references have it: a double snake amplifies the last digits of the taps.
    window = torch.kaiser_window(TAPS, periodic=False, beta=shape, dtype=torch.float32)
    time = torch.arange(TAPS, dtype=torch.float32) - (TAPS - 1) / 2
    taps = 0.5 * window * torch.sinc(0.5 * time)
    return taps / taps.sum()


class Snake(nn.Module):
    """``x + sin(a x)^2 / a`` with a learned ``a`` per channel (``alpha``, kept as its logarithm if ``log_scale``)."""

    def __init__(self, channels: int, log_scale: bool = True) -> None:
        super().__init__()
        self.log_scale = log_scale
        self.alpha = nn.Parameter(torch.zeros(channels) if log_scale else torch.ones(channels))

    def _positive(self, parameter: Tensor) -> Tensor:
        return (parameter.exp() if self.log_scale else parameter).unsqueeze(-1)

    def terms(self) -> tuple[Tensor, Tensor]:
        """``a`` in radians and the height of the ripples, ``(channels,)`` each."""
        alpha = self._positive(self.alpha).squeeze(-1)
        return alpha, 1.0 / (alpha + 1e-9)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, time)`` -> the same shape."""
        alpha = self._positive(self.alpha)
        return x + (1.0 / (alpha + 1e-9)) * (x * alpha).sin().square()


class SnakeBeta(Snake):
    """``x + sin(a x)^2 / b``: the height of the ripples (``beta``) is learned apart from their frequency."""

    def __init__(self, channels: int, log_scale: bool = True) -> None:
        super().__init__(channels, log_scale)
        self.beta = nn.Parameter(self.alpha.detach().clone())

    def terms(self) -> tuple[Tensor, Tensor]:
        """``a`` in radians and the height of the ripples, ``(channels,)`` each."""
        beta = self._positive(self.beta).squeeze(-1)
        return self._positive(self.alpha).squeeze(-1), 1.0 / (beta + 1e-9)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, time)`` -> the same shape."""
        ripples = (x * self._positive(self.alpha)).sin().square()
        return x + (1.0 / (self._positive(self.beta) + 1e-9)) * ripples


class AntiAliased(nn.Module):
    """An activation at twice the rate: up, activate, down; the ends are continued by their last value.

    Args:
        activation: acts on ``(batch, channels, time)`` point by point.
    """

    taps: Tensor

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.act = activation
        self.register_buffer("taps", lowpass_taps(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, time)`` -> the same shape."""
        if isinstance(self.act, Snake) and kernel.fused(x):
            return kernel.anti_aliased(x, *self.act.terms(), self.taps)
        return self.plain(x)

    def plain(self, x: Tensor) -> Tensor:
        """The same in operators of torch: what the kernels are held to, and what a traced graph is made of."""
        channels = x.shape[1]
        taps = self.taps.to(x.dtype).expand(channels, 1, TAPS)
        half = TAPS // 2
        # Of the transposed convolution's output, 5 padded samples and 5 taps' overhang go on either side.
        up = F.pad(x, (half - 1, half - 1), mode="replicate")
        up = F.conv_transpose1d(up, 2 * taps, stride=2, groups=channels, padding=2 * (half - 1) + half - 1)
        up = F.pad(self.act(up), (half - 1, half), mode="replicate")
        return F.conv1d(up, taps, stride=2, groups=channels)

    def step(self, x: Tensor, memory: Memory) -> Tensor:
        """The next chunk, see :mod:`melisma.layers.streaming`."""
        channels, half = x.shape[1], TAPS // 2
        taps = self.taps.to(x.dtype).expand(channels, 1, TAPS)
        side = half // 2  # samples on either side on which a pair of upsampled ones depends
        x = memory.at("up").windows(x, 2 * side + 1, left=side, right=side, mode="replicate")
        if isinstance(self.act, Snake) and is_rows(x) and wanted(self, x):
            return self._rows_step(self.act, x, memory)
        if x.shape[-1]:
            x = F.conv_transpose1d(x, 2 * taps, stride=2, groups=channels, padding=2 * side + half - 1)
        up = memory.at("down").windows(self.act(x), TAPS, 2, left=half - 1, right=half, mode="replicate")
        return F.conv1d(up, taps, stride=2, groups=channels) if up.shape[-1] else up

    def _rows_step(self, act: Snake, x: Tensor, memory: Memory) -> Tensor:
        """The rest of a step of a signal in rows, by the kernel."""

        def settings() -> Tensor:
            alpha, height = act.terms()
            return torch.stack([alpha / math.pi, height]).unsqueeze(0).contiguous()

        raised = kernel.up(x[0].t(), made_of(act, weights_of(act), settings), self.taps).t().unsqueeze(0)
        half = TAPS // 2
        up = memory.at("down").windows(raised, TAPS, 2, left=half - 1, right=half, mode="replicate")
        return kernel.down(up[0].t().contiguous(), self.taps).t().unsqueeze(0) if up.shape[-1] else up

"""The anti-aliased snake in one pass, with its gradient: the same as :class:`melisma.layers.activations.AntiAliased`.

A kernel takes the place of the plain code where tensors hold values on a device that has one; graphs that are being
traced keep the plain code.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from melisma.kernels import LANES, choice, numba_part, workers

_lanes = numba_part("snake_lanes_numba")
_numba = numba_part("snake_numba")

_LEAST_VALUES = 1 << 17  # of a clip that is worth a second worker


def fused(x: Tensor) -> bool:
    """Whether a kernel can activate this tensor."""
    if not choice.kernels_allowed() or type(x) not in (Tensor, torch.nn.Parameter):
        return False
    if x.numel() == 0 or x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    return choice.snake().fast if x.device.type == "cpu" else x.is_cuda and choice.gpu_snake().fast


def anti_aliased(x: Tensor, alpha: Tensor, height: Tensor, taps: Tensor) -> Tensor:
    """Up, ``u + height * sin(alpha u)^2``, and down.

    Args:
        x: ``(batch, channels, time)`` for which :func:`fused` holds.
        alpha: ``(channels,)``, radians.
        height: ``(channels,)``.
        taps: the low-pass, ``(12,)``.

    Returns:
        the same shape and type; differentiable once, except by ``taps``.
    """
    if x.is_cuda:
        from melisma.kernels.snake_triton import Snake

        return Snake.apply(x, alpha, height, taps)
    return _Snake.apply(x.float(), alpha.float(), height.float(), taps.float()).to(x.dtype)


class _Snake(torch.autograd.Function):
    """On the CPU, float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, height: Tensor, taps: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, alpha, height, taps)
        settings = torch.stack([alpha / math.pi, height], dim=1).unsqueeze(-1).contiguous()
        out = torch.empty_like(x)
        batch, channels, time = x.shape

        def part(first: int, stop: int) -> None:
            # Rows are cut between channels, so that row and setting keep step.
            for item in range(batch):
                _numba().forward(
                    _flat(x[item, first:stop]), time, 1, settings[first:stop].numpy(), phases_of(taps),
                    _flat(out[item, first:stop]),
                )  # fmt: skip

        _over_channels(part, channels, x.numel())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, height, taps = ctx.saved_tensors
        grad = grad.contiguous()
        settings = torch.stack([alpha / math.pi, height], dim=1).unsqueeze(-1).contiguous()
        grad_x = torch.empty_like(x)
        batch, channels, time = x.shape
        sums = torch.empty(batch, channels, 2, dtype=torch.float64)

        def part(first: int, stop: int) -> None:
            for item in range(batch):
                _numba().backward(
                    _flat(x[item, first:stop]), _flat(grad[item, first:stop]), time, settings[first:stop].numpy(),
                    phases_of(taps), _flat(grad_x[item, first:stop]), sums[item, first:stop].numpy(),
                )  # fmt: skip

        _over_channels(part, channels, x.numel())
        by_frequency, by_height = sums.sum(dim=0).to(x.dtype).unbind(-1)
        return grad_x, by_frequency / math.pi, by_height, None


def channels_last(x: Tensor, settings: Tensor, taps: Tensor) -> Tensor:
    """For networks that are only listened to: ``(time, channels)`` float32, contiguous -> a new tensor like it.

    ``settings`` are ``alpha / pi`` and the height, ``(1, 2, channels)``. On the calling thread alone.
    """
    out = torch.empty_like(x)
    _for(x.shape[1]).forward(_flat(x), x.shape[0], x.shape[1], settings.numpy(), phases_of(taps), _flat(out))
    return out


def up(x: Tensor, settings: Tensor, taps: Tensor) -> Tensor:
    """A chunk of :func:`channels_last` upsampled and activated, ``(time, channels) -> (2 * (time - 6), channels)``."""
    time, channels = x.shape
    out = x.new_empty(2 * (time - 6), channels)
    _for(channels).up(_flat(x), channels, settings[0].numpy(), phases_of(taps), _flat(out))
    return out


def down(x: Tensor, taps: Tensor) -> Tensor:
    """And back to its rate: ``(2 * time + 10, channels) -> (time, channels)``."""
    rows, channels = x.shape
    out = x.new_empty((rows - 10) // 2, channels)
    _for(channels).down(_flat(x), channels, phases_of(taps), _flat(out))
    return out


def _over_channels(part: Callable[[int, int], None], channels: int, values: int) -> None:
    count = max(1, min(torch.get_num_threads(), channels, values // _LEAST_VALUES))
    edges = [channels * number // count for number in range(count + 1)]
    workers.run([partial(part, first, stop) for first, stop in pairwise(edges)])


def _flat(x: Tensor) -> Any:
    return x.detach().view(-1).numpy()


def _for(channels: int) -> ModuleType:
    """The kernels for so many of them, side by side."""
    return _numba() if channels % LANES else _lanes()


def phases_of(taps: Tensor) -> Any:
    """The taps as the kernels read them."""
    return _made_phases(tuple(taps.detach().tolist()))


@lru_cache(maxsize=4)
def _made_phases(taps: tuple[float, ...]) -> Any:
    import numpy as np

    return _numba().phases(np.array(taps, dtype=np.float32))

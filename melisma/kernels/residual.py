"""The next chunk of a stream through a residual block, in one call.

Layer by layer a chunk of four frames passes ninety convolutions with a dozen operations of torch beside each, which
take as long as the convolutions and, on several threads, wait for each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import amx
from melisma.kernels.snake import phases_of
from melisma.kernels.winograd import Winograd

STEPS = 3  # residual steps of a block, of two convolutions each
_SIDE, _HALF = 3, 6  # samples beside one on which an upsampled pair depends; half the taps of coming down


@dataclass(frozen=True)
class Taps:
    """A convolution that is summed up tap by tap; make it with :func:`pack_taps`.

    Attributes:
        weights: a matrix for each tap, in panels.
        bias: ``(channels,)``.
        channels: in and out, the same.
        kernel: taps, odd.
        dilation: samples between taps.
    """

    weights: np.ndarray
    bias: np.ndarray
    channels: tuple[int, int]
    kernel: int
    dilation: int

    @property
    def reach(self) -> int:
        """Samples on either side of one that count for it."""
        return self.kernel // 2 * self.dilation


def taps_fit(weight: Tensor) -> bool:
    """Whether weights ``(out_channels, in_channels, kernel)`` can be packed so."""
    from melisma.kernels.matrix_numba import WIDE

    outputs, inputs, kernel = weight.shape
    return outputs == inputs and outputs % WIDE == 0 and kernel % 2 == 1


def pack_taps(weight: Tensor, bias: Tensor, dilation: int = 1) -> Taps:
    """Lay out the weights of a convolution, for which :func:`taps_fit` holds."""
    from melisma.kernels.matrix_numba import packed

    outputs, inputs, kernel = weight.shape
    panels = [packed(tap.float()) for tap in weight.detach().permute(2, 1, 0)]
    return Taps(np.concatenate(panels), bias.detach().float().numpy(), (inputs, outputs), kernel, dilation)


KernelConvolution = Winograd | amx.AmxConvolution | Taps


@dataclass(frozen=True, eq=False)
class Snakes:
    """The anti-aliased snakes of a block.

    Attributes:
        settings: frequency over pi and height of every channel for each activation in turn, ``(2, channels)``.
        taps: of the low-pass, ``(12,)``.
    """

    settings: list[Tensor]
    taps: Tensor


# What a step remembers, each ``(time, channels)``, None at the beginning or where it is nothing. For each of its two
# convolutions: what its snake, where it has one, needs to go up and to come down, and what the convolution has heard;
# and of the step's input what waits until the second convolution has come as far.
Past = list[Tensor | None]


class Chunk:
    """A chunk on its way through a block, ready to be run; make it with :func:`next_chunk`.

    Attributes:
        work: how many products it takes, for those who share chunks among workers.
        past: of the next chunk; it holds when the chunk has been run.
    """

    def __init__(self, kernel: Callable[[], np.ndarray], channels: int, work: int, past: list[Past]) -> None:
        self._kernel, self._channels, self.work, self.past = kernel, channels, work, past
        self._made: np.ndarray | None = None

    def run(self) -> None:
        """Compiled code, without the GIL."""
        self._made = self._kernel()

    @property
    def made(self) -> Tensor:
        """What the chunk makes known of the block's output, ``(time, channels)``."""
        assert self._made is not None  # it has been run
        return torch.from_numpy(self._made).reshape(-1, self._channels)


def next_chunk(
    x: Tensor, activation: float | Snakes, convolutions: Sequence[KernelConvolution], past: Sequence[Past], last: bool
) -> Chunk:
    """The next chunk of a block's input.

    Args:
        x: ``(time, channels)`` float32, contiguous; sixteens of channels.
        activation: slope of the leaky ReLUs, or snakes.
        convolutions: both of each of :data:`STEPS` steps, all of one kind, as wide as ``x``.
        past: of each step.
        last: whether the signal ends with this chunk.
    """
    rows, channels = x.shape
    steps, rooms, work = [], [], 0
    for number, before in enumerate(past):
        plan, first_rows = _Plan(channels, last), rows
        half = len(before) // 2  # of what is remembered, for either convolution
        for which in range(2):
            place, remembered = 2 * number + which, before[which * half : (which + 1) * half]
            if isinstance(activation, Snakes):
                rows = plan.snake(activation.settings[place], remembered, rows)
            rows = plan.convolve(convolutions[place], remembered[-1], rows)
            work += convolutions[place].kernel * rows * channels**2
        steps.append(plan.step(before[-1], first_rows, rows))
        rooms.append(plan.rooms)
    given = tuple(steps)
    if isinstance(activation, Snakes):
        kernel = partial(_kernel(convolutions[0], "snakes"), _flat(x), phases_of(activation.taps), channels, given)
    else:
        kernel = partial(_kernel(convolutions[0], ""), _flat(x), np.float32(activation), given)
    if isinstance(convolutions[0], amx.AmxConvolution):
        more = () if isinstance(activation, Snakes) else (channels,)
        kernel = partial(kernel, *more, amx.configuration())
    return Chunk(kernel, channels, work, rooms)


class _Plan:
    """What a kernel is told of a step, and room for what the step will remember."""

    def __init__(self, channels: int, last: bool) -> None:
        self._channels, self._last = channels, last
        self.rooms: Past = []
        self._layers: list[tuple[Any, ...]] = []
        self._snakes: list[tuple[Any, ...]] = []

    def snake(self, settings: Tensor, remembered: Past, rows: int) -> int:
        """An activation of so many samples; how many come out."""
        up, down = remembered[0], remembered[1]
        pairs, rising = self._sampling(up, (_SIDE, _SIDE), rows, 2 * _SIDE + 1, 1)
        made, falling = self._sampling(down, (_HALF - 1, _HALF), 2 * pairs, 2 * _HALF, 2)
        outputs = (2 * pairs * self._channels, made * self._channels)
        self._snakes.append((settings.numpy(), (*rising, outputs[0]), (*falling, outputs[1])))
        return made

    def _sampling(
        self, tail: Tensor | None, sides: tuple[int, int], rows: int, length: int, stride: int
    ) -> tuple[int, tuple[Any, ...]]:
        """Windows of a length, every so many samples: how many there are; with the tail, the ends and the next tail."""
        edges, heard = self._around(tail, sides, rows)
        made = max(0, (heard - length) // stride + 1)
        kept = torch.empty(heard - made * stride, self._channels)
        self.rooms.append(kept)
        return made, (_flat(tail), edges, _flat(kept))

    def _around(self, tail: Tensor | None, sides: tuple[int, int], rows: int) -> tuple[tuple[int, int], int]:
        """Samples that stand before the first and behind the last one now, and how many there are with them."""
        there = rows + (0 if tail is None else tail.shape[0])
        if there == 0:  # what has not begun has no ends
            return (0, 0), 0
        edges = (sides[0] if tail is None else 0, sides[1] if self._last else 0)
        return edges, there + sum(edges)

    def convolve(self, convolution: KernelConvolution, tail: Tensor | None, rows: int) -> int:
        """A convolution of so many samples; how many come out."""
        reach, channels = convolution.reach, self._channels
        (before, behind), heard = self._around(tail, (reach, reach), rows)
        made = max(0, heard - 2 * reach)
        kept = torch.empty(heard - made, channels)
        self.rooms.append(kept)
        zeros = (before * channels, behind * channels)
        self._layers.append((_for_kernel(convolution), _flat(tail), zeros, _flat(kept), made * channels))
        return made

    def step(self, waiting: Tensor | None, rows: int, made: int) -> tuple[Any, ...]:
        """The whole step, from so many samples to ``made``."""
        left = (0 if waiting is None else waiting.shape[0]) + rows - made
        self.rooms.append(torch.empty(left, self._channels))
        step = (*self._layers, _flat(waiting), _flat(self.rooms[-1]))
        return (step, tuple(self._snakes)) if self._snakes else step


def _for_kernel(convolution: KernelConvolution) -> tuple[Any, ...]:
    if isinstance(convolution, amx.AmxConvolution):
        return convolution.layer
    if isinstance(convolution, Taps):
        return convolution.weights, convolution.bias, convolution.kernel, convolution.dilation
    shape = (convolution.kind, convolution.groups, 0, convolution.dilation)
    return convolution.weights, convolution.bias, convolution.channels, shape


def _flat(values: Tensor | None) -> np.ndarray:
    return np.zeros(0, np.float32) if values is None else values.contiguous().numpy().reshape(-1)


def _kernel(convolution: KernelConvolution, activation: Literal["", "snakes"]) -> Callable[..., np.ndarray]:
    found: Callable[..., np.ndarray]
    if isinstance(convolution, amx.AmxConvolution):
        from melisma.kernels import residual_amx_numba as in_tiles

        found = in_tiles.snakes_in_tiles if activation else in_tiles.in_tiles
        return found
    from melisma.kernels import residual_numba, residual_snake_numba

    module = residual_snake_numba if activation else residual_numba
    found = module.summed if isinstance(convolution, Taps) else module.filtered
    return found

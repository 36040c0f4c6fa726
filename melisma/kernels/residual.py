"""The next chunk of a stream through a residual block, in one call.

Layer by layer a chunk of four frames passes ninety convolutions with a dozen operations of torch beside each, which
take as long as the convolutions and, on several threads, wait for each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import amx
from melisma.kernels.packed import PackedConvolution
from melisma.kernels.snake import phases_of
from melisma.kernels.winograd import Winograd

STEPS = 3  # residual steps of a block, of two convolutions each
_SIDE, _HALF = 3, 6  # samples beside one on which an upsampled pair depends; half the taps of coming down


class Taps(PackedConvolution):
    """A convolution that is summed up tap by tap, a matrix in panels for each; make it with :func:`pack_taps`."""


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
    x: Tensor, activation: float | Snakes, convolutions: Sequence[PackedConvolution], past: Sequence[Past], last: bool
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
            rows = plan.layer(activation, place, convolutions[place], remembered, rows)
            work += convolutions[place].kernel * rows * channels**2
        steps.append(plan.step(before[-1], first_rows, rows))
        rooms.append(plan.rooms)
    return Chunk(partial(_numba(convolutions[0]).next_samples, _flat(x), tuple(steps)), channels, work, rooms)


class _Plan:
    """What a kernel is told of a step, and room for what the step will remember."""

    def __init__(self, channels: int, last: bool) -> None:
        self._channels, self._last = channels, last
        self.rooms: Past = []
        self._layers: list[tuple[Any, ...]] = []

    def layer(
        self, activation: float | Snakes, place: int, convolution: PackedConvolution, remembered: Past, rows: int
    ) -> int:
        """An activation and a convolution of so many samples; how many come out."""
        told: np.float32 | tuple[Any, ...]
        if isinstance(activation, Snakes):
            told, rows = self._snake(activation, place, remembered, rows)
        else:
            told = np.float32(activation)
        tail, reach, channels = remembered[-1], convolution.reach, self._channels
        (before, behind), heard = self._around(tail, (reach, reach), rows)
        made = max(0, heard - 2 * reach)
        kept = torch.empty(heard - made, channels)
        self.rooms.append(kept)
        zeros = (before * channels, behind * channels)
        self._layers.append((told, _told(convolution), _flat(tail), zeros, _flat(kept), made * channels))
        return made

    def _snake(self, snakes: Snakes, place: int, remembered: Past, rows: int) -> tuple[tuple[Any, ...], int]:
        up, down = remembered[0], remembered[1]
        pairs, rising = self._sampling(up, (_SIDE, _SIDE), rows, 2 * _SIDE + 1, 1)
        made, falling = self._sampling(down, (_HALF - 1, _HALF), 2 * pairs, 2 * _HALF, 2)
        outputs = (2 * pairs * self._channels, made * self._channels)
        settings, taps = snakes.settings[place].numpy(), phases_of(snakes.taps)
        return (settings, taps, (*rising, outputs[0]), (*falling, outputs[1])), made

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

    def step(self, waiting: Tensor | None, rows: int, made: int) -> tuple[Any, ...]:
        """The whole step, from so many samples to ``made``."""
        left = (0 if waiting is None else waiting.shape[0]) + rows - made
        self.rooms.append(torch.empty(left, self._channels))
        return (*self._layers, _flat(waiting), _flat(self.rooms[-1]))


def _told(convolution: PackedConvolution) -> tuple[Any, ...]:
    """What the kernel needs of a convolution."""
    if isinstance(convolution, amx.AmxConvolution):
        return convolution.layer, convolution.channels[0], amx.configuration()
    if isinstance(convolution, Taps):
        return convolution.weights, convolution.bias, convolution.kernel, convolution.dilation
    assert isinstance(convolution, Winograd)
    shape = (convolution.kind, convolution.groups, 0, convolution.dilation)
    return convolution.weights, convolution.bias, convolution.channels, shape


def _flat(values: Tensor | None) -> np.ndarray:
    return np.zeros(0, np.float32) if values is None else values.contiguous().numpy().reshape(-1)


def _numba(convolution: PackedConvolution) -> ModuleType:
    from melisma.kernels import residual_numba

    if isinstance(convolution, amx.AmxConvolution):  # it knows of tiles only where there are any
        from melisma.kernels import residual_amx_numba  # noqa: F401
    return residual_numba

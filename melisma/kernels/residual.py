"""The next chunk of a stream through a residual block of leaky ReLUs, in one call.

Layer by layer a chunk of four frames passes ninety convolutions with a dozen operations of torch beside each, which
take as long as the convolutions and, on several threads, wait for each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import amx
from melisma.kernels.winograd import Winograd

STEPS = 3  # residual steps of a block, of two convolutions each


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


class Past(NamedTuple):
    """What a residual step remembers, each ``(time, channels)``, None at the beginning or where it is nothing.

    Attributes:
        first: samples that the first convolution has heard and will hear again, after their activation.
        second: likewise.
        waiting: of the step's input, until the second convolution has come as far.
    """

    first: Tensor | None
    second: Tensor | None
    waiting: Tensor | None


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
    x: Tensor, slope: float, convolutions: Sequence[KernelConvolution], past: Sequence[Past], last: bool
) -> Chunk | None:
    """The next chunk of a block's input; None where some layer cannot say anything yet.

    Args:
        x: ``(time, channels)`` float32, contiguous.
        slope: of the leaky ReLUs.
        convolutions: both of each of :data:`STEPS` steps, all of one kind, as wide as ``x``.
        past: of each step.
        last: whether the signal ends with this chunk.
    """
    rows, channels = x.shape
    steps, rooms, work = [], [], 0
    for number, before in enumerate(past):
        first, second = convolutions[2 * number : 2 * number + 2]
        between, one = _layer(first, before.first, rows, last)
        made, other = _layer(second, before.second, between, last)
        if between == 0 or made == 0:
            return None
        waits = (0 if before.waiting is None else before.waiting.shape[0]) + rows - made
        room = Past(one[3], other[3], x.new_empty(waits, channels))
        steps.append((_for_kernel(one), _for_kernel(other), _flat(before.waiting), _flat(room.waiting)))
        rooms.append(room)
        rows, work = made, work + (first.kernel * between + second.kernel * made) * channels**2
    given = _flat(x), np.float32(slope), tuple(steps)
    if isinstance(convolutions[0], amx.AmxConvolution):
        return Chunk(partial(_tiles().in_tiles, *given, channels, amx.configuration()), channels, work, rooms)
    kernel = _filters().summed if isinstance(convolutions[0], Taps) else _filters().filtered
    return Chunk(partial(kernel, *given), channels, work, rooms)


def _layer(convolution: KernelConvolution, tail: Tensor | None, rows: int, last: bool) -> tuple[int, tuple[Any, ...]]:
    """How many samples come out; with the convolution, its tail, zeros on either side and room for the next tail."""
    channels, reach = convolution.channels[0], convolution.reach
    zeros = (reach if tail is None else 0, reach if last else 0)
    heard = sum(zeros) + rows + (0 if tail is None else tail.shape[0])
    made = max(0, heard - 2 * reach)
    kept = torch.empty(heard - made, channels)
    return made, (convolution, tail, zeros, kept, made)


def _for_kernel(layer: tuple[Any, ...]) -> tuple[Any, ...]:
    convolution, tail, (before, behind), kept, made = layer
    inputs, outputs = convolution.channels
    given: Any
    if isinstance(convolution, amx.AmxConvolution):
        given = convolution.layer
    elif isinstance(convolution, Taps):
        given = convolution.bias, (convolution.weights, inputs, convolution.kernel, convolution.dilation)
    else:
        shape = (convolution.kind, convolution.groups, 0, convolution.dilation)
        given = (convolution.weights, convolution.bias, (inputs, outputs), shape)
    return given, _flat(tail), (before * inputs, behind * inputs), _flat(kept), made * outputs


def _flat(values: Tensor | None) -> np.ndarray:
    return np.zeros(0, np.float32) if values is None else values.contiguous().numpy().reshape(-1)


@lru_cache(maxsize=1)
def _filters() -> ModuleType:
    from melisma.kernels import residual_numba

    return residual_numba


@lru_cache(maxsize=1)
def _tiles() -> ModuleType:
    from melisma.kernels import residual_amx_numba

    return residual_amx_numba

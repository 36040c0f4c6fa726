"""Residual blocks of NSF-HiFi-GAN for listening on a CPU, channels last; see :mod:`melisma.generators.nsf_fast`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.kernels import amx, snake, winograd
from melisma.kernels.convolution import PackedConvolution, pack
from melisma.layers.activations import REACH, AntiAliased
from melisma.layers.residual import ResidualBlock1

FEW_CHANNELS = 32  # below, bfloat16 gains nothing and costs accuracy, and what snakes amplify is not filtered
# Products that convolutions beside snakes may add in a row (see kernels.convolution.pack).
_LONGEST_SUM = 384

Cut = tuple[bool, bool]  # whether a clip goes on before the first sample of a tile, and behind the last one
KernelConvolution = winograd.Winograd | amx.AmxConvolution


@dataclass(frozen=True)
class Way:
    """How convolutions are computed.

    Attributes:
        rounding: of what is filtered with fewer multiplications; None where nothing is.
        tiles: whether what fits goes in the tiles of AMX, in bfloat16.
        dtype: of oneDNN's; sums, activations and all narrow stages are float32.
    """

    rounding: Literal["single", "half"] | None
    tiles: bool = False
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Slope:
    """A leaky ReLU, which a convolution can apply to its own output."""

    value: float
    reach = 0

    def __call__(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.value)


class FastSnake:
    """An anti-aliased snake over ``(time, channels)``; computes in float32."""

    reach = REACH

    def __init__(self, activation: AntiAliased) -> None:
        act: Any = activation.act
        alpha, height = act.terms()
        self.settings = torch.stack([alpha / math.pi, height]).detach().unsqueeze(0).contiguous()
        self.taps = activation.taps

    def __call__(self, x: Tensor) -> Tensor:
        return snake.channels_last(x.float(), self.settings, self.taps)


def activation_of(module: Any) -> Slope | FastSnake:
    return FastSnake(module) if isinstance(module, AntiAliased) else Slope(module.slope)


@dataclass(frozen=True)
class Step:
    """One residual step: activation, convolution and, in blocks of type 1, both once more."""

    activations: tuple[Slope | FastSnake, ...]
    convolutions: tuple[PackedConvolution, ...]
    dtype: torch.dtype
    reach = 0

    def __call__(self, x: Tensor, in_place: bool, cut: Cut) -> Tensor:
        """``x`` plus what the step makes of it; ``in_place`` it takes the place of ``x``.

        The result is as long as ``x``; at ends that are cut it is wrong as far as the step reaches.
        """
        inner = self.activations[0](x).to(self.dtype)
        for convolution, activation in zip(self.convolutions[:-1], self.activations[1:], strict=True):
            if isinstance(activation, Slope):
                inner = convolution(inner, activation.value)
            else:
                inner = activation(convolution(inner)).to(self.dtype)
        return self.convolutions[-1].added_to(x, inner, in_place)


@dataclass(frozen=True)
class KernelStep:
    """The same by kernels of ours, where every convolution can be had so.

    Between its convolutions is float32, or bfloat16 where those round to that anyway.
    """

    activations: tuple[Slope | FastSnake, ...]
    convolutions: tuple[KernelConvolution, ...]

    @cached_property
    def reach(self) -> int:
        """Samples by which the result is shorter at an end that is cut."""
        return sum(part.reach for part in (*self.activations, *self.convolutions))

    @cached_property
    def _in_turn(self) -> tuple[list[amx.AmxConvolution], list[float]] | None:
        """The convolutions and slopes of a step that is one kernel."""
        convolutions = [one for one in self.convolutions if isinstance(one, amx.AmxConvolution)]
        slopes = [one.value for one in self.activations if isinstance(one, Slope)]
        return (convolutions, slopes) if len(convolutions) == len(slopes) == 2 else None

    def __call__(self, x: Tensor, in_place: bool, cut: Cut) -> Tensor:
        """``x`` plus what the step makes of it, as far as it is right; ``in_place`` it takes the place of ``x``."""
        inner, base = x, _without(x, self.reach, cut)
        if self._in_turn is not None:
            return amx.in_turn(*self._in_turn, x, base, in_place, cut)
        for activation, convolution in zip(self.activations, self.convolutions, strict=True):
            slope = activation.value if isinstance(activation, Slope) else 1.0
            inner = inner if isinstance(activation, Slope) else _without(activation(inner), activation.reach, cut)
            last = convolution is self.convolutions[-1]
            inner = convolution(inner, slope, base if last else None, in_place, cut)
        return inner


def _without(x: Tensor, samples: int, cut: Cut) -> Tensor:
    return x[samples * cut[0] : x.shape[0] - samples * cut[1]]


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        steps: one after the other.
        reach: samples on either side of one that count for it.
    """

    steps: tuple[Step, ...] | tuple[KernelStep, ...]
    reach: int

    def __call__(self, x: Tensor, begin: int, wanted: tuple[int, int], length: int) -> Tensor:
        """Samples ``wanted`` of a clip of ``length``, of which ``x`` has those from ``begin`` on, as far as the block
        reaches; it stays as it is."""
        first, stop = wanted
        low, high = max(0, first - self.reach), min(length, stop + self.reach)
        cut = (low > 0, high < length)
        y = x[low - begin : high - begin]
        for step in self.steps:
            y = step(y, step is not self.steps[0], cut)
            low += step.reach * cut[0]
        return y[first - low : stop - low]


def steps_of(block: Any, dtype: torch.dtype, snaky: bool, way: Way) -> tuple[Step, ...] | tuple[KernelStep, ...]:
    """The steps of a block. Snakes amplify rounding, so that convolutions beside them are made to round little."""
    activations = [activation_of(module) for module in block.activations]
    pairs = isinstance(block, ResidualBlock1)
    convolutions = (
        [one for both in zip(block.convs1, block.convs2, strict=True) for one in both] if pairs else block.convs
    )
    size = 2 if pairs else 1
    places = [slice(first, first + size) for first in range(0, len(convolutions), size)]
    make = _maker([one.weight for one in convolutions], snaky, way)
    if make is not None:
        ours = [make(one.weight, one.bias, one.dilation[0]) for one in convolutions]
        return tuple(KernelStep(tuple(activations[place]), tuple(ours[place])) for place in places)
    longest_sum = _LONGEST_SUM if snaky and dtype == torch.float32 else None
    packed = [pack(one.weight, one.bias, dtype, one.dilation[0], longest_sum=longest_sum) for one in convolutions]
    return tuple(Step(tuple(activations[place]), tuple(packed[place]), dtype) for place in places)


def _maker(
    weights: Sequence[Tensor], snaky: bool, way: Way
) -> Callable[[Tensor, Tensor, int], KernelConvolution] | None:
    """What packs convolutions with these weights for a kernel of ours; None where one of them does not suit it."""
    if way.tiles and all(amx.fits(weight) for weight in weights):
        return amx.pack
    narrow = snaky and weights[0].shape[0] < FEW_CHANNELS
    if way.rounding is None or narrow or not all(winograd.fits(weight) for weight in weights):
        return None
    return partial(winograd.pack, rounding="exact" if snaky and way.rounding == "single" else way.rounding)

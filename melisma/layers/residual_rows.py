"""Steps of residual blocks of signals in rows (:mod:`melisma.layers.rows`), a whole block in one kernel."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from melisma.kernels import amx, choice, ready, rounding, winograd, workers
from melisma.kernels.packed import PackedConvolution
from melisma.kernels.residual import STEPS, Chunk, Snakes, next_chunk, pack_taps, taps_fit
from melisma.layers.activations import AntiAliased, Snake
from melisma.layers.rows import LEAST_FILTERED, is_rows, wanted
from melisma.layers.streaming import Memory
from melisma.layers.weights import made_of, weights_of

if TYPE_CHECKING:
    from melisma.layers.residual import ResidualBlock1


_Form = Literal["tiles", "filtered", "taps"]


# Where the layers of a step remember what a :data:`melisma.kernels.residual.Past` holds.
_LEAKY = ("conv1.tail", "conv2.tail", "sum.0")
_SNAKY = (
    "activation1.up.tail", "activation1.down.tail", "conv1.tail",
    "activation2.up.tail", "activation2.down.tail", "conv2.tail", "sum.0",
)  # fmt: skip


class BlockStep:
    """A block's next chunk, which remembers what the block remembers layer by layer."""

    def __init__(self, chunk: Chunk, parts: list[Memory], places: Sequence[str]) -> None:
        self.chunk, self._parts, self._places = chunk, parts, places

    def finish(self) -> Tensor:
        """The outputs that are final, ``(1, channels, time)`` in rows, after the chunk has been run."""
        for part, past in zip(self._parts, self.chunk.past, strict=True):
            for place, values in zip(self._places, past, strict=True):
                part.take(place, None if values is None else values.t().unsqueeze(0))
        return self.chunk.made.t().unsqueeze(0)


def next_step(block: "ResidualBlock1", x: Tensor, memory: Memory) -> BlockStep | None:
    """A block's step in one kernel; None where it has to be made layer by layer.

    That is for other signals than one that is only listened to, in rows, and for layers that do not suit the kernels.
    """
    if len(block.convs1) != STEPS or not is_rows(x) or not wanted(block, x):
        return None
    form: _Form = "tiles" if rounding.is_halved() else "filtered" if x.shape[2] >= LEAST_FILTERED else "taps"
    if not ready.usable(choice.filtering() if form == "filtered" else choice.projection()):
        return None
    packed = made_of(block, weights_of(block), partial(_packed, block, form), ("residual", form))
    parts = [memory.at(number) for number in range(STEPS)]
    if packed is None or any(part.recall("sum.1") is not None for part in parts):
        return None
    activation, convolutions = packed
    places = _SNAKY if isinstance(activation, Snakes) else _LEAKY
    remembered = [[part.recall(place) for place in places] for part in parts]
    past = [[None if values is None else values[0].t() for values in each] for each in remembered]
    chunk = next_chunk(x[0].t(), activation, convolutions, past, memory.last)
    return BlockStep(chunk, parts, places)


def side_by_side(blocks: Sequence[nn.Module], x: Tensor, memories: Sequence[Memory]) -> list[Tensor] | None:
    """The steps of several blocks that hear the same, shared among the workers; None where any needs another way."""
    steps: list[BlockStep] = []
    for block, memory in zip(blocks, memories, strict=True):
        step = next_step(block, x, memory) if hasattr(block, "convs1") else None  # type: ignore[arg-type]
        if step is None:
            return None
        steps.append(step)
    shares: list[list[Chunk]] = [[] for _ in range(min(workers.count(), len(steps)))]
    for step in sorted(steps, key=lambda step: -step.chunk.work):
        min(shares, key=lambda share: sum(chunk.work for chunk in share)).append(step.chunk)
    workers.together([partial(_run, share) for share in shares])
    return [step.finish() for step in steps]


def _run(chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        chunk.run()


def _packed(block: "ResidualBlock1", form: _Form) -> tuple[float | Snakes, list[PackedConvolution]] | None:
    """Activation and all convolutions in turn; None where one of them does not suit the kernels."""
    layers: list[Any] = [layer for both in zip(block.convs1, block.convs2, strict=True) for layer in both]
    if any(parametrize.is_parametrized(layer, "weight") or layer.bias is None for layer in layers):
        return None
    activation = _activation(list(block.activations))
    fits = {"tiles": amx.fits, "filtered": winograd.fits, "taps": taps_fit}[form]
    if activation is None or not all(fits(layer.weight) and layer.kernel_size[0] % 2 for layer in layers):
        return None
    exact = partial(winograd.pack, rounding="exact")
    packs: dict[str, Callable[..., PackedConvolution]] = {"tiles": amx.pack, "filtered": exact, "taps": pack_taps}
    return activation, [packs[form](layer.weight, layer.bias, dilation=layer.dilation[0]) for layer in layers]


def _activation(modules: Sequence[Any]) -> float | Snakes | None:
    slopes = {getattr(module, "slope", None) for module in modules}
    if slopes != {None}:
        (slope,) = slopes if len(slopes) == 1 else (None,)
        return slope
    if not all(isinstance(module, AntiAliased) and isinstance(module.act, Snake) for module in modules):
        return None
    if not choice.snake().fast:
        return None
    terms = [module.act.terms() for module in modules]
    return Snakes([torch.stack([alpha / math.pi, height]).contiguous() for alpha, height in terms], modules[0].taps)

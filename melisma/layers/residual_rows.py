"""Steps of residual blocks of signals in rows (:mod:`melisma.layers.rows`), a whole block in one kernel."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.nn.utils import parametrize

from melisma.kernels import amx, choice, ready, rounding, winograd, workers
from melisma.kernels.residual import STEPS, Chunk, KernelConvolution, Past, next_chunk, pack_taps, taps_fit
from melisma.layers.rows import LEAST_FILTERED, is_rows, wanted
from melisma.layers.streaming import Memory
from melisma.layers.weights import made_of, weights_of

if TYPE_CHECKING:
    from melisma.layers.residual import ResidualBlock1


_Form = Literal["tiles", "filtered", "taps"]


class BlockStep:
    """A block's next chunk, which remembers what the block remembers layer by layer."""

    def __init__(self, chunk: Chunk, parts: list[Memory]) -> None:
        self.chunk, self._parts = chunk, parts

    def finish(self) -> Tensor:
        """The outputs that are final, ``(1, channels, time)`` in rows, after the chunk has been run."""
        for part, past in zip(self._parts, self.chunk.past, strict=True):
            for (at, name), values in zip(_PLACES, past, strict=True):
                (part.at(at) if at else part).take(name, None if values is None else values.t().unsqueeze(0))
        return self.chunk.made.t().unsqueeze(0)


def next_step(block: "ResidualBlock1", x: Tensor, memory: Memory) -> BlockStep | None:
    """A block's step in one kernel; None where it has to be made layer by layer.

    That is: for other activations than leaky ReLUs, other signals than one that is only listened to, in rows, for
    chunks that are too short for any of its layers, or to be filtered.
    """
    slopes = {getattr(activation, "slope", None) for activation in block.activations}
    (slope,) = slopes if len(slopes) == 1 else (None,)
    if slope is None or len(block.convs1) != STEPS or not is_rows(x) or not wanted(block, x):
        return None
    form: _Form = "tiles" if rounding.is_halved() else "filtered" if x.shape[2] >= LEAST_FILTERED else "taps"
    if not ready.usable(choice.filtering() if form == "filtered" else choice.projection()):
        return None
    convolutions = made_of(block, weights_of(block), partial(_packed, block, form), ("residual", form))
    parts = [memory.at(number) for number in range(STEPS)]
    if convolutions is None or any(part.recall("sum.1") is not None for part in parts):
        return None
    chunk = next_chunk(x[0].t(), slope, convolutions, [_past(part) for part in parts], memory.last)
    return None if chunk is None else BlockStep(chunk, parts)


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


# Where the layers of a step remember what a :class:`Past` holds.
_PLACES = (("conv1", "tail"), ("conv2", "tail"), ("", "sum.0"))


def _past(part: Memory) -> Past:
    found = ((part.at(at) if at else part).recall(name) for at, name in _PLACES)
    return Past(*(None if values is None else values[0].t() for values in found))


def _packed(block: "ResidualBlock1", form: _Form) -> list[KernelConvolution] | None:
    """All convolutions in turn; None where one of them does not suit the kernel."""
    layers: list[Any] = [layer for both in zip(block.convs1, block.convs2, strict=True) for layer in both]
    if any(parametrize.is_parametrized(layer, "weight") or layer.bias is None for layer in layers):
        return None
    fits = {"tiles": amx.fits, "filtered": winograd.fits, "taps": taps_fit}[form]
    if not all(fits(layer.weight) and layer.kernel_size[0] % 2 for layer in layers):
        return None
    exact = partial(winograd.pack, rounding="exact")
    packs: dict[str, Callable[..., KernelConvolution]] = {"tiles": amx.pack, "filtered": exact, "taps": pack_taps}
    return [packs[form](layer.weight, layer.bias, dilation=layer.dilation[0]) for layer in layers]

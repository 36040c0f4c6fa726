"""What layers need to run chunk by chunk: the past that they still need, kept where it can be seen and saved.

A layer with ``forward(x)`` for a whole signal has ``step(x, memory)`` for the next chunk of it. A step returns the
outputs that no later input can change, so it may return fewer samples than it was given, or none; the chunk that is
marked as the last one brings the rest. All outputs joined are what ``forward`` gives for the whole, however it is cut.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.errors import MelismaError
from melisma.layers.rows import as_rows, is_rows

State = dict[str, Tensor]  # everything that a stream remembers, by the name of the layer; tensors are never changed

_FINISHED = "finished"


def is_finished(state: State | None) -> bool:
    """Whether the last chunk of the stream has been."""
    return _FINISHED in (state or {})


class Memory:
    """The state of one layer: a named part of a flat state, which holds that of a whole generator.

    Args:
        state: what the step before left, None at the beginning. It is not changed.
        last: whether the signal ends with the chunk of this step.

    Attributes:
        last: as given.

    Raises:
        MelismaError: the state is that of a finished stream.
    """

    def __init__(self, state: State | None, last: bool = False) -> None:
        self.last = last
        self._state = dict(state or {})
        self._prefix = ""
        if is_finished(state):
            raise MelismaError("this stream is finished; begin a new one")
        if last:
            self._state[_FINISHED] = torch.ones((), dtype=torch.bool)

    @property
    def state(self) -> State:
        """What the next step needs."""
        return self._state

    def at(self, name: str | int) -> "Memory":
        """The memory of the part ``name``."""
        part = object.__new__(Memory)
        part.last, part._state, part._prefix = self.last, self._state, f"{self._prefix}{name}."
        return part

    def through(self, name: str | int, layer: Any, x: Tensor, *settings: Any) -> Tensor:
        """One step of ``layer``, which remembers under ``name``."""
        stepped: Tensor = layer.step(x, self.at(name), *settings)
        return stepped

    def recall(self, name: str) -> Tensor | None:
        """What was kept under ``name``, or None."""
        return self._state.get(self._prefix + name)

    def keep(self, name: str, values: Tensor | None) -> None:
        """Keep ``values`` under ``name``; nothing where they are None or empty."""
        if values is None or values.numel() == 0:
            self._state.pop(self._prefix + name, None)
        else:
            self._state[self._prefix + name] = values.clone()  # a view would keep its whole chunk alive

    def take(self, name: str, values: Tensor | None) -> None:
        """:meth:`keep` values that nobody else holds, without copying them."""
        if values is None or values.numel() == 0:
            self._state.pop(self._prefix + name, None)
        else:
            self._state[self._prefix + name] = values

    def count(self, name: str, more: int = 0) -> int:
        """The number kept under ``name``, 0 at first; it grows by ``more`` afterwards."""
        kept = self.recall(name)
        number = 0 if kept is None else int(kept)
        self.keep(name, torch.tensor(number + more))
        return number

    def joined(self, name: str, x: Tensor, axis: int = -1) -> Tensor:
        """What was kept under ``name`` with ``x`` behind it, along the axis of time."""
        kept = self.recall(name)
        if kept is None:
            return x
        if axis in (-1, 2) and is_rows(x if x.numel() else kept):
            return torch.cat([kept.transpose(1, 2), x.transpose(1, 2)], dim=1).transpose(1, 2)
        return torch.cat([kept, x], dim=axis)

    def windows(
        self,
        x: Tensor,
        length: int,
        stride: int = 1,
        left: int = 0,
        right: int = 0,
        mode: Literal["constant", "replicate"] = "constant",
        most: int | None = None,
    ) -> Tensor:
        """The input of a layer that looks at windows of ``length`` samples every ``stride``.

        Args:
            x: the next chunk ``(..., time)``.
            length: of a window.
            stride: between windows.
            left: samples of padding before the signal.
            right: samples of padding behind it.
            mode: of the padding.
            most: windows that are wanted now; further ones wait.

        Returns:
            ``(..., time)``: samples that hold whole windows only, to be run without padding; empty if there are none.
        """
        started = self.recall("tail") is not None
        joined = self.joined("tail", x)
        if joined.shape[-1] == 0:
            return joined
        pads = (0 if started else left, right if self.last else 0)
        if pads != (0, 0):
            padded = F.pad(joined, pads, mode=mode)
            joined = as_rows(padded) if is_rows(joined) else padded
        count = max(0, (joined.shape[-1] - length) // stride + 1)
        count = count if most is None else min(count, most)
        self.keep("tail", joined[..., count * stride :])
        return joined[..., : (count - 1) * stride + length] if count else joined[..., :0]

    def waiting(self, name: str, x: Tensor, axis: int = -1) -> int:
        """How long ``x`` is with what :meth:`first` kept of it before; of several streams, the first."""
        kept = self.recall(f"{name}.0")
        return x.shape[axis] + (0 if kept is None else kept.shape[axis])

    def first(self, name: str, count: int, *streams: Tensor, axis: int = -1) -> tuple[Tensor, ...]:
        """The first ``count`` of streams along the axis of time, with what was kept of them; the rest is kept."""
        ready = []
        for number, stream in enumerate(streams):
            part = self.joined(f"{name}.{number}", stream, axis)
            ready.append(part.narrow(axis, 0, count))
            self.keep(f"{name}.{number}", part.narrow(axis, count, part.shape[axis] - count))
        return tuple(ready)

    def together(self, name: str, *streams: Tensor, axis: int = -1) -> tuple[Tensor, ...]:
        """Streams that do not arrive at the same time, as far as all of them have come; the rest is kept.

        Tensors of any lengths along ``axis`` -> the same of one length.
        """
        kept = [self.recall(f"{name}.{number}") for number in range(len(streams))]
        lengths = [
            stream.shape[axis] + (0 if part is None else part.shape[axis])
            for stream, part in zip(streams, kept, strict=True)
        ]
        return self.first(name, min(lengths), *streams, axis=axis)


class Whole:
    """The memory of a forward: the whole signal is there, so nothing has to be remembered.

    Code that is written for a :class:`Memory` runs over the whole with this one.
    """

    last = True

    def at(self, name: str | int) -> "Whole":
        """See :class:`Memory`, like the rest."""
        return self

    def through(self, name: str | int, layer: Any, x: Tensor, *settings: Any) -> Tensor:
        """The layer's forward."""
        made: Tensor = layer(x, *settings)
        return made

    def waiting(self, name: str, x: Tensor, axis: int = -1) -> int:
        """The length of ``x``."""
        return x.shape[axis]

    def first(self, name: str, count: int, *streams: Tensor, axis: int = -1) -> tuple[Tensor, ...]:
        """All of them."""
        return streams

    def together(self, name: str, *streams: Tensor, axis: int = -1) -> tuple[Tensor, ...]:
        """All of them."""
        return streams


Time = Memory | Whole
WHOLE = Whole()

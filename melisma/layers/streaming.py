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

    def count(self, name: str, more: int = 0) -> int:
        """The number kept under ``name``, 0 at first; it grows by ``more`` afterwards."""
        kept = self.recall(name)
        number = 0 if kept is None else int(kept)
        self.keep(name, torch.tensor(number + more))
        return number

    def joined(self, name: str, x: Tensor) -> Tensor:
        """What was kept under ``name`` with ``x`` behind it, along the last axis."""
        kept = self.recall(name)
        return x if kept is None else torch.cat([kept, x], dim=-1)

    def windows(
        self,
        x: Tensor,
        length: int,
        stride: int = 1,
        left: int = 0,
        right: int = 0,
        mode: Literal["constant", "replicate"] = "constant",
    ) -> Tensor:
        """The input of a layer that looks at windows of ``length`` samples every ``stride``.

        Args:
            x: the next chunk ``(..., time)``.
            length: of a window.
            stride: between windows.
            left: samples of padding before the signal.
            right: samples of padding behind it.
            mode: of the padding.

        Returns:
            ``(..., time)``: samples that hold whole windows only, to be run without padding; empty if there are none.
        """
        started = self.recall("tail") is not None
        joined = self.joined("tail", x)
        if joined.shape[-1] == 0:
            return joined
        pads = (0 if started else left, right if self.last else 0)
        joined = _padded(joined, pads, mode)
        count = max(0, (joined.shape[-1] - length) // stride + 1)
        self.keep("tail", joined[..., count * stride :])
        return joined[..., : (count - 1) * stride + length] if count else joined[..., :0]

    def together(self, name: str, *streams: Tensor) -> tuple[Tensor, ...]:
        """Streams that do not arrive at the same time, as far as all of them have come; the rest is kept.

        ``(..., time)`` of any lengths -> the same of one length.
        """
        parts = [self.joined(f"{name}.{number}", stream) for number, stream in enumerate(streams)]
        ready = min(part.shape[-1] for part in parts)
        for number, part in enumerate(parts):
            self.keep(f"{name}.{number}", part[..., ready:])
        return tuple(part[..., :ready] for part in parts)


def _padded(x: Tensor, pads: tuple[int, int], mode: str) -> Tensor:
    if pads == (0, 0):
        return x
    return F.pad(x, pads, mode=mode)

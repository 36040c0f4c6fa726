"""CUDA graphs: the kernels of a forward of one shape, recorded once and started together.

A generator starts hundreds of small kernels; for a short chunk starting them takes longer than running them. Pieces of
a long file and chunks of fixed length have the same shapes again and again: what comes a second time is recorded.
"""

import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from melisma.source import Randomness

_MOST_SHAPES = 8  # of one generator; every graph keeps its own memory
_WARM_UPS = 3

Inputs = dict[str, Tensor | None]
Recorder = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


def record(forward: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record a forward on the current CUDA device; returns what plays it again, and its output."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    # Weights that autocast keeps between layers would not outlive its block; the graph would read freed memory.
    with torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                forward()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = forward()
    return graph.replay, out


class Recordings:
    """The recorded forwards of one generator.

    Args:
        recorder: records a forward, see :func:`record`.
    """

    def __init__(self, recorder: Recorder = record) -> None:
        self.recorder = recorder
        self.seen: set[Any] = set()
        self.failed: set[Any] = set()
        self.made: dict[Any, tuple[Inputs, Callable[[], None], Tensor]] = {}

    def sing(
        self,
        generator: Any,
        features: Tensor,
        f0_hz: Tensor | None,
        speaker: Tensor | None = None,
        randomness: Randomness | None = None,
        **settings: Any,
    ) -> Tensor:
        """As the generator's forward, played from a recording where there is one."""
        inputs: Inputs = {"features": features, "f0_hz": f0_hz, "speaker": speaker}
        for field in fields(Randomness):
            inputs[field.name] = None if randomness is None else getattr(randomness, field.name)
        inputs |= {name: value for name, value in settings.items() if isinstance(value, Tensor)}
        settings = {name: value for name, value in settings.items() if name not in inputs}
        key = _key(generator, inputs, settings)
        if key in self.seen and key not in self.made and key not in self.failed and len(self.made) < _MOST_SHAPES:
            self._record(key, generator, inputs, settings)
        self.seen.add(key)
        if key not in self.made:
            return _forward(generator, inputs, settings)
        kept, play, out = self.made[key]
        for name, tensor in kept.items():
            if tensor is not None:
                tensor.copy_(inputs[name])  # type: ignore[arg-type]
        play()
        return out.clone()

    def _record(self, key: Any, generator: Any, inputs: Inputs, settings: dict[str, Any]) -> None:
        kept = {name: None if tensor is None else tensor.clone() for name, tensor in inputs.items()}
        try:
            self.made[key] = (kept, *self.recorder(lambda: _forward(generator, kept, settings)))
        except RuntimeError as error:
            self.failed.add(key)
            reason = str(error).splitlines()[0]
            warnings.warn(f"no CUDA graph could be recorded ({reason}); it goes on without", UserWarning, stacklevel=4)


def _key(generator: Any, inputs: Inputs, settings: dict[str, Any]) -> Any:
    shapes = tuple((name, None if x is None else (x.shape, x.dtype)) for name, x in inputs.items())
    weights = tuple(weight.data_ptr() for weight in generator.parameters())
    return shapes, tuple(sorted(settings.items())), torch.is_autocast_enabled("cuda"), weights


def _forward(generator: Any, inputs: Inputs, settings: dict[str, Any]) -> Tensor:
    draws = {field.name: inputs[field.name] for field in fields(Randomness)}
    others = {name: value for name, value in inputs.items() if name not in draws}
    if any(drawn is not None for drawn in draws.values()):
        return generator(**others, **settings, randomness=Randomness(**draws))
    return generator(**others, **settings)


_recordings: WeakKeyDictionary[nn.Module, Recordings] = WeakKeyDictionary()


def on(device: torch.device, generator: Any) -> Callable[..., Tensor]:
    """The generator's forward on that device: on a CUDA device one that plays recordings. All draws must be given."""
    if device.type != "cuda":
        return generator
    return partial(_recordings.setdefault(generator, Recordings()).sing, generator)

"""What is trained: a generator, the table of its speakers where it has one, and what both make of a batch."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from melisma.audio.mel_bands import natural
from melisma.generators import GENERATORS
from melisma.generators.spectral import Spectral
from melisma.training.batch import Batch


class Voice(nn.Module):
    """A generator and its speakers.

    Args:
        config: of a generator of the table.
        speakers: number of speakers; of no account where the generator has no speaker input.
    """

    def __init__(self, config: Any, speakers: int) -> None:
        super().__init__()
        generator_class = next(kind for config_class, kind in GENERATORS.values() if type(config) is config_class)
        self.generator: Any = generator_class(config)
        channels = getattr(config, "speaker_channels", 0)
        self.speakers = nn.Embedding(max(1, speakers), channels) if channels else None

    def vector(self, rows: Tensor | None) -> Tensor | None:
        """Speaker vectors ``(batch, channels, 1)``."""
        return None if self.speakers is None or rows is None else self.speakers(rows).unsqueeze(-1)


@dataclass(frozen=True)
class Wish:
    """What the losses of a step ask for: a second draw, and rounds of mel projection after the first."""

    again: bool = False
    rounds: int = 0


@dataclass(frozen=True)
class Made:
    """Audio of a batch, ``(batch, samples)`` each: the plain one, a second draw of its noise, and the projected one."""

    audio: Tensor
    again: Tensor | None = None
    projected: Tensor | None = None


def make(voice: Voice, batch: Batch, wish: Wish, half: bool) -> Made:
    """Sing a batch; with ``half`` a convolutional generator computes in bfloat16."""
    if isinstance(voice.generator, Spectral):
        return _make_spectral(voice.generator, batch, wish)
    with half_precision(voice.generator, batch.reference.device.type, half):
        made = [
            voice.generator(batch.features, batch.f0_hz, voice.vector(batch.speaker), draws).float().squeeze(1)
            for draws in ((batch.draws.first, batch.draws.second) if wish.again else (batch.draws.first,))
        ]
    return Made(*made)


def _make_spectral(generator: Spectral, batch: Batch, wish: Wish) -> Made:
    wanted = natural(batch.features, generator.mel).transpose(1, 2)
    audio, excitation = generator.sing(wanted, batch.f0_hz, batch.draws.first)
    again = None
    if wish.again and batch.draws.second is not None:
        # The same phase: only the noise tells two draws apart.
        second = dataclasses.replace(batch.draws.second, initial_phase=batch.draws.first.initial_phase)
        again, _ = generator.sing(wanted, batch.f0_hz, second)
    projected = generator.project(audio, wanted, excitation, wish.rounds, cut=True) if wish.rounds else None
    return Made(audio, again, projected)


@contextmanager
def half_precision(generator: nn.Module, device: str, on: bool) -> Iterator[None]:
    """Compute in bfloat16 but for the source and the last convolution: eight bits are no excitation and no audio."""
    if not on:
        yield
        return
    exact = [part for name in ("source", "conv_post") if (part := getattr(generator, name, None)) is not None]
    stack = ExitStack()

    def before(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        stack.enter_context(torch.autocast(device, enabled=False))
        return tuple(
            value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in given
        )

    def after(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        stack.close()

    hooks = [hook for part in exact for hook in (
        part.register_forward_pre_hook(before),
        part.register_forward_hook(after),
    )]  # fmt: skip
    try:
        with torch.autocast(device, torch.bfloat16):
            yield
    finally:
        stack.close()
        for hook in hooks:
            hook.remove()

"""The spectral family chunk by chunk: the same parts as its forward without projections, nothing computed twice."""

from typing import TYPE_CHECKING

from torch import Tensor

from melisma.audio.mel_bands import natural
from melisma.generators.spectral_parts import Masks, Proposal
from melisma.layers.streaming import Memory, State
from melisma.source import Randomness

if TYPE_CHECKING:
    from melisma.generators.analytic import Analytic


def step(
    generator: "Analytic", features: Tensor, f0_hz: Tensor, memory: Memory, randomness: Randomness
) -> tuple[Tensor, State]:
    """See :meth:`melisma.generators.spectral.Analytic.step`."""
    memory.count("frames", features.shape[-1])
    wanted = natural(features, generator.mel).transpose(1, 2)
    held = memory.through("hold", generator.hold, f0_hz)
    train = memory.through("train", generator.train_layer, held, randomness.initial_phase)
    noise = generator.drawn(features, randomness.noise)
    pulse_mel = generator.pulse_mel(train, memory.at("pulse_mel"))
    wanted, f0_hz, pulse_mel = memory.together("frames", wanted, f0_hz, pulse_mel, axis=1)
    proposal = generator.start(wanted, f0_hz, pulse_mel, memory)
    for number, stage in enumerate(generator.stages):
        at, heard = memory.at(f"stage{number}"), None
        if generator.drafts:
            heard = generator.mel_of(_sung(generator, proposal, train, noise, at), at)
        proposal = stage(proposal, heard, at)
    audio = _sung(generator, proposal, train, noise, memory.at("sung"))
    return audio.unsqueeze(1), memory.state


def _sung(generator: "Analytic", proposal: Proposal, train: Tensor, noise: Tensor, memory: Memory) -> Tensor:
    """The audio of what a step proposes; spectra wait as samples for masks, and masks for spectra.

    ``train`` and ``noise`` are the next samples of both.
    """
    masks = generator.between(proposal, memory)
    ready = memory.waiting("masks", masks.pulse_log, axis=1)
    pulses = memory.through("pulses", generator.mask_framing, train, ready)
    drawn = memory.through("noise", generator.mask_framing, noise, pulses.shape[1])
    rows = memory.first("masks", pulses.shape[1], masks.pulse_log, masks.noise_log, axis=1)
    return generator.render(Masks(*rows), pulses, drawn, memory)

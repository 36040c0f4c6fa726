"""The spectral family chunk by chunk: the same parts as its forward without projections, nothing computed twice."""

import dataclasses
from typing import TYPE_CHECKING

from torch import Tensor

from melisma.audio.mel_bands import natural
from melisma.generators.spectral_parts import Excitation, Masks
from melisma.layers.streaming import Memory, State
from melisma.source import Randomness

if TYPE_CHECKING:
    from melisma.generators.spectral import Analytic


def step(
    generator: "Analytic", features: Tensor, f0_hz: Tensor, memory: Memory, randomness: Randomness
) -> tuple[Tensor, State]:
    """See :meth:`melisma.generators.spectral.Analytic.step`."""
    memory.count("frames", features.shape[-1])
    wanted = natural(features, generator.mel).transpose(1, 2)
    train = memory.through("train", generator.train_layer, f0_hz, randomness.initial_phase)
    pulse_mel = generator.pulse_mel(train, memory)
    wanted, f0_hz, pulse_mel = memory.together("frames", wanted, f0_hz, pulse_mel, axis=1)
    excitation = Excitation(train.new_zeros(0), pulse_mel, (f0_hz > 0).to(wanted.dtype))
    masks = generator.masks(wanted, f0_hz, excitation, memory.at("masks"))
    # Spectra wait as samples until there are masks for them, and masks until there are spectra.
    ready = memory.waiting("masks", masks.pulse_log, axis=1)
    pulses = memory.through("pulses", generator.mask_framing, train, ready)
    noise = memory.through(
        "noise", generator.mask_framing, generator.drawn(features, randomness.noise), pulses.shape[1]
    )
    parts = [masks.pulse_log, masks.noise_log, *([] if masks.pulse_angle is None else [masks.pulse_angle])]
    pulse_log, noise_log, *angle = memory.first("masks", pulses.shape[1], *parts, axis=1)
    masks = Masks(pulse_log, angle[0] if angle else None, noise_log)
    audio = generator.render(masks, dataclasses.replace(excitation, pulses=pulses), noise, memory)
    return audio.unsqueeze(1), memory.state

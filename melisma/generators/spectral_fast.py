"""What is filtered in the spectral generators, for listening on a CPU.

The same computation as in ``analytic.py`` and ``spectral.py``, whose forward takes this way where it can; tests hold
them together.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import band_to_bin_weights, flat_mel, noise_share, pulse_part
from melisma.audio.stft import hann
from melisma.constants import constant
from melisma.generators.spectral_parts import Proposal
from melisma.kernels.grid import Transform, together
from melisma.kernels.masks import Masks
from melisma.kernels.projection import neighbours
from melisma.layers.framing import Subframes

if TYPE_CHECKING:
    from melisma.generators.analytic import Analytic, AnalyticConfig


class FastFilters:
    """Proposals to audio, for one pulse train and one noise, each ``(batch, samples)``."""

    def __init__(self, generator: "Analytic", train: Tensor, noise: Tensor) -> None:
        config = generator.config
        shared = _masks(config.mel, config.n_fft, config.subframes, config.causal)
        frames = train.shape[1] // config.mel.hop_length
        self.clips = [shared.clip(*rows, frames) for rows in zip(train, noise, strict=True)]

    def __call__(self, proposal: Proposal) -> Tensor:
        """``(batch, samples)``."""
        rows = zip(self.clips, proposal.pulse_log, proposal.noise_log, strict=True)
        return together([clip.sing(pulse, noise) for clip, pulse, noise in rows])


def fast_start(
    config: "AnalyticConfig", wanted: Tensor, width_hz: Tensor, f0_hz: Tensor, held: float
) -> tuple[Tensor, Tensor]:
    """The masks that :meth:`melisma.generators.analytic.Analytic.start` begins with."""
    shared = _masks(config.mel, config.n_fft, config.subframes, config.causal)
    width = (width_hz * config.n_fft / config.mel.sample_rate).clamp(min=1.0, max=len(shared.lower) / 2).double()
    made = [shared.begin(*rows, held) for rows in zip(wanted, width, f0_hz, strict=True)]
    pulse_log, noise_log = (together(masks) for masks in zip(*made, strict=True))
    return pulse_log, noise_log


def fast_belief(
    config: "AnalyticConfig", proposal: Proposal, missed: Tensor, belief: Tensor, said: Tensor | None = None
) -> Proposal:
    """What :class:`melisma.generators.spectral.Spectral` makes of a draft; ``said`` is added to both masks besides."""
    shared = _masks(config.mel, config.n_fft, config.subframes, config.causal)
    own = [None] * len(missed) if said is None else said
    rows = zip(proposal.pulse_log, proposal.noise_log, missed, belief, own, strict=True)
    made = [shared.believe((pulse, noise), *heard) for pulse, noise, *heard in rows]
    pulse_log, noise_log = (together(masks) for masks in zip(*made, strict=True))
    return dataclasses.replace(proposal, pulse_log=pulse_log, noise_log=noise_log)


@constant(8)
def _masks(mel: MelContract, n_fft: int, subframes: int, causal: bool) -> Masks:
    like, hop_length = torch.zeros(0), mel.hop_length // subframes
    transform = Transform(hop_length, hann(n_fft, like).numpy(), (n_fft - hop_length) // 2, reflected=False)
    lower, weights = neighbours(band_to_bin_weights(mel, n_fft, like.device, like.dtype))
    offsets = np.array(Subframes(subframes, causal).offsets, np.float32)
    share = noise_share(mel.sample_rate, n_fft, like.device, like.dtype)
    split = (pulse_part(share).numpy(), torch.log(share).numpy())
    return Masks(transform, offsets, mel.floor**2, flat_mel(mel, like), lower, weights, split)

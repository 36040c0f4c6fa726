"""What the steps of the spectral generators hand on."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Excitation:
    """What the masks filter, and what the mel of the pulse train looks like.

    Attributes:
        pulses: complex ``(batch, mask_frames, bins)``.
        pulse_mel: natural log-mel of the pulse train relative to that of unit white noise, ``(batch, frames, n_mels)``.
        voiced: ``(batch, frames)``, 1 where F0 is given.
    """

    pulses: Tensor
    pulse_mel: Tensor
    voiced: Tensor


@dataclass(frozen=True)
class Masks:
    """Filters of the two priors, each ``(batch, mask_frames, bins)``.

    Attributes:
        pulse_log: natural log magnitude on the pulse train.
        pulse_angle: phase in radians, or None for zero phase.
        noise_log: natural log magnitude on the noise.
    """

    pulse_log: Tensor
    pulse_angle: Tensor | None
    noise_log: Tensor

"""What the steps of the spectral generators hand on."""

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from melisma.layers.streaming import Time


@dataclass(frozen=True)
class Excitation:
    """The pulse train and what is known of it.

    Attributes:
        train: ``(batch, samples)``.
        pulse_mel: natural log-mel of the pulse train relative to that of unit white noise, ``(batch, frames, n_mels)``.
        voiced: ``(batch, frames)``, 1 where F0 is given.
    """

    train: Tensor
    pulse_mel: Tensor
    voiced: Tensor


@dataclass(frozen=True)
class Masks:
    """Natural log magnitudes of the filters of the two priors, each ``(batch, mask_frames, bins)``.

    They have no phase. One that a network predicts can only guess, and what it finds first is to turn the phase to and
    fro, which fills the valleys between harmonics with a buzz at the frame rate (docs/experiments.md).
    """

    pulse_log: Tensor
    noise_log: Tensor


@dataclass(frozen=True)
class Proposal:
    """Masks at the frames while they are being made, with what they are made from; all ``(batch, frames, ...)``.

    Attributes:
        wanted: natural log-mel.
        f0_hz: F0, without a last axis.
        pulse_mel: as in :class:`Excitation`.
        pulse_log: natural log magnitude on the pulse train.
        noise_log: the same on the noise.
        sharp: whether the mel has detail enough to be met exactly, ``(batch, frames)`` in [0, 1].
        foreign: whether that detail is of another pitch than F0, likewise; without meaning in unvoiced frames.
        belief: how far to believe what the next draft misses, for each band and prior; None where nothing asks.
    """

    wanted: Tensor
    f0_hz: Tensor
    pulse_mel: Tensor
    pulse_log: Tensor
    noise_log: Tensor
    sharp: Tensor
    foreign: Tensor
    belief: Tensor | None = None

    @property
    def voiced(self) -> Tensor:
        """1 where F0 is given."""
        return (self.f0_hz > 0).to(self.wanted.dtype)

    @property
    def detailed(self) -> Tensor:
        """Whether the mel has detail, and of this pitch, ``(batch, frames)`` in [0, 1]; half a doubt is enough."""
        return self.sharp * (1.0 - (2.0 * self.foreign).clamp(max=1.0) * self.voiced)

    def still(self) -> "Proposal":
        """This for a draft, through which no gradient goes: what it misses is an observation."""
        return dataclasses.replace(self, pulse_log=self.pulse_log.detach(), noise_log=self.noise_log.detach())

    def plus(self, pulse: Tensor, noise: Tensor) -> "Proposal":
        """This with so much added to the log magnitudes."""
        return dataclasses.replace(self, pulse_log=self.pulse_log + pulse, noise_log=self.noise_log + noise)

    def together(self, name: str, time: Time, *more: Tensor) -> tuple["Proposal", tuple[Tensor, ...]]:
        """This and other streams as far as all of them have come."""
        own = [value for value in vars(self).values() if value is not None]
        rows = time.together(name, *own, *more, axis=1)
        return Proposal(*rows[: len(own)]), rows[len(own) :]

"""Training losses, and the table of them."""

from collections.abc import Callable

from torch import Tensor

from melisma.losses.adversarial import (
    discriminator_loss,
    feature_matching_loss,
    feature_matching_parts,
    generator_loss,
    least_squares_parts,
)
from melisma.losses.mel import mel_loss
from melisma.losses.spectral import energy_distance, spectral_distance

LOSSES: dict[str, Callable[..., Tensor]] = {
    "discriminator": discriminator_loss,
    "generator": generator_loss,
    "feature-matching": feature_matching_loss,
    "mel": mel_loss,
    "spectral": spectral_distance,
    "spectral-energy": energy_distance,
}

__all__ = [
    "LOSSES",
    "discriminator_loss",
    "energy_distance",
    "feature_matching_loss",
    "feature_matching_parts",
    "generator_loss",
    "least_squares_parts",
    "mel_loss",
    "spectral_distance",
]

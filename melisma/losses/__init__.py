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

LOSSES: dict[str, Callable[..., Tensor]] = {
    "discriminator": discriminator_loss,
    "generator": generator_loss,
    "feature-matching": feature_matching_loss,
    "mel": mel_loss,
}

__all__ = [
    "LOSSES",
    "discriminator_loss",
    "feature_matching_loss",
    "feature_matching_parts",
    "generator_loss",
    "least_squares_parts",
    "mel_loss",
]

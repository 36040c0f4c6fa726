"""Training losses, and the tables of them.

:data:`LOSSES` holds all by the names under which recipes ask for them; :data:`ADVERSARIAL` the pairs of those that have
two sides: what the discriminators minimise, and what the generator does.
"""

from collections.abc import Callable

from torch import Tensor

from melisma.losses.adversarial import (
    discriminator_loss,
    feature_matching_loss,
    feature_matching_parts,
    generator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_parts,
)
from melisma.losses.harmonicity import harmonicity_loss
from melisma.losses.loudness import loudness_loss
from melisma.losses.mel import contract_mel_loss, mel_loss, multi_scale_mel_loss
from melisma.losses.spectral import complex_stft_loss, energy_distance, mr_stft_loss, spectral_distance

Loss = Callable[..., Tensor]

ADVERSARIAL: dict[str, tuple[Loss, Loss]] = {
    "least-squares": (discriminator_loss, generator_loss),
    "hinge": (hinge_discriminator_loss, hinge_generator_loss),
}
LOSSES: dict[str, Loss] = {
    "discriminator": discriminator_loss,
    "generator": generator_loss,
    "hinge-discriminator": hinge_discriminator_loss,
    "hinge-generator": hinge_generator_loss,
    "feature-matching": feature_matching_loss,
    "mel": mel_loss,
    "contract-mel": contract_mel_loss,
    "multi-scale-mel": multi_scale_mel_loss,
    "mr-stft": mr_stft_loss,
    "harmonicity": harmonicity_loss,
    "loudness": loudness_loss,
    "complex-stft": complex_stft_loss,
    "spectral": spectral_distance,
    "spectral-energy": energy_distance,
}

__all__ = [
    "ADVERSARIAL",
    "LOSSES",
    "complex_stft_loss",
    "contract_mel_loss",
    "discriminator_loss",
    "energy_distance",
    "feature_matching_loss",
    "feature_matching_parts",
    "generator_loss",
    "harmonicity_loss",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "least_squares_parts",
    "loudness_loss",
    "mel_loss",
    "mr_stft_loss",
    "multi_scale_mel_loss",
    "spectral_distance",
]

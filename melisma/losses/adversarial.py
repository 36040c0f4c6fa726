"""Adversarial losses, for both sides, and feature matching.

Least squares (Mao et al. 2017, as in HiFi-GAN) wants 1 for real and 0 for made; the hinge (Lim & Ye 2017, as in
EnCodec) wants at least 1 for real and at most -1 for made.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Scores = Sequence[Tensor]
FeatureMaps = Sequence[Sequence[Tensor]]


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def least_squares_parts(scores: Scores, target: float) -> Tensor:
    """Mean squared distance of each sub-discriminator's scores from ``target``.

    Args:
        scores: one tensor of any shape for each sub-discriminator.
        target: 1 for what should look real, 0 for what should look made.

    Returns:
        ``(sub-discriminators,)``, in float32 at least.
    """
    return torch.stack([(target - _wide(scored)).square().mean() for scored in scores])


def discriminator_loss(real_scores: Scores, fake_scores: Scores) -> Tensor:
    """Total over all sub-discriminators, a scalar: real should score 1 and made 0."""
    return (least_squares_parts(real_scores, 1.0) + least_squares_parts(fake_scores, 0.0)).sum()


def generator_loss(fake_scores: Scores) -> Tensor:
    """Total over all sub-discriminators, a scalar: the generator wants its audio to score 1."""
    return least_squares_parts(fake_scores, 1.0).sum()


def hinge_discriminator_loss(real_scores: Scores, fake_scores: Scores) -> Tensor:
    """Hinge over all sub-discriminators, a scalar: nothing is gained by scoring real above 1 or made below -1."""
    real = torch.stack([(1.0 - _wide(scored)).relu().mean() for scored in real_scores])
    fake = torch.stack([(1.0 + _wide(scored)).relu().mean() for scored in fake_scores])
    return (real + fake).sum()


def hinge_generator_loss(fake_scores: Scores) -> Tensor:
    """The generator's side of the hinge, a scalar: its audio should score high, without an end."""
    return -torch.stack([_wide(scored).mean() for scored in fake_scores]).sum()


def feature_matching_parts(real_maps: FeatureMaps, fake_maps: FeatureMaps) -> Tensor:
    """Twice the L1 distance of the feature maps, summed over the layers, for each sub-discriminator.

    No gradient flows into ``real_maps``. The factor 2 is the seed's.
    """
    return 2.0 * torch.stack(
        [
            torch.stack(
                [(_wide(real.detach()) - _wide(fake)).abs().mean() for real, fake in zip(reals, fakes, strict=True)]
            ).sum()
            for reals, fakes in zip(real_maps, fake_maps, strict=True)
        ]
    )


def feature_matching_loss(real_maps: FeatureMaps, fake_maps: FeatureMaps) -> Tensor:
    """Total of :func:`feature_matching_parts`, a scalar."""
    return feature_matching_parts(real_maps, fake_maps).sum()

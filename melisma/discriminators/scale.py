"""Multi-scale discriminator (MelGAN, Kumar et al. 2019, in HiFi-GAN's sizes), and the single scale of VITS."""

from collections.abc import Callable
from math import gcd

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from melisma.discriminators.base import ConvStack, Discriminator, scaled

# output channels, kernel, stride, groups
LAYERS = (
    (128, 15, 1, 1),
    (128, 41, 2, 4),
    (256, 41, 2, 16),
    (512, 41, 4, 16),
    (1024, 41, 4, 16),
    (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)
# The one scale of VITS (Kim et al. 2021), so-vits-svc and RVC
VITS_LAYERS = (
    (16, 15, 1, 1),
    (64, 41, 4, 4),
    (256, 41, 4, 16),
    (1024, 41, 4, 64),
    (1024, 41, 4, 256),
    (1024, 5, 1, 1),
)
SCALES = 3


Norm = Callable[[nn.Module], nn.Module]


def _stack(layers: tuple[tuple[int, int, int, int], ...], norm: Norm, width: float) -> ConvStack:
    convs: list[nn.Module] = []
    channels = 1
    for usual, kernel, stride, groups in layers:
        out = scaled(usual, width)
        # A narrow discriminator has fewer groups, so that each keeps a channel.
        convs.append(
            norm(nn.Conv1d(channels, out, kernel, stride, padding=kernel // 2, groups=gcd(groups, channels, out)))
        )
        channels = out
    return ConvStack(convs, norm(nn.Conv1d(channels, 1, 3, padding=1)))


class MultiScale(Discriminator):
    """Sub-discriminators that see the audio at full, half and quarter rate; the first one is spectrally normalised.

    Args:
        width: share of the usual channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        norms = [spectral_norm] + [weight_norm] * (SCALES - 1)
        self.discriminators = nn.ModuleList(_stack(LAYERS, norm, width) for norm in norms)

    def views(self, audio: Tensor) -> list[Tensor]:
        """Halve the rate from scale to scale by averaging four samples."""
        views = [audio]
        for _ in range(SCALES - 1):
            views.append(F.avg_pool1d(views[-1], 4, 2, padding=2))
        return views


class SingleScale(Discriminator):
    """The sub-discriminator on plain audio that stands beside the periods in VITS, so-vits-svc and RVC.

    Args:
        width: share of the usual channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList([_stack(VITS_LAYERS, weight_norm, width)])

    def views(self, audio: Tensor) -> list[Tensor]:
        """The audio itself."""
        return [audio]

"""Multi-scale discriminator (MelGAN, Kumar et al. 2019, in HiFi-GAN's sizes)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from melisma.discriminators.base import ConvStack, Discriminator

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
SCALES = 3


class MultiScale(Discriminator):
    """Sub-discriminators that see the audio at full, half and quarter rate; the first one is spectrally normalised."""

    def __init__(self) -> None:
        super().__init__()
        norms = [spectral_norm] + [weight_norm] * (SCALES - 1)
        self.discriminators = nn.ModuleList(self._stack(norm) for norm in norms)

    @staticmethod
    def _stack(norm: Callable[[nn.Module], nn.Module]) -> ConvStack:
        convs: list[nn.Module] = []
        channels = 1
        for out, kernel, stride, groups in LAYERS:
            convs.append(norm(nn.Conv1d(channels, out, kernel, stride, padding=kernel // 2, groups=groups)))
            channels = out
        return ConvStack(convs, norm(nn.Conv1d(channels, 1, 3, padding=1)))

    def views(self, audio: Tensor) -> list[Tensor]:
        """Halve the rate from scale to scale by averaging four samples."""
        views = [audio]
        for _ in range(SCALES - 1):
            views.append(F.avg_pool1d(views[-1], 4, 2, padding=2))
        return views

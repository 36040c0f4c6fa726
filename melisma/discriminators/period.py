"""Multi-period discriminator (HiFi-GAN, Kong et al. 2020)."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from melisma.discriminators.base import ConvStack, Discriminator, scaled

# output channels and stride of each layer; the kernel spans 5 periods, the last one 3
LAYERS = ((32, 3), (128, 3), (512, 3), (1024, 3), (1024, 1))


def fold_into_periods(audio: Tensor, period: int) -> Tensor:
    """``(batch, 1, samples)`` -> ``(batch, 1, ceil(samples / period), period)``, reflected at the end to fill up."""
    missing = -audio.shape[-1] % period
    if missing:
        audio = F.pad(audio, (0, missing), "reflect" if missing < audio.shape[-1] else "constant")
    return audio.unflatten(-1, (-1, period))


class MultiPeriod(Discriminator):
    """Sub-discriminators that each see every ``period``-th sample side by side.

    Args:
        periods: in samples; primes, so that they overlap little.
        width: share of the usual channels.
    """

    def __init__(self, periods: tuple[int, ...] = (2, 3, 5, 7, 11), width: float = 1.0) -> None:
        super().__init__()
        self.periods = tuple(periods)
        self.discriminators = nn.ModuleList(self._stack(width) for _ in self.periods)

    @staticmethod
    def _stack(width: float) -> ConvStack:
        convs: list[nn.Module] = []
        channels = 1
        for usual, stride in LAYERS:
            out = scaled(usual, width)
            convs.append(weight_norm(nn.Conv2d(channels, out, (5, 1), (stride, 1), padding=(2, 0))))
            channels = out
        return ConvStack(convs, weight_norm(nn.Conv2d(channels, 1, (3, 1), padding=(1, 0))))

    def views(self, audio: Tensor) -> list[Tensor]:
        """Fold the audio by each period."""
        return [fold_into_periods(audio, period) for period in self.periods]

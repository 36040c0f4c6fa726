"""What the discriminators share: a stack of convolutions that tells its feature maps, and loading."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from melisma.discriminators.foreign import load_weights

SLOPE = 0.1  # of every leaky ReLU (HiFi-GAN)

Judgement = tuple[list[Tensor], list[list[Tensor]]]


def scaled(channels: int, width: float) -> int:
    """So many of the usual channels, at least one."""
    return max(1, round(channels * width))


class ConvStack(nn.Module):
    """Convolutions with leaky ReLU between them; every output is a feature map, the last one is the score.

    Args:
        convs: the layers that a leaky ReLU follows.
        conv_post: the last layer, one output channel.
    """

    def __init__(self, convs: list[nn.Module], conv_post: nn.Module) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.conv_post = conv_post

    def forward(self, signal: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``(batch, channels, ...)`` -> scores ``(batch, n)`` and the feature maps, the unflattened scores last."""
        maps = []
        for conv in self.convs:
            signal = F.leaky_relu(conv(signal), SLOPE)
            maps.append(signal)
        maps.append(self.conv_post(signal))
        return maps[-1].flatten(1), maps


class Discriminator(nn.Module, ABC):
    """A set of sub-discriminators, each of which judges another view of the same audio."""

    discriminators: nn.ModuleList

    @abstractmethod
    def views(self, audio: Tensor) -> list[Tensor]:
        """What each sub-discriminator gets to see of ``(batch, 1, samples)``."""

    def forward(self, audio: Tensor) -> Judgement:
        """Judge audio.

        Args:
            audio: ``(batch, 1, samples)``, full scale 1.

        Returns:
            Scores, one ``(batch, n)`` for each sub-discriminator (1 is real, 0 is made), and for each the list of its
            feature maps.
        """
        judged = [judge(view) for judge, view in zip(self.discriminators, self.views(audio), strict=True)]
        return [scores for scores, _ in judged], [maps for _, maps in judged]

    def load_foreign(self, state: Mapping[str, Any]) -> Self:
        """Load weights of so-vits-svc, HiFi-GAN or SingingVocoders in any spelling of their norms.

        The discriminator is left in eval mode, as by every loader: in training mode spectral norm moves its vectors at
        each call. Returns itself.

        Raises:
            MelismaError: missing, extra or misshapen entries; the line names them.
        """
        load_weights(self, state, type(self).__name__)
        return self.eval()

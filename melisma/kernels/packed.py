"""What all convolutions have in common whose weights are laid out for a kernel."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PackedConvolution:
    """A convolution of stride one.

    Attributes:
        weights: as the kernel reads them.
        bias: ``(out_channels,)``.
        channels: in and out.
        kernel: taps, odd.
        dilation: samples between taps.
    """

    weights: np.ndarray
    bias: np.ndarray
    channels: tuple[int, int]
    kernel: int
    dilation: int

    @property
    def reach(self) -> int:
        """Samples on either side of one that count for it."""
        return self.kernel // 2 * self.dilation

"""Multi-scale sub-band constant-Q discriminator (Gu et al. 2023, "Multi-Scale Sub-Band Constant-Q Transform
Discriminator for High-Fidelity Vocoder").

A constant-Q transform has as many bins in each octave and so resolves the harmonics of low notes and the timing of high
ones, which no STFT does at once: it was made for singing.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from melisma.discriminators.base import ConvStack, Discriminator, scaled

CHANNELS = 32
KERNEL = (3, 9)  # over time and bins
TIME_DILATIONS = (1, 2, 4)
BIN_STRIDE = 2
LOWEST_HZ = 32.70  # C1
HIGHEST_SHARE = 0.9  # of half the sample rate: the transform ends below it
HALVING_TAPS = 63


class ConstantQ(nn.Module):
    """Constant-Q transform of ``octaves`` octaves: the highest at the full rate, each lower one at half the rate.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames; divisible by ``2 ** (octaves - 1)``.
        octaves: the lowest one begins at C1, lower where half the sample rate leaves less room.
        bins_per_octave: bins in each octave.
    """

    kernels: Tensor
    halving: Tensor

    def __init__(self, sample_rate: float, hop_length: int, octaves: int, bins_per_octave: int) -> None:
        super().__init__()
        self.hop_length, self.octaves = hop_length, octaves
        highest = min(LOWEST_HZ * 2.0**octaves, HIGHEST_SHARE * sample_rate / 2)
        self.lowest_hz = highest / 2.0**octaves
        frequencies = highest / 2.0 * 2.0 ** (torch.arange(bins_per_octave, dtype=torch.float64) / bins_per_octave)
        quality = 1.0 / (2.0 ** (1.0 / bins_per_octave) - 1.0)
        longest = math.ceil(quality * sample_rate / float(frequencies[0])) | 1
        time = (torch.arange(longest, dtype=torch.float64) - longest // 2) / sample_rate
        lengths = quality / frequencies.unsqueeze(1)  # seconds
        inside = (time.abs() <= lengths / 2).double()
        window = (0.5 + 0.5 * torch.cos(2 * math.pi * time / lengths)) * inside
        window = window / window.sum(dim=1, keepdim=True)
        angle = 2 * math.pi * frequencies.unsqueeze(1) * time
        kernels = torch.cat([window * angle.cos(), -window * angle.sin()]).unsqueeze(1)
        self.register_buffer("kernels", kernels.float(), persistent=False)
        self.register_buffer("halving", _half_band(HALVING_TAPS), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """``(batch, samples)`` -> ``(batch, 2, frames, bins)``: real and imaginary part; a full-scale sine gives 0.5.

        ``frames = ceil(samples / hop_length)``; frame ``t`` is centred on ``t * hop_length``.
        """
        frames = -(-audio.shape[-1] // self.hop_length)
        signal, hop = audio.unsqueeze(1), self.hop_length
        octaves = []
        for number in range(self.octaves):
            if number:
                signal = F.conv1d(F.pad(signal, (HALVING_TAPS // 2,) * 2), self.halving, stride=2)
                hop //= 2
            side = self.kernels.shape[-1] // 2
            missing = max(0, (frames - 1) * hop + 1 - signal.shape[-1])
            found = F.conv1d(F.pad(signal, (side, side + missing)), self.kernels, stride=hop)[..., :frames]
            octaves.append(found.unflatten(1, (2, -1)))
        return torch.cat(octaves[::-1], dim=2).transpose(2, 3)


def _half_band(taps: int) -> Tensor:
    """Low-pass at a quarter of the rate, ``(1, 1, taps)``: Kaiser window, about 80 dB down from 0.28 of the rate on."""
    time = torch.arange(taps, dtype=torch.float64) - taps // 2
    kernel = 0.5 * torch.sinc(0.5 * time) * torch.kaiser_window(taps, periodic=False, beta=8.0, dtype=torch.float64)
    return (kernel / kernel.sum()).float().reshape(1, 1, taps)


class SubBandStack(ConvStack):
    """Judges one constant-Q transform: a convolution for each octave, then a stack over all of them."""

    def __init__(self, transform: ConstantQ, width: float) -> None:
        channels = scaled(CHANNELS, width)
        padding = (KERNEL[0] // 2, KERNEL[1] // 2)
        # Octaves come from different rates; each is brought into step with the others by a convolution of its own.
        sub_bands = [weight_norm(nn.Conv2d(2, 2, KERNEL, padding=padding)) for _ in range(transform.octaves)]
        convs: list[nn.Module] = [weight_norm(nn.Conv2d(2, channels, KERNEL, padding=padding))]
        for dilation in TIME_DILATIONS:
            convs.append(
                weight_norm(
                    nn.Conv2d(
                        channels,
                        channels,
                        KERNEL,
                        (1, BIN_STRIDE),
                        dilation=(dilation, 1),
                        padding=(dilation * (KERNEL[0] // 2), KERNEL[1] // 2),
                    )
                )
            )
        convs.append(weight_norm(nn.Conv2d(channels, channels, (3, 3), padding=(1, 1))))
        super().__init__(convs, weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1))))
        self.transform = transform
        self.sub_bands = nn.ModuleList(sub_bands)

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``(batch, 1, samples)`` -> scores ``(batch, n)`` and the feature maps."""
        with torch.autocast(audio.device.type, enabled=False):
            bands = self.transform(audio.float().squeeze(1)).chunk(self.transform.octaves, dim=3)
        return super().forward(torch.cat([conv(band) for conv, band in zip(self.sub_bands, bands, strict=True)], dim=3))


class SubBandCqt(Discriminator):
    """Sub-discriminators on constant-Q transforms of several resolutions.

    Args:
        sample_rate: of the audio, Hz.
        hop_lengths: samples between frames of each transform.
        bins_per_octave: of each transform.
        octaves: of all of them.
        width: share of the usual channels.
    """

    def __init__(
        self,
        sample_rate: float = 44100.0,
        hop_lengths: tuple[int, ...] = (512, 256, 256),
        bins_per_octave: tuple[int, ...] = (24, 36, 48),
        octaves: int = 9,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            SubBandStack(ConstantQ(sample_rate, hop, octaves, bins), width)
            for hop, bins in zip(hop_lengths, bins_per_octave, strict=True)
        )

    def views(self, audio: Tensor) -> list[Tensor]:
        """The audio itself: each sub-discriminator has its own transform."""
        return [audio] * len(self.discriminators)

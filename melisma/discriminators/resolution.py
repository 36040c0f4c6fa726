"""Multi-resolution STFT discriminator (UnivNet, Jang et al. 2021, in BigVGAN's sizes)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from melisma.audio.stft import centred_hann, pad_signal
from melisma.discriminators.base import ConvStack, Discriminator, scaled

CHANNELS = 32
# kernel and stride over frequency and time of each layer
LAYERS = (((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1)))
QUIET = 1e-9  # power below which the magnitude has no slope


class MultiResolution(Discriminator):
    """Sub-discriminators on linear magnitude spectrograms of several resolutions.

    Args:
        resolutions: FFT size, hop and window length of each.
        window: ``hann``, or ``rectangular`` as the weights of UnivNet and BigVGAN were trained.
        width: share of the usual channels.
    """

    def __init__(
        self,
        resolutions: tuple[tuple[int, int, int], ...] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        window: Literal["hann", "rectangular"] = "hann",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.resolutions, self.window = resolutions, window
        self.discriminators = nn.ModuleList(self._stack(width) for _ in resolutions)

    @staticmethod
    def _stack(width: float) -> ConvStack:
        convs: list[nn.Module] = []
        channels = 1
        for kernel, stride in LAYERS:
            out = scaled(CHANNELS, width)
            padding = (kernel[0] // 2, kernel[1] // 2)
            convs.append(weight_norm(nn.Conv2d(channels, out, kernel, stride, padding=padding)))
            channels = out
        return ConvStack(convs, weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1))))

    def views(self, audio: Tensor) -> list[Tensor]:
        """Magnitudes ``(batch, 1, n_fft // 2 + 1, frames)`` at each resolution, in float32."""
        with torch.autocast(audio.device.type, enabled=False):
            return [self._magnitudes(audio.float().squeeze(1), *resolution) for resolution in self.resolutions]

    def _magnitudes(self, audio: Tensor, n_fft: int, hop: int, win: int) -> Tensor:
        side = (n_fft - hop) // 2
        padded = pad_signal(audio, side, max(side, n_fft - side - audio.shape[-1]))
        if self.window == "hann":
            window = centred_hann(win, n_fft, padded)
        else:
            left = (n_fft - win) // 2
            window = F.pad(padded.new_ones(win), (left, n_fft - win - left))
        spectrum = torch.fft.rfft(padded.unfold(-1, n_fft, hop) * window)
        power = spectrum.real.square() + spectrum.imag.square()
        return power.clamp(min=QUIET).sqrt().transpose(1, 2).unsqueeze(1)

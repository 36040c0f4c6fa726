"""The spectral generator: masks on a harmonic and a noise prior, an inverse STFT and mel projections.

The idea in one line: *the pitch comes from F0 by multiplication, the sound from the mel.* A pulse train made from F0
and white noise are filtered in the short-time Fourier domain by masks at a small multiple of the frame rate. The masks
start from the envelope that signal processing reads off the mel (that alone is the model ``analytic``); a ConvNeXt
backbone (Liu et al. 2022; one-dimensional as in Vocos, Siuzdak 2023) corrects their magnitude and phase. A gated mel
projection then brings the result onto the mel.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import flat_mel, local_power, natural
from melisma.audio.stft import hann, odd_split, overlap_add, spectra
from melisma.errors import MelismaError
from melisma.layers.mel_projection import MelProjection, mel_of
from melisma.layers.pitch_gate import (
    GATE_HALO_FRAMES,
    RIPPLE_HALO_FRAMES,
    foreign_ripple,
    pitch_gate,
    ripple_hz,
)
from melisma.noise import counter_normal
from melisma.pulse import piece_phase, pulse_train
from melisma.source import Randomness


@dataclass(frozen=True)
class AnalyticConfig:
    """Settings of the untrained model.

    Attributes:
        mel: the mel contract; any.
        n_fft: FFT length of the mask transform, a multiple of four mask hops.
        subframes: mask frames a mel frame.
        projections: rounds of mel projection by default.
        low_rounds: rounds of projection on the low band for each full one.
    """

    mel: MelContract
    n_fft: int = 1024
    subframes: int = 2
    projections: int = 4
    low_rounds: int = 8

    def __post_init__(self) -> None:
        if self.mel.padding == "centre":
            raise MelismaError(
                "spectral generators need frames between samples: padding 'same' or 'nvstft', not 'centre'"
            )
        if self.mel.padding == "same" and self.mel.win_length != self.mel.n_fft:
            raise MelismaError("spectral generators need win_length = n_fft, or padding 'nvstft'")
        if self.mel.n_fft % self.mel.hop_length or self.mel.n_fft < 2 * self.mel.hop_length:
            raise MelismaError(
                f"n_fft {self.mel.n_fft} must be a multiple, at least twice, of hop {self.mel.hop_length}"
            )
        if self.mel.hop_length % (2 * self.subframes) or self.n_fft % (4 * self.mask_hop):
            raise MelismaError(
                f"hop_length {self.mel.hop_length} must be a multiple of {2 * self.subframes}, and n_fft {self.n_fft} "
                f"of four mask hops ({4 * self.mask_hop})"
            )

    @property
    def mask_hop(self) -> int:
        """Samples between mask frames."""
        return self.mel.hop_length // self.subframes


@dataclass(frozen=True)
class SpectralConfig(AnalyticConfig):
    """Settings of the trained model.

    Attributes:
        channels: width of the backbone.
        blocks: number of ConvNeXt blocks.
        expansion: width of a block's inner layer over ``channels``.
        kernel_size: frames that a block's depthwise convolution sees, odd.
    """

    channels: int = 256
    blocks: int = 8
    expansion: int = 3
    kernel_size: int = 7


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron per frame, as a residual. Channels last."""

    def __init__(self, channels: int, inner: int, kernel_size: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, inner)
        self.narrow = nn.Linear(inner, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, frames, channels)`` -> the same."""
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.narrow(F.gelu(self.widen(self.norm(y)), approximate="tanh"))


@dataclass(frozen=True)
class Excitation:
    """What the masks filter, and what the mel of the pulse train looks like.

    Attributes:
        pulses: complex ``(batch, mask_frames, bins)``.
        pulse_mel: natural log-mel of the pulse train relative to that of unit white noise, ``(batch, frames, n_mels)``.
        voiced: ``(batch, frames)``, 1 where F0 is given.
    """

    pulses: Tensor
    pulse_mel: Tensor
    voiced: Tensor


@dataclass(frozen=True)
class Masks:
    """Filters of the two priors, each ``(batch, mask_frames, bins)``.

    Attributes:
        pulse_log: natural log magnitude on the pulse train.
        pulse_angle: phase in radians, or None for zero phase.
        noise_log: natural log magnitude on the noise.
    """

    pulse_log: Tensor
    pulse_angle: Tensor | None
    noise_log: Tensor


class Analytic(nn.Module):
    """The spectral family without weights: envelope of the mel times pulse train and noise, then projections.

    Any mel contract, no training: a fallback, and the baseline that a trained model must beat.
    """

    f0_contract = "zero"

    def __init__(self, config: AnalyticConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = config.mel
        self.sample_rate = config.mel.sample_rate
        self.hop_length = config.mel.hop_length
        self.default_projections = config.projections

    @property
    def context_frames(self) -> int:
        """Frames on each side that the masks of a frame depend on."""
        return 1

    @property
    def halo_frames(self) -> int:
        """Frames of context on each side beyond which the output does not change."""
        return self.halo_of(self.default_projections)

    def halo_of(self, projections: int) -> int:
        """:attr:`halo_frames` at another number of rounds of projection."""
        reach = -(-self.mel.n_fft // self.hop_length)
        rounds = projections * (1 + self.config.low_rounds)
        before = self.context_frames + RIPPLE_HALO_FRAMES
        return before + (GATE_HALO_FRAMES + reach * (3 + rounds) if projections else reach)

    def randomness(self, f0_hz: Tensor, seed: int, start_frame: int, frames: int) -> Randomness:
        """Phase and noise of the piece ``[start_frame, start_frame + frames)`` of a clip with the F0 curve ``f0_hz``.

        ``f0_hz`` is the whole curve, ``(batch, frames)``. All clips of a batch share the noise of the seed.
        """
        phase = piece_phase(f0_hz, start_frame, self.sample_rate, self.hop_length)
        samples = frames * self.hop_length
        noise = counter_normal(seed, start_frame * self.hop_length, samples, 1, f0_hz.device)
        return Randomness(initial_phase=phase, noise=noise.unsqueeze(0).expand(f0_hz.shape[0], -1, -1))

    def forward(
        self,
        features: Tensor,
        f0_hz: Tensor,
        speaker: Tensor | None = None,
        randomness: Randomness | None = None,
        projections: int | None = None,
        matched: bool = False,
    ) -> Tensor:
        """Features and F0 to audio.

        Args:
            features: log-mel under the contract, ``(batch, n_mels, frames)``.
            f0_hz: ``(batch, frames)`` in Hz, 0 where unvoiced.
            speaker: not used.
            randomness: initial phase ``(batch, 1)`` in cycles and noise ``(batch, samples, 1)``.
            projections: rounds of mel projection; None is the model's default, 0 is off.
            matched: the features are known to be of the pitch ``f0_hz``; otherwise a gate decides where to project.

        Returns:
            ``(batch, 1, frames * hop_length)``.
        """
        wanted = natural(features, self.mel).transpose(1, 2)
        randomness = randomness or Randomness()
        excitation = self.excite(f0_hz, randomness.initial_phase)
        masks = self.masks(wanted, f0_hz, excitation)
        audio = self.render(masks, excitation, self.noise(f0_hz, randomness.noise))
        return self.project(audio, wanted, excitation, projections, matched).unsqueeze(1)

    def noise(self, f0_hz: Tensor, noise: Tensor | None) -> Tensor:
        """Complex noise spectrum ``(batch, mask_frames, bins)``; drawn here when ``noise`` is None."""
        if noise is None:
            noise = torch.randn(f0_hz.shape[0], f0_hz.shape[1] * self.hop_length, 1, device=f0_hz.device)
        return self._mask_spectra(noise.squeeze(-1))

    def _mask_spectra(self, signal: Tensor) -> Tensor:
        pad = (self.config.n_fft - self.config.mask_hop) // 2
        return spectra(F.pad(signal, (pad, pad)), self.config.n_fft, self.config.mask_hop)

    def excite(self, f0_hz: Tensor, initial_phase: Tensor | None = None) -> Excitation:
        """Pulse train of an F0 curve ``(batch, frames)`` in both transforms."""
        train = pulse_train(f0_hz, self.sample_rate, self.hop_length, initial_phase)
        padded = F.pad(train, odd_split(self.mel.n_fft - self.hop_length))
        relative = mel_of(spectra(padded, self.mel.n_fft, self.mel.hop_length, self.mel.win_length), self.mel)
        relative = (relative - flat_mel(self.mel, train)).clamp(min=-4.0)
        return Excitation(self._mask_spectra(train), relative, (f0_hz > 0).to(train.dtype))

    def masks(self, wanted: Tensor, f0_hz: Tensor, excitation: Excitation) -> Masks:
        """Masks from the wanted natural log-mel ``(batch, frames, n_mels)``: the envelope, split by frequency."""
        envelope = self.envelope(wanted, f0_hz, excitation).repeat_interleave(self.config.subframes, dim=1)
        share = _noise_share(self.sample_rate, self.config.n_fft, envelope.device, envelope.dtype)
        voiced = excitation.voiced.repeat_interleave(self.config.subframes, dim=1).unsqueeze(-1)
        return Masks(
            pulse_log=envelope + 0.5 * torch.log1p(-share.square()),
            pulse_angle=None,
            noise_log=envelope + torch.log(share * voiced + (1.0 - voiced)),
        )

    def envelope(self, wanted: Tensor, f0_hz: Tensor, excitation: Excitation) -> Tensor:
        """Log gain on a unit-density excitation that gives the wanted mel, ``(batch, frames, bins)``.

        The power is averaged over one F0 around every bin, which takes the harmonics out; where the mel shows those of
        a higher pitch, over their distance.
        """
        wide_hz = torch.maximum(f0_hz, ripple_hz(wanted, self.mel))
        width_hz = torch.lerp(f0_hz, wide_hz, foreign_ripple(wanted, excitation.pulse_mel))
        power = local_power(wanted, width_hz, self.mel, self.config.n_fft)
        return 0.5 * torch.log(power.clamp(min=1e-14))

    def render(self, masks: Masks, excitation: Excitation, noise: Tensor) -> Tensor:
        """Filter both priors and go back to samples: ``(batch, frames * hop_length)``."""
        magnitude = masks.pulse_log.exp()
        if masks.pulse_angle is None:
            voiced = excitation.pulses * magnitude
        else:
            voiced = excitation.pulses * torch.polar(magnitude, masks.pulse_angle)
        spectrum = voiced + noise * masks.noise_log.exp()
        n_fft, hop = self.config.n_fft, self.config.mask_hop
        frames = torch.fft.irfft(spectrum) * hann(n_fft, magnitude) * (8 * hop / (3 * n_fft))
        pad = (n_fft - hop) // 2
        return overlap_add(frames, hop)[:, pad : pad + spectrum.shape[1] * hop]

    def project(
        self,
        audio: Tensor,
        wanted: Tensor,
        excitation: Excitation,
        projections: int | None = None,
        matched: bool = False,
    ) -> Tensor:
        """Mel projection of ``(batch, samples)``, gated unless the features are known to match."""
        rounds = self.default_projections if projections is None else projections
        if rounds == 0:
            return audio
        projection = MelProjection(wanted, self.mel)
        if matched:
            gate = torch.ones_like(excitation.voiced).unsqueeze(-1)
        else:
            gate = pitch_gate(wanted, projection.log_mel(audio), excitation.pulse_mel, excitation.voiced, self.mel)
        return projection(audio, gate, rounds, self.config.low_rounds * rounds)


class Spectral(Analytic):
    """The trained model: a backbone corrects the analytic masks in magnitude and phase."""

    config: SpectralConfig

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__(config)
        bands = config.mel.n_mels
        self.bins = config.n_fft // 2 + 1
        self.entry = nn.Conv1d(2 * bands + 2, config.channels, config.kernel_size, padding=config.kernel_size // 2)
        self.entry_norm = nn.LayerNorm(config.channels)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.channels, config.expansion * config.channels, config.kernel_size, 1 / config.blocks)
            for _ in range(config.blocks)
        )
        self.exit_norm = nn.LayerNorm(config.channels)
        self.head = nn.Linear(config.channels, 3 * self.bins * config.subframes)
        self.apply(_initialise)
        nn.init.normal_(self.head.weight, std=0.002)

    @property
    def context_frames(self) -> int:
        return (self.config.blocks + 1) * (self.config.kernel_size // 2) + 1

    def masks(self, wanted: Tensor, f0_hz: Tensor, excitation: Excitation) -> Masks:
        """The analytic masks plus what the backbone says; see :meth:`Analytic.masks`."""
        start = super().masks(wanted, f0_hz, excitation)
        pitch = torch.log2(f0_hz.clamp(min=20.0) / 220.0) * excitation.voiced
        conditions = torch.cat(
            [(wanted + 5.0) / 2.0, excitation.pulse_mel, torch.stack([pitch, excitation.voiced], dim=-1)], dim=-1
        )
        x = self.entry_norm(self.entry(conditions.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        out = self.head(self.exit_norm(x))
        out = out.reshape(*out.shape[:2], self.config.subframes, 3, self.bins).flatten(1, 2)
        pulse, angle, noise = out.unbind(2)
        return Masks(start.pulse_log + pulse, angle, start.noise_log + noise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@lru_cache(maxsize=8)
def _noise_share(sample_rate: int, n_fft: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Share of the amplitude that is noise in voiced frames, ``(bins,)``: -30 dB low, half the power from 8 kHz."""
    hz = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    decibel = np.interp(hz, [0.0, 1000.0, 4000.0, 8000.0], [-30.0, -25.0, -12.0, -3.0])
    with torch.inference_mode(False):
        return torch.tensor(10.0 ** (decibel / 20.0), device=device, dtype=dtype)


def analytic(mel: MelContract) -> Analytic:
    """The untrained model for a mel contract, with the mask transform scaled to its hop."""
    return Analytic(AnalyticConfig(mel=mel, n_fft=2 * mel.hop_length, subframes=2))

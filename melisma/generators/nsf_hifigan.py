"""NSF-HiFi-GAN and all that fall out of it by its settings.

One generator for the decoders of so-vits-svc (leaky ReLU and its snake twin) and RVC, the vocoders of openvpi (plain
and mini-NSF), HiFi-GAN and BigVGAN: transposed convolutions raise the frame rate to the sample rate, residual blocks
follow each, and an excitation made from F0, if the model has one, is added on the way (Kong et al. 2020; Wang et al.
2019; Lee et al. 2023).
"""

import dataclasses
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.audio.mel import MelContract
from melisma.errors import MelismaError
from melisma.generators.nsf_fast import packed
from melisma.generators.nsf_hifigan_step import step
from melisma.generators.reach import END_KERNEL, halo_frames, lookahead_samples
from melisma.layers.activations import AntiAliased, Snake, SnakeBeta
from melisma.layers.convolution import Convolution, Upsampling
from melisma.layers.residual import RESIDUAL_BLOCKS, Leaky
from melisma.layers.streaming import Memory, State
from melisma.layers.weight_norm import normed
from melisma.noise import counter_normal, counter_uniform, derived_seed
from melisma.phase import before_frame
from melisma.source import GlidingSource, HarmonicSource, Randomness

_MINI_STAGES = 2  # upsamplings before the mini-NSF source is added


@dataclass(frozen=True)
class NsfHifiganConfig:
    """Settings of :class:`NsfHifigan`; the defaults are the common 44.1 kHz model with hop 512.

    Attributes:
        sample_rate: Hz.
        in_channels: mel bins, or channels of the latent.
        upsample_rates: factor of each upsampling; their product is the hop length.
        upsample_kernel_sizes: kernel of each upsampling, at least its rate.
        upsample_initial_channel: channels before the first upsampling; each upsampling halves them.
        resblock: type of the residual blocks.
        resblock_kernel_sizes: odd kernel of each of the parallel residual blocks.
        resblock_dilation_sizes: dilations of each of them.
        activation: everywhere but in the excitation.
        snake_log_scale: whether ``alpha`` and ``beta`` are kept as logarithms.
        activation_before_upsampling: BigVGAN has none there.
        source: ``harmonic`` (sines at the sample rate), ``mini`` (one sine at the rate after two upsamplings) or
            ``none``.
        overtones: of the harmonic source.
        framed_phase: the trainer rounded the source's phase frame by frame (openvpi), see :mod:`melisma.phase`.
        unvoiced: what F0 the model was trained on where there is none: ``zero`` or ``interpolated``.
        speaker_channels: of the speaker vector; 0 is no speaker.
        speaker_required: whether the forward needs one; RVC's may go without.
        feature_noise: standard deviation of the noise added after the first convolution.
        pitch_controllable: trained so that F0 may differ from the mel's pitch.
        padding: how an odd padding of upsampling and excitation is rounded, ``down`` or ``up`` (so-vits-svc).
        final_activation: ``tanh`` or ``clamp`` to [-1, 1].
        final_bias: whether the last convolution has a bias.
        mel: the mel contract; ``None`` for a latent decoder.
    """

    sample_rate: int
    in_channels: int
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4, 4)
    upsample_initial_channel: int = 512
    resblock: Literal[1, 2] = 1
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    activation: Literal["leaky-relu", "snake", "snakebeta"] = "leaky-relu"
    snake_log_scale: bool = True
    activation_before_upsampling: bool = True
    source: Literal["harmonic", "mini", "none"] = "harmonic"
    overtones: int = 8
    framed_phase: bool = False
    unvoiced: Literal["zero", "interpolated"] = "zero"
    speaker_channels: int = 0
    speaker_required: bool = True
    feature_noise: float = 0.0
    pitch_controllable: bool = False
    padding: Literal["down", "up"] = "down"
    final_activation: Literal["tanh", "clamp"] = "tanh"
    final_bias: bool = True
    mel: MelContract | None = None

    def __post_init__(self) -> None:
        sizes = (self.sample_rate, self.in_channels, *self.upsample_rates, *self.resblock_kernel_sizes)
        if min(sizes) < 1 or not self.upsample_rates or not self.resblock_kernel_sizes:
            raise MelismaError("rates, kernel sizes and channels must be positive, and there must be some")
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise MelismaError(
                f"upsample_rates {self.upsample_rates} and upsample_kernel_sizes {self.upsample_kernel_sizes} "
                "must be equally long"
            )
        if any(kernel < rate for kernel, rate in zip(self.upsample_kernel_sizes, self.upsample_rates, strict=True)):
            raise MelismaError(
                f"upsample_kernel_sizes {self.upsample_kernel_sizes} must be at least as large as the rates "
                f"{self.upsample_rates}: samples would be left out"
            )
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise MelismaError("resblock_kernel_sizes and resblock_dilation_sizes must be equally long")
        if any(kernel % 2 == 0 for kernel in self.resblock_kernel_sizes):
            raise MelismaError(f"resblock_kernel_sizes {self.resblock_kernel_sizes} must be odd")
        if self.upsample_initial_channel >> len(self.upsample_rates) < 1:
            raise MelismaError(
                f"upsample_initial_channel {self.upsample_initial_channel} cannot be halved "
                f"{len(self.upsample_rates)} times"
            )
        if self.source == "mini" and len(self.upsample_rates) < _MINI_STAGES:
            raise MelismaError("a mini-NSF source needs at least two upsamplings")
        self._check_mel()

    def _check_mel(self) -> None:
        if self.mel is None:
            return
        pairs = [
            ("sample_rate", self.sample_rate, self.mel.sample_rate),
            ("hop_length", self.hop_length, self.mel.hop_length),
            ("in_channels", self.in_channels, self.mel.n_mels),
        ]
        for name, mine, mels in pairs:
            if mine != mels:
                raise MelismaError(f"{name}: the generator has {mine}, its mel contract {mels}; they must agree")

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.upsample_rates)

    def channels(self, stage: int) -> int:
        """Channels before upsampling ``stage``."""
        return self.upsample_initial_channel >> stage

    def remaining(self, stage: int) -> int:
        """Samples of audio to one sample after upsampling ``stage``."""
        return math.prod(self.upsample_rates[stage + 1 :])

    def first_sample(self, stage: int) -> int:
        """The first sample of upsampling ``stage`` that is used, where an odd padding gives one too many."""
        return (self.upsample_kernel_sizes[stage] - self.upsample_rates[stage]) % 2 if self.padding == "up" else 0

    @property
    def is_anti_aliased(self) -> bool:
        """Whether activations look at neighbouring samples."""
        return self.activation != "leaky-relu"

    def activation_factory(self) -> Callable[[int], nn.Module]:
        """A function from the number of channels to a new activation."""
        if not self.is_anti_aliased:
            return lambda channels: Leaky()
        snake = Snake if self.activation == "snake" else SnakeBeta
        return lambda channels: AntiAliased(snake(channels, self.snake_log_scale))


class FinalLeaky(nn.Module):
    """Leaky ReLU before the last convolution."""

    # The slope is 0.01 here and 0.1 everywhere else: HiFi-GAN left PyTorch's default standing, and every released
    # checkpoint of this family was trained so.
    slope = 0.01

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.leaky_relu(x, self.slope)

    def step(self, x: Tensor, memory: Memory) -> Tensor:
        """The next chunk; it needs no past."""
        return self(x)


class NsfHifigan(nn.Module):
    """See the module; the attributes are those of every generator (``docs/architecture.md``, rule 1)."""

    source: HarmonicSource | GlidingSource

    def __init__(self, config: NsfHifiganConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = config.mel
        self.sample_rate = config.sample_rate
        self.hop_length = config.hop_length
        self.f0_contract = None if config.source == "none" else config.unvoiced
        self.pitch_controllable = config.pitch_controllable
        self.halo_frames = halo_frames(config)
        activation = config.activation_factory()
        stages = range(len(config.upsample_rates))
        convolution = partial(Convolution, kernel_size=END_KERNEL, padding=END_KERNEL // 2)
        self.conv_pre = normed(convolution(config.in_channels, config.channels(0)), initial_std=None)
        if config.speaker_channels:
            self.cond = Convolution(config.speaker_channels, config.channels(0), 1)
        if config.activation_before_upsampling:
            self.up_activations = nn.ModuleList(activation(config.channels(stage)) for stage in stages)
        self.ups = nn.ModuleList(_upsampling(config, stage) for stage in stages)
        block = RESIDUAL_BLOCKS[config.resblock]
        shapes = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
        self.resblocks = nn.ModuleList(
            block(config.channels(stage + 1), kernel, dilations, activation)
            for stage in stages
            for kernel, dilations in shapes
        )
        last = config.channels(len(stages))
        self.post_activation = FinalLeaky() if config.activation == "leaky-relu" else activation(last)
        self.conv_post = normed(convolution(last, 1, bias=config.final_bias))
        self._add_source(config)

    def _add_source(self, config: NsfHifiganConfig) -> None:
        stages = len(config.upsample_rates)
        if config.source == "harmonic":
            self.source = HarmonicSource(config.sample_rate, config.hop_length, config.overtones, config.framed_phase)
            self.noise_convs = nn.ModuleList(
                Convolution(1, config.channels(stage + 1), 2 * config.remaining(stage), stride=config.remaining(stage))
                for stage in range(stages - 1)
            )
            self.noise_convs.append(Convolution(1, config.channels(stages), 1))
        elif config.source == "mini":
            step = config.remaining(_MINI_STAGES - 1)
            self.source = GlidingSource(config.sample_rate / step, config.hop_length // step)
            self.source_conv = Convolution(1, config.channels(_MINI_STAGES), 1)
            nn.init.normal_(self.source_conv.weight, 0.0, 0.01)

    def forward(
        self,
        features: Tensor,
        f0_hz: Tensor | None = None,
        speaker: Tensor | None = None,
        randomness: Randomness | None = None,
    ) -> Tensor:
        """Make audio.

        Args:
            features: log-mel or latent, ``(batch, in_channels, frames)``.
            f0_hz: ``(batch, frames)``, Hz, unvoiced frames as ``f0_contract`` says; ``None`` for models without F0.
            speaker: ``(batch, speaker_channels, 1 or frames)``.
            randomness: draws and the phase so far; drawn where missing.

        Returns:
            ``(batch, 1, frames * hop_length)`` in [-1, 1].

        Raises:
            MelismaError: an input is missing or has another shape.
        """
        self._check(features, f0_hz, speaker)
        randomness = randomness or Randomness()
        excitation = None
        if f0_hz is not None and self.config.source != "none":
            excitation = self.source(f0_hz, randomness).to(features.dtype)
        frames = features.shape[-1]
        fast = packed(self, features)
        with nullcontext() if fast is None else torch.autocast("cpu", enabled=False):  # only kernels round then
            x = self._condition(self.conv_pre(features), speaker, randomness)
            if fast is not None:
                return fast(x, excitation, frames)
        for stage in range(len(self.ups)):
            x = self._stage(x, stage, excitation, frames)
        x = self.conv_post(self.post_activation(x))
        x = x.tanh() if self.config.final_activation == "tanh" else x.clamp(-1.0, 1.0)
        return x[..., : frames * self.hop_length]

    def step(
        self,
        features: Tensor,
        f0_hz: Tensor | None = None,
        speaker: Tensor | None = None,
        state: State | None = None,
        randomness: Randomness | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        """Make the audio that the next frames decide; all steps joined are the forward of the whole.

        Args:
            features: the next frames, ``(batch, in_channels, frames)``; there may be none.
            f0_hz: of the same frames, see :meth:`forward`.
            speaker: ``(batch, speaker_channels, 1 or frames)``.
            state: what the step before gave; None at the beginning. It is not changed.
            randomness: draws for these frames (:meth:`draws`); drawn where missing. The phase comes from the state.
            last: whether the signal ends with these frames; then the rest comes.

        Returns:
            ``(batch, 1, samples)``: of ``n`` frames so far, all but the last ``lookahead_samples``; and the new state.

        Raises:
            MelismaError: an input is missing or has another shape, or the stream is finished.
        """
        self._check(features, f0_hz, speaker)
        return step(self, features, f0_hz, speaker, Memory(state, last), randomness or Randomness())

    @property
    def lookahead_samples(self) -> int:
        """Samples of audio that wait for later frames in :meth:`step`."""
        return lookahead_samples(self.config)

    def _check(self, features: Tensor, f0_hz: Tensor | None, speaker: Tensor | None) -> None:
        config = self.config
        if features.ndim != 3 or features.shape[1] != config.in_channels:
            raise MelismaError(
                f"features must be (batch, {config.in_channels}, frames) for this model, not {tuple(features.shape)}"
            )
        if config.source != "none":
            if f0_hz is None:
                raise MelismaError("this model needs F0: give f0_hz (batch, frames) in Hz, 0 where unvoiced")
            if f0_hz.ndim != 2 or f0_hz.shape[0] != features.shape[0] or f0_hz.shape[1] != features.shape[2]:
                raise MelismaError(
                    f"f0_hz {tuple(f0_hz.shape)} must be (batch, frames) of features {tuple(features.shape)}"
                )
        if speaker is None and config.speaker_channels and config.speaker_required:
            raise MelismaError(f"this model needs a speaker vector (batch, {config.speaker_channels}, 1)")
        if speaker is not None:
            if not config.speaker_channels:
                raise MelismaError("this model has no speaker input; leave speaker out")
            if speaker.ndim != 3 or speaker.shape[1] != config.speaker_channels:
                raise MelismaError(
                    f"speaker must be (batch, {config.speaker_channels}, 1 or frames), not {tuple(speaker.shape)}"
                )

    def _condition(self, x: Tensor, speaker: Tensor | None, randomness: Randomness) -> Tensor:
        if self.config.feature_noise > 0:
            noise = randomness.feature_noise
            x = x + self.config.feature_noise * (torch.randn_like(x) if noise is None else noise.to(x))
        return x if speaker is None else x + self.cond(speaker)

    def _stage(self, x: Tensor, stage: int, excitation: Tensor | None, frames: int) -> Tensor:
        """One upsampling, its share of the excitation, and the mean of its residual blocks."""
        if self.config.activation_before_upsampling:
            x = self.up_activations[stage](x)
        x = self.ups[stage](x)
        if excitation is not None:
            x = self._aligned(x, stage, frames)
            x = x + self._share(excitation, stage) if self._has_share(stage) else x
        blocks = len(self.config.resblock_kernel_sizes)
        total = self.resblocks[stage * blocks](x)
        for index in range(1, blocks):
            total = total + self.resblocks[stage * blocks + index](x)
        return total / blocks

    def _aligned(self, x: Tensor, stage: int, frames: int) -> Tensor:
        """Cut the output of upsampling ``stage`` to the length of the excitation.

        An odd difference of kernel and rate gives a sample too many, on the side that the padding rule says. Without an
        excitation to match, the references let it run on, and so does the forward, up to the cut at its very end.
        """
        first = self.config.first_sample(stage)
        return x[..., first : first + frames * (self.hop_length // self.config.remaining(stage))]

    def _has_share(self, stage: int) -> bool:
        return self.config.source == "harmonic" or stage == _MINI_STAGES - 1

    def _share(self, excitation: Tensor, stage: int) -> Tensor:
        """The excitation at the rate and with the channels after upsampling ``stage``."""
        if self.config.source == "mini":
            return self.source_conv(excitation)
        return self.noise_convs[stage](F.pad(excitation, self._share_padding(stage)))

    def _share_padding(self, stage: int) -> tuple[int, int]:
        if stage + 1 == len(self.ups):
            return 0, 0
        step = self.config.remaining(stage)
        left = (step + (self.config.padding == "up")) // 2
        return left, step - left

    def randomness(self, f0_hz: Tensor, seed: int, start_frame: int, frames: int) -> Randomness:
        """What a piece of a longer file needs to know: the same whatever the pieces are.

        Args:
            f0_hz: the whole curve, ``(batch, all frames)``, Hz; anything of that shape for models without F0.
            seed: any integer; every item of a batch gets what it would get alone.
            start_frame: first frame of the piece.
            frames: number of frames of the piece.

        Returns:
            Draws for the piece, on the device of ``f0_hz``, and the exact phase at its first sample.
        """
        config = self.config
        drawn = self.draws(seed, start_frame, frames, f0_hz.shape[0], f0_hz.device)
        if config.source == "none":
            return drawn
        gliding = config.source == "mini"
        phase = before_frame(f0_hz, source_rate(config), self.source.hop_length, start_frame, gliding)
        return dataclasses.replace(drawn, start_phase=phase)

    def draws(
        self, seed: int, start_frame: int, frames: int, batch: int = 1, device: torch.device | str = "cpu"
    ) -> Randomness:
        """:meth:`randomness` less the phase: what the seed alone decides."""
        config = self.config
        phase = noise = feature_noise = None
        if config.source == "harmonic":
            harmonics = config.overtones + 1
            phase = counter_uniform(derived_seed(seed, "phase"), harmonics, device).expand(batch, -1)
            hop = self.hop_length
            noise = counter_normal(derived_seed(seed, "source"), start_frame * hop, frames * hop, harmonics, device)
            noise = noise.expand(batch, -1, -1)
        if config.feature_noise > 0:
            drawn = counter_normal(derived_seed(seed, "features"), start_frame, frames, config.channels(0), device)
            feature_noise = drawn.T.expand(batch, -1, -1)
        return Randomness(phase, noise, feature_noise)


def source_rate(config: NsfHifiganConfig) -> float:
    """Sample rate of the excitation, Hz."""
    return config.sample_rate / (config.remaining(_MINI_STAGES - 1) if config.source == "mini" else 1)


def _upsampling(config: NsfHifiganConfig, stage: int) -> nn.Module:
    rate, kernel = config.upsample_rates[stage], config.upsample_kernel_sizes[stage]
    return normed(
        Upsampling(
            config.channels(stage),
            config.channels(stage + 1),
            kernel,
            stride=rate,
            padding=(kernel - rate) // 2,
        )
    )

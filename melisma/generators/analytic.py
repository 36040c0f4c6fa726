"""The spectral family without weights; see :mod:`melisma.generators.spectral` for the idea."""

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import flat_mel, local_power, natural, noise_share, pulse_part
from melisma.audio.stft import odd_split
from melisma.errors import MelismaError
from melisma.even_noise import even_noise
from melisma.generators.spectral_fast import FastFilters, fast_start
from melisma.generators.spectral_parts import Excitation, Masks, Proposal
from melisma.generators.spectral_step import step
from melisma.kernels import projection as kernel
from melisma.kernels import workers
from melisma.layers.framing import Delay, Framing, Hold, MovingAverage, PulseTrain, Subframes, Unframing
from melisma.layers.mel_projection import MelProjection, mel_of, mel_of_padded
from melisma.layers.pitch_gate import (
    GATE_HALO_FRAMES,
    GATE_SMOOTHING_FRAMES,
    RIPPLE_HALO_FRAMES,
    fast_widths,
    foreign_ripple,
    pitch_gate,
    ripple_hz,
    sharpness,
)
from melisma.layers.streaming import WHOLE, Memory, State, Time
from melisma.noise import counter_normal
from melisma.pulse import piece_phase
from melisma.source import Randomness

NO_PULSES = -4.0  # nepers below white noise: the least that the mel of a pulse train says
HELD_PULSES = -2.0  # nepers: where the masks on pulses begin that go on beside a note


@dataclass(frozen=True)
class AnalyticConfig:
    """Settings of the untrained model.

    Attributes:
        mel: the mel contract; any.
        n_fft: FFT length of the mask transform, a multiple of four mask hops.
        subframes: mask frames a mel frame.
        projections: rounds of mel projection by default.
        low_rounds: rounds of projection on the low band for each full one.
        hold_frames: for so many frames before and behind every note the pulses go on, hardly audible at first; a
            trained model decides what of them is heard. Where a voice sets in or dies away an F0 curve says too little.
        causal: nothing looks ahead but the windows, the glide to the next F0 and what drafts are heard through: for
            live singing, without projections. What the mel of the pulse train tells comes a few frames late.
        noise: ``gaussian``, or ``even`` for noise whose short-time spectra are nearly flat
            (:mod:`melisma.even_noise`), so that masks need not know how it falls.
    """

    mel: MelContract
    n_fft: int = 1024
    subframes: int = 2
    projections: int = 3
    low_rounds: int = 16
    hold_frames: int = 0
    causal: bool = False
    noise: Literal["gaussian", "even"] = "gaussian"

    def __post_init__(self) -> None:
        if self.hold_frames < 0 or (self.causal and self.hold_frames):
            raise MelismaError(
                f"hold_frames is {self.hold_frames}: 0 or more, and 0 for a causal model, which cannot wait for a note"
            )
        if self.causal and self.projections:
            raise MelismaError(
                f"causal models look not far enough ahead for projections {self.projections}; set it to 0"
            )
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


class Analytic(nn.Module):
    """The spectral family without weights: envelope of the mel times pulse train and noise, then projections.

    Any mel contract, no training: a fallback, and the baseline that a trained model must beat.
    """

    f0_contract = "zero"
    drafts = False  # whether a draft is heard before the masks are made
    pitch_controllable = True  # the pitch comes from F0 alone, and the gate keeps the mel's from coming back

    def __init__(self, config: AnalyticConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = config.mel
        self.sample_rate = config.mel.sample_rate
        self.hop_length = config.mel.hop_length
        self.default_projections = config.projections
        pad = (config.n_fft - config.mask_hop) // 2
        self.hold = Hold(config.hold_frames)
        self.train_layer = PulseTrain(self.sample_rate, self.hop_length)
        self.mask_framing = Framing(config.n_fft, config.mask_hop, (pad, pad))
        self.unframing = Unframing(config.n_fft, config.mask_hop)
        self.mel_framing = Framing(
            self.mel.n_fft, self.hop_length, odd_split(self.mel.n_fft - self.hop_length), self.mel.win_length
        )
        self.average = MovingAverage(GATE_SMOOTHING_FRAMES, config.causal)
        self.subframes = Subframes(config.subframes, config.causal)

    def context_of(self, projected: bool) -> int:
        """Frames on each side that the masks of a frame depend on, where projections follow or do not."""
        return 2 + self.config.hold_frames

    @property
    def late_frames(self) -> int:
        """Frames that the mel of the pulse train comes behind its frame: half a window, and half a frame of glide."""
        _, right = self.mel_framing.padding
        return -(-(2 * right + self.hop_length) // (2 * self.hop_length))

    @property
    def waiting_frames(self) -> int:
        """Frames that masks wait for later ones in :meth:`step`."""
        if self.config.causal:
            return 0
        return self.late_frames + self.config.hold_frames + GATE_SMOOTHING_FRAMES // 2 + 1

    @property
    def lookahead_samples(self) -> int:
        """Samples of audio that wait for later frames in :meth:`step`, which makes no projections."""
        return max(self.waiting_frames * self.hop_length, self.pulse_lookahead) + self.unframing.left

    @property
    def pulse_lookahead(self) -> int:
        """Samples by which a frame of pulses waits for the next F0, to which they glide."""
        n_fft, hop = self.config.n_fft, self.config.mask_hop
        pad, _ = self.mask_framing.padding
        glide = self.hop_length // 2 + self.config.hold_frames * self.hop_length
        return -(-(glide + n_fft - pad) // hop) * hop - hop

    @property
    def halo_frames(self) -> int:
        """Frames of context on each side beyond which the output does not change."""
        return self.halo_of(self.default_projections)

    def halo_of(self, projections: int) -> int:
        """:attr:`halo_frames` at another number of rounds of projection."""
        reach = -(-self.mel.n_fft // self.hop_length)
        rounds = projections * (1 + self.config.low_rounds)
        ripple = GATE_SMOOTHING_FRAMES - 1 + self.late_frames if self.config.causal else RIPPLE_HALO_FRAMES
        before = self.context_of(rounds > 0) + ripple
        return before + (GATE_HALO_FRAMES + reach * (3 + rounds) if projections else reach)

    def randomness(self, f0_hz: Tensor, seed: int, start_frame: int, frames: int) -> Randomness:
        """Phase and noise of the piece ``[start_frame, start_frame + frames)`` of a clip with the F0 curve ``f0_hz``.

        ``f0_hz`` is the whole curve, ``(batch, frames)``. All clips of a batch share the noise of the seed.
        """
        # Torch's threads, once awake, would be in the way of those that sing next.
        with workers.ours() if f0_hz.device.type == "cpu" else nullcontext():
            phase = self._phase(f0_hz, start_frame, frames)
            drawn = self.draws(seed, start_frame, frames, f0_hz.shape[0], f0_hz.device)
        return dataclasses.replace(drawn, initial_phase=phase)

    def _phase(self, f0_hz: Tensor, start_frame: int, frames: int) -> Tensor:
        """``initial_phase`` of a piece. What it holds of a note before its first frame it does not know, so that the
        phases of piece and whole are made to agree where it knows as much as the whole."""
        if start_frame == 0:  # there is nothing before
            return f0_hz.new_zeros(f0_hz.shape[0], 1, dtype=torch.float64)
        known = min(self.config.hold_frames, frames - 1)
        whole, piece = self.hold(f0_hz), self.hold(f0_hz[:, start_frame : start_frame + frames])
        phase, own = (
            piece_phase(curve, frame, self.sample_rate, self.hop_length)
            for curve, frame in ((whole, start_frame + known), (piece, known))
        )
        return torch.remainder(phase - own, 1.0)

    def draws(
        self, seed: int, start_frame: int, frames: int, batch: int = 1, device: torch.device | str = "cpu"
    ) -> Randomness:
        """:meth:`randomness` less the phase: what the seed alone decides."""
        start, count = start_frame * self.hop_length, frames * self.hop_length
        if self.config.noise == "even":
            noise = even_noise(seed, start, count, device).unsqueeze(-1)
        else:
            noise = counter_normal(seed, start, count, 1, device)
        return Randomness(noise=noise.unsqueeze(0).expand(batch, -1, -1))

    def forward(
        self,
        features: Tensor,
        f0_hz: Tensor,
        speaker: Tensor | None = None,
        randomness: Randomness | None = None,
        projections: int | None = None,
        trust: Tensor | None = None,
    ) -> Tensor:
        """Features and F0 to audio.

        Args:
            features: log-mel under the contract, ``(batch, n_mels, frames)``.
            f0_hz: ``(batch, frames)`` in Hz, 0 where unvoiced.
            speaker: not used.
            randomness: initial phase ``(batch, 1)`` in cycles and noise ``(batch, samples, 1)``.
            projections: rounds of mel projection; None is the model's default, 0 is off.
            trust: where the features are known to be of the pitch ``f0_hz``, ``(batch, frames)`` in [0, 1]; None lets a
                gate decide where to project.

        Returns:
            ``(batch, 1, frames * hop_length)``.
        """
        with workers.ours() if self._fast(features) else nullcontext():
            wanted = natural(features, self.mel).transpose(1, 2).contiguous()
            rounds = self.default_projections if projections is None else projections
            audio, excitation = self.sing(wanted, f0_hz, randomness or Randomness(), projected=rounds > 0)
            return self.project(audio, wanted, excitation, rounds, trust).unsqueeze(1)

    def sing(
        self, wanted: Tensor, f0_hz: Tensor, randomness: Randomness, projected: bool = False
    ) -> tuple[Tensor, Excitation]:
        """The audio before projection ``(batch, frames * hop_length)``, and what was filtered.

        ``wanted`` is a natural log-mel, ``(batch, frames, n_mels)``; ``projected``: projections will follow.
        """
        excitation = self.excite(f0_hz, randomness.initial_phase)
        drawn = self.drawn(f0_hz, randomness.noise)
        filters = (FastFilters if self._fast(drawn) else _Filters)(self, excitation.train, drawn)
        proposal = self.start(wanted, f0_hz, excitation.pulse_mel)
        for stage in self.projected_stages if projected else self.stages:
            proposal = stage(proposal, self.mel_of(filters(proposal.still())) if self.drafts else None, WHOLE)
        return filters(proposal), excitation

    def _fast(self, like: Tensor) -> bool:
        """Whether the kernels can make this."""
        learning = torch.is_grad_enabled() and any(weight.requires_grad for weight in self.parameters())
        return kernel.fused(like) and kernel.fits(self.config.n_fft) and not learning

    def step(
        self,
        features: Tensor,
        f0_hz: Tensor,
        speaker: Tensor | None = None,
        state: State | None = None,
        randomness: Randomness | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        """Make the audio that the next frames decide; joined, all steps are the forward with ``projections=0``.

        Arguments and result as of :meth:`melisma.generators.nsf_hifigan.NsfHifigan.step`.
        """
        return step(self, features, f0_hz, Memory(state, last), randomness or Randomness())

    def excite(self, f0_hz: Tensor, initial_phase: Tensor | None = None) -> Excitation:
        """Pulse train of an F0 curve ``(batch, frames)``."""
        train = self.train_layer(self.hold(f0_hz), initial_phase)
        return Excitation(train, self.pulse_mel(train, WHOLE), (f0_hz > 0).to(train.dtype))

    def drawn(self, frames: Tensor, noise: Tensor | None) -> Tensor:
        """White noise ``(batch, samples)`` for so many frames (the last axis); drawn here when ``noise`` is None."""
        if noise is None:
            count = frames.shape[-1] * self.hop_length
            if self.config.noise == "even":
                seeds = torch.randint(1 << 62, (frames.shape[0],)).tolist()
                return torch.stack([even_noise(seed, 0, count, frames.device) for seed in seeds])
            return torch.randn(frames.shape[0], count, device=frames.device)
        return noise.squeeze(-1)

    def mel_of(self, audio: Tensor, time: Time = WHOLE) -> Tensor:
        """Natural log-mel ``(batch, frames, n_mels)`` of audio between zeros, ``(batch, frames * hop_length)``."""
        heard = mel_of_padded(audio, self.mel) if time is WHOLE else None
        return mel_of(time.through("mel", self.mel_framing, audio), self.mel) if heard is None else heard

    def pulse_mel(self, train: Tensor, time: Time) -> Tensor:
        """What the pulse train ``(batch, samples)`` adds to the mel of white noise, ``(batch, frames, n_mels)``."""
        relative = (self.mel_of(train, time) - flat_mel(self.mel, train)).clamp(min=NO_PULSES)
        return time.through("late", Delay(self.late_frames, NO_PULSES), relative) if self.config.causal else relative

    @property
    def stages(self) -> tuple[Callable[[Proposal, Tensor | None, Time], Proposal], ...]:
        """What corrects a proposal, one after the other: ``(proposal, heard, time)`` -> a better one.

        ``heard`` is the natural log-mel of what the proposal sounds like, where there are drafts.
        """
        return ()

    @property
    def projected_stages(self) -> tuple[Callable[[Proposal, Tensor | None, Time], Proposal], ...]:
        """What corrects a proposal where projections follow, which make some of :attr:`stages` needless."""
        return self.stages

    def start(self, wanted: Tensor, f0_hz: Tensor, pulse_mel: Tensor, time: Time = WHOLE) -> Proposal:
        """The envelope of the wanted natural log-mel ``(batch, frames, n_mels)``, split by frequency.

        ``time`` is the memory of a step; then less may come out than went in, the rest with a later step.
        """
        streams = (wanted, f0_hz, pulse_mel, *self.widths(wanted, f0_hz, pulse_mel, time))
        wanted, f0_hz, pulse_mel, width_hz, *looks = time.together("envelope", *streams, axis=1)
        held = HELD_PULSES if self.config.hold_frames else 0.0
        if self._fast(wanted):
            return Proposal(wanted, f0_hz, pulse_mel, *fast_start(self.config, wanted, width_hz, f0_hz, held), *looks)
        envelope = self.envelope(wanted, width_hz)
        share = noise_share(self.sample_rate, self.config.n_fft, envelope.device, envelope.dtype)
        voiced = (f0_hz > 0).to(envelope.dtype).unsqueeze(-1)
        pulse_log = envelope + pulse_part(share) + held * (1.0 - voiced)
        noise_log = envelope + torch.log(share) * voiced
        return Proposal(wanted, f0_hz, pulse_mel, pulse_log, noise_log, *looks)

    def between(self, proposal: Proposal, time: Time = WHOLE) -> Masks:
        """The proposed masks read between the frames."""
        both = torch.cat([proposal.pulse_log, proposal.noise_log], dim=-1)
        return Masks(*time.through("between", self.subframes, both).chunk(2, dim=-1))

    def widths(
        self, wanted: Tensor, f0_hz: Tensor, pulse_mel: Tensor, time: Time = WHOLE
    ) -> tuple[Tensor, Tensor, Tensor]:
        """How far the harmonics lie apart that the mel shows, its sharpness, and whether they are another pitch's.

        ``(batch, frames)`` each. The first is in Hz: F0, but where the mel shows harmonics of a higher pitch, theirs.
        """
        if time is WHOLE:
            late = self.late_frames if self.config.causal else None
            found = fast_widths(wanted, pulse_mel, f0_hz, self.mel, late)
            if found is not None:
                return found
        compared = wanted
        if self.config.causal:  # the pulses' mel is late, so its partner must be
            compared = time.through("compared", Delay(self.late_frames, 0.0), wanted)
            compared, pulse_mel = time.together("compare", compared, pulse_mel, axis=1)
        foreign = foreign_ripple(compared, pulse_mel, partial(time.through, "foreign", self.average))
        ripple = ripple_hz(wanted, self.mel, partial(time.through, "ripple", self.average))
        f0_hz, foreign, ripple = time.together("width", f0_hz, foreign, ripple)
        sharp = sharpness(wanted, partial(time.through, "sharp", self.average))
        return torch.lerp(f0_hz, torch.maximum(f0_hz, ripple), foreign), sharp, foreign

    def envelope(self, wanted: Tensor, width_hz: Tensor) -> Tensor:
        """Log gain on a unit-density excitation that gives the wanted mel, ``(batch, frames, bins)``.

        The power is averaged over ``width_hz`` around every bin, which takes the harmonics out.
        """
        power = local_power(wanted, width_hz, self.mel, self.config.n_fft)
        return 0.5 * torch.log(power.clamp(min=1e-14))

    def render(self, masks: Masks, pulses: Tensor, noise: Tensor, time: Time = WHOLE) -> Tensor:
        """Filter both priors and go back to samples: ``(batch, frames * hop_length)``.

        Under a Hann window a frame sums to its lowest bin less the real part of the next one. So the noise gets that as
        its lowest bin: no frame has a mean, and neither has a breath of any length.
        """
        breath = noise * masks.noise_log.exp()
        second = breath[..., 1:2].real
        breath = torch.cat([torch.complex(second, torch.zeros_like(second)), breath[..., 1:]], dim=-1)
        spectrum = pulses * masks.pulse_log.exp() + breath
        return time.through("unframing", self.unframing, spectrum)

    def project(
        self,
        audio: Tensor,
        wanted: Tensor,
        excitation: Excitation,
        projections: int | None = None,
        trust: Tensor | None = None,
        cut: bool = False,
    ) -> Tensor:
        """Mel projection of ``(batch, samples)``, as far as the features are to be trusted; see :meth:`forward`.

        Where ``cut``, the features are a crop of longer ones: the first and the last of them have heard what lies
        beyond, which the audio does not have, and are not imposed on it.
        """
        rounds = self.default_projections if projections is None else projections
        if rounds == 0:
            return audio
        if self.config.causal:
            raise MelismaError(f"this model is causal and makes no projections; leave projections {rounds} out")
        projection = MelProjection(wanted, self.mel)
        if trust is None:
            gate = pitch_gate(wanted, projection.log_mel(audio), excitation.pulse_mel, excitation.voiced, self.mel)
        else:
            gate = trust.unsqueeze(-1)
        if cut:
            reach = -(-max(self.mel_framing.padding) // self.hop_length)
            number = torch.arange(wanted.shape[1], device=gate.device)
            gate = gate * ((number >= reach) & (number < len(number) - reach)).unsqueeze(-1)
        return projection(audio, gate, rounds, self.config.low_rounds * rounds)


class _Filters:
    """Proposals to audio, for one pulse train and one noise, each ``(batch, samples)``."""

    def __init__(self, generator: Analytic, train: Tensor, noise: Tensor) -> None:
        self.generator = generator
        self.pulses, self.noise = generator.mask_framing(train), generator.mask_framing(noise)

    def __call__(self, proposal: Proposal) -> Tensor:
        return self.generator.render(self.generator.between(proposal), self.pulses, self.noise)


def analytic(mel: MelContract) -> Analytic:
    """The untrained model for a mel contract, with the mask transform scaled to its hop."""
    return Analytic(AnalyticConfig(mel=mel, n_fft=2 * mel.hop_length, subframes=2))

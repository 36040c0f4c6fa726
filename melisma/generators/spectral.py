"""The spectral generator: masks on a harmonic and a noise prior, an inverse STFT and mel projections.

The idea in one line: *the pitch comes from F0 by multiplication, the sound from the mel.* A pulse train made from F0
and white noise are filtered in the short-time Fourier domain by masks at a small multiple of the frame rate. The masks
start from the envelope that signal processing reads off the mel (that alone is the model ``analytic``); a ConvNeXt
backbone (Liu et al. 2022; one-dimensional as in Vocos, Siuzdak 2023) hears a draft of what they sound like and corrects
them. A gated mel projection then brings the result onto the mel. The parts that need no weights stand in
:mod:`melisma.generators.analytic`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from melisma.audio.mel_bands import spread_to_bins
from melisma.errors import MelismaError
from melisma.generators.analytic import Analytic, AnalyticConfig
from melisma.generators.spectral_backbone import packed
from melisma.generators.spectral_fast import fast_belief
from melisma.generators.spectral_parts import Proposal
from melisma.kernels.ripple import LOWEST_HZ, MIDDLE_HZ, MIDDLE_MEL
from melisma.layers.convnext import ConvNeXtBlock, frame_convolution
from melisma.layers.framing import Neighbours
from melisma.layers.mel_projection import MAX_STEP
from melisma.layers.pitch_gate import missed_of
from melisma.layers.streaming import WHOLE, Time, Whole


@dataclass(frozen=True)
class SpectralConfig(AnalyticConfig):
    """Settings of the trained model.

    Attributes:
        channels: width of the backbone.
        blocks: number of ConvNeXt blocks.
        expansion: width of a block's inner layer over ``channels``.
        kernel_size: frames that a block's depthwise convolution sees, odd.
        draft: the backbone also hears what the analytic masks would sound like, and says for each band how far to
            believe the difference to the wanted mel. A causal model without it looks ahead by its windows alone; with
            it, also by those that the draft is heard through, once more for every time that it settles.
        settles: how many times what the backbone proposes is heard and corrected after that.
        settle_average: where no projections follow, so much of what a settling misses in a voiced frame is that of each
            neighbouring frame: masks that change less from frame to frame detune less.
        settles_alone: how many times more it settles where no projections follow, as far as the mel has detail that is
            of the pitch that is sung.
    """

    channels: int = 256
    blocks: int = 8
    expansion: int = 3
    kernel_size: int = 7
    draft: bool = True
    settles: int = 1
    settle_average: float = 0.0
    settles_alone: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("settles", "settles_alone"):
            if getattr(self, name) < 0:
                raise MelismaError(f"{name} is {getattr(self, name)}; give 0 or more")
        if not 0.0 <= self.settle_average <= 0.5:
            raise MelismaError(f"settle_average is {self.settle_average}; give 0 to 0.5")

    @property
    def most_settles(self) -> int:
        """How many times it settles where no projections follow."""
        return self.settles + self.settles_alone if self.draft else 0


class Spectral(Analytic):
    """The trained model: a backbone hears a draft of the analytic masks and corrects them."""

    config: SpectralConfig

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__(config)
        bands = config.mel.n_mels
        self.bins = config.n_fft // 2 + 1
        self.drafts = config.draft
        self.settle_average = Neighbours(config.settle_average) if config.settle_average else None
        heard = (3 if config.draft else 2) * bands + 2
        self.entry = frame_convolution(heard, config.channels, config.kernel_size, config.causal)
        self.entry_norm = nn.LayerNorm(config.channels)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(
                config.channels,
                config.expansion * config.channels,
                config.kernel_size,
                1 / config.blocks,
                config.causal,
            )
            for _ in range(config.blocks)
        )
        self.exit_norm = nn.LayerNorm(config.channels)
        beliefs = 2 * bands * (1 + config.most_settles) if config.draft else 0
        self.head = nn.Linear(config.channels, 2 * self.bins + beliefs)
        self.apply(_initialise)
        nn.init.normal_(self.head.weight, std=0.002)

    def context_of(self, projected: bool) -> int:
        drafted = len(self.projected_stages) * self.draft_frames if projected else self._drafted_frames
        return super().context_of(projected) + self._reach_frames + drafted

    @property
    def draft_frames(self) -> int:
        """Frames that each draft looks ahead: to the next masks, half a mask window and half a mel window."""
        return 1 + self._heard_frames() if self.drafts else 0

    @property
    def _averaged_frames(self) -> int:
        """Frames that all settlings together look ahead for the neighbours of frames, without projections."""
        return 0 if self.settle_average is None else self.config.most_settles

    @property
    def _drafted_frames(self) -> int:
        return len(self.stages) * self.draft_frames + self._averaged_frames

    def _heard_frames(self, late_samples: int = 0) -> int:
        """Frames until one is heard through a mask window and a mel window, from audio that comes so late."""
        _, right = self.mel_framing.padding
        return -(-(late_samples + self.unframing.left + right) // self.hop_length)

    @property
    def _reach_frames(self) -> int:
        """Frames that the backbone sees, on each side or behind."""
        per_layer = self.config.kernel_size - 1 if self.config.causal else self.config.kernel_size // 2
        return (self.config.blocks + 1) * per_layer

    @property
    def waiting_frames(self) -> int:
        if self.config.causal:  # the first draft waits for its pulses; its masks need no later ones
            if not self.drafts:
                return 0
            later = self.config.most_settles * self._heard_frames() + self._averaged_frames
            return self._heard_frames(self.pulse_lookahead) + later
        # One after the other: the proposal waits for its smoothing, the backbone for the proposal.
        return super().waiting_frames + self._reach_frames + self._drafted_frames

    @property
    def stages(self) -> tuple[Callable[[Proposal, Tensor | None, Time], Proposal], ...]:
        if not self.drafts:
            return (self.correct,)
        settle = partial(self.settle, averaged=True)
        more = partial(settle, detail_only=True)
        return (self.correct, *[settle] * self.config.settles, *[more] * self.config.settles_alone)

    @property
    def projected_stages(self) -> tuple[Callable[[Proposal, Tensor | None, Time], Proposal], ...]:
        return (self.correct, *([self.settle] * self.config.settles if self.drafts else []))

    def correct(self, proposal: Proposal, heard: Tensor | None, time: Time = WHOLE) -> Proposal:
        """What the backbone makes of a proposal and of what it sounds like."""
        known = heard is not None and time is WHOLE and self._fast(heard)
        fast = packed(self, proposal.wanted) if known else None
        if fast is not None and heard is not None:
            missed, out = fast.after_draft(proposal, heard, MAX_STEP)
            now, later = self._next_belief(out[..., 2 * self.bins :])
            said = out[..., : 2 * self.bins]
            return dataclasses.replace(fast_belief(self.config, proposal, missed, now, said), belief=later)
        return self._correct(proposal, heard, time)

    def _correct(self, proposal: Proposal, heard: Tensor | None, time: Time) -> Proposal:
        """:meth:`correct` in steps, in training, without drafts."""
        missed: tuple[Tensor, ...] = ()
        if heard is not None:
            proposal, (heard,) = proposal.together("drafted", time, heard)
            missed = (_missed(proposal, heard),)
        pitch = torch.log2(proposal.f0_hz.clamp(min=LOWEST_HZ) / MIDDLE_HZ) * proposal.voiced
        given = [
            (proposal.wanted - MIDDLE_MEL) / 2.0,
            proposal.pulse_mel,
            torch.stack([pitch, proposal.voiced], dim=-1),
        ]
        out = self._backbone(torch.cat([*given, *missed], dim=-1), time)
        proposal, (out, *late) = proposal.together("corrected", time, out, *missed)
        said = proposal.plus(*out[..., : 2 * self.bins].chunk(2, dim=-1))
        if not late:
            return said
        now, later = self._next_belief(out[..., 2 * self.bins :])
        return dataclasses.replace(self._believe(said, late[0], now), belief=later)

    def settle(
        self,
        proposal: Proposal,
        heard: Tensor | None,
        time: Time = WHOLE,
        *,
        averaged: bool = False,
        detail_only: bool = False,
    ) -> Proposal:
        """A correction by what the backbone's own proposal sounds like, as far as it said beforehand.

        ``averaged`` over neighbouring frames, where the settings ask for it; ``detail_only``: of a mel without detail
        nothing, for its envelope was settled before, nor of one that shows another pitch.
        """
        assert heard is not None  # only models with drafts come here
        proposal, (heard,) = proposal.together("settled", time, heard)
        missed = _missed(proposal, heard)
        if detail_only:
            missed = missed * proposal.detailed.unsqueeze(-1)
        if averaged and self.settle_average is not None:
            missed = time.through("averaged", self.settle_average, missed, proposal.voiced)
            proposal, (missed,) = proposal.together("averaged", time, missed)
        assert proposal.belief is not None  # correct has said it
        now, later = self._next_belief(proposal.belief)
        return dataclasses.replace(self._believe(proposal, missed, now), belief=later)

    def _next_belief(self, beliefs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The first of some beliefs, for both priors, and the others."""
        size = 2 * self.mel.n_mels
        return beliefs[..., :size], beliefs[..., size:] if beliefs.shape[-1] > size else None

    def _believe(self, proposal: Proposal, missed: Tensor, belief: Tensor) -> Proposal:
        """Correct both masks by a share of what was missed in every band: nothing to twice as much."""
        if all(self._fast(values) for values in (missed, belief, proposal.pulse_log, proposal.noise_log)):
            return fast_belief(self.config, proposal, missed, belief)
        pulse, noise = (
            spread_to_bins(2.0 * torch.sigmoid(share) * missed, self.mel, self.config.n_fft)
            for share in belief.chunk(2, dim=-1)
        )
        return proposal.plus(pulse, noise)

    def _backbone(self, conditions: Tensor, time: Time) -> Tensor:
        fast = packed(self, conditions, tiles=isinstance(time, Whole))
        said = None if fast is None else fast(conditions) if isinstance(time, Whole) else fast.step(conditions, time)
        if said is not None:
            return said
        x = self.entry_norm(time.through("entry", self.entry, conditions.transpose(1, 2)).transpose(1, 2))
        for number, block in enumerate(self.blocks):
            x = time.through(number, block, x)
        out: Tensor = self.head(self.exit_norm(x))
        return out


def _missed(proposal: Proposal, heard: Tensor) -> Tensor:
    return missed_of(proposal.wanted, heard, proposal.sharp, MAX_STEP)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""Losses by the names and weights of a recipe.

A plain name judges the generator's audio. ``projected/NAME`` judges it after as many rounds of mel projection as were
drawn for the step (spectral generators; none in a step that drew 0).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from melisma.audio.mel import MelContract, log_mel
from melisma.config import lookup
from melisma.discriminators import DISCRIMINATORS
from melisma.errors import MelismaError
from melisma.losses import (
    ADVERSARIAL,
    complex_stft_loss,
    contract_mel_loss,
    energy_distance,
    feature_matching_loss,
    harmonicity_loss,
    loudness_loss,
    mel_loss,
    mr_stft_loss,
    multi_scale_mel_loss,
    spectral_distance,
)
from melisma.training.batch import Batch
from melisma.training.voice import Made, Wish

PROJECTED = "projected/"
ENERGY = "spectral-energy"
FEATURE_MATCHING = "feature-matching"
JUDGED = (*ADVERSARIAL, FEATURE_MATCHING)


@dataclass(frozen=True)
class LossSettings:
    """Settings of the losses.

    Attributes:
        resolutions: FFT sizes of the losses on STFTs.
        resolutions_a_step: so many of them are drawn for each step.
        hearing: ``spectral`` counts critical bands alike instead of bins.
        repulsion: of ``spectral-energy`` between two draws, 0 to 1; 0 is a plain loss.
        projections: rounds of mel projection to draw from for ``projected/``, with equal chances.
    """

    resolutions: tuple[int, ...] = (512, 1024, 2048)
    resolutions_a_step: int = 3
    hearing: bool = False
    repulsion: float = 1.0
    projections: tuple[int, ...] = (0, 1, 2, 4)

    def __post_init__(self) -> None:
        if not 1 <= self.resolutions_a_step <= len(self.resolutions):
            raise MelismaError(
                f"resolutions_a_step is {self.resolutions_a_step}, and there are {len(self.resolutions)} resolutions "
                "to draw from"
            )
        if not self.projections or min(self.projections) < 0:
            raise MelismaError(f"projections {self.projections}: give numbers of rounds to draw from; (0,) is none")


@dataclass(frozen=True)
class Context:
    """What the losses of a step know beside the audio.

    Attributes:
        sample_rate: Hz.
        mel: the generator's contract, or one at its rate and hop for latent decoders.
        settings: of the recipe.
        sizes: FFT sizes that were drawn for the step.
    """

    sample_rate: int
    mel: MelContract
    settings: LossSettings
    sizes: tuple[int, ...]

    @property
    def full_mel(self) -> MelContract:
        """The mel up to half the sample rate: what a generator is blind for must sound right too."""
        return replace(self.mel, fmax=None)


Term = Callable[[Tensor, Tensor | None, Batch, Context], Tensor]


def _spectral(audio: Tensor, again: Tensor | None, batch: Batch, context: Context) -> Tensor:
    rate, hearing = context.sample_rate, context.settings.hearing
    parts = [spectral_distance(audio, batch.reference, n_fft, batch.band_hz, rate, hearing) for n_fft in context.sizes]
    return torch.stack(parts).mean()


def _energy(audio: Tensor, again: Tensor | None, batch: Batch, context: Context) -> Tensor:
    if again is None:  # nothing to be pushed apart from
        return _spectral(audio, again, batch, context)
    rate, repulsion = context.sample_rate, context.settings.repulsion
    parts = [
        energy_distance((audio, again), batch.reference, n_fft, batch.band_hz, rate, repulsion)
        for n_fft in context.sizes
    ]
    return torch.stack(parts).mean()


def _input_mel(audio: Tensor, again: Tensor | None, batch: Batch, context: Context) -> Tensor:
    return (log_mel(audio, context.mel) - batch.features).abs().mean()


def _contract_mel(audio: Tensor, again: Tensor | None, batch: Batch, context: Context) -> Tensor:
    return contract_mel_loss(audio, batch.reference, context.mel, batch.band_hz)


def _harmonicity(audio: Tensor, again: Tensor | None, batch: Batch, context: Context) -> Tensor:
    return harmonicity_loss(audio, batch.reference, batch.f0_hz, batch.band_hz, context.sample_rate)


def _loudness(audio: Tensor, again: Tensor | None, batch: Batch, context: Context) -> Tensor:
    return loudness_loss(audio, batch.reference, context.sample_rate)


TERMS: dict[str, Term] = {
    "mel": lambda audio, again, batch, context: mel_loss(audio, batch.reference, context.full_mel),
    "multi-scale-mel": lambda audio, again, batch, context: multi_scale_mel_loss(
        audio, batch.reference, context.sample_rate
    ),
    "mr-stft": lambda audio, again, batch, context: mr_stft_loss(audio, batch.reference, context.sizes),
    "complex-stft": lambda audio, again, batch, context: complex_stft_loss(audio, batch.reference, context.sizes),
    "spectral": _spectral,
    ENERGY: _energy,
    "input-mel": _input_mel,
    "contract-mel": _contract_mel,
    "harmonicity": _harmonicity,
    "loudness": _loudness,
}


def check_losses(
    losses: Mapping[str, float], settings: LossSettings, discriminators: Collection[str], convolutional: bool
) -> None:
    """Refuse names that there are not, and discriminators without an adversarial loss or the other way round.

    Raises:
        MelismaError: the line names what does not fit and the cure.
    """
    for name in discriminators:
        lookup(DISCRIMINATORS, name, "discriminator")
    asked = {name for name, weight in losses.items() if weight}
    for name, weight in losses.items():
        known = [*TERMS, *JUDGED]
        lookup(dict.fromkeys([*known, *(PROJECTED + one for one in known)]), name, "loss")
        if weight < 0:
            raise MelismaError(f"losses.{name} is {weight}; a weight is 0 or more")
    if not asked:
        raise MelismaError("the recipe has no loss; give some by name and weight: losses: {mel: 45}")
    plain = {name.removeprefix(PROJECTED) for name in asked}
    both = [name for name in ADVERSARIAL if name in plain]
    if len(both) > 1:
        raise MelismaError(f"losses {' and '.join(both)} exclude each other: the discriminators can learn only one")
    if discriminators and not both:
        raise MelismaError(
            f"discriminators without an adversarial loss learn nothing; add one of {', '.join(ADVERSARIAL)}"
        )
    if plain & set(JUDGED) and not discriminators:
        raise MelismaError(
            f"{', '.join(sorted(plain & set(JUDGED)))}: there is no discriminator; "
            f"add one of {', '.join(DISCRIMINATORS)}"
        )
    if FEATURE_MATCHING in plain and not both:
        raise MelismaError(f"{FEATURE_MATCHING} needs an adversarial loss; add one of {', '.join(ADVERSARIAL)}")
    if all(name.startswith(PROJECTED) for name in asked) and not any(settings.projections):
        raise MelismaError(
            f"all losses are projected/..., and projections are {settings.projections}: add a plain loss"
        )
    if convolutional and any(name.startswith(PROJECTED) for name in asked):
        raise MelismaError("losses projected/...: only spectral generators have mel projections")


@dataclass(frozen=True)
class StepLosses:
    """The losses of a step: which, and what they ask of the generator.

    Attributes:
        weights: by name, those that count in this step.
        wish: what must be made.
        context: what they know.
    """

    weights: dict[str, float]
    wish: Wish
    context: Context

    @property
    def adversarial(self) -> str | None:
        """The name of the adversarial loss."""
        plain = {name.removeprefix(PROJECTED) for name in self.weights}
        return next((name for name in ADVERSARIAL if name in plain), None)

    def judged(self, made: Made) -> dict[str, Tensor]:
        """The audio ``(batch, 1, samples)`` that discriminators hear, by the prefix of the losses that ask."""
        prefixes = {PROJECTED if n.startswith(PROJECTED) else "" for n in self.weights if n.endswith(JUDGED)}
        return {prefix: _audio_of(made, prefix).unsqueeze(1) for prefix in sorted(prefixes)}


def asks_for_two(losses: Mapping[str, float], settings: LossSettings) -> bool:
    """Whether the losses compare two draws of the generator's noise."""
    return bool(losses.get(ENERGY)) and settings.repulsion > 0


def losses_of_step(
    weights: Mapping[str, float], settings: LossSettings, generator: nn.Module, rng: np.random.Generator
) -> StepLosses:
    """Draw resolutions and rounds of projection for a step; the same on all processes."""
    sizes = rng.choice(settings.resolutions, settings.resolutions_a_step, replace=False).tolist()
    asked = {name: weight for name, weight in weights.items() if weight}
    projected = [name.startswith(PROJECTED) for name in asked]
    rounds = int(rng.choice([n for n in settings.projections if n or not all(projected)])) if any(projected) else 0
    asked = {name: weight for name, weight in asked.items() if rounds or not name.startswith(PROJECTED)}
    wish = Wish(again=asks_for_two(asked, settings), rounds=rounds)
    rate, hop = int(generator.sample_rate), int(generator.hop_length)  # type: ignore[arg-type]
    mel = generator.mel or MelContract.nvstft(rate, 128, 4 * hop, 4 * hop, hop, 0.0, None)
    return StepLosses(asked, wish, Context(rate, mel, settings, tuple(sizes)))  # type: ignore[arg-type]


def audio_terms(losses: StepLosses, made: Made, batch: Batch) -> dict[str, Tensor]:
    """Every loss that needs no discriminator, not weighted."""
    found = {}
    for name in losses.weights:
        prefix = PROJECTED if name.startswith(PROJECTED) else ""
        if (plain := name.removeprefix(PROJECTED)) in TERMS:
            again = None if prefix else made.again
            found[name] = TERMS[plain](_audio_of(made, prefix), again, batch, losses.context)
    return found


def judged_terms(losses: StepLosses, judges: nn.ModuleDict, made: Made, batch: Batch) -> dict[str, Tensor]:
    """The generator's side of every loss that needs discriminators, not weighted; summed over the discriminators."""
    found: dict[str, Tensor] = {}
    matching = any(name.endswith(FEATURE_MATCHING) for name in losses.weights)
    for prefix, audio in losses.judged(made).items():
        for judge in judges.values():
            with torch.no_grad():
                real_maps = judge(batch.reference.unsqueeze(1))[1] if matching else None
            scores, maps = judge(audio)
            for name in JUDGED:
                if prefix + name not in losses.weights:
                    continue
                if name == FEATURE_MATCHING:
                    value = feature_matching_loss(real_maps, maps)  # type: ignore[arg-type]
                else:
                    value = ADVERSARIAL[name][1](scores)
                found[prefix + name] = found.get(prefix + name, value.new_zeros(())) + value
    return found


def discriminator_terms(losses: StepLosses, judges: nn.ModuleDict, made: Made, batch: Batch) -> dict[str, Tensor]:
    """What each discriminator minimises, by ``discriminator/NAME``."""
    name = losses.adversarial
    if name is None:
        return {}
    found: dict[str, Tensor] = {}
    heard = [audio.detach() for audio in losses.judged(made).values()]
    for label, judge in judges.items():
        real_scores, _ = judge(batch.reference.unsqueeze(1))
        parts = [ADVERSARIAL[name][0](real_scores, judge(audio)[0]) for audio in heard]
        found[f"discriminator/{label}"] = torch.stack(parts).mean()
    return found


def _audio_of(made: Made, prefix: str) -> Tensor:
    audio = made.projected if prefix else made.audio
    assert audio is not None  # losses_of_step asked for it
    return audio

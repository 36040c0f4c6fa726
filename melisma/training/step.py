"""One step: losses and gradients of both sides, averaged over processes, clipped, and applied if all are finite.

The generator and the discriminators learn from the same forward: the discriminators' gradient does not depend on what
the generator learns in the step. So both are known before either moves, and a step that is not finite moves nothing.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from melisma.discriminators import build_discriminator
from melisma.training.batch import Batch
from melisma.training.processes import world_size
from melisma.training.recipe import Recipe
from melisma.training.terms import StepLosses, audio_terms, discriminator_terms, judged_terms
from melisma.training.voice import Voice, make


@dataclass
class State:
    """Everything that a run carries on.

    Attributes:
        voice: what learns.
        average: the running average of its weights: what is validated and exported.
        judges: discriminators by name.
        optimizer: of the voice.
        judge_optimizer: of the discriminators.
        step: steps so far.
        rate_scale: by how much the learning rates were lowered after losses that were not finite.
        warmup: steps at the beginning in which only the discriminators learn.
        bad: steps in a row that were not finite.
        rollbacks: how often the run went back to a checkpoint since a step was finite past it.
    """

    voice: Voice
    average: Voice
    judges: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    judge_optimizer: torch.optim.Optimizer | None
    step: int = 0
    rate_scale: float = 1.0
    warmup: int = 0
    bad: int = 0
    rollbacks: int = 0


def new_state(recipe: Recipe, speakers: int, device: torch.device) -> State:
    """Weights as they are drawn from the recipe's seed, the same on every process."""
    torch.manual_seed(recipe.seed)
    voice = Voice(recipe.generator, speakers).to(device)
    rate = float(voice.generator.sample_rate)
    judges = nn.ModuleDict(
        {
            name: build_discriminator(name, settings or {}, rate, f"discriminators.{name}")
            for name, settings in recipe.discriminators.items()
        }
    ).to(device)
    optimizer = recipe.optimizer.build(voice.parameters())
    judge_optimizer = recipe.discriminator_optimizer.build(judges.parameters()) if judges else None
    return State(voice, copy.deepcopy(voice).requires_grad_(False), judges, optimizer, judge_optimizer)


@dataclass(frozen=True)
class Outcome:
    """What a step came to.

    Attributes:
        values: losses by name, not weighted, and both gradients' lengths before clipping; means over all processes.
        finite: whether all were; otherwise no weight moved.
        asked: whether any process was asked to stop.
    """

    values: dict[str, float] = field(default_factory=dict)
    finite: bool = True
    asked: bool = False


def train_step(
    state: State, recipe: Recipe, batches: Sequence[Batch], losses: StepLosses, asked: bool = False
) -> Outcome:
    """Learn from one batch, given in the parts that this process accumulates.

    Args:
        state: is changed.
        recipe: of the run.
        batches: this process' share.
        losses: of this step, the same on all processes.
        asked: whether this process was asked to stop; all hear of it.
    """
    state.optimizer.zero_grad(set_to_none=True)
    if state.judge_optimizer is not None:
        state.judge_optimizer.zero_grad(set_to_none=True)
    found: dict[str, Tensor] = {}
    for batch in batches:
        for name, value in _gradients(state, recipe, batch, losses, len(batches)).items():
            found[name] = found.get(name, value.new_zeros(())) + value / len(batches)
    sides = [(state.optimizer, list(state.voice.parameters()), recipe.optimizer)]
    if state.judge_optimizer is not None:
        sides.append((state.judge_optimizer, list(state.judges.parameters()), recipe.discriminator_optimizer))
    device = batches[0].reference.device
    total = torch.stack([*found.values(), torch.tensor(float(asked), device=device)]).detach()
    total = _average([parameter for _, parameters, _ in sides for parameter in parameters], total)
    norms = [torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm) for _, parameters, settings in sides]
    values = dict(zip(found, total[:-1].tolist(), strict=True))
    values |= dict(zip(("gradient", "discriminator_gradient"), [norm.item() for norm in norms], strict=False))
    finite = bool(torch.isfinite(total).all()) and all(bool(torch.isfinite(norm)) for norm in norms)
    if finite:
        for optimizer, _, settings in sides:
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(state.step, recipe.steps) * state.rate_scale
            optimizer.step()
        if state.step >= state.warmup:
            _follow(state, recipe.ema)
    state.step += 1
    return Outcome(values, finite, bool(total[-1] > 0))


def _gradients(state: State, recipe: Recipe, batch: Batch, losses: StepLosses, parts: int) -> dict[str, Tensor]:
    """Add the gradients of one of so many equal parts of a batch; gives the losses by name."""
    half = recipe.precision == "bfloat16"
    learns = state.step >= state.warmup
    with torch.set_grad_enabled(learns):
        made = make(state.voice, batch, losses.wish, half)
    found: dict[str, Tensor] = {}
    with torch.autocast(batch.reference.device.type, torch.bfloat16, enabled=half):
        judged = discriminator_terms(losses, state.judges, made, batch)
    if judged:
        (torch.stack(list(judged.values())).sum() / parts).backward()
        found |= judged
    if learns:
        terms = audio_terms(losses, made, batch)
        state.judges.requires_grad_(False)
        with torch.autocast(batch.reference.device.type, torch.bfloat16, enabled=half):
            terms |= judged_terms(losses, state.judges, made, batch)
        state.judges.requires_grad_(True)
        total = torch.stack([losses.weights[name] * value for name, value in terms.items()]).sum()
        (total / parts).backward()
        found |= terms | {"loss": total}
    return {name: value.detach() for name, value in found.items()}


def _average(parameters: list[nn.Parameter], values: Tensor) -> Tensor:
    """Mean of the gradients and of ``values`` over all processes, in one message."""
    if world_size() == 1:
        return values
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), values])
    dist.all_reduce(flat)
    flat /= world_size()
    *pieces, mean = flat.split([*(gradient.numel() for gradient in gradients), len(values)])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
    return mean


@torch.no_grad()
def _follow(state: State, ema: float) -> None:
    """Move the running average; at the beginning it forgets faster, so that the first weights do not stay."""
    learned = state.step - state.warmup
    keep = min(ema, (learned + 1) / (learned + 10))
    for mean, value in zip(state.average.parameters(), state.voice.parameters(), strict=True):
        mean.lerp_(value, 1.0 - keep)

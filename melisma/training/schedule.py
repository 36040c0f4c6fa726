"""Optimisers and how their rate goes over a run."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from melisma.errors import MelismaError


@dataclass(frozen=True)
class OptimizerSettings:
    """Of AdamW (Loshchilov & Hutter 2019).

    Attributes:
        learning_rate: the highest.
        warmup: steps on which it rises to that.
        schedule: how it falls then: ``cosine``, ``exponential`` (a straight line in its logarithm) or ``constant``.
        final_share: of the highest, at the last step.
        betas: of the running means of gradient and its square.
        weight_decay: a step and rate.
        clip_norm: longest gradient; longer ones are shortened to it.
    """

    learning_rate: float = 1e-3
    warmup: int = 200
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    final_share: float = 0.01
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            raise MelismaError(
                f"learning_rate {self.learning_rate} and clip_norm {self.clip_norm} must be positive; for no clipping "
                "give a large norm"
            )
        if not 0 < self.final_share <= 1:
            raise MelismaError(f"final_share is {self.final_share}; give a share of the highest rate, above 0 to 1")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these weights."""
        return torch.optim.AdamW(parameters, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step of so many: a pure function, so that nothing of it needs to be saved."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        if self.schedule == "cosine":
            factor = self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * share))
        elif self.schedule == "exponential":
            factor = self.final_share**share
        else:
            factor = 1.0
        return self.learning_rate * factor

"""A plain, short trainer for the spectral generator.

One process a core; several (``torchrun --nproc-per-node 2``) share the gradients over gloo. Every draw follows from
(seed, step, process), so that a run goes on after an interruption as if nothing had happened. Losses: a spectral
(energy) distance on the unprojected output, so that the network stands without projection, and a plain distance after
a drawn number of projections.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from melisma.audio.mel import log_mel
from melisma.audio.mel_bands import band_centres_hz
from melisma.config import to_mapping
from melisma.data.corpus import Corpus, Crop
from melisma.errors import MelismaError
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.interop import load_checkpoint as load_checkpoint_of_any_kind
from melisma.layers.mel_projection import natural
from melisma.losses.spectral import energy_distance, spectral_distance
from melisma.source import Randomness
from melisma.training.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    save_config,
)

# Frames on each side of a crop whose mel is disturbed by the cut; they are computed and thrown away.
MARGIN = 2
# Checkpoints are S_<step>.pth; this many are kept.
PREFIX = "S"
KEEP = 2


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run.

    Attributes:
        generator: the model.
        corpora: folders that ``build_corpus`` wrote.
        shares: how often each kind of clip is drawn.
        steps: batches in all.
        batch: crops a process and step.
        frames: mel frames a crop.
        learning_rate: the highest; reached after ``warmup`` steps, then a cosine to a hundredth.
        warmup: steps.
        weight_decay: of AdamW.
        clip_norm: largest gradient norm.
        ema: share of the running average of the weights that is kept each step.
        mismatch: share of crops whose mel was sung at another pitch.
        resample: share of crops that are resampled to other pitches and formants.
        resolutions: FFT sizes of the losses; each step draws ``resolutions_a_step`` of them.
        resolutions_a_step: see ``resolutions``.
        repulsion: of the energy distance between two draws, 0 to 1; 0 is a plain loss on one draw.
        projections: numbers of projections that are drawn from, with equal chances.
        projected_weight: weight of the loss after projection.
        mel_weight: weight of the log-mel distance of the unprojected output.
        hearing: weight the bins of the losses as the mel's bands do, instead of all alike.
        seed: of all draws.
        save_every: steps between checkpoints.
        start_from: a checkpoint whose averaged weights a new run starts from, or a model that was exported.
    """

    generator: SpectralConfig
    corpora: tuple[str, ...]
    shares: dict[str, float]
    steps: int
    batch: int = 8
    frames: int = 64
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.998
    mismatch: float = 0.3
    resample: float = 0.5
    resolutions: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    resolutions_a_step: int = 2
    repulsion: float = 1.0
    projections: tuple[int, ...] = (0, 1, 2, 4)
    projected_weight: float = 0.5
    mel_weight: float = 0.0
    hearing: bool = False
    seed: int = 0
    save_every: int = 250
    start_from: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "frames", "save_every"):
            if getattr(self, name) < 1:
                raise MelismaError(f"{name} is {getattr(self, name)}; a recipe needs at least 1")
        if not 1 <= self.resolutions_a_step <= len(self.resolutions):
            raise MelismaError(
                f"resolutions_a_step is {self.resolutions_a_step}, and there are {len(self.resolutions)} resolutions "
                "to draw from"
            )
        if not self.projections or min(self.projections) < 0:
            raise MelismaError(f"projections {self.projections}: give numbers of rounds to draw from; (0,) is none")


@dataclass(frozen=True)
class Batch:
    """Crops as tensors: audio ``(batch, samples)``, features ``(batch, n_mels, frames)``, F0 ``(batch, frames)``."""

    reference: Tensor
    features: Tensor
    f0_hz: Tensor
    band_hz: Tensor


def collate(crops: list[Crop], config: SpectralConfig) -> Batch:
    """Mels on the fly from crops with margins, which are cut off."""
    mel = config.mel
    source = torch.from_numpy(np.stack([crop.source for crop in crops]))
    reference = torch.from_numpy(np.stack([crop.reference for crop in crops]))
    inner = slice(MARGIN * mel.hop_length, -MARGIN * mel.hop_length)
    return Batch(
        reference=reference[:, inner],
        features=log_mel(source, mel)[..., MARGIN:-MARGIN],
        f0_hz=torch.from_numpy(np.stack([crop.f0_hz for crop in crops]))[:, MARGIN:-MARGIN],
        band_hz=torch.tensor([crop.band_hz for crop in crops]),
    )


def draw_batch(corpus: Corpus, recipe: Recipe, step: int, rank: int) -> Batch:
    """The batch of a step on a process: a pure function of (seed, step, rank)."""
    rng = np.random.default_rng([recipe.seed, step, rank])
    frames = recipe.frames + 2 * MARGIN
    crops = [corpus.crop(rng, frames, recipe.mismatch, recipe.resample) for _ in range(recipe.batch)]
    return collate(crops, recipe.generator)


def loss_terms(generator: Spectral, batch: Batch, recipe: Recipe, rng: np.random.Generator) -> dict[str, Tensor]:
    """Both losses of one batch; noise is drawn from torch's generator."""
    mel, rate = recipe.generator.mel, recipe.generator.mel.sample_rate
    wanted = natural(batch.features, mel).transpose(1, 2)
    phase = torch.rand(batch.f0_hz.shape[0], 1)
    audio, excitation = generator.sing(wanted, batch.f0_hz, Randomness(initial_phase=phase))
    sizes = rng.choice(recipe.resolutions, recipe.resolutions_a_step, replace=False).tolist()
    if recipe.repulsion > 0:
        draws = (audio, generator.sing(wanted, batch.f0_hz, Randomness(initial_phase=phase))[0])
        plain = [energy_distance(draws, batch.reference, n, batch.band_hz, rate, recipe.repulsion) for n in sizes]
    else:
        plain = [spectral_distance(audio, batch.reference, n, batch.band_hz, rate, recipe.hearing) for n in sizes]
    terms = {"unprojected": torch.stack(plain).mean()}
    if recipe.mel_weight:
        # What is above a clip's band is silence in the reference, but not in truth.
        heard = (torch.from_numpy(band_centres_hz(mel)) < batch.band_hz.unsqueeze(-1)).to(audio.dtype).unsqueeze(-1)
        error = (natural(log_mel(audio, mel), mel) - natural(log_mel(batch.reference, mel), mel)).abs() * heard
        terms["mel"] = recipe.mel_weight * error.sum() / (heard.sum() * error.shape[-1])
    rounds = int(rng.choice(recipe.projections))
    if rounds and recipe.projected_weight:
        projected = generator.project(audio, wanted, excitation, rounds)
        parts = [spectral_distance(projected, batch.reference, n, batch.band_hz, rate, recipe.hearing) for n in sizes]
        parts.append((log_mel(projected, mel) - batch.features).abs().mean())
        terms["projected"] = recipe.projected_weight * torch.stack(parts).mean()
    return terms


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to a hundredth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


class Trainer:
    """State of a run and its loop.

    Args:
        recipe: what to train.
        folder: where checkpoints, ``recipe.json`` and ``log.jsonl`` are kept; a run found there goes on.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.corpus = Corpus([Path(path) for path in recipe.corpora], recipe.shares)
        mel = recipe.generator.mel
        made, wanted = (self.corpus.sample_rate, self.corpus.hop_length), (mel.sample_rate, mel.hop_length)
        if made != wanted:
            raise MelismaError(f"the corpora have (rate, hop) {made} and the generator {wanted}; make them for its mel")
        torch.manual_seed(recipe.seed)
        self.generator = Spectral(recipe.generator)
        self.average = Spectral(recipe.generator)
        self.optimizer = torch.optim.AdamW(
            self.generator.parameters(), lr=recipe.learning_rate, betas=(0.8, 0.99), weight_decay=recipe.weight_decay
        )
        self.step = self.saved = 0
        self.asked = self.stopping = False
        self.average.load_state_dict(self.generator.state_dict())
        latest = latest_checkpoint(folder, PREFIX)
        if latest is not None:
            self.restore(latest)
        elif recipe.start_from is not None:
            self.start_from(Path(recipe.start_from))
        if self.rank == 0:
            save_config(folder, to_mapping(recipe), "recipe.json")

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of this trainer."""
        state = load_checkpoint(path)
        with _fitting(path):
            self.generator.load_state_dict(state["generator"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = self.saved = state["step"]

    def start_from(self, path: Path) -> None:
        """Begin a new run at the averaged weights of another, or at a saved model of ours."""
        with _fitting(path):
            if path.suffix == ".safetensors":
                weights = load_checkpoint_of_any_kind(path).generator.state_dict()
            else:
                weights = load_checkpoint(path)["average"]
            self.generator.load_state_dict(weights)
            self.average.load_state_dict(weights)

    def save(self) -> None:
        """Write ``S_<step>.pth`` by rename and keep the newest few; once for each step."""
        if self.rank != 0 or self.saved == self.step:
            return
        state = {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        save_checkpoint(checkpoint_path(self.folder, PREFIX, self.step), state)
        prune_checkpoints(self.folder, KEEP, (PREFIX,))
        self.saved = self.step

    def train_step(self) -> dict[str, float]:
        """One step: draw, loss, gradients (averaged over processes), update, running average.

        Raises:
            MelismaError: on all processes, a loss or gradient that is not finite; the weights are as they were.
        """
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step, self.rank, 1])
        torch.manual_seed(int(rng.integers(2**62)))
        batch = draw_batch(self.corpus, recipe, self.step, self.rank)
        shared = np.random.default_rng([recipe.seed, self.step, 2])  # the same resolutions and rounds on all processes
        terms = loss_terms(self.generator, batch, recipe, shared)
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        loss = self.average_gradients(total.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), recipe.clip_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise MelismaError(
                f"the loss or the gradient of step {self.step} is not finite; go on from the last checkpoint with a "
                "lower learning_rate or another seed"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        self.optimizer.step()
        keep = min(recipe.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(value, 1.0 - keep)
        self.step += 1
        return {name: value.item() for name, value in terms.items()} | {"gradient": norm.item()}

    def average_gradients(self, loss: Tensor) -> Tensor:
        """Mean of the gradients and of the loss over all processes, in one message.

        The message also says whether any process was asked to stop, so that all stop after the same step.
        """
        if not dist.is_initialized() or dist.get_world_size() == 1:
            self.stopping = self.asked
            return loss
        gradients = [parameter.grad for parameter in self.generator.parameters() if parameter.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.new_tensor([loss, float(self.asked)])])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        *pieces, mean, asked = flat.split([*(gradient.numel() for gradient in gradients), 1, 1])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))
        self.stopping = bool(asked > 0)
        return mean

    def run(self) -> None:
        """Train to the end and save. Ctrl-C and SIGTERM wait for the step to end and save too.

        Raises:
            MelismaError: interrupted, or see :meth:`train_step`; after the latter nothing is saved.
        """
        since, window = time.monotonic(), []
        with self.interruptions():
            while self.step < self.recipe.steps and not self.stopping:
                window.append(self.train_step())
                if self.step % 25 == 0:
                    self.log(window, (time.monotonic() - since) / len(window))
                    since, window = time.monotonic(), []
                if self.step % self.recipe.save_every == 0:
                    self.save()
            self.save()
        if self.step < self.recipe.steps:
            raise MelismaError(f"interrupted after step {self.step}, which is saved; the same command goes on from it")

    @contextmanager
    def interruptions(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into ``asked`` while a run is going: half a step must not be saved."""

        def ask(*_: object) -> None:
            self.asked = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def log(self, window: list[dict[str, float]], seconds: float) -> None:
        """Append the means of some steps to ``log.jsonl`` and print them."""
        if self.rank != 0:
            return
        names = sorted({name for row in window for name in row})
        means = {name: round(float(np.mean([row[name] for row in window if name in row])), 4) for name in names}
        row = {"step": self.step, **means, "seconds_a_step": round(seconds, 3)}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Say in one line that a checkpoint is not one of this recipe's model."""
    try:
        yield
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise MelismaError(
            f"{path}: not a checkpoint of this recipe's generator; train in another folder, or with the settings of "
            "recipe.json beside it"
        ) from error

"""Validation on held-out pieces: the averaged weights, as users will hear them, and whether they still get better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from melisma.errors import MelismaError
from melisma.losses import mel_loss, mr_stft_loss, multi_scale_mel_loss
from melisma.training.batch import Batch, Features, collate, shape_of
from melisma.training.crops import DataSettings, cut, draw_plan
from melisma.training.recordings import Chances, Place
from melisma.training.terms import Context
from melisma.training.voice import Voice

SIZES = (512, 1024, 2048)
PLAIN = DataSettings(balance=0.0, mismatch=0.0, resample=0.0, gain_db=(0.0, 0.0))


@dataclass(frozen=True)
class ValidationSettings:
    """Of the validation.

    Attributes:
        every: steps between validations; 0 is none.
        folders: datasets to validate on; empty holds clips of ``data.folders`` out.
        share: of the clips that are held out.
        pieces: how many are sung.
        frames: of the model's features in a piece.
        metric: which decides what is best: ``mel``, ``multi-scale-mel`` or ``mr-stft``; less is better.
        patience: validations in a row that may be worse than the best before the run stops; 0 never stops it.
    """

    every: int = 500
    folders: tuple[str, ...] = ()
    share: float = 0.02
    pieces: int = 8
    frames: int = 128
    metric: Literal["mel", "multi-scale-mel", "mr-stft"] = "mr-stft"
    patience: int = 0

    def __post_init__(self) -> None:
        if self.every < 0 or self.patience < 0 or self.pieces < 1 or self.frames < 1:
            raise MelismaError("validation: every and patience are 0 or more, pieces and frames at least 1")
        if not 0.0 < self.share < 1.0:
            raise MelismaError(f"validation.share is {self.share}; hold out a share between 0 and 1")


@dataclass
class Record:
    """What validations have found; it is saved with the run.

    Attributes:
        start: metrics of the weights that the run began with.
        best: metrics of the best.
        best_step: their step; -1 before the first validation.
        worse: validations in a row since that were worse.
        stopped: whether the run was stopped for that.
    """

    start: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = -1
    worse: int = 0
    stopped: bool = False

    def add(self, step: int, metrics: Mapping[str, float], settings: ValidationSettings) -> bool:
        """Take in the metrics of a step; whether they are the best so far."""
        if not self.start:
            self.start = dict(metrics)
        value, best = metrics[settings.metric], self.best.get(settings.metric, float("inf"))
        if value < best:
            self.best, self.best_step, self.worse = dict(metrics), step, 0
            return True
        self.worse += value != best
        self.stopped = 0 < settings.patience <= self.worse
        return False


@dataclass(frozen=True)
class Piece:
    """One piece: its name, the recording and what was made of it, ``(samples,)`` float32."""

    key: str
    reference: np.ndarray
    generated: np.ndarray


class Validation:
    """Fixed pieces of held-out clips.

    Args:
        settings: of the validation.
        places: held-out clips.
        voice: only its shape counts here.
        features: of its generator.
        speakers: row of each speaker's name in the table.
        context: sample rate and mel.
        device: where it is computed.
    """

    def __init__(
        self,
        settings: ValidationSettings,
        places: Sequence[Place],
        voice: Voice,
        features: Features,
        speakers: Mapping[str, int],
        context: Context,
        device: torch.device,
    ) -> None:
        self.settings, self.context = settings, context
        shape = shape_of(voice.generator, features, settings.frames)
        chances = Chances(places, {})
        rngs = [np.random.default_rng([7, number]) for number in range(settings.pieces)]
        crops = [cut(draw_plan(chances, rng, PLAIN, shape), shape) for rng in rngs]
        known = [crop for crop in crops if voice.speakers is None or crop.speaker in speakers]
        self.batches: list[Batch] = [
            collate([crop], [number], voice.generator, features, speakers, voice.speakers, device)
            for number, crop in enumerate(known)
        ]
        if not self.batches:
            raise MelismaError("no speaker of the held-out clips is trained; name others with validation.folders")

    @torch.no_grad()
    def __call__(self, average: Voice) -> tuple[dict[str, float], list[Piece]]:
        """Sing all pieces; the mean of each metric, and the pieces."""
        was_training = average.training
        average.eval()
        pieces, rows = [], []
        for batch in self.batches:
            made = average.generator(batch.features, batch.f0_hz, average.vector(batch.speaker), batch.draws.first)
            audio = made.float().squeeze(1)
            rows.append(self._metrics(audio, batch.reference))
            pieces.append(Piece(batch.keys[0], batch.reference[0].cpu().numpy(), audio[0].cpu().numpy()))
        average.train(was_training)
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}, pieces

    def _metrics(self, audio: Tensor, reference: Tensor) -> dict[str, float]:
        return {
            "mel": mel_loss(audio, reference, self.context.full_mel).item(),
            "multi-scale-mel": multi_scale_mel_loss(audio, reference, self.context.sample_rate).item(),
            "mr-stft": mr_stft_loss(audio, reference, SIZES).item(),
        }

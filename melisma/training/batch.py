"""A batch on the device: mels on the fly by the library's one feature path, F0 as the generator wants it, and draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.audio.f0_curve import interpolate_unvoiced
from melisma.audio.mel import MelContract, log_mel
from melisma.source import Randomness
from melisma.training.crops import Crop, Shape


class Features(Protocol):
    """What makes a generator's features from audio."""

    margin: int

    def __call__(self, audio: Tensor, speaker: Tensor | None, seeds: Sequence[int]) -> Tensor:
        """Audio ``(batch, samples)`` -> ``(batch, channels, frames)``."""


class MelFeatures:
    """Log-mels under a contract; ``margin`` frames on each side are disturbed by the cut."""

    def __init__(self, mel: MelContract) -> None:
        self.mel = mel
        self.frame_offset = 0.0 if mel.padding == "centre" else 0.5
        reach = mel.n_fft / 2 - mel.hop_length * self.frame_offset
        self.margin = max(1, math.ceil(reach / mel.hop_length))

    def __call__(self, audio: Tensor, speaker: Tensor | None, seeds: Sequence[int]) -> Tensor:
        """See :class:`Features`; the voice's identity does not matter."""
        return log_mel(audio, self.mel)


@dataclass(frozen=True)
class Draws:
    """Randomness of the generator for a batch; the second where losses compare two draws."""

    first: Randomness
    second: Randomness | None


@dataclass(frozen=True)
class Batch:
    """Crops as tensors, without their margins.

    Attributes:
        keys: names of the clips.
        reference: target audio ``(batch, samples)``.
        features: ``(batch, channels, frames)``.
        f0_hz: ``(batch, frames)``, unvoiced frames as the generator's F0 contract says.
        band_hz: ``(batch,)``: nothing of the reference above this is real.
        speaker: row of each crop in the speaker table ``(batch,)``, None without one.
        draws: see :class:`Draws`.
    """

    keys: tuple[str, ...]
    reference: Tensor
    features: Tensor
    f0_hz: Tensor
    band_hz: Tensor
    speaker: Tensor | None
    draws: Draws


def blurred(features: Tensor, bands: float, frames: float) -> Tensor:
    """Log-mel ``(bands, frames)`` under a Gaussian blur of so many bands and frames; the edges hold."""
    along_frames = _smooth(features, frames)
    return _smooth(along_frames.T, bands).T


def _smooth(rows: Tensor, deviation: float) -> Tensor:
    reach = math.ceil(4.0 * deviation)
    at = torch.arange(-reach, reach + 1, device=rows.device, dtype=rows.dtype)
    kernel = torch.exp(-0.5 * (at / deviation).square())
    held = F.pad(rows.unsqueeze(1), (reach, reach), mode="replicate")
    return F.conv1d(held, (kernel / kernel.sum()).reshape(1, 1, -1)).squeeze(1)


def shape_of(generator: nn.Module, features: Features, frames: int) -> Shape:
    """Of the crops that give so many frames without their margins."""
    return Shape(
        frames + 2 * features.margin,
        generator.sample_rate,  # type: ignore[arg-type]
        generator.hop_length,  # type: ignore[arg-type]
        getattr(features, "frame_offset", 0.5),
    )


def draw_randomness(generator: nn.Module, seeds: Sequence[int], frames: int, device: torch.device) -> Randomness:
    """What the generator draws for each crop: a function of the crop's seed alone, whatever stands beside it."""
    found: list[Randomness] = [generator.draws(seed, 0, frames, 1, device) for seed in seeds]  # type: ignore[operator]
    phases = [
        torch.from_numpy(np.random.default_rng([seed, 1]).random((1, 1), dtype=np.float32)).to(device)
        if one.initial_phase is None
        else one.initial_phase
        for seed, one in zip(seeds, found, strict=True)
    ]
    return Randomness(
        torch.cat([phase.contiguous() for phase in phases]),
        _joined([one.noise for one in found]),
        _joined([one.feature_noise for one in found]),
    )


def _joined(values: list[Tensor | None]) -> Tensor | None:
    there = [value for value in values if value is not None]
    return torch.cat([value.contiguous() for value in there]) if there else None


def collate(
    crops: Sequence[Crop],
    seeds: Sequence[int],
    generator: nn.Module,
    features: Features,
    speakers: Mapping[str, int],
    table: nn.Embedding | None,
    device: torch.device,
    two: bool = False,
) -> Batch:
    """Crops with margins to a batch without.

    Args:
        crops: what was cut.
        seeds: of each crop's draws.
        generator: which model is trained.
        features: of this model.
        speakers: row of each speaker's name in the table.
        table: vectors of the speakers, None without.
        device: where to.
        two: whether losses compare two draws.
    """
    margin, hop = features.margin, int(generator.hop_length)  # type: ignore[arg-type]
    source = torch.from_numpy(np.stack([crop.source for crop in crops])).to(device)
    reference = torch.from_numpy(np.stack([crop.reference for crop in crops])).to(device)
    curves = np.stack([crop.f0_hz for crop in crops])
    if generator.f0_contract == "interpolated":
        curves = interpolate_unvoiced(curves)
    rows = torch.tensor([speakers[crop.speaker] for crop in crops], device=device) if table is not None else None
    with torch.no_grad():
        vectors = None if table is None or rows is None else table(rows).unsqueeze(-1)
        made = features(source, vectors, seeds)
        made = torch.stack(
            [row if crop.blur is None else blurred(row, *crop.blur) for row, crop in zip(made, crops, strict=True)]
        )
    frames = curves.shape[1] - 2 * margin
    return Batch(
        keys=tuple(crop.key for crop in crops),
        reference=reference[:, margin * hop : (margin + frames) * hop],
        features=made[..., margin : margin + frames],
        f0_hz=torch.from_numpy(curves).to(device)[:, margin : margin + frames],
        band_hz=torch.tensor([crop.band_hz for crop in crops], device=device, dtype=torch.float32),
        speaker=rows,
        draws=Draws(
            draw_randomness(generator, seeds, frames, device),
            draw_randomness(generator, [seed + 1 for seed in seeds], frames, device) if two else None,
        ),
    )

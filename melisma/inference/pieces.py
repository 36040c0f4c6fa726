"""Long input in pieces: every piece with real context on both sides, so that the result equals the whole."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from melisma.generators.analytic import Analytic
from melisma.inference import graphs
from melisma.kernels import rounding

Precision = Literal["float32", "bfloat16"]

PIECE_SECONDS = 10.0


@dataclass(frozen=True)
class Piece:
    """Frames ``start`` to ``stop`` of a clip, made from the frames ``first`` to ``last`` around them."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Request:
    """What to synthesise.

    Attributes:
        frames: length of the clip.
        features: ``(first, last) -> (batch, channels, last - first)``; called with first and last that only grow.
        f0_hz: the whole curve ``(batch, frames)``, or None for a model without F0.
        speaker: ``(batch, speaker_channels, 1 or frames)`` or None.
        seed: of phase and noise.
        projections: rounds of mel projection, None for the model's default; only for models that have them.
        trust: where the features are known to be of the pitch ``f0_hz``, ``(batch, frames)`` in [0, 1], or None.
    """

    frames: int
    features: Callable[[int, int], Tensor]
    f0_hz: Tensor | None
    speaker: Tensor | None = None
    seed: int = 0
    projections: int | None = None
    trust: Tensor | None = None


def cut(frames: int, piece_frames: int, halo_frames: int) -> Iterator[Piece]:
    """Cut ``frames`` into pieces of ``piece_frames`` with ``halo_frames`` of context where there is any."""
    for start in range(0, frames, piece_frames):
        stop = min(frames, start + piece_frames)
        if frames - stop < halo_frames:  # the rest would be read as context anyway
            stop = frames
        yield Piece(start, stop, max(0, start - halo_frames), min(frames, stop + halo_frames))
        if stop == frames:
            return


def halo_frames(generator: Any, projections: int | None) -> int:
    """Frames of context that the generator needs at this number of projections."""
    if projections is None or getattr(generator, "default_projections", None) is None:
        return int(generator.halo_frames)
    return int(generator.halo_of(projections))


def render(
    generator: Any, request: Request, precision: Precision = "float32", piece_seconds: float = PIECE_SECONDS
) -> Iterator[np.ndarray]:
    """Synthesise a request piece by piece.

    Args:
        generator: a generator in evaluation mode (see docs/architecture.md, rule 1).
        request: what to synthesise.
        precision: see :func:`within`.
        piece_seconds: length of a piece.

    Yields:
        ``(batch, samples)`` float32, one piece after the other.
    """
    device = device_of(generator)
    hop = generator.hop_length
    piece_frames = max(1, round(piece_seconds * generator.sample_rate / hop))
    f0_hz = None if request.f0_hz is None else request.f0_hz.to(device)
    for piece in cut(request.frames, piece_frames, halo_frames(generator, request.projections)):
        with torch.inference_mode(), within(precision, generator, device):
            audio = forward(generator, request, piece, f0_hz, device)
        kept = audio[:, 0, (piece.start - piece.first) * hop : (piece.stop - piece.first) * hop]
        yield kept.float().cpu().numpy()


def device_of(generator: Any) -> torch.device:
    """Where a generator's tensors are; the CPU where it has none."""
    tensors = chain(generator.parameters(), generator.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def within(precision: Precision, generator: Any, device: torch.device) -> AbstractContextManager[Any]:
    """Run layers with weights in the wanted precision; phases, spectra and sums stay float32.

    Of spectral generators only what AMX multiplies is rounded: elsewhere their products are float32.
    """
    if precision == "float32":
        return nullcontext()
    if isinstance(generator, Analytic):
        return rounding.halved()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def forward(generator: Any, request: Request, piece: Piece, f0_hz: Tensor | None, device: torch.device) -> Tensor:
    """Audio ``(batch, 1, samples)`` of all frames that a piece is made from; ``f0_hz`` is the curve on the device."""
    features = request.features(piece.first, piece.last).to(device)
    speaker = request.speaker
    if speaker is not None:
        speaker = (speaker[..., piece.first : piece.last] if speaker.shape[-1] > 1 else speaker).to(device)
    arguments: dict[str, Any] = {}
    if request.projections is not None:
        arguments["projections"] = request.projections
    sing = graphs.on(device, generator)
    if request.trust is not None and getattr(generator, "default_projections", None) is not None:
        arguments["trust"] = request.trust[:, piece.first : piece.last].to(device)
    if f0_hz is None:
        return sing(features, None, speaker, **arguments)
    randomness = generator.randomness(f0_hz, request.seed, piece.first, piece.last - piece.first)
    return sing(features, f0_hz[:, piece.first : piece.last], speaker, randomness=randomness, **arguments)

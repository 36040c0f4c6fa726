"""A stream for any generator: frames are collected, and made again together with their context.

It needs nothing of the generator but ``halo_frames`` and ``randomness``. So go the streams with mel projections: many
rounds make 1e-4 of what two orders of summation make in the last digit, and only the very forward that makes the whole
gives the same samples. All else has a ``step`` of its own (docs/architecture.md, rule 7).
"""

from typing import Any

import torch
from torch import Tensor

from melisma.inference.pieces import Piece, Request, device_of, forward, halo_frames
from melisma.layers.streaming import Memory, State

# Frames made at once, over the context on one side. At 1 everything is made three times; at 2 only twice, half as late
# again.
CHUNK_HALOS = 1


def chunk_frames(generator: Any, projections: int | None) -> int:
    """Frames that are made at once."""
    return max(1, CHUNK_HALOS * halo_frames(generator, projections))


def lookahead_samples(generator: Any, projections: int | None) -> int:
    """Samples of audio that may wait for later frames."""
    frames = halo_frames(generator, projections) + chunk_frames(generator, projections)
    return (frames - 1) * int(generator.hop_length)


def step(
    generator: Any,
    features: Tensor,
    f0_hz: Tensor | None,
    speaker: Tensor | None,
    state: State | None,
    seed: int,
    projections: int | None,
    last: bool,
) -> tuple[Tensor, State]:
    """As :meth:`melisma.generators.nsf_hifigan.NsfHifigan.step`, with a seed for the draws."""
    memory = Memory(state, last)
    halo, hop = halo_frames(generator, projections), generator.hop_length
    buffered = memory.joined("features", features)
    # The phase of a piece follows from the whole curve: 1.2 MB for an hour.
    curve = None if f0_hz is None else memory.joined("f0", f0_hz)
    frames = memory.count("frames", features.shape[-1]) + features.shape[-1]
    first = frames - buffered.shape[-1]
    start = memory.count("made")
    stop = frames if last else max(start, frames - halo)
    if not last and stop - start < chunk_frames(generator, projections):
        stop = start
    audio = features.new_zeros(features.shape[0], 1, 0)
    if stop > start:
        request = Request(frames, lambda low, high: buffered[..., low - first : high - first], curve, speaker, seed)
        if projections is not None:
            request = Request(frames, request.features, curve, speaker, seed, projections)
        piece = Piece(start, stop, max(0, start - halo), min(frames, stop + halo))
        with torch.inference_mode():
            made = forward(generator, request, piece, curve, device_of(generator))
        audio = made[..., (start - piece.first) * hop : (stop - piece.first) * hop]
    memory.count("made", stop - start)
    memory.keep("features", buffered[..., max(0, stop - halo - first) :])
    memory.keep("f0", curve)
    return audio, memory.state

"""The mel that a model is given of a recording: at its own pitch and tempo, or moved to others."""

import numpy as np
import torch
from torch import Tensor

from melisma.audio.mel import MelContract
from melisma.inference.recording import Recording, frame_starts, log_mel_of_frames
from melisma.inference.sources import Source
from melisma.inference.transposed import Transposed

# Harmonics closer than the first are hardly told apart in a mel, farther apart than the second they are.
RESOLVED_HZ = (160.0, 240.0)
# From this ratio on downward moves are near enough to be exact for any voice.
NEAR_RATIOS = (0.68, 0.76)


class RecordingMel:
    """Log-mel of a recording, piece by piece; where the pitch is moved, that of :class:`Transposed`.

    Args:
        source: the recording at the contract's rate.
        mel: the contract.
        speed: 2 is twice as fast.
        f0_hz: F0 of the recording, ``(input frames,)`` Hz, 0 where unvoiced; None for no move.
        target_f0_hz: F0 of the result, ``(frames,)`` Hz; None for no move.
    """

    def __init__(
        self,
        source: Source,
        mel: MelContract,
        speed: float = 1.0,
        f0_hz: np.ndarray | None = None,
        target_f0_hz: np.ndarray | None = None,
    ) -> None:
        self.source, self.mel, self.speed = source, mel, speed
        self._transposed: Transposed | None = None
        if f0_hz is not None and target_f0_hz is not None and (f0_hz > 0).any() and (target_f0_hz > 0).any():
            transposed = Transposed(mel, f0_hz, target_f0_hz, speed)
            self._transposed = transposed if transposed.changes else None

    @property
    def moves(self) -> bool:
        """Whether any frame is moved to another pitch."""
        return self._transposed is not None

    def trust(self, target_f0_hz: np.ndarray) -> np.ndarray:
        """How far each frame's mel may be imposed on what is sung, ``(frames,)`` float32 in [0, 1].

        A mel that was not moved is the recording's own. One that was moved far down is less exact where its harmonics
        stand too close to be told apart.
        """
        if self._transposed is None:
            return np.ones(len(target_f0_hz), dtype=np.float32)
        voiced = target_f0_hz > 0
        resolved, near = (
            ((values - low) / (high - low)).clip(0.0, 1.0)
            for values, (low, high) in ((target_f0_hz, RESOLVED_HZ), (self._transposed.ratios, NEAR_RATIOS))
        )
        return np.where(voiced, np.maximum(resolved, near), 1.0).astype(np.float32)

    def __call__(self, first: int, last: int) -> Tensor:
        """``(channels, n_mels, last - first)`` of frames of the result; ``first`` may only grow from call to call."""
        mel, frames = self.mel, np.arange(first, last)
        starts = frame_starts(frames, mel, self.source.samples, self.speed)
        extra = self._transposed.context if self._transposed else 0
        recording = Recording(self.source, int(starts[0]) - extra, int(starts[-1]) + mel.n_fft + extra)
        plain = recording.log_mel(frames, mel, self.speed)
        if self._transposed is None or not (self._transposed.ratios[first:last] > 0).any():
            return plain
        starts = frame_starts(frames, mel, self.source.samples)
        low = int(starts[0])
        samples = self._transposed.read(recording, low, int(starts[-1]) + mel.n_fft)
        windows = samples.unfold(1, mel.n_fft, mel.hop_length)
        moved = log_mel_of_frames(windows, mel)
        return torch.where(torch.from_numpy(self._transposed.ratios[first:last] > 0), moved, plain)

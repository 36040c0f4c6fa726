"""The mel that a model is given of a recording: at its own pitch and tempo, or moved to others."""

import numpy as np
import torch
from torch import Tensor

from melisma.audio.mel import MelContract
from melisma.inference.recording import Recording, frame_starts, log_mel_of_frames
from melisma.inference.sources import Source
from melisma.inference.transposed import Transposed


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

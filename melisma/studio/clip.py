"""A recording as one model hears it: its samples at the model's rate, its F0, its notes, its picture."""

from collections.abc import Callable

import numpy as np
import torch

from melisma.audio.f0_curve import resample_curve
from melisma.audio.mel import MelContract
from melisma.editing import find_notes
from melisma.editing.notes import Note
from melisma.inference.pitch import f0_of_source
from melisma.inference.recording_mel import RecordingMel
from melisma.inference.resynthesis import check_recording, required_mel
from melisma.inference.sources import ArraySource, hop_peaks
from melisma.inference.vocoder import Vocoder

SILENT_PEAK = 1e-6
PICTURE_RANGE = 8.0  # natural log units (70 dB) from the loudest band down to black
_BLOCK_FRAMES = 2048


class Clip:
    """A recording under a model's mel contract.

    Args:
        native: ``(channels, samples)`` float32.
        native_rate: Hz.
        vocoder: the model.
        f0_hz: its curve where known, with the step in seconds that it has; None estimates it.
        progress: called with the share done, 0 to 1.

    Attributes:
        frames: frames of the model.
        f0_hz: ``(frames,)`` Hz, 0 where unvoiced.
        notes: what is sung.
        log_mel: ``(channels, n_mels, frames)`` of the recording as it is.
        audio: ``(channels, frames * hop)`` at the model's rate, zeros after the end.

    Raises:
        MelismaError: a latent model, or a recording that no model can take.
    """

    def __init__(
        self,
        native: np.ndarray,
        native_rate: int,
        vocoder: Vocoder,
        f0_hz: tuple[np.ndarray, float] | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        check_recording(native.shape[0], native.shape[1], native_rate, "the recording")
        self.native, self.native_rate, self.vocoder = native, native_rate, vocoder
        self.mel: MelContract = required_mel(vocoder)
        self.source = ArraySource(native, native_rate, self.mel.sample_rate)
        peaks, downmix = hop_peaks(self.source, self.mel.hop_length)
        self.frames = peaks.shape[1]
        self.frame_rate_hz = self.mel.frame_rate_hz
        self.audio = self.source.read(0, self.frames * self.mel.hop_length)
        progress(0.1)
        if f0_hz is not None:
            curve = resample_curve(f0_hz[0], f0_hz[1], 1.0 / self.frame_rate_hz, self.frames)
        elif float(peaks.max()) < SILENT_PEAK:
            curve = np.zeros(self.frames)
        else:
            curve = f0_of_source(self.source, self.mel, None, downmix, lambda share: progress(0.1 + 0.8 * share))
        self.f0_hz = np.asarray(curve, dtype=np.float32)
        read = RecordingMel(self.source, self.mel)
        blocks = range(0, self.frames, _BLOCK_FRAMES)
        self.log_mel = torch.cat([read(start, min(self.frames, start + _BLOCK_FRAMES)) for start in blocks], dim=-1)
        self.notes: tuple[Note, ...] = find_notes(self.f0_hz, self.frame_rate_hz)

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.native.shape[1] / self.native_rate

    def at_speed(self, f0_hz: np.ndarray, speed: float) -> np.ndarray:
        """A curve of the recording at the frames of a result that plays ``speed`` times as fast."""
        if speed == 1.0:
            return f0_hz
        frames = max(1, int(np.ceil(self.source.samples / speed / self.mel.hop_length)))
        return resample_curve(f0_hz, 1.0, speed, frames)

    def picture(self) -> np.ndarray:
        """The mel spectrogram ``(frames, n_mels)`` as uint8: 255 is the loudest band, 0 is 70 dB below it or less."""
        values = self.log_mel.mean(dim=0).T.numpy() * (1.0 if self.mel.log_base == "e" else np.log(10.0))
        shares = (values - (values.max() - PICTURE_RANGE)) / PICTURE_RANGE
        return np.rint(255.0 * np.clip(shares, 0.0, 1.0)).astype(np.uint8)

"""The mel that a model sings a result from: every frame is made when it is first asked for, and once."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from melisma.editing import warp_formants
from melisma.editing.notes import voiced_runs
from melisma.inference.recording_mel import RecordingMel

if TYPE_CHECKING:
    from melisma.studio.clip import Clip

_SAME_PITCH = 1e-5  # octaves


class ResultMel:
    """``(first, last) -> (channels, n_mels, last - first)``: the log-mel of frames of a result.

    Moving a mel to another pitch costs more than singing it, so only frames whose pitch is another are moved.

    Args:
        clip: the recording.
        target_f0_hz: ``(result frames,)``: what is sung; the mel moves with it, the formants stay.
        speed: of the result.
        formant_semitones: by how much the formants move.

    Attributes:
        trust: ``(1, result frames)``: how far each frame may be imposed on what is sung, see :class:`RecordingMel`.
    """

    def __init__(self, clip: "Clip", target_f0_hz: np.ndarray, speed: float, formant_semitones: float) -> None:
        self._clip, self._target, self._formants = clip, target_f0_hz, formant_semitones
        self._plain = RecordingMel(clip.source, clip.mel, speed)
        self._moving = RecordingMel(clip.source, clip.mel, speed, clip.f0_hz, target_f0_hz)
        recorded = clip.at_speed(clip.f0_hz, speed)
        both = (recorded > 0) & (target_f0_hz > 0)
        octaves = np.log2(np.where(both, target_f0_hz, 1.0) / np.where(both, recorded, 1.0))
        self._moves = both & ((np.abs(octaves) > _SAME_PITCH) | (speed != 1.0))
        trust = np.where(self._moves, self._moving.trust(target_f0_hz), 1.0)
        self.trust = torch.from_numpy(trust.astype(np.float32))[None]
        self._as_recorded = clip.log_mel if speed == 1.0 else None
        self._rows = torch.empty(clip.source.channels, clip.mel.n_mels, len(target_f0_hz))
        self._known = np.zeros(len(target_f0_hz), dtype=bool)

    def __call__(self, first: int, last: int) -> Tensor:
        for start, stop in voiced_runs(~self._known[first:last]):
            self._make(first + start, first + stop)
        return self._rows[..., first:last]

    def _make(self, first: int, last: int) -> None:
        if self._as_recorded is not None:
            rows = self._as_recorded[..., first:last].clone()
        else:
            rows = self._plain(first, last)
        for start, stop in voiced_runs(self._moves[first:last]):
            rows[..., start:stop] = self._moving(first + start, first + stop)
        if self._formants != 0:
            rows = warp_formants(rows, self._clip.mel, self._formants, self._target, first)
        self._rows[..., first:last] = rows
        self._known[first:last] = True

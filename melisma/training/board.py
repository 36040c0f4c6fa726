"""TensorBoard's files (extra ``tensorboard``): losses, validation metrics, and the pieces to hear and to see."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melisma.audio.mel import MelContract, log_mel
from melisma.errors import MelismaError
from melisma.training.validation import Piece, Record

LOWEST, HIGHEST = -10.0, 2.0  # of the log-mels in the pictures


class Board:
    """Writes into a folder that ``tensorboard --logdir`` reads.

    Raises:
        MelismaError: the package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MelismaError(
                "tensorboard is not installed; pip install 'melisma[tensorboard]', or set tensorboard to false"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))
        self._start: dict[str, np.ndarray] = {}

    def begin(self, pieces: Sequence[Piece]) -> None:
        """What was sung before anything was learned, for a run that goes on."""
        self._start = {_title(number, piece): piece.generated for number, piece in enumerate(pieces)}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Losses and the learning rate."""
        for name, value in values.items():
            self._writer.add_scalar(f"training/{name}", value, step)

    def validated(
        self, step: int, metrics: Mapping[str, float], pieces: Sequence[Piece], record: Record, rate: int
    ) -> None:
        """Metrics as they are and over those of the start; each piece as recorded, as at the start and as now."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"validation/{name}", value, step)
            self._writer.add_scalar(f"validation over start/{name}", value / max(1e-9, record.start[name]), step)
        first = not self._start
        for number, piece in enumerate(pieces):
            title = _title(number, piece)
            if first:
                self._start[title] = piece.generated
                self._writer.add_audio(f"{title}/recording", _playable(piece.reference), step, sample_rate=rate)
            self._writer.add_audio(f"{title}/now", _playable(piece.generated), step, sample_rate=rate)
            rows = [_picture(audio, rate) for audio in (piece.reference, self._start[title], piece.generated)]
            gap = np.ones((4, rows[0].shape[1]), dtype=np.float32)
            stacked = np.concatenate([rows[0], gap, rows[1], gap, rows[2]])
            self._writer.add_image(f"{title}/recording, at the start, now", stacked[None], step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _title(number: int, piece: Piece) -> str:
    return f"{number} {piece.key}"


def _playable(audio: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.clip(audio, -1.0, 1.0))[None]


def _picture(audio: np.ndarray, rate: int) -> np.ndarray:
    """Log-mel with high notes above, 0 to 1."""
    mel = MelContract.nvstft(rate, 96, 1024, 1024, 256, 0.0, None)
    values = log_mel(audio, mel)[0].numpy()[::-1]
    return np.clip((values - LOWEST) / (HIGHEST - LOWEST), 0.0, 1.0).astype(np.float32)

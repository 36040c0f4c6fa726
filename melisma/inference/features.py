"""What comes in at the vocoder's door: shapes and values checked, each failure with its cure."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.audio.f0_curve import check_f0
from melisma.audio.mel import MelContract
from melisma.errors import MelismaError

# A mel further below the contract's floor than this is on another scale (decibel, say).
_BELOW_FLOOR = 4.0
_LOG10_FLOOR = -5.0


def _array(values: Any, what: str) -> np.ndarray:
    array = values.detach().cpu().float().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise MelismaError(f"{what} must be numbers, not {array.dtype}")
    if array.size == 0:
        raise MelismaError(f"{what} of shape {array.shape}: holds nothing; give at least one frame")
    if not np.isfinite(array).all():
        raise MelismaError(f"{what} holds NaN or Inf; repair it at its origin")
    return array


def as_features(values: Any, generator: Any, few: bool = False) -> tuple[Tensor, bool]:
    """Features as a float32 tensor ``(batch, channels, frames)``, and whether they came with a batch.

    ``few``: so few frames that only values which no mel of the contract can hold are refused.
    """
    array = _array(values, "features")
    if array.ndim not in (2, 3):
        raise MelismaError(f"features must be (channels, frames) or (batch, channels, frames), not {array.shape}")
    batched = array.ndim == 3
    rows = array if batched else array[None]
    channels = feature_channels(generator)
    if channels is not None and rows.shape[1] != channels:
        cure = "; transpose them" if rows.shape[2] == channels else "; make them with this model's own settings"
        raise MelismaError(f"features have {rows.shape[1]} channels, the model needs {channels}{cure}")
    if generator.mel is not None:
        check_scale(rows, generator.mel, few)
    return torch.tensor(rows, dtype=torch.float32), batched


def feature_channels(generator: Any) -> int | None:
    """Channels of the features that a generator takes."""
    if generator.mel is not None:
        return int(generator.mel.n_mels)
    return getattr(generator.config, "in_channels", None)


def check_scale(features: np.ndarray, mel: MelContract, few: bool = False) -> None:
    """Refuse mels that cannot be of this contract: linear, in decibel, or of another logarithm.

    ``few``: so few frames that the last may look like any other.
    """
    lowest, highest = float(features.min()), float(features.max())
    unit = "natural logarithm" if mel.log_base == "e" else "log10"
    floor = np.log(mel.floor) / (1.0 if mel.log_base == "e" else np.log(10.0))
    wrong = None
    if lowest < floor - _BELOW_FLOOR or highest > 15.0:
        wrong = f"values from {lowest:.1f} to {highest:.1f}; is it in decibel?"
    elif few:
        return
    elif lowest >= 0.0 and highest > 0.0:
        wrong = f"values from {lowest:.2g} to {highest:.2g}; take the logarithm first"
    elif mel.log_base == "e" and mel.floor == 1e-5 and np.mean(np.abs(features - _LOG10_FLOOR) < 1e-5) > 1e-3:
        wrong = "its floor lies at -5, which is log10 of 1e-5; multiply it by 2.302585"
    if wrong:
        raise MelismaError(f"the mel is not of this model's contract ({unit}, floor {mel.floor:g}): {wrong}")


def as_f0(values: Any, batch: int, frames: int, sample_rate: int) -> np.ndarray:
    """F0 as float32 ``(batch, frames)``; one curve serves a whole batch."""
    if values is None:
        raise MelismaError("this model needs F0: give f0_hz (frames,) in Hz, 0 where unvoiced")
    array = np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values)
    rows = array if array.ndim == 2 else array[None]
    if rows.shape[0] not in (1, batch):
        raise MelismaError(f"F0 has {rows.shape[0]} curves for a batch of {batch}; give one, or one each")
    checked = np.stack([check_f0(row, sample_rate, frames) for row in rows])
    return np.broadcast_to(checked, (batch, frames))


def as_speaker(values: Any, generator: Any, table: Tensor | None, batch: int, frames: int) -> Tensor | None:
    """A speaker as ``(batch, speaker_channels, 1 or frames)``.

    Args:
        values: an index into ``table``, a vector ``(speaker_channels,)``, the full tensor, or None.
        generator: what it is for.
        table: ``(count, speaker_channels)`` or None.
        batch: of the features.
        frames: of the features.
    """
    if values is None:
        return None
    channels = getattr(generator.config, "speaker_channels", 0)
    if not channels:
        raise MelismaError("this model has no speakers; leave speaker out")
    if isinstance(values, int | np.integer):
        if table is None:
            raise MelismaError("this model has no speaker table; give the speaker's vector instead of its number")
        if not 0 <= values < len(table):
            raise MelismaError(f"speaker {values}: the model has {len(table)}, numbered 0 to {len(table) - 1}")
        vector: Tensor = table[int(values)].float()
    else:
        vector = torch.from_numpy(np.array(_array(values, "speaker"), dtype=np.float32))
    if vector.ndim == 1:
        vector = vector[None, :, None]
    if vector.ndim == 2:
        vector = vector[..., None]
    if vector.ndim != 3 or vector.shape[1] != channels or vector.shape[2] not in (1, frames):
        raise MelismaError(f"speaker has shape {tuple(vector.shape)}; the model needs ({channels},)")
    if vector.shape[0] not in (1, batch):
        raise MelismaError(f"{vector.shape[0]} speakers for a batch of {batch}; give one, or one each")
    return vector.expand(batch, -1, -1)

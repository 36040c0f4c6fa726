"""What is read off the fine structure of mels, on a CPU: the same as the plain code of its callers.

Torch takes ten microseconds for each of its operations, and there are dozens on a few thousand numbers.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import choice, numba_part, ready

_numba = numba_part("ripple_numba")

Pairs = tuple[tuple[float, float], ...]


def fused(*values: Tensor) -> bool:
    """Whether this can be computed with here."""
    return all(choice.holds_values(value) for value in values) and ready.usable(choice.projection())


def compared(wanted: Tensor, pulses: Tensor, bands: int, reach: int) -> Tensor:
    """Mean products of the fine structures of two mels ``(batch, frames, n_mels)``: ``(batch, 3, frames)``.

    Fine structure is what a moving average over ``reach`` bands on either side leaves of the lowest ``bands``, or of
    all where they are fewer.
    """
    bands = min(bands, wanted.shape[-1])
    out = _room(3, wanted)
    _numba().compared(_rows(wanted), _rows(pulses), bands, reach, out.numpy())
    return _by_clip(out, wanted)


def bends(wanted: Tensor, bands: int) -> Tensor:
    """Mean square of the second difference over the lowest bands, ``(batch, 1, frames)``."""
    bands = min(bands, wanted.shape[-1])
    out = _room(1, wanted)
    _numba().bends(_rows(wanted), bands, out.numpy())
    return _by_clip(out, wanted)


def lags(wanted: Tensor, bands: int, reach: int, steps: tuple[np.ndarray, np.ndarray], ends: tuple[int, int]) -> Tensor:
    """Autocorrelation of the fine structure at the lags from one end to the other, ``(batch, lags, frames)``.

    ``steps`` are even steps of frequency: the lower of the bands that each reads, and weights of that and the next.
    """
    bands = min(bands, wanted.shape[-1])
    out = _room(ends[1] - ends[0], wanted)
    _numba().lags(_rows(wanted), bands, reach, steps, ends[0], out.numpy())
    return _by_clip(out, wanted)


def fitted(wanted: Tensor, actual: Tensor, pulses: Tensor, per_cent: Tensor, reach: int) -> Tensor:
    """What :func:`melisma.layers.pitch_gate.pitch_gate` compares, ``(batch, 8, frames)``."""
    out = _room(8, wanted)
    _numba().fitted(_rows(wanted), _rows(actual), _rows(pulses), per_cent.numpy(), reach, out.numpy())
    return _by_clip(out, wanted)


def foreign(means: Tensor, ends: Pairs) -> Tensor:
    """Whether a ripple is another's, of averaged products ``(batch, 3, frames)``: ``(batch, frames)``.

    ``ends`` are correlations from which on it is not, and up to which it is; and nepers of unexplained ripple.
    """
    out = means.new_empty(means.shape[0], means.shape[2])
    for clip, made in zip(means, out, strict=True):
        _numba().foreign(clip.contiguous().numpy(), _pairs(ends), made.numpy())
    return out


def opened(long: Tensor, local: Tensor, ramps: Pairs, ends: Pairs) -> Tensor:
    """The gate ``(batch, frames)`` of averaged products; see :mod:`melisma.layers.pitch_gate`."""
    out = long.new_empty(long.shape[0], long.shape[2])
    for clip, near, made in zip(long, local, out, strict=True):
        given = clip.contiguous().numpy(), near.contiguous().numpy()
        _numba().opened(*given, _pairs(ramps), _pairs(ends), made.numpy())
    return out


def first_peaks(values: Tensor, share: float) -> Tensor:
    """The first lag of ``(batch, lags, frames)`` that is at least such a share of the highest: ``(batch, frames)``.

    Their number where none is.
    """
    out = torch.empty(values.shape[0], values.shape[2], dtype=torch.int64)
    for clip, made in zip(values, out, strict=True):
        _numba().first_peaks(clip.contiguous().numpy(), np.float32(share), made.numpy())
    return out


def missed(wanted: Tensor, heard: Tensor, sharp: Tensor, reach: int, largest: float) -> Tensor:
    """What a draft misses of a mel ``(batch, frames, n_mels)``, as detailed as ``sharp``, ``(batch, frames)``, is."""
    out = torch.empty(wanted.shape)
    shares = sharp.reshape(-1).contiguous().numpy()
    _numba().missed(_rows(wanted), _rows(heard), shares, reach, np.float32(largest), _rows(out))
    return out


def _rows(values: Tensor) -> np.ndarray:
    return values.reshape(-1, values.shape[-1]).contiguous().numpy()


def _room(rows: int, like: Tensor) -> Tensor:
    return torch.empty(rows, like.shape[0] * like.shape[1])


def _by_clip(out: Tensor, like: Tensor) -> Tensor:
    return out.unflatten(1, like.shape[:2]).transpose(0, 1)


@lru_cache(maxsize=8)
def _pairs(values: tuple[tuple[float, float], ...]) -> np.ndarray:
    return np.array(values, np.float32)

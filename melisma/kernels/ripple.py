"""What is read off the fine structure of mels, on a CPU: the same as the plain code of its callers.

Torch takes ten microseconds for each of its operations, and there are dozens on a few thousand numbers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import choice, numba_part, ready, workers

_numba = numba_part("ripple_numba")
_clips = numba_part("ripple_clip_numba")

_LEAST_FRAMES = 24  # for a worker of its own
# How a backbone is told of F0 and mels: from the middle on, F0 in octaves and mels in pairs of nepers.
LOWEST_HZ, MIDDLE_HZ, MIDDLE_MEL = 20.0, 220.0, -5.0

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


def foreign(means: Tensor, ends: Pairs) -> Tensor:
    """Whether a ripple is another's, of averaged products ``(batch, 3, frames)``: ``(batch, frames)``.

    ``ends`` are correlations from which on it is not, and up to which it is; and nepers of unexplained ripple.
    """
    out = means.new_empty(means.shape[0], means.shape[2])
    for clip, made in zip(means, out, strict=True):
        _numba().foreign(clip.contiguous().numpy(), _pairs(ends), made.numpy())
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


@dataclass(frozen=True, eq=False)
class Look:
    """How a mel is looked at, all over a clip.

    Attributes:
        bands: the lowest ones, in which single harmonics show.
        reach: bands on either side over which structure is averaged away.
        frames: before and behind, over which what is seen is averaged.
        late: frames by which the mel of the pulses comes behind.
        lags: first and last of the autocorrelation.
        steps: even steps of frequency, see :func:`lags`.
        step_hz: how far they are apart.
        strong: what share of the highest peak is one too.
        foreign: see :func:`foreign`.
        sharp: bends that are none, and that are those of a recording.
    """

    bands: int
    reach: int
    frames: tuple[int, int]
    late: int
    lags: tuple[int, int]
    steps: tuple[np.ndarray, np.ndarray]
    step_hz: float
    strong: float
    foreign: Pairs
    sharp: tuple[float, float]

    def widths(self, wanted: Tensor, pulses: Tensor, f0_hz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distance of the harmonics in Hz, sharpness and whether they are another pitch's, ``(batch, frames)`` each.

        Of mels ``(batch, frames, n_mels)``.

        The same as of the functions for each of them, in one call.
        """
        width, sharp, foreign = (torch.empty(f0_hz.shape) for _ in range(3))
        low, high = self.lags
        sizes = (
            min(self.bands, wanted.shape[-1]), self.reach, low, *self.frames, self.late,
            np.float32(self.step_hz), np.float32(self.strong),
        )  # fmt: skip
        limits = _pairs(self.foreign), _pairs((self.sharp,))[0]
        for mel, train, curve, *made in zip(wanted, pulses, f0_hz, width, sharp, foreign, strict=True):
            rows = np.empty((mel.shape[0], 4 + high - low), np.float32)
            given = (_rows(mel), _rows(train)), curve.contiguous().numpy()
            _shared(_clips().widths, mel.shape[0], *given, sizes, self.steps, limits, (rows, *_arrays(made)))
        return width, sharp, foreign


def gate(
    mels: tuple[Tensor, Tensor, Tensor],
    voiced: Tensor,
    sizes: tuple[int, int, int, int],
    per_cent: Tensor,
    limits: tuple[Pairs, Pairs, tuple[float, float]],
) -> Tensor:
    """The gate of :func:`melisma.layers.pitch_gate.pitch_gate`, ``(batch, frames)``, in one call a clip.

    Args:
        mels: wanted, of the audio and of the pulses, ``(batch, frames, n_mels)``.
        voiced: ``(batch, frames)``.
        sizes: bands on either side over which structure is averaged away; frames on either side that are evidence, that
            detuning and sharpness are read from, and that an unvoiced frame reaches over.
        per_cent: bands that a partial moves in a cent, for those that are looked at.
        limits: where what opens the gate begins to and has done; ends of :func:`foreign`; and see :class:`Look`.
    """
    out, frames = torch.empty(voiced.shape), voiced.shape[1]
    ramps, ends, sharp = limits
    given = sizes, per_cent.numpy(), (_pairs(ramps), _pairs(ends), _pairs((sharp,))[0])
    for *three, heard, made in zip(*mels, voiced, out, strict=True):
        work = np.empty((frames, 9), np.float32), np.empty((2, frames), np.float32), made.numpy()
        _shared(_clips().gate, frames, tuple(_rows(mel) for mel in three), heard.contiguous().numpy(), *given, work)
    return out


def conditions(
    mels: tuple[Tensor, Tensor, Tensor], f0_hz: Tensor, sharp: Tensor, sizes: tuple[int, float, int], out: Tensor
) -> Tensor:
    """What a draft misses, ``(frames, n_mels)``, and all that a backbone is told of one clip.

    Args:
        mels: wanted, of the pulses and of the draft, ``(frames, n_mels)``.
        f0_hz: ``(frames,)``.
        sharp: likewise.
        sizes: ``(reach, largest, left)``: see :func:`missed`, and rows of ``out`` before that of the first frame.
        out: made here but for the rows before and behind, ``(rows, 3 * n_mels + 2 or more)``.
    """
    reach, largest, left = sizes
    lost = torch.empty(mels[0].shape)
    given = tuple(_rows(mel) for mel in mels), tuple(_arrays((f0_hz.contiguous(), sharp.contiguous())))
    arguments = *given, (reach, np.float32(largest), left), lost.numpy(), out.numpy()
    shares = workers.stretches(len(lost), _LEAST_FRAMES, len(lost))
    workers.together([partial(_clips().conditions, *ends, *arguments) for ends in shares])
    return lost


def _shared(kernel: Callable[..., None], frames: int, *arguments: Any) -> None:
    """A kernel on all workers, each with its frames."""
    workers.meeting(kernel, workers.edges(frames, _LEAST_FRAMES), *arguments)


def _arrays(tensors: Iterable[Tensor]) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in tensors]


def _rows(values: Tensor) -> np.ndarray:
    return values.reshape(-1, values.shape[-1]).contiguous().numpy()


def _room(rows: int, like: Tensor) -> Tensor:
    return torch.empty(rows, like.shape[0] * like.shape[1])


def _by_clip(out: Tensor, like: Tensor) -> Tensor:
    return out.unflatten(1, like.shape[:2]).transpose(0, 1)


@lru_cache(maxsize=8)
def _pairs(values: tuple[tuple[float, float], ...]) -> np.ndarray:
    return np.array(values, np.float32)

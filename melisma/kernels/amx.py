"""Convolutions over time in bfloat16 on CPUs with AMX, whose tile instructions multiply 16 samples by 16 outputs.

Samples and weights are rounded to bfloat16, sums are float32. oneDNN's convolutions of few channels over much time
reach a sixth of what the instructions can do; these reach three quarters.
"""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import LANES, numba_part
from melisma.kernels.packed import PackedConvolution

_numba = numba_part("amx_numba")

_ARCH_PRCTL = 158
_REQUEST_PERMISSION = 0x1023
_TILE_DATA = 18


@lru_cache(maxsize=1)
def permitted() -> bool:
    """Whether the kernel of the system lets this process use tiles: Linux wants to be asked, once, for all threads."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        system_call: Any = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return False
    return int(system_call(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA)) == 0


@lru_cache(maxsize=1)
def configuration() -> np.ndarray:
    """Of the tiles: eight registers of sixteen rows."""
    from melisma.kernels import tiles_numba

    return tiles_numba.configuration()


@dataclass(frozen=True)
class AmxConvolution(PackedConvolution):
    """A convolution in tiles of bfloat16; make it with :func:`pack`.

    Its kernel may be even too, for signals that are cut at both ends.

    Attributes:
        folds: taps that share a row of a tile, because their channels do not fill it.
    """

    folds: int

    @property
    def layer(self) -> tuple[Any, ...]:
        """What the kernel needs of it."""
        taps = -(-self.kernel // self.folds)
        return self.weights, self.bias, self.channels[1], taps, self.folds, self.dilation, self.reach

    def __call__(
        self,
        x: Tensor,
        slope: float = 1.0,
        base: Tensor | None = None,
        in_place: bool = False,
        cut: tuple[bool, bool] = (False, False),
    ) -> Tensor:
        """``(time, channels)`` float32, contiguous -> ``(time, out_channels)``; see :class:`Winograd.__call__`."""
        out = base if in_place and base is not None else _room(x, (self,), cut)
        added = out if base is None else base
        _numba().convolve(
            _flat(x), _flat(out), _flat(added), base is not None, np.float32(slope), self.layer, cut, self.channels[0],
            configuration(),
        )  # fmt: skip
        return out


def in_turn(
    convolutions: Sequence[AmxConvolution],
    slopes: Sequence[float],
    x: Tensor,
    base: Tensor,
    in_place: bool,
    cut: tuple[bool, bool],
) -> Tensor:
    """``base`` plus two convolutions in turn, each after a leaky ReLU; see :meth:`AmxConvolution.__call__`."""
    first, second = convolutions
    out = base if in_place else _room(x, convolutions, cut)
    both = (np.float32(slopes[0]), np.float32(slopes[1]))
    _numba().convolve_twice(
        _flat(x), _flat(out), _flat(base), both, first.layer, second.layer, cut, first.channels[0], configuration()
    )
    return out


def fits(weight: Tensor) -> bool:
    """Whether weights ``(out_channels, in_channels, kernel)`` can be packed."""
    outputs, inputs, _ = weight.shape
    return outputs % LANES == 0 and inputs % LANES == 0


def pack(weight: Tensor, bias: Tensor | None, dilation: int = 1) -> AmxConvolution:
    """Lay out the weights ``(out_channels, in_channels, kernel)`` of a convolution, for which :func:`fits` holds."""
    from melisma.kernels.tiles_numba import DEEP

    outputs, inputs, kernel = weight.shape
    folds = 2 if inputs % DEEP else 1
    taps = torch.nn.functional.pad(weight.detach(), (0, -kernel % folds)).permute(2, 1, 0)  # (kernel, in, out)
    rows = taps.reshape(-1, 2, outputs // LANES, LANES)  # pairs of what is summed, columns of tiles
    tiles = rows.permute(2, 0, 3, 1).contiguous().bfloat16().view(torch.int16)
    added = np.zeros(outputs, np.float32) if bias is None else bias.detach().float().numpy()
    return AmxConvolution(tiles.reshape(-1).numpy().view(np.uint16), added, (inputs, outputs), kernel, dilation, folds)


def _room(x: Tensor, convolutions: Sequence[AmxConvolution], cut: tuple[bool, bool]) -> Tensor:
    reach = sum(convolution.reach for convolution in convolutions)
    lost = sum((one.kernel - 1) * one.dilation for one in convolutions) if all(cut) else reach * sum(cut)
    return x.new_empty(x.shape[0] - lost, convolutions[-1].channels[1])


def _flat(x: Tensor) -> np.ndarray:
    return x.numpy().reshape(-1)

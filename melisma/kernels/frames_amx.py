"""The backbone of ConvNeXt blocks in tiles of bfloat16, on CPUs with AMX."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import LANES, amx, numba_part

_numba = numba_part("frames_amx_numba")

DEEP = 32  # rows of weights that are multiplied together; a depth is a multiple of it
WIDE = 2 * LANES  # columns of weights that are multiplied together


def packed(weights: Tensor) -> np.ndarray:
    """``(depth, columns)`` -> tiles of bfloat16, two columns of tiles after the other: their high parts, then the low.

    Columns are filled up to a multiple of :data:`WIDE`.
    """
    filled = torch.nn.functional.pad(weights.detach(), (0, -weights.shape[1] % WIDE))
    high = filled.bfloat16()
    parts = torch.stack([high, (filled - high).bfloat16()])
    # Parts, tiles down, pairs of what is summed, pairs of columns of tiles.
    tiles = parts.reshape(2, -1, DEEP // 2, 2, filled.shape[1] // WIDE, 2, LANES)
    return tiles.permute(4, 0, 1, 5, 2, 6, 3).contiguous().view(torch.int16).reshape(-1).numpy().view(np.uint16)


def backbone(parts: int, *arguments: Any) -> None:
    """A worker's frames, see :func:`melisma.kernels.frames_amx_numba.backbone`."""
    _numba().backbone(parts, amx.configuration(), *arguments)

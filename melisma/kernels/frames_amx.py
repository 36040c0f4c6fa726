"""The backbone of ConvNeXt blocks in tiles of bfloat16, on CPUs with AMX."""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import LANES, amx

DEEP = 32  # rows of weights that are multiplied together; a depth is a multiple of it


def packed(weights: Tensor) -> np.ndarray:
    """``(depth, columns)`` -> tiles of a high part and a low part in bfloat16, one column of tiles behind the other.

    Columns are filled up to a multiple of sixteen.
    """
    filled = torch.nn.functional.pad(weights.detach(), (0, -weights.shape[1] % LANES))
    high = filled.bfloat16()
    parts = torch.stack([high, (filled - high).bfloat16()])
    tiles = parts.reshape(2, -1, DEEP // 2, 2, filled.shape[1] // LANES, LANES)  # pairs of what is summed
    return tiles.permute(4, 1, 0, 2, 5, 3).contiguous().view(torch.int16).reshape(-1).numpy().view(np.uint16)


def backbone(parts: int, *arguments: Any) -> None:
    """A worker's frames, see :func:`melisma.kernels.frames_amx_numba.backbone`."""
    _numba().backbone(parts, amx.configuration(), *arguments)


@lru_cache(maxsize=1)
def _numba() -> ModuleType:
    from melisma.kernels import frames_amx_numba

    return frames_amx_numba

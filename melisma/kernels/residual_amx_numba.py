"""Convolutions of :mod:`melisma.kernels.residual_numba` in the tiles of AMX, in bfloat16."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from melisma.kernels.amx_numba import convolve
from melisma.kernels.lanes_numba import inner_form
from melisma.kernels.residual_numba import add_convolution

_ONE = np.float32(1.0)


@inner_form(add_convolution)
def _tiles(convolution: Any, joined: Any, out: Any) -> Callable[..., None] | None:
    return _add_tiles if isinstance(convolution[0], types.BaseTuple) else None


def _add_tiles(convolution, joined, out):  # type: ignore[no-untyped-def]
    """A convolution is ``(layer, channels, configuration)``, see :func:`melisma.kernels.amx_numba.convolve`."""
    layer, channels, configuration = convolution
    if out.size > 0:
        convolve(joined, out, out, True, _ONE, layer, (True, True), channels, configuration)

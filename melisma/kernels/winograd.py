"""Convolutions over time with fewer multiplications than they have taps: minimal filtering (Winograd 1980).

``step`` outputs of a filter of ``taps`` taps are values of products of polynomials, and ``step + taps - 1`` products
determine them where the plain sum takes ``step * taps``. The outputs of a tile of samples are::

    y = A.T @ ((G @ w) * (B.T @ x))

with matrices that follow from as many points as there are products (Toom-Cook; Lavin & Gray 2016 for networks). Between
channels every product is a matrix product, and it is there that the time goes: a kernel of 7 takes 2.5 multiplications
for each output, one of 11 takes 3.7. Longer kernels are sums of groups of taps that share ``B.T @ x``, which needs as
many taps in a group as outputs in a tile.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from melisma.kernels import LANES, numba_part
from melisma.kernels.packed import PackedConvolution

_numba = numba_part("winograd_numba")

Rounding = Literal["exact", "single", "half"]

_MULTIPLE = LANES  # of the channels


@dataclass(frozen=True)
class Winograd(PackedConvolution):
    """A convolution by minimal filtering; make it with :func:`pack`.

    Attributes:
        kind: its filtering's place in the kernel's table.
        groups: of taps.
    """

    kind: int
    groups: int

    def __call__(
        self,
        x: Tensor,
        slope: float = 1.0,
        base: Tensor | None = None,
        in_place: bool = False,
        cut: tuple[bool, bool] = (False, False),
    ) -> Tensor:
        """``(time, channels)`` float32, contiguous -> ``(time, out_channels)``.

        Args:
            x: what is filtered.
            slope: of a leaky ReLU that is applied to ``x`` before; 1 leaves it as it is.
            base: is added to the result, and as long.
            in_place: the result takes the place of ``base``.
            cut: whether more comes before the first sample and behind the last one. There the result ends :attr:`reach`
                samples earlier; elsewhere there are zeros.
        """
        lost = self.reach * sum(cut)
        out = base if in_place and base is not None else x.new_empty(x.shape[0] - lost, self.channels[1])
        added = out[:0] if base is None else base
        before = 0 if cut[0] else self.kernel // 2
        _numba().convolve(
            x.numpy().reshape(-1), out.numpy().reshape(-1), added.numpy().reshape(-1), np.float32(slope),
            self.weights, self.bias, self.channels, (self.kind, self.groups, before, self.dilation),
        )  # fmt: skip
        return out


def fits(weight: Tensor) -> bool:
    """Whether weights ``(out_channels, in_channels, kernel)`` can be packed, and it saves something."""
    outputs, inputs, kernel = weight.shape
    return kernel >= 3 and kernel % 2 == 1 and outputs % _MULTIPLE == 0 and inputs % _MULTIPLE == 0


def pack(weight: Tensor, bias: Tensor, dilation: int = 1, rounding: Rounding = "single") -> Winograd:
    """Transform the weights of a convolution.

    Args:
        weight: ``(out_channels, in_channels, kernel)``, for which :func:`fits` holds.
        bias: ``(out_channels,)``.
        dilation: samples between taps.
        rounding: ``exact`` as little as a plain sum, or nearly; ``single`` 1e-6 to 5e-6 of the output; ``half`` less
            than bfloat16 does, with the fewest multiplications.
    """
    from melisma.kernels.matrix_numba import packed

    outputs, inputs, kernel = weight.shape
    filtering = _numba().filtering(kernel, rounding)
    groups = -(-kernel // filtering.taps)
    taps = torch.nn.functional.pad(weight.detach().double(), (0, groups * filtering.taps - kernel))
    transform = torch.from_numpy(filtering.matrices()[1])
    grouped = taps.reshape(outputs, inputs, groups, filtering.taps)
    made = torch.einsum("pt,oigt->pgio", transform, grouped).float()
    panels = np.concatenate([packed(matrix, _numba().columns(outputs)) for matrix in made.flatten(0, 1)])
    kind = _numba().ALL.index(filtering)
    return Winograd(panels, bias.detach().float().numpy(), (inputs, outputs), kernel, dilation, kind, groups)

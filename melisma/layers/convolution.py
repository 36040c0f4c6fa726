"""Convolutions over time that also run chunk by chunk (:mod:`melisma.layers.streaming`)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.layers.rows import convolved, upsampled
from melisma.layers.streaming import Memory

_FEW = 8  # outputs for which torch's depthwise convolution takes three times as long as the bare sum


class Convolution(nn.Conv1d):
    """``torch.nn.Conv1d`` with zeros as padding, and its step."""

    def step(self, x: Tensor, memory: Memory, left: int | None = None, right: int | None = None) -> Tensor:
        """The next chunk ``(batch, in_channels, time)`` -> outputs that are final, ``(batch, out_channels, time)``.

        ``left`` and ``right`` are the padding where it is not the layer's own.
        """
        own = int(self.padding[0])
        length = (self.kernel_size[0] - 1) * self.dilation[0] + 1
        pads = (own if left is None else left, own if right is None else right)
        x = memory.windows(x, length, self.stride[0], *pads)
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0)
        if self._is_depthwise and x.shape[-1] - length < _FEW:
            sums = torch.einsum("bcnk,ck->bcn", x.unfold(-1, length, 1), self.weight[:, 0])
            return sums if self.bias is None else sums + self.bias.unsqueeze(-1)
        made = convolved(self, x)
        return F.conv1d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups) if made is None else made

    @property
    def _is_depthwise(self) -> bool:
        return self.groups == self.in_channels == self.out_channels > 1 and self.stride == self.dilation == (1,)


class CausalConvolution(Convolution):
    """A convolution that sees the past only: all zeros are before the signal."""

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_channels, time)`` -> ``(batch, out_channels, time)``."""
        return super().forward(F.pad(x, (self._reach, 0)))

    def step(self, x: Tensor, memory: Memory, left: int | None = None, right: int | None = None) -> Tensor:
        """See :meth:`Convolution.step`; it never lags."""
        return super().step(x, memory, self._reach, 0)

    @property
    def _reach(self) -> int:
        return (self.kernel_size[0] - 1) * self.dilation[0]


class Upsampling(nn.ConvTranspose1d):
    """``torch.nn.ConvTranspose1d`` whose kernel is at least its stride, and its step."""

    def step(self, x: Tensor, memory: Memory, first: int | None = None) -> Tensor:
        """The next chunk ``(batch, in_channels, time)`` -> outputs that are final, ``(batch, out_channels, time)``.

        ``first`` cuts the whole output to ``stride`` samples an input sample, beginning with sample ``first``; None
        leaves it as the forward has it, an odd sample longer where kernel and stride differ oddly.
        """
        stride, kernel, padding = self.stride[0], self.kernel_size[0], int(self.padding[0])
        skip = padding + (first or 0)
        late = skip if first is not None else kernel - stride - padding  # samples that come behind the last input's own
        dropped = memory.count("dropped")
        overlap = memory.recall("overlap")
        if x.shape[-1] == 0:
            if overlap is None or not memory.last:
                return x.new_zeros(x.shape[0], self.out_channels, 0)
            made = overlap
        else:
            by_rows = upsampled(self, x)
            made = F.conv_transpose1d(x, self.weight, None, self.stride) if by_rows is None else by_rows
            if overlap is not None:
                made[..., : kernel - stride] += overlap
        ready = x.shape[-1] * stride
        memory.keep("overlap", made[..., ready:])
        out = made[..., : ready + (late if memory.last else 0)]
        drop = min(skip - dropped, out.shape[-1])
        memory.count("dropped", drop)
        out = out[..., drop:]
        return out if self.bias is None else out + self.bias.unsqueeze(-1)

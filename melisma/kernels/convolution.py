"""Convolutions over time for networks that are only listened to: packed once, channels last, sums and slopes fused.

Values are ``(time, channels)``. oneDNN lays weights out as its kernels read them when a network is packed; the plain
operator does so on every call, and turns the values twice besides.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

_TYPICAL_TIME = 4096


def _image(x: Tensor) -> Tensor:
    """``(time, channels)`` as a picture of one line for oneDNN: ``(1, channels, 1, time)``, channels last."""
    time, channels = x.shape
    return x.as_strided((1, channels, 1, time), (time * channels, 1, time * channels, channels))


def _line(image: Tensor) -> Tensor:
    return image[0, :, 0].t()


@dataclass(frozen=True)
class PackedConvolution:
    """A convolution of stride one; make it with :func:`pack`.

    Attributes:
        weights: packed; of all taps, or of some after the others.
        starts: the first tap of each.
        bias: is added once.
        reach: samples by which input and kernel are longer than one tap.
        padding: zeros on either side.
        dilation: between taps.
    """

    weights: tuple[Tensor, ...]
    starts: tuple[int, ...]
    bias: Tensor | None
    reach: int
    padding: int
    dilation: int

    def __call__(self, x: Tensor, slope: float | None = None) -> Tensor:
        """``(time, channels)`` -> ``(time, out_channels)``; with ``slope`` a leaky ReLU follows."""
        if len(self.weights) > 1:
            total = self._accumulated(x, None)
            return total if slope is None else torch.nn.functional.leaky_relu_(total, slope)
        unary: tuple[Any, ...] = ("none", [], "") if slope is None else ("leaky_relu", [slope], "")
        made = torch.ops.mkldnn._convolution_pointwise(
            _image(x), self.weights[0], self.bias, [0, self.padding], [1, 1], [1, self.dilation], 1, *unary
        )
        return _line(made)

    def added_to(self, total: Tensor, x: Tensor, in_place: bool) -> Tensor:
        """``total`` plus the convolution of ``x``; a ``total`` of another type is added to after the convolution."""
        if total.dtype != x.dtype:
            made = self(x)
            return total.add_(made) if in_place else total + made
        if len(self.weights) > 1:
            return self._accumulated(x, total if in_place else total.clone())
        rest = self._sum(self.weights[0], self.bias, self.padding)
        if in_place:
            torch.ops.mkldnn._convolution_pointwise_.binary(_image(total), _image(x), *rest)
            return total
        return _line(torch.ops.mkldnn._convolution_pointwise.binary(_image(x), _image(total), *rest))

    def _accumulated(self, x: Tensor, total: Tensor | None) -> Tensor:
        """Some taps after the others, each sum added to ``total``."""
        padded = torch.nn.functional.pad(x, (0, 0, self.padding, self.padding)) if self.padding else x
        time = padded.shape[0] - self.reach
        ends = [start * self.dilation for start in self.starts[1:]] + [self.reach + self.dilation]
        for weight, start, end in zip(self.weights, self.starts, ends, strict=True):
            bias = self.bias if start == 0 else None
            part = padded[start * self.dilation : time + end - self.dilation]
            if total is None:
                geometry: tuple[Any, ...] = ([0, 0], [1, 1], [1, self.dilation], 1, "none", [], "")
                total = _line(torch.ops.mkldnn._convolution_pointwise(_image(part), weight, bias, *geometry))
            else:
                rest = self._sum(weight, bias, 0)
                torch.ops.mkldnn._convolution_pointwise_.binary(_image(total), _image(part), *rest)
        assert total is not None
        return total

    def _sum(self, weight: Tensor, bias: Tensor | None, padding: int) -> tuple[Any, ...]:
        return weight, bias, [0, padding], [1, 1], [1, self.dilation], 1, "add", 1.0, None, [], None


@dataclass(frozen=True)
class ShortConvolution:
    """A convolution of stride one without padding as one matrix product, for a few samples; see :func:`pack_short`.

    Attributes:
        weights: ``(out_channels, kernel * in_channels)``.
        bias: is added.
        kernel: taps.
        dilation: between taps.
    """

    weights: Tensor
    bias: Tensor | None
    kernel: int
    dilation: int

    def __call__(self, x: Tensor) -> Tensor:
        """``(time, channels)`` -> ``(time less the reach, out_channels)``."""
        x = x.contiguous()
        time, channels = x.shape
        made = time - self.dilation * (self.kernel - 1)
        windows = x.as_strided((made, self.kernel, channels), (channels, self.dilation * channels, 1))
        return torch.nn.functional.linear(windows.reshape(made, -1), self.weights, self.bias)


def pack_short(weight: Tensor, bias: Tensor | None, dilation: int = 1) -> ShortConvolution:
    """Lay out weights ``(out_channels, in_channels, kernel)`` for :class:`ShortConvolution`."""
    rows = weight.detach().permute(0, 2, 1).flatten(1).contiguous()
    return ShortConvolution(rows, None if bias is None else bias.detach(), weight.shape[-1], dilation)


def pack(
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    dilation: int = 1,
    padding: int | None = None,
    longest_sum: int | None = None,
) -> PackedConvolution:
    """Pack a convolution.

    Args:
        weight: ``(out_channels, in_channels, kernel)``.
        bias: ``(out_channels,)`` or None.
        dtype: of the values.
        dilation: between taps.
        padding: None for that which keeps the length; the kernel is odd then.
        longest_sum: products that may be added in a row. oneDNN's kernels for channels last add up all of them in one
            chain, whose rounding grows with its root; None leaves it at that.
    """
    kernel = weight.shape[-1]
    sides = dilation * (kernel - 1) // 2 if padding is None else padding
    count = 1 if longest_sum is None else min(kernel, -(-kernel * weight.shape[1] // longest_sum))
    edges = [kernel * part // count for part in range(count + 1)]
    packed = []
    for first, stop in pairwise(edges):
        image = weight[:, :, first:stop].detach().to(dtype).unsqueeze(2)
        image = image.contiguous(memory_format=torch.channels_last)
        inner = sides if count == 1 else 0
        geometry = ([0, inner], [1, 1], [1, dilation], 1, [1, weight.shape[1], 1, _TYPICAL_TIME])
        packed.append(torch.ops.mkldnn._reorder_convolution_weight(image, *geometry))
    own_bias = None if bias is None else bias.detach().to(dtype)
    return PackedConvolution(tuple(packed), tuple(edges[:-1]), own_bias, dilation * (kernel - 1), sides, dilation)


def polyphase(weight: Tensor, stride: int) -> Tensor:
    """A transposed convolution as a plain one that gives ``stride`` samples at once.

    Args:
        weight: ``(in_channels, out_channels, kernel)`` of a transposed convolution without padding.
        stride: of it.

    Returns:
        ``(stride * out_channels, in_channels, ceil(kernel / stride))``: at input sample ``t``, preceded by as many as
        the new kernel is long less one, it gives the output samples ``t * stride`` to ``t * stride + stride - 1``.
    """
    inputs, outputs, kernel = weight.shape
    taps = -(-kernel // stride)
    padded = torch.nn.functional.pad(weight.detach(), (0, taps * stride - kernel))
    # Output t * stride + p meets input t - n with tap n * stride + p.
    phases = padded.reshape(inputs, outputs, taps, stride).flip(2)
    return phases.permute(3, 1, 0, 2).reshape(stride * outputs, inputs, taps).contiguous()

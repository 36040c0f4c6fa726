"""Signals ``(1, channels, time)`` whose channels lie side by side in memory, and convolutions that are packed for them.

A stream that is only listened to goes through its layers so: nothing is turned from one layout into the other between
them, and what a layer remembers means the same in either layout.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from melisma.kernels import LANES, amx, choice, ready, rounding, winograd
from melisma.kernels.convolution import pack, pack_short, polyphase
from melisma.layers.weights import made_of, weights_of

LEAST_FILTERED = 128  # samples; below, the weights of a convolution are fetched for too few, and filtering has more
_FEWEST_CHANNELS = 16
_FEWEST_FILTERED = 32  # of channels; with fewer, little is gained for what is rounded more

Packed = Callable[[Tensor], Tensor]
_Form = Literal["onednn", "matrix", "filtered", "tiles"]


def is_rows(x: Tensor) -> bool:
    """Whether a signal lies so; an empty one, or of one sample, may be said not to."""
    return x.ndim == 3 and x.shape[0] == 1 and x.shape[1] > 1 and x.stride(1) == 1 and x.stride(2) == x.shape[1]


def as_rows(x: Tensor) -> Tensor:
    """The same signal, laid so; others than one clip stay as they are."""
    return x if x.shape[0] != 1 or is_rows(x) else x.transpose(1, 2).contiguous().transpose(1, 2)


def wanted(module: nn.Module, x: Tensor) -> bool:
    """Whether a stream of ``x`` through ``module`` gains by it: one clip, float32, on a CPU, only listened to."""
    if not (choice.convolutions().fast and choice.kernels_allowed() and choice.holds_values(x) and x.shape[0] == 1):
        return False
    if module.training or torch.is_autocast_enabled("cpu"):
        return False
    return not (torch.is_grad_enabled() and any(weight.requires_grad for weight in weights_of(module)))


def convolved(convolution: nn.Conv1d, x: Tensor) -> Tensor | None:
    """A convolution of stride one without padding, of a signal in rows to one in rows.

    None where it has to be computed otherwise: for signals in the other layout, groups, few channels, weight norm.
    """
    if not _fits(convolution, x) or convolution.stride != (1,):
        return None
    lost = (convolution.kernel_size[0] - 1) * convolution.dilation[0]
    form = _of_onednn(x.shape[2] - lost)
    if _in_tiles(convolution):
        form = "tiles"
    elif x.shape[2] - lost >= LEAST_FILTERED and _is_filtered(convolution) and ready.usable(choice.filtering()):
        form = "filtered"
    made = _form(convolution, form)(x[0].t())
    return made.t().unsqueeze(0)


def upsampled(layer: nn.ConvTranspose1d, x: Tensor) -> Tensor | None:
    """A transposed convolution without padding and bias, of a signal in rows to one in rows; None as above."""
    if not _fits(layer, x):
        return None
    stride, kernel = layer.stride[0], layer.kernel_size[0]
    taps = -(-kernel // stride)
    form = "tiles" if _in_tiles(layer) else _of_onednn(x.shape[2] + taps - 1)
    made = _form(layer, form)(torch.nn.functional.pad(x[0].t(), (0, 0, taps - 1, taps - 1)))
    phases = made.reshape(-1, layer.out_channels)
    return phases[: (x.shape[2] - 1) * stride + kernel].t().unsqueeze(0)


def _fits(layer: nn.Conv1d | nn.ConvTranspose1d, x: Tensor) -> bool:
    if not is_rows(x) or layer.groups != 1 or min(layer.in_channels, layer.out_channels) < _FEWEST_CHANNELS:
        return False
    return wanted(layer, x) and not parametrize.is_parametrized(layer, "weight") and layer.weight.dtype == torch.float32


def _is_filtered(layer: nn.Conv1d) -> bool:
    wide = min(layer.in_channels, layer.out_channels) >= _FEWEST_FILTERED
    return wide and layer.bias is not None and winograd.fits(layer.weight)


def _in_tiles(layer: nn.Conv1d | nn.ConvTranspose1d) -> bool:
    return rounding.is_halved() and layer.in_channels % LANES == 0 and layer.out_channels % LANES == 0


def _of_onednn(samples: int) -> _Form:
    """oneDNN's form of a convolution that makes so many samples, or what is taken in its place."""
    return "matrix" if samples < LEAST_FILTERED and choice.short_convolutions().fast else "onednn"


def _form(layer: nn.Conv1d | nn.ConvTranspose1d, form: _Form) -> Packed:
    return made_of(layer, [layer.weight], lambda: _pack(layer, form), form)


def _pack(layer: nn.Conv1d | nn.ConvTranspose1d, form: _Form) -> Packed:
    if isinstance(layer, nn.ConvTranspose1d):
        phases = polyphase(layer.weight, layer.stride[0])
        if form == "tiles":
            return partial(amx.pack(phases, None), cut=(True, True))
        if form == "matrix":
            return pack_short(phases, None)
        return pack(phases, None, torch.float32, padding=0)
    if form == "tiles":
        return partial(amx.pack(layer.weight, layer.bias, layer.dilation[0]), cut=(True, True))
    if form == "filtered":
        assert layer.bias is not None  # who asks for it has looked
        return partial(winograd.pack(layer.weight, layer.bias, layer.dilation[0], "exact"), cut=(True, True))
    if form == "matrix":
        return pack_short(layer.weight, layer.bias, layer.dilation[0])
    return pack(layer.weight, layer.bias, torch.float32, layer.dilation[0], padding=0)

"""Short-time Fourier transforms as plain framing, FFT and overlap-add.

``torch.stft`` and ``torch.istft`` are not used: the inverse does not export to ONNX, and the vocoder needs frames that
are centred between samples (``hop / 2``) rather than on them.
"""

import math
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.constants import constant


@constant(64)
def _hann(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    # clone(): a tensor that was made under inference_mode could not be used in training later.
    return torch.hann_window(length, periodic=True, device=device, dtype=dtype)


def hann(length: int, like: Tensor) -> Tensor:
    """Return the periodic Hann window ``(length,)`` on the device and in the type of ``like``."""
    if torch.compiler.is_compiling():
        return torch.hann_window(length, periodic=True, device=like.device, dtype=like.dtype)
    return _hann(length, like.device, like.dtype)


def centred_hann(win_length: int, n_fft: int, like: Tensor) -> Tensor:
    """Return a Hann window of ``win_length`` in the middle of ``(n_fft,)`` zeros."""
    window = hann(win_length, like)
    if win_length == n_fft:
        return window
    left = (n_fft - win_length) // 2
    return F.pad(window, (left, n_fft - win_length - left))


def pad_signal(audio: Tensor, left: int, right: int, mode: str = "reflect") -> Tensor:
    """Pad the last axis of ``(batch, samples)``; zeros where the signal is too short to be reflected."""
    if mode == "reflect" and max(left, right) >= audio.shape[-1]:
        mode = "constant"
    return F.pad(audio.unsqueeze(1), (left, right), mode=mode).squeeze(1)


def spectra(padded: Tensor, n_fft: int, hop_length: int, win_length: int | None = None) -> Tensor:
    """Hann-windowed spectra of an already padded signal.

    Args:
        padded: ``(batch, samples)`` with at least ``n_fft`` samples.
        n_fft: FFT length.
        hop_length: samples between frames.
        win_length: window length; it stands in the middle of the FFT frame when shorter.

    Returns:
        complex ``(batch, frames, n_fft // 2 + 1)``, ``frames = (samples - n_fft) // hop_length + 1``.
    """
    window = centred_hann(n_fft if win_length is None else win_length, n_fft, padded)
    if padded.requires_grad and n_fft % hop_length == 0 and not torch.compiler.is_compiling():
        return _Spectra.apply(padded, window, hop_length)
    return torch.fft.rfft(padded.unfold(-1, n_fft, hop_length) * window)


class _Spectra(torch.autograd.Function):
    """Framing, window and FFT with a cheap gradient.

    The gradient of a real FFT is a real inverse FFT, that of framing an overlap-add; autograd's own are a complex FFT
    of the full length and a scatter, which together cost more than the rest of a training step's loss.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, window: Tensor, hop_length: int) -> Tensor:
        ctx.save_for_backward(window)
        ctx.hop_length, ctx.samples = hop_length, padded.shape[-1]
        return torch.fft.rfft(padded.unfold(-1, window.shape[0], hop_length) * window)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (window,) = ctx.saved_tensors
        n_fft = window.shape[0]
        half = gradients[0] * (n_fft / 2)
        half[..., 0] *= 2
        if n_fft % 2 == 0:
            half[..., -1] *= 2
        padded = overlap_add(torch.fft.irfft(half, n=n_fft) * window, ctx.hop_length)
        return F.pad(padded, (0, ctx.samples - padded.shape[-1])), None, None


def overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Sum overlapping frames.

    Args:
        frames: ``(batch, frames, length)``; ``length`` is a multiple of ``hop_length``.

    Returns:
        ``(batch, (frames - 1) * hop_length + length)``.
    """
    batch, count, length = frames.shape
    overlaps = length // hop_length
    pieces = frames.reshape(batch, count, overlaps, hop_length)
    if frames.requires_grad or torch.compiler.is_compiling():  # in a graph every step on a part is five operators
        moved = [F.pad(pieces[:, :, k], (0, 0, k, overlaps - 1 - k)) for k in range(overlaps)]
        return reduce(torch.add, moved).reshape(batch, -1)
    total = frames.new_zeros(batch, count + overlaps - 1, hop_length)
    for k in range(overlaps):  # the same sum with half the memory traffic; autograd would copy the whole at every step
        total[:, k : k + count] += pieces[:, :, k]
    return total.reshape(batch, -1)


def odd_split(total: int) -> tuple[int, int]:
    """Split a padding in two parts, the right one larger when it is odd."""
    return total // 2, math.ceil(total / 2)

"""Phase of a sung note, accumulated in double precision and reduced to one cycle.

It does not drift however long the note is held. The public decoders accumulate in single precision instead; nobody
hears that, but it shows in their outputs beyond the tolerance to which those are to be reproduced. So where a forward
starts at the beginning, their rounding is followed as long as it stays within :data:`DRIFT` of the exact phase, and is
held at that distance from then on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

DRIFT = 2.5e-4  # cycles
_BLOCK = 512  # samples that are summed before the phase is reduced to one cycle


def fraction(cycles: Tensor) -> Tensor:
    """The part of a phase within its cycle, in [0, 1]."""
    return cycles - cycles.floor()


def _counts(hop_length: int, like: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.arange(1, hop_length + 1, device=like.device, dtype=dtype)


def _limited(drift: Tensor) -> Tensor:
    """What is to be taken back of a drift so that no more than ``DRIFT`` of it is left."""
    return drift - drift.clamp(-DRIFT, DRIFT)


def _earlier(added: Tensor) -> Tensor:
    """Sum of what the frames before each frame added, along axis 1."""
    return added.cumsum(dim=1) - added


def _before(added: Tensor) -> Tensor:
    """Phase at the start of each frame from what every frame adds, along axis 1; float64 cycles, less whole ones."""
    return fraction(_earlier(fraction(added)))


def accumulated(f0_hz: Tensor, sample_rate: float) -> Tensor:
    """Phase of the fundamental, inclusive of each sample's own increment.

    Args:
        f0_hz: ``(batch, samples)``, Hz.
        sample_rate: Hz.

    Returns:
        float64 ``(batch, samples)``, cycles, less whole ones.
    """
    batch, samples = f0_hz.shape
    steps = f0_hz.double() / sample_rate
    sums = F.pad(steps, (0, -samples % _BLOCK)).reshape(batch, -1, _BLOCK).cumsum(dim=-1)
    phase = sums + _before(sums[..., -1]).unsqueeze(-1)
    return fraction(phase).reshape(batch, -1)[:, :samples]


def held(f0_hz: Tensor, sample_rate: float, hop_length: int) -> Tensor:
    """:func:`accumulated` of an F0 that is held through each frame.

    ``(batch, frames)`` in Hz -> float64 ``(batch, frames * hop_length)`` cycles.
    """
    cycles = f0_hz.double().unsqueeze(-1) / sample_rate * _counts(hop_length, f0_hz)
    return fraction(cycles + _before(cycles[..., -1]).unsqueeze(-1)).reshape(f0_hz.shape[0], -1)


def held_summed(f0_hz: Tensor, sample_rate: float, hop_length: int, harmonics: int) -> Tensor:
    """Phase of every harmonic of a held F0, rounded as so-vits-svc and RVC do: per harmonic and sample.

    ``(batch, frames)`` in Hz -> float64 ``(batch, frames * hop_length, harmonics)`` cycles.
    """
    numbers = _counts(harmonics, f0_hz)
    exact = f0_hz.double().unsqueeze(-1) / sample_rate * numbers
    single = f0_hz.float().unsqueeze(-1) * numbers.float() / sample_rate
    rounded = single.double()
    # At the end of a cycle they subtract one from the increment, which rounds it again.
    lost = (single - 1.0).double() - (rounded - 1.0)
    before = _before(rounded * hop_length)
    cycles = rounded.unsqueeze(2) * _counts(hop_length, f0_hz).unsqueeze(-1) + before.unsqueeze(2)
    ends = cycles.floor()
    losses = _earlier(lost * ends[:, :, -1])
    back = _limited(_earlier((exact - rounded) * hop_length) - losses)
    cycles = cycles + ends * lost.unsqueeze(2) + (losses + back).unsqueeze(2)
    return cycles.reshape(f0_hz.shape[0], -1, harmonics)


def held_framed(f0_hz: Tensor, sample_rate: float, hop_length: int) -> Tensor:
    """Phase of a held F0, rounded as openvpi does: frame by frame.

    ``(batch, frames)`` in Hz -> float32 ``(batch, frames * hop_length)`` cycles.
    """
    exact = f0_hz.double() / sample_rate * hop_length
    cycles = f0_hz.float().unsqueeze(-1) / sample_rate * _counts(hop_length, f0_hz, torch.float32)
    return _framed(cycles, exact)


def _framed(cycles: Tensor, exact: Tensor) -> Tensor:
    # Of what a frame adds, they keep the part beyond the nearest whole cycle.
    added = (torch.fmod(cycles[..., -1] + 0.5, 1.0) - 0.5).double()
    gap = exact - added
    before = torch.fmod(_earlier(added) + _limited(_earlier(gap - gap.round())), 1.0).float()
    return (cycles + before.unsqueeze(-1)).reshape(exact.shape[0], -1)


def _glide(steps: Tensor, counts: Tensor) -> Tensor:
    rise = torch.cat([steps, steps[:, -1:]], dim=1).diff(dim=1).unsqueeze(-1)
    return steps.unsqueeze(-1) * counts + 0.5 * rise * counts * (counts - 1) / counts.shape[0]


def gliding(f0_hz: Tensor, sample_rate: float, hop_length: int) -> Tensor:
    """Phase of an F0 that moves linearly from each frame's value to the next one's and is held in the last frame.

    ``(batch, frames)`` in Hz -> float64 ``(batch, frames * hop_length)`` cycles, quadratic within a frame.
    """
    cycles = _glide(f0_hz.double() / sample_rate, _counts(hop_length, f0_hz))
    return fraction(cycles + _before(cycles[..., -1]).unsqueeze(-1)).reshape(f0_hz.shape[0], -1)


def gliding_framed(f0_hz: Tensor, sample_rate: float, hop_length: int) -> Tensor:
    """:func:`gliding`, rounded as openvpi does; float32."""
    exact = _glide(f0_hz.double() / sample_rate, _counts(hop_length, f0_hz))[..., -1]
    return _framed(_glide(f0_hz.float() / sample_rate, _counts(hop_length, f0_hz, torch.float32)), exact)


def before_frame(f0_hz: Tensor, sample_rate: float, hop_length: int, frame: int, is_gliding: bool = False) -> Tensor:
    """Cycles sung before a frame of the whole curve, less whole ones: ``(batch, frames)`` -> float64 ``(batch,)``.

    It does not depend on how the curve is cut into pieces.
    """
    steps = f0_hz[:, : frame + 1].double() / sample_rate
    if is_gliding:
        added = _glide(steps, _counts(hop_length, f0_hz))[:, :frame, -1]
    else:
        added = steps[:, :frame] * hop_length
    return fraction(fraction(added).sum(dim=1))

"""Band-limited pulse train: the harmonic prior of the spectral generators.

All harmonics of F0 below half the sample rate, with equal amplitudes and as many as fit, in closed form (the Dirichlet
kernel), so that the cost does not depend on their number. The phase of a frame's first sample is the sum of whole-frame
advances, which are closed-form too and summed in float64: it is the same whether a clip is made whole or in pieces, and
it does not drift.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.kernels import excitation as kernel

# The highest harmonic fades in below this share of half the sample rate, which leaves room for an interpolated F0.
BAND_SHARE = 0.99


def segment_edges(f0_hz: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """F0 and voicing at both ends of the half-frame-shifted segments between frame centres.

    Args:
        f0_hz: ``(batch, frames)`` in Hz, 0 where unvoiced.

    Returns:
        start and end F0 and start and end voicing of ``frames + 1`` segments: segment ``s`` runs from the centre of
        frame ``s - 1`` to the centre of frame ``s``. Where only one end is voiced its F0 holds; where none is, the F0
        is 0. The first and the last segment hold the edge frames.
    """
    return _edges(F.pad(f0_hz, (1, 1), mode="replicate") if f0_hz.shape[-1] > 0 else f0_hz)


def _edges(centres_hz: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    left, right = centres_hz[:, :-1], centres_hz[:, 1:]
    voiced = (centres_hz > 0).to(centres_hz.dtype)
    start = torch.where(left > 0, left, right)
    end = torch.where(right > 0, right, left)
    return start, end, voiced[:, :-1], voiced[:, 1:]


def segment_cycles(start: Tensor, end: Tensor, sample_rate: int, hop_length: int) -> Tensor:
    """Cycles that the fundamental advances over each segment, in float64.

    The frequency at sample ``i`` is ``start * q ** ((i + 1/2) / hop)`` with ``q = end / start``; its sum over the
    segment is geometric. ``(batch, segments)`` -> the same shape.
    """
    first, last = start.double(), end.double()
    safe = first.clamp(min=1e-3)
    log_ratio = torch.log(last.clamp(min=1e-3) / safe) / hop_length
    # (q - 1) / (q^(1/hop) - 1) * q^(1/(2 hop)) = sinh(hop x / 2) / sinh(x / 2) * e^(hop x / 2), x = ln(q) / hop
    half = log_ratio / 2
    series = torch.where(
        half.abs() < 1e-9,
        torch.full_like(half, float(hop_length)),
        torch.sinh(hop_length * half) / torch.sinh(torch.where(half.abs() < 1e-9, torch.ones_like(half), half)),
    )
    return first * torch.exp(hop_length * half) * series / sample_rate


def piece_phase(f0_hz: Tensor, start_frame: int, sample_rate: int, hop_length: int) -> Tensor:
    """``initial_phase`` with which a piece continues the pulse train of the whole clip.

    Args:
        f0_hz: the whole curve, ``(batch, frames)``.
        start_frame: the piece's first frame. Its first half frame holds its own F0 (it knows no earlier one); from
            the centre of that frame on, piece and whole agree.

    Returns:
        cycles in [0, 1), float64 ``(batch, 1)``; 0 for ``start_frame`` 0.
    """
    start, end, _, _ = segment_edges(f0_hz[:, : start_frame + 1])
    advance = segment_cycles(start, end, sample_rate, hop_length)[:, : start_frame + 1].sum(dim=1, keepdim=True)
    held = f0_hz[:, start_frame : start_frame + 1].double() * hop_length / sample_rate
    return torch.remainder(advance - held, 1.0)


def pulse_train(f0_hz: Tensor, sample_rate: int, hop_length: int, initial_phase: Tensor | None = None) -> Tensor:
    """Sum of all harmonics ``2 sqrt(f0 / sample_rate) cos(2 pi k phi)``: the power density of unit white noise.

    Args:
        f0_hz: ``(batch, frames)`` in Hz, 0 where unvoiced; log-linear between the centres of voiced frames.
        sample_rate: Hz.
        hop_length: samples a frame, even.
        initial_phase: cycles, ``(batch, 1)``: phase of the fundamental half a hop before the first sample.

    Returns:
        ``(batch, frames * hop_length)``; silent where unvoiced, with a ramp of one frame at the borders.
    """
    phase = torch.zeros_like(f0_hz[:, :1], dtype=torch.float64) if initial_phase is None else initial_phase.double()
    train, _ = next_pulses(F.pad(f0_hz, (1, 1), mode="replicate"), phase, sample_rate, hop_length)
    half = hop_length // 2
    return train[:, half : half + f0_hz.shape[-1] * hop_length]


def next_pulses(edges_hz: Tensor, phase: Tensor, sample_rate: int, hop_length: int) -> tuple[Tensor, Tensor]:
    """The pulse train from the centre of one frame to that of another.

    Args:
        edges_hz: F0 at the centres of consecutive frames, ``(batch, segments + 1)`` in Hz, 0 where unvoiced.
        phase: cycles of the fundamental at the first centre, float64 ``(batch, 1)``.
        sample_rate: Hz.
        hop_length: samples between frames.

    Returns:
        ``(batch, segments * hop_length)``, and the phase at the last centre, within one cycle.
    """
    if kernel.fused(hop_length, edges_hz) and edges_hz.shape[1] > 1:
        return kernel.pulses(edges_hz, phase, sample_rate, BAND_SHARE * sample_rate / 2, hop_length)
    start, end, voiced_start, voiced_end = _edges(edges_hz)
    advance = segment_cycles(start, end, sample_rate, hop_length)
    total = torch.cumsum(advance, dim=1)
    offset = total - advance + phase
    end_phase = torch.remainder(phase + total[:, -1:], 1.0)
    # From the start on, not between two logarithms: those are rounded where they are large, and a frame's harmonics
    # would lie where the machine's logarithm puts them.
    first = start.clamp(min=1e-3)
    log_ratio = torch.log(end.clamp(min=1e-3) / first)
    # Reduced to one cycle before it is rounded: the highest harmonic multiplies what is lost by hundreds.
    offset = torch.remainder(offset, 1.0)
    position = (torch.arange(hop_length, device=edges_hz.device, dtype=edges_hz.dtype) + 0.5) / hop_length
    frequency = first.unsqueeze(-1) * torch.exp(log_ratio.unsqueeze(-1) * position)
    cycles = torch.cumsum(frequency.double() / sample_rate, dim=-1) + offset.unsqueeze(-1)
    cycles = (cycles - torch.round(cycles)).to(edges_hz.dtype)
    ramp = voiced_start.unsqueeze(-1) + (voiced_end - voiced_start).unsqueeze(-1) * position
    amplitude = ramp * 2.0 * torch.sqrt(frequency / sample_rate)
    train = amplitude * dirichlet(cycles, BAND_SHARE * sample_rate / 2 / frequency)
    return train.reshape(edges_hz.shape[0], -1), end_phase


def dirichlet(cycles: Tensor, harmonics: Tensor) -> Tensor:
    """``sum_{k=1}^{K} cos(2 pi k phi)`` for a fractional ``K``, whose fraction weights the harmonic above ``floor(K)``.

    Args:
        cycles: phase ``phi`` in cycles.
        harmonics: ``K >= 0`` of the same shape.

    Returns:
        the same shape; ``K`` at whole cycles.
    """
    whole = harmonics.floor()
    angle = math.pi * (cycles - torch.round(cycles))
    near = angle.abs() < 1e-4
    sine = torch.sin(torch.where(near, torch.ones_like(angle), angle))
    kernel = 0.5 * torch.sin((2 * whole + 1) * angle) / sine - 0.5
    kernel = torch.where(near, whole, kernel)
    return kernel + (harmonics - whole) * torch.cos(2 * (whole + 1) * angle)

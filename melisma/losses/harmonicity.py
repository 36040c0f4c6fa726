"""How much of a voice repeats from period to period, band by band: harmonics against breath.

Losses on spectra do not care whether a band holds harmonics or noise of the same level where they are not resolved,
and a plain one prefers harmonics, which at least are the same every time. So a vocoder buzzes where a voice is breathy.
This loss measures both sides as :func:`melisma.evaluation.artefacts.harmonic_to_noise_db` does.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.errors import MelismaError

BANDS_HZ = (
    (2000.0, 3500.0),
    (3500.0, 5000.0),
    (5000.0, 7000.0),
    (7000.0, 10000.0),
    (10000.0, 13000.0),
    (13000.0, 16000.0),
)
WINDOW_S = 0.045
EDGE_SHARE = 0.3
# Above this F0 a band may hold no harmonic at all.
HARMONICS_A_BAND = 1.5
# Neighbouring frames of a steady voice differ by less in F0, in nepers.
STEADY = 0.06
# Coherences outside say nothing more: noise is never quite unlike itself, and no voice quite periodic.
LEAST, MOST = 0.12, 0.995
# The band is read between its samples on straight lines, so it has so many of them for one that it needs.
OVERSAMPLING = 3.0
_SILENCE = 1e-12


def coherence(audio: Tensor, f0_hz: Tensor, sample_rate: int) -> Tensor:
    """Likeness of each of ``BANDS_HZ`` of a voice to itself one period later, frame by frame.

    A band is moved to 0 Hz at a fraction of the sample rate and compared with itself at the instant at which the phase
    of the F0 is a whole cycle ahead, in windows of 45 ms. An error of the F0 turns the phase and cancels.

    Args:
        audio: ``(batch, frames * hop)``.
        f0_hz: ``(batch, frames)`` in Hz, above 0 everywhere; frame ``t`` at ``(t + 1/2) * hop``.
        sample_rate: Hz.

    Returns:
        ``(batch, bands, frames)`` in [0, 1]: the share of the power that is harmonic, of the bands that the sample rate
        holds.
    """
    bands = bands_of(sample_rate)
    frames, samples = f0_hz.shape[-1], audio.shape[-1]
    widest = max(high - low for low, high in bands)
    a_frame = math.ceil(OVERSAMPLING * widest * samples / sample_rate / frames)
    count, seconds = frames * a_frame, samples / sample_rate
    base = _base_bands(audio, bands, sample_rate, count)
    cycles = torch.cumsum(_read_f0(f0_hz, count) * (seconds / count), dim=-1)
    place = _inverse(cycles, cycles + 1.0)  # in points
    index = place.floor().clamp(0, count - 2)
    share = (place - index).clamp(0.0, 1.0).to(audio.dtype).unsqueeze(1)
    at = index.long().unsqueeze(1).expand(-1, len(bands), -1)
    moved = base.gather(2, at) * (1.0 - share) + base.gather(2, at + 1) * share
    middle = torch.tensor([[0.5 * sum(edges)] for edges in bands], dtype=torch.float64, device=audio.device)
    ahead = (place - torch.arange(count, device=audio.device)).unsqueeze(1) * (seconds / count)
    turn = (2.0 * math.pi * torch.remainder(middle * ahead, 1.0)).to(audio.dtype)
    product = base.conj() * moved * torch.polar(torch.ones_like(turn), turn)
    rows = torch.stack([product.real, product.imag, _power(base), _power(moved)], dim=1).flatten(0, 2)
    width = 2 * round(0.5 * WINDOW_S / seconds * frames) + 1
    means = F.avg_pool1d(F.avg_pool1d(rows.unsqueeze(1), a_frame), width, stride=1, padding=width // 2)
    real, imaginary, here, there = means.reshape(len(audio), 4, len(bands), frames).unbind(1)
    alike = real.square() + imaginary.square() + _SILENCE**2
    floor = 1e-6 * here.mean(dim=-1, keepdim=True) + _SILENCE
    return (alike / ((here + floor) * (there + floor))).sqrt().clamp(max=1.0)


def harmonicity_loss(generated: Tensor, reference: Tensor, f0_hz: Tensor, band_hz: Tensor, sample_rate: int) -> Tensor:
    """Mean absolute difference of the log ratios of harmonics to noise, in nepers of power, where a voice is steady.

    Args:
        generated: ``(batch, frames * hop)``.
        reference: the same.
        f0_hz: ``(batch, frames)`` in Hz, 0 where unvoiced.
        band_hz: ``(batch,)``: nothing of the reference above this is real.
        sample_rate: Hz.

    Returns:
        a scalar; 0 for a batch without a steady voice.

    Raises:
        MelismaError: the sample rate holds none of the bands.
    """
    low, high = torch.tensor(bands_of(sample_rate), device=f0_hz.device).unsqueeze(-1).unbind(1)
    resolved = f0_hz.unsqueeze(1) < (high - low) / HARMONICS_A_BAND
    judged = _steady(f0_hz).unsqueeze(1) & resolved & (band_hz.reshape(-1, 1, 1) >= high)
    filled = _filled(f0_hz)
    ours = torch.logit(coherence(generated, filled, sample_rate).clamp(LEAST, MOST))
    with torch.no_grad():
        theirs = torch.logit(coherence(reference, filled, sample_rate).clamp(LEAST, MOST))
    return ((ours - theirs).abs() * judged).sum() / judged.sum().clamp(min=1)


def bands_of(sample_rate: int) -> tuple[tuple[float, float], ...]:
    """Those of ``BANDS_HZ`` that a sample rate holds.

    Raises:
        MelismaError: none.
    """
    held = tuple(edges for edges in BANDS_HZ if edges[1] <= sample_rate / 2)
    if not held:
        raise MelismaError(
            f"the loss harmonicity judges bands from {BANDS_HZ[0][0]:.0f} Hz on, and the sample rate is {sample_rate} "
            "Hz; leave it out"
        )
    return held


def _base_bands(audio: Tensor, bands: tuple[tuple[float, float], ...], sample_rate: int, count: int) -> Tensor:
    """Analytic signals of the bands, their middles moved to 0 Hz: complex ``(batch, bands, count)``."""
    spectrum, samples = torch.fft.rfft(audio), audio.shape[-1]
    hz = torch.arange(spectrum.shape[-1], device=audio.device, dtype=audio.dtype) * (sample_rate / samples)
    placed = []
    for low, high in bands:
        first, middle, last = (round(edge * samples / sample_rate) for edge in (low, 0.5 * (low + high), high))
        inside = torch.minimum(hz - low, high - hz)[first:last] / (EDGE_SHARE * (high - low))
        kept = spectrum[:, first:last] * torch.sin(0.5 * math.pi * inside.clamp(0.0, 1.0)).square()
        silent = kept.new_zeros(len(kept), count - (last - first))
        placed.append(torch.cat([kept[:, middle - first :], silent, kept[:, : middle - first]], dim=-1))
    return torch.fft.ifft(torch.stack(placed, dim=1))


def _read_f0(f0_hz: Tensor, count: int) -> Tensor:
    """A curve ``(batch, frames)`` at ``count`` points, float64: cubic through its logarithms, held at the ends."""
    frames = f0_hz.shape[-1]
    logs = F.pad(f0_hz.log().unsqueeze(1), (2, 2), mode="replicate").squeeze(1).double()
    at = (torch.arange(count, device=f0_hz.device, dtype=torch.float64) + 0.5) * (frames / count) - 0.5
    index = at.floor().long()
    x = at - index
    before, here, after, beyond = (logs[:, index + 2 + k] for k in (-1, 0, 1, 2))
    cubic = x * (3.0 * (here - after) + beyond - before) + 2.0 * before - 5.0 * here + 4.0 * after - beyond
    return (here + 0.5 * x * (after - before + x * cubic)).exp()


def _inverse(cycles: Tensor, wanted: Tensor) -> Tensor:
    """At which point a growing phase ``(batch, count)`` has the wanted values; the end holds."""
    after = torch.searchsorted(cycles, wanted).clamp(1, cycles.shape[-1] - 1)
    low, high = cycles.gather(1, after - 1), cycles.gather(1, after)
    return after - 1 + ((wanted - low) / (high - low)).clamp(0.0, 1.0)


def _power(values: Tensor) -> Tensor:
    return values.real.square() + values.imag.square()


def _steady(f0_hz: Tensor) -> Tensor:
    """Voiced frames between voiced frames near them in pitch, ``(batch, frames)`` of bool; never at the ends."""
    logs = f0_hz.clamp(min=1e-3).log()
    near = (logs.diff(dim=-1).abs() < STEADY) & (f0_hz[:, 1:] > 0) & (f0_hz[:, :-1] > 0)
    return F.pad(near, (1, 0)) & F.pad(near, (0, 1))


def _filled(f0_hz: Tensor) -> Tensor:
    """A curve with some pitch in unvoiced frames too, which are not judged: the mean of its clip."""
    voiced = (f0_hz > 0).to(f0_hz.dtype)
    mean = f0_hz.sum(-1, keepdim=True) / voiced.sum(-1, keepdim=True).clamp(min=1.0)
    return torch.where(f0_hz > 0, f0_hz, mean.clamp(min=50.0))

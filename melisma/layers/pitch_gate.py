"""The gate of the mel projection, and what else the fine structure of a mel tells about its pitch.

Projecting onto a mel that was made at another pitch, or is blurred, would impose the wrong fine structure: there the
gate closes.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import band_centres_hz
from melisma.constants import constant
from melisma.kernels import ripple as kernel
from melisma.kernels.projection import neighbours

# The gate looks at the lowest bands, where single harmonics show.
GATE_BANDS = 64
GATE_SMOOTHING_BANDS = 11
REACH_BANDS = GATE_SMOOTHING_BANDS // 2
GATE_SMOOTHING_FRAMES = 13
# Whether a mel was made at this pitch at all is a matter of whole notes: half a second votes, and a creak is outvoted.
GATE_EVIDENCE_FRAMES = 41
GATE_REACH_FRAMES = 3
# Frames on each side that the ripple of a frame, and its gate, depend on.
RIPPLE_HALO_FRAMES = GATE_SMOOTHING_FRAMES // 2
GATE_HALO_FRAMES = GATE_EVIDENCE_FRAMES // 2 + GATE_REACH_FRAMES
# Where the harmonics of a mel that was made at another pitch are looked for.
RIPPLE_STEP_HZ = 25.0
LOWEST_RIPPLE_HZ = 125.0
HIGHEST_RIPPLE_HZ = 1000.0


# Where the gate begins to open, and is open: correlation with the audio, contrast, correlation with the pulses, cents
# of detuning and nepers of unexplained ripple (both less is better).
_GATE_RAMPS = ((0.42, 0.55), (0.46, 0.58), (0.04, 0.12), (-18.0, -12.0), (-1.0, -0.75))
# Correlations from which on a ripple is the pulses', and up to which it is another's: for the gate, for the envelope.
_GATE_FOREIGN, _ENVELOPE_FOREIGN = (0.6, 0.3), (0.85, 0.7)
_UNEXPLAINED = (0.6, 0.8)  # nepers
_STRONG = 0.8  # of the highest peak
_SHARP = (0.35, 0.6)  # nepers of bend from band to band

Average = Callable[[Tensor], Tensor]


def _smooth(values: Tensor, width: int) -> Tensor:
    """Moving average over the last axis of ``(batch, rows, columns)``, edges averaged over what is there."""
    if values.shape[1] == 0:  # a step of a stream may bring no frames
        return values
    return F.avg_pool1d(values, width, stride=1, padding=width // 2, count_include_pad=False)


def _over_frames(values: Tensor) -> Tensor:
    return _smooth(values, GATE_SMOOTHING_FRAMES)


@constant(16)
def _bands_per_cent(mel: MelContract, device: torch.device, dtype: torch.dtype) -> Tensor:
    """How many bands a partial at each of the lowest bands moves when the pitch rises by one cent."""
    centres = band_centres_hz(mel)[:GATE_BANDS]
    per_octave = centres * np.log(2.0) / np.gradient(centres)
    return torch.tensor(per_octave / 1200.0, device=device, dtype=dtype)


def pitch_gate(wanted: Tensor, actual: Tensor, pulses: Tensor, voiced: Tensor, mel: MelContract) -> Tensor:
    """How safe it is to project: 1 where the wanted mel shows the pitch that is played, 0 where it would be undone.

    The fine structure (what is left of a log-mel when its envelope is taken away) is compared in the lowest bands:

    - with that of the audio before any projection. A least squares fit ``wanted = a * actual + b * d actual / d pitch``
      tells the contrast ``a``, low when the wanted mel is blurred, and the detuning ``b / a`` in cents;
    - with that of the bare pulse train, which cannot have taken over the ripple of another pitch from the mel: an
      octave shows here, in what does not correlate and in the ripple that stays unexplained.

    The detuning is judged locally, all else over :data:`GATE_EVIDENCE_FRAMES` voiced frames.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        actual: the same of the audio before any projection.
        pulses: the same of the pulse train.
        voiced: ``(batch, frames)``, 1 where F0 is given.
        mel: the contract of all.

    Returns:
        ``(batch, frames, 1)`` in [0, 1]; 1 in unvoiced frames of a sharp mel that lie apart from voiced ones.
    """
    per_cent = _bands_per_cent(mel, wanted.device, wanted.dtype)
    if kernel.fused(wanted, actual, pulses, voiced):
        sizes = REACH_BANDS, GATE_EVIDENCE_FRAMES // 2, GATE_SMOOTHING_FRAMES // 2, GATE_REACH_FRAMES
        limits = _GATE_RAMPS, (_GATE_FOREIGN, _UNEXPLAINED), _SHARP
        return kernel.gate((wanted, actual, pulses), voiced, sizes, per_cent, limits).unsqueeze(-1)
    means = _fitted(wanted, actual, pulses, per_cent) * voiced.unsqueeze(1)
    gate = _opened(_smooth(means, GATE_EVIDENCE_FRAMES), _smooth(means[:, 1:6], GATE_SMOOTHING_FRAMES))
    open_or_unvoiced = gate * voiced + (1.0 - voiced)
    # An unvoiced frame next to a note still shows the note's harmonics: its window reaches into it.
    reach = F.pad(open_or_unvoiced, (GATE_REACH_FRAMES, GATE_REACH_FRAMES), value=1.0)
    nearby = reach.unfold(-1, 2 * GATE_REACH_FRAMES + 1, 1).amin(-1)
    return (torch.where(voiced > 0, gate, nearby) * sharpness(wanted)).unsqueeze(-1)


def _fitted(wanted: Tensor, actual: Tensor, pulses: Tensor, per_cent: Tensor) -> Tensor:
    """Mean products that :func:`pitch_gate` needs, ``(batch, 8, frames)``."""
    target, own, comb = (_fine_structure(values) for values in (wanted, actual, pulses))
    moved = -_slope(own) * per_cent * 100.0
    return _means(
        (target, target), (target, own), (own, own), (target, moved),
        (moved, moved), (own, moved), (target, comb), (comb, comb),
    )  # fmt: skip


def _opened(long: Tensor, local: Tensor) -> Tensor:
    """The gate ``(batch, frames)`` that averaged products open, over the evidence, and of the fit alone locally."""
    tt, to, oo, tm, mm, om, tc, cc = long.unbind(1)
    contrast, _ = _fit(to, oo, tm, mm, om)
    _, detuning = _fit(*local.unbind(1))
    seen = (
        _correlation(to, tt, oo), contrast, _correlation(tc, tt, cc), -detuning.abs(), -_unexplained(tt, tc, cc),
    )  # fmt: skip
    gate = 1.0 - _foreign(tt, tc, cc, _GATE_FOREIGN)
    for value, ramp in zip(seen, _GATE_RAMPS, strict=True):
        gate = gate * _ramp(value, *ramp)
    return gate


def sharpness(wanted: Tensor, average: Average = _over_frames) -> Tensor:
    """Whether a mel has the detail of a recording's: 1, or 0 where it was blurred or predicted.

    The mel of a recording differs from band to band everywhere, in noise too. The second difference over the lowest
    bands is .6 to 1.6 nepers in recordings, and below .3 when they were blurred by two bands and two frames.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        average: see :func:`foreign_ripple`.

    Returns:
        ``(batch, frames)`` in [0, 1].
    """
    if kernel.fused(wanted):
        bends = kernel.bends(wanted, GATE_BANDS)
    else:
        low = wanted[..., :GATE_BANDS]
        bend = low[..., 2:] - 2.0 * low[..., 1:-1] + low[..., :-2]
        bends = _means((bend, bend))
    return _ramp(average(bends).squeeze(1).sqrt(), *_SHARP)


def _fit(to: Tensor, oo: Tensor, tm: Tensor, mm: Tensor, om: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares ``target = contrast * (own + detuning / 100 * moved)``: contrast, and detuning in cents."""
    determinant = oo * mm - om.square() + 1e-7
    contrast = (to * mm - tm * om) / determinant
    return contrast, 100.0 * (tm * oo - to * om) / determinant / contrast.clamp(min=0.3)


def foreign_ripple(wanted: Tensor, pulses: Tensor, average: Average = _over_frames) -> Tensor:
    """Whether the wanted mel shows the harmonics of another pitch than the pulse train's.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        pulses: the same of the pulse train.
        average: over a few frames, ``(batch, rows, frames)`` to the same.

    Returns:
        ``(batch, frames)`` in [0, 1]: 0 where the ripple of the lowest bands is the pulse train's, or hardly there.
    """
    if kernel.fused(wanted, pulses):
        means = kernel.compared(wanted, pulses, GATE_BANDS, REACH_BANDS)
    else:
        target, comb = _fine_structure(wanted), _fine_structure(pulses)
        means = _means((target, target), (target, comb), (comb, comb))
    # An octave below, every second harmonic of the comb is the mel's: the correlation is still well above zero.
    means = average(means)
    if kernel.fused(means):
        return kernel.foreign(means, (_ENVELOPE_FOREIGN, _UNEXPLAINED))
    tt, tc, cc = means.unbind(1)
    return _foreign(tt, tc, cc, _ENVELOPE_FOREIGN)


@constant(16)
def _to_even_steps(mel: MelContract, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Interpolation from the lowest bands to steps of ``RIPPLE_STEP_HZ``, ``(bands, steps)``."""
    centres = band_centres_hz(mel)[:GATE_BANDS]
    steps = np.arange(centres[0], centres[-1], RIPPLE_STEP_HZ)
    weights = np.stack([np.interp(steps, centres, row) for row in np.eye(len(centres))])
    return torch.tensor(weights, device=device, dtype=dtype)


@lru_cache(maxsize=16)
def _packed_steps(mel: MelContract) -> tuple[np.ndarray, np.ndarray]:
    """:func:`_to_even_steps` as the kernel reads it."""
    return neighbours(_to_even_steps(mel, torch.device("cpu"), torch.float32))


def ripple_hz(wanted: Tensor, mel: MelContract, average: Average = _over_frames) -> Tensor:
    """Distance of the harmonics that a mel shows: the first strong peak of its ripple's autocorrelation over frequency.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        mel: its contract.
        average: see :func:`foreign_ripple`.

    Returns:
        ``(batch, frames)`` Hz, ``LOWEST_RIPPLE_HZ`` to ``HIGHEST_RIPPLE_HZ``; without meaning where there is no ripple.
    """
    steps = _to_even_steps(mel, wanted.device, wanted.dtype)
    count = steps.shape[1]
    low, high = _lags(count)
    numbers = torch.arange(low, high, device=wanted.device)
    if kernel.fused(wanted):
        lags = kernel.lags(wanted, GATE_BANDS, REACH_BANDS, _packed_steps(mel), (low, high))
    else:
        lags = (_autocorrelation(wanted, steps)[..., low:high] * (count / (count - numbers))).transpose(1, 2)
    smooth = average(lags)
    if kernel.fused(smooth):
        first = kernel.first_peaks(smooth, _STRONG) + low
    else:
        strong = smooth >= _STRONG * smooth.amax(dim=1, keepdim=True)
        first = torch.where(strong, numbers.unsqueeze(-1), high).amin(dim=1)
    return (first.to(wanted.dtype) + 0.5) * RIPPLE_STEP_HZ


def _lags(steps: int) -> tuple[int, int]:
    """First and last of the autocorrelation that are looked at, of so many steps."""
    return int(LOWEST_RIPPLE_HZ / RIPPLE_STEP_HZ), min(steps // 2, int(HIGHEST_RIPPLE_HZ / RIPPLE_STEP_HZ))


@lru_cache(maxsize=16)
def _look(mel: MelContract, late: int | None) -> kernel.Look:
    steps, half = _packed_steps(mel), GATE_SMOOTHING_FRAMES // 2
    frames = (half, half) if late is None else (GATE_SMOOTHING_FRAMES - 1, 0)
    return kernel.Look(
        GATE_BANDS, REACH_BANDS, frames, late or 0, _lags(len(steps[0])), steps, RIPPLE_STEP_HZ, _STRONG,
        (_ENVELOPE_FOREIGN, _UNEXPLAINED), _SHARP,
    )  # fmt: skip


def fast_widths(
    wanted: Tensor, pulses: Tensor, f0_hz: Tensor, mel: MelContract, late: int | None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """:meth:`melisma.generators.analytic.Analytic.widths` of a whole clip by the kernel; None where it cannot.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        pulses: the same of the pulse train.
        f0_hz: ``(batch, frames)``.
        mel: the contract.
        late: frames that ``pulses`` come behind in a causal model; None for one that looks ahead.
    """
    return _look(mel, late).widths(wanted, pulses, f0_hz) if kernel.fused(wanted, pulses, f0_hz) else None


def _autocorrelation(wanted: Tensor, steps: Tensor) -> Tensor:
    """Of the fine structure over even steps of frequency, ``(batch, frames, steps)``."""
    even = _fine_structure(wanted) @ steps
    # FFTs refuse to do nothing, but a step of a stream may bring no frames.
    some = even if even.shape[1] else F.pad(even, (0, 0, 0, 1))
    length = 1 << (2 * even.shape[-1] - 1).bit_length()
    spectrum = torch.fft.rfft(some, n=length)
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.fft.irfft(power, n=length)[:, : even.shape[1]]


def _correlation(xy: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    return xy * torch.rsqrt(xx * yy + 1e-8)


def _unexplained(tt: Tensor, tc: Tensor, cc: Tensor) -> Tensor:
    """Nepers of ripple in the target that the comb does not account for."""
    return (tt - tc.clamp(min=0.0).square() / (cc + 1e-6)).clamp(min=0.0).sqrt()


def _foreign(tt: Tensor, tc: Tensor, cc: Tensor, ends: tuple[float, float]) -> Tensor:
    """1 where both correlate by the lower end or less and much ripple stays unexplained, 0 from the upper end on."""
    none, full = ends
    return _ramp(-_correlation(tc, tt, cc), -none, -full) * _ramp(_unexplained(tt, tc, cc), *_UNEXPLAINED)


def _means(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Mean products over the bands of ``(batch, frames, bands)`` pairs: ``(batch, pairs, frames)``."""
    return torch.stack([(x * y).mean(-1) for x, y in pairs], dim=1)


@constant(16)
def _averaging(bands: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Moving average over the bands as a matrix ``(bands, bands)``, edges averaged over what is there."""
    apart = np.abs(np.subtract.outer(np.arange(bands), np.arange(bands)))
    near = (apart <= GATE_SMOOTHING_BANDS // 2).astype(np.float64)
    return torch.tensor(near / near.sum(axis=0), device=device, dtype=dtype)


def coarse(values: Tensor) -> Tensor:
    """``(batch, frames, bands)`` without what changes from band to band: an envelope, as wide as a few harmonics."""
    if torch.is_autocast_enabled(values.device.type):  # a product would be rounded, and what is left is a difference
        return _smooth(values, GATE_SMOOTHING_BANDS)
    return values @ _averaging(values.shape[-1], values.device, values.dtype)


def missed_of(wanted: Tensor, heard: Tensor, sharp: Tensor, largest: float) -> Tensor:
    """Nepers of a wanted mel that a draft misses; of a blurred one only the envelope counts, not the detail.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        heard: the same of the draft.
        sharp: see :func:`sharpness`.
        largest: more is not missed.

    Returns:
        like ``wanted``.
    """
    if kernel.fused(wanted, heard, sharp):
        return kernel.missed(wanted, heard, sharp, REACH_BANDS, largest)
    missed = wanted - heard
    envelope, all_of_it = (part.clamp(-largest, largest) for part in (coarse(missed), missed))
    return torch.lerp(envelope, all_of_it, sharp.unsqueeze(-1))


def _fine_structure(log_mel_values: Tensor) -> Tensor:
    low = log_mel_values[..., :GATE_BANDS]
    return low - coarse(low)


def _slope(values: Tensor) -> Tensor:
    """Central difference along the last axis (torch.gradient does not export at dynamic length)."""
    wide = F.pad(values, (1, 1), mode="replicate")
    return 0.5 * (wide[..., 2:] - wide[..., :-2])


def _ramp(values: Tensor, zero: float, one: float) -> Tensor:
    return ((values - zero) / (one - zero)).clamp(0.0, 1.0)

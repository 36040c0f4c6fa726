"""Mel projection: move audio towards a wanted log-mel, without learned weights.

One round measures the log-mel of the audio, spreads the difference over the FFT bins as a gain and resynthesises. A
gate closes it where the wanted mel was made at another pitch, or is blurred: there it would impose the wrong fine
structure.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.audio.mel import MelContract, compress, filterbank, hz_to_mel, mel_filterbank, mel_to_hz
from melisma.audio.stft import centred_hann, odd_split, overlap_add, pad_signal, spectra

Average = Callable[[Tensor], Tensor]

# A round changes no band by more than this many nepers.
MAX_STEP = 1.5
# Share of the last round's change that the next one starts ahead by (as in fast Griffin-Lim, Perraudin et al. 2013).
MOMENTUM = 0.7
# The gate looks at the lowest bands, where single harmonics show.
GATE_BANDS = 64
GATE_SMOOTHING_BANDS = 11
GATE_SMOOTHING_FRAMES = 13
GATE_REACH_FRAMES = 3
# Where the harmonics of a mel that was made at another pitch are looked for.
RIPPLE_STEP_HZ = 25.0
LOWEST_RIPPLE_HZ = 125.0
HIGHEST_RIPPLE_HZ = 1000.0


def band_centres_hz(mel: MelContract) -> np.ndarray:
    """Centre frequency of every mel band, ``(n_mels,)`` in Hz."""
    lowest, highest = hz_to_mel(np.array([mel.fmin, mel.highest_hz]), mel.scale)
    return mel_to_hz(np.linspace(lowest, highest, mel.n_mels + 2), mel.scale)[1:-1]


@lru_cache(maxsize=16)
def _spread(mel: MelContract, n_fft: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Linear interpolation from band centres to the bins of an FFT, ``(n_mels, n_fft // 2 + 1)``; edges hold."""
    centres = band_centres_hz(mel)
    bins = np.linspace(0.0, mel.sample_rate / 2, n_fft // 2 + 1)
    position = np.interp(bins, centres, np.arange(mel.n_mels))
    lower = np.minimum(np.floor(position).astype(int), mel.n_mels - 2) if mel.n_mels > 1 else np.zeros(len(bins), int)
    weights = np.zeros((mel.n_mels, len(bins)))
    share = position - lower
    weights[lower, np.arange(len(bins))] = 1.0 - share
    if mel.n_mels > 1:
        weights[lower + 1, np.arange(len(bins))] = share
    with torch.inference_mode(False):
        return torch.tensor(weights, device=device, dtype=dtype)


def spread_to_bins(bands: Tensor, mel: MelContract, n_fft: int) -> Tensor:
    """Interpolate ``(..., n_mels)`` values to FFT bins, ``(..., n_fft // 2 + 1)``."""
    return bands @ _spread(mel, n_fft, bands.device, bands.dtype)


def natural(log_mel_values: Tensor, mel: MelContract) -> Tensor:
    """A log-mel of the contract's base as natural logarithm."""
    return log_mel_values if mel.log_base == "e" else log_mel_values * 2.302585092994046


def mel_of(spectrum: Tensor, mel: MelContract) -> Tensor:
    """Natural log-mel ``(batch, frames, n_mels)`` of a complex spectrum under the contract."""
    weights = filterbank(mel, spectrum.real)[:, : _heard_bins(mel)]
    heard = spectrum[..., : weights.shape[1]]
    energy = torch.addcmul(heard.real * heard.real, heard.imag, heard.imag) + max(mel.magnitude_epsilon, 1e-14)
    magnitude = energy.sqrt() if mel.power == 1.0 else energy.pow(mel.power / 2)
    return natural(compress(magnitude @ weights.T, mel), mel)


@lru_cache(maxsize=16)
def _heard_bins(mel: MelContract) -> int:
    """Bins up to the last one that any filter hears; nothing above needs to be computed."""
    return int(np.flatnonzero(mel_filterbank(mel).any(axis=0))[-1]) + 1


def _smooth(values: Tensor, width: int) -> Tensor:
    """Moving average over the last axis of ``(batch, rows, columns)``, edges averaged over what is there."""
    if values.shape[1] == 0:  # a step of a stream may bring no frames
        return values
    return F.avg_pool1d(values, width, stride=1, padding=width // 2, count_include_pad=False)


def _over_frames(values: Tensor) -> Tensor:
    return _smooth(values, GATE_SMOOTHING_FRAMES)


@lru_cache(maxsize=16)
def _bands_per_cent(mel: MelContract, device: torch.device, dtype: torch.dtype) -> Tensor:
    """How many bands a partial at each of the lowest bands moves when the pitch rises by one cent."""
    centres = band_centres_hz(mel)[:GATE_BANDS]
    per_octave = centres * np.log(2.0) / np.gradient(centres)
    with torch.inference_mode(False):
        return torch.tensor(per_octave / 1200.0, device=device, dtype=dtype)


def pitch_gate(wanted: Tensor, actual: Tensor, pulses: Tensor, voiced: Tensor, mel: MelContract) -> Tensor:
    """How safe it is to project: 1 where the wanted mel shows the pitch that is played, 0 where it would be undone.

    The fine structure (what is left of a log-mel when its envelope is taken away) is compared in the lowest bands:

    - with that of the audio before any projection. A least squares fit ``wanted = a * actual + b * d actual / d pitch``
      tells the contrast ``a``, low when the wanted mel is blurred, and the detuning ``b / a`` in cents;
    - with that of the bare pulse train, which cannot have taken over the ripple of another pitch from the mel: an
      octave shows here, in the ripple that stays unexplained.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        actual: the same of the audio before any projection.
        pulses: the same of the pulse train.
        voiced: ``(batch, frames)``, 1 where F0 is given.
        mel: the contract of all.

    Returns:
        ``(batch, frames, 1)`` in [0, 1]; 1 in unvoiced frames of a rough mel that lie apart from voiced ones.
    """
    target, own, comb = (_fine_structure(values) for values in (wanted, actual, pulses))
    moved = -_slope(own) * _bands_per_cent(mel, own.device, own.dtype) * 100.0
    tt, to, oo, tm, mm, om, tc, cc = _products(
        (target, target), (target, own), (own, own), (target, moved),
        (moved, moved), (own, moved), (target, comb), (comb, comb),
    )  # fmt: skip
    determinant = oo * mm - om.square() + 1e-7
    contrast = (to * mm - tm * om) / determinant
    detuning = 100.0 * (tm * oo - to * om) / determinant / contrast.clamp(min=0.2)
    gate = (
        _ramp(_correlation(to, tt, oo), 0.55, 0.7)
        * _ramp(contrast, 0.45, 0.65)
        * _ramp(-detuning.abs(), -20.0, -12.0)
        * (1.0 - _foreign(tt, tc, cc))
        * _ramp(-_unexplained(tt, tc, cc), -1.0, -0.75)
    )
    # The mel of a recording is rough everywhere, in noise too; a smooth one was blurred or predicted.
    rough = _ramp(tt.sqrt(), 0.2, 0.3)
    open_or_unvoiced = gate * voiced + (1.0 - voiced)
    # An unvoiced frame next to a note still shows the note's harmonics: its window reaches into it.
    reach = F.pad(open_or_unvoiced, (GATE_REACH_FRAMES, GATE_REACH_FRAMES), value=1.0)
    nearby = reach.unfold(-1, 2 * GATE_REACH_FRAMES + 1, 1).amin(-1)
    return (torch.where(voiced > 0, gate, nearby) * rough).unsqueeze(-1)


def foreign_ripple(wanted: Tensor, pulses: Tensor, average: Average = _over_frames) -> Tensor:
    """Whether the wanted mel shows the harmonics of another pitch than the pulse train's.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        pulses: the same of the pulse train.
        average: over a few frames, ``(batch, rows, frames)`` to the same.

    Returns:
        ``(batch, frames)`` in [0, 1]: 0 where the ripple of the lowest bands is the pulse train's, or hardly there.
    """
    target, comb = _fine_structure(wanted), _fine_structure(pulses)
    # An octave below, every second harmonic of the comb is the mel's: the correlation is still well above zero.
    tt, tc, cc = average(_means((target, target), (target, comb), (comb, comb))).unbind(1)
    return _foreign(tt, tc, cc, none=0.85, full=0.7)


@lru_cache(maxsize=16)
def _to_even_steps(mel: MelContract, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Interpolation from the lowest bands to steps of ``RIPPLE_STEP_HZ``, ``(bands, steps)``."""
    centres = band_centres_hz(mel)[:GATE_BANDS]
    steps = np.arange(centres[0], centres[-1], RIPPLE_STEP_HZ)
    weights = np.stack([np.interp(steps, centres, row) for row in np.eye(len(centres))])
    with torch.inference_mode(False):
        return torch.tensor(weights, device=device, dtype=dtype)


def ripple_hz(wanted: Tensor, mel: MelContract, average: Average = _over_frames) -> Tensor:
    """Distance of the harmonics that a mel shows: the first strong peak of its ripple's autocorrelation over frequency.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        mel: its contract.
        average: see :func:`foreign_ripple`.

    Returns:
        ``(batch, frames)`` Hz, ``LOWEST_RIPPLE_HZ`` to ``HIGHEST_RIPPLE_HZ``; without meaning where there is no ripple.
    """
    even = _fine_structure(wanted) @ _to_even_steps(mel, wanted.device, wanted.dtype)
    count = even.shape[-1]
    # FFTs refuse to do nothing, but a step of a stream may bring no frames.
    some = even if even.shape[1] else F.pad(even, (0, 0, 0, 1))
    correlation = torch.fft.irfft(torch.fft.rfft(some, n=2 * count).abs().square(), n=2 * count)[:, : even.shape[1]]
    low, high = int(LOWEST_RIPPLE_HZ / RIPPLE_STEP_HZ), min(count // 2, int(HIGHEST_RIPPLE_HZ / RIPPLE_STEP_HZ))
    lags = torch.arange(low, high, device=even.device)
    unbiased = correlation[..., low:high] * (count / (count - lags).to(even.dtype))
    smooth = average(unbiased.transpose(1, 2)).transpose(1, 2)
    strong = smooth >= 0.8 * smooth.amax(dim=-1, keepdim=True)
    first = torch.where(strong, lags, high).amin(dim=-1)
    return (first.to(even.dtype) + 0.5) * RIPPLE_STEP_HZ


def _correlation(xy: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    return xy * torch.rsqrt(xx * yy + 1e-8)


def _unexplained(tt: Tensor, tc: Tensor, cc: Tensor) -> Tensor:
    """Nepers of ripple in the target that the comb does not account for."""
    return (tt - tc.clamp(min=0.0).square() / (cc + 1e-6)).clamp(min=0.0).sqrt()


def _foreign(tt: Tensor, tc: Tensor, cc: Tensor, none: float = 0.6, full: float = 0.3) -> Tensor:
    """1 where target and comb correlate by ``full`` or less and much ripple stays unexplained, 0 from ``none`` on."""
    return _ramp(-_correlation(tc, tt, cc), -none, -full) * _ramp(_unexplained(tt, tc, cc), 0.6, 0.8)


def _products(*pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Mean products over the bands of ``(batch, frames, bands)`` pairs, smoothed over frames."""
    return _smooth(_means(*pairs), GATE_SMOOTHING_FRAMES).unbind(1)


def _means(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Mean products over the bands of ``(batch, frames, bands)`` pairs: ``(batch, pairs, frames)``."""
    return torch.stack([(x * y).mean(-1) for x, y in pairs], dim=1)


def _fine_structure(log_mel_values: Tensor) -> Tensor:
    low = log_mel_values[..., :GATE_BANDS]
    return low - _smooth(low, GATE_SMOOTHING_BANDS)


def _slope(values: Tensor) -> Tensor:
    """Central difference along the last axis (torch.gradient does not export at dynamic length)."""
    wide = F.pad(values, (1, 1), mode="replicate")
    return 0.5 * (wide[..., 2:] - wide[..., :-2])


def _ramp(values: Tensor, zero: float, one: float) -> Tensor:
    return ((values - zero) / (one - zero)).clamp(0.0, 1.0)


class MelProjection:
    """Projections of one batch onto one wanted log-mel.

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        mel: its contract, ``same`` or ``nvstft`` padding.
    """

    def __init__(self, wanted: Tensor, mel: MelContract) -> None:
        self.wanted = wanted
        self.mel = mel
        frames = wanted.shape[1]
        self.window = centred_hann(mel.win_length, mel.n_fft, wanted)
        squares = self.window.square().expand(1, frames, mel.n_fft)
        self.window_sum = overlap_add(squares, mel.hop_length).clamp(min=1e-3)
        # What every contract pads when the signal is a whole number of hops; a plain number, so that graphs export.
        self.padding = odd_split(mel.n_fft - mel.hop_length)

    def log_mel(self, audio: Tensor) -> Tensor:
        """Natural log-mel ``(batch, frames, n_mels)`` of audio ``(batch, frames * hop_length)``."""
        padded = pad_signal(audio, *self.padding, mode=self.mel.pad_mode)
        return mel_of(spectra(padded, self.mel.n_fft, self.mel.hop_length, self.mel.win_length), self.mel)

    def __call__(self, audio: Tensor, gate: Tensor, rounds: int) -> Tensor:
        """Project ``rounds`` times.

        Args:
            audio: ``(batch, frames * hop_length)``.
            gate: ``(batch, frames, 1 or n_mels)`` in [0, 1], see :func:`pitch_gate`.
            rounds: how often.

        Returns:
            audio of the same shape.
        """
        ahead = audio
        for number in range(rounds):
            before, audio = audio, self._round(ahead, gate)
            ahead = audio + MOMENTUM * (audio - before) if number > 0 else audio
        return audio

    def _round(self, audio: Tensor, gate: Tensor) -> Tensor:
        """One round: spectra, gains, least-squares inverse (Griffin & Lim 1984, eq. 6)."""
        padded = pad_signal(audio, *self.padding, mode=self.mel.pad_mode)
        spectrum = spectra(padded, self.mel.n_fft, self.mel.hop_length, self.mel.win_length)
        step = (self.wanted - mel_of(spectrum, self.mel)).clamp(-MAX_STEP, MAX_STEP) * gate
        gain = spread_to_bins(step, self.mel, self.mel.n_fft).exp()
        total = overlap_add(torch.fft.irfft(spectrum * gain) * self.window, self.mel.hop_length)
        left, _ = self.padding
        return (total / self.window_sum)[:, left : left + audio.shape[-1]]


def flat_mel(mel: MelContract, like: Tensor) -> Tensor:
    """Natural log of the expected mel of unit white noise, ``(n_mels,)``: what a level of 1 looks like in each band."""
    energy = 3.0 / 8.0 * mel.n_fft if mel.win_length == mel.n_fft else 3.0 / 8.0 * mel.win_length
    # E|X| of a complex Gaussian of that power is sqrt(pi / 4 * power); E|X|^2 is the power.
    level = (0.7853981633974483 * energy) ** 0.5 if mel.power == 1.0 else energy ** (mel.power / 2)
    return (filterbank(mel, like).sum(dim=1) * level).clamp(min=1e-12).log()

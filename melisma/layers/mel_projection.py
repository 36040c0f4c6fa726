"""Mel projection: move audio towards a wanted log-mel, without learned weights.

One round measures the log-mel of the audio, spreads the difference over the FFT bins as a gain and resynthesises. Where
it may do so is said by a gate (:mod:`melisma.layers.pitch_gate`).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.audio.mel import MelContract, compress, filterbank, mel_filterbank
from melisma.audio.mel_bands import band_to_bin_weights, natural
from melisma.audio.stft import centred_hann, odd_split, overlap_add, pad_signal, spectra
from melisma.constants import constant
from melisma.kernels import projection as kernel
from melisma.kernels.grid import together

# A round changes no band by more than this many nepers.
MAX_STEP = 1.5
# Share of the last round's change that the next one starts ahead by (as in fast Griffin-Lim, Perraudin et al. 2013).
MOMENTUM = 0.7
# The low band reaches at least this far; its last bins belong to no band that it projects.
LOW_BAND_HZ = 2500.0
LOW_BAND_TAPER_BINS = 6
LOW_BAND_MOMENTUM = 0.95
# Many rounds make much of little: with steps of 1.5 nepers they amplify a difference a thousandfold where a sound
# begins or ends, so that no two ways of rounding agree. With these it is tens, and the mel is met as well.
LOW_BAND_STEP = 0.5


def mel_of(spectrum: Tensor, mel: MelContract) -> Tensor:
    """Natural log-mel ``(batch, frames, n_mels)`` of a complex spectrum under the contract."""
    weights = filterbank(mel, spectrum.real)[:, : _heard_bins(mel)]
    heard = spectrum[..., : weights.shape[1]]
    energy = _power(heard) + max(mel.magnitude_epsilon, 1e-14)
    magnitude = energy.sqrt() if mel.power == 1.0 else energy.pow(mel.power / 2)
    return natural(compress(magnitude @ weights.T, mel), mel)


def _power(spectrum: Tensor) -> Tensor:
    """Squared magnitude; in a graph every ``.real`` would be an operator more."""
    pairs = torch.view_as_real(spectrum)
    real, imaginary = pairs[..., 0], pairs[..., 1]
    return torch.addcmul(real * real, imaginary, imaginary)


def mel_of_padded(audio: Tensor, mel: MelContract) -> Tensor | None:
    """Natural log-mel ``(batch, frames, n_mels)`` of a signal between zeros, by the kernel; None where it cannot."""
    if not _fused(audio, mel):
        return None
    return together([kernel.Clip(_padded_band(mel), None, row).log_mel() for row in audio])


def _fused(audio: Tensor, mel: MelContract) -> bool:
    low = _LowBand.of(mel)
    smallest = mel.n_fft if low is None else mel.n_fft // low.factor
    return kernel.fused(audio) and mel.power == 1.0 and kernel.fits(smallest)


def gain_weights(mel: MelContract, like: Tensor) -> Tensor:
    """How the steps of the bands become log gains of the bins, ``(n_mels, n_fft // 2 + 1)``.

    Below the first band nothing is changed: no band would say when it is enough, a rumble would grow from round to
    round, and what is rounded in it most of all.
    """
    return _gain_weights(mel, like.device, like.dtype)


@constant(16)
def _gain_weights(mel: MelContract, device: torch.device, dtype: torch.dtype) -> Tensor:
    weights = band_to_bin_weights(mel, mel.n_fft, device, dtype)
    heard = np.maximum.accumulate(mel_filterbank(mel).any(axis=0))
    return weights * torch.from_numpy(heard).to(weights)


@lru_cache(maxsize=16)
def _heard_bins(mel: MelContract) -> int:
    """Bins up to the last one that any filter hears; nothing above needs to be computed."""
    return int(np.flatnonzero(mel_filterbank(mel).any(axis=0))[-1]) + 1


class MelProjection:
    """Projections of one batch onto one wanted log-mel.

    A full round works on all bins. Most of what is hard to find, the phase of the first harmonics, lies below 3 kHz,
    where the mel resolves single bins; so the first full round is preceded by cheap rounds on the lowest bins alone,
    at a fraction of the sample rate (:class:`_LowBand`).

    Args:
        wanted: natural log-mel, ``(batch, frames, n_mels)``.
        mel: its contract, ``same`` or ``nvstft`` padding.
    """

    def __init__(self, wanted: Tensor, mel: MelContract) -> None:
        self.wanted = wanted
        self.mel = mel
        self.transform = _Transform(mel.n_fft, mel.hop_length, mel.win_length, mel.pad_mode)
        self._clips: tuple[Tensor, list[kernel.Clip]] | None = None

    def log_mel(self, audio: Tensor) -> Tensor:
        """Natural log-mel ``(batch, frames, n_mels)`` of audio ``(batch, frames * hop_length)``."""
        if not _fused(audio, self.mel):
            return mel_of(self.transform.spectrum(audio), self.mel)
        clips = [kernel.Clip(*_bands(self.mel), row) for row in audio]
        self._clips = audio, clips
        return together([clip.log_mel() for clip in clips])

    def __call__(self, audio: Tensor, gate: Tensor, rounds: int, low_rounds: int = 0) -> Tensor:
        """Project.

        Args:
            audio: ``(batch, frames * hop_length)``.
            gate: ``(batch, frames, 1)`` in [0, 1], see :func:`melisma.layers.pitch_gate.pitch_gate`.
            rounds: full rounds.
            low_rounds: rounds on the low band before them.

        Returns:
            audio of the same shape.
        """
        if _fused(audio, self.mel):
            return self._by_kernel(audio, gate, rounds, low_rounds)
        low = _LowBand.of(self.mel) if low_rounds else None
        if low is not None:
            # The inverse is linear: only the change has to go back.
            audio = audio + self.transform.audio(
                low.change(self.transform.spectrum(audio), self.wanted, gate, low_rounds)
            )
        return _accelerated(lambda ahead: self._round(ahead, gate), audio, rounds, MOMENTUM)

    def _by_kernel(self, audio: Tensor, gate: Tensor, rounds: int, low_rounds: int) -> Tensor:
        if self._clips is None or self._clips[0] is not audio:
            self.log_mel(audio)
        _, clips = self._clips  # type: ignore[misc]
        self._clips = None  # they go on with what they make
        given = zip(clips, self.wanted, gate.expand(-1, self.wanted.shape[1], -1), strict=True)
        return together(
            [
                clip.project(wanted, opened, rounds, MOMENTUM, low_rounds, LOW_BAND_MOMENTUM)
                for clip, wanted, opened in given
            ]
        )

    def _round(self, audio: Tensor, gate: Tensor) -> Tensor:
        """One round: spectra, gains, least-squares inverse."""
        spectrum = self.transform.spectrum(audio)
        step = (self.wanted - mel_of(spectrum, self.mel)).clamp(-MAX_STEP, MAX_STEP) * gate
        return self.transform.audio(spectrum * (step @ gain_weights(self.mel, step)).exp())


def _accelerated(one_round: Callable[[Tensor], Tensor], audio: Tensor, rounds: int, momentum: float) -> Tensor:
    """Repeat a round, each from a point ahead of the last one in the direction of its change."""
    ahead = audio
    for number in range(rounds):
        before, audio = audio, one_round(ahead)
        ahead = audio + momentum * (audio - before) if number > 0 else audio
    return audio


class _Transform:
    """A short-time Fourier transform of whole frames and its least-squares inverse (Griffin & Lim 1984, eq. 6).

    Of one clip: what belongs to its number of frames is kept.
    """

    def __init__(self, n_fft: int, hop_length: int, win_length: int, pad_mode: str) -> None:
        self.n_fft, self.hop_length, self.win_length, self.pad_mode = n_fft, hop_length, win_length, pad_mode
        # What every contract pads when the signal is a whole number of hops; a plain number, so that graphs export.
        self.padding = odd_split(n_fft - hop_length)
        self._window: Tensor | None = None
        self._weight: Tensor | None = None  # the sum of squared windows, of as many frames as came first

    def spectrum(self, audio: Tensor) -> Tensor:
        """``(batch, frames * hop_length)`` -> complex ``(batch, frames, n_fft // 2 + 1)``."""
        padded = pad_signal(audio, *self.padding, mode=self.pad_mode)
        return spectra(padded, self.n_fft, self.hop_length, self.win_length)

    def audio(self, spectrum: Tensor) -> Tensor:
        """The signal whose spectrum is nearest: the inverse of :meth:`spectrum`."""
        frames = spectrum.shape[1]
        if self._window is None or self._weight is None:  # rounds are of one clip
            self._window = centred_hann(self.win_length, self.n_fft, spectrum.real)
            squares = self._window.square().expand(1, frames, self.n_fft)
            self._weight = overlap_add(squares, self.hop_length).clamp(min=1e-3)
        total = overlap_add(torch.fft.irfft(spectrum, n=self.n_fft) * self._window, self.hop_length)
        left, _ = self.padding
        return (total / self._weight)[:, left : left + frames * self.hop_length]


@dataclass(frozen=True)
class _LowBand:
    """The lowest bins of a mel's transform as a transform of its own, at the sample rate divided by ``factor``.

    The first ``n_fft / factor / 2`` bins of a frame are exactly a frame of the decimated signal, so nothing is filtered
    and nothing resampled: cut, inverse FFT, overlap-add; and at the end the changed bins are put back.

    Attributes:
        mel: the contract at the full rate.
        factor: by which rate, FFT and hop are divided.
        bands: mel bands that lie wholly inside.
    """

    mel: MelContract
    factor: int
    bands: int

    @staticmethod
    @lru_cache(maxsize=16)
    def of(mel: MelContract) -> "_LowBand | None":
        """The low band of a contract; None where its sizes cannot be divided or too few bands would fit."""
        factor = 1
        while mel.sample_rate / (4 * factor) >= LOW_BAND_HZ and all(
            size % (4 * factor) == 0 for size in (mel.n_fft - mel.win_length, mel.n_fft, mel.hop_length)
        ):
            factor *= 2
        inside = mel.n_fft // (2 * factor) - LOW_BAND_TAPER_BINS
        bands = int((~mel_filterbank(mel)[:, max(0, inside) :].any(axis=1)).cumprod().sum())
        return _LowBand(mel, factor, bands) if factor > 1 and bands >= 2 and inside > 0 else None

    @property
    def bins(self) -> int:
        """Bins that the low band has."""
        return self.mel.n_fft // (2 * self.factor)

    def change(self, spectrum: Tensor, wanted: Tensor, gate: Tensor, rounds: int) -> Tensor:
        """Rounds on the lowest bins of a full spectrum; returns by how much it changes."""
        mel, factor = self.mel, self.factor
        transform = _Transform(mel.n_fft // factor, mel.hop_length // factor, mel.win_length // factor, mel.pad_mode)
        start = transform.audio(self._cut(spectrum))
        target = wanted[..., : self.bands]

        filters = filterbank(mel, target)[: self.bands, : self.bins + 1].T
        gains = gain_weights(mel, target)[: self.bands, : self.bins + 1]  # fading out towards the top of the band

        def one_round(audio: Tensor) -> Tensor:
            low = transform.spectrum(audio)
            step = (target - self._mel_of(low, filters)).clamp(-LOW_BAND_STEP, LOW_BAND_STEP) * gate
            return transform.audio(low * (step @ gains).exp())

        audio = _accelerated(one_round, start, rounds, LOW_BAND_MOMENTUM)
        change = transform.spectrum(audio - start) * factor
        return F.pad(change[..., : self.bins], (0, spectrum.shape[-1] - self.bins))

    def _cut(self, spectrum: Tensor) -> Tensor:
        """The lowest bins, scaled to the lower rate, with a silent last one."""
        return F.pad(spectrum[..., : self.bins] / self.factor, (0, 1))

    def _mel_of(self, low: Tensor, filters: Tensor) -> Tensor:
        energy = _power(low) * self.factor**2 + max(self.mel.magnitude_epsilon, 1e-14)
        magnitude = energy.sqrt() if self.mel.power == 1.0 else energy.pow(self.mel.power / 2)
        return natural(compress(magnitude @ filters, self.mel), self.mel)


@constant(8)
def _bands(mel: MelContract) -> tuple[kernel.Band, kernel.Band | None]:
    """The kernel's form of a contract, and of its low band."""
    like, low = torch.zeros(0), _LowBand.of(mel)
    filters, spread = filterbank(mel, like), gain_weights(mel, like)
    full = _band(mel, filters, spread, 1)
    if low is None:
        return full, None
    bins = low.bins + 1
    return full, _band(mel, filters[: low.bands, :bins], spread[: low.bands, :bins], low.factor)


@lru_cache(maxsize=8)
def _padded_band(mel: MelContract) -> kernel.Band:
    """The full rate's, of a signal between zeros."""
    return dataclasses.replace(_bands(mel)[0], reflected=False)


def _band(mel: MelContract, filters: Tensor, spread: Tensor, factor: int) -> kernel.Band:
    n_fft, hop_length = mel.n_fft // factor, mel.hop_length // factor
    return kernel.Band(
        hop_length,
        centred_hann(mel.win_length // factor, n_fft, filters).numpy(),
        odd_split(n_fft - hop_length)[0],
        mel.pad_mode == "reflect",
        *kernel.readings(filters),
        *kernel.neighbours(spread),
        scale=float(factor),
        epsilon=max(mel.magnitude_epsilon, 1e-14),
        floor=mel.floor,
        largest=MAX_STEP if factor == 1 else LOW_BAND_STEP,
    )

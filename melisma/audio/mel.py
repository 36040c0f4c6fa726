"""The mel contract and the log-mel spectrogram.

A mel spectrogram has a dozen settings, and a vocoder that is fed a mel with one of them changed gives noise or a robot
voice without any error. :class:`MelContract` holds them all; it travels with weights and exported graphs.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.audio.stft import odd_split, pad_signal, spectra
from melisma.constants import constant
from melisma.errors import MelismaError


@dataclass(frozen=True)
class MelContract:
    """Every fact that decides a log-mel's values.

    Attributes:
        sample_rate: Hz.
        n_fft: FFT length in samples.
        win_length: Hann window length in samples, at most ``n_fft``.
        hop_length: samples between frames.
        n_mels: number of mel bins.
        fmin: lowest edge of the filterbank, Hz.
        fmax: highest edge, Hz; ``None`` is half the sample rate.
        scale: mel scale, ``slaney`` (linear below 1 kHz) or ``htk``.
        norm: ``slaney`` (every filter has area one) or ``none`` (peak one).
        power: exponent of the magnitude before the filterbank, 1 or 2.
        log_base: ``e`` or ``10``.
        floor: smallest mel value before the logarithm.
        magnitude_epsilon: added under the root, ``sqrt(re^2 + im^2 + eps)``.
        padding: where the frames lie. ``same``: ``win - hop`` split left and right, the right side longer when odd;
            frame ``t`` is centred on ``(t + 1/2) * hop``, plus ``(n_fft - win) / 2`` where the window is shorter than
            the FFT (openvpi, DDSP-SVC). ``nvstft``: ``(n_fft - hop) / 2`` on both sides, rounded toward zero.
            ``centre``: ``n_fft // 2`` on both sides; frame ``t`` is centred on ``t * hop``. A hop longer than the
            window makes the padding negative: samples are cut.
        pad_mode: ``reflect`` or ``constant``; reflection that is impossible (short audio) falls back to zeros.
    """

    sample_rate: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    fmin: float
    fmax: float | None
    scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["slaney", "none"] = "slaney"
    power: float = 1.0
    log_base: Literal["e", "10"] = "e"
    floor: float = 1e-5
    magnitude_epsilon: float = 0.0
    padding: Literal["same", "nvstft", "centre"] = "same"
    pad_mode: Literal["reflect", "constant"] = "reflect"

    def __post_init__(self) -> None:
        if min(self.sample_rate, self.n_fft, self.win_length, self.hop_length, self.n_mels) < 1:
            raise MelismaError(f"a mel contract needs positive sizes: {self}")
        if self.win_length > self.n_fft:
            raise MelismaError(f"win_length {self.win_length} is longer than n_fft {self.n_fft}")
        if not 0 <= self.fmin < self.highest_hz:
            raise MelismaError(f"fmin {self.fmin} Hz must lie between 0 and fmax {self.highest_hz} Hz")

    @property
    def highest_hz(self) -> float:
        """The highest edge of the filterbank in Hz."""
        return self.sample_rate / 2 if self.fmax is None else self.fmax

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length

    @classmethod
    def nvstft(
        cls,
        sr: int,
        n_mels: int,
        n_fft: int,
        win_size: int,
        hop_length: int,
        fmin: float,
        fmax: float | None,
        clip_val: float = 1e-5,
    ) -> "MelContract":
        """The contract of the seed's ``nvSTFT`` (so-vits-svc, DDSP-SVC, RVC, jik876's HiFi-GAN, BigVGAN)."""
        return cls(
            sample_rate=sr,
            n_fft=n_fft,
            win_length=win_size,
            hop_length=hop_length,
            n_mels=n_mels,
            fmin=fmin,
            fmax=fmax,
            floor=clip_val,
            magnitude_epsilon=1e-9,
            padding="nvstft",
        )

    def difference(self, other: "MelContract") -> list[str]:
        """Name the fields that differ, as ``field: mine != theirs``; an empty list means the same mel."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        mine["fmax"], theirs["fmax"] = self.highest_hz, other.highest_hz
        if self.pad_amounts(self.n_fft) == other.pad_amounts(other.n_fft):
            del mine["padding"]  # two names for the same frames
        return [f"{name}: {mine[name]} != {theirs[name]}" for name in mine if mine[name] != theirs[name]]

    def frames(self, samples: int) -> int:
        """Number of frames of a clip of that many samples, at least 1."""
        left, right = self.pad_amounts(samples)
        return (samples + left + right - self.n_fft) // self.hop_length + 1

    def pad_amounts(self, samples: int) -> tuple[int, int]:
        """Samples of padding left and right of a clip of ``samples`` samples: enough for one frame, negative to cut."""
        if self.padding == "centre":
            left = right = self.n_fft // 2
        elif self.padding == "same":
            left, right = odd_split(self.win_length - self.hop_length)
        else:
            left = right = int((self.n_fft - self.hop_length) / 2)
        left = max(left, 1 - samples)
        return left, max(right, self.n_fft - samples - left)


# The contract of the openvpi vocoders, which DiffSinger, OpenUtau, DDSP-SVC and melisma-44k share.
OPENVPI_44K = MelContract(
    sample_rate=44100, n_fft=2048, win_length=2048, hop_length=512, n_mels=128, fmin=40.0, fmax=16000.0
)


def hz_to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    """Frequency to mel, ``slaney`` (Auditory Toolbox: linear to 1 kHz, then log) or ``htk``."""
    hz = np.asarray(hz, dtype=np.float64)
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    linear = 3.0 * hz / 200.0
    return np.where(hz < 1000.0, linear, 15.0 + 27.0 * np.log(np.maximum(hz, 1e-9) / 1000.0) / math.log(6.4))


def mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    """Inverse of :func:`hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return np.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * np.exp(math.log(6.4) / 27.0 * (mel - 15.0)))


@lru_cache(maxsize=32)
def mel_filterbank(mel: MelContract) -> np.ndarray:
    """Triangular filters ``(n_mels, n_fft // 2 + 1)``, float32, equal to ``librosa.filters.mel``."""
    bins = np.fft.rfftfreq(mel.n_fft, 1.0 / mel.sample_rate)
    lowest, highest = hz_to_mel(np.array([mel.fmin, mel.highest_hz]), mel.scale)
    edges = mel_to_hz(np.linspace(lowest, highest, mel.n_mels + 2), mel.scale)
    slopes = edges[:, None] - bins[None, :]
    widths = np.diff(edges)
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    weights = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    if mel.norm == "slaney":
        weights *= (2.0 / (edges[2:] - edges[:-2]))[:, None]  # after the rounding to float32, as librosa has it
    weights.setflags(write=False)
    return weights


@constant(32)
def _filterbank_on(mel: MelContract, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(mel_filterbank(mel), device=device, dtype=dtype)


def filterbank(mel: MelContract, like: Tensor) -> Tensor:
    """:func:`mel_filterbank` as a tensor on the device and in the type of ``like``."""
    return _filterbank_on(mel, like.device, like.dtype)


def compress(mel_values: Tensor, mel: MelContract) -> Tensor:
    """Dynamic range compression: logarithm of the floored mel."""
    floored = mel_values.clamp(min=mel.floor)
    return floored.log() if mel.log_base == "e" else floored.log10()


def decompress(log_mel_values: Tensor, mel: MelContract) -> Tensor:
    """Inverse of :func:`compress` above the floor."""
    return log_mel_values.exp() if mel.log_base == "e" else torch.pow(10.0, log_mel_values)


def log_mel(audio: Tensor | np.ndarray, mel: MelContract, keyshift: float = 0, speed: float = 1.0) -> Tensor:
    """Log-mel spectrogram under a contract.

    Args:
        audio: ``(samples,)`` or ``(batch, samples)``, nominally in [-1, 1].
        mel: the contract.
        keyshift: semitones by which the spectrum is moved: the analysis window is ``2 ** (keyshift / 12)`` times
            as long, its bins are read as if it were not (so-vits-svc, ``nsf_hifigan/nvSTFT``). The frame rate stays.
        speed: the hop is that many times as long, so that the frames play ``speed`` times as fast.

    Returns:
        ``(batch, n_mels, frames)`` (batch 1 for a single clip).
    """
    if isinstance(audio, np.ndarray) and (not audio.flags.writeable or min(audio.strides, default=0) < 0):
        audio = audio.copy()  # torch takes neither
    samples = torch.as_tensor(audio)
    if not samples.is_floating_point():
        samples = samples.float()
    if samples.ndim == 1:
        samples = samples.unsqueeze(0)
    if samples.ndim != 2 or samples.shape[-1] == 0:
        raise MelismaError(f"log_mel needs audio of shape (samples,) or (batch, samples), not {tuple(samples.shape)}")
    if keyshift == 0 and speed == 1.0:
        return compress(mel_spectrum(magnitudes(samples, mel), mel), mel).transpose(1, 2)
    if round(mel.hop_length * speed) < 1:
        raise MelismaError(f"speed {speed} leaves no hop of {mel.hop_length} samples; give a speed above 0, say 0.5")
    factor = 2.0 ** (keyshift / 12)
    analysis = dataclasses.replace(
        mel,
        n_fft=round(mel.n_fft * factor),
        win_length=round(mel.win_length * factor),
        hop_length=round(mel.hop_length * speed),
        padding="centre" if mel.padding == "centre" else "same",
    )
    magnitude = magnitudes(samples, analysis)
    if keyshift != 0:
        bins = mel.n_fft // 2 + 1
        magnitude = F.pad(magnitude, (0, max(0, bins - magnitude.shape[-1])))[..., :bins]
        magnitude = magnitude * (mel.win_length / analysis.win_length) ** mel.power
    return compress(mel_spectrum(magnitude, mel), mel).transpose(1, 2)


def magnitudes(audio: Tensor, mel: MelContract) -> Tensor:
    """STFT magnitude, to the contract's power: ``(batch, samples)`` -> ``(batch, frames, n_fft // 2 + 1)``."""
    padded = pad_signal(audio, *mel.pad_amounts(audio.shape[-1]), mode=mel.pad_mode)
    spectrum = spectra(padded, mel.n_fft, mel.hop_length, mel.win_length)
    energy = spectrum.real.square() + spectrum.imag.square()
    if mel.magnitude_epsilon > 0:
        energy = energy + mel.magnitude_epsilon
    if mel.power == 2.0:
        return energy
    if mel.magnitude_epsilon == 0 and energy.requires_grad:
        energy = energy.clamp(min=1e-18)  # the root has no gradient at zero
    return energy.sqrt() if mel.power == 1.0 else energy.pow(mel.power / 2)


def mel_spectrum(magnitude: Tensor, mel: MelContract) -> Tensor:
    """Apply the filterbank: ``(batch, frames, bins)`` -> ``(batch, frames, n_mels)``."""
    return magnitude @ filterbank(mel, magnitude).T


def convert_log_mel(values: Tensor, source: MelContract, target: MelContract) -> Tensor:
    """Convert a log-mel from one contract to another where nothing is lost.

    The base of the logarithm is converted and a higher floor is applied. Every other difference is an error: such a mel
    would load and sound wrong.

    Args:
        values: log-mel of any shape under ``source``.
        source: the contract that made it.
        target: the contract that is wanted.

    Raises:
        MelismaError: the contracts differ in more; the line names the fields.
    """
    same = dataclasses.replace(source, log_base=target.log_base, floor=max(source.floor, target.floor))
    differing = same.difference(target)
    if differing:
        raise MelismaError(
            f"this mel cannot be converted without loss: {'; '.join(differing)}; "
            "compute it again from the audio under the wanted contract"
        )
    if source.log_base != target.log_base:
        values = values * (math.log(10.0) if target.log_base == "e" else 1.0 / math.log(10.0))
    return values.clamp(min=math.log(target.floor) if target.log_base == "e" else math.log10(target.floor))

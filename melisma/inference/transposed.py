"""A recording that is sung at another pitch or tempo as it is read; see :mod:`melisma.audio.transpose` and
:mod:`melisma.audio.formant_filter`."""

import math

import numpy as np
import torch
from torch import Tensor

from melisma.audio.f0_curve import interpolate_unvoiced
from melisma.audio.formant_filter import envelope, formant_gains, level_gains, missed_in_mel, no_louder, steady
from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import spread_to_bins
from melisma.audio.stft import hann, overlap_add
from melisma.audio.transpose import MARGIN, PhaseCurve, Warp, frame_ratios, samples_a_sample
from melisma.inference.recording import Recording, log_mel_of_frames

# Frames of the warp: long enough for two periods of a low voice, short enough for consonants.
WINDOW_SECONDS = 0.023
# Of the frames in which formants are put right, a hop of the mel apart.
_OVERLAPS = 4


class Transposed:
    """Samples of a recording at another pitch or tempo, formants kept; unvoiced frames are the recording's own.

    Args:
        mel: the contract: sample rate, hop of the F0 curves, and the mel that envelopes are read from.
        f0_hz: F0 of the recording, ``(input frames,)`` Hz, 0 where unvoiced.
        target_f0_hz: F0 of the result, ``(frames,)`` Hz; both with at least one voiced frame.
        speed: 2 is twice as fast.
    """

    def __init__(self, mel: MelContract, f0_hz: np.ndarray, target_f0_hz: np.ndarray, speed: float = 1.0) -> None:
        self.mel, self.speed = mel, speed
        self.frames = len(target_f0_hz)
        middles = (np.arange(self.frames) + 0.5) * speed - 0.5
        nearest = np.rint(middles).astype(np.int64).clip(0, len(f0_hz) - 1)
        self.ratios = frame_ratios(f0_hz[nearest], target_f0_hz)
        self.heard_hz = interpolate_unvoiced(f0_hz)[nearest]
        self._here = PhaseCurve(f0_hz, mel.sample_rate, mel.hop_length)
        self._target = PhaseCurve(target_f0_hz, mel.sample_rate, mel.hop_length)
        self.n_fft = 2 ** round(math.log2(max(2 * mel.hop_length, WINDOW_SECONDS * mel.sample_rate)))
        self.hop = self.n_fft // 4

    @property
    def changes(self) -> bool:
        """Whether any frame is moved."""
        return bool((np.abs(self.ratios[self.ratios > 0] - 1.0) > 1e-5).any())

    @property
    def context(self) -> int:
        """Samples of the recording beside what is read, at most, that a read depends on."""
        period = self.mel.sample_rate / float(self.heard_hz.min())
        # Of the result: frames that are put right, with a window of a mel; half a window of a level; frames of the warp
        # that overlap, and one more; and half a window of a mel.
        put_right = (_OVERLAPS + 1) * self.mel.hop_length + self.mel.n_fft
        beside = (put_right + 2 * self.n_fft + self.hop + self.mel.n_fft) * max(1.0, self.speed)
        return math.ceil(beside + period + MARGIN + self.n_fft * max(1.0, float(self.ratios.max())))

    def read(self, recording: Recording, start: int, stop: int) -> Tensor:
        """``(channels, stop - start)`` samples of the result, from a recording that holds what they depend on."""
        hop, size = self.mel.hop_length, _OVERLAPS * self.mel.hop_length
        centres = _centres(start - size // 2, stop + size // 2, hop)
        ratios = self.ratios[self._frames_at(centres)]
        if not (ratios > 0).any():
            return self._filtered(recording, start, stop)
        reach = max(size, self.mel.n_fft) // 2
        begin, end = math.floor(centres[0]) - reach, math.ceil(centres[-1]) + reach
        moved = self._filtered(recording, begin, end)

        def windows(length: int) -> Tensor:
            first = math.floor(centres[0]) - begin - length // 2
            return moved[:, first:].unfold(1, length, hop)[:, : len(centres)]

        gains = self._put_right(recording, centres, windows(self.mel.n_fft)) * torch.from_numpy(ratios > 0)[:, None]
        frames, window = windows(size), hann(size, moved)
        spectrum = torch.fft.rfft(frames * window) * spread_to_bins(gains, self.mel, size).exp()
        weight = overlap_add(window.square().expand(1, len(centres), size), hop).clamp(min=1e-3)
        joined = overlap_add(torch.fft.irfft(spectrum, n=size) * window, hop) / weight
        skipped = start - (math.floor(centres[0]) - size // 2)
        return joined[:, skipped : skipped + stop - start]

    def _put_right(self, recording: Recording, centres: np.ndarray, windows: Tensor) -> Tensor:
        """Gains ``(channels, frames, n_mels)`` in nepers: what the mel of the result lacks to the recording's."""
        frames, n_fft = self._frames_at(centres), self.mel.n_fft
        middles = np.rint(centres * self.speed).astype(np.int64)
        own = torch.from_numpy(recording.take(middles[:, None] + np.arange(n_fft) - n_fft // 2))
        wanted, found = log_mel_of_frames(own, self.mel), log_mel_of_frames(windows, self.mel)
        width_hz = torch.from_numpy((self.heard_hz[frames] * self.ratios[frames].clip(min=1.0)).astype(np.float32))
        return missed_in_mel(wanted, found, width_hz, self.mel)

    def _filtered(self, recording: Recording, start: int, stop: int) -> Tensor:
        """``(channels, stop - start)`` samples, their formants where windows of the warp show them."""
        n_fft, hop = self.n_fft, self.hop
        begin, end = start - n_fft // 2, stop + n_fft // 2  # a level is that of a window
        lead = n_fft - hop
        first, last = (begin - lead) // hop - 1, -(-(end + lead) // hop) + 1  # one more to steady gains with
        centres = (np.arange(first, last) + 0.5) * hop
        middles = np.rint(centres * self.speed)
        places = middles.astype(np.int64)[:, None] + np.arange(n_fft) - n_fft // 2
        frames = torch.from_numpy(recording.take(places))
        window = hann(n_fft, frames)
        weight = overlap_add(window.square().expand(1, len(centres), n_fft), hop).clamp(min=1e-3)
        skipped = begin - (first * hop + hop // 2 - n_fft // 2)

        def joined(parts: Tensor) -> Tensor:
            return (overlap_add(parts * window, hop) / weight)[:, skipped : skipped + end - begin]

        plain = joined(frames * window)
        ratios = self.ratios[self._frames_at(centres)]
        if (ratios > 0).any():
            spectrum = self._moved(recording, centres, middles, ratios, torch.fft.rfft(frames * window))
            plain = no_louder(joined(torch.fft.irfft(spectrum, n=n_fft)), plain, window)
        return plain[:, n_fft // 2 : n_fft // 2 + stop - start]

    def _moved(
        self, recording: Recording, centres: np.ndarray, middles: np.ndarray, ratios: np.ndarray, plain: Tensor
    ) -> Tensor:
        """Spectra ``(channels, frames, n_fft // 2 + 1)`` at the new pitch, with the envelope of the plain ones.

        Both envelopes are of the same frame in the same window and equally smooth, so what the way there takes the way
        back gives.
        """
        moves = ratios > 0
        fineness = np.array([samples_a_sample(ratio, self.mel) if ratio > 0 else 0 for ratio in ratios])
        moved = plain.clone()
        for fine in np.unique(fineness[moves]):
            these = np.flatnonzero(fineness == fine)
            warped = self._warp(centres[these], middles[these], int(fine)).read(recording.take)
            moved[:, these] = self._spectra(warped, int(fine))
        frames = self._frames_at(centres[moves])
        factors = torch.from_numpy(ratios[moves].astype(np.float32))
        width_hz = torch.from_numpy(self.heard_hz[frames].astype(np.float32)) * factors.clamp(min=1.0)
        before, after = plain[:, moves], moved[:, moves]
        power, found = (part.real.square() + part.imag.square() for part in (before, after))
        wanted = envelope(power, width_hz, self.mel.sample_rate) - envelope(found, width_hz, self.mel.sample_rate)
        on_moved, on_own = formant_gains(steady(wanted, moves), factors)
        level = steady(level_gains(wanted, power, found), moves).exp()
        moved[:, moves] = after * on_moved * level + before * on_own
        return moved

    def _frames_at(self, centres: np.ndarray) -> np.ndarray:
        """Frames of the F0 curve at positions in the result, samples."""
        return np.floor(centres / self.mel.hop_length).astype(np.int64).clip(0, self.frames - 1)

    def _warp(self, centres: np.ndarray, middles: np.ndarray, fine: int) -> Warp:
        """Where in the recording the samples of frames of the result are."""
        periods = np.round(self._here.at(middles) - self._target.at(centres))
        return Warp(self._target, self._here, centres, periods, fine, fine * self.n_fft)

    def _spectra(self, frames: np.ndarray, fine: int) -> Tensor:
        """Spectra ``(channels, frames, n_fft // 2 + 1)`` of frames that were read ``fine`` values a sample."""
        read = torch.from_numpy(frames)
        return torch.fft.rfft(read * hann(fine * self.n_fft, read))[..., : self.n_fft // 2 + 1] / fine


def _centres(start: int, stop: int, hop: int) -> np.ndarray:
    """Middles of the frames, a hop apart, that reach into samples ``start`` to ``stop`` with theirs."""
    return (np.arange(math.floor(start / hop - 0.5), math.ceil(stop / hop - 0.5) + 1) + 0.5) * hop

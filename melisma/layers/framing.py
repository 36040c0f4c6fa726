"""Transforms over time that are no convolutions, for the whole and chunk by chunk (:mod:`melisma.layers.streaming`)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from melisma.audio.stft import hann, overlap_add, spectra
from melisma.kernels import excitation
from melisma.layers.streaming import Memory
from melisma.pulse import next_pulses, pulse_train


class Framing:
    """Hann-windowed spectra of a signal that is padded with zeros.

    Args:
        n_fft: FFT length.
        hop_length: samples between frames.
        padding: zeros left and right.
        win_length: window length where it is shorter than the FFT.
    """

    def __init__(self, n_fft: int, hop_length: int, padding: tuple[int, int], win_length: int | None = None) -> None:
        self.n_fft, self.hop_length, self.padding, self.win_length = n_fft, hop_length, padding, win_length

    def __call__(self, signal: Tensor, most: int | None = None) -> Tensor:
        """``(batch, samples)`` -> complex ``(batch, frames, n_fft // 2 + 1)``."""
        return spectra(F.pad(signal, self.padding), self.n_fft, self.hop_length, self.win_length)

    def step(self, signal: Tensor, memory: Memory, most: int | None = None) -> Tensor:
        """The next chunk; ``most``: frames that are wanted now, the others wait."""
        windows = memory.windows(signal, self.n_fft, self.hop_length, *self.padding, most=most)
        if windows.shape[-1] == 0:
            return torch.zeros(signal.shape[0], 0, self.n_fft // 2 + 1, dtype=torch.complex64, device=signal.device)
        return spectra(windows, self.n_fft, self.hop_length, self.win_length)


class Unframing:
    """Back from spectra of frames centred as :class:`Framing` with equal zeros on both sides centres them.

    Args:
        n_fft: FFT length, a multiple of four hops.
        hop_length: samples between frames.
    """

    def __init__(self, n_fft: int, hop_length: int) -> None:
        self.n_fft, self.hop_length = n_fft, hop_length
        self.left = (n_fft - hop_length) // 2

    def __call__(self, spectrum: Tensor) -> Tensor:
        """Complex ``(batch, frames, n_fft // 2 + 1)`` -> ``(batch, frames * hop_length)``."""
        total = overlap_add(self._frames(spectrum), self.hop_length)
        return total[:, self.left : self.left + spectrum.shape[1] * self.hop_length]

    def step(self, spectrum: Tensor, memory: Memory) -> Tensor:
        """The next chunk."""
        kept = memory.recall("overlap")
        if spectrum.shape[1]:
            total = overlap_add(self._frames(spectrum), self.hop_length)
            if kept is not None:
                total[:, : kept.shape[1]] += kept
        else:
            total = spectrum.real.new_zeros(spectrum.shape[0], 0) if kept is None else kept
        ready = spectrum.shape[1] * self.hop_length
        memory.keep("overlap", total[:, ready:])
        out = total[:, : ready + (self.left if memory.last else 0)]
        drop = min(self.left - memory.count("dropped"), out.shape[1])
        memory.count("dropped", drop)
        return out[:, drop:]

    def _frames(self, spectrum: Tensor) -> Tensor:
        window = hann(self.n_fft, spectrum.real)
        return torch.fft.irfft(spectrum) * window * (8 * self.hop_length / (3 * self.n_fft))


class Delay:
    """Frames that come ``frames`` late; ``value`` stands for those before the first.

    What hangs over at the end is dropped by the forward; a step gives it too, and who reads it leaves it.
    """

    def __init__(self, frames: int, value: float) -> None:
        self.frames, self.value = frames, value

    def __call__(self, values: Tensor) -> Tensor:
        """``(batch, frames, rows)`` -> the same shape."""
        return F.pad(values, (0, 0, self.frames, 0), value=self.value)[:, : values.shape[1]]

    def step(self, values: Tensor, memory: Memory) -> Tensor:
        """The next chunk."""
        if memory.count("begun", 1) > 0:
            return values
        return F.pad(values, (0, 0, self.frames, 0), value=self.value)


class MovingAverage:
    """Moving average over time, at the ends over what is there.

    Args:
        width: of the average, odd.
        causal: over the past instead of both sides.
    """

    def __init__(self, width: int, causal: bool = False) -> None:
        self.width = width
        self.left, self.right = (width - 1, 0) if causal else (width // 2, width // 2)

    def __call__(self, values: Tensor) -> Tensor:
        """``(batch, rows, time)`` -> the same shape."""
        if self.right == self.left:
            return F.avg_pool1d(values, self.width, stride=1, padding=self.left, count_include_pad=False)
        return self._average(F.pad(_counted(values), (self.left, self.right)))

    def step(self, values: Tensor, memory: Memory) -> Tensor:
        """The next chunk."""
        windows = memory.windows(_counted(values), self.width, 1, self.left, self.right)
        return self._average(windows) if windows.shape[-1] else values[..., :0]

    def _average(self, windows: Tensor) -> Tensor:
        means = F.avg_pool1d(windows, self.width, stride=1)
        return means[:, :-1] / means[:, -1:]


class Neighbours:
    """Frames that take a share of both of their neighbours; at the ends a frame is its own neighbour.

    Args:
        share: that a frame takes of each neighbour, 0 to 0.5.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, values: Tensor, where: Tensor) -> Tensor:
        """``(batch, frames, rows)`` -> the same shape; ``where``: in which frames, ``(batch, frames)`` in [0, 1]."""
        return self._averaged(torch.cat([values[:, :1], values, values[:, -1:]], dim=1), where)

    def step(self, values: Tensor, memory: Memory, where: Tensor) -> Tensor:
        """The next chunk; a frame comes when its next one is there."""
        windows = memory.windows(values.transpose(1, 2), 3, 1, 1, 1, mode="replicate").transpose(1, 2)
        (where,) = memory.first("where", max(0, windows.shape[1] - 2), where, axis=1)
        return self._averaged(windows, where) if windows.shape[1] else values[:, :0]

    def _averaged(self, held: Tensor, where: Tensor) -> Tensor:
        before, here, after = held[:, :-2], held[:, 1:-1], held[:, 2:]
        return here + self.share * where.unsqueeze(-1) * (before + after - 2.0 * here)


class Subframes:
    """Values of frames read at several points a frame, on straight lines between the frames' centres.

    All points of a frame are made alike, so that nothing can repeat with the frame: a layer that made each with weights
    of its own would learn to alternate between them, and its sound would buzz at the frame rate.

    Args:
        count: points a frame, evenly spaced.
        causal: a frame's last point is its own value and nothing looks ahead, at the cost of up to half a frame.
    """

    def __init__(self, count: int, causal: bool = False) -> None:
        self.count, self.causal = count, causal
        # Where the points lie, in frames from the centre of theirs.
        self.offsets = [(n + 1) / count - 1.0 if causal else (n + 0.5) / count - 0.5 for n in range(count)]

    def __call__(self, values: Tensor) -> Tensor:
        """``(batch, frames, rows)`` -> ``(batch, frames * count, rows)``."""
        right = [] if self.causal else [values[:, -1:]]
        return self._read(torch.cat([values[:, :1], values, *right], dim=1))

    def step(self, values: Tensor, memory: Memory) -> Tensor:
        """The next chunk."""
        windows = memory.windows(
            values.transpose(1, 2), 2 if self.causal else 3, 1, 1, 0 if self.causal else 1, mode="replicate"
        )
        return self._read(windows.transpose(1, 2)) if windows.shape[-1] else values[:, :0]

    def _read(self, held: Tensor) -> Tensor:
        frames = held.shape[1] - (1 if self.causal else 2)
        before, here = held[:, :frames], held[:, 1 : frames + 1]
        after = here if self.causal else held[:, 2:]
        points = [torch.lerp(here, before if by < 0 else after, abs(by)) for by in self.offsets]
        return torch.stack(points, dim=2).flatten(1, 2)


def _counted(values: Tensor) -> Tensor:
    return torch.cat([values, torch.ones_like(values[:, :1])], dim=1)


class Hold:
    """An F0 curve whose notes go on for some frames before their beginning and after their end, at the pitch there.

    Between two notes every frame takes the pitch of the nearer one, the earlier one where both are as near.

    Args:
        frames: for how many.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __call__(self, f0_hz: Tensor) -> Tensor:
        """``(batch, frames)`` in Hz, 0 where unvoiced -> the same shape."""
        if self.frames == 0:
            return f0_hz
        held = excitation.held(f0_hz, self.frames)
        return self._held(F.pad(f0_hz, (self.frames, self.frames)), f0_hz.shape[1]) if held is None else held

    def step(self, f0_hz: Tensor, memory: Memory) -> Tensor:
        """The next chunk."""
        padded = memory.windows(f0_hz, 2 * self.frames + 1, 1, self.frames, self.frames)
        return self._held(padded, padded.shape[1] - 2 * self.frames) if padded.shape[1] else padded

    def _held(self, padded: Tensor, count: int) -> Tensor:
        held = padded[:, self.frames : self.frames + count]
        for away in range(1, self.frames + 1):
            before, behind = (padded[:, first : first + count] for first in (self.frames - away, self.frames + away))
            held = torch.where(held > 0, held, torch.where(before > 0, before, behind))
        return held


class PulseTrain:
    """:func:`melisma.pulse.pulse_train` for the whole and chunk by chunk.

    Args:
        sample_rate: Hz.
        hop_length: samples a frame, even.
    """

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        self.sample_rate, self.hop_length = sample_rate, hop_length

    def __call__(self, f0_hz: Tensor, initial_phase: Tensor | None) -> Tensor:
        """``(batch, frames)`` in Hz, 0 where unvoiced -> ``(batch, frames * hop_length)``."""
        return pulse_train(f0_hz, self.sample_rate, self.hop_length, initial_phase)

    def step(self, f0_hz: Tensor, memory: Memory, initial_phase: Tensor | None) -> Tensor:
        """The next chunk: to the centre of its last frame; ``initial_phase`` counts in the first chunk only."""
        edges = memory.windows(f0_hz.unsqueeze(1), 2, 1, 1, 1, mode="replicate").squeeze(1)
        if edges.shape[1] == 0:
            return f0_hz.new_zeros(f0_hz.shape[0], 0)
        phase = memory.recall("phase")
        begins = phase is None
        if phase is None:
            start = 0.0 if initial_phase is None else initial_phase.double()
            phase = f0_hz.new_zeros(f0_hz.shape[0], 1, dtype=torch.float64) + start
        train, phase = next_pulses(edges, phase, self.sample_rate, self.hop_length)
        memory.keep("phase", phase)
        half = self.hop_length // 2
        return train[:, half if begins else 0 : train.shape[1] - (half if memory.last else 0)]

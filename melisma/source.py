"""The excitation that carries the pitch: sines and noise made from F0 (hn-NSF, Wang et al. 2019).

The public decoders write the same signal in several ways; here it is written once, over :mod:`melisma.phase`.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma import phase as phases
from melisma.errors import MelismaError
from melisma.kernels import LANES
from melisma.kernels import excitation as kernel
from melisma.phase import fraction

_STRETCH = 1 << 20  # samples of a long clip that are in work at a time
_SINGLE_PRECISION_CYCLES = 4096  # so many cycles in single precision are exact to 2.5e-4 of one


@dataclass(frozen=True)
class Randomness:
    """Everything about one forward that is drawn or remembered; a field that is ``None`` is drawn inside.

    Attributes:
        initial_phase: cycles, ``(batch, harmonics)``. The fundamental's is not used: it starts at ``start_phase``.
        noise: standard normal (or :mod:`~melisma.even_noise`, as a model asks), ``(batch, samples, harmonics)``.
        feature_noise: standard normal, ``(batch, channels, frames)``, where a model adds noise to its features.
        start_phase: cycles of the fundamental that were sung before the first sample, ``(batch,)``; ``None`` is zero.
            A piece of a longer curve continues its phase with it.
    """

    initial_phase: Tensor | None = None
    noise: Tensor | None = None
    feature_noise: Tensor | None = None
    start_phase: Tensor | None = None


def _check_f0(f0_hz: Tensor, length: str) -> None:
    if f0_hz.ndim != 2:
        raise MelismaError(f"F0 must have the shape (batch, {length}), not {tuple(f0_hz.shape)}; values are in Hz")


class SineSource(nn.Module):
    """Sines at the harmonics of F0 where it is voiced, noise where it is not (the community's ``SineGen``).

    Args:
        sample_rate: Hz.
        overtones: harmonics above the fundamental.
        amplitude: peak of each sine; noise in unvoiced samples has a third of it as its standard deviation.
        noise_std: standard deviation of the noise in voiced samples.
        voiced_threshold: Hz; F0 above it is voiced.
        pulse: cosines whose phase starts anew in every voiced segment: their sum is a pulse train.
    """

    def __init__(
        self,
        sample_rate: float,
        overtones: int = 8,
        amplitude: float = 0.1,
        noise_std: float = 0.003,
        voiced_threshold: float = 0.0,
        pulse: bool = False,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.harmonics = overtones + 1
        self.amplitude = amplitude
        self.noise_std = noise_std
        self.voiced_threshold = voiced_threshold
        self.pulse = pulse

    @torch.no_grad()
    def forward(self, f0_hz: Tensor, randomness: Randomness | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Make the source of an F0 curve at the sample rate.

        Args:
            f0_hz: ``(batch, samples)``, Hz, 0 where unvoiced.
            randomness: initial phase and noise; drawn where missing.

        Returns:
            sines with noise ``(batch, samples, overtones + 1)``, voiced ``(batch, samples, 1)`` as 0 or 1, and the
            noise alone, all float32.

        Raises:
            MelismaError: ``f0_hz`` or a draw has another shape.
        """
        _check_f0(f0_hz, "samples")
        randomness = randomness or Randomness()
        offset = self._offset(randomness, f0_hz)
        if randomness.start_phase is None and self._is_short(f0_hz):
            waves = self._waves(self._single_precision_cycles(f0_hz, offset))
        else:
            waves = self._long_waves(f0_hz, offset)
        return self._mix(waves, f0_hz, randomness)

    @torch.no_grad()
    def held(
        self, f0_hz: Tensor, hop_length: int, randomness: Randomness | None = None, framed: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same from an F0 at the frame rate, ``(batch, frames)``, held through each frame's samples.

        Sine mode only, and without a branch on values, so that it can be exported. ``framed`` chooses whose rounding is
        followed where ``start_phase`` is missing: openvpi's (true) or that of so-vits-svc and RVC.
        """
        _check_f0(f0_hz, "frames")
        randomness = randomness or Randomness()
        offset = self._offset(randomness, f0_hz)
        if randomness.start_phase is not None:
            cycles = self._harmonic_cycles(phases.held(f0_hz, self.sample_rate, hop_length), offset)
        elif framed:
            phase = phases.held_framed(f0_hz, self.sample_rate, hop_length)
            cycles = phase.unsqueeze(-1) * self._numbers(f0_hz).float() + offset.float()
        else:
            cycles = fraction(phases.held_summed(f0_hz, self.sample_rate, hop_length, self.harmonics) + offset)
        return self._mix(self._waves(cycles), f0_hz.repeat_interleave(hop_length, dim=1), randomness)

    def _numbers(self, like: Tensor) -> Tensor:
        return torch.arange(1, self.harmonics + 1, device=like.device, dtype=torch.float64)

    def _offset(self, randomness: Randomness, like: Tensor) -> Tensor:
        """Phase of each harmonic before the first sample, float64 ``(batch or 1, 1, harmonics)``, in cycles."""
        drawn = randomness.initial_phase
        batch = like.shape[0]
        if drawn is None:
            drawn = torch.rand(batch, self.harmonics, device=like.device)
        if drawn.shape[-1] != self.harmonics or drawn.numel() not in (self.harmonics, batch * self.harmonics):
            raise MelismaError(f"initial_phase must be (batch, {self.harmonics}), not {tuple(drawn.shape)}")
        numbers = self._numbers(like)
        # Only overtones start anywhere: the decoders were trained with a fundamental that starts at zero.
        offset = drawn.to(like.device).reshape(-1, 1, self.harmonics).double() * (numbers > 1)
        if randomness.start_phase is not None:
            offset = offset + randomness.start_phase.to(like.device).double().reshape(-1, 1, 1) * numbers
        return offset

    def _harmonic_cycles(self, phase: Tensor, offset: Tensor) -> Tensor:
        return fraction(phase.unsqueeze(-1) * self._numbers(phase) + offset).float()

    def _waves(self, cycles: Tensor) -> Tensor:
        angle = cycles.float() * 2 * math.pi
        return angle.cos() if self.pulse else angle.sin()

    def _noise_level(self, voiced: Tensor) -> Tensor:
        return voiced * self.noise_std + (1 - voiced) * (self.amplitude / 3)

    def _mix(self, waves: Tensor, f0_hz: Tensor, randomness: Randomness) -> tuple[Tensor, Tensor, Tensor]:
        """Sines in voiced samples, noise everywhere."""
        voiced = (f0_hz > self.voiced_threshold).to(waves.dtype).unsqueeze(-1)
        if randomness.noise is None:
            drawn = torch.randn_like(waves)
        else:
            drawn = randomness.noise.to(waves)
        if drawn.shape[-2:] != waves.shape[-2:]:
            raise MelismaError(f"noise must be {tuple(waves.shape)}, not {tuple(drawn.shape)}")
        noise = drawn * self._noise_level(voiced)
        return waves * self.amplitude * voiced + noise, voiced, noise

    def _is_short(self, f0_hz: Tensor) -> bool:
        """Whether no harmonic makes so many cycles that single precision would lose 1e-3 of one."""
        most = float(f0_hz.sum(dim=1, dtype=torch.float64).max()) if f0_hz.numel() else 0.0
        return most * self.harmonics / self.sample_rate < _SINGLE_PRECISION_CYCLES

    def _single_precision_cycles(self, f0_hz: Tensor, offset: Tensor) -> Tensor:
        """Cycles ``(batch, samples, harmonics)`` of a short clip, rounded where the reference rounds.

        The public ``SineGen`` adds up increments that were rounded to single precision. That is heard by nobody, but
        it is more than the tolerance to which its output is to be reproduced.
        """
        steps = (f0_hz.float().unsqueeze(-1) * self._numbers(f0_hz).float() / self.sample_rate) % 1
        first = (steps[:, :1].double() + offset).float()
        steps = torch.cat([first, steps[:, 1:]], dim=1)
        if not self.pulse:
            exact = steps.double()
            ends = exact.cumsum(dim=1).floor().diff(dim=1, prepend=torch.zeros_like(exact[:, :1]))
            # At the end of a cycle it subtracts one from the increment, which rounds it again.
            return fraction((exact + ends * ((steps - 1.0).double() - (exact - 1.0))).cumsum(dim=1))
        last_unvoiced, anchor = _anchors(f0_hz > self.voiced_threshold)
        total = steps.cumsum(dim=1)
        previous = F.pad(anchor[:, :-1], (1, 0), value=-1)
        jump = (total - _at(total, previous)) * last_unvoiced.unsqueeze(-1)
        return (steps - jump).cumsum(dim=1)

    def _long_waves(self, f0_hz: Tensor, offset: Tensor) -> Tensor:
        """Waves ``(batch, samples, harmonics)`` of a clip of any length, exact, a stretch at a time."""
        if self.pulse:
            phase = phases.accumulated(f0_hz, self.sample_rate)
            _, anchor = _anchors(f0_hz > self.voiced_threshold)
            phase = phase - _at(phase.unsqueeze(-1), anchor).squeeze(-1)
            return self._waves(self._harmonic_cycles(phase, offset * (anchor < 0).unsqueeze(-1)))
        waves = f0_hz.new_empty(*f0_hz.shape, self.harmonics, dtype=torch.float32)
        sung = f0_hz.new_zeros(f0_hz.shape[0], 1, dtype=torch.float64)
        for begin in range(0, f0_hz.shape[1], _STRETCH):
            phase = phases.accumulated(f0_hz[:, begin : begin + _STRETCH], self.sample_rate) + sung
            waves[:, begin : begin + _STRETCH] = self._waves(self._harmonic_cycles(phase, offset))
            sung = fraction(phase[:, -1:])
        return waves


def _anchors(voiced: Tensor) -> tuple[Tensor, Tensor]:
    """Where pulses start anew: the last unvoiced sample before each voiced stretch, and before the end of the clip.

    Returns:
        bool ``(batch, samples)``, and for every sample the position of the last such sample so far or -1.
    """
    chosen = ~voiced & F.pad(voiced[:, 1:], (0, 1), value=True)
    position = torch.arange(voiced.shape[1], device=voiced.device).expand_as(voiced)
    return chosen, torch.where(chosen, position, -1).cummax(dim=1).values


def _at(values: Tensor, position: Tensor) -> Tensor:
    """``values[batch, position]`` of ``(batch, samples, harmonics)``; zero where the position is -1."""
    index = position.clamp(min=0).unsqueeze(-1).expand_as(values)
    return values.gather(1, index) * (position >= 0).unsqueeze(-1)


class HarmonicSource(nn.Module):
    """Sine source whose harmonics are merged into one excitation (the community's ``SourceModuleHnNSF``).

    Args:
        sample_rate: Hz.
        hop_length: samples a frame.
        overtones: harmonics above the fundamental.
        framed: see :meth:`SineSource.held`.
    """

    def __init__(self, sample_rate: float, hop_length: int, overtones: int = 8, framed: bool = False) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.framed = framed
        self.sines = SineSource(sample_rate, overtones)
        self.merge = nn.Linear(overtones + 1, 1)

    def forward(self, f0_hz: Tensor, randomness: Randomness | None = None) -> Tensor:
        """``(batch, frames)`` in Hz, 0 where unvoiced -> excitation ``(batch, 1, frames * hop_length)``."""
        if randomness is not None and randomness.start_phase is not None and self._fast(f0_hz):
            return self._merged(f0_hz, randomness)
        sines, _, _ = self.sines.held(f0_hz, self.hop_length, randomness, self.framed)
        return torch.tanh(self.merge(sines.to(self.merge.weight.dtype))).transpose(1, 2)

    def _fast(self, f0_hz: Tensor) -> bool:
        weights = (self.merge.weight, self.merge.bias)
        learning = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        plain = self.sines.pulse or any(weight.dtype != torch.float32 for weight in weights)
        return kernel.fused(self.hop_length, f0_hz) and not (learning or plain)

    @torch.no_grad()
    def _merged(self, f0_hz: Tensor, randomness: Randomness) -> Tensor:
        """The same, harmonic by harmonic added up as they are made."""
        sines, (batch, frames) = self.sines, f0_hz.shape
        samples, rows = frames * self.hop_length, frames * self.hop_length // LANES
        offset = fraction(sines._offset(randomness, f0_hz)).expand(batch, 1, -1)[:, 0]
        phase = phases.held(f0_hz, sines.sample_rate, self.hop_length)
        drawn = torch.randn(batch, samples, sines.harmonics) if randomness.noise is None else randomness.noise
        drawn = drawn.to(f0_hz).expand(batch, -1, -1)
        if drawn.shape[1:] != (samples, sines.harmonics):
            raise MelismaError(f"noise must be {(batch, samples, sines.harmonics)}, not {tuple(drawn.shape)}")
        voiced = (f0_hz > sines.voiced_threshold).to(f0_hz)
        levels = (voiced * sines.amplitude, sines._noise_level(voiced))
        both = torch.stack(levels, dim=-1).repeat_interleave(rows // max(1, frames), dim=1)
        given = zip(phase, offset, drawn, both, strict=True)
        made = [kernel.harmonics(p, o, self.merge.weight[0], n, level) for p, o, n, level in given]
        return torch.tanh(torch.stack(made) + self.merge.bias).unsqueeze(1)

    def step(
        self, f0_hz: Tensor, start_phase: Tensor | None, randomness: Randomness | None = None
    ) -> tuple[Tensor, Tensor]:
        """The excitation of the next chunk of an F0 curve, and the phase behind it.

        Args:
            f0_hz: ``(batch, frames)`` in Hz, 0 where unvoiced.
            start_phase: ``(batch,)`` cycles, what the step before gave; None at the beginning.
            randomness: draws for this chunk; ``initial_phase`` must be the same for all chunks.

        Returns:
            ``(batch, 1, frames * hop_length)`` and float64 ``(batch,)``.
        """
        return _step(self, f0_hz, start_phase, randomness, f0_hz.shape[1], self.sines.sample_rate, gliding=False)


class GlidingSource(nn.Module):
    """One sine of amplitude one at a low rate (openvpi's mini-NSF).

    It expects an F0 that goes on through unvoiced frames. Where F0 is 0 the phase stands still and the output is a
    constant, as in the reference; ``f0_contract`` of the generator tells the caller to interpolate first.

    Args:
        sample_rate: rate of the source, Hz.
        hop_length: samples of the source a frame.
    """

    def __init__(self, sample_rate: float, hop_length: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.hop_length = hop_length

    @torch.no_grad()
    def forward(self, f0_hz: Tensor, randomness: Randomness | None = None) -> Tensor:
        """``(batch, frames)`` in Hz -> excitation ``(batch, 1, frames * hop_length)``; only ``start_phase`` is used."""
        _check_f0(f0_hz, "frames")
        if randomness is None or randomness.start_phase is None:
            phase = phases.gliding_framed(f0_hz, self.sample_rate, self.hop_length)
        else:
            start = randomness.start_phase.to(f0_hz.device).double().reshape(-1, 1)
            phase = fraction(phases.gliding(f0_hz, self.sample_rate, self.hop_length) + start).float()
        return torch.sin(2 * math.pi * phase).unsqueeze(1)

    def step(self, f0_hz: Tensor, start_phase: Tensor | None, frames: int) -> tuple[Tensor, Tensor]:
        """The excitation of the first ``frames`` of a chunk, whose last frames only say where the glide goes.

        Otherwise as :meth:`HarmonicSource.step`.
        """
        return _step(self, f0_hz, start_phase, None, frames, self.sample_rate, gliding=True)


def _step(
    source: "HarmonicSource | GlidingSource",
    f0_hz: Tensor,
    start_phase: Tensor | None,
    randomness: Randomness | None,
    frames: int,
    sample_rate: float,
    gliding: bool,
) -> tuple[Tensor, Tensor]:
    phase = f0_hz.new_zeros(f0_hz.shape[0], dtype=torch.float64) if start_phase is None else start_phase
    if frames == 0:
        return f0_hz.new_zeros(f0_hz.shape[0], 1, 0), phase
    made = source(f0_hz, replace(randomness or Randomness(), start_phase=phase))
    sung = phases.before_frame(f0_hz, sample_rate, source.hop_length, frames, gliding)
    return made[..., : frames * source.hop_length], fraction(phase + sung)

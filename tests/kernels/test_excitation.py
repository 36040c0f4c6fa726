"""Pulse trains and counted noise by the kernel against the plain code."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from melisma.errors import MelismaError
from melisma.kernels import choice, excitation
from melisma.layers.framing import Hold
from melisma.noise import counter_normal
from melisma.pulse import pulse_train
from melisma.source import HarmonicSource, Randomness

pytest.importorskip("numba")


@pytest.mark.parametrize(("count", "streams", "start"), [(0, 1, 0), (1, 3, -7), (40000, 1, 10**12), (999, 9, 5)])
def test_noise_is_the_same_to_the_last_bit(count: int, streams: int, start: int) -> None:
    found = counter_normal(3, start, count, streams)
    with choice.plain():
        assert torch.equal(found, counter_normal(3, start, count, streams))


@pytest.mark.parametrize("hop_length", [16, 256, 512])
def test_pulses_are_those_of_the_plain_code(hop_length: int) -> None:
    frames = torch.arange(2 * 90).reshape(2, 90)
    f0_hz = torch.where(frames % 11 < 2, 0.0, 70.0 * 2 ** (frames % 37 / 8))
    phase = torch.tensor([[0.25], [0.0]], dtype=torch.float64)
    assert excitation.fused(hop_length, f0_hz)
    found = pulse_train(f0_hz, 44100, hop_length, phase)
    with choice.plain():
        assert not excitation.fused(hop_length, f0_hz)
        expected = pulse_train(f0_hz, 44100, hop_length, phase)
    assert found.shape == expected.shape
    # The sum of harmonics is steep beside a pulse: what counts is how much is wrong in all.
    assert (found - expected).square().mean().sqrt() <= 2e-5 * expected.std()
    assert (found - expected).abs().max() <= 2e-3 * expected.std()


@pytest.mark.parametrize("frames", [0, 1, 8, 40])
def test_held_notes_are_those_of_the_plain_code(frames: int) -> None:
    f0_hz = 100.0 + 200.0 * torch.rand(3, 60, generator=torch.Generator().manual_seed(0))
    number = torch.arange(60)
    f0_hz[0, (number % 13 < 9) | (number > 50)] = 0.0
    f0_hz[1] = 0.0
    hold = Hold(frames)
    found = hold(f0_hz)
    with choice.plain():
        assert torch.equal(found, hold(f0_hz))
    assert (found > 0).sum() > (f0_hz > 0).sum() or frames == 0


@pytest.mark.parametrize("hop_length", [16, 512])
@pytest.mark.parametrize("overtones", [0, 8])
def test_merged_harmonics_are_those_of_the_plain_code(hop_length: int, overtones: int) -> None:
    """Anywhere in a long song, voiced and not, with the phase that was sung before."""
    generator = torch.Generator().manual_seed(1)
    source, frames = HarmonicSource(44100, hop_length, overtones), 90
    torch.nn.init.uniform_(source.merge.weight, 1.0, 2.0, generator=generator)
    f0_hz = 60.0 * 2 ** (5 * torch.rand(2, frames, generator=generator))
    f0_hz = torch.where(torch.arange(frames) % 11 < 3, 0.0, f0_hz)
    drawn = Randomness(
        torch.rand(2, overtones + 1, generator=generator),
        torch.randn(1, frames * hop_length, overtones + 1, generator=generator).expand(2, -1, -1),
        start_phase=torch.tensor([0.0, 123456.789], dtype=torch.float64),
    )
    with torch.no_grad():
        found = source(f0_hz, drawn)
        with choice.plain():
            expected = source(f0_hz, drawn)
    assert found.shape == expected.shape == (2, 1, frames * hop_length)
    assert (found - expected).abs().max() <= 5e-6 * expected.std()
    with pytest.raises(MelismaError, match="noise must be"), torch.no_grad():
        source(f0_hz[:, 1:], dataclasses.replace(drawn, start_phase=torch.zeros(2)))


def test_merged_harmonics_have_gradients_where_they_are_asked_for() -> None:
    source = HarmonicSource(44100, 16)
    drawn = Randomness(start_phase=torch.zeros(1))
    source(torch.full((1, 20), 200.0), drawn).sum().backward()
    assert source.merge.weight.grad is not None
    assert source.merge.weight.grad.abs().max() > 0


def test_a_little_noise_is_not_worth_loading_numba_for() -> None:
    said = subprocess.run([sys.executable, "-c", _LITTLE], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "True"]


_LITTLE = """
import sys
from melisma.kernels import ready
from melisma.noise import counter_normal
ready.force()
counter_normal(0, 0, 1000, 1)
print("numba" in sys.modules)
counter_normal(0, 0, 9_000_000, 1)
print("numba" in sys.modules)
"""

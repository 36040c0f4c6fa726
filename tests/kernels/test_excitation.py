"""Pulse trains and counted noise by the kernel against the plain code."""

import subprocess
import sys

import pytest
import torch

from melisma.kernels import choice, excitation
from melisma.noise import counter_normal
from melisma.pulse import pulse_train

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

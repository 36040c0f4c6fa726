"""Counter-based noise: the same value whatever piece is asked for, and statistically white and normal."""

import itertools
import time

import pytest
import torch

from melisma.errors import MelismaError
from melisma.noise import counter_normal, counter_uniform, derived_seed

SAMPLES = 1 << 18
# The first values of seed 0, stream 0: a change of the algorithm would change the sound of every seed.
FIXED = [-0.505231, -0.105929, -0.019994, -0.628715, -0.229566, -0.622887]


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 1000), (17, 3), (999, 1), (123, 456)])
def test_a_piece_equals_the_whole(start: int, count: int) -> None:
    whole = counter_normal(7, 0, 1000, 3)
    assert torch.equal(counter_normal(7, start, count, 3), whole[start : start + count])


def test_far_positions_and_negative_ones_continue() -> None:
    far = 10**12
    assert torch.equal(counter_normal(1, far - 5, 10, 2)[5:], counter_normal(1, far, 5, 2))
    assert torch.equal(counter_normal(1, -5, 10, 2)[5:], counter_normal(1, 0, 5, 2))


def test_a_stream_does_not_depend_on_the_number_of_streams() -> None:
    assert torch.equal(counter_normal(3, 5, 100, 9)[:, :2], counter_normal(3, 5, 100, 2))


def test_values_are_fixed_for_ever() -> None:
    expected = torch.tensor([FIXED], dtype=torch.float32).T
    torch.testing.assert_close(counter_normal(0, 0, len(FIXED), 1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2, -1, 2**63])
def test_moments_are_those_of_a_normal(seed: int) -> None:
    noise = counter_normal(seed, 0, SAMPLES, 1).double().flatten()
    error = SAMPLES**-0.5  # standard error of the mean; the other moments have small multiples of it
    assert abs(noise.mean()) < 4 * error
    assert abs(noise.var() - 1) < 4 * 2**0.5 * error
    assert abs((noise**3).mean()) < 4 * 15**0.5 * error
    assert abs((noise**4).mean() - 3) < 4 * 96**0.5 * error
    assert 4.0 < noise.abs().max() < 7.0


def test_distribution_is_normal() -> None:
    noise = counter_normal(11, 0, SAMPLES, 1).double().flatten().sort().values
    expected = torch.special.ndtr(noise)
    empirical = (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES
    assert (expected - empirical).abs().max() < 1.63 * SAMPLES**-0.5  # Kolmogorov-Smirnov at 1 %


@pytest.mark.parametrize("power", [1, 2])
def test_autocorrelation_is_white(power: int) -> None:
    noise = counter_normal(5, 0, SAMPLES, 1).double().flatten() ** power
    noise = (noise - noise.mean()) / noise.std()
    spectrum = torch.fft.rfft(noise, n=2 * SAMPLES)
    correlation = torch.fft.irfft(spectrum.abs().square())[1:2000] / SAMPLES
    assert correlation.abs().max() < 5 * SAMPLES**-0.5


def test_seeds_and_streams_are_independent() -> None:
    columns = torch.cat([counter_normal(seed, 0, SAMPLES // 4, 4) for seed in (0, 1, 2, 3)], dim=1).T.double()
    for power in (1, 2):
        correlation = torch.corrcoef(columns**power)
        correlation.fill_diagonal_(0)
        assert correlation.abs().max() < 5 * (SAMPLES // 4) ** -0.5


def test_derived_seeds_and_uniforms() -> None:
    seeds = {derived_seed(seed, purpose) for seed, purpose in itertools.product(range(50), ["phase", "noise", "x"])}
    assert len(seeds) == 150
    uniform = counter_uniform(3, 20000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01
    assert torch.equal(counter_uniform(3, 5), uniform[:5])


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(MelismaError, match="counter_normal needs"):
        counter_normal(0, 0, -1, 1)


def test_a_second_of_noise_costs_little() -> None:
    counter_normal(0, 0, 44100, 1)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        counter_normal(0, 0, 44100, 1)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02  # about 1 ms on one idle core; the bound leaves room for a busy machine


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_does_not_matter() -> None:
    assert torch.equal(counter_normal(9, 100, 5000, 3, "cuda").cpu(), counter_normal(9, 100, 5000, 3))

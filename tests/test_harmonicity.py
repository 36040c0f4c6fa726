"""The loss on harmonics against noise: known mixtures, what it must not hear, gradients."""

import math

import pytest
import torch

from melisma.errors import MelismaError
from melisma.losses.harmonicity import BANDS_HZ, coherence, harmonicity_loss
from melisma.noise import counter_normal
from melisma.pulse import pulse_train

RATE, HOP, FRAMES = 44100, 512, 64
BAND = torch.tensor([22050.0])


def curve(f0_hz: float = 180.0, vibrato_cents: float = 60.0) -> torch.Tensor:
    time = torch.arange(FRAMES) * (HOP / RATE)
    return (f0_hz * 2.0 ** (vibrato_cents / 1200.0 * torch.sin(2 * math.pi * 5.5 * time))).unsqueeze(0)


def mixed(harmonic_share: float, f0_hz: torch.Tensor, seed: int = 1) -> torch.Tensor:
    noise = counter_normal(seed, 0, FRAMES * HOP, 1).T
    pulses = pulse_train(f0_hz, RATE, HOP)
    return 0.05 * (math.sqrt(harmonic_share) * pulses + math.sqrt(1.0 - harmonic_share) * noise)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25])
def test_the_share_of_harmonics_is_found_in_every_band(share: float) -> None:
    f0_hz = curve()
    found = coherence(mixed(share, f0_hz), f0_hz, RATE)
    assert found.shape == (1, len(BANDS_HZ), FRAMES)
    assert found[0, :, 4:-6].mean(dim=-1) == pytest.approx(torch.full((len(BANDS_HZ),), share), abs=0.09)


def test_noise_is_hardly_like_itself_and_pulses_wholly() -> None:
    f0_hz = curve()
    assert coherence(mixed(0.0, f0_hz), f0_hz, RATE)[..., 4:-6].mean() < 0.2
    assert coherence(mixed(1.0, f0_hz), f0_hz, RATE)[..., 4:-6].min() > 0.9


def test_a_small_error_of_the_pitch_and_the_level_do_not_matter() -> None:
    f0_hz = curve()
    audio = mixed(0.6, f0_hz)
    exact = coherence(audio, f0_hz, RATE)
    assert coherence(audio, f0_hz * 2.0 ** (5 / 1200), RATE)[..., 4:-6] == pytest.approx(exact[..., 4:-6], abs=0.08)
    assert coherence(0.01 * audio, f0_hz, RATE) == pytest.approx(exact, abs=1e-3)


def test_a_buzz_in_place_of_breath_costs() -> None:
    f0_hz = curve()
    breathy, again, buzzing = mixed(0.3, f0_hz), mixed(0.3, f0_hz, seed=2), mixed(0.9, f0_hz)
    assert harmonicity_loss(breathy, breathy, f0_hz, BAND, RATE) == 0
    other_noise = harmonicity_loss(again, breathy, f0_hz, BAND, RATE)
    buzz = harmonicity_loss(buzzing, breathy, f0_hz, BAND, RATE)
    assert buzz == pytest.approx(math.log(0.9 / 0.1) - math.log(0.3 / 0.7), rel=0.2)
    assert other_noise < 0.25 * buzz


def test_bands_that_a_recording_does_not_have_are_not_judged() -> None:
    f0_hz = curve()
    low = torch.tensor([6000.0])  # only the two lowest bands
    breathy, buzzing = mixed(0.3, f0_hz), mixed(0.9, f0_hz)
    spectrum = torch.fft.rfft(buzzing)
    cut = torch.arange(spectrum.shape[-1]) * (RATE / buzzing.shape[-1]) > 5000.0
    above = torch.fft.irfft(torch.where(cut, spectrum, torch.fft.rfft(breathy)))
    assert harmonicity_loss(above, breathy, f0_hz, BAND, RATE) > 1.0
    assert harmonicity_loss(above, breathy, f0_hz, low, RATE) < 0.05


def test_without_a_steady_voice_there_is_nothing_to_learn() -> None:
    breath = mixed(0.0, curve()).requires_grad_(True)
    loss = harmonicity_loss(breath, mixed(0.5, curve()), torch.zeros(1, FRAMES), BAND, RATE)
    assert loss == 0
    loss.backward()
    assert breath.grad is not None
    assert not breath.grad.any()


def test_gradients_are_finite_in_silence_and_point_away_from_the_buzz() -> None:
    f0_hz = curve()
    silence = torch.zeros(1, FRAMES * HOP, requires_grad=True)
    harmonicity_loss(silence, mixed(0.5, f0_hz), f0_hz, BAND, RATE).backward()
    assert silence.grad is not None
    assert torch.isfinite(silence.grad).all()
    level = torch.tensor(0.0, requires_grad=True)
    buzzing = mixed(0.9, f0_hz) + level * mixed(0.0, f0_hz, seed=3)
    harmonicity_loss(buzzing, mixed(0.3, f0_hz), f0_hz, BAND, RATE).backward()
    assert level.grad is not None
    assert level.grad < 0  # more noise is better


def test_a_lower_sample_rate_is_judged_as_far_as_it_goes() -> None:
    f0_hz = torch.full((1, 32), 150.0)
    noise = counter_normal(1, 0, 32 * 256, 1).T
    assert coherence(noise, f0_hz, 24000).shape == (1, 4, 32)
    assert harmonicity_loss(noise, noise, f0_hz, BAND, 24000) == 0
    with pytest.raises(MelismaError, match="from 2000 Hz on, and the sample rate is 6000 Hz; leave it out"):
        harmonicity_loss(noise, noise, f0_hz, BAND, 6000)

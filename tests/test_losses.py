"""Losses: values by hand, gradients, precision."""

import math

import pytest
import torch

from melisma.audio.mel import OPENVPI_44K
from melisma.losses import (
    LOSSES,
    complex_stft_loss,
    discriminator_loss,
    feature_matching_loss,
    feature_matching_parts,
    generator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_parts,
    mel_loss,
    mr_stft_loss,
    multi_scale_mel_loss,
    spectral_distance,
)

REAL = [torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0]])]
FAKE = [torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0]])]


def test_least_squares_by_hand() -> None:
    assert least_squares_parts(REAL, 1.0).tolist() == [0.125, 1.0]
    assert discriminator_loss(REAL, FAKE).item() == pytest.approx(0.125 + 1.0 + 2.0 + 1.0)
    assert generator_loss(FAKE).item() == pytest.approx((1.0 + 1.0) / 2 + 0.0)


def test_feature_matching_by_hand() -> None:
    real = [[torch.ones(1, 2, 3), torch.zeros(1, 1)], [torch.ones(2)]]
    fake = [[torch.zeros(1, 2, 3), torch.full((1, 1), 0.5)], [torch.ones(2)]]
    assert feature_matching_parts(real, fake).tolist() == [3.0, 0.0]
    assert feature_matching_loss(real, fake).item() == 3.0


def test_losses_are_scalars_and_best_at_the_truth() -> None:
    assert set(LOSSES) >= {"discriminator", "generator", "feature-matching", "mel"}
    perfect = discriminator_loss([torch.ones(2, 5)], [torch.zeros(2, 5)])
    assert perfect.shape == ()
    assert perfect == 0
    assert generator_loss([torch.ones(2, 5)]) == 0


def test_feature_matching_moves_only_the_made_side() -> None:
    real, fake = torch.ones(1, 3, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    feature_matching_loss([[real]], [[fake]]).backward()
    assert real.grad is None
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0


def test_half_precision_scores_do_not_overflow() -> None:
    assert generator_loss([torch.full((1, 4), 1000.0, dtype=torch.float16)]).item() == pytest.approx(999.0**2)


def test_mel_loss_is_the_level_difference_in_nepers() -> None:
    time = torch.arange(8192) / 44100
    noise = torch.randn(2, 1, 8192, generator=torch.Generator().manual_seed(0)) * 0.2
    assert mel_loss(noise, noise, OPENVPI_44K) == 0
    assert mel_loss(noise * 2, noise, OPENVPI_44K).item() == pytest.approx(math.log(2), abs=1e-3)
    assert mel_loss(noise[:, 0] * 2, noise[:, 0], OPENVPI_44K).item() == pytest.approx(math.log(2), abs=1e-3)
    made = (0.1 * torch.sin(2 * math.pi * 440 * time)).repeat(2, 1, 1).requires_grad_()
    mel_loss(made, noise, OPENVPI_44K).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()


def test_the_hinge_by_hand() -> None:
    assert hinge_discriminator_loss(REAL, FAKE).item() == pytest.approx(0.25 + 1.0 + 2.0 + 2.0)
    assert hinge_generator_loss(FAKE).item() == pytest.approx(-(1.0 + 1.0))
    sure = hinge_discriminator_loss([torch.full((1, 3), 2.0)], [torch.full((1, 3), -2.0)])
    assert sure == 0


def noise(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 8192, generator=torch.Generator().manual_seed(seed)) * torch.tensor([[0.3], [0.1], [0.02]])


SPECTRAL = {
    "multi-scale-mel": lambda made, real: multi_scale_mel_loss(made, real, 44100),
    "mr-stft": lambda made, real: mr_stft_loss(made, real, (512, 1024)),
    "complex-stft": lambda made, real: complex_stft_loss(made, real, (512, 1024)),
    "spectral": lambda made, real: spectral_distance(
        made, real, 512, torch.tensor([20000.0, 9000.0, 4000.0])[: len(made)], 44100
    ),
}


@pytest.mark.parametrize("name", SPECTRAL)
def test_spectral_losses_are_least_at_the_truth_and_means_over_clips(name: str) -> None:
    loss, real, made = SPECTRAL[name], noise(), noise(1).requires_grad_()
    assert name in LOSSES
    assert loss(real, real) == pytest.approx(0.0, abs=1e-6)
    assert loss(made, real) > 10 * loss(real * 1.001, real) > 0
    loss(made, real).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()
    assert (made.grad.abs().sum(dim=1) > 0).all()
    if name != "spectral":  # whose bands belong to the clips
        parts = torch.stack([loss(made[n : n + 1], real[n : n + 1]) for n in range(3)])
        torch.testing.assert_close(loss(made, real), parts.mean(), rtol=1e-5, atol=0)


def test_a_clips_band_does_not_change_its_share_of_the_batch() -> None:
    real, made, bands = noise(), noise(1), torch.tensor([20000.0, 9000.0, 4000.0])
    whole = spectral_distance(made, real, 512, bands, 44100)
    parts = [spectral_distance(made[n : n + 1], real[n : n + 1], 512, bands[n : n + 1], 44100) for n in range(3)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_levels_as_known() -> None:
    real = noise()
    assert multi_scale_mel_loss(real * 2, real, 44100).item() == pytest.approx(7 * math.log10(2), rel=0.02)
    assert mr_stft_loss(real * 2, real, (512, 1024)).item() == pytest.approx(1 + math.log(2), rel=0.02)
    turned = -real
    assert mr_stft_loss(turned, real, (512,)) == pytest.approx(0.0, abs=1e-5)
    assert complex_stft_loss(turned, real, (512,)).item() > 2


@pytest.mark.parametrize("name", SPECTRAL)
def test_silence_is_safe(name: str) -> None:
    made = torch.zeros(1, 4096, requires_grad=True)
    loss = SPECTRAL[name](made, torch.zeros(1, 4096))
    loss.backward()
    assert loss.isfinite()
    assert made.grad is not None
    assert made.grad.isfinite().all()

"""Losses: values by hand, gradients, precision."""

import math

import pytest
import torch

from melisma.audio.mel import OPENVPI_44K
from melisma.losses import (
    LOSSES,
    discriminator_loss,
    feature_matching_loss,
    feature_matching_parts,
    generator_loss,
    least_squares_parts,
    mel_loss,
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

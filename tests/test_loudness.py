"""The loss on loudness: what hears nothing, what hears more, and PESQ's own order."""

import numpy as np
import pytest
import torch
from torch import Tensor

from melisma.data.singer import Note, sing
from melisma.evaluation.metrics import pesq_wideband
from melisma.losses.loudness import disturbances, loudness_loss

RATE = 44100
SILENT_LOSS = 5e-3  # of the corners of roots and masks


@pytest.fixture(scope="module")
def voice() -> Tensor:
    sung, _ = sing([Note(147.0, 0.7, "a", onset="s"), Note(220.0, 0.7, "i")], RATE, 3)
    return torch.from_numpy(np.asarray(sung, dtype=np.float32)).unsqueeze(0)


def tone(hz: float, level: float, like: Tensor) -> Tensor:
    """A tone that rises and falls over the whole clip."""
    sine = torch.sin(2 * torch.pi * hz / RATE * torch.arange(like.shape[1]))
    return level * (sine * torch.hann_window(like.shape[1])).unsqueeze(0)


def test_a_copy_costs_nothing_and_neither_does_what_nobody_hears(voice: Tensor) -> None:
    assert loudness_loss(voice, voice, RATE) < SILENT_LOSS
    assert loudness_loss(0.9 * voice, voice, RATE) < SILENT_LOSS, "a decibel is hidden"
    assert loudness_loss(voice + tone(12000.0, 0.1, voice), voice, RATE) < SILENT_LOSS, "PESQ ends at 8 kHz"
    assert loudness_loss(voice + tone(6000.0, 0.03, voice), voice, RATE) > 10 * SILENT_LOSS


def test_the_level_of_a_recording_is_of_no_account(voice: Tensor) -> None:
    noisy = voice + 0.02 * torch.randn(voice.shape, generator=torch.Generator().manual_seed(0))
    loud = loudness_loss(noisy, voice, RATE)
    assert loudness_loss(0.01 * noisy, 0.01 * voice, RATE) == pytest.approx(float(loud), rel=1e-3)


def test_what_is_added_counts_more_than_what_is_missing(voice: Tensor) -> None:
    more = voice + tone(3000.0, 0.05, voice)
    added, missing = (disturbances(*pair, RATE)[1].mean() for pair in ((more, voice), (voice, more)))
    assert added > 5 * missing


def test_worse_by_pesq_is_worse_here(voice: Tensor) -> None:
    noise = torch.randn(voice.shape, generator=torch.Generator().manual_seed(0))
    results = [voice + level * voice.std() * noise for level in (0.001, 0.01, 0.03, 0.1, 0.3)]
    losses = [float(loudness_loss(result, voice, RATE)) for result in results]
    heard = [pesq_wideband(voice[0].numpy(), result[0].numpy(), RATE) for result in results]
    assert losses == sorted(losses)
    assert heard == sorted(heard, reverse=True)


@pytest.mark.parametrize("rate", [16000, 24000, 44100, 48000])
def test_gradients_are_finite_in_silence_too(rate: int) -> None:
    torch.manual_seed(0)
    made = (0.1 * torch.randn(2, rate // 2)).requires_grad_()
    reference = torch.stack([torch.zeros(rate // 2), 0.1 * torch.randn(rate // 2)])
    loudness_loss(made, reference, rate).backward()
    assert made.grad is not None
    assert torch.isfinite(made.grad).all()
    assert made.grad[1].abs().max() > 0

"""The backbone in tiles against the plain one: exact in two parts, near in one, the same in any piece."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.data.singer import Note, sing
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.generators.spectral_backbone import FastBackbone
from melisma.inference.vocoder import load
from melisma.kernels import choice, frames_amx, rounding
from melisma.layers.streaming import WHOLE

pytestmark = pytest.mark.skipif(not choice.tiles().fast, reason=choice.tiles().why)


def made(channels: int = 64, causal: bool = False) -> tuple[Spectral, FastBackbone]:
    torch.manual_seed(0)
    settings = {"causal": True, "draft": False} if causal else {}
    generator = Spectral(SpectralConfig(OPENVPI_44K, channels=channels, blocks=3, projections=0, **settings)).eval()
    nn.init.normal_(generator.head.weight, std=0.05)
    generator.requires_grad_(False)
    return generator, FastBackbone(generator, True)


def conditions(generator: Spectral, frames: int) -> Tensor:
    return torch.randn(2, frames, generator.entry.in_channels)


@pytest.mark.parametrize("channels", [32, 64, 96])
@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_plain_backbone(channels: int, causal: bool) -> None:
    generator, fast = made(channels, causal)
    for frames in (1, 16, 63, 64, 300, 500):  # less than a tile, whole ones, one more than goes through a block at once
        given = conditions(generator, frames)
        with choice.plain():
            expected = generator._backbone(given, WHOLE)
        assert (fast(given) - expected).abs().max() <= 1e-4 * expected.std()
        with rounding.halved():
            off = fast(given) - expected
        assert 1e-3 * expected.std() < off.abs().max() <= 0.1 * expected.std()
        assert off.square().mean().sqrt() <= 0.01 * expected.std()


def test_a_frame_is_the_same_in_any_piece_and_on_any_number_of_threads() -> None:
    generator, fast = made()
    given, before = conditions(generator, 200), torch.get_num_threads()
    reach = 4 * (generator.config.kernel_size // 2)
    try:
        torch.set_num_threads(1)
        whole = fast(given)
        assert torch.equal(fast(given[:, 50:170].contiguous())[:, reach:-reach], whole[:, 50 + reach : 170 - reach])
        torch.set_num_threads(3)
        assert torch.equal(fast(given), whole)
    finally:
        torch.set_num_threads(before)


def test_a_number_is_its_two_parts() -> None:
    weights = torch.randn(64, 24)
    tiles = torch.from_numpy(frames_amx.packed(weights).view("int16")).view(torch.bfloat16).float()
    parts = tiles.reshape(2, 2, 2, 16, 16, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 64, 32)  # the part, rows, columns
    assert torch.equal(parts[0, :, :24], weights.bfloat16().float())
    assert (parts.sum(0)[:, :24] - weights).abs().max() <= 2.0**-16 * weights.abs().max()
    assert not parts[:, :, 24:].any()


@pytest.mark.parametrize("projections", [0, None])
def test_bfloat16_sings_within_forty_decibels(projections: int | None) -> None:
    audio, f0_hz = sing([Note(220.0, 0.8, "a"), Note(330.0, 0.8, "i", "s")], seed=1)
    features = log_mel(audio, OPENVPI_44K)[0].numpy()
    f0_hz = f0_hz[: features.shape[1]]
    exact, rounded = (
        load("melisma-44k", "cpu", precision).synthesize(features, f0_hz, projections=projections)
        for precision in ("float32", "bfloat16")
    )
    off = np.mean((rounded - exact) ** 2)
    assert 0 < off <= 1e-4 * np.mean(exact**2)

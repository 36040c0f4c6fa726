"""Rounds of mel projection by the kernel against the plain rounds."""

import dataclasses

import pytest
import torch

from melisma.audio.mel import OPENVPI_44K, MelContract
from melisma.kernels import choice
from melisma.kernels.projection import fused, local_mean, neighbours
from melisma.layers.mel_projection import MelProjection

pytest.importorskip("numba")

CONTRACTS = {
    "openvpi": OPENVPI_44K,
    "short window": MelContract(44100, 2048, 1024, 512, 64, 0.0, None, padding="nvstft"),
    "log10": dataclasses.replace(OPENVPI_44K, log_base="10", magnitude_epsilon=1e-9),
    "many hops": MelContract(24000, 1024, 1024, 128, 80, 0.0, 8000.0, pad_mode="constant"),
}


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("frames", [1, 2, 9, 150])
@pytest.mark.parametrize(("rounds", "low_rounds"), [(3, 0), (0, 3), (2, 5)])
def test_equals_the_plain_rounds(name: str, frames: int, rounds: int, low_rounds: int) -> None:
    mel = CONTRACTS[name]
    torch.manual_seed(frames)
    audio = 0.1 * torch.randn(2, frames * mel.hop_length)
    given = audio.clone()
    wanted = MelProjection(torch.zeros(2, frames, mel.n_mels), mel).log_mel(audio) + 0.5 * torch.randn(1, 1, mel.n_mels)
    projection, gate = MelProjection(wanted, mel), torch.rand(2, frames, 1)
    assert fused(audio)
    found = projection(audio, gate, rounds, low_rounds)
    with choice.plain():
        assert not fused(audio)
        expected = projection(audio, gate, rounds, low_rounds)
    assert (found - expected).abs().max() <= 1e-4 * expected.std()
    assert (expected - audio).abs().max() > 1e-2 * expected.std() or low_rounds
    assert torch.equal(audio, given)


def test_threads_do_not_change_the_audio() -> None:
    audio = torch.randn(1, 400 * 512, generator=torch.Generator().manual_seed(0))
    projection = MelProjection(torch.zeros(1, 400, 128), OPENVPI_44K)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(projection(audio, torch.ones(1, 400, 1), 2, 4))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])


def test_the_cut_does_not_change_the_audio() -> None:
    """Many rounds make 1e-4 of the last digit: streams join only if not even that depends on the cut."""
    audio = torch.randn(1, 300 * 512, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 300, 1)
    whole = MelProjection(torch.zeros(1, 300, 128), OPENVPI_44K)(audio, ones, 1, 2)
    part = MelProjection(torch.zeros(1, 201, 128), OPENVPI_44K)(audio[:, 37 * 512 : 238 * 512], ones[:, :201], 1, 2)
    assert torch.equal(part[:, 60 * 512 : 140 * 512], whole[:, 97 * 512 : 177 * 512])


def test_gradients_take_the_plain_rounds() -> None:
    audio = torch.randn(1, 4096, requires_grad=True)
    assert not fused(audio)
    MelProjection(torch.zeros(1, 8, 128), OPENVPI_44K)(audio, torch.ones(1, 8, 1), 2, 2).sum().backward()
    assert audio.grad is not None
    assert audio.grad.abs().sum() > 0


def test_neighbours_are_the_matrix() -> None:
    dense = torch.tensor([[1.0, 0.7, 0.0, 0.0, 0.0], [0.0, 0.3, 1.0, 0.4, 0.0], [0.0, 0.0, 0.0, 0.6, 0.0]])
    lower, weights = neighbours(dense)
    again = torch.zeros(4, 5)
    for b, band in enumerate(lower):
        again[band, b] += weights[b, 0]
        again[band + 1, b] += weights[b, 1]
    assert torch.equal(again[:3], dense)


@pytest.mark.parametrize("columns", [1, 2, 50])
def test_local_means_are_those_of_the_plain_code(columns: int) -> None:
    drawing = torch.Generator().manual_seed(columns)
    values = torch.rand(2, 130, columns, generator=drawing)
    width = (
        1 + (columns / 2 - 1) * torch.rand(2, 130, generator=drawing).clamp(min=0)
        if columns > 1
        else torch.ones(2, 130)
    )
    found = local_mean(values, width)
    steps = torch.arange(1000) / 1000
    for row, wide, means in zip(values.reshape(-1, columns), width.flatten(), found.reshape(-1, columns), strict=True):
        middle = columns // 2
        position = (middle + 0.5 - wide / 2) + steps * wide
        near = position[(position >= 0) & (position < columns)]
        assert means[middle] == pytest.approx(float(row[near.long()].mean()), abs=2e-2)

"""The mel front end: golden cases, the filterbank against librosa, sizes, contracts and what they convert."""

import dataclasses
import json
import math
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma.audio.mel import (
    OPENVPI_44K,
    MelContract,
    compress,
    convert_log_mel,
    decompress,
    log_mel,
    mel_filterbank,
    mel_to_hz,
)
from melisma.errors import MelismaError

GOLDEN = Path(__file__).parent.parent / "golden"
VOCOS_24K = MelContract(
    sample_rate=24000,
    n_fft=1024,
    win_length=1024,
    hop_length=256,
    n_mels=100,
    fmin=0.0,
    fmax=None,
    scale="htk",
    norm="none",
    floor=1e-7,
    padding="centre",
)
CONTRACTS = {
    "openvpi": OPENVPI_44K,
    "bigvgan": MelContract.nvstft(44100, 128, 2048, 2048, 512, 0, None),
    "hifi-gan": MelContract.nvstft(22050, 80, 1024, 1024, 256, 0, 8000),
    "vocos": VOCOS_24K,
    "odd": MelContract.nvstft(16000, 80, 1023, 777, 201, 30, 7600),
    "htk with area": dataclasses.replace(OPENVPI_44K, scale="htk"),
    "slaney with peak": dataclasses.replace(OPENVPI_44K, norm="none", n_fft=1000, win_length=1000),
}


@pytest.mark.parametrize("case", sorted(GOLDEN.glob("mel*")), ids=lambda path: path.name)
def test_golden(case: Path) -> None:
    facts = json.loads((case / "case.json").read_text())
    data = np.load(case / "data.npz")
    mel = MelContract.nvstft(**facts["config"])
    values = log_mel(data["audio"], mel, facts.get("keyshift", 0), facts.get("speed", 1.0)).numpy()
    assert values.shape == data["log_mel"].shape
    assert np.abs(values - data["log_mel"]).max() <= 1e-4 * data["log_mel"].std()


@pytest.mark.parametrize("name", CONTRACTS)
def test_filterbank_is_librosas_bit_by_bit(name: str) -> None:
    mel = CONTRACTS[name]
    oracle = librosa.filters.mel(
        sr=mel.sample_rate,
        n_fft=mel.n_fft,
        n_mels=mel.n_mels,
        fmin=mel.fmin,
        fmax=mel.fmax,
        htk=mel.scale == "htk",
        norm=None if mel.norm == "none" else "slaney",
    )
    np.testing.assert_array_equal(mel_filterbank(mel), oracle)


def by_torch_stft(audio: torch.Tensor, mel: MelContract, keyshift: float, speed: float) -> torch.Tensor:
    """The formulas of the two reference front ends, by ``torch.stft``."""
    factor = 2 ** (keyshift / 12)
    n_fft, win, hop = (round(mel.n_fft * factor), round(mel.win_length * factor), round(mel.hop_length * speed))
    if keyshift == 0 and speed == 1.0:
        left = right = int((n_fft - hop) / 2)
    else:
        left = (win - hop) // 2
        right = max((win - hop + 1) // 2, win - audio.shape[-1] - left)
    mode = "reflect" if right < audio.shape[-1] else "constant"
    padded = torch.nn.functional.pad(audio[:, None], (left, right), mode=mode)[:, 0]
    window = torch.hann_window(win)
    spectrum = torch.stft(padded, n_fft, hop, win, window, center=False, return_complex=True)
    magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()
    bins = mel.n_fft // 2 + 1
    if keyshift != 0:
        short = max(0, bins - magnitude.shape[1])
        magnitude = torch.nn.functional.pad(magnitude, (0, 0, 0, short))[:, :bins] * mel.win_length / win
    return (torch.tensor(mel_filterbank(mel)) @ magnitude).clamp(min=mel.floor).log()


@pytest.mark.parametrize(
    "sizes", [(2048, 2048, 512), (1024, 1024, 256), (2048, 1200, 320), (1000, 801, 201), (1023, 777, 255)]
)
@pytest.mark.parametrize(
    ("keyshift", "speed"), [(0, 1.0), (5, 1.0), (-12, 1.7), (3.3, 0.77), (0, 7.0), (12, 1.0), (-24, 3.0)]
)
def test_key_shift_and_speed_at_other_sizes(sizes: tuple[int, int, int], keyshift: float, speed: float) -> None:
    n_fft, win, hop = sizes
    mel = MelContract.nvstft(22050, 64, n_fft, win, hop, 20, None)
    noise = torch.randn(2, 12_345, generator=torch.Generator().manual_seed(1)) * 0.1
    reference = by_torch_stft(noise, mel, keyshift, speed)
    values = log_mel(noise, mel, keyshift, speed)
    assert values.shape == reference.shape
    assert (values - reference).abs().max() <= 1e-4 * reference.std()


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("samples", [1, 2, 100, 700, 1999, 8192])
def test_any_length_gives_finite_frames(name: str, samples: int) -> None:
    mel = CONTRACTS[name]
    audio = torch.randn(3, samples, generator=torch.Generator().manual_seed(samples))
    values = log_mel(audio, mel)
    assert values.shape == (3, mel.n_mels, mel.frames(samples))
    assert mel.frames(samples) >= 1
    assert values.isfinite().all()
    for keyshift, speed in [(12, 1.0), (-12, 1.0), (0, 20.0)]:
        assert log_mel(audio, mel, keyshift, speed).isfinite().all()
    for row, single in enumerate(audio):
        torch.testing.assert_close(log_mel(single, mel)[0], values[row], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(log_mel(audio.numpy()[::-1], mel), values.flip(0), atol=2e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["openvpi", "bigvgan", "hifi-gan", "vocos"]),
    position=st.floats(0.15, 0.95),
    level=st.floats(0.05, 0.9),
)
def test_a_tone_lands_in_its_bin(name: str, position: float, level: float) -> None:
    mel = CONTRACTS[name]
    edges = np.linspace(*_mel_range(mel), mel.n_mels + 2)
    wanted = int(position * (mel.n_mels - 1))
    frequency = float(mel_to_hz(edges[wanted + 1], mel.scale))
    audio = level * torch.sin(2 * math.pi * frequency / mel.sample_rate * torch.arange(6000, dtype=torch.float64))
    middle = log_mel(audio, mel)[0, :, mel.frames(6000) // 2]
    assert abs(int(middle.argmax()) - wanted) <= 1


def _mel_range(mel: MelContract) -> tuple[float, float]:
    from melisma.audio.mel import hz_to_mel

    return float(hz_to_mel(np.array(mel.fmin), mel.scale)), float(hz_to_mel(np.array(mel.highest_hz), mel.scale))


def test_key_shift_moves_a_tone_down_by_its_interval() -> None:
    time = torch.arange(20_000, dtype=torch.float64) / 44100
    high, low = (torch.sin(2 * math.pi * f * time) * 0.5 for f in (880.0, 440.0))
    shifted, plain = log_mel(low, OPENVPI_44K, keyshift=12), log_mel(high, OPENVPI_44K)
    assert shifted[0, :, 20].argmax() == plain[0, :, 20].argmax()


@pytest.mark.parametrize("name", CONTRACTS)
def test_log_base_converts_both_ways(name: str) -> None:
    natural = CONTRACTS[name]
    common = dataclasses.replace(natural, log_base="10")
    audio = torch.randn(1, 9000, generator=torch.Generator().manual_seed(5)) * 0.1
    mine, theirs = log_mel(audio, natural), log_mel(audio, common)
    torch.testing.assert_close(convert_log_mel(theirs, common, natural), mine, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(convert_log_mel(mine, natural, common), theirs, atol=1e-5, rtol=1e-5)
    higher_floor = dataclasses.replace(natural, floor=1e-2)
    torch.testing.assert_close(convert_log_mel(mine, natural, higher_floor), log_mel(audio, higher_floor))


def test_a_mismatch_names_the_fields() -> None:
    bigvgan = CONTRACTS["bigvgan"]
    with pytest.raises(MelismaError, match=r"fmin: 0 != 40.0; fmax: 22050.0 != 16000.0; magnitude_epsilon"):
        convert_log_mel(torch.zeros(1, 128, 3), bigvgan, OPENVPI_44K)
    with pytest.raises(MelismaError, match="floor"):
        convert_log_mel(torch.zeros(1, 128, 3), OPENVPI_44K, dataclasses.replace(OPENVPI_44K, floor=1e-9))


def test_difference_ignores_two_names_for_one_fact() -> None:
    assert OPENVPI_44K.difference(dataclasses.replace(OPENVPI_44K, padding="nvstft")) == []
    full = dataclasses.replace(OPENVPI_44K, fmax=None)
    assert full.difference(dataclasses.replace(OPENVPI_44K, fmax=22050.0)) == []
    assert OPENVPI_44K.difference(VOCOS_24K)[0] == "sample_rate: 44100 != 24000"


def test_compression_has_an_inverse_above_the_floor() -> None:
    values = torch.logspace(-4, 1, 30)
    for mel in (OPENVPI_44K, dataclasses.replace(OPENVPI_44K, log_base="10")):
        torch.testing.assert_close(decompress(compress(values, mel), mel), values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"win_length": 4096}, "longer than n_fft"),
        ({"hop_length": 0}, "positive"),
        ({"fmin": 17000.0}, "between 0 and fmax"),
    ],
)
def test_impossible_contracts_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(MelismaError, match=words):
        dataclasses.replace(OPENVPI_44K, **change)


def test_impossible_audio_and_speed_are_refused() -> None:
    for audio in (torch.zeros(0), torch.zeros(2, 3, 4)):
        with pytest.raises(MelismaError, match="shape"):
            log_mel(audio, OPENVPI_44K)
    with pytest.raises(MelismaError, match="speed"):
        log_mel(torch.zeros(100), OPENVPI_44K, speed=0.0)


def test_gradient_is_finite_on_silence() -> None:
    for mel in CONTRACTS.values():
        audio = torch.zeros(1, 4000, requires_grad=True)
        log_mel(audio, mel).sum().backward()
        assert audio.grad is not None
        assert audio.grad.isfinite().all()

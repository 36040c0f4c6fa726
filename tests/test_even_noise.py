"""Even noise: the same value whatever piece is asked for, white, and far more even than Gaussian noise."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from melisma.audio.mel import OPENVPI_44K, MelContract, log_mel
from melisma.errors import MelismaError
from melisma.even_noise import LENGTH, even_noise
from melisma.generators.analytic import Analytic, AnalyticConfig
from melisma.noise import counter_normal

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1, 2, -1, 2**63)


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 1000), (17, 3), (999, 1), (123, 0)])
def test_a_piece_equals_the_whole(start: int, count: int) -> None:
    whole = even_noise(7, 0, 1000)
    assert torch.equal(even_noise(7, start, count), whole[start : start + count])


@pytest.mark.parametrize("start", [10**12, -3, LENGTH - 7, -LENGTH])
def test_it_goes_on_far_away_and_before_zero(start: int) -> None:
    assert torch.equal(even_noise(1, start, 20)[9:], even_noise(1, start + 9, 11))


def test_every_round_is_the_table_from_another_place_and_little_comes_back_and_late() -> None:
    whole = even_noise(3, 0, 6 * LENGTH).double()
    rounds = whole.reshape(6, LENGTH)
    sizes = rounds.abs().sort(dim=1).values
    assert torch.equal(sizes, sizes[:1].expand(6, -1))
    spectrum = torch.fft.rfft(torch.cat([whole, torch.zeros_like(whole)])).abs().square()
    apart = torch.fft.irfft(spectrum)[1 : 6 * LENGTH] / len(whole)
    assert apart[: 6 * LENGTH // 5].abs().max() < 0.1
    assert apart.abs().max() < 0.35
    power = torch.fft.rfft(whole).abs().square().sort(descending=True).values
    assert power[: len(power) // 5].sum() < 0.7 * power.sum()  # what repeats five times has all of it there


def test_it_goes_on_evenly_from_round_to_round() -> None:
    assert log_spread(even_noise(4, LENGTH - 8192, 16384), 2048, 0) < 0.5
    assert (
        abs(log_spread(even_noise(4, LENGTH - 65536, 131072), 2048, 0) - log_spread(even_noise(4, 0, 131072), 2048, 0))
        < 0.05
    )


def test_a_graph_of_any_length_looks_up_the_same() -> None:
    class Drawn(torch.nn.Module):
        def forward(self, like: torch.Tensor) -> torch.Tensor:
            return even_noise(5, 0, like.shape[0]) + 0.0 * like

    even_noise(5, 0, 1)
    graph = torch.export.export(Drawn(), (torch.zeros(100),), dynamic_shapes=({0: torch.export.Dim("samples")},))
    for length in (2, 1000, 4 * LENGTH + 5):
        assert torch.equal(graph.module()(torch.zeros(length)), even_noise(5, 0, length))


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(MelismaError, match="count"):
        even_noise(0, 0, -1)


def test_seeds_differ() -> None:
    drawn = torch.stack([even_noise(seed, 0, LENGTH // 4) for seed in SEEDS])
    likeness = torch.corrcoef(drawn) - torch.eye(len(SEEDS))
    assert likeness.abs().max() < 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_white_and_has_no_mean(seed: int) -> None:
    noise = even_noise(seed, 5, LENGTH).double()
    assert abs(noise.mean()) < 1e-4
    assert noise.square().mean() == pytest.approx(1.0, abs=1e-3)
    assert noise.abs().max() < 6.0
    power = torch.fft.rfft(noise).abs().square()[:-1].reshape(-1, 4096).mean(dim=1)  # 32 bands
    assert power.max() / power.min() < 1.1
    apart = torch.fft.irfft(torch.fft.rfft(noise).abs().square())[1 : LENGTH // 2] / LENGTH
    assert apart.abs().max() < 0.1  # nothing repeats within six seconds


def log_spread(audio: torch.Tensor, window: int, start: int) -> float:
    shape = torch.hann_window(window)
    spectra = torch.stft(audio[start:], window, window // 4, window=shape, center=False, return_complex=True)
    return float(spectra.abs()[4:-4].clamp(min=1e-6).log().std())


@pytest.mark.parametrize("start", [0, 100, 256, 700])
@pytest.mark.parametrize("window", [1412, 2048])
def test_its_short_time_spectra_are_even_wherever_frames_begin(window: int, start: int) -> None:
    gaussian = counter_normal(0, 0, LENGTH // 2, 1).flatten()
    assert log_spread(even_noise(0, 0, LENGTH // 2), window, start) < 0.36
    assert log_spread(gaussian, window, start) > 0.6


def test_nothing_in_it_repeats_with_the_frames_of_a_mel() -> None:
    power = even_noise(3, 0, LENGTH).double().square()
    power = power - power.mean()
    spectrum = torch.fft.rfft(power).abs().square()
    frame_rate = LENGTH // OPENVPI_44K.hop_length
    around = spectrum[frame_rate - 40 : frame_rate + 41].clone()
    assert spectrum[frame_rate] < 8 * around.mean()  # an exponential distribution: e^-8


def test_a_mel_of_it_hardly_changes_from_frame_to_frame() -> None:
    even, gaussian = (
        log_mel(noise.flatten(), OPENVPI_44K)[0, :, 4:-4].std(dim=1)
        for noise in (even_noise(2, 0, LENGTH // 2), counter_normal(2, 0, LENGTH // 2, 1))
    )
    assert even.mean() < 0.5 * gaussian.mean()


def test_the_recipe_makes_noise_of_this_kind() -> None:
    spec = importlib.util.spec_from_file_location("even_noise_recipe", ROOT / "recipes" / "even_noise.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    noise = recipe.even_noise(1 << 15, 12, 1)
    assert log_spread(noise, 2048, 0) < 0.45
    assert np.isclose(float(noise.square().mean()), 1.0, atol=1e-5)


def test_a_model_that_is_given_no_draws_sings_even_noise_of_its_own_for_every_clip() -> None:
    mel = MelContract(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, fmin=40.0, fmax=7000.0)
    model = Analytic(AnalyticConfig(mel, n_fft=256, projections=0, noise="even"))
    torch.manual_seed(0)
    drawn = model.drawn(torch.zeros(2, 2048), None)
    torch.manual_seed(0)
    assert torch.equal(drawn, model.drawn(torch.zeros(2, 2048), None))
    assert not torch.equal(drawn[0].abs(), drawn[1].abs())
    assert all(log_spread(clip, 2048, 0) < 0.36 for clip in drawn)

"""The excitation: golden cases, exact phase, pieces, both modes, silence."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from melisma import phase as phases
from melisma.errors import MelismaError
from melisma.source import GlidingSource, HarmonicSource, Randomness, SineSource

GOLDEN = Path(__file__).parent / "golden"
RATE = 44100


def curve(frames: int = 40, batch: int = 1) -> Tensor:
    steps = torch.arange(frames, dtype=torch.float32)
    f0 = torch.stack([200 + 40 * item + 30 * torch.sin(steps / 5 + item) for item in range(batch)])
    f0[:, frames // 3 : frames // 3 + 3] = 0
    return f0


@pytest.mark.parametrize("mode", ["sine", "pulse"])
def test_golden(mode: str) -> None:
    with np.load(GOLDEN / f"sinegen_{mode}" / "data.npz") as data:
        case = {key: torch.tensor(data[key]) for key in data.files}
    source = SineSource(RATE, pulse=mode == "pulse")
    found = source(case["f0_hz"][..., 0], Randomness(case["draw0_uniform"], case["draw1_normal"]))
    for value, name in zip(found, ("sines", "voiced", "noise"), strict=True):
        assert value.shape == case[name].shape
        assert (value - case[name]).abs().max() <= 1e-4 * case[name].std()


@pytest.mark.parametrize("pulse", [False, True])
def test_long_path_equals_short_path(pulse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    f0 = curve(12).repeat_interleave(256, dim=1)
    draws = Randomness(torch.rand(1, 9), torch.zeros(1, f0.shape[1], 9))
    source = SineSource(RATE, pulse=pulse)
    short = source(f0, draws)[0]
    monkeypatch.setattr("melisma.source._SINGLE_PRECISION_CYCLES", 0)
    monkeypatch.setattr("melisma.source._STRETCH", 1000)
    assert (source(f0, draws)[0] - short).abs().max() < 2e-5


def test_phase_is_exact_after_an_hour() -> None:
    hop = 512
    frames = 3600 * RATE // hop
    f0 = torch.full((1, frames), 439.987)
    counted = (frames * hop * (float(f0[0, 0]) / RATE)) % 1.0
    tail = f0[:, -2:]
    start = phases.before_frame(f0, RATE, hop, frames - 2)
    last = (phases.held(tail, RATE, hop)[0, -1] + start) % 1.0
    assert abs(float(last) - counted) < 1e-6


@pytest.mark.parametrize("style", [phases.held_framed, phases.held_summed])
def test_rounding_of_the_references_is_held_near_the_exact_phase(style: object) -> None:
    f0 = torch.full((1, 40000), 880.123)
    hop = 64
    exact = phases.held(f0, RATE, hop)
    rounded = style(f0, RATE, hop, 1)[..., 0] if style is phases.held_summed else style(f0, RATE, hop)
    gap = rounded.double() - exact
    gap = (gap - gap.round()).abs().max()
    assert gap < 1e-3
    assert gap > 1e-4  # without the limit it would be far beyond


def test_sample_rate_phase_of_a_long_note() -> None:
    samples = 3 * (1 << 20) + 17
    f0 = torch.full((1, samples), 997.77)
    source = SineSource(RATE, overtones=0)
    sines, _, _ = source(f0, Randomness(torch.zeros(1, 1), torch.zeros(1, samples, 1)))
    count = torch.arange(1, samples + 1, dtype=torch.float64)
    expected = 0.1 * torch.sin(2 * math.pi * ((count * (float(f0[0, 0]) / RATE)) % 1.0))
    assert (sines[0, :, 0].double() - expected).abs().max() < 0.1 * 2 * math.pi * 1e-3


@pytest.mark.parametrize("gliding", [False, True])
@pytest.mark.parametrize("cut", [1, 13, 14, 39])
def test_pieces_continue_the_phase(gliding: bool, cut: int) -> None:
    f0 = curve()
    whole = phases.gliding(f0, RATE, 512) if gliding else phases.held(f0, RATE, 512)
    start = phases.before_frame(f0, RATE, 512, cut, gliding)
    piece = (phases.gliding if gliding else phases.held)(f0[:, cut:], RATE, 512)
    gap = whole[:, cut * 512 :] - piece - start
    assert (gap - gap.round()).abs().max() < 1e-9


def test_voiced_samples_sing_and_unvoiced_are_noise() -> None:
    f0 = torch.cat([torch.full((1, 4000), 300.0), torch.zeros(1, 4000)], dim=1)
    sines, voiced, noise = SineSource(RATE)(f0)
    assert torch.equal(voiced[..., 0] > 0, f0 > 0)
    assert torch.equal(sines[:, 4000:], noise[:, 4000:])
    assert abs(noise[:, 4000:].std() - 0.1 / 3) < 1e-3
    assert abs(noise[:, :4000].std() - 0.003) < 1e-4
    spectrum = torch.fft.rfft(sines[0, :4000, 2]).abs()
    assert abs(spectrum.argmax() * RATE / 4000 - 900) < RATE / 4000


def test_threshold_decides_what_is_voiced() -> None:
    f0 = torch.tensor([[40.0, 60.0, 0.0]])
    _, voiced, _ = SineSource(RATE, voiced_threshold=50.0)(f0)
    assert voiced[0, :, 0].tolist() == [0.0, 1.0, 0.0]


def test_pulse_starts_anew_in_every_voiced_stretch() -> None:
    f0 = torch.zeros(1, 3000)
    f0[:, 100:1000] = 441.0
    f0[:, 2000:] = 441.0
    sines, _, _ = SineSource(RATE, pulse=True)(f0, Randomness(torch.rand(1, 9), torch.zeros(1, 3000, 9)))
    torch.testing.assert_close(sines[:, 100:1000], sines[:, 2000:2900], rtol=0, atol=1e-5)
    assert sines[0, 1999 + 100].sum() == pytest.approx(0.9, abs=1e-4)  # a full period on, all nine peaks meet


def test_fundamental_starts_at_zero_whatever_is_drawn() -> None:
    f0 = curve(4).repeat_interleave(64, dim=1)
    noise = torch.zeros(1, f0.shape[1], 1)
    source = SineSource(RATE, overtones=0)
    first = source(f0, Randomness(torch.tensor([[0.7]]), noise))[0]
    assert torch.equal(first, source(f0, Randomness(torch.zeros(1, 1), noise))[0])


def test_batch_equals_single_and_draws_may_serve_all() -> None:
    f0 = curve(batch=3)
    drawn = Randomness(torch.rand(1, 9), torch.randn(1, 40 * 64, 9))
    source = HarmonicSource(RATE, 64)
    together = source(f0, drawn)
    for item in range(3):
        torch.testing.assert_close(together[item : item + 1], source(f0[item : item + 1], drawn), rtol=0, atol=1e-6)


def test_gliding_source_holds_a_constant_in_silence() -> None:
    f0 = curve()
    f0[:, 20:] = 0
    excitation = GlidingSource(RATE / 8, 64)(f0)
    assert excitation.shape == (1, 1, 40 * 64)
    assert excitation[..., 20 * 64 :].unique().numel() == 1
    assert excitation.isfinite().all()


def test_drawn_inside_where_missing() -> None:
    torch.manual_seed(0)
    source = SineSource(RATE)
    f0 = torch.full((2, 100), 100.0)
    assert not torch.equal(source(f0)[0], source(f0)[0])


@pytest.mark.parametrize(
    ("randomness", "said"),
    [
        (Randomness(initial_phase=torch.zeros(1, 3)), "initial_phase must be"),
        (Randomness(noise=torch.zeros(1, 50, 9)), "noise must be"),
    ],
)
def test_wrong_shapes_are_named(randomness: Randomness, said: str) -> None:
    with pytest.raises(MelismaError, match=said):
        SineSource(RATE)(torch.zeros(1, 100), randomness)


def test_f0_of_a_wrong_rank_is_named() -> None:
    with pytest.raises(MelismaError, match="F0 must have the shape"):
        SineSource(RATE)(torch.zeros(1, 100, 1))

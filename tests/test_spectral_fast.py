"""The spectral generators in kernels against their plain forward."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from melisma.audio.mel import OPENVPI_44K, MelContract
from melisma.generators import analytic as analytic_module
from melisma.generators import spectral_backbone
from melisma.generators.analytic import Analytic, AnalyticConfig
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.inference.vocoder import Info, Vocoder
from melisma.kernels import choice

pytest.importorskip("numba")

SMALL = MelContract(24000, 1024, 1024, 256, 100, 0.0, 12000.0, padding="nvstft")  # bands are no sixteens
CONFIGS: dict[str, AnalyticConfig] = {
    "analytic": AnalyticConfig(OPENVPI_44K, projections=1),
    "spectral": SpectralConfig(OPENVPI_44K, channels=32, blocks=3, projections=1),
    "one subframe": SpectralConfig(SMALL, n_fft=1024, subframes=1, channels=32, blocks=2, projections=0),
    "four subframes": SpectralConfig(SMALL, n_fft=256, subframes=4, channels=64, blocks=1, projections=2, low_rounds=8),
    "odd width": SpectralConfig(SMALL, n_fft=512, channels=40, blocks=2, projections=0),
    "settled-twice": SpectralConfig(OPENVPI_44K, channels=32, blocks=2, projections=0, settles=2),
    "averaged": SpectralConfig(OPENVPI_44K, channels=32, blocks=2, projections=0, settle_average=0.25, settles_alone=1),
    "never-settled": SpectralConfig(OPENVPI_44K, channels=32, blocks=2, projections=0, settles=0),
    "held": SpectralConfig(OPENVPI_44K, channels=32, blocks=2, projections=1, hold_frames=3),
    "causal": SpectralConfig(OPENVPI_44K, channels=32, blocks=2, projections=0, causal=True, draft=False),
    "causal-drafted": SpectralConfig(OPENVPI_44K, channels=32, blocks=2, projections=0, causal=True, settles=0),
}


def _generator(config: AnalyticConfig) -> Analytic:
    torch.manual_seed(0)
    generator = (Spectral(config) if isinstance(config, SpectralConfig) else Analytic(config)).eval()
    if isinstance(generator, Spectral):
        nn.init.normal_(generator.head.weight, std=0.05)
    return generator.requires_grad_(False)


def _given(config: AnalyticConfig, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    features = -4.0 + 0.5 * torch.randn(2, config.mel.n_mels, frames)
    f0_hz = torch.where(torch.rand(2, frames) < 0.2, 0.0, 200.0 * 2 ** torch.rand(2, frames))
    return features, f0_hz


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("frames", [1, 5, 130])
@pytest.mark.parametrize("backbone", ["what this CPU takes", "vectors"])
def test_equals_the_plain_forward(name: str, frames: int, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backbone == "vectors":
        monkeypatch.setattr(choice, "backbone", lambda: choice.Choice("numba", True, "wanted"))
    generator = _generator(CONFIGS[name])
    features, f0_hz = _given(generator.config, frames)
    randomness = generator.randomness(f0_hz, 0, 0, frames)
    found = generator(features, f0_hz, randomness=randomness)
    with choice.plain():
        expected = generator(features, f0_hz, randomness=randomness)
    assert (found - expected).abs().max() <= 1e-4 * expected.std()


def test_threads_do_not_change_the_audio() -> None:
    generator = _generator(dataclasses.replace(CONFIGS["spectral"], projections=2))
    features, f0_hz = _given(generator.config, 300)
    randomness, before, found = generator.randomness(f0_hz, 0, 0, 300), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(generator(features, f0_hz, randomness=randomness))
    finally:
        torch.set_num_threads(before)
    assert (found[0] - found[1]).abs().max() <= 1e-5 * found[0].std()


def test_torch_wakes_no_threads_of_its_own_where_kernels_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay awake for milliseconds, on the very core where a helper is to begin."""
    before, seen = torch.get_num_threads(), {}

    def watch(name: str) -> None:
        function = getattr(analytic_module, name)

        def asked(*arguments: object, **more: object) -> object:
            seen[name] = torch.get_num_threads()
            return function(*arguments, **more)

        monkeypatch.setattr(analytic_module, name, asked)

    names = ("even_noise", "counter_normal", "natural", "pitch_gate")
    for name in names:
        watch(name)
    try:
        torch.set_num_threads(2)
        for noise in ("even", "gaussian"):
            model = Vocoder(_generator(dataclasses.replace(CONFIGS["spectral"], noise=noise)), Info("small", "small"))
            model.synthesize(np.full((OPENVPI_44K.n_mels, 300), -4.0, np.float32), np.full(300, 200.0))
    finally:
        torch.set_num_threads(before)
    assert seen == dict.fromkeys(names, 1)


def test_the_packed_backbone_follows_its_weights() -> None:
    generator = _generator(CONFIGS["spectral"])
    assert isinstance(generator, Spectral)
    conditions = torch.randn(1, 40, 3 * 128 + 2)
    fast = spectral_backbone.packed(generator, conditions)
    assert fast is not None
    assert spectral_backbone.packed(generator, conditions) is fast
    before = fast(conditions)
    with torch.no_grad():
        generator.head.bias += 1.0
    again = spectral_backbone.packed(generator, conditions)
    assert again is not None
    torch.testing.assert_close(again(conditions), before + 1.0)
    assert spectral_backbone.packed(generator.train(), conditions) is None


@pytest.mark.parametrize("name", ["spectral", "averaged", "causal", "causal-drafted"])
@pytest.mark.parametrize("chunks", [[1] * 90, [40, 4, 4, 0, 9, 1, 30, 2], [90]])
def test_a_backbone_that_steps_in_one_call_is_the_plain_one(name: str, chunks: list[int]) -> None:
    """Also where the plain code takes over in the middle, as it does when a stream is restored elsewhere."""
    generator = _generator(dataclasses.replace(CONFIGS[name], projections=0))
    features, f0_hz = (given[:1] for given in _given(generator.config, 90))
    with choice.plain():
        expected = generator(features, f0_hz, randomness=generator.randomness(f0_hz, 0, 0, 90))
    for plainly in (lambda _: False, lambda number: number % 2 == 1):
        state, made, first = None, [], 0
        for number, count in enumerate(chunks):
            part, last = slice(first, first + count), first + count == 90
            draws = generator.draws(0, first, count)
            with choice.plain(plainly(number)):
                audio, state = generator.step(features[..., part], f0_hz[:, part], None, state, draws, last)
            made.append(audio)
            first += count
        assert (torch.cat(made, dim=-1) - expected).abs().max() <= 1e-4 * expected.std()


def test_a_step_of_the_backbone_changes_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = _generator(CONFIGS["causal-drafted"])
    features, f0_hz = (given[:1] for given in _given(generator.config, 40))
    _, state = generator.step(features[..., :30], f0_hz[:, :30], None, None, generator.draws(0, 0, 30))
    before, taken = {name: values.clone() for name, values in state.items()}, []
    own = spectral_backbone.FastBackbone.step

    def counted(*arguments: object) -> torch.Tensor | None:
        said = own(*arguments)  # type: ignore[arg-type]
        taken.append(said is not None)
        return said

    monkeypatch.setattr(spectral_backbone.FastBackbone, "step", counted)
    rest = (features[..., 30:], f0_hz[:, 30:], None, state, generator.draws(0, 30, 10))
    first, second = generator.step(*rest), generator.step(*rest)
    assert taken == [True, True]
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(values, before[name]) for name, values in state.items())

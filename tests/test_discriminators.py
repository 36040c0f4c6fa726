"""Discriminators: golden cases, foreign spellings, gradients, shapes over the whole table."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from melisma.discriminators import (
    DISCRIMINATORS,
    MultiPeriod,
    MultiResolution,
    MultiScale,
    SubBandCqt,
    build_discriminator,
)
from melisma.discriminators.cqt import ConstantQ
from melisma.errors import MelismaError
from melisma.losses import (
    discriminator_loss,
    feature_matching_loss,
    feature_matching_parts,
    generator_loss,
    least_squares_parts,
)

GOLDEN = Path(__file__).parent / "golden"
CLASSES = {"mpd": MultiPeriod, "msd": MultiScale}
Case = tuple[dict, dict[str, np.ndarray], dict[str, Tensor]]


def golden_state(entries: list) -> dict[str, Tensor]:
    """The reference weights, which follow from names and shapes."""
    names = {name for name, _, _ in entries}
    state = {}
    for name, shape, _ in entries:
        v = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        post = 0.3 if "post" in name else 1.0
        spectral = name.rsplit(".", 1)[0] + ".weight_orig" in names
        if spectral and name.endswith(("weight_u", "weight_v")):
            v = v / np.linalg.norm(v)
        elif name.endswith("weight_g"):
            v = np.abs(1 + 0.1 * v) * post
        elif name.endswith("bias"):
            v = 0.05 * v
        elif not name.endswith("weight_v"):
            v = v / np.sqrt(np.prod(shape[1:])) * post
        state[name] = torch.tensor(v, dtype=torch.float32)
    return state


@pytest.fixture(scope="module", params=CLASSES)
def case(request: pytest.FixtureRequest) -> Case:
    facts = json.loads((GOLDEN / request.param / "case.json").read_text())
    with np.load(GOLDEN / request.param / "data.npz") as data:
        return facts | {"class": CLASSES[request.param]}, dict(data), golden_state(facts["state"])


def relative(value: Tensor | np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(np.asarray(value) - reference).max() / np.abs(reference).std())


@torch.inference_mode()
def test_golden(case: Case) -> None:
    facts, data, state = case
    judge = facts["class"]().load_foreign(state)
    real_scores, real_maps = judge(torch.tensor(data["real"]))
    fake_scores, fake_maps = judge(torch.tensor(data["generated"]))
    for index, (real, fake) in enumerate(zip(real_scores, fake_scores, strict=True)):
        assert real.shape == data[f"real_score{index}"].shape
        assert relative(real, data[f"real_score{index}"]) <= 1e-4
        assert relative(fake, data[f"fake_score{index}"]) <= 1e-4
    means = [[float(layer.double().abs().mean()) for layer in layers] for layers in real_maps]
    np.testing.assert_allclose(means, data["real_feature_mean_abs"], rtol=1e-4)
    expected = facts["losses"]
    for name, value in {
        "discriminator": discriminator_loss(real_scores, fake_scores),
        "real": least_squares_parts(real_scores, 1.0),
        "fake": least_squares_parts(fake_scores, 0.0),
        "generator": generator_loss(fake_scores),
        "generator_each": least_squares_parts(fake_scores, 1.0),
        "feature": feature_matching_loss(real_maps, fake_maps),
    }.items():
        np.testing.assert_allclose(value.tolist(), expected[name], rtol=1e-4, err_msg=name)
    assert feature_matching_parts(real_maps, fake_maps).shape == (len(real_scores),)


def respelled(state: dict[str, Tensor], spelling: str) -> dict[str, Tensor]:
    """The same weights under other names."""
    if spelling == "ddp":
        return {f"module.{name}": value for name, value in state.items()}
    new = {}
    for name, value in state.items():
        layer = name.rsplit(".", 1)[0]
        spectral = f"{layer}.weight_orig" in state
        part = name.rsplit("_", 1)[-1]
        if "weight_" not in name:
            new[name] = value
        elif spelling == "parametrized":
            parts = {"orig": "original", "u": "0._u", "v": "0._v"} if spectral else {"g": "original0", "v": "original1"}
            new[f"{layer}.parametrizations.weight.{parts[part]}"] = value
        elif part == "g":
            direction = state[f"{layer}.weight_v"]
            length = direction.flatten(1).norm(dim=1).reshape(value.shape)
            new[f"{layer}.weight"] = direction * value / length
        elif part == "orig":
            matrix = value.flatten(1)
            sigma = torch.dot(state[f"{layer}.weight_u"], matrix @ state[f"{layer}.weight_v"])
            new[f"{layer}.weight"] = value / sigma
    return new


@pytest.mark.parametrize("spelling", ["parametrized", "folded", "ddp"])
@torch.inference_mode()
def test_every_spelling_of_the_norms_loads(case: Case, spelling: str) -> None:
    facts, data, state = case
    judge = facts["class"]().load_foreign(respelled(state, spelling))
    scores, _ = judge(torch.tensor(data["real"]))
    for index, score in enumerate(scores):
        assert relative(score, data[f"real_score{index}"]) <= 1e-4


def test_half_precision_and_arrays_load(case: Case) -> None:
    facts, _, state = case
    facts["class"]().load_foreign({name: value.half() for name, value in state.items()})
    facts["class"]().load_foreign({name: value.numpy() for name, value in state.items()})


def test_wrong_states_name_the_entries(case: Case) -> None:
    facts, _, state = case
    judge = facts["class"]()
    name = "discriminators.1.convs.2.weight_g"
    without = {key: value for key, value in state.items() if key != name}
    for wrong, words in [
        (without, r"missing discriminators\.1\.convs\.2\.parametrizations\.weight\.original0"),
        (state | {"dec.conv_pre.weight": torch.zeros(1)}, r"unknown dec\.conv_pre\.weight"),
        (state | {name: torch.zeros(3, 1, 1)}, r"misshapen .*original0 \(3, 1, 1\) instead of"),
        ({}, r"missing .* and \d+ more"),
    ]:
        with pytest.raises(MelismaError, match=words):
            judge.load_foreign(wrong)


@pytest.mark.parametrize(("sample_rate", "bins"), [(44100, 24), (24000, 48)])
@torch.inference_mode()
def test_a_note_stands_in_its_own_bin_of_the_constant_q_transform(sample_rate: int, bins: int) -> None:
    transform = ConstantQ(sample_rate, 256, 9, bins)
    time = torch.arange(3 * sample_rate) / sample_rate
    for number in range(0, 9 * bins, 17):
        hz = transform.lowest_hz * 2.0 ** (number / bins)
        assert hz < sample_rate / 2
        found = transform(torch.sin(2 * torch.pi * hz * time)[None])
        assert found.shape == (1, 2, -(-len(time) // 256), 9 * bins)
        magnitude = found[0].square().sum(0).sqrt()[found.shape[2] // 2]
        assert int(magnitude.argmax()) == number
        assert float(magnitude[number]) == pytest.approx(0.5, rel=0.12)
        assert float(magnitude[[n for n in range(9 * bins) if abs(n - number) > 3]].max()) < 0.02


@torch.inference_mode()
def test_octaves_of_the_constant_q_transform_keep_step_in_time() -> None:
    click = torch.zeros(1, 40 * 256)
    click[0, 20 * 256] = 1.0
    magnitude = ConstantQ(16000, 256, 6, 12)(click).square().sum(1).sqrt()[0]
    assert set(magnitude[:, 12:].argmax(dim=0).tolist()) == {20}


@torch.inference_mode()
def test_a_tone_stands_in_its_own_bin_of_the_multi_resolution_discriminator() -> None:
    tone = torch.sin(2 * torch.pi * 32 / 512 * torch.arange(8000))[None, None]
    for window in ("hann", "rectangular"):
        (view,) = MultiResolution(((512, 128, 512),), window).views(tone)  # type: ignore[arg-type]
        assert view.shape[1] == 1
        assert set(view[0, 0, :, 4:-4].argmax(dim=0).tolist()) == {32}


def test_discriminators_are_built_by_name_and_strictly() -> None:
    judge = build_discriminator("sub-band-cqt", {"width": 0.25, "octaves": 5}, 16000.0, "recipe")
    assert isinstance(judge, SubBandCqt)
    assert judge.discriminators[0].transform.lowest_hz * 32 <= 7200.0
    assert sum(weight.numel() for weight in judge.parameters()) < 50_000
    for name, settings, words in [
        ("multi-perod", {}, "did you mean 'multi-period'"),
        ("multi-period", {"widht": 1}, "recipe: unknown key 'widht'; did you mean 'width'"),
        ("multi-period", {"periods": "x"}, "recipe: periods: "),
        ("sub-band-cqt", {"hop_lengths": [256]}, "must be equally long"),
        ("sub-band-cqt", {"sample_rate": 8000}, "unknown key 'sample_rate'"),
    ]:
        with pytest.raises(MelismaError, match=words):
            build_discriminator(name, settings, 16000.0, "recipe")


@pytest.fixture(scope="module", params=DISCRIMINATORS)
def fresh(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    return DISCRIMINATORS[request.param]()


def test_gradients_reach_every_weight_and_the_audio(fresh: torch.nn.Module) -> None:
    fresh.train()
    audio = torch.randn(1, 1, 2000, requires_grad=True)
    scores, maps = fresh(audio)
    (
        generator_loss(scores) + feature_matching_loss(maps, [[layer * 2 for layer in layers] for layers in maps])
    ).backward()
    assert audio.grad is not None
    assert audio.grad.abs().sum() > 0
    for name, weight in fresh.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name
    fresh.zero_grad()


@torch.inference_mode()
def test_batch_equals_single_and_short_audio_works(fresh: torch.nn.Module) -> None:
    fresh.eval()
    audio = torch.randn(2, 1, 1501)
    together, _ = fresh(audio)
    alone, maps = fresh(audio[1:])
    for one, many, layers in zip(alone, together, maps, strict=True):
        torch.testing.assert_close(one[0], many[1], atol=1e-5, rtol=1e-4)
        assert one.shape == (1, layers[-1].numel())
    for samples in (1, 2, 7):
        assert all(score.isfinite().all() for score in fresh(torch.randn(1, 1, samples))[0])


def test_save_and_load_are_equal(fresh: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(fresh.state_dict(), tmp_path / "d.pt")
    again = type(fresh)().load_foreign(torch.load(tmp_path / "d.pt", weights_only=True))
    audio = torch.randn(1, 1, 900)
    for mine, theirs in zip(fresh.eval()(audio)[0], again(audio)[0], strict=True):
        torch.testing.assert_close(mine, theirs)

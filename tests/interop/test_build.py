"""Foreign configurations and state dicts: every spelling loads, every fault is named."""

import golden_cases
import pytest
import torch
from torch import Tensor

from melisma.audio.mel import OPENVPI_44K
from melisma.errors import MelismaError
from melisma.interop import BUILDERS, build
from melisma.interop.rvc import LIST_NAMES

ONE_OF_EACH = ["sovits_hifigan", "sovits_snake", "openvpi_nsf_hifigan", "openvpi_mini_nsf_noise", "rvc_40k"]
ONE_OF_EACH += ["hifigan_v1", "bigvgan_base_24k", "bigvgan_v2_44k", "sovits_hifigan_resblock2"]


def respelled(state: dict[str, Tensor], spelling: str) -> dict[str, Tensor]:
    """The state with its weight norms spelled otherwise."""
    result = {}
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        if last == "weight_g" and spelling == "parametrised":
            result[f"{stem}.parametrizations.weight.original0"] = value
        elif last == "weight_v" and spelling == "parametrised":
            result[f"{stem}.parametrizations.weight.original1"] = value
        elif last == "weight_v":
            norm = value.flatten(1).norm(dim=1).reshape(-1, *[1] * (value.ndim - 1))
            result[f"{stem}.weight"] = value / norm * state[f"{stem}.weight_g"]
        elif last != "weight_g":
            result[name] = value
    return result


@pytest.mark.parametrize("spelling", ["parametrised", "folded"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_all_spellings_of_weight_norm_give_the_same(name: str, spelling: str) -> None:
    case = golden_cases.read(name)
    inputs, drawn = case.inputs(), case.randomness()
    expected = build(case.kind, case.config, case.state())(*inputs, randomness=drawn)
    found = build(case.kind, case.config, respelled(case.state(), spelling))(*inputs, randomness=drawn)
    assert (found - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_generator_is_ready_for_inference(name: str) -> None:
    case = golden_cases.read(name)
    generator = build(case.kind, case.config, {key: value.half() for key, value in case.state().items()})
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in generator.parameters())
    assert not any("parametrizations" in key for key in generator.state_dict())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_missing_key_is_named(name: str) -> None:
    case = golden_cases.read(name)
    state = case.state()
    for missing in [*list(state)[:3], *list(state)[-3:]]:
        short = {key: value for key, value in state.items() if key != missing}
        with pytest.raises(MelismaError, match=rf"missing keys: .*{missing}"):
            build(case.kind, case.config, short)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_unknown_and_misshapen_keys_are_named(name: str) -> None:
    case = golden_cases.read(name)
    state = case.state() | {"ups.9.bias": torch.zeros(3)}
    with pytest.raises(MelismaError, match=r"unknown keys: ups\.9\.bias"):
        build(case.kind, case.config, state)
    for wrong in list(case.state())[-4:]:
        state = case.state()
        state[wrong] = torch.zeros(2, 3, 4, 5)
        with pytest.raises(MelismaError, match=rf"misshapen keys: {wrong} \(2, 3, 4, 5\) should be"):
            build(case.kind, case.config, state)


def test_a_filter_where_none_belongs_is_unknown() -> None:
    case = golden_cases.read("sovits_hifigan")
    state = case.state() | {"snake_post.upsample.filter": torch.zeros(1, 1, 12)}
    with pytest.raises(MelismaError, match=r"unknown keys: snake_post\.upsample\.filter"):
        build(case.kind, case.config, state)


@pytest.mark.parametrize("resblock", ["1", 1, "2", 2, None])
@pytest.mark.parametrize("name", ["sovits_hifigan", "sovits_hifigan_resblock2"])
def test_type_of_residual_block_is_read_off_the_weights(name: str, resblock: object) -> None:
    case = golden_cases.read(name)
    generator = build(case.kind, case.config | {"resblock": resblock}, case.state())
    assert generator.config.resblock == (2 if name.endswith("2") else 1)


def test_further_dilations_than_the_references_use_are_left_out() -> None:
    case = golden_cases.read("sovits_hifigan_resblock2")
    config = case.config | {"resblock_dilation_sizes": [[1, 2, 5], [2, 6, 7]]}
    assert build(case.kind, config, case.state()).config.resblock_dilation_sizes == ((1, 2), (2, 6))


def test_rvc_takes_the_list_of_eighteen() -> None:
    case = golden_cases.read("rvc_40k")
    values = {"spec_channels": 1025, "segment_size": 32, "spk_embed_dim": 109, **case.config, "sr": "40k"}
    listed = [values.get(name, 0) for name in LIST_NAMES]
    assert len(listed) == 18
    for config in (listed, {**case.config, "sr": "40k"}):
        generator = build("rvc", config, case.state())
        assert generator.sample_rate == 40000
        assert generator.hop_length == 400
    with pytest.raises(MelismaError, match="list of 18"):
        build("rvc", listed[:-1], case.state())


def test_rvc_sings_without_a_speaker() -> None:
    case = golden_cases.read("rvc_40k")
    features, f0, _ = case.inputs()
    assert build("rvc", case.config, case.state())(features, f0).shape == (1, 1, 4800)


def test_contracts_follow_the_family() -> None:
    found = {}
    for name in ONE_OF_EACH:
        case = golden_cases.read(name)
        found[name] = build(case.kind, case.config, case.state())
    mel = found["openvpi_nsf_hifigan"].mel
    assert mel is not None
    assert mel.difference(OPENVPI_44K) == ["n_mels: 40 != 128"]
    assert found["sovits_hifigan"].mel is None
    mel = found["bigvgan_v2_44k"].mel
    assert mel is not None
    assert (mel.padding, mel.magnitude_epsilon, mel.fmin, mel.fmax) == ("nvstft", 1e-9, 0.0, None)
    contracts = {name: generator.f0_contract for name, generator in found.items()}
    assert contracts["sovits_snake"] == contracts["rvc_40k"] == "zero"
    assert contracts["openvpi_nsf_hifigan"] == contracts["openvpi_mini_nsf_noise"] == "interpolated"
    assert contracts["hifigan_v1"] is contracts["bigvgan_base_24k"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"upsample_rates": None}, "'upsample_rates' is missing"),
        ({"upsample_rates": "8,8"}, "upsample_rates must be a list of whole numbers"),
        ({"upsample_rates": [8, 8.5, 2, 2, 2]}, "upsample_rates must be a whole number, not 8.5"),
        ({"resblock": "3"}, "resblock must be '1' or '2'"),
        ({"mini_nsf": "yes"}, "mini_nsf must be true or false"),
        ({"noise_sigma": "loud"}, "noise_sigma must be a number"),
        ({"sampling_rate": None}, "'sampling_rate' is missing"),
        ({"mini_nfs": True, "mini_nsf": None}, "mini_nsf"),
        ({"upsample_initial_channel": 128}, "misshapen keys"),
    ],
)
def test_faulty_settings_are_named(changes: dict, said: str) -> None:
    case = golden_cases.read("openvpi_nsf_hifigan")
    config = {key: value for key, value in (case.config | changes).items() if value is not None}
    with pytest.raises(MelismaError, match=said):
        build(case.kind, config, case.state())


def test_a_missing_flag_means_false_and_training_settings_do_not_matter() -> None:
    case = golden_cases.read("openvpi_nsf_hifigan")
    flags = ("mini_nsf", "noise_sigma", "pc_aug", "discriminator_periods")
    config = {key: value for key, value in case.config.items() if key not in flags}
    config |= {"learning_rate": "fast", "some_fork_added_this": 3}
    generator = build(case.kind, config, case.state())
    assert not generator.config.pitch_controllable
    audio = generator(*case.inputs(), randomness=case.randomness())
    assert (audio - case.data["audio"]).abs().max() <= 1e-4 * case.data["audio"].std()


def test_unknown_kind_lists_the_known() -> None:
    with pytest.raises(MelismaError, match="did you mean 'openvpi'"):
        build("openvp", {}, {})
    assert set(BUILDERS) == set(golden_cases.KINDS.values())

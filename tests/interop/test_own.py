"""melisma's own model file."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from melisma.audio.mel import MelContract
from melisma.errors import MelismaError
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop import load_checkpoint, load_model, save_model
from melisma.interop.own import KEY
from melisma.kernels.choice import plain
from melisma.layers.weight_norm import unfold

CONFIG = NsfHifiganConfig(
    sample_rate=8000,
    in_channels=6,
    upsample_rates=(4, 4),
    upsample_kernel_sizes=(8, 8),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
    activation="snakebeta",
    mel=MelContract(8000, 64, 64, 16, 6, 0.0, None),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_model(
        path,
        NsfHifigan(CONFIG),
        name="tiny",
        version="1.2",
        licence="MIT",
        provenance="made in a test",
        f0_range_hz=(60.0, 1200.0),
        speakers=torch.ones(2, 3),
        speaker_names={"eins": 0},
    )
    return path


def header(path: Path) -> dict:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[KEY])


def rewrite(path: Path, changes: dict) -> None:
    save_file(load_file(path), path, metadata={KEY: json.dumps(header(path) | changes)})


def test_header_holds_what_the_architecture_says(saved: Path) -> None:
    stands = header(saved)
    assert {"format", "generator", "config", "mel", "f0", "licence", "provenance", "name", "version"} <= set(stands)
    assert stands["f0"] == {"contract": "zero", "range_hz": [60.0, 1200.0]}
    assert stands["mel"]["n_fft"] == 64


@pytest.mark.skipif(os.name != "posix", reason="permissions of another kind")
def test_others_may_read_it_as_they_may_read_any_file(saved: Path) -> None:
    ordinary = saved.with_name("ordinary")
    ordinary.touch()
    assert saved.stat().st_mode == ordinary.stat().st_mode


def test_saved_and_loaded_are_equal(saved: Path) -> None:
    torch.manual_seed(0)
    original = NsfHifigan(CONFIG).eval()
    for loaded in (load_model(saved), load_checkpoint(saved)):
        assert loaded.generator.config == CONFIG
        assert loaded.mel == CONFIG.mel
        assert (loaded.kind, loaded.name, loaded.version, loaded.licence) == (
            "melisma/nsf-hifigan",
            "tiny",
            "1.2",
            "MIT",
        )
        assert loaded.f0_range_hz == (60.0, 1200.0)
        assert loaded.speakers is not None
        assert loaded.speakers.shape == (2, 3)
        features, f0 = torch.randn(1, 6, 5), torch.full((1, 5), 200.0)
        drawn = original.randomness(f0, 1, 0, 5)
        with plain():  # kernels round otherwise, and only the loaded one is folded for them
            made, expected = (model(features, f0, randomness=drawn) for model in (loaded.generator, original))
        assert torch.equal(made, expected)


def test_half_precision_is_read_back_as_single(tmp_path: Path, saved: Path) -> None:
    small = tmp_path / "half.safetensors"
    save_model(small, load_model(saved).generator, name="half", half=True)
    weights = load_model(small).generator.state_dict()
    for name, value in load_model(saved).generator.state_dict().items():
        assert weights[name].dtype == torch.float32
        assert torch.equal(weights[name], value.half().float())
    assert small.stat().st_size < saved.stat().st_size


def test_a_broken_model_is_not_saved_and_the_earlier_file_stays(saved: Path) -> None:
    before = saved.read_bytes()
    generator = NsfHifigan(CONFIG)
    with torch.no_grad():
        generator.conv_post.bias.fill_(float("nan"))
    with pytest.raises(MelismaError, match=r"conv_post\.bias holds NaN"):
        save_model(saved, generator, name="broken")
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 99}, "newer than this melisma reads"),
        ({"format": "x"}, "its header is damaged"),
        ({"generator": "nsf-hifi-gan"}, "did you mean 'nsf-hifigan'"),
        ({"config": {"sample_rat": 3}}, "unknown key 'sample_rat'; did you mean 'sample_rate'"),
        ({"config": 3}, "lacks a config"),
        ({"mel": None}, "mel contract of its header is not that of its config"),
        ({"f0": {"contract": "zero", "range_hz": [900, 60]}}, "F0 range 900.0 to 60.0 Hz"),
        ({"f0": {"contract": "zero", "range_hz": "wide"}}, "no pair of numbers"),
    ],
)
def test_a_faulty_header_is_named(saved: Path, changes: dict, said: str) -> None:
    rewrite(saved, changes)
    with pytest.raises(MelismaError, match=said):
        load_model(saved)


def test_weights_that_do_not_fit_are_named(saved: Path) -> None:
    tensors = load_file(saved)
    kept = {KEY: json.dumps(header(saved))}
    del tensors["conv_pre.bias"]
    tensors["other"] = torch.zeros(1)
    tensors["conv_post.bias"] = torch.zeros(7)
    save_file(tensors, saved, metadata=kept)
    with pytest.raises(MelismaError, match=r"missing conv_pre\.bias, unknown other, conv_post\.bias \(7,\) should be"):
        load_model(saved)


def test_foreign_and_damaged_safetensors(tmp_path: Path, saved: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(MelismaError, match="without melisma's header"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(MelismaError, match="not a whole safetensors file"):
        load_checkpoint(saved)
    with pytest.raises(MelismaError, match="no such file"):
        load_model(tmp_path / "nothing.safetensors")


def test_own_file_is_recognised_under_any_name(saved: Path) -> None:
    renamed = saved.rename(saved.with_name("model"))
    assert load_checkpoint(renamed).name == "tiny"


def test_a_latent_decoder_has_no_mel(tmp_path: Path) -> None:
    path = tmp_path / "latent.safetensors"
    save_model(path, NsfHifigan(dataclasses.replace(CONFIG, mel=None)), name="latent")
    assert load_model(path).mel is None


def test_loading_draws_nothing_and_leaves_new_models_as_they_were(saved: Path) -> None:
    """Weights of a file are not drawn first; a model that is made afterwards has weight norm and its own weights."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    generator = load_model(saved).generator
    assert torch.equal(torch.get_rng_state(), before)
    assert not any("original0" in name for name in generator.state_dict())
    first, second = (NsfHifigan(CONFIG).state_dict() for _ in range(2))
    assert any("original0" in name for name in first)
    assert not torch.equal(first["conv_pre.bias"], second["conv_pre.bias"])
    unfolded = dict(unfold(generator).state_dict())
    assert set(unfolded) == set(first)

"""Checkpoints in openvpi's layout: what was written is read back exactly."""

import dataclasses
import json
from pathlib import Path

import golden_cases
import pytest
import torch
from kinds import loaded

from melisma.errors import MelismaError
from melisma.export.diffsinger import write_checkpoint
from melisma.interop import build, load_checkpoint
from melisma.interop.loaded import LoadedModel


@pytest.mark.parametrize("kind", ["openvpi", "openvpi-mini"])
def test_round_trip_is_exact(kind: str, tmp_path: Path) -> None:
    model = loaded(kind)
    model.generator.conv_pre.weight[2] = 0.0  # a dead channel has no direction
    write_checkpoint(model, tmp_path / "voc")
    again = load_checkpoint(tmp_path / "voc" / "model.ckpt")
    assert again.kind == "openvpi"
    assert again.generator.config == model.generator.config
    weights = model.generator.state_dict()
    assert set(again.generator.state_dict()) == set(weights)
    for name, value in again.generator.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert "MIT" in (tmp_path / "voc" / "NOTICE.txt").read_text()


@pytest.mark.parametrize("name", [name for name in golden_cases.names() if name.startswith("openvpi")])
def test_names_and_shapes_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    case = golden_cases.read(name)
    model = LoadedModel(build(case.kind, case.config, case.state()), case.kind, name, "")
    write_checkpoint(model, tmp_path)
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert {key: value.shape for key, value in content["generator"].items()} == {
        key: value.shape for key, value in case.state().items()
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert {key: value for key, value in case.config.items() if key in config} == config
    assert not (tmp_path / "NOTICE.txt").exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("so-vits-svc", "sings a latent"),
        ("spectral", "the layout holds NSF-HiFi-GAN alone; for OpenUtau use 'melisma export openutau'"),
    ],
)
def test_kinds_that_cannot_be_are_refused(kind: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(MelismaError, match=said):
        write_checkpoint(loaded(kind), tmp_path / "voc")
    assert not (tmp_path / "voc").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation": "snakebeta"}, "its activation is snakebeta"),
        ({"unvoiced": "zero"}, "wants F0 = 0 in unvoiced frames"),
        ({"overtones": 3}, "it has 3 overtones"),
        ({"padding": "up"}, "pads as so-vits-svc's does"),
        ({"speaker_channels": 4}, "speaker input"),
        ({"final_bias": False}, "last layer"),
    ],
)
def test_settings_that_the_layout_lacks_are_named(changes: dict, said: str, tmp_path: Path) -> None:
    model = loaded("openvpi")
    model.generator.config = dataclasses.replace(model.generator.config, **changes)
    with pytest.raises(MelismaError, match=said):
        write_checkpoint(model, tmp_path)

"""Graphs of every kind of model: onnxruntime sings what torch sings."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from kinds import BAKED_SPEAKER, CONFIGS, NOISE_INPUTS, SPEAKERS, exported, loaded, options

from melisma.errors import MelismaError
from melisma.export.check import TOLERANCE, cases, check, rounding
from melisma.export.graph import ExportGraph, GraphOptions
from melisma.export.onnx_file import open_session
from melisma.export.reader import OnnxModel, describe_graph
from melisma.generators import GENERATORS, name_of
from melisma.inference.vocoder import Info, Vocoder
from melisma.kernels import choice


def test_every_generator_of_the_table_is_tried() -> None:
    assert {name_of(loaded(kind).generator) for kind in CONFIGS} == set(GENERATORS)


@pytest.mark.parametrize("kind", CONFIGS)
def test_onnxruntime_agrees_with_torch(kind: str) -> None:
    graph = exported(kind)  # refuses to finish otherwise; what it looks at stands in the next test
    assert graph.worst <= TOLERANCE
    assert graph.loss is None
    model = onnx.load_from_string(graph.content)
    onnx.checker.check_model(model)
    assert not any(tensor.HasField("data_location") and tensor.data_location for tensor in model.graph.initializer)
    config = CONFIGS[kind]
    expected = ["features"]
    expected += ["f0_hz"] if getattr(config, "source", "harmonic") != "none" else []
    expected += ["speaker"] if getattr(config, "speaker_channels", 0) and kind not in BAKED_SPEAKER else []
    names = [value.name for value in model.graph.input]
    assert names[: len(expected)] == expected
    assert bool(names[len(expected) :]) == (kind in NOISE_INPUTS)
    axes = [axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", "", "frames"]


def test_what_agreement_means() -> None:
    graph = ExportGraph(loaded("openvpi").generator, options("openvpi"))
    names = [case.name for case in cases(graph)]
    assert len({case.features.shape[2] for case in cases(graph) if case.features.shape[0] == 1}) == 5
    assert any(case.features.shape[0] == 2 for case in cases(graph))
    for voicing in ("voiced", "unvoiced", "f0 = 0"):
        assert sum(voicing in name for name in names) >= 5


@pytest.mark.parametrize("kind", ["so-vits-svc", "openvpi", "spectral"])
def test_a_settled_seed_is_the_seed_of_synthesize(kind: str) -> None:
    model, given = OnnxModel(exported(kind).content, kind), loaded(kind)
    graph = ExportGraph(given.generator, options(kind))
    case = next(case for case in cases(graph) if "61 frames, unvoiced" in case.name)
    vocoder = Vocoder(given.generator, Info(kind, kind), given.speakers)
    speaker = {} if case.speaker is None else {"speaker": case.speaker.numpy()}
    audio = model.run(case.features.numpy(), case.f0_hz.numpy(), **speaker)
    wanted = vocoder.synthesize(case.features, case.f0_hz, speaker=case.speaker, seed=3)
    other = vocoder.synthesize(case.features, case.f0_hz, speaker=case.speaker, seed=4)
    assert np.abs(audio - wanted).max() <= TOLERANCE * wanted.std()
    assert np.abs(audio - other).max() > 1e-3 * wanted.std()


def test_how_far_another_rounding_moves_the_audio() -> None:
    generator = loaded("spectral").generator
    graphs = [ExportGraph(generator, GraphOptions(projections=rounds)) for rounds in (0, 1)]
    plain, projected = (rounding(graph) for graph in graphs)
    assert 0.0 < plain < projected  # kernels sing both, and rounds amplify what differs
    with choice.plain():
        reference_alone = rounding(graphs[0])
    assert reference_alone == plain  # what is asked for decides, not what surrounds it


def test_a_graph_that_differs_is_refused_and_the_case_is_named() -> None:
    session = open_session(exported("openvpi").content)
    other = loaded("openvpi").generator
    with torch.no_grad():
        other.conv_post.bias.add_(1e-3)
    with pytest.raises(MelismaError, match=r"differs from torch by .* at 1 frames, voiced"):
        check(session, ExportGraph(other, options("openvpi")))


def test_metadata_carries_the_contracts() -> None:
    model = onnx.load_from_string(exported("openvpi").content)
    facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["melisma"])
    assert facts["mel"]["n_fft"] == 2048
    assert facts["mel"]["log_base"] == "e"
    assert facts["f0"] == {"contract": "interpolated", "range_hz": [60.0, 1200.0]}
    assert (facts["licence"], facts["provenance"], facts["name"], facts["version"]) == (
        "MIT", "a test", "openvpi", "1.2",
    )  # fmt: skip
    assert facts["graph"]["seed"] == 3
    assert facts["graph"]["frames"][0] == 1
    lines = describe_graph(OnnxModel(exported("openvpi").content, "x"))
    assert "interpolated" in lines["f0"]
    assert "60 to 1200 Hz" in lines["f0"]
    assert "seed 3" in lines["noise"]


def test_reader_says_what_is_wrong(tmp_path: Path) -> None:
    model = OnnxModel(exported("so-vits-svc").content, "m.onnx")
    features, f0_hz, speaker = np.zeros((1, 6, 9)), np.zeros((1, 9)), np.zeros((1, SPEAKERS, 1))
    assert model.run(features, f0_hz, speaker=speaker).shape == (1, 9 * 4)
    low, high = model.graph["frames"]
    with pytest.raises(MelismaError, match=f"{high + 1} frames are outside the exported range of {low} to {high}"):
        model.run(np.broadcast_to(np.zeros((1, 6, 1)), (1, 6, high + 1)), None, speaker=speaker)
    with pytest.raises(MelismaError, match=r"F0 \(1, 8\) must be \(batch, frames\)"):
        model.run(features, f0_hz[:, :8], speaker=speaker)
    with pytest.raises(MelismaError, match=r"the input 'speaker' .* is missing"):
        model.run(features, f0_hz)
    with pytest.raises(MelismaError, match="has no input gain"):
        model.run(features, f0_hz, speaker=speaker, gain=np.ones(1))
    with pytest.raises(MelismaError, match=r"m\.onnx"):
        model.run(np.zeros((1, 7, 9)), f0_hz, speaker=speaker)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported("so-vits-svc").content[:1000])
    with pytest.raises(MelismaError, match="is it a whole ONNX file"):
        OnnxModel.open(broken)
    foreign = onnx.load_from_string(exported("so-vits-svc").content)
    del foreign.metadata_props[:]
    with pytest.raises(MelismaError, match="melisma did not export"):
        OnnxModel(foreign.SerializeToString(), "foreign.onnx")


def test_a_spectral_graph_needs_more_than_its_padding() -> None:
    model = OnnxModel(exported("spectral").content, "m.onnx")
    assert model.graph["frames"][0] == 2
    with pytest.raises(MelismaError, match="1 frames are outside the exported range"):
        model.run(np.zeros((1, 40, 1)), np.zeros((1, 1)))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(MelismaError, match="no speakers"):
        ExportGraph(loaded("hifi-gan").generator, GraphOptions(speaker=torch.zeros(1, 4, 1)))

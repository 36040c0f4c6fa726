"""Smaller weights: what becomes of them, and that the stated loss is the real one."""

import numpy as np
import onnx
import pytest
from kinds import exported, loaded, options

from melisma.export.check import cases, sung
from melisma.export.graph import ExportGraph
from melisma.export.onnx_file import open_session
from melisma.export.precision import loss, lowered

KIND = "openvpi"


@pytest.mark.parametrize(("precision", "share", "lowest_db"), [("float16", 0.5, 55.0), ("int8", 0.25, 25.0)])
def test_smaller_weights_cost_what_is_stated(
    precision: str, share: float, lowest_db: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = onnx.load_from_string(exported(KIND).content)
    small = lowered(full, loaded(KIND).generator, precision)  # type: ignore[arg-type]
    onnx.checker.check_model(small)
    graph = ExportGraph(loaded(KIND).generator, options(KIND))
    sessions = [open_session(model.SerializeToString()) for model in (small, full)]
    few = [case for case in cases(graph) if "24 frames" in case.name]
    monkeypatch.setattr("melisma.export.precision.cases", lambda graph: few)
    stated = loss(*sessions, graph)
    assert lowest_db < stated.snr_db < 150.0
    assert 0.0 < stated.log_mel < 0.1
    signal = noise = 0.0
    for case in few:
        audio, wanted = (sung(session, graph, case) for session in sessions)
        signal += float((wanted.astype(np.float64) ** 2).sum())
        noise += float(((audio - wanted).astype(np.float64) ** 2).sum())
    assert stated.snr_db == pytest.approx(10 * np.log10(signal / noise), abs=0.01)
    kept = {tensor.name for tensor in small.graph.initializer} & {tensor.name for tensor in full.graph.initializer}
    lost = [tensor for tensor in full.graph.initializer if tensor.name not in kept]
    new = [tensor for tensor in small.graph.initializer if tensor.name not in kept]
    assert {tuple(tensor.dims) for tensor in lost} == {
        tuple(value.shape) for value in loaded(KIND).generator.parameters() if value.ndim == 3 and value.numel() >= 256
    }
    sizes = [sum(len(tensor.raw_data) for tensor in tensors) for tensors in (new, lost)]
    assert share <= sizes[0] / sizes[1] < share + 0.1


def test_float32_is_left_alone() -> None:
    full = onnx.load_from_string(exported(KIND).content)
    assert lowered(full, loaded(KIND).generator, "float32") == full


def test_what_float16_cannot_hold_stays() -> None:
    generator = loaded(KIND).generator
    generator.conv_pre.weight[0, 0, 0] = 1e6
    values = generator.conv_pre.weight.numpy()
    model = onnx.helper.make_model(
        onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(values, "conv_pre")])
    )
    assert lowered(model, generator, "float16").graph.initializer[0].data_type == onnx.TensorProto.FLOAT
    assert lowered(model, generator, "int8").graph.initializer[0].data_type == onnx.TensorProto.INT8

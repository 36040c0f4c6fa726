"""Smaller weights in an exported model, and what they cost in sound.

Only weights change. Source, phase, noise and transforms stay in the precision that they were traced in, and every
product is still computed in float32: the graph widens a weight before it is used.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from melisma.audio.mel import MelContract, log_mel
from melisma.export.check import cases, sung
from melisma.export.graph import ExportGraph

Precision = Literal["float32", "float16", "int8"]
_SMALLEST = 256  # a weight with fewer values is not worth a node
_STEPS = 127


@dataclass(frozen=True)
class Loss:
    """What a smaller precision costs, over all cases of the check.

    Attributes:
        snr_db: power of the float32 output over that of the difference.
        log_mel: mean difference of the log-mels, nepers.
    """

    snr_db: float
    log_mel: float


def lowered(model: Any, generator: nn.Module, precision: Precision) -> Any:
    """A copy of a float32 model with its weights in another precision.

    Args:
        model: ``onnx.ModelProto``.
        generator: whose weights they are; vectors and small weights stay as they are.
        precision: ``float16`` halves the file; ``int8`` quarters it, with one scale for each output channel.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if precision == "float32":
        return copy
    axes = _output_axes(copy, generator)
    nodes, initialisers = [], []
    for tensor in copy.graph.initializer:
        made: list[Any] = []
        if tensor.name in axes:
            values = onnx.numpy_helper.to_array(tensor)
            lower = _float16 if precision == "float16" else _int8
            made, widened = lower(tensor.name, values, axes[tensor.name])
            nodes += widened
        initialisers += made or [tensor]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(initialisers)
    kept = list(copy.graph.node)
    del copy.graph.node[:]
    copy.graph.node.extend([*nodes, *kept])
    return copy


def _output_axes(model: Any, generator: nn.Module) -> dict[str, int]:
    """Initialiser -> axis of its output channels, of all large weights.

    They are known by their values: on the way to the graph a matrix may be transposed and lose its name.
    """
    import onnx

    known: dict[tuple[tuple[int, ...], bytes], int] = {}
    for part in generator.modules():
        for parameter in part.parameters(recurse=False):
            values = parameter.detach().numpy()
            if values.ndim < 2 or values.size < _SMALLEST:
                continue
            axis = 1 if isinstance(part, nn.ConvTranspose1d) else 0
            known[_identity(values)] = axis
            if values.ndim == 2:
                known[_identity(values.T)] = 1 - axis
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {name: known[_identity(values)] for name, values in arrays.items() if _identity(values) in known}


def _identity(values: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return values.shape, hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


def _float16(name: str, values: np.ndarray, axis: int) -> tuple[list[Any], list[Any]]:
    import onnx

    if np.abs(values).max() > np.finfo(np.float16).max:
        return [], []
    small = onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.float16")
    return [small], [onnx.helper.make_node("Cast", [small.name], [name], to=onnx.TensorProto.FLOAT)]


def _int8(name: str, values: np.ndarray, axis: int) -> tuple[list[Any], list[Any]]:
    import onnx

    others = tuple(other for other in range(values.ndim) if other != axis)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12) / _STEPS
    steps = np.clip(np.rint(values / scale), -_STEPS, _STEPS).astype(np.int8)
    tensors = [
        onnx.numpy_helper.from_array(steps, f"{name}.int8"),
        onnx.numpy_helper.from_array(scale.reshape(-1).astype(np.float32), f"{name}.scale"),
    ]
    names = [tensor.name for tensor in tensors]
    return tensors, [onnx.helper.make_node("DequantizeLinear", names, [name], axis=axis)]


def loss(session: Any, full: Any, graph: ExportGraph) -> Loss:
    """Compare a session of the smaller model with one of the float32 model."""
    generator = graph.generator
    mel = generator.mel or MelContract(generator.sample_rate, 2048, 2048, 512, 80, 0.0, None)
    signal = noise = 0.0
    apart = []
    for case in cases(graph):
        audio, wanted = sung(session, graph, case), sung(full, graph, case)
        signal += float(np.square(wanted, dtype=np.float64).sum())
        noise += float(np.square(audio - wanted, dtype=np.float64).sum())
        rows = [np.ascontiguousarray(values.reshape(len(values), -1)) for values in (audio, wanted)]
        one, other = (_log_mel(values, mel) for values in rows)
        apart.append(float(np.abs(one - other).mean()))
    return Loss(float(10.0 * np.log10(max(signal, 1e-20) / max(noise, 1e-20))), float(np.mean(apart)))


def _log_mel(rows: np.ndarray, mel: MelContract) -> np.ndarray:
    values: np.ndarray = log_mel(torch.from_numpy(rows), mel).numpy()
    return values if mel.log_base == "e" else values * np.log(10.0)

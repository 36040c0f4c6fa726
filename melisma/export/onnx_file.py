"""``melisma export onnx``: one file that says everything about itself, written when onnxruntime agrees with torch."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melisma.errors import MelismaError
from melisma.export.check import TOLERANCE, check
from melisma.export.graph import LONGEST, MOST, ExportGraph, GraphOptions, shortest
from melisma.export.precision import Loss, Precision, loss, lowered
from melisma.export.trace import DEFAULT_OPSET, LARGEST, build, require
from melisma.files import replace_on_success
from melisma.interop.loaded import LoadedModel
from melisma.interop.own import KEY, header
from melisma.layers.weight_norm import fold

Report = Callable[[float], None]


@dataclass(frozen=True)
class Exported:
    """A finished graph.

    Attributes:
        content: the file's bytes.
        inputs: names of the inputs.
        worst: largest difference between onnxruntime and torch in float32, in standard deviations of the output.
        loss: what a lower precision cost, ``None`` for float32.
    """

    content: bytes
    inputs: tuple[str, ...]
    worst: float
    loss: Loss | None


def export_onnx(
    loaded: LoadedModel,
    options: GraphOptions,
    precision: Precision = "float32",
    opset: int = DEFAULT_OPSET,
    report: Report = lambda done: None,
) -> Exported:
    """Export a model, check it in onnxruntime, and describe it in its metadata.

    Args:
        loaded: the model; it is not changed.
        options: names, seed, speaker, projections.
        precision: of the weights; see :mod:`melisma.export.precision`.
        opset: of the ONNX operators.
        report: called with the share done.

    Raises:
        MelismaError: a missing package, an unsupported opset, more than 2 GB, or a graph that does not sing what torch
            sings; the failing case is named.
    """
    require("onnxruntime")
    generator = fold(copy.deepcopy(loaded.generator)).float().cpu().eval().requires_grad_(False)
    graph, model = build(generator, options, opset)
    report(0.4)
    session = open_session(_bytes(model))
    worst = check(session, graph, lambda done: report(0.4 + 0.4 * done))
    model = lowered(model, graph.generator, precision)
    lost = None
    if precision != "float32":
        lost = loss(open_session(_bytes(model)), session, graph)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(_metadata(loaded, graph, precision, opset, worst, lost))
    model.producer_name = "melisma"
    report(1.0)
    return Exported(_bytes(model), tuple(graph.names), worst, lost)


def write(exported: Exported, path: Path) -> None:
    """Write a finished graph as a file that appears whole or not at all."""
    with replace_on_success(path) as temporary:
        temporary.write_bytes(exported.content)


def open_session(content: bytes, threads: int = 0) -> Any:
    """A session of onnxruntime on the CPU; ``threads`` 0 leaves the choice to it."""
    onnxruntime = require("onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4  # its errors come as exceptions too
    try:
        return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds
        raise MelismaError(f"onnxruntime cannot load the graph: {str(error).splitlines()[0][:200]}") from error


def _bytes(model: Any) -> bytes:
    if model.ByteSize() > LARGEST:
        raise MelismaError(
            f"the graph has {model.ByteSize() / 1e9:.1f} GB; a single ONNX file holds at most 2.1 GB: "
            "export a smaller precision"
        )
    content: bytes = model.SerializeToString()
    return content


def _metadata(
    loaded: LoadedModel, graph: ExportGraph, precision: str, opset: int, worst: float, lost: Loss | None
) -> dict[str, Any]:
    """The header of our own files, and what is true of the graph alone."""
    options, generator = graph.options, graph.generator
    facts = header(
        generator,
        loaded.name,
        loaded.version,
        loaded.licence,
        loaded.provenance or f"exported from {loaded.kind} ({loaded.name})",
        loaded.f0_range_hz,
        loaded.speaker_names,
    )
    layout = options.layout
    default = getattr(generator, "default_projections", None)
    facts["graph"] = {
        "sample_rate": generator.sample_rate,
        "hop_length": generator.hop_length,
        "inputs": list(graph.names),
        "output": layout.audio,
        "layout": asdict(layout),
        "frames": [shortest(generator, options.projections), LONGEST],
        "batch": [1, MOST],
        "unvoiced_f0": "0",
        "seed": options.seed,
        "speaker": "in the graph" if options.speaker is not None else None,
        "projections": default if options.projections is None else options.projections,
        "precision": precision,
        "opset": opset,
        "agreement": {"worst": worst, "allowed": TOLERANCE, "in": "standard deviations of the output, float32"},
        "loss": None if lost is None else asdict(lost),
    }
    return facts

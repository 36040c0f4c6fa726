"""From a generator to one ONNX model in memory: traced, translated, tidied."""

import importlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from melisma.errors import MelismaError
from melisma.export.graph import ExportGraph, GraphOptions
from melisma.kernels.choice import plain

OPSETS = range(18, 24)  # the exporter writes 18; what it can raise it to
DEFAULT_OPSET = 18
LARGEST = (1 << 31) - 1  # bytes that one protobuf message can hold


def require(package: str) -> Any:
    """Import a package of the extra ``export``; a missing one is an error with the cure."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MelismaError(
            f"the package {error.name!r} is missing; install melisma with its extra: '.[export]'"
        ) from error


def check_opset(opset: int) -> int:
    """Refuse opsets that cannot be written."""
    if opset not in OPSETS:
        raise MelismaError(
            f"opset {opset} is not supported; use {OPSETS[0]} to {OPSETS[-1]} ({DEFAULT_OPSET} is the usual one)"
        )
    return opset


def trace(graph: ExportGraph, opset: int = DEFAULT_OPSET) -> Any:
    """Trace a graph with free batch and length.

    Args:
        graph: what to trace; its generator in float32 on the CPU.
        opset: of the ONNX operators.

    Returns:
        ``onnx.ModelProto`` in float32, all weights inside.

    Raises:
        MelismaError: a missing package, an unsupported opset, a model beyond 2 GB, or one that cannot be traced.
    """
    check_opset(opset)
    require("onnx")
    require("onnxscript")
    size = sum(value.numel() * 4 for value in graph.state_dict().values())
    if size > LARGEST:
        raise MelismaError(f"{size / 1e9:.1f} GB of weights; a single ONNX file holds at most 2.1 GB in float32")
    names, frames_axis = graph.names, 1 if graph.options.layout.frames_first else 2
    return convert(
        graph, graph.example(), graph.dynamic_shapes(), names, graph.options.layout.audio, frames_axis, opset
    )


def convert(
    module: nn.Module,
    example: tuple[Tensor, ...],
    dynamic_shapes: tuple[dict[int, Any], ...],
    inputs: list[str],
    output: str,
    frames_axis: int,
    opset: int = DEFAULT_OPSET,
) -> Any:
    """Trace a module whose forward takes ``*values``, see :func:`trace`; ``frames_axis`` is that of the first input."""
    from melisma.export.translations import translations

    with torch.no_grad(), _quietly():
        with plain():  # as it is traced
            module(*example)  # makes what is kept (melisma.constants), which not every torch can while it traces
        try:
            exported = torch.export.export(module, example, dynamic_shapes=(dynamic_shapes,), strict=False)
            _in_real_numbers(exported.graph_module)
            program = torch.onnx.export(
                exported,
                input_names=inputs,
                output_names=[output],
                opset_version=opset,
                custom_translation_table=translations(),
                dynamo=True,
                optimize=False,  # matching patterns takes minutes; onnxruntime optimises when it loads
                verbose=False,
            )
        except MelismaError:
            raise
        except Exception as error:  # the exporter raises many kinds
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = lines[0][:200] if lines else type(error).__name__
            raise MelismaError(f"torch cannot export this model: {reason}; --debug shows where") from error
    assert program is not None
    model = _tidy(program.model)
    _name_axes(model, frames_axis)
    return model


def build(generator: nn.Module, options: GraphOptions, opset: int = DEFAULT_OPSET) -> tuple[ExportGraph, Any]:
    """The graph of a generator and its ONNX model; see :func:`trace`."""
    graph = ExportGraph(generator, options).eval()
    return graph, trace(graph, opset)


def _in_real_numbers(module: torch.fx.GraphModule) -> None:
    """Rewrite the operators on complex numbers that the exporter lacks or writes badly; its table does not reach them.

    The inverse FFT becomes ours, a complex number times a real one two products instead of four, and padding that of
    both parts.
    """
    for node in list(module.graph.nodes):
        replacement: torch.fx.Node | None = None
        with module.graph.inserting_before(node):
            if node.target is torch.ops.aten.fft_irfft.default:
                replacement = _inverse(module, node)
            elif node.target is torch.ops.aten.mul.Tensor:
                replacement = _scaled(module, node)
            elif node.target is torch.ops.aten.pad.default:
                replacement = _padded(module, node)
        if replacement is not None:
            node.replace_all_uses_with(replacement)
            module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()


def _inverse(module: torch.fx.GraphModule, node: torch.fx.Node) -> torch.fx.Node:
    """``melisma::inverse_real_fft`` in place of ``torch.fft.irfft``."""
    spectrum, *rest = node.args
    assert isinstance(spectrum, torch.fx.Node)
    dim = rest[1] if len(rest) > 1 else node.kwargs.get("dim", -1)
    norm = rest[2] if len(rest) > 2 else node.kwargs.get("norm")
    value, result = spectrum.meta["val"], node.meta["val"]
    points = int(result.shape[-1])
    whole = int(value.shape[-1]) == points // 2 + 1
    if dim not in (-1, value.ndim - 1) or norm not in (None, "backward") or not whole:
        raise MelismaError("only an irfft of a whole spectrum along the last axis, as it is usual, can be exported")
    if value.is_complex():
        pairs = _parts(module, spectrum)
    else:
        zeros = _call(module, value, torch.ops.aten.zeros_like.default, spectrum)
        both = value.new_empty(*value.shape, 2)
        pairs = _call(module, both, torch.ops.aten.stack.default, [spectrum, zeros], -1)
    return _call(module, result, torch.ops.melisma.inverse_real_fft.default, pairs, points)


def _scaled(module: torch.fx.GraphModule, node: torch.fx.Node) -> torch.fx.Node | None:
    """Both parts of a complex tensor times a real one; None for other products."""
    factors = [factor for factor in node.args if isinstance(factor, torch.fx.Node)]
    values = [factor.meta["val"] for factor in factors]
    if len(factors) != 2 or values[0].is_complex() == values[1].is_complex():
        return None
    spectrum, gain = factors if values[0].is_complex() else factors[::-1]
    result = node.meta["val"]
    column = _call(module, gain.meta["val"].unsqueeze(-1), torch.ops.aten.unsqueeze.default, gain, -1)
    scaled = _call(module, torch.view_as_real(result), torch.ops.aten.mul.Tensor, _parts(module, spectrum), column)
    return _call(module, result, torch.ops.aten.view_as_complex.default, scaled)


def _padded(module: torch.fx.GraphModule, node: torch.fx.Node) -> torch.fx.Node | None:
    """A complex tensor with zeros around it; None for real ones."""
    spectrum, amounts, *rest = node.args
    assert isinstance(spectrum, torch.fx.Node)
    assert isinstance(amounts, list | tuple)
    if not spectrum.meta["val"].is_complex():
        return None
    if rest or node.kwargs:
        raise MelismaError("only zeros around a complex tensor can be exported")
    result = node.meta["val"]
    arguments = (_parts(module, spectrum), [0, 0, *amounts])
    padded = _call(module, torch.view_as_real(result), torch.ops.aten.pad.default, *arguments)
    return _call(module, result, torch.ops.aten.view_as_complex.default, padded)


def _parts(module: torch.fx.GraphModule, spectrum: torch.fx.Node) -> torch.fx.Node:
    """Real and imaginary part of a complex node along a last axis."""
    value = torch.view_as_real(spectrum.meta["val"])
    return _call(module, value, torch.ops.aten.view_as_real.default, spectrum)


def _call(module: torch.fx.GraphModule, value: Tensor, target: Any, *arguments: Any) -> torch.fx.Node:
    """A new node with its value's shape, which the exporter wants to know.

    The value is a view of a known one: to compute it anew would settle the sizes that are to stay free.
    """
    node = module.graph.call_function(target, arguments)
    node.meta["val"] = value
    return node


def _name_axes(model: Any, frames_axis: int) -> None:
    """Call the free axes ``batch`` and ``frames``; the tracer has numbered them."""
    features = model.graph.input[0].type.tensor_type.shape.dim
    names = {features[0].dim_param: "batch", features[frames_axis].dim_param: "frames"}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), axis.dim_param)


def _tidy(model: Any) -> Any:
    """Fold constants, drop doubles and what nobody uses; give the protobuf message."""
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    for step in (
        common.CommonSubexpressionEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(size_limit=1 << 40),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        step(model)
    return onnx_ir.to_proto(model)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's warnings, which speak to its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.__trace", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""Operators that onnxruntime lacks or runs badly, written in ones that it runs well.

``torch.onnx`` translates the operators of a traced model one by one; this table takes precedence over its own. The
models stay as they are: nothing in them knows that it is exported.

A real FFT becomes two matrix products (the first step of Cooley & Tukey 1965, once): ``n = n1 * n2`` points cost
``n * (n1 + n2)`` multiplications instead of ``n * n``, and the constants are a thousandth of the full basis'. At 2048
points that is six times faster in onnxruntime than the full basis and four times faster than its own ``DFT``.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnxscript import opset18

from melisma.errors import MelismaError

op: Any = opset18  # its own types are those of ONNX's type variables, which say nothing about tracing
# Up to this length the full basis is as fast as two steps.
_FULL_BASIS = 256
_NO_SCALE = 0  # torch's name for an FFT without normalisation


def factors(points: int) -> tuple[int, int] | None:
    """``(n1, n2)`` with ``n1 * n2 = points``, ``n2`` even and both near the root; None where the full basis serves."""
    if points <= _FULL_BASIS:
        return None
    pairs = [(n1, points // n1) for n1 in range(2, math.isqrt(points) + 1) if points % (2 * n1) == 0]
    best = max(pairs, default=None)
    return best if best is not None and sum(best) < points // 4 else None


def _turns(rows: int, columns: int, points: int) -> np.ndarray:
    """``exp(-2 pi i row * column / points)``, float64."""
    return np.exp(-2j * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % points) / points)


def _constant(values: Any) -> Any:
    array = np.asarray(values)
    tensor = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
    import onnx_ir

    return op.Constant(value=onnx_ir.tensor(tensor))


def _exactly(x: Any, basis: np.ndarray) -> Any:
    """``x @ basis`` in double precision, as single precision: what an FFT rounds less than a sum over all points.

    The rounds of a mel projection on its low band, whose transforms are this short, amplify rounding.
    """
    import onnx_ir

    matrix = op.Constant(value=onnx_ir.tensor(basis.astype(np.float64)))
    product = op.MatMul(op.Cast(x, to=onnx_ir.DataType.DOUBLE), matrix)
    return op.Cast(product, to=onnx_ir.DataType.FLOAT)


def _leading(x: Any, *last: int) -> Any:
    """The shape of ``x`` with its last axis replaced, as a tensor."""
    return op.Concat(op.Slice(op.Shape(x), _constant([0]), _constant([-1])), _constant(list(last)), axis=0)


def _two_steps(points: int, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of both steps: ``(n2, n1, re|im, k1)`` with the twiddle factors, and ``(k2, re|im, n2, re|im)``."""
    inner = _turns(first, first, first)[None] * _turns(second, first, points)[:, None, :]
    outer = _turns(second // 2 + 1, second, second)
    rotation = np.stack([np.stack([outer.real, -outer.imag], -1), np.stack([outer.imag, outer.real], -1)], 1)
    return np.stack([inner.real, inner.imag], -2), rotation


def real_fft(x: Any, dim: Any, normalization: int, onesided: bool) -> Any:
    """``aten._fft_r2c`` along the last axis: ``(..., n)`` -> ``(..., n // 2 + 1, 2)``."""
    if list(dim) not in ([-1], [len(x.shape) - 1]) or normalization != _NO_SCALE or not onesided:
        raise MelismaError("only a plain one-sided rfft along the last axis can be exported")
    points = int(x.shape[-1])
    bins, split = points // 2 + 1, factors(points)
    if split is None:
        turns = _turns(points, bins, points)
        basis = np.stack([turns.real, turns.imag], -1).reshape(points, 2 * bins)
        return op.Reshape(_exactly(x, basis), _leading(x, bins, 2))
    n1, n2 = split
    inner, outer = _two_steps(points, n1, n2)
    columns = op.Transpose(op.Reshape(x, _constant([-1, n1, n2])), perm=[2, 0, 1])
    stepped = op.MatMul(columns, _constant(inner.reshape(n2, n1, 2 * n1)))  # n2, rows, (re|im, k1)
    rows = op.Reshape(op.Transpose(stepped, perm=[1, 0, 2]), _constant([-1, 2 * n2, n1]))
    spectrum = op.MatMul(_constant(outer.reshape(n2 + 2, 2 * n2)), rows)  # rows, (k2, re|im), k1
    spectrum = op.Transpose(op.Reshape(spectrum, _constant([-1, n2 // 2 + 1, 2, n1])), perm=[0, 1, 3, 2])
    spectrum = op.Reshape(spectrum, _constant([-1, (n2 // 2 + 1) * n1, 2]))
    kept = op.Slice(spectrum, _constant([0]), _constant([bins]), _constant([1]))
    return op.Reshape(kept, _leading(x, bins, 2))


@torch.library.custom_op("melisma::inverse_real_fft", mutates_args=())
def inverse(pairs: torch.Tensor, points: int) -> torch.Tensor:
    """``torch.fft.irfft`` of real and imaginary part, ``(..., n // 2 + 1, 2)`` -> ``(..., n)``.

    An operator of our own, because the exporter's table passes over operators with complex inputs.
    """
    return torch.fft.irfft(torch.view_as_complex(pairs.contiguous()), n=points)


@inverse.register_fake
def _(pairs: torch.Tensor, points: int) -> torch.Tensor:
    return pairs.new_empty(*pairs.shape[:-2], points)


def inverse_real_fft(x: Any, points: int) -> Any:
    """``melisma::inverse_real_fft``: ``(..., n // 2 + 1, 2)`` -> ``(..., n)``, ``n`` even."""
    if points % 2:
        raise MelismaError(f"an irfft of {points} points cannot be exported; take an even number")
    bins, split = points // 2 + 1, factors(points)
    weights = np.full((bins, 2), 2.0 / points)  # every bin but the first and the last stands for two
    weights[[0, -1]] = 1.0 / points
    shape = op.Slice(op.Shape(x), _constant([0]), _constant([-2]))
    shape = op.Concat(shape, _constant([points]), axis=0)
    if split is None:
        turns = _turns(bins, points, points) * weights[:, :1]
        basis = np.stack([turns.real, turns.imag], 1).reshape(2 * bins, points)
        return op.Reshape(_exactly(op.Reshape(x, _constant([-1, 2 * bins])), basis), shape)
    n1, n2 = split
    inner, outer = _two_steps(points, n1, n2)
    weighted = op.Reshape(op.Mul(x, _constant(weights)), _constant([-1, bins, 2]))
    padded = op.Pad(weighted, _constant([0, 0, 0, 0, (n2 // 2 + 1) * n1 - bins, 0]))
    rows = op.Transpose(op.Reshape(padded, _constant([-1, n2 // 2 + 1, n1, 2])), perm=[0, 1, 3, 2])
    rows = op.Reshape(rows, _constant([-1, n2 + 2, n1]))
    stepped = op.MatMul(_constant(outer.reshape(n2 + 2, 2 * n2).T), rows)  # rows, (n2, re|im), k1
    columns = op.Transpose(op.Reshape(stepped, _constant([-1, n2, 2 * n1])), perm=[1, 0, 2])
    signal = op.MatMul(columns, _constant(inner.reshape(n2, n1, 2 * n1).transpose(0, 2, 1)))  # n2, rows, n1
    return op.Reshape(op.Transpose(signal, perm=[1, 2, 0]), shape)


def slice_scatter(x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """``aten.slice_scatter`` with step one: what stands before, the new part, what stands behind."""
    if step != 1:
        raise MelismaError("writing to every other element of a slice cannot be exported")
    axis = _constant([dim])
    size = op.Shape(src, start=dim, end=dim + 1) if dim >= 0 else None
    if size is None:
        raise MelismaError("slice_scatter along an axis counted from the end cannot be exported")
    first = _constant([int(start or 0)])
    before = op.Slice(x, _constant([0]), first, axis)
    behind = op.Slice(x, op.Add(first, size), _constant([np.iinfo(np.int64).max]), axis)
    return op.Concat(before, src, behind, axis=dim)


def unfold(x: Any, dimension: int, size: int, step: int) -> Any:
    """``aten.unfold`` of the last axis: overlapping pieces, copied in blocks of ``step`` where it divides ``size``."""
    if dimension not in (-1, len(x.shape) - 1):
        raise MelismaError("only the last axis can be unfolded in an export")
    length = op.Shape(x, start=-1)
    count = op.Add(op.Div(op.Sub(length, _constant([size])), _constant([step])), _constant([1]))
    if size % step:
        starts = op.Mul(op.Range(_constant(0), op.Squeeze(count), _constant(1)), _constant(step))
        index = op.Add(op.Unsqueeze(starts, _constant([1])), _constant(np.arange(size)[None]))
        return op.Gather(x, index, axis=-1)
    blocks = op.Add(count, _constant([size // step - 1]))
    kept = op.Slice(x, _constant([0]), op.Mul(blocks, _constant([step])), _constant([-1]))
    kept = op.Reshape(kept, op.Concat(op.Shape(x, end=-1), _constant([-1, step]), axis=0))
    shifted = [
        op.Slice(kept, _constant([block]), op.Add(count, _constant([block])), _constant([-2]))
        for block in range(size // step)
    ]
    return op.Concat(*shifted, axis=-1)


def sinh(x: Any) -> Any:
    """``aten.sinh`` in double precision, exact near zero; onnxruntime has it in single precision alone."""
    square = op.Mul(x, x)

    def like(value: float) -> Any:
        return op.CastLike(op.Constant(value_float=value), x)

    series = op.Add(op.Div(square, like(42.0)), like(1.0))
    series = op.Add(op.Mul(op.Div(square, like(20.0)), series), like(1.0))
    series = op.Mul(x, op.Add(op.Mul(op.Div(square, like(6.0)), series), like(1.0)))
    grown = op.Exp(x)
    closed = op.Mul(op.Sub(grown, op.Reciprocal(grown)), like(0.5))
    return op.Where(op.Less(square, like(0.01)), series, closed)


def cumulative_sum(x: Any, dim: int, dtype: int = -1) -> Any:
    """``aten.cumsum``; single precision is summed in double, as torch does on the CPU."""
    import onnx_ir

    if dtype != -1:
        x = op.Cast(x, to=dtype)
    kind = x.dtype if dtype == -1 else onnx_ir.DataType(dtype)
    axis = _constant([dim])
    if kind != onnx_ir.DataType.FLOAT:
        return op.CumSum(x, axis)
    return op.Cast(op.CumSum(op.Cast(x, to=onnx_ir.DataType.DOUBLE), axis), to=onnx_ir.DataType.FLOAT)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operator -> its translation, for ``torch.onnx.export(custom_translation_table=...)``."""
    aten = torch.ops.aten
    return {
        aten._fft_r2c.default: real_fft,
        torch.ops.melisma.inverse_real_fft.default: inverse_real_fft,
        aten.slice_scatter.default: slice_scatter,
        aten.unfold.default: unfold,
        aten.sinh.default: sinh,
        aten.cumsum.default: cumulative_sum,
    }

"""Sixteen float32 side by side as one value of numba's.

A loop over sixteen neighbours becomes vector code only where the compiler can prove that no two rows of an array
overlap, and in an FFT it cannot. So rows are loaded, computed with and stored as values of a type of their own, which
LLVM maps to whatever the machine has: one register of AVX-512, two of AVX2, four of NEON.

``lanes`` values know ``+ - * /`` with each other and with float32 scalars. An array of lanes is a float32 array
``(rows, 16)``.
"""

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, registry
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, overload, register_model

from melisma.kernels import LANES
from melisma.kernels.keeping import kept
from melisma.kernels.polynomials import COSINE, DOUBLE_SINE, LOGARITHM, ROUND

# Contraction to fused multiply-add only: reordering sums would undo the rounding trick.
_FAST = frozenset({"contract"})
VECTOR = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """See :func:`melisma.kernels.keeping.kept`."""
    return kept(function, _FAST)


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as part of those that call it."""
    return njit(function, nogil=True, fastmath=set(_FAST), error_model="numpy")


def inner_form(name: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a function of types, like that of :func:`one_of`, to those that say what ``name`` does."""
    options: Any = {"nogil": True, "fastmath": set(_FAST), "error_model": "numpy"}
    return overload(name, jit_options=options, strict=False)  # strictly, types of arguments would have to stand twice


def one_of(choose: Callable[..., Any]) -> Callable[..., Any]:
    """A name for what :func:`inner` would compile, which differs with the types of its arguments.

    ``choose`` gets these types and gives the function, or None where it does not know.
    """

    def name(*values: Any) -> Any:
        raise TypeError("only compiled code calls this")

    inner_form(name)(choose)
    return name


@lru_cache(maxsize=1)
def one_register() -> bool:
    """Whether the machine that numba compiles for holds sixteen float32 in one register."""
    return "+avx512f" in registry.cpu_target.target_context.codegen().magic_tuple()[2]


class Lanes(types.Type):
    """The type of sixteen float32."""

    def __init__(self) -> None:
        super().__init__(name="lanes")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


def spread(builder: Any, value: Any) -> Any:
    """The same scalar in all lanes."""
    if value.type == VECTOR:
        return value
    first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(_WORDS, [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(VECTOR, ir.Undefined), zeros)


def _arithmetic(operation: Any, name: str) -> None:
    pairs = [(lanes, lanes), (lanes, types.float32), (types.float32, lanes)]

    @infer_global(operation)
    class _Typed(ConcreteTemplate):
        cases = [signature(lanes, *pair) for pair in pairs]  # noqa: RUF012

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (spread(builder, value) for value in args)
        return getattr(builder, name)(left, right, flags=("contract",))

    for pair in pairs:
        lower_builtin(operation, *pair)(lowered)


for _operation, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_operation, _name)


def _row(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    index = builder.mul(row, ir.Constant(row.type, LANES))
    return builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())


@intrinsic
def load(typing: Any, array: Any, row: Any) -> Any:
    """``load(array, row)``: row of a contiguous float32 array ``(rows, 16)``."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_row(context, builder, sig.args[0], args[0], args[1]), align=4)

    return lanes(array, types.intp), lowered


@intrinsic
def store(typing: Any, array: Any, row: Any, value: Any) -> Any:
    """``store(array, row, value)``."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _row(context, builder, sig.args[0], args[0], args[1]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), lowered


@intrinsic
def everywhere(typing: Any, value: Any) -> Any:
    """A scalar in all lanes."""
    return lanes(types.float32), lambda context, builder, sig, args: spread(builder, args[0])


def _choose(compare: str) -> Any:
    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (spread(builder, value) for value in args)
        return builder.select(builder.fcmp_ordered(compare, left, right), left, right)

    return lowered


@intrinsic
def larger(typing: Any, value: Any, other: Any) -> Any:
    """The larger of lanes and a scalar; the scalar where a lane is not a number."""
    return lanes(lanes, types.float32), _choose(">")


@intrinsic
def smaller(typing: Any, value: Any, other: Any) -> Any:
    """The smaller of lanes and a scalar; the scalar where a lane is not a number."""
    return lanes(lanes, types.float32), _choose("<")


def _each(name: str) -> Any:
    """A function of LLVM's for each lane."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(VECTOR, [VECTOR])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32"), args)

    return lowered


@intrinsic
def root(typing: Any, value: Any) -> Any:
    """Square root."""
    return lanes(lanes), _each("sqrt")


@intrinsic
def whole_below(typing: Any, value: Any) -> Any:
    """The largest whole number that is not above."""
    return lanes(lanes), _each("floor")


@intrinsic
def where_less(typing: Any, value: Any, limit: Any, then: Any, otherwise: Any) -> Any:
    """``then`` in the lanes whose value is below a scalar, ``otherwise`` in the others."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        is_less = builder.fcmp_ordered("<", args[0], spread(builder, args[1]))
        return builder.select(is_less, args[2], args[3])

    return lanes(lanes, types.float32, lanes, lanes), lowered


@intrinsic
def sum_of(typing: Any, value: Any) -> Any:
    """The sum of all lanes, always in the same order."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            order = [*range(width, 2 * width), *range(LANES - width)]
            value = builder.fadd(value, builder.shuffle_vector(value, value, ir.Constant(_WORDS, order)))
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(lanes), lowered


def _words(value: int) -> Any:
    return ir.Constant(_WORDS, [value] * LANES)


@intrinsic
def mantissa(typing: Any, value: Any) -> Any:
    """Of positive normal numbers, in [0.75, 1.5)."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _WORDS)
        return builder.bitcast(builder.sub(bits, _exponent_bits(builder, bits)), VECTOR)

    return lanes(lanes), lowered


@intrinsic
def exponent(typing: Any, value: Any) -> Any:
    """So that ``value = mantissa * 2 ** exponent``."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _WORDS)
        return builder.sitofp(builder.ashr(_exponent_bits(builder, bits), _words(23)), VECTOR)

    return lanes(lanes), lowered


def _exponent_bits(builder: Any, bits: Any) -> Any:
    away = builder.sub(bits, _words(0x3F400000))  # the bits of 0.75
    return builder.and_(away, _words(-0x800000))


@intrinsic
def power_of_two(typing: Any, value: Any) -> Any:
    """Two to the power of whole numbers from -126 to 127."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = builder.fptosi(args[0], _WORDS)
        return builder.bitcast(builder.shl(builder.add(whole, _words(127)), _words(23)), VECTOR)

    return lanes(lanes), lowered


@intrinsic
def one_down(typing: Any, value: Any, last: Any) -> Any:
    """Every lane takes its right neighbour's value; the last one takes that of ``last``."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        order = [*range(1, LANES), 2 * LANES - 1]
        return builder.shuffle_vector(args[0], args[1], ir.Constant(_WORDS, order))

    return lanes(lanes, lanes), lowered


@intrinsic
def one_up(typing: Any, value: Any) -> Any:
    """Every lane takes its left neighbour's value; the first one becomes 0."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        order = [LANES, *range(LANES - 1)]
        zeros = ir.Constant(VECTOR, [0.0] * LANES)
        return builder.shuffle_vector(args[0], zeros, ir.Constant(_WORDS, order))

    return lanes(lanes), lowered


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """Sixteen lanes as the columns of sixteen others."""
    step = 1
    while step < LANES:
        low = [lane if not lane & step else LANES + lane - step for lane in range(LANES)]
        high = [lane + step if not lane & step else LANES + lane for lane in range(LANES)]
        for first in range(LANES):
            if not first & step:
                pair = rows[first], rows[first + step]
                rows[first], rows[first + step] = (
                    builder.shuffle_vector(*pair, ir.Constant(_WORDS, order)) for order in (low, high)
                )
        step *= 2
    return rows


def _neighbours(context: Any, builder: Any, kind: Any, array: Any, place: Any, step: Any) -> list[Any]:
    """Pointers to sixteen times sixteen neighbours, ``step`` numbers apart."""
    data = context.make_array(kind)(context, builder, array).data
    places = [builder.add(place, builder.mul(step, ir.Constant(step.type, lane))) for lane in range(LANES)]
    return [builder.bitcast(builder.gep(data, [each]), VECTOR.as_pointer()) for each in places]


@intrinsic
def into_lanes(typing: Any, numbers: Any, place: Any, step: Any, array: Any, row: Any) -> Any:
    """Sixteen neighbours from ``place`` on fill lane 0 of sixteen rows, those ``step`` numbers on lane 1, and so on."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sources = _neighbours(context, builder, sig.args[0], args[0], args[1], args[2])
        first = _row(context, builder, sig.args[3], args[3], args[4])
        for number, value in enumerate(_turned(builder, [builder.load(source, align=4) for source in sources])):
            builder.store(value, builder.gep(first, [ir.Constant(args[4].type, number)]), align=4)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, types.intp, array, types.intp), lowered


@intrinsic
def out_of_lanes(typing: Any, array: Any, row: Any, numbers: Any, place: Any, step: Any) -> Any:
    """The inverse of :func:`into_lanes`."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first = _row(context, builder, sig.args[0], args[0], args[1])
        targets = _neighbours(context, builder, sig.args[2], args[2], args[3], args[4])
        places = [builder.gep(first, [ir.Constant(args[1].type, number)]) for number in range(LANES)]
        turned = _turned(builder, [builder.load(each, align=4) for each in places])
        for target, value in zip(targets, turned, strict=True):
            builder.store(value, target, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, numbers, types.intp, types.intp), lowered


_LOG = tuple(np.float32(value) for value in LOGARITHM)
_SIN = tuple(np.float32(value) for value in DOUBLE_SINE)
_COS = tuple(np.float32(value) for value in COSINE)
_ROUND = np.float32(ROUND)
_ONE, _HALF, _TWO_PI = np.float32(1.0), np.float32(0.5), np.float32(1.0 / (2.0 * np.pi))
_LN2, _LOG2E = np.float32(np.log(2.0)), np.float32(1.0 / np.log(2.0))
# The logarithm of two in two parts, the first with few enough bits that products with whole numbers are exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(np.log(2.0) - 0.693359375)
_EXP = tuple(np.float32(1.0 / value) for value in (2.0, 6.0, 24.0, 120.0, 720.0, 5040.0))
_LEAST_EXP, _MOST_EXP = np.float32(-87.0), np.float32(88.0)


@inner
def logarithm(value):  # type: ignore[no-untyped-def]
    """Natural logarithm of positive normal numbers, to 2e-7."""
    r = mantissa(value) - _ONE
    series = r * (_LOG[4] + r * (_LOG[5] + r * (_LOG[6] + r * (_LOG[7] + r * _LOG[8]))))
    series = _LOG[0] + r * (_LOG[1] + r * (_LOG[2] + r * (_LOG[3] + series)))
    return exponent(value) * _LN2 + r * series


@inner
def exponential(value):  # type: ignore[no-untyped-def]
    """Of numbers up to 88, to 2e-7; below -87 it stays at what is there, which is next to nothing."""
    value = smaller(larger(value, _LEAST_EXP), _MOST_EXP)
    whole = (value * _LOG2E + _ROUND) - _ROUND
    r = (value - whole * _LN2_HIGH) - whole * _LN2_LOW
    series = _EXP[1] + r * (_EXP[2] + r * (_EXP[3] + r * (_EXP[4] + r * _EXP[5])))
    return (_ONE + r * (_ONE + r * (_EXP[0] + r * series))) * power_of_two(whole)


@inner
def sine_and_cosine(angle):  # type: ignore[no-untyped-def]
    """Of an angle in radians, both to 3e-7 as far as its cycles fit single precision."""
    return sine_and_cosine_of_cycles(angle * _TWO_PI)


@inner
def sine_and_cosine_of_cycles(cycles):  # type: ignore[no-untyped-def]
    """The same of an angle in cycles."""
    r = cycles - ((cycles + _ROUND) - _ROUND)
    q = r * r
    sine = _SIN[0] + q * (_SIN[1] + q * (_SIN[2] + q * (_SIN[3] + q * (_SIN[4] + q * (_SIN[5] + q * _SIN[6])))))
    cosine = _COS[0] + q * (_COS[1] + q * (_COS[2] + q * (_COS[3] + q * (_COS[4] + q * (_COS[5] + q * _COS[6])))))
    return r * sine, cosine

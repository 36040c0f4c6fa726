"""The tile instructions of AMX, as they are used by kernels: products of sixteen rows by sixteen columns of bfloat16.

A tile register holds sixteen rows of 64 bytes: rows of 32 numbers in bfloat16 that are multiplied, as many pairs of
rows of sixteen columns that they are multiplied by, or the sixteen by sixteen sums in float32.

LLVM ends the process where it is to compile these instructions for a CPU without them: call what uses them only where
:func:`melisma.kernels.choice.tiles` is fast.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from melisma.kernels import LANES
from melisma.kernels.lanes_numba import VECTOR, inner, lanes

ROWS = 16  # of a tile
DEEP = 32  # numbers of a row that is multiplied
TILE = ROWS * DEEP  # numbers of a tile of weights
LINE = 64  # bytes of the cache
REGISTERS = 8
_BYTE, _NUMBER = ir.IntType(8), ir.IntType(64)


class _Half(ir.Type):
    """LLVM's bfloat16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __str__(self) -> str:
        return "bfloat"


_HALVES = ir.VectorType(_Half(), LANES)


def configuration() -> np.ndarray:
    """What LDTILECFG reads: eight registers of sixteen rows of 64 bytes."""
    made = np.zeros(64, np.uint8)
    made[0] = 1  # the palette
    made[16 : 16 + 2 * REGISTERS : 2] = 64
    made[48 : 48 + REGISTERS] = ROWS
    return made


def constant(value: int) -> Any:
    """A place or a distance."""
    return ir.Constant(_NUMBER, value)


def place_in(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """The address of a number of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _BYTE.as_pointer())


def clear(builder: Any, register: int) -> None:
    """Set sums to zero."""
    _call(builder, "tilezero", _register(register))


def fetch(builder: Any, register: int, address: Any, step: Any) -> None:
    """Load sixteen rows that are ``step`` bytes apart."""
    _call(builder, "tileloadd64", _register(register), address, step)


def multiply(builder: Any, sums: int, rows: int, weights: int) -> None:
    """Add the product of two tiles to sums."""
    _call(builder, "tdpbf16ps", _register(sums), _register(rows), _register(weights))


def put_down(builder: Any, register: int, address: Any, step: int = LINE) -> None:
    """Store sums as rows of sixteen float32 that are ``step`` bytes apart."""
    _call(builder, "tilestored64", _register(register), address, constant(step))


def _call(builder: Any, name: str, *arguments: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)


def _register(number: int) -> Any:
    return ir.Constant(_BYTE, number)


def _with_configuration(name: str) -> Any:
    """An instruction that reads or writes a configuration."""

    @intrinsic
    def configure(typing: Any, configuration: Any) -> Any:
        def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            _call(builder, name, place_in(context, builder, sig.args[0], args[0], constant(0)))
            return context.get_dummy_value()

        return types.void(configuration), lowered

    return configure


_read_configuration, configure = _with_configuration("sttilecfg"), _with_configuration("ldtilecfg")


@inner
def begun(configuration):  # type: ignore[no-untyped-def]
    """Configure this thread; what it was before. oneDNN remembers what it has configured, and needs to find it."""
    before = np.zeros(configuration.size, np.uint8)
    _read_configuration(before)
    configure(configuration)
    return before


@intrinsic
def store_half(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Sixteen float32 as bfloat16, rounded to the nearest and from halfway to even."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = builder.bitcast(place_in(context, builder, sig.args[0], args[0], args[1]), _HALVES.as_pointer())
        builder.store(builder.fptrunc(args[2], _HALVES), place, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), lowered


@intrinsic
def halved(typing: Any, value: Any) -> Any:
    """What :func:`store_half` keeps of sixteen float32."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fpext(builder.fptrunc(args[0], _HALVES), VECTOR)

    return lanes(lanes), lowered


@inner
def aligned(numbers):  # type: ignore[no-untyped-def]
    """Room for so many numbers in bfloat16, and the place of the first one, where a line of the cache begins."""
    room = np.empty(numbers + LINE // 2, np.uint16)
    return room, (-room.ctypes.data % LINE) // 2

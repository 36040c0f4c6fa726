"""How threads of compiled code wait for each other without the GIL."""

import ctypes
import os
import time
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from melisma.kernels.lanes_numba import compiled, inner

_SPINS = 200  # looks at a counter before the core is offered to others


@intrinsic
def _arrive(typing: Any, counter: Any) -> Any:
    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(counter), lowered


@intrinsic
def _arrived(typing: Any, counter: Any) -> Any:
    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.load_atomic(data, "seq_cst", align=8)

    return types.int64(counter), lowered


@intrinsic
def _let_others(typing: Any) -> Any:
    """Offer the core to another thread, where the system knows ``sched_yield``."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), lowered


@intrinsic
def _clock(typing: Any) -> Any:
    """Nanoseconds since some moment, where the system knows ``clock_gettime``; else 0."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = ir.IntType(64)
        if os.name != "posix" or ctypes.sizeof(ctypes.c_long) != 8:
            return ir.Constant(number, 0)
        parts = cgutils.alloca_once(builder, number, 2)  # seconds and nanoseconds
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), parts.type])
        ask = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(ask, [ir.Constant(ir.IntType(32), time.CLOCK_MONOTONIC), parts])
        seconds, rest = (builder.load(builder.gep(parts, [ir.Constant(number, i)])) for i in range(2))
        return builder.add(builder.mul(seconds, ir.Constant(number, 10**9)), rest)

    return types.int64(), lowered


@inner
def meet(counter, expected):  # type: ignore[no-untyped-def]
    """Wait until ``expected`` arrivals have been counted, one's own among them; ``counter`` is int64 ``(1,)``."""
    _arrive(counter)
    looks = 0
    while _arrived(counter) < expected:
        looks += 1
        if looks > _SPINS:
            _let_others()


@compiled
def ring(counter, looks):  # type: ignore[no-untyped-def]
    """Count ``counter``, int64 ``(1,)``, up by one, and stay away from the GIL for so many looks at it."""
    _arrive(counter)
    seen = 0
    for _ in range(looks):  # what is seen is used, or the loop would be taken away
        seen = max(seen, _arrived(counter))
    return seen


@compiled
def changed(counter, seen, patience):  # type: ignore[no-untyped-def]
    """Look at ``counter``, int64 ``(1,)``, until it is above ``seen``, for so many nanoseconds; whether it is."""
    began = _clock()
    for look in range(patience):  # where there is no clock, a look is taken for a nanosecond
        if _arrived(counter) > seen:
            return True
        if look > _SPINS:
            _let_others()
            if _clock() - began > patience:
                return False
    return False

"""How threads of compiled code wait for each other without the GIL."""

import os
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
def changed(counter, seen, looks):  # type: ignore[no-untyped-def]
    """Look at ``counter``, int64 ``(1,)``, until it is above ``seen``, at most so many times; whether it is."""
    for look in range(looks):
        if _arrived(counter) > seen:
            return True
        if look > _SPINS:
            _let_others()
    return False

"""Matrix products of a few hundred rows with weights that were packed beforehand, in tiles that stay in registers.

A tile is up to twelve rows of two lanes where the machine has registers for that many sums (AVX-512), else six rows of
one. A panel of weights, as wide and a few hundred deep, stays in the nearest cache while all tiles of a worker go past
it, and the next one is fetched meanwhile. Every sum goes over its products in their order, whatever the number of rows,
so that a row is the same in any piece.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from melisma.kernels import LANES
from melisma.kernels.lanes_numba import VECTOR, inner, one_register, spread

_ACROSS, _TALL = (2, 12) if one_register() else (1, 6)  # lanes and rows of a tile
WIDE = _ACROSS * LANES  # columns of a panel
DEEP = 256  # rows of a panel
NARROW = LANES  # columns of a narrow panel: one lane, and so many rows at once:
NARROW_ROWS = _ACROSS * _TALL


def packed(weights: Tensor, wide: int = WIDE) -> np.ndarray:
    """``(depth, columns)`` -> panels of columns one behind the other, ``(panels * depth * wide / 16, 16)``."""
    filled = torch.nn.functional.pad(weights.detach(), (0, -weights.shape[1] % wide))
    return filled.unflatten(1, (-1, wide)).transpose(0, 1).reshape(-1, LANES).contiguous().numpy()


def _write_tile(context: Any, builder: Any, sig: Any, args: Any, height: int, across: int) -> None:
    """The product of so many rows with a panel, added to what stands in ``begin``; ``depth`` is at least 1.

    ``args`` are ``x, at, step, weights, row, depth, begin, out``; ``begin`` and ``out`` are ``(array, place of the
    first number, numbers between rows)``.
    """
    x, at, step, weights, row, depth, begin, out = args
    number = ir.IntType(64)

    def data(kind: Any, value: Any) -> Any:
        return context.make_array(kind)(context, builder, value).data

    source, panel = data(sig[0], x), builder.gep(data(sig[3], weights), [_times(builder, row, LANES)])
    rows = [builder.gep(source, [builder.add(at, _times(builder, step, r))]) for r in range(height)]

    def targets(kind: Any, value: Any) -> list[Any]:
        values, start, stride = cgutils.unpack_tuple(builder, value)
        memory = data(kind.types[0], values)
        places = [builder.add(start, _times(builder, stride, r)) for r in range(height)]
        lanes = [builder.add(place, ir.Constant(number, i * LANES)) for place in places for i in range(across)]
        return [builder.bitcast(builder.gep(memory, [place]), VECTOR.as_pointer()) for place in lanes]

    begins = [builder.load(place, align=4) for place in targets(sig[6], begin)]
    before = builder.block
    body, after = builder.append_basic_block("depth"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    k = builder.phi(number)
    sums = [builder.phi(VECTOR) for _ in begins]
    here = builder.gep(panel, [_times(builder, k, across * LANES)])
    lanes = [builder.gep(here, [ir.Constant(number, i * LANES)]) for i in range(across)]
    columns = [builder.load(builder.bitcast(lane, VECTOR.as_pointer()), align=4) for lane in lanes]
    new = []
    for r, values in enumerate(rows):
        value = spread(builder, builder.load(builder.gep(values, [k])))
        for i, column in enumerate(columns):
            product = builder.fmul(value, column, flags=("contract",))
            new.append(builder.fadd(sums[across * r + i], product, flags=("contract",)))
    following = builder.add(k, ir.Constant(number, 1))
    builder.cbranch(builder.icmp_signed("<", following, depth), body, after)
    k.add_incoming(ir.Constant(number, 0), before)
    k.add_incoming(following, body)
    for old, later in zip(sums, new, strict=True):
        old.add_incoming(ir.Constant(VECTOR, [0.0] * LANES), before)
        old.add_incoming(later, body)
    builder.position_at_end(after)
    for place, start, total in zip(targets(sig[7], out), begins, new, strict=True):
        builder.store(builder.fadd(start, total, flags=("contract",)), place, align=4)


def _times(builder: Any, value: Any, factor: int) -> Any:
    return builder.mul(value, ir.Constant(value.type, factor))


@intrinsic
def _tile(
    typing: Any, height: Any, x: Any, at: Any, step: Any, weights: Any, row: Any, depth: Any, begin: Any, out: Any
) -> Any:
    """See :func:`_write_tile`; up to :data:`_TALL` rows."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        after = builder.append_basic_block("written")
        heights = builder.switch(args[0], after)
        for rows in range(1, _TALL + 1):
            block = builder.append_basic_block(f"rows{rows}")
            heights.add_case(ir.Constant(args[0].type, rows), block)
            builder.position_at_end(block)
            _write_tile(context, builder, sig.args[1:], args[1:], rows, _ACROSS)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    number = types.intp
    return types.void(number, x, number, number, weights, number, number, begin, out), lowered


@inner
def _any_tile(height, x, at, step, weights, row, depth, begin, out):  # type: ignore[no-untyped-def]
    """:func:`_tile` as a function of its own: it is long, and compiled for every caller otherwise."""
    _tile(height, x, at, step, weights, row, depth, begin, out)


@intrinsic
def _narrow_tile(
    typing: Any, x: Any, at: Any, step: Any, weights: Any, row: Any, depth: Any, begin: Any, out: Any
) -> Any:
    """See :func:`_write_tile`; one lane, :data:`NARROW_ROWS` rows."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _write_tile(context, builder, sig.args, args, NARROW_ROWS, 1)
        return context.get_dummy_value()

    number = types.intp
    return types.void(x, number, number, weights, number, number, begin, out), lowered


@intrinsic
def _fetch(typing: Any, array: Any, row: Any) -> Any:
    """Ask for a row of lanes, to be in the second cache soon."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [_times(builder, args[1], LANES)]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(hint, [place, ir.Constant(word, 0), ir.Constant(word, 2), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), lowered


@inner
def part_of_product(x, rows, weights, span, begin, out, panels):  # type: ignore[no-untyped-def]
    """``out = begin + x @ weights`` for some rows, over a part of the depth.

    Args:
        x: ``(array, place of the first number, numbers between rows)``, and so are ``begin`` and ``out``; arrays are
            float32 of any shape, and where ``begin`` has nothing between rows all rows begin with the same.
        rows: how many.
        weights: ``(from :func:`packed`, their depth, the first panel that is meant)``.
        span: ``(first, deep)``: which part of the depth, at most :data:`DEEP`.
        begin: see ``x``.
        out: see ``x``; it may be ``begin``.
        panels: how many are meant.
    """
    values, at, step = x
    packed_weights, depth, first_panel = weights
    first, deep = span
    begins, begin_at, begin_step = begin
    target, out_at, out_step = out
    tiles = (rows + _TALL - 1) // _TALL
    lanes = _ACROSS * deep
    fetched = (lanes + tiles - 1) // tiles
    for panel in range(panels):
        row, column = ((first_panel + panel) * depth + first) * _ACROSS, panel * WIDE
        following = row + _ACROSS * depth if panel + 1 < panels else row
        for tile in range(tiles):
            for i in range(tile * fetched, (tile + 1) * fetched):
                _fetch(packed_weights, following + min(i, lanes - 1))
            start = rows * tile // tiles
            height = rows * (tile + 1) // tiles - start
            source, place = at + start * step, out_at + start * out_step + column
            before = (begins, begin_at + start * begin_step + column, begin_step)
            _any_tile(height, values, source, step, packed_weights, row, deep, before, (target, place, out_step))


@inner
def product(x, rows, weights, begin, out, panels):  # type: ignore[no-untyped-def]
    """:func:`part_of_product` over the whole depth."""
    values, at, step = x
    for k in range(0, weights[1], DEEP):
        span = (k, min(DEEP, weights[1] - k))
        if k == 0:
            part_of_product(x, rows, weights, span, begin, out, panels)
        else:
            part_of_product((values, at + k, step), rows, weights, span, out, out, panels)


@inner
def narrow_product(x, rows, weights, begin, out, panels):  # type: ignore[no-untyped-def]
    """:func:`product` with narrow panels, for matrices whose columns fill no wide one.

    The number of rows is raised to a multiple of :data:`NARROW_ROWS`; ``x``, ``begin`` and ``out`` have so many.
    """
    values, at, step = x
    packed_weights, depth, first_panel = weights
    begins, begin_at, begin_step = begin
    target, out_at, out_step = out
    for panel in range(panels):
        row, column = (first_panel + panel) * depth, panel * NARROW
        for start in range(0, rows, NARROW_ROWS):
            before = (begins, begin_at + start * begin_step + column, begin_step)
            after = (target, out_at + start * out_step + column, out_step)
            _narrow_tile(values, at + start * step, step, packed_weights, row, depth, before, after)

"""The backbone of :mod:`melisma.kernels.frames_numba` on a CPU with AMX: its matrix products in tiles.

Numbers are rounded to bfloat16, or taken as the sum of two of those, a high and a low part. Of the four products of
parts three are added up then; the fourth is as small as what two parts leave out, and the sums are as exact as float32
makes them (about 4e-6 of their size). A sum goes over its products in one order, whatever the number of rows, so that a
row is the same in any piece.

A source is ``(numbers in bfloat16, place of the first, numbers from a row to the next, numbers from a high part to its
low one)``, the last 0 where there are no low parts.
"""

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from melisma.kernels import LANES
from melisma.kernels.frames_numba import begin_block, gelu, normalise
from melisma.kernels.lanes_numba import compiled, inner, load, store
from melisma.kernels.tiles_numba import (
    DEEP,
    LINE,
    ROWS,
    TALL,
    TILE,
    aligned,
    begun,
    clear,
    configure,
    constant,
    fetch,
    halved,
    multiply,
    place_in,
    put_down,
    store_half,
)
from melisma.kernels.waiting_numba import meet

_HIGH, _LOW = TALL, TALL + 1  # registers of the weights; the two behind them take the rows in turn
_MANY = TALL * ROWS  # rows that are summed up at once


def _micro(height: int, parts: int) -> Any:
    """The sums of so many tiles of rows and sixteen columns, into rows of sixteen float32 one behind the other.

    ``rows`` is a source with the place of the row that is meant, ``blocks`` how many tiles of weights there are of
    either part, ``weights`` ``(weights, place of the first)``: a high part, its low part, the next high one.
    """
    # Sums wait for the ones before; so all tiles have one product before any has its next.
    products = ((0, _HIGH),) if parts == 1 else ((0, _HIGH), (0, _LOW), (1, _HIGH))

    @intrinsic
    def micro(typing: Any, rows: Any, blocks: Any, weights: Any, sums: Any) -> Any:
        def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, at, step, low = cgutils.unpack_tuple(builder, args[0])
            packed, first = cgutils.unpack_tuple(builder, args[2])
            for tile in range(height):
                clear(builder, tile)
            with cgutils.for_range(builder, args[1]) as block:
                for part in range(parts):
                    number = builder.add(builder.mul(block.index, constant(2)), constant(part))
                    place = builder.add(first, builder.mul(number, constant(TILE)))
                    source = place_in(context, builder, sig.args[2][0], packed, place)
                    fetch(builder, _HIGH + part, source, constant(LINE))
                here = builder.add(at, builder.mul(block.index, constant(DEEP)))
                for count, (part, register) in enumerate(products):
                    for tile in range(height):
                        place = builder.add(here, builder.mul(step, constant(ROWS * tile)))
                        place = builder.add(place, low) if part else place
                        source, rows = place_in(context, builder, sig.args[0][0], x, place), _LOW + 1
                        rows += (count * height + tile) % 2
                        fetch(builder, rows, source, builder.mul(step, constant(2)))
                        multiply(builder, tile, rows, register)
            for tile in range(height):
                put_down(builder, tile, place_in(context, builder, sig.args[3], args[3], constant(tile * ROWS * LANES)))
            return context.get_dummy_value()

        return types.void(rows, blocks, weights, sums), lowered

    return micro


_1, _2, _3, _4 = (_micro(height, 1) for height in range(1, TALL + 1))
_both_1, _both_2, _both_3, _both_4 = (_micro(height, 2) for height in range(1, TALL + 1))


@inner
def _add_up(source, row, count, weights, blocks, column, sums):  # type: ignore[no-untyped-def]
    """The sums of up to 64 rows from ``row`` on and of sixteen columns."""
    halves, start, step, low = source
    rows, chosen = (halves, start + row * step, step, low), (weights, column * blocks * 2 * TILE)
    tiles = (count + ROWS - 1) // ROWS
    if low == 0:
        if tiles == 4:
            _4(rows, blocks, chosen, sums)
        elif tiles == 3:
            _3(rows, blocks, chosen, sums)
        elif tiles == 2:
            _2(rows, blocks, chosen, sums)
        else:
            _1(rows, blocks, chosen, sums)
    elif tiles == 4:
        _both_4(rows, blocks, chosen, sums)
    elif tiles == 3:
        _both_3(rows, blocks, chosen, sums)
    elif tiles == 2:
        _both_2(rows, blocks, chosen, sums)
    else:
        _both_1(rows, blocks, chosen, sums)


@inner
def _source(rows, width, parts):  # type: ignore[no-untyped-def]
    """Room for a source; what tiles read behind its last row comes into no sum that is used."""
    size = (rows + _MANY) * width
    halves, start = aligned(size * parts)
    return halves, start, width, size * (parts - 1)


@inner
def _put(value, source, row, group):  # type: ignore[no-untyped-def]
    """Sixteen numbers into a source."""
    halves, start, width, low = source
    place = start + row * width + group * LANES
    store_half(halves, place, value)
    if low > 0:
        store_half(halves, place + low, value - halved(value))


@inner
def _take(rows, first, count, source):  # type: ignore[no-untyped-def]
    """Rows of float32 into a source, from its first row on."""
    groups = source[2] // LANES
    for row in range(count):
        for g in range(groups):
            _put(load(rows, (first + row) * groups + g), source, row, g)


@compiled
def backbone(parts, configuration, worker, edges, counter, shape, given, entry, blocks, leave, work):  # type: ignore[no-untyped-def]
    """A worker's frames through all blocks; see :func:`melisma.kernels.frames_numba.backbone`.

    Args:
        parts: 1 to round to bfloat16, 2 for what float32 holds.
        configuration: of the tiles.
        worker: and what follows as there, but weights are those of :func:`melisma.kernels.frames_amx.packed`, rows of a
            condition fill whole tiles, and what the head says has whole lanes.
    """
    most, left, epsilon = shape
    conditions, heard = given
    weights, offset, depth, scale, bias = entry
    taps, offsets, scales, biases, widen, widen_bias, narrow, skip = blocks
    last_scale, last_bias, head, head_bias = leave
    x, other, out = work
    groups, frames = scale.shape[0], edges[-1]
    channels, inside, columns = groups * LANES, widen_bias.shape[1] // LANES, head_bias.size // LANES
    first, stop = edges[worker], edges[worker + 1]
    mine = stop - first
    before = begun(configuration)
    sums = np.empty((_MANY, LANES), np.float32)
    normalised = np.empty((most * groups, LANES), np.float32)
    narrow_source, wide_source = _source(max(most, mine), channels, parts), _source(most, inside * LANES, parts)
    beside = depth // heard - 1
    source = _source(mine + beside, heard, parts)
    _take(conditions, first, mine + beside, source)
    for row in range(0, mine, _MANY):
        count = min(_MANY, mine - row)
        for column in range(groups):
            _add_up(source, row, count, weights, depth // DEEP, column, sums)
            for i in range(count):
                store(x, (first + row + i) * groups + column, load(sums, i) + load(offset, column))
    for frame in range(first, stop):
        normalise(x, frame * groups, groups, scale, bias, epsilon)
    for b in range(scales.shape[0]):
        meet(counter, (b + 1) * (edges.size - 1))
        norm = (scales[b], biases[b], epsilon)
        for start in range(first, stop, most):
            some = min(most, stop - start)
            begin_block(x, frames, start, start + some, taps[b], offsets[b], left, norm, skip[b], normalised, other)
            _take(normalised, 0, some, narrow_source)
            for row in range(0, some, _MANY):
                count = min(_MANY, some - row)
                for column in range(inside):
                    _add_up(narrow_source, row, count, widen[b], channels // DEEP, column, sums)
                    added = load(widen_bias[b], column)
                    for i in range(count):
                        _put(gelu(load(sums, i) + added), wide_source, row + i, column)
            for row in range(0, some, _MANY):
                count = min(_MANY, some - row)
                for column in range(groups):
                    _add_up(wide_source, row, count, narrow[b], inside * LANES // DEEP, column, sums)
                    for i in range(count):
                        place = (start + row + i) * groups + column
                        store(other, place, load(other, place) + load(sums, i))
        x, other = other, x
    for frame in range(first, stop):
        normalise(x, frame * groups, groups, last_scale, last_bias, epsilon)
    _take(x, first, mine, narrow_source)
    for row in range(0, mine, _MANY):
        count = min(_MANY, mine - row)
        for column in range(columns):
            _add_up(narrow_source, row, count, head, channels // DEEP, column, sums)
            for i in range(count):
                store(out, (first + row + i) * columns + column, load(sums, i) + load(head_bias, column))
    configure(before)

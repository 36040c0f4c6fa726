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

_MANY = 2 * ROWS  # rows that are summed up at once
_SUMS, _ROWS, _COLUMNS = ((0, 1), (2, 3)), (4, 5), (6, 7)  # registers, of either tile of rows and of columns


def _micro(height: int, parts: int) -> Any:
    """The sums of one or two tiles of rows and two of columns, into ``sums``: two lanes for each row.

    ``rows`` is a source with the place of the row that is meant, ``blocks`` the depth in tiles, ``weights`` ``(weights,
    place of the first)``: the high parts of both columns of tiles down to their end, then the low parts.
    """

    @intrinsic
    def micro(typing: Any, rows: Any, blocks: Any, weights: Any, sums: Any) -> Any:
        def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, at, step, low = cgutils.unpack_tuple(builder, args[0])
            packed, first = cgutils.unpack_tuple(builder, args[2])
            stride = builder.mul(step, constant(2))

            def take_rows(block: Any, part: int) -> None:
                here = builder.add(at, builder.mul(block, constant(DEEP)))
                here = builder.add(here, low) if part else here
                for tile in range(height):
                    place = builder.add(here, builder.mul(step, constant(ROWS * tile)))
                    fetch(builder, _ROWS[tile], place_in(context, builder, sig.args[0][0], x, place), stride)

            def take_weights(block: Any, part: int) -> None:
                number = builder.add(block, args[1]) if part else block
                for column in range(2):
                    place = builder.add(builder.mul(number, constant(2)), constant(column))
                    place = builder.add(first, builder.mul(place, constant(TILE)))
                    source = place_in(context, builder, sig.args[2][0], packed, place)
                    fetch(builder, _COLUMNS[column], source, constant(LINE))

            def add_products() -> None:
                for tile in range(height):
                    for column in range(2):
                        multiply(builder, _SUMS[tile][column], _ROWS[tile], _COLUMNS[column])

            for tile in range(height):
                for column in range(2):
                    clear(builder, _SUMS[tile][column])
            with cgutils.for_range(builder, args[1]) as loop:
                take_rows(loop.index, 0)
                if parts == 2:
                    take_weights(loop.index, 1)
                    add_products()
                take_weights(loop.index, 0)
                add_products()
                if parts == 2:
                    take_rows(loop.index, 1)
                    add_products()
            for tile in range(height):
                for column in range(2):
                    place = constant((tile * ROWS * 2 + column) * LANES)
                    target = place_in(context, builder, sig.args[3], args[3], place)
                    put_down(builder, _SUMS[tile][column], target, 2 * LINE)
            return context.get_dummy_value()

        return types.void(rows, blocks, weights, sums), lowered

    return micro


_one, _two, _one_in_parts, _two_in_parts = (_micro(height, parts) for parts in (1, 2) for height in (1, 2))


@inner
def _add_up(source, row, count, weights, blocks, pair, sums):  # type: ignore[no-untyped-def]
    """The sums of up to 32 rows from ``row`` on and of a pair of columns of tiles."""
    halves, start, step, low = source
    rows, chosen = (halves, start + row * step, step, low), (weights, pair * blocks * 4 * TILE)
    if low == 0 and count <= ROWS:
        _one(rows, blocks, chosen, sums)
    elif low == 0:
        _two(rows, blocks, chosen, sums)
    elif count <= ROWS:
        _one_in_parts(rows, blocks, chosen, sums)
    else:
        _two_in_parts(rows, blocks, chosen, sums)


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


@inner
def _product(source, rows, matrix, bias, sums, out, first):  # type: ignore[no-untyped-def]
    """Rows of a source times ``(weights, depth)``, and a bias, into the rows of ``out`` from ``first`` on."""
    weights, depth = matrix
    columns = bias.size // LANES
    for row in range(0, rows, _MANY):
        count = min(_MANY, rows - row)
        for pair in range(columns // 2):
            _add_up(source, row, count, weights, depth // DEEP, pair, sums)
            for i in range(2 * count):
                column = 2 * pair + i % 2
                store(out, (first + row + i // 2) * columns + column, load(sums, i) + load(bias, column))


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
    channels, inside = groups * LANES, widen_bias.shape[1] // LANES
    first, stop = edges[worker], edges[worker + 1]
    mine = stop - first
    before = begun(configuration)
    sums = np.empty((2 * _MANY, LANES), np.float32)
    normalised = np.empty((most * groups, LANES), np.float32)
    narrow_source, wide_source = _source(max(most, mine), channels, parts), _source(most, inside * LANES, parts)
    beside = depth // heard - 1
    source = _source(mine + beside, heard, parts)
    _take(conditions, first, mine + beside, source)
    _product(source, mine, (weights, depth), offset, sums, x, first)
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
                for pair in range(inside // 2):
                    _add_up(narrow_source, row, count, widen[b], channels // DEEP, pair, sums)
                    for i in range(2 * count):
                        column = 2 * pair + i % 2
                        value = gelu(load(sums, i) + load(widen_bias[b], column))
                        _put(value, wide_source, row + i // 2, column)
            for row in range(0, some, _MANY):
                count = min(_MANY, some - row)
                for pair in range(groups // 2):
                    _add_up(wide_source, row, count, narrow[b], inside * LANES // DEEP, pair, sums)
                    for i in range(2 * count):
                        place = (start + row + i // 2) * groups + 2 * pair + i % 2
                        store(other, place, load(other, place) + load(sums, i))
        x, other = other, x
    for frame in range(first, stop):
        normalise(x, frame * groups, groups, last_scale, last_bias, epsilon)
    _take(x, first, mine, narrow_source)
    _product(narrow_source, mine, (head, channels), head_bias, sums, out, first)
    configure(before)

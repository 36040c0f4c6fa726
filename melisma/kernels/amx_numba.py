"""The convolutions of :mod:`melisma.kernels.amx` on a CPU with AMX: rows of samples times tiles of weights.

Samples in bfloat16, channels last, are loaded as sixteen rows of 32 channels from any sample on, so that a tap is
nothing but another place to load from; where channels do not fill a row, what follows by a dilation is laid behind
every sample, and two taps are one. Weights lie as the tile instructions read them, pairs of channels side by side. A
micro kernel adds up all taps and channels for up to 64 samples and 16 outputs in four registers, in one order whatever
the number of samples, so that a sample is the same in any piece.

A layer is ``(weights, bias, outputs, taps, folds, dilation, reach)``; a source ``(numbers, place of the first, numbers
of a row, folds, dilation, shift)``, in bfloat16, with ``shift`` zeros before its first sample.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from melisma.kernels import LANES
from melisma.kernels.lanes_numba import VECTOR, compiled, inner, lanes, load, spread, store
from melisma.kernels.tiles_numba import (
    DEEP,
    LINE,
    REGISTERS,
    ROWS,
    TILE,
    aligned,
    begun,
    clear,
    configure,
    constant,
    fetch,
    multiply,
    place_in,
    put_down,
    store_half,
)

_TALL = 4  # tiles of samples at once: registers 0 to 3 hold the sums
_WEIGHTS = _TALL  # the register of the weights; those behind it take the samples in turn


def _micro(height: int) -> Any:
    """The sums of so many tiles of samples and sixteen outputs, into rows of sixteen float32 one behind the other.

    ``rows`` is ``(samples, place of the first, numbers between rows, numbers between taps)``, ``depth``
    ``(taps, tiles of channels)``, ``weights`` ``(weights, place of the first)``.
    """

    @intrinsic
    def micro(typing: Any, rows: Any, depth: Any, weights: Any, sums: Any) -> Any:
        def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, at, step, apart = cgutils.unpack_tuple(builder, args[0])
            taps, blocks = cgutils.unpack_tuple(builder, args[1])
            packed, first = cgutils.unpack_tuple(builder, args[2])
            for tile in range(height):
                clear(builder, tile)
            with cgutils.for_range(builder, taps) as tap, cgutils.for_range(builder, blocks) as block:
                number = builder.add(builder.mul(tap.index, blocks), block.index)
                place = builder.add(first, builder.mul(number, constant(TILE)))
                source = place_in(context, builder, sig.args[2][0], packed, place)
                fetch(builder, _WEIGHTS, source, constant(LINE))
                channel = builder.mul(block.index, constant(DEEP))
                here = builder.add(builder.add(at, channel), builder.mul(tap.index, apart))
                for tile in range(height):
                    register = _WEIGHTS + 1 + tile % (REGISTERS - _WEIGHTS - 1)
                    place = builder.add(here, builder.mul(step, constant(ROWS * tile)))
                    source = place_in(context, builder, sig.args[0][0], x, place)
                    fetch(builder, register, source, builder.mul(step, constant(2)))
                    multiply(builder, tile, register, _WEIGHTS)
            for tile in range(height):
                place = place_in(context, builder, sig.args[3], args[3], constant(tile * ROWS * LANES))
                put_down(builder, tile, place)
            return context.get_dummy_value()

        return types.void(rows, depth, weights, sums), lowered

    return micro


_1, _2, _3, _4 = (_micro(height) for height in range(1, _TALL + 1))


@inner
def _any_micro(tiles, rows, depth, weights, sums):  # type: ignore[no-untyped-def]
    if tiles == 4:
        _4(rows, depth, weights, sums)
    elif tiles == 3:
        _3(rows, depth, weights, sums)
    elif tiles == 2:
        _2(rows, depth, weights, sums)
    else:
        _1(rows, depth, weights, sums)


@intrinsic
def _leaky(typing: Any, value: Any, slope: Any) -> Any:
    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        below = builder.fcmp_ordered("<", args[0], ir.Constant(VECTOR, [0.0] * LANES))
        return builder.select(below, builder.fmul(args[0], spread(builder, args[1])), args[0])

    return lanes(lanes, types.float32), lowered


@inner
def _put(value, source, row, column):  # type: ignore[no-untyped-def]
    """Sixteen channels of a sample, also as what follows the sample that comes before by a dilation."""
    halves, start, width, folds, dilation, shift = source
    store_half(halves, start + (row + shift) * width + column, value)
    if folds == 2 and row + shift >= dilation:
        store_half(halves, start + (row + shift - dilation) * width + width // 2 + column, value)


@inner
def _add_up(source, layer, row, count, column, sums):  # type: ignore[no-untyped-def]
    """The sums of up to 64 samples from ``row`` on and of sixteen outputs."""
    halves, start, width, folds, dilation, _shift = source
    weights, taps = layer[0], layer[3]
    rows = (halves, start + row * width, width, folds * dilation * width)
    blocks = width // DEEP
    tiles = (count + ROWS - 1) // ROWS
    _any_micro(tiles, rows, (taps, blocks), (weights, column * taps * blocks * TILE), sums)


@inner
def _take(x, slope, source, channels):  # type: ignore[no-untyped-def]
    """Samples ``x`` after a leaky ReLU as a source."""
    across = channels // LANES
    for row in range(x.size // channels):
        for column in range(across):
            _put(_leaky(load(x, row * across + column), slope), source, row, column * LANES)


@inner
def _source(rows, channels, layer, shift):  # type: ignore[no-untyped-def]
    """A source of ``rows`` samples that are still to be put there, zeros before and behind them."""
    _weights, _bias, _outputs, _taps, folds, dilation, reach = layer
    width = folds * channels
    behind = 2 * reach + folds * dilation + _TALL * ROWS  # what tiles may read
    halves, start = aligned((shift + rows + behind) * width)
    halves[start : start + shift * width] = 0
    halves[start + max(0, shift + rows - (folds - 1) * dilation) * width :] = 0
    return halves, start, width, folds, dilation, shift


@inner
def _into_audio(source, layer, sums, out, base, added):  # type: ignore[no-untyped-def]
    """What a layer makes of a source, and ``base`` where it is ``added``."""
    bias, across = layer[1], layer[2] // LANES
    rows = out.size // layer[2]
    for row in range(0, rows, _TALL * ROWS):
        count = min(_TALL * ROWS, rows - row)
        for column in range(across):
            _add_up(source, layer, row, count, column, sums)
            offset = load(bias, column)
            place = row * across + column
            if added:
                for i in range(count):
                    store(out, place + i * across, load(sums, i) + offset + load(base, place + i * across))
            else:
                for i in range(count):
                    store(out, place + i * across, load(sums, i) + offset)


@inner
def _into_source(source, layer, sums, slope, target, rows):  # type: ignore[no-untyped-def]
    """``rows`` samples of what a layer makes of a source, after a leaky ReLU, as the source of the next layer."""
    bias = layer[1]
    for row in range(0, rows, _TALL * ROWS):
        count = min(_TALL * ROWS, rows - row)
        for column in range(layer[2] // LANES):
            _add_up(source, layer, row, count, column, sums)
            offset = load(bias, column)
            for i in range(count):
                _put(_leaky(load(sums, i) + offset, slope), target, row + i, column * LANES)


@compiled
def convolve(x, out, base, added, slope, layer, cut, channels, configuration):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the convolution of ``x``; see :class:`melisma.kernels.amx.AmxConvolution`."""
    before = begun(configuration)
    sums = np.empty(_TALL * ROWS * LANES, np.float32)
    source = _source(x.size // channels, channels, layer, 0 if cut[0] else layer[6])
    _take(x, slope, source, channels)
    _into_audio(source, layer, sums, out, base, added)
    configure(before)


@compiled
def convolve_twice(x, out, base, slopes, first, second, cut, channels, configuration):  # type: ignore[no-untyped-def]
    """``out = base + second(leaky(first(leaky(x))))``; what is between the two stays in bfloat16."""
    before = begun(configuration)
    sums = np.empty(_TALL * ROWS * LANES, np.float32)
    rows = x.size // channels
    source = _source(rows, channels, first, 0 if cut[0] else first[6])
    _take(x, slopes[0], source, channels)
    between = rows - first[6] * ((1 if cut[0] else 0) + (1 if cut[1] else 0))
    target = _source(between, first[2], second, 0 if cut[0] else second[6])
    _into_source(source, first, sums, slopes[1], target, between)
    _into_audio(target, second, sums, out, base, True)
    configure(before)

"""The convolutions of :mod:`melisma.kernels.winograd` on a CPU: transform, multiply and transform back in the cache.

Values are ``(time, channels)``. With a dilation of ``d``, ``d`` samples in a row make a row of ``d * channels`` numbers
that meet the same taps; all below is said of such rows.

Points decide how much rounding grows. Those below were searched for: symmetric ones, for which half of each transform
is shared, with the smallest error in single precision. Of its output a convolution rounds 1e-7 as a plain sum, three
times that in tiles of four and groups of at most four taps, four to fifty times that where kernels are taken whole. In
the largest tiles it is 1e-5 (3 taps), 8e-5 (7) and 7e-4 (11), where bfloat16 rounds 2e-3.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from melisma.kernels import LANES
from melisma.kernels.lanes_numba import VECTOR, compiled, inner, spread
from melisma.kernels.matrix_numba import NARROW, NARROW_ROWS, WIDE, narrow_product, product
from melisma.kernels.winograd import Rounding

# Rows of the transformed samples that are multiplied at once: they and the products stay in the second-level cache.
_BLOCK_VALUES = 65536


@dataclass(frozen=True)
class Filtering:
    """A way of filtering.

    Attributes:
        step: outputs of a tile.
        taps: of the filter, or of each group of its taps, which are ``step`` then.
        pairs: points, each with its negative.
        zero: whether 0 is a point too.
        infinity: whether infinity is one: the product of the highest coefficients.
    """

    step: int
    taps: int
    pairs: tuple[float, ...]
    zero: bool
    infinity: bool

    @property
    def products(self) -> int:
        """Multiplications for a tile."""
        return self.step + self.taps - 1

    @lru_cache(maxsize=32)  # noqa: B019 -- there are ten of them, for good
    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``A.T (step, products)``, ``G (products, taps)`` and ``B.T (products, products)`` in double precision.

        Rows go by points: zero, each pair with the positive one first, infinity. Powers of two are moved from ``B`` to
        ``G``, so that transformed samples are about as large as samples, and signs, so that the two rows of a pair
        differ in those of their odd columns only.
        """
        points = [0.0] * self.zero + [sign * point for point in self.pairs for sign in (1.0, -1.0)]
        assert len(points) + self.infinity == self.products

        def powers(count: int) -> np.ndarray:
            rows = np.asarray(points)[:, None] ** np.arange(count)
            return np.vstack([rows, np.eye(count)[-1:]]) if self.infinity else rows

        inverse = _interpolation(points, self.infinity)
        scale = 2.0 ** np.round(np.log2(np.abs(inverse).sum(axis=1, keepdims=True)))
        for row in range(int(self.zero), len(points), 2):
            scale[row + 1] *= np.sign(np.dot(inverse[row, ::2], inverse[row + 1, ::2]))
        return powers(self.step).T, powers(self.taps) * scale, inverse / scale


def _interpolation(points: list[float], infinity: bool) -> np.ndarray:
    """The transposed inverse of the matrix of powers of the points, exact until it is rounded: twenty points would cost
    an inversion in double precision most of its digits."""
    exact = [Fraction(point) for point in points]
    rows = []
    for number, point in enumerate(exact):
        # The polynomial that is 1 at this point and 0 at the others.
        others = exact[:number] + exact[number + 1 :]
        scale = math.prod(point - other for other in others)
        rows.append([coefficient / scale for coefficient in _monic(others)] + [Fraction(0)] * infinity)
    if infinity:
        rows.append(_monic(exact))
    return np.array([[float(value) for value in row] for row in rows])


def _monic(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the polynomial with these roots, the lowest first."""
    made = [Fraction(1)]
    for root in roots:
        made = [low - root * high for low, high in zip([Fraction(0), *made], [*made, Fraction(0)], strict=True)]
    return made


# By the size of the kernel; others are cut into groups of four taps.
EXACT = {3: Filtering(4, 3, (0.625, 1.5), True, True)}
FAST = {
    3: Filtering(6, 3, (0.5, 1.0, 1.75), True, True),
    5: Filtering(4, 5, (0.5, 0.875, 2.0), True, True),
    7: Filtering(6, 7, (0.375, 0.625, 1.0, 1.375, 2.5), True, True),
    11: Filtering(6, 6, (0.375, 0.625, 1.125, 1.75, 3.0), True, False),
}
GROUPED = Filtering(4, 4, (0.25, 0.875, 1.75), False, True)
COARSE = {
    3: Filtering(12, 3, (0.25, 0.625, 0.875, 1.25, 1.5, 3.0), True, True),
    7: Filtering(12, 7, (0.25, 0.5, 0.625, 0.8, 1.2, 1.5, 2.0, 4.0), True, True),
    11: Filtering(12, 11, (0.25, 0.5, 0.625, 0.8, 1.0, 1.125, 1.375, 1.75, 2.5, 4.0), True, True),
}
ALL = (*FAST.values(), GROUPED, *COARSE.values(), *EXACT.values())
_TABLES: dict[Rounding, dict[int, Filtering]] = {"exact": EXACT, "single": FAST, "half": {**FAST, **COARSE}}


def columns(channels: int) -> int:
    """Columns of the panels of a convolution's weights."""
    return NARROW if channels % WIDE else WIDE


def filtering(kernel: int, rounding: Rounding) -> Filtering:
    """How a kernel of that size is filtered."""
    return _TABLES[rounding].get(kernel, GROUPED)


class _Writer:
    """Adds up vectors with constant factors."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def sum(self, values: list[Any], factors: Any) -> Any:
        """``sum of factor * value``; None where all factors are 0."""
        total = None
        for value, factor in zip(values, factors, strict=True):
            if factor == 0.0:
                continue
            constant = ir.Constant(VECTOR, [float(np.float32(factor))] * LANES)
            term = value if factor == 1.0 else self.builder.fmul(value, constant, flags=("contract",))
            total = term if total is None else self.add(total, term)
        return total

    def add(self, left: Any, right: Any) -> Any:
        if left is None or right is None:
            return right if left is None else left
        return self.builder.fadd(left, right, flags=("contract",))

    def subtract(self, left: Any, right: Any) -> Any:
        return left if right is None else self.builder.fsub(left, right, flags=("contract",))

    def inputs(self, filtering: Filtering, x: list[Any]) -> list[Any]:
        """``B.T @ x``: of a pair of points one has the sum, the other the difference of the same two halves."""
        matrix, first = filtering.matrices()[2], int(filtering.zero)
        made = [self.sum(x, matrix[0])] if filtering.zero else []
        for pair in range(len(filtering.pairs)):
            row = matrix[first + 2 * pair]
            even, odd = self.sum(x[::2], row[::2]), self.sum(x[1::2], row[1::2])
            made += [self.add(even, odd), self.subtract(even, odd)]
        return made + ([self.sum(x, matrix[-1])] if filtering.infinity else [])

    def outputs(self, filtering: Filtering, products: list[Any]) -> list[Any]:
        """``A.T @ products``."""
        first = int(filtering.zero)
        both = [products[first + 2 * pair : first + 2 * pair + 2] for pair in range(len(filtering.pairs))]
        sums = [self.add(*pair) for pair in both]
        differences = [self.subtract(*pair) for pair in both]
        made = []
        for output in range(filtering.step):
            powers = [point**output for point in filtering.pairs]
            total = self.sum(differences if output % 2 else sums, powers)
            if output == 0 and filtering.zero:
                total = self.add(total, products[0])
            if output == filtering.step - 1 and filtering.infinity:
                total = self.add(total, products[-1])
            made.append(total)
        return made


def _places(context: Any, builder: Any, kind: Any, value: Any, at: Any, step: Any, count: int) -> list[Any]:
    """Pointers to lanes of a flat array, ``step`` numbers apart."""
    data = context.make_array(kind)(context, builder, value).data
    offsets = [builder.add(at, builder.mul(step, ir.Constant(step.type, i))) for i in range(count)]
    return [builder.bitcast(builder.gep(data, [offset]), VECTOR.as_pointer()) for offset in offsets]


def _for_each_kind(builder: Any, kind: Any, write: Callable[[Filtering], None]) -> None:
    """Code for every filtering, of which that of ``kind`` is run."""
    after = builder.append_basic_block("after")
    switch = builder.switch(kind, after)
    for number, filtering in enumerate(ALL):
        block = builder.append_basic_block(f"kind{number}")
        switch.add_case(ir.Constant(kind.type, number), block)
        builder.position_at_end(block)
        write(filtering)
        builder.branch(after)
    builder.position_at_end(after)


@contextmanager
def _every_column(builder: Any, tiles: Any, width: Any) -> Iterator[tuple[Any, Any]]:
    """Code for every tile and every sixteen columns of its rows, which are ``width`` numbers wide: both numbers."""
    lane = ir.Constant(width.type, LANES)
    with cgutils.for_range(builder, tiles) as rows, cgutils.for_range(builder, builder.udiv(width, lane)) as lanes:
        yield rows.index, builder.mul(lanes.index, lane)


def _moved(builder: Any, at: Any, tile: Any, step: Any, column: Any) -> Any:
    """``at + tile * step + column``."""
    return builder.add(builder.add(at, builder.mul(tile, step)), column)


@intrinsic
def _rise(
    typing: Any, kind: Any, x: Any, at: Any, width: Any, slope: Any, out: Any, to: Any, stride: Any, tiles: Any
) -> Any:
    """Tiles of rows of ``x``, ``width`` numbers wide, to their transforms; ``slope`` of a leaky ReLU comes before."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind, x, at, width, slope, out, to, stride, tiles = args
        zero, slopes = ir.Constant(VECTOR, [0.0] * LANES), spread(builder, slope)

        def write(filtering: Filtering) -> None:
            apart = builder.mul(width, ir.Constant(width.type, filtering.step))
            with _every_column(builder, tiles, width) as (tile, column):
                here, there = _moved(builder, at, tile, apart, column), _moved(builder, to, tile, width, column)
                values = []
                for place in _places(context, builder, sig.args[1], x, here, width, filtering.products):
                    value = builder.load(place, align=4)
                    below = builder.fcmp_ordered("<", value, zero)
                    values.append(builder.select(below, builder.fmul(value, slopes), value))
                made = _Writer(builder).inputs(filtering, values)
                places = _places(context, builder, sig.args[5], out, there, stride, filtering.products)
                for place, value in zip(places, made, strict=True):
                    builder.store(value, place, align=4)

        _for_each_kind(builder, kind, write)
        return context.get_dummy_value()

    number = types.intp
    return types.void(number, x, number, number, types.float32, out, number, number, number), lowered


@intrinsic
def _fall(
    typing: Any, kind: Any, made: Any, at: Any, stride: Any, bias: Any, channels: Any, base: Any, share: Any, out: Any,
    to: Any, width: Any, tiles: Any,
) -> Any:  # fmt: skip
    """The products to tiles of outputs, ``width`` numbers wide: ``out = base * share + bias + ...``."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind, made, at, stride, bias, channels, base, share, out, to, width, tiles = args

        def write(filtering: Filtering) -> None:
            apart = builder.mul(width, ir.Constant(width.type, filtering.step))
            with _every_column(builder, tiles, width) as (tile, column):
                here, there = _moved(builder, at, tile, width, column), _moved(builder, to, tile, apart, column)
                sources = _places(context, builder, sig.args[1], made, here, stride, filtering.products)
                totals = _Writer(builder).outputs(filtering, [builder.load(place, align=4) for place in sources])
                channel = builder.urem(column, channels)
                (place,) = _places(context, builder, sig.args[4], bias, channel, width, 1)
                offset = builder.load(place, align=4)
                before = _places(context, builder, sig.args[6], base, there, width, filtering.step)
                targets = _places(context, builder, sig.args[8], out, there, width, filtering.step)
                with builder.if_else(builder.icmp_signed("!=", share, ir.Constant(share.type, 0))) as (then, otherwise):
                    with then:
                        for total, source, target in zip(totals, before, targets, strict=True):
                            value = builder.fadd(builder.fadd(total, offset), builder.load(source, align=4))
                            builder.store(value, target, align=4)
                    with otherwise:
                        for total, target in zip(totals, targets, strict=True):
                            builder.store(builder.fadd(total, offset), target, align=4)

        _for_each_kind(builder, kind, write)
        return context.get_dummy_value()

    number = types.intp
    arguments = (number, made, number, number, bias, number, base, number, out, number, number, number)
    return types.void(*arguments), lowered


# Called twice each: what they are long is compiled once.
@inner
def _risen(kind, x, at, width, slope, out, to, stride, tiles):  # type: ignore[no-untyped-def]
    _rise(kind, x, at, width, slope, out, to, stride, tiles)


@inner
def _fallen(kind, made, at, stride, bias, channels, base, share, out, to, width, tiles):  # type: ignore[no-untyped-def]
    _fall(kind, made, at, stride, bias, channels, base, share, out, to, width, tiles)


_STEPS = tuple(filtering.step for filtering in ALL)
_PRODUCTS = tuple(filtering.products for filtering in ALL)


@inner
def _copied(source, start, count, target, at):  # type: ignore[no-untyped-def]
    """``count`` numbers from ``start`` on; what lies outside of ``source`` is 0."""
    for i in range(count):
        inside = 0 <= start + i < source.size
        target[at + i] = source[start + i] if inside else np.float32(0.0)


@compiled
def convolve(x, out, base, slope, weights, bias, channels, shape):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the convolution of ``x``; see :class:`melisma.kernels.winograd.Winograd`.

    Args:
        x: float32 ``time * in_channels`` numbers, flat.
        out: ``out_channels`` numbers for every sample that is wanted.
        base: is added: like ``out``, which it may be, or empty.
        slope: of a leaky ReLU on ``x``.
        weights: panels of all groups of every product.
        bias: ``(out_channels,)``.
        channels: ``(in, out)``, multiples of 16.
        shape: ``(kind, groups, rows of zeros before the first, dilation)``.
    """
    inputs, outputs = channels
    kind, groups, rows_before, dilation = shape
    step, products, added = _STEPS[kind], _PRODUCTS[kind], base.size > 0
    width, wide = dilation * inputs, dilation * outputs
    tiles = (out.size // outputs + step * dilation - 1) // (step * dilation)
    most = min(tiles, max(1, _BLOCK_VALUES // (products * width)))
    held = (most + groups - 1) * dilation  # samples of one product's transform
    stride, made_stride = held * inputs, most * dilation * outputs
    # Narrow products go over the last rows: into the next point's, which are made after them, or nobody's.
    spare = NARROW_ROWS * max(inputs, outputs)
    risen, made = np.empty(products * stride + spare, np.float32), np.empty(products * made_stride + spare, np.float32)
    edge, zeros = np.empty(max(products * width, step * wide), np.float32), np.zeros(outputs, np.float32)
    narrow = outputs % WIDE != 0
    panels = outputs // (NARROW if narrow else WIDE)
    for first in range(0, tiles, most):
        count = min(most, tiles - first)
        kept = 0
        if first > 0:  # the last tiles of the block before
            kept = groups - 1
            for point in range(products):
                for i in range(kept * width):
                    risen[point * stride + i] = risen[point * stride + most * width + i]
        last = count + groups - 1
        # Tiles whose samples all are there: from where nothing before the first is read to the end.
        whole = min(max(kept, (rows_before + step - 1) // step - first), last)
        inside = x.size // width + rows_before - products
        stop = min(max(whole, inside // step + 1 - first if inside >= 0 else whole), last)
        start = ((first + whole) * step - rows_before) * width
        _risen(kind, x, start, width, slope, risen, whole * width, stride, stop - whole)
        for tile in range(kept, last):
            if not whole <= tile < stop:
                _copied(x, ((first + tile) * step - rows_before) * width, products * width, edge, 0)
                _risen(kind, edge, 0, width, slope, risen, tile * width, stride, 1)
        rows = count * dilation
        for point in range(products):
            target = (made, point * made_stride, outputs)
            for group in range(groups):
                begin = (zeros, 0, 0) if group == 0 else target
                source = (risen, point * stride + group * width, inputs)
                taps = (weights, inputs, (point * groups + group) * panels)
                if narrow:
                    narrow_product(source, rows, taps, begin, target, panels)
                else:
                    product(source, rows, taps, begin, target, panels)
        whole = min(count, max(0, out.size // (step * wide) - first))
        _fallen(kind, made, 0, made_stride, bias, outputs, base, int(added), out, first * step * wide, wide, whole)
        for tile in range(whole, count):
            to = (first + tile) * step * wide
            _fallen(kind, made, tile * wide, made_stride, bias, outputs, edge, 0, edge, 0, wide, 1)
            for i in range(out.size - to):
                out[to + i] = edge[i] + (base[to + i] if added else np.float32(0.0))

"""The anti-aliased snake on a GPU in one pass, forward and backward, compiled by Triton on the first call.

A program makes ``BLOCK`` output samples of one channel. Every output needs six values of either phase of the doubled
rate, and those eleven input samples: all are computed anew in registers (twelve short polynomials), which costs less
than passing them between threads or through memory. Sums are float32 whatever the type of the tensors.

Importing this module imports triton. Under ``TRITON_INTERPRET=1`` it runs on a CPU, slowly: so it is tested.
"""

import math
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from melisma.kernels.polynomials import DOUBLE_SINE, ROUND, SINE_SQUARED

_BLOCK = 512
OPTIONS = {"enable_fp_fusion": True}
_ROUND = tl.constexpr(ROUND)
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (tl.constexpr(value) for value in SINE_SQUARED)
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5, _Q6 = (tl.constexpr(value) for value in DOUBLE_SINE)


@triton.jit
def _cycle_part(cycles):  # type: ignore[no-untyped-def]
    part = cycles - ((cycles + _ROUND) - _ROUND)
    return tl.minimum(tl.maximum(part, -0.5), 0.5)


@triton.jit
def _sine_squared(cycles):  # type: ignore[no-untyped-def]
    """``sin(pi cycles)^2``."""
    part = _cycle_part(cycles)
    q = part * part
    return q * (_P0 + q * (_P1 + q * (_P2 + q * (_P3 + q * (_P4 + q * (_P5 + q * _P6))))))


@triton.jit
def _double_sine(cycles):  # type: ignore[no-untyped-def]
    """``sin(2 pi cycles)``."""
    part = _cycle_part(cycles)
    q = part * part
    return part * (_Q0 + q * (_Q1 + q * (_Q2 + q * (_Q3 + q * (_Q4 + q * (_Q5 + q * _Q6))))))


@triton.jit
def _activated(u, frequency, height):  # type: ignore[no-untyped-def]
    return u + height * _sine_squared(u * frequency)


@triton.jit
def _read(pointer, row, t, time):  # type: ignore[no-untyped-def]
    """Sample ``t`` of a row, the ends continued."""
    return tl.load(pointer + row * time + tl.minimum(tl.maximum(t, 0), time - 1)).to(tl.float32)


@triton.jit
def _zero_read(pointer, row, t, time):  # type: ignore[no-untyped-def]
    """The same, with zeros beyond the ends."""
    return tl.load(pointer + row * time + t, mask=(t >= 0) & (t < time), other=0.0).to(tl.float32)


@triton.jit
def _even(a, b, c, d, e, f, taps):  # type: ignore[no-untyped-def]
    """Six samples to the even phase of the doubled rate; with the samples in reverse, to the odd one."""
    near = c * tl.load(taps + 7) + d * tl.load(taps + 5)
    return 2.0 * (a * tl.load(taps + 11) + b * tl.load(taps + 9) + near + e * tl.load(taps + 3) + f * tl.load(taps + 1))


@triton.jit
def _forward(x, out, frequencies, heights, taps, channels, time, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row, t = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    frequency, height = tl.load(frequencies + row % channels), tl.load(heights + row % channels)
    # The low-pass is symmetric: the odd phase reads its six samples in reverse.
    first = _even(
        _read(x, row, 0, time), _read(x, row, 0, time), _read(x, row, 0, time),
        _read(x, row, 0, time), _read(x, row, 1, time), _read(x, row, 2, time), taps,
    )  # fmt: skip
    last = _even(
        _read(x, row, time, time), _read(x, row, time, time), _read(x, row, time, time),
        _read(x, row, time - 1, time), _read(x, row, time - 2, time), _read(x, row, time - 3, time), taps,
    )  # fmt: skip
    first, last = _activated(first, frequency, height), _activated(last, frequency, height)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for k in tl.static_range(6):
        q = t + k - 2
        u = _even(
            _read(x, row, q - 3, time), _read(x, row, q - 2, time), _read(x, row, q - 1, time),
            _read(x, row, q, time), _read(x, row, q + 1, time), _read(x, row, q + 2, time), taps,
        )  # fmt: skip
        value = _activated(u, frequency, height)
        total += tl.load(taps + 2 * k + 1) * tl.where(q < 0, first, tl.where(q >= time, last, value))
        q = t + k - 3
        u = _even(
            _read(x, row, q + 3, time), _read(x, row, q + 2, time), _read(x, row, q + 1, time),
            _read(x, row, q, time), _read(x, row, q - 1, time), _read(x, row, q - 2, time), taps,
        )  # fmt: skip
        value = _activated(u, frequency, height)
        total += tl.load(taps + 2 * k) * tl.where(q < 0, first, tl.where(q >= time, last, value))
    tl.store(out + row * time + t, total.to(out.dtype.element_ty), mask=t < time)


@triton.jit
def _lowered_back(g, row, q, time, taps, MIRROR: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Gradient of what stands at row ``q`` of a phase, from that of the output; the odd phase is the mirror image.

    Rows beyond an end read the value that stands there: what they would get goes to it.
    """
    s: tl.constexpr = -1 if MIRROR else 1
    total = _zero_read(g, row, q - 3 * s, time) * tl.load(taps + 11)
    total += _zero_read(g, row, q - 2 * s, time) * tl.load(taps + 9)
    total += _zero_read(g, row, q - 1 * s, time) * tl.load(taps + 7)
    total += _zero_read(g, row, q, time) * tl.load(taps + 5)
    total += _zero_read(g, row, q + 1 * s, time) * tl.load(taps + 3)
    total += _zero_read(g, row, q + 2 * s, time) * tl.load(taps + 1)
    end = time - 1 if MIRROR else 0
    t0, t1, t2 = tl.load(taps), tl.load(taps + 1), tl.load(taps + 2)
    beyond = _zero_read(g, row, end, time) * (t0 + t1 + t2 + tl.load(taps + 3) + tl.load(taps + 4))
    beyond += _zero_read(g, row, end + s, time) * (t0 + t1 + t2) + _zero_read(g, row, end + 2 * s, time) * t0
    return total + tl.where(q == end, beyond, 0.0)


@triton.jit
def _phase_back(x, g, row, q, time, frequency, height, taps, MIRROR: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """For row ``q`` of a phase: gradient before the activation, and its shares of those of frequency and height."""
    s: tl.constexpr = -1 if MIRROR else 1
    u = _even(
        _read(x, row, q - 3 * s, time), _read(x, row, q - 2 * s, time), _read(x, row, q - s, time),
        _read(x, row, q, time), _read(x, row, q + s, time), _read(x, row, q + 2 * s, time), taps,
    )  # fmt: skip
    after = tl.where((q >= 0) & (q < time), _lowered_back(g, row, q, time, taps, MIRROR), 0.0)
    sine = _double_sine(u * frequency)
    by_frequency = after * u * sine * height * 3.14159265
    slope = 1.0 + 3.14159265 * frequency * height * sine
    return after * slope, by_frequency, after * _sine_squared(u * frequency)


@triton.jit
def _raised_back(x, g, row, t, time, frequency, height, taps, MIRROR: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """One phase's share of the gradient at sample ``t``; and its shares of those of frequency and height at row t."""
    s: tl.constexpr = -1 if MIRROR else 1
    start = time - 1 if MIRROR else 0
    total = t * 0.0
    at_start = t * 0.0
    at_end = t * 0.0
    for k in tl.static_range(6):  # row q = t + (k - 2) s meets tap 2 k + 1
        h, _, _ = _phase_back(x, g, row, t + (k - 2) * s, time, frequency, height, taps, MIRROR)
        total += 2.0 * tl.load(taps + 2 * k + 1) * h
        # What samples before the start and after the end would get goes to the first and the last one.
        for beyond in tl.static_range(1, 4):
            if k - 2 >= 0 and k + beyond < 6:
                at_start += 2.0 * tl.load(taps + 2 * (k + beyond) + 1) * h
            if k - 2 <= 0 and k - beyond >= 0:
                at_end += 2.0 * tl.load(taps + 2 * (k - beyond) + 1) * h
    _, by_frequency, by_height = _phase_back(x, g, row, t, time, frequency, height, taps, MIRROR)
    total += tl.where(t == start, at_start, 0.0) + tl.where(t == time - 1 - start, at_end, 0.0)
    return total, by_frequency, by_height


@triton.jit
def _backward(x, g, grad_x, sums, frequencies, heights, taps, channels, time, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row, t = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    frequency, height = tl.load(frequencies + row % channels), tl.load(heights + row % channels)
    even, frequency_even, height_even = _raised_back(x, g, row, t, time, frequency, height, taps, False)
    odd, frequency_odd, height_odd = _raised_back(x, g, row, t, time, frequency, height, taps, True)
    tl.store(grad_x + row * time + t, (even + odd).to(grad_x.dtype.element_ty), mask=t < time)
    place = sums + 2 * (row * tl.num_programs(1) + tl.program_id(1))
    tl.store(place, tl.sum(tl.where(t < time, frequency_even + frequency_odd, 0.0)))
    tl.store(place + 1, tl.sum(tl.where(t < time, height_even + height_odd, 0.0)))


class Snake(torch.autograd.Function):
    """``(x, alpha, height, taps) -> out``, see :func:`melisma.kernels.snake.anti_aliased`; taps must be symmetric."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, height: Tensor, taps: Tensor) -> Tensor:
        x = x.contiguous()
        given = ((alpha / math.pi).float().contiguous(), height.float().contiguous(), taps.float().contiguous())
        ctx.save_for_backward(x, *given)
        ctx.types = (alpha.dtype, height.dtype)
        out = torch.empty_like(x)
        batch, channels, time = x.shape
        with _on(x):
            grid = (batch * channels, triton.cdiv(time, _BLOCK))
            _forward[grid](x, out, *given, channels, time, BLOCK=_BLOCK, **OPTIONS)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *given = ctx.saved_tensors
        batch, channels, time = x.shape
        blocks = triton.cdiv(time, _BLOCK)
        grad_x = torch.empty_like(x)
        sums = torch.empty(batch, channels, blocks, 2, device=x.device)
        with _on(x):
            _backward[(batch * channels, blocks)](
                x, grad.contiguous(), grad_x, sums, *given, channels, time, BLOCK=_BLOCK, **OPTIONS
            )
        by_frequency, by_height = sums.double().sum(dim=(0, 2)).unbind(-1)
        return grad_x, (by_frequency / math.pi).to(ctx.types[0]), by_height.to(ctx.types[1]), None


def _on(x: Tensor) -> Any:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()

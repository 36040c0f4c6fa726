"""Counter-based noise: the sample at an absolute index is a pure function of (seed, index, stream).

Any piece of it can be asked for, in any order, and on any device, and every value is the same to the last bit. It is
therefore made of integer arithmetic, table look-ups and one addition, all of which are exact: no logarithm or cosine
whose last digit depends on the machine.

The hash is the finaliser of SplitMix64 (Steele, Lea & Flood 2014; constants of Stafford's variant 13) over a Weyl
sequence. A normal value is the sum of two independent values of a quantile table, divided by the root of two.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from melisma.constants import constant
from melisma.errors import MelismaError
from melisma.kernels import choice, ready
from melisma.kernels import excitation as kernel

_WORD = (1 << 64) - 1
_WEYL = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_TABLE_BITS = 16


def _signed(word: int) -> int:
    """The 64-bit word as the int64 that has the same bits."""
    word &= _WORD
    return word - (1 << 64) if word >> 63 else word


def _mix(word: int) -> int:
    """SplitMix64's finaliser on one Python integer."""
    word &= _WORD
    word = ((word ^ (word >> 30)) * _MIX_1) & _WORD
    word = ((word ^ (word >> 27)) * _MIX_2) & _WORD
    return word ^ (word >> 31)


@lru_cache(maxsize=256)
def _stream_keys(seed: int, streams: int) -> tuple[int, ...]:
    base = _mix(seed + _WEYL)
    return tuple(_signed(_mix(base + stream * _MIX_1)) for stream in range(streams))


@constant(8)
def _quantiles(device: torch.device) -> Tensor:
    """Normal quantiles at the middles of 2^16 equal parts, scaled so that the sum of two draws has variance one."""
    size = 1 << _TABLE_BITS
    middles = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    values = torch.special.ndtri(middles)
    values = values / (values.square().mean() * 2).sqrt()
    return values.float().to(device)


def _xor_shift(words: Tensor, shift: int) -> Tensor:
    # >> keeps the sign of an int64, so the bits that it moved in are masked away.
    return words.bitwise_xor_((words >> shift).bitwise_and_((1 << (64 - shift)) - 1))


def counter_normal(seed: int, start: int, count: int, streams: int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise, a pure function of (seed, absolute index, stream).

    Args:
        seed: any integer; seeds that differ give independent noise.
        start: absolute index of the first row (sample or frame); may be negative.
        count: number of rows.
        streams: number of independent columns (harmonics or channels); a column does not depend on how many there are.
        device: where the noise is made; the values do not depend on it.

    Returns:
        float32 ``(count, streams)``; the row at absolute index ``i`` is the same whatever piece is asked for.
    """
    if count < 0 or streams < 1:
        raise MelismaError(f"counter_normal needs count >= 0 and streams >= 1, not {count} and {streams}")
    device = torch.device(device)
    if device.type == "cpu" and ready.usable(choice.excitation()) and kernel.worth_loading(count * streams):
        return kernel.normal(start, count, _stream_keys(seed, streams), (_WEYL, _MIX_1, _MIX_2), _quantiles(device))
    weyl = torch.arange(count, device=device).mul_(_signed(_WEYL)).add_(_signed(start * _WEYL))
    keys = torch.tensor(_stream_keys(seed, streams), dtype=torch.int64, device=device)
    words = weyl.unsqueeze(1) + keys
    words = _xor_shift(words, 30).mul_(_signed(_MIX_1))
    words = _xor_shift(words, 27).mul_(_signed(_MIX_2))
    # The last shift of the finaliser only serves the lowest bits; the two highest parts of the word are read instead.
    table = _quantiles(device)
    mask = (1 << _TABLE_BITS) - 1
    first = (words >> (64 - _TABLE_BITS)).bitwise_and_(mask)
    second = words.bitwise_right_shift_(64 - 2 * _TABLE_BITS).bitwise_and_(mask)
    values = table.take(first).add_(table.take(second))
    return values.reshape(count, streams)


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose of several that must be independent, such as source noise and feature noise."""
    word = seed
    for byte in purpose.encode():
        word = _mix(word * 257 + byte + 1)
    return _mix(word) >> 1


def counter_uniform(seed: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """``count`` uniform values in [0, 1), float32, a pure function of (seed, position)."""
    words = [_mix(_mix(seed) + (position + 1) * _WEYL) >> 40 for position in range(count)]
    return torch.tensor([math.ldexp(word, -24) for word in words], dtype=torch.float32, device=device)

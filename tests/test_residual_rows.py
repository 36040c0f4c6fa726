"""Residual blocks chunk by chunk in one kernel, against the same layer by layer."""

from contextlib import nullcontext
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from melisma.kernels import choice, ready, rounding, workers
from melisma.kernels.amx import AmxConvolution
from melisma.kernels.matrix_numba import WIDE
from melisma.kernels.residual import Taps
from melisma.kernels.winograd import Winograd
from melisma.layers import residual_rows, rows
from melisma.layers.activations import AntiAliased, SnakeBeta
from melisma.layers.residual import Leaky, ResidualBlock1
from melisma.layers.streaming import Memory, State
from melisma.layers.weight_norm import fold

pytestmark = pytest.mark.skipif(not choice.filtering().fast, reason=choice.filtering().why)

TILES = pytest.param("tiles", marks=pytest.mark.skipif(not choice.tiles().fast, reason=choice.tiles().why))
KINDS = {"taps": Taps, "filtered": Winograd, "tiles": AmxConvolution}


@pytest.fixture(autouse=True)
def _listening():
    ready.force()
    with torch.inference_mode():
        yield


def made(channels: int = 32, kernel: int = 7, snaky: bool = False) -> ResidualBlock1:
    torch.manual_seed(kernel)

    def activation(count: int) -> nn.Module:
        return AntiAliased(SnakeBeta(count)) if snaky else Leaky()

    with torch.inference_mode(False):
        block = fold(ResidualBlock1(channels, kernel, (1, 3, 5), activation)).eval().requires_grad_(False)
        for layer in (*block.convs1, *block.convs2):
            layer.weight.mul_(10.0)  # those of training fade away
    return block


def signal(time: int, channels: int = 32) -> Tensor:
    return rows.as_rows(torch.randn(1, channels, time, generator=torch.Generator().manual_seed(time)))


def streamed(
    block: ResidualBlock1, x: Tensor, sizes: list[int], plain: tuple[int, ...] = ()
) -> tuple[Tensor, list[State]]:
    """The outputs joined, and the states on the way."""
    state: State | None = None
    out, states, start = [], [], 0
    for number, size in enumerate(sizes):
        memory = Memory(state, last=number == len(sizes) - 1)
        with choice.plain() if number in plain else nullcontext():
            out.append(block.step(x[..., start : start + size], memory))
        state, start = memory.state, start + size
        states.append(state)
    assert start == x.shape[-1]
    return torch.cat(out, dim=-1), states


@pytest.mark.parametrize("form", ["taps", "filtered", TILES])
@pytest.mark.parametrize("kernel", [3, 11])
@pytest.mark.parametrize("channels", [32, 64])
@pytest.mark.parametrize("snaky", [False, True], ids=["leaky", "snakes"])
def test_a_block_in_one_kernel_is_the_block_layer_by_layer(
    form: Literal["taps", "filtered", "tiles"], kernel: int, channels: int, snaky: bool
) -> None:
    block = made(channels, kernel, snaky)
    many = 100 if form == "taps" else 200
    sizes = [many, many, many // 2 if form == "taps" else many, many]
    x = signal(sum(sizes), channels)
    taken = []
    whole = residual_rows.next_chunk

    def seen(*given):
        taken.append(type(given[2][0]))
        return whole(*given)

    with pytest.MonkeyPatch.context() as patched, rounding.halved(form == "tiles"):
        patched.setattr(residual_rows, "next_chunk", seen)
        found, states = streamed(block, x, sizes)
    assert taken == [KINDS[form]] * len(sizes)
    with choice.plain():
        expected = block(x.contiguous())
        _, others = streamed(block, x, sizes)
    near = 2e-2 if form == "tiles" else 1e-5
    assert (found - expected).abs().max() <= near * expected.abs().max()
    for state, other in zip(states, others, strict=True):
        assert set(state) == set(other)
        for name, values in state.items():
            there = other[name].float()
            assert values.shape == there.shape
            assert (values.float() - there).abs().max() <= near * max(1.0, there.abs().max().item())


@pytest.mark.parametrize(
    "sizes", [[300], [1, 299], [20, 0, 130, 149, 1], [200, 100, 0], [131, 5, 5, 159], [2, 1, 3, 5, 289], [290, 2, 3, 5]]
)
@pytest.mark.parametrize("plain", [(), (0,), (1, 3)])
@pytest.mark.parametrize("snaky", [False, True], ids=["leaky", "snakes"])
def test_any_chunks_by_anyone_give_the_whole(sizes: list[int], plain: tuple[int, ...], snaky: bool) -> None:
    block, x = made(snaky=snaky), signal(300)
    with choice.plain():
        expected = block(x.contiguous())
    found, _ = streamed(block, x, sizes, plain)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("snaky", [False, True], ids=["leaky", "snakes"])
def test_sixteen_channels_are_filtered_where_there_are_many_samples(snaky: bool) -> None:
    block, x = made(16, 7, snaky), signal(400, 16)
    assert residual_rows.next_step(block, x, Memory(None)) is not None
    fits = WIDE <= 16  # the columns of a panel: thirty-two with AVX-512, sixteen without
    assert (residual_rows.next_step(block, x[..., :100], Memory(None)) is not None) == fits
    found, _ = streamed(block, x, [200, 50, 150])
    with choice.plain():
        expected = block(x.contiguous())
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_blocks_side_by_side_are_one_after_the_other(threads: int) -> None:
    blocks, x = [made(kernel=kernel) for kernel in (3, 7, 11)], signal(400)
    alone = [block.step(x, Memory(None)) for block in blocks]
    memory, before = Memory(None), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with workers.ours():
            found = residual_rows.side_by_side(blocks, x, [memory.at(number) for number in range(3)])
    finally:
        torch.set_num_threads(before)
    assert found is not None
    assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
    assert {name.split(".")[0] for name in memory.state} == {"0", "1", "2"}


def test_what_does_not_fit_goes_layer_by_layer() -> None:
    x, memory = signal(300), Memory(None)
    with torch.inference_mode(False):
        odd = fold(ResidualBlock1(40, 3, (1, 3, 5), lambda _: Leaky())).eval().requires_grad_(False)
        pair = fold(ResidualBlock1(32, 3, (1, 3), lambda _: Leaky())).eval().requires_grad_(False)
        learning = ResidualBlock1(32, 3, (1, 3, 5), lambda _: Leaky())
    for block in (pair, learning):
        assert residual_rows.next_step(block, x, memory) is None
    assert residual_rows.next_step(odd, signal(300, 40), memory) is None
    assert residual_rows.next_step(made(), x.contiguous(), memory) is None
    with choice.plain():
        assert residual_rows.next_step(made(), x, memory) is None
    assert memory.state == {}

"""Layers chunk by chunk: joined, the steps are the forward of the whole, however it is cut."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from melisma.errors import MelismaError
from melisma.layers.activations import AntiAliased, SnakeBeta
from melisma.layers.convolution import CausalConvolution, Convolution, Upsampling
from melisma.layers.framing import Framing, MovingAverage, Neighbours, PulseTrain, Subframes, Unframing
from melisma.layers.residual import RESIDUAL_BLOCKS, Leaky
from melisma.layers.streaming import Memory, State

CUTS = st.lists(st.integers(0, 9), min_size=0, max_size=8)


def stepped(layer: Any, x: Tensor, cuts: list[int], *settings: object) -> Tensor:
    """Run a layer over ``x`` in chunks of the given sizes and the rest."""
    state: State | None = None
    out, start = [], 0
    for size in [*cuts, x.shape[-1]]:
        memory = Memory(state)
        out.append(layer.step(x[..., start : start + size], memory, *settings))
        state, start = memory.state, start + size
    out.append(layer.step(x[..., :0], Memory(state, last=True), *settings))
    return torch.cat(out, dim=-1)


def random(channels: int, length: int) -> Tensor:
    return torch.randn(2, channels, length, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


@given(st.sampled_from([1, 3, 5, 11]), st.integers(1, 5), st.integers(1, 30), CUTS)
@settings(max_examples=40, deadline=None)
def test_convolution(kernel: int, dilation: int, length: int, cuts: list[int]) -> None:
    layer = Convolution(3, 4, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2).double()
    x = random(3, length)
    torch.testing.assert_close(stepped(layer, x, cuts), layer(x), rtol=0, atol=1e-12)


@given(st.integers(1, 6), st.integers(1, 8), CUTS)
@settings(max_examples=40, deadline=None)
def test_convolution_with_a_stride_and_its_own_padding(stride: int, windows: int, cuts: list[int]) -> None:
    layer = Convolution(2, 3, 2 * stride, stride=stride).double()
    x = random(2, stride * windows)
    left = (stride + 1) // 2
    whole = layer(nn.functional.pad(x, (left, stride - left)))
    torch.testing.assert_close(stepped(layer, x, cuts, left, stride - left), whole, rtol=0, atol=1e-12)


@given(st.integers(1, 5), st.integers(0, 9), st.integers(1, 12), st.booleans(), st.booleans(), CUTS)
@settings(max_examples=60, deadline=None)
def test_upsampling(stride: int, more: int, length: int, aligned: bool, biased: bool, cuts: list[int]) -> None:
    kernel = stride + more
    layer = Upsampling(3, 2, kernel, stride=stride, padding=more // 2, bias=biased).double()
    x = random(3, length)
    whole = layer(x)
    if aligned:
        first = more % 2
        whole = whole[..., first : first + length * stride]
        torch.testing.assert_close(stepped(layer, x, cuts, first), whole, rtol=0, atol=1e-12)
    else:
        torch.testing.assert_close(stepped(layer, x, cuts), whole, rtol=0, atol=1e-12)


@given(st.integers(1, 20), CUTS)
@settings(max_examples=30, deadline=None)
def test_activations(length: int, cuts: list[int]) -> None:
    for layer in (Leaky(), AntiAliased(SnakeBeta(3)).double()):
        torch.testing.assert_close(
            stepped(layer, random(3, length), cuts), layer(random(3, length)), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("kind", RESIDUAL_BLOCKS)
@given(cuts=CUTS)
@settings(max_examples=10, deadline=None)
def test_residual_blocks(kind: int, cuts: list[int]) -> None:
    block = RESIDUAL_BLOCKS[kind](3, 5, (1, 3), lambda channels: AntiAliased(SnakeBeta(channels))).double()
    x = random(3, 25)
    torch.testing.assert_close(stepped(block, x, cuts), block(x), rtol=0, atol=1e-12)


@given(st.sampled_from([3, 7]), st.integers(1, 30), CUTS)
@settings(max_examples=20, deadline=None)
def test_depthwise_convolution(kernel: int, length: int, cuts: list[int]) -> None:
    layer = Convolution(3, 3, kernel, padding=kernel // 2, groups=3).double()
    x = random(3, length)
    torch.testing.assert_close(stepped(layer, x, cuts), layer(x), rtol=0, atol=1e-12)


@given(st.sampled_from([1, 3, 7]), st.integers(1, 3), st.integers(1, 20), CUTS)
@settings(max_examples=20, deadline=None)
def test_causal_convolution_never_lags(kernel: int, dilation: int, length: int, cuts: list[int]) -> None:
    layer = CausalConvolution(2, 2, kernel, dilation=dilation).double()
    x = random(2, length)
    whole = layer(x)
    assert whole.shape == x.shape
    torch.testing.assert_close(stepped(layer, x, cuts), whole, rtol=0, atol=1e-12)
    assert layer.step(x[..., :1], Memory(None)).shape[-1] == 1


@given(st.integers(1, 40), CUTS)
@settings(max_examples=20, deadline=None)
def test_framing_and_back(length: int, cuts: list[int]) -> None:
    x = random(2, 4 * length)[:, 0].float()
    framing, unframing = Framing(16, 4, (6, 6), 12), Unframing(16, 4)
    whole = framing(x)
    assert whole.shape == (2, length, 9)
    state: State | None = None
    frames, sound, start = [], [], 0
    for number, size in enumerate([*cuts, x.shape[-1], 0]):
        last = number == len(cuts) + 1
        memory = Memory(state, last)
        frames.append(framing.step(x[:, start : start + size], memory.at("framing"), None if last else 5))
        sound.append(unframing.step(frames[-1], memory.at("unframing")))
        state, start = memory.state, start + size
    torch.testing.assert_close(torch.cat(frames, dim=1), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat(sound, dim=1), unframing(whole), rtol=0, atol=1e-5)


@given(st.sampled_from([1, 3, 5]), st.booleans(), st.integers(1, 12), CUTS)
@settings(max_examples=30, deadline=None)
def test_moving_average(width: int, causal: bool, length: int, cuts: list[int]) -> None:
    layer, x = MovingAverage(width, causal), random(3, length)
    whole = layer(x)
    left, right = (width - 1, 0) if causal else (width // 2, width // 2)
    expected = [x[..., max(0, i - left) : i + right + 1].mean(-1) for i in range(length)]
    torch.testing.assert_close(whole, torch.stack(expected, dim=-1), rtol=0, atol=1e-12)
    torch.testing.assert_close(stepped(layer, x, cuts), whole, rtol=0, atol=1e-12)


@given(st.integers(1, 4), st.booleans(), st.integers(1, 12), CUTS)
@settings(max_examples=30, deadline=None)
def test_subframes(count: int, causal: bool, length: int, cuts: list[int]) -> None:
    layer, x = Subframes(count, causal), random(3, length)
    whole = layer(x.transpose(1, 2)).transpose(1, 2)
    points = (np.arange(count * length) + (1.0 if causal else 0.5)) / count - (1.0 if causal else 0.5)
    expected = np.stack([np.interp(points, np.arange(length), row) for row in x.flatten(0, 1)]).reshape(whole.shape)
    torch.testing.assert_close(whole, torch.from_numpy(expected), rtol=0, atol=1e-6)
    state: State | None = None
    out, start = [], 0
    for number, size in enumerate([*cuts, length, 0]):
        memory = Memory(state, last=number == len(cuts) + 1)
        out.append(layer.step(x[..., start : start + size].transpose(1, 2), memory))
        state, start = memory.state, start + size
    torch.testing.assert_close(torch.cat(out, dim=1).transpose(1, 2), whole, rtol=0, atol=1e-12)


@given(st.integers(1, 12), CUTS)
@settings(max_examples=40, deadline=None)
def test_neighbours(length: int, cuts: list[int]) -> None:
    layer, x = Neighbours(0.25), random(3, length).transpose(1, 2)
    where = (torch.arange(length) % 3 > 0).double().expand(2, -1)
    whole = layer(x, where)
    held = np.pad(x.numpy(), ((0, 0), (1, 1), (0, 0)), mode="edge")
    averaged = 0.25 * held[:, :-2] + 0.5 * held[:, 1:-1] + 0.25 * held[:, 2:]
    expected = torch.where(where.unsqueeze(-1) > 0, torch.from_numpy(averaged), x)
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-12)
    state: State | None = None
    out, start = [], 0
    for number, size in enumerate([*cuts, length, 0]):
        memory, part = Memory(state, last=number == len(cuts) + 1), slice(start, start + size)
        out.append(layer.step(x[:, part], memory, where[:, part]))
        state, start = memory.state, start + size
    torch.testing.assert_close(torch.cat(out, dim=1), whole, rtol=0, atol=1e-12)


@given(st.lists(st.sampled_from([0.0, 100.0, 160.0, 900.0]), min_size=1, max_size=12), CUTS)
@settings(max_examples=30, deadline=None)
def test_pulse_train(curve: list[float], cuts: list[int]) -> None:
    layer, f0_hz = PulseTrain(8000, 32), torch.tensor([curve, curve[::-1]])
    phase = torch.tensor([[0.25], [0.5]])
    torch.testing.assert_close(stepped(layer, f0_hz, cuts, phase), layer(f0_hz, phase), rtol=0, atol=1e-5)


def test_a_step_leaves_its_state_as_it_was() -> None:
    layer = Convolution(1, 1, 3, padding=1)
    first = Memory(None)
    layer.step(torch.ones(1, 1, 4), first)
    before = {name: value.clone() for name, value in first.state.items()}
    once, twice = (layer.step(torch.zeros(1, 1, 4), Memory(first.state)) for _ in range(2))
    assert torch.equal(once, twice)
    assert before.keys() == first.state.keys()
    assert all(torch.equal(before[name], value) for name, value in first.state.items())


def test_what_is_kept_is_no_view_of_a_chunk() -> None:
    """A view would keep every chunk alive and memory would not be flat."""
    memory = Memory(None)
    Convolution(1, 1, 3, padding=1).step(torch.ones(1, 1, 1000), memory)
    assert all(value.untyped_storage().nbytes() <= 100 for value in memory.state.values())


def test_a_finished_state_is_refused() -> None:
    with pytest.raises(MelismaError, match="finished"):
        Memory(Memory(None, last=True).state)

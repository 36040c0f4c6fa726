"""Streams whose channels lie side by side: the same layers, by kernels, and with the same state."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from test_nsf_hifigan import CONFIGS, inputs
from torch import Tensor

from melisma.generators.nsf_hifigan import NsfHifigan
from melisma.kernels import choice
from melisma.layers import rows
from melisma.layers.activations import AntiAliased, SnakeBeta
from melisma.layers.convolution import Convolution, Upsampling
from melisma.layers.streaming import Memory, State
from melisma.layers.weight_norm import fold
from melisma.source import Randomness

pytestmark = pytest.mark.skipif(not choice.convolutions().fast, reason=choice.convolutions().why)


@pytest.fixture(autouse=True)
def _listening():
    with torch.inference_mode():
        yield


def signal(channels: int, time: int) -> Tensor:
    return rows.as_rows(torch.randn(1, channels, time, generator=torch.Generator().manual_seed(time)))


def test_a_layout_is_no_other_signal() -> None:
    x = torch.randn(1, 5, 7)
    assert not rows.is_rows(x)
    assert rows.is_rows(rows.as_rows(x))
    assert rows.is_rows(rows.as_rows(x)[..., 2:5])
    assert torch.equal(rows.as_rows(x), x)
    batch = torch.randn(2, 5, 7)
    assert rows.as_rows(batch) is batch


@pytest.fixture(params=[True, False], ids=["in one product", "by oneDNN"])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether few samples are made in one product, as without AVX-512."""
    taken: bool = request.param
    monkeypatch.setattr(choice, "short_convolutions", lambda: choice.Choice("", taken, ""))
    return taken


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 5), (4, 1), (7, 3), (11, 5)])
@pytest.mark.parametrize("time", [60, 300])
def test_convolutions_of_rows(kernel: int, dilation: int, time: int, short: bool) -> None:
    layer = Convolution(32, 64, kernel, dilation=dilation).eval()
    x = signal(32, time)
    made = rows.convolved(layer, x)
    assert made is not None
    assert rows.is_rows(made)
    torch.testing.assert_close(made, layer(x.contiguous()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("stride", "kernel"), [(2, 4), (3, 8), (8, 16), (5, 5)])
def test_upsampling_of_rows(stride: int, kernel: int, short: bool) -> None:
    layer = Upsampling(32, 16, kernel, stride=stride, bias=False).eval()
    x = signal(32, 9)
    made = rows.upsampled(layer, x)
    assert made is not None
    torch.testing.assert_close(made, layer(x.contiguous()), rtol=0, atol=1e-5)


def test_what_does_not_fit_is_left_to_torch() -> None:
    x = signal(32, 40)
    assert rows.convolved(Convolution(32, 32, 3, groups=32).eval(), x) is None
    assert rows.convolved(Convolution(32, 32, 3, stride=2).eval(), x) is None
    assert rows.convolved(Convolution(32, 1, 3).eval(), x) is None
    layer = Convolution(32, 32, 3)
    assert rows.convolved(layer, x) is None, "in training"
    assert rows.convolved(layer.eval(), x.contiguous()) is None
    with choice.plain():
        assert rows.convolved(layer, x) is None
    with torch.inference_mode(False), torch.enable_grad():
        assert rows.convolved(Convolution(32, 32, 3).eval(), signal(32, 40)) is None


def test_changed_weights_are_heard() -> None:
    with torch.inference_mode(False):
        layer = Convolution(32, 32, 3).eval().requires_grad_(False)
    x = signal(32, 40)
    before = rows.convolved(layer, x)
    with torch.inference_mode(False):
        layer.weight.mul_(2.0)
        layer.bias.mul_(2.0)  # type: ignore[union-attr]
    after = rows.convolved(layer, x)
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after, 2.0 * before, rtol=0, atol=1e-5)


@pytest.mark.skipif(not choice.snake().fast, reason=choice.snake().why)
@pytest.mark.parametrize("sizes", [[50], [1, 2, 3, 4, 40], [7, 0, 13, 30]])
def test_snakes_of_rows(sizes: list[int]) -> None:
    layer = AntiAliased(SnakeBeta(32)).eval().requires_grad_(False)
    x, state, out, start = signal(32, 50), None, [], 0
    for number, size in enumerate(sizes):
        memory = Memory(state, last=number == len(sizes) - 1)
        out.append(layer.step(x[..., start : start + size], memory))
        state, start = memory.state, start + size
    torch.testing.assert_close(torch.cat(out, dim=-1), layer(x.contiguous()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("plain", [(), (1, 3)], ids=["by kernels", "in turns"])
@pytest.mark.parametrize("name", ["plain", "speaker", "snake", "resblock2", "odd-up", "mini", "rvc", "bigvgan"])
def test_steps_give_the_forward_whoever_makes_them(name: str, plain: tuple[int, ...]) -> None:
    """A state that kernels left goes on in plain code, and the other way round."""
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIGS[name], upsample_initial_channel=128)
    generator = fold(NsfHifigan(config)).eval().requires_grad_(False)
    sizes = [3, 50, 4, 20, 1]
    features, f0, speaker = inputs(generator, sum(sizes))
    drawn = generator.randomness(f0, 2, 0, sum(sizes))
    with choice.plain():
        whole = generator(features, f0, speaker, drawn)
    state: State | None = None
    out, start = [], 0
    for number, size in enumerate(sizes):
        part = slice(start, start + size)
        hop = generator.hop_length
        noise = None if drawn.noise is None else drawn.noise[:, start * hop : (start + size) * hop]
        feature_noise = None if drawn.feature_noise is None else drawn.feature_noise[..., part]
        given = Randomness(drawn.initial_phase, noise, feature_noise)
        with choice.plain() if number in plain else nullcontext():
            audio, state = generator.step(
                features[..., part], None if f0 is None else f0[:, part], speaker, state, given,
                last=number == len(sizes) - 1,
            )  # fmt: skip
        out.append(audio)
        start += size
    made = torch.cat(out, dim=-1)
    assert made.shape == whole.shape
    assert (made - whole).abs().max() <= 1e-4 * whole.std()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("name", ["plain", "snake"])
def test_half_precision_rounds_in_tiles_alone(
    name: str, tiles: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them a stream stays in float32, whatever autocast says; with them it is as near as the forward."""
    if not tiles:
        monkeypatch.setattr(choice, "tiles", lambda: choice.Choice("none", False, "for comparison"))
    elif not choice.tiles().fast:
        pytest.skip(choice.tiles().why)
    torch.manual_seed(0)
    generator = fold(NsfHifigan(dataclasses.replace(CONFIGS[name], upsample_initial_channel=256))).eval()
    generator.requires_grad_(False)
    for part in generator.modules():
        if isinstance(part, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
            torch.nn.init.normal_(part.weight, std=0.5 * part.weight[0].numel() ** -0.5)
    features, f0, speaker = inputs(generator, 40)
    drawn = generator.randomness(f0, 2, 0, 40)

    def streamed() -> Tensor:
        state: State | None = None
        out = []
        for start in range(0, 40, 10):
            part = slice(start, start + 10)
            hop = generator.hop_length
            noise = None if drawn.noise is None else drawn.noise[:, part.start * hop : part.stop * hop]
            given = (features[..., part], None if f0 is None else f0[:, part], speaker, state)
            audio, state = generator.step(*given, Randomness(drawn.initial_phase, noise), last=start == 30)
            out.append(audio)
        return torch.cat(out, dim=-1)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        exact = streamed()
        with torch.autocast("cpu", torch.bfloat16):
            made = streamed()
    finally:
        torch.set_num_threads(before)
    lost = (made - exact).square().sum() / exact.square().sum()
    assert made.dtype == torch.float32
    assert 1e-8 < lost < 1e-4 if tiles else lost < 1e-10


def test_the_end_of_a_stream_that_brings_no_frames_is_made_by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIGS["plain"], upsample_initial_channel=128)
    generator = fold(NsfHifigan(config)).eval().requires_grad_(False)
    features, f0, _ = inputs(generator, 20)
    drawn = generator.randomness(f0, 2, 0, 20)
    first, state = generator.step(features, f0, None, None, drawn)
    seen = []
    wanted = rows.wanted
    monkeypatch.setattr(rows, "wanted", lambda *given: seen.append(wanted(*given)) or seen[-1])  # type: ignore[func-returns-value]
    rest, _ = generator.step(features[..., :0], f0[:, :0], None, state, Randomness(drawn.initial_phase), last=True)
    assert seen[0]
    whole = generator(features, f0, None, drawn)
    assert (torch.cat([first, rest], dim=-1) - whole).abs().max() <= 1e-4 * whole.std()

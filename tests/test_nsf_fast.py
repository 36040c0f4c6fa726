"""The packed generator against its plain forward, over every setting of the tests beside it."""

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from test_nsf_hifigan import CONFIGS, SMALL, inputs, made

from melisma.generators import nsf_fast
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.kernels import amx, choice, winograd
from melisma.kernels.convolution import PackedConvolution
from melisma.layers.weight_norm import fold

pytestmark = pytest.mark.skipif(not choice.convolutions().fast, reason=choice.convolutions().why)
REORDER = torch.ops.mkldnn._reorder_convolution_weight if choice.convolutions().fast else None
parametrised = pytest.mark.parametrize("name", CONFIGS)


def listening(name: str) -> NsfHifigan:
    return fold(made(name)).requires_grad_(False)  # type: ignore[return-value]


@parametrised
@pytest.mark.parametrize(("frames", "batch"), [(1, 1), (7, 2), (150, 1)])
def test_equals_the_plain_forward(name: str, frames: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nsf_fast, "_TILE_SAMPLES", (700, 1000))  # several tiles a stage
    generator = listening(name)
    features, f0, speaker = inputs(generator, frames, batch)
    drawn = generator.randomness(f0, 2, 0, frames)
    if generator.config.activation != "leaky-relu" and not choice.snake().fast:
        pytest.skip(choice.snake().why)
    assert nsf_fast.packed(generator, features) is not None
    found = generator(features, f0, speaker, drawn)
    with choice.plain():
        assert nsf_fast.packed(generator, features) is None
        expected = generator(features, f0, speaker, drawn)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.std()
    assert not torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize("filtering", [False, True])
@pytest.mark.parametrize("name", ["plain", "snake", "mini", "bigvgan", "resblock2"])
def test_wide_blocks_equal_the_plain_forward(name: str, filtering: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without minimal filtering, in pieces and whole."""
    if not choice.filtering().fast:
        if filtering:
            pytest.skip(choice.filtering().why)
    elif not filtering:
        monkeypatch.setattr(choice, "filtering", lambda: NO_KERNEL)
    config = dataclasses.replace(CONFIGS[name], upsample_initial_channel=128)
    torch.manual_seed(0)
    generator = fold(NsfHifigan(config)).eval().requires_grad_(False)
    known, heard = generator.halo_frames + 20, 20 * generator.hop_length
    features, f0, speaker = inputs(generator, known + 13)
    drawn = generator.randomness(f0, 2, 0, known + 13)
    plan = nsf_fast.packed(generator, features)
    assert plan is not None
    filters = [isinstance(c, winograd.Winograd) for b in plan.stages[0].blocks for c in b.steps[0].convolutions]
    assert all(filters) if filtering else not any(filters)
    found = generator(features, f0, speaker, drawn)
    with choice.plain():
        expected = generator(features, f0, speaker, drawn)
    assert (found - expected).abs().max() <= 1e-4 * expected.std()
    part = generator(features[..., :known], f0[:, :known], speaker, generator.randomness(f0, 2, 0, known))
    assert (part - found[..., : part.shape[-1]])[..., :heard].abs().max() <= 1e-4 * expected.std()


@parametrised
def test_a_tile_reads_no_more_than_it_says(name: str) -> None:
    """It may begin when that is there, whatever stands in the rest of the stage before."""
    generator = listening(name)
    features, _, _ = inputs(generator, 4)
    plan = nsf_fast.packed(generator, features)
    if plan is None:
        pytest.skip(choice.snake().why)
    for number, stage in enumerate(plan.stages):
        channels = generator.config.channels(number)
        before = torch.randn(220, channels, generator=torch.Generator().manual_seed(number))
        for excited in (False, True):
            length = stage.length(before.shape[0], excited)
            for first, stop in ((0, length // 3), (length // 3, length // 2), (length - 40, length)):
                low, high = stage.read(first, stop, length, excited)
                poisoned = torch.full_like(before, torch.nan)
                there = slice(max(0, low), min(high, before.shape[0]))
                poisoned[there] = before[there]
                expected = stage(before, None, first, stop, excited)
                assert torch.equal(stage(poisoned, None, first, stop, excited), expected)


NO_KERNEL = choice.Choice("onednn-tiles", False, "for comparison")


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """To change what the machine has; what was decided before is decided again, then and afterwards."""
    decisions = (choice.bfloat16_convolutions, choice.half_precision, choice.tiles)
    for decision in decisions:
        decision.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for decision in decisions:
        decision.cache_clear()


KINDS: dict[str, type] = {"filtering": winograd.Winograd, "tiles": amx.AmxConvolution, "onednn": PackedConvolution}


@pytest.mark.parametrize("way", KINDS)
@pytest.mark.parametrize("name", ["plain", "snake", "mini", "bigvgan"])
def test_bfloat16_is_within_forty_decibels(name: str, way: str, decided: pytest.MonkeyPatch) -> None:
    """As the audio of real size: wide stages in bfloat16 or coarsely filtered, narrow ones and all sums in float32."""
    if way == "tiles":
        if not choice.tiles().fast:
            pytest.skip(choice.tiles().why)
    else:
        decided.setattr(choice, "tiles", lambda: NO_KERNEL)
    if way == "filtering":
        if not choice.filtering().fast:
            pytest.skip(choice.filtering().why)
        decided.setattr(choice, "bfloat16_instructions", lambda: ("avx512-bf16",))
        decided.setattr(choice, "half_precision", lambda: choice.filtering())
    elif way == "onednn":
        decided.setattr(choice, "filtering", lambda: NO_KERNEL)
    if not choice.bfloat16_convolutions().fast:
        pytest.skip(choice.bfloat16_convolutions().why)
    config = dataclasses.replace(CONFIGS[name], upsample_initial_channel=256)
    torch.manual_seed(0)
    generator = fold(NsfHifigan(config)).eval().requires_grad_(False)
    for part in generator.modules():
        if isinstance(part, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
            torch.nn.init.normal_(part.weight, std=0.5 * part.weight[0].numel() ** -0.5)
    features, f0, _ = inputs(generator, 20)
    drawn = generator.randomness(f0, 2, 0, 20)
    exact = generator(features, f0, None, drawn)
    with torch.autocast("cpu", torch.bfloat16):
        plan = nsf_fast.packed(generator, features)
        rough = generator(features, f0, None, drawn)
    assert plan is not None
    assert {type(c) for b in plan.stages[0].blocks for c in b.steps[0].convolutions} == {KINDS[way]}
    few = {"onednn": 32, "filtering": 64, "tiles": math.inf}[way]  # tiles are not oneDNN's
    for number, stage in enumerate(plan.stages):
        assert stage.dtype == (torch.float32 if config.channels(number + 1) < few else torch.bfloat16)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).square().sum() < 1e-4 * exact.square().sum()


@pytest.mark.parametrize("filtering", [False, True])
def test_where_onednn_refuses_bfloat16_filtering_or_the_plain_forward_is_taken(
    filtering: bool, decided: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    decided.setattr(choice, "tiles", lambda: NO_KERNEL)
    if not filtering:
        decided.setattr(choice, "filtering", lambda: NO_KERNEL)
    elif not choice.filtering().fast:
        pytest.skip(choice.filtering().why)
    decided.setattr(choice, "bfloat16_instructions", lambda: () if filtering else ("avx512-bf16",))
    decided.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", refuses)
    refusal = choice.Choice("torch", False, "bf16 path needs the cpu support avx512bw")
    assert choice.bfloat16_convolutions() == refusal
    generator = listening("plain")
    features = inputs(generator, 4)[0]
    decided.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", REORDER)
    with torch.autocast("cpu", torch.bfloat16):
        plan = nsf_fast.packed(generator, features)
    if filtering:
        assert plan is not None
        assert plan.stages[0].dtype == torch.float32
    else:
        assert plan is None
        assert choice.half_precision() == refusal


def test_changed_weights_are_heard() -> None:
    generator = listening("plain")
    features, f0, _ = inputs(generator, 5)
    drawn = generator.randomness(f0, 2, 0, 5)
    before = generator(features, f0, None, drawn)
    assert nsf_fast.packed(generator, features) is nsf_fast.packed(generator, features)
    with torch.no_grad():
        generator.resblocks[0].convs1[0].weight.mul_(1.5)  # type: ignore[union-attr, index]
    after = generator(features, f0, None, drawn)
    assert not torch.equal(before, after)
    with choice.plain():
        torch.testing.assert_close(after, generator(features, f0, None, drawn), rtol=0, atol=1e-5)


def test_training_and_gradients_take_the_plain_forward() -> None:
    features = torch.zeros(1, SMALL.in_channels, 4)
    assert nsf_fast.packed(made("plain"), features) is None  # weight norm
    assert nsf_fast.packed(fold(made("plain")), features) is None  # weights that want gradients
    with torch.no_grad():
        assert nsf_fast.packed(fold(made("plain")), features) is not None
    assert nsf_fast.packed(listening("plain").train(), features) is None
    assert nsf_fast.packed(listening("plain"), features.requires_grad_()) is None
    assert nsf_fast.packed(listening("plain").double(), features.double()) is None


def test_threads_do_not_change_the_audio() -> None:
    generator = fold(NsfHifigan(NsfHifiganConfig(44100, 8, upsample_initial_channel=64))).eval().requires_grad_(False)
    features, f0, _ = inputs(generator, 40)
    drawn = generator.randomness(f0, 2, 0, 40)
    before = torch.get_num_threads()
    audio = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            audio.append(generator(features, f0, None, drawn))
    finally:
        torch.set_num_threads(before)
    assert (audio[0] - audio[1]).abs().max() <= 1e-6

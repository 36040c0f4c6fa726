"""The convolutional generator: what must be true of it under every setting."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from melisma.audio.mel import MelContract
from melisma.config import to_mapping
from melisma.errors import MelismaError
from melisma.generators import GENERATORS, build_generator, name_of
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.layers.activations import AntiAliased, SnakeBeta, lowpass_taps
from melisma.layers.weight_norm import fold, unfold
from melisma.source import Randomness

SMALL = NsfHifiganConfig(
    sample_rate=8000,
    in_channels=6,
    upsample_rates=(4, 2, 2),
    upsample_kernel_sizes=(8, 4, 4),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3), (1, 2)),
)
CONFIGS = {
    "plain": SMALL,
    "speaker": dataclasses.replace(SMALL, speaker_channels=5, padding="up"),
    "snake": dataclasses.replace(SMALL, activation="snakebeta", padding="up"),
    "resblock2": dataclasses.replace(SMALL, resblock=2),
    "odd": dataclasses.replace(SMALL, upsample_rates=(3, 5, 3), upsample_kernel_sizes=(8, 10, 3)),
    "odd-up": dataclasses.replace(SMALL, upsample_rates=(3, 5, 3), upsample_kernel_sizes=(8, 10, 3), padding="up"),
    "ones": dataclasses.replace(SMALL, upsample_rates=(4, 3, 1), upsample_kernel_sizes=(7, 3, 2), padding="up"),
    "framed": dataclasses.replace(SMALL, framed_phase=True, unvoiced="interpolated"),
    "mini": dataclasses.replace(SMALL, source="mini", feature_noise=0.1, unvoiced="interpolated"),
    "rvc": dataclasses.replace(SMALL, overtones=0, final_bias=False, speaker_channels=4, speaker_required=False),
    "hifigan": dataclasses.replace(SMALL, source="none"),
    "hifigan-odd": dataclasses.replace(SMALL, source="none", upsample_kernel_sizes=(9, 5, 4)),
    "bigvgan": dataclasses.replace(
        SMALL, source="none", activation="snake", activation_before_upsampling=False, final_activation="clamp"
    ),
}
parametrised = pytest.mark.parametrize("name", CONFIGS)


def made(name: str) -> NsfHifigan:
    torch.manual_seed(1)
    generator = NsfHifigan(CONFIGS[name])
    for parameter_name, parameter in generator.named_parameters():
        if parameter_name.endswith("original0"):  # the training initialisation is too quiet to see differences
            torch.nn.init.constant_(parameter, 1.0 if "post" not in parameter_name else 0.3)
    return generator.eval()


def inputs(generator: NsfHifigan, frames: int, batch: int = 1) -> tuple[Tensor, Tensor, Tensor | None]:
    config = generator.config
    drawing = torch.Generator().manual_seed(frames)
    features = torch.randn(batch, config.in_channels, frames, generator=drawing)
    f0 = 120 + 60 * torch.rand(batch, frames, generator=drawing)
    f0[:, frames // 2 : frames // 2 + 2] = 0
    channels = config.speaker_channels
    return features, f0, torch.randn(batch, channels, 1, generator=drawing) if channels else None


@parametrised
@pytest.mark.parametrize("frames", [1, 7])
def test_length_is_frames_times_hop(name: str, frames: int) -> None:
    generator = made(name)
    audio = generator(*inputs(generator, frames))
    assert audio.shape == (1, 1, frames * generator.hop_length)
    assert audio.abs().max() <= 1


@pytest.mark.parametrize("name", ["plain", "odd", "odd-up", "ones"])
def test_padding_is_the_familys(name: str) -> None:
    """The references' own formulas; where they give another length, what both have must agree."""
    generator = fold(made(name))
    config, frames = generator.config, 6
    up = config.padding == "up"
    excitation = torch.randn(1, 1, frames * generator.hop_length)
    for stage, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
        x = torch.randn(1, config.channels(stage), frames * generator.hop_length // (rate * config.remaining(stage)))
        raising = generator.ups[stage]
        expected = torch.nn.functional.conv_transpose1d(
            x, raising.weight, raising.bias, stride=rate, padding=(kernel - rate + up) // 2
        )
        found = generator._aligned(raising(x), stage, frames)
        assert found.shape[-1] == rate * x.shape[-1]
        common = min(found.shape[-1], expected.shape[-1])
        torch.testing.assert_close(found[..., :common], expected[..., :common], rtol=0, atol=1e-5)
        if stage + 1 < len(config.upsample_rates):
            share, step = generator.noise_convs[stage], config.remaining(stage)
            expected = torch.nn.functional.conv1d(
                excitation, share.weight, share.bias, stride=step, padding=(step + up) // 2
            )
            shared = generator._share(excitation, stage)
            assert shared.shape == found.shape
            common = min(shared.shape[-1], expected.shape[-1])
            torch.testing.assert_close(shared[..., :common], expected[..., :common], rtol=0, atol=1e-5)


@parametrised
def test_batch_equals_single(name: str) -> None:
    generator = made(name)
    features, f0, speaker = inputs(generator, 6, batch=3)
    together = generator(features, f0, speaker, generator.randomness(f0, 5, 0, 6))
    for item in range(3):
        one = slice(item, item + 1)
        alone = generator(
            features[one], f0[one], None if speaker is None else speaker[one], generator.randomness(f0[one], 5, 0, 6)
        )
        torch.testing.assert_close(together[one], alone, rtol=0, atol=2e-5)


@parametrised
def test_pieces_equal_the_whole(name: str) -> None:
    generator = made(name)
    halo, hop = generator.halo_frames, generator.hop_length
    frames = 3 * halo + 11
    features, f0, speaker = inputs(generator, frames)
    whole = generator(features, f0, speaker, generator.randomness(f0, 9, 0, frames))
    pieces = []
    for start, stop in pairwise([0, halo + 3, 2 * halo + 4, frames]):
        first, last = max(0, start - halo), min(frames, stop + halo)
        drawn = generator.randomness(f0, 9, first, last - first)
        audio = generator(features[..., first:last], f0[:, first:last], speaker, drawn)
        pieces.append(audio[..., (start - first) * hop : (stop - first) * hop])
    assert (torch.cat(pieces, dim=-1) - whole).abs().max() < 1e-5


@parametrised
def test_halo_is_what_the_audio_depends_on(name: str) -> None:
    """Too small a halo is wrong; one that is far too large wastes work on every piece."""
    generator = made(name).double()
    halo = generator.halo_frames
    frames, middle = 4 * halo + 1, 2 * halo
    features, f0, speaker = (None if given is None else given.double() for given in inputs(generator, frames))
    assert features is not None
    assert f0 is not None
    drawn = generator.randomness(f0, 0, 0, frames)
    changed = features.clone()
    changed[..., middle] += 10
    gap = generator(features, f0, speaker, drawn) - generator(changed, f0, speaker, drawn)
    touched = gap[0, 0].reshape(frames, -1).abs().amax(dim=1).nonzero().flatten() - middle
    assert halo / 2 <= touched.abs().max() <= halo


@parametrised
def test_gradients_reach_every_weight(name: str) -> None:
    generator = NsfHifigan(CONFIGS[name]).train()
    features, f0, speaker = inputs(generator, 5)
    audio = generator(features, f0, speaker)
    (audio * torch.randn_like(audio)).sum().backward()
    for weight_name, parameter in generator.named_parameters():
        assert parameter.grad is not None, weight_name
        assert parameter.grad.abs().sum() > 0, weight_name


@parametrised
def test_folding_changes_nothing(name: str) -> None:
    generator = made(name)
    features, f0, speaker = inputs(generator, 5)
    drawn = generator.randomness(f0, 1, 0, 5)
    before = generator(features, f0, speaker, drawn)
    folded = fold(copy.deepcopy(generator))
    assert not any("parametrizations" in key for key in folded.state_dict())
    assert torch.equal(folded(features, f0, speaker, drawn), before)
    again = unfold(folded)
    assert sorted(again.state_dict()) == sorted(generator.state_dict())
    torch.testing.assert_close(again(features, f0, speaker, drawn), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "speaker", "snake", "odd", "framed", "mini", "hifigan-odd"])
def test_traced_graph_equals_eager_at_other_lengths(name: str) -> None:
    generator = fold(made(name))

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = generator

        def forward(
            self, features: Tensor, f0: Tensor, speaker: Tensor | None, phase: Tensor, noise: Tensor, extra: Tensor
        ) -> Tensor:
            return self.generator(features, f0, speaker, Randomness(phase, noise, extra))

    def arguments(frames: int) -> tuple[Tensor | None, ...]:
        config, drawing = generator.config, torch.Generator().manual_seed(3)
        features, f0, speaker = inputs(generator, frames)
        harmonics = config.overtones + 1
        noise = torch.randn(1, frames * generator.hop_length, harmonics, generator=drawing)
        extra = torch.randn(1, config.channels(0), frames, generator=drawing)
        return features, f0, speaker, torch.rand(1, harmonics, generator=drawing), noise, extra

    frames = torch.export.Dim("frames", min=2, max=4096)
    shapes = {
        "features": {2: frames},
        "f0": {1: frames},
        "speaker": None,
        "phase": None,
        "noise": {1: generator.hop_length * frames},
        "extra": {2: frames},
    }
    exported = torch.export.export(Traced(), arguments(9), dynamic_shapes=shapes).module()
    for length in (4, 9, 23):
        given = arguments(length)
        torch.testing.assert_close(exported(*given), Traced()(*given), rtol=0, atol=1e-5)


@parametrised
def test_a_seed_always_gives_the_same_audio_and_another_does_not(name: str) -> None:
    generator = made(name)
    features, f0, speaker = inputs(generator, 4)
    drawn = [generator(features, f0, speaker, generator.randomness(f0, seed, 0, 4)) for seed in (3, 3, 4)]
    assert torch.equal(drawn[0], drawn[1])
    if generator.config.source == "harmonic" or generator.config.feature_noise:
        assert not torch.equal(drawn[0], drawn[2])


def test_speaker_may_change_from_frame_to_frame() -> None:
    generator = made("speaker")
    features, f0, speaker = inputs(generator, 6)
    assert speaker is not None
    drawn = generator.randomness(f0, 0, 0, 6)
    held = generator(features, f0, speaker.expand(-1, -1, 6), drawn)
    torch.testing.assert_close(held, generator(features, f0, speaker, drawn), rtol=0, atol=1e-6)


def test_attributes_and_table() -> None:
    mel = MelContract(8000, 64, 64, 16, 6, 0.0, None)
    config = dataclasses.replace(SMALL, mel=mel)
    generator = build_generator("nsf-hifigan", to_mapping(config))
    assert generator.config == config
    assert name_of(generator) == "nsf-hifigan"
    assert (generator.sample_rate, generator.hop_length, generator.mel) == (8000, 16, mel)
    assert generator.f0_contract == "zero"
    assert made("mini").f0_contract == "interpolated"
    assert made("hifigan").f0_contract is None
    assert set(GENERATORS) >= {"nsf-hifigan"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"upsample_kernel_sizes": (8, 4)}, "equally long"),
        ({"upsample_kernel_sizes": (2, 4, 4)}, "at least as large"),
        ({"resblock_kernel_sizes": (3, 4)}, "must be odd"),
        ({"resblock_kernel_sizes": (3,)}, "equally long"),
        ({"upsample_initial_channel": 4}, "cannot be halved"),
        ({"source": "mini", "upsample_rates": (4,), "upsample_kernel_sizes": (8,)}, "two upsamplings"),
        ({"mel": MelContract(8000, 64, 64, 8, 6, 0.0, None)}, "hop_length: the generator has 16"),
    ],
)
def test_impossible_settings_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(MelismaError, match=said):
        dataclasses.replace(SMALL, **changes)


def test_wrong_inputs_are_refused_with_the_cure() -> None:
    generator = made("speaker")
    features, f0, speaker = inputs(generator, 4)
    for arguments, said in (
        ((features[:, :3], f0, speaker), "features must be"),
        ((features, None, speaker), "needs F0"),
        ((features, f0[:, :3], speaker), "must be .batch, frames."),
        ((features, f0, None), "needs a speaker"),
        ((features, f0, speaker[:, :2]), "speaker must be"),  # type: ignore[index]
    ):
        with pytest.raises(MelismaError, match=said):
            generator(*arguments)
    with pytest.raises(MelismaError, match="no speaker input"):
        made("plain")(*inputs(made("plain"), 4)[:2], torch.zeros(1, 5, 1))


def test_anti_aliased_activation_keeps_a_low_tone_and_does_not_alias() -> None:
    taps = lowpass_taps()
    assert taps.sum() == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(taps, taps.flip(0))
    activation = AntiAliased(torch.nn.Identity())
    time = torch.arange(512) / 512
    low = torch.sin(2 * torch.pi * 20 * time).reshape(1, 1, -1)
    torch.testing.assert_close(activation(low)[..., 20:-20], low[..., 20:-20], rtol=0, atol=5e-3)
    high = torch.sin(2 * torch.pi * 200 * time).reshape(1, 1, -1)
    snake = SnakeBeta(1)
    bare, clean = snake(high), AntiAliased(snake)(high)
    folded_bin = 512 - 2 * 200  # sin^2 makes 400 cycles, which fold to 112
    amount = [torch.fft.rfft(x[0, 0]).abs()[folded_bin] for x in (bare.detach(), clean.detach())]
    assert amount[1] < 0.4 * amount[0]  # twelve taps do not do more so near the edge

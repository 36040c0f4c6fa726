"""Streams of every generator: any chunks give the whole, the latency is what is stated, the state can be saved."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import golden_cases
import numpy as np
import pytest
import test_nsf_hifigan as nsf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_vocoder import MODELS as KINDS
from test_vocoder import SMALL_MEL

from melisma.cli import main
from melisma.errors import MelismaError
from melisma.generators import GENERATORS, name_of
from melisma.generators.analytic import Analytic, AnalyticConfig
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.inference.streaming import Stream, latency_in_words, lookahead_samples
from melisma.inference.vocoder import Info, Vocoder
from melisma.interop import build
from melisma.layers.streaming import State
from melisma.layers.weight_norm import fold
from melisma.training.recipe import read_recipe

FRAMES = 150
CHUNKS = st.lists(st.sampled_from([0, 1, 1, 2, 3, 7, 20, 61]), max_size=12)


def _spectral(**settings: object) -> Spectral:
    torch.manual_seed(0)
    small = {"mel": SMALL_MEL, "channels": 16, "blocks": 2, "kernel_size": 5, "projections": 0}
    model = Spectral(SpectralConfig(**{**small, **settings}))  # type: ignore[arg-type]
    torch.nn.init.normal_(model.head.weight, std=0.05)
    return model


# Without projections the spectral family streams with its own step, with them it is made again with its context.
PLAIN = {
    "analytic-plain": lambda: Analytic(AnalyticConfig(mel=SMALL_MEL, n_fft=256, projections=0)),
    "spectral-plain": lambda: _spectral(n_fft=256),
    "odd-subframes": lambda: _spectral(
        mel=dataclasses.replace(SMALL_MEL, hop_length=120, n_fft=480, win_length=480), n_fft=320, subframes=3
    ),
    "no-draft": lambda: _spectral(draft=False),
    "never-settled": lambda: _spectral(settles=0),
    "settled-twice": lambda: _spectral(n_fft=256, settles=2),
    "averaged": lambda: _spectral(n_fft=256, settles=1, settle_average=0.25, settles_alone=1),
    "held": lambda: _spectral(n_fft=256, hold_frames=5),
    "even-noise": lambda: _spectral(n_fft=256, noise="even"),
    "causal": lambda: _spectral(n_fft=128, subframes=4, causal=True, draft=False),
    "causal-drafted": lambda: _spectral(n_fft=256, subframes=4, causal=True, settles=0),
    "causal-settled": lambda: _spectral(n_fft=128, subframes=4, causal=True),
    "causal-averaged": lambda: _spectral(n_fft=128, subframes=4, causal=True, settle_average=0.25),
    "causal-analytic": lambda: Analytic(AnalyticConfig(mel=SMALL_MEL, n_fft=256, projections=0, causal=True)),
}
# Few rounds of projection, so that the context is much shorter than the clip.
PROJECTED = {
    "analytic": lambda: Analytic(AnalyticConfig(mel=SMALL_MEL, n_fft=256, projections=1, low_rounds=1)),
    "spectral": lambda: _spectral(n_fft=256, projections=1, low_rounds=1),
    "held-projected": lambda: _spectral(n_fft=256, projections=1, low_rounds=1, hold_frames=3),
}
MODELS = KINDS | PROJECTED | PLAIN


def made(name: str) -> Vocoder:
    generator = MODELS[name]()
    for weight, parameter in generator.named_parameters():
        if weight.endswith("original0"):  # the training initialisation is too quiet to see differences
            torch.nn.init.constant_(parameter, 1.0 if "post" not in weight else 0.3)
    return Vocoder(fold(generator), Info(name, name))


@pytest.fixture(scope="module")
def vocoders() -> dict[str, Vocoder]:
    return {name: made(name) for name in MODELS}


def features(frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """A rough mel and an F0 with gaps, also at both ends."""
    drawing = np.random.default_rng(1)
    mel = np.clip(-4.0 + drawing.standard_normal((SMALL_MEL.n_mels, frames)), -11.5, 0.0).astype(np.float32)
    f0_hz = (200.0 + 80.0 * np.sin(np.arange(frames) / 9.0)).astype(np.float32)
    for first, last in ((0, 4), (30, 31), (60, 85), (frames - 6, frames)):
        f0_hz[first:last] = 0.0
    return mel, f0_hz


def streamed(stream: Stream, mel: np.ndarray, f0_hz: np.ndarray, chunks: Sequence[int]) -> np.ndarray:
    """Push everything in chunks of these sizes and the rest at once."""
    out, start = [], 0
    for size in [*chunks, mel.shape[-1]]:
        out.append(stream.push(mel[..., start : start + size], f0_hz[start : start + size]))
        start += size
    return np.concatenate([*out, stream.finish()], axis=-1)


def test_every_generator_of_the_table_is_streamed_here(vocoders: dict[str, Vocoder]) -> None:
    assert {name_of(vocoder.generator) for vocoder in vocoders.values()} == set(GENERATORS)


@pytest.mark.parametrize("name", MODELS)
def test_chunks_give_what_the_whole_gives(name: str, vocoders: dict[str, Vocoder]) -> None:
    vocoder = vocoders[name]
    mel, f0_hz = features()
    whole = vocoder.synthesize(mel, f0_hz, seed=7)
    assert whole.std() > 1e-3

    @given(chunks=CHUNKS)
    @settings(max_examples=8, deadline=None)
    def check(chunks: list[int]) -> None:
        made = streamed(vocoder.stream(seed=7), mel, f0_hz, chunks)
        assert made.shape == whole.shape
        assert np.abs(made - whole).max() <= 1e-5

    check()
    assert np.abs(streamed(vocoder.stream(seed=7), mel, f0_hz, [1] * FRAMES) - whole).max() <= 1e-5
    other = streamed(vocoder.stream(seed=8), mel, f0_hz, [10])
    assert np.allclose(other, whole, atol=1e-5) == (name == "hifi-gan")


@pytest.mark.parametrize("name", nsf.CONFIGS)
@given(chunks=st.lists(st.integers(0, 6), max_size=7))
@settings(max_examples=6, deadline=None)
def test_steps_give_the_forward_and_leave_the_stated_rest(name: str, chunks: list[int]) -> None:
    generator = fold(nsf.made(name))
    assert isinstance(generator, NsfHifigan)
    frames, hop = 40, generator.hop_length
    mel, f0_hz, speaker = nsf.inputs(generator, frames, batch=2)
    with torch.inference_mode():
        whole = generator(mel, f0_hz, speaker, generator.randomness(f0_hz, 3, 0, frames))
        state: State | None = None
        out, start, count = [], 0, 0
        for size in [*chunks, frames]:
            stop = min(frames, start + size)
            drawn = generator.draws(3, start, stop - start, 2)
            part = (mel[..., start:stop], f0_hz[:, start:stop], speaker)
            audio, state = generator.step(*part, state=state, randomness=drawn)
            out.append(audio)
            start, count = stop, count + audio.shape[-1]
            assert count == max(0, stop * hop - generator.lookahead_samples)
        audio, _ = generator.step(mel[..., :0], f0_hz[:, :0], speaker, state=state, last=True)
    assert (torch.cat([*out, audio], dim=-1) - whole).abs().max() <= 1e-5


@pytest.mark.parametrize("name", PLAIN)
def test_an_impulse_shows_the_stated_latency_of_the_spectral_family(name: str) -> None:
    """Nothing before the stated sample changes with a frame of mel and F0, and something soon after does."""
    generator = made(name).generator
    hop, frames = generator.hop_length, 3 * generator.halo_frames
    middle = frames // 2
    mel, f0_hz = (torch.from_numpy(values)[None] for values in features(frames))
    f0_hz[f0_hz == 0] = 200.0
    drawn = generator.randomness(f0_hz, 0, 0, frames)
    changed, moved = mel.clone(), f0_hz.clone()
    changed[..., middle] += 2.0
    moved[:, middle] *= 1.3
    whole = generator(mel, f0_hz, randomness=drawn)
    gap = (generator(changed, moved, randomness=drawn) - whole).abs().flatten()
    gap[gap < 1e-6] = 0.0  # moving averages and transforms round a little everywhere
    first = int(gap.nonzero()[0])
    stated = middle * hop - generator.lookahead_samples
    # Smoothed ripple and the edges of a draft's windows decide little; what the backbone sees shows.
    config = generator.config
    sees = (config.blocks + 1) * (config.kernel_size // 2) if isinstance(config, SpectralConfig) else 0
    drafts = len(generator.stages) if generator.drafts else 0
    soon = stated + (2 + drafts) * hop if config.causal else (middle + 1 - sees) * hop
    assert stated <= first <= soon
    state: State | None = None
    count = 0
    for frame in range(frames):
        part = slice(frame, frame + 1)
        noise = generator.draws(0, frame, 1)
        audio, state = generator.step(mel[..., part], f0_hz[:, part], state=state, randomness=noise)
        torch.testing.assert_close(audio, whole[..., count : count + audio.shape[-1]], rtol=0, atol=1e-5)
        count += audio.shape[-1]
        assert count == max(0, (frame + 1) * hop - generator.lookahead_samples)


@pytest.mark.parametrize(("name", "seconds"), [("melisma-44k-causal", 0.020), ("melisma-44k-live", 0.060)])
def test_causal_recipes_look_ahead_by_their_windows_alone(name: str, seconds: float) -> None:
    """And by the windows that a draft is heard through, where there is one."""
    recipe = read_recipe(Path(__file__).parent.parent / "recipes" / f"{name}.yaml")
    generator = Spectral(dataclasses.replace(recipe.generator, channels=8, blocks=1))
    assert lookahead_samples(generator) / generator.sample_rate <= seconds
    assert recipe.generator.projections == 0
    with pytest.raises(MelismaError, match="makes no projections"):
        generator(torch.full((1, 128, 4), -5.0), torch.full((1, 4), 200.0), projections=2)
    with pytest.raises(MelismaError, match="projections 2; set it to 0"):
        dataclasses.replace(recipe.generator, projections=2)


def test_a_speaker_may_change_from_frame_to_frame_in_a_stream() -> None:
    generator = nsf.made("speaker")
    mel, f0_hz, speaker = nsf.inputs(generator, 9)
    assert speaker is not None
    moving = speaker * torch.linspace(0, 2, 9)
    whole = generator(mel, f0_hz, moving, generator.randomness(f0_hz, 0, 0, 9))
    state: State | None = None
    out = []
    for frame in range(9):
        part = slice(frame, frame + 1)
        audio, state = generator.step(
            mel[..., part], f0_hz[:, part], moving[..., part], state, generator.draws(0, frame, 1), last=frame == 8
        )
        out.append(audio)
    torch.testing.assert_close(torch.cat(out, dim=-1), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", nsf.CONFIGS)
def test_an_impulse_shows_the_stated_latency(name: str) -> None:
    """The first sample that a frame changes is the first that waits for it."""
    generator = nsf.made(name).double()
    frames = 2 * generator.halo_frames + 3
    middle = generator.halo_frames + 1
    mel, f0_hz, speaker = (None if x is None else x.double() for x in nsf.inputs(generator, frames))
    assert mel is not None
    assert f0_hz is not None
    drawn = generator.randomness(f0_hz, 0, 0, frames)
    changed = mel.clone()
    changed[..., middle] += 10
    gap = generator(mel, f0_hz, speaker, drawn) - generator(changed, f0_hz, speaker, drawn)
    first = int(gap.abs().flatten().nonzero()[0])
    stated = middle * generator.hop_length - generator.lookahead_samples
    # The outer taps of the anti-aliasing filters are so small that many in a row vanish in double precision.
    loose = generator.lookahead_samples // 2 if generator.config.is_anti_aliased else generator.hop_length // 4
    assert stated <= first <= stated + loose


@pytest.mark.parametrize("name", MODELS)
def test_what_was_given_is_decided_and_waits_no_longer_than_stated(name: str, vocoders: dict[str, Vocoder]) -> None:
    """A stream that goes on in two ways has given the same so far; of n frames no more than the stated rest waits."""
    vocoder = vocoders[name]
    mel, f0_hz = features(200)
    f0_hz[f0_hz == 0] = 150.0
    first, second = vocoder.stream(), vocoder.stream()
    count = 0
    for start in range(0, 200, 5):
        count += first.push(mel[:, start : start + 5], f0_hz[start : start + 5]).size
        assert count >= (start + 5) * vocoder.hop_length - first.lookahead_samples
    loud = mel.copy()
    loud[:, 150:] += 3.0
    f0_hz[150:] *= 1.5
    before = [stream.push(values[:, :150], f0_hz[:150]) for stream, values in ((second, loud), (vocoder.stream(), mel))]
    assert before[0].size > 0
    assert np.array_equal(*before)
    whole = vocoder.synthesize(loud, f0_hz)
    assert np.abs(whole[: before[0].size] - before[0]).max() <= 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_stream_goes_on(name: str, vocoders: dict[str, Vocoder]) -> None:
    vocoder = vocoders[name]
    mel, f0_hz = features()
    whole = vocoder.synthesize(mel, f0_hz, seed=4)
    stream = vocoder.stream(seed=4)
    out = [stream.push(mel[:, :70], f0_hz[:70])]
    again = made(name).stream()
    again.restore(stream.save())
    out += [again.push(mel[:, 70:], f0_hz[70:]), again.finish()]
    assert np.abs(np.concatenate(out) - whole).max() <= 1e-5
    ended = made(name).stream()
    ended.restore(again.save())
    with pytest.raises(MelismaError, match="finished"):
        ended.push(mel, f0_hz)


def test_a_state_is_refused_by_another_model_and_when_it_is_none(vocoders: dict[str, Vocoder]) -> None:
    saved = vocoders["nsf-hifigan"].stream().save()
    with pytest.raises(MelismaError, match=r"saved with another model .nsf-hifigan. than analytic"):
        vocoders["analytic"].stream().restore(saved)
    torch.manual_seed(5)
    other = made("nsf-hifigan")
    torch.nn.init.normal_(other.generator.conv_post.weight)
    with pytest.raises(MelismaError, match="another model"):
        other.stream().restore(saved)
    for damaged in (b"", b"\x80\x04}.", saved[:40], torch.zeros(3).numpy().tobytes()):
        with pytest.raises(MelismaError, match="not the state of a stream"):
            vocoders["analytic"].stream().restore(damaged)


@pytest.mark.parametrize("name", MODELS)
def test_ends_of_a_stream(name: str, vocoders: dict[str, Vocoder]) -> None:
    vocoder = vocoders[name]
    mel, f0_hz = features(1)
    empty = vocoder.stream()
    assert empty.finish().shape == (0,)
    with pytest.raises(MelismaError, match="push: this stream is finished"):
        empty.push(mel, f0_hz)
    with pytest.raises(MelismaError, match="finish: this stream is finished"):
        empty.finish()
    one = vocoder.stream(seed=1)
    assert one.push(mel[:, :0], f0_hz[:0]).shape == (0,)
    sung = np.concatenate([one.push(mel, f0_hz), one.finish()])
    assert np.abs(sung - vocoder.synthesize(mel, f0_hz, seed=1)).max() <= 1e-5


def test_batches_stream_and_wrong_chunks_leave_the_stream_as_it_was(vocoders: dict[str, Vocoder]) -> None:
    for name in ("nsf-hifigan", "mini-nsf", "analytic"):
        vocoder = vocoders[name]
        mel, f0_hz = features()
        both, curves = np.stack([mel, mel[:, ::-1]]), np.stack([f0_hz, f0_hz[::-1]])
        curves[1, 20:50] = 0
        stream = vocoder.stream(seed=2)
        out = [stream.push(both[..., :25], curves[:, :25])]
        for wrong, curve, said in (
            (both[..., :5], curves[:, :4], "has 4 frames, the features have 5"),
            (both[..., :0], curves[:, :4], "0 frames"),
            (both[:, :3], curves, "channels"),
            (mel, f0_hz, "same batch"),
            (both * np.nan, curves, "NaN"),
            (both[..., :5], None, "needs F0"),
        ):
            with pytest.raises(MelismaError, match=said):
                stream.push(wrong, curve)
        out += [stream.push(both[..., 25:26], curves[:, 25:26]), stream.push(both[..., 26:], curves[:, 26:])]
        audio = np.concatenate([*out, stream.finish()], axis=1)
        assert np.abs(audio - vocoder.synthesize(both, curves, seed=2)).max() <= 1e-5


@pytest.mark.parametrize("name", golden_cases.names())
def test_models_of_the_community_step(name: str) -> None:
    """In double precision: snakes with random weights make 1e-5 of what single precision rounds, in any forward."""
    case = golden_cases.read(name)
    generator = build(case.kind, case.config, case.state()).double()
    assert isinstance(generator, NsfHifigan)
    mel, f0_hz, speaker = (None if given is None else given[:1].double() for given in case.inputs())
    assert mel is not None
    frames = mel.shape[-1]
    drawn = generator.randomness(torch.zeros(1, frames) if f0_hz is None else f0_hz, 6, 0, frames)
    whole = generator(mel, f0_hz, speaker, drawn)
    state: State | None = None
    out = []
    for start in range(0, frames, 5):
        part = slice(start, min(start + 5, frames))
        curve = None if f0_hz is None else f0_hz[:, part]
        last = part.stop == frames
        draws = generator.draws(6, start, part.stop - start)
        audio, state = generator.step(mel[..., part], curve, speaker, state, draws, last)
        out.append(audio)
    torch.testing.assert_close(torch.cat(out, dim=-1), whole, rtol=0, atol=1e-10)


def test_a_stream_takes_a_speaker() -> None:
    torch.manual_seed(0)
    config = NsfHifiganConfig(
        sample_rate=16000, in_channels=40, mel=SMALL_MEL, upsample_rates=(8, 4, 4), upsample_kernel_sizes=(16, 8, 8),
        upsample_initial_channel=16, speaker_channels=3,
    )  # fmt: skip
    info = Info("many", "many", details={"speakers": {"alto": 1}})
    vocoder = Vocoder(NsfHifigan(config), info, speakers=torch.randn(2, 3))
    mel, f0_hz = features()
    whole = vocoder.synthesize(mel, f0_hz, speaker="alto")
    assert np.abs(streamed(vocoder.stream(speaker="alto"), mel, f0_hz, [3, 40]) - whole).max() <= 1e-5
    with pytest.raises(MelismaError, match="needs a speaker"):
        vocoder.stream().push(mel, f0_hz)


def test_lookahead_of_the_common_models() -> None:
    """At 44.1 kHz and hop 512: three frames at the features, and 60 samples at 689 Hz in the first residual blocks."""
    common = NsfHifiganConfig(sample_rate=44100, in_channels=128, upsample_initial_channel=32)
    assert lookahead_samples(NsfHifigan(common)) == 6574
    assert latency_in_words(NsfHifigan(common)) == "6574 samples (149 ms) wait for later frames"


def test_the_latency_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "analytic"]) == 0
    assert re.search(r"stream: \d+ samples \(\d+ ms\) at most .* projections, \d+ samples", capsys.readouterr().out)

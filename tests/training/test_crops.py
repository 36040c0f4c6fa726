"""What is drawn: pure functions of the seed, every semitone seen, pieces that belong together."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import CONVOLUTIONAL, HOP, MEL, RATE, adversarial, mapping, write_dataset

from melisma.audio.f0_curve import interpolate_unvoiced
from melisma.audio.mel import MelContract, log_mel
from melisma.data.dataset import Dataset
from melisma.data.shards import DatasetWriter, NewClip
from melisma.data.singer import random_phrase
from melisma.errors import MelismaError
from melisma.training.batch import MelFeatures, blurred
from melisma.training.crops import KEPT_BAND, DataSettings, Plan, Shape, cut, draw_plan
from melisma.training.recipe import Recipe, recipe_from
from melisma.training.recordings import (
    HIGHEST_HZ,
    LOWEST_HZ,
    SEMITONES,
    Chances,
    all_places,
    hold_out,
    semitones,
)
from melisma.training.trainer import Trainer

SHAPE = Shape(20, RATE, HOP)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two octaves sung, from which resampling by 4 reaches everything."""
    return write_dataset(tmp_path_factory.mktemp("wide") / "data", 6, 2.0)


def test_every_semitone_is_seen_and_about_as_often(wide: Path) -> None:
    chances = Chances(all_places([str(wide)]), {})
    settings = DataSettings(balance=1.0, resample=0.7, resample_range=(0.25, 4.0))
    assert chances.reachable(0.25, 4.0) == list(range(SEMITONES + 1))
    seen = np.zeros(SEMITONES + 1)
    rng = np.random.default_rng(0)
    for _ in range(1500):
        crop = cut(draw_plan(chances, rng, settings, SHAPE), SHAPE)
        tones = np.unique(semitones(crop.f0_hz))
        seen[tones[(tones >= 0) & (tones <= SEMITONES)]] += 1
    assert seen.min() >= 8
    assert seen.max() < 12 * np.median(seen)


def test_drawn_by_kind_some_semitones_are_rare(wide: Path) -> None:
    """What the balance mends: without it and without resampling only what is sung is seen."""
    chances = Chances(all_places([str(wide)]), {})
    settings = DataSettings(balance=0.0, resample=0.0)
    rng = np.random.default_rng(0)
    tones = np.concatenate([semitones(cut(draw_plan(chances, rng, settings, SHAPE), SHAPE).f0_hz) for _ in range(300)])
    counts = np.bincount(tones[(tones >= 0) & (tones <= SEMITONES)], minlength=SEMITONES + 1)
    assert counts.min() == 0


def test_what_no_clip_reaches_is_said(dataset: Path) -> None:
    chances = Chances(all_places([str(dataset)]), {})
    lines = chances.out_of_reach(1.0, 1.0)
    assert any("nothing is sung above" in line for line in lines)
    assert chances.out_of_reach(0.1, 10.0) == []
    low, high = chances.range_hz() or (0.0, 0.0)
    assert LOWEST_HZ / 2 < low <= high < HIGHEST_HZ


def test_a_crop_follows_from_its_generator_alone(dataset: Path) -> None:
    places = all_places([str(dataset)])
    settings = DataSettings(noise=1.0)
    crops = [
        cut(draw_plan(Chances(places, {}), np.random.default_rng(seed), settings, SHAPE), SHAPE) for seed in (3, 3, 4)
    ]
    for field in dataclasses.fields(crops[0]):
        first, second = (getattr(crop, field.name) for crop in crops[:2])
        assert np.array_equal(first, second), field.name
    assert not np.array_equal(crops[0].source, crops[2].source)


def plan(place: object, start: int = 5, **changes: object) -> Plan:
    return Plan(
        place, start, **({"ratio": 1.0, "gain_db": 0.0, "twin": False, "noise_db": None, "noise_seed": 0} | changes)
    )  # type: ignore[arg-type]


def test_a_plain_crop_is_the_stored_piece(dataset: Path) -> None:
    place = all_places([str(dataset)])[1]
    crop = cut(plan(place, gain_db=-60.0), SHAPE)
    stored = Dataset.open(dataset).audio(1, 5 * HOP, 20 * HOP)
    np.testing.assert_allclose(crop.reference, stored * 1e-3, rtol=1e-5, atol=1e-9)
    assert np.array_equal(crop.f0_hz, Dataset.open(dataset).f0_hz(1, 5, 20))
    assert crop.source is crop.reference
    twin = cut(plan(place, gain_db=-60.0, twin=True), SHAPE)
    assert np.array_equal(twin.reference, crop.reference)
    assert not np.array_equal(twin.source, crop.source)


def test_noise_disturbs_the_mel_and_not_the_target(dataset: Path) -> None:
    place = all_places([str(dataset)])[0]
    clean, noisy = (cut(plan(place, noise_db=level), SHAPE) for level in (None, -20.0))
    assert np.array_equal(clean.reference, noisy.reference)
    added = noisy.source - clean.source
    assert 10 * np.log10(np.mean(added**2) / np.mean(clean.source**2)) == pytest.approx(-20.0, abs=0.5)


def pitch(audio: np.ndarray) -> float:
    """Hz of the strongest line."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 8 * len(audio)))
    return float(np.argmax(spectrum)) * RATE / (8 * len(audio))


def write_clip(folder: Path, audio: np.ndarray, f0_hz: np.ndarray, kind: str = "made") -> Path:
    """A dataset of one clip, cut to the frames of its F0."""
    with DatasetWriter(folder, RATE, HOP, sample_format="float") as writer:
        writer.add(NewClip("clip", kind, audio[: len(f0_hz) * HOP], f0_hz, RATE / 2))
    return folder


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("rate", [16000, 24000])
def test_resampling_moves_sound_and_curve_together(tmp_path: Path, ratio: float, rate: int) -> None:
    hz = np.full(200, 300.0, dtype=np.float32)
    hz[:3] = 0
    tone = (0.5 * np.sin(2 * np.pi * 300.0 * np.arange(200 * 160) / rate)).astype(np.float32)
    with DatasetWriter(tmp_path / "tone", rate, 160, sample_format="float") as writer:
        writer.add(NewClip("tone", "made", tone, hz, rate / 2))
    place = all_places([str(tmp_path / "tone")])[0]
    shape = Shape(64, RATE, HOP)
    crop = cut(plan(place, 8, ratio=ratio), shape)
    assert crop.reference.shape == (64 * HOP,)
    assert pitch(crop.reference) == pytest.approx(300.0 * ratio, abs=4.0)
    np.testing.assert_allclose(crop.f0_hz, 300.0 * ratio, rtol=1e-4)
    assert crop.band_hz <= min(rate * ratio, RATE) / 2


@pytest.mark.parametrize("ratio", [0.6, 1.0, 1.7])
def test_a_glide_keeps_step_with_its_curve(tmp_path: Path, ratio: float) -> None:
    curve = 150.0 * 2.0 ** (np.arange(3 * RATE // HOP * HOP) / RATE)
    glide = (0.3 * np.sin(2 * np.pi * np.cumsum(curve) / RATE)).astype(np.float32)
    folder = write_clip(tmp_path / "glide", glide, curve[HOP // 2 :: HOP].astype(np.float32))
    crop = cut(plan(all_places([str(folder)])[0], 90, ratio=ratio), Shape(64, RATE, HOP))
    for first in (8, 40):
        piece = crop.reference[first * HOP : (first + 16) * HOP]
        assert pitch(piece) == pytest.approx(crop.f0_hz[first : first + 16].mean(), rel=0.01)


@pytest.mark.parametrize("ratio", [0.6, 1.0, 1.7])
def test_what_resampling_takes_away_is_not_in_the_band(tmp_path: Path, ratio: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 3 * RATE // HOP * HOP).astype(np.float32)
    folder = write_clip(tmp_path / "noise", noise, np.zeros(len(noise) // HOP, dtype=np.float32))
    crop = cut(plan(all_places([str(folder)])[0], ratio=ratio), Shape(64, RATE, HOP))
    power, hz = np.abs(np.fft.rfft(crop.reference)) ** 2, np.fft.rfftfreq(64 * HOP, 1 / RATE)
    below, above = power[(hz > 0.9 * crop.band_hz) & (hz < crop.band_hz)], power[hz > crop.band_hz / KEPT_BAND]
    assert not crop.f0_hz.any()
    assert below.mean() > 0.5 * power[hz < 0.5 * crop.band_hz].mean()
    assert above.size < 3 or above.mean() < 1e-2 * below.mean()


@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.5])
def test_behind_the_end_of_a_short_clip_is_silence_without_pitch(tmp_path: Path, ratio: float) -> None:
    tone = (0.3 * np.sin(2 * np.pi * 300.0 / RATE * np.arange(30 * HOP))).astype(np.float32)
    folder = write_clip(tmp_path / "short", tone, np.full(30, 300.0, dtype=np.float32))
    crop = cut(plan(all_places([str(folder)])[0], 0, ratio=ratio), Shape(100, RATE, HOP))
    loud = np.abs(crop.reference.reshape(100, HOP)).max(axis=1) > 0.05
    ends = int(np.flatnonzero(loud)[-1]) + 1
    assert ends == pytest.approx(30 / ratio, abs=1.5)
    assert (crop.f0_hz[: ends - 1] > 0).all()
    assert not crop.f0_hz[ends + 1 :].any()


def test_frames_of_mel_and_curve_belong_together(dataset: Path, recipe: Recipe, tmp_path: Path) -> None:
    """The batch is what the whole clip gives at that place: margins are cut where the crop's edge disturbs the mel."""
    run = Trainer(
        dataclasses.replace(
            recipe, data=dataclasses.replace(recipe.data, balance=0.0, resample=0.0, mismatch=0.0, gain_db=(0.0, 0.0))
        ),
        tmp_path,
    )
    (batch,) = run.supply.batches(0)
    margin = run.features.margin
    assert batch.reference.shape == (2, 16 * HOP)
    assert batch.features.shape == (2, 24, 16)
    assert batch.f0_hz.shape == (2, 16)
    assert batch.draws.first.noise is not None
    assert batch.draws.first.noise.shape[:2] == (2, 16 * HOP)
    for row in range(2):
        drawn = run.supply.plan(0, row)
        clip, first = drawn.place.clip, drawn.start_frame + margin
        whole = drawn.place.recordings.audio(drawn.place.index, 0, clip.samples)
        stored = whole[first * HOP : (first + 16) * HOP]
        gain = float(batch.reference[row].numpy() @ stored / (stored @ stored))
        mel = log_mel(whole * gain, MelContract(**MEL))[0, :, first : first + 16]
        torch.testing.assert_close(batch.features[row], mel, rtol=0, atol=2e-3)
        curve = drawn.place.recordings.f0_hz(drawn.place.index, first, 16)
        np.testing.assert_array_equal(batch.f0_hz[row].numpy(), curve)


@pytest.mark.parametrize("padding", ["same", "nvstft", "centre"])
def test_margins_cover_the_window(padding: str) -> None:
    mel = MelContract(**MEL | {"padding": padding})  # type: ignore[arg-type]
    features = MelFeatures(mel)
    audio = np.random.default_rng(0).standard_normal(40 * HOP).astype(np.float32)
    whole = log_mel(audio, mel)[0]
    part = features(torch.from_numpy(audio[10 * HOP : 30 * HOP])[None], None, [0])[0]
    inner = part[:, features.margin : 20 - features.margin]
    torch.testing.assert_close(inner, whole[:, 10 + features.margin : 30 - features.margin], rtol=0, atol=1e-4)


def test_f0_is_as_the_generator_wants_it(tmp_path: Path, dataset: Path) -> None:
    curves = {}
    for unvoiced in ("zero", "interpolated"):
        content = adversarial(dataset, generator=CONVOLUTIONAL | {"unvoiced": unvoiced}, batch=8)
        run = Trainer(recipe_from(content, "recipe"), tmp_path)
        curves[unvoiced] = run.supply.batches(0)[0].f0_hz.numpy()
    assert (curves["zero"] == 0).any()
    rows = (curves["zero"] > 0).any(axis=1)
    assert (curves["interpolated"][rows] > 0).all()
    voiced = curves["zero"] > 0
    np.testing.assert_array_equal(curves["interpolated"][voiced], curves["zero"][voiced])
    assert interpolate_unvoiced(curves["zero"]).shape == curves["interpolated"].shape


def test_clips_that_are_too_short_are_said(tmp_path: Path, dataset: Path) -> None:
    run = Trainer(recipe_from(mapping(dataset, data={"folders": [str(dataset)], "frames": 300}), "recipe"), tmp_path)
    assert any("shorter than a segment and are filled with silence" in note for note in run.notes)
    (batch,) = run.supply.batches(0)
    assert (batch.reference[:, -HOP:] == 0).all()
    too_long = recipe_from(mapping(dataset, data={"folders": [str(dataset)], "frames": 3000}), "recipe")
    with pytest.raises(
        MelismaError, match=r"every clip is shorter than a segment: the longest has 1\.5\d s, a segment 24"
    ):
        Trainer(too_long, tmp_path)


def test_one_clip_only(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "one", 1)
    with pytest.raises(MelismaError, match=r"one clip only \(clip-0\).*--validation\.every 0"):
        Trainer(recipe_from(mapping(folder, validation={"every": 2}), "recipe"), tmp_path / "run")
    Trainer(recipe_from(mapping(folder), "recipe"), tmp_path / "run")


def test_what_is_held_out_is_never_drawn_and_the_same_in_every_run(dataset: Path) -> None:
    places = all_places([str(dataset)])
    kept, held = hold_out(places, 0.3)
    assert {place.clip.key for place in kept} | {place.clip.key for place in held} == {f"clip-{n}" for n in range(4)}
    assert len(held) == 1
    again = hold_out(places[::-1], 0.3)[1]
    assert [place.clip.key for place in held] == [place.clip.key for place in again]


def test_kinds_are_drawn_by_their_shares(tmp_path: Path, dataset: Path) -> None:
    audio, f0_hz = random_phrase(np.random.default_rng(9), 6.0, 120.0, 200.0, RATE, HOP)
    other = write_clip(tmp_path / "speech", audio, f0_hz, "speech")
    places = all_places([str(dataset), str(other)])
    rng = np.random.default_rng(0)
    chances = Chances(places, {"made": 0.8, "speech": 0.2})
    drawn = [places[chances.clip(rng)].clip.kind for _ in range(2000)]
    assert drawn.count("speech") / len(drawn) == pytest.approx(0.2, abs=0.04)
    with pytest.raises(MelismaError, match=r"no clip of the kinds singing .* there are made, speech"):
        Chances(places, {"singing": 1.0})
    with pytest.raises(MelismaError, match="names no data"):
        all_places([])


def test_a_blurred_mel_keeps_its_mean_and_loses_its_detail(dataset: Path, recipe: Recipe, tmp_path: Path) -> None:
    sharp, blurry = (
        Trainer(
            dataclasses.replace(
                recipe, data=dataclasses.replace(recipe.data, blur=share, blur_range=(1.5, 1.5), mismatch=0.0)
            ),
            tmp_path / str(share),
        ).supply.batches(0)[0]
        for share in (0.0, 1.0)
    )
    assert torch.equal(sharp.reference, blurry.reference)
    assert torch.equal(sharp.f0_hz, blurry.f0_hz)
    detail = [features.diff(n=2, dim=1).abs().mean() for features in (sharp.features, blurry.features)]
    assert detail[1] < 0.4 * detail[0]
    means = [features.mean() for features in (sharp.features, blurry.features)]
    assert means[1] == pytest.approx(float(means[0]), abs=0.15)


def test_a_blur_holds_the_edges_and_a_flat_mel() -> None:
    assert torch.allclose(blurred(torch.full((24, 10), -3.0), 2.0, 3.0), torch.tensor(-3.0))
    step = torch.zeros(24, 10)
    step[12:] = 1.0
    made = blurred(step, 1.0, 1.0)
    assert made[0].abs().max() < 1e-6
    assert made[-1] == pytest.approx(torch.ones(10), abs=1e-6)
    assert 0.1 < made[11, 5] < 0.5 < made[12, 5] < 0.9
